//! Several daemons with one Redis: limits that hold for all of them together, and what a client sees
//! while the store is away, hangs, or wants a password.
//!
//! What a store can do to one host is shown in src/shared_store/tests.rs.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Stdio;
use std::time::{Duration, Instant};
use std::{fs, thread};

use common::client::Client;
use common::redis::RedisDir;
use common::tls::Authority;
use common::{Daemon, Site, free_port};
use data_encoding::BASE64;
use nix::unistd::geteuid;

/// A secret for a users file. The password is "pencil".
const SCRAM: &str = "{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
const SETTINGS: &str = "listen.kind = \"submission\"\nlisten.auth = \"always\"\nrelay.networks = []";
/// What the log says when the store is away.
const ALONE: &str = "this host counts alone until the store answers";

/// A site where mary may send this number of messages an hour.
fn site(store: &str, limit: usize) -> Site {
    let mut site = Site::with(SETTINGS);
    site.add("users", &format!("mary:{SCRAM}:"));
    site.set("submission", "messages_per_hour", &limit.to_string());
    site.set("shared", "store", &format!("{store:?}"));
    site
}

fn mary(daemon: &Daemon) -> Client {
    let mut client = Client::new(daemon.connect_from(Ipv4Addr::LOCALHOST));
    client.ehlo();
    client.ask(&format!("AUTH PLAIN {}", BASE64.encode(b"\0mary\0pencil")), "235 ");
    client
}

/// The codes of the replies to this number of MAIL commands of mary.
fn mail(daemon: &Daemon, count: usize) -> Vec<String> {
    let mut client = mary(daemon);
    let mut ask = || {
        let reply = client.ask("MAIL FROM:<mary@razorback>", "");
        client.ask("RSET", "250 ");
        reply.chars().take(3).collect()
    };
    (0..count).map(|_| ask()).collect()
}

/// Two hosts that count together. `mailed` is called once both use the store, and its result counts
/// only if the store has answered in time all the time, which it may not do on a busy machine.
fn two_hosts(url: &str, limit: usize, mailed: impl Fn(&[Daemon; 2])) -> [(Site, Daemon); 2] {
    for _ in 0..20 {
        let sites = [site(url, limit), site(url, limit)];
        let daemons = sites.each_ref().map(Site::start);
        daemons.iter().for_each(|daemon| _ = daemon.wait_words(&["counts are shared"]));
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| mailed(&daemons)));
        let is_together = daemons.iter().all(|daemon| !daemon.log().contains(ALONE));
        match result {
            Ok(()) if is_together => {
                let [one, other] = sites;
                let [first, second] = daemons;
                return [(one, first), (other, second)];
            }
            Err(panic) if is_together => std::panic::resume_unwind(panic),
            _ => {}
        }
    }
    panic!("the store was never there all the time");
}

#[test]
fn a_limit_holds_for_all_hosts_and_for_each_while_the_store_is_away() {
    let redis = RedisDir::new();
    let Some(running) = redis.start(&[]) else { return };
    let hosts = two_hosts(&redis.url(), 5, |daemons| {
        redis.ask(&["FLUSHALL"]);
        assert_eq!(mail(&daemons[0], 3), ["250"; 3]);
        assert_eq!(mail(&daemons[1], 3), ["250", "250", "450"]);
        assert_eq!(mail(&daemons[0], 1), ["450"]);
    });
    let status = hosts[0].0.penfoldctl(&["status"]);
    assert!(status.contains(&format!("shared store   {}, answers since ", redis.url())), "{status}");
    let metrics = hosts[0].0.penfoldctl(&["stats", "--openmetrics"]);
    assert!(metrics.contains("\npenfold_shared_store_up 1\n"), "{metrics}");
    let explained = hosts[0].0.penfoldctl(&["explain", "--login", "mary", "--from", "mary@razorback", "jon@razorback"]);
    assert!(explained.contains("450 4.7.1 Your limit of 5 messages an hour is reached"), "{explained}");
    running.kill9();
    // Each host has counted its own messages all the time.
    assert_eq!(mail(&hosts[0].1, 3), ["250", "250", "450"]);
    assert_eq!(mail(&hosts[1].1, 4), ["250", "250", "250", "450"]);
    for (site, daemon) in &hosts {
        assert_eq!(daemon.log().matches(ALONE).count(), 1, "{}", daemon.log());
        let status = site.penfoldctl(&["status"]);
        assert!(status.contains(", away since ") && status.contains("; this host counts alone"), "{status}");
        let json = site.penfoldctl(&["status", "--json"]);
        assert!(json.contains(r#""shared":{"store":"unix:"#) && json.contains(r#""answers":false"#), "{json}");
        assert!(
            site.penfoldctl(&["stats", "--report"]).contains("The shared store is away, and this host counts alone")
        );
    }
    let Some(_running) = redis.start(&[]) else { return };
    for (_, daemon) in &hosts {
        daemon.wait_words(&["answers again after ", "counts are shared"]);
    }
}

#[test]
fn a_store_that_hangs_costs_a_tenth_of_a_second_once() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let site = site(&format!("redis://{}", listener.local_addr().expect("bound")), 50);
    let daemon = site.start();
    daemon.wait_words(&["no answer in time", ALONE]);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let since = Instant::now();
                assert_eq!(mail(&daemon, 10), ["250"; 10]);
                assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
            });
        }
    });
    assert_eq!(mail(&daemon, 11), [vec!["250"; 10], vec!["450"]].concat());
    assert_eq!(daemon.log().matches(ALONE).count(), 1, "{}", daemon.log());
}

/// Each session is on a host of its own, and ends before the next one begins.
#[test]
fn sessions_of_inetd_count_together() {
    let redis = RedisDir::new();
    let Some(_running) = redis.start(&[]) else { return };
    let session = || {
        let mut site = Site::with("relay.networks = []\npolicy.messages_per_hour = 2");
        site.set("shared", "store", &format!("{:?}", redis.url()));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let stream = TcpStream::connect(listener.local_addr().expect("bound")).expect("a connection");
        let server = OwnedFd::from(listener.accept().expect("a client").0);
        let mut command = site.penfoldd(&["-i"]);
        command.stdin(server.try_clone().expect("a descriptor")).stdout(server).stderr(Stdio::null());
        let mut child = command.spawn().expect("it starts");
        // The command holds the socket as well.
        drop(command);
        let mut client = Client::new(stream);
        client.ask("HELO mail.example.org", "250 ");
        client.ask("MAIL FROM:<mary@example.org>", "250 ");
        let reply = client.ask("RCPT TO:<jon@razorback>", "");
        client.ask("QUIT", "221 ");
        child.wait().expect("its end");
        reply.chars().take(3).collect::<String>()
    };
    // On a busy machine the store may not answer in time.
    let counted = (0..20).any(|_| {
        redis.ask(&["FLUSHALL"]);
        [session(), session(), session()] == ["250", "250", "450"]
    });
    assert!(counted);
}

/// The file with the password belongs to root, if the tests do, and only root can read it.
#[test]
fn the_store_may_want_a_password_and_tls() {
    let (redis, authority, port) = (RedisDir::new(), Authority::new(), free_port());
    let mut site = site(&format!("rediss://localhost:{port}/1"), 5);
    authority.give(&site, "store", "localhost", 300);
    let (port, path) = (port.to_string(), |name: &str| site.path(name).display().to_string());
    let (certificate, key) = (path("store.pem"), path("store.key"));
    let options = ["--requirepass", "open sesame", "--tls-port", &port, "--tls-auth-clients", "no"];
    let files = ["--tls-cert-file", &certificate, "--tls-key-file", &key];
    let Some(_running) = redis.start(&[&options[..], &files].concat()) else { return };
    site.make_root_owned();
    site.set("shared", "password", &format!("{:?}", site.path("password")));
    let give = |password: &str| {
        fs::write(site.path("password.new"), password).expect("a file");
        fs::set_permissions(site.path("password.new"), fs::Permissions::from_mode(0o600)).expect("mode 600");
        if geteuid().is_root() {
            chown(site.path("password.new"), Some(0), Some(0)).expect("root can");
        }
        fs::rename(site.path("password.new"), site.path("password")).expect("a rename");
    };
    give("close sesame\n");
    let daemon = site.start();
    daemon.wait_words(&["shared store rediss://localhost:", "TLS: ", ALONE]);
    drop(daemon);
    authority.trusted_by(&mut site);
    let give = |password: &str| {
        fs::write(site.path("password"), password).expect("a file");
    };
    let daemon = site.start();
    daemon.wait_words(&["shared store rediss://localhost:", "WRONGPASS", ALONE]);
    let check = check(&site);
    assert!(check.contains("warning: host: ") && check.contains("/1 cannot be used: WRONGPASS"), "{check}");
    give("# The password of the store\nopen sesame\n");
    daemon.wait_words(&["answers again after", "counts are shared"]);
    assert!(!daemon.log().contains("sesame"), "{}", daemon.log());
    let check = self::check(&site);
    assert!(check.contains("ok: host: the shared store rediss://localhost:"), "{check}");
    assert_eq!(mail(&daemon, 1), ["250"]);
}

/// A store without passwords, which repeats the password in its error, as Redis did for commands that
/// it does not know. The first word of an error can be anything, too.
#[test]
fn a_password_that_the_store_repeats_is_not_shown() {
    for error in ["ERR unknown command 'AUTH', with args beginning with: 'sesame'", "sesame is wrong"] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut site = site(&format!("redis://{}", listener.local_addr().expect("bound")), 5);
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = stream.read(&mut [0; 512]);
                let _ = write!(stream, "-{error}\r\n");
            }
        });
        site.make_root_owned();
        site.set("shared", "password", &format!("{:?}", site.path("password")));
        fs::write(site.path("password"), "sesame\n").expect("a file");
        fs::set_permissions(site.path("password"), fs::Permissions::from_mode(0o600)).expect("mode 600");
        let daemon = site.start();
        daemon.wait_words(&["the answer to AUTH", ALONE]);
        let status = [&["status"][..], &["status", "--json"]].map(|words| site.penfoldctl(words)).concat();
        assert!(status.contains("the answer to AUTH"), "{status}");
        let all = format!("{}{status}{}", daemon.log(), check(&site));
        assert!(!all.contains("sesame") && !all.contains("in clear"), "{all}");
    }
}

/// Nothing connects to the store here.
#[test]
fn a_password_in_clear_is_warned_of() {
    let mut site = site("redis://192.0.2.6", 5);
    let test = |site: &Site| {
        let output = site.penfoldd(&["-n"]).output().expect("it runs");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    site.make_root_owned();
    site.set("shared", "password", &format!("{:?}", site.path("password")));
    assert!(!test(&site).contains("in clear"));
    fs::write(site.path("password"), "sesame\n").expect("a file");
    fs::set_permissions(site.path("password"), fs::Permissions::from_mode(0o600)).expect("mode 600");
    let log = test(&site);
    assert!(log.contains("the password goes to redis://192.0.2.6:6379 in clear"), "{log}");
}

/// The findings of a check, which fails because no port is open to the outside.
fn check(site: &Site) -> String {
    let mut command = std::process::Command::new(common::built::program("penfoldctl"));
    let output = command.arg("-f").arg(site.path("penfold.conf")).arg("check").output().expect("it runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_secret_that_is_short_or_that_others_can_read_is_reported() {
    let mut site = site("redis://127.0.0.1", 5);
    site.set("shared", "secret", &format!("{:?}", site.path("secret")));
    site.configure();
    let thirty_two = "a".repeat(32);
    for (text, mode, want) in [
        (format!("# The secret of the hosts\n{thirty_two}\n"), 0o600, ""),
        (String::new(), 0o600, ""),
        ("a".repeat(31), 0o600, "expected one line, which is the secret, with 32 to 512 octets"),
        ("a".repeat(513), 0o600, "expected one line, which is the secret"),
        (format!("{thirty_two}\n{thirty_two}\n"), 0o600, "expected one line, which is the secret"),
        (thirty_two.clone(), 0o640, "secret: "),
    ] {
        site.write("secret", &text);
        fs::set_permissions(site.path("secret"), fs::Permissions::from_mode(mode)).expect("a mode");
        let output = site.penfoldd(&["-n"]).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), want.is_empty(), "{text}: {said}");
        assert!(said.contains(want) && !said.contains("aaa"), "{text}: {said}");
    }
}

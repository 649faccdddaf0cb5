//! Password guessing against the real daemon, by many clients at once: the limits and the replies.
//! Also shows that response times do not reveal which accounts exist.
//!
//! Clients use any number of loopback addresses. The accounts are penfold's own, or behind a socket
//! that speaks Dovecot's auth protocol. In addition, a reload does not reset the message quota of
//! an account.

use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::{Duration, Instant};

use common::client::{Client, TEXT};
use common::programs::sendmail;
use common::{Daemon, Site, own};
use data_encoding::{BASE64, BASE64_NOPAD};

/// A secret for a users file. The password is "pencil".
const SCRAM: &str = "{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
/// Settings that allow AUTH without TLS, since the test's password is no secret.
const OPEN: &str = "listen.auth = \"always\"\nrelay.networks = []\nlimits.connections_per_host = 100";

/// The number of failures that one client may have. The next constant is the number for one
/// account.
const MAX_PER_CLIENT: u8 = 60;
const MAX_PER_ACCOUNT: u8 = 120;
/// The number of attempts beyond the limit: the last failures may be logged but not counted yet.
const MORE: u8 = 6;

/// A site with accounts for elvis and mary.
fn site() -> Site {
    let site = Site::with(OPEN);
    site.add("users", &format!("elvis:{SCRAM}:\nmary:{SCRAM}:"));
    site
}

/// Connects from a loopback address, and sends EHLO.
fn at(daemon: &Daemon, host: [u8; 4]) -> Client {
    let mut client = Client::new(daemon.connect_from(Ipv4Addr::from(host)));
    client.ehlo();
    client
}

fn base64(text: &str) -> String {
    BASE64.encode(text.as_bytes())
}

fn plain(name: &str, password: &str) -> String {
    format!("AUTH PLAIN {}", base64(&format!("\0{name}\0{password}")))
}

/// Sends wrong passwords at the same time, each by a client of its own, and waits until all
/// failures are logged. Returns the clients, which still wait for their replies.
fn besiege(daemon: &Daemon, attempts: impl Iterator<Item = ([u8; 4], String)>) -> Vec<Client> {
    let waiting: Vec<Client> = attempts
        .map(|(host, name)| {
            let mut client = at(daemon, host);
            client.send_text(&format!("{}\r\n", plain(&name, "stencil")));
            client
        })
        .collect();
    daemon.wait_until("the failures", || daemon.log().matches(" auth-failed ").count() >= waiting.len());
    waiting
}

/// Makes a client send each of these dialogues at the same time. Asserts that all get a temporary
/// failure.
fn all_refused(daemon: &Daemon, host: [u8; 4], lines: &[&[String]]) {
    let mut clients: Vec<Client> = lines.iter().map(|_| at(daemon, host)).collect();
    for (client, lines) in clients.iter_mut().zip(lines) {
        if let [first, _] = lines {
            client.ask(first, "334 ");
        }
        client.send_text(&format!("{}\r\n", lines.last().expect("a line")));
    }
    for (client, lines) in clients.iter_mut().zip(lines) {
        let reply = client.read_line().expect("a reply");
        assert!(reply.starts_with("454 4.7.0 "), "{lines:?}: {reply}");
    }
}

#[test]
fn after_sixty_failures_a_client_gets_no_more_answers() {
    let site = site();
    let daemon = site.start();
    let (thief, other) = ([127, 0, 2, 1], [127, 0, 2, 2]);
    let waiting = besiege(&daemon, (0..MAX_PER_CLIENT + MORE).map(|number| (thief, format!("user{number}"))));
    // To AUTH LOGIN the server replies with the failure, without asking for the name.
    let right = [[plain("elvis", "pencil")], [plain("mary", "pencil")], ["AUTH LOGIN".to_owned()]];
    all_refused(&daemon, thief, &right.each_ref().map(|lines| &lines[..]));
    drop(waiting);
    at(&daemon, other).ask(&plain("elvis", "pencil"), "235 ");
}

#[test]
fn an_account_under_attack_is_locked_and_others_are_not() {
    let site = site();
    let daemon = site.start();
    // After the name the server replies with the failure, without asking for the password.
    the_world_tries_mary(&daemon, &["AUTH LOGIN".to_owned(), base64("mary")]);
}

#[test]
fn an_account_of_dovecot_is_locked_too() {
    let mut site = Site::with(OPEN);
    let path = site.path("auth-client");
    let socket = UnixListener::bind(&path).expect("a socket");
    own(&path);
    site.set("auth", "users", &format!("\"dovecot:{}\"", path.display()));
    // The stand-in for Dovecot runs until the process of the tests ends.
    thread::spawn(move || {
        for peer in socket.incoming().map_while(Result::ok) {
            thread::spawn(move || answer(BufReader::new(peer)));
        }
    });
    let daemon = site.start();
    the_world_tries_mary(&daemon, &[plain("Mary", "pencil")]);
}

/// Speaks Dovecot's protocol on one connection. Every user's password is "pencil".
fn answer(mut peer: BufReader<std::os::unix::net::UnixStream>) -> Option<()> {
    peer.get_mut().write_all(b"VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nMECH\tLOGIN\tplaintext\nDONE\n").ok()?;
    let mut line = String::new();
    while !line.starts_with("AUTH\t") {
        line.clear();
        peer.read_line(&mut line).ok().filter(|&count| count > 0)?;
    }
    let response = line.trim_end().split_once("\tresp=")?.1;
    let text = String::from_utf8(BASE64.decode(response.as_bytes()).ok()?).ok()?;
    let fields: Vec<&str> = text.split('\0').collect();
    let verdict = if fields[2] == "pencil" { "OK" } else { "FAIL" };
    peer.get_mut().write_all(format!("{verdict}\t1\tuser={}\n", fields[1]).as_bytes()).ok()
}

/// Many hosts send wrong passwords for mary. Asserts that no client without an earlier login can
/// log in as mary afterwards, but that a client can log in as elvis. `also` is a further dialogue
/// that must fail.
fn the_world_tries_mary(daemon: &Daemon, also: &[String]) {
    let waiting = besiege(daemon, (1..=MAX_PER_ACCOUNT + MORE).map(|number| ([127, 0, 3, number], "mary".to_owned())));
    let right = [[plain("mary", "pencil")], [plain("MARY@razorback", "pencil")]];
    all_refused(daemon, [127, 0, 4, 1], &[&right[0], &right[1], also]);
    at(daemon, [127, 0, 4, 2]).ask(&plain("elvis", "pencil"), "235 ");
    drop(waiting);
}

// Response times

/// An Argon2id secret that costs as much as the server accepts. On any machine its verification
/// takes clearly longer than 250 ms, the first delay after a failure.
fn costly() -> String {
    let (memory, passes) = (65_536, 32);
    let params = argon2::Params::new(memory, passes, 1, Some(32)).expect("parameters");
    let argon2 = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    let mut out = [0; 32];
    argon2.hash_password_into(b"pencil", b"saltsaltsalt", &mut out).expect("a hash");
    let (salt, out) = (BASE64_NOPAD.encode(b"saltsaltsalt"), BASE64_NOPAD.encode(&out));
    format!("{{ARGON2ID}}$argon2id$v=19$m={memory},t={passes},p=1${salt}${out}")
}

/// The least time that the verification of a [`costly`] secret takes.
const COSTLY: Duration = Duration::from_millis(500);

#[test]
fn response_times_do_not_reveal_accounts() {
    let site = Site::with(OPEN);
    let secret = costly();
    site.add("users", &format!("mary:{secret}:\npaul:{secret}:"));
    let daemon = site.start();
    let mut host = 0;
    // The test takes the faster of two attempts, since a busy machine is slow now and then. Even
    // the delay after the second failure of a name is shorter than the verification.
    let mut quickest = |name: &str, steps: &dyn Fn(&mut Client)| {
        let tries = (0..2).map(|_| {
            host += 1;
            let mut client = at(&daemon, [127, 0, 5, host]);
            let start = Instant::now();
            steps(&mut client);
            start.elapsed()
        });
        let least = tries.min().expect("two");
        println!("a wrong password for {name}: {least:?}");
        assert!(least > COSTLY, "{name}: {least:?}");
        least
    };
    let mut by_plain = |name: &str| quickest(name, &|client| drop(client.ask(&plain(name, "stencil"), "535 ")));
    let plains = (by_plain("mary"), by_plain("nobody"));
    let mut by_login = |name: &str| {
        quickest(name, &|client| {
            client.ask("AUTH LOGIN", "334 ");
            client.ask(&base64(name), "334 ");
            client.ask(&base64("stencil"), "535 ");
        })
    };
    for (there, absent) in [plains, (by_login("paul"), by_login("someone"))] {
        assert!(there < absent * 2 && absent < there * 2, "{there:?}, {absent:?}");
    }
}

// A reload and a restart

#[test]
fn a_reload_does_not_forget_what_an_account_has_sent() {
    let mut site = site();
    site.set("listen", "kind", "\"submission\"");
    site.set("submission", "messages_per_hour", "2");
    let daemon = site.start();
    let mary = || {
        let mut client = at(&daemon, [127, 0, 0, 1]);
        client.ask(&plain("mary", "pencil"), "235 ");
        client
    };
    let mut old = mary();
    old.send("mary@razorback", &["jon@razorback"], TEXT);
    // This changes the configuration, so that the reload changes something.
    site.set("limits", "recipients", "700");
    site.configure();
    daemon.hup();
    daemon.wait_words(&["configuration and tables read again"]);
    mary().send("mary@razorback", &["jon@razorback"], TEXT);
    for mut client in [mary(), old] {
        client.ask("MAIL FROM:<mary@razorback>", "450 4.7.1 Your limit of 2 messages an hour is reached");
    }
    daemon.wait_mail(&site, "jon", 2);
}

#[test]
fn the_count_of_an_account_survives_a_restart_and_damage_to_its_file() {
    let mut site = site();
    site.set("listen", "kind", "\"submission\"");
    site.set("submission", "messages_per_hour", "2");
    let usage = site.path("spool/state/usage");
    for (replies, name) in
        [(["250 ", "250 "], "first"), (["450 4.7.1 Your limit of 2 messages an hour", "450 "], "second")]
    {
        let daemon = site.start();
        for reply in replies {
            let mut client = at(&daemon, [127, 0, 0, 1]);
            client.ask(&plain("mary", "pencil"), "235 ");
            client.ask("MAIL FROM:<mary@razorback>", reply);
        }
        drop(daemon);
        let text = std::fs::read_to_string(&usage).expect("the state");
        assert_eq!(text.lines().count(), 2, "after the {name} daemon: {text}");
    }
    // If the file with the counts is damaged, it is ignored, and no user is blocked.
    std::fs::write(&usage, [0; 5000]).expect("written");
    let daemon = site.start();
    let mut client = at(&daemon, [127, 0, 0, 1]);
    client.ask(&plain("mary", "pencil"), "235 ");
    client.ask("MAIL FROM:<mary@razorback>", "250 ");
}

/// First the disk is full; then another process holds the lock of the file, as if it had stopped.
#[test]
fn counts_that_cannot_be_kept_are_logged_once_and_count_nevertheless() {
    let mut site = site();
    site.set("listen", "kind", "\"submission\"");
    site.set("submission", "messages_per_hour", "3");
    let usage = site.path("spool/state/usage");
    let all_are_counted = |daemon: &Daemon| {
        for reply in ["250 ", "250 ", "250 ", "450 4.7.1 Your limit of 3 messages an hour"] {
            let mut client = at(daemon, [127, 0, 0, 1]);
            client.ask(&plain("mary", "pencil"), "235 ");
            client.ask("MAIL FROM:<mary@razorback>", reply);
        }
        let log = daemon.log();
        assert_eq!(log.matches("it is kept in memory only").count(), 1, "{log}");
    };
    let daemon = Daemon::spawn(site.with_fault("write state/usage * ENOSPC"));
    all_are_counted(&daemon);
    drop(daemon);
    let daemon = site.start();
    let file = std::fs::File::open(&usage).expect("the state");
    file.lock().expect("a lock");
    all_are_counted(&daemon);
    drop(daemon);
    assert_eq!(file.metadata().expect("a file").len(), 0, "nothing was written");
}

#[test]
fn mail_without_an_account_is_not_counted() {
    let mut site = site();
    site.set("relay", "networks", "[\"127.0.0.0/8\"]");
    for kind in ["\"smtp\"", "\"submission\""] {
        site.set("listen", "kind", kind);
        let daemon = site.start();
        at(&daemon, [127, 0, 0, 1]).send("mary@razorback", &["jon@razorback"], TEXT);
        sendmail(&site, &["jon@razorback"], TEXT.as_bytes());
        assert!(!site.path("spool/state/usage").exists());
    }
}

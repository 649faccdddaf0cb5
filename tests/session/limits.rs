//! Limits that take more than a dialogue to reach, and environments in which mail must still work.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::client::Client;
use common::{Daemon, Site, holdings};

/// Each alias has fewer recipients than an alias may have, but all five together have more than one
/// message may have in the spool.
#[test]
fn aliases_cannot_exceed_the_recipients_of_an_entry() {
    let site = Site::new();
    let mut aliases = String::new();
    for list in 0..5 {
        write!(aliases, "list{list}: m{list}-0@example.test").expect("memory");
        for member in 1..9000 {
            write!(aliases, ", m{list}-{member}@example.test").expect("memory");
        }
        aliases.push('\n');
    }
    site.write("aliases", &aliases);
    let daemon = site.start();
    let mut client = daemon.client();
    client.ask("MAIL FROM:<jon@razorback>", "250 ");
    for list in 0..4 {
        client.ask(&format!("RCPT TO:<list{list}@razorback>"), "250 ");
    }
    client.ask("RCPT TO:<list4@razorback>", "452 4.5.3 ");
    client.ask("RCPT TO:<jon@razorback>", "250 ");
    // The same recipients count again for each detail, but not for the same address.
    client.ask("RSET", "250 ");
    client.ask("MAIL FROM:<jon@razorback>", "250 ");
    for detail in ["1", "2", "3", "3", "4"] {
        client.ask(&format!("RCPT TO:<list0+{detail}@razorback>"), "250 ");
    }
    client.ask("RCPT TO:<list0+5@razorback>", "452 4.5.3 ");
}

/// If a wrapper passes a socket pair instead of a TCP connection, the client is not trusted.
#[test]
fn a_socket_without_an_address_may_not_relay() {
    let site = Site::with("relay.networks = [\"0.0.0.0/0\", \"::/0\"]");
    site.configure();
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let output = theirs.try_clone().expect("a descriptor");
    let mut session = site
        .penfoldd(&["-i"])
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::from(OwnedFd::from(output)))
        .stderr(Stdio::null())
        .spawn()
        .expect("penfoldd starts");
    // `Client` takes a TcpStream, but works with a Unix socket, too.
    let mut client = Client::before_banner(TcpStream::from(OwnedFd::from(ours)));
    client.expect("220 ");
    for (line, reply) in [
        ("HELO x", "250 "),
        ("MAIL FROM:<a@example.test>", "250 "),
        ("RCPT TO:<victim@elsewhere.test>", "550 5.7.1 "),
        ("RCPT TO:<jon@razorback>", "250 "),
        ("QUIT", "221 "),
    ] {
        client.ask(line, reply);
    }
    drop(client);
    assert!(session.wait().expect("it ends").success());
}

/// The spool creates a file without a name, and gives it a name through /proc. A bare container
/// lacks /proc.
#[test]
fn mail_is_accepted_without_proc() {
    let is_possible = nix::unistd::geteuid().is_root()
        && Command::new("unshare").args(["-m", "true"]).stderr(Stdio::null()).status().is_ok_and(|s| s.success());
    if !is_possible {
        common::skipped("no private mounts without root and unshare");
        return;
    }
    let site = Site::new();
    let penfoldd = site.penfoldd(&["-d"]);
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", "mount -t tmpfs tmpfs /proc && exec \"$@\"", "sh"]);
    command.arg(penfoldd.get_program()).args(penfoldd.get_args());
    site.configure();
    let daemon = Daemon::spawn(command);
    daemon.submit(&["jon@razorback"]);
    daemon.wait_mail(&site, "jon", 1);
    assert!(daemon.settles(&site));
    assert_eq!(fs::read_dir(site.path("spool/tmp")).expect("a spool").count(), 0);
}

/// The record says that a report about the recipient may be in tmp/. While tmp/ is unreadable, the
/// daemon cannot know, and the recipient waits.
#[test]
fn an_entry_that_cannot_be_repaired_is_retried_later() {
    let site = Site::new();
    site.add("routes", "example.test 127.0.0.1:9");
    let daemon = site.start();
    daemon.submit(&["a@example.test"]);
    daemon.wait_words(&[" deferred to=<a@example.test>"]);
    assert!(daemon.terminate().success());
    let [entry] = site.spooled().try_into().expect("one entry");
    let mut bytes = fs::read(&entry).expect("an entry");
    let record = bytes.windows(3).position(|w| w == b"\nT ").expect("a record") + 1;
    bytes[record] = b'R';
    fs::write(&entry, bytes).expect("the same length");
    fs::set_permissions(site.path("spool/tmp"), fs::Permissions::from_mode(0o0)).expect("a mode");

    let daemon = site.start();
    for _ in 0..5 {
        daemon.submit(&["jon@razorback"]);
    }
    daemon.wait_mail(&site, "jon", 5);
    let looks = daemon.log().lines().filter(|line| line.contains("spool: open ")).count();
    fs::set_permissions(site.path("spool/tmp"), fs::Permissions::from_mode(0o700)).expect("a mode");
    assert!((1..=2).contains(&looks), "{looks} looks\n{}", daemon.log());
}

/// If cron runs the queue of a spool that cannot be read, the run must not keep the lock of the
/// spool.
#[test]
fn a_queue_run_ends_where_the_spool_cannot_be_read() {
    let site = Site::new();
    let daemon = site.start();
    assert!(daemon.terminate().success());
    fs::set_permissions(site.path("spool/new"), fs::Permissions::from_mode(0o0)).expect("a mode");
    let output = site.penfoldd(&["-q"]).output().expect("it runs");
    fs::set_permissions(site.path("spool/new"), fs::Permissions::from_mode(0o700)).expect("a mode");
    assert_eq!(output.status.code(), Some(77), "{output:?}");
}

/// A slow connection is allowed, but a client that sends almost nothing is disconnected.
#[test]
fn a_slow_message_arrives_if_it_is_steady() {
    let pace = Duration::from_millis(50);
    let site = Site::with("limits.data_timeout = \"500ms\"\nlimits.command_timeout = \"20s\"");
    let daemon = site.start();
    let mut client = daemon.client();
    client.begin("a@example.test", &["jon@razorback"]);
    client.send_text("Subject: steady\r\n\r\n");
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(1500) {
        client.send_text(&format!("{}\r\n", "x".repeat(200)));
        thread::sleep(pace);
    }
    client.ask(".", "250 ");

    let mut stream = daemon.connect();
    let mut client = Client::new(stream.try_clone().expect("a descriptor"));
    client.begin("a@example.test", &["jon@razorback"]);
    let (started, mut answer) = (Instant::now(), None);
    stream.set_read_timeout(Some(pace)).expect("an option");
    while answer.is_none() && started.elapsed() < common::TIMEOUT {
        let _ = stream.write_all(b"x");
        let mut reply = [0; 9];
        answer = stream.read_exact(&mut reply).ok().map(|()| String::from_utf8_lossy(&reply).into_owned());
    }
    assert_eq!(answer.as_deref(), Some("421 4.4.2"), "after {:?}", started.elapsed());

    // A client that sends nothing at all has a separate timeout.
    let site = Site::with("limits.data_timeout = \"60s\"\nlimits.command_timeout = \"300ms\"");
    let daemon = site.start();
    let mut client = daemon.client();
    client.begin("a@example.test", &["jon@razorback"]);
    client.send_text("Subject: silent\r\n");
    client.expect("421 4.4.2 ");
}

/// If a message is already rejected, the client has less time to send the rest of it.
#[test]
fn an_endless_message_times_out() {
    let site = Site::with("limits.data_timeout = \"500ms\"\nlimits.message_size = \"64K\"");
    let daemon = site.start();
    let mut stream = daemon.connect();
    let mut client = Client::new(stream.try_clone().expect("a descriptor"));
    client.begin("a@example.test", &["jon@razorback"]);
    let (started, line) = (Instant::now(), format!("{}\r\n", "x".repeat(998)).repeat(50));
    while stream.write_all(line.as_bytes()).is_ok() {
        assert!(started.elapsed() < common::TIMEOUT, "it is read for longer than the timeout");
    }
}

/// A few rejections of each session are logged; one more line counts the rest.
#[test]
fn rejections_do_not_fill_the_log() {
    let mut site = Site::with("relay.networks = []");
    let many: Vec<String> = (0..10_001).map(|number| format!("m{number}@example.test")).collect();
    site.write("aliases", &format!("many: {}\n", many.join(", ")));
    for trusted in [false, true] {
        if trusted {
            site.set("relay", "networks", "[\"127.0.0.0/8\"]");
        }
        let daemon = site.start();
        for (line, times) in [
            ("RCPT TO:<many@razorback>", 100),
            ("RCPT TO:<elvis@razorback>", 3000),
            ("VRFY elvis", 3000),
            ("MAIL FROM:<jon@here> SIZE=999999999999", 3000),
            ("FLY", 3000),
            ("\u{1}", 3000),
            ("AUTH X", 3000),
        ] {
            let before = daemon.log().len();
            let stream = daemon.connect();
            let mut client = Client::new(stream.try_clone().expect("a descriptor"));
            if line.starts_with("RCPT") {
                client.ask("MAIL FROM:<a@b.test>", "250 ");
            }
            let sent = format!("{line}\r\n").repeat(times);
            client.try_send(&sent);
            client.try_send("QUIT\r\n");
            // The test only waits for the last reply, whatever the others say.
            while client.read_line().is_some_and(|reply| !reply.starts_with("421 ") && !reply.starts_with("221 ")) {}
            // The line that counts the rest is logged before the last reply, so it is in the log
            // now.
            let logged = daemon.log().len() - before;
            assert!(logged < 20_000, "{line}: {logged} octets of the log for {}", sent.len());
        }
    }
}

/// If a client has disconnected, the server soon drops the client's other requests. The server also
/// keeps recently expanded aliases.
#[test]
fn large_aliases_are_cheap_and_a_disconnected_client_costs_nothing() {
    let site = Site::new();
    let details: Vec<String> = (1..=5000).map(|number| format!("jon+{number}")).collect();
    let details = details.join(", ");
    let aliases: String = (0..40).map(|number| format!("big{number}: {details}\n")).collect();
    site.write("aliases", &aliases);
    let daemon = Daemon::spawn(site.penfoldd(&["-d", "-v"]));
    let mut client = daemon.client();
    let now = || holdings::processor_time(daemon.pid());
    let mut cost = |requests: &mut dyn Iterator<Item = String>| {
        let before = now();
        requests.for_each(|request| drop(client.ask(&request, "250 ")));
        now() - before
    };
    let once = cost(&mut ["VRFY big0".to_owned()].into_iter());
    let many = cost(&mut (0..50).map(|_| "VRFY big0".to_owned()));
    assert!(many < once * 20, "{once:?} for the first, {many:?} for fifty");
    // For an address extension the alias is not expanded again.
    let many = cost(&mut (0..50).map(|number| format!("VRFY big0+{number}")));
    assert!(many < once * 20, "{once:?} for the first, {many:?} for fifty details");
    // An edit of the aliases table takes effect at once.
    site.write("aliases", &aliases.replacen("big0: ", "nobody: ", 1));
    client.ask("VRFY big0", "550 ");
    client.ask("VRFY big1", "250 ");
    let text: String = (2..40).map(|number| format!("VRFY big{number}\r\n")).collect();
    let ended = daemon.log().lines().filter(|line| is_end(line)).count();
    let before = now();
    client.send_text(&text);
    drop(client);
    daemon.wait_until("the end", || daemon.log().lines().filter(|line| is_end(line)).count() > ended);
    let rest = now() - before;
    println!("{once:?} for the first, {many:?} for fifty details, {rest:?} after the end of the client");
    assert!(rest < once * 20, "{rest:?} for a client that has left; one is {once:?}");
}

fn is_end(line: &str) -> bool {
    line.contains(" closed") || line.contains(" lost: ")
}

/// penfold-smtp(7): a session takes at most 2 MiB, and 4 KiB for each final recipient.
#[test]
fn the_memory_of_a_session_is_bounded_by_its_recipients() {
    const RECIPIENTS: usize = 2000;
    let site = Site::with(&format!("limits.recipients = {RECIPIENTS}\nlisten.kind = \"smtp\""));
    let daemon = site.start();
    let mut client = Client::before_banner(daemon.connect());
    client.expect("220 ");
    client.send_text("EHLO client.test\r\n");
    let lines = std::iter::from_fn(|| client.read_line().filter(|line| !line.starts_with("250 ")));
    let has_dsn = lines.filter(|line| line == "250-DSN").count() > 0;
    client.ask("MAIL FROM:<jon@razorback>", "250 ");
    client.ask("RCPT TO:<jon@razorback>", "250 ");
    let before = holdings::own_memory(daemon.pid());
    let orcpt = if has_dsn { format!(" ORCPT=rfc822;{}", "o".repeat(490)) } else { String::new() };
    for number in 1..RECIPIENTS {
        let domain = format!("{}.example", ["d"; 3].map(|d| d.repeat(60)).join("."));
        client.ask(&format!("RCPT TO:<{number:0>64}@{domain}>{orcpt}"), "250 ");
    }
    client.ask("RCPT TO:<root@razorback>", "452 4.5.3 ");
    client.ask("DATA", "354 ");
    (0..1000).for_each(|_| client.send_text(&"x".repeat(32 << 10)));
    let taken = holdings::own_memory(daemon.pid()).saturating_sub(before);
    assert!(taken < 2048 + 4 * RECIPIENTS, "{taken} KiB");
}

/// penfold-smtp(7): the bound holds for chunks, too, however many or long they are.
#[test]
fn chunks_take_no_more_memory_than_a_session_may() {
    let site = Site::with("listen.kind = \"smtp\"");
    let daemon = site.start();
    let mut client = daemon.greeted();
    client.ask("MAIL FROM:<jon@razorback> BODY=BINARYMIME", "250 ");
    client.ask("RCPT TO:<jon@razorback>", "250 ");
    let before = holdings::own_memory(daemon.pid());
    let taken = || holdings::own_memory(daemon.pid()).saturating_sub(before);
    for number in 0..2000 {
        client.send_text(&format!("BDAT 14\r\nX-No-{number:0>4}: a\r\n"));
    }
    (0..2000).for_each(|_| drop(client.expect("250 2.0.0 ")));
    let many = taken();
    let (piece, pieces) = ("x".repeat(32 << 10), 700);
    client.send_text(&format!("BDAT {} LAST\r\n\r\n", 2 + piece.len() * (pieces + 1)));
    (0..pieces).for_each(|_| client.send_text(&piece));
    let long = taken();
    client.send_text(&piece);
    client.expect("250 2.0.0 ");
    println!("{many} KiB for 2000 chunks, {long} KiB in a long one");
    assert!(many.max(long) < 2048, "{many} KiB, {long} KiB");
}

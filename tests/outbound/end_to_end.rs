//! Mail to other hosts, end to end: attempts, retries, log lines, and reports to the sender.
//!
//! The real daemon uses a scripted DNS and scripted servers. Every single failure is tested in
//! tests/outbound/client.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;

use common::dialog::Wire;
use common::dns::Dns;
use common::remote::{Conduct, Remote, Sink, Then, listeners};
use common::{Daemon, Site, free_port};

use crate::client::chunks::serve;

const TEXT: &str = "Subject: hello\r\nMessage-ID: <x@razorback.test>\r\n\r\nHow are you?\r\n";

/// A site with short timeouts that uses the name server `zone`. Mail for example.test and the other
/// domains below goes to their mail exchangers at `port`.
fn site(zone: &Dns, port: u16) -> Site {
    let mut site =
        Site::with("remote.timeout = \"1s\"\nqueue.retry_min = \"1s\"\nqueue.retry_max = \"1s\"\ndns.timeout = \"1s\"");
    site.set("dns", "nameservers", &zone.nameservers());
    for domain in ["example.test", "backup.test", "null.test", "nowhere.test", "servfail.test", "silent.test"] {
        site.add("routes", &format!("{domain} mx::{port}"));
    }
    site
}

/// A zone in which example.test has one mail exchanger, with the address of this host.
fn one_exchanger() -> Dns {
    Dns::zone("example.test MX 10 mx.example.test\nmx.example.test A 127.0.0.1")
}

/// Sends a message from jon as a client of the daemon.
fn submit(daemon: &Daemon, recipients: &[&str]) {
    let mut wire = Wire::new(daemon.connect(), false);
    let banner = wire.read_line().expect("a banner").expect("a banner");
    assert!(banner.starts_with("220 "), "{banner}");
    let mut ask = |line: &str, code: &str| {
        let reply = wire.ask(line).expect("a reply");
        assert!(reply.starts_with(code), "{line}: {reply}");
    };
    ask("HELO client.test", "250");
    ask("MAIL FROM:<jon@razorback.test>", "250");
    for recipient in recipients {
        ask(&format!("RCPT TO:<{recipient}>"), "250");
    }
    ask("DATA", "354");
    ask(&format!("{TEXT}."), "250");
    ask("QUIT", "221");
}

fn waits_for(daemon: &Daemon, words: &[&str]) -> String {
    daemon.wait_log(|line| words.iter().all(|word| line.contains(word)))
}

fn bounce(daemon: &Daemon, site: &Site) -> String {
    String::from_utf8(daemon.wait_mail(site, "jon", 1).remove(0)).expect("a report in ASCII")
}

#[test]
fn a_message_leaves_in_one_transaction() {
    let (remote, zone) = (Remote::sink(), one_exchanger());
    let site = site(&zone, remote.address.port());
    let daemon = site.start();
    submit(&daemon, &["elvis@example.test", "priscilla@example.test"]);
    let message = remote.messages(1).remove(0);
    assert_eq!(message.sender.split(' ').next(), Some("<jon@razorback.test>"));
    assert_eq!(message.recipients, ["<elvis@example.test>", "<priscilla@example.test>"]);
    let data = String::from_utf8(message.data).expect("ASCII");
    assert!(data.starts_with("Received: from client.test"), "{data}");
    assert!(data.ends_with(TEXT), "{data}");
    let host = format!("host=mx.example.test[127.0.0.1]:{}", remote.address.port());
    waits_for(&daemon, &["sent to=<elvis@example.test>", &host, "code=250 dsn=2.0.0"]);
    assert!(daemon.settles(&site));
}

#[test]
fn the_announced_size_is_that_of_the_message() {
    let (remote, zone) = (Remote::sink(), one_exchanger());
    let site = site(&zone, remote.address.port());
    let daemon = site.start();
    submit(&daemon, &["elvis@example.test"]);
    let message = remote.messages(1).remove(0);
    assert!(message.sender.ends_with(&format!(" SIZE={}", message.data.len())), "{}", message.sender);
}

#[test]
fn the_second_exchanger_gets_what_the_first_defers() {
    let [one, two] = <[_; 2]>::try_from(listeners(2)).expect("two");
    let port = one.local_addr().expect("bound").port();
    let _first = Remote::start(one, Conduct::Sink(Sink::default().reply("MAIL", "451 not now")));
    let second = Remote::start(two, Conduct::Sink(Sink::default()));
    let zone =
        Dns::zone("example.test MX 10 a.test\nexample.test MX 20 b.test\na.test A 127.0.0.2\nb.test A 127.0.0.3");
    let site = site(&zone, port);
    let daemon = site.start();
    submit(&daemon, &["elvis@example.test"]);
    second.messages(1);
    waits_for(&daemon, &["sent to=<elvis@example.test>", "host=b.test[127.0.0.3]"]);
}

#[test]
fn smart_hosts_take_everything_in_order() {
    let (remote, zone) = (Remote::sink(), Dns::zone(""));
    let closed = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let mut site = site(&zone, 25);
    site.set("remote", "smarthosts", &format!("[\"smtp://{closed}\", \"smtp://{}\"]", remote.address));
    let daemon = site.start();
    submit(&daemon, &["elvis@nowhere.example"]);
    assert_eq!(remote.messages(1)[0].recipients, ["<elvis@nowhere.example>"]);
    assert!(zone.asked().iter().all(|(name, _)| !name.ends_with("nowhere.example")), "a smart host looks it up");
}

#[test]
fn the_log_names_the_stage_at_which_a_session_ended() {
    for (at, then, words) in [
        ("CONNECT", Then::Hang, "timed out while waiting for the greeting"),
        // The host hangs at EHLO; if it closed the connection, the client would try HELO.
        ("EHLO", Then::Hang, "timed out while waiting for the reply to EHLO"),
        ("DATA", Then::Hang, "timed out while waiting for the reply to DATA"),
        (
            ".",
            Then::Close,
            "closed while waiting for the reply to the end of the message; the message may arrive twice",
        ),
        ("MAIL", Then::Reply("451 4.7.1 greylisted".into()), "reply=\"451 4.7.1 greylisted\""),
    ] {
        // The failure happens once: the second attempt succeeds.
        let (remote, zone) = (Remote::with(Sink::default().when(at, then, 1)), one_exchanger());
        let site = site(&zone, remote.address.port());
        let daemon = site.start();
        submit(&daemon, &["elvis@example.test"]);
        waits_for(&daemon, &["deferred to=<elvis@example.test>", "dsn=4.", words, "next="]);
        assert_eq!(remote.messages(1).len(), 1);
        waits_for(&daemon, &["sent to=<elvis@example.test>"]);
        assert!(site.mail("jon").is_empty());
    }
}

#[test]
fn a_rejected_recipient_bounces_and_the_others_arrive() {
    let rules = Sink::default().reply("RCPT TO:<nobody", "550 5.1.1 no such user, ask the postmaster");
    let (remote, zone) = (Remote::with(rules), one_exchanger());
    let site = site(&zone, remote.address.port());
    let daemon = site.start();
    submit(&daemon, &["nobody@example.test", "elvis@example.test"]);
    assert_eq!(remote.messages(1)[0].recipients, ["<elvis@example.test>"]);
    let report = bounce(&daemon, &site);
    assert!(report.contains("550 5.1.1 no such user, ask the postmaster"), "{report}");
    assert!(report.contains("nobody@example.test") && !report.contains("elvis@example.test"), "{report}");
    assert!(daemon.settles(&site));
}

#[test]
fn undeliverable_mail_bounces() {
    for (domain, status) in [("nowhere.test", "5.1.2"), ("null.test", "5.1.10")] {
        let zone = Dns::zone("null.test MX 0 .");
        let site = site(&zone, 25);
        let daemon = site.start();
        submit(&daemon, &[&format!("elvis@{domain}")]);
        let report = bounce(&daemon, &site);
        assert!(report.contains(&format!("Status: {status}")) && report.contains(domain), "{report}");
        assert!(daemon.settles(&site));
    }
}

#[test]
fn dns_failures_defer() {
    for (domain, words) in [("servfail.test", "SERVFAIL"), ("silent.test", "did not answer in time")] {
        let zone = Dns::zone("servfail.test SERVFAIL\nsilent.test SILENCE");
        let site = site(&zone, 25);
        let daemon = site.start();
        submit(&daemon, &[&format!("elvis@{domain}")]);
        waits_for(&daemon, &["deferred", "dsn=4.4.3", words, "next="]);
        assert!(site.mail("jon").is_empty());
        assert_eq!(site.spooled().len(), 1);
    }
}

#[test]
fn mail_that_would_return_to_this_daemon_is_not_sent() {
    let zone = Dns::zone("backup.test MX 10 other.test\nother.test A 127.0.0.1");
    let site = site(&zone, 25);
    let daemon = site.start();
    site.write("routes", &format!("backup.test mx::{}\n", daemon.port));
    submit(&daemon, &["elvis@backup.test"]);
    let report = bounce(&daemon, &site);
    assert!(report.contains("Status: 5.4.6") && report.contains("loops back to this host"), "{report}");
}

#[test]
fn several_messages_go_over_one_connection() {
    let (remote, zone) = (Remote::sink(), one_exchanger());
    let mut site = site(&zone, remote.address.port());
    site.set("queue", "workers", "1");
    let daemon = site.start();
    for _ in 0..5 {
        submit(&daemon, &["elvis@example.test"]);
    }
    remote.messages(5);
    let connections = remote.look(|seen| seen.connections);
    assert!(connections < 5, "{connections} connections for five messages");
}

/// The body of a binary message (RFC 3030): octets for a host that takes them, and a text with the
/// same octets for another host.
#[test]
fn a_binary_message_goes_on_as_it_came_or_as_a_text() {
    const HEADER: &[u8] = b"Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: application/octet-stream\r\n\
        Content-Transfer-Encoding: binary\r\n\r\n";
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
    let raw = listener.local_addr().expect("bound");
    let server = thread::spawn(move || serve(&listener, &[]));
    let plain = Remote::sink();
    let site = Site::with("relay.domains = [\"raw.test\", \"plain.test\"]");
    site.add("routes", &format!("raw.test {raw}"));
    site.add("routes", &format!("plain.test {}", plain.address));
    let daemon = site.start();
    let mut client = daemon.greeted();
    client.ask("MAIL FROM:<jon@razorback.test> BODY=BINARYMIME", "250 ");
    client.ask("RCPT TO:<elvis@raw.test>", "250 ");
    client.ask("RCPT TO:<elvis@plain.test>", "250 ");
    // A body that is longer than any buffer, with every octet in it.
    let body: Vec<u8> = (0..200_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let message = [HEADER, &body].concat();
    for chunk in message.chunks(70_001) {
        let is_last = chunk.last() == message.last() && chunk.len() < 70_001;
        client.send_text(&format!("BDAT {}{}\r\n", chunk.len(), if is_last { " LAST" } else { "" }));
        client.send_bytes(chunk);
        client.expect("250 ");
    }
    let text = plain.messages(1).remove(0).data;
    let text = String::from_utf8(text).expect("ASCII");
    let (header, encoded) = text.split_once("\r\n\r\n").expect("a header");
    assert!(
        header.contains("\r\nContent-Transfer-Encoding: base64") && header.contains("\r\nSubject: x\r\n"),
        "{header}"
    );
    let encoded = encoded.replace("\r\n", "");
    assert!(data_encoding::BASE64.decode(encoded.as_bytes()).expect("base64") == body);
    assert!(daemon.settles(&site));
    TcpStream::connect(raw).and_then(|mut stream| stream.write_all(b"STOP\r\n")).expect("the server");
    let (_, seen) = server.join().expect("a server");
    let (mail, (bdat, octets)) = (&seen[0].0, seen.last().expect("BDAT"));
    assert!(mail.ends_with(" BODY=BINARYMIME") && mail.contains(&format!(" SIZE={} ", octets.len())), "{mail}");
    assert_eq!(*bdat, format!("BDAT {} LAST", octets.len()));
    let own = octets.strip_suffix(&message[..]).expect("the message");
    assert!(own.starts_with(b"Received: ") && own.ends_with(b"\r\n"), "{}", own.escape_ascii());
}

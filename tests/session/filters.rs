//! Milters and policy services: what they are told, what they decide, and what a hostile one can do.

use std::net::SocketAddr;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use common::client::{Client, TEXT};
use common::filter::{Milter, PolicyService, Script, Then};
use common::tls::Authority;
use common::{Daemon, Site, programs};

/// The time limit of filters for a command. For a message it is ten times as long.
const TIMEOUT: &str = "500ms";

/// A site that asks these filters, with these further keys of each. Clients on loopback addresses
/// are strangers.
fn site(filters: &[(SocketAddr, &str)]) -> Site {
    let mut site = Site::with("relay.networks = []");
    ask(&mut site, filters);
    site
}

fn ask(site: &mut Site, filters: &[(SocketAddr, &str)]) {
    let tables: Vec<_> = filters
        .iter()
        .map(|(address, more)| format!("{{ socket = \"inet:{address}\", timeout = \"{TIMEOUT}\"{more} }}"))
        .collect();
    site.set("", "filter", &format!("[{}]", tables.join(", ")));
}

/// Sends a message to jon, and returns the replies to MAIL, RCPT, DATA and the message, up to the
/// first refusal.
fn replies(daemon: &Daemon) -> Vec<String> {
    let mut client = daemon.greeted();
    let mut replies = Vec::new();
    for line in ["MAIL FROM:<anna@example.net> SIZE=100", "RCPT TO:<jon@razorback>", "DATA", &format!("{TEXT}.")] {
        let reply = client.ask(line, "");
        let is_refusal = reply.starts_with(['4', '5']);
        replies.push(reply);
        if is_refusal {
            break;
        }
    }
    replies
}

fn last(daemon: &Daemon) -> String {
    replies(daemon).pop().expect("a reply")
}

fn text(message: &[u8]) -> String {
    String::from_utf8_lossy(message).into_owned()
}

#[test]
fn a_milter_is_told_of_the_whole_dialogue() {
    let milter = Milter::start(Script::default());
    let site = site(&[(milter.address, "")]);
    let daemon = site.start();
    let mut client = daemon.greeted();
    assert_eq!(milter.connections(), 0, "no mail, no connection");
    client.ask("MAIL FROM:<anna@example.net> SIZE=100 BODY=8BITMIME", "250 ");
    client.ask("RCPT TO:<jon@razorback>", "250 ");
    client.ask("RCPT TO:<elvis@razorback>", "550 5.1.1");
    client.ask("FOO bar", "500 ");
    client.ask("DATA", "354 ");
    let reply = client.ask("A: b\r\n c\r\nD:e\r\n\r\n..x\r\ny\r\n.", "250 ");
    client.ask("MAIL FROM:<>", "250 ");
    client.ask("RSET", "250 ");
    client.ask("QUIT", "221 ");
    milter.wait_for(b'Q');
    assert_eq!(milter.letters(), "OCHMRUTLLNBEMAQ");
    let port = client_port(&milter);
    assert_eq!(milter.texts(b'H'), ["client.test|"]);
    assert_eq!(milter.texts(b'M'), ["<anna@example.net>|SIZE=100|BODY=8BITMIME|", "<>|"]);
    assert_eq!(milter.texts(b'R'), ["<jon@razorback>|"]);
    assert_eq!(milter.texts(b'U'), ["FOO bar|"]);
    assert_eq!(milter.texts(b'L'), ["A|b\n c|", "D|e|"]);
    assert_eq!(milter.texts(b'B'), [".x\r\ny\r\n"]);
    let id = reply.split(' ').nth(2).expect("an id").to_owned();
    for (name, value) in [
        ("j", "razorback.test"),
        ("{daemon_name}", "razorback.test"),
        ("_", "localhost [127.0.0.1]"),
        ("{client_addr}", "127.0.0.1"),
        ("{client_name}", "localhost"),
        ("{client_ptr}", "localhost"),
        ("{client_port}", port.as_str()),
        ("{if_addr}", "127.0.0.1"),
        ("{mail_addr}", "anna@example.net"),
        ("{mail_host}", "example.net"),
        ("{rcpt_addr}", "jon@razorback"),
        ("{rcpt_mailer}", "local"),
        ("i", id.as_str()),
    ] {
        assert_eq!(milter.macros(name).first().map(String::as_str), Some(value), "{name}");
    }
    assert!(milter.macros("{auth_authen}").is_empty() && milter.macros("{tls_version}").is_empty());
    chunks_are_like_data(&daemon, &milter);
}

/// BDAT is told once, as DATA, at the first chunk. A message whose chunks fail is aborted. Binary
/// messages are not offered, because filters are told of lines.
fn chunks_are_like_data(daemon: &Daemon, milter: &Milter) {
    let before = milter.letters().len();
    let mut client = Client::before_banner(daemon.connect());
    client.expect("220 ");
    let offers = client.ehlo();
    assert!(offers.iter().any(|offer| offer == "CHUNKING") && !offers.iter().any(|offer| offer == "BINARYMIME"));
    client.ask("MAIL FROM:<anna@example.net> BODY=BINARYMIME", "501 5.5.4 ");
    client.ask("MAIL FROM:<anna@example.net>", "250 ");
    client.ask("RCPT TO:<jon@razorback>", "250 ");
    for (chunk, reply) in [
        ("BDAT 6\r\nA: b\r\n", "250 "),
        ("BDAT 1\r\nx", "250 "),
        ("BDAT 2\r\n\ry", "554 5.6.0 "),
        ("BDAT 1 LAST\r\nx", "554 5.6.0 "),
    ] {
        client.send_text(chunk);
        client.expect(reply);
    }
    milter.wait_for_letters(before, "OCHMRTA");
}

/// The port in the packet CONNECT.
fn client_port(milter: &Milter) -> String {
    let packets = milter.packets();
    let (_, data) = packets.iter().find(|(letter, _)| *letter == b'C').expect("CONNECT");
    let rest = data.strip_prefix(b"localhost\x004").expect("a name and a family");
    assert_eq!(&rest[2..], b"127.0.0.1\0");
    u16::from_be_bytes([rest[0], rest[1]]).to_string()
}

#[test]
fn a_milter_gets_the_events_and_macros_that_it_asks_for() {
    // Nothing but MAIL without an answer, header fields with their blanks, and the end.
    let protocol = 0x1 | 0x2 | 0x8 | 0x10 | 0x40 | 0x80 | 0x100 | 0x200 | 0x4000 | 0x10_0000;
    let macros = b"\0\0\0\x02j {mail_addr} {odd}\0\0\0\0\x05i\0".to_vec();
    let milter = Milter::start(Script { protocol, macros, ..Script::default() });
    let site = site(&[(milter.address, "")]);
    let daemon = site.start();
    daemon.greeted().send("anna@example.net", &["jon@razorback"], "A: b\r\nC:d\r\n\r\nx\r\n");
    milter.wait_for(b'E');
    assert_eq!(milter.letters(), "OMLLE");
    assert_eq!(milter.texts(b'L'), ["A| b|", "C|d|"]);
    assert!(milter.texts(b'D').contains(&"Mj|razorback.test|{mail_addr}|anna@example.net|".to_owned()));

    // The first version has none of the newer events.
    let old = Milter::start(Script { version: 2, actions: 0x3f, ..Script::default() });
    let site = site_of(&old);
    let daemon = site.start();
    let mut client = daemon.greeted();
    client.ask("MAIL FROM:<anna@example.net>", "250 ");
    client.ask("FOO", "500 ");
    client.ask("RCPT TO:<jon@razorback>", "250 ");
    client.ask("DATA", "354 ");
    client.ask("A: b\r\n\r\nx\r\n.", "250 ");
    old.wait_for(b'E');
    assert_eq!(old.letters(), "OCHMRLNBE");
}

fn site_of(milter: &Milter) -> Site {
    site(&[(milter.address, "")])
}

#[test]
fn a_milter_refuses_at_every_stage() {
    for (letter, stage) in
        [(b'C', 1), (b'H', 1), (b'M', 1), (b'R', 2), (b'T', 3), (b'L', 4), (b'N', 4), (b'B', 4), (b'E', 4)]
    {
        for (packet, want) in [
            (&b"r"[..], "550 5.7.1 Refused by the policy of this site"),
            (b"t", "451 4.7.1 Not accepted now"),
            (b"y554 5.7.7 100%% no\0", "554 5.7.7 100% no"),
            (b"y550\0", "550 5.7.1 Refused by the policy of this site"),
        ] {
            let milter = Milter::start(Script::default().at(letter, &[packet]));
            let site = site_of(&milter);
            let daemon = site.start();
            let replies = replies(&daemon);
            assert_eq!(replies.len(), stage, "{}: {replies:?}", char::from(letter));
            assert!(replies.last().expect("one").starts_with(want), "{}: {replies:?}", char::from(letter));
            let refused = if stage == 4 { " reply=" } else { " result=refuse stage=" };
            daemon.wait_words(&[" filter by=127.0.0.1:", refused]);
            assert!(site.mail("jon").is_empty());
        }
    }
}

#[test]
fn a_refused_connection_or_recipient_concerns_only_what_it_says() {
    let milter = Milter::start(Script::default().then(b'R', 1, Then::Send(vec![b"r".to_vec()])));
    let site = site_of(&milter);
    let daemon = site.start();
    let mut client = daemon.greeted();
    client.ask("MAIL FROM:<anna@example.net>", "250 ");
    client.ask("RCPT TO:<root@razorback>", "550 5.7.1");
    client.ask("RCPT TO:<jon@razorback>", "250 ");
    client.ask("DATA", "354 ");
    client.ask("x\r\n.", "250 ");
    daemon.wait_mail(&site, "jon", 1);

    let milter = Milter::start(Script::default().then(b'C', 1, Then::Send(vec![b"r".to_vec()])));
    let site = site_of(&milter);
    let daemon = site.start();
    let mut client = daemon.greeted();
    client.ask("MAIL FROM:<anna@example.net>", "550 5.7.1");
    client.ask("MAIL FROM:<anna@example.net>", "550 5.7.1");
    assert_eq!((milter.letters().as_str(), milter.connections()), ("OC", 1));
    daemon.greeted().ask("MAIL FROM:<anna@example.net>", "250 ");
}

/// The first milter refuses or discards a message before the second one is asked.
#[test]
fn a_milter_is_told_of_a_new_helo_whatever_an_earlier_one_decides() {
    let refuse = ("550 5.7.1", b"r".to_vec());
    for (reply, packet) in [refuse, ("250 ", b"d".to_vec())] {
        let second = Milter::start(Script::default());
        let again = Script::default().then(b'M', 1, Then::Send(vec![b"c".to_vec()]));
        let first = Milter::start(again.then(b'M', 1, Then::Send(vec![packet])));
        let site = site(&[(first.address, ""), (second.address, "")]);
        let daemon = site.start();
        let mut client = daemon.client();
        client.ask("HELO first.example", "250 ");
        client.ask("MAIL FROM:<anna@example.net>", "250 ");
        client.ask("HELO second.example", "250 ");
        client.ask("MAIL FROM:<anna@example.net>", reply);
        client.ask("RSET", "250 ");
        client.ask("MAIL FROM:<anna@example.net>", "250 ");
        for milter in [&first, &second] {
            let told = milter.texts(b'H');
            assert_eq!(told, ["first.example|", "second.example|"], "{reply}: {}", milter.letters());
        }
    }
}

/// A proxy changes the client before the second milter is asked again.
#[test]
fn a_milter_is_told_of_a_new_client_whatever_an_earlier_one_decides() {
    let second = Milter::start(Script::default());
    let once = Script::default().then(b'M', 1, Then::Send(vec![b"c".to_vec()]));
    let first = Milter::start(once.then(b'M', 1, Then::Send(vec![b"r".to_vec()])));
    let mut site = site(&[(first.address, ""), (second.address, "")]);
    site.set("listen", "xclient", "[\"127.0.0.1\"]");
    let daemon = site.start();
    let mut client = daemon.greeted();
    client.ask("MAIL FROM:<anna@example.net>", "250 ");
    client.ask("RSET", "250 ");
    client.ask("XCLIENT ADDR=192.0.2.7", "220 ");
    client.ask("HELO client.test", "250 ");
    client.ask("MAIL FROM:<anna@example.net>", "550 5.7.1");
    client.ask("MAIL FROM:<anna@example.net>", "250 ");
    let told = second.texts(b'C');
    assert!(told.len() == 2 && told[1].ends_with("192.0.2.7|"), "{told:?}");
}

#[test]
fn a_milter_closes_a_session_with_421() {
    for (letter, packet) in [(b'M', &b"4"[..]), (b'R', b"f"), (b'T', b"4"), (b'E', b"4"), (b'M', b"y421 4.7.0 go\0")] {
        let milter = Milter::start(Script::default().at(letter, &[packet]));
        let site = site_of(&milter);
        let daemon = site.start();
        assert!(last(&daemon).starts_with("421 4.7.0 razorback.test "), "{}", char::from(letter));
        daemon.wait_log(|line| line.contains(" refused ") && line.contains("421"));
    }
}

#[test]
fn a_milter_accepts_early() {
    for (letter, letters) in
        [(b'C', "OC"), (b'H', "OCH"), (b'M', "OCHM"), (b'R', "OCHMR"), (b'L', "OCHMRTL"), (b'B', "OCHMRTLLNB")]
    {
        let milter = Milter::start(Script::default().at(letter, &[b"a"]));
        let site = site_of(&milter);
        let daemon = site.start();
        assert!(last(&daemon).starts_with("250 "), "{letters}");
        daemon.wait_mail(&site, "jon", 1);
        let told = milter.letters();
        assert_eq!(told.trim_end_matches(['A', 'Q']), letters);
    }
}

#[test]
fn a_hostile_milter_harms_only_its_session() {
    let huge = [&u32::MAX.to_be_bytes()[..], b"c"].concat();
    let forever = |packet: &[u8], pause| Then::Forever(packet.to_vec(), Duration::from_millis(pause));
    let send = |packets: &[&[u8]]| Then::Send(packets.iter().map(|packet| packet.to_vec()).collect());
    let many: Vec<&[u8]> = vec![b"hX-A\0b\0"; 10_000];
    let field = [b"hX-A\0".as_slice(), &vec![b'x'; 60_000], b"\0"].concat();
    let long: Vec<&[u8]> = vec![&field; 100];
    let mut cases: Vec<(u8, Then)> = Vec::new();
    for letter in *b"OCHMRTLNBE" {
        cases.extend([
            (letter, Then::Hang),
            (letter, Then::Close),
            (letter, Then::Raw(huge.clone())),
            (letter, Then::Raw(b"\0\0\0\0".to_vec())),
            (letter, Then::Raw(b"\0\0\0\x05c".to_vec())),
            (letter, send(&[b"Z"])),
            (letter, forever(b"p", 20)),
        ]);
    }
    cases.extend([
        (b'M', send(&[b"hX-A\0b\0"])),
        (b'M', send(&[b"y250 2.0.0 fine\0"])),
        (b'E', forever(b"p", 0)),
        (b'E', forever(b"hX-A\0b\0", 0)),
        (b'E', send(&many)),
        (b'E', send(&long)),
        (b'E', send(&[b"h\0\0", b"c"])),
        (b'E', send(&[b"hX\nY\0b\0", b"c"])),
        (b'E', send(&[b"+nobody at all\0", b"c"])),
        (b'E', send(&[b"i\0", b"c"])),
        (b'O', send(&[b"O\0\0\0\x07\0\0\0\0\0\0\0\0"])),
        (b'O', send(&[b"O\0\0\0\x06\xff\xff\xff\xff\0\0\0\0"])),
        (b'O', send(&[b"O"])),
    ]);
    thread::scope(|scope| {
        for part in cases.chunks(cases.len() / 16 + 1) {
            scope.spawn(move || part.iter().for_each(|(letter, then)| is_contained(*letter, then)));
        }
    });
}

/// Tries a milter that misbehaves once at this packet: the session ends in time with the configured
/// outcome, nothing of its changes stays, and the next session is as usual.
fn is_contained(letter: u8, then: &Then) {
    for (more, is_accepted) in [("", false), (", on_failure = \"accept\"", true)] {
        let milter = Milter::start(Script::default().then(letter, 1, then.clone()));
        let site = site(&[(milter.address, more)]);
        let daemon = site.start();
        let started = Instant::now();
        let reply = last(&daemon);
        let took = started.elapsed();
        let name = char::from(letter);
        let limit = if matches!(letter, b'L' | b'N' | b'B' | b'E') { 8 } else { 3 };
        assert!(took < Duration::from_secs(limit), "{name}: {took:?}");
        let line = daemon.wait_words(&[" filter-failed by=127.0.0.1:", "reason="]);
        if is_accepted {
            assert!(reply.starts_with("250 ") && line.contains("mail=accept"), "{name}: {reply} {line}");
            let message = text(&daemon.wait_mail(&site, "jon", 1)[0]);
            assert!(message.ends_with(&TEXT.replace("\r\n", "\n")) && !message.contains("X-A"), "{message}");
        } else {
            assert!(reply.starts_with("451 4.3.0 ") && line.contains("mail=defer"), "{name}: {reply} {line}");
        }
        let mail = site.mail("jon").len();
        assert!(last(&daemon).starts_with("250 "), "{name}");
        daemon.wait_mail(&site, "jon", mail + 1);
    }
}

/// A milter that closes a connection without use is asked over a new one.
#[test]
fn a_connection_that_a_milter_has_closed_is_made_again() {
    let milter = Milter::start(Script::default().then(b'A', 1, Then::Close));
    let site = site_of(&milter);
    let daemon = site.start();
    let mut client = daemon.greeted();
    client.ask("MAIL FROM:<anna@example.net>", "250 ");
    client.ask("RSET", "250 ");
    milter.wait_for(b'A');
    thread::sleep(Duration::from_millis(100));
    client.send("anna@example.net", &["jon@razorback"], TEXT);
    assert_eq!(milter.connections(), 2);
}

#[test]
fn a_header_of_many_fields_is_refused() {
    let milter = Milter::start(Script::default());
    let site = site_of(&milter);
    let daemon = site.start();
    let mut client = daemon.greeted();
    client.begin("anna@example.net", &["jon@razorback"]);
    client.send_text(&("A:\r\n".repeat(100_000) + "\r\nx\r\n.\r\n"));
    client.expect("552 5.3.4 ");
    client.send("anna@example.net", &["jon@razorback"], TEXT);
}

/// libmilter closes a connection on which a packet is longer than 65,535 octets.
#[test]
fn a_milter_is_shown_the_beginning_of_a_field_that_is_too_long() {
    let milter = Milter::start(Script::default());
    let site = site_of(&milter);
    let daemon = site.start();
    let mut client = daemon.greeted();
    let field = |length: usize| -> String {
        let octet = |at| match at % 500 {
            498 => "\r\n",
            499 => " ",
            _ => "x",
        };
        (0..length).map(octet).collect()
    };
    // The packet has the name, the value and two NULs. A line end counts as one octet.
    let fits = 65_535 - 3;
    client.send("anna@example.net", &["jon@razorback"], &format!("A: {}\r\nB: c\r\n\r\nx\r\n", field(fits)));
    assert!(!daemon.log().contains(" cut="), "{}", daemon.log());
    client.send("anna@example.net", &["jon@razorback"], &format!("A: {}\r\nB: c\r\n\r\nx\r\n", field(80_100)));
    daemon.wait_log(|line| line.contains(" filter by=") && line.ends_with(" cut=1"));
    // The value would end in a line end if it were only cut.
    let at_line_end = "x".repeat(fits - 1);
    client.send("anna@example.net", &["jon@razorback"], &format!("A: {at_line_end}\r\n y\r\nB: c\r\n\r\nx\r\n"));
    let seen = milter.texts(b'L');
    let lengths: Vec<usize> = seen.iter().map(String::len).collect();
    assert_eq!(lengths, [65_535, 4, 65_535, 4, 65_534, 4]);
    assert!(seen[2].starts_with("A|xxx") && seen[3] == "B|c|", "{:.10}", seen[2]);
    // What is delivered is whole.
    let messages = daemon.wait_mail(&site, "jon", 3);
    assert!(messages.iter().any(|message| message.len() > 80_100));
    // A milter that wants no header is shown none.
    let milter = Milter::start(Script { protocol: 0x20, ..Script::default() });
    let site = site_of(&milter);
    let text = format!("A: {}\r\n\r\nx\r\n", field(80_100));
    let daemon = site.start();
    daemon.greeted().send("anna@example.net", &["jon@razorback"], &text);
    assert_eq!(milter.texts(b'L').len(), 0);
    assert!(!daemon.log().contains(" cut="), "{}", daemon.log());
}

#[test]
fn a_milter_that_reads_no_body_is_given_up() {
    let milter = Milter::start(Script { protocol: 0x8_0000, ..Script::default() }.then(b'B', usize::MAX, Then::Hang));
    let site = site_of(&milter);
    let daemon = site.start();
    let mut client = daemon.greeted();
    client.begin("anna@example.net", &["jon@razorback"]);
    let started = Instant::now();
    client.send_text(&format!("A: b\r\n\r\n{}.\r\n", ("x".repeat(998) + "\r\n").repeat(8000)));
    client.expect("451 4.3.0 ");
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

#[test]
fn a_milter_that_is_absent_defers_or_accepts() {
    for (more, want) in [("", "451 4.3.0 "), (", on_failure = \"accept\"", "250 ")] {
        let mut site = Site::with("relay.networks = []");
        let socket = site.path("absent.sock").display().to_string();
        site.set("", "filter", &format!("[{{ socket = \"unix:{socket}\"{more} }}]"));
        let daemon = site.start();
        assert!(last(&daemon).starts_with(want), "{more}");
        daemon.wait_words(&[" filter-failed ", "stage=connect", "No such file"]);
        let checked = site.penfoldd(&["-n"]).output().expect("it runs");
        let said = text(&checked.stderr);
        assert!(checked.status.success() && said.contains(&format!("filter {socket}: it does not answer")), "{said}");
    }
}

#[test]
fn a_policy_service_decides_about_recipients() {
    let service = PolicyService::start(|request| {
        let action = match request {
            r if r.contains("recipient=root@") => "550 5.2.2 full",
            r if r.contains("sender=later@") => "DEFER_IF_PERMIT Greylisted",
            r if r.contains("sender=bare@") => "550",
            r if r.contains("sender=odd@") => "FROBNICATE",
            r if r.contains("sender=close@") => return None,
            r if r.contains("sender=endless@") => return Some("x=y\n".repeat(100_000)),
            r if r.contains("sender=long@") => return Some("x".repeat(100_000)),
            r if r.contains("sender=mute@") => "",
            _ => "PREPEND X-Policy: asked",
        };
        Some(if action.is_empty() { "action=".to_owned() } else { format!("action={action}\n\n") })
    });
    let site = site(&[(service.address, ", protocol = \"policy\"")]);
    let daemon = site.start();
    let mut client = daemon.greeted();
    client.ask("MAIL FROM:<anna@example.net> SIZE=77", "250 ");
    client.ask("RCPT TO:<root@razorback>", "550 5.2.2 <root@razorback>: Recipient address rejected: full");
    client.ask("RCPT TO:<jon@razorback>", "250 ");
    client.ask("RSET", "250 ");
    client.ask("MAIL FROM:<later@example.net>", "250 ");
    client.ask("RCPT TO:<jon@razorback>", "450 4.7.1 <jon@razorback>: Recipient address rejected: Greylisted");
    client.ask("RSET", "250 ");
    client.ask("MAIL FROM:<bare@example.net>", "250 ");
    client.ask("RCPT TO:<jon@razorback>", "550 5.7.1 <jon@razorback>: Recipient address rejected: Access denied");
    for sender in ["odd", "close", "endless", "long", "mute"] {
        client.ask("RSET", "250 ");
        client.ask(&format!("MAIL FROM:<{sender}@example.net>"), "250 ");
        let started = Instant::now();
        client.ask("RCPT TO:<jon@razorback>", "451 4.3.0 ");
        assert!(started.elapsed() < Duration::from_secs(3), "{sender}");
    }
    client.ask("RSET", "250 ");
    client.ask("MAIL FROM:<anna@example.net>", "250 ");
    client.ask("RCPT TO:<jon@razorback>", "250 ");
    let requests = service.requests();
    for line in [
        "request=smtpd_access_policy",
        "protocol_state=RCPT",
        "protocol_name=ESMTP",
        "client_address=127.0.0.1",
        "client_name=localhost",
        "helo_name=client.test",
        "sender=anna@example.net",
        "recipient=root@razorback",
        "size=77",
        "sasl_username=",
    ] {
        assert!(requests[0].lines().any(|l| l == line), "{line}: {}", requests[0]);
    }
    let instance = |request: &String| request.lines().find(|line| line.starts_with("instance=")).map(str::to_owned);
    assert_eq!(instance(&requests[0]), instance(&requests[1]));
    assert_ne!(instance(&requests[0]), instance(&requests[2]));
}

#[test]
fn filters_see_the_mail_that_they_are_for() {
    let [strangers, submission, local] = [(); 3].map(|()| Milter::start(Script::default()));
    let only = |group: &str| format!(", for = [\"{group}\"]");
    let mut site = Site::new();
    ask(
        &mut site,
        &[
            (strangers.address, &only("strangers")),
            (submission.address, &only("submission")),
            (local.address, &only("local")),
        ],
    );
    site.set("relay", "networks", "[\"127.0.0.2/32\"]");
    let daemon = site.start();
    let seen = || [strangers.letters(), submission.letters(), local.letters()].map(|letters| letters.contains('M'));
    daemon.greeted().ask("MAIL FROM:<anna@example.net>", "250 ");
    assert_eq!(seen(), [true, false, false]);
    Client::new(daemon.connect_from([127, 0, 0, 2].into())).ask("MAIL FROM:<anna@example.net>", "250 ");
    assert_eq!(seen(), [true, true, false]);
}

#[test]
fn a_milter_changes_a_message_and_the_next_one_sees_it() {
    let first = Milter::start(Script::default().at(
        b'E',
        &[
            b"p",
            b"i\0\0\0\0X-First\0a\n b\0",
            b"hX-Last\0c\0",
            b"m\0\0\0\x01Subject\0[SPAM] hello\0",
            b"m\0\0\0\x01X-Old\0\0",
            b"bnew\r",
            b"b\nbody\r\n",
            b"c",
        ],
    ));
    let second = Milter::start(Script::default().at(b'E', &[b"hX-Second\0d\0", b"a"]));
    let third = Milter::start(Script { actions: 0, ..Script::default() });
    let site = site(&[(first.address, ""), (second.address, ""), (third.address, "")]);
    let daemon = site.start();
    let text = "Subject: hello\r\nX-Old: 1\r\nX-Kept: 2\r\n\r\nold body\r\n";
    daemon.greeted().send("anna@example.net", &["jon@razorback"], text);
    let message = self::text(&daemon.wait_mail(&site, "jon", 1)[0]);
    let want = "X-First: a\n b\nSubject: [SPAM] hello\nX-Kept: 2\nX-Last: c\nX-Second: d\n\nnew\nbody\n";
    assert!(message.ends_with(&format!("\n{want}")), "{message}");
    assert!(message.find("Received:") < message.find("X-First:"), "{message}");
    let fields = ["X-First|a\n b|", "Subject|[SPAM] hello|", "X-Kept|2|", "X-Last|c|", "X-Second|d|"];
    assert_eq!(second.texts(b'L'), fields[..4]);
    assert_eq!(third.texts(b'L'), fields);
    assert_eq!(third.texts(b'B'), ["new\r\nbody\r\n"]);
    daemon.wait_words(&[" filter by=127.0.0.1:", " header=changed body=changed"]);
}

#[test]
fn a_large_message_is_changed_in_a_file() {
    let big = "0123456789abcdef\r\n".repeat(20_000);
    let pieces: Vec<Vec<u8>> = big.as_bytes().chunks(65_000).map(|piece| [b"b", piece].concat()).collect();
    let mut packets: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
    packets.push(b"c");
    let milter = Milter::start(Script { protocol: 0x8_0080, ..Script::default() }.at(b'E', &packets));
    let site = site_of(&milter);
    let daemon = site.start();
    let old = "x".repeat(70).to_owned() + "\r\n";
    daemon.greeted().send("anna@example.net", &["jon@razorback"], &format!("A: b\r\n\r\n{}", old.repeat(5000)));
    let message = text(&daemon.wait_mail(&site, "jon", 1)[0]);
    let (_, body) = message.split_once("\nA: b\n\n").expect("a body");
    assert!(body == big.replace("\r\n", "\n"), "{} octets", body.len());
    assert_eq!(milter.texts(b'B').concat().len(), old.len() * 5000);
}

#[test]
fn a_milter_changes_the_envelope() {
    let milter = Milter::start(Script::default().at(
        b'E',
        &[
            b"e<root@razorback>\0",
            b"+<root@razorback>\0",
            b"2<nobody@razorback>\0NOTIFY=NEVER\0",
            b"-<jon@razorback>\0",
            b"c",
        ],
    ));
    let site = site_of(&milter);
    let daemon = site.start();
    daemon.greeted().send("anna@example.net", &["jon@razorback"], TEXT);
    let message = text(&daemon.wait_mail(&site, "root", 1)[0]);
    assert!(message.starts_with("Return-Path: <root@razorback>\n"), "{message}");
    assert!(site.mail("jon").is_empty());
    daemon.wait_words(&["a filter adds the recipient <nobody@razorback>, which cannot be accepted"]);
    daemon.wait_words(&["sender=<root@razorback> added=<root@razorback>", "removed=<jon@razorback>"]);
}

/// An alias shares a recipient with another RCPT, in both orders.
#[test]
fn a_milter_removes_only_what_no_other_rcpt_leads_to() {
    for (recipients, deleted, delivered) in [
        (["list@razorback", "jon@razorback"], "list@razorback", [1, 0]),
        (["jon@razorback", "list@razorback"], "list@razorback", [1, 0]),
        (["list@razorback", "jon@razorback"], "jon@razorback", [1, 1]),
        (["jon@razorback", "list@razorback"], "JON@razorback", [1, 1]),
        (["jon@razorback", "list@razorback"], "root@razorback", [1, 1]),
    ] {
        let packet = format!("-<{deleted}>\0");
        let milter = Milter::start(Script::default().at(b'E', &[packet.as_bytes(), b"c"]));
        let site = site_of(&milter);
        site.write("aliases", "list: jon, root\n");
        let daemon = site.start();
        daemon.greeted().send("anna@example.net", &recipients, TEXT);
        daemon.wait_mail(&site, "jon", 1);
        assert!(daemon.settles(&site));
        let stored = ["jon", "root"].map(|user| site.mail(user).len());
        assert_eq!(stored, delivered, "{recipients:?} without {deleted}");
    }
}

#[test]
fn a_message_is_discarded_or_quarantined() {
    let service = |action: &'static str| PolicyService::start(move |_| Some(format!("action={action}\n\n")));
    let dropper = |letter| Milter::start(Script::default().at(letter, &[b"d"]));
    let none = Milter::start(Script::default().at(b'E', &[b"-<jon@razorback>\0", b"c"]));
    for address in
        [dropper(b'M').address, dropper(b'R').address, dropper(b'B').address, dropper(b'E').address, none.address]
    {
        let site = site(&[(address, "")]);
        let daemon = site.start();
        assert!(last(&daemon).starts_with("250 2.0.0 "));
        daemon.wait_words(&[" filter by="]);
        assert!(daemon.settles(&site) && site.mail("jon").is_empty());
    }
    let dropping = service("DISCARD quietly");
    let site = site(&[(dropping.address, ", protocol = \"policy\"")]);
    let daemon = site.start();
    assert!(last(&daemon).starts_with("250 2.0.0 ") && site.mail("jon").is_empty());
    daemon.wait_words(&[" filter by=", "result=discard"]);

    let (holding, milter) =
        (service("HOLD looks odd"), Milter::start(Script::default().at(b'E', &[b"qlooks odd\0", b"c"])));
    for (address, more) in [(holding.address, ", protocol = \"policy\""), (milter.address, "")] {
        let site = self::site(&[(address, more)]);
        let daemon = site.start();
        assert!(last(&daemon).starts_with("250 2.0.0 "));
        let queue = site.penfoldctl(&["queue"]);
        assert!(queue.contains(&format!("the filter {address} says: looks odd")), "{queue}");
        assert!(site.mail("jon").is_empty());
    }
}

#[test]
fn a_policy_service_adds_a_field() {
    let service = PolicyService::start(|_| Some("action=PREPEND X-Policy: asked\n\n".to_owned()));
    let milter = Milter::start(Script::default());
    let site = site(&[(service.address, ", protocol = \"policy\""), (milter.address, "")]);
    let daemon = site.start();
    daemon.greeted().send("anna@example.net", &["jon@razorback", "root@razorback"], "A: b\r\n\r\nx\r\n");
    let message = text(&daemon.wait_mail(&site, "jon", 1)[0]);
    assert!(message.ends_with("\nX-Policy: asked\nA: b\n\nx\n"), "{message}");
    assert_eq!(message.matches("X-Policy").count(), 1);
    assert_eq!(milter.texts(b'L'), ["X-Policy|asked|", "A|b|"]);
}

/// A milter on a Unix socket, for mail from sendmail(8).
#[test]
fn mail_of_local_programs_is_filtered() {
    let mut site = Site::new();
    let socket = site.path("milter.sock");
    let milter = Milter::at(&socket, Script::default().at(b'E', &[b"hX-Filter\0yes\0", b"c"]));
    site.set("", "filter", &format!("[{{ socket = \"unix:{}\", for = [\"local\"] }}]", socket.display()));
    let daemon = site.start();
    assert!(programs::sendmail(&site, &["jon"], b"hello\n").status.success());
    let message = text(&daemon.wait_mail(&site, "jon", 1)[0]);
    assert!(message.contains("\nX-Filter: yes\n"), "{message}");
    assert_eq!(milter.macros("_"), ["localhost [127.0.0.1]"]);
}

#[test]
fn a_milter_is_told_of_the_login_and_the_encryption() {
    let milter = Milter::start(Script::default());
    let authority = Authority::new();
    let mut site = authority.site("listen.kind = \"submission\"\nlisten.auth = \"always\"\nrelay.networks = []");
    // The password is "pencil".
    let secret = "{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,\
                  wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
    site.add("users", &format!("elvis:{secret}:"));
    ask(&mut site, &[(milter.address, ", for = [\"submission\"]")]);
    let daemon = site.start();
    let script = "import smtplib,ssl,sys\ns=smtplib.SMTP('127.0.0.1',int(sys.argv[1]))\n\
                  c=ssl.create_default_context();c.check_hostname=False;c.verify_mode=ssl.CERT_NONE\ns.starttls(context=c)\n\
                  s.login('elvis','pencil')\ns.sendmail('elvis@razorback',['jon@razorback'],'Subject: x\\r\\n\\r\\nx\\r\\n')\n";
    let Ok(output) = Command::new("python3").args(["-c", script, &daemon.port.to_string()]).output() else {
        return common::skipped("python3 is not installed");
    };
    assert!(output.status.success(), "{}", text(&output.stderr));
    for (name, value) in
        [("{tls_version}", "TLSv1.3"), ("{auth_authen}", "elvis"), ("{auth_type}", "PLAIN"), ("{cipher_bits}", "256")]
    {
        assert_eq!(milter.macros(name).first().map(String::as_str), Some(value), "{name}");
    }
}

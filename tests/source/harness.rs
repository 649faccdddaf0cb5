//! Tests the common code of the tests.
//!
//! Dialogues are played against each other, against a sink, and against servers that deviate from
//! them; a name server is queried; a shell script stands in for the daemon. penfold is not tested
//! here.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;
use std::{fs, thread};

use trust_dns_resolver::proto::op::{Message, MessageType, OpCode, Query};
use trust_dns_resolver::proto::rr::{Name, RecordType};

use common::dialog::{Check, Dialog, Side, Stage, matches, unescape};
use common::dns::{Answer, Dns};
use common::network::{self, Network};
use common::remote::{Conduct, Remote, Sink, Then, listeners};
use common::zones::Zone;
use common::{Daemon, Site};

#[test]
fn patterns() {
    for (pattern, text, fits) in [
        ("250 *", "250 2.0.0 ok", true),
        ("250 *", "250", false),
        ("5?? *unknown*", "550 5.1.1 User unknown here", true),
        ("5??", "5500", false),
        ("*a*b*", "xxaxxaxb", true),
        ("*ab", "aab", true),
        ("*ab", "aba", false),
        ("", "", true),
        ("*", "", true),
        ("?", "", false),
        ("[127.0.0.1]", "[127.0.0.1]", true),
    ] {
        assert_eq!(matches(pattern, text), fits, "{pattern:?} {text:?}");
    }
    assert_eq!(unescape(r"a\r\n\0\\\xFFb").expect("good escapes"), b"a\r\n\0\\\xffb");
    assert_eq!([r"\q", r"\x1", r"\xzz", "\\"].map(unescape), [None, None, None, None]);
}

/// A dialogue without patterns, so that both of its sides can be played.
const BOTH_SIDES: &str = "# A comment.
S: 220 hello
C: HELO there
S: 250-line
S: 250 line
C*3 NOOP
S*3 250 ok
C! RAW\\x21\\r\\nMORE\\r\\n
S: 500 what
C:
S: 221 bye
S$
";

/// The server's side of [`BOTH_SIDES`]. Where the client sends raw bytes, it expects lines.
fn server_part() -> String {
    BOTH_SIDES.replace("C! RAW\\x21\\r\\nMORE\\r\\n", "C: RAW!\nC: MORE")
}

fn converse(server: &str, client: &str, in_bytes: bool) -> Result<(), String> {
    let remote = Remote::script(&[server]);
    let mut connect = || TcpStream::connect(remote.address);
    let mut check = |_: &Check| Ok(());
    let dialog = Dialog::parse("client", client).expect("a dialogue");
    let result = dialog.play(Side::Client, &mut Stage { connect: &mut connect, check: &mut check, in_bytes });
    if result.is_ok() {
        remote.finish();
    }
    result
}

#[test]
fn both_sides_of_a_dialogue_can_be_played() {
    assert_eq!(converse(&server_part(), BOTH_SIDES, false), Ok(()));
    assert_eq!(converse(&server_part(), BOTH_SIDES, true), Ok(()));
    assert_eq!(converse("S: 220 a\nS: 220 b\nS: 221 c\nS$\n", "S: 2*\nS~ 221 *\nS$\n", false), Ok(()));
    assert_eq!(converse("S: 220 a\nC$\n", "S: 220 a\nC$\n===\nS: 220 a\nC^\n", false), Ok(()));
}

#[test]
fn a_deviation_is_reported_with_its_line_and_the_transcript() {
    for (server, client, report) in [
        (
            "S: 220 hello\nC$\n",
            "S: 250 *\n",
            "client:1: expected \"250 *\", got \"220 hello\"\n    ===\n    Server 220 hello\n",
        ),
        (
            "S: 220 hello\nS$\n",
            "S: 220 *\n# x\nS: 250 *\n",
            "client:3: expected \"250 *\", got the end of the connection",
        ),
        ("S: 220 hello\nC$\n", "S$\n", "client:1: expected the end of the connection, got"),
        ("S! 220 hello\\n\nC$\n", "S: 220 *\n", "client:1: [50, 50, 48"),
        ("S! 220 a\\r\\n220 b\\r\\n\nC$\n", "S: 220 *\n", "client:1: unexpected text after the dialogue: \"220 b"),
        ("S$\n", "C: HELO x\nS~ 250 *\n", "client:2: expected \"250 *\" at last"),
    ] {
        let got = converse(server, client, false).expect_err(client);
        assert!(got.starts_with(report), "{got}");
    }
}

#[test]
fn a_malformed_line_is_an_error() {
    for line in ["X: what", "C", "C: ok\nC% no", "S*x y", "C! \\q", "M: jon", "M: jon many", "== =", "@ nothing", "W"] {
        let error = Dialog::parse("bad.txt", line).expect_err(line);
        assert!(error.starts_with("bad.txt:"), "{error}");
    }
}

#[test]
fn a_sink_accepts_mail_and_follows_its_rules() {
    let [one, two] = <[TcpListener; 2]>::try_from(listeners(2)).expect("two");
    assert_eq!(one.local_addr().expect("bound").port(), two.local_addr().expect("bound").port());
    assert_eq!(two.local_addr().expect("bound").ip(), Ipv4Addr::new(127, 0, 0, 3));
    let sink = Sink::default().reply("rcpt to:<bad", "550-5.1.1 no\n550 5.1.1 such user");
    let sink = sink.when("MAIL", Then::Reply("451 4.3.0 later".to_owned()), 1).when("DATA", Then::Reset, 1);
    let remote = Remote::start(one, Conduct::Sink(sink));
    let hello = "S: 220 *\nC: EHLO x\nS: 250-sink.test\nS~ 250 *\n";
    let begin =
        "C: MAIL FROM:<a@b>\nS: 451 4.3.0 later\nC: MAIL FROM:<a@b> SIZE=3\nS: 250 *\nC: RCPT TO:<c@d>\nS: 250 *\n";
    let again = begin.replace("C: MAIL FROM:<a@b>\nS: 451 4.3.0 later\n", "");
    let refused = "C: RCPT TO:<bad@d>\nS: 550-*\nS: 550 5.1.1 such user\nC: DATA\nS~$\n===\n";
    let data = "C: DATA\nS: 354 *\nC: ..dot\nC! \\xfc\\r\\n.\\r\\n\nS: 250 *\nC: QUIT\nS: 221 *\nS$\n";
    let text = [hello, begin, refused, hello, &again, data].concat();
    let mut connect = || TcpStream::connect(remote.address);
    let mut check = |_: &Check| Ok(());
    let mut stage = Stage { connect: &mut connect, check: &mut check, in_bytes: false };
    assert_eq!(Dialog::parse("client", &text).expect("a dialogue").play(Side::Client, &mut stage), Ok(()));
    let messages = remote.messages(1);
    assert_eq!(messages[0].sender, "<a@b> SIZE=3");
    assert_eq!(
        (messages[0].recipients.as_slice(), &messages[0].data),
        (&["<c@d>".to_owned()][..], &b".dot\r\n\xfc\r\n".to_vec())
    );
    assert_eq!(remote.look(|seen| seen.connections), 2);
    remote.finish();
}

#[test]
fn a_name_server_answers_from_its_zone() {
    let dns = Dns::zone(
        "x.test MX 10 mx.x.test\nmx.x.test A 127.0.0.2\nmx.x.test A 127.0.0.3\nwww.x.test CNAME x.test\n\
         # What goes wrong.\nbad.test SERVFAIL\nbig.test TRUNCATED\nbig.test TXT text\ndead.test SILENCE\n",
    );
    for (name, kind, answer) in [
        ("X.test", RecordType::MX, "No Error false 1"),
        ("mx.x.test", RecordType::A, "No Error false 2"),
        ("mx.x.test", RecordType::AAAA, "No Error false 0"),
        ("www.x.test", RecordType::MX, "No Error false 2"),
        ("none.test", RecordType::A, "Non-Existent Domain false 0"),
        ("bad.test", RecordType::A, "Server Failure false 0"),
        ("big.test", RecordType::TXT, "No Error true 0"),
    ] {
        assert_eq!(ask(&dns, name, kind, false).as_deref(), Some(answer), "{name}");
    }
    assert_eq!(ask(&dns, "big.test", RecordType::TXT, true).as_deref(), Some("No Error false 1"));
    assert_eq!(ask(&dns, "dead.test", RecordType::A, false), None);
    assert_eq!(dns.asked().first(), Some(&("x.test".to_owned(), RecordType::MX)));
}

#[test]
fn a_name_server_answers_other_questions_while_an_answer_waits() {
    let dns = Dns::start(|name, _| Answer {
        after: if name == "slow.test" { Duration::from_millis(500) } else { Duration::ZERO },
        ..Answer::nxdomain()
    });
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
    let mut stream = TcpStream::connect(dns.address).expect("it listens");
    for (id, name) in [(1, "slow.test"), (2, "fast.test")] {
        let question = question(id, name, RecordType::A);
        socket.send_to(&question, dns.address).expect("sent");
        stream.write_all(&framed(&question)).expect("it reads");
    }
    for id in [2, 1] {
        let mut answer = vec![0; 4096];
        let length = socket.recv(&mut answer).expect("an answer");
        assert_eq!(Message::from_vec(&answer[..length]).expect("a message").metadata.id, id, "over UDP");
        let answer = Message::from_vec(&read_framed(&mut stream)).expect("a message");
        assert_eq!(answer.metadata.id, id, "over TCP");
    }
}

fn question(id: u16, name: &str, kind: RecordType) -> Vec<u8> {
    let mut question = Message::new(id, MessageType::Query, OpCode::Query);
    question.add_query(Query::query(Name::from_ascii(name).expect("a name"), kind));
    question.to_vec().expect("a question")
}

/// A message as TCP carries it: behind its length.
fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).expect("small").to_be_bytes();
    [&length[..], message].concat()
}

fn read_framed(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).expect("it answers");
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message).expect("all of it");
    message
}

/// Asks a name server. Returns the code, the truncation and the number of records of the answer, as
/// text. `None` if there is no answer in time.
fn ask(dns: &Dns, name: &str, kind: RecordType, over_tcp: bool) -> Option<String> {
    let question = question(7, name, kind);
    let mut answer = vec![0; 4096];
    if over_tcp {
        let mut stream = TcpStream::connect(dns.address).expect("it listens");
        stream.write_all(&framed(&question)).expect("it reads");
        answer = read_framed(&mut stream);
    } else {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
        // The timeout is long enough for an answer from this machine, and only one server is silent.
        socket.set_read_timeout(Some(Duration::from_secs(3))).expect("a time");
        socket.send_to(&question, dns.address).expect("sent");
        let length = socket.recv(&mut answer).ok()?;
        answer.truncate(length);
    }
    let answer = Message::from_vec(&answer).expect("a message");
    assert_eq!(answer.metadata.id, 7);
    let (code, truncated) = (answer.metadata.response_code, answer.metadata.truncation);
    Some(format!("{code} {truncated} {}", answer.answers.len()))
}

#[test]
fn a_site_writes_its_settings_and_leaves_nothing_behind() {
    let mut site = Site::with("limits.recipients = 100\nhostname = \"other.test\"");
    site.set("listen", "address", "\"127.0.0.1:2525\"");
    site.add("aliases", "staff: jon");
    site.configure();
    let read = |name: &str| fs::read_to_string(site.path(name)).expect(name);
    let text = read("penfold.conf");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "hostname = \"other.test\"");
    let at = lines.iter().position(|l| *l == "[[listen]]").expect("a listener");
    assert_eq!(lines[at + 1], "address = \"127.0.0.1:2525\"");
    let at = lines.iter().position(|l| *l == "[limits]").expect("limits");
    assert_eq!(lines[at + 1], "recipients = 100");
    assert_eq!((read("aliases").as_str(), site.mail("jon").len(), site.spooled().len()), ("staff: jon\n", 0, 0));
    let dir = site.path("");
    let panicked = thread::spawn(move || {
        let _site = site;
        panic!("as a test that fails");
    });
    assert!(panicked.join().is_err() && !dir.exists());
}

#[test]
fn a_daemon_is_observed_by_its_log_and_can_be_ended() {
    let script = |text: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("echo 'listening on 127.0.0.1:4711 (smtp)' >&2; {text}")]);
        Daemon::spawn(command)
    };
    let daemon = script("trap 'echo bye >&2; exit 3' TERM; echo up >&2; while :; do sleep 0.05; done");
    assert_eq!(daemon.port, 4711);
    assert_eq!(daemon.wait_log(|line| line == "up"), "up");
    assert_eq!(daemon.terminate().code(), Some(3));
    let daemon = script("exec sleep 60");
    let pid = daemon.pid();
    daemon.kill9();
    assert!(nix::sys::signal::kill(pid, None).is_err());
    assert!(!script("exit 0").becomes_true(|| false), "the end of a daemon ends the wait");
}

#[test]
fn what_a_daemon_has_logged_before_its_reply_is_in_the_log() {
    let site = Site::new();
    let pipes = ["in", "out"].map(|name| site.path(name));
    assert!(Command::new("mkfifo").args(&pipes).status().expect("mkfifo").success());
    let text = "echo 'listening on 127.0.0.1:1' >&2; while read -r line; do echo \"$line\" >&2; echo; done < $0 > $1";
    let mut command = Command::new("sh");
    let daemon = Daemon::spawn({
        command.args(["-c", text]).args(&pipes);
        command
    });
    let mut to = fs::File::options().write(true).open(&pipes[0]).expect("a pipe");
    let mut from = fs::File::open(&pipes[1]).expect("a pipe");
    for number in 0..500 {
        writeln!(to, "{number}").expect("it reads");
        from.read_exact(&mut [0]).expect("it replies");
        assert!(daemon.log().ends_with(&format!("\n{number}")), "{number}");
    }
}

#[test]
fn a_network_has_signed_zones_and_a_resolver_that_validates() {
    let host = "mx A 192.0.2.60";
    let zones = vec![
        Zone::signed("test", ""),
        Zone::signed("secure.test", host),
        Zone::insecure("insecure.test", host),
        Zone::expired("expired.test", host),
        Zone::signed("bogus.test", host).then(|text| text.replace("192.0.2.60", "192.0.2.61")),
    ];
    let Some(network) = Network::start(zones) else { return };
    let ask = |zone: &str| {
        let mut drill = Command::new("drill");
        drill.args(["-D", "@127.0.0.1", &format!("mx.{zone}.test"), "A"]);
        let output = network.inside(&drill).output().expect("drill");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (text.contains("\tA\t192.0.2.60"), text.contains("rcode: SERVFAIL"), text.contains(" ad ;"))
    };
    assert_eq!(ask("secure"), (true, false, true));
    assert_eq!(ask("insecure"), (true, false, false));
    assert_eq!(ask("expired"), (false, true, false));
    assert_eq!(ask("bogus"), (false, true, false));
    // The log of the resolver may be late.
    network.resolver.wait_until("four questions", || network.questions().len() >= 4);
    assert_eq!(network.questions(), ["secure", "insecure", "expired", "bogus"].map(|zone| format!("mx.{zone}.test A")));

    let listener = network.listener("192.0.2.60", 25);
    let client = network.machine(|| TcpStream::connect("192.0.2.60:25")).expect("a connection");
    let (_, from) = listener.accept().expect("a connection");
    assert_eq!((from.ip(), client.peer_addr().expect("connected").port()), (network::MACHINE.into(), 25));
    drop(network);
    let dirs = fs::read_dir(std::env::temp_dir()).expect("a directory").flatten();
    let ours = format!("penfold-network-{}-", std::process::id());
    assert!(!dirs.map(|dir| dir.file_name()).any(|name| name.to_string_lossy().starts_with(&ours)));
}

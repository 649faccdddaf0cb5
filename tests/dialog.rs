//! Plays every file of tests/dialog against the real daemon.
//!
//! A file is a promise, its name a sentence, its text the proof: a conversation
//! with penfoldd on a scratch site, see `common::Site`, where jon and root have
//! mailboxes at razorback and razorback.test and loopback may relay. One file,
//! one daemon. Files whose client says little are played a second time with every
//! byte in a write of its own: how TCP cuts a conversation changes nothing.
//! `PENFOLD_DIALOG=word cargo test --test dialog` plays only the files with that
//! word in their names.
//!
//! A line of a file, by its beginning:
//!
//! ```text
//! # text                 a comment
//! @ section.key = value  a setting of penfold.conf; the value as in TOML
//! @ table: line          a line for users, aliases, virtual or routes
//! C: text                the client says text and CR LF; "C:" is an empty line
//! C! text                the client says text as it is; \r \n \0 \\ \xNN are bytes
//! C*9 text, C!*9 text    the same nine times, in one write
//! C$                     the client closes the connection
//! C^                     the client resets the connection
//! S: pattern             the server says one line; * is any text, ? any one character
//! S*9 pattern            nine such lines
//! S~ pattern             the server says what it likes until a line like this
//! S$                     the server closes the connection, and says nothing before
//! S~$                    the server says what it likes and closes the connection
//! ===                    another client connects; the first keeps its connection
//! M: jon 1               when the spool is empty, jon has so many messages
//! M: jon contains text   one of them contains text, with \r \n \0 \\ \xNN as bytes
//! M: jon lacks text      none of them does
//! W: text                a line of the log contains text, now or soon
//! ```
//!
//! A line of the server that comes too late, unasked or without CR LF is a failure.
//! Played by a `Remote`, C and S change places: what the client says is a pattern.

mod common;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use std::{env, fs, thread};

use trust_dns_resolver::proto::op::{Message, MessageType, OpCode, Query};
use trust_dns_resolver::proto::rr::{Name, RecordType};

use common::dialog::{Check, Dialog, Side, Stage, matches, unescape};
use common::dns::Dns;
use common::remote::{Conduct, Remote, Sink, Then, listeners};
use common::{Daemon, Site};

/// Clients that say no more than this are also heard byte by byte.
const LITTLE: usize = 8 * 1024;

#[test]
fn every_dialogue_goes_as_written() {
    let files = Mutex::new(files().into_iter());
    let failures = Mutex::new(Vec::new());
    let next = || files.lock().unwrap_or_else(PoisonError::into_inner).next();
    let play = || {
        while let Some(file) = next() {
            let result = catch_unwind(AssertUnwindSafe(|| play(&file)));
            let result = result.unwrap_or_else(|_| Err(format!("{}: panicked, see above\n", file.display())));
            failures.lock().unwrap_or_else(PoisonError::into_inner).extend(result.err());
        }
    };
    thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(play))));
    let failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert!(failures.is_empty(), "{} dialogues went otherwise:\n\n{}", failures.len(), failures.join("\n"));
}

fn files() -> Vec<PathBuf> {
    let word = env::var("PENFOLD_DIALOG").unwrap_or_default();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialog");
    let files = fs::read_dir(dir).expect("tests/dialog").map(|entry| entry.expect("an entry").path());
    let wanted =
        |file: &PathBuf| file.extension().is_some_and(|e| e == "txt") && file.to_string_lossy().contains(&word);
    let mut files: Vec<_> = files.filter(wanted).collect();
    files.sort();
    assert!(!files.is_empty(), "no dialogues with {word:?}");
    files
}

fn play(file: &Path) -> Result<(), String> {
    let dialog = Dialog::load(file)?;
    play_once(&dialog, false)?;
    if dialog.size(Side::Client) > LITTLE {
        return Ok(());
    }
    play_once(&dialog, true).map_err(|report| format!("byte by byte: {report}"))
}

fn play_once(dialog: &Dialog, in_bytes: bool) -> Result<(), String> {
    let site = Site::with(&dialog.settings);
    dialog.tables.iter().for_each(|(table, line)| site.add(table, line));
    let daemon = site.start();
    let mut connect = || TcpStream::connect(daemon.address());
    let mut check = |check: &Check| verify(check, &site, &daemon);
    let mut stage = Stage { connect: &mut connect, check: &mut check, in_bytes };
    dialog.play(Side::Client, &mut stage).map_err(|report| format!("{report}    -- log --\n{}\n", daemon.log()))
}

fn verify(check: &Check, site: &Site, daemon: &Daemon) -> Result<(), String> {
    let contain = |text: &[u8], user: &str| {
        site.mail(user).iter().any(|message| message.windows(text.len()).any(|window| window == text))
    };
    if let Check::Log(text) = check {
        let seen = daemon.comes_true(|| daemon.log().contains(text));
        return if seen { Ok(()) } else { Err(format!("not in the log: {text}")) };
    }
    if !daemon.settles(site) {
        return Err(format!("the spool does not become empty: {:?}", site.spooled()));
    }
    let (user, good) = match check {
        Check::Count(user, count) => (user, site.mail(user).len() == *count),
        Check::Contains(user, text) => (user, contain(text, user)),
        Check::Lacks(user, text) => (user, !contain(text, user)),
        Check::Log(_) => return Ok(()),
    };
    let mail = || site.mail(user).iter().map(|m| String::from_utf8_lossy(m).into_owned()).collect::<Vec<_>>();
    if good { Ok(()) } else { Err(format!("{check:?} does not hold: {:#?}", mail())) }
}

// That the tools are sharp.

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

/// A dialogue without patterns, so that it can be played with itself.
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

/// The server's part where it must hear what the client's part says in raw bytes.
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
fn both_sides_of_a_dialogue_understand_each_other() {
    assert_eq!(converse(&server_part(), BOTH_SIDES, false), Ok(()));
    assert_eq!(converse(&server_part(), BOTH_SIDES, true), Ok(()));
    assert_eq!(converse("S: 220 a\nS: 220 b\nS: 221 c\nS$\n", "S: 2*\nS~ 221 *\nS$\n", false), Ok(()));
    assert_eq!(converse("S: 220 a\nC$\n", "S: 220 a\nC$\n===\nS: 220 a\nC^\n", false), Ok(()));
}

#[test]
fn what_goes_otherwise_is_reported_with_its_line_and_the_transcript() {
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
        ("S! 220 a\\r\\n220 b\\r\\n\nC$\n", "S: 220 *\n", "client:1: this came unasked: \"220 b"),
        ("S$\n", "C: HELO x\nS~ 250 *\n", "client:2: expected \"250 *\" at last"),
    ] {
        let got = converse(server, client, false).expect_err(client);
        assert!(got.starts_with(report), "{got}");
    }
}

#[test]
fn a_line_that_makes_no_sense_is_refused() {
    for line in ["X: what", "C", "C: ok\nC% no", "S*x y", "C! \\q", "M: jon", "M: jon many", "== =", "@ nothing", "W"] {
        let error = Dialog::parse("bad.txt", line).expect_err(line);
        assert!(error.starts_with("bad.txt:"), "{error}");
    }
}

#[test]
fn a_sink_takes_mail_and_its_rules_are_obeyed() {
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
fn a_name_server_answers_as_its_zone_says() {
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

/// Code, truncation and number of records, or nothing if nothing comes.
fn ask(dns: &Dns, name: &str, kind: RecordType, over_tcp: bool) -> Option<String> {
    let mut question = Message::new(7, MessageType::Query, OpCode::Query);
    question.add_query(Query::query(Name::from_ascii(name).expect("a name"), kind));
    let question = question.to_vec().expect("a question");
    let mut answer = vec![0; 4096];
    if over_tcp {
        let mut stream = TcpStream::connect(dns.address).expect("it listens");
        let length = u16::try_from(question.len()).expect("small").to_be_bytes();
        stream.write_all(&[&length[..], &question].concat()).expect("it reads");
        stream.read_exact(&mut answer[..2]).expect("it answers");
        answer.truncate(u16::from_be_bytes([answer[0], answer[1]]).into());
        stream.read_exact(&mut answer).expect("all of it");
    } else {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
        // Long enough for an answer from this machine, short enough to wait for none.
        socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a time");
        socket.send_to(&question, dns.address).expect("sent");
        let length = socket.recv(&mut answer).ok()?;
        answer.truncate(length);
    }
    let answer = Message::from_vec(&answer).expect("a message");
    assert_eq!(answer.metadata.id, 7);
    let (code, truncated) = (answer.metadata.response_code, answer.metadata.truncation);
    Some(format!("{code} {truncated} {}", answer.answers.len()))
}

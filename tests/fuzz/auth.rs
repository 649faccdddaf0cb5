//! AUTH with the real daemon: commands and responses that no client would send, and a Dovecot that
//! answers anything.
//!
//! If a client ends a line, the line gets a reply of RFC 4954, or the session ends. If it does not
//! end the line, it occupies the daemon only until the timeout. An answer of Dovecot counts only if
//! it is well-formed, and is awaited no longer than penfold promises. No client is authenticated,
//! nothing panics, and nothing is logged that may have been a password. Exchanges without
//! connections are in tests/fuzz/sasl.rs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use common::chance::Chance;
use common::dialog::Wire;
use common::{Daemon, Site};
use data_encoding::BASE64;
use penfold::sasl::Mechanism;
use penfold::sasl::dovecot::{Dovecot, Peer};
use penfold::sasl::server::Step;
use penfold::smtp::{MAX_AUTH_LINE, MAX_COMMAND_LINE, MAX_ERRORS};

use super::{mutate, repeat_in_threads, seconds};

/// A secret for a users file. The password is "pencil".
const SCRAM: &str = "{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
/// A wrong password. No other text of this file contains it, so the log must not contain it either.
const WRONG: &str = "QQQQQQQQQQQQ";

// The client

/// The value of limits.command_timeout.
const COMMAND_TIMEOUT: &str = "2s";
/// The longest wait for a reply. The reply to a wrong password after many failures takes eight
/// seconds; the rest is for a busy machine.
const MAX_REPLY: Duration = Duration::from_secs(16);

#[test]
fn every_line_of_an_exchange_is_answered_or_ends_the_session() {
    let site = Site::with(&format!(
        "listen.auth = \"always\"\nrelay.networks = []\nlimits.command_timeout = \"{COMMAND_TIMEOUT}\"\n\
         limits.connections_per_host = 1000"
    ));
    site.add("users", &format!("elvis:{SCRAM}:"));
    let daemon = site.start();
    repeat_in_threads(12, |number, chance| {
        // Each session comes from another address, so that no limit of failures is reached.
        let host = Ipv4Addr::new(127, number + 1, chance.of(0..256) as u8, chance.of(1..255) as u8);
        session(&daemon, host, chance);
    });
    let mut client = daemon.greeted();
    client.ask(&format!("AUTH PLAIN {}", BASE64.encode(b"\0elvis\0pencil")), "235 ");
    let log = daemon.log();
    assert!(!log.contains("bug") && !log.contains(WRONG) && !log.contains(&BASE64.encode(WRONG.as_bytes())));
}

fn session(daemon: &Daemon, host: Ipv4Addr, chance: &mut Chance) {
    let mut wire = Wire::new(daemon.connect_from(host), false);
    wire.read_line().expect("a banner");
    let mut line = wire.ask("EHLO client.test").expect("a reply");
    while line.starts_with("250-") {
        line = wire.read_line().expect("a line").expect("a line");
    }
    let (mut is_open, mut mistakes) = (false, 0);
    for _ in 0..chance.of(1..15) {
        let mut line = if is_open && chance.percent(95) { response(chance) } else { command(chance) };
        // Line ends are removed, so that this is one line and gets one reply.
        line.retain(|&octet| octet != b'\n');
        let verb = line.trim_ascii().split(|octet| !octet.is_ascii_alphabetic()).next().unwrap_or_default();
        let is_auth = verb.eq_ignore_ascii_case(b"AUTH");
        let start = Instant::now();
        if chance.percent(3) {
            // The line is sent without its end.
            wire.send(&line).expect("it listens");
            let mut last = None;
            while let Some(line) = wire.read_line().expect("an end") {
                last = Some(line);
            }
            assert!(last.as_ref().is_some_and(|last| last.starts_with("421 4.")), "{}: {last:?}", shown(&line));
            assert!(start.elapsed() < MAX_REPLY, "{:?}", start.elapsed());
            return;
        }
        line.extend_from_slice(b"\r\n");
        wire.send(&line).expect("it listens");
        let reply = wire.read_line().expect("in time");
        let reply = reply.unwrap_or_else(|| panic!("{mistakes} mistakes, and the end after {}", shown(&line)));
        assert!(start.elapsed() < MAX_REPLY, "{:?}", start.elapsed());
        let allowed: &[&str] = match (is_open, is_auth) {
            (true, _) => {
                &["334 ", "454 4.7.0", "500 5.5.2", "500 5.5.6", "501 5.5.2", "501 5.7.0", "535 5.7.8", "421 4.7.0"]
            }
            (false, true) => {
                &["334 ", "454 4.7.0", "500 5.5.", "501 5.5.2", "501 5.5.4", "504 5.5.4", "535 5.7.8", "421 4.7.0"]
            }
            (false, false) => &["500 5.5.", "421 4.7.0"],
        };
        assert!(allowed.iter().any(|begin| reply.starts_with(begin)), "{}: {reply}", shown(&line));
        let limit = if is_open { MAX_AUTH_LINE } else { MAX_COMMAND_LINE };
        assert!(line.len() <= limit || reply.starts_with("500 5.5."), "{} octets: {reply}", line.len());
        if let Some(challenge) = reply.strip_prefix("334 ") {
            BASE64.decode(challenge.as_bytes()).expect("base64");
        }
        is_open = reply.starts_with("334 ");
        mistakes += usize::from(reply.starts_with("50"));
        if mistakes == MAX_ERRORS {
            assert!(wire.read_line().expect("in time").is_some_and(|last| last.starts_with("421 4.7.0 ")));
        }
        if mistakes == MAX_ERRORS || reply.starts_with("421 ") {
            assert_eq!(wire.read_line(), Ok(None));
            return;
        }
    }
}

fn shown(line: &[u8]) -> String {
    format!("{:.200}", line.escape_ascii().to_string())
}

/// A random AUTH command that no client would send.
fn command(chance: &mut Chance) -> Vec<u8> {
    let mut line = b"AUTH ".to_vec();
    line.extend_from_slice(chance.pick::<&[u8]>(&[
        b"PLAIN",
        b"LOGIN",
        b"SCRAM-SHA-256",
        b"SCRAM-SHA-256-PLUS",
        b"plain",
        b"",
        b"X",
    ]));
    if chance.percent(60) {
        line.push(b' ');
        line.extend(response(chance));
    }
    // The verb AUTH is not mutated, since penfold decides by the verb what must not be logged.
    if chance.percent(20) {
        let rest = line.split_off(4);
        line.extend(mutate(chance, &rest));
    }
    line
}

/// A random wrong response, sometimes not even in base64.
fn response(chance: &mut Chance) -> Vec<u8> {
    let name = format!("user{}", chance.of(0..1_000_000));
    let words: [Vec<u8>; 7] = [
        format!("\0{name}\0{WRONG}").into(),
        format!("{name}\0{name}\0{WRONG}").into(),
        name.clone().into(),
        WRONG.into(),
        format!("n,,n={name},r=fyko+d2lbbFgONRv9qkxdawL").into(),
        format!("y,a={name},n={name},r=x").into(),
        b"c=biws,r=fyko+d2lbbFgONRv9qkxdawL,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=".to_vec(),
    ];
    let said = chance.pick(&words).clone();
    let said = if chance.percent(40) { mutate(chance, &said) } else { said };
    let coded = BASE64.encode(&said).into_bytes();
    match chance.of(0..20) {
        0 => b"*".to_vec(),
        1 => b"=".to_vec(),
        2 => Vec::new(),
        3 => vec![b'A'; chance.of(2000..2100)],
        4 => vec![b'A'; chance.of(12_280..12_300)],
        5 => vec![b'A'; chance.of(12_288..100_000)],
        6 => chance.octets(0..300),
        7 => b"\0".repeat(chance.of(1..20)),
        8..12 => mutate(chance, &coded),
        _ => coded,
    }
}

// Dovecot

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// The time that a timeout may be exceeded on a busy machine.
const SLACK: Duration = Duration::from_secs(5);

const HANDSHAKES: [&[u8]; 5] = [
    b"VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nMECH\tLOGIN\tplaintext\nSPID\t12\nCUID\t3\nCOOKIE\t0123456789abcdef\nDONE\n",
    b"VERSION\t1\t2\nMECH\tSCRAM-SHA-256\tmutual-auth\nDONE\n",
    b"VERSION\t2\t0\nMECH\tPLAIN\nDONE\n",
    b"MECH\tPLAIN\nDONE\nVERSION\t1\t2\n",
    b"VERSION\t1\t2\nDONE\nOK\t1\tuser=elvis\n",
];

const ANSWERS: [&[u8]; 6] = [
    b"OK\t1\tuser=elvis\n",
    b"FAIL\t1\tuser=elvis\n",
    b"FAIL\t1\tuser=elvis\ttemp\tcode=temp_fail\n",
    b"CONT\t1\tUGFzc3dvcmQ6\n",
    b"CONT\t2\tUGFzc3dvcmQ6\nOK\t2\tuser=elvis\nFAIL\t1\n",
    b"OK\t1\n",
];

/// What Dovecot sends on one connection.
struct Script {
    handshake: Vec<u8>,
    answer: Vec<u8>,
    /// Whether Dovecot keeps the connection open after the handshake, and never answers.
    holds: bool,
}

/// A false Dovecot. It serves one connection after the other; each takes the next script from the
/// returned channel.
fn scripted(path: &Path) -> mpsc::Sender<Script> {
    let socket = UnixListener::bind(path).expect("a socket");
    let (sender, scripts) = mpsc::channel::<Script>();
    thread::spawn(move || {
        for script in scripts {
            let (peer, _) = socket.accept().expect("a connection");
            let _ = play(peer, &script);
        }
    });
    sender
}

fn play(mut peer: UnixStream, script: &Script) -> std::io::Result<()> {
    peer.write_all(&script.handshake)?;
    if script.holds {
        return peer.read_to_end(&mut Vec::new()).map(drop);
    }
    // A client that rejects the handshake closes the connection or stays silent, so the wait is
    // short.
    peer.set_read_timeout(Some(Duration::from_millis(300)))?;
    let (mut asked, mut line) = (BufReader::new(peer.try_clone()?), String::new());
    while !line.starts_with("AUTH\t") {
        line.clear();
        if asked.read_line(&mut line)? == 0 {
            return Ok(());
        }
    }
    peer.write_all(&script.answer)?;
    peer.shutdown(Shutdown::Write)?;
    asked.read_to_end(&mut Vec::new()).map(drop)
}

const PEER: Peer = Peer { address: None, is_secure: true };

#[test]
fn an_exchange_with_dovecot_ends_whatever_dovecot_says() {
    let site = Site::new();
    let scripts: Vec<_> = (0..16).map(|number| scripted(&site.path(&format!("auth{number}")))).collect();
    let good = AtomicUsize::new(0);
    repeat_in_threads(16, |number, chance| {
        let dovecot = Dovecot::at(&site.path(&format!("auth{number}")));
        let changed = |chance: &mut Chance, corpus: &[&[u8]]| match chance.of(0..10) {
            0 => chance.octets(0..400),
            1 => b"x".repeat(chance.of(16_000..40_000)),
            2 => b"\n".repeat(chance.of(900..1100)),
            3..6 => mutate(chance, corpus[0]),
            6..8 => {
                let one = *chance.pick(corpus);
                mutate(chance, one)
            }
            _ => corpus[0].to_vec(),
        };
        let handshake = if chance.percent(50) { HANDSHAKES[0].to_vec() } else { changed(chance, &HANDSHAKES) };
        let mut answer = Vec::new();
        for _ in 0..chance.of(1..3) {
            let mut corpus = ANSWERS;
            corpus.swap(0, chance.of(0..ANSWERS.len()));
            answer.extend(changed(chance, &corpus));
        }
        // Silence is rare, since each silent connection takes the whole timeout.
        let (holds, said) = (chance.percent(1), [&handshake[..], &answer].concat());
        scripts[usize::from(number)].send(Script { handshake, answer, holds }).expect("it runs");
        let start = Instant::now();
        match dovecot.begin(Mechanism::Plain, PEER) {
            Ok(_) if holds => {}
            Ok(mut exchange) => loop {
                match exchange.step(Some(b"\0elvis\0pencil")) {
                    Step::Challenge(_) => {}
                    Step::Accepted(user) => {
                        assert!(said.windows(4).any(|part| part == b"OK\t1"), "{user:?} in {}", shown(&said));
                        assert!(!user.is_empty() && !user.contains(char::is_control), "{user:?}");
                        good.fetch_add(1, Ordering::Relaxed);
                        break;
                    }
                    Step::Temporary(why) => {
                        assert!(!why.contains("pencil") && !why.contains(&BASE64.encode(b"\0elvis\0pencil")), "{why}");
                        break;
                    }
                    _ => break,
                }
            },
            Err(why) => assert!(why.starts_with("ask Dovecot at "), "{why}"),
        }
        assert!(start.elapsed() < HANDSHAKE_TIMEOUT + SLACK, "{:?}", start.elapsed());
    });
    assert!(good.into_inner() > 0, "no good answer was accepted");
}

/// A server on a socket at `path` that sends `first` at once, and then an endless line, one octet
/// at a time.
fn drip(path: &Path, first: &'static [u8]) {
    let socket = UnixListener::bind(path).expect("a socket");
    thread::spawn(move || {
        for mut peer in socket.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut said = peer.write_all(first);
                while said.is_ok() {
                    thread::sleep(Duration::from_millis(100));
                    said = peer.write_all(b"x");
                }
            });
        }
    });
}

#[test]
fn dovecot_has_five_seconds_for_the_handshake() {
    let site = Site::new();
    drip(&site.path("slow"), b"VERSION\t1\t2\nMECH\tPLAIN\n");
    let (dovecot, start) = (Dovecot::at(&site.path("slow")), Instant::now());
    assert!(dovecot.begin(Mechanism::Plain, PEER).is_err_and(|why| why.contains("timed out")));
    assert!(start.elapsed() < HANDSHAKE_TIMEOUT + SLACK, "{:?}", start.elapsed());
    // The first query for the mechanisms waits for the same time. Its result is remembered, so the
    // repeated queries do not wait.
    let start = Instant::now();
    (0..10).for_each(|_| assert_eq!(dovecot.mechanisms(), [Mechanism::Plain, Mechanism::Login]));
    assert!(start.elapsed() < HANDSHAKE_TIMEOUT + SLACK, "{:?}", start.elapsed());
}

#[test]
fn dovecot_has_thirty_seconds_for_an_answer() {
    if seconds() < 10 {
        return common::skipped("it takes half a minute; PENFOLD_FUZZ must be at least 10");
    }
    let site = Site::new();
    drip(&site.path("slow"), HANDSHAKES[0]);
    let mut exchange = Dovecot::at(&site.path("slow")).begin(Mechanism::Plain, PEER).expect("a greeting");
    let start = Instant::now();
    assert!(matches!(exchange.step(Some(b"\0elvis\0pencil")), Step::Temporary(_)));
    assert!(start.elapsed() < ANSWER_TIMEOUT + SLACK, "{:?}", start.elapsed());
}

//! AUTH under fire, with the real daemon: commands and responses that nobody would send,
//! and a Dovecot that says anything, for `PENFOLD_FUZZ` seconds each, three by default.
//!
//! Every line that a client ends is answered as RFC 4954 has it, or the session ends;
//! what it does not end costs no more than its time. Dovecot is believed only if it says
//! so in its own words, and waited for no longer than penfold promises. Nobody is let in,
//! nothing panics, nothing is logged that may have been a password. A failure tells the
//! seed, and `PENFOLD_FUZZ_SEED` makes the same choices again. The exchanges alone, without
//! connections, are in tests/fuzz/sasl.rs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime};
use std::{env, thread};

use common::chance::Chance;
use common::dialog::Wire;
use common::{Daemon, Site};
use data_encoding::BASE64;
use penfold::sasl::Mechanism;
use penfold::sasl::dovecot::{Dovecot, Peer};
use penfold::sasl::server::Step;
use penfold::smtp::{MAX_AUTH_LINE, MAX_COMMAND_LINE, MAX_ERRORS};

/// The password is "pencil".
const SCRAM: &str = "{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
/// The octets of it are in none of the others.
const WRONG: &str = "QQQQQQQQQQQQ";

fn seconds() -> u64 {
    env::var("PENFOLD_FUZZ").ok().and_then(|text| text.parse().ok()).unwrap_or(3)
}

/// Does it again and again in several threads, for as long as is wanted.
fn at_once(threads: u8, this: impl Fn(u8, &mut Chance) + Sync) {
    let clock = || SystemTime::UNIX_EPOCH.elapsed().map_or(0, |age| age.as_nanos() as u64);
    let seed = env::var("PENFOLD_FUZZ_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(clock);
    println!("PENFOLD_FUZZ_SEED={seed}");
    let end = Instant::now() + Duration::from_secs(seconds());
    thread::scope(|scope| {
        for number in 0..threads {
            let this = &this;
            scope.spawn(move || {
                let mut chance = Chance::new(seed, &number.to_string());
                while Instant::now() < end {
                    this(number, &mut chance);
                }
            });
        }
    });
}

/// A text with some octets changed, dropped, doubled or put in.
fn mutate(chance: &mut Chance, text: &[u8]) -> Vec<u8> {
    const SPICE: &[u8] = b"\0\t\n\r ,=*%{}$\x01\xff\x80pnyracvise0189AZ";
    let mut text = text.to_vec();
    for _ in 0..chance.of(1..5) {
        let (at, octet) = (chance.of(0..text.len() + 1), *chance.pick(SPICE));
        match chance.of(0..6) {
            0 => text.insert(at, octet),
            1 if at < text.len() => text[at] = octet,
            2 if at < text.len() => drop(text.remove(at)),
            3 => text.truncate(at),
            4 => text.extend_from_within(at..),
            _ if at < text.len() => text[at] ^= 1 << chance.of(0..8),
            _ => {}
        }
    }
    text
}

// What a client may say

/// How long a client may be silent, and the longest answer: a wrong password for a name
/// that fails often waits eight seconds. The rest is for a busy machine.
const COMMAND: &str = "2s";
const ANSWER: Duration = Duration::from_secs(16);

#[test]
fn every_line_of_an_exchange_is_answered_or_ends_the_session() {
    let site = Site::with(&format!(
        "listen.auth = \"always\"\nrelay.networks = []\nlimits.command_timeout = \"{COMMAND}\"\n\
         limits.connections_per_host = 1000"
    ));
    site.add("users", &format!("elvis:{SCRAM}:"));
    let daemon = site.start();
    at_once(12, |number, chance| {
        // Another host each time: how often one may fail is not what is tried here.
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
    wire.hear().expect("a banner");
    let mut line = wire.ask("EHLO client.test").expect("an answer");
    while line.starts_with("250-") {
        line = wire.hear().expect("a line").expect("a line");
    }
    let (mut is_open, mut mistakes) = (false, 0);
    for _ in 0..chance.of(1..15) {
        let mut says = if is_open && chance.percent(95) { response(chance) } else { command(chance) };
        // It would be two lines, and two answers.
        says.retain(|&octet| octet != b'\n');
        let verb = says.trim_ascii().split(|octet| !octet.is_ascii_alphabetic()).next().unwrap_or_default();
        let is_auth = verb.eq_ignore_ascii_case(b"AUTH");
        let start = Instant::now();
        if chance.percent(3) {
            // The end of the line does not come.
            wire.say(&says).expect("it listens");
            let mut last = None;
            while let Some(line) = wire.hear().expect("an end") {
                last = Some(line);
            }
            assert!(last.as_ref().is_some_and(|last| last.starts_with("421 4.")), "{}: {last:?}", shown(&says));
            assert!(start.elapsed() < ANSWER, "{:?}", start.elapsed());
            return;
        }
        says.extend_from_slice(b"\r\n");
        wire.say(&says).expect("it listens");
        let reply = wire.hear().expect("in time");
        let reply = reply.unwrap_or_else(|| panic!("{mistakes} mistakes, and the end after {}", shown(&says)));
        assert!(start.elapsed() < ANSWER, "{:?}", start.elapsed());
        let allowed: &[&str] = match (is_open, is_auth) {
            (true, _) => {
                &["334 ", "454 4.7.0", "500 5.5.2", "500 5.5.6", "501 5.5.2", "501 5.7.0", "535 5.7.8", "421 4.7.0"]
            }
            (false, true) => {
                &["334 ", "454 4.7.0", "500 5.5.", "501 5.5.2", "501 5.5.4", "504 5.5.4", "535 5.7.8", "421 4.7.0"]
            }
            (false, false) => &["500 5.5.", "421 4.7.0"],
        };
        assert!(allowed.iter().any(|begin| reply.starts_with(begin)), "{}: {reply}", shown(&says));
        let limit = if is_open { MAX_AUTH_LINE } else { MAX_COMMAND_LINE };
        assert!(says.len() <= limit || reply.starts_with("500 5.5."), "{} octets: {reply}", says.len());
        if let Some(challenge) = reply.strip_prefix("334 ") {
            BASE64.decode(challenge.as_bytes()).expect("base64");
        }
        is_open = reply.starts_with("334 ");
        mistakes += usize::from(reply.starts_with("50"));
        if mistakes == MAX_ERRORS {
            assert!(wire.hear().expect("in time").is_some_and(|last| last.starts_with("421 4.7.0 ")));
        }
        if mistakes == MAX_ERRORS || reply.starts_with("421 ") {
            assert_eq!(wire.hear(), Ok(None));
            return;
        }
    }
}

fn shown(says: &[u8]) -> String {
    format!("{:.200}", says.escape_ascii().to_string())
}

/// AUTH, as nobody would say it.
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
    // The verb stays: by it penfold knows what it must not log.
    if chance.percent(20) {
        let rest = line.split_off(4);
        line.extend(mutate(chance, &rest));
    }
    line
}

/// A response: good base64 of something bad, or not even that.
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

// What Dovecot may say

/// How long it may greet, how long it may think, and what a busy machine may add.
const GREETING: Duration = Duration::from_secs(5);
const THINKING: Duration = Duration::from_secs(30);
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

/// What the other side of a socket says, first and when it is asked, and whether it
/// then holds its end open.
struct Script {
    handshake: Vec<u8>,
    answer: Vec<u8>,
    holds: bool,
}

/// A Dovecot for one connection after the other, each with its script.
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
    // Who does not like the handshake hangs up, or is not waited for.
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
fn whatever_dovecot_says_it_is_heard_to_the_end_or_given_up() {
    let site = Site::new();
    let scripts: Vec<_> = (0..16).map(|number| scripted(&site.path(&format!("auth{number}")))).collect();
    let good = AtomicUsize::new(0);
    at_once(16, |number, chance| {
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
        // Silence costs its whole time, so there is little of it.
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
        assert!(start.elapsed() < GREETING + SLACK, "{:?}", start.elapsed());
    });
    assert!(good.into_inner() > 0, "nothing that was good came through");
}

/// Says an octet now and then and never ends a line, after something that it says at once.
fn drip(path: &Path, at_once: &'static [u8]) {
    let socket = UnixListener::bind(path).expect("a socket");
    thread::spawn(move || {
        for mut peer in socket.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut said = peer.write_all(at_once);
                while said.is_ok() {
                    thread::sleep(Duration::from_millis(100));
                    said = peer.write_all(b"x");
                }
            });
        }
    });
}

#[test]
fn a_dovecot_that_never_comes_to_an_end_has_its_time_and_no_more() {
    let site = Site::new();
    drip(&site.path("slow"), b"VERSION\t1\t2\nMECH\tPLAIN\n");
    let (dovecot, start) = (Dovecot::at(&site.path("slow")), Instant::now());
    assert!(dovecot.begin(Mechanism::Plain, PEER).is_err_and(|why| why.contains("timed out")));
    assert!(start.elapsed() < GREETING + SLACK, "{:?}", start.elapsed());
    // Who asks for the mechanisms waits as long; who asks again, not at all.
    let start = Instant::now();
    (0..10).for_each(|_| assert_eq!(dovecot.mechanisms(), [Mechanism::Plain, Mechanism::Login]));
    assert!(start.elapsed() < GREETING + SLACK, "{:?}", start.elapsed());
}

#[test]
fn a_dovecot_that_thinks_too_long_is_given_up() {
    if seconds() < 10 {
        return common::skipped("it takes half a minute; PENFOLD_FUZZ=10 and more have the time");
    }
    let site = Site::new();
    drip(&site.path("slow"), HANDSHAKES[0]);
    let mut exchange = Dovecot::at(&site.path("slow")).begin(Mechanism::Plain, PEER).expect("a greeting");
    let start = Instant::now();
    assert!(matches!(exchange.step(Some(b"\0elvis\0pencil")), Step::Temporary(_)));
    assert!(start.elapsed() < THINKING + SLACK, "{:?}", start.elapsed());
}

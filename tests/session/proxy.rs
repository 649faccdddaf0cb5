//! Trusted front ends, with the real daemon and with the readers alone: the PROXY
//! header in every split, too slow, and without sense; attributes made at random.
//!
//! What front ends say and hear stands in tests/session/dialog; here is what a dialogue cannot
//! say. The readers get octets that follow from a seed, which a failure tells:
//! `PENFOLD_FUZZ` seconds each, three by default. What they accept is written
//! anew here, by the words of the protocol, and must mean the same again.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};
use std::time::{Duration, Instant, SystemTime};
use std::{env, thread};

use common::chance::Chance;
use common::client::Client;
use common::{Daemon, Site};
use penfold::smtp::proxy::{self, MAX_BINARY, MAX_TEXT, Parsed, Source};
use penfold::smtp::xclient::{self, Attribute, XCLIENT, XFORWARD};

/// What penfoldd waits for a header, and what a busy machine may add.
const INTRODUCTION: Duration = Duration::from_secs(10);
const SLACK: Duration = Duration::from_secs(8);

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 192.0.2.1 4321 25\r\n";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\xc0\0\x02\x01\x10\xe1\0\x19";

/// A site whose proxy is loopback, and where only 192.0.2.7 may relay.
fn site() -> Site {
    Site::with("listen.proxy = [\"127.0.0.0/8\"]\nlisten.xclient = [\"192.0.2.7\"]\nrelay.networks = [\"192.0.2.7\"]")
}

#[test]
fn a_header_is_one_in_every_split() {
    let site = site();
    let daemon = site.start();
    for header in [V1, V2] {
        let text =
            [header, b"HELO client.test\r\nMAIL FROM:<jon@frogbog>\r\nRCPT TO:<user@elsewhere.test>\r\n"].concat();
        for split in 1..=header.len() {
            let mut stream = daemon.connect();
            stream.set_nodelay(true).expect("an option");
            stream.write_all(&text[..split]).expect("written");
            // Most of the time the daemon reads what is there before the rest comes.
            thread::sleep(Duration::from_millis(2));
            stream.write_all(&text[split..]).expect("written");
            let mut client = Client::mute(stream);
            ["220 ", "250 ", "250 ", "250 "].iter().for_each(|reply| drop(client.expect(reply)));
            client.ask("QUIT", "221 ");
        }
    }
}

#[test]
fn a_proxy_that_does_not_speak_in_time_is_cut_off_and_holds_up_nobody() {
    let site = site();
    let daemon = site.start();
    thread::scope(|scope| {
        // Nothing; half a header; one that comes an octet at a time; a header that lies.
        scope.spawn(|| outwaits(&daemon, b"", b""));
        scope.spawn(|| outwaits(&daemon, &V1[..20], b""));
        scope.spawn(|| outwaits(&daemon, b"", &[b"PROXY UNKNOWN ", &[b'x'; 80][..]].concat()));
        scope.spawn(|| {
            outwaits(&daemon, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x10\0", b"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx")
        });
        let begun = Instant::now();
        let mut stream = daemon.connect();
        stream.write_all(V1).expect("written");
        let mut client = Client::mute(stream);
        client.expect("220 ");
        client.ask("QUIT", "221 ");
        assert!(begun.elapsed() < INTRODUCTION, "waited for the others");
    });
    daemon.wait_words(&["closed peer=[127.0.0.1]", "reason=\"no PROXY header in time\""]);
}

/// Sends something at once and something slowly: the daemon closes when the time is
/// up, and has said nothing.
fn outwaits(daemon: &Daemon, at_once: &[u8], slowly: &[u8]) {
    let begun = Instant::now();
    let mut stream = daemon.connect();
    stream.write_all(at_once).expect("written");
    stream.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
    let mut slowly = slowly.iter();
    let mut heard = [0; 64];
    loop {
        match stream.read(&mut heard) {
            Ok(0) => break,
            Ok(count) => panic!("said {}", heard[..count].escape_ascii()),
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                assert!(begun.elapsed() < INTRODUCTION + SLACK, "still open");
                if let Some(octet) = slowly.next() {
                    // One that is gone meanwhile is seen at the next read.
                    let _ = stream.write_all(&[*octet]);
                }
            }
            Err(_) => break,
        }
    }
    assert!(begun.elapsed() + Duration::from_millis(200) >= INTRODUCTION, "closed before its time");
}

#[test]
fn going_down_does_not_wait_for_a_proxy() {
    let site = site();
    let daemon = site.start();
    let mut silent = daemon.connect();
    silent.write_all(&V1[..20]).expect("written");
    // Another one, served after it, shows that the first one's thread runs.
    let mut stream = daemon.connect();
    stream.write_all(V1).expect("written");
    Client::mute(stream).expect("220 ");
    let begun = Instant::now();
    assert!(daemon.terminate().success());
    assert!(begun.elapsed() < Duration::from_secs(5), "it waited {:?}", begun.elapsed());
}

/// Octets of any kind instead of a header, and headers with some of them: a banner comes
/// only after a right one, and the end at once where no right one can come any more.
#[test]
fn nothing_but_a_right_header_opens_the_door() {
    let site = site();
    let daemon = site.start();
    let (seed, mut chance) = chance("door");
    for number in 0..200 {
        let octets = header(&mut chance);
        let is_right = proxy::read(&mut &octets[..]).is_ok();
        let mut stream = daemon.connect();
        stream.set_read_timeout(Some(common::PATIENCE)).expect("a timeout");
        // It may be closed before all is written.
        let _ = stream.write_all(&octets).and_then(|()| stream.shutdown(Shutdown::Write));
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard);
        let is_served = heard.starts_with(b"220 ");
        assert!(
            is_served == is_right || (is_right && heard.is_empty()),
            "seed {seed}, {number}: {}",
            octets.escape_ascii()
        );
        assert!(is_right || heard.is_empty(), "seed {seed}, {number}: {}", heard.escape_ascii());
    }
    let mut stream = daemon.connect();
    stream.write_all(V2).expect("written");
    Client::mute(stream).expect("220 ");
    assert!(!daemon.log().contains("bug"), "{}", daemon.log());
}

#[test]
fn what_is_accepted_as_a_header_means_the_same_written_anew() {
    let (seed, mut chance) = chance("header");
    let mut right = 0;
    while_there_is_time(|| {
        let octets = header(&mut chance);
        let told = || format!("seed {seed}: {}", octets.escape_ascii());
        let mut stream = &octets[..];
        let found = proxy::read(&mut stream);
        let used = octets.len() - stream.len();
        assert!(used <= 16 + MAX_BINARY, "{}", told());
        // The same in one piece: no octet beyond the header is asked for.
        let mut came = 0;
        while came < used {
            match proxy::parse(&octets[..came]) {
                Ok(Parsed::Needs(more)) => came += more.clamp(1, used - came),
                other => panic!("{other:?} after {came}: {}", told()),
            }
        }
        if let Ok(source) = found {
            right += 1;
            assert_eq!(proxy::parse(&octets[..used]), Ok(Parsed::Whole(source)), "{}", told());
            for again in [text(source), binary(source)] {
                assert_eq!(proxy::parse(&again), Ok(Parsed::Whole(source)), "{}", told());
            }
        }
    });
    assert!(right > 100, "seed {seed}: only {right} right ones");
}

/// A right header, one with a few octets changed, or any octets.
fn header(chance: &mut Chance) -> Vec<u8> {
    let four = |chance: &mut Chance| Ipv4Addr::from_bits(chance.of(0..usize::MAX) as u32);
    let six = |chance: &mut Chance| {
        let octets = chance.octets(16..17);
        Ipv6Addr::from(<[u8; 16]>::try_from(octets).expect("sixteen"))
    };
    let address: IpAddr = if chance.percent(50) { four(chance).into() } else { six(chance).into() };
    let source = match chance.of(0..8) {
        0 => Source::Unknown,
        1 => Source::Proxy,
        _ => Source::Client((address.to_canonical(), chance.of(0..65536) as u16).into()),
    };
    let mut octets = match chance.of(0..10) {
        0 => chance.octets(0..200),
        1..5 => text(source),
        _ => binary(source),
    };
    if chance.percent(60) {
        for _ in 0..chance.of(1..4) {
            let at = chance.of(0..octets.len().max(1)).min(octets.len().saturating_sub(1));
            let new = if chance.percent(50) {
                chance.octets(1..2)[0]
            } else {
                *chance.pick(b" 0125.:\r\nPTCUx\0\x21\x20\x11")
            };
            match (chance.of(0..4), octets.is_empty()) {
                (0, _) | (_, true) => octets.insert(at, new),
                (1, _) => drop(octets.remove(at)),
                (2, _) => octets.truncate(at),
                _ => octets[at] = new,
            }
        }
    }
    octets.extend(chance.octets(0..8));
    octets
}

/// A header of version 1, which cannot say that a proxy comes for itself.
fn text(source: Source) -> Vec<u8> {
    match source {
        Source::Client(SocketAddr::V4(a)) => {
            format!("PROXY TCP4 {} 192.0.2.1 {} 25\r\n", a.ip(), a.port()).into_bytes()
        }
        Source::Client(SocketAddr::V6(a)) => format!("PROXY TCP6 {} ::1 {} 25\r\n", a.ip(), a.port()).into_bytes(),
        Source::Unknown => b"PROXY UNKNOWN\r\n".to_vec(),
        Source::Proxy => binary(source),
    }
}

/// A header of version 2.
fn binary(source: Source) -> Vec<u8> {
    let (command, family, mut body) = match source {
        Source::Client(SocketAddr::V4(a)) => (0x21, 0x11, [a.ip().octets(), [192, 0, 2, 1]].concat()),
        Source::Client(SocketAddr::V6(a)) => (0x21, 0x21, [a.ip().octets(), [1; 16]].concat()),
        Source::Unknown => (0x21, 0, Vec::new()),
        Source::Proxy => (0x20, 0, Vec::new()),
    };
    if let Source::Client(address) = source {
        body.extend(address.port().to_be_bytes());
        body.extend([0, 25]);
    }
    let length = (body.len() as u16).to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family, length[0], length[1]][..], &body].concat()
}

#[test]
fn what_is_accepted_as_attributes_means_the_same_written_anew() {
    let (seed, mut chance) = chance("attributes");
    let mut right = 0;
    while_there_is_time(|| {
        let offered = if chance.percent(50) { XCLIENT } else { XFORWARD };
        let line = line(&mut chance, offered);
        let told = || format!("seed {seed}: {}", line.escape_ascii());
        let Ok(found) = xclient::parse(offered, &line) else { return };
        right += 1;
        let again = found.iter().fold(String::new(), |line, attribute| line + &written(attribute) + " ");
        assert!(again.bytes().all(|b| (b' '..=b'~').contains(&b)), "{}", told());
        assert_eq!(xclient::parse(offered, again.as_bytes()), Ok(found), "{}", told());
    });
    assert!(right > 100, "seed {seed}: only {right} right ones");
}

/// Every line of them gets one reply, whatever is in it, and the session lives.
#[test]
fn attributes_made_at_random_are_answered() {
    let site = Site::with("listen.xclient = [\"127.0.0.1\"]");
    let daemon = site.start();
    let (seed, mut chance) = chance("session");
    for number in 0..100 {
        let mut client = Client::mute(daemon.connect());
        client.expect("220 ");
        for (verb, offered) in [("XCLIENT", XCLIENT), ("XFORWARD", XFORWARD), ("XCLIENT", XCLIENT)] {
            // What ends a line is another test's.
            let mut line = line(&mut chance, offered);
            line.retain(|octet| !b"\r\n".contains(octet));
            line.truncate(1900);
            let is_right = xclient::parse(offered, line.trim_ascii()).is_ok();
            client.say_octets(&[verb.as_bytes(), b" ", &line, b"\r\n"].concat());
            let reply = client.hear().unwrap_or_else(|| panic!("seed {seed}, {number}: the end"));
            let wanted = if !is_right {
                "501 5.5.4 "
            } else if verb == "XCLIENT" {
                "220 "
            } else {
                "250 "
            };
            assert!(reply.starts_with(wanted), "seed {seed}, {number}: {verb} {}: {reply}", line.escape_ascii());
        }
        client.ask("QUIT", "221 ");
    }
    assert!(!daemon.log().contains("bug"), "{}", daemon.log());
}

/// Attributes, mostly right ones.
fn line(chance: &mut Chance, offered: &str) -> Vec<u8> {
    const VALUES: &[&str] = &[
        "[UNAVAILABLE]",
        "[TempUnavail]",
        "mx.example.org",
        "192.0.2.7",
        "IPV6:2001:db8::7",
        "ipv6:::ffff:192.0.2.7",
        "4321",
        "65536",
        "SMTP",
        "esmtp",
        "[192.0.2.7]",
        "jon",
        "jon+2Bx+40y",
        "LOCAL",
        "remote",
        "+",
        "+4",
        "+GG",
        "+0D+0A",
        "+C3+B6",
        "",
        "=",
        "a=b",
        "(x)",
        "\u{fc}",
    ];
    let names: Vec<&str> = offered.split(' ').chain(["FOO", ""]).collect();
    let mut line = Vec::new();
    for _ in 0..chance.of(0..5) {
        let name = *chance.pick(&names);
        line.extend(if chance.percent(20) { name.to_lowercase() } else { name.to_owned() }.bytes());
        line.push(b'=');
        line.extend(chance.pick(VALUES).bytes());
        line.push(b' ');
    }
    if chance.percent(30) && !line.is_empty() {
        let at = chance.of(0..line.len());
        line[at] = chance.octets(1..2)[0];
    }
    if chance.percent(5) {
        line.extend(chance.octets(0..2000));
    }
    line
}

/// An attribute as a front end writes it.
fn written(attribute: &Attribute) -> String {
    let number = |port: &Option<u16>| port.map(|port| port.to_string());
    let ip = |address: &Option<IpAddr>| address.map(|a| if a.is_ipv6() { format!("IPV6:{a}") } else { a.to_string() });
    let (name, value) = match attribute {
        Attribute::Name(value) => ("NAME", value.clone()),
        Attribute::Addr(address) => ("ADDR", ip(address)),
        Attribute::Port(port) => ("PORT", number(port)),
        Attribute::Proto(value) => ("PROTO", value.clone()),
        Attribute::Helo(value) => ("HELO", value.clone()),
        Attribute::Login(value) => ("LOGIN", value.clone()),
        Attribute::DestAddr(address) => ("DESTADDR", ip(address)),
        Attribute::DestPort(port) => ("DESTPORT", number(port)),
        Attribute::Ident(value) => ("IDENT", value.clone()),
        Attribute::Source(value) => ("SOURCE", value.clone()),
    };
    let mut line = format!("{name}=");
    for octet in value.as_deref().unwrap_or("[UNAVAILABLE]").bytes() {
        match octet {
            b'+' | b'=' | ..=b' ' | 0x7f.. => write!(line, "+{octet:02X}").expect("memory"),
            plain => line.push(plain.into()),
        }
    }
    line
}

/// Choices of this run, and the seed that makes them again: `PENFOLD_FUZZ_SEED`.
fn chance(name: &str) -> (u64, Chance) {
    let clock = || SystemTime::UNIX_EPOCH.elapsed().map_or(0, |age| age.as_nanos() as u64);
    let seed = env::var("PENFOLD_FUZZ_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(clock);
    (seed, Chance::new(seed, name))
}

fn while_there_is_time(mut once: impl FnMut()) {
    let seconds = env::var("PENFOLD_FUZZ").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        (0..100).for_each(|_| once());
    }
}

/// The limits of the protocol are those of the reader.
const _: () = assert!(MAX_TEXT == 107 && MAX_BINARY == 4096);

//! PROXY headers and XCLIENT attributes, random and mutated: the parsers alone, and the daemon.
//!
//! If a parser accepts a header, the test writes its value again by the rules of the protocol, and
//! the parser must read the same value.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};

use common::Site;
use common::chance::Chance;
use common::client::Client;
use penfold::smtp::proxy::{self, MAX_BINARY, MAX_TEXT, Parsed, Source};
use penfold::smtp::xclient::{self, Attribute, XCLIENT, XFORWARD};

use super::{repeat, seed};

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\xc0\0\x02\x01\x10\xe1\0\x19";

/// The daemon sends a banner only after a valid header. It closes the connection as soon as what
/// has arrived cannot become a valid header.
#[test]
fn only_a_valid_header_gets_a_banner() {
    let site = Site::with("listen.proxy = [\"127.0.0.0/8\"]");
    let daemon = site.start();
    let mut chance = Chance::new(seed(), "");
    for _ in 0..200 {
        let octets = header(&mut chance);
        let is_valid = proxy::read(&mut &octets[..]).is_ok();
        let mut stream = daemon.connect();
        stream.set_read_timeout(Some(common::TIMEOUT)).expect("a timeout");
        // The write may fail, since the daemon may close the connection before everything is
        // written.
        let _ = stream.write_all(&octets).and_then(|()| stream.shutdown(Shutdown::Write));
        let mut received = Vec::new();
        let _ = stream.read_to_end(&mut received);
        let is_served = received.starts_with(b"220 ");
        assert!(is_served == is_valid || (is_valid && received.is_empty()), "{}", octets.escape_ascii());
        assert!(is_valid || received.is_empty(), "{}", received.escape_ascii());
    }
    let mut stream = daemon.connect();
    stream.write_all(V2).expect("written");
    Client::before_banner(stream).expect("220 ");
    assert!(!daemon.log().contains("bug"), "{}", daemon.log());
}

#[test]
fn an_accepted_header_keeps_its_meaning_when_written_again() {
    let mut valid = 0;
    repeat(|chance| {
        let octets = header(chance);
        let shown = octets.escape_ascii();
        let mut stream = &octets[..];
        let found = proxy::read(&mut stream);
        let used = octets.len() - stream.len();
        assert!(used <= 16 + MAX_BINARY, "{shown}");
        // Until the header is complete, the parser asks for more octets, but never for an octet
        // beyond the header.
        let mut came = 0;
        while came < used {
            match proxy::parse(&octets[..came]) {
                Ok(Parsed::Needs(more)) => came += more.clamp(1, used - came),
                other => panic!("{other:?} after {came}: {shown}"),
            }
        }
        if let Ok(source) = found {
            valid += 1;
            assert_eq!(proxy::parse(&octets[..used]), Ok(Parsed::Complete(source)), "{shown}");
            for again in [text(source), binary(source)] {
                assert_eq!(proxy::parse(&again), Ok(Parsed::Complete(source)), "{shown}");
            }
        }
    });
    assert!(valid > 20, "only {valid} valid headers");
}

/// A random header: a valid one, a valid one with a few octets changed, or random octets.
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

/// A header of version 1. A connection of the proxy itself, which version 1 cannot express, gets
/// version 2.
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
fn accepted_attributes_keep_their_meaning_when_written_again() {
    let mut valid = 0;
    repeat(|chance| {
        let offered = if chance.percent(50) { XCLIENT } else { XFORWARD };
        let line = line(chance, offered);
        let shown = line.escape_ascii();
        let Ok(found) = xclient::parse(offered, &line) else { return };
        valid += 1;
        let again = found.iter().fold(String::new(), |line, attribute| line + &written(attribute) + " ");
        assert!(again.bytes().all(|b| (b' '..=b'~').contains(&b)), "{shown}");
        assert_eq!(xclient::parse(offered, again.as_bytes()), Ok(found), "{shown}");
    });
    assert!(valid > 20, "only {valid} valid lines");
}

/// Every line gets one reply, whatever the line contains, and the session continues.
#[test]
fn random_attributes_get_a_reply() {
    let site = Site::with("listen.xclient = [\"127.0.0.1\"]");
    let daemon = site.start();
    let mut chance = Chance::new(seed(), "");
    for _ in 0..100 {
        let mut client = Client::before_banner(daemon.connect());
        client.expect("220 ");
        for (verb, offered) in [("XCLIENT", XCLIENT), ("XFORWARD", XFORWARD), ("XCLIENT", XCLIENT)] {
            let mut line = line(&mut chance, offered);
            line.retain(|octet| !b"\r\n".contains(octet));
            line.truncate(1900);
            let is_valid = xclient::parse(offered, line.trim_ascii()).is_ok();
            client.send_bytes(&[verb.as_bytes(), b" ", &line, b"\r\n"].concat());
            let reply = client.read_line().unwrap_or_else(|| panic!("the connection ended"));
            let wanted = if !is_valid {
                "501 5.5.4 "
            } else if verb == "XCLIENT" {
                "220 "
            } else {
                "250 "
            };
            assert!(reply.starts_with(wanted), "{verb} {}: {reply}", line.escape_ascii());
        }
        client.ask("QUIT", "221 ");
    }
    assert!(!daemon.log().contains("bug"), "{}", daemon.log());
}

/// A random line of XCLIENT attributes, most of them valid.
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

/// The text of an attribute, as a proxy writes it.
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

// The limits of the parser are those of the protocol.
const _: () = assert!(MAX_TEXT == 107 && MAX_BINARY == 4096);

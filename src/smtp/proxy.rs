//! Reads the header of the PROXY protocol, versions 1 and 2, which names the client behind a proxy.
//!
//! A proxy sends the address of its client in the first octets of a connection. While the header is
//! incomplete, [`parse`] returns the minimum number of octets that are still missing. [`read`]
//! reads only that many at a time. So it never reads more than the header, and leaves the SMTP or
//! TLS after it to the next reader. A header of version 1 has at most [`MAX_TEXT`] octets. A header
//! of version 2 has at most [`MAX_BINARY`] octets after its fixed part; extensions (TLVs) among
//! them are skipped. Any other input is [`Malformed`] as soon as that is certain. The caller
//! decides which clients may send a header.

use std::fmt;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// The maximum length of a header of version 1, with CR LF, in octets.
pub const MAX_TEXT: usize = 107;
/// The maximum length of a header of version 2 after its fixed part, in octets.
pub const MAX_BINARY: usize = 4096;

/// The minimum length of a header of version 1, in octets: `PROXY UNKNOWN` and CR LF.
const MIN_TEXT: usize = 15;
/// The length of the fixed part of version 2, in octets: signature, version and command,
/// family, length.
const FIXED: usize = 16;
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const TEXT: &[u8] = b"PROXY ";

/// The client that a header names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A client at this address.
    Client(SocketAddr),
    /// The proxy itself, for a health check.
    Proxy,
    /// A client whose address the proxy does not know.
    Unknown,
}

/// What the octets received so far are: a part of a header, or all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// A part of a header; at least this number of octets is missing.
    Needs(usize),
    /// A complete header with nothing after it.
    Complete(Source),
}

/// Why octets are not a header. The text of each reason can be logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// The octets do not begin like a header of either version.
    NoHeader,
    /// The header is longer than is permitted.
    TooLong,
    /// An unknown version or command, or a protocol that SMTP does not use.
    NotKnown,
    /// A malformed address or port.
    BadAddress,
    /// A length too short for the addresses, octets after the header, or a line end in the wrong
    /// place.
    BadLength,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoHeader => "no PROXY header",
            Self::TooLong => "a PROXY header that is too long",
            Self::NotKnown => "a PROXY header of an unknown kind",
            Self::BadAddress => "a PROXY header with a malformed address",
            Self::BadLength => "a PROXY header with a wrong length",
        })
    }
}

impl std::error::Error for Malformed {}

/// Reads a header and not one octet more.
///
/// # Errors
/// Those of the stream, `UnexpectedEof` if the stream ends early, and `InvalidData`, which contains
/// a [`Malformed`], if its octets are not a header.
pub fn read(stream: &mut impl Read) -> io::Result<Source> {
    let mut octets = Vec::new();
    loop {
        match parse(&octets).map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))? {
            Parsed::Complete(source) => return Ok(source),
            Parsed::Needs(more) => {
                let filled = octets.len();
                octets.resize(filled + more, 0);
                let count = match stream.read(&mut octets[filled..]) {
                    Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => 0,
                    result => result?,
                };
                octets.truncate(filled + count);
            }
        }
    }
}

/// Parses the octets received so far.
///
/// # Errors
/// [`Malformed`], once no further octets could make them a header.
pub fn parse(octets: &[u8]) -> Result<Parsed, Malformed> {
    match octets.first() {
        None => Ok(Parsed::Needs(1)),
        Some(b'P') => text(octets),
        Some(_) => binary(octets),
    }
}

/// Version 1: `PROXY TCP4 192.0.2.1 192.0.2.2 4321 25` and CR LF.
fn text(octets: &[u8]) -> Result<Parsed, Malformed> {
    if !matches_start(octets, TEXT) {
        return Err(Malformed::NoHeader);
    }
    if octets.len() > MAX_TEXT {
        return Err(Malformed::TooLong);
    }
    let Some(line) = octets.strip_suffix(b"\r\n") else {
        // As long as the CR LF is incomplete, there can be no LF, and a CR only as the last octet.
        return match octets {
            _ if octets.len() == MAX_TEXT => Err(Malformed::TooLong),
            [inside @ .., _] if inside.contains(&b'\r') || octets.contains(&b'\n') => Err(Malformed::BadLength),
            _ => Ok(Parsed::Needs(MIN_TEXT.saturating_sub(octets.len()).max(1))),
        };
    };
    if line.contains(&b'\r') || line.contains(&b'\n') {
        return Err(Malformed::BadLength);
    }
    let line = String::from_utf8_lossy(line);
    let mut words = line.split(' ').skip(1);
    let source = match words.next() {
        Some("TCP4") => addresses::<Ipv4Addr>(words)?,
        Some("TCP6") => addresses::<Ipv6Addr>(words)?,
        // The rest of the line is ignored.
        Some("UNKNOWN") => Source::Unknown,
        _ => return Err(Malformed::NotKnown),
    };
    Ok(Parsed::Complete(source))
}

/// Parses the addresses and ports of source and destination; all four must be valid.
fn addresses<'a, A: FromStr + Into<IpAddr>>(words: impl Iterator<Item = &'a str>) -> Result<Source, Malformed> {
    let words: Vec<&str> = words.collect();
    let [source, destination, port, other_port] = words.as_slice() else { return Err(Malformed::BadAddress) };
    let address = |text: &str| text.parse::<A>().map_err(|_| Malformed::BadAddress);
    address(destination)?;
    port_number(other_port).ok_or(Malformed::BadAddress)?;
    let port = port_number(port).ok_or(Malformed::BadAddress)?;
    Ok(client(address(source)?.into(), port))
}

/// Parses a decimal number without a sign or leading zero.
fn port_number(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain)
}

/// Version 2: a signature and fields at fixed offsets.
fn binary(octets: &[u8]) -> Result<Parsed, Malformed> {
    if !matches_start(octets, SIGNATURE) {
        return Err(Malformed::NoHeader);
    }
    let Some((fixed, rest)) = octets.split_at_checked(FIXED) else { return Ok(Parsed::Needs(FIXED - octets.len())) };
    let &[command, family, high, low] = &fixed[SIGNATURE.len()..] else { return Err(Malformed::BadLength) };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let (source, needed) = match (command, family) {
        (0x20, _) => (Source::Proxy, 0),
        (0x21, 0x00) => (Source::Unknown, 0),
        // The minimum lengths: two addresses and two ports of IPv4 have 12 octets, those of IPv6
        // have 36, and the paths of two Unix sockets have 216.
        (0x21, 0x11) => (Source::Unknown, 12),
        (0x21, 0x21) => (Source::Unknown, 36),
        (0x21, 0x31) => (Source::Unknown, 216),
        _ => return Err(Malformed::NotKnown),
    };
    if length > MAX_BINARY {
        return Err(Malformed::TooLong);
    }
    if length < needed || rest.len() > length {
        return Err(Malformed::BadLength);
    }
    if rest.len() < length {
        return Ok(Parsed::Needs(length - rest.len()));
    }
    Ok(Parsed::Complete(match (command, family, rest) {
        (0x21, 0x11, &[a, b, c, d, _, _, _, _, high, low, ..]) => {
            client(Ipv4Addr::new(a, b, c, d).into(), u16::from_be_bytes([high, low]))
        }
        (0x21, 0x21, _) => {
            let (address, rest) = rest.split_first_chunk::<16>().ok_or(Malformed::BadLength)?;
            let &[high, low] = rest.get(16..18).ok_or(Malformed::BadLength)? else { return Err(Malformed::BadLength) };
            client(Ipv6Addr::from(*address).into(), u16::from_be_bytes([high, low]))
        }
        _ => source,
    }))
}

/// A client; an IPv4-mapped address becomes IPv4.
fn client(address: IpAddr, port: u16) -> Source {
    Source::Client((address.to_canonical(), port).into())
}

/// Whether `octets` begins with `expected` or, if `octets` is shorter, is the beginning of
/// `expected`.
fn matches_start(octets: &[u8], expected: &[u8]) -> bool {
    octets.iter().zip(expected).all(|(a, b)| a == b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).expect("short").to_be_bytes();
        [SIGNATURE, &[command, family], &length, body].concat()
    }

    fn four() -> Vec<u8> {
        [&[192, 0, 2, 1][..], &[192, 0, 2, 2], &[0x10, 0xe1], &[0, 25]].concat()
    }

    fn six(source: &str) -> Vec<u8> {
        let source: Ipv6Addr = source.parse().expect("an address");
        [&source.octets()[..], &Ipv6Addr::LOCALHOST.octets(), &[0x10, 0xe1], &[0, 25]].concat()
    }

    #[test]
    fn valid_headers_are_read_to_their_last_octet_in_every_split() {
        let mut longest = b"PROXY UNKNOWN ".to_vec();
        longest.resize(MAX_TEXT - 2, b'x');
        longest.extend(b"\r\n");
        for (header, source) in [
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 4321 25\r\n".to_vec(), "192.0.2.1:4321"),
            (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n".to_vec(), "255.255.255.255:65535"),
            (b"PROXY TCP6 2001:db8::1 ::1 4321 25\r\n".to_vec(), "[2001:db8::1]:4321"),
            (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 4321 25\r\n".to_vec(), "192.0.2.1:4321"),
            (b"PROXY UNKNOWN\r\n".to_vec(), "unknown"),
            (b"PROXY UNKNOWN what ever \xff\r\n".to_vec(), "unknown"),
            (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n".to_vec(), "unknown"),
            (longest, "unknown"),
            (v2(0x21, 0x11, &four()), "192.0.2.1:4321"),
            (v2(0x21, 0x11, &[four(), vec![0x04, 0, 9]].concat()), "192.0.2.1:4321"),
            (v2(0x21, 0x21, &six("2001:db8::1")), "[2001:db8::1]:4321"),
            (v2(0x21, 0x21, &six("::ffff:192.0.2.1")), "192.0.2.1:4321"),
            (v2(0x21, 0x31, &[b'/'; 216]), "unknown"),
            (v2(0x21, 0x00, b""), "unknown"),
            (v2(0x20, 0x00, b""), "proxy"),
            (v2(0x20, 0x11, &four()), "proxy"),
            (v2(0x21, 0x11, &[four(), vec![0; MAX_BINARY - 12]].concat()), "192.0.2.1:4321"),
        ] {
            for split in 1..header.len().min(400) {
                let text = [&header[..], b"EHLO x\r\n"].concat();
                let mut stream = text[..split].chain(&text[split..]);
                let read = read(&mut stream);
                let shown = match read.expect("a valid header") {
                    Source::Client(address) => address.to_string(),
                    Source::Proxy => "proxy".to_owned(),
                    Source::Unknown => "unknown".to_owned(),
                };
                assert_eq!(shown, source, "{}", header.escape_ascii());
                let mut rest = Vec::new();
                stream.read_to_end(&mut rest).expect("memory");
                assert_eq!(rest, b"EHLO x\r\n", "{}", header.escape_ascii());
            }
        }
    }

    #[test]
    fn malformed_headers_are_rejected_as_early_as_possible() {
        use Malformed::*;
        let mut long = b"PROXY UNKNOWN ".to_vec();
        long.resize(MAX_TEXT, b'x');
        for (octets, why) in [
            (b"E".to_vec(), NoHeader),
            (b"\x16\x03\x01".to_vec(), NoHeader),
            (b"\r\n\r\n\0\r\nQUIX".to_vec(), NoHeader),
            (b"PX".to_vec(), NoHeader),
            (b"PROXY\r\n".to_vec(), NoHeader),
            (b"proxy TCP4 192.0.2.1 192.0.2.2 4321 25\r\n".to_vec(), NoHeader),
            (b"PROXY TCP4 \n".to_vec(), BadLength),
            (b"PROXY TCP4 \rx".to_vec(), BadLength),
            (b"PROXY UNKNOWN\nEHLO x\r\n".to_vec(), BadLength),
            (b"PROXY UNKNOWNS\r\n".to_vec(), NotKnown),
            (b"PROXY  TCP4 192.0.2.1 192.0.2.2 4321 25\r\n".to_vec(), NotKnown),
            (b"PROXY TCP5 192.0.2.1 192.0.2.2 4321 25\r\n".to_vec(), NotKnown),
            (b"PROXY UDP4 192.0.2.1 192.0.2.2 4321 25\r\n".to_vec(), NotKnown),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 4321\r\n".to_vec(), BadAddress),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 4321 25 \r\n".to_vec(), BadAddress),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 4321 65536\r\n".to_vec(), BadAddress),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 +321 25\r\n".to_vec(), BadAddress),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 0432 25\r\n".to_vec(), BadAddress),
            (b"PROXY TCP4 192.0.2.01 192.0.2.2 4321 25\r\n".to_vec(), BadAddress),
            (b"PROXY TCP4 ::1 ::1 4321 25\r\n".to_vec(), BadAddress),
            (b"PROXY TCP6 192.0.2.1 192.0.2.2 4321 25\r\n".to_vec(), BadAddress),
            (b"PROXY TCP6 fe80::1%eth0 ::1 4321 25\r\n".to_vec(), BadAddress),
            (long, TooLong),
            (v2(0x22, 0x11, &four()), NotKnown),
            (v2(0x11, 0x11, &four()), NotKnown),
            (v2(0x21, 0x12, &four()), NotKnown),
            (v2(0x21, 0x41, &four()), NotKnown),
            (v2(0x21, 0x11, &four()[..11]), BadLength),
            (v2(0x21, 0x21, &six("::1")[..35]), BadLength),
            (v2(0x21, 0x31, &[0; 215]), BadLength),
            (v2(0x21, 0x11, &[0; MAX_BINARY + 1]), TooLong),
            (v2(0x20, 0x00, &[0; MAX_BINARY + 1])[..FIXED].to_vec(), TooLong),
        ] {
            let found = (0..=octets.len()).find_map(|length| parse(&octets[..length]).err());
            assert_eq!(found, Some(why), "{}", octets.escape_ascii());
        }
    }
}

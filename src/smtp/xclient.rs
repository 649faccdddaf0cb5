//! Parses the attributes of XCLIENT and XFORWARD, by which a trusted proxy describes a client.
//!
//! An example is `NAME=mx.example.org ADDR=192.0.2.7 HELO=[UNAVAILABLE]`. Names may be in upper or
//! lower case. Values are in xtext, and `[UNAVAILABLE]` or `[TEMPUNAVAIL]` stands for an unknown
//! value. A line with one malformed attribute is rejected as a whole. No value is longer than
//! [`MAX_VALUE`] octets, and only a login may contain characters that are special in a header or
//! the log.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::xtext;
use crate::address;

/// The attributes of XCLIENT, as listed in the reply to EHLO.
pub const XCLIENT: &str = "NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT";
/// The attributes of XFORWARD, as listed in the reply to EHLO.
pub const XFORWARD: &str = "NAME ADDR PORT PROTO HELO IDENT SOURCE";
/// The maximum length of a decoded value, in octets.
pub const MAX_VALUE: usize = 255;
/// The maximum length of the name of a protocol, in octets.
const MAX_PROTOCOL: usize = 64;

/// An attribute; `None` if the proxy does not know its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attribute {
    /// The client's name.
    Name(Option<String>),
    /// The client's address.
    Addr(Option<IpAddr>),
    /// The client's port.
    Port(Option<u16>),
    /// The protocol between client and proxy.
    Proto(Option<String>),
    /// The name in the client's HELO or EHLO.
    Helo(Option<String>),
    /// The authenticated user.
    Login(Option<String>),
    /// The address that the client connected to.
    DestAddr(Option<IpAddr>),
    /// The port that the client connected to.
    DestPort(Option<u16>),
    /// The proxy's id for the message.
    Ident(Option<String>),
    /// `LOCAL` if the message originated at the proxy itself, or `REMOTE`.
    Source(Option<String>),
}

/// Why a line of attributes is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttributeError {
    /// The line has no attribute.
    Missing,
    /// An attribute is not offered, or has no value.
    Unknown,
    /// The value of this attribute is malformed.
    Malformed(&'static str),
}

/// Parses the argument of a command with the attributes [`XCLIENT`] or [`XFORWARD`].
///
/// # Errors
/// The first error.
pub fn parse(offered: &'static str, argument: &[u8]) -> Result<Vec<Attribute>, AttributeError> {
    let words = argument.split(|&b| b == b' ').filter(|w| !w.is_empty());
    let found: Vec<Attribute> = words.map(|word| attribute(offered, word)).collect::<Result<_, _>>()?;
    if found.is_empty() { Err(AttributeError::Missing) } else { Ok(found) }
}

fn attribute(offered: &'static str, word: &[u8]) -> Result<Attribute, AttributeError> {
    let equals = word.iter().position(|&b| b == b'=').ok_or(AttributeError::Unknown)?;
    let (name, value) = (&word[..equals], &word[equals + 1..]);
    let name =
        offered.split(' ').find(|known| known.as_bytes().eq_ignore_ascii_case(name)).ok_or(AttributeError::Unknown)?;
    read(name, offered == XCLIENT, value).ok_or(AttributeError::Malformed(name))
}

/// Parses a value. `is_client` is true for XCLIENT, where the value of NAME must be a domain, and
/// that of PROTO must be SMTP, ESMTP or LMTP, which Dovecot sends.
fn read(name: &str, is_client: bool, value: &[u8]) -> Option<Attribute> {
    let text = decoded(value)?;
    let known = !["[UNAVAILABLE]", "[TEMPUNAVAIL]"].iter().any(|word| word.eq_ignore_ascii_case(&text));
    // `None` for a malformed value, `Some(None)` for an unknown one.
    fn unless_unknown<T>(known: bool, text: &str, read: impl Fn(&str) -> Option<T>) -> Option<Option<T>> {
        if known { read(text).map(Some) } else { Some(None) }
    }
    let text = text.as_str();
    Some(match name {
        "NAME" if is_client => Attribute::Name(unless_unknown(known, text, domain)?),
        "NAME" => Attribute::Name(unless_unknown(known, text, plain)?),
        "ADDR" => Attribute::Addr(unless_unknown(known, text, ip)?),
        "PORT" => Attribute::Port(unless_unknown(known, text, port)?),
        "PROTO" if is_client => Attribute::Proto(unless_unknown(known, text, smtp)?),
        "PROTO" => Attribute::Proto(unless_unknown(known, text, protocol)?),
        "HELO" => Attribute::Helo(unless_unknown(known, text, plain)?),
        "LOGIN" => Attribute::Login(unless_unknown(known, text, login)?),
        "DESTADDR" => Attribute::DestAddr(unless_unknown(known, text, ip)?),
        "DESTPORT" => Attribute::DestPort(unless_unknown(known, text, port)?),
        "IDENT" => Attribute::Ident(unless_unknown(known, text, plain)?),
        "SOURCE" => Attribute::Source(unless_unknown(known, text, source)?),
        _ => return None,
    })
}

/// Decodes a value; `None` if it is malformed, empty or too long.
fn decoded(value: &[u8]) -> Option<String> {
    let text = String::from_utf8(xtext::decode(value)?).ok()?;
    (1..=MAX_VALUE).contains(&text.len()).then_some(text)
}

/// A value that is safe in a header and the log: letters, digits, and the other characters of
/// domains, literals and queue ids.
fn plain(text: &str) -> Option<String> {
    is_plain(text.as_bytes()).then(|| text.to_owned())
}

/// Whether a value has only characters that [`plain`] permits.
fn is_plain(name: &[u8]) -> bool {
    let is_plain = |b: &u8| b.is_ascii_alphanumeric() || b".-_:[]".contains(b);
    (1..=MAX_VALUE).contains(&name.len()) && name.iter().all(is_plain)
}

fn domain(text: &str) -> Option<String> {
    // An IPv4 address has the syntax of a domain, but is not the name of a host.
    let is_name = !text.starts_with('[') && text.parse::<Ipv4Addr>().is_err();
    address::parse_domain(text).ok().filter(|_| is_name).map(Into::into)
}

/// Parses an IPv4 address such as `192.0.2.7`, or an IPv6 address after `IPV6:`.
fn ip(text: &str) -> Option<IpAddr> {
    match text.split_at_checked(5) {
        Some((tag, rest)) if tag.eq_ignore_ascii_case("IPV6:") => {
            rest.parse::<Ipv6Addr>().ok().map(|six| IpAddr::V6(six).to_canonical())
        }
        _ => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

fn port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()))
}

fn smtp(text: &str) -> Option<String> {
    Some(text.to_ascii_uppercase()).filter(|name| matches!(name.as_str(), "SMTP" | "ESMTP" | "LMTP"))
}

fn protocol(text: &str) -> Option<String> {
    plain(text).filter(|name| name.len() <= MAX_PROTOCOL)
}

fn source(text: &str) -> Option<String> {
    Some(text.to_ascii_uppercase()).filter(|word| matches!(word.as_str(), "LOCAL" | "REMOTE"))
}

fn login(text: &str) -> Option<String> {
    (!text.chars().any(char::is_control)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(offered: &'static str, argument: &str) -> String {
        match parse(offered, argument.as_bytes()) {
            Ok(found) => found.iter().map(|a| format!("{a:?}")).collect::<Vec<_>>().join(" "),
            Err(wrong) => format!("{wrong:?}"),
        }
    }

    #[test]
    fn attributes_of_xclient_are_strict() {
        let long = format!("LOGIN={}", "x".repeat(MAX_VALUE + 1));
        for (argument, want) in [
            ("NAME=MX.example.org ADDR=192.0.2.7", "Name(Some(\"mx.example.org\")) Addr(Some(192.0.2.7))"),
            ("name=[unavailable]  addr=IPv6:2001:DB8::1", "Name(None) Addr(Some(2001:db8::1))"),
            ("NAME=[TempUnavail] ADDR=[Unavailable]", "Name(None) Addr(None)"),
            ("ADDR=ipv6:::ffff:192.0.2.7 PORT=4321", "Addr(Some(192.0.2.7)) Port(Some(4321))"),
            ("PROTO=lmtp", "Proto(Some(\"LMTP\"))"),
            ("PROTO=esmtp HELO=[192.0.2.7]", "Proto(Some(\"ESMTP\")) Helo(Some(\"[192.0.2.7]\"))"),
            ("LOGIN=jon+2Blist+40razorback+3D", "Login(Some(\"jon+list@razorback=\"))"),
            ("LOGIN=j+c3+b6n", "Login(Some(\"j\u{f6}n\"))"),
            ("DESTADDR=192.0.2.1 DESTPORT=25", "DestAddr(Some(192.0.2.1)) DestPort(Some(25))"),
            ("", "Missing"),
            ("  ", "Missing"),
            ("NAME", "Unknown"),
            ("=x", "Unknown"),
            ("IDENT=x", "Unknown"),
            ("ADDR =192.0.2.7", "Unknown"),
            ("NAME=", "Malformed(\"NAME\")"),
            ("NAME=[192.0.2.7]", "Malformed(\"NAME\")"),
            ("NAME=192.0.2.7", "Malformed(\"NAME\")"),
            ("NAME=a..b", "Malformed(\"NAME\")"),
            ("NAME=x+0D+0AReceived:", "Malformed(\"NAME\")"),
            ("ADDR=[192.0.2.7]", "Malformed(\"ADDR\")"),
            ("ADDR=2001:db8::1", "Malformed(\"ADDR\")"),
            ("ADDR=192.0.2.256", "Malformed(\"ADDR\")"),
            ("ADDR=192.0.2.7=", "Malformed(\"ADDR\")"),
            ("PORT=65536", "Malformed(\"PORT\")"),
            ("PORT=+2B1", "Malformed(\"PORT\")"),
            ("PROTO=QMQP", "Malformed(\"PROTO\")"),
            ("HELO=a+20b", "Malformed(\"HELO\")"),
            ("HELO=(a)", "Malformed(\"HELO\")"),
            ("HELO=x+4", "Malformed(\"HELO\")"),
            ("HELO=x+4G", "Malformed(\"HELO\")"),
            ("LOGIN=a+0Ab", "Malformed(\"LOGIN\")"),
            ("LOGIN=a+00b", "Malformed(\"LOGIN\")"),
            ("LOGIN=+ff", "Malformed(\"LOGIN\")"),
            ("LOGIN=j\u{f6}n", "Malformed(\"LOGIN\")"),
            ("ADDR=192.0.2.7 ADDR=x", "Malformed(\"ADDR\")"),
            (&long, "Malformed(\"LOGIN\")"),
        ] {
            assert_eq!(shown(XCLIENT, argument), want, "{argument:.80}");
        }
    }

    #[test]
    fn attributes_of_xforward_are_words() {
        for (argument, want) in [
            ("NAME=localhost ADDR=127.0.0.1", "Name(Some(\"localhost\")) Addr(Some(127.0.0.1))"),
            ("NAME=unix:x PROTO=QMQP", "Name(Some(\"unix:x\")) Proto(Some(\"QMQP\"))"),
            ("IDENT=4FQ7Z2K SOURCE=local", "Ident(Some(\"4FQ7Z2K\")) Source(Some(\"LOCAL\"))"),
            ("SOURCE=[UNAVAILABLE]", "Source(None)"),
            ("SOURCE=HERE", "Malformed(\"SOURCE\")"),
            ("LOGIN=jon", "Unknown"),
            ("NAME=<a>", "Malformed(\"NAME\")"),
            ("IDENT=a+0Ab", "Malformed(\"IDENT\")"),
        ] {
            assert_eq!(shown(XFORWARD, argument), want, "{argument}");
        }
        let long = format!("PROTO={}", "x".repeat(MAX_PROTOCOL + 1));
        assert_eq!(shown(XFORWARD, &long), "Malformed(\"PROTO\")");
    }
}

//! The attributes of XCLIENT and XFORWARD: what a trusted front end says of a client.
//!
//! `NAME=mx.example.org ADDR=192.0.2.7 HELO=[UNAVAILABLE]`: names in any case, values
//! as xtext (RFC 3461 4), `[UNAVAILABLE]` and `[TEMPUNAVAIL]` for what is not known.
//! A line is right as a whole or [`Wrong`]: nothing of a wrong one is used. No value
//! is longer than [`MAX_VALUE`], and none but a login has a character that means
//! something in a header or a log. Does not know what becomes of the attributes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::xtext;
use crate::address;

/// What XCLIENT may say, in the words of the EHLO reply.
pub const XCLIENT: &str = "NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT";
/// What XFORWARD may say.
pub const XFORWARD: &str = "NAME ADDR PORT PROTO HELO IDENT SOURCE";
/// The longest value, in octets, once it is decoded.
pub const MAX_VALUE: usize = 255;
/// The longest name of a protocol.
const MAX_PROTOCOL: usize = 64;

/// One attribute; `None` is what the front end does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attribute {
    /// The client's name.
    Name(Option<String>),
    /// Its address.
    Addr(Option<IpAddr>),
    /// Its port.
    Port(Option<u16>),
    /// How it speaks to the front end.
    Proto(Option<String>),
    /// What it calls itself.
    Helo(Option<String>),
    /// As whom it has logged in.
    Login(Option<String>),
    /// The address that it has connected to.
    DestAddr(Option<IpAddr>),
    /// The port that it has connected to.
    DestPort(Option<u16>),
    /// What the front end calls the message.
    Ident(Option<String>),
    /// Whether the message began at the front end itself, `LOCAL`, or `REMOTE`.
    Source(Option<String>),
}

/// Why a line of attributes is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// There is none.
    Nothing,
    /// One that is not offered, or that has no value.
    Unknown,
    /// This one cannot be so.
    Value(&'static str),
}

/// Reads the argument of a command that offers some attributes: [`XCLIENT`] or [`XFORWARD`].
///
/// # Errors
/// What is wrong first.
pub fn parse(offered: &'static str, argument: &[u8]) -> Result<Vec<Attribute>, Wrong> {
    let words = argument.split(|&b| b == b' ').filter(|w| !w.is_empty());
    let found: Vec<Attribute> = words.map(|word| attribute(offered, word)).collect::<Result<_, _>>()?;
    if found.is_empty() { Err(Wrong::Nothing) } else { Ok(found) }
}

fn attribute(offered: &'static str, word: &[u8]) -> Result<Attribute, Wrong> {
    let equals = word.iter().position(|&b| b == b'=').ok_or(Wrong::Unknown)?;
    let (given, value) = (&word[..equals], &word[equals + 1..]);
    let name = offered.split(' ').find(|name| name.as_bytes().eq_ignore_ascii_case(given)).ok_or(Wrong::Unknown)?;
    read(name, offered == XCLIENT, value).ok_or(Wrong::Value(name))
}

/// The attribute of that name with a value; of a client, as opposed to a message, more is known.
fn read(name: &str, is_client: bool, value: &[u8]) -> Option<Attribute> {
    let text = decoded(value)?;
    let known = !["[UNAVAILABLE]", "[TEMPUNAVAIL]"].iter().any(|word| word.eq_ignore_ascii_case(&text));
    // The value as `read` reads it, nothing if it is not known, and no attribute if it is wrong.
    fn of<T>(known: bool, text: &str, read: impl Fn(&str) -> Option<T>) -> Option<Option<T>> {
        if known { read(text).map(Some) } else { Some(None) }
    }
    let text = text.as_str();
    Some(match name {
        "NAME" if is_client => Attribute::Name(of(known, text, domain)?),
        "NAME" => Attribute::Name(of(known, text, plain)?),
        "ADDR" => Attribute::Addr(of(known, text, ip)?),
        "PORT" => Attribute::Port(of(known, text, port)?),
        "PROTO" if is_client => Attribute::Proto(of(known, text, smtp)?),
        "PROTO" => Attribute::Proto(of(known, text, protocol)?),
        "HELO" => Attribute::Helo(of(known, text, plain)?),
        "LOGIN" => Attribute::Login(of(known, text, login)?),
        "DESTADDR" => Attribute::DestAddr(of(known, text, ip)?),
        "DESTPORT" => Attribute::DestPort(of(known, text, port)?),
        "IDENT" => Attribute::Ident(of(known, text, plain)?),
        "SOURCE" => Attribute::Source(of(known, text, source)?),
        _ => return None,
    })
}

/// Decodes a value of the permitted length.
fn decoded(value: &[u8]) -> Option<String> {
    let text = String::from_utf8(xtext::decode(value)?).ok()?;
    (1..=MAX_VALUE).contains(&text.len()).then_some(text)
}

/// What may stand in a header and in the log as it is: letters, digits, and what a
/// domain, a literal or a queue id has besides.
fn plain(text: &str) -> Option<String> {
    is_plain(text.as_bytes()).then(|| text.to_owned())
}

/// Whether a name may stand in a header as it is, whatever it means.
fn is_plain(name: &[u8]) -> bool {
    let is_plain = |b: &u8| b.is_ascii_alphanumeric() || b".-_:[]".contains(b);
    (1..=MAX_VALUE).contains(&name.len()) && name.iter().all(is_plain)
}

fn domain(text: &str) -> Option<String> {
    // An address is no name, though it looks like one.
    let is_name = !text.starts_with('[') && text.parse::<Ipv4Addr>().is_err();
    address::parse_domain(text).ok().filter(|_| is_name).map(Into::into)
}

/// `192.0.2.7`, or an IPv6 address after `IPV6:`.
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
    Some(text.to_ascii_uppercase()).filter(|name| matches!(name.as_str(), "SMTP" | "ESMTP"))
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
    fn attributes_of_clients_are_strict() {
        let long = format!("LOGIN={}", "x".repeat(MAX_VALUE + 1));
        for (argument, want) in [
            ("NAME=MX.example.org ADDR=192.0.2.7", "Name(Some(\"mx.example.org\")) Addr(Some(192.0.2.7))"),
            ("name=[unavailable]  addr=IPv6:2001:DB8::1", "Name(None) Addr(Some(2001:db8::1))"),
            ("NAME=[TempUnavail] ADDR=[Unavailable]", "Name(None) Addr(None)"),
            ("ADDR=ipv6:::ffff:192.0.2.7 PORT=4321", "Addr(Some(192.0.2.7)) Port(Some(4321))"),
            ("PROTO=esmtp HELO=[192.0.2.7]", "Proto(Some(\"ESMTP\")) Helo(Some(\"[192.0.2.7]\"))"),
            ("LOGIN=jon+2Blist+40razorback+3D", "Login(Some(\"jon+list@razorback=\"))"),
            ("LOGIN=j+c3+b6n", "Login(Some(\"j\u{f6}n\"))"),
            ("DESTADDR=192.0.2.1 DESTPORT=25", "DestAddr(Some(192.0.2.1)) DestPort(Some(25))"),
            ("", "Nothing"),
            ("  ", "Nothing"),
            ("NAME", "Unknown"),
            ("=x", "Unknown"),
            ("IDENT=x", "Unknown"),
            ("ADDR =192.0.2.7", "Unknown"),
            ("NAME=", "Value(\"NAME\")"),
            ("NAME=[192.0.2.7]", "Value(\"NAME\")"),
            ("NAME=192.0.2.7", "Value(\"NAME\")"),
            ("NAME=a..b", "Value(\"NAME\")"),
            ("NAME=x+0D+0AReceived:", "Value(\"NAME\")"),
            ("ADDR=[192.0.2.7]", "Value(\"ADDR\")"),
            ("ADDR=2001:db8::1", "Value(\"ADDR\")"),
            ("ADDR=192.0.2.256", "Value(\"ADDR\")"),
            ("ADDR=192.0.2.7=", "Value(\"ADDR\")"),
            ("PORT=65536", "Value(\"PORT\")"),
            ("PORT=+2B1", "Value(\"PORT\")"),
            ("PROTO=LMTP", "Value(\"PROTO\")"),
            ("HELO=a+20b", "Value(\"HELO\")"),
            ("HELO=(a)", "Value(\"HELO\")"),
            ("HELO=x+4", "Value(\"HELO\")"),
            ("HELO=x+4G", "Value(\"HELO\")"),
            ("LOGIN=a+0Ab", "Value(\"LOGIN\")"),
            ("LOGIN=a+00b", "Value(\"LOGIN\")"),
            ("LOGIN=+ff", "Value(\"LOGIN\")"),
            ("LOGIN=j\u{f6}n", "Value(\"LOGIN\")"),
            ("ADDR=192.0.2.7 ADDR=x", "Value(\"ADDR\")"),
            (&long, "Value(\"LOGIN\")"),
        ] {
            assert_eq!(shown(XCLIENT, argument), want, "{argument:.80}");
        }
    }

    #[test]
    fn attributes_of_messages_are_words() {
        for (argument, want) in [
            ("NAME=localhost ADDR=127.0.0.1", "Name(Some(\"localhost\")) Addr(Some(127.0.0.1))"),
            ("NAME=unix:x PROTO=QMQP", "Name(Some(\"unix:x\")) Proto(Some(\"QMQP\"))"),
            ("IDENT=4FQ7Z2K SOURCE=local", "Ident(Some(\"4FQ7Z2K\")) Source(Some(\"LOCAL\"))"),
            ("SOURCE=[UNAVAILABLE]", "Source(None)"),
            ("SOURCE=HERE", "Value(\"SOURCE\")"),
            ("LOGIN=jon", "Unknown"),
            ("NAME=<a>", "Value(\"NAME\")"),
            ("IDENT=a+0Ab", "Value(\"IDENT\")"),
        ] {
            assert_eq!(shown(XFORWARD, argument), want, "{argument}");
        }
        let long = format!("PROTO={}", "x".repeat(MAX_PROTOCOL + 1));
        assert_eq!(shown(XFORWARD, &long), "Value(\"PROTO\")");
    }
}

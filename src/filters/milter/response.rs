//! Reads the packets of a filter: decisions, and changes to the message.
//!
//! A filter is a program of this site, but it parses mail of strangers, so nothing that it sends is
//! taken on trust: names of fields are checked, values become well-formed folded text, addresses
//! are parsed, and replies are made well formed.

use super::options::action;
use super::packet::{number, take_text};
use crate::address::{self, Address};
use crate::filters::Trouble;
use crate::reply::{self, Reply};

/// The maximum length of the name of a field, in octets.
const MAX_NAME: usize = 200;
/// The maximum length of a reason for quarantine, in characters.
const MAX_REASON: usize = 200;

/// A packet of a filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// The dialogue goes on.
    Continue,
    /// The message, or at CONNECT and HELO the whole connection, is accepted without further
    /// events.
    Accept,
    /// The message is accepted and dropped.
    Discard,
    /// The command or message is refused.
    Refuse(Reply),
    /// The session is closed with 421.
    Close,
    /// No further events of this kind for this message.
    Skip,
    /// The filter needs more time.
    Progress,
    /// A change to the message, at its end.
    Change(Change),
}

/// A change to the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Adds a field at the end of the header.
    AddField(NewField),
    /// Inserts a field at this index.
    InsertField(u32, NewField),
    /// Replaces the field that has this name and this index. An empty value removes it.
    ChangeField(u32, NewField),
    /// Replaces the body by this piece and the pieces that follow.
    Body(Vec<u8>),
    /// Adds a recipient.
    AddRecipient(Address),
    /// Removes a recipient.
    DeleteRecipient(Address),
    /// Replaces the sender; `None` is the null path.
    Sender(Option<Address>),
    /// Quarantines the message for this reason.
    Quarantine(String),
}

/// A field as a filter gives it: a valid name, and a value whose continuation lines begin with a
/// blank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewField {
    /// The name.
    pub name: Vec<u8>,
    /// The value, without the last line end.
    pub value: Vec<u8>,
}

impl Change {
    /// The actions of which the filter must have negotiated one.
    pub fn actions(&self) -> u32 {
        match self {
            // Postfix and Sendmail let a filter that may change fields insert some, too.
            Self::AddField(_) | Self::InsertField(..) => action::ADD_HEADERS | action::CHANGE_HEADERS,
            Self::ChangeField(..) => action::CHANGE_HEADERS,
            Self::Body(_) => action::CHANGE_BODY,
            Self::AddRecipient(_) => action::ADD_RECIPIENTS | action::ADD_RECIPIENTS_WITH_PARAMETERS,
            Self::DeleteRecipient(_) => action::DELETE_RECIPIENTS,
            Self::Sender(_) => action::CHANGE_SENDER,
            Self::Quarantine(_) => action::QUARANTINE,
        }
    }
}

impl Response {
    /// Reads a packet with this letter and these data.
    ///
    /// # Errors
    /// If the packet is unknown or malformed.
    pub fn read(letter: u8, data: &[u8]) -> Result<Self, Trouble> {
        let response = match letter {
            b'c' => Self::Continue,
            b'a' => Self::Accept,
            b'd' => Self::Discard,
            b's' => Self::Skip,
            b'p' => Self::Progress,
            b'r' => Self::Refuse(reply::filter::rejected()),
            b't' => Self::Refuse(reply::filter::deferred()),
            b'f' | b'4' => Self::Close,
            b'y' => return reply(data),
            _ => return change(letter, data).map(Self::Change),
        };
        // Some filters end even these packets with a NUL.
        if data.iter().all(|&octet| octet == 0) { Ok(response) } else { Err(malformed(letter)) }
    }
}

/// Reads a reply. libmilter writes every percent sign twice, and the first of the two is dropped. A
/// single percent sign is dropped, too, as in Postfix.
fn reply(data: &[u8]) -> Result<Response, Trouble> {
    let end = memchr::memchr(0, data).unwrap_or(data.len());
    let mut text = Vec::new();
    let mut octets = data.get(..end).unwrap_or_default().iter();
    while let Some(&octet) = octets.next() {
        text.extend(if octet == b'%' { octets.next().copied() } else { Some(octet) });
    }
    let reply = reply::filter::said(&text).ok_or_else(|| malformed(b'y'))?;
    Ok(if reply.code() == 421 { Response::Close } else { Response::Refuse(reply) })
}

fn change(letter: u8, data: &[u8]) -> Result<Change, Trouble> {
    let index = || number(data).ok_or_else(|| malformed(letter));
    let after = data.get(4..).unwrap_or_default();
    Ok(match letter {
        b'h' => Change::AddField(field(letter, data)?),
        b'i' => Change::InsertField(index()?, field(letter, after)?),
        b'm' => Change::ChangeField(index()?, field(letter, after)?),
        b'b' => Change::Body(data.to_vec()),
        b'+' | b'2' => Change::AddRecipient(path(letter, data)?.ok_or_else(|| malformed(letter))?),
        b'-' => Change::DeleteRecipient(path(letter, data)?.ok_or_else(|| malformed(letter))?),
        b'e' => Change::Sender(path(letter, data)?),
        b'q' => {
            let reason = String::from_utf8_lossy(data.split(|&b| b == 0).next().unwrap_or_default()).into_owned();
            let shown = reason.chars().filter(|c| !c.is_control()).take(MAX_REASON);
            Change::Quarantine(shown.collect())
        }
        _ => return Err(Trouble::new(format!("it sent an unknown packet {:?}", char::from(letter)))),
    })
}

fn field(letter: u8, mut data: &[u8]) -> Result<NewField, Trouble> {
    let name = take_text(&mut data).ok_or_else(|| malformed(letter))?;
    let value = take_text(&mut data).ok_or_else(|| malformed(letter))?;
    let is_name = (1..=MAX_NAME).contains(&name.len()) && name.iter().all(|b| b.is_ascii_graphic() && *b != b':');
    if !is_name || !data.is_empty() {
        return Err(malformed(letter));
    }
    Ok(NewField { name: name.to_vec(), value: folded(value) })
}

/// A value in which no line can be taken for a field or for the end of the header: lines end with
/// LF, blank lines are dropped, and each further line begins with a blank.
fn folded(value: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    for (index, line) in value.split(|&b| b == b'\n' || b == b'\r').enumerate() {
        if index > 0 && line.trim_ascii().is_empty() {
            continue;
        }
        if index > 0 {
            text.push(b'\n');
            if !line.starts_with(b" ") && !line.starts_with(b"\t") {
                text.push(b'\t');
            }
        }
        text.extend_from_slice(line);
    }
    text
}

/// Reads an address, with or without angle brackets; `None` for the null path. Parameters after it
/// are ignored.
fn path(letter: u8, mut data: &[u8]) -> Result<Option<Address>, Trouble> {
    let text = take_text(&mut data).unwrap_or(data).trim_ascii();
    if text.is_empty() || text == b"<>" {
        return Ok(None);
    }
    let found = if text.starts_with(b"<") {
        address::parse_path(text).ok().filter(|(_, rest)| rest.is_empty()).and_then(|(address, _)| address)
    } else {
        std::str::from_utf8(text).ok().and_then(|text| Address::parse(text).ok())
    };
    found.map(Some).ok_or_else(|| malformed(letter))
}

fn malformed(letter: u8) -> Trouble {
    Trouble::new(format!("it sent a malformed packet {:?}", char::from(letter)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(packet: &[u8]) -> Option<Response> {
        let (letter, data) = packet.split_first()?;
        Response::read(*letter, data).ok()
    }

    fn refused(packet: &[u8]) -> String {
        match read(packet) {
            Some(Response::Refuse(reply)) => reply.to_string(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn decisions_and_replies_are_read() {
        for (packet, want) in [
            (&b"c"[..], Some(Response::Continue)),
            (b"c\0", Some(Response::Continue)),
            (b"cx", None),
            (b"a", Some(Response::Accept)),
            (b"d", Some(Response::Discard)),
            (b"s", Some(Response::Skip)),
            (b"p", Some(Response::Progress)),
            (b"f", Some(Response::Close)),
            (b"4", Some(Response::Close)),
            (b"y421 4.7.0 bye\0", Some(Response::Close)),
            (b"y250 2.0.0 fine\0", None),
            (b"y\0", None),
            (b"y", None),
            (b"z", None),
            (b"\xff", None),
        ] {
            assert_eq!(read(packet), want, "{packet:?}");
        }
        for (packet, want) in [
            (&b"r"[..], "550 5.7.1 Refused by the policy of this site"),
            (b"t", "451 4.7.1 Not accepted now, please try again later"),
            (b"y550\0", "550 5.7.1 Refused by the policy of this site"),
            (b"y550 5.7.1 100%% spam\0", "550 5.7.1 100% spam"),
            (b"y550 5.7.1 %s%n%\0", "550 5.7.1 sn"),
            (b"y550-5.7.1 a\r\n550 5.7.1 b\0", "550 5.7.1 a b"),
            (b"y554 5.7.1 x\x00550 hidden\0", "554 5.7.1 x"),
            (b"y554 5.7.1 x\r\n250 forged\0", "554 5.7.1 x"),
            (b"y451 4.7.1 x\x1b[2Jy\0", "451 4.7.1 x?[2Jy"),
        ] {
            assert_eq!(refused(packet), want, "{packet:?}");
        }
    }

    #[test]
    fn a_field_is_one_field() {
        let field = |name: &str, value: &str| NewField { name: name.into(), value: value.into() };
        for (packet, want) in [
            (&b"hX-A\0b\0"[..], Some(Change::AddField(field("X-A", "b")))),
            (b"hX-A\0\0", Some(Change::AddField(field("X-A", "")))),
            (b"hX-A\0a\n b\0", Some(Change::AddField(field("X-A", "a\n b")))),
            (b"hX-A\0a\r\nFrom: x\r\n\r\nbody\0", Some(Change::AddField(field("X-A", "a\n\tFrom: x\n\tbody")))),
            (b"hX-A\0a\n\t\n\0", Some(Change::AddField(field("X-A", "a")))),
            (b"i\0\0\0\x01X-A\0b\0", Some(Change::InsertField(1, field("X-A", "b")))),
            (b"m\0\0\0\x02Subject\0\0", Some(Change::ChangeField(2, field("Subject", "")))),
            (b"hX A\0b\0", None),
            (b"hX:\0b\0", None),
            (b"h\0b\0", None),
            (b"hX-A\0b", None),
            (b"hX-A\0b\0c\0", None),
            (b"h", None),
            (b"i\0\0", None),
            (b"m\0\0\0\x01", None),
        ] {
            assert_eq!(read(packet), want.map(Response::Change), "{packet:?}");
        }
    }

    #[test]
    fn addresses_are_parsed() {
        let address = |text: &str| Address::parse(text).expect("an address");
        for (packet, want) in [
            (&b"+<a@b.test>\0"[..], Some(Change::AddRecipient(address("a@b.test")))),
            (b"+a@b.test\0", Some(Change::AddRecipient(address("a@b.test")))),
            (b"2<a@b.test>\0NOTIFY=NEVER\0", Some(Change::AddRecipient(address("a@b.test")))),
            (b"-<a@b.test>\0", Some(Change::DeleteRecipient(address("a@b.test")))),
            (b"e<>\0", Some(Change::Sender(None))),
            (b"e<a@b.test>\0SIZE=1\0", Some(Change::Sender(Some(address("a@b.test"))))),
            (b"q\0", Some(Change::Quarantine(String::new()))),
            (b"qa virus\n\0", Some(Change::Quarantine("a virus".to_owned()))),
            (b"+<>\0", None),
            (b"+<a@b.test>x\0", None),
            (b"+<a@b.test\r\nRCPT TO:<c@d.test>\0", None),
            (b"e<a b>\0", None),
        ] {
            assert_eq!(read(packet), want.map(Response::Change), "{packet:?}");
        }
    }
}

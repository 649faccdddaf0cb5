//! What is traced: a message, an address, a domain or a client.

use std::net::IpAddr;

use crate::address::Address;
use crate::log::line::Line;
use crate::spool::QueueId;

/// The keys whose values are addresses in angle brackets.
const ADDRESSES: &[&str] = &["from", "to", "orig", "rcpt", "sender", "added", "removed"];
/// The keys whose values are names with which users have logged in.
const USERS: &[&str] = &["user", "account"];
/// A Message-ID of this length may have been cut off in the line.
const CUT_MESSAGE_ID: usize = 380;

/// What is traced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subject {
    /// The message with this queue id.
    Message(String),
    /// The session with this id.
    Session(String),
    /// The client with this address, as it is in a line.
    Client(String),
    /// The mail from or to a domain, with an `@` before it.
    Domain(String),
    /// An address, a Message-ID, a user, or the name of a client; without angle brackets.
    Name(String),
}

impl Subject {
    /// Reads what a user wants to be traced.
    pub(super) fn parse(text: &str) -> Self {
        let text = text.trim();
        let bare = text.strip_prefix('<').and_then(|text| text.strip_suffix('>')).unwrap_or(text);
        let is_hex = |digits: &str| digits.len() > 6 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        let address = text.trim_start_matches('[').trim_end_matches(']');
        if let Some(id) = QueueId::parse(&text.to_ascii_uppercase()) {
            Self::Message(id.to_string())
        } else if text.strip_prefix('s').is_some_and(is_hex) {
            Self::Session(text.to_owned())
        } else if let Ok(address) = address.parse::<IpAddr>() {
            Self::Client(format!("[{address}]"))
        } else if text.starts_with('@') {
            Self::Domain(text.to_owned())
        } else {
            // An address is compared in the form that it has in a line.
            Self::Name(Address::parse(bare).map_or_else(|_| bare.to_owned(), |address| address.to_string()))
        }
    }

    /// A text that every matching line contains, in lower case.
    pub(super) fn needle(&self) -> String {
        let text = match self {
            Self::Message(text) | Self::Session(text) | Self::Client(text) | Self::Domain(text) => text,
            // Some characters are escaped in a line.
            Self::Name(text) => {
                let part = |text: &str| {
                    text.rsplit(|c: char| !c.is_ascii_graphic() || matches!(c, '"' | '\\')).next().map(str::to_owned)
                };
                return part(text).unwrap_or_default().to_ascii_lowercase();
            }
        };
        text.to_ascii_lowercase()
    }

    /// Whether a line is about the subject.
    pub(super) fn matches(&self, line: &Line<'_>) -> bool {
        match self {
            Self::Message(id) => line.id == id || line.pairs.iter().any(|(_, value)| value == id),
            Self::Session(id) => line.id == id || line.get("session") == Some(id),
            Self::Client(address) => line.get("peer").is_some_and(|peer| peer.contains(address.as_str())),
            Self::Domain(domain) => has_address(line, |address| ends_with(address, domain)) || in_command(line, domain),
            Self::Name(name) => {
                has_address(line, |address| address.eq_ignore_ascii_case(name))
                    || line.get("msgid").is_some_and(|id| is_message_id(id, name))
                    || USERS.iter().any(|key| line.get(key).is_some_and(|user| user.eq_ignore_ascii_case(name)))
                    || in_command(line, name)
                    || is_client(line, name)
            }
        }
    }
}

/// Whether a client has this name, in DNS or in HELO.
fn is_client(line: &Line<'_>, name: &str) -> bool {
    let peer = line.get("peer").and_then(|peer| peer.split_once('[')).map(|(name, _)| name);
    [peer, line.get("helo")].into_iter().flatten().any(|other| !other.is_empty() && other.eq_ignore_ascii_case(name))
}

fn has_address(line: &Line<'_>, is_it: impl Fn(&str) -> bool) -> bool {
    let is_address = |(key, value): &(&str, std::borrow::Cow<'_, str>)| {
        ADDRESSES.contains(key) && value.strip_prefix('<').and_then(|v| v.strip_suffix('>')).is_some_and(&is_it)
    };
    line.pairs.iter().any(is_address)
}

fn ends_with(text: &str, end: &str) -> bool {
    let start = text.len().checked_sub(end.len());
    start.and_then(|start| text.get(start..)).is_some_and(|tail| tail.eq_ignore_ascii_case(end))
}

/// Whether a refused command names an address that is `end` or ends with it.
fn in_command(line: &Line<'_>, end: &str) -> bool {
    let Some(command) = line.get("command") else { return false };
    let Some((_, path)) = command.split_once(':') else { return false };
    let path = path.trim_start();
    let path = path.strip_prefix('<').map_or_else(|| path.split(' ').next(), |path| path.split('>').next());
    let path = path.unwrap_or_default();
    if end.starts_with('@') { ends_with(path, end) } else { path.eq_ignore_ascii_case(end) }
}

/// Whether the Message-ID of a line is `wanted`, which has no angle brackets.
fn is_message_id(id: &str, wanted: &str) -> bool {
    let bare = id.strip_prefix('<').unwrap_or(id);
    let bare = bare.strip_suffix('>').unwrap_or(bare);
    bare == wanted || (bare.len() > CUT_MESSAGE_ID && wanted.starts_with(bare))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_matches_the_lines_about_it_and_no_others() {
        let lines = [
            "1K0TVZ6PH81DZ9JHPQF accept from=<Ann@x.test> to=1 peer=mx.x.test[192.0.2.7] user=jon session=s6b028 msgid=<m.1@x.test> rcpt=<jon@here.test>",
            "1K0TVZ6PH82P6RAAXPK sent to=<jon@here.test> orig=<staff@here.test> via=maildir",
            "1K0TVZ6PH81DZ9JHPQF bounced report=1K0TVZ6PH82P6RAAXPK to=<ann@x.test>",
            "s6b02819e refused command=\"RCPT TO:<Elvis@here.test> NOTIFY=NEVER\" peer=[192.0.2.70] from=<bob@sub.x.test>",
            "s6b02819e refused command=\"MAIL FROM: cat@x.test SIZE=1\" peer=[2001:db8::7]",
            "s6b0281a0 auth-failed user=jon peer=[192.0.2.7] mechanism=PLAIN",
            "1K0TVZ6PH82P6RAAXPL sent to=\"<\\\"two words\\\"@here.test>\" via=maildir",
        ];
        for (subject, wanted) in [
            ("1k0tvz6ph81dz9jhpqf", &[0, 2][..]),
            ("1K0TVZ6PH82P6RAAXPK", &[1, 2]),
            ("s6b02819e", &[3, 4]),
            ("192.0.2.7", &[0, 5]),
            ("[192.0.2.70]", &[3]),
            ("2001:db8::7", &[4]),
            ("@x.test", &[0, 2, 4]),
            ("@here.test", &[0, 1, 3, 6]),
            ("ann@X.test", &[0, 2]),
            ("<jon@here.test>", &[0, 1]),
            ("staff@here.test", &[1]),
            ("elvis@here.test", &[3]),
            ("cat@x.test", &[4]),
            ("<m.1@x.test>", &[0]),
            ("m.1@x.test", &[0]),
            ("jon", &[0, 5]),
            ("\"two words\"@here.test", &[6]),
            ("on@here.test", &[]),
            ("MX.x.test", &[0]),
            ("x.test", &[]),
            ("", &[]),
        ] {
            let parsed = Subject::parse(subject);
            let matching = |line: &&str| {
                let read = Line::parse(line).unwrap_or_else(|| panic!("{line}"));
                let is_match = parsed.matches(&read);
                assert!(!is_match || line.to_ascii_lowercase().contains(&parsed.needle()), "{subject}: {line}");
                is_match
            };
            let found: Vec<&&str> = lines.iter().filter(|line| matching(line)).collect();
            let wanted: Vec<&&str> = wanted.iter().map(|&number| &lines[number]).collect();
            assert_eq!(found, wanted, "{subject}");
        }
    }
}

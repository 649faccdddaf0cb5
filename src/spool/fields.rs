//! The words of a queued head: `key=value`, separated by blanks.
//!
//! A value is a path in angle brackets or a word without blanks. What is done for a
//! recipient is one of `do=direct`, `do=expand`, `run=` and `file=`, and whose it is `as=`.
//! Commands, files and names have what is no printable ASCII as `%XX`, and so `%` and `<`.
//! What cannot be read is [`HeadError`]. Does not know what stands in which line: `head` does.

use std::fmt::Write;

use super::head::HeadError::{self, Corrupt, Later};
use crate::address::{self, Address};
use crate::envelope::{Action, MAX_ACTION};

/// A field or a value that this version does not know.
pub const UNKNOWN: HeadError = Later("it has a field that this version does not know");

/// What stands behind a key: a path in angle brackets, or a word without blanks.
pub enum Value<'a> {
    /// An address or the null path.
    Path(Option<Address>),
    /// Anything else.
    Word(&'a str),
}

/// Reads `key=value` words separated by blanks.
///
/// # Errors
/// [`HeadError`] for anything else, and those of `take`.
pub fn read_words<'a>(
    mut text: &'a [u8],
    mut take: impl FnMut(&'a str, Value<'a>) -> Result<(), HeadError>,
) -> Result<(), HeadError> {
    const CORRUPT: HeadError = Corrupt("a line is not a list of key=value");
    loop {
        text = text.trim_ascii();
        if text.is_empty() {
            return Ok(());
        }
        let equals = text.iter().position(|&b| b == b'=').ok_or(CORRUPT)?;
        let (key, rest) = (&text[..equals], &text[equals + 1..]);
        let (value, rest) = if rest.starts_with(b"<") {
            let (path, rest) = address::parse_path(rest).map_err(|_| Corrupt("an address is malformed"))?;
            (Value::Path(path), rest)
        } else {
            let (word, rest) = rest.split_at(rest.iter().position(|&b| b == b' ').unwrap_or(rest.len()));
            (Value::Word(std::str::from_utf8(word).map_err(|_| CORRUPT)?), rest)
        };
        take(std::str::from_utf8(key).map_err(|_| CORRUPT)?, value)?;
        text = rest;
    }
}

/// Writes what is done for a recipient, a blank first.
pub fn write_action(head: &mut String, action: &Action) {
    let (key, value, user) = match action {
        Action::Deliver => return,
        Action::Direct => return head.push_str(" do=direct"),
        Action::Expand => return head.push_str(" do=expand"),
        Action::Run { command, user } => ("run", command, user),
        Action::Append { file, user } => ("file", file, user),
    };
    for (key, value) in [(key, Some(value)), ("as", user.as_ref())] {
        let Some(value) = value else { continue };
        let _ = write!(head, " {key}=");
        write_text(head, value);
    }
}

/// Writes a value that may have any characters in it.
pub fn write_text(head: &mut String, value: &str) {
    for b in value.bytes() {
        let _ = match b {
            // A value that begins with < is a path.
            b'!'..=b'~' if !b"%<".contains(&b) => write!(head, "{}", char::from(b)),
            _ => write!(head, "%{b:02X}"),
        };
    }
}

/// Reads what [`write_text`] wrote.
///
/// # Errors
/// [`HeadError`] for anything else, and for a text that has more than `most` octets.
pub fn read_text(word: &str, most: usize) -> Result<Box<str>, HeadError> {
    const CORRUPT: HeadError = Corrupt("a command, a file or a name is malformed");
    let mut text = Vec::with_capacity(word.len());
    let mut rest = word.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            text.push(first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2).ok_or(CORRUPT)?;
        let digits = std::str::from_utf8(digits).map_err(|_| CORRUPT)?;
        text.push(u8::from_str_radix(digits, 16).map_err(|_| CORRUPT)?);
        rest = after;
    }
    let text = String::from_utf8(text).map_err(|_| CORRUPT)?;
    if (1..=most).contains(&text.len()) { Ok(text.into()) } else { Err(CORRUPT) }
}

/// What is done for a recipient, while its words are read.
#[derive(Default)]
pub struct ActionWords {
    action: Option<Action>,
    user: Option<Box<str>>,
}

impl ActionWords {
    /// Reads a word.
    ///
    /// # Errors
    /// [`HeadError`] for one that is not known, or that stands there a second time.
    pub fn read(&mut self, key: &str, word: &str) -> Result<(), HeadError> {
        let before = match (key, word) {
            ("do", "direct") => self.action.replace(Action::Direct),
            ("do", "expand") => self.action.replace(Action::Expand),
            ("run", _) => self.action.replace(Action::Run { command: read_text(word, MAX_ACTION)?, user: None }),
            ("file", _) => self.action.replace(Action::Append { file: read_text(word, MAX_ACTION)?, user: None }),
            ("as", _) if self.user.is_none() => {
                self.user = Some(read_text(word, MAX_ACTION)?);
                None
            }
            _ => return Err(UNKNOWN),
        };
        if before.is_none() { Ok(()) } else { Err(UNKNOWN) }
    }

    /// What they say.
    ///
    /// # Errors
    /// [`HeadError`] for a user who has nothing.
    pub fn finish(self) -> Result<Action, HeadError> {
        match (self.action.unwrap_or_default(), self.user) {
            (Action::Run { command, .. }, user) => Ok(Action::Run { command, user }),
            (Action::Append { file, .. }, user) => Ok(Action::Append { file, user }),
            (action, None) => Ok(action),
            (_, Some(_)) => Err(UNKNOWN),
        }
    }
}

//! Reads and writes the fields of a queued head: `key=value`, separated by blanks. The module
//! `head` decides which fields belong to which line.
//!
//! A value is a path in angle brackets or a word without blanks. A command, a file name or a user
//! name is a word in which `%`, `<`, blanks and every byte that is not printable ASCII are written
//! as `%XX`: `a b` becomes `a%20b`.

use std::fmt::Write;

use super::head::HeadError::{self, Corrupt, Later};
use crate::address::{self, Address};
use crate::envelope::{Action, MAX_ACTION};

/// The error for a field with a key that this version does not know.
pub const UNKNOWN: HeadError = Later("it has a field that this version does not know");
/// The error for a known field that occurs twice, or has a value that no version writes.
pub const MALFORMED: HeadError = Corrupt("a field is malformed");

/// The value of a field.
pub enum Value<'a> {
    /// A path in angle brackets; `None` is the null path.
    Path(Option<Address>),
    /// A word without blanks.
    Word(&'a str),
}

/// Parses a list of fields, and calls `take` with the key and the value of each.
///
/// # Errors
/// [`Corrupt`] for a text that is not a list of fields, and the errors of `take`.
pub fn read_fields<'a>(
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
        if key.is_empty() || !key.iter().all(|b| b.is_ascii_lowercase() || *b == b'-') {
            return Err(CORRUPT);
        }
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

/// Appends the fields of an action to a head, each after a blank. Ordinary delivery has no field.
pub fn write_action(head: &mut String, action: &Action) {
    let (key, value, user) = match action {
        Action::Deliver => return,
        Action::Direct => return head.push_str(" do=direct"),
        Action::Expand => return head.push_str(" do=expand"),
        Action::Replaced => return head.push_str(" do=nothing"),
        Action::Run { command, user } => ("run", command, user),
        Action::Append { file, user } => ("file", file, user),
    };
    for (key, value) in [(key, Some(value)), ("as", user.as_ref())] {
        let Some(value) = value else { continue };
        let _ = write!(head, " {key}=");
        write_text(head, value);
    }
}

/// Appends a text to a head as one word.
pub fn write_text(head: &mut String, value: &str) {
    for b in value.bytes() {
        let _ = match b {
            // A value that begins with < would be read as a path.
            b'!'..=b'~' if !b"%<".contains(&b) => write!(head, "{}", char::from(b)),
            _ => write!(head, "%{b:02X}"),
        };
    }
}

/// Reads a word that [`write_text`] wrote.
///
/// # Errors
/// [`Corrupt`] if the word is malformed, or if the text is empty or has more than `max` bytes.
pub fn read_text(word: &str, max: usize) -> Result<Box<str>, HeadError> {
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
    if (1..=max).contains(&text.len()) { Ok(text.into()) } else { Err(CORRUPT) }
}

/// The action for a recipient, as far as its fields have been read.
#[derive(Default)]
pub struct ActionFields {
    action: Option<Action>,
    user: Option<Box<str>>,
}

impl ActionFields {
    /// Takes a field.
    ///
    /// # Errors
    /// [`UNKNOWN`] for an unknown key, and [`MALFORMED`] for an unknown value or a repeated field.
    pub fn read(&mut self, key: &str, word: &str) -> Result<(), HeadError> {
        let before = match (key, word) {
            ("do", "direct") => self.action.replace(Action::Direct),
            ("do", "expand") => self.action.replace(Action::Expand),
            ("do", "nothing") => self.action.replace(Action::Replaced),
            ("run", _) => self.action.replace(Action::Run { command: read_text(word, MAX_ACTION)?, user: None }),
            ("file", _) => self.action.replace(Action::Append { file: read_text(word, MAX_ACTION)?, user: None }),
            ("as", _) if self.user.is_none() => {
                self.user = Some(read_text(word, MAX_ACTION)?);
                None
            }
            ("do" | "as", _) => return Err(MALFORMED),
            _ => return Err(UNKNOWN),
        };
        if before.is_none() { Ok(()) } else { Err(MALFORMED) }
    }

    /// The action that the fields describe.
    ///
    /// # Errors
    /// [`MALFORMED`] if the fields name a user, but no command or file.
    pub fn finish(self) -> Result<Action, HeadError> {
        match (self.action.unwrap_or_default(), self.user) {
            (Action::Run { command, .. }, user) => Ok(Action::Run { command, user }),
            (Action::Append { file, .. }, user) => Ok(Action::Append { file, user }),
            (action, None) => Ok(action),
            (_, Some(_)) => Err(MALFORMED),
        }
    }
}

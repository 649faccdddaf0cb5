//! Makes the replies that penfold sends, and reads the replies of other hosts.
//!
//! Each reply that penfold sends is one function, in the file named after the command that the
//! reply answers, so that wording and codes are reviewed in one place. Code, enhanced status code
//! and text are separate fields (RFC 5321 4.2, RFC 2034). No text contains a path or an error of
//! the operating system.
//!
//! - `auth`: to AUTH
//! - `command`: to RSET, NOOP, and malformed commands and parameters
//! - `connection`: the banner, QUIT and 421
//! - `etrn`: to ETRN
//! - `failure`: to MAIL and DATA when this server fails
//! - `filter`: the replies that filters and policy services decide
//! - `hello`: to HELO and EHLO, and to commands that need one first
//! - `help`: to HELP
//! - `message`: to DATA, before the message and at its end
//! - `read`: the reader for replies of other hosts
//! - `recipient`: to RCPT: unknown users, relaying denied, limits
//! - `sender`: to MAIL
//! - `starttls`: to STARTTLS, and to commands that need TLS first
//! - `stranger`: to RCPT, from clients that may not relay
//! - `verify`: to VRFY and EXPN
//! - `xclient`: to XCLIENT and XFORWARD

use std::borrow::Cow;
use std::fmt;

pub mod auth;
pub mod command;
pub mod connection;
pub mod etrn;
pub mod failure;
pub mod filter;
pub mod hello;
pub mod help;
pub mod message;
mod read;
pub mod recipient;
pub mod sender;
pub mod starttls;
pub mod stranger;
pub mod verify;
pub mod xclient;

pub use read::{Malformed, ReplyReader, quoted};

/// The maximum number of lines that are kept of a remote reply.
pub const MAX_LINES: usize = 32;
/// The maximum number of octets that are kept of each line of a remote reply (RFC 5321 4.5.3.1.5).
pub const MAX_LINE: usize = 512;

/// An enhanced status code: class, subject and detail (RFC 3463).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status(pub u8, pub u16, pub u16);

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl Status {
    /// Parses a status at the start of `text`. Also returns the text after the status and one
    /// blank.
    pub fn read(text: &str) -> Option<(Self, &str)> {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        let mut parts = word.splitn(3, '.');
        let class = parts.next().filter(|c| matches!(*c, "2" | "4" | "5"))?;
        let mut number =
            || parts.next().filter(|p| p.len() <= 3 && p.bytes().all(|b| b.is_ascii_digit()))?.parse().ok();
        Some((Self(class.parse().ok()?, number()?, number()?), rest))
    }
}

/// A reply of this server or of another host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    code: u16,
    status: Option<Status>,
    lines: Vec<Cow<'static, str>>,
    /// Whether the lines have different codes. If so, `lines` has one more element, the whole
    /// original text.
    is_mixed: bool,
}

impl Reply {
    /// Makes a reply of one line with an enhanced status code.
    pub fn new(code: u16, status: Status, text: impl Into<Cow<'static, str>>) -> Self {
        Self { code, status: Some(status), lines: vec![text.into()], is_mixed: false }
    }

    /// Makes a reply without a status, such as the banner or the reply to EHLO (RFC 2034 4).
    pub fn bare(code: u16, lines: Vec<Cow<'static, str>>) -> Self {
        Self { code, status: None, lines, is_mixed: false }
    }

    /// Returns the reply code. The code of another host's reply may be out of range.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// Returns the enhanced status code, if there is one.
    pub fn status(&self) -> Option<Status> {
        self.status
    }

    /// Returns the text of each line, without code and status.
    pub fn lines(&self) -> &[Cow<'static, str>] {
        let quoted = usize::from(self.is_mixed).min(self.lines.len());
        self.lines.get(..self.lines.len() - quoted).unwrap_or_default()
    }

    /// Whether the reply is a temporary or permanent refusal.
    pub fn is_refusal(&self) -> bool {
        (400..600).contains(&self.code)
    }

    /// Whether the reply demands authentication, or rejects an attempt at it (RFC 4954 4 and 6).
    pub fn wants_login(&self) -> bool {
        matches!(self.code, 530 | 534 | 535 | 538)
    }

    /// Whether the text is ASCII.
    pub fn is_ascii(&self) -> bool {
        self.lines.iter().all(|line| line.is_ascii())
    }

    /// Returns the reply with a question mark in place of every character outside ASCII.
    pub fn in_ascii(&self) -> Self {
        let plain = |line: &Cow<'static, str>| {
            if line.is_ascii() { line.clone() } else { line.replace(|c: char| !c.is_ascii(), "?").into() }
        };
        Self { lines: self.lines.iter().map(plain).collect(), ..self.clone() }
    }

    /// Appends the reply to `out` as it is sent over the connection.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        use std::io::Write;
        let last = self.lines.len().saturating_sub(1);
        for (index, line) in self.lines.iter().enumerate() {
            let mark = if index == last { ' ' } else { '-' };
            // Writing to a vector cannot fail.
            let _ = match self.status {
                Some(status) => write!(out, "{}{mark}{status} {line}\r\n", self.code),
                None => write!(out, "{}{mark}{line}\r\n", self.code),
            };
        }
    }
}

/// Shows a reply on one line for a log or a report: code, status, and the lines joined with blanks.
/// If the codes of the lines differ, each line is shown with its own code.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(quoted) = self.lines.last().filter(|_| self.is_mixed) {
            return f.write_str(quoted);
        }
        write!(f, "{:03}", self.code)?;
        if let Some(status) = self.status {
            write!(f, " {status}")?;
        }
        self.lines.iter().filter(|l| !l.is_empty()).try_for_each(|line| write!(f, " {line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_written_line_by_line_with_its_status() {
        let mut out = Vec::new();
        recipient::unknown_user(&"elvis@razorback").write_to(&mut out);
        assert_eq!(out, b"550 5.1.1 <elvis@razorback> User unknown\r\n");
        out.clear();
        recipient::unknown_user(&"j\u{f6}n@razorback").in_ascii().write_to(&mut out);
        assert_eq!(out, b"550 5.1.1 <j?n@razorback> User unknown\r\n");
        out.clear();
        help::commands(help::Available::default()).write_to(&mut out);
        let text = String::from_utf8(out).expect("ASCII");
        assert!(text.lines().rev().skip(1).all(|l| l.starts_with("214-2.0.0 ")));
        assert!(text.lines().next_back().is_some_and(|l| l.starts_with("214 2.0.0 ")));
    }
}

//! The dialogue of an attempt with other hosts: what was sent to them, and what they have replied.
//!
//! A dialogue is for people: `penfoldctl show` prints it, and a report quotes the lines that are
//! about its recipients. It contains the commands and the replies, never the content of the message,
//! and nothing of AUTH. It is bounded: long lines are cut, and if there are too many lines, those
//! about recipients that were accepted are left out first, and then the oldest ones.
//!
//! - `recorder`: records the dialogue of an attempt while it goes on
//! - `text`: the form in which dialogues are kept in a file

use crate::address::Address;
use crate::characters;

mod recorder;
mod text;

pub use recorder::Recorder;
pub use text::{MAX_FILE, add, read};

/// The maximum length of a line, in bytes. A longer line is cut.
const MAX_LINE: usize = 240;

/// The dialogue of one attempt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dialogue {
    /// When the attempt ended, in seconds since 1970.
    pub time: u64,
    /// The name of the destination.
    pub destination: String,
    /// The lines, in order. A reply follows the command that it answers, also if several commands
    /// were sent at once.
    pub lines: Vec<Line>,
    /// The recipients that lines refer to.
    recipients: Vec<Box<str>>,
}

/// A line of a dialogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Whose line it is.
    pub kind: Kind,
    /// The recipient that the line is about, as an index; `None` if it is about the whole message.
    about: Option<u32>,
    /// The text, without control characters.
    pub text: String,
}

/// Whose line of a dialogue it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A host that is tried, as in `mx.example.org[192.0.2.1]:25`. The following lines belong to the
    /// connection to this host.
    Host,
    /// A remark of this server.
    Remark,
    /// A command that this server has sent.
    Command,
    /// A line of a reply of the host.
    Reply,
}

impl Kind {
    /// The word for the kind in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Remark => "remark",
            Self::Command => "command",
            Self::Reply => "reply",
        }
    }

    /// The mark before a line, for people.
    pub fn mark(self) -> &'static str {
        match self {
            Self::Host | Self::Remark => "",
            Self::Command => "-> ",
            Self::Reply => "<- ",
        }
    }
}

impl Dialogue {
    /// The recipient that a line is about; `None` if it is about the whole message.
    pub fn recipient_of(&self, line: &Line) -> Option<&str> {
        self.recipients.get(line.about? as usize).map(|recipient| &**recipient)
    }

    /// Whether a line is about this recipient.
    pub fn is_about(&self, recipient: &Address) -> bool {
        let recipient = recipient.to_string();
        self.recipients.iter().any(|about| **about == *recipient)
    }

    /// Whether a line is about another recipient.
    fn is_about_another(&self, line: &Line, recipient: &str) -> bool {
        self.recipient_of(line).is_some_and(|about| about != recipient)
    }

    /// Returns the lines that concern one recipient and may be shown to the sender of the message:
    /// those of the last host to which the recipient was sent or, if it was sent to none, those of
    /// the last host that was tried. Lines about other recipients are left out, and if the host was
    /// asked about the recipient, also those before MAIL. `name` makes the name of a host for the
    /// sender; if it returns `None`, the host must not be named, and there are no lines.
    pub fn lines_of(&self, recipient: &Address, name: impl Fn(&str) -> Option<String>) -> Vec<String> {
        let lines = self.kinds_of(recipient, name).into_iter();
        lines.map(|(kind, text)| format!("{}{text}", kind.mark())).collect()
    }

    /// The lines of [`Dialogue::lines_of`], with their kinds.
    pub fn kinds_of(&self, recipient: &Address, name: impl Fn(&str) -> Option<String>) -> Vec<(Kind, String)> {
        let recipient = recipient.to_string();
        let is_about = |line: &Line| self.recipient_of(line) == Some(&recipient);
        let sessions: Vec<&[Line]> = self.lines.chunk_by(|_, next| next.kind != Kind::Host).collect();
        let asked = sessions.iter().rfind(|session| session.iter().any(is_about));
        let Some((host, lines)) = asked.or(sessions.last()).and_then(|session| session.split_first()) else {
            return Vec::new();
        };
        let Some(name) = Some(host).filter(|host| host.kind == Kind::Host).and_then(|host| name(&host.text)) else {
            return Vec::new();
        };
        // The last MAIL before the last line about the recipient begins the transaction.
        let is_mail = |line: &Line| line.kind == Kind::Command && line.text.starts_with("MAIL FROM:");
        let last = lines.iter().rposition(is_about);
        let start = last.and_then(|last| lines.get(..last)?.iter().rposition(is_mail)).unwrap_or(0);
        let shown = lines.iter().skip(start).filter(|line| !self.is_about_another(line, &recipient));
        let shown = shown.filter(|line| line.kind != Kind::Remark || !names_file(&line.text));
        let text = |line: &Line| if is_mail(line) { without_sender(&line.text) } else { line.text.clone() };
        std::iter::once((Kind::Host, name)).chain(shown.map(|line| (line.kind, text(line)))).collect()
    }
}

/// Returns a MAIL command without its address, which may be one that SRS has made: whoever knows
/// such an address can send reports to the sender.
fn without_sender(mail: &str) -> String {
    match mail.split_once('<').and_then(|(start, rest)| Some((start, rest.rsplit_once('>')?.1))) {
        Some((start, parameters)) => format!("{start}<...>{parameters}"),
        None => mail.to_owned(),
    }
}

/// Whether a text names a file of this host.
fn names_file(text: &str) -> bool {
    text.split([' ', '"', '\'', '(', '<', '=']).any(|word| word.starts_with('/'))
}

/// Returns a text as it stands in a line: without characters that could mislead, and cut if it is too long.
fn plain(text: &str) -> String {
    let mut plain: String = text.chars().map(characters::shown).collect();
    if plain.len() > MAX_LINE {
        let end = plain.char_indices().map(|(at, _)| at).take_while(|at| *at <= MAX_LINE - 4).last();
        plain.truncate(end.unwrap_or(0));
        plain.push_str(" ...");
    }
    plain
}

#[cfg(test)]
mod tests;

//! Keeps a note for each message that was tried and is still in the queue: the last results for its
//! recipients, which the listings show.
//!
//! A line is `TIME <RECIPIENT> HOST TEXT`; [`NoteLine`] writes it and [`Note`] reads it. A note is
//! a convenience: it is never synced, may vanish at any time, and is not written if that would touch
//! the reserve of the disk. When a note is full, the next line replaces all others.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{QueueId, Spool, open};
use crate::address::Address;
use crate::log;
use crate::sys::disk;

/// The maximum length of a note, in bytes.
pub(super) const MAX_NOTE: u64 = 16 << 10;

/// The beginning of the result of an attempt during which the daemon was stopped.
pub const INTERRUPTED: &str = "the daemon was stopped during this attempt";

/// Locks for the notes and the dialogues, which are changed in two steps. Two attempts for one message
/// may end at the same time, each for recipients of its own.
#[derive(Debug, Default)]
pub(super) struct Locks([Mutex<()>; 32]);

impl Locks {
    /// Waits until nobody else changes what is kept about this message.
    pub(super) fn of(&self, id: QueueId) -> MutexGuard<'_, ()> {
        let Self(locks) = self;
        let hash = BuildHasherDefault::<DefaultHasher>::new().hash_one(id);
        locks[hash as usize % locks.len()].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The result of one attempt for one recipient.
#[derive(Debug)]
pub struct NoteLine<'a> {
    /// The time of the attempt, in seconds since 1970.
    pub time: u64,
    /// The recipient.
    pub recipient: &'a Address,
    /// The host or the mailbox; empty if there is none.
    pub host: &'a str,
    /// The reply of the host, or another reason for the result.
    pub text: &'a str,
}

impl fmt::Display for NoteLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { time, recipient, host, text } = self;
        let plain = |text: &str| text.replace(char::is_control, " ");
        write!(f, "{} <{recipient}> {} {}", log::timestamp(*time), plain(host), plain(text))
    }
}

/// A result that was read from a note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteResult {
    /// The time of the attempt, in seconds since 1970.
    pub time: u64,
    /// The host or the mailbox, if there was one, and the reply or another reason.
    pub text: String,
}

/// The note of a message.
#[derive(Debug, Default)]
pub struct Note(String);

impl Note {
    /// The host and the text of the last result for a recipient; `None` if the note has no result.
    pub fn last_result(&self, recipient: &Address) -> Option<String> {
        let path = format!("<{recipient}>");
        let result = self.0.lines().rev().find_map(|line| line.split_once(' ')?.1.strip_prefix(&path))?;
        let result: String = result.trim().chars().filter(|c| !c.is_control()).collect();
        (!result.is_empty()).then_some(result)
    }

    /// All results, the oldest first, each with the recipient in angle brackets.
    pub fn results(&self) -> impl Iterator<Item = (String, NoteResult)> {
        self.0.lines().filter_map(|line| {
            let (time, rest) = line.split_once(' ')?;
            let time = time.parse::<jiff::Timestamp>().ok()?.as_second();
            // A quoted local part may have blanks and angle brackets, but no `> ` outside quotes.
            let mut is_quoted = false;
            let mut before = ' ';
            let end = rest.char_indices().find(|(_, c)| {
                is_quoted ^= *c == '"' && before != '\\';
                before = if before == '\\' { ' ' } else { *c };
                *c == '>' && !is_quoted
            });
            let (path, text) = rest.split_at_checked(end?.0 + 1)?;
            let text: String = text.trim().chars().filter(|c| !c.is_control()).collect();
            let is_result = path.starts_with('<') && path != "<>";
            let result = NoteResult { time: u64::try_from(time).ok()?, text };
            is_result.then(|| (path.to_owned(), result))
        })
    }

    /// Why the message was held the last time; `None` if the note has no line about that. In such a
    /// line the null path stands in place of the recipient.
    pub fn hold_reason(&self) -> Option<String> {
        let reason = self.0.lines().rev().find_map(|line| line.split_once(' ')?.1.strip_prefix("<> held "))?;
        Some(reason.trim().chars().filter(|c| !c.is_control()).collect())
    }
}

impl Spool {
    /// Adds a line to the note of a message. Errors are ignored.
    pub fn add_note(&self, id: QueueId, line: &NoteLine<'_>) {
        self.add_note_line(id, &line.to_string());
    }

    /// Adds to the note of a message that it was held at `time`, in seconds since 1970. Errors are
    /// ignored.
    pub fn add_hold_note(&self, id: QueueId, time: u64, reason: &str) {
        let plain = reason.replace(char::is_control, " ");
        self.add_note_line(id, &format!("{} <> held {plain}", log::timestamp(time)));
    }

    fn add_note_line(&self, id: QueueId, line: &str) {
        let (path, line) = (self.note_path(id), format!("{line}\n"));
        // A note is not worth the space that is kept free for reports and records.
        if !self.has_room(MAX_NOTE).unwrap_or(false) {
            return;
        }
        let _changing = self.notes.of(id);
        let has_room = fs::metadata(&path).is_ok_and(|m| m.len() + line.len() as u64 <= MAX_NOTE);
        let mut options = OpenOptions::new();
        options.create(true).mode(0o600).custom_flags(open::SAFELY);
        let options = if has_room { options.append(true) } else { options.write(true).truncate(true) };
        let _ = disk::open(&path, options).and_then(|file| disk::write(&file, line.as_bytes()));
    }

    /// The note of a message; empty if there is none.
    pub fn read_note(&self, id: QueueId) -> Note {
        let mut text = Vec::new();
        let file = open::to_read(&self.note_path(id));
        let read = file.and_then(|file| file.take(2 * MAX_NOTE).read_to_end(&mut text));
        read.map(|_| Note(String::from_utf8_lossy(&text).into_owned())).unwrap_or_default()
    }

    pub(super) fn note_path(&self, id: QueueId) -> PathBuf {
        self.root.join("note").join(id.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_result_of_each_recipient_is_read_back() {
        let [jon, ann, bob] = ["jon@x.test", "\"a b\"@x.test", "bob@x.test"].map(|a| a.parse::<Address>().expect(a));
        let line = |recipient, host, text| NoteLine { time: 1_795_255_200, recipient, host, text }.to_string();
        let lines = [
            line(&jon, "mx[192.0.2.1]:25", "450 4.2.0 first"),
            line(&ann, "", "no route\r\n to host"),
            line(&jon, "mx[192.0.2.1]:25", "450 4.2.0 last"),
        ];
        assert_eq!(lines[0], "2026-11-21T10:00:00Z <jon@x.test> mx[192.0.2.1]:25 450 4.2.0 first");
        let note = Note(lines.join("\n") + "\n");
        assert_eq!(note.last_result(&jon).as_deref(), Some("mx[192.0.2.1]:25 450 4.2.0 last"));
        assert_eq!(note.last_result(&ann).as_deref(), Some("no route   to host"));
        assert_eq!((note.last_result(&bob), note.hold_reason()), (None, None));
        let results: Vec<_> = note.results().map(|(path, result)| (path, result.time, result.text)).collect();
        let result = |path: &str, text: &str| (path.to_owned(), 1_795_255_200, text.to_owned());
        assert_eq!(
            results,
            [
                result("<jon@x.test>", "mx[192.0.2.1]:25 450 4.2.0 first"),
                result("<\"a b\"@x.test>", "no route   to host"),
                result("<jon@x.test>", "mx[192.0.2.1]:25 450 4.2.0 last"),
            ]
        );
        for text in [
            "",
            "x",
            "2026-11-21T10:00:00Z",
            "2026-11-21T10:00:00Z <",
            "2026-11-21T10:00:00Z <> held by jon",
            "x <a@b> c",
        ] {
            assert_eq!(Note(text.to_owned()).results().count(), 0, "{text}");
        }
        assert_eq!(Note::default().last_result(&jon), None);
    }
}

//! Records the dialogue of an attempt while it goes on.
//!
//! A recorder is shared by all connections of one worker, so that it also has the dialogue of a
//! connection that could not be opened. With PIPELINING several commands are sent before the first
//! reply. Replies come in the order of the commands, and each is put after its command.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Dialogue, Kind, Line, plain};
use crate::address::Address;
use crate::reply::Reply;

/// The maximum number of bytes of all lines. If there are more, some are left out.
const MAX_TEXT: usize = 24 << 10;
/// The maximum number of lines of one reply.
const MAX_REPLY_LINES: usize = 20;

/// Records a dialogue. Clones record the same one.
#[derive(Debug, Clone, Default)]
pub struct Recorder(Arc<Mutex<Recording>>);

/// What was recorded so far.
#[derive(Debug, Default)]
struct Recording {
    lines: Vec<Recorded>,
    recipients: Vec<Box<str>>,
    /// The bytes of all lines.
    size: usize,
    /// The commands that were not answered yet, as indices of `lines`.
    unanswered: std::collections::VecDeque<usize>,
    left_out: usize,
    /// The index of the recipient that was found last.
    last_found: usize,
}

/// A line, and the replies to it if it is a command.
#[derive(Debug)]
struct Recorded {
    line: Line,
    replies: Vec<String>,
    /// Whether the reply is positive, so that the line can be spared.
    is_accepted: bool,
}

impl Recorded {
    fn size(&self) -> usize {
        self.line.text.len() + self.replies.iter().map(String::len).sum::<usize>()
    }
}

impl Recorder {
    fn lock(&self) -> MutexGuard<'_, Recording> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets the dialogue that was recorded before.
    pub fn begin(&self) {
        *self.lock() = Recording::default();
    }

    /// Records that a host is tried.
    pub fn host(&self, host: &str) {
        let mut recording = self.lock();
        recording.unanswered.clear();
        recording.push(Kind::Host, None, plain(host));
    }

    /// Records a remark.
    pub fn remark(&self, text: &str) {
        self.lock().push(Kind::Remark, None, plain(text));
    }

    /// Records a command, which is about `recipient` or, if that is `None`, about the whole message.
    pub fn command(&self, text: &str, recipient: Option<&Address>) {
        let mut recording = self.lock();
        recording.make_room();
        let about = recipient.map(|recipient| recording.enter(recipient));
        recording.push(Kind::Command, about, plain(text.trim_end()));
        let index = recording.lines.len().saturating_sub(1);
        recording.unanswered.push_back(index);
    }

    /// Records the reply to the first command that was not answered yet, or the greeting.
    pub fn reply(&self, reply: &Reply) {
        let (lines, is_accepted) = (lines(reply), (200..300).contains(&reply.code()));
        let mut recording = self.lock();
        recording.size += lines.iter().map(String::len).sum::<usize>();
        let answered = recording.unanswered.pop_front();
        match answered.and_then(|index| recording.lines.get_mut(index)) {
            Some(command) => {
                command.replies.extend(lines);
                command.is_accepted = is_accepted && command.line.about.is_some();
            }
            None => lines.into_iter().for_each(|line| recording.push(Kind::Reply, None, line)),
        }
    }

    /// Records a reply of a mail store to the content, which is about one recipient.
    pub fn reply_about(&self, reply: &Reply, recipient: &Address) {
        let lines = lines(reply);
        let mut recording = self.lock();
        recording.unanswered.clear();
        recording.make_room();
        let about = Some(recording.index_of(recipient));
        lines.into_iter().for_each(|line| recording.push(Kind::Reply, about, line));
    }

    /// Ends the recording, and returns the dialogue with `destination`, at `time`.
    pub fn take(&self, destination: String, time: u64) -> Dialogue {
        let Recording { lines, recipients, left_out, .. } = std::mem::take(&mut *self.lock());
        let omission = (left_out > 0).then(|| Line { kind: Kind::Remark, about: None, text: omitted(left_out) });
        let with_replies = |recorded: Recorded| {
            let about = recorded.line.about;
            let replies = recorded.replies.into_iter().map(move |text| Line { kind: Kind::Reply, about, text });
            std::iter::once(recorded.line).chain(replies)
        };
        let lines = omission.into_iter().chain(lines.into_iter().flat_map(with_replies)).collect();
        Dialogue { time, destination, lines, recipients }
    }
}

/// The remark that lines were left out.
pub(super) fn omitted(count: usize) -> String {
    if count == 1 { "1 line is left out".to_owned() } else { format!("{count} lines are left out") }
}

impl Recording {
    fn push(&mut self, kind: Kind, about: Option<u32>, text: String) {
        self.size += text.len();
        self.lines.push(Recorded { line: Line { kind, about, text }, replies: Vec::new(), is_accepted: false });
    }

    /// Enters a recipient, and returns its index.
    fn enter(&mut self, recipient: &Address) -> u32 {
        self.recipients.push(recipient.to_string().into());
        u32::try_from(self.recipients.len() - 1).unwrap_or(u32::MAX)
    }

    /// The index of a recipient to whom a command has referred. A mail store replies in the order of
    /// the commands, so the search begins after the last recipient that was found.
    fn index_of(&mut self, recipient: &Address) -> u32 {
        let (recipient, count) = (recipient.to_string(), self.recipients.len());
        let order = (self.last_found..count).chain(0..self.last_found.min(count));
        let found =
            order.into_iter().find(|index| self.recipients.get(*index).is_some_and(|known| **known == *recipient));
        self.last_found = found.unwrap_or(count);
        if found.is_none() {
            self.recipients.push(recipient.into());
        }
        u32::try_from(self.last_found).unwrap_or(u32::MAX)
    }

    /// If there are too many lines, leaves out those about accepted recipients, and then the oldest
    /// ones. Lines whose reply is still awaited stay.
    fn make_room(&mut self) {
        if self.size <= MAX_TEXT || !self.unanswered.is_empty() {
            return;
        }
        let before = self.lines.len();
        self.lines.retain(|recorded| !recorded.is_accepted);
        let mut size: usize = self.lines.iter().map(Recorded::size).sum();
        let mut first = 0;
        while size > MAX_TEXT / 2 {
            size -= self.lines.get(first).map_or(size, Recorded::size);
            first += 1;
        }
        // The line that names the host stays, so that it is known whose replies the others are.
        let host =
            self.lines.get(..first).and_then(|left_out| left_out.iter().rposition(|r| r.line.kind == Kind::Host));
        if let Some(host) = host {
            first -= 1;
            self.lines.swap(host, first);
        }
        self.lines.drain(..first);
        self.left_out += before - self.lines.len();
        self.size = self.lines.iter().map(Recorded::size).sum();
    }
}

/// The lines of a reply, each with its code.
fn lines(reply: &Reply) -> Vec<String> {
    let mut written = Vec::new();
    reply.write_to(&mut written);
    let written = String::from_utf8_lossy(&written);
    let mut lines: Vec<String> = written.lines().take(MAX_REPLY_LINES + 1).map(plain).collect();
    if lines.len() > MAX_REPLY_LINES {
        lines.truncate(MAX_REPLY_LINES);
        lines.push("...".to_owned());
    }
    lines
}

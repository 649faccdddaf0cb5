//! Receives a message: one [`Incoming`] takes the message from its first byte to the commit.
//!
//! An [`Incoming`] takes the text in pieces, with lines ending in LF, and records flaws and errors.
//! The reply is decided at the end. The value borrows nothing from the session and depends on no
//! command, so that it can be kept from one command to the next.

use std::io;

use memchr::{memchr, memchr_iter};

use super::changes::Changes;
use super::submission;
use crate::envelope::{Envelope, Folder};
use crate::policy::message::Message;
use crate::policy::{self, Facts, Verdict};
use crate::reply::{self, Reply};
use crate::spool::{Draft, EntryName, NewEntry, QueueId};
use crate::users::Mailbox;

/// A message that is being received.
#[derive(Debug)]
pub struct Incoming {
    draft: Draft,
    /// The mailbox of the only recipient, if the file can be renamed into it.
    mailbox: Option<Mailbox>,
    changes: Changes,
    /// The size limit in octets, on the wire.
    limit: u64,
    size: u64,
    has_bare_newline: bool,
    has_nul: bool,
    /// The first error from the spool. After an error nothing more is written.
    error: Option<io::Error>,
}

/// The facts that a decision about a complete message needs.
pub struct Ending<'a> {
    /// The sender and the recipients.
    pub envelope: &'a Envelope,
    /// If the message is held: the reason.
    pub hold: Option<&'a str>,
    /// The folder of the recipients' Maildirs that the message goes into; `None` for the inbox.
    pub folder: Option<&'a Folder>,
    /// The facts about the client.
    pub facts: Facts<'a>,
    /// Turns a verdict into a result. The error is the reply of a refusal.
    pub apply: &'a dyn Fn(Verdict) -> Result<(), Reply>,
}

impl Incoming {
    /// A message before its first byte. The caller must have called [`Draft::expect`] with the
    /// message's envelope.
    pub fn new(draft: Draft, mailbox: Option<Mailbox>, changes: Changes, limit: u64) -> Self {
        Self { draft, mailbox, changes, limit, size: 0, has_bare_newline: false, has_nul: false, error: None }
    }

    /// The queue id of the message.
    pub fn id(&self) -> QueueId {
        self.draft.id()
    }

    /// The size on the wire so far: with CR LF, without the dots that were put before dots
    /// (RFC 1870 5).
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Takes the next piece of the text. A message that will be rejected is not written any more.
    pub fn take(&mut self, text: &[u8]) {
        self.size += (text.len() + memchr_iter(b'\n', text).count()) as u64;
        self.has_nul |= memchr(0, text).is_some();
        let is_rejected = self.has_bare_newline || self.has_nul || self.size > self.limit;
        if !is_rejected && self.error.is_none() {
            self.error = self.changes.take(text, &mut self.draft).err();
        }
    }

    /// Records that the message has a CR without LF, or an LF without CR. The text that
    /// [`Incoming::take`] gets does not show it.
    pub fn note_bare_newline(&mut self) {
        self.has_bare_newline = true;
    }

    /// Commits the message. Returns the entry, and the mailbox that it can be renamed into.
    ///
    /// # Errors
    /// The reply that rejects the message. Nothing of the message is then kept.
    pub fn end(mut self, ending: &Ending<'_>) -> Result<(EntryName, Option<Mailbox>), Reply> {
        (ending.apply)(policy::message::precheck(&Message {
            has_bare_newline: self.has_bare_newline,
            has_nul: self.has_nul,
            size: self.size,
            max_size: self.limit,
        }))?;
        let error = self.error.take().or_else(|| self.changes.end(&mut self.draft).err());
        if let Some(refusal) = self.changes.refusal() {
            return Err(submission::refused(refusal));
        }
        let recipients = &ending.envelope.recipients;
        let trace = self.changes.trace(recipients.iter().map(|recipient| &recipient.address));
        (ending.apply)(policy::message::check(&ending.facts, &trace))?;
        let mailbox =
            self.mailbox.filter(|_| recipients.len() == 1 && ending.hold.is_none() && ending.folder.is_none());
        let entry = NewEntry {
            envelope: ending.envelope,
            is_direct: mailbox.is_some(),
            hold: ending.hold,
            folder: ending.folder,
            prepend: self.changes.prepended(),
        };
        let kept = error.map_or_else(|| self.draft.commit(&entry), Err);
        kept.map(|name| (name, mailbox)).map_err(|e| storage_error(&e))
    }
}

/// Logs an error of the spool, and returns the reply, which is always temporary.
pub fn storage_error(error: &io::Error) -> Reply {
    ::log::error!("spool: store a message: {error}");
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::ReadOnlyFilesystem => {
            reply::failure::no_storage()
        }
        _ => reply::failure::local_error(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message that borrows nothing can be kept between two commands.
    #[test]
    fn a_message_that_is_being_received_borrows_nothing() {
        fn is_independent<T: Send + std::fmt::Debug + 'static>() {}
        is_independent::<Incoming>();
    }
}

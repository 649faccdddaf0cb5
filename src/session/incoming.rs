//! Receives a message: one [`Incoming`] takes the message from its first byte to the commit.
//!
//! An [`Incoming`] takes the text in pieces, with lines ending in LF, and records flaws and errors.
//! The reply is decided at the end. The value borrows nothing from the session and depends on no
//! command, so that it can be kept from one command to the next.

use std::io::{self, Read};

use memchr::{memchr, memchr_iter};

use super::authenticity::Collector;
use super::changes::Changes;
use super::submission;
use crate::address::Address;
use crate::config::Limit;
use crate::envelope::{Envelope, Folder};
use crate::policy::message::Message;
use crate::policy::{self, Facts, Verdict};
use crate::reply::{self, Reply};
use crate::smtp::chunk::ChunkReader;
use crate::spool::{Draft, EntryName, NewEntry, QueueId};
use crate::users::Mailbox;

/// A message that is being received.
#[derive(Debug)]
pub struct Incoming {
    draft: Draft,
    /// The mailbox of the only recipient, if the message's file can be renamed into it.
    mailbox: Option<Mailbox>,
    changes: Changes,
    /// Collects what the checks of a message need, if its client may not relay.
    collector: Option<Collector>,
    /// Makes lines of a binary body, for the collector.
    lines: ChunkReader,
    /// The limit of the size on the wire, in octets.
    limit: Limit<u64>,
    size: u64,
    has_bare_newline: bool,
    has_nul: bool,
    /// The first error from the spool. After an error nothing more is written.
    error: Option<io::Error>,
}

/// A message whose text has ended, and which [`Incoming::end`] has not rejected.
#[derive(Debug)]
pub struct Complete {
    draft: Draft,
    mailbox: Option<Mailbox>,
    changes: Changes,
}

impl Incoming {
    /// Begins a message. The caller must have called [`Draft::expect`] with the message's envelope.
    pub fn new(
        draft: Draft,
        mailbox: Option<Mailbox>,
        changes: Changes,
        collector: Option<Collector>,
        limit: Limit<u64>,
    ) -> Self {
        Self {
            draft,
            mailbox,
            changes,
            collector,
            lines: ChunkReader::new(false),
            limit,
            size: 0,
            has_bare_newline: false,
            has_nul: false,
            error: None,
        }
    }

    /// Returns the queue id of the message.
    pub fn id(&self) -> QueueId {
        self.draft.id()
    }

    /// Returns the size on the wire so far, in octets. Lines end in CR LF, and the dots that the
    /// client added for transparency are not counted (RFC 1870 5).
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns the Message-ID, as far as the header has arrived.
    pub fn message_id(&self) -> Option<String> {
        self.changes.message_id()
    }

    /// Takes the next piece of the text. A message that will be rejected is not written any more.
    pub fn take(&mut self, text: &[u8]) {
        self.size += (text.len() + memchr_iter(b'\n', text).count()) as u64;
        self.has_nul |= memchr(0, text).is_some();
        if self.is_written() {
            if let Some(collector) = &mut self.collector {
                collector.feed(text);
            }
            self.error = self.changes.take(text, &mut self.draft).err();
        }
    }

    /// Takes the next piece of a body with `BODY=BINARYMIME`, which need not consist of lines, and
    /// may contain any octets.
    pub fn take_binary(&mut self, body: &[u8]) {
        self.size += body.len() as u64;
        if !body.is_empty() && self.is_written() {
            if let Some(collector) = &mut self.collector {
                let mut text = Vec::with_capacity(body.len());
                self.lines.feed(body, &mut text);
                collector.feed(&text);
            }
            self.error = self.changes.take(body, &mut self.draft).err();
        }
    }

    /// Whether more of the message is written: it is not known yet that it will be rejected.
    fn is_written(&self) -> bool {
        !(self.has_bare_newline || self.has_nul || self.size > self.limit.value || self.error.is_some())
    }

    /// Records that the message has a CR without LF, or an LF without CR. The text that
    /// [`Incoming::take`] gets does not show this flaw.
    pub fn note_bare_newline(&mut self) {
        self.has_bare_newline = true;
    }

    /// Checks the form of the message so far. `apply` turns a verdict into a result.
    ///
    /// # Errors
    /// The reply to a message that will be rejected, whatever follows.
    pub fn check(&mut self, apply: impl Fn(Verdict) -> Result<(), Reply>) -> Result<(), Reply> {
        apply(policy::message::precheck(&Message {
            has_bare_newline: self.has_bare_newline,
            has_nul: self.has_nul,
            size: self.size,
            max_size: self.limit,
        }))?;
        self.error.take().map_or(Ok(()), |e| Err(storage_error(&e)))
    }

    /// Ends the message, and checks its form and its trace fields. `apply` turns a verdict into a
    /// result, whose error is the reply of a refusal.
    ///
    /// # Errors
    /// The reply that rejects the message. Nothing of the message is then kept.
    pub fn end(
        mut self,
        envelope: &Envelope,
        facts: &Facts<'_>,
        apply: impl Fn(Verdict) -> Result<(), Reply>,
    ) -> Result<(Complete, Option<Collector>), Reply> {
        let error = self.error.take();
        self.check(&apply)?;
        let error = error.or_else(|| self.changes.end(&mut self.draft).err());
        if let Some(refusal) = self.changes.refusal() {
            return Err(submission::refused(refusal));
        }
        let trace = self.changes.trace(envelope.recipients.iter().map(|recipient| &recipient.address));
        apply(policy::message::check(facts, &trace))?;
        let Self { draft, mailbox, changes, collector, .. } = self;
        error.map_or(Ok((Complete { draft, mailbox, changes }, collector)), |e| Err(storage_error(&e)))
    }
}

impl Complete {
    /// Returns the queue id of the message.
    pub fn id(&self) -> QueueId {
        self.draft.id()
    }

    /// Returns the Message-ID that the client or this server has put into the header.
    pub fn message_id(&self) -> Option<String> {
        self.changes.message_id()
    }

    /// Whether the header has the field `TLS-Required: No` (RFC 8689 3).
    pub fn waives_tls(&self) -> bool {
        self.changes.waives_tls()
    }

    /// The marks of copies in the header.
    pub fn marks(&self) -> impl Iterator<Item = &str> {
        self.changes.marks()
    }

    /// Reads the content, without the lines that are put before it.
    pub fn content(&self) -> impl Read + '_ {
        self.draft.content()
    }

    /// Changes the text as filters have decided.
    ///
    /// # Errors
    /// Those of the spool.
    #[cfg(feature = "filters")]
    pub fn change(&mut self, changes: &crate::filters::Changes) -> io::Result<()> {
        if changes.changes_text() { self.draft.rewrite(|from, to| changes.apply(from, to)) } else { Ok(()) }
    }

    /// Whether the message was delivered to an address before, as its Delivered-To fields show.
    pub fn was_delivered_to(&self, address: &Address) -> bool {
        self.changes.trace(std::iter::once(address)).was_delivered
    }

    /// Forgets the mailbox into which the message's file could be renamed, because the recipients
    /// have changed.
    pub fn forget_mailbox(&mut self) {
        self.mailbox = None;
    }

    /// Puts lines above those that already stand before the message.
    pub fn prepend(&mut self, lines: &str) {
        self.changes.prepend(lines);
    }

    /// Puts lines below those that already stand before the message, and so directly above the
    /// message.
    pub fn append(&mut self, lines: &str) {
        self.changes.append(lines);
    }

    /// The size of the message with the fields that stand before it, in bytes, as the spool stores it.
    pub fn size(&self) -> u64 {
        self.draft.size() + self.changes.prepended().len() as u64
    }

    /// Commits the message. Returns the name of the entry, and the mailbox into which the entry's
    /// file can be renamed, if there is one.
    ///
    /// # Errors
    /// The reply that rejects the message. Nothing of the message is then kept.
    pub fn commit(
        self,
        envelope: &Envelope,
        hold: Option<&str>,
        folder: Option<&Folder>,
    ) -> Result<(EntryName, Option<Mailbox>), Reply> {
        let is_inbox = hold.is_none() && folder.is_none();
        // The header may have shown that the entry cannot be direct.
        let mailbox = self.mailbox.filter(|_| NewEntry::can_be_direct(envelope) && is_inbox);
        let is_direct = mailbox.is_some();
        let entry = NewEntry { envelope, is_direct, hold, folder, prepend: self.changes.prepended() };
        self.draft.commit(&entry).map(|name| (name, mailbox)).map_err(|e| storage_error(&e))
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

//! Delivers one message to one Maildir, exactly once.
//!
//! The file appears in `new/` complete or not at all, as maildir(5) requires. A direct entry, whose
//! file can become the mailbox's file unchanged, is moved there by one rename or handed over
//! (`handover`). Otherwise a copy is written to `tmp/`, synced, recorded in the entry as prepared,
//! and renamed. The file's name is made from the queue id and the recipient's number, so that after
//! a crash the recipient's record and the mailbox together show what happened. If in doubt, the
//! message is delivered twice rather than lost.
//!
//! After an error in the mailbox the message is deferred. This module neither chooses the mailbox
//! nor records the recipient as delivered.

use std::io;
use std::path::Path;

use super::unexpected_response;
use crate::deliver::Begun;
use crate::deliver::agent::maildir::At;
use crate::deliver::agent::{AgentError, AgentPool, Identity, Owner, Part, Request, Response};
use crate::deliver::quota::Room;
use crate::outcome::Outcome;
use crate::reply::Status;
use crate::spool::{Entry, EntryName, QueueId, RecipientEntry, Spool, State};

/// The age in seconds beyond which a prepared copy may have been removed from `tmp/` by its
/// owner, or by a clean-up. A younger copy that is missing there must have been renamed.
const REMOVABLE_AFTER: u64 = 86_400;

/// A Maildir, and what is needed to deliver to it.
#[derive(Clone, Copy)]
pub struct Maildir<'a> {
    /// The directory that holds `tmp`, `new` and `cur`.
    pub path: &'a Path,
    /// This host's name, for the names of files.
    pub hostname: &'a str,
    /// The owner, with whose rights the Maildir is accessed.
    pub owner: &'a Owner,
    /// The agents that access the Maildir.
    pub agents: &'a AgentPool,
}

/// A copy in `tmp/`, complete and durable.
#[derive(Debug)]
pub struct Prepared {
    name: String,
    /// The room for it, if the Maildir has a quota and the copy is new.
    pub(super) room: Option<Room>,
}

impl Maildir<'_> {
    /// If a direct entry is in the mailbox already, removes the entry from the spool: after a power
    /// cut btrfs may have both the old and the new name of a renamed file. Returns `None` if the
    /// entry is not in the mailbox.
    pub fn finish_move(&self, entry: &Entry) -> Option<Outcome> {
        let prefix = file_prefix(entry.id(), 0);
        let mailbox = At(self.path);
        entry.has_name_among(mailbox.delivered(&prefix)).then(|| match entry.unlink() {
            Ok(()) => self.delivered(),
            Err(e) => Outcome::from_io("remove a delivered message from the spool", &e),
        })
    }

    /// Delivers a direct entry by renaming it into the mailbox. Returns `None` if this mailbox does
    /// not allow that and the message must be copied.
    pub fn move_in(&self, spool: &Spool, entry: EntryName) -> Option<Outcome> {
        let target = self.path.join("new").join(self.file_name(entry.id, 0, entry.size));
        let rename = || {
            spool.move_into(entry, &target).map_err(|e| AgentError::new(format!("rename into {}", target.display()), e))
        };
        let mut result = At(self.path).settle().and_then(|()| rename());
        if result.as_ref().is_err_and(|failed| failed.error.kind() == io::ErrorKind::NotFound) {
            result = At(self.path).make().and_then(|()| rename());
        }
        match result {
            Ok(()) => Some(self.delivered()),
            // The mailbox is on another file system, or in a place where only an agent can work.
            Err(failed)
                if matches!(failed.error.kind(), io::ErrorKind::CrossesDevices | io::ErrorKind::PermissionDenied) =>
            {
                spool.note_not_renameable(self.path);
                None
            }
            Err(failed) => Some(self.failed(&failed)),
        }
    }

    /// Prepares a copy of a queued entry: writes and syncs `tmp/NAME`, and records that in the
    /// entry. The caller must sync the record with [`Entry::sync_records`]. `now` is in seconds
    /// since 1970.
    ///
    /// # Errors
    /// If the attempt fails: its outcome.
    pub fn prepare(
        &self,
        entry: &mut Entry,
        addressee: &RecipientEntry,
        now: u64,
    ) -> Result<Begun<Prepared>, Box<Outcome>> {
        match addressee.record.state {
            State::Prepared { born, inode } => self.recover(entry, addressee, Identity { born, inode }, now),
            _ => self.write_copy(entry, addressee, now).map(Begun::Ready),
        }
    }

    /// Moves a prepared copy to `new/`. The record of the copy must already be synced.
    pub fn reveal(&self, copy: Prepared) -> Outcome {
        let request = Request::Reveal { mailbox: self.path.to_owned(), name: copy.name };
        match self.agents.perform(self.owner, &request, None) {
            Ok(_) => {
                if let Some(room) = copy.room {
                    room.confirm(self.agents, self.owner);
                }
                self.delivered()
            }
            Err(failed) => self.failed(&failed),
        }
    }

    pub(super) fn delivered(&self) -> Outcome {
        Outcome::delivered("").at(self.path.to_string_lossy())
    }

    fn write_copy(&self, entry: &mut Entry, addressee: &RecipientEntry, now: u64) -> Result<Prepared, Box<Outcome>> {
        let head = entry.delivery_head(addressee);
        let name = self.file_name(entry.id(), addressee.number, head.len() as u64 + entry.content_size());
        let content = Part { at: entry.content_start(), size: entry.content_size() };
        let request = Request::Copy { mailbox: self.path.to_owned(), name: name.clone(), head, content };
        let file = entry.file_for(self.owner == &Owner::Server).map_err(|e| not_read(&e))?;
        match self.agents.perform(self.owner, &request, Some(&file)) {
            // If recording fails, the record may or may not be on disk, so the file stays in `tmp/`
            // for the next attempt.
            Ok(Response::Copied(identity)) => self.record(entry, addressee.number, identity, now)?,
            Ok(_) => return Err(Box::new(self.unexpected())),
            Err(failed) => return Err(Box::new(self.failed(&failed))),
        }
        Ok(Prepared { name, room: None })
    }

    /// Records in the entry that a complete copy is in `tmp/`.
    fn record(&self, entry: &mut Entry, number: usize, identity: Identity, now: u64) -> Result<(), Box<Outcome>> {
        entry.prepare(number, identity.born, identity.inode, now).map_err(|e| Box::new(not_noted(&e)))
    }

    /// Continues after a crash with a copy that was recorded as prepared.
    fn recover(
        &self,
        entry: &mut Entry,
        addressee: &RecipientEntry,
        identity: Identity,
        now: u64,
    ) -> Result<Begun<Prepared>, Box<Outcome>> {
        let prefix = file_prefix(entry.id(), addressee.number);
        let is_old = now.saturating_sub(addressee.record.last) >= REMOVABLE_AFTER;
        let request = Request::Recover { mailbox: self.path.to_owned(), prefix, identity, is_old };
        match self.agents.perform(self.owner, &request, None) {
            Ok(Response::Done) => Ok(Begun::Over(self.delivered())),
            Ok(Response::Waiting(name)) => {
                // After a failed fsync it is unknown whether the record is on disk, so the copy is
                // recorded once more.
                self.record(entry, addressee.number, identity, addressee.record.last)?;
                Ok(Begun::Ready(Prepared { name, room: None }))
            }
            Ok(Response::Elsewhere) => {
                let temporary = self.path.join("tmp");
                let why = format!("{}: not the directory in which the message was prepared", temporary.display());
                Err(Box::new(Outcome::deferred(Status(4, 2, 0), why).at(self.path.to_string_lossy())))
            }
            Ok(Response::Lost) => {
                let (id, address) = (entry.id(), &addressee.recipient.address);
                ::log::warn!("{id}: it is unknown whether <{address}> has the message: delivered again");
                // The record is removed first: after another crash, a partial second copy must not
                // be mistaken for the first copy.
                entry
                    .forget_copy(addressee.number)
                    .map_err(|e| Outcome::from_io("note in the spool that a copy is gone", &e))?;
                self.write_copy(entry, addressee, now).map(Begun::Ready)
            }
            Ok(_) => Err(Box::new(self.unexpected())),
            Err(failed) => Err(Box::new(self.failed(&failed))),
        }
    }

    /// Returns the name of a file in the Maildir: `seconds.id-recipient.host,S=size`.
    pub(super) fn file_name(&self, entry: QueueId, recipient: usize, size: u64) -> String {
        // maildir(5) defines these escapes.
        let host = self.hostname.replace('/', "\\057").replace(':', "\\072");
        format!("{}{host},S={size}", file_prefix(entry, recipient))
    }

    pub(super) fn failed(&self, failed: &AgentError) -> Outcome {
        Outcome::from_io(&failed.doing, &failed.error).at(self.path.to_string_lossy())
    }

    fn unexpected(&self) -> Outcome {
        unexpected_response().at(self.path.to_string_lossy())
    }
}

fn not_read(error: &io::Error) -> Outcome {
    Outcome::from_io("read the message in the spool", error)
}

/// The outcome if a prepared copy cannot be recorded in the entry.
pub fn not_noted(error: &io::Error) -> Outcome {
    Outcome::from_io("record a prepared delivery in the spool", error)
}

/// The beginning of a file's name. Unlike the whole name, it does not depend on the hostname.
pub(super) fn file_prefix(entry: QueueId, recipient: usize) -> String {
    format!("{}.{entry}-{recipient}.", entry.seconds())
}

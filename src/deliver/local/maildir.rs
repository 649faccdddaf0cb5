//! Deliver one message to one Maildir, exactly once.
//!
//! The file appears in `new/` complete or not at all, as maildir(5) asks: by one
//! rename of a bare entry (`handover`: one link), or as a copy that is written to `tmp/`, synced, noted as
//! prepared in the entry, and renamed. Its name is fixed by entry and recipient,
//! so that after a crash the recipient's record and the mailbox together say
//! what happened; in doubt the message comes twice, never not at all. AgentError with
//! the mailbox defers. Does not choose the mailbox and does not settle the
//! recipient: the worker does.

use std::io;
use std::path::Path;

use crate::deliver::agent::maildir::At;
use crate::deliver::agent::{AgentError, AgentPool, Identity, Owner, Part, Request, Response};
use crate::outcome::Outcome;
use crate::reply::Status;
use crate::spool::{Entry, EntryName, QueueId, RecipientEntry, Spool, State};

/// After this time a prepared copy that is gone from `tmp/` is looked for: its
/// owner, or a clean-up, may have removed it.
const SURE: u64 = 86_400;

/// A Maildir and how files are named in it.
#[derive(Clone, Copy)]
pub struct Maildir<'a> {
    /// The directory that holds `tmp`, `new` and `cur`.
    pub path: &'a Path,
    /// This host's name, in the names of files.
    pub hostname: &'a str,
    /// Whose it is.
    pub owner: &'a Owner,
    /// What works there.
    pub agents: &'a AgentPool,
}

/// A copy in `tmp/`, whole and durable.
#[derive(Debug)]
pub struct Prepared {
    name: String,
}

impl Maildir<'_> {
    /// A bare entry that is in the mailbox already: btrfs can leave both names of a
    /// rename when the power goes. It loses its name in the spool.
    pub fn has(&self, entry: &Entry) -> Option<Outcome> {
        let prefix = file_prefix(entry.id(), 0);
        let here = At(self.path);
        entry.has_name_among(here.seen(&prefix)).then(|| match entry.unlink() {
            Ok(()) => self.delivered(),
            Err(e) => Outcome::from_io("remove a delivered message from the spool", &e),
        })
    }

    /// Delivers a bare entry by making it the mailbox's: `None` when that cannot
    /// be, and the entry must be copied.
    pub fn take(&self, spool: &Spool, entry: EntryName) -> Option<Outcome> {
        let target = self.path.join("new").join(self.file_name(entry.id, 0, entry.size));
        let move_there = || {
            spool.move_into(entry, &target).map_err(|e| AgentError::new(format!("rename into {}", target.display()), e))
        };
        let mut result = At(self.path).settle().and_then(|()| move_there());
        if result.as_ref().is_err_and(|trouble| trouble.error.kind() == io::ErrorKind::NotFound) {
            result = At(self.path).make().and_then(|()| move_there());
        }
        match result {
            Ok(()) => Some(self.delivered()),
            // Another file system, or a place where only an agent can work: see `AgentPool`.
            Err(trouble)
                if matches!(trouble.error.kind(), io::ErrorKind::CrossesDevices | io::ErrorKind::PermissionDenied) =>
            {
                spool.note_not_renameable(self.path);
                None
            }
            Err(trouble) => Some(self.trouble(&trouble)),
        }
    }

    /// Prepares a copy of a full entry for the recipient in `slot`: `tmp/N` is written and
    /// synced, and the entry says so, yet to be synced by [`Entry::sync_records`].
    /// `now` is in seconds since 1970. What is over already has its outcome.
    pub fn prepare(&self, entry: &mut Entry, slot: &RecipientEntry, now: u64) -> Result<Prepared, Box<Outcome>> {
        match slot.record.state {
            State::Prepared { born, inode } => self.recover(entry, slot, Identity { born, inode }, now),
            _ => self.write_copy(entry, slot, now),
        }
    }

    /// Puts a copy that was prepared, and is so on the disk, where its owner sees it.
    pub fn reveal(&self, copy: &Prepared) -> Outcome {
        let request = Request::Reveal { mailbox: self.path.to_owned(), name: copy.name.clone() };
        match self.agents.perform(self.owner, &request, None) {
            Ok(_) => self.delivered(),
            Err(trouble) => self.trouble(&trouble),
        }
    }

    pub(super) fn delivered(&self) -> Outcome {
        Outcome::delivered("").at(self.path.to_string_lossy())
    }

    fn write_copy(&self, entry: &mut Entry, slot: &RecipientEntry, now: u64) -> Result<Prepared, Box<Outcome>> {
        let head = entry.delivery_head(slot);
        let name = self.file_name(entry.id(), slot.number, head.len() as u64 + entry.content_size());
        let content = Part { at: entry.content_start(), size: entry.content_size() };
        let request = Request::Copy { mailbox: self.path.to_owned(), name: name.clone(), head, content };
        let file = entry.file_for(self.owner == &Owner::Server).map_err(|e| not_read(&e))?;
        match self.agents.perform(self.owner, &request, Some(&file)) {
            // If this fails the record may say either: the file stays, for the next attempt to find.
            Ok(Response::Copied(identity)) => self.note(entry, slot.number, identity, now)?,
            Ok(_) => return Err(Box::new(self.nonsense())),
            Err(trouble) => return Err(Box::new(self.trouble(&trouble))),
        }
        Ok(Prepared { name })
    }

    fn note(&self, entry: &mut Entry, number: usize, identity: Identity, now: u64) -> Result<(), Box<Outcome>> {
        entry.prepare(number, identity.born, identity.inode, now).map_err(|e| Box::new(not_noted(&e)))
    }

    /// After a crash: what became of a copy that was noted as prepared.
    fn recover(
        &self,
        entry: &mut Entry,
        slot: &RecipientEntry,
        identity: Identity,
        now: u64,
    ) -> Result<Prepared, Box<Outcome>> {
        let prefix = file_prefix(entry.id(), slot.number);
        let is_old = now.saturating_sub(slot.record.last) >= SURE;
        let request = Request::Recover { mailbox: self.path.to_owned(), prefix, identity, is_old };
        match self.agents.perform(self.owner, &request, None) {
            Ok(Response::Done) => Err(Box::new(self.delivered())),
            Ok(Response::Waiting(name)) => {
                // Written once more: if that failed the last time, no fsync tells whether it is on the disk.
                self.note(entry, slot.number, identity, slot.record.last)?;
                Ok(Prepared { name })
            }
            Ok(Response::Elsewhere) => {
                let temporary = self.path.join("tmp");
                let why = format!("{}: not the directory in which the message was prepared", temporary.display());
                Err(Box::new(Outcome::deferred(Status(4, 2, 0), why).at(self.path.to_string_lossy())))
            }
            Ok(Response::Lost) => {
                let (id, address) = (entry.id(), &slot.recipient.address);
                ::log::warn!("{id}: whether <{address}> got it cannot be told: delivered again");
                // A crash must not take a part of the second copy for the first one.
                entry
                    .forget_copy(slot.number)
                    .map_err(|e| Outcome::from_io("note in the spool that a copy is gone", &e))?;
                self.write_copy(entry, slot, now)
            }
            Ok(_) => Err(Box::new(self.nonsense())),
            Err(trouble) => Err(Box::new(self.trouble(&trouble))),
        }
    }

    /// `seconds.id-recipient.host,S=bytes`.
    pub(super) fn file_name(&self, entry: QueueId, recipient: usize, size: u64) -> String {
        // As maildir(5) says.
        let host = self.hostname.replace('/', "\\057").replace(':', "\\072");
        format!("{}{host},S={size}", file_prefix(entry, recipient))
    }

    pub(super) fn trouble(&self, trouble: &AgentError) -> Outcome {
        Outcome::from_io(&trouble.doing, &trouble.error).at(self.path.to_string_lossy())
    }

    fn nonsense(&self) -> Outcome {
        Outcome::deferred(Status(4, 3, 0), "the agent does not answer what it was asked")
            .at(self.path.to_string_lossy())
    }
}

fn not_read(error: &io::Error) -> Outcome {
    Outcome::from_io("read the message in the spool", error)
}

/// The outcome if it cannot be noted that a copy is prepared.
pub fn not_noted(error: &io::Error) -> Outcome {
    Outcome::from_io("note a prepared delivery in the spool", error)
}

/// What a file's name begins with, whatever the host is called now.
pub(super) fn file_prefix(entry: QueueId, recipient: usize) -> String {
    format!("{}.{entry}-{recipient}.", entry.seconds())
}

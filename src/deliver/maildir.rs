//! Deliver one message to one Maildir, exactly once.
//!
//! The file appears in `new/` complete or not at all, as maildir(5) asks: by one
//! rename of a bare entry, or as a copy that is written to `tmp/`, synced, noted as
//! prepared in the entry, and renamed. Its name is fixed by entry and recipient,
//! so that after a crash the recipient's record and the mailbox together say
//! what happened; in doubt the message comes twice, never not at all. Trouble with
//! the mailbox defers. Does not choose the mailbox and does not settle the
//! recipient: the worker does.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use crate::outcome::Outcome;
use crate::reply::Status;
use crate::spool::{Entry, EntryName, QueueId, Slot, Spool, State};
use crate::sys::disk;

/// After this time a prepared copy that is gone from `tmp/` is looked for: its
/// owner, or a clean-up, may have removed it.
const SURE: u64 = 86_400;

/// A Maildir and how files are named in it.
#[derive(Debug, Clone, Copy)]
pub struct Maildir<'a> {
    /// The directory that holds `tmp`, `new` and `cur`.
    pub path: &'a Path,
    /// This host's name, in the names of files.
    pub hostname: &'a str,
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
        let seen = self.seen(file_prefix(entry.id(), 0));
        entry.is_also(seen).then(|| match entry.leave() {
            Ok(()) => self.delivered(),
            Err(e) => Outcome::from_io("remove a delivered message from the spool", &e),
        })
    }

    /// Delivers a bare entry by making it the mailbox's: `None` when that cannot
    /// be, and the entry must be copied.
    pub fn take(&self, spool: &Spool, entry: EntryName) -> Option<Outcome> {
        let target = self.path.join("new").join(self.file_name(entry.id, 0, entry.size));
        let mut result = spool.move_into(entry, &target);
        if result.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
            if let Err(outcome) = self.make() {
                return Some(*outcome);
            }
            result = spool.move_into(entry, &target);
        }
        match result {
            Ok(()) => Some(self.delivered()),
            Err(e) if matches!(e.kind(), io::ErrorKind::CrossesDevices | io::ErrorKind::PermissionDenied) => {
                spool.note_apart(self.path);
                None
            }
            Err(e) => Some(self.trouble("rename into", &target, &e)),
        }
    }

    /// Prepares a copy of a full entry for the recipient in `slot`: `tmp/N` is written and
    /// synced, and the entry says so, yet to be synced by [`Entry::sync_records`].
    /// `now` is in seconds since 1970. What is over already has its outcome.
    pub fn prepare(&self, entry: &mut Entry, slot: &Slot, now: u64) -> Result<Prepared, Box<Outcome>> {
        match slot.record.state {
            State::Prepared { born, inode } => self.recover(entry, slot, (born, inode), now),
            _ => self.write_copy(entry, slot, now),
        }
    }

    /// Puts a copy that was prepared, and is so on the disk, where its owner sees it.
    pub fn reveal(&self, copy: &Prepared) -> Outcome {
        match self.rename(&copy.name) {
            Ok(()) => self.delivered(),
            Err(outcome) => *outcome,
        }
    }

    fn delivered(&self) -> Outcome {
        Outcome::delivered("").at(self.path.to_string_lossy())
    }

    fn write_copy(&self, entry: &mut Entry, slot: &Slot, now: u64) -> Result<Prepared, Box<Outcome>> {
        let head = entry.delivery_head(slot);
        let size = head.len() as u64 + entry.content_size();
        let name = self.file_name(entry.id(), slot.number, size);
        let temporary = self.path.join("tmp").join(&name);
        self.write(entry, &temporary, &head).inspect_err(|_| {
            // Nothing points to it yet.
            let _ = disk::remove(&temporary);
        })?;
        let identity = self.identity().map_err(|e| self.trouble("look at", &self.path.join("tmp"), &e))?;
        // If this fails the record may say either: the file stays, for the next attempt to find.
        self.note(entry, slot.number, identity, now)?;
        Ok(Prepared { name })
    }

    fn note(&self, entry: &mut Entry, number: usize, identity: (u64, u64), now: u64) -> Result<(), Box<Outcome>> {
        entry.prepare(number, identity.0, identity.1, now).map_err(|e| Box::new(not_noted(&e)))
    }

    fn write(&self, entry: &Entry, path: &Path, head: &str) -> Result<(), Box<Outcome>> {
        let mut file = disk::create(path);
        match &file {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                self.make()?;
                file = disk::create(path);
            }
            // An attempt that a crash ended before it was noted.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                file = disk::remove(path).and_then(|()| disk::create(path));
            }
            _ => {}
        }
        let written = file.and_then(|file| {
            disk::write(&file, head.as_bytes())?;
            entry.copy_to(&file)?;
            disk::sync(&file)
        });
        written.map_err(|e| Box::new(self.trouble("write", path, &e)))
    }

    /// Renames `tmp/N` to `new/N`, durably.
    fn rename(&self, name: &str) -> Result<(), Box<Outcome>> {
        let (from, to) = (self.path.join("tmp").join(name), self.path.join("new").join(name));
        let mut renamed = disk::rename_new(&from, &to);
        if renamed.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
            // A mailbox that was made in part.
            self.make()?;
            renamed = disk::rename_new(&from, &to);
        }
        renamed.map_err(|e| self.trouble("rename into", &to, &e))?;
        self.sync()
    }

    /// Makes what its owner can see durable. An old name in `tmp/` may come back: it
    /// is nobody's then, or [`Maildir::recover`] finds it.
    fn sync(&self) -> Result<(), Box<Outcome>> {
        let directory = self.path.join("new");
        disk::sync_directory(&directory).map_err(|e| Box::new(self.trouble("sync", &directory, &e)))
    }

    /// After a crash: what became of a copy that was noted as prepared.
    fn recover(
        &self,
        entry: &mut Entry,
        slot: &Slot,
        identity: (u64, u64),
        now: u64,
    ) -> Result<Prepared, Box<Outcome>> {
        let over = |()| Err(Box::new(self.delivered()));
        let temporary = self.path.join("tmp");
        if self.identity().ok() != Some(identity) {
            let why = format!("{}: not the directory in which the message was prepared", temporary.display());
            return Err(Box::new(Outcome::deferred(Status(4, 2, 0), why).at(self.path.to_string_lossy())));
        }
        let prefix = file_prefix(entry.id(), slot.number);
        let find = |directory: &Path| find(directory, &prefix).map_err(|e| self.trouble("look through", directory, &e));
        if let Some(name) = find(&temporary)? {
            let path = temporary.join(&name);
            // Both names of a rename, as in `has`.
            let linked =
                fs::metadata(&path).is_ok_and(|copy| copy.nlink() > 1) && self.seen(prefix.clone()).next().is_some();
            if linked {
                disk::remove(&path).map_err(|e| Box::new(self.trouble("remove", &path, &e)))?;
                return self.sync().and_then(over);
            }
            // Written once more: if that failed the last time, no fsync tells whether it is on the disk.
            self.note(entry, slot.number, identity, slot.record.last)?;
            return Ok(Prepared { name });
        }
        if now.saturating_sub(slot.record.last) < SURE
            || find(&self.path.join("new"))?.is_some()
            || find(&self.path.join("cur"))?.is_some()
        {
            // The crash may have come before the rename was durable.
            return self.sync().and_then(over);
        }
        ::log::warn!("{}: whether <{}> got it cannot be told: delivered again", entry.id(), slot.recipient.address);
        // A crash must not take a part of the second copy for the first one.
        entry.forget(slot.number).map_err(|e| Outcome::from_io("note in the spool that a copy is gone", &e))?;
        self.write_copy(entry, slot, now)
    }

    /// What its owner can see of a delivery.
    fn seen(&self, prefix: String) -> impl Iterator<Item = PathBuf> {
        let directories = ["new", "cur"].map(|directory| self.path.join(directory)).into_iter();
        directories.filter_map(move |directory| Some(directory.join(find(&directory, &prefix).ok()??)))
    }

    /// Makes the directories that are missing; last the one that every delivery needs,
    /// so that the next one completes what a crash leaves.
    fn make(&self) -> Result<(), Box<Outcome>> {
        ["cur", "tmp", "new"].into_iter().try_for_each(|directory| {
            let path = self.path.join(directory);
            // What could not be made is the first one that is not there.
            let failed = |e| Box::new(self.trouble("mkdir", first_missing(&path), &e));
            disk::make_directory(&path).map_err(failed)
        })
    }

    /// What tells this `tmp/` from one that is there in its place, such as below a
    /// mount that failed. The number of its device would not do: it is another one
    /// after many a restart.
    fn identity(&self) -> io::Result<(u64, u64)> {
        let metadata = fs::metadata(self.path.join("tmp"))?;
        // Not every file system knows.
        let born = metadata.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
        Ok((born.and_then(|born| u64::try_from(born.as_nanos()).ok()).unwrap_or(0), metadata.ino()))
    }

    /// `seconds.id-recipient.host,S=bytes`.
    fn file_name(&self, entry: QueueId, recipient: usize, size: u64) -> String {
        // As maildir(5) says.
        let host = self.hostname.replace('/', "\\057").replace(':', "\\072");
        format!("{}{host},S={size}", file_prefix(entry, recipient))
    }

    fn trouble(&self, doing: &str, path: &Path, error: &io::Error) -> Outcome {
        Outcome::from_io(&format!("{doing} {}", path.display()), error).at(self.path.to_string_lossy())
    }
}

/// The uppermost directory on the way to `path` that is missing.
fn first_missing(path: &Path) -> &Path {
    path.ancestors().take_while(|directory| !directory.exists()).last().unwrap_or(path)
}

/// The outcome if it cannot be noted that a copy is prepared.
pub fn not_noted(error: &io::Error) -> Outcome {
    Outcome::from_io("note a prepared delivery in the spool", error)
}

/// What a file's name begins with, whatever the host is called now.
fn file_prefix(entry: QueueId, recipient: usize) -> String {
    format!("{}.{entry}-{recipient}.", entry.seconds())
}

fn find(directory: &Path, prefix: &str) -> io::Result<Option<String>> {
    for file in fs::read_dir(directory)? {
        if let Some(name) = file?.file_name().to_str().filter(|name| name.starts_with(prefix)) {
            return Ok(Some(name.to_owned()));
        }
    }
    Ok(None)
}

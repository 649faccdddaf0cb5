//! A bare entry becomes a file of the mailbox by a rename, or is rewritten as a full one.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use super::head;
use super::{Entry, EntryName, Place, Spool, Unusable, open};
use crate::envelope::Envelope;
use crate::sys::disk;

/// Mailboxes that are remembered as out of reach.
const MAX_APART: usize = 10_000;

impl Spool {
    /// Whether a message could be renamed from here into the mailbox at `path`, which may
    /// be yet to be made.
    pub fn is_near(&self, path: &Path) -> bool {
        let device = path.ancestors().find_map(|p| fs::metadata(p).ok()).map(|m| m.dev());
        device == Some(self.device) && !self.apart.read().unwrap_or_else(PoisonError::into_inner).contains(path)
    }

    /// Notes that nothing can be renamed into a mailbox, whatever its device says: a mount of
    /// its own (bind, container), or a quota by project. The next message is written to be copied.
    pub fn note_apart(&self, mailbox: &Path) {
        let mut apart = self.apart.write().unwrap_or_else(PoisonError::into_inner);
        if apart.len() >= MAX_APART {
            apart.clear();
        }
        apart.insert(mailbox.to_owned());
    }

    /// Delivers a bare entry: the file becomes `target`, which must not exist. It
    /// is then not in the spool any more.
    ///
    /// # Errors
    /// Those of rename(2): `EXDEV` where the mailbox is on another file system.
    pub fn move_into(&self, name: EntryName, target: &Path) -> io::Result<()> {
        self.remove_twin(name.id)?;
        disk::rename_new(&self.path(name), target)
    }
}

impl Entry {
    /// Whether one of these paths, too, is a name of this file: btrfs can leave both
    /// names of a rename when the power goes.
    pub fn is_also(&self, mut paths: impl Iterator<Item = PathBuf>) -> bool {
        let Some(own) = self.linked.then(|| self.file.metadata().ok()).flatten() else { return false };
        paths.any(|path| fs::metadata(path).is_ok_and(|other| (other.dev(), other.ino()) == (own.dev(), own.ino())))
    }

    /// Delivers a bare entry that has a name in its mailbox already: it loses its
    /// name in the spool.
    ///
    /// # Errors
    /// Those of unlink(2).
    pub fn leave(&self) -> io::Result<()> {
        disk::remove(&self.spool.path(self.name))
    }

    /// Rewrites a bare entry as a full one, for a recipient that could not just be
    /// moved into a mailbox. A full one stays as it is.
    ///
    /// # Errors
    /// Those of the system; the entry is then as before.
    pub fn make_full(&mut self) -> io::Result<()> {
        if !self.head.bare {
            return Ok(());
        }
        let envelope = Envelope {
            sender: self.head.sender.clone(),
            recipients: self.head.slots.iter().map(|s| s.recipient.clone()).collect(),
            body: self.head.body,
            origin: self.head.origin,
        };
        let size = self.spool.write_temporary(self.id(), &head::full(&envelope), |file| self.copy_to(file))?;
        let full = EntryName { id: self.id(), size, place: Place::Cur };
        let temporary = self.spool.temporary(self.id());
        // All that could fail for want of something is done before the first step.
        let file = open::to_change(&temporary)?;
        let rewritten = Self::read(&self.spool, full, file, None).map_err(|e| match e {
            Unusable::Io(e) => e,
            other => io::Error::other(format!("{other:?}")),
        })?;
        let (bare, rewritten_path) = (self.spool.path(self.name), self.spool.path(full));
        disk::rename(&temporary, &rewritten_path)?;
        let removed = self.spool.sync_places(&["cur"]).and_then(|()| disk::remove(&bare));
        match removed {
            Err(e) if bare.try_exists().unwrap_or(true) => {
                // Two would be one too many, if the bare one were now moved into the mailbox.
                self.spool.note_twin(full);
                self.spool.remove_twin(full.id)?;
                return Err(e);
            }
            // From here on this one counts, whatever else goes wrong.
            _ => self.spool.forget_twin(full.id),
        }
        if let Err(e) = self.spool.sync_places(&[self.name.place.directory()]) {
            log::warn!("spool: sync {}: {e}", self.name.place.directory());
        }
        *self = rewritten;
        Ok(())
    }
}

//! A direct entry becomes a file of the mailbox by a rename, or is rewritten as a queued one.

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
const MAX_NOT_RENAMEABLE: usize = 10_000;

impl Spool {
    /// Whether a message could be renamed from here into the mailbox at `path`, which may
    /// be yet to be made.
    pub fn can_rename_into(&self, path: &Path) -> bool {
        let device = path.ancestors().find_map(|p| fs::metadata(p).ok()).map(|m| m.dev());
        device == Some(self.device)
            && !self.not_renameable.read().unwrap_or_else(PoisonError::into_inner).contains(path)
    }

    /// Notes that nothing can be renamed into a mailbox, whatever its device says: a mount of
    /// its own (bind, container), or a quota by project. The next message is written to be copied.
    pub fn note_not_renameable(&self, mailbox: &Path) {
        let mut not_renameable = self.not_renameable.write().unwrap_or_else(PoisonError::into_inner);
        if not_renameable.len() >= MAX_NOT_RENAMEABLE {
            not_renameable.clear();
        }
        not_renameable.insert(mailbox.to_owned());
    }

    /// Delivers a direct entry: the file becomes `target`, which must not exist. It
    /// is then not in the spool any more.
    ///
    /// # Errors
    /// Those of rename(2): `EXDEV` where the mailbox is on another file system.
    pub fn move_into(&self, name: EntryName, target: &Path) -> io::Result<()> {
        self.remove_duplicate(name.id)?;
        disk::rename_new(&self.path(name), target)
    }
}

impl Entry {
    /// Whether one of these paths, too, is a name of this file: btrfs can leave both
    /// names of a rename when the power goes.
    pub fn has_name_among(&self, mut paths: impl Iterator<Item = PathBuf>) -> bool {
        let Some(own) = self.linked.then(|| self.file.metadata().ok()).flatten() else { return false };
        paths.any(|path| fs::metadata(path).is_ok_and(|other| (other.dev(), other.ino()) == (own.dev(), own.ino())))
    }

    /// Delivers a direct entry that has a name in its mailbox already: it loses its
    /// name in the spool.
    ///
    /// # Errors
    /// Those of unlink(2).
    pub fn unlink(&self) -> io::Result<()> {
        disk::remove(&self.spool.path(self.name))
    }

    /// Rewrites a direct entry as a queued one, for a recipient that could not just be
    /// moved into a mailbox. A queued one stays as it is.
    ///
    /// # Errors
    /// Those of the system; the entry is then as before.
    pub fn make_queued(&mut self) -> io::Result<()> {
        if !self.head.direct {
            return Ok(());
        }
        let envelope = Envelope {
            sender: self.head.sender.clone(),
            recipients: self.head.recipients.iter().map(|s| s.recipient.clone()).collect(),
            body: self.head.body,
            origin: self.head.origin,
        };
        let head = head::queued(&envelope, None, 0);
        let size = self.spool.write_temporary(self.id(), &head, |file| self.copy_to(file))?;
        let queued = EntryName { id: self.id(), size, place: Place::Cur };
        let temporary = self.spool.temporary(self.id());
        // All that could fail for want of something is done before the first step.
        let file = open::to_change(&temporary)?;
        let rewritten = Self::read(&self.spool, queued, file, None).map_err(|e| match e {
            Unusable::Io(e) => e,
            other => io::Error::other(format!("{other:?}")),
        })?;
        let (direct, rewritten_path) = (self.spool.path(self.name), self.spool.path(queued));
        disk::rename(&temporary, &rewritten_path)?;
        let removed = self.spool.sync_places(&["cur"]).and_then(|()| disk::remove(&direct));
        match removed {
            Err(e) if direct.try_exists().unwrap_or(true) => {
                // Two would be one too many, if the direct one were now moved into the mailbox.
                self.spool.note_duplicate(queued);
                self.spool.remove_duplicate(queued.id)?;
                return Err(e);
            }
            // From here on this one counts, whatever else goes wrong.
            _ => self.spool.forget_duplicate(queued.id),
        }
        if let Err(e) = self.spool.sync_places(&[self.name.place.directory()]) {
            log::warn!("spool: sync {}: {e}", self.name.place.directory());
        }
        *self = rewritten;
        Ok(())
    }
}

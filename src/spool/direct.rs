//! Delivers direct entries: one rename makes the entry's file a message in its recipient's mailbox.
//! If the rename is impossible, the entry is rewritten as a queued entry.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use super::head::{self, Marks};
use super::{Entry, EntryName, Place, Spool, Unusable, open};
use crate::envelope::Envelope;
use crate::sys::disk;

/// The maximum number of mailboxes for which [`Spool::note_not_renameable`] remembers the path.
const MAX_NOT_RENAMEABLE: usize = 10_000;

impl Spool {
    /// Whether a message can be renamed from the spool into the mailbox at `path`, which may not
    /// exist yet.
    pub fn can_rename_into(&self, path: &Path) -> bool {
        let device = path.ancestors().find_map(|p| fs::metadata(p).ok()).map(|m| m.dev());
        device == Some(self.device)
            && !self.not_renameable.read().unwrap_or_else(PoisonError::into_inner).contains(path)
    }

    /// Remembers that nothing can be renamed into a mailbox although the mailbox is on the spool's
    /// device. The mailbox may be a bind mount, for example, or have a project quota. Later
    /// messages for the mailbox are queued and copied.
    pub fn note_not_renameable(&self, mailbox: &Path) {
        let mut not_renameable = self.not_renameable.write().unwrap_or_else(PoisonError::into_inner);
        if not_renameable.len() >= MAX_NOT_RENAMEABLE {
            not_renameable.clear();
        }
        not_renameable.insert(mailbox.to_owned());
    }

    /// Delivers a direct entry by a rename to `target`, which must not exist.
    ///
    /// # Errors
    /// Those of rename(2), such as `EXDEV` if the mailbox is on another file system.
    pub fn move_into(&self, name: EntryName, target: &Path) -> io::Result<()> {
        self.remove_duplicate(name.id)?;
        disk::rename_new(&self.path(name), target)
    }
}

impl Entry {
    /// Whether one of `paths` is another name of the entry's file. On btrfs a power cut can leave a
    /// renamed file with both its old and its new name.
    pub fn has_name_among(&self, mut paths: impl Iterator<Item = PathBuf>) -> bool {
        let Some(file) = self.has_other_name.then(|| self.file.metadata().ok()).flatten() else { return false };
        paths.any(|path| fs::metadata(path).is_ok_and(|other| (other.dev(), other.ino()) == (file.dev(), file.ino())))
    }

    /// Removes the name that a direct entry has in the spool. The file must already have a name in
    /// the mailbox.
    ///
    /// # Errors
    /// Those of unlink(2).
    pub fn unlink(&self) -> io::Result<()> {
        disk::remove(&self.spool.path(self.name))
    }

    /// Rewrites a direct entry as a queued one, because it cannot be renamed into a mailbox. A
    /// queued entry stays as it is, and a held one stays in `hold/`.
    ///
    /// # Errors
    /// Those of the system. After an error the entry is unchanged. `NotFound` means that the entry
    /// was moved away meanwhile, for example into its mailbox.
    pub fn make_queued(&mut self) -> io::Result<()> {
        if !self.head.direct {
            return Ok(());
        }
        self.spool.remove_duplicate(self.id())?;
        let envelope = Envelope {
            sender: self.head.sender.clone(),
            recipients: self.head.recipients.iter().map(|entry| entry.recipient.clone()).collect(),
            options: self.head.options.clone(),
            origin: self.head.origin,
        };
        let head = head::queued(&envelope, Marks::default(), None, 0);
        let size = self.spool.write_temporary(self.id(), &head, |file| self.copy_to(file))?;
        let place = if self.name.place == Place::Hold { Place::Hold } else { Place::Cur };
        let queued = EntryName { id: self.id(), size, place };
        let temporary = self.spool.temporary(self.id());
        // Everything that can fail for lack of memory or descriptors is done before the rename.
        let file = open::to_change(&temporary)?;
        let rewritten = Self::read(&self.spool, queued, file, None).map_err(|e| match e {
            Unusable::Io(e) => e,
            other => io::Error::other(format!("{other:?}")),
        })?;
        disk::rename(&temporary, &self.spool.path(queued))?;
        // If both have the same name, the rename has removed the direct one.
        if queued != self.name {
            self.spool.supersede(self.name, &self.file, queued)?;
        }
        // From here on the queued entry is the valid one, even if a later step fails.
        if let Err(e) = self.spool.sync_places(&[self.name.place.directory()]) {
            log::warn!("spool: sync {}: {e}", self.name.place.directory());
        }
        *self = rewritten;
        Ok(())
    }
}

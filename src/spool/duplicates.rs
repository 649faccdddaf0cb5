//! Resolves duplicates: chooses between two files with the same id, which a crash can leave.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::{EntryName, QueueId, Spool, Unusable};
use crate::sys::disk;

impl Spool {
    /// Chooses one of two files with the same id, removes or sets aside the other, and returns the
    /// chosen one. A crash in [`make_queued`](super::Entry::make_queued) leaves a direct and a
    /// queued file, of which the queued one is kept. The caller makes sure that no worker has the
    /// entry open, because a worker in `make_queued` has both files for a moment. If a later
    /// version of penfold has written one of the files, both stay until that version chooses, and
    /// until then the direct one cannot be opened.
    pub fn resolve_duplicates(self: &Arc<Self>, first: EntryName, second: EntryName) -> EntryName {
        let opened = (self.entry(first), self.entry(second));
        if matches!(opened, (Err(Unusable::Later(_)), _) | (_, Err(Unusable::Later(_)))) {
            self.beside_later.lock().unwrap_or_else(PoisonError::into_inner).insert(first.id);
        }
        let (kept, removed) = match opened {
            // There is only one file, which was moved between the two attempts to open it.
            (Ok(a), Ok(b)) if a.name() == b.name() => return a.name(),
            (Err(Unusable::Gone), _) => return second,
            (_, Err(Unusable::Gone)) => return first,
            (Ok(a), Ok(b)) if a.is_direct() && !b.is_direct() => (second, first),
            (Ok(a), Ok(b)) if !a.is_direct() && b.is_direct() => (first, second),
            // The file that cannot be read may be the queued one, which must be kept. A direct
            // entry is never in `cur/`, so a file there is the queued one, and is chosen.
            (Err(Unusable::Io(_) | Unusable::Later(_)), _) | (_, Err(Unusable::Io(_) | Unusable::Later(_))) => {
                return if first.place > second.place { first } else { second };
            }
            (Err(Unusable::Corrupt(why)), _) => {
                self.set_aside(first, why);
                return second;
            }
            _ => {
                self.set_aside(second, "another entry has the same id");
                return first;
            }
        };
        if let Err(e) = disk::remove(&self.path(removed)).and_then(|()| self.sync_places(&[removed.place.directory()]))
        {
            log::error!("remove {}: {e}", self.path(removed).display());
            self.note_duplicate(removed);
        }
        kept
    }

    pub(super) fn is_beside_later(&self, id: QueueId) -> bool {
        self.has_later.load(Ordering::Relaxed)
            && self.beside_later.lock().unwrap_or_else(PoisonError::into_inner).contains(&id)
    }
}

impl Spool {
    /// Lets `new` take the place of `old`, which is open as `file` and has another name. If `old`
    /// cannot be removed, `new` is.
    ///
    /// # Errors
    /// Those of the system; then `old` is the valid one. `NotFound` means that `old` was moved away,
    /// for example into a mailbox.
    pub(super) fn supersede(&self, old: EntryName, file: &File, new: EntryName) -> io::Result<()> {
        let path = self.path(old);
        let removed = self.sync_places(&[new.place.directory()]).and_then(|()| disk::remove(&path));
        let Err(mut error) = removed else { return Ok(()) };
        if !path.try_exists().unwrap_or(true) {
            // A file without a name was removed, and was not moved.
            if file.metadata().is_ok_and(|metadata| metadata.nlink() == 0) {
                return Ok(());
            }
            error = io::ErrorKind::NotFound.into();
        }
        // `old` must not be delivered now, because the message would be delivered again from `new`.
        self.note_duplicate(new);
        if let Err(e) = self.remove_duplicate(new.id) {
            log::error!("remove {}: {e}", self.path(new).display());
        }
        Err(error)
    }

    /// Remembers a file that must be removed before the other entry with the same id is used. After a
    /// restart both would be delivered.
    fn note_duplicate(&self, duplicate: EntryName) {
        self.duplicates.lock().unwrap_or_else(PoisonError::into_inner).insert(duplicate.id, duplicate);
    }

    /// Removes the file that [`Spool::note_duplicate`] has remembered. Nothing is done with an entry
    /// before that.
    pub(super) fn remove_duplicate(&self, id: QueueId) -> io::Result<()> {
        // The lock is kept, so that no second removal meets a new file of the same name.
        let mut duplicates = self.duplicates.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(duplicate) = duplicates.get(&id) else { return Ok(()) };
        match disk::remove(&self.path(*duplicate)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => duplicates.remove(&id),
        };
        Ok(())
    }
}

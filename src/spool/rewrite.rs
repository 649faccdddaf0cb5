//! Gives an entry other recipients, on an administrator's request.
//!
//! The new file is completed in `tmp/`, and then takes the place of the old one. If both have the
//! same size, and so the same name, one rename does that. Otherwise the new file gets its name
//! first. A crash before the old one is removed leaves two queued entries with the same id, of which
//! [`Spool::resolve_duplicates`](super::Spool::resolve_duplicates) sets one aside: none of them was
//! tried since, because [`Spool::entry`](super::Spool::entry) opens none while the other is known. The caller makes sure that no worker has a job of the entry.

use std::io;
use std::sync::Arc;

use super::reserve::Purpose;
use super::{Entry, EntryName, RecipientEntry, Unusable, head, open};
use crate::sys::disk;

impl Entry {
    /// Replaces all recipients of the entry by these, which are numbered in this order. The change is
    /// synced.
    ///
    /// # Errors
    /// Those of the system, and `InvalidInput` if the head would be too long. After an error the recipients
    /// are the old ones, but the entry may have another name. `NotFound` means that the entry was moved away.
    pub fn replace_recipients(&mut self, recipients: &[RecipientEntry]) -> io::Result<()> {
        self.make_queued()?;
        let text = head::rewrite::rewritten(&self.head, recipients, usize::try_from(self.head.content).unwrap_or(0));
        if recipients.is_empty() || text.len() as u64 > head::MAX_HEAD {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let spool = Arc::clone(&self.spool);
        let _reserved = spool.reserve(text.len() as u64 + self.content_size(), Purpose::Message)?;
        let size = spool.write_temporary(self.id(), &text, |file| self.copy_to(file))?;
        let (temporary, name) = (spool.temporary(self.id()), EntryName { size, ..self.name });
        let replaced = open::to_change(&temporary).map_err(Unusable::from);
        let rewritten = replaced.and_then(|file| Self::read(&spool, name, file, None)).map_err(|e| match e {
            Unusable::Io(e) => e,
            other => io::Error::other(format!("{other:?}")),
        });
        let rewritten = rewritten.inspect_err(|_| drop(disk::remove(&temporary)))?;
        if name == self.name {
            disk::rename(&temporary, &spool.path(name)).inspect_err(|_| drop(disk::remove(&temporary)))?;
        } else {
            disk::rename_new(&temporary, &spool.path(name)).inspect_err(|_| drop(disk::remove(&temporary)))?;
            spool.supersede(self.name, &self.file, name)?;
        }
        *self = rewritten;
        // The entry must not be tried before the old one is gone for good.
        spool.sync_places(&[name.place.directory()])
    }
}

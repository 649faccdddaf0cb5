//! Handles entries that cannot be read. Corrupt entries are moved to `bad/`. Entries that a later
//! version of penfold has written are left where they are.

use std::path::Path;
use std::sync::PoisonError;

use super::{EntryName, Spool};
use crate::sys::disk;

impl Spool {
    /// Moves a corrupt entry to `bad/`, and logs that.
    pub fn set_aside(&self, name: EntryName, why: &str) {
        self.set_aside_file(&self.path(name), why);
    }

    /// Logs that an entry of a later version is left where it is. The line is logged only once for
    /// each id, although every flush of the queue finds the entry again.
    pub fn leave_alone(&self, name: EntryName, why: &str) {
        if self.left_alone.lock().unwrap_or_else(PoisonError::into_inner).insert(name.id) {
            log::error!("spool entry {}: {why}; it is left alone", self.path(name).display());
        }
    }

    pub(super) fn set_aside_file(&self, path: &Path, why: &str) {
        let kept = self.root.join("bad").join(path.file_name().unwrap_or_default());
        match disk::rename_new(path, &kept) {
            Ok(()) => log::error!("spool entry {} is corrupt: {why}; it is now in bad/", path.display()),
            Err(e) => log::error!("spool entry {} is corrupt: {why}; moving it to bad/: {e}", path.display()),
        }
    }
}

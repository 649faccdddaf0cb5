//! Decides about an entry whose message also exists outside the spool, after a crash.

use std::io;
use std::sync::Arc;

use super::open;
use super::{EntryName, Spool, Unusable};
use crate::sys::disk;

impl Spool {
    /// Makes sure that an entry and its name are on stable storage. Returns false if the entry is
    /// incomplete.
    ///
    /// # Errors
    /// Those of the system.
    pub fn confirm(self: &Arc<Self>, name: EntryName) -> io::Result<bool> {
        match self.entry(name) {
            // What a later version has written is complete.
            Ok(_) | Err(Unusable::Later(_)) => {}
            Err(Unusable::Corrupt(_) | Unusable::Gone) => return Ok(false),
            Err(Unusable::Io(e)) => return Err(e),
        }
        disk::sync(&open::to_read(&self.path(name))?)?;
        self.sync_places(&[name.place.directory()])?;
        Ok(true)
    }

    /// Removes an entry that nobody has tried, because its message still exists outside the spool.
    ///
    /// # Errors
    /// Those of the system.
    pub fn discard(&self, name: EntryName) -> io::Result<()> {
        match disk::remove(&self.path(name)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        self.sync_places(&[name.place.directory()])
    }
}

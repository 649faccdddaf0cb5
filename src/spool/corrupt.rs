//! What makes no sense goes to `bad/`.

use std::path::Path;

use super::{EntryName, Spool};
use crate::sys::disk;

impl Spool {
    /// Puts an entry that makes no sense into `bad/`, and says so.
    pub fn set_aside(&self, name: EntryName, why: &str) {
        self.set_aside_file(&self.path(name), why);
    }

    pub(super) fn set_aside_file(&self, path: &Path, why: &str) {
        let kept = self.root.join("bad").join(path.file_name().unwrap_or_default());
        match disk::rename_new(path, &kept) {
            Ok(()) => log::error!("spool entry {} makes no sense: {why}; it is now in bad/", path.display()),
            Err(e) => log::error!("spool entry {} makes no sense: {why}; moving it to bad/: {e}", path.display()),
        }
    }
}

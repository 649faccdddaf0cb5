//! Lists the entries in a directory of the spool.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use super::{EntryName, Place, Spool};

impl Spool {
    /// The entries in one directory, in no particular order. A file whose name is not that of an
    /// entry is moved to `bad/`. Entries of two directories may have the same id:
    /// [`Spool::resolve_duplicates`] chooses between them.
    ///
    /// # Errors
    /// Those of readdir(3).
    pub fn names(&self, place: Place) -> io::Result<Vec<EntryName>> {
        let mut names = Vec::new();
        self.read_place(place, |file, entry| match entry {
            Some(entry) => names.push(entry),
            None => self.set_aside_file(&file.path(), "its name is not that of an entry"),
        })?;
        Ok(names)
    }

    /// The entries in one directory, in no particular order. A file whose name is not that of an
    /// entry is ignored.
    ///
    /// # Errors
    /// Those of readdir(3).
    pub fn entries_in(&self, place: Place) -> io::Result<Vec<EntryName>> {
        let mut names = Vec::new();
        self.read_place(place, |_, entry| names.extend(entry))?;
        Ok(names)
    }

    pub(super) fn read_place(
        &self,
        place: Place,
        mut take: impl FnMut(&fs::DirEntry, Option<EntryName>),
    ) -> io::Result<()> {
        for file in fs::read_dir(self.root.join(place.directory()))? {
            let file = file?;
            let entry = file.file_name().to_str().and_then(|name| EntryName::parse(name, place));
            take(&file, entry);
        }
        Ok(())
    }

    /// Whether the inode of an entry has been unchanged for longer than `time`.
    pub fn is_older_than(&self, name: EntryName, time: Duration) -> bool {
        let changed = fs::symlink_metadata(self.path(name)).map(|metadata| metadata.ctime());
        changed.is_ok_and(|at| crate::sys::now().saturating_sub(u64::try_from(at).unwrap_or(0)) > time.as_secs())
    }
}

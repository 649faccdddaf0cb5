//! What nobody needs any more in `tmp/` and `note/`.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use super::{Entry, EntryName, Place, QueueId, Spool, open};
use crate::sys::disk;

/// What nobody has locked in `tmp/` for so long is nobody's.
pub(super) const STALE_AFTER: Duration = Duration::from_secs(36 * 3600);

impl Spool {
    /// Removes names in `tmp/` that entries had before their rename, and have again
    /// since a power cut (btrfs): a report that has one would look unsent. To be
    /// asked before any entry is looked at.
    ///
    /// # Errors
    /// When `tmp/` cannot be read or changed.
    pub fn remove_old_names(&self) -> io::Result<()> {
        for file in fs::read_dir(self.root.join("tmp"))? {
            let file = file?;
            let (Some(id), Ok(own)) = (file.file_name().to_str().and_then(QueueId::parse), file.metadata()) else {
                continue;
            };
            let is_same = |other: fs::Metadata| (other.dev(), other.ino()) == (own.dev(), own.ino());
            let is_entry =
                |place| fs::symlink_metadata(self.path(EntryName { id, size: own.len(), place })).is_ok_and(is_same);
            if own.nlink() > 1 && [Place::New, Place::Cur, Place::Hold].into_iter().any(is_entry) {
                disk::remove(&file.path())?;
            }
        }
        Ok(())
    }

    /// Removes what crashed writers left in `tmp/`, and the notes of messages that
    /// are gone. `awaited` are the ids of reports that entries wait for: of all that
    /// are to be tried. What is held waits for its reports and keeps its notes too.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn sweep(self: &Arc<Self>, awaited: &HashSet<QueueId>) -> io::Result<()> {
        let mut stale = self.stale()?;
        // Most of the time there is nothing, and nobody needs to be asked.
        if stale.is_empty() {
            return Ok(());
        }
        stale.retain(|_, id| id.is_none_or(|id| !awaited.contains(&id)));
        if self.has_later.load(Ordering::Relaxed) {
            // A derived entry that one of a later version waits for may be there.
            stale.retain(|path, _| !path.starts_with(self.root.join("tmp")));
        }
        let mut known = HashSet::new();
        let candidates: HashSet<QueueId> = stale.values().flatten().copied().collect();
        for place in [Place::New, Place::Cur, Place::Hold] {
            self.read_place(place, |_, entry| {
                known.extend(entry.map(|entry| entry.id).filter(|id| candidates.contains(id)));
                if place == Place::Hold {
                    let held = entry.and_then(|entry| self.entry(entry).ok());
                    known.extend(held.iter().flat_map(Entry::awaited));
                }
            })?;
        }
        for (path, _) in stale.iter().filter(|(_, id)| id.is_none_or(|id| !known.contains(&id))) {
            if open::to_read(path).is_ok_and(|f| f.try_lock().is_ok()) {
                disk::remove(path)?;
            }
        }
        Ok(())
    }

    /// What has not been touched for long in `tmp/` and `note/`, and the ids it is called by.
    fn stale(&self) -> io::Result<HashMap<PathBuf, Option<QueueId>>> {
        let mut stale = HashMap::new();
        for directory in ["tmp", "note"] {
            for file in fs::read_dir(self.root.join(directory))?.flatten() {
                let modified = file.metadata().and_then(|m| m.modified()).ok();
                let age = modified.and_then(|m| SystemTime::now().duration_since(m).ok());
                if age.is_some_and(|age| age > STALE_AFTER) {
                    stale.insert(file.path(), file.file_name().to_str().and_then(QueueId::parse));
                }
            }
        }
        Ok(stale)
    }
}

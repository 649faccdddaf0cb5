//! Removes files that crashes have left in `tmp/` and `note/`.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use super::{Entry, EntryName, Place, QueueId, Spool, dialogue, open};
use crate::sys::disk;

/// The age at which a file in `tmp/` or `note/` is removed, if no entry refers to it.
pub(super) const STALE_AFTER: Duration = Duration::from_secs(36 * 3600);

impl Spool {
    /// Removes the old names of renamed entries: names in `tmp/` and, for entries that are held
    /// now, names in `new/` and `cur/`. On btrfs a power cut can restore such a name, and a report
    /// with a name in `tmp/` would look unsent. The function must be called before any entry is
    /// opened.
    ///
    /// # Errors
    /// Those of readdir(3) and unlink(2).
    pub fn remove_old_names(&self) -> io::Result<()> {
        for file in fs::read_dir(self.root.join("tmp"))? {
            let file = file?;
            let (Some(id), Ok(metadata)) = (file.file_name().to_str().and_then(QueueId::parse), file.metadata()) else {
                continue;
            };
            let is_same = |other: fs::Metadata| (other.dev(), other.ino()) == (metadata.dev(), metadata.ino());
            let is_entry = |place| {
                fs::symlink_metadata(self.path(EntryName { id, size: metadata.len(), place })).is_ok_and(is_same)
            };
            if metadata.nlink() > 1 && [Place::New, Place::Cur, Place::Hold].into_iter().any(is_entry) {
                disk::remove(&file.path())?;
            }
        }
        self.remove_other_names_of_held()
    }

    /// Removes the names in `new/` or `cur/` that held entries still have after a power cut. The
    /// power cut came before the move to or from `hold/` was reported as done, so nothing was
    /// delivered under the name in `new/` or `cur/`.
    fn remove_other_names_of_held(&self) -> io::Result<()> {
        for held in self.entries_in(Place::Hold)? {
            let Ok(metadata) = fs::symlink_metadata(self.path(held)) else { continue };
            for place in [Place::New, Place::Cur].into_iter().filter(|_| metadata.nlink() > 1) {
                let path = self.path(EntryName { place, ..held });
                let is_same = |other: fs::Metadata| (other.dev(), other.ino()) == (metadata.dev(), metadata.ino());
                if fs::symlink_metadata(&path).is_ok_and(is_same) {
                    disk::remove(&path)?;
                }
            }
        }
        Ok(())
    }

    /// Removes files that crashed writers have left in `tmp/`, and notes without a message.
    /// `awaited` contains the ids of the derived entries that the entries in `new/` and `cur/` wait
    /// for. For held entries the function finds these ids itself. The notes of held entries stay.
    ///
    /// # Errors
    /// Those of readdir(3) and unlink(2).
    pub fn sweep(self: &Arc<Self>, awaited: &HashSet<QueueId>) -> io::Result<()> {
        let mut stale = self.stale()?;
        // Usually nothing is old, and no entry needs to be read.
        if stale.is_empty() {
            return Ok(());
        }
        stale.retain(|_, id| id.is_none_or(|id| !awaited.contains(&id)));
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
        // The flag is checked only now, because a held entry that was just opened may be of a later
        // version.
        if self.has_later.load(Ordering::Relaxed) {
            // An entry of a later version may wait for a derived entry in `tmp/`.
            stale.retain(|path, _| !path.starts_with(self.root.join("tmp")));
        }
        for (path, _) in stale.iter().filter(|(_, id)| id.is_none_or(|id| !known.contains(&id))) {
            if open::to_read(path).is_ok_and(|f| f.try_lock().is_ok()) {
                disk::remove(path)?;
            }
        }
        Ok(())
    }

    /// The old files in `tmp/` and `note/`, with the ids in their names.
    fn stale(&self) -> io::Result<HashMap<PathBuf, Option<QueueId>>> {
        let mut stale = HashMap::new();
        for directory in ["tmp", "note"] {
            for file in fs::read_dir(self.root.join(directory))?.flatten() {
                let modified = file.metadata().and_then(|m| m.modified()).ok();
                let age = modified.and_then(|m| SystemTime::now().duration_since(m).ok());
                if age.is_some_and(|age| age > STALE_AFTER) {
                    let name = file.file_name();
                    let name = name.to_str().map(|name| name.strip_suffix(dialogue::SUFFIX).unwrap_or(name));
                    stale.insert(file.path(), name.and_then(QueueId::parse));
                }
            }
        }
        Ok(stale)
    }
}

//! Holds, releases and removes entries on an administrator's request.
//!
//! The caller makes sure that no worker has a job of the entry. Each change is one rename or one
//! unlink, so that a crash leaves the entry in one place. The caller syncs the directories with
//! [`Spool::sync_changes`], once for many changes, before it reports them as done, so that a power
//! cut does not undo them.
//!
//! A crash can interrupt a delivery between two steps. The recipient's record, or the owner of the
//! entry's file, then tells a later attempt what is left to do. Such an entry is not held, because
//! too much time might pass before that attempt (see [`State::Prepared`]).

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;

use super::{Entry, EntryName, Place, QueueId, Spool, State, Unusable};
use crate::sys::disk;

/// Why an entry cannot be held, released or removed.
#[derive(Debug)]
pub enum NotMoved {
    /// There is no such entry.
    Gone,
    /// Nothing is left to do for any of the entry's recipients, so that it can be removed.
    Settled,
    /// The entry is not held.
    NotHeld,
    /// A delivery was interrupted, and an attempt must complete it first.
    Interrupted,
    /// The entry was written by a later version of penfold, or is corrupt.
    Unusable(&'static str),
    /// A system call failed.
    Io(io::Error),
}

impl From<Unusable> for NotMoved {
    fn from(unusable: Unusable) -> Self {
        match unusable {
            Unusable::Gone => Self::Gone,
            Unusable::Corrupt(why) | Unusable::Later(why) => Self::Unusable(why),
            Unusable::Io(e) => Self::Io(e),
        }
    }
}

impl From<io::Error> for NotMoved {
    fn from(error: io::Error) -> Self {
        Unusable::from(error).into()
    }
}

impl Spool {
    /// Returns the entries with these ids in any directory. Of several entries with the same id, held
    /// ones come first.
    ///
    /// # Errors
    /// Those of readdir(3).
    pub fn find_all(&self, ids: &HashSet<QueueId>) -> io::Result<Vec<EntryName>> {
        let mut found = Vec::new();
        if !ids.is_empty() {
            for place in [Place::Hold, Place::New, Place::Cur] {
                self.read_place(place, |_, entry| {
                    found.extend(entry.filter(|entry| ids.contains(&entry.id)));
                })?;
            }
        }
        Ok(found)
    }

    /// Returns the entries with these ids in any directory. Of two entries with the same id in
    /// `hold/`, which a crash can leave, one is chosen and the other one removed; otherwise a held
    /// one is preferred. The caller makes sure that nobody else has the entries open.
    ///
    /// # Errors
    /// Those of readdir(3).
    pub fn find_each(self: &Arc<Self>, ids: &HashSet<QueueId>) -> io::Result<HashMap<QueueId, EntryName>> {
        let mut each: HashMap<QueueId, EntryName> = HashMap::new();
        for name in self.find_all(ids)? {
            let known = each.entry(name.id).or_insert(name);
            if *known != name && known.place == Place::Hold && name.place == Place::Hold {
                *known = self.resolve_duplicates(*known, name);
            }
        }
        Ok(each)
    }

    /// Returns the entry with this id in one of the directories. Returns `None` if there is none.
    ///
    /// # Errors
    /// Those of readdir(3).
    pub fn find(&self, id: QueueId, places: &[Place]) -> io::Result<Option<EntryName>> {
        let mut found = None;
        for &place in places {
            self.read_place(place, |_, entry| found = found.or(entry.filter(|entry| entry.id == id)))?;
        }
        Ok(found)
    }

    /// Moves an entry to `hold/`, and returns its new name.
    ///
    /// # Errors
    /// [`NotMoved`]. After an error the entry is where it was.
    pub fn hold(self: &Arc<Self>, name: EntryName) -> Result<EntryName, NotMoved> {
        let entry = self.completed(name)?;
        self.move_to(entry.name(), Place::Hold)
    }

    /// Opens an entry to change what happens to it next.
    ///
    /// # Errors
    /// [`NotMoved`], for example if an attempt must complete a delivery first.
    pub fn completed(self: &Arc<Self>, name: EntryName) -> Result<Entry, NotMoved> {
        let mut entry = self.entry(name)?;
        entry.sync()?;
        entry.complete()?;
        let is_interrupted = |state| matches!(state, State::Prepared { .. });
        if entry.handed_over_to().is_some() || entry.recipients().iter().any(|to| is_interrupted(to.record.state)) {
            return Err(NotMoved::Interrupted);
        }
        Ok(entry)
    }

    /// Syncs the directories in which entries have been held, released or removed.
    ///
    /// # Errors
    /// Those of fsync(2).
    pub fn sync_changes(&self) -> io::Result<()> {
        self.sync_places(&[Place::New, Place::Cur, Place::Hold].map(Place::directory))
    }

    /// Moves an entry from `hold/` to the directory that it belongs to, and returns its new name.
    ///
    /// # Errors
    /// [`NotMoved`]. After an error the entry is where it was.
    pub fn release(self: &Arc<Self>, name: EntryName) -> Result<EntryName, NotMoved> {
        if name.place != Place::Hold {
            return Err(NotMoved::NotHeld);
        }
        let entry = self.entry(name)?;
        let is_fresh = |state: State, last| state == State::Todo && last == 0;
        // A direct entry belongs to `new/`, because a direct entry is never in `cur/`.
        let is_new = entry.is_direct() || entry.recipients().iter().all(|to| is_fresh(to.record.state, to.record.last));
        self.move_to(entry.name(), if is_new { Place::New } else { Place::Cur })
    }

    /// Removes an entry with all its recipients, even if their mail is not delivered yet. `log` is
    /// called with the entry before the removal.
    ///
    /// # Errors
    /// [`NotMoved`]. After an error the entry is still there.
    pub fn remove(self: &Arc<Self>, name: EntryName, log: impl FnOnce(&Entry)) -> Result<(), NotMoved> {
        let mut entry = self.entry(name)?;
        entry.complete()?;
        self.remove_duplicate(entry.id())?;
        // A crash after the removal must not leave a message that is gone without a line in the log.
        log(&entry);
        let _ = disk::remove(&self.dialogue_path(entry.id()));
        disk::remove(&self.path(entry.name()))?;
        self.forget_held();
        // The note is removed last. If a crash leaves a note without an entry, a later sweep
        // removes the note.
        let _ = disk::remove(&self.note_path(entry.id()));
        Ok(())
    }

    fn move_to(&self, from: EntryName, place: Place) -> Result<EntryName, NotMoved> {
        let to = EntryName { place, ..from };
        if from == to {
            return Ok(to);
        }
        self.remove_duplicate(from.id)?;
        disk::rename_new(&self.path(from), &self.path(to))?;
        self.forget_held();
        Ok(to)
    }
}

impl Entry {
    /// Completes the steps in the spool that a crash has interrupted. Returns
    /// [`NotMoved::Settled`] if no recipient is left.
    fn complete(&mut self) -> Result<(), NotMoved> {
        if self.awaited().next().is_some() {
            self.sync()?;
        }
        self.recover(0..self.recipients().len())?;
        if self.recipients().iter().any(|to| to.record.state.is_open()) { Ok(()) } else { Err(NotMoved::Settled) }
    }
}

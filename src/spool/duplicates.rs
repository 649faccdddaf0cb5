//! Two files of one id, which a crash leaves: which of them counts.

use std::io;
use std::sync::{Arc, PoisonError};

use super::{EntryName, QueueId, Spool, Unusable};
use crate::sys::disk;

impl Spool {
    /// Of two files of one id, one that a crash left in between is the direct one
    /// of [`Entry::make_queued`]. The queued one counts, and nothing was done on it yet.
    /// To be asked while nothing is done with either: who makes an entry full has two
    /// for a moment.
    pub fn resolve_duplicates(self: &Arc<Self>, first: EntryName, second: EntryName) -> EntryName {
        let (keep, drop) = match (self.entry(first), self.entry(second)) {
            // It moved while we looked.
            (Ok(one), Ok(other)) if one.name() == other.name() => return one.name(),
            (Err(Unusable::Gone), _) => return second,
            (_, Err(Unusable::Gone)) => return first,
            (Ok(one), Ok(other)) if one.is_direct() && !other.is_direct() => (second, first),
            (Ok(one), Ok(other)) if !one.is_direct() && other.is_direct() => (first, second),
            // No direct one is in `cur/`.
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
        if let Err(e) = disk::remove(&self.path(drop)).and_then(|()| self.sync_places(&[drop.place.directory()])) {
            log::error!("remove {}: {e}", self.path(drop).display());
        }
        keep
    }
}

/// A queued entry that a failed [`Entry::make_queued`] has left beside the direct one. As
/// long as it cannot be removed the direct one is not moved, for a start would find
/// the queued one and deliver it again.
impl Spool {
    pub(super) fn note_duplicate(&self, twin: EntryName) {
        self.duplicates.lock().unwrap_or_else(PoisonError::into_inner).insert(twin.id, twin);
    }

    pub(super) fn remove_duplicate(&self, id: QueueId) -> io::Result<()> {
        let twin = self.duplicates.lock().unwrap_or_else(PoisonError::into_inner).get(&id).copied();
        let Some(twin) = twin else { return Ok(()) };
        match disk::remove(&self.path(twin)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => self.forget_duplicate(id),
        }
        Ok(())
    }

    pub(super) fn forget_duplicate(&self, id: QueueId) {
        self.duplicates.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
}

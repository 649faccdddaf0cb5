//! Limits the number and the total size of the messages in quarantine, so that strangers cannot
//! fill the spool with mail that nobody releases.
//!
//! The entries in `hold/` are counted when a message is to be held, but at most once within
//! [`COUNTED_FOR`], and not for each message. Messages that are held meanwhile are added to the
//! count. Entries that an administrator holds count as well, but an administrator may hold any
//! number of entries.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Place, Spool};

/// If `hold/` contains this number of entries or more, no message goes into quarantine.
const MAX_ENTRIES: u64 = 10_000;
/// The time after which the entries are counted again.
const COUNTED_FOR: Duration = Duration::from_secs(60);
/// The minimum time between two log lines that say that there is no room.
const LOGGED_EVERY: Duration = Duration::from_secs(3600);

/// The number and the total size of the entries in `hold/`: the last count, and the messages held
/// since then.
#[derive(Debug, Default)]
pub(super) struct Held(Mutex<Count>);

#[derive(Debug, Default)]
struct Count {
    /// When the entries were counted; `None` if they must be counted again.
    at: Option<Instant>,
    entries: u64,
    bytes: u64,
    logged: Option<Instant>,
}

impl Count {
    /// Whether a message of `bytes` bytes has room, if `free` bytes are free above the reserve: all
    /// entries in `hold/` together, with this message, may have at most half of `free` bytes.
    fn has_room(&self, bytes: u64, free: u64) -> bool {
        self.entries < MAX_ENTRIES && self.bytes.saturating_add(bytes) <= free / 2
    }
}

impl Spool {
    /// Returns whether a message of `bytes` bytes may go into quarantine. If so, it counts as held
    /// from now on. If not, that is logged at most once an hour.
    ///
    /// # Errors
    /// Those of readdir(3) and statvfs(3).
    pub fn has_room_to_hold(&self, bytes: u64) -> io::Result<bool> {
        let free = self.free_above_reserve()?;
        let mut count = self.held.0.lock().unwrap_or_else(PoisonError::into_inner);
        if count.at.is_none_or(|at| at.elapsed() >= COUNTED_FOR) {
            (count.entries, count.bytes) = (0, 0);
            self.read_place(Place::Hold, |_, entry| {
                count.entries += 1;
                count.bytes = count.bytes.saturating_add(entry.map_or(0, |entry| entry.size));
            })?;
            count.at = Some(Instant::now());
        }
        if count.has_room(bytes, free) {
            count.entries += 1;
            count.bytes += bytes;
            return Ok(true);
        }
        if count.logged.is_none_or(|at| at.elapsed() >= LOGGED_EVERY) {
            count.logged = Some(Instant::now());
            let Count { entries, bytes, .. } = *count;
            let hint = "penfoldctl queue lists them, release or remove makes room";
            log::warn!("the quarantine is full: hold/ has {entries} entries of {bytes} bytes: {hint}");
        }
        Ok(false)
    }

    /// Forgets the count, because an entry has left `hold/`. So the entries are counted again
    /// before the next message goes into quarantine.
    pub(super) fn forget_held(&self) {
        self.held.0.lock().unwrap_or_else(PoisonError::into_inner).at = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_and_bytes_are_limited() {
        let count = |entries, bytes| Count { entries, bytes, ..Count::default() };
        for (count, bytes, free, want) in [
            (count(0, 0), 10, 20, true),
            (count(0, 0), 11, 20, false),
            (count(1, 9), 1, 20, true),
            (count(1, 10), 1, 20, false),
            (count(0, 0), 1, 0, false),
            (count(MAX_ENTRIES - 1, 10), 10, u64::MAX, true),
            (count(MAX_ENTRIES, 10), 10, u64::MAX, false),
            (count(1, u64::MAX), 10, u64::MAX, false),
        ] {
            assert_eq!(count.has_room(bytes, free), want, "{count:?} {bytes} {free}");
        }
    }
}

//! Room: a reserve of the file system is kept free, so that accepted mail can be settled.
//!
//! Whatever makes an entry asks here first: a session, and a worker that passes a message
//! on, are stopped at the whole reserve, reports at half of it. What is being written by
//! workers counts as if it were all on the disk, so that many of them at once do not
//! take the same room. An entry that is rewritten, and its removal, ask nobody.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::statvfs::statvfs;

use super::Spool;

/// What is kept free: new mail is refused before the disk is full, so that what
/// was accepted can be settled.
const RESERVE: u64 = 16 << 20;
/// The same for inodes.
const RESERVE_FILES: u64 = 200;

/// What an entry is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To add to what is in the spool.
    More,
    /// To settle failed recipients.
    Report,
}

/// Room for an entry that is being written, until it is dropped.
#[derive(Debug)]
pub(super) struct Reservation<'a> {
    all: &'a AtomicU64,
    bytes: u64,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Spool {
    /// Whether a message of `bytes` may come: a reserve is kept free.
    ///
    /// # Errors
    /// Those of statvfs(3).
    pub fn has_room(&self, bytes: u64) -> io::Result<bool> {
        self.is_free(bytes.saturating_add(self.aside.load(Ordering::Relaxed)), Purpose::More)
    }

    /// Sets room aside for an entry.
    ///
    /// # Errors
    /// `StorageFull` if there is none, and those of statvfs(3).
    pub(super) fn reserve(&self, bytes: u64, purpose: Purpose) -> io::Result<Reservation<'_>> {
        let before = self.aside.fetch_add(bytes, Ordering::Relaxed);
        let aside = Reservation { all: &self.aside, bytes };
        if self.is_free(before.saturating_add(bytes), purpose)? {
            Ok(aside)
        } else {
            Err(io::Error::new(io::ErrorKind::StorageFull, "the spool has no room for it"))
        }
    }

    fn is_free(&self, bytes: u64, purpose: Purpose) -> io::Result<bool> {
        let parts = if purpose == Purpose::Report { 2 } else { 1 };
        let stat = statvfs(&self.root)?;
        let free = stat.blocks_available().saturating_mul(stat.fragment_size());
        // Some file systems count no inodes.
        let files = stat.files() == 0 || stat.files_available() >= RESERVE_FILES / parts;
        Ok(files && free >= bytes.saturating_add(RESERVE / parts))
    }
}

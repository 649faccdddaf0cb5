//! Keeps a reserve of free space in the spool, so that accepted mail can always be delivered or
//! reported as failed.
//!
//! Space is checked before an entry is made. A session that receives a message, or a worker that
//! forwards one, must leave the whole reserve free. A worker that writes a report must leave half
//! of the reserve free. Entries that workers are still writing are counted with their full size, so
//! that two workers do not rely on the same space or the same inode. Rewriting or removing an entry
//! needs no check.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::statvfs::{Statvfs, statvfs};

use super::Spool;

/// The number of bytes that are kept free: new mail is rejected before the disk is full.
const RESERVE: u64 = 16 << 20;
/// The number of inodes that are kept free.
const RESERVE_FILES: u64 = 200;

/// The purpose of a new entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A message that is received or forwarded.
    Message,
    /// A report, which settles failed recipients.
    Report,
}

/// The space reserved for all entries that are being written.
#[derive(Debug, Default)]
pub(super) struct Reserved {
    pub(super) bytes: AtomicU64,
    files: AtomicU64,
}

/// Space that is reserved for one entry until this value is dropped.
#[derive(Debug)]
pub(super) struct Reservation<'a> {
    total: &'a Reserved,
    bytes: u64,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.total.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.total.files.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Spool {
    /// Whether there is space for a message of `bytes` bytes.
    ///
    /// # Errors
    /// Those of statvfs(3).
    pub fn has_room(&self, bytes: u64) -> io::Result<bool> {
        let Reserved { bytes: reserved, files } = &self.reserved;
        let total = bytes.saturating_add(reserved.load(Ordering::Relaxed));
        self.is_free(total, files.load(Ordering::Relaxed), Purpose::Message)
    }

    /// Returns the number of bytes that are free in the file system above the reserve.
    pub(super) fn free_above_reserve(&self) -> io::Result<u64> {
        Ok(free_bytes(&statvfs(&self.root)?).saturating_sub(RESERVE))
    }

    /// Reserves space for an entry of `bytes` bytes.
    ///
    /// # Errors
    /// `StorageFull` if there is not enough space, and the errors of statvfs(3).
    pub(super) fn reserve(&self, bytes: u64, purpose: Purpose) -> io::Result<Reservation<'_>> {
        let before = self.reserved.bytes.fetch_add(bytes, Ordering::Relaxed);
        let files = self.reserved.files.fetch_add(1, Ordering::Relaxed) + 1;
        let reservation = Reservation { total: &self.reserved, bytes };
        if self.is_free(before.saturating_add(bytes), files, purpose)? {
            Ok(reservation)
        } else {
            Err(io::Error::new(io::ErrorKind::StorageFull, "the spool has no room for it"))
        }
    }

    fn is_free(&self, bytes: u64, files: u64, purpose: Purpose) -> io::Result<bool> {
        let parts = if purpose == Purpose::Report { 2 } else { 1 };
        let stat = statvfs(&self.root)?;
        let free = free_bytes(&stat);
        // Some file systems do not count inodes.
        let has_files = stat.files() == 0 || stat.files_available() >= files.saturating_add(RESERVE_FILES / parts);
        Ok(has_files && free >= bytes.saturating_add(RESERVE / parts))
    }
}

fn free_bytes(stat: &Statvfs) -> u64 {
    stat.blocks_available().saturating_mul(stat.fragment_size())
}

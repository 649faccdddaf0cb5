//! Room: a reserve of the file system is kept free, so that accepted mail can be settled.

use std::io;

use super::Spool;

/// What is kept free: new mail is refused before the disk is full, so that what
/// was accepted can be settled.
const RESERVE: u64 = 16 << 20;
/// The same for inodes.
const RESERVE_FILES: u64 = 200;

impl Spool {
    /// Whether a message of `bytes` may come: a reserve is kept free.
    ///
    /// # Errors
    /// Those of statvfs(3).
    pub fn has_room(&self, bytes: u64) -> io::Result<bool> {
        let stat = nix::sys::statvfs::statvfs(&self.root)?;
        let free = stat.blocks_available().saturating_mul(stat.fragment_size());
        // Some file systems count no inodes.
        let files = stat.files() == 0 || stat.files_available() >= RESERVE_FILES;
        Ok(files && free >= bytes.saturating_add(RESERVE))
    }
}

//! What the spool keeps besides messages: the lock, which says the version too, and a key.
//!
//! One process at a time has the lock, and runs the queue. The key is made with the
//! first use and stays; one that a crash cuts off is made anew, and is never synced. Both are files of
//! the spool's owner alone, and both are open to several processes at once.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;

use super::Spool;
use super::open::SAFELY;
use crate::sys::disk;

const VERSION: &[u8] = b"penfold/1\n";

/// Held by the process that runs the queue.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code, reason = "the lock lasts as long as the file is open")] File);

impl Spool {
    pub(super) fn check_version(&self) -> io::Result<()> {
        let mut found = Vec::new();
        self.open_lock()?.take(64).read_to_end(&mut found)?;
        // Empty: made a moment ago, here or by another process.
        if found.is_empty() || found == VERSION {
            return Ok(());
        }
        let found = String::from_utf8_lossy(&found).trim_end().escape_default().to_string();
        Err(io::Error::new(io::ErrorKind::InvalidData, format!("the spool is of version {found}, not penfold/1")))
    }

    fn open_lock(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(SAFELY);
        disk::open(&self.root.join("lock"), &options)
    }

    /// Takes the lock, which one process can have; `None` if another one has it.
    ///
    /// # Errors
    /// Those of the system.
    pub fn lock(&self) -> io::Result<Option<Lock>> {
        let file = self.open_lock()?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Ok(None),
            Err(fs::TryLockError::Error(e)) => return Err(e),
        }
        if file.metadata()?.len() == 0 {
            disk::write(&file, VERSION)?;
        }
        Ok(Some(Lock(file)))
    }

    /// A key that nobody else knows, and that stays the same as long as the spool does.
    ///
    /// # Errors
    /// Those of the system; without random numbers, too.
    pub fn key(&self) -> io::Result<[u8; 32]> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(SAFELY);
        let file = disk::open(&self.root.join("key"), &options)?;
        file.lock()?; // Sessions under inetd may come at once.
        let mut key = [0; 32];
        if (&file).take(32).read_exact(&mut key).is_err() {
            getrandom::fill(&mut key).map_err(io::Error::other)?;
            disk::write_at(&file, &key, 0)?;
        }
        Ok(key)
    }
}

//! The lock file, which contains the version of the spool; and the key, a secret of the spool.
//!
//! The process that has the lock runs the queue. The key is made when it is first needed, and stays
//! the same; it is never synced, and a partial key that a crash leaves is replaced. Both files have
//! mode 0600, and several processes may open them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;

use super::Spool;
use super::open::SAFELY;
use crate::sys::disk;

const VERSION: &[u8] = b"penfold/1\n";

/// The lock, held until this is dropped.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code, reason = "the lock lasts as long as the file is open")] File);

impl Spool {
    pub(super) fn check_version(&self) -> io::Result<()> {
        let mut found = Vec::new();
        self.open_lock()?.take(64).read_to_end(&mut found)?;
        // The file is empty until a process takes the lock for the first time.
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

    /// Takes the lock; `None` if another process has it.
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

    /// A secret key that stays the same for the life of the spool.
    ///
    /// # Errors
    /// Those of the system, including those of getrandom(2).
    pub fn key(&self) -> io::Result<[u8; 32]> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(SAFELY);
        let file = disk::open(&self.root.join("key"), &options)?;
        // Several sessions under inetd may need the key at once.
        file.lock()?;
        let mut key = [0; 32];
        if (&file).take(32).read_exact(&mut key).is_err() {
            getrandom::fill(&mut key).map_err(io::Error::other)?;
            disk::write_at(&file, &key, 0)?;
        }
        Ok(key)
    }
}

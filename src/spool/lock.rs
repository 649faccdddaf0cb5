//! The lock of the spool and its secret key, each in a file of its own.
//!
//! The process that holds the lock runs the queue. The lock file contains the version of the spool.
//! The key is made when it is first needed, and then stays the same. The key file is never synced:
//! if a crash leaves a partial key, it is replaced. Both files have mode 0600, and several
//! processes may open them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;

use super::Spool;
use super::open::SAFELY;
use crate::sys::disk;

const VERSION: &[u8] = b"penfold/1\n";

/// The lock, which is held until this value is dropped.
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
        // Several sessions under inetd, each in a process of its own, may need the key at the same
        // time.
        file.lock()?;
        let mut key = [0; 32];
        if (&file).take(32).read_exact(&mut key).is_err() {
            getrandom::fill(&mut key).map_err(io::Error::other)?;
            disk::write_at(&file, &key, 0)?;
        }
        Ok(key)
    }
}

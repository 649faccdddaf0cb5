//! Keeps one kind of state for several processes, in a growing file and its predecessor.
//!
//! Each process reads each record once, in order, except the records that it has appended itself.
//! The lock is on the file that has the journal's name now. If a process finds a new file under
//! that name, because its open file was rotated or removed, it reads the rest of the old file and
//! continues with the new file.

use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use nix::libc::{O_NOFOLLOW, O_NONBLOCK};

use super::record::{MAX_LINE, Record};
use crate::sys::disk;

/// How long a process waits for a lock that another process has.
pub const LOCK_TIMEOUT: Duration = Duration::from_millis(200);
/// The interval between two attempts to get the lock.
const LOCK_INTERVAL: Duration = Duration::from_millis(2);
/// The minimum interval between two waits that time out.
const LOCK_PAUSE: Duration = Duration::from_secs(5);
/// A record that is more than this number of seconds in the future was written before the clock was
/// set back.
const MAX_SKEW: u64 = 60;

/// The bounds of a journal.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The maximum size of one file, in bytes; there are two files.
    pub max_size: u64,
    /// The age at which a record no longer counts.
    pub max_age: Duration,
}

/// Records that several processes share.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    limits: Limits,
    current: Option<Current>,
    /// The last `NAME.old` that was read. It is kept open so that its inode number is not reused.
    old: Option<File>,
    /// The time at which a wait for the lock timed out. While it is set, the lock is only tried,
    /// without waiting. It becomes `None` as soon as the lock is acquired [`LOCK_PAUSE`] or more
    /// after that time.
    timed_out: Option<Instant>,
    /// Whether an error was logged since the last append that succeeded.
    has_failed: bool,
}

/// The current file, and the progress of reading it.
#[derive(Debug)]
struct Current {
    file: File,
    /// The offset after the last complete line that was read.
    read: u64,
    /// The time of the file's first record, in seconds since 1970; `None` if no record was read
    /// yet.
    first: Option<u64>,
}

/// A journal that no other process reads or writes until this value is dropped.
#[derive(Debug)]
pub struct Locked<'a>(&'a mut Journal);

impl Journal {
    pub(super) fn new(path: PathBuf, limits: Limits) -> Self {
        Self { path, limits, current: None, old: None, timed_out: None, has_failed: false }
    }

    /// Locks the journal and calls `take` with the records that are new to this process. `now` is
    /// in seconds since 1970. If the lock or a file is not available now, logs that once and
    /// returns `None`.
    pub fn lock(&mut self, now: u64, mut take: impl FnMut(&Record)) -> Option<Locked<'_>> {
        match self.acquire(now, &mut take) {
            Ok(is_ready) => is_ready.then_some(Locked(self)),
            Err(error) => {
                self.fail(&error);
                None
            }
        }
    }

    /// Skips all records, so that a process that only appends need not read them. An error is
    /// reported when the journal is locked.
    pub fn skip(&mut self) {
        let Ok(mut current) = Current::open(&self.path) else { return };
        let length = current.file.metadata().map_or(0, |metadata| metadata.len());
        let (mut start, mut last) = ([0; MAX_LINE], [b'\n']);
        let read = current.file.read_at(&mut start, 0).unwrap_or(0);
        let first = start[..read].split(|&b| b == b'\n').next().and_then(Record::parse);
        current.first = first.map(|record| record.time);
        // An incomplete line at the end counts as not read, so that an append ends it first.
        let is_read = length == 0 || current.file.read_at(&mut last, length - 1).is_ok();
        current.read = if is_read && last == [b'\n'] { length } else { length - 1 };
        self.current = Some(current);
    }

    /// Calls `take` with the records that are new to this process, without the lock and without making a file. An
    /// error ends the reading.
    pub fn read(&mut self, now: u64, mut take: impl FnMut(&Record)) {
        if !self.path.exists() {
            return;
        }
        let mut take = filtered(self.limits, now, &mut take);
        if self.follow(now, &mut take).is_ok()
            && let Some(current) = &mut self.current
        {
            let _ = current.read(self.limits.max_size, &mut take);
        }
    }

    /// Releases the lock, and logs the error unless one was logged since the last successful
    /// append.
    fn fail(&mut self, error: &io::Error) {
        self.unlock();
        if !std::mem::replace(&mut self.has_failed, true) {
            ::log::warn!("state: {}: {error}; it is kept in memory only", self.path.display());
        }
    }

    fn unlock(&self) {
        if let Some(current) = &self.current {
            // Closing the file releases the lock anyway.
            let _ = current.file.unlock();
        }
    }

    /// Tries to get the lock, and with the lock reads all new records. Returns whether the lock was
    /// acquired.
    fn acquire(&mut self, now: u64, take: &mut dyn FnMut(&Record)) -> io::Result<bool> {
        let limits = self.limits;
        let mut take = filtered(limits, now, take);
        let mut waited = Duration::ZERO;
        // The number of attempts is bounded, since other processes might rotate the file each time.
        for _ in 0..1000 {
            self.follow(now, &mut take)?;
            let Some(current) = &mut self.current else { return Ok(false) };
            match current.file.try_lock() {
                Ok(()) if !is_at(&current.file, &self.path) => current.file.unlock()?,
                Ok(()) => {
                    self.timed_out.take_if(|since| since.elapsed() >= LOCK_PAUSE);
                    current.read(limits.max_size, &mut take)?;
                    if !self.is_full(now)? {
                        return Ok(true);
                    }
                    self.rotate()?;
                }
                Err(TryLockError::WouldBlock) if self.timed_out.is_some() => return Ok(false),
                Err(TryLockError::WouldBlock) if waited >= LOCK_TIMEOUT => {
                    self.timed_out = Some(Instant::now());
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "another process holds the lock"));
                }
                Err(TryLockError::WouldBlock) => {
                    thread::sleep(LOCK_INTERVAL);
                    waited += LOCK_INTERVAL;
                }
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Ok(false)
    }

    /// If another file has the journal's name now, reads the rest of the current file and opens the
    /// other one. Other processes may have rotated the journal more than once, so `NAME.old` is
    /// read as well, unless this process has read that file already. After an error no record will
    /// be read twice.
    fn follow(&mut self, now: u64, take: &mut dyn FnMut(&Record)) -> io::Result<()> {
        if let Some(current) = &mut self.current {
            if is_at(&current.file, &self.path) {
                return Ok(());
            }
            current.read(self.limits.max_size, take)?;
        }
        let next = Current::open(&self.path)?;
        if let Some(file) = open_old(&self.path)? {
            let mut known = self.current.iter().chain([&next]).map(|current| &current.file).chain(&self.old);
            let is_known = known.any(|known| is_same(known, &file));
            let written = file.metadata()?.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
            let mut previous = Current { file, read: 0, first: None };
            if !is_known && written.as_secs() >= now.saturating_sub(self.limits.max_age.as_secs()) {
                previous.read(self.limits.max_size, take)?;
            }
            self.old = Some(previous.file);
        }
        self.current = Some(next);
        Ok(())
    }

    fn is_full(&self, now: u64) -> io::Result<bool> {
        let Some(current) = &self.current else { return Ok(false) };
        let oldest = now.saturating_sub(self.limits.max_age.as_secs());
        let is_old = current.first.is_some_and(|first| first < oldest);
        Ok(is_old || current.file.metadata()?.len() + MAX_LINE as u64 > self.limits.max_size)
    }

    /// Renames the file to `NAME.old`, and opens a new file in its place.
    fn rotate(&mut self) -> io::Result<()> {
        disk::rename(&self.path, &old(&self.path))?;
        let next = Current::open(&self.path)?;
        self.unlock();
        self.old = self.current.replace(next).map(|current| current.file);
        Ok(())
    }
}

impl Locked<'_> {
    /// Appends a record. Returns whether it was written. A record that is too long is left out. An
    /// error is logged once.
    pub fn append(&mut self, record: &Record) -> bool {
        let Some(line) = record.to_line() else { return false };
        let written = self.0.current.as_mut().map_or(Ok(()), |current| current.append(&line, record.time));
        match &written {
            Ok(()) => self.0.has_failed = false,
            Err(error) => self.0.fail(error),
        }
        written.is_ok()
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.0.unlock();
    }
}

impl Current {
    fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600).custom_flags(O_NOFOLLOW | O_NONBLOCK);
        let file = disk::open(path, &options)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a regular file"));
        }
        Ok(Self { file, read: 0, first: None })
    }

    /// Reads the complete lines after those that were read before. Only the first `max_size` bytes
    /// of the file are read.
    fn read(&mut self, max_size: u64, take: &mut dyn FnMut(&Record)) -> io::Result<()> {
        let length = self.file.metadata()?.len();
        if length < self.read {
            // The file was emptied by hand.
            self.read = 0;
        }
        let mut bytes = Vec::new();
        (&self.file).seek(SeekFrom::Start(self.read))?;
        (&self.file).take(max_size.saturating_sub(self.read)).read_to_end(&mut bytes)?;
        let Some(end) = memchr::memrchr(b'\n', &bytes) else { return Ok(()) };
        self.read += end as u64 + 1;
        for line in bytes[..end].split(|&b| b == b'\n') {
            if let Some(record) = Record::parse(line) {
                self.first = self.first.or(Some(record.time));
                take(&record);
            }
        }
        Ok(())
    }

    /// Appends a line. All complete lines of the file must have been read.
    fn append(&mut self, line: &str, time: u64) -> io::Result<()> {
        let length = self.file.metadata()?.len();
        // If the file is longer than what was read, a process that was killed while writing has
        // left a partial line at the end.
        let text = if length > self.read { format!("\n{line}") } else { line.to_owned() };
        if let Err(error) = disk::write(&self.file, text.as_bytes()) {
            let _ = disk::cut(&self.file, length);
            return Err(error);
        }
        self.read = length + text.len() as u64;
        self.first = self.first.or(Some(time));
        Ok(())
    }
}

/// Calls `take` with all records in the files of a journal, the oldest first, without a lock.
pub(super) fn read(path: &Path, limits: Limits, now: u64, mut take: impl FnMut(&Record)) {
    let mut take = filtered(limits, now, &mut take);
    for path in [old(path), path.to_owned()] {
        let options = OpenOptions::new().read(true).custom_flags(O_NOFOLLOW | O_NONBLOCK).clone();
        let Ok(file) = options.open(path) else { continue };
        let mut file = Current { file, read: 0, first: None };
        // A file that cannot be read has no records.
        let _ = file.read(limits.max_size, &mut take);
    }
}

/// Returns a function that calls `take` with the records that are neither too old nor from the future.
fn filtered(limits: Limits, now: u64, take: &mut dyn FnMut(&Record)) -> impl FnMut(&Record) {
    let oldest = now.saturating_sub(limits.max_age.as_secs());
    move |record| {
        if (oldest..=now.saturating_add(MAX_SKEW)).contains(&record.time) {
            take(record);
        }
    }
}

/// The name of the current file's predecessor.
fn old(path: &Path) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(".old");
    name.into()
}

/// Opens the predecessor of the current file. Returns `None` if there is no predecessor.
fn open_old(path: &Path) -> io::Result<Option<File>> {
    match OpenOptions::new().read(true).custom_flags(O_NOFOLLOW | O_NONBLOCK).open(old(path)) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether `path` still leads to this open file.
fn is_at(file: &File, path: &Path) -> bool {
    matches!((std::fs::symlink_metadata(path), file.metadata()), (Ok(named), Ok(held)) if identity(&named) == identity(&held))
}

/// Whether two open files are the same one.
fn is_same(one: &File, other: &File) -> bool {
    matches!((one.metadata(), other.metadata()), (Ok(one), Ok(other)) if identity(&one) == identity(&other))
}

/// The device and the inode number.
fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

#[cfg(test)]
mod tests;

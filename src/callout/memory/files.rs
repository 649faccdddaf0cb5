//! Brings the memory and the journal together.
//!
//! The journal has a lock of its own. Who holds it takes the lock on the memory only for single
//! records, never while a file is read or written or another process has locked the journal. Who
//! holds the lock on the memory never waits for the journal.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use super::{LIMITS, Memory};
use crate::state::{Journal, State};

/// The minimum interval between two readings of the journal for clients.
const READ_EVERY: Duration = Duration::from_secs(1);
/// The name of the journal.
pub(super) const NAME: &str = "callouts";

/// The journal.
#[derive(Debug)]
pub(in crate::callout) struct Files {
    inner: Mutex<Inner>,
    /// Whether the journal was read once.
    is_read: AtomicBool,
}

#[derive(Debug)]
struct Inner {
    journal: Journal,
    /// The time of the last reading.
    read: Option<Instant>,
}

impl Files {
    /// The journal that is kept in `state`.
    pub(in crate::callout) fn kept(state: &State) -> Self {
        let inner = Inner { journal: state.journal(NAME, LIMITS), read: None };
        Self { inner: Mutex::new(inner), is_read: AtomicBool::new(false) }
    }

    /// Reads the records that other processes have written. No file is made or locked.
    pub(in crate::callout) fn read(&self, memory: &Mutex<impl AsMut<Memory>>, now: u64) {
        self.read_now(lock(&self.inner), memory, now);
    }

    /// The same, unless the journal was read just now, or is in use at the moment. Only the first
    /// reading is waited for.
    pub(in crate::callout) fn read_if_due(&self, memory: &Mutex<impl AsMut<Memory>>, now: u64) {
        let inner = match self.inner.try_lock() {
            Ok(inner) => inner,
            Err(TryLockError::Poisoned(inner)) => inner.into_inner(),
            Err(TryLockError::WouldBlock) if self.is_read.load(Ordering::Acquire) => return,
            Err(TryLockError::WouldBlock) => lock(&self.inner),
        };
        if inner.read.is_none_or(|read| read.elapsed() >= READ_EVERY) {
            self.read_now(inner, memory, now);
        }
    }

    fn read_now(&self, mut inner: MutexGuard<'_, Inner>, memory: &Mutex<impl AsMut<Memory>>, now: u64) {
        inner.journal.read(now, |record| lock(memory).as_mut().read(record));
        inner.read = Some(Instant::now());
        self.is_read.store(true, Ordering::Release);
    }

    /// Writes what the memory has for the journal. A record that cannot be written is left out.
    pub(in crate::callout) fn write(&self, memory: &Mutex<impl AsMut<Memory>>, now: u64) {
        let mut inner = lock(&self.inner);
        loop {
            let next = lock(memory).as_mut().unwritten();
            let Some(record) = next else { return };
            let locked = inner.journal.lock(now, |other| lock(memory).as_mut().read(other));
            let is_written = locked.is_some_and(|mut locked| locked.append(&record));
            lock(memory).as_mut().written(is_written);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

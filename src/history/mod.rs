//! Keeps the log lines of events, so that `penfoldctl trace` can show what has happened to a message
//! that is no longer in the spool.
//!
//! There are two histories: one of messages, and one of events of clients without a message, mostly
//! refusals. Each has its own size, so that a flood of refusals does not displace the messages. A
//! history is a series of files in `state/` of the spool, see `segments`.
//!
//! Like all state, the history is never synced and not trusted when it is read, and no mail waits for
//! it. Lines are collected in memory. In the daemon, a thread writes them within [`WRITE_INTERVAL`].
//! Other processes write them when they end, and at most every [`WRITE_INTERVAL`] before. If lines
//! cannot be written, they are lost, and one warning is logged.
//!
//! - `segments`: the files of one history

use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

mod segments;

use segments::Segments;

/// How long a line may wait in memory.
pub const WRITE_INTERVAL: Duration = Duration::from_secs(1);
/// The number of bytes in memory from which lines are written at once.
const WRITE_SIZE: usize = 256 << 10;
/// The maximum number of bytes in memory. Lines beyond it are lost.
const MAX_PENDING: usize = 4 << 20;
/// The part of the size that the history of refusals has.
const REFUSED_PART: u64 = 4;

/// The two histories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Accepted messages, and everything that happens to them later.
    Messages,
    /// What clients do without a message, mostly refusals.
    Refused,
}

/// The bounds of the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The maximum size of the history of messages, in bytes. The history of refusals may have a
    /// quarter of it. If it is 0, no history is kept.
    pub size: u64,
    /// The age from which lines are no longer shown, and then removed.
    pub keep: Duration,
}

impl Bounds {
    fn size_of(self, kind: Kind) -> u64 {
        match kind {
            Kind::Messages => self.size,
            Kind::Refused => self.size / REFUSED_PART,
        }
    }
}

/// The history that this process writes.
static HISTORY: OnceLock<History> = OnceLock::new();

struct History {
    directory: PathBuf,
    pending: Mutex<Pending>,
    /// Notified if a thread waits for lines and there are some.
    has_lines: Condvar,
    /// The files. Only a thread that writes locks them, and never while it holds `pending`.
    files: Mutex<Files>,
}

/// The lines that are not written yet.
struct Pending {
    bounds: Bounds,
    messages: Vec<u8>,
    refused: Vec<u8>,
    written: Instant,
    /// Whether a thread writes the lines.
    has_thread: bool,
    /// Whether that thread waits for the first line.
    is_idle: bool,
}

struct Files {
    messages: Segments,
    refused: Segments,
    has_failed: bool,
}

/// Starts to write the history of this process to a directory. With `in_background`, a thread writes
/// the lines, and the caller only has to call [`flush`] at the end.
pub fn start(directory: &Path, bounds: Bounds, in_background: bool) {
    let pending = Pending {
        bounds,
        messages: Vec::new(),
        refused: Vec::new(),
        written: Instant::now(),
        has_thread: in_background,
        is_idle: false,
    };
    let files = Files {
        messages: Segments::new(directory, Kind::Messages),
        refused: Segments::new(directory, Kind::Refused),
        has_failed: false,
    };
    let history = History {
        directory: directory.to_owned(),
        pending: Mutex::new(pending),
        has_lines: Condvar::new(),
        files: Mutex::new(files),
    };
    if HISTORY.set(history).is_err() || !in_background {
        return;
    }
    let started = thread::Builder::new().name("history".to_owned()).stack_size(128 << 10).spawn(|| {
        if let Some(history) = HISTORY.get() {
            history.write_forever();
        }
    });
    if let (Err(error), Some(history)) = (started, HISTORY.get()) {
        ::log::warn!("history: start a thread: {error}");
        lock(&history.pending).has_thread = false;
    }
}

/// Changes the bounds after the configuration was read again.
pub fn set_bounds(bounds: Bounds) {
    if let Some(history) = HISTORY.get() {
        lock(&history.pending).bounds = bounds;
    }
}

/// Whether this process keeps a history.
pub fn is_kept() -> bool {
    HISTORY.get().is_some()
}

/// Adds lines, which stay together. They contain no line feed.
pub fn append(kind: Kind, lines: &[&str]) {
    if let Some(history) = HISTORY.get() {
        history.append(kind, lines);
    }
}

/// Writes the lines that are in memory, so that they can be read.
pub fn flush() {
    if let Some(history) = HISTORY.get() {
        history.write();
    }
}

/// Reads a history, the oldest lines first. `take` gets pieces of complete lines; each line begins with
/// its time. A file that cannot be read is skipped.
///
/// # Errors
/// If the directory cannot be read.
pub fn read(directory: &Path, kind: Kind, take: &mut dyn FnMut(&[u8])) -> std::io::Result<()> {
    if HISTORY.get().is_some_and(|history| history.directory == directory) {
        flush();
    }
    segments::read(directory, kind, take)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl History {
    fn append(&self, kind: Kind, lines: &[&str]) {
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let (seconds, millis) = (time.as_secs(), time.subsec_millis());
        let mut pending = lock(&self.pending);
        if pending.bounds.size == 0 {
            return;
        }
        let buffer = match kind {
            Kind::Messages => &mut pending.messages,
            Kind::Refused => &mut pending.refused,
        };
        for line in lines {
            if buffer.len() + line.len() < MAX_PENDING {
                use std::io::Write;
                // Writing to a vector cannot fail.
                let _ = writeln!(buffer, "{seconds}.{millis:03} {line}");
            }
        }
        let is_full = buffer.len() > WRITE_SIZE;
        if pending.is_idle {
            pending.is_idle = false;
            self.has_lines.notify_one();
        }
        if is_full || !pending.has_thread && pending.written.elapsed() >= WRITE_INTERVAL {
            drop(pending);
            self.write();
        }
    }

    /// Waits for lines and writes them, forever. An idle daemon is not woken up.
    fn write_forever(&self) {
        loop {
            let mut pending = lock(&self.pending);
            if pending.messages.is_empty() && pending.refused.is_empty() {
                pending.is_idle = true;
                while pending.is_idle {
                    pending = self.has_lines.wait(pending).unwrap_or_else(PoisonError::into_inner);
                }
            }
            drop(pending);
            thread::sleep(WRITE_INTERVAL);
            self.write();
        }
    }

    fn write(&self) {
        let mut files = lock(&self.files);
        let mut pending = lock(&self.pending);
        let (messages, refused) = (std::mem::take(&mut pending.messages), std::mem::take(&mut pending.refused));
        pending.written = Instant::now();
        let bounds = pending.bounds;
        drop(pending);
        let Files { messages: of_messages, refused: of_refused, has_failed } = &mut *files;
        for (segments, kind, text) in [(of_messages, Kind::Messages, messages), (of_refused, Kind::Refused, refused)] {
            if text.is_empty() {
                continue;
            }
            match segments.append(&text, bounds.size_of(kind), bounds.keep) {
                Ok(()) => *has_failed = false,
                Err(_) if *has_failed => {}
                Err(error) => {
                    *has_failed = true;
                    ::log::warn!("history: {}: {error}", self.directory.display());
                }
            }
        }
    }
}

//! Keeps the lines of the log in memory, for a command that shows them in another form.

use std::sync::{Mutex, PoisonError};

use ::log::{Level, LevelFilter, Log, Metadata, Record};

/// The maximum number of lines that are kept.
const MAX_LINES: usize = 10_000;

/// The warnings and errors that were logged.
#[derive(Debug)]
pub struct Collected(Mutex<Vec<(Level, String)>>);

static COLLECTED: Collected = Collected(Mutex::new(Vec::new()));

/// Collects all warnings and errors that this process logs from now on. They are written nowhere.
/// If the log was started before, nothing is collected.
pub fn collect() -> &'static Collected {
    super::zone();
    if ::log::set_logger(&COLLECTED).is_ok() {
        ::log::set_max_level(LevelFilter::Warn);
    }
    &COLLECTED
}

impl Collected {
    /// Takes the lines that were logged since the last call.
    pub fn take(&self) -> Vec<(Level, String)> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Log for Collected {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Warn && !metadata.target().starts_with("rustls")
    }

    fn log(&self, record: &Record<'_>) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if self.enabled(record.metadata()) && lines.len() < MAX_LINES {
            lines.push((record.level(), record.args().to_string()));
        }
    }

    fn flush(&self) {}
}

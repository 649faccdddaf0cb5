//! State beside the queue: what penfold remembers for convenience, in `state/` of the spool.
//!
//! Each kind of state is a [`Journal`]: records appended to a file, which every process
//! reads and folds into a table of its own. A journal
//!
//! - is bounded: two files of at most [`Limits::max_size`] bytes each, and records older
//!   than [`Limits::max_age`] do not count and are removed with their file;
//! - is never synced: a power cut may cost the last minutes, and no mail waits for it;
//! - is distrusted: any bytes may stand in its files. A record that is malformed, damaged,
//!   too long, too old or from the future is skipped, and nothing else is lost with it;
//! - is shared by the daemon and all sessions of inetd. A lock on the file (flock(2), held
//!   for one reading and one write) orders them. A process that cannot get the lock within
//!   [`journal::LOCK_TIMEOUT`] goes on with what it remembers. Appending without a lock
//!   would be as safe for the file, but a limit that two processes check at once would not
//!   be one;
//! - may be lost, whole or in part, at any time: files that are removed or damaged are made
//!   anew. Errors of the system are logged once, and the process goes on with its own
//!   memory.
//!
//! A file is rotated when it is full or its first record is too old: `NAME` becomes
//! `NAME.old`, which replaces the one before it.
//!
//! Users: `submit::usage`, what each account has sent within the hour. Does not know what
//! its records mean, and is no place for anything that mail depends on: that is the spool.
//!
//! - `journal`: one kind of state: its files, lock, rotation and limits
//! - `record`: one record as a line: written, checked, read

use std::path::{Path, PathBuf};

pub mod journal;
mod record;

pub use journal::{Journal, Limits};
pub use record::Record;

/// The directory of the state, which the spool has made.
#[derive(Debug, Clone)]
pub struct State {
    directory: PathBuf,
}

impl State {
    /// The state in a directory. Nothing is opened yet.
    pub fn at(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// One kind of state. Its files are made when it is first used.
    pub fn journal(&self, name: &'static str, limits: Limits) -> Journal {
        Journal::new(self.directory.join(name), limits)
    }
}

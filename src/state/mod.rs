//! Keeps auxiliary state that no message depends on, in `state/` of the spool.
//!
//! Each kind of state is a [`Journal`]: records appended to a file, which every process
//! reads and combines into a table of its own. A journal
//!
//! - is bounded: two files of at most [`Limits::max_size`] bytes each, and records older
//!   than [`Limits::max_age`] do not count and disappear when their file is replaced;
//! - is never synced: a power cut may lose the last minutes, but no mail waits for a sync;
//! - is not trusted: its files may contain any bytes. A record that is malformed, damaged,
//!   too long, too old or from the future is skipped, and nothing else is lost with it;
//! - is shared by the daemon and all sessions under inetd. A lock on the file (flock(2), held for
//!   one reading and one write) serializes them. A process that cannot get the lock within
//!   [`journal::LOCK_TIMEOUT`] continues with its own table. From then on it only tries the lock,
//!   without waiting, until some seconds have passed and it has acquired the lock once. Appending
//!   without a lock would not damage the file, but two processes that check a limit at the same
//!   time could exceed it;
//! - may be lost at any time, completely or in part: files that are removed or damaged are made
//!   anew. Errors, and a wait for the lock that times out, are logged once until an append
//!   succeeds again; the process continues with its own table.
//!
//! A file is rotated when it is full or its first record is too old: `NAME` becomes
//! `NAME.old`, and replaces the previous `NAME.old`.
//!
//! `submit::usage` keeps such state: the amount of mail that each account, local user or stranger
//! has sent within the hour. So do `screen::greylist`, for the clients that were asked to try
//! again, `mailauth::dmarc::reports`, for the messages that reports are about, and `stats`, for the
//! numbers of the last weeks. Whatever a message depends on belongs in the spool itself.
//!
//! - `journal`: one kind of state: its files, lock, rotation and limits
//! - `record`: one record as a line: written, checked, read

use std::path::{Path, PathBuf};

pub mod journal;
mod record;

pub use journal::{Journal, Limits};
pub use record::Record;

/// The `state/` directory of the spool, which `spool` creates.
#[derive(Debug, Clone)]
pub struct State {
    directory: PathBuf,
}

impl State {
    /// The state in a directory. Nothing is opened yet.
    pub fn at(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// Calls `take` with all records of one kind of state, the oldest first. Nothing is locked or
    /// created. Files that are missing or cannot be read have no records.
    pub fn read(&self, name: &'static str, limits: Limits, now: u64, take: impl FnMut(&Record)) {
        journal::read(&self.directory.join(name), limits, now, take);
    }

    /// The journal of one kind of state. Its files are made when the journal is first used.
    pub fn journal(&self, name: &'static str, limits: Limits) -> Journal {
        Journal::new(self.directory.join(name), limits)
    }
}

//! A direct entry that becomes a user's own file: given away, and linked into his mailbox.
//!
//! The server marks the file (mode 0640, and the time of the id as that of its last
//! change), root gives it to the user, and an agent that runs as him links it, makes it
//! 0600, and takes it into his group. Up to the link nobody but the server and
//! that agent can reach it, and the server reads it as its group. So a file with the mark
//! that the server cannot read has its name in the mailbox, and its name here can go.
//!
//! What was given may have been written to by its new owner, once it is in his mailbox: it
//! can never be a queued head, and the worker sees to it that nobody else gets it. Does
//! not give anything itself, and does not link: `deliver::maildir` does.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{getegid, geteuid};

use super::{Entry, QueueId, Spool, open};
use crate::sys::disk;

/// The mode of a file that is given away, and of no other one in the spool.
pub const HANDOVER_MODE: u32 = 0o640;

/// Whose a file is, if it can have been given to him.
pub(super) fn to(metadata: &Metadata) -> Option<u32> {
    let (own, uid) = (geteuid(), metadata.uid());
    // Whoever is root only looks, and gives nothing away.
    (!own.is_root() && uid != 0 && uid != own.as_raw()).then_some(uid)
}

/// Opens what may not be written to: what was given away, to be read. What is in its
/// mailbox loses its name here, unless the spool is only looked at, and is not found.
pub(super) fn open(spool: &Spool, id: QueueId, path: &Path, error: io::Error) -> io::Result<File> {
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_file() || to(&metadata).is_none() || !is_marked(&metadata, id) {
        return Err(error);
    }
    match open::to_read(path) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied && is_accepted(&metadata) => {
            if !spool.is_read_only {
                disk::remove(path)?;
            }
            Err(io::ErrorKind::NotFound.into())
        }
        opened => opened,
    }
}

fn is_marked(metadata: &Metadata, id: QueueId) -> bool {
    metadata.modified().is_ok_and(|time| time == id.time())
}

fn is_accepted(metadata: &Metadata) -> bool {
    metadata.mode() & 0o7777 == 0o600
}

impl Entry {
    /// Whose the file was when it was opened, if it was given away.
    pub fn handed_over_to(&self) -> Option<u32> {
        self.handed_over
    }

    /// Marks a direct entry to be given away. False if it cannot be: after a power cut the file
    /// system could be without both names, it does not keep the mark, or the server would not
    /// be able to read what it has given.
    ///
    /// # Errors
    /// Those of fchmod(2) and the like.
    pub fn mark(&self) -> io::Result<bool> {
        self.spool.remove_duplicate(self.id())?;
        if geteuid().is_root() || !disk::keeps_order(&self.file)? {
            return Ok(false);
        }
        disk::set_mode(&self.file, HANDOVER_MODE)?;
        disk::set_time(&self.file, self.id().time())?;
        let metadata = self.file.metadata()?;
        let is_readable = metadata.gid() == getegid().as_raw() && metadata.mode() & 0o7777 == HANDOVER_MODE;
        Ok(is_readable && metadata.nlink() == 1 && is_marked(&metadata, self.id()))
    }

    /// Whether the agent has said, by the mode of the file, that it is in its mailbox.
    pub fn is_accepted(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| is_accepted(&metadata))
    }
}

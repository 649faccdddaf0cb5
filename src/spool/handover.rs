//! The handover of a direct entry to a system user: the entry's file becomes the user's own, and is
//! linked into the user's mailbox.
//!
//! First the server marks the file: it sets mode 0640, and sets the file's modification time to the
//! time in the queue id. Then root makes the user the owner. Finally an agent, a process that runs
//! as the user, links the file into the mailbox, and sets mode 0600 and the user's group. Before
//! the link, the user's other processes cannot reach the file, and the server can read it by its
//! group. The change of the mode, which follows the link, takes that right away. So if the server
//! cannot read a marked file, the file has a name in the mailbox, and its name in the spool can be
//! removed.
//!
//! Once the file is in the mailbox, the user may have written to it. So a file that was handed over
//! is never read as a queued entry, and is delivered to that user only. This module marks and opens
//! files; `deliver::local::handover` requests the change of the owner and the link.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{getegid, geteuid};

use super::{Entry, QueueId, Spool, open};
use crate::sys::disk;

/// The mode of a file that is being handed over, and of no other file in the spool.
pub const HANDOVER_MODE: u32 = 0o640;

/// The uid of the user to whom a file was handed over; `None` if it was not handed over.
pub(super) fn new_owner(metadata: &Metadata) -> Option<u32> {
    let (server, owner) = (geteuid(), metadata.uid());
    // A process that runs as root only reads the spool, and hands nothing over.
    (!server.is_root() && owner != 0 && owner != server.as_raw()).then_some(owner)
}

/// Opens a file that was handed over, for reading, because the server may not write to it. `error`
/// is the error of the attempt to open the file for writing, and is returned if the file was not
/// handed over. If the file is in its mailbox already, its name in the spool is removed, and the
/// error is `NotFound`.
pub(super) fn open(spool: &Spool, id: QueueId, path: &Path, error: io::Error) -> io::Result<File> {
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_file() || new_owner(&metadata).is_none() || !is_marked(&metadata, id) {
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
    /// The uid of the user to whom the file had been handed over when it was opened; `None` if it
    /// had not been handed over.
    pub fn handed_over_to(&self) -> Option<u32> {
        self.handed_over
    }

    /// Marks a direct entry for the handover. Returns false if a handover is impossible: the file
    /// system may lose both names of the file in a power cut, or does not store the mark, or the
    /// server could not read the file after the handover.
    ///
    /// # Errors
    /// Those of fchmod(2), futimens(2) and fstat(2).
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

    /// Whether the agent has set mode 0600, which shows that the file is in the mailbox.
    pub fn is_accepted(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| is_accepted(&metadata))
    }
}

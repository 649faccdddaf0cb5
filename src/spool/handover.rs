//! The handover: a direct entry becomes a file that the user owns, and is linked into the mailbox.
//!
//! The server marks the file with mode 0640 and the time of the id, root changes its owner to the
//! user, and an agent that runs as the user links it, sets mode 0600 and the user's group. Before
//! the link only the server and that agent can reach the file, and the server can still read it by
//! its group. So a marked file that the server cannot read has a name in the mailbox, and its name
//! in the spool can be removed.
//!
//! Once the file is in the mailbox, the user may have written to it. So a file that was handed over
//! is never read as a queued entry, and the worker delivers it to that user only. The change of
//! the owner and the link are made elsewhere: see `deliver::local::handover`.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{getegid, geteuid};

use super::{Entry, QueueId, Spool, open};
use crate::sys::disk;

/// The mode of a file that is being handed over, and of no other file in the spool.
pub const HANDOVER_MODE: u32 = 0o640;

/// The user that a file was handed over to, if it was.
pub(super) fn new_owner(metadata: &Metadata) -> Option<u32> {
    let (server, owner) = (geteuid(), metadata.uid());
    // A process that runs as root only reads the spool, and hands nothing over.
    (!server.is_root() && owner != 0 && owner != server.as_raw()).then_some(owner)
}

/// Opens a file that was handed over, which the server may only read. If it is in its mailbox
/// already, its name in the spool is removed, and the error is `NotFound`. `error` is the one from
/// opening it for writing.
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
    /// The user that the file had been handed over to when it was opened.
    pub fn handed_over_to(&self) -> Option<u32> {
        self.handed_over
    }

    /// Marks a direct entry for the handover. False if a handover is impossible: the file system
    /// could lose both names in a power cut or does not store the mark, or the server could not
    /// read the file after the handover.
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

    /// Whether the agent has accepted the file: its mode shows that it is in the mailbox.
    pub fn is_accepted(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| is_accepted(&metadata))
    }
}

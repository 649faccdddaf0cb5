//! Opens files of the spool without following a symbolic link, and without waiting for a FIFO.
//!
//! The server's user owns the spool. An attacker who controls the server could put a link to
//! another file there, or a FIFO, and root would open it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::libc::{O_NOFOLLOW, O_NONBLOCK};

/// The flags for every open(2) in the spool.
pub(super) const SAFELY: i32 = O_NOFOLLOW | O_NONBLOCK;

/// Opens a file for reading.
pub(super) fn to_read(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(SAFELY).open(path)
}

/// Opens a file for reading and writing.
pub(super) fn to_change(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(SAFELY).open(path)
}

/// Whether an open(2) failed because the path is a symbolic link.
pub(super) fn is_link(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::ELOOP as i32)
}

//! How files of the spool are opened: no link is followed, and nothing is waited for.
//!
//! The spool belongs to the server, and whoever has taken that over could leave a link to
//! another file there, or a FIFO that keeps waiting who opens it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::libc::{O_NOFOLLOW, O_NONBLOCK};

/// What goes with every open(2).
pub(super) const SAFELY: i32 = O_NOFOLLOW | O_NONBLOCK;

/// Opens a file to be read.
pub(super) fn to_read(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(SAFELY).open(path)
}

/// Opens a file to be read and changed.
pub(super) fn to_change(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(SAFELY).open(path)
}

/// Whether an error says that there is a link.
pub(super) fn is_link(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::ELOOP as i32)
}

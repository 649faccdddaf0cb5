//! Opens one file as root, in a process of its own, and passes it to the server by way of the
//! monitor.
//!
//! The caller has checked that the configuration names the file. The opener opens the file only if
//! nobody but root can have put the file at its path.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;

use super::fdpass;
use super::rootpath::{is_roots, is_roots_alone};

/// Opens a file and sends it over standard input, which is a socket.
///
/// # Errors
/// `EACCES` if a user other than root can change the file or where its path leads, or if it is not
/// a regular file; otherwise the errors of open(2) and sendmsg(2).
pub fn send(path: &Path) -> io::Result<()> {
    let denied = || io::Error::from(Errno::EACCES);
    if !is_roots_alone(path) {
        return Err(denied());
    }
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(fs::canonicalize(path)?)?;
    let metadata = file.metadata()?;
    if !is_roots(&metadata) || !metadata.is_file() {
        return Err(denied());
    }
    fdpass::send(io::stdin(), &[1], Some(file.as_fd())).map(drop)
}

//! Opens files as root, in a process of its own, and passes them to the server by way of the monitor.
//!
//! The caller decides which files the server may have. The opener opens a file only if nobody but root
//! can have put the file at its path. It ends when the monitor closes the socket.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;

use super::request::{self, Request};
use super::rootpath::{is_roots, is_roots_alone};

/// Answers the requests on standard input, which is a socket, until it is closed. A file is opened
/// only if `is_secret` says that it is a file for the server.
///
/// # Errors
/// If the socket fails.
pub fn run(is_secret: impl Fn(&Path) -> bool) -> io::Result<()> {
    let carry_out = |request, _| match request {
        Request::File(path) if is_secret(&path) => open(&path).map(Some),
        _ => Err(Errno::EACCES.into()),
    };
    while request::answer(io::stdin(), carry_out)? {}
    Ok(())
}

/// Opens a file. Fails if a user other than root can change the file or where its path leads, or if
/// it is not a regular file.
fn open(path: &Path) -> io::Result<OwnedFd> {
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
    Ok(file.into())
}

//! A file that only root may read, for the server, which may not.
//!
//! The keeper begins a process for each, which is this program under another name: it reads
//! the configuration as it is now, so that a file that came in with a reload is found, and
//! passes on what it has opened. It opens a certificate, a key, a users file or credentials
//! that the configuration names, and nothing else; and only if root alone can have put
//! the configuration and the file there. Why it did not it tells nobody: the server knows that
//! it may not.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;

use super::{Start, permissions};
use crate::config;
use crate::privsep::fdpass;
use crate::privsep::rootpath::{is_roots, is_roots_alone};

impl Start {
    /// Opens a file and passes it to standard input, which is a socket.
    ///
    /// # Errors
    /// `EACCES` for one that is not to be opened, and those of the system.
    pub fn hand_out(&self, path: &Path) -> io::Result<()> {
        let denied = || io::Error::from(Errno::EACCES);
        let configuration = self.path();
        // Errors in it are the server's to tell.
        let config = is_roots_alone(configuration).then(|| config::examine(configuration).0).flatten();
        let is_secret = config.is_some_and(|config| permissions::Names::of(configuration, &config).has_secret(path));
        if !is_secret || !is_roots_alone(path) {
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
}

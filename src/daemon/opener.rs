//! Which files the opener may open for the server: certificates, keys, the users file and
//! credentials that the configuration names now, provided that only root can change the
//! configuration.
//!
//! The opener reads the configuration itself, so that it knows files that a reload has added. It
//! does not report why it refuses a file: the server just logs that permission was denied.

use std::io;
use std::path::Path;

use nix::errno::Errno;

use super::{Start, permissions};
use crate::config;
use crate::privsep::opener;
use crate::privsep::rootpath::is_roots_alone;

impl Start {
    /// Opens a file and sends it over standard input, which is a socket.
    ///
    /// # Errors
    /// `EACCES` if the opener must not open the file; otherwise the errors of open(2) and
    /// sendmsg(2).
    pub fn send_file(&self, path: &Path) -> io::Result<()> {
        let configuration = self.path();
        // Errors in the configuration are left to the server to report.
        let config = is_roots_alone(configuration).then(|| config::examine(configuration).0).flatten();
        let is_secret = config.is_some_and(|config| permissions::Names::of(configuration, &config).has_secret(path));
        if is_secret { opener::send(path) } else { Err(Errno::EACCES.into()) }
    }
}

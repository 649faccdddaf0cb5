//! Decides which files the opener, a process that opens one file as root, may open for the server.
//!
//! These files are the certificates, keys, users files and credentials that the configuration names
//! now, and the keys that its tables of keys name. A file may be opened only if nobody but root can
//! change the configuration and, for a key that a table names, that table. The opener reads the
//! configuration itself, so that it also knows the files that a reload has added. It does not say
//! why it refuses a file: the server only logs that permission was denied.

use std::io;
use std::path::Path;

use nix::errno::Errno;

use super::{Start, permissions};
use crate::config::{self, Config};
#[cfg(feature = "mailauth")]
use crate::mailauth::keys;
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
        // The server, not the opener, reports errors in the configuration.
        let config = is_roots_alone(configuration).then(|| config::examine(configuration).0).flatten();
        let is_secret = config.is_some_and(|config| {
            permissions::Names::of(configuration, &config).has_secret(path) || is_in_table(&config, path)
        });
        if is_secret { opener::send(path) } else { Err(Errno::EACCES.into()) }
    }
}

/// Whether a table of keys names this file. A table is read only if nobody but root can change it.
#[cfg(feature = "mailauth")]
fn is_in_table(config: &Config, path: &Path) -> bool {
    let tables = config.dkim.iter().filter_map(|dkim| match dkim {
        config::Dkim::Table(table) => Some(table),
        config::Dkim::Key(_) => None,
    });
    tables.filter(|table| is_roots_alone(table)).any(|table| keys::names_of_table(table).iter().any(|key| key == path))
}

#[cfg(not(feature = "mailauth"))]
fn is_in_table(_: &Config, _: &Path) -> bool {
    false
}

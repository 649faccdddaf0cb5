//! Where in the file system the server may go: its spool, its configuration and the
//! mailboxes that are its own.
//!
//! Only a server that root has started is confined, since for any other one there is
//! nobody who could do the rest. What it needs is taken from the configuration with
//! which it starts: a directory that comes in later needs a restart. For a mailbox that
//! does, an agent works until then (`deliver::agent`).

use std::path::{Path, PathBuf};

use ::log::Level;

use super::Start;
use super::permissions;
use crate::config::LogTo;
use crate::exit::{self, Exit};
use crate::privsep::Rights;
use crate::privsep::confine::{self, Confinement, Places};
use crate::site::Settings;

/// What programs need to know of the system.
const SYSTEM: [&str; 6] = ["/etc", "/usr/share", "/usr/lib/ssl", "/usr/local/share", "/proc", "/sys"];

/// Where the programs keep resolv.conf(5) that may become its author while we run.
const RESOLVERS: [&str; 4] = ["/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager", "/run/connman"];

/// Files of the system that are often links to places of a program's own.
const LINKS: [&str; 4] = ["/etc/resolv.conf", "/etc/hosts", "/etc/localtime", "/etc/ssl/certs/ca-certificates.crt"];

/// Directories of mailboxes that the server itself may write to: in others an agent works.
const MOST_ROOTS: usize = 10_000;

impl Start {
    /// Confines this process, if it has a monitor, before it begins its first thread. What
    /// the kernel lacks is said once, by the daemon; `is_brief` is for who does not stay, of
    /// whom there may be one for each client.
    pub(super) fn confine(&self, settings: &Settings, rights: &Rights, is_brief: bool) -> Result<(), Exit> {
        if !rights.has_monitor() {
            return Ok(());
        }
        let confined = confine::confine(&self.places(settings))
            .map_err(|e| Exit::new(exit::OSERR, "confine the server to its files", &e))?;
        let level = |level| if is_brief { Level::Debug } else { level };
        match confined {
            Confinement::Full => {}
            Confinement::Partial => {
                ::log::log!(
                    level(Level::Info),
                    "this kernel or machine lacks a part: the server is confined as far as it goes"
                )
            }
            Confinement::None => {
                ::log::log!(
                    level(Level::Warn),
                    "this kernel has no Landlock, or too old a one: the server is not confined to its files"
                )
            }
        }
        Ok(())
    }

    fn places(&self, settings: &Settings) -> Places {
        let config = &settings.config;
        let mut read: Vec<PathBuf> = SYSTEM.map(PathBuf::from).to_vec();
        read.extend(RESOLVERS.map(PathBuf::from));
        read.extend(LINKS.iter().flat_map(|file| permissions::around(Path::new(file))));
        read.extend(permissions::Names::of(self.path(), config).directories());
        let roots = settings.router.mailbox_roots();
        let mut write: Vec<PathBuf> = vec![config.spool.clone(), PathBuf::from("/dev/null")];
        write.extend(config.socket.parent().map(Path::to_owned));
        if let LogTo::File(path) = &config.log {
            write.extend(path.parent().map(Path::to_owned));
        }
        write.extend(outermost(roots.iter().filter_map(|root| nearest(root)).collect()));
        Places { read, write }
    }
}

/// Some directories without those that lie below another one, at most so many.
fn outermost(mut directories: Vec<PathBuf>) -> Vec<PathBuf> {
    directories.sort_unstable();
    directories.dedup_by(|below, above| below.starts_with(above));
    directories.truncate(MOST_ROOTS);
    directories
}

/// The directory itself, or the nearest one above in which it can be made.
fn nearest(directory: &Path) -> Option<PathBuf> {
    directory.ancestors().find(|path| path.is_dir()).filter(|path| path.parent().is_some()).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_below_another_needs_no_rule() {
        let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        let given = paths(&["/m/b/c", "/m/b", "/m", "/m-x", "/n/a", "/n/a", "/m/c"]);
        assert_eq!(outermost(given), paths(&["/m", "/m-x", "/n/a"]));
        let many = (0..2 * MOST_ROOTS).map(|n| PathBuf::from(format!("/d{n}"))).collect();
        assert_eq!(outermost(many).len(), MOST_ROOTS);
    }
}

//! Determines the places in the file system to which the server is confined: mainly the spool, the
//! configuration, and the mailboxes that the server itself writes to.
//!
//! Only a server with a monitor, the process that stays root, is confined. Its agents, processes
//! that the monitor starts for other users, can do the work in all other places. The places are
//! taken from the configuration at the start, so a directory that a reload adds stays inaccessible
//! until a restart. Until then, an agent delivers to the mailboxes in that directory
//! (`deliver::agent`).

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use ::log::Level;

use super::Start;
use super::permissions;
use crate::config::LogTo;
use crate::exit::{self, Exit};
use crate::privsep::Rights;
use crate::privsep::confine::{self, Confinement, Places};
use crate::site::Settings;

/// System directories that libraries read.
const SYSTEM: [&str; 6] = ["/etc", "/usr/share", "/usr/lib/ssl", "/usr/local/share", "/proc", "/sys"];

/// Directories in which other programs may change resolv.conf(5) while the server runs.
const RESOLVERS: [&str; 4] = ["/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager", "/run/connman"];

/// System files that are often links. The server must be able to read the files that the links lead
/// to.
const LINKS: [&str; 4] = ["/etc/resolv.conf", "/etc/hosts", "/etc/localtime", "/etc/ssl/certs/ca-certificates.crt"];

/// The maximum number of mailbox directories that the server itself may write to. Agents deliver to
/// the other directories.
const MAX_ROOTS: usize = 10_000;

/// Whether this process is confined to files.
static IS_CONFINED: AtomicBool = AtomicBool::new(false);

/// Whether this process is confined to the files of its start.
pub(super) fn is_confined() -> bool {
    IS_CONFINED.load(Ordering::Relaxed)
}

impl Start {
    /// Confines this process if it has a monitor. Must be called before this process starts its
    /// first thread. If the confinement is incomplete, logs a message. For a process that serves
    /// one client, or runs the queue once (`is_brief`), the message is logged only at the level for
    /// debugging.
    pub(super) fn confine(&self, settings: &Settings, rights: &Rights, is_brief: bool) -> Result<(), Exit> {
        if !rights.has_monitor() {
            return Ok(());
        }
        let confined = confine::confine(&self.places(settings))
            .map_err(|e| Exit::new(exit::OSERR, "confine the server to its files", &e))?;
        IS_CONFINED.store(confined != Confinement::None, Ordering::Relaxed);
        let level = |level| if is_brief { Level::Debug } else { level };
        match confined {
            Confinement::Full => {}
            Confinement::Partial => {
                ::log::log!(level(Level::Info), "this kernel or machine supports only part of the confinement")
            }
            Confinement::None => {
                let why = if cfg!(target_os = "linux") {
                    "this kernel has no Landlock, or an old version"
                } else {
                    "this system is not Linux, where the monitor gives up most of root's rights"
                };
                ::log::log!(level(Level::Warn), "{why}: the server is not confined to its files")
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
        #[cfg(feature = "mailauth")]
        read.extend(settings.keys.all().iter().flat_map(|named| permissions::around(named.path())));
        let roots = settings.router.mailbox_roots();
        let mut write: Vec<PathBuf> = vec![config.spool.clone(), PathBuf::from("/dev/null")];
        write.extend(config.socket.parent().map(Path::to_owned));
        write.extend(config.submission.drop.clone());
        if let LogTo::File(path) = &config.log {
            write.extend(path.parent().map(Path::to_owned));
        }
        write.extend(outermost(roots.iter().filter_map(|root| nearest(root)).collect()));
        Places { read, write }
    }
}

/// Returns at most [`MAX_ROOTS`] of the directories, without those that lie below others.
fn outermost(mut directories: Vec<PathBuf>) -> Vec<PathBuf> {
    directories.sort_unstable();
    directories.dedup_by(|below, above| below.starts_with(above));
    directories.truncate(MAX_ROOTS);
    directories
}

/// Returns the directory if it exists, or else its nearest existing ancestor, below which it can be
/// made. `None` if the result would be the root directory, which stands for all files.
fn nearest(directory: &Path) -> Option<PathBuf> {
    directory.ancestors().find(|path| path.is_dir()).filter(|path| path.parent().is_some()).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_below_another_is_left_out() {
        let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        let directories = paths(&["/m/b/c", "/m/b", "/m", "/m-x", "/n/a", "/n/a", "/m/c"]);
        assert_eq!(outermost(directories), paths(&["/m", "/m-x", "/n/a"]));
        let many = (0..2 * MAX_ROOTS).map(|n| PathBuf::from(format!("/d{n}"))).collect();
        assert_eq!(outermost(many).len(), MAX_ROOTS);
    }
}

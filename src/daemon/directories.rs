//! Makes the spool directory and the directory of the control socket, as root for the server's
//! user.
//!
//! Root makes a directory, or changes its owner, only where no other user can interfere.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, chown, fchown};
use std::path::Path;
use std::sync::Arc;

use nix::libc::{O_DIRECTORY, O_NOFOLLOW};
use nix::unistd::User;

use super::Start;
use super::cure;
use super::exit::{self, Exit};
use crate::config::Config;
use crate::privsep::Rights;
use crate::privsep::rootpath::{is_roots, is_roots_alone};
use crate::spool::Spool;
use crate::sys;

impl Start {
    /// Starts the monitor, makes the directories that are missing, drops root's rights, and opens
    /// the spool as the server's user.
    ///
    /// # Errors
    /// If a directory cannot be made, root's rights cannot be dropped, or the spool cannot be
    /// opened.
    pub(super) fn open_spool(&self, config: &Config) -> Result<(Arc<Spool>, Rights), Exit> {
        let started = self.start_monitor(config);
        let needed = [config.spool.as_path(), config.socket.parent().unwrap_or(Path::new("/"))];
        let failed = |path: &Path, e| {
            let cure =
                if path == config.spool { cure::of_spool(path, &e) } else { cure::of_socket(&config.socket, &e) };
            Exit::new(exit::CANTCREAT, format!("make {}", path.display()), &e).and(cure)
        };
        let (as_root, user) = (sys::is_root(), &config.user);
        for directory in needed.iter().filter(|_| as_root) {
            make_for(directory, user).map_err(|e| failed(directory, e))?;
        }
        if as_root {
            take_over(&config.spool, user).map_err(|e| failed(&config.spool, e))?;
        }
        self.become_user(config)?;
        for directory in needed.iter().filter(|directory| as_root && !directory.exists()) {
            make_all(directory).map_err(|e| failed(directory, e))?;
        }
        let rights = started.unwrap_or_else(|e| {
            ::log::error!("start the monitor: {e}; mail for users of the system waits");
            Rights::Alone
        });
        let spool = Spool::open(&config.spool).map_err(|e| {
            let doing = format!("open the spool {}", config.spool.display());
            Exit::new(exit::CANTCREAT, doing, &e).and(cure::of_spool(&config.spool, &e))
        })?;
        Ok((spool, rights))
    }
}

/// Makes a missing directory as root, and gives it to the server's user. Does nothing if the
/// directory exists, or if other users may write to its nearest existing ancestor.
fn make_for(directory: &Path, user: &str) -> io::Result<()> {
    let above = directory.ancestors().find(|path| path.exists());
    if above.is_none_or(|above| above == directory || !is_roots_alone(above)) {
        return Ok(());
    }
    make_all(directory)?;
    let Some(found) = User::from_name(user)? else { return Ok(()) };
    chown(directory, Some(found.uid.as_raw()), Some(found.gid.as_raw()))
}

/// Makes the server's user the owner of an empty spool that belongs to root, such as a new volume
/// of a container. A spool that is not empty is left unchanged.
fn take_over(spool: &Path, user: &str) -> io::Result<()> {
    let Ok(directory) = fs::File::options().read(true).custom_flags(O_DIRECTORY | O_NOFOLLOW).open(spool) else {
        return Ok(());
    };
    if !is_roots_alone(spool) || !is_roots(&directory.metadata()?) || !is_empty(spool)? {
        return Ok(());
    }
    let Some(found) = User::from_name(user)? else { return Ok(()) };
    fchown(&directory, Some(found.uid.as_raw()), Some(found.gid.as_raw()))
}

/// Whether a directory is empty, except for the `lost+found` of a new file system.
fn is_empty(directory: &Path) -> io::Result<bool> {
    for file in fs::read_dir(directory)? {
        if file?.file_name() != "lost+found" {
            return Ok(false);
        }
    }
    Ok(true)
}

fn make_all(directory: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(directory)
}

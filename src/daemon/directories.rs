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
use nix::unistd::{AccessFlags, User, access};

use super::Start;
use super::cure;
use super::exit::{self, Exit};
use crate::config::Config;
use crate::privsep::rootpath::{is_roots, is_roots_alone};
use crate::privsep::{Rights, user_name};
use crate::spool::Spool;
use crate::sys;

/// The directory that a new file system has.
const LOST_AND_FOUND: &str = "lost+found";

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

/// For `-n`: checks that the server's user can use the spool, if there is one. Does nothing if this
/// process is another user. Changes nothing.
///
/// # Errors
/// If a directory of the spool cannot be read or written.
pub(super) fn try_spool(config: &Config) -> Result<(), Exit> {
    let spool = config.spool.as_path();
    let all = AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK;
    let is_taken_over = || -> io::Result<bool> { Ok(is_roots(&fs::metadata(spool)?) && is_empty(spool)?) };
    if user_name() != config.user || !spool.is_dir() || is_taken_over().unwrap_or(false) {
        return Ok(());
    }
    let is_ours = |file: &fs::DirEntry| file.file_name() != LOST_AND_FOUND && file.path().is_dir();
    let inside = fs::read_dir(spool).into_iter().flatten().flatten().filter(is_ours).map(|file| file.path());
    for directory in std::iter::once(spool.to_owned()).chain(inside) {
        access(&directory, all).map_err(|e| {
            let e = io::Error::from(e);
            let doing = format!("use the spool: {}", directory.display());
            Exit::new(exit::CANTCREAT, doing, &e).and(cure::of_spool(spool, &e))
        })?;
    }
    Ok(())
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
        if file?.file_name() != LOST_AND_FOUND {
            return Ok(false);
        }
    }
    Ok(true)
}

fn make_all(directory: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(directory)
}

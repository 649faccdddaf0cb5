//! Takes the files of the drop directory.
//!
//! Everything in the directory may be hostile: a name may be that of a link, a FIFO or a directory,
//! and its user may replace or change the file at any time. So a name is first renamed into a
//! directory that only the server can enter, and gets a queue id as its name there. After that, no
//! user can rename, replace or remove it. Then the file is opened once, without following a link and
//! without waiting, and everything is read from that descriptor.
//!
//! A file counts as a message of its owner only if it has been made in the drop directory: it has
//! the group of the directory, and only one name. A file that was moved or linked here from
//! somewhere else has another group, or more names.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::open;
use super::turns::Turns;
use crate::spool::QueueId;
use crate::submit::drop::{self, BAD, FILE_MODE, TAKEN, UNFINISHED};
use crate::sys::{self, disk};

/// The age in seconds at which an unfinished file is removed.
const ABANDONED_AFTER: u64 = 36 * 60 * 60;

/// A drop directory that has been checked.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    group: u32,
}

/// A file that has been taken and may be a message.
pub struct TakenFile {
    /// The file, open for reading.
    pub file: File,
    /// The owner, who has sent the message.
    pub uid: u32,
}

/// Why a taken file is no message now.
pub enum NotRead {
    /// It never will be one. The uid is that of its owner.
    Wrong(u32, String),
    /// It cannot be read now. The uid is that of its owner, if it is known.
    Io(Option<u32>, io::Error),
}

/// Why a taken file was not removed for good.
pub enum NotRemoved {
    /// It is still there.
    There(io::Error),
    /// It may be there again after a power cut.
    Unsynced(io::Error),
}

impl Directory {
    /// Checks the directory, and makes the directories below it.
    ///
    /// # Errors
    /// A text that says why the directory is not used.
    pub fn open(path: &Path) -> Result<Self, String> {
        let group = drop::examine(path)?;
        for name in [TAKEN, BAD] {
            make_own(path, name).map_err(|e| format!("make {name}/ in it: {e}"))?;
        }
        Ok(Self { path: path.to_owned(), group })
    }

    /// Takes the files with these names. Returns their ids.
    ///
    /// # Errors
    /// Those of syncing the directories. If no file was taken, also the first error of rename(2).
    pub fn take(&self, names: Vec<OsString>) -> io::Result<Vec<QueueId>> {
        let (mut ids, mut failed) = (Vec::new(), None);
        for name in names {
            let id = QueueId::generate()?;
            match disk::rename_new(&self.path.join(&name), &taken(&self.path, id)) {
                Ok(()) => ids.push(id),
                // The user has removed the file meanwhile.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => failed = failed.or_else(|| Some(io::Error::new(e.kind(), format!("take {name:?}: {e}")))),
            }
        }
        if !ids.is_empty() {
            self.sync()?;
            return Ok(ids);
        }
        failed.map_or(Ok(ids), Err)
    }

    /// Syncs the names of the files that have been taken. They must be durable before a message is.
    /// Otherwise a power cut could bring back the old name of a message that is in the spool, and it
    /// would be taken again.
    fn sync(&self) -> io::Result<()> {
        disk::sync_directory(&self.path.join(TAKEN))?;
        disk::sync_removals(&self.path)
    }

    /// Returns the files that can be taken, of the users for whom `is_wanted` is true.
    ///
    /// The whole directory is read: otherwise one user could hide the files of the others behind many
    /// directories, unfinished files, or files that must wait.
    ///
    /// # Errors
    /// Those of readdir(3).
    pub fn turns(&self, is_wanted: impl Fn(u32) -> bool) -> io::Result<Turns> {
        let mut turns = Turns::default();
        for file in fs::read_dir(&self.path)? {
            let file = file?;
            let name = file.file_name();
            // A directory may be one on which its user has mounted a file system that never answers.
            if file.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let Ok(found) = file.metadata() else { continue };
            if name.as_bytes().starts_with(UNFINISHED.as_bytes()) {
                self.remove_abandoned(&file.path(), found.ctime());
            } else if !found.is_dir() && is_wanted(found.uid()) && !turns.add(found.uid(), found.mtime(), name) {
                break;
            }
        }
        Ok(turns)
    }

    /// Removes a file that a process began to write long ago. sendmail(8) did not accept its message.
    fn remove_abandoned(&self, path: &Path, changed: i64) {
        let age = sys::now().saturating_sub(u64::try_from(changed).unwrap_or(0));
        if age > ABANDONED_AFTER && disk::remove(path).is_ok() {
            ::log::info!("drop directory: {} was never finished, and is removed", path.display());
        }
    }

    /// Opens a file that has been taken.
    ///
    /// # Errors
    /// [`NotRead`] says why it is no message.
    pub fn read(&self, id: QueueId) -> Result<TakenFile, NotRead> {
        let path = taken(&self.path, id);
        let uid = self.judge(&fs::symlink_metadata(&path).map_err(|e| NotRead::Io(None, e))?)?;
        let failed = |e| NotRead::Io(Some(uid), e);
        let file = open(&path).map_err(failed)?;
        // The user may have changed the file, which is still the same one.
        let uid = self.judge(&file.metadata().map_err(failed)?)?;
        Ok(TakenFile { file, uid })
    }

    /// Returns the owner of a file that may be a message.
    fn judge(&self, found: &Metadata) -> Result<u32, NotRead> {
        let (uid, mode) = (found.uid(), found.mode() & 0o7777);
        let wrong = |text: &str| Err(NotRead::Wrong(uid, text.to_owned()));
        if !found.is_file() {
            wrong("it is not a regular file")
        } else if found.nlink() != 1 {
            wrong("it has other names: it is a hard link")
        } else if found.gid() != self.group {
            wrong("it was not made in the drop directory: it has another group")
        } else if mode != FILE_MODE {
            wrong(&format!("its mode is {mode:04o} instead of {FILE_MODE:04o}"))
        } else {
            Ok(uid)
        }
    }

    /// The ids of the files that have been taken, the oldest first.
    ///
    /// # Errors
    /// Those of readdir(3), and of syncing the directories.
    pub fn taken(&self) -> io::Result<Vec<QueueId>> {
        let ids = taken_ids(&self.path)?;
        if !ids.is_empty() {
            remove_old_names(&self.path, &ids)?;
            // An earlier process may have ended before it has synced the names.
            self.sync()?;
        }
        Ok(ids)
    }

    /// The path of a taken file.
    pub fn path_of(&self, id: QueueId) -> PathBuf {
        taken(&self.path, id)
    }

    /// Removes a taken file for good.
    ///
    /// # Errors
    /// [`NotRemoved`].
    pub fn remove(&self, id: QueueId) -> Result<(), NotRemoved> {
        remove(&self.path, id)
    }

    /// Moves a taken file to `bad/`, and logs why. Nothing in that directory is removed.
    pub fn set_aside(&self, id: QueueId, uid: u32, why: &str) {
        let to = self.path.join(BAD).join(id.to_string());
        match disk::rename_new(&taken(&self.path, id), &to) {
            Ok(()) => ::log::warn!("drop directory: {why}: the file of uid {uid} is now {}", to.display()),
            Err(e) => ::log::error!("drop directory: {why}: move the file of uid {uid} to {}: {e}", to.display()),
        }
    }
}

/// Makes a directory that only the server can enter. If a user has made something with its name, that
/// gets another name.
fn make_own(path: &Path, name: &str) -> io::Result<()> {
    let own = path.join(name);
    if !is_own(&own) && fs::symlink_metadata(&own).is_ok() {
        disk::rename_new(&own, &path.join(format!("{name}.{}", QueueId::generate()?)))?;
    }
    disk::make_directory(&own)?;
    if !is_own(&own) {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    // A recursive chmod(1) may have let others in.
    if fs::symlink_metadata(&own)?.mode() & 0o077 != 0 {
        fs::set_permissions(&own, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Whether a path is a directory of the server's user.
fn is_own(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_dir() && found.uid() == nix::unistd::geteuid().as_raw())
}

/// The ids of the files that have been taken from a drop directory, the oldest first; none if it
/// does not exist, or if a server has never used it.
///
/// # Errors
/// Those of readdir(3).
pub fn taken_ids(path: &Path) -> io::Result<Vec<QueueId>> {
    let mut ids = Vec::new();
    if !is_own(&path.join(TAKEN)) {
        return Ok(ids);
    }
    for file in fs::read_dir(path.join(TAKEN))? {
        ids.extend(file?.file_name().to_str().and_then(QueueId::parse));
    }
    ids.sort_unstable();
    Ok(ids)
}

/// Removes the names that taken files still have in the drop directory `path`. On btrfs, a power cut can
/// leave both names of a rename.
///
/// # Errors
/// Those of readdir(3) and unlink(2).
pub fn remove_old_names(path: &Path, ids: &[QueueId]) -> io::Result<()> {
    let found = ids.iter().filter_map(|id| fs::symlink_metadata(taken(path, *id)).ok());
    let inodes: HashSet<u64> = found.filter(|found| found.nlink() > 1).map(|found| found.ino()).collect();
    if inodes.is_empty() {
        return Ok(());
    }
    for file in fs::read_dir(path)? {
        let file = file?;
        if inodes.contains(&file.ino()) && file.file_type()?.is_file() {
            disk::remove(&file.path())?;
        }
    }
    disk::sync_removals(path)
}

/// Removes a taken file for good.
///
/// # Errors
/// [`NotRemoved`].
pub fn remove(path: &Path, id: QueueId) -> Result<(), NotRemoved> {
    disk::remove(&taken(path, id)).map_err(NotRemoved::There)?;
    disk::sync_removals(&path.join(TAKEN)).map_err(NotRemoved::Unsynced)
}

fn taken(path: &Path, id: QueueId) -> PathBuf {
    path.join(TAKEN).join(id.to_string())
}

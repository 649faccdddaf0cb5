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

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::open;
use crate::spool::QueueId;
use crate::submit::drop::{self, BAD, FILE_MODE, TAKEN, UNFINISHED};
use crate::sys::{self, disk};

/// The maximum number of names that are looked at in one round.
const MAX_NAMES: usize = 20_000;
/// The maximum number of files of one user that are taken in one round.
pub const PER_USER: usize = 100;
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
    /// It cannot be read now.
    Io(io::Error),
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

    /// Takes files: at most [`PER_USER`] of one user, none of the users for whom `is_wanted` is
    /// false, and in turn from each user, the older ones first. Returns their ids.
    ///
    /// # Errors
    /// Those of readdir(3) and of syncing the directories.
    pub fn take(&self, is_wanted: impl Fn(u32) -> bool) -> io::Result<Vec<QueueId>> {
        let mut ids = Vec::new();
        for name in in_turn(self.names(&is_wanted)?) {
            let id = QueueId::generate()?;
            match disk::rename_new(&self.path.join(&name), &taken(&self.path, id)) {
                Ok(()) => ids.push(id),
                // The user has removed the file meanwhile.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => ::log::warn!("drop directory: take {}: {e}", self.path.join(&name).display()),
            }
        }
        if !ids.is_empty() {
            self.sync()?;
        }
        Ok(ids)
    }

    /// Syncs the names of the files that have been taken. They must be durable before a message is.
    /// Otherwise a power cut could bring back the old name of a message that is in the spool, and it
    /// would be taken again.
    fn sync(&self) -> io::Result<()> {
        disk::sync_directory(&self.path.join(TAKEN))?;
        disk::sync_directory(&self.path)
    }

    /// The names of the files that can be taken, with their owners and times.
    fn names(&self, is_wanted: &impl Fn(u32) -> bool) -> io::Result<HashMap<u32, Vec<(i64, OsString)>>> {
        let mut names: HashMap<u32, Vec<(i64, OsString)>> = HashMap::new();
        for file in fs::read_dir(&self.path)?.take(MAX_NAMES) {
            let file = file?;
            let name = file.file_name();
            let Ok(found) = file.metadata() else { continue };
            if found.is_dir() {
                continue;
            }
            if name.as_bytes().starts_with(UNFINISHED.as_bytes()) {
                self.remove_abandoned(&file.path(), found.ctime());
            } else if is_wanted(found.uid()) {
                names.entry(found.uid()).or_default().push((found.mtime(), name));
            }
        }
        Ok(names)
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
        self.judge(&fs::symlink_metadata(&path).map_err(NotRead::Io)?)?;
        let file = open(&path).map_err(NotRead::Io)?;
        // The user may have changed the file, which is still the same one.
        let uid = self.judge(&file.metadata().map_err(NotRead::Io)?)?;
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
    if is_own(&own) { Ok(()) } else { Err(io::ErrorKind::AlreadyExists.into()) }
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

/// Removes a taken file for good.
///
/// # Errors
/// [`NotRemoved`].
pub fn remove(path: &Path, id: QueueId) -> Result<(), NotRemoved> {
    disk::remove(&taken(path, id)).map_err(NotRemoved::There)?;
    disk::sync_directory(&path.join(TAKEN)).map_err(NotRemoved::Unsynced)
}

fn taken(path: &Path, id: QueueId) -> PathBuf {
    path.join(TAKEN).join(id.to_string())
}

/// Returns the names of one round: the first of each user, then the second of each user, and so on.
fn in_turn(names: HashMap<u32, Vec<(i64, OsString)>>) -> Vec<OsString> {
    let mut turns = Vec::new();
    for mut of_user in names.into_values() {
        of_user.sort_unstable();
        turns.extend(of_user.into_iter().take(PER_USER).enumerate().map(|(turn, (_, name))| (turn, name)));
    }
    turns.sort_unstable();
    turns.into_iter().map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_take_turns_and_older_files_come_first() {
        let many = (0..500).map(|n| (n, OsString::from(format!("many{n:03}")))).rev().collect();
        let names = in_turn(HashMap::from([(1, many), (2, vec![(9, "later".into()), (3, "early".into())])]));
        assert_eq!(names.len(), PER_USER + 2);
        assert_eq!(names[..5], ["early", "many000", "later", "many001", "many002"]);
    }
}

//! The steps of a delivery to a Maildir: a file is written to `tmp/` and renamed to `new/`, or a
//! file that already belongs to the recipient is linked there.
//!
//! A file appears in `new/` complete or not at all, as maildir(5) requires, and replaces no other
//! file. Missing directories are made, `new` last. Since every delivery needs `new`, the next
//! delivery completes a Maildir that a crash left incomplete. After a crash, [`At::recover`] finds
//! out what became of a file in `tmp/`. Which files are synced, and why, is described in `spool`.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use nix::unistd::getegid;

use super::{AgentError, Identity, Part, Response};
use crate::sys::disk;

/// The Maildir at a path.
pub struct At<'a>(pub &'a Path);

impl At<'_> {
    /// If the Maildir is missing, makes it. If another user may have put the Maildir there, fails.
    pub fn settle(&self) -> Result<(), AgentError> {
        // `components` removes a trailing slash, with which a symbolic link would be followed.
        let path = self.0.components().as_path();
        let look = || fs::symlink_metadata(path);
        let found = match look() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                self.make()?;
                look()
            }
            found => found,
        };
        let checked = found.and_then(|found| super::check_owner(path, &found));
        checked.map_err(|error| failed("use", path, error))
    }

    /// Writes a file to `tmp/`, durably.
    pub fn copy(&self, name: &str, head: &str, message: &File, content: Part) -> Result<Response, AgentError> {
        let temporary = self.0.join("tmp").join(name);
        self.write(&temporary, head, message, content).inspect_err(|_| {
            // A file that cannot be removed does no harm: no record refers to it yet.
            let _ = disk::remove(&temporary);
        })?;
        let directory = self.0.join("tmp");
        self.identity().map(Response::Copied).map_err(|error| failed("look at", &directory, error))
    }

    fn write(&self, path: &Path, head: &str, message: &File, content: Part) -> Result<(), AgentError> {
        let mut file = disk::create(path);
        match &file {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                self.make()?;
                file = disk::create(path);
            }
            // An attempt that crashed before it recorded the file has left the file behind.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                file = disk::remove(path).and_then(|()| disk::create(path));
            }
            _ => {}
        }
        let written = file.and_then(|file| {
            disk::write(&file, head.as_bytes())?;
            let mut from = message;
            from.seek(SeekFrom::Start(content.at))?;
            if disk::copy(message, &file)? != content.size {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            disk::sync(&file)
        });
        written.map_err(|error| failed("write", path, error))
    }

    /// Renames `tmp/N` to `new/N`, durably.
    pub fn reveal(&self, name: &str) -> Result<(), AgentError> {
        let (from, to) = (self.0.join("tmp").join(name), self.0.join("new").join(name));
        let mut renamed = disk::rename_new(&from, &to);
        if renamed.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
            // A directory of the Maildir is missing.
            self.make()?;
            renamed = disk::rename_new(&from, &to);
        }
        renamed.map_err(|error| failed("rename into", &to, error))?;
        self.sync()
    }

    /// Links a message that already belongs to the recipient into `new/`. Only after that, the
    /// file's mode becomes 0600, and its group, which was the server's, becomes the recipient's.
    /// After a crash the mode shows whether the message is in the mailbox.
    pub fn accept(&self, name: &str, prefix: &str, message: &File) -> Result<(), AgentError> {
        let target = self.0.join("new").join(name);
        let metadata = message.metadata().map_err(|error| failed("look at what becomes", &target, error))?;
        let is_same = |other: fs::Metadata| (other.dev(), other.ino()) == (metadata.dev(), metadata.ino());
        let is_here = || self.delivered(prefix).any(|path| fs::symlink_metadata(path).is_ok_and(is_same));
        if metadata.nlink() < 2 || !is_here() {
            let mut linked = disk::link(message, &target);
            if linked.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
                self.make()?;
                linked = disk::link(message, &target);
            }
            linked.map_err(|error| failed("link into", &target, error))?;
        }
        // Mode 0600 takes read access away from the server, which is in the file's old group.
        disk::set_mode(message, 0o600)
            .and_then(|()| disk::set_owner(message, None, Some(getegid().as_raw())))
            .map_err(|error| failed("take ownership of", &target, error))
    }

    /// After a crash, finds out what became of the copy whose file name begins with `prefix`.
    pub fn recover(&self, prefix: &str, identity: Identity, is_old: bool) -> Result<Response, AgentError> {
        if self.identity().ok() != Some(identity) {
            return Ok(Response::Elsewhere);
        }
        let find = |directory: &Path| find(directory, prefix).map_err(|error| failed("look through", directory, error));
        if let Some(name) = find(&self.0.join("tmp"))? {
            let path = self.0.join("tmp").join(&name);
            // After a power cut btrfs may have both the old and the new name of a renamed file.
            let linked =
                fs::metadata(&path).is_ok_and(|copy| copy.nlink() > 1) && self.delivered(prefix).next().is_some();
            if !linked {
                return Ok(Response::Waiting(name));
            }
            disk::remove(&path).map_err(|error| failed("remove", &path, error))?;
        } else if is_old && find(&self.0.join("new"))?.is_none() && find(&self.0.join("cur"))?.is_none() {
            return Ok(Response::Lost);
        }
        // The copy was renamed, but the crash may have come before the rename was durable.
        self.sync().map(|()| Response::Done)
    }

    /// The files in `new/` and `cur/` whose names begin with `prefix`, at most one in each.
    pub fn delivered(&self, prefix: &str) -> impl Iterator<Item = PathBuf> {
        let directories = ["new", "cur"].map(|directory| self.0.join(directory)).into_iter();
        directories.filter_map(move |directory| Some(directory.join(find(&directory, prefix).ok()??)))
    }

    /// Makes the directories that are missing.
    pub fn make(&self) -> Result<(), AgentError> {
        ["cur", "tmp", "new"].into_iter().try_for_each(|directory| {
            let path = self.0.join(directory);
            // The topmost directory that is missing is the one that could not be made.
            disk::make_directory(&path).map_err(|error| failed("mkdir", first_missing(&path), error))
        })
    }

    /// Makes a folder of the Maildir. Maildir++ wants the empty file `maildirfolder` in it.
    pub fn make_folder(&self, folder: &str) -> Result<(), AgentError> {
        let path = self.0.join(folder);
        At(&path).settle()?;
        let mark = path.join("maildirfolder");
        match disk::create(&mark) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed("write", &mark, error)),
            _ => Ok(()),
        }
    }

    /// Syncs `new/` but not `tmp/`, so a renamed file may have its old name again after a power
    /// cut. In that case either no record refers to the old name, or [`At::recover`] removes it.
    fn sync(&self) -> Result<(), AgentError> {
        let directory = self.0.join("new");
        disk::sync_directory(&directory).map_err(|error| failed("sync", &directory, error))
    }

    fn identity(&self) -> io::Result<Identity> {
        let metadata = fs::metadata(self.0.join("tmp"))?;
        // Not every file system records the time of creation.
        let born = metadata.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
        let born = born.and_then(|born| u64::try_from(born.as_nanos()).ok()).unwrap_or(0);
        Ok(Identity { born, inode: metadata.ino() })
    }
}

fn failed(doing: &str, path: &Path, error: io::Error) -> AgentError {
    AgentError::new(format!("{doing} {}", path.display()), error)
}

/// The topmost missing directory of a path.
fn first_missing(path: &Path) -> &Path {
    path.ancestors().take_while(|directory| !directory.exists()).last().unwrap_or(path)
}

fn find(directory: &Path, prefix: &str) -> io::Result<Option<String>> {
    for file in fs::read_dir(directory)? {
        if let Some(name) = file?.file_name().to_str().filter(|name| name.starts_with(prefix)) {
            return Ok(Some(name.to_owned()));
        }
    }
    Ok(None)
}

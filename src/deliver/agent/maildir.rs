//! The steps in a Maildir: a file is written to `tmp/`, and renamed to `new/`; or one that
//! is the owner's already is linked there.
//!
//! A file appears in `new/` complete or not at all, as maildir(5) asks, and replaces
//! none. What is missing of the directories is made; last the one that every delivery
//! needs, so that the next one completes what a crash leaves. [`At::recover`] tells from
//! what is there what became of a copy. Which syncs there are, and why, is said in
//! `spool`.

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
    /// Makes the Maildir if it is missing, and refuses one that another user may have made.
    pub fn settle(&self) -> Result<(), AgentError> {
        // Without a slash at its end, behind which a link would be followed.
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
        checked.map_err(|error| trouble("use", path, error))
    }

    /// Writes a file to `tmp/`, durably.
    pub fn copy(&self, name: &str, head: &str, message: &File, content: Part) -> Result<Response, AgentError> {
        let temporary = self.0.join("tmp").join(name);
        self.write(&temporary, head, message, content).inspect_err(|_| {
            // Nothing points to it yet.
            let _ = disk::remove(&temporary);
        })?;
        let directory = self.0.join("tmp");
        self.identity().map(Response::Copied).map_err(|error| trouble("look at", &directory, error))
    }

    fn write(&self, path: &Path, head: &str, message: &File, content: Part) -> Result<(), AgentError> {
        let mut file = disk::create(path);
        match &file {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                self.make()?;
                file = disk::create(path);
            }
            // An attempt that a crash ended before it was noted.
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
        written.map_err(|error| trouble("write", path, error))
    }

    /// Renames `tmp/N` to `new/N`, durably.
    pub fn reveal(&self, name: &str) -> Result<(), AgentError> {
        let (from, to) = (self.0.join("tmp").join(name), self.0.join("new").join(name));
        let mut renamed = disk::rename_new(&from, &to);
        if renamed.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
            // A mailbox that was made in part.
            self.make()?;
            renamed = disk::rename_new(&from, &to);
        }
        renamed.map_err(|error| trouble("rename into", &to, error))?;
        self.sync()
    }

    /// Gives a message that is its owner's already its name in `new/`. That it is then his
    /// alone says to the server, after a crash, that it has one.
    pub fn accept(&self, name: &str, prefix: &str, message: &File) -> Result<(), AgentError> {
        let target = self.0.join("new").join(name);
        let metadata = message.metadata().map_err(|error| trouble("look at what becomes", &target, error))?;
        let is_same = |other: fs::Metadata| (other.dev(), other.ino()) == (metadata.dev(), metadata.ino());
        let is_here = || self.seen(prefix).any(|path| fs::symlink_metadata(path).is_ok_and(is_same));
        if metadata.nlink() < 2 || !is_here() {
            let mut linked = disk::link(message, &target);
            if linked.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
                self.make()?;
                linked = disk::link(message, &target);
            }
            linked.map_err(|error| trouble("link into", &target, error))?;
        }
        // The server can still read it up to the first of these.
        disk::set_mode(message, 0o600)
            .and_then(|()| disk::set_owner(message, None, Some(getegid().as_raw())))
            .map_err(|error| trouble("make his own", &target, error))
    }

    /// What became of a copy, after a crash.
    pub fn recover(&self, prefix: &str, identity: Identity, is_old: bool) -> Result<Response, AgentError> {
        if self.identity().ok() != Some(identity) {
            return Ok(Response::Elsewhere);
        }
        let find =
            |directory: &Path| find(directory, prefix).map_err(|error| trouble("look through", directory, error));
        if let Some(name) = find(&self.0.join("tmp"))? {
            let path = self.0.join("tmp").join(&name);
            // btrfs can leave both names of a rename when the power goes.
            let linked = fs::metadata(&path).is_ok_and(|copy| copy.nlink() > 1) && self.seen(prefix).next().is_some();
            if !linked {
                return Ok(Response::Waiting(name));
            }
            disk::remove(&path).map_err(|error| trouble("remove", &path, error))?;
        } else if is_old && find(&self.0.join("new"))?.is_none() && find(&self.0.join("cur"))?.is_none() {
            return Ok(Response::Lost);
        }
        // The crash may have come before the rename was durable.
        self.sync().map(|()| Response::Done)
    }

    /// What its owner can see of files that begin so.
    pub fn seen(&self, prefix: &str) -> impl Iterator<Item = PathBuf> {
        let directories = ["new", "cur"].map(|directory| self.0.join(directory)).into_iter();
        directories.filter_map(move |directory| Some(directory.join(find(&directory, prefix).ok()??)))
    }

    /// Makes the directories that are missing.
    pub fn make(&self) -> Result<(), AgentError> {
        ["cur", "tmp", "new"].into_iter().try_for_each(|directory| {
            let path = self.0.join(directory);
            // What could not be made is the first one that is not there.
            disk::make_directory(&path).map_err(|error| trouble("mkdir", first_missing(&path), error))
        })
    }

    /// Makes what its owner can see durable. An old name in `tmp/` may come back: it
    /// is nobody's then, or [`At::recover`] finds it.
    fn sync(&self) -> Result<(), AgentError> {
        let directory = self.0.join("new");
        disk::sync_directory(&directory).map_err(|error| trouble("sync", &directory, error))
    }

    fn identity(&self) -> io::Result<Identity> {
        let metadata = fs::metadata(self.0.join("tmp"))?;
        // Not every file system knows.
        let born = metadata.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
        let born = born.and_then(|born| u64::try_from(born.as_nanos()).ok()).unwrap_or(0);
        Ok(Identity { born, inode: metadata.ino() })
    }
}

fn trouble(doing: &str, path: &Path, error: io::Error) -> AgentError {
    AgentError::new(format!("{doing} {}", path.display()), error)
}

/// The uppermost directory on the way to `path` that is missing.
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

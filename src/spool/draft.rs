//! A message on its way into the spool, until the instant of commit.
//!
//! What is written stays in memory up to [`BUFFER`] octets, then goes to a file
//! that has no name yet (O_TMPFILE), or, where the file system has none of those,
//! to `tmp/ID`, locked. A draft that is dropped leaves nothing behind.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::errno::Errno;

use super::{EntryName, Place, QueueId, Spool, head};
use crate::envelope::Envelope;
use crate::sys::disk;

/// How much of a message is held in memory.
pub const BUFFER: usize = 64 << 10;

/// After so much the room that is left is looked at again: other messages grow too.
const LOOK: u64 = 4 << 20;

/// A message that is being written.
#[derive(Debug)]
pub struct Draft {
    spool: Arc<Spool>,
    id: QueueId,
    buffer: Vec<u8>,
    file: Option<Target>,
    written: u64,
    /// Up to where there was room when it was last looked.
    assured: u64,
}

#[derive(Debug)]
enum Target {
    Nameless(File),
    Named(File, PathBuf),
}

impl Target {
    fn file(&self) -> &File {
        match self {
            Self::Nameless(file) | Self::Named(file, _) => file,
        }
    }
}

impl Spool {
    /// Begins a message. A `direct` one has one recipient, whose mailbox the file
    /// can be renamed into, and no option.
    ///
    /// # Errors
    /// When no id can be had, or the head would be too long to be read.
    pub fn begin(self: &Arc<Self>, envelope: &Envelope, direct: bool) -> io::Result<Draft> {
        let head = match envelope.recipients.as_slice() {
            [only] if direct => head::direct(envelope.sender.as_ref(), &only.address),
            _ => head::queued(envelope),
        };
        if head.len() as u64 > head::MAX_HEAD {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let id = QueueId::generate()?;
        Ok(Draft { spool: Arc::clone(self), id, buffer: head.into_bytes(), file: None, written: 0, assured: LOOK })
    }

    /// Writes a whole entry to `tmp/ID` and syncs file and name, for another step
    /// to rename. What an earlier attempt left there is replaced; an error leaves nothing.
    pub(super) fn write_temporary(
        &self,
        id: QueueId,
        head: &str,
        content: impl FnOnce(&File) -> io::Result<()>,
    ) -> io::Result<u64> {
        let path = self.temporary(id);
        match disk::remove(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let file = disk::create(&path)?;
        let write = || {
            disk::write(&file, head.as_bytes())?;
            content(&file)?;
            disk::sync(&file)?;
            self.sync_places(&["tmp"])?;
            Ok(file.metadata()?.len())
        };
        // A full disk must not be filled with what could not be written to it.
        write().inspect_err(|_| drop(disk::remove(&path)))
    }

    fn nameless_file(&self) -> io::Result<Option<File>> {
        if !self.is_nameless() {
            return Ok(None);
        }
        match disk::create_nameless(&self.root.join("new")) {
            Ok(file) => Ok(Some(file)),
            Err(e) => match e.raw_os_error().map(Errno::from_raw) {
                Some(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::ENOENT | Errno::EINVAL) => {
                    self.nameless.store(false, Ordering::Relaxed);
                    Ok(None)
                }
                _ => Err(e),
            },
        }
    }
}

impl Draft {
    /// The queue id that the message will have.
    pub fn id(&self) -> QueueId {
        self.id
    }

    /// Puts the message on stable storage, under its name.
    ///
    /// # Errors
    /// Those of the system. The message is then not in the spool.
    pub fn commit(mut self) -> io::Result<EntryName> {
        self.spill()?;
        let name = EntryName { id: self.id, size: self.written, place: Place::New };
        let path = self.spool.path(name);
        let target = self.file.take().ok_or(io::ErrorKind::UnexpectedEof)?;
        match &target {
            Target::Nameless(file) => disk::link(file, &path)?,
            Target::Named(_, temporary) => {
                if let Err(e) = disk::rename_new(temporary, &path) {
                    let _ = disk::remove(temporary);
                    return Err(e);
                }
            }
        }
        let synced = disk::sync(target.file()).and_then(|()| match target {
            Target::Nameless(_) => Ok(()),
            Target::Named(..) => self.spool.sync_places(&["new"]),
        });
        if let Err(e) = synced {
            // A failed fsync is never tried again: the system may have dropped what it could not write.
            let _ = disk::remove(&path);
            return Err(e);
        }
        // From here on the message is ours.
        Ok(name)
    }

    /// Moves what is in memory to the file.
    fn spill(&mut self) -> io::Result<()> {
        if self.file.is_none() {
            self.file = Some(self.create()?);
        }
        if self.written > self.assured {
            if !self.spool.has_room(0)? {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.assured = self.written + LOOK;
        }
        if let Some(target) = &self.file {
            disk::write(target.file(), &self.buffer)?;
        }
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn create(&self) -> io::Result<Target> {
        if let Some(file) = self.spool.nameless_file()? {
            return Ok(Target::Nameless(file));
        }
        let path = self.spool.temporary(self.id);
        let file = disk::create(&path)?;
        // Against the sweep of another process. Nobody else knows the name.
        file.lock()?;
        Ok(Target::Named(file, path))
    }
}

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() + bytes.len() > BUFFER {
            self.spill()?;
        }
        if bytes.len() >= BUFFER {
            self.spill()?;
            if let Some(target) = &self.file {
                disk::write(target.file(), bytes)?;
            }
            self.written += bytes.len() as u64;
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(Target::Named(_, path)) = &self.file {
            let _ = disk::remove(path);
        }
    }
}

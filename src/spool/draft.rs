//! Stores a message in the spool while a session receives it, from the first byte to the commit.
//!
//! The content arrives first. The envelope, and the lines to be put before the content, may be
//! known only at the end. At the commit the envelope and these lines become the front of the file
//! (see [`NewEntry`]).
//!
//! Content of at most [`BUFFER`] bytes stays in memory until the commit, and is written together
//! with the front. Longer content is written to a file as it arrives, after a gap that is left for
//! the front. [`Draft::expect`] announces the front, and thus sets the length of the gap. At the
//! commit the front of a queued entry (one with a record for each recipient) is padded to fill the
//! gap. If the front does not fit, the content is shifted within the file, which costs a copy in
//! the page cache. In each case the commit takes one fsync of the file.
//!
//! The file of a draft has no name (O_TMPFILE). If the file system does not support such files, the
//! file is `tmp/ID`, and is locked. A draft that is dropped leaves no file.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::errno::Errno;

use super::content::{Content, Measure, Meter};
use super::head::{self, Marks};
use super::{EntryName, Place, QueueId, Spool};
use crate::envelope::{Body, Envelope, Folder};
use crate::sys::disk;

/// The maximum size of content that is held in memory, in bytes.
pub const BUFFER: usize = 64 << 10;

/// While content is written to the file, the free space is checked again after each such number of
/// bytes, because other messages are written at the same time.
const CHECK_INTERVAL: u64 = 4 << 20;

/// A description of the entry that a draft becomes. It decides the directory, and the front of the
/// file: the head, and the lines put before the content.
#[derive(Debug, Clone, Copy)]
pub struct NewEntry<'a> {
    /// The sender and the recipients.
    pub envelope: &'a Envelope,
    /// Whether the head is a direct one, which consists of the header fields Return-Path: and
    /// Delivered-To:, so that the file can be renamed into the mailbox of the only recipient. The
    /// value is ignored if [`NewEntry::can_be_direct`] says no, if the entry is held or if it goes
    /// into a folder, because a direct head can express none of these.
    pub is_direct: bool,
    /// The reason for which the entry goes to `hold/`, where it is not tried; `None` if the entry
    /// does not go there. Listings show the reason.
    pub hold: Option<&'a str>,
    /// The folder of the recipients' Maildirs that the message goes into; `None` for the inbox.
    pub folder: Option<&'a Folder>,
    /// The lines put before the content, for example trace fields. Each line ends in LF.
    pub prepend: &'a str,
}

impl<'a> NewEntry<'a> {
    /// Describes a queued entry, which has a record for each recipient.
    pub fn queued(envelope: &'a Envelope, prepend: &'a str) -> Self {
        Self { envelope, is_direct: false, hold: None, folder: None, prepend }
    }

    /// Describes a direct entry, whose file can become the message in the mailbox of the only
    /// recipient.
    pub fn direct(envelope: &'a Envelope, prepend: &'a str) -> Self {
        Self { is_direct: true, ..Self::queued(envelope, prepend) }
    }

    /// Whether the entry for an envelope can have a direct head. It cannot if there are several
    /// recipients, or if the envelope has a source or options that such a head cannot express.
    pub fn can_be_direct(envelope: &Envelope) -> bool {
        head::can_be_direct(envelope)
    }

    /// Returns the front of the file. A queued head is padded so that the front has at least `gap`
    /// bytes.
    fn front(&self, measure: Measure, gap: usize) -> io::Result<String> {
        let mut front = match self.envelope.recipients.as_slice() {
            [only]
                if self.is_direct
                    && self.hold.is_none()
                    && self.folder.is_none()
                    && Self::can_be_direct(self.envelope) =>
            {
                head::direct(self.envelope.sender.as_ref(), &only.address)
            }
            _ => {
                let marks = Marks { reason: self.hold, folder: self.folder };
                head::queued(self.envelope, marks, Some(measure), gap.saturating_sub(self.prepend.len()))
            }
        };
        if front.len() as u64 > head::MAX_HEAD {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        front.push_str(self.prepend);
        Ok(front)
    }
}

/// A message that is being received.
#[derive(Debug)]
pub struct Draft {
    spool: Arc<Spool>,
    id: QueueId,
    /// The content that is not in the file yet.
    buffer: Vec<u8>,
    meter: Meter,
    file: Option<Target>,
    /// The number of bytes at the beginning of the file that are left free for the front.
    gap: usize,
    /// The number of bytes of content that are in the file.
    written: u64,
    /// If `written` exceeds this number of bytes, the free space is checked again.
    checked_size: u64,
}

#[derive(Debug)]
enum Target {
    Unnamed(File),
    Named(File, PathBuf),
}

impl Target {
    fn file(&self) -> &File {
        match self {
            Self::Unnamed(file) | Self::Named(file, _) => file,
        }
    }
}

impl Spool {
    /// Begins the draft of a new message.
    ///
    /// # Errors
    /// Those of getrandom(2).
    pub fn begin(self: &Arc<Self>) -> io::Result<Draft> {
        QueueId::generate().map(|id| self.begin_as(id))
    }

    /// Begins the draft of a message that has this id already. The commit fails if an entry with the
    /// id and the size of the new one is in the same directory.
    pub fn begin_as(self: &Arc<Self>, id: QueueId) -> Draft {
        let (buffer, meter, checked_size) = (Vec::new(), Meter::default(), CHECK_INTERVAL);
        Draft { spool: Arc::clone(self), id, buffer, meter, file: None, gap: 0, written: 0, checked_size }
    }

    /// Writes a whole entry to `tmp/ID`, syncs the file and its name, and returns the size of the
    /// file. The caller renames the file afterwards. If an earlier attempt has left a file with
    /// that name, it is replaced. After an error no file is left.
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
        // The write may have failed because the disk is full, so the partial file must not take up
        // space.
        write().inspect_err(|_| drop(disk::remove(&path)))
    }

    /// Makes an empty file without a name on the file system of the spool, for reading and writing.
    ///
    /// # Errors
    /// Those of the system.
    pub fn scratch(&self) -> io::Result<File> {
        match self.create_draft(QueueId::generate()?)? {
            Target::Unnamed(file) => Ok(file),
            Target::Named(file, path) => disk::remove(&path).map(|()| file),
        }
    }

    /// Makes a file as [`Spool::scratch`] does, if the file system has room for `bytes` bytes.
    ///
    /// # Errors
    /// `StorageFull`, and those of the system.
    pub fn scratch_for(&self, bytes: u64) -> io::Result<File> {
        if self.has_room(bytes)? { self.scratch() } else { Err(io::ErrorKind::StorageFull.into()) }
    }

    fn unnamed_file(&self) -> io::Result<Option<File>> {
        if !self.can_use_tmpfile() {
            return Ok(None);
        }
        match disk::create_nameless(&self.root.join("new")) {
            Ok(file) => Ok(Some(file)),
            Err(e) => match e.raw_os_error().map(Errno::from_raw) {
                Some(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::ENOENT | Errno::EINVAL) => {
                    self.has_tmpfile.store(false, Ordering::Relaxed);
                    Ok(None)
                }
                _ => Err(e),
            },
        }
    }

    fn create_draft(&self, id: QueueId) -> io::Result<Target> {
        if let Some(file) = self.unnamed_file()? {
            return Ok(Target::Unnamed(file));
        }
        let path = self.temporary(id);
        let file = disk::create(&path)?;
        // The lock keeps `Spool::sweep` in another process from removing the file. That process
        // knows nothing of this draft.
        file.lock()?;
        Ok(Target::Named(file, path))
    }
}

impl Draft {
    /// Returns the queue id of the message.
    pub fn id(&self) -> QueueId {
        self.id
    }

    /// Leaves room in the file for the front that `entry` needs. The draft can still be committed
    /// with another front, but long content may then have to be shifted. Also says whether the body
    /// is binary. If a part of the content is already in the file, the call has no effect.
    ///
    /// # Errors
    /// `InvalidInput` if the head would be too long.
    pub fn expect(&mut self, entry: &NewEntry<'_>) -> io::Result<()> {
        if self.file.is_none() {
            if self.buffer.is_empty() {
                self.meter = Meter::new(entry.envelope.options.body == Body::Binary);
            }
            self.gap = entry.front(self.meter.measure(b""), 0)?.len();
        }
        Ok(())
    }

    /// Returns a reader of the content so far, from its first byte.
    pub fn content(&self) -> impl Read + '_ {
        let (gap, written) = (self.gap as u64, self.written);
        let in_file = match &self.file {
            Some(target) => Written::File(Content::new(target.file(), gap, gap + written)),
            None => Written::Nothing,
        };
        in_file.chain(self.buffer.as_slice())
    }

    /// Replaces the content. `change` reads the content so far and writes the new content.
    ///
    /// # Errors
    /// Those of the system and of `change`. After an error the draft is unusable.
    pub fn rewrite(&mut self, change: impl FnOnce(&mut dyn Read, &mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        // The old file is removed first, because the new file may need its name. The old file stays
        // open for `change` to read.
        self.file = match self.file.take() {
            Some(Target::Named(file, path)) => {
                disk::remove(&path)?;
                Some(Target::Unnamed(file))
            }
            target => target,
        };
        let (buffer, meter, checked_size) = (Vec::new(), self.meter.restarted(), CHECK_INTERVAL);
        let (spool, id, gap) = (Arc::clone(&self.spool), self.id, self.gap);
        let mut next = Self { spool, id, buffer, meter, file: None, gap, written: 0, checked_size };
        change(&mut self.content(), &mut next)?;
        *self = next;
        Ok(())
    }

    /// The number of bytes of content so far.
    pub fn size(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Puts the message on stable storage, under its name.
    ///
    /// # Errors
    /// Those of the system, and `InvalidInput` if the head is too long. After an error the message
    /// is not in the spool.
    pub fn commit(mut self, entry: &NewEntry<'_>) -> io::Result<EntryName> {
        let size = self.write_front(entry)?;
        let place = if entry.hold.is_some() { Place::Hold } else { Place::New };
        let name = EntryName { id: self.id, size, place };
        let path = self.spool.path(name);
        let target = self.file.take().ok_or(io::ErrorKind::UnexpectedEof)?;
        match &target {
            Target::Unnamed(file) => disk::link(file, &path)?,
            Target::Named(_, temporary) => {
                if let Err(e) = disk::rename_new(temporary, &path) {
                    let _ = disk::remove(temporary);
                    return Err(e);
                }
            }
        }
        let synced = disk::sync(target.file()).and_then(|()| match target {
            Target::Unnamed(_) => Ok(()),
            Target::Named(..) => self.spool.sync_places(&[place.directory()]),
        });
        if let Err(e) = synced {
            // A failed fsync is never tried again: the system may have dropped the pages that it
            // could not write.
            let _ = disk::remove(&path);
            return Err(e);
        }
        // From here on this server is responsible for the message.
        Ok(name)
    }

    /// Writes the front and the rest of the content to the file. Returns the size of the file in
    /// bytes.
    fn write_front(&mut self, entry: &NewEntry<'_>) -> io::Result<u64> {
        let measure = self.meter.measure(entry.prepend.as_bytes());
        if self.file.is_none() {
            let mut text = entry.front(measure, 0)?.into_bytes();
            text.append(&mut self.buffer);
            let target = self.file.insert(self.spool.create_draft(self.id)?);
            disk::write(target.file(), &text)?;
            return Ok(text.len() as u64);
        }
        self.spill()?;
        let front = entry.front(measure, self.gap)?;
        let target = self.file.as_ref().ok_or(io::ErrorKind::UnexpectedEof)?;
        if front.len() != self.gap {
            disk::shift(target.file(), self.gap as u64, front.len() as u64, self.written)?;
        }
        disk::write_at(target.file(), front.as_bytes(), 0)?;
        Ok(front.len() as u64 + self.written)
    }

    /// Moves the buffered content to the file.
    fn spill(&mut self) -> io::Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        self.write_through(&buffer)?;
        self.buffer = buffer;
        self.buffer.clear();
        Ok(())
    }

    /// Writes content to the file.
    fn write_through(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            self.file = Some(self.spool.create_draft(self.id)?);
        }
        if self.written > self.checked_size {
            if !self.spool.has_room(0)? {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.checked_size = self.written + CHECK_INTERVAL;
        }
        if let Some(target) = &self.file {
            disk::write_at(target.file(), bytes, self.gap as u64 + self.written)?;
        }
        self.written += bytes.len() as u64;
        Ok(())
    }
}

/// The part of a draft's content that is in the file.
enum Written<'a> {
    File(Content<'a>),
    Nothing,
}

impl Read for Written<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File(content) => content.read(into),
            Self::Nothing => Ok(0),
        }
    }
}

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.meter.take(bytes);
        if self.buffer.len() + bytes.len() > BUFFER {
            self.spill()?;
        }
        if bytes.len() >= BUFFER {
            self.write_through(bytes)?;
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

//! A message in the spool: reading it, and the steps that settle it.
//!
//! Several workers may have the same entry open, each with its own recipients:
//! they overwrite different records, and any of them may move the file from
//! `new/` to `cur/`. Only the last one finishes it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

use super::content::Content;
use super::derivation::Step;
use super::handover;
use super::head::{self, Head, HeadError};
use super::open::{self, is_link};
use super::{DeliveryState, EntryName, Place, QueueId, RecipientEntry, RecipientRef, Spool, State};
use crate::address::Address;
use crate::envelope::{Body, Origin};
use crate::sys::disk;

/// How much of a file is read at first: most heads are shorter.
const FRONT: usize = 2048;
/// A recipient is looked for alone if the head has so many octets for each that is wanted.
const SPARSE: u64 = 1024;

/// An entry that was opened.
#[derive(Debug)]
pub struct Entry {
    pub(super) spool: Arc<Spool>,
    pub(super) name: EntryName,
    pub(super) file: File,
    pub(super) head: Head,
    /// Whether all recipients were read.
    is_whole: bool,
    /// Whether the file had another name when it was opened.
    pub(super) linked: bool,
    /// Whose the file was when it was opened, if not the server's.
    pub(super) handed_over: Option<u32>,
}

/// Why an entry could not be opened.
#[derive(Debug)]
pub enum Unusable {
    /// It is not in the spool any more.
    Gone,
    /// It is corrupt.
    Corrupt(&'static str),
    /// A later version has written it.
    Later(&'static str),
    /// A system call failed.
    Io(io::Error),
}

impl From<io::Error> for Unusable {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::NotFound { Self::Gone } else { Self::Io(error) }
    }
}

impl From<HeadError> for Unusable {
    fn from(error: HeadError) -> Self {
        match error {
            HeadError::Corrupt(why) => Self::Corrupt(why),
            HeadError::Later(why) => Self::Later(why),
        }
    }
}

impl Entry {
    /// `wanted` are the recipients that are needed; of a long head others may be left out.
    pub(super) fn open(spool: &Arc<Spool>, name: EntryName, wanted: Option<&[RecipientRef]>) -> Result<Self, Unusable> {
        let places = match name.place {
            // A second look at `new` for one that moved while we looked.
            Place::New => &[Place::New, Place::Cur][..],
            Place::Cur => &[Place::Cur, Place::New],
            Place::Hold => &[Place::Hold],
        };
        for &place in places {
            let name = EntryName { place, ..name };
            let path = spool.path(name);
            let opened = match if spool.is_read_only { open::to_read(&path) } else { open::to_change(&path) } {
                // It can be looked at all the same.
                Err(e) if e.kind() == io::ErrorKind::ReadOnlyFilesystem => open::to_read(&path),
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => handover::open(spool, name.id, &path, e),
                opened => opened,
            };
            match opened {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) if is_link(&e) => return Err(Unusable::Corrupt("it is a link")),
                Err(e) => return Err(e.into()),
                Ok(file) => return Self::read(spool, name, file, wanted),
            }
        }
        Err(Unusable::Gone)
    }

    pub(super) fn read(
        spool: &Arc<Spool>,
        name: EntryName,
        mut file: File,
        wanted: Option<&[RecipientRef]>,
    ) -> Result<Self, Unusable> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(Unusable::Corrupt("it is not a regular file"));
        }
        if metadata.len() != name.size {
            return Err(Unusable::Corrupt("its size is not the one in its name"));
        }
        let (linked, handed_over) = (metadata.nlink() > 1, handover::to(&metadata));
        let mut front = Vec::with_capacity(FRONT);
        (&file).take(FRONT as u64).read_to_end(&mut front)?;
        let length = head::length(&front)?;
        if handed_over.is_some() && !head::is_direct(&front) {
            // Whoever it was given to must not say what else is to be done.
            return Err(Unusable::Corrupt("it was given to a user, and is not what was given"));
        }
        if let Some(wanted) = wanted.filter(|wanted| length > FRONT as u64 && is_sparse(wanted, length)) {
            if !front.contains(&b'\n') {
                (&file).take(head::MAX_FIRST - FRONT as u64).read_to_end(&mut front)?;
            }
            let head = read_wanted(&file, &front, wanted)?;
            return Ok(Self { spool: Arc::clone(spool), name, file, head, is_whole: false, linked, handed_over });
        }
        if length > front.len() as u64 {
            (&mut file).take(length - front.len() as u64).read_to_end(&mut front)?;
        }
        let head = head::read(&front)?;
        Ok(Self { spool: Arc::clone(spool), name, file, head, is_whole: true, linked, handed_over })
    }

    /// The queue id.
    pub fn id(&self) -> QueueId {
        self.name.id
    }

    /// Where it is and how it is called.
    pub fn name(&self) -> EntryName {
        self.name
    }

    /// The reverse-path; `None` is the null path.
    pub fn sender(&self) -> Option<&Address> {
        self.head.sender.as_ref()
    }

    /// What MAIL said of the content.
    pub fn body_type(&self) -> Body {
        self.head.body
    }

    /// Who made it.
    pub fn origin(&self) -> Origin {
        self.head.origin
    }

    /// What was followed on the way here, the first step first; nothing for what came in, and
    /// for a report.
    pub fn steps(&self) -> &[Step] {
        &self.head.steps
    }

    /// Whether the file as it is belongs into a mailbox.
    pub fn is_direct(&self) -> bool {
        self.head.direct
    }

    /// The recipients and how far they are: all of them, if the entry was not opened
    /// for some.
    pub fn recipients(&self) -> &[RecipientEntry] {
        &self.head.recipients
    }

    /// The recipient with a number.
    pub fn recipient(&self, number: usize) -> Option<&RecipientEntry> {
        self.index_of(number).and_then(|at| self.head.recipients.get(at))
    }

    fn index_of(&self, number: usize) -> Option<usize> {
        self.head.recipients.binary_search_by_key(&number, |entry| entry.number).ok()
    }

    /// The size of the content in octets, as stored.
    pub fn content_size(&self) -> u64 {
        self.name.size.saturating_sub(self.head.content)
    }

    /// The lines that go before the content in a recipient's mailbox (RFC 5321 4.4).
    pub fn delivery_head(&self, entry: &RecipientEntry) -> String {
        head::direct(self.sender(), &entry.recipient.address)
    }

    /// The content, trace headers on top, lines ending in LF.
    pub fn content(&self) -> Content<'_> {
        Content::new(&self.file, self.head.content, self.name.size).measured(self.head.measure)
    }

    pub(super) fn copy_to(&self, file: &File) -> io::Result<()> {
        (&self.file).seek(SeekFrom::Start(self.head.content))?;
        let copied = disk::copy(&self.file, file)?;
        if copied == self.content_size() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// Where the content begins in the file.
    pub fn content_start(&self) -> u64 {
        self.head.content
    }

    /// The file, to be read: this one, or opened again so that nobody who gets it can write to it.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn file_for(&self, is_own: bool) -> io::Result<File> {
        if is_own {
            return self.file.try_clone();
        }
        // Another worker may move it meanwhile, once.
        let places = [self.name.place, Place::Cur, Place::New, Place::Cur];
        let mut opened =
            places.into_iter().map(|place| open::to_read(&self.spool.path(EntryName { place, ..self.name })));
        let found = opened.find(|file| !file.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::NotFound));
        found.unwrap_or_else(|| Err(io::ErrorKind::NotFound.into()))
    }

    /// Makes all that is in the file durable, as it must be before it is acted on
    /// after a restart.
    ///
    /// # Errors
    /// Those of fsync(2).
    pub fn sync(&self) -> io::Result<()> {
        disk::sync(&self.file)
    }

    /// Notes that a copy for a recipient is complete in the `tmp/` of its mailbox. It
    /// may leave there only after [`Entry::sync_records`].
    ///
    /// # Errors
    /// As for [`Entry::settle`].
    pub fn prepare(&mut self, number: usize, born: u64, inode: u64, now: u64) -> io::Result<()> {
        self.settle(number, State::Prepared { born, inode }, now)
    }

    /// Makes durable how far the recipients are.
    ///
    /// # Errors
    /// Those of fdatasync(2); then it is not known what the disk holds.
    pub fn sync_records(&self) -> io::Result<()> {
        disk::sync_data(&self.file)
    }

    /// Notes, durably, that the copy that was prepared for a recipient is not there.
    ///
    /// # Errors
    /// As for [`Entry::settle`] and [`Entry::sync_records`].
    pub fn forget_copy(&mut self, number: usize) -> io::Result<()> {
        self.settle(number, State::Todo, 0)?;
        disk::sync_data(&self.file)
    }

    /// Notes how far a recipient is after an attempt at `now`.
    ///
    /// # Errors
    /// Those of the system. The recipient must then not be tried until this succeeds.
    pub fn settle(&mut self, number: usize, state: State, now: u64) -> io::Result<()> {
        // A direct entry has no records.
        let at = self.index_of(number).ok_or(io::ErrorKind::InvalidInput)?;
        let entry = self.head.recipients.get_mut(at).filter(|s| s.offset > 0).ok_or(io::ErrorKind::InvalidInput)?;
        let record = DeliveryState { state, last: now, ..entry.record };
        disk::write_at(&self.file, &record.encode(), entry.offset)?;
        entry.record = record;
        Ok(())
    }

    /// Notes that a recipient was tried at `now` in vain. One that is prepared
    /// stays so: only the next attempt can tell what came of it.
    ///
    /// # Errors
    /// As for [`Entry::settle`].
    pub fn defer(&mut self, number: usize, now: u64) -> io::Result<()> {
        let entry = self.recipient(number).ok_or(io::ErrorKind::InvalidInput)?;
        if entry.record.state == State::Todo { self.settle(number, State::Todo, now) } else { Ok(()) }
    }

    /// Notes that the entry was tried: from `new/` to `cur/`.
    ///
    /// # Errors
    /// Those of rename(2).
    pub fn move_to_cur(&mut self) -> io::Result<()> {
        if self.name.place != Place::New {
            return Ok(());
        }
        let tried = EntryName { place: Place::Cur, ..self.name };
        match disk::rename(&self.spool.path(self.name), &self.spool.path(tried)) {
            // Another worker was faster.
            Err(e) if e.kind() == io::ErrorKind::NotFound && self.spool.path(tried).try_exists()? => {}
            result => result?,
        }
        self.name = tried;
        Ok(())
    }

    /// Removes the entry, of which every recipient is settled.
    ///
    /// # Errors
    /// Those of unlink(2), and `InvalidData` if this entry, as it was when it was
    /// opened and then changed here, has a recipient that is not, or was read in part.
    pub fn finish(&self) -> io::Result<()> {
        if !self.is_whole || self.head.recipients.iter().any(|entry| entry.record.state.is_open()) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a recipient is not settled"));
        }
        // Of one that never had to wait nothing was said.
        if self.name.place != Place::New {
            let _ = disk::remove(&self.spool.note_path(self.id()));
        }
        disk::remove(&self.spool.path(self.name))
    }
}

/// Whether looking for each recipient costs less than reading all: so a message with
/// ten thousand recipients, each in a job of its own, is not read ten thousand times.
fn is_sparse(wanted: &[RecipientRef], length: u64) -> bool {
    let is_known = |reference: &RecipientRef| reference.offset > 0 && u64::from(reference.offset) < length;
    wanted.iter().all(is_known) && length > SPARSE * wanted.len() as u64
}

fn read_wanted(file: &File, front: &[u8], wanted: &[RecipientRef]) -> Result<Head, Unusable> {
    let mut head = head::without_recipients(front)?;
    let mut line = [0; head::MAX_LINE];
    for reference in wanted {
        let length = file.read_at(&mut line, reference.offset.into())?;
        let text = line.get(..length).unwrap_or_default();
        head.recipients.push(head::read_recipient_entry(reference.number as usize, reference.offset.into(), text)?);
    }
    head.recipients.sort_unstable_by_key(|entry| entry.number);
    Ok(head)
}

impl Spool {
    /// Removes an entry of which every recipient is settled, as it says itself.
    ///
    /// # Errors
    /// Those of unlink(2), and `InvalidData` if a recipient is not settled.
    pub fn finish(self: &Arc<Self>, name: EntryName) -> io::Result<()> {
        match self.entry(name) {
            Ok(entry) => entry.finish(),
            Err(Unusable::Gone) => Ok(()),
            Err(Unusable::Io(e)) => Err(e),
            Err(Unusable::Corrupt(why) | Unusable::Later(why)) => Err(io::Error::new(io::ErrorKind::InvalidData, why)),
        }
    }
}

//! Opens and reads an entry, and records the steps that settle its recipients.
//!
//! Several workers may have the same entry open, each for other recipients. They overwrite
//! different records, and any worker may move the file from `new/` to `cur/`. The worker that
//! finishes last removes the file.

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
use crate::envelope::{Body, Folder, MailOptions, Origin, RcptOptions, Recipient};
use crate::retry::Window;
use crate::smtp::xtext;
use crate::sys::disk;

/// The number of bytes of a file that are read first. Most heads are shorter.
const FRONT: usize = 2048;
/// If the head has more than this number of bytes for each wanted recipient, only the wanted
/// recipients are read.
const SPARSE: u64 = 1024;

/// An open entry.
#[derive(Debug)]
pub struct Entry {
    pub(super) spool: Arc<Spool>,
    pub(super) name: EntryName,
    pub(super) file: File,
    pub(super) head: Head,
    /// Whether all recipients were read.
    has_all_recipients: bool,
    /// Whether the file had a second name (a hard link) when it was opened.
    pub(super) has_other_name: bool,
    /// The uid of the user to whom the file had been handed over when it was opened; `None` if it
    /// had not been handed over.
    pub(super) handed_over: Option<u32>,
    /// A text in a file of its own, with its size in bytes, that is delivered in place of a binary
    /// content.
    text: Option<(File, u64)>,
}

/// Why an entry could not be opened.
#[derive(Debug)]
pub enum Unusable {
    /// The entry is not in the spool any more.
    Gone,
    /// The entry is corrupt.
    Corrupt(&'static str),
    /// The entry was written by a later version of penfold.
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
    /// Opens an entry. If its head is long, recipients that are not in `wanted` may be left out.
    pub(super) fn open(spool: &Arc<Spool>, name: EntryName, wanted: Option<&[RecipientRef]>) -> Result<Self, Unusable> {
        let places = match name.place {
            // Another worker may have moved the entry from `new/` to `cur/` since `name` was read,
            // so both directories are tried.
            Place::New => &[Place::New, Place::Cur][..],
            Place::Cur => &[Place::Cur, Place::New],
            Place::Hold => &[Place::Hold],
        };
        for &place in places {
            let name = EntryName { place, ..name };
            let path = spool.path(name);
            let opened = match if spool.is_read_only { open::to_read(&path) } else { open::to_change(&path) } {
                // On a read-only file system the entry is opened for reading, so that the spool can
                // be listed.
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
            return Err(Unusable::Corrupt("its size differs from the one in its name"));
        }
        let (has_other_name, handed_over) = (metadata.nlink() > 1, handover::new_owner(&metadata));
        let mut front = Vec::with_capacity(FRONT);
        (&file).take(FRONT as u64).read_to_end(&mut front)?;
        let length = head_length(&front, handed_over.is_some())?;
        if let Some(wanted) = wanted.filter(|wanted| length > FRONT as u64 && is_sparse(wanted, length)) {
            if !front.contains(&b'\n') {
                (&file).take(head::MAX_FIRST - FRONT as u64).read_to_end(&mut front)?;
            }
            let head = read_wanted(&file, &front, wanted)?;
            return Ok(Self {
                spool: Arc::clone(spool),
                name,
                file,
                head,
                has_all_recipients: false,
                has_other_name,
                handed_over,
                text: None,
            });
        }
        if length > front.len() as u64 {
            (&mut file).take(length - front.len() as u64).read_to_end(&mut front)?;
        }
        let head = head::read(&front)?;
        Ok(Self {
            spool: Arc::clone(spool),
            name,
            file,
            head,
            has_all_recipients: true,
            has_other_name,
            handed_over,
            text: None,
        })
    }

    /// The queue id.
    pub fn id(&self) -> QueueId {
        self.name.id
    }

    /// The name and the directory of the file.
    pub fn name(&self) -> EntryName {
        self.name
    }

    /// The reverse-path; `None` is the null path.
    pub fn sender(&self) -> Option<&Address> {
        self.head.sender.as_ref()
    }

    /// The options given at MAIL.
    pub fn options(&self) -> &MailOptions {
        &self.head.options
    }

    /// The times between which the message is tried: it is not delivered before it may be released,
    /// and the next attempt is not after its deadline.
    pub fn window(&self) -> Window {
        let MailOptions { release, deliver_by, .. } = self.options();
        Window {
            start: self.id().seconds().max(release.unwrap_or(0)),
            deadline: deliver_by.map(|by| by.deadline.try_into().unwrap_or(0)),
        }
    }

    /// The source of the message, which decides where a report of its failure is sent.
    pub fn origin(&self) -> Origin {
        self.head.origin
    }

    /// The lists and `.forward` files that led from the received message to this entry, in order. A
    /// received message or a report has none.
    pub fn steps(&self) -> &[Step] {
        &self.head.steps
    }

    /// A recipient with its ORCPT. If the client gave none, it names the address that the client gave
    /// (RFC 3461 5.2.1). The members of a list with an owner have none, because the list, and not
    /// the client, has sent the message to them.
    #[must_use]
    pub fn with_orcpt(&self, recipient: &Recipient) -> Recipient {
        let given = recipient.original.as_ref().unwrap_or(&recipient.address);
        let added = || xtext::orcpt_of(&given.to_string()).filter(|_| self.steps().is_empty());
        let RcptOptions { notify, orcpt } = recipient.options.clone();
        Recipient { options: RcptOptions { notify, orcpt: orcpt.or_else(added) }, ..recipient.clone() }
    }

    /// Why the message was held when it was received; `None` if it was not held then. A held
    /// message that was released keeps the reason.
    pub fn hold_reason(&self) -> Option<&str> {
        self.head.reason.as_deref()
    }

    /// The folder of the recipients' Maildirs that the message goes into; `None` for the inbox.
    pub fn folder(&self) -> Option<&Folder> {
        self.head.folder.as_ref()
    }

    /// Whether the entry is direct, so that its file can become the message in the mailbox.
    pub fn is_direct(&self) -> bool {
        self.head.direct
    }

    /// The recipients with their state. If the entry was opened for some of them, others may be
    /// missing.
    pub fn recipients(&self) -> &[RecipientEntry] {
        &self.head.recipients
    }

    /// The recipient with this number; `None` if it was not read.
    pub fn recipient(&self, number: usize) -> Option<&RecipientEntry> {
        self.index_of(number).and_then(|index| self.head.recipients.get(index))
    }

    fn index_of(&self, number: usize) -> Option<usize> {
        self.head.recipients.binary_search_by_key(&number, |entry| entry.number).ok()
    }

    /// The size of the content in bytes, as it is stored.
    pub fn content_size(&self) -> u64 {
        let stored = self.name.size.saturating_sub(self.head.content);
        self.text.as_ref().map_or(stored, |(_, size)| *size)
    }

    /// Sets a text in a file of its own, with its size in bytes. Until it is removed with `None`,
    /// [`Entry::file_for`], [`Entry::content_start`] and [`Entry::content_size`] refer to the text
    /// in place of the content.
    pub fn set_text(&mut self, text: Option<(File, u64)>) {
        self.text = text;
    }

    /// The lines that a delivery puts before the content in the recipient's mailbox: Return-Path
    /// and Delivered-To.
    pub fn delivery_head(&self, entry: &RecipientEntry) -> String {
        head::direct(self.sender(), &entry.recipient.address)
    }

    /// Whether the body need not consist of lines (`BODY=BINARYMIME`).
    pub fn is_binary(&self) -> bool {
        self.options().body == Body::Binary
    }

    /// The content, which begins with the trace fields; lines end in LF, except in a binary body.
    pub fn content(&self) -> Content<'_> {
        let content = Content::new(&self.file, self.head.content, self.name.size).measured(self.head.measure);
        content.binary(self.is_binary())
    }

    pub(super) fn copy_to(&self, file: &File) -> io::Result<()> {
        (&self.file).seek(SeekFrom::Start(self.head.content))?;
        let copied = disk::copy(&self.file, file)?;
        if copied == self.content_size() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// The offset of the content in the file, in bytes.
    pub fn content_start(&self) -> u64 {
        if self.text.is_some() { 0 } else { self.head.content }
    }

    /// Returns a descriptor for reading the file. If `is_for_self` is false, the descriptor is for
    /// another process: the file is opened again, read-only, so that the other process cannot write
    /// to it.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn file_for(&self, is_for_self: bool) -> io::Result<File> {
        if let Some((text, _)) = &self.text {
            return text.try_clone();
        }
        if is_for_self {
            return self.file.try_clone();
        }
        // Another worker may move the file from `new/` to `cur/` during the search.
        let places = [self.name.place, Place::Cur, Place::New, Place::Cur];
        let mut opened =
            places.into_iter().map(|place| open::to_read(&self.spool.path(EntryName { place, ..self.name })));
        let found = opened.find(|file| !file.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::NotFound));
        found.unwrap_or_else(|| Err(io::ErrorKind::NotFound.into()))
    }

    /// Syncs the file. After a restart, a file must be synced before anything else is done with it.
    ///
    /// # Errors
    /// Those of fsync(2).
    pub fn sync(&self) -> io::Result<()> {
        disk::sync(&self.file)
    }

    /// Records that a copy for a recipient is complete in the `tmp/` of the recipient's mailbox.
    /// `born` and `inode` identify that `tmp/` (see [`State::Prepared`]). The copy may be renamed
    /// only after [`Entry::sync_records`].
    ///
    /// # Errors
    /// As for [`Entry::settle`].
    pub fn prepare(&mut self, number: usize, born: u64, inode: u64, now: u64) -> io::Result<()> {
        self.settle(number, State::Prepared { born, inode }, now)
    }

    /// Syncs the records.
    ///
    /// # Errors
    /// Those of fdatasync(2). After an error it is unknown which records are on the disk.
    pub fn sync_records(&self) -> io::Result<()> {
        disk::sync_data(&self.file)
    }

    /// Records that the copy that was prepared for a recipient does not exist, and syncs the
    /// record.
    ///
    /// # Errors
    /// As for [`Entry::settle`] and [`Entry::sync_records`].
    pub fn forget_copy(&mut self, number: usize) -> io::Result<()> {
        self.settle(number, State::Todo, 0)?;
        disk::sync_data(&self.file)
    }

    /// Records the state of a recipient after an attempt at `now`.
    ///
    /// # Errors
    /// Those of pwrite(2). If the success or failure of a delivery could not be recorded, the
    /// recipient must not be tried again until it is recorded.
    pub fn settle(&mut self, number: usize, state: State, now: u64) -> io::Result<()> {
        let record = self.recipient(number).ok_or(io::ErrorKind::InvalidInput)?.record;
        self.overwrite(number, DeliveryState { state, last: now, ..record })
    }

    /// Records that the sender was warned at `now` that the message is delayed, or would have been
    /// warned but for a limit.
    ///
    /// # Errors
    /// As for [`Entry::settle`].
    pub fn note_warned(&mut self, number: usize, now: u64) -> io::Result<()> {
        let record = self.recipient(number).ok_or(io::ErrorKind::InvalidInput)?.record;
        self.overwrite(number, DeliveryState { warned: now, ..record })
    }

    pub(super) fn overwrite(&mut self, number: usize, record: DeliveryState) -> io::Result<()> {
        let index = self.index_of(number).ok_or(io::ErrorKind::InvalidInput)?;
        // In a direct entry the offset is 0: there is no record to write to.
        let entry =
            self.head.recipients.get_mut(index).filter(|entry| entry.offset > 0).ok_or(io::ErrorKind::InvalidInput)?;
        disk::write_at(&self.file, &record.encode(), entry.offset)?;
        entry.record = record;
        Ok(())
    }

    /// Records that an attempt at `now` failed temporarily. A recipient in state
    /// [`State::Prepared`] keeps that state: only the next attempt can find out whether the copy
    /// was delivered.
    ///
    /// # Errors
    /// As for [`Entry::settle`].
    pub fn defer(&mut self, number: usize, now: u64) -> io::Result<()> {
        let entry = self.recipient(number).ok_or(io::ErrorKind::InvalidInput)?;
        if entry.record.state == State::Todo { self.settle(number, State::Todo, now) } else { Ok(()) }
    }

    /// Moves an entry from `new/` to `cur/`, because it was tried. An entry that is not in `new/`
    /// stays where it is.
    ///
    /// # Errors
    /// Those of rename(2).
    pub fn move_to_cur(&mut self) -> io::Result<()> {
        if self.name.place != Place::New {
            return Ok(());
        }
        let tried = EntryName { place: Place::Cur, ..self.name };
        match disk::rename(&self.spool.path(self.name), &self.spool.path(tried)) {
            // Another worker has moved the entry already.
            Err(e) if e.kind() == io::ErrorKind::NotFound && self.spool.path(tried).try_exists()? => {}
            result => result?,
        }
        self.name = tried;
        Ok(())
    }

    /// Removes the entry and its note if every recipient is settled.
    ///
    /// # Errors
    /// Those of unlink(2), and `InvalidData` if a recipient is not known to be settled, or if not
    /// all recipients were read.
    pub fn finish(&self) -> io::Result<()> {
        if !self.has_all_recipients || self.head.recipients.iter().any(|entry| entry.record.state.is_open()) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a recipient is not settled"));
        }
        // An entry in `new/` was never deferred, and has neither dialogues nor a note.
        if self.name.place != Place::New {
            let _ = disk::remove(&self.spool.dialogue_path(self.id()));
            let _ = disk::remove(&self.spool.note_path(self.id()));
        }
        disk::remove(&self.spool.path(self.name))?;
        if self.name.place == Place::Hold {
            self.spool.forget_held();
        }
        Ok(())
    }
}

/// Returns the number of bytes at the front of the file that are sure to contain the whole head.
pub(super) fn head_length(front: &[u8], is_handed_over: bool) -> Result<u64, Unusable> {
    // The user may have written to a file that was handed over, but must not decide what happens to
    // it. A file that looks like an entry of a later version would stay in the spool, so such a
    // file counts as corrupt.
    if is_handed_over && !head::is_direct(front) {
        return Err(Unusable::Corrupt("it was handed over to a user, and is not a direct entry"));
    }
    Ok(head::length(front)?)
}

/// Whether reading single recipients is cheaper than reading all. If a message has ten thousand
/// recipients, each in a job of its own, reading only one recipient for each job saves reading all
/// of them ten thousand times.
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
    /// Removes an entry if its records say that every recipient is settled.
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

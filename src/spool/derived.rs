//! Makes derived entries. A derived entry is made from another entry, the original. It is a report
//! of the original's failed recipients, or the original's message forwarded to the addresses that
//! one recipient expands to.
//!
//! There are three steps. First the derived entry is completed in `tmp/`. Then the original records
//! the completion, for each recipient concerned. Finally the derived entry is renamed into `new/`.
//!
//! The id of the derived entry is computed from the original's id, the number of the recipient, the
//! kind and the time. So a crash at any point leaves one derived entry or none, and
//! [`Entry::recover`] finds out which. An error before the rename leaves no derived entry. Space is
//! reserved before the first step.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::sync::Arc;

use super::content::Meter;
use super::derivation::Derivation;
use super::head::{self, Marks};
use super::reserve::Purpose;
use super::{Entry, EntryName, Kind, Place, QueueId, RecipientEntry, State};
use crate::envelope::Envelope;
use crate::sys::disk;

impl Entry {
    /// Creates the entry of a report about the recipients with the numbers in `failed`. `content`
    /// returns the text of the report, given the report's queue id.
    ///
    /// # Errors
    /// Those of the system. After an error there is no report: the caller must open this entry
    /// again and call [`Entry::recover`].
    pub fn create_report(
        &mut self,
        failed: &[usize],
        envelope: &Envelope,
        content: impl FnOnce(QueueId) -> Vec<u8>,
        now: u64,
    ) -> io::Result<EntryName> {
        let lead = failed.iter().min().copied().ok_or(io::ErrorKind::InvalidInput)?;
        let id = self.id().derive(Kind::Report, lead, now);
        let text = content(id);
        let write = |_: &Self, file: &File| disk::write(file, &text);
        let steps = (State::Reported { lead: lead as u64 }, State::Failed);
        let spool = Arc::clone(&self.spool);
        let _reserved = spool.reserve(text.len() as u64, Purpose::Report)?;
        let mut meter = Meter::default();
        meter.take(&text);
        let head = head::queued(envelope, Marks::default(), Some(meter.measure(b"")), 0);
        self.derive(id, failed, &head, write, steps, now)
    }

    /// Creates the entry that forwards the message to the addresses that the recipient with this
    /// number expands to. The lines in `front` are put before the content.
    ///
    /// # Errors
    /// As for [`Entry::create_report`].
    pub fn forward(
        &mut self,
        number: usize,
        (envelope, derivation): (&Envelope, &Derivation),
        front: &str,
        now: u64,
    ) -> io::Result<EntryName> {
        let id = self.id().derive(Kind::Forwarded, number, now);
        let write = |entry: &Self, file: &File| {
            disk::write(file, front.as_bytes())?;
            entry.copy_to(file)
        };
        let mut meter = Meter::default();
        meter.take(front.as_bytes());
        let before = meter.measure(b"");
        let measure = self.head.measure.map(|of_content| before.join(of_content));
        let head = head::derived(envelope, derivation, measure);
        let spool = Arc::clone(&self.spool);
        let _reserved = spool.reserve((head.len() + front.len()) as u64 + self.content_size(), Purpose::Message)?;
        self.derive(id, &[number], &head, write, (State::Forwarded, State::Done), now)
    }

    fn derive(
        &mut self,
        id: QueueId,
        numbers: &[usize],
        head: &str,
        write: impl FnOnce(&Self, &File) -> io::Result<()>,
        (prepared, settled): (State, State),
        now: u64,
    ) -> io::Result<EntryName> {
        if head.len() as u64 > head::MAX_HEAD {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let size = self.spool.write_temporary(id, head, |file| write(self, file))?;
        for &number in numbers {
            self.settle(number, prepared, now)?;
        }
        disk::sync_data(&self.file)?;
        let derived = EntryName { id, size, place: Place::New };
        disk::rename_new(&self.spool.temporary(id), &self.spool.path(derived))?;
        // The derived entry exists now. If a directory cannot be synced, or a record cannot be
        // written, `recover` finds the derived entry later.
        let recorded = self.spool.sync_places(&["new", "tmp"]);
        let recorded = recorded.and_then(|()| numbers.iter().try_for_each(|&n| self.settle(n, settled, now)));
        if let Err(e) = recorded {
            log::error!("spool: settle {}: {e}", self.id());
        }
        Ok(derived)
    }

    /// The ids of the derived entries that this entry's recipients wait for, and that may still be
    /// in `tmp/`.
    pub fn awaited(&self) -> impl Iterator<Item = QueueId> {
        self.head.recipients.iter().filter_map(|entry| self.awaited_by(entry))
    }

    fn awaited_by(&self, entry: &RecipientEntry) -> Option<QueueId> {
        let (kind, lead) = match entry.record.state {
            State::Reported { lead } => (Kind::Report, usize::try_from(lead).unwrap_or(usize::MAX)),
            State::Forwarded => (Kind::Forwarded, entry.number),
            _ => return None,
        };
        Some(self.id().derive(kind, lead, entry.record.last))
    }

    /// Completes the step that a crash interrupted, for those recipients in `numbers` that wait for
    /// a derived entry. If the derived entry is still in `tmp/`, it was never sent: it is removed,
    /// and the recipients are tried again. Otherwise it was sent, and the recipients are settled.
    ///
    /// # Errors
    /// Those of the system.
    pub fn recover(&mut self, numbers: impl Iterator<Item = usize>) -> io::Result<()> {
        let mut unsent = BTreeSet::new();
        for number in numbers {
            let Some(entry) = self.recipient(number) else { continue };
            let Some(derived) = self.awaited_by(entry) else { continue };
            let settled = if entry.record.state == State::Forwarded { State::Done } else { State::Failed };
            let (last, temporary) = (entry.record.last, self.spool.temporary(derived));
            if temporary.try_exists()? {
                // The time 0 makes the recipient due at once.
                self.settle(number, State::Todo, 0)?;
                unsent.insert(temporary);
            } else {
                self.settle(number, settled, last)?;
            }
        }
        if !unsent.is_empty() {
            disk::sync_data(&self.file)?;
        }
        unsent.iter().try_for_each(|path| disk::remove(path))
    }
}

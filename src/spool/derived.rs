//! Derived entries: a report about failed recipients of an entry, or the message of an entry,
//! forwarded to the addresses that one of its recipients expands to.
//!
//! They are made like a copy for a mailbox: the derived entry is completed in `tmp/`, this is
//! recorded in the original entry for the recipients concerned, and then the derived entry is
//! renamed into `new/`. Its id is a function of the original entry's id, recipient, kind and time,
//! so that a crash at any point leaves one derived entry or none, and [`Entry::recover`] finds out
//! which. An error before the rename leaves none. Space is reserved before the first step.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::sync::Arc;

use super::content::{Measure, Meter};
use super::derivation::Derivation;
use super::reserve::Purpose;
use super::{Entry, EntryName, Kind, Place, QueueId, RecipientEntry, State, head};
use crate::envelope::Envelope;
use crate::sys::disk;

impl Entry {
    /// Creates the entry of a report about failed recipients, exactly once. `content` returns the
    /// text of the report for its id.
    ///
    /// # Errors
    /// Those of the system. After an error there is no report; open this entry again and call
    /// [`Entry::recover`].
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
        let head = head::queued(envelope, Some(meter.measure(b"")), 0);
        self.derive(id, failed, &head, write, steps, now)
    }

    /// Creates an entry that forwards the message, with the lines `front` before its content, to
    /// the addresses that one recipient expands to, exactly once.
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
        let measure = self.head.measure.map(|of_content| Measure {
            size: before.size + of_content.size,
            is_ascii: before.is_ascii && of_content.is_ascii,
        });
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
        // The derived entry exists now. If it cannot be made durable or recorded, `recover` finds
        // it.
        let recorded = self.spool.sync_places(&["new", "tmp"]);
        let recorded = recorded.and_then(|()| numbers.iter().try_for_each(|&n| self.settle(n, settled, now)));
        if let Err(e) = recorded {
            log::error!("spool: settle {}: {e}", self.id());
        }
        Ok(derived)
    }

    /// The ids of derived entries that may still be in `tmp/` for recipients of this one.
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

    /// Settles the recipients for which a derived entry was prepared before a crash. A derived
    /// entry that is still in `tmp/` was never sent: it is removed, and its recipients are tried
    /// again.
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

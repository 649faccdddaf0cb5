//! Makes derived entries. A derived entry is made from another entry, the original. It is a report
//! about some of the original's recipients, or the original's message forwarded to the addresses
//! that one recipient expands to.
//!
//! A derived entry may also be a held copy of the original for one recipient: then it is renamed into
//! `hold/`.
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
use super::{DeliveryState, Entry, EntryName, Kind, Place, QueueId, RecipientEntry, ReportedEvent, State, Success};
use crate::envelope::Envelope;
use crate::sys::disk;

impl Entry {
    /// Creates the entry of a report. `events` has the numbers of the recipients that the report
    /// describes, and what it says about each; they are all failures, all successes or all delays.
    /// `content` returns the text of the report, given the report's queue id.
    ///
    /// # Errors
    /// Those of the system. After an error there is no report: the caller must open this entry
    /// again and call [`Entry::recover`].
    pub fn create_report(
        &mut self,
        events: &[(usize, ReportedEvent)],
        envelope: &Envelope,
        content: impl FnOnce(QueueId) -> Vec<u8>,
        now: u64,
    ) -> io::Result<EntryName> {
        let lead = events.iter().min_by_key(|(number, _)| *number).copied().ok_or(io::ErrorKind::InvalidInput)?;
        let (lead, event) = lead;
        let id = self.id().derive(kind_of(event), lead, now);
        let text = content(id);
        let write = |_: &Self, file: &File| disk::write(file, &text);
        let spool = Arc::clone(&self.spool);
        let _reserved = spool.reserve(text.len() as u64, Purpose::Report)?;
        let mut meter = Meter::default();
        meter.take(&text);
        let head = head::queued(envelope, Marks::default(), Some(meter.measure(b"")), 0);
        let reported = |&(number, event)| (number, State::Reported { lead: lead as u64, event });
        let prepared: Vec<(usize, State)> = events.iter().map(reported).collect();
        self.derive(id, &prepared, &head, write, now)
    }

    /// Creates the entry that forwards the message to the addresses that the recipient with this
    /// number expands to. The lines in `front` are put before the content. If `success` has a
    /// value, that success is to be reported.
    ///
    /// # Errors
    /// As for [`Entry::create_report`].
    pub fn forward(
        &mut self,
        (number, success): (usize, Option<Success>),
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
        let head = head::derived(envelope, derivation, None, measure);
        let spool = Arc::clone(&self.spool);
        let _reserved = spool.reserve((head.len() + front.len()) as u64 + self.content_size(), Purpose::Message)?;
        self.derive(id, &[(number, State::Forwarded { success })], &head, write, now)
    }

    /// Creates a held entry with the message for the recipient with this number. A derivation cannot
    /// grow by that: `envelope` has the recipient as it stands in this entry. `reason` says why the
    /// message is held.
    ///
    /// # Errors
    /// As for [`Entry::create_report`].
    pub fn hold_copy(
        &mut self,
        number: usize,
        (envelope, derivation): (&Envelope, &Derivation),
        reason: &str,
        now: u64,
    ) -> io::Result<EntryName> {
        let id = self.id().derive(Kind::Forwarded, number, now);
        let head = head::derived(envelope, derivation, Some(reason), self.head.measure);
        let spool = Arc::clone(&self.spool);
        let _reserved = spool.reserve(head.len() as u64 + self.content_size(), Purpose::Message)?;
        let prepared = [(number, State::Forwarded { success: None })];
        self.derive_to(Place::Hold, id, &prepared, &head, |entry, file| entry.copy_to(file), now)
    }

    /// Makes a derived entry. `prepared` has the states of the recipients while it is in `tmp/`.
    fn derive(
        &mut self,
        id: QueueId,
        prepared: &[(usize, State)],
        head: &str,
        write: impl FnOnce(&Self, &File) -> io::Result<()>,
        now: u64,
    ) -> io::Result<EntryName> {
        self.derive_to(Place::New, id, prepared, head, write, now)
    }

    /// Makes a derived entry in this directory.
    fn derive_to(
        &mut self,
        place: Place,
        id: QueueId,
        prepared: &[(usize, State)],
        head: &str,
        write: impl FnOnce(&Self, &File) -> io::Result<()>,
        now: u64,
    ) -> io::Result<EntryName> {
        if head.len() as u64 > head::MAX_HEAD {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let size = self.spool.write_temporary(id, head, |file| write(self, file))?;
        for &(number, state) in prepared {
            self.settle(number, state, now)?;
        }
        disk::sync_data(&self.file)?;
        let derived = EntryName { id, size, place };
        disk::rename_new(&self.spool.temporary(id), &self.spool.path(derived))?;
        // The derived entry exists now. If a directory cannot be synced, or a record cannot be
        // written, `recover` finds the derived entry later.
        let recorded = self.spool.sync_places(&[place.directory(), "tmp"]);
        let recorded = recorded.and_then(|()| prepared.iter().try_for_each(|&(number, _)| self.settle_sent(number)));
        if let Err(e) = recorded {
            log::error!("spool: settle {}: {e}", self.id());
        }
        Ok(derived)
    }

    /// Records that the derived entry that a recipient waits for was sent.
    fn settle_sent(&mut self, number: usize) -> io::Result<()> {
        let record = self.recipient(number).ok_or(io::ErrorKind::InvalidInput)?.record;
        self.overwrite(number, after_sending(record))
    }

    /// Records that the derived entry that a recipient waits for was not sent. If the recipient
    /// still needs the message, the time 0 makes the recipient due at once.
    fn settle_unsent(&mut self, number: usize) -> io::Result<()> {
        let record = self.recipient(number).ok_or(io::ErrorKind::InvalidInput)?.record;
        match record.state {
            State::Reported { event: ReportedEvent::Success(success), .. } => {
                self.settle(number, State::Unreported(success), record.last)
            }
            _ => self.settle(number, State::Todo, 0),
        }
    }

    /// The ids of the derived entries that this entry's recipients wait for, and that may still be
    /// in `tmp/`.
    pub fn awaited(&self) -> impl Iterator<Item = QueueId> {
        self.head.recipients.iter().filter_map(|entry| self.awaited_by(entry))
    }

    fn awaited_by(&self, entry: &RecipientEntry) -> Option<QueueId> {
        let (kind, lead) = match entry.record.state {
            State::Reported { lead, event } => (kind_of(event), usize::try_from(lead).unwrap_or(usize::MAX)),
            State::Forwarded { .. } => (Kind::Forwarded, entry.number),
            _ => return None,
        };
        Some(self.id().derive(kind, lead, entry.record.last))
    }

    /// Completes the step that a crash interrupted, for those recipients in `numbers` that wait for
    /// a derived entry. If the derived entry is still in `tmp/`, it was never sent: it is removed,
    /// and the step is repeated in the next attempt. Otherwise it was sent, and the records say so.
    ///
    /// # Errors
    /// Those of the system.
    pub fn recover(&mut self, numbers: impl Iterator<Item = usize>) -> io::Result<()> {
        let mut unsent = BTreeSet::new();
        for number in numbers {
            let Some(entry) = self.recipient(number) else { continue };
            let Some(derived) = self.awaited_by(entry) else { continue };
            let temporary = self.spool.temporary(derived);
            if temporary.try_exists()? {
                self.settle_unsent(number)?;
                unsent.insert(temporary);
            } else {
                self.settle_sent(number)?;
            }
        }
        if !unsent.is_empty() {
            disk::sync_data(&self.file)?;
        }
        unsent.iter().try_for_each(|path| disk::remove(path))
    }
}

/// The kind of the report that describes an event.
fn kind_of(event: ReportedEvent) -> Kind {
    match event {
        ReportedEvent::Failure => Kind::Report,
        ReportedEvent::Success(_) => Kind::Success,
        ReportedEvent::Delay => Kind::Delay,
    }
}

/// The record of a recipient after the derived entry that it waits for was sent.
fn after_sending(record: DeliveryState) -> DeliveryState {
    let (state, warned) = match record.state {
        State::Reported { event: ReportedEvent::Failure, .. } => (State::Failed, record.warned),
        State::Reported { event: ReportedEvent::Success(_), .. } => (State::Done, record.warned),
        State::Reported { event: ReportedEvent::Delay, .. } => (State::Todo, record.last),
        State::Forwarded { success: Some(success) } => (State::Unreported(success), record.warned),
        State::Forwarded { success: None } => (State::Done, record.warned),
        other => (other, record.warned),
    };
    DeliveryState { state, warned, ..record }
}

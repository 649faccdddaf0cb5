//! Counts events for reports, and keeps the counts in the state directory.
//!
//! Events about which a report shows the same facts share a row. The rows of the last time are
//! added up in memory, so that a flood of equal events becomes few records in the journal. The
//! records of all processes are read only when reports are made. The key of a record is the domain.
//! Its value is one of these:
//!
//! - `rDAY|COUNT|ROW`: the number of events of a row
//! - `tDAY|WHERE`: the report for that day has reached one of the places where it is sent
//! - `sDAY`: the report for that day is done
//!
//! Strangers choose the domains, and partly the rows. So the number of rows and bytes that a domain
//! can add is bounded, as is the journal as a whole.

use std::collections::{HashMap, HashSet};
use std::marker::PhantomData;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::DAY;
use crate::state::{Journal, Limits, Record, State};
use crate::sys;

/// The age at which rows do not count any more.
const MAX_AGE: Duration = Duration::from_secs(3 * DAY);
/// The maximum number of domains whose bytes are counted towards [`Bounds::domain_bytes`]. If there
/// are more, the count begins anew.
const MAX_WRITERS: usize = 10_000;

/// The name of a tally, and its bounds.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The name of the journal.
    pub name: &'static str,
    /// The maximum size of each of its two files, in bytes.
    pub max_size: u64,
    /// The time after which rows in memory are written, in seconds.
    pub max_wait: u64,
    /// The maximum number of different rows in memory.
    pub max_pending: usize,
    /// The maximum number of different rows in memory for one domain. Further rows are left out.
    pub domain_rows: usize,
    /// The maximum number of bytes that one domain writes a day. Further rows are left out.
    pub domain_bytes: usize,
    /// The maximum number of rows in a report. Rows with the most events come first.
    pub report_rows: usize,
}

/// The facts about an event that a report shows.
pub trait Facts: Sized {
    /// The bounds of the tally of such events.
    const BOUNDS: Bounds;

    /// Returns the facts as a row: one line of text.
    fn to_text(&self) -> String;

    /// Parses a row. Returns `None` if [`Facts::to_text`] cannot have written the text.
    fn parse(row: &str) -> Option<Self>;
}

/// The counts of all processes that use the same state.
#[derive(Debug)]
pub struct Tally<F: Facts> {
    state: State,
    facts: PhantomData<fn() -> F>,
    /// The contents. The lock is held only while an event is counted or rows are written.
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    journal: Journal,
    /// The number of events of each row that is not written yet, by day, domain and row.
    pending: HashMap<(u64, Box<str>), HashMap<String, u64>>,
    /// The number of rows in `pending`.
    pending_rows: usize,
    /// The time at which the oldest row in `pending` was counted, in seconds since 1970.
    since: u64,
    /// The number of bytes that each domain has written on the day `written_on`.
    written: HashMap<Box<str>, usize>,
    written_on: u64,
}

/// The rows of one day for one domain.
#[derive(Debug, PartialEq, Eq)]
pub struct Rows<F> {
    /// The domain.
    pub domain: Box<str>,
    /// At most [`Bounds::report_rows`] rows, each with its number of events, the largest number first.
    pub rows: Vec<(F, u64)>,
    /// The number of rows that were left out.
    pub omitted: usize,
    /// The places that the report for this day has reached already.
    pub reached: Vec<String>,
}

/// The error that the state directory cannot be written now, so that it is not known later that a
/// report was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unrecorded;

impl<F: Facts> Tally<F> {
    /// Returns the counts in a state directory. The journal is opened only when it is needed.
    pub fn shared(state: &State) -> Self {
        let inner = Inner {
            journal: Self::journal(state),
            pending: HashMap::new(),
            pending_rows: 0,
            since: 0,
            written: HashMap::new(),
            written_on: 0,
        };
        Self { state: state.clone(), facts: PhantomData, inner: Mutex::new(inner) }
    }

    fn journal(state: &State) -> Journal {
        state.journal(F::BOUNDS.name, Limits { max_size: F::BOUNDS.max_size, max_age: MAX_AGE })
    }

    /// Counts an event at the time `now`, in seconds since 1970.
    pub fn count(&self, now: u64, domain: &str, facts: &F) {
        let row = facts.to_text();
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.pending.is_empty() {
            inner.since = now;
        }
        let rows = inner.pending.entry((now / DAY, domain.into())).or_default();
        let is_full = rows.len() >= F::BOUNDS.domain_rows;
        match rows.get_mut(&row) {
            Some(count) => *count = count.saturating_add(1),
            None if is_full => {}
            None => {
                rows.insert(row, 1);
                inner.pending_rows += 1;
            }
        }
        if inner.pending_rows >= F::BOUNDS.max_pending || now.abs_diff(inner.since) >= F::BOUNDS.max_wait {
            inner.flush(now, F::BOUNDS.domain_bytes);
        }
    }

    /// Writes the rows that are still in memory.
    pub fn flush(&self) {
        self.flush_at(sys::now());
    }

    fn flush_at(&self, now: u64) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).flush(now, F::BOUNDS.domain_bytes);
    }

    /// Returns the rows of a day for the domains whose report is not done yet. The domains with the
    /// most events come first. `day` is in days since 1970.
    pub fn of_day(&self, now: u64, day: u64) -> Vec<Rows<F>> {
        self.flush_at(now);
        let mut domains: HashMap<String, (HashMap<String, u64>, Vec<String>)> = HashMap::new();
        let mut done = HashSet::new();
        let take = |record: &Record| match read(&record.value) {
            Some((of, _)) if of != day => {}
            Some((_, Entry::Done)) => {
                done.insert(record.key.clone());
            }
            Some((_, Entry::Reached(place))) => {
                domains.entry(record.key.clone()).or_default().1.push(place.to_owned());
            }
            Some((_, Entry::Counted(count, row))) => {
                let (rows, _) = domains.entry(record.key.clone()).or_default();
                let total = rows.entry(row.to_owned()).or_default();
                *total = total.saturating_add(count);
            }
            None => {}
        };
        // A journal passes each record to `take` only once, and skips the records that were written
        // through it. So a new journal is opened, which passes all records.
        drop(Self::journal(&self.state).lock(now, take));
        domains.retain(|domain, _| !done.contains(domain));
        let sorted = |(domain, (rows, reached))| Self::sorted(domain, rows, reached);
        let mut all: Vec<Rows<F>> = domains.into_iter().map(sorted).filter(|one| !one.rows.is_empty()).collect();
        let total = |one: &Rows<F>| one.rows.iter().map(|(_, count)| *count).fold(0, u64::saturating_add);
        all.sort_by(|a, b| total(b).cmp(&total(a)).then_with(|| a.domain.cmp(&b.domain)));
        all
    }

    fn sorted(domain: String, rows: HashMap<String, u64>, reached: Vec<String>) -> Rows<F> {
        let mut rows: Vec<(String, u64)> = rows.into_iter().collect();
        rows.sort_by(|(a, many), (b, more)| more.cmp(many).then_with(|| a.cmp(b)));
        let omitted = rows.len().saturating_sub(F::BOUNDS.report_rows);
        rows.truncate(F::BOUNDS.report_rows);
        let rows = rows.into_iter().filter_map(|(row, count)| Some((F::parse(&row)?, count))).collect();
        Rows { domain: domain.into(), rows, omitted, reached }
    }

    /// Records that the report for a day and a domain is done: that it was sent, or need not be
    /// sent.
    ///
    /// # Errors
    /// [`Unrecorded`]
    pub fn note_done(&self, now: u64, day: u64, domain: &str) -> Result<(), Unrecorded> {
        self.note(now, domain, format!("s{day}"))
    }

    /// Records that the report for a day and a domain has reached one of the places where it is
    /// sent.
    ///
    /// # Errors
    /// [`Unrecorded`]
    pub fn note_reached(&self, now: u64, day: u64, domain: &str, place: &str) -> Result<(), Unrecorded> {
        self.note(now, domain, format!("t{day}|{place}"))
    }

    fn note(&self, now: u64, domain: &str, value: String) -> Result<(), Unrecorded> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut locked = inner.journal.lock(now, |_| {}).ok_or(Unrecorded)?;
        let is_written = locked.append(&Record { time: now, key: domain.to_owned(), value });
        if is_written { Ok(()) } else { Err(Unrecorded) }
    }
}

impl<F: Facts> Drop for Tally<F> {
    fn drop(&mut self) {
        self.flush();
    }
}

impl Inner {
    /// Writes the rows. `max_bytes` is [`Bounds::domain_bytes`].
    fn flush(&mut self, now: u64, max_bytes: usize) {
        if self.pending.is_empty() {
            return;
        }
        let pending = std::mem::take(&mut self.pending);
        self.pending_rows = 0;
        if self.written_on != now / DAY || self.written.len() > MAX_WRITERS {
            (self.written_on, self.written) = (now / DAY, HashMap::new());
        }
        // If the journal cannot be locked, the rows are lost. That is acceptable, because the
        // counts are only a convenience.
        let Some(mut locked) = self.journal.lock(now, |_| {}) else { return };
        for ((day, domain), rows) in pending {
            let written = self.written.entry(domain.clone()).or_default();
            for (row, count) in rows {
                let value = format!("r{day}|{count}|{row}");
                *written = written.saturating_add(domain.len() + value.len());
                if *written <= max_bytes {
                    locked.append(&Record { time: now, key: domain.clone().into(), value });
                }
            }
        }
    }
}

/// What a record states about a day.
enum Entry<'a> {
    Counted(u64, &'a str),
    Reached(&'a str),
    Done,
}

/// Parses the value of a record. Returns the day and what is stated about it.
fn read(value: &str) -> Option<(u64, Entry<'_>)> {
    let (kind, rest) = value.split_at_checked(1)?;
    match kind {
        "s" => Some((rest.parse().ok()?, Entry::Done)),
        "t" => rest.split_once('|').and_then(|(day, place)| Some((day.parse().ok()?, Entry::Reached(place)))),
        "r" => {
            let mut parts = rest.splitn(3, '|');
            let (day, count, row) = (parts.next()?, parts.next()?, parts.next()?);
            Some((day.parse().ok()?, Entry::Counted(count.parse().ok()?, row)))
        }
        _ => None,
    }
}

//! Counts messages for DMARC reports, and keeps the counts in the state directory.
//!
//! Messages about which a report shows the same facts share a row. The rows of the last half minute
//! are added up in memory, so that a flood of messages from one client becomes few records in the
//! journal. The records of all processes are read only when reports are made. The value of a record
//! is `rDAY|COUNT|ROW`, or `sDAY` once the report for that day was sent. The key of a record is the
//! domain whose DMARC record was found.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::DAY;
use super::row::Row;
use crate::state::{Journal, Limits, Record, State};
use crate::sys;

/// The maximum number of rows in a report. Rows with the most messages come first.
pub const MAX_ROWS: usize = 1000;
/// The maximum number of different rows that are held in memory before they are written.
const MAX_PENDING: usize = 200;
/// The time after which rows are written, in seconds.
const MAX_WAIT: u64 = 30;
/// The limits of the journal. Its two files have room for about 60,000 rows. Rows older than three
/// days do not count.
const LIMITS: Limits = Limits { max_size: 8 << 20, max_age: Duration::from_secs(3 * DAY) };
/// The name of the journal.
const NAME: &str = "dmarc";

/// The counts of all processes that use the same state.
#[derive(Debug)]
pub struct Counts {
    state: State,
    /// The contents. The lock is held only while a message is counted or rows are written.
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    journal: Journal,
    /// The number of messages of each row that is not written yet, by day, domain and row.
    pending: HashMap<(u64, Box<str>, String), u64>,
    /// The time at which the oldest row in `pending` was counted, in seconds since 1970.
    since: u64,
}

/// The rows of one day for one domain.
#[derive(Debug, PartialEq, Eq)]
pub struct Counted {
    /// The domain whose record was found.
    pub domain: Box<str>,
    /// At most [`MAX_ROWS`] rows, each with its number of messages, the largest number first.
    pub rows: Vec<(Row, u64)>,
    /// The number of rows that were left out.
    pub omitted: usize,
}

impl Counts {
    /// Returns the counts in a state directory. The journal is opened only when it is needed.
    pub fn shared(state: &State) -> Self {
        let inner = Inner { journal: state.journal(NAME, LIMITS), pending: HashMap::new(), since: 0 };
        Self { state: state.clone(), inner: Mutex::new(inner) }
    }

    /// Counts a message for the domain whose record was found.
    pub fn count(&self, domain: &str, row: &Row) {
        self.count_at(sys::now(), domain, row);
    }

    pub(super) fn count_at(&self, now: u64, domain: &str, row: &Row) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.pending.is_empty() {
            inner.since = now;
        }
        *inner.pending.entry((now / DAY, domain.into(), row.to_text())).or_default() += 1;
        if inner.pending.len() >= MAX_PENDING || now.abs_diff(inner.since) >= MAX_WAIT {
            inner.flush(now);
        }
    }

    /// Writes the rows that are still in memory.
    pub fn flush(&self) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).flush(sys::now());
    }

    /// Returns the rows of a day for the domains whose report was not sent yet. The domains with
    /// the most messages come first. `day` is in days since 1970.
    pub fn of_day(&self, day: u64) -> Vec<Counted> {
        self.of_day_at(sys::now(), day)
    }

    pub(super) fn of_day_at(&self, now: u64, day: u64) -> Vec<Counted> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).flush(now);
        let mut domains: HashMap<String, HashMap<String, u64>> = HashMap::new();
        let mut sent = Vec::new();
        let take = |record: &Record| match read(&record.value) {
            Some((of, None)) if of == day => sent.push(record.key.clone()),
            Some((of, Some((count, row)))) if of == day => {
                let rows = domains.entry(record.key.clone()).or_default();
                let total = rows.entry(row.to_owned()).or_default();
                *total = total.saturating_add(count);
            }
            _ => {}
        };
        // A journal passes each record to `take` only once, and skips the records that were written
        // through it. So a new journal is opened, which passes all records.
        drop(self.state.journal(NAME, LIMITS).lock(now, take));
        domains.retain(|domain, _| !sent.contains(domain));
        let mut all: Vec<Counted> = domains.into_iter().map(|(domain, rows)| counted(&domain, rows)).collect();
        let total = |one: &Counted| one.rows.iter().map(|(_, count)| *count).fold(0, u64::saturating_add);
        all.retain(|one| !one.rows.is_empty());
        all.sort_by(|a, b| total(b).cmp(&total(a)).then_with(|| a.domain.cmp(&b.domain)));
        all
    }

    /// Records that the report for a day and a domain was sent, or need not be sent.
    pub fn note_sent(&self, day: u64, domain: &str) {
        self.note_sent_at(sys::now(), day, domain);
    }

    pub(super) fn note_sent_at(&self, now: u64, day: u64, domain: &str) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut locked) = inner.journal.lock(now, |_| {}) {
            locked.append(&Record { time: now, key: domain.to_owned(), value: format!("s{day}") });
        }
    }
}

impl Drop for Counts {
    fn drop(&mut self) {
        self.flush();
    }
}

impl Inner {
    fn flush(&mut self, now: u64) {
        if self.pending.is_empty() {
            return;
        }
        let pending = std::mem::take(&mut self.pending);
        // If the journal cannot be locked, the rows are lost. That is acceptable, because the
        // counts are only a convenience.
        if let Some(mut locked) = self.journal.lock(now, |_| {}) {
            for ((day, domain, row), count) in pending {
                locked.append(&Record { time: now, key: domain.into(), value: format!("r{day}|{count}|{row}") });
            }
        }
    }
}

/// Parses the value of a record. Returns the day, together with the count and the row. If the
/// record says that the report was sent, there is `None` in place of the count and the row.
fn read(value: &str) -> Option<(u64, Option<(u64, &str)>)> {
    if let Some(day) = value.strip_prefix('s') {
        return Some((day.parse().ok()?, None));
    }
    let mut parts = value.strip_prefix('r')?.splitn(3, '|');
    let (day, count, row) = (parts.next()?, parts.next()?, parts.next()?);
    Some((day.parse().ok()?, Some((count.parse().ok()?, row))))
}

fn counted(domain: &str, rows: HashMap<String, u64>) -> Counted {
    let mut rows: Vec<(String, u64)> = rows.into_iter().collect();
    rows.sort_by(|(a, many), (b, more)| more.cmp(many).then_with(|| a.cmp(b)));
    let omitted = rows.len().saturating_sub(MAX_ROWS);
    rows.truncate(MAX_ROWS);
    let rows = rows.into_iter().filter_map(|(row, count)| Some((Row::parse(&row)?, count))).collect();
    Counted { domain: domain.into(), rows, omitted }
}

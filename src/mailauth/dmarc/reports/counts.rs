//! Counts messages for DMARC reports, in a [`Tally`] whose key is the domain whose DMARC record was
//! found.

use super::row::Row;
use crate::aggregate::{Bounds, Rows, Tally, Unrecorded};
use crate::state::State;
use crate::sys;

/// The maximum number of rows in a report. Rows with the most messages come first.
pub const MAX_ROWS: usize = 1000;
/// The bounds of the counts. The two files of the journal have room for about 60,000 rows.
const BOUNDS: Bounds = Bounds {
    name: "dmarc",
    max_size: 8 << 20,
    max_wait: 30,
    max_pending: 200,
    domain_rows: usize::MAX,
    domain_bytes: usize::MAX,
    report_rows: MAX_ROWS,
};

/// The counts of all processes that use the same state.
#[derive(Debug)]
pub struct Counts(Tally);

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
        Self(Tally::shared(state, BOUNDS))
    }

    /// Counts a message for the domain whose record was found.
    pub fn count(&self, domain: &str, row: &Row) {
        self.count_at(sys::now(), domain, row);
    }

    pub(super) fn count_at(&self, now: u64, domain: &str, row: &Row) {
        self.0.count(now, domain, row.to_text());
    }

    /// Writes the rows that are still in memory.
    pub fn flush(&self) {
        self.0.flush();
    }

    /// Returns the rows of a day for the domains whose report was not sent yet. The domains with
    /// the most messages come first. `day` is in days since 1970.
    pub fn of_day(&self, day: u64) -> Vec<Counted> {
        self.of_day_at(sys::now(), day)
    }

    pub(super) fn of_day_at(&self, now: u64, day: u64) -> Vec<Counted> {
        let counted = |Rows { domain, rows, omitted, .. }| {
            let rows: Vec<_> = rows.into_iter().filter_map(read).collect();
            (!rows.is_empty()).then_some(Counted { domain, rows, omitted })
        };
        self.0.of_day(now, day).into_iter().filter_map(counted).collect()
    }

    /// Records that the report for a day and a domain was sent, or need not be sent.
    ///
    /// # Errors
    /// [`Unrecorded`]
    pub fn note_sent(&self, day: u64, domain: &str) -> Result<(), Unrecorded> {
        self.note_sent_at(sys::now(), day, domain)
    }

    pub(super) fn note_sent_at(&self, now: u64, day: u64, domain: &str) -> Result<(), Unrecorded> {
        self.0.note_done(now, day, domain)
    }
}

fn read((row, count): (String, u64)) -> Option<(Row, u64)> {
    Some((Row::parse(&row)?, count))
}

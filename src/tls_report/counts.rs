//! Counts connections for TLS reports, in a [`Tally`] whose key is the domain of the recipients.

use super::row::{Row, TlsResult};
use crate::aggregate::{Bounds, Rows, Tally, Unrecorded};
use crate::state::State;
use crate::sys;

/// The bounds of the counts. A row has at most 4 KiB, usually 300 octets. Rows are held in memory
/// for ten minutes, so that a busy domain writes about a hundred records a day.
const BOUNDS: Bounds = Bounds {
    name: "tls-reports",
    max_size: 8 << 20,
    max_wait: 600,
    max_pending: 1000,
    domain_rows: 50,
    domain_bytes: 256 << 10,
    report_rows: 500,
};

/// The counts of all processes that use the same state.
#[derive(Debug)]
pub struct Counts(Tally);

/// The rows of one day for one domain.
#[derive(Debug, PartialEq, Eq)]
pub struct Counted {
    /// The domain of the recipients.
    pub domain: Box<str>,
    /// The rows, each with its number of connections, the largest number first.
    pub rows: Vec<(Row, u64)>,
    /// The places that the report has reached already.
    pub reached: Vec<String>,
}

impl Counts {
    /// Returns the counts in a state directory. The journal is opened only when it is needed.
    pub fn shared(state: &State) -> Self {
        Self(Tally::shared(state, BOUNDS))
    }

    /// Counts how TLS went on one connection. Call this only if `remote.tls_reports` is set.
    pub fn note(&self, result: &TlsResult<'_>) {
        self.note_at(sys::now(), result);
    }

    pub(super) fn note_at(&self, now: u64, result: &TlsResult<'_>) {
        self.0.count(now, result.domain, Row::new(result).to_text());
    }

    /// Writes the rows that are still in memory.
    pub fn flush(&self) {
        self.0.flush();
    }

    /// Returns the rows of a day for the domains whose report is not done yet. The domains with the
    /// most connections come first. `day` is in days since 1970.
    pub fn of_day(&self, now: u64, day: u64) -> Vec<Counted> {
        let counted = |Rows { domain, rows, reached, .. }| {
            let rows: Vec<_> = rows.into_iter().filter_map(read).collect();
            (!rows.is_empty()).then_some(Counted { domain, rows, reached })
        };
        self.0.of_day(now, day).into_iter().filter_map(counted).collect()
    }

    /// Records that the report for a day and a domain is done: that it was sent, or need not be
    /// sent.
    ///
    /// # Errors
    /// [`Unrecorded`]
    pub fn note_done(&self, now: u64, day: u64, domain: &str) -> Result<(), Unrecorded> {
        self.0.note_done(now, day, domain)
    }

    /// Records that the report has reached one of the places that the domain names.
    ///
    /// # Errors
    /// [`Unrecorded`]
    pub fn note_reached(&self, now: u64, day: u64, domain: &str, place: &str) -> Result<(), Unrecorded> {
        self.0.note_reached(now, day, domain, place)
    }
}

fn read((row, count): (String, u64)) -> Option<(Row, u64)> {
    Some((Row::parse(&row)?, count))
}

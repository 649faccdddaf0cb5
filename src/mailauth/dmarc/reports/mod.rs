//! Aggregate reports (RFC 9990): what is counted, where a report may go, and the report itself.
//!
//! While messages arrive, [`Counts`] counts them in the state directory, by UTC day, domain and
//! [`Row`]. Once a day the daemon takes the rows of the day before, asks again for the record of
//! each domain, checks the addresses in it ([`destinations`]), and sends what [`message`] composes.
//! A record that has disappeared meanwhile, or no longer asks for reports, ends the report.
//!
//! The counts are a convenience: they are bounded, and may be lost in part with the state
//! directory. A report is sent at most once for each day and domain, unless the state is lost; then
//! it has the same Report-ID again.
//!
//! - `counts`: the counts in the state directory
//! - `destinations`: the addresses to which a report may be sent
//! - `gzip`: compression
//! - `message`: the mail that carries a report
//! - `row`: the facts about a message that are counted
//! - `xml`: the report

mod counts;
mod destinations;
mod gzip;
mod message;
mod row;
mod xml;

pub use counts::{Counted, Counts, MAX_ROWS};
pub use destinations::{allowed, has_public_hosts, is_public};
pub use message::{Report, attachment, message};
pub use row::{Action, Row, Signature};

/// The maximum number of domains that get a report about a day: those with the most messages.
pub const MAX_REPORTS: usize = 500;

/// The number of seconds in a day.
pub const DAY: u64 = 86_400;

#[cfg(test)]
mod tests;

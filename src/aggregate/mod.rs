//! What the daily reports to the owners of domains have in common: DMARC reports
//! (`mailauth::dmarc::reports`) and TLS reports (`tls_report`).
//!
//! Events are counted in the state directory by UTC day, domain and *row*, a text with the facts
//! that a report shows ([`Tally`], [`Facts`]). After the day has ended, the rows of a domain become a report,
//! which is compressed ([`gzip`]) and sent as the attachment of a mail ([`Mail`]).
//!
//! - `gzip`: compression
//! - `mail`: the mail that carries a report
//! - `tally`: the counts in the state directory
//! - `uri`: the addresses where domains want reports

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

pub mod gzip;
mod mail;
mod tally;
pub mod uri;

pub use mail::Mail;
pub use tally::{Bounds, Facts, Rows, Tally, Unrecorded};

/// The maximum number of domains that get a report about a day. Domains with the most events come
/// first.
pub const MAX_REPORTS: usize = 500;

/// The number of seconds in a day.
pub const DAY: u64 = 86_400;

/// Returns the date of a day, which is in days since 1970.
pub fn date(day: u64) -> Date {
    let seconds = i64::try_from(day.saturating_mul(DAY)).unwrap_or_default();
    Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(TimeZone::UTC).date()
}

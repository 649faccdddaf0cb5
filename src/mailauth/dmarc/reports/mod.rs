//! Counts messages for aggregate reports to the domains of their authors, and makes the reports
//! (RFC 9990).
//!
//! While messages arrive, [`Counts`] counts them in the state directory by UTC day, domain and
//! [`Row`], the facts about a message that a report shows. Once a day the daemon takes the rows of
//! the day before, looks up the record of each domain again, checks the addresses in the record
//! ([`destinations`]), and sends the mail that [`message`] composes. If the record has disappeared
//! meanwhile, or no longer asks for reports, no report is sent.
//!
//! The counts are only a convenience: they are bounded, and may be lost with the state directory.
//! For each day and domain, a report is sent only once, unless the state is lost: the report may
//! then be sent again, with the same Report-ID.
//!
//! - `destinations`: the addresses to which a report may be sent
//! - `message`: the mail that carries a report
//! - `row`: the facts about a message that are counted
//! - `xml`: the report

mod destinations;
mod message;
mod row;
mod xml;

pub use destinations::allowed;
pub use message::{Report, attachment, message};
pub use row::{Action, Row, Signature};

use crate::aggregate::{Rows, Tally};

/// The counts of messages. The domain is the one whose DMARC record was found.
pub type Counts = Tally<Row>;

/// The messages of one day for one domain.
pub type Counted = Rows<Row>;

#[cfg(test)]
mod tests;

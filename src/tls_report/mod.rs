//! Counts how TLS connections to the mail hosts of other domains went, and makes daily reports for
//! the domains that ask for them (TLS-RPT, RFC 8460).
//!
//! Each attempt to open a connection is counted once, as soon as it is known whether TLS succeeded
//! ([`Counts::note`]): in the state directory, by UTC day, domain, policy, and failure. So are
//! failures to get a policy. Once a day the daemon takes the counts of the day before, looks up the
//! record of each domain ([`Record`]), and sends the report: by mail, which [`Report::mail`]
//! composes, or by HTTPS.
//!
//! Nothing is counted unless `remote.tls_reports` is set. The counts are only a convenience: they
//! are bounded, and may be lost with the state directory. For each day and domain, a report is sent
//! only once, unless the state is lost: the report may then be sent again, with the same report id.
//!
//! - `document`: the report as JSON and as mail
//! - `record`: the TXT record by which a domain asks for reports
//! - `row`: the facts that are counted

mod document;
mod record;
mod row;

use crate::aggregate::{Rows, Tally};

pub use document::Report;
pub use record::{Destination, MAX_DESTINATIONS, Record};
pub use row::{Policy, Row, Session, TlsResult};

/// The counts of connections. The domain is that of the recipients. Count only if
/// `remote.tls_reports` is set.
pub type Counts = Tally<Row>;

/// The connections of one day for one domain.
pub type Counted = Rows<Row>;

#[cfg(test)]
mod tests;

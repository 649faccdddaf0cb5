//! Makes reports to the senders of messages (RFC 3464), and limits their number.
//!
//! - `cause`: the causes of failures and delays, from statuses and replies
//! - `compose`: a report as a message of three parts
//! - `encode`: folded lines and MIME parts
//! - `languages`: the languages in which reports are written
//! - `original`: the header of the original message, as a report quotes it
//! - `rate`: the limits on reports to one address or domain
//! - `status`: the second part of a report, for programs
//! - `words`: the first part of a report, in plain words

mod cause;
pub mod compose;
mod encode;
pub mod languages;
mod original;
pub mod rate;
mod status;
mod words;

use crate::outcome::{Fate, Outcome};
use cause::Cause;
pub use status::remote_mta;

/// Returns the name of the cause of a failure or a deferral; an empty text for a delivery.
pub fn cause(outcome: &Outcome) -> &'static str {
    if outcome.fate == Fate::Delivered { "" } else { Cause::of(outcome).name() }
}

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

pub use status::remote_mta;

//! Makes reports to the senders of messages (RFC 3464), and limits their number.
//!
//! - `compose`: a report as a message of three parts
//! - `encode`: folded lines, MIME parts and quoted-printable
//! - `original`: the header of the original message, as a report quotes it
//! - `rate`: the limits on reports to one address or domain
//! - `reason`: the reasons for a failure, in words for the sender
//! - `status`: the second part of a report, for programs
//! - `words`: the first part of a report, in plain words

pub mod compose;
mod encode;
mod original;
pub mod rate;
mod reason;
mod status;
mod words;

pub use status::remote_mta;

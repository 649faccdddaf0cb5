//! Makes reports to the senders of undelivered messages (RFC 3464), and limits their number.
//!
//! - `encode`: folded lines, MIME parts and quoted-printable
//! - `failure`: the report that a message could not be delivered
//! - `original`: the header of the original message, as a report quotes it
//! - `rate`: the limits on reports to one address or domain
//! - `reason`: the reasons for a failure, in words for the sender

mod encode;
pub mod failure;
mod original;
pub mod rate;
mod reason;

//! Reports to the senders of messages (RFC 3464).
//!
//! - `encode`: folded lines, MIME parts and quoted-printable
//! - `failure`: the report that a message could not be delivered
//! - `original`: the header of the original message, as a report quotes it
//! - `rate`: how many reports are sent to one address, domain or postmaster
//! - `reason`: the reasons for a failure, in words for the sender

mod encode;
pub mod failure;
mod original;
pub mod rate;
mod reason;

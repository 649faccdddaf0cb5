//! Reports to the senders of messages (RFC 3464).
//!
//! - `failure`: the report that a message could not be delivered
//! - `reason`: the reasons for a failure, in words for its sender

pub mod failure;
mod reason;

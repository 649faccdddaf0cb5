//! The text of a message: its header fields and the addresses in them, without any I/O.
//!
//! - `addresses`: the addresses in From, Sender and other fields that are checked and completed
//! - `recipients`: the recipients that a header field or a command line names
//! - `trace`: the trace field `Received:`, written and read, and dates

pub mod addresses;
pub mod recipients;
pub mod trace;

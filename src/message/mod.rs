//! The text of a message: its header fields and the addresses in them.
//!
//! - `addresses`: the addresses in fields that are checked and completed, such as From
//! - `encoded_words`: text outside ASCII in header fields
//! - `field`: the readers of header sections, with one definition of a field and of the header's
//!   end
//! - `mime`: converts the parts of messages for hosts that cannot take them as they are
//! - `recipients`: the recipients that a header field or a command line names
//! - `trace`: the trace field `Received:`, written and read, and the form of dates

pub mod addresses;
pub mod encoded_words;
pub mod field;
pub mod mime;
pub mod recipients;
pub mod trace;

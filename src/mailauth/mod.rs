//! Checks who is responsible for a message, and proves it for our own: SPF, DKIM, DMARC, ARC.
//!
//! Nothing here has sockets. DNS look-ups go through the trait [`lookup::Lookup`], so that all
//! look-ups for a message end within the time that the session allows, and so that tests need no
//! name server. Records, messages and fields are untrusted: their size, the number of look-ups and
//! the depth of recursion are limited.
//!
//! - `lookup`: DNS look-ups with a common deadline
//! - `spf`: whether a client may use the domain of a sender (RFC 7208)

pub mod lookup;
pub mod spf;

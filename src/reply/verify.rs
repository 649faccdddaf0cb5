//! Replies to VRFY and EXPN.

use std::fmt;

use super::{Reply, Status};

/// An address that exists here.
pub fn exists(address: &impl fmt::Display) -> Reply {
    Reply::new(250, Status(2, 1, 5), format!("<{address}>"))
}

/// An address elsewhere, or one that cannot be looked up now (RFC 5321 7.3).
pub fn cannot_verify() -> Reply {
    Reply::new(252, Status(2, 5, 0), "Cannot verify that address; send some mail, and it will be tried")
}

/// VRFY without an argument.
pub fn missing_argument() -> Reply {
    Reply::new(501, Status(5, 5, 4), "VRFY needs a name or an address")
}

/// EXPN, which is never available.
pub fn expn_not_available() -> Reply {
    Reply::new(502, Status(5, 5, 1), "EXPN is not available")
}

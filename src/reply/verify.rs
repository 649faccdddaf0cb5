//! Makes the replies to VRFY and EXPN.

use std::fmt;

use super::{Reply, Status};

/// Confirms that an address exists here.
pub fn exists(address: &impl fmt::Display) -> Reply {
    Reply::new(250, Status(2, 1, 5), format!("<{address}>"))
}

/// Leaves open whether an address exists, because its domain is elsewhere or the address cannot be
/// looked up now (RFC 5321 7.3).
pub fn cannot_verify() -> Reply {
    Reply::new(252, Status(2, 5, 0), "Cannot verify that address; send some mail, and it will be tried")
}

/// Refuses an address outside ASCII in VRFY without SMTPUTF8 (RFC 6531 3.7.4.2).
pub fn not_ascii() -> Reply {
    Reply::new(553, Status(5, 6, 7), "VRFY needs SMTPUTF8 for an address that is not in ASCII")
}

/// Refuses VRFY without an argument.
pub fn missing_argument() -> Reply {
    Reply::new(501, Status(5, 5, 4), "VRFY needs a name or an address")
}

/// Refuses EXPN, which is never available.
pub fn expn_not_available() -> Reply {
    Reply::new(502, Status(5, 5, 1), "EXPN is not available")
}

//! Makes the replies to XCLIENT and XFORWARD.

use super::{Reply, Status};

/// Refuses XCLIENT or XFORWARD from a client that is not a trusted proxy.
pub fn not_permitted() -> Reply {
    Reply::new(550, Status(5, 7, 0), "Only trusted proxies may use XCLIENT and XFORWARD")
}

/// Refuses XCLIENT or XFORWARD within a transaction.
pub fn in_transaction() -> Reply {
    Reply::new(503, Status(5, 5, 1), "Not in the middle of a message; RSET starts anew")
}

/// Refuses a command without an attribute, or with an attribute that is not offered.
pub fn unknown_attribute(offered: &str) -> Reply {
    Reply::new(501, Status(5, 5, 4), format!("That should be NAME=value, one or more of {offered}"))
}

/// Refuses an attribute with a malformed value.
pub fn bad_attribute(name: &str) -> Reply {
    Reply::new(501, Status(5, 5, 4), format!("Attribute {name} has a bad value"))
}

/// Accepts XFORWARD.
pub fn forwarded() -> Reply {
    Reply::new(250, Status(2, 0, 0), "Noted for the next message")
}

//! Replies to trusted front ends, and to those who would be one.
//!
//! The same habits as in [`crate::reply`].

use super::{Reply, Status};

/// XCLIENT or XFORWARD from one who is not trusted with it.
pub fn not_a_front_end() -> Reply {
    Reply::new(550, Status(5, 7, 0), "You may not speak for others")
}

/// XCLIENT or XFORWARD between MAIL and the end of the message.
pub fn not_in_transaction() -> Reply {
    Reply::new(503, Status(5, 5, 1), "Not in the middle of a message; RSET starts anew")
}

/// XCLIENT or XFORWARD with an attribute that was not offered, or none.
pub fn unknown_attribute(offered: &str) -> Reply {
    Reply::new(501, Status(5, 5, 4), format!("That should be NAME=value, one or more of {offered}"))
}

/// XCLIENT or XFORWARD with a value that cannot be.
pub fn bad_attribute(name: &str) -> Reply {
    Reply::new(501, Status(5, 5, 4), format!("Attribute {name} has a bad value"))
}

/// XFORWARD was good.
pub fn forwarded() -> Reply {
    Reply::new(250, Status(2, 0, 0), "Noted for the next message")
}

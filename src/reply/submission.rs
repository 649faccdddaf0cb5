//! What penfold says where people submit mail of their own (RFC 6409).
//!
//! Replies as those of the parent, which has what holds for all of them. None says
//! whether an address or an account exists: who hears them has logged in, or is told
//! to.

use std::fmt;

use super::{Reply, Status};

/// MAIL before AUTH, where people submit mail (RFC 4954 6).
pub fn need_login() -> Reply {
    Reply::new(530, Status(5, 7, 0), "Authentication required")
}

/// MAIL with a sender that is not for whoever has logged in.
pub fn not_your_sender(sender: &impl fmt::Display) -> Reply {
    Reply::new(550, Status(5, 7, 1), format!("{sender} This sender is not yours to use"))
}

/// From with an address that is not for whoever has logged in.
pub fn not_your_from(author: &impl fmt::Display) -> Reply {
    Reply::new(550, Status(5, 7, 1), format!("From: <{author}> is not yours to use"))
}

/// From without an address that can be read, where it has to be known.
pub fn unreadable_from() -> Reply {
    Reply::new(550, Status(5, 7, 1), "From: an address of yours is needed, and none can be read")
}

/// A header in which From cannot be looked for, where it has to be known.
pub fn header_too_long(limit: usize) -> Reply {
    Reply::new(550, Status(5, 7, 1), format!("The header is too long to look for From; the limit is {limit} bytes"))
}

/// An account has sent as many messages as it may.
pub fn too_many_messages(limit: usize) -> Reply {
    Reply::new(
        450,
        Status(4, 7, 1),
        format!("Your limit of {limit} messages an hour is reached; please try again later"),
    )
}

/// An account has sent to as many recipients as it may.
pub fn too_many_recipients_an_hour(limit: usize) -> Reply {
    Reply::new(
        450,
        Status(4, 7, 1),
        format!("Your limit of {limit} recipients an hour is reached; please try again later"),
    )
}

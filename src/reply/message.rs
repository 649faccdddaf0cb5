//! Replies to DATA, before the message and at its end.

use std::fmt;

use super::{Reply, Status};

/// The client is to send the message.
pub fn go_ahead() -> Reply {
    Reply::bare(354, vec!["Enter mail, end with \".\" on a line by itself".into()])
}

/// The message is committed, and this server is responsible for it.
pub fn accepted(id: &str) -> Reply {
    Reply::new(250, Status(2, 0, 0), format!("{id} Message accepted for delivery"))
}

/// DATA before RCPT.
pub fn needs_recipient() -> Reply {
    Reply::new(503, Status(5, 5, 1), "Need RCPT before DATA")
}

/// DATA after every recipient was refused (RFC 2033 for LMTP, RFC 2920 3.1 for pipelining).
pub fn no_valid_recipients() -> Reply {
    Reply::new(554, Status(5, 5, 1), "No valid recipients")
}

/// The message is larger than the limit, by its declared SIZE or by the octets received (RFC 1870
/// 6).
pub fn too_big(limit: u64) -> Reply {
    Reply::new(552, Status(5, 3, 4), format!("The message is too big; the limit is {limit} bytes"))
}

/// The message contains a CR without LF or a LF without CR.
pub fn bare_newline() -> Reply {
    Reply::new(554, Status(5, 6, 0), "The message contains a bare CR or LF; lines end with CR LF")
}

/// The message contains a NUL: a host that drops it could see the end of a message there.
pub fn nul() -> Reply {
    Reply::new(554, Status(5, 6, 0), "The message contains a NUL octet, which is not permitted")
}

/// Too many Received fields, or Delivered-To fields with a local domain (RFC 5321 6.3).
pub fn mail_loop() -> Reply {
    Reply::new(554, Status(5, 4, 6), "Too many hops: the message is going in circles")
}

/// The Delivered-To fields show that the message was already delivered to all its recipients.
pub fn delivered_before() -> Reply {
    Reply::new(554, Status(5, 4, 6), "Mail loop: by its Delivered-To fields the message was delivered here before")
}

/// A From field with an address that the authenticated user may not use.
pub fn author_not_yours(author: &impl fmt::Display) -> Reply {
    Reply::new(550, Status(5, 7, 1), format!("From: <{author}> is not yours to use"))
}

/// A From field without a readable address, on a listener that checks it.
pub fn author_unreadable() -> Reply {
    Reply::new(550, Status(5, 7, 1), "From: a readable address of yours is required")
}

/// A header too long to search for the From field, on a listener that checks it.
pub fn header_too_long(limit: usize) -> Reply {
    Reply::new(550, Status(5, 7, 1), format!("The header is too long to look for From; the limit is {limit} bytes"))
}

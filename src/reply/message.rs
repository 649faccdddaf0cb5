//! What is said of a message, to DATA and at its end: the sentences of [`super`], in a file
//! of their own.

use super::{Reply, Status};

/// Send the message.
pub fn go_ahead() -> Reply {
    Reply::bare(354, vec!["Enter mail, end with \".\" on a line by itself".into()])
}

/// The message is ours from here on.
pub fn accepted(id: &str) -> Reply {
    Reply::new(250, Status(2, 0, 0), format!("{id} Message accepted for delivery"))
}

/// Bigger than a message may be: by its SIZE, or as it came (RFC 1870 6).
pub fn too_big(limit: u64) -> Reply {
    Reply::new(552, Status(5, 3, 4), format!("The message is too big; the limit is {limit} bytes"))
}

/// CR without LF or LF without CR in a message.
pub fn bare_newline() -> Reply {
    Reply::new(554, Status(5, 6, 0), "The message has a bare CR or LF; lines end with CR LF")
}

/// A NUL in a message: a host that drops it could find the end of a message there.
pub fn nul() -> Reply {
    Reply::new(554, Status(5, 6, 0), "The message has a NUL octet, which no mail may have")
}

/// The message has gone around too often (RFC 5321 6.3).
pub fn mail_loop() -> Reply {
    Reply::new(554, Status(5, 4, 6), "Too many hops: the message is going in circles")
}

/// By its Delivered-To fields the message has been where it is to go.
pub fn delivered_before() -> Reply {
    Reply::new(554, Status(5, 4, 6), "Mail loop: by its Delivered-To fields the message was delivered here before")
}

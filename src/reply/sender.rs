//! Makes the replies to MAIL.

use std::fmt;

use super::{Reply, Status};

/// Accepts the sender.
pub fn accepted(sender: &str) -> Reply {
    Reply::new(250, Status(2, 1, 0), format!("{sender} Sender ok"))
}

/// Accepts the sender, but lowers the priority of the message (RFC 6710 4.1).
pub fn accepted_with_priority(sender: &str, priority: i8) -> Reply {
    Reply::new(250, Status(2, 3, 6), format!("{priority} is the priority of the message; {sender} Sender ok"))
}

/// Refuses MAIL within a transaction.
pub fn nested() -> Reply {
    Reply::new(503, Status(5, 5, 1), "Sender already specified; RSET starts anew")
}

/// Refuses a reverse-path that is not an address.
pub fn malformed(why: impl fmt::Display) -> Reply {
    Reply::new(553, Status(5, 1, 7), format!("Sender address: {why}"))
}

/// Refuses a reverse-path outside ASCII in a command without SMTPUTF8 (RFC 6531 3.5).
pub fn not_ascii() -> Reply {
    Reply::new(553, Status(5, 6, 7), "Sender address: MAIL needs SMTPUTF8 for an address that is not in ASCII")
}

/// Refuses an address without a domain, from a client that may not relay.
pub fn needs_domain() -> Reply {
    Reply::new(553, Status(5, 1, 7), "Sender address: a domain is needed")
}

/// Refuses MAIL without authentication, on a listener for submission (RFC 4954 6).
pub fn needs_login() -> Reply {
    Reply::new(530, Status(5, 7, 0), "Authentication required")
}

/// Refuses a sender that the authenticated user may not use.
pub fn not_yours(sender: &impl fmt::Display) -> Reply {
    Reply::new(550, Status(5, 7, 1), format!("{sender} This sender is not yours to use"))
}

/// Defers a message, because the account has reached its limit of messages.
pub fn too_many_per_hour(limit: usize) -> Reply {
    Reply::new(
        450,
        Status(4, 7, 1),
        format!("Your limit of {limit} messages an hour is reached; please try again later"),
    )
}

//! Makes the replies to RCPT.

use std::fmt;

use super::{Reply, Status};

/// Accepts the recipient.
pub fn accepted(recipient: &impl fmt::Display) -> Reply {
    Reply::new(250, Status(2, 1, 5), format!("<{recipient}> Recipient ok"))
}

/// Refuses RCPT or DATA before MAIL.
pub fn needs_sender() -> Reply {
    Reply::new(503, Status(5, 5, 1), "Need MAIL first")
}

/// Refuses a forward-path that is not an address.
pub fn malformed(why: impl fmt::Display) -> Reply {
    Reply::new(553, Status(5, 1, 3), format!("Recipient address: {why}"))
}

/// Refuses a forward-path outside ASCII in a transaction without SMTPUTF8 (RFC 6531 3.5).
pub fn not_ascii() -> Reply {
    Reply::new(553, Status(5, 6, 7), "Recipient address: MAIL needs SMTPUTF8 for an address that is not in ASCII")
}

/// Refuses a local address that has no mailbox.
pub fn unknown_user(recipient: &impl fmt::Display) -> Reply {
    Reply::new(550, Status(5, 1, 1), format!("<{recipient}> User unknown"))
}

/// Refuses an address that only bounces go to.
pub fn only_bounces(recipient: &impl fmt::Display) -> Reply {
    Reply::new(550, Status(5, 7, 1), format!("<{recipient}> This address is for bounces only"))
}

/// Refuses a recipient in another domain, for a client that may not relay.
pub fn relaying_denied(recipient: &impl fmt::Display) -> Reply {
    Reply::new(550, Status(5, 7, 1), format!("<{recipient}> Relaying denied"))
}

/// Refuses a recipient in another domain on a listener for LMTP.
pub fn not_local(recipient: &impl fmt::Display) -> Reply {
    Reply::new(550, Status(5, 7, 1), format!("<{recipient}> Not a local recipient; LMTP does not relay"))
}

/// Refuses a recipient that the routes table rejects. `why` is the text in the table.
pub fn refused(recipient: &impl fmt::Display, status: Status, why: &str) -> Reply {
    Reply::new(550, status, format!("<{recipient}> {why}"))
}

/// Defers a recipient that cannot be looked up now.
pub fn temporary_failure(recipient: &impl fmt::Display) -> Reply {
    Reply::new(451, Status(4, 3, 0), format!("<{recipient}> Cannot be looked up now, please try again later"))
}

/// Refuses or defers a recipient whose mailbox is full.
pub fn mailbox_full(recipient: &impl fmt::Display, is_lasting: bool) -> Reply {
    let (code, class) = if is_lasting { (552, 5) } else { (452, 4) };
    Reply::new(code, Status(class, 2, 2), format!("<{recipient}> Mailbox full"))
}

/// Defers a recipient about which the next host must be asked, and cannot be asked now.
pub fn no_answer(recipient: &impl fmt::Display) -> Reply {
    Reply::new(451, Status(4, 4, 3), format!("<{recipient}> The next host cannot be asked now, please try again later"))
}

/// Defers a recipient beyond the number that a message may have (RFC 5321 4.5.3.1.10).
pub fn too_many() -> Reply {
    Reply::new(452, Status(4, 5, 3), "Too many recipients; send the rest in another message")
}

/// Defers a recipient, because the account has reached its limit of recipients.
pub fn too_many_per_hour(limit: usize) -> Reply {
    Reply::new(
        450,
        Status(4, 7, 1),
        format!("Your limit of {limit} recipients an hour is reached; please try again later"),
    )
}

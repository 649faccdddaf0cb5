//! Makes the replies to DATA and BDAT, before the message and at its end.

use std::fmt;

use super::{Reply, Status};

/// Asks the client to send the message.
pub fn go_ahead() -> Reply {
    Reply::bare(354, vec!["Enter mail, end with \".\" on a line by itself".into()])
}

/// Accepts the message with the queue id `id`. The message is committed, so this server is
/// responsible for it.
pub fn accepted(id: &str) -> Reply {
    Reply::new(250, Status(2, 0, 0), format!("{id} Message accepted for delivery"))
}

/// Accepts the message with the queue id `id` for one of its recipients, in LMTP (RFC 2033 4.2).
pub fn accepted_for(id: &str, recipient: &impl fmt::Display) -> Reply {
    Reply::new(250, Status(2, 0, 0), format!("<{recipient}> {id} Message accepted for delivery"))
}

/// Accepts a chunk of a message that is not the last one (RFC 3030 2).
pub fn chunk_received(size: u64) -> Reply {
    Reply::new(250, Status(2, 0, 0), format!("{size} octets received"))
}

/// Refuses BDAT with a malformed argument, and announces the end of the session: it is unknown how
/// many octets follow.
pub fn malformed_chunk() -> Reply {
    Reply::new(501, Status(5, 5, 4), "That should be: BDAT size [LAST]; closing the connection")
}

/// Refuses RCPT or DATA after the first BDAT of a message (RFC 3030 2).
pub fn chunks_have_begun() -> Reply {
    Reply::new(503, Status(5, 5, 1), "BDAT has begun the message; send BDAT or RSET")
}

/// Refuses DATA for a message with `BODY=BINARYMIME` (RFC 3030 3).
pub fn needs_bdat() -> Reply {
    Reply::new(503, Status(5, 5, 1), "A message with BODY=BINARYMIME is sent with BDAT")
}

/// Refuses DATA or BDAT before RCPT.
pub fn needs_recipient() -> Reply {
    Reply::new(503, Status(5, 5, 1), "Need RCPT before the message")
}

/// Refuses DATA or BDAT after every recipient was refused (RFC 2920 3.1).
pub fn no_valid_recipients() -> Reply {
    Reply::new(554, Status(5, 5, 1), "No valid recipients")
}

/// Refuses a message larger than the limit, by its declared SIZE or by the octets received (RFC
/// 1870 6).
pub fn too_big(limit: u64) -> Reply {
    Reply::new(552, Status(5, 3, 4), format!("The message is too big; the limit is {limit} bytes"))
}

/// Refuses a message that contains a CR without LF or an LF without CR.
pub fn bare_newline() -> Reply {
    Reply::new(554, Status(5, 6, 0), "The message contains a bare CR or LF; lines end with CR LF")
}

/// Refuses a message that contains a NUL. If the next host dropped the NUL, it could see the end of
/// a message there.
pub fn nul() -> Reply {
    Reply::new(554, Status(5, 6, 0), "The message contains a NUL octet, which is not permitted")
}

/// Refuses a message with `BODY=BINARYMIME` whose header has a line that belongs to no field.
pub fn malformed_header() -> Reply {
    Reply::new(554, Status(5, 6, 0), "A line before the first empty line is not a header field")
}

/// Refuses a message that loops: it has too many Received fields, or too many Delivered-To fields
/// with a local domain (RFC 5321 6.3).
pub fn mail_loop() -> Reply {
    Reply::new(554, Status(5, 4, 6), "Too many hops: the message is going in circles")
}

/// Refuses a message whose Delivered-To fields show that it was already delivered to all its
/// recipients.
pub fn delivered_before() -> Reply {
    Reply::new(554, Status(5, 4, 6), "Mail loop: by its Delivered-To fields the message was delivered here before")
}

/// Defers a message that would go into the quarantine, because the quarantine is full.
pub fn quarantine_full() -> Reply {
    Reply::new(451, Status(4, 3, 1), "The quarantine of this host is full, please try again later")
}

/// Refuses or defers a message of `size` bytes that fits into no mailbox of its recipients.
pub fn mailboxes_full(size: u64, is_lasting: bool) -> Reply {
    let (code, class) = if is_lasting { (552, 5) } else { (452, 4) };
    Reply::new(code, Status(class, 2, 2), format!("Mailbox full: no recipient has room for {size} octets"))
}

/// Refuses a message, because `domain`, the domain of its author, asks for that with DMARC (RFC
/// 9989, RFC 7372).
pub fn dmarc_reject(domain: &str) -> Reply {
    let text = format!("Neither SPF nor DKIM vouches for {domain}, which asks to reject such mail (DMARC)");
    Reply::new(550, Status(5, 7, 26), text)
}

/// Refuses a message whose From field is missing, or does not show all authors' domains.
pub fn dmarc_unclear(reason: &str) -> Reply {
    Reply::new(550, Status(5, 7, 1), format!("The author cannot be checked (DMARC): {reason}"))
}

/// Refuses a message because look-ups have failed that DMARC needs for the author's domain.
pub fn dmarc_undecided(domain: &str) -> Reply {
    let text = format!("The DNS did not answer, so {domain} cannot be checked (DMARC); try again later");
    Reply::new(451, Status(4, 7, 1), text)
}

/// Refuses a From field with an address that the authenticated user may not use.
pub fn author_not_yours(author: &impl fmt::Display) -> Reply {
    Reply::new(550, Status(5, 7, 1), format!("From: <{author}> is not yours to use"))
}

/// Refuses a From field without a readable address, on a listener that checks From.
pub fn author_unreadable() -> Reply {
    Reply::new(550, Status(5, 7, 1), "From: a readable address of yours is required")
}

/// Refuses a header that is too long to search for From, on a listener that checks From.
pub fn header_too_long(limit: usize) -> Reply {
    Reply::new(550, Status(5, 7, 1), format!("The header is too long to look for From; the limit is {limit} bytes"))
}

//! Replies to STARTTLS, and to commands that need TLS first (RFC 3207).

use super::{Reply, Status};

/// STARTTLS is accepted: the last reply in plaintext.
pub fn ready() -> Reply {
    Reply::new(220, Status(2, 0, 0), "Ready to start TLS")
}

/// STARTTLS over a connection that is already encrypted.
pub fn already_active() -> Reply {
    Reply::new(503, Status(5, 5, 1), "TLS is active already")
}

/// STARTTLS where it is not offered.
pub fn not_offered() -> Reply {
    Reply::new(502, Status(5, 5, 1), "TLS is not offered here")
}

/// More input arrived with STARTTLS, sent by the client or injected on the way.
pub fn pipelined() -> Reply {
    Reply::new(554, Status(5, 5, 1), "Nothing may follow STARTTLS before the handshake")
}

/// A command that requires TLS.
pub fn required() -> Reply {
    Reply::new(530, Status(5, 7, 0), "Must issue a STARTTLS command first")
}

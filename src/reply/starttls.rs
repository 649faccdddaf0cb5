//! Makes the replies to STARTTLS, and to commands that need TLS first (RFC 3207).

use super::{Reply, Status};

/// Accepts STARTTLS, in the last reply in plaintext.
pub fn ready() -> Reply {
    Reply::new(220, Status(2, 0, 0), "Ready to start TLS")
}

/// Refuses STARTTLS over a connection that is already encrypted.
pub fn already_active() -> Reply {
    Reply::new(503, Status(5, 5, 1), "TLS is active already")
}

/// Refuses STARTTLS where it is not offered.
pub fn not_offered() -> Reply {
    Reply::new(502, Status(5, 5, 1), "TLS is not offered here")
}

/// Refuses STARTTLS, because more input arrived with it. The client sent that input too early, or
/// somebody injected it on the way.
pub fn pipelined() -> Reply {
    Reply::new(554, Status(5, 5, 1), "Nothing may follow STARTTLS before the handshake")
}

/// Refuses a command that requires TLS first.
pub fn required() -> Reply {
    Reply::new(530, Status(5, 7, 0), "Must issue a STARTTLS command first")
}

//! What AUTH is answered (RFC 4954): the sentences of [`super`], in a file of their own.
//!
//! None tells whether an account exists.

use super::{Reply, Status};

/// A challenge, in base64; alone of all replies its text is not ours.
pub fn challenge(text: String) -> Reply {
    Reply::bare(334, vec![text.into()])
}

/// Logged in.
pub fn authenticated() -> Reply {
    Reply::new(235, Status(2, 7, 0), "Authentication successful")
}

/// Wrong name or password, or an account that may not log in.
pub fn bad_credentials() -> Reply {
    Reply::new(535, Status(5, 7, 8), "Authentication credentials invalid")
}

/// It cannot be told now, or it was tried too often.
pub fn authentication_unsure() -> Reply {
    Reply::new(454, Status(4, 7, 0), "Temporary authentication failure, please try again later")
}

/// Wrong once more than one session may be.
pub fn too_many_failures(hostname: &str) -> Reply {
    Reply::new(421, Status(4, 7, 0), format!("{hostname} Too many failed logins, closing connection"))
}

/// The client has thought better of it.
pub fn authentication_cancelled() -> Reply {
    Reply::new(501, Status(5, 7, 0), "Authentication cancelled")
}

/// What is no base64, or no response of the mechanism.
pub fn bad_response() -> Reply {
    Reply::new(501, Status(5, 5, 2), "Cannot decode that response")
}

/// A response longer than RFC 4954 allows.
pub fn response_too_long() -> Reply {
    Reply::new(500, Status(5, 5, 6), "Authentication exchange line is too long")
}

/// A mechanism that is not offered.
pub fn unknown_mechanism() -> Reply {
    Reply::new(504, Status(5, 5, 4), "That authentication mechanism is not offered")
}

/// AUTH where nobody can log in.
pub fn no_auth() -> Reply {
    Reply::new(502, Status(5, 5, 1), "AUTH is not offered here")
}

/// AUTH in clear where only TLS will do.
pub fn auth_needs_tls() -> Reply {
    Reply::new(538, Status(5, 7, 11), "Encryption required: say STARTTLS before AUTH")
}

/// AUTH after AUTH.
pub fn already_authenticated() -> Reply {
    Reply::new(503, Status(5, 5, 1), "You are logged in already")
}

/// AUTH within a transaction.
pub fn auth_in_transaction() -> Reply {
    Reply::new(503, Status(5, 5, 1), "AUTH is not permitted during a mail transaction")
}

/// AUTH without EHLO before it.
pub fn need_extended_hello() -> Reply {
    Reply::new(503, Status(5, 5, 1), "Say EHLO before AUTH")
}

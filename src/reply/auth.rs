//! Makes the replies to AUTH (RFC 4954). None of them reveals whether an account exists.

use super::{Reply, Status};

/// Sends a challenge of the mechanism. `text` is the challenge in base64.
pub fn challenge(text: String) -> Reply {
    Reply::bare(334, vec![text.into()])
}

/// Tells the client that it is authenticated.
pub fn succeeded() -> Reply {
    Reply::new(235, Status(2, 7, 0), "Authentication successful")
}

/// Refuses a wrong name or password, or an account that may not log in.
pub fn bad_credentials() -> Reply {
    Reply::new(535, Status(5, 7, 8), "Authentication credentials invalid")
}

/// Defers a login: the credentials cannot be checked now, or there were too many failures.
pub fn temporary_failure() -> Reply {
    Reply::new(454, Status(4, 7, 0), "Temporary authentication failure, please try again later")
}

/// Ends a session that has reached its limit of failed logins.
pub fn too_many_failures(hostname: &str) -> Reply {
    Reply::new(421, Status(4, 7, 0), format!("{hostname} Too many failed logins, closing connection"))
}

/// Confirms that the client has cancelled the exchange with `*`.
pub fn cancelled() -> Reply {
    Reply::new(501, Status(5, 7, 0), "Authentication cancelled")
}

/// Refuses a response that is not base64, or is malformed for its mechanism.
pub fn bad_response() -> Reply {
    Reply::new(501, Status(5, 5, 2), "Cannot decode that response")
}

/// Refuses a response longer than RFC 4954 allows.
pub fn response_too_long() -> Reply {
    Reply::new(500, Status(5, 5, 6), "Authentication exchange line is too long")
}

/// Refuses a mechanism that is not offered.
pub fn mechanism_not_offered() -> Reply {
    Reply::new(504, Status(5, 5, 4), "That authentication mechanism is not offered")
}

/// Refuses AUTH where it is not offered.
pub fn not_offered() -> Reply {
    Reply::new(502, Status(5, 5, 1), "AUTH is not offered here")
}

/// Refuses AUTH in plaintext on a listener that requires TLS for it.
pub fn needs_tls() -> Reply {
    Reply::new(538, Status(5, 7, 11), "Encryption required: say STARTTLS before AUTH")
}

/// Refuses AUTH from a client that is already authenticated.
pub fn already_authenticated() -> Reply {
    Reply::new(503, Status(5, 5, 1), "You are logged in already")
}

/// Refuses AUTH within a mail transaction.
pub fn in_transaction() -> Reply {
    Reply::new(503, Status(5, 5, 1), "AUTH is not permitted during a mail transaction")
}

/// Refuses AUTH without EHLO before it.
pub fn needs_ehlo() -> Reply {
    Reply::new(503, Status(5, 5, 1), "Say EHLO before AUTH")
}

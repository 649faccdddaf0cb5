//! Makes the replies to HELO, EHLO and LHLO, and to commands that need one of them first.

use std::borrow::Cow;

use super::{Reply, Status};

/// Accepts HELO.
pub fn helo(hostname: &str, client: &str) -> Reply {
    Reply::bare(250, vec![format!("{hostname} Hello {client}, pleased to meet you").into()])
}

/// Accepts EHLO or LHLO. `offers` are the extensions, one for each line (RFC 5321 4.1.1.1).
pub fn ehlo(hostname: &str, client: &str, offers: Vec<Cow<'static, str>>) -> Reply {
    let greeting = format!("{hostname} Hello {client}, pleased to meet you");
    let lines = std::iter::once(greeting.into()).chain(offers).collect();
    Reply::bare(250, lines)
}

/// Refuses HELO, EHLO or LHLO without a name.
pub fn missing_name() -> Reply {
    Reply::new(501, Status(5, 5, 4), "Please give the name of your host")
}

/// Refuses a mail command before HELO or EHLO.
pub fn required() -> Reply {
    Reply::new(503, Status(5, 5, 1), "Polite people say HELO first")
}

/// Refuses a mail command before LHLO.
pub fn lhlo_required() -> Reply {
    Reply::new(503, Status(5, 5, 1), "Polite people say LHLO first")
}

/// Refuses HELO and EHLO on a listener for LMTP (RFC 2033 4.1).
pub fn only_lmtp() -> Reply {
    Reply::new(500, Status(5, 5, 1), "This is LMTP and not SMTP; the greeting is LHLO")
}

/// Refuses LHLO on a listener for SMTP.
pub fn only_smtp() -> Reply {
    Reply::new(500, Status(5, 5, 1), "This is SMTP and not LMTP; the greeting is EHLO")
}

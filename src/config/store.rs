//! Mail stores: the servers that keep mailboxes and take mail by LMTP (RFC 2033).
//!
//! A store is written `lmtp:/path` if it listens on a Unix socket, and `lmtp://host:port` if it
//! listens on a TCP port.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::{HostPort, Scheme};

/// The port of a store whose URL names none. RFC 2033 assigns no port; this one is customary.
const DEFAULT_PORT: u16 = 24;
/// Maximum length of the path of a Unix socket, in octets.
const MAX_SOCKET_PATH: usize = 107;

/// The text in errors that says how a store is written.
pub const EXPECTED_STORE: &str = "lmtp:/path of a socket or lmtp://host:port";

/// A mail store that takes mail by LMTP.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Store {
    /// The path of a Unix stream socket.
    Socket(Arc<Path>),
    /// A host and a TCP port; the scheme is [`Scheme::Lmtp`].
    Host(HostPort),
}

impl Store {
    /// Reads a store. Returns `None` if `text` does not begin with `lmtp:`.
    ///
    /// # Errors
    /// The reason why the text after `lmtp:` is malformed.
    pub fn parse(text: &str) -> Option<Result<Self, String>> {
        let place = text.strip_prefix("lmtp:")?;
        if let Some(host) = place.strip_prefix("//") {
            let host = HostPort::parse(host, DEFAULT_PORT);
            let store = host.map(|host| Self::Host(HostPort { scheme: Scheme::Lmtp, ..host }));
            return Some(store.ok_or_else(|| format!("expected {EXPECTED_STORE}")));
        }
        Some(if !place.starts_with('/') || place.contains(char::is_control) {
            Err(format!("expected {EXPECTED_STORE}"))
        } else if place.len() > MAX_SOCKET_PATH {
            Err(format!("the path of a socket has at most {MAX_SOCKET_PATH} octets"))
        } else {
            Ok(Self::Socket(Path::new(place).into()))
        })
    }
}

/// Writes the text from which [`Store::parse`] reads the store.
impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "lmtp:{}", path.display()),
            Self::Host(host) => host.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_a_socket_or_a_host() {
        let long = format!("lmtp:/{}", "x".repeat(MAX_SOCKET_PATH));
        for (text, want) in [
            ("lmtp:/run/dovecot/lmtp", Some(Ok("lmtp:/run/dovecot/lmtp"))),
            ("lmtp://Store.Example", Some(Ok("lmtp://store.example:24"))),
            ("lmtp://[2001:db8::1]:2424", Some(Ok("lmtp://[2001:db8::1]:2424"))),
            ("lmtp:run/lmtp", Some(Err("expected lmtp:/path"))),
            ("lmtp:///run/lmtp", Some(Err("expected lmtp:/path"))),
            ("lmtp://store:0", Some(Err("expected lmtp:/path"))),
            ("lmtp:", Some(Err("expected lmtp:/path"))),
            ("lmtp:/a\tb", Some(Err("expected lmtp:/path"))),
            (&long, Some(Err("at most 107 octets"))),
            ("smtp://store", None),
        ] {
            let read = Store::parse(text).map(|read| read.map(|store| store.to_string()));
            let is_as_wanted = match (&read, want) {
                (None, None) => true,
                (Some(Ok(read)), Some(Ok(want))) => read == want,
                (Some(Err(read)), Some(Err(want))) => read.contains(want),
                _ => false,
            };
            assert!(is_as_wanted, "{text}: {read:?}");
        }
    }
}

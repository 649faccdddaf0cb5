//! Checks for a session which domains are responsible for a message, by SPF, DKIM, DMARC and ARC.
//! Signs outgoing messages, so that other servers can check this, too.
//!
//! The modules open no sockets. DNS look-ups go through the trait [`crate::dns::lookup::Lookup`]. So all
//! look-ups for a message end within the time that the session allows, and tests need no name
//! server. Records, messages and fields are untrusted. So their size, the number of look-ups and
//! the depth of recursion are limited.
//!
//! - `arc`: the chain of the servers that forwarded a message (RFC 8617)
//! - `dkim`: signatures, verified and made (RFC 6376)
//! - `dmarc`: what the domain in From asks for if nothing vouches for it (RFC 9989)
//! - `keys`: the keys that sign mail, and their DNS records
//! - `results`: the field Authentication-Results (RFC 8601)
//! - `spf`: whether a client may use the domain of a sender (RFC 7208)

#[cfg(feature = "arc")]
pub mod arc;
pub mod dkim;
pub mod dmarc;
pub mod keys;
pub mod results;
pub mod spf;

/// Returns whether a domain is `parent` or a name below `parent`. Both may end in a dot, and their
/// case does not matter.
fn is_at_or_below(domain: &str, parent: &str) -> bool {
    let (domain, parent) = (domain.trim_end_matches('.').as_bytes(), parent.trim_end_matches('.').as_bytes());
    let Some(at) = domain.len().checked_sub(parent.len()) else { return false };
    domain[at..].eq_ignore_ascii_case(parent) && (at == 0 || domain[at - 1] == b'.')
}

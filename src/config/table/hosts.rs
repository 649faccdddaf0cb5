//! Keys of tables whose lines are about domains and hosts: a domain, `.domain` for all below it, the
//! name or the address of a host, or `*`.

use std::net::IpAddr;

use crate::address::{literal, parse_domain};

/// Reads a key, and returns its canonical form. An address may stand in brackets.
///
/// # Errors
/// The text that says what was expected.
pub fn read_host_key(text: &str) -> Result<Box<str>, String> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if let Some(address) = literal(text).or_else(|| bare.parse().ok()) {
        return Ok(address.to_canonical().to_string().into());
    }
    if text == "*" {
        return Ok(text.into());
    }
    let (dot, domain) = text.strip_prefix('.').map_or(("", text), |domain| (".", domain));
    let domain = parse_domain(domain).map_err(|_| "expected a domain, .domain, the name or address of a host, or *")?;
    Ok(format!("{dot}{domain}").into())
}

/// Calls `find` with each key that covers a domain or a host, in lower case, until it finds something:
/// first with the name itself, then with each `.domain` above it, the longest first, and then with
/// `*`.
pub fn find_host_key<T>(name: &str, find: impl FnMut(&str) -> Option<T>) -> Option<T> {
    // The domain of user@[192.0.2.7] has the key 192.0.2.7, like a host of the configuration.
    let address = literal(name).map(|ip| ip.to_canonical().to_string());
    let name = address.as_deref().unwrap_or(name);
    // An address contains dots, but is in no domain.
    let dots = if name.parse::<IpAddr>().is_ok() { "" } else { name };
    let above = dots.match_indices('.').map(|(at, _)| &dots[at..]);
    [name].into_iter().chain(above).chain(["*"]).find_map(find)
}

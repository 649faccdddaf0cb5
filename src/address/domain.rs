//! Domains and address literals in their canonical form.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::AddressError;

/// A domain or literal in canonical form: names in lower case.
///
/// # Errors
/// [`AddressError::BadDomain`] or [`AddressError::BadLiteral`].
pub fn parse_domain(text: &str) -> Result<Box<str>, AddressError> {
    if !text.is_ascii() {
        return Err(AddressError::NotAscii);
    }
    if text.starts_with('[') {
        return match literal(text).ok_or(AddressError::BadLiteral)? {
            IpAddr::V4(ip) => Ok(format!("[{ip}]").into()),
            IpAddr::V6(ip) => Ok(format!("[IPv6:{ip}]").into()),
        };
    }
    let good_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    if text.len() > 255 || !text.split('.').all(good_label) {
        return Err(AddressError::BadDomain);
    }
    Ok(text.to_ascii_lowercase().into())
}

/// The address that a domain stands for, if it is a literal such as `[192.0.2.1]`.
pub fn literal(domain: &str) -> Option<IpAddr> {
    let inside = domain.strip_prefix('[')?.strip_suffix(']')?;
    match inside.get(..5) {
        Some(tag) if tag.eq_ignore_ascii_case("ipv6:") => inside[5..].parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => inside.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

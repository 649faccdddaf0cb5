//! Brings domains and address literals into canonical form: ASCII in lower case, with A-labels
//! (`xn--...`) in place of labels that are not ASCII (U-labels).
//!
//! [`parse_domain`] maps and checks U-labels by UTS #46 without the transitional rules. UTS #46 accepts all of IDNA2008 and maps case
//! and width first, as browsers do. In an ASCII domain, a label that begins with `xn--` is compared
//! as text. It is not decoded, and need not be a valid A-label. No U-label is mapped to an invalid
//! A-label, so each domain has one canonical form.
//!
//! A domain has at most 255 octets, both before the mapping, so that the work is bounded, and after
//! it (RFC 5321 4.5.3.1.2, RFC 1035).

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};

use super::AddressError;

/// The maximum length of a domain, in octets.
const MAX_DOMAIN: usize = 255;
/// The maximum length of a label, in octets.
const MAX_LABEL: usize = 63;

/// Returns an ASCII domain or address literal in canonical form.
fn parse_ascii(text: &str) -> Result<Box<str>, AddressError> {
    if text.starts_with('[') {
        return match literal(text).ok_or(AddressError::BadLiteral)? {
            IpAddr::V4(ip) => Ok(format!("[{ip}]").into()),
            IpAddr::V6(ip) => Ok(format!("[IPv6:{ip}]").into()),
        };
    }
    if text.len() > MAX_DOMAIN || !text.split('.').all(is_label) {
        return Err(AddressError::BadDomain);
    }
    Ok(text.to_ascii_lowercase().into())
}

/// Returns a domain in canonical form. The domain may have U-labels. Returns `None` if the text is
/// not a domain, for example if it is an address literal.
pub fn parse_dns_name(text: &str) -> Option<Box<str>> {
    parse_domain(text).ok().filter(|name| !name.starts_with('['))
}

/// Returns a domain or address literal in canonical form. The domain may have U-labels.
///
/// # Errors
/// [`AddressError::BadDomain`] or [`AddressError::BadLiteral`].
pub fn parse_domain(text: &str) -> Result<Box<str>, AddressError> {
    if text.is_ascii() {
        return parse_ascii(text);
    }
    if text.starts_with('[') {
        return Err(AddressError::BadLiteral);
    }
    if text.len() > MAX_DOMAIN {
        return Err(AddressError::BadDomain);
    }
    // The mapping need not check ASCII characters or lengths: parse_ascii() checks them below.
    let (allow_all, any_length) = (AsciiDenyList::EMPTY, DnsLength::Ignore);
    let mapped = Uts46::new().to_ascii(text.as_bytes(), allow_all, Hyphens::Allow, any_length);
    let mapped: Cow<'_, str> = mapped.map_err(|_| AddressError::BadDomain)?;
    if mapped.starts_with('[') { Err(AddressError::BadDomain) } else { parse_ascii(&mapped) }
}

/// Whether two texts name the same domain, whatever their spelling.
pub fn is_same_domain(one: &str, other: &str) -> bool {
    parse_domain(one).is_ok_and(|one| parse_domain(other).is_ok_and(|other| one == other))
}

/// Returns the IP address in an address literal such as `[192.0.2.1]`; `None` for any other text.
pub fn literal(domain: &str) -> Option<IpAddr> {
    let inside = domain.strip_prefix('[')?.strip_suffix(']')?;
    match inside.get(..5) {
        Some(tag) if tag.eq_ignore_ascii_case("ipv6:") => inside[5..].parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => inside.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

fn is_label(label: &str) -> bool {
    (1..=MAX_LABEL).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

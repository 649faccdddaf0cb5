//! Reads the addresses in `mailto:` URIs (RFC 6068), by which domains say where reports go.

use crate::address::Address;

/// Returns whether a URI has the scheme `mailto`.
pub fn is_mailto(uri: &str) -> bool {
    uri.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("mailto:"))
}

/// Parses a `mailto:` URI with one address. Header fields after `?` are ignored. Returns `None` if
/// the URI has another form.
pub fn mailto(uri: &str) -> Option<Address> {
    let path = uri.get(7..).filter(|_| is_mailto(uri))?.split('?').next()?;
    let address = Address::parse(&decoded(path)?).ok()?;
    // A stranger must not direct reports to an address without a domain, which is a local user, or
    // to an address literal. A report in ASCII must not need SMTPUTF8.
    let is_good = address.is_ascii() && !address.domain().is_empty() && address.literal().is_none();
    is_good.then_some(address)
}

/// Decodes the octets that a URI writes as `%XX`. Returns `None` if the result is not printable
/// ASCII.
fn decoded(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let mut b = first;
        rest = after;
        if first == b'%' {
            let (digits, after) = rest.split_at_checked(2)?;
            b = u8::from_str_radix(std::str::from_utf8(digits).ok().filter(|d| !d.starts_with('+'))?, 16).ok()?;
            rest = after;
        }
        out.push(Some(char::from(b)).filter(|c| (' '..='~').contains(c))?);
    }
    Some(out)
}

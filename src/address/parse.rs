//! Reads addresses and paths.

use super::domain::parse_domain;
use super::quote::is_atom;
use super::{Address, AddressError, MAX_ADDRESS};

/// A reverse-path or forward-path and what follows it on the line.
///
/// `None` is the null reverse-path `<>`. A source route is read and dropped
/// (RFC 5321 appendix C). Angle brackets may be missing, as people type it; the
/// path then ends at the first blank.
///
/// # Errors
/// Whatever is wrong with it first.
pub fn parse_path(text: &[u8]) -> Result<(Option<Address>, &[u8]), AddressError> {
    let text = text.trim_ascii_start();
    let Some(inside) = text.strip_prefix(b"<") else {
        let (address, rest) = scan(text)?;
        return match rest.first() {
            None | Some(b' ') => Ok((Some(address), rest)),
            Some(_) => Err(AddressError::Trailing),
        };
    };
    let inside = inside.trim_ascii_start();
    if let Some(rest) = inside.strip_prefix(b">") {
        return Ok((None, rest));
    }
    let (address, rest) = scan(skip_source_route(inside)?)?;
    let rest = rest.trim_ascii_start().strip_prefix(b">").ok_or(AddressError::BadPath)?;
    Ok((Some(address), rest))
}

/// Reads one address from the front of `text`: what it is, and the rest.
pub(super) fn scan(text: &[u8]) -> Result<(Address, &[u8]), AddressError> {
    let (local, rest) = scan_local(text)?;
    let (domain, rest) = match rest.strip_prefix(b"@") {
        None => (Box::default(), rest),
        Some(after) => {
            let end = if after.starts_with(b"[") {
                after.iter().position(|&b| b == b']').ok_or(AddressError::BadLiteral)? + 1
            } else {
                after.iter().position(|b| matches!(b, b' ' | b'\t' | b'>')).unwrap_or(after.len())
            };
            let text = std::str::from_utf8(&after[..end]).map_err(|_| AddressError::NotAscii)?;
            (parse_domain(text)?, &after[end..])
        }
    };
    if local.len() + domain.len() >= MAX_ADDRESS {
        return Err(AddressError::TooLong);
    }
    Ok((Address { local, domain }, rest))
}

fn scan_local(text: &[u8]) -> Result<(Box<str>, &[u8]), AddressError> {
    let mut local = String::new();
    let rest = if let Some(quoted) = text.strip_prefix(b"\"") {
        let mut bytes = quoted.iter().enumerate();
        loop {
            match bytes.next() {
                Some((at, b'"')) => break &quoted[at + 1..],
                Some((_, b'\\')) => match bytes.next() {
                    Some((_, &b @ b' '..=b'~')) => local.push(b.into()),
                    _ => return Err(AddressError::BadLocal),
                },
                Some((_, &b @ b' '..=b'~')) => local.push(b.into()),
                Some((_, 0x80..)) => return Err(AddressError::NotAscii),
                _ => return Err(AddressError::BadLocal),
            }
        }
    } else {
        let end = text.iter().position(|&b| !is_atom(b) && b != b'.').unwrap_or(text.len());
        local.extend(text[..end].iter().map(|&b| char::from(b)));
        match text.get(end) {
            Some(0x80..) => return Err(AddressError::NotAscii),
            Some(b'@' | b' ' | b'\t' | b'>') | None => &text[end..],
            Some(_) => return Err(AddressError::BadLocal),
        }
    };
    match (local.is_empty(), text.first()) {
        (true, None | Some(b' ' | b'\t' | b'>')) => Err(AddressError::Empty),
        (true, _) => Err(AddressError::BadLocal),
        (false, _) => Ok((local.into(), rest)),
    }
}

/// `@a,@b:user@c`: what follows the colon.
fn skip_source_route(text: &[u8]) -> Result<&[u8], AddressError> {
    if !text.starts_with(b"@") {
        return Ok(text);
    }
    let colon = text.iter().position(|&b| b == b':').ok_or(AddressError::BadPath)?;
    // An IPv6 literal in the route has colons of its own.
    let end = match text[..colon].iter().rposition(|&b| b == b'[') {
        Some(open) => {
            let close = text[open..].iter().position(|&b| b == b']').ok_or(AddressError::BadPath)?;
            let after = &text[open + close..];
            open + close + after.iter().position(|&b| b == b':').ok_or(AddressError::BadPath)?
        }
        None => colon,
    };
    Ok(&text[end + 1..])
}

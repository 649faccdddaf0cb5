//! Reads addresses and paths as they are written in SMTP and in files.
//!
//! An address may be UTF-8 (RFC 6531), and is read in one pass.

use super::domain::parse_domain;
use super::quote::is_atom;
use super::{Address, AddressError};
use crate::characters::is_misleading;

/// Reads a reverse-path or forward-path. Returns the path and the text that follows it on the line.
///
/// The path is `None` if it is the null reverse-path `<>`. A source route is skipped (RFC 5321
/// appendix C). Angle brackets may be missing, as in commands typed by hand. In that case, the path
/// ends at the first blank.
///
/// # Errors
/// The first error in the path.
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

/// Reads one address from the front of `text`. Returns the address and the rest of the text.
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
            let domain = std::str::from_utf8(&after[..end]).map_err(|_| AddressError::NotUtf8)?;
            (parse_domain(domain)?, &after[end..])
        }
    };
    Address::of(local, domain).map(|address| (address, rest))
}

fn scan_local(text: &[u8]) -> Result<(Box<str>, &[u8]), AddressError> {
    let mut local = Vec::new();
    let rest = if let Some(quoted) = text.strip_prefix(b"\"") {
        let mut bytes = quoted.iter().enumerate();
        loop {
            match bytes.next() {
                Some((at, b'"')) => break &quoted[at + 1..],
                Some((_, b'\\')) => match bytes.next() {
                    Some((_, &b @ b' '..=b'~')) => local.push(b),
                    _ => return Err(AddressError::BadLocal),
                },
                Some((_, &b @ (b' '..=b'~' | 0x80..))) => local.push(b),
                _ => return Err(AddressError::BadLocal),
            }
        }
    } else {
        let is_in = |b: u8| is_atom(b) || b == b'.' || !b.is_ascii();
        let end = text.iter().position(|&b| !is_in(b)).unwrap_or(text.len());
        local.extend_from_slice(&text[..end]);
        match text.get(end) {
            Some(b'@' | b' ' | b'\t' | b'>') | None => &text[end..],
            Some(_) => return Err(AddressError::BadLocal),
        }
    };
    let local = String::from_utf8(local).map_err(|_| AddressError::NotUtf8)?;
    match (local.is_empty(), text.first()) {
        (true, None | Some(b' ' | b'\t' | b'>')) => Err(AddressError::Empty),
        (true, _) => Err(AddressError::BadLocal),
        (false, _) => check_local(&local).map(|()| (local.into(), rest)),
    }
}

/// Checks the characters of a local part without quotes.
///
/// # Errors
/// [`AddressError::NotUtf8`] and [`AddressError::BadLocal`].
pub(super) fn check_local(local: &str) -> Result<(), AddressError> {
    if local.contains(char::REPLACEMENT_CHARACTER) {
        // The character stands for bytes that were not UTF-8.
        return Err(AddressError::NotUtf8);
    }
    let is_bad = |c: char| c.is_ascii_control() || is_misleading(c);
    if local.is_empty() || local.chars().any(is_bad) { Err(AddressError::BadLocal) } else { Ok(()) }
}

/// Skips a source route: returns `user@c` for `@a,@b:user@c`. Text without a source route is
/// returned whole.
fn skip_source_route(text: &[u8]) -> Result<&[u8], AddressError> {
    if !text.starts_with(b"@") {
        return Ok(text);
    }
    let colon = text.iter().position(|&b| b == b':').ok_or(AddressError::BadPath)?;
    // The first colon may be part of an IPv6 literal in the route.
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

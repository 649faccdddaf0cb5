//! Finds out which server an Authentication-Results: field claims to come from.
//!
//! The identifier of the server is the first value of the field (RFC 8601 2.2). It is read with
//! tolerance: it may follow comments, even nested ones, and a version or a comment may follow it.
//! It may be in quotes and in upper or lower case, and may have U-labels (UTF-8) or A-labels.

use std::borrow::Cow;

use crate::address::is_same_domain;

/// The number of octets at the beginning of a field that are read. If the identifier ends later, it
/// counts as one that cannot be read.
const MAX_READ: usize = 2000;

/// Returns whether a field claims to come from `authserv_id`, the name of this host. `value` is the
/// body of the field, after the colon. Returns true if the identifier cannot be read.
pub fn claims_to_be(value: &[u8], authserv_id: &str) -> bool {
    let front = value.get(..MAX_READ).unwrap_or(value);
    match identifier(front) {
        Some(id) => {
            let id = id.trim_end_matches('.');
            id.eq_ignore_ascii_case(authserv_id) || is_same_domain(id, authserv_id)
        }
        None => true,
    }
}

/// Returns the identifier at the beginning of a field. Returns `None` if there is none, or if it is
/// doubtful what the identifier is.
fn identifier(value: &[u8]) -> Option<Cow<'_, str>> {
    let value = skip_blanks(value)?;
    let (id, rest) = match value.first()? {
        b'"' => {
            let (id, rest) = quoted(value.get(1..)?)?;
            (Cow::Owned(String::from_utf8_lossy(&id).into_owned()), rest)
        }
        _ => {
            let end = value.iter().position(|&b| ends_value(b))?;
            let (id, rest) = value.split_at(end);
            (String::from_utf8_lossy(id), rest)
        }
    };
    // If a `=` follows, the field has no identifier, and the word before the `=` is a method.
    let rest = skip_blanks(rest)?;
    let is_clear = !id.trim().is_empty() && !rest.starts_with(b"=") && !rest.starts_with(b"\"");
    is_clear.then_some(id)
}

/// Returns whether an unquoted identifier ends before this octet.
fn ends_value(b: u8) -> bool {
    b.is_ascii_whitespace() || b.is_ascii_control() || b";=()\",/<>:\\".contains(&b)
}

/// Returns the text without the blanks, line ends and comments at its beginning. Returns `None` if
/// a comment is not closed.
fn skip_blanks(value: &[u8]) -> Option<&[u8]> {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(&b) = value.get(at) {
        match b {
            b'(' => depth += 1,
            b')' if depth > 0 => depth -= 1,
            b'\\' if depth > 0 => at += 1,
            _ if depth > 0 || b.is_ascii_whitespace() || b.is_ascii_control() => {}
            _ => break,
        }
        at += 1;
    }
    (depth == 0).then(|| value.get(at..).unwrap_or_default())
}

/// Reads the rest of a quoted string, whose first quote has been read. Returns the text of the
/// string, and the text that follows it. Returns `None` if the string is not closed.
fn quoted(value: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let (mut text, mut at) = (Vec::new(), 0);
    loop {
        match *value.get(at)? {
            b'"' => return Some((text, value.get(at + 1..)?)),
            b'\\' => {
                at += 1;
                text.push(*value.get(at)?);
            }
            // If the string is folded, the line end is not a part of its text.
            b'\n' | b'\r' => {}
            b => text.push(b),
        }
        at += 1;
    }
}

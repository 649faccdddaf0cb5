//! Finds out whose an Authentication-Results field is.
//!
//! The identifier is the first value of the field (RFC 8601 2.2). It is read with tolerance: after
//! comments, which may be nested, in quotes or not, in any case, with a version or a comment after
//! it, and with U-labels or A-labels.

use std::borrow::Cow;

use crate::address::is_same_domain;

/// The part of a field that is read, in octets. A field whose identifier ends later counts as one
/// that cannot be read.
const MAX_READ: usize = 2000;

/// Whether a field claims to come from `authserv_id`, the name of this host. `value` is the body of
/// the field, after the colon. The answer is true, too, if the identifier cannot be read.
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

/// The identifier at the front of a field; `None` if there is none, or if it is open to doubt.
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
    // If a `=` follows, the field has no identifier: what looks like one is a method.
    let rest = skip_blanks(rest)?;
    let is_clear = !id.trim().is_empty() && !rest.starts_with(b"=") && !rest.starts_with(b"\"");
    is_clear.then_some(id)
}

/// Whether an unquoted identifier ends before this octet.
fn ends_value(b: u8) -> bool {
    b.is_ascii_whitespace() || b.is_ascii_control() || b";=()\",/<>:\\".contains(&b)
}

/// The text without the blanks, line ends and comments at its front; `None` if a comment is not
/// closed.
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

/// The text of a quoted string after its first quote, and what follows it; `None` if it is not
/// closed.
fn quoted(value: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let (mut text, mut at) = (Vec::new(), 0);
    loop {
        match *value.get(at)? {
            b'"' => return Some((text, value.get(at + 1..)?)),
            b'\\' => {
                at += 1;
                text.push(*value.get(at)?);
            }
            // The line end of a folded string is no part of its text.
            b'\n' | b'\r' => {}
            b => text.push(b),
        }
        at += 1;
    }
}

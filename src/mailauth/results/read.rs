//! Finds out which server an Authentication-Results: field claims to come from.
//!
//! The identifier of the server is the first value of the field (RFC 8601 2.2). It is read with
//! tolerance: it may follow comments, even nested ones, and a version or a comment may follow it.
//! It may be in quotes and in upper or lower case, and may have U-labels (UTF-8) or A-labels. Some
//! programs decode encoded words (RFC 2047) before they read the identifier, and take other
//! characters than ASCII for blanks. So the identifier counts as one that cannot be read if the
//! text up to its end has an encoded word, even in a comment, or if it has characters that are not
//! ASCII and is not a domain.
//!
//! The result of DMARC in a field of another server is read with caution: if the field is malformed
//! or states several results, DMARC has not passed.

use std::borrow::Cow;

use crate::address::{is_same_domain, parse_domain};

/// The number of octets at the beginning of a field that are read. If the identifier ends later, it
/// counts as one that cannot be read.
const MAX_READ: usize = 2000;
/// The maximum length of a field in which the result of DMARC is read, in octets.
#[cfg(feature = "arc")]
const MAX_FIELD: usize = 16 << 10;

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

/// Returns whether a field says that DMARC has passed for the author's domain `author`. `value` is
/// the body of the field, or of an ARC-Authentication-Results: field without its number.
#[cfg(feature = "arc")]
pub fn says_dmarc_passed(value: &[u8], author: &str) -> bool {
    if value.len() > MAX_FIELD || identifier(value).is_none() {
        return false;
    }
    let Some(statements) = statements(value) else { return false };
    // The first part is the identifier.
    let mut all = statements.iter().skip(1).filter_map(|tokens| dmarc(tokens)).peekable();
    all.peek().is_some() && all.all(|(result, domain)| result == "pass" && is_same_domain(domain, author))
}

/// A token of a field. The blanks and comments between the tokens are left out.
#[cfg(feature = "arc")]
#[derive(Debug)]
enum Token<'a> {
    /// A word, or the text of a quoted string.
    Text(Cow<'a, str>),
    /// The character `=`.
    Equals,
}

/// Splits a field at each `;`. Returns `None` if a comment or a quoted string is not closed.
#[cfg(feature = "arc")]
fn statements(mut value: &[u8]) -> Option<Vec<Vec<Token<'_>>>> {
    let (mut all, mut tokens) = (Vec::new(), Vec::new());
    loop {
        value = skip_blanks(value)?;
        let Some((first, rest)) = value.split_first() else { break };
        match first {
            b';' => {
                all.push(std::mem::take(&mut tokens));
                value = rest;
            }
            b'=' => {
                tokens.push(Token::Equals);
                value = rest;
            }
            b'"' => {
                let (text, rest) = quoted(rest)?;
                tokens.push(Token::Text(String::from_utf8_lossy(&text).into_owned().into()));
                value = rest;
            }
            _ => {
                let ends = |&b: &u8| b.is_ascii_whitespace() || b.is_ascii_control() || b";=(\"".contains(&b);
                let (text, rest) = value.split_at(value.iter().position(ends).unwrap_or(value.len()));
                tokens.push(Token::Text(String::from_utf8_lossy(text)));
                value = rest;
            }
        }
    }
    all.push(tokens);
    Some(all)
}

/// Returns the result of DMARC in lower case, and the author's domain. The domain is empty unless
/// it is stated exactly once. Returns `None` if the tokens state the result of another method.
#[cfg(feature = "arc")]
fn dmarc<'t>(tokens: &'t [Token<'_>]) -> Option<(String, &'t str)> {
    let [Token::Text(method), Token::Equals, Token::Text(result), properties @ ..] = tokens else { return None };
    // A version may follow the name of the method.
    let name = method.split('/').next()?;
    let domain = |tokens: &'t [Token<'_>]| match tokens {
        [Token::Text(name), Token::Equals, Token::Text(value)] if name.eq_ignore_ascii_case("header.from") => {
            Some(&**value)
        }
        _ => None,
    };
    let mut domains = properties.windows(3).filter_map(domain);
    let author = domains.next().filter(|_| domains.next().is_none()).unwrap_or_default();
    name.eq_ignore_ascii_case("dmarc").then(|| (result.to_ascii_lowercase(), author))
}

/// Returns the identifier at the beginning of a field. Returns `None` if there is none, or if it is
/// doubtful what the identifier is.
fn identifier(field: &[u8]) -> Option<Cow<'_, str>> {
    let value = skip_blanks(field)?;
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
    let read = field.get(..field.len() - rest.len())?;
    let is_encoded = read.windows(2).any(|pair| pair == b"=?");
    let is_plain = id.is_ascii() || parse_domain(&id).is_ok();
    // If a `=` follows, the field has no identifier, and the word before the `=` is a method.
    let rest = skip_blanks(rest)?;
    let is_clear = !id.trim().is_empty() && !rest.starts_with(b"=") && !rest.starts_with(b"\"");
    (is_clear && is_plain && !is_encoded).then_some(id)
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

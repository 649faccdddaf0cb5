//! Writes an Authentication-Results field (RFC 8601 2.2).

use super::{NAME, One, Results};
use crate::address::parse_domain;

/// The width at which the field is folded, in octets.
const WIDTH: usize = 78;
/// The maximum length of a value, in octets. No mail address is longer.
const MAX_VALUE: usize = 320;
/// The maximum length of a comment, in octets.
const MAX_COMMENT: usize = 200;

/// Returns the whole field, folded, with lines that end in LF. `authserv_id` is the name of this
/// host.
pub fn field(results: &Results, authserv_id: &str) -> String {
    let mut out = format!("{NAME}: {}", value(authserv_id));
    if results.is_empty() {
        out += "; none";
    }
    for one in &results.results {
        out += ";\n\t";
        write(&mut out, one);
    }
    out.push('\n');
    out
}

/// Appends one result, with its comment and its properties.
fn write(out: &mut String, one: &One) {
    *out += &format!("{}={}", one.method, one.result);
    if let Some(comment) = &one.comment {
        // Within a comment, a line may be folded only between two words.
        let text = format!("({})", escaped(comment));
        text.split_ascii_whitespace().for_each(|word| append(out, word));
    }
    for (name, text) in &one.properties {
        append(out, &format!("{name}={}", pvalue(text)));
    }
}

/// Appends a blank and a word. If the word does not fit on the last line, it begins a new line.
fn append(out: &mut String, word: &str) {
    let column = out.len() - out.rfind('\n').map_or(0, |at| at + 1);
    *out += if column + 1 + word.len() > WIDTH { "\n\t\t" } else { " " };
    *out += word;
}

/// Returns the text of a property's value. An address or a domain that needs no quotes stays as it
/// is.
fn pvalue(text: &str) -> String {
    let is_domain = |domain: &str| domain.is_ascii() && !domain.starts_with('[') && parse_domain(domain).is_ok();
    match text.rsplit_once('@') {
        Some((local, domain)) if text.len() <= MAX_VALUE && is_domain(domain) && is_dot_atom(local) => text.to_owned(),
        _ => value(text),
    }
}

/// Returns whether a local part needs no quotes. An empty local part (`@example.org`) needs none.
fn is_dot_atom(local: &str) -> bool {
    local.is_empty() || local.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(is_atom))
}

/// Returns whether an octet may stand in an atom (RFC 5322 3.2.3). `=` and `/` are excluded,
/// because they have a meaning of their own in this field.
fn is_atom(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-^_`{|}~".contains(&b)
}

/// Returns a token as it is, and any other text as a quoted string (RFC 2045 5.1).
fn value(text: &str) -> String {
    let is_token = |b: u8| b.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&b);
    if !text.is_empty() && text.len() <= MAX_VALUE && text.bytes().all(is_token) {
        return text.to_owned();
    }
    let mut out = String::from("\"");
    for c in printable(text, MAX_VALUE) {
        if c == '"' || c == '\\' {
            out.push('\\');
        }
        out.push(c);
    }
    out + "\""
}

/// Returns the text of a comment, in which parentheses and backslashes are escaped.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in printable(text, MAX_COMMENT) {
        if matches!(c, '(' | ')' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// Returns the first `max` characters of a text. Characters that are not printable ASCII become
/// `?`.
fn printable(text: &str, max: usize) -> impl Iterator<Item = char> {
    text.chars().take(max).map(|c| if (' '..='~').contains(&c) { c } else { '?' })
}

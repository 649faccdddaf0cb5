//! Header fields made to fit: octets above 127 become encoded words (RFC 2047), and long lines are
//! folded.
//!
//! Only fields of free text, such as Subject, get encoded words. In other fields the words of a
//! structure would have to be told from names and comments.

use std::borrow::Cow;

use data_encoding::BASE64;
use memchr::memchr2;

use super::{MAX_LINE, Unconvertible};
use crate::message::field::Field;

/// The fields of free text. Fields whose names begin with `X-` are free text, too.
const TEXT: [&str; 3] = ["Subject", "Comments", "Content-Description"];

/// The field as it can be sent. If `keeps_eight_bit` is true, octets above 127 may stay. NUL, and CR
/// that ends no line, can be in a header within a binary message, and are never sent.
///
/// # Errors
/// `Header` or `HeaderLine`.
pub fn fitted<'a>(field: &Field<'a>, keeps_eight_bit: bool) -> Result<Cow<'a, [u8]>, Unconvertible> {
    if memchr2(0, b'\r', field.raw).is_some() {
        return Err(Unconvertible::Header);
    }
    let text = if keeps_eight_bit || field.raw.is_ascii() {
        Cow::Borrowed(field.raw)
    } else {
        Cow::Owned(encoded(field).ok_or(Unconvertible::Header)?)
    };
    if text.split(|&b| b == b'\n').all(|line| line.len() <= MAX_LINE) {
        return Ok(text);
    }
    folded(&text).map(Cow::Owned).ok_or(Unconvertible::HeaderLine)
}

/// Writes the words of a field that have octets above 127, and the words between them, as encoded
/// words. Returns `None` if the field is not free text, or has encoded words already: the blank
/// between two encoded words would be lost.
fn encoded(field: &Field<'_>) -> Option<Vec<u8>> {
    let is_text = TEXT.iter().any(|name| field.is(name)) || field.name.get(..2)?.eq_ignore_ascii_case(b"X-");
    let body: Vec<u8> = field.body.iter().copied().filter(|&b| b != b'\n').collect();
    let body = body.trim_ascii();
    if !is_text || !field.name.is_ascii() || body.windows(2).any(|pair| pair == b"=?") {
        return None;
    }
    let is_blank = |b: &u8| matches!(b, b' ' | b'\t');
    let start = body.iter().position(|b| !b.is_ascii())?;
    let start = body[..start].iter().rposition(is_blank).map_or(0, |at| at + 1);
    let end = body.iter().rposition(|b| !b.is_ascii())?;
    let end = body[end..].iter().position(is_blank).map_or(body.len(), |at| end + at);
    let mut rest = &body[start..end];
    let is_utf8 = std::str::from_utf8(rest).is_ok();
    // An encoded word has at most 75 characters.
    let (charset, room) = if is_utf8 { ("utf-8", 45) } else { ("unknown-8bit", 42) };
    let mut out = [field.name, b": ", &body[..start]].concat();
    while !rest.is_empty() {
        let mut length = rest.len().min(room);
        while is_utf8 && rest.get(length).is_some_and(|b| b & 0xc0 == 0x80) {
            length -= 1;
        }
        let (word, after) = rest.split_at(length);
        out.extend_from_slice(format!("=?{charset}?B?{}?=", BASE64.encode(word)).as_bytes());
        if !after.is_empty() {
            out.extend_from_slice(b"\n ");
        }
        rest = after;
    }
    out.extend_from_slice(&body[end..]);
    out.push(b'\n');
    Some(out)
}

/// Folds the lines of a field that are too long for SMTP, and removes the blanks at their ends.
/// Returns `None` if a line has no blank at which it can be folded.
fn folded(field: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(field.len() + 8);
    for line in field.split_inclusive(|&b| b == b'\n') {
        let mut rest = line.strip_suffix(b"\n").unwrap_or(line);
        if rest.len() <= MAX_LINE {
            out.extend_from_slice(line);
            continue;
        }
        rest = rest.trim_ascii_end();
        // An empty line would end the header.
        if rest.is_empty() {
            continue;
        }
        while rest.len() > MAX_LINE {
            // A line must have more than blanks, before the fold and after it.
            let is_blank = |b: &u8| matches!(b, b' ' | b'\t');
            let text = rest.iter().position(|b| !is_blank(b))?;
            let at = rest.get(..=MAX_LINE)?.iter().rposition(is_blank).filter(|at| *at > text)?;
            out.extend_from_slice(&rest[..at]);
            out.push(b'\n');
            rest = &rest[at..];
        }
        out.extend_from_slice(rest);
        if line.ends_with(b"\n") {
            out.push(b'\n');
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::field::fields;

    #[test]
    fn long_lines_are_folded_at_blanks() {
        let x = |count| "x".repeat(count);
        for (text, want) in [
            (format!("A: {}\n", x(995)), Some(format!("A: {}\n", x(995)))),
            (format!("A: {}\n", x(996)), Some(format!("A:\n {}\n", x(996)))),
            (format!("A: {} y\n", x(995)), Some(format!("A: {}\n y\n", x(995)))),
            (format!("A: {}\ty\n z\n", x(995)), Some(format!("A: {}\n\ty\n z\n", x(995)))),
            (format!("A: {} {} {}", x(900), x(900), x(900)), Some(format!("A: {}\n {}\n {}", x(900), x(900), x(900)))),
            (format!("A: {}\n", x(997)), Some(format!("A:\n {}\n", x(997)))),
            (format!("A: {}\n", x(998)), None),
            (format!("A:{}\n", x(997)), None),
            (format!("A: x{}\n", " ".repeat(998)), Some("A: x\n".to_owned())),
            (format!("A:{}\n", " ".repeat(998)), Some("A:\n".to_owned())),
            (format!("A: b\n{}\n c\n", " \t".repeat(500)), Some("A: b\n c\n".to_owned())),
            (format!("A: {} y{}", x(995), " ".repeat(998)), Some(format!("A: {}\n y", x(995)))),
            (format!("A: b\n{}y\n", " ".repeat(998)), None),
        ] {
            let folded = folded(text.as_bytes()).map(|text| String::from_utf8(text).expect("text"));
            assert_eq!(folded, want, "{text}");
        }
    }

    #[test]
    fn free_text_becomes_encoded_words() {
        let long = "\u{416}".repeat(23);
        let fit = |text: &[u8]| {
            let field = fields(text).next().expect("a field");
            fitted(&field, false).map(|text| String::from_utf8(text.into_owned()).expect("ASCII"))
        };
        for (text, want) in [
            ("Subject: \u{fc}ber\n", "Subject: =?utf-8?B?w7xiZXI=?=\n"),
            ("subject:a  b\u{fc} c\n \u{fc}d e\n f\n", "subject: a  =?utf-8?B?YsO8IGMgw7xk?= e f\n"),
            (
                &format!("X-Odd: {long}"),
                &format!("X-Odd: =?utf-8?B?{}?=\n =?utf-8?B?0JY=?=\n", "0JbQltCW".repeat(7) + "0JY="),
            ),
        ] {
            assert_eq!(fit(text.as_bytes()).as_deref(), Ok(want), "{text}");
        }
        assert_eq!(fit(b"Comments: \xfc\n").as_deref(), Ok("Comments: =?unknown-8bit?B?/A==?=\n"));
        for text in ["From: \u{fc} <a@b>\n", "X\u{fc}: b\n", "Subject: =?utf-8?q?a?= \u{fc}\n", "A: \u{fc}"] {
            assert_eq!(fit(text.as_bytes()), Err(Unconvertible::Header), "{text}");
        }
        for text in ["A: b\r.\r\n", "Subject: \u{fc}\0\n", "A\r: b\n"] {
            assert_eq!(fit(text.as_bytes()), Err(Unconvertible::Header), "{text:?}");
        }
        let field = "From: \u{fc}\n".as_bytes();
        assert_eq!(fitted(&fields(field).next().expect("a field"), true).as_deref(), Ok(field));
    }
}

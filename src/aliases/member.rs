//! Parses one member of an alias, a list, a `.forward` file or the virtual table. A member is the
//! text between two commas.
//!
//! Members are parsed as in sendmail and Postfix. If quotes enclose a whole member, the content is
//! read as a command, a path, an include or an address with a domain. If the content is none of
//! these, or if an `@` follows the quotes, the quoted string is a local part. An address may have a
//! display name, angle brackets and comments in parentheses (RFC 5322). Lines, continuation lines
//! and keys are handled in the parent module.

use std::borrow::Cow;

use super::Member;
use crate::address::{self, Address, AddressError};
use crate::config::table::{NOT_UTF8, not_utf8};
use crate::envelope::MAX_ACTION;

const INCLUDE: &str = ":include:";

/// The characters that separate words.
pub(super) const BLANKS: [char; 2] = [' ', '\t'];

/// Reads one member.
///
/// # Errors
/// The reason why the text is not a member, as text for the administrator.
pub(super) fn read(value: &str) -> Result<Member, String> {
    let mut scan = Scan::of(value);
    scan.by_ref().for_each(drop);
    if scan.is_open {
        return Err("the quotation mark has no end".to_owned());
    }
    if let Some(action) = action(&unquoted(value))? {
        return Ok(action);
    }
    let plain = without_parentheses(value);
    let plain = plain.trim();
    let content = unquoted(plain);
    if content == plain {
        return spelled(plain);
    }
    match spelled(&content) {
        Ok(member @ Member::Direct(_)) => Ok(member),
        Ok(member @ Member::Address(_)) if has_domain(&member) => Ok(member),
        _ => spelled(plain),
    }
}

/// Reads an address in the syntax of a member. The keys of the virtual table have this syntax, too.
///
/// # Errors
/// The first error in the address.
pub fn address(text: &str) -> Result<Address, AddressError> {
    let plain = without_parentheses(text);
    let plain = plain.trim();
    let content = unquoted(plain);
    let inner = if content == plain { None } else { one(&content).ok().filter(|inner| !inner.domain().is_empty()) };
    inner.map_or_else(|| one(plain), Ok)
}

/// Reads an address that stands alone, or in angle brackets with or without a display name before
/// them.
fn one(text: &str) -> Result<Address, AddressError> {
    let open = if text.ends_with('>') { Scan::of(text).find(|&(_, b)| b == b'<') } else { None };
    match open.and_then(|(at, _)| text.get(at..)) {
        None => Address::parse(text),
        Some(path) => match address::parse_path(path.as_bytes())? {
            (Some(address), []) => Ok(address),
            (Some(_), _) => Err(AddressError::Trailing),
            (None, _) => Err(AddressError::Empty),
        },
    }
}

fn spelled(text: &str) -> Result<Member, String> {
    let read = match text.strip_prefix('\\') {
        Some(name) => Address::parse(name).map(Member::Direct),
        None => one(text).map(Member::Address),
    };
    read.map_err(|error| error.to_string())
}

fn has_domain(member: &Member) -> bool {
    matches!(member, Member::Address(address) if !address.domain().is_empty())
}

/// Returns a command (`|...`), a file (`/...`) or an include (`:include:...`); `None` for any other
/// text.
fn action(text: &str) -> Result<Option<Member>, String> {
    let action = if let Some(command) = text.strip_prefix('|') {
        Member::Run(checked(unquoted(command.trim()), "a command")?)
    } else if text.starts_with('/') {
        Member::File(checked(text.into(), "a file")?)
    } else if text.get(..INCLUDE.len()).is_some_and(|tag| tag.eq_ignore_ascii_case(INCLUDE)) {
        let path = text.get(INCLUDE.len()..).unwrap_or_default().trim();
        if !path.starts_with('/') {
            return Err("expected a path that begins with / after :include:".to_owned());
        }
        Member::Include(checked(path.into(), "a file")?)
    } else {
        return Ok(None);
    };
    Ok(Some(action))
}

/// Checks that a command or path is valid, and not too long for an entry of the spool. `what` is
/// the phrase that stands for the command or path in an error.
fn checked(text: Cow<'_, str>, what: &str) -> Result<Box<str>, String> {
    if text.is_empty() {
        Err(format!("{what} is missing"))
    } else if text.len() > MAX_ACTION {
        Err(format!("{what} is longer than {MAX_ACTION} bytes"))
    } else if text.contains(|c: char| c.is_control() && c != '\t') {
        Err(format!("{what} has a control character in it"))
    } else if not_utf8(&text).is_some() {
        // The text was decoded with replacement characters, so it would name a different command or
        // file.
        Err(NOT_UTF8.to_owned())
    } else {
        Ok(text.into())
    }
}

/// Removes the quotation marks that enclose a whole text, and the backslashes before quoted
/// characters. Any other text is returned unchanged.
fn unquoted(text: &str) -> Cow<'_, str> {
    let Some(inside) = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) else { return text.into() };
    let mut plain = String::with_capacity(inside.len());
    let mut chars = inside.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => plain.extend(chars.next()),
            // A quotation mark in the middle shows that the outer two enclose only parts.
            '"' => return text.into(),
            c => plain.push(c),
        }
    }
    plain.into()
}

/// Replaces each comment in parentheses by a blank.
fn without_parentheses(text: &str) -> Cow<'_, str> {
    if !text.contains('(') {
        return text.into();
    }
    let (mut plain, mut start) = (String::with_capacity(text.len()), 0);
    let mut scan = Scan::of(text);
    while let Some(part) = scan.part() {
        if let Part::Parentheses(from, to) = part {
            plain.push_str(text.get(start..from).unwrap_or_default());
            plain.push(' ');
            start = to;
        }
    }
    plain.push_str(text.get(start..).unwrap_or_default());
    plain.into()
}

/// Splits a text at its commas, except those in quotes and comments. Returns the pieces that are
/// not empty, without blanks around them.
pub(super) fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut start = 0;
    let ends = Scan::of(text).filter(|&(_, b)| b == b',').map(|(at, _)| at).chain([text.len()]);
    ends.map(move |end| {
        let piece = text.get(start..end).unwrap_or_default();
        start = end + 1;
        piece.trim()
    })
    .filter(|piece| !piece.is_empty())
}

/// Removes a comment: a `#` at the front of the text or after a blank, and all text after it.
pub(super) fn without_comment(text: &str) -> &str {
    let is_start = |at: usize| text[..at].chars().next_back().is_none_or(|before| BLANKS.contains(&before));
    let end = Scan::of(text).find(|&(at, b)| b == b'#' && is_start(at)).map_or(text.len(), |(at, _)| at);
    &text[..end]
}

/// An iterator over the bytes of a text and their positions. It skips quoted strings and comments
/// in parentheses. A parenthesis that is not closed, or that is part of a command or a path, is an
/// ordinary byte.
pub(super) struct Scan<'a> {
    text: &'a str,
    at: usize,
    /// Whether the text ends inside quotation marks.
    is_open: bool,
    /// The first byte, apart from blanks, after the last comma or key; `None` if none has been
    /// read.
    first: Option<u8>,
    /// Whether a search has shown that no comment ends in the rest of the text.
    has_no_end: bool,
}

/// The next part of a text.
enum Part {
    Byte(usize, u8),
    /// A comment in parentheses: the position of its first byte, and the position after its last
    /// byte.
    Parentheses(usize, usize),
}

impl<'a> Scan<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        Self { text, at: 0, is_open: false, first: None, has_no_end: false }
    }

    fn part(&mut self) -> Option<Part> {
        while self.text.as_bytes().get(self.at) == Some(&b'"') {
            self.first = self.first.or(Some(b'"'));
            self.at = self.after_quotes();
        }
        let (at, b) = (self.at, *self.text.as_bytes().get(self.at)?);
        if b == b'('
            && let Some(end) = self.after_parentheses()
        {
            self.at = end;
            return Some(Part::Parentheses(at, end));
        }
        match b {
            b',' => self.first = None,
            // This colon ends the key of an alias. A colon at the front begins `:include:`.
            b':' if self.first.is_some() => self.first = None,
            b' ' | b'\t' => {}
            _ => self.first = self.first.or(Some(b)),
        }
        self.at += 1;
        Some(Part::Byte(at, b))
    }

    /// Returns the position after the quoted string that begins at `self.at`.
    fn after_quotes(&mut self) -> usize {
        let mut bytes = self.text.bytes().enumerate().skip(self.at + 1);
        while let Some((at, b)) = bytes.next() {
            match b {
                b'\\' => drop(bytes.next()),
                b'"' => return at + 1,
                _ => {}
            }
        }
        self.is_open = true;
        self.text.len()
    }

    /// Returns the position after the comment that begins at `self.at`; `None` if the parenthesis
    /// begins no comment.
    fn after_parentheses(&mut self) -> Option<usize> {
        if self.has_no_end || matches!(self.first, Some(b'|' | b'/' | b':')) {
            return None;
        }
        let (mut depth, mut is_escaped) = (0_usize, false);
        for (at, b) in self.text.bytes().enumerate().skip(self.at) {
            match b {
                _ if is_escaped => is_escaped = false,
                b'\\' => is_escaped = true,
                b'(' => depth += 1,
                b')' if depth == 1 => return Some(at + 1),
                b')' => depth -= 1,
                _ => {}
            }
        }
        // A later search could not succeed either.
        self.has_no_end = true;
        None
    }
}

impl Iterator for Scan<'_> {
    type Item = (usize, u8);

    fn next(&mut self) -> Option<(usize, u8)> {
        loop {
            if let Part::Byte(at, b) = self.part()? {
                return Some((at, b));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> String {
        match read(text) {
            Ok(Member::Address(address)) => address.to_string(),
            Ok(Member::Direct(address)) => format!("\\{address}"),
            Ok(Member::Run(text)) => format!("!|{text}"),
            Ok(Member::File(text)) => format!("!{text}"),
            Ok(Member::Include(text)) => format!("!:{text}"),
            Err(why) => format!("? {why}"),
        }
    }

    #[test]
    fn a_member_is_read_as_sendmail_and_postfix_read_it() {
        for (text, member) in [
            // Quotes enclose the whole member.
            ("\"admin@company.example\"", "admin@company.example"),
            ("\"admin@company.example\" (Webmaster)", "admin@company.example"),
            ("\"Jon <jon@x.org>\"", "jon@x.org"),
            ("\"\\\\jon\"", "\\jon"),
            ("\"\\jon\"", "jon"),
            ("\"jon\"", "jon"),
            ("\"john smith\"", "\"john smith\""),
            ("\"a, b\"", "\"a, b\""),
            ("\"|cat -n\"", "!|cat -n"),
            ("\"/a (b)\"", "!/a (b)"),
            ("\":include:/x y\"", "!:/x y"),
            // Quotes enclose a part of the member.
            ("\"john smith\"@example.org", "\"john smith\"@example.org"),
            ("\"admin@x\"@example.org", "\"admin@x\"@example.org"),
            ("\"/x\"@example.org", "/x@example.org"),
            ("\\\"john smith\"", "\\\"john smith\""),
            // Display names, angle brackets and comments.
            ("Jon Doe <jon@x.org>", "jon@x.org"),
            ("\"Doe, Jon\" <jon@x.org>", "jon@x.org"),
            ("\"a<b\" <jon@x.org>", "jon@x.org"),
            ("<jon@x.org>", "jon@x.org"),
            ("< jon@x.org >", "jon@x.org"),
            ("<\"a<b\"@x.org>", "\"a<b\"@x.org"),
            ("J\u{fffd}rg <jon@x.org>", "jon@x.org"),
            ("jon@x.org (Jon Doe)", "jon@x.org"),
            ("jon@x.org (J\u{fffd}rg (\"junior))", "jon@x.org"),
            ("(the boss) jon@x.org (really \\))", "jon@x.org"),
            ("Jon <jon@x.org> (Jon)", "jon@x.org"),
            ("jon(x)@x.org", "? there is text after the address"),
            ("jon@x.org (Jon", "? there is text after the address"),
            ("jon@x.org Jon", "? there is text after the address"),
            ("<>", "? an address is missing"),
            ("Jon <>", "? an address is missing"),
            ("()", "? an address is missing"),
            ("Jon <jon@x.org", "? there is text after the address"),
            ("j\u{fffd}n@x.org", "? the address is not in UTF-8"),
            ("J\u{f6}rg <j\u{f6}rg@b\u{fc}cher.example>", "j\u{f6}rg@xn--bcher-kva.example"),
            // Only addresses have comments.
            ("|cat (x)", "!|cat (x)"),
            ("/x (y)", "!/x (y)"),
            ("|cat \u{fffd}", "? expected text in UTF-8"),
            ("/x\u{fffd}", "? expected text in UTF-8"),
            ("\"jon@x.org", "? the quotation mark has no end"),
        ] {
            assert_eq!(written(text), member, "{text}");
        }
    }

    #[test]
    fn commas_in_quotes_and_comments_separate_nothing() {
        for (text, parts) in [
            ("a, b,, c,", vec!["a", "b", "c"]),
            ("\"a, b\"@x, c (d, e), f", vec!["\"a, b\"@x", "c (d, e)", "f"]),
            ("a (b, c", vec!["a (b", "c"]),
            ("|x (y, z)", vec!["|x (y", "z)"]),
            ("a (#1), b # c", vec!["a (#1)", "b"]),
            ("a ( #1), b # c, d", vec!["a ( #1)", "b"]),
            ("a#b, c", vec!["a#b", "c"]),
            ("a \" # b", vec!["a \" # b"]),
        ] {
            assert_eq!(pieces(without_comment(text)).collect::<Vec<_>>(), parts, "{text}");
        }
    }

    #[test]
    fn many_parentheses_are_scanned_in_linear_time() {
        let text = "(".repeat(200_000);
        assert_eq!(pieces(&text).count(), 1);
        let text = "() ".repeat(100_000) + "jon@x.org";
        assert_eq!(written(&text), "jon@x.org");
    }
}

//! Finds the recipients that a header field or a command line names (RFC 5322 3.4 and 4.4).
//!
//! A list is read as its writer meant it: an address in angle brackets counts, and the name before
//! the brackets does not, even if the name looks like an address. Common deviations are tolerated:
//! groups without members or without an end, semicolons between addresses, a missing comma between
//! two addresses in brackets, names that need quotes and have none, and obsolete source routes. A
//! part that could mean two addresses, or none, is an error: no recipient is dropped or added
//! silently. Time and memory are linear in the length of the field.
//!
//! For senders, [`super::addresses`] does the opposite: it finds every address that any mail
//! program may find in a list.

use super::addresses::{Kind, Token, is_blank, is_special, joined, parsed, unquoted};
use crate::address::Address;

/// The part of a list that cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub struct Unreadable(pub Vec<u8>);

/// The addresses of a list, with or without domains.
///
/// # Errors
/// The first part that cannot be read.
pub fn recipients(value: &[u8]) -> Result<Vec<Address>, Unreadable> {
    let mut reader = Reader::new(value);
    let mut list = Vec::new();
    loop {
        reader.skip_blanks();
        let start = reader.position;
        match reader.part(&mut list) {
            Some(true) => {}
            Some(false) => return Ok(list),
            None => {
                return Err(Unreadable(piece(value, start, reader.position).to_vec()));
            }
        }
    }
}

/// The part of a list that an error shows: from `start` to the first comma or semicolon after
/// `end`.
fn piece(value: &[u8], start: usize, end: usize) -> &[u8] {
    let is_end = |b: &u8| matches!(b, b',' | b';');
    let tail = value.get(end.saturating_sub(1).max(start)..).unwrap_or_default();
    let end = value.len() - tail.len() + tail.iter().position(is_end).unwrap_or(tail.len());
    value.get(start..end).unwrap_or_default().trim_ascii()
}

/// Reads a list part by part.
struct Reader<'a> {
    value: &'a [u8],
    position: usize,
    /// The opening characters for which the rest of the list has no closing character.
    strays: Vec<u8>,
    /// Whether a quoted string has occurred already.
    has_quoted: bool,
}

impl<'a> Reader<'a> {
    fn new(value: &'a [u8]) -> Self {
        Self { value, position: 0, strays: Vec::new(), has_quoted: false }
    }

    /// Reads up to a comma, a semicolon or the end, adds the addresses to `list`, and returns
    /// whether more may follow. Returns `None` if the part cannot be read.
    fn part(&mut self, list: &mut Vec<Address>) -> Option<bool> {
        let (mut words, mut has_brackets, mut has_more) = (Vec::new(), false, false);
        while let Some(token) = self.next()? {
            match token.kind {
                Kind::Special(b',' | b';') => {
                    has_more = true;
                    break;
                }
                // The words before the colon are the name of a group.
                Kind::Special(b':') if !has_brackets && !words.is_empty() && !has_at(&words) => words.clear(),
                Kind::Special(b':') => return None,
                Kind::Special(b'<') => {
                    if has_brackets && has_at(&words) {
                        return None;
                    }
                    list.extend(self.in_brackets()?);
                    has_brackets = true;
                    words.clear();
                }
                _ => words.push(token),
            }
        }
        match has_brackets {
            // A name may follow the address in brackets, but a second address may not.
            true if has_at(&words) => return None,
            false if !words.is_empty() => self.without_brackets(&words, list)?,
            _ => {}
        }
        Some(has_more)
    }

    /// The address between `<` and `>`; `Some(None)` for the empty `<>`.
    fn in_brackets(&mut self) -> Option<Option<Address>> {
        let mut words = Vec::new();
        loop {
            let token = self.next()??;
            match token.kind {
                Kind::Special(b'>') if words.is_empty() => return Some(None),
                Kind::Special(b'>') => return self.address(&words).map(Some),
                Kind::Special(b'@') if words.is_empty() => while self.next()??.kind != Kind::Special(b':') {},
                // Some programs double the brackets: `<<a@b>>`.
                Kind::Special(b'<') if words.is_empty() => {}
                Kind::Special(b',' | b';') => return None,
                _ => words.push(token),
            }
        }
    }

    /// Adds an address without brackets. A whole list in quotes is accepted, too, and its addresses
    /// are added.
    fn without_brackets(&self, words: &[Token], list: &mut Vec<Address>) -> Option<()> {
        if let [Token { kind: Kind::Quoted, start, end }] = *words {
            let inside: Vec<u8> = unquoted(self.value.get(start..end)?).collect();
            if inside.contains(&b'@') || inside.trim_ascii_end().ends_with(b":;") {
                // If the list in quotes contains quotes itself, it is an error, so there is no
                // further recursion.
                list.extend(recipients(&inside).ok().filter(|_| !inside.contains(&b'"'))?);
                return Some(());
            }
        }
        list.push(self.address(words)?);
        Some(())
    }

    /// The address that tokens form; `None` if they form none.
    fn address(&self, words: &[Token]) -> Option<Address> {
        let value = self.value;
        let at_sign = words.iter().position(|word| word.kind == Kind::Special(b'@'));
        let (local, domain) = words.split_at(at_sign.unwrap_or(words.len()));
        let local = joined(value, local)?;
        match domain.split_first() {
            Some((_, [literal])) if literal.kind == Kind::Literal => {
                parsed(&local, value.get(literal.start..literal.end)?)
            }
            Some((_, domain)) => {
                let domain = joined(value, domain)?;
                match (local.strip_prefix(b"'"), domain.strip_suffix(b"'")) {
                    // Outlook puts apostrophes around an address, and no domain ends with an
                    // apostrophe.
                    (Some(local), Some(domain)) => parsed(local, domain),
                    _ => parsed(&local, &domain),
                }
            }
            None => parsed(&local, b"").filter(|_| !local.starts_with(b".") && !local.ends_with(b".")),
        }
    }

    /// Returns the next token, or `Some(None)` at the end. Returns `None` if quotes cannot be
    /// paired.
    #[expect(clippy::option_option, reason = "the end and an error are different")]
    fn next(&mut self) -> Option<Option<Token>> {
        self.skip_blanks();
        let start = self.position;
        let Some(&first) = self.value.get(start) else { return Some(None) };
        let tail = self.value.get(start..).unwrap_or_default();
        let (kind, length) = match first {
            b'"' => match self.closing(first, tail) {
                Some(length) => {
                    self.has_quoted = true;
                    (Kind::Quoted, length)
                }
                // The number of quotes is odd, and any of them could be the surplus quote.
                None if self.has_quoted => return None,
                None => (Kind::Stray, 1),
            },
            b'[' => self.closing(first, tail).map_or((Kind::Stray, 1), |length| (Kind::Literal, length)),
            b'<' | b'>' | b'@' | b',' | b';' | b':' => (Kind::Special(first), 1),
            _ if is_special(first) => (Kind::Stray, 1),
            _ => match encoded_word(tail) {
                Some(length) => (Kind::Stray, length),
                None => {
                    let length = tail.iter().position(|&b| is_special(b) || is_blank(b)).unwrap_or(tail.len());
                    (Kind::Atom, length)
                }
            },
        };
        self.position += length;
        Some(Some(Token { kind, start, end: self.position }))
    }

    /// Skips blanks, line ends and closed comments.
    fn skip_blanks(&mut self) {
        loop {
            let tail = self.value.get(self.position..).unwrap_or_default();
            match tail.first() {
                Some(&b) if is_blank(b) => self.position += 1,
                Some(b'(') => match self.closing(b'(', tail) {
                    Some(length) => self.position += length,
                    None => return,
                },
                _ => return,
            }
        }
    }

    /// The length of a text from its opening to its closing character, both included; `None` if the
    /// closing character is missing. The search for a missing character is not repeated.
    fn closing(&mut self, open: u8, tail: &[u8]) -> Option<usize> {
        if self.strays.contains(&open) {
            return None;
        }
        let close = match open {
            b'(' => b')',
            b'[' => b']',
            other => other,
        };
        let (mut depth, mut is_literal) = (0_usize, false);
        let end = tail.iter().position(|&b| {
            if std::mem::take(&mut is_literal) {
                return false;
            }
            match b {
                b'\\' => is_literal = true,
                b if b == close && depth > 0 => depth -= 1,
                b if b == open && (open == b'(' || depth == 0) => depth += 1,
                _ => {}
            }
            depth == 0
        });
        if end.is_none() {
            self.strays.push(open);
        }
        end.map(|end| end + 1)
    }
}

/// Whether there is an `@` among the tokens.
fn has_at(words: &[Token]) -> bool {
    words.iter().any(|word| word.kind == Kind::Special(b'@'))
}

/// The length of the encoded word (RFC 2047 2) at the front of a text, if there is one. Programs
/// write commas and parentheses in it, although a name may not have them (RFC 2047 5).
fn encoded_word(text: &[u8]) -> Option<usize> {
    let rest = text.strip_prefix(b"=?")?;
    let part = |rest: &[u8]| rest.iter().position(|&b| b == b'?' || !b.is_ascii_graphic());
    let charset = part(rest).filter(|&length| length > 0)?;
    let [b'?', b'q' | b'Q' | b'b' | b'B', b'?', words @ ..] = rest.get(charset..)? else { return None };
    let length = part(words)?;
    words.get(length..)?.starts_with(b"?=").then_some(2 + charset + 3 + length + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        match recipients(text.as_bytes()) {
            Ok(list) => list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            Err(Unreadable(part)) => format!("no: {}", String::from_utf8_lossy(&part)),
        }
    }

    #[test]
    fn a_list_is_read_as_its_writer_meant_it() {
        for (text, want) in [
            ("", ""),
            ("jon", "jon"),
            ("jon@x.org", "jon@x.org"),
            ("<jon@x.org>", "jon@x.org"),
            ("Jon Postel <jon@x.org>, ann", "jon@x.org ann"),
            ("jon@x.org (Jon (the \\) man))", "jon@x.org"),
            ("(none)", ""),
            ("\"Postel, Jon\" <jon@x.org>,\n\tAnn\n <ann@x.org>", "jon@x.org ann@x.org"),
            (", jon,, ann ,", "jon ann"),
            // A name that looks like an address is still a name.
            ("old@a.example <new@b.example>", "new@b.example"),
            ("\"old@a.example\" <new@b.example>", "new@b.example"),
            ("'old@a.example' <new@b.example>", "new@b.example"),
            ("jon@x.org <jon@x.org>, ann@x.org <ann@x.org>", "jon@x.org ann@x.org"),
            ("Jon @ home <jon@x.org>", "jon@x.org"),
            // Names that would need quotes.
            ("Dr. Jon B. Postel <jon@x.org>", "jon@x.org"),
            ("Jon O'Postel [work] <jon@x.org>", "jon@x.org"),
            ("\"Jon \"the editor\" Postel\" <jon@x.org>", "jon@x.org"),
            ("Jon \"the editor\" Postel <jon@x.org>", "jon@x.org"),
            ("Jon :) <jon@x.org>", "jon@x.org"),
            ("Jon (work <jon@x.org>", "jon@x.org"),
            ("Jon\\Ann <jon@x.org>", "jon@x.org"),
            ("Jon\" <jon@x.org>, ann", "jon@x.org ann"),
            ("J\u{f6}n <jon@x.org>", "jon@x.org"),
            ("<jon@x.org> Jon", "jon@x.org"),
            (
                "J\u{f6}n <j\u{f6}n@b\u{fc}cher.example>, \u{7528}\u{6237}",
                "j\u{f6}n@xn--bcher-kva.example \u{7528}\u{6237}",
            ),
            // Encoded words (RFC 2047).
            ("=?utf-8?q?J=C3=B6n?= <jon@x.org>", "jon@x.org"),
            ("=?utf-8?B?SsO2bg==?=<jon@x.org>", "jon@x.org"),
            ("=?utf-8?Q?Postel,_J=C3=B6n_(x;_<y@z>?= <jon@x.org>, ann", "jon@x.org ann"),
            ("=?utf-8?q?a?=\n =?utf-8?q?b?= <jon@x.org>", "jon@x.org"),
            // Groups.
            ("undisclosed-recipients:;", ""),
            ("undisclosed-recipients: ;", ""),
            ("Undisclosed recipients:", ""),
            ("unlisted-recipients:; (no To-header on input)", ""),
            ("\"Undisclosed-Recipient:;\"", ""),
            ("undisclosed-recipients: <>;", ""),
            ("staff: jon, Ann <ann@x.org>;, bob", "jon ann@x.org bob"),
            ("staff: jon; bob", "jon bob"),
            ("staff: jon, ann", "jon ann"),
            ("\"my list\": jon;", "jon"),
            ("a: b: jon;;", "jon"),
            ("a:;, b:;", ""),
            ("mailto:jon@x.org", "jon@x.org"),
            // Separators.
            ("jon@x.org; ann@x.org;", "jon@x.org ann@x.org"),
            ("Jon <jon@x.org>; Ann <ann@x.org>", "jon@x.org ann@x.org"),
            ("Jon <jon@x.org> Ann <ann@x.org>", "jon@x.org ann@x.org"),
            ("<jon@x.org><ann@x.org>", "jon@x.org ann@x.org"),
            // Old forms.
            ("<@a.org,@b.org:jon@x.org>", "jon@x.org"),
            ("<@[IPv6:::1],,@b.org:jon@x.org>", "jon@x.org"),
            ("jon . postel @ x . org", "jon.postel@x.org"),
            ("jon(c)@(c)x(c).(c)org", "jon@x.org"),
            ("Jon\r\n <jon\r\n @x.org>", "jon@x.org"),
            ("host!jon", "host!jon"),
            ("jon%y.org@x.org", "jon%y.org@x.org"),
            // Local parts and domains that are seldom seen.
            ("\"j p\"@x.org", "\"j p\"@x.org"),
            ("\"j p\"", "\"j p\""),
            ("Jon <\"j \\\"p\"@x.org>", "\"j \\\"p\"@x.org"),
            ("\"jon\".postel@x.org", "jon.postel@x.org"),
            ("a..b.@x.org", "\"a..b.\"@x.org"),
            ("jon@[192.0.2.1], <ann@[IPv6:2001:db8::1]>", "jon@[192.0.2.1] ann@[IPv6:2001:db8::1]"),
            // Superfluous quotes and brackets.
            ("\"jon@x.org\"", "jon@x.org"),
            ("\"jon@x.org, Ann <ann@x.org>\"", "jon@x.org ann@x.org"),
            ("'jon@x.org', <'ann@x.org'>", "jon@x.org ann@x.org"),
            ("Jon <<jon@x.org>>", "jon@x.org"),
            ("Jon <>, ann", "ann"),
        ] {
            assert_eq!(read(text), want, "{text}");
        }
    }

    #[test]
    fn an_ambiguous_list_is_an_error() {
        for (text, part) in [
            ("a, jon postel, ann", "jon postel"),
            ("a, Jon Postel jon@x.org", "Jon Postel jon@x.org"),
            ("a@x.org b@x.org", "a@x.org b@x.org"),
            ("<a@x.org> b@x.org, c", "<a@x.org> b@x.org"),
            ("<a@x.org> b@x.org <c@x.org>", "<a@x.org> b@x.org <c@x.org>"),
            ("a, <oops", "<oops"),
            ("Jon <jon@x.org, ann@x.org>", "Jon <jon@x.org"),
            ("jon@x.org (Jon, ann", "jon@x.org (Jon"),
            ("jon@x.org>", "jon@x.org>"),
            ("\"Jon\" <jon@x.org>, \"Ann <ann@x.org>", "\"Ann <ann@x.org>"),
            ("\"Jon <jon@x.org>, \"Ann\" <ann@x.org>", "\"Jon <jon@x.org>, \"Ann\" <ann@x.org>"),
            ("jon@x@y", "jon@x@y"),
            ("jon@", "jon@"),
            ("@x.org", "@x.org"),
            ("<@x.org>", "<@x.org>"),
            (":jon", ":jon"),
            ("jon@x.org: ann; b", "jon@x.org: ann"),
            ("j\u{202e}n@x.org", "j\u{202e}n@x.org"),
            ("jon@\u{301}x.org", "jon@\u{301}x.org"),
            ("jo\0n@x.org", "jo\0n@x.org"),
            (".jon", ".jon"),
            ("=?utf-8?q?jon?=", "=?utf-8?q?jon?="),
            ("\"jon@x.org, oops doe\"", "\"jon@x.org, oops doe\""),
            ("|touch /tmp/x", "|touch /tmp/x"),
        ] {
            assert_eq!(read(text), format!("no: {part}"), "{text}");
        }
    }

    #[test]
    fn reading_takes_linear_time() {
        let begin = std::time::Instant::now();
        for piece in ["(", "\"", "[", "<", "\\\"", "=?", "=?a?q?", "a:", "<@a,", "(\\", "<>", "\"\",\"@\","] {
            let _ = recipients(piece.repeat(300_000).as_bytes());
        }
        assert!(begin.elapsed() < std::time::Duration::from_secs(20), "{:?}", begin.elapsed());
    }
}

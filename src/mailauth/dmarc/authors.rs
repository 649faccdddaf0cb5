//! Finds the domains of a message's authors, for which DMARC is checked, in the From fields (RFC
//! 9989 5.3.1, 11.5).
//!
//! A message should have one From field, with addresses in one domain. Other messages are read with
//! caution: every domain counts that a mail program might show as the author's. The domain may
//! stand in an obsolete source route, in a name that looks like an address, or in a second From
//! field. If a quote or a comment is not closed, the domains in it count, too. From fields are
//! found in a header of any length, and even after lines that do not belong in a header. Each
//! domain is checked on its own, and the strictest result applies.
//!
//! Mail programs read a malformed field in different ways. So if a text after `@` is not a domain,
//! or a domain ends in an unusual way, it is noted that there may be more domains. But an `@` also
//! stands in the names of honest authors, such as `Jobs @ O'Reilly <jobs@example.org>`. Such a name
//! is not malformed if a valid address in `<>` stands in the field, too.

use crate::address::parse_domain;
use crate::message::field::{Lines, Part, Piece};

/// The maximum number of domains that are checked.
pub const MAX_AUTHORS: usize = 5;
/// The number of octets of a field that are read. If a field is longer, the rest counts as another
/// domain.
const MAX_FIELD: usize = 32 << 10;

/// Why there may be more domains, if a text after `@` is not a domain.
const MALFORMED: &str = "a domain in From is malformed";

/// The domains of the authors of a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Authors {
    /// The different domains in canonical form, in the order of the text. There are at most
    /// [`MAX_AUTHORS`].
    pub domains: Vec<Box<str>>,
    /// Whether there may be more domains, because there is text that was not read, or text after
    /// `@` that is not a domain.
    pub has_more: bool,
    /// Whether the fields contain an `@`, or an encoded word, in which there may be one.
    pub has_at: bool,
    /// Why there may be more domains, if `has_more` is true.
    pub reason: &'static str,
    /// The number of From fields; 2 if there are more than two.
    pub fields: usize,
}

/// What a scan has found so far in a field.
#[derive(Debug, Default)]
struct Found {
    /// Whether the scan is between `<` and `>`.
    is_inside: bool,
    /// Whether there is a valid domain after the last `<`.
    is_valid_inside: bool,
    /// Whether there is a valid address in `<>`.
    has_address: bool,
    /// Whether there is a text after `@` that is not a domain. It is harmless if there is an
    /// address.
    is_doubtful: bool,
    /// Whether mail programs may read more than the scan as a domain. This is harmless only if an
    /// address follows before the next comma.
    is_open: bool,
}

/// What the text after an `@` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Empty,
    Domain,
    /// A domain between punctuation.
    Enclosed,
    Other,
}

/// Finds the authors while a message arrives, in a header of any length.
#[derive(Debug, Default)]
pub struct AuthorScan {
    lines: Lines,
    authors: Authors,
    /// The body so far of the From field that is being read; `None` outside of a From field.
    body: Option<Vec<u8>>,
    is_over: bool,
}

impl AuthorScan {
    /// Takes the next piece of the text. Lines end in LF, and the text may be split anywhere.
    pub fn feed(&mut self, mut text: &[u8]) {
        let Self { lines, authors, body, is_over } = self;
        while let Some(piece) = if *is_over { None } else { lines.next(&mut text) } {
            *is_over = read(piece, authors, body);
        }
    }

    /// Ends the text, and returns the authors.
    pub fn finish(mut self) -> Authors {
        if let Some(piece) = self.lines.finish() {
            read(piece, &mut self.authors, &mut self.body);
        }
        end_field(&mut self.authors, &mut self.body);
        self.authors
    }
}

/// Reads a line of the header, or a part of one. Returns whether the header has ended.
fn read(piece: Piece<'_>, authors: &mut Authors, body: &mut Option<Vec<u8>>) -> bool {
    match piece {
        Piece::Line(Part::Field(name, front), _) => {
            end_field(authors, body);
            if name.eq_ignore_ascii_case(b"From") {
                *body = Some(front.to_vec());
            }
        }
        Piece::Line(Part::Continuation, more) | Piece::Rest(more) => {
            if let Some(body) = body.as_mut().filter(|body| body.len() <= MAX_FIELD) {
                body.extend_from_slice(more);
            }
        }
        Piece::Line(part, _) => {
            end_field(authors, body);
            return part == Part::End;
        }
    }
    false
}

fn end_field(authors: &mut Authors, body: &mut Option<Vec<u8>>) {
    if let Some(body) = body.take() {
        authors.take(&body);
    }
}

impl Authors {
    /// Reads a header: fields with lines that end in LF.
    pub fn of_header(header: &[u8]) -> Self {
        let mut scan = AuthorScan::default();
        scan.feed(header);
        scan.finish()
    }

    /// Reads the body of a From field, the first or a further one.
    pub fn take(&mut self, body: &[u8]) {
        self.fields = (self.fields + 1).min(2);
        let text = body.get(..MAX_FIELD).unwrap_or(body);
        if text.len() < body.len() {
            self.note_more("From is too long");
        }
        // Some mail programs decode the encoded words before they look for addresses.
        let shown = String::from_utf8_lossy(text);
        self.has_at |= shown.contains(['@', '\u{ff20}', '\u{fe6b}']) || shown.contains("=?");
        if !self.scan(text, true) {
            // A mail program may show any part of the text.
            self.scan(text, false);
        }
    }

    fn note_more(&mut self, reason: &'static str) {
        if !std::mem::replace(&mut self.has_more, true) {
            self.reason = reason;
        }
    }

    /// Collects the domain after each `@`. If `is_strict`, comments, quoted strings and encoded
    /// words are skipped. Returns false if it is uncertain where they are: if a comment or a quoted
    /// string is not closed, or if there is a backslash outside of them.
    fn scan(&mut self, text: &[u8], is_strict: bool) -> bool {
        let mut found = Found::default();
        let mut at = 0;
        while let Some(&b) = text.get(at) {
            at += 1;
            match b {
                b'"' if is_strict => match quote_end(text, at) {
                    Some(end) => at = end,
                    None => return false,
                },
                b'(' if is_strict => match comment_end(text, at) {
                    Some(end) => at = end,
                    None => return false,
                },
                b'\\' if is_strict => return false,
                b'=' if is_strict && !found.is_inside => at = encoded_word_end(text, at - 1).unwrap_or(at),
                b'<' => (found.is_inside, found.is_valid_inside) = (true, false),
                b'>' => {
                    let is_address = found.is_inside && found.is_valid_inside;
                    found.has_address |= is_address;
                    // If it is uncertain where the quoted strings are, the address may be in one.
                    found.is_open &= !(is_address && is_strict);
                    found.is_inside = false;
                }
                b',' if found.is_open => self.note_more(MALFORMED),
                b'@' => at = self.take_domain(text, at, &mut found),
                _ => {}
            }
        }
        if found.is_open || (found.is_doubtful && !found.has_address) {
            self.note_more(MALFORMED);
        }
        true
    }

    /// Reads the text after an `@`, from `at`, and returns the offset of its end.
    fn take_domain(&mut self, text: &[u8], at: usize, found: &mut Found) -> usize {
        let (domain, end) = domain(text, at);
        let word = self.add(&domain);
        let next = if domain.ends_with(b".") { skip_blanks(text, end) } else { end };
        let unusual = text.get(next).copied().filter(|b| is_unusual_end(*b));
        let is_other = word == Word::Other;
        let is_binary = (is_other && !domain.is_ascii()) || unusual.is_some_and(|b| b.is_ascii_control());
        if found.is_inside {
            found.is_valid_inside |= word == Word::Domain;
            if is_other || word == Word::Enclosed || unusual.is_some() {
                self.note_more(MALFORMED);
            }
        } else if is_binary {
            self.note_more(MALFORMED);
        } else {
            let is_closed = !is_other && word != Word::Empty && is_closed(text, next);
            found.is_open |= unusual.is_some() && !is_closed;
            found.is_open |= is_other && domain.windows(2).any(|pair| pair == b"=?");
            found.is_doubtful |= is_other;
        }
        end
    }

    fn add(&mut self, domain: &[u8]) -> Word {
        let text = String::from_utf8_lossy(domain);
        let text = text.trim_end_matches('.');
        // Real display names have an `@` between blanks, as in `Team @ Example <team@example.org>`.
        if text.is_empty() {
            return Word::Empty;
        }
        // A text that is not a domain has no record, but a mail program may show a domain in it.
        let enclosed = text.trim_matches(|c: char| c.is_ascii_punctuation());
        let (domain, word) = match (parse_domain(text), parse_domain(enclosed)) {
            (Ok(domain), _) => (domain, Word::Domain),
            (Err(_), Ok(domain)) => (domain, Word::Enclosed),
            (Err(_), Err(_)) => return Word::Other,
        };
        if self.domains.contains(&domain) {
            return word;
        }
        if self.domains.len() < MAX_AUTHORS {
            self.domains.push(domain);
        } else {
            self.note_more("From has too many domains");
        }
        word
    }
}

/// Returns the domain that begins at `at`, and the offset of its end. A domain is an address
/// literal, or words with dots between them. Blanks and comments around the dots are left out, and
/// so are backslashes, which mail programs do not show.
fn domain(text: &[u8], mut at: usize) -> (Vec<u8>, usize) {
    let mut domain = Vec::new();
    at = skip_blanks(text, at);
    if text.get(at) == Some(&b'[') {
        let end =
            text.get(at..).and_then(|rest| rest.iter().position(|&b| b == b']')).map_or(text.len(), |n| at + n + 1);
        return (text.get(at..end).unwrap_or_default().to_vec(), end);
    }
    loop {
        while let Some(&b) = text.get(at).filter(|b| !ends_word(**b)) {
            if b != b'\\' {
                domain.push(b);
            }
            at += 1;
        }
        let next = skip_blanks(text, at);
        let is_open = domain.ends_with(b".") || text.get(next) == Some(&b'.');
        // A second word belongs to the domain only after a dot.
        if next == at || !is_open || text.get(next).is_none_or(|&b| ends_word(b)) {
            return (domain, at);
        }
        at = next;
    }
}

fn ends_word(b: u8) -> bool {
    b.is_ascii_whitespace() || b.is_ascii_control() || b"()<>[]:;@,\"".contains(&b)
}

/// A domain ends before `b`. Returns whether some mail programs may read `b` and more as a part of
/// the domain.
fn is_unusual_end(b: u8) -> bool {
    !ends_word(b) || (b.is_ascii_control() && !b.is_ascii_whitespace()) || b"[]\"".contains(&b)
}

/// Returns whether the text at `at`, after a domain, is the end of something in brackets or quotes,
/// and nothing follows that may be a part of the domain.
fn is_closed(text: &[u8], at: usize) -> bool {
    let next = text.get(skip_blanks(text, at + 1));
    text.get(at).is_some_and(|b| b"]\"".contains(b)) && next.is_none_or(|b| b"<,;".contains(b))
}

/// Returns the offset after the encoded word (RFC 2047) that begins at `at`, such as
/// `=?utf-8?q?Jos=C3=A9?=`. Returns `None` if there is none, or if programs that do not know
/// encoded words may find an address in it.
fn encoded_word_end(text: &[u8], at: usize) -> Option<usize> {
    if at.checked_sub(1).and_then(|before| text.get(before)).is_some_and(|&b| !ends_word(b)) {
        return None;
    }
    let rest = text.get(at..)?;
    let is_end = |b: &u8| *b != b'@' && (ends_word(*b) || *b == b'\\');
    let length = rest.iter().position(is_end).unwrap_or(rest.len());
    let (word, after) = rest.split_at_checked(length)?;
    let parts: Vec<&[u8]> = word.split(|&b| b == b'?').collect();
    let [b"=", _, b"q" | b"Q" | b"b" | b"B", _, b"="] = parts[..] else { return None };
    let is_apart = after.first().is_none_or(|&b| b.is_ascii_whitespace() || b == b'<');
    is_apart.then_some(at + length)
}

/// Returns the offset after blanks, line ends and comments. A comment that is not closed is not
/// skipped.
fn skip_blanks(text: &[u8], mut at: usize) -> usize {
    while let Some(&b) = text.get(at) {
        match b {
            b' ' | b'\t' | b'\r' | b'\n' => at += 1,
            b'(' => match comment_end(text, at + 1) {
                Some(end) => at = end,
                None => break,
            },
            _ => break,
        }
    }
    at
}

/// Returns the offset after the quoted string whose content begins at `at`. Returns `None` if the
/// string is not closed.
fn quote_end(text: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Returns the offset after the comment whose content begins at `at`. Returns `None` if the comment
/// is not closed.
fn comment_end(text: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 1_usize;
    while depth > 0 {
        match text.get(at)? {
            b'(' => depth += 1,
            b')' => depth -= 1,
            b'\\' => at += 1,
            _ => {}
        }
        at += 1;
    }
    Some(at)
}

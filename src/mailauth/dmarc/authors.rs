//! Finds the domains of a message's authors, for which DMARC is checked, in the From fields (RFC
//! 9989 5.3.1, 11.5).
//!
//! A message should have one From field, with addresses in one domain. Other messages are read with
//! caution: every domain counts that a mail program might show as the author's. The domain may
//! stand in an obsolete source route, in a name that looks like an address, or in a second From
//! field, and with a second field the author is unclear in any case. If a quote or a comment is not closed, the domains in it count, too. From fields are
//! found in a header of any length, and even after lines that do not belong in a header. Each
//! domain is checked on its own, and the strictest result applies.
//!
//! Mail programs read a malformed field in different ways. So if a text after `@` is not a domain,
//! or a domain ends in an unusual way, it is noted that there may be more domains. But an `@` also
//! stands in the names of honest authors, such as `Jobs @ O'Reilly <jobs@example.org>` or `Jobs @
//! Acme <jobs@example.org>`. Such a name is not malformed if a valid address in `<>` stands in the
//! field, too, and a word without a dot is then no domain.

use super::text::{DomainText, FromText, is_unusual_end};
use crate::address::parse_domain;
use crate::message::field::{Lines, Part, Piece};

/// The maximum number of domains that are checked.
pub const MAX_AUTHORS: usize = 5;
/// The number of octets that are read of all From fields of a message together. If they are longer,
/// the rest counts as another domain.
const MAX_TEXT: usize = 32 << 10;
/// The number of From fields that are read. Further fields count as another domain.
const MAX_FIELDS: usize = 10;

/// The dots between the labels of a domain, also of one that is not in ASCII (UTS 46).
const DOTS: [char; 4] = ['.', '\u{3002}', '\u{ff0e}', '\u{ff61}'];

/// Why there may be more domains, if a text after `@` is not a domain.
const MALFORMED: &str = "a domain in From is malformed";

/// The domains of the authors of a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Authors {
    /// The different domains in canonical form, in the order of the text. There are at most
    /// [`MAX_AUTHORS`].
    pub domains: Vec<Box<str>>,
    /// Whether there may be more domains, because there is text that was not read, text after `@`
    /// that is not a domain, or more than one From field.
    pub has_more: bool,
    /// Whether the fields contain an `@`, or an encoded word, in which there may be one.
    pub has_at: bool,
    /// Why there may be more domains, if `has_more` is true.
    pub reason: &'static str,
    /// The number of From fields.
    pub fields: usize,
    /// The number of octets that have been read.
    octets: usize,
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
    /// The domains outside of `<>` that have no dot, such as `Bank` in `Jon @ Bank
    /// <jon@example.org>`. They are parts of a name if an address follows before the next comma.
    labels: Vec<Box<str>>,
    /// Whether mail programs may read more than the scan as a domain or as an address: the end of a
    /// domain is uncertain, a text after `@` is not a domain but has a dot, or there is an `@` in a
    /// quoted string or an encoded word. This is harmless only if an address in `<>` follows before
    /// the next comma or semicolon.
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
            if let Some(body) = body.as_mut().filter(|body| body.len() <= MAX_TEXT) {
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
        self.fields = self.fields.saturating_add(1);
        if self.fields > 1 {
            // RFC 5322 3.6 allows only one, and mail programs show the first or the last.
            self.note_more("there is more than one From");
        }
        let left = if self.fields > MAX_FIELDS { 0 } else { MAX_TEXT.saturating_sub(self.octets) };
        let text = body.get(..left).unwrap_or(body);
        self.octets += text.len();
        if text.len() < body.len() {
            self.note_more("From is too long");
        }
        // Some mail programs decode the encoded words before they look for addresses.
        let shown = String::from_utf8_lossy(text);
        self.has_at |= shown.contains(['@', '\u{ff20}', '\u{fe6b}']) || shown.contains("=?");
        let text = FromText::new(text);
        if !self.scan(&text, true) {
            // A mail program may show any part of the text.
            self.scan(&text, false);
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
    fn scan(&mut self, text: &FromText<'_>, is_strict: bool) -> bool {
        let mut found = Found::default();
        let mut at = 0;
        while let Some(b) = text.get(at) {
            at += 1;
            match b {
                b'"' if is_strict => match text.quote_end(at) {
                    Some(end) => {
                        self.note_hidden(&mut found, text.string_shows_at(at, end));
                        at = end;
                    }
                    None => return false,
                },
                b'(' if is_strict => match text.comment_end(at) {
                    Some(end) => at = end,
                    None => return false,
                },
                b'\\' if is_strict => return false,
                b'=' => {
                    let is_skipped = is_strict && !found.is_inside;
                    let end = text.encoded_word_end(at - 1).filter(|_| is_skipped).unwrap_or(at);
                    self.note_hidden(&mut found, text.word_shows_at(at - 1, end));
                    at = end;
                }
                0x80.. => self.note_hidden(&mut found, text.is_wide_at(at - 1)),
                b'<' => (found.is_inside, found.is_valid_inside) = (true, false),
                b'>' => {
                    let is_address = found.is_inside && found.is_valid_inside;
                    found.has_address |= is_address;
                    // If it is uncertain where the quoted strings are, the address may be in one.
                    if is_address && is_strict {
                        found.is_open = false;
                        found.labels.clear();
                    }
                    found.is_inside = false;
                }
                b',' | b';' => self.end_address(&mut found),
                b'@' => {
                    let domain = text.domain(at);
                    if domain.has_backslash && is_strict {
                        return false;
                    }
                    at = domain.end;
                    self.take_domain(text, &domain, &mut found);
                }
                _ => {}
            }
        }
        self.end_address(&mut found);
        if found.is_doubtful && !found.has_address {
            self.note_more(MALFORMED);
        }
        true
    }

    /// No address in `<>` has followed what the scan has found.
    fn end_address(&mut self, found: &mut Found) {
        found.labels.drain(..).for_each(|label| self.add(label));
        if found.is_open {
            self.note_more(MALFORMED);
        }
    }

    /// Notes that mail programs may show an `@` where the scan skips the text or does not see one.
    /// In a name before an address in `<>`, this is harmless.
    fn note_hidden(&mut self, found: &mut Found, is_hidden: bool) {
        if is_hidden && found.is_inside {
            self.note_more(MALFORMED);
        }
        found.is_open |= is_hidden;
    }

    /// Takes the text after an `@`.
    fn take_domain(&mut self, text: &FromText<'_>, domain: &DomainText, found: &mut Found) {
        let DomainText { octets, end, has_backslash } = domain;
        let shown = String::from_utf8_lossy(octets);
        let (word, domain) = parse(&shown);
        match domain {
            Some(label) if !found.is_inside && !label.contains(['.', '[']) => found.add_label(label),
            Some(domain) => self.add(domain),
            None => {}
        }
        let has_dot = shown.trim_matches(DOTS).contains(DOTS);
        let next = if octets.ends_with(b".") { text.skip_blanks(*end) } else { *end };
        let unusual = text.get(next).filter(|b| is_unusual_end(*b));
        let is_other = word == Word::Other;
        let is_binary = (is_other && has_dot && !octets.is_ascii()) || unusual.is_some_and(|b| b.is_ascii_control());
        if found.is_inside {
            // Some programs put a whole address into single quotes.
            let is_valid = word == Word::Domain || octets.strip_suffix(b"'").is_some_and(is_domain);
            found.is_valid_inside |= is_valid;
            if is_other || (word == Word::Enclosed && !is_valid) || unusual.is_some() || *has_backslash {
                self.note_more(MALFORMED);
            }
        } else if is_binary || (*has_backslash && has_dot) {
            // Some mail programs end a domain at a backslash.
            self.note_more(MALFORMED);
        } else {
            let is_closed = !is_other && word != Word::Empty && text.is_closed(next);
            found.is_open |= unusual.is_some() && !is_closed;
            found.is_open |= is_other && (has_dot || octets.windows(2).any(|pair| pair == b"=?"));
            found.is_doubtful |= is_other || *has_backslash;
        }
    }

    fn add(&mut self, domain: Box<str>) {
        if self.domains.contains(&domain) {
            return;
        }
        if self.domains.len() < MAX_AUTHORS {
            self.domains.push(domain);
        } else {
            self.note_more("From has too many domains");
        }
    }
}

impl Found {
    /// Adds a domain without a dot. One more than the maximum of authors is enough to note that
    /// there are too many.
    fn add_label(&mut self, label: Box<str>) {
        if self.labels.len() <= MAX_AUTHORS && !self.labels.contains(&label) {
            self.labels.push(label);
        }
    }
}

/// Returns what the text after an `@` is, and the domain in it.
fn parse(text: &str) -> (Word, Option<Box<str>>) {
    let text = text.trim_end_matches('.');
    // Real display names have an `@` between blanks, as in `Team @ Example <team@example.org>`.
    if text.is_empty() {
        return (Word::Empty, None);
    }
    if let Ok(domain) = parse_domain(text) {
        return (Word::Domain, Some(domain));
    }
    // A text that is not a domain has no record, but a mail program may show a domain in it.
    match parse_domain(text.trim_matches(|c: char| c.is_ascii_punctuation())) {
        Ok(domain) => (Word::Enclosed, Some(domain)),
        Err(_) => (Word::Other, None),
    }
}

fn is_domain(octets: &[u8]) -> bool {
    std::str::from_utf8(octets).is_ok_and(|text| parse_domain(text).is_ok())
}

//! Finds the domains of the authors in the fields From of a message (RFC 9989 5.3.1, 11.5).
//!
//! A message should have one field From with the addresses of one domain. Other messages are read
//! with caution: every domain that a mail program might show as the author's counts, also in an
//! obsolete source route, in a name that looks like an address, and in a second field From. If a
//! quote or a comment is not closed, its content counts, too. Each domain is then checked on its
//! own, and the strictest result counts.

use crate::address::parse_domain_utf8;
use crate::message::field;

/// The maximum number of domains that are checked. A message with more gets `permerror`, unless one
/// of the first fails.
pub const MAX_AUTHORS: usize = 5;
/// The part of a field that is read, in octets. What follows counts as another domain.
const MAX_FIELD: usize = 32 << 10;

/// The domains of the authors of a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Authors {
    /// The different domains, in canonical form and in the order of the text: at most
    /// [`MAX_AUTHORS`].
    pub domains: Vec<Box<str>>,
    /// Whether there are more domains, or text that was not read.
    pub has_more: bool,
    /// The number of fields From, and 2 for more.
    pub fields: usize,
}

impl Authors {
    /// Reads a header: complete fields with lines that end in LF.
    pub fn of_header(header: &[u8]) -> Self {
        let mut authors = Self::default();
        for field in field::fields(header).filter(|field| field.is("From")) {
            authors.take(field.body);
        }
        authors
    }

    /// Reads the body of one more field From.
    pub fn take(&mut self, body: &[u8]) {
        self.fields = (self.fields + 1).min(2);
        let text = body.get(..MAX_FIELD).unwrap_or(body);
        self.has_more |= text.len() < body.len();
        if !self.scan(text, true) {
            // Something is not closed: mail programs may show any part of the text.
            self.scan(text, false);
        }
    }

    /// Collects what follows each `@`. If `is_strict`, comments and quoted strings are skipped.
    /// Returns whether all of them are closed.
    fn scan(&mut self, text: &[u8], is_strict: bool) -> bool {
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
                b'\\' if is_strict => at += 1,
                b'@' => {
                    let (domain, end) = domain(text, at);
                    self.add(&domain);
                    at = end;
                }
                _ => {}
            }
        }
        true
    }

    fn add(&mut self, domain: &[u8]) {
        let text = String::from_utf8_lossy(domain);
        let text = text.trim_end_matches('.');
        // What is no domain has no record, so it can be left out.
        let Ok(domain) = parse_domain_utf8(text) else { return };
        if self.domains.contains(&domain) {
            return;
        }
        if self.domains.len() < MAX_AUTHORS {
            self.domains.push(domain);
        } else {
            self.has_more = true;
        }
    }
}

/// The domain that begins at `at`, and the offset of its end: words with dots between them, without
/// the blanks and comments that may stand around the dots, or an address literal.
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
            domain.push(b);
            at += 1;
        }
        let next = skip_blanks(text, at);
        let is_open = domain.ends_with(b".") || text.get(next) == Some(&b'.');
        // A word may continue only after a dot.
        if next == at || !is_open || text.get(next).is_none_or(|&b| ends_word(b)) {
            return (domain, at);
        }
        at = next;
    }
}

fn ends_word(b: u8) -> bool {
    b.is_ascii_whitespace() || b.is_ascii_control() || b"()<>[]:;@\\,\"".contains(&b)
}

/// The offset after blanks, line ends and comments. A comment that is not closed is not skipped.
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

/// The offset after the quoted string whose content begins at `at`.
fn quote_end(text: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// The offset after the comment whose content begins at `at`.
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

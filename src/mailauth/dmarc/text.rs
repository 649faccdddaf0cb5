//! Finds the comments, quoted strings, encoded words and domains in the text of a From field.
//!
//! Nothing here takes more time than the text has octets, whatever the text is: a stranger chooses
//! it.

use data_encoding::BASE64_NOPAD;

/// The beginnings of the names of character sets in which an `@` is the octet 0x40.
const CHARSETS: [&str; 12] =
    ["utf-8", "us-ascii", "iso-", "windows-", "cp125", "koi8", "gb", "big5", "shift_jis", "euc-", "ks_c", "tis-"];

/// A fullwidth and a small `@` in UTF-8.
const WIDE_ATS: [&[u8]; 2] = ["\u{ff20}".as_bytes(), "\u{fe6b}".as_bytes()];

/// The text of a From field.
#[derive(Debug)]
pub struct FromText<'a> {
    octets: &'a [u8],
    /// The comments that are closed: the offset of each content and the offset after the comment,
    /// in the order of the text.
    comments: Vec<(usize, usize)>,
    /// The offsets of the encoded words (RFC 2047) that may contain an `@`, in the order of the
    /// text.
    encoded: Vec<usize>,
}

/// A text after an `@` that may be a domain.
#[derive(Debug)]
pub struct DomainText {
    /// The text without blanks, comments and backslashes.
    pub octets: Vec<u8>,
    /// The offset of its end.
    pub end: usize,
    /// Whether it has a backslash.
    pub has_backslash: bool,
}

impl<'a> FromText<'a> {
    /// Prepares a text for reading. The ends of all comments are found at once, because comments
    /// may be nested.
    pub fn new(octets: &'a [u8]) -> Self {
        let (mut comments, mut ends) = (Vec::new(), Vec::new());
        for (at, &b) in octets.iter().enumerate().rev() {
            match b {
                b')' if !is_escaped(octets, at) => ends.push(at + 1),
                b'(' => {
                    // A comment may also be read from a `(` that is escaped in the comment around
                    // it. Then both end together.
                    let end = if is_escaped(octets, at) { ends.last().copied() } else { ends.pop() };
                    comments.extend(end.map(|end| (at + 1, end)));
                }
                _ => {}
            }
        }
        comments.reverse();
        Self { octets, comments, encoded: encoded_ats(octets) }
    }

    /// Returns the octet at `at`.
    pub fn get(&self, at: usize) -> Option<u8> {
        self.octets.get(at).copied()
    }

    /// Reads the domain that begins at `at`. A domain is an address literal, or words with dots
    /// between them. Blanks and comments around the dots are left out, and so are backslashes,
    /// which most mail programs do not show.
    pub fn domain(&self, at: usize) -> DomainText {
        let mut domain = DomainText { octets: Vec::new(), end: self.skip_blanks(at), has_backslash: false };
        if self.get(domain.end) == Some(b'[') {
            let rest = self.octets.get(domain.end..).unwrap_or_default();
            let length = rest.iter().position(|&b| b == b']').map_or(rest.len(), |n| n + 1);
            domain.octets.extend_from_slice(rest.get(..length).unwrap_or_default());
            domain.end += length;
            return domain;
        }
        loop {
            while let Some(b) = self.get(domain.end).filter(|b| !ends_word(*b)) {
                if b == b'\\' {
                    domain.has_backslash = true;
                } else {
                    domain.octets.push(b);
                }
                domain.end += 1;
            }
            let next = self.skip_blanks(domain.end);
            let is_open = domain.octets.ends_with(b".") || self.get(next) == Some(b'.');
            // A second word belongs to the domain only after a dot.
            if next == domain.end || !is_open || self.get(next).is_none_or(ends_word) {
                return domain;
            }
            domain.end = next;
        }
    }

    /// Returns whether mail programs may show an `@` for the quoted string whose content ends
    /// before `end`, the offset after the string, and begins at `at`. This is of no interest for a
    /// local part.
    pub fn string_shows_at(&self, at: usize, end: usize) -> bool {
        let is_local_part = self.get(end) == Some(b'@') && self.get(end + 1).is_some_and(|b| !ends_word(b));
        let text = self.octets.get(at..end).unwrap_or_default();
        let has_at = text.contains(&b'@') || has_wide_at(text);
        // Backslashes may hide an encoded word.
        let may_be_encoded = text.windows(2).any(|pair| matches!(pair, b"\\=" | b"\\?"));
        !is_local_part && (has_at || may_be_encoded || self.word_shows_at(at, end))
    }

    /// Returns whether an encoded word that may contain an `@` begins between `at` and `end`.
    pub fn word_shows_at(&self, at: usize, end: usize) -> bool {
        let index = self.encoded.partition_point(|&start| start < at);
        self.encoded.get(index).is_some_and(|&start| start < end)
    }

    /// Returns whether a fullwidth or a small `@` in UTF-8 is at `at`.
    pub fn is_wide_at(&self, at: usize) -> bool {
        self.octets.get(at..).is_some_and(|rest| WIDE_ATS.iter().any(|wide| rest.starts_with(wide)))
    }

    /// Returns whether the text at `at`, after a domain, is the end of something in brackets or
    /// quotes, and nothing follows that may be a part of the domain.
    pub fn is_closed(&self, at: usize) -> bool {
        let next = self.get(self.skip_blanks(at + 1));
        self.get(at).is_some_and(|b| b"]\"".contains(&b)) && next.is_none_or(|b| b"<,;".contains(&b))
    }

    /// Returns the offset after the encoded word (RFC 2047) that begins at `at`, such as
    /// `=?utf-8?q?Jos=C3=A9?=`. Returns `None` if there is none, or if programs that do not know
    /// encoded words may find an address in it.
    pub fn encoded_word_end(&self, at: usize) -> Option<usize> {
        if at.checked_sub(1).and_then(|before| self.get(before)).is_some_and(|b| !ends_word(b)) {
            return None;
        }
        let rest = self.octets.get(at..)?;
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
    pub fn skip_blanks(&self, mut at: usize) -> usize {
        while let Some(b) = self.get(at) {
            match b {
                b' ' | b'\t' | b'\r' | b'\n' => at += 1,
                b'(' => match self.comment_end(at + 1) {
                    Some(end) => at = end,
                    None => break,
                },
                _ => break,
            }
        }
        at
    }

    /// Returns the offset after the quoted string whose content begins at `at`. Returns `None` if
    /// the string is not closed.
    pub fn quote_end(&self, mut at: usize) -> Option<usize> {
        loop {
            match self.get(at)? {
                b'"' => return Some(at + 1),
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
    }

    /// Returns the offset after the comment whose content begins at `at`, after a `(`. Returns
    /// `None` if the comment is not closed.
    pub fn comment_end(&self, at: usize) -> Option<usize> {
        let index = self.comments.binary_search_by_key(&at, |(content, _)| *content).ok()?;
        self.comments.get(index).map(|(_, end)| *end)
    }
}

/// Returns whether an odd number of backslashes stands before `at`.
fn is_escaped(octets: &[u8], at: usize) -> bool {
    octets.iter().take(at).rev().take_while(|&&b| b == b'\\').count() % 2 == 1
}

fn has_wide_at(text: &[u8]) -> bool {
    text.windows(3).any(|part| WIDE_ATS.contains(&part))
}

/// Returns the offsets of the encoded words in a text that may contain an `@`.
fn encoded_ats(text: &[u8]) -> Vec<usize> {
    let mut found = Vec::new();
    let Some(last) = text.windows(2).rposition(|pair| pair == b"?=") else { return found };
    let mut at = 0;
    while at < last {
        // The `=` at the end of a word may be the beginning of the next one.
        match encoded_word(text.get(at..last + 2).unwrap_or_default()) {
            Some((length, shows_at)) => {
                found.extend(shows_at.then_some(at));
                at += length - 1;
            }
            None => at += 1,
        }
    }
    found
}

/// Reads an encoded word at the beginning of a text that ends in `?=`. Returns its length and
/// whether it may contain an `@`. A word that is malformed, and that mail programs may read in
/// different ways, may contain one.
fn encoded_word(text: &[u8]) -> Option<(usize, bool)> {
    let mut parts = text.strip_prefix(b"=?")?.splitn(3, |&b| b == b'?');
    let (charset, encoding, rest) = (parts.next()?, parts.next()?, parts.next()?);
    if !matches!(encoding, b"q" | b"Q" | b"b" | b"B") {
        return None;
    }
    let length = rest.windows(2).position(|pair| pair == b"?=")?;
    let content = rest.get(..length)?;
    let decoded = if encoding.eq_ignore_ascii_case(b"q") { Some(decode_q(content)) } else { decode_b(content) };
    let charset = charset.to_ascii_lowercase();
    let is_known = CHARSETS.iter().any(|name| charset.starts_with(name.as_bytes()));
    let is_odd = !is_known || content.iter().any(|b| b"?\\".contains(b));
    let shows_at = is_odd || decoded.is_none_or(|text| text.contains(&b'@') || has_wide_at(&text));
    Some((b"=???".len() + charset.len() + encoding.len() + length + b"?=".len(), shows_at))
}

/// Decodes the content of an encoded word with the encoding Q. An `=` that begins no octet is left
/// as it is.
fn decode_q(mut content: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(content.len());
    while let Some((&first, rest)) = content.split_first() {
        let digits = rest.get(..2).filter(|_| first == b'=').and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(b) => {
                text.push(b);
                content = rest.get(2..).unwrap_or_default();
            }
            None => {
                text.push(first);
                content = rest;
            }
        }
    }
    text
}

/// Decodes the content of an encoded word with the encoding B. Returns `None` if it is malformed,
/// for example if an octet is split between two words.
fn decode_b(content: &[u8]) -> Option<Vec<u8>> {
    let digits: Vec<u8> = content.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
    let padding = digits.iter().rev().take_while(|&&b| b == b'=').count();
    BASE64_NOPAD.decode(digits.get(..digits.len() - padding)?).ok()
}

fn ends_word(b: u8) -> bool {
    b.is_ascii_whitespace() || b.is_ascii_control() || b"()<>[]:;@,\"".contains(&b)
}

/// A domain ends before `b`. Returns whether some mail programs may read `b` and more as a part of
/// the domain.
pub fn is_unusual_end(b: u8) -> bool {
    !ends_word(b) || (b.is_ascii_control() && !b.is_ascii_whitespace()) || b"[]\"".contains(&b)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the offset after the comment whose content begins at `at`, octet by octet.
    fn slow_end(text: &[u8], mut at: usize) -> Option<usize> {
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

    /// All texts of up to eight characters that matter for comments.
    #[test]
    fn each_comment_ends_where_it_is_closed() {
        for length in 0..=8_u32 {
            for number in 0..4_usize.pow(length) {
                let text: Vec<u8> = (0..length).map(|n| b"()\\a"[number / 4_usize.pow(n) % 4]).collect();
                let read = FromText::new(&text);
                for at in (1..=text.len()).filter(|at| text[at - 1] == b'(') {
                    let shown = String::from_utf8_lossy(&text);
                    assert_eq!(read.comment_end(at), slow_end(&text, at), "{shown} from {at}");
                }
            }
        }
    }

    /// Eight times as many octets as are read of a message take no more than a moment.
    #[test]
    fn the_time_for_a_text_grows_only_with_its_length() {
        let size = 256 << 10;
        let closed = "\\@a(@a(".repeat(size / 16) + &")".repeat(size / 8);
        for text in ["@(".repeat(size / 2), "@a(x)".repeat(size / 5), closed, "@a\\\\(".repeat(size / 5)] {
            let started = std::time::Instant::now();
            let read = FromText::new(text.as_bytes());
            for (at, _) in text.match_indices('@') {
                read.domain(at + 1);
            }
            assert!(started.elapsed().as_secs() < 10, "{text:.20} took {:?}", started.elapsed());
        }
    }
}

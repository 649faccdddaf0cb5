//! Finds the comments, quoted strings, encoded words and domains in the text of a From field.
//!
//! Nothing here takes more time than the text has octets, whatever the text is: a stranger chooses
//! it.

/// The text of a From field.
#[derive(Debug)]
pub struct FromText<'a> {
    octets: &'a [u8],
    /// The comments that are closed: the offset of each content and the offset after the comment,
    /// in the order of the text.
    comments: Vec<(usize, usize)>,
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
        Self { octets, comments }
    }

    /// Returns the octet at `at`.
    pub fn get(&self, at: usize) -> Option<u8> {
        self.octets.get(at).copied()
    }

    /// Returns the domain that begins at `at`, and the offset of its end. A domain is an address
    /// literal, or words with dots between them. Blanks and comments around the dots are left out,
    /// and so are backslashes, which mail programs do not show.
    pub fn domain(&self, mut at: usize) -> (Vec<u8>, usize) {
        let mut domain = Vec::new();
        at = self.skip_blanks(at);
        if self.get(at) == Some(b'[') {
            let rest = self.octets.get(at..).unwrap_or_default();
            let length = rest.iter().position(|&b| b == b']').map_or(rest.len(), |n| n + 1);
            return (rest.get(..length).unwrap_or_default().to_vec(), at + length);
        }
        loop {
            while let Some(b) = self.get(at).filter(|b| !ends_word(*b)) {
                if b != b'\\' {
                    domain.push(b);
                }
                at += 1;
            }
            let next = self.skip_blanks(at);
            let is_open = domain.ends_with(b".") || self.get(next) == Some(b'.');
            // A second word belongs to the domain only after a dot.
            if next == at || !is_open || self.get(next).is_none_or(ends_word) {
                return (domain, at);
            }
            at = next;
        }
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

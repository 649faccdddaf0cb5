//! Reads the content of an entry, and computes the size that the content has in SMTP.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use memchr::{memchr_iter, memrchr};

use crate::smtp::chunk::{HeaderEnd, TextReader};

/// The maximum length of a line in SMTP without its end, in octets (RFC 5321 4.5.3.1.6).
const MAX_TEXT_LINE: usize = 998;
/// The number of bytes read at a time when the content is measured.
const BLOCK: usize = 64 << 10;

/// A reader of the content of an entry. A clone begins at the current offset of the original and
/// has an offset of its own, so that several threads can read the same file. If the file has fewer
/// than `size` bytes, reading fails.
#[derive(Debug, Clone)]
pub struct Content<'a> {
    /// Text that is read before the file.
    front: &'a [u8],
    /// The file; `None` if there is no content.
    file: Option<&'a File>,
    offset: u64,
    size: u64,
    is_binary: bool,
    pub(super) measure: Option<Measure>,
}

impl<'a> Content<'a> {
    /// A reader that begins at `offset` in a file of `size` bytes.
    pub fn new(file: &'a File, offset: u64, size: u64) -> Self {
        Self { front: b"", file: Some(file), offset, size, is_binary: false, measure: None }
    }

    /// A content without octets.
    pub fn none() -> Self {
        let measure = Some(Meter::default().measure(b""));
        Self { front: b"", file: None, offset: 0, size: 0, is_binary: false, measure }
    }

    /// Says whether the body is binary (`BODY=BINARYMIME`), and thus not made of lines.
    #[must_use]
    pub fn binary(self, is_binary: bool) -> Self {
        Self { is_binary, ..self }
    }

    /// Reads the content as a text, even if the body is binary.
    pub fn into_text(self) -> TextReader<Self> {
        let is_binary = self.is_binary;
        TextReader::new(self, is_binary)
    }

    /// Sets the measure of the content; `None` if it is not known.
    #[must_use]
    pub fn measured(self, measure: Option<Measure>) -> Self {
        Self { measure, ..self }
    }

    /// Puts `front`, which consists of complete lines, before the content. The caller must not have
    /// read anything before.
    #[must_use]
    pub fn preceded_by(self, front: &'a str) -> Self {
        let before = Meter::default().measure(front.as_bytes());
        Self { front: front.as_bytes(), measure: self.measure.map(|own| before.join(own)), ..self }
    }

    /// The content without the lines that were put before it.
    #[must_use]
    pub fn without_front(&self) -> Self {
        Self { front: b"", measure: None, ..self.clone() }
    }

    /// The number of bytes that are not yet read.
    pub fn left(&self) -> u64 {
        self.front.len() as u64 + self.size.saturating_sub(self.offset)
    }

    /// Returns the measure of the content. The head of most queued entries contains the measure.
    /// For any other entry the content is read and measured.
    ///
    /// # Errors
    /// Those of read(2).
    pub fn measure(&self) -> io::Result<Measure> {
        match self.measure {
            Some(measure) => Ok(measure),
            None => self.read_measure(),
        }
    }

    fn read_measure(&self) -> io::Result<Measure> {
        let (mut meter, mut rest) = (Meter::new(self.is_binary), self.clone());
        let mut block = vec![0; usize::try_from(self.left()).map_or(BLOCK, |left| left.clamp(1, BLOCK))];
        loop {
            match rest.read(&mut block) {
                Ok(0) => return Ok(meter.measure(b"")),
                Ok(count) => meter.take(&block[..count]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
}

impl Read for Content<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if !self.front.is_empty() {
            return self.front.read(into);
        }
        let count = self.file.map_or(Ok(0), |file| file.read_at(into, self.offset))?;
        if count == 0 && !into.is_empty() && self.left() > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.offset += count as u64;
        Ok(count)
    }
}

/// The properties of the content that decide how it is sent: the size on the wire, whether the
/// content is 7-bit, and whether its lines are short enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measure {
    /// The size in octets. Every line ends in CR LF, and dots added by dot-stuffing are not counted
    /// (RFC 1870 5). A binary body counts as it is.
    pub size: u64,
    /// Whether all octets are ASCII.
    pub is_ascii: bool,
    /// Whether a line is longer than SMTP allows ([`MAX_TEXT_LINE`]).
    pub has_long_lines: bool,
}

impl Measure {
    /// The measure of a text that consists of complete lines with this measure, and of `rest`.
    #[must_use]
    pub fn join(self, rest: Self) -> Self {
        Self {
            size: self.size + rest.size,
            is_ascii: self.is_ascii && rest.is_ascii,
            has_long_lines: self.has_long_lines || rest.has_long_lines,
        }
    }
}

/// Measures a message that arrives in pieces, with lines ending in LF. The body of a binary message
/// need not consist of lines.
#[derive(Debug, Clone, Copy)]
pub struct Meter {
    /// Finds the end of the header of a binary message; `None` for a text.
    header: Option<HeaderEnd>,
    octets: u64,
    is_ascii: bool,
    has_long_lines: bool,
    /// The length of the last line, which may be incomplete. Once there is a long line, this is not
    /// kept up to date.
    column: usize,
    ends_in_newline: bool,
}

impl Default for Meter {
    fn default() -> Self {
        Self { header: None, octets: 0, is_ascii: true, has_long_lines: false, column: 0, ends_in_newline: true }
    }
}

impl Meter {
    /// A meter for a message that may be binary.
    pub fn new(is_binary: bool) -> Self {
        Self { header: is_binary.then(HeaderEnd::default), ..Self::default() }
    }

    /// A meter for the same kind of message, which has taken nothing.
    pub fn restarted(&self) -> Self {
        Self::new(self.header.is_some())
    }

    /// Takes the next piece.
    pub fn take(&mut self, text: &[u8]) {
        let Some(last) = text.last() else { return };
        let lines = self.header.as_mut().map_or(text, |header| header.split(text).0);
        self.octets += (text.len() + memchr_iter(b'\n', lines).count()) as u64;
        self.is_ascii &= text.is_ascii();
        self.ends_in_newline = *last == b'\n';
        self.look_for_long_line(lines);
    }

    /// Looks for a line end in each stretch of text that has one if its line is not too long. Most
    /// of the text is skipped.
    fn look_for_long_line(&mut self, mut text: &[u8]) {
        while !self.has_long_lines && !text.is_empty() {
            let room = MAX_TEXT_LINE + 1 - self.column;
            let window = text.get(..room).unwrap_or(text);
            match memrchr(b'\n', window) {
                Some(at) => {
                    text = &text[at + 1..];
                    self.column = 0;
                }
                None if window.len() == room => self.has_long_lines = true,
                None => {
                    self.column += window.len();
                    return;
                }
            }
        }
    }

    /// The measure without the size.
    fn flags(&self) -> Measure {
        Measure { size: 0, is_ascii: self.is_ascii, has_long_lines: self.has_long_lines }
    }

    /// Returns the measure of a text that consists of `front` and all pieces taken so far. The last
    /// line of `front` must be complete.
    pub fn measure(&self, front: &[u8]) -> Measure {
        let mut before = Self::default();
        before.take(front);
        // On the wire an incomplete last line gets a line end, except in a binary message.
        let end = if self.ends_in_newline || self.header.is_some() { 0 } else { 2 };
        Measure { size: before.octets + self.octets + end, ..before.flags().join(self.flags()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_measured_as_it_is_sent() {
        let long = "x".repeat(MAX_TEXT_LINE);
        let (longer, longest) = (format!("a\n{long}y\n"), format!("{long}\n{long}y"));
        for (front, text, size, is_ascii) in [
            ("", longer.as_str(), 1004, true),
            ("", longest.as_str(), 2001, true),
            ("A: b\n", &longest[..2 * MAX_TEXT_LINE + 1], 2006, true),
            ("", "", 0, true),
            ("", "a\n\n.b\n", 9, true),
            ("A: b\n", "c", 9, true),
            ("A: b\n", "\u{f6}\n", 10, false),
            ("\u{f6}\n", "c\n", 7, false),
        ] {
            for cut in 0..text.len() {
                let mut meter = Meter::default();
                meter.take(&text.as_bytes()[..cut]);
                meter.take(&text.as_bytes()[cut..]);
                let has_long_lines = text.contains('y');
                let want = Measure { size, is_ascii, has_long_lines };
                assert_eq!(meter.measure(front.as_bytes()), want, "{text:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn a_binary_body_is_measured_as_it_is() {
        for (text, size) in [("", 0), ("a: b\n", 6), ("a: b\n\n", 8), ("a: b\n\n\n\r\n\nc", 13)] {
            for cut in 0..text.len() {
                let mut meter = Meter::new(true);
                meter.take(&text.as_bytes()[..cut]);
                meter.take(&text.as_bytes()[cut..]);
                assert_eq!(meter.measure(b"X: y\n").size, size + 6, "{text:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn lines_can_be_put_before_the_content() {
        let path = std::env::temp_dir().join(format!("penfold-content-{}", std::process::id()));
        std::fs::write(&path, "head\nA: b\n\n.c").expect("a scratch file");
        let file = File::open(&path).expect("the file");
        let content = Content::new(&file, 5, 13).preceded_by("X: \u{f6}\n");
        let read = |mut content: Content<'_>| {
            let mut text = String::new();
            content.read_to_string(&mut text).expect("text");
            text
        };
        assert_eq!(content.left(), 6 + 8);
        assert_eq!(read(content.clone()), "X: \u{f6}\nA: b\n\n.c");
        let measured = content.measure().expect("a measure");
        assert_eq!(measured, Measure { size: 7 + 12, is_ascii: false, has_long_lines: false });
        let known = Content::new(&file, 5, 13)
            .measured(Some(Measure { size: 12, is_ascii: true, has_long_lines: false }))
            .preceded_by("X: \u{f6}\n");
        assert_eq!((known.measure().expect("known"), read(known.clone())), (measured, read(content)));
        std::fs::remove_file(path).expect("it is there");
    }
}

//! Reads the lines of a message in pieces of bounded size.
//!
//! In a text a line ends in LF. In the body of a binary message a line ends in CR LF, and a CR or LF
//! alone is an octet like any other.

use std::io::{self, BufRead, BufReader, Read};

use memchr::memchr;

/// The maximum length of a piece, in octets. It is longer than any boundary line that is recognized.
pub const MAX_PIECE: usize = 1024;

/// A line, or a piece of a longer one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// The octets without the line end.
    pub octets: &'a [u8],
    /// Whether this is the first piece of the line.
    pub is_start: bool,
    /// Whether a line end follows.
    pub is_end: bool,
    /// Whether this is the last piece of the line: the line end or the end of the text follows.
    pub is_last: bool,
}

/// Reads lines.
pub struct LineReader<R> {
    input: BufReader<R>,
    piece: Vec<u8>,
    is_binary: bool,
    /// Whether lines end in CR LF: the header of a binary message is over.
    is_raw: bool,
    is_start: bool,
    /// Whether the last piece was cut before a CR, which belongs to the next piece.
    has_cr: bool,
}

impl<R: Read> LineReader<R> {
    /// A reader of a message from its first line.
    pub fn new(from: R, is_binary: bool) -> Self {
        let input = BufReader::with_capacity(64 << 10, from);
        Self { input, piece: Vec::with_capacity(MAX_PIECE), is_binary, is_raw: false, is_start: true, has_cr: false }
    }

    /// Reads the next piece; `None` at the end of the text.
    ///
    /// # Errors
    /// Those of the text.
    pub fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        self.piece.clear();
        if std::mem::take(&mut self.has_cr) {
            self.piece.push(b'\r');
        }
        let is_start = self.is_start;
        let (is_end, is_last) = self.fill()?;
        if !is_end && self.piece.is_empty() {
            return Ok(None);
        }
        self.is_start = is_end;
        if is_start && is_end && self.piece.is_empty() {
            self.is_raw = self.is_binary;
        }
        Ok(Some(Line { octets: &self.piece, is_start, is_end, is_last }))
    }

    /// Fills the piece. Returns whether a line end follows it, and whether it ends the line.
    fn fill(&mut self) -> io::Result<(bool, bool)> {
        loop {
            let text = match self.input.fill_buf() {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                text => text?,
            };
            if text.is_empty() {
                return Ok((false, true));
            }
            let window = &text[..text.len().min(MAX_PIECE - self.piece.len())];
            let Some(at) = memchr(b'\n', window) else {
                let count = window.len();
                self.piece.extend_from_slice(window);
                self.input.consume(count);
                if self.piece.len() < MAX_PIECE {
                    continue;
                }
                if self.is_raw && self.piece.last() == Some(&b'\r') {
                    self.piece.pop();
                    self.has_cr = true;
                }
                // Whether the text ends here decides whether the line does.
                return Ok((false, !self.has_cr && self.input.fill_buf()?.is_empty()));
            };
            self.piece.extend_from_slice(&window[..at]);
            self.input.consume(at + 1);
            if !self.is_raw {
                return Ok((true, true));
            }
            if self.piece.last() == Some(&b'\r') {
                self.piece.pop();
                return Ok((true, true));
            }
            self.piece.push(b'\n');
            if self.piece.len() == MAX_PIECE {
                return Ok((false, self.input.fill_buf()?.is_empty()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8], is_binary: bool) -> Vec<(Vec<u8>, bool, bool, bool)> {
        let mut reader = LineReader::new(text, is_binary);
        let mut lines = Vec::new();
        while let Some(line) = reader.next().expect("text") {
            assert!(line.octets.len() <= MAX_PIECE);
            lines.push((line.octets.to_vec(), line.is_start, line.is_end, line.is_last));
        }
        lines
    }

    #[test]
    fn the_lines_of_a_binary_body_end_in_cr_lf_only() {
        let line = |text: &str, is_end| (text.as_bytes().to_vec(), true, is_end, true);
        assert_eq!(read(b"a\r\nb\n\nc", false), [line("a\r", true), line("b", true), line("", true), line("c", false)]);
        assert_eq!(
            read(b"A: b\n\nc\nd\re\r\r\n\r\n\r", true),
            [line("A: b", true), line("", true), line("c\nd\re\r", true), line("", true), line("\r", false)]
        );
        assert_eq!(read(b"", false), []);
    }

    #[test]
    fn a_long_line_comes_in_pieces_and_a_line_end_is_never_cut() {
        for is_binary in [false, true] {
            let end = if is_binary { "\r\n" } else { "\n" };
            for length in (MAX_PIECE - 3..MAX_PIECE + 3).chain(2 * MAX_PIECE - 3..2 * MAX_PIECE + 3) {
                for fill in ["x", "\n", "\r"].into_iter().take(if is_binary { 3 } else { 1 }) {
                    for (end, last) in [(end, true), ("", false)] {
                        let content = fill.repeat(length - 1) + "y";
                        let lines = read(format!("A: b\n\n{content}{end}").as_bytes(), is_binary);
                        let joined: Vec<u8> = lines[2..].iter().flat_map(|line| line.0.clone()).collect();
                        assert_eq!(String::from_utf8(joined).expect("text"), content);
                        let count = lines.len();
                        for (at, line) in lines.iter().enumerate().skip(2) {
                            let is_last = at + 1 == count;
                            assert_eq!((line.1, line.2), (at == 2, is_last && last), "{length} {fill:?} {end:?}");
                            assert_eq!(line.3, is_last, "{length} {fill:?} {end:?}");
                        }
                    }
                }
            }
        }
    }
}

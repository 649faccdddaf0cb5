//! Reads lines of limited length from a byte stream.
//!
//! A line ends with CR LF. A bare LF ends a line, too, so that no later input becomes part of the
//! line. But a line is [`Line::Complete`] only if it has no bare CR or LF, and is within the limit.
//! The size of the buffer is bounded by the limit. A message is read from the same buffer, so no
//! byte after a line is lost. Verbs and deadlines are left to the caller.

use std::io::{self, Read};

use memchr::memchr;

/// The buffered input from a peer.
#[derive(Debug)]
pub struct Input<R> {
    /// The stream itself.
    pub source: R,
    buffer: Vec<u8>,
    start: usize,
    /// Whether the last read filled the buffer, so that more octets wait.
    is_full: bool,
    /// Whether the rest of an over-long line is being discarded.
    skipping: bool,
    /// The first octets of the last line that was too long or had a bare CR or LF, after blanks.
    line_start: [u8; 4],
}

/// The result of reading a line.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// A valid line, without its CR LF.
    Complete(&'a [u8]),
    /// A line that contains a bare CR or LF. The whole line is discarded.
    BareNewline,
    /// A line beyond the limit. It is discarded to its end before the next one is read.
    TooLong,
    /// The peer closed the connection. Input after the last line end is dropped.
    End,
}

/// The number of octets read at a time.
const CHUNK: usize = 4096;
/// The number of octets read at a time while the peer sends few. An idle session has a buffer of this
/// size.
const LINE_CHUNK: usize = 512;

impl<R: Read> Input<R> {
    /// An input before the first read.
    pub fn new(source: R) -> Self {
        Self { source, buffer: Vec::new(), start: 0, is_full: false, skipping: false, line_start: [0; 4] }
    }

    /// Reads the next line. A line has at most `limit` octets, including its line end.
    ///
    /// # Errors
    /// Those of the source; input read so far is kept for the next call.
    pub fn line(&mut self, limit: usize) -> io::Result<Line<'_>> {
        let mut searched = 0;
        loop {
            let waiting = &self.buffer[self.start..];
            if let Some(at) = memchr(b'\n', &waiting[searched..]) {
                let length = searched + at + 1;
                let begin = self.start;
                self.start += length;
                if std::mem::take(&mut self.skipping) {
                    searched = 0;
                    continue;
                }
                if length > limit {
                    self.note_line_start(begin);
                    return Ok(Line::TooLong);
                }
                if !is_complete(&self.buffer[begin..begin + length]) {
                    self.note_line_start(begin);
                    return Ok(Line::BareNewline);
                }
                return Ok(Line::Complete(&self.buffer[begin..begin + length - 2]));
            }
            searched = waiting.len();
            if searched >= limit || self.skipping {
                let begin = self.start;
                if !self.skipping {
                    self.note_line_start(begin);
                }
                self.consume(searched);
                searched = 0;
                if !std::mem::replace(&mut self.skipping, true) {
                    return Ok(Line::TooLong);
                }
            }
            if self.fill(LINE_CHUNK)? == 0 {
                return Ok(Line::End);
            }
        }
    }

    /// Reads the next line from a remote host that may break the rules. The line ends with LF,
    /// alone or after CR. Returns at most the first `limit` octets, without the line end, and
    /// whether there was a line end, since the last line of a stream may have none. Returns `None`
    /// at the end of the stream.
    ///
    /// # Errors
    /// Those of the source, and `InvalidData` for a line of more than `max` octets.
    pub fn loose_line(&mut self, limit: usize, max: usize) -> io::Result<Option<(Vec<u8>, bool)>> {
        let (mut line, mut length) = (Vec::new(), 0);
        loop {
            let piece = self.chunk()?;
            let end = memchr(b'\n', piece);
            let used = end.map_or(piece.len(), |at| at + 1);
            line.extend_from_slice(&piece[..used.min(limit - line.len())]);
            if (end.is_some() || piece.is_empty()) && (length, used) != (0, 0) {
                self.consume(used);
                line.truncate(line.strip_suffix(b"\n").map_or(line.len(), <[u8]>::len));
                line.truncate(line.strip_suffix(b"\r").map_or(line.len(), <[u8]>::len));
                return Ok(Some((line, end.is_some())));
            }
            if piece.is_empty() {
                return Ok(None);
            }
            self.consume(used);
            length += used;
            if length > max {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a line without end"));
            }
        }
    }

    /// The first octets of the last line that was too long or had a bare CR or LF.
    pub fn line_start(&self) -> &[u8] {
        &self.line_start
    }

    fn note_line_start(&mut self, begin: usize) {
        let start = self.buffer.get(begin..).and_then(|line| line.trim_ascii_start().first_chunk());
        self.line_start = start.copied().unwrap_or_default();
    }

    /// Whether the buffer holds another line. If so, the reply to the current line may wait.
    pub fn has_line(&self) -> bool {
        memchr(b'\n', &self.buffer[self.start..]).is_some()
    }

    /// Whether all input that was read is used.
    pub fn is_empty(&self) -> bool {
        self.start == self.buffer.len()
    }

    /// Returns the unused input. If there is none, reads first. The result is empty at the end of
    /// the stream.
    ///
    /// # Errors
    /// Those of the source.
    pub fn chunk(&mut self) -> io::Result<&[u8]> {
        if self.start == self.buffer.len() {
            self.fill(CHUNK)?;
        }
        Ok(&self.buffer[self.start..])
    }

    /// Marks `count` octets of [`Input::chunk`] as used.
    pub fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.buffer.len());
    }

    /// Enlarges the buffer to read `size` octets at a time, for a message.
    pub fn widen(&mut self, size: usize) {
        self.buffer.reserve(size.saturating_sub(self.buffer.len()));
    }

    /// Releases the memory that [`Input::widen`] took: the unused input is copied, since
    /// shrinking in place would leave holes in the heap.
    pub fn narrow(&mut self) {
        self.buffer = self.buffer.get(self.start..).unwrap_or_default().to_vec();
        self.start = 0;
    }

    /// Reads once, up to `size` octets or more.
    fn fill(&mut self, size: usize) -> io::Result<usize> {
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
        } else if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        let filled = self.buffer.len();
        let room = (self.buffer.capacity() - filled).max(if self.is_full { CHUNK } else { size });
        self.buffer.resize(filled + room, 0);
        let result = loop {
            match self.source.read(&mut self.buffer[filled..]) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        let count = *result.as_ref().unwrap_or(&0);
        self.is_full = count == room;
        self.buffer.truncate(filled + count);
        result
    }
}

/// Whether a line up to its LF ends with CR LF and contains no other CR.
fn is_complete(line: &[u8]) -> bool {
    line.strip_suffix(b"\r\n").is_some_and(|text| !text.contains(&b'\r'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A source that returns its bytes in pieces of a fixed size.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(self.0.len()).min(into.len());
            into[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    fn lines(text: &[u8], piece: usize) -> Vec<String> {
        let mut input = Input::new(Pieces(text, piece));
        let mut seen = Vec::new();
        loop {
            match input.line(10).expect("no errors here") {
                Line::End => return seen,
                Line::Complete(line) => seen.push(String::from_utf8_lossy(line).into_owned()),
                other => seen.push(format!("{other:?}")),
            }
        }
    }

    #[test]
    fn lines_are_the_same_in_every_split() {
        let text =
            b"EHLO x\r\n\r\nbare\nre\rturn\r\n12345678\r\n123456789\r\nfar too long a line\r\nNOOP\r\n\n\rNOOP\r\nrest";
        let want = [
            "EHLO x",
            "",
            "BareNewline",
            "BareNewline",
            "12345678",
            "TooLong",
            "TooLong",
            "NOOP",
            "BareNewline",
            "BareNewline",
        ];
        for piece in 1..text.len() + 1 {
            assert_eq!(lines(text, piece), want, "in pieces of {piece}");
        }
    }

    #[test]
    fn loose_lines_end_with_lf_and_are_cut_at_the_limit() {
        let text = b"one\r\ntwo\n\r\nbare\rreturn\r\r\nfar too long a line\r\nrest";
        for piece in 1..text.len() + 1 {
            let mut input = Input::new(Pieces(text, piece));
            for want in ["one", "two", "", "bare\rreturn", "far too lon", "rest"] {
                let (line, ended) = input.loose_line(11, 20).expect("no errors here").expect("a line");
                assert_eq!(ended, want != "rest");
                assert_eq!(String::from_utf8_lossy(&line).trim_end_matches('\r'), want, "in pieces of {piece}");
            }
            assert_eq!(input.loose_line(11, 20).expect("no errors here"), None);
        }
        let mut input = Input::new(io::repeat(b'x').take(1 << 24));
        assert!(input.loose_line(512, 1 << 16).is_err());
        assert!(input.buffer.capacity() <= 2 * CHUNK);
    }

    #[test]
    fn an_endless_line_uses_bounded_memory() {
        let mut input = Input::new(io::repeat(b'x').take(1 << 24));
        assert_eq!(input.line(512).expect("no errors here"), Line::TooLong);
        assert_eq!(input.line(512).expect("no errors here"), Line::End);
        assert!(input.buffer.capacity() <= 2 * CHUNK);
    }

    #[test]
    fn short_lines_take_a_small_buffer_and_many_at_once_take_few_reads() {
        let text = b"NOOP\r\n".repeat(100);
        let mut input = Input::new(Pieces(&text, 6));
        while input.line(512).expect("no errors here") != Line::End {}
        assert!(input.buffer.capacity() <= LINE_CHUNK);
        let text = b"NOOP\r\n".repeat(4 * CHUNK);
        let (mut input, mut reads) = (Input::new(Pieces(&text, usize::MAX)), 0);
        loop {
            reads += usize::from(!input.has_line());
            if input.line(512).expect("no errors here") == Line::End {
                break;
            }
        }
        assert!(reads <= text.len() / CHUNK + 2, "{reads}");
        assert!(input.buffer.capacity() <= 2 * CHUNK);
    }

    #[test]
    fn input_after_a_line_is_kept_for_the_next_reader() {
        let mut input = Input::new(&b"DATA\r\nhello\r\n"[..]);
        assert_eq!(input.line(512).expect("no errors here"), Line::Complete(b"DATA"));
        assert!(input.has_line());
        assert_eq!(input.chunk().expect("no errors here"), b"hello\r\n");
        input.consume(7);
        assert!(!input.has_line());
        assert_eq!(input.chunk().expect("no errors here"), b"");
    }
}

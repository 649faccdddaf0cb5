//! Lines from a byte stream, with a limit.
//!
//! A line ends with CR LF. A bare LF ends one too, so that what follows is not
//! taken for a part of it, but the line is then not [`Line::Complete`]: neither
//! is one with a CR anywhere else, or one beyond the limit. The buffer never
//! grows beyond the limit, and is shared with whoever reads the message itself:
//! no byte after a line is lost. Knows no verbs and no deadlines.

use std::io::{self, Read};

use memchr::memchr;

/// Bytes of a peer, buffered.
#[derive(Debug)]
pub struct Input<R> {
    /// Where the bytes come from.
    pub source: R,
    buffer: Vec<u8>,
    start: usize,
    /// In the middle of a line that is being thrown away.
    skipping: bool,
    /// How the last line beyond the limit began.
    front: [u8; 4],
}

/// What a line turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// A line, without its CR LF.
    Complete(&'a [u8]),
    /// A line with a bare CR or LF; it is skipped.
    BareNewline,
    /// A line beyond the limit; it is skipped to its end, before the next one is read.
    TooLong,
    /// The peer closed the connection. What came after the last line end is dropped.
    End,
}

/// How much is asked for at a time.
const CHUNK: usize = 4096;

impl<R: Read> Input<R> {
    /// Nothing read yet.
    pub fn new(source: R) -> Self {
        Self { source, buffer: Vec::new(), start: 0, skipping: false, front: [0; 4] }
    }

    /// The next line, of at most `limit` octets with its end.
    ///
    /// # Errors
    /// Those of the source; what was read so far stays for the next call.
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
                    self.note_front(begin);
                    return Ok(Line::TooLong);
                }
                return Ok(judge(&self.buffer[begin..begin + length]));
            }
            searched = waiting.len();
            if searched >= limit || self.skipping {
                let begin = self.start;
                if !self.skipping {
                    self.note_front(begin);
                }
                self.consume(searched);
                searched = 0;
                if !std::mem::replace(&mut self.skipping, true) {
                    return Ok(Line::TooLong);
                }
            }
            if self.fill()? == 0 {
                return Ok(Line::End);
            }
        }
    }

    /// The next line of a peer that need not keep the rules: it ends with LF, and is given
    /// without that, or the CR before it, at most its first `limit` octets. With it, whether
    /// it had a line end: at the end of the stream it may have none. `None` is after that.
    ///
    /// # Errors
    /// Those of the source, and `InvalidData` for more than `most` octets without LF.
    pub fn loose_line(&mut self, limit: usize, most: usize) -> io::Result<Option<(Vec<u8>, bool)>> {
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
            if length > most {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a line without end"));
            }
        }
    }

    /// How the last line beyond the limit began.
    pub fn front(&self) -> &[u8] {
        &self.front
    }

    fn note_front(&mut self, begin: usize) {
        let front = self.buffer.get(begin..).and_then(|line| line.first_chunk());
        self.front = front.copied().unwrap_or_default();
    }

    /// Whether another line has come already, so that a reply may wait for its own.
    pub fn has_line(&self) -> bool {
        memchr(b'\n', &self.buffer[self.start..]).is_some()
    }

    /// Whether nothing has come that is not used yet.
    pub fn is_empty(&self) -> bool {
        self.start == self.buffer.len()
    }

    /// What has come and is not used yet; reads if that is nothing. Empty at the end.
    ///
    /// # Errors
    /// Those of the source.
    pub fn chunk(&mut self) -> io::Result<&[u8]> {
        if self.start == self.buffer.len() {
            self.fill()?;
        }
        Ok(&self.buffer[self.start..])
    }

    /// Marks `count` octets of [`Input::chunk`] as used.
    pub fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.buffer.len());
    }

    /// Makes room for reading `size` octets at a time from here on, as for a message.
    pub fn widen(&mut self, size: usize) {
        self.buffer.reserve(size.saturating_sub(self.buffer.len()));
    }

    /// Gives back what [`Input::widen`] took, once it is not needed: all of it, for what
    /// is left where a large piece was cut short is of use to nobody.
    pub fn narrow(&mut self) {
        self.buffer = self.buffer.get(self.start..).unwrap_or_default().to_vec();
        self.start = 0;
    }

    fn fill(&mut self) -> io::Result<usize> {
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
        } else if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        let had = self.buffer.len();
        let room = (self.buffer.capacity() - had).max(CHUNK);
        self.buffer.resize(had + room, 0);
        let result = loop {
            match self.source.read(&mut self.buffer[had..]) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.buffer.truncate(had + *result.as_ref().unwrap_or(&0));
        result
    }
}

fn judge(line: &[u8]) -> Line<'_> {
    match line.strip_suffix(b"\r\n") {
        Some(text) if !text.contains(&b'\r') => Line::Complete(text),
        _ => Line::BareNewline,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives its bytes in pieces of a fixed size.
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
    fn the_same_lines_in_every_split() {
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
    fn loose_lines_end_with_lf_and_have_a_front() {
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
    fn an_endless_line_takes_no_memory() {
        let mut input = Input::new(io::repeat(b'x').take(1 << 24));
        assert_eq!(input.line(512).expect("no errors here"), Line::TooLong);
        assert_eq!(input.line(512).expect("no errors here"), Line::End);
        assert!(input.buffer.capacity() <= 2 * CHUNK);
    }

    #[test]
    fn what_follows_a_line_is_there_for_the_next_reader() {
        let mut input = Input::new(&b"DATA\r\nhello\r\n"[..]);
        assert_eq!(input.line(512).expect("no errors here"), Line::Complete(b"DATA"));
        assert!(input.has_line());
        assert_eq!(input.chunk().expect("no errors here"), b"hello\r\n");
        input.consume(7);
        assert!(!input.has_line());
        assert_eq!(input.chunk().expect("no errors here"), b"");
    }
}

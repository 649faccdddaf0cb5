//! Reads messages that arrive in chunks, by BDAT, and writes binary ones (RFC 3030).
//!
//! A chunk is a number of octets that the command line gives. Nothing within the octets ends a
//! chunk, dots are not stuffed, and the boundaries between chunks mean nothing: a CR LF may lie
//! across one. The text of a message is checked as after DATA: CR LF becomes LF, and a bare CR or
//! LF makes the message invalid ([`ChunkReader::is_flawed`]). This also holds for the header of a
//! message with `BODY=BINARYMIME`. The body of such a message is kept octet for octet.

use std::io::{self, Read};

use memchr::{memchr, memchr_iter, memchr2};

/// The argument of one BDAT command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// The number of octets that follow the command line.
    pub size: u64,
    /// Whether the chunk is the last one of its message.
    pub is_last: bool,
}

impl Chunk {
    /// Parses the argument of BDAT. Returns `None` if it is malformed, or if the size does not fit
    /// into 64 bits.
    pub fn parse(argument: &[u8]) -> Option<Self> {
        let mut words = argument.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let digits = words.next().filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
        let size = std::str::from_utf8(digits).ok()?.parse().ok()?;
        let is_last = match words.next() {
            None => false,
            Some(word) if word.eq_ignore_ascii_case(b"LAST") => true,
            Some(_) => return None,
        };
        words.next().is_none().then_some(Self { size, is_last })
    }
}

/// Reads the chunks of one message.
#[derive(Debug)]
pub struct ChunkReader {
    section: Section,
    /// Whether the last octet was a CR that may begin a line end.
    has_cr: bool,
    /// Whether the next octet begins a line.
    is_line_start: bool,
    is_flawed: bool,
}

/// The part of a message that a reader has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Section {
    /// A message that consists of lines.
    Text,
    /// The header of a binary message.
    Header,
    /// The body of a binary message.
    Body,
}

impl ChunkReader {
    /// A reader for a message. The body of a message that `is_binary` need not consist of lines.
    pub fn new(is_binary: bool) -> Self {
        let section = if is_binary { Section::Header } else { Section::Text };
        Self { section, has_cr: false, is_line_start: true, is_flawed: false }
    }

    /// Reads the next octets of a chunk, and appends the text to `out`, with LF as line end.
    /// Returns the octets that belong to a binary body.
    pub fn feed<'i>(&mut self, input: &'i [u8], out: &mut Vec<u8>) -> &'i [u8] {
        let mut rest = input;
        while self.section != Section::Body && !rest.is_empty() {
            rest = self.piece(rest, out);
        }
        rest
    }

    /// Reads up to the next CR or LF. Returns the rest of the input.
    fn piece<'i>(&mut self, input: &'i [u8], out: &mut Vec<u8>) -> &'i [u8] {
        if std::mem::take(&mut self.has_cr) {
            if let Some(rest) = input.strip_prefix(b"\n") {
                self.line_end(out);
                return rest;
            }
            out.push(b'\r');
            (self.is_line_start, self.is_flawed) = (false, true);
        }
        let end = memchr2(b'\r', b'\n', input).unwrap_or(input.len());
        let (text, rest) = input.split_at(end);
        out.extend_from_slice(text);
        self.is_line_start &= text.is_empty();
        match rest {
            [b'\r', b'\n', rest @ ..] => {
                self.line_end(out);
                rest
            }
            [b'\r', rest @ ..] => {
                self.has_cr = true;
                rest
            }
            [_, rest @ ..] => {
                out.push(b'\n');
                self.is_flawed = true;
                rest
            }
            [] => rest,
        }
    }

    fn line_end(&mut self, out: &mut Vec<u8>) {
        out.push(b'\n');
        if self.is_line_start && self.section == Section::Header {
            self.section = Section::Body;
        }
        self.is_line_start = true;
    }

    /// Ends the message after its last chunk. If the last line of a text has no line end, one is
    /// appended to `out`.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.is_flawed |= self.has_cr;
        if self.section != Section::Body && !self.is_line_start {
            out.push(b'\n');
        }
    }

    /// Whether the text, or the header of a binary message, contains a bare CR or LF. They stay in
    /// the output, except for a CR at the end.
    pub fn is_flawed(&self) -> bool {
        self.is_flawed
    }
}

/// Finds the end of the header of a binary message as it is stored: the lines of its header end in
/// LF, and the body follows after the first empty line.
#[derive(Debug, Clone, Copy)]
pub struct HeaderEnd {
    is_line_start: bool,
    is_found: bool,
}

impl Default for HeaderEnd {
    fn default() -> Self {
        Self { is_line_start: true, is_found: false }
    }
}

impl HeaderEnd {
    /// Splits the next piece of the message into the part that belongs to the header, with its
    /// empty line, and the part that belongs to the body.
    pub fn split<'t>(&mut self, piece: &'t [u8]) -> (&'t [u8], &'t [u8]) {
        let mut length = 0;
        while !self.is_found
            && let Some(rest) = piece.get(length..).filter(|rest| !rest.is_empty())
        {
            let end = memchr(b'\n', rest);
            self.is_found = self.is_line_start && end == Some(0);
            self.is_line_start = end.is_some();
            length += end.map_or(rest.len(), |end| end + 1);
        }
        piece.split_at(length)
    }
}

/// Writes a binary message as it is sent by BDAT.
#[derive(Debug, Default)]
pub struct BinaryWriter {
    header: HeaderEnd,
}

impl BinaryWriter {
    /// Takes a piece of the message as it is stored, and appends its form on the wire to `out`.
    pub fn feed(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let (header, body) = self.header.split(piece);
        let mut start = 0;
        for end in memchr_iter(b'\n', header) {
            out.extend_from_slice(&header[start..end]);
            out.extend_from_slice(b"\r\n");
            start = end + 1;
        }
        out.extend_from_slice(&header[start..]);
        out.extend_from_slice(body);
    }
}

/// Reads a message as a text whose lines end in LF, for readers that need lines. If the message is
/// binary, its lines that end in CR LF become such lines, and a bare CR or LF stays as it is.
#[derive(Debug)]
pub struct TextReader<R> {
    from: R,
    /// Finds the end of the header of a binary message; `None` for a text.
    header: Option<HeaderEnd>,
    body: ChunkReader,
    text: Vec<u8>,
    /// The number of octets of `text` that were read.
    used: usize,
}

/// The number of octets that a [`TextReader`] reads at a time.
const BLOCK: usize = 8192;

impl<R: Read> TextReader<R> {
    /// A reader of a message as it is stored.
    pub fn new(from: R, is_binary: bool) -> Self {
        let header = is_binary.then(HeaderEnd::default);
        Self { from, header, body: ChunkReader::new(false), text: Vec::new(), used: 0 }
    }
}

impl<R: Read> Read for TextReader<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Some(end) = &mut self.header else { return self.from.read(into) };
        while self.used == self.text.len() {
            let mut block = [0; BLOCK];
            let count = self.from.read(&mut block)?;
            if count == 0 {
                return Ok(0);
            }
            let (header, body) = end.split(&block[..count]);
            self.text.clear();
            self.text.extend_from_slice(header);
            self.body.feed(body, &mut self.text);
            self.used = 0;
        }
        let count = (&self.text[self.used..]).read(into)?;
        self.used += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_argument_of_bdat() {
        let chunk = |size, is_last| Some(Chunk { size, is_last });
        for (argument, want) in [
            ("0", chunk(0, false)),
            ("0 LAST", chunk(0, true)),
            ("1000 last", chunk(1000, true)),
            ("  007\tLast ", chunk(7, true)),
            ("18446744073709551615", chunk(u64::MAX, false)),
            ("18446744073709551616", None),
            ("", None),
            ("LAST", None),
            ("LAST 5", None),
            ("-1", None),
            ("+1", None),
            ("1k", None),
            ("0x10", None),
            ("1,000", None),
            ("5LAST", None),
            ("5 FIRST", None),
            ("5 LAST LAST", None),
            ("5 LAST 5", None),
            ("\u{663}", None),
        ] {
            assert_eq!(Chunk::parse(argument.as_bytes()), want, "{argument:?}");
        }
    }

    /// Reads a message in pieces that end at `cuts`. Returns the text, the binary body, and whether
    /// the message is flawed.
    fn read(wire: &[u8], is_binary: bool, cuts: &[usize]) -> (Vec<u8>, Vec<u8>, bool) {
        let (mut reader, mut text, mut body, mut start) = (ChunkReader::new(is_binary), Vec::new(), Vec::new(), 0);
        for &cut in cuts.iter().chain([&wire.len()]) {
            body.extend_from_slice(reader.feed(&wire[start..cut], &mut text));
            start = cut;
        }
        reader.finish(&mut text);
        (text, body, reader.is_flawed())
    }

    /// tests/fuzz/chunks.rs tries random texts and chunks.
    #[test]
    fn lines_and_binary_bodies_in_every_split() {
        for (wire, is_binary, want) in [
            ("", false, Some(("", ""))),
            ("\r\n", false, Some(("\n", ""))),
            ("a", false, Some(("a\n", ""))),
            ("a\r\n.\r\n..b\r\n", false, Some(("a\n.\n..b\n", ""))),
            ("a: b\r\n\r\nc\r\n\r\nd", false, Some(("a: b\n\nc\n\nd\n", ""))),
            ("a\rb", false, None),
            ("a\nb", false, None),
            ("a\r", false, None),
            ("a\r\r\n", false, None),
            ("a\r\n\n", false, None),
            ("", true, Some(("", ""))),
            ("a: b", true, Some(("a: b\n", ""))),
            ("a: b\r\n\r\n", true, Some(("a: b\n\n", ""))),
            ("a: b\r\n c\r\n\r\n\r\n\rd\n\0.\r\n.\r\n", true, Some(("a: b\n c\n\n", "\r\n\rd\n\0.\r\n.\r\n"))),
            ("\r\n\n", true, Some(("\n", "\n"))),
            ("a: b\r\n\rc\r\n\r\n", true, None),
            ("a: b\n\r\n\r\n", true, None),
            ("a: b\r\n\r", true, None),
        ] {
            for cut in 0..=wire.len() {
                let (text, body, is_flawed) = read(wire.as_bytes(), is_binary, &[cut]);
                let got = (!is_flawed).then_some((text, body));
                let want = want.map(|(text, body)| (text.as_bytes().to_vec(), body.as_bytes().to_vec()));
                assert_eq!(got, want, "{wire:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn a_binary_message_is_stored_and_sent_unchanged() {
        for (wire, stored, as_text) in [
            ("", "", ""),
            ("a: b\r\n", "a: b\n", "a: b\n"),
            ("\r\n\r\n", "\n\r\n", "\n\n"),
            ("a: b\r\n\r\n\n\r\r\n\0\r\n", "a: b\n\n\n\r\r\n\0\r\n", "a: b\n\n\n\r\n\0\n"),
            ("a: b\r\n\r\nc", "a: b\n\nc", "a: b\n\nc"),
        ] {
            let (mut text, body, is_flawed) = read(wire.as_bytes(), true, &[]);
            text.extend_from_slice(&body);
            assert_eq!((String::from_utf8_lossy(&text).as_ref(), is_flawed), (stored, false));
            for cut in 0..=stored.len() {
                let (first, second) = stored.as_bytes().split_at(cut);
                let (mut writer, mut out) = (BinaryWriter::default(), Vec::new());
                writer.feed(first, &mut out);
                writer.feed(second, &mut out);
                assert_eq!(out, wire.as_bytes(), "{wire:?} cut at {cut}");
                let mut lines = Vec::new();
                TextReader::new(first.chain(second), true).read_to_end(&mut lines).expect("memory");
                assert_eq!(lines, as_text.as_bytes(), "{wire:?} cut at {cut}");
            }
        }
    }
}

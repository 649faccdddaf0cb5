//! Reads and writes the content of a message on the wire: dot-stuffing, and the end of the message
//! (RFC 5321 4.5.2).
//!
//! The reader turns CR LF into LF and removes stuffed dots. Only CR LF . CR LF ends a message. A
//! bare CR or LF makes the message invalid ([`DotReader::is_flawed`]), but it is still read to its
//! real end, so that no part of it is taken for a command (SMTP smuggling, CVE-2023-51764 and
//! similar). The writer does the reverse. Neither the reader nor the writer limits the size.

use memchr::{memchr_iter, memchr2};

/// Reads the content of one message.
#[derive(Debug)]
pub struct DotReader {
    state: State,
    flawed: bool,
}

/// The last octets that were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// CR LF, or nothing yet.
    LineStart,
    /// CR LF .
    Dot,
    /// CR LF . CR
    DotCr,
    /// An octet of text.
    Text,
    /// A CR that may begin a line end.
    Cr,
}

impl Default for DotReader {
    /// A reader for the octets that follow the reply 354. The first octet begins a line.
    fn default() -> Self {
        Self { state: State::LineStart, flawed: false }
    }
}

impl DotReader {
    /// Reads octets from the wire and appends the text to `out`, with LF as line end. Returns the
    /// number of octets used, and whether the message has ended; only in that case may octets be
    /// left over.
    pub fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) -> (usize, bool) {
        let mut used = 0;
        while let Some(&byte) = input.get(used) {
            if self.state == State::Text {
                used += self.text(&input[used..], out);
                continue;
            }
            used += 1;
            self.state = match (self.state, byte) {
                (State::DotCr, b'\n') => return (used, true),
                (State::Cr, b'\n') => {
                    out.push(b'\n');
                    State::LineStart
                }
                (State::LineStart, b'.') => State::Dot,
                (State::Dot, b'\r') => State::DotCr,
                (State::Cr | State::DotCr, b'\r') => {
                    self.flawed = true;
                    State::Cr
                }
                (State::LineStart, b'\r') => State::Cr,
                (state, byte) => {
                    self.flawed |= matches!(state, State::Cr | State::DotCr) || byte == b'\n';
                    out.push(byte);
                    State::Text
                }
            };
        }
        (used, false)
    }

    /// Whether the text contains a bare CR or LF. The output of `feed` is then invalid.
    pub fn is_flawed(&self) -> bool {
        self.flawed
    }

    /// Copies text up to the next CR or LF; returns the number of octets used.
    fn text(&mut self, input: &[u8], out: &mut Vec<u8>) -> usize {
        let end = memchr2(b'\r', b'\n', input).unwrap_or(input.len());
        out.extend_from_slice(&input[..end]);
        match input.get(end) {
            Some(b'\r') => self.state = State::Cr,
            Some(_) => self.flawed = true,
            None => return end,
        }
        end + 1
    }
}

/// Writes the content of one message.
#[derive(Debug)]
pub struct DotWriter {
    line_start: bool,
}

impl Default for DotWriter {
    fn default() -> Self {
        Self { line_start: true }
    }
}

impl DotWriter {
    /// Takes text whose line ends are LF, and appends its form on the wire to `out`.
    pub fn feed(&mut self, text: &[u8], out: &mut Vec<u8>) {
        let mut start = 0;
        for end in memchr_iter(b'\n', text) {
            self.line(&text[start..end], out);
            out.extend_from_slice(b"\r\n");
            self.line_start = true;
            start = end + 1;
        }
        if start < text.len() {
            self.line(&text[start..], out);
            self.line_start = false;
        }
    }

    /// Writes a line, or a part of one, without its line end.
    fn line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        if self.line_start && line.starts_with(b".") {
            out.push(b'.');
        }
        out.extend_from_slice(line);
    }

    /// Appends the end of the message, and before it a line end if the text does not end with one.
    pub fn finish(self, out: &mut Vec<u8>) {
        out.extend_from_slice(if self.line_start { b".\r\n" } else { b"\r\n.\r\n" });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the text, whether it is flawed, and the number of octets left over. Checks that
    /// these are the same for every way to split the input.
    fn read(wire: &[u8]) -> Option<(Vec<u8>, bool, usize)> {
        let at_once = read_split(wire, wire.len());
        for split in 0..wire.len() {
            assert_eq!(read_split(wire, split), at_once, "{wire:?} split at {split}");
        }
        at_once
    }

    fn read_split(wire: &[u8], split: usize) -> Option<(Vec<u8>, bool, usize)> {
        let (mut reader, mut out) = (DotReader::default(), Vec::new());
        let (used, ended) = reader.feed(&wire[..split], &mut out);
        let (more, ended) = if ended { (0, true) } else { reader.feed(&wire[split..], &mut out) };
        ended.then(|| (out, reader.is_flawed(), wire.len() - used - more))
    }

    #[test]
    fn dots_and_line_ends_are_removed_and_restored() {
        for (wire, text) in [
            (&b".\r\n"[..], &b""[..]),
            (b"\r\n.\r\n", b"\n"),
            (b"hello\r\n.\r\n", b"hello\n"),
            (b"..\r\n...x\r\n.\r\n", b".\n..x\n"),
            (b"a.b\r\n\r\n\xff\0\r\n.\r\n", b"a.b\n\n\xff\0\n"),
        ] {
            assert_eq!(read(wire), Some((text.to_vec(), false, 0)));
            let (mut writer, mut out) = (DotWriter::default(), Vec::new());
            for byte in text.chunks(1) {
                writer.feed(byte, &mut out);
            }
            writer.finish(&mut out);
            assert_eq!(out, wire);
        }
    }

    /// All lookalikes of the end of a message are tried with the daemon, in
    /// tests/session/smuggling.rs.
    #[test]
    fn only_the_real_end_ends_a_message() {
        for middle in ["\n.\n", "\r.\r", "\r\n.\r\r\n", "\r\n\0.\r\n"] {
            let wire = format!("a{middle}b\r\n.\r\nQUIT\r\n");
            let (_, flawed, left) = read(wire.as_bytes()).expect("the end");
            assert_eq!(left, "QUIT\r\n".len(), "{middle:?}");
            let without = middle.replace("\r\n", "");
            assert_eq!(flawed, without.contains(['\r', '\n']), "{middle:?}");
        }
    }

    #[test]
    fn a_missing_last_line_end_is_added() {
        let (mut writer, mut out) = (DotWriter::default(), Vec::new());
        writer.feed(b"end", &mut out);
        writer.finish(&mut out);
        assert_eq!(out, b"end\r\n.\r\n");
    }
}

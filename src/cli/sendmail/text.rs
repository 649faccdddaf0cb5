//! Collects the message on standard input before sendmail(8) sends anything.
//!
//! A program such as cron(8) may take hours to write a message, and a server does not wait that
//! long. So the message is collected first: in memory if it is small, otherwise in an unnamed file.
//! A line ends with LF or CR LF. Any other CR becomes a blank, because some readers would take it
//! for a line end. A NUL, which mail may not contain, becomes `?`. Octets above 127 and lines of
//! any length are kept. Unless an option says otherwise, a line with a single dot ends the message.
//! If reading or storing fails, nothing is sent.

use std::fs::File;
use std::io::{self, BufRead, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use memchr::memchr2;

use crate::sys;

/// The maximum size of a message that is kept in memory, in bytes.
const MAX_IN_MEMORY: usize = 1 << 20;

/// A message that is being collected.
#[derive(Debug, Default)]
pub struct Text {
    kept: Vec<u8>,
    file: Option<File>,
    size: u64,
    /// Whether the last byte was a CR. The next byte decides whether the CR belongs to a line end.
    has_cr: bool,
    /// What the current line contains so far: nothing, a single dot, or more.
    line: Line,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Line {
    #[default]
    Empty,
    Dot,
    More,
}

impl Text {
    /// Reads the message to the end of the input. Unless `ignore_dots` is set, a line with a single
    /// dot ends the message earlier.
    ///
    /// # Errors
    /// The errors of the input and of the unnamed file.
    pub fn read(input: &mut dyn BufRead, ignore_dots: bool) -> io::Result<Self> {
        let mut text = Self::default();
        loop {
            let chunk = match input.fill_buf() {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                chunk => chunk?,
            };
            if chunk.is_empty() {
                text.end(ignore_dots)?;
                return Ok(text);
            }
            let used = chunk.len();
            if text.feed(chunk, ignore_dots)? {
                return Ok(text);
            }
            input.consume(used);
        }
    }

    /// Adds a piece of the input. Returns whether the message ends within the piece, by a line with
    /// a single dot.
    fn feed(&mut self, mut chunk: &[u8], ignore_dots: bool) -> io::Result<bool> {
        while let Some(&first) = chunk.first() {
            if first == b'\r' {
                self.has_cr = true;
                chunk = chunk.get(1..).unwrap_or_default();
            } else if first == b'\n' {
                if self.line == Line::Dot && !ignore_dots {
                    return Ok(true);
                }
                self.dot()?;
                self.put(b"\n")?;
                (self.has_cr, self.line) = (false, Line::Empty);
                chunk = chunk.get(1..).unwrap_or_default();
            } else {
                if std::mem::take(&mut self.has_cr) {
                    self.dot()?;
                    self.put(b" ")?;
                    self.line = Line::More;
                }
                chunk = self.within_line(chunk)?;
            }
        }
        Ok(false)
    }

    /// Adds the bytes up to the next CR or LF, and returns the rest.
    fn within_line<'c>(&mut self, chunk: &'c [u8]) -> io::Result<&'c [u8]> {
        let end = memchr2(b'\r', b'\n', chunk).unwrap_or(chunk.len());
        let (text, rest) = chunk.split_at(end);
        if self.line == Line::Empty && text == b"." {
            self.line = Line::Dot;
        } else {
            self.dot()?;
            self.line = Line::More;
            self.put(text)?;
        }
        Ok(rest)
    }

    /// Adds the dot that was held back at the start of a line, if there is one: the dot is part of
    /// the text.
    fn dot(&mut self) -> io::Result<()> {
        if self.line == Line::Dot { self.put(b".") } else { Ok(()) }
    }

    /// Completes the message at the end of the input, even if the last line has no line end.
    fn end(&mut self, ignore_dots: bool) -> io::Result<()> {
        if self.line == Line::Dot && !ignore_dots {
            return Ok(());
        }
        self.dot()?;
        if self.line != Line::Empty { self.put(b"\n") } else { Ok(()) }
    }

    fn put(&mut self, text: &[u8]) -> io::Result<()> {
        self.size += text.len() as u64;
        let before = self.kept.len();
        self.kept.extend_from_slice(text);
        self.kept.iter_mut().skip(before).filter(|byte| **byte == 0).for_each(|byte| *byte = b'?');
        if self.kept.len() > MAX_IN_MEMORY {
            let file = match &mut self.file {
                Some(file) => file,
                none => none.insert(unnamed_file()?),
            };
            file.write_all(&self.kept)?;
            self.kept.clear();
        }
        Ok(())
    }

    /// The size of the message in octets. Each line end counts as one octet.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns a reader of the whole message.
    ///
    /// # Errors
    /// The errors of the unnamed file.
    pub fn into_reader(self) -> io::Result<impl Read> {
        let mut file = self.file;
        if let Some(file) = &mut file {
            file.seek(SeekFrom::Start(0))?;
        }
        let before: Box<dyn Read> = match file {
            Some(file) => Box::new(file),
            None => Box::new(io::empty()),
        };
        Ok(before.chain(io::Cursor::new(self.kept)))
    }
}

/// Makes a file without a name. Other users cannot open it, and it vanishes when the program ends.
fn unnamed_file() -> io::Result<File> {
    let directories = [std::env::temp_dir(), PathBuf::from("/var/tmp"), PathBuf::from("/dev/shm")];
    let mut opened = directories.iter().map(|directory| sys::temporary(directory));
    opened.find_map(Result::ok).ok_or_else(|| {
        io::Error::new(io::ErrorKind::StorageFull, format!("cannot create a temporary file in {directories:?}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &[u8], ignore_dots: bool) -> Vec<u8> {
        let mut want = None;
        for capacity in [1, 2, 3, 4096] {
            let mut reader = io::BufReader::with_capacity(capacity, input);
            let text = Text::read(&mut reader, ignore_dots).expect("a message");
            let (size, mut all) = (text.size(), Vec::new());
            text.into_reader().and_then(|mut r| r.read_to_end(&mut all)).expect("a message");
            assert_eq!(size, all.len() as u64);
            assert_eq!(*want.get_or_insert(all.clone()), all, "{input:?} in pieces of {capacity}");
        }
        want.expect("a text")
    }

    #[test]
    fn line_ends_and_dots_are_normalized() {
        for (input, with_dots, without) in [
            (&b""[..], &b""[..], &b""[..]),
            (b"a\n", b"a\n", b"a\n"),
            (b"a", b"a\n", b"a\n"),
            (b"a\r\nb\r\n", b"a\nb\n", b"a\nb\n"),
            (b"a\r\r\nb\rc\r", b"a\nb c\n", b"a\nb c\n"),
            (b"a\n.\nb\n", b"a\n", b"a\n.\nb\n"),
            (b"a\r\n.\r\nb\n", b"a\n", b"a\n.\nb\n"),
            (b".\n", b"", b".\n"),
            (b"..\n.x\n .\n", b"..\n.x\n .\n", b"..\n.x\n .\n"),
            (b"a\n.", b"a\n", b"a\n.\n"),
            (b".\rx\n", b". x\n", b". x\n"),
            (b"\0.\n\xff\0\n\n", b"?.\n\xff?\n\n", b"?.\n\xff?\n\n"),
        ] {
            assert_eq!(read(input, false), with_dots, "{input:?}");
            assert_eq!(read(input, true), without, "{input:?}");
        }
    }

    #[test]
    fn a_large_message_is_complete() {
        let input: Vec<u8> = (0..3_000_000_u32).flat_map(|n| [b'a' + (n % 26) as u8]).collect();
        let mut want = input.clone();
        want.push(b'\n');
        let text = Text::read(&mut &input[..], false).expect("a message");
        assert!(text.file.is_some());
        let mut all = Vec::new();
        text.into_reader().and_then(|mut r| r.read_to_end(&mut all)).expect("a message");
        assert!(all == want);
    }
}

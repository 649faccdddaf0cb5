//! A message on standard input, whole before anything is done with it.
//!
//! A program may write for hours (cron does), and no server waits so long: so the
//! message is collected first, in memory while it is small and else in a nameless
//! file, and only then taken to the daemon. Lines end with LF or CR LF; a CR that ends
//! no line becomes a blank, for it could end a header field in the eyes of some. A NUL becomes `?`,
//! for no mail may have one. Octets above 127 and lines of any length stay. A dot alone on its line ends the
//! message unless told otherwise. Trouble with the input or with room for it is an
//! error: half a message is not sent.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use memchr::memchr2;
use nix::fcntl::OFlag;

/// As much is kept in memory.
const IN_MEMORY: usize = 1 << 20;

/// Reads lines, in pieces.
#[derive(Debug, Default)]
pub struct Text {
    kept: Vec<u8>,
    file: Option<File>,
    size: u64,
    /// The last octet was a CR of which it is not known yet what it is.
    pending: bool,
    /// What the line has so far, as far as it matters: a dot or not.
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
    /// Reads to the end, or to a dot if that is one.
    ///
    /// # Errors
    /// Those of the input, and of the file where it is kept.
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

    /// Whether the end was in it.
    fn feed(&mut self, mut chunk: &[u8], ignore_dots: bool) -> io::Result<bool> {
        while let Some(&first) = chunk.first() {
            if first == b'\r' {
                self.pending = true;
                chunk = chunk.get(1..).unwrap_or_default();
            } else if first == b'\n' {
                if self.line == Line::Dot && !ignore_dots {
                    return Ok(true);
                }
                self.dot()?;
                self.put(b"\n")?;
                (self.pending, self.line) = (false, Line::Empty);
                chunk = chunk.get(1..).unwrap_or_default();
            } else {
                if std::mem::take(&mut self.pending) {
                    self.dot()?;
                    self.put(b" ")?;
                    self.line = Line::More;
                }
                chunk = self.words(chunk)?;
            }
        }
        Ok(false)
    }

    /// Takes octets up to the next end of a line; the rest.
    fn words<'c>(&mut self, chunk: &'c [u8]) -> io::Result<&'c [u8]> {
        let end = memchr2(b'\r', b'\n', chunk).unwrap_or(chunk.len());
        let (words, rest) = chunk.split_at(end);
        if self.line == Line::Empty && words == b"." {
            self.line = Line::Dot;
        } else {
            self.dot()?;
            self.line = Line::More;
            self.put(words)?;
        }
        Ok(rest)
    }

    /// A dot that was held back is part of the text after all.
    fn dot(&mut self) -> io::Result<()> {
        if self.line == Line::Dot { self.put(b".") } else { Ok(()) }
    }

    /// The input has ended, perhaps in the middle of a line.
    fn end(&mut self, ignore_dots: bool) -> io::Result<()> {
        if self.line == Line::Dot && !ignore_dots {
            return Ok(());
        }
        self.dot()?;
        if self.line != Line::Empty { self.put(b"\n") } else { Ok(()) }
    }

    fn put(&mut self, octets: &[u8]) -> io::Result<()> {
        self.size += octets.len() as u64;
        let put = self.kept.len();
        self.kept.extend_from_slice(octets);
        self.kept.iter_mut().skip(put).filter(|octet| **octet == 0).for_each(|octet| *octet = b'?');
        if self.kept.len() > IN_MEMORY {
            let file = match &mut self.file {
                Some(file) => file,
                none => none.insert(nameless()?),
            };
            file.write_all(&self.kept)?;
            self.kept.clear();
        }
        Ok(())
    }

    /// Octets in all, line ends counted as one.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// All of it from the start, once.
    ///
    /// # Errors
    /// Those of the file.
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

/// A file for what does not fit into memory; nobody else sees it, and it leaves nothing behind.
fn nameless() -> io::Result<File> {
    let directories = [std::env::temp_dir(), PathBuf::from("/var/tmp"), PathBuf::from("/dev/shm")];
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600).custom_flags(OFlag::O_TMPFILE.bits());
    let mut opened = directories.iter().map(|directory| options.open(directory));
    opened.find_map(Result::ok).ok_or_else(|| {
        io::Error::new(io::ErrorKind::StorageFull, format!("no temporary file to be had in {directories:?}"))
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
    fn lines_and_dots() {
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
    fn what_is_large_is_whole() {
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

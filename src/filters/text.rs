//! The text of a message as the filters so far have changed it.
//!
//! The header, at most [`MAX_HEADER`] octets, is in memory, because filters refer to its fields by
//! number. The body is read from its place each time. A body that a filter has replaced is in
//! memory if it is small, and otherwise in a file without a name.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use memchr::memchr;

use super::Trouble;
use super::milter::NewField;
use crate::message::field::{Section, State, fields};

/// The maximum length of a header that filters are shown, in octets, and of a header that they have
/// changed.
pub const MAX_HEADER: usize = 1 << 20;
/// The maximum number of fields of a header that filters are shown.
const MAX_FIELDS: usize = 5000;
/// The maximum size of a replaced body that is held in memory.
const MAX_IN_MEMORY: usize = 64 << 10;

/// A text that can be read from its beginning several times, with lines ending in LF.
pub trait Content {
    /// Returns a new reader at the beginning of the text.
    ///
    /// # Errors
    /// Those of the system.
    fn open(&self) -> io::Result<Box<dyn Read + '_>>;
}

impl Content for [u8] {
    fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(self))
    }
}

/// A field of a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// The whole text, with its last line end.
    raw: Vec<u8>,
    /// The place of the colon.
    colon: usize,
}

impl Field {
    /// A field of the message; `None` if the text is not a field.
    fn of(raw: &[u8]) -> Option<Self> {
        let mut raw = raw.to_vec();
        if !raw.ends_with(b"\n") {
            raw.push(b'\n');
        }
        Some(Self { colon: memchr(b':', &raw)?, raw })
    }

    /// A field that a filter gives. Unless `has_space`, a blank is put before the value.
    fn new(field: &NewField, has_space: bool) -> Self {
        let blank: &[u8] = if has_space { b"" } else { b" " };
        let raw = [&field.name, b":".as_slice(), blank, &field.value, b"\n"].concat();
        Self { raw, colon: field.name.len() }
    }

    /// The name.
    pub fn name(&self) -> &[u8] {
        self.raw.get(..self.colon).unwrap_or_default().trim_ascii_end()
    }

    /// The value, with lines ending in LF, without the last line end. Without `with_space`, the
    /// blank after the colon is left out.
    pub fn value(&self, with_space: bool) -> &[u8] {
        let value = self.raw.get(self.colon + 1..).unwrap_or_default();
        let value = value.strip_suffix(b"\n").unwrap_or(value);
        if with_space { value } else { value.strip_prefix(b" ").unwrap_or(value) }
    }

    fn is(&self, name: &[u8]) -> bool {
        self.name().eq_ignore_ascii_case(name)
    }
}

/// The header of a message, with the changes to it.
#[derive(Debug, Clone)]
pub struct Header {
    /// All fields, from the top.
    pub fields: Vec<Field>,
    is_changed: bool,
    /// The number of octets of all fields, including fields that were removed.
    size: usize,
}

impl Header {
    fn of(text: &[u8]) -> Self {
        let fields: Vec<Field> = fields(text).filter_map(|field| Field::of(field.raw)).collect();
        Self { fields, is_changed: false, size: text.len() }
    }

    /// Adds a field at the end.
    ///
    /// # Errors
    /// If the header is too long.
    pub fn add(&mut self, field: &NewField, has_space: bool) -> Result<(), Trouble> {
        self.is_changed = true;
        let field = Field::new(field, has_space);
        self.grow(&field)?;
        self.fields.push(field);
        Ok(())
    }

    /// Inserts a field at an index. As with Sendmail, the field with index 0 is this server's own
    /// Received field, which filters do not see; nothing is put above it.
    ///
    /// # Errors
    /// If the header is too long.
    pub fn insert(&mut self, index: u32, field: &NewField, has_space: bool) -> Result<(), Trouble> {
        let at = usize::try_from(index.saturating_sub(1)).unwrap_or(usize::MAX).min(self.fields.len());
        self.is_changed = true;
        let field = Field::new(field, has_space);
        self.grow(&field)?;
        self.fields.insert(at, field);
        Ok(())
    }

    /// Replaces the field with this name and index, counted from 1 among the fields of that name,
    /// or removes it if the value is empty. If there is no such field, `field` is added, unless its
    /// value is empty.
    ///
    /// # Errors
    /// If the header is too long.
    pub fn change(&mut self, index: u32, field: &NewField, has_space: bool) -> Result<(), Trouble> {
        let index = usize::try_from(index.max(1)).unwrap_or(usize::MAX);
        let mut same = self.fields.iter().enumerate().filter(|(_, other)| other.is(&field.name));
        let found = same.nth(index - 1).map(|(at, _)| at);
        match found {
            None if field.value.is_empty() => return Ok(()),
            None => return self.add(field, has_space),
            Some(at) if field.value.is_empty() => {
                self.is_changed = true;
                self.fields.remove(at);
            }
            Some(at) => {
                self.is_changed = true;
                let field = Field::new(field, has_space);
                self.grow(&field)?;
                if let Some(old) = self.fields.get_mut(at) {
                    *old = field;
                }
            }
        }
        Ok(())
    }

    /// Adds a new field to the size. The size never shrinks, so its maximum also limits the work.
    fn grow(&mut self, field: &Field) -> Result<(), Trouble> {
        self.size += field.raw.len();
        if self.size > MAX_HEADER { Err(Trouble::new("it made the header too long")) } else { Ok(()) }
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        self.fields.iter().try_for_each(|field| out.write_all(&field.raw))
    }
}

/// The body that a filter has given.
#[derive(Debug)]
pub enum Body {
    /// A small body.
    Memory(Vec<u8>),
    /// A large body, in a file without a name.
    File(File),
}

impl Body {
    fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        Ok(match self {
            Self::Memory(text) => Box::new(text.as_slice()),
            Self::File(file) => {
                let mut file = file;
                file.seek(SeekFrom::Start(0))?;
                Box::new(file)
            }
        })
    }
}

/// The text of a message: its header, and the place of its body.
pub struct Text<'a> {
    content: &'a dyn Content,
    /// The header as it is now.
    pub header: Header,
    /// The size of the original header.
    header_size: u64,
    /// Whether an empty line separates the original header and body.
    has_separator: bool,
    /// The body, if a filter has replaced it.
    pub body: Option<Body>,
}

impl<'a> Text<'a> {
    /// Reads the header of a message. Returns `None` if the header is longer than [`MAX_HEADER`],
    /// or has too many fields.
    ///
    /// # Errors
    /// Those of reading.
    pub fn read(content: &'a dyn Content) -> io::Result<Option<Self>> {
        let mut section = Section::new(MAX_HEADER);
        let (mut reader, mut chunk) = (content.open()?, vec![0; 16 << 10]);
        while section.state() == State::Open {
            match reader.read(&mut chunk) {
                Ok(0) => section.finish(),
                Ok(count) => _ = section.feed(chunk.get(..count).unwrap_or_default()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        if section.state() == State::TooLong || fields(section.header()).count() > MAX_FIELDS {
            return Ok(None);
        }
        let has_separator = section.remainder() == b"\n";
        let (header, rest) = (Header::of(section.header()), section.remainder().len());
        let header_size = (section.into_text().len() - rest) as u64;
        Ok(Some(Self { content, header, header_size, has_separator, body: None }))
    }

    /// A reader of the body.
    ///
    /// # Errors
    /// Those of reading.
    pub fn body(&self) -> io::Result<Box<dyn Read + '_>> {
        match &self.body {
            Some(body) => body.open(),
            None => {
                let mut reader = self.content.open()?;
                skip(&mut *reader, self.header_size + u64::from(self.has_separator))?;
                Ok(reader)
            }
        }
    }

    /// The changes to the text so far.
    pub fn into_changes(self) -> TextChanges {
        let Self { header, header_size, body, .. } = self;
        TextChanges { header, header_size, body }
    }
}

/// Changes to the text of a message.
#[derive(Debug)]
pub struct TextChanges {
    header: Header,
    header_size: u64,
    body: Option<Body>,
}

impl TextChanges {
    /// Whether the text is as it was.
    pub fn is_empty(&self) -> bool {
        self.body.is_none() && !self.header.is_changed
    }

    /// Copies the original text from `from` to `out`, with the changes.
    ///
    /// # Errors
    /// Those of reading and writing.
    pub fn apply(&self, from: &mut dyn Read, out: &mut dyn Write) -> io::Result<()> {
        self.header.write(out)?;
        match &self.body {
            Some(body) => {
                out.write_all(b"\n")?;
                copy(&mut *body.open()?, out)
            }
            None => {
                skip(from, self.header_size)?;
                copy(from, out)
            }
        }
    }
}

/// Collects the body that a filter gives in pieces. Lines get LF as their end, a CR without LF
/// counts as a line end, and NULs are left out, so that all mail programs see the same message.
pub struct NewBody<'a> {
    scratch: &'a dyn Fn() -> io::Result<File>,
    has_room: &'a dyn Fn() -> io::Result<bool>,
    limit: u64,
    size: u64,
    memory: Vec<u8>,
    file: Option<File>,
    has_cr: bool,
    last: u8,
}

impl<'a> NewBody<'a> {
    /// An empty body of at most `limit` octets. `scratch` makes a file for a large one, as long as
    /// `has_room` says that there is room for it.
    pub fn new(
        limit: u64,
        scratch: &'a dyn Fn() -> io::Result<File>,
        has_room: &'a dyn Fn() -> io::Result<bool>,
    ) -> Self {
        Self { scratch, has_room, limit, size: 0, memory: Vec::new(), file: None, has_cr: false, last: b'\n' }
    }

    /// Takes a piece.
    ///
    /// # Errors
    /// If the body is too long, or cannot be written.
    pub fn take(&mut self, piece: &[u8]) -> Result<(), Trouble> {
        self.size += piece.len() as u64;
        if self.size > self.limit {
            return Err(Trouble::new("it made the body too long"));
        }
        for &octet in piece {
            let follows_cr = std::mem::replace(&mut self.has_cr, octet == b'\r');
            match octet {
                0 => {}
                b'\n' if follows_cr => {}
                b'\r' => self.memory.push(b'\n'),
                octet => self.memory.push(octet),
            }
        }
        self.last = self.memory.last().copied().unwrap_or(self.last);
        if self.memory.len() > MAX_IN_MEMORY { self.spill() } else { Ok(()) }
    }

    /// Ends the body.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn end(mut self) -> Result<Body, Trouble> {
        if self.last != b'\n' {
            self.memory.push(b'\n');
        }
        if self.file.is_some() {
            self.spill()?;
        }
        Ok(self.file.map_or(Body::Memory(self.memory), Body::File))
    }

    fn spill(&mut self) -> Result<(), Trouble> {
        if !(self.has_room)()? {
            return Err(Trouble::new("the spool has no room for its new body"));
        }
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert((self.scratch)()?),
        };
        crate::sys::disk::write(file, &self.memory)?;
        self.memory.clear();
        Ok(())
    }
}

fn skip(from: &mut dyn Read, count: u64) -> io::Result<()> {
    let mut left = from.take(count);
    copy(&mut left, &mut io::sink())?;
    if left.limit() == 0 { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Copies without a large buffer on the stack, because the threads of sessions have small stacks.
pub(super) fn copy(from: &mut dyn Read, out: &mut dyn Write) -> io::Result<()> {
    let mut block = vec![0; 32 << 10];
    loop {
        match from.read(&mut block) {
            Ok(0) => return Ok(()),
            Ok(count) => out.write_all(block.get(..count).unwrap_or_default())?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests;

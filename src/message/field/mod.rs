//! The readers of header sections (RFC 5322 2.2), and the rules for fields and the end of a header.
//!
//! All parts of the program that look at a header use this module, so that none of them finds a
//! field where another finds text. The rules, with LF as the line end:
//!
//! - A field begins with its name and a colon, both within the first [`MAX_LINE`] octets of the
//!   line. The name is printable ASCII. Blanks may stand between the name and the colon (RFC 5322
//!   4.5).
//! - A line that begins with a blank continues the line before it, even if it consists of blanks
//!   only.
//! - An empty line ends the header.
//! - A postmark, the line `From ...` between the messages of a mailbox file, may stand before the
//!   first field.
//! - Any other line is stray. A reader that interprets a message ([`Section`]) takes such a line as
//!   the start of the body; a reader that only counts or shows fields ([`Lines`], [`fields`])
//!   continues after it.

use std::io::{self, BufRead, BufReader, Read};

use memchr::memchr;

/// The number of octets of a line that are examined: slightly more than the longest valid line (RFC
/// 5322 2.1.1).
pub const MAX_LINE: usize = 1000;

/// The part that a line plays in a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'a> {
    /// The separator of a mailbox file, before the first field.
    Postmark,
    /// The first line of a field: its name and the beginning of its body.
    Field(&'a [u8], &'a [u8]),
    /// A further line of a field, or of a stray line.
    Continuation,
    /// A line that does not belong in a header.
    Stray,
    /// The empty line at the end.
    End,
}

/// Classifies the lines of a header, one after the other.
#[derive(Debug, Clone, Copy, Default)]
struct Classifier {
    has_postmark: bool,
    has_line: bool,
}

impl Classifier {
    /// The part that a line plays. The line ends in LF, unless it ends the text or is too long.
    fn line<'a>(&mut self, line: &'a [u8]) -> Part<'a> {
        let front = line.get(..MAX_LINE).unwrap_or(line);
        if line == b"\n" {
            return Part::End;
        }
        if self.has_line && is_continuation(line) {
            return Part::Continuation;
        }
        let is_first = !self.has_line && !self.has_postmark;
        if let Some((name, body)) = split(line) {
            self.has_line = true;
            return Part::Field(name, body);
        }
        if is_first && is_postmark(front) {
            self.has_postmark = true;
            return Part::Postmark;
        }
        self.has_line = true;
        Part::Stray
    }
}

fn is_continuation(line: &[u8]) -> bool {
    matches!(line, [b' ' | b'\t', ..])
}

fn is_postmark(line: &[u8]) -> bool {
    (line.starts_with(b"From ") || line.starts_with(b">From ")) && line.ends_with(b"\n")
}

/// Splits a field into its name and its body. Returns `None` if the text is not a field: the name
/// and the colon must be on its first line.
fn split(field: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr(b'\n', field).unwrap_or(field.len()).min(MAX_LINE);
    let colon = memchr(b':', field.get(..end)?)?;
    let name = field.get(..colon)?;
    let name = name.get(..name.iter().rposition(|b| !matches!(b, b' ' | b'\t'))? + 1)?;
    let is_name = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
    is_name.then_some((name, field.get(colon + 1..).unwrap_or_default()))
}

/// A part of a header that arrives in pieces.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A line, or the first [`MAX_LINE`] octets of a longer one.
    Line(Part<'a>, &'a [u8]),
    /// A further part of a line that is longer than [`MAX_LINE`].
    Rest(&'a [u8]),
}

/// Reads a header that arrives in pieces. The result does not depend on how the text is split, and
/// at most [`MAX_LINE`] octets are held.
#[derive(Debug, Default)]
pub struct Lines {
    classifier: Classifier,
    /// The beginning of a line whose end has not arrived yet.
    held: Vec<u8>,
    /// Whether the line in `held` was returned already, so that it can be forgotten.
    is_returned: bool,
    /// Whether the line in `held` is too long and its end has not arrived yet.
    is_open: bool,
}

impl Lines {
    /// Takes the next line, or a piece of a long line, off the front of `text`. Returns `None` if
    /// `text` is used up without a result. After [`Part::End`] the text no longer belongs to the
    /// header.
    pub fn next<'a, 't: 'a>(&'a mut self, text: &mut &'t [u8]) -> Option<Piece<'a>> {
        if text.is_empty() {
            return None;
        }
        if self.is_returned {
            self.held.clear();
            self.is_returned = false;
        }
        let end = memchr(b'\n', text).map_or(text.len(), |at| at + 1);
        let room = if self.is_open { end } else { end.min(MAX_LINE - self.held.len()) };
        let (piece, rest) = text.split_at(room);
        *text = rest;
        let is_complete = piece.ends_with(b"\n");
        if self.is_open {
            self.is_open = !is_complete;
            return Some(Piece::Rest(piece));
        }
        if self.held.is_empty() && is_complete {
            return Some(Piece::Line(self.classifier.line(piece), piece));
        }
        self.held.extend_from_slice(piece);
        if !is_complete && self.held.len() < MAX_LINE {
            return None;
        }
        self.is_open = !is_complete;
        Some(self.held_line())
    }

    /// Returns the last line of the text if it has no line end.
    pub fn finish(&mut self) -> Option<Piece<'_>> {
        let is_left = !self.held.is_empty() && !self.is_returned;
        is_left.then(|| self.held_line())
    }

    fn held_line(&mut self) -> Piece<'_> {
        self.is_returned = true;
        Piece::Line(self.classifier.line(&self.held), &self.held)
    }
}

/// The header at the front of a message, collected while the text arrives. A stray line ends the
/// header, and a postmark that no field follows belongs to the body.
#[derive(Debug)]
pub struct Section {
    classifier: Classifier,
    limit: usize,
    /// The header so far, and the line that has ended it.
    text: Vec<u8>,
    /// The start of the fields, after the postmark if there is one.
    start: usize,
    /// The end of the last complete line of a field.
    end: usize,
    state: State,
}

/// The progress of a [`Section`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// More text may follow.
    Open,
    /// The header is complete.
    Complete,
    /// The header is longer than the limit.
    TooLong,
}

impl Section {
    /// An empty section, for a header of at most `limit` octets.
    pub fn new(limit: usize) -> Self {
        let classifier = Classifier::default();
        Self { classifier, limit, text: Vec::new(), start: 0, end: 0, state: State::Open }
    }

    /// Takes text up to the end of the header, or to the limit, and returns the rest.
    pub fn feed<'t>(&mut self, mut text: &'t [u8]) -> &'t [u8] {
        while self.state == State::Open && !text.is_empty() {
            let end = memchr(b'\n', text).map_or(text.len(), |at| at + 1);
            let (piece, rest) = text.split_at(end);
            self.text.extend_from_slice(piece);
            text = rest;
            if self.text.len() > self.limit {
                self.state = State::TooLong;
            } else if piece.ends_with(b"\n") {
                self.end_line();
            }
        }
        text
    }

    /// Called at the end of the text, which also ends the header.
    pub fn finish(&mut self) {
        if self.state == State::Open && self.last_line() < self.text.len() {
            self.end_line();
        }
        if self.state == State::Open {
            self.complete();
        }
    }

    /// The progress so far.
    pub fn state(&self) -> State {
        self.state
    }

    /// The complete fields so far, without a postmark.
    pub fn header(&self) -> &[u8] {
        self.text.get(self.start..self.end).unwrap_or_default()
    }

    /// The text that was taken but does not belong to the header: the line that ends it, or the
    /// line that made it too long.
    pub fn remainder(&self) -> &[u8] {
        self.text.get(self.end..).unwrap_or_default()
    }

    /// All the text that was taken.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// All the text that was taken.
    pub fn into_text(self) -> Vec<u8> {
        self.text
    }

    fn last_line(&self) -> usize {
        self.end.max(self.start)
    }

    fn end_line(&mut self) {
        let line = self.text.get(self.last_line()..).unwrap_or_default();
        match self.classifier.line(line) {
            Part::Postmark => self.start = self.text.len(),
            Part::Field(..) | Part::Continuation => self.end = self.text.len(),
            Part::Stray | Part::End => self.complete(),
        }
    }

    fn complete(&mut self) {
        if self.end < self.start {
            (self.start, self.end) = (0, 0);
        }
        self.state = State::Complete;
    }
}

/// A field or a stray line, with the lines that continue it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// The text of all lines.
    pub raw: &'a [u8],
    /// The name of the field; empty for a stray line.
    pub name: &'a [u8],
    /// The body of the field, from the colon to the last line end.
    pub body: &'a [u8],
}

impl Field<'_> {
    /// Whether the field has this name.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// The body without line ends and without blanks around it.
    pub fn text(&self) -> String {
        let unfolded: Vec<u8> = self.body.iter().copied().filter(|&b| b != b'\n').collect();
        String::from_utf8_lossy(&unfolded).trim().to_owned()
    }
}

/// The fields at the front of a text, up to the empty line that ends the header. Stray lines
/// count as fields without a name, so that nothing is left out.
pub fn fields(text: &[u8]) -> impl Iterator<Item = Field<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let mut end = 0;
        while end == 0 || rest.get(end..).is_some_and(is_continuation) {
            let tail = rest.get(end..).filter(|tail| !tail.is_empty() && (end > 0 || !tail.starts_with(b"\n")))?;
            end += memchr(b'\n', tail).map_or(tail.len(), |at| at + 1);
        }
        let (raw, after) = rest.split_at_checked(end)?;
        rest = after;
        let (name, body) = if is_continuation(raw) { None } else { split(raw) }.unwrap_or_default();
        Some(Field { raw, name, body })
    })
}

/// The header at the front of a text, without the empty line that ends it.
pub fn header(text: &[u8]) -> &[u8] {
    let length = fields(text).map(|field| field.raw.len()).sum();
    text.get(..length).unwrap_or(text)
}

/// Calls `each` with the name and the first line of every field of a header. At most `limit` octets
/// are read, and only a small part of them is in memory at a time.
///
/// # Errors
/// The errors of `from`.
pub fn scan(from: impl Read, limit: u64, mut each: impl FnMut(&[u8], &[u8])) -> io::Result<()> {
    let (mut lines, mut from) = (Lines::default(), BufReader::new(from.take(limit)));
    loop {
        let mut text = match from.fill_buf() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            text => text?,
        };
        let count = text.len();
        let is_last = text.is_empty();
        while let Some(piece) = if is_last { lines.finish() } else { lines.next(&mut text) } {
            match piece {
                Piece::Line(Part::End, _) => return Ok(()),
                Piece::Line(Part::Field(name, body), _) => each(name, body),
                _ => {}
            }
        }
        if is_last {
            return Ok(());
        }
        from.consume(count);
    }
}

#[cfg(test)]
mod tests;

//! Finds the parts of a message, line by line.
//!
//! A line with the boundary of an enclosing multipart body ends all that is inside that body. If two
//! nested bodies have the same boundary, the line belongs to the outer one. The header of a part may
//! end without an empty line, at a line that is no field; that line begins the body.

use std::io::Read;

use super::header::{Facts, Kind};
use super::lines::{Line, LineReader, MAX_PIECE};
use super::{Form, MAX_HEADER, MAX_LEVELS, MAX_PARTS, Stop, Unconvertible};
use crate::message::field::{Section, State};

/// The header of a message or of a part.
#[derive(Debug, Clone, Copy)]
pub struct Header<'a> {
    /// The number of the part, in the order of the message. The message itself is number 0.
    pub part: usize,
    /// Whether this is the header of a message, not of a part of a multipart body.
    pub is_message: bool,
    /// The line of a mailbox file that precedes the fields.
    pub postmark: &'a [u8],
    /// The fields, with lines that end in LF.
    pub fields: &'a [u8],
    /// What the fields say.
    pub facts: &'a Facts,
    /// What ends the header.
    pub end: End,
}

/// What ends a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// An empty line.
    Blank,
    /// A line that belongs to the body.
    Stray,
    /// The end of the part.
    Nothing,
}

/// Where text stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the body of a part that has no parts.
    Body,
    /// Before the first part or after the last part of a multipart body.
    Outside,
}

/// Gets what a scan finds.
pub trait Visitor {
    /// Takes a header, and returns how its body is read.
    fn header(&mut self, header: &Header<'_>) -> Result<Kind, Stop>;
    /// Takes a line, or a piece of a line, of the part with this number.
    fn text(&mut self, part: usize, place: Place, line: &Line<'_>) -> Result<(), Stop>;
    /// Takes a boundary line of the part with this number. `begins` is whether a part follows.
    fn boundary(&mut self, part: usize, line: &Line<'_>, begins: bool) -> Result<(), Stop>;
    /// The body of the part has ended. `is_cut` is whether a boundary line ends it, to which the
    /// line end before it belongs.
    fn end(&mut self, part: usize, is_cut: bool) -> Result<(), Stop>;
}

/// Reads a message to its end.
pub fn scan(from: impl Read, form: &Form<'_>, visitor: &mut impl Visitor) -> Result<(), Stop> {
    let mut lines = LineReader::new(from, form.is_binary);
    let mut scan = Scan { visitor, frames: Vec::new(), parts: 0, current: Current::Leaf(0) };
    scan.begin_part(false)?;
    while let Some(line) = lines.next()? {
        scan.line(&line)?;
    }
    scan.end(false)
}

struct Scan<'v, V> {
    visitor: &'v mut V,
    /// What encloses the current line, from the outside in.
    frames: Vec<Frame>,
    /// The number of parts so far.
    parts: usize,
    current: Current,
}

enum Frame {
    Multipart(Multipart),
    Message,
}

struct Multipart {
    part: usize,
    boundary: Vec<u8>,
    is_digest: bool,
    /// Whether the last boundary line was found.
    is_closed: bool,
}

/// What the current line belongs to.
enum Current {
    Header(HeaderText),
    /// The body of the part with this number.
    Leaf(usize),
    /// The text outside the parts of the part with this number.
    Outside(usize),
}

struct HeaderText {
    part: usize,
    is_digest: bool,
    section: Section,
    /// A line whose end has not been read.
    line: Vec<u8>,
}

impl<V: Visitor> Scan<'_, V> {
    fn line(&mut self, line: &Line<'_>) -> Result<(), Stop> {
        match self.boundary(line) {
            Some((frame, begins)) => self.take_boundary(frame, begins, line),
            None => self.text(line),
        }
    }

    /// Returns the frame whose boundary a line has, and whether a part begins after the line.
    fn boundary(&self, line: &Line<'_>) -> Option<(usize, bool)> {
        let text = line.octets.strip_prefix(b"--").filter(|_| line.is_start && line.is_last)?;
        let end = text.iter().rposition(|b| !matches!(b, b' ' | b'\t')).map_or(0, |at| at + 1);
        let text = &text[..end];
        self.frames.iter().enumerate().find_map(|(index, frame)| match frame {
            Frame::Multipart(multipart) if !multipart.is_closed => {
                let rest = text.strip_prefix(multipart.boundary.as_slice())?;
                matches!(rest, b"" | b"--").then_some((index, rest.is_empty()))
            }
            _ => None,
        })
    }

    fn take_boundary(&mut self, index: usize, begins: bool, line: &Line<'_>) -> Result<(), Stop> {
        self.end(true)?;
        self.frames.truncate(index + 1);
        let Some(Frame::Multipart(multipart)) = self.frames.last_mut() else { return Ok(()) };
        multipart.is_closed = !begins;
        let (part, is_digest) = (multipart.part, multipart.is_digest);
        self.visitor.boundary(part, line, begins)?;
        if begins {
            return self.begin_part(is_digest);
        }
        self.current = Current::Outside(part);
        Ok(())
    }

    fn begin_part(&mut self, is_digest: bool) -> Result<(), Stop> {
        if self.parts == MAX_PARTS {
            return Err(Unconvertible::TooManyParts.into());
        }
        let (part, section) = (self.parts, Section::new(MAX_HEADER));
        self.parts += 1;
        self.current = Current::Header(HeaderText { part, is_digest, section, line: Vec::new() });
        Ok(())
    }

    fn text(&mut self, line: &Line<'_>) -> Result<(), Stop> {
        let (part, place) = match &mut self.current {
            Current::Leaf(part) => (*part, Place::Body),
            Current::Outside(part) => (*part, Place::Outside),
            Current::Header(header) => {
                // In a binary body a CR or LF alone can be in a line, and must not end it.
                if line.octets.contains(&b'\n') {
                    return Err(Unconvertible::Header.into());
                }
                header.line.extend_from_slice(line.octets);
                if line.is_end {
                    header.line.push(b'\n');
                    header.section.feed(&std::mem::take(&mut header.line));
                }
                if header.line.len() > MAX_HEADER || header.section.state() == State::TooLong {
                    return Err(Unconvertible::HeaderTooLong.into());
                }
                return if header.section.state() == State::Complete { self.end_header() } else { Ok(()) };
            }
        };
        self.visitor.text(part, place, line)
    }

    /// Ends a header whose section is complete.
    fn end_header(&mut self) -> Result<(), Stop> {
        let Current::Header(header) = std::mem::replace(&mut self.current, Current::Leaf(0)) else { return Ok(()) };
        let (part, section) = (header.part, header.section);
        let (fields, stray) = (section.header(), section.remainder());
        let end = match stray {
            b"" => End::Nothing,
            b"\n" => End::Blank,
            _ => End::Stray,
        };
        let facts = Facts::read(fields, header.is_digest);
        let is_message = matches!(self.frames.last(), None | Some(Frame::Message));
        let all = section.text();
        let postmark = &all[..all.len() - fields.len() - stray.len()];
        let kind = self.visitor.header(&Header { part, is_message, postmark, fields, facts: &facts, end })?;
        self.current = match kind {
            Kind::Leaf | Kind::Fixed(_) => Current::Leaf(part),
            Kind::Multipart { boundary, is_digest } => {
                self.push(Frame::Multipart(Multipart { part, boundary, is_digest, is_closed: false }))?;
                Current::Outside(part)
            }
            Kind::Message => {
                self.push(Frame::Message)?;
                return self.begin_part(false).and_then(|()| self.stray(stray));
            }
        };
        self.stray(stray)
    }

    /// Takes the text that has ended a header, and does not belong to it, as the first lines of the
    /// body. It has two lines if the first one looks like a postmark.
    fn stray(&mut self, text: &[u8]) -> Result<(), Stop> {
        if text == b"\n" {
            return Ok(());
        }
        for line in text.split_inclusive(|&b| b == b'\n') {
            let (octets, is_end) = line.strip_suffix(b"\n").map_or((line, false), |octets| (octets, true));
            let (mut rest, mut is_start) = (octets, true);
            loop {
                let (octets, after) = rest.split_at(rest.len().min(MAX_PIECE));
                let is_last = after.is_empty();
                self.line(&Line { octets, is_start, is_end: is_end && is_last, is_last })?;
                if is_last {
                    break;
                }
                (rest, is_start) = (after, false);
            }
        }
        Ok(())
    }

    fn push(&mut self, frame: Frame) -> Result<(), Stop> {
        if self.frames.len() == MAX_LEVELS {
            return Err(Unconvertible::TooDeep.into());
        }
        self.frames.push(frame);
        Ok(())
    }

    /// Ends what the current line belongs to.
    fn end(&mut self, is_cut: bool) -> Result<(), Stop> {
        // The end of a part also ends its header. A message begins after the header then, so there
        // can be one header more.
        while let Current::Header(header) = &mut self.current {
            header.section.feed(&std::mem::take(&mut header.line));
            header.section.finish();
            self.end_header()?;
        }
        match self.current {
            Current::Leaf(part) | Current::Outside(part) => self.visitor.end(part, is_cut),
            Current::Header(_) => Ok(()),
        }
    }
}

//! Collects the header of a message, finds the fields that a signature covers (RFC 6376 5.4.2), and
//! makes the text that is signed (RFC 6376 3.7).

use std::collections::HashMap;
use std::ops::Range;

use super::MAX_HEADER;
use super::canon::{self, Canon};
use crate::message::field::{Field, Section, State, fields};

/// The size of the pieces in which a header is read, in octets. It limits how much of a long line
/// is held in memory.
const PIECE: usize = 16 * 1024;

/// The header of a message that arrives in pieces. At most [`MAX_HEADER`] octets and one piece are
/// held.
#[derive(Debug)]
pub struct Front(Section);

impl Front {
    /// Returns a header that is empty so far.
    pub fn new() -> Self {
        Self(Section::new(MAX_HEADER))
    }

    /// Takes text up to the end of the header, and returns the rest, which belongs to the body.
    pub fn feed<'t>(&mut self, text: &'t [u8]) -> &'t [u8] {
        let mut rest = text;
        while self.is_open() && !rest.is_empty() {
            let piece = rest.get(..PIECE).unwrap_or(rest);
            let taken = piece.len() - self.0.feed(piece).len();
            rest = rest.get(taken..).unwrap_or_default();
        }
        rest
    }

    /// Called at the end of the text, which also ends the header.
    pub fn finish(&mut self) {
        self.0.finish();
    }

    /// Returns whether the header has not ended yet.
    pub fn is_open(&self) -> bool {
        self.0.state() == State::Open
    }

    /// Returns whether the header is longer than [`MAX_HEADER`].
    pub fn is_too_long(&self) -> bool {
        self.0.state() == State::TooLong
    }

    /// Returns the text of the header that was read.
    pub fn header(&self) -> &[u8] {
        self.0.header()
    }

    /// Returns the beginning of the body, if `feed` took it together with the end of the header.
    pub fn body(&self) -> &[u8] {
        let remainder = self.0.remainder();
        remainder.strip_prefix(b"\n").unwrap_or(remainder)
    }
}

/// The fields of a header, by name.
#[derive(Debug)]
pub struct Header<'a> {
    fields: Vec<Field<'a>>,
    /// For each name in lower case, the indexes in `fields` of the fields with this name, from top
    /// to bottom.
    places: HashMap<Vec<u8>, Vec<usize>>,
}

impl<'a> Header<'a> {
    /// Finds the fields of a header.
    pub fn new(text: &'a [u8]) -> Self {
        let fields: Vec<_> = fields(text).collect();
        let mut places: HashMap<Vec<u8>, Vec<usize>> = HashMap::new();
        for (place, field) in fields.iter().enumerate() {
            places.entry(field.name.to_ascii_lowercase()).or_default().push(place);
        }
        Self { fields, places }
    }

    /// Returns the fields with a name, from top to bottom, each with its place (its index among all
    /// fields). `name` must be in lower case.
    pub fn named(&self, name: &str) -> impl DoubleEndedIterator<Item = (usize, Field<'a>)> {
        let places = self.places.get(name.as_bytes()).map(Vec::as_slice).unwrap_or_default();
        places.iter().filter_map(|&place| Some((place, *self.fields.get(place)?)))
    }

    /// Returns the field at a place.
    pub fn at(&self, place: usize) -> Option<Field<'a>> {
        self.fields.get(place).copied()
    }

    /// Returns the canonical text of the fields that a signature covers. Each occurrence of a name
    /// in `names` stands for one field, from the bottom up. If no field is left, the name stands
    /// for nothing. The field at the place `own` is the signature's own field, and is left out.
    pub fn signed<N: AsRef<str>>(&self, names: &[N], form: Canon, own: Option<usize>) -> Vec<u8> {
        let mut left: HashMap<&str, _> = HashMap::new();
        let mut text = Vec::new();
        for name in names {
            let name = name.as_ref();
            let fields = left.entry(name).or_insert_with(|| self.named(name).rev());
            if let Some((_, field)) = fields.find(|(place, _)| Some(*place) != own) {
                canon::field(form, field.name, field.raw, field.body, &mut text);
            }
        }
        text
    }
}

/// Appends the canonical form of a signature's own field without the signature and without the last
/// line end. The signature is at `place` in the field's value.
pub fn append_own(field: &Field<'_>, place: Range<usize>, form: Canon, text: &mut Vec<u8>) {
    let start = field.raw.len() - field.body.len();
    let front = field.raw.get(..start + place.start).unwrap_or_default();
    let back = field.raw.get(start + place.end..).unwrap_or_default();
    let raw = [front, back].concat();
    canon::field(form, field.name, &raw, raw.get(start..).unwrap_or_default(), text);
    text.truncate(text.len().saturating_sub(2));
}

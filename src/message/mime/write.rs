//! The second pass: writes the converted message.

use std::io::{Read, Write};

use memchr::memchr2;

use super::encode::{Base64, QuotedPrintable};
use super::header::{self, Kind};
use super::lines::Line;
use super::scan::{End, Header, Place, Visitor, scan};
use super::survey::{Part, Plan};
use super::{Form, MAX_LINE, Stop, Unconvertible};
use crate::message::field::Field;

/// The maximum length of a line of base64 that is broken.
const BASE64_LINE: usize = 76;
/// The number of octets that are collected before they are written.
const BLOCK: usize = 64 << 10;

/// Writes a message, as the first pass has decided about its parts.
pub fn write(from: impl Read, form: &Form<'_>, parts: &[Part], out: &mut dyn Write) -> Result<(), Stop> {
    let mut writer = Writer { form, parts, out, text: Vec::with_capacity(BLOCK), body: Body::Keep, column: 0 };
    scan(from, form, &mut writer)?;
    writer.flush(0)
}

struct Writer<'a> {
    form: &'a Form<'a>,
    parts: &'a [Part],
    out: &'a mut dyn Write,
    /// What is not written yet.
    text: Vec<u8>,
    body: Body,
    /// The length of the current line, of text whose lines are broken.
    column: usize,
}

/// The writer of the current body.
enum Body {
    Keep,
    QuotedPrintable(QuotedPrintable),
    Base64 {
        encoder: Base64,
        /// Whether a line end was read that is not written yet: it belongs to the boundary line if
        /// one follows.
        has_line_end: bool,
    },
    /// The body is base64 already.
    MendBase64,
}

impl Writer<'_> {
    /// Writes the collected text if there are more octets than `room`. The first pass has found
    /// every NUL and every CR; if one is left here, the converter has a bug. Such an octet must not
    /// be sent, because hosts may take a CR for a line end.
    fn flush(&mut self, room: usize) -> Result<(), Stop> {
        if self.text.len() > room {
            if memchr2(0, b'\r', &self.text).is_some() {
                return Err(Unconvertible::Unfit.into());
            }
            self.out.write_all(&self.text)?;
            self.text.clear();
        }
        Ok(())
    }

    /// Whether an octet of a line can be sent.
    fn is_fit(&self, octet: u8) -> bool {
        !matches!(octet, 0 | b'\r' | b'\n') && (octet.is_ascii() || self.form.keeps_eight_bit)
    }

    /// Writes the line of a mailbox file that precedes the fields.
    fn postmark(&mut self, line: &[u8]) {
        let Some(octets) = line.strip_suffix(b"\n") else { return };
        let octets = octets.get(..MAX_LINE).unwrap_or(octets);
        let fit = octets.iter().map(|&octet| if self.is_fit(octet) { octet } else { b'?' });
        let fit: Vec<_> = fit.chain([b'\n']).collect();
        self.text.extend(fit);
    }

    /// Writes text that belongs to no part. A line that changes must not become a boundary line.
    fn outside(&mut self, line: &Line<'_>) {
        if line.is_start {
            self.column = 0;
        }
        let is_changed = is_broken(line, MAX_LINE) || !line.octets.iter().all(|&octet| self.is_fit(octet));
        for &octet in line.octets {
            self.break_line(MAX_LINE);
            let is_dash = self.column == 0 && octet == b'-' && is_changed;
            self.text.push(if self.is_fit(octet) && !is_dash { octet } else { b'?' });
            self.column += 1;
        }
        self.end_line(line);
    }

    /// Writes base64 whose lines are too long. A reader skips a blank, and it keeps a line that is
    /// broken from becoming a boundary line.
    fn base64(&mut self, line: &Line<'_>) {
        if line.is_start {
            self.column = 0;
        }
        for &octet in line.octets {
            self.break_line(BASE64_LINE);
            if self.column == 0 && octet == b'-' && is_broken(line, BASE64_LINE) {
                self.text.push(b' ');
                self.column += 1;
            }
            self.text.push(octet);
            self.column += 1;
        }
        self.end_line(line);
    }

    /// Breaks the current line if it is full.
    fn break_line(&mut self, room: usize) {
        if self.column == room {
            self.text.push(b'\n');
            self.column = 0;
        }
    }

    fn end_line(&mut self, line: &Line<'_>) {
        if line.is_end {
            self.text.push(b'\n');
        }
    }
}

/// Whether a line is longer than `room`.
fn is_broken(line: &Line<'_>, room: usize) -> bool {
    !line.is_start || !line.is_last || line.octets.len() > room
}

impl Visitor for Writer<'_> {
    fn header(&mut self, header: &Header<'_>) -> Result<Kind, Stop> {
        // The message has changed since the first pass if a part is missing.
        let part = self.parts.get(header.part).ok_or(Unconvertible::TooManyParts)?;
        self.postmark(header.postmark);
        let is_top = header.part == 0;
        let is_kept = |field: &Field<'_>| !is_top || !(self.form.drops)(field);
        header::write(header.fields, part.change, self.form, is_kept, &mut self.text)?;
        // A line that ends the header without being empty may look like a field when it has changed.
        let has_parts = matches!(header.facts.kind, Kind::Multipart { .. } | Kind::Message);
        let is_changed = has_parts || part.plan != Plan::Keep || part.change.encoding.is_some();
        if header.end == End::Blank || header.end == End::Stray && is_changed {
            self.text.push(b'\n');
        }
        self.body = match part.plan {
            Plan::Keep => Body::Keep,
            Plan::QuotedPrintable => Body::QuotedPrintable(QuotedPrintable::default()),
            Plan::MendQuotedPrintable => Body::QuotedPrintable(QuotedPrintable::mend()),
            Plan::Base64 => Body::Base64 { encoder: Base64::default(), has_line_end: false },
            Plan::MendBase64 => Body::MendBase64,
        };
        self.flush(BLOCK)?;
        Ok(if part.is_whole { Kind::Leaf } else { header.facts.kind.clone() })
    }

    fn text(&mut self, _: usize, place: Place, line: &Line<'_>) -> Result<(), Stop> {
        match (&mut self.body, place) {
            (_, Place::Outside) => self.outside(line),
            (Body::Keep, _) => {
                self.text.extend_from_slice(line.octets);
                self.end_line(line);
            }
            (Body::QuotedPrintable(encoder), _) => {
                encoder.feed(line.octets, &mut self.text);
                if line.is_end {
                    encoder.end_line(&mut self.text);
                }
            }
            (Body::Base64 { encoder, has_line_end }, _) => {
                if std::mem::replace(has_line_end, line.is_end) {
                    encoder.feed(b"\r\n", &mut self.text);
                }
                encoder.feed(line.octets, &mut self.text);
            }
            (Body::MendBase64, _) => self.base64(line),
        }
        self.flush(BLOCK)
    }

    fn boundary(&mut self, _: usize, line: &Line<'_>, _: bool) -> Result<(), Stop> {
        self.text.extend_from_slice(line.octets);
        self.end_line(line);
        Ok(())
    }

    fn end(&mut self, _: usize, is_cut: bool) -> Result<(), Stop> {
        match std::mem::replace(&mut self.body, Body::Keep) {
            Body::Keep | Body::MendBase64 => {}
            Body::QuotedPrintable(mut encoder) => encoder.finish(&mut self.text),
            Body::Base64 { mut encoder, has_line_end } => {
                // A text without a line end at its end gets one when it is sent.
                if !is_cut && (has_line_end || !self.form.is_binary) {
                    encoder.feed(b"\r\n", &mut self.text);
                }
                encoder.finish(&mut self.text);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cr_or_nul_is_never_written() {
        let form = Form { is_binary: true, keeps_eight_bit: true, drops: &|_| false };
        for (text, is_fit) in [("a\n\u{fc}", true), ("a\rb", false), ("\0", false)] {
            let (mut out, text) = (Vec::new(), text.as_bytes());
            let mut writer =
                Writer { form: &form, parts: &[], out: &mut out, text: text.to_vec(), body: Body::Keep, column: 0 };
            let flushed = writer.flush(0);
            assert_eq!(matches!(flushed, Err(Stop::Unconvertible(Unconvertible::Unfit))), !is_fit);
            assert_eq!(out, if is_fit { text } else { b"" });
        }
    }
}

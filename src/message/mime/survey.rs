//! The first pass: decides how each part is encoded.

use std::io::Read;

use super::encode::is_escaped;
use super::header::{Change, Encoding, Kind, check};
use super::lines::Line;
use super::scan::{Header, Place, Visitor, scan};
use super::{Form, MAX_LINE, Stop, Unconvertible};

/// How a part is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// As it is.
    Keep,
    /// As quoted-printable.
    QuotedPrintable,
    /// As base64.
    Base64,
    /// It is quoted-printable already, and what cannot be sent is changed.
    MendQuotedPrintable,
    /// It is base64 already, and long lines are broken.
    MendBase64,
}

/// The decision about one part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// How the body is written.
    pub plan: Plan,
    /// The changes to the header.
    pub change: Change,
    /// Whether the body has no parts, although its type is multipart: no part begins in it.
    pub is_whole: bool,
}

/// Reads a message, and returns the decision about each of its parts.
pub fn survey(from: impl Read, form: &Form<'_>) -> Result<Vec<Part>, Stop> {
    let mut survey = Survey { form, parts: Vec::new() };
    scan(from, form, &mut survey)?;
    survey.parts.iter().map(|part| part.decide(form).map_err(Stop::from)).collect()
}

struct Survey<'a> {
    form: &'a Form<'a>,
    parts: Vec<Seen>,
}

/// What was seen of one part.
struct Seen {
    kind: Kind,
    encoding: Encoding,
    is_text: bool,
    /// Whether the fields that every MIME message has are missing.
    lacks_version: bool,
    lacks_type: bool,
    /// Whether a part begins in this part.
    has_parts: bool,
    body: Body,
}

/// What was seen of a body.
#[derive(Default)]
struct Body {
    octets: u64,
    lines: u64,
    /// The number of octets that are escaped in quoted-printable.
    escapes: u64,
    has_eight_bit: bool,
    has_long_line: bool,
    /// Whether there is a NUL, or a CR or LF that ends no line.
    has_control: bool,
    /// The length of the current line.
    column: u64,
    /// Whether the body ends within a line.
    is_open: bool,
    utf8: Utf8,
}

impl Visitor for Survey<'_> {
    fn header(&mut self, header: &Header<'_>) -> Result<Kind, Stop> {
        let is_top = header.part == 0;
        check(header.fields, self.form, |field| !is_top || !(self.form.drops)(field))?;
        let facts = header.facts;
        self.parts.push(Seen {
            kind: facts.kind.clone(),
            encoding: facts.encoding,
            is_text: facts.is_text,
            lacks_version: header.is_message && !facts.has_version,
            lacks_type: header.is_message && !facts.has_type,
            has_parts: false,
            body: Body::default(),
        });
        Ok(facts.kind.clone())
    }

    fn text(&mut self, part: usize, _: Place, line: &Line<'_>) -> Result<(), Stop> {
        if let Some(seen) = self.parts.get_mut(part) {
            let wants_utf8 = seen.lacks_type;
            seen.body.take(line, wants_utf8);
        }
        Ok(())
    }

    fn boundary(&mut self, part: usize, line: &Line<'_>, begins: bool) -> Result<(), Stop> {
        if let Some(seen) = self.parts.get_mut(part) {
            seen.has_parts |= begins;
            // If no part begins in the body, its last boundary line is written like other text.
            if !seen.has_parts {
                seen.body.take(line, false);
            }
        }
        Ok(())
    }

    fn end(&mut self, _: usize, _: bool) -> Result<(), Stop> {
        Ok(())
    }
}

impl Seen {
    fn decide(&self, form: &Form<'_>) -> Result<Part, Unconvertible> {
        let is_whole = matches!(self.kind, Kind::Multipart { .. }) && !self.has_parts;
        let needs_change = self.body.needs_change(form);
        let plan = match self.kind {
            Kind::Multipart { .. } if self.has_parts => Plan::Keep,
            Kind::Message => Plan::Keep,
            _ if !needs_change => Plan::Keep,
            Kind::Fixed(why) => return Err(why),
            Kind::Leaf | Kind::Multipart { .. } => self.body_plan(form)?,
        };
        let change = match plan {
            // What must not be changed keeps its header, too.
            Plan::Keep if matches!(self.kind, Kind::Fixed(_)) => Change::default(),
            Plan::Keep | Plan::MendQuotedPrintable | Plan::MendBase64 => {
                Change { encoding: self.encoding.lowered(form), ..Change::default() }
            }
            Plan::QuotedPrintable | Plan::Base64 => Change {
                encoding: Some(if plan == Plan::Base64 { Encoding::Base64 } else { Encoding::QuotedPrintable }),
                adds_version: self.lacks_version,
                charset: self.lacks_type.then(|| self.body.charset()),
            },
        };
        Ok(Part { plan, change, is_whole })
    }

    fn body_plan(&self, form: &Form<'_>) -> Result<Plan, Unconvertible> {
        match self.encoding {
            Encoding::QuotedPrintable if !self.body.is_open_in(form) => Ok(Plan::MendQuotedPrintable),
            Encoding::Base64 if !self.body.has_eight_bit && !self.body.has_control => Ok(Plan::MendBase64),
            Encoding::QuotedPrintable | Encoding::Base64 | Encoding::Unknown => Err(Unconvertible::Encoding),
            // In quoted-printable a line end of the text is a line end of its form, which a reader
            // may show in another way. So what is not text is not written like that.
            _ if form.is_binary && (!self.is_text || self.body.is_open) => Ok(Plan::Base64),
            _ if self.body.base64_length() < self.body.quoted_length() => Ok(Plan::Base64),
            _ => Ok(Plan::QuotedPrintable),
        }
    }
}

impl Body {
    fn take(&mut self, line: &Line<'_>, wants_utf8: bool) {
        let octets = line.octets;
        self.octets += octets.len() as u64;
        self.column = octets.len() as u64 + if line.is_start { 0 } else { self.column };
        self.has_long_line |= self.column > MAX_LINE as u64;
        self.escapes += octets.iter().filter(|&&octet| is_escaped(octet)).count() as u64;
        self.has_eight_bit |= !octets.is_ascii();
        self.has_control |= octets.iter().any(|octet| matches!(octet, 0 | b'\r' | b'\n'));
        self.lines += u64::from(line.is_end);
        self.is_open = !line.is_end;
        if wants_utf8 && self.has_eight_bit {
            self.utf8.take(octets, line.is_end);
        }
    }

    /// Whether a binary body ends within a line.
    fn is_open_in(&self, form: &Form<'_>) -> bool {
        form.is_binary && self.is_open
    }

    fn needs_change(&self, form: &Form<'_>) -> bool {
        self.has_long_line || self.has_control || self.is_open_in(form) || self.has_eight_bit && !form.keeps_eight_bit
    }

    fn base64_length(&self) -> u64 {
        let octets = self.octets + 2 * self.lines;
        octets.div_ceil(3) * 4 + octets.div_ceil(57)
    }

    fn quoted_length(&self) -> u64 {
        let columns = self.octets + 2 * self.escapes;
        columns + self.lines + 2 * (columns / 75)
    }

    /// The character set of text without Content-Type (RFC 1428 has `unknown-8bit`).
    fn charset(&self) -> &'static str {
        match (self.has_eight_bit, self.utf8.is_valid()) {
            (false, _) => "us-ascii",
            (true, true) => "utf-8",
            (true, false) => "unknown-8bit",
        }
    }
}

/// Checks whether text is UTF-8.
#[derive(Default)]
struct Utf8 {
    /// The beginning of a character.
    held: Vec<u8>,
    is_bad: bool,
}

impl Utf8 {
    fn take(&mut self, octets: &[u8], is_end: bool) {
        if self.is_bad {
            return;
        }
        self.held.extend_from_slice(octets);
        match std::str::from_utf8(&self.held) {
            Ok(_) => self.held.clear(),
            Err(e) if e.error_len().is_none() && !is_end => drop(self.held.drain(..e.valid_up_to())),
            Err(_) => self.is_bad = true,
        }
    }

    fn is_valid(&self) -> bool {
        !self.is_bad && self.held.is_empty()
    }
}

//! The text of a client on its way into the spool, below our own Received: field.
//!
//! Whatever is put in front of a text must not become one with it. A first line that
//! begins with a blank, or is no field, begins the body and gets an empty line before it;
//! a line `From ...` of a mailbox file is removed from before the first field. Fields
//! Return-Path: are removed, since the final delivery adds the only one (RFC 5321 4.4).
//! The fields that say how often the message was here and elsewhere are counted on the
//! way. Nothing else of the header and no octet of the body is changed. How the text is
//! cut into pieces makes no difference; at most [`MAX_FIELD`] octets of a line are held.

use std::io::{self, Write};

use crate::address::{self, Address};
use crate::smtp::{MAX_HOPS, MAX_OWN_DELIVERIES};
use crate::submit::{is_postmark, name};

/// The part of a line that is looked at, in octets.
const MAX_FIELD: usize = 1000;

const _: () = assert!(MAX_FIELD > address::MAX_ADDRESS + "Delivered-To: ".len());

/// A text that goes into `W`.
pub struct HeaderScan<'a, W> {
    out: W,
    header: Header<'a>,
    /// Lines of the header that are ready.
    ready: Vec<u8>,
}

impl<'a, W: Write> HeaderScan<'a, W> {
    /// A text of which nothing has come yet; `is_local` knows the local domains.
    pub fn new(out: W, is_local: &'a dyn Fn(&str) -> bool) -> Self {
        Self { out, header: Header::new(is_local), ready: Vec::new() }
    }

    /// What the whole text has gone into.
    ///
    /// # Errors
    /// Those of writing what was held.
    pub fn finish(mut self) -> io::Result<W> {
        self.header.finish(&mut self.ready);
        self.out.write_all(&self.ready)?;
        Ok(self.out)
    }

    /// Whether the message has been here, or anywhere, too often (RFC 5321 6.3).
    pub fn is_looping(&self) -> bool {
        self.header.hops >= MAX_HOPS || self.header.deliveries.len() >= MAX_OWN_DELIVERIES
    }

    /// Whether each of these mailboxes has had the message already, going by what it says.
    pub fn was_delivered_to<'r>(&self, mut addresses: impl Iterator<Item = &'r Address>) -> bool {
        let is_same = |one: &Address, other: &Address| {
            one.domain() == other.domain() && one.local().eq_ignore_ascii_case(other.local())
        };
        let had = &self.header.deliveries;
        !had.is_empty() && addresses.all(|address| had.iter().any(|one| is_same(one, address)))
    }
}

impl<W: Write> Write for HeaderScan<'_, W> {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let body = self.header.feed(text, &mut self.ready);
        if !self.ready.is_empty() {
            self.out.write_all(&self.ready)?;
            self.ready.clear();
        }
        self.out.write_all(body)?;
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// How far a header is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// At the first line that stays, or at the one behind a postmark.
    Start,
    /// Among the fields.
    Fields,
    /// Behind a line that is no field: the rest may be a body, and is only counted.
    Doubtful,
    /// In the body.
    Body,
}

/// The header of a message that comes in pieces.
struct Header<'a> {
    is_local: &'a dyn Fn(&str) -> bool,
    at: At,
    /// The line of a mailbox file that may have a header behind it.
    postmark: Vec<u8>,
    /// The beginning of the line that is being read.
    line: Vec<u8>,
    /// Whether the end of the line is still to come, and what becomes of it.
    rest: Option<Fate>,
    /// What became of the last field, for the lines that continue it.
    field: Fate,
    hops: usize,
    /// Addresses in local domains that have had the message, at most [`MAX_OWN_DELIVERIES`].
    deliveries: Vec<Address>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Kept,
    Removed,
}

impl<'a> Header<'a> {
    fn new(is_local: &'a dyn Fn(&str) -> bool) -> Self {
        let (postmark, line, deliveries) = (Vec::new(), Vec::new(), Vec::new());
        Self { is_local, at: At::Start, postmark, line, rest: None, field: Fate::Kept, hops: 0, deliveries }
    }

    /// Takes a piece of the text and adds what is ready to `out`; what belongs to the body
    /// is returned.
    fn feed<'t>(&mut self, text: &'t [u8], out: &mut Vec<u8>) -> &'t [u8] {
        let mut left = text;
        while self.at != At::Body && !left.is_empty() {
            let end = memchr::memchr(b'\n', left).map_or(left.len(), |at| at + 1);
            let room = if self.rest.is_some() { end } else { end.min(MAX_FIELD - self.line.len()) };
            let (piece, after) = left.split_at(room);
            left = after;
            match self.rest {
                Some(Fate::Kept) => out.extend_from_slice(piece),
                Some(Fate::Removed) => {}
                None => self.line.extend_from_slice(piece),
            }
            let is_whole = piece.ends_with(b"\n");
            if self.rest.is_none() && (is_whole || self.line.len() >= MAX_FIELD) {
                self.rest = Some(self.judge(out));
            }
            if is_whole {
                self.rest = None;
            }
        }
        left
    }

    /// The text is over.
    fn finish(&mut self, out: &mut Vec<u8>) {
        if !self.line.is_empty() && self.rest.is_none() {
            self.judge(out);
        }
        self.begin_body(out);
    }

    /// Decides about the line that was read.
    fn judge(&mut self, out: &mut Vec<u8>) -> Fate {
        let line = std::mem::take(&mut self.line);
        let fate = self.judge_line(&line, out);
        if fate == Fate::Kept {
            out.extend_from_slice(&line);
        }
        fate
    }

    fn judge_line(&mut self, line: &[u8], out: &mut Vec<u8>) -> Fate {
        if line == b"\n" {
            self.begin_body(out);
            self.at = At::Body;
            return Fate::Kept;
        }
        let continues = matches!(line, [b' ' | b'\t', ..]);
        match (self.at, name(line)) {
            (At::Start, None) if continues && self.field == Fate::Removed => Fate::Removed,
            (At::Start, None) if self.postmark.is_empty() && is_postmark(line) && line.ends_with(b"\n") => {
                self.postmark = line.to_vec();
                Fate::Removed
            }
            (At::Start, None) => {
                if self.postmark.is_empty() {
                    out.push(b'\n');
                }
                self.begin_body(out);
                self.at = At::Body;
                Fate::Kept
            }
            (_, Some((name, start))) => {
                self.postmark.clear();
                self.count(name, line.get(start..).unwrap_or_default());
                let is_removed = name.eq_ignore_ascii_case(b"Return-Path") && self.at != At::Doubtful;
                self.field = if is_removed { Fate::Removed } else { Fate::Kept };
                if self.at == At::Start && !is_removed {
                    self.at = At::Fields;
                }
                self.field
            }
            (_, None) if continues => self.field,
            (_, None) => {
                (self.at, self.field) = (At::Doubtful, Fate::Kept);
                Fate::Kept
            }
        }
    }

    /// What looked like a postmark had no field behind it: it is the body's.
    fn begin_body(&mut self, out: &mut Vec<u8>) {
        if !self.postmark.is_empty() {
            out.push(b'\n');
            out.append(&mut self.postmark);
        }
    }

    fn count(&mut self, name: &[u8], value: &[u8]) {
        if name.eq_ignore_ascii_case(b"Received") {
            self.hops += 1;
        } else if name.eq_ignore_ascii_case(b"Delivered-To") && self.deliveries.len() < MAX_OWN_DELIVERIES {
            let address = std::str::from_utf8(value).ok().and_then(|value| Address::parse(value.trim()).ok());
            self.deliveries.extend(address.filter(|address| (self.is_local)(address.domain())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text as it goes on, hops and deliveries; the same in every split.
    fn pass(text: &[u8]) -> (String, usize, usize) {
        let is_local = |domain: &str| domain == "here";
        let passed = |cuts: &[usize]| {
            let mut incoming = HeaderScan::new(Vec::new(), &is_local);
            let mut start = 0;
            for &cut in cuts.iter().chain([&text.len()]) {
                incoming.write_all(&text[start..cut]).expect("memory");
                start = cut;
            }
            let counts = (incoming.header.hops, incoming.header.deliveries.len());
            (String::from_utf8(incoming.finish().expect("memory")).expect("text"), counts.0, counts.1)
        };
        let whole = passed(&[]);
        for cut in 0..text.len() {
            assert_eq!(passed(&[cut]), whole, "cut at {cut}");
        }
        let octets: Vec<usize> = (0..text.len()).collect();
        assert_eq!(passed(&octets), whole, "octet by octet");
        whole
    }

    #[test]
    fn what_comes_first_does_not_become_one_with_what_stands_before_it() {
        let long = "x".repeat(MAX_FIELD);
        let owned = [
            (format!("{long}y: z\nA: b\n"), format!("\n{long}y: z\nA: b\n")),
            (format!(" {long}\n"), format!("\n {long}\n")),
            (format!("A: {long}{long}\nReturn-Path: {long}{long}\nB: c\n\n"), format!("A: {long}{long}\nB: c\n\n")),
            (format!("From {long}\nA: b\n"), format!("\nFrom {long}\nA: b\n")),
        ];
        let given = [
            ("", ""),
            ("\n", "\n"),
            ("A: b\n\n c\n", "A: b\n\n c\n"),
            (" a\nB: c\n", "\n a\nB: c\n"),
            ("\ta: b\n", "\n\ta: b\n"),
            (" \nA: b\n", "\n \nA: b\n"),
            ("word\nReturn-Path: x\n", "\nword\nReturn-Path: x\n"),
            ("two words: x\n", "\ntwo words: x\n"),
            (": x\n", "\n: x\n"),
            ("From a b\nA: b\n", "A: b\n"),
            (">From a b\nA: b\n\n", "A: b\n\n"),
            ("From a b\n A: b\n", "\nFrom a b\n A: b\n"),
            ("From a b\n\nA: b\n", "\nFrom a b\n\nA: b\n"),
            ("From a b\nFrom c d\nA: b\n", "\nFrom a b\nFrom c d\nA: b\n"),
            ("From a b\n", "\nFrom a b\n"),
            ("From: a\nFrom a b\n", "From: a\nFrom a b\n"),
            ("A: b\nreturn-PATH:x\n y\n\tz\nC: d\n e\n\nReturn-Path: f\n", "A: b\nC: d\n e\n\nReturn-Path: f\n"),
            ("Return-Path : x\n \n y\nA: b\n", "A: b\n"),
            ("A: b\nno field\nReturn-Path: x\n", "A: b\nno field\nReturn-Path: x\n"),
            ("Return-Path: x\n y\nno field\n z\n", "\nno field\n z\n"),
            ("Return-Path: x\n\n y\n", "\n y\n"),
            ("Return-Path: x", ""),
            ("a", "\na"),
        ];
        let owned = owned.iter().map(|(text, want)| (text.as_str(), want.as_str()));
        for (text, want) in given.into_iter().chain(owned) {
            assert_eq!(pass(text.as_bytes()).0, want, "{text:.60}");
        }
    }

    #[test]
    fn hops_and_own_deliveries_are_counted_in_every_split() {
        for (text, hops, deliveries) in [
            (
                "RECEIVED: one\n\tReceived: folded\nDelivered-To: jon@here\ndelivered-to:  jon@there\nReceived:x\n\nReceived: body\n",
                2,
                1,
            ),
            ("Received: one\nno field\nReceived: two\nDelivered-To: jon@here\n", 2, 1),
            ("no field\nReceived: one\nDelivered-To: jon@here\n", 0, 0),
        ] {
            let (_, got_hops, got_deliveries) = pass(text.as_bytes());
            assert_eq!((got_hops, got_deliveries), (hops, deliveries), "{text}");
        }
    }
}

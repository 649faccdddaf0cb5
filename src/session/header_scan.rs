//! Filters the header that a client sends, so that this server's Received: field can be put before
//! it.
//!
//! The client's first line must not be joined to the lines that are prepended. So if the first line
//! begins with a blank or is not a field, it begins the body, and an empty line is put before it.
//! The postmark, which is the line `From ...` that begins a message in a mailbox file, is removed
//! if it stands before the first field. Return-Path: is removed, too, since only the final delivery
//! may add this field (RFC 5321 4.4). Authentication-Results: fields that claim to be this server's
//! are also removed (RFC 8601 5). Nothing else in the header and no byte of the body is changed.
//!
//! The trace fields, which show hops and earlier deliveries, are counted. The result does not
//! depend on how the text is split into pieces. At most [`MAX_LINE`] octets of a line are held in
//! memory, and at most [`MAX_FIELD`] octets of an Authentication-Results: field.

use memchr::memchr;

use crate::address::{self, Address};
use crate::message::field::{Lines, MAX_LINE, Part, Piece};
use crate::message::trace;
use crate::policy::message::Trace;
use crate::route::copies;
use crate::smtp::MAX_OWN_DELIVERIES;

const _: () = assert!(MAX_LINE > address::MAX_ADDRESS + "Delivered-To: ".len());

/// The maximum number of octets of an Authentication-Results: field that are held until it is
/// decided whether the field is removed.
const MAX_FIELD: usize = 16 << 10;
/// The maximum number of octets of a Message-ID that are kept for the log.
const MAX_MESSAGE_ID: usize = 400;
/// The maximum length of the body of a valid TLS-Required: field, in octets.
const MAX_TLS_REQUIRED: usize = 100;

/// The maximum number of octets of the marks of copies that are kept: eighty marks.
const MAX_MARKS: usize = 1 << 10;

/// The tests by which a scan decides about fields.
#[derive(Clone, Copy)]
pub struct Rules<'a> {
    /// Whether a domain is local.
    pub is_local: &'a dyn Fn(&str) -> bool,
    /// Whether an Authentication-Results: field with this body must be removed.
    pub is_forged: &'a dyn Fn(&[u8]) -> bool,
}

/// The part of a message that the scan has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Section {
    /// Before the first field that is kept.
    Start,
    /// Among the fields.
    Fields,
    /// After a line that belongs to no field. The rest may be a body or, for some readers, more
    /// fields. So trace fields are counted but not removed. Authentication-Results: fields that
    /// claim to be this server's are removed, because even if the rest is a body, it does no harm
    /// to remove them.
    Doubtful,
    /// In the body.
    Body,
}

/// Scans the header of a message that arrives in pieces.
#[derive(Debug, Default)]
pub struct HeaderScan {
    lines: Lines,
    filter: Filter,
}

/// Decides which lines of a header are kept, and counts trace fields.
#[derive(Debug)]
struct Filter {
    section: Section,
    /// The postmark (a line `From ...` before the first field), until a field follows; empty if
    /// there is none.
    postmark: Vec<u8>,
    /// Whether the line that was read last is kept. If not, further pieces of the same line and its
    /// continuation lines are removed, too.
    is_kept: bool,
    hops: usize,
    /// The addresses to which the message was delivered before, if they are in local domains; at
    /// most [`MAX_OWN_DELIVERIES`].
    deliveries: Vec<Address>,
    /// The text of an Authentication-Results: field about which the scan has not decided yet.
    undecided: Vec<u8>,
    /// The body of the first Message-ID: field, up to a bound.
    message_id: Vec<u8>,
    /// The bodies of all TLS-Required: fields, up to a bound, each after a colon.
    tls_required: Vec<u8>,
    /// The bodies of the first fields with marks of copies, up to a bound, each after a colon.
    marks: Vec<u8>,
    /// The field whose body is kept and to which the line that was read last belongs.
    reading: Reading,
}

/// A field whose body is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// None, or one whose body is not kept.
    Other,
    MessageId,
    TlsRequired,
    Mark,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            section: Section::Start,
            postmark: Vec::new(),
            is_kept: true,
            hops: 0,
            deliveries: Vec::new(),
            undecided: Vec::new(),
            message_id: Vec::new(),
            tls_required: Vec::new(),
            marks: Vec::new(),
            reading: Reading::Other,
        }
    }
}

impl HeaderScan {
    /// Takes a piece of the text, appends the finished part of the header to `out`, and returns the
    /// part that belongs to the body.
    pub fn feed<'t>(&mut self, text: &'t [u8], rules: Rules<'_>, out: &mut Vec<u8>) -> &'t [u8] {
        let mut rest = text;
        while self.filter.section != Section::Body
            && let Some(piece) = self.lines.next(&mut rest)
        {
            self.filter.take(&piece, rules, out);
        }
        rest
    }

    /// Appends the text that is still held when the message has ended.
    pub fn finish(&mut self, rules: Rules<'_>, out: &mut Vec<u8>) {
        if let Some(piece) = self.lines.finish() {
            self.filter.take(&piece, rules, out);
        }
        self.filter.decide(rules, out);
        self.filter.begin_body(out);
    }

    /// Returns whether the header has ended, so that only the body follows.
    pub fn is_over(&self) -> bool {
        self.filter.section == Section::Body
    }

    /// Returns the Message-ID, without the blanks of a folded field.
    pub fn message_id(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.filter.message_id);
        let text = text.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
        (!text.is_empty()).then_some(text)
    }

    /// Whether the header has a field `TLS-Required: No` (RFC 8689 3). Returns false if it has
    /// several fields TLS-Required:, because then nobody can tell which one was meant.
    pub fn waives_tls(&self) -> bool {
        let body = self.filter.tls_required.strip_prefix(b":");
        body.is_some_and(|body| body.len() <= MAX_TLS_REQUIRED && body.trim_ascii().eq_ignore_ascii_case(b"No"))
    }

    /// Returns the marks of copies (see [`crate::route::copies`]), which may be forged.
    pub fn marks(&self) -> impl Iterator<Item = &str> {
        let bodies = self.filter.marks.split(|&octet| octet == b':');
        bodies.filter_map(|body| str::from_utf8(body.trim_ascii()).ok())
    }

    /// Returns the hops and earlier deliveries that the trace fields show. `recipients` are the
    /// recipients of the message.
    pub fn trace<'r>(&self, mut recipients: impl Iterator<Item = &'r Address>) -> Trace {
        let deliveries = &self.filter.deliveries;
        let is_same =
            |a: &Address, b: &Address| a.domain() == b.domain() && address::is_same_local(a.local(), b.local());
        let was_delivered = |recipient: &Address| deliveries.iter().any(|delivery| is_same(delivery, recipient));
        Trace {
            hops: self.filter.hops,
            own_deliveries: deliveries.len(),
            was_delivered: !deliveries.is_empty() && recipients.all(was_delivered),
        }
    }
}

impl Filter {
    fn take(&mut self, piece: &Piece<'_>, rules: Rules<'_>, out: &mut Vec<u8>) {
        match piece {
            Piece::Line(Part::Continuation, text) | Piece::Rest(text) => {
                self.keep_body(text);
                self.pass(text, rules, out);
            }
            Piece::Line(part, line) => {
                self.decide(rules, out);
                self.reading = Reading::Other;
                self.is_kept = self.keeps(*part, line, out);
                if let Part::Field(name, body) = part {
                    self.count(name, body, rules.is_local);
                    if name.eq_ignore_ascii_case(b"Authentication-Results") && self.section != Section::Body {
                        self.undecided = line.to_vec();
                        return;
                    }
                }
                self.pass(line, rules, out);
            }
        }
    }

    /// Takes a piece of a field's text. The piece is kept, removed or held undecided like the
    /// beginning of the field.
    fn pass(&mut self, text: &[u8], rules: Rules<'_>, out: &mut Vec<u8>) {
        if !self.undecided.is_empty() {
            self.undecided.extend_from_slice(text);
            if self.undecided.len() > MAX_FIELD {
                self.decide(rules, out);
            }
        } else if self.is_kept {
            out.extend_from_slice(text);
        }
    }

    /// Keeps or removes the field that is undecided.
    fn decide(&mut self, rules: Rules<'_>, out: &mut Vec<u8>) {
        let field = std::mem::take(&mut self.undecided);
        if let Some(colon) = memchr(b':', &field) {
            self.is_kept = !(rules.is_forged)(&field[colon + 1..]);
            if self.is_kept {
                out.extend_from_slice(&field);
            }
        }
    }

    /// Returns whether a line is kept. Appends to `out` any text that must come before the line.
    fn keeps(&mut self, part: Part<'_>, line: &[u8], out: &mut Vec<u8>) -> bool {
        match (self.section, part) {
            (_, Part::End) => {
                self.begin_body(out);
                self.section = Section::Body;
            }
            (_, Part::Postmark) => {
                self.postmark = line.to_vec();
                return false;
            }
            (Section::Start, Part::Stray) => {
                if self.postmark.is_empty() {
                    out.push(b'\n');
                }
                self.begin_body(out);
                self.section = Section::Body;
            }
            (_, Part::Stray) => self.section = Section::Doubtful,
            (section, Part::Field(name, _)) => {
                self.postmark.clear();
                if name.eq_ignore_ascii_case(b"Return-Path") && section != Section::Doubtful {
                    return false;
                }
                if section == Section::Start {
                    self.section = Section::Fields;
                }
            }
            (_, Part::Continuation) => {}
        }
        true
    }

    /// Begins the body. If no field has followed a postmark, the postmark belongs to the body, and
    /// gets an empty line before it.
    fn begin_body(&mut self, out: &mut Vec<u8>) {
        if !self.postmark.is_empty() {
            out.push(b'\n');
            out.append(&mut self.postmark);
        }
    }

    /// Keeps a piece of the body of the field that is being read, if its body is kept.
    fn keep_body(&mut self, text: &[u8]) {
        let (kept, max) = match self.reading {
            Reading::Other => return,
            Reading::MessageId => (&mut self.message_id, MAX_MESSAGE_ID),
            // One octet more, after the colon, shows that the field is too long.
            Reading::TlsRequired => (&mut self.tls_required, 1 + MAX_TLS_REQUIRED + 1),
            Reading::Mark => (&mut self.marks, MAX_MARKS),
        };
        let room = max.saturating_sub(kept.len());
        kept.extend_from_slice(&text[..text.len().min(room)]);
    }

    fn count(&mut self, name: &[u8], body: &[u8], is_local: &dyn Fn(&str) -> bool) {
        if name.eq_ignore_ascii_case(b"Message-ID") {
            if self.message_id.trim_ascii().is_empty() && self.section == Section::Fields {
                self.reading = Reading::MessageId;
                self.message_id.clear();
                self.keep_body(body);
            }
        } else if name.eq_ignore_ascii_case(b"TLS-Required") {
            if self.section == Section::Fields {
                self.reading = Reading::TlsRequired;
                self.keep_body(b":");
                self.keep_body(body);
            }
        } else if name.eq_ignore_ascii_case(copies::MARK.as_bytes()) {
            self.reading = Reading::Mark;
            self.keep_body(b":");
            self.keep_body(body);
        } else if name.eq_ignore_ascii_case(b"Received") {
            self.hops += 1;
        } else if self.deliveries.len() < MAX_OWN_DELIVERIES {
            let address = trace::delivered_to(name, body);
            self.deliveries.extend(address.filter(|address| is_local(address.domain())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the filtered text, the number of hops and the number of deliveries. Checks that they
    /// do not depend on how the text is split.
    fn pass(text: &[u8]) -> (String, usize, usize) {
        let is_forged = |body: &[u8]| body.trim_ascii_start().starts_with(b"here;");
        let rules = Rules { is_local: &|domain| domain == "here", is_forged: &is_forged };
        let passed = |cuts: &[usize]| {
            let (mut scan, mut out, mut start) = (HeaderScan::default(), Vec::new(), 0);
            for &cut in cuts.iter().chain([&text.len()]) {
                let body = scan.feed(&text[start..cut], rules, &mut out);
                out.extend_from_slice(body);
                start = cut;
            }
            scan.finish(rules, &mut out);
            (String::from_utf8(out).expect("text"), scan.filter.hops, scan.filter.deliveries.len())
        };
        let unsplit = passed(&[]);
        for cut in 0..text.len() {
            assert_eq!(passed(&[cut]), unsplit, "cut at {cut}");
        }
        let octets: Vec<usize> = (0..text.len()).collect();
        assert_eq!(passed(&octets), unsplit, "octet by octet");
        unsplit
    }

    #[test]
    fn the_first_line_is_not_joined_to_the_prepended_lines() {
        let long = "x".repeat(MAX_LINE);
        let long_cases = [
            (format!("{long}y: z\nA: b\n"), format!("\n{long}y: z\nA: b\n")),
            (format!(" {long}\n"), format!("\n {long}\n")),
            (format!("A: {long}{long}\nReturn-Path: {long}{long}\nB: c\n\n"), format!("A: {long}{long}\nB: c\n\n")),
            (format!("From {long}\nA: b\n"), format!("\nFrom {long}\nA: b\n")),
        ];
        let cases = [
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
            ("Return-Path: x\nFrom a b\nA: b\n", "\nFrom a b\nA: b\n"),
            ("From: a\nFrom a b\n", "From: a\nFrom a b\n"),
            ("A: b\nreturn-PATH:x\n y\n\tz\nC: d\n e\n\nReturn-Path: f\n", "A: b\nC: d\n e\n\nReturn-Path: f\n"),
            ("Return-Path : x\n \n y\nA: b\n", "A: b\n"),
            ("A: b\nno field\nReturn-Path: x\n", "A: b\nno field\nReturn-Path: x\n"),
            ("Return-Path: x\n y\nno field\n z\n", "\nno field\n z\n"),
            ("Return-Path: x\n\n y\n", "\n y\n"),
            ("Return-Path: x", ""),
            ("Authentication-Results: here; spf=pass\nA: b\n", "A: b\n"),
            ("A: b\nauthentication-results : \n here; spf=pass\n dkim=pass\nC: d\n\n", "A: b\nC: d\n\n"),
            ("Authentication-Results: there; spf=pass\n x\n\n", "Authentication-Results: there; spf=pass\n x\n\n"),
            ("Authentication-Results: here;", ""),
            ("A: b\nno field\nAuthentication-Results: here; x\n y\nC: d\n", "A: b\nno field\nC: d\n"),
            ("A: b\nno field\nauthentication-results : \n here; x\n\nC: d\n", "A: b\nno field\n\nC: d\n"),
            (
                "A: b\nno field\nAuthentication-Results: there; x\n y\nReturn-Path: x\n",
                "A: b\nno field\nAuthentication-Results: there; x\n y\nReturn-Path: x\n",
            ),
            ("A: b\nno field\n\nAuthentication-Results: here;\n", "A: b\nno field\n\nAuthentication-Results: here;\n"),
            ("A: b\n\nAuthentication-Results: here;\n", "A: b\n\nAuthentication-Results: here;\n"),
            ("a", "\na"),
        ];
        let long_cases = long_cases.iter().map(|(text, want)| (text.as_str(), want.as_str()));
        for (text, want) in cases.into_iter().chain(long_cases) {
            assert_eq!(pass(text.as_bytes()).0, want, "{text:.60}");
        }
    }

    #[test]
    fn the_first_message_id_is_found_in_every_split() {
        for (text, found) in [
            ("A: b\nMessage-ID: <a@b>\nMessage-ID: <c@d>\n\n", Some("<a@b>")),
            ("MESSAGE-id:\n  <a@b>\n\t\nC: d\n <e>\n", Some("<a@b>")),
            ("Message-ID: two words \n\nx", Some("two words")),
            ("Message-ID:\nMessage-ID: <a@b>\n", Some("<a@b>")),
            ("A: b\n\nMessage-ID: <a@b>\n", None),
            ("no field\nMessage-ID: <a@b>\n", None),
            ("Message-ID:  \n\n", None),
        ] {
            for cut in 0..text.len() {
                let (mut scan, mut out) = (HeaderScan::default(), Vec::new());
                let rules = Rules { is_local: &|_| false, is_forged: &|_| false };
                scan.feed(&text.as_bytes()[..cut], rules, &mut out);
                scan.feed(&text.as_bytes()[cut..], rules, &mut out);
                scan.finish(rules, &mut out);
                assert_eq!(scan.message_id().as_deref(), found, "{text} cut at {cut}");
            }
        }
        let (mut scan, mut out) = (HeaderScan::default(), Vec::new());
        let text = format!("Message-ID: <{}>\n {}\n", "x".repeat(600), "y".repeat(600));
        scan.feed(text.as_bytes(), Rules { is_local: &|_| false, is_forged: &|_| false }, &mut out);
        assert_eq!(scan.message_id().map(|id| id.len()), Some(MAX_MESSAGE_ID - 1));
    }

    #[test]
    fn only_a_single_field_with_the_value_no_waives_tls() {
        let long = format!("TLS-Required: No{}t\n", " ".repeat(MAX_TLS_REQUIRED));
        for (text, wanted) in [
            ("A: b\nTLS-Required: No\nC: d\n\n", true),
            ("tls-required:no\n\n", true),
            ("TLS-REQUIRED :\n\tNO \nA: b\n", true),
            ("TLS-Required: No", true),
            ("TLS-Required: Yes\n", false),
            ("TLS-Required: No, yes\n", false),
            ("TLS-Required: None\n", false),
            ("TLS-Required:\n", false),
            ("TLS-Required: No\nTLS-Required: No\n", false),
            ("TLS-Required: No\nTLS-Required:\n", false),
            ("TLS-Required:\nA: b\nTLS-Required: No\n", false),
            ("TLS-Required:: No\n", false),
            ("TLS-Required: No\n yes\n", false),
            ("A: b\n\nTLS-Required: No\n", false),
            ("no field\nTLS-Required: No\n", false),
            ("A: b\nno field\nTLS-Required: No\n", false),
            ("X-TLS-Required: No\n", false),
            (&long, false),
        ] {
            for cut in 0..text.len() {
                let (mut scan, mut out) = (HeaderScan::default(), Vec::new());
                let rules = Rules { is_local: &|_| false, is_forged: &|_| false };
                let mut body = scan.feed(&text.as_bytes()[..cut], rules, &mut out).to_vec();
                body.extend_from_slice(scan.feed(&text.as_bytes()[cut..], rules, &mut out));
                scan.finish(rules, &mut out);
                assert_eq!(scan.waives_tls(), wanted, "{text} cut at {cut}");
                // The field stays in the message.
                assert!([out, body].concat().ends_with(text.as_bytes()), "{text} cut at {cut}");
            }
        }
    }

    #[test]
    fn marks_are_found_in_every_split_and_bounded() {
        let many = "X-Penfold-Copied: A\n".repeat(MAX_MARKS);
        for (text, found) in [
            ("X-Penfold-Copied: AB=CD\nA: b\nx-penfold-copied:\n EF=GH \n\nX-Penfold-Copied: body\n", "|AB=CD|EF=GH"),
            ("X-Penfold-Copied: \u{e4}:b\nX-Penfold-Copied:\nX-Penfold: c\n", "|\u{e4}|b|"),
        ] {
            for cut in (0..text.len()).filter(|&cut| text.is_char_boundary(cut)) {
                let (mut scan, mut out) = (HeaderScan::default(), Vec::new());
                let rules = Rules { is_local: &|_| false, is_forged: &|_| false };
                scan.feed(&text.as_bytes()[..cut], rules, &mut out);
                scan.feed(&text.as_bytes()[cut..], rules, &mut out);
                scan.finish(rules, &mut out);
                assert_eq!(scan.marks().collect::<Vec<_>>().join("|"), found, "{text} cut at {cut}");
            }
        }
        let (mut scan, mut out) = (HeaderScan::default(), Vec::new());
        scan.feed(many.as_bytes(), Rules { is_local: &|_| false, is_forged: &|_| false }, &mut out);
        assert!(scan.filter.marks.len() == MAX_MARKS && out.len() == many.len());
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

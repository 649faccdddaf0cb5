//! The report to a sender whose message could not be delivered.
//!
//! [`compose`] makes a whole message of three parts (RFC 6522, RFC 3464): what
//! happened and what to do, in words for a person who is no postmaster; the
//! same for programs; the header of the original. Every line is ASCII and at
//! most 998 octets long, so the report passes wherever a message can. Nothing
//! that another host or the original says can break the structure: what is not
//! clean is folded, or encoded as quoted-printable, in which the boundary cannot
//! occur. Composing cannot fail; a damaged original only makes the report say
//! less. The sender is not shown the names of files here. Does not decide who is
//! told, when or how often, and spools nothing: the worker does.

use std::borrow::Cow;

use jiff::Timestamp;

use crate::address::{Address, parse_domain};
use crate::envelope::Recipient;
use crate::log;
use crate::message::trace;
use crate::outcome::{Fate, Outcome};
use crate::reply::Status;

use super::reason::Reason;

/// All that a report is made of.
#[derive(Debug, Clone, Copy)]
pub struct Report<'a> {
    /// This host: the reporting MTA, and the domain of From and of Message-ID.
    pub hostname: &'a str,
    /// The queue id of the report itself; letters and digits.
    pub id: &'a str,
    /// The queue id of the original.
    pub original: &'a str,
    /// Seconds since 1970: the time of the report and of the last attempt.
    pub now: i64,
    /// Seconds since 1970: when the original was accepted.
    pub arrival: i64,
    /// Who is told.
    pub to: &'a Address,
    /// The reverse-path of the original. `None`: it had none, and the postmaster is told.
    pub sender: Option<&'a Address>,
    /// Who did not get the message, and what the last attempt said. An outcome
    /// that defers means that the message expired.
    pub failures: &'a [(Recipient, Outcome)],
    /// The front of the original, lines ending in LF: its header, or as much of
    /// it as is to be shown. What follows an empty line is not used.
    pub header: &'a [u8],
    /// How many reports like this one were not sent since the last one, for there were too many.
    pub withheld: u64,
}

/// The longest line (RFC 5322 2.1.1), in octets.
const MAX_LINE: usize = 998;
/// Where lines are folded if they have blanks, in characters.
const WIDTH: usize = 72;
/// How much of another host's words is shown, in characters.
const MAX_SAID: usize = 2000;
/// The same after the first [`FULLY_TOLD`] recipients.
const MAX_SAID_LATER: usize = 200;
const FULLY_TOLD: usize = 25;
/// As much of the original's header is shown: whoever has forged the sender wrote it.
const MAX_SHOWN: usize = 8 << 10;

/// The report as a message: header and body, lines ending in LF, all of it ASCII.
pub fn compose(report: &Report) -> Vec<u8> {
    let original = header_block(report.header);
    // "=_" cannot occur in quoted-printable (RFC 2045 6.7).
    let boundary = format!("=_{}", report.id);
    let shown = shown(original);
    let is_whole = shown.len() == original.len();
    let words = plain_words(report, original, is_whole);
    let title = if is_whole { "Header of the message" } else { "Header of the message, in part" };
    let charset = if words.is_ascii() { "us-ascii" } else { "utf-8" };
    let mut out = header(report, original, &boundary);
    for (kind, title, content) in [
        (&*format!("text/plain; charset={charset}"), "What happened", words.as_bytes()),
        ("message/delivery-status", "Details for programs", status_blocks(report).as_bytes()),
        ("text/rfc822-headers", title, &*shown),
    ] {
        out += &format!("--{boundary}\nContent-Type: {kind}\nContent-Description: {title}\n");
        body(&mut out, &boundary, content);
    }
    out += &format!("--{boundary}--\n");
    out.into_bytes()
}

fn header(report: &Report, original: &[u8], boundary: &str) -> String {
    let Report { hostname, id, .. } = report;
    let to = if report.to.domain().is_empty() { report.to.at(hostname) } else { report.to.clone() };
    let mut out = format!("Date: {}\n", date(report.now));
    out += &format!("From: Mail Delivery System <MAILER-DAEMON@{hostname}>\nTo: {to}\n");
    fold(&mut out, "Subject", &subject(report, original));
    out += &format!("Message-ID: <{id}@{hostname}>\n");
    let references = references(original);
    if let Some(parent) = message_ids(original, "Message-ID").first() {
        out += &format!("In-Reply-To: {parent}\n");
    }
    if !references.is_empty() {
        fold(&mut out, "References", &references.join(" "));
    }
    // RFC 3834 5: no responder answers this.
    out += "Auto-Submitted: auto-replied\nMIME-Version: 1.0\n";
    out += &format!("Content-Type: multipart/report; report-type=delivery-status;\n boundary=\"{boundary}\"\n\n");
    out
}

/// The original's own subject is what a mailbox full of mail is searched for. It
/// may be in encoded words (RFC 2047), which are kept whole.
fn subject(report: &Report, original: &[u8]) -> String {
    let what = if report.sender.is_some() { "Undelivered mail" } else { "Undelivered report" };
    match field(original, "Subject").filter(|s| (1..=200).contains(&s.len()) && is_printable(s)) {
        Some(subject) => format!("{what}: {subject}"),
        None => what.to_owned(),
    }
}

/// The references of a reply (RFC 5322 3.6.4). Of a long thread, its root and its end.
fn references(original: &[u8]) -> Vec<String> {
    const MOST: usize = 20;
    let mut ids = message_ids(original, "References");
    if ids.is_empty() {
        ids = message_ids(original, "In-Reply-To");
        ids.truncate(if ids.len() == 1 { 1 } else { 0 });
    }
    let parent = message_ids(original, "Message-ID").into_iter().next();
    ids.retain(|id| Some(id) != parent.as_ref());
    ids.extend(parent);
    if ids.len() > MOST {
        ids.drain(1..=ids.len() - MOST);
    }
    ids
}

// What a person reads.

fn plain_words(report: &Report, original: &[u8], is_whole: bool) -> String {
    let mut text = String::new();
    let mut reasons: Vec<Reason> = Vec::new();
    for (_, outcome) in report.failures {
        let reason = Reason::of(outcome);
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }
    paragraph(&mut text, "", &format!("This is the mail system at {}.", report.hostname));
    paragraph(&mut text, "", &opening(report, original));
    for reason in reasons {
        let (what, advice) = reason.words();
        let tried = if reason.is_late() {
            format!(" in {}, and is given up now", span(report.now.saturating_sub(report.arrival)))
        } else {
            String::new()
        };
        paragraph(&mut text, "", &format!("{what}{tried}:"));
        let failures = report.failures.iter().enumerate().filter(|(_, (_, o))| Reason::of(o) == reason);
        for (number, (recipient, outcome)) in failures {
            text += &format!("    {}\n", named(recipient));
            paragraph(&mut text, "      ", &said(report, outcome, most_said(number)));
        }
        if report.sender.is_some() {
            paragraph(&mut text, "", advice);
        }
    }
    match report.withheld {
        0 => {}
        1 => paragraph(&mut text, "", "Before this, 1 other report was withheld: there were too many."),
        n => paragraph(&mut text, "", &format!("Before this, {n} other reports were withheld: there were too many.")),
    }
    text += &closing(report, is_whole);
    text
}

/// How much is shown of what was said of a recipient.
fn most_said(number: usize) -> usize {
    if number < FULLY_TOLD { MAX_SAID } else { MAX_SAID_LATER }
}

fn opening(report: &Report, original: &[u8]) -> String {
    let quoted = match field(original, "Subject").filter(|s| is_readable(s)) {
        Some(s) => format!(" \"{}\"", cut(&s, 100)),
        None => String::new(),
    };
    let sent = field(original, "Date").filter(|d| (1..=60).contains(&d.len()) && is_printable(d));
    let sent = sent.unwrap_or_else(|| date(report.arrival));
    let whom = if report.failures.len() == 1 { "this address" } else { "these addresses" };
    match report.sender {
        Some(_) => {
            format!("Your message{quoted}, sent {sent}, could not be delivered to {whom}. It will not be tried again.")
        }
        None => format!(
            "The message{quoted}, sent {sent}, has no sender who could be told: most likely it is a report about other \
             mail. It could not be delivered to {whom}, will not be tried again, and nobody but you is told."
        ),
    }
}

fn closing(report: &Report, is_whole: bool) -> String {
    let Report { hostname, original, .. } = report;
    let mut text = String::new();
    let part = if is_whole { "" } else { ", as far as it fits into 8 KiB" };
    let last = match report.sender {
        Some(_) => format!(
            "Where this does not help, write to postmaster@{hostname} and send this report along. What follows is \
             for programs and experts: the details, and the header of your message{part}. Here it was known as \
             {original}."
        ),
        None => format!("The details and the header of the message{part} follow. The log knows it as {original}."),
    };
    flow(&mut text, "", &last);
    text + "\n"
}

/// A recipient as the sender knows him.
fn named(recipient: &Recipient) -> String {
    match &recipient.original {
        Some(original) => format!("{original} (passed on to {})", recipient.address),
        None => recipient.address.to_string(),
    }
}

fn said(report: &Report, outcome: &Outcome, most: usize) -> String {
    match (remote_mta(&outcome.host), &outcome.reply) {
        (Some(host), Some(reply)) => format!("{host} said: {}", cut(&reply.to_string(), most)),
        (None, Some(reply)) => format!("The reply was: {}", cut(&reply.to_string(), most)),
        (Some(host), None) => format!("{host}: {}", own_words(report, outcome, most)),
        (None, None) => own_words(report, outcome, most),
    }
}

/// Our own account of a failure. The world outside is not shown our file system.
fn own_words(report: &Report, outcome: &Outcome, most: usize) -> String {
    let names_file = |text: &str| text.split([' ', '"', '\'', '(', '<', '=']).any(|word| word.starts_with('/'));
    // Its owner has the command say what people are to read.
    if report.sender.is_some() && !outcome.is_quoted && (names_file(&outcome.host) || names_file(&outcome.why)) {
        return "the mailbox could not be written to".to_owned();
    }
    if outcome.why.trim().is_empty() { "no reason is known".to_owned() } else { cut(&outcome.why, most) }
}

/// A length of time in the words that a person would use.
fn span(seconds: i64) -> String {
    let (count, unit) = match seconds {
        ..60 => return "less than a minute".to_owned(),
        60..3600 => (seconds / 60, "minute"),
        3600..172_800 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

// What a program reads (RFC 3464 2).

fn status_blocks(report: &Report) -> String {
    let mut out = format!("Reporting-MTA: dns; {}\nX-Penfold-Queue-ID: {}\n", report.hostname, report.original);
    if let Some(sender) = report.sender {
        out += &format!("X-Penfold-Sender: rfc822; {sender}\n");
    }
    out += &format!("Arrival-Date: {}\n", date(report.arrival));
    for (number, (recipient, outcome)) in report.failures.iter().enumerate() {
        let most = most_said(number);
        out.push('\n');
        if let Some(original) = &recipient.original {
            out += &format!("Original-Recipient: rfc822; {original}\n");
        }
        out += &format!("Final-Recipient: rfc822; {}\nAction: failed\n", recipient.address);
        out += &format!("Status: {}\n", status(outcome));
        if let Some(host) = remote_mta(&outcome.host) {
            out += &format!("Remote-MTA: dns; {host}\n");
        }
        let diagnostic = match &outcome.reply {
            Some(reply) => format!("smtp; {}", cut(&reply.to_string(), most)),
            None => format!("X-Penfold; {}", own_words(report, outcome, most)),
        };
        fold(&mut out, "Diagnostic-Code", &diagnostic);
        out += &format!("Last-Attempt-Date: {}\n", date(report.now));
    }
    out
}

/// What expired keeps the status of its last attempt, and class 4 with it: X.4.7
/// is for when there is none (RFC 3463 3.5, RFC 3464 2.3.4).
fn status(outcome: &Outcome) -> Status {
    match (outcome.fate, outcome.status) {
        (Fate::Deferred, Status(_, 0, 0)) => Status(4, 4, 7),
        (Fate::Deferred, Status(_, subject, detail)) => Status(4, subject, detail),
        (_, Status(_, subject, detail)) => Status(5, subject, detail),
    }
}

/// The host of `mx.example.org[192.0.2.1]:25`: its name, or its address where it
/// has none. A mailbox is no host.
fn remote_mta(host: &str) -> Option<String> {
    let (name, rest) = host.split_once('[')?;
    if name.is_empty() {
        let (ip, _) = rest.split_once(']')?;
        return Some(format!("[{}]", ip.parse::<std::net::IpAddr>().ok()?));
    }
    parse_domain(name).ok().map(String::from)
}

// Reading the original.

/// The front of a message as far as the empty line that ends its header.
fn header_block(text: &[u8]) -> &[u8] {
    if text.starts_with(b"\n") {
        return b"";
    }
    match text.windows(2).position(|pair| pair == b"\n\n") {
        Some(end) => text.get(..=end).unwrap_or(text),
        None => text,
    }
}

/// The fields of a header that fit into what is shown, the first ones first, each whole.
fn shown(header: &[u8]) -> Cow<'_, [u8]> {
    if header.len() <= MAX_SHOWN {
        return header.into();
    }
    let (mut kept, mut field) = (Vec::new(), Vec::new());
    for line in header.split_inclusive(|&b| b == b'\n') {
        if !matches!(line.first(), Some(b' ' | b'\t')) {
            keep(&mut kept, &mut field);
        }
        field.extend_from_slice(line);
    }
    keep(&mut kept, &mut field);
    kept.into()
}

/// Moves a field to those that are shown, if there is room.
fn keep(kept: &mut Vec<u8>, field: &mut Vec<u8>) {
    if kept.len() + field.len() <= MAX_SHOWN {
        kept.append(field);
    }
    field.clear();
}

/// The first field of a name, unfolded.
fn field(header: &[u8], name: &str) -> Option<String> {
    let value_of = |line: &[u8]| {
        let colon = line.iter().position(|&b| b == b':')?;
        let (found, value) = line.split_at(colon);
        // Blanks in front of the colon are obsolete (RFC 5322 4.5), and seen.
        found.trim_ascii_end().eq_ignore_ascii_case(name.as_bytes()).then(|| value.get(1..).unwrap_or(b"").to_vec())
    };
    let mut lines = header.split(|&b| b == b'\n');
    let mut value = lines.find_map(value_of)?;
    for line in lines.take_while(|line| matches!(line.first(), Some(b' ' | b'\t'))) {
        value.extend_from_slice(line);
    }
    Some(String::from_utf8_lossy(&value).trim().to_owned())
}

/// The message ids in a field, with their angle brackets; what cannot be one is left out.
fn message_ids(header: &[u8], name: &str) -> Vec<String> {
    let good = |id: &&str| (1..=250).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic() && b != b'<');
    let value = field(header, name).unwrap_or_default();
    let ids = value.split('<').skip(1).filter_map(|text| text.split_once('>').map(|(id, _)| id));
    ids.filter(good).map(|id| format!("<{id}>")).collect()
}

fn is_printable(text: &str) -> bool {
    text.bytes().all(|b| (b' '..=b'~').contains(&b))
}

/// Whether a person can read it: no control characters, no damaged UTF-8, no encoded words.
fn is_readable(text: &str) -> bool {
    !text.is_empty() && !text.contains("=?") && !text.chars().any(|c| c.is_control() || c == '\u{fffd}')
}

// Writing.

/// A time in the zone of this host, as a header has it.
fn date(seconds: i64) -> String {
    let time = Timestamp::from_second(seconds.max(0)).unwrap_or(Timestamp::UNIX_EPOCH);
    trace::date(&time.to_zoned(log::zone().clone()))
}

fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((at, _)) => format!("{}...", text.get(..at).unwrap_or(text)),
        None => text.to_owned(),
    }
}

/// A header field of free text.
fn fold(out: &mut String, name: &str, value: &str) {
    let clean: String = value.chars().map(|c| if (' '..='~').contains(&c) { c } else { '?' }).collect();
    *out += &format!("{name}: ");
    flow(out, " ", &clean);
    out.push('\n');
}

fn paragraph(out: &mut String, indent: &str, text: &str) {
    *out += indent;
    flow(out, indent, text);
    *out += "\n\n";
}

/// Adds words to the last line, and begins a new one where it is full. A word
/// that fits no line of mail is cut into some that do.
fn flow(out: &mut String, indent: &str, text: &str) {
    const LONGEST: usize = 900;
    let mut column = out.len() - out.rfind('\n').map_or(0, |at| at + 1);
    for (n, word) in text.split_whitespace().enumerate() {
        let chars: Vec<char> = word.chars().collect();
        for (m, piece) in chars.chunks(LONGEST).enumerate() {
            if column + 1 + piece.len() > WIDTH && n + m > 0 {
                *out += &format!("\n{indent}");
                column = indent.len();
            } else if n > 0 {
                out.push(' ');
                column += 1;
            }
            out.extend(piece);
            column += piece.len();
        }
    }
}

/// The content of a part, which ends with a line break that is its own.
fn body(out: &mut String, boundary: &str, content: &[u8]) {
    if is_plain(content, boundary) {
        *out += &format!("\n{}", String::from_utf8_lossy(content));
        if !content.is_empty() && !content.ends_with(b"\n") {
            out.push('\n');
        }
    } else {
        *out += "Content-Transfer-Encoding: quoted-printable\n\n";
        quoted_printable(out, content);
    }
    // The line break before a boundary belongs to the boundary (RFC 2046 5.1.1).
    out.push('\n');
}

/// Whether a part can go as it is. Status blocks always can: all their lines
/// begin with the name of a field or a blank.
fn is_plain(content: &[u8], boundary: &str) -> bool {
    let ends_part = |line: &[u8]| line.strip_prefix(b"--").is_some_and(|rest| rest.starts_with(boundary.as_bytes()));
    let is_clean = |line: &[u8]| line.iter().all(|&b| b == b'\t' || (b' '..=b'~').contains(&b));
    content.split(|&b| b == b'\n').all(|line| line.len() <= MAX_LINE && is_clean(line) && !ends_part(line))
}

/// RFC 2045 6.7: what is not printable, and a blank at the end of a line, as `=XX`.
fn quoted_printable(out: &mut String, content: &[u8]) {
    const LONGEST: usize = 76; // with the = of a soft line break
    for line in content.strip_suffix(b"\n").unwrap_or(content).split(|&b| b == b'\n') {
        let mut column = 0;
        for (at, &b) in line.iter().enumerate() {
            let inside = at + 1 < line.len();
            let literal = matches!(b, b'!'..=b'<' | b'>'..=b'~') || (inside && matches!(b, b' ' | b'\t'));
            let octet = if literal { char::from(b).to_string() } else { format!("={b:02X}") };
            if column + octet.len() >= LONGEST {
                *out += "=\n";
                column = 0;
            }
            *out += &octet;
            column += octet.len();
        }
        out.push('\n');
    }
}

//! Composes the reports to the sender of a message: that it could not be delivered, is delayed, or
//! was delivered.
//!
//! [`compose`] makes a whole message of three parts (RFC 6522, RFC 3464): an explanation in plain
//! words, the same facts for programs, and the header of the original message or, if its sender
//! asked for that, the whole message. Every line is at most 998 octets long, and all is ASCII, with
//! two exceptions: a whole message that is returned is 8-bit if the original is, and a recipient of
//! the report whose address is UTF-8 is named in UTF-8. No text of another host or of the original
//! can break the structure: unusual text is folded, or encoded as quoted-printable, in which the
//! boundary cannot occur. Composing cannot fail; a damaged original only makes the report shorter.
//! Senders are not shown the names of files on this host.
//!
//! If the original is an SMTPUTF8 message, or an address outside ASCII is too long for a line of
//! ASCII, the second and the third part have the types of RFC 6533, in which addresses and fields
//! are UTF-8.
//!
//! The worker decides whether a report is sent, and to whom, and puts the report into the spool.

use std::io;
use std::sync::Arc;

use jiff::{Timestamp, Zoned};

use crate::address::Address;
use crate::envelope::Recipient;
use crate::log;
use crate::message::mime::{self, Conversion};
use crate::message::{encoded_words, field as header_field, trace};
use crate::outcome::Outcome;
use crate::spool::ReportedEvent;

use super::encode::{MAX_LINE, body, fold, is_boundary, text_body};
use super::languages::{Language, Languages};
use super::original::{field, is_printable, message_ids, references, shown};
use super::status::status_blocks;
use super::words::plain_words;

/// The name in From of a report.
const SENDER: &str = "Mail Delivery System";

/// The facts that a report states.
#[derive(Debug, Clone, Copy)]
pub struct Report<'a> {
    /// The name of this host, which is the reporting MTA and the domain of From and Message-ID.
    pub hostname: &'a str,
    /// The queue id of the report itself, in letters and digits.
    pub id: &'a str,
    /// The queue id of the original message.
    pub original: &'a str,
    /// The time of the report and of the last attempt, in seconds since 1970.
    pub now: i64,
    /// The time at which the original was accepted, in seconds since 1970.
    pub arrival: i64,
    /// The time until which a delayed message is tried, in seconds since 1970.
    pub until: i64,
    /// The recipient of the report: the sender of the original, or the postmaster.
    pub to: &'a Address,
    /// The reverse-path of the original. `None` stands for the null path; the report then goes to
    /// the postmaster.
    pub sender: Option<&'a Address>,
    /// The name that the sender has given to the envelope, in xtext (ENVID, RFC 3461).
    pub envid: Option<&'a str>,
    /// The time by which the sender wants the original delivered, in seconds since 1970 (RFC 2852).
    pub deadline: Option<i64>,
    /// The time until which the sender wants the original kept, in seconds since 1970, and the number
    /// of seconds until then, if that is what the sender has said (RFC 4865).
    pub release: Option<(u64, Option<u32>)>,
    /// Whether the original is an SMTPUTF8 message.
    pub is_utf8: bool,
    /// What the report says about each recipient: there is at least one, and the events are all
    /// failures, all delays or all successes.
    pub results: &'a [Reported],
    /// The original, with lines that end in LF.
    pub message: Returned<'a>,
    /// The number of reports to `to` that were withheld since the last report was sent to `to`.
    pub withheld: u64,
    /// The languages of this site.
    pub languages: &'a Languages,
}

/// A recipient in a report.
#[derive(Debug, Clone)]
pub struct Reported {
    /// The recipient.
    pub recipient: Recipient,
    /// What has happened.
    pub event: ReportedEvent,
    /// The outcome of the last attempt. A failure with a deferred outcome means that the message
    /// expired.
    pub outcome: Outcome,
    /// The lines of the last dialogue with a remote host about this recipient, the first one with
    /// the name of the host. Empty if there was no dialogue.
    pub dialogue: Vec<String>,
}

/// The original message, as far as a report can contain it.
#[derive(Debug, Clone, Copy)]
pub enum Returned<'a> {
    /// The header, or as much of the header as was read. Text after an empty line is not used.
    Header(&'a [u8]),
    /// The whole message, which is text.
    Message(&'a [u8]),
}

/// The three kinds of reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Failure,
    Delay,
    Success,
}

impl Report<'_> {
    pub(super) fn kind(&self) -> Kind {
        match self.results.first().map(|result| result.event) {
            None | Some(ReportedEvent::Failure) => Kind::Failure,
            Some(ReportedEvent::Delay) => Kind::Delay,
            Some(ReportedEvent::Success(_)) => Kind::Success,
        }
    }
}

/// The third part of a report, and how it is described.
pub(super) struct Part<'a> {
    /// What the part contains.
    pub extent: Extent,
    content: std::borrow::Cow<'a, [u8]>,
}

/// The part of the original that a report contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    Message,
    Header,
    PartOfHeader,
}

/// Composes the report as a message with lines that end in LF.
pub fn compose(report: &Report) -> Vec<u8> {
    // An address outside ASCII may be too long for a line of ASCII. The types of RFC 6533 allow an
    // encoding of the part, and message/delivery-status does not.
    let is_too_long = |report: &Report| status_blocks(report).lines().any(|line| line.len() > MAX_LINE);
    let report = &Report { is_utf8: report.is_utf8 || is_too_long(report), ..*report };
    // "=_" cannot occur in quoted-printable (RFC 2045 6.7).
    let boundary = format!("=_{}", report.id);
    let (Returned::Header(text) | Returned::Message(text)) = report.message;
    let original = header_field::header(text);
    let part = part(report, original, &boundary);
    // The language of the original says nothing about the postmaster.
    let languages = report.languages.choose(report.sender.and(Some(original)));
    let is_eight_bit = part.extent == Extent::Message && !part.content.is_ascii();
    let mut out = header(report, original, &boundary, is_eight_bit, &languages);
    out += &format!("--{boundary}\n");
    if report.languages.is_multilingual() && languages.len() > 1 {
        multilingual(&mut out, report, original, part.extent, &languages);
    } else {
        text_part(&mut out, &boundary, &plain_words(report, original, part.extent, &languages), &languages);
    }
    let status = if report.is_utf8 { "message/global-delivery-status" } else { "message/delivery-status" };
    out += &format!("--{boundary}\nContent-Type: {status}\nContent-Description: Details for programs\n");
    body(&mut out, &boundary, status_blocks(report).as_bytes());
    let (kind, title) = match (part.extent, report.is_utf8) {
        (Extent::Message, false) => ("message/rfc822", "The message"),
        (Extent::Message, true) => ("message/global", "The message"),
        (Extent::Header, false) => ("text/rfc822-headers", "Header of the message"),
        (Extent::Header, true) => ("message/global-headers", "Header of the message"),
        (Extent::PartOfHeader, false) => ("text/rfc822-headers", "Header of the message, in part"),
        (Extent::PartOfHeader, true) => ("message/global-headers", "Header of the message, in part"),
    };
    out += &format!("--{boundary}\nContent-Type: {kind}\nContent-Description: {title}\n");
    let mut out = if part.extent == Extent::Message {
        // A message in a report must not be encoded (RFC 2046 5.2.1).
        out += if is_eight_bit { "Content-Transfer-Encoding: 8bit\n\n" } else { "\n" };
        let mut out = out.into_bytes();
        out.extend_from_slice(&part.content);
        out.push(b'\n');
        out
    } else {
        body(&mut out, &boundary, &part.content);
        out.into_bytes()
    };
    out.extend_from_slice(format!("--{boundary}--\n").as_bytes());
    out
}

/// Chooses the part of the original that the report contains. A message with lines that are too
/// long, or with control characters, is not returned as a whole: only its header is. The same
/// holds for a message that cannot be converted for a host without 8BITMIME, because the whole
/// report would be lost there. A message with the type of RFC 6533 may be encoded as a whole.
fn part<'a>(report: &Report<'a>, original: &'a [u8], boundary: &str) -> Part<'a> {
    let is_clean = |line: &[u8]| line.len() <= MAX_LINE && !line.contains(&0) && !line.contains(&b'\r');
    if let Returned::Message(text) = report.message
        && (report.is_utf8 || is_sendable(text))
        && text.split(|&b| b == b'\n').all(|line| is_clean(line) && !is_boundary(line, boundary))
    {
        return Part { extent: Extent::Message, content: text.into() };
    }
    let shown = shown(original);
    let extent = if shown.len() == original.len() { Extent::Header } else { Extent::PartOfHeader };
    Part { extent, content: shown }
}

/// Whether every host takes a message, as it is or converted.
fn is_sendable(text: &[u8]) -> bool {
    let conversion = Conversion { is_binary: false, keeps_eight_bit: false };
    text.is_ascii() || matches!(mime::convert(|| text, conversion, &|_| false, &mut io::sink()), Ok(Ok(())))
}

fn header(report: &Report, original: &[u8], boundary: &str, is_eight_bit: bool, languages: &[Arc<Language>]) -> String {
    let Report { hostname, id, .. } = report;
    let to = if report.to.domain().is_empty() { report.to.at(hostname) } else { report.to.clone() };
    let mut out = format!("Date: {}\n", date(report.now));
    out += &format!("From: {SENDER} <MAILER-DAEMON@{hostname}>\nTo: {to}\n");
    let language = languages.first().map(|language| subject(report, original, language));
    fold(&mut out, "Subject", &language.unwrap_or_default(), false);
    out += &format!("Message-ID: <{id}@{hostname}>\n");
    let references = references(original);
    if let Some(parent) = message_ids(original, "Message-ID").first() {
        out += &format!("In-Reply-To: {parent}\n");
    }
    if !references.is_empty() {
        fold(&mut out, "References", &references.join(" "), false);
    }
    // With this field, automatic responders do not answer the report (RFC 3834 5).
    out += "Auto-Submitted: auto-replied\nMIME-Version: 1.0\n";
    out += if is_eight_bit { "Content-Transfer-Encoding: 8bit\n" } else { "" };
    out += &format!("Content-Type: multipart/report; report-type=delivery-status;\n boundary=\"{boundary}\"\n\n");
    out
}

/// Writes the text in all languages as one part.
fn text_part(out: &mut String, boundary: &str, words: &str, languages: &[Arc<Language>]) {
    let charset = if words.is_ascii() { "us-ascii" } else { "utf-8" };
    let tags = languages.iter().map(|language| language.tag.as_str()).collect::<Vec<_>>().join(", ");
    *out += &format!("Content-Type: text/plain; charset={charset}\nContent-Language: {tags}\n");
    *out += "Content-Description: What happened\n";
    text_body(out, boundary, words);
}

/// Writes the text in each language as a message of its own, after a text that says so (RFC 8255).
fn multilingual(out: &mut String, report: &Report, original: &[u8], extent: Extent, languages: &[Arc<Language>]) {
    let boundary = format!("=_l{}", report.id);
    *out += &format!("Content-Type: multipart/multilingual; boundary=\"{boundary}\"\n");
    *out += "Content-Description: What happened\n\n";
    let several: Vec<String> =
        languages.iter().map(|language| format!("{}\n", language.text("text.several"))).collect();
    *out += &format!("--{boundary}\nContent-Type: text/plain; charset=utf-8\n");
    text_body(out, &boundary, &several.concat());
    for language in languages {
        let origin = if language.tag == "en" { "original" } else { "human" };
        *out += &format!("--{boundary}\nContent-Type: message/rfc822\nContent-Language: {}\n", language.tag);
        *out += &format!("Content-Translation-Type: {origin}\nContent-Disposition: inline\n\n");
        *out += &format!("From: {SENDER} <MAILER-DAEMON@{}>\n", report.hostname);
        fold(out, "Subject", &subject(report, original, language), false);
        *out += "MIME-Version: 1.0\n";
        let language = std::slice::from_ref(language);
        text_part(out, &boundary, &plain_words(report, original, extent, language), language);
    }
    *out += &format!("--{boundary}--\n\n");
}

/// Returns the subject of the report. It contains the subject of the original, because users search
/// their mailboxes for that text, and keeps encoded words (RFC 2047) whole.
fn subject(report: &Report, original: &[u8], language: &Language) -> String {
    let title = language.text(match (report.kind(), report.sender) {
        (Kind::Failure, Some(_)) => "subject.failure",
        (Kind::Failure, None) => "subject.postmaster",
        (Kind::Delay, _) => "subject.delay",
        (Kind::Success, _) => "subject.success",
    });
    let encoded = |text: String| if text.is_ascii() { text } else { encoded_words::write(&text) };
    match field(original, "Subject").filter(|s| (1..=200).contains(&s.len()) && is_printable(s)) {
        // The blank between two encoded words is not shown.
        Some(subject) if !title.is_ascii() && subject.starts_with("=?") => {
            format!("{} {subject}", encoded(format!("{title}: ")))
        }
        Some(subject) => format!("{} {subject}", encoded(format!("{title}:"))),
        None => encoded(title.to_owned()),
    }
}

/// Returns a time as in a header field, in the time zone of this host.
pub(super) fn date(seconds: i64) -> String {
    trace::date(&local_time(seconds))
}

/// Returns a time in the time zone of this host.
pub(super) fn local_time(seconds: i64) -> Zoned {
    let time = Timestamp::from_second(seconds.max(0)).unwrap_or(Timestamp::UNIX_EPOCH);
    time.to_zoned(log::zone().clone())
}

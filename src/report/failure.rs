//! Composes the report to a sender whose message could not be delivered.
//!
//! [`compose`] makes a whole message of three parts (RFC 6522, RFC 3464): an explanation and advice
//! in plain words, the same facts for programs, and the header of the original message. Every line
//! is ASCII and at most 998 octets long, so that the report passes every mail system. No text of
//! another host or of the original can break the structure: unusual text is folded, or encoded as
//! quoted-printable, in which the boundary cannot occur. Composing cannot fail; a damaged original
//! only makes the report shorter. Senders are not shown the names of files on this host.
//!
//! The worker decides whether a report is sent, and to whom, and puts the report into the spool.

use jiff::Timestamp;

use crate::address::{Address, parse_domain};
use crate::envelope::Recipient;
use crate::log;
use crate::message::{field as header_field, trace};
use crate::outcome::{Fate, Outcome};
use crate::reply::Status;

use super::encode::{body, cut, flow, fold, paragraph};
use super::original::{field, is_printable, is_readable, message_ids, references, shown};
use super::reason::Reason;

/// The facts that a failure report states.
#[derive(Debug, Clone, Copy)]
pub struct FailureReport<'a> {
    /// The name of this host, which is the reporting MTA and the domain of From and Message-ID.
    pub hostname: &'a str,
    /// The queue id of the report itself, in letters and digits.
    pub id: &'a str,
    /// The queue id of the original message, which could not be delivered.
    pub original: &'a str,
    /// The time of the report and of the last attempt, in seconds since 1970.
    pub now: i64,
    /// The time at which the original was accepted, in seconds since 1970.
    pub arrival: i64,
    /// The recipient of the report: the sender of the original, or the postmaster.
    pub to: &'a Address,
    /// The reverse-path of the original. `None` stands for the null path; the report then goes to
    /// the postmaster.
    pub sender: Option<&'a Address>,
    /// The recipients that failed, each with the outcome of its last attempt. A deferred outcome
    /// means that the message expired.
    pub failures: &'a [(Recipient, Outcome)],
    /// The front of the original, with lines that end in LF: the header, or as much of the header
    /// as was read. Text after an empty line is not used.
    pub header: &'a [u8],
    /// The number of reports to `to` that were withheld since the last report was sent to `to`.
    pub withheld: u64,
}

/// The maximum length of the text that explains one failed recipient, in characters.
const MAX_TEXT: usize = 2000;
/// The maximum length of the text that explains a failed recipient after the first [`FULLY_SHOWN`]
/// recipients, in characters.
const MAX_TEXT_LATER: usize = 200;
/// The number of recipients whose texts may be as long as [`MAX_TEXT`].
const FULLY_SHOWN: usize = 25;

/// Composes the report as a message: header and body in ASCII, with lines that end in LF.
pub fn compose(report: &FailureReport) -> Vec<u8> {
    let original = header_field::header(report.header);
    // "=_" cannot occur in quoted-printable (RFC 2045 6.7).
    let boundary = format!("=_{}", report.id);
    let shown = shown(original);
    let is_complete = shown.len() == original.len();
    let words = plain_words(report, original, is_complete);
    let title = if is_complete { "Header of the message" } else { "Header of the message, in part" };
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

fn header(report: &FailureReport, original: &[u8], boundary: &str) -> String {
    let FailureReport { hostname, id, .. } = report;
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
    // With this field, automatic responders do not answer the report (RFC 3834 5).
    out += "Auto-Submitted: auto-replied\nMIME-Version: 1.0\n";
    out += &format!("Content-Type: multipart/report; report-type=delivery-status;\n boundary=\"{boundary}\"\n\n");
    out
}

/// Returns the subject of the report. It contains the subject of the original, because users search
/// their mailboxes for that text, and keeps encoded words (RFC 2047) whole.
fn subject(report: &FailureReport, original: &[u8]) -> String {
    let title = if report.sender.is_some() { "Undelivered mail" } else { "Undelivered report" };
    match field(original, "Subject").filter(|s| (1..=200).contains(&s.len()) && is_printable(s)) {
        Some(subject) => format!("{title}: {subject}"),
        None => title.to_owned(),
    }
}

// The next functions write the first part of the report, in plain words for people.

fn plain_words(report: &FailureReport, original: &[u8], is_complete: bool) -> String {
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
        let (what_happened, advice) = reason.words();
        let tried = if reason.is_late() {
            format!(" within {}", span(report.now.saturating_sub(report.arrival)))
        } else {
            String::new()
        };
        paragraph(&mut text, "", &format!("{what_happened}{tried}:"));
        let failures = report.failures.iter().enumerate().filter(|(_, (_, o))| Reason::of(o) == reason);
        for (number, (recipient, outcome)) in failures {
            text += &format!("    {}\n", recipient_name(recipient));
            paragraph(&mut text, "      ", &explanation(report, outcome, max_text(number)));
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
    text += &closing(report, is_complete);
    text
}

/// Returns the maximum length of the text for a recipient, in characters. `number` counts the
/// failed recipients from 0.
fn max_text(number: usize) -> usize {
    if number < FULLY_SHOWN { MAX_TEXT } else { MAX_TEXT_LATER }
}

fn opening(report: &FailureReport, original: &[u8]) -> String {
    let quoted = match field(original, "Subject").filter(|s| is_readable(s)) {
        Some(s) => format!(" \"{}\"", cut(&s, 100)),
        None => String::new(),
    };
    let sent = field(original, "Date").filter(|d| (1..=60).contains(&d.len()) && is_printable(d));
    let sent = sent.unwrap_or_else(|| date(report.arrival));
    let addresses = if report.failures.len() == 1 { "this address" } else { "these addresses" };
    match report.sender {
        Some(_) => {
            format!(
                "Your message{quoted}, sent {sent}, could not be delivered to {addresses}. It will not be tried again."
            )
        }
        None => format!(
            "The message{quoted}, sent {sent}, has no sender who could be notified: most likely it is a report about \
             other mail. It could not be delivered to {addresses}, and will not be tried again. Only you are notified."
        ),
    }
}

fn closing(report: &FailureReport, is_complete: bool) -> String {
    let FailureReport { hostname, original, .. } = report;
    let mut text = String::new();
    let part = if is_complete { "" } else { ", as far as it fits into 8 KiB" };
    let last = match report.sender {
        Some(_) => format!(
            "If this does not help, write to postmaster@{hostname} and include this report. The rest is for \
             programs and experts: the details, and the header of your message{part}. Its queue id here was \
             {original}."
        ),
        None => {
            format!("The details and the header of the message{part} follow. Its queue id in the log is {original}.")
        }
    };
    flow(&mut text, "", &last);
    text + "\n"
}

/// Returns the name of a recipient, which begins with the address that the sender wrote.
fn recipient_name(recipient: &Recipient) -> String {
    match &recipient.original {
        Some(original) => format!("{original} (forwarded to {})", recipient.address),
        None => recipient.address.to_string(),
    }
}

fn explanation(report: &FailureReport, outcome: &Outcome, max: usize) -> String {
    match (remote_mta(&outcome.host), &outcome.reply) {
        (Some(host), Some(reply)) => format!("{host} said: {}", cut(&reply.to_string(), max)),
        (None, Some(reply)) => format!("The reply was: {}", cut(&reply.to_string(), max)),
        (Some(host), None) => format!("{host}: {}", own_text(report, outcome, max)),
        (None, None) => own_text(report, outcome, max),
    }
}

/// Returns this host's own explanation of a failure. A sender is not shown names of files.
fn own_text(report: &FailureReport, outcome: &Outcome, max: usize) -> String {
    let names_file = |text: &str| text.split([' ', '"', '\'', '(', '<', '=']).any(|word| word.starts_with('/'));
    // The output of a command is meant for senders, so it is shown even if it names files.
    if report.sender.is_some() && !outcome.is_quoted && (names_file(&outcome.host) || names_file(&outcome.why)) {
        return "the mailbox could not be written to".to_owned();
    }
    if outcome.why.trim().is_empty() { "no reason is known".to_owned() } else { cut(&outcome.why, max) }
}

/// Returns a length of time in the largest unit that fits, such as `3 days`.
fn span(seconds: i64) -> String {
    let (count, unit) = match seconds {
        ..60 => return "less than a minute".to_owned(),
        60..3600 => (seconds / 60, "minute"),
        3600..172_800 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

// The next functions write the second part of the report, for programs (RFC 3464 2).

fn status_blocks(report: &FailureReport) -> String {
    let mut out = format!("Reporting-MTA: dns; {}\nX-Penfold-Queue-ID: {}\n", report.hostname, report.original);
    if let Some(sender) = report.sender {
        out += &format!("X-Penfold-Sender: rfc822; {sender}\n");
    }
    out += &format!("Arrival-Date: {}\n", date(report.arrival));
    for (number, (recipient, outcome)) in report.failures.iter().enumerate() {
        let max = max_text(number);
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
            Some(reply) => format!("smtp; {}", cut(&reply.to_string(), max)),
            None => format!("X-Penfold; {}", own_text(report, outcome, max)),
        };
        fold(&mut out, "Diagnostic-Code", &diagnostic);
        out += &format!("Last-Attempt-Date: {}\n", date(report.now));
    }
    out
}

/// Returns the status of a failed recipient. If the message expired, the status is that of the last
/// attempt, with the class set to 4. If that attempt has no status, the status is 4.4.7 (RFC 3463
/// 3.5, RFC 3464 2.3.4).
fn status(outcome: &Outcome) -> Status {
    match (outcome.fate, outcome.status) {
        (Fate::Deferred, Status(_, 0, 0)) => Status(4, 4, 7),
        (Fate::Deferred, Status(_, subject, detail)) => Status(4, subject, detail),
        (_, Status(_, subject, detail)) => Status(5, subject, detail),
    }
}

/// Returns the name of the host in a text such as `mx.example.org[192.0.2.1]:25`, or the address if
/// the host has no name. `None` if the text is the name of a mailbox.
fn remote_mta(host: &str) -> Option<String> {
    let (name, rest) = host.split_once('[')?;
    if name.is_empty() {
        let (ip, _) = rest.split_once(']')?;
        return Some(format!("[{}]", ip.parse::<std::net::IpAddr>().ok()?));
    }
    parse_domain(name).ok().map(String::from)
}

/// Returns a time as in a header field, in the time zone of this host.
fn date(seconds: i64) -> String {
    let time = Timestamp::from_second(seconds.max(0)).unwrap_or(Timestamp::UNIX_EPOCH);
    trace::date(&time.to_zoned(log::zone().clone()))
}

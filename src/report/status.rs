//! Writes the second part of a report, for programs (RFC 3464 2, RFC 6533 4).

use crate::address::parse_domain;
use crate::envelope::Recipient;
use crate::log;
use crate::outcome::{Fate, Outcome};
use crate::reply::Status;
use crate::smtp::xtext;
use crate::spool::{ReportedEvent, Success};

use super::compose::{Report, Reported, date};
use super::encode::{cut, fold};

/// The maximum length of the text that explains the outcome for one recipient, in characters.
const MAX_TEXT: usize = 2000;
/// The maximum length of the text for a recipient after the first [`FULLY_SHOWN`] recipients, in
/// characters.
const MAX_TEXT_LATER: usize = 200;
/// The number of recipients whose texts may be as long as [`MAX_TEXT`].
const FULLY_SHOWN: usize = 25;

/// Returns the maximum length of the text for a recipient, in characters. `number` counts the
/// recipients of the report from 0.
pub(super) fn max_text(number: usize) -> usize {
    if number < FULLY_SHOWN { MAX_TEXT } else { MAX_TEXT_LATER }
}

/// Writes the block of the message, and a block for each recipient.
pub(super) fn status_blocks(report: &Report) -> String {
    let mut out = String::new();
    if let Some(envid) = report.envid {
        out += &format!("Original-Envelope-Id: {}\n", decoded(envid));
    }
    out += &format!("Reporting-MTA: dns; {}\nX-Penfold-Queue-ID: {}\n", report.hostname, report.original);
    if let Some(sender) = report.sender {
        out += &format!("X-Penfold-Sender: {}\n", typed(&sender.to_string(), report.is_utf8));
    }
    out += &format!("Arrival-Date: {}\n", date(report.arrival));
    if let Some(deadline) = report.deadline {
        out += &format!("Deliver-By-Date: {}\n", date(deadline));
    }
    match report.release {
        // An administrator has ended the time early, and with it the time is lost.
        None | Some((0, None)) => {}
        Some((_, Some(seconds))) => out += &format!("Future-Release-Request: for;{seconds}\n"),
        Some((time, None)) => out += &format!("Future-Release-Request: until;{}\n", log::timestamp(time)),
    }
    for (number, result) in report.results.iter().enumerate() {
        out.push('\n');
        recipient_block(&mut out, report, result, max_text(number));
    }
    out
}

fn recipient_block(out: &mut String, report: &Report, result: &Reported, max: usize) {
    let Reported { recipient, event, outcome, .. } = result;
    if let Some(original) = original_recipient(recipient, report.is_utf8) {
        *out += &format!("Original-Recipient: {original}\n");
    }
    *out += &format!("Final-Recipient: {}\n", typed(&recipient.address.to_string(), report.is_utf8));
    *out += &format!("Action: {}\nStatus: {}\n", action(*event), status(*event, outcome));
    if let Some(host) = remote_mta(&outcome.host) {
        *out += &format!("Remote-MTA: dns; {host}\n");
    }
    let diagnostic = match (&outcome.reply, event) {
        (Some(reply), _) => Some(format!("smtp; {}", cut(&reply.to_string(), max))),
        (None, ReportedEvent::Success(_)) => None,
        (None, _) => Some(format!("X-Penfold; {}", own_text(report, outcome, max))),
    };
    if let Some(diagnostic) = diagnostic {
        fold(out, "Diagnostic-Code", &diagnostic, report.is_utf8);
    }
    *out += &format!("Last-Attempt-Date: {}\n", date(report.now));
    if *event == ReportedEvent::Delay {
        *out += &format!("Will-Retry-Until: {}\n", date(report.until));
    }
}

fn action(event: ReportedEvent) -> &'static str {
    match event {
        ReportedEvent::Failure => "failed",
        ReportedEvent::Delay => "delayed",
        ReportedEvent::Success(Success::Delivered) => "delivered",
        ReportedEvent::Success(Success::Relayed) => "relayed",
        ReportedEvent::Success(Success::Expanded) => "expanded",
    }
}

/// Returns the address for which the sender's host first accepted the message. It is only known by
/// ORCPT (RFC 3461 6.3).
fn original_recipient(recipient: &Recipient, is_utf8: bool) -> Option<String> {
    let (kind, address) = recipient.options.orcpt.as_deref()?.split_once(';')?;
    if kind.eq_ignore_ascii_case("utf-8") {
        return Some(typed(&xtext::decode_utf8_address(address)?, is_utf8));
    }
    Some(format!("{kind}; {}", decoded(address)))
}

/// Decodes xtext. If the result is not printable ASCII, the xtext is returned.
fn decoded(text: &str) -> String {
    let is_printable = |text: &String| text.bytes().all(|b| (b' '..=b'~').contains(&b)) && !text.trim().is_empty();
    let decoded = xtext::decode(text.as_bytes()).and_then(|text| String::from_utf8(text).ok());
    decoded.filter(is_printable).unwrap_or_else(|| text.to_owned())
}

/// Returns an address with its type. An address with UTF-8 is written as it is if `is_utf8` is
/// true, and otherwise in ASCII (RFC 6533 3).
fn typed(address: &str, is_utf8: bool) -> String {
    if address.is_ascii() {
        return format!("rfc822; {address}");
    }
    if is_utf8 {
        return format!("utf-8; {address}");
    }
    let escaped = |c: char| if c.is_ascii() { c.to_string() } else { format!("\\x{{{:X}}}", u32::from(c)) };
    format!("utf-8; {}", address.chars().map(escaped).collect::<String>())
}

/// Returns the status of a recipient. If the message expired or is delayed, the status is that of
/// the last attempt, with the class set to 4. If that attempt has no status, the status is 4.4.7
/// (RFC 3463 3.5, RFC 3464 2.3.4).
pub(super) fn status(event: ReportedEvent, outcome: &Outcome) -> Status {
    match (event, outcome.fate, outcome.status) {
        (ReportedEvent::Success(_), _, Status(_, subject, detail)) => Status(2, subject, detail),
        (_, Fate::Deferred, Status(_, 0, 0)) => Status(4, 4, 7),
        (_, Fate::Deferred, Status(_, subject, detail)) => Status(4, subject, detail),
        (_, _, Status(_, subject, detail)) => Status(5, subject, detail),
    }
}

/// Returns this host's own explanation of a failure. A sender is not shown names of files.
pub(super) fn own_text(report: &Report, outcome: &Outcome, max: usize) -> String {
    let names_file = |text: &str| text.split([' ', '"', '\'', '(', '<', '=']).any(|word| word.starts_with('/'));
    // The output of a command is meant for senders, so it is shown even if it names files.
    if report.sender.is_some() && !outcome.is_quoted && (names_file(&outcome.host) || names_file(&outcome.why)) {
        return "the mailbox could not be written to".to_owned();
    }
    if outcome.why.trim().is_empty() { "no reason is known".to_owned() } else { cut(&outcome.why, max) }
}

/// Returns the name of the host in a text such as `mx.example.org[192.0.2.1]:25`, or the address if
/// the host has no name. `None` if the text is the name of a mailbox.
pub fn remote_mta(host: &str) -> Option<String> {
    let (name, rest) = host.split_once('[')?;
    if name.is_empty() {
        let (ip, _) = rest.split_once(']')?;
        return Some(format!("[{}]", ip.parse::<std::net::IpAddr>().ok()?));
    }
    parse_domain(name).ok().map(String::from)
}

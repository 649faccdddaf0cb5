//! Writes the first part of a report, in plain words for people.

use crate::envelope::Recipient;
use crate::spool::{ReportedEvent, Success};

use super::compose::{Extent, Kind, Report, Reported, date};
use super::encode::{cut, flow, paragraph};
use super::original::{field, is_printable, is_readable};
use super::reason::Reason;
use super::status::{max_text, own_text, remote_mta};

/// Writes the explanation. `original` is the header of the original, and `extent` says which part
/// of the original follows in the report.
pub(super) fn plain_words(report: &Report, original: &[u8], extent: Extent) -> String {
    let mut text = String::new();
    paragraph(&mut text, "", &format!("This is the mail system at {}.", report.hostname));
    paragraph(&mut text, "", &opening(report, original));
    match report.kind() {
        Kind::Failure => failures(&mut text, report),
        Kind::Delay => {
            paragraph(&mut text, "", "The last attempt failed:");
            recipients(&mut text, report, |_| true);
            paragraph(
                &mut text,
                "",
                &format!("It will be tried until {}. You need not do anything.", date(report.until)),
            );
        }
        Kind::Success => successes(&mut text, report),
    }
    match report.withheld {
        0 => {}
        1 => paragraph(&mut text, "", "Before this, 1 other report was withheld: there were too many."),
        n => paragraph(&mut text, "", &format!("Before this, {n} other reports were withheld: there were too many.")),
    }
    text += &closing(report, extent);
    text
}

fn failures(text: &mut String, report: &Report) {
    let mut reasons: Vec<Reason> = Vec::new();
    for result in report.results {
        let reason = Reason::of(&result.outcome);
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }
    for reason in reasons {
        let (what_happened, advice) = reason.words();
        let tried = if reason.is_late() {
            format!(" within {}", span(report.now.saturating_sub(report.arrival)))
        } else {
            String::new()
        };
        paragraph(text, "", &format!("{what_happened}{tried}:"));
        recipients(text, report, |result| Reason::of(&result.outcome) == reason);
        if report.sender.is_some() {
            paragraph(text, "", advice);
        }
    }
}

fn successes(text: &mut String, report: &Report) {
    for (success, words) in [
        (Success::Delivered, "It was delivered to:"),
        (
            Success::Relayed,
            "It was passed on to another mail system, which sends no reports about successful deliveries, for:",
        ),
        (Success::Expanded, "It was passed on to all addresses that are meant by:"),
    ] {
        let is_meant = |result: &Reported| result.event == ReportedEvent::Success(success);
        if report.results.iter().any(is_meant) {
            paragraph(text, "", words);
            recipients(text, report, is_meant);
        }
    }
}

/// Writes the recipients for which `is_meant` is true, each with an explanation.
fn recipients(text: &mut String, report: &Report, is_meant: impl Fn(&Reported) -> bool) {
    for (number, result) in report.results.iter().enumerate().filter(|(_, result)| is_meant(result)) {
        *text += &format!("    {}\n", recipient_name(&result.recipient));
        match explanation(report, result, max_text(number)) {
            Some(explanation) => paragraph(text, "      ", &explanation),
            None => text.push('\n'),
        }
    }
}

fn opening(report: &Report, original: &[u8]) -> String {
    let quoted = match field(original, "Subject").filter(|s| is_readable(s)) {
        Some(s) => format!(" \"{}\"", cut(&s, 100)),
        None => String::new(),
    };
    let sent = field(original, "Date").filter(|d| (1..=60).contains(&d.len()) && is_printable(d));
    let sent = sent.unwrap_or_else(|| date(report.arrival));
    let addresses = if report.results.len() == 1 { "this address" } else { "these addresses" };
    match (report.kind(), report.sender) {
        (Kind::Failure, Some(_)) => {
            format!(
                "Your message{quoted}, sent {sent}, could not be delivered to {addresses}. It will not be tried again."
            )
        }
        (Kind::Failure, None) => format!(
            "The message{quoted}, sent {sent}, has no sender who could be notified: most likely it is a report about \
             other mail. It could not be delivered to {addresses}, and will not be tried again. Only you are notified."
        ),
        (Kind::Delay, _) => {
            format!("Your message{quoted}, sent {sent}, has not been delivered to {addresses} yet. It is not lost.")
        }
        (Kind::Success, _) => format!(
            "Your message{quoted}, sent {sent}, has been delivered or passed on. Your mail program has asked for this \
             report."
        ),
    }
}

fn closing(report: &Report, extent: Extent) -> String {
    let Report { hostname, original, .. } = report;
    let mut text = String::new();
    let returned = |whose: &str| match extent {
        Extent::Message => whose.to_owned(),
        Extent::Header => format!("the header of {whose}"),
        Extent::PartOfHeader => format!("the header of {whose}, as far as it fits into 8 KiB"),
    };
    let last = match (report.kind(), report.sender) {
        (Kind::Failure, Some(_)) => format!(
            "If this does not help, write to postmaster@{hostname} and include this report. The rest is for \
             programs and experts: the details, and {}. Its queue id here was {original}.",
            returned("your message")
        ),
        (Kind::Failure, None) => {
            format!("The details and {} follow. Its queue id in the log is {original}.", returned("the message"))
        }
        (Kind::Delay | Kind::Success, _) => format!(
            "The rest is for programs and experts: the details, and {}. Its queue id here is {original}.",
            returned("your message")
        ),
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

/// Explains an outcome. `None` if there is nothing to say about a success.
fn explanation(report: &Report, result: &Reported, max: usize) -> Option<String> {
    let Reported { outcome, event, .. } = result;
    let is_success = matches!(event, ReportedEvent::Success(_));
    match (remote_mta(&outcome.host), &outcome.reply) {
        (Some(host), Some(reply)) => Some(format!("{host} said: {}", cut(&reply.to_string(), max))),
        (None, Some(reply)) => Some(format!("The reply was: {}", cut(&reply.to_string(), max))),
        _ if is_success => None,
        (Some(host), None) => Some(format!("{host}: {}", own_text(report, outcome, max))),
        (None, None) => Some(own_text(report, outcome, max)),
    }
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

//! Writes the first part of a report, for people: first what happened to whom and what the reader
//! can do, then the words of the other mail systems, and then details for the postmaster.

use std::sync::Arc;

use jiff::Zoned;
use jiff::fmt::rfc2822;

use crate::characters;
use crate::envelope::Recipient;
use crate::message::encoded_words;
use crate::outcome::Fate;
use crate::spool::{ReportedEvent, Success};

use super::cause::Cause;
use super::compose::{Extent, Kind, Report, Reported, date, local_time};
use super::encode::{cut, flow, paragraph};
use super::languages::Language;
use super::original::{field, is_printable, is_readable};
use super::status::{max_text, own_text, remote_mta, status};

/// The indentation of what is said about a recipient.
const INDENT: &str = "    ";
/// The maximum length of the original's subject, in characters.
const MAX_SUBJECT: usize = 100;
/// The maximum length of a line of a dialogue, in characters.
const MAX_LINE: usize = 200;
/// The maximum number of lines of dialogues in a report.
const MAX_LINES: usize = 100;

/// Writes the whole part. `original` is the header of the original, and `extent` says which part of
/// the original follows in the report.
pub(super) fn plain_words(report: &Report, original: &[u8], extent: Extent, languages: &[Arc<Language>]) -> String {
    let mut text = String::new();
    for language in languages {
        if languages.len() > 1 {
            paragraph(&mut text, "", &format!("---- {} ----", language.text("name")));
        }
        text += &Words { report, language }.text(original, extent);
    }
    if languages.len() > 1 {
        paragraph(&mut text, "", "--------");
    }
    technical(&mut text, report, languages);
    text.truncate(text.trim_end().len());
    text + "\n"
}

/// Writes in one language.
struct Words<'a> {
    report: &'a Report<'a>,
    language: &'a Language,
}

impl Words<'_> {
    fn text(&self, original: &[u8], extent: Extent) -> String {
        let Self { report, language } = self;
        let mut text = String::new();
        paragraph(&mut text, "", &language.fill("text.greeting", &[("host", report.hostname)]));
        paragraph(&mut text, "", language.text(self.opening()));
        self.about(&mut text, original);
        match report.kind() {
            Kind::Failure => self.causes(&mut text),
            Kind::Delay => {
                self.causes(&mut text);
                let until = language.date(&local_time(report.until));
                paragraph(&mut text, "", &language.fill("text.delay_until", &[("date", &until)]));
            }
            Kind::Success => self.successes(&mut text),
        }
        if report.withheld > 0 {
            let count = report.withheld.to_string();
            paragraph(&mut text, "", &language.fill("text.withheld", &[("count", &count)]));
        }
        if report.kind() == Kind::Failure && report.sender.is_some() {
            let postmaster = format!("postmaster@{}", report.hostname);
            paragraph(&mut text, "", &language.fill("text.contact", &[("postmaster", &postmaster)]));
        }
        let attached = match extent {
            Extent::Message => "text.attached_message",
            Extent::Header => "text.attached_header",
            Extent::PartOfHeader => "text.attached_part",
        };
        paragraph(&mut text, "", language.text(attached));
        text
    }

    fn opening(&self) -> &'static str {
        match (self.report.kind(), self.report.sender, self.report.results.len()) {
            (Kind::Failure, None, _) => "text.failure_postmaster",
            (Kind::Failure, Some(_), 1) => "text.failure_one",
            (Kind::Failure, Some(_), _) => "text.failure_many",
            (Kind::Delay, _, 1) => "text.delay_one",
            (Kind::Delay, _, _) => "text.delay_many",
            (Kind::Success, _, _) => "text.success",
        }
    }

    /// Says which message the report is about.
    fn about(&self, text: &mut String, original: &[u8]) {
        if let Some(subject) = subject(original) {
            *text += INDENT;
            flow(text, INDENT, &self.language.fill("text.about_subject", &[("subject", &subject)]));
            text.push('\n');
        }
        let sent = field(original, "Date").filter(|d| (1..=60).contains(&d.len()) && is_printable(d));
        let sent: Option<Zoned> = sent.and_then(|sent| rfc2822::parse(&sent).ok());
        let sent = self.language.date(&sent.unwrap_or_else(|| local_time(self.report.arrival)));
        paragraph(text, INDENT, &self.language.fill("text.about_date", &[("date", &sent)]));
    }

    /// Writes the recipients with each cause, the cause, and what the sender can do about it.
    fn causes(&self, text: &mut String) {
        let Self { report, language } = self;
        let mut causes: Vec<(Cause, bool)> = Vec::new();
        let of = |result: &Reported| (Cause::of(&result.outcome), result.outcome.fate == Fate::Deferred);
        for result in report.results {
            if !causes.contains(&of(result)) {
                causes.push(of(result));
            }
        }
        for (cause, is_late) in causes {
            self.recipients(text, |result| of(result) == (cause, is_late));
            let key = |text: &str| format!("cause.{}.{text}", cause.name());
            paragraph(text, INDENT, language.text(&key("what")));
            if report.kind() == Kind::Delay {
                continue;
            }
            if is_late {
                let time = |seconds| language.date(&local_time(seconds));
                let (from, to) = (time(report.arrival), time(report.now));
                paragraph(text, INDENT, &language.fill("text.tried", &[("from", &from), ("to", &to)]));
            }
            if report.sender.is_some() {
                let advice = language.text(&key("advice"));
                paragraph(text, INDENT, &language.fill("text.advice", &[("advice", advice)]));
            }
        }
    }

    fn successes(&self, text: &mut String) {
        for (success, key) in [
            (Success::Delivered, "text.delivered"),
            (Success::Relayed, "text.relayed"),
            (Success::Expanded, "text.expanded"),
        ] {
            let is_meant = |result: &Reported| result.event == ReportedEvent::Success(success);
            if self.report.results.iter().any(is_meant) {
                paragraph(text, "", self.language.text(key));
                self.recipients(text, is_meant);
            }
        }
    }

    /// Writes the recipients for which `is_meant` is true, one on each line.
    fn recipients(&self, text: &mut String, is_meant: impl Fn(&Reported) -> bool) {
        for result in self.report.results.iter().filter(|result| is_meant(result)) {
            flow(text, INDENT, &self.name(&result.recipient));
            text.push('\n');
        }
        text.push('\n');
    }

    /// Returns the name of a recipient, which begins with the address that the sender wrote.
    fn name(&self, recipient: &Recipient) -> String {
        let target = recipient.address.to_string();
        match &recipient.original {
            Some(original) => {
                self.language.fill("text.forwarded", &[("address", &original.to_string()), ("target", &target)])
            }
            None => target,
        }
    }
}

/// Writes what the mail systems said, and the details for the postmaster. The headings are in all
/// languages.
fn technical(text: &mut String, report: &Report, languages: &[Arc<Language>]) {
    let heading = |key: &str| languages.iter().map(|language| language.text(key)).collect::<Vec<_>>().join(" / ");
    let said: Vec<(&Reported, String)> = (report.results.iter().enumerate())
        .filter_map(|(number, result)| Some((result, explanation(report, result, max_text(number))?)))
        .collect();
    if !said.is_empty() {
        paragraph(text, "", &heading("text.replies"));
        for (result, explanation) in said {
            *text += &format!("{INDENT}{}\n", result.recipient.address);
            paragraph(text, "      ", &explanation);
        }
    }
    paragraph(text, "", &heading("text.details"));
    *text += &format!("{INDENT}Queue id: {}\n", report.original);
    *text += &format!("{INDENT}Accepted: {}\n", date(report.arrival));
    for result in report.results {
        *text += &format!("{INDENT}Status: {} {}\n", status(result.event, &result.outcome), result.recipient.address);
    }
    text.push('\n');
    dialogue(text, report);
}

/// Writes the last dialogues with other hosts, as far as they concern the recipients of the report.
fn dialogue(text: &mut String, report: &Report) {
    let mut left = MAX_LINES;
    let mut last: &[String] = &[];
    for Reported { dialogue, .. } in report.results {
        // Recipients that were refused together often have the same lines.
        let Some((host, lines)) = dialogue.split_first().filter(|_| left > 0 && *dialogue != last) else { continue };
        *text += &format!("{INDENT}{}\n", plain(host));
        lines.iter().take(left).for_each(|line| *text += &format!("{INDENT}  {}\n", plain(line)));
        text.push('\n');
        (left, last) = (left.saturating_sub(lines.len() + 1), dialogue);
    }
}

/// Returns the subject of the original, if it can be read. Hidden characters are left out, since they
/// could change the order of the text around it.
fn subject(original: &[u8]) -> Option<String> {
    let subject = encoded_words::read(&field(original, "Subject")?).filter(|subject| is_readable(subject))?;
    let shown: String = subject.chars().filter(|c| !characters::is_hidden(*c)).collect();
    Some(cut(&shown, MAX_SUBJECT)).filter(|shown| !shown.trim().is_empty())
}

/// Returns a line of a dialogue without characters that could mislead, and cut if it is too long.
fn plain(line: &str) -> String {
    cut(&line.chars().map(characters::shown).collect::<String>(), MAX_LINE)
}

/// Explains an outcome in the words of the other host, or of this one. `None` if there is nothing to
/// say about a success.
fn explanation(report: &Report, result: &Reported, max: usize) -> Option<String> {
    let Reported { outcome, event, .. } = result;
    let said = match &outcome.reply {
        Some(reply) => cut(&reply.to_string(), max),
        None if matches!(event, ReportedEvent::Success(_)) => return None,
        None => own_text(report, outcome, max),
    };
    let said: String = said.chars().map(|c| if c.is_control() { c } else { characters::shown(c) }).collect();
    Some(match remote_mta(&outcome.host) {
        Some(host) => format!("{host}: {said}"),
        None => said,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_shown_without_hidden_characters_and_with_all_letters() {
        let letters = "\u{645}\u{6cc}\u{200c}\u{62e} \u{1f468}\u{200d}\u{1f469}\u{fe0f} \u{65e5}\u{3000}\u{672c}";
        for (given, shown) in [
            ("a\u{202e}b\u{2066}c\u{200b}\u{ad}d", Some("abcd")),
            ("=?utf-8?q?a=E2=80=AEb_=E2=81=A9?=", Some("ab ")),
            (letters, Some(letters)),
            ("\u{202e}", None),
        ] {
            let found = subject(format!("Subject: {given}\r\n\r\n").as_bytes());
            assert_eq!(found.as_deref().map(str::trim), shown.map(str::trim), "{given:?}");
        }
        assert_eq!(plain("\u{202e}550 \u{1b}no"), "?550 ?no");
    }
}

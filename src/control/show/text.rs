//! Writes the facts about a message as text for people.

use std::io::{self, Write};
use std::time::Duration;

use super::facts::{Dialogues, Facts, RecipientFacts};
use super::is_held;
use crate::address;
use crate::destination::listed_name;
use crate::dialogue::{Dialogue, Kind};
use crate::envelope::Action;
use crate::log;
use crate::spool::{ReportedEvent, State};

/// Writes the facts.
pub fn write(facts: &Facts<'_>, out: &mut dyn Write) -> io::Result<()> {
    let Facts { entry, now, .. } = facts;
    let arrived = entry.id().seconds();
    let mut row = |name: &str, value: &str| {
        let value = value.replace(char::is_control, " ");
        if value.is_empty() { Ok(()) } else { writeln!(out, "{:<14}{value}", format!("{name}:")) }
    };
    row("Queue id", &entry.id().to_string())?;
    row("Sender", &address::path(entry.sender()))?;
    row("Message-ID", facts.message_id.as_deref().unwrap_or_default())?;
    row("Size", &format!("{} octets", entry.content_size()))?;
    row("Arrived", &format!("{}, {} ago", log::local_timestamp(arrived), log::span(now.saturating_sub(arrived))))?;
    let unknown = || format!("not said in the message; see \"penfoldctl trace {}\"", entry.id());
    row("Given by", &facts.source.clone().unwrap_or_else(unknown))?;
    row("Options", &facts.options.join(" "))?;
    if is_held(entry) {
        let reason = facts.hold_reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
        row("Held", &format!("yes{reason}; \"penfoldctl release {}\" lets it be tried", entry.id()))?;
    }
    if let Some(release) = facts.release {
        row("Not before", &format!("{}, as the sender wants", log::local_timestamp(release)))?;
    }
    let given_up =
        if is_held(entry) { "never, while it is held".to_owned() } else { log::local_timestamp(facts.expires) };
    row("Given up", &given_up)?;
    for to in &facts.recipients {
        recipient(to, out)?;
    }
    match &facts.dialogues {
        Dialogues::Whole(dialogues) => dialogues.iter().try_for_each(|dialogue| write_dialogue(dialogue, out)),
        Dialogues::ForSender(all) => all.iter().try_for_each(|dialogue| {
            let name = dialogue.destination.as_deref().unwrap_or("another host");
            let lines = dialogue.lines.iter().map(|(kind, text)| (*kind, &**text));
            lines_of_dialogue((dialogue.time, name), lines, out)
        }),
    }
}

/// Writes the lines of one recipient.
fn recipient(to: &RecipientFacts, out: &mut dyn Write) -> io::Result<()> {
    let recipient = &to.entry.recipient;
    writeln!(out, "\n{}", address::path(Some(&recipient.address)))?;
    let mut row = |name: &str, value: &str| {
        writeln!(out, "    {:<14}{}", format!("{name}:"), value.replace(char::is_control, " "))
    };
    if let Some(original) = &recipient.original {
        row("Given as", &address::path(Some(original)))?;
    }
    row("State", &state(to))?;
    if let Some(options) = options(to) {
        row("Options", &options)?;
    }
    if let Some(route) = &to.route {
        row("Goes to", route)?;
    }
    if let Some(status) = &to.status {
        let down = status.down.map(|(since, probe)| {
            format!(" for {}, tried again in {}", log::span(since.as_secs()), log::span(probe.as_secs()))
        });
        row("Its host is", &format!("{}{}", status.state, down.unwrap_or_default()))?;
        if let Some((wait, reason)) = status.paced {
            row("Paced", &format!("by {reason}, goes on in {}", log::span(wait.as_secs())))?;
        }
    }
    if let Some(next) = to.next {
        row("Next attempt", &log::local_timestamp(next))?;
    }
    let warned = to.entry.record.warned;
    if warned > 0 {
        row("Warned", &format!("{}: the sender knows of the delay", log::local_timestamp(warned)))?;
    }
    for (number, result) in to.results.iter().enumerate() {
        let name = if number == 0 { "Attempts" } else { "" };
        let time = log::local_timestamp(result.time);
        let name = if name.is_empty() { String::new() } else { format!("{name}:") };
        writeln!(out, "    {name:<14}{time}  {}", result.text)?;
    }
    Ok(())
}

/// Describes the state of a recipient.
fn state(to: &RecipientFacts) -> String {
    let record = &to.entry.record;
    let last = || log::local_timestamp(record.last);
    match (&to.attempt, record.state) {
        (Some((since, activity)), _) => {
            let stage = activity.as_ref().map_or_else(String::new, |now| {
                let host = if now.host.is_empty() { String::new() } else { format!(", {}", now.host) };
                format!(": {} for {}{host}", now.stage, seconds(now.since))
            });
            format!("being tried for {}{stage}", seconds(*since))
        }
        (None, State::Done) if to.entry.recipient.action == Action::Replaced => {
            "replaced by other recipients".to_owned()
        }
        (None, State::Done | State::Unreported(_)) => format!("delivered, {}", last()),
        (None, State::Failed) if to.results.is_empty() => {
            format!("failed, {}; the report to the sender and `penfoldctl trace` say why", last())
        }
        (None, State::Failed) => format!("failed, {}", last()),
        (None, State::Prepared { .. }) => "a copy for the mailbox is ready".to_owned(),
        (None, State::Forwarded { .. }) => "the message for other addresses is ready".to_owned(),
        (None, State::Reported { event: ReportedEvent::Failure, .. }) => "failed; the report is ready".to_owned(),
        (None, State::Todo | State::Reported { .. }) if record.last == 0 => match to.results.last() {
            None => "not tried yet".to_owned(),
            Some(result) => format!("an attempt was interrupted, {}", log::local_timestamp(result.time)),
        },
        (None, State::Todo | State::Reported { .. }) => format!("deferred, last tried {}", last()),
    }
}

fn options(to: &RecipientFacts) -> Option<String> {
    let options = &to.entry.recipient.options;
    let notify = options.notify.map(|notify| format!("NOTIFY={notify}"));
    let orcpt = options.orcpt.as_ref().map(|orcpt| format!("ORCPT={orcpt}"));
    let given: Vec<String> = notify.into_iter().chain(orcpt).collect();
    (!given.is_empty()).then(|| given.join(" "))
}

fn write_dialogue(dialogue: &Dialogue, out: &mut dyn Write) -> io::Result<()> {
    let name = listed_name(&dialogue.destination);
    lines_of_dialogue((dialogue.time, name), dialogue.lines.iter().map(|line| (line.kind, &*line.text)), out)
}

fn lines_of_dialogue<'a>(
    (time, name): (u64, &str),
    lines: impl Iterator<Item = (Kind, &'a str)>,
    out: &mut dyn Write,
) -> io::Result<()> {
    writeln!(out, "\nThe last dialogue for {name}, {}:", log::local_timestamp(time))?;
    for (kind, text) in lines {
        let indent = if kind == Kind::Host { "" } else { "  " };
        writeln!(out, "    {indent}{}{text}", kind.mark())?;
    }
    Ok(())
}

/// A time span with its largest unit, such as `45 s`, `12 min`, `7 h` or `3 days`.
fn seconds(time: Duration) -> String {
    log::span(time.as_secs())
}

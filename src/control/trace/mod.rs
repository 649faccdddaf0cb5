//! Finds in the history what has happened to messages and clients. Needs no daemon.
//!
//! - `search`: finds the lines in the history
//! - `submitter`: what a user may know about a message of this user
//! - `subject`: what is traced: a message, an address, a domain or a client
//! - `words`: the lines in plain words

use std::collections::HashSet;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use jiff::Zoned;

use crate::characters;
use crate::json::{Format, Object};
use crate::log;
use crate::log::line::Line;
use crate::spool::{Place, QueueId, Spool};
use crate::sys;
use crate::when;
use crate::wrap::wrapped;

mod search;
mod subject;
mod submitter;
mod words;

use search::{Event, Found, Search, Story};
use subject::Subject;

/// The number of messages that are shown if the user gives none.
pub const DEFAULT_LIMIT: usize = 20;
/// The maximum number of messages that are shown.
pub const MAX_LIMIT: usize = 1000;

/// The indentation of the second and further lines of a text, beyond the length of a time: two blanks
/// before it, two after it, and four more.
const INDENT: usize = 8;

/// What a user wants to know.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// What is traced, as the user gave it.
    pub subject: &'a str,
    /// The maximum number of messages, and of events without a message.
    pub limit: usize,
    /// The time from which lines are shown, in seconds since 1970.
    pub since: u64,
    /// If this is a uid, only a message that this user has submitted is shown, by its queue id.
    pub submitted_by: Option<u32>,
    /// The form of the answer.
    pub format: Format,
}

impl<'a> Query<'a> {
    /// Reads the words of a request: a limit, a subject, and perhaps the time from which lines are
    /// shown. `now` is in the zone that applies.
    pub fn parse(words: &[&'a str], format: Format, now: &Zoned) -> Option<Self> {
        let (limit, subject, since) = match *words {
            [limit, subject] => (limit, subject, 0),
            [limit, subject, since] => (limit, subject, when::parse(since, now)?),
            _ => return None,
        };
        let limit = limit.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit))?;
        Some(Self { subject, limit, since, submitted_by: None, format })
    }

    /// The query of an unprivileged user; `None` if it is not for a queue id.
    pub fn of_user(self, uid: u32) -> Option<Self> {
        let is_id = matches!(Subject::parse(self.subject), Subject::Message(_));
        is_id.then_some(Self { limit: MAX_LIMIT, submitted_by: Some(uid), ..self })
    }
}

/// The places in which a trace looks.
pub struct Sources<'a> {
    /// The `state/` directory of the spool.
    pub directory: &'a Path,
    /// The age from which lines are not shown.
    pub keep: Duration,
    /// The spool, which says whether a message is still in the queue.
    pub spool: &'a Spool,
}

/// Writes what the history says. The first line is the number of messages and of other events that were
/// found.
///
/// # Errors
/// Those of reading the history and of `out`.
pub fn trace(sources: &Sources<'_>, query: &Query<'_>, out: &mut dyn Write) -> io::Result<()> {
    let subject = Subject::parse(query.subject);
    let since = sys::now().saturating_sub(sources.keep.as_secs()).max(query.since).saturating_mul(1000);
    let mut found = Search { directory: sources.directory, since, subject: &subject, limit: query.limit }.run()?;
    if let Some(uid) = query.submitted_by {
        let id = if let Subject::Message(id) = &subject { id } else { "" };
        submitter::restrict(&mut found, id, uid);
    }
    writeln!(out, "{}", found.stories.len() + found.at_the_door.len())?;
    match query.format {
        Format::Json => json(found, out),
        Format::Text => text(&found, sources.spool, out),
    }
}

/// Writes an object for each line, in the order of time.
fn json(found: Found, out: &mut dyn Write) -> io::Result<()> {
    let stories = found.stories.into_values().flat_map(|story| story.events);
    let mut events: Vec<Event> = stories.chain(found.at_the_door.into_iter().flatten()).collect();
    events.sort_by_key(|event| event.time);
    for event in events {
        let Some(line) = Line::parse(&event.line) else { continue };
        let mut object = Object::new();
        let time = i64::try_from(event.time).ok().and_then(|time| jiff::Timestamp::from_millisecond(time).ok());
        object.text("time", &format!("{:.3}", time.unwrap_or_default()));
        line.write_to(&mut object);
        writeln!(out, "{object}")?;
    }
    Ok(())
}

/// Writes the stories of the messages, and what has happened without a message.
fn text(found: &Found, spool: &Spool, out: &mut dyn Write) -> io::Result<()> {
    let unfinished: Vec<&str> =
        found.stories.iter().filter(|(_, story)| !is_finished(story)).map(|(id, _)| id.as_str()).collect();
    let queued = queued(spool, &unfinished)?;
    let mut is_first = true;
    let mut gap = |out: &mut dyn Write| if std::mem::take(&mut is_first) { Ok(()) } else { writeln!(out) };
    if found.older > 0 {
        gap(out)?;
        writeln!(out, "{} not shown; see --limit", counted(found.older, "older message"))?;
    }
    for (id, story) in &found.stories {
        gap(out)?;
        write!(out, "Message {id}")?;
        match found.parents.get(id) {
            Some(parent) if parent.is_report => writeln!(out, ", a report about {}", parent.id)?,
            Some(parent) => writeln!(out, ", made from {}", parent.id)?,
            None => writeln!(out)?,
        }
        let mut events: Vec<&Event> = story.events.iter().collect();
        events.sort_by_key(|event| event.time);
        for event in events {
            show(event, out)?;
        }
        if story.left_out > 0 {
            writeln!(out, "  {} not shown", counted(story.left_out, "more line"))?;
        }
        if queued.contains(id) {
            writeln!(out, "  It is in the queue now: penfoldctl show {id}")?;
        } else if !is_finished(story) {
            writeln!(out, "  It is no longer in the queue, and the history does not say why.")?;
        }
    }
    if !found.at_the_door.is_empty() {
        gap(out)?;
        writeln!(out, "Clients")?;
        if found.older_at_the_door > 0 {
            writeln!(out, "  {} not shown; see --limit", counted(found.older_at_the_door, "older event"))?;
        }
        for event in found.at_the_door.iter().flatten() {
            show(event, out)?;
        }
    }
    gap(out)?;
    match found.begins {
        Some(begins) => writeln!(out, "The history begins at {}.", log::local_timestamp(begins / 1000)),
        None => writeln!(out, "The history has no messages."),
    }
}

/// A number of things that are left out, with the verb.
fn counted(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what} is") } else { format!("{number} {what}s are") }
}

/// Writes one event: its time and what has happened, and details on lines of their own.
fn show(event: &Event, out: &mut dyn Write) -> io::Result<()> {
    let time = log::local_timestamp(event.time / 1000);
    let lines = Line::parse(&event.line).map_or_else(|| vec![event.line.clone()], |line| words::words(&line));
    let width = time.chars().count();
    let mut time = time.as_str();
    for line in &lines {
        // Values are shown without their quotes, so they must not break the line.
        let line: String = line.chars().map(characters::shown).collect();
        let line = format!("  {:width$}  {line}", std::mem::take(&mut time));
        writeln!(out, "{}", wrapped(&line, width + INDENT))?;
    }
    Ok(())
}

/// Whether the history has the end of a message.
fn is_finished(story: &Story) -> bool {
    story.events.iter().any(|event| event.line.ends_with(" done"))
        || story.events.last().is_some_and(|event| event.line.split(' ').nth(1) == Some("removed"))
}

/// Returns those of the messages that are in the spool.
fn queued(spool: &Spool, ids: &[&str]) -> io::Result<HashSet<String>> {
    let wanted: HashSet<QueueId> = ids.iter().filter_map(|id| QueueId::parse(id)).collect();
    let mut queued = HashSet::new();
    if wanted.is_empty() || spool.is_unused()? {
        return Ok(queued);
    }
    for place in [Place::New, Place::Cur, Place::Hold] {
        let names = spool.entries_in(place)?;
        queued.extend(names.into_iter().filter(|name| wanted.contains(&name.id)).map(|name| name.id.to_string()));
    }
    Ok(queued)
}

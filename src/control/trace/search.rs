//! Searches the history: for the messages that a subject means, and then for all their lines.
//!
//! The files are not trusted: a line that cannot be read is skipped, and the number of lines that are
//! kept in memory is bounded.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io;
use std::path::Path;

use memchr::memchr_iter;
use memchr::memmem::Finder;

use super::subject::Subject;
use crate::history::{self, Kind};
use crate::log::line::Line;
use crate::spool::QueueId;

/// The maximum number of messages that a subject may mean. The newest ones are kept.
const MAX_IDS: usize = 200_000;
/// The maximum number of lines about one message.
const MAX_LINES: usize = 1000;
/// The maximum size of a line, in bytes. Longer lines are skipped.
const MAX_LINE: usize = 64 << 10;
/// The maximum size of all lines about messages, in bytes.
const MAX_TEXT: usize = 16 << 20;
/// How often the history is searched again for messages that were made from the others.
const MAX_ROUNDS: usize = 8;

/// The line of an event, and its time in milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) time: u64,
    pub(super) line: String,
}

/// Everything about one message.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Story {
    pub(super) events: Vec<Event>,
    /// The number of lines that are left out.
    pub(super) left_out: usize,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The messages by their ids, the oldest first.
    pub(super) stories: BTreeMap<String, Story>,
    /// The message from which a message was made.
    pub(super) parents: HashMap<String, Parent>,
    /// The number of older messages that are left out.
    pub(super) older: usize,
    /// Refusals and other events of sessions. The lines before the last one of a group are results of
    /// checks that led to it.
    pub(super) at_the_door: VecDeque<Vec<Event>>,
    /// The number of older groups that are left out.
    pub(super) older_at_the_door: usize,
    /// The time of the oldest line of the history about messages.
    pub(super) begins: Option<u64>,
}

/// The message from which another one was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parent {
    pub(super) id: String,
    /// Whether the other message is a report. If not, it goes to the members of an alias or a list.
    pub(super) is_report: bool,
}

/// The part of a search that is the same for all steps.
pub(super) struct Search<'a> {
    pub(super) directory: &'a Path,
    /// The time of the oldest line that is shown, in milliseconds since 1970.
    pub(super) since: u64,
    pub(super) subject: &'a Subject,
    /// The maximum number of messages, and of groups of other events.
    pub(super) limit: usize,
}

impl Search<'_> {
    /// Searches both histories.
    pub(super) fn run(&self) -> io::Result<Found> {
        let mut found = Found::default();
        self.search_door(&mut found)?;
        let mut ids = self.ids(&mut found)?;
        found.older = ids.len().saturating_sub(self.limit);
        ids.drain(..found.older);
        let mut wanted: HashSet<String> = ids.into_iter().collect();
        for _ in 0..MAX_ROUNDS {
            found.stories.clear();
            let count = wanted.len();
            self.collect(&mut wanted, &mut found)?;
            if wanted.len() == count {
                break;
            }
        }
        Ok(found)
    }

    /// Returns the ids of the messages that the subject means, the oldest first.
    fn ids(&self, found: &mut Found) -> io::Result<Vec<String>> {
        let mut ids = HashSet::new();
        self.each_line(Kind::Messages, &mut |time, text, has_needle| {
            found.begins.get_or_insert(time);
            if has_needle
                && let Some(line) = Line::parse(text).filter(|line| self.subject.matches(line))
                && QueueId::parse(line.id).is_some()
                && ids.len() < MAX_IDS
            {
                ids.insert(line.id.to_owned());
            }
        })?;
        let mut ids: Vec<String> = ids.into_iter().collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// Collects the lines about the messages `wanted`, to which it adds messages that were made from
    /// them.
    fn collect(&self, wanted: &mut HashSet<String>, found: &mut Found) -> io::Result<()> {
        let mut size = 0;
        let most = wanted.len().saturating_add(self.limit.saturating_mul(10));
        self.each_line(Kind::Messages, &mut |time, text, _| {
            let Some(id) = text.split(' ').next().filter(|id| wanted.contains(*id)) else { return };
            let story = found.stories.entry(id.to_owned()).or_default();
            if story.events.len() < MAX_LINES && size < MAX_TEXT {
                size += text.len();
                story.events.push(Event { time, line: text.to_owned() });
            } else {
                story.left_out += 1;
            }
            if let Some((child, is_report)) = child(text).filter(|(child, _)| child != id && wanted.len() < most) {
                found.parents.entry(child.clone()).or_insert_with(|| Parent { id: id.to_owned(), is_report });
                wanted.insert(child);
            }
        })
    }

    /// Collects the lines about sessions.
    fn search_door(&self, found: &mut Found) -> io::Result<()> {
        let (mut checks, mut is_wanted) = (Vec::new(), false);
        self.each_line(Kind::Refused, &mut |time, text, has_needle| {
            is_wanted |= has_needle && Line::parse(text).is_some_and(|line| self.subject.matches(&line));
            // The results of checks, which begin with a queue id, stand directly before the refusal.
            let is_check = !text.starts_with('s');
            if is_check && checks.len() < MAX_LINES || is_wanted {
                checks.push(Event { time, line: text.to_owned() });
            }
            if is_check {
                return;
            }
            let group = std::mem::take(&mut checks);
            if std::mem::take(&mut is_wanted) {
                found.at_the_door.push_back(group);
            }
            if found.at_the_door.len() > self.limit {
                found.at_the_door.pop_front();
                found.older_at_the_door += 1;
            }
        })
    }

    /// Calls `take` with the time and the text of each line, and whether the line has the needle of the
    /// subject.
    fn each_line(&self, kind: Kind, take: &mut dyn FnMut(u64, &str, bool)) -> io::Result<()> {
        let needle = self.subject.needle();
        let finder = Finder::new(&needle);
        let mut lower = Vec::new();
        history::read(self.directory, kind, &mut |text| {
            lower.clear();
            lower.extend_from_slice(text);
            lower.make_ascii_lowercase();
            let mut start = 0;
            for end in memchr_iter(b'\n', text) {
                let (line, lower) = (&text[start..end], &lower[start..end]);
                start = end + 1;
                if let Some((time, line)) = timed(line).filter(|(time, _)| *time >= self.since) {
                    take(time, line, finder.find(lower).is_some());
                }
            }
        })
    }
}

/// Reads the time before a line, in milliseconds since 1970.
fn timed(line: &[u8]) -> Option<(u64, &str)> {
    let line = std::str::from_utf8(line).ok().filter(|line| line.len() <= MAX_LINE)?;
    let (time, line) = line.split_once(' ')?;
    let (seconds, millis) = time.split_once('.')?;
    let (seconds, millis): (u64, u64) = (seconds.parse().ok()?, millis.parse().ok()?);
    Some((seconds.checked_mul(1000)?.checked_add(millis)?, line))
}

/// The message that was made from the message of a line, and whether it is a report.
fn child(text: &str) -> Option<(String, bool)> {
    let word = text.split(' ').nth(1)?;
    let is_report = matches!(word, "bounced" | "warned" | "confirmed");
    if !is_report && word != "sent" {
        return None;
    }
    let line = Line::parse(text)?;
    let is_passed_on = matches!(line.get("via"), Some("forward" | "list"));
    let id = if is_report { line.get("report") } else { line.get("reason").filter(|_| is_passed_on) };
    QueueId::parse(id?).map(|id| (id.to_string(), is_report))
}

//! Writes the listing of the queue, as text or as JSON.

use std::io::{self, Write};
use std::time::Duration;

use super::messages::{Found, Message, Total, Waiting, Walk};
use super::selection::{State, age_of};
use super::visible::{self, Way};
use crate::address;
use crate::envelope::MessageTls;
use crate::json::{Format, Object};
use crate::log;
use crate::spool::{Entry, Note, Place};
use crate::sys;

/// Writes a line for each message, the oldest first, and below it a line for each recipient whose
/// delivery is still open. With JSON, each message is an object.
///
/// # Errors
/// The errors of reading the spool's directories and of writing to `out`.
pub fn list(
    walk: &Walk<'_>,
    format: Format,
    out: &mut dyn Write,
    idle: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let (now, is_for_user) = (sys::now(), walk.submitted_by.is_some());
    let out = std::cell::RefCell::new(out);
    let take = |found: Found| {
        let out = &mut **out.borrow_mut();
        match (found, format) {
            (Found::Unreadable(name, why), Format::Text) => writeln!(out, "{}  {why}", name.id),
            (Found::Unreadable(name, why), Format::Json) => {
                let mut object = Object::new();
                object.text("id", &name.id.to_string()).number("size", name.size).text("error", &why);
                writeln!(out, "{object}")
            }
            (Found::Message(message), format) => {
                let listed = Listed { note: note(walk, &message), message: &message, now, is_for_user };
                match format {
                    Format::Text => listed.text(out),
                    Format::Json => writeln!(out, "{}", listed.json()),
                }
            }
        }
    };
    let total = walk.run(take, &mut || idle(&mut **out.borrow_mut()))?;
    if format == Format::Text { writeln!(out.borrow_mut(), "{}", in_words(total)) } else { Ok(()) }
}

/// Returns the last line of a listing.
pub fn in_words(total: Total) -> String {
    let Total { messages, octets, is_cut } = total;
    let more = if is_cut { ", and there are more" } else { "" };
    match messages {
        0 => "-- queue is empty".to_owned(),
        1 => format!("-- 1 message, {octets} octets{more}"),
        _ => format!("-- {messages} messages, {octets} octets{more}"),
    }
}

/// Reads the note of a message. A message that was never tried and never held has none.
pub fn note(walk: &Walk<'_>, message: &Message) -> Note {
    let entry = &message.entry;
    let is_untried = entry.name().place == Place::New && message.recipients.iter().all(|to| to.last == 0);
    if is_untried { Note::default() } else { walk.spool.read_note(entry.id()) }
}

/// Why a message in `hold/` is held; `None` if that is not known, or for an unprivileged user, who learns
/// nothing about the rules of this site.
pub fn hold_reason(entry: &Entry, note: &Note, is_for_user: bool) -> Option<String> {
    if is_for_user {
        return None;
    }
    let reason = note.hold_reason().or_else(|| entry.hold_reason().map(str::to_owned)).unwrap_or_default();
    let reason: String = reason.chars().filter(|c| !c.is_control()).collect();
    (!reason.is_empty()).then_some(reason)
}

/// The last result for a recipient, as a user may see it.
pub fn result(to: &Waiting, note: &Note, is_for_user: bool) -> Option<String> {
    let address = &to.recipient.address;
    let result = note.last_result(address).filter(|_| !to.is_hidden)?;
    Some(if is_for_user { visible::result(&result, Way::of(to.destination.as_deref(), address)) } else { result })
}

/// A message in a listing.
struct Listed<'a> {
    message: &'a Message,
    note: Note,
    now: u64,
    /// Whether the listing is for an unprivileged user, and hides the mailboxes and commands of this
    /// host.
    is_for_user: bool,
}

impl Listed<'_> {
    /// Writes the lines of the message.
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let entry = &self.message.entry;
        let (id, size) = (entry.id(), entry.content_size());
        let held = match hold_reason(entry, &self.note, self.is_for_user) {
            _ if entry.name().place != Place::Hold => String::new(),
            Some(reason) => format!("  held: {reason}"),
            None => "  held".to_owned(),
        };
        writeln!(out, "{id}  {size}  {}  {}{held}", age(age_of(id, self.now)), address::path(entry.sender()))?;
        for to in &self.message.recipients {
            writeln!(out, "    {}  {}", address::path(Some(&to.recipient.address)), self.state(to))?;
        }
        Ok(())
    }

    /// Returns the state of a recipient in words.
    fn state(&self, to: &Waiting) -> String {
        let result = result(to, &self.note, self.is_for_user);
        let when = match (to.state, to.next) {
            (State::Running, _) => self.attempt(to),
            (State::Scheduled, Some(time)) => format!("not before {}", log::local_timestamp(time)),
            (State::Deferred, Some(time)) => format!("next {}", log::local_timestamp(time)),
            (State::Ready, _) if to.paced.is_some() => self.paced(to),
            (State::Ready, _) if to.last > 0 || result.is_some() => "ready".to_owned(),
            _ => String::new(),
        };
        let first = match (to.state, &result) {
            _ if to.last > 0 => "deferred",
            // An attempt has begun, but has not ended.
            (_, Some(_)) => "",
            (State::Running | State::Scheduled, None) => "",
            _ => "not tried yet",
        };
        let parts = [first.to_owned(), when].into_iter().chain(result).filter(|part| !part.is_empty());
        parts.collect::<Vec<_>>().join(", ")
    }

    /// Returns which limit of the destination keeps a recipient waiting, and until when.
    fn paced(&self, to: &Waiting) -> String {
        let Some((next, reason)) = to.paced else { return String::new() };
        let reason = if self.is_for_user { String::new() } else { format!(" by {reason}") };
        format!("paced{reason}, next {}", log::local_timestamp(next))
    }

    /// Returns what the worker of a recipient is doing.
    fn attempt(&self, to: &Waiting) -> String {
        let Some((since, activity)) = &to.attempt else { return String::new() };
        let stage = activity.as_ref().map_or_else(String::new, |now| {
            let host = if self.is_for_user || now.host.is_empty() { String::new() } else { format!(", {}", now.host) };
            format!(": {} for {}{host}", now.stage, age(now.since.as_secs()))
        });
        format!("being tried for {}{}", age(since.as_secs()), stage.replace(char::is_control, " "))
    }

    fn json(&self) -> Object {
        let (entry, mut object) = (&self.message.entry, Object::new());
        let id = entry.id();
        object.text("id", &id.to_string()).number("size", entry.content_size());
        object.text("arrived", &log::timestamp(id.seconds())).number("age", age_of(id, self.now));
        object.text("sender", &entry.sender().map(ToString::to_string).unwrap_or_default());
        object.text("expires", &log::timestamp(self.message.expires));
        let is_held = entry.name().place == Place::Hold;
        object.flag("held", is_held);
        object.some_text("reason", hold_reason(entry, &self.note, self.is_for_user).filter(|_| is_held).as_deref());
        object.some_text("require_tls", require_tls(entry.options().tls));
        object.objects("recipients", self.message.recipients.iter().map(|to| self.recipient(to)));
        object
    }

    fn recipient(&self, to: &Waiting) -> Object {
        let (recipient, mut object) = (&to.recipient, Object::new());
        object.text("address", &recipient.address.to_string());
        object.some_text("original", recipient.original.as_ref().map(ToString::to_string).as_deref());
        object.text("state", to.state.word());
        if !self.is_for_user {
            object.some_text("destination", to.destination.as_ref().map(|to| to.listed_name()).as_deref());
        }
        object.some_text("last", Some(to.last).filter(|last| *last > 0).map(log::timestamp).as_deref());
        let next = to.next.or(to.paced.map(|(next, _)| next));
        object.some_text("next", next.map(log::timestamp).as_deref());
        let paced = to.paced.filter(|_| !self.is_for_user);
        object.some_text("paced", paced.map(|(_, reason)| reason.to_string()).as_deref());
        if let Some((since, activity)) = &to.attempt {
            object.number("running", seconds(*since));
            if let Some(now) = activity {
                object.text("stage", now.stage).number("stage_for", seconds(now.since));
                object.some_text("host", Some(&*now.host).filter(|host| !self.is_for_user && !host.is_empty()));
            }
        }
        let result = result(to, &self.note, self.is_for_user);
        object.some_text("result", result.as_deref());
        object
    }
}

/// What a message demands of TLS, as listings in JSON show it: `yes` or `no`; `None` if it demands
/// nothing.
pub fn require_tls(tls: MessageTls) -> Option<&'static str> {
    match tls {
        MessageTls::Default => None,
        MessageTls::Required => Some("yes"),
        MessageTls::Indifferent => Some("no"),
    }
}

/// A duration in seconds with three digits after the point.
fn seconds(time: Duration) -> String {
    format!("{:.3}", time.as_secs_f64())
}

/// Returns a time span as text, such as `45s`, `12m`, `7h` or `3d`.
pub fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::selection::Selection;
    use crate::retry::Schedule;
    use crate::spool::{EntryName, QueueId, Spool};
    use std::fs;

    #[test]
    fn an_entry_of_a_later_version_is_counted_and_is_not_shown_to_other_users() {
        let root = std::env::temp_dir().join(format!("penfold-list-{}", std::process::id()));
        let spool = Spool::open(&root).expect("a new spool");
        let text = "penfold/2 head=0000000128 ";
        let id = QueueId::generate().expect("an id");
        let name = EntryName { id, size: text.len() as u64, place: Place::Cur };
        fs::write(root.join("cur").join(name.file_name()), text).expect("an entry");
        let [min, max, expire_after] = [60, 3600, 86_400].map(Duration::from_secs);
        let schedule = Schedule { min, max, expire_after };
        let list = |submitted_by, words: &[&str], format| {
            let (mut out, mut selection) = (Vec::new(), Selection::default());
            words.iter().for_each(|word| selection.take(word).expect(word));
            let walk = Walk { spool: &spool, schedule, selection: &selection, live: None, submitted_by };
            super::list(&walk, format, &mut out, &mut |_| Ok(())).expect("a list");
            String::from_utf8(out).expect("ASCII")
        };
        let why = "it belongs to another version of the spool";
        let expected = format!("{id}  {why}\n-- 1 message, {} octets\n", text.len());
        assert_eq!(list(None, &[], Format::Text), expected);
        let json = format!("{{\"id\":\"{id}\",\"size\":{},\"error\":\"{why}\"}}\n", text.len());
        assert_eq!(list(None, &[], Format::Json), json);
        for (user, words) in
            [(Some(1234), &[][..]), (None, &["from=<>"]), (None, &["state=ready"]), (None, &["age=1d"])]
        {
            assert_eq!(list(user, words, Format::Text), "-- queue is empty\n");
        }
        fs::remove_dir_all(&root).expect("removed");
    }
}

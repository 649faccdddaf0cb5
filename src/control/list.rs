//! Writes the listing of the queue, which is made from the spool alone, so that it needs no daemon.

use std::io::{self, Read, Write};
use std::sync::Arc;

use crate::activity;
use crate::address;
use crate::log;
use crate::message::trace;
use crate::queue::RunningJob;
use crate::retry::{Schedule, wait_for_release};
use crate::spool::{Entry, Note, Place, RecipientEntry, Spool, Unusable};
use crate::sys;

/// Writes a line for each message, the oldest first, and below it a line for each recipient whose
/// delivery is still open. `running` are the jobs that run now. If `submitted_by` is a uid, lists
/// only messages that this user has submitted with sendmail.
///
/// # Errors
/// The errors of reading the spool's directories and of writing to `out`.
pub fn list(
    spool: &Arc<Spool>,
    schedule: &Schedule,
    running: &[RunningJob],
    submitted_by: Option<u32>,
    out: &mut dyn Write,
) -> io::Result<()> {
    if spool.is_unused()? {
        return writeln!(out, "-- queue is empty");
    }
    let mut names = Vec::new();
    for place in [Place::New, Place::Cur, Place::Hold] {
        names.extend(spool.entries_in(place)?);
    }
    names.sort_unstable();
    // A message that moved from new/ to cur/ while the names were read is listed once.
    names.dedup_by_key(|name| name.id);
    let now = sys::now();
    let (mut count, mut bytes) = (0, 0);
    for name in names {
        match spool.entry(name) {
            Ok(entry) if submitted_by.is_some_and(|uid| submitter(&entry) != Some(uid)) => {}
            Ok(entry) => {
                show(&entry, (&spool.read_note(name.id), running), schedule, now, out)?;
                (count, bytes) = (count + 1, bytes + name.size);
            }
            // The submitter of a message that cannot be read is unknown, so no unprivileged user
            // sees the message.
            Err(Unusable::Later(_) | Unusable::Io(_)) if submitted_by.is_some() => {}
            Err(unreadable) => {
                match unreadable {
                    Unusable::Later(why) => writeln!(out, "{}  {why}", name.id)?,
                    Unusable::Io(e) => writeln!(out, "{}  {e}", name.id)?,
                    // The message was delivered meanwhile, or is corrupt and will be set aside by
                    // the daemon.
                    Unusable::Gone | Unusable::Corrupt(_) => continue,
                }
                (count, bytes) = (count + 1, bytes + name.size);
            }
        }
    }
    match count {
        0 => writeln!(out, "-- queue is empty"),
        1 => writeln!(out, "-- 1 message, {bytes} octets"),
        _ => writeln!(out, "-- {count} messages, {bytes} octets"),
    }
}

/// Returns the uid of the local user who submitted a message, from its first trace field; `None` if
/// the field names no such user.
fn submitter(entry: &Entry) -> Option<u32> {
    const MAX_READ: u64 = 2048;
    let mut text = Vec::new();
    entry.content().take(MAX_READ).read_to_end(&mut text).ok()?;
    trace::submitter(&text, &entry.id().to_string())
}

/// Writes the lines of one message.
fn show(
    entry: &Entry,
    (note, running): (&Note, &[RunningJob]),
    schedule: &Schedule,
    now: u64,
    out: &mut dyn Write,
) -> io::Result<()> {
    let id = entry.id();
    let (size, age) = (entry.name().size, age(now.saturating_sub(id.seconds())));
    let held = if entry.name().place == Place::Hold { held(entry, note) } else { String::new() };
    writeln!(out, "{id}  {size}  {age}  {}{held}", address::path(entry.sender()))?;
    for addressee in entry.recipients().iter().filter(|addressee| addressee.record.state.is_open()) {
        let number = addressee.reference().number;
        let attempt = running.iter().find(|job| job.id == id && job.recipients.contains(&number));
        let next = || schedule.next_within(entry.window(), addressee.record.last, id.seed());
        let release = entry.options().release.filter(|release| !wait_for_release(*release, now).is_zero());
        let when = match attempt {
            _ if entry.name().place == Place::Hold => String::new(),
            None if let Some(release) = release => format!(", not before {}", log::timestamp(release)),
            Some(job) => format!(", being tried for {}{}", self::age(job.since.as_secs()), stage(job)),
            None if addressee.record.last == 0 => String::new(),
            None => format!(", next {}", log::timestamp(next())),
        };
        writeln!(out, "    {}", recipient(addressee, note, &when))?;
    }
    Ok(())
}

/// Returns what the worker of a job is doing, such as `: connecting for 5s`.
fn stage(job: &RunningJob) -> String {
    activity::of(job.worker)
        .map_or_else(String::new, |current| format!(": {} for {}", current.stage, age(current.since.as_secs())))
}

/// Returns the end of the line of a held message, with the reason if it is known.
fn held(entry: &Entry, note: &Note) -> String {
    let reason = note.hold_reason().or_else(|| entry.hold_reason().map(str::to_owned)).unwrap_or_default();
    let reason: String = reason.chars().filter(|c| !c.is_control()).collect();
    if reason.is_empty() { "  held".to_owned() } else { format!("  held: {reason}") }
}

/// Returns the line of one recipient. `when` says when the next attempt is, or since when one runs.
fn recipient(addressee: &RecipientEntry, note: &Note, when: &str) -> String {
    let path = address::path(Some(&addressee.recipient.address));
    if addressee.record.last == 0 {
        return format!(
            "{path}  {}",
            when.strip_prefix(", ").filter(|when| !when.is_empty()).unwrap_or("not tried yet")
        );
    }
    let result = note.last_result(&addressee.recipient.address).map(|result| format!(", {result}")).unwrap_or_default();
    format!("{path}  deferred{when}{result}")
}

/// Returns a time span as text, such as `45s`, `12m`, `7h` or `3d`.
fn age(seconds: u64) -> String {
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
    use crate::spool::{EntryName, QueueId};
    use std::fs;
    use std::time::Duration;

    #[test]
    fn an_entry_of_a_later_version_is_counted_and_is_not_shown_to_other_users() {
        let root = std::env::temp_dir().join(format!("penfold-list-{}", std::process::id()));
        let spool = Spool::open(&root).expect("a new spool");
        let text = "penfold/2 head=0000000128 ";
        let id = QueueId::generate().expect("an id");
        let name = EntryName { id, size: text.len() as u64, place: Place::Cur };
        fs::write(root.join("cur").join(name.file_name()), text).expect("an entry");
        let [min, max, expire_after] = [60, 3600, 86_400].map(Duration::from_secs);
        let list = |of| {
            let mut out = Vec::new();
            super::list(&spool, &Schedule { min, max, expire_after }, &[], of, &mut out).expect("a list");
            String::from_utf8(out).expect("ASCII")
        };
        let expected =
            format!("{id}  it belongs to another version of the spool\n-- 1 message, {} octets\n", text.len());
        assert_eq!(list(None), expected);
        assert_eq!(list(Some(1234)), "-- queue is empty\n");
        fs::remove_dir_all(&root).expect("removed");
    }
}

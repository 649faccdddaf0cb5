//! How an entry is to be delivered: its recipients by destination.
//!
//! Asked for every entry when it comes, when it is found at the start, and when a
//! recipient turns out to have another destination. An entry that cannot be read
//! now is planned as a job to look again; one that makes no sense is put aside.

use std::collections::{HashMap, HashSet};
use std::io;

use super::Tools;
use crate::queue::{Event, LOCAL, Plan, Planned};
use crate::route::Route;
use crate::spool::{Entry, EntryName, QueueId, Slot, State, Unusable};

/// What the queue is told of an entry that was found on disk; `None` if it makes no
/// sense, and is now in `bad/`. What it waits for is added to `known`.
pub fn survey(tools: &Tools, name: EntryName, known: &mut HashSet<QueueId>) -> Option<Event> {
    let entry = match look(tools, name) {
        Ok(entry) => entry?,
        Err(plan) => return Some(Event::Found(plan)),
    };
    let had = known.len();
    known.extend(entry.awaited());
    // What a crash left of a report is put in order by the queue itself, while no job of the entry runs.
    if known.len() > had {
        Some(Event::New { entry: name, unsynced: true })
    } else {
        Some(Event::Found(plan_of(tools, &entry, true)))
    }
}

/// How an entry is to be delivered; `None` if it is gone, or if it makes no sense
/// and is now in `bad/`. No job of it runs. `unsynced` is whether it may have
/// been written before a crash.
pub fn plan(tools: &Tools, name: EntryName, unsynced: bool) -> Option<Plan> {
    let mut entry = match look(tools, name) {
        Ok(entry) => entry?,
        Err(plan) => return Some(plan),
    };
    if let Err(e) = entry.recover(0..entry.slots().len()) {
        return Some(unreadable(name, &e));
    }
    Some(plan_of(tools, &entry, unsynced))
}

/// Opens an entry; `None` is one that is gone, or bad. The error is a plan to look again.
fn look(tools: &Tools, name: EntryName) -> Result<Option<Entry>, Plan> {
    match tools.spool.entry(name) {
        Ok(entry) => Ok(Some(entry)),
        Err(Unusable::Gone) => Ok(None),
        Err(Unusable::Bad(bad)) => {
            tools.spool.condemn(name, bad.0);
            Ok(None)
        }
        Err(Unusable::Io(e)) => Err(unreadable(name, &e)),
    }
}

/// Tried again as a whole: what it holds is not known.
fn unreadable(name: EntryName, error: &io::Error) -> Plan {
    ::log::error!("spool: open {}: {error}", name.id);
    Plan { entry: name, unsynced: true, jobs: vec![Planned::new(LOCAL.into())] }
}

fn plan_of(tools: &Tools, entry: &Entry, unsynced: bool) -> Plan {
    let router = &tools.settings().router;
    let mut jobs: Vec<Planned> = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    for slot in entry.slots().iter().filter(|s| s.record.state.is_open()) {
        let key = key(slot, &router.route(&slot.recipient.address));
        let at = *known.entry(key).or_insert_with_key(|key| {
            jobs.push(Planned::new(key.clone()));
            jobs.len() - 1
        });
        // What a crash left in the middle is looked at first.
        let last = if slot.record.state == State::Todo { slot.record.last } else { 0 };
        jobs[at].add(number(slot), slot.recipient.address.domain(), last);
    }
    Plan { entry: entry.name(), unsynced, jobs }
}

/// What the queue calls the destination of a recipient. One whose copy is prepared
/// is settled here before anything else.
pub fn key(slot: &Slot, route: &Route) -> String {
    let destination = if slot.record.state == State::Todo { route.destination() } else { None };
    destination.unwrap_or_else(|| LOCAL.to_owned())
}

/// A recipient's number, as the queue keeps it.
pub fn number(slot: &Slot) -> u32 {
    u32::try_from(slot.number).unwrap_or(u32::MAX)
}

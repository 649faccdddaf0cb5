//! Makes the plan of an entry for the queue. A plan is a list of jobs, and each job has the
//! recipients of one destination.
//!
//! A plan is made for every entry when it is accepted, when the scan of the spool at the start of
//! the daemon finds it, and when a recipient turns out to have another destination. If an entry
//! cannot be read now, its plan is one local job, which reads the entry again. A corrupt entry is
//! moved to `bad/`.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::LazyLock;

use crate::destination::Destination;
use crate::envelope::MailOptions;
use crate::queue::{Plan, Planned};
use crate::route::srs::Departure;
use crate::route::{Route, RoutedMail};
use crate::site::{Settings, Site};
use crate::spool::{Entry, EntryName, QueueId, RecipientEntry, State, Unusable};

/// The result of scanning an entry.
pub enum Scan {
    /// The entry is gone.
    Gone,
    /// The entry can be delivered by this plan.
    Deliver(Plan),
    /// The queue has to deal with the entry while none of its jobs is running. The list holds the
    /// ids of the derived entries that the entry has waited for since a crash. If the list is
    /// empty, the entry is corrupt or was written by a later version.
    Repair(Vec<QueueId>),
}

/// Scans an entry without changing it, because workers may be running some of its jobs: the entry
/// may have been accepted since the daemon started.
pub fn scan(site: &Site, name: EntryName) -> Scan {
    match site.spool.entry(name) {
        Ok(entry) => {
            let awaited: Vec<QueueId> = entry.awaited().collect();
            if awaited.is_empty() { Scan::Deliver(plan_of(site, &entry, true)) } else { Scan::Repair(awaited) }
        }
        Err(Unusable::Gone) => Scan::Gone,
        Err(Unusable::Corrupt(_) | Unusable::Later(_)) => Scan::Repair(Vec::new()),
        Err(Unusable::Io(e)) => Scan::Deliver(unreadable(name, &e)),
    }
}

/// Makes the plan of an entry. Returns `None` if the entry is gone, if it is corrupt and was moved
/// to `bad/`, or if a later version has written it. No worker may be running a job of the entry.
/// `unsynced` is true if the entry may have been written before a crash, and must be synced before
/// an attempt.
pub fn plan(site: &Site, name: EntryName, unsynced: bool) -> Option<Plan> {
    let mut entry = match site.spool.entry(name) {
        Ok(entry) => entry,
        Err(Unusable::Gone) => return None,
        Err(Unusable::Corrupt(why)) => {
            site.spool.set_aside(name, why);
            return None;
        }
        Err(Unusable::Later(why)) => {
            site.spool.leave_alone(name, why);
            return None;
        }
        Err(Unusable::Io(e)) => return Some(unreadable(name, &e)),
    };
    if let Err(e) = entry.recover(0..entry.recipients().len()) {
        return Some(unreadable(name, &e));
    }
    Some(plan_of(site, &entry, unsynced))
}

/// The plan of an entry that cannot be read now.
fn unreadable(name: EntryName, error: &io::Error) -> Plan {
    ::log::error!("spool: open {}: {error}", name.id);
    Plan { jobs: vec![Planned::new(Destination::Local)], ..Plan::new(name) }
}

fn plan_of(site: &Site, entry: &Entry, unsynced: bool) -> Plan {
    let settings = site.settings();
    let (router, mail) = (&settings.router, RoutedMail::planned(entry));
    let mut jobs: Vec<Planned> = Vec::new();
    let mut known: HashMap<(Destination, Departure), usize> = HashMap::new();
    for addressee in entry.recipients().iter().filter(|addressee| addressee.record.state.is_open()) {
        let route = router.route_of(&addressee.recipient, &mail);
        let destination = settings.outgoing.for_sender(destination(addressee, &route), entry.sender());
        let departure = router.departure(&mail, &addressee.recipient);
        let index = *known.entry((destination, departure)).or_insert_with_key(|(destination, _)| {
            jobs.push(Planned::new(destination.clone()));
            jobs.len() - 1
        });
        // A recipient whose delivery was interrupted by a crash is tried first.
        let last = if addressee.record.state == State::Todo { addressee.record.last } else { 0 };
        jobs[index].add(addressee.reference(), addressee.recipient.address.domain(), last);
    }
    let MailOptions { priority, release, .. } = entry.options();
    Plan {
        entry: entry.name(),
        unsynced,
        sender: sender_number(entry),
        priority: *priority,
        release: release.unwrap_or(0),
        window: entry.window(),
        jobs,
    }
}

/// Returns the routes of recipients of a job for this destination. `None` if one of them has another
/// destination now.
pub fn routes_of(
    settings: &Settings,
    entry: &Entry,
    wanted: &Destination,
    addressees: &[RecipientEntry],
) -> Option<Vec<Route>> {
    let (router, planned) = (&settings.router, RoutedMail::planned(entry));
    let mut routes: Vec<Route> = addressees.iter().map(|to| router.route_of(&to.recipient, &planned)).collect();
    let destination = |(to, route)| settings.outgoing.for_sender(destination(to, route), entry.sender());
    if addressees.iter().zip(&routes).any(|pair| destination(pair) != *wanted) {
        return None;
    }
    // Here is the time to ask Dovecot, unless it is a store, which knows its users by itself.
    if !wanted.is_remote() {
        let outside =
            addressees.iter().zip(&mut routes).filter(|(to, _)| router.has_outside_users(&to.recipient.address));
        for (to, route) in outside {
            *route = router.route_of(&to.recipient, &RoutedMail::of(entry));
        }
    }
    // The postmaster's mail can turn out to be for the store. The answer is remembered for the next plan.
    let is_for_store = |(to, route): (&RecipientEntry, &Route)| {
        matches!(route, Route::Remote(_)) && !wanted.is_remote() && !matches!(to.record.state, State::Unreported(_))
    };
    (!addressees.iter().zip(&routes).any(is_for_store)).then_some(routes)
}

/// A number by which the queue tells senders apart. It is a hash with a random key, so that no
/// client can choose senders that share a number.
fn sender_number(entry: &Entry) -> u32 {
    static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    KEYS.hash_one(entry.sender()) as u32
}

/// The destination of a recipient. If a delivery was prepared, but the recipient has no mailbox any
/// more, the destination is this host, where a worker settles the prepared delivery before anything
/// else. If the recipient belongs to another host by now, the message is sent to that host,
/// although it may then arrive twice. If the message was delivered, and only the report about that
/// is missing, the destination is this host.
pub fn destination(addressee: &RecipientEntry, route: &Route) -> Destination {
    match route {
        _ if matches!(addressee.record.state, State::Unreported(_)) => Destination::Local,
        Route::Mailbox(_) | Route::Remote(_) => route.destination(),
        _ if addressee.record.state != State::Todo => Destination::Local,
        _ => route.destination(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::Recipient;
    use crate::spool::DeliveryState;

    #[test]
    fn a_prepared_recipient_whose_domain_has_moved_to_another_host_is_sent_there() {
        let address = "jon@moved.test".parse().expect("an address");
        let record = DeliveryState { state: State::Prepared { born: 1, inode: 2 }, last: 0, warned: 0 };
        let recipient = RecipientEntry { number: 0, offset: 64, recipient: Recipient::new(address), record, share: 0 };
        let Destination::Remote(target, _) = Destination::mx("moved.test") else { unreachable!() };
        assert_eq!(destination(&recipient, &Route::Remote(target)), Destination::mx("moved.test"));
    }
}

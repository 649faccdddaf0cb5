//! Withdraws an entry from the queue, so that an administrator can hold, release or remove it.
//!
//! While an entry is withdrawn, none of its jobs runs, and the queue ignores its id, however often
//! the entry is reported. If jobs of the entry are running, no further ones start, and the entry is
//! withdrawn when the running ones have ended. The queue sets no deadline. A requester that does
//! not want to wait any longer gives the entry back.

use std::sync::Arc;

use crossbeam_channel::Sender;

use super::Queue;
use super::item::{Item, ItemEnd};
use crate::spool::{EntryName, QueueId};

/// The answer to a request to withdraw an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withdrawn {
    /// The entry is withdrawn until [`Event::GiveBack`](super::Event::GiveBack). The name is `None`
    /// if the queue does not know the entry.
    Yes(Option<EntryName>),
    /// A running job has settled the last recipients, and the entry is gone.
    Gone,
    /// Some outcomes of the entry could not be recorded. A withdrawal would lose them.
    Unrecorded,
    /// Another request has withdrawn the entry.
    Busy,
}

/// What has happened to an entry during its withdrawal, and what the queue then does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GivenBack {
    /// The entry is unchanged, and its jobs go on. If the queue did not know it before the withdrawal,
    /// it is loaded only if it was reported since.
    Unchanged,
    /// The entry has a new name, and is tried.
    At(EntryName),
    /// The entry is removed or in `hold/`, so the queue has nothing to do for it.
    Left,
}

/// Identifies a request to withdraw an entry. A requester that gives back an entry without having
/// got an answer must not end the withdrawal of another one.
#[derive(Debug, Clone, Default)]
pub struct Requester(Arc<()>);

impl PartialEq for Requester {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// The withdrawal of an entry.
pub struct Withdrawal {
    requester: Requester,
    /// The channel to the requester, who waits while jobs of the entry are running; `None` once the
    /// entry is withdrawn.
    reply: Option<Sender<Withdrawn>>,
    /// The name of the entry, if the queue knew it.
    entry: Option<EntryName>,
}

impl Queue {
    /// Withdraws an entry now, or as soon as none of its jobs is running.
    pub(super) fn withdraw(&mut self, id: QueueId, requester: Requester, reply: Sender<Withdrawn>) {
        // An error means that the requester is gone, which is harmless. The same is true for the
        // other replies.
        if self.withdrawn.contains_key(&id) {
            let _ = reply.try_send(Withdrawn::Busy);
            return;
        }
        let Some(item) = self.items.get_mut(&id) else {
            self.withdrawn.insert(id, Withdrawal { requester, reply: None, entry: None });
            let _ = reply.try_send(Withdrawn::Yes(None));
            return;
        };
        if has_unrecorded(item) {
            let _ = reply.try_send(Withdrawn::Unrecorded);
            return;
        }
        if item.end != ItemEnd::Vanished {
            item.end = ItemEnd::Withdraw;
        }
        self.withdrawn.insert(id, Withdrawal { requester, reply: Some(reply), entry: None });
        self.close(id);
    }

    /// Ends the requester's withdrawal of an entry. If some of its jobs are still running, the entry is planned
    /// anew when they have ended.
    pub(super) fn give_back(&mut self, id: QueueId, requester: &Requester, given_back: GivenBack) {
        if self.withdrawn.get(&id).is_some_and(|withdrawal| withdrawal.requester != *requester) {
            return;
        }
        let Some(withdrawal) = self.withdrawn.remove(&id) else { return };
        if let Some(item) = self.items.get_mut(&id) {
            if item.end == ItemEnd::Withdraw {
                item.end = ItemEnd::Stale;
            }
            return;
        }
        let entry = match given_back {
            GivenBack::Unchanged => withdrawal.entry,
            GivenBack::At(entry) => Some(entry),
            GivenBack::Left => None,
        };
        entry.into_iter().for_each(|entry| self.load(entry, true));
    }

    /// Notes an entry that is reported during its withdrawal, if the queue did not know it. If it is given
    /// back unchanged, it is loaded.
    pub(super) fn note_withdrawn(&mut self, entry: EntryName) {
        if !self.items.contains_key(&entry.id)
            && let Some(withdrawal) = self.withdrawn.get_mut(&entry.id)
        {
            withdrawal.entry.get_or_insert(entry);
        }
    }

    /// Completes a withdrawal: removes the jobs of the entry, none of which is running any more.
    pub(super) fn end_withdrawal(&mut self, id: QueueId) {
        let Some(item) = self.items.get(&id) else { return };
        let (entry, is_settled, has_unrecorded) = (item.entry(id), item.open() == 0, has_unrecorded(item));
        if has_unrecorded {
            self.refuse_withdrawal(id, Withdrawn::Unrecorded);
            self.plan_anew(id);
            return;
        }
        let is_gone = is_settled && (self.tasks.finish)(entry);
        self.forget(id);
        if is_gone {
            self.refuse_withdrawal(id, Withdrawn::Gone);
        } else if let Some(withdrawal) = self.withdrawn.get_mut(&id) {
            withdrawal.entry = Some(entry);
            let _ = withdrawal.reply.take().map(|reply| reply.try_send(Withdrawn::Yes(Some(entry))));
        }
    }

    /// Refuses a request to withdraw an entry. If there is no request, does nothing.
    pub(super) fn refuse_withdrawal(&mut self, id: QueueId, why: Withdrawn) {
        let reply = self.withdrawn.remove(&id).and_then(|withdrawal| withdrawal.reply);
        let _ = reply.map(|reply| reply.try_send(why));
    }
}

fn has_unrecorded(item: &Item) -> bool {
    item.jobs().iter().any(|job| job.unrecorded.is_some())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crossbeam_channel::{bounded, unbounded};

    use super::*;
    use crate::destination::Destination;
    use crate::outgoing::Limits;
    use crate::queue::{Event, Plan, Planned, QueueSettings, SpoolTasks, Workers};
    use crate::retry::Schedule;
    use crate::spool::Place;
    use crate::timeouts::HostTimeouts;

    fn queue() -> Queue {
        let second = Duration::from_secs(1);
        let schedule = Schedule { min: second, max: second, expire_after: second };
        let tasks = SpoolTasks {
            load: Box::new(|_, _| None),
            choose: Box::new(|first, _| first),
            finish: Box::new(|_| true),
            limits: Arc::new(|_| Limits::default()),
            clear_failures: Box::new(|| ()),
        };
        let settings = QueueSettings { schedule, per_destination: 1 };
        Queue::new(settings, unbounded().1, Workers::none(), tasks, Arc::new(HostTimeouts::default()))
    }

    /// A requester that has waited too long gives back an entry that another one has withdrawn in
    /// the meantime.
    #[test]
    fn only_the_requester_of_a_withdrawal_ends_it() {
        let (mut queue, id) = (queue(), QueueId::generate().expect("an id"));
        let ask = |queue: &mut Queue, requester: &Requester| {
            let (sender, receiver) = bounded(1);
            queue.withdraw(id, requester.clone(), sender);
            receiver.try_recv().expect("an answer")
        };
        let (first, second) = (Requester::default(), Requester::default());
        assert_eq!(ask(&mut queue, &first), Withdrawn::Yes(None));
        queue.give_back(id, &second, GivenBack::Unchanged);
        assert_eq!(ask(&mut queue, &second), Withdrawn::Busy);
        queue.give_back(id, &first, GivenBack::Unchanged);
        assert_eq!(ask(&mut queue, &second), Withdrawn::Yes(None));
    }

    /// The delivery at once of a message can fail while a request has withdrawn the message.
    #[test]
    fn an_entry_that_is_reported_during_its_withdrawal_is_not_forgotten() {
        for (given_back, is_known) in [(GivenBack::Unchanged, true), (GivenBack::Left, false)] {
            let (mut queue, id) = (queue(), QueueId::generate().expect("an id"));
            queue.tasks.load = Box::new(|name, _| {
                let jobs = vec![Planned::new(Destination::Local)];
                Some(Plan { jobs, ..Plan::new(name) })
            });
            let (requester, (sender, _receiver)) = (Requester::default(), bounded(1));
            queue.withdraw(id, requester.clone(), sender);
            queue.take(Event::New(EntryName { id, size: 1, place: Place::New }));
            assert!(!queue.items.contains_key(&id));
            queue.give_back(id, &requester, given_back);
            assert_eq!(queue.items.contains_key(&id), is_known, "{given_back:?}");
        }
    }
}

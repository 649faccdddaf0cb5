//! What is due next.
//!
//! One thread owns the queue and is told things by [`Event`]s; nothing here is
//! shared. Its unit is the job, one entry and one destination: jobs of one entry
//! run side by side. A job is *waiting* for its time, *ready*, *running* at a worker, or
//! settled. Destinations take turns; each elsewhere has at most so many workers,
//! those that were slow at last have together at most half of them, and a
//! quarter is kept for this host, so that no tarpit uses up the pool. Nothing is kept on disk here: the queue can be rebuilt
//! from the spool at any time, and an entry that was reported twice is known. Does
//! not know what a destination means, and opens no entry itself.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use crate::outcome::Outcome;
use crate::spool::{EntryName, QueueId};
use crate::sys;

mod domains;
mod event;

use domains::{Domains, names};
pub use event::{Event, Job, Key, LOCAL, Plan, Planned, Report, Selector, Settings, Verdict};

/// A job that takes longer makes its destination a slow one.
const SLOW: Duration = Duration::from_secs(30);
/// The longest sleep while something waits, so that a change of the clock is noticed.
const NAP: Duration = Duration::from_secs(600);

/// The queue's own thread. `load` plans a new entry, `None` if there is nothing to
/// do; `finish` removes an entry of which everything is settled.
pub struct Queue {
    settings: Settings,
    events: Receiver<Event>,
    workers: Vec<Sender<Job>>,
    load: Box<dyn Fn(EntryName, bool) -> Option<Plan> + Send>,
    finish: Box<dyn Fn(EntryName) -> bool + Send>,
    items: HashMap<QueueId, Item>,
    destinations: HashMap<Key, Destination>,
    domains: Domains,
    /// Destinations with ready jobs and room for one more, each once.
    turns: VecDeque<Key>,
    due: BinaryHeap<Reverse<(u64, QueueId, usize)>>,
    idle: Vec<(usize, Option<Key>)>,
    running: usize,
    /// Those of them that are not for this host.
    running_away: usize,
    running_slow: usize,
    /// When the jobs that run were begun, in that order, and where to; without those
    /// that are known to take long. The next one's number is `count`.
    begun: BTreeMap<u64, (Instant, Key)>,
    count: u64,
    draining: bool,
    stopping: bool,
}

struct Item {
    entry: EntryName,
    unsynced: bool,
    end: End,
    jobs: Vec<ItemJob>,
    /// Of `jobs`: those not settled, and of them those running.
    open: usize,
    running: usize,
}

/// What is to come when nothing of an entry runs any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Nothing before all jobs are settled; then the entry is removed.
    Finish,
    /// It is planned anew.
    Stale,
    /// It is forgotten.
    Vanished,
}

struct ItemJob {
    key: Key,
    slots: Vec<u32>,
    /// The recipients' domains, if `key` does not say them.
    domains: Box<[Arc<str>]>,
    owed: Vec<(u32, Outcome)>,
    state: JobState,
}

impl ItemJob {
    /// Whether a recipient is in a domain.
    fn is_for(&self, domain: &str) -> bool {
        names(&self.key, domain) || self.domains.iter().any(|d| **d == *domain)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum JobState {
    Waiting(u64),
    Ready,
    Running,
    Settled,
}

#[derive(Default)]
struct Destination {
    jobs: usize,
    ready: VecDeque<(QueueId, usize)>,
    running: usize,
    slow: bool,
    in_turn: bool,
}

impl Queue {
    /// An empty queue. Workers are named by their place in `workers`.
    pub fn new(
        settings: Settings,
        events: Receiver<Event>,
        workers: Vec<Sender<Job>>,
        load: Box<dyn Fn(EntryName, bool) -> Option<Plan> + Send>,
        finish: Box<dyn Fn(EntryName) -> bool + Send>,
    ) -> Self {
        let idle = (0..workers.len()).rev().map(|worker| (worker, None)).collect();
        Self {
            settings,
            events,
            workers,
            load,
            finish,
            items: HashMap::new(),
            destinations: HashMap::new(),
            domains: Domains::default(),
            turns: VecDeque::new(),
            due: BinaryHeap::new(),
            idle,
            running: 0,
            running_away: 0,
            running_slow: 0,
            begun: BTreeMap::new(),
            count: 0,
            draining: false,
            stopping: false,
        }
    }

    /// Works until it is told to stop and nothing runs any more.
    pub fn run(mut self) {
        loop {
            if !self.stopping {
                self.note_overdue();
                self.wake_due();
                self.dispatch();
            }
            if self.running == 0 && (self.stopping || (self.draining && self.turns.is_empty())) {
                return;
            }
            match self.next_event() {
                Ok(event) => self.take(event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn next_event(&self) -> Result<Event, RecvTimeoutError> {
        let due = self.due.peek().map(|Reverse((due, ..))| self.settings.schedule.wait(*due, sys::now()).min(NAP));
        let overdue = self.begun.values().next().map(|(begun, _)| SLOW.saturating_sub(begun.elapsed()));
        match due.into_iter().chain(overdue).min() {
            Some(wait) if !self.stopping => self.events.recv_timeout(wait),
            _ => self.events.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::New { entry, unsynced } => self.load(entry, unsynced),
            Event::Found(plan) => self.insert(plan),
            Event::Report(report) => self.report(report),
            // Whoever asked may have gone.
            Event::Flush(selector, said) => drop(said.try_send(self.flush(&selector))),
            Event::Settings(settings) => self.settings = settings,
            Event::Drain => self.draining = true,
            Event::Stop => self.stopping = true,
        }
    }

    fn load(&mut self, entry: EntryName, unsynced: bool) {
        if self.items.contains_key(&entry.id) {
            return;
        }
        if let Some(plan) = (self.load)(entry, unsynced) {
            self.insert(plan);
        }
    }

    fn insert(&mut self, plan: Plan) {
        let id = plan.entry.id;
        if self.items.contains_key(&id) {
            return;
        }
        let open = plan.jobs.len();
        let (entry, unsynced) = (plan.entry, plan.unsynced);
        let mut item = Item { entry, unsynced, end: End::Finish, jobs: Vec::with_capacity(open), open, running: 0 };
        for planned in plan.jobs {
            let key = self.join(planned.key);
            let due = match planned.last {
                // It could not be read: not again at once, or it would be for ever.
                _ if planned.slots.is_empty() => sys::now() + self.settings.schedule.min.as_secs(),
                last => self.settings.schedule.next_attempt(id.seconds(), last.unwrap_or(0), id.seed()),
            };
            self.due.push(Reverse((due, id, item.jobs.len())));
            let Planned { slots, mut domains, .. } = planned;
            domains.sort_unstable();
            domains.dedup();
            let domains = domains.into_iter().map(|d| self.domains.share(d)).collect();
            item.jobs.push(ItemJob { key, slots, domains, owed: Vec::new(), state: JobState::Waiting(due) });
        }
        self.items.insert(id, item);
        self.close(id);
    }

    /// The shared name of a destination, with one job more.
    fn join(&mut self, key: String) -> Key {
        let key: Key = match self.destinations.get_key_value(key.as_str()) {
            Some((key, _)) => Arc::clone(key),
            None => key.into(),
        };
        self.destinations.entry(Arc::clone(&key)).or_default().jobs += 1;
        key
    }

    fn leave(&mut self, key: &Key) {
        if let Some(destination) = self.destinations.get_mut(key) {
            destination.jobs -= 1;
            if destination.jobs == 0 {
                self.destinations.remove(key);
                self.turns.retain(|k| k != key);
            }
        }
    }

    /// Makes ready what is due.
    fn wake_due(&mut self) {
        let now = sys::now();
        while let Some(&Reverse((due, id, index))) = self.due.peek() {
            if !self.settings.schedule.wait(due, now).is_zero() {
                return;
            }
            self.due.pop();
            // A job that was flushed or rescheduled since is not what this says.
            if self.job(id, index).is_some_and(|job| job.state == JobState::Waiting(due)) {
                self.make_ready(id, index);
            }
        }
    }

    fn job(&mut self, id: QueueId, index: usize) -> Option<&mut ItemJob> {
        self.items.get_mut(&id)?.jobs.get_mut(index)
    }

    fn make_ready(&mut self, id: QueueId, index: usize) {
        let Some(job) = self.job(id, index) else { return };
        job.state = JobState::Ready;
        let key = Arc::clone(&job.key);
        if let Some(destination) = self.destinations.get_mut(&key) {
            destination.ready.push_back((id, index));
        }
        self.offer_turn(&key);
    }

    fn offer_turn(&mut self, key: &Key) {
        let (limit, half) = (self.settings.per_destination, (self.workers.len() / 2).max(1));
        let Some(destination) = self.destinations.get_mut(key) else { return };
        let is_local = &**key == LOCAL;
        let has_room = is_local || (destination.running < limit && (!destination.slow || self.running_slow < half));
        if has_room && !destination.in_turn && !destination.ready.is_empty() {
            destination.in_turn = true;
            self.turns.push_back(Arc::clone(key));
        }
    }

    /// Gives ready jobs to idle workers.
    fn dispatch(&mut self) {
        while !self.idle.is_empty() {
            let Some(key) = self.next_turn() else { return };
            let Some(destination) = self.destinations.get_mut(&key) else { continue };
            destination.in_turn = false;
            let half = (self.workers.len() / 2).max(1);
            if destination.slow && self.running_slow >= half && &*key != LOCAL {
                // It is offered a turn again when a slow one has ended.
                continue;
            }
            let Some((id, index)) = destination.ready.pop_front() else { continue };
            self.hand_out(&key, id, index);
            self.offer_turn(&key);
        }
    }

    /// The next destination in turn; only this host once three quarters of the workers are away.
    fn next_turn(&mut self) -> Option<Key> {
        let count = self.workers.len();
        let kept = (count / 4).max(usize::from(count > 1));
        if self.running_away < count - kept {
            return self.turns.pop_front();
        }
        let at = self.turns.iter().position(|key| **key == *LOCAL)?;
        self.turns.remove(at)
    }

    fn hand_out(&mut self, key: &Key, id: QueueId, index: usize) {
        // One that is to be planned anew or forgotten starts nothing more.
        let Some(item) = self.items.get_mut(&id).filter(|item| item.end == End::Finish) else { return };
        let (entry, unsynced, is_last) = (item.entry, item.unsynced, item.open == 1);
        item.running += 1;
        let Some(job) = item.jobs.get_mut(index) else { return };
        job.state = JobState::Running;
        let job = Job {
            entry,
            key: Arc::clone(key),
            slots: std::mem::take(&mut job.slots),
            owed: std::mem::take(&mut job.owed),
            unsynced,
            is_last,
            index,
            started: self.count,
        };
        if **key != *LOCAL {
            self.begun.insert(self.count, (Instant::now(), Arc::clone(key)));
        }
        self.count += 1;
        let holder = self.idle.iter().position(|(_, holds)| holds.as_ref() == Some(key));
        // Otherwise one that holds nothing, so that connections last.
        let at = holder.or_else(|| self.idle.iter().rposition(|(_, holds)| holds.is_none())).unwrap_or(0);
        let (worker, _) = self.idle.remove(at);
        if let Some(destination) = self.destinations.get_mut(key) {
            destination.running += 1;
            self.running_slow += usize::from(destination.slow);
        }
        self.running += 1;
        self.running_away += usize::from(**key != *LOCAL);
        // A worker lives as long as the queue.
        let _ = self.workers[worker].send(job);
    }

    fn report(&mut self, report: Report) {
        let Report { worker, job, verdict, took, holds, children } = report;
        self.idle.push((worker, holds));
        self.running -= 1;
        self.running_away -= usize::from(*job.key != *LOCAL);
        self.begun.remove(&job.started);
        self.note_speed(&job.key, took);
        self.note_verdict(job, verdict);
        children.into_iter().for_each(|child| self.load(child, false));
    }

    fn note_verdict(&mut self, job: Job, verdict: Verdict) {
        let id = job.entry.id;
        let Some(item) = self.items.get_mut(&id) else { return };
        item.entry = job.entry;
        item.unsynced &= job.unsynced;
        item.running -= 1;
        let Some(own) = item.jobs.get_mut(job.index) else { return };
        own.owed = job.owed;
        if let Verdict::Later { slots, due } = verdict {
            own.slots = slots;
            own.state = JobState::Waiting(due);
            self.due.push(Reverse((due, id, job.index)));
        } else {
            own.state = JobState::Settled;
            item.open -= 1;
            match verdict {
                Verdict::Stale if item.end == End::Finish => item.end = End::Stale,
                Verdict::Vanished => item.end = End::Vanished,
                _ => {}
            }
        }
        self.close(id);
        self.offer_turn(&job.key);
    }

    /// A job that has run for long makes its destination slow before it ends.
    fn note_overdue(&mut self) {
        while let Some(first) = self.begun.first_entry().filter(|first| first.get().0.elapsed() >= SLOW) {
            let (_, key) = first.remove();
            if let Some(destination) = self.destinations.get_mut(&key).filter(|d| !d.slow) {
                destination.slow = true;
                self.running_slow += destination.running;
            }
        }
    }

    fn note_speed(&mut self, key: &Key, took: Duration) {
        let Some(destination) = self.destinations.get_mut(key) else { return };
        destination.running -= 1;
        let was_slow = std::mem::replace(&mut destination.slow, took >= SLOW && **key != *LOCAL);
        let is_slow = destination.slow;
        // Those of its jobs that still run count as what it is now.
        let others = destination.running;
        match (was_slow, is_slow) {
            (true, true) => self.running_slow -= 1,
            (true, false) => self.running_slow -= others + 1,
            (false, true) => self.running_slow += others,
            (false, false) => {}
        }
        if was_slow {
            let waiting: Vec<Key> = self
                .destinations
                .iter()
                .filter(|(_, d)| d.slow && !d.ready.is_empty())
                .map(|(k, _)| Arc::clone(k))
                .collect();
            waiting.iter().for_each(|key| self.offer_turn(key));
        }
    }

    /// Does what is to come when nothing of an entry runs any more.
    fn close(&mut self, id: QueueId) {
        let Some(item) = self.items.get(&id).filter(|item| item.running == 0) else { return };
        let (entry, end, is_settled) = (item.entry, item.end, item.open == 0);
        match end {
            End::Finish if is_settled && !(self.finish)(entry) => self.finish_later(id),
            End::Finish if is_settled => self.forget(id),
            End::Finish => {}
            End::Stale => self.plan_anew(id),
            End::Vanished => self.forget(id),
        }
    }

    /// An entry that could not be removed has a job once more: to be looked at.
    fn finish_later(&mut self, id: QueueId) {
        let due = sys::now() + self.settings.schedule.min.as_secs();
        let key = self.join(LOCAL.to_owned());
        let Some(item) = self.items.get_mut(&id) else { return };
        let state = JobState::Waiting(due);
        self.due.push(Reverse((due, id, item.jobs.len())));
        item.jobs.push(ItemJob { key, slots: Vec::new(), domains: Box::default(), owed: Vec::new(), state });
        item.open = 1;
    }

    fn plan_anew(&mut self, id: QueueId) {
        let Some(item) = self.items.get_mut(&id) else { return };
        let (entry, unsynced) = (item.entry, item.unsynced);
        let owed: Vec<(u32, Outcome)> = item.jobs.iter_mut().flat_map(|job| std::mem::take(&mut job.owed)).collect();
        self.forget(id);
        self.load(entry, unsynced);
        let Some(item) = self.items.get_mut(&id) else { return };
        for (number, outcome) in owed {
            // One that cannot be read now has a job without recipients, which owes for all.
            let at = item.jobs.iter().position(|job| job.slots.contains(&number)).unwrap_or(0);
            if let Some(job) = item.jobs.get_mut(at) {
                job.owed.push((number, outcome));
            }
        }
    }

    fn forget(&mut self, id: QueueId) {
        let Some(item) = self.items.remove(&id) else { return };
        for job in item.jobs {
            if job.state == JobState::Ready
                && let Some(destination) = self.destinations.get_mut(&job.key)
            {
                destination.ready.retain(|(other, _)| *other != id);
            }
            self.leave(&job.key);
            self.domains.release(job.domains);
        }
    }

    /// Makes ready what waits; how much that was, with what was so already.
    fn flush(&mut self, selector: &Selector) -> usize {
        let (mut chosen, mut count) = (Vec::new(), 0);
        for (id, item) in &self.items {
            for (index, job) in item.jobs.iter().enumerate() {
                let is_meant = match selector {
                    Selector::All => true,
                    Selector::Message(wanted) => id == wanted,
                    Selector::Domain(domain) => job.is_for(domain),
                };
                match job.state {
                    JobState::Waiting(due) if is_meant => chosen.push((due, *id, index)),
                    JobState::Ready | JobState::Running if is_meant => {}
                    _ => continue,
                }
                count += 1;
            }
        }
        chosen.sort_unstable();
        // One that has moved house may be tried at once: its host may be another now.
        let keys: HashSet<Key> =
            chosen.iter().filter_map(|&(_, id, index)| self.job(id, index).map(|j| Arc::clone(&j.key))).collect();
        for key in keys {
            if let Some(destination) = self.destinations.get_mut(&key).filter(|d| d.running == 0) {
                destination.slow = false;
            }
        }
        chosen.into_iter().for_each(|(_, id, index)| self.make_ready(id, index));
        count
    }
}

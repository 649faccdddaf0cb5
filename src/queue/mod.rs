//! Decides which mail the workers deliver next, and when. The queue keeps the jobs that wait, the
//! jobs that are ready and the jobs at workers.
//!
//! - `census`: counts the messages, for statistics
//! - `destination_state`: one destination that has jobs, or had some lately
//! - `event`: events for the queue, and jobs for its workers
//! - `flush`: trying waiting jobs at once
//! - `health`: the health of a destination, which limits its running jobs
//! - `intern`: one copy in memory of each destination and domain
//! - `item`: one entry in memory
//! - `look`: what the queue knows about some entries
//! - `pace`: the rates and pauses of destinations
//! - `pool`: shares of the pool of workers
//! - `ready`: the ready jobs of one destination, by priority, in which senders take turns
//! - `times`: when waiting and held jobs become ready
//! - `turns`: which destination may start a job
//! - `waiting`: the destinations that wait for a turn
//! - `withdraw`: withdrawing an entry, so that it can be held, released or removed
//! - `workers`: the workers' threads
//!
//! One thread owns the queue and receives [`Event`]s. A job is the recipients of one entry that
//! have the same destination. Jobs of one entry run in parallel. A job is *waiting* for the time of
//! its next attempt, *held* until the time before which its message must not be delivered, *ready* for its destination's turn, *running* at a worker, or *settled* if
//! nothing is left to do for its recipients. The queue keeps nothing on disk: it can be rebuilt
//! from the spool at any time, and an entry that is reported twice is recognized. A million
//! messages may wait. Only a flush looks at all of them, and the memory is given back when they are
//! gone. The queue opens no file of an entry itself.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::destination::Destination;
use crate::retry;
use crate::spool::{EntryName, Place, QueueId};
use crate::sys;
use crate::timeouts::HostTimeouts;

mod census;
mod destination_state;
mod event;
mod flush;
mod health;
mod intern;
mod item;
mod look;
mod pace;
mod pool;
mod ready;
mod times;
mod turns;
mod waiting;
mod withdraw;
mod workers;

pub use event::{
    Event, Job, JobReport, JobResult, OpenConnection, Plan, Planned, QueueSettings, RunningJob, Scanned, Selector,
};
pub use health::{DestinationStatus, LatestDomains, NOT_TRIED};
use intern::Interner;
use item::{Item, ItemEnd, ItemJob, JobState};
pub use look::{JobProgress, KnownEntry, KnownJob};
use times::{Times, waits_until};
use turns::{JobRef, LimitsOf, NextJob, Turns};
use withdraw::Withdrawal;
pub use withdraw::{GivenBack, Requester, Withdrawn};
pub use workers::Workers;

/// The maximum time that the queue sleeps while a job waits. It is short enough for the queue to
/// notice when the clock is changed.
const MAX_SLEEP: Duration = Duration::from_secs(600);
/// The maximum number of jobs in a row over one connection while other destinations wait.
const MAX_STREAK: usize = 8;
/// Collections below this capacity are never shrunk.
const MIN_CAPACITY: usize = 4096;

/// The operations on the spool and on addresses that the queue calls.
pub struct SpoolTasks {
    /// Plans a new entry. The second argument is whether the entry may have been written before a
    /// crash. Returns `None` if there is nothing to do.
    pub load: Box<dyn Fn(EntryName, bool) -> Option<Plan> + Send>,
    /// Decides which of two files with the same id is kept. The caller makes sure that neither has
    /// a running job.
    pub choose: Box<dyn Fn(EntryName, EntryName) -> EntryName + Send>,
    /// Removes an entry whose recipients are all settled. Returns false if the removal has failed.
    pub finish: Box<dyn Fn(EntryName) -> bool + Send>,
    /// Returns the limits of a destination.
    pub limits: Arc<LimitsOf>,
    /// Lets the addresses of hosts that are down be tried again at once.
    pub clear_failures: Box<dyn Fn() + Send>,
}

/// The state of the queue, owned by its thread.
pub struct Queue {
    settings: QueueSettings,
    events: Receiver<Event>,
    workers: Workers,
    tasks: SpoolTasks,
    items: HashMap<QueueId, Box<Item>>,
    /// The number of jobs of all items.
    jobs: usize,
    /// The destinations of all jobs.
    destinations: Interner<Destination>,
    /// The domains of each job's recipients. A domain is left out if the job's destination is its
    /// mail exchangers at port 25.
    domains: Interner<str>,
    turns: Turns,
    /// The waiting jobs, by the time of their next attempts.
    due: Times,
    /// The held jobs, by the time before which they must not be tried.
    held: Times,
    /// The running jobs, by worker.
    running: HashMap<usize, RunningJob>,
    /// The entries committed by other processes, which the queue holds back until all duplicates
    /// are known; `None` from then on.
    held_back: Option<Vec<EntryName>>,
    /// The entries that are withdrawn, or that will be when none of their jobs is running.
    withdrawn: HashMap<QueueId, Withdrawal>,
    /// When ETRN last had the jobs of a selector tried. Only the last minute is kept.
    asked: HashMap<Selector, Instant>,
    draining: bool,
    stopping: bool,
}

impl Queue {
    /// Returns an empty queue. `timeouts` apply to the workers' connections.
    pub fn new(
        settings: QueueSettings,
        events: Receiver<Event>,
        workers: Workers,
        tasks: SpoolTasks,
        timeouts: Arc<HostTimeouts>,
    ) -> Self {
        let limits = Arc::clone(&tasks.limits);
        Self {
            settings,
            events,
            tasks,
            items: HashMap::new(),
            jobs: 0,
            destinations: Interner::default(),
            domains: Interner::default(),
            turns: Turns::new(workers.max(), &settings, timeouts, limits),
            due: Times::new(),
            held: Times::new(),
            running: HashMap::new(),
            held_back: Some(Vec::new()),
            asked: HashMap::new(),
            withdrawn: HashMap::new(),
            draining: false,
            stopping: false,
            workers,
        }
    }

    /// Runs until an event stops the queue and no job is running.
    pub fn run(mut self) {
        loop {
            if !self.stopping {
                self.turns.note_time();
                self.make_due_ready();
                self.dispatch();
                self.turns.set_timeouts();
            }
            if self.running.is_empty() && (self.stopping || (self.draining && self.turns.is_idle())) {
                return;
            }
            match self.next_event() {
                Ok(event) => self.take(event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn next_event(&mut self) -> Result<Event, RecvTimeoutError> {
        let notes = self.turns.next_note().into_iter().chain(self.workers.next_note(Instant::now()));
        match self.next_due().into_iter().chain(notes).min() {
            Some(wait) if !self.stopping => self.events.recv_timeout(wait),
            _ => self.events.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::New(entry) => self.load(entry, false),
            Event::Notified(entry) => match &mut self.held_back {
                Some(held_back) => held_back.push(entry),
                None => self.load(entry, false),
            },
            Event::Duplicates(first, second) => self.choose(first, second),
            Event::DuplicatesDone => {
                self.held_back.take().into_iter().flatten().for_each(|entry| self.load(entry, false))
            }
            Event::Repair(entry) => self.load(entry, true),
            Event::Scanned(Scanned { plans, taken }) => {
                plans.into_iter().for_each(|plan| self.insert(plan));
                // An error means that the receiver is gone, which is harmless. The same is true
                // wherever this file sends a reply.
                let _ = taken.try_send(());
            }
            Event::JobDone(report) => self.report(*report),
            Event::Appeared(entries) => entries.into_iter().for_each(|entry| self.load(entry, true)),
            Event::Withdraw(id, requester, reply) => self.withdraw(id, requester, reply),
            Event::GiveBack(id, requester, given_back) => self.give_back(id, &requester, given_back),
            Event::Flush(selector, reply) => drop(reply.try_send(self.flush(&selector))),
            Event::Etrn(selector, reply) => drop(reply.try_send(self.flush_for_client(selector))),
            Event::Hosts(name, reply) => drop(reply.try_send(self.statuses(name.as_deref()))),
            Event::Look(ids, reply) => drop(reply.try_send(self.look(&ids))),
            Event::Running(id, reply) => {
                let jobs = self.running.values().filter(|job| id.is_none_or(|id| job.entry.id == id));
                drop(reply.try_send(jobs.cloned().collect()));
            }
            Event::Census(reply) => drop(reply.try_send(self.census())),
            Event::Settings(settings) => {
                self.settings = settings;
                self.turns.set(&settings);
            }
            Event::Drain => self.draining = true,
            Event::Stop => self.stopping = true,
        }
    }

    /// Whether the queue has an entry with this id, or one is withdrawn.
    fn knows(&self, id: QueueId) -> bool {
        self.items.contains_key(&id) || self.withdrawn.contains_key(&id)
    }

    fn load(&mut self, entry: EntryName, unsynced: bool) {
        if entry.place == Place::Hold {
            return;
        }
        if self.knows(entry.id) {
            self.note_withdrawn(entry);
            return;
        }
        if let Some(plan) = (self.tasks.load)(entry, unsynced) {
            self.insert(plan);
        }
    }

    /// Loads one of two files with the same id. If the queue knows the id already, nothing is
    /// loaded: the entry was accepted after the start, and its jobs take care of both files.
    fn choose(&mut self, first: EntryName, second: EntryName) {
        if !self.knows(first.id) {
            let chosen = (self.tasks.choose)(first, second);
            self.load(chosen, true);
        }
    }

    fn insert(&mut self, plan: Plan) {
        let id = plan.entry.id;
        if self.knows(id) {
            return;
        }
        let mut jobs = Vec::with_capacity(plan.jobs.len());
        let is_held = !retry::wait_for_release(plan.release, sys::now()).is_zero();
        for (index, planned) in (0..).zip(plan.jobs) {
            let due = match planned.last {
                // A job without recipients stands for an entry that could not be read. An immediate
                // retry would fail in a tight loop.
                _ if planned.recipients.is_empty() => sys::now() + self.settings.schedule.min.as_secs(),
                _ if is_held => plan.release,
                last => self.settings.schedule.next_within(plan.window, last.unwrap_or(0), id.seed()),
            };
            let list = if is_held { &mut self.held } else { &mut self.due };
            list.push(Reverse((due, id, index)));
            let Planned { destination, recipients, mut domains, .. } = planned;
            domains.sort_unstable();
            domains.dedup();
            let domains = domains.iter().map(|domain| self.domains.share(&**domain)).collect();
            let state = if is_held { JobState::Held } else { JobState::Waiting };
            jobs.push(ItemJob::new(self.destinations.share(destination), recipients, domains, (state, due)));
        }
        self.jobs += jobs.len();
        self.items.insert(id, Box::new(Item::new(plan.entry, plan.unsynced, (plan.sender, plan.priority), jobs)));
        self.close(id);
    }

    /// Starts ready jobs while workers are free.
    fn dispatch(&mut self) {
        let now = Instant::now();
        self.workers.note_time(now);
        self.turns.pool.workers = self.workers.max();
        while !self.turns.is_idle() && self.workers.make_one_free(now) {
            let items = &self.items;
            let Some(next) = self.turns.begin_next(|job, destination| size_of(items, job, destination)) else {
                return;
            };
            let Some(worker) = self.workers.choose(&next.destination, next.address.as_ref(), now) else { return };
            self.start_job(worker, next);
        }
    }

    /// Sends a job to a worker.
    fn start_job(&mut self, worker: usize, next: NextJob) {
        let NextJob { destination, job: (id, index), number, trust, down, .. } = next;
        let Some(item) = self.items.get_mut(&id) else { return };
        let (entry, unsynced, is_last) = (item.entry(id), item.unsynced, item.open() == 1);
        item.set(index, JobState::Running);
        let Some(item_job) = item.jobs_mut().get_mut(index) else { return };
        let recipients = item_job.recipients.as_slice().to_vec();
        let unrecorded = item_job.take_unrecorded();
        let running = RunningJob {
            worker,
            entry,
            recipients: recipients.iter().map(|recipient| recipient.number).collect(),
            began: Instant::now(),
        };
        self.running.insert(worker, running);
        let job =
            Job { entry, destination, recipients, unrecorded, unsynced, is_last, trust, down, index, started: number };
        self.workers.send(worker, job);
    }

    fn report(&mut self, report: JobReport) {
        let JobReport { worker, job, result, contact, address, connection, derived } = report;
        self.running.remove(&worker);
        let destination = Arc::clone(&job.destination);
        let revived = self.turns.end((&destination, job.started), contact, address);
        self.note_result(job, result);
        // The destination is up again, so the jobs that were deferred while it was down become
        // ready.
        for job in revived {
            if destination_of(&self.items, job).is_some_and(|other| other == destination)
                && waits_until(&self.items, job).is_some()
            {
                self.make_ready(job);
            }
        }
        derived.into_iter().for_each(|name| self.load(name, false));
        if let Some(next) = connection.as_ref().and_then(|open| self.begin_more(worker, &open.destination)) {
            self.start_job(worker, next);
        } else {
            self.workers.rest(worker, connection, Instant::now());
        }
    }

    /// Returns the next job for the destination of a worker's open connection. Returns `None` if
    /// there is none, or if another destination should get the worker.
    fn begin_more(&mut self, worker: usize, destination: &Arc<Destination>) -> Option<NextJob> {
        let streak = self.workers.streak(worker);
        if self.stopping || streak >= MAX_STREAK && self.turns.is_wanted_elsewhere(destination) {
            return None;
        }
        let items = &self.items;
        let next = self.turns.begin_more(destination, |job, destination| size_of(items, job, destination))?;
        self.workers.set_streak(worker, streak + 1);
        Some(next)
    }

    /// Returns the status of all remote destinations, or of those that match `name`.
    fn statuses(&self, name: Option<&str>) -> Vec<DestinationStatus> {
        let Some(name) = name else { return self.turns.statuses(|_| true) };
        self.turns.statuses(|destination| destination.has_name(name))
    }

    fn note_result(&mut self, job: Job, result: JobResult) {
        let (id, index) = (job.entry.id, job.index);
        let Some(item) = self.items.get_mut(&id) else { return };
        item.follow(job.entry);
        item.unsynced &= job.unsynced;
        let Some(item_job) = item.jobs_mut().get_mut(index) else { return };
        item_job.set_unrecorded(job.unrecorded);
        let again = std::mem::take(&mut item_job.again);
        if again {
            self.turns.clear_failures(&job.destination);
            (self.tasks.clear_failures)();
        }
        if let JobResult::Again = result {
            self.add_ready((id, index));
        } else if let JobResult::Later { recipients, due } = result {
            let due = if again { 0 } else { due };
            item_job.recipients = recipients.into();
            item.put_off(index, due);
            self.due.push(Reverse((due, id, index as u32)));
        } else {
            item.set(index, JobState::Settled);
            match result {
                JobResult::Stale if item.end == ItemEnd::Finish => item.end = ItemEnd::Stale,
                JobResult::Vanished => item.end = ItemEnd::Vanished,
                _ => {}
            }
        }
        self.close(id);
    }

    /// Does what the entry's [`ItemEnd`] says, if none of its jobs is running.
    fn close(&mut self, id: QueueId) {
        let Some(item) = self.items.get(&id).filter(|item| item.running() == 0) else { return };
        let (entry, end, is_settled) = (item.entry(id), item.end, item.open() == 0);
        match end {
            ItemEnd::Finish if is_settled && !(self.tasks.finish)(entry) => self.finish_later(id),
            ItemEnd::Finish if is_settled => self.forget(id),
            ItemEnd::Finish => {}
            ItemEnd::Stale => self.plan_anew(id),
            ItemEnd::Withdraw => self.end_withdrawal(id),
            ItemEnd::Vanished => {
                self.forget(id);
                self.refuse_withdrawal(id, Withdrawn::Gone);
            }
        }
    }

    /// Replaces the jobs of an entry whose removal has failed. The only new job has no recipients,
    /// and tries the removal again later.
    fn finish_later(&mut self, id: QueueId) {
        let Some(item) = self.items.get(&id) else { return };
        let jobs = vec![Planned::new(Destination::Local)];
        let plan = Plan { unsynced: item.unsynced, jobs, ..Plan::new(item.entry(id)) };
        self.forget(id);
        self.insert(plan);
    }

    fn plan_anew(&mut self, id: QueueId) {
        let Some(item) = self.items.get_mut(&id) else { return };
        let (entry, unsynced) = (item.entry(id), item.unsynced);
        let unrecorded: Vec<_> = item.jobs_mut().iter_mut().flat_map(ItemJob::take_unrecorded).collect();
        let was_due = item.due_recipients();
        self.forget(id);
        self.load(entry, unsynced);
        self.make_due(id, &was_due);
        let Some(item) = self.items.get_mut(&id).filter(|_| !unrecorded.is_empty()) else { return };
        let by_number = item.by_number();
        for (number, outcome) in unrecorded {
            // If the entry cannot be read now, it has only one job, which is without recipients and
            // keeps all outcomes.
            let index = by_number.get(&number).copied().unwrap_or(0);
            if let Some(job) = item.jobs_mut().get_mut(index) {
                job.unrecorded.get_or_insert_default().0.push((number, outcome));
            }
        }
    }

    /// Makes the waiting jobs of an entry ready that have one of these recipients. A flush may have made
    /// their former jobs ready, which were not tried because the destination had changed.
    fn make_due(&mut self, id: QueueId, recipients: &HashSet<u32>) {
        let Some(item) = self.items.get(&id) else { return };
        let has_due = |job: &ItemJob| job.recipients.as_slice().iter().any(|to| recipients.contains(&to.number));
        let jobs = (0..).zip(item.jobs());
        let due =
            jobs.filter(|(_, job)| job.state() == JobState::Waiting && has_due(job)).map(|(index, _)| (id, index));
        due.collect::<Vec<JobRef>>().into_iter().for_each(|job| self.make_ready(job));
    }

    fn forget(&mut self, id: QueueId) {
        let Some(item) = self.items.remove(&id) else { return };
        shrink(&mut self.items);
        self.jobs -= item.jobs().len();
        for job in item.jobs() {
            for domain in job.domains.as_slice() {
                self.domains.release(domain);
            }
            self.destinations.release(&job.destination);
        }
    }
}

/// Returns the size of a job's entry in bytes. Returns `None` if the job is no longer ready, or if
/// the entry will be planned anew, withdrawn or forgotten.
fn size_of(items: &HashMap<QueueId, Box<Item>>, (id, index): JobRef, destination: &Arc<Destination>) -> Option<u64> {
    let item = items.get(&id).filter(|item| item.end == ItemEnd::Finish && item.is_ready(index, destination))?;
    Some(item.entry(id).size)
}

fn destination_of(items: &HashMap<QueueId, Box<Item>>, (id, index): JobRef) -> Option<Arc<Destination>> {
    items.get(&id)?.jobs().get(index).map(|job| Arc::clone(&job.destination))
}

/// Gives back the memory of a map that was once much larger.
fn shrink<K: Eq + Hash, V>(map: &mut HashMap<K, V>) {
    if map.capacity() > MIN_CAPACITY && map.len() < map.capacity() / 8 {
        map.shrink_to(2 * map.len());
    }
}

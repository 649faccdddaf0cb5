//! Decides for the queue which destination may start a job next.
//!
//! The pool of workers is shared among classes of destinations (see `pool`), and the destinations
//! of a class take turns. Destinations with urgent messages come first (see `waiting`). Among
//! unproven destinations the oldest and the newest alternate, so that a flood of new destinations
//! does not delay the latest one. The number of running jobs of a
//! destination is limited by its [`Health`]. While other destinations of its class wait, the number
//! is also limited by the share that `pool` grants. If all addresses of a destination have as many
//! connections as this server allows, the destination is *parked* until one of the connections has
//! ended. If its rate or its pause lets no job start now, it is *paced* until one can start (see
//! `pace`).
//!
//! - `stops`: parked and paced destinations, and what is due by the clock
//!
//! No step looks at all destinations or at all ready jobs. So nothing is removed from the middle of
//! a list. An outdated element is skipped when it reaches the front.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::destination_state::{DestinationState, EndedJob};
use super::event::QueueSettings;
use super::health::{DestinationStatus, Down, Health};
use super::pace::{Paces, Wait};
use super::pool::{CLASSES, Class, Pool};
use super::shrink;
use super::waiting::{Urgency, Waiter, Waiting};
use crate::destination::Destination;
use crate::endpoint::Endpoint;
use crate::outcome::Contact;
use crate::outgoing::Limits;
use crate::spool::QueueId;
use crate::timeouts::{HostTimeouts, Trust};

mod stops;
#[cfg(test)]
mod tests;

/// A job that takes at least this long makes its remote destination slow.
const SLOW_HOST: Duration = Duration::from_secs(10);
/// [`SLOW_HOST`] is extended by one second for each such number of bytes in the message.
const BYTES_PER_SECOND: u64 = 64 << 10;
/// A job that takes at least this long makes the destination of a user slow.
const SLOW_USER: Duration = Duration::from_secs(3);
/// The number of parked destinations that are released when a job at their address has ended.
const RELEASED_AT_ONCE: usize = 2;
/// The maximum number of destinations without jobs whose state is kept.
const MAX_REMEMBERED: usize = 4096;

/// A job: the id of its entry, and its index among the entry's jobs.
pub type JobRef = (QueueId, usize);

/// Returns the limits of a destination.
pub type LimitsOf = dyn Fn(&Destination) -> Limits + Send + Sync;

/// A job that starts now.
pub struct NextJob {
    pub destination: Arc<Destination>,
    pub job: JobRef,
    /// The number by which [`Turns::end`] identifies the job.
    pub number: u64,
    /// The trust in the destination, which decides the timeouts of its hosts.
    pub trust: Trust,
    /// What is known about the failure, if the destination is down and the job is deferred without
    /// an attempt; `None` if there is an attempt.
    pub down: Option<Arc<Down>>,
    /// The address to which mail for the destination was last sent; `None` if none is known.
    pub address: Option<Endpoint>,
}

/// The state of all destinations that have ready or running jobs, or had some lately.
pub struct Turns {
    max_jobs: usize,
    max_probe_interval: Duration,
    known: HashMap<Arc<Destination>, DestinationState>,
    /// For each class, the destinations that have ready jobs and may start one. A destination gets a
    /// new ticket whenever it is added. If a destination has a newer ticket, the element is outdated.
    waiting: [Waiting; CLASSES.len()],
    tickets: u64,
    /// The number of ready jobs of proven destinations. Some of these jobs may be ready no longer.
    ready_proven: usize,
    /// The index of the class that has the next turn.
    next_class: usize,
    /// Whether the newest unproven destination has the next turn. Otherwise the oldest one has the
    /// turn.
    newest: bool,
    pub pool: Pool,
    /// The running jobs by number. The next job gets `next_number`.
    started: HashMap<u64, Started>,
    next_number: u64,
    /// Two lists of running jobs that may become slow: those for other hosts, and those for users.
    /// Each job has the time when it was added to the list.
    watched: [VecDeque<(Instant, u64)>; 2],
    /// The parked destinations by address. `parked_since` is the time when the first one was
    /// parked, or when [`Turns::note_time`] last released some.
    parked: HashMap<Endpoint, VecDeque<Arc<Destination>>>,
    parked_since: Option<Instant>,
    /// The limits of each destination.
    limits: Arc<LimitsOf>,
    /// The attempts that count towards these limits, and the paced destinations.
    paces: Paces,
    /// Destinations without jobs whose state is kept, the oldest first.
    remembered: VecDeque<Arc<Destination>>,
    timeouts: Arc<HostTimeouts>,
}

struct Started {
    destination: Arc<Destination>,
    job: JobRef,
    class: Class,
    since: Instant,
    /// The duration after which the job makes its destination slow.
    slow_after: Duration,
    /// Whether the job is a probe of a destination that is down.
    is_probe: bool,
}

impl Turns {
    /// Returns a state without destinations or jobs.
    pub fn new(workers: usize, settings: &QueueSettings, timeouts: Arc<HostTimeouts>, limits: Arc<LimitsOf>) -> Self {
        Self {
            max_jobs: settings.per_destination,
            max_probe_interval: settings.schedule.min / 4,
            known: HashMap::new(),
            waiting: Default::default(),
            tickets: 0,
            ready_proven: 0,
            next_class: 0,
            newest: false,
            pool: Pool::new(workers),
            started: HashMap::new(),
            next_number: 0,
            watched: Default::default(),
            parked: HashMap::new(),
            parked_since: None,
            limits,
            paces: Paces::default(),
            remembered: VecDeque::new(),
            timeouts,
        }
    }

    /// Replaces the settings.
    pub fn set(&mut self, settings: &QueueSettings) {
        (self.max_jobs, self.max_probe_interval) = (settings.per_destination, settings.schedule.min / 4);
    }

    /// Returns whether no job can start any more, now or after another one has ended.
    pub fn is_idle(&self) -> bool {
        self.parked.is_empty() && self.paces.is_idle() && self.waiting.iter().all(Waiting::is_empty)
    }

    /// Adds a ready job of this sender and this priority. If the limits of the destination delay the
    /// job, returns for how long, if no other job overtakes it.
    pub fn add(&mut self, destination: &Arc<Destination>, job: JobRef, (sender, priority): (u32, i8)) -> Option<Wait> {
        let limits = (self.limits)(destination);
        let state = self.known.entry(Arc::clone(destination)).or_default();
        state.set_limits(limits);
        let before = state.ready.len();
        state.ready.add(sender, priority, job);
        self.offer_turn(destination);
        self.paces.outlook(destination, &limits, before, Instant::now())
    }

    /// Notes the domains of a job's recipients, for listings of a destination that is named after its
    /// hosts.
    pub fn note_domains(&mut self, destination: &Arc<Destination>, domains: &[Arc<str>]) {
        let state = self.known.get_mut(destination).filter(|_| destination.is_named_after_hosts());
        let Some(state) = state else { return };
        domains.iter().for_each(|domain| state.domains.get_or_insert_default().add(domain));
    }

    /// Updates [`Turns::ready_proven`] after the jobs or the health of a destination have changed.
    fn count_ready(&mut self, destination: &Arc<Destination>) {
        let Some(state) = self.known.get_mut(destination) else { return };
        let is_proven = destination.is_host() && matches!(state.health, Health::Proven(_));
        // Jobs that may not start must not take workers from those that may.
        let count = if is_proven && state.paced.is_none() { state.ready.len() } else { 0 };
        let counted = std::mem::replace(&mut state.counted_ready, count);
        self.ready_proven = self.ready_proven + count - counted;
    }

    fn offer_turn(&mut self, destination: &Arc<Destination>) {
        self.count_ready(destination);
        let Some(state) = self.known.get_mut(destination) else { return };
        if state.ready.is_empty() {
            return;
        }
        let class = state.class(destination, Instant::now());
        let has_room = state.has_room(class, self.max_jobs);
        let urgency = Urgency::of(state.ready.priority());
        // A destination whose class or urgency has changed gets a new ticket, and takes turns with
        // the others of the new class and urgency.
        if has_room && state.ticket.is_none_or(|(_, old, was)| (old, was) != (class, urgency)) {
            self.tickets += 1;
            state.ticket = Some((self.tickets, class, urgency));
            let waiter = Waiter { destination: Arc::clone(destination), ticket: self.tickets, urgency };
            self.waiting[class as usize].add(waiter);
        }
    }

    /// Starts the next job. Returns `None` if no job can start now. `size_of` returns the size of a
    /// job's entry, and `None` if the job is no longer ready.
    pub fn begin_next(&mut self, size_of: impl Fn(JobRef, &Arc<Destination>) -> Option<u64>) -> Option<NextJob> {
        (0..CLASSES.len()).find_map(|offset| {
            let index = (self.next_class + offset) % CLASSES.len();
            let next_job = self.begin_in(CLASSES[index], &size_of);
            if next_job.is_some() {
                self.next_class = index + 1;
            }
            next_job
        })
    }

    /// Shortens the timeouts of unproven and slow hosts while other destinations wait for workers.
    pub fn set_timeouts(&self) {
        // Many tickets may be outdated, so only the first eight of each line are checked.
        let is_current = |class: Class, Waiter { destination, ticket, urgency }: &Waiter| {
            self.known.get(destination).is_some_and(|d| d.ticket == Some((*ticket, class, *urgency)))
        };
        let waits = |class: Class| {
            self.waiting[class as usize].first(8).any(|turn| is_current(class, turn)) && !self.may_begin(class)
        };
        self.pool.set_timeouts(&self.timeouts, waits);
    }

    /// Returns whether a worker is free for a job of a class.
    fn may_begin(&self, class: Class) -> bool {
        self.pool.free(class) > 0 && self.pool.idle() > 0
    }

    /// Returns whether a worker that has ended a job of `destination` should next take a job of
    /// another destination.
    pub fn is_wanted_elsewhere(&self, destination: &Arc<Destination>) -> bool {
        let class = if destination.is_store() { Class::User } else { Class::Proven };
        let waits = |class: Class| !self.waiting[class as usize].is_empty();
        let is_satisfied = |d: &DestinationState| d.running >= self.pool.share(class, d.ready.len(), self.ready_proven);
        let is_last_worker = self.pool.idle() <= 1 && (waits(Class::Local) || waits(Class::User));
        (is_last_worker || waits(class) || waits(Class::Proven) || waits(Class::Unproven))
            && self.known.get(destination).is_none_or(is_satisfied)
    }

    /// Starts the next job of a proven destination or of a healthy store, for a worker that has an
    /// open connection to the destination.
    pub fn begin_more(
        &mut self,
        destination: &Arc<Destination>,
        size_of: impl Fn(JobRef, &Arc<Destination>) -> Option<u64>,
    ) -> Option<NextJob> {
        let now = Instant::now();
        let state = self.known.get(destination)?;
        let class = state.class(destination, now);
        let is_healthy = class == Class::Proven || class == Class::User && destination.is_store();
        let is_full = state.running >= state.max_running(self.max_jobs) || self.pool.free(class) == 0;
        if !is_healthy || is_full || self.is_paced(destination, class, now) {
            return None;
        }
        let job = self.take_ready(destination, size_of)?;
        Some(self.begin(destination, job, class, now))
    }

    fn begin_in(
        &mut self,
        class: Class,
        size_of: impl Fn(JobRef, &Arc<Destination>) -> Option<u64>,
    ) -> Option<NextJob> {
        // The destinations that have their full share of the workers. Each has a running job, so
        // they are few.
        let mut satisfied = Vec::new();
        let mut next_job = None;
        while next_job.is_none() && self.pool.free(class) > 0 {
            let is_newest = class == Class::Unproven && self.newest;
            self.newest ^= class == Class::Unproven;
            let Some(waiter) = self.waiting[class as usize].next(is_newest) else { break };
            let (destination, ticket) = (Arc::clone(&waiter.destination), (waiter.ticket, class, waiter.urgency));
            let now = Instant::now();
            let share =
                self.known.get(&destination).map_or(1, |d| self.pool.share(class, d.ready.len(), self.ready_proven));
            let Some(state) = self.known.get_mut(&destination).filter(|d| d.ticket == Some(ticket)) else {
                continue;
            };
            let is_due = state.class(&destination, now) == class && state.has_room(class, self.max_jobs);
            let running = state.running;
            if is_due && running > 0 && running >= share {
                satisfied.push(waiter);
                continue;
            }
            state.ticket = None;
            if is_due && !self.is_paced(&destination, class, now) {
                next_job = self.take_ready(&destination, &size_of).map(|job| self.begin(&destination, job, class, now));
                self.drop_idle(&destination);
            }
            self.offer_turn(&destination);
        }
        satisfied.into_iter().for_each(|waiter| self.waiting[class as usize].add(waiter));
        next_job
    }

    fn take_ready(
        &mut self,
        destination: &Arc<Destination>,
        size_of: impl Fn(JobRef, &Arc<Destination>) -> Option<u64>,
    ) -> Option<(JobRef, u64)> {
        let jobs = &mut self.known.get_mut(destination)?.ready;
        let taken = std::iter::from_fn(|| jobs.next()).find_map(|job| Some((job, size_of(job, destination)?)));
        self.count_ready(destination);
        taken
    }

    fn begin(
        &mut self,
        destination: &Arc<Destination>,
        (job, size): (JobRef, u64),
        class: Class,
        now: Instant,
    ) -> NextJob {
        let number = self.next_number;
        self.next_number += 1;
        self.pool.running[class as usize] += 1;
        let mut next_job = NextJob {
            destination: Arc::clone(destination),
            job,
            number,
            trust: Trust::Proven,
            down: None,
            address: None,
        };
        let slow_after =
            if destination.is_user() { SLOW_USER } else { SLOW_HOST + Duration::from_secs(size / BYTES_PER_SECOND) };
        let is_probe = class != Class::Defer && self.known.get(destination).is_some_and(DestinationState::is_down);
        let started = Started { destination: Arc::clone(destination), job, class, since: now, slow_after, is_probe };
        self.started.insert(number, started);
        let Some(state) = self.known.get_mut(destination) else { return next_job };
        match (&state.health, class) {
            (Health::Down(down), Class::Defer) => next_job.down = Some(Arc::clone(down)),
            (health, Class::Proven | Class::Unproven | Class::Slow) => next_job.trust = health.trust(),
            _ => {}
        }
        next_job.address = state.address.clone();
        if class == Class::Defer {
            state.deferring += 1;
            return next_job;
        }
        state.running += 1;
        let limits = state.limits.as_deref().copied().unwrap_or_default();
        match class {
            Class::Local | Class::Defer => {}
            Class::User | Class::SlowUser => self.watched[1].push_back((now, number)),
            Class::Proven | Class::Unproven | Class::Slow => self.watched[0].push_back((now, number)),
        }
        self.paces.count(destination, &limits, now);
        self.reclass(destination);
        next_job
    }

    /// Records the end of a job. If a host has answered, returns the jobs that were deferred while
    /// the destination was down.
    pub fn end(
        &mut self,
        (destination, number): (&Arc<Destination>, u64),
        contact: Contact,
        address: Option<Endpoint>,
    ) -> Vec<JobRef> {
        let Some(started) = self.started.remove(&number) else { return Vec::new() };
        self.pool.running[started.class as usize] -= 1;
        let Some(state) = self.known.get_mut(destination) else { return Vec::new() };
        let is_at_limit = matches!(contact, Contact::AtLimit);
        // An attempt that was cut short has the address of the host that it had connected to.
        let is_put_off = is_at_limit || matches!(contact, Contact::Postponed) && address.is_none();
        let revived = if started.class == Class::Defer {
            state.deferring -= 1;
            state.note_waiting(started.job);
            Vec::new()
        } else {
            state.running -= 1;
            if state.running == 0 {
                state.counted = None;
            }
            if address.is_some() {
                state.address.clone_from(&address);
            }
            let is_slow = started.since.elapsed() >= started.slow_after;
            let ended = EndedJob { job: started.job, number, is_slow, is_probe: started.is_probe };
            state.note_contact(destination, &ended, contact, (self.max_jobs, self.max_probe_interval))
        };
        if is_put_off && started.class != Class::Defer {
            self.take_back(destination, &started);
        }
        self.reclass(destination);
        match address {
            Some(address) if is_at_limit => self.park(destination, address),
            Some(address) => self.release_parked(&address, RELEASED_AT_ONCE),
            None => {}
        }
        self.offer_turn(destination);
        self.drop_idle(destination);
        revived
    }

    /// Counts the running jobs of a destination under its current class.
    fn reclass(&mut self, destination: &Arc<Destination>) {
        let Some(state) = self.known.get_mut(destination).filter(|d| d.running > 0) else { return };
        let class = state.class_of_running(destination, Instant::now());
        if state.counted.replace(class) == Some(class) {
            return;
        }
        let running = self
            .started
            .values_mut()
            .filter(|s| s.class != Class::Defer && s.class != class && s.destination == *destination);
        for started in running {
            self.pool.running[started.class as usize] -= 1;
            self.pool.running[class as usize] += 1;
            started.class = class;
        }
    }

    /// Forgets that a destination was slow or down, so that it is tried at once. An administrator
    /// may have repaired its host.
    pub fn clear_failures(&mut self, destination: &Arc<Destination>) {
        let Some(state) = self.known.get_mut(destination) else { return };
        state.health.clear_failures();
        (state.cleared_at, state.deferred_while_down) = (self.next_number, Vec::new());
        self.reclass(destination);
        self.offer_turn(destination);
        self.drop_idle(destination);
    }

    /// Forgets a destination if it has no jobs and nothing is known about its health. If its health
    /// is known, the destination is kept, but if there are more than [`MAX_REMEMBERED`] such
    /// destinations, the oldest one is forgotten.
    fn drop_idle(&mut self, destination: &Arc<Destination>) {
        let Some(state) = self.known.get_mut(destination).filter(|d| d.is_idle() && !d.is_parked) else { return };
        if **destination == Destination::Local || matches!(state.health, Health::Unknown) {
            self.known.remove(destination);
        } else if !std::mem::replace(&mut state.is_remembered, true) {
            self.remembered.push_back(Arc::clone(destination));
        }
        while self.remembered.len() > MAX_REMEMBERED
            && let Some(oldest) = self.remembered.pop_front()
        {
            let Some(state) = self.known.get_mut(&oldest) else { continue };
            state.is_remembered = false;
            if state.is_idle() && !state.is_parked {
                self.known.remove(&oldest);
            }
        }
        shrink(&mut self.known);
    }

    /// Returns the status of the remote destinations that `is_selected` selects, in no particular
    /// order.
    pub fn statuses(&self, is_selected: impl Fn(&Arc<Destination>) -> bool) -> Vec<DestinationStatus> {
        let selected = self
            .known
            .iter()
            .filter(|(destination, _)| ***destination != Destination::Local && is_selected(destination));
        let now = Instant::now();
        selected.map(|(destination, state)| state.status(destination, self.max_jobs, now)).collect()
    }
}

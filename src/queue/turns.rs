//! Whose turn it is: the destinations that have something ready or running, and what is
//! known of those that lately had.
//!
//! The pool of workers is shared out by classes of destinations; see `pool`.
//! Within a class destinations take turns; of the unproven ones the oldest and the newest
//! alternate, so that a flood of them does not stand before the next. Each has at most as
//! many jobs as its [`Health`] allows, and never more than half of what its class has free.
//! A destination whose addresses are all taken is *parked* until one of them may be free.
//!
//! No step looks at all destinations or at all that is ready. So nothing is taken out of
//! the middle: what is ready no more is passed over when its turn comes, and the queue
//! says what that is.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::destination_state::DestinationState;
use super::event::QueueSettings;
use super::health::{DestinationStatus, Down, Health};
use super::pool::{CLASSES, Class, Pool};
use super::{MIN_CAPACITY, shrink};
use crate::destination::Destination;
use crate::endpoint::Endpoint;
use crate::outcome::Contact;
use crate::spool::QueueId;
use crate::timeouts::{HostTimeouts, Trust};

/// A job elsewhere that takes longer makes its destination a slow one.
const SLOW_HOST: Duration = Duration::from_secs(10);
/// It has a second more for as many octets.
const SLOW_RATE: u64 = 64 << 10;
/// The same for a user's agents and commands.
const SLOW_USER: Duration = Duration::from_secs(3);
/// A parked destination looks again after this time at the latest: a connection that is
/// kept idle ends without a word to the queue.
const PARKED: Duration = Duration::from_secs(1);
/// Turns that start again when a job ends at the address for which they wait.
const UNPARKED_AT_ONCE: usize = 2;
/// Turns without work that are remembered.
const REMEMBERED: usize = 4096;

/// An entry's job, by its place there.
pub type JobRef = (QueueId, usize);

/// A job whose turn it is.
pub struct NextJob {
    pub destination: Arc<Destination>,
    pub job: JobRef,
    /// What it is to be called when it ends.
    pub number: u64,
    /// How patient it is.
    pub trust: Trust,
    /// It is not tried, for its destination is down.
    pub down: Option<Arc<Down>>,
    /// The address that its destination used last.
    pub address: Option<Endpoint>,
}

/// All that is ready or running, by destination.
pub struct Turns {
    most: usize,
    max_probe_interval: Duration,
    known: HashMap<Arc<Destination>, DestinationState>,
    /// Turns with ready jobs and room for one more, each with its ticket; a
    /// ticket that the destination does not have any more is worth nothing.
    waiting: [VecDeque<(Arc<Destination>, u64)>; CLASSES.len()],
    tickets: u64,
    /// All jobs that are ready, with some that are ready no more.
    ready: usize,
    /// The class that is asked first.
    first: usize,
    newest: bool,
    pool: Pool,
    /// The jobs that run, but for those of this host. The next one's number is `count`.
    started: HashMap<u64, Started>,
    count: u64,
    /// When jobs were started at hosts, and for users, in that order.
    watched: [VecDeque<(Instant, u64)>; 2],
    /// Who waits for a connection to an address, and since when the first one does.
    parked: HashMap<Endpoint, VecDeque<Arc<Destination>>>,
    parked_since: Option<Instant>,
    /// Those without work that are remembered, the oldest first.
    remembered: VecDeque<Arc<Destination>>,
    timeouts: Arc<HostTimeouts>,
}

struct Started {
    destination: Arc<Destination>,
    job: JobRef,
    class: Class,
    since: Instant,
    /// A job that takes longer makes its destination slow.
    slow_after: Duration,
    /// Whether it finds out if a destination is still down.
    is_probe: bool,
}

impl Turns {
    /// With nothing ready.
    pub fn new(workers: usize, settings: &QueueSettings, timeouts: Arc<HostTimeouts>) -> Self {
        Self {
            most: settings.per_destination,
            max_probe_interval: settings.schedule.min / 4,
            known: HashMap::new(),
            waiting: Default::default(),
            tickets: 0,
            ready: 0,
            first: 0,
            newest: false,
            pool: Pool::new(workers),
            started: HashMap::new(),
            count: 0,
            watched: Default::default(),
            parked: HashMap::new(),
            parked_since: None,
            remembered: VecDeque::new(),
            timeouts,
        }
    }

    /// Other settings from now on.
    pub fn set(&mut self, settings: &QueueSettings) {
        (self.most, self.max_probe_interval) = (settings.per_destination, settings.schedule.min / 4);
    }

    /// Whether nothing is ready that could start, now or when something has ended.
    pub fn is_idle(&self) -> bool {
        self.parked.is_empty() && self.waiting.iter().all(VecDeque::is_empty)
    }

    /// A job of this sender is ready.
    pub fn add(&mut self, key: &Arc<Destination>, job: JobRef, sender: u32) {
        self.known.entry(Arc::clone(key)).or_default().ready.add(sender, job);
        self.ready += 1;
        self.offer_turn(key);
    }

    fn offer_turn(&mut self, key: &Arc<Destination>) {
        let Some(destination) = self.known.get_mut(key) else { return };
        if destination.ready.is_empty() {
            return;
        }
        let class = destination.class(key, Instant::now());
        let has_room = destination.has_room(class, self.most);
        // What is thought of it may have changed: then its turn is in another class.
        if has_room && destination.ticket.is_none_or(|(_, old)| old != class) {
            self.tickets += 1;
            destination.ticket = Some((self.tickets, class));
            self.waiting[class as usize].push_back((Arc::clone(key), self.tickets));
        }
    }

    /// The job whose turn it is begins now. `size_of` is the size of its entry, if it still is
    /// ready.
    pub fn begin_next(&mut self, size_of: impl Fn(JobRef, &Arc<Destination>) -> Option<u64>) -> Option<NextJob> {
        (0..CLASSES.len()).find_map(|next| {
            let at = (self.first + next) % CLASSES.len();
            let begun = self.begin_in(CLASSES[at], &size_of);
            if begun.is_some() {
                self.first = at + 1;
            }
            begun
        })
    }

    /// Shortens the time of doubtful hosts where others wait for their workers.
    pub fn set_timeouts(&self) {
        // A few at the front tell: a ticket may be worth nothing any more.
        let is_good = |class: Class, (key, ticket): &(Arc<Destination>, u64)| {
            self.known.get(key).is_some_and(|d| d.ticket == Some((*ticket, class)))
        };
        let waits = |class: Class| {
            self.waiting[class as usize].iter().take(8).any(|turn| is_good(class, turn)) && !self.may_begin(class)
        };
        self.pool.set_timeouts(&self.timeouts, waits);
    }

    /// Whether there is a worker for a class.
    fn may_begin(&self, class: Class) -> bool {
        self.pool.free(class) > 0 && self.pool.idle() > 0
    }

    /// Whether a worker that ends a job of a destination should be for another one next.
    pub fn is_wanted_elsewhere(&self, key: &Arc<Destination>) -> bool {
        let waits = |class: Class| !self.waiting[class as usize].is_empty();
        let is_sated = |d: &DestinationState| d.running >= self.pool.share(Class::Proven, d.ready.len(), self.ready);
        let is_only_one = self.pool.idle() <= 1 && (waits(Class::Local) || waits(Class::User));
        (is_only_one || waits(Class::Proven) || waits(Class::Unproven)) && self.known.get(key).is_none_or(is_sated)
    }

    /// The next job of a destination to which the worker that has just ended one keeps a
    /// connection, if it is a healthy one.
    pub fn begin_more(
        &mut self,
        key: &Arc<Destination>,
        size_of: impl Fn(JobRef, &Arc<Destination>) -> Option<u64>,
    ) -> Option<NextJob> {
        let now = Instant::now();
        let destination = self.known.get(key).filter(|d| d.class(key, now) == Class::Proven)?;
        if destination.running >= destination.health.limit(self.most) || self.pool.free(Class::Proven) == 0 {
            return None;
        }
        let job = self.take_ready(key, size_of)?;
        Some(self.begin(key, job, Class::Proven, now))
    }

    fn begin_in(
        &mut self,
        class: Class,
        size_of: impl Fn(JobRef, &Arc<Destination>) -> Option<u64>,
    ) -> Option<NextJob> {
        // Those with as much as their share for now. Each has a job running, so they are few.
        let mut sated = Vec::new();
        let mut begun = None;
        while begun.is_none() && self.pool.free(class) > 0 {
            let Some((key, ticket)) = self.next_turn(class) else { break };
            let now = Instant::now();
            let share = self.known.get(&key).map_or(1, |d| self.pool.share(class, d.ready.len(), self.ready));
            let Some(destination) = self.known.get_mut(&key).filter(|d| d.ticket == Some((ticket, class))) else {
                continue;
            };
            let is_due = destination.class(&key, now) == class && destination.has_room(class, self.most);
            let running = destination.running;
            if is_due && running > 0 && running >= share {
                sated.push((key, ticket));
                continue;
            }
            destination.ticket = None;
            if is_due {
                begun = self.take_ready(&key, &size_of).map(|job| self.begin(&key, job, class, now));
                self.drop_idle(&key);
            }
            self.offer_turn(&key);
        }
        self.waiting[class as usize].extend(sated);
        begun
    }

    fn next_turn(&mut self, class: Class) -> Option<(Arc<Destination>, u64)> {
        let turns = &mut self.waiting[class as usize];
        let is_newest = class == Class::Unproven && self.newest;
        self.newest ^= class == Class::Unproven;
        let turn = if is_newest { turns.pop_back() } else { turns.pop_front() };
        if turns.is_empty() {
            turns.shrink_to(MIN_CAPACITY);
        }
        turn
    }

    fn take_ready(
        &mut self,
        key: &Arc<Destination>,
        size_of: impl Fn(JobRef, &Arc<Destination>) -> Option<u64>,
    ) -> Option<(JobRef, u64)> {
        let (own, all) = (&mut self.known.get_mut(key)?.ready, &mut self.ready);
        let next = || own.next().inspect(|_| *all = all.saturating_sub(1));
        std::iter::from_fn(next).find_map(|job| Some((job, size_of(job, key)?)))
    }

    fn begin(&mut self, key: &Arc<Destination>, (job, size): (JobRef, u64), class: Class, now: Instant) -> NextJob {
        let number = self.count;
        self.count += 1;
        self.pool.running[class as usize] += 1;
        let mut begun =
            NextJob { destination: Arc::clone(key), job, number, trust: Trust::Proven, down: None, address: None };
        let slow_after = if key.is_user() { SLOW_USER } else { SLOW_HOST + Duration::from_secs(size / SLOW_RATE) };
        let is_probe = class == Class::Slow && self.known.get(key).is_some_and(|d| matches!(d.health, Health::Down(_)));
        let started = Started { destination: Arc::clone(key), job, class, since: now, slow_after, is_probe };
        self.started.insert(number, started);
        let Some(destination) = self.known.get_mut(key) else { return begun };
        match (&destination.health, class) {
            (Health::Down(down), Class::Defer) => begun.down = Some(Arc::clone(down)),
            (health, Class::Proven | Class::Unproven | Class::Slow) => begun.trust = health.trust(),
            _ => {}
        }
        begun.address = destination.address.clone();
        if class == Class::Defer {
            destination.deferring += 1;
            return begun;
        }
        destination.running += 1;
        match class {
            Class::Local | Class::Defer => {}
            Class::User | Class::SlowUser => self.watched[1].push_back((now, number)),
            Class::Proven | Class::Unproven | Class::Slow => self.watched[0].push_back((now, number)),
        }
        self.reclass(key);
        begun
    }

    /// A job has ended. If it was the probe that succeeded, those that were deferred while
    /// their destination was down.
    pub fn end(
        &mut self,
        (key, number): (&Arc<Destination>, u64),
        contact: Contact,
        address: Option<Endpoint>,
    ) -> Vec<JobRef> {
        let mut revived = Vec::new();
        let Some(started) = self.started.remove(&number) else { return revived };
        self.pool.running[started.class as usize] -= 1;
        let (most, quiet, is_slow) =
            (self.most, self.max_probe_interval, started.since.elapsed() >= started.slow_after);
        let Some(destination) = self.known.get_mut(key) else { return revived };
        let mut is_crowded = false;
        if started.class == Class::Defer {
            destination.deferring -= 1;
            destination.note_waiting(started.job);
        } else {
            destination.running -= 1;
            if destination.running == 0 {
                destination.counted = None;
            }
            if address.is_some() {
                destination.address.clone_from(&address);
            }
            match contact {
                Contact::None if key.is_user() => destination.health.answered(is_slow, most),
                Contact::None => {}
                Contact::Answered(said) => {
                    // What others find that began before it went down is no news of it.
                    let is_news = started.is_probe || !matches!(destination.health, Health::Down(_));
                    if is_news {
                        destination.health.answered(is_slow, most);
                        revived = std::mem::take(&mut destination.deferred_while_down);
                    }
                    destination.said = said;
                }
                Contact::Unreachable(_) if number < destination.cleared_at => {}
                Contact::Unreachable(why) => {
                    destination.said = Some(why.clone());
                    destination.health.failed(*why, destination.running, quiet, Instant::now());
                    if matches!(destination.health, Health::Down(_)) {
                        destination.note_waiting(started.job);
                    }
                }
                Contact::Postponed => destination.health.slow_down(),
                Contact::AtLimit => {
                    is_crowded = true;
                    if let Some(address) =
                        address.as_ref().filter(|_| !std::mem::replace(&mut destination.is_parked, true))
                    {
                        self.parked.entry(address.clone()).or_default().push_back(Arc::clone(key));
                        self.parked_since.get_or_insert_with(Instant::now);
                    }
                }
            }
        }
        self.reclass(key);
        if let Some(address) = address.filter(|_| !is_crowded) {
            self.unpark(&address, UNPARKED_AT_ONCE);
        }
        self.offer_turn(key);
        self.drop_idle(key);
        revived
    }

    /// Counts the jobs that run as what their destination is now.
    fn reclass(&mut self, key: &Arc<Destination>) {
        let Some(destination) = self.known.get_mut(key).filter(|d| d.running > 0) else { return };
        let class = match destination.class(key, Instant::now()) {
            Class::Defer => Class::Slow,
            class => class,
        };
        if destination.counted.replace(class) == Some(class) {
            return;
        }
        let own =
            self.started.values_mut().filter(|s| s.class != Class::Defer && s.class != class && s.destination == *key);
        for started in own {
            self.pool.running[started.class as usize] -= 1;
            self.pool.running[class as usize] += 1;
            started.class = class;
        }
    }

    fn unpark(&mut self, address: &Endpoint, count: usize) {
        let Some(waiting) = self.parked.get_mut(address) else { return };
        let keys: Vec<Arc<Destination>> = waiting.drain(..count.min(waiting.len())).collect();
        if waiting.is_empty() {
            self.parked.remove(address);
        }
        for key in keys {
            if let Some(destination) = self.known.get_mut(&key) {
                destination.is_parked = false;
            }
            self.offer_turn(&key);
            self.drop_idle(&key);
        }
        if self.parked.is_empty() {
            self.parked_since = None;
        }
    }

    /// Notes what has passed with time: jobs that have run for long make their destination
    /// slow before they end, and those that are parked look again.
    pub fn note_time(&mut self) {
        for (at, limit) in [SLOW_HOST, SLOW_USER].into_iter().enumerate() {
            while self.watched[at].front().is_some_and(|(since, _)| since.elapsed() >= limit)
                && let Some((_, number)) = self.watched[at].pop_front()
            {
                let Some(started) = self.started.get(&number) else { continue };
                if started.since.elapsed() < started.slow_after {
                    self.watched[at].push_back((Instant::now(), number));
                    continue;
                }
                let key = Arc::clone(&started.destination);
                if let Some(destination) = self.known.get_mut(&key) {
                    destination.health.slow_down();
                }
                self.reclass(&key);
                self.offer_turn(&key);
            }
        }
        if self.parked_since.is_some_and(|since| since.elapsed() >= PARKED) {
            let addresses: Vec<Endpoint> = self.parked.keys().cloned().collect();
            addresses.iter().for_each(|address| self.unpark(address, 1));
            self.parked_since = (!self.parked.is_empty()).then(Instant::now);
        }
    }

    /// How long until there is something to note.
    pub fn next_note(&mut self) -> Option<Duration> {
        // What has ended needs no note.
        for watched in &mut self.watched {
            while watched.front().is_some_and(|(_, number)| !self.started.contains_key(number)) {
                watched.pop_front();
            }
        }
        let slow = self.watched.iter().zip([SLOW_HOST, SLOW_USER]);
        let slow = slow.filter_map(|(watched, limit)| Some(limit.saturating_sub(watched.front()?.0.elapsed())));
        slow.chain(self.parked_since.map(|since| PARKED.saturating_sub(since.elapsed()))).min()
    }

    /// One that has moved house may be tried at once: its host may be another now.
    pub fn clear_failures(&mut self, key: &Arc<Destination>) {
        let Some(destination) = self.known.get_mut(key) else { return };
        destination.health.clear_failures();
        (destination.cleared_at, destination.deferred_while_down) = (self.count, Vec::new());
        self.reclass(key);
        self.offer_turn(key);
        self.drop_idle(key);
    }

    /// Forgets what has nothing to do, unless there is something to remember of it.
    fn drop_idle(&mut self, key: &Arc<Destination>) {
        let Some(destination) = self.known.get_mut(key).filter(|d| d.is_idle() && !d.is_parked) else { return };
        if **key == Destination::Local || matches!(destination.health, Health::Unknown) {
            self.known.remove(key);
        } else if !std::mem::replace(&mut destination.is_remembered, true) {
            self.remembered.push_back(Arc::clone(key));
        }
        while self.remembered.len() > REMEMBERED
            && let Some(oldest) = self.remembered.pop_front()
        {
            let Some(destination) = self.known.get_mut(&oldest) else { continue };
            destination.is_remembered = false;
            if destination.is_idle() && !destination.is_parked {
                self.known.remove(&oldest);
            }
        }
        shrink(&mut self.known);
    }

    /// What is known of destinations elsewhere, in no order: of all, or of those with this
    /// name.
    pub fn statuses(&self, is_meant: impl Fn(&Arc<Destination>) -> bool) -> Vec<DestinationStatus> {
        let meant = self.known.iter().filter(|(key, _)| ***key != Destination::Local && is_meant(key));
        let now = Instant::now();
        let status = |(key, destination): (&Arc<Destination>, &DestinationState)| DestinationStatus {
            destination: Arc::clone(key),
            address: destination.address.clone(),
            state: destination.health.word(),
            running: destination.running,
            limit: destination.health.limit(self.most),
            ready: destination.ready.len(),
            down: match &destination.health {
                Health::Down(down) => Some((now - down.since, down.next_probe.saturating_duration_since(now))),
                _ => None,
            },
            said: destination.said.clone(),
        };
        meant.map(status).collect()
    }
}

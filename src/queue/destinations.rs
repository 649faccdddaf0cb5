//! Whose turn it is: the destinations that have something ready, or running.
//!
//! Destinations take turns; each elsewhere has at most so many workers, those that
//! were slow at last have together at most half of them, and a quarter is kept for
//! this host, so that no tarpit uses up the pool. No step looks at all destinations
//! or at all that is ready. So nothing is taken out of the middle: what is ready no
//! more is passed over when its turn comes, and the queue says what that is. A
//! destination with neither is not here, unless it was slow.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::event::{Key, LOCAL};
use super::item::is_local;
use super::{SMALL, thin_out};
use crate::spool::QueueId;
use crate::users::DESTINATION;

/// A job that takes longer makes its destination a slow one.
const SLOW: Duration = Duration::from_secs(30);

/// An entry's job, by its place there.
pub type JobRef = (QueueId, usize);

/// All that is ready or running, by destination.
pub struct Destinations {
    workers: usize,
    per_destination: usize,
    busy: HashMap<Key, Destination>,
    /// Those elsewhere with ready jobs and room for one more, each with its ticket; a
    /// ticket that the destination does not have any more is worth nothing.
    turns: VecDeque<(Key, u64)>,
    /// The slow ones likewise, whether or not there is room for one.
    slow_turns: VecDeque<(Key, u64)>,
    tickets: u64,
    /// How many of `turns` come before this host, if it has something ready.
    local_turn: Option<usize>,
    running_away: usize,
    running_slow: usize,
    /// When the jobs that run were begun, in that order, and where to; without those
    /// that are known to take long. The next one's number is `count`.
    begun: BTreeMap<u64, (Instant, Key)>,
    count: u64,
}

#[derive(Default)]
struct Destination {
    ready: VecDeque<JobRef>,
    running: usize,
    slow: bool,
    ticket: Option<u64>,
}

impl Destinations {
    /// With nothing ready.
    pub fn new(workers: usize, per_destination: usize) -> Self {
        Self {
            workers,
            per_destination,
            busy: HashMap::new(),
            turns: VecDeque::new(),
            slow_turns: VecDeque::new(),
            tickets: 0,
            local_turn: None,
            running_away: 0,
            running_slow: 0,
            begun: BTreeMap::new(),
            count: 0,
        }
    }

    /// From now on so many workers for one destination.
    pub fn limit(&mut self, per_destination: usize) {
        self.per_destination = per_destination;
    }

    /// Whether nothing is ready that could start.
    pub fn is_idle(&self) -> bool {
        self.turns.is_empty() && self.slow_turns.is_empty() && self.local_turn.is_none()
    }

    /// A job is ready.
    pub fn add(&mut self, key: &Key, job: JobRef) {
        self.busy.entry(Arc::clone(key)).or_default().ready.push_back(job);
        self.offer_turn(key);
    }

    fn has_room(&self, key: &Key, destination: &Destination) -> bool {
        destination.running < self.most_of(key) && (!destination.slow || self.running_slow < self.most_slow())
    }

    /// A user of the system can stop whoever works for him, and is to stop nobody else.
    fn most_of(&self, key: &Key) -> usize {
        let share = if key.starts_with(DESTINATION) { (self.workers / 2).max(1) } else { self.per_destination };
        share.min(self.per_destination)
    }

    fn most_slow(&self) -> usize {
        (self.workers / 2).max(1)
    }

    fn offer_turn(&mut self, key: &Key) {
        let limit = self.most_of(key);
        let Some(destination) = self.busy.get_mut(key) else { return };
        let is_full = destination.running >= limit && !is_local(key);
        if destination.ticket.is_some() || destination.ready.is_empty() || is_full {
            return;
        }
        self.tickets += 1;
        destination.ticket = Some(self.tickets);
        if is_local(key) {
            self.local_turn = Some(self.turns.len());
        } else if destination.slow {
            self.slow_turns.push_back((Arc::clone(key), self.tickets));
        } else {
            self.turns.push_back((Arc::clone(key), self.tickets));
        }
    }

    /// The job whose turn it is begins now; with what it is to be called when it
    /// ends. `is_ready` is whether one still is.
    pub fn begin_next(&mut self, is_ready: impl Fn(JobRef, &Key) -> bool) -> Option<(Key, JobRef, u64)> {
        while let Some(key) = self.next_turn() {
            let has_room = self.busy.get(&key).is_some_and(|d| is_local(&key) || self.has_room(&key, d));
            let job = if has_room { self.take_ready(&key, &is_ready) } else { None };
            let begun = job.map(|job| (Arc::clone(&key), job, self.begin(&key)));
            self.drop_idle(&key);
            self.offer_turn(&key);
            if begun.is_some() {
                return begun;
            }
        }
        None
    }

    fn take_ready(&mut self, key: &Key, is_ready: impl Fn(JobRef, &Key) -> bool) -> Option<JobRef> {
        let ready = &mut self.busy.get_mut(key)?.ready;
        while let Some(job) = ready.pop_front() {
            if is_ready(job, key) {
                return Some(job);
            }
        }
        None
    }

    /// The next destination in turn, which hands in its ticket; only this host once
    /// three quarters of the workers are away.
    fn next_turn(&mut self) -> Option<Key> {
        let kept = (self.workers / 4).max(usize::from(self.workers > 1));
        let may_leave = self.running_away < self.workers - kept;
        loop {
            if self.local_turn.is_some_and(|before| before == 0 || !may_leave) {
                self.local_turn = None;
                let (key, destination) = self.busy.get_key_value(LOCAL)?;
                let (key, ticket) = (Arc::clone(key), destination.ticket);
                if let Some(key) = self.hand_in(key, ticket) {
                    return Some(key);
                }
            }
            let (key, ticket) = if may_leave { self.next_away()? } else { return None };
            if let Some(key) = self.hand_in(key, Some(ticket)) {
                return Some(key);
            }
        }
    }

    fn next_away(&mut self) -> Option<(Key, u64)> {
        if self.running_slow < self.most_slow()
            && let Some(turn) = self.slow_turns.pop_front()
        {
            return Some(turn);
        }
        let turn = self.turns.pop_front()?;
        if self.turns.is_empty() {
            self.turns.shrink_to(SMALL);
        }
        self.local_turn = self.local_turn.map(|before| before.saturating_sub(1));
        Some(turn)
    }

    fn hand_in(&mut self, key: Key, ticket: Option<u64>) -> Option<Key> {
        let destination = self.busy.get_mut(&key).filter(|d| d.ticket == ticket && ticket.is_some())?;
        destination.ticket = None;
        Some(key)
    }

    fn begin(&mut self, key: &Key) -> u64 {
        if let Some(destination) = self.busy.get_mut(key) {
            destination.running += 1;
            self.running_slow += usize::from(destination.slow);
        }
        let number = self.count;
        self.count += 1;
        if !is_local(key) {
            self.running_away += 1;
            self.begun.insert(number, (Instant::now(), Arc::clone(key)));
        }
        number
    }

    /// A job has ended, after so long.
    pub fn end(&mut self, key: &Key, number: u64, took: Duration) {
        self.begun.remove(&number);
        self.running_away -= usize::from(!is_local(key));
        let Some(destination) = self.busy.get_mut(key) else { return };
        destination.running -= 1;
        let was_slow = std::mem::replace(&mut destination.slow, took >= SLOW && !is_local(key));
        // Those of its jobs that still run count as what it is now.
        match (was_slow, destination.slow) {
            (true, true) => self.running_slow -= 1,
            (true, false) => {
                self.running_slow -= destination.running + 1;
                // Its turn is with those that are not slow.
                destination.ticket = None;
            }
            (false, true) => self.running_slow += destination.running,
            (false, false) => {}
        }
        self.drop_idle(key);
        self.offer_turn(key);
    }

    /// A job that has run for long makes its destination slow before it ends.
    pub fn note_overdue(&mut self) {
        while let Some(first) = self.begun.first_entry().filter(|first| first.get().0.elapsed() >= SLOW) {
            let (_, key) = first.remove();
            if let Some(destination) = self.busy.get_mut(&key).filter(|d| !d.slow) {
                destination.slow = true;
                self.running_slow += destination.running;
            }
        }
    }

    /// How long until a job that runs now is overdue.
    pub fn overdue_in(&self) -> Option<Duration> {
        self.begun.values().next().map(|(begun, _)| SLOW.saturating_sub(begun.elapsed()))
    }

    /// One that has moved house may be tried at once: its host may be another now.
    pub fn forgive(&mut self, key: &Key) {
        if let Some(destination) = self.busy.get_mut(key).filter(|d| d.running == 0 && d.slow) {
            destination.slow = false;
            destination.ticket = None;
            self.offer_turn(key);
            self.drop_idle(key);
        }
    }

    /// No job is for it any more.
    pub fn forget(&mut self, key: &Key) {
        if self.busy.get(key).is_some_and(|d| d.running == 0) {
            self.busy.remove(key);
            thin_out(&mut self.busy);
        }
    }

    fn drop_idle(&mut self, key: &Key) {
        let is_idle = |d: &Destination| d.ready.is_empty() && d.running == 0 && !d.slow;
        if self.busy.get(key).is_some_and(is_idle) {
            self.forget(key);
        }
    }
}

//! One destination that has something ready or running, or lately had.

use std::time::Instant;

use super::health::Health;
use super::pool::Class;
use super::ready::Ready;
use super::turns::JobRef;
use crate::destination::Destination;
use crate::endpoint::Endpoint;
use crate::outcome::Outcome;

/// Another connection is worth its while when so many jobs wait for each that there is:
/// a message over a kept connection takes less than half as long.
const WORTH: usize = 2;
/// Jobs of one destination that are deferred at once, at a time.
const DEFERRED_AT_ONCE: usize = 4;

/// What is known of it, and what it has to do.
#[derive(Default)]
pub struct DestinationState {
    pub ready: Ready,
    pub health: Health,
    pub running: usize,
    /// Jobs that are being deferred without being tried.
    pub deferring: usize,
    pub ticket: Option<(u64, Class)>,
    /// As what the jobs that run are counted.
    pub counted: Option<Class>,
    pub is_parked: bool,
    pub is_remembered: bool,
    pub address: Option<Endpoint>,
    pub said: Option<Box<Outcome>>,
    /// Failures of jobs that began before this one mean nothing any more.
    pub cleared_at: u64,
    /// Jobs that wait because it is down.
    pub waiting_for_it: Vec<JobRef>,
}

impl DestinationState {
    pub fn class(&self, destination: &Destination, now: Instant) -> Class {
        match (destination, &self.health) {
            (Destination::Local, _) => Class::Local,
            (Destination::User(_) | Destination::Command(_), Health::Slow) => Class::SlowUser,
            (Destination::User(_) | Destination::Command(_), _) => Class::User,
            (Destination::Remote(_), Health::Fresh) => Class::Unproven,
            (Destination::Remote(_), Health::Proven(_)) => Class::Proven,
            (Destination::Remote(_), Health::Down(down)) if now < down.next_probe || self.running > 0 => Class::Defer,
            (Destination::Remote(_), Health::Slow | Health::Down(_)) => Class::Slow,
        }
    }

    /// Whether it may have another job, of at most `most`.
    pub fn has_room(&self, class: Class, most: usize) -> bool {
        let (running, limit) = (self.running, self.health.limit(most));
        let is_worth = running == 0 || self.ready.len() > WORTH * running;
        match class {
            _ if self.is_parked => false,
            Class::Local => true,
            Class::Defer => self.deferring < DEFERRED_AT_ONCE,
            Class::Proven | Class::Unproven => running < limit && is_worth,
            Class::User | Class::SlowUser | Class::Slow => running < limit,
        }
    }

    /// Notes a job that waits because it is down; once, though it may be deferred again and
    /// again.
    pub fn note_waiting(&mut self, job: JobRef) {
        let list = &mut self.waiting_for_it;
        if list.len() == list.capacity() {
            list.sort_unstable();
            list.dedup();
        }
        list.push(job);
    }

    /// Whether it has nothing to do.
    pub fn is_idle(&self) -> bool {
        self.ready.is_empty() && self.running == 0 && self.deferring == 0
    }
}

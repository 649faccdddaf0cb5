//! The state of one destination that has ready or running jobs, or had some lately.

use std::time::Instant;

use super::health::Health;
use super::pool::Class;
use super::ready::Ready;
use super::turns::JobRef;
use crate::destination::Destination;
use crate::endpoint::Endpoint;
use crate::outcome::Outcome;

/// Ready jobs for each open connection that justify another one: a message over a cached
/// connection takes less than half as long.
const JOBS_PER_CONNECTION: usize = 2;
/// Maximum number of jobs of one destination that are being deferred at the same time.
const MAX_DEFERRING: usize = 4;

/// What is known about a destination, and its jobs.
#[derive(Default)]
pub struct DestinationState {
    pub ready: Ready,
    pub health: Health,
    pub running: usize,
    /// Jobs that are being deferred without an attempt.
    pub deferring: usize,
    pub ticket: Option<(u64, Class)>,
    /// The class in which the running jobs are counted.
    pub counted: Option<Class>,
    pub is_parked: bool,
    pub is_remembered: bool,
    pub address: Option<Endpoint>,
    pub said: Option<Box<Outcome>>,
    /// The number of the first job after failures were last cleared; failures of earlier jobs are
    /// ignored.
    pub cleared_at: u64,
    /// Jobs that were deferred because the destination is down.
    pub deferred_while_down: Vec<JobRef>,
}

impl DestinationState {
    pub fn class(&self, destination: &Destination, now: Instant) -> Class {
        match (destination, &self.health) {
            (Destination::Local, _) => Class::Local,
            (Destination::User(_) | Destination::Command(_), Health::Slow) => Class::SlowUser,
            (Destination::User(_) | Destination::Command(_), _) => Class::User,
            (Destination::Remote(_), Health::Unknown) => Class::Unproven,
            (Destination::Remote(_), Health::Proven(_)) => Class::Proven,
            (Destination::Remote(_), Health::Down(down)) if now < down.next_probe || self.running > 0 => Class::Defer,
            (Destination::Remote(_), Health::Slow | Health::Down(_)) => Class::Slow,
        }
    }

    /// Whether another job may start, if the configuration allows at most `most`.
    pub fn has_room(&self, class: Class, most: usize) -> bool {
        let (running, limit) = (self.running, self.health.limit(most));
        let is_worthwhile = running == 0 || self.ready.len() > JOBS_PER_CONNECTION * running;
        match class {
            _ if self.is_parked => false,
            Class::Local => true,
            Class::Defer => self.deferring < MAX_DEFERRING,
            Class::Proven | Class::Unproven => running < limit && is_worthwhile,
            Class::User | Class::SlowUser | Class::Slow => running < limit,
        }
    }

    /// Notes a job that waits because the destination is down. A job that is deferred repeatedly
    /// is kept once.
    pub fn note_waiting(&mut self, job: JobRef) {
        let list = &mut self.deferred_while_down;
        if list.len() == list.capacity() {
            list.sort_unstable();
            list.dedup();
        }
        list.push(job);
    }

    /// Whether there are no jobs.
    pub fn is_idle(&self) -> bool {
        self.ready.is_empty() && self.running == 0 && self.deferring == 0
    }
}

//! One destination that has something ready or running, or lately had.

use std::net::SocketAddr;
use std::time::Instant;

use super::event::Key;
use super::health::Health;
use super::item::is_local;
use super::pool::Class;
use super::ready::Ready;
use super::turns::JobRef;
use crate::outcome::Outcome;
use crate::users::DESTINATION;

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
    pub address: Option<SocketAddr>,
    pub said: Option<Box<Outcome>>,
    /// Failures of jobs that began before this one mean nothing any more.
    pub cleared_at: u64,
    /// Jobs that wait because it is down.
    pub waiting_for_it: Vec<JobRef>,
}

impl DestinationState {
    pub fn class(&self, key: &Key, now: Instant) -> Class {
        match (&self.health, key) {
            (_, key) if is_local(key) => Class::Here,
            (Health::Slow, key) if is_users(key) => Class::SlowUser,
            (_, key) if is_users(key) => Class::User,
            (Health::Fresh, _) => Class::Unproven,
            (Health::Proven(_), _) => Class::Proven,
            (Health::Down(down), _) if now < down.next_probe || self.running > 0 => Class::Defer,
            (Health::Slow | Health::Down(_), _) => Class::Slow,
        }
    }

    /// Whether it may have another job, of at most `most`.
    pub fn has_room(&self, class: Class, most: usize) -> bool {
        let (running, limit) = (self.running, self.health.limit(most));
        let is_worth = running == 0 || self.ready.len() > WORTH * running;
        match class {
            _ if self.is_parked => false,
            Class::Here => true,
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

/// Whether a destination is an agent or a command of this system.
pub fn is_users(key: &Key) -> bool {
    key.starts_with(DESTINATION) || key.starts_with("command")
}

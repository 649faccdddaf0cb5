//! Shares of the pool of workers.
//!
//! Faulty hosts and users must not delay the mail of others. So destinations fall into classes,
//! and each class may occupy at most a part of the workers:
//!
//! | class | maximum, of N workers |
//! | --- | --- |
//! | [`Class::Local`]: settled on this host at once | N |
//! | [`Class::Defer`]: deferred without an attempt, because the destination is down | N/4 |
//! | [`Class::User`]: agents and commands of users | N/2, slow ones included |
//! | [`Class::SlowUser`]: slow agents and commands | N/4 |
//! | [`Class::Proven`]: hosts that answer | 7/8 N, the next two classes included |
//! | [`Class::Unproven`]: hosts about which nothing is known | N/2, slow ones included |
//! | [`Class::Slow`]: slow hosts, and probes of hosts that are down | N/4 |
//!
//! Jobs that become slow while they run may exceed N/4; the excess does not count against
//! unproven hosts. So there are always workers for every class, whatever the others do. This file
//! only counts: `turns` decides which destination of a class is next.

use std::time::Duration;

use super::health::UNPROVEN;
use crate::timeouts::HostTimeouts;

/// Maximum silence of an unproven host once three quarters of the workers for such hosts are taken.
const CROWDED_UNPROVEN_TIMEOUT: Duration = Duration::from_millis(1500);
/// Maximum silence of an unproven host while others wait for its worker.
const WANTED_UNPROVEN_TIMEOUT: Duration = Duration::from_millis(750);
/// Maximum silence of a slow host while others wait for its worker.
const WANTED_SLOW_TIMEOUT: Duration = Duration::from_secs(30);

/// The class of a destination, with a share of the workers: see the head of this file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Settled on this host at once.
    Local,
    /// Deferred without an attempt, because the destination is down.
    Defer,
    /// Agents and commands of users.
    User,
    /// Slow agents and commands of users.
    SlowUser,
    /// Hosts that answer.
    Proven,
    /// Hosts about which nothing is known.
    Unproven,
    /// Slow hosts, and probes of hosts that are down.
    Slow,
}

/// All classes, in the order of their discriminants.
pub const CLASSES: [Class; 7] =
    [Class::Local, Class::Defer, Class::User, Class::SlowUser, Class::Proven, Class::Unproven, Class::Slow];

/// The workers, counted by the class of their jobs.
pub struct Pool {
    workers: usize,
    /// Running jobs by class.
    pub running: [usize; CLASSES.len()],
}

impl Pool {
    /// A pool without jobs.
    pub fn new(workers: usize) -> Self {
        Self { workers, running: [0; CLASSES.len()] }
    }

    /// Running jobs of several classes.
    fn sum(&self, classes: &[Class]) -> usize {
        classes.iter().map(|class| self.running[*class as usize]).sum()
    }

    /// Workers without a job.
    pub fn idle(&self) -> usize {
        self.workers.saturating_sub(self.sum(&CLASSES))
    }

    /// The number of workers in 1/`of` of the pool; at least one.
    fn part(&self, of: usize) -> usize {
        (self.workers / of).max(1)
    }

    /// Workers still free for deliveries to other hosts: some are reserved for work on this host.
    fn free_elsewhere(&self) -> usize {
        let kept = (self.workers / 8).max(usize::from(self.workers > 1));
        let taken = self.sum(&[Class::Proven, Class::Unproven, Class::Slow]);
        (self.workers - kept).saturating_sub(taken)
    }

    /// Workers still free for unproven and slow hosts.
    fn free_unproven(&self) -> usize {
        // Jobs that became slow after they began do not take the place of unproven hosts.
        let slow = self.running[Class::Slow as usize].min(self.part(4));
        let taken = self.running[Class::Unproven as usize] + slow;
        self.part(2).saturating_sub(taken).min(self.free_elsewhere())
    }

    fn free_users(&self) -> usize {
        let slow = self.running[Class::SlowUser as usize].min(self.part(4));
        let within = self.part(2).saturating_sub(self.running[Class::User as usize] + slow);
        let all = self.sum(&[Class::User, Class::SlowUser]);
        within.min((self.workers - self.workers / 4).saturating_sub(all))
    }

    /// Workers still free for a class.
    pub fn free(&self, class: Class) -> usize {
        let within = |share: usize| share.saturating_sub(self.running[class as usize]);
        match class {
            Class::Local => self.workers,
            Class::Defer => within(self.part(4)),
            Class::User => self.free_users(),
            Class::SlowUser => within(self.part(4)).min(self.free_users()),
            Class::Proven => self.free_elsewhere(),
            Class::Unproven => self.free_unproven(),
            Class::Slow => within(self.part(4)).min(self.free_unproven()),
        }
    }

    /// Maximum number of jobs of one destination while others of its class wait. A proven
    /// destination with `own_ready` of the `ready` jobs of all proven destinations gets the same
    /// fraction of their workers, so that a large batch is not the last to end. While many workers
    /// are free, it gets at least half of them.
    /// Unproven and slow destinations get more than one worker only while few jobs of their class
    /// are running.
    pub fn share(&self, class: Class, own_ready: usize, ready: usize) -> usize {
        let is_calm = self.running[class as usize] < self.part(8).max(2);
        match class {
            Class::Local | Class::Defer => usize::MAX,
            Class::Unproven | Class::Slow | Class::SlowUser => {
                if is_calm {
                    UNPROVEN
                } else {
                    1
                }
            }
            Class::User => (self.free(class) / 2).max(1),
            Class::Proven => {
                let free = self.free(class);
                let part = (self.running[class as usize] * own_ready).div_ceil(ready.max(1)).max(1);
                if free <= self.workers / 4 { part } else { part.max(free / 2) }
            }
        }
    }

    /// Shortens the timeouts of unproven and slow hosts while other destinations wait for workers.
    /// In a large pool the timeouts of unproven hosts are shortened even before that. `waits`
    /// returns whether destinations of a class are waiting.
    pub fn set_timeouts(&self, timeouts: &HostTimeouts, waits: impl Fn(Class) -> bool) {
        let share = self.part(2).saturating_sub(self.running[Class::Slow as usize]);
        // The timeouts are shortened so early that a new host never has to wait for a worker.
        let is_nearly_full = self.workers >= 16 && 4 * self.running[Class::Unproven as usize] >= 3 * share;
        let is_full = waits(Class::Unproven) || waits(Class::Proven);
        let unproven =
            if is_full { Some(WANTED_UNPROVEN_TIMEOUT) } else { is_nearly_full.then_some(CROWDED_UNPROVEN_TIMEOUT) };
        let slow = (waits(Class::Slow) || is_full).then_some(WANTED_SLOW_TIMEOUT);
        timeouts.set(unproven, slow);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fills the classes one after another, and returns the number of jobs of each.
    fn filled(workers: usize, classes: &[Class]) -> Vec<usize> {
        let mut pool = Pool::new(workers);
        let mut fill = |class: Class| {
            while pool.free(class) > 0 {
                pool.running[class as usize] += 1;
            }
            pool.running[class as usize]
        };
        classes.iter().map(|class| fill(*class)).collect()
    }

    #[test]
    fn jobs_that_become_slow_leave_workers_for_new_hosts() {
        let mut pool = Pool::new(200);
        (pool.running[Class::Slow as usize], pool.running[Class::SlowUser as usize]) = (130, 60);
        assert_eq!((pool.free(Class::Unproven), pool.free(Class::Proven), pool.free(Class::Slow)), (45, 45, 0));
        assert_eq!((pool.free(Class::User), pool.free(Class::SlowUser)), (50, 0));
    }

    #[test]
    fn no_class_takes_all_workers_and_each_gets_one_even_in_a_small_pool() {
        use Class::{Defer, Proven, Slow, SlowUser, Unproven, User};
        for (workers, classes, expected) in [
            (200, &[Slow, Unproven, Proven][..], &[50, 50, 75][..]),
            (200, &[Unproven, Slow, Proven], &[100, 0, 75]),
            (200, &[Proven, Unproven, User], &[175, 0, 100]),
            (200, &[SlowUser, User, Defer], &[50, 50, 50]),
            (20, &[Slow, Unproven, Proven], &[5, 5, 8]),
            (4, &[Slow, Unproven, Proven], &[1, 1, 1]),
            (2, &[Slow, Unproven, Proven], &[1, 0, 0]),
            (1, &[Proven], &[1]),
            (1, &[Unproven], &[1]),
            (1, &[User], &[1]),
        ] {
            assert_eq!(filled(workers, classes), expected, "{workers} {classes:?}");
        }
    }
}

//! Limits how many workers each class of destinations may occupy, so that faulty hosts and users do
//! not delay the mail of others.
//!
//! Each destination is in one class, and each class may occupy at most a part of the workers. (An
//! agent is a process that works in the mailbox of a user with the user's rights. Mail stores share
//! the workers of users, so that neither ill hosts nor ill stores delay each other's mail.)
//!
//! | class | maximum, of N workers |
//! | --- | --- |
//! | [`Class::Local`]: jobs that are done on this host without delay | N |
//! | [`Class::Defer`]: deferred without an attempt, because the destination is down | N/4 |
//! | [`Class::User`]: agents and commands of users, and mail stores | N/2, slow ones included |
//! | [`Class::SlowUser`]: slow agents, commands and stores | N/4 |
//! | [`Class::Proven`]: hosts that answer | 7/8 N, the next two classes included |
//! | [`Class::Unproven`]: hosts about which nothing is known | N/2, slow ones included |
//! | [`Class::Slow`]: slow hosts, and probes of hosts that are down | N/4 |
//!
//! If jobs become slow while they run, there may be more than N/4 slow jobs. The excess does not
//! reduce the number of workers for unproven hosts. So there are always workers for every class,
//! whatever the other classes do. This module only counts. The module `turns` decides which
//! destination of a class is next.

use std::time::Duration;

use super::health::UNPROVEN;
use crate::timeouts::HostTimeouts;

/// How long an unproven host may be silent once three quarters of the workers for unproven hosts
/// are taken.
const CROWDED_UNPROVEN_TIMEOUT: Duration = Duration::from_millis(1500);
/// How long an unproven host may be silent while other hosts wait for a worker.
const WANTED_UNPROVEN_TIMEOUT: Duration = Duration::from_millis(750);
/// How long a slow host may be silent while other hosts wait for a worker.
const WANTED_SLOW_TIMEOUT: Duration = Duration::from_secs(30);

/// The class of a destination, which decides how many workers it may occupy. The table above says
/// how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Jobs that are done on this host without delay.
    Local,
    /// Jobs that are deferred without an attempt, because the destination is down.
    Defer,
    /// Agents and commands of users, and mail stores.
    User,
    /// Slow agents and commands of users, slow stores, and probes of stores that are down.
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

/// The number of workers, and how many jobs of each class they have.
pub struct Pool {
    /// The number of workers, which is smaller while the system has no more threads.
    pub workers: usize,
    /// The number of running jobs of each class.
    pub running: [usize; CLASSES.len()],
}

impl Pool {
    /// Returns a pool without jobs.
    pub fn new(workers: usize) -> Self {
        Self { workers, running: [0; CLASSES.len()] }
    }

    /// Returns the number of running jobs of several classes.
    fn sum(&self, classes: &[Class]) -> usize {
        classes.iter().map(|class| self.running[*class as usize]).sum()
    }

    /// Returns the number of workers without a job.
    pub fn idle(&self) -> usize {
        self.workers.saturating_sub(self.sum(&CLASSES))
    }

    /// Returns the number of workers divided by `of`, but at least one.
    fn part(&self, of: usize) -> usize {
        (self.workers / of).max(1)
    }

    /// Returns how many workers are free for deliveries to other hosts. Some workers are reserved
    /// for work on this host.
    fn free_elsewhere(&self) -> usize {
        let kept = (self.workers / 8).max(usize::from(self.workers > 1));
        let taken = self.sum(&[Class::Proven, Class::Unproven, Class::Slow]);
        (self.workers - kept).saturating_sub(taken)
    }

    /// Returns how many workers are free for unproven and slow hosts.
    fn free_unproven(&self) -> usize {
        // Jobs that became slow after they began may exceed the limit for slow hosts. The excess is
        // not counted here, so that it does not displace unproven hosts.
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

    /// Returns how many workers are free for a class.
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

    /// Returns the maximum number of running jobs of one destination while other destinations of
    /// its class wait.
    ///
    /// All proven destinations together have `ready` ready jobs, and `own_ready` of these belong to
    /// this destination. A proven destination with one tenth of these ready jobs gets one tenth of
    /// the workers that have jobs of proven destinations, so that a large batch of mail is not the
    /// last to end. While many workers are free, a proven destination gets at least half of the
    /// free ones. Unproven and slow destinations get more than one worker only while few jobs of
    /// their class are running.
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
    /// In a pool of at least 16 workers, the timeouts of unproven hosts are shortened as soon as
    /// three quarters of the workers for unproven hosts are taken. `waits` returns whether
    /// destinations of a class are waiting.
    pub fn set_timeouts(&self, timeouts: &HostTimeouts, waits: impl Fn(Class) -> bool) {
        let share = self.part(2).saturating_sub(self.running[Class::Slow as usize]);
        // The timeouts are shortened early, so that a new host seldom has to wait for a worker.
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

    /// Starts as many jobs as each class allows, one class after another. Returns the number of
    /// jobs of each class.
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

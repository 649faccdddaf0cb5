//! How the pool of workers is shared out.
//!
//! What others' machines do wrong must stop nobody else's mail. So destinations fall into
//! classes, and each class holds a part of the workers at most:
//!
//! | class | holds at most, of N workers |
//! | --- | --- |
//! | [`Class::Local`] what is settled on this host at once | N |
//! | [`Class::Defer`] mail for what is down, deferred without being tried | N/4 |
//! | [`Class::User`] agents and commands of users | N/2 together with the slow ones |
//! | [`Class::SlowUser`] the same, which take their time | N/4 |
//! | [`Class::Proven`] hosts that answer | 7/8 N together with the next two |
//! | [`Class::Unproven`] hosts of which nothing is known | N/2 together with the slow ones |
//! | [`Class::Slow`] hosts that are slow, and probes of what is down | N/4 |
//!
//! What becomes slow while it runs may be more than that: it takes no new host's place.
//! So there is always room for a destination of one class, whatever those of the others do.
//! Counts only: whose turn it is in a class is for `turns`.

use std::time::Duration;

use super::health::UNPROVEN;
use crate::timeouts::HostTimeouts;

/// The longest silence of an unproven host while three quarters of their workers are taken.
const UNPROVEN_SILENCE: Duration = Duration::from_millis(1500);
/// The same while others wait for its worker.
const WANTED_SILENCE: Duration = Duration::from_millis(750);
/// The same for a slow one.
const SLOW_SILENCE: Duration = Duration::from_secs(30);

/// What destinations fall into; the head of this file says how many workers each gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Settled on this host at once.
    Local,
    /// Deferred without being tried, for the destination is down.
    Defer,
    /// Agents and commands of users.
    User,
    /// The same, which take their time.
    SlowUser,
    /// Hosts that answer.
    Proven,
    /// Hosts of which nothing is known.
    Unproven,
    /// Hosts that are slow, and probes of what is down.
    Slow,
}

/// All of them, in the order of their numbers.
pub const CLASSES: [Class; 7] =
    [Class::Local, Class::Defer, Class::User, Class::SlowUser, Class::Proven, Class::Unproven, Class::Slow];

/// The workers.
pub struct Pool {
    workers: usize,
    /// Jobs that run, by class.
    pub running: [usize; CLASSES.len()],
}

impl Pool {
    /// So many workers, all of them idle.
    pub fn new(workers: usize) -> Self {
        Self { workers, running: [0; CLASSES.len()] }
    }

    /// Jobs that run in these classes.
    fn sum(&self, classes: &[Class]) -> usize {
        classes.iter().map(|class| self.running[*class as usize]).sum()
    }

    /// Workers without a job.
    pub fn idle(&self) -> usize {
        self.workers.saturating_sub(self.sum(&CLASSES))
    }

    /// A part of the pool: never nothing.
    fn part(&self, of: usize) -> usize {
        (self.workers / of).max(1)
    }

    /// Workers that jobs elsewhere may still take: the rest is for this host.
    fn free_elsewhere(&self) -> usize {
        let kept = (self.workers / 8).max(usize::from(self.workers > 1));
        let taken = self.sum(&[Class::Proven, Class::Unproven, Class::Slow]);
        (self.workers - kept).saturating_sub(taken)
    }

    /// Workers that unproven and slow hosts may still take.
    fn free_suspects(&self) -> usize {
        // What was healthy when it began and has become slow since takes no new host's place.
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

    /// Workers that a class may still take.
    pub fn free(&self, class: Class) -> usize {
        let within = |share: usize| share.saturating_sub(self.running[class as usize]);
        match class {
            Class::Local => self.workers,
            Class::Defer => within(self.part(4)),
            Class::User => self.free_users(),
            Class::SlowUser => within(self.part(4)).min(self.free_users()),
            Class::Proven => self.free_elsewhere(),
            Class::Unproven => self.free_suspects(),
            Class::Slow => within(self.part(4)).min(self.free_suspects()),
        }
    }

    /// Jobs that one destination of a class may have, where others wait: of the healthy ones
    /// what is its part of all that is `ready`, so that a large batch is not the last to end,
    /// and anyway half of what is free. The last workers are for those that have none, and
    /// doubtful ones get more than one only while there are few of them.
    pub fn share(&self, class: Class, own: usize, ready: usize) -> usize {
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
                let (free, part) = (self.free(class), (self.running[class as usize] * own).div_ceil(ready.max(1)));
                match free {
                    _ if free <= self.workers / 64 => 1,
                    _ if free <= self.workers / 4 => part.max(1),
                    _ => part.max(free / 2),
                }
            }
        }
    }

    /// Shortens the time of doubtful hosts where others wait for their workers; `waits` is
    /// whether destinations of a class do.
    pub fn set_timeouts(&self, timeouts: &HostTimeouts, waits: impl Fn(Class) -> bool) {
        let doubtful = self.part(2).saturating_sub(self.running[Class::Slow as usize]);
        // Early enough that in a large pool the next one never has to wait.
        let is_near = self.workers >= 16 && 4 * self.running[Class::Unproven as usize] >= 3 * doubtful;
        let is_full = waits(Class::Unproven) || waits(Class::Proven);
        let unproven = if is_full { Some(WANTED_SILENCE) } else { is_near.then_some(UNPROVEN_SILENCE) };
        let slow = (waits(Class::Slow) || is_full).then_some(SLOW_SILENCE);
        timeouts.set(unproven, slow);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fills one class after the other as far as it goes.
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
    fn jobs_that_have_become_slow_while_they_ran_leave_room_for_new_hosts() {
        let mut pool = Pool::new(200);
        (pool.running[Class::Slow as usize], pool.running[Class::SlowUser as usize]) = (130, 60);
        assert_eq!((pool.free(Class::Unproven), pool.free(Class::Proven), pool.free(Class::Slow)), (45, 45, 0));
        assert_eq!((pool.free(Class::User), pool.free(Class::SlowUser)), (50, 0));
    }

    #[test]
    fn no_class_takes_all_and_each_has_something_even_in_a_small_pool() {
        use Class::{Defer, Proven, Slow, SlowUser, Unproven, User};
        for (workers, classes, most) in [
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
            assert_eq!(filled(workers, classes), most, "{workers} {classes:?}");
        }
    }
}

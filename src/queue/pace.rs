//! Keeps to the rates and pauses of destinations.
//!
//! A message counts when an attempt for it begins, whatever the attempt shows, and each further attempt
//! counts again. Only an attempt that is put off before a host has seen the message is taken back. While a destination is at its limit it is *paced*: its jobs stay ready, no worker has
//! them, and it takes no turns. What is counted here is forgotten at the end of the process. Time is
//! that of the monotonic clock, so a change of the system's clock has no effect.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::shrink;
use crate::destination::Destination;
use crate::outgoing::{Limits, Reason};

/// The number of beginnings that are counted one by one. More of them are counted together if they
/// are within a 60th of the period.
const EXACT: usize = 64;
const PARTS: u32 = 60;
/// How long a destination waits before its limits are read again, since the table may have changed.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// Above this number of destinations, those that may begin another attempt at once are forgotten. If
/// many remain, that is repeated only when their number has doubled, so that new destinations are not
/// slower the more there are.
const MAX_KNOWN: usize = 16_384;

/// The attempts of all destinations with limits.
#[derive(Default)]
pub struct Paces {
    known: HashMap<Arc<Destination>, Pace>,
    /// Twice the number of destinations that remained when some were forgotten last.
    forget_above: usize,
    /// The paced destinations, by the time at which they are looked at again.
    waiting: BTreeMap<(Instant, u64), Arc<Destination>>,
    /// The number of the next element of `waiting`.
    next: u64,
}

/// The time until a destination may begin another attempt, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// The time until then.
    pub time: Duration,
    /// The limit.
    pub reason: Reason,
}

/// The attempts of one destination that still count.
#[derive(Debug, Default)]
struct Pace {
    /// The limits at the last attempt.
    limits: Limits,
    begun: VecDeque<Begun>,
}

/// Attempts that are counted together.
#[derive(Debug)]
struct Begun {
    first: Instant,
    last: Instant,
    /// The number of the attempts, at least 1.
    count: u32,
}

impl Paces {
    /// Returns how long a destination must wait before it may begin another attempt; `None` if it may
    /// begin now.
    pub fn wait(&self, destination: &Arc<Destination>, limits: &Limits, now: Instant) -> Option<Wait> {
        self.outlook(destination, limits, 0, now)
    }

    /// Returns how long a job waits if this number of jobs of its destination come before it; `None` if
    /// no limit delays it.
    pub fn outlook(
        &self,
        destination: &Arc<Destination>,
        limits: &Limits,
        before: usize,
        now: Instant,
    ) -> Option<Wait> {
        let none = Pace::default();
        self.known.get(destination).unwrap_or(&none).outlook(limits, before, now)
    }

    /// Counts an attempt that begins now.
    pub fn count(&mut self, destination: &Arc<Destination>, limits: &Limits, now: Instant) {
        if limits.rate.is_none() && limits.pause.is_none() {
            self.known.remove(destination);
            return;
        }
        if self.known.len() >= MAX_KNOWN.max(self.forget_above) && !self.known.contains_key(destination) {
            self.known.retain(|_, pace| pace.outlook(&pace.limits, 0, now).is_some());
            shrink(&mut self.known);
            self.forget_above = 2 * self.known.len();
        }
        self.known.entry(Arc::clone(destination)).or_default().count(limits, now);
    }

    /// Takes back the attempt of a destination that began at this time.
    pub fn take_back(&mut self, destination: &Arc<Destination>, begun: Instant) {
        if let Some(pace) = self.known.get_mut(destination) {
            pace.take_back(begun);
        }
    }

    /// Lets a destination wait. Returns the time at which [`Self::take_due`] returns it.
    pub fn pace(&mut self, destination: &Arc<Destination>, wait: Wait, now: Instant) -> Instant {
        let until = now + wait.time.min(MAX_WAIT);
        self.waiting.insert((until, self.next), Arc::clone(destination));
        self.next += 1;
        until
    }

    /// Lets a destination wait no longer. `until` is what [`Self::pace`] has returned.
    pub fn release(&mut self, destination: &Arc<Destination>, until: Instant) {
        let mut at_that_time = self.waiting.range((until, 0)..=(until, u64::MAX));
        if let Some((&key, _)) = at_that_time.find(|(_, other)| *other == destination) {
            self.waiting.remove(&key);
        }
    }

    /// Returns the next destination whose time has come.
    pub fn take_due(&mut self, now: Instant) -> Option<Arc<Destination>> {
        let first = self.waiting.first_entry().filter(|entry| entry.key().0 <= now)?;
        Some(first.remove())
    }

    /// Returns the time until [`Self::take_due`] has something to return.
    pub fn next_due(&self, now: Instant) -> Option<Duration> {
        self.waiting.keys().next().map(|(until, _)| until.saturating_duration_since(now))
    }

    /// Whether no destination waits.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }
}

impl Pace {
    fn count(&mut self, limits: &Limits, now: Instant) {
        self.limits = *limits;
        let period = limits.rate.map(|rate| rate.period.length()).unwrap_or_default();
        // The last attempt is kept for the pause.
        while self.begun.len() > 1 && self.begun.front().is_some_and(|begun| begun.last + period <= now) {
            self.begun.pop_front();
        }
        let is_long = self.begun.len() >= EXACT;
        match self.begun.back_mut().filter(|begun| is_long && now < begun.first + period / PARTS) {
            Some(begun) => (begun.last, begun.count) = (now, begun.count.saturating_add(1)),
            None => self.begun.push_back(Begun { first: now, last: now, count: 1 }),
        }
    }

    fn take_back(&mut self, time: Instant) {
        let index = self.begun.partition_point(|begun| begun.last < time);
        let Some(begun) = self.begun.get_mut(index).filter(|begun| begun.first <= time) else { return };
        begun.count -= 1;
        if begun.count == 0 {
            self.begun.remove(index);
        }
    }

    fn outlook(&self, limits: &Limits, before: usize, now: Instant) -> Option<Wait> {
        let last = self.begun.back().map(|begun| begun.last);
        let by_pause = limits.pause.map(|pause| {
            let first = last.map_or(Duration::ZERO, |last| (last + pause).saturating_duration_since(now));
            let time = first.saturating_add(pause.saturating_mul(u32::try_from(before).unwrap_or(u32::MAX)));
            Wait { time, reason: Reason::Pause(pause) }
        });
        let by_rate = limits.rate.map(|rate| {
            let (period, count) = (rate.period.length(), u64::from(rate.count));
            let (rounds, place) = (before as u64 / count, before as u64 % count);
            let time = self.until_free(period, count, place, now);
            let more = period.saturating_mul(u32::try_from(rounds).unwrap_or(u32::MAX));
            Wait { time: time.saturating_add(more), reason: Reason::Rate(rate) }
        });
        by_pause.into_iter().chain(by_rate).max_by_key(|wait| wait.time).filter(|wait| !wait.time.is_zero())
    }

    /// Returns the time until more than `place` attempts may begin, if `count` may begin in a period.
    /// `place` is less than `count`.
    fn until_free(&self, period: Duration, count: u64, place: u64, now: Instant) -> Duration {
        let counted = |begun: &&Begun| begun.last + period > now;
        let mut taken: u64 = self.begun.iter().filter(counted).map(|begun| u64::from(begun.count)).sum();
        let mut time = Duration::ZERO;
        for begun in self.begun.iter().filter(counted) {
            if taken + place < count {
                break;
            }
            taken -= u64::from(begun.count);
            time = (begun.last + period).saturating_duration_since(now);
        }
        time
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outgoing::Rate;

    fn limits(rate: Option<&str>, pause: Option<u64>) -> Limits {
        let rate = rate.map(|text| Rate::parse(text).expect("a rate"));
        Limits { rate, pause: pause.map(Duration::from_millis), connections: None }
    }

    /// The seconds at which `count` jobs begin that are ready at once.
    fn begin(limits: &Limits, count: usize) -> Vec<u64> {
        let (start, mut paces, mut passed) = (Instant::now(), Paces::default(), Duration::ZERO);
        let destination = Arc::new(Destination::mx("x.test"));
        let next = |_| {
            let now = |passed| start + passed;
            while let Some(wait) = paces.wait(&destination, limits, now(passed)) {
                passed += wait.time;
            }
            paces.count(&destination, limits, now(passed));
            passed.as_secs()
        };
        (0..count).map(next).collect()
    }

    #[test]
    fn no_period_has_more_messages_than_the_rate_says() {
        let minutes = |numbers: &[u64]| numbers.iter().map(|minute| 60 * minute).collect::<Vec<_>>();
        assert_eq!(begin(&limits(Some("2/m"), None), 5), minutes(&[0, 0, 1, 1, 2]));
        assert_eq!(begin(&limits(Some("1/h"), None), 3), [0, 3600, 7200]);
        assert_eq!(begin(&limits(None, Some(2000)), 4), [0, 2, 4, 6]);
        // Both limits hold.
        assert_eq!(begin(&limits(Some("2/m"), Some(10_000)), 5), [0, 10, 60, 70, 120]);
        assert_eq!(begin(&limits(None, None), 3), [0; 3]);
        // With many, some are counted together, and then each counts until the last of them is forgotten.
        let all = begin(&limits(Some("1000/m"), Some(10)), 3000);
        for (n, second) in all.iter().enumerate() {
            let within = all[n..].iter().take_while(|other| **other < second + 60).count();
            assert!(within <= 1000, "{within} within a minute");
        }
        assert!(all[2999] < 140, "{}", all[2999]);
    }

    #[test]
    fn the_outlook_counts_the_jobs_before() {
        let (mut paces, now) = (Paces::default(), Instant::now());
        let (destination, limits) = (Arc::new(Destination::mx("x.test")), limits(Some("3/m"), None));
        let outlook =
            |paces: &Paces, before| paces.outlook(&destination, &limits, before, now).map(|wait| wait.time.as_secs());
        assert_eq!([0, 2, 3, 6].map(|before| outlook(&paces, before)), [None, None, Some(60), Some(120)]);
        paces.count(&destination, &limits, now - Duration::from_secs(20));
        paces.count(&destination, &limits, now);
        assert_eq!([0, 1, 2, 3].map(|before| outlook(&paces, before)), [None, Some(40), Some(60), Some(60)]);
        paces.take_back(&destination, now);
        assert_eq!([0, 1, 2].map(|before| outlook(&paces, before)), [None, None, Some(40)]);
    }

    #[test]
    fn each_attempt_can_be_taken_back() {
        let (mut paces, start) = (Paces::default(), Instant::now());
        let (destination, limits) = (Arc::new(Destination::mx("x.test")), limits(Some("200/h"), Some(10_000)));
        let at = |n: usize| start + Duration::from_secs(10 * n as u64);
        let wait = |paces: &Paces, now| paces.wait(&destination, &limits, now).map(|wait| wait.time.as_secs());
        (0..3).for_each(|n| paces.count(&destination, &limits, at(n)));
        // The last attempt that is left decides about the pause.
        for (taken, pause) in [(1, Some(10)), (2, None), (0, None)] {
            paces.take_back(&destination, at(taken));
            assert_eq!(wait(&paces, at(2)), pause, "{taken}");
        }
        // An attempt that does not count takes nothing away from others.
        paces.count(&destination, &limits, at(3));
        paces.take_back(&destination, at(2));
        assert_eq!(wait(&paces, at(3)), Some(10));
        // With many, some are counted together.
        (4..203).for_each(|n| paces.count(&destination, &limits, at(n)));
        assert!(paces.known[&destination].begun.len() < 150);
        assert!(wait(&paces, at(203)).is_some_and(|seconds| seconds > 1000));
        (3..203).rev().for_each(|n| paces.take_back(&destination, at(n)));
        assert!(paces.known[&destination].begun.is_empty() && wait(&paces, at(203)).is_none());
    }

    #[test]
    fn a_destination_can_be_released_before_its_time() {
        let (mut paces, now) = (Paces::default(), Instant::now());
        let [a, b] = ["a.test", "b.test"].map(|name| Arc::new(Destination::mx(name)));
        let wait = Wait { time: Duration::from_secs(5), reason: Reason::Pause(Duration::from_secs(5)) };
        let until = [&a, &b].map(|destination| paces.pace(destination, wait, now));
        paces.release(&b, until[1]);
        assert_eq!((paces.take_due(until[1]), paces.take_due(until[1]), paces.is_idle()), (Some(a), None, true));
    }

    #[test]
    fn many_destinations_at_their_limits_are_not_looked_through_for_each_new_one() {
        let (mut paces, now, limits) = (Paces::default(), Instant::now(), limits(Some("1/d"), None));
        let later = now + Duration::from_secs(3 * 86_400);
        let mut count = |range: std::ops::Range<usize>, now| {
            range.for_each(|n| paces.count(&Arc::new(Destination::mx(&format!("{n}.test"))), &limits, now));
            paces.known.len()
        };
        // All of the first are at their limits when the next one comes, so the number must double.
        assert_eq!(count(0..MAX_KNOWN + 1, now), MAX_KNOWN + 1);
        assert_eq!(count(MAX_KNOWN + 1..2 * MAX_KNOWN, later), 2 * MAX_KNOWN);
        // Then those are forgotten that may begin again.
        assert_eq!(count(2 * MAX_KNOWN..2 * MAX_KNOWN + 1, later), MAX_KNOWN);
    }

    #[test]
    fn paced_destinations_come_back_in_the_order_of_their_times() {
        let (mut paces, now) = (Paces::default(), Instant::now());
        let destination = |name: &str| Arc::new(Destination::mx(name));
        let wait = |seconds| Wait { time: Duration::from_secs(seconds), reason: Reason::Pause(Duration::from_secs(1)) };
        for (name, seconds) in [("a.test", 5), ("b.test", 3600), ("c.test", 2)] {
            paces.pace(&destination(name), wait(seconds), now);
        }
        assert_eq!(paces.next_due(now), Some(Duration::from_secs(2)));
        let later = now + Duration::from_secs(5);
        assert_eq!(paces.take_due(later), Some(destination("c.test")));
        assert_eq!(paces.take_due(later), Some(destination("a.test")));
        // A long wait is looked at again after a minute: the table may have changed.
        assert_eq!((paces.take_due(later), paces.next_due(later)), (None, Some(Duration::from_secs(55))));
    }
}

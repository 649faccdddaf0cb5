//! Computes when a message is tried again, and when it expires.
//!
//! Both times depend only on the message's arrival, its last attempt and its id. No count of
//! attempts is kept, so the queue needs no database. The interval to the next attempt is the age
//! that the message had at the last attempt, but at least a minimum and at most a maximum. So each
//! interval is about twice the one before. If the clock is set back, no message waits longer than
//! the maximum.

use std::time::Duration;

/// The longest time for which a message is kept before its first attempt, at the request of its
/// sender (FUTURERELEASE, RFC 4865).
pub const MAX_HOLD: Duration = Duration::from_secs(30 * 86_400);

/// How much further away than [`MAX_HOLD`] a release may be: a clock that is set back a little does not
/// release a message.
const CLOCK_SLACK: Duration = Duration::from_secs(86_400);

/// Returns the time from `now` until a message may be delivered whose sender has asked for `release`.
/// Both times are in seconds since 1970. If `release` is more than a day further away than
/// [`MAX_HOLD`], the clock was set back since the message arrived, and the message may be delivered
/// now.
pub fn wait_for_release(release: u64, now: u64) -> Duration {
    let wait = Duration::from_secs(release.saturating_sub(now));
    if wait > MAX_HOLD + CLOCK_SLACK { Duration::ZERO } else { wait }
}

/// The times that limit the attempts at a message, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// When the message could first be tried: at its arrival, or when its sender has released it.
    pub start: u64,
    /// The time by which its sender wants the message to be delivered (DELIVERBY, RFC 2852).
    pub deadline: Option<u64>,
}

/// The retry intervals and the age limit of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// The first interval between attempts.
    pub min: Duration,
    /// The longest interval between attempts.
    pub max: Duration,
    /// The age after which a failed attempt is the last one.
    pub expire_after: Duration,
}

impl Schedule {
    /// Returns the time of the next attempt for a message that arrived at `arrival` and was last
    /// tried at `last`. All times are in seconds since 1970. If `last` is zero, the message was
    /// never tried, and is due at once. `seed` spreads messages that arrived at the same time: it
    /// changes the interval by up to an eighth. It lengthens the minimum interval, because
    /// greylisting hosts may insist on that minimum, and shortens every other interval.
    pub fn next_attempt(&self, arrival: u64, last: u64, seed: u64) -> u64 {
        if last == 0 {
            return 0;
        }
        let age = last.saturating_sub(arrival);
        let (min, max) = (self.min.as_secs(), self.max.as_secs().max(self.min.as_secs()));
        let interval = age.clamp(min, max);
        let spread = (interval / 8) * (seed % 1024) / 1024;
        // The spread must not make the interval longer than the maximum.
        let is_first = interval == min && min + min / 8 <= max;
        last.saturating_add(if is_first { interval + spread } else { interval - spread })
    }

    /// Like [`Schedule::next_attempt`]. A message whose last attempt began before its deadline has
    /// the next attempt at the deadline or before: then the message is returned, or its sender gets
    /// a report.
    pub fn next_within(&self, window: Window, last: u64, seed: u64) -> u64 {
        let next = self.next_attempt(window.start, last, seed);
        window.deadline.filter(|deadline| last < *deadline).map_or(next, |deadline| next.min(deadline))
    }

    /// Returns whether a deferral (a temporary failure) at `now` is the last one, after which the
    /// message expires. `last` is the time of the previous recorded deferral. The first deferral
    /// beyond the age limit is never the last one: this host may have been down for days and have
    /// no network yet, or its clock may have jumped.
    pub fn is_expired(&self, arrival: u64, last: u64, now: u64) -> bool {
        self.is_over_age(arrival, last)
            && self.is_over_age(arrival, now)
            && now >= last.saturating_add(self.min.as_secs())
    }

    /// Returns whether a deferral (a temporary failure) at `now` is recorded. `last` is the time of
    /// the previous recorded deferral. Beyond the age limit, a deferral is recorded only if
    /// [`Schedule::min`] has passed since the previous one. Otherwise, frequent attempts would keep
    /// the message from ever expiring.
    pub fn is_recorded(&self, arrival: u64, last: u64, now: u64) -> bool {
        !self.is_over_age(arrival, last) || now < last || now >= last.saturating_add(self.min.as_secs())
    }

    /// Returns whether a message that arrived at `arrival` is beyond the age limit at `time`.
    pub fn is_over_age(&self, arrival: u64, time: u64) -> bool {
        time.saturating_sub(arrival) >= self.expire_after.as_secs()
    }

    /// Returns the time from `now` until an attempt at `due`. If the attempt is further away than
    /// the longest interval, the clock was set back, and the attempt is due now.
    pub fn wait(&self, due: u64, now: u64) -> Duration {
        let wait = Duration::from_secs(due.saturating_sub(now));
        if wait > self.max.max(self.min) { Duration::ZERO } else { wait }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEDULE: Schedule = Schedule {
        min: Duration::from_secs(300),
        max: Duration::from_secs(4 * 3600),
        expire_after: Duration::from_secs(5 * 86400),
    };

    #[test]
    fn intervals_double_from_the_minimum_to_the_maximum() {
        let (mut now, mut waits) = (1_000_000, Vec::new());
        for _ in 0..12 {
            let next = SCHEDULE.next_attempt(1_000_000, now, 0);
            waits.push(next - now);
            now = next;
        }
        assert_eq!(waits, [300, 300, 600, 1200, 2400, 4800, 9600, 14400, 14400, 14400, 14400, 14400]);
    }

    #[test]
    fn the_spread_comes_from_the_seed_and_only_shortens_longer_intervals() {
        let due = |seed| SCHEDULE.next_attempt(0, 4000, seed) - 4000;
        assert_eq!(due(7), due(7));
        assert!((0..5000).all(|seed| (3500..=4000).contains(&due(seed))));
        assert!(due(1) != due(900));
    }

    #[test]
    fn the_first_interval_is_never_shorter_than_the_minimum() {
        let waits = |schedule: Schedule| (0..2048).map(move |seed| schedule.next_attempt(1000, 1001, seed) - 1001);
        assert!(waits(SCHEDULE).all(|wait| (300..=337).contains(&wait)));
        assert!(waits(SCHEDULE).any(|wait| wait > 330));
        // If the maximum leaves no room for the spread, the interval becomes shorter than the
        // minimum.
        let fixed = Schedule { max: SCHEDULE.min, ..SCHEDULE };
        assert!(waits(fixed).all(|wait| (263..=300).contains(&wait)));
    }

    #[test]
    fn a_clock_that_was_set_back_delays_nothing() {
        assert_eq!(SCHEDULE.wait(1_000_000, 999_990), Duration::from_secs(10));
        assert_eq!(SCHEDULE.wait(1_000_000, 500_000), Duration::ZERO);
        assert_eq!(SCHEDULE.wait(10, 500_000), Duration::ZERO);
        assert!(!SCHEDULE.is_expired(1_000_000, 500_000, 500_000));
    }

    #[test]
    fn the_next_attempt_is_not_after_the_deadline() {
        for (start, deadline, last, next) in [
            (1000, None, 1001, 1301),
            (1000, Some(1200), 1001, 1200),
            (1000, Some(1400), 1001, 1301),
            // The message is tried further after the deadline.
            (1000, Some(1200), 1200, 1500),
            (1000, Some(0), 1001, 1301),
            (1000, Some(1200), 0, 0),
            // The intervals begin when the message could first be tried.
            (90_000, None, 90_001, 90_301),
        ] {
            let got = SCHEDULE.next_within(Window { start, deadline }, last, 0);
            assert_eq!(got, next, "{start} {deadline:?} {last}");
        }
    }

    #[test]
    fn a_message_is_not_held_for_more_than_the_maximum() {
        let day = 86_400;
        for (release, now, wait) in [
            (0, 5, 0),
            (5, 5, 0),
            (6, 5, 1),
            (30 * day + 6, 5, 30 * day + 1),
            (31 * day + 5, 5, 31 * day),
            (31 * day + 6, 5, 0),
        ] {
            assert_eq!(wait_for_release(release, now), Duration::from_secs(wait), "{release}");
        }
    }

    #[test]
    fn the_first_deferral_beyond_the_age_limit_is_not_the_last() {
        let (arrival, old) = (1_000_000, 1_000_000 + 5 * 86400);
        for (last, now, is_last, is_recorded) in [
            (0, old, false, true),
            (old - 1, old, false, true),
            // A user has requested these attempts.
            (old, old + 1, false, false),
            (old, old + 299, false, false),
            (old, old + 300, true, true),
            // The clock was ahead at one of the attempts.
            (old, arrival + 60, false, true),
            (arrival + 60, 10 * old, false, true),
        ] {
            assert_eq!(SCHEDULE.is_expired(arrival, last, now), is_last, "{last} {now}");
            assert_eq!(SCHEDULE.is_recorded(arrival, last, now), is_recorded, "{last} {now}");
        }
    }
}

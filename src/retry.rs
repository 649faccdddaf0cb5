//! Computes when a message is tried again, and when it expires.
//!
//! Both times depend only on the message's arrival, its last attempt and its id. No count of
//! attempts is kept, so the queue needs no database. The interval to the next attempt is the age
//! that the message had at the last attempt, but at least a minimum and at most a maximum. So each
//! interval is about twice the one before. If the clock is set back, no message waits longer than
//! the maximum.

use std::time::Duration;

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

    fn is_over_age(&self, arrival: u64, time: u64) -> bool {
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

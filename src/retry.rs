//! When to try again, when to give up.
//!
//! A pure function of when the message came, when it was last tried, and its
//! id: no count of attempts is kept, so the queue needs no database. The
//! interval is the age that the message had at the last attempt, between a
//! least and a greatest one, so that it about doubles each time. A clock that
//! was set back makes nothing wait longer than the greatest interval.

use std::time::Duration;

/// How long to wait, and for how long at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// The first interval.
    pub min: Duration,
    /// The longest interval.
    pub max: Duration,
    /// The age at which a failed attempt is the last.
    pub expire_after: Duration,
}

impl Schedule {
    /// When a message that arrived at `arrival` and was last tried at `last` is
    /// due again; all in seconds since 1970. `last` of zero is never, and due at
    /// once. `seed` spreads messages of one moment over an eighth of the interval: upward from
    /// the least one, which hosts that greylist may insist on, and downward from others.
    pub fn next_attempt(&self, arrival: u64, last: u64, seed: u64) -> u64 {
        if last == 0 {
            return 0;
        }
        let age = last.saturating_sub(arrival);
        let (min, max) = (self.min.as_secs(), self.max.as_secs().max(self.min.as_secs()));
        let interval = age.clamp(min, max);
        let spread = (interval / 8) * (seed % 1024) / 1024;
        // The greatest interval stays the greatest.
        let is_first = interval == min && min + min / 8 <= max;
        last.saturating_add(if is_first { interval + spread } else { interval - spread })
    }

    /// Whether a deferral at `now` is the last one, the one noted before being at `last`.
    /// The first at the age never is: this host may have been down for days and have no
    /// network yet, or its clock may have jumped.
    pub fn is_expired(&self, arrival: u64, last: u64, now: u64) -> bool {
        self.is_old(arrival, last) && self.is_old(arrival, now) && now >= last.saturating_add(self.min.as_secs())
    }

    /// Whether a deferral at `now` is noted: all are, but of several within the first
    /// interval at the age only one, or none would ever be the last.
    pub fn is_noted(&self, arrival: u64, last: u64, now: u64) -> bool {
        !self.is_old(arrival, last) || now < last || now >= last.saturating_add(self.min.as_secs())
    }

    fn is_old(&self, arrival: u64, at: u64) -> bool {
        at.saturating_sub(arrival) >= self.expire_after.as_secs()
    }

    /// What is still to wait at `now` for an attempt at `due`. A time further
    /// away than the longest interval means that the clock was set back: due now.
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
    fn intervals_double_from_the_least_to_the_greatest() {
        let (mut now, mut waits) = (1_000_000, Vec::new());
        for _ in 0..12 {
            let next = SCHEDULE.next_attempt(1_000_000, now, 0);
            waits.push(next - now);
            now = next;
        }
        assert_eq!(waits, [300, 300, 600, 1200, 2400, 4800, 9600, 14400, 14400, 14400, 14400, 14400]);
    }

    #[test]
    fn jitter_comes_from_the_seed_and_only_shortens() {
        let due = |seed| SCHEDULE.next_attempt(0, 4000, seed) - 4000;
        assert_eq!(due(7), due(7));
        assert!((0..5000).all(|seed| (3500..=4000).contains(&due(seed))));
        assert!(due(1) != due(900));
    }

    #[test]
    fn the_first_interval_is_never_shorter_than_the_least() {
        let waits = |schedule: Schedule| (0..2048).map(move |seed| schedule.next_attempt(1000, 1001, seed) - 1001);
        assert!(waits(SCHEDULE).all(|wait| (300..=337).contains(&wait)));
        assert!(waits(SCHEDULE).any(|wait| wait > 330));
        // Where there is no room above it, it is the greatest that counts.
        let fixed = Schedule { max: SCHEDULE.min, ..SCHEDULE };
        assert!(waits(fixed).all(|wait| (263..=300).contains(&wait)));
    }

    #[test]
    fn a_clock_set_back_is_not_waited_for() {
        assert_eq!(SCHEDULE.wait(1_000_000, 999_990), Duration::from_secs(10));
        assert_eq!(SCHEDULE.wait(1_000_000, 500_000), Duration::ZERO);
        assert_eq!(SCHEDULE.wait(10, 500_000), Duration::ZERO);
        assert!(!SCHEDULE.is_expired(1_000_000, 500_000, 500_000));
    }

    #[test]
    fn one_attempt_at_the_age_is_not_the_last() {
        let (arrival, old) = (1_000_000, 1_000_000 + 5 * 86400);
        for (last, now, is_last, is_noted) in [
            (0, old, false, true),
            (old - 1, old, false, true),
            // Somebody cannot wait.
            (old, old + 1, false, false),
            (old, old + 299, false, false),
            (old, old + 300, true, true),
            // The clock was ahead at one of them.
            (old, arrival + 60, false, true),
            (arrival + 60, 10 * old, false, true),
        ] {
            assert_eq!(SCHEDULE.is_expired(arrival, last, now), is_last, "{last} {now}");
            assert_eq!(SCHEDULE.is_noted(arrival, last, now), is_noted, "{last} {now}");
        }
    }
}

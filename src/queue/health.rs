//! What is thought of one destination, and how many jobs it may have running.
//!
//! A destination of which nothing is known gets a few connections. With every attempt that
//! a host there answers it earns one more, up to the limit of the configuration; each one
//! that no host answers halves them, and where nothing is left of them the destination is
//! *down*: its mail is deferred at once, without being tried, until it is time for a probe,
//! and a probe succeeds. A destination that is slow gets few, whatever it earned. Users of
//! this system, whose agents and commands may hang like a host, are treated alike. Pure: the
//! clock is an argument.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::destination::Destination;
use crate::endpoint::Endpoint;
use crate::outcome::Outcome;
use crate::timeouts::Trust;

/// Connections to a destination of which nothing is known.
pub const UNPROVEN: usize = 4;
/// Connections once its first attempt was answered.
const FIRST: usize = 8;
/// Connections to one that is slow.
const SLOW: usize = 4;
/// From the first failure until the first probe; this doubles with each probe that fails.
const FIRST_QUIET: Duration = Duration::from_secs(5);
/// The longest time between two probes.
const MAX_QUIET: Duration = Duration::from_secs(75);

/// What is thought of a destination.
#[derive(Debug, Default)]
pub enum Health {
    /// Nothing is known.
    #[default]
    Fresh,
    /// It answers; so many jobs may run.
    Proven(usize),
    /// It takes its time.
    Slow,
    /// Nobody answers.
    Down(Arc<Down>),
}

/// Since when nobody answers.
#[derive(Debug, Clone)]
pub struct Down {
    /// Since then.
    pub since: Instant,
    /// No probe is made before.
    pub next_probe: Instant,
    /// What the last attempt led to.
    pub why: Outcome,
    /// How many attempts have failed since.
    probes: u32,
}

impl Down {
    /// What becomes of mail that is not tried because of it.
    pub fn outcome(&self) -> Outcome {
        let minutes = self.since.elapsed().as_secs() / 60;
        let why = format!("not tried: the destination has been down for {minutes} min: {}", self.why.why);
        Outcome { why, reply: None, ..self.why.clone() }
    }
}

/// What is known of a destination for people to read, in [`crate::queue::Event::Hosts`].
#[derive(Debug, Clone)]
pub struct DestinationStatus {
    /// The destination.
    pub destination: Arc<Destination>,
    /// The address that was used last.
    pub address: Option<Endpoint>,
    /// `new`, `up`, `slow` or `down`.
    pub state: &'static str,
    /// Jobs that run.
    pub running: usize,
    /// Jobs that may run at once now.
    pub limit: usize,
    /// Jobs that are ready to run.
    pub ready: usize,
    /// For how long it has been down, and how long until a probe may be made.
    pub down: Option<(Duration, Duration)>,
    /// What was said last, if that was no success.
    pub said: Option<Box<Outcome>>,
}

impl Health {
    /// A host answered, and the attempt took so long.
    pub fn answered(&mut self, is_slow: bool, most: usize) {
        *self = match self {
            _ if is_slow => Self::Slow,
            Self::Proven(window) => Self::Proven((*window + 1).min(most)),
            Self::Fresh | Self::Slow | Self::Down(_) => Self::Proven(FIRST.min(most)),
        };
    }

    /// No host answered, while so many other jobs run. Whether it is down now and was not
    /// before: a host that takes no more than what runs is not down.
    pub fn failed(&mut self, why: Outcome, running: usize, longest_quiet: Duration, now: Instant) -> bool {
        let (since, probes, was_up) = match self {
            Self::Proven(window) if *window > 1 || running > 0 => {
                *window = (*window / 2).max(1);
                return false;
            }
            Self::Down(down) => (down.since, down.probes.saturating_add(1), false),
            Self::Fresh | Self::Slow | Self::Proven(_) => (now, 0, true),
        };
        let quiet = FIRST_QUIET.saturating_mul(1 << probes.min(10)).min(MAX_QUIET).min(longest_quiet);
        *self = Self::Down(Arc::new(Down { since, next_probe: now + quiet, why, probes }));
        was_up
    }

    /// It is slow from now on; what is down stays so.
    pub fn slow_down(&mut self) {
        if !matches!(self, Self::Down(_)) {
            *self = Self::Slow;
        }
    }

    /// Nothing bad is thought of it any more.
    pub fn clear_failures(&mut self) {
        if matches!(self, Self::Slow | Self::Down(_)) {
            *self = Self::Fresh;
        }
    }

    /// How many jobs may run at once, at most `most`.
    pub fn limit(&self, most: usize) -> usize {
        match self {
            Self::Fresh => UNPROVEN.min(most),
            Self::Proven(window) => (*window).clamp(1, most),
            Self::Slow => SLOW.min(most),
            // The probe.
            Self::Down(_) => 1,
        }
    }

    /// How patient a job is with it.
    pub fn trust(&self) -> Trust {
        match self {
            Self::Fresh => Trust::Unproven,
            Self::Proven(_) => Trust::Proven,
            Self::Slow | Self::Down(_) => Trust::Slow,
        }
    }

    /// In a word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Fresh => "new",
            Self::Proven(_) => "up",
            Self::Slow => "slow",
            Self::Down(_) => "down",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::Status;

    const LONG: Duration = Duration::from_secs(3600);

    fn silence() -> Outcome {
        Outcome::deferred(Status(4, 4, 1), "timed out while connecting")
    }

    #[test]
    fn connections_are_earned_one_by_one_and_lost_by_halves() {
        let mut health = Health::default();
        let mut limits = vec![health.limit(20)];
        for _ in 0..15 {
            health.answered(false, 20);
            limits.push(health.limit(20));
        }
        assert_eq!(limits, [4, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 20, 20]);
        let now = Instant::now();
        let lost: Vec<_> = (0..5).map(|_| (health.failed(silence(), 0, LONG, now), health.limit(20))).collect();
        assert_eq!(lost, [(false, 10), (false, 5), (false, 2), (false, 1), (true, 1)]);
        assert!(matches!(health, Health::Down(_)));
        let mut busy = Health::Proven(4);
        let lost: Vec<_> = (0..4).map(|_| (busy.failed(silence(), 2, LONG, now), busy.limit(20))).collect();
        assert_eq!(lost, [(false, 2), (false, 1), (false, 1), (false, 1)]);
        assert_eq!(Health::default().limit(1), 1);
    }

    #[test]
    fn probes_of_one_that_is_down_become_rarer_up_to_a_bound() {
        let (mut health, now) = (Health::default(), Instant::now());
        let mut quiet = |longest| {
            health.failed(silence(), 0, longest, now);
            let Health::Down(down) = &health else { panic!("{health:?}") };
            assert_eq!(down.since, now);
            (down.next_probe - now).as_secs()
        };
        assert_eq!([LONG; 7].map(&mut quiet), [5, 10, 20, 40, 75, 75, 75]);
        assert_eq!(quiet(Duration::from_secs(1)), 1);
        health.answered(false, 20);
        assert_eq!(health.limit(20), FIRST);
    }

    #[test]
    fn a_slow_one_gets_few_connections_until_it_is_quick() {
        let mut health = Health::Proven(20);
        health.slow_down();
        assert_eq!((health.limit(20), health.trust()), (SLOW, Trust::Slow));
        health.answered(true, 20);
        assert_eq!(health.limit(20), SLOW);
        health.answered(false, 20);
        assert_eq!((health.limit(20), health.trust()), (FIRST, Trust::Proven));
    }
}

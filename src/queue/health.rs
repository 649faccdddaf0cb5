//! Decides for the queue how many jobs of one destination may run at the same time, by the
//! destination's health.
//!
//! A destination about which nothing is known gets a few connections. After a host has answered,
//! the destination gets more: one more with every further answer, up to the limit of the
//! configuration. Each attempt that no host answers halves the number. If the number is one, or if
//! no host has answered before, such an attempt brings the destination *down*: its mail is deferred
//! at once without an attempt, until a probe (a single job that is tried) succeeds. A slow
//! destination gets few connections, whatever number it had reached. A system user is a
//! destination, too, because the programs that deliver the user's mail may hang just like a host.
//! The functions of [`Health`] do not read the clock, but get the time from their callers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::destination::Destination;
use crate::endpoint::Endpoint;
use crate::outcome::{Encryption, Outcome};
use crate::outgoing::Reason;
use crate::timeouts::Trust;

/// The maximum number of connections to a destination about which nothing is known.
pub const UNPROVEN: usize = 4;
/// The maximum number of connections to a destination that has just answered and was unknown, slow
/// or down before.
const FIRST_PROVEN: usize = 8;
/// The maximum number of connections to a slow destination.
const SLOW: usize = 4;
/// The time from the first failure until the first probe. With each failed probe the time until the
/// next one doubles.
const FIRST_PROBE_AFTER: Duration = Duration::from_secs(5);
/// The maximum time between two probes.
const MAX_PROBE_INTERVAL: Duration = Duration::from_secs(75);

/// The maximum number of domains that are remembered of a destination that is named after its hosts.
const MAX_DOMAINS: usize = 4;

/// The beginning of the reason why mail was not tried, before a time and a cause.
pub const NOT_TRIED: &str = "not tried: the destination has been down for ";

/// The health of a destination.
#[derive(Debug, Default)]
pub enum Health {
    /// Nothing is known about the destination.
    #[default]
    Unknown,
    /// A host has answered lately. At most this many jobs may run.
    Proven(usize),
    /// The last job took long.
    Slow,
    /// No host answers.
    Down(Arc<Down>),
}

/// A destination that is down.
#[derive(Debug, Clone)]
pub struct Down {
    /// The time of the failure that brought the destination down.
    pub since: Instant,
    /// The time of the next probe.
    pub next_probe: Instant,
    /// The outcome of the last attempt.
    pub why: Outcome,
    /// The number of probes that have failed since the destination went down.
    probes: u32,
}

impl Down {
    /// Returns the outcome for mail that is deferred without an attempt.
    pub fn outcome(&self) -> Outcome {
        let time = match self.since.elapsed().as_secs() {
            seconds @ 0..60 => format!("{seconds} s"),
            seconds => format!("{} min", seconds / 60),
        };
        let why = format!("{NOT_TRIED}{time}: {}", self.why.why);
        Outcome { why, reply: None, ..self.why.clone() }
    }
}

/// The status of a destination, the answer to [`crate::queue::Event::Hosts`].
#[derive(Debug, Clone)]
pub struct DestinationStatus {
    /// The destination whose status this is.
    pub destination: Arc<Destination>,
    /// The address of the last connection; `None` if there was none.
    pub address: Option<Endpoint>,
    /// `new`, `up`, `slow` or `down`.
    pub state: &'static str,
    /// The number of running jobs.
    pub running: usize,
    /// The maximum number of running jobs now.
    pub limit: usize,
    /// The number of ready jobs.
    pub ready: usize,
    /// If the destination is down, the time since it went down and the time until the next probe.
    pub down: Option<(Duration, Duration)>,
    /// If the limits of the destination let no job start now, the time until one can start, and the
    /// limit.
    pub paced: Option<(Duration, Reason)>,
    /// Why the last attempt did not deliver to all of its recipients; `None` if it did, or if there
    /// was no attempt.
    pub last_failure: Option<Box<Outcome>>,
    /// The encryption of the last connection to a host that has answered.
    pub tls: Encryption,
    /// The latest domains of recipients, if the destination is named after its hosts.
    pub domains: LatestDomains,
}

/// The latest domains whose mail went to a destination.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LatestDomains {
    /// The domains, the latest one last.
    pub names: Vec<Arc<str>>,
    /// Whether there were more.
    pub more: bool,
}

impl LatestDomains {
    /// Adds the domain of a recipient.
    pub fn add(&mut self, domain: &Arc<str>) {
        let names = &mut self.names;
        if names.last() == Some(domain) {
            return;
        }
        if let Some(at) = names.iter().position(|name| name == domain) {
            names.remove(at);
        } else if names.len() == MAX_DOMAINS {
            names.remove(0);
            self.more = true;
        }
        names.push(Arc::clone(domain));
    }
}

impl Health {
    /// Records that a host has answered an attempt. `is_slow` is whether the attempt took long.
    pub fn answered(&mut self, is_slow: bool, max_jobs: usize) {
        *self = match self {
            _ if is_slow => Self::Slow,
            Self::Proven(window) => Self::Proven((*window + 1).min(max_jobs)),
            Self::Unknown | Self::Slow | Self::Down(_) => Self::Proven(FIRST_PROVEN.min(max_jobs)),
        };
    }

    /// Records that no host has answered an attempt, while `running` other jobs of the destination
    /// were running. Returns whether the destination has just gone down. A proven destination with
    /// running jobs does not go down, because perhaps its host accepts the running jobs, and merely
    /// refuses further connections.
    pub fn failed(&mut self, why: Outcome, running: usize, max_probe_interval: Duration, now: Instant) -> bool {
        let (since, probes, was_up) = match self {
            Self::Proven(window) if *window > 1 || running > 0 => {
                *window = (*window / 2).max(1);
                return false;
            }
            Self::Down(down) => (down.since, down.probes.saturating_add(1), false),
            Self::Unknown | Self::Slow | Self::Proven(_) => (now, 0, true),
        };
        let until_probe =
            FIRST_PROBE_AFTER.saturating_mul(1 << probes.min(10)).min(MAX_PROBE_INTERVAL).min(max_probe_interval);
        *self = Self::Down(Arc::new(Down { since, next_probe: now + until_probe, why, probes }));
        was_up
    }

    /// Records that the destination is slow, unless it is down.
    pub fn slow_down(&mut self) {
        if !matches!(self, Self::Down(_)) {
            *self = Self::Slow;
        }
    }

    /// Forgets that the destination was slow or down.
    pub fn clear_failures(&mut self) {
        if matches!(self, Self::Slow | Self::Down(_)) {
            *self = Self::Unknown;
        }
    }

    /// Returns how many jobs of the destination may run now. The result is at most `max_jobs`.
    pub fn limit(&self, max_jobs: usize) -> usize {
        match self {
            Self::Unknown => UNPROVEN.min(max_jobs),
            Self::Proven(window) => (*window).clamp(1, max_jobs),
            Self::Slow => SLOW.min(max_jobs),
            // While the destination is down, only one job may run: the probe.
            Self::Down(_) => 1,
        }
    }

    /// Returns the trust in the destination for a new job, which decides the timeouts of its hosts.
    pub fn trust(&self) -> Trust {
        match self {
            Self::Unknown => Trust::Unproven,
            Self::Proven(_) => Trust::Proven,
            Self::Slow | Self::Down(_) => Trust::Slow,
        }
    }

    /// Returns the word for the health in listings.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Unknown => "new",
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
    fn each_answer_earns_a_connection_and_each_failure_halves_them() {
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
    fn probes_become_rarer_up_to_a_limit() {
        let (mut health, now) = (Health::default(), Instant::now());
        let mut until_probe = |longest| {
            health.failed(silence(), 0, longest, now);
            let Health::Down(down) = &health else { panic!("{health:?}") };
            assert_eq!(down.since, now);
            (down.next_probe - now).as_secs()
        };
        assert_eq!([LONG; 7].map(&mut until_probe), [5, 10, 20, 40, 75, 75, 75]);
        assert_eq!(until_probe(Duration::from_secs(1)), 1);
        health.answered(false, 20);
        assert_eq!(health.limit(20), FIRST_PROVEN);
    }

    #[test]
    fn a_slow_destination_gets_few_connections_until_it_is_fast() {
        let mut health = Health::Proven(20);
        health.slow_down();
        assert_eq!((health.limit(20), health.trust()), (SLOW, Trust::Slow));
        health.answered(true, 20);
        assert_eq!(health.limit(20), SLOW);
        health.answered(false, 20);
        assert_eq!((health.limit(20), health.trust()), (FIRST_PROVEN, Trust::Proven));
    }
    #[test]
    fn the_latest_domains_are_remembered() {
        let mut domains = LatestDomains::default();
        for name in ["a", "b", "a", "c", "c", "d"] {
            domains.add(&name.into());
        }
        let names = |domains: &LatestDomains| domains.names.join(" ");
        assert_eq!((names(&domains), domains.more), ("b a c d".into(), false));
        domains.add(&"e".into());
        assert_eq!((names(&domains), domains.more), ("a c d e".into(), true));
    }
}

//! Shortens the timeouts of workers for slow hosts and for unproven hosts, about which nothing is
//! known yet.
//!
//! RFC 5321 4.5.3.2 grants a host minutes for every step of a dialogue, and so does penfold while
//! workers are idle. If silent hosts occupy workers while other mail waits for a worker, the queue
//! shortens the timeouts. A worker that waits for a silent host notices the change within
//! [`POLL_INTERVAL`]. Once the end of a message has been sent, no timeout is shortened, because the
//! host may have accepted the message. The state is two atomics, so nothing here blocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The interval at which a waiting worker checks whether its timeout was shortened.
pub const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// What is known about the hosts of a destination when the queue starts a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// A host of the destination has answered lately, and not slowly.
    Proven,
    /// Nothing is known about the destination.
    Unproven,
    /// The destination was slow or down at the last attempt.
    Slow,
}

/// How long unproven and slow hosts may be silent in each step of a dialogue, in milliseconds. 0
/// means that the timeouts of RFC 5321 apply.
#[derive(Debug, Default)]
pub struct HostTimeouts {
    unproven: AtomicU32,
    slow: AtomicU32,
}

impl HostTimeouts {
    /// Sets how long unproven and slow hosts may be silent. `None` means that the timeouts of RFC
    /// 5321 apply.
    pub fn set(&self, unproven: Option<Duration>, slow: Option<Duration>) {
        let millis = |limit: Option<Duration>| limit.map_or(0, |l| u32::try_from(l.as_millis()).unwrap_or(u32::MAX));
        self.unproven.store(millis(unproven), Ordering::Relaxed);
        self.slow.store(millis(slow), Ordering::Relaxed);
    }
}

/// The timeout for one host, which the queue may shorten while a worker waits for the host.
#[derive(Debug, Clone)]
pub struct HostTimeout {
    timeouts: Arc<HostTimeouts>,
    trust: Trust,
}

impl HostTimeout {
    /// Returns the timeout for a host of a destination with this trust. Returns `None` if the
    /// destination is proven, because the timeouts of RFC 5321 then apply.
    pub fn new(timeouts: &Arc<HostTimeouts>, trust: Trust) -> Option<Self> {
        (trust != Trust::Proven).then(|| Self { timeouts: Arc::clone(timeouts), trust })
    }

    /// Returns how long the host may be silent in the current step. Returns `None` if the timeouts
    /// of RFC 5321 apply now.
    pub fn limit(&self) -> Option<Duration> {
        let limit = match self.trust {
            Trust::Proven => return None,
            Trust::Unproven => &self.timeouts.unproven,
            Trust::Slow => &self.timeouts.slow,
        };
        Some(limit.load(Ordering::Relaxed))
            .filter(|&millis| millis > 0)
            .map(|millis| Duration::from_millis(millis.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_standing_has_its_own_limit_and_a_proven_host_has_none() {
        let timeouts = Arc::new(HostTimeouts::default());
        let limit = |trust| HostTimeout::new(&timeouts, trust).and_then(|host_timeout| host_timeout.limit());
        assert_eq!([Trust::Proven, Trust::Unproven, Trust::Slow].map(limit), [None; 3]);
        timeouts.set(Some(Duration::from_secs(2)), Some(Duration::from_secs(30)));
        assert_eq!(limit(Trust::Proven), None);
        assert_eq!(limit(Trust::Unproven), Some(Duration::from_secs(2)));
        assert_eq!(limit(Trust::Slow), Some(Duration::from_secs(30)));
        timeouts.set(None, None);
        assert_eq!(limit(Trust::Unproven), None);
    }
}

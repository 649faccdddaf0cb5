//! Shortened timeouts for unproven and slow hosts.
//!
//! RFC 5321 4.5.3.2 grants minutes to every step of a dialogue, and so does penfold while
//! workers are idle. When other mail waits for workers that silent hosts occupy, the queue
//! shortens the timeouts here, and a worker that waits for such a host notices within
//! [`POLL_INTERVAL`]. No timeout is shortened once the end of a message has been sent, since the
//! host may have accepted it. The state is two atomics: nothing here blocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The interval at which a waiting worker checks whether its timeout was shortened.
pub const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The standing of a destination when the queue starts a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// A host has answered lately, and not slowly.
    Proven,
    /// Nothing is known about the destination.
    Unproven,
    /// The destination was slow or down at the last attempt.
    Slow,
}

/// The maximum silence in each step of a dialogue, in milliseconds; 0 means that the timeouts of
/// RFC 5321 apply.
#[derive(Debug, Default)]
pub struct HostTimeouts {
    unproven: AtomicU32,
    slow: AtomicU32,
}

impl HostTimeouts {
    /// Sets the maximum silence of unproven and of slow hosts. If it is `None`, the timeouts of RFC
    /// 5321 apply.
    pub fn set(&self, unproven: Option<Duration>, slow: Option<Duration>) {
        let millis = |limit: Option<Duration>| limit.map_or(0, |l| u32::try_from(l.as_millis()).unwrap_or(u32::MAX));
        self.unproven.store(millis(unproven), Ordering::Relaxed);
        self.slow.store(millis(slow), Ordering::Relaxed);
    }
}

/// The timeout for one host.
#[derive(Debug, Clone)]
pub struct HostTimeout {
    timeouts: Arc<HostTimeouts>,
    trust: Trust,
}

impl HostTimeout {
    /// The timeout for a host of a destination with this standing. Returns `None` if the
    /// destination is proven.
    pub fn new(timeouts: &Arc<HostTimeouts>, trust: Trust) -> Option<Self> {
        (trust != Trust::Proven).then(|| Self { timeouts: Arc::clone(timeouts), trust })
    }

    /// The maximum silence in the current step, if it is limited now.
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

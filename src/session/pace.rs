//! The time limits of a message while it arrives.

use std::time::{Duration, Instant};

use crate::config::Limits;

/// The lowest rate at which a message may arrive, in octets per second.
const MIN_RATE: u64 = 1 << 10;

/// The time limits of a message. The whole message may take `limits.data_timeout` plus the time
/// that its octets take at [`MIN_RATE`]; octets beyond the size limit add no time. Each pause may
/// take `limits.command_timeout`.
#[derive(Debug)]
pub struct Pace {
    started: Instant,
    /// The time limit for a pause between two pieces of the text.
    pause: Duration,
    timeout: Duration,
    limit: u64,
    /// The deadline for the rest of a message that exceeds the size limit. Further octets do not
    /// extend the deadline.
    end: Option<Instant>,
}

impl Pace {
    /// The limits of a message that begins now.
    pub fn new(limits: &Limits) -> Self {
        let (pause, timeout, limit) = (limits.command_timeout, limits.data_timeout, limits.message_size);
        Self { started: Instant::now(), pause, timeout, limit, end: None }
    }

    /// The deadline for the next piece of the text, after `size` octets have arrived.
    pub fn deadline(&mut self, size: u64, now: Instant) -> Instant {
        let earned = Duration::from_millis(size.min(self.limit) * 1000 / MIN_RATE);
        let deadline = self.started + self.timeout + earned;
        if size > self.limit {
            self.end.get_or_insert(now + self.timeout);
        }
        deadline.min(self.end.unwrap_or(deadline)).min(now + self.pause)
    }
}

//! What a client was refused, what it did that leads to nothing, and how much of that the
//! log has.
//!
//! A session has a few lines of the log for refusals, and one for all others, so that
//! nobody fills it. A client that may not relay is sent away after as many refusals of a
//! kind as no well-made one gets, also of those that are for now, and does not keep its
//! place by commands without mail. A message that is accepted begins the counts anew, but
//! for those of mistakes and of mail that is not wanted.

use std::time::{Duration, Instant};

use crate::smtp::{MAX_ERRORS, MAX_IDLE_COMMANDS, MAX_REFUSALS};

/// Refusals of which each has a line of the log.
const MAX_LINES: usize = 20;
/// How long a client that may not relay keeps its place without a message.
const MAX_IDLE: Duration = Duration::from_secs(60 * 60);

/// The counts of one session.
#[derive(Debug)]
pub struct Tally {
    mistakes: usize,
    refusals: usize,
    /// Refusals for now.
    deferrals: usize,
    idle_commands: usize,
    /// When the last message was accepted, or the session began.
    since: Instant,
    lines: usize,
    unlogged: usize,
}

/// Why a session has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Errors,
    Idle,
}

impl Tally {
    /// Nothing yet.
    pub fn new() -> Self {
        let since = Instant::now();
        Self { mistakes: 0, refusals: 0, deferrals: 0, idle_commands: 0, since, lines: 0, unlogged: 0 }
    }

    /// Counts a reply; whether it is to be logged.
    pub fn count(&mut self, code: u16) -> bool {
        match code {
            ..400 => return false,
            400..500 => self.deferrals += 1,
            500..505 | 555 => self.mistakes += 1,
            _ => self.refusals += 1,
        }
        let is_logged = self.lines < MAX_LINES;
        self.lines += usize::from(is_logged);
        self.unlogged += usize::from(!is_logged);
        is_logged
    }

    /// Whether there is a line of the log left for another refusal.
    pub fn has_line(&self) -> bool {
        self.lines < MAX_LINES
    }

    /// Counts a command that leads to no mail.
    pub fn count_idle(&mut self) {
        self.idle_commands += 1;
    }

    /// A message was accepted.
    pub fn begin_anew(&mut self) {
        (self.deferrals, self.idle_commands, self.since, self.lines) = (0, 0, Instant::now(), 0);
    }

    /// The refusals that were not logged, once.
    pub fn unlogged(&mut self) -> usize {
        std::mem::take(&mut self.unlogged)
    }

    /// Whether the session has to end. `recipients` is how many a message may have: so many
    /// may be refused at once for now.
    pub fn end(&self, may_relay: bool, recipients: usize) -> Option<End> {
        if self.mistakes >= MAX_ERRORS {
            return Some(End::Errors);
        }
        // A list server with many dead members is to be refused them one by one, and a client
        // that keeps a connection asks whether it is good.
        if may_relay {
            return None;
        }
        if self.refusals >= MAX_REFUSALS || self.deferrals >= MAX_REFUSALS.max(recipients) {
            return Some(End::Errors);
        }
        let is_idle = self.idle_commands >= MAX_IDLE_COMMANDS || self.since.elapsed() >= MAX_IDLE;
        is_idle.then_some(End::Idle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_are_borne_for_a_while() {
        for (code, times, may_relay, end) in [
            (250, 5000, false, None),
            (500, 9, true, None),
            (500, 10, true, Some(End::Errors)),
            (550, 99, false, None),
            (550, 100, false, Some(End::Errors)),
            (550, 5000, true, None),
            (452, 999, false, None),
            (452, 1000, false, Some(End::Errors)),
            (452, 5000, true, None),
        ] {
            let mut tally = Tally::new();
            let logged = (0..times).filter(|_| tally.count(code)).count();
            assert!(logged <= MAX_LINES, "{code}");
            assert_eq!(tally.end(may_relay, 1000), end, "{times} times {code}");
            let refused = if code < 400 { 0 } else { times };
            assert_eq!(tally.unlogged() + logged, refused, "{times} times {code}");
        }
        let mut tally = Tally::new();
        (0..MAX_IDLE_COMMANDS).for_each(|_| tally.count_idle());
        assert_eq!((tally.end(false, 1), tally.end(true, 1)), (Some(End::Idle), None));
        tally.begin_anew();
        assert_eq!(tally.end(false, 1), None);
    }
}

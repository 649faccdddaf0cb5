//! Counts the errors of one session, its refusals, its commands that lead to no message, and the
//! refusals that were logged.
//!
//! The first refusals are logged on a line each. Of the others only the number is logged, so that
//! no client can fill the log. An accepted message resets the counts, except those of errors and
//! permanent refusals. [`abuse`] decides at which counts a session ends.

use std::time::Instant;

use crate::policy::Facts;
use crate::policy::abuse::{self, Counts, End};

/// The maximum number of refusals that are logged on a line each.
const MAX_LINES: usize = 20;

/// The counts of one session.
#[derive(Debug)]
pub struct Tally {
    counts: Counts,
    /// The time of the last accepted message, or of the start of the session.
    since: Instant,
    lines: usize,
    unlogged: usize,
}

impl Tally {
    /// The tally of a new session.
    pub fn new() -> Self {
        Self { counts: Counts::default(), since: Instant::now(), lines: 0, unlogged: 0 }
    }

    /// Counts a reply by its code. Returns whether the reply is a refusal that has to be logged.
    pub fn count(&mut self, code: u16) -> bool {
        match code {
            ..400 => return false,
            400..500 => self.counts.deferrals += 1,
            500..505 | 555 => self.counts.errors += 1,
            _ => self.counts.refusals += 1,
        }
        let is_logged = self.has_line();
        self.lines += usize::from(is_logged);
        self.unlogged += usize::from(!is_logged);
        is_logged
    }

    /// Whether another refusal may be logged.
    pub fn has_line(&self) -> bool {
        self.lines < MAX_LINES
    }

    /// Counts a command that does not lead to a message.
    pub fn count_idle(&mut self) {
        self.counts.idle_commands += 1;
    }

    /// Resets the counts after an accepted message.
    pub fn reset(&mut self) {
        (self.counts.deferrals, self.counts.idle_commands) = (0, 0);
        (self.since, self.lines) = (Instant::now(), 0);
    }

    /// Returns and resets the number of refusals that were not logged.
    pub fn take_unlogged(&mut self) -> usize {
        std::mem::take(&mut self.unlogged)
    }

    /// Why the session has to end; `None` if it may go on.
    pub fn end(&self, facts: &Facts<'_>, max_recipients: usize) -> Option<End> {
        let counts = Counts { idle_time: self.since.elapsed(), ..self.counts };
        abuse::check(facts, &counts, max_recipients)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::MAX_IDLE_COMMANDS;

    #[test]
    fn replies_are_counted_by_their_code_and_logged_up_to_a_limit() {
        for (code, want) in [
            (250, Counts::default()),
            (450, Counts { deferrals: 5000, ..Counts::default() }),
            (500, Counts { errors: 5000, ..Counts::default() }),
            (504, Counts { errors: 5000, ..Counts::default() }),
            (555, Counts { errors: 5000, ..Counts::default() }),
            (550, Counts { refusals: 5000, ..Counts::default() }),
        ] {
            let mut tally = Tally::new();
            let logged = (0..5000).filter(|_| tally.count(code)).count();
            assert!(logged <= MAX_LINES, "{code}");
            assert_eq!(tally.counts, want, "{code}");
            let refused = if code < 400 { 0 } else { 5000 };
            assert_eq!((tally.take_unlogged() + logged, tally.take_unlogged()), (refused, 0), "{code}");
        }
    }

    #[test]
    fn an_accepted_message_resets_deferrals_and_idle_commands() {
        let mut tally = Tally::new();
        (0..MAX_IDLE_COMMANDS).for_each(|_| tally.count_idle());
        [450, 550, 500].into_iter().for_each(|code| _ = tally.count(code));
        tally.reset();
        let want = Counts { errors: 1, refusals: 1, ..Counts::default() };
        assert_eq!((tally.counts, tally.has_line()), (want, true));
    }
}

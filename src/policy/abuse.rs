//! Decides when a session must end because its client causes too many errors or refusals, or sends
//! no mail.

use std::time::Duration;

use super::Facts;
use crate::smtp::{MAX_ERRORS, MAX_IDLE_COMMANDS, MAX_REFUSALS};

/// The longest time from one accepted message to the next, for a client that may not relay.
pub const MAX_IDLE: Duration = Duration::from_secs(60 * 60);

/// The counts of a session that show whether its client abuses the server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// The number of commands that were unknown, malformed or out of order.
    pub errors: usize,
    /// The number of permanent refusals.
    pub refusals: usize,
    /// The number of temporary refusals since the last accepted message.
    pub deferrals: usize,
    /// The number of commands that do not lead to a message, since the last accepted message.
    pub idle_commands: usize,
    /// The time since the last accepted message or, before the first one, since the start of the
    /// session.
    pub idle_time: Duration,
}

/// The reason why a session has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The client made too many errors, or was refused too often.
    Errors,
    /// The client sent too many commands, or took too much time, without sending a message.
    Idle,
}

/// Returns the reason why a session has to end; `None` means that the session may go on.
///
/// For a client that may relay, only errors count: a list server must be told about all its invalid
/// addresses, and a mail program may keep a connection open with NOOP. For any other client, at
/// least `max_recipients` temporary refusals are allowed, because one message may cause that many.
pub fn check(facts: &Facts<'_>, counts: &Counts, max_recipients: usize) -> Option<End> {
    if counts.errors >= MAX_ERRORS {
        return Some(End::Errors);
    }
    if facts.may_relay() {
        return None;
    }
    if counts.refusals >= MAX_REFUSALS || counts.deferrals >= MAX_REFUSALS.max(max_recipients) {
        return Some(End::Errors);
    }
    let is_idle = counts.idle_commands >= MAX_IDLE_COMMANDS || counts.idle_time >= MAX_IDLE;
    is_idle.then_some(End::Idle)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{STRANGER, TRUSTED, USER};
    use super::*;

    #[test]
    fn each_count_has_its_limit() {
        let none = Counts::default();
        let (errors, refusals) = (Counts { errors: MAX_ERRORS, ..none }, Counts { refusals: MAX_REFUSALS, ..none });
        let deferrals = |deferrals| Counts { deferrals, ..none };
        for (counts, max_recipients, stranger, friend) in [
            (none, 1000, None, None),
            (Counts { errors: MAX_ERRORS - 1, ..none }, 1000, None, None),
            (errors, 1000, Some(End::Errors), Some(End::Errors)),
            (Counts { refusals: MAX_REFUSALS - 1, ..none }, 1000, None, None),
            (refusals, 1000, Some(End::Errors), None),
            (deferrals(999), 1000, None, None),
            (deferrals(1000), 1000, Some(End::Errors), None),
            (deferrals(MAX_REFUSALS - 1), 1, None, None),
            (deferrals(MAX_REFUSALS), 1, Some(End::Errors), None),
            (Counts { idle_commands: MAX_IDLE_COMMANDS, ..none }, 1000, Some(End::Idle), None),
            (Counts { idle_time: MAX_IDLE, ..none }, 1000, Some(End::Idle), None),
        ] {
            for (facts, want) in [(STRANGER, stranger), (TRUSTED, friend), (USER, friend)] {
                assert_eq!(check(&facts, &counts, max_recipients), want, "{facts:?} {counts:?}");
            }
        }
    }
}

//! Returns a message that was not delivered by the deadline that its sender has set (DELIVERBY with
//! the mode R, RFC 2852 4.1.3).
//!
//! The queue starts an attempt at the deadline (see [`Schedule::next_within`]). That attempt, and
//! any later one, fails without a delivery. A message with the mode N is tried further, and its
//! sender gets a report about the delay.
//!
//! [`Schedule::next_within`]: crate::retry::Schedule::next_within

use super::Attempt;
use crate::envelope::{ByMode, DeliverBy};
use crate::log;
use crate::outcome::{Outcome, Via};
use crate::reply::Status;
use crate::spool::{RecipientEntry, State};

impl Attempt<'_> {
    /// Returns the outcome for the recipients if the message must not be delivered any more. If a
    /// crash has interrupted a delivery to one of them, only an attempt can find out how it ended.
    pub(super) fn expired(&self, addressees: &[RecipientEntry]) -> Option<Outcome> {
        if addressees.iter().any(|to| to.record.state != State::Todo) {
            return None;
        }
        expired(self.entry.options().deliver_by, self.now)
    }

    /// Whether the message is older than the time after which messages expire.
    pub(super) fn is_over_age(&self) -> bool {
        self.settings.config.queue.schedule().is_over_age(self.entry.window().start, self.now)
    }

    /// Whether the deadline of a message with the mode N has passed.
    pub(super) fn is_overdue(&self) -> bool {
        let by = self.entry.options().deliver_by;
        by.is_some_and(|by| by.mode == ByMode::Notify && i128::from(by.deadline) <= i128::from(self.now))
    }

    /// Returns the outcome of an attempt as a report about a delay states it: the status of a message
    /// that has missed its deadline is 4.4.7 (RFC 2852 4.1.3).
    pub(super) fn delayed(&self, outcome: &Outcome) -> Outcome {
        let status = if self.is_overdue() { Status(4, 4, 7) } else { outcome.status };
        Outcome { status, ..outcome.clone() }
    }

    /// Whether the sender gets a report because another host has accepted the message: with the
    /// flag T always, and with the mode N if that host does not know the deadline (RFC 2852 4.1.4).
    pub(super) fn is_traced(&self, outcome: &Outcome) -> bool {
        is_traced(self.entry.options().deliver_by, outcome, self.now)
    }
}

fn expired(by: Option<DeliverBy>, now: u64) -> Option<Outcome> {
    let by = by.filter(|by| by.mode == ByMode::Return && i128::from(by.deadline) <= i128::from(now))?;
    let deadline = log::timestamp(by.deadline.try_into().unwrap_or(0));
    let why = format!("the message was to be delivered by {deadline} and not later, and that time has passed");
    Some(Outcome::failed(Status(5, 4, 7), why))
}

fn is_traced(by: Option<DeliverBy>, outcome: &Outcome, now: u64) -> bool {
    let is_unknown_there = |by: DeliverBy| {
        by.mode == ByMode::Notify && !outcome.has_deliver_by && i128::from(by.deadline) > i128::from(now)
    };
    outcome.via == Some(Via::Smtp) && by.is_some_and(|by| by.trace || is_unknown_there(by))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sender_learns_where_the_message_goes() {
        use ByMode::{Notify, Return};
        for (mode, trace, deadline, has_deliver_by, via, is_reported) in [
            (Notify, false, 9, false, Via::Smtp, true),
            (Notify, false, 9, true, Via::Smtp, false),
            (Notify, false, 5, false, Via::Smtp, false),
            (Notify, true, 5, false, Via::Smtp, true),
            (Notify, true, 9, true, Via::Smtp, true),
            (Return, true, 9, true, Via::Smtp, true),
            (Return, false, 9, true, Via::Smtp, false),
            (Notify, true, 9, false, Via::Maildir, false),
            (Notify, true, 9, false, Via::Lmtp, false),
        ] {
            let by = Some(DeliverBy { deadline, mode, trace });
            let outcome = Outcome { has_deliver_by, ..Outcome::delivered("").via(via) };
            assert_eq!(is_traced(by, &outcome, 5), is_reported, "{mode:?} {trace} {deadline} {has_deliver_by} {via:?}");
        }
        assert!(!is_traced(None, &Outcome::delivered("").via(Via::Smtp), 5));
    }

    #[test]
    fn only_the_mode_r_forbids_a_late_delivery() {
        for (mode, deadline, is_expired) in [
            (ByMode::Return, 1_795_255_199, true),
            (ByMode::Return, 1_795_255_200, true),
            (ByMode::Return, 1_795_255_201, false),
            (ByMode::Return, -1, true),
            (ByMode::Notify, 1_795_255_199, false),
        ] {
            let outcome = expired(Some(DeliverBy { deadline, mode, trace: false }), 1_795_255_200);
            assert_eq!(outcome.is_some(), is_expired, "{mode:?} {deadline}");
            assert!(outcome.is_none_or(|outcome| outcome.status == Status(5, 4, 7)));
        }
        assert_eq!(expired(None, 5), None);
    }
}

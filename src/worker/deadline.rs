//! Returns a message that was not delivered by the deadline that its sender has set (DELIVERBY with
//! the mode R, RFC 2852 4.1.3).
//!
//! The queue starts an attempt at the deadline (see [`Schedule::next_within`]). That attempt, and
//! any later one, fails without a delivery. A message with the mode N is tried as if it had no
//! deadline.
//!
//! [`Schedule::next_within`]: crate::retry::Schedule::next_within

use super::Attempt;
use crate::envelope::{ByMode, DeliverBy};
use crate::log;
use crate::outcome::Outcome;
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
}

fn expired(by: Option<DeliverBy>, now: u64) -> Option<Outcome> {
    let by = by.filter(|by| by.mode == ByMode::Return && i128::from(by.deadline) <= i128::from(now))?;
    let deadline = log::timestamp(by.deadline.try_into().unwrap_or(0));
    let why = format!("the message was to be delivered by {deadline} and not later, and that time has passed");
    Some(Outcome::failed(Status(5, 4, 7), why))
}

#[cfg(test)]
mod tests {
    use super::*;

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

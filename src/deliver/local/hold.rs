//! Holds a message for one recipient, as the routes table says, while other recipients get it.
//!
//! The recipient gets an entry of its own in `hold/`, and the message counts as passed on to that
//! entry in the same step. An administrator sees, releases or removes the entry. The head of the
//! entry keeps the reason, so that no route holds the entry again after it was released. If all
//! recipients of a new message are to be held, the session has put the message into `hold/` itself.

use super::LocalDelivery;
use crate::deliver::log_outcome;
use crate::envelope::Envelope;
use crate::log;
use crate::outcome::{Fate, Outcome, Via};
use crate::reply::Status;
use crate::spool::{Derivation, RecipientEntry};

impl LocalDelivery<'_> {
    /// Makes the held entry for a recipient.
    pub(super) fn hold(&mut self, addressee: &RecipientEntry, reason: &str) -> Outcome {
        match self.spool.has_room_to_hold(self.entry.content_size()) {
            Ok(true) => {}
            Ok(false) => {
                return Outcome::deferred(Status(4, 3, 1), "too many messages are held already").via(Via::Hold);
            }
            Err(e) => return Outcome::from_io("count the held messages", &e).via(Via::Hold),
        }
        let derivation = Derivation {
            steps: self.entry.steps().to_vec(),
            shares: vec![addressee.share],
            folder: self.entry.folder().cloned(),
        };
        let envelope = Envelope {
            sender: self.entry.sender().cloned(),
            recipients: vec![self.entry.with_orcpt(&addressee.recipient)],
            options: self.entry.options().clone(),
            origin: self.entry.origin(),
        };
        let made = self
            .make_queued()
            .and_then(|()| self.entry.hold_copy(addressee.number, (&envelope, &derivation), reason, self.now));
        let outcome = match made {
            Ok(held) => {
                log::held(&held.id, reason);
                Outcome::delivered(format!("held as {}: {reason}", held.id)).via(Via::Hold)
            }
            Err(e) => Outcome::from_io("hold the message", &e).via(Via::Hold),
        };
        // The recipient is recorded as settled already. For such a recipient the worker does not
        // log the outcome, so the outcome is logged here.
        if outcome.fate == Fate::Delivered {
            log_outcome(self.entry, addressee.number, &outcome, None);
        }
        outcome
    }
}

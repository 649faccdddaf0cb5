//! A transaction: the envelope that MAIL and RCPT build (RFC 5321 3.3).

use std::collections::HashSet;
use std::time::Duration;

use super::authenticity::SpfResults;
use super::screen::Screening;
use super::xclient::Forwarded;
use crate::address::Address;
use crate::envelope::{Action, Envelope, MailOptions, Origin, Recipient};

/// The result of MAIL and RCPT so far.
#[derive(Debug)]
pub struct Transaction {
    /// The envelope with the final recipients.
    pub envelope: Envelope,
    /// The set of the final recipients. No final recipient is added twice, even if several
    /// addresses lead to it.
    known: HashSet<(Address, Action)>,
    /// The number of RCPT commands that were accepted.
    accepted: usize,
    /// The address given at RCPT, for the Received field, if exactly one RCPT was accepted.
    pub named: Option<Address>,
    /// Whether a recipient was refused.
    pub has_refused: bool,
    /// The client that XFORWARD named for this message.
    pub forwarded: Option<Forwarded>,
    /// The SPF results for the client, in the order in which they are shown.
    pub spf: SpfResults,
    /// Whether the access table exempts the message from the rules for strangers.
    pub is_exempt: bool,
    /// The reason for quarantine, in words for people; `None` for ordinary delivery.
    pub quarantine: Option<String>,
    /// The time that the client has waited for look-ups in this transaction.
    pub lookup_time: Duration,
    /// The look-ups about the message; `None` if the client may relay.
    pub screening: Option<Box<Screening>>,
}

impl Transaction {
    /// A transaction without recipients.
    pub fn new(sender: Option<Address>, options: MailOptions) -> Self {
        let envelope = Envelope { sender, recipients: Vec::new(), options, origin: Origin::Client };
        let known = HashSet::new();
        Self {
            envelope,
            known,
            accepted: 0,
            named: None,
            has_refused: false,
            forwarded: None,
            spf: SpfResults::default(),
            screening: None,
            is_exempt: false,
            quarantine: None,
            lookup_time: Duration::ZERO,
        }
    }

    /// Adds a recipient that was accepted, and its final recipients.
    pub fn add(&mut self, named: Address, finals: Vec<Recipient>) {
        for recipient in finals {
            if self.known.insert((recipient.address.clone(), recipient.action.clone())) {
                let original = (recipient.address != named).then(|| named.clone());
                self.envelope.recipients.push(Recipient { original, ..recipient });
            }
        }
        self.accepted += 1;
        self.named = (self.accepted == 1).then_some(named);
    }

    /// Removes the final recipients that `named`, an address given at RCPT, stands for.
    #[cfg(feature = "filters")]
    pub fn remove(&mut self, named: &Address) {
        let is_same =
            |other: &Address| other.domain() == named.domain() && other.local().eq_ignore_ascii_case(named.local());
        self.envelope.recipients.retain(|recipient| {
            let is_removed = is_same(recipient.original.as_ref().unwrap_or(&recipient.address));
            if is_removed {
                self.known.remove(&(recipient.address.clone(), recipient.action.clone()));
            }
            !is_removed
        });
    }

    /// The number of recipients that were accepted.
    pub fn accepted(&self) -> usize {
        self.accepted
    }
}

//! Delivers a message to its destination, for a worker of the queue. The result is one [`Outcome`]
//! for each recipient, in order.
//!
//! A failed delivery is an ordinary outcome: `Err` is used only for steps within a delivery, and
//! never for a success (see [`Begun`]). This module decides neither where a message goes nor when
//! it is tried again. It records no outcome, with one exception: the step that makes a new entry
//! for a forwarded message also records the old recipient as delivered.
//!
//! - `agent`: work that needs the rights of a mailbox's owner
//! - `local`: delivery on this host
//! - `quota`: room for messages in Maildirs
//! - `remote`: delivery to other hosts

pub mod agent;
pub mod local;
pub mod quota;
pub mod remote;

use std::time::Instant;

use crate::address::Address;
use crate::envelope::{MailOptions, MessageTls, Recipient};
use crate::log;
use crate::outcome::{Outcome, Via};
use crate::report;
use crate::spool::{Content, Entry};
use remote::convert::Converter;

/// One message on its way to one destination.
#[derive(Clone)]
pub struct Delivery<'a> {
    /// The queue id, for the log.
    pub id: &'a str,
    /// The reverse-path; `None` is the null path.
    pub sender: Option<&'a Address>,
    /// The options that the sender gave.
    pub options: &'a MailOptions,
    /// The recipients; outcomes come in the same order.
    pub recipients: Vec<&'a Recipient>,
    /// The content; lines end in LF.
    pub content: Content<'a>,
    /// Converts the content for a host that cannot take it as it is.
    pub converter: Converter<'a>,
    /// Whether the message goes only to hosts with public addresses, unless the configuration names
    /// the host.
    pub only_public: bool,
    /// If the hosts are only asked whether they would accept the recipients, the time at which that ends.
    /// DATA is then never sent. `None` for a message.
    pub ask_until: Option<Instant>,
    /// Whether the account of the sender may be used at the fallback hosts.
    pub may_use_account: bool,
}

impl Delivery<'_> {
    /// Whether the hosts are only asked if they would accept the recipients.
    pub fn is_question(&self) -> bool {
        self.ask_until.is_some()
    }

    /// What the message demands of TLS.
    pub fn tls(&self) -> MessageTls {
        self.options.tls.enforced(self.sender.is_some())
    }

    /// Whether this is a report about a message that needs TLS.
    pub fn wishes_tls(&self) -> bool {
        self.options.tls == MessageTls::Required && self.sender.is_none()
    }

    /// What a connection for this message must meet: two messages can differ in it although both were
    /// sent with REQUIRETLS.
    pub fn tls_demand(&self) -> (MessageTls, bool) {
        (self.tls(), self.wishes_tls())
    }
}

/// A delivery to one recipient after its first step.
#[derive(Debug)]
pub enum Begun<T> {
    /// The delivery is ready for the next step, which needs this value.
    Ready(T),
    /// The delivery is over: delivered, deferred or failed.
    Over(Outcome),
}

impl<T> Begun<T> {
    /// If the delivery is over, sets the way of delivery in its outcome.
    #[must_use]
    pub fn via(self, via: Via) -> Self {
        match self {
            Self::Over(outcome) => Self::Over(outcome.via(via)),
            ready => ready,
        }
    }
}

/// A failed step ends the delivery, with the failure as its outcome.
impl<T> From<Result<Begun<T>, Box<Outcome>>> for Begun<T> {
    fn from(step: Result<Self, Box<Outcome>>) -> Self {
        step.unwrap_or_else(|failure| Self::Over(*failure))
    }
}

/// Logs the outcome for one recipient of an entry. `next` is the time of the next attempt, in
/// seconds since 1970.
pub fn log_outcome(entry: &Entry, number: usize, outcome: &Outcome, next: Option<u64>) {
    let Some(addressee) = entry.recipient(number) else { return };
    let id = entry.id();
    log::attempt(&log::Attempt {
        id: &id,
        recipient: &addressee.recipient.address,
        original: addressee.recipient.original.as_ref(),
        via: outcome.via.map_or("-", Via::word),
        outcome,
        cause: report::cause(outcome),
        delay: id.age(),
        next,
    });
}

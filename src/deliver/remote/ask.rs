//! Asks the hosts of a destination whether they would accept a recipient (a call-out): MAIL with the
//! null sender and RCPT, but never a message.
//!
//! A call-out is an attempt to deliver without DATA, so hosts, TLS, credentials and the choice of the
//! next host are those of a delivery. Only the times are short, because a client is waiting: see
//! [`STAGE_LIMIT`], and the caller sets the time at which it ends. A host that is too slow for a call-out may be fast enough for
//! a delivery, so a call-out never notes that an address is down. The limits of connections are for
//! mail, and a call-out does not count towards them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::convert::Converter;
use super::{RemoteDelivery, RemoteSettings};
use crate::address::Address;
use crate::deliver::Delivery;
use crate::destination::{Destination, HostTarget};
use crate::envelope::{MailOptions, Recipient};
use crate::outcome::{Contact, Outcome};
use crate::reply::Status;
use crate::spool::Content;

/// The maximum time for each stage of the dialogue.
pub(super) const STAGE_LIMIT: Duration = Duration::from_secs(10);

impl RemoteDelivery {
    /// Asks the hosts of a destination about a recipient. The outcome is `Delivered` if a host accepts
    /// RCPT; `None` if no host could be asked just now, which says nothing about the hosts: one accepts
    /// no more connections than there are, or the MTA-STS policy is being fetched. `id` stands in the log.
    /// The question ends at `until`, and that is an outcome too.
    /// The connection is kept for another question.
    pub fn ask(
        &mut self,
        settings: RemoteSettings<'_>,
        (destination, target): (&Arc<Destination>, &HostTarget),
        recipient: &Address,
        (id, until): (&str, Instant),
    ) -> Option<Outcome> {
        let recipient = Recipient::new(recipient.clone());
        let question = Delivery {
            id,
            sender: None,
            options: &MailOptions::default(),
            recipients: vec![&recipient],
            content: Content::none(),
            converter: Converter {
                scratch: &|_| Err(std::io::ErrorKind::Unsupported.into()),
                front: &|_| String::new(),
                #[cfg(feature = "mailauth")]
                keys: None,
                now: 0,
            },
            only_public: false,
            ask_until: Some(until),
            may_use_account: false,
        };
        let result = self.deliver(settings, destination, target, &question);
        if matches!(result.contact, Contact::AtLimit | Contact::Postponed) {
            return None;
        }
        let nobody = || Outcome::deferred(Status(4, 4, 0), "no host could be asked");
        Some(result.outcomes.into_iter().next().unwrap_or_else(nobody))
    }
}

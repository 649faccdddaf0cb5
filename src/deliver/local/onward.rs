//! Passes a message on to the recipients that a list or a `.forward` file names, and decides which
//! of the sender's options for reports they get.

use super::LocalDelivery;
use crate::address::Address;
use crate::deliver::log_outcome;
use crate::envelope::{Envelope, MailOptions, Origin, RcptOptions, Recipient};
use crate::message::trace;
use crate::outcome::{Fate, Outcome, Via};
use crate::reply::Status;
use crate::spool::{Derivation, RecipientEntry, Step, Success};

/// A list or file that leads from a recipient to others.
pub(super) struct Onward {
    /// The list or file that is followed.
    pub step: Step,
    /// How many recipients may be derived from the recipient.
    pub allowed: u32,
    pub via: Via,
    /// The owner of the list, who becomes the sender.
    pub owner: Option<Address>,
}

impl LocalDelivery<'_> {
    /// The options of the derived entry and of each of its recipients, and the success that is to
    /// be reported for the addressee (RFC 3461 5.2.7). A list with an owner ends the envelope, so
    /// that the message counts as delivered to the list, and its members get an envelope without
    /// the sender's options. Reports about it go to the owner, so the sender must not set a deadline
    /// for the members or raise the priority. Whether the message needs TLS remains (RFC 8689 6).
    /// A single recipient gets the options of the addressee. Several recipients get them without
    /// NOTIFY=SUCCESS, since the address was expanded here.
    fn options_onward(
        &self,
        addressee: &RecipientEntry,
        count: usize,
        is_new: bool,
    ) -> (MailOptions, RcptOptions, Option<Success>) {
        let (mail, rcpt) = (self.entry.options(), self.entry.with_orcpt(&addressee.recipient).options);
        let has_sender = self.entry.sender().is_some() && matches!(self.entry.origin(), Origin::Client | Origin::Own);
        let is_wanted = rcpt.wants_success() && has_sender;
        match count {
            _ if is_new => {
                let MailOptions { body, utf8, priority, tls, .. } = mail;
                let (body, utf8, priority, tls) = (*body, *utf8, (*priority).min(0), *tls);
                let mail = MailOptions { body, utf8, priority, tls, ..MailOptions::default() };
                (mail, RcptOptions::default(), is_wanted.then_some(Success::Delivered))
            }
            0 | 1 => (mail.clone(), rcpt, None),
            _ => (mail.clone(), rcpt.without_success(), is_wanted.then_some(Success::Expanded)),
        }
    }

    /// Makes the derived entry, which is for the recipients that an address leads to, and in the
    /// same step records the address as delivered.
    pub(super) fn pass_on(&mut self, addressee: &RecipientEntry, onward: Onward, finals: Vec<Recipient>) -> Outcome {
        let Onward { step, allowed, via, owner } = onward;
        // The list's owner becomes the sender. But a report keeps the null sender, since a report
        // must not cause another report.
        let owner = owner.filter(|_| self.entry.sender().is_some());
        let (mail_options, options, success) = self.options_onward(addressee, finals.len(), owner.is_some());
        let Recipient { address, original, .. } = &addressee.recipient;
        let known = original.as_ref().unwrap_or(address);
        let count = finals.len();
        let Some(left) = u32::try_from(count).ok().and_then(|count| allowed.checked_sub(count)) else {
            let why =
                format!("mail is multiplied: {address} leads to {count} recipients, and at most {allowed} are left");
            return Outcome::failed(Status(5, 4, 6), why).via(via);
        };
        let descent = Derivation {
            steps: self.entry.steps().iter().cloned().chain([step]).collect(),
            shares: self.shares(left, &finals),
            folder: self.entry.folder().cloned(),
        };
        let recipient = |to: Recipient| {
            let original = (to.address != *known).then(|| known.clone());
            Recipient { original, options: options.clone(), ..to }
        };
        // The sender of the new entry is then chosen here.
        let origin = match self.entry.origin() {
            Origin::Client if owner.is_some() => Origin::Own,
            origin => origin,
        };
        let envelope = Envelope {
            sender: owner.or_else(|| self.entry.sender().cloned()),
            recipients: finals.into_iter().map(recipient).collect(),
            options: mail_options,
            origin,
        };
        let front = trace::delivered_to_field(address);
        let made = self
            .make_queued()
            .and_then(|()| self.entry.forward((addressee.number, success), (&envelope, &descent), &front, self.now));
        let outcome = match made {
            Ok(derived) => {
                self.derived.push(derived);
                Outcome::delivered(format!("passed on as {} to {}", derived.id, envelope.recipients.len())).via(via)
            }
            Err(e) => Outcome::from_io("queue the message for the members of the address", &e).via(via),
        };
        // The address is recorded as delivered already. For such a recipient the worker does not
        // log the outcome, so the outcome is logged here.
        if outcome.fate == Fate::Delivered {
            log_outcome(self.entry, addressee.number, &outcome, None);
        }
        outcome
    }
}

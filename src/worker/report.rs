//! Reports: the entry that tells the sender, or the postmaster, of failed recipients.
//!
//! One report for all recipients that failed in one attempt, made once by the prepared
//! step of `spool`. The text is composed by `report`; who is told is decided here, and how
//! often by `rate`: the recipients of a report that is withheld are settled without one.

use std::io::{self, Read};

use super::Attempt;
use crate::address::Address;
use crate::envelope::{Envelope, MailOptions, Origin, Recipient};
use crate::log;
use crate::outcome::Outcome;
use crate::report::failure::{self, FailureReport};
use crate::report::rate::ReportTo;
use crate::route::{DomainClass, Expansion};
use crate::spool::{QueueId, RecipientEntry, State};

/// As much of an original's header as is looked through for what a report says of it.
const MAX_HEADER: u64 = 64 << 10;

impl Attempt<'_> {
    /// Makes one report of all that failed. False if that could not be done.
    pub(super) fn report_failures(&mut self) -> bool {
        if self.failures.is_empty() {
            return true;
        }
        match self.make_report() {
            Ok(()) => {
                self.failures.clear();
                true
            }
            Err(e) => self.keep_unrecorded(&e, Vec::new()),
        }
    }

    fn make_report(&mut self) -> io::Result<()> {
        let slots: Vec<RecipientEntry> =
            self.failures.iter().filter_map(|(n, _)| self.entry.recipient(*n as usize).cloned()).collect();
        let Some((to, envelope)) = self.report_envelope() else {
            log::dropped(&self.entry.id(), "a report to the postmaster could not be delivered");
            return slots.iter().try_for_each(|slot| self.entry.settle(slot.number, State::Failed, self.now));
        };
        let mut header = Vec::new();
        self.entry.content().take(MAX_HEADER).read_to_end(&mut header)?;
        let whom = self.whom(&to, envelope.origin);
        let withheld = match self.site.report_rates.count(&whom) {
            Ok(withheld) => withheld,
            Err(why) => {
                log::dropped(&self.entry.id(), &why.to_string());
                return slots.iter().try_for_each(|slot| self.entry.settle(slot.number, State::Failed, self.now));
            }
        };
        let failures: Vec<(Recipient, Outcome)> = slots
            .iter()
            .zip(&self.failures)
            .map(|(slot, (_, outcome))| (slot.recipient.clone(), outcome.clone()))
            .collect();
        let original = self.entry.id();
        let sender = self.entry.sender().cloned();
        let compose = |id: QueueId| {
            failure::compose(&FailureReport {
                hostname: &self.settings.config.hostname,
                id: &id.to_string(),
                original: &original.to_string(),
                now: self.now as i64,
                arrival: original.seconds() as i64,
                to: &to,
                sender: sender.as_ref(),
                failures: &failures,
                header: &header,
                withheld,
            })
        };
        let numbers: Vec<usize> = slots.iter().map(|s| s.number).collect();
        let made = self.entry.create_report(&numbers, &envelope, compose, self.now);
        let child = made.inspect_err(|_| self.site.report_rates.take_back(&whom, withheld))?;
        log::bounced(&original, &child.id, &to);
        self.derived.push(child);
        Ok(())
    }

    /// As whom the one who is told is counted.
    fn whom(&self, to: &Address, origin: Origin) -> ReportTo {
        let router = &self.settings.router;
        match router.class_of(to.domain()) {
            _ if origin == Origin::Postmaster => ReportTo::Postmaster,
            DomainClass::Elsewhere => ReportTo::Remote(to.clone()),
            _ => ReportTo::Local(to.with_local(router.base(to))),
        }
    }

    /// Who is told: the sender; the postmaster of a message without one; nobody
    /// of a report to the postmaster.
    fn report_envelope(&self) -> Option<(Address, Envelope)> {
        let router = &self.settings.router;
        let (to, origin) = match (self.entry.origin(), self.entry.sender()) {
            (Origin::Postmaster, _) => return None,
            (_, Some(sender)) => (router.qualify(sender), Origin::Report),
            (_, None) => (router.postmaster().clone(), Origin::Postmaster),
        };
        let finals = match router.class_of(to.domain()) {
            DomainClass::Local => match router.expand(&to) {
                Expansion::Finals(finals) => finals,
                // It fails, or waits, as an entry of its own.
                _ => vec![Recipient::new(to.clone())],
            },
            _ => vec![Recipient::new(to.clone())],
        };
        let recipient =
            |to_one: Recipient| Recipient { original: (to_one.address != to).then(|| to.clone()), ..to_one };
        let recipients = finals.into_iter().map(recipient).collect();
        Some((to.clone(), Envelope { sender: None, recipients, options: MailOptions::default(), origin }))
    }
}

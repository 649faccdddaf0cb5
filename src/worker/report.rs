//! Makes the entry that reports failed recipients to the sender, or to the postmaster.
//!
//! There is one report for all recipients that failed in one attempt. `Entry::create_report` makes
//! it exactly once, also after a crash. This module decides who receives the report, and the module
//! `report` composes the text. `report::rate` limits the number of reports to each address. If a
//! report is withheld because of the limit, the failed recipients are settled without it.

use std::io::{self, Read};

use super::Attempt;
use crate::address::Address;
use crate::envelope::{Envelope, MailOptions, Origin, Recipient};
use crate::log;
use crate::outcome::Outcome;
use crate::report::failure::{self, FailureReport};
use crate::report::rate::ReportTo;
use crate::route::DomainClass;
use crate::site::Settings;
use crate::spool::{QueueId, RecipientEntry, State};

/// The maximum number of bytes of the original message that are read for its header in the report.
const MAX_HEADER: u64 = 64 << 10;

impl Attempt<'_> {
    /// Makes one report of all failures. Returns false if that is not possible now.
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
        let failed: Vec<RecipientEntry> =
            self.failures.iter().filter_map(|(n, _)| self.entry.recipient(*n as usize).cloned()).collect();
        let Some((to, envelope)) = self.report_envelope() else {
            let what = match self.entry.origin() {
                Origin::DmarcReport => "a DMARC report could not be delivered",
                _ => "a report to the postmaster could not be delivered",
            };
            log::dropped(&self.entry.id(), what);
            return failed
                .iter()
                .try_for_each(|addressee| self.entry.settle(addressee.number, State::Failed, self.now));
        };
        let mut header = Vec::new();
        self.entry.content().take(MAX_HEADER).read_to_end(&mut header)?;
        let report_to = self.report_to(&to, envelope.origin);
        let withheld = match self.site.report_rates.count(&report_to) {
            Ok(withheld) => withheld,
            Err(why) => {
                log::dropped(&self.entry.id(), &why.to_string());
                return failed
                    .iter()
                    .try_for_each(|addressee| self.entry.settle(addressee.number, State::Failed, self.now));
            }
        };
        let failures: Vec<(Recipient, Outcome)> = failed
            .iter()
            .zip(&self.failures)
            .map(|(addressee, (_, outcome))| (addressee.recipient.clone(), outcome.clone()))
            .collect();
        let original = self.entry.id();
        let sender = self.entry.sender().cloned();
        let compose = |id: QueueId| {
            let report = failure::compose(&FailureReport {
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
            });
            signed(&self.settings, report, self.now)
        };
        let numbers: Vec<usize> = failed.iter().map(|addressee| addressee.number).collect();
        let made = self.entry.create_report(&numbers, &envelope, compose, self.now);
        let derived = made.inspect_err(|_| self.site.report_rates.take_back(&report_to, withheld))?;
        log::bounced(&original, &derived.id, &to);
        self.derived.push(derived);
        Ok(())
    }

    /// The recipient for whom `report::rate` counts a report. The report goes to `to`, and its
    /// envelope has the origin `origin`.
    fn report_to(&self, to: &Address, origin: Origin) -> ReportTo {
        let router = &self.settings.router;
        match router.class_of(to.domain()) {
            _ if origin == Origin::Postmaster => ReportTo::Postmaster,
            DomainClass::Elsewhere => ReportTo::Remote(to.clone()),
            _ => ReportTo::Local(to.with_local(router.base(to))),
        }
    }

    /// The recipient and the envelope of the report. The report goes to the sender or, if the
    /// message has the null reverse-path, to the postmaster. `None` if the message is itself a
    /// report to the postmaster or a DMARC report, because the failure of such a message is not
    /// reported.
    fn report_envelope(&self) -> Option<(Address, Envelope)> {
        let router = &self.settings.router;
        let (to, origin) = match (self.entry.origin(), self.entry.sender()) {
            (Origin::Postmaster | Origin::DmarcReport, _) => return None,
            (_, Some(sender)) => (router.qualify(sender), Origin::Report),
            (_, None) => (router.postmaster().clone(), Origin::Postmaster),
        };
        let finals = router.recipients_of_own(&to);
        let recipient = |final_recipient: Recipient| Recipient {
            original: (final_recipient.address != to).then(|| to.clone()),
            ..final_recipient
        };
        let recipients = finals.into_iter().map(recipient).collect();
        Some((to.clone(), Envelope { sender: None, recipients, options: MailOptions::default(), origin }))
    }
}

/// Adds our signature to a report, if there is a key for the domain of its From, which is the
/// hostname.
#[cfg(feature = "mailauth")]
fn signed(settings: &Settings, report: Vec<u8>, now: u64) -> Vec<u8> {
    [settings.keys.sign_report(&settings.config.hostname, &report, now).into_bytes(), report].concat()
}

#[cfg(not(feature = "mailauth"))]
fn signed(_: &Settings, report: Vec<u8>, _: u64) -> Vec<u8> {
    report
}

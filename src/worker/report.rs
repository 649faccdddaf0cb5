//! Makes the entries that report to the sender, or to the postmaster, what became of a message.
//!
//! Each attempt makes at most three reports: one about all recipients that failed in it, one about
//! those for whom the message is delayed, and one about those that have the message now. A report
//! about a failure or a delay is made unless NOTIFY forbids it, and a report about a success only
//! if NOTIFY asks for it (RFC 3461 4.1). A message without a sender causes only reports about
//! failures, which go to the postmaster.
//!
//! `Entry::create_report` makes a report exactly once, also after a crash. This module decides who
//! receives the report, and the module `report` composes the text. `report::rate` limits the number
//! of reports to each address. If a report is withheld because of the limit, it is recorded as if
//! it had been made.

use std::io::{self, Read};

use super::Attempt;
use crate::address::Address;
use crate::envelope::{Body, Envelope, MailOptions, MessageTls, Notify, Origin, Recipient, Ret};
use crate::log;
use crate::outcome::{Outcome, Via};
use crate::report::compose::{Report, Reported, Returned, compose};
use crate::report::rate::ReportTo;
use crate::report::remote_mta;
use crate::route::DomainClass;
use crate::site::Settings;
use crate::spool::{QueueId, RecipientEntry, ReportedEvent, State, Success};

/// The maximum number of bytes of the original message that are read for its header in the report.
const MAX_HEADER: u64 = 64 << 10;
/// The maximum size of an original message that is returned as a whole, in bytes.
const MAX_RETURNED: u64 = 1 << 20;

impl Attempt<'_> {
    /// Makes the reports that this attempt calls for. Returns false if that is not possible now.
    pub(super) fn report(&mut self) -> bool {
        if self.is_moved {
            return true;
        }
        let made = self.report_failures().and_then(|()| self.report_delays()).and_then(|()| self.report_successes());
        match made {
            Ok(()) => true,
            Err(e) => self.keep_unrecorded(&e, Vec::new()),
        }
    }

    fn report_failures(&mut self) -> io::Result<()> {
        let failures = self.failures.clone();
        let (wanted, unwanted): (Vec<_>, Vec<_>) =
            self.reported(&failures, ReportedEvent::Failure).partition(|(_, to)| to.recipient.options.wants_failure());
        self.make_report(wanted)?;
        if !unwanted.is_empty() {
            log::dropped(&self.entry.id(), "the sender wants no report about failures");
        }
        self.settle_without_report(&unwanted)?;
        self.failures.clear();
        self.note_failures(&failures);
        Ok(())
    }

    fn report_delays(&mut self) -> io::Result<()> {
        let delays = std::mem::take(&mut self.delays);
        let delayed = self.reported(&delays, ReportedEvent::Delay).collect();
        self.make_report(delayed)
    }

    /// Makes a report about the recipients in [`State::Unreported`]. If an earlier attempt has
    /// delivered the message, its outcome is not known any more.
    fn report_successes(&mut self) -> io::Result<()> {
        let successes = std::mem::take(&mut self.successes);
        let outcome_of = |number: usize| {
            let known = successes.iter().find(|(known, _)| *known as usize == number);
            known.map_or_else(|| Outcome::delivered(""), |(_, outcome)| outcome.clone())
        };
        let open = self.open_recipients().into_iter().filter_map(|addressee| {
            let State::Unreported(success) = addressee.record.state else { return None };
            let (outcome, event) = (outcome_of(addressee.number), ReportedEvent::Success(success));
            let dialogue = Vec::new();
            Some((addressee.number, Reported { recipient: addressee.recipient, event, outcome, dialogue }))
        });
        let delivered = open.collect();
        self.make_report(delivered)
    }

    fn reported<'a>(
        &'a self,
        outcomes: &'a [(u32, Outcome)],
        event: ReportedEvent,
    ) -> impl Iterator<Item = (usize, Reported)> {
        outcomes.iter().filter_map(move |(number, outcome)| {
            let addressee = self.entry.recipient(*number as usize)?;
            let recipient = self.entry.with_orcpt(&addressee.recipient);
            let dialogue = self.dialogue_lines(&recipient.address);
            let reported = Reported { recipient, event, outcome: outcome.clone(), dialogue };
            Some((addressee.number, reported))
        })
    }

    /// The lines of the last dialogue with a remote host about one recipient, which the sender may
    /// see. If this attempt had no dialogue, they are those of an earlier attempt.
    fn dialogue_lines(&self, recipient: &Address) -> Vec<String> {
        let destination = self.job.destination.to_string();
        let earlier = || self.site.spool.dialogues(self.entry.id()).into_iter().rfind(|d| d.destination == destination);
        let dialogue = self.dialogue.clone().or_else(earlier);
        dialogue.map(|dialogue| dialogue.lines_of(recipient, remote_mta)).unwrap_or_default()
    }

    /// Whether reports other than those about failures are made: the message has a sender, and is
    /// no report.
    fn has_sender_to_notify(&self) -> bool {
        self.entry.sender().is_some() && matches!(self.entry.origin(), Origin::Client | Origin::Own)
    }

    /// The success that is to be reported for a recipient who has the message now; `None` if no
    /// report is wanted, or if the next host makes it.
    pub(super) fn success_to_report(&self, addressee: &RecipientEntry, outcome: &Outcome) -> Option<Success> {
        let is_traced = self.is_traced(outcome)
            && addressee.recipient.options.notify.is_none_or(|notify| notify != Notify::default());
        let is_wanted = addressee.recipient.options.wants_success() && !outcome.has_dsn;
        if !(is_wanted || is_traced) || !self.has_sender_to_notify() {
            return None;
        }
        Some(match outcome.via {
            // The message is not delivered, and nobody is told.
            Some(Via::Discard) => return None,
            Some(Via::Smtp) => Success::Relayed,
            Some(Via::Forward | Via::List) => Success::Expanded,
            _ => Success::Delivered,
        })
    }

    /// Whether the sender is to be warned that the message is delayed for a recipient: it has
    /// reached a certain age, or the time by which the sender wants it delivered (DELIVERBY with the
    /// mode N). Each of the two is reported once for each recipient.
    pub(super) fn must_warn(&self, addressee: &RecipientEntry) -> bool {
        let warn_after = self.settings.config.queue.warn_after.as_secs();
        let window = self.entry.window();
        let is_old = warn_after > 0 && self.now.saturating_sub(window.start) >= warn_after;
        let warned = addressee.record.warned;
        let is_overdue = self.is_overdue() && window.deadline.is_some_and(|deadline| warned < deadline);
        let options = &addressee.recipient.options;
        // Only NOTIFY=NEVER forbids the report at the deadline: by the mode N, the sender has asked for it.
        let is_wanted = options.wants_delay() || (is_overdue && options.notify != Some(Notify::default()));
        (is_old && warned == 0 || is_overdue)
            && is_wanted
            && addressee.record.state == State::Todo
            && self.has_sender_to_notify()
    }

    /// Makes one report.
    fn make_report(&mut self, results: Vec<(usize, Reported)>) -> io::Result<()> {
        let Some((_, Reported { event, .. })) = results.first() else { return Ok(()) };
        let event = *event;
        let Some((to, envelope)) = self.report_envelope() else {
            log::dropped(&self.entry.id(), not_delivered(self.entry.origin()));
            return self.settle_without_report(&results);
        };
        let text = self.returned(event)?;
        let report_to = self.report_to(&to, envelope.origin);
        let withheld = match self.site.report_rates.count(&report_to) {
            Ok(withheld) => withheld,
            Err(why) => {
                log::dropped(&self.entry.id(), &why.to_string());
                return self.settle_without_report(&results);
            }
        };
        let events: Vec<(usize, ReportedEvent)> = results.iter().map(|(number, to)| (*number, to.event)).collect();
        let results: Vec<Reported> = results.into_iter().map(|(_, reported)| reported).collect();
        let original = self.entry.id();
        let (sender, options) = (self.entry.sender().cloned(), self.entry.options().clone());
        let expire_after = self.settings.config.queue.expire_after.as_secs();
        let until = self.entry.window().start.saturating_add(expire_after);
        let compose = |id: QueueId| {
            let report = compose(&Report {
                hostname: &self.settings.config.hostname,
                id: &id.to_string(),
                original: &original.to_string(),
                now: self.now as i64,
                arrival: original.seconds() as i64,
                until: until as i64,
                to: &to,
                sender: sender.as_ref(),
                envid: options.envid.as_deref(),
                deadline: options.deliver_by.map(|by| by.deadline),
                release: options.release.map(|time| (time, options.hold_for)),
                is_utf8: options.utf8,
                results: &results,
                message: text.as_returned(),
                withheld,
                languages: &self.settings.languages,
            });
            signed(&self.settings, report, self.now)
        };
        let made = self.entry.create_report(&events, &envelope, compose, self.now);
        let derived = made.inspect_err(|_| self.site.report_rates.take_back(&report_to, withheld))?;
        for ((number, _), failed) in events.iter().zip(&results).filter(|_| event == ReportedEvent::Failure) {
            self.log(*number as u32, &failed.outcome, None);
        }
        match event {
            ReportedEvent::Failure => log::bounced(&original, &derived.id, &to),
            ReportedEvent::Delay => log::warned(&original, &derived.id, &to),
            ReportedEvent::Success(_) => log::confirmed(&original, &derived.id, &to),
        }
        self.derived.push(derived);
        Ok(())
    }

    /// Records events of which no report is made.
    fn settle_without_report(&mut self, results: &[(usize, Reported)]) -> io::Result<()> {
        results.iter().try_for_each(|(number, reported)| match reported.event {
            ReportedEvent::Failure => {
                self.entry.settle(*number, State::Failed, self.now)?;
                self.log(*number as u32, &reported.outcome, None);
                Ok(())
            }
            ReportedEvent::Success(_) => self.entry.settle(*number, State::Done, self.now),
            ReportedEvent::Delay => self.entry.note_warned(*number, self.now),
        })
    }

    /// Reads the part of the original that a report of this event contains: the whole message if
    /// it failed, is not too large, and RET asks for that, and otherwise its header. The report of a
    /// message that needs TLS has only the header (RFC 8689 5).
    fn returned(&self, event: ReportedEvent) -> io::Result<Text> {
        let (options, size) = (self.entry.options(), self.entry.content_size());
        let is_whole = event == ReportedEvent::Failure
            && options.ret == Some(Ret::Full)
            && options.tls != MessageTls::Required
            && options.body != Body::Binary
            && size <= MAX_RETURNED;
        let mut text = Vec::new();
        self.entry.content().take(if is_whole { size } else { MAX_HEADER }).read_to_end(&mut text)?;
        Ok(Text { text, is_whole })
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
    /// report to the postmaster, a DMARC report or a TLS report, because the failure of such a
    /// message is not reported.
    fn report_envelope(&self) -> Option<(Address, Envelope)> {
        let router = &self.settings.router;
        let (to, origin) = match (self.entry.origin(), self.entry.sender()) {
            (Origin::Postmaster | Origin::DmarcReport | Origin::TlsReport, _) => return None,
            (_, Some(sender)) => (router.qualify(sender), Origin::Report),
            (_, None) => (router.postmaster().clone(), Origin::Postmaster),
        };
        let finals = router.recipients_of_own(&to);
        let recipient = |final_recipient: Recipient| Recipient {
            original: (final_recipient.address != to).then(|| to.clone()),
            ..final_recipient
        };
        let recipients = finals.into_iter().map(recipient).collect();
        // A report has the priority of the message (RFC 6710 4.6), and needs TLS if the message
        // does, because it has the header of the message (RFC 8689 5).
        let MailOptions { priority, tls, .. } = *self.entry.options();
        let options = MailOptions { utf8: !to.to_string().is_ascii(), priority, tls, ..MailOptions::default() };
        Some((to.clone(), Envelope { sender: None, recipients, options, origin }))
    }
}

/// The words for a message that was not delivered, and whose failure is not reported.
fn not_delivered(origin: Origin) -> &'static str {
    match origin {
        Origin::DmarcReport => "a DMARC report could not be delivered",
        Origin::TlsReport => "a TLS report could not be delivered",
        _ => "a report to the postmaster could not be delivered",
    }
}

/// The beginning of an original message, or the whole message.
struct Text {
    text: Vec<u8>,
    is_whole: bool,
}

impl Text {
    fn as_returned(&self) -> Returned<'_> {
        if self.is_whole { Returned::Message(&self.text) } else { Returned::Header(&self.text) }
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

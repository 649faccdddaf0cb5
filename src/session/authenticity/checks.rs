//! Checks a message with DKIM and DMARC, if its client may not relay, and records the results.

use std::time::{Duration, Instant};

use super::super::Session;
use super::super::incoming::Complete;
use super::super::transaction::Transaction;
use super::hosts;
use crate::address;
use crate::config::policy::{Dmarc, Spf};
use crate::dns::lookup::Until;
use crate::log;
#[cfg(feature = "arc")]
use crate::mailauth::arc;
use crate::mailauth::dkim::{self, Signatures, Verifier};
use crate::mailauth::dmarc::reports::{Action, Row};
use crate::mailauth::dmarc::{self, AuthorScan, Authors, Outcome, Policy};
use crate::mailauth::results::{self, One, Results};
use crate::mailauth::spf;
use crate::policy::message::{self, Asks, Seal};
use crate::reply::Reply;
use crate::screen;
use crate::sys;

/// The time that all look-ups for one message may take.
const LOOKUP_TIME: Duration = Duration::from_secs(5);
/// The last part of [`LOOKUP_TIME`], which is reserved for DMARC: a DKIM key that cannot be looked
/// up must not use up the whole time.
const DMARC_TIME: Duration = Duration::from_millis(500);
// Even if the look-ups about the client are slow, there must be time for those about the author's
// domain.
const _: () = assert!(screen::TIME.as_millis() + 500 + 1500 <= LOOKUP_TIME.as_millis());

/// The SPF results of a transaction.
pub type SpfResults = Vec<spf::Checked>;

/// What the ARC chain of a message has shown. If there is no chain, nothing is set.
#[derive(Debug, Default)]
struct Chain {
    /// The result for the Authentication-Results: field of the message.
    result: Option<One>,
    /// The result for the log, and the domain of the newest seal.
    summary: Option<(&'static str, Option<String>)>,
    /// If the chain is valid, the domain of the newest seal, and whether that sealer says that
    /// DMARC had passed.
    sealer: Option<(String, bool)>,
}

impl Chain {
    fn seal(&self) -> Option<Seal<'_>> {
        self.sealer.as_ref().map(|(domain, says_passed)| Seal { domain, says_passed: *says_passed })
    }
}

/// Collects what the checks need from the text of a message while it arrives.
#[derive(Debug, Default)]
pub struct Collector {
    verifier: Verifier,
    authors: AuthorScan,
}

impl Collector {
    /// Takes the next piece of the text.
    pub fn feed(&mut self, text: &[u8]) {
        self.verifier.feed(text);
        self.authors.feed(text);
    }
}

impl Session<'_> {
    /// Returns the collector for a message of this client. Returns `None` if the client's messages
    /// are not checked.
    pub(in super::super) fn collector(&self) -> Option<Collector> {
        let is_checked = !self.facts().may_relay() && self.service.config.policy.dmarc != Dmarc::None;
        is_checked.then(Collector::default)
    }

    /// Checks a message whose client may not relay, puts the results on top of it, and logs them.
    /// The error is the reply that refuses the message.
    pub(in super::super) fn check_authenticity(
        &self,
        collector: Option<Collector>,
        transaction: &mut Transaction,
        complete: &mut Complete,
    ) -> Result<(), Reply> {
        let config = &self.service.config.policy;
        if self.facts().may_relay() || (config.spf == Spf::None && config.dmarc == Dmarc::None) {
            return Ok(());
        }
        let mut results = Results::default();
        if let (Some(address), Some(name)) = (self.client.address, &self.name) {
            results.add(One::iprev(address, name.as_deref(), self.screen.is_name_unknown));
        }
        let sender = address::path(transaction.envelope.sender.as_ref());
        for checked in &transaction.spf {
            results.add(One::spf(checked, sender.trim_matches(['<', '>'])));
        }
        let collected = collector.map(|collector| (collector.verifier.finish(), collector.authors.finish()));
        let until = Instant::now() + LOOKUP_TIME.saturating_sub(transaction.lookup_time);
        let check = |(signatures, authors): &_| self.check_author(signatures, authors, transaction, until);
        let checked = collected.as_ref().map(check);
        let chain = match (&collected, &checked) {
            (Some((signatures, authors)), Some((_, dmarc))) => self.check_chain(signatures, authors, dmarc, until),
            _ => Chain::default(),
        };
        let is_obeyed = config.dmarc == Dmarc::Obey && !transaction.is_exempt;
        let asks = checked.as_ref().map_or(Asks::Nothing, |(_, dmarc)| asks(dmarc));
        let is_vouched_for = message::is_vouched_for(is_obeyed, asks, chain.seal(), &config.arc_sealers);
        if let Some((signatures, dmarc)) = &checked {
            for signature in signatures {
                results.add(One::dkim(signature));
            }
            if signatures.is_empty() {
                results.add(One::no_dkim());
            }
            let one = One::dmarc(dmarc);
            let accepted = || format!("{}; accepted by a trusted ARC sealer", dmarc.comment());
            results.add(if is_vouched_for { one.comment(&accepted()) } else { one });
        }
        chain.result.iter().for_each(|result| results.add(result.clone()));
        complete.prepend(&results::field(&results, self.hostname()));
        let summary = log::Checked { arc: chain.summary, ..summary(&transaction.spf, checked.as_ref()) };
        log::checked(&complete.id(), &self.client.session, &summary);
        let Some((signatures, dmarc)) = checked else { return Ok(()) };
        let action = match asks {
            _ if is_vouched_for => Action::Forwarded,
            Asks::Reject | Asks::Unclear(_) if is_obeyed => Action::Rejected,
            Asks::Quarantine if is_obeyed => Action::Quarantined,
            _ => Action::Accepted,
        };
        self.count_for_reports(&dmarc, action, &signatures, transaction);
        self.apply(message::dmarc(is_obeyed && !is_vouched_for, asks, &dmarc.domain))?;
        if action == Action::Quarantined {
            transaction.quarantine.get_or_insert(format!("{} asks for quarantine (DMARC)", dmarc.domain));
        }
        Ok(())
    }

    /// Counts a message for the report to the domain whose DMARC record applies.
    fn count_for_reports(
        &self,
        dmarc: &dmarc::Checked,
        action: Action,
        signatures: &[dkim::Checked],
        transaction: &Transaction,
    ) {
        let has_reports = self.service.config.policy.dmarc_reports.is_some();
        let (Some(address), Some(found), true) = (self.client.address, &dmarc.found, has_reports) else { return };
        let sender = transaction.envelope.sender.as_ref();
        let spf = dmarc::sender_check(&transaction.spf, sender.is_some());
        let domain = sender.map_or("", |sender| sender.domain());
        if let Some(row) = Row::of(dmarc, address, action, domain, spf, signatures) {
            self.service.site.dmarc_counts.count(sys::now(), &found.domain, &row);
        }
    }

    /// Verifies the ARC chain, and reads what the newest sealer says about the author's domain.
    #[cfg(feature = "arc")]
    fn check_chain(&self, signatures: &Signatures, authors: &Authors, dmarc: &dmarc::Checked, until: Instant) -> Chain {
        let chain = arc::verify(signatures, &Until { dns: &self.service.site.dns, until }, sys::now());
        if chain.status == arc::Status::None {
            return Chain::default();
        }
        let newest = chain.sets.last();
        let has_passed = |set: &arc::Sealed| results::says_dmarc_passed(set.results.as_bytes(), &dmarc.domain);
        // A sealer's result for DMARC names only one domain. So if From has several domains, the
        // sealer cannot vouch for the message.
        let is_one = authors.domains.len() == 1 && !authors.has_more;
        Chain {
            result: Some(One::arc(&chain)),
            summary: Some((chain.status.word(), newest.map(|set| set.domain.clone()))),
            sealer: newest.map(|set| (set.domain.clone(), is_one && has_passed(set))),
        }
    }

    /// Finds no chain, because this build verifies none.
    #[cfg(not(feature = "arc"))]
    fn check_chain(&self, _: &Signatures, _: &Authors, _: &dmarc::Checked, _: Instant) -> Chain {
        Chain::default()
    }

    /// Verifies the signatures, and evaluates DMARC for the author's domain. All look-ups end at
    /// `until`.
    fn check_author(
        &self,
        signatures: &Signatures,
        authors: &Authors,
        transaction: &Transaction,
        until: Instant,
    ) -> (Vec<dkim::Checked>, dmarc::Checked) {
        let dns = &self.service.site.dns;
        // The DMARC records and the keys of the ARC chain are looked up at the same time as the
        // keys of the signatures. The answers are in the cache when they are needed later.
        let names = authors.domains.iter().flat_map(|domain| dmarc::record_names(domain));
        #[cfg(feature = "arc")]
        let names = names.chain(arc::key_names(signatures));
        let lookup = Until { dns, until };
        names.for_each(|name| drop(dns.begin_txt(&name, until)));
        let shared = self.service.site.together();
        let unknown = hosts::recall(&shared, dns, signatures, sys::now());
        let keys = Until { dns, until: until.checked_sub(DMARC_TIME).unwrap_or(until) };
        let checked = signatures.verify(&keys, sys::now());
        let sender = transaction.envelope.sender.as_ref();
        let spf = dmarc::sender_check(&transaction.spf, sender.is_some());
        let identifiers = dmarc::identifiers(spf, &checked);
        let dmarc = dmarc::evaluate(&lookup, authors, &identifiers);
        hosts::tell(&shared, dns, &unknown, &checked, sys::now());
        (checked, dmarc)
    }
}

/// Whether SPF has passed for the sender. The screening of the message must have ended.
pub fn is_sender_proven(transaction: &Transaction) -> bool {
    let checked = dmarc::sender_check(&transaction.spf, transaction.envelope.sender.is_some());
    checked.is_some_and(|checked| checked.result == spf::SpfResult::Pass)
}

/// Returns what the domain's DMARC policy asks for.
fn asks(checked: &dmarc::Checked) -> Asks {
    match (checked.outcome, checked.policy) {
        (Outcome::Fail, Policy::Reject) => Asks::Reject,
        _ if checked.is_unclear => Asks::Unclear(checked.reason),
        _ if checked.is_undecided() => Asks::Undecided,
        (Outcome::Fail, Policy::Quarantine) => Asks::Quarantine,
        _ => Asks::Nothing,
    }
}

/// Returns a summary of the results for the log.
fn summary(spf: &[spf::Checked], checked: Option<&(Vec<dkim::Checked>, dmarc::Checked)>) -> log::Checked {
    let mut summary = log::Checked::default();
    for checked in spf {
        summary.spf.push((checked.result.name(), checked.domain.to_string()));
    }
    if let Some((signatures, dmarc)) = checked {
        for signature in signatures {
            summary.dkim.push((signature.status.word(), signature.domain.clone()));
        }
        summary.dmarc = Some((dmarc.outcome.name(), dmarc.domain.to_string(), dmarc.policy.name()));
    }
    summary
}

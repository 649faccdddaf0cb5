//! The checks of a message, and their results.

use std::time::{Duration, Instant};

use super::super::Session;
use super::super::incoming::Complete;
use super::super::transaction::Transaction;
use crate::address;
use crate::config::policy::{Dmarc, Spf};
use crate::log;
use crate::mailauth::dkim::{self, Signatures, Status, Verifier};
use crate::mailauth::dmarc::{self, Authors, Identifier, Mechanism, Outcome, Policy, Vouches};
use crate::mailauth::lookup::Until;
use crate::mailauth::results::{self, One, Results};
use crate::mailauth::spf::{self, Identity, SpfResult};
use crate::policy;
use crate::policy::message::Asks;
use crate::reply::Reply;

/// The time that all look-ups for one message may take.
const LOOKUP_TIME: Duration = Duration::from_secs(5);

/// The SPF results of a transaction.
pub type SpfResults = Vec<spf::Checked>;

/// Collects what the checks need while a message arrives.
#[derive(Debug)]
pub struct Collector(Verifier);

impl Collector {
    /// Takes the next piece of the text.
    pub fn feed(&mut self, text: &[u8]) {
        self.0.feed(text);
    }
}

impl Session<'_> {
    /// The collector for a message of this client; `None` if the message is not checked.
    pub(in super::super) fn collector(&self) -> Option<Collector> {
        let is_checked = !self.facts().may_relay() && self.service.config.policy.dmarc != Dmarc::None;
        is_checked.then(|| Collector(Verifier::new()))
    }

    /// Checks a stranger's message, puts the results on top of it, and logs them. The error is the
    /// reply if the message is refused.
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
            results.add(One::iprev(address, name.as_deref()));
        }
        let sender = address::path(transaction.envelope.sender.as_ref());
        for checked in &transaction.spf {
            results.add(One::spf(checked, sender.trim_matches(['<', '>'])));
        }
        let checked = collector.map(|collector| self.check_author(&collector.0.finish(), transaction));
        if let Some((signatures, dmarc)) = &checked {
            for signature in signatures {
                results.add(One::dkim(signature));
            }
            if signatures.is_empty() {
                results.add(One::no_dkim());
            }
            results.add(One::dmarc(dmarc));
        }
        complete.prepend(&results::field(&results, self.hostname()));
        log::checked(&complete.id(), &self.client.session, &summary(&transaction.spf, checked.as_ref()));
        let Some((_, dmarc)) = checked else { return Ok(()) };
        let (asks, is_obeyed) = (asks(&dmarc), config.dmarc == Dmarc::Obey);
        self.apply(policy::message::dmarc(is_obeyed, asks, &dmarc.domain))?;
        if is_obeyed && asks == Asks::Quarantine {
            transaction.quarantine.get_or_insert(format!("{} asks for quarantine (DMARC)", dmarc.domain));
        }
        Ok(())
    }

    /// Verifies the signatures, and evaluates DMARC for the author's domain. All look-ups end within
    /// the time that the transaction has left for them.
    fn check_author(&self, signatures: &Signatures, transaction: &Transaction) -> (Vec<dkim::Checked>, dmarc::Checked) {
        let dns = &self.service.site.dns;
        let until = Instant::now() + LOOKUP_TIME.saturating_sub(transaction.lookup_time);
        let authors = Authors::of_header(signatures.header());
        // The policy records are looked up while the keys are. Afterwards they are in the cache.
        let policies = authors.domains.iter().map(|domain| dns.begin_txt(&format!("_dmarc.{domain}"), until));
        let policies: Vec<_> = policies.collect();
        let lookup = Until { dns, until };
        let now = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0);
        let checked = signatures.verify(&lookup, now);
        policies.into_iter().for_each(|policy| drop(policy.wait()));
        let dmarc = dmarc::evaluate(&lookup, &authors, &identifiers(&transaction.spf, &checked));
        (checked, dmarc)
    }
}

/// The domains for which SPF and DKIM vouch.
fn identifiers<'a>(spf: &'a [spf::Checked], signatures: &'a [dkim::Checked]) -> Vec<Identifier<'a>> {
    // The HELO name counts only if there is no sender to check (RFC 9989 3.2.4).
    let has_sender = spf.iter().any(|checked| checked.identity == Identity::MailFrom);
    let by_spf = spf
        .iter()
        .filter(move |checked| !has_sender || checked.identity == Identity::MailFrom)
        .filter_map(|checked| Some((&*checked.domain, Mechanism::Spf, spf_vouches(checked.result)?)));
    let by_dkim =
        signatures.iter().filter_map(|checked| Some((&*checked.domain, Mechanism::Dkim, dkim_vouches(checked)?)));
    by_spf.chain(by_dkim).map(|(domain, mechanism, vouches)| Identifier { domain, mechanism, vouches }).collect()
}

fn spf_vouches(result: SpfResult) -> Option<Vouches> {
    match result {
        SpfResult::Pass => Some(Vouches::Yes),
        SpfResult::TempError => Some(Vouches::Unknown),
        _ => None,
    }
}

fn dkim_vouches(checked: &dkim::Checked) -> Option<Vouches> {
    match checked.status {
        Status::Pass => Some(Vouches::Yes),
        Status::TempError => Some(Vouches::Unknown),
        _ => None,
    }
}

/// What DMARC asks for.
fn asks(checked: &dmarc::Checked) -> Asks {
    match (checked.outcome, checked.policy) {
        (Outcome::Fail, Policy::Reject) => Asks::Reject,
        (Outcome::Fail, Policy::Quarantine) => Asks::Quarantine,
        _ => Asks::Nothing,
    }
}

/// The results in short, for the log.
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

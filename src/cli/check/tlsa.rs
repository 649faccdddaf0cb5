//! Whether the TLSA records of this host are for the certificates that it shows (DANE).

use std::slice;
use std::sync::Arc;

use super::finding::{Finding, Level, Topic};
use super::name::unknown;
use crate::dns::lookup::Lookup;
use crate::dns::{Answered, Association};
use crate::outcome::NoAnswer;
use crate::tls::{Associations, Client, Fault, Server, Shown, Verification, tlsa_name};

/// What the checks of the records need.
pub struct Tlsa<'a> {
    /// The DNS.
    pub dns: &'a dyn Lookup,
    /// The certificates of this host, if it has any.
    pub server: Option<&'a Server>,
    /// How other hosts are verified, and this one by them.
    pub client: &'a Client,
}

impl Tlsa<'_> {
    /// Checks the records of `name`, a name of this host as a mail exchanger.
    pub fn check(&self, name: &str) -> Vec<Finding> {
        let shown = self.server.map(|server| server.shown_for(name)).unwrap_or_default();
        match self.dns.tlsa(name) {
            Ok(answer) if !answer.data.is_empty() => self.of_records(&answer, &shown, name),
            Ok(_) | Err(NoAnswer::NoData | NoAnswer::NxDomain | NoAnswer::BadName) if shown.is_empty() => Vec::new(),
            Ok(_) | Err(NoAnswer::NoData | NoAnswer::NxDomain | NoAnswer::BadName) => {
                let text = format!("{name} has no TLSA record: other hosts cannot verify it with DANE");
                let advice = "if the zone is signed (DNSSEC), publish this and keep the key; see penfold-tls(7)";
                vec![publish(make(Level::Note, text).advise(advice), &shown, name)]
            }
            Err(why) => {
                let finding = unknown(Topic::Tls, &format!("the TLSA records of {name}"), &why);
                vec![finding.advise("if it fails for others, too, mail from hosts with DANE waits")]
            }
        }
    }

    fn of_records(&self, answer: &Answered<Vec<Association>>, shown: &[Shown<'_>], name: &str) -> Vec<Finding> {
        let is_ignored = self.dns.is_validating() && !answer.is_secure;
        // Without DNSSEC, others ignore the records, and no mail waits.
        let bad = if is_ignored { Level::Warning } else { Level::Error };
        let mut findings = Vec::new();
        if is_ignored {
            let text = format!("the TLSA records of {name} are not secured by DNSSEC: other hosts ignore them");
            findings.push(make(Level::Note, text).advise("sign the zone, or remove the records"));
        }
        if shown.is_empty() {
            let text =
                format!("{name} has TLSA records, and this host has no certificate: mail from hosts with DANE waits");
            findings.push(make(bad, text).advise("see [tls] in penfold.conf(5), or remove the records"));
            return findings;
        }
        if associations(name, &answer.data).is_none() {
            let text = format!("no TLSA record of {name} can be used for mail: other hosts do not verify this host");
            findings.push(publish(make(Level::Warning, text), shown, name));
            return findings;
        }
        let wrong = shown.iter().filter_map(|one| Some((one, self.verify(name, &answer.data, one).err()?)));
        let wrong: Vec<_> = wrong.map(|(one, why)| not_for(name, one, &why, bad)).collect();
        if wrong.is_empty() {
            findings.extend(self.of_good(answer, shown, name, is_ignored));
        }
        findings.extend(wrong);
        findings
    }

    /// Whether a client with DANE accepts a certificate.
    fn verify(&self, name: &str, records: &[Association], shown: &Shown<'_>) -> Result<(), Fault> {
        let verification =
            associations(name, records).map_or(Verification::None, |all| Verification::Dane(Arc::new(all)));
        self.client.verify(name, &verification, &shown.chain)
    }

    /// The findings if the records are for all certificates.
    fn of_good(
        &self,
        answer: &Answered<Vec<Association>>,
        shown: &[Shown<'_>],
        name: &str,
        is_ignored: bool,
    ) -> Vec<Finding> {
        let mut findings = Vec::new();
        let is_for = |record: &Association, one: &Shown<'_>| {
            let record = slice::from_ref(record);
            associations(name, record).is_some() && self.verify(name, record, one).is_ok()
        };
        let (ours, others): (Vec<_>, Vec<_>) =
            answer.data.iter().partition(|record| shown.iter().any(|one| is_for(record, one)));
        if !is_ignored {
            let what = match (self.dns.is_validating(), others.len()) {
                (false, _) => "; whether DNSSEC secures them is not known, see dns.trust_ad",
                (true, 0) => "",
                (true, _) => "; others are for other keys, such as the next one",
            };
            let text = format!("the TLSA records of {name} are for the certificates in use{what}");
            findings.push(make(Level::Good, text));
        }
        if ours.iter().all(|record| record.usage == HOST && record.selector == WHOLE) {
            let text = format!("the TLSA records of {name} must change with every renewal of a certificate");
            findings.push(publish(make(Level::Note, text).advise("these change only with the key"), shown, name));
        }
        findings
    }
}

/// The certificate usage for the server itself (DANE-EE).
const HOST: u8 = 3;
/// The selector for the whole certificate.
const WHOLE: u8 = 0;

fn make(level: Level, text: String) -> Finding {
    Finding::new(level, Topic::Tls, text)
}

fn associations(name: &str, records: &[Association]) -> Option<Associations> {
    Associations::new(name, &[], records.iter().map(|r| (r.usage, r.selector, r.matching, &*r.data)))
}

/// Adds the records of certificates.
fn publish(finding: Finding, shown: &[Shown<'_>], name: &str) -> Finding {
    let mut digests: Vec<_> = shown.iter().map(|one| one.digest).collect();
    digests.sort();
    digests.dedup();
    let records = digests.iter().map(|digest| format!("{}. IN TLSA {}", tlsa_name(name), digest.data()));
    records.fold(finding, Finding::publish)
}

/// The finding about a certificate that a client with DANE does not accept.
fn not_for(name: &str, shown: &Shown<'_>, why: &Fault, level: Level) -> Finding {
    let file = shown.file.display();
    let text = format!("{file}: the TLSA records of {name} are not for this certificate ({why})");
    let advice = "mail from hosts with DANE waits; add this record, and change to a new key as penfold-tls(7) says";
    publish(make(level, text).advise(advice), slice::from_ref(shown), name)
}

//! The records that make other hosts accept mail from a domain of this host: SPF, DKIM and DMARC.

use std::net::IpAddr;

use super::domains::Exchangers;
use super::finding::{Finding, Level, Topic};
use super::name::unknown;
use crate::cli::dkim::zone_record;
use crate::config::Config;
use crate::dns::lookup::Lookup;
use crate::mailauth::dmarc::{Policy, Record, record_names};
use crate::mailauth::keys::published::Published;
use crate::mailauth::keys::{Keys, Named};
use crate::mailauth::spf::{self, SpfResult, is_spf};
use crate::outcome::NoAnswer;

/// The maximum number of addresses in a record that is proposed.
const MAX_ADDRESSES: usize = 8;

/// What the checks of a domain need.
pub struct Senders<'a> {
    /// The DNS.
    pub dns: &'a dyn Lookup,
    /// The configuration.
    pub config: &'a Config,
    /// The keys that sign mail; `None` if they could not be read.
    pub keys: Option<&'a Keys>,
    /// The public addresses from which this host sends; none if a smart host sends its mail, or if
    /// they are not known.
    pub from: &'a [IpAddr],
}

impl Senders<'_> {
    /// Checks the records of a domain.
    pub fn check(&self, domain: &str, exchangers: &Exchangers) -> Vec<Finding> {
        let mut findings = Vec::new();
        let has_spf = self.spf(domain, exchangers, &mut findings);
        let has_key = self.dkim(domain, &mut findings);
        self.dmarc(domain, has_spf || has_key, &mut findings);
        findings
    }

    /// Checks the SPF record. Returns whether receivers may find that it permits this host; true if
    /// that is not known.
    fn spf(&self, domain: &str, exchangers: &Exchangers, findings: &mut Vec<Finding>) -> bool {
        let make = |level, text| Finding::new(level, Topic::Domain, text);
        let records = match self.dns.txt(domain) {
            Ok(texts) => texts.into_iter().filter(|text| is_spf(text)).collect(),
            Err(NoAnswer::NoData | NoAnswer::NxDomain | NoAnswer::BadName) => Vec::new(),
            Err(why) => {
                findings.push(unknown(Topic::Domain, &format!("the SPF record of {domain}"), &why));
                return true;
            }
        };
        let [record] = records.as_slice() else {
            findings.push(if records.is_empty() {
                let text = format!("{domain} has no SPF record: some hosts refuse its mail or call it suspicious");
                let finding = make(Level::Warning, text);
                match new_record(self.from, !exchangers.ours.is_empty()) {
                    Some(terms) => finding.publish(zone_record(domain, &terms)),
                    None => finding.advise("publish the record that the operator of the smart host names"),
                }
            } else {
                let text = format!("{domain} has {} SPF records: receivers use none of them", records.len());
                make(Level::Error, text).advise("join them in one record")
            });
            return false;
        };
        let record = String::from_utf8_lossy(record);
        let before = findings.len();
        findings.extend(self.spf_of_all(domain, &record));
        match self.from {
            [] => findings.push(make(Level::Good, format!("{domain} has an SPF record: {record}"))),
            _ if findings.len() == before => {
                findings.push(make(Level::Good, format!("the SPF record of {domain} permits this host")));
            }
            _ => return false,
        }
        true
    }

    /// Evaluates the record of a domain for all addresses of this host. Returns a finding for each
    /// address that the record does not permit.
    fn spf_of_all(&self, domain: &str, record: &str) -> Vec<Finding> {
        let host = &self.config.hostname;
        let check = |address: IpAddr| spf::check(self.dns, address, host, &format!("postmaster@{domain}"), host);
        let checked: Vec<_> = self.from.iter().map(|address| (*address, check(*address))).collect();
        let is_denied = |result| !matches!(result, SpfResult::Pass | SpfResult::TempError | SpfResult::PermError);
        // Only one record can be published, so it must permit all addresses.
        let denied = checked.iter().filter(|(_, checked)| is_denied(checked.result)).map(|(address, _)| *address);
        let record_for_all = denied.fold(record.to_owned(), |record, address| with(&record, address));
        let mut findings: Vec<Finding> = Vec::new();
        for (address, checked) in &checked {
            let (result, by) = (checked.result, &checked.mechanism);
            let found = spf_of(domain, *address, (result, by), record, &record_for_all);
            // A record that cannot be used is one fault, whatever the address.
            findings.extend(found.filter(|found| !findings.contains(found)));
        }
        findings
    }

    /// Checks the keys of a domain. Returns whether receivers may find one of them; true if that is
    /// not known.
    fn dkim(&self, domain: &str, findings: &mut Vec<Finding>) -> bool {
        let Some(keys) = self.keys else { return true };
        let make = |level, text: String| Finding::new(level, Topic::Domain, text);
        let named: Vec<Named> = keys.all().into_iter().filter(|named| named.domain == domain).collect();
        if named.is_empty() {
            let advice =
                format!("penfoldctl dkim new {domain} makes keys, their records, and the lines for penfold.conf");
            findings.push(
                make(Level::Warning, format!("mail from {domain} is not signed: there is no [[dkim]] for it"))
                    .advise(advice),
            );
            return false;
        }
        let mut is_found = false;
        for named in &named {
            let found = Published::of(self.dns, named);
            let text = format!("the key {}: {found}", named.dns_name());
            is_found |= found.is_good() || matches!(found, Published::Unknown(_));
            findings.push(match &found {
                Published::Good => make(Level::Good, text),
                Published::Testing => make(Level::Warning, text),
                Published::Unknown(why) => unknown(Topic::Domain, &format!("the key {}", named.dns_name()), why),
                _ => make(Level::Error, text).publish(zone_record(&named.dns_name(), &named.current().record())),
            });
        }
        is_found
    }

    /// Checks the DMARC record. `can_pass` says whether mail of this host can pass its check.
    fn dmarc(&self, domain: &str, can_pass: bool, findings: &mut Vec<Finding>) {
        let make = |level, text: String| Finding::new(level, Topic::Domain, text);
        for name in record_names(domain) {
            let texts = match self.dns.txt(&name) {
                Ok(texts) => texts,
                Err(NoAnswer::NoData | NoAnswer::NxDomain | NoAnswer::BadName) => continue,
                Err(why) => return findings.push(unknown(Topic::Domain, &format!("the record {name}"), &why)),
            };
            let records: Vec<Record> = texts.iter().filter_map(|text| Record::parse(text)).collect();
            let [record] = records.as_slice() else {
                if records.is_empty() {
                    continue;
                }
                let text = format!("there are {} DMARC records at {name}: receivers use none of them", records.len());
                return findings.push(make(Level::Error, text).advise("keep one of them"));
            };
            let is_above = name != format!("_dmarc.{domain}");
            let policy = if is_above { record.subdomains.or(record.policy) } else { record.policy };
            findings.push(match policy {
                None => make(Level::Warning, format!("the DMARC record at {name} has no valid policy (p=)"))
                    .publish(zone_record(&name, "v=DMARC1; p=none")),
                Some(policy) if policy != Policy::None && !can_pass => {
                    let policy = policy.name();
                    let text = format!("mail from {domain} fails DMARC, and the record at {name} asks for {policy}");
                    make(Level::Error, text).advise("correct SPF or DKIM as said above")
                }
                Some(policy) => {
                    make(Level::Good, format!("{domain} has a DMARC record with the policy {}", policy.name()))
                }
            });
            return;
        }
        let text = format!("{domain} has no DMARC record: large mailbox providers ask for one");
        findings.push(make(Level::Warning, text).publish(zone_record(&format!("_dmarc.{domain}"), "v=DMARC1; p=none")));
    }
}

/// The finding about the result of SPF for an address, unless the record permits it. `by` is what has
/// decided.
fn spf_of(
    domain: &str,
    address: IpAddr,
    (result, by): (SpfResult, &str),
    record: &str,
    record_for_all: &str,
) -> Option<Finding> {
    let make = |level, text| Some(Finding::new(level, Topic::Domain, text));
    match result {
        SpfResult::Pass => None,
        SpfResult::TempError => {
            make(Level::Unknown, format!("whether the SPF record of {domain} permits {address}: {by}"))
        }
        SpfResult::PermError => {
            make(Level::Error, format!("the SPF record of {domain} cannot be used: {by}: {record}"))
                .map(|finding| finding.advise("correct the record, or those that it includes"))
        }
        result => {
            let level = if result == SpfResult::Fail { Level::Error } else { Level::Warning };
            let text = format!(
                "the SPF record of {domain} does not permit the address {address} of this host: {result} by {by}"
            );
            make(level, text).map(|finding| finding.publish(zone_record(domain, record_for_all)))
        }
    }
}

/// The record for a domain whose mail comes from these addresses. `is_exchanger` says whether this
/// host is a mail exchanger of the domain.
fn new_record(from: &[IpAddr], is_exchanger: bool) -> Option<String> {
    if from.is_empty() {
        return None;
    }
    let terms: Vec<String> = match is_exchanger {
        true => vec!["mx".into()],
        false => from.iter().take(MAX_ADDRESSES).map(|address| term(*address)).collect(),
    };
    Some(format!("v=spf1 {} -all", terms.join(" ")))
}

/// The term of an SPF record for an address.
fn term(address: IpAddr) -> String {
    format!("{}:{address}", if address.is_ipv4() { "ip4" } else { "ip6" })
}

/// A record with a term for one more address, before its last terms.
fn with(record: &str, address: IpAddr) -> String {
    let mut terms: Vec<&str> = record.split(' ').filter(|term| !term.is_empty()).collect();
    let term = term(address);
    let is_last = |term: &&str| {
        let term = term.to_ascii_lowercase();
        term.trim_start_matches(['+', '-', '~', '?']) == "all"
            || term.starts_with("redirect=")
            || term.starts_with("exp=")
    };
    // Another record that is named by redirect= is not asked if a term matches.
    let at = terms.iter().position(is_last).unwrap_or(terms.len());
    terms.insert(at, &term);
    terms.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_gets_one_more_address() {
        let four: IpAddr = "192.0.2.1".parse().expect("an address");
        let six: IpAddr = "2001:db8::1".parse().expect("an address");
        for (record, address, wanted) in [
            ("v=spf1 mx -all", four, "v=spf1 mx ip4:192.0.2.1 -all"),
            ("v=spf1", six, "v=spf1 ip6:2001:db8::1"),
            ("v=spf1  a ~ALL exp=x.y", six, "v=spf1 a ip6:2001:db8::1 ~ALL exp=x.y"),
            ("v=spf1 redirect=x.y", four, "v=spf1 ip4:192.0.2.1 redirect=x.y"),
        ] {
            assert_eq!(with(record, address), wanted);
        }
        assert_eq!(new_record(&[four, six], true).as_deref(), Some("v=spf1 mx -all"));
        assert_eq!(new_record(&[four, six], false).as_deref(), Some("v=spf1 ip4:192.0.2.1 ip6:2001:db8::1 -all"));
        assert_eq!(new_record(&[], true), None);
    }
}

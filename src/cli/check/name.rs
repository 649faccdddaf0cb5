//! The name of this host in the DNS: its addresses, and their names.

use std::net::IpAddr;

use super::domains::Way;
use super::finding::{Finding, Level, Topic};
use crate::config::Config;
use crate::dns::lookup::Lookup;
use crate::dns::{is_documentation, is_public};
use crate::outcome::NoAnswer;

/// What is known about the addresses of this host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    /// The addresses from which this host connects to others, and to which its listeners are bound.
    pub own: Vec<IpAddr>,
    /// The addresses of the hostname in the DNS.
    pub named: Vec<IpAddr>,
}

impl Addresses {
    /// The public addresses under which others know this host: its own ones. If it has none, it is
    /// behind a translating router, and the addresses in the DNS are assumed to be those of the
    /// router.
    pub fn seen(&self) -> Vec<IpAddr> {
        let public = |all: &[IpAddr]| all.iter().copied().filter(|address| is_public(*address)).collect();
        let own: Vec<IpAddr> = public(&self.own);
        if own.is_empty() { public(&self.named) } else { own }
    }

    /// Whether this host has no public address of its own.
    pub fn is_translated(&self) -> bool {
        !self.own.iter().any(|address| is_public(*address))
    }

    /// Whether an address is one of this host.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.own.contains(&address) || self.named.contains(&address)
    }
}

/// Looks up the addresses of a name, in the DNS alone. No address is left out.
///
/// # Errors
/// The same as for [`Lookup::ipv4`].
pub fn addresses(dns: &dyn Lookup, name: &str) -> Result<Vec<IpAddr>, NoAnswer> {
    match (dns.ipv4(name), dns.ipv6(name)) {
        (Err(NoAnswer::NoData | NoAnswer::NxDomain), Err(e)) | (Err(e), Err(_)) => Err(e),
        (four, six) => {
            let four = four.unwrap_or_default().into_iter().map(IpAddr::from);
            Ok(four.chain(six.unwrap_or_default().into_iter().map(IpAddr::from)).collect())
        }
    }
}

/// What is wrong with the addresses of a name if other hosts can reach none of them.
pub fn unreachable(addresses: &[IpAddr]) -> Option<String> {
    let is_reachable = |address: &IpAddr| is_public(*address) && !is_documentation(*address);
    let first = addresses.first().filter(|_| !addresses.iter().any(is_reachable))?;
    let why = if is_public(*first) { "is for examples in documentation" } else { "is not public" };
    Some(format!("has only the address {}, which {why}", list(addresses)))
}

fn list(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The finding if a look-up has failed.
pub fn unknown(topic: Topic, what: &str, why: &NoAnswer) -> Finding {
    Finding::new(Level::Unknown, topic, format!("{what}: {why}")).advise("check dns.nameservers or resolv.conf(5)")
}

/// The record of a name for an address.
pub fn address_record(name: &str, address: IpAddr) -> String {
    format!("{name}. IN {} {address}", if address.is_ipv4() { "A" } else { "AAAA" })
}

/// The name under which the name of an address is published.
fn reverse(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(address) => {
            let digits = format!("{:032x}", address.to_bits());
            digits.chars().rev().map(|digit| format!("{digit}.")).collect::<String>() + "ip6.arpa"
        }
    }
}

/// Checks the hostname and the names of the addresses. `own` are the addresses of this host.
pub fn check(dns: &dyn Lookup, config: &Config, own: Vec<IpAddr>) -> (Addresses, Vec<Finding>) {
    let host = &config.hostname;
    let mut addresses = Addresses { own, named: Vec::new() };
    if !host.contains('.') {
        // A warning about the configuration says so.
        return (addresses, Vec::new());
    }
    let mut findings = Vec::new();
    match self::addresses(dns, host) {
        Ok(found) => addresses.named = found,
        Err(NoAnswer::NoData | NoAnswer::NxDomain | NoAnswer::BadName) => {}
        Err(why) => return (addresses, vec![unknown(Topic::Name, host, &why)]),
    }
    if let Ok(Some(other)) = dns.alias(host) {
        let text = format!("{host} is another name (CNAME) of {other}: a mail exchanger must not have such a name");
        findings.push(Finding::new(Level::Warning, Topic::Name, text).advise("give it address records of its own"));
    }
    let is_sending = config.remote.smarthosts.is_empty() && !config.remote.local_only;
    let first = findings.len();
    of_addresses(config, &addresses, &mut findings);
    if !is_sending && Way::of(config) == Way::Through {
        // Only the smart host sees this name.
        let complaints = findings.iter_mut().skip(first).filter(|finding| finding.level != Level::Good);
        complaints.for_each(|finding| finding.level = Level::Note);
    }
    for address in addresses.seen().into_iter().filter(|_| is_sending) {
        findings.push(of_reverse(dns, host, address));
    }
    (addresses, findings)
}

/// Compares the addresses of the hostname with those of this host.
fn of_addresses(config: &Config, addresses: &Addresses, findings: &mut Vec<Finding>) {
    let (host, seen) = (&config.hostname, addresses.seen());
    let place = || config.places.complaint("hostname", "");
    let mut add = |finding: Finding| findings.push(finding.at(place()));
    if addresses.named.is_empty() {
        let text = format!("hostname {host} has no address in the DNS: other hosts refuse mail from such a name");
        let finding = Finding::new(Level::Error, Topic::Name, text);
        let records = seen.iter().map(|address| address_record(host, *address));
        let finding = records.fold(finding, Finding::publish);
        return add(if seen.is_empty() { finding.advise("publish the public address of this host") } else { finding });
    }
    if let Some(wrong) = unreachable(&addresses.named) {
        let text = format!("hostname {host} {wrong}");
        add(Finding::new(Level::Warning, Topic::Name, text).advise("publish the public address of this host"));
        if !addresses.named.iter().any(|address| is_public(*address)) {
            return;
        }
    }
    if addresses.is_translated() {
        let own = if addresses.own.is_empty() { "none".into() } else { list(&addresses.own) };
        let text = format!(
            "this host has no public address ({own}): the addresses of {host} ({}) are assumed to lead to it",
            list(&addresses.named)
        );
        return add(Finding::new(Level::Note, Topic::Name, text));
    }
    for address in seen.iter().filter(|address| !addresses.named.contains(address)) {
        let text = format!("hostname {host} does not have the address {address} of this host");
        add(Finding::new(Level::Warning, Topic::Name, text).publish(address_record(host, *address)));
    }
    let strange = addresses.named.iter().filter(|address| !seen.contains(address));
    let strange: Vec<_> = strange.copied().collect();
    if strange.len() == addresses.named.len() {
        let text = format!("hostname {host} has the address {}, and no address of this host", list(&strange));
        add(Finding::new(Level::Error, Topic::Name, text).advise("publish the address, or correct hostname"));
    } else {
        add(Finding::new(Level::Good, Topic::Name, format!("{host} has the address {}", list(&addresses.named))));
    }
}

/// Checks that an address has a name that leads back to it, and that it is `host`.
pub fn of_reverse(dns: &dyn Lookup, host: &str, address: IpAddr) -> Finding {
    let names = match dns.names(address) {
        Ok(names) => names,
        Err(NoAnswer::NoData | NoAnswer::NxDomain) => Vec::new(),
        Err(why) => return unknown(Topic::Name, &format!("the name of {address}"), &why),
    };
    let leads_back = |name: &&String| addresses(dns, name).is_ok_and(|found| found.contains(&address));
    let advice = "the owner of the address, often the provider, can publish this";
    let record = format!("{}. IN PTR {host}.", reverse(address));
    match (names.first(), names.iter().find(leads_back)) {
        (None, _) => {
            let text = format!("the address {address} has no name: many hosts refuse mail from such an address");
            Finding::new(Level::Error, Topic::Name, text).advise(advice).publish(record)
        }
        (Some(name), None) => {
            let text = format!("the address {address} has the name {name}, which does not lead back to it");
            Finding::new(Level::Error, Topic::Name, text).advise(advice).publish(record)
        }
        (_, Some(name)) if name.eq_ignore_ascii_case(host) => {
            Finding::new(Level::Good, Topic::Name, format!("the address {address} has the name {name}"))
        }
        (_, Some(name)) => {
            let text =
                format!("the address {address} has the name {name}, and not {host}: some hosts count that as a fault");
            Finding::new(Level::Note, Topic::Name, text).advise(advice).publish(record)
        }
    }
}

//! The domains for which this host receives mail: whether other hosts find the way here.

use std::net::IpAddr;

use super::finding::{Finding, Level, Topic};
use super::name::{Addresses, addresses, unknown, unreachable};
use crate::config::{Config, Kind};
use crate::dns::lookup::Lookup;
use crate::outcome::NoAnswer;

/// How mail for a domain comes to this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Other hosts connect to this host.
    Direct,
    /// Mail comes through another host, such as a front end or a relay.
    Through,
}

impl Way {
    /// The way that the listeners of the configuration show.
    pub fn of(config: &Config) -> Self {
        let is_open = |listen: &crate::config::Listen| {
            let is_loopback = listen.tcp().is_some_and(|address| address.ip().to_canonical().is_loopback());
            listen.kind == Kind::Smtp && !is_loopback && listen.proxy.is_empty() && listen.xclient.is_empty()
        };
        if config.listen.iter().any(is_open) { Self::Direct } else { Self::Through }
    }
}

/// What the DNS says about the mail exchangers of a domain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exchangers {
    /// The names of those that are this host.
    pub ours: Vec<String>,
    /// The names of all.
    pub listed: Vec<String>,
}

/// Checks the mail exchangers of a domain of this host.
pub fn check(
    dns: &dyn Lookup,
    config: &Config,
    domain: &str,
    here: &Addresses,
    way: Way,
) -> (Exchangers, Vec<Finding>) {
    let mut findings = Vec::new();
    let mut exchangers = Exchangers::default();
    let host = &config.hostname;
    let record = format!("{domain}. IN MX 10 {host}.");
    let level = if way == Way::Direct { Level::Error } else { Level::Note };
    let elsewhere = |text: String| Finding::new(level, Topic::Domain, text).publish(record.clone());
    let listed = match dns.mx(domain) {
        Ok(listed) => listed,
        Err(NoAnswer::NoData | NoAnswer::NxDomain) => {
            return (exchangers, vec![without(dns, host, domain, here, elsewhere)]);
        }
        Err(why) => {
            return (exchangers, vec![unknown(Topic::Domain, &format!("the mail exchangers of {domain}"), &why)]);
        }
    };
    if listed.iter().any(|(_, name)| name == ".") {
        let text = format!("{domain} says in the DNS that it accepts no mail (null MX)");
        return (exchangers, vec![elsewhere(text)]);
    }
    exchangers.listed = listed.iter().map(|(_, name)| name.clone()).collect();
    for (_, name) in &listed {
        match one(dns, host, domain, name, here) {
            (true, found) => {
                exchangers.ours.push(name.clone());
                findings.extend(found);
            }
            (false, found) => findings.extend(found),
        }
    }
    let all = || listed.iter().map(|(_, name)| name.as_str()).take(5).collect::<Vec<_>>().join(", ");
    match exchangers.ours.first() {
        Some(name) => {
            let text = format!("the mail exchanger {name} of {domain} is this host");
            findings.push(Finding::new(Level::Good, Topic::Domain, text));
        }
        None if listed.is_empty() => {
            findings.push(elsewhere(format!("the MX records of {domain} have no usable name")))
        }
        None if findings.iter().any(|finding| finding.level == Level::Unknown) => {}
        None => {
            findings.push(elsewhere(format!("no mail exchanger of {domain} is this host: its mail goes to {}", all())));
        }
    }
    (exchangers, findings)
}

/// Checks one mail exchanger of a domain. Returns whether it is this host, and the complaints.
fn one(dns: &dyn Lookup, host: &str, domain: &str, name: &str, here: &Addresses) -> (bool, Vec<Finding>) {
    let (mut is_ours, mut findings) = (false, Vec::new());
    match addresses(dns, name) {
        Ok(found) => {
            is_ours = name == host || found.iter().any(|address| here.contains(*address));
            // The check of the hostname says the same about its own addresses.
            if let Some(wrong) = unreachable(&found).filter(|_| name != host) {
                let text = format!("{name}, a mail exchanger of {domain}, {wrong}");
                let advice = "publish its public address, or remove the MX record";
                findings.push(Finding::new(Level::Warning, Topic::Domain, text).advise(advice));
            }
        }
        Err(NoAnswer::NoData | NoAnswer::NxDomain | NoAnswer::BadName) => {
            let text = format!("{name}, a mail exchanger of {domain}, has no address");
            let advice = "publish its address, or remove the MX record";
            findings.push(Finding::new(Level::Error, Topic::Domain, text).advise(advice));
        }
        Err(why) => findings.push(unknown(Topic::Domain, &format!("the address of {name}"), &why)),
    }
    if let Ok(Some(other)) = dns.alias(name) {
        let text = format!("{name}, a mail exchanger of {domain}, is another name (CNAME) of {other}");
        let record = format!("{domain}. IN MX 10 {other}.");
        findings.push(Finding::new(Level::Warning, Topic::Domain, text).publish(record));
    }
    (is_ours, findings)
}

/// The finding for a domain without MX records: its mail goes to its address (RFC 5321 5.1).
fn without(
    dns: &dyn Lookup,
    host: &str,
    domain: &str,
    here: &Addresses,
    elsewhere: impl Fn(String) -> Finding,
) -> Finding {
    match addresses(dns, domain) {
        Ok(found) if found.iter().any(|address| here.contains(*address)) => {
            // As with mail exchangers, the check of the hostname says the same about its own addresses.
            if let Some(wrong) = unreachable(&found).filter(|_| domain != host) {
                return elsewhere(format!("{domain} has no MX record, and {wrong}"));
            }
            let text = format!("{domain} has no MX record, and its address is that of this host");
            Finding::new(Level::Good, Topic::Domain, text)
        }
        Ok(found) => {
            let address = found.first().map(IpAddr::to_string).unwrap_or_default();
            elsewhere(format!(
                "{domain} has no MX record, and its address {address} is not this host: its mail goes there"
            ))
        }
        Err(NoAnswer::NoData) => {
            elsewhere(format!("{domain} has neither an MX record nor an address: no mail can come"))
        }
        Err(NoAnswer::NxDomain | NoAnswer::BadName) => {
            elsewhere(format!("{domain} does not exist in the DNS: no mail can come"))
        }
        Err(why) => unknown(Topic::Domain, &format!("the address of {domain}"), &why),
    }
}

//! What the DNS says about this host and its domains.

use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use super::domains;
use super::finding::{Finding, Level, Report, Topic};
use super::name::{self, Addresses};
use super::proof::{Certificates, Fetch, Proof};
use super::senders::Senders;
use crate::cli::published::is_for_others;
use crate::config::Config;
use crate::dns::Dns;
use crate::dns::lookup::{Lookup, Until};
use crate::mailauth::keys::Keys;
use crate::outcome::NoAnswer;

/// The time limit for all look-ups together.
pub const LIMIT: Duration = Duration::from_secs(30);
/// The time limit for the first look-ups.
const FIRST: Duration = Duration::from_secs(10);
/// The maximum number of domains that are checked.
const MAX_DOMAINS: usize = 200;
/// The number of domains that are checked at the same time.
const AT_ONCE: usize = 10;

/// What the checks need.
pub struct Net<'a> {
    /// The DNS.
    pub dns: &'a dyn Lookup,
    /// The configuration.
    pub config: &'a Config,
    /// The keys that sign mail; `None` if they could not be read.
    pub keys: Option<&'a Keys>,
    /// The addresses of this host.
    pub own: Vec<IpAddr>,
    /// The addresses from which this host connects under other names, with these names.
    pub sources: Vec<(IpAddr, String)>,
    /// The certificates of this host; `None` if they could not be read.
    pub certificates: Option<&'a Certificates<'a>>,
    /// Fetches MTA-STS policies; `None` if that cannot be done.
    pub fetch: Option<&'a Fetch<'a>>,
}

/// Looks up the names on which most depends, all at once. If no name server answers in time, returns
/// one of these names.
pub fn mute(dns: &Dns, config: &Config) -> Option<String> {
    let lookup = Until { dns, until: Instant::now() + config.dns.timeout.min(FIRST) };
    let smart_hosts = config.remote.smarthosts.iter().map(|host| host.host.as_str());
    let smart_hosts = smart_hosts.filter(|host| host.parse::<IpAddr>().is_err());
    let domains = config.local_domains().chain(config.relay.domains.iter().map(String::as_str));
    let names = std::iter::once(config.hostname.as_str()).chain(smart_hosts).chain(domains);
    let names: Vec<&str> = names.filter(|name| is_for_others(name)).take(AT_ONCE).collect();
    let found = lookup.addresses(&names, false);
    let is_mute = found.iter().all(|answer| matches!(answer, Err(NoAnswer::Timeout)));
    names.first().filter(|_| is_mute).map(|name| (*name).to_owned())
}

impl Net<'_> {
    /// Checks the name of this host and its domains. Returns its addresses, and adds the names under
    /// which it is a mail exchanger to `exchangers`.
    pub fn check(self, report: &mut Report, exchangers: &mut Vec<String>) -> Addresses {
        let (here, found) = name::check(self.dns, self.config, self.own.clone());
        report.findings.extend(found);
        let is_direct = self.config.remote.smarthosts.is_empty() && !self.config.remote.local_only;
        let mut from = if is_direct { here.seen() } else { Vec::new() };
        for (address, name) in self.sources.iter().filter(|_| is_direct) {
            report.findings.push(name::of_reverse(self.dns, name, *address));
            if !from.contains(address) {
                from.push(*address);
            }
        }
        let local = self.config.local_domains().map(|domain| (domain, true));
        let relayed = self.config.relay.domains.iter().map(|domain| (domain.as_str(), false));
        let all: Vec<_> = local.chain(relayed).filter(|(domain, _)| is_for_others(domain)).collect();
        for part in all.get(..all.len().min(MAX_DOMAINS)).unwrap_or_default().chunks(AT_ONCE) {
            let found: Vec<_> = thread::scope(|scope| {
                let one = |&(domain, is_local): &(_, _)| {
                    let (here, from) = (&here, from.as_slice());
                    let this = &self;
                    scope.spawn(move || this.domain(domain, is_local, here, from))
                };
                let threads: Vec<_> = part.iter().map(one).collect();
                threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
            });
            for (ours, findings) in found {
                report.findings.extend(findings);
                let new: Vec<_> = ours.into_iter().filter(|name| !exchangers.contains(name)).collect();
                exchangers.extend(new);
            }
        }
        if all.len() > MAX_DOMAINS {
            let text = format!("only the first {MAX_DOMAINS} of {} domains were checked", all.len());
            report.add(Finding::new(Level::Unknown, Topic::Domain, text));
        }
        here
    }

    /// Checks a local domain, or one for which this host is a backup mail exchanger.
    fn domain(&self, domain: &str, is_local: bool, here: &Addresses, from: &[IpAddr]) -> (Vec<String>, Vec<Finding>) {
        let way = domains::Way::of(self.config);
        let (exchangers, mut findings) = domains::check(self.dns, self.config, domain, here, way);
        if is_local {
            let senders = Senders { dns: self.dns, config: self.config, keys: self.keys, from };
            findings.extend(senders.check(domain, &exchangers));
        }
        let Self { dns, config, certificates, fetch, .. } = *self;
        findings.extend(Proof { dns, config, certificates, fetch }.check(domain, &exchangers));
        (exchangers.ours, findings)
    }
}

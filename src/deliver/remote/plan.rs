//! Tells which hosts an attempt would try, in which order, and how it would protect the connection.
//! Names are looked up in the DNS, but no host is connected to.

use std::net::{IpAddr, SocketAddr};

use super::addresses::place;
use super::credentials::Credentials;
use crate::destination::HostTarget;
use crate::dns::Dns;
use crate::endpoint::Endpoint;
use crate::envelope::MessageTls;
use crate::outcome::Outcome;
use crate::outgoing::Way;
use crate::tls_policy::{Rules, TlsPolicy};

/// The hosts of a destination, or the fallback hosts.
#[derive(Debug, Default)]
pub struct Plan {
    /// The hosts in groups of equal preference, the preferred group first. Within a group an attempt
    /// takes them in random order.
    pub groups: Vec<Vec<PlannedAddress>>,
    /// The look-ups that failed, and the reason why no further host is tried.
    pub failures: Vec<Outcome>,
}

/// An address that an attempt would try.
#[derive(Debug)]
pub struct PlannedAddress {
    /// The name and the address of the host, in the form of the log.
    pub host: String,
    /// The address under which the failures of the host are counted.
    pub place: Endpoint,
    /// The address from which this host would connect; `None` if the system chooses.
    pub source: Option<IpAddr>,
    /// How the connection would be protected. If the host may not be used now: the outcome.
    pub tls: Result<TlsPolicy, Outcome>,
    /// The user name with which this server logs in at the host; `None` if it does not.
    pub login: Option<String>,
}

/// Returns the plan for a destination. `credentials` is `None` if the table is not known,
/// and `message` is what the message demands of TLS. With `is_fallback` the hosts are the fallback
/// hosts, among which this host is left out.
pub fn plan(
    (target, way, is_fallback): (&HostTarget, &Way, bool),
    hostname: &str,
    rules: Rules<'_>,
    credentials: Option<&Credentials>,
    dns: &Dns,
    local: &[SocketAddr],
    message: MessageTls,
) -> Plan {
    let mut plan = Plan::default();
    let dnssec = rules.config.dane;
    let rules = Rules { dns: Some(dns), ..rules };
    let (groups, exchangers) = match target.groups(dns, hostname, dnssec) {
        Ok(found) => found,
        Err(outcome) => return Plan { failures: vec![outcome], ..plan },
    };
    let domain = rules.of_domain(target).with_exchangers(exchangers);
    for group in groups {
        let mut found = target.usable(dns, &group, local, false, dnssec);
        plan.failures.extend(found.failure);
        plan.failures.extend(target.keep_usable_by(way, &group, &mut found.peers).err());
        if found.is_this_host && is_fallback {
            continue;
        }
        if found.is_this_host {
            plan.failures.push(target.loops());
            return plan;
        }
        let planned = found.peers.iter().map(|peer| {
            let login = credentials.and_then(|credentials| credentials.of(target, peer));
            let tls = rules.of_host(&domain, peer, login.is_some(), message);
            let (host, place) = (peer.to_string(), place(&peer.endpoint));
            let source = peer.endpoint.ip().and_then(|ip| way.source_for(ip));
            PlannedAddress { host, place, source, tls, login: login.map(|login| login.user.clone()) }
        });
        plan.groups.push(planned.collect());
    }
    plan
}

//! Decides to which addresses a DMARC report may be sent.
//!
//! A domain may name any address in its record, even that of a victim. So the domain of an address
//! in another organization must have agreed by a record of its own (RFC 9990 4). Strangers choose
//! the domains. So a report never goes to a domain whose mail hosts have addresses of this host or
//! of a private network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::super::record::{Record, ReportUri};
use super::super::walk::organizational_domain;
use crate::mailauth::lookup::Lookup;
use crate::outcome::NoAnswer;

/// The maximum number of mail exchangers of a domain. A domain with more gets no reports.
const MAX_HOSTS: usize = 20;

/// Returns the addresses in `record` to which a report about `domain` may be sent. The record was
/// found at this domain. An address that cannot be checked now is left out.
pub fn allowed(lookup: &dyn Lookup, domain: &str, record: &Record) -> Vec<ReportUri> {
    let mut all: Vec<ReportUri> = Vec::new();
    let Ok(organization) = organizational_domain(lookup, domain) else { return all };
    for uri in &record.rua {
        let host = uri.address.domain();
        let is_own = organizational_domain(lookup, host).is_ok_and(|other| other == organization);
        let accepted = if is_own { vec![uri.clone()] } else { agreed(lookup, domain, uri) };
        for uri in accepted {
            if !all.iter().any(|known| known.address == uri.address) {
                all.push(uri);
            }
        }
    }
    all
}

/// Returns the addresses that are used in place of one in another organization. If that
/// organization has not agreed, there are none. If its record names other addresses in the same
/// domain, these are used. Otherwise the address itself is used.
fn agreed(lookup: &dyn Lookup, domain: &str, uri: &ReportUri) -> Vec<ReportUri> {
    let host = uri.address.domain();
    let Ok(texts) = lookup.txt(&format!("{domain}._report._dmarc.{host}")) else { return Vec::new() };
    let mut records = texts.iter().filter_map(|text| Record::parse(text)).peekable();
    if records.peek().is_none() {
        return Vec::new();
    }
    match records.find(|record| record.has_rua) {
        None => vec![uri.clone()],
        Some(record) if record.rua.iter().all(|other| other.address.domain() == host) => record.rua,
        // If the record names an address in another domain, no address may be used (RFC 9990 4).
        Some(_) => Vec::new(),
    }
}

/// Returns whether the addresses of all hosts that take mail for a domain are known, and are all
/// public.
pub fn has_public_hosts(lookup: &dyn Lookup, domain: &str) -> bool {
    let hosts = match lookup.mx(domain) {
        Ok(hosts) => hosts.into_iter().map(|(_, host)| host).collect(),
        Err(NoAnswer::NoData) => vec![domain.to_owned()],
        Err(_) => return false,
    };
    if hosts.len() > MAX_HOSTS || hosts.iter().any(|host| host == ".") {
        return false;
    }
    let mut addresses = Vec::new();
    for host in &hosts {
        for found in [lookup.ipv4(host).map(any), lookup.ipv6(host).map(any)] {
            match found {
                Ok(found) => addresses.extend(found),
                Err(NoAnswer::NoData | NoAnswer::NxDomain | NoAnswer::BadName) => {}
                Err(_) => return false,
            }
        }
    }
    !addresses.is_empty() && addresses.into_iter().all(is_public)
}

fn any(addresses: Vec<impl Into<IpAddr>>) -> Vec<IpAddr> {
    addresses.into_iter().map(Into::into).collect()
}

/// Returns whether an address is public: neither of this host nor of a private or local network.
/// Addresses for documentation count as public.
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_ipv4(address),
        IpAddr::V6(address) => is_public_ipv6(address),
    }
}

fn is_public_ipv4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_shared = a == 100 && (64..128).contains(&b);
    let is_benchmark = a == 198 && (18..20).contains(&b);
    let is_protocol = (a, b, c) == (192, 0, 0);
    !(a == 0
        || a >= 224
        || address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || is_shared
        || is_benchmark
        || is_protocol)
}

fn is_public_ipv6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    // Some forms of an IPv6 address contain an IPv4 address that the mail may reach:
    // IPv4-compatible addresses, NAT64 (RFC 6052, RFC 8215) and 6to4.
    let [.., high, low] = segments;
    let inside = match segments {
        [0, 0, 0, 0, 0, 0, _, _] | [0x64, 0xff9b, ..] => Some((high, low)),
        [0x2002, high, low, ..] => Some((high, low)),
        _ => None,
    };
    let ipv4 = inside.map(|(high, low)| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    // Hosts in the Internet have addresses in 2000::/3, or NAT64 addresses.
    let is_global = (segments[0] & 0xe000) == 0x2000 || segments[..2] == [0x64, 0xff9b];
    is_global && ipv4.is_none_or(is_public_ipv4)
}

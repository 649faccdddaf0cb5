//! Decides to which addresses a DMARC report may be sent.
//!
//! A domain may name any address in its record, even that of a victim. So the domain of an address
//! in another organization must have agreed to get reports, by a record of its own (RFC 9990 4).

use super::super::record::{Record, ReportUri};
use super::super::walk::organizational_domain;
use crate::dns::lookup::Lookup;

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

/// Returns the addresses that get reports in place of `uri`, an address outside the organization of
/// `domain`. If the organization of `uri` has not agreed, there are none. If the record by which it
/// agrees names other addresses in the domain of `uri`, these are used. Otherwise `uri` itself is
/// used.
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

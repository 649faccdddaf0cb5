//! Looks up whether a host has TLSA records (DANE: RFC 7672), which say how its certificate is
//! verified.
//!
//! Nothing is looked up for a host whose addresses are not secure, so a host without DNSSEC costs no
//! query. If the name of the host is an alias (CNAME), the records may be at the name at the end of
//! the aliases or at the name itself, in this order (RFC 7672 2.2.2). If the look-up fails, the host
//! must not be used now: somebody may have tampered with the answer. If no record is usable, the
//! connection must be encrypted, but the host cannot be verified.
//!
//! If the MX records of a domain are not secure, the records of its hosts count all the same. Then
//! they protect the connection to the host, but do not prove that it is a host of the domain
//! ([`Exchangers::is_secure`]).

use std::sync::Arc;

use super::{DomainPolicy, Rules, Security, TlsPolicy};
use crate::config::{RemoteTls, Scheme};
use crate::destination::{Dnssec, Peer};
use crate::dns::{Answered, Association, Dns};
use crate::endpoint::Endpoint;
use crate::outcome::{NoAnswer, Outcome};
use crate::policy::{Reason, Source};
use crate::reply::Status;
use crate::tls::{Associations, Fault, FaultKind, Verification};

/// What the look-up of the mail exchangers of a domain has shown. The default is that of hosts that
/// the configuration names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exchangers {
    /// Whether it is certain that the hosts are those of the domain: the MX records are secure.
    pub is_secure: bool,
    /// The domain and, if it is an alias, the name that it leads to: certificates of an authority may
    /// be for one of these names, too (RFC 7672 3.2.2).
    pub names: Vec<String>,
}

/// What the TLSA records of a host demand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dane {
    /// There are none, or they are not secure.
    Absent,
    /// The look-up failed: the host must not be used now.
    NotNow(Fault),
    /// There are these, in the presentation format, but none of them is usable: the connection must
    /// be encrypted.
    Unusable(Vec<String>),
    /// The connection must be encrypted, and the host be verified by these records.
    Usable(Arc<Associations>),
}

impl Rules<'_> {
    /// The policy by the host's TLSA records. `base` makes the policy without them.
    ///
    /// # Errors
    /// The outcome of a delivery if the host may not be used now.
    pub(super) fn by_dane(
        &self,
        domain: &DomainPolicy,
        peer: &Peer,
        base: impl FnOnce() -> Result<TlsPolicy, Outcome>,
    ) -> Result<TlsPolicy, Outcome> {
        // A scheme that requires TLS says how the host is verified.
        let is_on = self.config.dane && self.config.tls != RemoteTls::None && peer.scheme == Scheme::Smtp;
        let Some(dns) = self.dns.filter(|_| is_on) else { return base() };
        let reason = Reason { rule: "dane", source: Source::Standard("RFC 7672") };
        match of_host(dns, peer, &domain.exchangers) {
            Dane::Absent => base(),
            Dane::NotNow(fault) => Err(deferred(fault)),
            // If a valid certificate is required without DANE, it still is.
            Dane::Unusable(_) => match base()? {
                base if base.is_strict() => Ok(base),
                _ => Ok(encrypted(peer, Verification::None, reason)),
            },
            Dane::Usable(associations) => {
                // If the MX records are not secure, the host may be none of the domain.
                if domain.mx_domain.is_some() && !domain.exchangers.is_secure {
                    base()?;
                }
                Ok(encrypted(peer, Verification::Dane(associations), reason))
            }
        }
    }

    /// The policy for a host that must be verified by its TLSA records.
    ///
    /// # Errors
    /// The outcome of a delivery if it cannot be verified so now.
    pub(super) fn only_by_dane(
        &self,
        domain: &DomainPolicy,
        peer: &Peer,
        reason: Reason,
    ) -> Result<TlsPolicy, Outcome> {
        // A listing looks nothing up.
        let Some(dns) = self.dns else { return Ok(encrypted(peer, Verification::authority(), reason)) };
        let host = peer.identity();
        let missing =
            |what: &str| Err(deferred(Fault::new(FaultKind::DaneRequired, &format!("DANE is required: {what}"))));
        if !self.config.dane || !dns.trusts_servers() {
            return missing("remote.dane is false, or no trusted name server verifies DNSSEC");
        }
        if domain.mx_domain.is_some() && !domain.exchangers.is_secure {
            return missing("the MX records of the domain are not secure");
        }
        match of_host(dns, peer, &domain.exchangers) {
            Dane::Absent => missing(&format!("{host} has no secure TLSA records")),
            Dane::Unusable(_) => missing(&format!("{host} has no usable TLSA records")),
            Dane::NotNow(fault) => Err(deferred(fault)),
            Dane::Usable(associations) => Ok(encrypted(peer, Verification::Dane(associations), reason)),
        }
    }
}

/// A policy that requires TLS.
fn encrypted(peer: &Peer, verification: Verification, reason: Reason) -> TlsPolicy {
    let security = if peer.scheme == Scheme::Smtps { Security::Implicit } else { Security::Required };
    TlsPolicy { security, verification, is_enforced: true, reason }
}

fn deferred(fault: Fault) -> Outcome {
    Outcome::deferred(Status(4, 7, 5), fault.why)
}

/// Looks up the TLSA records of an address of a host.
pub fn of_host(dns: &Dns, peer: &Peer, exchangers: &Exchangers) -> Dane {
    let Endpoint::Tcp(address) = &peer.endpoint else { return Dane::Absent };
    let name = peer.name.as_str();
    let bases = match &peer.dnssec {
        _ if name.is_empty() => return Dane::Absent,
        Dnssec::Insecure => return Dane::Absent,
        Dnssec::Secure => vec![name],
        Dnssec::SecureAlias(end) => vec![&**end, name],
        Dnssec::InsecureAlias => match dns.is_secure_alias(name) {
            Ok(true) => vec![name],
            Ok(false) => return Dane::Absent,
            Err(trouble) => return not_now(name, &trouble),
        },
    };
    for base in bases {
        match dns.tlsa(base, address.port()) {
            Ok(Answered { data, is_secure: true, .. }) => return of_records(base, name, exchangers, &data),
            Ok(_) | Err(NoAnswer::NxDomain | NoAnswer::NoData | NoAnswer::BadName) => {}
            Err(trouble) => return not_now(base, &trouble),
        }
    }
    Dane::Absent
}

fn of_records(base: &str, name: &str, exchangers: &Exchangers, records: &[Association]) -> Dane {
    let parts = records.iter().map(|one| (one.usage, one.selector, one.matching, &*one.data));
    // The name of an exchanger comes from the DNS, so only the domain counts beside the base. The name
    // of another host is the choice of the configuration.
    let mut names: Vec<&str> = exchangers.names.iter().map(String::as_str).collect();
    if names.is_empty() {
        names.push(name);
    }
    match Associations::new(base, &names, parts) {
        Some(associations) => Dane::Usable(Arc::new(associations)),
        None => Dane::Unusable(records.iter().map(Association::to_string).collect()),
    }
}

fn not_now(base: &str, trouble: &NoAnswer) -> Dane {
    // The text also reaches the domain, in a TLS report.
    let why = format!("the look-up of the TLSA records of {base} failed: {}", trouble.for_strangers());
    Dane::NotNow(Fault::new(FaultKind::Dnssec, &why))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The failure is in reports to strangers, which the name servers of this host do not concern.
    #[test]
    fn a_failed_look_up_does_not_show_the_name_servers() {
        let other = NoAnswer::Other("no name server could be reached (10.0.0.53)".into());
        for (trouble, text) in
            [(other, "the look-up failed"), (NoAnswer::ServFail, "the name server could not find out (SERVFAIL)")]
        {
            let Dane::NotNow(fault) = not_now("mx.test", &trouble) else { panic!("not a failure") };
            assert_eq!(fault.why, format!("the look-up of the TLSA records of mx.test failed: {text}"));
        }
    }
}

//! Counts for TLS reports how TLS went on the connections of an attempt (RFC 8460).
//!
//! Each connection to a mail exchanger is counted once, as soon as it is known whether it is
//! encrypted as the policy of the domain or of the host demands. A connection is not counted if the
//! postmaster has set the policy for its domain or host, since that domain cannot do anything about
//! it.

use std::net::SocketAddr;

use crate::destination::{HostTarget, Peer};
use crate::endpoint::Endpoint;
use crate::tls::{Fault, Verification};
use crate::tls_policy::TlsPolicy;
use crate::tls_report::{Counts, Policy, Session, TlsResult};

/// Counts the connections to one address of a mail exchanger.
#[derive(Debug)]
pub struct Watch<'a> {
    counts: &'a Counts,
    domain: &'a str,
    peer: &'a Peer,
    kind: Kind,
}

/// The policy in the words of a report.
#[derive(Debug)]
enum Kind {
    None,
    Tlsa(Vec<String>),
}

impl<'a> Watch<'a> {
    /// Returns what counts the connections to `peer`. Returns `None` if they are not counted: if
    /// `counts` is `None`, if the host was not found in the DNS, or if the postmaster has set the
    /// policy.
    pub fn new(counts: Option<&'a Counts>, target: &'a HostTarget, peer: &'a Peer, policy: &TlsPolicy) -> Option<Self> {
        let counts = counts?;
        let HostTarget::Mx { domain, .. } = target else { return None };
        let kind = match (&policy.verification, policy.reason.rule) {
            (Verification::Dane(associations), "dane") => Kind::Tlsa(associations.lines().collect()),
            (_, "dane") => Kind::Tlsa(Vec::new()),
            (_, "remote.tls") => Kind::None,
            _ => return None,
        };
        Some(Self { counts, domain, peer, kind })
    }

    /// Counts a connection. `local` is its own address, and `hello` the name that the host has given.
    pub fn note(&self, local: Option<SocketAddr>, hello: &str, fault: Option<&Fault>) {
        let remote = match &self.peer.endpoint {
            Endpoint::Tcp(address) => Some(address.ip()),
            Endpoint::Unix(_) => None,
        };
        let policy = match &self.kind {
            Kind::None => Policy::None,
            Kind::Tlsa(records) => Policy::Tlsa { host: &self.peer.name, records },
        };
        self.counts.note(&TlsResult {
            domain: self.domain,
            policy,
            session: Session { local: local.map(|address| address.ip()), host: &self.peer.name, hello, remote },
            failure: fault.map(|fault| (fault.kind.result_type(), &*fault.why)),
        });
    }
}

//! Counts for TLS reports how TLS went on the connections of an attempt (RFC 8460).
//!
//! Each connection to a mail exchanger is counted once, as soon as it is known whether it is
//! encrypted as the policy of the domain or of the host demands. A connection is not counted if the
//! postmaster has set the policy for its domain or host, since that domain cannot do anything about
//! it.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::destination::{HostTarget, Peer};
use crate::dns::Dns;
use crate::endpoint::Endpoint;
use crate::sys;
use crate::tls::{Fault, FaultKind, Verification};
use crate::tls_policy::dane::{self, Dane, Exchangers};
use crate::tls_policy::sts::{Mode, Sts, StsPolicy};
use crate::tls_policy::{DomainPolicy, TlsPolicy};
use crate::tls_report::{Counts, Policy, Row, Session, TlsResult};

/// Counts the connections to one address of a mail exchanger.
#[derive(Debug)]
pub struct Watch<'a> {
    counts: &'a Counts,
    domain: &'a str,
    peer: &'a Peer,
    kind: Kind,
    /// Why the host does not meet the policy in any case.
    misfit: Option<Fault>,
}

/// The policy in the words of a report.
#[derive(Debug)]
enum Kind {
    None,
    Tlsa(Vec<String>),
    Sts(Vec<String>),
}

impl Kind {
    fn policy<'k>(&'k self, peer: &'k Peer) -> Policy<'k> {
        match self {
            Self::None => Policy::None,
            Self::Tlsa(records) => Policy::Tlsa { host: &peer.name, records },
            Self::Sts(lines) => Policy::Sts { lines },
        }
    }
}

impl<'a> Watch<'a> {
    /// Returns what counts the connections to `peer`. Returns `None` if they are not counted: if
    /// `counts` is `None`, if the host was not found in the DNS, or if the postmaster has set the
    /// policy. `sts` is the MTA-STS policy of the domain, and `unusable` are the TLSA records of the
    /// host if none of them can be used.
    pub fn new(
        counts: Option<&'a Counts>,
        target: &'a HostTarget,
        peer: &'a Peer,
        policy: &TlsPolicy,
        sts: impl FnOnce(&str) -> Option<Arc<StsPolicy>>,
        unusable: impl FnOnce() -> Vec<String>,
    ) -> Option<Self> {
        let counts = counts?;
        let domain = target.mx_domain()?;
        let mut misfit = None;
        let kind = match (&policy.verification, policy.reason.rule) {
            (Verification::Dane(associations), "dane") => Kind::Tlsa(associations.lines().collect()),
            // The connection is encrypted, but the records of the host verify nothing.
            (_, "dane") => {
                misfit = Some(Fault::new(FaultKind::Tlsa, "none of the TLSA records of the host can be used"));
                Kind::Tlsa(unusable())
            }
            (_, "mta-sts" | "mta-sts-testing") => {
                let sts = sts(domain)?;
                misfit = self::misfit(&sts, peer);
                Kind::Sts(lines(&sts))
            }
            (_, "remote.tls") => Kind::None,
            _ => return None,
        };
        Some(Self { counts, domain, peer, kind, misfit })
    }

    /// Counts a connection. `local` is its own address, and `hello` the name that the host has given.
    pub fn note(&self, local: Option<SocketAddr>, hello: &str, fault: Option<&Fault>) {
        let remote = match &self.peer.endpoint {
            Endpoint::Tcp(address) => Some(address.ip()),
            Endpoint::Unix(_) => None,
        };
        let row = Row::new(&TlsResult {
            policy: self.kind.policy(self.peer),
            session: Session { local: local.map(|address| address.ip()), host: &self.peer.name, hello, remote },
            failure: fault.or(self.misfit.as_ref()).map(|fault| (fault.kind.result_type(), &*fault.why)),
        });
        self.counts.count(sys::now(), self.domain, &row);
    }
}

/// The TLSA records of a host, none of which can be used.
pub fn unusable_records(dns: &Dns, peer: &Peer) -> Vec<String> {
    match dane::of_host(dns, peer, &Exchangers::default()) {
        Dane::Unusable(records) => records,
        _ => Vec::new(),
    }
}

/// Counts that the MTA-STS policy of a domain could not be had. `sts` has the failure, and the policy
/// that is in force nevertheless.
pub fn note_no_policy(counts: Option<&Counts>, target: &HostTarget, sts: &Sts) {
    let (Some(counts), Some(domain), Some(failure)) = (counts, target.mx_domain(), &sts.failure) else { return };
    let lines = sts.policy.as_deref().map(lines).unwrap_or_default();
    let row = Row::new(&TlsResult {
        policy: Policy::Sts { lines: &lines },
        session: Session::default(),
        failure: Some((failure.kind.result_type(), &failure.why)),
    });
    counts.count(sys::now(), domain, &row);
}

/// Counts a host to which no connection was opened, if the reason is that the look-up of its TLSA
/// records failed, or that the MTA-STS policy of the domain does not name it. `dns` is `None` if DANE
/// is off.
pub fn note_refused(
    counts: Option<&Counts>,
    target: &HostTarget,
    peer: &Peer,
    known: &DomainPolicy,
    dns: Option<&Dns>,
) {
    let (Some(counts), Some(domain)) = (counts, target.mx_domain()) else { return };
    let sts = known.sts.policy.as_deref().filter(|sts| sts.mode == Mode::Enforce);
    let (kind, fault) = match dns.map(|dns| dane::of_host(dns, peer, &known.exchangers)) {
        Some(Dane::NotNow(fault)) => (Kind::Tlsa(Vec::new()), Some(fault)),
        _ => match sts {
            Some(sts) => (Kind::Sts(lines(sts)), misfit(sts, peer)),
            None => return,
        },
    };
    if fault.is_some() {
        Watch { counts, domain, peer, kind, misfit: fault }.note(None, "", None);
    }
}

/// Why the MTA-STS policy of a domain does not admit a host; `None` if it does.
fn misfit(sts: &StsPolicy, peer: &Peer) -> Option<Fault> {
    let why = || format!("the MTA-STS policy of the domain does not name {}", peer.identity());
    (!sts.admits(&peer.name)).then(|| Fault::new(FaultKind::Other, &why()))
}

/// The lines of an MTA-STS policy (RFC 8461 3.2).
fn lines(sts: &StsPolicy) -> Vec<String> {
    let mut lines = vec!["version: STSv1".to_owned(), format!("mode: {}", sts.mode.word())];
    lines.extend(sts.mx.iter().map(|pattern| format!("mx: {pattern}")));
    lines.push(format!("max_age: {}", sts.max_age.as_secs()));
    lines
}

//! Decides how a connection to a host is encrypted, and how the host's certificate is verified: its
//! [`TlsPolicy`].
//!
//! There is one function for that, [`Rules::of_host`]. Deliveries ask it before they connect or
//! reuse an open connection, explanations and listings ask it without connecting. In order of
//! precedence, these decide:
//!
//! 1. LMTP on this host is not encrypted.
//! 2. The table of TLS policies, penfold-tls-policies(5), for the domain of the recipients, or for
//!    the host if the configuration names it.
//! 3. The scheme of the host's URL, such as `smtps://`.
//! 4. TLSA records of the host (DANE), unless `remote.tls` is `none`.
//! 5. The MTA-STS policy of the domain of the recipients, unless `remote.tls` is `none`.
//! 6. `remote.tls`.
//!
//! A message with `TLS-Required: No` goes without 4 and 5. A message that needs TLS (REQUIRETLS) makes
//! the policy stricter for itself.
//!
//! Credentials are sent only to a host whose certificate was verified, or over loopback to this
//! host, whatever the table and `remote.tls` say.
//!
//! - `dane`: the TLSA records of a host
//! - `require`: messages that need TLS
//! - `sts`: MTA-STS: what domains say about TLS over HTTPS
//! - `table`: the table of TLS policies

use std::fmt;
use std::sync::Arc;

use crate::config::{self, RemoteTls, Scheme};
use crate::destination::{HostTarget, Peer};
use crate::dns::Dns;
use crate::envelope::MessageTls;
use crate::outcome::{Outcome, Verified};
use crate::policy::{Reason, Source};
use crate::reply::Status;
use crate::tls::Verification;

pub mod dane;
pub mod require;
pub mod sts;
pub mod table;

use dane::Exchangers;
use sts::{Mode, Sts, StsPolicy};
use table::{Level, Row, TlsPolicies};

/// The rule of a policy that an MTA-STS policy demands.
const MTA_STS: &str = "mta-sts";

/// The encryption of a connection, and the verification of the host's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsPolicy {
    /// How the connection is encrypted.
    pub security: Security,
    /// How the host's certificate is verified, if the connection is encrypted.
    pub verification: Verification,
    /// Whether the connection ends if the verification fails. Otherwise the failure is only reported.
    pub is_enforced: bool,
    /// The rule that decided.
    pub reason: Reason,
}

/// Whether and how a connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// Plaintext.
    Clear,
    /// STARTTLS if the host offers it.
    Opportunistic,
    /// STARTTLS is required.
    Required,
    /// TLS from the first octet is required.
    Implicit,
}

/// What TLS policies are made from.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// The configuration of delivery to other hosts.
    pub config: &'a config::Remote,
    /// The table of TLS policies.
    pub table: &'a TlsPolicies,
    /// Looks up TLSA records; `None` where nothing may be looked up.
    pub dns: Option<&'a Dns>,
    /// What is known about MTA-STS policies without a look-up; `None` where they are looked up.
    pub sts: Option<&'a sts::Policies>,
}

/// What is known about a destination, for all its hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainPolicy {
    /// The domain of the recipients, if the hosts were found in the DNS. `None` if the configuration
    /// names the hosts.
    mx_domain: Option<Box<str>>,
    /// What the look-up of the mail exchangers has shown.
    pub exchangers: Exchangers,
    /// What is known about the MTA-STS policy of that domain.
    pub sts: Sts,
}

/// What the configuration, the table and the MTA-STS policy say about a host. As long as they say the
/// same, an open connection to the host can be used again for the same destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    base: RemoteTls,
    row: Option<Arc<Row>>,
    sts: Option<Arc<StsPolicy>>,
}

impl DomainPolicy {
    /// The same, with what the look-up of the mail exchangers has shown.
    pub fn with_exchangers(self, exchangers: Exchangers) -> Self {
        Self { exchangers, ..self }
    }
}

impl Rules<'_> {
    /// What is known about a destination.
    pub fn of_domain(&self, target: &HostTarget) -> DomainPolicy {
        let mx_domain = target.mx_domain().map(Into::into);
        let known = self.sts.zip(self.sts_domain(target)).map(|(policies, domain)| policies.known(domain));
        DomainPolicy { mx_domain, exchangers: Exchangers::default(), sts: known.unwrap_or_default() }
    }

    /// The domain whose MTA-STS policy applies to a destination, if one does: the policy is for hosts
    /// in the DNS, and a line of the table and `remote.tls = "none"` take precedence over it.
    pub fn sts_domain<'t>(&self, target: &'t HostTarget) -> Option<&'t str> {
        let is_asked = self.config.mta_sts && self.config.tls != RemoteTls::None;
        target.mx_domain().filter(|domain| is_asked && self.table.find(domain).is_none())
    }

    /// What the configuration, the table and the MTA-STS policy say about a host of a destination.
    /// Nothing is looked up in the DNS.
    pub fn said(&self, target: &HostTarget, peer: &Peer, sts: Option<Arc<StsPolicy>>) -> Said {
        Said { base: self.config.tls, row: self.row(target.mx_domain(), peer), sts }
    }

    fn row(&self, mx_domain: Option<&str>, peer: &Peer) -> Option<Arc<Row>> {
        match mx_domain {
            Some(domain) => self.table.find(domain),
            None => self.table.find(&peer.identity()),
        }
    }

    /// The policy for an address of a host. `has_login` tells whether this server logs in there, and
    /// `message` what the message demands.
    ///
    /// # Errors
    /// The outcome of a delivery if the host may not be used now. It is temporary, unless the host
    /// cannot get a message that needs TLS.
    pub fn of_host(
        &self,
        domain: &DomainPolicy,
        peer: &Peer,
        has_login: bool,
        message: MessageTls,
    ) -> Result<TlsPolicy, Outcome> {
        if peer.scheme == Scheme::Lmtp && peer.endpoint.is_loopback() {
            return Ok(TlsPolicy::new(Security::Clear, "loopback", Source::Standard("RFC 2033 1")));
        }
        let policy = match self.row(domain.mx_domain.as_deref(), peer) {
            Some(row) => self.of_row(domain, &row, peer)?,
            // The message may go without what the domain publishes (RFC 8689 5).
            None if message == MessageTls::Indifferent => self.of_scheme(peer),
            None => self.by_dane(domain, peer, || match &domain.sts.policy {
                Some(sts) => self.of_sts(sts, peer),
                None => Ok(self.of_scheme(peer)),
            })?,
        };
        let policy = match has_login && !peer.is_this_host() {
            true => policy.made_strict("credentials", Source::Key("remote.credentials")),
            false => policy,
        };
        if message == MessageTls::Required { policy.for_required(domain, peer) } else { Ok(policy) }
    }

    fn of_row(&self, domain: &DomainPolicy, row: &Row, peer: &Peer) -> Result<TlsPolicy, Outcome> {
        let source = self.table.source(row);
        let level = row.level.as_ref().map_err(|why| Outcome::deferred(Status(4, 3, 5), why.clone()))?;
        let required = if peer.scheme == Scheme::Smtps { Security::Implicit } else { Security::Required };
        let (security, verification) = match level {
            Level::None if peer.scheme != Scheme::Smtps => (Security::Clear, Verification::None),
            Level::Opportunistic if peer.scheme != Scheme::Smtps => (Security::Opportunistic, Verification::None),
            Level::None | Level::Opportunistic => (required, Verification::None),
            // The name of an exchanger comes from the DNS, so it does not count beside names of the table.
            Level::Required { names } => (required, Verification::Authority { names: names.clone() }),
            Level::Dane => return self.only_by_dane(domain, peer, Reason { rule: "table", source }),
            Level::Fingerprints(all) => (required, Verification::Fingerprints(Arc::clone(all))),
        };
        Ok(TlsPolicy { security, verification, is_enforced: true, reason: Reason { rule: "table", source } })
    }

    /// The policy by the MTA-STS policy of the domain (RFC 8461 4).
    fn of_sts(&self, sts: &StsPolicy, peer: &Peer) -> Result<TlsPolicy, Outcome> {
        let reason = |rule| Reason { rule, source: Source::Standard("RFC 8461") };
        let verification = Verification::authority();
        match sts.mode {
            Mode::Enforce if !sts.admits(&peer.name) => {
                let why = format!("the MTA-STS policy of the domain does not name {}", peer.identity());
                Err(Outcome::deferred(Status(4, 7, 5), why))
            }
            Mode::Enforce => {
                let (security, reason) = (Security::Required, reason(MTA_STS));
                Ok(TlsPolicy { security, verification, is_enforced: true, reason })
            }
            Mode::Testing => Ok(match self.of_scheme(peer) {
                policy if policy.security == Security::Opportunistic => {
                    let reason = reason("mta-sts-testing");
                    TlsPolicy { verification, is_enforced: false, reason, ..policy }
                }
                policy => policy,
            }),
            Mode::None => Ok(self.of_scheme(peer)),
        }
    }

    /// The policy by the scheme of the host's URL and `remote.tls`.
    fn of_scheme(&self, peer: &Peer) -> TlsPolicy {
        let by_key = |security| TlsPolicy::new(security, "remote.tls", Source::Key("remote.tls"));
        match (peer.scheme, self.config.tls) {
            (Scheme::Smtps, _) => TlsPolicy::new(Security::Implicit, "url", Source::Standard("RFC 8314 3")),
            (Scheme::StartTls, _) => TlsPolicy::new(Security::Required, "url", Source::Standard("RFC 3207")),
            (Scheme::Smtp | Scheme::Lmtp, RemoteTls::Required) => by_key(Security::Required),
            (Scheme::Smtp | Scheme::Lmtp, RemoteTls::None) => by_key(Security::Clear),
            (Scheme::Smtp | Scheme::Lmtp, RemoteTls::Opportunistic) => by_key(Security::Opportunistic),
        }
    }
}

impl TlsPolicy {
    /// A policy that a rule demands. The certificate is verified if TLS is required.
    pub fn new(security: Security, rule: &'static str, source: Source) -> Self {
        let is_required = matches!(security, Security::Required | Security::Implicit);
        let verification = if is_required { Verification::authority() } else { Verification::None };
        Self { security, verification, is_enforced: true, reason: Reason { rule, source } }
    }

    /// Whether messages may be sent in plaintext.
    pub fn may_be_clear(&self) -> bool {
        matches!(self.security, Security::Clear | Security::Opportunistic)
    }

    /// How the certificate was verified, if it was and is valid.
    pub fn verified(&self) -> Verified {
        match &self.verification {
            Verification::None => Verified::No,
            Verification::Authority { .. } if self.reason.rule == MTA_STS => Verified::MtaSts,
            Verification::Authority { .. } => Verified::Authority,
            Verification::Dane(_) => Verified::Dane,
            Verification::Fingerprints(_) => Verified::Fingerprint,
        }
    }

    /// Whether nothing is sent unless the host has a valid certificate.
    fn is_strict(&self) -> bool {
        !self.may_be_clear() && self.is_enforced && self.verification != Verification::None
    }

    /// The same policy if it is strict already, and otherwise the strict one that a rule demands.
    fn made_strict(self, rule: &'static str, source: Source) -> Self {
        match self.security {
            _ if self.is_strict() => self,
            Security::Implicit => Self::new(Security::Implicit, rule, source),
            _ => Self::new(Security::Required, rule, source),
        }
    }

    /// The policy in one word: `none`, `opportunistic`, `required` or `implicit`.
    pub fn word(&self) -> &'static str {
        match self.security {
            Security::Clear => "none",
            Security::Opportunistic => "opportunistic",
            Security::Required => "required",
            Security::Implicit => "implicit",
        }
    }
}

/// The policy in words.
impl fmt::Display for TlsPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let begin = match self.security {
            Security::Clear => return f.write_str("no TLS"),
            Security::Opportunistic => "TLS if the host offers STARTTLS",
            Security::Required => "TLS by STARTTLS is required",
            Security::Implicit => "TLS from the first octet is required",
        };
        let certificate = match &self.verification {
            _ if !self.is_enforced => "any certificate (MTA-STS is only tested)",
            Verification::None => "any certificate",
            Verification::Authority { names } if names.is_empty() => "a valid certificate",
            Verification::Authority { .. } => "a valid certificate for one of the names in the table",
            Verification::Dane(_) => "a certificate that matches the TLSA records of the host",
            Verification::Fingerprints(_) => "one of the certificates in the table",
        };
        write!(f, "{begin}, with {certificate}")
    }
}

#[cfg(test)]
mod tests;

//! The TLS policy of a host for one message, if the message needs TLS (REQUIRETLS, RFC 8689).
//!
//! Such a message goes only to a host that is known to be the right one, and whose certificate is
//! verified. If the name of a mail exchanger comes from the DNS without DNSSEC, an attacker may have
//! put a host of his own there, and a certificate for that host proves nothing. After the handshake
//! the client also checks whether the host offers REQUIRETLS.

use super::sts::{Mode, StsPolicy};
use super::{DomainPolicy, Security, TlsPolicy};
use crate::address::literal;
use crate::destination::Peer;
use crate::outcome::Outcome;
use crate::policy::Source;
use crate::reply::Status;
use crate::tls::Verification;

/// The status of a message that no authenticated TLS connection can carry (RFC 8689 4.2.1).
pub const NO_TLS: Status = Status(5, 7, 10);
/// The status of a message that waits until it is known whether such a connection can carry it.
pub const NOT_KNOWN_YET: Status = Status(4, 7, 10);
/// The status of a message for a host that does not offer REQUIRETLS (RFC 8689 4.2.1).
pub const NOT_OFFERED: Status = Status(5, 7, 30);

impl DomainPolicy {
    /// Whether the peer is known to be a host of the destination (RFC 8689 4.2.1): the configuration
    /// or the recipient's address names it, or secure MX records or an MTA-STS policy do. MX records
    /// can contain an address in place of a name: a host without a name is known only if the domain is
    /// its address.
    pub fn is_known(&self, peer: &Peer) -> bool {
        let is_it = |domain: &str| match peer.name.as_str() {
            "" => literal(domain).is_some_and(|ip| peer.endpoint.host() == ip.to_canonical().to_string()),
            name => name == domain,
        };
        let is_named = |sts: &StsPolicy| sts.mode != Mode::None && sts.admits(&peer.name);
        self.exchangers.is_secure
            || self.mx_domain.as_deref().is_none_or(is_it)
            || self.sts.policy.as_deref().is_some_and(is_named)
    }
}

impl TlsPolicy {
    /// The policy for a message that needs TLS: the same if it demands a verified certificate
    /// already, and otherwise one that does.
    ///
    /// # Errors
    /// The outcome if it is not known whether the peer is a host of the destination. It is temporary
    /// if the MTA-STS policy of the domain is not known yet.
    pub(super) fn for_required(self, domain: &DomainPolicy, peer: &Peer) -> Result<Self, Outcome> {
        if !self.proves_host() && !domain.is_known(peer) {
            let (name, host) = (domain.mx_domain.as_deref().unwrap_or_default(), peer.identity());
            let needs = "the message needs TLS (REQUIRETLS), and";
            if domain.sts.is_open {
                let why = format!("{needs} the MTA-STS policy of {name} is not known yet");
                return Err(Outcome::deferred(NOT_KNOWN_YET, why));
            }
            let why = format!("{needs} neither DNSSEC nor MTA-STS proves that {host} is a host of {name}");
            return Err(Outcome::failed(NO_TLS, why));
        }
        Ok(self.made_strict("requiretls", Source::Standard("RFC 8689 4.2.1")))
    }

    /// The policy for a report about a message that needs TLS: REQUIRETLS is given if the host turns out
    /// to have a valid certificate, but the report is sent anyway (RFC 8689 5).
    #[must_use]
    pub fn for_report(self, is_known: bool) -> Self {
        if !is_known || self.verification != Verification::None {
            return self;
        }
        let security = if self.security == Security::Clear { Security::Opportunistic } else { self.security };
        Self { security, verification: Verification::authority(), is_enforced: false, ..self }
    }

    /// Whether the verification itself shows that the host is the right one, whatever its name is.
    pub fn proves_host(&self) -> bool {
        matches!(self.verification, Verification::Fingerprints(_))
    }
}

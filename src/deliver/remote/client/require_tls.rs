//! Messages that need TLS (REQUIRETLS, RFC 8689): which connections may carry them.
//!
//! The TLS policy of such a message already demands a verified certificate of a host that is known
//! to be the right one. This module checks the connection once more before each message, since a
//! connection may have been opened for another one. The host must offer REQUIRETLS, so that it
//! passes the demand on. A mail store on this host need not: the message stays here.

use super::{ConnectOptions, Connection, StageOutcome};
use crate::deliver::Delivery;
use crate::envelope::MessageTls;
use crate::outcome::{Fate, Outcome};
use crate::reply::Status;
use crate::tls_policy::require::{NO_TLS, NOT_KNOWN_YET, NOT_OFFERED};

/// The outcome of a message that needs TLS, if TLS has failed. `is_lasting` says that the host does
/// not offer TLS, or has no valid certificate. Otherwise TLS may succeed later.
pub(super) fn without_tls(mut answer: StageOutcome, is_lasting: bool) -> StageOutcome {
    let outcome = &mut answer.outcome;
    (outcome.fate, outcome.status) = if is_lasting { (Fate::Failed, NO_TLS) } else { (Fate::Deferred, NOT_KNOWN_YET) };
    outcome.why = format!("the message needs TLS (REQUIRETLS): {}", outcome.why);
    // The reason quotes the reply already.
    outcome.reply = None;
    answer
}

impl Connection {
    /// Forgets that the host offers REQUIRETLS, unless this connection meets the requirements for it:
    /// the certificate is verified, and the host is known to be the right one.
    pub(super) fn check_offer_of_require_tls(&mut self, options: &ConnectOptions<'_>) {
        self.extensions.require_tls &= options.is_known && self.tls.is_verified();
    }

    /// The outcome of a message that needs TLS, if the connection must not carry it.
    pub(super) fn refuses_tls_demand(&self, delivery: &Delivery<'_>) -> Option<Outcome> {
        if delivery.tls() != MessageTls::Required || self.is_store() && self.peer.endpoint.is_loopback() {
            return None;
        }
        let failed = |status: Status, what: &str| {
            Some(Outcome::failed(status, format!("the message needs TLS (REQUIRETLS), and the host {what}")))
        };
        if !self.tls.is_verified() {
            return failed(NO_TLS, "has not proved its identity by TLS");
        }
        if self.extensions.require_tls { None } else { failed(NOT_OFFERED, "does not offer REQUIRETLS") }
    }
}

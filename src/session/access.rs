//! Who may send mail to whom.
//!
//! One place for the two answers that keep a server from being an open relay:
//! `550 5.1.1` for a local address that leads nowhere, `550 5.7.1` for mail to
//! elsewhere from someone who may not relay. What an address means is the
//! router's to say, for RCPT as for the delivery.

use super::{Client, Service, Session};
use crate::address::Address;
use crate::envelope::Recipient;
use crate::reply::{self, Reply};
use crate::route::{Expansion, Place, Route};

/// Whether the client may send mail to anywhere without a login.
pub fn may_relay(service: &Service, client: &Client) -> bool {
    let is_trusted = |address| service.config.relay.networks.iter().any(|n| n.contains(address));
    client.is_local || (!client.is_unidentified && client.address.is_some_and(is_trusted))
}

impl Session<'_> {
    /// Whether the client may send mail to anywhere: it is trusted, or has logged in.
    pub(super) fn may_relay(&self) -> bool {
        self.login.is_some() || may_relay(self.service, &self.client)
    }
}

/// The final recipients of mail to an address. Why it cannot be told is logged if
/// `is_logged`.
///
/// # Errors
/// The reply that refuses it.
pub fn recipient(
    service: &Service,
    may_relay: bool,
    is_logged: bool,
    address: &Address,
) -> Result<Vec<Recipient>, Reply> {
    match service.router.place(address.domain()) {
        Place::Local => match service.router.expand(address) {
            Expansion::Finals(finals) => Ok(finals),
            Expansion::Unknown => Err(reply::recipient::unknown_user(address)),
            Expansion::Refused(status, why) => Err(reply::recipient::refused(address, status, &why)),
            Expansion::Temporary(why) => {
                if is_logged {
                    ::log::warn!("recipient <{address}>: {why}");
                }
                Err(reply::recipient::temporary_failure(address))
            }
        },
        // What another host would make of a@b%c or c!a, it would do in our name.
        Place::Relay if may_relay || !address.local().contains(['%', '!', '@']) => elsewhere(service, address),
        Place::Elsewhere if may_relay => elsewhere(service, address),
        Place::Relay | Place::Elsewhere => Err(reply::recipient::relaying_denied(address)),
    }
}

fn elsewhere(service: &Service, address: &Address) -> Result<Vec<Recipient>, Reply> {
    match service.router.route(address) {
        Route::Refused(status, why) => Err(reply::recipient::refused(address, status, &why)),
        _ => Ok(vec![Recipient::new(address.clone())]),
    }
}

/// The answer to VRFY.
pub fn verify(service: &Service, address: &Address) -> Reply {
    if service.router.place(address.domain()) != Place::Local {
        return reply::verify::cannot_verify();
    }
    match service.router.expand(address) {
        Expansion::Finals(_) => reply::verify::exists(address),
        Expansion::Unknown => reply::recipient::unknown_user(address),
        Expansion::Refused(status, why) => reply::recipient::refused(address, status, &why),
        Expansion::Temporary(_) => reply::verify::cannot_verify(),
    }
}

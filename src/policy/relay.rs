//! Decides which clients may send mail to any domain, and which recipients need that right.
//!
//! These rules keep the server from being an open relay. Mail to other domains is accepted only
//! from trusted and authenticated clients. Mail for `relay.domains` is accepted from any client,
//! unless the local part may contain another address.

use std::net::IpAddr;

use super::Facts;
use crate::address::Address;
use crate::config::{FilterGroup, Network};

/// A class of domains, by the rules for relaying.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Domain {
    /// A local domain.
    Local,
    /// A domain in `relay.domains`.
    Relay,
    /// Any other domain.
    Other,
}

/// Whether a client is trusted, because it is a local process or its address is in `networks`
/// (`relay.networks`). `address` is `None` if the client's address is unknown.
pub fn is_trusted(networks: &[Network], is_local: bool, address: Option<IpAddr>) -> bool {
    is_local || address.is_some_and(|address| networks.iter().any(|network| network.contains(address)))
}

/// Whether a client may send mail to any domain.
pub fn may_relay(facts: &Facts<'_>) -> bool {
    facts.login.is_some() || facts.is_trusted
}

/// The group of clients by which filters choose whose mail they see (`filter.for`).
pub fn filter_group(facts: &Facts<'_>) -> FilterGroup {
    if facts.is_local_user {
        FilterGroup::Local
    } else if facts.is_submission() || facts.may_relay() {
        FilterGroup::Submission
    } else {
        FilterGroup::Strangers
    }
}

/// Whether a client may send mail to `recipient`, whose domain is of the class `domain`.
pub fn is_permitted(facts: &Facts<'_>, domain: Domain, recipient: &Address) -> bool {
    match domain {
        Domain::Local => true,
        // The next host could read user%host, host!user or a quoted user@host as an address in
        // another domain, and would then relay the message on behalf of this host.
        Domain::Relay => may_relay(facts) || !recipient.local().contains(['%', '!', '@']),
        Domain::Other => may_relay(facts),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{STRANGER, SUBMITTER, TRUSTED, USER};
    use super::*;

    #[test]
    fn only_trusted_and_authenticated_clients_relay() {
        for (recipient, domain, stranger, friend) in [
            ("jon@razorback.test", Domain::Local, true, true),
            ("jon%far.test@razorback.test", Domain::Local, true, true),
            ("jon@backup.test", Domain::Relay, true, true),
            ("jon%far.test@backup.test", Domain::Relay, false, true),
            ("far.test!jon@backup.test", Domain::Relay, false, true),
            ("\"jon@far.test\"@backup.test", Domain::Relay, false, true),
            ("jon@far.test", Domain::Other, false, true),
        ] {
            let address = Address::parse(recipient).expect(recipient);
            for (facts, want) in [(STRANGER, stranger), (SUBMITTER, stranger), (TRUSTED, friend), (USER, friend)] {
                assert_eq!(is_permitted(&facts, domain, &address), want, "{recipient} {facts:?}");
            }
        }
    }

    #[test]
    fn trust_comes_from_relay_networks() {
        let networks = crate::config::default().relay.networks;
        let address = |text: &str| Some(text.parse().expect(text));
        for (is_local, address, want) in [
            (true, None, true),
            (false, None, false),
            (false, address("127.0.0.1"), true),
            (false, address("::1"), true),
            (false, address("192.0.2.1"), false),
        ] {
            assert_eq!(is_trusted(&networks, is_local, address), want, "{address:?}");
        }
    }
}

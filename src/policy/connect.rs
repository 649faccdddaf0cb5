//! Decides whether a new connection is accepted, and which rights the client's address gives.

use std::net::IpAddr;

use super::{Facts, Source, Verdict};
use crate::config::Network;
use crate::reply;

/// Refuses a client that may not relay and has sent something before the banner (`is_early`). The
/// module `listen` applies the limits on connections.
pub fn check(facts: &Facts<'_>, is_early: bool, hostname: &str) -> Verdict {
    if is_early && !facts.may_relay() {
        return Verdict::refuse(reply::connection::too_early(hostname), "early", Source::Key("policy.greet_delay"));
    }
    Verdict::Accept
}

/// Whether a client has to wait for the banner (`policy.greet_delay`). `client` is the client's address,
/// if it is known. `is_welcome` says whether the access table accepts all mail of an address.
pub fn must_wait(
    facts: &Facts<'_>,
    client: Option<IpAddr>,
    is_proxy: bool,
    is_welcome: impl FnOnce(IpAddr) -> bool,
) -> bool {
    let is_free = is_proxy || facts.is_encrypted || facts.is_submission();
    !is_free && !facts.may_relay() && client.is_some_and(|address| !is_welcome(address))
}

/// Whether a client is a trusted proxy, which may use XCLIENT and XFORWARD. `networks` is the list
/// `xclient` of the listener. `address` is `None` if the client's address is unknown.
pub fn is_trusted_proxy(networks: &[Network], address: Option<IpAddr>) -> bool {
    address.is_some_and(|address| networks.iter().any(|network| network.contains(address)))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{STRANGER, TRUSTED, shown};
    use super::*;

    #[test]
    fn a_stranger_that_speaks_too_early_is_refused() {
        for (facts, is_early, want) in
            [(STRANGER, false, "accept"), (STRANGER, true, "refuse 554 early"), (TRUSTED, true, "accept")]
        {
            assert_eq!(shown(&check(&facts, is_early, "mx.example")), want);
        }
    }

    #[test]
    fn only_strangers_wait_for_the_banner() {
        let address = "192.0.2.1".parse().ok();
        for (facts, client, is_proxy, is_welcome, want) in [
            (STRANGER, address, false, false, true),
            (STRANGER, address, true, false, false),
            (STRANGER, address, false, true, false),
            (STRANGER, None, false, false, false),
            (TRUSTED, address, false, false, false),
            (Facts { is_encrypted: true, ..STRANGER }, address, false, false, false),
        ] {
            assert_eq!(must_wait(&facts, client, is_proxy, |_| is_welcome), want, "{facts:?}");
        }
    }
}

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
}

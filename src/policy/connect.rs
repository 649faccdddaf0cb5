//! Decides whether a new connection is accepted, and which rights the client's address gives.

use std::net::IpAddr;

use super::{Facts, Verdict};
use crate::config::Network;

/// Accepts every client, before the banner is sent. The module `listen` applies the limits on
/// connections.
pub fn check(_: &Facts<'_>) -> Verdict {
    Verdict::Accept
}

/// Whether a client is a trusted proxy, which may use XCLIENT and XFORWARD. `networks` is the list
/// `xclient` of the listener. `address` is `None` if the client's address is unknown.
pub fn is_trusted_proxy(networks: &[Network], address: Option<IpAddr>) -> bool {
    address.is_some_and(|address| networks.iter().any(|network| network.contains(address)))
}

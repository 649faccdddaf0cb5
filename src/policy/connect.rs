//! A new connection, and the rights that its address gives.

use std::net::IpAddr;

use super::{Facts, Verdict};
use crate::config::Network;

/// Before the banner. No rule refuses a client here; the limits on connections are
/// those of `listen`.
pub fn check(_: &Facts<'_>) -> Verdict {
    Verdict::Accept
}

/// Whether a client is a trusted proxy and may use XCLIENT and XFORWARD: its address is in
/// the listener's `xclient`. `address` is `None` where it is unknown.
pub fn is_trusted_proxy(networks: &[Network], address: Option<IpAddr>) -> bool {
    address.is_some_and(|address| networks.iter().any(|network| network.contains(address)))
}

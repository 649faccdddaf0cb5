//! Finds out the facts about clients that may not relay, by which `policy::strangers` decides.
//!
//! Look-ups begin early, at the connection or at MAIL, and run side by side. A session waits for
//! them at RCPT, for at most [`TIME`]. A look-up that has not ended by then counts as a failure of
//! the DNS. About clients that may relay, nothing is looked up.
//!
//! - `access`: the access table
//! - `action`: the actions of the access table
//! - `background`: blocking look-ups on threads of their own
//! - `greylist`: which networks have tried again
//! - `lists`: DNS lists of addresses and domains

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::dns::MailDomain;
use crate::policy::strangers::SenderDomain;

pub mod access;
mod action;
pub mod background;
pub mod greylist;
pub mod lists;

/// The maximum time that a session waits for all look-ups for a message but those of DKIM and
/// DMARC. After this time, the session goes on without the results. Even with the delays that
/// [`background`] and the resolver may add, at least 1.5 seconds remain for DKIM and DMARC:
/// penfold.conf(5) promises that all look-ups together take at most 5 seconds.
pub const TIME: Duration = Duration::from_secs(3);

/// Returns an address without the bits in which the addresses of one host may differ: only the
/// first 64 bits of an IPv6 address, but all of an IPv4 address.
pub fn host(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
        address => address,
    }
}

/// Returns the network of a client: the first 24 bits of an IPv4 address, or the first 64 bits of
/// an IPv6 address, with all other bits zero.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & (u32::MAX << 8))),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
    }
}

/// What the rules need to know about a sender's domain.
pub fn sender_domain(found: &MailDomain) -> SenderDomain {
    match found {
        MailDomain::Usable => SenderDomain::Good,
        MailDomain::NullMx => SenderDomain::Null,
        MailDomain::Absent => SenderDomain::Missing,
        MailDomain::Unknown(_) => SenderDomain::Unknown,
    }
}

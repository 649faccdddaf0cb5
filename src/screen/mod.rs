//! Finds out about clients that may not relay what `policy::strangers` decides by.
//!
//! Look-ups begin early, at the connection or at MAIL, and run side by side; a session waits for
//! them at RCPT, for at most [`TIME`]. A look-up that has not ended then counts as trouble of the
//! DNS. Nothing here is asked about clients that may relay.
//!
//! - `access`: the access table
//! - `action`: the actions of the access table
//! - `background`: blocking look-ups on threads of their own
//! - `greylist`: which networks have tried again
//! - `lists`: DNS lists of addresses and domains

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

pub mod access;
mod action;
pub mod background;
pub mod greylist;
pub mod lists;

/// The time that the look-ups for a message have, after which it goes on without them. With the
/// grace that [`background`] and the resolver add, it is less than the 5 seconds that
/// penfold.conf(5) promises.
pub const TIME: Duration = Duration::from_millis(4500);

/// An address without the bits in which the addresses of one host may differ: the first 64 bits of
/// an IPv6 address, or an IPv4 address as it is.
pub fn host(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
        address => address,
    }
}

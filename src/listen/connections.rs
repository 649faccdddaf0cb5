//! Keeps the open connections, and the limits on their number.
//!
//! Connections are counted in total and per host. Clients outside relay.networks are also counted
//! per surrounding network, with limits that grow more slowly than the networks, so that someone
//! with many addresses gains few more connections. The last tenth of all connections is reserved
//! for relay.networks, and the tenth before it for relay.networks and submission. Connections of
//! local processes are listed, but not counted.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{Config, Kind, Limits};
use crate::policy::relay;
use crate::session::Watch;

/// At most one warning of a kind is logged in this interval.
const WARNING_INTERVAL: Duration = Duration::from_secs(1);

/// All open connections.
#[derive(Default)]
pub struct Connections {
    next: u64,
    /// The connections by number.
    pub open: HashMap<u64, Connection>,
    networks: HashMap<Network, usize>,
    /// The number of connections from outside relay.networks.
    outsiders: usize,
    /// The number of connections from outside relay.networks to listeners that are not for
    /// submission.
    strangers: usize,
    /// The number of connections of local processes.
    local_users: usize,
    warned: [Option<Instant>; 4],
    unlogged: [usize; 4],
}

/// An open connection.
pub struct Connection {
    /// The address and the class under which the connection is counted; `None` while it is not
    /// counted for an address.
    counted: Option<(IpAddr, ClientClass)>,
    /// The socket, shared with the session. Only the session reads from it and writes to it.
    pub socket: Arc<TcpStream>,
    pub watch: Watch,
    is_local_user: bool,
}

/// The class of a client, which decides how many of all connections it may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientClass {
    /// A client in relay.networks, which may use all connections.
    Trusted,
    /// A client of a listener for submission, which may use nine tenths.
    Submitter,
    /// Any other client, which may use eight tenths.
    Stranger,
}

impl ClientClass {
    /// The class of a client. `is_known` is false if `address` is the address of a proxy that has
    /// not named its client.
    pub fn of(config: &Config, address: IpAddr, is_known: bool, kind: Kind) -> Self {
        let is_trusted = relay::is_trusted(&config.relay.networks, false, is_known.then_some(address));
        match kind {
            _ if is_trusted => Self::Trusted,
            Kind::Submission => Self::Submitter,
            Kind::Smtp | Kind::Lmtp | Kind::Status => Self::Stranger,
        }
    }
}

/// A network: its first address and the length of its prefix.
type Network = (IpAddr, u8);

/// The limit that one more connection would exceed, with the present number of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitReached {
    /// The limit on all connections.
    All(usize),
    /// The limit on clients outside relay.networks.
    Outsiders(usize),
    /// The limit on clients that are outside relay.networks and do not use a submission listener.
    Strangers(usize),
    /// The limit on one host or, if there is a prefix length, on one network.
    From(IpAddr, Option<u8>, usize),
}

impl fmt::Display for LimitReached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(count) => write!(f, "too many connections: {count}"),
            Self::Outsiders(count) => write!(f, "too many connections: {count}; the rest is for relay.networks"),
            Self::Strangers(count) => {
                write!(f, "too many connections: {count}; the rest is for relay.networks and submission")
            }
            Self::From(address, None, count) => write!(f, "too many connections from [{address}]: {count}"),
            Self::From(address, Some(prefix), count) => {
                write!(f, "too many connections from [{address}]/{prefix}: {count}")
            }
        }
    }
}

impl Connections {
    /// Adds a connection, and returns its number. The connection is not counted for an address yet.
    pub fn admit(&mut self, socket: &Arc<TcpStream>, watch: &Watch, is_local_user: bool) -> u64 {
        self.next += 1;
        self.local_users += usize::from(is_local_user);
        let connection = Connection { counted: None, socket: Arc::clone(socket), watch: watch.clone(), is_local_user };
        self.open.insert(self.next, connection);
        self.next
    }

    /// Checks the limit on all connections.
    pub fn has_room(&self, limits: &Limits) -> Result<(), LimitReached> {
        let count = self.open.len().saturating_sub(self.local_users);
        if count < limits.connections { Ok(()) } else { Err(LimitReached::All(count)) }
    }

    /// Counts an open connection for its address. Fails if the connection would exceed a limit.
    pub fn count(
        &mut self,
        number: u64,
        limits: &Limits,
        address: IpAddr,
        class: ClientClass,
    ) -> Result<(), LimitReached> {
        self.check(limits, address, class)?;
        let Some(connection) = self.open.get_mut(&number) else { return Ok(()) };
        connection.counted = Some((address, class));
        for (network, _) in networks(address) {
            *self.networks.entry(network).or_default() += 1;
        }
        self.outsiders += usize::from(class != ClientClass::Trusted);
        self.strangers += usize::from(class == ClientClass::Stranger);
        Ok(())
    }

    fn check(&self, limits: &Limits, address: IpAddr, class: ClientClass) -> Result<(), LimitReached> {
        let is_trusted = class == ClientClass::Trusted;
        for (index, (network, factor)) in networks(address).enumerate() {
            let count = self.networks.get(&network).copied().unwrap_or(0);
            if count >= limits.connections_per_host * factor && (index == 0 || !is_trusted) {
                return Err(LimitReached::From(network.0, (index > 0).then_some(network.1), count));
            }
        }
        let share = limits.connections / 10;
        if !is_trusted && self.outsiders >= limits.connections - share {
            return Err(LimitReached::Outsiders(self.outsiders));
        }
        if class == ClientClass::Stranger && self.strangers >= limits.connections - 2 * share {
            return Err(LimitReached::Strangers(self.strangers));
        }
        Ok(())
    }

    /// Removes a closed connection.
    pub fn remove(&mut self, number: u64) {
        let Some(closed) = self.open.remove(&number) else { return };
        self.local_users -= usize::from(closed.is_local_user);
        let Some((address, class)) = closed.counted else { return };
        self.outsiders -= usize::from(class != ClientClass::Trusted);
        self.strangers -= usize::from(class == ClientClass::Stranger);
        for (network, _) in networks(address) {
            match self.networks.get_mut(&network) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(self.networks.remove(&network)),
            }
        }
    }

    /// Returns the log line for a rejected client, with the number of lines of its kind that were
    /// left out. Returns `None` if a line of that kind was logged within the last second.
    pub fn warning(&mut self, why: LimitReached, now: Instant) -> Option<String> {
        let kind = match why {
            LimitReached::All(_) => 0,
            LimitReached::Outsiders(_) => 1,
            LimitReached::Strangers(_) => 2,
            LimitReached::From(..) => 3,
        };
        let (warned, unlogged) = (self.warned.get_mut(kind)?, self.unlogged.get_mut(kind)?);
        if warned.is_some_and(|then| now.saturating_duration_since(then) < WARNING_INTERVAL) {
            *unlogged += 1;
            return None;
        }
        *warned = Some(now);
        match std::mem::take(unlogged) {
            0 => Some(why.to_string()),
            more => Some(format!("{why} ({more} more since the last line)")),
        }
    }
}

/// The networks for which an address is counted, smallest first: an IPv4 address itself and its
/// /24, or the /64, /56 and /48 of an IPv6 address. Each comes with its limit as a multiple of
/// limits.connections_per_host.
fn networks(address: IpAddr) -> impl Iterator<Item = (Network, usize)> {
    let prefixes: &[(u8, usize)] = match address.to_canonical() {
        IpAddr::V4(_) => &[(32, 1), (24, 3)],
        IpAddr::V6(_) => &[(64, 1), (56, 2), (48, 3)],
    };
    prefixes.iter().map(move |&(prefix, factor)| ((first_address(address.to_canonical(), prefix), prefix), factor))
}

/// The first address of the network that contains `address`.
fn first_address(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(prefix.into())).unwrap_or(0);
            Ipv4Addr::from_bits(ip.to_bits() & mask).into()
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(prefix.into())).unwrap_or(0);
            Ipv6Addr::from_bits(ip.to_bits() & mask).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn limits(connections: usize, connections_per_host: usize) -> Limits {
        Limits { connections, connections_per_host, ..crate::config::default().limits }
    }

    /// The numbers of the connections that are admitted, in order.
    fn admitted(
        connections: &mut Connections,
        limits: &Limits,
        class: ClientClass,
        addresses: impl Iterator<Item = IpAddr>,
    ) -> Vec<u64> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let socket = Arc::new(TcpStream::connect(listener.local_addr().expect("bound")).expect("a connection"));
        let mut admitted = Vec::new();
        for address in addresses {
            if connections.has_room(limits).is_err() {
                continue;
            }
            let number = connections.admit(&socket, &Watch::default(), false);
            match connections.count(number, limits, address, class) {
                Ok(()) => admitted.push(number),
                Err(_) => connections.remove(number),
            }
        }
        admitted
    }

    #[test]
    fn many_addresses_of_one_network_get_few_connections() {
        let six =
            |shift: u32| (0..4000_u128).map(move |n| Ipv6Addr::from_bits((0x2001_0db8 << 96) + (n << shift)).into());
        let four = |shift: u32| (0..4000_u32).map(move |n| Ipv4Addr::from_bits((198 << 24) + (n << shift)).into());
        let each: [(&str, &mut dyn Iterator<Item = IpAddr>, ClientClass, usize); 7] = [
            ("one /64", &mut six(0), ClientClass::Stranger, 50),
            ("/64s of a /52", &mut six(64), ClientClass::Stranger, 150),
            ("/48s", &mut six(80), ClientClass::Stranger, 800),
            ("/48s, submission", &mut six(80), ClientClass::Submitter, 900),
            ("addresses of sixteen /24", &mut four(0), ClientClass::Stranger, 800),
            ("/24s", &mut four(8), ClientClass::Stranger, 800),
            ("relay.networks", &mut six(64), ClientClass::Trusted, 1000),
        ];
        for (what, addresses, class, admitted_count) in each {
            let (mut connections, limits) = (Connections::default(), limits(1000, 50));
            let numbers = admitted(&mut connections, &limits, class, addresses);
            assert_eq!(numbers.len(), admitted_count, "{what}");
            numbers.into_iter().for_each(|number| connections.remove(number));
            assert!(
                connections.networks.is_empty()
                    && connections.outsiders + connections.strangers + connections.open.len() == 0
            );
        }
    }

    #[test]
    fn shares_are_reserved_for_trusted_clients_and_submission() {
        let addresses = || (0..4000_u32).map(|n| IpAddr::from(Ipv4Addr::from_bits((198 << 24) + (n << 8))));
        let (mut connections, limits) = (Connections::default(), limits(20, 50));
        for (class, left) in [
            (ClientClass::Stranger, 16),
            (ClientClass::Submitter, 2),
            (ClientClass::Stranger, 0),
            (ClientClass::Trusted, 2),
        ] {
            assert_eq!(admitted(&mut connections, &limits, class, addresses()).len(), left, "{class:?}");
        }
    }

    #[test]
    fn a_flood_logs_one_line_per_second() {
        let (mut connections, now) = (Connections::default(), Instant::now());
        assert_eq!(connections.warning(LimitReached::All(7), now).as_deref(), Some("too many connections: 7"));
        assert!((0..100).all(|_| connections.warning(LimitReached::All(7), now).is_none()));
        let from = LimitReached::From(IpAddr::V4(Ipv4Addr::LOCALHOST), Some(24), 150);
        assert_eq!(connections.warning(from, now).as_deref(), Some("too many connections from [127.0.0.1]/24: 150"));
        let later = connections.warning(LimitReached::All(8), now + WARNING_INTERVAL);
        assert_eq!(later.as_deref(), Some("too many connections: 8 (100 more since the last line)"));
    }
}

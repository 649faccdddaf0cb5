//! Who has a place, and who finds none.
//!
//! Connections are counted in all, from each host, and for clients that are not of
//! relay.networks also from the networks around it, with limits that grow more slowly than
//! the networks: whoever has many addresses has few more places. The last tenth of all
//! places is for relay.networks, the tenth before it also for listeners for submission.
//! Processes on this host are here too, and keep nobody out.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{Config, Kind, Limits};
use crate::session::Watch;

/// One of a kind of warning is logged in this time.
const SELDOM: Duration = Duration::from_secs(1);

/// Everyone who is connected.
#[derive(Default)]
pub struct Places {
    next: u64,
    pub here: HashMap<u64, Guest>,
    networks: HashMap<Network, usize>,
    /// Clients that are not of relay.networks.
    outsiders: usize,
    /// Those of them that came where other hosts come.
    strangers: usize,
    /// How many of them are processes on this host.
    callers: usize,
    warned: [Option<Instant>; 4],
    unsaid: [usize; 4],
}

/// Someone who is connected.
pub struct Guest {
    /// What it is counted as, once that is known.
    counted: Option<(IpAddr, Standing)>,
    /// Shared with the session, which alone reads and writes it.
    pub socket: Arc<TcpStream>,
    pub watch: Watch,
    is_caller: bool,
}

/// Which places are for a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Of relay.networks: all of them.
    Trusted,
    /// At a listener for submission.
    Submitter,
    /// Anybody else.
    Stranger,
}

impl Standing {
    /// That of a client with an address, at a listener of a kind. `is_known`: it is its own.
    pub fn of(config: &Config, address: IpAddr, is_known: bool, kind: Kind) -> Self {
        let is_trusted = is_known && config.relay.networks.iter().any(|network| network.contains(address));
        match kind {
            _ if is_trusted => Self::Trusted,
            Kind::Submission => Self::Submitter,
            Kind::Smtp => Self::Stranger,
        }
    }
}

/// A network: its first address and the length of its prefix.
type Network = (IpAddr, u8);

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// In all.
    All(usize),
    /// But for relay.networks.
    Outsiders(usize),
    /// But for relay.networks and submission.
    Strangers(usize),
    /// From one network.
    From(IpAddr, Option<u8>, usize),
}

impl fmt::Display for Full {
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

impl Places {
    /// A place for one more, not counted for anybody yet.
    pub fn admit(&mut self, socket: &Arc<TcpStream>, watch: &Watch, is_caller: bool) -> u64 {
        self.next += 1;
        self.callers += usize::from(is_caller);
        let guest = Guest { counted: None, socket: Arc::clone(socket), watch: watch.clone(), is_caller };
        self.here.insert(self.next, guest);
        self.next
    }

    /// Whether there is a place at all.
    pub fn has_room(&self, limits: &Limits) -> Result<(), Full> {
        let all = self.here.len().saturating_sub(self.callers);
        if all < limits.connections { Ok(()) } else { Err(Full::All(all)) }
    }

    /// Counts one that is here for its address, if that has a place left.
    pub fn count(&mut self, number: u64, limits: &Limits, address: IpAddr, standing: Standing) -> Result<(), Full> {
        self.look(limits, address, standing)?;
        let Some(guest) = self.here.get_mut(&number) else { return Ok(()) };
        guest.counted = Some((address, standing));
        for (network, _) in networks(address) {
            *self.networks.entry(network).or_default() += 1;
        }
        self.outsiders += usize::from(standing != Standing::Trusted);
        self.strangers += usize::from(standing == Standing::Stranger);
        Ok(())
    }

    fn look(&self, limits: &Limits, address: IpAddr, standing: Standing) -> Result<(), Full> {
        let is_trusted = standing == Standing::Trusted;
        for (at, (network, times)) in networks(address).enumerate() {
            let count = self.networks.get(&network).copied().unwrap_or(0);
            if count >= limits.connections_per_host * times && (at == 0 || !is_trusted) {
                return Err(Full::From(network.0, (at > 0).then_some(network.1), count));
            }
        }
        let share = limits.connections / 10;
        if !is_trusted && self.outsiders >= limits.connections - share {
            return Err(Full::Outsiders(self.outsiders));
        }
        if standing == Standing::Stranger && self.strangers >= limits.connections - 2 * share {
            return Err(Full::Strangers(self.strangers));
        }
        Ok(())
    }

    /// One has left.
    pub fn leave(&mut self, number: u64) {
        let Some(gone) = self.here.remove(&number) else { return };
        self.callers -= usize::from(gone.is_caller);
        let Some((address, standing)) = gone.counted else { return };
        self.outsiders -= usize::from(standing != Standing::Trusted);
        self.strangers -= usize::from(standing == Standing::Stranger);
        for (network, _) in networks(address) {
            match self.networks.get_mut(&network) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(self.networks.remove(&network)),
            }
        }
    }

    /// The line of the log that says why a client found no place: one of a kind a second, with
    /// how many like it were left out since the last.
    pub fn warning(&mut self, why: Full, now: Instant) -> Option<String> {
        let kind = match why {
            Full::All(_) => 0,
            Full::Outsiders(_) => 1,
            Full::Strangers(_) => 2,
            Full::From(..) => 3,
        };
        let (warned, unsaid) = (self.warned.get_mut(kind)?, self.unsaid.get_mut(kind)?);
        if warned.is_some_and(|then| now.saturating_duration_since(then) < SELDOM) {
            *unsaid += 1;
            return None;
        }
        *warned = Some(now);
        match std::mem::take(unsaid) {
            0 => Some(why.to_string()),
            more => Some(format!("{why} ({more} more since the last line)")),
        }
    }
}

/// What is counted for an address, the host first, and how many times the places of a host
/// there are: an IPv4 address and its /24, or for IPv6 the /64, /56 and /48.
fn networks(address: IpAddr) -> impl Iterator<Item = (Network, usize)> {
    let prefixes: &[(u8, usize)] = match address.to_canonical() {
        IpAddr::V4(_) => &[(32, 1), (24, 3)],
        IpAddr::V6(_) => &[(64, 1), (56, 2), (48, 3)],
    };
    prefixes.iter().map(move |&(prefix, times)| ((cut(address.to_canonical(), prefix), prefix), times))
}

/// The first address of the network.
fn cut(address: IpAddr, prefix: u8) -> IpAddr {
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

    /// How many of these find a place, one after the other.
    fn seated(
        places: &mut Places,
        limits: &Limits,
        standing: Standing,
        addresses: impl Iterator<Item = IpAddr>,
    ) -> Vec<u64> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let socket = Arc::new(TcpStream::connect(listener.local_addr().expect("bound")).expect("a connection"));
        let mut seated = Vec::new();
        for address in addresses {
            if places.has_room(limits).is_err() {
                continue;
            }
            let number = places.admit(&socket, &Watch::default(), false);
            match places.count(number, limits, address, standing) {
                Ok(()) => seated.push(number),
                Err(_) => places.leave(number),
            }
        }
        seated
    }

    #[test]
    fn many_addresses_of_one_network_have_few_places() {
        let six =
            |shift: u32| (0..4000_u128).map(move |n| Ipv6Addr::from_bits((0x2001_0db8 << 96) + (n << shift)).into());
        let four = |shift: u32| (0..4000_u32).map(move |n| Ipv4Addr::from_bits((198 << 24) + (n << shift)).into());
        let each: [(&str, &mut dyn Iterator<Item = IpAddr>, Standing, usize); 7] = [
            ("one /64", &mut six(0), Standing::Stranger, 50),
            ("/64s of a /52", &mut six(64), Standing::Stranger, 150),
            ("/48s", &mut six(80), Standing::Stranger, 800),
            ("/48s, submission", &mut six(80), Standing::Submitter, 900),
            ("addresses of sixteen /24", &mut four(0), Standing::Stranger, 800),
            ("/24s", &mut four(8), Standing::Stranger, 800),
            ("addresses of ours", &mut six(64), Standing::Trusted, 1000),
        ];
        for (what, addresses, standing, most) in each {
            let (mut places, limits) = (Places::default(), limits(1000, 50));
            let seats = seated(&mut places, &limits, standing, addresses);
            assert_eq!(seats.len(), most, "{what}");
            seats.into_iter().for_each(|number| places.leave(number));
            assert!(places.networks.is_empty() && places.outsiders + places.strangers + places.here.len() == 0);
        }
    }

    #[test]
    fn a_share_is_kept_for_those_who_are_known() {
        let addresses = || (0..4000_u32).map(|n| IpAddr::from(Ipv4Addr::from_bits((198 << 24) + (n << 8))));
        let (mut places, limits) = (Places::default(), limits(20, 50));
        for (standing, places_left) in
            [(Standing::Stranger, 16), (Standing::Submitter, 2), (Standing::Stranger, 0), (Standing::Trusted, 2)]
        {
            assert_eq!(seated(&mut places, &limits, standing, addresses()).len(), places_left, "{standing:?}");
        }
    }

    #[test]
    fn a_flood_has_a_line_a_second() {
        let (mut places, now) = (Places::default(), Instant::now());
        assert_eq!(places.warning(Full::All(7), now).as_deref(), Some("too many connections: 7"));
        assert!((0..100).all(|_| places.warning(Full::All(7), now).is_none()));
        let from = Full::From(IpAddr::V4(Ipv4Addr::LOCALHOST), Some(24), 150);
        assert_eq!(places.warning(from, now).as_deref(), Some("too many connections from [127.0.0.1]/24: 150"));
        let later = places.warning(Full::All(8), now + SELDOM);
        assert_eq!(later.as_deref(), Some("too many connections: 8 (100 more since the last line)"));
    }
}

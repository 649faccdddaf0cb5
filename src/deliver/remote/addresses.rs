//! What is known of the addresses of other hosts: how many connections lead to each, and
//! which are down.
//!
//! The queue counts by destination, but many domains share one exchanger, and a host that
//! is dead for one is dead for all. So whoever opens a connection asks here first, and gets
//! a [`Permit`] that lasts as long as the connection. An address that has never answered
//! gets a few connections only; one that fails is down, and passed over until it is time
//! for a probe. An IPv6 address stands for its /64, which one host can have for itself.
//! Bounded in number; all workers share one, and nobody holds the lock while waiting.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::endpoint::Endpoint;
use crate::outcome::Outcome;

/// Connections to an address that has not answered yet.
const UNPROVEN: usize = 4;
/// From the first failure until the first probe; this doubles with each one that fails.
const FIRST_QUIET: Duration = Duration::from_secs(5);
/// The longest time between two probes.
const MAX_QUIET: Duration = Duration::from_secs(75);
/// Failures in a row that make an address down which has answered before.
const FAILURES: u32 = 3;
/// An address that nobody has asked for since its probe was due is listed so long.
const LISTED: Duration = Duration::from_secs(3600);
/// Addresses that are remembered, besides those in use and those that are down.
const REMEMBERED: usize = 8192;

/// All addresses that mail goes to.
#[derive(Debug, Default)]
pub struct Addresses(Mutex<HashMap<Endpoint, Known>>);

/// What is known of one.
#[derive(Debug, Default)]
struct Known {
    connections: usize,
    has_answered: bool,
    /// What the host takes at once, as it has said while as many connections lasted.
    most: Option<usize>,
    /// Attempts in a row that nobody answered, and what the last one led to.
    failures: u32,
    down: Option<Down>,
}

#[derive(Debug)]
struct Down {
    since: Instant,
    next_probe: Instant,
    why: Box<Outcome>,
}

/// An address that is down, for people to read.
#[derive(Debug)]
pub struct DownAddress {
    /// Which.
    pub address: Endpoint,
    /// For how long.
    pub since: Duration,
    /// How long until a probe may be made.
    pub next_probe: Duration,
    /// What the last attempt led to.
    pub why: Box<Outcome>,
}

/// Whether a connection may be opened.
#[derive(Debug)]
pub enum Admission {
    /// Yes, for as long as the permit lives.
    Granted(Permit),
    /// Not now: as many lead there as may.
    AtLimit,
    /// Not now: nobody answers there. What the last attempt led to.
    Down(Box<Outcome>),
}

/// The right to one connection.
#[derive(Debug)]
pub struct Permit {
    all: Arc<Addresses>,
    address: Endpoint,
}

impl Addresses {
    /// Asks for a connection to `address`, to which at most `most` may lead.
    pub fn ask(self: &Arc<Self>, address: &Endpoint, most: usize) -> Admission {
        let address = place(address);
        let now = Instant::now();
        let mut all = self.lock();
        if all.len() >= REMEMBERED && !all.contains_key(&address) {
            all.retain(|_, known| {
                known.connections > 0 || known.down.as_ref().is_some_and(|down| now < down.next_probe)
            });
        }
        let known = all.entry(address.clone()).or_default();
        if let Some(down) = known.down.as_ref().filter(|down| now < down.next_probe) {
            return Admission::Down(down.why.clone());
        }
        let limit = if known.has_answered && known.down.is_none() { most } else { UNPROVEN.min(most) };
        let limit = known.most.map_or(limit, |own| own.min(limit));
        if known.connections >= limit {
            return Admission::AtLimit;
        }
        if let Some(down) = &mut known.down {
            // This is the probe; the others wait for what comes of it.
            down.next_probe = now + quiet(known.failures);
        }
        known.connections += 1;
        Admission::Granted(Permit { all: Arc::clone(self), address })
    }

    /// What is down may be tried at once.
    pub fn clear_failures(&self) {
        self.lock().values_mut().for_each(|known| known.down = None);
    }

    /// Those that are down, in no order.
    pub fn down(&self) -> Vec<DownAddress> {
        let row = |(address, known): (&Endpoint, &Known)| {
            let down = known.down.as_ref().filter(|down| down.next_probe.elapsed() < LISTED)?;
            let next_probe = down.next_probe.saturating_duration_since(Instant::now());
            Some(DownAddress {
                address: address.clone(),
                since: down.since.elapsed(),
                next_probe,
                why: down.why.clone(),
            })
        };
        self.lock().iter().filter_map(row).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Endpoint, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// The host there has answered.
    pub fn answered(&self) {
        if let Some(known) = self.all.lock().get_mut(&self.address) {
            let Known { connections, most, .. } = *known;
            *known = Known { connections, most, has_answered: true, ..Known::default() };
        }
    }

    /// The host takes no more connections than those that there are besides this one; false if
    /// there is no other.
    pub fn refused(&self) -> bool {
        let mut all = self.all.lock();
        let Some(known) = all.get_mut(&self.address).filter(|known| known.connections > 1) else { return false };
        known.most = Some(known.connections - 1);
        true
    }

    /// Nobody has answered: the connection could not be made, or ended or timed out before
    /// the greeting.
    pub fn failed(&self, why: &Outcome) {
        if let Some(known) = self.all.lock().get_mut(&self.address) {
            known.failures = known.failures.saturating_add(1);
            // A host that takes no more connections than there are is not down.
            let is_alive = known.has_answered && (known.connections > 1 || known.failures < FAILURES);
            if !is_alive {
                let now = Instant::now();
                let since = known.down.as_ref().map_or(now, |down| down.since);
                let next_probe = now + quiet(known.failures);
                known.down = Some(Down { since, next_probe, why: Box::new(why.clone()) });
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(known) = self.all.lock().get_mut(&self.address) {
            known.connections -= 1;
            if known.connections == 0 {
                known.most = None;
            }
        }
    }
}

fn quiet(failures: u32) -> Duration {
    FIRST_QUIET.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(MAX_QUIET)
}

/// The endpoint that counts for this one: all addresses of an IPv6 /64 at a port count as one.
pub fn place(endpoint: &Endpoint) -> Endpoint {
    let Endpoint::Tcp(address) = endpoint else { return endpoint.clone() };
    let ip = match address.ip().to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX))),
        ip => ip,
    };
    SocketAddr::new(ip, address.port()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::Status;

    fn tcp(address: &str) -> Endpoint {
        Endpoint::Tcp(address.parse().expect("an address"))
    }

    fn granted(addresses: &Arc<Addresses>, address: &str) -> Option<Permit> {
        match addresses.ask(&tcp(address), 20) {
            Admission::Granted(permit) => Some(permit),
            Admission::AtLimit | Admission::Down(_) => None,
        }
    }

    #[test]
    fn an_address_has_few_connections_until_it_answers_and_then_its_limit() {
        let addresses = Arc::new(Addresses::default());
        let ask = || granted(&addresses, "192.0.2.1:25");
        let mut permits: Vec<Permit> = std::iter::from_fn(ask).take(30).collect();
        assert_eq!(permits.len(), UNPROVEN);
        assert!(granted(&addresses, "192.0.2.2:25").is_some() && granted(&addresses, "192.0.2.1:2525").is_some());
        permits[0].answered();
        permits.extend(std::iter::from_fn(ask).take(30));
        assert_eq!(permits.len(), 20);
        permits.pop();
        assert!(ask().is_some());
    }

    #[test]
    fn a_host_that_takes_no_more_has_that_limit_until_all_connections_end() {
        let addresses = Arc::new(Addresses::default());
        let ask = || granted(&addresses, "192.0.2.1:25");
        let first = ask().expect("a permit");
        first.answered();
        assert!(!first.refused());
        let (second, third) = (ask().expect("a permit"), ask().expect("a permit"));
        assert!(third.refused());
        drop(third);
        assert!(ask().is_none());
        drop(second);
        drop(ask().expect("a permit"));
        drop(first);
        assert_eq!(std::iter::repeat_with(ask).take(3).flatten().count(), 3);
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_as_one() {
        let addresses = Arc::new(Addresses::default());
        let permits: Vec<_> = (1..9).filter_map(|n| granted(&addresses, &format!("[2001:db8::{n}]:25"))).collect();
        assert_eq!(permits.len(), UNPROVEN);
        assert!(granted(&addresses, "[2001:db8:0:1::1]:25").is_some());
    }

    #[test]
    fn a_dead_address_is_passed_over_and_one_failure_of_a_good_one_is_not_the_end() {
        let addresses = Arc::new(Addresses::default());
        let why = Outcome::deferred(Status(4, 4, 1), "timed out while connecting");
        granted(&addresses, "192.0.2.1:25").expect("a permit").failed(&why);
        let asked = addresses.ask(&tcp("192.0.2.1:25"), 20);
        assert!(matches!(asked, Admission::Down(said) if said.why == why.why));
        addresses.clear_failures();
        let permit = granted(&addresses, "192.0.2.1:25").expect("a permit");
        permit.answered();
        permit.failed(&why);
        permit.failed(&why);
        assert!(granted(&addresses, "192.0.2.1:25").is_some());
        permit.failed(&why);
        assert!(granted(&addresses, "192.0.2.1:25").is_none());
    }
}

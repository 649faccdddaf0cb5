//! Limits the connections to each address of another host, and remembers which addresses fail.
//!
//! The queue counts jobs by destination, but many domains share one mail exchanger, and a host that
//! is down for one domain is down for all. So every connection needs a [`Permit`] of this module,
//! which lasts as long as the connection. An address that has never answered gets few connections.
//! An address that keeps failing is down, and is skipped until it is time for a probe. All
//! addresses of an IPv6 /64 count as one, since a single host can have all of them. If this host
//! connects from several addresses, each of these counts on its own, because the other host may
//! judge them differently. The table is bounded and shared by all workers; its lock is never held
//! while waiting.
//!
//! A line of the table of outgoing mail may set a lower limit. With it only those connections are
//! compared that were made under the same limit (see [`Share`]). Otherwise other mail through the
//! same host could keep the limited mail from ever being sent.
//!
//! The limits are for mail. A question about a recipient (see `ask`) neither counts towards them nor
//! waits for them: a client waits for the answer. It only keeps to the number of connections that the
//! host has shown to accept, and few questions go to an address that has not answered yet.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::endpoint::Endpoint;
use crate::outcome::Outcome;

/// Maximum number of connections to an address that has not answered yet.
const UNPROVEN: usize = 4;
/// The time from the first failure until the first probe. The time doubles with each failed probe.
const FIRST_PROBE_AFTER: Duration = Duration::from_secs(5);
/// The maximum time between two probes.
const MAX_PROBE_INTERVAL: Duration = Duration::from_secs(75);
/// If an address has answered before, it is down only after this many failures in a row.
const FAILURES_UNTIL_DOWN: u32 = 3;
/// How long an address stays listed as down after its probe is due, if there is no mail with which
/// to probe it.
const LISTED_FOR: Duration = Duration::from_secs(3600);
/// Once there are this many addresses, those without a connection are forgotten, unless they are
/// down and their next probe is not due yet.
const MAX_REMEMBERED: usize = 8192;

/// All addresses to which mail was sent lately.
#[derive(Debug, Default)]
pub struct Addresses(Mutex<HashMap<Place, Known>>);

/// An address of another host (see [`place`]), and the address from which this host connects to it;
/// `None` if the system chooses.
type Place = (Endpoint, Option<IpAddr>);

/// The connections to an address that a line of the table of outgoing mail limits together: those of
/// destinations for the same sender's line, or for no such line, that have the same limit.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Share {
    /// The key of the sender's line.
    pub sender: Option<String>,
    /// The maximum number of these connections.
    pub limit: usize,
}

/// The state of one address.
#[derive(Debug, Default)]
struct Known {
    connections: usize,
    /// The number of those connections that are for questions.
    questions: usize,
    /// The number of connections in each share.
    shares: HashMap<Share, usize>,
    has_answered: bool,
    /// The number of connections that were open when the host rejected another one.
    rejected_above: Option<usize>,
    /// Attempts in a row without an answer.
    failures: u32,
    down: Option<DownState>,
}

#[derive(Debug)]
struct DownState {
    since: Instant,
    next_probe: Instant,
    /// The number of probes that have failed.
    probes: u32,
    why: Box<Outcome>,
}

/// An address that is down, for a listing.
#[derive(Debug)]
pub struct DownAddress {
    /// The address.
    pub address: Endpoint,
    /// The address from which this host connects to it; `None` if the system chooses.
    pub source: Option<IpAddr>,
    /// How long the address has been down.
    pub since: Duration,
    /// The time until the next probe, a connection that shows whether the host answers again.
    pub next_probe: Duration,
    /// The outcome of the last attempt.
    pub why: Box<Outcome>,
}

/// The answer to a request for a connection.
#[derive(Debug)]
pub enum Admission {
    /// Granted, until the permit is dropped.
    Granted(Permit),
    /// Refused: the address is at its limit of connections.
    AtLimit,
    /// Refused: the address is down, with this outcome of the last attempt.
    Down(Box<Outcome>),
}

/// The permission for one connection.
#[derive(Debug)]
pub struct Permit {
    all: Arc<Addresses>,
    place: Place,
    share: Option<Share>,
    /// Whether the connection is for questions.
    is_question: bool,
    /// Whether the connection shows if an address answers again that is down.
    is_probe: bool,
}

impl Addresses {
    /// Requests a connection for mail to `address` from `source`. At most `max_connections` are allowed,
    /// and in the share as many as its limit says.
    pub fn ask(
        self: &Arc<Self>,
        address: &Endpoint,
        source: Option<IpAddr>,
        (max_connections, share): (usize, Option<Share>),
    ) -> Admission {
        self.admit(address, source, Some(max_connections), share)
    }

    /// Requests a connection for questions about recipients to `address` from `source`.
    pub fn ask_for_question(self: &Arc<Self>, address: &Endpoint, source: Option<IpAddr>) -> Admission {
        self.admit(address, source, None, None)
    }

    /// Grants or refuses a connection. It is for questions if there is no maximum.
    fn admit(
        self: &Arc<Self>,
        address: &Endpoint,
        source: Option<IpAddr>,
        max_connections: Option<usize>,
        share: Option<Share>,
    ) -> Admission {
        let place = (place(address), source);
        let now = Instant::now();
        let mut all = self.lock();
        if all.len() >= MAX_REMEMBERED && !all.contains_key(&place) {
            all.retain(|_, known| {
                known.connections > 0 || known.down.as_ref().is_some_and(|down| now < down.next_probe)
            });
        }
        let known = all.entry(place.clone()).or_default();
        if let Some(down) = known.down.as_ref().filter(|down| now < down.next_probe) {
            return Admission::Down(down.why.clone());
        }
        let is_question = max_connections.is_none();
        let max = max_connections.unwrap_or(usize::MAX);
        let limit = if known.has_answered && known.down.is_none() { max } else { UNPROVEN.min(max) };
        let count = if is_question { known.questions } else { known.connections - known.questions };
        let is_full = known.rejected_above.is_some_and(|rejected_above| known.connections >= rejected_above);
        if count >= limit || is_full || !known.has_room(share.as_ref()) {
            return Admission::AtLimit;
        }
        if let Some(down) = &mut known.down {
            // This connection is the probe. Until its result is known, no other connection is
            // granted.
            down.next_probe = now + probe_interval(down.probes + 1);
        }
        known.connections += 1;
        known.questions += usize::from(is_question);
        known.enter(share.as_ref());
        let is_probe = known.down.is_some();
        Admission::Granted(Permit { all: Arc::clone(self), place, share, is_question, is_probe })
    }

    /// Lets addresses that are down be tried at once.
    pub fn clear_failures(&self) {
        self.lock().values_mut().for_each(|known| known.down = None);
    }

    /// The addresses that are down, in no particular order.
    pub fn down(&self) -> Vec<DownAddress> {
        let row = |((address, source), known): (&Place, &Known)| {
            let down = known.down.as_ref().filter(|down| down.next_probe.elapsed() < LISTED_FOR)?;
            let next_probe = down.next_probe.saturating_duration_since(Instant::now());
            Some(DownAddress {
                address: address.clone(),
                source: *source,
                since: down.since.elapsed(),
                next_probe,
                why: down.why.clone(),
            })
        };
        self.lock().iter().filter_map(row).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Place, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn has_room(&self, share: Option<&Share>) -> bool {
        share.is_none_or(|share| self.shares.get(share).is_none_or(|count| *count < share.limit))
    }

    fn enter(&mut self, share: Option<&Share>) {
        if let Some(share) = share {
            *self.shares.entry(share.clone()).or_default() += 1;
        }
    }

    fn leave(&mut self, share: Option<&Share>) {
        let Some((share, count)) = share.and_then(|share| Some((share, self.shares.get_mut(share)?))) else { return };
        *count -= 1;
        if *count == 0 {
            self.shares.remove(share);
        }
    }
}

impl Permit {
    /// Lets the connection be used for a destination with this share. Returns false if that share is
    /// at its limit.
    pub fn pass_to(&mut self, share: Option<Share>) -> bool {
        if share == self.share {
            return true;
        }
        if let Some(known) = self.all.lock().get_mut(&self.place) {
            if !known.has_room(share.as_ref()) {
                return false;
            }
            known.leave(self.share.as_ref());
            known.enter(share.as_ref());
        }
        self.share = share;
        true
    }

    /// Notes that the host has answered.
    pub fn answered(&self) {
        if let Some(known) = self.all.lock().get_mut(&self.place) {
            (known.has_answered, known.failures, known.down) = (true, 0, None);
        }
    }

    /// Called when the host has rejected this connection. If other connections to the host are
    /// open, notes that the host accepts no more connections than those, and returns true.
    /// Otherwise returns false.
    pub fn refused(&self) -> bool {
        let mut all = self.all.lock();
        let Some(known) = all.get_mut(&self.place).filter(|known| known.connections > 1) else { return false };
        known.rejected_above = Some(known.connections - 1);
        true
    }

    /// Notes that the host has not answered: the connection failed, or ended or timed out before
    /// the greeting.
    pub fn failed(&self, why: &Outcome) {
        if let Some(known) = self.all.lock().get_mut(&self.place) {
            known.failures = known.failures.saturating_add(1);
            // If a host has answered before, and other connections to it are open, the host is not
            // down: it just accepts no more connections. Without other connections, the host is
            // down after [`FAILURES_UNTIL_DOWN`] failures.
            let is_alive = known.has_answered && (known.connections > 1 || known.failures < FAILURES_UNTIL_DOWN);
            if is_alive {
                return;
            }
            // Connections that began before the address went down fail with it: they are no probes.
            let (now, why) = (Instant::now(), Box::new(why.clone()));
            let (since, probes) = match &known.down {
                Some(_) if !self.is_probe => return,
                Some(down) => (down.since, down.probes.saturating_add(1)),
                None => (now, 0),
            };
            known.down = Some(DownState { since, next_probe: now + probe_interval(probes), probes, why });
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(known) = self.all.lock().get_mut(&self.place) {
            known.connections -= 1;
            known.questions -= usize::from(self.is_question);
            known.leave(self.share.as_ref());
            if known.connections == 0 {
                known.rejected_above = None;
            }
        }
    }
}

/// The time until the next probe, after this many probes have failed.
fn probe_interval(probes: u32) -> Duration {
    FIRST_PROBE_AFTER.saturating_mul(1 << probes.min(10)).min(MAX_PROBE_INTERVAL)
}

/// The endpoint under which connections to `endpoint` are counted: for an IPv6 address its /64
/// network.
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
        match addresses.ask(&tcp(address), None, (20, None)) {
            Admission::Granted(permit) => Some(permit),
            Admission::AtLimit | Admission::Down(_) => None,
        }
    }

    #[test]
    fn an_address_gets_few_connections_until_it_answers() {
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
    fn a_host_that_rejects_a_connection_has_that_limit_until_all_have_ended() {
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
    fn questions_neither_count_towards_the_limits_of_mail_nor_wait_for_them() {
        let addresses = Arc::new(Addresses::default());
        let granted = |admission| match admission {
            Admission::Granted(permit) => Some(permit),
            Admission::AtLimit | Admission::Down(_) => None,
        };
        let question = || granted(addresses.ask_for_question(&tcp("192.0.2.1:25"), None));
        let share = || Some(Share { sender: None, limit: 1 });
        let mail = || granted(addresses.ask(&tcp("192.0.2.1:25"), None, (2, share())));
        let questions: Vec<_> = std::iter::from_fn(question).take(9).collect();
        assert_eq!(questions.len(), UNPROVEN);
        let first = mail().expect("a permit");
        assert!(mail().is_none());
        first.answered();
        assert!(question().is_some());
        // The host accepts no more than these.
        assert!(questions[0].refused());
        assert!(question().is_none() && mail().is_none());
        drop((questions, first));
        assert!(addresses.lock().values().all(|known| (known.connections, known.questions) == (0, 0)));
        assert!(mail().is_some());
    }

    #[test]
    fn each_source_has_connections_and_failures_of_its_own() {
        let (addresses, why) = (Arc::new(Addresses::default()), Outcome::deferred(Status(4, 4, 1), "refused"));
        let ask =
            |source: &str| addresses.ask(&tcp("192.0.2.1:25"), Some(source.parse().expect("an address")), (1, None));
        let Admission::Granted(first) = ask("192.0.2.7") else { panic!("no permit") };
        assert!(matches!(ask("192.0.2.7"), Admission::AtLimit));
        first.failed(&why);
        assert!(matches!(ask("192.0.2.7"), Admission::Down(_)));
        assert!(matches!(ask("192.0.2.8"), Admission::Granted(_)));
        assert!(matches!(addresses.ask(&tcp("192.0.2.1:25"), None, (1, None)), Admission::Granted(_)));
    }

    #[test]
    fn a_lower_limit_is_compared_with_the_connections_under_that_limit() {
        let addresses = Arc::new(Addresses::default());
        let share = |sender: Option<&str>| Some(Share { sender: sender.map(str::to_owned), limit: 1 });
        let ask = |share| match addresses.ask(&tcp("192.0.2.1:25"), None, (20, share)) {
            Admission::Granted(permit) => Some(permit),
            Admission::AtLimit | Admission::Down(_) => None,
        };
        let mut other = ask(None).expect("a permit");
        other.answered();
        let limited = ask(share(Some("@news.test"))).expect("a permit beside other mail");
        assert!(ask(share(Some("@news.test"))).is_none());
        // A connection that is used for other mail counts where it is used.
        assert!(!other.pass_to(share(Some("@news.test"))));
        assert!(other.pass_to(share(None)) && ask(share(None)).is_none());
        assert!(other.pass_to(None) && ask(share(None)).is_some());
        drop(limited);
        assert!(ask(share(Some("@news.test"))).is_some());
        assert!(addresses.lock().values().all(|known| known.shares.is_empty() && known.connections == 1));
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_as_one() {
        let addresses = Arc::new(Addresses::default());
        let permits: Vec<_> = (1..9).filter_map(|n| granted(&addresses, &format!("[2001:db8::{n}]:25"))).collect();
        assert_eq!(permits.len(), UNPROVEN);
        assert!(granted(&addresses, "[2001:db8:0:1::1]:25").is_some());
    }

    #[test]
    fn an_address_that_fails_is_skipped_and_one_that_has_answered_may_fail_twice() {
        let addresses = Arc::new(Addresses::default());
        let why = Outcome::deferred(Status(4, 4, 1), "timed out while connecting");
        granted(&addresses, "192.0.2.1:25").expect("a permit").failed(&why);
        let asked = addresses.ask(&tcp("192.0.2.1:25"), None, (20, None));
        assert!(matches!(asked, Admission::Down(outcome) if outcome.why == why.why));
        addresses.clear_failures();
        let permit = granted(&addresses, "192.0.2.1:25").expect("a permit");
        permit.answered();
        permit.failed(&why);
        permit.failed(&why);
        assert!(granted(&addresses, "192.0.2.1:25").is_some());
        permit.failed(&why);
        assert!(granted(&addresses, "192.0.2.1:25").is_none());
    }

    /// A host that restarts while it has many connections is tried again soon.
    #[test]
    fn only_failed_probes_make_probes_rarer() {
        let addresses = Arc::new(Addresses::default());
        let why = Outcome::deferred(Status(4, 4, 2), "the connection was closed while waiting for the greeting");
        let first = granted(&addresses, "192.0.2.1:25").expect("a permit");
        first.answered();
        let others: Vec<_> =
            std::iter::repeat_with(|| granted(&addresses, "192.0.2.1:25")).take(10).flatten().collect();
        drop(first);
        others.into_iter().for_each(|permit| permit.failed(&why));
        for expected in [5, 10, 20, 40, 75, 75] {
            let until = addresses.down()[0].next_probe;
            assert!(until.as_secs_f64().ceil() as u64 == expected, "{until:?} instead of {expected} s");
            let due = |known: &mut Known| known.down.as_mut().expect("it is down").next_probe = Instant::now();
            addresses.lock().values_mut().for_each(due);
            granted(&addresses, "192.0.2.1:25").expect("a probe").failed(&why);
        }
    }
}

//! Wrong passwords, counted for each client and each account.
//!
//! Each one makes the next answer of that kind come later, 250 ms at first and twice
//! as late each time up to 8 s, whether the account exists or not. [`MOST_OF_HOST`]
//! of one client, or [`MOST_OF_ACCOUNT`] of one account, and nobody is told any more
//! whether a password is right: that ends as the failures are forgotten, one a minute.
//! A client is an IPv4 address or an IPv6 network of 64 bits. One from which somebody
//! has logged in is not kept out of that account by what others try on it.
//!
//! All in memory, in three tables of at most [`MOST_KNOWN`] lines; when one is full, who
//! has failed least, or logged in the longest ago, gives way. A restart forgets
//! everything. Does not wait itself.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Failures of one client that are answered.
pub const MOST_OF_HOST: u32 = 60;
/// Failures for one account that are answered.
pub const MOST_OF_ACCOUNT: u32 = 120;
/// Clients, and accounts, that are kept in mind.
pub const MOST_KNOWN: usize = 10_000;

/// One failure is forgotten after so long.
const FORGETTING: Duration = Duration::from_secs(60);
/// The delay of the first failure.
const FIRST_DELAY: Duration = Duration::from_millis(250);
/// It is doubled so often at most.
const DOUBLINGS: u32 = 5;

/// Who has failed how often.
#[derive(Debug, Default)]
pub struct Throttle {
    tables: Mutex<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    hosts: HashMap<IpAddr, Tally>,
    accounts: HashMap<String, Tally>,
    /// Who has logged in to what, and when last.
    known: HashMap<(IpAddr, String), Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Tally {
    failures: u32,
    /// Since when the oldest of them is being forgotten.
    since: Instant,
}

impl Throttle {
    /// Whether a client, or an account, has failed so often that it gets no answer.
    pub fn is_blocked(&self, host: Option<IpAddr>, account: &str) -> bool {
        self.is_blocked_at(host, account, Instant::now())
    }

    /// Counts a failure: how long after the question it is to be answered.
    pub fn failed(&self, host: Option<IpAddr>, account: &str) -> Duration {
        self.failed_at(host, account, Instant::now())
    }

    /// Notes that a client has logged in to an account.
    pub fn succeeded(&self, host: Option<IpAddr>, account: &str) {
        self.succeeded_at(host, account, Instant::now());
    }

    fn succeeded_at(&self, host: Option<IpAddr>, account: &str, now: Instant) {
        let Some(host) = host else { return };
        let known = &mut self.tables.lock().unwrap_or_else(PoisonError::into_inner).known;
        let pair = (network(host), account.to_lowercase());
        if known.len() >= MOST_KNOWN && !known.contains_key(&pair) {
            let oldest = known.iter().min_by_key(|(_, when)| **when).map(|(pair, _)| pair.clone());
            oldest.and_then(|pair| known.remove(&pair));
        }
        known.insert(pair, now);
    }

    fn is_blocked_at(&self, host: Option<IpAddr>, account: &str, now: Instant) -> bool {
        let tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let of_host = host.and_then(|host| tables.hosts.get(&network(host)));
        let account = account.to_lowercase();
        let pair = host.map(|host| (network(host), account.clone()));
        let is_known = pair.is_some_and(|pair| tables.known.contains_key(&pair));
        let of_account = tables.accounts.get(&account).filter(|_| !is_known);
        of_host.is_some_and(|tally| tally.at(now).failures >= MOST_OF_HOST)
            || of_account.is_some_and(|tally| tally.at(now).failures >= MOST_OF_ACCOUNT)
    }

    fn failed_at(&self, host: Option<IpAddr>, account: &str, now: Instant) -> Duration {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let of_host = host.map_or(0, |host| count(&mut tables.hosts, network(host), MOST_OF_HOST, now));
        let of_account = match account {
            "" => 0,
            _ => count(&mut tables.accounts, account.to_lowercase(), MOST_OF_ACCOUNT, now),
        };
        FIRST_DELAY * (1 << of_host.max(of_account).max(1).saturating_sub(1).min(DOUBLINGS))
    }
}

/// One more for a key; how many that makes, at most `most`.
fn count<K: Eq + Hash + Clone>(table: &mut HashMap<K, Tally>, key: K, most: u32, now: Instant) -> u32 {
    if table.len() >= MOST_KNOWN && !table.contains_key(&key) {
        table.retain(|_, tally| tally.at(now).failures > 0);
    }
    if table.len() >= MOST_KNOWN && !table.contains_key(&key) {
        let least = table.iter().min_by_key(|(_, tally)| (tally.at(now).failures, tally.since));
        let least = least.map(|(key, _)| key.clone());
        least.and_then(|key| table.remove(&key));
    }
    let tally = table.entry(key).or_insert(Tally { failures: 0, since: now });
    *tally = tally.at(now);
    // What is beyond the limit would keep it blocked for hours.
    tally.failures = (tally.failures + 1).min(most);
    tally.failures
}

impl Tally {
    /// What is left of it now.
    fn at(self, now: Instant) -> Self {
        let age = now.saturating_duration_since(self.since);
        let forgotten = u32::try_from(age.as_secs() / FORGETTING.as_secs()).unwrap_or(u32::MAX);
        if forgotten >= self.failures {
            return Self { failures: 0, since: now };
        }
        Self { failures: self.failures - forgotten, since: self.since + FORGETTING * forgotten }
    }
}

/// What counts as one client.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    #[test]
    fn each_failure_doubles_the_delay_of_the_host_and_of_the_account() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        let delays: Vec<u128> =
            (0..8).map(|_| throttle.failed_at(host("192.0.2.1"), "jon@x", now).as_millis()).collect();
        assert_eq!(delays, [250, 500, 1000, 2000, 4000, 8000, 8000, 8000]);
        assert_eq!(throttle.failed_at(host("192.0.2.2"), "JON@X", now).as_millis(), 8000, "the account");
        assert_eq!(throttle.failed_at(host("192.0.2.1"), "mary@x", now).as_millis(), 8000, "the host");
        assert_eq!(throttle.failed_at(host("192.0.2.3"), "paul@x", now).as_millis(), 250, "neither");
        let later = now + FORGETTING * 20;
        assert_eq!(throttle.failed_at(host("192.0.2.1"), "jon@x", later).as_millis(), 250, "forgotten");
    }

    #[test]
    fn a_network_of_ipv6_is_one_host() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        throttle.failed_at(host("2001:db8::1"), "", now);
        assert_eq!(throttle.failed_at(host("2001:db8::2"), "", now).as_millis(), 500);
        assert_eq!(throttle.failed_at(host("2001:db8:0:1::2"), "", now).as_millis(), 250);
    }

    #[test]
    fn who_fails_too_often_is_blocked_and_let_in_again() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        for at in 0..MOST_OF_HOST * 2 {
            assert_eq!(throttle.is_blocked_at(host("192.0.2.1"), "", now), at >= MOST_OF_HOST);
            throttle.failed_at(host("192.0.2.1"), &format!("user{at}"), now);
        }
        assert!(!throttle.is_blocked_at(host("192.0.2.2"), "user1", now), "others are not meant");
        assert!(!throttle.is_blocked_at(host("192.0.2.1"), "", now + FORGETTING));
        for at in 0..MOST_OF_ACCOUNT {
            throttle.failed_at(host(&format!("198.51.100.{at}")), "jon", now);
        }
        assert!(throttle.is_blocked_at(host("192.0.2.2"), "Jon", now) && !throttle.is_blocked_at(None, "mary", now));
    }

    #[test]
    fn where_somebody_has_logged_in_others_do_not_keep_him_out() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        throttle.succeeded_at(host("2001:db8::1"), "jon", now);
        for at in 0..MOST_OF_ACCOUNT {
            throttle.failed_at(host(&format!("198.51.100.{at}")), "jon", now);
        }
        assert!(!throttle.is_blocked_at(host("2001:db8::2"), "JON", now), "his network");
        assert!(throttle.is_blocked_at(host("2001:db8:0:1::2"), "jon", now), "another one");
        for _ in 0..MOST_OF_HOST {
            throttle.failed_at(host("2001:db8::3"), "jon", now);
        }
        assert!(throttle.is_blocked_at(host("2001:db8::2"), "jon", now), "who guesses there is stopped");
        for at in 0..MOST_KNOWN {
            throttle.succeeded_at(host("192.0.2.1"), &format!("user{at}"), now + FORGETTING);
        }
        let tables = throttle.tables.lock().expect("whole");
        assert_eq!(tables.known.len(), MOST_KNOWN);
        assert!(tables.known.keys().all(|(_, account)| account != "jon"), "the oldest gives way");
    }

    #[test]
    fn the_tables_are_bounded_and_keep_the_worst() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        for _ in 0..5 {
            throttle.failed_at(None, "worst", now);
        }
        for at in 0..MOST_KNOWN + 50 {
            throttle.failed_at(None, &format!("user{at}"), now);
        }
        let tables = throttle.tables.lock().expect("whole");
        assert_eq!(tables.accounts.len(), MOST_KNOWN);
        assert_eq!(tables.accounts.get("worst").map(|tally| tally.failures), Some(5));
    }
}

//! Counts failed attempts to authenticate, for each client and each account, and limits further
//! attempts.
//!
//! The negative reply to a failure is delayed, by 250 ms at first and twice as long each time, up
//! to 8 s, whether the account exists or not. After [`MAX_PER_CLIENT`] failures of one client, or
//! [`MAX_PER_ACCOUNT`] for one account, passwords from that client or for that account are not
//! checked until the next failure expires. Each client and each account loses one failure a minute.
//! A client is an IPv4 address or an IPv6 network with a prefix of 64 bits. The failures of others
//! do not block a client from an account to which it has authenticated before.
//!
//! Everything is kept in memory, in three tables of at most [`MAX_ENTRIES`] entries each. A full
//! table drops the entry with the fewest failures or the oldest success. A restart resets the
//! counts. The caller carries out the delays.
//!
//! If several hosts share a store, it counts the failures of all hosts in the same way, and a client
//! or an account is blocked if either count has reached the maximum.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::shared::{Failures, Login, Shared};

/// The number of failures after which a client is blocked.
pub const MAX_PER_CLIENT: u32 = 60;
/// The number of failures after which an account is blocked.
pub const MAX_PER_ACCOUNT: u32 = 120;
/// The maximum number of entries in each table.
pub const MAX_ENTRIES: usize = 10_000;

/// The interval after which one failure expires.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(60);
/// The delay after the first failure.
const FIRST_DELAY: Duration = Duration::from_millis(250);
/// The maximum number of times that the delay is doubled.
const MAX_DOUBLINGS: u64 = 5;

/// The counts of failures.
#[derive(Debug, Default)]
pub struct Throttle {
    tables: Mutex<Tables>,
    /// The counts of all hosts.
    shared: OnceLock<Shared>,
}

#[derive(Debug, Default)]
struct Tables {
    hosts: HashMap<IpAddr, Tally>,
    accounts: HashMap<String, Tally>,
    /// The time of the last success of each client with each account.
    successes: HashMap<(IpAddr, String), Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Tally {
    failures: u32,
    /// The start of the current expiry interval: one failure expires at `since + EXPIRY_INTERVAL`.
    since: Instant,
}

impl Throttle {
    /// Counts the failures in a store as well, together with other hosts. Only the first store that
    /// is given counts.
    pub fn share(&self, shared: Shared) {
        // A reload keeps the throttle, which has the store already.
        let _ = self.shared.set(shared);
    }

    /// Whether the attempts of the client at `host` to log in to this account are blocked.
    pub fn is_blocked(&self, host: Option<IpAddr>, account: &str) -> bool {
        if self.is_blocked_at(host, account, Instant::now()) {
            return true;
        }
        let all = self.of_all(host, account, Shared::failures);
        all.is_some_and(|Failures { client, account: failures, is_known }| {
            let is_known = is_known || self.is_known(host, account);
            client >= MAX_PER_CLIENT.into() || failures >= MAX_PER_ACCOUNT.into() && !is_known
        })
    }

    /// Counts a failure. Returns the delay before the reply to the client.
    pub fn failed(&self, host: Option<IpAddr>, account: &str) -> Duration {
        let delay = self.failed_at(host, account, Instant::now());
        let all = self.of_all(host, account, Shared::failed);
        all.map_or(delay, |all| delay.max(delay_after(all.client.max(all.account))))
    }

    /// Records that a client has authenticated to an account.
    pub fn succeeded(&self, host: Option<IpAddr>, account: &str) {
        self.succeeded_at(host, account, Instant::now());
        self.of_all(host, account, |shared, login| {
            shared.succeeded(login);
            None::<()>
        });
    }

    /// Asks the store about a client and an account.
    fn of_all<T>(
        &self,
        host: Option<IpAddr>,
        account: &str,
        ask: impl FnOnce(&Shared, Login<'_>) -> Option<T>,
    ) -> Option<T> {
        let shared = self.shared.get()?;
        let client = host.map(|host| network(host).to_string()).unwrap_or_default();
        let account = account.to_lowercase();
        ask(shared, Login { client: &client, account: &account, max: (MAX_PER_CLIENT, MAX_PER_ACCOUNT) })
    }

    /// Whether a client has authenticated to an account on this host before.
    fn is_known(&self, host: Option<IpAddr>, account: &str) -> bool {
        let tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        host.is_some_and(|host| tables.successes.contains_key(&(network(host), account.to_lowercase())))
    }

    fn succeeded_at(&self, host: Option<IpAddr>, account: &str, now: Instant) {
        let Some(host) = host else { return };
        let successes = &mut self.tables.lock().unwrap_or_else(PoisonError::into_inner).successes;
        let pair = (network(host), account.to_lowercase());
        if successes.len() >= MAX_ENTRIES && !successes.contains_key(&pair) {
            let oldest = successes.iter().min_by_key(|(_, when)| **when).map(|(pair, _)| pair.clone());
            oldest.and_then(|pair| successes.remove(&pair));
        }
        successes.insert(pair, now);
    }

    fn is_blocked_at(&self, host: Option<IpAddr>, account: &str, now: Instant) -> bool {
        let tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let of_host = host.and_then(|host| tables.hosts.get(&network(host)));
        let account = account.to_lowercase();
        let pair = host.map(|host| (network(host), account.clone()));
        let is_known = pair.is_some_and(|pair| tables.successes.contains_key(&pair));
        let of_account = tables.accounts.get(&account).filter(|_| !is_known);
        of_host.is_some_and(|tally| tally.at(now).failures >= MAX_PER_CLIENT)
            || of_account.is_some_and(|tally| tally.at(now).failures >= MAX_PER_ACCOUNT)
    }

    fn failed_at(&self, host: Option<IpAddr>, account: &str, now: Instant) -> Duration {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let of_host = host.map_or(0, |host| count(&mut tables.hosts, network(host), MAX_PER_CLIENT, now));
        let of_account = match account {
            "" => 0,
            _ => count(&mut tables.accounts, account.to_lowercase(), MAX_PER_ACCOUNT, now),
        };
        delay_after(of_host.max(of_account).into())
    }
}

/// The delay of the reply after this number of failures.
fn delay_after(failures: u64) -> Duration {
    FIRST_DELAY * (1 << failures.saturating_sub(1).min(MAX_DOUBLINGS))
}

/// Counts a failure for a client or an account. Returns the number of failures of that client or
/// account, at most `max`.
fn count<K: Eq + Hash + Clone>(table: &mut HashMap<K, Tally>, key: K, max: u32, now: Instant) -> u32 {
    if table.len() >= MAX_ENTRIES && !table.contains_key(&key) {
        table.retain(|_, tally| tally.at(now).failures > 0);
    }
    if table.len() >= MAX_ENTRIES && !table.contains_key(&key) {
        let least = table.iter().min_by_key(|(_, tally)| (tally.at(now).failures, tally.since));
        let least = least.map(|(key, _)| key.clone());
        least.and_then(|key| table.remove(&key));
    }
    let tally = table.entry(key).or_insert(Tally { failures: 0, since: now });
    *tally = tally.at(now);
    // Failures beyond the limit are not counted, because they could block the client or the account
    // for hours.
    tally.failures = (tally.failures + 1).min(max);
    tally.failures
}

impl Tally {
    /// The tally without the failures that have expired.
    fn at(self, now: Instant) -> Self {
        let age = now.saturating_duration_since(self.since);
        let expired = u32::try_from(age.as_secs() / EXPIRY_INTERVAL.as_secs()).unwrap_or(u32::MAX);
        if expired >= self.failures {
            return Self { failures: 0, since: now };
        }
        Self { failures: self.failures - expired, since: self.since + EXPIRY_INTERVAL * expired }
    }
}

/// The address that stands for a client: an IPv4 address, or the network of an IPv6 address, with a
/// prefix of 64 bits.
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
    fn each_failure_doubles_the_delay_for_the_client_and_the_account() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        let delays: Vec<u128> =
            (0..8).map(|_| throttle.failed_at(host("192.0.2.1"), "jon@x", now).as_millis()).collect();
        assert_eq!(delays, [250, 500, 1000, 2000, 4000, 8000, 8000, 8000]);
        assert_eq!(throttle.failed_at(host("192.0.2.2"), "JON@X", now).as_millis(), 8000, "the account");
        assert_eq!(throttle.failed_at(host("192.0.2.1"), "mary@x", now).as_millis(), 8000, "the host");
        assert_eq!(throttle.failed_at(host("192.0.2.3"), "paul@x", now).as_millis(), 250, "neither");
        let later = now + EXPIRY_INTERVAL * 20;
        assert_eq!(throttle.failed_at(host("192.0.2.1"), "jon@x", later).as_millis(), 250, "expired");
    }

    #[test]
    fn a_network_of_ipv6_is_one_host() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        throttle.failed_at(host("2001:db8::1"), "", now);
        assert_eq!(throttle.failed_at(host("2001:db8::2"), "", now).as_millis(), 500);
        assert_eq!(throttle.failed_at(host("2001:db8:0:1::2"), "", now).as_millis(), 250);
    }

    #[test]
    fn clients_and_accounts_with_too_many_failures_are_blocked_for_a_while() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        for at in 0..MAX_PER_CLIENT * 2 {
            assert_eq!(throttle.is_blocked_at(host("192.0.2.1"), "", now), at >= MAX_PER_CLIENT);
            throttle.failed_at(host("192.0.2.1"), &format!("user{at}"), now);
        }
        assert!(!throttle.is_blocked_at(host("192.0.2.2"), "user1", now), "other clients are not blocked");
        assert!(!throttle.is_blocked_at(host("192.0.2.1"), "", now + EXPIRY_INTERVAL));
        for at in 0..MAX_PER_ACCOUNT {
            throttle.failed_at(host(&format!("198.51.100.{at}")), "jon", now);
        }
        assert!(throttle.is_blocked_at(host("192.0.2.2"), "Jon", now) && !throttle.is_blocked_at(None, "mary", now));
    }

    #[test]
    fn a_client_that_has_authenticated_is_not_blocked_by_others() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        throttle.succeeded_at(host("2001:db8::1"), "jon", now);
        for at in 0..MAX_PER_ACCOUNT {
            throttle.failed_at(host(&format!("198.51.100.{at}")), "jon", now);
        }
        assert!(!throttle.is_blocked_at(host("2001:db8::2"), "JON", now), "the same network");
        assert!(throttle.is_blocked_at(host("2001:db8:0:1::2"), "jon", now), "another one");
        for _ in 0..MAX_PER_CLIENT {
            throttle.failed_at(host("2001:db8::3"), "jon", now);
        }
        assert!(throttle.is_blocked_at(host("2001:db8::2"), "jon", now), "its own failures block it");
        for at in 0..MAX_ENTRIES {
            throttle.succeeded_at(host("192.0.2.1"), &format!("user{at}"), now + EXPIRY_INTERVAL);
        }
        let tables = throttle.tables.lock().expect("whole");
        assert_eq!(tables.successes.len(), MAX_ENTRIES);
        assert!(tables.successes.keys().all(|(_, account)| account != "jon"), "the oldest is dropped");
    }

    #[test]
    fn the_tables_are_bounded_and_keep_the_most_failures() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        for _ in 0..5 {
            throttle.failed_at(None, "worst", now);
        }
        for at in 0..MAX_ENTRIES + 50 {
            throttle.failed_at(None, &format!("user{at}"), now);
        }
        let tables = throttle.tables.lock().expect("whole");
        assert_eq!(tables.accounts.len(), MAX_ENTRIES);
        assert_eq!(tables.accounts.get("worst").map(|tally| tally.failures), Some(5));
    }
}

//! Keeps the greylist for the sessions: the first attempt of an unknown client to send to a
//! recipient is deferred until the client tries again.
//!
//! A client is identified by its network, because large senders try again from a neighbouring
//! address. The greylist records the first attempt for each pair of a sender and a recipient. If
//! the client tries a pair again after the delay, its network has *passed*: none of its attempts is
//! deferred any more, unless the network sends nothing for [`PASSED_FOR`] and so has to pass again.
//!
//! The greylist survives a restart, because [`state`](crate::state) keeps it in two journals. First
//! attempts are in a journal of their own, so that a flood of them cannot displace the networks
//! that have passed. In memory, at most [`MAX_NETWORKS`] networks are kept, each with at most
//! [`MAX_WAITING`] pairs. If there are more networks, those that have not passed and were idle for
//! longest are dropped. If a network tries more pairs, the address that has tried most of them
//! loses one, so that a host cannot displace the pairs of its neighbours. Senders and recipients
//! are kept as hashes only.
//!
//! If several hosts share a store, first attempts and networks that have passed are recorded there as
//! well, so that a client may try again at another host. The store is asked only if the client would
//! be deferred. A network that has passed there has passed here, too.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ring::digest::{SHA256, digest};

use super::network;
use crate::address::fold;
use crate::shared::{GreylistLimits, Greylisted, Shared};
use crate::state::{Journal, Limits, Record, State};
use crate::sys;

/// A network that has passed is forgotten when it has sent nothing for this time, in seconds.
const PASSED_FOR: u64 = 35 * 24 * 3600;
/// The interval at which the record of a network that has passed is renewed while the network sends
/// mail, in seconds.
const RENEWED_EVERY: u64 = 24 * 3600;
/// The maximum time between the first attempt and the one that lets the network pass, in seconds.
const TRIED_WITHIN: u64 = 3 * 24 * 3600;
/// The maximum number of networks in memory.
const MAX_NETWORKS: usize = 100_000;
/// The maximum number of pairs of a sender and a recipient that are kept for one network.
const MAX_WAITING: usize = 50;
/// The limits of the journal of first attempts. 8 MiB are about 150,000 attempts in each of its two
/// files.
const ATTEMPTS: Limits = Limits { max_size: 8 << 20, max_age: Duration::from_secs(TRIED_WITHIN) };
/// The limits of the journal of networks that have passed. 8 MiB are about 150,000 networks in each
/// of its two files.
const PASSED: Limits = Limits { max_size: 8 << 20, max_age: Duration::from_secs(PASSED_FOR) };

/// The greylist, shared by all sessions.
#[derive(Debug)]
pub struct Greylist {
    /// The contents. The lock is held only while one recipient is checked, not while the store is
    /// asked.
    inner: Mutex<Inner>,
    /// The greylist of all hosts.
    shared: Shared,
}

#[derive(Debug)]
struct Inner {
    networks: HashMap<IpAddr, Network>,
    attempts: Journal,
    passed: Journal,
}

#[derive(Debug, Default)]
struct Network {
    /// The time at which the network's record was last renewed, in seconds since 1970; 0 if the
    /// network has not passed.
    passed: u64,
    /// The pairs that were tried only once, in the order of these attempts.
    waiting: Vec<Attempt>,
}

/// The first attempt for a pair of a sender and a recipient.
#[derive(Debug, Clone, Copy)]
struct Attempt {
    /// The hash of the pair.
    pair: u64,
    /// The address within the network.
    host: u64,
    /// The time of the attempt, in seconds since 1970.
    time: u64,
}

impl Attempt {
    /// Whether a second attempt at `now` comes too late.
    fn is_expired(&self, now: u64) -> bool {
        self.time.saturating_add(TRIED_WITHIN) <= now
    }
}

impl Greylist {
    /// Returns the greylist that is kept in `state`.
    pub fn kept(state: &State) -> Self {
        let inner = Inner {
            networks: HashMap::new(),
            attempts: state.journal("greylist", ATTEMPTS),
            passed: state.journal("greylist-passed", PASSED),
        };
        Self { inner: Mutex::new(inner), shared: Shared::default() }
    }

    /// Keeps the greylist in a store as well, together with other hosts.
    #[must_use]
    pub fn together(self, shared: &Shared) -> Self {
        Self { shared: shared.clone(), ..self }
    }

    /// Records an attempt. Returns the number of seconds until the recipient will be accepted, or
    /// `None` if it is accepted now. `sender` is empty for the null reverse-path.
    pub fn check(&self, client: IpAddr, sender: &str, recipient: &str, delay: Duration) -> Option<u64> {
        let now = sys::now();
        let key = network(client);
        let (own, is_news) = self.check_own(now, client, sender, recipient, delay);
        let Some(left) = own else {
            if is_news {
                self.shared.greylist_passed(&text(key), limits(delay));
            }
            return None;
        };
        match self.shared.greylist(&text(key), &pair_text(key, sender, recipient), limits(delay)) {
            Some(Greylisted::Passed) => {
                self.pass(now, key);
                None
            }
            Some(Greylisted::Waits(of_all)) => Some(left.min(of_all)),
            None => Some(left),
        }
    }

    /// Returns what [`Greylist::check`] would return. Nothing is recorded, and no file is made or
    /// locked.
    pub fn peek(&self, client: IpAddr, sender: &str, recipient: &str, delay: Duration) -> Option<u64> {
        let left = self.peek_at(sys::now(), client, sender, recipient, delay)?;
        let key = network(client);
        match self.shared.greylist_peek(&text(key), &pair_text(key, sender, recipient), limits(delay)) {
            Some(Greylisted::Passed) => None,
            Some(Greylisted::Waits(of_all)) => Some(left.min(of_all)),
            None => Some(left),
        }
    }

    fn peek_at(&self, now: u64, client: IpAddr, sender: &str, recipient: &str, delay: Duration) -> Option<u64> {
        let key = network(client);
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Inner { networks, attempts, passed } = &mut *inner;
        passed.read(now, |record| take_passed(networks, record));
        attempts.read(now, |record| take_attempt(networks, record));
        let Some(network) = networks.get(&key) else { return Some(delay.as_secs()) };
        let left = network.left(hash(key, sender, recipient), now, delay);
        if network.has_passed(now) { None } else { Some(left.unwrap_or(delay.as_secs())).filter(|left| *left > 0) }
    }

    /// Records that a network has passed at another host.
    fn pass(&self, now: u64, key: IpAddr) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Inner { networks, passed, .. } = &mut *inner;
        let mut passed = passed.lock(now, |record| take_passed(networks, record));
        let network = entry(networks, key);
        (network.passed, network.waiting) = (now, Vec::new());
        if let Some(passed) = &mut passed {
            passed.append(&Record { time: now, key: text(key), value: String::new() });
        }
    }

    /// Records an attempt on this host. Returns the number of seconds until the recipient will be
    /// accepted, and whether the record of a network that has passed was written now.
    fn check_own(
        &self,
        now: u64,
        client: IpAddr,
        sender: &str,
        recipient: &str,
        delay: Duration,
    ) -> (Option<u64>, bool) {
        let key = network(client);
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Inner { networks, attempts, passed } = &mut *inner;
        let mut passed = passed.lock(now, |record| take_passed(networks, record));
        let is_passed = networks.get(&key).is_some_and(|network| network.has_passed(now));
        let is_due = |network: &Network| network.passed.saturating_add(RENEWED_EVERY) <= now;
        if is_passed && !networks.get(&key).is_some_and(is_due) {
            return (None, false);
        }
        let mut attempts = attempts.lock(now, |record| take_attempt(networks, record));
        let network = entry(networks, key);
        let pair = hash(key, sender, recipient);
        let left = network.left(pair, now, delay);
        if is_passed || left == Some(0) {
            (network.passed, network.waiting) = (now, Vec::new());
            if let Some(passed) = &mut passed {
                passed.append(&Record { time: now, key: text(key), value: String::new() });
            }
            return (None, true);
        }
        if left.is_none() {
            network.wait_for(Attempt { pair, host: host(client), time: now });
            if let Some(attempts) = &mut attempts {
                attempts.append(&Record { time: now, key: text(client), value: format!("{pair:016x}") });
            }
        }
        (Some(left.unwrap_or(delay.as_secs())), false)
    }
}

/// The limits of the shared greylist.
fn limits(delay: Duration) -> GreylistLimits {
    GreylistLimits { delay, tried_within: TRIED_WITHIN, passed_for: PASSED_FOR, max_waiting: MAX_WAITING }
}

/// Takes a record of a network that has passed.
fn take_passed(networks: &mut HashMap<IpAddr, Network>, record: &Record) {
    let Some(address) = read_address(&record.key) else { return };
    entry(networks, network(address)).passed = record.time;
}

/// Takes a record of a first attempt.
fn take_attempt(networks: &mut HashMap<IpAddr, Network>, record: &Record) {
    let (Some(address), Ok(pair)) = (read_address(&record.key), u64::from_str_radix(&record.value, 16)) else {
        return;
    };
    entry(networks, network(address)).wait_for(Attempt { pair, host: host(address), time: record.time });
}

impl Network {
    fn has_passed(&self, now: u64) -> bool {
        self.passed.saturating_add(PASSED_FOR) > now
    }

    /// Returns the number of seconds until a pair passes; `None` if it was not tried yet.
    fn left(&self, pair: u64, now: u64, delay: Duration) -> Option<u64> {
        self.first_attempt(pair, now).map(|first| (first + delay.as_secs()).saturating_sub(now))
    }

    /// Returns the time of the first attempt for a pair. Returns `None` if there was none, or if it
    /// was too long ago.
    fn first_attempt(&self, pair: u64, now: u64) -> Option<u64> {
        let found = self.waiting.iter().find(|attempt| attempt.pair == pair);
        found.filter(|attempt| !attempt.is_expired(now)).map(|attempt| attempt.time)
    }

    /// Records the first attempt for a pair. If the attempt that is recorded for the pair is too
    /// old, the new one replaces it. If the network has [`MAX_WAITING`] pairs, those that have
    /// expired are dropped, and if none has expired, [`Network::drop_one`] chooses the one to drop.
    fn wait_for(&mut self, attempt: Attempt) {
        match self.waiting.iter_mut().find(|known| known.pair == attempt.pair) {
            Some(known) if !known.is_expired(attempt.time) => {}
            Some(known) => *known = attempt,
            None => {
                if self.waiting.len() >= MAX_WAITING {
                    self.waiting.retain(|known| !known.is_expired(attempt.time));
                }
                self.waiting.push(attempt);
                if self.waiting.len() > MAX_WAITING {
                    self.drop_one();
                }
            }
        }
    }

    /// Drops a pair of the address that has tried most pairs. If several addresses have tried as
    /// many, it is the one with the latest attempt. If no address has tried two pairs, the pair may
    /// be of any address.
    ///
    /// It is the middle one of these pairs. The first ones stay: if a host tries its whole queue
    /// again in the same order, it passes at one of them, however long the queue is. The latest
    /// ones stay as well: a host can pass although many addresses have tried a pair only once.
    fn drop_one(&mut self) {
        let count = |host| self.waiting.iter().filter(|attempt| attempt.host == host).count();
        let Some(most) = self.waiting.iter().max_by_key(|attempt| count(attempt.host)).copied() else { return };
        let is_alone = count(most.host) == 1;
        let is_candidate = |attempt: &Attempt| is_alone || attempt.host == most.host;
        let candidates: Vec<usize> =
            self.waiting.iter().enumerate().filter(|(_, attempt)| is_candidate(attempt)).map(|(at, _)| at).collect();
        if let Some(&at) = candidates.get(candidates.len() / 2) {
            self.waiting.remove(at);
        }
    }

    /// Returns the value of a network. The networks with the lowest values are dropped first. A
    /// network that has not passed has a lower value than one that has passed. Of two networks that
    /// are alike in this, the one that was idle for longer has the lower value.
    fn value(&self) -> (bool, u64) {
        let last = self.waiting.iter().map(|attempt| attempt.time).max().unwrap_or(0);
        (self.passed > 0, last.max(self.passed))
    }
}

/// Returns the entry of a network, and adds the entry if there is none. If there is no room for it,
/// drops a quarter of all entries, so that room must be made only seldom.
fn entry(networks: &mut HashMap<IpAddr, Network>, key: IpAddr) -> &mut Network {
    if networks.len() >= MAX_NETWORKS && !networks.contains_key(&key) {
        let mut values: Vec<_> = networks.values().map(Network::value).collect();
        let at = values.len() / 4;
        let (_, limit, _) = values.select_nth_unstable(at);
        let (limit, mut left) = (*limit, at + 1);
        networks.retain(|_, network| {
            let is_dropped = network.value() <= limit && left > 0;
            left -= usize::from(is_dropped);
            !is_dropped
        });
    }
    networks.entry(key).or_default()
}

/// The key of a record: an address with the length of its network.
fn text(address: IpAddr) -> String {
    let address = address.to_canonical();
    format!("{address}/{}", if address.is_ipv4() { 24 } else { 64 })
}

fn read_address(text: &str) -> Option<IpAddr> {
    text.split_once('/')?.0.parse().ok()
}

/// Returns the bits of an address that do not belong to its network.
fn host(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => u64::from(address.to_bits() & 0xff),
        IpAddr::V6(address) => (address.to_bits() & u128::from(u64::MAX)) as u64,
    }
}

/// Returns a text that stands for a network, a sender and a recipient. Case is ignored.
fn pair_text(network: IpAddr, sender: &str, recipient: &str) -> String {
    format!("{network}\0{}\0{}", fold(sender), fold(recipient))
}

/// Returns the hash of a network, a sender and a recipient. Case is ignored. An attacker who finds
/// two pairs with the same hash gains no more than an attempt that is not deferred.
fn hash(network: IpAddr, sender: &str, recipient: &str) -> u64 {
    let text = pair_text(network, sender, recipient);
    let digest = digest(&SHA256, text.as_bytes());
    digest.as_ref().iter().take(8).fold(0, |hash, octet| hash << 8 | u64::from(*octet))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const DELAY: Duration = Duration::from_secs(300);
    const START: u64 = 1_764_450_000;
    const DAY: u64 = 24 * 3600;

    struct Scratch(std::path::PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("penfold-greylist-{name}-{}", std::process::id()));
            std::fs::create_dir(&path).expect("a scratch directory");
            Self(path)
        }

        fn greylist(&self) -> Greylist {
            Greylist::kept(&State::at(&self.0))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    /// Checks a recipient. Before that, asserts that looking changes nothing and has the same answer.
    fn check(greylist: &Greylist, after: u64, client: &str, sender: &str, recipient: &str) -> Option<u64> {
        let (now, client) = (START + after, client.parse().expect(client));
        let peeked = [(); 2].map(|()| greylist.peek_at(now, client, sender, recipient, DELAY));
        let (checked, _) = greylist.check_own(now, client, sender, recipient, DELAY);
        assert_eq!(peeked, [checked; 2], "{after} {client} {sender}");
        checked
    }

    #[test]
    fn a_network_passes_when_it_tries_again_after_the_delay() {
        let scratch = Scratch::new("passes");
        let greylist = scratch.greylist();
        for (after, client, sender, recipient, left) in [
            (0, "192.0.2.1", "a@b", "jon@x", Some(300)),
            (10, "192.0.2.1", "a@b", "jon@x", Some(290)),
            (10, "192.0.2.9", "A@B", "Jon@X", Some(290)),
            (10, "192.0.3.1", "a@b", "jon@x", Some(300)),
            (10, "192.0.2.1", "", "jon@x", Some(300)),
            (299, "192.0.2.1", "a@b", "jon@x", Some(1)),
            (300, "192.0.2.200", "a@b", "jon@x", None),
            // The network has passed, so no pair is deferred from now on.
            (301, "192.0.2.1", "new@b", "other@x", None),
            (310, "192.0.3.1", "a@b", "jon@x", None),
            (20, "2001:db8::1", "a@b", "jon@x", Some(300)),
            (320, "2001:db8::ffff", "a@b", "jon@x", None),
            (320, "2001:db8:0:1::1", "a@b", "jon@x", Some(300)),
            // The second attempt comes too late.
            (320 + 3 * DAY, "2001:db8:0:1::1", "a@b", "jon@x", Some(300)),
            (300 + 34 * DAY, "192.0.2.1", "late@b", "jon@x", None),
            (300 + 68 * DAY, "192.0.2.1", "late@b", "jon@x", None),
            (300 + 104 * DAY, "192.0.2.1", "late@b", "jon@x", Some(300)),
        ] {
            assert_eq!(check(&greylist, after, client, sender, recipient), left, "{after} {client} {sender}");
        }
    }

    /// A host with a long queue tries all its recipients in order, and later all of them again in
    /// the same order.
    #[test]
    fn a_queue_of_any_length_passes_when_it_is_tried_again_in_order() {
        let recipient = |number: u64| format!("{number}@x");
        for (name, count) in [("queue-50", 50), ("queue-60", 60), ("queue-1000", 1000)] {
            let scratch = Scratch::new(name);
            let greylist = scratch.greylist();
            let ask =
                |greylist: &Greylist, after, number| check(greylist, after, "192.0.2.1", "a@b", &recipient(number));
            assert!((0..count).all(|number| ask(&greylist, number, number).is_some()), "{name}");
            assert!((0..count).all(|number| ask(&scratch.greylist(), 2000 + number, number).is_none()), "{name}");
        }
    }

    #[test]
    fn pairs_that_are_never_tried_again_are_not_in_the_way() {
        let scratch = Scratch::new("neighbour");
        let greylist = scratch.greylist();
        let ask = |after, client, number: u64| check(&greylist, after, client, "a@b", &format!("{number}@x"));
        assert!((0..60).all(|number| ask(0, "192.0.2.1", number) == Some(300)));
        assert_eq!(ask(1000, "192.0.2.9", 1000), Some(300), "a neighbour");
        assert_eq!(ask(1300, "192.0.2.9", 1000), None);
        assert!((0..60).all(|number| ask(0, "192.0.3.1", number) == Some(300)));
        assert!((100..160).all(|number| ask(4 * DAY, "192.0.3.1", number) == Some(300)), "all pairs have expired");
        assert_eq!(ask(4 * DAY + 300, "192.0.3.1", 100), None);
    }

    /// One or several neighbours try new pairs all the time, before and after the attempts of an
    /// honest host, which has one message or a long queue.
    #[test]
    fn a_hostile_neighbour_does_not_keep_a_host_waiting() {
        for (name, neighbours, queue, clients) in [
            ("hostile-1", 1, 1, ["192.0.2.9", "192.0.2.9"]),
            ("hostile-1-queue", 1, 1000, ["192.0.2.9", "192.0.2.9"]),
            // The host tries again from another address.
            ("hostile-20", 20, 1, ["192.0.2.9", "192.0.2.10"]),
            ("hostile-20-queue", 20, 1000, ["192.0.2.9", "192.0.2.9"]),
            ("hostile-v6", 1, 1, ["2001:db8::1:0:0:9", "2001:db8::1:0:0:9"]),
        ] {
            let scratch = Scratch::new(name);
            let greylist = scratch.greylist();
            let prefix = if clients[0].contains(':') { "2001:db8::" } else { "192.0.2." };
            let disturb = |greylist: &Greylist, after: u64| {
                for number in 0..100 {
                    let neighbour = format!("{prefix}{}", 100 + number % neighbours);
                    let recipient = format!("{after}-{number}@x");
                    assert!(check(greylist, after, &neighbour, "spam@b", &recipient).is_some(), "{name}");
                }
            };
            disturb(&greylist, 0);
            assert!((0..queue).all(|n| check(&greylist, 1, clients[0], "a@b", &format!("{n}@x")).is_some()), "{name}");
            disturb(&greylist, 2);
            let greylist = scratch.greylist();
            disturb(&greylist, 3);
            assert_eq!(check(&greylist, 301, clients[1], "a@b", "0@x"), None, "{name}");
        }
    }

    #[test]
    fn it_survives_a_restart_and_is_shared() {
        let scratch = Scratch::new("restart");
        let (one, other) = (scratch.greylist(), scratch.greylist());
        assert_eq!(check(&one, 0, "192.0.2.1", "a@b", "jon@x"), Some(300));
        assert_eq!(check(&other, 100, "192.0.2.1", "a@b", "jon@x"), Some(200), "shared");
        assert_eq!(check(&scratch.greylist(), 300, "192.0.2.1", "a@b", "jon@x"), None, "after a restart");
        assert_eq!(check(&scratch.greylist(), 400, "192.0.2.1", "c@d", "jon@x"), None, "after another");
        assert_eq!(check(&one, 400, "192.0.2.1", "e@f", "jon@x"), None, "shared");
        let text = std::fs::read_to_string(scratch.0.join("greylist")).expect("a journal");
        assert!(!text.contains("jon"), "{text}");
    }

    #[test]
    fn a_flood_of_attempts_is_bounded_and_keeps_those_that_passed() {
        let mut networks = HashMap::new();
        let address = |number: u32| IpAddr::V4(Ipv4Addr::from_bits(number << 8));
        entry(&mut networks, address(0)).passed = START;
        for number in 1..=250_000 {
            let network = entry(&mut networks, address(number));
            (0..3).for_each(|pair| network.wait_for(Attempt { pair, host: 1, time: START + u64::from(number) }));
        }
        assert!(networks.len() <= MAX_NETWORKS, "{}", networks.len());
        assert!(networks.contains_key(&address(0)) && networks.contains_key(&address(250_000)));
        assert!(!networks.contains_key(&address(1)));
        let network = entry(&mut networks, address(0));
        (0..1000).for_each(|pair| network.wait_for(Attempt { pair, host: pair % 7, time: START }));
        assert_eq!(network.waiting.len(), MAX_WAITING);
        assert_eq!(network.first_attempt(999, START), Some(START));
    }
}

//! The numbers of this process. Numbers with few possible labels are atomic; the others are in
//! bounded maps.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::counts::{Counts, DELAYS, delay_range, join};
use super::family::{EVENTS, Event, Family, ORIGINS, PLACES, Place};
use super::{Acceptance, Origin};
use crate::outcome::{Encryption, Fate};

/// The numbers of this process.
pub static LIVE: Live = Live::new();

/// The encryption of connections, in the order of the numbers.
pub(super) const VERSIONS: [&str; 4] = ["none", "TLS1.2", "TLS1.3", "other"];
/// The ways of delivery, in the order of the numbers.
pub(super) const VIAS: [&str; 10] =
    ["maildir", "mbox", "command", "forward", "list", "smtp", "lmtp", "hold", "discard", "other"];
/// The outcomes of attempts, in the order of the numbers.
pub(super) const RESULTS: [&str; 3] = ["sent", "deferred", "failed"];
/// The families with bounded maps, in the order of the maps.
const NAMED: [Family; 11] = [
    Family::Refused,
    Family::Deferred,
    Family::Failed,
    Family::SentTo,
    Family::Check,
    Family::Filter,
    Family::Account,
    Family::AccountRecipients,
    Family::Sender,
    Family::Client,
    Family::RefusedClient,
];
/// The maximum size of a map. What does not fit is counted under one label until the map is folded.
const MAX_NAMED: usize = 1000;
/// The size above which a map that is not personal is folded.
const MAX_KEPT: usize = 500;

/// Numbers that several threads count.
pub struct Live {
    accepted: Group<{ ORIGINS.len() }>,
    octets: Group<{ ORIGINS.len() }>,
    recipients: Group<{ ORIGINS.len() }>,
    tls_in: Group<{ VERSIONS.len() }>,
    tls_out: Group<{ VERSIONS.len() }>,
    attempts: [Group<{ RESULTS.len() }>; VIAS.len()],
    delays: [Group<{ DELAYS.len() + 1 }>; PLACES.len()],
    delay_sums: Group<{ PLACES.len() }>,
    events: Group<{ EVENTS.len() }>,
    named: [Mutex<BTreeMap<String, u64>>; NAMED.len()],
}

/// Atomic numbers, one for each word of a list.
struct Group<const N: usize>([AtomicU64; N]);

impl<const N: usize> Group<N> {
    const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; N])
    }

    fn add(&self, at: usize, count: u64) {
        if let Some(number) = self.0.get(at) {
            number.fetch_add(count, Ordering::Relaxed);
        }
    }

    fn read(&self, at: usize) -> u64 {
        self.0.get(at).map_or(0, |number| number.load(Ordering::Relaxed))
    }
}

impl Live {
    pub const fn new() -> Self {
        Self {
            accepted: Group::new(),
            octets: Group::new(),
            recipients: Group::new(),
            tls_in: Group::new(),
            tls_out: Group::new(),
            attempts: [const { Group::new() }; VIAS.len()],
            delays: [const { Group::new() }; PLACES.len()],
            delay_sums: Group::new(),
            events: Group::new(),
            named: [const { Mutex::new(BTreeMap::new()) }; NAMED.len()],
        }
    }

    pub fn accepted(&self, event: &Acceptance<'_>) {
        let origin = event.origin as usize;
        self.accepted.add(origin, 1);
        self.octets.add(origin, event.size);
        self.recipients.add(origin, event.recipients as u64);
        if event.origin != Origin::Local {
            self.tls_in.add(version(event.tls), 1);
        }
        self.add(Family::Sender, &[event.sender], 1);
        match event.account {
            Some(account) => {
                self.add(Family::Account, &[account], 1);
                self.add(Family::AccountRecipients, &[account], event.recipients as u64);
            }
            None => self.add(Family::Client, &[event.client], 1),
        }
    }

    pub fn attempt(&self, via: &str, fate: Fate, (tls, delay): (Encryption, Duration)) {
        let at = VIAS.iter().position(|known| *known == via).unwrap_or(VIAS.len() - 1);
        if let Some(results) = self.attempts.get(at) {
            results.add(fate_index(fate), 1);
        }
        if fate != Fate::Delivered {
            return;
        }
        let place = Place::of(via);
        if place == Place::Remote {
            self.tls_out.add(version(tls), 1);
        }
        if let Some(ranges) = self.delays.get(place as usize) {
            ranges.add(delay_range(delay), 1);
        }
        self.delay_sums.add(place as usize, u64::try_from(delay.as_millis()).unwrap_or(0));
    }

    pub fn event(&self, event: Event) {
        self.events.add(event as usize, 1);
    }

    /// Adds to a number of a family with a map.
    pub fn add(&self, family: Family, labels: &[&str], count: u64) {
        let Some(map) = NAMED.iter().position(|named| *named == family).and_then(|at| self.named.get(at)) else {
            return;
        };
        let labels = join(labels);
        let mut map = map.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = map.get_mut(&labels) {
            *number = number.saturating_add(count);
        } else if map.len() < MAX_NAMED {
            map.insert(labels, count);
        } else {
            *map.entry(vec!["other"; family.labels().len()].join("|")).or_default() += count;
        }
    }

    /// Returns all numbers.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for (at, word) in ORIGINS.iter().enumerate() {
            counts.add(Family::Accepted, word, self.accepted.read(at));
            counts.add(Family::Octets, word, self.octets.read(at));
            counts.add(Family::Recipients, word, self.recipients.read(at));
        }
        for (at, word) in VERSIONS.iter().enumerate() {
            counts.add(Family::TlsIn, word, self.tls_in.read(at));
            counts.add(Family::TlsOut, word, self.tls_out.read(at));
        }
        for (via, results) in VIAS.iter().zip(&self.attempts) {
            for (at, result) in RESULTS.iter().enumerate() {
                counts.add(Family::Attempts, &format!("{via}|{result}"), results.read(at));
            }
        }
        for (at, (place, ranges)) in PLACES.iter().zip(&self.delays).enumerate() {
            (0..=DELAYS.len()).for_each(|n| counts.add(Family::Delay, &format!("{place}|{n}"), ranges.read(n)));
            counts.add(Family::DelaySum, place, self.delay_sums.read(at));
        }
        EVENTS.iter().enumerate().for_each(|(at, word)| counts.add(Family::Events, word, self.events.read(at)));
        for (family, map) in NAMED.iter().zip(&self.named) {
            let map = map.lock().unwrap_or_else(PoisonError::into_inner);
            map.iter().for_each(|(labels, count)| counts.add(*family, labels, *count));
        }
        counts
    }

    /// Subtracts saved numbers from the personal families. If another map has grown too large, keeps
    /// its largest numbers, and counts the rest under one label. Returns what `saved` becomes.
    pub fn forget(&self, mut saved: Counts) -> Counts {
        for (family, map) in NAMED.iter().zip(&self.named) {
            let mut map = map.lock().unwrap_or_else(PoisonError::into_inner);
            if family.is_personal() {
                for (labels, count) in saved.of(*family) {
                    if let Some(number) = map.get_mut(labels) {
                        *number = number.saturating_sub(count);
                    }
                }
                map.retain(|_, count| *count > 0);
            } else if map.len() > MAX_KEPT {
                let mut counts: Vec<u64> = map.values().copied().collect();
                counts.sort_unstable_by(|a, b| b.cmp(a));
                let smallest = counts.get(MAX_KEPT / 2).copied().unwrap_or(0);
                let (kept, gone) = std::mem::take(&mut *map).into_iter().partition(|(_, count)| *count > smallest);
                let gone: BTreeMap<String, u64> = gone;
                *map = kept;
                let other = vec!["other"; family.labels().len()].join("|");
                for (labels, count) in gone {
                    *map.entry(other.clone()).or_default() += count;
                    saved.rename(*family, &labels, &other);
                }
            }
        }
        saved.drop_personal();
        saved
    }
}

/// Returns the index of the encryption of a connection.
fn version(tls: Encryption) -> usize {
    match tls.name() {
        "" | "-" => 0,
        name => VERSIONS.iter().position(|known| *known == name).unwrap_or(VERSIONS.len() - 1),
    }
}

fn fate_index(fate: Fate) -> usize {
    match fate {
        Fate::Delivered => 0,
        Fate::Deferred => 1,
        Fate::Failed => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(live: &Live, sender: &str, account: Option<&str>, origin: Origin) {
        let tls = Encryption::by_tls("TLS1.3", "TLS_AES_256_GCM_SHA384");
        live.accepted(&Acceptance { origin, tls, size: 1000, recipients: 2, sender, account, client: "[192.0.2.1]" });
    }

    #[test]
    fn each_event_is_counted_under_its_labels() {
        let live = Live::new();
        accept(&live, "<jon@razorback>", Some("jon"), Origin::Login);
        accept(&live, "<>", None, Origin::Network);
        live.attempt("smtp", Fate::Delivered, (Encryption::CLEAR, Duration::from_secs(3)));
        live.attempt("maildir", Fate::Delivered, (Encryption::NO_CONNECTION, Duration::from_millis(5)));
        live.attempt("-", Fate::Failed, (Encryption::NO_CONNECTION, Duration::ZERO));
        live.event(Event::Done);
        live.add(Family::Deferred, &["example.org", "no route"], 1);
        let lines = live.counts().lines(usize::MAX).concat();
        let expected = "accepted|login=1,accepted|network=1,octets|login=1000,octets|network=1000,\
                        recipients|login=2,recipients|network=2,tls_in|TLS1.3=2,attempts|maildir|sent=1,\
                        attempts|other|failed=1,attempts|smtp|sent=1,deferred|example.org|no route=1,\
                        tls_out|none=1,delay|local|0=1,delay|remote|8=1,delay_sum|local=5,delay_sum|remote=3000,\
                        events|done=1,account|jon=1,account_recipients|jon=2,sender|<>=1,sender|<jon@razorback>=1,\
                        client|[192.0.2.1]=1";
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_flood_of_names_takes_bounded_memory_and_is_counted() {
        let live = Live::new();
        (0..3 * MAX_NAMED).for_each(|n| accept(&live, &format!("<{n}@example.org>"), None, Origin::Network));
        let counts = live.counts();
        assert_eq!(counts.total(Family::Sender), 3 * MAX_NAMED as u64);
        assert_eq!(counts.of(Family::Sender).count(), MAX_NAMED + 1);
        assert_eq!(counts.get(Family::Sender, "other"), 2 * MAX_NAMED as u64);
        let left = live.forget(counts);
        assert_eq!((left.total(Family::Sender), live.counts().total(Family::Sender)), (0, 0));
        assert_eq!(left, live.counts());
    }

    #[test]
    fn only_the_most_frequent_destinations_keep_their_names() {
        let live = Live::new();
        for n in 0..MAX_NAMED as u64 {
            live.add(Family::SentTo, &[&format!("d{n}.example")], n + 1);
        }
        let counts = live.counts();
        let left = live.forget(counts.clone());
        let now = live.counts();
        assert_eq!((now.total(Family::SentTo), &left), (counts.total(Family::SentTo), &now));
        assert_eq!(now.of(Family::SentTo).count(), MAX_KEPT / 2 + 1);
        assert_eq!(now.get(Family::SentTo, "d999.example"), 1000);
    }

    /// Prints how long the counts of one delivered message take; run it with an optimized build.
    #[test]
    #[ignore = "a measurement"]
    fn a_message_is_counted() {
        let live = Live::new();
        let began = std::time::Instant::now();
        let count = 1_000_000;
        for number in 0..count {
            accept(
                &live,
                if number % 2 == 0 { "<jon@razorback>" } else { "<greg@example.com>" },
                None,
                Origin::Network,
            );
            live.attempt("maildir", Fate::Delivered, (Encryption::NO_CONNECTION, Duration::from_millis(5)));
            live.event(Event::Done);
        }
        println!("{:?} a message", began.elapsed() / count);
    }
}

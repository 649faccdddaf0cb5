//! How many reports are sent: a forged sender must not get more of them than a person
//! can read, nor the postmaster.
//!
//! Each address, and each domain elsewhere, may have a number of reports at once, and then
//! as many within each hour, evenly. The owner of a mailing list with many dead members is
//! well below that. Reports beyond it are withheld: the worker settles their recipients
//! and logs it, and the next report says how many there were.
//!
//! In memory, for at most [`MOST_KNOWN`] addresses and domains; beyond that those with
//! the least to wait for are forgotten. A restart forgets all. A clock that is set does
//! not matter.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::address::Address;

/// Addresses and domains that are remembered.
const MOST_KNOWN: usize = 10_000;
/// The time in which all that may be sent at once may be sent again.
const HOUR: Duration = Duration::from_secs(3600);
/// Reports to the postmaster of messages that have no sender.
const TO_POSTMASTER: u32 = 10;
/// Reports to an address here, or in a domain for which mail is relayed.
const TO_OWN: u32 = 1000;
/// Reports to an address elsewhere.
const TO_OTHER: u32 = 200;
/// Reports to all addresses of a domain elsewhere.
const TO_DOMAIN: u32 = 2000;

/// Who gets a report.
#[derive(Debug, Clone)]
pub enum Whom {
    /// The postmaster, for want of a sender.
    Postmaster,
    /// A sender in a domain of ours, without the detail.
    Own(Address),
    /// A sender elsewhere.
    Other(Address),
}

/// The reports that were sent of late.
#[derive(Debug)]
pub struct Rates {
    start: Instant,
    /// Guards the counts; held for one look.
    counts: Mutex<HashMap<Box<str>, Count>>,
}

#[derive(Debug, Default)]
struct Count {
    /// When all of it may be sent at once again, as a time since the start.
    clear: Duration,
    /// Reports that were withheld since the last one that was sent.
    withheld: u64,
}

/// Why a report is withheld.
#[derive(Debug, PartialEq, Eq)]
pub struct TooMany(String);

impl std::fmt::Display for TooMany {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Default for Rates {
    fn default() -> Self {
        Self { start: Instant::now(), counts: Mutex::default() }
    }
}

impl Rates {
    /// Counts a report that is to be sent: how many were withheld before it.
    ///
    /// # Errors
    /// [`TooMany`]: it is to be withheld, and counted as such.
    pub fn count(&self, whom: &Whom) -> Result<u64, TooMany> {
        self.count_at(self.start.elapsed(), whom)
    }

    /// Takes back a report that could not be made, and is to be tried again.
    pub fn take_back(&self, whom: &Whom, withheld: u64) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        for (number, (key, limit)) in keys(whom).into_iter().enumerate() {
            let Some(count) = counts.get_mut(&*key) else { continue };
            count.clear = count.clear.saturating_sub(HOUR / limit);
            if number == 0 {
                count.withheld += withheld;
            }
        }
    }

    fn count_at(&self, now: Duration, whom: &Whom) -> Result<u64, TooMany> {
        let keys = keys(whom);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut clear = Vec::with_capacity(keys.len());
        for (key, limit) in &keys {
            let known = counts.get(&**key).map_or(now, |count| count.clear.max(now));
            clear.push(known + HOUR / *limit);
            if known + HOUR / *limit > now + HOUR {
                let why = format!("a report is withheld: there were more than {limit} to {key} within an hour");
                // All that is withheld is told to the address, whichever the limit is.
                if let Some((own, _)) = keys.first() {
                    entry(&mut counts, own, now).withheld += 1;
                }
                return Err(TooMany(why));
            }
        }
        let mut withheld = 0;
        for (number, ((key, _), clear)) in keys.iter().zip(clear).enumerate() {
            let count = entry(&mut counts, key, now);
            count.clear = clear;
            if number == 0 {
                withheld = std::mem::take(&mut count.withheld);
            }
        }
        Ok(withheld)
    }
}

/// What is counted of a report, and how many there may be at once: the address first.
fn keys(whom: &Whom) -> Vec<(Box<str>, u32)> {
    let lower = |address: &Address| format!("<{}>", address.to_string().to_lowercase()).into();
    match whom {
        Whom::Postmaster => vec![("the postmaster".into(), TO_POSTMASTER)],
        Whom::Own(address) => vec![(lower(address), TO_OWN)],
        Whom::Other(address) => vec![(lower(address), TO_OTHER), (address.domain().into(), TO_DOMAIN)],
    }
}

fn entry<'a>(counts: &'a mut HashMap<Box<str>, Count>, key: &str, now: Duration) -> &'a mut Count {
    if counts.len() >= MOST_KNOWN && !counts.contains_key(key) {
        make_room(counts, now);
    }
    counts.entry(key.into()).or_default()
}

/// Forgets what is over, and if that is not enough a tenth of what there is.
fn make_room(counts: &mut HashMap<Box<str>, Count>, now: Duration) {
    counts.retain(|_, count| count.clear > now);
    if counts.len() >= MOST_KNOWN {
        let mut times: Vec<Duration> = counts.values().map(|count| count.clear).collect();
        let (_, &mut least, _) = times.select_nth_unstable(MOST_KNOWN / 10);
        let mut left = MOST_KNOWN / 10;
        // Many may have the same time.
        counts.retain(|_, count| {
            let is_forgotten = count.clear <= least && left > 0;
            left -= usize::from(is_forgotten);
            !is_forgotten
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::parse(text).expect("an address")
    }

    #[test]
    fn so_many_are_sent_at_once_and_then_evenly() {
        let (jon, eve) = (address("Jon@here.test"), address("eve@there.test"));
        for (whom, most) in [(&Whom::Postmaster, 10), (&Whom::Own(jon), 1000), (&Whom::Other(eve), 200)] {
            let (rates, now) = (Rates::default(), Duration::from_secs(10));
            let sent = (0..5000).filter(|_| rates.count_at(now, whom).is_ok()).count();
            assert_eq!(sent, most, "{whom:?}");
            let later = now + HOUR / u32::try_from(most).expect("few");
            // The next one says how many there were.
            assert_eq!(rates.count_at(later, whom), Ok(5000 - most as u64), "{whom:?}");
            assert!(rates.count_at(later, whom).is_err());
            assert_eq!(rates.count_at(later + HOUR, whom), Ok(1));
            let sent = (0..5000).filter(|_| rates.count_at(later + HOUR * 9, whom).is_ok()).count();
            assert_eq!(sent, most, "{whom:?}");
        }
    }

    #[test]
    fn a_domain_has_a_limit_of_its_own_and_spelling_does_not_matter() {
        let (rates, now) = (Rates::default(), Duration::ZERO);
        let sent = (0..5000).filter(|n| {
            let eve = address(&format!("eve{n}@there.test"));
            rates.count_at(now, &Whom::Other(eve)).is_ok()
        });
        assert_eq!(sent.count(), 2000);
        let why = rates.count_at(now, &Whom::Other(address("x@there.test"))).expect_err("too many").to_string();
        assert_eq!(why, "a report is withheld: there were more than 2000 to there.test within an hour");
        let spelt = |n: usize| address(if n < 99 { "EVE@else.test" } else { "\"eve\"@else.test" });
        assert_eq!((0..500).filter(|n| rates.count_at(now, &Whom::Other(spelt(*n))).is_ok()).count(), 200);
    }

    #[test]
    fn what_could_not_be_made_is_not_counted() {
        let rates = Rates::default();
        for _ in 0..50 {
            assert_eq!(rates.count(&Whom::Postmaster), Ok(0));
            rates.take_back(&Whom::Postmaster, 0);
        }
    }

    #[test]
    fn it_remembers_a_bounded_number_and_those_that_matter_most() {
        let (rates, now) = (Rates::default(), Duration::from_secs(1));
        let victim = Whom::Other(address("victim@there.test"));
        (0..300).for_each(|_| _ = rates.count_at(now, &victim));
        for n in 0..2 * MOST_KNOWN {
            let _ = rates.count_at(now, &Whom::Other(address(&format!("x@d{n}.test"))));
        }
        assert!(rates.counts.lock().expect("no panic").len() <= MOST_KNOWN);
        assert!(rates.count_at(now, &victim).is_err());
    }
}

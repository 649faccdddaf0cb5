//! Limits the number of reports, so that neither the victim of a forged sender nor the postmaster
//! gets more reports than a person can read.
//!
//! Each address and each remote domain may get a number of reports at once, and then the same
//! number within each hour, spread evenly. The owner of a mailing list with many invalid addresses
//! stays well below that limit. A report beyond a limit is withheld: the failed recipients are
//! finished without it, the log mentions it, and the next report says how many were withheld.
//!
//! Counts are kept in memory, for at most [`MAX_COUNTS`] addresses and domains. Beyond that, the
//! counts closest to zero are dropped. All counts are lost at a restart. Changes of the system
//! clock have no effect.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::address::{Address, fold};

/// The maximum number of addresses and domains whose counts are in memory.
const MAX_COUNTS: usize = 10_000;
/// The time after which an address may get the full number of reports again.
const HOUR: Duration = Duration::from_secs(3600);
/// The number of reports that the postmaster may get at once, and then in each hour. The postmaster
/// gets the reports about messages without a sender.
const TO_POSTMASTER: u32 = 10;
/// The number of reports that an address in a local domain, or in a domain for which mail is
/// relayed, may get at once, and then in each hour.
const TO_LOCAL: u32 = 1000;
/// The number of reports that an address in any other domain may get at once, and then in each
/// hour.
const TO_REMOTE: u32 = 200;
/// The number of reports that all addresses of one such domain together may get at once, and then
/// in each hour.
const TO_REMOTE_DOMAIN: u32 = 2000;

/// The recipient of a report.
#[derive(Debug, Clone)]
pub enum ReportTo {
    /// The postmaster, because the message has no sender.
    Postmaster,
    /// A sender in a local domain, or in a domain for which mail is relayed. The address is given
    /// without its subaddress.
    Local(Address),
    /// A sender in any other domain.
    Remote(Address),
}

/// The counts of the reports that were sent within the last hour.
#[derive(Debug)]
pub struct Rates {
    start: Instant,
    /// Locked only while one report is counted.
    counts: Mutex<HashMap<Box<str>, Count>>,
}

#[derive(Debug, Default)]
struct Count {
    /// The time at which the count is back to zero, measured from `Rates::start`.
    clear: Duration,
    /// The number of reports that were withheld since the last report was sent.
    withheld: u64,
}

/// The error for a report beyond a limit.
#[derive(Debug, PartialEq, Eq)]
pub struct LimitReached(String);

impl std::fmt::Display for LimitReached {
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
    /// Counts a report that is about to be sent. Returns the number of reports to the same address
    /// that were withheld since the last one was sent.
    ///
    /// # Errors
    /// If a limit is reached. The report must be withheld, and is counted as withheld.
    pub fn count(&self, to: &ReportTo) -> Result<u64, LimitReached> {
        self.count_at(self.start.elapsed(), to)
    }

    /// Undoes the count of a report that could not be made and will be tried again. `withheld` is
    /// the number that [`Rates::count`] returned for the report.
    pub fn take_back(&self, to: &ReportTo, withheld: u64) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        for (number, (key, limit)) in keys(to).into_iter().enumerate() {
            let Some(count) = counts.get_mut(&*key) else { continue };
            count.clear = count.clear.saturating_sub(HOUR / limit);
            if number == 0 {
                count.withheld += withheld;
            }
        }
    }

    fn count_at(&self, now: Duration, to: &ReportTo) -> Result<u64, LimitReached> {
        let keys = keys(to);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut clear = Vec::with_capacity(keys.len());
        for (key, limit) in &keys {
            let clear_at = counts.get(&**key).map_or(now, |count| count.clear.max(now));
            clear.push(clear_at + HOUR / *limit);
            if clear_at + HOUR / *limit > now + HOUR {
                let why = format!("a report is withheld: there were more than {limit} to {key} within an hour");
                // Withheld reports are counted for the address, even if the limit of its domain was
                // reached, because the next report to the address gives their number.
                if let Some((address, _)) = keys.first() {
                    entry(&mut counts, address, now).withheld += 1;
                }
                return Err(LimitReached(why));
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

/// Returns the keys under which a report is counted, each with its limit. The key of the address
/// comes first.
fn keys(to: &ReportTo) -> Vec<(Box<str>, u32)> {
    let folded = |address: &Address| format!("<{}>", address.with_local(&fold(address.local()))).into();
    match to {
        ReportTo::Postmaster => vec![("the postmaster".into(), TO_POSTMASTER)],
        ReportTo::Local(address) => vec![(folded(address), TO_LOCAL)],
        ReportTo::Remote(address) => vec![(folded(address), TO_REMOTE), (address.domain().into(), TO_REMOTE_DOMAIN)],
    }
}

/// Returns the count of a key. If the key is new, its count is added.
fn entry<'a>(counts: &'a mut HashMap<Box<str>, Count>, key: &str, now: Duration) -> &'a mut Count {
    if counts.len() >= MAX_COUNTS && !counts.contains_key(key) {
        make_room(counts, now);
    }
    counts.entry(key.into()).or_default()
}

/// Drops the counts that are back to zero. If that is not enough, drops the lowest tenth of the
/// counts.
fn make_room(counts: &mut HashMap<Box<str>, Count>, now: Duration) {
    counts.retain(|_, count| count.clear > now);
    if counts.len() >= MAX_COUNTS {
        let mut times: Vec<Duration> = counts.values().map(|count| count.clear).collect();
        let (_, &mut least, _) = times.select_nth_unstable(MAX_COUNTS / 10);
        let mut left = MAX_COUNTS / 10;
        // No more than a tenth is dropped, even if several counts have the same value.
        counts.retain(|_, count| {
            let is_dropped = count.clear <= least && left > 0;
            left -= usize::from(is_dropped);
            !is_dropped
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
    fn the_limit_may_be_sent_at_once_and_then_evenly() {
        let (jon, eve) = (address("Jon@here.test"), address("eve@there.test"));
        for (to, limit) in [(&ReportTo::Postmaster, 10), (&ReportTo::Local(jon), 1000), (&ReportTo::Remote(eve), 200)] {
            let (rates, now) = (Rates::default(), Duration::from_secs(10));
            let sent = (0..5000).filter(|_| rates.count_at(now, to).is_ok()).count();
            assert_eq!(sent, limit, "{to:?}");
            let later = now + HOUR / u32::try_from(limit).expect("few");
            // The next report gives the number of withheld reports.
            assert_eq!(rates.count_at(later, to), Ok(5000 - limit as u64), "{to:?}");
            assert!(rates.count_at(later, to).is_err());
            assert_eq!(rates.count_at(later + HOUR, to), Ok(1));
            let sent = (0..5000).filter(|_| rates.count_at(later + HOUR * 9, to).is_ok()).count();
            assert_eq!(sent, limit, "{to:?}");
        }
    }

    #[test]
    fn a_domain_has_a_limit_of_its_own_and_spelling_does_not_matter() {
        let (rates, now) = (Rates::default(), Duration::ZERO);
        let sent = (0..5000).filter(|n| {
            let eve = address(&format!("eve{n}@there.test"));
            rates.count_at(now, &ReportTo::Remote(eve)).is_ok()
        });
        assert_eq!(sent.count(), 2000);
        let why = rates.count_at(now, &ReportTo::Remote(address("x@there.test"))).expect_err("too many").to_string();
        assert_eq!(why, "a report is withheld: there were more than 2000 to there.test within an hour");
        let spelling = |n: usize| address(if n < 99 { "EVE@else.test" } else { "\"eve\"@else.test" });
        assert_eq!((0..500).filter(|n| rates.count_at(now, &ReportTo::Remote(spelling(*n))).is_ok()).count(), 200);
        // One character, and a letter with a combining mark.
        let spelling = |n: usize| address(if n < 99 { "J\u{d6}N@more.test" } else { "jo\u{308}n@more.test" });
        assert_eq!((0..500).filter(|n| rates.count_at(now, &ReportTo::Remote(spelling(*n))).is_ok()).count(), 200);
    }

    #[test]
    fn a_report_that_could_not_be_made_is_not_counted() {
        let rates = Rates::default();
        for _ in 0..50 {
            assert_eq!(rates.count(&ReportTo::Postmaster), Ok(0));
            rates.take_back(&ReportTo::Postmaster, 0);
        }
    }

    #[test]
    fn counts_are_bounded_and_the_highest_are_kept() {
        let (rates, now) = (Rates::default(), Duration::from_secs(1));
        let victim = ReportTo::Remote(address("victim@there.test"));
        (0..300).for_each(|_| _ = rates.count_at(now, &victim));
        for n in 0..2 * MAX_COUNTS {
            let _ = rates.count_at(now, &ReportTo::Remote(address(&format!("x@d{n}.test"))));
        }
        assert!(rates.counts.lock().expect("no panic").len() <= MAX_COUNTS);
        assert!(rates.count_at(now, &victim).is_err());
    }
}

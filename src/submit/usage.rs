//! Counts the messages and recipients that each account has sent within the last hour.
//!
//! Counts are kept for intervals of five minutes: the current interval and the twelve before it. So
//! no hour, wherever it begins, has more than the limit, and a count expires after at most 65
//! minutes. At most [`MAX_ACCOUNTS`] accounts are kept. If there are that many already, a new
//! account whose mail this process counts replaces the account that has sent the least, but a new
//! account in a record of another process is ignored. Each process reports the first excess over a
//! limit, and no other excess until the account is below the limit again.
//!
//! The daemon and the sessions of inetd share the counts, which survive a restart, as far as
//! [`state`](crate::state) can keep them. Without such a state each process counts for itself. If
//! the clock is set forward, counts expire early. If the clock is set back, the counts that are now
//! in the future are dropped.
//!
//! If several hosts share a store, it counts for all hosts in the same way, and a message is allowed
//! if both counts are within the limit. What the store has counted is counted here, too, so that the
//! limit still holds for each host when the store is away.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::shared::Shared;
use crate::state::{Journal, Limits, Record, State};
use crate::sys;

/// The maximum number of accounts in memory.
pub const MAX_ACCOUNTS: usize = 100_000;
/// The length of an interval for which counts are kept, in seconds.
const INTERVAL: u64 = 300;
/// The number of intervals whose counts are added up: the twelve of an hour, and the current one.
const INTERVALS: u64 = 13;
/// The limits of the journal, in which the processes share their counts: about 70,000 messages and
/// recipients in each of its two files.
const LIMITS: Limits = Limits { max_size: 4 << 20, max_age: Duration::from_secs(INTERVAL * INTERVALS) };

/// What is counted for an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// Messages, which are counted at MAIL.
    Messages,
    /// Recipients, which are counted at RCPT.
    Recipients,
}

/// Whether one more message or recipient is within the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowance {
    /// The message or recipient is within the limit, and was counted.
    Granted,
    /// The message or recipient exceeds the limit, and this excess is to be reported.
    Reached,
    /// The message or recipient exceeds the limit, and an earlier excess was reported already.
    Beyond,
}

/// The counts of all accounts, shared by all sessions.
#[derive(Debug, Default)]
pub struct Usage {
    /// Locked only while one message or recipient is counted, not while the store is asked.
    counts: Mutex<Counts>,
    /// The counts of all hosts, and their name in the store.
    together: (Shared, &'static str),
}

#[derive(Debug, Default)]
struct Counts {
    accounts: HashMap<Box<str>, Account>,
    /// The records of all processes; `None` if this process counts for itself.
    journal: Option<Journal>,
}

#[derive(Debug, Default)]
struct Account {
    messages: Counter,
    recipients: Counter,
}

/// The count of one account's messages or recipients.
#[derive(Debug, Default)]
struct Counter {
    /// The numbers of the intervals in which something was counted, each with its count.
    intervals: Vec<(u64, usize)>,
    /// Whether the excess over the limit was reported.
    is_reported: bool,
}

impl Counted {
    fn name(self) -> &'static str {
        match self {
            Self::Messages => "message",
            Self::Recipients => "recipient",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        [Self::Messages, Self::Recipients].into_iter().find(|kind| kind.name() == name)
    }
}

impl Usage {
    /// Returns counts that are shared with the other processes that use the same state. `name` is
    /// the name of their journal.
    pub fn shared(state: &State, name: &'static str) -> Self {
        let journal = Some(state.journal(name, LIMITS));
        Self { counts: Mutex::new(Counts { journal, ..Counts::default() }), ..Self::default() }
    }

    /// Counts in a store as well, together with other hosts. `name` is the name of these counts.
    #[must_use]
    pub fn together(self, shared: &Shared, name: &'static str) -> Self {
        Self { together: (shared.clone(), name), ..self }
    }

    /// Counts one more message or recipient, if that is within the limit, both by the count of this
    /// host and by that of all hosts.
    pub fn count(&self, account: &str, kind: Counted, limit: usize) -> Allowance {
        let (shared, name) = &self.together;
        // An excess by the own count is not counted elsewhere.
        let is_within = !self.has_own_room(account, kind, limit)
            || shared.count(&format!("{name}-{}", kind.name()), account, limit).unwrap_or(true);
        self.count_at(sys::now(), account, kind, if is_within { limit } else { 0 })
    }

    /// Whether one more message or recipient would be within the limit. Nothing is counted.
    pub fn has_room(&self, account: &str, kind: Counted, limit: usize) -> bool {
        self.has_own_room(account, kind, limit)
            && self.total_of_all(account, kind).is_none_or(|total| total < limit as u64)
    }

    /// The count of all hosts; `None` if the store does not say.
    fn total_of_all(&self, account: &str, kind: Counted) -> Option<u64> {
        let (shared, name) = &self.together;
        shared.total(&format!("{name}-{}", kind.name()), account)
    }

    fn has_own_room(&self, account: &str, kind: Counted, limit: usize) -> bool {
        let now = sys::now();
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let Counts { accounts, journal } = &mut *counts;
        if let Some(journal) = journal {
            journal.lock(now, |record| take(accounts, now, record));
        }
        total(accounts, now, account, kind) < limit
    }

    /// The number of messages or recipients of an account within the last hour, on this host or on
    /// all hosts together. Nothing is counted, and no file is made or locked.
    pub fn total(&self, account: &str, kind: Counted) -> usize {
        let own = self.own_total(account, kind);
        let of_all = self.total_of_all(account, kind).unwrap_or(0);
        own.max(usize::try_from(of_all).unwrap_or(usize::MAX))
    }

    fn own_total(&self, account: &str, kind: Counted) -> usize {
        let now = sys::now();
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let Counts { accounts, journal } = &mut *counts;
        if let Some(journal) = journal {
            journal.read(now, |record| take(accounts, now, record));
        }
        total(accounts, now, account, kind)
    }

    fn count_at(&self, now: u64, account: &str, kind: Counted, limit: usize) -> Allowance {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let Counts { accounts, journal } = &mut *counts;
        let locked = journal.as_mut().and_then(|journal| journal.lock(now, |record| take(accounts, now, record)));
        let answer = counter(accounts, now, account, kind).count(now / INTERVAL, limit);
        if let (Some(mut locked), Allowance::Granted) = (locked, answer) {
            locked.append(&Record { time: now, key: account.to_owned(), value: kind.name().to_owned() });
        }
        answer
    }
}

/// Returns the count of an account; 0 if the account is not known.
fn total(accounts: &mut HashMap<Box<str>, Account>, now: u64, account: &str, kind: Counted) -> usize {
    let Some(account) = accounts.get_mut(account) else { return 0 };
    let counter = match kind {
        Counted::Messages => &mut account.messages,
        Counted::Recipients => &mut account.recipients,
    };
    counter.total(now / INTERVAL)
}

/// Counts a record of any process.
fn take(accounts: &mut HashMap<Box<str>, Account>, now: u64, record: &Record) {
    let Some(kind) = Counted::parse(&record.value) else { return };
    // A new account beyond the maximum is ignored, because making room goes through all accounts,
    // which would take too long for each record.
    if accounts.len() < MAX_ACCOUNTS || accounts.contains_key(&*record.key) {
        let counter = counter(accounts, now, &record.key, kind);
        counter.expire(now / INTERVAL);
        // A record that is slightly in the future counts as if it were written now.
        counter.add(record.time.min(now) / INTERVAL);
    }
}

/// Returns the counter of an account. A new account is added.
fn counter<'a>(accounts: &'a mut HashMap<Box<str>, Account>, now: u64, name: &str, kind: Counted) -> &'a mut Counter {
    if !accounts.contains_key(name) && accounts.len() >= MAX_ACCOUNTS {
        make_room(accounts, now / INTERVAL);
    }
    let account = accounts.entry(name.into()).or_default();
    match kind {
        Counted::Messages => &mut account.messages,
        Counted::Recipients => &mut account.recipients,
    }
}

impl Counter {
    fn count(&mut self, interval: u64, limit: usize) -> Allowance {
        if self.total(interval) >= limit {
            return if std::mem::replace(&mut self.is_reported, true) { Allowance::Beyond } else { Allowance::Reached };
        }
        self.is_reported = false;
        self.add(interval);
        Allowance::Granted
    }

    fn add(&mut self, interval: u64) {
        match self.intervals.iter_mut().find(|(counted, _)| *counted == interval) {
            Some((_, count)) => *count += 1,
            None => self.intervals.push((interval, 1)),
        }
    }

    /// Drops the intervals that are more than an hour old, or in the future.
    fn expire(&mut self, interval: u64) {
        self.intervals.retain(|(counted, _)| counted.saturating_add(INTERVALS) > interval && *counted <= interval);
    }

    /// Returns the sum of the intervals that count, and drops the others.
    fn total(&mut self, interval: u64) -> usize {
        self.expire(interval);
        self.intervals.iter().map(|(_, count)| count).sum()
    }
}

/// Drops the accounts whose counts are zero. If no account has a count of zero, drops the account
/// that has sent the least.
fn make_room(accounts: &mut HashMap<Box<str>, Account>, interval: u64) {
    let total = |account: &mut Account| account.messages.total(interval) + account.recipients.total(interval);
    accounts.retain(|_, account| total(account) > 0);
    if accounts.len() >= MAX_ACCOUNTS {
        let totals = accounts.iter_mut().map(|(name, account)| (total(account), name));
        let least = totals.min_by_key(|(total, _)| *total).map(|(_, name)| name.clone());
        least.map(|name| accounts.remove(&name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the time of a minute in a test, in seconds since 1970. The tests do not use the
    /// system clock.
    fn minute(minute: u64) -> u64 {
        1_764_450_000 + 60 * minute
    }

    #[test]
    fn no_hour_has_more_than_the_limit() {
        let usage = Usage::default();
        let good = |at| usage.count_at(minute(at), "jon@x", Counted::Messages, 30) == Allowance::Granted;
        // Up to seven messages are attempted in each minute of four hours.
        let sent: Vec<usize> = (0..240).map(|at| (0..=at % 7).filter(|_| good(at)).count()).collect();
        for hour in sent.windows(60) {
            assert!(hour.iter().sum::<usize>() <= 30, "{sent:?}");
        }
        for while_open in sent.windows(71) {
            assert!(while_open.iter().sum::<usize>() >= 30, "it opens again: {sent:?}");
        }
    }

    #[test]
    fn an_excess_is_reported_once_for_each_account_and_kind() {
        let usage = Usage::default();
        for (at, account, kind, answer) in [
            (0, "a", Counted::Messages, Allowance::Granted),
            (1, "a", Counted::Messages, Allowance::Granted),
            (2, "a", Counted::Messages, Allowance::Reached),
            (2, "a", Counted::Recipients, Allowance::Granted),
            (3, "a", Counted::Messages, Allowance::Beyond),
            (3, "b", Counted::Messages, Allowance::Granted),
            (60, "a", Counted::Messages, Allowance::Beyond),
            (65, "a", Counted::Messages, Allowance::Granted),
            (65, "a", Counted::Messages, Allowance::Granted),
            (66, "a", Counted::Messages, Allowance::Reached),
            (67, "a", Counted::Messages, Allowance::Beyond),
        ] {
            assert_eq!(usage.count_at(minute(at), account, kind, 2), answer, "{account} {kind:?} at {at}");
        }
    }

    #[test]
    fn accounts_are_bounded_and_the_busiest_is_kept() {
        let usage = Usage::default();
        for _ in 0..5 {
            assert_eq!(usage.count_at(minute(0), "busy", Counted::Messages, 5), Allowance::Granted);
        }
        for number in 0..MAX_ACCOUNTS - 1 {
            usage.count_at(minute(0), &number.to_string(), Counted::Messages, 5);
        }
        // Only two accounts are added, because each of these calls goes through all accounts.
        usage.count_at(minute(1), "new", Counted::Messages, 5);
        usage.count_at(minute(1), "newer", Counted::Messages, 5);
        assert_eq!(usage.counts.lock().expect("whole").accounts.len(), MAX_ACCOUNTS);
        assert_eq!(usage.count_at(minute(1), "busy", Counted::Messages, 5), Allowance::Reached);
        usage.count_at(minute(100), "late", Counted::Messages, 5);
        assert_eq!(usage.counts.lock().expect("whole").accounts.len(), 1);
    }

    /// Several processes share the state: the daemon before and after a restart, and sessions of
    /// inetd.
    #[test]
    fn processes_share_the_counts() {
        let directory = std::env::temp_dir().join(format!("penfold-usage-{}", std::process::id()));
        std::fs::create_dir(&directory).expect("a scratch directory");
        let state = State::at(&directory);
        let (first, second) = (Usage::shared(&state, "usage"), Usage::shared(&state, "usage"));
        for (usage, at, account, answer) in [
            (&first, 0, "a@x", Allowance::Granted),
            (&second, 1, "a@x", Allowance::Granted),
            (&first, 2, "a@x", Allowance::Reached),
            (&second, 2, "a@x", Allowance::Reached),
            (&second, 3, "a@x", Allowance::Beyond),
            (&first, 3, "a b", Allowance::Granted),
            (&Usage::shared(&state, "usage"), 4, "a@x", Allowance::Reached),
            (&Usage::shared(&state, "usage"), 4, "a b", Allowance::Granted),
            (&first, 4, "a b", Allowance::Reached),
            (&second, 65, "a@x", Allowance::Granted),
            (&Usage::shared(&state, "usage"), 70, "a@x", Allowance::Granted),
        ] {
            assert_eq!(usage.count_at(minute(at), account, Counted::Messages, 2), answer, "{account} at {at}");
        }
        assert_eq!(first.count_at(minute(5), "a@x", Counted::Recipients, 1), Allowance::Granted, "another thing");
        let at_once = std::thread::scope(|scope| {
            let count = || {
                let usage = Usage::shared(&state, "usage");
                (0..50)
                    .filter(|_| usage.count_at(minute(80), "busy", Counted::Messages, 100) == Allowance::Granted)
                    .count()
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(count)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum::<usize>()
        });
        std::fs::remove_dir_all(&directory).expect("removed");
        assert_eq!(at_once, 100, "no more than the limit in all of them together");
        let alone = Usage::shared(&State::at(&directory), "usage");
        for answer in [Allowance::Granted, Allowance::Reached] {
            assert_eq!(
                alone.count_at(minute(80), "busy", Counted::Messages, 1),
                answer,
                "without state it counts alone"
            );
        }
    }

    /// The files of the state may contain records of any number of accounts, and the first count
    /// reads all of them.
    #[test]
    fn records_of_too_many_accounts_cost_no_walk_each() {
        let directory = std::env::temp_dir().join(format!("penfold-usage-many-{}", std::process::id()));
        std::fs::create_dir(&directory).expect("a scratch directory");
        let state = State::at(&directory);
        let more = MAX_ACCOUNTS + 50;
        let mut journal = state.journal("usage", LIMITS);
        let mut locked = journal.lock(minute(0), |_| {}).expect("locked");
        for number in 0..more {
            locked.append(&Record { time: minute(0), key: number.to_string(), value: "message".to_owned() });
        }
        drop(locked);
        let usage = Usage::shared(&state, "usage");
        assert_eq!(usage.count_at(minute(0), "0", Counted::Messages, 1), Allowance::Reached);
        let names: Vec<Box<str>> = usage.counts.lock().expect("whole").accounts.keys().cloned().collect();
        let last = names.iter().filter_map(|name| name.parse().ok()).max();
        assert_eq!((names.len(), last), (MAX_ACCOUNTS, Some(MAX_ACCOUNTS - 1)), "the first ones are kept");
        assert_eq!(usage.count_at(minute(1), "jon", Counted::Messages, 1), Allowance::Granted, "an own count");
        assert_eq!(usage.counts.lock().expect("whole").accounts.len(), MAX_ACCOUNTS);
        std::fs::remove_dir_all(&directory).expect("removed");
    }

    #[test]
    fn counts_of_other_processes_expire_too() {
        let directory = std::env::temp_dir().join(format!("penfold-usage-expire-{}", std::process::id()));
        std::fs::create_dir(&directory).expect("a scratch directory");
        let state = State::at(&directory);
        let (one, other) = (Usage::shared(&state, "usage"), Usage::shared(&state, "usage"));
        for at in (0..600).step_by(5) {
            other.count_at(minute(at), "a@x", Counted::Messages, 100);
            one.count_at(minute(at), "b@x", Counted::Messages, 100);
        }
        let counts = one.counts.lock().expect("whole");
        assert_eq!(counts.accounts["a@x"].messages.intervals.len(), INTERVALS as usize);
        std::fs::remove_dir_all(&directory).expect("removed");
    }
}

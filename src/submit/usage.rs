//! The number of messages and recipients that each account has sent within the last hour.
//!
//! They are counted in intervals of five minutes, the current one and the twelve before it: no
//! hour, wherever it begins, has more than the limit, and a count expires after at most 65
//! minutes. Counts are kept in memory, for at most [`MAX_ACCOUNTS`] accounts; beyond that, the
//! account that has sent the least is dropped. Changes of the system clock have no effect. The
//! first excess over a limit is reported once, until the account is below the limit again.
//! Counts survive a reload, but not a restart.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The maximum number of accounts in memory.
pub const MAX_ACCOUNTS: usize = 100_000;
/// The length of an interval.
const INTERVAL: Duration = Duration::from_secs(300);
/// The number of intervals that count: an hour, and the current one.
const INTERVALS: u64 = 13;

/// A kind of thing that is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// Messages, at MAIL.
    Messages,
    /// Recipients, at RCPT.
    Recipients,
}

/// Whether one more is within the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowance {
    /// It is within the limit, and was counted.
    Granted,
    /// It exceeds the limit, for the first time.
    Reached,
    /// It exceeds the limit, as did the one before.
    Beyond,
}

/// The counts of all accounts, shared by all sessions.
#[derive(Debug)]
pub struct Usage {
    start: Instant,
    /// Held for the time of one count only.
    accounts: Mutex<HashMap<Box<str>, Account>>,
}

#[derive(Debug, Default)]
struct Account {
    messages: Counter,
    recipients: Counter,
}

/// A count for one account.
#[derive(Debug, Default)]
struct Counter {
    /// The numbers of the intervals with something to count, and the counts.
    intervals: Vec<(u64, usize)>,
    /// Whether the excess was reported.
    is_reported: bool,
}

impl Default for Usage {
    fn default() -> Self {
        Self { start: Instant::now(), accounts: Mutex::default() }
    }
}

impl Usage {
    /// Counts one more, if that is within the limit.
    pub fn count(&self, account: &str, what: Counted, limit: usize) -> Allowance {
        self.count_at(self.start.elapsed(), account, what, limit)
    }

    fn count_at(&self, now: Duration, account: &str, what: Counted, limit: usize) -> Allowance {
        let interval = now.as_secs() / INTERVAL.as_secs();
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        if !accounts.contains_key(account) && accounts.len() >= MAX_ACCOUNTS {
            make_room(&mut accounts, interval);
        }
        let account = accounts.entry(account.into()).or_default();
        let counter = match what {
            Counted::Messages => &mut account.messages,
            Counted::Recipients => &mut account.recipients,
        };
        counter.count(interval, limit)
    }
}

impl Counter {
    fn count(&mut self, interval: u64, limit: usize) -> Allowance {
        if self.total(interval) >= limit {
            return if std::mem::replace(&mut self.is_reported, true) { Allowance::Beyond } else { Allowance::Reached };
        }
        self.is_reported = false;
        match self.intervals.last_mut() {
            Some((last, count)) if *last == interval => *count += 1,
            _ => self.intervals.push((interval, 1)),
        }
        Allowance::Granted
    }

    /// The sum of the intervals that count; the others are dropped.
    fn total(&mut self, interval: u64) -> usize {
        self.intervals.retain(|(counted, _)| counted + INTERVALS > interval);
        self.intervals.iter().map(|(_, count)| count).sum()
    }
}

/// Drops the accounts without a count, and if there are none, the one that has sent the least.
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

    fn minute(minute: u64) -> Duration {
        Duration::from_secs(60 * minute)
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
        for (at, account, what, answer) in [
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
            assert_eq!(usage.count_at(minute(at), account, what, 2), answer, "{account} {what:?} at {at}");
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
        // Only twice, since each of these goes through all accounts.
        usage.count_at(minute(1), "new", Counted::Messages, 5);
        usage.count_at(minute(1), "newer", Counted::Messages, 5);
        assert_eq!(usage.accounts.lock().expect("whole").len(), MAX_ACCOUNTS);
        assert_eq!(usage.count_at(minute(1), "busy", Counted::Messages, 5), Allowance::Reached);
        usage.count_at(minute(100), "late", Counted::Messages, 5);
        assert_eq!(usage.accounts.lock().expect("whole").len(), 1);
    }
}

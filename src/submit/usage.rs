//! How much each account has sent within the last hour.
//!
//! An hour is counted in twelfths, the one that runs and the twelve before it: no
//! hour, wherever it begins, has more than the limit, and what was sent is
//! forgotten after at most 65 minutes. Kept in memory, for at most
//! [`MAX_ACCOUNTS`] accounts; beyond that, who has sent the least is forgotten. A
//! clock that is set does not matter. Says once that an account has reached a
//! limit, until it is below it again. A restart forgets all; a reload nothing.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Accounts that are remembered.
pub const MAX_ACCOUNTS: usize = 100_000;
/// What is counted together.
const SLOT: Duration = Duration::from_secs(300);
/// An hour, and the slot that runs.
const SLOTS: u64 = 13;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Messages, at MAIL.
    Messages,
    /// Recipients, at RCPT.
    Recipients,
}

/// The answer to one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It is counted.
    Good,
    /// It is too much, and that is new.
    Reached,
    /// It is still too much.
    Beyond,
}

/// The accounts of all sessions.
#[derive(Debug)]
pub struct Usage {
    start: Instant,
    /// Guards the counts; held for one look.
    accounts: Mutex<HashMap<Box<str>, Account>>,
}

#[derive(Debug, Default)]
struct Account {
    messages: Counter,
    recipients: Counter,
}

/// One thing that one account does.
#[derive(Debug, Default)]
struct Counter {
    /// What was counted in a slot: the slot's number and how many.
    slots: Vec<(u64, usize)>,
    is_told: bool,
}

impl Default for Usage {
    fn default() -> Self {
        Self { start: Instant::now(), accounts: Mutex::default() }
    }
}

impl Usage {
    /// Counts one more, if that is within the limit.
    pub fn count(&self, account: &str, what: What, limit: usize) -> Answer {
        self.count_at(self.start.elapsed(), account, what, limit)
    }

    fn count_at(&self, now: Duration, account: &str, what: What, limit: usize) -> Answer {
        let slot = now.as_secs() / SLOT.as_secs();
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        if !accounts.contains_key(account) && accounts.len() >= MAX_ACCOUNTS {
            make_room(&mut accounts, slot);
        }
        let account = accounts.entry(account.into()).or_default();
        let counter = match what {
            What::Messages => &mut account.messages,
            What::Recipients => &mut account.recipients,
        };
        counter.count(slot, limit)
    }
}

impl Counter {
    fn count(&mut self, slot: u64, limit: usize) -> Answer {
        if self.total(slot) >= limit {
            return if std::mem::replace(&mut self.is_told, true) { Answer::Beyond } else { Answer::Reached };
        }
        self.is_told = false;
        match self.slots.last_mut() {
            Some((last, count)) if *last == slot => *count += 1,
            _ => self.slots.push((slot, 1)),
        }
        Answer::Good
    }

    /// What still counts; the rest is forgotten.
    fn total(&mut self, slot: u64) -> usize {
        self.slots.retain(|(counted, _)| counted + SLOTS > slot);
        self.slots.iter().map(|(_, count)| count).sum()
    }
}

/// Forgets who has sent nothing lately, and if that is nobody, who has sent the least.
fn make_room(accounts: &mut HashMap<Box<str>, Account>, slot: u64) {
    let total = |account: &mut Account| account.messages.total(slot) + account.recipients.total(slot);
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
        let good = |at| usage.count_at(minute(at), "jon@x", What::Messages, 30) == Answer::Good;
        // Whatever is asked for in each minute, of four hours.
        let sent: Vec<usize> = (0..240).map(|at| (0..=at % 7).filter(|_| good(at)).count()).collect();
        for hour in sent.windows(60) {
            assert!(hour.iter().sum::<usize>() <= 30, "{sent:?}");
        }
        for while_open in sent.windows(71) {
            assert!(while_open.iter().sum::<usize>() >= 30, "it opens again: {sent:?}");
        }
    }

    #[test]
    fn the_limit_is_told_once_and_for_each_account_and_thing() {
        let usage = Usage::default();
        for (at, account, what, answer) in [
            (0, "a", What::Messages, Answer::Good),
            (1, "a", What::Messages, Answer::Good),
            (2, "a", What::Messages, Answer::Reached),
            (2, "a", What::Recipients, Answer::Good),
            (3, "a", What::Messages, Answer::Beyond),
            (3, "b", What::Messages, Answer::Good),
            (60, "a", What::Messages, Answer::Beyond),
            (65, "a", What::Messages, Answer::Good),
            (65, "a", What::Messages, Answer::Good),
            (66, "a", What::Messages, Answer::Reached),
            (67, "a", What::Messages, Answer::Beyond),
        ] {
            assert_eq!(usage.count_at(minute(at), account, what, 2), answer, "{account} {what:?} at {at}");
        }
    }

    #[test]
    fn accounts_are_bounded_and_who_sends_most_is_remembered() {
        let usage = Usage::default();
        for _ in 0..5 {
            assert_eq!(usage.count_at(minute(0), "busy", What::Messages, 5), Answer::Good);
        }
        for number in 0..MAX_ACCOUNTS - 1 {
            usage.count_at(minute(0), &number.to_string(), What::Messages, 5);
        }
        // Twice, since each goes through all.
        usage.count_at(minute(1), "new", What::Messages, 5);
        usage.count_at(minute(1), "newer", What::Messages, 5);
        assert_eq!(usage.accounts.lock().expect("whole").len(), MAX_ACCOUNTS);
        assert_eq!(usage.count_at(minute(1), "busy", What::Messages, 5), Answer::Reached);
        usage.count_at(minute(100), "late", What::Messages, 5);
        assert_eq!(usage.accounts.lock().expect("whole").len(), 1);
    }
}

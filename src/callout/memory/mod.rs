//! Remembers what next hosts have said about recipients.
//!
//! A recipient that was accepted is remembered for [`KEPT_FOR`]. Within the first part of this time
//! the host is not asked again; after that, the old answer holds only while the host gives no other.
//! A refusal is remembered for minutes. Accepted recipients survive a restart, because
//! [`state`](crate::state) keeps them in a journal; refusals are in memory only, so that a
//! dictionary attack cannot displace recipients that exist, on disk or in memory.
//!
//! An acceptance holds for all spellings of a local part that [`fold`] makes the same, so that
//! strangers who vary the case cannot displace other recipients; a refusal holds only for the local
//! part as it was given. A next host for which `JON` and `jon` are two mailboxes (RFC 5321 2.4 allows
//! that) can so return mail for the one that it does not have, but no spelling makes this host refuse
//! another. What follows a `+` belongs to the recipient: the next host may not know details.
//!
//! The memory touches no file. [`Files`] reads and writes the journal, so that no session waits for a
//! disk, or for another process that has locked the journal, while it only looks into the memory.
//!
//! - `files`: the journal, read and written without the lock on the memory
//!
//! The number of recipients in memory is limited. If there are more, those are dropped about which
//! the host was not asked for longest. An answer holds only for the destination that has given it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::address::{Address, fold};
use crate::policy::rcpt::NextHost;
use crate::state::{Limits, Record};

mod files;

pub(super) use files::Files;

/// An accepted recipient is forgotten if its host has not accepted it again for this time, in
/// seconds.
const KEPT_FOR: u64 = 31 * 24 * 3600;
/// The minimum time between two records of one recipient, in seconds.
const RECORDED_EVERY: u64 = 24 * 3600;
/// For this time, in seconds, a host is not asked again about a recipient that it has accepted.
const FRESH_AT_HOST: u64 = 6 * 3600;
/// The same for a mail store, which may also say that a mailbox is full, and is often on this host.
const FRESH_AT_STORE: u64 = 10 * 60;
/// For this time, in seconds, a host is not asked again whether it accepts all recipients of a domain.
const FRESH_DOMAIN: u64 = 24 * 3600;
/// For this time, in seconds, a refusal holds.
const REFUSED_FOR: u64 = 10 * 60;
/// For this time, in seconds, a host is not asked again about a recipient if the mailbox was full, or if
/// the host has said nothing about it.
const DOUBTFUL_FOR: u64 = 60;
/// An answer that is more than this number of seconds in the future is from before the clock was set back.
const MAX_SKEW: u64 = 60;
/// The maximum number of accepted recipients in memory.
const MAX_ACCEPTED: usize = 100_000;
/// The maximum number of refusals in memory.
const MAX_REFUSED: usize = 20_000;
/// Maximum number of records that wait for the journal.
const MAX_UNWRITTEN: usize = 10_000;
/// The limits of the journal. 8 MiB are about 100,000 recipients in each of its two files.
const LIMITS: Limits = Limits { max_size: 8 << 20, max_age: Duration::from_secs(KEPT_FOR) };

/// What is remembered about a recipient, or about the domain of recipients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// The answer.
    pub answer: NextHost,
    /// The time of the answer, in seconds since 1970.
    pub time: u64,
    /// Whether the answer is so new that the host is not asked again.
    pub is_fresh: bool,
    /// Whether the host accepts all recipients of the domain, so that it is not asked about single ones.
    pub accepts_all: bool,
}

/// An answer about a recipient or a domain, for listings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The recipient, or `@domain` for the random recipient of a domain.
    pub name: Box<str>,
    /// The name of the destination.
    pub destination: Arc<str>,
    /// The answer.
    pub answer: NextHost,
    /// The time of the answer, in seconds since 1970.
    pub time: u64,
}

impl Told {
    /// Whether the answer is about the random recipient of a domain.
    pub fn is_domain(&self) -> bool {
        self.name.starts_with('@')
    }
}

/// An answer of a destination.
#[derive(Debug, Clone)]
struct Row {
    destination: Arc<str>,
    answer: NextHost,
    /// The time of the answer, in seconds since 1970.
    time: u64,
    /// The time of the last record in the journal, in seconds since 1970; 0 if there is none.
    recorded: u64,
}

/// All answers.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// The recipients that were accepted, folded. `@domain` stands for the random recipient of a domain,
    /// whose answer may also be that it is unknown.
    accepted: HashMap<Box<str>, Row>,
    /// The recipients that were refused, as they were given.
    refused: HashMap<Box<str>, Row>,
    /// The records that the journal does not have yet, the oldest first.
    unwritten: VecDeque<Record>,
}

/// The key under which an accepted recipient is remembered.
fn accepted_key(recipient: &Address) -> String {
    recipient.with_local(&fold(recipient.local())).to_string()
}

/// The key under which a domain is remembered.
pub(super) fn domain_key(recipient: &Address) -> String {
    format!("@{}", recipient.domain())
}

impl Memory {
    /// Takes a record that another process has written. What is not written yet comes later in the
    /// journal, and holds.
    pub(super) fn read(&mut self, record: &Record) {
        if !self.unwritten.iter().any(|own| own.key == record.key) {
            take(&mut self.accepted, record);
        }
    }

    /// The next record for the journal.
    pub(super) fn unwritten(&self) -> Option<Record> {
        self.unwritten.front().cloned()
    }

    /// Notes that the next record was written, or could not be: then the next answer is recorded again.
    pub(super) fn written(&mut self, is_written: bool) {
        let Some(record) = self.unwritten.pop_front() else { return };
        let row = self.accepted.get_mut(&*record.key).filter(|row| row.recorded == record.time);
        if let Some(row) = row.filter(|_| !is_written) {
            row.recorded = 0;
        }
    }

    /// What a destination has said about a recipient; `None` if nothing is known. `is_store` says that
    /// the destination is a mail store.
    pub(super) fn find(&self, to: &Address, destination: &str, is_store: bool, now: u64) -> Option<Remembered> {
        let of = |rows: &HashMap<Box<str>, Row>, key: &str| {
            rows.get(key).filter(|row| *row.destination == *destination).map(|row| (row.answer, row.time))
        };
        let told = |(answer, time), fresh_for: u64, accepts_all| {
            let is_fresh = is_within(time, fresh_for, now);
            Remembered { answer, time, is_fresh, accepts_all }
        };
        let all = of(&self.accepted, &domain_key(to)).filter(|(answer, _)| *answer == NextHost::Accepted);
        let all = all.filter(|(_, time)| now < time.saturating_add(KEPT_FOR));
        let all = all.map(|found| told(found, FRESH_DOMAIN, true));
        let refused = of(&self.refused, &to.to_string()).map(|found| told(found, kept(found.0), false));
        let accepted = of(&self.accepted, &accepted_key(to)).filter(|(_, time)| now < time.saturating_add(KEPT_FOR));
        let fresh_for = if is_store { FRESH_AT_STORE } else { FRESH_AT_HOST };
        let accepted = accepted.map(|found| told(found, fresh_for, false));
        let refused = refused.filter(|refused| refused.is_fresh);
        all.clone().filter(|all| all.is_fresh).or(refused).or(accepted).or(all)
    }

    /// Whether a destination has accepted a recipient, or all recipients of its domain, and has not
    /// refused it since.
    pub(super) fn was_accepted(&self, to: &Address, destination: &str, now: u64) -> bool {
        [accepted_key(to), domain_key(to)].iter().filter_map(|key| self.accepted.get(&**key)).any(|row| {
            let is_kept = now < row.time.saturating_add(KEPT_FOR);
            *row.destination == *destination && row.answer == NextHost::Accepted && is_kept
        })
    }

    /// Whether it is known if a destination accepts all recipients of a domain.
    pub(super) fn knows_domain(&self, to: &Address, destination: &str, now: u64) -> bool {
        let row = self.accepted.get(&*domain_key(to)).filter(|row| *row.destination == *destination);
        row.is_some_and(|row| is_within(row.time, FRESH_DOMAIN, now))
    }

    /// Notes an answer about a recipient.
    pub(super) fn note(&mut self, to: &Address, destination: &Arc<str>, answer: NextHost, now: u64) {
        let key = to.to_string();
        match answer {
            NextHost::Accepted => {
                self.refused.remove(&*key);
                self.keep(accepted_key(to), destination, answer, now);
            }
            _ => {
                if matches!(answer, NextHost::Unknown | NextHost::Refused(_)) {
                    self.forget_accepted(&accepted_key(to), now);
                }
                let row = Row { destination: Arc::clone(destination), answer, time: now, recorded: 0 };
                make_room(&mut self.refused, &key, MAX_REFUSED, |row| is_within(row.time, kept(row.answer), now));
                self.refused.insert(key.into(), row);
            }
        }
    }

    /// Notes the answer about a random recipient in the domain of `to`.
    pub(super) fn note_domain(&mut self, to: &Address, destination: &Arc<str>, answer: NextHost, now: u64) {
        self.keep(domain_key(to), destination, answer, now);
    }

    /// Keeps an answer, for the journal too unless the journal has the same one already.
    fn keep(&mut self, key: String, destination: &Arc<str>, answer: NextHost, now: u64) {
        let known = self.accepted.get(&*key);
        let known = known.filter(|row| row.destination == *destination && row.answer == answer);
        let mut recorded = known.map_or(0, |row| row.recorded);
        if !is_within(recorded, RECORDED_EVERY, now) {
            self.record(&key, value(answer, destination), now);
            recorded = now;
        }
        let row = Row { destination: Arc::clone(destination), answer, time: now, recorded };
        make_room(&mut self.accepted, &key, MAX_ACCEPTED, |row| now < row.time.saturating_add(KEPT_FOR));
        self.accepted.insert(key.into(), row);
    }

    fn forget_accepted(&mut self, key: &str, now: u64) -> bool {
        let is_known = self.accepted.remove(key).is_some();
        if is_known {
            self.record(key, String::new(), now);
        }
        is_known
    }

    fn record(&mut self, key: &str, value: String, now: u64) {
        // Somebody has locked the journal for long. What is left out is recorded with the next answer.
        if self.unwritten.len() >= MAX_UNWRITTEN {
            self.written(false);
        }
        self.unwritten.push_back(Record { time: now, key: key.to_owned(), value });
    }

    /// Forgets what is remembered about an address, or about `@domain` and all addresses in it. Returns
    /// the number of answers.
    pub(super) fn forget(&mut self, name: &str, now: u64) -> usize {
        let is_meant = |key: &str| is_in(key, name);
        let count = self.refused.len();
        self.refused.retain(|key, _| !is_meant(key));
        let meant: Vec<Box<str>> = self.accepted.keys().filter(|key| is_meant(key)).cloned().collect();
        meant.iter().for_each(|key| _ = self.forget_accepted(key, now));
        count - self.refused.len() + meant.len()
    }

    /// What is remembered about an address, or about `@domain` and all addresses in it; about all if
    /// `name` is `None`.
    pub(super) fn rows(&self, name: Option<&str>, now: u64) -> Vec<Told> {
        let is_meant = |key: &str| name.is_none_or(|name| is_in(key, name));
        let accepted = self.accepted.iter().filter(|(_, row)| now < row.time.saturating_add(KEPT_FOR));
        let refused = self.refused.iter().filter(|(_, row)| is_within(row.time, kept(row.answer), now));
        let meant = accepted.chain(refused).filter(|(key, _)| is_meant(key));
        let told = meant.map(|(key, row)| Told {
            name: key.clone(),
            destination: Arc::clone(&row.destination),
            answer: row.answer,
            time: row.time,
        });
        told.collect()
    }
}

/// Whether a key is an address that `name` means: the address itself in any spelling, or one in `@domain`.
fn is_in(key: &str, name: &str) -> bool {
    fold(key) == fold(name) || name.starts_with('@') && key.ends_with(name)
}

/// Whether a time was at most `seconds` ago, and is not from before the clock was set back.
fn is_within(time: u64, seconds: u64, now: u64) -> bool {
    time <= now.saturating_add(MAX_SKEW) && now < time.saturating_add(seconds)
}

/// How long a refusal is remembered, in seconds.
fn kept(answer: NextHost) -> u64 {
    match answer {
        NextHost::Accepted | NextHost::Unknown | NextHost::Refused(_) => REFUSED_FOR,
        NextHost::Full(_) | NextHost::NoAnswer => DOUBTFUL_FOR,
    }
}

/// The value of a record: a word for the answer, and the destination.
fn value(answer: NextHost, destination: &str) -> String {
    format!("{} {destination}", if answer == NextHost::Accepted { "accepted" } else { "unknown" })
}

/// Takes a record of the journal, which may contain anything. An empty value means that the answer was
/// withdrawn.
fn take(accepted: &mut HashMap<Box<str>, Row>, record: &Record) {
    let is_domain = record.key.starts_with('@');
    let key = if is_domain { Ok(record.key.clone()) } else { Address::parse(&record.key).map(|to| accepted_key(&to)) };
    let Ok(key) = key else { return };
    let (answer, destination) = match record.value.split_once(' ') {
        None if record.value.is_empty() => {
            accepted.remove(&*key);
            return;
        }
        Some(("accepted", destination)) => (NextHost::Accepted, destination),
        Some(("unknown", destination)) if is_domain => (NextHost::Unknown, destination),
        _ => return,
    };
    let row = Row { destination: destination.into(), answer, time: record.time, recorded: record.time };
    make_room(accepted, &key, MAX_ACCEPTED, |_| true);
    accepted.insert(key.into(), row);
}

/// Makes room for a key, if there is none: drops the rows that are not `kept`, and a quarter of the
/// others, the oldest ones.
fn make_room(rows: &mut HashMap<Box<str>, Row>, key: &str, max: usize, kept: impl Fn(&Row) -> bool) {
    if rows.len() < max || rows.contains_key(key) {
        return;
    }
    rows.retain(|_, row| kept(row));
    if rows.len() < max {
        return;
    }
    let mut times: Vec<u64> = rows.values().map(|row| row.time).collect();
    let at = times.len() / 4;
    let (_, limit, _) = times.select_nth_unstable(at);
    let (limit, mut left) = (*limit, at + 1);
    rows.retain(|_, row| {
        let is_dropped = row.time <= limit && left > 0;
        left -= usize::from(is_dropped);
        !is_dropped
    });
}

#[cfg(test)]
mod tests;

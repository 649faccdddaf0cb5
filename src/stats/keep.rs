//! Keeps the numbers in the journal `stats` of `state/`, and the hours of the last two days in
//! memory.
//!
//! Each process appends what it has counted since it last did so: the daemon every ten minutes and
//! at its end, other processes at their end. A kill of the daemon loses at most ten minutes. The
//! time of a record is the end of its ten minutes. The daemon also reads what other processes have
//! appended. Of personal families and destinations, a record has only the largest numbers.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use super::LIVE;
use super::counts::Counts;
use crate::state::{Journal, Limits, Record, State};
use crate::sys;

/// The name of the journal.
const NAME: &str = "stats";
/// The bounds of the journal: 35 days.
const LIMITS: Limits = Limits { max_size: 8 << 20, max_age: Duration::from_secs(35 * 86_400) };
/// The key of all records. Records with another key are skipped.
const KEY: &str = "1";
/// The interval between two records of a daemon, in seconds.
const INTERVAL: u64 = 600;
/// The maximum length of the value of a record, before blanks are escaped.
const MAX_VALUE: usize = 1200;
/// The maximum number of a family's numbers in a record.
const MAX_OF_FAMILY: usize = 20;
/// If a family of a sum has more numbers than this, the smaller half is summed up.
const MAX_OF_SUM: usize = 4000;
/// A sum is checked against [`MAX_OF_SUM`] after this number of records.
const RECORDS_PER_FOLD: usize = 64;
/// The number of hours in memory.
const HOURS: u64 = 48;
/// Seconds in an hour.
const HOUR: u64 = 3600;

/// The numbers of one hour, without the personal ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hour {
    /// The start of the hour, in seconds since 1970.
    pub start: u64,
    /// What was counted in the hour.
    pub counts: Counts,
}

/// What was saved.
struct Saved {
    /// The numbers of this process that are on disk.
    own: Counts,
    /// The numbers that other processes have saved since this one started.
    others: Counts,
    /// The saved hours by their start.
    hours: BTreeMap<u64, Counts>,
    /// How often this process has saved its numbers.
    times: u64,
}

static SAVED: Mutex<Saved> = Mutex::new(Saved::new());

impl Saved {
    const fn new() -> Self {
        Self { own: Counts::new(), others: Counts::new(), hours: BTreeMap::new(), times: 0 }
    }

    /// Adds saved numbers to their hour. `now` is the current time.
    fn add_to_hour(&mut self, time: u64, counts: &Counts, now: u64) {
        let (start, oldest) = (time - time % HOUR, now.saturating_sub(HOURS * HOUR));
        if (oldest..=now).contains(&start) {
            self.hours.retain(|start, _| *start >= oldest);
            let hour = self.hours.entry(start).or_default();
            hour.merge(counts);
            hour.drop_personal();
            hour.fold(MAX_OF_SUM / 10, MAX_OF_FAMILY);
        }
    }
}

/// When this daemon started, in seconds since 1970.
static STARTED: OnceLock<u64> = OnceLock::new();

/// Returns when this daemon started, in seconds since 1970; `None` if this process is no daemon.
pub fn started() -> Option<u64> {
    STARTED.get().copied()
}

/// Saves the numbers of a daemon.
pub struct Keeper(Mutex<Journal>);

impl Keeper {
    /// Notes that the daemon has started. Nothing is read yet.
    pub fn new(state: &State) -> Self {
        STARTED.get_or_init(sys::now);
        Self(Mutex::new(state.journal(NAME, LIMITS)))
    }

    /// Reads the hours that earlier processes have saved.
    pub fn load(&self) {
        let now = sys::now();
        let mut journal = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The journal is long, and others need the numbers while it is read.
        let mut read = Saved::new();
        drop(journal.lock(now, |record| {
            if let Some(counts) = counts_of(record) {
                read.add_to_hour(record.time, &counts, now);
            }
        }));
        let mut saved = SAVED.lock().unwrap_or_else(PoisonError::into_inner);
        read.hours.iter().for_each(|(start, counts)| saved.add_to_hour(*start, counts, now));
    }

    /// Saves what is new, and reads what other processes have saved.
    pub fn save(&self) {
        let mut journal = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        save_new(&mut journal, sys::now());
    }

    /// Saves at the end of each interval, forever.
    pub fn run(&self) {
        self.load();
        loop {
            thread::sleep(Duration::from_secs(INTERVAL - sys::now() % INTERVAL));
            self.save();
        }
    }
}

/// Saves the numbers of a process that is about to end.
pub fn save(state: &State) {
    if LIVE.counts().is_empty() {
        return;
    }
    let mut journal = state.journal(NAME, LIMITS);
    journal.skip();
    save_new(&mut journal, sys::now());
}

fn save_new(journal: &mut Journal, now: u64) {
    let mut saved = SAVED.lock().unwrap_or_else(PoisonError::into_inner);
    let counts = LIVE.counts();
    let mut new = counts.since(&saved.own);
    new.fold(MAX_OF_FAMILY, MAX_OF_FAMILY);
    // At the end of an interval, the record belongs to the interval that has just ended.
    let time = now.saturating_sub(1);
    let mut take = |record: &Record| {
        if let Some(counts) = counts_of(record) {
            saved.add_to_hour(record.time, &counts, now);
            saved.others.merge(&counts);
            saved.others.drop_personal();
            saved.others.fold(MAX_OF_SUM / 10, MAX_OF_FAMILY);
        }
    };
    let Some(mut locked) = journal.lock(now, &mut take) else { return };
    for value in new.lines(MAX_VALUE) {
        locked.append(&Record { time, key: KEY.to_owned(), value });
    }
    drop(locked);
    saved.add_to_hour(time, &new, now);
    saved.own = LIVE.forget(counts);
    saved.times += 1;
}

/// Returns the numbers in a record.
fn counts_of(record: &Record) -> Option<Counts> {
    let mut counts = Counts::default();
    (record.key == KEY).then(|| counts.read(&record.value))?;
    Some(counts)
}

/// Returns the numbers from one time to another, in seconds since 1970. The numbers of this process
/// that are not saved yet belong to the current time. Also returns the time of the first record.
pub fn read(state: &State, (from, until): (u64, u64), now: u64) -> (Counts, Option<u64>) {
    // The journal is long, and others need the numbers while it is read. If they are saved meanwhile,
    // it is read once more.
    let mut times = SAVED.lock().unwrap_or_else(PoisonError::into_inner).times;
    loop {
        let (mut counts, first) = read_saved(state, (from, until), now);
        let saved = SAVED.lock().unwrap_or_else(PoisonError::into_inner);
        if saved.times == times {
            if until >= now {
                counts.merge(&LIVE.counts().since(&saved.own));
            }
            return (counts, first);
        }
        times = saved.times;
    }
}

/// Returns the saved numbers from one time to another, and the time of the first record.
fn read_saved(state: &State, (from, until): (u64, u64), now: u64) -> (Counts, Option<u64>) {
    let (mut counts, mut first, mut merged) = (Counts::default(), None::<u64>, 0usize);
    state.read(NAME, LIMITS, now, |record| {
        first = Some(first.map_or(record.time, |first| first.min(record.time)));
        if let Some(recorded) = counts_of(record).filter(|_| (from..until).contains(&record.time)) {
            counts.merge(&recorded);
            merged += 1;
            // A look at the size of each family takes longer than the record.
            if merged.is_multiple_of(RECORDS_PER_FOLD) {
                counts.fold(MAX_OF_SUM, MAX_OF_SUM / 2);
            }
        }
    });
    counts.fold(MAX_OF_SUM, MAX_OF_SUM / 2);
    (counts, first)
}

/// Returns the last [`HOURS`] hours, the oldest first. The last one is the current hour.
pub fn recent_hours(now: u64) -> Vec<Hour> {
    let saved = SAVED.lock().unwrap_or_else(PoisonError::into_inner);
    let current = now - now % HOUR;
    let starts = (0..HOURS).rev().map(|hours| current.saturating_sub(hours * HOUR));
    let mut hours: Vec<_> =
        starts.map(|start| Hour { start, counts: saved.hours.get(&start).cloned().unwrap_or_default() }).collect();
    if let Some(last) = hours.last_mut() {
        last.counts.merge(&LIVE.counts().since(&saved.own));
        last.counts.drop_personal();
    }
    hours
}

/// Returns what other processes have counted since this one started.
pub(super) fn others() -> Counts {
    SAVED.lock().unwrap_or_else(PoisonError::into_inner).others.clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Family;

    #[test]
    fn hours_are_kept_for_two_days_without_personal_numbers() {
        let mut saved = Saved::new();
        let mut counts = Counts::new();
        counts.add(Family::Accepted, "network", 1);
        counts.add(Family::Sender, "<jon@razorback>", 1);
        let now = 1_764_450_000;
        let start = now - now % HOUR;
        for time in [start - 1, start, start + 1, now, now + HOUR, now - (HOURS + 1) * HOUR, 0] {
            saved.add_to_hour(time, &counts, now);
        }
        let accepted = |hours: &BTreeMap<u64, Counts>| -> Vec<(u64, u64)> {
            hours.iter().map(|(start, counts)| (*start, counts.total(Family::Accepted))).collect()
        };
        assert_eq!(accepted(&saved.hours), [(start - HOUR, 1), (start, 3)]);
        assert!(saved.hours.values().all(|counts| counts.total(Family::Sender) == 0));
        saved.add_to_hour(now + HOURS * HOUR, &counts, now + HOURS * HOUR);
        assert_eq!(saved.hours.len(), 2, "the first hour is too old: {:?}", accepted(&saved.hours));
    }

    #[test]
    fn records_of_other_kinds_are_skipped() {
        let record = |key: &str, value: &str| Record { time: 1, key: key.into(), value: value.into() };
        assert_eq!(counts_of(&record("2", "accepted|network=1")), None);
        let counts = counts_of(&record(KEY, "accepted|network=1,nonsense")).expect("counts");
        assert_eq!(counts.total(Family::Accepted), 1);
    }

    #[test]
    fn the_journal_is_read_while_the_numbers_are_locked() {
        let directory = std::env::temp_dir().join(format!("penfold-stats-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let (state, now) = (State::at(&directory), sys::now());
        let mut counts = Counts::new();
        counts.add(Family::Accepted, "network", 3);
        let mut journal = state.journal(NAME, LIMITS);
        let mut locked = journal.lock(now, |_| {}).expect("a journal");
        let value = counts.lines(MAX_VALUE).into_iter().next().expect("a value");
        locked.append(&Record { time: now - 1, key: KEY.to_owned(), value });
        drop(locked);
        // Another one is using the numbers. Neither the start of a daemon nor a question waits for that
        // before the journal is read.
        let saved = SAVED.lock().unwrap_or_else(PoisonError::into_inner);
        let (counts, first) = read_saved(&state, (0, now), now);
        assert_eq!((counts.total(Family::Accepted), first), (3, Some(now - 1)));
        drop(saved);
        assert_eq!(read(&state, (0, now), now).0.total(Family::Accepted), 3);
        std::fs::remove_dir_all(&directory).expect("a directory");
    }
}

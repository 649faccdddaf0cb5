//! Answers that hold for a while, in bounded memory.
//!
//! At most [`MOST_BYTES`], the names, the data and what surrounds them counted; the
//! oldest give way. That something does not exist is kept for at most
//! [`LONGEST_ABSENCE`], since a domain that was just registered must not seem absent for
//! a day; trouble is not kept at all.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use trust_dns_resolver::proto::rr::RecordType;

use super::answer::{Datum, Found};
use crate::outcome::NoAnswer;

/// Octets: some 4000 answers of the usual size.
const MOST_BYTES: usize = 1 << 20;
/// What an entry takes beside its name and data, about.
const OVERHEAD: usize = 160;

const LONGEST: Duration = Duration::from_secs(86_400);
const LONGEST_ABSENCE: Duration = Duration::from_secs(300);

#[derive(Debug, Default)]
pub(super) struct Cache {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    answers: HashMap<Key, Entry>,
    /// By age, the oldest first; each key once.
    order: VecDeque<Key>,
    bytes: usize,
}

type Key = (Arc<str>, RecordType);

#[derive(Debug)]
struct Entry {
    found: Found,
    until: Instant,
    size: usize,
}

impl Cache {
    /// What is still known.
    pub(super) fn find(&self, name: &str, kind: RecordType) -> Option<Found> {
        let kept = self.lock();
        let entry = kept.answers.get(&(Arc::from(name), kind))?;
        (Instant::now() < entry.until).then(|| entry.found.clone())
    }

    /// Keeps an answer for as many seconds as it allows.
    pub(super) fn keep(&self, name: &str, kind: RecordType, found: &Found, lifetime: u32) {
        let longest = match found {
            Ok(_) => LONGEST,
            Err(NoAnswer::NxDomain | NoAnswer::NoData) => LONGEST_ABSENCE,
            Err(_) => return,
        };
        let lifetime = Duration::from_secs(lifetime.into()).min(longest);
        if lifetime.is_zero() {
            return;
        }
        let data = found.as_ref().map_or(0, |data| data.iter().map(Datum::size).sum());
        let size = OVERHEAD + name.len() + data;
        let key = (Arc::from(name), kind);
        let mut kept = self.lock();
        let entry = Entry { found: found.clone(), until: Instant::now() + lifetime, size };
        kept.bytes += size;
        match kept.answers.insert(key.clone(), entry) {
            Some(old) => kept.bytes -= old.size,
            None => kept.order.push_back(key),
        }
        while kept.bytes > MOST_BYTES {
            let Some(oldest) = kept.order.pop_front() else { break };
            let gone = kept.answers.remove(&oldest).map_or(0, |entry| entry.size);
            kept.bytes -= gone;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // At worst the count is off by one entry.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Found {
        Ok(Arc::from([Datum::Name(text.into())]))
    }

    #[test]
    fn the_oldest_answers_give_way() {
        let cache = Cache::default();
        for n in 0..50_000 {
            cache.keep(&format!("host{n}.example.test"), RecordType::PTR, &name("x"), 60);
            cache.keep("again.test", RecordType::PTR, &name("y"), 60);
        }
        let kept = cache.lock();
        assert!(kept.bytes <= MOST_BYTES && kept.bytes > MOST_BYTES / 2, "{}", kept.bytes);
        assert_eq!(kept.bytes, kept.answers.values().map(|entry| entry.size).sum::<usize>());
        assert_eq!(kept.order.len(), kept.answers.len());
        drop(kept);
        assert_eq!(cache.find("host49999.example.test", RecordType::PTR), Some(name("x")));
        assert_eq!(cache.find("host0.example.test", RecordType::PTR), None);
    }

    #[test]
    fn what_is_kept_is_what_may_be() {
        for (found, lifetime, is_kept) in [
            (name("x"), 1, true),
            (name("x"), u32::MAX, true),
            (name("x"), 0, false),
            (Err(NoAnswer::NxDomain), 60, true),
            (Err(NoAnswer::NoData), 60, true),
            (Err(NoAnswer::NoData), 0, false),
            (Err(NoAnswer::ServFail), 60, false),
            (Err(NoAnswer::Timeout), 60, false),
            (Err(NoAnswer::Other("?".into())), 60, false),
        ] {
            let cache = Cache::default();
            cache.keep("x.test", RecordType::A, &found, lifetime);
            assert_eq!(cache.find("x.test", RecordType::A), is_kept.then(|| found.clone()), "{found:?} {lifetime}");
            assert_eq!(cache.find("x.test", RecordType::AAAA), None);
        }
    }
}

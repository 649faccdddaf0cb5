//! Keeps DNS answers for their lifetime, in bounded memory.
//!
//! The cache has at most [`MAX_BYTES`], including names, data and overhead. To make room for new
//! answers, the oldest ones are dropped. Negative answers are kept for at most
//! [`MAX_NEGATIVE_LIFETIME`], so that a new domain does not seem absent for a day. Answers larger
//! than [`MAX_ENTRY`] are not kept at all, nor are failures, except those of TLSA records for a
//! moment.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use trust_dns_resolver::proto::rr::RecordType;

use super::answer::{Data, Found};
use crate::outcome::NoAnswer;

/// The maximum size of the cache, in bytes: about 4000 answers of the usual size.
const MAX_BYTES: usize = 1 << 20;
/// The maximum size of an entry: one hostile domain must not displace the answers for others.
const MAX_ENTRY: usize = MAX_BYTES / 32;
/// The approximate size of an entry without its name and data, in bytes.
const OVERHEAD: usize = 160;

const MAX_LIFETIME: Duration = Duration::from_secs(86_400);
const MAX_NEGATIVE_LIFETIME: Duration = Duration::from_secs(300);
/// How long a failed look-up of TLSA records is kept: a host with many addresses must not cost a
/// timeout for each.
const FAILURE_LIFETIME: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct Cache {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    answers: HashMap<Key, Entry>,
    /// Every key in `answers` once, oldest first.
    order: VecDeque<Key>,
    bytes: usize,
}

type Key = (Arc<str>, RecordType);

#[derive(Debug)]
struct Entry {
    found: Found,
    /// Whether the answer says if it is secure.
    with_dnssec: bool,
    until: Instant,
    size: usize,
}

impl Cache {
    /// The answer for a name and a type, unless the answer is missing or has expired. With
    /// `with_dnssec`, data count only if they say whether they are secure.
    pub(super) fn find(&self, name: &str, kind: RecordType, with_dnssec: bool) -> Option<Found> {
        let kept = self.lock();
        let entry = kept.answers.get(&(Arc::from(name), kind))?;
        let is_enough = !with_dnssec || entry.with_dnssec || entry.found.is_err();
        (is_enough && Instant::now() < entry.until).then(|| entry.found.clone())
    }

    /// The answer for a name and a type, and how long it stays valid.
    pub(super) fn find_with_lifetime(&self, name: &str, kind: RecordType) -> Option<(Found, Duration)> {
        let kept = self.lock();
        let entry = kept.answers.get(&(Arc::from(name), kind))?;
        let left = entry.until.checked_duration_since(Instant::now())?;
        Some((entry.found.clone(), left))
    }

    /// Keeps an answer for its lifetime, in seconds.
    pub(super) fn keep(&self, name: &str, kind: RecordType, with_dnssec: bool, found: &Found, lifetime: u32) {
        let lifetime = Duration::from_secs(lifetime.into());
        let lifetime = match found {
            Ok(_) => lifetime.min(MAX_LIFETIME),
            Err(NoAnswer::NxDomain | NoAnswer::NoData) => lifetime.min(MAX_NEGATIVE_LIFETIME),
            // A failure has no lifetime of its own.
            Err(_) if kind == RecordType::TLSA => FAILURE_LIFETIME,
            Err(_) => return,
        };
        let data = found.as_ref().map_or(0, Data::size);
        let size = OVERHEAD + name.len() + data;
        if lifetime.is_zero() || size > MAX_ENTRY {
            return;
        }
        let key = (Arc::from(name), kind);
        let mut kept = self.lock();
        let entry = Entry { found: found.clone(), with_dnssec, until: Instant::now() + lifetime, size };
        kept.bytes += size;
        match kept.answers.insert(key.clone(), entry) {
            Some(old) => kept.bytes -= old.size,
            None => kept.order.push_back(key),
        }
        while kept.bytes > MAX_BYTES {
            let Some(oldest) = kept.order.pop_front() else { break };
            let gone = kept.answers.remove(&oldest).map_or(0, |entry| entry.size);
            kept.bytes -= gone;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // If a thread has panicked with the lock held, `bytes` is wrong by one entry at most.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::answer::Datum;
    use super::*;

    fn name(text: &str) -> Found {
        Ok(Data { list: Arc::from([Datum::Name(text.into())]), is_secure: false, alias_of: None })
    }

    #[test]
    fn the_oldest_answers_are_dropped() {
        let cache = Cache::default();
        for n in 0..50_000 {
            cache.keep(&format!("host{n}.example.test"), RecordType::PTR, false, &name("x"), 60);
            cache.keep("again.test", RecordType::PTR, false, &name("y"), 60);
        }
        let kept = cache.lock();
        assert!(kept.bytes <= MAX_BYTES && kept.bytes > MAX_BYTES / 2, "{}", kept.bytes);
        assert_eq!(kept.bytes, kept.answers.values().map(|entry| entry.size).sum::<usize>());
        assert_eq!(kept.order.len(), kept.answers.len());
        drop(kept);
        assert_eq!(cache.find("host49999.example.test", RecordType::PTR, false), Some(name("x")));
        assert_eq!(cache.find("host0.example.test", RecordType::PTR, false), None);
    }

    #[test]
    fn answers_are_kept_for_their_lifetime_and_failures_are_not() {
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
            cache.keep("x.test", RecordType::A, false, &found, lifetime);
            assert_eq!(
                cache.find("x.test", RecordType::A, false),
                is_kept.then(|| found.clone()),
                "{found:?} {lifetime}"
            );
            assert_eq!(cache.find("x.test", RecordType::AAAA, false), None);
        }
        let (cache, failure) = (Cache::default(), Err(NoAnswer::ServFail));
        cache.keep("x.test", RecordType::TLSA, true, &failure, 0);
        assert_eq!(cache.find("x.test", RecordType::TLSA, true), Some(failure));
    }

    #[test]
    fn data_that_do_not_say_whether_they_are_secure_are_asked_again() {
        let (cache, kind) = (Cache::default(), RecordType::PTR);
        cache.keep("x.test", kind, false, &name("x"), 60);
        assert_eq!((cache.find("x.test", kind, true), cache.find("x.test", kind, false)), (None, Some(name("x"))));
        let secure = name("x").map(|data| Data { is_secure: true, ..data });
        cache.keep("x.test", kind, true, &secure, 60);
        assert_eq!(cache.find("x.test", kind, true), Some(secure.clone()));
        assert_eq!(cache.find("x.test", kind, false), Some(secure));
        // That a name does not exist is the same with and without DNSSEC.
        cache.keep("y.test", kind, false, &Err(NoAnswer::NxDomain), 60);
        assert_eq!(cache.find("y.test", kind, true), Some(Err(NoAnswer::NxDomain)));
    }
}

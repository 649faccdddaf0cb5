//! Keeps the policies of domains, and what is known about domains without one, in memory and on disk.
//!
//! Both are bounded. Of the domains in memory, those that were not asked about for the longest time
//! are dropped first. The journal `mta-sts` in the state directory has the policies only, so that
//! they survive a restart, and so that all processes know them. The key of a record is the domain.
//! The value is `PART/PARTS:TEXT`, since a policy may be longer than a record. The parts of a policy
//! follow each other. Their texts, joined, are `FETCHED|USED|SECONDS|MODE|ID|MX,MX,...`, and are checked
//! like a policy that was just fetched. Only mail counts as use, not a renewal, so that the policies
//! of strangers do not stay for ever.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::policy::{MAX_SIZE, StsPolicy};
use super::{RETRY_INTERVAL, SEARCH_INTERVAL};
use crate::address::parse_domain;
use crate::state::{Journal, Limits, Record, State};
use crate::tls::Fault;

/// The maximum number of domains in memory.
const MAX_DOMAINS: usize = 10_000;
/// The maximum size of all policies in memory, in bytes: all domains with policies of the usual size, or
/// 2500 with the largest policies.
const MAX_BYTES: usize = 16 << 20;
/// The bounds of the journal. Each file has room for about 28,000 policies of the usual size, or 1900
/// of the largest. A policy is valid for at most 366 days. The journal gets a time that is [`AHEAD`] of the clock, since
/// it skips records from the future, and the clock may have been set back.
const LIMITS: Limits = Limits { max_size: 8 << 20, max_age: Duration::from_secs(2 * AHEAD) };
/// 367 days, in seconds.
const AHEAD: u64 = 367 * 86_400;
/// The name of the journal.
const NAME: &str = "mta-sts";
/// The maximum length of the text in a record, in bytes, so that the record is short enough.
const MAX_PART: usize = 3000;
/// The maximum number of parts.
const MAX_PARTS: usize = 2 * MAX_SIZE / MAX_PART;
/// The interval at which the records of other processes are read, in seconds.
const READ_INTERVAL: u64 = 10;
/// The age at which the record of a policy is written again, so that the journal does not lose it, in
/// seconds.
const MAX_RECORD_AGE: u64 = 86_400;
/// A policy that no mail has asked for during this time is not renewed, in seconds.
const MAX_UNUSED: u64 = 30 * 86_400;
/// The maximum time between two attempts to renew a policy, in seconds.
const MAX_PAUSE: u64 = 86_400;

/// What is known about one domain.
#[derive(Debug, Clone, Default)]
pub(super) struct Entry {
    /// The last policy. It may have ended.
    policy: Option<Arc<StsPolicy>>,
    /// Why the last attempt to fetch a policy failed, and the time until which no further attempt is
    /// made.
    failure: Option<(u64, Arc<Fault>)>,
    /// The number of failures since the last policy.
    failures: u32,
    /// The time until which the record is not looked up again, because the look-up has failed.
    silent_until: u64,
    /// The time until which the other hosts are not asked again, because they know no policy.
    alone_until: u64,
    /// The time at which the policy was written to the journal.
    written: u64,
    /// The time at which mail asked about the domain last.
    used: u64,
}

/// A policy in the journal.
struct Found {
    domain: Box<str>,
    written: u64,
    used: u64,
    policy: StsPolicy,
}

#[derive(Debug)]
pub(super) struct Cache {
    journal: Journal,
    domains: HashMap<Box<str>, Entry>,
    bytes: usize,
    /// The time at which the journal was read last.
    read: u64,
}

impl Entry {
    /// The policy, if it is still valid.
    pub(super) fn policy(&self, now: u64) -> Option<&Arc<StsPolicy>> {
        self.policy.as_ref().filter(|policy| policy.is_valid(now))
    }

    /// Why there is no newer policy, as long as no further attempt is made.
    pub(super) fn failure(&self, now: u64) -> Option<&Arc<Fault>> {
        self.failure.as_ref().filter(|(until, _)| is_before(now, *until)).map(|(_, failure)| failure)
    }

    /// Whether the policy may be renewed though no mail goes there now. After each failure the pause
    /// is twice as long.
    fn may_renew(&self, now: u64) -> bool {
        let pause = (SEARCH_INTERVAL << self.failures.min(10)).min(MAX_PAUSE);
        let is_pausing = self.failure.as_ref().is_some_and(|(until, _)| now.abs_diff(*until) < pause);
        now.abs_diff(self.used) < MAX_UNUSED && !is_pausing
    }

    /// Whether the other hosts had no policy lately.
    pub(super) fn is_alone(&self, now: u64) -> bool {
        is_before(now, self.alone_until)
    }

    /// Whether the look-up of the record has failed lately.
    pub(super) fn is_silent(&self, now: u64) -> bool {
        is_before(now, self.silent_until)
    }
}

/// Whether a pause is not over. If the clock was set back, it is.
fn is_before(now: u64, until: u64) -> bool {
    now < until && until - now <= RETRY_INTERVAL
}

impl Cache {
    pub(super) fn new(state: &State) -> Self {
        Self { journal: state.journal(NAME, LIMITS), domains: HashMap::new(), bytes: 0, read: 0 }
    }

    /// What is known about a domain to which no mail goes now.
    pub(super) fn peek(&mut self, now: u64, domain: &str) -> Entry {
        self.read(now);
        self.domains.get(domain).cloned().unwrap_or_default()
    }

    /// What is known about a domain to which mail goes.
    pub(super) fn get(&mut self, now: u64, domain: &str) -> Entry {
        self.read(now);
        let Some(entry) = self.domains.get_mut(domain) else { return Entry::default() };
        entry.used = now;
        entry.clone()
    }

    /// The domains whose policies are valid and in use, and for which `is_due` is true.
    pub(super) fn due(&self, now: u64, is_due: impl Fn(&StsPolicy) -> bool) -> Vec<Box<str>> {
        let is_chosen = |entry: &Entry| entry.may_renew(now) && entry.policy(now).is_some_and(|policy| is_due(policy));
        self.domains.iter().filter(|(_, entry)| is_chosen(entry)).map(|(domain, _)| domain.clone()).collect()
    }

    /// Keeps a policy that was just fetched.
    pub(super) fn keep(&mut self, now: u64, domain: &str, policy: &Arc<StsPolicy>) {
        self.change(now, domain, |entry| {
            let used = entry.used;
            *entry = Entry { policy: Some(Arc::clone(policy)), written: now, used, ..Entry::default() };
        });
        self.write(now, domain, policy);
    }

    /// Notes that no policy could be fetched. A policy that is valid stays.
    pub(super) fn note_failure(&mut self, now: u64, until: u64, domain: &str, failure: &Arc<Fault>) {
        self.change(now, domain, |entry| {
            entry.failure = Some((until, Arc::clone(failure)));
            entry.failures = entry.failures.saturating_add(1);
        });
        let old = self.domains.get_mut(domain).filter(|entry| now.abs_diff(entry.written) >= MAX_RECORD_AGE);
        if let Some(entry) = old
            && let Some(policy) = entry.policy(now).cloned()
        {
            entry.written = now;
            self.write(now, domain, &policy);
        }
    }

    /// Notes that the look-up of the record has failed.
    pub(super) fn note_silence(&mut self, now: u64, until: u64, domain: &str) {
        self.change(now, domain, |entry| entry.silent_until = until);
    }

    /// Notes that the other hosts know no policy.
    pub(super) fn note_alone(&mut self, now: u64, until: u64, domain: &str) {
        self.change(now, domain, |entry| entry.alone_until = until);
    }

    /// Changes the entry of a domain. A new one counts as used now.
    fn change(&mut self, now: u64, domain: &str, change: impl FnOnce(&mut Entry)) {
        self.bytes -= self.domains.get(domain).map_or(0, |entry| size(domain, entry));
        let entry = self.domains.entry(domain.into()).or_insert_with(|| Entry { used: now, ..Entry::default() });
        change(entry);
        self.bytes += size(domain, entry);
        while self.domains.len() > MAX_DOMAINS || self.bytes > MAX_BYTES {
            // Domains without a valid policy go first.
            let order = |entry: &Entry| (entry.policy(now).is_some(), entry.used);
            let others = self.domains.iter().filter(|(name, _)| &***name != domain);
            let Some(oldest) = others.min_by_key(|(_, entry)| order(entry)).map(|(name, _)| name.clone()) else {
                break;
            };
            if let Some(gone) = self.domains.remove(&oldest) {
                self.bytes -= size(&oldest, &gone);
            }
        }
    }

    /// Reads the records of other processes, and those from before the start.
    fn read(&mut self, now: u64) {
        if now.abs_diff(self.read) < READ_INTERVAL {
            return;
        }
        self.read = now;
        let (mut found, mut parts) = (Vec::new(), Parts::default());
        self.journal.read(now.saturating_add(AHEAD), |record| found.extend(parts.add(record)));
        self.take(now, found);
    }

    /// Takes policies from the journal. A policy that was fetched later replaces an earlier one.
    fn take(&mut self, now: u64, found: Vec<Found>) {
        for Found { domain, written, used, policy } in found {
            let known = self.domains.get(&domain).and_then(|entry| entry.policy.as_ref());
            let is_newer = known.is_none_or(|known| known.fetched <= policy.fetched);
            if !is_newer || !policy.is_valid(now) {
                continue;
            }
            let used = used.min(now);
            self.change(used, &domain, |entry| {
                (entry.policy, entry.written) = (Some(Arc::new(policy)), written);
                entry.used = entry.used.max(used);
            });
        }
    }

    fn write(&mut self, now: u64, domain: &str, policy: &StsPolicy) {
        let text = to_text(policy, self.domains.get(domain).map_or(now, |entry| entry.used));
        let count = text.len().div_ceil(MAX_PART);
        let (mut found, mut parts) = (Vec::new(), Parts::default());
        if let Some(mut locked) = self.journal.lock(now.saturating_add(AHEAD), |record| found.extend(parts.add(record)))
        {
            for (at, part) in text.as_bytes().chunks(MAX_PART).enumerate() {
                let value = format!("{at}/{count}:{}", String::from_utf8_lossy(part));
                locked.append(&Record { time: now, key: domain.to_owned(), value });
            }
        }
        self.take(now, found);
    }
}

/// The approximate size of an entry in memory, in bytes.
fn size(domain: &str, entry: &Entry) -> usize {
    let policy = entry.policy.as_ref().map_or(0, |policy| policy.size());
    let failure = entry.failure.as_ref().map_or(0, |(_, failure)| failure.why.len());
    domain.len() + size_of::<Entry>() + policy + failure
}

/// The parts of a policy, until the last one is read.
#[derive(Default)]
struct Parts {
    domain: String,
    text: String,
    next: usize,
}

impl Parts {
    /// Adds a record. Returns the policy if this was its last part.
    fn add(&mut self, record: &Record) -> Option<Found> {
        let before = std::mem::take(self);
        let (place, text) = record.value.split_once(':')?;
        let (at, count) = place.split_once('/')?;
        let (at, count): (usize, usize) = (at.parse().ok()?, count.parse().ok()?);
        if at >= count || count > MAX_PARTS || (at > 0 && (before.next != at || before.domain != record.key)) {
            return None;
        }
        let text = if at == 0 { text.to_owned() } else { before.text + text };
        if at + 1 < count {
            *self = Self { domain: record.key.clone(), text, next: at + 1 };
            return None;
        }
        let domain = parse_domain(&record.key).ok()?;
        let (policy, used) = from_text(&text)?;
        (policy.fetched <= record.time).then_some(Found { domain, written: record.time, used, policy })
    }
}

/// Writes a policy and the time of its use.
pub(super) fn to_text(policy: &StsPolicy, used: u64) -> String {
    let StsPolicy { id, mode, mx, max_age, fetched } = policy;
    format!("{fetched}|{used}|{}|{}|{id}|{}", max_age.as_secs(), mode.word(), mx.join(","))
}

/// Reads a policy and the time of its use. It is checked as a policy from the network would be.
pub(super) fn from_text(text: &str) -> Option<(StsPolicy, u64)> {
    if text.contains(char::is_control) {
        return None;
    }
    let mut fields = text.splitn(6, '|');
    let (fetched, used) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let (seconds, mode) = (fields.next()?, fields.next()?);
    let (id, mx) = (fields.next()?, fields.next()?);
    super::record::id(&[format!("v=STSv1; id={id}").into_bytes()]).filter(|read| **read == *id)?;
    let mut policy = format!("version:STSv1\nmode:{mode}\nmax_age:{seconds}\n");
    for name in mx.split(',').filter(|name| !name.is_empty()) {
        policy.push_str("mx:");
        policy.push_str(name);
        policy.push('\n');
    }
    Some((StsPolicy::read(policy.as_bytes(), id, fetched).ok()?, used))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::FaultKind;
    use std::path::PathBuf;

    const NOW: u64 = 1_796_000_000;

    /// A state directory, which is removed at the end.
    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("penfold-sts-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).expect("a directory");
            Self(path)
        }

        fn cache(&self) -> Cache {
            Cache::new(&State::at(&self.0))
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn policy(id: &str, mx: &str, fetched: u64) -> Arc<StsPolicy> {
        let text = format!("version: STSv1\nmode: enforce\nmax_age: 86400\n{mx}");
        Arc::new(StsPolicy::parse(text.as_bytes(), id, fetched).expect("a policy"))
    }

    /// The lines of a policy that is as long as it may be, or nearly.
    fn long() -> String {
        let label = "a".repeat(32);
        (0..100).map(|n| format!("mx: {n:02}.{label}.test\n")).collect()
    }

    fn failure() -> Arc<Fault> {
        Arc::new(Fault::new(FaultKind::StsFetch, "no answer"))
    }

    #[test]
    fn policies_survive_a_restart_and_other_processes_see_them() {
        let place = Place::new("restart");
        let (mut one, mut other) = (place.cache(), place.cache());
        let long = long();
        let (small, large) = (policy("1", "mx: a.test\n", NOW), policy("2", &long, NOW));
        assert!(other.get(NOW, "a.test").policy(NOW).is_none());
        one.keep(NOW, "a.test", &small);
        one.keep(NOW, "b.test", &large);
        for cache in [&mut one, &mut other, &mut place.cache()] {
            let later = NOW + READ_INTERVAL;
            assert_eq!(cache.get(later, "a.test").policy(later), Some(&small));
            assert_eq!(cache.get(later, "b.test").policy(later), Some(&large));
            assert!(cache.get(later, "c.test").policy(later).is_none());
            // It ends when its time is over. A clock that was set back does not end it at once.
            assert!(cache.get(NOW + 86_399, "a.test").policy(NOW + 86_399).is_some());
            assert!(cache.get(NOW + 86_400, "a.test").policy(NOW + 86_400).is_none());
            assert!(cache.get(NOW - 86_400, "a.test").policy(NOW - 86_400).is_some());
            assert!(cache.get(NOW - 86_401, "a.test").policy(NOW - 86_401).is_none());
        }
    }

    #[test]
    fn a_failure_is_known_for_a_while_and_a_valid_policy_stays() {
        let place = Place::new("failure");
        let mut cache = place.cache();
        cache.note_failure(NOW, NOW + 300, "a.test", &failure());
        let entry = cache.get(NOW, "a.test");
        assert!(
            entry.failure(NOW + 299).is_some() && entry.failure(NOW + 300).is_none() && entry.policy(NOW).is_none()
        );
        let kept = policy("1", "mx: a.test\n", NOW);
        cache.keep(NOW, "a.test", &kept);
        assert!(cache.get(NOW, "a.test").failure(NOW).is_none());
        cache.note_failure(NOW, NOW + 300, "a.test", &failure());
        let entry = cache.get(NOW, "a.test");
        assert!(entry.failure(NOW).is_some() && entry.policy(NOW) == Some(&kept));
        cache.note_silence(NOW, NOW + 300, "b.test");
        let entry = cache.get(NOW, "b.test");
        assert!(entry.is_silent(NOW + 299) && !entry.is_silent(NOW + 300));
    }

    #[test]
    fn the_cache_is_bounded_and_keeps_policies_in_use() {
        let place = Place::new("bounds");
        let mut cache = place.cache();
        cache.keep(NOW, "kept.test", &policy("1", "mx: a.test\n", NOW));
        for n in 0..MAX_DOMAINS as u64 + 50 {
            cache.note_failure(NOW + n, NOW + n + 300, &format!("d{n}.test"), &failure());
        }
        assert_eq!(cache.domains.len(), MAX_DOMAINS);
        assert!(cache.domains.contains_key("kept.test"));
        // Thousands of the largest policies have room.
        let now = NOW + 20_000;
        let large = policy("1", &long(), now);
        for n in 0..3000 {
            cache.keep(now + n, &format!("large{n}.test"), &large);
            cache.get(now + n, "kept.test");
            assert!(n >= 2500 || cache.domains.contains_key("large0.test"), "{n}");
        }
        assert!(cache.bytes <= MAX_BYTES && cache.bytes > MAX_BYTES / 2, "{}", cache.bytes);
        assert_eq!(cache.bytes, cache.domains.iter().map(|(name, entry)| size(name, entry)).sum::<usize>());
        assert!(cache.domains.contains_key("kept.test") && cache.domains.contains_key("large2999.test"));
        assert!(!cache.domains.contains_key("large0.test"));
        // A new process knows nearly as many, the latest ones.
        let (mut other, now) = (place.cache(), now + 3000);
        assert!(other.get(now, "large2999.test").policy(now).is_some());
        let known = (0..3000).filter(|n| other.get(now, &format!("large{n}.test")).policy(now).is_some()).count();
        assert!(known >= 1900, "{known}");
    }

    #[test]
    fn a_renewal_is_no_use() {
        let place = Place::new("unused");
        let mut cache = place.cache();
        let renewed = |cache: &Cache, now: u64| cache.due(now, |_| true).len();
        cache.keep(NOW, "a.test", &policy("1", "mx: a.test\n", NOW));
        cache.keep(NOW, "b.test", &policy("1", "mx: a.test\n", NOW));
        let later = |day: u64| NOW + day * 80_000;
        for day in 1..40 {
            for domain in cache.due(later(day), |_| true) {
                assert!(cache.peek(later(day), &domain).policy(later(day)).is_some());
                cache.keep(later(day), &domain, &policy("1", "mx: a.test\n", later(day)));
            }
            cache.get(later(day), "b.test");
        }
        assert_eq!(renewed(&cache, later(39)), 1, "only b.test is in use");
        // The journal knows the use, too.
        let mut other = place.cache();
        assert!(other.peek(later(39), "b.test").policy(later(39)).is_some());
        assert_eq!((cache.domains["a.test"].used, renewed(&other, later(39))), (NOW, 1));
        assert!(other.domains["b.test"].used >= later(38));
        // After a failure there is a pause, which becomes longer.
        let mut now = later(39);
        for hours in [2, 4, 8] {
            cache.note_failure(now - 300, now, "b.test", &failure());
            assert_eq!((renewed(&cache, now), renewed(&cache, now + hours * 3600 - 1)), (0, 0));
            now += hours * 3600;
            assert_eq!(renewed(&cache, now), 1);
        }
    }

    #[test]
    fn a_clock_that_is_set_back_neither_voids_policies_nor_makes_pauses_longer() {
        let place = Place::new("clock");
        let kept = policy("1", "mx: a.test\n", NOW);
        let mut cache = place.cache();
        cache.keep(NOW, "a.test", &kept);
        cache.note_failure(NOW, NOW + 300, "a.test", &failure());
        cache.note_silence(NOW, NOW + 300, "a.test");
        let back = NOW - 40_000;
        let entry = cache.get(back, "a.test");
        assert!(entry.policy(back) == Some(&kept) && entry.failure(back).is_none() && !entry.is_silent(back));
        assert_eq!(place.cache().get(back, "a.test").policy(back), Some(&kept), "from the journal");
    }

    #[test]
    fn records_that_were_not_written_so_are_skipped() {
        let good = format!("0/1:{NOW}|{NOW}|86400|enforce|1|a.test,*.b.test");
        let record = |key: &str, value: &str| Record { time: NOW, key: key.into(), value: value.into() };
        assert!(Parts::default().add(&record("x.test", &good)).is_some());
        for (from, to) in [
            ("0/1", "1/1"),
            ("0/1", "0/0"),
            ("0/1", "0/99999999999999999999"),
            ("0/1", "0/2"),
            ("0/1:", ""),
            ("86400", "x"),
            ("|86400", ""),
            ("86400", "86400\nmode: none"),
            ("enforce", "none\nx"),
            ("|1|", "|1; x=2|"),
            ("|1|", "||"),
            ("a.test", "a b"),
            ("a.test", "a.test\nmax_age: 1 x"),
            (",*.b.test", "|"),
            (&NOW.to_string(), &(NOW + 1).to_string()),
            (&NOW.to_string(), "-1"),
        ] {
            let bad = good.replacen(from, to, 1);
            assert!(Parts::default().add(&record("x.test", &bad)).is_none(), "{bad}");
        }
        assert!(Parts::default().add(&record("x test", &good)).is_none());
        // The parts must belong together.
        let halves = [format!("0/2:{NOW}|{NOW}|86400|enf"), "1/2:orce|1|a.test".to_owned()];
        let mut parts = Parts::default();
        assert!(parts.add(&record("x.test", &halves[0])).is_none());
        assert!(parts.add(&record("x.test", &halves[1])).is_some());
        assert!(parts.add(&record("x.test", &halves[1])).is_none());
        assert!(parts.add(&record("x.test", &halves[0])).is_none());
        assert!(parts.add(&record("y.test", &halves[1])).is_none());
    }
}

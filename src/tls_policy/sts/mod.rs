//! Finds the MTA-STS policies of other domains (RFC 8461).
//!
//! A domain says with a TXT record that it has a policy. The policy is fetched by HTTPS from a host
//! of the domain, kept until it ends, and renewed before. So the record costs one DNS look-up for
//! each attempt, and the policy usually nothing.
//!
//! A worker waits for the policy of a domain only if there is none, and only as long as the queue
//! gives unproven and slow destinations. If a destination counts as proven, its mail is postponed,
//! and the destination counts as slow until the policy is there: so policy hosts that say nothing
//! keep no more workers than slow mail hosts, and no mail goes without a policy that can be had. To
//! renew a policy, a thread in the background fetches; until it is done, what is known stays in
//! force. A policy stays valid until its own end, also if its record or its host is gone. After a
//! failure, no attempt is made for some minutes. A policy that mail has not asked for in a month is
//! not renewed.
//!
//! Hosts that share a store and a secret keep policies for each other. Before a host fetches a policy, it
//! takes the one that another host has fetched for the same record. If a policy cannot be fetched, or a
//! domain has no record, a host that knows no policy takes any that is valid: so a policy also holds
//! at a host that has never seen the record.
//!
//! - `background`: threads that fetch while nobody waits
//! - `cache`: policies in memory and on disk
//! - `fetch`: one policy over HTTPS
//! - `hosts`: policies in the shared store
//! - `policy`: the text of a policy
//! - `record`: the TXT record of a domain

use std::collections::HashSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::address;
use crate::dns::Dns;
use crate::outcome::NoAnswer;
use crate::shared::Shared;
use crate::state::State;
use crate::sys;
use crate::timeouts::{HostTimeout, POLL_INTERVAL};
use crate::tls::{Client, Fault};

mod background;
mod cache;
mod fetch;
mod hosts;
pub mod policy;
pub mod record;

pub use policy::{Mode, StsPolicy};

use background::Background;
use cache::Cache;

/// The maximum time for fetching a policy.
const FETCH_TIMEOUT: Duration = Duration::from_secs(60);
/// How long no attempt is made after a failure, in seconds.
const RETRY_INTERVAL: u64 = 300;
/// The age at which a policy is renewed, in seconds; earlier if half of its lifetime is over.
const RENEWAL_AGE: u64 = 86_400;
/// The interval between two searches for policies to renew, in seconds.
const SEARCH_INTERVAL: u64 = 3600;

/// Fetches the policy of a domain whose record has this id, whatever is known about the domain.
///
/// # Errors
/// The failure.
pub fn fetch(dns: &Dns, tls: &Client, (domain, id): (&str, &str), limit: Duration) -> Result<StsPolicy, Fault> {
    fetch::policy(dns, tls, (domain, id), limit, None).map_err(|(fault, _)| fault)
}

/// What is known about the policy of a domain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sts {
    /// The policy in force. A policy with the mode [`Mode::None`] demands nothing.
    pub policy: Option<Arc<StsPolicy>>,
    /// Why there is no policy, or no newer one, although the domain says that it has one.
    pub failure: Option<Arc<Fault>>,
    /// Whether the domain may have a policy that is not known yet.
    pub is_open: bool,
    /// Whether there is a policy to be fetched before mail is sent, but this attempt may not wait.
    pub is_postponed: bool,
}

/// The policies of all domains.
#[derive(Debug, Clone)]
pub struct Policies {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dns: Arc<Dns>,
    /// The policies that other hosts have fetched.
    shared: Shared,
    /// The lock is held only while the cache is read or changed.
    cache: Mutex<Cache>,
    /// The domains whose policies are being fetched.
    fetching: Mutex<HashSet<Box<str>>>,
    /// Is notified when a fetch has ended.
    fetched: Condvar,
    background: Background,
    /// The maximum time for fetching a policy.
    limit: Duration,
    /// The time of the last search for policies to renew.
    searched: Mutex<u64>,
}

impl Policies {
    /// The policies, with those that are kept in a state directory and those of other hosts.
    pub fn new(dns: &Arc<Dns>, state: &State, shared: &Shared) -> Self {
        Self::limited(dns, state, shared, FETCH_TIMEOUT)
    }

    /// The same, with a maximum time for fetching a policy.
    pub fn limited(dns: &Arc<Dns>, state: &State, shared: &Shared, limit: Duration) -> Self {
        let inner = Inner {
            dns: Arc::clone(dns),
            shared: shared.clone(),
            cache: Mutex::new(Cache::new(state)),
            fetching: Mutex::default(),
            fetched: Condvar::new(),
            background: Background::default(),
            limit,
            searched: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Looks up the record of a domain, and returns the policy that is in force for the domain. If
    /// there is none yet, but the record promises one, the policy is fetched: now, within the limits
    /// of `unproven`, or in the background, if that is `None`; then the mail is to be postponed.
    pub fn of_domain(&self, domain: &str, tls: &Client, unproven: Option<&HostTimeout>) -> Sts {
        if cfg!(not(feature = "mta-sts")) || address::literal(domain).is_some() {
            return Sts::default();
        }
        let (inner, now) = (&self.inner, sys::now());
        inner.renew_all(now, tls);
        let entry = inner.cache().get(now, domain);
        let current = entry.policy(now);
        let known = |may_have: bool| Sts {
            policy: current.cloned(),
            failure: entry.failure(now).cloned(),
            is_open: may_have && current.is_none(),
            is_postponed: false,
        };
        if entry.is_silent(now) {
            return known(true);
        }
        // Without a record, a policy is neither fetched nor renewed.
        let id = match inner.id(domain, now) {
            Ok(Some(id)) => id,
            _ if current.is_none() && !entry.is_alone(now) && inner.take_any_from_other_hosts(domain, now) => {
                return self.known(domain);
            }
            Ok(None) => return known(false),
            Err(_) => return known(true),
        };
        let is_fresh = current.is_some_and(|policy| policy.id == id && !is_due(policy, now));
        if is_fresh || entry.failure(now).is_some() {
            return known(true);
        }
        match unproven {
            Some(host_timeout) if current.is_none() => {
                inner.fetch(domain, &id, tls, Some(host_timeout));
                let known = self.known(domain);
                Sts { is_open: known.policy.is_none(), ..known }
            }
            _ => {
                Background::add(inner, domain, tls);
                Sts { is_postponed: current.is_none(), ..known(true) }
            }
        }
    }

    /// Returns what is known about a domain, without any look-up.
    pub fn known(&self, domain: &str) -> Sts {
        let now = sys::now();
        let entry = self.inner.cache().get(now, domain);
        let (policy, failure) = (entry.policy(now).cloned(), entry.failure(now).cloned());
        let is_open = policy.is_none() && (failure.is_some() || entry.is_silent(now));
        Sts { policy, failure, is_open, is_postponed: false }
    }
}

impl Inner {
    fn cache(&self) -> MutexGuard<'_, Cache> {
        // If a thread has panicked with the lock held, the sizes may be wrong, but not the policies.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks up the id of a domain's policy. Returns `None` if the domain has no record.
    ///
    /// # Errors
    /// If the look-up fails.
    fn id(&self, domain: &str, now: u64) -> Result<Option<Box<str>>, NoAnswer> {
        let until = Instant::now() + self.limit;
        match self.dns.begin_txt(&format!("_mta-sts.{domain}"), until).wait() {
            Ok(records) => Ok(record::id(&records)),
            Err(NoAnswer::NxDomain | NoAnswer::NoData | NoAnswer::BadName) => Ok(None),
            Err(trouble) => {
                self.cache().note_silence(now, now + RETRY_INTERVAL, domain);
                Err(trouble)
            }
        }
    }

    /// Fetches the policy of a domain, or waits while another thread does so.
    fn fetch(self: &Arc<Self>, domain: &str, id: &str, tls: &Client, host_timeout: Option<&HostTimeout>) {
        let Some(flight) = Flight::begin(self, domain) else { return self.wait(domain, host_timeout) };
        // Another thread may have been faster.
        let (entry, now) = (self.cache().peek(sys::now(), domain), sys::now());
        let is_known = entry.policy(now).is_some_and(|policy| *policy.id == *id && !is_due(policy, now));
        if is_known || (host_timeout.is_some() && entry.failure(now).is_some()) {
            return;
        }
        let shared = hosts::policy_of(&self.shared, domain, now);
        let is_current = |policy: &StsPolicy| *policy.id == *id && !is_due(policy, now);
        if shared.clone().filter(is_current).is_some_and(|policy| self.take(domain, now, policy)) {
            return;
        }
        let result = fetch::policy(&self.dns, tls, (domain, id), self.limit, host_timeout);
        let now = sys::now();
        match result {
            Ok(policy) => {
                let (mode, seconds) = (policy.mode.word(), policy.max_age.as_secs());
                ::log::info!("MTA-STS: {domain}: the policy {id} was fetched: {mode}, for {seconds} seconds");
                hosts::tell(&self.shared, domain, &policy, now);
                self.cache().keep(now, domain, &Arc::new(policy));
            }
            Err((failure, is_cut_short)) => {
                // An older policy is better than none.
                if let Some(policy) = shared {
                    self.take(domain, now, policy);
                }
                let left = self.cache().peek(now, domain).policy(now).map(|policy| policy.end() - now);
                let left = left.map_or(String::new(), |left| format!("; the old one ends in {left} seconds"));
                ::log::warn!("MTA-STS: {domain}: the policy {id} cannot be fetched: {}{left}", failure.why);
                self.cache().note_failure(now, now + RETRY_INTERVAL, domain, &Arc::new(failure));
                drop(flight);
                if is_cut_short {
                    Background::add(self, domain, tls);
                }
            }
        }
    }

    /// Takes the policy of a domain that another host has fetched. If there is none, the store is not asked
    /// again for some minutes. Returns whether there is one.
    fn take_any_from_other_hosts(&self, domain: &str, now: u64) -> bool {
        if !self.shared.keeps_texts() {
            return false;
        }
        let policy = hosts::policy_of(&self.shared, domain, now);
        let is_taken = policy.is_some_and(|policy| self.take(domain, now, policy));
        if !is_taken {
            self.cache().note_alone(now, now + RETRY_INTERVAL, domain);
        }
        is_taken
    }

    /// Takes a policy of another host, unless a policy is known that was fetched later. Returns whether it
    /// was taken.
    fn take(&self, domain: &str, now: u64, policy: StsPolicy) -> bool {
        let (id, mode, seconds) = (policy.id.clone(), policy.mode.word(), policy.end().saturating_sub(now));
        let mut cache = self.cache();
        if cache.peek(now, domain).policy(now).is_some_and(|known| known.fetched >= policy.fetched) {
            return false;
        }
        cache.keep(now, domain, &Arc::new(policy));
        drop(cache);
        ::log::info!("MTA-STS: {domain}: another host has fetched the policy {id}: {mode}, for {seconds} seconds");
        true
    }

    /// Waits until no thread fetches the policy of a domain.
    fn wait(&self, domain: &str, host_timeout: Option<&HostTimeout>) {
        let since = Instant::now();
        let mut fetching = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        while fetching.contains(domain) {
            // A little longer than the fetch itself may take.
            let limit = host_timeout.and_then(HostTimeout::limit).unwrap_or(self.limit + Duration::from_secs(1));
            if since.elapsed() >= limit {
                return;
            }
            fetching = self.fetched.wait_timeout(fetching, POLL_INTERVAL).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Has all policies renewed that are due and in use, at most once an hour: also those of domains to
    /// which no mail goes at the moment.
    fn renew_all(self: &Arc<Self>, now: u64, tls: &Client) {
        {
            let mut searched = self.searched.lock().unwrap_or_else(PoisonError::into_inner);
            if now.abs_diff(*searched) < SEARCH_INTERVAL {
                return;
            }
            *searched = now;
        }
        let due = self.cache().due(now, |policy| is_due(policy, now));
        for domain in due {
            Background::add(self, &domain, tls);
        }
    }
}

/// Whether a policy is to be renewed.
fn is_due(policy: &StsPolicy, now: u64) -> bool {
    now.abs_diff(policy.fetched) >= RENEWAL_AGE.min(policy.max_age.as_secs() / 2)
}

/// Marks a domain whose policy is being fetched, until it is dropped.
struct Flight<'a> {
    inner: &'a Inner,
    domain: &'a str,
}

impl<'a> Flight<'a> {
    /// Returns `None` if another thread fetches this policy.
    fn begin(inner: &'a Inner, domain: &'a str) -> Option<Self> {
        let mut fetching = inner.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        // A value that is made and dropped at once would end the flight of the other thread.
        fetching.insert(domain.into()).then(|| Self { inner, domain })
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.inner.fetching.lock().unwrap_or_else(PoisonError::into_inner).remove(self.domain);
        self.inner.fetched.notify_all();
    }
}

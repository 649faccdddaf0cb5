//! Caches expansions that took long. An expansion leads from an address to its final recipients.
//!
//! An alias with thousands of members needs a look-up for each member. A client that names such an
//! alias repeatedly, with various subaddresses, must not cost more than a client that names the
//! alias once. So an expansion also serves for other details of its address, unless a table or the
//! users have an entry for the whole address. It is forgotten if the aliases or the virtual table
//! change, and after [`KEPT_FOR`], because users and routes change, too. At most [`MAX_EXPANSIONS`] are kept.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::expand::Expanded;
use super::realm::Snapshot;
use super::{Expansion, Router};
use crate::address::{Address, fold};
use crate::envelope::Action;

/// An expansion that takes at least this long is kept.
const SLOW: Duration = Duration::from_millis(5);
/// How long an expansion is kept.
const KEPT_FOR: Duration = Duration::from_secs(5);
/// The maximum number of expansions in the cache.
const MAX_EXPANSIONS: usize = 16;

/// The cached expansions, by address.
#[derive(Debug, Default)]
pub(super) struct ExpansionCache(Mutex<HashMap<Address, CachedExpansion>>);

#[derive(Debug)]
struct CachedExpansion {
    expansion: Expansion,
    /// The tables on which the expansion is based, with the numbers of their realms.
    tables: Vec<(usize, Snapshot)>,
    until: Instant,
}

impl ExpansionCache {
    /// Returns the expansion of an address, from the cache or from `expand`, which also returns the
    /// tables that it has asked. The address must have a domain.
    pub(super) fn get(&self, router: &Router, address: &Address, expand: impl FnOnce() -> Expanded) -> Expansion {
        if self.lock().is_empty() {
            return self.fill(router, address, expand);
        }
        let now = Instant::now();
        let is_current = |cached: &CachedExpansion| {
            let mut tables = cached.tables.iter();
            now < cached.until && tables.all(|(number, tables)| router.is_current(*number, tables))
        };
        let base = base(router, address);
        let mut expansions = self.lock();
        expansions.retain(|_, cached| is_current(cached));
        if let Some(cached) = expansions.get(address) {
            return cached.expansion.clone();
        }
        if let Some(base) = base
            && let Some(cached) = expansions.get(&base)
            && is_same_for_all_details(&cached.expansion, &base)
        {
            return cached.expansion.clone();
        }
        drop(expansions);
        self.fill(router, address, expand)
    }

    /// Calls `expand`, and caches the expansion if the call took long. A temporary failure is not
    /// cached, because its cause may be gone at any time.
    fn fill(&self, router: &Router, address: &Address, expand: impl FnOnce() -> Expanded) -> Expansion {
        let begun = Instant::now();
        let (expansion, tables) = expand();
        if begun.elapsed() < SLOW || matches!(expansion, Expansion::Temporary(_)) {
            return expansion;
        }
        let key = match base(router, address) {
            Some(base) if is_same_for_all_details(&expansion, address) => base,
            _ => address.clone(),
        };
        let until = Instant::now() + KEPT_FOR;
        let cached = CachedExpansion { expansion: expansion.clone(), tables, until };
        let mut expansions = self.lock();
        if expansions.len() >= MAX_EXPANSIONS && !expansions.contains_key(&key) {
            let oldest = expansions.iter().min_by_key(|(_, cached)| cached.until).map(|(key, _)| key.clone());
            oldest.and_then(|oldest| expansions.remove(&oldest));
        }
        expansions.insert(key, cached);
        expansion
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Address, CachedExpansion>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the address without its detail (the subaddress). `None` if the address has no detail, or
/// if the whole address is in a table, the routes table included, or is that of a user.
fn base(router: &Router, address: &Address) -> Option<Address> {
    let (name, domain) = (fold(address.local()), address.domain());
    let realm = router.realm(domain)?;
    let base = realm.without_detail(&name)?;
    let Snapshot { aliases, virtual_table } = realm.snapshot();
    let is_known = virtual_table.find(&name, domain).is_ok_and(|found| found.is_some())
        || aliases.find(&name).is_ok_and(|found| found.is_some())
        || router.is_routed(&name, domain)
        || !matches!(realm.users.inbox(&name, domain), Ok(None));
    (!is_known).then(|| address.with_local(base))
}

/// Whether an expansion is the same for every detail of `address`. This is so if all its recipients
/// are plain addresses, and none of them is `address` itself.
fn is_same_for_all_details(expansion: &Expansion, address: &Address) -> bool {
    match expansion {
        Expansion::Finals(finals) => finals.iter().all(|to| {
            let is_plain = matches!(to.action, Action::Deliver | Action::Direct);
            is_plain && to.address != *address
        }),
        Expansion::Unknown | Expansion::Refused(..) | Expansion::Temporary(_) => true,
    }
}

//! Expansions that took long, remembered for a moment.
//!
//! An alias of thousands of addresses costs a look-up of each: a client that asks for it
//! again and again, with one detail or another, costs no more than one that asks once. An
//! expansion is forgotten when the aliases or the virtual table change, and after
//! [`KEPT`], for users come and go too. At most [`MOST`] are kept. Does not expand.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::virtual_table::VirtualTable;
use super::{Expansion, Router, lower};
use crate::address::Address;
use crate::aliases::Aliases;
use crate::envelope::Action;

/// What takes less is as well found out again.
const SLOW: Duration = Duration::from_millis(5);
/// How long an expansion is remembered.
const KEPT: Duration = Duration::from_secs(5);
/// How many are.
const MOST: usize = 16;

/// The expansions.
#[derive(Debug, Default)]
pub(super) struct ExpansionCache(Mutex<HashMap<Address, CachedExpansion>>);

#[derive(Debug)]
struct CachedExpansion {
    expansion: Expansion,
    /// The tables that said so.
    aliases: Arc<Aliases>,
    virtual_table: Arc<VirtualTable>,
    until: Instant,
}

impl ExpansionCache {
    /// The expansion of an address that has a domain: remembered, or as `expand` finds it.
    pub(super) fn of(&self, router: &Router, address: &Address, expand: impl FnOnce() -> Expansion) -> Expansion {
        if self.lock().is_empty() {
            return self.keep(router, address, expand);
        }
        let (aliases, virtual_table, now) = (router.aliases.current(), router.virtual_table.current(), Instant::now());
        let is_good = |one: &CachedExpansion| {
            Arc::ptr_eq(&one.aliases, &aliases) && Arc::ptr_eq(&one.virtual_table, &virtual_table) && now < one.until
        };
        let without_detail = base(router, address, &aliases, &virtual_table);
        let mut known = self.lock();
        known.retain(|_, one| is_good(one));
        if let Some(one) = known.get(address) {
            return one.expansion.clone();
        }
        let shared = without_detail.and_then(|base| known.get(&base).filter(|one| is_of_no_name(one, &base)));
        if let Some(one) = shared {
            return one.expansion.clone();
        }
        drop(known);
        self.keep(router, address, expand)
    }

    fn keep(&self, router: &Router, address: &Address, expand: impl FnOnce() -> Expansion) -> Expansion {
        let (aliases, virtual_table, begun) =
            (router.aliases.current(), router.virtual_table.current(), Instant::now());
        let expansion = expand();
        if begun.elapsed() < SLOW {
            return expansion;
        }
        let whole = base(router, address, &aliases, &virtual_table).unwrap_or_else(|| address.clone());
        let one = CachedExpansion { expansion, aliases, virtual_table, until: Instant::now() + KEPT };
        let key = if is_of_no_name(&one, address) { whole } else { address.clone() };
        let expansion = one.expansion.clone();
        let mut known = self.lock();
        if known.len() < MOST || known.contains_key(&key) {
            known.insert(key, one);
        } else if let Some(oldest) = known.iter().min_by_key(|(_, one)| one.until).map(|(key, _)| key.clone()) {
            known.remove(&oldest);
            known.insert(key, one);
        }
        expansion
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Address, CachedExpansion>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The address without its detail, where it is only by that that anything is known of it.
fn base(router: &Router, address: &Address, aliases: &Aliases, virtual_table: &VirtualTable) -> Option<Address> {
    let (name, domain) = (lower(address.local()), address.domain());
    let base = router.without_detail(&name).filter(|_| router.is_local(domain))?;
    let is_known = virtual_table.find(&name, domain).is_ok_and(|found| found.is_some())
        || aliases.find(&name).is_ok_and(|found| found.is_some())
        || !matches!(router.users.mailbox(&name, domain), Ok(None));
    (!is_known).then(|| address.with_local(base))
}

/// Whether an expansion is the same for every detail: it names no recipient by the address
/// that was asked for.
fn is_of_no_name(one: &CachedExpansion, address: &Address) -> bool {
    match &one.expansion {
        Expansion::Finals(finals) => finals.iter().all(|to| {
            let is_plain = matches!(to.action, Action::Deliver | Action::Direct);
            is_plain && to.address != *address
        }),
        Expansion::Unknown | Expansion::Refused(..) | Expansion::Temporary(_) => true,
    }
}

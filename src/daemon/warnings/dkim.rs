//! Logs warnings about keys that sign mail and do not fit their DNS records.
//!
//! Only `-n` looks the records up: a start does not wait for the DNS, and a key may come into the
//! DNS at any time. The look-ups run side by side and all end within the same few seconds.

use std::thread;
use std::time::{Duration, Instant};

use crate::dns::Dns;
use crate::dns::lookup::Until;
use crate::mailauth::keys::published::Published;
use crate::site::Settings;

/// The time limit for all look-ups together, if `dns.timeout` is longer.
const LIMIT: Duration = Duration::from_secs(5);
/// The maximum number of keys that are looked up.
const MAX_KEYS: usize = 20;

/// Logs all warnings of this module.
pub fn log_all(settings: &Settings) {
    let keys = settings.keys.all();
    let dns = Dns::new(&settings.config.dns);
    let lookup = Until { dns: &dns, until: Instant::now() + settings.config.dns.timeout.min(LIMIT) };
    let found: Vec<Option<Published>> = thread::scope(|scope| {
        let one = |named| move || Published::of(&lookup, named);
        let threads: Vec<_> = keys.iter().take(MAX_KEYS).map(|named| scope.spawn(one(named))).collect();
        threads.into_iter().map(|thread| thread.join().ok()).collect()
    });
    for (named, found) in keys.iter().zip(found) {
        // A key that is only for tests is good for `penfoldctl dkim check`, but worth a warning
        // here.
        if let Some(found) = found.filter(|found| *found != Published::Good) {
            ::log::warn!("{}: {}: {found}", named.path().display(), named.dns_name());
        }
    }
    if keys.len() > MAX_KEYS {
        ::log::warn!("only the first {MAX_KEYS} of {} keys were looked up: see penfoldctl dkim check", keys.len());
    }
}

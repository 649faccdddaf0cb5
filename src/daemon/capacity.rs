//! Checks whether the system's limits allow as many connections as the configuration does.
//!
//! Logs a warning for each limit that is too low, because clients beyond that limit will get a
//! temporary error. Some limits hold for the whole system, so other processes use a part of them.
//! That part is unknown, and is not taken into account.

use crate::config::Config;
use crate::screen::background::{MAX_OF_SESSION, MAX_THREADS};
use crate::sys::{self, Limited};

/// The number of threads other than those of sessions, look-ups and workers, including a reserve.
const OTHER_THREADS: u64 = 32;
/// The number of descriptors for everything but sessions and workers: standard streams, listening
/// sockets, log, lock, name servers, and clients of the control socket.
const OTHER_DESCRIPTORS: u64 = 64;
/// The maximum number of descriptors of a worker: two for a message, one for the connection in use,
/// and one for the idle connection that the worker keeps.
const DESCRIPTORS_OF_WORKER: u64 = 4;
/// The number of memory mappings of a thread: its stack, its signal stack, and a guard for each.
const MAPPINGS_OF_THREAD: u64 = 4;
/// The number of memory mappings of the program, its libraries and the heap, including a reserve.
const OTHER_MAPPINGS: u64 = 256;

/// Warns of each system limit that has room for fewer sessions than `limits.connections`.
pub fn warn(config: &Config) {
    let wanted = config.limits.connections as u64;
    let (workers, filters) = (config.queue.workers as u64, config.filters.len() as u64);
    for limit in sys::limits() {
        let room = room(limit.of, limit.max, wanted, workers, filters);
        if room < wanted {
            let sys::Limit { name, max, .. } = limit;
            let at = config.places.at("limits.connections");
            ::log::warn!("{at}limits.connections is {wanted}, and {name} = {max} has room for {room}");
        }
    }
}

/// Returns the number of sessions that a system limit has room for, if `wanted` sessions may make
/// look-ups. A session needs a thread, and descriptors for its client and for its connection to
/// each filter. While it receives a message, a session needs one more descriptor. This additional
/// descriptor is not counted, because few sessions receive a message at the same time.
fn room(of: Limited, max: u64, wanted: u64, workers: u64, filters: u64) -> u64 {
    let lookups = (MAX_THREADS as u64).min(MAX_OF_SESSION as u64 * wanted);
    let threads = lookups + workers + OTHER_THREADS;
    match of {
        Limited::Descriptors => max.saturating_sub(OTHER_DESCRIPTORS + workers * DESCRIPTORS_OF_WORKER) / (1 + filters),
        Limited::Threads => max.saturating_sub(threads),
        Limited::Mappings => (max.saturating_sub(OTHER_MAPPINGS) / MAPPINGS_OF_THREAD).saturating_sub(threads),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_take_descriptors_of_each_session_and_look_ups_take_threads() {
        for (of, max, wanted, filters, want) in [
            (Limited::Descriptors, 10_104, 10_000, 0, 10_000),
            (Limited::Descriptors, 10_104, 10_000, 1, 5000),
            (Limited::Descriptors, 30_104, 10_000, 2, 10_000),
            (Limited::Descriptors, 30_103, 10_000, 2, 9999),
            (Limited::Descriptors, 100, 10_000, 2, 0),
            (Limited::Threads, 11_042, 10_000, 2, 10_000),
            (Limited::Threads, 11_041, 10_000, 2, 9999),
            (Limited::Threads, 542, 100, 0, 100),
            (Limited::Threads, 541, 100, 0, 99),
            (Limited::Threads, 300, 100, 0, 0),
            (Limited::Mappings, 44_424, 10_000, 2, 10_000),
        ] {
            assert_eq!(room(of, max, wanted, 10, filters), want, "{of:?} {max} {wanted} {filters}");
        }
    }
}

//! Whether the system's limits allow as many connections as the configuration does.
//!
//! Logs a warning for each limit that is too low: clients beyond it get a temporary error, and the
//! administrator should know beforehand. The part of a system-wide limit that other processes use
//! is unknown.

use crate::config::Config;
use crate::sys::{self, Limited};

/// The number of all other threads, with a reserve.
const OTHER_THREADS: u64 = 32;
/// The descriptors of standard files, sockets, log, lock, name servers, and clients of the control
/// socket.
const OTHER_DESCRIPTORS: u64 = 64;
/// The descriptors of a worker: a message, its copy, and a connection.
const DESCRIPTORS_OF_WORKER: u64 = 4;
/// The mappings of a thread: its stack, the signal stack, and a guard for each.
const MAPPINGS_OF_THREAD: u64 = 4;
/// The mappings of program, libraries and heap.
const OTHER_MAPPINGS: u64 = 256;

/// Warns of each limit that is lower than `limits.connections`.
pub fn warn(config: &Config) {
    let wanted = config.limits.connections as u64;
    for limit in sys::limits() {
        let room = room(limit.of, limit.max, config.queue.workers as u64);
        if room < wanted {
            let sys::Limit { name, max, .. } = limit;
            ::log::warn!("limits.connections is {wanted}, and {name} = {max} has room for {room}");
        }
    }
}

/// The number of sessions that a limit allows. A session has a thread and a descriptor, and a
/// second descriptor while it receives a message, which few do at once.
fn room(of: Limited, max: u64, workers: u64) -> u64 {
    let threads = workers + OTHER_THREADS;
    match of {
        Limited::Descriptors => max.saturating_sub(OTHER_DESCRIPTORS + workers * DESCRIPTORS_OF_WORKER),
        Limited::Threads => max.saturating_sub(threads),
        Limited::Mappings => (max.saturating_sub(OTHER_MAPPINGS) / MAPPINGS_OF_THREAD).saturating_sub(threads),
    }
}

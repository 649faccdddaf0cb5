//! Whether the system's limits allow as many connections as the configuration does.
//!
//! Logs a warning for each limit that is too low, since clients beyond it will get a temporary
//! error. How much of a system-wide limit other processes use is unknown, and not taken into
//! account.

use crate::config::Config;
use crate::sys::{self, Limited};

/// The number of threads other than sessions and workers, with a reserve.
const OTHER_THREADS: u64 = 32;
/// The number of descriptors for everything but sessions and workers: standard streams, listening
/// sockets, log, lock, name servers, and clients of the control socket.
const OTHER_DESCRIPTORS: u64 = 64;
/// The maximum number of descriptors of a worker: two for a message, one for the connection in use,
/// and one for the idle connection that the worker keeps.
const DESCRIPTORS_OF_WORKER: u64 = 4;
/// The number of memory mappings of a thread: its stack, its signal stack, and a guard for each.
const MAPPINGS_OF_THREAD: u64 = 4;
/// The number of memory mappings of program, libraries and heap, with a reserve.
const OTHER_MAPPINGS: u64 = 256;

/// Warns of each system limit that has room for fewer sessions than `limits.connections`.
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

/// The number of sessions that a system limit has room for. A session needs a thread and a
/// descriptor. It needs a second descriptor while it receives a message, which is not counted,
/// since few sessions receive one at the same time.
fn room(of: Limited, max: u64, workers: u64) -> u64 {
    let threads = workers + OTHER_THREADS;
    match of {
        Limited::Descriptors => max.saturating_sub(OTHER_DESCRIPTORS + workers * DESCRIPTORS_OF_WORKER),
        Limited::Threads => max.saturating_sub(threads),
        Limited::Mappings => (max.saturating_sub(OTHER_MAPPINGS) / MAPPINGS_OF_THREAD).saturating_sub(threads),
    }
}

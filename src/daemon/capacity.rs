//! Whether the system has room for as many connections as the configuration allows.
//!
//! Says so in the log where it has not, by the name of the limit: a client who finds
//! no room is told to come back, and that is easier to know beforehand. Nothing is
//! refused for it, and a limit of the whole system that others use up is not seen.

use crate::config::Config;
use crate::sys::{self, Good};

/// The most that all other threads and a little foresight take.
const THREADS_BESIDES: u64 = 32;
/// Standard files, sockets, log, lock, name servers, and whoever asks at the control socket.
const DESCRIPTORS_BESIDES: u64 = 64;
/// A message, its copy, and a connection.
const DESCRIPTORS_OF_A_WORKER: u64 = 4;
/// The stack, the one on which its overflow is noticed, and a guard for each.
const MAPPINGS_OF_A_THREAD: u64 = 4;
/// Programs, libraries, heaps.
const MAPPINGS_BESIDES: u64 = 256;

/// Warns of each limit that `limits.connections` is beyond.
pub fn warn(config: &Config) {
    let wanted = config.limits.connections as u64;
    for limit in sys::limits() {
        let room = room(limit.of, limit.most, config.queue.workers as u64);
        if room < wanted {
            let sys::Limit { name, most, .. } = limit;
            ::log::warn!("limits.connections is {wanted}, and {name} = {most} has room for {room}");
        }
    }
}

/// For how many sessions there is room. One has a thread and a descriptor, and a
/// second descriptor while it takes a message; few do that at once.
fn room(of: Good, most: u64, workers: u64) -> u64 {
    let threads = workers + THREADS_BESIDES;
    match of {
        Good::Descriptors => most.saturating_sub(DESCRIPTORS_BESIDES + workers * DESCRIPTORS_OF_A_WORKER),
        Good::Threads => most.saturating_sub(threads),
        Good::Mappings => (most.saturating_sub(MAPPINGS_BESIDES) / MAPPINGS_OF_A_THREAD).saturating_sub(threads),
    }
}

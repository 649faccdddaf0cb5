//! Many connections, long queues, and everything at once. The tests measure, so they run one at a
//! time.
//!
//! - `connections`: ten thousand sessions at once
//! - `scale`: long queues, many recipients, large messages
//! - `signatures`: DKIM: memory and time
//! - `soak`: everything at once and at random

mod connections;
mod scale;
#[cfg(feature = "mailauth")]
mod signatures;
mod soak;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Every test holds this lock while it runs, so that one test runs at a time. The tests measure the
/// memory of a daemon, and a second process of the same program would change it.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

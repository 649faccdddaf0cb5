//! Many connections, long queues, and everything at once. They measure, so they run one at a time.
//!
//! - `connections`: ten thousand sessions at once
//! - `scale`: long queues, many recipients, large messages
//! - `soak`: everything at once and at random

mod connections;
mod scale;
mod soak;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Held by each test while it runs: the memory of a daemon is measured, and a process that
/// shares its program changes that.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Ends the threads of a scope, also if the test fails.
//!
//! `std::thread::scope` waits for all its threads, even after a panic. A thread that runs until a flag
//! is set must therefore see it also if an assertion fails, or the test would never end.

use std::sync::atomic::{AtomicBool, Ordering};

/// Sets a flag when it is dropped. Make it in the scope, before the first thread.
pub struct Stop<'a>(pub &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

//! Keeps one copy in memory of each destination and each domain, however many jobs use it. The copy
//! is dropped with the last of these jobs.
//!
//! Equal values have the same pointer. So a search through the whole queue only compares pointers.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use super::shrink;

/// The values, each with the number of jobs that use it.
pub struct Interner<T: ?Sized>(HashMap<Arc<T>, u32>);

impl<T: ?Sized> Default for Interner<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: ?Sized + Eq + Hash> Interner<T> {
    /// Returns the shared copy of a value, and counts one more job that uses it.
    pub fn share(&mut self, value: impl Borrow<T> + Into<Arc<T>>) -> Arc<T> {
        let value = self.find(value.borrow()).unwrap_or_else(|| value.into());
        *self.0.entry(Arc::clone(&value)).or_default() += 1;
        value
    }

    /// Returns the number of different values.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Releases a value that [`Interner::share`] returned for a job.
    pub fn release(&mut self, value: &Arc<T>) {
        let Some(count) = self.0.get_mut(value) else { return };
        *count -= 1;
        if *count == 0 {
            self.0.remove(value);
            shrink(&mut self.0);
        }
    }

    /// Returns the shared copy of a value. Returns `None` if no job uses the value.
    pub fn find(&self, value: &T) -> Option<Arc<T>> {
        self.0.get_key_value(value).map(|(value, _)| Arc::clone(value))
    }
}

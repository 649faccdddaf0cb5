//! Interned values: each destination and each domain is in memory once, however many messages
//! wait for it, and is dropped with the last of them.
//!
//! Equal values have the same pointer, so that a search through the whole queue compares pointers
//! only.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use super::shrink;

/// Values, and how many jobs use each.
pub struct Interner<T: ?Sized>(HashMap<Arc<T>, u32>);

impl<T: ?Sized> Default for Interner<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: ?Sized + Eq + Hash> Interner<T> {
    /// The shared copy of a value, which one more job uses from now on.
    pub fn share(&mut self, value: impl Borrow<T> + Into<Arc<T>>) -> Arc<T> {
        let value = self.find(value.borrow()).unwrap_or_else(|| value.into());
        *self.0.entry(Arc::clone(&value)).or_default() += 1;
        value
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

    /// The shared copy of a value, if any job uses it.
    pub fn find(&self, value: &T) -> Option<Arc<T>> {
        self.0.get_key_value(value).map(|(value, _)| Arc::clone(value))
    }
}

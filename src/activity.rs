//! Records what each worker is doing at this moment, for the listings.
//!
//! A thread that delivers mail takes a slot with [`begin`]. The code that it runs calls [`enter`]
//! and [`at`], which do nothing in a thread without a slot. Another thread reads the slots with
//! [`of`]. The slots are shared by the whole process.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// What a worker is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activity {
    /// The stage of the attempt, in words that fit after "is", such as "connecting".
    pub stage: &'static str,
    /// The time since the stage began.
    pub since: Duration,
    /// The host or the mailbox that is being tried; empty if there is none yet.
    pub host: String,
}

#[derive(Debug)]
struct Current {
    /// Empty while the worker has no job.
    stage: &'static str,
    began: Instant,
    host: String,
}

type Slot = Mutex<Current>;

/// The slots of all workers, by their numbers.
static SLOTS: Mutex<Vec<Weak<Slot>>> = Mutex::new(Vec::new());

thread_local! {
    /// The slot of this thread.
    static MINE: RefCell<Option<Arc<Slot>>> = const { RefCell::new(None) };
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives this thread the slot of the worker with this number.
pub fn begin(number: usize) {
    let slot = Arc::new(Mutex::new(Current { stage: "", began: Instant::now(), host: String::new() }));
    let mut slots = lock(&SLOTS);
    if slots.len() <= number {
        slots.resize_with(number + 1, Weak::new);
    }
    slots[number] = Arc::downgrade(&slot);
    MINE.set(Some(slot));
}

/// Changes the slot of this thread, if it has one.
fn change(change: impl FnOnce(&mut Current)) {
    MINE.with_borrow(|mine| {
        if let Some(slot) = mine {
            change(&mut lock(slot));
        }
    });
}

/// Records the stage that this thread begins. To begin the current stage again changes nothing.
pub fn enter(stage: &'static str) {
    change(|current| {
        if current.stage != stage {
            (current.stage, current.began) = (stage, Instant::now());
        }
    });
}

/// Records the host or the mailbox that this thread tries from now on.
pub fn at(host: &dyn std::fmt::Display) {
    use std::fmt::Write;
    change(|current| {
        current.host.clear();
        // Writing to a string cannot fail.
        let _ = write!(current.host, "{host}");
    });
}

/// Records that this thread has nothing to do.
pub fn rest() {
    change(|current| {
        current.stage = "";
        current.host.clear();
    });
}

/// Returns what the worker with this number is doing; `None` if it has no job.
pub fn of(number: usize) -> Option<Activity> {
    let slot = lock(&SLOTS).get(number).and_then(Weak::upgrade)?;
    let current = lock(&slot);
    let Current { stage, began, host } = &*current;
    (!stage.is_empty()).then(|| Activity { stage, since: began.elapsed(), host: host.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_shows_the_stage_until_the_thread_rests_or_ends() {
        const NUMBER: usize = 4711;
        assert_eq!(of(NUMBER), None);
        std::thread::spawn(|| {
            begin(NUMBER);
            assert_eq!(of(NUMBER), None);
            enter("connecting");
            at(&"mx.example[192.0.2.1]:25");
            let first = of(NUMBER).expect("a stage");
            assert_eq!((first.stage, &*first.host), ("connecting", "mx.example[192.0.2.1]:25"));
            enter("connecting");
            assert!(of(NUMBER).expect("a stage").since >= first.since);
            enter("sending the message");
            assert_eq!(of(NUMBER).map(|activity| activity.stage), Some("sending the message"));
            rest();
            assert_eq!(of(NUMBER), None);
            enter("connecting");
        })
        .join()
        .expect("no panic");
        assert_eq!(of(NUMBER), None);
        // A thread without a slot.
        enter("connecting");
        at(&"x");
    }
}

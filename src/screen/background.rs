//! Runs blocking look-ups for a session, each on a thread of its own. So the session waits for the
//! slowest look-up, and not for one after another.
//!
//! The number of these threads is limited, because a name server that does not answer keeps them
//! busy for seconds. If no thread is left for a look-up, the session itself makes it when the
//! result is needed. The deadline of the look-up stays the same.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::Builder;
use std::time::{Duration, Instant};

/// How long a session waits for a look-up after its deadline. Look-ups end at the deadline by
/// themselves, but may be a little late.
const GRACE: Duration = Duration::from_millis(300);
/// The size of a thread's stack, in bytes.
const STACK: usize = 512 << 10;
/// The maximum number of look-up threads of all sessions together.
const MAX_THREADS: usize = 1000;

/// The number of look-up threads that are running now.
static THREADS: AtomicUsize = AtomicUsize::new(0);

/// The right to run one of the [`MAX_THREADS`] threads. It is given back when the value is dropped.
struct Slot;

impl Slot {
    fn take() -> Option<Self> {
        let slot = Self;
        (THREADS.fetch_add(1, Ordering::Relaxed) < MAX_THREADS).then_some(slot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        THREADS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A look-up under way, or its result.
pub struct Background<T> {
    state: State<T>,
}

enum State<T> {
    Running(Receiver<T>, Instant),
    /// No thread could be started, so the look-up is made when its result is needed.
    Waiting(Box<dyn FnOnce() -> T + Send>),
    Known(Option<T>),
}

impl<T: Send + 'static> Background<T> {
    /// Begins a look-up. `work` must end at `until`.
    pub fn begin<F>(until: Instant, work: F) -> Self
    where
        F: FnOnce() -> T + Send + Clone + 'static,
    {
        let Some(slot) = Slot::take() else { return Self { state: State::Waiting(Box::new(work)) } };
        let (sender, answer) = sync_channel(1);
        let run = work.clone();
        let thread = Builder::new().name("lookup".into()).stack_size(STACK);
        let started = thread.spawn(move || {
            let _slot = slot;
            // If the session has ended meanwhile, nobody receives the result.
            drop(sender.send(run()));
        });
        let state = match started {
            Ok(_) => State::Running(answer, until),
            Err(_) => State::Waiting(Box::new(work)),
        };
        Self { state }
    }

    /// Returns a look-up whose result is already known.
    pub fn known(result: T) -> Self {
        Self { state: State::Known(Some(result)) }
    }

    /// Returns whether [`Background::wait`] has found no result, or a result for which `is_bad`
    /// returns true.
    pub fn is_failed(&self, is_bad: impl FnOnce(&T) -> bool) -> bool {
        match &self.state {
            State::Known(result) => result.as_ref().is_none_or(is_bad),
            State::Running(..) | State::Waiting(_) => false,
        }
    }

    /// Waits for the result. Returns `None` if the look-up has not ended in time, or has panicked.
    pub fn wait(&mut self) -> Option<&T> {
        let result = match std::mem::replace(&mut self.state, State::Known(None)) {
            State::Running(answer, until) => {
                answer.recv_timeout((until + GRACE).saturating_duration_since(Instant::now())).ok()
            }
            State::Waiting(work) => Some(work()),
            State::Known(result) => result,
        };
        self.state = State::Known(result);
        match &self.state {
            State::Known(result) => result.as_ref(),
            _ => None,
        }
    }
}

impl<T> std::fmt::Debug for Background<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.state {
            State::Running(..) => "running",
            State::Waiting(_) => "waiting",
            State::Known(_) => "known",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A lock for the tests that count threads, so that no two of them run at the same time.
    static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

    #[test]
    fn a_look_up_beyond_the_limit_is_made_when_it_is_needed() {
        let _alone = ALONE.lock();
        let slots: Vec<_> = (0..MAX_THREADS).map_while(|_| Slot::take()).collect();
        let mut beyond = Background::begin(Instant::now(), || 7);
        assert_eq!(format!("{beyond:?}"), "waiting");
        drop(slots);
        assert_eq!(beyond.wait(), Some(&7));
        assert!(Slot::take().is_some(), "the places are free again");
    }

    #[test]
    fn look_ups_run_side_by_side_and_end_in_time() {
        let _alone = ALONE.lock();
        let begun = Instant::now();
        let until = begun + Duration::from_millis(700);
        let late = |milliseconds| move || std::thread::sleep(Duration::from_millis(milliseconds));
        let mut all = [400, 500, 3000].map(|time| Background::begin(until, late(time)));
        let ended = all.each_mut().map(|one| one.wait().is_some());
        assert_eq!(ended, [true, true, false]);
        assert!(begun.elapsed() < Duration::from_millis(2000), "{:?}", begun.elapsed());
        assert_eq!(all.each_mut().map(|one| one.wait().is_some()), ended, "the results are kept");
    }
}

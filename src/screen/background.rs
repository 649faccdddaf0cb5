//! Runs blocking look-ups for a session, each on a thread of its own. So the session waits for the
//! slowest look-up, and not for one after another.

use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::Builder;
use std::time::{Duration, Instant};

/// How long a session waits for a look-up after its deadline. Look-ups end at the deadline by
/// themselves, but may be a little late.
const GRACE: Duration = Duration::from_millis(300);
/// The size of a thread's stack, in bytes.
const STACK: usize = 512 << 10;

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
        let (sender, answer) = sync_channel(1);
        let run = work.clone();
        let thread = Builder::new().name("lookup".into()).stack_size(STACK);
        // If the session has ended meanwhile, nobody receives the result.
        let started = thread.spawn(move || drop(sender.send(run())));
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

    #[test]
    fn look_ups_run_side_by_side_and_end_in_time() {
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

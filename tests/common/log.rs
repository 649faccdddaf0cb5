//! The log of a daemon, which is a pipe from its standard error. A thread follows it, so that the pipe
//! is never full; who looks at the log reads first what the thread has not read yet.

use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;
use std::process::ChildStderr;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

pub struct Log {
    state: Mutex<State>,
    grown: Condvar,
    /// The same pipe as in the state.
    pipe: std::os::fd::OwnedFd,
}

pub struct State {
    pipe: ChildStderr,
    pub lines: Vec<String>,
    /// The octets of a line whose end was not read yet.
    rest: Vec<u8>,
    pub ended: bool,
}

impl Log {
    pub fn new(pipe: ChildStderr) -> Self {
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("a pipe");
        let again = pipe.as_fd().try_clone_to_owned().expect("a descriptor");
        let state = State { pipe, lines: Vec::new(), rest: Vec::new(), ended: false };
        Self { state: Mutex::new(state), grown: Condvar::new(), pipe: again }
    }

    /// Reads until the end.
    pub fn follow(&self) {
        while !self.now().ended {
            self.grown.notify_all();
            let _ = poll(&mut [PollFd::new(self.pipe.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE);
        }
        self.grown.notify_all();
    }

    /// What the daemon has written up to now.
    pub fn now(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        state.read();
        state
    }

    /// What was read up to now.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for more, at most for an interval.
    pub fn wait(&self, interval: Duration) {
        drop(self.grown.wait_timeout(self.lock(), interval));
    }

    /// Waits for the end of the log, or for the timeout.
    pub fn wait_end(&self, timeout: Duration) -> MutexGuard<'_, State> {
        let end = Instant::now() + timeout;
        let mut state = self.lock();
        while !state.ended && Instant::now() < end {
            let left = end.saturating_duration_since(Instant::now());
            state = self.grown.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state
    }
}

impl State {
    fn read(&mut self) {
        let mut buffer = [0; 8192];
        while !self.ended {
            match self.pipe.read(&mut buffer) {
                Ok(0) => self.ended = true,
                Ok(count) => self.rest.extend_from_slice(&buffer[..count]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.ended = true,
            }
        }
        let complete = if self.ended {
            self.rest.len()
        } else {
            self.rest.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1)
        };
        let text: Vec<u8> = self.rest.drain(..complete).collect();
        let lines = text.split_inclusive(|&b| b == b'\n').map(|line| line.strip_suffix(b"\n").unwrap_or(line));
        self.lines.extend(lines.map(|line| String::from_utf8_lossy(line).into_owned()));
    }
}

//! Fetches policies while no worker waits for them.
//!
//! A thread starts when there is something to fetch, and ends when there is nothing more. At most
//! [`MAX_THREADS`] run at the same time, so that a host that does not answer delays the others only a
//! little. A domain that does not fit into the queue is left out: the next attempt to deliver to it
//! asks again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Inner;
use crate::sys;
use crate::tls::Client;

/// The maximum number of threads.
const MAX_THREADS: usize = 4;
/// The maximum number of domains that wait.
const MAX_WAITING: usize = 1000;

#[derive(Debug, Default)]
pub(super) struct Background {
    state: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    domains: VecDeque<Box<str>>,
    /// The TLS settings of the last caller.
    tls: Client,
    threads: usize,
}

impl Background {
    /// Has the policy of a domain fetched.
    pub(super) fn add(inner: &Arc<Inner>, domain: &str, tls: &Client) {
        let mut state = inner.background.lock();
        if state.domains.len() >= MAX_WAITING || state.domains.iter().any(|waiting| **waiting == *domain) {
            return;
        }
        state.domains.push_back(domain.into());
        state.tls = tls.clone();
        if state.threads >= MAX_THREADS {
            return;
        }
        let shared = Arc::clone(inner);
        let thread = std::thread::Builder::new().name("mta-sts".into());
        match thread.spawn(move || work(&shared)) {
            Ok(_) => state.threads += 1,
            // A thread that runs already, or a later attempt, fetches the policy.
            Err(error) => ::log::debug!("MTA-STS: no thread: {error}"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Fetches until nothing is left to fetch.
fn work(inner: &Arc<Inner>) {
    // Counts the thread as ended, even if it panics.
    struct Running<'a>(&'a Background, bool);
    impl Drop for Running<'_> {
        fn drop(&mut self) {
            if !self.1 {
                self.0.lock().threads -= 1;
            }
        }
    }
    let mut running = Running(&inner.background, false);
    loop {
        let (domain, tls) = {
            let mut state = inner.background.lock();
            let Some(domain) = state.domains.pop_front() else {
                // Under the same lock, so that no domain is added to a queue that nobody reads.
                state.threads -= 1;
                running.1 = true;
                return;
            };
            (domain, state.tls.clone())
        };
        if let Ok(Some(id)) = inner.id(&domain, sys::now()) {
            inner.fetch(&domain, &id, &tls, None);
        }
    }
}

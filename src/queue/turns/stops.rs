//! Destinations that may start no job for some time: those that are parked, and those that are paced.
//! Also does what is due by the clock.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::destination_state::Paced;
use super::super::pool::Class;
use super::{SLOW_HOST, SLOW_USER, Started, Turns};
use crate::destination::Destination;
use crate::endpoint::Endpoint;

/// The maximum time for which a destination is parked. The limit is necessary because the queue
/// gets no event when an idle connection ends.
const MAX_PARKED: Duration = Duration::from_secs(1);

impl Turns {
    /// Whether the limits of a destination let no job start now. If so, the destination is paced until
    /// one can start. A job that is deferred without an attempt can start always.
    pub(super) fn is_paced(&mut self, destination: &Arc<Destination>, class: Class, now: Instant) -> bool {
        let Some(state) = self.known.get_mut(destination).filter(|_| class != Class::Defer) else { return false };
        if state.paced.is_none() {
            let limits = state.set_limits((self.limits)(destination));
            let Some(wait) = self.paces.wait(destination, &limits, now) else { return false };
            let check = self.paces.pace(destination, wait, now);
            state.paced = Some(Box::new(Paced { check, next: now + wait.time, reason: wait.reason }));
            self.count_ready(destination);
        }
        true
    }

    /// Lets an attempt not count that was put off before a host has seen the message.
    pub(super) fn take_back(&mut self, destination: &Arc<Destination>, started: &Started) {
        self.paces.take_back(destination, started.since);
        // The destination may be paced because of that attempt.
        let Some(paced) = self.known.get_mut(destination).and_then(|state| state.paced.take()) else { return };
        self.paces.release(destination, paced.check);
        self.is_paced(destination, started.class, Instant::now());
    }

    /// Returns how long no job of a destination can start, and the limit; `None` if the destination is
    /// not paced.
    pub fn paced(&self, destination: &Arc<Destination>) -> Option<Paced> {
        self.known.get(destination)?.paced.as_deref().copied()
    }

    pub(super) fn park(&mut self, destination: &Arc<Destination>, address: Endpoint) {
        let Some(state) = self.known.get_mut(destination) else { return };
        if !std::mem::replace(&mut state.is_parked, true) {
            self.parked.entry(address).or_default().push_back(Arc::clone(destination));
            self.parked_since.get_or_insert_with(Instant::now);
        }
    }

    pub(super) fn release_parked(&mut self, address: &Endpoint, count: usize) {
        let Some(waiting) = self.parked.get_mut(address) else { return };
        let released: Vec<Arc<Destination>> = waiting.drain(..count.min(waiting.len())).collect();
        if waiting.is_empty() {
            self.parked.remove(address);
        }
        for destination in released {
            if let Some(state) = self.known.get_mut(&destination) {
                state.is_parked = false;
            }
            self.offer_turn(&destination);
            self.drop_idle(&destination);
        }
        if self.parked.is_empty() {
            self.parked_since = None;
        }
    }

    /// Does what is due by the clock: the destinations of jobs that run too long become slow, and
    /// parked and paced destinations may try again.
    pub fn note_time(&mut self) {
        let now = Instant::now();
        while let Some(destination) = self.paces.take_due(now) {
            // The state may be gone, or newer than the time.
            let state = self.known.get_mut(&destination);
            if let Some(state) = state.filter(|state| state.paced.as_ref().is_some_and(|paced| paced.check <= now)) {
                state.paced = None;
                self.offer_turn(&destination);
                self.drop_idle(&destination);
            }
        }
        for (kind, limit) in [SLOW_HOST, SLOW_USER].into_iter().enumerate() {
            while self.watched[kind].front().is_some_and(|(since, _)| since.elapsed() >= limit)
                && let Some((_, number)) = self.watched[kind].pop_front()
            {
                let Some(started) = self.started.get(&number) else { continue };
                if started.since.elapsed() < started.slow_after {
                    self.watched[kind].push_back((Instant::now(), number));
                    continue;
                }
                let destination = Arc::clone(&started.destination);
                if let Some(state) = self.known.get_mut(&destination) {
                    state.health.slow_down();
                }
                self.reclass(&destination);
                self.offer_turn(&destination);
            }
        }
        if self.parked_since.is_some_and(|since| since.elapsed() >= MAX_PARKED) {
            let addresses: Vec<Endpoint> = self.parked.keys().cloned().collect();
            addresses.iter().for_each(|address| self.release_parked(address, 1));
            self.parked_since = (!self.parked.is_empty()).then(Instant::now);
        }
    }

    /// Returns the time until [`Turns::note_time`] next has something to do. Returns `None` if it
    /// has nothing to do.
    pub fn next_note(&mut self) -> Option<Duration> {
        // Jobs that have ended are removed from the front of the lists.
        for watched in &mut self.watched {
            while watched.front().is_some_and(|(_, number)| !self.started.contains_key(number)) {
                watched.pop_front();
            }
        }
        let slow = self.watched.iter().zip([SLOW_HOST, SLOW_USER]);
        let slow = slow.filter_map(|(watched, limit)| Some(limit.saturating_sub(watched.front()?.0.elapsed())));
        let parked = self.parked_since.map(|since| MAX_PARKED.saturating_sub(since.elapsed()));
        slow.chain(parked).chain(self.paces.next_due(Instant::now())).min()
    }
}

//! Makes jobs ready when their time has come: waiting jobs for their next attempt, and held jobs
//! when their message may be delivered (FUTURERELEASE, RFC 4865).
//!
//! Both kinds have a list of their own, because a waiting job is due at once if its time is very far
//! away (see [`Schedule::wait`](crate::retry::Schedule::wait)), while a held job waits up to
//! [`MAX_HOLD`](crate::retry::MAX_HOLD). A flush has no effect on held jobs.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use super::item::{Item, ItemJob, JobState};
use super::pace::Wait;
use super::turns::JobRef;
use super::{MAX_SLEEP, MIN_CAPACITY, Queue, destination_of};
use crate::log;
use crate::retry;
use crate::spool::QueueId;
use crate::sys;

/// The minimum time for which the limits of a destination delay a job before that is logged.
const MIN_LOGGED: Duration = Duration::from_secs(1);

/// A time in seconds since 1970, an entry and the job's index for each job of a list, the earliest
/// time first. If a job no longer waits until the time in an element, the element is outdated.
pub type Times = BinaryHeap<Reverse<(u64, QueueId, u32)>>;

impl Queue {
    /// Makes the due jobs ready.
    pub(super) fn make_due_ready(&mut self) {
        let now = sys::now();
        while let Some(&Reverse((due, id, index))) = self.due.peek() {
            if !self.settings.schedule.wait(due, now).is_zero() {
                break;
            }
            self.due.pop();
            // A flush or a new plan may have changed the job's time since the element was added.
            if waits_until(&self.items, (id, index as usize)) == Some(due) {
                self.make_ready((id, index as usize));
            }
        }
        while let Some(&Reverse((release, id, index))) = self.held.peek() {
            if !retry::wait_for_release(release, now).is_zero() {
                break;
            }
            self.held.pop();
            if held_until(&self.items, (id, index as usize)) == Some(release) {
                self.make_ready((id, index as usize));
            }
        }
        // Every flush leaves outdated elements behind, which are removed when they are the
        // majority.
        let max = 2 * self.jobs + MIN_CAPACITY;
        let items = &self.items;
        for (list, time_of) in [(&mut self.due, waits_until as TimeOf), (&mut self.held, held_until)] {
            if list.len() > max {
                list.retain(|Reverse((time, id, index))| time_of(items, (*id, *index as usize)) == Some(*time));
                list.shrink_to(self.jobs);
            }
        }
    }

    /// Returns the time until a job is due; `None` if no job waits or is held. The time is limited,
    /// so that the queue notices when the clock is changed.
    pub(super) fn next_due(&self) -> Option<Duration> {
        let now = sys::now();
        let due = self.due.peek().map(|Reverse((due, ..))| self.settings.schedule.wait(*due, now));
        let released = self.held.peek().map(|Reverse((release, ..))| retry::wait_for_release(*release, now));
        due.into_iter().chain(released).min().map(|wait| wait.min(MAX_SLEEP))
    }

    /// Makes a job ready. If the limits of its destination delay it, that is logged.
    pub(super) fn make_ready(&mut self, job: JobRef) {
        let Some(wait) = self.add_ready(job).filter(|wait| wait.time >= MIN_LOGGED) else { return };
        if let Some(destination) = destination_of(&self.items, job) {
            let next = sys::now().saturating_add(wait.time.as_secs());
            log::paced(&job.0, &destination.listed_name(), &wait.reason, next);
        }
    }

    /// Makes a job ready. If the limits of its destination delay it, returns for how long.
    pub(super) fn add_ready(&mut self, job: JobRef) -> Option<Wait> {
        let item = self.items.get_mut(&job.0)?;
        item.set(job.1, JobState::Ready);
        let item_job = item.jobs().get(job.1)?;
        let wait = self.turns.add(&item_job.destination, job, (item.sender, item.priority));
        self.turns.note_domains(&item_job.destination, item_job.domains.as_slice());
        wait
    }
}

type TimeOf = fn(&HashMap<QueueId, Box<Item>>, JobRef) -> Option<u64>;

/// Returns the time of a waiting job's next attempt.
pub fn waits_until(items: &HashMap<QueueId, Box<Item>>, (id, index): JobRef) -> Option<u64> {
    items.get(&id)?.jobs().get(index).and_then(ItemJob::due)
}

fn held_until(items: &HashMap<QueueId, Box<Item>>, (id, index): JobRef) -> Option<u64> {
    items.get(&id)?.jobs().get(index).and_then(ItemJob::held_until)
}

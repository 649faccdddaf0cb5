//! Counts the messages in the queue, for statistics.
//!
//! A count reads the ids of all messages. Of a long queue, it reads the messages themselves only in
//! part, and estimates the numbers by destination, so that the queue's thread is never busy for more
//! than some hundredths of a second.

use std::collections::HashMap;
use std::sync::Arc;

use super::item::{Item, JobState};
use super::{Queue, QueueId};
use crate::destination::Destination;
use crate::stats::{Census, Load, age_column};
use crate::sys;

/// The number of messages that are read.
const MAX_READ: usize = 50_000;

impl Queue {
    /// Counts the messages.
    pub(super) fn census(&self) -> Census {
        self.count(sys::now(), MAX_READ)
    }

    fn count(&self, now: u64, max_read: usize) -> Census {
        let step = self.items.len().div_ceil(max_read).max(1);
        let mut census = Census {
            messages: self.items.len(),
            jobs: self.jobs,
            running: self.running.len(),
            all_destinations: self.destinations.count(),
            is_estimate: step > 1,
            ..Census::default()
        };
        let mut by_destination: HashMap<&Arc<Destination>, Load> = HashMap::new();
        for (at, (id, item)) in self.items.iter().enumerate() {
            let age = now.saturating_sub(id.seconds());
            census.oldest = census.oldest.max(age);
            if let Some(count) = census.ages.get_mut(age_column(age)) {
                *count += 1;
            }
            if at % step == 0 {
                read(*id, item, (age, step), &mut census, &mut by_destination);
            }
        }
        let mut loads: Vec<_> = by_destination.into_iter().collect();
        loads.sort_unstable_by_key(|(_, load)| std::cmp::Reverse(load.jobs));
        loads.truncate(Census::MAX);
        let named = |(destination, load): (&Arc<Destination>, Load)| Load { name: destination.listed_name(), ..load };
        census.destinations = loads.into_iter().map(named).collect();
        census
    }
}

/// Adds the jobs of one message, of which each stands for `step` jobs.
fn read<'a>(
    id: QueueId,
    item: &'a Item,
    (age, step): (u64, usize),
    census: &mut Census,
    by_destination: &mut HashMap<&'a Arc<Destination>, Load>,
) {
    census.octets += item.entry(id).size * step as u64;
    for job in item.jobs() {
        match job.state() {
            JobState::Waiting => census.waiting += step,
            JobState::Held => census.until += step,
            JobState::Ready => census.ready += step,
            JobState::Running => {}
            JobState::Settled => continue,
        }
        let load = by_destination.entry(&job.destination).or_default();
        load.jobs += step;
        load.running += usize::from(job.state() == JobState::Running);
        load.oldest = load.oldest.max(age);
        if let Some(count) = load.ages.get_mut(age_column(age)) {
            *count += step;
        }
    }
}

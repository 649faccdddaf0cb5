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
const MAX_READ: usize = 20_000;

/// The jobs of each destination. Equal destinations in the queue have the same pointer, which is much
/// faster to look up than the destination.
type Loads<'a> = HashMap<*const Destination, (&'a Arc<Destination>, Load)>;

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
        let mut by_destination = Loads::new();
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
        let mut loads: Vec<_> = by_destination.into_values().collect();
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
    by_destination: &mut Loads<'a>,
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
        let (_, load) =
            by_destination.entry(Arc::as_ptr(&job.destination)).or_insert_with(|| (&job.destination, Load::default()));
        load.jobs += step;
        load.running += usize::from(job.state() == JobState::Running);
        load.oldest = load.oldest.max(age);
        if let Some(count) = load.ages.get_mut(age_column(age)) {
            *count += step;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use crossbeam_channel::unbounded;

    use super::*;
    use crate::outgoing::Limits;
    use crate::queue::{Plan, Planned, QueueSettings, SpoolTasks, Workers};
    use crate::retry::Schedule;
    use crate::spool::{EntryName, Kind, Place, RecipientRef};
    use crate::stats::AGES;
    use crate::timeouts::HostTimeouts;

    const NOW: u64 = 1_900_000_000;

    /// A queue in which two of three messages are for big.test and ten seconds old. The others have a
    /// destination each, and are two days old.
    fn queue(messages: u32) -> Queue {
        let second = Duration::from_secs(1);
        let tasks = SpoolTasks {
            load: Box::new(|_, _| None),
            choose: Box::new(|first, _| first),
            finish: Box::new(|_| true),
            limits: Arc::new(|_| Limits::default()),
            clear_failures: Box::new(|| ()),
        };
        let schedule = Schedule { min: second, max: second, expire_after: second };
        let settings = QueueSettings { schedule, per_destination: 1 };
        let mut queue = Queue::new(settings, unbounded().1, Workers::none(), tasks, Arc::new(HostTimeouts::default()));
        let origin = QueueId::parse("1K0TVZ6PH81DZ9JHPQF").expect("an id");
        for number in 0..messages {
            let is_big = number % 3 > 0;
            let (domain, age) = if is_big { ("big.test".to_owned(), 10) } else { (format!("d{number}.test"), 172_800) };
            let id = origin.derive(Kind::Report, number as usize, NOW - age);
            let mut plan = Plan::new(EntryName { id, size: 1000, place: Place::Cur });
            let recipients = vec![RecipientRef { number: 0, offset: 0 }];
            plan.jobs.push(Planned {
                destination: Destination::mx(&domain),
                recipients,
                domains: vec![],
                last: Some(0),
            });
            queue.insert(plan);
        }
        queue
    }

    #[test]
    fn a_long_queue_is_counted_in_part() {
        let queue = queue(3000);
        let exact = queue.count(NOW, 3000);
        let ages = |new, old| {
            let mut ages = [0; AGES.len()];
            (ages[0], ages[AGES.len() - 1]) = (new, old);
            ages
        };
        let big = Load { name: "big.test".into(), jobs: 2000, running: 0, ages: ages(2000, 0), oldest: 10 };
        let numbers = (exact.messages, exact.octets, exact.jobs, exact.waiting, exact.all_destinations);
        assert_eq!(numbers, (3000, 3_000_000, 3000, 3000, 1001));
        assert_eq!((exact.ages, exact.oldest, exact.is_estimate), (ages(2000, 1000), 172_800, false));
        assert_eq!((exact.destinations.len(), &exact.destinations[0]), (Census::MAX, &big));
        assert_eq!(exact.destinations[1].ages, ages(0, 1));
        let estimate = queue.count(NOW, 300);
        assert_eq!((estimate.messages, estimate.ages, estimate.octets), (3000, exact.ages, 3_000_000));
        assert!(estimate.is_estimate && estimate.destinations[0].name == "big.test");
        assert!((1500..2500).contains(&estimate.destinations[0].jobs), "{:?}", estimate.destinations[0]);
    }

    /// Prints how long the count of a million messages takes; run it with an optimized build.
    #[test]
    #[ignore = "a measurement"]
    fn a_million_messages_are_counted() {
        let queue = queue(1_000_000);
        let began = Instant::now();
        let census = queue.census();
        println!("{} messages in {:?}", census.messages, began.elapsed());
    }
}

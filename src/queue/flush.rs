//! Lets an administrator have waiting jobs tried at once.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::event::Selector;
use super::item::{Item, ItemJob, JobState};
use super::turns::JobRef;
use super::{Queue, destination_of};
use crate::destination::Destination;
use crate::spool::QueueId;

/// The time for which ETRN has the jobs of one selector tried at most once.
const ETRN_INTERVAL: Duration = Duration::from_secs(60);
/// The maximum number of selectors for which ETRN has jobs tried in that time.
const MAX_ASKED: usize = 1000;

/// The jobs that a selector matches.
#[derive(Default)]
struct Selected {
    /// Waiting jobs with the time of their next attempt.
    waiting: Vec<(u64, JobRef)>,
    /// Jobs that are ready or running.
    active: Vec<JobRef>,
}

impl Selected {
    fn add(&mut self, id: QueueId, item: &Item, is_selected: impl Fn(&ItemJob) -> bool) {
        for (index, job) in item.jobs().iter().enumerate().filter(|(_, job)| is_selected(job)) {
            match (job.state(), job.due()) {
                (_, Some(due)) => self.waiting.push((due, (id, index))),
                // A held message must not be tried before its time.
                (JobState::Settled | JobState::Held, None) => {}
                (_, None) => self.active.push((id, index)),
            }
        }
    }
}

impl Queue {
    /// Makes the waiting jobs among the selected ones ready, in the order in which they would have
    /// become due. Returns the number of selected jobs, including those that were ready or running
    /// already.
    pub(super) fn flush(&mut self, selector: &Selector) -> usize {
        let Selected { mut waiting, active } = self.select(selector);
        let count = waiting.len() + active.len();
        if *selector != Selector::Waiting {
            // An attempt that is running may have begun before the administrator removed the cause
            // of a failure. So the job gets another attempt afterwards.
            for (id, index) in active {
                let job = self.items.get_mut(&id).and_then(|item| item.jobs_mut().get_mut(index));
                if let Some(job) = job {
                    job.again = job.state() == JobState::Running;
                }
            }
        }
        waiting.sort_unstable();
        let destinations: HashSet<Arc<Destination>> =
            waiting.iter().filter_map(|&(_, job)| destination_of(&self.items, job)).collect();
        destinations.iter().for_each(|destination| self.turns.clear_failures(destination));
        // Without jobs, no client may use ETRN to have hosts tried that are down.
        if count > 0 || matches!(selector, Selector::All | Selector::Waiting) {
            (self.tasks.clear_failures)();
        }
        waiting.into_iter().for_each(|(_, job)| self.make_ready(job));
        count
    }

    /// Like [`Queue::flush`], but only if a client has not had the same jobs tried within
    /// [`ETRN_INTERVAL`]. Returns the number of selected jobs in any case.
    pub(super) fn flush_for_client(&mut self, selector: Selector) -> usize {
        self.asked.retain(|_, asked| asked.elapsed() < ETRN_INTERVAL);
        if self.asked.contains_key(&selector) || self.asked.len() >= MAX_ASKED {
            let Selected { waiting, active } = self.select(&selector);
            return waiting.len() + active.len();
        }
        let count = self.flush(&selector);
        if count > 0 {
            self.asked.insert(selector, Instant::now());
        }
        count
    }

    fn select(&self, selector: &Selector) -> Selected {
        let mut selected = Selected::default();
        match selector {
            Selector::All | Selector::Waiting => {
                self.items.iter().for_each(|(id, item)| selected.add(*id, item, |_| true));
            }
            Selector::Message(id) => {
                if let Some(item) = self.items.get(id) {
                    selected.add(*id, item, |_| true);
                }
            }
            Selector::Domain(domain) => {
                let (mx, domain) = (self.destinations.find(&Destination::mx(domain)), self.domains.find(domain));
                // Destinations and domains are interned: equal values have the same pointer.
                let is_mx = |job: &ItemJob| mx.as_ref().is_some_and(|mx| Arc::ptr_eq(mx, &job.destination));
                let has_domain = |job: &ItemJob| {
                    domain
                        .as_ref()
                        .is_some_and(|domain| job.domains.as_slice().iter().any(|other| Arc::ptr_eq(domain, other)))
                };
                if mx.is_some() || domain.is_some() {
                    let items = self.items.iter();
                    items.for_each(|(id, item)| selected.add(*id, item, |job| is_mx(job) || has_domain(job)));
                }
            }
            Selector::DomainAndBelow(domain) => {
                let is_it = |name: &str| {
                    name.strip_suffix(domain.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
                };
                let is_selected = |job: &ItemJob| {
                    job.destination.mx_domain().is_some_and(is_it)
                        || job.domains.as_slice().iter().any(|domain| is_it(domain))
                };
                self.items.iter().for_each(|(id, item)| selected.add(*id, item, is_selected));
            }
        }
        selected
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use crossbeam_channel::unbounded;

    use super::*;
    use crate::outgoing::Limits;
    use crate::queue::{QueueSettings, SpoolTasks, Workers};
    use crate::retry::Schedule;
    use crate::timeouts::HostTimeouts;

    #[test]
    fn asking_for_mail_that_does_not_exist_clears_no_failures() {
        let cleared = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&cleared);
        let second = Duration::from_secs(1);
        let settings =
            QueueSettings { schedule: Schedule { min: second, max: second, expire_after: second }, per_destination: 1 };
        let tasks = SpoolTasks {
            load: Box::new(|_, _| None),
            choose: Box::new(|first, _| first),
            finish: Box::new(|_| true),
            limits: Arc::new(|_| Limits::default()),
            clear_failures: Box::new(move || _ = counter.fetch_add(1, Ordering::Relaxed)),
        };
        let mut queue = Queue::new(settings, unbounded().1, Workers::none(), tasks, Arc::new(HostTimeouts::default()));
        assert_eq!(queue.flush_for_client(Selector::Domain("x.test".into())), 0);
        assert_eq!(queue.flush(&Selector::DomainAndBelow("x.test".into())), 0);
        assert_eq!(cleared.load(Ordering::Relaxed), 0);
        // The administrator may know more about hosts than the queue.
        queue.flush(&Selector::All);
        assert_eq!(cleared.load(Ordering::Relaxed), 1);
    }
}

//! One entry as the queue keeps it: what is waited for, in as little as can be.
//!
//! A million messages may wait, nearly all of them with one recipient: an [`Item`]
//! of one job with one recipient is one piece of memory. An entry with many jobs
//! keeps count of them, so that no step looks at all of them. Nothing here knows
//! what the time is, or what a worker does.

use std::collections::HashMap;
use std::sync::Arc;

use crate::destination::Destination;
use crate::outcome::Outcome;
use crate::spool::{EntryName, Place, QueueId, RecipientRef};

/// One entry; its id is where it is kept.
pub struct Item {
    size: u64,
    place: Place,
    /// A number that stands for the sender.
    pub sender: u32,
    /// Whether it must be synced before it is acted on.
    pub unsynced: bool,
    /// What is to come when none of its jobs runs any more.
    pub end: ItemEnd,
    jobs: Jobs,
}

const _: () = assert!(size_of::<Item>() <= 80);

/// What is to come when nothing of an entry runs any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ItemEnd {
    /// Nothing before all jobs are settled; then the entry is removed.
    Finish,
    /// It is planned anew.
    Stale,
    /// It is forgotten.
    Vanished,
}

/// What most have one of, and takes no more room than that one.
pub enum Few<T> {
    /// Just one.
    One(T),
    /// Any other number; nothing is kept of none.
    Many(Option<Box<More<T>>>),
}

/// The other numbers.
pub struct More<T>(Box<[T]>);

enum Jobs {
    One(ItemJob),
    Many(Box<ManyJobs>),
}

struct ManyJobs {
    list: Vec<ItemJob>,
    /// Those not settled, and of them those running.
    open: usize,
    running: usize,
}

/// One destination of an entry.
pub struct ItemJob {
    /// The destination.
    pub destination: Arc<Destination>,
    /// The recipients.
    pub spots: Few<RecipientRef>,
    /// The domains for which it is asked, unless `destination` names the only one.
    pub domains: Few<Arc<str>>,
    /// Outcomes that could not be written down.
    pub unrecorded: Option<Box<Unrecorded>>,
    /// When it is due, while it waits.
    due: u64,
    state: JobState,
    /// It is to be tried once more as soon as the attempt that runs has ended.
    pub again: bool,
}

/// Outcomes by the recipient's number.
#[derive(Debug, Default)]
pub struct Unrecorded(pub Vec<(u32, Outcome)>);

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    /// For its time.
    Waiting,
    /// For a worker.
    Ready,
    /// At a worker.
    Running,
    /// Nothing is left to do.
    Settled,
}

impl<T> Few<T> {
    /// What there is.
    pub fn as_slice(&self) -> &[T] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many.as_ref().map_or(&[], |many| &many.0),
        }
    }
}

impl<T> From<Vec<T>> for Few<T> {
    fn from(mut list: Vec<T>) -> Self {
        match (list.len(), list.pop()) {
            (_, None) => Self::Many(None),
            (1, Some(one)) => Self::One(one),
            (_, Some(last)) => {
                list.push(last);
                Self::Many(Some(Box::new(More(list.into()))))
            }
        }
    }
}

impl ItemJob {
    /// A job that waits.
    pub fn new(destination: Arc<Destination>, spots: Vec<RecipientRef>, domains: Vec<Arc<str>>, due: u64) -> Self {
        Self {
            destination,
            spots: spots.into(),
            domains: domains.into(),
            unrecorded: None,
            due,
            state: JobState::Waiting,
            again: false,
        }
    }

    /// How far it is.
    pub fn state(&self) -> JobState {
        self.state
    }

    /// When it is due, if it waits.
    pub fn due(&self) -> Option<u64> {
        (self.state == JobState::Waiting).then_some(self.due)
    }

    /// Owes outcomes, or no more.
    pub fn set_unrecorded(&mut self, unrecorded: Vec<(u32, Outcome)>) {
        self.unrecorded = if unrecorded.is_empty() { None } else { Some(Box::new(Unrecorded(unrecorded))) };
    }

    /// What it unrecorded.
    pub fn take_unrecorded(&mut self) -> Vec<(u32, Outcome)> {
        self.unrecorded.take().map(|unrecorded| unrecorded.0).unwrap_or_default()
    }
}

impl Item {
    /// An entry and its jobs, all of which wait.
    pub fn new(entry: EntryName, (unsynced, sender): (bool, u32), mut list: Vec<ItemJob>) -> Self {
        let jobs = match (list.len(), list.pop()) {
            (1, Some(one)) => Jobs::One(one),
            (open, last) => {
                list.extend(last);
                Jobs::Many(Box::new(ManyJobs { list, open, running: 0 }))
            }
        };
        Self { size: entry.size, place: entry.place, sender, unsynced, end: ItemEnd::Finish, jobs }
    }

    /// The entry with this id, where it was last seen.
    pub fn entry(&self, id: QueueId) -> EntryName {
        EntryName { id, size: self.size, place: self.place }
    }

    /// It was seen elsewhere, or is another file now.
    pub fn follow(&mut self, entry: EntryName) {
        (self.size, self.place) = (entry.size, entry.place);
    }

    /// All jobs, also those that are settled.
    pub fn jobs(&self) -> &[ItemJob] {
        match &self.jobs {
            Jobs::One(job) => std::slice::from_ref(job),
            Jobs::Many(many) => &many.list,
        }
    }

    /// The same, to be changed.
    pub fn jobs_mut(&mut self) -> &mut [ItemJob] {
        match &mut self.jobs {
            Jobs::One(job) => std::slice::from_mut(job),
            Jobs::Many(many) => &mut many.list,
        }
    }

    /// How many are not settled.
    pub fn open(&self) -> usize {
        match &self.jobs {
            Jobs::One(job) => usize::from(job.state != JobState::Settled),
            Jobs::Many(many) => many.open,
        }
    }

    /// How many are at workers.
    pub fn running(&self) -> usize {
        match &self.jobs {
            Jobs::One(job) => usize::from(job.state == JobState::Running),
            Jobs::Many(many) => many.running,
        }
    }

    /// A job goes on to another state, not to `Waiting`.
    pub fn set(&mut self, index: usize, state: JobState) {
        let Some(job) = self.jobs_mut().get_mut(index) else { return };
        let was = std::mem::replace(&mut job.state, state);
        if let Jobs::Many(many) = &mut self.jobs {
            many.running += usize::from(state == JobState::Running);
            many.running -= usize::from(was == JobState::Running);
            many.open -= usize::from(state == JobState::Settled && was != JobState::Settled);
        }
    }

    /// A job waits again.
    pub fn put_off(&mut self, index: usize, due: u64) {
        self.set(index, JobState::Waiting);
        if let Some(job) = self.jobs_mut().get_mut(index) {
            job.due = due;
        }
    }

    /// Whether a job is for a worker's next turn at its destination.
    pub fn is_ready(&self, index: usize, destination: &Arc<Destination>) -> bool {
        self.jobs().get(index).is_some_and(|job| job.state == JobState::Ready && job.destination == *destination)
    }

    /// The jobs by the numbers of their recipients.
    pub fn by_number(&self) -> HashMap<u32, usize> {
        let spots =
            (0..).zip(self.jobs()).flat_map(|(at, job)| job.spots.as_slice().iter().map(move |s| (s.number, at)));
        spots.collect()
    }
}

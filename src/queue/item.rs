//! Represents one entry in the queue's memory, in as few bytes as possible.
//!
//! A million messages may wait, nearly all of them with one recipient: an [`Item`] with one job and
//! one recipient is a single allocation. An entry with many jobs counts them by state, so that no
//! step has to look at all jobs. This module neither reads the clock nor knows about workers.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::destination::Destination;
use crate::outcome::Outcome;
use crate::spool::{EntryName, Place, QueueId, RecipientRef};

/// One entry. Its id is not included, because the id is the key in the queue's map.
pub struct Item {
    size: u64,
    place: Place,
    /// A number that identifies the sender.
    pub sender: u32,
    /// The priority of the message, from -9 to 9.
    pub priority: i8,
    /// Whether the entry must be synced to disk before a worker acts on it.
    pub unsynced: bool,
    /// What happens when none of the entry's jobs is running any more.
    pub end: ItemEnd,
    jobs: Jobs,
}

const _: () = assert!(size_of::<Item>() <= 80);

/// What happens to an entry when none of its jobs is running any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ItemEnd {
    /// If all jobs are settled, the entry is removed.
    Finish,
    /// The entry is planned anew.
    Stale,
    /// The entry is withdrawn on an administrator's request.
    Withdraw,
    /// The queue forgets the entry.
    Vanished,
}

/// A list that usually has one element. With one element, it takes no allocation of its own.
pub enum Few<T> {
    /// One element.
    One(T),
    /// Several elements, or no elements (`None`).
    Many(Option<Box<More<T>>>),
}

/// The elements. The wrapper has a known size, so that a pointer to it takes one word instead of
/// two.
pub struct More<T>(Box<[T]>);

enum Jobs {
    One(ItemJob),
    Many(Box<ManyJobs>),
}

struct ManyJobs {
    list: Vec<ItemJob>,
    /// The number of jobs that are not settled, including the running ones.
    open: usize,
    running: usize,
}

/// The recipients of an entry that have the same destination.
pub struct ItemJob {
    /// The destination that the recipients have in common.
    pub destination: Arc<Destination>,
    /// The recipients that are not settled yet.
    pub recipients: Few<RecipientRef>,
    /// The recipients' domains, by which `flush DOMAIN` finds the job. A domain is left
    /// out if the destination is its mail exchangers at port 25.
    pub domains: Few<Arc<str>>,
    /// The outcomes of earlier attempts that could not be recorded in the spool.
    pub unrecorded: Option<Box<Unrecorded>>,
    /// The time of the next attempt in seconds since 1970, or the time until which the job is held.
    /// It is valid only while the job waits or is held.
    due: u64,
    state: JobState,
    /// Whether the job is tried again as soon as the current attempt has ended.
    pub again: bool,
}

/// Outcomes, each with its recipient's number.
#[derive(Debug, Default)]
pub struct Unrecorded(pub Vec<(u32, Outcome)>);

/// The progress of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    /// The job waits for the time of its next attempt.
    Waiting,
    /// The job waits for the time before which the message must not be delivered.
    Held,
    /// The job can start as soon as a worker is free for it.
    Ready,
    /// A worker has the job.
    Running,
    /// Nothing is left to do for the job's recipients.
    Settled,
}

impl<T> Few<T> {
    /// Returns all elements.
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
    /// Returns a job that waits or is held until `due`, in seconds since 1970.
    pub fn new(
        destination: Arc<Destination>,
        recipients: Vec<RecipientRef>,
        domains: Vec<Arc<str>>,
        (state, due): (JobState, u64),
    ) -> Self {
        Self {
            destination,
            recipients: recipients.into(),
            domains: domains.into(),
            unrecorded: None,
            due,
            state,
            again: false,
        }
    }

    /// Returns the state of the job.
    pub fn state(&self) -> JobState {
        self.state
    }

    /// Returns the time of the next attempt in seconds since 1970. Returns `None` if the job is not
    /// waiting.
    pub fn due(&self) -> Option<u64> {
        (self.state == JobState::Waiting).then_some(self.due)
    }

    /// Returns the time before which the job is not tried, in seconds since 1970. Returns `None` if
    /// the job is not held until a time.
    pub fn held_until(&self) -> Option<u64> {
        (self.state == JobState::Held).then_some(self.due)
    }

    /// Replaces the unrecorded outcomes.
    pub fn set_unrecorded(&mut self, unrecorded: Vec<(u32, Outcome)>) {
        self.unrecorded = if unrecorded.is_empty() { None } else { Some(Box::new(Unrecorded(unrecorded))) };
    }

    /// Removes and returns the unrecorded outcomes.
    pub fn take_unrecorded(&mut self) -> Vec<(u32, Outcome)> {
        self.unrecorded.take().map(|unrecorded| unrecorded.0).unwrap_or_default()
    }
}

impl Item {
    /// Returns an entry whose jobs all wait or are all held. `owner` is the number of the sender and the priority.
    pub fn new(entry: EntryName, unsynced: bool, owner: (u32, i8), mut list: Vec<ItemJob>) -> Self {
        let jobs = match (list.len(), list.pop()) {
            (1, Some(one)) => Jobs::One(one),
            (open, last) => {
                list.extend(last);
                Jobs::Many(Box::new(ManyJobs { list, open, running: 0 }))
            }
        };
        let (sender, priority) = owner;
        Self { size: entry.size, place: entry.place, sender, priority, unsynced, end: ItemEnd::Finish, jobs }
    }

    /// Returns the name under which the entry was last seen; `id` is the entry's id.
    pub fn entry(&self, id: QueueId) -> EntryName {
        EntryName { id, size: self.size, place: self.place }
    }

    /// Records the current name of the entry, whose file was moved or replaced.
    pub fn follow(&mut self, entry: EntryName) {
        (self.size, self.place) = (entry.size, entry.place);
    }

    /// Returns all jobs, including settled ones.
    pub fn jobs(&self) -> &[ItemJob] {
        match &self.jobs {
            Jobs::One(job) => std::slice::from_ref(job),
            Jobs::Many(many) => &many.list,
        }
    }

    /// Returns all jobs, for changes to them.
    pub fn jobs_mut(&mut self) -> &mut [ItemJob] {
        match &mut self.jobs {
            Jobs::One(job) => std::slice::from_mut(job),
            Jobs::Many(many) => &mut many.list,
        }
    }

    /// Returns the number of jobs that are not settled.
    pub fn open(&self) -> usize {
        match &self.jobs {
            Jobs::One(job) => usize::from(job.state != JobState::Settled),
            Jobs::Many(many) => many.open,
        }
    }

    /// Returns the number of running jobs.
    pub fn running(&self) -> usize {
        match &self.jobs {
            Jobs::One(job) => usize::from(job.state == JobState::Running),
            Jobs::Many(many) => many.running,
        }
    }

    /// Changes the state of a job. A job is made to wait with [`Item::put_off`] instead, which also
    /// sets the time of the next attempt.
    pub fn set(&mut self, index: usize, state: JobState) {
        let Some(job) = self.jobs_mut().get_mut(index) else { return };
        let previous = std::mem::replace(&mut job.state, state);
        if let Jobs::Many(many) = &mut self.jobs {
            many.running += usize::from(state == JobState::Running);
            many.running -= usize::from(previous == JobState::Running);
            many.open -= usize::from(state == JobState::Settled && previous != JobState::Settled);
        }
    }

    /// Lets a job wait until `due`, in seconds since 1970.
    pub fn put_off(&mut self, index: usize, due: u64) {
        self.set(index, JobState::Waiting);
        if let Some(job) = self.jobs_mut().get_mut(index) {
            job.due = due;
        }
    }

    /// Returns whether a job is ready and has this destination.
    pub fn is_ready(&self, index: usize, destination: &Arc<Destination>) -> bool {
        self.jobs().get(index).is_some_and(|job| job.state == JobState::Ready && job.destination == *destination)
    }

    /// Returns the index of each recipient's job, by the recipient's number.
    pub fn by_number(&self) -> HashMap<u32, usize> {
        let jobs = (0..).zip(self.jobs());
        jobs.flat_map(|(index, job)| job.recipients.as_slice().iter().map(move |to| (to.number, index))).collect()
    }

    /// Returns the numbers of the recipients whose jobs do not wait for a time.
    pub fn due_recipients(&self) -> HashSet<u32> {
        let jobs = self.jobs().iter().filter(|job| !matches!(job.state(), JobState::Waiting | JobState::Held));
        jobs.flat_map(|job| job.recipients.as_slice().iter().map(|to| to.number)).collect()
    }
}

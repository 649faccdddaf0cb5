//! Tells what the queue knows about some entries, for listings.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Queue;
use super::item::{Item, ItemJob, JobState};
use crate::destination::Destination;
use crate::outgoing::Reason;
use crate::spool::QueueId;
use crate::sys;

/// What the queue knows about an entry: its jobs that are not settled.
#[derive(Debug, Clone)]
pub struct KnownEntry {
    /// The jobs.
    pub jobs: Vec<KnownJob>,
}

/// A job in the queue.
#[derive(Debug, Clone)]
pub struct KnownJob {
    /// The destination of all recipients of the job.
    pub destination: Arc<Destination>,
    /// The numbers of the job's recipients within the message.
    pub recipients: Vec<u32>,
    /// The progress of the job.
    pub progress: JobProgress,
    /// If the job is ready, but the limits of its destination let none start now: the time from which
    /// one can start, in seconds since 1970, and the limit.
    pub paced: Option<(u64, Reason)>,
}

/// The progress of a job that is not settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobProgress {
    /// This worker has had the job for this time.
    Running(usize, Duration),
    /// The job starts as soon as a worker is free for it.
    Ready,
    /// The job waits for the time of its next attempt, in seconds since 1970.
    Waiting(u64),
    /// The job is kept until this time, in seconds since 1970, because its sender wants that.
    Kept(u64),
}

impl Queue {
    /// Returns what the queue knows about each of these entries: `None` for an entry that it does
    /// not know.
    pub(super) fn look(&self, ids: &[QueueId]) -> Vec<Option<KnownEntry>> {
        ids.iter().map(|id| self.items.get(id).map(|item| self.known(*id, item))).collect()
    }

    fn known(&self, id: QueueId, item: &Item) -> KnownEntry {
        let jobs = item.jobs().iter().filter_map(|job| {
            let numbers = job.recipients.as_slice().iter().map(|to| to.number).collect::<Vec<_>>();
            let progress = self.progress(id, job, &numbers)?;
            let paced = self.turns.paced(&job.destination).filter(|_| progress == JobProgress::Ready).map(|paced| {
                let time = paced.next.saturating_duration_since(Instant::now());
                (sys::now().saturating_add(time.as_secs()), paced.reason)
            });
            Some(KnownJob { destination: Arc::clone(&job.destination), recipients: numbers, progress, paced })
        });
        KnownEntry { jobs: jobs.collect() }
    }

    /// The progress of a job; `None` if it is settled.
    fn progress(&self, id: QueueId, job: &ItemJob, numbers: &[u32]) -> Option<JobProgress> {
        Some(match job.state() {
            JobState::Settled => return None,
            JobState::Ready => JobProgress::Ready,
            JobState::Waiting => JobProgress::Waiting(job.due().unwrap_or(0)),
            JobState::Held => JobProgress::Kept(job.held_until().unwrap_or(0)),
            JobState::Running => {
                let mut running = self.running.values().filter(|running| running.entry.id == id);
                match running.find(|running| running.recipients == numbers) {
                    Some(running) => JobProgress::Running(running.worker, running.began.elapsed()),
                    None => JobProgress::Ready,
                }
            }
        })
    }
}

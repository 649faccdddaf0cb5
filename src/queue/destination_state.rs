//! Keeps the state of one destination for the queue, while the destination has ready or running
//! jobs and for some time afterwards. A job is the recipients of one entry that have the same
//! destination.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::health::{DestinationStatus, Health, LatestDomains};
use super::pool::Class;
use super::ready::Ready;
use super::turns::JobRef;
use super::waiting::Urgency;
use crate::destination::{Destination, HostTarget};
use crate::endpoint::Endpoint;
use crate::outcome::{Contact, Encryption, Outcome};
use crate::outgoing::{Limits, Reason};

/// The queue opens another connection to a destination if there are more than this number of ready
/// jobs for each running job. Sending a message over an open connection takes less than half as
/// long as over a new one. So fewer ready jobs are done sooner without another connection.
const JOBS_PER_CONNECTION: usize = 2;
/// The maximum number of jobs of one destination that workers defer at the same time, because the
/// destination is down.
const MAX_DEFERRING: usize = 4;

/// The health of a destination, and the numbers of its jobs.
#[derive(Default)]
pub struct DestinationState {
    pub ready: Ready,
    pub health: Health,
    pub running: usize,
    /// The number of jobs that workers are deferring without an attempt, because the destination is
    /// down.
    pub deferring: usize,
    /// The number, the class and the urgency of the ticket with which the destination waits for a
    /// turn.
    pub ticket: Option<(u64, Class, Urgency)>,
    /// The class under which the pool of workers counts the running jobs; `None` before the first
    /// job.
    pub counted: Option<Class>,
    /// The number of this destination's jobs that [`super::turns::Turns`] counts as ready jobs of
    /// proven destinations.
    pub counted_ready: usize,
    pub is_parked: bool,
    /// If the limits of the destination let no job start now: the time at which they are checked again,
    /// the time at which a job can start, and the limit.
    pub paced: Option<Box<Paced>>,
    /// The limits as they were when a job was last added or started; `None` if there are none, as for
    /// most destinations.
    pub limits: Option<Box<Limits>>,
    pub is_remembered: bool,
    pub address: Option<Endpoint>,
    pub last_failure: Option<Box<Outcome>>,
    /// The encryption of the last connection to a host that has answered.
    pub tls: Encryption,
    /// The latest domains of recipients, if the destination is named after its hosts.
    pub domains: Option<Box<LatestDomains>>,
    /// The number of the first job that began after the destination's failures were last cleared by
    /// a flush. A failure of a job with a lower number is ignored.
    pub cleared_at: u64,
    /// The jobs that were deferred because the destination is down. They become ready when a host
    /// answers.
    pub deferred_while_down: Vec<JobRef>,
}

/// A destination whose limits let no job start now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paced {
    /// The time at which the limits are checked again.
    pub check: Instant,
    /// The time at which a job can start.
    pub next: Instant,
    /// The limit.
    pub reason: Reason,
}

/// A job that has ended after an attempt.
pub struct EndedJob {
    pub job: JobRef,
    /// The number of the job in [`super::turns::Turns`].
    pub number: u64,
    /// Whether the job took so long that its destination counts as slow.
    pub is_slow: bool,
    /// Whether the job was a probe of a destination that is down.
    pub is_probe: bool,
}

impl DestinationState {
    pub fn class(&self, destination: &Destination, now: Instant) -> Class {
        match (destination, &self.health) {
            (Destination::Local, _) => Class::Local,
            (Destination::User(_) | Destination::Command(_), Health::Slow) => Class::SlowUser,
            (Destination::User(_) | Destination::Command(_), _) => Class::User,
            (Destination::Remote(HostTarget::Store(_), _), health) => match health {
                Health::Down(down) if now < down.next_probe || self.running > 0 => Class::Defer,
                Health::Slow | Health::Down(_) => Class::SlowUser,
                Health::Unknown | Health::Proven(_) => Class::User,
            },
            (Destination::Remote(..), Health::Unknown) => Class::Unproven,
            (Destination::Remote(..), Health::Proven(_)) => Class::Proven,
            (Destination::Remote(..), Health::Down(down)) if now < down.next_probe || self.running > 0 => Class::Defer,
            (Destination::Remote(..), Health::Slow | Health::Down(_)) => Class::Slow,
        }
    }

    /// Returns the class under which the pool counts the running jobs of the destination.
    pub fn class_of_running(&self, destination: &Destination, now: Instant) -> Class {
        match self.class(destination, now) {
            Class::Defer if destination.is_store() => Class::SlowUser,
            Class::Defer => Class::Slow,
            class => class,
        }
    }

    /// Returns whether the destination is down.
    pub fn is_down(&self) -> bool {
        matches!(self.health, Health::Down(_))
    }

    /// Returns whether another job of the destination may start. `max_jobs` is the limit in the
    /// configuration.
    pub fn has_room(&self, class: Class, max_jobs: usize) -> bool {
        let (running, limit) = (self.running, self.max_running(max_jobs));
        let is_worthwhile = running == 0 || self.ready.len() > JOBS_PER_CONNECTION * running;
        match class {
            _ if self.is_parked => false,
            Class::Local => true,
            Class::Defer => self.deferring < MAX_DEFERRING,
            _ if self.paced.is_some() => false,
            Class::Proven | Class::Unproven => running < limit && is_worthwhile,
            Class::User | Class::SlowUser | Class::Slow => running < limit,
        }
    }

    /// Takes over the limits that apply now, and returns them.
    pub fn set_limits(&mut self, limits: Limits) -> Limits {
        self.limits = (limits != Limits::default()).then(|| Box::new(limits));
        limits
    }

    /// Returns how many jobs may run now. `max_jobs` is the limit in the configuration.
    pub fn max_running(&self, max_jobs: usize) -> usize {
        let connections = self.limits.as_ref().and_then(|limits| limits.connections);
        self.health.limit(connections.map_or(max_jobs, |connections| connections.min(max_jobs)))
    }

    /// Records what the attempt of a job has shown about the destination. If a host has answered,
    /// returns the jobs that were deferred while the destination was down. The last parameter is
    /// the maximum number of jobs and the maximum time between two probes.
    pub fn note_contact(
        &mut self,
        destination: &Destination,
        ended: &EndedJob,
        contact: Contact,
        (max_jobs, max_probe_interval): (usize, Duration),
    ) -> Vec<JobRef> {
        let is_down = self.is_down();
        match contact {
            Contact::None if destination.is_user() => self.health.answered(ended.is_slow, max_jobs),
            Contact::None | Contact::AtLimit => {}
            Contact::Answered(last_failure, tls) => {
                (self.last_failure, self.tls) = (last_failure, tls);
                // If the job began before the destination went down, its success does not show that
                // a host answers now.
                if ended.is_probe || !is_down {
                    self.health.answered(ended.is_slow, max_jobs);
                    return std::mem::take(&mut self.deferred_while_down);
                }
            }
            Contact::Unreachable(_) if ended.number < self.cleared_at => {}
            Contact::Unreachable(why) => {
                self.last_failure = Some(why.clone());
                // Jobs that began before the destination went down fail with it: they are no probes.
                if ended.is_probe || !is_down {
                    self.health.failed(*why, self.running, max_probe_interval, Instant::now());
                }
                if self.is_down() {
                    self.note_waiting(ended.job);
                }
            }
            Contact::Postponed => self.health.slow_down(),
        }
        Vec::new()
    }

    /// Records a job that waits because the destination is down. A job may be recorded several
    /// times. Whenever the list is full, the repetitions are removed.
    pub fn note_waiting(&mut self, job: JobRef) {
        let list = &mut self.deferred_while_down;
        if list.len() == list.capacity() {
            list.sort_unstable();
            list.dedup();
        }
        list.push(job);
    }

    /// Returns the status of the destination for listings. `max_jobs` is the limit in the
    /// configuration.
    pub fn status(&self, destination: &Arc<Destination>, max_jobs: usize, now: Instant) -> DestinationStatus {
        DestinationStatus {
            destination: Arc::clone(destination),
            address: self.address.clone(),
            state: self.health.word(),
            running: self.running,
            limit: self.max_running(max_jobs),
            ready: self.ready.len(),
            down: match &self.health {
                Health::Down(down) => Some((now - down.since, down.next_probe.saturating_duration_since(now))),
                _ => None,
            },
            paced: self.paced.as_ref().map(|paced| (paced.next.saturating_duration_since(now), paced.reason)),
            last_failure: self.last_failure.clone(),
            tls: self.tls,
            domains: self.domains.as_deref().cloned().unwrap_or_default(),
        }
    }

    /// Returns whether the destination has no ready and no running jobs.
    pub fn is_idle(&self) -> bool {
        self.ready.is_empty() && self.running == 0 && self.deferring == 0
    }
}

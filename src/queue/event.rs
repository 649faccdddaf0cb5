//! Defines the events that the queue receives, and the jobs that it sends to its workers.
//!
//! All of them are plain values that are sent through channels.

use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::Sender;

use super::health::{DestinationStatus, Down};
use super::look::KnownEntry;
use super::withdraw::{GivenBack, Requester, Withdrawn};
use crate::address::parse_domain;
use crate::destination::Destination;
use crate::endpoint::Endpoint;
use crate::outcome::{Contact, Outcome};
use crate::retry::{Schedule, Window};
use crate::spool::{EntryName, QueueId, RecipientRef};
use crate::stats::Census;
use crate::timeouts::Trust;

/// A message to the queue's thread.
pub enum Event {
    /// This process has just committed an entry.
    New(EntryName),
    /// Another process has committed an entry lately. The entry may have a duplicate, another file
    /// with the same id. So the queue does not load the entry before [`Event::DuplicatesDone`].
    Notified(EntryName),
    /// Two files in the spool have the same id.
    Duplicates(EntryName, EntryName),
    /// All duplicates that were in the spool at the start have been reported.
    DuplicatesDone,
    /// An entry that is corrupt, was written by a later version, or was left half done by a crash.
    /// The queue starts the entry's repair, because the queue knows when no job of the entry is
    /// running.
    Repair(EntryName),
    /// Entries that the scan of the spool has found.
    Scanned(Scanned),
    /// A worker has ended a job.
    JobDone(Box<JobReport>),
    /// An administrator has moved these entries within the spool. The queue may not know some of
    /// them yet.
    Appeared(Vec<EntryName>),
    /// A request to withdraw an entry. The queue leaves the entry alone until [`Event::GiveBack`].
    Withdraw(QueueId, Requester, Sender<Withdrawn>),
    /// The requester gives back an entry, which ends its withdrawal.
    GiveBack(QueueId, Requester, GivenBack),
    /// A request to try the selected jobs now. The answer is their number.
    Flush(Selector, Sender<usize>),
    /// Like `Flush`, but at the request of a client (ETRN): at most once a minute for each selector.
    Etrn(Selector, Sender<usize>),
    /// A request for the status of all remote destinations, or only of those that match a name.
    Hosts(Option<String>, Sender<Vec<DestinationStatus>>),
    /// A request for what the queue knows about these entries, in the same order.
    Look(Vec<QueueId>, Sender<Vec<Option<KnownEntry>>>),
    /// A request for the list of running jobs, or only of those of one message.
    Running(Option<QueueId>, Sender<Vec<RunningJob>>),
    /// A request to count the messages.
    Census(Sender<Census>),
    /// The new settings after a reload.
    Settings(QueueSettings),
    /// The queue ends as soon as no job is ready or running. A process that is to try each due
    /// message only once sends this event when it has scanned the spool.
    Drain,
    /// The queue starts no more jobs, and ends as soon as none is running.
    Stop,
}

/// A selection of jobs to flush.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Selector {
    /// All jobs. A job that is running now gets another attempt when it ends.
    All,
    /// Like `All`, but a job that is running now gets no further attempt when it ends.
    Waiting,
    /// The jobs of one message.
    Message(QueueId),
    /// The jobs with a recipient in this domain, and those for its mail exchangers.
    Domain(String),
    /// Like `Domain`, but for this domain and all domains below it.
    DomainAndBelow(String),
}

impl Selector {
    /// Returns the selector for a word: a queue id selects its message, `@domain` selects the domain
    /// and those below it, and any other word is taken for a domain.
    pub fn parse(word: &str) -> Self {
        let domain = |word| parse_domain(word).map_or_else(|_| word.to_ascii_lowercase(), String::from);
        match (QueueId::parse(&word.to_ascii_uppercase()), word.strip_prefix('@')) {
            (Some(id), _) => Self::Message(id),
            (None, Some(word)) => Self::DomainAndBelow(domain(word)),
            (None, None) => Self::Domain(domain(word)),
        }
    }
}

/// A job that is running, in the form that listings show.
#[derive(Debug, Clone)]
pub struct RunningJob {
    /// The number of the worker.
    pub worker: usize,
    /// The name of the entry when the job began.
    pub entry: EntryName,
    /// The numbers of the job's recipients within the message.
    pub recipients: Vec<u32>,
    /// When the job began.
    pub began: Instant,
}

/// The configuration of the queue.
#[derive(Debug, Clone, Copy)]
pub struct QueueSettings {
    /// The retry intervals.
    pub schedule: Schedule,
    /// Maximum number of jobs at the same time for one remote destination.
    pub per_destination: usize,
}

/// Entries that were found on disk.
#[derive(Debug)]
pub struct Scanned {
    /// The jobs of each entry.
    pub plans: Vec<Plan>,
    /// The channel on which the queue reports that it has taken the plans. The scan waits for the
    /// report before it sends more plans, so that an event for new mail never waits behind
    /// thousands of old entries.
    pub taken: Sender<()>,
}

/// The jobs of an entry.
#[derive(Debug)]
pub struct Plan {
    /// The name of the entry.
    pub entry: EntryName,
    /// Whether the entry must be synced to disk before a worker acts on it.
    pub unsynced: bool,
    /// A number that identifies the sender. The queue lets senders take turns.
    pub sender: u32,
    /// The priority of the message, from -9 to 9.
    pub priority: i8,
    /// The time before which the message must not be delivered, in seconds since 1970; 0 if there is
    /// none.
    pub release: u64,
    /// The times between which the message is tried.
    pub window: Window,
    /// One job for each destination.
    pub jobs: Vec<Planned>,
}

impl Plan {
    /// Returns a plan without jobs, with the properties of an entry that cannot be read.
    pub fn new(entry: EntryName) -> Self {
        let window = Window { start: entry.id.seconds(), deadline: None };
        Self { entry, unsynced: true, sender: 0, priority: 0, release: 0, window, jobs: Vec::new() }
    }
}

/// A planned job: the recipients of an entry that have the same destination.
#[derive(Debug)]
pub struct Planned {
    /// The destination that the recipients have in common.
    pub destination: Destination,
    /// The recipients of the job.
    pub recipients: Vec<RecipientRef>,
    /// The recipients' domains, by which `flush DOMAIN` finds the job. A domain is left
    /// out if the destination is its mail exchangers at port 25.
    pub(super) domains: Vec<Box<str>>,
    /// The time of the last attempt for the recipient that was tried least recently, in seconds
    /// since 1970. It is 0 if a recipient was never tried, and `None` if there are no recipients.
    pub(super) last: Option<u64>,
}

impl Planned {
    /// Returns a job without recipients.
    pub fn new(destination: Destination) -> Self {
        let domains = destination.domain_at_port().into_iter().map(Into::into).collect();
        Self { destination, recipients: Vec::new(), domains, last: None }
    }

    /// Adds a recipient. `last` is the time of its last attempt in seconds since 1970; 0 if it was
    /// never tried.
    pub fn add(&mut self, recipient: RecipientRef, domain: &str, last: u64) {
        self.recipients.push(recipient);
        if !self.destination.is_mx_of(domain) {
            self.domains.push(domain.into());
        }
        self.last = Some(self.last.map_or(last, |other| other.min(last)));
    }
}

/// A job that the queue sends to a worker.
#[derive(Debug)]
pub struct Job {
    /// The name of the job's entry.
    pub entry: EntryName,
    /// The destination of all recipients of the job.
    pub destination: Arc<Destination>,
    /// The recipients for whom the worker tries delivery.
    pub recipients: Vec<RecipientRef>,
    /// Outcomes of an earlier attempt that could not be recorded.
    pub unrecorded: Vec<(u32, Outcome)>,
    /// Whether the entry must be synced to disk before the worker acts on it.
    pub unsynced: bool,
    /// Whether all other jobs of the entry are settled (nothing is left to do for their
    /// recipients). If so, the worker removes the entry after this job.
    pub is_last: bool,
    /// The trust in the destination. It decides how long the worker waits for an answer of its
    /// hosts.
    pub trust: Trust,
    /// What is known about the failure, if the destination is down and the worker must defer the
    /// mail without an attempt; `None` if the worker makes an attempt.
    pub down: Option<Arc<Down>>,
    pub(super) index: usize,
    pub(super) started: u64,
}

impl Job {
    /// A job for all recipients of an entry that an administrator has withdrawn from the queue.
    pub fn of_request(entry: EntryName, recipients: Vec<RecipientRef>) -> Self {
        Self {
            entry,
            destination: Arc::new(Destination::Local),
            recipients,
            unrecorded: Vec::new(),
            unsynced: false,
            is_last: true,
            trust: Trust::Unproven,
            down: None,
            index: 0,
            started: 0,
        }
    }
}

/// A connection that a worker without a job keeps open.
#[derive(Debug, Clone)]
pub struct OpenConnection {
    /// The destination of the last job that used the connection.
    pub destination: Arc<Destination>,
    /// The address of the host.
    pub address: Endpoint,
}

/// The report of a worker that has ended a job.
#[derive(Debug)]
pub struct JobReport {
    /// The number of the worker.
    pub worker: usize,
    /// The job, with the current name of its entry and the outcomes that are still unrecorded.
    pub job: Job,
    /// What is left to do for the job.
    pub result: JobResult,
    /// What the attempt showed about the destination.
    pub contact: Contact,
    /// The address of the host to which the worker last connected; `None` if there was no
    /// connection.
    pub address: Option<Endpoint>,
    /// The connection that the worker keeps open for its next job, if any.
    pub connection: Option<OpenConnection>,
    /// The new entries that the job has created, for example reports of failures.
    pub derived: Vec<EntryName>,
}

/// The result of a job.
#[derive(Debug)]
pub enum JobResult {
    /// Every recipient of the job is settled, so nothing is left to do for the job.
    Settled,
    /// Some recipients must be tried again later.
    Later {
        /// The recipients that are left.
        recipients: Vec<RecipientRef>,
        /// The time of the next attempt, in seconds since 1970.
        due: u64,
    },
    /// The worker has tried nothing. The job becomes ready again at once.
    Again,
    /// A recipient has another destination now, so the queue must plan the entry anew.
    Stale,
    /// The entry is gone, or must not be touched any more. The queue forgets it.
    Vanished,
}

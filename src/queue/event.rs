//! Events for the queue, and jobs for its workers.
//!
//! Plain values that are sent through channels, without any logic.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use super::health::{DestinationStatus, Down};
use super::withdraw::{GivenBack, Withdrawn};
use crate::address::parse_domain;
use crate::destination::Destination;
use crate::endpoint::Endpoint;
use crate::outcome::{Contact, Outcome};
use crate::retry::Schedule;
use crate::spool::{EntryName, QueueId, RecipientRef};
use crate::timeouts::Trust;

/// A message to the queue's thread.
pub enum Event {
    /// An entry was committed by this process a moment ago.
    New(EntryName),
    /// An entry was committed by another process lately. It may be one of two
    /// [`Event::Duplicates`], and so waits for [`Event::DuplicatesDone`].
    Notified(EntryName),
    /// Two files in the spool have the same id.
    Duplicates(EntryName, EntryName),
    /// All duplicates that were in the spool at the start have been reported.
    DuplicatesDone,
    /// An entry that is corrupt, is of a later version, or was left half done by a crash. The queue
    /// starts its repair, since it knows when no job of the entry is running.
    Repair(EntryName),
    /// Entries that the scan of the spool has found.
    Scanned(Scanned),
    /// A worker has ended a job.
    JobDone(Box<JobReport>),
    /// Entries in the spool, some of them perhaps new to the queue: an administrator moved them.
    Appeared(Vec<EntryName>),
    /// An entry is to be withdrawn: the queue does nothing with it until it is given back.
    Withdraw(QueueId, Sender<Withdrawn>),
    /// The withdrawal of an entry ends.
    GiveBack(QueueId, GivenBack),
    /// The selected jobs are to be tried now. The answer is their number.
    Flush(Selector, Sender<usize>),
    /// Asks for the status of all remote destinations, or only of those to which a name refers.
    Hosts(Option<String>, Sender<Vec<DestinationStatus>>),
    /// Asks for the running jobs.
    Running(Sender<Vec<RunningJob>>),
    /// New settings, after a reload.
    Settings(QueueSettings),
    /// The scan of the spool is complete: the queue ends as soon as no job is ready or running.
    Drain,
    /// The queue starts no more jobs, and ends as soon as none is running.
    Stop,
}

/// A selection of jobs to flush.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// All jobs. A job that is running now gets another attempt when it ends.
    All,
    /// Like `All`, but a job that is running now gets no further attempt when it ends.
    Waiting,
    /// The jobs of one message.
    Message(QueueId),
    /// The jobs with a recipient in this domain, and those for its mail exchangers.
    Domain(String),
}

impl Selector {
    /// Parses a queue id. Any other word is taken for a domain.
    pub fn parse(word: &str) -> Self {
        match QueueId::parse(&word.to_ascii_uppercase()) {
            Some(id) => Self::Message(id),
            None => Self::Domain(parse_domain(word).map_or_else(|_| word.to_ascii_lowercase(), String::from)),
        }
    }
}

/// A job at a worker, for a listing.
#[derive(Debug, Clone)]
pub struct RunningJob {
    /// The message.
    pub id: QueueId,
    /// The recipients, by number.
    pub recipients: Vec<u32>,
    /// The time since the job began.
    pub since: Duration,
    pub(super) began: Instant,
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
    /// Gets a message when the queue has taken the plans. The scan waits for it before it sends
    /// more, so that new mail never queues behind thousands of old entries.
    pub taken: Sender<()>,
}

/// The jobs of an entry.
#[derive(Debug)]
pub struct Plan {
    /// The entry.
    pub entry: EntryName,
    /// Whether the entry must be synced before it is acted on.
    pub unsynced: bool,
    /// A number that identifies the sender: senders take turns.
    pub sender: u32,
    /// One job for each destination.
    pub jobs: Vec<Planned>,
}

/// A job that is planned: recipients of an entry with the same destination.
#[derive(Debug)]
pub struct Planned {
    /// The destination.
    pub destination: Destination,
    /// The recipients.
    pub recipients: Vec<RecipientRef>,
    /// The recipients' domains, for `flush DOMAIN`. A domain that `destination` names is left out.
    pub(super) domains: Vec<Box<str>>,
    /// The time of the last attempt for the recipient that was tried least recently, in seconds
    /// since 1970. It is 0 if a recipient was never tried, and `None` if there are no recipients.
    pub(super) last: Option<u64>,
}

impl Planned {
    /// A job without recipients.
    pub fn new(destination: Destination) -> Self {
        let domains = destination.domain_at_port().into_iter().map(Into::into).collect();
        Self { destination, recipients: Vec::new(), domains, last: None }
    }

    /// Adds a recipient. `last` is the time of its last attempt, 0 for never.
    pub fn add(&mut self, recipient: RecipientRef, domain: &str, last: u64) {
        self.recipients.push(recipient);
        if !self.destination.is_mx_of(domain) {
            self.domains.push(domain.into());
        }
        self.last = Some(self.last.map_or(last, |other| other.min(last)));
    }
}

/// A job at a worker.
#[derive(Debug)]
pub struct Job {
    /// The entry.
    pub entry: EntryName,
    /// The destination.
    pub destination: Arc<Destination>,
    /// The recipients.
    pub recipients: Vec<RecipientRef>,
    /// Outcomes of an earlier attempt that could not be recorded.
    pub unrecorded: Vec<(u32, Outcome)>,
    /// Whether the entry must be synced before it is acted on.
    pub unsynced: bool,
    /// Whether all other jobs of the entry are settled, so that the worker removes the entry after
    /// this job.
    pub is_last: bool,
    /// The standing of the destination, which decides how long the worker waits for its hosts.
    pub trust: Trust,
    /// Set if the destination is down: its mail is deferred without an attempt.
    pub down: Option<Arc<Down>>,
    pub(super) index: usize,
    pub(super) started: u64,
}

/// A connection that a worker without a job keeps open.
#[derive(Debug, Clone)]
pub struct OpenConnection {
    /// The destination of the last job that used the connection.
    pub destination: Arc<Destination>,
    /// The address of the host.
    pub address: Endpoint,
}

/// The end of a job.
#[derive(Debug)]
pub struct JobReport {
    /// The worker.
    pub worker: usize,
    /// The job.
    pub job: Job,
    /// The result.
    pub result: JobResult,
    /// What the attempt showed about the destination.
    pub contact: Contact,
    /// The address of the last connection.
    pub address: Option<Endpoint>,
    /// The connection that the worker keeps open for its next job.
    pub connection: Option<OpenConnection>,
    /// New entries that the job created.
    pub derived: Vec<EntryName>,
}

/// The result of a job.
#[derive(Debug)]
pub enum JobResult {
    /// Every recipient of the job is settled.
    Settled,
    /// Recipients are left, to be tried again later.
    Later {
        /// The recipients that are left.
        recipients: Vec<RecipientRef>,
        /// The time of the next attempt, in seconds since 1970.
        due: u64,
    },
    /// Nothing was tried: the job is ready again at once.
    Again,
    /// A recipient has another destination now: the entry has to be planned anew.
    Stale,
    /// The entry is gone, or must not be touched any more.
    Vanished,
}

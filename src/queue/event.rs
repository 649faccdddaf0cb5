//! What the queue is told, and what it tells its workers.
//!
//! Values that go down channels; whoever sends one has no claim to it any more.
//! Nothing here decides, waits or fails.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use super::health::{DestinationStatus, Down};
use crate::destination::Destination;
use crate::endpoint::Endpoint;
use crate::outcome::{Contact, Outcome};
use crate::retry::Schedule;
use crate::spool::{EntryName, QueueId, RecipientRef};
use crate::timeouts::Trust;

/// What the queue is told.
pub enum Event {
    /// An entry was committed by this process, a moment ago.
    New(EntryName),
    /// An entry was committed by another process, not long ago: it may be one of the
    /// [`Event::Duplicates`], and waits for [`Event::DuplicatesDone`].
    Notified(EntryName),
    /// Two files on disk have one id.
    Duplicates(EntryName, EntryName),
    /// All twins that were in the spool at the start were told of.
    DuplicatesDone,
    /// An entry on disk that only the queue may look at: something is to be put in
    /// order, which is done while no job of it runs.
    Repair(EntryName),
    /// Entries on disk.
    Scanned(Scanned),
    /// A worker is done with a job.
    JobDone(Box<JobReport>),
    /// Entries in the spool, of which some may be new to the queue: a person moved them.
    Appeared(Vec<EntryName>),
    /// Try now what is waiting; says how many jobs that were.
    Flush(Selector, Sender<usize>),
    /// What is known of destinations elsewhere: of all, or of those of one domain or name.
    Hosts(Option<String>, Sender<Vec<DestinationStatus>>),
    /// The messages that are at workers, each with the destination and for how long.
    Running(Sender<Vec<RunningJob>>),
    /// Other settings from now on.
    Settings(QueueSettings),
    /// Everything on disk was reported; end when nothing is ready or running.
    Drain,
    /// Start nothing any more; end when nothing is running.
    Stop,
}

/// Which of the waiting jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// Every one.
    All,
    /// The same, but what runs already is not tried once more.
    Waiting,
    /// Those of one message.
    Message(QueueId),
    /// Those with a recipient in one domain, and those that go to a host of that name.
    Domain(String),
}

impl Selector {
    /// A queue id, or else a domain.
    pub fn parse(word: &str) -> Self {
        match QueueId::parse(&word.to_ascii_uppercase()) {
            Some(id) => Self::Message(id),
            None => Self::Domain(word.to_ascii_lowercase()),
        }
    }
}

/// A job that is at a worker.
#[derive(Debug, Clone)]
pub struct RunningJob {
    /// The message.
    pub id: QueueId,
    /// The destination.
    pub destination: Arc<Destination>,
    /// Its recipients, by number.
    pub recipients: Vec<u32>,
    /// For how long.
    pub since: Duration,
    pub(super) began: Instant,
}

/// What the queue goes by.
#[derive(Debug, Clone, Copy)]
pub struct QueueSettings {
    /// When to try again.
    pub schedule: Schedule,
    /// Workers at once for one destination elsewhere.
    pub per_destination: usize,
}

/// Entries that were found on disk, and how they are to be delivered.
#[derive(Debug)]
pub struct Scanned {
    /// How.
    pub plans: Vec<Plan>,
    /// Is told when the queue has them: who brings more waits for it, so that what
    /// comes in meanwhile is not behind a thousand others.
    pub taken: Sender<()>,
}

/// How an entry is to be delivered.
#[derive(Debug)]
pub struct Plan {
    /// The entry.
    pub entry: EntryName,
    /// Whether it must be synced before it is acted on.
    pub unsynced: bool,
    /// A number that stands for the sender: mail of different senders takes turns.
    pub sender: u32,
    /// A job for each destination.
    pub jobs: Vec<Planned>,
}

/// One destination of an entry.
#[derive(Debug)]
pub struct Planned {
    /// The destination.
    pub destination: Destination,
    /// The recipients.
    pub recipients: Vec<RecipientRef>,
    /// By what a person names it, if the name of the destination does not say it.
    pub(super) domains: Vec<Box<str>>,
    /// When the one that waits longest was last tried, in seconds since 1970; 0 for never.
    pub(super) last: Option<u64>,
}

impl Planned {
    /// A destination without recipients.
    pub fn new(destination: Destination) -> Self {
        let domains = destination.domain_at_port().into_iter().map(Into::into).collect();
        Self { destination, recipients: Vec::new(), domains, last: None }
    }

    /// Adds a recipient. `last` is when it was last tried, 0 for never.
    pub fn add(&mut self, recipient: RecipientRef, domain: &str, last: u64) {
        self.recipients.push(recipient);
        if !self.destination.is_mx_of(domain) {
            self.domains.push(domain.into());
        }
        self.last = Some(self.last.map_or(last, |other| other.min(last)));
    }
}

/// One entry and one destination, at a worker.
#[derive(Debug)]
pub struct Job {
    /// The entry.
    pub entry: EntryName,
    /// The destination.
    pub destination: Arc<Destination>,
    /// The recipients.
    pub recipients: Vec<RecipientRef>,
    /// Outcomes of an earlier attempt that could not be written down.
    pub unrecorded: Vec<(u32, Outcome)>,
    /// Whether the entry must be synced first.
    pub unsynced: bool,
    /// Whether the rest of the entry is settled: then the worker finishes it.
    pub is_last: bool,
    /// How patient it is with the destination's hosts.
    pub trust: Trust,
    /// The destination is down: its mail is deferred without being tried.
    pub down: Option<Arc<Down>>,
    pub(super) index: usize,
    pub(super) started: u64,
}

/// A connection that an idle worker keeps open.
#[derive(Debug, Clone)]
pub struct OpenConnection {
    /// The destination of the last job that used it.
    pub destination: Arc<Destination>,
    /// The address of the host.
    pub address: Endpoint,
}

/// What a worker has to say.
#[derive(Debug)]
pub struct JobReport {
    /// The worker.
    pub worker: usize,
    /// The job.
    pub job: Job,
    /// What became of it.
    pub result: JobResult,
    /// What it showed of the destination.
    pub contact: Contact,
    /// The address that was used last.
    pub address: Option<Endpoint>,
    /// The connection that the worker keeps open for its next job.
    pub connection: Option<OpenConnection>,
    /// New entries that the job made.
    pub children: Vec<EntryName>,
}

/// What became of a job.
#[derive(Debug)]
pub enum JobResult {
    /// Every recipient of the job is settled.
    Settled,
    /// These recipients are to be tried at this time.
    Later {
        /// Who they are.
        recipients: Vec<RecipientRef>,
        /// In seconds since 1970.
        due: u64,
    },
    /// Nothing was tried: when its turn comes again.
    Again,
    /// Recipients have another destination now: plan the entry anew.
    Stale,
    /// The entry is gone, or not to be touched again.
    Vanished,
}

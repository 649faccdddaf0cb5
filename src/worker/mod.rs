//! Delivers the messages of the queue, with a pool of workers. A worker has one job at a time. A
//! job is the delivery of one message to those of its recipients that have the same destination.
//!
//! Each worker is a thread, and takes jobs from the queue. The number of workers is fixed. A worker
//! opens the message's entry in the spool, finds the routes of the recipients again, delivers,
//! records the outcomes, and makes a report of the failures. Other modules decide about addresses,
//! hosts and time limits. If a job panics, the panic is logged, and the job is tried again later.
//! [`Worker::settle`] shows all steps.
//!
//! - `bounce`: returns a message to its sender on request
//! - `handover`: entries whose files were given to system users
//! - `immediate`: delivery of a message that was just committed, without the queue
//! - `deadline`: messages whose senders have set a deadline
//! - `front`: the fields that a message gets when it leaves
//! - `notes`: notes about attempts, for the listings
//! - `plan`: groups the recipients of an entry by destination
//! - `requeue`: looks up the recipients of a message anew on request
//! - `report`: makes the reports about recipients

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use crate::activity;
use crate::deliver::local::LocalDelivery;
use crate::deliver::remote::convert::Converter;
use crate::deliver::remote::{AttemptResult, RemoteDelivery, RemoteSettings};
use crate::deliver::{Delivery, log_outcome};
use crate::destination::{Destination, HostTarget};
use crate::dialogue::Dialogue;
use crate::endpoint::Endpoint;
use crate::envelope::{Origin, Recipient};
use crate::log;
use crate::outcome::{Contact, Fate, Outcome, Via};
use crate::queue::{Event, Job, JobReport, JobResult, OpenConnection};
use crate::route::{Route, RoutedMail};
use crate::site::{Settings, Site};
use crate::spool::{Content, Entry, EntryName, Place, RecipientEntry, RecipientRef, Spool, State, Unusable};
use crate::sys;

mod bounce;
mod deadline;
mod front;
mod handover;
mod immediate;
mod notes;
mod plan;
mod report;
mod requeue;

pub use bounce::{Returned, bounce};
pub use immediate::deliver_now;
pub use notes::note_interrupted;
pub use plan::{Scan, plan, scan};
pub use requeue::{NotRequeued, requeue};

/// How long an idle worker keeps a connection for the next job.
const KEEP_CONNECTION_FOR: Duration = Duration::from_secs(2);

/// Runs a worker until the queue closes the channel of jobs.
pub fn run(number: usize, site: Arc<Site>, jobs: Receiver<Job>, events: Sender<Event>) {
    let mut worker =
        Worker { remote: RemoteDelivery::new(site.outbound.clone()), site, contact: Contact::None, address: None };
    activity::begin(number);
    loop {
        activity::rest();
        let mut job = match worker.next_job(&jobs) {
            Some(job) => job,
            None => return,
        };
        let mut derived = Vec::new();
        (worker.contact, worker.address) = (Contact::None, None);
        let done = catch_unwind(AssertUnwindSafe(|| worker.settle(&mut job, &mut derived)));
        let result = done.unwrap_or_else(|_| {
            ::log::error!(
                "{}: a bug ended an attempt for {}; it will be repeated later",
                job.entry.id,
                job.destination
            );
            worker.remote.close();
            worker.later(&job)
        });
        let (contact, address) = (std::mem::take(&mut worker.contact), worker.address.take());
        let connection = worker.remote.cached().map(|(destination, address)| OpenConnection { destination, address });
        let report = JobReport { worker: number, job, result, contact, address, connection, derived };
        if events.send(Event::JobDone(Box::new(report))).is_err() {
            return;
        }
    }
}

struct Worker {
    site: Arc<Site>,
    remote: RemoteDelivery,
    /// What the current attempt has shown about its destination.
    contact: Contact,
    address: Option<Endpoint>,
}

/// One attempt at a job.
struct Attempt<'a> {
    job: &'a mut Job,
    entry: Entry,
    settings: Arc<Settings>,
    /// When the attempt began, in seconds since 1970.
    now: u64,
    /// Whether the entry's file was moved into a mailbox, so that the entry is gone from the spool.
    is_moved: bool,
    /// The numbers of the recipients that have failed, and the outcomes that the report describes.
    failures: Vec<(u32, Outcome)>,
    /// The numbers of the recipients whose sender is to be warned of a delay, and the outcomes that
    /// the report describes.
    delays: Vec<(u32, Outcome)>,
    /// The numbers of the recipients for whom a success is to be reported, and the outcomes.
    successes: Vec<(u32, Outcome)>,
    /// The reports and forwarded messages that were made from this entry.
    derived: &'a mut Vec<EntryName>,
    /// The dialogue with other hosts, unless the message was delivered to all recipients.
    dialogue: Option<Dialogue>,
    site: &'a Site,
}

impl<'a> Attempt<'a> {
    /// An attempt that begins now. The reports and forwarded messages that it makes are added to
    /// `derived`.
    fn begin(site: &'a Site, job: &'a mut Job, entry: Entry, derived: &'a mut Vec<EntryName>) -> Self {
        Self {
            job,
            entry,
            settings: site.settings(),
            now: sys::now(),
            is_moved: false,
            failures: Vec::new(),
            delays: Vec::new(),
            successes: Vec::new(),
            derived,
            dialogue: None,
            site,
        }
    }
}

impl Worker {
    fn next_job(&mut self, jobs: &Receiver<Job>) -> Option<Job> {
        if self.remote.cached().is_some() {
            match jobs.recv_timeout(KEEP_CONNECTION_FOR) {
                Ok(job) => return Some(job),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => self.remote.close(),
            }
        }
        jobs.recv().ok()
    }

    /// Makes one attempt at a job: opens the entry, delivers, records the outcomes and reports
    /// failures. It is not inlined, so that an idle worker's stack does not hold its frame.
    #[inline(never)]
    fn settle(&mut self, job: &mut Job, derived: &mut Vec<EntryName>) -> JobResult {
        activity::enter("opening the message");
        let entry = match self.open(job) {
            Ok(entry) => entry,
            Err(result) => return result,
        };
        let site = Arc::clone(&self.site);
        let mut attempt = Attempt::begin(&site, job, entry, derived);
        let Some(outcomes) = self.deliver(&mut attempt) else { return JobResult::Stale };
        // Beyond the age limit the outcome is recorded, so that the message expires.
        if matches!(self.contact, Contact::AtLimit | Contact::Postponed) && !attempt.is_over_age() {
            return JobResult::Again;
        }
        activity::enter("recording the outcome");
        if attempt.record(outcomes) && attempt.report() {
            attempt.job.unrecorded.clear();
            attempt.result()
        } else {
            self.later(attempt.job)
        }
    }

    fn open(&self, job: &mut Job) -> Result<Entry, JobResult> {
        let opened = self.site.spool.entry_for(job.entry, &job.recipients).and_then(|mut entry| {
            if job.unsynced {
                entry.sync()?;
                job.unsynced = false;
            }
            entry.recover(job.recipients.iter().map(|recipient| recipient.number as usize))?;
            Ok(entry)
        });
        match opened {
            // A job has no recipients if the entry could not be read when the job was planned.
            Ok(_) if job.recipients.is_empty() => Err(JobResult::Stale),
            Ok(entry) => {
                job.entry = entry.name();
                self.check_handed_over(&entry, job).map(|()| entry)
            }
            Err(Unusable::Gone) => Err(JobResult::Vanished),
            Err(Unusable::Corrupt(why)) => {
                self.site.spool.set_aside(job.entry, why);
                Err(JobResult::Vanished)
            }
            Err(Unusable::Later(why)) => {
                self.site.spool.leave_alone(job.entry, why);
                Err(JobResult::Vanished)
            }
            Err(Unusable::Io(e)) => {
                ::log::error!("spool: open {}: {e}", job.entry.id);
                Err(self.later(job))
            }
        }
    }

    /// Puts off the whole job by the first retry interval, without recording anything.
    fn later(&self, job: &Job) -> JobResult {
        let due = sys::now() + self.site.settings().config.queue.retry_min.as_secs();
        JobResult::Later { recipients: job.recipients.clone(), due }
    }

    /// Delivers to the unsettled recipients of the job, and returns an outcome for each. Returns
    /// `None` if one of these recipients has another destination now, or if the message leaves
    /// differently for some of them.
    fn deliver(&mut self, attempt: &mut Attempt<'_>) -> Option<Vec<(u32, Outcome)>> {
        if !attempt.job.unrecorded.is_empty() {
            return Some(attempt.job.unrecorded.clone());
        }
        let addressees = attempt.open_recipients();
        let (router, mail) = (&attempt.settings.router, RoutedMail::of(&attempt.entry));
        let routes = plan::routes_of(&attempt.settings, &attempt.entry, &attempt.job.destination, &addressees)?;
        // For some recipients, only the report about the delivery is missing.
        let is_delivered = |addressee: &RecipientEntry| matches!(addressee.record.state, State::Unreported(_));
        let (addressees, routes): (Vec<_>, Vec<_>) =
            addressees.into_iter().zip(routes).filter(|(addressee, _)| !is_delivered(addressee)).unzip();
        let departure = |addressee: &RecipientEntry| router.departure(&mail, &addressee.recipient);
        if addressees.first().is_some_and(|first| addressees.iter().any(|to| departure(to) != departure(first))) {
            return None;
        }
        if addressees.is_empty() {
            return Some(Vec::new());
        }
        if let Some(outcome) = attempt.expired(&addressees) {
            return Some(addressees.iter().map(|to| (to.reference().number, outcome.clone())).collect());
        }
        let job = &attempt.job;
        let outcomes = match (&*Arc::clone(&job.destination), job.down.clone()) {
            (_, Some(down)) => addressees.iter().map(|_| down.outcome()).collect(),
            (Destination::Remote(target, _), None) => match attempt.make_queued() {
                Ok(()) => self.send(attempt, &addressees, target),
                Err(e) => {
                    let outcome = Outcome::from_io("rewrite the message in the spool", &e).via(Via::Smtp);
                    vec![outcome; addressees.len()]
                }
            },
            (Destination::Local | Destination::User(_) | Destination::Command(_), None) => {
                attempt.deliver_locally(&addressees, &routes)
            }
        };
        Some(addressees.iter().map(|addressee| addressee.reference().number).zip(outcomes).collect())
    }

    fn send(&mut self, attempt: &mut Attempt<'_>, addressees: &[RecipientEntry], target: &HostTarget) -> Vec<Outcome> {
        let (entry, router, id) = (&attempt.entry, &attempt.settings.router, attempt.entry.id().to_string());
        // The rewritten sender is only for the remote host. The spool keeps the original sender, to
        // whom failures are reported.
        let mail = RoutedMail::of(entry);
        let first = addressees.first().map(|addressee| router.departure(&mail, &addressee.recipient));
        let departure = first.unwrap_or_default();
        let is_forwarded = departure.is_forwarded;
        let rewritten = entry.sender().filter(|_| is_forwarded).and_then(|sender| router.rewritten_sender(sender));
        let fields = |content: Content<'_>| front::fields(attempt, departure, content);
        let front = fields(entry.content());
        let converter = Converter {
            scratch: &|bytes| self.site.spool.scratch_for(bytes),
            front: &fields,
            #[cfg(feature = "mailauth")]
            keys: Some(&attempt.settings.keys),
            now: sys::now(),
        };
        let recipients: Vec<Recipient> = addressees.iter().map(|to| entry.with_orcpt(&to.recipient)).collect();
        let delivery = Delivery {
            id: &id,
            sender: rewritten.as_ref().or(entry.sender()),
            options: entry.options(),
            recipients: recipients.iter().collect(),
            content: entry.content().preceded_by(&front),
            converter,
            only_public: matches!(entry.origin(), Origin::DmarcReport | Origin::TlsReport),
            ask_until: None,
            may_use_account: rewritten.is_some()
                || addressees.iter().all(|to| router.sender_counts(&mail, &to.recipient)),
        };
        let settings = &attempt.settings;
        let counts = self.site.tls_counts_of(&settings.config, entry.origin(), entry.options().tls);
        let (config, tls, credentials) = (&settings.config, &settings.tls.client, &settings.credentials);
        let (tls_policies, outgoing, trust) = (&settings.tls_policies, &settings.outgoing, attempt.job.trust);
        let remote_settings = RemoteSettings { config, tls, credentials, tls_policies, outgoing, counts, trust };
        let AttemptResult { outcomes, contact, address, dialogue } =
            self.remote.deliver(remote_settings, &attempt.job.destination, target, &delivery);
        (self.contact, self.address, attempt.dialogue) = (contact, address, dialogue);
        outcomes
    }
}

impl Attempt<'_> {
    fn open_recipients(&self) -> Vec<RecipientEntry> {
        let wanted = self.job.recipients.iter().filter_map(|recipient| self.entry.recipient(recipient.number as usize));
        wanted.filter(|addressee| addressee.record.state.is_open()).cloned().collect()
    }

    fn deliver_locally(&mut self, addressees: &[RecipientEntry], routes: &[Route]) -> Vec<Outcome> {
        let mut local = LocalDelivery {
            entry: &mut self.entry,
            name: &mut self.job.entry,
            derived: self.derived,
            spool: &self.site.spool,
            router: &self.settings.router,
            hostname: &self.settings.config.hostname,
            agents: &self.site.agents,
            quotas: &self.site.quotas,
            now: self.now,
            is_moved: false,
        };
        let outcomes = local.deliver(addressees, routes);
        self.is_moved = local.is_moved;
        outcomes
    }

    fn make_queued(&mut self) -> io::Result<()> {
        self.entry.make_queued()?;
        self.job.entry = self.entry.name();
        Ok(())
    }

    /// Records the outcomes on disk and in the log. If an outcome cannot be recorded, the function
    /// keeps it in the job and returns false. A recipient for whom delivery has succeeded or failed
    /// is not tried again before that outcome is recorded.
    fn record(&mut self, outcomes: Vec<(u32, Outcome)>) -> bool {
        if self.is_moved {
            outcomes.iter().for_each(|(number, outcome)| self.log(*number, outcome, None));
            return true;
        }
        if let Err(e) = self.make_queued() {
            return self.keep_unrecorded(&e, outcomes);
        }
        let mut rest = outcomes.into_iter();
        while let Some((number, outcome)) = rest.next() {
            if let Err(e) = self.record_one(number, &outcome) {
                return self.keep_unrecorded(&e, std::iter::once((number, outcome)).chain(rest).collect());
            }
        }
        true
    }

    fn record_one(&mut self, number: u32, outcome: &Outcome) -> io::Result<()> {
        let index = number as usize;
        let Some(addressee) = self.entry.recipient(index).filter(|addressee| addressee.record.state.is_open()).cloned()
        else {
            return Ok(());
        };
        if let State::Unreported(_) = addressee.record.state {
            // The step that made an entry for a forwarded message has recorded and logged this.
            return Ok(());
        }
        // The age of a message counts from the time at which it could first be tried.
        let (schedule, arrival) = (self.settings.config.queue.schedule(), self.entry.window().start);
        // If a copy was prepared for the recipient, the record has the time of the preparation in
        // place of the time of the last attempt.
        let before = self.now.saturating_sub(schedule.min.as_secs());
        let last = if addressee.record.state == State::Todo { addressee.record.last } else { before };
        let expired = schedule.is_expired(arrival, last, self.now);
        match outcome.fate {
            Fate::Delivered => {
                let success = self.success_to_report(&addressee, outcome);
                self.entry.settle(index, success.map_or(State::Done, State::Unreported), self.now)?;
                self.log(number, outcome, None);
                self.successes.extend(success.map(|_| (number, outcome.clone())));
            }
            Fate::Deferred if !expired => {
                if schedule.is_recorded(arrival, last, self.now) {
                    self.entry.defer(index, self.now)?;
                }
                let next = self.next_attempt();
                self.note(&addressee.recipient.address, outcome);
                self.log(number, outcome, Some(next));
                if self.must_warn(&addressee) {
                    self.delays.push((number, self.delayed(outcome)));
                }
            }
            // It is logged when it is recorded, with the report.
            Fate::Deferred | Fate::Failed => self.failures.push((number, outcome.clone())),
        }
        Ok(())
    }

    /// Moves the entry to `cur/`, because it was tried. Returns false if it is still in `new/`: then it has
    /// no dialogues and no reasons of failures, because they are not removed with it. That is harmless, because
    /// the records, too, show that it was tried.
    fn move_to_cur(&mut self) -> bool {
        if let Err(e) = self.entry.move_to_cur() {
            ::log::warn!("spool: move {} to cur: {e}", self.entry.id());
        }
        self.job.entry = self.entry.name();
        self.job.entry.place != Place::New
    }

    fn keep_unrecorded(&mut self, error: &io::Error, mut outcomes: Vec<(u32, Outcome)>) -> bool {
        ::log::error!("spool: record the outcomes of {}: {error}", self.entry.id());
        outcomes.append(&mut self.failures);
        // A deferred recipient can simply be tried again.
        outcomes.retain(|(_, outcome)| outcome.fate != Fate::Deferred);
        self.job.unrecorded = outcomes;
        false
    }

    fn next_attempt(&self) -> u64 {
        self.settings.config.queue.schedule().next_within(self.entry.window(), self.now, self.entry.id().seed())
    }

    fn log(&self, number: u32, outcome: &Outcome, next: Option<u64>) {
        log_outcome(&self.entry, number as usize, outcome, next);
    }

    fn result(&mut self) -> JobResult {
        let left: Vec<RecipientRef> = if self.is_moved {
            Vec::new()
        } else {
            self.open_recipients().iter().map(RecipientEntry::reference).collect()
        };
        if left.is_empty() {
            return if self.job.is_last { self.finish() } else { JobResult::Settled };
        }
        let is_in_cur = self.move_to_cur();
        if let Some(dialogue) = self.dialogue.as_ref().filter(|_| is_in_cur) {
            self.site.spool.add_dialogue(self.entry.id(), dialogue);
        }
        JobResult::Later { recipients: left, due: self.next_attempt() }
    }

    fn finish(&self) -> JobResult {
        // The entry as this job has read it often shows that all recipients are settled. If not,
        // the entry is read again, because other jobs may have settled some recipients.
        if self.is_moved || self.entry.finish().is_ok() {
            log::done(&self.entry.id());
        } else if !finish(&self.site.spool, self.entry.name()) {
            let due = self.now + self.settings.config.queue.retry_min.as_secs();
            return JobResult::Later { recipients: self.job.recipients.clone(), due };
        }
        JobResult::Vanished
    }
}

/// Removes an entry whose recipients are all settled. Returns false if the entry is still there.
pub fn finish(spool: &Arc<Spool>, name: EntryName) -> bool {
    let finished = spool.finish(name);
    match &finished {
        Ok(()) => log::done(&name.id),
        Err(e) => ::log::error!("spool: remove {}: {e}", name.id),
    }
    finished.is_ok()
}

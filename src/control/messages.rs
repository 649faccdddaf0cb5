//! Reads the messages of the queue that a selection matches, with the state of each recipient.
//!
//! The messages are read from the spool. The daemon adds what its queue knows: which jobs run, are
//! ready or wait. Without a daemon, the states follow from the spool and the clock. A million
//! messages may be in the spool, so nothing but their names is kept, and an entry whose name rules
//! it out is not opened.

use std::collections::{HashMap, HashSet};
use std::io;
use std::ops::ControlFlow::{self, Break, Continue};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::selection::{Selection, State};
use super::visible;
use crate::activity::{self, Activity};
use crate::address::Address;
use crate::destination::Destination;
use crate::envelope::Recipient;
use crate::outgoing::Reason;
use crate::queue::{JobProgress, KnownEntry, KnownJob, RunningJob};
use crate::retry::{Schedule, wait_for_release};
use crate::spool::{Entry, EntryName, Place, QueueId, RecipientEntry, Spool, Unusable};
use crate::sys;

/// The number of entries about which the queue is asked at once.
const BATCH: usize = 128;
/// How long a walk may go on without a call of [`Walk::idle`].
const MAX_SILENCE: Duration = Duration::from_secs(5);

/// Asks the queue.
pub trait Live {
    /// What the queue knows about these entries. The answer is shorter than the question if the queue has ended.
    fn look(&self, ids: Vec<QueueId>) -> Vec<Option<KnownEntry>>;
    /// The jobs that are running.
    fn running(&self) -> Vec<RunningJob>;
}

/// A walk through the messages that a selection matches, the oldest first.
pub struct Walk<'a> {
    /// The spool.
    pub spool: &'a Arc<Spool>,
    /// The retry intervals.
    pub schedule: Schedule,
    /// The messages that are wanted.
    pub selection: &'a Selection,
    /// Asks the queue; `None` without a daemon.
    pub live: Option<&'a dyn Live>,
    /// If this is a uid, only messages that this user has submitted with sendmail are wanted.
    pub submitted_by: Option<u32>,
}

/// A message that is wanted, or an entry that cannot be read now.
pub enum Found {
    /// A message.
    Message(Box<Message>),
    /// An entry that cannot be read, and the reason.
    Unreadable(EntryName, String),
}

impl Found {
    /// The queue id.
    pub fn id(&self) -> QueueId {
        match self {
            Self::Message(message) => message.entry.id(),
            Self::Unreadable(name, _) => name.id,
        }
    }

    /// The size of the message in bytes; that of the file if it cannot be read.
    pub fn size(&self) -> u64 {
        match self {
            Self::Message(message) => message.entry.content_size(),
            Self::Unreadable(name, _) => name.size,
        }
    }
}

/// A message in the queue.
pub struct Message {
    /// The entry.
    pub entry: Entry,
    /// The selected recipients that still wait for the message.
    pub recipients: Vec<Waiting>,
    /// The time after which a deferral is the last one, in seconds since 1970.
    pub expires: u64,
}

/// A recipient that waits for a message.
pub struct Waiting {
    /// The recipient.
    pub recipient: Recipient,
    /// The state.
    pub state: State,
    /// The time of the last attempt, in seconds since 1970; 0 for none.
    pub last: u64,
    /// The time of the next attempt, in seconds since 1970; `None` if it is not known, or now.
    pub next: Option<u64>,
    /// The limit that keeps the message waiting, and the time from which it may start, in seconds since
    /// 1970; `None` if the limits of the destination do not delay the message.
    pub paced: Option<(u64, Reason)>,
    /// Where the queue sends the message; `None` if that is not known, or if the sender may not know it.
    pub destination: Option<Arc<Destination>>,
    /// The duration of the attempt that is running, and what the worker is doing.
    pub attempt: Option<(Duration, Option<Activity>)>,
    /// Whether an alias leads to other addresses, which the sender must not see.
    pub is_hidden: bool,
}

/// The number and the total size of the messages of a walk.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Total {
    /// The number of messages.
    pub messages: u64,
    /// The size of the messages, in bytes.
    pub octets: u64,
    /// Whether the walk has ended at the limit of the selection.
    pub is_cut: bool,
}

impl Walk<'_> {
    /// Calls `take` for each wanted message. `idle` is called whenever some time has passed without
    /// a message.
    ///
    /// # Errors
    /// Those of reading the directories of the spool, of `take` and of `idle`.
    pub fn run(
        &self,
        mut take: impl FnMut(Found) -> io::Result<()>,
        idle: &mut dyn FnMut() -> io::Result<()>,
    ) -> io::Result<Total> {
        let mut total = Total::default();
        if self.spool.is_unused()? {
            return Ok(total);
        }
        let now = sys::now();
        let mut heard = Instant::now();
        for names in self.names(now)?.chunks(BATCH) {
            let known = self.live.map(|live| live.look(names.iter().map(|name| name.id).collect())).unwrap_or_default();
            for (name, known) in names.iter().zip(known.into_iter().chain(std::iter::repeat_with(|| None))) {
                let step = match self.find(*name, known.as_ref(), now) {
                    None => Continue(()),
                    Some(found) => {
                        let step = total.add(self.selection, found.size());
                        if step.is_continue() {
                            heard = Instant::now();
                            take(found)?;
                        }
                        step
                    }
                };
                if step.is_break() {
                    return Ok(total);
                }
                if heard.elapsed() >= MAX_SILENCE {
                    heard = Instant::now();
                    idle()?;
                }
            }
        }
        Ok(total)
    }

    /// The names of all entries that the selection does not rule out, sorted by age.
    fn names(&self, now: u64) -> io::Result<Vec<EntryName>> {
        let running: Option<HashSet<QueueId>> = match self.live {
            Some(live) if self.selection.state == Some(State::Running) => {
                Some(live.running().iter().map(|job| job.entry.id).collect())
            }
            _ => None,
        };
        let is_wanted = |name: &EntryName| {
            self.selection.admits(name, now) && running.as_ref().is_none_or(|ids| ids.contains(&name.id))
        };
        let mut names = Vec::new();
        for place in [Place::New, Place::Cur, Place::Hold] {
            // A message that is not in `hold/` is not held.
            if self.selection.state != Some(State::Held) || place == Place::Hold {
                names.extend(self.spool.entries_in(place)?.into_iter().filter(is_wanted));
            }
        }
        names.sort_unstable();
        // A message that moved from new/ to cur/ while the names were read is listed once.
        names.dedup_by_key(|name| name.id);
        Ok(names)
    }

    /// Reads an entry; `None` if it is not wanted, or gone.
    fn find(&self, name: EntryName, known: Option<&KnownEntry>, now: u64) -> Option<Found> {
        let entry = match self.spool.entry(name) {
            Ok(entry) => entry,
            // A message that cannot be read may have any sender, recipients and submitter.
            Err(_) if self.submitted_by.is_some() || self.is_selective() => return None,
            Err(Unusable::Later(why)) => return Some(Found::Unreadable(name, why.to_owned())),
            Err(Unusable::Io(e)) => return Some(Found::Unreadable(name, e.to_string())),
            // The message was delivered meanwhile, or is corrupt and will be set aside by the
            // daemon.
            Err(Unusable::Gone | Unusable::Corrupt(_)) => return None,
        };
        if self.selection.from.as_ref().is_some_and(|from| !from.matches(entry.sender())) {
            return None;
        }
        let jobs = known.map(jobs_by_number).unwrap_or_default();
        let recipients = entry
            .recipients()
            .iter()
            .filter(|to| to.record.state.is_open())
            .map(|to| self.waiting(&entry, to, jobs.get(&to.reference().number).copied(), now));
        let recipients = match self.submitted_by {
            None => recipients.collect(),
            Some(_) => for_sender(recipients),
        };
        let recipients: Vec<Waiting> = recipients
            .into_iter()
            .filter(|to| self.selection.selects(&to.recipient.address, to.recipient.original.as_ref(), to.state))
            .collect();
        if recipients.is_empty() && self.selection.is_about_recipients()
            || self.submitted_by.is_some_and(|uid| visible::submitter(&entry) != Some(uid))
        {
            return None;
        }
        let expires = entry.window().start.saturating_add(self.schedule.expire_after.as_secs());
        Some(Found::Message(Box::new(Message { entry, recipients, expires })))
    }

    /// Whether the content of an entry decides whether it is wanted.
    fn is_selective(&self) -> bool {
        self.selection.from.is_some() || self.selection.is_about_recipients()
    }

    fn waiting(&self, entry: &Entry, to: &RecipientEntry, job: Option<&KnownJob>, now: u64) -> Waiting {
        let last = to.record.last;
        let release = entry.options().release.filter(|release| !wait_for_release(*release, now).is_zero());
        let due = || self.schedule.next_within(entry.window(), last, entry.id().seed());
        let of_time = |due: u64| match self.schedule.wait(due, now) {
            Duration::ZERO => (State::Ready, None),
            _ => (State::Deferred, Some(due)),
        };
        let mut attempt = None;
        let (state, next) = match job.map(|job| job.progress) {
            _ if entry.name().place == Place::Hold => (State::Held, None),
            Some(JobProgress::Running(worker, since)) => {
                attempt = Some((since, activity::of(worker)));
                (State::Running, None)
            }
            Some(JobProgress::Kept(until)) => (State::Scheduled, Some(until)),
            Some(JobProgress::Ready) => (State::Ready, None),
            Some(JobProgress::Waiting(due)) => of_time(due),
            None if release.is_some() => (State::Scheduled, release),
            None => of_time(due()),
        };
        let destination = job.map(|job| Arc::clone(&job.destination));
        let paced = job.and_then(|job| job.paced).filter(|_| state == State::Ready);
        let recipient = to.recipient.clone();
        Waiting { recipient, state, last, next, paced, destination, attempt, is_hidden: false }
    }
}

impl Total {
    /// Counts a message, unless the limit is reached.
    fn add(&mut self, selection: &Selection, size: u64) -> ControlFlow<()> {
        if selection.limit.is_some_and(|limit| self.messages >= limit as u64) {
            self.is_cut = true;
            return Break(());
        }
        self.messages += 1;
        self.octets = self.octets.saturating_add(size);
        Continue(())
    }
}

/// The recipients as the sender may see them: each address that the sender gave, once. If an alias
/// leads to several addresses, the one that comes first in the order of the states stands for all.
fn for_sender(recipients: impl Iterator<Item = Waiting>) -> Vec<Waiting> {
    let mut shown: Vec<Waiting> = Vec::new();
    let mut places: HashMap<Address, usize> = HashMap::new();
    for mut to in recipients {
        to.is_hidden = visible::is_replaced(&to.recipient);
        to.recipient = visible::as_given(&to.recipient);
        match places.get(&to.recipient.address).and_then(|place| shown.get_mut(*place)) {
            None => {
                places.insert(to.recipient.address.clone(), shown.len());
                shown.push(to);
            }
            Some(other) => {
                let order = |to: &Waiting| State::ALL.iter().position(|state| *state == to.state);
                if order(&to) < order(other) {
                    *other = to;
                }
                other.is_hidden = true;
            }
        }
    }
    shown
}

/// The job of each recipient, by the recipient's number.
fn jobs_by_number(known: &KnownEntry) -> HashMap<u32, &KnownJob> {
    known.jobs.iter().flat_map(|job| job.recipients.iter().map(move |number| (*number, job))).collect()
}

//! Asks the next host, while a client waits for the reply to RCPT, whether a recipient exists (a
//! call-out), so that nothing is accepted that would bounce.
//!
//! - `answer`: what the outcome of a call-out says about the recipient
//! - `memory`: the answers that are remembered, and their journal
//!
//! [`Callouts::ask`] answers from the memory if it can. Otherwise it has a thread make the call-out,
//! and waits for the answer, but not longer than [`WAIT`]. The thread goes on when nobody waits any
//! more, so that its answer is there when the client tries again. If there is no answer, an older one
//! holds: a recipient that the host has accepted before is accepted while the host is away.
//!
//! What clients can cause is limited: the call-outs to one destination and in all, the sessions that
//! wait, and their time. Places are kept for destinations that have none, so that slow hosts do not keep
//! other hosts from being asked. While one session asks about a recipient, others wait for the same answer.
//! After a host has failed, it is left alone for [`PAUSE`]. A host that accepts no further connection
//! has not failed: the session goes on waiting, and asks again after [`AGAIN`].
//!
//! This module makes no connection: the [`Host`] that the caller provides does.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::{Duration, Instant};

use crate::address::Address;
use crate::destination::HostTarget;
use crate::log;
use crate::outcome::Outcome;
use crate::policy::rcpt::NextHost;
use crate::state::State;
use crate::sys;

mod answer;
mod memory;

use memory::{Files, Memory};
pub use memory::{Remembered, Told};

/// The maximum time that a session waits for an answer.
const WAIT: Duration = Duration::from_secs(20);
/// The interval at which a waiting session checks whether it has to end.
const POLL: Duration = Duration::from_millis(200);
/// The time for which a host is left alone after it has failed.
const PAUSE: Duration = Duration::from_secs(30);
/// The time after which a destination is asked again that could not be asked just now.
const AGAIN: Duration = Duration::from_millis(500);
/// The maximum number of call-outs to one destination at a time.
const MAX_OF_DESTINATION: usize = 4;
/// The maximum number of call-outs at a time, if each destination has several.
const MAX_RUNNING: usize = 32;
/// The maximum number of call-outs beyond [`MAX_RUNNING`], each the only one to its destination. So a few
/// slow destinations do not keep all others from being asked.
const MAX_FIRST: usize = 32;
/// The maximum time of a call-out: [`WAIT`], and the rest for the question about a random recipient.
const CALL_LIMIT: Duration = Duration::from_secs(30);
/// The time without an answer after which a session that has waited in vain has the destination paused.
const SILENCE: Duration = Duration::from_secs(10);
/// The size of a thread's stack, in bytes: that of a worker's.
const STACK: usize = 512 << 10;
/// The number of destinations at which those that are not in use are dropped.
const MAX_DESTINATIONS: usize = 1000;

/// The hosts of a destination, which can be asked about one recipient after another.
pub trait Host: Send {
    /// Asks about a recipient. The outcome is `Delivered` if a host accepts it. `None` if no host can be
    /// asked just now, which says nothing about the hosts. The question ends at `until`.
    fn ask(&mut self, recipient: &Address, until: Instant) -> Option<Outcome>;
}

/// A question about one recipient.
#[derive(Debug, Clone)]
pub struct Question {
    /// The id of the session, for the log.
    pub session: String,
    /// The recipient, as the host will get it.
    pub recipient: Address,
    /// The name of the destination.
    pub destination: Arc<str>,
    /// Whether the destination is a mail store.
    pub is_store: bool,
}

impl Question {
    /// Asks about a recipient at the hosts of a destination.
    pub fn new(session: &str, recipient: &Address, target: &HostTarget) -> Self {
        Self {
            session: session.to_owned(),
            recipient: recipient.clone(),
            destination: target.to_string().into(),
            is_store: matches!(target, HostTarget::Store(_)),
        }
    }
}

/// The call-outs of all sessions.
#[derive(Debug, Clone)]
pub struct Callouts(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
    /// The journal. Its lock comes before that of `inner`: see [`Files`].
    files: Files,
    /// Notified when a call-out has an answer, and when it has ended.
    changed: Condvar,
}

#[derive(Debug)]
struct Inner {
    memory: Memory,
    /// The recipients that are being asked about, with their destinations.
    asked: HashSet<(Arc<str>, Address)>,
    destinations: HashMap<Arc<str>, Load>,
    /// The number of call-outs that run.
    running: usize,
    /// The number of sessions that wait.
    waiting: usize,
}

/// What goes on at one destination.
#[derive(Debug, Default)]
struct Load {
    running: usize,
    waiting: usize,
    /// The time of the last answer while call-outs have been running, or else of their beginning.
    heard: Option<Instant>,
    /// The time until which the destination is left alone.
    paused: Option<Instant>,
    /// When a call-out last found that the destination could not be asked just now.
    busy: Option<Instant>,
}

impl Callouts {
    /// The call-outs whose answers are kept in `state`.
    pub fn kept(state: &State) -> Self {
        let inner = Inner {
            memory: Memory::default(),
            asked: HashSet::new(),
            destinations: HashMap::new(),
            running: 0,
            waiting: 0,
        };
        Self(Arc::new(Shared { inner: Mutex::new(inner), files: Files::kept(state), changed: Condvar::new() }))
    }

    /// Returns what the next host says about a recipient. `room` is the maximum number of sessions
    /// that wait at a time. `host` makes what asks the host. When `is_over` returns true, the session
    /// waits no longer.
    pub fn ask(
        &self,
        question: &Question,
        room: usize,
        host: impl Fn() -> Box<dyn Host>,
        is_over: impl Fn() -> bool,
    ) -> NextHost {
        let answer = self.wait(question, room, host, is_over);
        if !matches!(answer, None | Some(NextHost::NoAnswer)) {
            return answer.unwrap_or(NextHost::NoAnswer);
        }
        // The host is away, or is not sure. What it has said before holds.
        let inner = self.0.lock();
        let Question { recipient, destination, .. } = question;
        let was_accepted = inner.memory.was_accepted(recipient, destination, sys::now());
        if was_accepted { NextHost::Accepted } else { NextHost::NoAnswer }
    }

    /// Waits for a fresh answer; `None` if there is none in time.
    fn wait(
        &self,
        question: &Question,
        room: usize,
        host: impl Fn() -> Box<dyn Host>,
        is_over: impl Fn() -> bool,
    ) -> Option<NextHost> {
        let (until, mut begun, mut place) = (Instant::now() + WAIT, None, None);
        self.0.files.read_if_due(&self.0.inner, sys::now());
        let mut inner = self.0.lock();
        loop {
            if let Some(known) = inner.find(question).filter(|known| known.is_fresh) {
                drop(inner);
                return Some(known.answer);
            }
            let left = until.saturating_duration_since(Instant::now());
            // If no call-out could begin, or only a moment ago, nothing is known about the hosts.
            if left.is_zero() && inner.load(&question.destination).is_silent() {
                inner.load(&question.destination).pause();
            }
            let is_useless = left.is_zero() || inner.load(&question.destination).is_paused() || is_over();
            if is_useless || place.is_none() && !inner.has_place(&question.destination, room) {
                drop(inner);
                return None;
            }
            place.get_or_insert_with(|| {
                inner.waiting += 1;
                inner.load(&question.destination).waiting += 1;
                Place { shared: &self.0, destination: &question.destination }
            });
            if inner.may_begin(question, begun) {
                begun = Some(Instant::now());
                let call = Call::begin(&self.0, &mut inner, question);
                // If the thread cannot start, the call ends here, and needs the lock for that.
                drop(inner);
                let host = host();
                let started = Builder::new().name("callout".into()).stack_size(STACK).spawn(move || call.run(host));
                if let Err(e) = started {
                    ::log::warn!("no thread for a call-out: {e}");
                    return None;
                }
                inner = self.0.lock();
                continue;
            }
            let waited = self.0.changed.wait_timeout(inner, left.min(POLL));
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Returns what is remembered about a recipient; `None` if nothing is. Nobody is asked.
    pub fn remembered(&self, question: &Question) -> Option<Remembered> {
        self.0.files.read_if_due(&self.0.inner, sys::now());
        self.0.lock().find(question)
    }

    /// Returns what is remembered about an address, or about `@domain` and all addresses in it; about
    /// all if `name` is `None`.
    pub fn told(&self, name: Option<&str>) -> Vec<Told> {
        self.0.files.read(&self.0.inner, sys::now());
        self.0.lock().memory.rows(name, sys::now())
    }

    /// Forgets what is remembered about an address, or about `@domain` and all addresses in it. Returns
    /// the number of answers.
    pub fn forget(&self, name: &str) -> usize {
        let now = sys::now();
        self.0.files.read(&self.0.inner, now);
        let count = self.0.lock().memory.forget(name, now);
        self.0.files.write(&self.0.inner, now);
        count
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsMut<Memory> for Inner {
    fn as_mut(&mut self) -> &mut Memory {
        &mut self.memory
    }
}

impl Inner {
    fn find(&self, question: &Question) -> Option<Remembered> {
        let Question { recipient, destination, is_store, .. } = question;
        self.memory.find(recipient, destination, *is_store, sys::now())
    }

    fn load(&mut self, destination: &Arc<str>) -> &mut Load {
        if self.destinations.len() >= MAX_DESTINATIONS && !self.destinations.contains_key(destination) {
            self.destinations.retain(|_, load| load.running + load.waiting > 0 || load.is_paused());
        }
        self.destinations.entry(Arc::clone(destination)).or_default()
    }

    /// Whether one more session may wait for a destination, if at most `room` sessions may wait. All
    /// sessions for one destination take at most half of the room. The last quarter of the room is for
    /// destinations for which no session waits.
    fn has_place(&mut self, destination: &Arc<str>, room: usize) -> bool {
        let of_destination = self.load(destination).waiting;
        let room_now = if of_destination == 0 { room } else { room - room / 4 };
        self.waiting < room_now && of_destination < room.div_ceil(2)
    }

    /// Whether a call-out with this question may begin. It may not while the same question is asked.
    /// `begun` is when the session has begun one before. It begins another one only if the destination
    /// could not be asked then.
    fn may_begin(&mut self, question: &Question, begun: Option<Instant>) -> bool {
        let is_asked = self.asked.contains(&key(question));
        let Load { running, busy, .. } = *self.load(&question.destination);
        let max = if running == 0 { MAX_RUNNING + MAX_FIRST } else { MAX_RUNNING };
        let is_due = busy.is_none_or(|at| at.elapsed() >= AGAIN) && begun.is_none_or(|begun| busy >= Some(begun));
        is_due && !is_asked && self.running < max && running < MAX_OF_DESTINATION
    }
}

fn key(question: &Question) -> (Arc<str>, Address) {
    (Arc::clone(&question.destination), question.recipient.clone())
}

impl Load {
    fn is_paused(&self) -> bool {
        self.paused.is_some_and(|until| Instant::now() < until)
    }

    /// Whether call-outs are running, and none has had an answer for a while.
    fn is_silent(&self) -> bool {
        self.running > 0 && self.heard.is_some_and(|at| at.elapsed() >= SILENCE)
    }

    fn pause(&mut self) {
        self.paused = Some(Instant::now() + PAUSE);
    }
}

/// The place of a session that waits. It is given back when the value is dropped.
struct Place<'a> {
    shared: &'a Shared,
    destination: &'a Arc<str>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut inner = self.shared.lock();
        inner.waiting -= 1;
        inner.load(self.destination).waiting -= 1;
    }
}

/// A call-out that runs. It counts until the value is dropped.
struct Call {
    shared: Arc<Shared>,
    question: Question,
}

impl Call {
    fn begin(shared: &Arc<Shared>, inner: &mut Inner, question: &Question) -> Self {
        inner.asked.insert(key(question));
        inner.running += 1;
        let load = inner.load(&question.destination);
        if load.running == 0 {
            load.heard = Some(Instant::now());
        }
        load.running += 1;
        Self { shared: Arc::clone(shared), question: question.clone() }
    }

    /// Asks about the recipient. If the host accepts it, asks about a random recipient too, unless it
    /// is known whether the host accepts all recipients of the domain.
    fn run(self, mut host: Box<dyn Host>) {
        let Question { recipient, destination, .. } = &self.question;
        let begun = Instant::now();
        let Some(outcome) = host.ask(recipient, begun + WAIT) else {
            self.shared.lock().load(destination).busy = Some(Instant::now());
            return;
        };
        self.log((recipient, false), &outcome, begun);
        let answer = answer::read(&outcome);
        let mut inner = self.shared.lock();
        let now = sys::now();
        inner.memory.note(recipient, destination, answer, now);
        let load = inner.load(destination);
        (load.paused, load.heard) = (None, Some(Instant::now()));
        if answer::is_about_host(&outcome) {
            load.pause();
        }
        inner.asked.remove(&key(&self.question));
        let is_done = answer != NextHost::Accepted || inner.memory.knows_domain(recipient, destination, now);
        drop(inner);
        self.shared.changed.notify_all();
        self.shared.files.write(&self.shared.inner, now);
        let Some(random) = (!is_done).then(|| random(recipient)).flatten() else { return };
        let (until, begun) = (begun + CALL_LIMIT, Instant::now());
        let Some(outcome) = host.ask(&random, until) else { return };
        if !answer::is_about_host(&outcome) {
            // A host that does not accept this recipient does not accept all.
            let is_accepted = answer::read(&outcome) == NextHost::Accepted;
            let answer = if is_accepted { NextHost::Accepted } else { NextHost::Unknown };
            let now = sys::now();
            self.shared.lock().memory.note_domain(recipient, destination, answer, now);
            self.shared.files.write(&self.shared.inner, now);
        }
        self.log((&random, true), &outcome, begun);
    }

    fn log(&self, (recipient, is_random): (&Address, bool), outcome: &Outcome, begun: Instant) {
        log::asked(&log::Asked {
            session: &self.question.session,
            recipient,
            destination: &self.question.destination,
            is_random,
            result: word(answer::read(outcome)),
            outcome,
            time: begun.elapsed(),
        });
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut inner = self.shared.lock();
        inner.asked.remove(&key(&self.question));
        inner.running -= 1;
        inner.load(&self.question.destination).running -= 1;
        drop(inner);
        self.shared.changed.notify_all();
    }
}

/// The word for an answer in the log and in listings.
pub fn word(answer: NextHost) -> &'static str {
    match answer {
        NextHost::Accepted => "accepted",
        NextHost::Unknown => "unknown",
        NextHost::Full(_) => "full",
        NextHost::Refused(_) => "refused",
        NextHost::NoAnswer => "no-answer",
    }
}

/// An address in the domain of `recipient` that nobody has. `None` if there are no random numbers.
fn random(recipient: &Address) -> Option<Address> {
    let number = getrandom::u64().ok()?;
    Some(recipient.with_local(&format!("no-such-user-{number:016x}")))
}

#[cfg(test)]
mod tests;

//! Changes messages by their queue ids: holds, releases, removes, returns, requeues and flushes
//! them.
//!
//! An entry is first withdrawn from the queue, so that none of its jobs runs while the entry is
//! changed. Running jobs are waited for, but not for long. The entries of one request are withdrawn
//! together, and the directories are synced once for all of them.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::actions::Control;
use super::messages::Live;
use crate::log;
use crate::queue::{Event, GivenBack, Requester, Selector, Withdrawn};
use crate::spool::{EntryName, NotMoved, Place, QueueId};
use crate::worker::{self, NotRequeued, Returned};

/// How long a request waits for the end of running jobs.
const JOB_TIMEOUT: Duration = Duration::from_secs(20);

/// Why a message is not changed while an attempt for it is under way.
const BEING_DELIVERED: &str = "it is being delivered now";

/// A change to messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A message is kept in `hold/` and not tried.
    Hold,
    /// A held message is tried again, or a message is tried before the time that its sender has set.
    Release,
    /// A message is deleted.
    Remove,
    /// A message is returned to its sender, for this reason.
    Bounce(String),
    /// The recipients of a message are looked up anew.
    Requeue,
    /// A message is tried now.
    Flush,
}

impl Change {
    /// Reads the words of a request: the name of the change, for `bounce` the reason, and the ids,
    /// which are returned as they are. `None` if there is no such change.
    pub fn read<'a>(words: &'a [&'a str]) -> Option<(Self, &'a [&'a str])> {
        let (name, rest) = words.split_first()?;
        Some(match *name {
            "hold" => (Self::Hold, rest),
            "release" => (Self::Release, rest),
            "remove" => (Self::Remove, rest),
            "requeue" => (Self::Requeue, rest),
            "flush" => (Self::Flush, rest),
            "bounce" => {
                let (why, ids) = rest.split_first()?;
                let why: String = why.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
                (Self::Bounce(why.trim().to_owned()), ids)
            }
            _ => return None,
        })
    }
}

/// Whether a change that was not made may succeed later, and a text that says why it was not made.
#[derive(Debug, Clone)]
pub struct NotChanged {
    pub is_temporary: bool,
    pub why: String,
}

/// The withdrawal of an entry, which ends when this value is dropped.
struct Withdrawal<'a> {
    events: &'a Sender<Event>,
    id: QueueId,
    requester: Requester,
    given_back: GivenBack,
}

impl Drop for Withdrawal<'_> {
    fn drop(&mut self) {
        let _ = self.events.send(Event::GiveBack(self.id, self.requester.clone(), self.given_back));
    }
}

/// An entry that the queue was asked to withdraw.
struct Asked {
    id: QueueId,
    requester: Requester,
    answer: Receiver<Withdrawn>,
}

/// A withdrawn entry, and its name if the queue knew it.
type Begun<'a> = (Withdrawal<'a>, Option<EntryName>);

impl Control {
    /// Changes messages, as `user` demands. Returns the results in the same order.
    pub(super) fn change(&self, change: &Change, ids: &[QueueId], user: &str) -> Vec<Result<(), NotChanged>> {
        // Until the queue knows all entries, there may be two files with the same id, and it is not
        // yet decided which one is kept.
        if !self.site.is_scanned.load(Ordering::Acquire) {
            return vec![Err(later("the spool is still being read")); ids.len()];
        }
        if *change == Change::Flush {
            return self.flush_messages(ids, user);
        }
        let asked: Vec<_> = ids.iter().map(|id| self.ask_for(*id)).collect();
        let deadline = Instant::now() + JOB_TIMEOUT;
        let begun: Vec<_> = asked.into_iter().map(|asked| self.withdrawn(asked?, deadline)).collect();
        let unknown = begun.iter().flatten().filter(|(_, known)| known.is_none());
        let found = self.site.spool.find_each(&unknown.map(|(withdrawal, _)| withdrawal.id).collect());
        let found = found.map_err(|e| NotChanged::from(NotMoved::Io(e)));
        let mut results: Vec<_> = Vec::with_capacity(begun.len());
        // The entries are given back when the changes are synced.
        let mut withdrawals = Vec::with_capacity(begun.len());
        for begun in begun {
            results.push(begun.and_then(|(mut withdrawal, known)| {
                let (given_back, result) = self.change_one(change, (withdrawal.id, known), &found, user);
                withdrawal.given_back = given_back;
                withdrawals.push(withdrawal);
                result
            }));
        }
        if results.iter().any(Result::is_ok)
            && let Err(e) = self.site.spool.sync_changes()
        {
            // The entries have moved, but a power cut may undo that.
            ::log::error!("spool: sync the directories: {e}");
            results.iter_mut().filter(|result| result.is_ok()).for_each(|result| *result = Err(later(&e.to_string())));
        }
        results
    }

    /// Asks the queue to withdraw an entry.
    fn ask_for(&self, id: QueueId) -> Result<Asked, NotChanged> {
        let (sender, answer) = bounded(1);
        let requester = Requester::default();
        let event = Event::Withdraw(id, requester.clone(), sender);
        self.events.send(event).map_err(|_| later("the daemon is stopping"))?;
        Ok(Asked { id, requester, answer })
    }

    /// Waits until an entry is withdrawn.
    fn withdrawn(&self, asked: Asked, deadline: Instant) -> Result<Begun<'_>, NotChanged> {
        let Asked { id, requester, answer } = asked;
        let answer = answer.recv_timeout(deadline.saturating_duration_since(Instant::now()));
        // Only an entry that this request has withdrawn, or may still withdraw, is given back.
        let begun = || Withdrawal { events: &self.events, id, requester, given_back: GivenBack::Unchanged };
        match answer {
            Ok(Withdrawn::Yes(known)) => Ok((begun(), known)),
            Ok(Withdrawn::Gone) => Err(NotMoved::Gone.into()),
            Ok(Withdrawn::Unrecorded) => Err(later("the outcome of an attempt is not recorded yet")),
            Ok(Withdrawn::Busy) => Err(later("another request for it is under way")),
            Err(_) => {
                drop(begun());
                Err(later(BEING_DELIVERED))
            }
        }
    }

    /// Changes a withdrawn entry. `known` is its name, if the queue knew it, and `found` has the
    /// names of the others. Returns what the queue does with it next, also after an error.
    fn change_one(
        &self,
        change: &Change,
        (id, known): (QueueId, Option<EntryName>),
        found: &Result<HashMap<QueueId, EntryName>, NotChanged>,
        user: &str,
    ) -> (GivenBack, Result<(), NotChanged>) {
        let name = known.map_or_else(|| self.name_of_unknown(change, id, found), Ok);
        let mut name = match name {
            Ok(name) => name,
            Err(why) => return (GivenBack::Unchanged, Err(why)),
        };
        let mut before = name;
        let mut result = self.change_entry(change, &mut name, user);
        if known.is_some() && matches!(result, Err(Refused::NotMoved(NotMoved::Gone))) {
            // It may have been moved by hand.
            let found = self.site.spool.find_each(&HashSet::from([id])).map(|found| found.get(&id).copied());
            match found {
                Ok(Some(elsewhere)) if elsewhere != name => {
                    (name, before) = (elsewhere, elsewhere);
                    result = self.change_entry(change, &mut name, user);
                }
                Ok(_) => {}
                Err(e) => result = Err(NotMoved::from(e).into()),
            }
        }
        match result {
            Ok(given_back) => (given_back, Ok(())),
            // It was moved out of `hold/` by hand, and the queue does not know it yet.
            Err(Refused::NotMoved(NotMoved::NotHeld)) if known.is_none() => {
                log::released(&id, user);
                (GivenBack::At(name), Ok(()))
            }
            Err(refused) if name != before => (GivenBack::At(name), Err(refused.into())),
            Err(refused) => (GivenBack::Unchanged, Err(refused.into())),
        }
    }

    /// The name of a withdrawn entry that the queue does not know, as it was found.
    fn name_of_unknown(
        &self,
        change: &Change,
        id: QueueId,
        found: &Result<HashMap<QueueId, EntryName>, NotChanged>,
    ) -> Result<EntryName, NotChanged> {
        let name = *found.as_ref().map_err(NotChanged::clone)?.get(&id).ok_or(NotMoved::Gone)?;
        // A session may be about to deliver it. A change of one rename comes before the delivery or
        // after it, but the others have several steps.
        let is_one_rename = matches!(change, Change::Hold | Change::Release);
        if name.place == Place::New && !is_one_rename && self.settled(std::iter::once(name)).is_empty() {
            return Err(later(BEING_DELIVERED));
        }
        Ok(name)
    }

    /// Changes a withdrawn entry with this name, and updates the name.
    fn change_entry(&self, change: &Change, name: &mut EntryName, user: &str) -> Result<GivenBack, Refused> {
        match self.try_change(change, name, user) {
            // A crash has come between the last recipient and the removal.
            Err(Refused::NotMoved(NotMoved::Settled)) => {
                if !worker::finish(&self.site.spool, *name) {
                    return Err(Refused::Later("it cannot be removed now".to_owned()));
                }
                match change {
                    Change::Remove => Ok(GivenBack::Left),
                    Change::Bounce(why) => {
                        log::returned(&name.id, why, user);
                        Ok(GivenBack::Left)
                    }
                    _ => Err(NotMoved::Gone.into()),
                }
            }
            result => result,
        }
    }

    fn try_change(&self, change: &Change, current: &mut EntryName, user: &str) -> Result<GivenBack, Refused> {
        let (spool, name) = (&self.site.spool, *current);
        let id = name.id;
        match change {
            // A message that is held already keeps its reason.
            Change::Hold if name.place == Place::Hold => {}
            Change::Hold => {
                spool.hold(name)?;
                let reason = format!("by {user}");
                spool.add_hold_note(id, crate::sys::now(), &reason);
                log::held(&id, &reason);
            }
            Change::Release => {
                let released = match name.place {
                    Place::Hold => spool.release(name)?,
                    Place::New | Place::Cur => spool.release_early(name, crate::sys::now())?,
                };
                log::released(&id, user);
                return Ok(GivenBack::At(released));
            }
            Change::Remove => spool.remove(name, |entry| {
                for addressee in entry.recipients().iter().filter(|to| to.record.state.is_open()) {
                    log::removed(&id, entry.sender(), &addressee.recipient, user);
                }
            })?,
            Change::Bounce(why) => {
                let Returned { derived, is_done } = worker::bounce(&self.site, current, why)?;
                derived.into_iter().for_each(|report| _ = self.events.send(Event::New(report)));
                if !is_done {
                    return Err(Refused::Later("the failures cannot be recorded now".to_owned()));
                }
                log::returned(&id, why, user);
            }
            Change::Requeue => {
                let count = worker::requeue(&self.site, current)?;
                log::requeued(&id, count, user);
                return Ok(GivenBack::At(*current));
            }
            Change::Flush => {}
        }
        Ok(GivenBack::Left)
    }

    /// Has messages tried now. Messages that were moved by hand, and that the queue does not know,
    /// are looked for.
    fn flush_messages(&self, ids: &[QueueId], user: &str) -> Vec<Result<(), NotChanged>> {
        let known = self.look(ids.to_vec());
        let unknown = ids.iter().zip(&known).filter(|(_, known)| known.is_none()).map(|(id, _)| *id);
        if let Ok(found) = self.site.spool.find_all(&unknown.collect()) {
            let _ = self.events.send(Event::Appeared(self.settled(found.into_iter())));
        }
        let flush = |id: &QueueId| match self.ask(|answer| Event::Flush(Selector::Message(*id), answer)) {
            Some(0) => Err(NotChanged { is_temporary: false, why: "nothing waits to be tried".to_owned() }),
            Some(_) => {
                log::flushed(id, user);
                Ok(())
            }
            None => Err(later("the daemon is stopping")),
        };
        ids.iter().map(flush).collect()
    }
}

/// Why an entry was not changed.
enum Refused {
    NotMoved(NotMoved),
    Later(String),
    Never(&'static str),
}

impl From<NotMoved> for Refused {
    fn from(not_moved: NotMoved) -> Self {
        Self::NotMoved(not_moved)
    }
}

impl From<NotRequeued> for Refused {
    fn from(error: NotRequeued) -> Self {
        match error {
            NotRequeued::NotMoved(not_moved) => Self::NotMoved(not_moved),
            NotRequeued::Later(why) => Self::Later(why),
            NotRequeued::Never(why) => Self::Never(why),
        }
    }
}

fn later(why: &str) -> NotChanged {
    NotChanged { is_temporary: true, why: why.to_owned() }
}

impl From<NotMoved> for NotChanged {
    fn from(not_moved: NotMoved) -> Self {
        let never = |why: &str| Self { is_temporary: false, why: why.to_owned() };
        match not_moved {
            NotMoved::Gone | NotMoved::Settled => never("there is no such message"),
            NotMoved::NotHeld => never("it is not held"),
            NotMoved::Interrupted => later("an interrupted delivery must be completed first: flush it"),
            NotMoved::Unusable(why) => never(why),
            NotMoved::Io(e) => later(&e.to_string()),
        }
    }
}

impl From<Refused> for NotChanged {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::NotMoved(not_moved) => not_moved.into(),
            Refused::Later(why) => later(&why),
            Refused::Never(why) => Self { is_temporary: false, why: why.to_owned() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_with_its_reason() {
        let ids = ["1K0TVZ6PH81DZ9JHPQF"];
        for (words, change) in [
            (&["hold", ids[0]][..], Some(Change::Hold)),
            (&["flush", ids[0]], Some(Change::Flush)),
            (&["bounce", " too\r\nold ", ids[0]], Some(Change::Bounce("too  old".to_owned()))),
            (&["bounce"], None),
            (&["delete", ids[0]], None),
            (&[], None),
        ] {
            let read = Change::read(words);
            assert_eq!(read.as_ref().map(|(change, _)| change), change.as_ref(), "{words:?}");
            assert!(read.is_none_or(|(_, rest)| rest == ids), "{words:?}");
        }
    }
}

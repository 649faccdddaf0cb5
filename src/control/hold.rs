//! Holds, releases and removes messages by their queue ids.
//!
//! The entry is first withdrawn from the queue, so that none of its jobs runs while the entry is
//! moved or removed. A running job is waited for, but not for long.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};

use super::actions::Control;
use crate::log;
use crate::queue::{Event, GivenBack, Requester, Withdrawn};
use crate::spool::{EntryName, NotMoved, Place, QueueId};

/// How long a request waits for the end of running jobs.
const JOB_TIMEOUT: Duration = Duration::from_secs(20);

/// A change to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The message is kept in `hold/` and not tried.
    Hold,
    /// A held message is tried again, or a message is tried before the time that its sender has set.
    Release,
    /// The message is deleted.
    Remove,
}

impl Change {
    /// The change with this name in a request.
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "hold" => Some(Self::Hold),
            "release" => Some(Self::Release),
            "remove" => Some(Self::Remove),
            _ => None,
        }
    }
}

/// Whether a change that was not made may succeed later, and a text that says why it was not made.
#[derive(Debug)]
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

impl Control {
    /// Changes a message, as `user` demands.
    pub(super) fn change(&self, change: Change, id: QueueId, user: &str) -> Result<(), NotChanged> {
        // Until the queue knows all entries, there may be two files with the same id, and it is not
        // yet decided which one is kept.
        if !self.site.is_scanned.load(Ordering::Acquire) {
            return Err(later("the spool is still being read"));
        }
        let (sender, receiver) = bounded(1);
        let requester = Requester::default();
        self.events
            .send(Event::Withdraw(id, requester.clone(), sender))
            .map_err(|_| later("the daemon is stopping"))?;
        let answer = receiver.recv_timeout(JOB_TIMEOUT);
        // Only an entry that this request has withdrawn, or may still withdraw, is given back.
        let begun = || Withdrawal { events: &self.events, id, requester, given_back: GivenBack::Unchanged };
        let (mut withdrawal, known) = match answer {
            Ok(Withdrawn::Yes(known)) => (begun(), known),
            Ok(Withdrawn::Gone) => return Err(NotMoved::Gone.into()),
            Ok(Withdrawn::Unrecorded) => return Err(later("the outcome of an attempt is not recorded yet")),
            Ok(Withdrawn::Busy) => return Err(later("another request for it is under way")),
            Err(_) => {
                drop(begun());
                return Err(later("it is being delivered now"));
            }
        };
        let name = match known {
            Some(known) => Some(known),
            None => self.site.spool.find(id, &[Place::Hold, Place::New, Place::Cur]).map_err(NotMoved::from)?,
        };
        withdrawal.given_back = self.change_entry(change, name.ok_or(NotMoved::Gone)?, user)?;
        Ok(())
    }

    /// Changes a withdrawn entry. Returns what the queue does with it next.
    fn change_entry(&self, change: Change, name: EntryName, user: &str) -> Result<GivenBack, NotMoved> {
        let (spool, id) = (&self.site.spool, name.id);
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
        }
        Ok(GivenBack::Left)
    }
}

fn later(why: &str) -> NotChanged {
    NotChanged { is_temporary: true, why: why.to_owned() }
}

impl From<NotMoved> for NotChanged {
    fn from(not_moved: NotMoved) -> Self {
        let never = |why: &str| Self { is_temporary: false, why: why.to_owned() };
        match not_moved {
            NotMoved::Gone => never("there is no such message"),
            NotMoved::NotHeld => never("it is not held"),
            NotMoved::Interrupted => later("an interrupted delivery must be completed first: flush it"),
            NotMoved::Unusable(why) => never(why),
            NotMoved::Io(e) => later(&e.to_string()),
        }
    }
}

//! Quotas of Maildirs: reserves room for a message, and knows at RCPT which mailboxes are full.
//!
//! The use of a Maildir is counted in a file there (`agent::quota`). At RCPT, what cannot be found
//! out quickly is unknown, and the recipient is accepted: the delivery decides. What an agent, a
//! process with the rights of the mailbox's user, has found out is remembered for a while, so that
//! recipients named again and again do not start agents again and again. A fault of the file never
//! delays mail: the message is delivered and not counted.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::agent::quota::{Limited, Reserved};
use super::agent::{AgentError, AgentPool, Request, Response};
use crate::envelope::{Action, Recipient};
use crate::outcome::Outcome;
use crate::reply::Status;
use crate::route::{Route, RoutedMail, Router};
use crate::users::{Contents, Mailbox, Owner, Quota, Size};

/// Maximum number of mailboxes whose use is remembered.
const MAX_KNOWN: usize = 10_000;
/// How long the use is remembered.
const KNOWN_FOR: Duration = Duration::from_secs(60);
/// How long the use is remembered if it cannot be found out again.
const KNOWN_AT_MOST: Duration = Duration::from_secs(15 * 60);
/// Maximum number of mailboxes that agents look at, or that are counted, at the same time.
const MAX_LOOKS: usize = 4;
/// Maximum number of final recipients of an address whose mailboxes are looked at.
const MAX_RECIPIENTS: usize = 8;

/// What is known about the use of mailboxes.
#[derive(Debug, Default)]
pub struct Quotas {
    known: Mutex<HashMap<PathBuf, Known>>,
    looks: AtomicUsize,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    /// The use; `None` if it could not be found out.
    contents: Option<Contents>,
    since: Instant,
}

/// One of the looks that are allowed at the same time.
struct Look<'a>(&'a AtomicUsize);

impl Drop for Look<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A mailbox into which a message does not fit.
#[derive(Debug, Clone, Copy)]
pub struct Full {
    /// The quota.
    pub quota: Quota,
    /// What the mailbox holds.
    pub contents: Contents,
}

/// The room for a message in a Maildir, counted before the message is delivered there.
#[derive(Debug)]
pub struct Room {
    maildir: PathBuf,
    limit: u64,
    size: u64,
    /// The inode number of the file in which the message is counted.
    inode: Option<u64>,
}

impl Quotas {
    /// If a message of `size` bytes does not fit into any of the mailboxes of these recipients,
    /// returns one of the quotas, and the use. Returns `None` if it fits or that is unknown.
    pub fn full(&self, agents: &AgentPool, router: &Router, recipients: &[Recipient], size: u64) -> Option<Full> {
        full_by(router, recipients, size, |mailbox, recipient| self.contents(agents, router, mailbox, recipient, size))
    }

    /// The use of a mailbox, for the question whether a message of `size` bytes fits.
    fn contents(
        &self,
        agents: &AgentPool,
        router: &Router,
        mailbox: &Mailbox,
        recipient: &Recipient,
        size: u64,
    ) -> Option<Contents> {
        let forwards = super::local::forward_files(router, mailbox, recipient);
        let is_ours = mailbox.owner == Owner::Server || !agents.rights().has_monitor();
        if is_ours {
            let limited = Limited { maildir: &mailbox.path, limit: mailbox.quota?.limit, patience: Duration::ZERO };
            if forwards.iter().any(|file| fs::symlink_metadata(file).is_ok()) {
                return None;
            }
            if let Ok(Some(contents)) = limited.contents(size, true) {
                return Some(contents);
            }
        }
        let known = if is_ours { None } else { self.known(&mailbox.path) };
        if let Some(known) = known.filter(|known| known.since.elapsed() < KNOWN_FOR) {
            return known.contents;
        }
        let Some(_look) = self.begin_look() else { return known?.contents };
        let contents = measure(agents, mailbox, forwards, size, true).ok().flatten();
        if !is_ours {
            self.note(&mailbox.path, contents);
        }
        contents
    }

    fn known(&self, path: &Path) -> Option<Known> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(path).copied().filter(|known| known.since.elapsed() < KNOWN_AT_MOST)
    }

    fn note(&self, path: &Path, contents: Option<Contents>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(path.to_owned(), Known { contents, since: Instant::now() });
    }

    /// Adds a message of `size` bytes to what is remembered.
    fn add(&self, path: &Path, size: u64) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Known { contents: Some(contents), .. }) = known.get_mut(path) {
            contents.size = contents.size.saturating_add(size);
            contents.messages += 1;
        }
    }

    fn begin_look(&self) -> Option<Look<'_>> {
        let look = Look(&self.looks);
        (self.looks.fetch_add(1, Ordering::Relaxed) < MAX_LOOKS).then_some(look)
    }

    /// Counts a message of `size` bytes that is about to be delivered into a Maildir, whose folder
    /// it may go into. Returns `None` if there is nothing to take back.
    ///
    /// # Errors
    /// The outcome of a message that does not fit.
    pub fn reserve(
        &self,
        agents: &AgentPool,
        (maildir, owner, quota): (&Path, &Owner, Quota),
        size: u64,
    ) -> Result<Option<Room>, Box<Outcome>> {
        let limit = quota.limit;
        let request = Request::Reserve { mailbox: maildir.to_owned(), limit, size };
        match agents.perform(owner, &request, None) {
            Ok(Response::Used(contents)) => {
                self.note(maildir, Some(contents));
                Err(Box::new(over(quota, contents, size).at(maildir.to_string_lossy())))
            }
            Ok(response) => {
                self.add(maildir, size);
                let inode = if let Response::Reserved(inode) = response { inode } else { None };
                Ok(Some(Room { maildir: maildir.to_owned(), limit, size, inode }))
            }
            Err(AgentError { doing, error }) => {
                ::log::warn!("the quota of {} is not applied: {doing}: {error}", maildir.display());
                Ok(None)
            }
        }
    }
}

impl Room {
    /// Makes sure that the message is still counted, after it was delivered.
    pub fn confirm(self, agents: &AgentPool, owner: &Owner) {
        let Self { maildir: mailbox, limit, size, inode: Some(inode) } = self else { return };
        // If this fails, the count is too low until the next one.
        let _ = agents.perform(owner, &Request::Confirm { mailbox, limit, size, inode }, None);
    }

    /// Takes back the count, because the message was not delivered.
    pub fn release(self, agents: &AgentPool, owner: &Owner) {
        let Self { maildir, limit, size, .. } = self;
        // If this fails, the count is too high until the next one.
        let _ = agents.perform(owner, &Request::Release { mailbox: maildir, limit, size }, None);
    }
}

/// Counts a message of `size` bytes in a Maildir of this process's user, if it fits and this takes
/// no time. Returns `None` if the delivery must be left to a worker.
pub fn reserve_at_once(maildir: &Path, quota: Quota, size: u64) -> Option<Room> {
    let limit = quota.limit;
    match (Limited { maildir, limit, patience: Duration::ZERO }).reserve(size) {
        Ok(Reserved::Yes(inode)) => Some(Room { maildir: maildir.to_owned(), limit, size, inode }),
        _ => None,
    }
}

/// Applies the rule of [`Quotas::full`] to what `contents` finds out about each mailbox.
pub fn full_by(
    router: &Router,
    recipients: &[Recipient],
    size: u64,
    mut contents: impl FnMut(&Mailbox, &Recipient) -> Option<Contents>,
) -> Option<Full> {
    let mut full = None;
    let all = recipients.iter().filter(|recipient| recipient.action != Action::Replaced);
    for (number, recipient) in all.enumerate() {
        let Route::Mailbox(mailbox) = router.route_of(recipient, &RoutedMail::default()) else { return None };
        let quota = mailbox.quota.filter(|_| number < MAX_RECIPIENTS)?;
        let contents = contents(&mailbox, recipient)?;
        if contents.leaves_room(size, quota.limit) {
            return None;
        }
        full = Some(Full { quota, contents });
    }
    full
}

/// Returns the use of a mailbox of this recipient, for an explanation: nothing is remembered, and
/// nothing is written. `None` if the mail goes elsewhere by a `.forward`.
///
/// # Errors
/// The reason why the use cannot be found out.
pub fn explain(
    agents: &AgentPool,
    router: &Router,
    mailbox: &Mailbox,
    recipient: &Recipient,
    size: u64,
) -> Result<Option<Contents>, String> {
    measure(agents, mailbox, super::local::forward_files(router, mailbox, recipient), size, false)
}

/// Returns the use of a mailbox. `None` if one of the files `forwards` exists, which redirect the
/// mail. If `keeps` is set, the result may be written into the mailbox.
///
/// # Errors
/// The reason why the use cannot be found out.
fn measure(
    agents: &AgentPool,
    mailbox: &Mailbox,
    forwards: Vec<PathBuf>,
    size: u64,
    keeps: bool,
) -> Result<Option<Contents>, String> {
    let limit = mailbox.quota.map_or(u64::MAX, |quota| quota.limit);
    let request = Request::Measure { mailbox: mailbox.path.clone(), limit, size, keeps, forwards };
    match agents.perform(&mailbox.owner, &request, None) {
        Ok(Response::Used(contents)) => Ok(Some(contents)),
        Ok(_) => Ok(None),
        Err(AgentError { doing, error }) => Err(format!("{doing}: {error}")),
    }
}

fn over(quota: Quota, contents: Contents, size: u64) -> Outcome {
    let (used, limit, size) = (Size(contents.size), Size(quota.limit), Size(size));
    let why = format!("the mailbox is full: it holds {used} of at most {limit}, and the message has {size}");
    match quota.is_final {
        true => Outcome::failed(Status(5, 2, 2), why),
        false => Outcome::deferred(Status(4, 2, 2), why),
    }
}

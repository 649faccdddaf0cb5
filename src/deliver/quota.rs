//! Quotas of Maildirs: reserves room for a message, and knows at RCPT which mailboxes are full.
//!
//! The use of a Maildir is counted in a file there (`agent::quota`). At RCPT, what cannot be found
//! out quickly is unknown, and the recipient is accepted: the delivery decides. What an agent, a
//! process with the rights of the mailbox's user, has found out is remembered for a while, so that
//! recipients named again and again do not start agents again and again. A fault of the file never
//! delays mail: the message is delivered and not counted.
//!
//! If the messages in a Maildir must be counted, one delivery does that. The others wait for it only
//! briefly, and are then deferred, so that they do not keep the workers from other mail.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
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
/// A Maildir whose messages could not be counted in at least this time is not counted again for
/// [`KNOWN_AT_MOST`], so that the next messages do not wait as long.
const SLOW: Duration = Duration::from_secs(5);
/// How long a delivery waits while another one counts the same Maildir.
const COUNT_WAIT: Duration = Duration::from_secs(2);
/// Maximum number of mailboxes that agents look at, or that are counted, at the same time.
const MAX_LOOKS: usize = 4;
/// Maximum number of final recipients of an address whose mailboxes are looked at.
const MAX_RECIPIENTS: usize = 8;

/// What is known about the use of mailboxes.
#[derive(Debug, Default)]
pub struct Quotas {
    known: Mutex<HashMap<PathBuf, Known>>,
    looks: AtomicUsize,
    /// The Maildirs that deliveries count at this moment.
    counting: Mutex<HashSet<PathBuf>>,
    /// Notified when one of these counts has ended.
    is_counted: Condvar,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    /// The use; `None` if it could not be found out.
    contents: Option<Contents>,
    /// Whether the files were counted, so that a lack of room is sure.
    is_counted: bool,
    /// Whether even a delivery had not enough time to count the files.
    is_uncountable: bool,
    since: Instant,
}

/// One of the looks that are allowed at the same time.
struct Look<'a>(&'a AtomicUsize);

impl Drop for Look<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The right to count a Maildir, until it is dropped.
struct Count<'a> {
    quotas: &'a Quotas,
    maildir: &'a Path,
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        self.quotas.counting().remove(self.maildir);
        self.quotas.is_counted.notify_all();
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
        let known = self.known(&mailbox.path);
        if known.is_some_and(|known| known.is_uncountable) {
            return None;
        }
        let limit = mailbox.quota?.limit;
        let has_room = |contents: Contents| contents.leaves_room(size, limit);
        // The file says more than what is remembered, unless counting has failed.
        let known = known
            .filter(|known| known.contents.is_none_or(|contents| !is_ours && (known.is_counted || has_room(contents))));
        if let Some(known) = known.filter(|known| known.since.elapsed() < KNOWN_FOR) {
            return known.contents;
        }
        let Some(_look) = self.begin_look() else { return known?.contents };
        let found = measure(agents, mailbox, forwards, size, true);
        if !is_ours || found.is_err() {
            let contents = found.as_ref().ok().copied().flatten();
            self.note(&mailbox.path, contents, contents.is_some_and(|contents| !has_room(contents)), false);
        }
        found.ok().flatten()
    }

    fn known(&self, path: &Path) -> Option<Known> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(path).copied().filter(|known| known.since.elapsed() < KNOWN_AT_MOST)
    }

    fn note(&self, path: &Path, contents: Option<Contents>, is_counted: bool, is_uncountable: bool) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(path.to_owned(), Known { contents, is_counted, is_uncountable, since: Instant::now() });
    }

    /// Adds a message of `size` bytes to what is remembered.
    fn add(&self, path: &Path, size: u64) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Known { contents: Some(contents), is_counted, .. }) = known.get_mut(path) {
            *is_counted = false;
            contents.size = contents.size.saturating_add(size);
            contents.messages += 1;
        }
    }

    fn begin_look(&self) -> Option<Look<'_>> {
        let look = Look(&self.looks);
        (self.looks.fetch_add(1, Ordering::Relaxed) < MAX_LOOKS).then_some(look)
    }

    fn counting(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.counting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns `None` if another delivery counts the Maildir.
    fn begin_count<'a>(&'a self, maildir: &'a Path) -> Option<Count<'a>> {
        self.counting().insert(maildir.to_owned()).then(|| Count { quotas: self, maildir })
    }

    /// Waits for the end of another delivery's count. Returns whether that is before `until`.
    fn await_count(&self, maildir: &Path, until: Instant) -> bool {
        let left = until.saturating_duration_since(Instant::now());
        let is_counting = |counting: &mut HashSet<PathBuf>| counting.contains(maildir);
        drop(self.is_counted.wait_timeout_while(self.counting(), left, is_counting));
        Instant::now() < until
    }

    /// Counts a message of `size` bytes that is about to be delivered into a Maildir, whose folder
    /// it may go into. Returns `None` if there is nothing to take back.
    ///
    /// # Errors
    /// The outcome of a message that does not fit, or that waits for another delivery's count.
    pub fn reserve(
        &self,
        agents: &AgentPool,
        (maildir, owner, quota): (&Path, &Owner, Quota),
        size: u64,
    ) -> Result<Option<Room>, Box<Outcome>> {
        let (limit, until) = (quota.limit, Instant::now() + COUNT_WAIT);
        let mut count = None;
        let (started, result) = loop {
            if self.known(maildir).is_some_and(|known| known.is_uncountable) {
                return Ok(None);
            }
            let counts = count.is_some();
            let request = Request::Reserve { mailbox: maildir.to_owned(), limit, size, counts };
            let started = Instant::now();
            match agents.perform(owner, &request, None) {
                Ok(Response::Done) if !counts => count = self.begin_count(maildir),
                result => break (started, result),
            }
            if count.is_none() && !self.await_count(maildir, until) {
                let outcome = Outcome::deferred(Status(4, 2, 0), "the messages in the mailbox are being counted");
                return Err(Box::new(outcome.at(maildir.to_string_lossy())));
            }
        };
        match result {
            Ok(Response::Used(contents)) => {
                self.note(maildir, Some(contents), true, false);
                Err(Box::new(over(quota, contents, size).at(maildir.to_string_lossy())))
            }
            Ok(response) => {
                self.add(maildir, size);
                let inode = if let Response::Reserved(inode) = response { inode } else { None };
                Ok(Some(Room { maildir: maildir.to_owned(), limit, size, inode }))
            }
            Err(AgentError { doing, error }) => {
                ::log::warn!("the quota of {} is not applied: {doing}: {error}", maildir.display());
                if started.elapsed() >= SLOW {
                    self.note(maildir, None, false, true);
                }
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
        let Self { maildir: mailbox, limit, size, inode: Some(inode) } = self else { return };
        // If this fails, the count is too high until the next one.
        let _ = agents.perform(owner, &Request::Release { mailbox, limit, size, inode }, None);
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
        if !router.has_quotas(&recipient.address) {
            return None;
        }
        let Route::Mailbox(mailbox) = router.route_of(recipient, &RoutedMail::default()) else { return None };
        let quota = mailbox.quota.filter(|_| number < MAX_RECIPIENTS)?;
        let contents = contents(&mailbox, recipient)?;
        if contents.leaves_room(size, quota.limit) {
            return None;
        }
        // If mail for any of them waits, the message waits.
        full = full.filter(|full: &Full| !full.quota.is_final).or(Some(Full { quota, contents }));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::privsep::Rights;

    /// A Maildir that could not be counted in time gets mail at once, also if it is full.
    #[test]
    fn a_maildir_that_cannot_be_counted_makes_no_message_wait() {
        let maildir = std::env::temp_dir().join(format!("penfold-uncountable-{}", std::process::id()));
        let _ = fs::remove_dir_all(&maildir);
        fs::create_dir(&maildir).expect("a directory");
        for place in ["new", "cur", "tmp"] {
            fs::create_dir(maildir.join(place)).expect("a directory");
        }
        fs::write(maildir.join("new/1.a,S=1000"), "").expect("a message");
        let (quotas, agents) = (Quotas::default(), AgentPool::new(Rights::default()));
        let place = (maildir.as_path(), &Owner::Server, Quota { limit: 1000, is_final: false, is_own: false });
        assert_eq!(quotas.reserve(&agents, place, 100).expect_err("full").status, Status(4, 2, 2));
        quotas.note(&maildir, None, false, true);
        assert!(quotas.reserve(&agents, place, 100).expect("no count").is_none());
        let _ = fs::remove_dir_all(&maildir);
    }

    /// Each count makes a new file.
    #[test]
    fn a_delivery_uses_the_count_of_another_one_that_it_has_waited_for() {
        let maildir = std::env::temp_dir().join(format!("penfold-counted-once-{}", std::process::id()));
        let _ = fs::remove_dir_all(&maildir);
        for place in ["cur", "new", "tmp"] {
            fs::create_dir_all(maildir.join(place)).expect("a directory");
        }
        let (quotas, agents) = (Quotas::default(), AgentPool::new(Rights::default()));
        let place = (maildir.as_path(), &Owner::Server, Quota { limit: 1000, is_final: false, is_own: false });
        let count = quotas.begin_count(&maildir).expect("nobody counts");
        let room = std::thread::scope(|scope| {
            let delivery = scope.spawn(|| quotas.reserve(&agents, place, 100));
            std::thread::sleep(COUNT_WAIT / 8);
            fs::write(maildir.join("maildirsize"), "1000S\n0 0\n").expect("a file");
            drop(count);
            delivery.join().expect("no panic").expect("room").expect("a count")
        });
        let file = fs::metadata(maildir.join("maildirsize")).expect("the file");
        assert_eq!(room.inode, Some(std::os::unix::fs::MetadataExt::ino(&file)));
        assert_eq!(fs::read_to_string(maildir.join("maildirsize")).expect("the file"), "1000S\n0 0\n100 1\n");
        let _ = fs::remove_dir_all(&maildir);
    }

    /// Others wait briefly and are then deferred. Deliveries into other Maildirs do not wait.
    #[test]
    fn a_long_count_does_not_keep_other_deliveries() {
        let maildir = |name| std::env::temp_dir().join(format!("penfold-{name}-{}", std::process::id()));
        let (slow, other) = (maildir("counted"), maildir("uncounted"));
        let (quotas, agents) = (Quotas::default(), AgentPool::new(Rights::default()));
        let quota = Quota { limit: 1000, is_final: true, is_own: false };
        let reserve = |maildir: &Path| quotas.reserve(&agents, (maildir, &Owner::Server, quota), 100);
        let count = quotas.begin_count(&slow).expect("nobody counts");
        assert!(reserve(&other).expect("room").is_some());
        let since = Instant::now();
        let outcome = reserve(&slow).expect_err("it is counted");
        assert_eq!((outcome.fate, outcome.status), (crate::outcome::Fate::Deferred, Status(4, 2, 0)));
        assert!((COUNT_WAIT..4 * COUNT_WAIT).contains(&since.elapsed()), "{:?}", since.elapsed());
        drop(count);
        assert!(reserve(&slow).expect("room").is_some());
        // The file is there now, so that nothing is counted.
        let _count = quotas.begin_count(&slow).expect("nobody counts");
        assert!(reserve(&slow).expect("room").is_some());
        [&slow, &other].iter().for_each(|path| _ = fs::remove_dir_all(path));
    }

    /// A lack of room is believed only if the files were counted.
    #[test]
    fn what_was_delivered_since_the_count_makes_a_lack_of_room_doubtful() {
        let (quotas, path) = (Quotas::default(), Path::new("/mailbox"));
        quotas.note(path, Some(Contents { size: 1000, messages: 1 }), true, false);
        assert!(quotas.known(path).is_some_and(|known| known.is_counted));
        quotas.add(path, 10);
        assert!(quotas.known(path).is_some_and(|known| !known.is_counted));
    }
}

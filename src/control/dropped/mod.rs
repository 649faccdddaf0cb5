//! Takes the messages that sendmail(8) has kept in the drop directory while no daemon ran.
//!
//! Each message goes through a session, like any other message of a user. These steps, in this
//! order, make sure that it is neither lost nor delivered twice:
//!
//! 1. the file is renamed into `taken/`, where its name is a queue id; both directories are synced, and
//!    on btrfs everything
//! 2. the session commits an entry with that id to the spool
//! 3. the file is removed, and `taken/` is synced, and on btrfs everything
//! 4. the queue is told of the entry
//!
//! A crash before 2 leaves the file, which is offered again. A crash between 2 and 3 leaves the file
//! and the entry, which nobody has tried to deliver. [`recover`] finds both by the id, before
//! anything in the spool is tried, and removes the file.
//!
//! A file that cannot be a message, or whose message is refused for good, is moved to `bad/`. A
//! message that is refused for now stays in `taken/`, and is offered again. If [`MAX_WAITING`] messages
//! of a user wait there, no more files of this user are taken. After `queue.expire_after` such a message
//! is moved to `bad/`, too.
//!
//! The directory is read at the start, and when sendmail(8) says that it has kept a message. It says
//! so if it can connect after it has made the file. It cannot if it is stopped before, or if the daemon
//! is busy, so the directory is also read at intervals.
//!
//! - `directory`: takes files, and checks them
//! - `offer`: the dialogue with the session
//! - `turns`: the order in which the files of users are taken

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::server::local_user;
use crate::listen::Server;
use crate::site::Site;
use crate::spool::{EntryName, Place, QueueId, Spool};
use crate::submit::drop::{fault, file::DropFile};

mod directory;
mod offer;
mod turns;

use directory::{Directory, NotRead, NotRemoved, TakenFile};
use offer::Answer;

/// The stack of the thread of a session, in bytes.
const STACK: usize = 256 << 10;
/// The longest time between two readings of the directory.
const MAX_INTERVAL: Duration = Duration::from_secs(300);
/// The shortest time between two readings of the directory.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// Users can have the directory read, and can make that slow. So after the work, the thread does
/// nothing for this many times as long as the work has taken.
const REST: u32 = 10;
/// The longest of these pauses, because the files of other users wait meanwhile.
const MAX_REST: Duration = Duration::from_secs(10);

/// The maximum number of files of one user that are set aside at each reading of the directory.
/// Otherwise a user could fill the log with their lines.
const MAX_WRONG: usize = 1000;

/// The number of messages of one user in `taken/` that wait, from which on no more files of this user are
/// taken.
const MAX_WAITING: usize = 20;
/// Stands for the owner of a file that cannot be read now. No user has this uid.
const UNKNOWN: u32 = u32::MAX;

/// What became of a file that was taken.
enum Outcome {
    /// Its message is in the spool.
    Done,
    /// It is in `bad/`. The uid is that of its owner.
    SetAside(u32),
    /// It waits.
    Waits(u32),
}

/// Takes messages from the drop directory.
pub struct Dropped {
    site: Arc<Site>,
    server: Arc<Server>,
    /// Called with the name of each entry whose file was removed.
    settled: Box<dyn Fn(EntryName) + Send + Sync>,
    woken: Receiver<()>,
    /// Why the directory could not be read the last time.
    fault: Mutex<Option<String>>,
}

/// Makes a [`Dropped`] read the directory.
#[derive(Clone)]
pub struct Waker(Sender<()>);

impl Waker {
    /// Makes it read the directory soon.
    pub fn wake(&self) {
        // If a message is in the channel already, the directory will be read anyway.
        let _ = self.0.try_send(());
    }
}

/// The number of messages of each user that wait in `taken/`.
#[derive(Default)]
struct Waiting(HashMap<u32, usize>);

impl Waiting {
    fn add(&mut self, uid: u32) {
        *self.0.entry(uid).or_default() += 1;
    }

    fn fill(&mut self, uid: u32) {
        self.0.insert(uid, MAX_WAITING);
    }

    /// Whether no more files of a user are taken. A single message that waits, for example for a filter,
    /// does not delay the others of its user.
    fn is_full(&self, uid: u32) -> bool {
        self.0.get(&uid).is_some_and(|count| *count >= MAX_WAITING)
    }
}

impl Dropped {
    /// Prepares to take messages.
    pub fn new(
        site: Arc<Site>,
        server: Arc<Server>,
        settled: impl Fn(EntryName) + Send + Sync + 'static,
    ) -> (Self, Waker) {
        let (waker, woken) = bounded(1);
        let path = site.settings().config.submission.drop.clone();
        // The start has warned of this.
        let fault = Mutex::new(path.and_then(|path| fault(&path)));
        (Self { site, server, settled: Box::new(settled), woken, fault }, Waker(waker))
    }

    /// Takes messages from a directory until the daemon ends.
    pub fn run(&self, path: &Path) {
        loop {
            let began = Instant::now();
            self.take_all(path);
            thread::sleep((began.elapsed() * REST).clamp(MIN_INTERVAL, MAX_REST));
            if self.woken.recv_timeout(MAX_INTERVAL) == Err(RecvTimeoutError::Disconnected) {
                return;
            }
        }
    }

    /// Takes all messages that can be accepted now.
    pub fn take_all(&self, path: &Path) {
        let why =
            Directory::open(path).and_then(|directory| self.take_from(&directory).map_err(|e| e.to_string())).err();
        let mut fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = why.as_ref().filter(|why| fault.as_ref() != Some(why)) {
            ::log::error!("submission.drop: {}: {why}; messages in it wait", path.display());
        }
        *fault = why;
    }

    fn take_from(&self, directory: &Directory) -> io::Result<()> {
        let (mut waiting, mut wrong) = (Waiting::default(), HashMap::<u32, usize>::new());
        let mut offer = |ids: Vec<QueueId>, waiting: &mut Waiting| {
            for id in ids.into_iter().take_while(|_| !self.server.is_closed()) {
                match self.take(directory, id) {
                    Outcome::Done => {}
                    Outcome::Waits(uid) => waiting.add(uid),
                    Outcome::SetAside(uid) => {
                        let count = wrong.entry(uid).or_default();
                        *count += 1;
                        if *count >= MAX_WRONG && !waiting.is_full(uid) {
                            waiting.fill(uid);
                            ::log::warn!(
                                "drop directory: uid {uid} has {count} files there that are no messages: others wait"
                            );
                        }
                    }
                }
            }
        };
        offer(directory.taken()?, &mut waiting);
        loop {
            let mut turns = directory.turns(|uid| !waiting.is_full(uid))?;
            let mut count = 0;
            while !turns.is_empty(|uid| !waiting.is_full(uid)) {
                if self.server.is_closed() {
                    return Ok(());
                }
                let ids = directory.take(turns.round(|uid| !waiting.is_full(uid)))?;
                count += ids.len();
                offer(ids, &mut waiting);
            }
            if count == 0 {
                return Ok(());
            }
        }
    }

    /// Offers a taken file to a session.
    fn take(&self, directory: &Directory, id: QueueId) -> Outcome {
        let taken = match directory.read(id) {
            Ok(taken) => Ok(taken),
            Err(NotRead::Wrong(uid, why)) => {
                directory.set_aside(id, uid, &why);
                return Outcome::SetAside(uid);
            }
            Err(NotRead::Io(uid, e)) => Err((uid.unwrap_or(UNKNOWN), e)),
        };
        let (uid, (answer, name)) = match taken {
            // A bug that one file triggers must not keep the others from the spool.
            Ok(TakenFile { file, uid }) => {
                let offered = catch_unwind(AssertUnwindSafe(|| self.offer(file, uid, id)));
                (uid, offered.unwrap_or_else(|_| (Answer::Refused("a bug".to_owned()), None)))
            }
            Err((uid, e)) => (uid, (Answer::Later(format!("it cannot be read: {e}")), None)),
        };
        match answer {
            Answer::Accepted => {
                self.finish(directory, id, name);
                Outcome::Done
            }
            Answer::Refused(why) => {
                directory.set_aside(id, uid, &why);
                Outcome::SetAside(uid)
            }
            Answer::Later(why) if id.age() > self.site.settings().config.queue.expire_after => {
                directory.set_aside(id, uid, &format!("it has waited for too long: {why}"));
                Outcome::SetAside(uid)
            }
            Answer::Later(why) => {
                ::log::info!("drop directory: {}, of uid {uid}, waits: {why}", directory.path_of(id).display());
                Outcome::Waits(uid)
            }
        }
    }

    /// Runs a session for a file. Returns its answer, and the entry if it has committed one that is
    /// not held.
    fn offer(&self, file: File, uid: u32, id: QueueId) -> (Answer, Option<EntryName>) {
        let mut file = match DropFile::begin(file) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::InvalidData => return (Answer::Refused(e.to_string()), None),
            Err(e) => return (Answer::Later(e.to_string()), None),
        };
        // A sparse file can claim to have any size. Reading it would take hours.
        let longest = self.site.settings().config.limits.message_size;
        if file.size > longest {
            return (Answer::Refused(format!("its message is longer than {longest} octets")), None);
        }
        let user = local_user(&self.site.rights, uid, &file.program);
        let committed: Arc<Mutex<Option<EntryName>>> = Arc::default();
        let (server, noted) = (Arc::clone(&self.server), Arc::clone(&committed));
        let notify = Arc::new(move |committed: &crate::session::Committed<'_>| {
            *noted.lock().unwrap_or_else(PoisonError::into_inner) = Some(committed.name);
        });
        let started = UnixStream::pair().and_then(|(ours, theirs)| {
            let run = move || server.serve_dropped(theirs, (user, id), notify);
            let session = thread::Builder::new().name("dropped".into()).stack_size(STACK).spawn(run)?;
            Ok((ours, session))
        });
        let answer = match started {
            Ok((ours, session)) => {
                let answer = offer::offer(&mut file, ours);
                // The session tells of its entry after its last reply.
                let _ = session.join();
                answer
            }
            Err(e) => Answer::Later(e.to_string()),
        };
        let name = committed.lock().unwrap_or_else(PoisonError::into_inner).take();
        (answer, name)
    }

    /// Removes the file of a message that is in the spool, and then lets the message be delivered. If
    /// the file cannot be removed, the entry is removed instead.
    fn finish(&self, directory: &Directory, id: QueueId, name: Option<EntryName>) {
        let spool = &self.site.spool;
        let path = directory.path_of(id);
        match directory.remove(id) {
            Ok(()) => name.into_iter().for_each(|name| (self.settled)(name)),
            Err(NotRemoved::There(e)) => {
                let undone = entries(spool).and_then(|names| {
                    names.into_iter().filter(|name| name.id == id).try_for_each(|name| spool.discard(name))
                });
                match undone {
                    Ok(()) => ::log::error!("drop directory: remove {}: {e}; the message waits", path.display()),
                    Err(f) => ::log::error!(
                        "drop directory: remove {}: {e}; remove the entry {id}: {f}; the message waits for the next start",
                        path.display()
                    ),
                }
            }
            // After a power cut, the file may be there again. The entry must then be there, too.
            Err(NotRemoved::Unsynced(e)) => ::log::error!(
                "drop directory: sync the removal of {}: {e}; the message waits for the next start",
                path.display()
            ),
        }
    }
}

/// Completes what a crash has left between the commit of a message and the removal of its file. Must
/// be called before anything in the spool is tried.
///
/// # Errors
/// Those of reading and changing the directory and the spool. Then nothing may be tried.
pub fn recover(spool: &Arc<Spool>, path: &Path) -> io::Result<()> {
    let ids = directory::taken_ids(path)?;
    if ids.is_empty() {
        return Ok(());
    }
    // Without its name in `taken/`, an old name of a file would be taken for another message.
    directory::remove_old_names(path, &ids)?;
    let ids: HashSet<QueueId> = ids.into_iter().collect();
    for name in entries(spool)?.into_iter().filter(|name| ids.contains(&name.id)) {
        if !spool.confirm(name)? {
            // The entry was never complete, and the file still is.
            spool.discard(name)?;
            continue;
        }
        match directory::remove(path, name.id) {
            Err(NotRemoved::There(e)) if e.kind() == io::ErrorKind::NotFound => {}
            Err(NotRemoved::There(e) | NotRemoved::Unsynced(e)) => return Err(e),
            Ok(()) => ::log::info!("drop directory: {} is in the spool already, and its file is removed", name.id),
        }
    }
    Ok(())
}

/// All entries in the spool.
fn entries(spool: &Spool) -> io::Result<Vec<EntryName>> {
    let mut names = Vec::new();
    for place in [Place::New, Place::Cur, Place::Hold] {
        names.extend(spool.entries_in(place)?);
    }
    Ok(names)
}

/// Opens a file for reading, without following a link, and without waiting for a FIFO or a lease.
fn open(path: &Path) -> io::Result<File> {
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY;
    File::options().read(true).custom_flags(flags).open(path)
}

//! The daemon's side.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt};

use super::request::{self, MAX_REQUEST};
use super::{BUSY, FORBIDDEN};
use crate::message::trace::LocalUser;
use crate::privsep::Rights;
use crate::queue::Selector;
use crate::spool::EntryName;

/// Clients at once, those of the privileged not counted.
const MAX_GUESTS: usize = 400;
/// Clients at once of one user.
const MAX_OF_USER: usize = 40;
/// Clients at once of [`RANGE`] numbers of users together, the first so many not counted.
const MAX_OF_RANGE: usize = 120;
/// So many numbers are subordinate to one user (subuid(5)), beyond his own, and lie in two
/// ranges at most: with all of them he does not take every place.
const RANGE: u32 = 65_536;
/// Clients at once of one who may do everything.
const MAX_PRIVILEGED: usize = 200;
/// What answering one takes.
const STACK: usize = 256 << 10;
/// Held while the queue is listed for one without rights.
static LOOKING: Mutex<()> = Mutex::new(());
/// Those for whom it is, and who wait for that: each user once.
static LOOKERS: Mutex<Vec<u32>> = Mutex::new(Vec::new());
/// A client that is slower is left.
const PATIENCE: Duration = Duration::from_secs(5);

/// Writes the listing of the queue, or of what one user has in it.
type List = dyn Fn(Option<u32>, &mut dyn Write) -> io::Result<()> + Send + Sync;

/// Writes what is known of other hosts.
type Hosts = dyn Fn(Option<&str>, &mut dyn Write) -> io::Result<()> + Send + Sync;

/// Says where an address goes.
type Verify = dyn Fn(&str) -> (bool, String) + Send + Sync;

/// What the daemon does when it is told.
pub struct Orders {
    /// How users of the system are looked up.
    pub rights: Rights,
    /// Try now what waits; how many deliveries that are.
    pub flush: Box<dyn Fn(Selector) -> usize + Send + Sync>,
    /// A message was committed by another process.
    pub wake: Box<dyn Fn(EntryName) + Send + Sync>,
    /// The listing of the queue.
    pub list: Box<List>,
    /// What is known of other hosts: of all, or of one domain or destination.
    pub hosts: Box<Hosts>,
    /// Where an address goes, in lines, and whether it goes anywhere.
    pub verify: Box<Verify>,
    /// A session with a program on this host, which has heard `ok`; up to its end.
    pub submit: Box<dyn Fn(UnixStream, LocalUser) + Send + Sync>,
}

/// Makes the socket, in place of one that a daemon left behind. The caller holds
/// the spool's lock, so no daemon listens on it.
///
/// # Errors
/// Those of bind(2).
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    // Who may do what is decided by who calls, not by who can reach it.
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// Answers clients for ever, each in a thread of its own, so that none keeps the
/// others waiting.
pub fn serve(listener: &UnixListener, orders: Orders) {
    let (orders, guests) = (Arc::new(orders), Arc::new(Guests::new(is_privileged)));
    for stream in listener.incoming() {
        let result = stream.and_then(|stream| start(stream, &orders, &guests));
        if let Err(e) = result {
            ::log::debug!("control: {e}");
            // Such as no descriptor left: not at full speed.
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// How many clients of each user there are.
struct Guests {
    users: Mutex<HashMap<u32, usize>>,
    is_privileged: fn(u32) -> bool,
}

impl Guests {
    fn new(is_privileged: fn(u32) -> bool) -> Self {
        Self { users: Mutex::default(), is_privileged }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, usize>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more of this user, if there is one: nobody takes the others' places
    /// alone, nor all together those of root.
    fn enter(self: &Arc<Self>, uid: u32) -> Option<Guest> {
        let mut users = self.lock();
        let here = users.get(&uid).copied().unwrap_or(0);
        let range = |uid: u32| uid / RANGE;
        let has_room = if (self.is_privileged)(uid) {
            here < MAX_PRIVILEGED
        } else {
            let others = || users.iter().filter(|(uid, _)| !(self.is_privileged)(**uid));
            let near = others().filter(|(other, _)| range(**other) == range(uid)).map(|(_, count)| count);
            here < MAX_OF_USER
                && (range(uid) == 0 || near.sum::<usize>() < MAX_OF_RANGE)
                && others().map(|(_, count)| count).sum::<usize>() < MAX_GUESTS
        };
        has_room.then(|| {
            users.insert(uid, here + 1);
            Guest { uid, all: Arc::clone(self) }
        })
    }
}

/// A place among the guests, for as long as it lives.
struct Guest {
    uid: u32,
    all: Arc<Guests>,
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut users = self.all.lock();
        match users.get_mut(&self.uid) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(users.remove(&self.uid)),
        }
    }
}

/// Who may do everything. In a user namespace everybody from outside has one number: who
/// has that is nobody in particular, also where it is the server's own.
fn is_privileged(uid: u32) -> bool {
    static IS_ANYBODY: LazyLock<bool> = LazyLock::new(|| {
        let is_all = |map: String| map.split_whitespace().eq(["0", "0", "4294967295"]);
        let overflow = fs::read_to_string("/proc/sys/kernel/overflowuid").ok().and_then(|uid| uid.trim().parse().ok());
        overflow.unwrap_or(65_534) == nix::unistd::geteuid().as_raw()
            && !fs::read_to_string("/proc/self/uid_map").is_ok_and(is_all)
    });
    uid == 0 || uid == nix::unistd::geteuid().as_raw() && !*IS_ANYBODY
}

fn start(mut stream: UnixStream, orders: &Arc<Orders>, guests: &Arc<Guests>) -> io::Result<()> {
    let uid = getsockopt(&stream, sockopt::PeerCredentials)?.uid();
    let Some(guest) = guests.enter(uid) else {
        stream.set_nonblocking(true)?;
        // One that has gone again is no trouble.
        let _ = stream.write_all(format!("{BUSY}\n").as_bytes());
        return Ok(());
    };
    let (orders, mut spare) = (Arc::clone(orders), stream.try_clone()?);
    let run = move || {
        // The whole of it, up to the end.
        let guest = guest;
        if let Err(e) = answer(stream, &orders, guest.uid) {
            ::log::debug!("control: {e}");
        }
    };
    let started = thread::Builder::new().name("control".into()).stack_size(STACK).spawn(run);
    if started.is_err() {
        spare.set_nonblocking(true)?;
        spare.write_all(b"the system has no thread for an answer\n")?;
    }
    started.map(drop)
}

fn answer(mut stream: UnixStream, orders: &Orders, uid: u32) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let line = read_line(&mut stream)?;
    let Some(words) = line.as_deref().and_then(request::read) else { return stream.write_all(NOT_UNDERSTOOD) };
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["submit", program @ ..] if program.len() < 2 => {
            let user = local_user(&orders.rights, uid, program.first().copied().unwrap_or_default());
            stream.write_all(b"ok\n")?;
            (orders.submit)(stream, user);
            Ok(())
        }
        ["verify", address] => {
            let (goes, text) = (orders.verify)(address);
            stream.write_all(format!("ok\n{}\n{text}", if goes { "yes" } else { "no" }).as_bytes())
        }
        ["queue"] if is_privileged(uid) => list(stream, orders, None),
        // Whoever looks for his own looks at all of them: one after the other.
        ["queue"] => match Looker::new(uid) {
            Some(looker) => {
                let looking = LOOKING.lock().unwrap_or_else(PoisonError::into_inner);
                // Nobody waits for one who reads slowly.
                let mut listed = Bounded(Vec::new());
                list(&mut listed, orders, Some(uid))?;
                drop((looking, looker));
                stream.write_all(&listed.0)
            }
            None => stream.write_all(format!("{BUSY}\n").as_bytes()),
        },
        _ if !is_privileged(uid) => stream.write_all(format!("{FORBIDDEN}\n").as_bytes()),
        words => command(stream, words, orders),
    }
}

/// One without rights who has the queue listed, or waits for it.
struct Looker(u32);

impl Looker {
    /// `None` for one who does so already: the others come before him.
    fn new(uid: u32) -> Option<Self> {
        let mut lookers = LOOKERS.lock().unwrap_or_else(PoisonError::into_inner);
        let is_here = lookers.contains(&uid);
        (!is_here).then(|| {
            lookers.push(uid);
            Self(uid)
        })
    }
}

impl Drop for Looker {
    fn drop(&mut self) {
        LOOKERS.lock().unwrap_or_else(PoisonError::into_inner).retain(|uid| *uid != self.0);
    }
}

fn list(to: impl Write, orders: &Orders, of: Option<u32>) -> io::Result<()> {
    let mut out = io::BufWriter::new(to);
    out.write_all(b"ok\n")?;
    if let Err(e) = (orders.list)(of, &mut out) {
        writeln!(out, "-- the list ends here: {e}")?;
    }
    out.flush()
}

/// Takes so much and no more; what is beyond is not said.
struct Bounded(Vec<u8>);

/// The longest listing for one without rights, in octets.
const MOST_LISTED: usize = 4 << 20;

impl Write for Bounded {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let room = MOST_LISTED.saturating_sub(self.0.len()).min(text.len());
        self.0.extend_from_slice(text.get(..room).unwrap_or_default());
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Who calls. That nobody knows his name is no reason to send him away.
fn local_user(rights: &Rights, uid: u32, program: &str) -> LocalUser {
    let user = rights.user_numbered(uid).ok().flatten();
    LocalUser::new(uid, user.map(|user| user.name).as_deref().unwrap_or_default(), program)
}

/// What only the privileged may say.
fn command(mut stream: UnixStream, words: &[&str], orders: &Orders) -> io::Result<()> {
    match words {
        ["flush", rest @ ..] if rest.len() < 2 => {
            let count = (orders.flush)(rest.first().map_or(Selector::All, |word| Selector::parse(word)));
            stream.write_all(format!("ok\n{count}\n").as_bytes())
        }
        ["hosts", rest @ ..] if rest.len() < 2 => {
            let mut out = io::BufWriter::new(stream);
            out.write_all(b"ok\n")?;
            (orders.hosts)(rest.first().copied(), &mut out)?;
            out.flush()
        }
        ["wake", name] => match EntryName::parse_new(name) {
            Some(name) => {
                (orders.wake)(name);
                stream.write_all(b"ok\n")
            }
            None => stream.write_all(b"that names no message\n"),
        },
        _ => stream.write_all(NOT_UNDERSTOOD),
    }
}

/// The answer to a request that is none.
const NOT_UNDERSTOOD: &[u8] = b"that is not understood\n";

/// A line without its end, within [`PATIENCE`] altogether; `None` for one that is too long.
fn read_line(stream: &mut UnixStream) -> io::Result<Option<Vec<u8>>> {
    let deadline = Instant::now() + PATIENCE;
    let mut line = Vec::new();
    let mut piece = [0; 256];
    while line.len() < MAX_REQUEST && !line.contains(&b'\n') {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut piece)? {
            0 => break,
            count => line.extend_from_slice(&piece[..count]),
        }
    }
    let end = line.iter().position(|&b| b == b'\n');
    if end.is_some() || line.len() < MAX_REQUEST {
        line.truncate(end.unwrap_or(line.len()));
        return Ok(Some(line));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever runs the tests may have any number but that.
    fn is_root(uid: u32) -> bool {
        uid == 0
    }

    #[test]
    fn places_are_shared_out_so_that_nobody_has_them_all() {
        for (taken, uid, has_room) in [
            (&[(1000, 39)][..], 1000, true),
            (&[(1000, 40)], 1000, false),
            (&[(1000, 40)], 1001, true),
            // Many users, each for himself, and the numbers of one: his own and his subordinate ones.
            (&[(1000, 40), (1001, 40), (1002, 40), (1003, 40)], 1004, true),
            (&[(1000, 40), (100_000, 40), (100_001, 40), (100_002, 40)], 100_003, false),
            (&[(1000, 40), (100_000, 40), (100_001, 40), (100_002, 40)], 140_000, true),
            (
                &[(1000, 40), (100_000, 40), (100_001, 40), (100_002, 40), (140_000, 40), (140_001, 40), (140_002, 40)],
                1001,
                true,
            ),
        ] {
            let guests = Arc::new(Guests::new(is_root));
            let here: Vec<Guest> = taken
                .iter()
                .flat_map(|(uid, count)| (0..*count).map(|_| guests.enter(*uid).expect("a place")).collect::<Vec<_>>())
                .collect();
            assert_eq!(guests.enter(uid).is_some(), has_room, "{taken:?} {uid}");
            drop(here);
            assert!(guests.lock().is_empty() && guests.enter(uid).is_some());
        }
        // All together keep out one more, and never root.
        let guests = Arc::new(Guests::new(is_root));
        let here: Vec<_> = (1000..).map_while(|uid| guests.enter(uid)).collect();
        assert_eq!(here.len(), MAX_GUESTS);
        let root: Vec<_> = std::iter::from_fn(|| guests.enter(0)).take(MAX_PRIVILEGED + 1).collect();
        assert_eq!(root.len(), MAX_PRIVILEGED);
    }

    #[test]
    fn who_looks_keeps_nobody_else_from_it_not_even_by_a_bug() {
        let jon = Looker::new(1000);
        assert!(jon.is_some() && Looker::new(1000).is_none() && Looker::new(1001).is_some());
        drop(jon);
        let bug = thread::spawn(|| {
            let _looker = Looker::new(1000).expect("a place");
            let _looking = LOOKING.lock();
            panic!("a bug");
        });
        assert!(bug.join().is_err() && LOOKING.is_poisoned());
        assert!(Looker::new(1000).is_some());
    }
}

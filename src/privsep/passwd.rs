//! Looks up system users with getpwnam(3) and getpwuid(3), which consult the name service switch.
//!
//! A name service may be slow, and the code that it loads must not run in a process that is root or
//! confined. So a server with a monitor asks separate processes (see [`super::lookup`]), at most
//! [`AT_ONCE`] at a time. If a process does not answer within [`ANSWER_TIMEOUT`], the server
//! abandons the process, which then ends. A look-up also fails if no process becomes free within
//! that time. Without a monitor, the server asks the system itself, without a time limit.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::lookup::{ANSWER, IDLE, OWN_USER_UNKNOWN, Question, knew_own_user, read_answer};
use super::rights::{Monitor, Rights};

/// Maximum number of lookup processes that are in use at a time.
const AT_ONCE: usize = 8;
/// How long a lookup process may take to answer, and how long a look-up waits for a free process.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long after its last answer a lookup process may be used again. This is less than [`IDLE`],
/// so that the process has not ended yet.
const REUSED_WITHIN: Duration = Duration::from_secs(20);
/// How long an answer for a name is cached.
const REMEMBERED_FOR: Duration = Duration::from_secs(2);
/// Maximum number of names whose answers are cached.
const MAX_REMEMBERED: usize = 1000;

const _: () = assert!(REUSED_WITHIN.as_secs() < IDLE.as_secs());

/// A system user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The user's login name.
    pub name: String,
    /// The user's numeric id.
    pub uid: u32,
    /// The home directory, exactly as in the system's database.
    pub home: PathBuf,
}

impl Rights {
    /// Returns the system user with this name; `None` if there is no such user.
    ///
    /// # Errors
    /// If the system cannot be asked, or reports an error.
    pub fn user_named(&self, name: &str) -> io::Result<Option<User>> {
        let question = Question::Named(name.to_owned());
        match self {
            Self::Alone => question.look_up(knew_own_user()),
            Self::Monitored(monitor) => monitor.lookups.named(monitor, name, &question),
        }
    }

    /// Returns the system user with this uid; `None` if there is no such user.
    ///
    /// # Errors
    /// If the system cannot be asked, or reports an error.
    pub fn user_numbered(&self, uid: u32) -> io::Result<Option<User>> {
        let question = Question::Numbered(uid);
        match self {
            Self::Alone => question.look_up(false),
            Self::Monitored(monitor) => monitor.lookups.ask(monitor, &question),
        }
    }
}

/// The lookup processes of a server, and a cache of their recent answers.
#[derive(Debug, Default)]
pub(super) struct Lookups {
    processes: Mutex<Processes>,
    /// Notified when fewer than [`AT_ONCE`] processes are busy.
    is_free: Condvar,
    /// The users that were looked up, by name, each with the time of the answer. The user is `None`
    /// if the name has no user.
    remembered: Mutex<HashMap<String, (Instant, Option<User>)>>,
}

#[derive(Debug, Default)]
struct Processes {
    /// The connections to idle processes, each with the time since which the process is idle. The
    /// process that became idle last is at the end.
    idle: Vec<(Instant, UnixStream)>,
    /// The number of busy processes.
    busy: usize,
}

/// The right to use one lookup process, until the permit is dropped.
struct Permit<'a>(&'a Lookups);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        locked(&self.0.processes).busy -= 1;
        self.0.is_free.notify_one();
    }
}

impl Lookups {
    fn named(&self, monitor: &Monitor, name: &str, question: &Question) -> io::Result<Option<User>> {
        // For one message, the same name is looked up several times.
        if let Some((_, user)) = locked(&self.remembered).get(name).filter(|(at, _)| at.elapsed() < REMEMBERED_FOR) {
            return Ok(user.clone());
        }
        let user = self.ask(monitor, question)?;
        let mut remembered = locked(&self.remembered);
        if remembered.len() >= MAX_REMEMBERED {
            remembered.clear();
        }
        remembered.insert(name.to_owned(), (Instant::now(), user.clone()));
        Ok(user)
    }

    fn ask(&self, monitor: &Monitor, question: &Question) -> io::Result<Option<User>> {
        let bytes = question.write()?;
        let (permit, idle) = self.take()?;
        let is_late = |e: &io::Error| e.kind() == io::ErrorKind::WouldBlock;
        let asked = match idle.map(|socket| exchange(socket, &bytes)) {
            Some(asked) if !asked.as_ref().is_err_and(|e| !is_late(e)) => asked,
            // There was no idle process, or the idle process has ended meanwhile.
            _ => monitor.lookup().and_then(|socket| exchange(socket, &bytes)),
        };
        let (socket, answer) =
            asked.map_err(|e| if is_late(&e) { io::Error::other("the system does not answer") } else { e })?;
        let answer = read_answer(&answer)?;
        locked(&self.processes).idle.push((Instant::now(), socket));
        drop(permit);
        answer.map_err(|number| match number {
            OWN_USER_UNKNOWN => io::Error::other("the system does not even know the user that the server runs as"),
            _ => io::Error::from_raw_os_error(number),
        })
    }

    /// Waits for a permit, and returns it, with the connection to an idle process if there is one.
    fn take(&self) -> io::Result<(Permit<'_>, Option<UnixStream>)> {
        let is_full = |processes: &mut Processes| processes.busy >= AT_ONCE;
        let (mut processes, waited) = self
            .is_free
            .wait_timeout_while(locked(&self.processes), ANSWER_TIMEOUT, is_full)
            .unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            return Err(io::Error::other("too many look-ups wait for the system's answer"));
        }
        processes.busy += 1;
        processes.idle.retain(|(since, _)| since.elapsed() < REUSED_WITHIN);
        Ok((Permit(self), processes.idle.pop().map(|(_, socket)| socket)))
    }
}

fn exchange(mut socket: UnixStream, question: &[u8]) -> io::Result<(UnixStream, [u8; ANSWER])> {
    let mut answer = [0; ANSWER];
    socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    socket.write_all(question)?;
    socket.read_exact(&mut answer)?;
    Ok((socket, answer))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

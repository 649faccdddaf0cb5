//! What only root can do, asked of a process that is still root.
//!
//! A server that root has started keeps one process as root beside it and becomes its own
//! user. That process, the keeper, knows these requests alone, each of a fixed size: an
//! agent that runs as a user, or as the server's own user but unconfined; what the
//! system says of a user; a file that the configuration names; and that a file of the server's
//! becomes that of a user for whom an agent works. Whatever is asked for,
//! nothing is done as root in a place that a user controls: an agent has given up root
//! before it runs a line of ours.
//!
//! This is the asking side, and the form of requests and answers; `daemon::keeper` is the
//! other one. Without a keeper, in a server that root has not started, look-ups and files are
//! this process's own business, and [`agent`] is an error.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Uid, User, getpid};

use super::octets::{Reader, Writer};
use super::pass;

/// The octets of a request.
pub const REQUEST: usize = 1024;
/// The octets of an answer.
pub const ANSWER: usize = 2048;

/// What is asked of a keeper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// An agent that runs as this user of the system.
    Agent(String),
    /// An agent that runs as the server's own user.
    OwnAgent,
    /// What the system says of a name.
    Named(String),
    /// What the system says of a number.
    Numbered(u32),
    /// A file that the configuration names, to be read.
    File(PathBuf),
    /// The file beside this, which is the server's, becomes this user's.
    Give(u32),
}

/// What a keeper answers; a file comes beside it where one was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Here it is.
    Done,
    /// There is no such user.
    Nobody,
    /// This is the user.
    Is(Person),
    /// It cannot be done: an error number of the system.
    Failed(i32),
}

/// A user of the system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The login name.
    pub name: String,
    /// The number.
    pub uid: u32,
    /// The number of the first group.
    pub gid: u32,
    /// The home directory, as it is written.
    pub home: PathBuf,
}

static KEEPER: OnceLock<Mutex<OwnedFd>> = OnceLock::new();
/// What was said of names lately.
static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);
/// When it was said, by the name that was looked up.
type Known = HashMap<String, (Instant, Option<Person>)>;
/// For how long that holds.
const FRESH: Duration = Duration::from_secs(2);
/// Names that are remembered.
const MOST_KNOWN: usize = 1000;

static GONE: AtomicBool = AtomicBool::new(false);

/// Makes the process at the other end of this socket the keeper of this one.
pub fn set(socket: OwnedFd) {
    let _ = KEEPER.set(Mutex::new(socket));
}

/// Whether there is a keeper.
pub fn is_there() -> bool {
    KEEPER.get().is_some()
}

/// Whether there was one, and it has ended: this process was told to end (SIGTERM), so
/// that whoever started it can do so again.
pub fn is_gone() -> bool {
    GONE.load(Ordering::SeqCst)
}

/// An agent that runs as a user of the system, or as the server's own: the socket on which
/// it takes tasks.
///
/// # Errors
/// That there is no such user, none may run as him, or there is no keeper.
pub fn agent(name: Option<&str>) -> io::Result<UnixStream> {
    let request = name.map_or(Request::OwnAgent, |name| Request::Agent(name.to_owned()));
    match ask(&request)? {
        (Answer::Done, Some(socket)) => Ok(socket.into()),
        (Answer::Nobody, _) => Err(io::Error::new(io::ErrorKind::NotFound, "there is no such user")),
        (answer, _) => Err(nonsense(&answer)),
    }
}

/// Makes a file of the server's a user's, for whom an agent works. Its group stays.
///
/// # Errors
/// Those of fchown(2), `EPERM` for another file than a message, `ESRCH` without such an
/// agent, or that there is no keeper.
pub fn give(uid: u32, file: &File) -> io::Result<()> {
    match ask_beside(&Request::Give(uid), Some(file))? {
        (Answer::Done, _) => Ok(()),
        (answer, _) => Err(nonsense(&answer)),
    }
}

/// What the system says of a name.
///
/// # Errors
/// That it cannot be asked.
pub fn user_named(name: &str) -> io::Result<Option<Person>> {
    if !is_there() {
        return Ok(User::from_name(name)?.map(person));
    }
    // For one message a name is looked up several times.
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, person)) = known.get(name).filter(|(since, _)| since.elapsed() < FRESH) {
        return Ok(person.clone());
    }
    drop(known);
    let person = found(ask(&Request::Named(name.to_owned()))?.0)?;
    known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if known.len() >= MOST_KNOWN {
        known.clear();
    }
    known.insert(name.to_owned(), (Instant::now(), person.clone()));
    Ok(person)
}

/// What the system says of a user's number.
///
/// # Errors
/// That it cannot be asked.
pub fn user_numbered(uid: u32) -> io::Result<Option<Person>> {
    if is_there() {
        found(ask(&Request::Numbered(uid))?.0)
    } else {
        Ok(User::from_uid(Uid::from_raw(uid))?.map(person))
    }
}

/// Opens a file that the configuration names, to be read.
///
/// # Errors
/// Those of open(2).
pub fn open(path: &Path) -> io::Result<File> {
    // A FIFO must not keep us waiting for a writer.
    let own = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path);
    match own {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied && is_there() => {
            match ask(&Request::File(path.to_owned())) {
                Ok((Answer::Done, Some(file))) => Ok(file.into()),
                _ => Err(e),
            }
        }
        result => result,
    }
}

/// A person as getpwnam(3) has it.
pub fn person(user: User) -> Person {
    Person { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw(), home: user.dir }
}

fn found(answer: Answer) -> io::Result<Option<Person>> {
    match answer {
        Answer::Is(person) => Ok(Some(person)),
        Answer::Nobody => Ok(None),
        answer => Err(nonsense(&answer)),
    }
}

fn nonsense(answer: &Answer) -> io::Error {
    match answer {
        Answer::Failed(number) => io::Error::from_raw_os_error(*number),
        _ => io::Error::other("the process that is root does not answer what it was asked"),
    }
}

fn ask(request: &Request) -> io::Result<(Answer, Option<OwnedFd>)> {
    ask_beside(request, None)
}

fn ask_beside(request: &Request, file: Option<&File>) -> io::Result<(Answer, Option<OwnedFd>)> {
    let Some(keeper) = KEEPER.get() else { return Err(Errno::EPERM.into()) };
    let bytes = request.write()?;
    let socket = keeper.lock().unwrap_or_else(PoisonError::into_inner);
    let mut answer = [0; ANSWER];
    let asked = pass::send(socket.as_fd(), &bytes, file.map(AsFd::as_fd))
        .and_then(|_| pass::receive(socket.as_fd(), &mut answer));
    match asked {
        Ok((ANSWER, file)) => Ok((Answer::read(&answer)?, file)),
        _ => Err(gone()),
    }
}

fn gone() -> io::Error {
    if !GONE.swap(true, Ordering::SeqCst) {
        ::log::error!("the process that is root has ended: stopping");
        let _ = kill(getpid(), Signal::SIGTERM);
    }
    io::Error::other("the process that is root has ended")
}

impl Request {
    /// As octets.
    ///
    /// # Errors
    /// `InvalidInput` for a name that is too long.
    pub fn write(&self) -> io::Result<[u8; REQUEST]> {
        let mut to = Writer::default();
        match self {
            Self::Agent(name) => to.octet(1).text(name.as_bytes()),
            Self::OwnAgent => to.octet(2),
            Self::Named(name) => to.octet(3).text(name.as_bytes()),
            Self::Numbered(uid) => to.octet(4).number(*uid),
            Self::File(path) => to.octet(5).text(path.as_os_str().as_bytes()),
            Self::Give(uid) => to.octet(6).number(*uid),
        };
        fixed(to)
    }

    /// From octets.
    ///
    /// # Errors
    /// `InvalidData` for what is none.
    pub fn read(bytes: &[u8; REQUEST]) -> io::Result<Self> {
        let mut from = Reader::new(bytes);
        Ok(match from.octet()? {
            1 => Self::Agent(from.string()?),
            2 => Self::OwnAgent,
            3 => Self::Named(from.string()?),
            4 => Self::Numbered(from.number()?),
            5 => Self::File(from.path()?),
            6 => Self::Give(from.number()?),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        })
    }
}

impl Answer {
    /// As octets.
    ///
    /// # Errors
    /// `InvalidInput` for a person with too long a name or home.
    pub fn write(&self) -> io::Result<[u8; ANSWER]> {
        let mut to = Writer::default();
        match self {
            Self::Done => to.octet(1),
            Self::Nobody => to.octet(2),
            Self::Is(Person { name, uid, gid, home }) => {
                to.octet(3).number(*uid).number(*gid).text(name.as_bytes()).text(home.as_os_str().as_bytes())
            }
            Self::Failed(number) => to.octet(4).number(number.cast_unsigned()),
        };
        fixed(to)
    }

    fn read(bytes: &[u8; ANSWER]) -> io::Result<Self> {
        let mut from = Reader::new(bytes);
        Ok(match from.octet()? {
            1 => Self::Done,
            2 => Self::Nobody,
            3 => {
                let (uid, gid) = (from.number()?, from.number()?);
                Self::Is(Person { uid, gid, name: from.string()?, home: from.path()? })
            }
            4 => Self::Failed(from.number()?.cast_signed()),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        })
    }
}

/// Pads to a fixed size.
fn fixed<const N: usize>(to: Writer) -> io::Result<[u8; N]> {
    let mut bytes = to.into_bytes();
    if bytes.len() > N {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    bytes.resize(N, 0);
    bytes.try_into().map_err(|_| io::ErrorKind::InvalidInput.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_answers_come_as_they_went() {
        for request in [
            Request::Agent("jon".into()),
            Request::OwnAgent,
            Request::Named("j\u{f6}n".into()),
            Request::Numbered(65_534),
            Request::File("/etc/penfold/key.pem".into()),
            Request::Give(65_534),
        ] {
            let bytes = request.write().expect("short");
            assert_eq!(Request::read(&bytes).expect("good"), request);
        }
        let jon = Person { name: "jon".into(), uid: 1000, gid: 100, home: "/home/jon".into() };
        for answer in [Answer::Done, Answer::Nobody, Answer::Is(jon), Answer::Failed(13)] {
            let bytes = answer.write().expect("short");
            assert_eq!(Answer::read(&bytes).expect("good"), answer);
        }
        assert!(Request::Named("x".repeat(REQUEST)).write().is_err());
        for bad in [&[0][..], &[9], &[1, 255, 255, 255, 255], &[1, 2, 0, 0, 0, b'a', 0], &[3, 1, 0, 0, 0, 0xff]] {
            let mut bytes = [0; REQUEST];
            bytes[..bad.len()].copy_from_slice(bad);
            assert!(Request::read(&bytes).is_err(), "{bad:?}");
        }
    }
}

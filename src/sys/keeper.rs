//! What only root can do, asked of a process that is still root.
//!
//! A server that root has started keeps one process as root beside it and becomes its own
//! user. That process, the keeper, knows these requests alone, each of a fixed size: an
//! agent that runs as a user, or as the server's own user but unconfined; a process that
//! looks up users (`sys::people`); a file that the configuration names; and that a file of
//! the server's becomes that of a user for whom an agent works. Whatever is asked for,
//! nothing is done as root in a place that a user controls: an agent has given up root
//! before it takes a task. An answer comes at once, or, for a file, in seconds.
//!
//! This is the asking side, and the form of requests and answers; `daemon::keeper` is the
//! other one. Without a keeper, in a server that root has not started, files are this
//! process's own business, and the rest is an error.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::getpid;

use super::octets::{Reader, Writer, fixed};
use super::pass;

/// The octets of a request.
pub const REQUEST: usize = 1024;
/// The octets of an answer.
pub const ANSWER: usize = 16;

/// What is asked of a keeper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// An agent that runs as this user of the system.
    Agent(String),
    /// An agent that runs as the server's own user.
    OwnAgent,
    /// A process that runs as the server's own user and looks up users.
    Names,
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
    /// It cannot be done: an error number of the system.
    Failed(i32),
}

static KEEPER: OnceLock<Mutex<OwnedFd>> = OnceLock::new();
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
/// it takes tasks. That there is no such user, it says itself.
///
/// # Errors
/// That there can be no process now, or there is no keeper.
pub fn agent(name: Option<&str>) -> io::Result<UnixStream> {
    socket(&name.map_or(Request::OwnAgent, |name| Request::Agent(name.to_owned())))
}

/// A process that looks up users: the socket on which it is asked.
///
/// # Errors
/// Those of [`agent`].
pub fn names() -> io::Result<UnixStream> {
    socket(&Request::Names)
}

fn socket(request: &Request) -> io::Result<UnixStream> {
    match ask(request)? {
        (Answer::Done, Some(socket)) => Ok(socket.into()),
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

fn nonsense(answer: &Answer) -> io::Error {
    match answer {
        Answer::Failed(number) => io::Error::from_raw_os_error(*number),
        Answer::Done => io::Error::other("the process that is root does not answer what it was asked"),
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
            Self::Names => to.octet(3),
            Self::File(path) => to.octet(4).path(path),
            Self::Give(uid) => to.octet(5).number(*uid),
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
            3 => Self::Names,
            4 => Self::File(from.path()?),
            5 => Self::Give(from.number()?),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        })
    }
}

impl Answer {
    /// As octets.
    pub fn write(&self) -> [u8; ANSWER] {
        let mut to = Writer::default();
        match self {
            Self::Done => to.octet(1),
            Self::Failed(number) => to.octet(2).number(number.cast_unsigned()),
        };
        fixed(to).unwrap_or([0; ANSWER])
    }

    fn read(bytes: &[u8; ANSWER]) -> io::Result<Self> {
        let mut from = Reader::new(bytes);
        Ok(match from.octet()? {
            1 => Self::Done,
            2 => Self::Failed(from.number()?.cast_signed()),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_answers_come_as_they_went() {
        for request in [
            Request::Agent("jon".into()),
            Request::OwnAgent,
            Request::Names,
            Request::File("/etc/penfold/key.pem".into()),
            Request::Give(65_534),
        ] {
            let bytes = request.write().expect("short");
            assert_eq!(Request::read(&bytes).expect("good"), request);
        }
        for answer in [Answer::Done, Answer::Failed(13)] {
            assert_eq!(Answer::read(&answer.write()).expect("good"), answer);
        }
        assert!(Request::Agent("x".repeat(REQUEST)).write().is_err());
        for bad in [&[0][..], &[9], &[1, 255, 255, 255, 255], &[1, 2, 0, 0, 0, b'a', 0], &[1, 1, 0, 0, 0, 0xff]] {
            let mut bytes = [0; REQUEST];
            bytes[..bad.len()].copy_from_slice(bad);
            assert!(Request::read(&bytes).is_err(), "{bad:?}");
        }
    }
}

//! What a server may have done by its monitor: the asking side.
//!
//! Without a monitor, in a server that root has not started, files are this process's own
//! business, and the rest is an error. An answer comes at once, or, for a file, in seconds.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::getpid;

use super::fdpass;
use super::request::{ANSWER, Answer, Request};

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
    let asked = fdpass::send(socket.as_fd(), &bytes, file.map(AsFd::as_fd))
        .and_then(|_| fdpass::receive(socket.as_fd(), &mut answer));
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

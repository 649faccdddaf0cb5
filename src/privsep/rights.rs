//! Gives the server rights beyond those of its own user, through the services of its monitor.
//!
//! A server that was not started by root has no monitor. It opens files and looks up users itself,
//! and every other request fails. The monitor answers at once, or within seconds if a file must be
//! opened as root. [`Rights`] are cheap to clone; all clones share one connection.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::getpid;

use super::passwd::Lookups;
use super::request::{self, Request};

/// The rights of this server beyond those of its own user.
#[derive(Debug, Clone, Default)]
pub enum Rights {
    /// No further rights: this process has no monitor, for example because root did not start it.
    #[default]
    Alone,
    /// The services of a monitor, which runs as root.
    Monitored(Arc<Monitor>),
}

/// The connection to a monitor, and the lookup processes that the monitor has started.
#[derive(Debug)]
pub struct Monitor {
    /// The socket to the monitor. A thread holds the lock from its request to the answer.
    socket: Mutex<OwnedFd>,
    has_ended: AtomicBool,
    pub(super) lookups: Lookups,
}

impl Rights {
    /// Returns the rights of a server whose monitor is at the other end of this socket.
    pub fn monitored(socket: OwnedFd) -> Self {
        let lookups = Lookups::default();
        Self::Monitored(Arc::new(Monitor { socket: Mutex::new(socket), has_ended: AtomicBool::new(false), lookups }))
    }

    /// Whether there is a monitor.
    pub fn has_monitor(&self) -> bool {
        matches!(self, Self::Monitored(_))
    }

    /// Whether the monitor has ended. If so, this process has sent itself SIGTERM, so that the
    /// service manager starts the server and the monitor again.
    pub fn has_lost_monitor(&self) -> bool {
        matches!(self, Self::Monitored(monitor) if monitor.has_ended.load(Ordering::SeqCst))
    }

    /// Starts an agent, a process that runs as the system user `name`, or as the server's own user
    /// if `name` is `None`. Returns the socket for requests to the agent. If there is no such user,
    /// the agent answers with an error.
    ///
    /// # Errors
    /// If no process can be started, or there is no monitor.
    pub fn agent(&self, name: Option<&str>) -> io::Result<UnixStream> {
        self.monitor()?.socket(&name.map_or(Request::OwnAgent, |name| Request::Agent(name.to_owned())))
    }

    /// Makes the user with this uid the owner of a message's file, if an agent runs as that user.
    /// The file keeps its group.
    ///
    /// # Errors
    /// `EPERM` if the file is not a message that belongs to the server, or there is no monitor;
    /// `ESRCH` if no agent runs as that user; otherwise the errors of fchown(2).
    pub fn hand_over(&self, uid: u32, file: &File) -> io::Result<()> {
        self.monitor()?.ask(&Request::HandOver(uid), Some(file)).map(drop)
    }

    /// Opens a file that the configuration names, for reading. If this process lacks permission,
    /// the monitor has the file opened as root.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn open(&self, path: &Path) -> io::Result<File> {
        // Without O_NONBLOCK opening a FIFO would block until it has a writer.
        let opened = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path);
        match (opened, self) {
            (Err(e), Self::Monitored(monitor)) if e.kind() == io::ErrorKind::PermissionDenied => {
                match monitor.ask(&Request::File(path.to_owned()), None) {
                    Ok(Some(file)) => Ok(file.into()),
                    _ => Err(e),
                }
            }
            (result, _) => result,
        }
    }

    fn monitor(&self) -> io::Result<&Monitor> {
        match self {
            Self::Alone => Err(Errno::EPERM.into()),
            Self::Monitored(monitor) => Ok(monitor),
        }
    }
}

impl Monitor {
    /// Starts a process that looks up users; returns the socket for questions to it.
    ///
    /// # Errors
    /// If no process can be started.
    pub(super) fn lookup(&self) -> io::Result<UnixStream> {
        self.socket(&Request::Lookup)
    }

    fn socket(&self, request: &Request) -> io::Result<UnixStream> {
        let socket = self.ask(request, None)?;
        socket.map(UnixStream::from).ok_or_else(|| io::Error::other("the monitor sent no socket"))
    }

    fn ask(&self, request: &Request, file: Option<&File>) -> io::Result<Option<OwnedFd>> {
        let bytes = request.write()?;
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        request::ask(&*socket, &bytes, file).unwrap_or_else(|_| Err(self.ended()))
    }

    fn ended(&self) -> io::Error {
        if !self.has_ended.swap(true, Ordering::SeqCst) {
            ::log::error!("the monitor has ended: stopping");
            let _ = kill(getpid(), Signal::SIGTERM);
        }
        io::Error::other("the monitor has ended")
    }
}

//! Runs the monitor, the process beside the server that stays root.
//!
//! The monitor is this program under another name. The server starts the monitor before dropping
//! root's rights. The monitor has one thread, reads requests of a fixed size from one socket, and
//! ends when the server ends. It ignores the signals that end a daemon.
//!
//! The monitor drops all of root's capabilities but two: to change the owner of a file, and to send
//! signals to any process. Work that takes longer, or needs more code, is done by processes that
//! the monitor starts: agents, which deliver with a user's rights, lookup processes, and the
//! opener, which knows the files that the configuration names now. A start needs many files at
//! once, so an opener serves for [`OPENER_LIFE`]. No agent runs as uid 0, whatever the user's name.
//! The monitor gives a file to another user only if the file belongs to the server, has the mode
//! [`HANDOVER_MODE`] and exactly one name, and only if an agent runs as that user.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};

use super::request::{self, Request};
use super::rights::Rights;
use super::{AGENT, LOOKUP, MONITOR, OPENER};
use crate::sys::{self, disk};

/// The mode that a message's file must have before the monitor gives the file to another user.
pub const HANDOVER_MODE: u32 = 0o640;

/// The maximum number of agents and lookup processes, idle ones included. For each worker, two more
/// are allowed.
const MAX_AGENTS: usize = 500;
/// The maximum number of agents of one user. For each worker, one more is allowed.
const MAX_AGENTS_OF_USER: usize = 20;
/// The time limit for the opener to open a file.
const OPENER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long after its first answer the opener is kept for other files. The next opener reads the
/// configuration itself. So no opener can go on with an old one, even if the file was changed
/// without a new time stamp.
const OPENER_LIFE: Duration = Duration::from_secs(1);
/// The maximum length of a user name, in bytes.
const MAX_NAME: usize = 255;
/// Maximum number of ended processes that are reaped before the next request is read.
const MAX_REAPED_AT_ONCE: usize = 100;

/// Starts the monitor of this process. This process is still root, but will run as the user
/// `server` (uid and gid), with this many workers. `arguments` are the options that name the
/// configuration and the pid file.
///
/// # Errors
/// If the socket or the process cannot be made.
pub fn start(arguments: Vec<OsString>, server: (u32, u32), workers: usize) -> io::Result<Rights> {
    let (ours, theirs) = pair(SockType::SeqPacket)?;
    let numbers = [server.0.to_string(), server.1.to_string(), workers.to_string()];
    this_program(MONITOR, theirs)?.args(arguments).args(numbers).spawn()?;
    Ok(Rights::monitored(ours))
}

/// Runs the monitor: answers the requests on standard input until the server ends. `configuration`
/// are the options that name the configuration, which the opener needs.
///
/// # Errors
/// If standard input is not a socket or fails, or the process cannot be set up.
pub fn run(server: (u32, u32), workers: usize, configuration: Vec<OsString>) -> io::Result<()> {
    sys::adopt_orphans(c"penfold-monitor")?;
    // The new session keeps users' commands from the terminal on which root started the server.
    nix::unistd::setsid()?;
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)))?;
    }
    let (child_ended, end) = UnixStream::pair()?;
    child_ended.set_nonblocking(true)?;
    signal_hook::low_level::pipe::register(SIGCHLD, end)?;
    sys::keep_chown_and_kill()?;
    sys::raise_descriptor_limit();
    Monitor { configuration, server, workers, agents: Vec::new(), opener: None }.serve(&child_ended)
}

struct Monitor {
    configuration: Vec<OsString>,
    /// The server's uid and gid.
    server: (u32, u32),
    workers: usize,
    agents: Vec<Agent>,
    /// The socket to the opener, and the time of its first answer.
    opener: Option<(OwnedFd, Instant)>,
}

/// An agent, a lookup process or an opener that the monitor has started.
struct Agent {
    /// The user's name. It is empty for the server's own user. For a lookup process it is [`LOOKUP`],
    /// and for an opener [`OPENER`].
    name: String,
    process: Child,
    /// The pipe on which the agent of a named user reports that it has become that user. `None`
    /// after the report, and for all other processes.
    report: Option<ChildStdout>,
    /// The uid that the agent has reported; `None` if there was no report.
    uid: Option<u32>,
}

impl Monitor {
    fn serve(&mut self, mut child_ended: &UnixStream) -> io::Result<()> {
        let socket = io::stdin();
        let mut are_more_to_reap = false;
        loop {
            let mut both =
                [PollFd::new(socket.as_fd(), PollFlags::POLLIN), PollFd::new(child_ended.as_fd(), PollFlags::POLLIN)];
            let timeout = match &self.opener {
                _ if are_more_to_reap => PollTimeout::ZERO,
                Some(_) => PollTimeout::try_from(OPENER_LIFE).unwrap_or(PollTimeout::MAX),
                None => PollTimeout::NONE,
            };
            match poll(&mut both, timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
            self.opener.take_if(|(_, since)| since.elapsed() >= OPENER_LIFE);
            let [has_request, has_ended] = both.map(|one| one.any() == Some(true));
            if has_ended {
                while child_ended.read(&mut [0; 64]).is_ok_and(|count| count > 0) {}
            }
            if has_ended || are_more_to_reap {
                are_more_to_reap = self.reap();
            }
            if has_request && !request::answer(&socket, |request, beside| self.carry_out(request, beside))? {
                return Ok(());
            }
        }
    }

    /// Reaps ended processes: those that the monitor has started, and those that the commands of
    /// agents left behind, which might otherwise stay zombies in a container. Reaps at most
    /// [`MAX_REAPED_AT_ONCE`] processes, and returns whether there may be more.
    fn reap(&mut self) -> bool {
        for _ in 0..MAX_REAPED_AT_ONCE {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) => {
                    self.agents.retain(|agent| i32::try_from(agent.process.id()) != Ok(pid.as_raw()));
                }
                Ok(WaitStatus::StillAlive) | Err(_) => return false,
                Ok(_) => {}
            }
        }
        true
    }

    fn carry_out(&mut self, request: Request, beside: Option<OwnedFd>) -> io::Result<Option<OwnedFd>> {
        let numbers = || vec![self.server.0.to_string(), self.server.1.to_string()];
        match request {
            Request::OwnAgent => self.start(AGENT, "", &numbers()).map(Some),
            Request::Lookup => self.start(LOOKUP, LOOKUP, &numbers()).map(Some),
            Request::Agent(name) if !is_name(&name) => Err(Errno::EINVAL.into()),
            Request::Agent(name) => self.start(AGENT, &name, std::slice::from_ref(&name)).map(Some),
            Request::File(_) => self.open(&request),
            Request::HandOver(uid) => {
                let file = beside.ok_or(Errno::EBADF)?;
                self.hand_over(uid, &file.into()).map(|()| None)
            }
        }
    }

    /// Makes a user the owner of a message. This gives the server no more power over the user than
    /// the server already has through the user's agent.
    fn hand_over(&mut self, uid: u32, file: &File) -> io::Result<()> {
        let metadata = file.metadata()?;
        let is_message = metadata.is_file() && metadata.nlink() == 1 && metadata.mode() & 0o7777 == HANDOVER_MODE;
        if !is_message || metadata.uid() != self.server.0 {
            return Err(Errno::EPERM.into());
        }
        if uid == 0 || !self.agents.iter_mut().any(|agent| agent.runs_as() == Some(uid)) {
            return Err(Errno::ESRCH.into());
        }
        disk::set_owner(file, Some(uid), None)
    }

    /// Has the opener open a file that only root may read. Starts an opener if there is none, or if
    /// something else has ended it, and kills it if it does not answer.
    fn open(&mut self, request: &Request) -> io::Result<Option<OwnedFd>> {
        let (socket, since) = match self.opener.take() {
            Some((socket, since)) => (socket, Some(since)),
            None => (self.start(OPENER, OPENER, &self.configuration.clone())?, None),
        };
        set_socket_timeout(&socket, Timeout::Recv, Some(OPENER_TIMEOUT))?;
        // A signal would make the time limit begin anew.
        let unblocked = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let asked = request::ask(&socket, &request.write()?, None);
        unblocked.thread_set_mask()?;
        match asked {
            Ok(answer) => {
                self.opener = Some((socket, since.unwrap_or_else(Instant::now)));
                answer
            }
            Err(e) if since.is_some() && e.kind() != io::ErrorKind::WouldBlock => self.open(request),
            Err(e) => {
                self.end_oldest(OPENER);
                Err(e)
            }
        }
    }

    /// Starts an agent, a lookup process or an opener. Returns the socket for requests to it.
    fn start(&mut self, program: &str, name: &str, arguments: &[impl AsRef<OsStr>]) -> io::Result<OwnedFd> {
        // There is only one opener, so it is started even if users hold up as many agents as there may be.
        if program != OPENER {
            self.make_room(name)?;
        }
        let (ours, theirs) = pair(if program == OPENER { SockType::SeqPacket } else { SockType::Stream })?;
        let mut command = this_program(program, theirs)?;
        // The child stays root until it executes this program. So no user can stop the child while
        // spawn() waits for it.
        command.env_clear().process_group(0).args(arguments);
        if program == AGENT && !name.is_empty() {
            command.stdout(Stdio::piped());
        }
        let mut process = command.spawn()?;
        let report = process.stdout.take();
        self.agents.push(Agent { name: name.to_owned(), process, report, uid: None });
        Ok(ours)
    }

    /// Makes room for one more agent of the user `name`. If the user has too many agents, kills the
    /// oldest of them. If there are too many agents in all, kills the oldest agent of the user with
    /// the most agents, and fails.
    ///
    /// The limits are above the number of agents that the server uses. So the oldest agent is one
    /// that the server has dropped, and that did not end by itself because its user had stopped it
    /// (SIGSTOP).
    fn make_room(&mut self, name: &str) -> io::Result<()> {
        let count = |agents: &[Agent], name: &str| agents.iter().filter(|agent| agent.name == name).count();
        if count(&self.agents, name) >= MAX_AGENTS_OF_USER + self.workers {
            self.end_oldest(name);
        }
        if self.agents.len() < MAX_AGENTS + 2 * self.workers {
            return Ok(());
        }
        let busiest = self.agents.iter().max_by_key(|agent| count(&self.agents, &agent.name));
        if let Some(name) = busiest.map(|agent| agent.name.clone()) {
            self.end_oldest(&name);
        }
        Err(Errno::EAGAIN.into())
    }

    fn end_oldest(&mut self, name: &str) {
        if let Some(oldest) = self.agents.iter_mut().find(|agent| agent.name == name) {
            let _ = oldest.process.kill();
        }
    }
}

/// Whether a user name can safely be looked up and passed to an agent as an argument.
fn is_name(name: &str) -> bool {
    let is_odd = |c: char| c.is_control() || matches!(c, '/' | ':');
    !name.is_empty() && name.len() <= MAX_NAME && !name.starts_with('-') && !name.contains(is_odd)
}

impl Agent {
    /// Returns the uid that the agent runs as; `None` while the agent may still be root.
    fn runs_as(&mut self) -> Option<u32> {
        if let Some(report) = &mut self.report {
            let mut poll_fd = [PollFd::new(report.as_fd(), PollFlags::POLLIN)];
            if !matches!(poll(&mut poll_fd, PollTimeout::ZERO), Ok(1)) {
                return None;
            }
            let mut number = [0; 4];
            self.uid = report.read_exact(&mut number).is_ok().then(|| u32::from_ne_bytes(number));
            self.report = None;
        }
        self.uid
    }
}

/// Returns a command that runs this program under another name. Standard input is the socket, and
/// no other file is inherited.
fn this_program(name: &str, socket: OwnedFd) -> io::Result<Command> {
    let mut command = sys::this_program()?;
    command.arg0(name).stdin(socket).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
    Ok(command)
}

fn pair(kind: SockType) -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC)?)
}

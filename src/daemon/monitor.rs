//! The process that stays root: the answering side of `privsep::rights`.
//!
//! A server that root has started begins it before it becomes its own user. It is this
//! program under another name, with one thread and one socket, and it reads nothing but
//! requests of a fixed size from that. Whose the server is it is told when it is begun; the
//! configuration is read, and a file of it opened, by a process that is begun for that and
//! ends with it (`opener`); and what the system says of a user is found out by who becomes
//! that user, so that nobody waits here for a name service. Of root's rights it keeps two: to
//! make a file somebody's, and to end an agent. Root itself gets no agent, nor does whoever
//! is called root by another name; and only a message of the server's own, as it is in the
//! spool, is made the file of somebody for whom an agent works. It ends with the server,
//! whose pid file it removes then, and leaves signals to that.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::User;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};

use super::Start;
use super::detach::remove_pid_file;
use super::exit::{self, Exit};
use crate::config::Config;
use crate::privsep::fdpass;
use crate::privsep::request::{Answer, REQUEST, Request};
use crate::privsep::rights;
use crate::spool::HANDOVER_MODE;
use crate::sys::{self, disk};

/// What the process that stays root is called.
pub const KEEPER: &str = "penfoldd: keeper";
/// What an agent is called.
pub const AGENT: &str = "penfoldd: agent";
/// What processes are called that look up users.
pub const NAMES: &str = "penfoldd: names";
/// What the process is called that opens a file as root.
pub const READER: &str = "penfoldd: reader";

/// Agents at once, the idle ones and those at work, beyond two for each worker.
const AGENTS: usize = 500;
/// Those of one user, beyond one for each worker.
const OF_ONE: usize = 20;
/// How long the process has that opens a file.
const READING: Duration = Duration::from_secs(10);
/// The longest name of a user, in octets.
const LONGEST: usize = 255;
/// So many that have ended are waited for before the server is heard again.
const AT_A_TIME: usize = 100;

impl Start {
    /// Begins the keeper, if this process is root. Where it cannot be begun all goes on
    /// without, and mail for users of the system waits: the error is for the log.
    pub(super) fn begin_keeper(&self, config: &Config) -> io::Result<()> {
        if !sys::is_root() || rights::is_there() {
            return Ok(());
        }
        let mut arguments = self.same_configuration();
        if let Some(path) = &self.pid_file {
            arguments.extend([OsString::from("-p"), path.into()]);
        }
        let (ours, theirs) = pair(SockType::SeqPacket)?;
        // Who tells that there is no such user is become_user.
        let Some(user) = User::from_name(&config.user)? else { return Ok(()) };
        let numbers = [user.uid.to_string(), user.gid.to_string(), config.queue.workers.to_string()];
        this_program(KEEPER, theirs).args(arguments).args(numbers).spawn()?;
        rights::set(ours);
        Ok(())
    }

    fn same_configuration(&self) -> Vec<OsString> {
        self.config.iter().flat_map(|path| [OsString::from("-f"), path.into()]).collect()
    }

    /// Keeps root until the server ends, which is the user with these numbers and has so
    /// many workers.
    ///
    /// # Errors
    /// A socket that is none.
    pub fn keep(&self, server: (u32, u32), workers: usize) -> io::Result<()> {
        let _ = nix::sys::prctl::set_name(c"penfold-keeper");
        nix::sys::prctl::set_child_subreaper(true)?;
        // Nobody's command is to have the terminal at which root has started this.
        nix::unistd::setsid()?;
        let daemon = std::os::unix::process::parent_id();
        for signal in [SIGHUP, SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)))?;
        }
        let (ended, end) = UnixStream::pair()?;
        ended.set_nonblocking(true)?;
        signal_hook::low_level::pipe::register(SIGCHLD, end)?;
        sys::keep_rights()?;
        sys::raise_descriptor_limit();
        Keeper { start: self, server, workers, agents: Vec::new() }.serve(&ended)?;
        self.pid_file.as_deref().into_iter().for_each(|path| remove_pid_file(path, daemon));
        Ok(())
    }
}

/// Whether there is a keeper still, if there was one.
///
/// # Errors
/// That it has ended, so that whoever started the server does so again.
pub(super) fn is_still_there() -> Result<(), Exit> {
    if !rights::is_gone() {
        return Ok(());
    }
    Err(Exit { code: exit::OSERR, text: vec!["the process that is root has ended".to_owned()] })
}

struct Keeper<'a> {
    start: &'a Start,
    /// Its user and his group.
    server: (u32, u32),
    workers: usize,
    agents: Vec<Agent>,
}

struct Agent {
    /// Whose it is; empty for the server's own, and [`NAMES`] for those that look up.
    name: String,
    process: Child,
    /// Where a user's says that it is who it should be.
    report: Option<ChildStdout>,
    /// As whom it runs, when it has said so.
    uid: Option<u32>,
}

impl Keeper<'_> {
    fn serve(&mut self, mut ended: &UnixStream) -> io::Result<()> {
        let socket = io::stdin();
        let mut are_left = false;
        loop {
            let mut both =
                [PollFd::new(socket.as_fd(), PollFlags::POLLIN), PollFd::new(ended.as_fd(), PollFlags::POLLIN)];
            match poll(&mut both, if are_left { PollTimeout::ZERO } else { PollTimeout::NONE }) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
            let [asked, told] = both.map(|one| one.any() == Some(true));
            if told {
                while ended.read(&mut [0; 64]).is_ok_and(|count| count > 0) {}
            }
            if told || are_left {
                are_left = self.bury();
            }
            if asked && !self.answer(&socket)? {
                return Ok(());
            }
        }
    }

    /// Waits for those that have ended: agents, and what their commands have left behind,
    /// for which nobody else would, where the server is the first process of a container.
    /// Whether there may be more of them: a user can have them end faster than this.
    fn bury(&mut self) -> bool {
        for _ in 0..AT_A_TIME {
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

    /// Answers one request; false when there are no more.
    fn answer(&mut self, socket: &io::Stdin) -> io::Result<bool> {
        let mut bytes = [0; REQUEST];
        let done = match fdpass::receive(socket, &mut bytes) {
            Ok((0, _)) => return Ok(false),
            Ok((REQUEST, beside)) => Request::read(&bytes).and_then(|request| self.carry_out(request, beside)),
            Ok(_) => return Err(io::ErrorKind::InvalidData.into()),
            // Its file could not be taken.
            Err(e) if e.kind() == io::ErrorKind::InvalidData => Err(Errno::EMFILE.into()),
            Err(e) => return Err(e),
        };
        let (answer, file) =
            done.unwrap_or_else(|e| (Answer::Failed(e.raw_os_error().unwrap_or(Errno::EIO as i32)), None));
        fdpass::send(socket, &answer.write(), file.as_ref().map(AsFd::as_fd))?;
        Ok(true)
    }

    fn carry_out(&mut self, request: Request, beside: Option<OwnedFd>) -> io::Result<(Answer, Option<OwnedFd>)> {
        let numbers = || vec![self.server.0.to_string(), self.server.1.to_string()];
        match request {
            Request::OwnAgent => self.begin(AGENT, "", &numbers()),
            Request::Names => self.begin(NAMES, NAMES, &numbers()),
            Request::Agent(name) if !is_name(&name) => Err(Errno::EINVAL.into()),
            Request::Agent(name) => self.begin(AGENT, &name, std::slice::from_ref(&name)),
            Request::File(path) => self.open(&path).map(|file| (Answer::Done, Some(file))),
            Request::Give(uid) => {
                let file = beside.ok_or(Errno::EBADF)?;
                self.give(uid, &file.into()).map(|()| (Answer::Done, None))
            }
        }
    }

    /// Makes a message of the server's a user's: the server could do to him, by his agent, all
    /// that he could do with it.
    fn give(&mut self, uid: u32, file: &File) -> io::Result<()> {
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

    /// A file that only root may read, by a process that is begun for it.
    fn open(&self, path: &Path) -> io::Result<OwnedFd> {
        let (ours, theirs) = pair(SockType::Stream)?;
        let arguments = self.start.same_configuration();
        let mut reader = this_program(READER, theirs).env_clear().args(arguments).arg("--").arg(path).spawn()?;
        let end = Instant::now() + READING;
        loop {
            let mut said = [PollFd::new(ours.as_fd(), PollFlags::POLLIN)];
            let left = PollTimeout::try_from(end.saturating_duration_since(Instant::now()));
            match poll(&mut said, left.unwrap_or(PollTimeout::ZERO)) {
                Ok(1) => break,
                // Whatever else ends meanwhile.
                Err(Errno::EINTR) if Instant::now() < end => {}
                _ => {
                    let _ = reader.kill();
                    return Err(Errno::ETIMEDOUT.into());
                }
            }
        }
        let (_, file) = fdpass::receive(&ours, &mut [0])?;
        file.ok_or_else(|| Errno::EACCES.into())
    }

    /// Begins an agent, or somebody who looks up: the socket on which it is asked.
    fn begin(&mut self, program: &str, name: &str, words: &[String]) -> io::Result<(Answer, Option<OwnedFd>)> {
        self.make_room(name)?;
        let (ours, theirs) = pair(SockType::Stream)?;
        let mut command = this_program(program, theirs);
        // Up to the new program it is root, and nobody can stop it while it is waited for.
        command.env_clear().process_group(0).args(words);
        if program == AGENT && !name.is_empty() {
            command.stdout(Stdio::piped());
        }
        let mut process = command.spawn()?;
        let report = process.stdout.take();
        self.agents.push(Agent { name: name.to_owned(), process, report, uid: None });
        Ok((Answer::Done, Some(ours)))
    }

    /// Ends agents that the server must have given up, there being so many: their users may
    /// have stopped them.
    fn make_room(&mut self, name: &str) -> io::Result<()> {
        let count = |agents: &[Agent], name: &str| agents.iter().filter(|agent| agent.name == name).count();
        if count(&self.agents, name) >= OF_ONE + self.workers {
            self.end_oldest(name);
        }
        if self.agents.len() < AGENTS + 2 * self.workers {
            return Ok(());
        }
        let most = self.agents.iter().max_by_key(|agent| count(&self.agents, &agent.name));
        if let Some(name) = most.map(|agent| agent.name.clone()) {
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

/// Whether the system may be asked for this name, and a process may have it as a word.
fn is_name(name: &str) -> bool {
    let is_odd = |c: char| c.is_control() || matches!(c, '/' | ':');
    !name.is_empty() && name.len() <= LONGEST && !name.starts_with('-') && !name.contains(is_odd)
}

impl Agent {
    /// As whom it runs; `None` as long as it may still be root.
    fn runs_as(&mut self) -> Option<u32> {
        if let Some(report) = &mut self.report {
            let mut said = [PollFd::new(report.as_fd(), PollFlags::POLLIN)];
            if !matches!(poll(&mut said, PollTimeout::ZERO), Ok(1)) {
                return None;
            }
            let mut number = [0; 4];
            self.uid = report.read_exact(&mut number).is_ok().then(|| u32::from_ne_bytes(number));
            self.report = None;
        }
        self.uid
    }
}

/// This program once more, under another name, with a socket and nothing else.
fn this_program(name: &str, socket: OwnedFd) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0(name).stdin(socket).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
    command
}

fn pair(kind: SockType) -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC)?)
}

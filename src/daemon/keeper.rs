//! The process that stays root: the answering side of `sys::keeper`.
//!
//! A server that root has started begins it before it becomes its own user. It is this
//! program under another name, with one thread and one socket, and it reads nothing but
//! requests of a fixed size from that. Whose the server is it is told when it is begun; the
//! configuration is read, and a file of it opened, by a process that is begun for that and
//! ends with it (`secrets`). Of root's rights it keeps two: to make a file somebody's, and to
//! end an agent. Root itself gets no agent, nor does whoever is called root by another name;
//! and only a message of the server's own, as it is in the spool, is made the file of
//! somebody for whom an agent works. It ends with the server, whose pid file it removes then,
//! and leaves signals to that.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Uid, User};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};

use super::Start;
use super::detach::remove_pid_file;
use super::exit::{self, Exit};
use crate::spool::GIVEN;
use crate::sys::keeper::{Answer, Person, REQUEST, Request, person, set};
use crate::sys::{self, disk, pass};

/// What the process that stays root is called.
pub const KEEPER: &str = "penfoldd: keeper";
/// What an agent is called.
pub const AGENT: &str = "penfoldd: agent";
/// What the process is called that opens a file as root.
pub const READER: &str = "penfoldd: reader";

/// Agents at once: the idle ones, and those at work.
const AGENTS: usize = 512;
/// Those of one user: more than there are workers.
const OF_ONE: usize = 40;
/// How long the process has that opens a file, in milliseconds.
const READING: u16 = 10_000;

impl Start {
    /// Begins the keeper, if this process is root. Where it cannot be begun all goes on
    /// without, and mail for users of the system waits: the error is for the log.
    pub(super) fn begin_keeper(&self, user: &str) -> io::Result<()> {
        if !sys::is_root() || sys::keeper::is_there() {
            return Ok(());
        }
        let mut arguments = self.same_configuration();
        if let Some(path) = &self.pid_file {
            arguments.extend([OsString::from("-p"), path.into()]);
        }
        let (ours, theirs) = pair(SockType::SeqPacket)?;
        this_program(KEEPER, theirs).args(arguments).arg("--").arg(user).spawn()?;
        set(ours);
        Ok(())
    }

    fn same_configuration(&self) -> Vec<OsString> {
        self.config.iter().flat_map(|path| [OsString::from("-f"), path.into()]).collect()
    }

    /// Keeps root until the server ends, which is this user.
    ///
    /// # Errors
    /// That there is no such user, or a socket that is none.
    pub fn keep(&self, user: &str) -> io::Result<()> {
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
        let server = User::from_name(user)?.map(person).ok_or(Errno::ENOENT)?;
        Keeper { start: self, server, agents: Vec::new() }.serve(&ended)?;
        self.pid_file.as_deref().into_iter().for_each(|path| remove_pid_file(path, daemon));
        Ok(())
    }
}

/// Whether there is a keeper still, if there was one.
///
/// # Errors
/// That it has ended, so that whoever started the server does so again.
pub(super) fn is_still_there() -> Result<(), Exit> {
    if !sys::keeper::is_gone() {
        return Ok(());
    }
    Err(Exit { code: exit::OSERR, text: vec!["the process that is root has ended".to_owned()] })
}

struct Keeper<'a> {
    start: &'a Start,
    server: Person,
    /// With the numbers of whom they run as.
    agents: Vec<(u32, Child)>,
}

impl Keeper<'_> {
    fn serve(&mut self, mut ended: &UnixStream) -> io::Result<()> {
        let socket = io::stdin();
        loop {
            let mut both =
                [PollFd::new(socket.as_fd(), PollFlags::POLLIN), PollFd::new(ended.as_fd(), PollFlags::POLLIN)];
            match poll(&mut both, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
            let [asked, told] = both.map(|one| one.any() == Some(true));
            if told {
                while io::Read::read(&mut ended, &mut [0; 64]).is_ok_and(|count| count > 0) {}
                self.bury();
            }
            if asked && !self.answer(&socket)? {
                return Ok(());
            }
        }
    }

    /// Waits for those that have ended: agents, and what their commands have left behind,
    /// for which nobody else would, where the server is the first process of a container.
    fn bury(&mut self) {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) => {
                    self.agents.retain(|(_, agent)| i32::try_from(agent.id()) != Ok(pid.as_raw()));
                }
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }

    /// Answers one request; false when there are no more.
    fn answer(&mut self, socket: &io::Stdin) -> io::Result<bool> {
        let mut bytes = [0; REQUEST];
        let (count, beside) = pass::receive(socket, &mut bytes)?;
        match count {
            0 => return Ok(false),
            REQUEST => {}
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
        let done = Request::read(&bytes).and_then(|request| self.carry_out(request, beside));
        let (answer, file) =
            done.unwrap_or_else(|e| (Answer::Failed(e.raw_os_error().unwrap_or(Errno::EIO as i32)), None));
        let too_long = || Answer::Failed(Errno::ENAMETOOLONG as i32).write();
        pass::send(socket, &answer.write().or_else(|_| too_long())?, file.as_ref().map(AsFd::as_fd))?;
        Ok(true)
    }

    fn carry_out(&mut self, request: Request, beside: Option<OwnedFd>) -> io::Result<(Answer, Option<OwnedFd>)> {
        let known = |user: Option<User>| (user.map_or(Answer::Nobody, |user| Answer::Is(person(user))), None);
        match request {
            Request::Named(name) => Ok(known(User::from_name(&name)?)),
            Request::Numbered(uid) => Ok(known(User::from_uid(Uid::from_raw(uid))?)),
            Request::OwnAgent => self.agent(&self.server.clone()),
            Request::Agent(name) => match User::from_name(&name)?.map(person) {
                Some(user) => self.agent(&user),
                None => Ok((Answer::Nobody, None)),
            },
            Request::File(path) => self.open(&path).map(|file| (Answer::Done, Some(file))),
            Request::Give(uid) => {
                let file = beside.ok_or(Errno::EBADF)?;
                self.give(uid, &file.into()).map(|()| (Answer::Done, None))
            }
        }
    }

    /// Makes a message of the server's a user's: the server could do to him, by his agent, all
    /// that he could do with it.
    fn give(&self, uid: u32, file: &File) -> io::Result<()> {
        let metadata = file.metadata()?;
        let is_message = metadata.is_file() && metadata.nlink() == 1 && metadata.mode() & 0o7777 == GIVEN;
        if !is_message || metadata.uid() != self.server.uid {
            return Err(Errno::EPERM.into());
        }
        if uid == 0 || !self.agents.iter().any(|(of, _)| *of == uid) {
            return Err(Errno::ESRCH.into());
        }
        disk::set_owner(file, Some(uid), None)
    }

    /// A file that only root may read, by a process that is begun for it.
    fn open(&self, path: &Path) -> io::Result<OwnedFd> {
        let (ours, theirs) = pair(SockType::Stream)?;
        let arguments = self.start.same_configuration();
        let mut reader = this_program(READER, theirs).env_clear().args(arguments).arg("--").arg(path).spawn()?;
        let mut said = [PollFd::new(ours.as_fd(), PollFlags::POLLIN)];
        if !matches!(poll(&mut said, READING), Ok(1)) {
            let _ = reader.kill();
            return Err(Errno::ETIMEDOUT.into());
        }
        let (_, file) = pass::receive(&ours, &mut [0])?;
        file.ok_or_else(|| Errno::EACCES.into())
    }

    fn agent(&mut self, user: &Person) -> io::Result<(Answer, Option<OwnedFd>)> {
        if user.uid == 0 {
            return Err(Errno::EPERM.into());
        }
        // He may have stopped those that the server has given up.
        if self.agents.iter().filter(|(uid, _)| *uid == user.uid).count() >= OF_ONE
            && let Some((_, oldest)) = self.agents.iter_mut().find(|(uid, _)| *uid == user.uid)
        {
            let _ = oldest.kill();
        }
        if self.agents.len() >= AGENTS {
            return Err(Errno::EAGAIN.into());
        }
        let (ours, theirs) = pair(SockType::Stream)?;
        // Up to the new program it is root, and nobody can stop it while it is waited for.
        let numbers = [user.uid, user.gid].map(|number| number.to_string());
        let agent = this_program(AGENT, theirs).env_clear().process_group(0).args(numbers).spawn()?;
        self.agents.push((user.uid, agent));
        Ok((Answer::Done, Some(ours)))
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

//! Commands: a token to be fetched, a message to be taken.
//!
//! A command runs in a process group of its own, with the file mode mask 077 and no
//! descriptor but the first three. It has until a deadline, and room for so many octets
//! of what it says. Whoever is late is killed; and when the command ends, whatever it has
//! left behind in its group is killed too, so that no process stays, and none outlives
//! who has begun it, see [`end_all`]. A command that does
//! not read what it is given is no error. Knows nothing of mail, and no shell: who wants
//! one runs it.

use std::io::{self, PipeReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

/// How often one is looked at that says nothing, at most and at least.
const GLANCE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(100));
/// How much is written or read at a time.
const PIECE: usize = 16 << 10;
/// What may still be in the pipe when a command has ended.
const REST: usize = 1 << 20;

/// Commands that run, and who waits for them.
static OWN: Mutex<Vec<u32>> = Mutex::new(Vec::new());
static STOPPED: AtomicBool = AtomicBool::new(false);
static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// Ends all commands that run, and those that would be run: this process is about to end,
/// and none of them is to outlive it.
pub fn end_all() {
    STOPPED.store(true, Ordering::SeqCst);
    let deadline = Instant::now() + GLANCE.1 * 5;
    while RUNNING.load(Ordering::SeqCst) > 0 && Instant::now() < deadline {
        std::thread::sleep(GLANCE.0);
    }
}

/// Waits for those that have ended and were not begun here: where this process is the first one
/// of a container, they are its children when their parents have ended.
pub fn reap_orphans() {
    let deadline = Instant::now() + GLANCE.1 * 5;
    while Instant::now() < deadline {
        let own = OWN.lock().unwrap_or_else(PoisonError::into_inner);
        let pid = match waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT) {
            Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) => pid,
            _ => return,
        };
        if own.iter().any(|own| i32::try_from(*own) == Ok(pid.as_raw())) {
            // Whoever waits for it is about to see it, and then others behind it can be seen.
            drop(own);
            std::thread::sleep(GLANCE.0);
        } else {
            let _ = waitpid(pid, Some(WaitPidFlag::WNOHANG));
        }
    }
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It took too long, and was killed.
    Late,
}

/// What a command is given, and how far it may go.
pub struct Terms<'a> {
    /// What stands on its standard input.
    pub input: Option<&'a mut dyn Read>,
    /// How long it may take.
    pub limit: Duration,
    /// How much of what it says is kept, in octets.
    pub most: usize,
    /// Whether it may say more, and standard error is heard too.
    pub is_free: bool,
}

/// Runs the program at the path `program`, and gives what it has printed when it has
/// ended well, at most `most` octets. What it says on standard error is not read.
///
/// # Errors
/// That it cannot be run, fails, is late, or prints more.
pub fn output(program: &str, arguments: &[String], limit: Duration, most: usize) -> io::Result<Vec<u8>> {
    let mut command = Command::new(program);
    command.args(arguments);
    match run(command, Terms { input: None, limit, most, is_free: false })? {
        (Ended::Code(0), text) => Ok(text),
        (Ended::Late, _) => Err(io::Error::new(io::ErrorKind::TimedOut, "it takes too long")),
        (Ended::Code(code), _) => Err(io::Error::other(format!("exit status: {code}"))),
        (Ended::Signal(signal), _) => Err(io::Error::other(format!("signal: {signal}"))),
    }
}

/// Runs a command to its end; how it ended, and the beginning of what it said.
///
/// # Errors
/// That it cannot be run, that there is trouble with its input, or that it says more
/// than it may.
pub fn run(mut command: Command, terms: Terms<'_>) -> io::Result<(Ended, Vec<u8>)> {
    // The mask of the process: there is no other place for it, and all that this process
    // makes is for its owner alone anyway.
    umask(Mode::from_bits_truncate(0o077));
    let deadline = Instant::now() + terms.limit;
    let (reader, writer) = io::pipe()?;
    let errors = if terms.is_free { writer.try_clone()?.into() } else { Stdio::null() };
    let input = if terms.input.is_some() { Stdio::piped() } else { Stdio::null() };
    let mut child = {
        let mut own = OWN.lock().unwrap_or_else(PoisonError::into_inner);
        let child = command.process_group(0).stdin(input).stdout(writer).stderr(errors).spawn()?;
        own.push(child.id());
        child
    };
    // With it goes our end of what the command writes to.
    drop(command);
    let stdin = child.stdin.take().zip(terms.input).map(|(pipe, from)| Feed { pipe, from, piece: Vec::new() });
    let heard = Heard { pipe: Some(reader), said: Vec::new(), most: terms.most, is_free: terms.is_free };
    let mut running = Running { child, feed: stdin, heard };
    RUNNING.fetch_add(1, Ordering::SeqCst);
    let is_over = running.attend(deadline);
    // Nobody has waited for the leader yet, so that the group's number is still its own.
    if let Ok(group) = i32::try_from(running.child.id()) {
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
    RUNNING.fetch_sub(1, Ordering::SeqCst);
    let status = running.child.wait();
    OWN.lock().unwrap_or_else(PoisonError::into_inner).retain(|own| *own != running.child.id());
    let status = status?;
    if is_over? {
        running.heard.rest()?;
        return Ok((ended(status), running.heard.said));
    }
    Ok((Ended::Late, running.heard.said))
}

fn ended(status: ExitStatus) -> Ended {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ended::Code(code),
        (None, signal) => Ended::Signal(signal.unwrap_or(0)),
    }
}

struct Running<'a> {
    child: Child,
    feed: Option<Feed<'a>>,
    heard: Heard,
}

impl Running<'_> {
    /// Gives and hears until the command ends; false if it does not in time.
    fn attend(&mut self, deadline: Instant) -> io::Result<bool> {
        if let Some(feed) = &self.feed {
            fcntl(&feed.pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        let mut glance = GLANCE.0;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || STOPPED.load(Ordering::SeqCst) {
                return Ok(false);
            }
            let (can_write, can_read) = self.wait(left.min(glance))?;
            glance = if can_write || can_read { GLANCE.0 } else { GLANCE.1.min(glance * 2) };
            if can_write && !self.feed.as_mut().map_or(Ok(false), Feed::give)? {
                self.feed = None;
            }
            if can_read {
                self.heard.hear()?;
            }
            if self.is_over()? {
                return Ok(true);
            }
        }
    }

    /// Whether there is something to do with either pipe.
    fn wait(&self, limit: Duration) -> io::Result<(bool, bool)> {
        let feed = self.feed.iter().map(|feed| PollFd::new(feed.pipe.as_fd(), PollFlags::POLLOUT));
        let heard = self.heard.pipe.iter().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN));
        let mut both: Vec<PollFd<'_>> = feed.chain(heard).collect();
        // Not less than a millisecond: poll(2) knows nothing shorter.
        let timeout = PollTimeout::try_from(limit.max(GLANCE.0)).unwrap_or(PollTimeout::MAX);
        match poll(&mut both, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
        let mut is_ready = both.iter().map(|fd| fd.any().unwrap_or(false));
        let can_write = self.feed.is_some() && is_ready.next().unwrap_or(false);
        Ok((can_write, is_ready.next().unwrap_or(false)))
    }

    /// Whether it has ended; it is not waited for.
    fn is_over(&self) -> io::Result<bool> {
        let id = Id::Pid(Pid::from_raw(i32::try_from(self.child.id()).map_err(io::Error::other)?));
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        match waitid(id, flags) {
            Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => Ok(false),
            Ok(_) => Ok(true),
            Err(e) => Err(e.into()),
        }
    }
}

/// What the command reads.
struct Feed<'a> {
    pipe: ChildStdin,
    from: &'a mut dyn Read,
    /// Read, and not yet written.
    piece: Vec<u8>,
}

impl Feed<'_> {
    /// Writes a piece; false when there is no more, or nobody who wants it.
    fn give(&mut self) -> io::Result<bool> {
        if self.piece.is_empty() {
            self.from.take(PIECE as u64).read_to_end(&mut self.piece)?;
        }
        match self.pipe.write(&self.piece) {
            Ok(count) => drop(self.piece.drain(..count)),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => return Ok(true),
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(false),
            Err(e) => return Err(e),
        }
        if self.piece.is_empty() {
            self.from.take(PIECE as u64).read_to_end(&mut self.piece)?;
        }
        Ok(!self.piece.is_empty())
    }
}

/// What the command says.
struct Heard {
    pipe: Option<PipeReader>,
    said: Vec<u8>,
    most: usize,
    is_free: bool,
}

impl Heard {
    /// Reads what there is; the pipe is closed at its end.
    fn hear(&mut self) -> io::Result<usize> {
        let mut piece = [0; PIECE];
        let count = match self.pipe.as_mut().map(|pipe| pipe.read(&mut piece)) {
            Some(Err(e)) if e.kind() == io::ErrorKind::Interrupted => return Ok(0),
            Some(read) => read?,
            None => 0,
        };
        if count == 0 {
            self.pipe = None;
        }
        let room = self.most.saturating_sub(self.said.len());
        if count > room && !self.is_free {
            return Err(io::Error::other(format!("it prints more than {} octets", self.most)));
        }
        self.said.extend_from_slice(piece.get(..count.min(room)).unwrap_or_default());
        Ok(count)
    }

    /// Reads what is left when the command has ended, and does not wait for more.
    fn rest(&mut self) -> io::Result<()> {
        let mut read = 0;
        while let Some(pipe) = self.pipe.as_ref().filter(|_| read < REST) {
            let mut fd = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fd, PollTimeout::ZERO) {
                Ok(0) => return Ok(()),
                Ok(_) => read += self.hear()?,
                Err(Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_heard_within_its_bounds() {
        let run = |script: &str, limit| {
            let arguments = ["-c".to_owned(), script.to_owned()];
            output("/bin/sh", &arguments, Duration::from_millis(limit), 10).map_err(|e| e.to_string())
        };
        assert_eq!(run("echo token", 10_000), Ok(b"token\n".to_vec()));
        assert_eq!(run("echo token; exit 3", 10_000), Err("exit status: 3".into()));
        assert_eq!(run("yes", 10_000), Err("it prints more than 10 octets".into()));
        assert_eq!(run("cat", 10_000), Ok(Vec::new()), "nothing to read");
        let begun = Instant::now();
        // A child of it has the pipe too.
        for late in ["sleep 60 & sleep 60", "exec >&-; sleep 60"] {
            assert_eq!(run(late, 200), Err("it takes too long".into()), "{late}");
        }
        assert!(begun.elapsed() < Duration::from_secs(10));
        assert!(output("/nonexistent", &[], Duration::from_secs(1), 10).is_err());
    }

    #[test]
    fn a_command_is_fed_and_leaves_nothing_behind() {
        let long = "x".repeat(1 << 20);
        for (script, given, ended, said) in [
            ("wc -c", long.as_str(), Ended::Code(0), "1048576\n"),
            ("exit 75", long.as_str(), Ended::Code(75), ""),
            ("echo no; echo never >&2; exit 67", "x", Ended::Code(67), "no\nnever\n"),
            ("kill -9 $$", "", Ended::Signal(9), ""),
            ("cat >/dev/null; sleep 60 & echo $!", "x", Ended::Code(0), "*"),
            ("exec >&- 2>&-; sleep 60", "x", Ended::Late, ""),
            // What has left the group stays, and is not waited for.
            ("setsid sleep 1 & exit 3", "", Ended::Code(3), ""),
            ("umask", "", Ended::Code(0), "0077\n"),
            ("yes | head -c 100000", "", Ended::Code(0), "y\ny\ny\ny\ny\ny\ny\ny\ny\ny\n"),
        ] {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", script]);
            let limit = Duration::from_millis(if ended == Ended::Late { 200 } else { 20_000 });
            let terms = Terms { input: Some(&mut given.as_bytes()), limit, most: 20, is_free: true };
            let (how, text) = run(command, terms).expect(script);
            let text = String::from_utf8(text).expect("text");
            assert_eq!(how, ended, "{script}: {text}");
            if said != "*" {
                assert_eq!(text, said, "{script}");
                continue;
            }
            let left: i32 = text.trim().parse().expect("a process");
            let is_gone = || nix::sys::signal::kill(Pid::from_raw(left), None).is_err() || is_zombie(left);
            let end = Instant::now() + Duration::from_secs(10);
            while !is_gone() {
                assert!(Instant::now() < end, "process {left} lives");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// Its new parent may be slow to wait for it.
    fn is_zombie(pid: i32) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    }
}

//! Runs commands, with limits on time and output.
//!
//! A command runs in a process group of its own, with the umask 077 and only the standard streams
//! open. It has a time limit and a limit on its output. When the command ends, or reaches its time
//! limit, every process that is left in its group is killed, so that none outlives the command.
//! [`end_all`] makes sure that no command outlives this process. A command need not read its input.
//! No shell is used.

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

/// The shortest and the longest time between two checks of a command that moves neither input nor
/// output.
const POLL_INTERVAL: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(100));
/// The maximum number of bytes in one write or read.
const CHUNK: usize = 16 << 10;
/// The maximum number of bytes that are read after a command has ended.
const MAX_REST: usize = 1 << 20;

/// The process ids of the running commands. The thread that runs a command also reaps it.
static CHILDREN: Mutex<Vec<u32>> = Mutex::new(Vec::new());
static STOPPED: AtomicBool = AtomicBool::new(false);
static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// Kills all running commands, and prevents further ones: this process is about to end, and no
/// command must outlive it.
pub fn end_all() {
    STOPPED.store(true, Ordering::SeqCst);
    let deadline = Instant::now() + POLL_INTERVAL.1 * 5;
    while RUNNING.load(Ordering::SeqCst) > 0 && Instant::now() < deadline {
        std::thread::sleep(POLL_INTERVAL.0);
    }
}

/// Reaps ended processes that this module did not start. Such processes are orphans: the first
/// process of a container becomes their parent.
pub fn reap_orphans() {
    let deadline = Instant::now() + POLL_INTERVAL.1 * 5;
    while Instant::now() < deadline {
        let children = CHILDREN.lock().unwrap_or_else(PoisonError::into_inner);
        let pid = match waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT) {
            Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) => pid,
            _ => return,
        };
        if children.iter().any(|child| i32::try_from(*child) == Ok(pid.as_raw())) {
            // The process is a command, which its own thread reaps in a moment. Until then
            // waitid(2) keeps reporting it.
            drop(children);
            std::thread::sleep(POLL_INTERVAL.0);
        } else {
            let _ = waitpid(pid, Some(WaitPidFlag::WNOHANG));
        }
    }
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The command exited with this exit code.
    Code(i32),
    /// This signal ended the command.
    Signal(i32),
    /// The command was killed, at its time limit or because this process is about to end.
    Late,
}

/// The input of a command and its limits.
pub struct RunOptions<'a> {
    /// The text for the command's standard input, if any.
    pub input: Option<&'a mut dyn Read>,
    /// The time limit of the command.
    pub time_limit: Duration,
    /// The maximum number of bytes of output that are kept.
    pub max_output: usize,
    /// Whether output beyond `max_output` is dropped instead of causing an error. Standard error
    /// then counts as output, too.
    pub is_lenient: bool,
}

/// Runs the program at a path; returns its output, without standard error.
///
/// # Errors
/// If the program cannot be run, fails, exceeds its time limit, or prints more than `max_output`
/// bytes.
pub fn output(program: &str, arguments: &[String], time_limit: Duration, max_output: usize) -> io::Result<Vec<u8>> {
    let mut command = Command::new(program);
    command.args(arguments);
    match run(command, RunOptions { input: None, time_limit, max_output, is_lenient: false })? {
        (Ended::Code(0), text) => Ok(text),
        (Ended::Late, _) => Err(io::Error::new(io::ErrorKind::TimedOut, "it takes too long")),
        (Ended::Code(code), _) => Err(io::Error::other(format!("exit status: {code}"))),
        (Ended::Signal(signal), _) => Err(io::Error::other(format!("signal: {signal}"))),
    }
}

/// Runs a command to its end; returns how it ended, and the beginning of its output.
///
/// # Errors
/// If the command cannot be run, its input or output fails, or it prints too much and `is_lenient`
/// is false.
pub fn run(mut command: Command, options: RunOptions<'_>) -> io::Result<(Ended, Vec<u8>)> {
    // The umask applies to the whole process, which never makes files for other users anyway.
    umask(Mode::from_bits_truncate(0o077));
    let deadline = Instant::now() + options.time_limit;
    let (reader, writer) = io::pipe()?;
    let errors = if options.is_lenient { writer.try_clone()?.into() } else { Stdio::null() };
    let input = if options.input.is_some() { Stdio::piped() } else { Stdio::null() };
    let mut child = {
        let mut children = CHILDREN.lock().unwrap_or_else(PoisonError::into_inner);
        let child = command.process_group(0).stdin(input).stdout(writer).stderr(errors).spawn()?;
        children.push(child.id());
        child
    };
    // Dropping the command closes this process's copies of the child's ends of the pipes.
    drop(command);
    let stdin = child.stdin.take().zip(options.input).map(|(pipe, from)| Feed { pipe, from, piece: Vec::new() });
    let output_pipe =
        Output { pipe: Some(reader), text: Vec::new(), max: options.max_output, is_lenient: options.is_lenient };
    let mut running = Running { child, feed: stdin, output_pipe };
    RUNNING.fetch_add(1, Ordering::SeqCst);
    let is_over = running.serve(deadline);
    // The leader of the group is not reaped yet, so no other group can have the same id.
    if let Ok(group) = i32::try_from(running.child.id()) {
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
    RUNNING.fetch_sub(1, Ordering::SeqCst);
    let status = running.child.wait();
    CHILDREN.lock().unwrap_or_else(PoisonError::into_inner).retain(|child| *child != running.child.id());
    let status = status?;
    if is_over? {
        running.output_pipe.drain()?;
        return Ok((ended(status), running.output_pipe.text));
    }
    Ok((Ended::Late, running.output_pipe.text))
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
    output_pipe: Output,
}

impl Running<'_> {
    /// Writes input and reads output until the command ends. Returns false if the time limit is
    /// reached or [`end_all`] is called first.
    fn serve(&mut self, deadline: Instant) -> io::Result<bool> {
        if let Some(feed) = &self.feed {
            fcntl(&feed.pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        let mut interval = POLL_INTERVAL.0;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || STOPPED.load(Ordering::SeqCst) {
                return Ok(false);
            }
            let (can_write, can_read) = self.wait(left.min(interval))?;
            interval = if can_write || can_read { POLL_INTERVAL.0 } else { POLL_INTERVAL.1.min(interval * 2) };
            if can_write && !self.feed.as_mut().map_or(Ok(false), Feed::write)? {
                self.feed = None;
            }
            if can_read {
                self.output_pipe.read()?;
            }
            if self.is_over()? {
                return Ok(true);
            }
        }
    }

    /// Waits until a pipe is ready, or for `limit`; returns whether input can be written, and
    /// whether output can be read.
    fn wait(&self, limit: Duration) -> io::Result<(bool, bool)> {
        let feed = self.feed.iter().map(|feed| PollFd::new(feed.pipe.as_fd(), PollFlags::POLLOUT));
        let output_pipe = self.output_pipe.pipe.iter().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN));
        let mut both: Vec<PollFd<'_>> = feed.chain(output_pipe).collect();
        // The resolution of poll(2) is a millisecond.
        let timeout = PollTimeout::try_from(limit.max(POLL_INTERVAL.0)).unwrap_or(PollTimeout::MAX);
        match poll(&mut both, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
        let mut is_ready = both.iter().map(|fd| fd.any().unwrap_or(false));
        let can_write = self.feed.is_some() && is_ready.next().unwrap_or(false);
        Ok((can_write, is_ready.next().unwrap_or(false)))
    }

    /// Whether the command has ended. Does not reap it.
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

/// The input of a command.
struct Feed<'a> {
    pipe: ChildStdin,
    from: &'a mut dyn Read,
    /// Bytes that were read from `from` but not yet written to the pipe.
    piece: Vec<u8>,
}

impl Feed<'_> {
    /// Writes a chunk; returns false when there is no more input, or the command has closed its end
    /// of the pipe.
    fn write(&mut self) -> io::Result<bool> {
        if self.piece.is_empty() {
            self.from.take(CHUNK as u64).read_to_end(&mut self.piece)?;
        }
        match self.pipe.write(&self.piece) {
            Ok(count) => drop(self.piece.drain(..count)),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => return Ok(true),
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(false),
            Err(e) => return Err(e),
        }
        if self.piece.is_empty() {
            self.from.take(CHUNK as u64).read_to_end(&mut self.piece)?;
        }
        Ok(!self.piece.is_empty())
    }
}

/// The output of a command.
struct Output {
    pipe: Option<PipeReader>,
    text: Vec<u8>,
    max: usize,
    is_lenient: bool,
}

impl Output {
    /// Reads a chunk, and returns its size; closes the pipe at the end of the output.
    fn read(&mut self) -> io::Result<usize> {
        let mut piece = [0; CHUNK];
        let count = match self.pipe.as_mut().map(|pipe| pipe.read(&mut piece)) {
            Some(Err(e)) if e.kind() == io::ErrorKind::Interrupted => return Ok(0),
            Some(read) => read?,
            None => 0,
        };
        if count == 0 {
            self.pipe = None;
        }
        let room = self.max.saturating_sub(self.text.len());
        if count > room && !self.is_lenient {
            return Err(io::Error::other(format!("it prints more than {} bytes", self.max)));
        }
        self.text.extend_from_slice(piece.get(..count.min(room)).unwrap_or_default());
        Ok(count)
    }

    /// Reads the rest of the output after the command has ended, without waiting for more.
    fn drain(&mut self) -> io::Result<()> {
        let mut read = 0;
        while let Some(pipe) = self.pipe.as_ref().filter(|_| read < MAX_REST) {
            let mut fd = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fd, PollTimeout::ZERO) {
                Ok(0) => return Ok(()),
                Ok(_) => read += self.read()?,
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
    fn the_output_of_a_command_is_bounded() {
        let run = |script: &str, limit| {
            let arguments = ["-c".to_owned(), script.to_owned()];
            output("/bin/sh", &arguments, Duration::from_millis(limit), 10).map_err(|e| e.to_string())
        };
        assert_eq!(run("echo token", 10_000), Ok(b"token\n".to_vec()));
        assert_eq!(run("echo token; exit 3", 10_000), Err("exit status: 3".into()));
        assert_eq!(run("yes", 10_000), Err("it prints more than 10 bytes".into()));
        assert_eq!(run("cat", 10_000), Ok(Vec::new()), "nothing to read");
        let begun = Instant::now();
        // In the first script, a child of the command holds the output pipe open, too. The second
        // script closes the pipe at once, but goes on.
        for late in ["sleep 60 & sleep 60", "exec >&-; sleep 60"] {
            assert_eq!(run(late, 200), Err("it takes too long".into()), "{late}");
        }
        assert!(begun.elapsed() < Duration::from_secs(10));
        assert!(output("/nonexistent", &[], Duration::from_secs(1), 10).is_err());
    }

    #[test]
    fn a_command_gets_its_input_and_leaves_no_process_behind() {
        let long = "x".repeat(1 << 20);
        for (script, input, ended, output) in [
            ("wc -c", long.as_str(), Ended::Code(0), "1048576\n"),
            ("exit 75", long.as_str(), Ended::Code(75), ""),
            ("echo no; echo never >&2; exit 67", "x", Ended::Code(67), "no\nnever\n"),
            ("kill -9 $$", "", Ended::Signal(9), ""),
            ("cat >/dev/null; sleep 60 & echo $!", "x", Ended::Code(0), "*"),
            ("exec >&- 2>&-; sleep 60", "x", Ended::Late, ""),
            // A process that has left the group survives, and `run` does not wait for it.
            ("setsid sleep 1 & exit 3", "", Ended::Code(3), ""),
            ("umask", "", Ended::Code(0), "0077\n"),
            ("yes | head -c 100000", "", Ended::Code(0), "y\ny\ny\ny\ny\ny\ny\ny\ny\ny\n"),
        ] {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", script]);
            let time_limit = Duration::from_millis(if ended == Ended::Late { 200 } else { 20_000 });
            let options =
                RunOptions { input: Some(&mut input.as_bytes()), time_limit, max_output: 20, is_lenient: true };
            let (how, text) = run(command, options).expect(script);
            let text = String::from_utf8(text).expect("text");
            assert_eq!(how, ended, "{script}: {text}");
            if output != "*" {
                assert_eq!(text, output, "{script}");
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

    /// Whether the process has ended, but its new parent has not reaped it yet.
    fn is_zombie(pid: i32) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    }
}

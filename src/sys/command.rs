//! What a configured command prints.
//!
//! It is run without a shell, as the server's user, with nothing on its standard
//! input, in a process group of its own. It has until a deadline, and room for so
//! many octets; whoever is late or talks too much is killed, with all that he has
//! started. What it says on standard error is not read.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// How often one is looked at that has closed its output and goes on.
const GLANCE: Duration = Duration::from_millis(10);

/// Runs the program at the path `program`, and gives what it has printed when it has
/// ended well, at most `most` octets.
///
/// # Errors
/// That it cannot be run, fails, is late, or prints more.
pub fn output(program: &str, arguments: &[String], limit: Duration, most: usize) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + limit;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
    let mut child = command.spawn()?;
    let heard = hear(&mut child, deadline, most).and_then(|text| await_end(&mut child, deadline).map(|()| text));
    if heard.is_err() {
        if let Ok(group) = i32::try_from(child.id()) {
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
        let _ = child.wait();
    }
    heard
}

fn hear(child: &mut Child, deadline: Instant, most: usize) -> io::Result<Vec<u8>> {
    let Some(mut pipe) = child.stdout.take() else { return Err(io::ErrorKind::BrokenPipe.into()) };
    let (mut text, mut piece) = (Vec::new(), [0; 1024]);
    loop {
        let left = left(deadline)?;
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        if poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], timeout)? == 0 {
            continue;
        }
        match pipe.read(&mut piece)? {
            0 => return Ok(text),
            count => text.extend_from_slice(piece.get(..count).unwrap_or_default()),
        }
        if text.len() > most {
            return Err(io::Error::other(format!("it prints more than {most} octets")));
        }
    }
}

fn await_end(child: &mut Child, deadline: Instant) -> io::Result<()> {
    loop {
        match child.try_wait()? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(io::Error::other(status.to_string())),
            None => thread::sleep(GLANCE.min(left(deadline)?)),
        }
    }
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::Error::new(io::ErrorKind::TimedOut, "it takes too long")) } else { Ok(left) }
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
}

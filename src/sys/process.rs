//! Privileges, limits and descriptors of this process.
//!
//! Thin: each function is one thing that the system does, with its errors.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd};

use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{geteuid, getpid};

use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// Whether this process is root.
pub fn is_root() -> bool {
    geteuid().is_root()
}

/// Ends this process at once, whatever it is doing, when who is at the other end of
/// standard input is gone; `last` is done before.
///
/// # Errors
/// That there is no thread to be had.
pub fn end_with_input(last: fn()) -> io::Result<()> {
    let wait = move || {
        let input = io::stdin();
        let mut hung_up = [PollFd::new(input.as_fd(), PollFlags::empty())];
        while matches!(poll(&mut hung_up, PollTimeout::NONE), Err(Errno::EINTR)) {}
        last();
        // Nothing of a library's is run any more, which may be at work as root.
        let _ = kill(getpid(), Signal::SIGKILL);
    };
    thread::Builder::new().spawn(wait).map(drop)
}

/// Gives new files and directories the modes that they are made with, whatever the umask of
/// whoever starts the program: nothing of it is for group or others to write.
pub fn usual_umask() {
    umask(Mode::from_bits_truncate(0o022));
}

/// Closes what the program that began this one has left open, beyond the standard
/// streams and so many that it means to pass on.
pub fn close_inherited(passed: i32) {
    let numbers = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers: Vec<i32> = numbers.filter_map(|file| file.file_name().to_str()?.parse().ok()).collect();
    // The directory's own is among them, and closed already.
    numbers.into_iter().filter(|number| *number > passed.saturating_add(2)).for_each(|number| {
        let _ = nix::unistd::close(number);
    });
}

/// Lets this process open as many files as it may: a session takes one, and a second
/// one for a message.
pub fn raise_descriptor_limit() {
    // It goes without, too: accept(2) then says so, and the client is told to come back.
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// The signals that a daemon waits for. The first process of a container gets the children
/// of all who have ended, and hears of them.
///
/// # Errors
/// Those of sigaction(2) and pipe(2).
pub fn signals() -> io::Result<Signals> {
    let is_first = std::process::id() == 1;
    Signals::new([SIGTERM, SIGINT, SIGHUP].into_iter().chain(is_first.then_some(SIGCHLD)))
}

/// Gives this process, and what it runs, as many open files as programs expect: some look at
/// each that there could be, and select(2) knows no more.
pub fn usual_descriptor_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard.min(1024), hard);
    }
}

/// Lets the user as whom this process runs have so many processes and threads, when this
/// one or what it runs begins another. Those of root are not limited.
pub fn limit_processes(most: u64) {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NPROC) {
        let most = most.min(hard);
        let _ = setrlimit(Resource::RLIMIT_NPROC, most, most);
    }
}

/// Makes a thread that waits in accept(2) on this socket return. The socket is
/// of no use then.
pub fn wake_acceptor(listener: &TcpListener) {
    let _ = nix::sys::socket::shutdown(listener.as_raw_fd(), nix::sys::socket::Shutdown::Both);
}

//! Signals, limits and descriptors of this process.
//!
//! Each function makes one change and returns the errors of the system.

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

/// Starts a thread that kills this process when the other end of standard input is closed, after a
/// call of `last`.
///
/// # Errors
/// No thread can be started.
pub fn end_with_input(last: fn()) -> io::Result<()> {
    let wait = move || {
        let input = io::stdin();
        let mut hung_up = [PollFd::new(input.as_fd(), PollFlags::empty())];
        while matches!(poll(&mut hung_up, PollTimeout::NONE), Err(Errno::EINTR)) {}
        last();
        // Unlike exit(3), this runs no exit handlers of libraries, which could run as root.
        let _ = kill(getpid(), Signal::SIGKILL);
    };
    thread::Builder::new().spawn(wait).map(drop)
}

/// Sets the umask to 022, whatever it was when the program was started.
pub fn usual_umask() {
    umask(Mode::from_bits_truncate(0o022));
}

/// Closes the descriptors that this process has inherited, except the standard streams and this
/// many after them.
pub fn close_inherited(passed: i32) {
    let numbers = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers: Vec<i32> = numbers.filter_map(|file| file.file_name().to_str()?.parse().ok()).collect();
    // The descriptor of the directory itself is among them, but is closed already.
    numbers.into_iter().filter(|number| *number > passed.saturating_add(2)).for_each(|number| {
        let _ = nix::unistd::close(number);
    });
}

/// Raises the limit on descriptors to its maximum. A session needs one, and another one while it
/// receives a message.
pub fn raise_descriptor_limit() {
    // If that fails, accept(2) fails sooner, and clients get a temporary error.
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// The signals that a daemon waits for. The first process of a container becomes the parent of
/// orphans, and so also waits for SIGCHLD.
///
/// # Errors
/// Those of sigaction(2) and pipe(2).
pub fn signals() -> io::Result<Signals> {
    let is_first = std::process::id() == 1;
    Signals::new([SIGTERM, SIGINT, SIGHUP].into_iter().chain(is_first.then_some(SIGCHLD)))
}

/// Lowers the soft limit on descriptors to 1024, also for programs that this process runs: some
/// loop over every possible descriptor, and select(2) cannot handle more.
pub fn usual_descriptor_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard.min(1024), hard);
    }
}

/// Limits the processes and threads of this process's user, for those that this process and its
/// children start. Does not limit root.
pub fn limit_processes(max: u64) {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NPROC) {
        let max = max.min(hard);
        let _ = setrlimit(Resource::RLIMIT_NPROC, max, max);
    }
}

/// Makes accept(2) on this socket return in the thread that waits there, and shuts the socket
/// down.
pub fn wake_acceptor(listener: &TcpListener) {
    let _ = nix::sys::socket::shutdown(listener.as_raw_fd(), nix::sys::socket::Shutdown::Both);
}

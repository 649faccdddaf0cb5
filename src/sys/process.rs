//! Changes properties of this process: signals, limits and descriptors.

use std::io;
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

/// Returns the current time, in seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// Whether this process is root.
pub fn is_root() -> bool {
    geteuid().is_root()
}

/// Starts a thread that waits until the other end of standard input is closed, and then calls
/// `last` and kills this process.
///
/// # Errors
/// If the thread cannot be started.
pub fn end_with_input(last: fn()) -> io::Result<()> {
    let wait = move || {
        let input = io::stdin();
        let mut hung_up = [PollFd::new(input.as_fd(), PollFlags::empty())];
        while matches!(poll(&mut hung_up, PollTimeout::NONE), Err(Errno::EINTR)) {}
        last();
        // SIGKILL runs no exit handlers of libraries, unlike exit(3). If this process still is
        // root, such handlers would run as root.
        let _ = kill(getpid(), Signal::SIGKILL);
    };
    thread::Builder::new().spawn(wait).map(drop)
}

/// Sets the umask to 022, whatever it was when the program was started.
pub fn usual_umask() {
    umask(Mode::from_bits_truncate(0o022));
}

/// Closes all open descriptors, except the standard streams and the `passed` descriptors that
/// follow them.
pub fn close_inherited(passed: i32) {
    let numbers = super::system::descriptors().into_iter();
    numbers.filter(|number| *number > passed.saturating_add(2)).for_each(|number| {
        let _ = nix::unistd::close(number);
    });
}

/// Raises the soft limit on descriptors to the hard limit. A session needs one descriptor, and a
/// second descriptor while it receives a message.
pub fn raise_descriptor_limit() {
    // If the limit cannot be raised, fewer clients can be served at a time, and the others get a
    // temporary error.
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Starts to catch the signals that a daemon waits for. The first process of a container also
/// catches SIGCHLD, because it becomes the parent of orphans.
///
/// # Errors
/// Those of sigaction(2) and pipe(2).
pub fn signals() -> io::Result<Signals> {
    let is_first = std::process::id() == 1;
    Signals::new([SIGTERM, SIGINT, SIGHUP].into_iter().chain(is_first.then_some(SIGCHLD)))
}

/// Lowers the soft limit on descriptors to 1024, for the programs that this process runs and that
/// inherit the limit. Some programs loop over all possible descriptors. Others use select(2), which
/// cannot handle more.
pub fn usual_descriptor_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard.min(1024), hard);
    }
}

/// Keeps this process and its children from starting further processes and threads while their user
/// has `max` or more of them. Root is not limited.
pub fn limit_processes(max: u32) {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NPROC) {
        let max = hard.min(max.into());
        let _ = setrlimit(Resource::RLIMIT_NPROC, max, max);
    }
}

/// Shuts a listening socket down, so that accept(2) returns in the thread that waits on it.
pub fn wake_acceptor(listener: &impl AsRawFd) {
    let _ = nix::sys::socket::shutdown(listener.as_raw_fd(), nix::sys::socket::Shutdown::Both);
}

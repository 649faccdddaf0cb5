//! Privileges, limits and descriptors of this process.
//!
//! Thin: each function is one thing that the system does, with its errors.

use std::ffi::CString;
use std::fs;
use std::io::{self, Write};
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::OnceLock;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, User, getegid, geteuid, getpid, initgroups, setgroups, setresgid, setresuid};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
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

/// Who this process has become.
static NAME: OnceLock<String> = OnceLock::new();

/// The name of the user that this process runs as; his number where he has none. It asks the
/// system once at most.
pub fn user_name() -> String {
    let uid = geteuid();
    let look_up = || User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
    if uid.is_root() { look_up() } else { NAME.get_or_init(look_up).clone() }
}

/// Becomes `user` for good, if this process is root; otherwise nothing. The order
/// matters: groups, group, user.
///
/// # Errors
/// No such user, root itself, or a system that would let the privileges come back.
pub fn become_user(user: &str) -> io::Result<()> {
    if !is_root() {
        return Ok(());
    }
    let found =
        User::from_name(user)?.ok_or_else(|| io::Error::other("there is no such user: make it, or set user"))?;
    if found.uid.is_root() {
        return Err(io::Error::other("the server must not run as root"));
    }
    initgroups(&CString::new(found.name)?, found.gid)?;
    setresgid(found.gid, found.gid, found.gid)?;
    setresuid(found.uid, found.uid, found.uid)?;
    let root = Uid::from_raw(0);
    if setresuid(root, root, root).is_ok() || geteuid() != found.uid || getegid() != found.gid {
        return Err(io::Error::other("privileges could not be given up"));
    }
    let _ = NAME.set(user.to_owned());
    Ok(())
}

/// Becomes a user with no group but his first one, for good. Nobody but root can, and
/// nobody becomes root.
///
/// # Errors
/// Those of the system, or one that would let the privileges come back.
fn become_nothing_but(uid: u32, gid: u32) -> io::Result<()> {
    let (uid, gid, root) = (Uid::from_raw(uid), Gid::from_raw(gid), Uid::from_raw(0));
    if uid.is_root() {
        return Err(Errno::EPERM.into());
    }
    setgroups(&[])?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    if setresuid(root, root, root).is_ok() || geteuid() != uid || getegid() != gid {
        return Err(io::Error::other("privileges could not be given up"));
    }
    Ok(())
}

/// The same, and says so on standard output, as four octets; who began this process listens
/// there. Nothing else is ever said there: it is `/dev/null` then.
///
/// # Errors
/// The same, and those of the system for either.
pub fn become_and_say(uid: u32, gid: u32) -> io::Result<()> {
    become_nothing_but(uid, gid)?;
    let mut said = io::stdout();
    said.write_all(&uid.to_ne_bytes())?;
    said.flush()?;
    Ok(nix::unistd::dup2_stdout(fs::File::options().write(true).open("/dev/null")?)?)
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

/// Gives up all of root's rights but those to change a file's owner and to end a process
/// of somebody else's. What this process executes has them again. Without the others a file
/// that becomes a user's counts for his quota, and is refused where he has no room.
///
/// # Errors
/// Those of capset(2).
pub fn keep_rights() -> io::Result<()> {
    let kept = (CapabilitySet::CHOWN | CapabilitySet::KILL) & capabilities(None)?.permitted;
    Ok(set_capabilities(
        None,
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() },
    )?)
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

//! The opener, the process that opens files that only root can read.
//!
//! Only root has such files; otherwise the tests are reported as skipped.

use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use common::Site;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::{Pid, geteuid};
use penfold::privsep::request::{Request, ask};
use penfold::privsep::{MONITOR, OPENER};

use crate::agents::children;

/// Writes a users file that only root can read.
fn secret(site: &Site, name: &str) -> PathBuf {
    let path = site.path(name);
    fs::write(&path, "anna::\n").expect("a scratch file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a scratch file");
    path
}

/// In a namespace for its processes, the number of the next process tells how many there were.
#[test]
fn one_process_opens_the_files_of_a_hundred_domains() {
    let script = "\"$@\" && echo \"$(sh -c 'echo $$')\"";
    let numbered = |command: &Command| {
        let mut inside = Command::new("unshare");
        inside.args(["--pid", "--fork", "--mount-proc", "sh", "-c", script, "sh"]);
        inside.arg(command.get_program()).args(command.get_args());
        inside.output().expect("unshare runs")
    };
    if !geteuid().is_root() || !numbered(&Command::new("true")).status.success() {
        return common::skipped("no private process numbers without root and unshare");
    }
    let mut site = Site::new();
    site.make_root_owned();
    for number in 0..100 {
        let section = format!("domain#{number}");
        site.set(&section, "names", &format!("[\"d{number}.test\"]"));
        site.set(&section, "users", &format!("\"file:{}\"", secret(&site, &format!("users{number}")).display()));
    }
    let output = numbered(&site.penfoldd(&["-n"]));
    assert!(output.status.success(), "{output:?}");
    let next: usize = String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number");
    assert!(next < 50, "{next} processes");
}

/// An opener or a monitor, and the socket for requests to it.
struct Helper(Child, OwnedFd);

impl Helper {
    fn opener(site: &Site) -> Self {
        Self::start(OPENER, site.penfoldd(&[]))
    }

    /// A monitor of a server that runs as nobody and has no workers.
    fn monitor(site: &Site) -> Self {
        Self::start(MONITOR, site.penfoldd(&["65534", "65534", "0"]))
    }

    fn start(name: &str, mut command: Command) -> Self {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).expect("a pair");
        Self(command.arg0(name).stdin(theirs).spawn().expect("it starts"), ours)
    }

    fn asked(&self, request: &Request) -> Option<OwnedFd> {
        let request = request.write().expect("short");
        ask(&self.1, &request, None).expect("an answer").ok().flatten()
    }

    fn opens(&self, path: &Path) -> bool {
        self.asked(&Request::File(path.to_owned())).is_some()
    }

    /// Sends a signal to this monitor's opener.
    fn signal_opener(&self, signal: Signal) {
        let (opener, _) =
            children(self.0.id()).into_iter().find(|(_, name)| name == OPENER).expect("the monitor has an opener");
        send(opener, signal);
    }

    fn ends(self) {
        let Self(mut process, socket) = self;
        drop(socket);
        assert!(process.wait().expect("it ends").success());
    }
}

fn send(process: u32, signal: Signal) {
    kill(Pid::from_raw(process.try_into().expect("a small number")), signal).expect("it runs");
}

/// A site of root's with these users files, which only root can read. The configuration names the first.
/// Without root, reports the test as skipped and returns `None`.
fn site<const N: usize>(names: [&str; N]) -> Option<(Site, [PathBuf; N])> {
    if !geteuid().is_root() {
        common::skipped("only root has files that only root can read");
        return None;
    }
    let mut site = Site::new();
    site.make_root_owned();
    let files = names.map(|name| secret(&site, name));
    name(&mut site, &files[0]);
    Some((site, files))
}

/// Names a users file in the configuration.
fn name(site: &mut Site, path: &Path) {
    site.set("local", "users", &format!("\"file:{}\"", path.display()));
    site.configure();
}

#[test]
fn an_opener_opens_the_files_that_the_configuration_names_now() {
    let Some((mut site, [one, two, other])) = site(["one", "two", "other"]) else { return };
    let opener = Helper::opener(&site);
    let opens = || [&one, &two, &other].map(|path| opener.opens(path));
    assert_eq!(opens(), [true, false, false]);
    assert_eq!(opens(), [true, false, false], "again");
    name(&mut site, &two);
    assert_eq!(opens(), [false, true, false], "another file is named");
    // A user who can write to the configuration, or to a file, gets nothing.
    let configuration = site.path("penfold.conf");
    for path in [&configuration, &two] {
        let mode = |mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("root can");
        mode(0o622);
        assert_eq!(opens(), [false, false, false], "{}", path.display());
        mode(0o600);
        assert_eq!(opens(), [false, true, false], "{}", path.display());
    }
    fs::remove_file(&configuration).expect("it is there");
    assert_eq!(opens(), [false, false, false], "no configuration");
    name(&mut site, &one);
    assert_eq!(opens(), [true, false, false], "a new configuration");
    opener.ends();
}

#[test]
fn a_killed_opener_is_replaced() {
    let Some((site, [one, other])) = site(["one", "other"]) else { return };
    let monitor = Helper::monitor(&site);
    for _ in 0..3 {
        assert!(monitor.opens(&one));
        monitor.signal_opener(Signal::SIGKILL);
        assert!(!monitor.opens(&other));
        monitor.signal_opener(Signal::SIGKILL);
    }
    monitor.ends();
}

/// Each signal interrupts the monitor while it waits. Users' commands that end send it signals, too.
#[test]
fn the_monitor_does_not_wait_longer_for_an_opener_because_of_signals() {
    let Some((site, [one])) = site(["one"]) else { return };
    let monitor = Helper::monitor(&site);
    assert!(monitor.opens(&one));
    monitor.signal_opener(Signal::SIGSTOP);
    let (begun, process) = (Instant::now(), monitor.0.id());
    let (stop, stopped) = channel::<()>();
    let signals = thread::spawn(move || {
        while stopped.recv_timeout(Duration::from_millis(500)) == Err(RecvTimeoutError::Timeout)
            && begun.elapsed() < Duration::from_secs(25)
        {
            send(process, Signal::SIGCHLD);
        }
    });
    assert!(!monitor.opens(&one));
    let waited = begun.elapsed();
    drop(stop);
    signals.join().expect("no panic");
    assert!(monitor.opens(&one), "another opener");
    monitor.ends();
    assert!(waited < Duration::from_secs(20), "{waited:?}");
}

/// The other file's name is as long, and the time stamp is set back.
#[test]
fn no_opener_goes_on_with_an_old_configuration() {
    let Some((site, [one, two])) = site(["one", "two"]) else { return };
    let monitor = Helper::monitor(&site);
    sleep(Duration::from_millis(100));
    assert!(monitor.opens(&one));
    let configuration = site.path("penfold.conf");
    let text = fs::read_to_string(&configuration).expect("it is there");
    let mut file = fs::File::options().write(true).open(&configuration).expect("it is there");
    let modified = file.metadata().and_then(|data| data.modified()).expect("a time");
    let [from, to] = [&one, &two].map(|path| path.to_str().expect("text"));
    file.write_all(text.replace(from, to).as_bytes()).and_then(|()| file.set_modified(modified)).expect("root can");
    let changed = Instant::now();
    while monitor.opens(&one) {
        assert!(changed.elapsed() < Duration::from_secs(20), "it is still opened");
        sleep(Duration::from_millis(100));
    }
    assert!(monitor.opens(&two));
    monitor.ends();
}

/// For a server without workers, there may be 500 agents, and 20 of one user. Users can stop agents, so
/// that they do not end.
#[test]
fn an_opener_starts_while_there_are_as_many_agents_as_may_be() {
    let Some((site, [one])) = site(["one"]) else { return };
    let monitor = Helper::monitor(&site);
    let users = (0..25).flat_map(|user| [user; 20]);
    let agents: Vec<_> =
        users.filter_map(|user| monitor.asked(&Request::Agent(format!("penfold-test-{user}")))).collect();
    assert_eq!(agents.len(), 500);
    assert!(monitor.opens(&one));
    assert!(monitor.asked(&Request::OwnAgent).is_none());
    drop(agents);
    monitor.ends();
}

//! Runs a mail server, penfold or Postfix, as a real process in a scratch directory.
//!
//! Both servers accept mail for [`BOXES`] mailboxes of razorback.test, each a Maildir below
//! `mail/`, and send all other mail to one next hop. Both store acknowledged mail durably, by
//! default; logs are discarded. When a [`Server`] is dropped, its processes are ended and its
//! directory is removed, so that nothing is deleted while another server is measured.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

use crate::hosts::RETRY;
use crate::machine;
use common::{Site, free_port};

/// The number of mailboxes. A mailbox is named by its number, such as `m7`.
pub const BOXES: usize = 1200;
/// The address of the name server, for servers that look up mail exchangers.
pub const NAMES: &str = "127.0.0.1:53";
/// The longest time that a server may take to start or to end.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The interval between two looks at a condition that no event announces.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// The address of a mailbox.
pub fn local(number: usize) -> String {
    format!("m{number}@razorback.test")
}

/// A running server.
pub struct Server {
    child: Child,
    /// The signal for the server if `child` is only its watcher, such as strace, which reports when
    /// the server has ended. Postfix gets SIGKILL, because unshare(1), under which it runs, ignores
    /// SIGTERM.
    farewell: Option<Signal>,
    /// The address on which the server accepts SMTP.
    pub address: SocketAddr,
    /// The time from the start of the process to its first greeting.
    pub greeted: Duration,
    mail: PathBuf,
    /// The server's directory, which is removed after the process has ended.
    site: Option<Site>,
}

/// Makes a site for penfold below `scratch`. All remote mail goes to `next`.
pub fn site(scratch: &Path, next: SocketAddr) -> Site {
    let mut site = Site::below(scratch);
    let users: String = (0..BOXES).map(|number| format!("m{number}::\n")).collect();
    site.write("users", &users);
    site.set("limits", "connections", "20000");
    site.set("limits", "connections_per_host", "20000");
    site.set("remote", "smarthosts", &format!("[\"smtp://{next}\"]"));
    // With this interval no deferred message is due during a measurement.
    site.set("queue", "retry_min", "\"4h\"");
    site
}

/// Makes the same site with this many tables `[[domain]]`, each with a users file of its own. The last one
/// has the mailboxes.
pub fn site_of_domains(scratch: &Path, next: SocketAddr, tables: usize) -> Site {
    let mut site = site(scratch, next);
    site.set("local", "domains", "[\"localhost\"]");
    for number in 1..=tables {
        let (name, file) = match number == tables {
            true => ("razorback.test".to_owned(), "users".to_owned()),
            false => (format!("d{number}.test"), format!("users-{number}")),
        };
        if number < tables {
            site.write(&file, "jon::\n");
        }
        let users = format!("\"file:{}\"", site.path(&file).display());
        let table = format!("domain#{number}");
        site.set(&table, "names", &format!("[\"{name}\"]"));
        site.set(&table, "users", &users);
    }
    site
}

impl Server {
    /// Starts penfold in a site. The site remains when the server is dropped.
    ///
    /// # Errors
    /// If the server does not greet; the reason is on standard error.
    pub fn penfold(site: &Site) -> io::Result<Self> {
        Self::watched_penfold(site, &[])
    }

    /// Starts penfold in a site under another program. `by` is that program with its arguments,
    /// such as strace.
    ///
    /// # Errors
    /// If the server does not greet.
    pub fn watched_penfold(site: &Site, by: &[&str]) -> io::Result<Self> {
        let port = free_port();
        site.write("port", &port.to_string());
        let configured = site.penfoldd(&["-d"]);
        let address = format!("127.0.0.1:{port}");
        let text = fs::read_to_string(site.path("penfold.conf"))?.replace("127.0.0.1:0", &address);
        site.write("penfold.conf", &text);
        let mut command = wrap(by, configured.get_program());
        command.args(configured.get_args());
        let farewell = (!by.is_empty()).then_some(Signal::SIGTERM);
        Self::spawn(command, farewell, port, site.path("mail"))
    }

    /// Starts penfold in a new site below `scratch`. All remote mail goes to `next`.
    ///
    /// # Errors
    /// If the server does not greet.
    pub fn own_penfold(scratch: &Path, next: SocketAddr) -> io::Result<Self> {
        Self::penfold_of(site(scratch, next))
    }

    /// Starts penfold in a site, which is removed when the server is dropped.
    ///
    /// # Errors
    /// If the server does not greet.
    pub fn penfold_of(site: Site) -> io::Result<Self> {
        let mut server = Self::penfold(&site)?;
        server.site = Some(site);
        Ok(server)
    }

    /// Starts the Postfix that is unpacked in `tree`. `by` is the program that watches it, or
    /// empty.
    ///
    /// # Errors
    /// If the server does not greet.
    pub fn postfix(tree: &Path, scratch: &Path, next: SocketAddr, by: &[&str]) -> io::Result<Self> {
        Self::spawn_postfix(tree, scratch, &next.port().to_string(), by)
    }

    /// Starts a Postfix that looks up mail exchangers at the name server [`NAMES`].
    ///
    /// # Errors
    /// If the server does not greet.
    pub fn sending_postfix(tree: &Path, scratch: &Path) -> io::Result<Self> {
        Self::spawn_postfix(tree, scratch, "MX", &[])
    }

    /// Starts a penfold that looks up mail exchangers at the name server [`NAMES`]. Only the retry
    /// intervals differ from the default settings.
    ///
    /// # Errors
    /// If the server does not greet.
    pub fn sending_penfold(scratch: &Path) -> io::Result<Self> {
        let mut site = Site::below(scratch);
        site.set("dns", "nameservers", &format!("[\"{NAMES}\"]"));
        let retry = format!("\"{}s\"", RETRY.as_secs());
        ["retry_min", "retry_max"].iter().for_each(|key| site.set("queue", key, &retry));
        let mut server = Self::penfold(&site)?;
        server.site = Some(site);
        Ok(server)
    }

    fn spawn_postfix(tree: &Path, scratch: &Path, next: &str, by: &[&str]) -> io::Result<Self> {
        let site = Site::below(scratch);
        let boxes: String = (0..BOXES).map(|number| format!("{} m{number}/\n", local(number))).collect();
        site.write("boxes", &boxes);
        // The script makes `mail` anew, for the user as which Postfix runs.
        fs::remove_dir(site.path("mail"))?;
        let port = free_port();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench/postfix.sh");
        let mut command = wrap(by, script.as_ref());
        command.args([tree, &site.path("")]).args([&port.to_string(), next]);
        let mail = site.path("mail");
        let farewell = (!by.is_empty()).then_some(Signal::SIGKILL);
        let mut server = Self::spawn(command, farewell, port, mail)?;
        server.site = Some(site);
        Ok(server)
    }

    fn spawn(mut command: Command, farewell: Option<Signal>, port: u16, mail: PathBuf) -> io::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let start = Instant::now();
        let child = command.spawn()?;
        let greeted = Duration::ZERO;
        let mut server = Self { child, farewell, address, greeted, mail, site: None };
        if !server.greets(start) {
            // The server is started a second time with standard error open, so that the user sees
            // the reason.
            drop(server);
            let mut child = command.stderr(Stdio::inherit()).spawn()?;
            thread::sleep(Duration::from_secs(1));
            end(&mut child);
            return Err(io::Error::other(format!("{command:?} does not greet")));
        }
        server.greeted = start.elapsed();
        Ok(server)
    }

    fn greets(&mut self, start: Instant) -> bool {
        while start.elapsed() < TIMEOUT && self.child.try_wait().is_ok_and(|status| status.is_none()) {
            if let Ok(mut stream) = TcpStream::connect(self.address)
                && stream.set_read_timeout(Some(TIMEOUT)).is_ok()
                && stream.read_exact(&mut [0; 4]).is_ok()
            {
                return true;
            }
            thread::sleep(POLL_INTERVAL);
        }
        false
    }

    /// The process id of the server's first process, the ancestor of all others.
    pub fn root(&self) -> u32 {
        self.child.id()
    }

    /// The process ids of all the server's processes.
    pub fn pids(&self) -> HashSet<u32> {
        machine::tree(self.root())
    }

    /// The number of messages in the mailboxes with these numbers.
    pub fn arrived(&self, boxes: &[usize]) -> usize {
        let count = |number: &usize| {
            let new = self.mail.join(format!("m{number}")).join("new");
            fs::read_dir(new).map_or(0, Iterator::count)
        };
        boxes.iter().map(count).sum()
    }

    /// Waits until the server has used no processor time for `still`.
    pub fn idles(&self, still: Duration) -> Instant {
        let (mut cpu, mut last, start) = (0.0, Instant::now(), Instant::now());
        while last.elapsed() < still && start.elapsed() < 20 * TIMEOUT {
            let now = machine::cpu(&self.pids());
            if now > cpu {
                (cpu, last) = (now, Instant::now());
            }
            thread::sleep(10 * POLL_INTERVAL);
        }
        last
    }
}

impl Drop for Server {
    /// Ends all processes of the server, and then removes its directory.
    fn drop(&mut self) {
        let pids = self.pids();
        if let Some(farewell) = self.farewell {
            // With strace the server is a child of `child`, and strace reports when the server
            // ends. With valgrind the server and valgrind are the same process.
            let mut watched: Vec<_> = pids.iter().filter(|&&pid| machine::parent(pid) == Some(self.root())).collect();
            let root = self.root();
            if watched.is_empty() {
                watched.push(&root);
            }
            watched.into_iter().for_each(|&pid| signal(pid, farewell));
            let start = Instant::now();
            while start.elapsed() < TIMEOUT && self.child.try_wait().is_ok_and(|status| status.is_none()) {
                thread::sleep(10 * POLL_INTERVAL);
            }
        }
        end(&mut self.child);
        let start = Instant::now();
        while pids.iter().any(|pid| Path::new(&format!("/proc/{pid}")).exists()) && start.elapsed() < TIMEOUT {
            thread::sleep(10 * POLL_INTERVAL);
        }
    }
}

fn signal(pid: u32, signal: Signal) {
    // The call fails only if the process has already ended.
    let _ = i32::try_from(pid).map(|pid| kill(Pid::from_raw(pid), signal));
}

fn end(child: &mut Child) {
    // The call fails only if the process has already ended.
    let _ = child.kill();
    let _ = child.wait();
}

fn wrap(by: &[&str], program: &std::ffi::OsStr) -> Command {
    match by {
        [] => Command::new(program),
        [watcher, arguments @ ..] => {
            let mut command = Command::new(watcher);
            command.args(arguments).arg(program);
            command
        }
    }
}

/// The directory in which tests/setup has unpacked Postfix. If Postfix cannot run, prints the
/// reason and returns `None`.
pub fn unpacked_postfix() -> Option<PathBuf> {
    let tree = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("peers").join("postfix.pkg");
    let lack = match () {
        () if !tree.is_dir() => "it is not unpacked: see tests/setup",
        () if !geteuid().is_root() => "it needs root",
        () => return Some(tree),
    };
    println!("skipped: Postfix: {lack}");
    None
}

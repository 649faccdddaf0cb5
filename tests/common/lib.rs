//! The common code of the tests: a [`Site`] and its [`Daemon`].
//!
//! A site is a scratch directory with a configuration, tables, spool and mailboxes; a daemon is
//! the real penfoldd with that configuration. Both clean up after themselves, also when a test
//! panics; declare the site before its daemon. The system chooses all ports, every wait ends
//! after [`TIMEOUT`], and tests wait for a line of the log where there is one. Nothing here
//! depends on the internals of penfold except for the names of the spool's directories.
//!
//! - `books`: messages with unique tokens, and counts of them in mailboxes
//! - `built`: the programs that cargo has built
//! - `chance`: repeatable random choices
//! - `client`: an SMTP client
//! - `clock`: a clock that a test sets
//! - `debian`: fresh Debian systems
//! - `dialog`: SMTP sessions in text files
//! - `dns`: a scripted name server
//! - `dovecot`: Dovecot, with some of its services
//! - `figure`: measurements, as a table and as a plot
//! - `filter`: scripted milters and policy services
//! - `haproxy`: haproxy in front of several penfolds
//! - `holdings`: threads, descriptors, memory and limits of a process
//! - `homes`: system users with home directories
//! - `https`: an HTTPS server with every fault
//! - `keys`: keys that sign mail, and signatures verified by dkimpy
//! - `log`: the log of a daemon
//! - `mounts`: small disks in a mount namespace
//! - `namespace`: networks of a test's own, with any addresses and ports
//! - `network`: a machine and the world, in network namespaces with signed zones
//! - `pages`: the manual pages and the samples
//! - `plot`: plots in SVG
//! - `programs`: sendmail and similar programs, and Python scripts
//! - `redis`: Redis, as the store that several hosts share
//! - `remote`: a scripted mail server
//! - `scram`: SCRAM-SHA-256 as a server
//! - `skip`: skipped tests
//! - `stop`: ends the threads of a scope, also if the test fails
//! - `tls`: a certificate authority
//! - `unpacked`: programs that tests/setup has unpacked
//! - `zones`: signed zones, as files for a name server

pub mod books;
pub mod built;
pub mod chance;
pub mod client;
pub mod clock;
pub mod debian;
pub mod dialog;
pub mod dns;
pub mod dovecot;
pub mod figure;
pub mod filter;
pub mod haproxy;
pub mod holdings;
pub mod homes;
pub mod https;
pub mod keys;
mod log;
pub mod mounts;
pub mod namespace;
pub mod network;
pub mod pages;
pub mod plot;
pub mod programs;
pub mod redis;
pub mod remote;
pub mod scram;
pub mod skip;
pub mod stop;
pub mod tls;
pub mod unpacked;
pub mod zones;

pub use skip::skipped;

use log::Log;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, geteuid};
use socket2::{Domain, Socket, Type};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;

/// The timeout of every wait. It is long, because only a test that fails waits for its end.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// The interval between two looks at a condition that no log line announces.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// A scratch directory, mode 755, with everything a daemon needs: `penfold.conf`, `spool/`,
/// `mail/USER`, and the tables `users` (jon and root), `aliases`, `virtual`, `routes`,
/// `senders`, `access`, `always_bcc` and `senders-via`. The directory is removed when the site is dropped.
pub struct Site {
    dir: PathBuf,
    settings: Vec<Setting>,
}

/// A line of penfold.conf: the section (empty at the top), the key, and the value in TOML.
struct Setting {
    section: String,
    key: String,
    value: String,
}

const DEFAULTS: &str = r#"
hostname = "razorback.test"
spool = "{dir}/spool"
socket = "{dir}/penfold.sock"
listen.address = "127.0.0.1:0"
local.domains = ["razorback", "razorback.test"]
local.users = "file:{dir}/users"
local.mailbox = "{dir}/mail/{user}"
local.aliases = "{dir}/aliases"
local.virtual = "{dir}/virtual"
submission.senders = "{dir}/senders"
relay.networks = ["127.0.0.0/8"]
policy.access = "{dir}/access"
policy.always_bcc = "{dir}/always_bcc"
policy.sender_domain = "accept"
policy.spf = "none"
policy.dmarc = "none"
remote.routes = "{dir}/routes"
remote.senders = "{dir}/senders-via"
dns.nameservers = ["{dns}"]
log.to = "stderr"
"#;

impl Site {
    /// A site where razorback and razorback.test are local and jon and root have mailboxes. Clients
    /// on loopback addresses may relay, and the name server answers SERVFAIL. No look-up is made for
    /// a client that may not relay: a test sets the keys of `[policy]` that it is about.
    pub fn new() -> Self {
        Self::below(&env::temp_dir())
    }

    /// A site like that of [`Site::new`], in a new directory below `parent`.
    pub fn below(parent: &Path) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("penfold-{}-{}", process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut site = Self { dir: parent.join(name), settings: Vec::new() };
        for dir in ["", "spool", "mail"] {
            let dir = site.path(dir);
            fs::create_dir(&dir).expect("a scratch directory");
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).expect("mode 755");
            own(&dir);
        }
        for (table, text) in [
            ("users", "jon::\nroot::\n"),
            ("aliases", ""),
            ("virtual", ""),
            ("routes", ""),
            ("senders", ""),
            ("access", ""),
            ("always_bcc", ""),
            ("senders-via", ""),
        ] {
            site.write(table, text);
        }
        let dir = site.dir.to_str().expect("a temporary directory in UTF-8");
        let defaults = DEFAULTS.replace("{dir}", dir).replace("{dns}", &no_dns().to_string());
        site.adopt(&defaults);
        if geteuid().is_root() {
            site.set("", "user", "\"nobody\"");
        }
        site
    }

    /// A new site with further settings: lines `section.key = value`, or `key = value` for the top
    /// of the file, with values in TOML.
    pub fn with(settings: &str) -> Self {
        let mut site = Self::new();
        site.adopt(settings);
        site
    }

    /// Sets a key of penfold.conf. `section` is empty for the top of the file, and `value` is TOML.
    pub fn set(&mut self, section: &str, key: &str, value: &str) {
        let (section, key, value) = (section.to_owned(), key.to_owned(), value.to_owned());
        match self.settings.iter_mut().find(|s| s.section == section && s.key == key) {
            Some(setting) => setting.value = value,
            None => self.settings.push(Setting { section, key, value }),
        }
    }

    fn adopt(&mut self, settings: &str) {
        for line in settings.lines().filter(|l| !l.trim().is_empty()) {
            let (key, value) = line.split_once('=').expect("key = value");
            let (section, key) = key.trim().split_once('.').unwrap_or(("", key.trim()));
            self.set(section, key, value.trim());
        }
    }

    /// The contents of penfold.conf.
    fn configuration(&self) -> String {
        let mut text = String::new();
        let mut sections: Vec<&str> = vec![""];
        for setting in &self.settings {
            if !sections.contains(&setting.section.as_str()) {
                sections.push(&setting.section);
            }
        }
        for section in sections {
            match section {
                "" => {}
                "listen" => text.push_str("[[listen]]\n"),
                // A section such as `tls#1` or `tls#2` is one table of an array of tables.
                _ if section.contains('#') => {
                    let name = section.split('#').next().unwrap_or_default();
                    writeln!(text, "[[{name}]]").expect("memory");
                }
                _ => writeln!(text, "[{section}]").expect("memory"),
            }
            for Setting { key, value, .. } in self.settings.iter().filter(|s| s.section == section) {
                writeln!(text, "{key} = {value}").expect("memory");
            }
        }
        text
    }

    /// A path below the scratch directory. For "" it is the directory itself.
    pub fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.dir.clone() } else { self.dir.join(name) }
    }

    /// Writes a file that the daemon may read and write.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::write(&path, text).expect("a scratch file");
        own(&path);
    }

    /// Adds a line to a table.
    pub fn add(&self, table: &str, line: &str) {
        let text = fs::read_to_string(self.path(table)).expect("a table");
        self.write(table, &format!("{text}{line}\n"));
    }

    /// Writes penfold.conf. [`Site::start`] does that by itself; a test calls this before a reload.
    pub fn configure(&self) {
        self.configure_with(&self.configuration());
    }

    /// Replaces penfold.conf in one step, so that the daemon never reads half of the text.
    pub fn configure_with(&self, text: &str) {
        self.write("penfold.conf.new", text);
        if fs::metadata(&self.dir).is_ok_and(|dir| dir.uid() == 0) {
            chown(self.path("penfold.conf.new"), Some(0), Some(0)).expect("root can");
        }
        fs::rename(self.path("penfold.conf.new"), self.path("penfold.conf")).expect("a rename");
    }

    /// Makes root the owner of the directory and of penfold.conf, as in /etc and /run. The daemon's
    /// files go to `var/`. If the tests do not run as root, the owners stay.
    pub fn make_root_owned(&mut self) {
        let var = self.path("var");
        fs::create_dir(&var).expect("a directory");
        own(&var);
        self.set("", "socket", &format!("{:?}", var.join("penfold.sock")));
        if geteuid().is_root() {
            chown(&self.dir, Some(0), Some(0)).expect("root can");
        }
    }

    /// A command that runs penfoldd with this site's configuration and further arguments.
    pub fn penfoldd(&self, arguments: &[&str]) -> Command {
        self.configure();
        let mut command = Command::new(built::program("penfoldd"));
        command.arg("-f").arg(self.path("penfold.conf")).args(arguments).stdin(Stdio::null());
        command
    }

    /// A command that runs the daemon in the foreground and injects faults: `rules` is the value of
    /// `PENFOLD_FAULT`.
    pub fn with_fault(&self, rules: &str) -> Command {
        let mut command = self.penfoldd(&["-d"]);
        command.env("PENFOLD_FAULT", rules);
        command
    }

    /// Starts the daemon in the foreground and waits until it listens.
    pub fn start(&self) -> Daemon {
        Daemon::spawn(self.penfoldd(&["-d"]))
    }

    /// Makes the daemon's user the owner of everything in the spool and the mailboxes.
    pub fn hand_over(&self) {
        ["spool", "mail"].iter().for_each(|dir| own_all(&self.path(dir)));
    }

    /// Runs penfoldctl, and returns its output.
    ///
    /// # Panics
    /// If penfoldctl fails.
    pub fn penfoldctl(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(built::program("penfoldctl"));
        let output = command.arg("-f").arg(self.path("penfold.conf")).args(arguments).output().expect("it runs");
        assert!(output.status.success(), "penfoldctl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The Maildir of a user.
    pub fn mailbox(&self, user: &str) -> PathBuf {
        self.path("mail").join(user)
    }

    /// The messages in `new/` and `cur/` of a mailbox, unordered. If the mailbox does not exist,
    /// there are none.
    pub fn mail(&self, user: &str) -> Vec<Vec<u8>> {
        let mailbox = self.mailbox(user);
        let files = ["new", "cur"].into_iter().flat_map(|sub| files(&mailbox.join(sub)));
        files.filter_map(|file| fs::read(file).ok()).collect()
    }

    /// The paths of the unfinished entries of the spool. An entry that moves from `new/` to `cur/`
    /// meanwhile is counted once.
    pub fn spooled(&self) -> Vec<PathBuf> {
        let paths = ["new", "cur", "hold"].into_iter().flat_map(|sub| files(&self.path("spool").join(sub)));
        let named = paths.map(|path| (path.file_name().map(OsStr::to_owned), path));
        named.collect::<BTreeMap<_, _>>().into_values().collect()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            eprintln!("{}: {error}", self.dir.display());
        }
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect()
}

/// Makes the daemon's user the owner of a path. If the tests do not run as root, does nothing.
pub fn own(path: &Path) {
    static NOBODY: OnceLock<Option<User>> = OnceLock::new();
    if !geteuid().is_root() {
        return;
    }
    let nobody = NOBODY.get_or_init(|| User::from_name("nobody").expect("the user database"));
    let nobody = nobody.as_ref().expect("tests run as root need the user nobody");
    chown(path, Some(nobody.uid.as_raw()), Some(nobody.gid.as_raw())).expect("chown to nobody");
}

fn own_all(path: &Path) {
    own(path);
    let below = fs::read_dir(path).into_iter().flatten().flatten();
    below.for_each(|file| own_all(&file.path()));
}

/// A name server for all sites, which answers SERVFAIL to every question.
fn no_dns() -> SocketAddr {
    static SERVER: OnceLock<dns::Dns> = OnceLock::new();
    SERVER.get_or_init(|| dns::Dns::start(|_, _| dns::Answer::servfail())).address
}

/// A free port on 127.0.0.1, for a server that cannot choose one. No other test gets the same one
/// as long as this process lives.
///
/// The port is outside the range from which the system serves those who ask for any port. A name
/// in the abstract namespace of Unix sockets, which ends with the process, keeps other tests off.
///
/// # Panics
/// If no port is free.
pub fn free_port() -> u16 {
    static CHOSEN: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());
    let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0);
    let start = u16::try_from(seed % 12_000).expect("a small number");
    for step in 0..12_000 {
        let port = 20_000 + (start + step) % 12_000;
        let name = std::os::unix::net::SocketAddr::from_abstract_name(format!("penfold test port {port}"))
            .expect("a short name");
        let Ok(lock) = UnixListener::bind_addr(&name) else { continue };
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            CHOSEN.lock().expect("no panic").push(lock);
            return port;
        }
    }
    panic!("no port is free")
}

/// A running penfoldd and its log. The process is killed when this is dropped.
pub struct Daemon {
    child: Child,
    log: Arc<Log>,
    /// The port on 127.0.0.1 on which the daemon accepts SMTP.
    pub port: u16,
}

impl Daemon {
    /// Starts a command that serves in the foreground and logs `listening on 127.0.0.1:PORT` to
    /// standard error.
    ///
    /// # Panics
    /// If the command ends before that line; the message of the panic is the log.
    pub fn spawn(command: Command) -> Self {
        Self::spawn_until(command, port).unwrap_or_else(|log| panic!("it does not listen; the log:\n{log}"))
    }

    /// Starts a command that serves in the foreground and logs to standard error. Returns as soon
    /// as `ready` finds the port in a line of the log.
    ///
    /// # Errors
    /// The log, if the command ends before that or takes too long.
    pub fn spawn_until(mut command: Command, ready: impl Fn(&str) -> Option<u16>) -> Result<Self, String> {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("it starts");
        let stderr = child.stderr.take().expect("a pipe");
        let log = Arc::new(Log::new(stderr));
        let read = Arc::clone(&log);
        thread::spawn(move || read.follow());
        let mut daemon = Self { child, log, port: 0 };
        let mut found = None;
        daemon.becomes_true(|| {
            found = daemon.log.lock().lines.iter().find_map(|line| ready(line));
            found.is_some()
        });
        match found {
            Some(port) => daemon.port = port,
            None => return Err(daemon.log()),
        }
        Ok(daemon)
    }

    /// The address of the daemon on the loopback interface.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// A new connection to the daemon.
    pub fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address()).expect("penfoldd accepts")
    }

    /// A new connection to the daemon from the loopback address `host`.
    pub fn connect_from(&self, host: Ipv4Addr) -> TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        // Without this option every connection would need a source port of its own, and there are
        // too few.
        socket.set_reuse_address(true).expect("an option");
        socket.bind(&SocketAddr::from((host, 0)).into()).expect("an address of loopback");
        socket.connect(&self.address().into()).expect("penfoldd accepts");
        TcpStream::from(socket)
    }

    /// The process id of the daemon.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"))
    }

    /// The log up to now: also a line that the daemon has just written, before it replied to a client.
    pub fn log(&self) -> String {
        self.log.now().lines.join("\n")
    }

    /// Waits for a log line, old or new, and returns it.
    ///
    /// # Panics
    /// If the daemon ends without the line, or after a timeout. The message is the whole log.
    pub fn wait_log(&self, wanted: impl Fn(&str) -> bool) -> String {
        let mut found = None;
        self.wait_until("a line of the log", || {
            found = self.log.lock().lines.iter().find(|line| wanted(line)).cloned();
            found.is_some()
        });
        found.expect("just seen")
    }

    /// Waits for a condition. The condition is tested again after each new log line.
    ///
    /// # Panics
    /// If the daemon ends before the condition is true, or after a timeout. The message is the
    /// whole log.
    pub fn wait_until(&self, what: &str, condition: impl FnMut() -> bool) {
        if !self.becomes_true(condition) {
            panic!("timed out waiting for {what}; the log:\n{}", self.log());
        }
    }

    /// Waits like [`Daemon::wait_until`], but returns whether the condition became true.
    pub fn becomes_true(&self, mut condition: impl FnMut() -> bool) -> bool {
        let end = Instant::now() + TIMEOUT;
        loop {
            let ended = self.log.lock().ended;
            if condition() {
                return true;
            }
            if ended || Instant::now() > end {
                return false;
            }
            // If a line is logged between the test and this wait, the wait lasts one interval
            // longer.
            self.log.wait(POLL_INTERVAL);
        }
    }

    /// Waits like [`Daemon::becomes_true`], but flushes the queue before each test of the
    /// condition. One flush is not enough, since a flush has no effect on an attempt that is just
    /// ending.
    pub fn flush_until(&self, site: &Site, mut condition: impl FnMut() -> bool) -> bool {
        self.becomes_true(|| {
            site.penfoldctl(&["flush"]);
            condition()
        })
    }

    /// Waits until the spool is empty. Returns false after a timeout.
    pub fn settles(&self, site: &Site) -> bool {
        self.becomes_true(|| site.spooled().is_empty())
    }

    /// Waits until `count` attempts are under way. The queue learns of the end of an attempt after the
    /// log, so a test that asks penfoldctl about an attempt in the log waits for this first.
    ///
    /// # Panics
    /// As [`Daemon::wait_until`].
    pub fn wait_running(&self, site: &Site, count: usize) {
        let line = format!("\npenfold_queue_jobs{{state=\"running\"}} {count}\n");
        let is_so = || site.penfoldctl(&["stats", "--openmetrics"]).contains(&line);
        self.wait_until(&format!("{count} running attempts"), is_so);
    }

    /// Waits until a mailbox has at least `count` messages, and returns them all.
    pub fn wait_mail(&self, site: &Site, user: &str, count: usize) -> Vec<Vec<u8>> {
        self.wait_until(&format!("{count} messages for {user}"), || site.mail(user).len() >= count);
        site.mail(user)
    }

    /// Sends SIGTERM to the daemon, and returns its exit status.
    pub fn terminate(self) -> ExitStatus {
        kill(self.pid(), Signal::SIGTERM).expect("it runs");
        self.wait_end()
    }

    /// Waits until the daemon ends by itself, and returns its exit status.
    pub fn wait_end(mut self) -> ExitStatus {
        let state = self.log.wait_end(TIMEOUT);
        assert!(state.ended, "it did not end; the log:\n{}", state.lines.join("\n"));
        drop(state);
        self.child.wait().expect("a child")
    }

    /// Sends SIGKILL to the daemon, and waits for its end.
    pub fn kill9(mut self) {
        self.end();
    }

    /// Sends SIGKILL to the daemon, and returns the whole log.
    pub fn end_log(mut self) -> String {
        self.end();
        self.log.wait_end(TIMEOUT).lines.join("\n")
    }

    /// Sends SIGHUP to the daemon.
    pub fn hup(&self) {
        kill(self.pid(), Signal::SIGHUP).expect("it runs");
    }

    fn end(&mut self) {
        // The call fails only if the process has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.end();
        if thread::panicking() {
            eprintln!("--- the log of penfoldd, port {}:\n{}\n---", self.port, self.log());
        }
    }
}

/// The port in the log line `listening on 127.0.0.1:PORT`.
pub fn port(line: &str) -> Option<u16> {
    let (_, after) = line.split_once("listening on 127.0.0.1:")?;
    let digits = after.find(|c: char| !c.is_ascii_digit()).map_or(after, |end| &after[..end]);
    digits.parse().ok()
}

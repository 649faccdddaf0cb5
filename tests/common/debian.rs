//! Fresh Debian systems: machines with systemd, a network of their own and nothing from before.
//!
//! The minimal system is made once, below cargo's target directory, and used for a week. Each
//! [`Debian`] is a copy of it: an overlay in memory, in namespaces of its own, with systemd as its
//! first process. It ends when it is dropped, or when the process of the test ends, and leaves
//! nothing behind.
//!
//! The address of the machine is [`ADDRESS`]. Beside it is the world, another network namespace,
//! which is the machine's gateway: what a test starts in [`Debian::world`] (a name server, hosts,
//! clients) is reached by the machine, and nothing else is. Only `apt-get`, as [`Debian::apt`] runs
//! it, sees the network of the host. What it downloads is kept beside the minimal system.

use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};
use std::{env, process, thread};

use nix::sched::{CloneFlags, setns};
use nix::unistd::geteuid;

use super::{POLL_INTERVAL, TIMEOUT, built, programs};

/// The address of the machine.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 25);

/// The address of the world, which is the gateway of the machine.
pub const WORLD: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// The age after which the minimal system is made anew. An archive keeps old packages for about
/// that time, and the lists of packages in the system are as old as the system.
const FRESH: Duration = Duration::from_secs(7 * 24 * 3600);

/// A running machine.
pub struct Debian {
    /// It holds the namespaces, and ends when its standard input does.
    holder: Child,
    /// The first process of the machine, seen from the host.
    init: u32,
    /// A process in the world.
    watch: u32,
    /// An empty directory, on which the holder has mounted the machine.
    dir: PathBuf,
}

impl Debian {
    /// Starts a machine with this name. Returns when it has booted. Without root or the necessary
    /// programs, reports the test as skipped and returns `None`.
    ///
    /// # Panics
    /// If the machine does not boot.
    pub fn boot(name: &str) -> Option<Self> {
        if !geteuid().is_root() {
            super::skipped("a Debian system needs root");
            return None;
        }
        if Command::new("mmdebstrap").arg("--version").output().is_err() {
            super::skipped("mmdebstrap is not installed");
            return None;
        }
        let base = base();
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let dir = format!("penfold-debian-{}-{}", process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let dir = env::temp_dir().join(dir);
        fs::create_dir(&dir).expect("a scratch directory");
        let log = File::create(dir.with_extension("log")).expect("a log");
        let mut command = Command::new(script());
        command.arg("hold").args([&base, &archives(), &dir]).arg(name);
        command.stdin(Stdio::piped()).stdout(log.try_clone().expect("a descriptor")).stderr(log);
        let holder = command.spawn().expect("a shell");
        let mut machine = Self { holder, init: 0, watch: 0, dir };
        machine.wait_boot();
        Some(machine)
    }

    fn wait_boot(&mut self) {
        let end = Instant::now() + TIMEOUT * 3;
        loop {
            let holder = self.holder.id();
            let children = fs::read_to_string(format!("/proc/{holder}/task/{holder}/children")).unwrap_or_default();
            let (inits, others): (Vec<u32>, Vec<u32>) =
                children.split_whitespace().filter_map(|pid| pid.parse().ok()).partition(|pid| is_init(*pid));
            if let ([init], [watch]) = (&*inits, &*others) {
                (self.init, self.watch) = (*init, *watch);
                let state = self.command("systemctl").args(["is-system-running", "--wait"]).output().expect("nsenter");
                if ["running\n", "degraded\n"].map(str::as_bytes).contains(&&*state.stdout) {
                    return;
                }
            }
            let ended = self.holder.try_wait().expect("a child").is_some();
            if ended || Instant::now() > end {
                panic!("the machine does not boot:\n{}", self.console());
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// A name that no other machine has.
    pub fn name(&self) -> String {
        self.dir.file_name().expect("a name").to_string_lossy().into_owned()
    }

    /// What the machine's first process has said.
    pub fn console(&self) -> String {
        fs::read_to_string(self.dir.with_extension("log")).unwrap_or_default()
    }

    /// The path by which the test reaches an absolute path of the machine.
    pub fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.init)).join(path.trim_start_matches('/'))
    }

    /// The text of a file of the machine.
    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    /// Writes a file of the machine. The directories above it are created.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(path, text).expect("a file");
    }

    /// A command that root runs in the machine, with the environment of a fresh login. Arguments
    /// can be added.
    pub fn command(&self, program: &str) -> Command {
        self.enter(&["-a"], program)
    }

    /// A command as [`Debian::command`] gives it, but in the network of the world: another computer,
    /// with the same files.
    pub fn in_world(&self, program: &str) -> Command {
        let network = format!("--net=/proc/{}/ns/net", self.watch);
        self.enter(&["-m", "-u", "-i", "-p", "-C", &network], program)
    }

    fn enter(&self, namespaces: &[&str], program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(namespaces).args(["-t", &self.init.to_string(), "--", "env", "-i", "-C", "/root"]);
        command.args(["HOME=/root", "USER=root", "LOGNAME=root", "SHELL=/bin/bash", "LANG=C.UTF-8", "TERM=dumb"]);
        command.args(["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", program]);
        command.stdin(Stdio::null());
        command
    }

    /// Runs a shell script as root in the machine.
    pub fn shell(&self, script: &str) -> Output {
        self.command("sh").args(["-c", script]).output().expect("nsenter")
    }

    /// Runs a shell script as root in the machine, and returns its output.
    ///
    /// # Panics
    /// If the script fails. The message has what it said.
    pub fn run(&self, script: &str) -> String {
        succeeded(script, &self.shell(script))
    }

    /// Runs `apt-get` with these arguments in the machine, with the network of the host.
    pub fn apt(&self, arguments: &[&str]) -> Output {
        let output = self.apt_once(arguments);
        if output.status.success() || arguments.contains(&"update") {
            return output;
        }
        // The lists of packages may be too old.
        self.apt_once(&["update"]);
        self.apt_once(arguments)
    }

    fn apt_once(&self, arguments: &[&str]) -> Output {
        if !arguments.contains(&"update") {
            // It changes nothing if a package has to be downloaded first.
            let output = programs::feed(&mut self.apt_get(&["--no-download"], arguments), b"");
            if output.status.success() {
                return output;
            }
        }
        // Several machines may download to the same directory, one at a time.
        let lock = lock();
        let output = programs::feed(&mut self.apt_get(&["--download-only"], arguments), b"");
        drop(lock);
        if !output.status.success() || arguments.contains(&"update") {
            return output;
        }
        programs::feed(&mut self.apt_get(&["--no-download"], arguments), b"")
    }

    fn apt_get(&self, options: &[&str], arguments: &[&str]) -> Command {
        // Not in the network of the machine. Its name servers are not those of the host.
        let script = "mount --bind /run/host/resolv.conf /etc/resolv.conf 2> /dev/null || \
                      { touch /etc/resolv.conf && mount --bind /run/host/resolv.conf /etc/resolv.conf; }; exec \"$@\"";
        let mut command = self.enter(&["-m", "-u", "-i", "-p", "-C"], "unshare");
        command.args(["-m", "sh", "-c", script, "sh", "env", "DEBIAN_FRONTEND=noninteractive"]);
        let proxies = ["http_proxy", "https_proxy"].into_iter().filter_map(|name| Some((name, env::var(name).ok()?)));
        command.args(proxies.map(|(name, value)| format!("{name}={value}")));
        command.args(["apt-get", "-q", "-y", "-o", "Debug::NoLocking=1"]).args(options).args(arguments);
        command
    }

    /// Installs packages of Debian.
    ///
    /// # Panics
    /// If they cannot be installed.
    pub fn install(&self, packages: &[&str]) {
        let arguments = [&["install"], packages].concat();
        succeeded(&arguments.join(" "), &self.apt(&arguments));
    }

    /// Installs penfold as `make install install-sendmail` does. The programs are those that cargo has built for the
    /// tests.
    pub fn install_penfold(&self) {
        let target = self.dir.join("target");
        fs::create_dir_all(target.join("release")).expect("a directory");
        for name in ["penfoldd", "penfoldctl"] {
            let place = target.join("release").join(name);
            Command::new("strip").arg("-o").arg(&place).arg(built::program(name)).status().expect("strip");
        }
        let mut make = Command::new("make");
        make.arg("-s").arg("-C").arg(built::source("")).args(["install", "install-sendmail", "CARGO=false"]);
        make.arg(format!("DESTDIR={}", self.path("").display())).env("CARGO_TARGET_DIR", &target);
        let output = make.env_remove("MAKEFLAGS").stdin(Stdio::null()).output().expect("make");
        fs::remove_dir_all(target).expect("it was just made");
        succeeded("make install", &output);
        self.run(
            "systemd-sysusers /usr/local/lib/sysusers.d/penfold.conf && \
             systemd-tmpfiles --create /usr/local/lib/tmpfiles.d/penfold.conf && systemctl daemon-reload",
        );
    }

    /// Calls a function in the network of the world. The threads that it starts stay there.
    pub fn world<T: Send>(&self, function: impl FnOnce() -> T + Send) -> T {
        in_network(self.watch, function)
    }

    /// Calls a function in the network of the machine. The threads that it starts stay there.
    pub fn inside<T: Send>(&self, function: impl FnOnce() -> T + Send) -> T {
        in_network(self.init, function)
    }

    /// Gives the world another address, for example of a host that sends mail.
    pub fn world_has(&self, address: &str) {
        let added = self.world(|| Command::new("ip").args(["address", "add", address, "dev", "lo"]).output());
        succeeded(&format!("ip address add {address}"), &added.expect("ip"));
    }
}

impl Drop for Debian {
    fn drop(&mut self) {
        if thread::panicking() {
            let journal = self.shell("journalctl --no-pager -q -n 100 | grep -v ' runuser'");
            eprintln!("--- the journal of the machine:\n{}---", String::from_utf8_lossy(&journal.stdout));
        }
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
        let _ = fs::remove_file(self.dir.with_extension("log"));
        let _ = fs::remove_dir(&self.dir);
    }
}

/// Calls a function in the network of a process.
pub(crate) fn in_network<T: Send>(process: u32, function: impl FnOnce() -> T + Send) -> T {
    let network = format!("/proc/{process}/ns/net");
    let network = File::open(&network).unwrap_or_else(|e| panic!("{network}: {e}"));
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(&network, CloneFlags::CLONE_NEWNET).expect("root may enter it");
            function()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Whether a process is the first one of its namespace.
fn is_init(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("NSpid:") && line.ends_with("\t1"))
}

fn succeeded(what: &str, output: &Output) -> String {
    let (code, text) = programs::code_and_text(output);
    assert_eq!(code, 0, "{what}: {text}");
    text
}

fn script() -> PathBuf {
    built::source("tests/common/debian.sh")
}

/// The directory with the minimal system and what belongs to it.
fn home() -> PathBuf {
    built::target().join("debian")
}

fn archives() -> PathBuf {
    home().join("archives")
}

/// Nobody else makes the minimal system or downloads packages until this is dropped.
fn lock() -> File {
    fs::create_dir_all(archives().join("partial")).expect("a directory");
    let file = File::create(home().join("lock")).expect("a file");
    file.lock().expect("a lock");
    file
}

/// The minimal system. It is made first, if there is none or if it is old.
fn base() -> PathBuf {
    let _lock = lock();
    let base = home().join("base");
    let used = home().join("script");
    let made = fs::metadata(&used).and_then(|used| used.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    let recipe = fs::read_to_string(script()).expect("the script");
    let (recipe, _) = recipe.split_once("hold() {").expect("a function after that which makes the system");
    let same = fs::read_to_string(&used).is_ok_and(|used| used == recipe);
    if same && made.elapsed().is_ok_and(|age| age < FRESH) {
        return base;
    }
    let new = home().join("base.new");
    remove(&new);
    let output = Command::new(script()).arg("base").arg(&new).output().expect("a shell");
    succeeded("mmdebstrap", &output);
    remove(&base);
    fs::rename(new, &base).expect("a rename");
    fs::write(used, recipe).expect("a file");
    base
}

fn remove(directory: &Path) {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => panic!("{}: {error}", directory.display()),
        _ => {}
    }
}

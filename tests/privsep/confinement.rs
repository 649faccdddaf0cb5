//! The confinement of the server: the files that it can reach, the kernels that support it, and the
//! open descriptors of its processes and their commands.
//!
//! The threads of the real daemon are made to call the kernel (confinement.py); a filter of system
//! calls simulates an older kernel. The server is confined only if root has started it, so most
//! tests need root; otherwise they are reported as skipped.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use common::homes::Homes;
use common::{Daemon, Site};
use nix::unistd::geteuid;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/privsep/confinement.py");

/// Whether root runs the tests and Python is installed. If not, reports the test as skipped, with
/// the reason.
fn is_root_with_python() -> bool {
    if !geteuid().is_root() {
        common::skipped("only a server that root has started is confined");
        return false;
    }
    let has_python = Command::new("python3").arg("-V").stdout(Stdio::null()).status().is_ok_and(|s| s.success());
    if !has_python {
        common::skipped("python3 is not installed");
    }
    has_python
}

/// A command that runs `command` on a simulated kernel. `what` describes the version of Landlock
/// that the kernel has.
fn with_landlock(what: &str, command: &Command) -> Command {
    let mut older = Command::new("python3");
    older.args([SCRIPT, "landlock", what]).arg(command.get_program()).args(command.get_args());
    older.stdin(Stdio::null());
    older
}

fn count(log: &str, text: &str) -> usize {
    log.lines().filter(|line| line.contains(text)).count()
}

// Older kernels

const NO_LANDLOCK: &str = "this kernel has no Landlock, or an old version: the server is not confined to its files";
const OLD_LANDLOCK: &str = "this kernel or machine supports only part of the confinement";

#[test]
fn a_missing_kernel_feature_is_logged_once_and_mail_is_delivered() {
    if !is_root_with_python() {
        return;
    }
    // Landlock is not compiled in, not enabled, or too old to be used. From version 2 on, a
    // confined process may rename files into another directory.
    for (what, says) in [
        ("ENOSYS", NO_LANDLOCK),
        ("EOPNOTSUPP", NO_LANDLOCK),
        ("1", NO_LANDLOCK),
        ("2", OLD_LANDLOCK),
        ("4", OLD_LANDLOCK),
    ] {
        let Some(mut homes) = Homes::new("") else { return };
        homes.site.set("", "socket", &format!("{:?}", homes.site.path("run/sock")));
        let daemon = Daemon::spawn(with_landlock(what, &homes.mounts.inside(&homes.site.penfoldd(&["-d"]))));
        daemon.wait_words(&[" started"]);
        daemon.submit(&["jon@razorback", "postmaster@razorback", "x@elsewhere.test"]);
        daemon.wait_until("mail for a user", || homes.mail("jon").len() == 1);
        // The message moves from new/ of the spool to cur/, and from there to a mailbox of the
        // server's own.
        daemon.wait_words(&["sent to=<root@razorback> orig=<postmaster@"]);
        daemon.wait_words(&["deferred to=<x@elsewhere.test>"]);
        daemon.hup();
        daemon.wait_log(|line| line.ends_with("configuration and tables read again"));
        daemon.submit(&["jon@razorback"]);
        daemon.wait_until("mail for a user", || homes.mail("jon").len() == 2);
        if cfg!(target_arch = "x86_64") {
            let mut inside = Inside::of(daemon.pid().as_raw());
            for call in ["exec /bin/true", "memory"] {
                assert_eq!(inside.ask(call), "EACCES", "{what}: {call}");
            }
        }
        let log = daemon.end_log();
        assert_eq!((count(&log, "this kernel "), count(&log, says)), (1, 1), "{what}: {log}");
        assert!(!log.contains("spool: "), "{what}: {log}");
    }
}

#[test]
fn a_session_under_inetd_does_not_log_missing_kernel_features() {
    if !is_root_with_python() {
        return;
    }
    let site = Site::new();
    for (arguments, times) in [(&["-i"][..], 0), (&["-q"], 0), (&["-iv"], 1), (&["-n"], 0)] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
        let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("a connection");
        let stream = OwnedFd::from(listener.accept().expect("a connection").0);
        let mut command = with_landlock("ENOSYS", &site.penfoldd(arguments));
        command.stdin(stream.try_clone().expect("a copy")).stdout(stream).stderr(Stdio::piped());
        let child = command.spawn().expect("it starts");
        drop(command);
        let (mut heard, is_served) = (String::new(), arguments[0].starts_with("-i"));
        if is_served {
            (&client).write_all(b"QUIT\r\n").expect("it listens");
            (&client).read_to_string(&mut heard).expect("its end");
        }
        let output = child.wait_with_output().expect("a child");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(count(&log, "this kernel "), times, "{arguments:?}: {log}");
        assert_eq!(heard.contains("221 "), is_served, "{arguments:?}: {heard}");
    }
}

// System calls of the server

/// A process of the daemon whose threads make system calls for the test.
struct Inside {
    child: Child,
    asks: ChildStdin,
    hears: BufReader<ChildStdout>,
}

impl Inside {
    fn of(pid: i32) -> Self {
        let mut python = Command::new("python3");
        python.args([SCRIPT, "inside", &pid.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = python.spawn().expect("python3");
        let (asks, hears) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        Self { child, asks, hears: BufReader::new(hears) }
    }

    /// Makes all threads perform a call. Returns the result, `ok` or the name of an error, which
    /// must be the same in all threads.
    fn ask(&mut self, call: &str) -> String {
        writeln!(self.asks, "{call}").expect("it reads");
        let mut line = String::new();
        self.hears.read_line(&mut line).expect("an answer");
        line.trim_end().to_owned()
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The value of a field of `/proc/PID/status`.
fn status(pid: impl std::fmt::Display, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.expect("a field").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn every_thread_of_the_server_reaches_its_own_files_and_runs_nothing() {
    if !is_root_with_python() {
        return;
    }
    if cfg!(not(target_arch = "x86_64")) {
        return common::skipped("confinement.py knows the registers of x86_64 alone");
    }
    // The files of another site have the same owner, so file permissions would allow access to
    // them.
    let (mut site, elsewhere) = (Site::new(), Site::new());
    site.set("", "socket", &format!("{:?}", site.path("run/sock")));
    let daemon = site.start();
    daemon.wait_words(&[" started"]);
    if daemon.log().contains("this kernel ") {
        return common::skipped("this kernel has no Landlock, or an older one");
    }
    daemon.submit(&["jon"]);
    daemon.wait_mail(&site, "jon", 1);
    let _clients: Vec<_> = (0..10).map(|_| common::client::Client::new(daemon.connect())).collect();
    let (spool, mail) = (site.path("spool").display().to_string(), site.mailbox("jon").display().to_string());
    let (conf, other) = (site.path("penfold.conf").display().to_string(), elsewhere.path("").display().to_string());
    for file in
        [&format!("{spool}/tmp/a"), &format!("{spool}/tmp/b"), &format!("{other}/spool/a"), &format!("{other}/home")]
    {
        fs::write(file, "x").expect("a file");
        common::own(Path::new(file));
        fs::set_permissions(file, fs::Permissions::from_mode(0o666)).expect("a mode");
    }
    let monitor = children(daemon.pid().as_raw())[0];
    let server = status(daemon.pid(), "Threads").parse::<usize>().expect("a number");
    assert!(server > 20, "{server} threads");
    for field in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(status(daemon.pid(), field), "0000000000000000", "{field}");
    }
    assert_eq!(status(daemon.pid(), "NoNewPrivs"), "1");
    let calls = [
        // The server can reach the files that it needs.
        ("open r /etc/passwd".to_owned(), "ok"),
        (format!("open r {conf}"), "ok"),
        (format!("open c {spool}/tmp/c"), "ok"),
        (format!("open c {mail}/tmp/c"), "ok"),
        ("open w /dev/null".into(), "ok"),
        (format!("rename {spool}/tmp/a {mail}/new/a"), "ok"),
        (format!("link {spool}/tmp/b {spool}/new/b"), "ok"),
        (format!("unlink {spool}/new/b"), "ok"),
        // The server can run no program, not even its own.
        ("exec /bin/true".into(), "EACCES"),
        ("exec /usr/bin/env".into(), "EACCES"),
        ("exec /proc/self/exe".into(), "EACCES"),
        (format!("exec {conf}"), "EACCES"),
        ("memory".into(), "EACCES"),
        // The server can reach no other files: those of root, those that are open to all, and those
        // of another site.
        ("open r /etc/shadow".into(), "EACCES"),
        ("open r /usr/bin/env".into(), "EACCES"),
        (format!("open r {other}/home"), "EACCES"),
        (format!("open r {other}/spool/a"), "EACCES"),
        (format!("open w {other}/spool/a"), "EACCES"),
        (format!("open c {other}/spool/c"), "EACCES"),
        ("open c /tmp/penfold-walls".into(), "EACCES"),
        (format!("truncate {other}/home"), "EACCES"),
        (format!("unlink {other}/home"), "EACCES"),
        (format!("mkdir {other}/spool/d"), "EACCES"),
        (format!("rename {spool}/tmp/b {other}/spool/b"), "EACCES"),
        (format!("rename {other}/spool/a {spool}/tmp/e"), "EACCES"),
        (format!("link {other}/spool/a {spool}/tmp/e"), "EXDEV"),
        // The server can only read its configuration, although the file belongs to its user in this
        // test.
        (format!("open w {conf}"), "EACCES"),
        (format!("truncate {conf}"), "EACCES"),
        (format!("unlink {conf}"), "EACCES"),
        (format!("rename {spool}/tmp/b {conf}"), "EACCES"),
        // The server cannot escape in other ways either.
        (format!("device {spool}/tmp/f"), "EACCES"),
        (format!("mount {spool}/tmp"), "EPERM"),
        ("setuid 0".into(), "EPERM"),
        (format!("trace {monitor}"), "EPERM"),
        (format!("open r /proc/{monitor}/mem"), "EACCES"),
        (format!("open r /proc/{monitor}/root/etc/passwd"), "EACCES"),
    ];
    let mut inside = Inside::of(daemon.pid().as_raw());
    let wrong: Vec<_> = calls
        .iter()
        .map(|(call, wanted)| (call, inside.ask(call), wanted))
        .filter(|(_, got, wanted)| got != *wanted)
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    drop(inside);
    // The daemon still works as before.
    fs::remove_file(format!("{mail}/new/a")).expect("it is there");
    daemon.submit(&["jon"]);
    daemon.wait_mail(&site, "jon", 2);
    assert!(!daemon.log().contains("error"), "{}", daemon.log());
}

/// A server may have more mailboxes than it may have open files, and gets new mailboxes while it
/// runs. The confined server cannot reach the new ones, so an agent, a separate process, delivers
/// to them.
#[test]
fn mailboxes_are_reached_whatever_their_number_and_place() {
    let (site, elsewhere) = (Site::new(), Site::new());
    let count = 300;
    let line = |name: &str, below: &str| format!("{name}::{}\n", site.path("mail").join(below).display());
    let users: String = (0..count).map(|n| line(&format!("u{n}"), &format!("d{n}/box"))).collect();
    site.write("users", &users);
    for n in 0..count {
        let directory = site.path(&format!("mail/d{n}"));
        fs::create_dir(&directory).expect("a directory");
        common::own(&directory);
    }
    let plain = site.penfoldd(&["-d"]);
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 128 && exec \"$0\" \"$@\""]).arg(plain.get_program()).args(plain.get_args());
    let daemon = Daemon::spawn(command);
    let arrives = |name: &str, below: &str| {
        daemon.submit(&[name]);
        let line = daemon.wait_words(&[&format!("to=<{name}@razorback>")]);
        assert!(line.contains(" sent "), "{line}");
        let new = site.path("mail").join(below).join("new");
        assert_eq!(fs::read_dir(&new).expect("a mailbox").count(), 1, "{line}");
    };
    arrives("u0", "d0/box");
    arrives("u299", "d299/box");
    // This directory had no mailboxes when the server started.
    let elsewhere = elsewhere.path("mail");
    for (name, below) in [("added", "a/box"), ("other", "b")] {
        site.add("users", &format!("{name}::{}", elsewhere.join(below).display()));
        arrives(name, elsewhere.join(below).to_str().expect("UTF-8"));
    }
    assert!(daemon.settles(&site) && !daemon.log().contains("deferred"), "{}", daemon.log());
}

/// The process ids of the children of a process.
fn children(pid: i32) -> Vec<i32> {
    let tasks = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    tasks.split_whitespace().filter_map(|number| number.parse().ok()).collect()
}

// Open descriptors

/// The open descriptors of a process, in order. Each has the kind of the file, such as `socket`, or
/// its path.
fn open_files(pid: i32) -> Vec<(i32, String)> {
    let links = fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").flatten();
    let mut open: Vec<(i32, String)> = links
        .filter_map(|link| {
            let what = fs::read_link(link.path()).ok()?.display().to_string();
            let kind = what.split_once(":[").map_or(what.as_str(), |(kind, _)| kind);
            Some((link.file_name().to_str()?.parse().ok()?, kind.to_owned()))
        })
        .collect();
    open.sort_unstable();
    open
}

/// A command that runs `command` with some files open that the parent has forgotten to close.
fn with_forgotten_files(command: Command) -> Command {
    let mut wrapped = Command::new("sh");
    wrapped.args(["-c", "exec 6</etc 7</etc/services 9</etc/hostname; exec \"$0\" \"$@\""]);
    wrapped.arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
    wrapped.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    wrapped
}

/// A `.forward` with a command that lists its open descriptors. Two of them are its own: the file
/// for the list, and the directory that ls reads.
const LISTS: &str = "|/bin/sh -c 'exec ls -l /proc/self/fd > $HOME/open'\n";

/// Reads the list of [`LISTS`], without the output file and the directory.
fn of_command(home: &Path) -> Vec<(i32, String)> {
    let text = fs::read_to_string(home.join("open")).expect("it has run");
    let links = text.lines().filter_map(|line| line.split_once(" -> "));
    let kind = |what: &str| what.split_once(":[").map_or(what, |(kind, _)| kind).to_owned();
    let others = links.filter(|(_, what)| !what.ends_with("/open") && !what.ends_with("/fd"));
    let number = |front: &str| front.rsplit(' ').next().and_then(|word| word.parse().ok());
    others.map(|(front, what)| (number(front).expect("a number"), kind(what))).collect()
}

fn names(open: &[(i32, &str)]) -> Vec<(i32, String)> {
    open.iter().map(|(number, what)| (*number, (*what).to_owned())).collect()
}

/// Asserts that a server has only the descriptors that it needs, apart from standard output. The
/// resolver has some without a name, for the look-up of a start that tells whether DANE can be used.
fn check_server(daemon: &Daemon, site: &Site) {
    let lock: PathBuf = site.path("spool");
    for (number, what) in open_files(daemon.pid().as_raw()).into_iter().filter(|(number, _)| *number != 1) {
        let is_known = ["socket", "pipe", "/dev/null", "anon_inode", "anon_inode:[eventpoll]"].contains(&what.as_str())
            || Path::new(&what).starts_with(&lock);
        assert!(is_known, "{number} {what}");
    }
}

#[test]
fn monitor_agents_and_commands_have_only_the_descriptors_they_need() {
    let Some(homes) = Homes::new("") else { return };
    homes.write("jon", ".forward", LISTS, 0o644);
    let command = homes.mounts.inside(&homes.site.penfoldd(&["-d"]));
    let daemon = Daemon::spawn(with_forgotten_files(command));
    daemon.submit(&["jon", "mary"]);
    daemon.wait_until("mail", || homes.mail("mary").len() == 1 && homes.home("jon").join("open").exists());
    daemon.wait_until("the end", || homes.site.spooled().is_empty());
    check_server(&daemon, &homes.site);
    let monitor = children(daemon.pid().as_raw())[0];
    // The monitor has a socket to the server, and a pipe or socket that reports the end of a child.
    let of_monitor = open_files(monitor);
    assert_eq!(of_monitor[..3], names(&[(0, "socket"), (1, "/dev/null"), (2, "/dev/null")]));
    assert!(of_monitor[3..].iter().all(|(_, what)| what == "socket" || what == "pipe"), "{of_monitor:?}");
    // In addition it has a socket for each agent and for each lookup process.
    let is_called = |pid: i32, name: &str| {
        fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.split('\0').next() == Some(name))
    };
    let others = children(monitor);
    let agents = others.iter().filter(|pid| is_called(**pid, "penfoldd: agent")).count();
    assert!(agents == 2 && others.iter().any(|pid| is_called(*pid, "penfoldd: lookup")), "{others:?}");
    for other in others {
        let open = open_files(other);
        assert_eq!(open[..3], names(&[(0, "socket"), (1, "/dev/null"), (2, "/dev/null")]));
        assert!(open[3..].iter().all(|(_, what)| what == "socket"), "{open:?}");
    }
    assert_eq!(of_command(&homes.home("jon")), names(&[(0, "pipe"), (2, "pipe")]));
}

#[test]
fn the_processes_of_a_user_are_limited() {
    let Some(homes) = Homes::new("") else { return };
    let list = |to: &Path| format!("\"|grep processes /proc/self/limits > {}\"", to.display());
    let (his, own) = (homes.home("jon").join("limits"), homes.site.path("spool/limits"));
    homes.write("jon", ".forward", &list(&his), 0o644);
    // Root has configured the command of this alias. It runs as the server's user, whose limit also
    // counts the threads of all sessions.
    homes.site.write("aliases", &format!("tool: {}\n", list(&own)));
    let daemon = homes.start();
    daemon.submit(&["jon", "tool"]);
    daemon.wait_until("the end", || homes.site.spooled().is_empty() && own.exists());
    let all = fs::read_to_string("/proc/self/limits").expect("limits");
    let line = |text: &str| text.lines().find(|line| line.starts_with("Max processes")).expect("a line").to_owned();
    let numbers = |path: &Path| line(&fs::read_to_string(path).expect("it has run"));
    assert_eq!(numbers(&own), line(&all));
    let words: Vec<String> = numbers(&his).split_whitespace().map(str::to_owned).collect();
    assert_eq!(words[2..4], ["2048", "2048"]);
}

#[test]
fn without_a_monitor_server_and_commands_have_no_more_descriptors() {
    let site = Site::with("auth.users = \"none\"");
    let home = site.path("home");
    fs::create_dir(&home).expect("a directory");
    fs::set_permissions(&home, fs::Permissions::from_mode(0o755)).expect("a mode");
    common::own(&home);
    site.write("aliases", &format!("tool: \"{}\"\n", LISTS.trim_end().replace("$HOME", &home.display().to_string())));
    let mut command = site.penfoldd(&["-d"]);
    if geteuid().is_root() {
        let inner = command;
        command = Command::new("setpriv");
        command.args(["--reuid", "nobody", "--regid", "nogroup", "--clear-groups"]);
        command.arg(inner.get_program()).args(inner.get_args());
    }
    let daemon = Daemon::spawn(with_forgotten_files(command));
    assert!(children(daemon.pid().as_raw()).is_empty(), "no monitor");
    daemon.submit(&["tool", "jon"]);
    daemon.wait_mail(&site, "jon", 1);
    daemon.wait_until("a command", || home.join("open").exists() && site.spooled().is_empty());
    check_server(&daemon, &site);
    assert_eq!(of_command(&home), names(&[(0, "pipe"), (2, "pipe")]));
}

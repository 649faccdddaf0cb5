//! penfoldd as a Unix process: options, exit codes, signals, inetd, limits.
//!
//! The real program is started in every way. Without root, tests that need it are reported as
//! skipped.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::client::{Client, TEXT};
use common::dns::Dns;
use common::remote::{Remote, Sink, Then};
use common::{Daemon, Site, TIMEOUT, free_port};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

const USAGE: i32 = 64;
const UNAVAILABLE: i32 = 69;
const TEMPFAIL: i32 = 75;
const CONFIG: i32 = 78;

/// A TCP connection like the one that inetd gives to a program: the client's end and the program's
/// end.
fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
    let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("a connection");
    (client, listener.accept().expect("a connection").0)
}

/// Runs a short-lived program until it ends.
fn run(command: &mut Command) -> Output {
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let end = Instant::now() + TIMEOUT;
    while child.try_wait().expect("a child").is_none() {
        if Instant::now() > end {
            child.kill().expect("a child");
            panic!("{command:?} does not end: {:?}", child.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().expect("a child")
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("no exit code: {output:?}"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs penfoldd without the configuration of a site.
fn plain(arguments: &[&str]) -> Output {
    run(Command::new(env!("CARGO_BIN_EXE_penfoldd")).args(arguments))
}

/// Polls a condition that no log line announces.
fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + TIMEOUT;
    while !condition() {
        assert!(Instant::now() < end, "timed out waiting for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn version_and_help_go_to_standard_output() {
    let version = plain(&["-V"]);
    assert_eq!((code(&version), text(&version.stdout)), (0, format!("penfold {}\n", env!("CARGO_PKG_VERSION"))));
    let help = plain(&["-h"]);
    assert_eq!(code(&help), 0);
    assert_eq!((plain(&["--version"]), plain(&["--help"])), (version.clone(), help.clone()));
    let ctl = |option| Command::new(env!("CARGO_BIN_EXE_penfoldctl")).arg(option).output().expect("it runs");
    assert_eq!((ctl("--version"), ctl("--help")), (ctl("-V"), ctl("-h")));
    for name in ["sendmail", "mailq", "newaliases"] {
        let ask = |option: &str| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_penfoldctl"));
            command.arg0(name).arg(option).stdin(Stdio::null());
            let output = command.output().expect("it starts");
            assert!(output.status.success() && output.stderr.is_empty(), "{name} {option}: {output:?}");
            String::from_utf8(output.stdout).expect("UTF-8")
        };
        assert_eq!(ask("--version"), text(&version.stdout), "{name}");
        assert!(ask("--help").starts_with(&format!("usage: {name} ")), "{name}");
    }
    assert!(ctl("--help").status.success() && text(&ctl("--help").stdout).contains("usage: penfoldctl "));
    for option in ["-d", "-f", "-h", "-i", "-n", "-q", "-v", "-V", "usage: penfoldd [-dhinqvV] [-f file] [-p file]"] {
        assert!(text(&help.stdout).contains(option), "{option}");
    }
    assert!(version.stderr.is_empty() && help.stderr.is_empty());
}

#[test]
fn wrong_usage_exits_with_64_and_shows_the_usage() {
    for arguments in [&["-x"][..], &["start"], &["-f"], &["-i", "-q"], &["-d", "-d"]] {
        let output = plain(arguments);
        assert_eq!((code(&output), output.stdout.len()), (USAGE, 0), "{arguments:?}");
        assert!(
            text(&output.stderr).contains("\npenfoldd: usage: penfoldd [-dhinqvV] [-f file] [-p file]"),
            "{output:?}"
        );
    }
}

#[test]
fn every_error_in_configuration_and_tables_is_reported_at_once() {
    let site = Site::new();
    site.write("users", "jon::\njon::\n");
    site.write("routes", "example.test nonsense:x\n");
    site.write("senders", "jon info@razorback a@b@c\n");
    let mut command = site.penfoldd(&["-n"]);
    let good = fs::read_to_string(site.path("penfold.conf")).expect("penfold.conf");
    site.write("penfold.conf", &format!("colour = 1\n{good}[queue]\nretry_min = \"5\"\n"));
    let output = run(&mut command);
    let (errors, lines) = (text(&output.stderr), good.lines().count());
    let expected = [
        ("penfold.conf", 1, 1, "unknown key"),
        ("penfold.conf", lines + 3, 13, "expected"),
        ("users", 2, 1, ""),
        ("routes", 1, 14, ""),
        ("senders", 1, 20, ""),
    ];
    for (file, line, column, says) in expected {
        let begins = format!("{}:{line}:{column}: ", site.path(file).display());
        let found = errors.lines().any(|error| error.starts_with(&begins) && error.contains(says));
        assert!(found, "{begins}{says}\n{errors}");
    }
    assert_eq!((code(&output), errors.lines().count()), (CONFIG, expected.len() + 1), "{errors}");
    assert!(errors.ends_with("penfoldd: change what these lines name, then run 'penfoldd -n' again\n"), "{errors}");
    // Only errors in the configuration prevent a start; for tables see tests/daemon/warnings.rs.
    let output = plain(&["-f", site.path("penfold.conf").to_str().expect("UTF-8")]);
    assert_eq!((code(&output), text(&output.stderr).lines().count()), (CONFIG, 2), "{output:?}");
}

#[test]
fn a_valid_configuration_is_confirmed_and_a_missing_one_exits_with_78() {
    let site = Site::new();
    let good = run(&mut site.penfoldd(&["-n"]));
    assert_eq!((code(&good), text(&good.stderr)), (0, "penfoldd: the configuration is right\n".to_owned()));
    assert!(site.spooled().is_empty() && fs::read_dir(site.path("spool")).expect("spool").next().is_none());
    for arguments in [&["-n", "-f", "/nowhere/penfold.conf"][..], &["-d", "-f", "/nowhere/penfold.conf"]] {
        let output = plain(arguments);
        assert_eq!(code(&output), CONFIG);
        assert!(text(&output.stderr).starts_with("/nowhere/penfold.conf: "), "{output:?}");
    }
}

/// If the system has no IPv6, the daemon skips an IPv6 address that is a default, but an IPv6
/// address in the configuration is an error.
#[test]
fn the_default_addresses_work_without_ipv6() {
    const OFF: &str = "ip link set lo up && echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6";
    let within = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["-n", "sh", "-c", &format!("{OFF} && {script}"), "sh"]);
        command
    };
    if !within("true").stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        return common::skipped("no private network without root, unshare and ip");
    }
    let site = Site::new();
    let start = |listen: &str| {
        let penfoldd = site.penfoldd(&["-d"]);
        let text = fs::read_to_string(site.path("penfold.conf")).expect("it is there");
        let (before, after) = text.split_once("[[listen]]\n").expect("a table");
        let after = after.split_once('\n').expect("an address").1;
        site.configure_with(&format!("{before}{listen}{after}"));
        let mut command = within("exec \"$@\"");
        command.arg(penfoldd.get_program()).args(penfoldd.get_args()).stdin(Stdio::null());
        command
    };
    let daemon = Daemon::spawn(start(""));
    daemon.wait_log(|line| line.starts_with("not listening on [::1]:25: this host has no such address"));
    assert!(daemon.terminate().success());
    let output = run(&mut start("[[listen]]\naddress = \"127.0.0.1:25\"\n[[listen]]\naddress = \"[::1]:25\"\n"));
    assert_eq!(code(&output), UNAVAILABLE);
    assert!(text(&output.stderr).starts_with("penfoldd: listen on [::1]:25: "), "{output:?}");
}

#[test]
fn an_address_or_spool_in_use_prevents_the_start() {
    let mut site = Site::new();
    let daemon = site.start();
    let second = run(&mut site.penfoldd(&["-d"]));
    let spool = site.path("spool");
    let says = format!("penfoldd: the spool {} is in use by another penfoldd\n", spool.display());
    assert_eq!((code(&second), text(&second.stderr)), (TEMPFAIL, says));
    site.set("listen", "address", &format!("\"{}\"", daemon.address()));
    // If the daemon goes to the background, it reports the error before it leaves the terminal.
    for arguments in [&["-d"][..], &[]] {
        let third = run(&mut site.penfoldd(arguments));
        assert_eq!(code(&third), UNAVAILABLE);
        assert!(text(&third.stderr).starts_with(&format!("penfoldd: listen on {}: ", daemon.address())), "{third:?}");
        let cure =
            "penfoldd: listen.address: penfoldd runs already: 'penfoldctl reload' makes it read its files again\n";
        assert!(text(&third.stderr).ends_with(cure), "{third:?}");
    }
    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let stranger = Site::with(&format!("listen.address = \"{}\"", other.local_addr().expect("bound")));
    let output = run(&mut stranger.penfoldd(&["-d"]));
    let cure = "penfoldd: listen.address: stop the other program, which 'ss -ltnp' shows, or choose another port\n";
    assert!(text(&output.stderr).ends_with(cure), "{output:?}");
    // Two listeners on one address conflict with each other. The option -n, which only checks the
    // configuration, reports that, too.
    let port = free_port();
    for (one, other, how) in [
        ("0.0.0.0", "127.0.0.1", "which covers it"),
        ("127.0.0.1", "0.0.0.0", "which it covers"),
        ("127.0.0.1", "127.0.0.1", "twice"),
    ] {
        let says = format!("listen.address: [[listen]] also has {one}:{port}, {how}: remove one of the two\n");
        let warns = format!("listen {other}:{port}: [[listen]] also has {one}:{port}, {how}: remove one of the two\n");
        let twice = [one, other].map(|host| format!("[[listen]]\naddress = \"{host}:{port}\"\n")).concat();
        let mut start = stranger.penfoldd(&["-d"]);
        let mut examine = stranger.penfoldd(&["-n"]);
        let rest = fs::read_to_string(stranger.path("penfold.conf")).expect("it is there");
        let (before, after) = rest.split_once("[[listen]]\n").expect("a table");
        let after = after.split_once('\n').expect("an address").1;
        stranger.configure_with(&format!("{before}{twice}{after}"));
        let output = run(&mut start);
        assert_eq!(code(&output), UNAVAILABLE);
        assert!(text(&output.stderr).ends_with(&says), "{output:?}");
        let output = run(&mut examine);
        assert!(code(&output) == 0 && text(&output.stderr).contains(&warns), "{output:?}");
    }
    // The first daemon is not disturbed by the failed starts.
    daemon.submit(&["jon@razorback"]);
    daemon.wait_mail(&site, "jon", 1);
}

#[test]
fn the_daemon_leaves_the_terminal_and_a_log_file_behind() {
    let mut site = Site::new();
    let log = site.path("log");
    site.set("log", "to", &format!("{log:?}"));
    let started = Instant::now();
    // This returns only when no process has the pipes of standard output and standard error open
    // any more.
    let output = run(&mut site.penfoldd(&[]));
    assert_eq!((code(&output), output.stdout.len(), output.stderr.len()), (0, 0, 0), "{output:?}");
    assert!(started.elapsed() < TIMEOUT);
    let lines = || fs::read_to_string(&log).unwrap_or_default();
    wait_for("the port in the log", || lines().contains("listening on 127.0.0.1:"));
    let log_text = lines();
    let pid = log_text.split_once("penfoldd[").and_then(|(_, rest)| rest.split_once(']')).expect("the pid").0;
    let pid = Pid::from_raw(pid.parse().expect("a number"));
    let ended = Guard(pid);
    let port = log_text.split_once("listening on 127.0.0.1:").expect("just seen").1;
    let port: u16 = port.lines().next().and_then(|port| port.parse().ok()).expect("a port");
    // The daemon has a session of its own and no terminal.
    assert_ne!(nix::unistd::getsid(Some(pid)), nix::unistd::getsid(None));
    let mut client = Client::new(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("it accepts"));
    client.send("jon@razorback", &["jon@razorback"], TEXT);
    wait_for("the message", || !site.mail("jon").is_empty());
    kill(pid, Signal::SIGTERM).expect("it runs");
    client.expect("421 4.3.2 ");
    wait_for("the end", || kill(pid, None).is_err());
    assert!(lines().lines().last().expect("a line").ends_with("stopped"), "{}", lines());
    std::mem::forget(ended);
}

/// Ends a process that is not a child of the test.
struct Guard(Pid);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGKILL);
    }
}

// `penfoldd -i`, started by inetd

/// A running `penfoldd -i` with a socket as all three standard files, as inetd starts it. Dropping
/// this waits for the end of the process.
struct Inetd(std::process::Child);

impl Inetd {
    fn start(mut command: Command, socket: impl Into<OwnedFd>) -> Self {
        let socket: OwnedFd = socket.into();
        let copy = || Stdio::from(socket.try_clone().expect("a descriptor"));
        Self(command.stdin(copy()).stdout(copy()).stderr(copy()).spawn().expect("it starts"))
    }

    fn code(mut self) -> Option<i32> {
        wait_for("the end of penfoldd -i", || self.0.try_wait().expect("a child").is_some());
        self.0.wait().expect("a child").code()
    }
}

#[test]
fn beside_a_session_of_inetd_the_daemon_delivers_at_once() {
    let site = Site::new();
    let daemon = site.start();
    let (client, server) = connection();
    let inetd = Inetd::start(site.penfoldd(&["-i"]), server);
    let mut client = Client::new(client);
    client.send("jon@razorback", &["jon@razorback"], TEXT);
    // The mail arrives although the client has not sent QUIT yet.
    let mail = daemon.wait_mail(&site, "jon", 1).remove(0);
    assert!(text(&mail).contains("\nReceived: from client.test (localhost [127.0.0.1])\n"), "{}", text(&mail));
    client.ask("QUIT", "221 ");
    client.expect_end();
    assert_eq!(inetd.code(), Some(0));
}

#[test]
fn without_a_daemon_a_session_of_inetd_delivers_itself() {
    let site = Site::new();
    let (client, server) = connection();
    // Under inetd the client is also standard error, so a log line there would reach the client.
    let inetd = Inetd::start(site.penfoldd(&["-i", "-v"]), server);
    let mut client = Client::new(client);
    client.send("jon@razorback", &["jon@razorback"], TEXT);
    client.send("jon@razorback", &["root@razorback"], TEXT);
    client.ask("QUIT", "221 ");
    client.expect_end();
    assert_eq!(inetd.code(), Some(0));
    assert_eq!((site.mail("jon").len(), site.mail("root").len(), site.spooled().len()), (1, 1, 0));
}

#[test]
fn a_client_of_inetd_gets_only_replies() {
    let zone = Dns::zone("");
    let mut site = Site::with("dns.timeout = \"1s\"");
    site.set("dns", "nameservers", &zone.nameservers());
    site.set("local", "postmaster", "\"nobody-here\"");
    let (client, server) = connection();
    let inetd = Inetd::start(site.penfoldd(&["-i", "-v"]), server);
    let mut client = Client::new(client);
    // The session causes events that are logged: a rejection, an acceptance, a bounce.
    client.ask("VRFY nobody", "550 5.1.1 ");
    client.ask("MAIL FROM:<jon@razorback>", "250 ");
    client.ask("RCPT TO:<nobody@razorback>", "550 5.1.1 ");
    client.ask("RSET", "250 ");
    client.send("jon@razorback", &["elvis@nowhere.test"], TEXT);
    client.ask("QUIT", "221 ");
    client.expect_end();
    assert_eq!(inetd.code(), Some(0));
    assert_eq!(site.mail("jon").len(), 1);
}

#[test]
fn a_log_on_another_socket_gets_log_lines() {
    let site = Site::new();
    let (client, server) = connection();
    // Under systemd standard error is the journal, and not the client.
    let (mut journal, stderr) = UnixStream::pair().expect("a pair");
    let copy = || Stdio::from(OwnedFd::from(server.try_clone().expect("a descriptor")));
    let mut command = site.penfoldd(&["-i"]);
    let child = command.stdin(copy()).stdout(copy()).stderr(OwnedFd::from(stderr)).spawn().expect("it starts");
    drop(command);
    let (mut client, inetd) = (Client::new(client), Inetd(child));
    client.send("jon@razorback", &["jon@razorback"], TEXT);
    client.ask("QUIT", "221 ");
    assert_eq!(inetd.code(), Some(0));
    let mut log = String::new();
    journal.read_to_string(&mut log).expect("text");
    assert!(log.contains(" accept from=<jon@razorback> ") && log.contains(" done"), "{log}");
}

#[test]
fn a_client_of_inetd_gets_421_if_the_configuration_is_malformed() {
    let site = Site::new();
    let command = site.penfoldd(&["-i"]);
    site.write("penfold.conf", "colour = 1\n");
    let (mut client, server) = UnixStream::pair().expect("a pair");
    let inetd = Inetd::start(command, server);
    let mut received = String::new();
    client.read_to_string(&mut received).expect("text");
    assert!(
        received.starts_with("421 4.3.0 ") && received.ends_with("\r\n") && received.lines().count() == 1,
        "{received:?}"
    );
    assert_eq!(inetd.code(), Some(CONFIG));
}

#[test]
fn a_client_at_a_pipe_is_served_and_trusted() {
    let site = Site::new();
    let mut child = site.penfoldd(&["-i"]);
    let mut child =
        child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let dialogue = format!("HELO me\r\nMAIL FROM:<jon>\r\nRCPT TO:<root>\r\nDATA\r\n{TEXT}.\r\nQUIT\r\n");
    child.stdin.take().expect("a pipe").write_all(dialogue.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let codes: Vec<_> = text(&output.stdout).lines().map(|reply| reply[..3].to_owned()).collect();
    assert_eq!((code(&output), codes.join(" ")), (0, "220 250 250 250 354 250 221".to_owned()));
    assert_eq!(site.mail("root").len(), 1);
    // The log goes to the configured place, in this test standard error.
    assert!(text(&output.stderr).contains(" accept from=<jon@razorback> "), "{output:?}");
}

// `penfoldd -q`, which runs the queue once

#[test]
fn the_queue_is_run_once_with_and_without_a_daemon() {
    let remote = Remote::with(Sink::default().when("MAIL", Then::Reply("451 not now".into()), 2));
    let mut site = Site::with("queue.retry_min = \"1h\"\nqueue.retry_max = \"1h\"");
    site.set("remote", "smarthosts", &format!("[\"smtp://{}\"]", remote.address));
    let daemon = site.start();
    daemon.submit(&["elvis@example.test"]);
    daemon.wait_words(&["deferred to=<elvis@example.test>"]);
    assert_eq!(code(&run(&mut site.penfoldd(&["-q"]))), 0);
    daemon.wait_until("a second attempt", || daemon.log().matches("deferred to=<elvis").count() == 2);
    assert!(daemon.terminate().success());
    // The remote server defers only twice, so the third attempt, without a daemon, succeeds.
    let output = run(&mut site.penfoldd(&["-q"]));
    assert_eq!((code(&output), site.spooled().len()), (0, 0), "{output:?}");
    assert_eq!(remote.messages(1).len(), 1);
    // If the queue is empty, the program ends at once.
    assert_eq!(code(&run(&mut site.penfoldd(&["-q"]))), 0);
}

// Signals

#[test]
fn sigterm_ends_idle_sessions_with_421_and_the_daemon_within_seconds() {
    let site = Site::new();
    let daemon = site.start();
    let (mut idle, mut mute) = (daemon.client(), daemon.connect());
    let mut in_mail = daemon.client();
    in_mail.ask("MAIL FROM:<jon@razorback>", "250 ");
    let started = Instant::now();
    let address = daemon.address();
    let ended = std::thread::spawn(move || daemon.terminate());
    for client in [&mut idle, &mut in_mail] {
        client.expect("421 4.3.2 ");
        client.expect_end();
    }
    let mut received = String::new();
    mute.read_to_string(&mut received).expect("text");
    assert!(received.starts_with("220 ") && received.contains("\r\n421 4.3.2 "), "{received}");
    assert_eq!(ended.join().expect("it ends").code(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn a_message_in_transit_may_be_completed_before_the_end() {
    let site = Site::new();
    let daemon = site.start();
    let mut client = daemon.client();
    client.begin("jon@razorback", &["jon@razorback"]);
    client.send_text("Subject: half\r\n");
    kill(daemon.pid(), Signal::SIGTERM).expect("it runs");
    daemon.wait_words(&["stopping"]);
    client.send_text("\r\nthe other half\r\n.\r\n");
    client.expect("250 2.0.0 ");
    client.expect("421 4.3.2 ");
    client.expect_end();
    daemon.wait_words(&["stopped"]);
    assert_eq!(site.mail("jon").len() + site.spooled().len(), 1);
    // If the message was not delivered before the stop, the next daemon delivers it.
    drop(daemon);
    let daemon = site.start();
    daemon.wait_mail(&site, "jon", 1);
}

#[test]
fn an_endless_session_does_not_prevent_the_end() {
    let site = Site::new();
    let daemon = site.start();
    let mut client = daemon.client();
    client.begin("jon@razorback", &["jon@razorback"]);
    let started = Instant::now();
    let ended = std::thread::spawn(move || daemon.terminate());
    while !ended.is_finished() && started.elapsed() < TIMEOUT {
        client.try_send("drip\r\n");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(ended.join().expect("it ends").code(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(9), "{:?}", started.elapsed());
    assert_eq!((site.mail("jon").len(), site.spooled().len()), (0, 0));
}

#[test]
fn sighup_changes_settings_and_drops_no_session() {
    let mut site = Site::new();
    let daemon = site.start();
    let mut open = daemon.client();
    open.ask("RCPT TO:<x>", "503 ");
    site.set("local", "domains", "[\"razorback\", \"razorback.test\", \"frogbog\"]");
    site.set("limits", "recipients", "100");
    site.set("", "hostname", "\"other.test\"");
    site.set("queue", "workers", "3");
    site.set("listen", "address", "\"127.0.0.1:1\"");
    site.add("users", "elvis::");
    site.configure();
    daemon.hup();
    daemon.wait_words(&["configuration and tables read again"]);
    for key in ["listen", "queue.workers"] {
        daemon.wait_words(&[&format!("{key} has changed: that needs a restart")]);
    }
    assert_eq!(daemon.log().matches("needs a restart").count(), 2);
    // The session that was open before keeps its old settings.
    open.send("jon@razorback", &["elvis@razorback"], TEXT);
    daemon.wait_mail(&site, "elvis", 1);
    // A new session has the new settings.
    let mut client = daemon.client();
    client.send("jon@razorback", &["jon@frogbog"], TEXT);
    daemon.wait_mail(&site, "jon", 1);
    client.ask("QUIT", "221 2.0.0 other.test");
}

#[test]
fn a_malformed_configuration_leaves_the_old_one_in_force() {
    let site = Site::new();
    let daemon = site.start();
    let good = fs::read_to_string(site.path("penfold.conf")).expect("penfold.conf");
    site.write("penfold.conf", &format!("{good}[queue]\nworkers = 0\nworkres = 5\n"));
    daemon.hup();
    daemon.wait_words(&["the configuration has errors: the old one stays in force"]);
    let line = good.lines().count() + 2;
    for (line, column) in [(line, 11), (line + 1, 1)] {
        daemon.wait_words(&[&format!("{}:{line}:{column}: ", site.path("penfold.conf").display())]);
    }
    daemon.submit(&["jon@razorback"]);
    daemon.wait_mail(&site, "jon", 1);
    // As soon as the configuration is correct again, a reload takes effect.
    site.write("penfold.conf", &good);
    daemon.hup();
    daemon.wait_words(&["configuration and tables read again"]);
}

#[test]
fn a_rotated_log_is_reopened() {
    let mut site = Site::new();
    let (log, rotated) = (site.path("log"), site.path("log.0"));
    site.set("log", "to", &format!("{log:?}"));
    // The daemon runs in the background, since in the foreground it would log to standard error.
    assert_eq!(code(&run(&mut site.penfoldd(&[]))), 0);
    let lines = || fs::read_to_string(&log).unwrap_or_default();
    wait_for("the start", || lines().contains(" started"));
    let first = lines();
    let pid = first.split_once("penfoldd[").and_then(|(_, rest)| rest.split_once(']')).expect("the pid").0;
    let daemon = Guard(Pid::from_raw(pid.parse().expect("a number")));
    fs::rename(&log, &rotated).expect("a rename");
    kill(daemon.0, Signal::SIGHUP).expect("it runs");
    wait_for("a new log", || lines().contains("read again"));
    assert!(fs::read_to_string(&rotated).expect("the old log").contains("listening on"));
    kill(daemon.0, Signal::SIGTERM).expect("it runs");
    wait_for("the end", || kill(daemon.0, None).is_err());
    std::mem::forget(daemon);
}

#[test]
fn tables_are_read_again_when_they_change() {
    let site = Site::new();
    let daemon = site.start();
    let mut client = daemon.client();
    client.ask("VRFY elvis", "550 5.1.1 ");
    for (table, line, address) in [
        ("users", "elvis::", "elvis"),
        ("aliases", "king: elvis", "king"),
        ("virtual", "@razorback.test elvis", "anyone@razorback.test"),
    ] {
        client.ask(&format!("VRFY {address}"), "550 5.1.1 ");
        site.add(table, line);
        client.ask(&format!("VRFY {address}"), "25");
    }
    site.add("routes", "null.test error:5.1.2 no such place");
    client.ask("MAIL FROM:<jon@razorback>", "250 ");
    client.ask("RCPT TO:<x@null.test>", "550 5.1.2 ");
}

#[test]
fn a_malformed_table_leaves_the_old_one_in_force() {
    let site = Site::new();
    site.add("aliases", "king: jon");
    let daemon = site.start();
    let mut client = daemon.client();
    client.ask("VRFY king", "250 ");
    site.write("aliases", "queen: root\nking jon\n");
    client.ask("VRFY king", "250 ");
    client.ask("VRFY queen", "550 ");
    let place = format!("{}:2:", site.path("aliases").display());
    daemon.wait_words(&[&place, "; the old table stays in force"]);
    client.ask("VRFY king", "250 ");
    assert_eq!(daemon.log().matches(&place).count(), 1);
    fs::remove_file(site.path("aliases")).expect("it was there");
    client.ask("VRFY king", "250 ");
    site.write("aliases", "queen: root\n");
    client.ask("VRFY king", "550 ");
    client.ask("VRFY queen", "250 ");
}

// Privileges

fn runs_as_root() -> bool {
    let is_root = geteuid().is_root();
    if !is_root {
        common::skipped("only root can give up being root");
    }
    is_root
}

#[test]
fn root_privileges_are_dropped_permanently() {
    if !runs_as_root() {
        return;
    }
    let site = Site::new();
    let daemon = site.start();
    let nobody = nix::unistd::User::from_name("nobody").expect("users").expect("nobody");
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("/proc");
    let ids = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("a line").to_owned();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(ids("Uid:"), vec![nobody.uid.to_string(); 4]);
    assert_eq!(ids("Gid:"), vec![nobody.gid.to_string(); 4]);
    assert!(!ids("Groups:").contains(&"0".to_owned()), "{status}");
    assert_eq!(ids("CapEff:"), ["0000000000000000"]);
}

#[test]
fn the_server_does_not_run_as_root_or_an_unknown_user() {
    if !runs_as_root() {
        return;
    }
    for (user, says) in [("root", "must not run as root"), ("no-such-user", "no such user: create it, or set user\n")] {
        let mut site = Site::new();
        site.set("", "user", &format!("{user:?}"));
        let output = run(&mut site.penfoldd(&["-d"]));
        assert_eq!(code(&output), CONFIG);
        assert!(text(&output.stderr).contains(says), "{output:?}");
    }
}

#[test]
fn tables_are_read_by_the_servers_user_at_the_start_too() {
    if !runs_as_root() {
        return;
    }
    let site = Site::new();
    let users = site.path("users");
    std::os::unix::fs::chown(&users, Some(0), Some(0)).expect("chown");
    fs::set_permissions(&users, fs::Permissions::from_mode(0o600)).expect("chmod");
    // The daemon reports the error at the start, and not only after the next change of the table,
    // when no operator is watching.
    let error = format!("{}: Permission denied", users.display());
    let output = run(&mut site.penfoldd(&["-n"]));
    assert_eq!(code(&output), CONFIG);
    assert!(text(&output.stderr).contains(&error), "{output:?}");
    let daemon = site.start();
    assert!(daemon.log().contains(&error), "{}", daemon.log());
}

/// An operator's shell may have any umask. Whatever it is, other users must be able to reach the
/// files they need, and nothing else.
#[test]
fn created_files_have_the_same_modes_under_every_umask() {
    // The server creates one directory itself; only root may create the two above that.
    let socket = if geteuid().is_root() { "made/run/deep/sock" } else { "made/sock" };
    let modes = |umask: &str| {
        let mut site = Site::new();
        for (section, key, path) in [("", "spool", "made/spool"), ("", "socket", socket), ("log", "to", "made/log")] {
            let path = format!("{:?}", site.path(path));
            site.set(section, key, &path);
        }
        fs::create_dir(site.path("made")).expect("a directory");
        common::own(&site.path("made"));
        let port = free_port();
        site.set("listen", "address", &format!("\"127.0.0.1:{port}\""));
        site.write("aliases", &format!("box: {}\n", site.path("mail/box").display()));
        let penfoldd = site.penfoldd(&[]);
        let mut command = Command::new("sh");
        command.args(["-c", &format!("umask {umask} && exec \"$0\" \"$@\"")]);
        let output = run(command.arg(penfoldd.get_program()).args(penfoldd.get_args()));
        assert_eq!(code(&output), 0, "{output:?}");
        let daemon = Background(site.path(socket));
        let mut client = Client::new(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("it listens"));
        client.send("jon@razorback", &["jon", "box"], TEXT);
        wait_for("mail", || site.mail("jon").len() == 1 && site.path("mail/box").exists());
        wait_for("the end", || fs::read_dir(site.path("made/spool/new")).is_ok_and(|new| new.count() == 0));
        let mut found = Vec::new();
        let mut todo: Vec<_> = ["made", "mail"].map(|name| site.path(name)).to_vec();
        while let Some(path) = todo.pop() {
            let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
            let name = path.strip_prefix(site.path("")).expect("below").display().to_string();
            // The names of message files differ between runs, so only their directory is compared.
            let name = name.split_once("/jon/new/").map_or(name.clone(), |(front, _)| format!("{front}/jon/new/"));
            found.push((name, metadata.permissions().mode() & 0o7777));
            if metadata.is_dir() {
                todo.extend(fs::read_dir(&path).expect("root or its own").flatten().map(|file| file.path()));
            }
        }
        drop(daemon);
        found.sort();
        found
    };
    let usual = modes("022");
    let of_root = [("made/spool", 0o755), ("made/run", 0o755), ("made/run/deep", 0o755)];
    let of_all = [
        ("made/spool/new", 0o700),
        (socket, 0o666),
        ("made/log", 0o640),
        ("mail/jon", 0o700),
        ("mail/jon/new/", 0o600),
        ("mail/box", 0o600),
    ];
    for (name, mode) in of_root.iter().filter(|_| geteuid().is_root()).chain(&of_all) {
        assert!(usual.contains(&((*name).to_owned(), *mode)), "{name}: {usual:?}");
    }
    for umask in ["000", "027", "077"] {
        assert_eq!(modes(umask), usual, "umask {umask}");
    }
}

/// A daemon in the background, with the path of its control socket. Dropping this ends the daemon.
struct Background(PathBuf);

impl Drop for Background {
    fn drop(&mut self) {
        let Ok(socket) = UnixStream::connect(&self.0) else { return };
        let peer = nix::sys::socket::getsockopt(&socket, nix::sys::socket::sockopt::PeerCredentials);
        if let Some(pid) = peer.ok().map(|peer| peer.pid()).filter(|pid| *pid > 0) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            let end = Instant::now() + TIMEOUT;
            while UnixStream::connect(&self.0).is_ok() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

// Limits

#[test]
fn excess_connections_are_rejected_until_one_ends() {
    for limit in ["connections", "connections_per_host"] {
        let mut site = Site::new();
        site.set("limits", limit, "2");
        let daemon = site.start();
        let (first, mut second) = (daemon.client(), daemon.client());
        let mut third = Client::before_banner(daemon.connect());
        third.expect("421 4.7.0 ");
        third.expect_end();
        drop(first);
        wait_for("room", || {
            Client::before_banner(daemon.connect()).read_line().is_some_and(|banner| banner.starts_with("220 "))
        });
        second.send("jon@razorback", &["jon@razorback"], TEXT);
    }
}

#[test]
fn silence_ends_a_session_with_421() {
    let site = Site::with("limits.command_timeout = \"1s\"\nlimits.data_timeout = \"2s\"");
    let daemon = site.start();
    let (mut idle, mut sending) = (daemon.client(), daemon.client());
    sending.begin("jon@razorback", &["jon@razorback"]);
    sending.send_text("Subject: never finished\r\n");
    for client in [&mut idle, &mut sending] {
        client.expect("421 4.4.2 ");
        client.expect_end();
    }
    assert!(site.mail("jon").is_empty() && site.spooled().is_empty());
}

#[test]
fn fifty_idle_connections_do_not_delay_an_active_one() {
    let site = Site::with("limits.connections_per_host = 100");
    let daemon = site.start();
    let idle: Vec<_> = (0..50).map(|_| daemon.client()).collect();
    let mut busy = daemon.client();
    for _ in 0..100 {
        busy.send("jon@razorback", &["jon@razorback"], TEXT);
    }
    daemon.wait_mail(&site, "jon", 100);
    for mut client in idle {
        client.ask("QUIT", "221 ");
    }
}

#[test]
fn a_port_in_time_wait_can_be_used_at_once() {
    let mut site = Site::new();
    site.set("listen", "address", &format!("\"127.0.0.1:{}\"", free_port()));
    for _ in 0..3 {
        let daemon = site.start();
        // If the daemon closes the connection before the client does, the port stays in TIME_WAIT.
        daemon.client().ask("QUIT", "221 ");
        assert!(daemon.terminate().success());
    }
}

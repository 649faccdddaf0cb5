//! penfoldd under a service manager: notifications, and passed sockets.
//!
//! The test plays the service manager, with a `NOTIFY_SOCKET` that it reads; systemd's
//! systemd-socket-activate is used where it is installed. Other tests run the daemon in the
//! background without a manager: the exit code of the waiting process, and the pid file.

use std::fs;
use std::io::{IoSliceMut, Read};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::client::{Client, TEXT};
use common::{Daemon, Site, TIMEOUT, free_port, unpacked};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use nix::unistd::{Pid, geteuid};

const UNAVAILABLE: i32 = 69;
const CANTCREAT: i32 = 73;
const NOPERM: i32 = 77;

/// Polls a condition that no log line announces.
fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + TIMEOUT;
    while !condition() {
        assert!(Instant::now() < end, "timed out waiting for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

// sd_notify(3)

/// Receives the next notification. Returns its lines, and the process id of the sender.
fn heard_from(socket: &UnixDatagram) -> (Vec<String>, Pid) {
    let mut datagram = [0; 4096];
    let mut space = nix::cmsg_space!(nix::sys::socket::UnixCredentials);
    let mut parts = [IoSliceMut::new(&mut datagram)];
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty());
    let message = message.expect("a notification");
    let credentials = message.cmsgs().expect("room for it").find_map(|control| match control {
        ControlMessageOwned::ScmCredentials(credentials) => Some(credentials),
        _ => None,
    });
    let (length, pid) = (message.bytes, Pid::from_raw(credentials.expect("credentials").pid()));
    let text = String::from_utf8(datagram[..length].to_vec()).expect("UTF-8");
    (text.lines().map(str::to_owned).collect(), pid)
}

fn heard(socket: &UnixDatagram) -> Vec<String> {
    heard_from(socket).0
}

/// Makes sockets for notifications, each with the value of `NOTIFY_SOCKET` that names it.
fn notify_sockets(site: &Site) -> Vec<(String, UnixDatagram)> {
    let path = site.path("notify");
    let file = UnixDatagram::bind(&path).expect("a socket");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("mode 666");
    let name = format!("penfold-test-{}", path.display());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let unnamed = UnixDatagram::bind_addr(&address).expect("a socket");
    let sockets = vec![(path.display().to_string(), file), (format!("@{name}"), unnamed)];
    for (_, socket) in &sockets {
        socket.set_read_timeout(Some(TIMEOUT)).expect("a limit");
        setsockopt(socket, sockopt::PassCred, &true).expect("credentials");
    }
    sockets
}

#[test]
fn the_service_manager_is_notified_of_ready_reloading_and_stopping() {
    let site = Site::new();
    for (name, socket) in notify_sockets(&site) {
        let mut command = site.penfoldd(&["-d"]);
        command.env("NOTIFY_SOCKET", &name);
        let daemon = Daemon::spawn(command);
        let (ready, sender) = heard_from(&socket);
        // The notification comes from the main process: the unit accepts no others, so that a
        // user's command cannot send any.
        assert_eq!(sender, daemon.pid());
        assert!(ready.contains(&"READY=1".to_owned()) && ready.iter().any(|l| l.starts_with("STATUS=")), "{ready:?}");
        // After the notification READY=1 the daemon serves a client at once.
        daemon.submit(&["jon@razorback"]);
        let before = monotonic();
        daemon.hup();
        let reloading = heard(&socket);
        let stamp = reloading.iter().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).expect("a time");
        let stamp: i64 = stamp.parse().expect("a number");
        assert!(reloading.contains(&"RELOADING=1".to_owned()), "{reloading:?}");
        assert!((before..=monotonic()).contains(&stamp), "{before} {stamp}");
        assert!(heard(&socket).contains(&"READY=1".to_owned()));
        // If the configuration is malformed, the reload ends with a notification, too.
        site.write("penfold.conf", "nonsense");
        daemon.hup();
        assert!(heard(&socket).contains(&"RELOADING=1".to_owned()));
        assert!(heard(&socket).contains(&"READY=1".to_owned()));
        site.configure();
        assert!(daemon.terminate().success());
        assert!(heard(&socket).contains(&"STOPPING=1".to_owned()));
    }
}

fn monotonic() -> i64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).expect("a clock");
    now.tv_sec() * 1_000_000 + now.tv_nsec() / 1000
}

#[test]
fn a_missing_service_manager_is_ignored() {
    let site = Site::new();
    for name in ["", "/nowhere/notify", "relative", "@", "vsock:2:1", site.path("spool").to_str().expect("UTF-8")] {
        let mut command = site.penfoldd(&["-d"]);
        command.env("NOTIFY_SOCKET", name);
        let daemon = Daemon::spawn(command);
        daemon.submit(&["jon@razorback"]);
        assert!(daemon.terminate().success(), "{name}");
    }
}

#[test]
fn a_daemon_that_cannot_start_is_never_ready() {
    let site = Site::new();
    let (name, socket) = notify_sockets(&site).remove(0);
    let _taken = site.start();
    let mut command = site.penfoldd(&["-d"]);
    let output = command.env("NOTIFY_SOCKET", &name).output().expect("it runs");
    assert!(!output.status.success());
    socket.set_nonblocking(true).expect("a socket");
    assert!(socket.recv(&mut [0; 64]).is_err());
}

// Passed sockets

/// A command in which systemd-socket-activate starts penfoldd for the first client. Where
/// systemd-socket-activate is not installed, reports the test as skipped and returns `None`.
fn activated(site: &Site, sockets: &[&str], names: &str) -> Option<Command> {
    let mut command = unpacked::of_systemd("systemd-socket-activate")?;
    let daemon = site.penfoldd(&["-d"]);
    for socket in sockets {
        command.args(["-l", socket]);
    }
    command.arg(format!("--fdname={names}")).arg(daemon.get_program()).args(daemon.get_args()).stdin(Stdio::null());
    Some(command)
}

/// Waits until systemd-socket-activate listens, and connects the client that starts the daemon.
fn start_with_client(command: Command, port: u16) -> (Daemon, TcpStream) {
    let daemon = Daemon::spawn_until(command, |line| line.contains("Listening on").then_some(port));
    let daemon = daemon.unwrap_or_else(|log| panic!("it does not listen:\n{log}"));
    let client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("it accepts");
    (daemon, client)
}

#[test]
fn the_first_client_starts_the_daemon_and_is_served() {
    let mut site = Site::new();
    let (port, other) = (free_port(), free_port());
    site.set("listen", "address", &format!("\"127.0.0.1:{port}\""));
    let control = site.path("penfold.sock");
    site.set("", "socket", &format!("{control:?}"));
    let (stray, passed) = (format!("127.0.0.1:{other}"), format!("127.0.0.1:{port}"));
    let lmtp = site.path("lmtp");
    let more = format!("\"127.0.0.1:{port}\"\n[[listen]]\naddress = \"unix:{}\"\nkind = \"lmtp\"", lmtp.display());
    site.set("listen", "address", &more);
    let sockets = [&*passed, control.to_str().expect("UTF-8"), &*stray, lmtp.to_str().expect("UTF-8")];
    let Some(command) = activated(&site, &sockets, "smtp:control:stray:lmtp") else { return };
    let (daemon, client) = start_with_client(command, port);
    let mut client = Client::new(client);
    client.send("jon@razorback", &["jon@razorback"], TEXT);
    daemon.wait_mail(&site, "jon", 1);
    daemon.wait_log(|line| line.contains(&format!("{stray} was passed in, and no [[listen]] has its port: closed")));
    let mut banner = [0; 4];
    UnixStream::connect(&lmtp).and_then(|mut client| client.read_exact(&mut banner)).expect("a banner");
    assert_eq!(&banner, b"220 ");
    fs::set_permissions(&control, fs::Permissions::from_mode(0o666)).expect("mode 666");
    // The daemon uses the control socket that was passed, and does not make another in its place.
    let before = fs::metadata(&control).expect("the socket").ino();
    site.penfoldctl(&["flush"]);
    assert_eq!(fs::metadata(&control).expect("the socket").ino(), before);
    assert!(!daemon.log().contains("Address already in use"), "{}", daemon.log());
    assert!(daemon.terminate().success());
}

#[test]
fn addresses_without_a_passed_socket_are_bound() {
    let mut site = Site::new();
    let (first, second) = (free_port(), free_port());
    site.set("listen#1", "address", &format!("\"127.0.0.1:{first}\""));
    site.set("listen#2", "address", &format!("\"127.0.0.1:{second}\""));
    let Some(command) = activated(&site, &[&format!("127.0.0.1:{first}")], "smtp") else { return };
    let (daemon, client) = start_with_client(command, first);
    Client::new(client).send("jon@razorback", &["jon@razorback"], TEXT);
    daemon.wait_log(|line| line.contains(&format!("127.0.0.1:{second} was not passed in, and is bound")));
    let client = TcpStream::connect((Ipv4Addr::LOCALHOST, second)).expect("it accepts");
    Client::new(client).send("jon@razorback", &["jon@razorback"], TEXT);
    daemon.wait_mail(&site, "jon", 2);
}

#[test]
fn a_socket_for_all_addresses_covers_those_of_the_configuration() {
    let mut site = Site::new();
    let port = free_port();
    site.set("listen", "address", &format!("\"127.0.0.1:{port}\""));
    let Some(command) = activated(&site, &[&format!("0.0.0.0:{port}")], "smtp") else { return };
    let (daemon, client) = start_with_client(command, port);
    Client::new(client).send("jon@razorback", &["jon@razorback"], TEXT);
    daemon.wait_log(|line| line.contains(&format!("listening on 0.0.0.0:{port}")));
    daemon.wait_mail(&site, "jon", 1);
}

/// A command of sh that starts the daemon with `descriptor`, a socket of the test, as descriptor 3.
fn with_descriptor(site: &Site, descriptor: OwnedFd, variables: &str) -> Command {
    let daemon = site.penfoldd(&["-d"]);
    let mut command = Command::new("sh");
    let script = format!("exec 3<&0 0</dev/null; {variables} exec \"$@\"");
    command.args(["-c", &script, "sh"]).arg(daemon.get_program()).args(daemon.get_args()).stdin(descriptor);
    command
}

const FOR_IT: &str = "export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=smtp;";

#[test]
fn no_client_is_refused_between_two_daemons() {
    let mut site = Site::new();
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = socket.local_addr().expect("bound");
    site.set("listen", "address", &format!("\"{address}\""));
    let start = || Daemon::spawn(with_descriptor(&site, socket.try_clone().expect("a copy").into(), FOR_IT));
    let daemon = start();
    daemon.submit(&["jon@razorback"]);
    assert!(daemon.terminate().success());
    // The socket has outlived the daemon, and keeps the client waiting for the next daemon.
    let client = TcpStream::connect(address).expect("the server listens");
    let daemon = start();
    Client::new(client).send("jon@razorback", &["jon@razorback"], TEXT);
    daemon.wait_mail(&site, "jon", 2);
    assert!(daemon.terminate().success());
}

#[test]
fn sockets_for_another_process_are_left_alone() {
    let site = Site::new();
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let daemon = Daemon::spawn(with_descriptor(&site, socket.into(), "export LISTEN_PID=1 LISTEN_FDS=1;"));
    daemon.submit(&["jon@razorback"]);
    assert!(!daemon.log().contains("passed in"), "{}", daemon.log());
}

#[test]
fn an_unusable_socket_prevents_the_start() {
    let site = Site::new();
    let connected = UnixStream::pair().expect("a pair").0;
    let datagrams = UnixDatagram::unbound().expect("a socket");
    let file = fs::File::open("/dev/null").expect("a file");
    for descriptor in [OwnedFd::from(connected), datagrams.into(), file.into()] {
        let output = with_descriptor(&site, descriptor, FOR_IT).output().expect("it runs");
        assert_eq!(output.status.code(), Some(71), "{output:?}");
        let printed = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(printed.starts_with("penfoldd: descriptor 3 \"smtp\" that was passed in: "), "{printed}");
    }
}

#[test]
fn sendmail_starts_the_daemon_by_its_control_socket() {
    let mut site = Site::new();
    let control = site.path("penfold.sock");
    site.set("", "socket", &format!("{control:?}"));
    site.configure();
    let Some(command) = activated(&site, &[control.to_str().expect("UTF-8")], "control") else { return };
    let daemon = Daemon::spawn_until(command, |line| line.contains("Listening on").then_some(1));
    let daemon = daemon.unwrap_or_else(|log| panic!("it does not listen:\n{log}"));
    fs::set_permissions(&control, fs::Permissions::from_mode(0o666)).expect("mode 666");
    let sendmail = site.path("sendmail");
    symlink(env!("CARGO_BIN_EXE_penfoldctl"), &sendmail).expect("a link");
    let mut run = Command::new(&sendmail);
    run.env("PENFOLD_CONFIG", site.path("penfold.conf")).args(["jon@razorback"]);
    let mut child = run.stdin(Stdio::piped()).spawn().expect("it runs");
    std::io::Write::write_all(&mut child.stdin.take().expect("a pipe"), b"Subject: up\n\nHow are you?\n")
        .expect("written");
    assert!(child.wait().expect("it ends").success(), "{}", daemon.log());
    daemon.wait_mail(&site, "jon", 1);
}

#[test]
fn a_process_for_each_client_under_the_inetd_unit() {
    let site = Site::new();
    let Some(mut command) = unpacked::of_systemd("systemd-socket-activate") else { return };
    let (port, session) = (free_port(), site.penfoldd(&["-i"]));
    command.args(["--inetd", "--accept", "-l", &format!("127.0.0.1:{port}")]);
    command.arg(session.get_program()).args(session.get_args()).stdin(Stdio::null());
    let (daemon, client) = start_with_client(command, port);
    Client::new(client).send("jon@razorback", &["jon@razorback"], TEXT);
    daemon.wait_until("the message", || !site.mail("jon").is_empty());
}

// The background

/// The daemon that a pid file names. Dropping this ends the daemon, unless the test has done so.
struct Background<'a>(&'a Path);

impl Background<'_> {
    fn pid(&self) -> Option<Pid> {
        fs::read_to_string(self.0).ok().and_then(|text| text.trim().parse().ok()).map(Pid::from_raw)
    }
}

impl Drop for Background<'_> {
    fn drop(&mut self) {
        let _ = self.pid().map(|pid| kill(pid, Signal::SIGKILL));
    }
}

/// Makes a site, and returns it with the path of a pid file, in a directory where only the user
/// that starts the daemon may write.
fn background() -> (Site, std::path::PathBuf) {
    let mut site = Site::new();
    site.set("listen", "address", &format!("\"127.0.0.1:{}\"", free_port()));
    site.make_root_owned();
    let log = site.path("var/log");
    site.set("log", "to", &format!("{log:?}"));
    fs::create_dir(site.path("run")).expect("a directory");
    let pid_file = site.path("run/pid");
    (site, pid_file)
}

/// Runs a command until its first process ends. Returns the output, which ends only when every
/// process has closed the pipes.
fn run(mut command: Command) -> Output {
    let mut child: Child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let (mut out, mut err) = (child.stdout.take().expect("a pipe"), child.stderr.take().expect("a pipe"));
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    out.read_to_end(&mut stdout).and_then(|_| err.read_to_end(&mut stderr)).expect("it is read");
    Output { status: child.wait().expect("a child"), stdout, stderr }
}

#[test]
fn it_serves_when_the_first_process_exits_and_the_pid_file_is_there() {
    let (mut site, path) = background();
    let port = free_port();
    site.set("listen", "address", &format!("\"127.0.0.1:{port}\""));
    // A pid file may be left from a crash, or be a link. The daemon replaces it, and does not
    // follow the link.
    let victim = site.path("victim");
    fs::write(&victim, "precious").expect("a file");
    symlink(&victim, &path).expect("a link");
    let daemon = Background(&path);
    let output = run(site.penfoldd(&["-p", path.to_str().expect("UTF-8")]));
    assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
    let client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("it serves");
    Client::new(client).send("jon@razorback", &["jon@razorback"], TEXT);
    let file = fs::symlink_metadata(&path).expect("the pid file");
    assert_eq!((file.is_file(), file.mode() & 0o777, file.uid()), (true, 0o644, geteuid().as_raw()));
    assert_eq!(fs::read_to_string(&victim).expect("there"), "precious");
    let pid = daemon.pid().expect("a number");
    assert_eq!(fs::read_to_string(&path).expect("there"), format!("{pid}\n"));
    assert_eq!(nix::unistd::getsid(Some(pid)), Ok(pid));
    assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).ok().as_deref(), Some(Path::new("/")));
    // A second daemon exits with an error, and leaves the pid file alone.
    let second = run(site.penfoldd(&["-p", path.to_str().expect("UTF-8")]));
    assert_eq!(second.status.code(), Some(UNAVAILABLE), "{second:?}");
    assert!(String::from_utf8_lossy(&second.stderr).starts_with("penfoldd: listen on 127.0.0.1:"), "{second:?}");
    assert_eq!(daemon.pid(), Some(pid));
    kill(pid, Signal::SIGTERM).expect("it runs");
    wait_for("the end", || kill(pid, None).is_err());
    // Only root may write in the directory of the pid file, so the monitor, the process that is
    // still root, removes the file.
    wait_for("the end of the pid file", || fs::symlink_metadata(&path).is_err());
    assert_eq!(fs::read_dir(site.path("run")).expect("a directory").count(), 0);
}

#[test]
fn late_failures_are_reported_too() {
    // The daemon opens the spool after all checks at the terminal, so this failure is a late one.
    let (mut site, path) = background();
    fs::write(site.path("file"), "").expect("a file");
    let spool = site.path("file");
    site.set("", "spool", &format!("{spool:?}"));
    let output = run(site.penfoldd(&["-p", path.to_str().expect("UTF-8")]));
    assert!([Some(CANTCREAT), Some(NOPERM)].contains(&output.status.code()), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("open the spool"), "{output:?}");
    assert!(fs::symlink_metadata(&path).is_err());
}

#[test]
fn an_impossible_pid_file_is_an_error_before_the_start() {
    let (site, _) = background();
    let output = run(site.penfoldd(&["-p", "/nowhere/penfold.pid"]));
    assert_eq!(output.status.code(), Some(CANTCREAT), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("penfoldd: make /nowhere/penfold.pid: "), "{output:?}");
    assert!(!site.path("var/log").exists());
    if geteuid().is_root() {
        let (open, path) = (site.path("run"), site.path("run/pid"));
        for (mode, owner) in [(0o777, 0), (0o1777, 0), (0o775, 0), (0o755, 1)] {
            chown(&open, Some(owner), None).expect("root can");
            fs::set_permissions(&open, fs::Permissions::from_mode(mode)).expect("root can");
            let output = run(site.penfoldd(&["-p", path.to_str().expect("UTF-8")]));
            assert_eq!(output.status.code(), Some(CANTCREAT), "{mode:o} {owner}: {output:?}");
            assert!(String::from_utf8_lossy(&output.stderr).contains("others than root may write"), "{output:?}");
            assert!(!site.path("var/log").exists() && fs::read_dir(&open).expect("there").next().is_none());
        }
    }
    for option in ["-d", "-i", "-n", "-q"] {
        assert_eq!(run(site.penfoldd(&[option, "-p", "x"])).status.code(), Some(64), "{option}");
    }
}

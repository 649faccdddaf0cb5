//! Logging to syslog. (For a log file and standard error see tests/daemon/process.rs.)
//!
//! The test needs root and unshare(1): the daemon has a /dev of its own, with a /dev/log that the
//! test reads.

use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use common::Site;
use std::os::unix::fs::PermissionsExt;

const MESSAGE: &[u8] =
    b"EHLO here\r\nMAIL FROM:<jon@razorback>\r\nRCPT TO:<jon@razorback>\r\nDATA\r\n\r\nhello\r\n.\r\nQUIT\r\n";

/// A shell script that creates a null device, binds its first argument to /dev, and runs penfoldd.
/// The mounts end with the last process.
const SCRIPT: &str = "mknod -m 666 \"$1/null\" c 1 3 && mount --bind \"$1\" /dev && exec \"$2\" -i -f \"$3\"";

#[test]
fn every_event_is_a_datagram_to_syslog_and_none_goes_to_the_client() {
    let mut site = Site::new();
    site.set("log", "to", "\"syslog\"");
    let Some((syslog, output)) = session(&site) else { return };
    let heard: Vec<String> =
        [" accept from=", " sent to=", " done"].iter().map(|word| next_with(&syslog, word)).collect();
    assert!(output.status.success(), "{output:?}");
    for line in &heard {
        // The number 22 means the facility mail and the severity info (RFC 3164).
        let rest = line.strip_prefix("<22>").unwrap_or_else(|| panic!("no priority: {line}"));
        assert!(rest.contains(" penfoldd["), "{line}");
        assert!(!line.ends_with('\n'), "{line:?}");
    }
    let replies = String::from_utf8_lossy(&output.stdout);
    assert!(replies.lines().all(|l| l.as_bytes()[..3].iter().all(u8::is_ascii_digit)), "{replies}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn a_session_that_cannot_begin_logs_the_reason_to_syslog() {
    let mut site = Site::new();
    site.set("queue", "workers", "0");
    let Some((syslog, output)) = session(&site) else { return };
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "421 4.3.0 Not available now, please try again later\r\n");
    let line = next_with(&syslog, "queue.workers");
    assert!(line.starts_with("<19>") && line.contains("penfold.conf:"), "{line}");
}

#[test]
fn without_syslog_the_log_goes_to_standard_error() {
    let mut site = Site::new();
    site.set("log", "to", "\"syslog\"");
    site.set("queue", "workers", "3");
    if !is_possible() {
        return;
    }
    site.configure();
    let (dev, pid) = (site.path("dev"), site.path("dev/pid"));
    std::fs::create_dir(&dev).expect("a directory");
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private", "sh", "-c", &SCRIPT.replace(" -i ", " -p /dev/pid "), "sh"]);
    command.args([&dev, &env!("CARGO_BIN_EXE_penfoldd").into(), &site.path("penfold.conf")]);
    let output = command.stdin(Stdio::null()).output().expect("it runs");
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    let daemon = std::fs::read_to_string(&pid).expect("a pid file").trim().parse().expect("a number");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(daemon), nix::sys::signal::Signal::SIGKILL).expect("it runs");
    assert_eq!(printed.matches("no syslog at /dev/log: nothing is logged in the background; see log.to\n").count(), 1);
    assert!(output.status.success() && printed.lines().all(|line| !line.starts_with('<')), "{printed}");
}

fn is_possible() -> bool {
    let is_possible = nix::unistd::geteuid().is_root()
        && Command::new("unshare").args(["-m", "true"]).stderr(Stdio::null()).status().is_ok_and(|s| s.success());
    if !is_possible {
        common::skipped("no private mounts without root and unshare");
    }
    is_possible
}

/// Runs a session over pipes. Returns the socket of its syslog, and its output. Where that is not
/// possible, reports the test as skipped and returns `None`.
fn session(site: &Site) -> Option<(UnixDatagram, Output)> {
    if !is_possible() {
        return None;
    }
    site.configure();
    let dev = site.path("dev");
    std::fs::create_dir(&dev).expect("a directory");
    let syslog = UnixDatagram::bind(dev.join("log")).expect("a socket");
    std::fs::set_permissions(dev.join("log"), PermissionsExt::from_mode(0o666)).expect("mode 666");
    syslog.set_read_timeout(Some(Duration::from_secs(10))).expect("a time limit");
    let mut session = Command::new("unshare")
        .args(["-m", "--propagation", "private", "sh", "-c", SCRIPT, "sh"])
        .args([&dev, &env!("CARGO_BIN_EXE_penfoldd").into(), &site.path("penfold.conf")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("unshare runs");
    // A session that cannot begin may end before it reads, so the write may fail.
    let _ = session.stdin.take().expect("its standard input").write_all(MESSAGE);
    Some((syslog, session.wait_with_output().expect("it ends")))
}

/// Waits for the next datagram that contains `word`.
fn next_with(syslog: &UnixDatagram, word: &str) -> String {
    let mut datagram = [0; 4096];
    loop {
        let length = syslog.recv(&mut datagram).unwrap_or_else(|e| panic!("nothing with {word:?} came: {e}"));
        let line = String::from_utf8_lossy(&datagram[..length]).into_owned();
        if line.contains(word) {
            return line;
        }
    }
}

//! The forms of the log: JSON, and the journal of systemd.

use std::fs::{self, Permissions};
use std::io::pipe;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Stdio};
use std::time::Duration;

use common::Site;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

#[test]
fn a_log_in_json_has_an_object_a_line() {
    let site = Site::with("log.format = \"json\"");
    let daemon = site.start();
    daemon.submit(&["jon"]);
    daemon.wait_words(&["\"event\":\"done\""]);
    let log = daemon.log();
    for line in log.lines() {
        assert!(line.starts_with("{\"time\":\"20") && line.ends_with('}'), "{line}");
    }
    let accept = log.lines().find(|line| line.contains("\"event\":\"accept\"")).expect("a line");
    for part in [
        "\"level\":\"info\",\"program\":\"penfoldd\",\"pid\":",
        ",\"recipients\":1,",
        ",\"rcpt\":[\"<jon@razorback>\"]}",
    ] {
        assert!(accept.contains(part), "no {part} in {accept}");
    }
    assert!(log.lines().any(|line| line.contains(",\"message\":\"listening on 127.0.0.1:")), "{log}");
}

/// A process that does not survive the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A stand-in for the journal, in a namespace of its own.
#[test]
fn the_journal_gets_an_entry_with_fields_for_each_event() {
    if !geteuid().is_root() {
        return common::skipped("only root can make a socket below /run/systemd");
    }
    let name = format!("penfold-test-{}", std::process::id());
    let directory = format!("/run/systemd/journal.{name}");
    fs::create_dir_all(&directory).expect("a directory");
    let journal = UnixDatagram::bind(format!("{directory}/socket")).expect("a socket");
    fs::set_permissions(format!("{directory}/socket"), Permissions::from_mode(0o666)).expect("root can");
    journal.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    let (_reader, writer) = pipe().expect("a pipe");
    let stream = fs::metadata(format!("/proc/self/fd/{}", writer.as_raw_fd())).expect("a pipe");
    let site = Site::new();
    let mut command = site.penfoldd(&["-d"]);
    command.env("JOURNAL_STREAM", format!("{}:{}", stream.dev(), stream.ino())).env("LOG_NAMESPACE", &name);
    let mut daemon = Killed(command.stderr(writer).stdout(Stdio::null()).spawn().expect("it starts"));
    let entry_with = |part: &str| {
        let mut buffer = vec![0; 65_536];
        loop {
            let length = journal.recv(&mut buffer).expect("an entry");
            let entry = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if entry.contains(part) {
                return entry;
            }
        }
    };
    let port = common::port(&entry_with("MESSAGE=listening on 127.0.0.1:")).expect("a port");
    let stream = std::net::TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    let mut client = common::client::Client::new(stream);
    client.ask("MAIL FROM:<a@x.test>", "250 ");
    client.ask("RCPT TO:<jon@razorback>", "250 ");
    client.ask("RCPT TO:<nosuch@razorback>", "550 ");
    let entry = entry_with("PENFOLD_EVENT=refused\n");
    for line in [
        "PRIORITY=6",
        "SYSLOG_IDENTIFIER=penfoldd",
        "SYSLOG_FACILITY=2",
        "PENFOLD_FROM=<a@x.test>",
        "PENFOLD_HELO=client.test",
        "PENFOLD_REASON=unknown-user",
    ] {
        assert!(entry.lines().any(|other| other == line), "no {line} in {entry}");
    }
    assert!(entry.starts_with("MESSAGE=s"), "{entry}");
    kill(Pid::from_raw(daemon.0.id() as i32), Signal::SIGTERM).expect("a signal");
    assert!(daemon.0.wait().expect("an end").success());
    fs::remove_dir_all(directory).expect("removed");
}

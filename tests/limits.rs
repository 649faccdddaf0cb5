//! Bounds that take more than a dialogue to show, and doors that must stay shut.

mod common;

use std::fmt::Write as _;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use common::client::Client;
use common::{Daemon, Site};

/// Each list is below the router's own bound; together they are too many for the
/// head of one entry.
#[test]
fn aliases_cannot_make_a_message_with_more_recipients_than_can_be_kept() {
    let site = Site::new();
    let mut aliases = String::new();
    for list in 0..5 {
        write!(aliases, "list{list}: m{list}-0@example.test").expect("memory");
        for member in 1..9000 {
            write!(aliases, ", m{list}-{member}@example.test").expect("memory");
        }
        aliases.push('\n');
    }
    site.write("aliases", &aliases);
    let daemon = site.start();
    let mut client = daemon.client();
    client.ask("MAIL FROM:<jon@razorback>", "250 ");
    for list in 0..4 {
        client.ask(&format!("RCPT TO:<list{list}@razorback>"), "250 ");
    }
    client.ask("RCPT TO:<list4@razorback>", "452 4.5.3 ");
    client.ask("RCPT TO:<jon@razorback>", "250 ");
}

/// Behind a wrapper that hands over one end of a pair, anyone may be at the other.
#[test]
fn a_socket_without_an_address_may_not_relay() {
    let site = Site::with("relay.networks = [\"0.0.0.0/0\", \"::/0\"]");
    site.configure();
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let output = theirs.try_clone().expect("a descriptor");
    let mut session = site
        .penfoldd(&["-i"])
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::from(OwnedFd::from(output)))
        .stderr(Stdio::null())
        .spawn()
        .expect("penfoldd starts");
    // The harness knows streams by one name.
    let mut client = Client::mute(TcpStream::from(OwnedFd::from(ours)));
    client.expect("220 ");
    for (line, reply) in [
        ("HELO x", "250 "),
        ("MAIL FROM:<a@example.test>", "250 "),
        ("RCPT TO:<victim@elsewhere.test>", "550 5.7.1 "),
        ("RCPT TO:<jon@razorback>", "250 "),
        ("QUIT", "221 "),
    ] {
        client.ask(line, reply);
    }
    drop(client);
    assert!(session.wait().expect("it ends").success());
}

/// A file without a name is given one through /proc; in a bare container there is none.
#[test]
fn without_proc_mail_comes_in_all_the_same() {
    let is_possible = nix::unistd::geteuid().is_root()
        && Command::new("unshare").args(["-m", "true"]).stderr(Stdio::null()).status().is_ok_and(|s| s.success());
    if !is_possible {
        println!("skipped: no private mounts without root and unshare");
        return;
    }
    let site = Site::new();
    let penfoldd = site.penfoldd(&["-d"]);
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", "mount -t tmpfs tmpfs /proc && exec \"$@\"", "sh"]);
    command.arg(penfoldd.get_program()).args(penfoldd.get_args());
    site.configure();
    let daemon = Daemon::spawn(command);
    daemon.submit(&["jon@razorback"]);
    daemon.wait_mail(&site, "jon", 1);
    assert!(daemon.settles(&site));
    assert_eq!(std::fs::read_dir(site.path("spool/tmp")).expect("a spool").count(), 0);
}

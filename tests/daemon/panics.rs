//! A bug, or a hostile request to the control socket, does not end the daemon or lose mail.
//!
//! A bug is a panic that `PENFOLD_FAULT` causes in the thread that makes a certain system call. It
//! costs one session or one attempt. Only a bug in the queue itself ends the daemon, with the exit
//! code that makes a supervisor restart it. No mail is lost.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;

use common::books::{Answer, Books, Letter, offer};
use common::{Daemon, Site};

fn site() -> Site {
    let site = Site::new();
    ["ret", "ada"].iter().for_each(|user| site.add("users", &format!("{user}::")));
    site.add("aliases", "list: ada, ghost");
    site
}

fn holds(site: &Site, user: &str, token: &str) {
    let books = Books::of(site.mail(user));
    assert_eq!((books.letters(token), books.total()), (1, 1), "{user}");
}

#[test]
fn a_bug_in_a_session_ends_that_session() {
    let site = site();
    let daemon = Daemon::spawn(site.with_fault("link spool/new 1 panic"));
    assert_eq!(offer(daemon.address(), &["ada@razorback"], Letter::new("first")), Answer::Lost);
    daemon.wait_log(|line| line.starts_with("bug: "));
    daemon.wait_words(&["a bug ended this session"]);
    assert_eq!(offer(daemon.address(), &["ada@razorback"], Letter::new("second")), Answer::Taken);
    assert!(daemon.settles(&site));
    holds(&site, "ada", "second");
}

#[test]
fn a_bug_in_an_attempt_causes_a_retry() {
    let site = site();
    // The first panic is in the session, which makes the first attempt, and the second in the
    // worker.
    let daemon = Daemon::spawn(site.with_fault("rename /mail/ 1-2 panic"));
    assert_eq!(offer(daemon.address(), &["ada@razorback"], Letter::new("one")), Answer::Taken);
    daemon.wait_words(&["a bug ended an attempt for local; it will be repeated later"]);
    assert!(daemon.flush_until(&site, || site.spooled().is_empty()), "{}", daemon.log());
    holds(&site, "ada", "one");
}

#[test]
fn a_bug_in_the_queue_ends_the_daemon_with_70() {
    let site = site();
    // The daemon stops while it writes a report. The next daemon's queue thread repairs the
    // half-written report, and the panic is there.
    let daemon = Daemon::spawn(site.with_fault("rename spool/tmp 1 before"));
    assert_eq!(offer(daemon.address(), &["list@razorback"], Letter::new("one")), Answer::Taken);
    assert_eq!(daemon.wait_end().signal(), Some(nix::libc::SIGABRT));
    let daemon = Daemon::spawn(site.with_fault("write spool/ 1 panic"));
    daemon.wait_log(|line| line == "a bug ended the thread queue");
    assert_eq!(daemon.wait_end().code(), Some(70));
    let daemon = site.start();
    assert!(daemon.settles(&site), "{}", daemon.log());
    holds(&site, "ada", "one");
    assert_eq!(Books::of(site.mail("ret")).reports("one"), 1);
}

/// Sends these bytes to the control socket, and returns the whole answer.
fn request(site: &Site, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(site.path("penfold.sock")).expect("a socket");
    // If a line has no end, the daemon may close the connection before it has read everything.
    let _ = stream.write_all(bytes).and_then(|()| stream.shutdown(Shutdown::Write));
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn no_request_to_the_control_socket_does_harm() {
    let site = site();
    let daemon = site.start();
    let endless = vec![b'x'; 1 << 20];
    let too_long = [b"flush ".as_slice(), &endless[..1100], b"\n"].concat();
    let not_understood: [&[u8]; 11] = [
        b"",
        b"\n",
        b"\0\0\0\0\n",
        b"\xff\xfe\n",
        b"flush a b\n",
        b"submit a b\n",
        b"verify \"a b\"@x.test\n",
        b"verify %2\n",
        b"erase everything\n",
        &endless[..1000],
        &too_long,
    ];
    // An escaped blank (`%20`) does not end a word.
    assert!(request(&site, b"submit a%20b\nQUIT\r\n").starts_with("ok\n220 "));
    assert_eq!(request(&site, b"verify \"a%20b\"@x.test\n"), "ok\nyes\n\"a b\"@x.test: mx:x.test\n");
    assert_eq!(request(&site, b"flush a%20b\n"), "ok\n0\n");
    assert_eq!(request(&site, b"wake a%20b\n"), "malformed queue id\n");
    for bytes in not_understood {
        assert_eq!(request(&site, bytes), "malformed request\n", "{bytes:?}");
    }
    for name in
        ["x", "../../etc/passwd", "1K0TVZ6PH81DZ9JHPQF,S=", "1K0TVZ6PH81DZ9JHPQF,S=0", "1,S=99999999999999999999"]
    {
        assert_eq!(request(&site, format!("wake {name}\n").as_bytes()), "malformed queue id\n", "{name}");
    }
    // A queue id without a message is no error. A request without an end is not read to its end.
    assert_eq!(request(&site, b"wake 1K0TVZ6PH81DZ9JHPQF,S=829\n"), "ok\n");
    let answer = request(&site, &endless);
    assert!(answer.is_empty() || answer == "malformed request\n", "{answer}");
    // Silent clients use up all connections of the socket until they time out; mail is still
    // accepted.
    let silent: Vec<UnixStream> =
        (0..220).map(|_| UnixStream::connect(site.path("penfold.sock")).expect("a socket")).collect();
    daemon.wait_until("the end of places", || request(&site, b"flush\n") == "too many connections\n");
    assert_eq!(offer(daemon.address(), &["ada@razorback"], Letter::new("one")), Answer::Taken);
    assert!(daemon.settles(&site));
    holds(&site, "ada", "one");
    daemon.wait_until("a place", || request(&site, b"flush\n") == "ok\n0\n");
    drop(silent);
    assert!(!daemon.log().contains("bug"), "{}", daemon.log());
}

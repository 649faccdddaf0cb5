//! PROXY headers: every split, a slow proxy, and a shutdown while the server waits for a header.
//!
//! Conversations with proxies are in tests/session/dialog, and random headers and attributes in
//! tests/fuzz/proxy.rs.

use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use common::client::Client;
use common::{Daemon, Site};

/// How long the server waits for a PROXY header.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// The additional time for a busy machine.
const SLACK: Duration = Duration::from_secs(8);

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 192.0.2.1 4321 25\r\n";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\xc0\0\x02\x01\x10\xe1\0\x19";

/// A site that accepts PROXY headers from loopback. Only the client 192.0.2.7 may relay.
fn site() -> Site {
    Site::with("listen.proxy = [\"127.0.0.0/8\"]\nlisten.xclient = [\"192.0.2.7\"]\nrelay.networks = [\"192.0.2.7\"]")
}

#[test]
fn a_header_may_arrive_in_two_pieces() {
    let site = site();
    let daemon = site.start();
    for header in [V1, V2] {
        let text =
            [header, b"HELO client.test\r\nMAIL FROM:<jon@frogbog>\r\nRCPT TO:<user@elsewhere.test>\r\n"].concat();
        for split in 1..=header.len() {
            let mut stream = daemon.connect();
            stream.set_nodelay(true).expect("an option");
            stream.write_all(&text[..split]).expect("written");
            // With this pause the daemon usually reads the first piece before the second one is
            // written.
            thread::sleep(Duration::from_millis(2));
            stream.write_all(&text[split..]).expect("written");
            let mut client = Client::before_banner(stream);
            ["220 ", "250 ", "250 ", "250 "].iter().for_each(|reply| drop(client.expect(reply)));
            client.ask("QUIT", "221 ");
        }
    }
}

#[test]
fn a_proxy_without_a_header_in_time_is_disconnected_and_delays_nobody() {
    let site = site();
    let daemon = site.start();
    thread::scope(|scope| {
        // Four proxies are slow: one sends nothing, one half a header, one a header octet by octet,
        // and one a header that announces more than it sends at once.
        scope.spawn(|| outwaits(&daemon, b"", b""));
        scope.spawn(|| outwaits(&daemon, &V1[..20], b""));
        scope.spawn(|| outwaits(&daemon, b"", &[b"PROXY UNKNOWN ", &[b'x'; 80][..]].concat()));
        scope.spawn(|| {
            outwaits(&daemon, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x10\0", b"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx")
        });
        let started = Instant::now();
        let mut stream = daemon.connect();
        stream.write_all(V1).expect("written");
        let mut client = Client::before_banner(stream);
        client.expect("220 ");
        client.ask("QUIT", "221 ");
        assert!(started.elapsed() < HEADER_TIMEOUT, "waited for the others");
    });
    daemon.wait_words(&["closed peer=[127.0.0.1]", "reason=\"no PROXY header in time\""]);
}

/// Sends `at_once`, and then the octets of `slowly` one by one. Asserts that the daemon closes the
/// connection when the time is up, without a reply.
fn outwaits(daemon: &Daemon, at_once: &[u8], slowly: &[u8]) {
    let started = Instant::now();
    let mut stream = daemon.connect();
    stream.write_all(at_once).expect("written");
    stream.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
    let mut slowly = slowly.iter();
    let mut received = [0; 64];
    loop {
        match stream.read(&mut received) {
            Ok(0) => break,
            Ok(count) => panic!("said {}", received[..count].escape_ascii()),
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                assert!(started.elapsed() < HEADER_TIMEOUT + SLACK, "still open");
                if let Some(octet) = slowly.next() {
                    // If the connection was closed meanwhile, the next read shows it.
                    let _ = stream.write_all(&[*octet]);
                }
            }
            Err(_) => break,
        }
    }
    assert!(started.elapsed() + Duration::from_millis(200) >= HEADER_TIMEOUT, "closed before its time");
}

#[test]
fn shutdown_does_not_wait_for_a_header() {
    let site = site();
    let daemon = site.start();
    let mut silent = daemon.connect();
    silent.write_all(&V1[..20]).expect("written");
    // When a later connection is served, the first one has its thread, too.
    let mut stream = daemon.connect();
    stream.write_all(V1).expect("written");
    Client::before_banner(stream).expect("220 ");
    let started = Instant::now();
    assert!(daemon.terminate().success());
    assert!(started.elapsed() < Duration::from_secs(5), "it waited {:?}", started.elapsed());
}

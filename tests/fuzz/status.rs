//! Requests to the status page, random and mutated: the parser alone, and the daemon.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use common::chance::Chance;
use common::holdings::Holdings;
use common::{Daemon, Site};
use penfold::status::http::{self, MAX_REQUEST, Request};

use super::{mutate, repeat, repeat_in_threads};

/// The name of the host, which may be in `Host`.
const NAME: &str = "razorback.test";

const FIELDS: &[&[u8]] = &[
    b"Host: localhost\r\n",
    b"host:\t127.0.0.1:8025 \r\n",
    b"Host: [::1]:80\r\n",
    b"Host: [::1\r\n",
    b"Host: razorback.test\r\n",
    b"Host: attacker.example\r\n",
    b"Accept: application/openmetrics-text;q=0.5, */*\r\n",
    b"Content-Length: 0\r\n",
    b"Content-Length: 18446744073709551616\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b" continued\r\n",
    b"X:\x80\r\n",
];

/// A request: often a valid one, and often one with a few octets changed.
fn request(chance: &mut Chance) -> Vec<u8> {
    let method = *chance.pick(&["GET", "GET", "GET", "HEAD", "POST", "get", "PRI", "G\u{c4}T", ""]);
    let target = *chance.pick(&[
        "/",
        "/",
        "/metrics",
        "/?hours=48",
        "/style.css",
        "*",
        "/%2e%2e/etc/passwd",
        "http://localhost/metrics",
        "http://attacker.example/",
        "//attacker.example/",
        "http://",
        "/?<script>",
        "",
    ]);
    let version = *chance.pick(&["HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/9", "http/1.1", ""]);
    let mut text = format!("{method} {target} {version}\r\n").into_bytes();
    if chance.percent(60) {
        text.extend(b"Host: localhost\r\n");
    }
    for _ in 0..chance.of(0..3) {
        text.extend(*chance.pick(FIELDS));
    }
    if chance.percent(2) {
        text.extend(b"X: ");
        text.extend(vec![b'x'; chance.of(0..2 * MAX_REQUEST)]);
        text.extend(b"\r\n");
    }
    text.extend_from_slice(b"\r\n");
    if chance.percent(30) { mutate(chance, &text) } else { text }
}

/// If a request is accepted, it asks this host for a path, and says the same when it is written again.
#[test]
fn an_accepted_request_is_for_this_host_and_keeps_its_meaning() {
    let mut accepted = 0;
    repeat(|chance| {
        let octets = request(chance);
        let shown = octets.escape_ascii();
        let Some(length) = http::head_length(&octets) else { return };
        let mut before = length.saturating_sub(if length < 400 { 50 } else { 2 })..length;
        assert!(length <= octets.len() && before.all(|end| http::head_length(&octets[..end]).is_none()), "{shown}");
        let Ok(found) = http::parse(&octets[..length], NAME) else { return };
        accepted += 1;
        let Request { is_head, path, query, host, accept } = &found;
        assert!(path.starts_with('/') && !path.contains(['?', '#', ' ']) && !query.contains(['#', ' ']), "{shown}");
        let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
        let is_ours =
            ["localhost", NAME].contains(&host.as_str()) || address.is_ok_and(|address| address.is_loopback());
        assert!(is_ours, "{shown}");
        let (method, mark) = (if *is_head { "HEAD" } else { "GET" }, if query.is_empty() { "" } else { "?" });
        let again = format!("{method} {path}{mark}{query} HTTP/1.1\r\nHost: {host}\r\nAccept: {accept}\r\n\r\n");
        assert_eq!(http::parse(again.as_bytes(), NAME).as_ref(), Ok(&found), "{shown}");
    });
    assert!(accepted > 20, "only {accepted} requests were accepted");
}

/// Sends a part of a request, all of it or more, and returns the response.
fn send(address: SocketAddr, chance: &mut Chance, octets: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("it accepts");
    stream.set_read_timeout(Some(common::TIMEOUT)).expect("a timeout");
    let cut = if chance.percent(20) { chance.of(0..octets.len() + 1) } else { octets.len() };
    // The writes may fail, since the daemon may close the connection before everything is written.
    let _ = stream.write_all(&octets[..cut]);
    if chance.percent(5) {
        return b"HTTP/1.1 ".to_vec(); // The client leaves without reading.
    }
    let _ = stream.shutdown(Shutdown::Write);
    let mut received = Vec::new();
    let _ = stream.read_to_end(&mut received);
    received
}

/// Whatever clients send, each gets a response of HTTP or the end of the connection, a client that
/// behaves gets the page meanwhile, and nothing is left behind.
#[test]
fn hostile_clients_leave_the_page_to_others() {
    let mut site = Site::new();
    site.set("listen#2", "address", "\"127.0.0.1:0\"");
    site.set("listen#2", "kind", "\"status\"");
    let daemon = site.start();
    let port = |log: &str| log.lines().filter_map(common::port).nth(1);
    daemon.wait_until("the status listener", || port(&daemon.log()).is_some());
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port(&daemon.log()).expect("a port")));
    get_page(address);
    let quiet = Holdings::at_rest(daemon.pid(), Duration::from_millis(300));
    // Clients that send nothing take all places, and lose them to others.
    let silent: Vec<_> = (0..40).map(|_| TcpStream::connect(address).expect("it accepts")).collect();
    repeat_in_threads(3, |number, chance| {
        if number == 0 {
            return get_page(address);
        }
        let octets = request(chance);
        let received = send(address, chance, &octets);
        assert!(received.is_empty() || received.starts_with(b"HTTP/1.1 "), "{}", received.escape_ascii());
    });
    drop(silent);
    get_page(address);
    daemon.wait_until("the end of all connections", || is_quiet(&daemon, quiet));
    assert!(!daemon.log().contains("bug"), "{}", daemon.log());
    assert!(daemon.terminate().success());
}

fn is_quiet(daemon: &Daemon, quiet: Holdings) -> bool {
    let now = Holdings::of(daemon.pid());
    now.threads <= quiet.threads && now.descriptors <= quiet.descriptors
}

/// A client that behaves gets the page, perhaps after it was told to come again.
fn get_page(address: SocketAddr) {
    for _ in 0..100 {
        let mut stream = TcpStream::connect(address).expect("it accepts");
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let mut received = String::new();
        if stream.read_to_string(&mut received).is_ok() && received.starts_with("HTTP/1.1 200 ") {
            assert!(received.ends_with("</html>\n"), "{received}");
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("no page");
}

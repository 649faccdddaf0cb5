//! SSL 3.0, TLS 1.0 and TLS 1.1 are refused, as a server and as a client: by hand, so that no library
//! can refuse to try them, and with OpenSSL.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;

use common::tls::Authority;
use common::{Site, TIMEOUT, free_port};

/// The versions with their names, and the options of OpenSSL.
const OLD: [(u8, &str, &str); 3] = [(0, "SSL 3.0", "-ssl3"), (1, "TLS 1.0", "-tls1"), (2, "TLS 1.1", "-tls1_1")];
/// The types of records and messages, and the alert of RFC 5246 7.2.2 for a version.
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const PROTOCOL_VERSION: u8 = 70;

/// A record with a handshake message of this type, in the version 3.`minor`.
fn record(minor: u8, kind: u8, body: &[u8]) -> Vec<u8> {
    let length = |length: usize| u16::try_from(length).expect("a short message").to_be_bytes();
    let [high, low] = length(body.len());
    let message = [&[kind, 0, high, low], body].concat();
    [&[HANDSHAKE, 3, minor][..], &length(message.len()), &message].concat()
}

/// A ClientHello with cipher suites of all ages.
fn client_hello(minor: u8) -> Vec<u8> {
    let suites: Vec<u8> =
        [0xc02b_u16, 0xc02f, 0xc009, 0xc013, 0x002f, 0x0035, 0x000a].iter().flat_map(|s| s.to_be_bytes()).collect();
    let extension = |kind: u8, body: &[u8]| {
        let length = |length: usize| u8::try_from(length).expect("a short extension");
        [&[0, kind, 0, length(body.len() + 2), 0, length(body.len())], body].concat()
    };
    // Groups and signature algorithms. SSL 3.0 has no extensions, and ignores them.
    let extensions = [extension(10, &[0, 29, 0, 23]), extension(13, &[4, 3, 8, 4, 4, 1, 2, 1])].concat();
    let extensions = [&[0, extensions.len() as u8][..], &extensions].concat();
    let start = [&[3, minor][..], &[7; 32], &[0, 0, suites.len() as u8]].concat();
    record(minor, 1, &[&start[..], &suites, &[1, 0], &extensions].concat())
}

/// A ServerHello that chooses a version.
fn server_hello(minor: u8) -> Vec<u8> {
    record(minor, 2, &[&[3, minor][..], &[7; 32], &[0, 0xc0, 0x2b, 0]].concat())
}

/// Reads a record; returns its type and its content.
fn read_record(stream: &mut impl Read) -> (u8, Vec<u8>) {
    let mut head = [0; 5];
    stream.read_exact(&mut head).expect("a record");
    let mut body = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
    stream.read_exact(&mut body).expect("a whole record");
    (head[0], body)
}

/// Begins STARTTLS with a server.
fn starttls(address: &str) -> BufReader<TcpStream> {
    let stream = TcpStream::connect(address).expect("a server");
    stream.set_read_timeout(Some(TIMEOUT)).expect("a time limit");
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    for command in ["", "EHLO x\r\n", "STARTTLS\r\n"] {
        reader.get_mut().write_all(command.as_bytes()).expect("sent");
        line.clear();
        while reader.read_line(&mut line).expect("a reply") > 0 && !line.lines().any(|line| line.get(3..4) == Some(" "))
        {
        }
    }
    assert!(line.starts_with("220 "), "{line}");
    reader
}

#[test]
fn a_client_with_only_an_old_version_gets_no_tls() {
    let site = Authority::new().site("");
    let daemon = site.start();
    let address = daemon.address().to_string();
    for (minor, name, option) in OLD {
        let mut client = starttls(&address);
        client.get_mut().write_all(&client_hello(minor)).expect("sent");
        let (kind, body) = read_record(&mut client);
        assert_eq!((kind, body), (ALERT, vec![2, PROTOCOL_VERSION]), "{name}");
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).expect("an end");
        assert!(rest.is_empty(), "{name}: {rest:?}");
        // OpenSSL, where it is built with that version.
        let mut openssl = Command::new("openssl");
        openssl.args(["s_client", "-starttls", "smtp", "-connect", &address, "-cipher", "ALL:@SECLEVEL=0", option]);
        match openssl.stdin(Stdio::null()).output() {
            Ok(output) => {
                let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
                let is_known = !text.contains("nknown option");
                // It sends no signature algorithms with these versions, which is an error of its own.
                let is_refused =
                    ["alert protocol version", "alert handshake failure"].iter().any(|alert| text.contains(alert));
                assert!(!is_known || is_refused, "{name}: {text}");
                assert!(!output.status.success(), "{name}: {text}");
            }
            Err(e) => common::skipped(format_args!("openssl: {e}")),
        }
    }
    // The same hello with TLS 1.2 is answered with a ServerHello.
    let mut client = starttls(&address);
    client.get_mut().write_all(&client_hello(3)).expect("sent");
    let (kind, body) = read_record(&mut client);
    assert!(kind == HANDSHAKE && body.get(..1) == Some(&[2]) && body.get(4..6) == Some(&[3, 3]), "{body:?}");
    drop(client);
    assert!(!daemon.log().contains("tls=TLS1.0") && !daemon.log().contains("tls=TLS1.1"), "{}", daemon.log());
}

/// The versions in the extension supported_versions of a ClientHello.
fn offered(hello: &[u8]) -> Vec<[u8; 2]> {
    // Type, length, version, random.
    let mut rest = hello.get(4 + 2 + 32..).expect("a hello");
    let mut take = |width: usize| {
        let length = rest.get(..width).expect("a length").iter().fold(0, |sum, b| sum * 256 + usize::from(*b));
        let (vector, after) = rest.get(width..).and_then(|rest| rest.split_at_checked(length)).expect("a vector");
        rest = after;
        vector
    };
    // Session id, cipher suites, compression.
    for width in [1, 2, 1] {
        take(width);
    }
    let mut extensions = take(2);
    while let Some((head, after)) = extensions.split_at_checked(4) {
        let (body, after) = after.split_at(usize::from(u16::from_be_bytes([head[2], head[3]])));
        if head[..2] == [0, 43] {
            return body.get(1..).expect("versions").chunks(2).map(|pair| [pair[0], pair[1]]).collect();
        }
        extensions = after;
    }
    Vec::new()
}

#[test]
fn a_host_with_only_an_old_version_gets_mail_only_if_tls_is_not_required() {
    for (minor, name, _) in OLD {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let host = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            stream.set_read_timeout(Some(TIMEOUT)).expect("a time limit");
            let mut reader = BufReader::new(stream.try_clone().expect("a copy"));
            stream.write_all(b"220 x ESMTP\r\n").expect("sent");
            for (command, reply) in [("EHLO ", "250-x\r\n250 STARTTLS\r\n"), ("STARTTLS", "220 go on\r\n")] {
                let mut line = String::new();
                reader.read_line(&mut line).expect("a command");
                assert!(line.starts_with(command), "{line}");
                stream.write_all(reply.as_bytes()).expect("sent");
            }
            let (_, hello) = read_record(&mut reader);
            stream.write_all(&server_hello(minor)).expect("sent");
            let answer = read_record(&mut reader);
            let mut rest = Vec::new();
            let _ = reader.read_to_end(&mut rest);
            (hello, answer, rest)
        });
        let mut site = Site::with("remote.tls = \"required\"\nqueue.retry_min = \"1h\"");
        site.set("remote", "smarthosts", &format!("[\"smtp://{address}\"]"));
        let daemon = site.start();
        let id = daemon.submit(&["elvis@example.test"]);
        daemon.wait_words(&[&id, " deferred "]);
        let (hello, answer, rest) = host.join().expect("an end");
        assert_eq!((answer, rest), ((ALERT, vec![2, PROTOCOL_VERSION]), Vec::new()), "{name}");
        assert_eq!(offered(&hello), [[3, 4], [3, 3]], "{name}");
    }
}

#[test]
fn a_server_of_openssl_with_an_old_version_is_refused() {
    let site = Authority::new().site("");
    for (_, name, option) in OLD {
        let port = free_port();
        let mut openssl = Command::new("openssl");
        let path = |file: &str| site.path(file).display().to_string();
        openssl.args(["s_server", "-accept", &format!("127.0.0.1:{port}"), "-cipher", "ALL:@SECLEVEL=0", option]);
        openssl.args(["-cert", &path("cert.pem"), "-key", &path("cert.key"), "-naccept", "1"]);
        let started = openssl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut server = match started {
            Ok(server) => server,
            Err(e) => return common::skipped(format_args!("openssl: {e}")),
        };
        let mut line = String::new();
        let mut out = BufReader::new(server.stdout.take().expect("a pipe"));
        while out.read_line(&mut line).expect("a line") > 0 && !line.contains("ACCEPT\n") {}
        if !line.contains("ACCEPT\n") {
            // Debian's OpenSSL has no SSL 3.0.
            let _ = server.wait();
            continue;
        }
        let mut client = Site::with("queue.retry_min = \"1h\"\nremote.timeout = \"5s\"");
        client.set("remote", "smarthosts", &format!("[\"smtps://127.0.0.1:{port}\"]"));
        let daemon = client.start();
        let id = daemon.submit(&["elvis@example.test"]);
        daemon.wait_words(&[&id, " deferred "]);
        // The server ends after this client, and says why there was no connection.
        drop(server.stdin.take());
        let output = server.wait_with_output().expect("an end");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains("unsupported protocol") || text.contains("alert protocol version"), "{name}: {text}");
    }
}

//! TLS as a server, with the real daemon: STARTTLS, implicit TLS, certificates.
//!
//! The client is rustls, which trusts an authority of the test, or `openssl s_client`. The
//! assertions are about replies, Received: and the log. Nothing that was sent in plaintext may
//! count after the handshake. Random octets are in tests/fuzz/tls.rs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::tls::Authority;
use common::{Daemon, Site};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

/// Performs a handshake as a client on a connection. `name` is the name that the server's
/// certificate must have.
fn secure(authority: &Authority, stream: impl Both + 'static, name: &str) -> std::io::Result<Talk> {
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let mut tls = StreamOwned::new(ClientConnection::new(authority.client(), name).expect("a client"), stream);
    tls.conn.complete_io(&mut tls.sock)?;
    Ok(Talk(BufReader::new(Box::new(tls))))
}

trait Both: Read + Write {}
impl<T: Read + Write> Both for T {}

/// A client's session, encrypted or not.
struct Talk(BufReader<Box<dyn Both>>);

impl Talk {
    fn clear(stream: &TcpStream) -> Self {
        Self(BufReader::new(Box::new(stream.try_clone().expect("a descriptor"))))
    }

    /// Sends text, and reads a whole reply, which must begin with `begins`.
    fn ask(&mut self, says: &str, begins: &str) -> String {
        self.0.get_mut().write_all(says.as_bytes()).expect("written");
        self.0.get_mut().flush().expect("written");
        self.expect(begins)
    }

    fn expect(&mut self, begins: &str) -> String {
        let mut reply = String::new();
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).expect("a line");
            reply += &line;
            if line.len() < 4 || line.as_bytes()[3] != b'-' {
                assert!(reply.starts_with(begins), "{begins}: {reply}");
                return reply;
            }
        }
    }

    fn expect_end(&mut self) {
        let mut rest = Vec::new();
        let _ = self.0.read_to_end(&mut rest);
        assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
    }
}

fn connect(daemon: &Daemon) -> TcpStream {
    let stream = daemon.connect();
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    stream
}

/// Connects, and sends EHLO and STARTTLS. Performs the handshake, with `name` as the expected name.
fn start_tls(authority: &Authority, daemon: &Daemon, name: &str) -> Talk {
    let stream = connect(daemon);
    let mut clear = Talk::clear(&stream);
    clear.expect("220 ");
    assert!(clear.ask("EHLO client.test\r\n", "250-").contains("250-STARTTLS\r\n"));
    assert!(clear.ask("HELP\r\n", "214-").contains("\r\n214-2.0.0   STARTTLS "));
    clear.ask("STARTTLS\r\n", "220 2.0.0 ");
    secure(authority, stream, name).expect("a handshake")
}

const LETTER: &str = "From: <jon@razorback.test>\r\nSubject: hello\r\n\r\nHow are you?\r\n.\r\n";

#[test]
fn starttls_resets_the_session_and_is_recorded() {
    let authority = Authority::new();
    let site = authority.site("");
    let daemon = site.start();
    let mut talk = start_tls(&authority, &daemon, "razorback.test");
    // The server has forgotten the commands before the handshake.
    talk.ask("MAIL FROM:<jon@razorback.test>\r\n", "503 5.5.1 ");
    let offers = talk.ask("EHLO client.test\r\n", "250-");
    assert!(!offers.contains("STARTTLS") && offers.contains("PIPELINING"), "{offers}");
    let help = talk.ask("HELP\r\n", "214-");
    assert!(!help.contains("STARTTLS"), "{help}");
    talk.ask("STARTTLS\r\n", "503 5.5.1 ");
    talk.ask("MAIL FROM:<jon@razorback.test>\r\n", "250 ");
    talk.ask("RCPT TO:<jon@razorback.test>\r\n", "250 ");
    talk.ask("DATA\r\n", "354 ");
    talk.ask(LETTER, "250 ");
    talk.ask("QUIT\r\n", "221 ");
    talk.expect_end();
    let mail = daemon.wait_mail(&site, "jon", 1).remove(0);
    let text = String::from_utf8_lossy(&mail).into_owned();
    assert!(text.contains(" with ESMTPS (TLS1.3) id "), "{text}");
    assert!(text.contains(">\n\ttls TLS_AES_256_GCM_SHA384;\n\t"), "RFC 5321 4.4 has it behind FOR: {text}");
    daemon.wait_words(&[
        " accept from=<jon@razorback.test>",
        " proto=ESMTPS tls=TLS1.3 cipher=TLS_AES_256_GCM_SHA384 user=- ",
    ]);
}

#[test]
fn starttls_can_be_withheld() {
    let site = Authority::new().site("smtp.disable = [\"starttls\"]");
    let daemon = site.start();
    let mut clear = Talk::clear(&connect(&daemon));
    clear.expect("220 ");
    let offers = clear.ask("EHLO client.test\r\n", "250-");
    assert!(!offers.contains("STARTTLS") && offers.contains("PIPELINING"), "{offers}");
    clear.ask("STARTTLS\r\n", "502 5.5.1 ");
    clear.ask("QUIT\r\n", "221 ");
}

#[test]
fn implicit_tls_comes_before_the_banner() {
    let authority = Authority::new();
    let site = authority.site("listen.tls = \"implicit\"");
    let daemon = site.start();
    let mut talk = secure(&authority, connect(&daemon), "razorback.test").expect("a handshake");
    talk.expect("220 razorback");
    assert!(!talk.ask("EHLO client.test\r\n", "250-").contains("STARTTLS"));
    talk.ask("QUIT\r\n", "221 ");
    talk.expect_end();
    // A client that speaks plaintext gets no reply in plaintext.
    let stream = connect(&daemon);
    let mut received = Vec::new();
    (&stream).write_all(b"EHLO client.test\r\n").expect("written");
    let _ = (&stream).read_to_end(&mut received);
    assert!(!received.windows(2).any(|two| two == b"22"), "{received:?}");
    daemon.wait_words(&["tls-failed peer="]);
}

/// Sends a message to jon, with further parameters of MAIL.
fn send(talk: &mut Talk, parameters: &str, text: &str) {
    talk.ask(&format!("MAIL FROM:<ann@frogbog.test>{parameters}\r\n"), "250 2.1.0 ");
    talk.ask("RCPT TO:<jon@razorback.test>\r\n", "250 ");
    talk.ask("DATA\r\n", "354 ");
    talk.ask(&format!("{text}.\r\n"), "250 2.0.0 ");
}

#[test]
fn only_a_client_that_uses_tls_can_require_it() {
    let authority = Authority::new();
    let site = authority.site("listen.xclient = [\"127.0.0.1\"]");
    let daemon = site.start();
    let mut clear = Talk::clear(&connect(&daemon));
    clear.expect("220 ");
    for before in ["EHLO client.test\r\n", "XCLIENT ADDR=192.0.2.7 PROTO=ESMTP\r\n", "EHLO client.test\r\n"] {
        let offers = clear.ask(before, "2");
        assert!(!offers.contains("REQUIRETLS"), "{offers}");
    }
    clear.ask("MAIL FROM:<ann@frogbog.test> REQUIRETLS\r\n", "555 5.5.4 ");
    clear.ask("QUIT\r\n", "221 ");
    let mut talk = start_tls(&authority, &daemon, "razorback.test");
    assert!(talk.ask("EHLO client.test\r\n", "250-").contains("250-REQUIRETLS\r\n"));
    talk.ask("MAIL FROM:<ann@frogbog.test> REQUIRETLS=yes\r\n", "501 5.5.4 ");
    talk.ask("MAIL FROM:<ann@frogbog.test> REQUIRETLS RequireTls\r\n", "501 5.5.4 ");
    send(&mut talk, " requiretls", "Subject: one\r\nTLS-Required: No\r\n\r\n");
    daemon.wait_words(&[" accept from=<ann@frogbog.test>", " proto=ESMTPS ", " require_tls=yes "]);
    send(&mut talk, "", "Subject: two\r\nTLS-Required: No\r\n\r\n");
    daemon.wait_words(&[" accept from=<ann@frogbog.test>", " proto=ESMTPS ", " require_tls=no "]);
    send(&mut talk, "", "Subject: three\r\n\r\nTLS-Required: No\r\n");
    // All stay on this host.
    for mail in daemon.wait_mail(&site, "jon", 3) {
        assert!(String::from_utf8_lossy(&mail).contains("TLS-Required: No\n") || mail.ends_with(b"three\n\n"));
    }
    assert_eq!(daemon.log().matches("require_tls=").count(), 2, "{}", daemon.log());
}

#[test]
fn requiretls_can_be_withheld() {
    let authority = Authority::new();
    let site = authority.site("smtp.disable = [\"requiretls\"]");
    let daemon = site.start();
    let mut talk = start_tls(&authority, &daemon, "razorback.test");
    let offers = talk.ask("EHLO client.test\r\n", "250-");
    assert!(!offers.contains("REQUIRETLS") && offers.contains("PIPELINING"), "{offers}");
    talk.ask("MAIL FROM:<ann@frogbog.test> REQUIRETLS\r\n", "555 5.5.4 ");
    // The header field is no extension.
    send(&mut talk, "", "TLS-Required: No\r\n\r\n");
    daemon.wait_words(&[" accept ", " require_tls=no "]);
}

/// A connection that sends some octets, such as a PROXY header, before its first write.
struct Behind(Option<&'static [u8]>, TcpStream);

impl Read for Behind {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        self.1.read(into)
    }
}

impl Write for Behind {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        let front = self.0.take().unwrap_or_default();
        self.1.write_all(&[front, octets].concat())?;
        Ok(octets.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.1.flush()
    }
}

#[test]
fn a_proxy_header_comes_before_the_handshake() {
    let authority = Authority::new();
    let site = authority.site("listen.tls = \"implicit\"\nlisten.proxy = [\"127.0.0.1\"]");
    let daemon = site.start();
    let headers: [&[u8]; 2] = [
        b"PROXY TCP4 192.0.2.7 192.0.2.1 4321 465\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0f\xc0\0\x02\x07\xc0\0\x02\x01\x10\xe1\x01\xd1\x04\0\0",
    ];
    for header in headers {
        let stream = Behind(Some(header), connect(&daemon));
        let mut talk = secure(&authority, stream, "razorback.test").expect("a handshake");
        talk.expect("220 razorback");
        talk.ask("EHLO client.test\r\n", "250-");
        talk.ask("MAIL FROM:<jon@razorback.test>\r\n", "250 ");
        talk.ask("RCPT TO:<user@elsewhere.test>\r\n", "550 5.7.1 ");
        talk.ask("RCPT TO:<jon@razorback.test>\r\n", "250 ");
        talk.ask("DATA\r\n", "354 ");
        talk.ask(LETTER, "250 ");
        talk.ask("QUIT\r\n", "221 ");
    }
    daemon.wait_words(&[
        " accept ",
        " peer=unknown[192.0.2.7] via=[127.0.0.1] proto=ESMTPS tls=TLS1.3 cipher=TLS_AES_256_GCM_SHA384 user=- ",
    ]);
    daemon.wait_mail(&site, "jon", 2);
    // Without a header the handshake fails: under TLS it would be too late for the header.
    assert!(secure(&authority, connect(&daemon), "razorback.test").is_err());
    daemon.wait_words(&["closed peer=[127.0.0.1]", "no PROXY header"]);
}

#[test]
fn xclient_in_plaintext_is_forgotten_by_starttls() {
    let authority = Authority::new();
    let site = authority.site("listen.xclient = [\"127.0.0.1\"]");
    let daemon = site.start();
    let stream = connect(&daemon);
    let mut clear = Talk::clear(&stream);
    clear.expect("220 ");
    clear.ask("XCLIENT ADDR=192.0.2.7 HELO=client.test PROTO=ESMTP LOGIN=jon\r\n", "220 ");
    clear.ask("XFORWARD ADDR=192.0.2.9\r\n", "250 ");
    clear.ask("STARTTLS\r\n", "220 ");
    let mut talk = secure(&authority, stream, "razorback.test").expect("a handshake");
    talk.ask("MAIL FROM:<jon@razorback.test>\r\n", "503 5.5.1 ");
    assert!(talk.ask("EHLO client.test\r\n", "250-").contains("250-XCLIENT NAME "));
    talk.ask("MAIL FROM:<jon@razorback.test>\r\n", "250 ");
    talk.ask("RCPT TO:<user@elsewhere.test>\r\n", "550 5.7.1 ");
    talk.ask("RCPT TO:<jon@razorback.test>\r\n", "250 ");
    talk.ask("DATA\r\n", "354 ");
    talk.ask(LETTER, "250 ");
    // The address of the client is still the one from XCLIENT.
    daemon.wait_words(&[" accept ", " peer=unknown[192.0.2.7] via=[127.0.0.1] proto=ESMTPS "]);
    // If XCLIENT names another client, the session remains encrypted.
    talk.ask("XCLIENT ADDR=192.0.2.8\r\n", "220 ");
    assert!(!talk.ask("EHLO client.test\r\n", "250-").contains("STARTTLS"));
}

#[test]
fn plaintext_after_starttls_ends_the_session() {
    let authority = Authority::new();
    let site = authority.site("");
    let daemon = site.start();
    for injected in
        ["STARTTLS\r\nNOOP\r\n", "STARTTLS\r\nRSET\r\nMAIL FROM:<a@b.test>\r\n", "STARTTLS\r\nx", "STARTTLS\r\n\0"]
    {
        let stream = connect(&daemon);
        let mut clear = Talk::clear(&stream);
        clear.expect("220 ");
        clear.ask("EHLO client.test\r\n", "250-");
        clear.ask(injected, "554 5.5.1 ");
        clear.expect_end();
    }
    // Text that arrives a moment after STARTTLS counts as a malformed handshake.
    let stream = connect(&daemon);
    let mut clear = Talk::clear(&stream);
    clear.expect("220 ");
    clear.ask("EHLO client.test\r\n", "250-");
    clear.ask("STARTTLS\r\n", "220 ");
    (&stream).write_all(b"MAIL FROM:<a@b.test>\r\n").expect("written");
    let mut received = Vec::new();
    let _ = (&stream).read_to_end(&mut received);
    assert!(!received.starts_with(b"2") && !received.starts_with(b"5"), "{received:?}");
    daemon.wait_words(&["tls-failed peer="]);
    daemon.submit(&["jon@razorback.test"]);
}

#[test]
fn required_tls_comes_before_all_other_commands() {
    let authority = Authority::new();
    let site = authority.site("listen.tls = \"required\"");
    let daemon = site.start();
    let stream = connect(&daemon);
    let mut clear = Talk::clear(&stream);
    clear.expect("220 ");
    clear.ask("EHLO client.test\r\n", "250-");
    for refused in
        ["HELO client.test", "MAIL FROM:<jon@razorback.test>", "RCPT TO:<jon@razorback.test>", "DATA", "VRFY jon"]
    {
        clear.ask(&format!("{refused}\r\n"), "530 5.7.0 Must issue a STARTTLS command first");
    }
    // A client that does not wait for the reply would send its password next.
    clear.ask("AUTH LOGIN\r\n", "530 5.7.0");
    clear.ask("cGVuY2lsLXNlY3JldA==\r\n", "530 5.7.0");
    clear.ask("NOOP\r\n", "250 ");
    clear.ask("STARTTLS\r\n", "220 ");
    let mut talk = secure(&authority, stream, "razorback.test").expect("a handshake");
    talk.ask("EHLO client.test\r\n", "250-");
    talk.ask("MAIL FROM:<jon@razorback.test>\r\n", "250 ");
    daemon.wait_words(&[" refused ", "command=AUTH "]);
    assert!(!daemon.log().contains("cGVuY2ls"), "{}", daemon.log());
}

#[test]
fn a_certificate_is_chosen_by_name_and_read_again_when_it_changes() {
    let authority = Authority::new();
    let mut site = Site::new();
    for (number, name) in [(1, "razorback.test"), (2, "*.other.test")] {
        authority.give(&site, &format!("c{number}"), name, 300);
        let path = |end: &str| format!("{:?}", site.path(&format!("c{number}.{end}")));
        let (certificate, key) = (path("pem"), path("key"));
        site.set(&format!("tls#{number}"), "certificate", &certificate);
        site.set(&format!("tls#{number}"), "key", &key);
    }
    let daemon = site.start();
    start_tls(&authority, &daemon, "mail.other.test");
    let mut old = start_tls(&authority, &daemon, "razorback.test");
    // A new certificate needs no restart, and the open session continues.
    authority.give(&site, "c1", "renamed.test", 300);
    start_tls(&authority, &daemon, "renamed.test");
    daemon.wait_words(&["c1.pem: read again"]);
    old.ask("EHLO client.test\r\n", "250-");
    // If the new key does not match the certificate, the daemon keeps the old pair.
    let (_, key) = authority.make("renamed.test", 300);
    site.write("c1.key", &key);
    start_tls(&authority, &daemon, "renamed.test");
    daemon.wait_words(&["c1.key: the key is not that of the certificate ", "c1.pem; the old pair stays in force"]);
    site.write("c1.key", "garbage\n");
    start_tls(&authority, &daemon, "renamed.test");
    daemon.wait_words(&["expected a private key in PEM"]);
}

#[test]
fn a_reload_may_name_another_certificate() {
    let authority = Authority::new();
    let mut site = authority.site("");
    let daemon = site.start();
    let mut old = start_tls(&authority, &daemon, "razorback.test");
    authority.give(&site, "other", "renamed.test", 300);
    for (key, file) in [("certificate", "other.pem"), ("key", "other.key")] {
        let path = format!("{:?}", site.path(file));
        site.set("tls", key, &path);
    }
    site.configure();
    // Before a reload nothing changes.
    start_tls(&authority, &daemon, "razorback.test");
    daemon.hup();
    daemon.wait_words(&["configuration and tables read again"]);
    start_tls(&authority, &daemon, "renamed.test").ask("EHLO client.test\r\n", "250-");
    // The session that was open before the reload continues.
    old.ask("EHLO client.test\r\n", "250-");
    old.ask("MAIL FROM:<jon@razorback.test>\r\n", "250 ");
    old.ask("RCPT TO:<jon@razorback.test>\r\n", "250 ");
    old.ask("DATA\r\n", "354 ");
    old.ask(LETTER, "250 ");
    daemon.wait_mail(&site, "jon", 1);
}

#[test]
fn errors_in_a_certificate_and_key_are_reported_at_the_start() {
    let authority = Authority::new();
    let site = authority.site("");
    let run = |site: &Site| {
        let output = site.penfoldd(&["-n"]).output().expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(run(&site).0, Some(0));
    let (_, key) = authority.make("razorback.test", 300);
    site.write("cert.key", &key);
    let (code, text) = run(&site);
    assert!(
        code == Some(78)
            && text.contains("cert.key: the key is not that of the certificate ")
            && text.contains("cert.pem"),
        "{text}"
    );
    site.write("cert.key", "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n");
    let (code, text) = run(&site);
    assert!(code == Some(78) && text.contains("a private key of a kind") && !text.contains("c2Vj"), "{text}");
    site.write("cert.pem", "nothing\n");
    let (code, text) = run(&site);
    assert!(code == Some(78) && text.contains("cert.pem: expected a certificate in PEM"), "{text}");
}

#[test]
fn a_certificate_that_expires_soon_is_logged() {
    let authority = Authority::new();
    for (days, words) in [(10, "cert.pem: the certificate expires in "), (-2, "cert.pem: the certificate has expired")]
    {
        let site = authority.site("");
        authority.give(&site, "cert", "razorback.test", days);
        let daemon = site.start();
        daemon.wait_words(&[words]);
        let _ = connect(&daemon);
        assert_eq!(daemon.log().matches(words).count(), 1, "once a day");
    }
    let site = authority.site("");
    authority.give(&site, "cert", "razorback.test", 20);
    let daemon = site.start();
    start_tls(&authority, &daemon, "razorback.test");
    assert!(!daemon.log().contains("expire"), "{}", daemon.log());
}

#[test]
fn a_handshake_has_the_timeout_of_a_command() {
    let authority = Authority::new();
    let site = authority.site("listen.tls = \"implicit\"\nlimits.command_timeout = \"300ms\"");
    let daemon = site.start();
    let start = Instant::now();
    for says in [&b""[..], b"\x16\x03\x01\x02\x00\x01", b"\x16\x03\x01\xff\xff"] {
        let stream = connect(&daemon);
        (&stream).write_all(says).expect("written");
        let mut received = Vec::new();
        let _ = (&stream).read_to_end(&mut received);
    }
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn plaintext_after_close_notify_is_ignored() {
    let authority = Authority::new();
    let site = authority.site("listen.tls = \"implicit\"");
    let daemon = site.start();
    for garbage in [&b"\x17\x03\x03\x00\x20QUIT QUIT QUIT QUIT QUIT QUIT QU"[..], b"NOOP\r\n", &[0xff; 20_000]] {
        let stream = connect(&daemon);
        let mut talk = secure(&authority, stream.try_clone().expect("a descriptor"), "razorback.test").expect("good");
        talk.expect("220 ");
        talk.ask("QUIT\r\n", "221 ");
        talk.expect_end();
        let _ = (&stream).write_all(garbage);
        let _ = stream.shutdown(Shutdown::Write);
        let _ = (&stream).read_to_end(&mut Vec::new());
    }
    secure(&authority, connect(&daemon), "razorback.test").expect("a handshake").expect("220 ");
    assert!(!daemon.log().contains("bug"), "{}", daemon.log());
}

#[test]
fn openssl_works_with_current_protocols_only() {
    if Command::new("openssl").arg("version").output().is_err() {
        return common::skipped("openssl is not installed");
    }
    let authority = Authority::new();
    let site = authority.site("");
    let daemon = site.start();
    let s_client = |arguments: &[&str]| {
        let mut child = Command::new("openssl")
            .args(["s_client", "-starttls", "smtp", "-crlf", "-quiet", "-connect", &daemon.address().to_string()])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl runs");
        // The write fails if openssl has already ended.
        let _ = child.stdin.take().expect("a pipe").write_all(b"EHLO openssl.test\nquit\n");
        String::from_utf8_lossy(&child.wait_with_output().expect("openssl ends").stdout).into_owned()
    };
    for version in ["-tls1_2", "-tls1_3"] {
        let printed = s_client(&[version]);
        assert!(printed.contains("250-razorback") && printed.contains("221 2.0.0"), "{version}: {printed}");
    }
    let printed = s_client(&["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]);
    assert!(!printed.contains("221"), "{printed}");
    daemon.wait_words(&["tls-failed peer="]);
}

#[test]
fn no_plaintext_reply_is_sent_under_implicit_tls() {
    use std::io::Read;
    let site = Authority::new().site("listen.tls = \"implicit\"\nlimits.connections = 1");
    let daemon = site.start();
    let first = connect(&daemon);
    // One connection is allowed. Which of the two connections is accepted does not matter.
    let mut second = connect(&daemon);
    daemon.wait_log(|line| line.contains("too many connections"));
    let mut printed = Vec::new();
    second.read_to_end(&mut printed).expect("the end");
    assert_eq!(printed, b"");
    drop(first);
}

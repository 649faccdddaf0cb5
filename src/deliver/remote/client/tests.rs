//! Tests a dialogue over a Unix socket. No destination uses such a socket yet.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::*;
use crate::address::Address;
use crate::config::Scheme;
use crate::deliver::Delivery;
use crate::deliver::remote::convert::Converter;
use crate::endpoint::Endpoint;
use crate::envelope::{MailOptions, MessageTls, Recipient};
use crate::policy::Source;
use crate::spool::Content;
use crate::timeouts::{HostTimeouts, Trust};
use crate::tls;
use crate::tls_policy::TlsPolicy;

/// Accepts one message and returns what the client has sent.
fn serve(listener: &UnixListener) -> Vec<String> {
    let (socket, _) = listener.accept().expect("a client");
    let mut writer = socket.try_clone().expect("a descriptor");
    let mut say = |line: &str| writer.write_all(line.as_bytes()).expect("a client that reads");
    say("220 store.test\r\n");
    let mut lines = Vec::new();
    for line in BufReader::new(socket).lines() {
        let line = line.expect("a line").trim_end().to_owned();
        match line.as_str() {
            "DATA" => say("354 go on\r\n"),
            line if line.contains(' ') || line == "." => say("250 ok\r\n"),
            _ => {}
        }
        lines.push(line);
    }
    lines
}

#[test]
fn a_message_goes_over_a_unix_socket() {
    let directory = std::env::temp_dir().join(format!("penfold-unix-{}", std::process::id()));
    fs::create_dir(&directory).expect("a scratch directory");
    let (path, message) = (directory.join("socket"), directory.join("message"));
    let listener = UnixListener::bind(&path).expect("a socket");
    fs::write(&message, "hello\n").expect("a message");
    let timeouts = Arc::new(HostTimeouts::default());
    for trust in [Trust::Proven, Trust::Unproven] {
        let peer = Peer {
            name: String::new(),
            endpoint: Endpoint::Unix(Arc::from(&*path)),
            scheme: Scheme::Smtp,
            dnssec: crate::destination::Dnssec::Insecure,
        };
        assert_eq!((peer.to_string(), peer.is_this_host()), (path.display().to_string(), true));
        let server = thread::spawn({
            let listener = listener.try_clone().expect("a descriptor");
            move || serve(&listener)
        });
        let tls = tls::Client::new();
        let policy = TlsPolicy::new(Security::Clear, "loopback", Source::Key("remote.tls"));
        let options = ConnectOptions {
            id: "x",
            hostname: "razorback.test",
            source: None,
            limit: Duration::from_secs(10),
            tls: &tls,
            recorder: &crate::dialogue::Recorder::default(),
            policy: &policy,
            message: MessageTls::Default,
            is_known: true,
            watch: None,
            is_configured: true,
            login: None,
            host_timeout: HostTimeout::new(&timeouts, trust),
            until: None,
        };
        let mut connection = Connection::open(&peer, &options).expect("a connection");
        let (file, recipient) = (File::open(&message).expect("a message"), Address::parse("jon@razorback.test"));
        let content = Content::new(&file, 0, 6);
        let recipient = Recipient::new(recipient.expect("an address"));
        let delivery = Delivery {
            id: "x",
            sender: None,
            options: &MailOptions::default(),
            recipients: vec![&recipient],
            content,
            converter: Converter {
                scratch: &|_| Err(std::io::ErrorKind::Unsupported.into()),
                front: &|_| String::new(),
                #[cfg(feature = "mailauth")]
                keys: None,
                now: 0,
            },
            only_public: false,
            ask_until: None,
            may_use_account: true,
        };
        let outcomes = connection.send(&delivery);
        connection.quit();
        assert_eq!(outcomes[0].outcome.fate, Fate::Delivered, "{outcomes:?}");
        let commands =
            ["EHLO razorback.test", "MAIL FROM:<>", "RCPT TO:<jon@razorback.test>", "DATA", "hello", ".", "QUIT"];
        assert_eq!(server.join().expect("a server"), commands);
    }
    assert!(Endpoint::Unix(Arc::from(Path::new("/run/x"))) != Endpoint::Unix(Arc::from(path)));
    fs::remove_dir_all(&directory).expect("a scratch directory");
}

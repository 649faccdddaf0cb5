//! TLS as a client: when it is used, how a host is verified, and what becomes of a message when TLS
//! fails.

use super::*;
use common::remote::Offer;
use common::tls::Leaf;
use penfold::config::RemoteTls;

const NAME: &str = "mx.example.test";

/// A sender that finds [`NAME`] on loopback and trusts `authority`.
fn sender(authority: &Authority, policy: RemoteTls) -> (Sender, NameServer) {
    let zone = NameServer::zone("example.test MX 10 mx.example.test\nmx.example.test A 127.0.0.1");
    let mut sender = Sender::asking(&zone, Vec::new());
    sender.believe(authority);
    sender.config.remote.tls = policy;
    (sender, zone)
}

fn to(remote: &Remote, scheme: Scheme) -> HostTarget {
    HostTarget::hosts(vec![HostPort { host: NAME.into(), port: remote.address.port(), scheme }])
}

fn with_tls(offer: Offer) -> Sink {
    Sink { tls: Some(offer), ..Sink::default() }
}

/// Asserts that no command of a transaction was sent.
fn assert_silent(remote: &Remote, about: &str) {
    remote.look(|seen| {
        let mail_lines: Vec<_> = seen.commands.iter().filter(|c| c.line.starts_with("MAIL")).collect();
        assert!(
            mail_lines.is_empty() && seen.connections == 1,
            "{about}: {mail_lines:?}, {} connections",
            seen.connections
        );
    });
}

#[test]
fn certificates_are_verified_where_required() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let valid = || authority.leaf(NAME, 300);
    for (what, leaf, words) in [
        ("right", valid(), None),
        ("TLS 1.2", valid().old(), None),
        ("self-made", Leaf::selfmade(NAME), Some("not from a trusted authority")),
        ("stranger's", stranger.leaf(NAME, 300), Some("not from a trusted authority")),
        ("wrong name", authority.leaf("example.test", 300), Some("not valid for name")),
        ("expired", authority.leaf(NAME, -2), Some("expired")),
    ] {
        for (policy, scheme, is_strict) in [
            (RemoteTls::Opportunistic, Scheme::Smtp, false),
            (RemoteTls::Required, Scheme::Smtp, true),
            (RemoteTls::None, Scheme::StartTls, true),
            (RemoteTls::Opportunistic, Scheme::Smtps, true),
        ] {
            let about = format!("{what} {policy:?} {scheme:?}");
            let offer = if scheme == Scheme::Smtps { Offer::implicit(&leaf) } else { Offer::starttls(&leaf) };
            let remote = Remote::with(with_tls(offer));
            let outcome = sender(&authority, policy).0.send_one(&to(&remote, scheme));
            match words.filter(|_| is_strict) {
                None => {
                    assert_eq!(outcome.fate, Delivered, "{about}: {outcome:?}");
                    assert_eq!(outcome.tls.name(), if what == "TLS 1.2" { "TLS1.2" } else { "TLS1.3" }, "{about}");
                    assert!(remote.messages(1)[0].tls, "{about}");
                    assert_eq!(remote.look(|seen| seen.names.clone()), [NAME], "{about}");
                }
                Some(words) => {
                    assert_eq!(shown(&outcome), (Deferred, "4.7.5".into()), "{about}: {outcome:?}");
                    assert!(outcome.why.starts_with("TLS is required: ") && outcome.why.contains(words), "{outcome:?}");
                    assert_silent(&remote, &about);
                }
            }
        }
    }
}

#[test]
fn a_plaintext_banner_is_an_error_under_smtps() {
    let authority = Authority::new();
    const CLEAR: &str =
        "TLS is required: the host does not speak TLS from the first octet; for STARTTLS write smtp+starttls://";
    for (sink, words) in [
        (Sink::default(), CLEAR),
        (Sink::default().when("CONNECT", Then::Hang, usize::MAX), "TLS is required: timed out while starting TLS"),
    ] {
        let remote = Remote::with(sink);
        let outcome = sender(&authority, RemoteTls::None).0.send_one(&to(&remote, Scheme::Smtps));
        assert_eq!(shown(&outcome), (Deferred, "4.7.5".into()), "{outcome:?}");
        assert_eq!(outcome.why, words);
        remote.look(|seen| assert!(seen.commands.iter().all(|c| !c.line.starts_with("EHLO")), "in clear"));
    }
}

#[test]
fn starttls_is_not_sent_under_the_policy_none() {
    let authority = Authority::new();
    let remote = Remote::with(with_tls(Offer::starttls(&authority.leaf(NAME, 300))));
    let outcome = sender(&authority, RemoteTls::None).0.send_one(&to(&remote, Scheme::Smtp));
    assert_eq!((outcome.fate, outcome.tls.name()), (Delivered, "-"));
    assert!(!remote.messages(1)[0].tls);
}

#[test]
fn without_an_offer_mail_goes_in_plaintext_or_waits() {
    let authority = Authority::new();
    for (policy, scheme, sent) in [
        (RemoteTls::Opportunistic, Scheme::Smtp, true),
        (RemoteTls::Required, Scheme::Smtp, false),
        (RemoteTls::None, Scheme::StartTls, false),
    ] {
        for hello in ["250 sink.test", "500 what?"] {
            let remote = Remote::with(Sink::default().reply("EHLO", hello));
            let outcome = sender(&authority, policy).0.send_one(&to(&remote, scheme));
            if sent {
                assert_eq!((outcome.fate, outcome.tls.name()), (Delivered, "-"));
                assert_eq!(remote.look(|seen| seen.connections), 1);
            } else {
                assert_eq!(shown(&outcome), (Deferred, "4.7.4".into()), "{outcome:?}");
                assert_eq!(outcome.why, "TLS is required: the host does not offer STARTTLS");
                assert_silent(&remote, hello);
            }
        }
    }
}

/// The host offers TLS, but the handshake fails.
#[test]
fn after_a_failed_handshake_mail_goes_in_plaintext_or_waits() {
    let authority = Authority::new();
    let leaf = authority.leaf(NAME, 300);
    // This is the alert of a host that supports only obsolete versions of TLS.
    let ancient = [0x15, 3, 1, 0, 2, 2, 70].to_vec();
    let go = || "220 2.0.0 go ahead".to_owned();
    for (then, words) in [
        (reply("454 4.7.0 not today"), "the host said to STARTTLS: 454 4.7.0 not today"),
        (reply("501 what?"), "the host said to STARTTLS: 501 what?"),
        (reply("250 what?"), "the host said to STARTTLS: 250 what?"),
        (reply("421 bye"), "the host said to STARTTLS: 421 bye"),
        (reply("once upon a time"), "starting TLS: malformed SMTP reply"),
        (Then::Close, "the connection was closed while starting TLS"),
        (Then::Hang, "timed out while starting TLS"),
        (Then::ReplyAndClose(go()), "while starting TLS"),
        (Then::ReplyAndHang(go()), "timed out while starting TLS"),
        (Then::Babble(go(), b"once upon a time\r\n".to_vec()), "starting TLS: "),
        (Then::Babble(go(), ancient), "ProtocolVersion"),
        // A line after the 220 must not count as a reply, neither at once nor under TLS.
        (reply("220 go ahead\n250 sink.test"), "the host spoke out of turn"),
        (reply("220 go ahead\n250-sink.test\n250 SIZE 1"), "the host spoke out of turn"),
    ] {
        for (policy, scheme) in [
            (RemoteTls::Opportunistic, Scheme::Smtp),
            (RemoteTls::Required, Scheme::Smtp),
            (RemoteTls::Opportunistic, Scheme::StartTls),
        ] {
            let sink = with_tls(Offer::starttls(&leaf)).when("STARTTLS", then.clone(), usize::MAX);
            let remote = Remote::with(sink);
            let outcome = sender(&authority, policy).0.send_one(&to(&remote, scheme));
            let about = format!("{then:?} {policy:?} {scheme:?}: {outcome:?}");
            if (policy, scheme) == (RemoteTls::Opportunistic, Scheme::Smtp) {
                assert_eq!((outcome.fate, outcome.tls.name()), (Delivered, "-"), "{about}");
                let message = remote.messages(1).remove(0);
                assert!(!message.tls && message.connection == 1, "{about}");
            } else {
                assert_eq!(shown(&outcome), (Deferred, "4.7.5".into()), "{about}");
                assert!(outcome.why.starts_with("TLS is required: ") && outcome.why.contains(words), "{about}");
                assert_silent(&remote, &about);
            }
        }
    }
}

#[test]
fn a_host_that_fails_after_the_handshake_gets_mail_in_plaintext() {
    let authority = Authority::new();
    let leaf = authority.leaf(NAME, 300);
    // The EHLO in plaintext and the one under TLS succeed. After that the host closes the
    // connection, and the client connects again without TLS.
    let sink = with_tls(Offer::starttls(&leaf)).when("EHLO", reply("250-sink.test\n250 STARTTLS"), 1);
    let remote = Remote::with(sink.when("EHLO", Then::Close, 1));
    let outcome = sender(&authority, RemoteTls::Opportunistic).0.send_one(&to(&remote, Scheme::Smtp));
    assert_eq!((outcome.fate, outcome.tls.name()), (Delivered, "-"), "{outcome:?}");
    assert_eq!(remote.look(|seen| seen.connections), 2);
}

#[test]
fn replies_before_the_handshake_are_forgotten() {
    let authority = Authority::new();
    let leaf = authority.leaf(NAME, 300);
    for (before, after, mail) in [
        (&["SIZE 3", "8BITMIME", "PIPELINING"][..], &[][..], "MAIL FROM:<jon@razorback.test>"),
        (&[], &["SIZE 1000"], "MAIL FROM:<jon@razorback.test> SIZE=21"),
    ] {
        let offer = Offer { keywords: Some(keywords(after)), ..Offer::starttls(&leaf) };
        let mut sink = with_tls(offer);
        sink.keywords = keywords(before);
        // The plaintext banner has the name of this host. If it counted under TLS, the mail would
        // bounce as a loop.
        sink.banner = "220 razorback.test ESMTP".into();
        let remote = Remote::with(sink);
        let outcome = sender(&authority, RemoteTls::Required).0.send_one(&mx("example.test", remote.address.port()));
        assert_eq!(outcome.fate, Delivered, "{outcome:?}");
        let commands =
            |seen: &common::remote::Seen| seen.commands.iter().map(|c| (c.tls, c.line.clone())).collect::<Vec<_>>();
        let commands = remote.look(commands);
        assert_eq!(commands[1], (false, "STARTTLS".into()));
        assert_eq!(commands[2], (true, "EHLO razorback.test".into()));
        assert_eq!(commands[3], (true, mail.into()));
    }
}

#[test]
fn a_host_with_only_helo_under_tls_has_no_extensions() {
    let authority = Authority::new();
    let sink = with_tls(Offer::starttls(&authority.leaf(NAME, 300)));
    let sink = sink.when("EHLO", reply("250-sink.test\n250-SIZE 3\n250 STARTTLS"), 1).reply("EHLO", "500 what?");
    let remote = Remote::with(sink);
    let outcome = sender(&authority, RemoteTls::Required).0.send_one(&to(&remote, Scheme::Smtp));
    assert_eq!((outcome.fate, outcome.tls.name()), (Delivered, "TLS1.3"), "{outcome:?}");
}

#[test]
fn a_kept_connection_is_closed_when_the_policy_changes() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let remote = Remote::with(with_tls(Offer::starttls(&stranger.leaf(NAME, 300))));
    let (mut sender, _zone) = sender(&authority, RemoteTls::Opportunistic);
    let to = to(&remote, Scheme::Smtp);
    // The limit is longer than usual, since two megabytes may take a while on a busy machine.
    sender.config.remote.timeout = Duration::from_secs(20);
    sender.text = b"0123456789012345678901234567890\n".repeat(1 << 16);
    for _ in 0..3 {
        assert_eq!(sender.send_one(&to).tls.name(), "TLS1.3");
    }
    let messages = remote.messages(3);
    assert!(messages.iter().all(|m| m.tls && m.connection == 0 && m.data.len() == 33 << 16));
    sender.config.remote.tls = RemoteTls::Required;
    assert_eq!(sender.send_one(&to).fate, Deferred);
    assert_eq!(remote.look(|seen| (seen.connections, seen.messages.len())), (2, 3));
}

#[test]
fn an_ip_address_can_be_verified() {
    let authority = Authority::new();
    let remote = Remote::with(with_tls(Offer::implicit(&authority.leaf("127.0.0.1", 300))));
    let (mut sender, _zone) = sender(&authority, RemoteTls::Opportunistic);
    let host = HostPort { host: "127.0.0.1".into(), port: remote.address.port(), scheme: Scheme::Smtps };
    let outcome = sender.send_one(&HostTarget::hosts(vec![host]));
    assert_eq!((outcome.fate, outcome.tls.name()), (Delivered, "TLS1.3"), "{outcome:?}");
    assert_eq!(remote.look(|seen| seen.names.clone()), [""], "SNI has no addresses");
}

/// The host sends hostile octets in its handshake.
#[test]
fn a_hostile_handshake_ends_in_time() {
    let authority = Authority::new();
    // A TLS record with the beginning of a handshake message, of this type and this announced
    // length.
    let begins = |kind: u8, length: [u8; 3]| [&[0x16, 3, 3, 0, 4, kind][..], &length].concat();
    let hostile: [(&str, Vec<u8>, usize); 8] = [
        ("a message of 16 MB", begins(2, [0xff; 3]), 1),
        (
            "certificates without end",
            [begins(11, [0, 0xff, 0xff]), [&[0x16, 3, 3, 0x40, 0][..], &[0; 0x4000]].concat()].concat(),
            20_000,
        ),
        ("empty records", vec![0x16, 3, 3, 0, 0], 1_000_000),
        ("changes of the cipher", vec![0x14, 3, 3, 0, 1, 1], 1_000_000),
        ("warnings", vec![0x15, 3, 3, 0, 2, 1, 90], 1_000_000),
        ("a goodbye", vec![0x15, 3, 3, 0, 2, 1, 0], 1),
        ("words too early", vec![0x17, 3, 3, 0, 1, b'x'], 1_000_000),
        ("a record without end", vec![0x16, 3, 3, 0xff, 0xff], 1),
    ];
    for (what, octets, times) in hostile {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
        let port = listener.local_addr().expect("bound").port();
        let server = thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a client");
            let mut raw = stream.try_clone().expect("a descriptor");
            let mut wire = common::dialog::Wire::new(stream, false);
            wire.ask("220 evil.test").and_then(|_| wire.ask("250-evil.test\r\n250 STARTTLS")).expect("EHLO, STARTTLS");
            wire.send(b"220 go ahead\r\n").expect("it listens");
            std::io::Read::read(&mut raw, &mut [0; 4096]).expect("the beginning of a handshake");
            // The host sends exactly the octets that the client reads, and then nothing, but keeps
            // the connection open.
            let block = octets.repeat((1 << 14) / octets.len() + 1);
            let sent = (0..times.div_ceil(block.len() / octets.len()))
                .all(|_| raw.write_all(if times == 1 { &octets } else { &block }).is_ok());
            let _ = std::io::Read::read(&mut raw, &mut [0; 4096])
                .and_then(|_| std::io::Read::read_to_end(&mut raw, &mut Vec::new()));
            sent
        });
        let target = HostTarget::hosts(vec![HostPort { host: NAME.into(), port, scheme: Scheme::Smtp }]);
        let started = Instant::now();
        let outcome = sender(&authority, RemoteTls::Required).0.send_one(&target);
        assert_eq!(shown(&outcome), (Deferred, "4.7.5".into()), "{what}: {outcome:?}");
        assert!(outcome.why.starts_with("TLS is required: "), "{what}: {outcome:?}");
        assert!(started.elapsed() < 6 * LIMIT, "{what}: {:?}", started.elapsed());
        println!("{what}: {:?} {}", started.elapsed(), outcome.why);
        server.join().expect("a server");
    }
}

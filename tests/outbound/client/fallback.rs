//! The fallback hosts: for which failures of a destination they get the mail, and for which not.

use super::*;

/// Gives the client these fallback hosts.
fn fall_back(sender: &mut Sender, addresses: &[SocketAddr]) {
    let host = |a: &SocketAddr| HostPort { host: a.ip().to_string(), port: a.port(), scheme: Scheme::Smtp };
    sender.config.remote.fallback = addresses.iter().map(host).collect();
}

#[test]
fn mail_that_the_hosts_cannot_take_now_goes_to_the_fallback_host() {
    for (at, then, passes, fate) in [
        ("CONNECT", Then::Close, true, Delivered),
        ("CONNECT", Then::Hang, true, Delivered),
        ("CONNECT", reply("421 busy"), true, Delivered),
        ("CONNECT", reply("554 no"), true, Delivered),
        ("MAIL", reply("451 later"), true, Delivered),
        ("MAIL", reply("550 never"), false, Failed),
        ("RCPT", reply("450 greylisted"), true, Delivered),
        ("RCPT", reply("550 who?"), false, Failed),
        ("DATA", reply("451 later"), true, Delivered),
        (".", reply("451 later"), false, Deferred),
        (".", Then::Close, false, Deferred),
    ] {
        let (first, fallback) = (Remote::with(Sink::default().when(at, then.clone(), usize::MAX)), Remote::sink());
        let mut sender = Sender::new();
        fall_back(&mut sender, &[fallback.address]);
        let outcome = sender.send_one(&host(first.address));
        let about = format!("{at} {then:?}: {outcome:?}");
        assert_eq!((outcome.fate, fallback.look(|seen| seen.messages.len())), (fate, usize::from(passes)), "{about}");
        if passes {
            assert!(matches!(sender.contact, Contact::Answered(None, _)), "{about}: {:?}", sender.contact);
            assert!(outcome.host.ends_with(&fallback.address.port().to_string()), "{about}");
        }
    }
}

#[test]
fn only_recipients_that_no_host_has_decided_go_to_the_fallback_hosts() {
    let rules = Sink::default().reply("RCPT TO:<bad", "550 5.1.1 no").reply("RCPT TO:<busy", "450 later");
    let (first, fallback) = (Remote::with(rules), Remote::sink());
    let mut sender = Sender::new();
    fall_back(&mut sender, &[fallback.address]);
    let outcomes = sender.send_to(&host(first.address), &["bad@x.test", "busy@x.test", "good@x.test"]);
    assert_eq!(outcomes.iter().map(|o| o.fate).collect::<Vec<_>>(), [Failed, Delivered, Delivered]);
    assert_eq!(fallback.messages(1)[0].recipients, ["<busy@x.test>"]);
}

#[test]
fn the_next_message_asks_the_hosts_of_the_destination_first() {
    let (first, fallback) = (Remote::with(Sink::default().when("MAIL", reply("451 later"), 1)), Remote::sink());
    let mut sender = Sender::new();
    fall_back(&mut sender, &[fallback.address]);
    for _ in 0..2 {
        assert_eq!(sender.send_one(&host(first.address)).fate, Delivered);
    }
    assert_eq!((first.messages(1).len(), fallback.messages(1).len()), (1, 1));
    assert_eq!(fallback.look(|seen| seen.ended), 1, "the connection is not kept");
}

#[test]
fn hosts_of_the_dns_fall_back_too() {
    let closed = closed_port();
    for (zone, passes) in [
        ("x.test MX 10 a.test\na.test A 127.0.0.1", true),
        ("x.test SERVFAIL", true),
        ("x.test MX 10 a.test\na.test SERVFAIL", true),
        ("y.test A 127.0.0.1", false),
        ("x.test MX 0 .", false),
        // Mail that would come back to this host is a mistake of its domain or of ours.
        ("x.test MX 10 razorback.test\nrazorback.test A 127.0.0.1", false),
    ] {
        let (fallback, zone_server) = (Remote::sink(), NameServer::zone(zone));
        let mut sender = Sender::asking(&zone_server, Vec::new());
        fall_back(&mut sender, &[fallback.address]);
        let outcome = sender.send_one(&mx("x.test", closed));
        let fate = if passes { Delivered } else { Failed };
        assert_eq!((outcome.fate, fallback.look(|seen| seen.messages.len())), (fate, usize::from(passes)), "{zone}");
    }
}

#[test]
fn the_fallback_hosts_are_tried_in_order_without_this_host() {
    let (closed, good) = (SocketAddr::from((Ipv4Addr::LOCALHOST, closed_port())), Remote::sink());
    // This host listens there.
    let ours = Remote::sink();
    // Another host, which greets with the name of this one.
    let namesake = Sink { banner: "220 razorback.test ESMTP".to_owned(), ..Sink::default() };
    let namesake = Remote::with(namesake);
    let mut sender = Sender::with(config(NameServer::zone("").address), vec![ours.address]);
    fall_back(&mut sender, &[ours.address, namesake.address, closed, good.address]);
    assert_eq!(sender.send_one(&host(closed)).fate, Delivered);
    assert_eq!(good.messages(1).len(), 1);
    assert_eq!(ours.look(|seen| seen.connections), 0);
    assert_eq!(namesake.look(|seen| seen.messages.len()), 0);
    // If no fallback host answers either, the message waits, and the reason is that of its own hosts.
    fall_back(&mut sender, &[ours.address]);
    let outcome = sender.send_one(&host(closed));
    assert_eq!(outcome.fate, Deferred);
    assert!(matches!(&sender.contact, Contact::Unreachable(why) if why.host.contains(&closed.port().to_string())));
}

#[test]
fn a_store_and_a_host_that_must_be_encrypted_do_not_fall_back() {
    let closed = closed_port();
    let (fallback, plain) = (Remote::sink(), Remote::sink());
    let mut sender = Sender::new();
    fall_back(&mut sender, &[fallback.address]);
    assert_eq!(sender.send_one(&store(&format!("//127.0.0.1:{closed}"))).fate, Deferred);
    let encrypted = HostPort { host: "127.0.0.1".to_owned(), port: plain.address.port(), scheme: Scheme::StartTls };
    assert_eq!(sender.send_one(&HostTarget::hosts(vec![encrypted])).fate, Deferred);
    assert_eq!(fallback.look(|seen| seen.connections), 0);
}

#[test]
fn a_fallback_host_that_refuses_the_mail_leaves_it_waiting() {
    for (at, fate) in [("MAIL", Deferred), ("RCPT", Deferred), ("DATA", Deferred), (".", Failed)] {
        let first = Remote::with(Sink::default().reply("RCPT", "450 greylisted"));
        let refusing = Remote::with(Sink::default().when(at, reply("554 5.7.1 relaying denied"), usize::MAX));
        let mut sender = Sender::new();
        fall_back(&mut sender, &[refusing.address]);
        let outcome = sender.send_one(&host(first.address));
        assert_eq!((outcome.fate, outcome.why.contains("greylisted")), (fate, fate == Deferred), "{at}: {outcome:?}");
    }
}

#[test]
fn mail_that_waits_for_the_table_of_outgoing_mail_does_not_fall_back() {
    let (first, listener) = (Remote::sink(), TcpListener::bind((Ipv4Addr::new(127, 0, 0, 9), 0)).expect("loopback"));
    let fallback = Remote::start(listener, Conduct::Sink(Sink::default()));
    // The source address is checked before anything is sent.
    let elsewhere = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 25));
    for (address, line) in [(first.address, "127.0.0.1 rate=fast\n"), (elsewhere, "192.0.2.1 source=192.0.2.77\n")] {
        let table = Letter::new(line.as_bytes());
        let mut sender = Sender::new();
        fall_back(&mut sender, &[fallback.address]);
        sender.config.remote.outgoing = TableFile { path: table.0.clone(), required: true };
        let outcome = sender.send_one(&host(address));
        assert_eq!((outcome.fate, outcome.status.to_string().as_str()), (Deferred, "4.3.5"), "{line}{outcome:?}");
    }
    for remote in [&first, &fallback] {
        assert_eq!(remote.look(|seen| seen.connections), 0);
    }
}

#[test]
fn mail_that_has_come_back_from_a_fallback_host_waits() {
    let (closed, fallback) = (SocketAddr::from((Ipv4Addr::LOCALHOST, closed_port())), Remote::sink());
    let mut sender = Sender::new();
    fall_back(&mut sender, &[fallback.address]);
    let field =
        |host: &str| format!("Received: from x (x [192.0.2.1])\n\tby {host} (penfold) with ESMTP id 1K0;\n\tnow\n");
    let (ours, other) = (field("razorback.test"), field("two.test"));
    for (trace, fate) in [
        (format!("{ours}{other}"), Delivered),
        (format!("{ours}{other}{ours}"), Deferred),
        (format!("{ours}{other}{other}{ours}"), Deferred),
    ] {
        sender.text = format!("{trace}Subject: x\n\nhello\n").into_bytes();
        assert_eq!(sender.send_one(&host(closed)).fate, fate, "{trace}");
    }
    assert_eq!(fallback.messages(1).len(), 1);
}

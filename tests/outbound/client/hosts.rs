//! The choice of hosts by the SMTP client, and their order.

use super::*;

#[test]
fn the_next_host_is_tried_only_while_the_first_cannot_have_the_message() {
    for (at, then, passes) in [
        ("CONNECT", Then::Close, true),
        ("CONNECT", reply("554 no"), true),
        ("CONNECT", Then::Hang, true),
        ("EHLO", reply("421 bye"), true),
        ("MAIL", reply("451 later"), true),
        ("MAIL", reply("550 never"), false),
        ("RCPT", reply("450 greylisted"), true),
        ("RCPT", reply("550 who?"), false),
        ("RCPT", Then::Close, true),
        ("DATA", reply("421 bye"), true),
        ("DATA", reply("554 never"), false),
        ("BODY", Then::Close, false), // Short: the dot was sent with it.
        (".", Then::Close, false),
        (".", reply("451 later"), false),
    ] {
        let [one, two] = <[_; 2]>::try_from(listeners(2)).expect("two");
        let port = one.local_addr().expect("bound").port();
        let first = Remote::start(one, Conduct::Sink(Sink::default().when(at, then.clone(), usize::MAX)));
        let second = Remote::start(two, Conduct::Sink(Sink::default()));
        let zone = NameServer::zone(
            "example.test MX 20 b.test\nexample.test MX 10 a.test\na.test A 127.0.0.2\nb.test A 127.0.0.3",
        );
        let outcome = Sender::asking(&zone, Vec::new()).send_one(&mx("example.test", port));
        let about = format!("{at} {then:?}: {outcome:?}");
        assert_eq!(second.look(|seen| seen.messages.len()), usize::from(passes), "{about}");
        let tried = if passes { "b.test[127.0.0.3]" } else { "a.test[127.0.0.2]" };
        assert_eq!(*outcome.host, format!("{tried}:{port}"), "{about}");
        assert_eq!(first.look(|seen| seen.connections), 1, "{about}");
    }
}

#[test]
fn only_deferred_recipients_go_to_the_next_host() {
    let rules = Sink::default().reply("RCPT TO:<bad", "550 5.1.1 no").reply("RCPT TO:<busy", "450 later");
    let (first, second) = (Remote::with(rules), Remote::sink());
    let to = hosts(&[first.address, second.address]);
    let outcomes = Sender::new().send_to(&to, &["bad@x.test", "busy@x.test", "good@x.test"]);
    assert_eq!(outcomes.iter().map(|o| o.fate).collect::<Vec<_>>(), [Failed, Delivered, Delivered]);
    assert_eq!(first.messages(1)[0].recipients, ["<good@x.test>"]);
    assert_eq!(second.messages(1)[0].recipients, ["<busy@x.test>"]);
}

#[test]
fn the_host_with_the_most_progress_is_quoted() {
    let busy = Remote::with(Sink::default().reply("MAIL", "451 4.7.1 not now"));
    let nobody: SocketAddr = (Ipv4Addr::LOCALHOST, closed_port()).into();
    for order in [[busy.address, nobody], [nobody, busy.address]] {
        let outcome = Sender::new().send_one(&hosts(&order));
        assert_eq!(outcome.status.to_string(), "4.7.1", "{}", outcome.why);
    }
}

#[test]
fn equal_preferences_share_the_load() {
    let [one, two] = <[_; 2]>::try_from(listeners(2)).expect("two");
    let port = one.local_addr().expect("bound").port();
    let remotes = [one, two].map(|listener| Remote::start(listener, Conduct::Sink(Sink::default())));
    let zone = NameServer::zone("x.test MX 10 a.test\nx.test MX 10 b.test\na.test A 127.0.0.2\nb.test A 127.0.0.3");
    let mut sender = Sender::asking(&zone, Vec::new());
    // If the choice is random, it is practically impossible that 64 results in a row are equal.
    for _ in 0..64 {
        assert_eq!(sender.send_one(&mx("x.test", port)).fate, Delivered);
        sender.remote.close();
        if remotes.iter().all(|remote| remote.look(|seen| seen.connections > 0)) {
            return;
        }
    }
    panic!("one of two equal hosts got everything");
}

#[test]
fn every_address_of_a_host_is_tried() {
    let [one, two] = <[_; 2]>::try_from(listeners(2)).expect("two");
    let port = one.local_addr().expect("bound").port();
    drop(one);
    let remote = Remote::start(two, Conduct::Sink(Sink::default()));
    let zone = NameServer::zone("x.test MX 10 a.test\na.test A 127.0.0.2\na.test AAAA ::1\na.test A 127.0.0.3");
    let outcome = Sender::asking(&zone, Vec::new()).send_one(&mx("x.test", port));
    assert_eq!((outcome.fate, outcome.host.into_string()), (Delivered, format!("a.test[127.0.0.3]:{port}")));
    assert_eq!(remote.messages(1).len(), 1);
}

#[test]
fn the_dns_answer_decides() {
    let remote = Remote::sink();
    let port = remote.address.port();
    let zone = NameServer::zone(
        "good.test MX 10 mx.test
        implicit.test A 127.0.0.1
        alias.test CNAME good.test
        aliasmx.test MX 10 mxalias.test
        mxalias.test CNAME mx.test
        partly.test MX 10 servfail.test
        partly.test MX 20 mx.test
        stale.test MX 10 gone.test
        stale.test MX 20 mx.test
        large.test MX 10 mx.test
        large.test TRUNCATED
        servfail.test SERVFAIL
        silent.test SILENCE
        null.test MX 0 .
        notquitenull.test MX 0 .
        notquitenull.test MX 10 mx.test
        empty.test TXT nothing
        dangling.test MX 10 gone.test
        doubtful.test MX 10 gone.test
        doubtful.test MX 20 servfail.test
        nonsense.test MX 10 *.test
        zero.test MX 10 any.test
        any.test A 0.0.0.0
        mx.test A 127.0.0.1",
    );
    for (domain, fate, status, words) in [
        ("good.test", Delivered, "2.0.0", ""),
        ("implicit.test", Delivered, "2.0.0", ""),
        ("alias.test", Delivered, "2.0.0", ""),
        ("aliasmx.test", Delivered, "2.0.0", ""),
        ("partly.test", Delivered, "2.0.0", ""),
        ("stale.test", Delivered, "2.0.0", ""),
        ("large.test", Delivered, "2.0.0", ""),
        ("notquitenull.test", Delivered, "2.0.0", ""),
        ("[127.0.0.1]", Delivered, "2.0.0", ""),
        ("nowhere.test", Failed, "5.1.2", "nowhere.test: no such domain"),
        ("-.test", Failed, "5.1.2", "-.test: not a valid domain name"),
        ("empty.test", Failed, "5.1.2", "empty.test: the domain has no mail exchanger and no address"),
        ("null.test", Failed, "5.1.10", "null.test: the domain does not accept mail (null MX)"),
        (
            "dangling.test",
            Failed,
            "5.4.4",
            "gone.test, mail exchanger of dangling.test, has no address: no such domain",
        ),
        ("nonsense.test", Failed, "5.4.4", "nonsense.test: no mail exchanger has a name that a host can have"),
        ("zero.test", Failed, "5.4.4", "any.test, mail exchanger of zero.test, has no address: no such record"),
        ("doubtful.test", Deferred, "4.4.3", "servfail.test: the name server could not find out (SERVFAIL)"),
        ("servfail.test", Deferred, "4.4.3", "servfail.test: the name server could not find out (SERVFAIL)"),
        ("silent.test", Deferred, "4.4.3", "silent.test: the name server did not answer in time"),
    ] {
        let started = Instant::now();
        let outcome = Sender::asking(&zone, Vec::new()).send_one(&mx(domain, port));
        assert_eq!(shown(&outcome), (fate, status.to_owned()), "{domain}: {outcome:?}");
        if fate != Delivered {
            assert_eq!(outcome.why, words);
        }
        assert!(started.elapsed() < 5 * LIMIT, "{domain} took {:?}", started.elapsed());
    }
}

/// A DMARC report is such a message: strangers choose its recipient.
#[test]
fn a_message_for_public_hosts_only_is_sent_to_no_other_address() {
    let remote = Remote::start(TcpListener::bind("0.0.0.0:0").expect("a port"), Conduct::Sink(Sink::default()));
    let port = remote.address.port();
    let zone = NameServer::zone(
        "loop.test MX 10 a.test\na.test A 127.0.0.1\na.test AAAA ::1
        private.test MX 10 b.test\nb.test A 10.0.0.1\nb.test AAAA fd00::1
        near.test MX 10 c.test\nc.test A 169.254.1.1\nc.test A 192.168.1.1\nc.test AAAA fe80::1
        mapped.test AAAA ::ffff:127.0.0.1
        later.test MX 10 a.test\nlater.test MX 20 servfail.test\nservfail.test SERVFAIL
        with.test MX 10 a.test\nwith.test MX 10 servfail.test",
    );
    let asking = || Sender { only_public: true, ..Sender::asking(&zone, Vec::new()) };
    for (domain, fate, status) in [
        ("loop.test", Failed, "5.4.4"),
        ("private.test", Failed, "5.4.4"),
        ("near.test", Failed, "5.4.4"),
        ("mapped.test", Failed, "5.4.4"),
        ("[127.0.0.1]", Failed, "5.4.4"),
        ("[IPv6:fd00::1]", Failed, "5.4.4"),
        ("later.test", Deferred, "4.4.3"),
        ("with.test", Deferred, "4.4.3"),
    ] {
        let outcome = asking().send_one(&mx(domain, port));
        assert_eq!(shown(&outcome), (fate, status.to_owned()), "{domain}: {outcome:?}");
        if fate == Failed {
            assert_eq!(outcome.why, format!("{domain}: the mail hosts have only loopback, private or local addresses"));
        }
    }
    assert_eq!(remote.look(|seen| seen.connections), 0);
    // An open connection is no way there either, and stays open for other messages.
    let mut sender = Sender::asking(&zone, Vec::new());
    for (only_public, fate) in [(false, Delivered), (true, Failed), (false, Delivered)] {
        sender.only_public = only_public;
        assert_eq!(sender.send_one(&mx("loop.test", port)).fate, fate);
    }
    assert_eq!(remote.look(|seen| (seen.connections, seen.messages.len())), (1, 2));
    // The postmaster may choose any host.
    let host = HostPort { host: "127.0.0.1".into(), port, scheme: Scheme::Smtp };
    assert_eq!(asking().send_one(&HostTarget::hosts(vec![host])).fate, Delivered);
}

#[test]
fn a_nonexistent_smart_host_bounces_nothing() {
    let zone = NameServer::zone("");
    let to = HostTarget::hosts(vec![HostPort { host: "typo.test".into(), port: 25, scheme: Scheme::Smtp }]);
    let outcome = Sender::asking(&zone, Vec::new()).send_one(&to);
    assert_eq!(shown(&outcome), (Deferred, "4.4.4".into()));
    assert_eq!(outcome.why, "typo.test has no address: no such domain");
}

#[test]
fn smart_hosts_are_tried_in_order_by_name_and_address() {
    let remote = Remote::sink();
    let port = remote.address.port();
    let nobody = HostPort { host: "127.0.0.1".into(), port: closed_port(), scheme: Scheme::Smtp };
    let to = HostTarget::hosts(vec![nobody, HostPort { host: "localhost".into(), port, scheme: Scheme::Smtp }]);
    let outcome = Sender::new().send_one(&to);
    assert_eq!((outcome.fate, outcome.host.into_string()), (Delivered, format!("localhost[127.0.0.1]:{port}")));
}

#[test]
fn a_loop_to_this_host_is_recognized() {
    let [one, two] = <[_; 2]>::try_from(listeners(2)).expect("two");
    let port = one.local_addr().expect("bound").port();
    let greets = Sink { banner: "220 RAZORBACK.test ESMTP".into(), ..Sink::default() };
    let same_name = Remote::start(one, Conduct::Sink(greets));
    let other = Remote::start(two, Conduct::Sink(Sink::default()));
    let zone = NameServer::zone(
        "byname.test MX 10 razorback.test
        byname.test MX 10 other.test
        byaddress.test MX 10 ours.test
        byaddress.test MX 20 other.test
        bygreeting.test MX 10 double.test
        bygreeting.test MX 20 other.test
        backup.test MX 10 other.test
        backup.test MX 20 razorback.test
        down.test MX 10 down1.test
        down.test MX 20 razorback.test
        down1.test A 127.0.0.9
        razorback.test A 127.0.0.9
        ours.test A 127.0.0.8
        double.test A 127.0.0.2
        other.test A 127.0.0.3",
    );
    let ours: SocketAddr = (Ipv4Addr::new(127, 0, 0, 8), port).into();
    for (domain, want) in [
        ("byname.test", (Failed, "5.4.6")),
        ("razorback.test", (Failed, "5.4.6")),
        ("byaddress.test", (Failed, "5.4.6")),
        ("bygreeting.test", (Failed, "5.4.6")),
        ("backup.test", (Delivered, "2.0.0")),
        ("down.test", (Deferred, "4.4.1")),
    ] {
        let outcome = Sender::asking(&zone, vec![ours]).send_one(&mx(domain, port));
        assert_eq!(shown(&outcome), (want.0, want.1.to_owned()), "{domain}: {outcome:?}");
        if want.1 == "5.4.6" {
            assert_eq!(outcome.why, format!("mail for {domain} loops back to this host"));
        }
    }
    assert_eq!(other.look(|seen| seen.messages.len()), 1);
    assert_eq!(same_name.look(|seen| seen.messages.len()), 0);
}

#[test]
fn a_configured_host_may_have_our_name_but_not_our_address() {
    let banner = "220 razorback.test filter".to_owned();
    let remote = Remote::with(Sink { banner, ..Sink::default() });
    let everywhere: SocketAddr = (Ipv4Addr::UNSPECIFIED, remote.address.port()).into();
    let elsewhere: SocketAddr = (Ipv4Addr::UNSPECIFIED, closed_port()).into();
    for (local, want) in [(vec![], Delivered), (vec![elsewhere], Delivered), (vec![everywhere], Failed)] {
        let mut sender = Sender::asking(&NameServer::zone(""), local);
        assert_eq!(sender.send_one(&host(remote.address)).fate, want);
    }
}

//! Messages that need TLS (REQUIRETLS, RFC 8689): the hosts that get them, and what becomes of them
//! if no host may.

use super::*;
use common::remote::Offer;
use common::tls::Leaf;
use penfold::config::RemoteTls;

const NAME: &str = "mx.example.test";

/// A sender of messages that need TLS, which trusts `authority`.
fn sender(authority: &Authority) -> (Sender, NameServer) {
    let zone = NameServer::zone(
        "example.test MX 10 mx.example.test\nmx.example.test A 127.0.0.1\n\
         own.test MX 10 own.test\nown.test A 127.0.0.1\nplain.test A 127.0.0.1",
    );
    let mut sender = Sender::asking(&zone, Vec::new());
    sender.believe(authority);
    sender.demand = MessageTls::Required;
    (sender, zone)
}

fn smart_host(remote: &Remote, scheme: Scheme) -> HostTarget {
    HostTarget::hosts(vec![HostPort { host: NAME.into(), port: remote.address.port(), scheme }])
}

/// A host with this certificate, whose replies to EHLO have these keywords before and after
/// STARTTLS.
fn host_with(leaf: &Leaf, clear: &[&str], under_tls: &[&str]) -> Sink {
    let offer = Offer { keywords: Some(keywords(under_tls)), ..Offer::starttls(leaf) };
    Sink { tls: Some(offer), keywords: keywords(clear), ..Sink::default() }
}

/// The MAIL commands of a host, without the address.
fn mails(remote: &Remote) -> Vec<String> {
    let mail =
        |line: &str| line.strip_prefix("MAIL FROM:<").and_then(|line| line.split_once('>')).map(|two| two.1.to_owned());
    remote.look(|seen| seen.commands.iter().filter_map(|command| mail(&command.line)).collect())
}

#[test]
fn a_message_that_needs_tls_goes_to_a_proven_host_that_offers_requiretls() {
    let authority = Authority::new();
    for policy in [RemoteTls::None, RemoteTls::Opportunistic, RemoteTls::Required] {
        for scheme in [Scheme::Smtp, Scheme::StartTls, Scheme::Smtps] {
            let mut sink = host_with(&authority.leaf(NAME, 300), &[], &["SIZE", "REQUIRETLS"]);
            sink.tls.as_mut().expect("an offer").implicit = scheme == Scheme::Smtps;
            let remote = Remote::with(sink);
            let mut sender = sender(&authority).0;
            sender.config.remote.tls = policy;
            let outcome = sender.send_one(&smart_host(&remote, scheme));
            assert_eq!(outcome.fate, Delivered, "{policy:?} {scheme:?}: {outcome:?}");
            assert_eq!(mails(&remote), [" SIZE=21 REQUIRETLS"]);
            assert!(remote.messages(1)[0].tls && outcome.tls.is_verified());
        }
    }
}

#[test]
fn a_message_that_needs_tls_fails_if_the_host_cannot_prove_itself_or_has_no_requiretls() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let all: &[&str] = &["SIZE", "REQUIRETLS"];
    let valid = authority.leaf(NAME, 300);
    let required = "the message needs TLS (REQUIRETLS)";
    for (sink, status, words) in [
        (host_with(&valid, &[], &["SIZE"]), "5.7.30", "and the host does not offer REQUIRETLS"),
        // What a host says before TLS does not count.
        (host_with(&valid, all, &["SIZE"]), "5.7.30", "and the host does not offer REQUIRETLS"),
        (Sink { keywords: keywords(all), ..Sink::default() }, "5.7.10", "the host does not offer STARTTLS"),
        (Sink::default().reply("EHLO", "500 what?"), "5.7.10", "the host does not offer STARTTLS"),
        (host_with(&Leaf::selfmade(NAME), all, all), "5.7.10", "certificate"),
        (host_with(&stranger.leaf(NAME, 300), all, all), "5.7.10", "certificate"),
        (host_with(&authority.leaf("example.test", 300), all, all), "5.7.10", "certificate"),
        (host_with(&authority.leaf(NAME, -2), all, all), "5.7.10", "certificate"),
    ] {
        let remote = Remote::with(sink);
        let mut sender = sender(&authority).0;
        let outcome = sender.send_one(&smart_host(&remote, Scheme::Smtp));
        assert_eq!(shown(&outcome), (Failed, status.into()), "{words}: {outcome:?}");
        assert!(matches!(sender.contact, Contact::Answered(..)), "the host can get other mail: {:?}", sender.contact);
        assert!(outcome.why.starts_with(required) && outcome.why.contains(words), "{words}: {outcome:?}");
        assert_eq!((mails(&remote).len(), remote.look(|seen| seen.connections)), (0, 1), "{words}");
    }
}

#[test]
fn a_message_that_needs_tls_waits_if_tls_may_succeed_later() {
    let authority = Authority::new();
    for then in [reply("454 4.7.0 not today"), Then::Close, Then::Hang] {
        let sink = host_with(&authority.leaf(NAME, 300), &[], &["REQUIRETLS"]);
        let remote = Remote::with(sink.when("STARTTLS", then.clone(), usize::MAX));
        let mut sender = sender(&authority).0;
        let outcome = sender.send_one(&smart_host(&remote, Scheme::Smtp));
        assert_eq!(outcome.fate, Deferred, "{then:?}: {outcome:?}");
        assert!(matches!(sender.contact, Contact::Answered(..)), "the host can get other mail: {:?}", sender.contact);
        assert_eq!((mails(&remote).len(), remote.look(|seen| seen.connections)), (0, 1), "{then:?}");
    }
}

/// Without DNSSEC and MTA-STS, only the domain's own name is known to be a host of the domain.
#[test]
fn a_mail_exchanger_must_be_known_to_be_a_host_of_the_domain() {
    let authority = Authority::new();
    for (domain, name, is_known) in
        [("example.test", NAME, false), ("own.test", "own.test", true), ("plain.test", "plain.test", true)]
    {
        let remote = Remote::with(host_with(&authority.leaf(name, 300), &[], &["REQUIRETLS"]));
        let (mut sender, _zone) = sender(&authority);
        let outcome = sender.send_one(&mx(domain, remote.address.port()));
        if is_known {
            assert_eq!(outcome.fate, Delivered, "{domain}: {outcome:?}");
            assert_eq!(mails(&remote), [" REQUIRETLS"]);
        } else {
            assert_eq!(shown(&outcome), (Failed, "5.7.10".into()), "{domain}: {outcome:?}");
            let words = "neither DNSSEC nor MTA-STS proves that mx.example.test is a host of example.test";
            assert!(outcome.why.contains(words), "{outcome:?}");
            assert_eq!(remote.look(|seen| seen.connections), 0);
        }
    }
}

#[test]
fn every_host_is_tried_for_a_message_that_needs_tls() {
    let authority = Authority::new();
    let leaf = |address: &str| authority.leaf(address, 300);
    let able = |address: &str| Conduct::Sink(host_with(&leaf(address), &[], &["REQUIRETLS"]));
    let plain = || Conduct::Sink(Sink::default());
    let mut all = listeners(2).into_iter();
    let mut start = |conduct| Remote::start(all.next().expect("a listener"), conduct);
    let (first, second) = (start(plain()), start(able("127.0.0.3")));
    let to = hosts(&[first.address, second.address]);
    let outcome = sender(&authority).0.send_one(&to);
    assert_eq!(outcome.fate, Delivered, "{outcome:?}");
    assert_eq!((mails(&first).len(), mails(&second)), (0, vec![" REQUIRETLS".to_owned()]));
    // The host that is down now may be able to take the message.
    let down = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 9), closed_port()));
    for to in [hosts(&[down, first.address]), hosts(&[first.address, down])] {
        let outcome = sender(&authority).0.send_one(&to);
        assert_eq!(outcome.fate, Deferred, "{outcome:?}");
    }
    assert!(mails(&first).is_empty());
}

#[test]
fn a_report_is_sent_even_where_a_message_that_needs_tls_is_not() {
    let authority = Authority::new();
    let valid = || authority.leaf(NAME, 300);
    let all: &[&str] = &["REQUIRETLS"];
    for (sink, policy, mail) in [
        (host_with(&valid(), &[], all), RemoteTls::Required, " REQUIRETLS"),
        (host_with(&valid(), &[], &[]), RemoteTls::Required, ""),
        (host_with(&valid(), &[], all), RemoteTls::Opportunistic, " REQUIRETLS"),
        (host_with(&valid(), &[], all), RemoteTls::None, " REQUIRETLS"),
        // Nobody knows who reads it, so the parameter would promise too much.
        (host_with(&Leaf::selfmade(NAME), &[], all), RemoteTls::Opportunistic, ""),
        (Sink { keywords: keywords(all), ..Sink::default() }, RemoteTls::Opportunistic, ""),
    ] {
        let remote = Remote::with(sink);
        let mut sender = sender(&authority).0;
        (sender.sender, sender.config.remote.tls) = (String::new(), policy);
        let outcome = sender.send_one(&smart_host(&remote, Scheme::Smtp));
        assert_eq!(outcome.fate, Delivered, "{outcome:?}");
        assert_eq!(mails(&remote), [mail], "{policy:?}");
    }
}

#[test]
fn a_mail_store_on_this_host_gets_messages_that_need_tls() {
    let authority = Authority::new();
    for words in [&[][..], &["REQUIRETLS"]] {
        let remote = Remote::with(Sink { keywords: keywords(words), ..Sink::store() });
        let outcome = sender(&authority).0.send_one(&store(&format!("//{}", remote.address)));
        assert_eq!(outcome.fate, Delivered, "{outcome:?}");
        assert_eq!(mails(&remote), [""]);
    }
}

#[test]
fn an_open_connection_is_not_used_for_a_message_with_another_demand() {
    let authority = Authority::new();
    let remote = Remote::with(host_with(&authority.leaf(NAME, 300), &[], &["REQUIRETLS"]));
    let to = smart_host(&remote, Scheme::Smtp);
    let mut sender = sender(&authority).0;
    for (demand, connection, mail) in [
        (MessageTls::Default, 0, ""),
        (MessageTls::Default, 0, ""),
        (MessageTls::Required, 1, " REQUIRETLS"),
        (MessageTls::Required, 1, " REQUIRETLS"),
        (MessageTls::Indifferent, 2, ""),
        (MessageTls::Default, 3, ""),
    ] {
        sender.demand = demand;
        assert_eq!(sender.send_one(&to).fate, Delivered, "{demand:?}");
        let last = remote.look(|seen| seen.messages.last().expect("a message").connection);
        assert_eq!((last, mails(&remote).pop().as_deref()), (connection, Some(mail)), "{demand:?}");
    }
}

/// TLS fails once, so the report goes without. The next message must not follow it.
#[test]
fn the_connection_of_a_report_is_not_used_for_a_message_that_needs_tls() {
    let authority = Authority::new();
    let sink = host_with(&authority.leaf(NAME, 300), &[], &["REQUIRETLS"]);
    let remote = Remote::with(sink.when("STARTTLS", reply("454 4.7.0 not now"), 1));
    let to = smart_host(&remote, Scheme::Smtp);
    let mut sender = sender(&authority).0;
    for (from, mail) in [("", ""), ("jon@razorback.test", " REQUIRETLS"), ("", " REQUIRETLS")] {
        sender.sender = from.to_owned();
        let outcome = sender.send_one(&to);
        assert_eq!((outcome.fate, mails(&remote).pop().as_deref()), (Delivered, Some(mail)), "{from}: {outcome:?}");
    }
}

#[cfg(feature = "mta-sts")]
#[test]
fn a_message_that_needs_tls_waits_while_the_mta_sts_policy_is_not_known() {
    let authority = Authority::new();
    for (record, fate, status) in [
        ("_mta-sts.example.test TXT v=STSv1; id=1", Deferred, "4.7.10"),
        ("_mta-sts.example.test SERVFAIL", Deferred, "4.7.10"),
        ("_mta-sts.example.test TXT v=other", Failed, "5.7.10"),
        ("", Failed, "5.7.10"),
    ] {
        let remote = Remote::with(host_with(&authority.leaf(NAME, 300), &[], &["REQUIRETLS"]));
        let zone = NameServer::zone(&format!("example.test MX 10 {NAME}\n{NAME} A 127.0.0.1\n{record}"));
        let mut sender = Sender::asking(&zone, Vec::new());
        sender.believe(&authority);
        (sender.demand, sender.config.remote.mta_sts) = (MessageTls::Required, true);
        // The second attempt finds what the first one has noted.
        for _ in 0..2 {
            let outcome = sender.send_one(&mx("example.test", remote.address.port()));
            assert_eq!(shown(&outcome), (fate, status.into()), "{record}: {outcome:?}");
            assert!(matches!(sender.contact, Contact::None), "other mail need not wait: {:?}", sender.contact);
        }
        assert_eq!(remote.look(|seen| seen.connections), 0);
    }
}

/// Secure MX records show that a host is one of the domain. Then its certificate is verified by its
/// TLSA records or, if it has none, by an authority.
#[test]
fn dnssec_proves_that_a_mail_exchanger_is_a_host_of_the_domain() {
    let authority = Authority::new();
    for (is_secure, has_records, leaf, status) in [
        (true, true, Leaf::selfmade("else.test"), None),
        (true, false, authority.leaf(NAME, 300), None),
        (true, false, Leaf::selfmade(NAME), Some("5.7.10")),
        // TLSA records of a host that an attacker has put into the MX records.
        (false, true, Leaf::selfmade("else.test"), Some("5.7.10")),
        (false, true, authority.leaf(NAME, 300), Some("5.7.10")),
    ] {
        let remote = Remote::with(host_with(&leaf, &[], &["REQUIRETLS"]));
        let tlsa = format!("_{}._tcp.{NAME}", remote.address.port());
        let records = if has_records {
            format!("{tlsa} SECURE\n{tlsa} TLSA {}", leaf.association([3, 0, 0]))
        } else {
            String::new()
        };
        let mx_records = format!("{}example.test MX 10 {NAME}", if is_secure { "example.test SECURE\n" } else { "" });
        let zone = NameServer::zone(&format!("{mx_records}\n{NAME} SECURE\n{NAME} A 127.0.0.1\n{records}"));
        let mut sender = Sender::asking(&zone, Vec::new());
        sender.believe(&authority);
        sender.demand = MessageTls::Required;
        let outcome = sender.send_one(&mx("example.test", remote.address.port()));
        let about = format!("{is_secure} {has_records}: {outcome:?}");
        match status {
            None => assert_eq!((outcome.fate, mails(&remote)), (Delivered, vec![" REQUIRETLS".to_owned()]), "{about}"),
            Some(status) => assert_eq!(shown(&outcome), (Failed, status.into()), "{about}"),
        }
        assert_eq!(status.is_none(), remote.look(|seen| !seen.messages.is_empty()), "{about}");
    }
}

/// The field `TLS-Required: No`: what the domain publishes does not keep the message back.
#[test]
fn a_message_that_needs_no_tls_is_sent_in_spite_of_tlsa_records() {
    for (demand, fate) in [(MessageTls::Default, Deferred), (MessageTls::Indifferent, Delivered)] {
        for sink in [Sink::default(), host_with(&Leaf::selfmade(NAME), &[], &[])] {
            let has_tls = sink.tls.is_some();
            let remote = Remote::with(sink);
            let tlsa = format!("_{}._tcp.{NAME}", remote.address.port());
            let records = format!("{tlsa} SECURE\n{tlsa} TLSA {}", Leaf::selfmade(NAME).association([3, 0, 0]));
            let zone = format!("example.test SECURE\nexample.test MX 10 {NAME}\n{NAME} SECURE\n{NAME} A 127.0.0.1\n");
            let zone = NameServer::zone(&(zone + &records));
            let mut sender = Sender::asking(&zone, Vec::new());
            sender.demand = demand;
            let outcome = sender.send_one(&mx("example.test", remote.address.port()));
            assert_eq!(outcome.fate, fate, "{demand:?}: {outcome:?}");
            // TLS is used where it is offered.
            assert!(fate != Delivered || remote.messages(1)[0].tls == has_tls);
        }
    }
}

//! DANE: hosts that are verified by their TLSA records (RFC 7672).

use super::*;
use common::remote::Offer;
use common::tls::Leaf;
use penfold::config::RemoteTls;
use trust_dns_resolver::proto::rr::RecordType;

const NAME: &str = "mx.signed.test";
/// The usual kinds of records: the key of the host, and the certificate of the authority.
const EE: [u8; 3] = [3, 1, 1];
const TA: [u8; 3] = [2, 0, 0];

/// A zone with DNSSEC: the domain `signed.test` with the exchanger [`NAME`], and further lines.
fn zone(further: &str) -> String {
    format!("signed.test SECURE\nsigned.test MX 10 {NAME}\n{NAME} SECURE\n{NAME} A 127.0.0.1\n{further}")
}

/// The lines of TLSA records for a port of a host, in a zone with DNSSEC.
fn tlsa(host: &str, remote: &Remote, records: &[String]) -> String {
    let owner = format!("_{}._tcp.{host}", remote.address.port());
    let records: String = records.iter().map(|record| format!("{owner} TLSA {record}\n")).collect();
    format!("{owner} SECURE\n{records}")
}

fn offering(leaf: &Leaf) -> Remote {
    Remote::with(Sink { tls: Some(Offer::starttls(leaf)), ..Sink::default() })
}

fn domain(remote: &Remote) -> HostTarget {
    mx("signed.test", remote.address.port())
}

/// A client that asks a name server with this zone.
fn sender(zone: &str) -> (Sender, NameServer) {
    let server = NameServer::zone(zone);
    (Sender::asking(&server, Vec::new()), server)
}

/// Sends a message. Returns the outcome, and the types that were asked for.
fn send(zone: &str, to: &HostTarget) -> (Outcome, Vec<RecordType>) {
    let (mut sender, server) = sender(zone);
    let outcome = sender.send_one(to);
    (outcome, server.asked().into_iter().map(|(_, kind)| kind).collect())
}

/// Asserts that the message was sent with TLS.
fn assert_sent(remote: &Remote, outcome: &Outcome, about: &str) {
    assert_eq!(outcome.fate, Delivered, "{about}: {outcome:?}");
    assert!(remote.messages(1)[0].tls, "{about}");
}

/// Asserts that the message waits for this reason, and that nothing of it was sent.
fn assert_waits(remote: &Remote, outcome: &Outcome, words: &str) {
    assert_eq!(shown(outcome), (Deferred, "4.7.5".into()), "{words}: {outcome:?}");
    assert!(outcome.why.contains(words) && !outcome.why.contains("InvalidCertificate"), "{words}: {outcome:?}");
    remote.look(|seen| assert!(seen.commands.iter().all(|command| !command.line.starts_with("MAIL")), "{words}"));
}

#[test]
fn a_host_must_match_its_records() {
    let authority = Authority::new();
    for (what, leaf, records, waits) in [
        (
            "own",
            Leaf::selfmade("else.test"),
            &(|leaf: &Leaf| vec![leaf.association(EE)]) as &dyn Fn(&Leaf) -> Vec<String>,
            None,
        ),
        (
            "old and next",
            Leaf::selfmade("x.test"),
            &|leaf| vec![Leaf::selfmade("x.test").association(EE), leaf.association(EE)],
            None,
        ),
        ("authority", authority.leaf(NAME, 300), &|_| vec![authority.association(TA)], None),
        ("for the domain", authority.leaf("signed.test", 300), &|_| vec![authority.association(TA)], None),
        (
            "for another",
            authority.leaf("a.test", 300),
            &|_| vec![authority.association(TA)],
            Some("not valid for name"),
        ),
        ("expired", authority.leaf(NAME, -2), &|_| vec![authority.association(TA)], Some("the certificate expired on")),
        ("other", Leaf::selfmade(NAME), &|_| vec![Leaf::selfmade(NAME).association(EE)], Some("no TLSA record")),
        ("unusable", Leaf::selfmade("x.test"), &|_| vec!["0 0 1 00".to_owned(), "3 1 9 00".to_owned()], None),
    ] {
        let remote = offering(&leaf);
        let (outcome, asked) = send(&zone(&tlsa(NAME, &remote, &records(&leaf))), &domain(&remote));
        match waits {
            None => {
                assert_sent(&remote, &outcome, what);
                assert_eq!(remote.look(|seen| seen.names.clone()), [NAME], "{what}");
            }
            Some(words) => assert_waits(&remote, &outcome, words),
        }
        assert_eq!(asked.iter().filter(|kind| **kind == RecordType::TLSA).count(), 1, "{what}");
    }
}

#[test]
fn a_host_with_records_never_gets_plaintext() {
    for records in [vec![Leaf::selfmade(NAME).association(EE)], vec!["1 1 1 00".to_owned()]] {
        // An attacker removes STARTTLS from the reply.
        let remote = Remote::sink();
        let (outcome, _) = send(&zone(&tlsa(NAME, &remote, &records)), &domain(&remote));
        assert_eq!(shown(&outcome), (Deferred, "4.7.4".into()), "{outcome:?}");
        assert_eq!(outcome.why, "TLS is required: the host does not offer STARTTLS");
    }
}

#[test]
fn a_host_whose_records_cannot_be_looked_up_is_not_used() {
    let leaf = Leaf::selfmade(NAME);
    for word in ["SERVFAIL", "SILENCE"] {
        let remote = offering(&leaf);
        let lines = format!("{NAME} AAAA ::1\n_{}._tcp.{NAME} {word}", remote.address.port());
        let (outcome, asked) = send(&zone(&lines), &domain(&remote));
        assert_waits(&remote, &outcome, &format!("the look-up of the TLSA records of {NAME} failed: "));
        assert_eq!(remote.look(|seen| seen.connections), 0);
        // The look-up is made once for all addresses of the host.
        let count = asked.iter().filter(|kind| **kind == RecordType::TLSA).count();
        assert!(count == 1 || word == "SILENCE", "{word}: {count}");
    }
    // Another host of the domain is used.
    let (remote, second) = (offering(&leaf), "second.signed.test");
    let (bad, good) =
        (format!("_{}._tcp.{NAME} SERVFAIL\n", remote.address.port()), tlsa(second, &remote, &[leaf.association(EE)]));
    let lines = format!("signed.test MX 20 {second}\n{second} SECURE\n{second} A 127.0.0.1\n{bad}{good}");
    let (outcome, _) = send(&zone(&lines), &domain(&remote));
    assert_sent(&remote, &outcome, "the second host");
    assert_eq!(remote.look(|seen| seen.connections), 1);
}

/// Without DNSSEC, with DANE off and with servers that are not trusted, nothing more is asked.
#[test]
fn records_count_only_if_they_are_secure() {
    let wrong = Leaf::selfmade(NAME).association(EE);
    let insecure = |text: &str| text.replace(&format!("{NAME} SECURE\n"), "");
    type Change = fn(&mut Sender);
    let off: Change = |sender| sender.config.remote.dane = false;
    let none: Change = |sender| sender.config.remote.tls = RemoteTls::None;
    let no_change: Change = |_| {};
    for (about, is_secure, change, asks) in [
        ("insecure host", false, no_change, 0),
        ("off", true, off, 0),
        ("no TLS", true, none, 0),
        ("on", true, no_change, 1),
    ] {
        let remote = offering(&Leaf::selfmade(NAME));
        let text = zone(&tlsa(NAME, &remote, std::slice::from_ref(&wrong)));
        let (mut sender, server) = sender(&if is_secure { text } else { insecure(&text) });
        change(&mut sender);
        let outcome = sender.send_one(&domain(&remote));
        let asked = server.asked().iter().filter(|(_, kind)| *kind == RecordType::TLSA).count();
        assert_eq!((outcome.fate == Delivered, asked), (asks == 0, asks), "{about}: {outcome:?}");
    }
    // The records themselves are not secure, or a server that is not trusted says that they are.
    let remote = offering(&Leaf::selfmade(NAME));
    let owner = format!("_{}._tcp.{NAME}", remote.address.port());
    let text = zone(&format!("{owner} TLSA {wrong}"));
    let (outcome, _) = send(&text, &domain(&remote));
    assert_sent(&remote, &outcome, "an insecure delegation");
    let server = NameServer::zone(&zone(&tlsa(NAME, &remote, std::slice::from_ref(&wrong))));
    let mut sender = Sender::not_trusting(&server);
    assert_eq!(sender.send_one(&domain(&remote)).fate, Delivered);
    assert_eq!(server.asked_for_dnssec(), []);
    assert!(server.asked().iter().all(|(_, kind)| *kind != RecordType::TLSA));
}

/// RFC 7672 2.2.1: with insecure MX records, the records of a secure host count all the same.
#[test]
fn insecure_mx_records_do_not_switch_dane_off() {
    for (is_right, fate) in [(true, Delivered), (false, Deferred)] {
        let leaf = Leaf::selfmade(NAME);
        let remote = offering(&leaf);
        let record = if is_right { leaf.association(EE) } else { Leaf::selfmade(NAME).association(EE) };
        let text =
            zone(&tlsa(NAME, &remote, &[record])).replace("signed.test SECURE\nsigned.test MX", "signed.test MX");
        let (outcome, _) = send(&text, &domain(&remote));
        assert_eq!(outcome.fate, fate, "{outcome:?}");
    }
}

/// RFC 7672 2.2.2.
#[test]
fn records_are_at_the_end_of_the_aliases_or_at_the_name() {
    let leaf = Leaf::selfmade(NAME);
    let (right, wrong) = (vec![leaf.association(EE)], vec![Leaf::selfmade(NAME).association(EE)]);
    let (alias, end) = ("alias.signed.test", "end.signed.test");
    for (about, is_end_secure, at_end, at_alias, sent, name) in [
        ("at the end", true, Some(&right), Some(&wrong), true, end),
        ("wrong at the end", true, Some(&wrong), Some(&right), false, end),
        ("at the name", true, None, Some(&right), true, alias),
        ("wrong at the name", true, None, Some(&wrong), false, alias),
        ("the end is insecure", false, Some(&wrong), Some(&right), true, alias),
        ("the end is insecure, wrong at the name", false, Some(&right), Some(&wrong), false, alias),
    ] {
        let remote = offering(&leaf);
        let mut text = format!("signed.test SECURE\nsigned.test MX 10 {alias}\n{alias} SECURE\n{alias} CNAME {end}\n");
        text += &format!("{end} A 127.0.0.1\n");
        if is_end_secure {
            text += &format!("{end} SECURE\n");
        }
        for (host, records) in [(end, at_end), (alias, at_alias)] {
            text += &records.map_or(String::new(), |records| tlsa(host, &remote, records));
        }
        let (outcome, _) = send(&text, &domain(&remote));
        match sent {
            true => {
                assert_sent(&remote, &outcome, about);
                assert_eq!(remote.look(|seen| seen.names.clone()), [name], "{about}");
            }
            false => assert_waits(&remote, &outcome, "no TLSA record"),
        }
    }
    // The TLSA records may be behind an alias themselves.
    let remote = offering(&leaf);
    let owner = format!("_{}._tcp.{NAME}", remote.address.port());
    let lines = format!("{owner} SECURE\n{owner} CNAME tlsa.signed.test\ntlsa.signed.test SECURE\n");
    for (record, sent) in [(&right, true), (&wrong, false)] {
        let (outcome, _) = send(&zone(&format!("{lines}tlsa.signed.test TLSA {}", record[0])), &domain(&remote));
        assert_eq!(outcome.fate == Delivered, sent, "{outcome:?}");
    }
}

#[test]
fn a_domain_without_mx_records_and_a_smart_host_have_records_too() {
    let leaf = Leaf::selfmade("x.test");
    let smart = |remote: &Remote, host: &str, scheme| {
        HostTarget::hosts(vec![HostPort { host: host.to_owned(), port: remote.address.port(), scheme }])
    };
    for (record, sent) in [(leaf.association(EE), true), (Leaf::selfmade("x.test").association(EE), false)] {
        let remote = offering(&leaf);
        let text = zone(&tlsa(NAME, &remote, &[record]));
        for policy in [RemoteTls::Opportunistic, RemoteTls::Required] {
            let mut sender = sender(&text).0;
            sender.config.remote.tls = policy;
            let outcome = sender.send_one(&smart(&remote, NAME, Scheme::Smtp));
            assert_eq!(outcome.fate == Delivered, sent, "{policy:?}: {outcome:?}");
        }
    }
    let remote = offering(&leaf);
    let (outcome, _) = send(&zone(&tlsa(NAME, &remote, &[leaf.association(EE)])), &mx(NAME, remote.address.port()));
    assert_sent(&remote, &outcome, "no MX records");
    // If a valid certificate is required, unusable records do not change that.
    let mut strict = sender(&zone(&tlsa(NAME, &remote, &["0 0 1 00".into()]))).0;
    strict.config.remote.tls = RemoteTls::Required;
    strict.believe(&Authority::new());
    let outcome = strict.send_one(&smart(&remote, NAME, Scheme::Smtp));
    assert_eq!(shown(&outcome), (Deferred, "4.7.5".into()), "{outcome:?}");
    // A scheme that requires TLS says how the host is verified.
    let authority = Authority::new();
    let remote = offering(&authority.leaf(NAME, 300));
    let (mut by_scheme, server) = sender(&zone(&tlsa(NAME, &remote, &[Leaf::selfmade("x.test").association(EE)])));
    by_scheme.believe(&authority);
    assert_eq!(by_scheme.send_one(&smart(&remote, NAME, Scheme::StartTls)).fate, Delivered);
    assert!(server.asked().iter().all(|(_, kind)| *kind != RecordType::TLSA));
    // Addresses have no records.
    let (outcome, asked) =
        send(&zone(&tlsa(NAME, &remote, &[leaf.association(EE)])), &smart(&remote, "127.0.0.1", Scheme::Smtp));
    assert_eq!((outcome.fate, asked), (Delivered, Vec::new()), "{outcome:?}");
}

/// The cost for a host without DNSSEC: the same questions as without DANE.
#[test]
fn a_host_without_dnssec_costs_no_query() {
    let text = format!("plain.test MX 10 {NAME}\n{NAME} A 127.0.0.1\n");
    let asked = |dane| {
        let remote = offering(&Leaf::selfmade(NAME));
        let (mut sender, server) = sender(&text);
        sender.config.remote.dane = dane;
        assert_eq!(sender.send_one(&mx("plain.test", remote.address.port())).fate, Delivered);
        let mut asked: Vec<_> = server.asked().into_iter().map(|(name, kind)| (name, kind.to_string())).collect();
        asked.sort();
        asked
    };
    assert_eq!(asked(true), asked(false));
    assert_eq!(asked(true).len(), 3);
}

/// The level `dane` of the table, and the level `opportunistic` in spite of records.
#[test]
fn the_table_can_require_dane_or_switch_it_off() {
    let leaf = Leaf::selfmade(NAME);
    let (right, wrong) = (leaf.association(EE), Leaf::selfmade(NAME).association(EE));
    let remote = offering(&leaf);
    let with = |record: &String| zone(&tlsa(NAME, &remote, std::slice::from_ref(record)));
    let insecure_mx = with(&right).replace("signed.test SECURE\nsigned.test MX", "signed.test MX");
    for (level, text, trusted, want) in [
        ("dane", with(&right), true, Ok("dane")),
        ("dane", with(&wrong), true, Err("no TLSA record")),
        ("dane", zone(""), true, Err("DANE is required: mx.signed.test has no secure TLSA records")),
        ("dane", with(&"0 1 1 00".to_owned()), true, Err("DANE is required: mx.signed.test has no usable")),
        ("dane", insecure_mx, true, Err("DANE is required: the MX records of the domain are not secure")),
        ("dane", with(&right), false, Err("DANE is required: remote.dane is false, or no trusted name server")),
        ("opportunistic", with(&wrong), true, Ok("")),
    ] {
        let server = NameServer::zone(&text);
        let mut sender = if trusted { Sender::asking(&server, Vec::new()) } else { Sender::not_trusting(&server) };
        sender.rule(&format!("signed.test {level}\n"));
        let outcome = sender.send_one(&domain(&remote));
        match want {
            Ok(verified) => assert_eq!((outcome.fate, outcome.tls.verified_by()), (Delivered, verified), "{level}"),
            Err(words) => {
                assert_eq!(shown(&outcome), (Deferred, "4.7.5".into()), "{words}: {outcome:?}");
                assert!(outcome.why.contains(words), "{words}: {outcome:?}");
            }
        }
    }
}

/// RFC 8689: a message can need a host that is proved, or go without what the host publishes.
#[test]
fn messages_can_need_or_ignore_dane() {
    let leaf = Leaf::selfmade(NAME);
    let (right, wrong) = (leaf.association(EE), Leaf::selfmade(NAME).association(EE));
    let insecure_mx = |text: String| text.replace("signed.test SECURE\nsigned.test MX", "signed.test MX");
    for (about, demand, record, is_mx_secure, want) in [
        ("needs, and has", MessageTls::Required, &right, true, Ok("dane")),
        ("needs, and has not", MessageTls::Required, &wrong, true, Err((Failed, "5.7.10"))),
        ("needs, and the MX records may be forged", MessageTls::Required, &right, false, Err((Failed, "5.7.10"))),
        ("ignores", MessageTls::Indifferent, &wrong, true, Ok("")),
    ] {
        let offer = Offer { keywords: Some(keywords(&["REQUIRETLS"])), ..Offer::starttls(&leaf) };
        let remote = Remote::with(Sink { tls: Some(offer), ..Sink::default() });
        let text = zone(&tlsa(NAME, &remote, std::slice::from_ref(record)));
        let (mut sender, _server) = sender(&if is_mx_secure { text } else { insecure_mx(text) });
        sender.demand = demand;
        let outcome = sender.send_one(&domain(&remote));
        match want {
            Ok(verified) => assert_eq!((outcome.fate, outcome.tls.verified_by()), (Delivered, verified), "{about}"),
            Err((fate, status)) => assert_eq!(shown(&outcome), (fate, status.to_owned()), "{about}: {outcome:?}"),
        }
    }
}

/// Records are kept for their lifetime: the second message asks nothing.
#[test]
fn records_are_kept() {
    let leaf = Leaf::selfmade(NAME);
    let remote = offering(&leaf);
    let (mut sender, server) = sender(&zone(&tlsa(NAME, &remote, &[leaf.association(EE)])));
    for _ in 0..2 {
        assert_eq!(sender.send_one(&domain(&remote)).fate, Delivered);
        sender.remote.close();
    }
    let asked = server.asked().iter().filter(|(_, kind)| *kind == RecordType::TLSA).count();
    assert_eq!(asked, 1);
}

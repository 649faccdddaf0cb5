//! Names and addresses, from the DNS.

use super::*;

#[test]
fn a_client_has_a_name_only_if_it_leads_back() {
    let zone = NameServer::zone(
        "1.2.0.192.in-addr.arpa PTR good.test
        good.test A 192.0.2.1
        2.2.0.192.in-addr.arpa PTR good.test
        3.2.0.192.in-addr.arpa SILENCE
        4.2.0.192.in-addr.arpa PTR first.test
        4.2.0.192.in-addr.arpa PTR second.test
        first.test SERVFAIL
        second.test A 192.0.2.4
        5.2.0.192.in-addr.arpa PTR -bad.test",
    );
    let sender = Sender::asking(&zone, Vec::new());
    for (address, want) in [
        ("192.0.2.1", Some("good.test")),
        ("::ffff:192.0.2.1", Some("good.test")),
        ("192.0.2.2", None),
        ("192.0.2.3", None),
        ("192.0.2.4", Some("second.test")),
        ("192.0.2.5", None),
        ("192.0.2.6", None),
    ] {
        let begun = Instant::now();
        let name = sender.dns.verified_name(address.parse().expect("an address"));
        assert_eq!(name.as_deref(), want, "{address}");
        assert!(begun.elapsed() < 3 * LIMIT);
    }
    let asked = zone.asked().len();
    for address in ["127.0.0.1", "127.3.2.1", "::1"] {
        assert_eq!(sender.dns.verified_name(address.parse().expect("an address")).as_deref(), Some("localhost"));
    }
    assert_eq!(zone.asked().len(), asked, "loopback is not asked for");
}

#[test]
fn no_server_and_no_answer_take_the_limit_and_no_more() {
    let closed: SocketAddr = (Ipv4Addr::LOCALHOST, closed_port()).into();
    let dns = Dns::new(&penfold::config::Dns { nameservers: vec![closed; 3], timeout: LIMIT });
    let begun = Instant::now();
    let trouble = dns.addresses("x.test").expect_err("nobody answers");
    assert!(matches!(trouble, NoAnswer::Timeout | NoAnswer::Other(_)), "{trouble:?}");
    assert!(begun.elapsed() < 3 * LIMIT);
}

#[test]
fn one_family_of_addresses_is_enough() {
    let zone = NameServer::start(|name, kind| match (name, kind.to_string().as_str()) {
        ("x.test", "A") => common::dns::Answer::records(vec![common::dns::record(name, "A", "192.0.2.1")]),
        (_, "AAAA") => common::dns::Answer::servfail(),
        _ => common::dns::Answer::records(Vec::new()),
    });
    let dns = Dns::new(&penfold::config::Dns { nameservers: vec![zone.address], timeout: LIMIT });
    assert_eq!(dns.addresses("x.test"), Ok(vec![Ipv4Addr::new(192, 0, 2, 1).into()]));
    assert_eq!(dns.addresses("y.test"), Err(NoAnswer::ServFail));
}

//! Whether an answer of the DNS is secure, as a trusted name server says.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use common::dns::{Answer, Dns as NameServer, answer, record};
use penfold::config;
use penfold::dns::lookup::{Lookup, Until};
use penfold::dns::{Association, Dns, MAX_ASSOCIATIONS};
use penfold::outcome::NoAnswer;
use trust_dns_resolver::proto::op::ResponseCode;
use trust_dns_resolver::proto::rr::RecordType;

use super::closed_port;

const LIMIT: Duration = Duration::from_secs(5);

const ZONE: &str = "
    signed.test SECURE
    signed.test MX 10 mx.signed.test
    mx.signed.test SECURE
    mx.signed.test A 192.0.2.1
    mx.signed.test AAAA 2001:db8::1
    _25._tcp.mx.signed.test SECURE
    _25._tcp.mx.signed.test TLSA 3 1 1 00ff 01
    _25._tcp.mx.signed.test TLSA 255 9 7 aa
    alias.signed.test SECURE
    alias.signed.test CNAME mx.signed.test
    out.signed.test SECURE
    out.signed.test CNAME mx.plain.test
    in.plain.test CNAME mx.signed.test
    mx.plain.test A 192.0.2.2
    _25._tcp.mx.plain.test TLSA 3 1 1 00
    plain.test MX 10 mx.plain.test
    _25._tcp.bogus.test SERVFAIL
    none.signed.test SECURE";

fn asking(server: &NameServer, trust_ad: Option<bool>) -> Dns {
    Dns::new(&config::Dns { nameservers: vec![server.address], timeout: LIMIT, trust_ad })
}

#[test]
fn an_answer_is_secure_if_the_whole_chain_is() {
    let server = NameServer::zone(ZONE);
    let dns = asking(&server, None);
    let exchangers = |domain| dns.exchangers(domain, true).expect(domain);
    assert!(exchangers("signed.test").is_secure && !exchangers("plain.test").is_secure);
    let hosts = ["mx.signed.test", "mx.plain.test", "alias.signed.test", "out.signed.test", "in.plain.test"];
    let found = dns.addresses_of_all(&hosts, true);
    let found = found.into_iter().map(|answer| answer.map(|answer| (answer.is_secure, answer.alias_of)));
    let alias_of = |name: &str| Some(name.to_owned());
    assert_eq!(
        found.collect::<Vec<_>>(),
        [
            Ok((true, None)),
            Ok((false, None)),
            Ok((true, alias_of("mx.signed.test"))),
            Ok((false, alias_of("mx.plain.test"))),
            Ok((false, alias_of("mx.signed.test"))),
        ]
    );
    assert_eq!(dns.is_secure_alias("out.signed.test"), Ok(true));
    assert_eq!(dns.is_secure_alias("in.plain.test"), Ok(false));
    let tlsa = |host| dns.tlsa(host, 25).map(|answer| (answer.is_secure, answer.data));
    let association =
        |usage, selector, matching, data: &[u8]| Association { usage, selector, matching, data: data.into() };
    let all = vec![association(3, 1, 1, &[0, 0xff, 1]), association(255, 9, 7, &[0xaa])];
    assert_eq!(tlsa("mx.signed.test"), Ok((true, all)));
    assert_eq!(tlsa("mx.plain.test"), Ok((false, vec![association(3, 1, 1, &[0])])));
    assert_eq!(tlsa("bogus.test"), Err(NoAnswer::ServFail));
    assert_eq!(tlsa("none.signed.test"), Err(NoAnswer::NxDomain));
}

#[test]
fn only_a_trusted_server_makes_an_answer_secure() {
    for (trust_ad, dnssec, want) in
        [(None, true, true), (Some(true), true, true), (Some(false), true, false), (None, false, false)]
    {
        let server = NameServer::zone(ZONE);
        let dns = asking(&server, trust_ad);
        let is_secure = |_| dns.exchangers("signed.test", dnssec).expect("an answer").is_secure;
        assert_eq!([0, 1].map(is_secure), [want; 2], "{trust_ad:?} {dnssec}");
        // DNSSEC is asked for only where it is of use, and the answer is kept.
        assert_eq!((server.asked().len(), server.asked_for_dnssec().len()), (1, want.into()), "{trust_ad:?} {dnssec}");
    }
    // Answers of other hosts could be forged on the way.
    let trusts = |servers: &[&str], trust_ad| {
        let nameservers: Vec<SocketAddr> = servers.iter().map(|text| text.parse().expect("an address")).collect();
        Dns::new(&config::Dns { nameservers, timeout: LIMIT, trust_ad }).trusts_servers()
    };
    assert!(trusts(&["127.0.0.1:53", "[::1]:53", "127.0.0.53:53", "[::ffff:127.0.0.1]:53"], None));
    assert!(!trusts(&["127.0.0.1:53", "192.0.2.53:53"], None));
    assert!(trusts(&["192.0.2.53:53"], Some(true)) && !trusts(&["127.0.0.1:53"], Some(false)));
}

#[test]
fn the_root_zone_shows_whether_a_server_verifies_dnssec() {
    for (verifies, trust_ad, want) in [(true, None, true), (false, None, false), (true, Some(false), false)] {
        let server = NameServer::start(move |name, kind| {
            assert_eq!((name, kind), (".", RecordType::NS));
            Answer { secure: verifies, ..Answer::records(vec![record(".", "NS", "a.test")]) }
        });
        assert_eq!(asking(&server, trust_ad).verifies_dnssec(), Ok(want), "{verifies} {trust_ad:?}");
    }
}

#[test]
fn a_kept_answer_without_dnssec_is_asked_again() {
    let server = NameServer::zone(ZONE);
    let dns = asking(&server, None);
    assert!(dns.mx("signed.test").is_ok());
    assert!(dns.exchangers("signed.test", true).is_ok_and(|answer| answer.is_secure));
    assert!(dns.mx("signed.test").is_ok() && dns.exchangers("signed.test", true).is_ok_and(|answer| answer.is_secure));
    assert_eq!(server.asked().len(), 2);
}

/// Without EDNS no answer is secure. A slow or lost answer must not become an insecure one.
#[test]
fn a_server_with_edns_is_not_asked_for_dnssec_without_it() {
    let server = NameServer::judging(|asking| {
        let fresh = answer(ZONE, asking.name, asking.kind);
        let is_late = asking.name == "signed.test" && asking.edns;
        Answer { after: Duration::from_millis(if is_late { 1500 } else { 0 }), ..fresh }
    });
    let dns = asking(&server, None);
    assert!(dns.addresses_of_all(&["mx.signed.test"], true)[0].as_ref().is_ok_and(|answer| answer.is_secure));
    assert!(dns.exchangers("signed.test", true).is_ok_and(|answer| answer.is_secure));
    assert!(server.edns().iter().all(|edns| *edns), "{:?}", server.asked());
    // A server that rejects EDNS cannot verify anything, and is used all the same.
    let old = NameServer::judging(|asking| match asking.edns {
        true => Answer::code(ResponseCode::FormErr),
        false => answer(ZONE, asking.name, asking.kind),
    });
    assert!(asking(&old, None).exchangers("signed.test", true).is_ok_and(|answer| !answer.is_secure));
}

/// A check that looks up several things ends at its own time, also at its TLSA records.
#[test]
fn tlsa_records_are_awaited_no_longer_than_a_check_may_take() {
    let server = NameServer::zone("_25._tcp.mute.test SILENCE");
    let (dns, started) = (asking(&server, None), Instant::now());
    let lookup = Until { dns: &dns, until: started + LIMIT / 25 };
    assert_eq!(lookup.tlsa("mute.test"), Err(NoAnswer::Timeout));
    assert!(started.elapsed() < LIMIT, "{:?}", started.elapsed());
}

#[test]
fn thousands_of_tlsa_records_are_bounded() {
    let server = NameServer::start(|name, _| {
        let records = match name.contains("many") {
            true => (0..1500).map(|n| record(name, "TLSA", &format!("3 1 1 {n:04x}"))).collect(),
            false => vec![record(name, "TLSA", &format!("3 1 1 {}", "00".repeat(60_000)))],
        };
        Answer { truncated: true, ..Answer::records(records).secure() }
    });
    let dns = asking(&server, None);
    let started = Instant::now();
    assert_eq!(dns.tlsa("many.test", 25).expect("records").data.len(), MAX_ASSOCIATIONS);
    assert_eq!(dns.tlsa("large.test", 25).expect("a record").data[0].data.len(), 60_000);
    assert!(started.elapsed() < LIMIT);
    for name in ["a..b", &"a".repeat(300)] {
        assert_eq!(dns.tlsa(name, 25), Err(NoAnswer::BadName), "{name}");
    }
    assert_eq!(server.asked().iter().filter(|(_, kind)| *kind != RecordType::TLSA).count(), 0);
    let unreachable: SocketAddr = (Ipv4Addr::LOCALHOST, closed_port()).into();
    let closed = Dns::new(&config::Dns { nameservers: vec![unreachable], timeout: LIMIT / 5, trust_ad: None });
    assert!(!matches!(closed.tlsa("x.test", 25), Ok(_) | Err(NoAnswer::NxDomain | NoAnswer::NoData)));
}

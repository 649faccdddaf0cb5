//! The DNS lookups of the SMTP client.

use super::*;
use common::dns::{Answer, Asking, record};
use penfold::config;
use trust_dns_resolver::proto::op::ResponseCode::{self, BADVERS, FormErr, NotImp, Refused, ServFail};
use trust_dns_resolver::proto::rr::rdata::MX;
use trust_dns_resolver::proto::rr::{Name, RData, Record};

/// The ways in which a name server fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ill {
    Says(ResponseCode),
    Silent,
    Closed,
    /// The server sends truncated answers, and nothing over TCP.
    Cut,
    /// The server refers to another server instead of answering.
    Lame,
}

const ILLS: [Ill; 8] = [
    Ill::Says(ServFail),
    Ill::Says(Refused),
    Ill::Says(FormErr),
    Ill::Says(NotImp),
    Ill::Silent,
    Ill::Closed,
    Ill::Cut,
    Ill::Lame,
];

/// The answer of a healthy server for `x.test`, where x is any label.
fn well(asking: &Asking) -> Answer {
    Answer::records(match asking.kind.to_string().as_str() {
        "MX" => vec![record(asking.name, "MX", "10 mx.test")],
        "A" => vec![record(asking.name, "A", "192.0.2.1")],
        _ => Vec::new(),
    })
}

fn ill(how: Ill) -> NameServer {
    NameServer::judging(move |asking| match how {
        Ill::Says(code) => Answer::code(code),
        Ill::Silent | Ill::Closed => Answer::silence(),
        Ill::Cut if asking.over_udp => Answer { truncated: true, ..well(asking) },
        Ill::Cut => Answer::silence(),
        Ill::Lame => Answer { referral: true, ..Answer::records(Vec::new()) },
    })
}

fn address_of(how: Ill, server: &NameServer) -> SocketAddr {
    if how == Ill::Closed { (Ipv4Addr::LOCALHOST, closed_port()).into() } else { server.address }
}

fn asking(nameservers: Vec<SocketAddr>, timeout: Duration) -> Dns {
    Dns::new(&config::Dns { nameservers, timeout, trust_ad: None })
}

fn mx_test() -> Result<Vec<(u16, String)>, NoAnswer> {
    Ok(vec![(10, "mx.test".to_owned())])
}

#[test]
fn the_next_server_is_asked_if_one_fails() {
    const PATIENT: Duration = Duration::from_secs(4);
    for how in ILLS {
        let (first, second) = (ill(how), NameServer::judging(well));
        let dns = asking(vec![address_of(how, &first), second.address], PATIENT);
        let started = Instant::now();
        assert_eq!(dns.mx("a.test"), mx_test(), "{how:?}");
        assert_eq!(dns.addresses("a.test"), Ok(vec![Ipv4Addr::new(192, 0, 2, 1).into()]), "{how:?}");
        assert!(started.elapsed() < PATIENT / 2, "{how:?}: {:?}", started.elapsed());
        // The client now asks the server that did not answer last, so that the second lookup is
        // fast.
        let started = Instant::now();
        assert_eq!(dns.mx("b.test"), mx_test(), "{how:?}");
        assert!(started.elapsed() < PATIENT / 8 || how == Ill::Cut, "{how:?}: {:?}", started.elapsed());
    }
}

#[test]
fn a_failure_of_all_servers_is_temporary() {
    for how in ILLS {
        let servers = [ill(how), ill(how)];
        let dns = asking(servers.iter().map(|server| address_of(how, server)).collect(), LIMIT);
        let started = Instant::now();
        for trouble in [dns.mx("a.test").expect_err("no answer"), dns.addresses("a.test").expect_err("no answer")] {
            let outcome = Outcome::from_dns("a.test", &trouble);
            assert_eq!(shown(&outcome), (Deferred, "4.4.3".into()), "{how:?}: {trouble:?}");
            match how {
                Ill::Says(ServFail) | Ill::Lame => assert_eq!(trouble, NoAnswer::ServFail, "{how:?}"),
                Ill::Says(Refused) => assert_eq!(trouble, NoAnswer::Refused),
                Ill::Says(_) => assert!(matches!(trouble, NoAnswer::Other(_)), "{how:?}: {trouble:?}"),
                Ill::Silent | Ill::Closed | Ill::Cut => assert_eq!(trouble, NoAnswer::Timeout, "{how:?}"),
            }
        }
        assert!(started.elapsed() < 3 * LIMIT, "{how:?}: {:?}", started.elapsed());
    }
}

#[test]
fn a_server_without_edns_is_asked_without_it_from_then_on() {
    for says in [Some(FormErr), Some(NotImp), Some(BADVERS), Some(ServFail), None] {
        let server = NameServer::judging(move |asking| match says {
            _ if !asking.edns => well(asking),
            Some(code) => Answer::code(code),
            None => Answer::silence(),
        });
        let dns = asking(vec![server.address], Duration::from_secs(4));
        for name in ["a.test", "b.test", "c.test"] {
            assert_eq!(dns.mx(name), mx_test(), "{says:?} {name}");
        }
        let edns = server.edns();
        // The server does not understand EDNS, so the client asks without it. After SERVFAIL, which
        // may concern only this name, it does not remember that.
        if says != Some(ServFail) {
            assert_eq!(edns[edns.len() - 2..], [false, false], "{says:?}: {edns:?}");
        }
        // The client may ask a silent server twice before it learns to do without EDNS.
        assert!(edns.len() <= 6, "{says:?}: {edns:?}");
    }
}

#[test]
fn nxdomain_of_the_first_server_is_final() {
    let first = NameServer::judging(|_| Answer::nxdomain());
    let second = NameServer::judging(well);
    let dns = asking(vec![first.address, second.address], LIMIT);
    assert_eq!(dns.mx("a.test"), Err(NoAnswer::NxDomain));
    assert_eq!(second.asked(), []);
}

#[test]
fn an_answer_too_long_for_a_datagram_comes_over_tcp() {
    for edns in [true, false] {
        let server = NameServer::judging(move |asking| match asking {
            Asking { edns: true, .. } if !edns => Answer::code(FormErr),
            _ => {
                let host = |n| record(asking.name, "MX", &format!("{n} a-long-name-of-a-mail-exchanger-{n}.test"));
                Answer { truncated: true, ..Answer::records((0..40).map(host).collect()) }
            }
        });
        let dns = asking(vec![server.address], Duration::from_secs(4));
        assert_eq!(dns.mx("a.test").map(|list| list.len()), Ok(40));
    }
}

#[test]
fn a_slow_answer_counts_although_other_servers_were_asked_meanwhile() {
    let slow = NameServer::judging(|asking| Answer { after: Duration::from_millis(1500), ..well(asking) });
    let silent = ill(Ill::Silent);
    let dns = asking(vec![slow.address, silent.address], Duration::from_secs(5));
    assert_eq!(dns.mx("a.test"), mx_test());
}

#[test]
fn two_hundred_simultaneous_lookups_take_as_long_as_one() {
    const DELAY: Duration = Duration::from_millis(300);
    let server = NameServer::judging(|asking| match asking.name.split('.').next() {
        Some("mute") => Answer::silence(),
        _ => Answer { after: DELAY, ..well(asking) },
    });
    let dns = Arc::new(asking(vec![server.address], Duration::from_secs(5)));
    let started = Instant::now();
    let ask = |name: String| {
        let dns = Arc::clone(&dns);
        thread::spawn(move || (dns.mx(&name), started.elapsed()))
    };
    // Twenty unanswered lookups delay only themselves.
    let mute: Vec<_> = (0..20).map(|n| ask(format!("mute.d{n}.test"))).collect();
    let healthy: Vec<_> = (0..200).map(|n| ask(format!("d{n}.test"))).collect();
    let mut slowest = Duration::ZERO;
    for thread in healthy {
        let (found, took) = thread.join().expect("a thread");
        assert_eq!(found, mx_test());
        slowest = slowest.max(took);
    }
    println!("200 look-ups at once: {slowest:?}");
    assert!(slowest < 10 * DELAY, "{slowest:?}");
    for thread in mute {
        assert_eq!(thread.join().expect("a thread").0, Err(NoAnswer::Timeout));
    }
}

#[test]
fn a_clients_name_must_resolve_back() {
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
        let started = Instant::now();
        let name = sender.dns.verified_name(address.parse().expect("an address"));
        assert_eq!(name.as_deref(), want, "{address}");
        assert!(started.elapsed() < 3 * LIMIT);
    }
    let asked = zone.asked().len();
    for address in ["127.0.0.1", "127.3.2.1", "::1"] {
        assert_eq!(sender.dns.verified_name(address.parse().expect("an address")).as_deref(), Some("localhost"));
    }
    assert_eq!(zone.asked().len(), asked, "loopback is not looked up");
}

#[test]
fn a_missing_server_or_answer_takes_no_longer_than_the_timeout() {
    let closed: SocketAddr = (Ipv4Addr::LOCALHOST, closed_port()).into();
    let dns = Dns::new(&penfold::config::Dns { nameservers: vec![closed; 3], timeout: LIMIT, trust_ad: None });
    let started = Instant::now();
    let trouble = dns.addresses("x.test").expect_err("nobody answers");
    assert!(matches!(trouble, NoAnswer::Timeout | NoAnswer::Other(_)), "{trouble:?}");
    assert!(started.elapsed() < 3 * LIMIT);
}

#[test]
fn one_family_of_addresses_is_enough() {
    let zone = NameServer::start(|name, kind| match (name, kind.to_string().as_str()) {
        ("x.test", "A") => common::dns::Answer::records(vec![common::dns::record(name, "A", "192.0.2.1")]),
        (_, "AAAA") => common::dns::Answer::servfail(),
        _ => common::dns::Answer::records(Vec::new()),
    });
    let dns = Dns::new(&penfold::config::Dns { nameservers: vec![zone.address], timeout: LIMIT, trust_ad: None });
    assert_eq!(dns.addresses("x.test"), Ok(vec![Ipv4Addr::new(192, 0, 2, 1).into()]));
    assert_eq!(dns.addresses("y.test"), Err(NoAnswer::ServFail));
}

/// The owner of a domain writes the domain's zone, and may be hostile.
#[test]
fn a_hostile_zone_has_bounded_effects() {
    let server = NameServer::start(|name, kind| {
        let kind = kind.to_string();
        let all = |count: usize, data: &dyn Fn(usize) -> String| Answer {
            truncated: true,
            ..Answer::records((0..count).map(|n| record(name, &kind, &data(n))).collect())
        };
        match (name, kind.as_str()) {
            ("many.test", "MX") => all(1000, &|n| format!("{} h{n}.test", n % 7)),
            ("many.test", "A") => all(1000, &|n| format!("10.0.{}.{}", n / 250, n % 250)),
            ("many.test", "AAAA") => all(1000, &|n| format!("2001:db8::{n:x}")),
            ("nobodys.test", "A") => {
                all(300, &|n| if n < 299 { format!("224.0.0.{}", n % 250) } else { "192.0.2.1".into() })
            }
            // The exchangers are impossible host names, or addresses in place of names.
            ("odd.test", "MX") => {
                let odd = [&b"a b"[..], b"a.b", b"\0", b"a\r\nb", b"-a", b"[192", b"\xff", b"a\\b"];
                let odd = odd.map(|label| Name::from_labels([label, b"test"]).expect("a name"));
                let plain = ["224.0.0.1", "0.0.0.0", "good.test"].map(|text| Name::from_ascii(text).expect("a name"));
                let exchanger = |host: &Name| {
                    let mut host = host.clone();
                    host.set_fqdn(true);
                    Record::from_rdata(record(name, "A", "192.0.2.1").name, 60, RData::MX(MX::new(5, host)))
                };
                Answer::records(odd.iter().chain(&plain).map(exchanger).collect())
            }
            // This is the answer to another question.
            ("other.test", "A") => Answer::records(vec![record("bank.test", "A", "192.0.2.66")]),
            ("other.test", "MX") => Answer::records(vec![record(name, "A", "192.0.2.66")]),
            // CNAMEs lead to themselves, in a loop within one answer or across several, or never
            // end.
            ("self.test", _) => Answer::records(vec![record(name, "CNAME", name)]),
            ("one.test" | "two.test", _) => {
                Answer::records(vec![record("one.test", "CNAME", "two.test"), record("two.test", "CNAME", "one.test")])
            }
            ("left.test", _) => Answer::records(vec![record(name, "CNAME", "right.test")]),
            ("right.test", _) => Answer::records(vec![record(name, "CNAME", "left.test")]),
            ("c5.chain.test", "A") => all(1, &|_| "192.0.2.5".into()),
            _ => match name.strip_prefix('c').and_then(|rest| rest.strip_suffix(".chain.test")?.parse::<u32>().ok()) {
                Some(n) => Answer::records(vec![record(name, "CNAME", &format!("c{}.chain.test", n + 1))]),
                None => Answer::records(Vec::new()),
            },
        }
    });
    let dns = asking(vec![server.address], Duration::from_secs(5));
    let started = Instant::now();
    assert_eq!(dns.mx("many.test").map(|list| list.len()), Ok(penfold::dns::MAX_EXCHANGERS));
    assert_eq!(dns.addresses("many.test").map(|list| list.len()), Ok(2 * penfold::dns::MAX_ADDRESSES));
    assert_eq!(dns.addresses("nobodys.test"), Ok(vec![Ipv4Addr::new(192, 0, 2, 1).into()]));
    assert_eq!(dns.mx("odd.test"), Ok(vec![(5, "good.test".to_owned())]));
    assert_eq!(dns.addresses("other.test"), Err(NoAnswer::NoData));
    assert_eq!(dns.mx("other.test"), Err(NoAnswer::NoData));
    assert_eq!(dns.addresses("c0.chain.test"), Ok(vec![Ipv4Addr::new(192, 0, 2, 5).into()]));
    for name in ["self.test", "one.test", "left.test", "c6.chain.test"] {
        let trouble = dns.mx(name).expect_err(name);
        assert_eq!(Outcome::from_dns(name, &trouble).fate, Deferred, "{name}: {trouble:?}");
        assert!(trouble.to_string().contains("in a loop"), "{name}: {trouble}");
    }
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    assert!(server.asked().len() < 80, "{}", server.asked().len());
}

#[test]
fn single_lookups_report_all_records_as_they_are_until_their_time_is_over() {
    let server = NameServer::judging(|asking| {
        let kind = asking.kind.to_string();
        let all = |count: usize, data: &dyn Fn(usize) -> String| Answer {
            truncated: true,
            ..Answer::records((0..count).map(|n| record(asking.name, &kind, &data(n))).collect())
        };
        match (asking.name, kind.as_str()) {
            ("list.test", "A") => all(3, &|n| ["127.0.0.2", "0.0.0.0", "192.168.1.1"][n].into()),
            ("list.test", "AAAA") => all(1, &|_| "::1".into()),
            ("list.test", "MX") => all(2, &|n| format!("{} h{n}.test", 9 - n)),
            ("*.list.test", "A") => all(1, &|_| "127.0.0.3".into()),
            (name, "A") if name.ends_with("c.list.test") => {
                let mut record = record("list.test", "A", "127.0.0.3");
                record.name = Name::from_labels([&b"a b,c"[..], b"list", b"test"]).expect("a name");
                record.name.set_fqdn(true);
                Answer::records(vec![record])
            }
            ("many.test", "A") => all(1000, &|n| format!("10.0.{}.{}", n / 250, n % 250)),
            ("many.test", "TXT") => all(1000, &|n| format!("text {n}")),
            ("1.2.0.192.in-addr.arpa", "PTR") => all(50, &|n| format!("h{n}.test")),
            ("mute.test", _) => Answer::silence(),
            ("ill.test", _) => Answer::servfail(),
            _ => Answer::nxdomain(),
        }
    });
    let dns = asking(vec![server.address], Duration::from_secs(30));
    let until = Instant::now() + Duration::from_secs(5);
    let four = |octets: [u8; 4]| Ipv4Addr::from(octets);
    assert_eq!(dns.begin_ipv4("mute.test", Instant::now()).wait(), Err(NoAnswer::Timeout));
    let mute = dns.begin_txt("mute.test", until);
    let all = [four([127, 0, 0, 2]), four([192, 168, 1, 1]), four([0, 0, 0, 0])];
    assert_eq!(dns.begin_ipv4("list.test", until).wait(), Ok(all.to_vec()));
    assert_eq!(dns.begin_ipv4("list.test.", until).wait(), Ok(all.to_vec()));
    assert_eq!(dns.begin_ipv6("LIST.test", until).wait(), Ok(vec![std::net::Ipv6Addr::LOCALHOST]));
    let exchangers = vec![(8, "h1.test".to_owned()), (9, "h0.test".to_owned())];
    assert_eq!(dns.begin_mx("list.test", until).wait(), Ok(exchangers));
    assert_eq!(dns.begin_ipv4("A b,c.list.test", until).wait(), Ok(vec![four([127, 0, 0, 3])]));
    assert_eq!(dns.begin_ipv4("*.list.test", until).wait(), Ok(vec![four([127, 0, 0, 3])]));
    assert_eq!(dns.begin_ipv4("many.test", until).wait().map(|found| found.len()), Ok(100));
    let texts = dns.begin_txt("many.test", until).wait().expect("an answer");
    assert_eq!((texts.len(), &*texts[7]), (penfold::dns::MAX_TEXTS, &b"text 7"[..]));
    let names = dns.begin_names("::ffff:192.0.2.1".parse().expect("an address"), until).wait();
    assert_eq!(names.map(|names| names.len()), Ok(penfold::dns::MAX_NAMES));
    assert_eq!(dns.begin_txt("ill.test", until).wait(), Err(NoAnswer::ServFail));
    assert_eq!(dns.begin_txt("none.test", until).wait(), Err(NoAnswer::NxDomain));
    assert_eq!(dns.begin_txt("a..test", until).wait(), Err(NoAnswer::BadName));
    assert!(Instant::now() < until);
    assert_eq!(mute.wait(), Err(NoAnswer::Timeout));
    assert!(until.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_domain_can_receive_mail_if_it_has_an_exchanger_or_an_address() {
    use penfold::dns::MailDomain::{self, Absent, NullMx, Unknown, Usable};
    let zone = NameServer::zone(
        "mx.test MX 10 nowhere.test
        four.test A 192.0.2.1
        six.test AAAA 2001:db8::1
        alias.test CNAME four.test
        null.test MX 0 .
        null.test A 192.0.2.1
        odd.test MX 0 224.0.0.1
        odd.test A 192.0.2.1
        text.test TXT nothing
        zero.test A 0.0.0.0
        ill.test SERVFAIL
        mute.test SILENCE",
    );
    let dns = asking(vec![zone.address], Duration::from_secs(30));
    // Only the answer that never comes needs a short time.
    const AMPLE: Duration = Duration::from_secs(10);
    let time = |domain: &str| if domain == "mute.test" { LIMIT } else { AMPLE };
    let check = |domain: &str| -> MailDomain { dns.begin_mail_domain(domain, Instant::now() + time(domain)).wait() };
    for (domain, want) in [
        ("mx.test", Usable),
        ("four.test", Usable),
        ("SIX.test", Usable),
        ("alias.test", Usable),
        ("[192.0.2.1]", Usable),
        ("localhost", Usable),
        ("null.test", NullMx),
        ("odd.test", Absent),
        ("text.test", Absent),
        ("zero.test", Absent),
        ("none.test", Absent),
        ("x.invalid", Absent),
        ("-bad.test", Absent),
        ("ill.test", Unknown(NoAnswer::ServFail)),
        ("mute.test", Unknown(NoAnswer::Timeout)),
    ] {
        let started = Instant::now();
        assert_eq!(check(domain), want, "{domain}");
        assert!(started.elapsed() < time(domain) + 2 * LIMIT, "{domain}");
    }
    assert!(zone.asked().iter().all(|(name, _)| !name.starts_with('[')), "address literals are not looked up");
}

#[test]
fn an_answer_is_cached_for_its_ttl() {
    let server = NameServer::start(|name, kind| {
        let mut answer = record(name, "A", "192.0.2.1");
        answer.ttl = if name == "brief.test" { 0 } else { 60 };
        if kind.to_string() == "A" { Answer::records(vec![answer]) } else { Answer::records(Vec::new()) }
    });
    let dns = asking(vec![server.address], Duration::from_secs(5));
    for (name, times) in [("brief.test", 3), ("long.test", 1)] {
        for _ in 0..3 {
            assert!(dns.addresses(name).is_ok());
        }
        let asked = server.asked().iter().filter(|(asked, kind)| asked == name && kind.to_string() == "A").count();
        assert_eq!(asked, times, "{name}");
    }
}

#[test]
fn many_hosts_are_looked_up_in_parallel() {
    const DELAY: Duration = Duration::from_millis(200);
    let server = NameServer::judging(|asking| match asking.name {
        "mute.test" => Answer::silence(),
        "none.test" => Answer::nxdomain(),
        _ => Answer { after: DELAY, ..well(asking) },
    });
    let dns = asking(vec![server.address], Duration::from_secs(1));
    let hosts: Vec<_> = (0..10).map(|n| format!("h{n}.test")).collect();
    let mut names: Vec<_> = hosts.iter().map(String::as_str).collect();
    names.extend(["mute.test", "none.test", "-bad", "localhost"]);
    let started = Instant::now();
    let found = dns.addresses_of_all(&names, false);
    let found: Vec<_> = found.into_iter().map(|one| one.map(|answer| answer.data)).collect();
    assert!(started.elapsed() < 9 * DELAY, "{:?}", started.elapsed());
    assert!(found[..10].iter().all(|one| *one == Ok(vec![Ipv4Addr::new(192, 0, 2, 1).into()])), "{found:?}");
    let (one, other) = (std::net::Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into());
    let rest = [Err(NoAnswer::Timeout), Err(NoAnswer::NxDomain), Err(NoAnswer::BadName), Ok(vec![one, other])];
    assert_eq!(found[10..], rest);
}

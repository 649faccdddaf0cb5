use std::net::IpAddr;
use std::path::Path;

use super::table::Table;
use super::*;
use crate::config::{HostPort, Scheme, Store};

fn read(text: &str) -> (Table, Vec<String>) {
    let (table, errors) = Table::read(Path::new("t"), text);
    (table, errors.iter().map(ToString::to_string).collect())
}

fn mx(domain: &str) -> HostTarget {
    HostTarget::Mx { domain: domain.into(), port: 25 }
}

fn host(name: &str) -> HostPort {
    HostPort { host: name.into(), port: 25, scheme: Scheme::Smtp }
}

fn sender(text: &str) -> Option<Address> {
    (!text.is_empty()).then(|| Address::parse(text).expect("an address"))
}

/// The numbers of the lines that apply, the decisive one first.
fn lines(table: &Table, target: &HostTarget, from: &str) -> Vec<usize> {
    let key = table.sender_key(sender(from).as_ref());
    table.rows(target, key.as_deref()).iter().map(|row| row.line).collect()
}

#[test]
fn lines_for_senders_come_before_lines_for_destinations() {
    let (table, errors) = read(
        "# x\n* pause=1s\nExample.org rate=60/m # own\n.example.org rate=10/m\nsmart.test connections=2\n\
         @News.test hello=news.test\nJon@news.test source=192.0.2.1,2001:db8::1\n<> families=ipv4\n\
         [192.0.2.7] pause=2s\n",
    );
    assert_eq!(errors, [""; 0]);
    let hosts = HostTarget::hosts(vec![host("other.test"), host("smart.test")]);
    for (target, from, wanted) in [
        (&mx("example.org"), "a@b.test", &[3, 2][..]),
        (&mx("a.example.org"), "a@b.test", &[4, 2]),
        (&mx("example.net"), "", &[8, 2]),
        (&mx("example.org"), "joe@news.test", &[6, 3, 2]),
        (&mx("example.org"), "JON@news.test", &[7, 6, 3, 2]),
        (&mx("example.org"), "jon@a.news.test", &[3, 2]),
        (&mx("[192.0.2.7]"), "a@b.test", &[9, 2]),
        (&HostTarget::hosts(vec![host("192.0.2.7")]), "a@b.test", &[9, 2]),
        (&hosts, "a@b.test", &[5, 2]),
        // Nothing but its own line applies to a mail store.
        (&HostTarget::Store(Store::Host(host("smart.test"))), "joe@news.test", &[5]),
        (&HostTarget::Store(Store::Host(host("example.net"))), "joe@news.test", &[]),
    ] {
        assert_eq!(lines(&table, target, from), wanted, "{target} {from}");
    }
    assert_eq!(table.sender_key(sender("Jon@News.test").as_ref()).as_deref(), Some("jon@news.test"));
    assert_eq!(table.sender_key(sender("joe@news.test").as_ref()).as_deref(), Some("@news.test"));
    assert_eq!(table.sender_key(sender("joe@other.test").as_ref()), None);
}

#[test]
fn a_wrong_line_has_an_error_and_its_mail_waits() {
    const SETTINGS: &str = "expected source=, families=, hello=, rate=, pause= or connections=";
    const RATE: &str = "expected a rate of messages, such as 60/m, 500/h or 5000/d";
    for (line, at, error) in [
        ("x.test", "1:1", SETTINGS),
        ("x.test rate", "1:8", SETTINGS),
        ("x.test speed=1", "1:8", SETTINGS),
        ("x.test rate=60", "1:8", RATE),
        ("x.test rate=0/m", "1:8", RATE),
        ("x.test rate=-1/m", "1:8", RATE),
        ("x.test rate=1000001/m", "1:8", RATE),
        ("x.test rate=1/w", "1:8", RATE),
        ("x.test rate=1/m rate=2/m", "1:17", "rate is already in this line"),
        ("x.test pause=2", "1:8", "expected a pause of at most 24h, such as 2s or 500ms"),
        ("x.test pause=2d", "1:8", "expected a pause of at most 24h, such as 2s or 500ms"),
        ("x.test connections=0", "1:8", "expected a number of connections, at least 1"),
        ("x.test hello=a..b", "1:8", "expected the name of a host, such as mx.example.org"),
        ("x.test source=192.0.2.1,192.0.2.2", "1:8", "expected at most one IPv4 address and one IPv6 address"),
        ("x.test source=0.0.0.0", "1:8", "expected an address of this host, such as 192.0.2.1 or 2001:db8::1"),
        ("x.test source=host", "1:8", "expected an address of this host, such as 192.0.2.1 or 2001:db8::1"),
        ("x.test families=ipv5", "1:8", "expected ipv4 or ipv6"),
        ("x.test families=ipv4,ipv4", "1:8", "ipv4 is already in the list"),
    ] {
        let (table, errors) = read(line);
        let error = format!("t:{at}: {error}");
        assert_eq!(errors, [&*error], "{line}");
        let rows = table.rows(&mx("x.test"), None);
        assert_eq!(rows[0].settings.as_ref().err(), Some(&error), "{line}");
    }
    for (line, error) in [
        (
            "a..b rate=1/m",
            "t:1:1: expected a domain, .domain, the name or address of a host, or *, or a sender: \
                           user@domain, @domain or <>",
        ),
        ("@a..b rate=1/m", "t:1:1: expected a domain after @"),
        ("a b@x.test rate=1/m", "t:1:3: expected source=, families=, hello=, rate=, pause= or connections="),
        ("x.test pause=1s\nX.test pause=2s", "t:2:1: X.test is already on line 1"),
        ("<> pause=1s\n<> pause=2s", "t:2:1: <> is already on line 1"),
    ] {
        assert_eq!(read(line).1, [error], "{line}");
    }
}

#[test]
fn addresses_are_chosen_by_the_family_of_the_host() {
    let way = |sources: &[&str], words: &[&str]| {
        let mut way = Way::default();
        sources.iter().for_each(|source| way.source.add(source).expect("an address"));
        words.iter().for_each(|word| way.families.add(word).expect("a family"));
        way
    };
    let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
    let (four, six) = ("192.0.2.1", "2001:db8::1");
    for (sources, words, places, from) in [
        (&[][..], &[][..], [Some(0), Some(0)], [None, None]),
        (&[], &["ipv6", "ipv4"], [Some(1), Some(0)], [None, None]),
        (&[], &["ipv4"], [Some(0), None], [None, None]),
        (&[four, six], &[], [Some(0), Some(0)], [Some(four), Some(six)]),
        // A family without a source is not used, because the source would be another one.
        (&[four], &[], [Some(0), None], [Some(four), None]),
        (&[six], &["ipv4", "ipv6"], [None, Some(1)], [None, Some(six)]),
        (&[six], &["ipv4"], [None, None], [None, Some(six)]),
    ] {
        let way = way(sources, words);
        let hosts = ["198.51.100.1", "2001:db8:1::1"].map(ip);
        assert_eq!(hosts.map(|host| way.place(host)), places, "{sources:?} {words:?}");
        assert_eq!(hosts.map(|host| way.source_for(host)), from.map(|from| from.map(ip)), "{sources:?} {words:?}");
    }
    // Loopback addresses are reached from loopback addresses.
    let public = way(&[four], &[]);
    assert_eq!(["127.0.0.1", "::1"].map(|host| public.place(ip(host))), [Some(0), Some(0)]);
    assert_eq!(["127.0.0.1", "::1"].map(|host| public.source_for(ip(host))), [None, None]);
    assert_eq!(way(&["127.0.0.2"], &[]).source_for(ip("127.0.0.1")), Some(ip("127.0.0.2")));
}

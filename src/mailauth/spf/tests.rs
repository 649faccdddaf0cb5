//! Tests of SPF with a zone in memory. tests/interop/spf.rs runs the published test suite.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Mutex;

use super::*;
use crate::outcome::NoAnswer;
use macros::Macros;
use record::Record;

/// A zone: lines of the form `name TYPE data`. After the line `name SERVFAIL`, all look-ups of that
/// name fail.
struct Zone {
    records: HashMap<(String, String), Vec<String>>,
    names: Vec<String>,
    asked: Mutex<Vec<String>>,
}

impl Zone {
    fn new(text: &str) -> Self {
        let (mut records, mut names) = (HashMap::<_, Vec<_>>::new(), Vec::new());
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let mut words = line.splitn(3, ' ').map(str::to_owned);
            let mut next = || words.next().unwrap_or_default();
            let (name, kind, data) = (next().to_ascii_lowercase(), next(), next());
            names.push(name.clone());
            records.entry((name, kind)).or_default().push(data);
        }
        Self { records, names, asked: Mutex::default() }
    }

    fn find(&self, name: &str, kind: &str) -> Result<Vec<String>, NoAnswer> {
        self.asked.lock().expect("no panic").push(format!("{kind} {name}"));
        if name.split('.').any(|label| label.is_empty() || label.len() > 63) {
            return Err(NoAnswer::BadName);
        }
        let get = |kind: &str| self.records.get(&(name.to_ascii_lowercase(), kind.to_owned())).cloned();
        match get(kind) {
            _ if get("SERVFAIL").is_some() => Err(NoAnswer::ServFail),
            Some(found) => Ok(found),
            None if self.names.iter().any(|n| n.eq_ignore_ascii_case(name)) => Err(NoAnswer::NoData),
            None => Err(NoAnswer::NxDomain),
        }
    }

    fn count(&self) -> usize {
        self.asked.lock().expect("no panic").len()
    }
}

impl Lookup for Zone {
    fn txt(&self, name: &str) -> Result<Vec<Vec<u8>>, NoAnswer> {
        Ok(self.find(name, "TXT")?.into_iter().map(String::into_bytes).collect())
    }
    fn ipv4(&self, name: &str) -> Result<Vec<Ipv4Addr>, NoAnswer> {
        Ok(self.find(name, "A")?.iter().map(|data| data.parse().expect("an address")).collect())
    }
    fn ipv6(&self, name: &str) -> Result<Vec<Ipv6Addr>, NoAnswer> {
        Ok(self.find(name, "AAAA")?.iter().map(|data| data.parse().expect("an address")).collect())
    }
    fn mx(&self, domain: &str) -> Result<Vec<(u16, String)>, NoAnswer> {
        Ok(self.find(domain, "MX")?.into_iter().map(|data| (10, data)).collect())
    }
    fn names(&self, address: IpAddr) -> Result<Vec<String>, NoAnswer> {
        self.find(&address.to_string(), "PTR")
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn checked(zone: &Zone, address: &str, sender: &str) -> Checked {
    check(zone, ip(address), "mail.example.org", sender, "mx.here.test")
}

/// Returns the result for the sender `x@a.test` and the client 192.0.2.1 in a zone with these
/// lines.
fn result(zone: &str) -> (SpfResult, String) {
    let checked = checked(&Zone::new(zone), "192.0.2.1", "x@a.test");
    (checked.result, checked.mechanism.into())
}

use SpfResult::{Fail, Neutral, Pass, PermError, SoftFail, TempError};

#[test]
fn a_record_is_accepted_only_if_all_of_it_is_correct() {
    for good in [
        "v=spf1",
        "v=spf1 ",
        "V=SPF1  all",
        "v=spf1 -ALL",
        "v=spf1 a mx ptr a:b.c mx:b.c ptr:b.c include:b.c exists:b.c ip4:192.0.2.1 ip6:::1",
        "v=spf1 a/0 a/32 a//0 a//128 a/24//64 a:b.c/24 a:b.c//64 mx:b.c/24//64 mx/24",
        "v=spf1 a:%{d} a:x.%{i}._spf.%{d2} a:%{l1r-}.b.c a:%{lR.-+,/_=}.b.c a:%{D99999999999999999999}",
        "v=spf1 a:b.c. a:b.x--y a:b.1x a:x%% a:x%_ a:x%-",
        "v=spf1 redirect=b.c exp=b.c x=y x= x.y-z_1=%{d}/:=",
        "v=spf1 ip4:0.0.0.0/0 ip6:2001:db8::/32 ip6:::ffff:192.0.2.1",
        "v=spf1 a:foo:bar/baz.example.com",
    ] {
        assert!(Record::parse(good.as_bytes()).is_ok(), "{good}");
    }
    for bad in [
        "moo",
        "all:",
        "all/0",
        "all:x.y",
        "include",
        "include:",
        "include:x",
        "include:b.c/24",
        "exists",
        "exists:",
        "ptr:",
        "ptr/24",
        "a:",
        "a:/24",
        "a/",
        "a//",
        "a/33",
        "a//129",
        "a/24/64",
        "a/024",
        "a/+1",
        "a///64",
        "a:b",
        "a:b.",
        "a:b.1",
        "a:b.-c",
        "a:b.c-",
        "a:b.c:25",
        "a:b..",
        "a:%",
        "a:%{",
        "a:%{}",
        "a:%{x}",
        "a:%{d0}",
        "a:%{dq}",
        "a:%{d1r2}",
        "a:%{c}",
        "a:%{r}",
        "a:%{t}",
        "a:%d",
        "ip4",
        "ip4:",
        "ip4:1.2.3",
        "ip4:1.2.3.4/33",
        "ip4:1.2.3.04",
        "ip4:1.2.3.4//32",
        "ip4:::1",
        "ip4:1.2.3.4/",
        "ip6",
        "ip6:1.2.3.4",
        "ip6:::1/129",
        "ip6:::1//64",
        "ip6:::1/032",
        "ip6:::g",
        "redirect=",
        "redirect=x",
        "redirect=b.c redirect=b.c",
        "exp=",
        "exp=b.c EXP=b.c",
        "-redirect=b.c",
        "redirect:b.c",
        "=x",
        "1x=y",
        "x=%",
        "x=%{c}",
        "x:y=z",
        "-",
        "+",
        "--all",
        "- all",
        "\tall",
        "a:b.c\0",
        "a:b\u{fc}.c",
        "%",
        "a:b.c\r",
    ] {
        let record = format!("v=spf1 ?all {bad} -all");
        assert!(Record::parse(record.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn only_a_record_with_the_exact_version_is_an_spf_record() {
    for good in ["v=spf1", "V=SpF1 x", "v=spf1  -all"] {
        assert!(record::is_spf(good.as_bytes()), "{good}");
    }
    for bad in ["", "v=spf", "v=spf10", "v=spf1-all", " v=spf1", "v=spf2.0/pra", "\u{fc}=spf1", "v=spf1\t-all"] {
        assert!(!record::is_spf(bad.as_bytes()), "{bad}");
    }
}

#[test]
fn the_first_mechanism_that_matches_decides() {
    for (zone, want, mechanism) in [
        ("a.test TXT v=spf1 ip4:192.0.2.0/24 -all", Pass, "ip4:192.0.2.0/24"),
        ("a.test TXT v=spf1 ?ip4:192.0.2.1 -all", Neutral, "ip4:192.0.2.1"),
        ("a.test TXT v=spf1 ip4:192.0.2.2 ~ALL", SoftFail, "ALL"),
        ("a.test TXT v=spf1 ip4:192.0.2.2", Neutral, "default"),
        ("a.test TXT v=spf1 redirect=b.test\nb.test TXT v=spf1 -all", Fail, "all"),
        ("a.test TXT v=spf1 ?all redirect=b.test", Neutral, "all"),
        ("a.test TXT v=spf1 a -all\na.test A 192.0.2.1", Pass, "a"),
        ("a.test TXT v=spf1 a/24 -all\na.test A 192.0.2.7", Pass, "a/24"),
        ("a.test TXT v=spf1 a:b.test -all\nb.test A 198.51.100.1", Fail, "all"),
        ("a.test TXT v=spf1 mx:b.test -all\nb.test MX c.test\nc.test A 192.0.2.1", Pass, "mx:b.test"),
        ("a.test TXT v=spf1 mx -all\na.test MX .", Fail, "all"),
        ("a.test TXT v=spf1 exists:%{ir}.b.test -all\n1.2.0.192.b.test A 127.0.0.2", Pass, "exists:%{ir}.b.test"),
        ("a.test TXT v=spf1 include:b.test -all\nb.test TXT v=spf1 +all", Pass, "include:b.test"),
        ("a.test TXT v=spf1 include:b.test ?all\nb.test TXT v=spf1 -all", Neutral, "all"),
        ("a.test TXT v=spf1 ptr -all\n192.0.2.1 PTR mx.a.test\nmx.a.test A 192.0.2.1", Pass, "ptr"),
        ("a.test TXT v=spf1 ptr -all\n192.0.2.1 PTR mx.ba.test\nmx.ba.test A 192.0.2.1", Fail, "all"),
        ("a.test TXT v=spf1 ptr -all\n192.0.2.1 PTR mx.a.test\nmx.a.test A 192.0.2.2", Fail, "all"),
        ("a.test TXT v=spf1 ip6:::/0 -all", Fail, "all"),
    ] {
        assert_eq!(result(zone), (want, mechanism.to_owned()), "{zone}");
    }
}

#[test]
fn what_goes_wrong_has_a_result_of_its_own() {
    for (zone, want, reason) in [
        ("", SpfResult::None, "no record"),
        ("a.test TXT v=spf10", SpfResult::None, "no record"),
        ("a.test SERVFAIL", TempError, "a.test: the name server could not find out (SERVFAIL)"),
        ("a.test TXT v=spf1 -all\na.test TXT v=spf1 all", PermError, "a.test has more than one record"),
        ("a.test TXT v=spf1 all moo", PermError, "syntax error in a.test: moo"),
        ("a.test TXT v=spf1 include:b.test all", PermError, "include:b.test: no record"),
        ("a.test TXT v=spf1 include:%{d1} all\ntest TXT v=spf1 all", PermError, "include:%{d1}: no record"),
        (
            "a.test TXT v=spf1 exists:x.test mx a:y.test\na.test MX z.test",
            PermError,
            "a:y.test: more than 2 look-ups without an answer",
        ),
        ("a.test TXT v=spf1 redirect=b.test", PermError, "redirect=b.test: no record"),
        ("a.test TXT v=spf1 redirect=%{d}", PermError, "redirect: more than 10 terms ask the DNS"),
        ("a.test TXT v=spf1 include:a.test", PermError, "include:a.test: more than 10 terms ask the DNS"),
        (
            "a.test TXT v=spf1 a:b.test -all\nb.test SERVFAIL",
            TempError,
            "a:b.test: the name server could not find out (SERVFAIL)",
        ),
        (
            "a.test TXT v=spf1 include:b.test -all\nb.test SERVFAIL",
            TempError,
            "b.test: the name server could not find out (SERVFAIL)",
        ),
        (
            "a.test TXT v=spf1 exists:b.test -all\nb.test SERVFAIL",
            TempError,
            "exists:b.test: the name server could not find out (SERVFAIL)",
        ),
        (
            "a.test TXT v=spf1 mx -all\na.test MX b.test\nb.test SERVFAIL",
            TempError,
            "mx: the name server could not find out (SERVFAIL)",
        ),
        ("a.test TXT v=spf1 ptr -all\n192.0.2.1 SERVFAIL", Fail, "all"),
        ("a.test TXT v=spf1 a:x.test a:y.test -all", Fail, "all"),
        (
            "a.test TXT v=spf1 a:x.test a:y.test a:z.test -all",
            PermError,
            "a:z.test: more than 2 look-ups without an answer",
        ),
        ("a.test TXT v=spf1 exists:x.test mx:y.test mx -all", PermError, "mx: more than 2 look-ups without an answer"),
    ] {
        assert_eq!(result(zone), (want, reason.to_owned()), "{zone}");
    }
}

#[test]
fn hosts_without_an_address_count_once_for_their_mx() {
    let mut zone = "a.test TXT v=spf1 mx a:b.test -all\nb.test AAAA 2001:db8::1\n".to_owned();
    for n in 0..10 {
        zone += &format!("a.test MX m{n}.test\nm{n}.test A 192.0.2.{n}\n");
    }
    // The client's address is IPv6, and the exchangers have only IPv4 addresses.
    assert_eq!(checked(&Zone::new(&zone), "2001:db8::1", "x@a.test").result, Pass);
    zone += "a.test MX m10.test\n";
    assert_eq!(checked(&Zone::new(&zone), "2001:db8::1", "x@a.test").result, PermError);
}

#[test]
fn the_names_of_the_client_are_looked_up_once_and_are_few() {
    let mut zone = "a.test TXT v=spf1 ptr:x.test exists:%{p}.y.test a:%{p}.z.test ptr -all exp=e.test\n".to_owned();
    zone += "e.test TXT %{p}\n";
    for n in 0..50 {
        zone += &format!("192.0.2.1 PTR h{n}.b.test\nh{n}.b.test A 192.0.2.1\n");
    }
    let zone = Zone::new(&zone);
    let checked = checked(&zone, "192.0.2.1", "x@a.test");
    assert_eq!((checked.result, checked.explanation.as_deref()), (Fail, Some("h0.b.test")));
    // One look-up each for TXT, PTR, `exists`, `a` and the explanation, and ten for addresses.
    assert_eq!(zone.count(), 15);
}

#[test]
fn the_name_of_the_client_is_the_one_that_is_closest_to_the_domain() {
    let explain = |names: &[&str]| {
        let mut zone = "a.test TXT v=spf1 -all exp=e.test\ne.test TXT %{p}\n".to_owned();
        for name in names {
            zone += &format!("192.0.2.1 PTR {name}\n{name} A 192.0.2.1\n");
        }
        checked(&Zone::new(&zone), "192.0.2.1", "x@a.test").explanation.map(String::from)
    };
    for (names, want) in [
        (&["b.test", "mx.a.test", "A.test"][..], "A.test"),
        (&["b.test", "mx.a.test", "my.a.test"], "mx.a.test"),
        (&["b.test", "c.test"], "b.test"),
        (&[], "unknown"),
    ] {
        assert_eq!(explain(names).as_deref(), Some(want), "{names:?}");
    }
}

#[test]
fn the_identity_is_the_sender_or_else_hello() {
    let zone = Zone::new(
        "a.test TXT v=spf1 -all\nmail.example.org TXT v=spf1 ip4:192.0.2.1 exp=e.test ~all\n\
         xn--bcher-kva.test TXT v=spf1 +all",
    );
    for (sender, result, identity, domain) in [
        ("x@a.test", Fail, Identity::MailFrom, "a.test"),
        ("X@A.TEST.", Fail, Identity::MailFrom, "a.test"),
        ("\"x@y\"@a.test", Fail, Identity::MailFrom, "a.test"),
        ("", Pass, Identity::Hello, "mail.example.org"),
        ("x", SpfResult::None, Identity::MailFrom, ""),
        ("x@test", SpfResult::None, Identity::MailFrom, "test"),
        ("x@[192.0.2.1]", SpfResult::None, Identity::MailFrom, "[192.0.2.1]"),
        ("x@192.0.2.1", SpfResult::None, Identity::MailFrom, "192.0.2.1"),
        ("x@a..test", SpfResult::None, Identity::MailFrom, "a..test"),
        ("x@b\u{fc}cher.test", Pass, Identity::MailFrom, "xn--bcher-kva.test"),
    ] {
        let checked = checked(&zone, "192.0.2.1", sender);
        assert_eq!((checked.result, checked.identity, &*checked.domain), (result, identity, domain), "{sender}");
    }
    for hello in ["", "localhost", "[192.0.2.1]", "[IPv6:::1]", "a b.test", "\u{1}.test", "-a.test", "192.0.2.1"] {
        let (zone, client) = (Zone::new(""), ip("192.0.2.1"));
        let checked = check_hello(&zone, client, hello, "mx.here.test");
        assert_eq!((checked.result, checked.identity), (SpfResult::None, Identity::Hello), "{hello}");
        assert_eq!((zone.count(), &*checked.mechanism), (0, "not a domain"), "{hello}");
        assert!(checked.domain.bytes().all(|b| (b' '..=b'~').contains(&b)), "{hello}");
    }
}

#[test]
fn an_ipv4_address_in_ipv6_is_ipv4() {
    let zone = Zone::new("a.test TXT v=spf1 -ip6:::ffff:192.0.2.1 -ip6:::/0 ip4:192.0.2.1 -all");
    assert_eq!(checked(&zone, "::ffff:192.0.2.1", "x@a.test").result, Pass);
}

fn values(domain: &str) -> Values<'_> {
    Values {
        local_part: "strong-bad",
        sender_domain: "email.example.com",
        domain,
        ip: ip("192.0.2.3"),
        hello: "h.example.com",
        here: "mx.here.test",
        client: "client.example",
        time: 17,
    }
}

#[test]
fn macros_expand_as_the_examples_of_the_rfc_do() {
    let values = values("email.example.com");
    for (text, want) in [
        ("%{s}", "strong-bad@email.example.com"),
        ("%{o}", "email.example.com"),
        ("%{d}", "email.example.com"),
        ("%{d4}", "email.example.com"),
        ("%{d3}", "email.example.com"),
        ("%{d2}", "example.com"),
        ("%{d1}", "com"),
        ("%{dr}", "com.example.email"),
        ("%{d2r}", "example.email"),
        ("%{l}", "strong-bad"),
        ("%{l-}", "strong.bad"),
        ("%{lr}", "strong-bad"),
        ("%{lr-}", "bad.strong"),
        ("%{l1r-}", "strong"),
        ("%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com"),
        ("%{lr-}.lp._spf.%{d2}", "bad.strong.lp._spf.example.com"),
        ("%{d2}.trusted-domains.example.net", "example.com.trusted-domains.example.net"),
        ("%{h}.%{p}", "h.example.com.client.example"),
        ("%{S}", "strong-bad%40email.example.com"),
        ("a%%b%_c%-d.e.", "a%b c%20d.e"),
        ("%{d99999999999999999999999}", "email.example.com"),
    ] {
        let macros = Macros::parse(text).expect(text);
        assert_eq!(macros.domain(&values).as_deref(), Some(want), "{text}");
    }
    let six = Values { ip: ip("2001:db8::cb01"), ..values };
    let want = "1.0.b.c.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6._spf.example.com";
    assert_eq!(Macros::parse("%{ir}.%{v}._spf.%{d2}").and_then(|m| m.domain(&six)).as_deref(), Some(want));
    let text = Macros::parse_explanation("%{c} to %{r} at %{t}: 100%%. ").expect("correct");
    assert_eq!(text.explanation(&six).as_deref(), Some("2001:db8::cb01 to mx.here.test at 17: 100%."));
}

#[test]
fn expansions_have_a_maximum_size() {
    let domain = ["label"; 40].join(".");
    let values = values(&domain);
    let expand = |text: &str| Macros::parse(text).expect("correct").domain(&values);
    // The value of `%{d}` has 240 octets with the dot after it, and the rest has 13.
    assert_eq!(expand("%{d}.1234567890.ab").map(|name| name.len()), Some(253));
    let long = expand("%{d}.1234567890.abc").expect("ASCII");
    assert!(long.len() == 248 && long.starts_with("label.label."), "{long}");
    assert_eq!(expand(&"x".repeat(300)).as_deref(), Some(""));
    let many = "%{d}.".repeat(20_000) + "end.example";
    let name = expand(&many).expect("ASCII");
    assert!(name.len() <= 253 && name.starts_with("label.") && name.ends_with(".label.end.example"), "{name}");
    let text = Macros::parse_explanation(&"%{d} ".repeat(20_000)).expect("correct").explanation(&values);
    assert_eq!(text.map(|text| text.len()), Some(macros::MAX_EXPLANATION));
}

#[test]
fn an_explanation_is_one_printable_line_of_bounded_length() {
    let long = "long ".repeat(200);
    for (explanation, want) in [
        ("e.test TXT Not from %{c}, %{s}!", Some("Not from 192.0.2.1, x@a.test!")),
        ("e.test TXT  x  ", Some("x")),
        ("", None),
        ("e.test SERVFAIL", None),
        ("e.test A 192.0.2.1", None),
        ("e.test TXT one\ne.test TXT two", None),
        ("e.test TXT 100% wrong", None),
        ("e.test TXT a\u{7}b", None),
        ("e.test TXT 550\r250", None),
        ("e.test TXT na\u{ef}ve", None),
        (&format!("e.test TXT {long}"), Some(long[..macros::MAX_EXPLANATION].trim_end())),
    ] {
        let zone = Zone::new(&format!("a.test TXT v=spf1 -all exp=e.test\n{explanation}"));
        assert_eq!(checked(&zone, "192.0.2.1", "x@a.test").explanation.as_deref(), want, "{explanation}");
    }
    // If the sender is UTF-8, the expansion is no domain, and the term does not match.
    let zone = Zone::new("a.test TXT v=spf1 exists:%{l}.a.test include:%{l}.a.test -all exp=e.test\ne.test TXT %{l}!");
    let checked = checked(&zone, "192.0.2.1", "\u{fc}@a.test");
    assert_eq!((checked.result, checked.explanation), (Fail, None));
}

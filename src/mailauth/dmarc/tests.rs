mod evasion;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Mutex;

use super::*;
use crate::dns::lookup::Lookup;
use crate::outcome::NoAnswer;

/// A zone: lines of the form `name TXT text`, `name A address`, `name AAAA address`, `name MX
/// host`, and `name FAIL` for a name whose server does not answer. The parents of each of these
/// names exist, too.
pub(super) struct Zone {
    lines: Vec<(String, String, String)>,
    asked: Mutex<Vec<String>>,
}

impl Zone {
    pub(super) fn new(text: &str) -> Self {
        let line = |line: &str| {
            let mut words = line.trim().splitn(3, ' ').map(str::to_owned);
            (words.next().unwrap_or_default(), words.next().unwrap_or_default(), words.next().unwrap_or_default())
        };
        let lines = text.lines().filter(|line| !line.trim().is_empty()).map(line).collect();
        Self { lines, asked: Mutex::default() }
    }

    fn find<T>(&self, name: &str, kind: &str, read: impl Fn(&str) -> T) -> Result<Vec<T>, NoAnswer> {
        self.asked.lock().expect("no panic").push(name.to_owned());
        let of_name = || self.lines.iter().filter(|(owner, ..)| owner == name);
        if of_name().any(|(_, kind, _)| kind == "FAIL") {
            return Err(NoAnswer::ServFail);
        }
        let found: Vec<T> = of_name().filter(|(_, k, _)| k == kind).map(|(.., data)| read(data)).collect();
        let exists = self.lines.iter().any(|(owner, ..)| owner == name || owner.ends_with(&format!(".{name}")));
        match found.is_empty() {
            false => Ok(found),
            true if exists => Err(NoAnswer::NoData),
            true => Err(NoAnswer::NxDomain),
        }
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().expect("no panic"))
    }
}

impl Lookup for Zone {
    fn txt(&self, name: &str) -> Result<Vec<Vec<u8>>, NoAnswer> {
        self.find(name, "TXT", |text| text.as_bytes().to_vec())
    }

    fn ipv4(&self, name: &str) -> Result<Vec<Ipv4Addr>, NoAnswer> {
        self.find(name, "A", |text| text.parse().expect("an address"))
    }

    fn ipv6(&self, name: &str) -> Result<Vec<Ipv6Addr>, NoAnswer> {
        self.find(name, "AAAA", |text| text.parse().expect("an address"))
    }

    fn mx(&self, name: &str) -> Result<Vec<(u16, String)>, NoAnswer> {
        self.find(name, "MX", |text| (10, text.to_owned()))
    }

    fn names(&self, _: IpAddr) -> Result<Vec<String>, NoAnswer> {
        Err(NoAnswer::NoData)
    }
}

pub(super) fn authors(domains: &str) -> Authors {
    let addresses: Vec<String> = domains.split_whitespace().map(|domain| format!("<a@{domain}>")).collect();
    Authors::of_header(format!("From: {}\n", addresses.join(", ")).as_bytes())
}

/// Parses identifiers in a short form, such as `spf:a.test dkim:b.test`. A `?` after the domain
/// means that the mechanism could not find out.
pub(super) fn identifiers(text: &str) -> Vec<Identifier<'_>> {
    text.split_whitespace().map(identifier).collect()
}

fn identifier(word: &str) -> Identifier<'_> {
    let (mechanism, domain) = word.split_once(':').expect("mechanism:domain");
    let mechanism = if mechanism == "spf" { Mechanism::Spf } else { Mechanism::Dkim };
    let vouches = if domain.ends_with('?') { Vouches::Unknown } else { Vouches::Yes };
    Identifier { domain: domain.trim_end_matches('?'), mechanism, vouches }
}

/// Returns the result and the policy, such as `fail reject`, or the result alone if it is not fail.
fn check(zone: &str, from: &str, passed: &str) -> String {
    let checked = evaluate(&Zone::new(zone), &authors(from), &identifiers(passed));
    match checked.outcome {
        Outcome::Fail => format!("fail {}", checked.policy),
        outcome => outcome.name().to_owned(),
    }
}

#[test]
fn records_are_read() {
    let short = |text: &str| {
        let record = Record::parse(text.as_bytes())?;
        let word = |policy: Option<Policy>| policy.map_or("-", Policy::name);
        let letter = |alignment| if alignment == Alignment::Strict { "s" } else { "r" };
        let rua: Vec<String> = record.rua.iter().map(|uri| uri.address.to_string()).collect();
        Some(format!(
            "{} {} {} {}{} {:?} {} {}",
            word(record.policy),
            word(record.subdomains),
            word(record.nonexistent),
            letter(record.dkim),
            letter(record.spf),
            record.psd,
            if record.is_testing { "t" } else { "-" },
            rua.join(",")
        ))
    };
    for (text, read) in [
        ("v=DMARC1", Some("- - - rr Unknown - ")),
        ("v=DMARC1;", Some("- - - rr Unknown - ")),
        ("v=DMARC1; p=none", Some("none - - rr Unknown - ")),
        (" v = DMARC1 ;p = Reject ; ", Some("reject - - rr Unknown - ")),
        ("v=DMARC1; p=none; sp=quarantine; np=reject", Some("none quarantine reject rr Unknown - ")),
        ("v=DMARC1; p=none; adkim=s; aspf=S; psd=y; t=y", Some("none - - ss Yes t ")),
        ("v=DMARC1; adkim=x; aspf=; psd=n; t=1; p=reject", Some("reject - - rr No - ")),
        ("v=DMARC1; P=REJECT; SP=None", Some("reject none - rr Unknown - ")),
        ("v=DMARC1; p=none; p=reject", Some("none - - rr Unknown - ")),
        ("v=DMARC1; p=nothing", Some("- - - rr Unknown - ")),
        ("v=DMARC1; pct=10; ri=5; x=y; x; =; p=reject; \u{fc}=1", Some("reject - - rr Unknown - ")),
        ("v=DMARC1 p=reject", None),
        ("v=DMARC1p=reject", None),
        ("v=dmarc1; p=reject", None),
        ("v=DMARC2; p=reject", None),
        ("p=reject; v=DMARC1", None),
        ("v=spf1 -all", None),
        ("", None),
        (";v=DMARC1", None),
        ("v=DMARC1; rua=mailto:a@b.test", Some("- - - rr Unknown - a@b.test")),
        ("v=DMARC1; rua=MAILTO:a@b.test!10m , mailto:c@d.test?x=y", Some("- - - rr Unknown - a@b.test,c@d.test")),
        ("v=DMARC1; rua=mailto:a%40x@b.test", Some("- - - rr Unknown - ")),
        ("v=DMARC1; rua=mailto:a%2Bx@b.test", Some("- - - rr Unknown - a+x@b.test")),
        ("v=DMARC1; rua=mailto:a%2Cb@b.test,mailto:%0a@b.test,mailto:%@b.test", Some("- - - rr Unknown - ")),
        ("v=DMARC1; rua=mailto:a,mailto:@,mailto:,mailto:a@[192.0.2.1],a@b.test", Some("- - - rr Unknown - ")),
        ("v=DMARC1; rua=https://b.test/x", Some("- - - rr Unknown - ")),
    ] {
        assert_eq!(short(text).as_deref(), read, "{text}");
    }
    let uris = (0..50).map(|n| format!("mailto:a{n}@b.test")).collect::<Vec<_>>().join(",");
    let record = Record::parse(format!("v=DMARC1; rua={uris}").as_bytes()).expect("a record");
    assert_eq!(record.rua.len(), record::MAX_URIS);
    assert_eq!(Record::parse(format!("v=DMARC1; rua={}", uris.repeat(20)).as_bytes()), None, "too long");
}

#[test]
fn sizes_and_options_for_reports() {
    let size = |text: &str| {
        let record = Record::parse(format!("v=DMARC1; rua=mailto:a@b.test!{text}").as_bytes()).expect("a record");
        record.rua.first().map(|uri| uri.max_size.expect("a size"))
    };
    for (text, octets) in [
        ("1", Some(1)),
        ("10k", Some(10 << 10)),
        ("10M", Some(10 << 20)),
        ("1g", Some(1 << 30)),
        ("1t", Some(1 << 40)),
        ("99999999999999999999t", Some(u64::MAX)),
        ("m", None),
        ("10x", None),
        ("-1", None),
        ("1kk", None),
    ] {
        assert_eq!(size(text), octets, "{text}");
    }
    let fo = |text: &str| Record::parse(format!("v=DMARC1; fo={text}").as_bytes()).expect("a record").fo.into_string();
    for (text, read) in [
        ("1", "1"),
        ("0:d:s", "0:d:s"),
        ("D:S", "d:s"),
        ("s:1", "s:1"),
        ("0:1", "0"),
        ("d:d", "0"),
        ("x", "0"),
        (":", "0"),
    ] {
        assert_eq!(fo(text), read, "{text}");
    }
}

/// A record whose policy is missing or malformed applies only if the record asks for reports. It
/// then counts as `p=none` (RFC 9989 4.10.1).
#[test]
fn records_without_a_valid_policy() {
    for (record, result) in [
        ("v=DMARC1; p=reject", "fail reject"),
        ("v=DMARC1", "permerror"),
        ("v=DMARC1; p=rejekt", "permerror"),
        ("v=DMARC1; p=reject; sp=x", "permerror"),
        ("v=DMARC1; p=reject; np=x", "permerror"),
        ("v=DMARC1; rua=mailto:a@x.test", "fail none"),
        ("v=DMARC1; p=rejekt; rua=mailto:a@x.test", "fail none"),
        ("v=DMARC1; p=reject; sp=x; rua=https://x.test/", "fail none"),
        ("v=DMARC1; p=reject; sp=x; rua=mailto:", "permerror"),
        ("v=DMARC1; p=reject; sp=x; rua=a", "permerror"),
        ("v=DMARC2; p=reject", "none"),
        ("v=spf1 -all", "none"),
    ] {
        assert_eq!(check(&format!("_dmarc.x.test TXT {record}"), "x.test", "spf:y.test"), result, "{record}");
    }
    let two = "_dmarc.x.test TXT v=DMARC1; p=reject\n_dmarc.x.test TXT v=DMARC1; p=none";
    assert_eq!(check(two, "x.test", ""), "none", "two records are none");
    let mixed = "_dmarc.x.test TXT v=DMARC1; p=reject\n_dmarc.x.test TXT something";
    assert_eq!(check(mixed, "x.test", ""), "fail reject", "other texts do not count");
}

/// The example of RFC 9989 4.10, and domains with 7 to 9 labels.
#[test]
fn a_walk_asks_for_at_most_eight_names() {
    for (domain, names) in [
        (
            "a.b.c.d.e.f.g.h.i.j.mail.example.com",
            "a.b.c.d.e.f.g.h.i.j.mail.example.com g.h.i.j.mail.example.com h.i.j.mail.example.com \
             i.j.mail.example.com j.mail.example.com mail.example.com example.com com",
        ),
        ("a.b.c.d.e.f.g", "a.b.c.d.e.f.g b.c.d.e.f.g c.d.e.f.g d.e.f.g e.f.g f.g g"),
        ("a.b.c.d.e.f.g.h", "a.b.c.d.e.f.g.h b.c.d.e.f.g.h c.d.e.f.g.h d.e.f.g.h e.f.g.h f.g.h g.h h"),
        ("x.a.b.c.d.e.f.g.h", "x.a.b.c.d.e.f.g.h b.c.d.e.f.g.h c.d.e.f.g.h d.e.f.g.h e.f.g.h f.g.h g.h h"),
        ("com", "com"),
    ] {
        let wanted: Vec<&str> = names.split_whitespace().collect();
        assert_eq!(walk::names(domain).collect::<Vec<_>>(), wanted, "{domain}");
        let zone = Zone::new("");
        assert_eq!(evaluate(&zone, &authors(domain), &[]).outcome, Outcome::None);
        assert_eq!(zone.asked(), wanted.iter().map(|name| format!("_dmarc.{name}")).collect::<Vec<_>>());
    }
}

/// The examples of RFC 9989 4.10.2 and B.4, and other cases of the same rules.
#[test]
fn organizational_domains() {
    let plain = "v=DMARC1; p=none";
    for (zone, domain, organization) in [
        (
            &*format!("_dmarc.mail.example.com TXT {plain}\n_dmarc.example.com TXT {plain}"),
            "a.mail.example.com",
            "example.com",
        ),
        (
            &*format!("_dmarc.mail.example.com TXT {plain}; psd=n\n_dmarc.example.com TXT {plain}"),
            "a.mail.example.com",
            "mail.example.com",
        ),
        ("_dmarc.com TXT v=DMARC1; psd=y", "a.mail.example.com", "example.com"),
        (&*format!("_dmarc.com TXT {plain}"), "a.mail.example.com", "com"),
        ("", "a.mail.example.com", "a.mail.example.com"),
        (
            &*format!("_dmarc.bank.example TXT {plain}; psd=y\n_dmarc.giant.bank.example TXT {plain}"),
            "mail.giant.bank.example",
            "giant.bank.example",
        ),
        (&*format!("_dmarc.bank.example TXT {plain}; psd=y"), "mail.mega.bank.example", "mega.bank.example"),
        (&*format!("_dmarc.bank.example TXT {plain}; psd=y"), "bank.example", "bank.example"),
        (
            &*format!("_dmarc.bank.example TXT {plain}; psd=y\n_dmarc.example TXT {plain}"),
            "bank.example",
            "bank.example",
        ),
        (&*format!("_dmarc.x.test TXT {plain}; psd=n"), "x.test", "x.test"),
    ] {
        let found = organizational_domain(&Zone::new(zone), domain).expect("no trouble");
        assert_eq!(&*found, organization, "{domain} in {zone}");
    }
    assert_eq!(organizational_domain(&Zone::new("_dmarc.com FAIL"), "example.com"), Err(Trouble::Dns));
}

/// The examples of RFC 9989 B.1, with records that make example.com and example.net organizations.
#[test]
fn alignment() {
    let zone = "_dmarc.example.com TXT v=DMARC1; p=reject\n_dmarc.example.net TXT v=DMARC1; p=reject";
    let strict = "_dmarc.example.com TXT v=DMARC1; p=reject; adkim=s; aspf=s";
    for (from, passed, relaxed_result, strict_result) in [
        ("example.com", "spf:example.com", "pass", "pass"),
        ("example.com", "spf:child.example.com", "pass", "fail reject"),
        ("child.example.com", "spf:example.net", "fail reject", "fail reject"),
        ("example.com", "dkim:example.com", "pass", "pass"),
        ("child.example.com", "dkim:example.com", "pass", "fail reject"),
        ("child.example.com", "dkim:other.example.com", "pass", "fail reject"),
        ("child.example.com", "dkim:example.net", "fail reject", "fail reject"),
        ("example.com", "dkim:com", "fail reject", "fail reject"),
        ("example.com", "dkim:notexample.com", "fail reject", "fail reject"),
        ("example.com", "dkim:EXAMPLE.com.", "pass", "pass"),
        ("Example.COM", "dkim:example.com", "pass", "pass"),
        ("example.com", "", "fail reject", "fail reject"),
        ("example.com", "dkim:example.net spf:example.org dkim:example.com", "pass", "pass"),
    ] {
        assert_eq!(check(zone, from, passed), relaxed_result, "{from} {passed}");
        assert_eq!(check(strict, from, passed), strict_result, "{from} {passed}, strict");
    }
    let only_dkim = "_dmarc.example.com TXT v=DMARC1; p=reject; aspf=s";
    assert_eq!(check(only_dkim, "example.com", "spf:a.example.com"), "fail reject");
    assert_eq!(check(only_dkim, "example.com", "dkim:a.example.com"), "pass");
    let checked = evaluate(&Zone::new(zone), &authors("example.com"), &identifiers("dkim:a.example.com spf:b.test"));
    assert_eq!((checked.spf, checked.dkim), (false, true));
    // With `psd=n`, a domain is an organization of its own below another one (RFC 9989 11.8).
    let split = "_dmarc.mail.example.com TXT v=DMARC1; p=reject; psd=n\n_dmarc.example.com TXT v=DMARC1; p=reject";
    assert_eq!(check(split, "evil.example.com", "dkim:mail.example.com"), "fail reject");
    assert_eq!(check(split, "a.mail.example.com", "dkim:b.mail.example.com"), "pass");
    // Three banks are below one public suffix (RFC 9989 B.4.3).
    let banks =
        "_dmarc.bank.example TXT v=DMARC1; p=reject; psd=y\n_dmarc.giant.bank.example TXT v=DMARC1; p=quarantine";
    assert_eq!(check(banks, "giant.bank.example", "spf:mail.giant.bank.example"), "pass");
    assert_eq!(check(banks, "giant.bank.example", "dkim:mail.mega.bank.example"), "fail quarantine");
    assert_eq!(check(banks, "mega.bank.example", "dkim:giant.bank.example"), "fail reject");
    assert_eq!(check(banks, "mega.bank.example", "dkim:a.mega.bank.example"), "pass");
}

#[test]
fn policies_for_names_below_a_domain() {
    for (record, own, existing, nonexistent) in [
        ("p=reject", "reject", "reject", "reject"),
        ("p=reject; sp=none", "reject", "none", "none"),
        ("p=none; sp=quarantine; np=reject", "none", "quarantine", "reject"),
        ("p=quarantine; np=reject", "quarantine", "quarantine", "reject"),
        ("p=reject; np=none", "reject", "reject", "none"),
        ("p=reject; t=y", "quarantine", "quarantine", "quarantine"),
        ("p=quarantine; sp=reject; np=none; t=y", "none", "quarantine", "none"),
        ("p=none; t=y", "none", "none", "none"),
    ] {
        let zone = format!("_dmarc.x.test TXT v=DMARC1; {record}\nhost.x.test A 192.0.2.1");
        for (from, policy) in [("x.test", own), ("host.x.test", existing), ("none.x.test", nonexistent)] {
            assert_eq!(check(&zone, from, "spf:y.test"), format!("fail {policy}"), "{from}: {record}");
        }
        let trouble = format!("{zone}\nlost.x.test FAIL");
        // The words for the policies happen to sort alphabetically from mild to strict.
        let milder = existing.min(nonexistent);
        assert_eq!(check(&trouble, "lost.x.test", ""), format!("fail {milder}"), "{record}");
    }
    // For the domain of the record itself, only `p` applies. Records between the domain and its
    // organizational domain are ignored.
    let zone = "_dmarc.a.x.test TXT v=DMARC1; p=none; sp=reject\n_dmarc.x.test TXT v=DMARC1; p=reject; sp=quarantine";
    assert_eq!(check(zone, "a.x.test", ""), "fail none");
    assert_eq!(check(zone, "b.a.x.test", ""), "fail quarantine");
}

#[test]
fn testing_is_noted() {
    let zone = Zone::new("_dmarc.x.test TXT v=DMARC1; p=reject; t=y\n_dmarc.y.test TXT v=DMARC1; p=none; t=y");
    let x = evaluate(&zone, &authors("x.test"), &[]);
    assert_eq!(
        (x.policy, x.is_testing, &*x.comment()),
        (Policy::Quarantine, true, "policy quarantine while its owner is testing")
    );
    let y = evaluate(&zone, &authors("y.test"), &[]);
    assert_eq!((y.policy, y.is_testing, &*y.comment()), (Policy::None, false, "policy none"));
}

/// A stranger cannot turn the result of a domain into a temporary error by the choice of another
/// name.
#[test]
fn only_trouble_that_matters_is_an_error() {
    let zone =
        "_dmarc.x.test TXT v=DMARC1; p=reject\n_dmarc.evil.test FAIL\n_dmarc.dark.x.test FAIL\n_dmarc.lost.test FAIL";
    for (from, passed, result) in [
        ("lost.test", "", "temperror"),
        ("lost.test", "spf:lost.test", "temperror"),
        ("a.lost.test", "", "temperror"),
        ("x.test", "dkim:evil.test", "fail reject"),
        ("x.test", "dkim:evil.test?", "fail reject"),
        ("x.test", "dkim:x.test?", "temperror"),
        ("x.test", "spf:a.x.test?", "temperror"),
        ("x.test", "spf:x.test? dkim:x.test", "pass"),
        ("x.test", "dkim:dark.x.test", "temperror"),
        ("x.test", "dkim:dark.x.test spf:x.test", "pass"),
    ] {
        assert_eq!(check(zone, from, passed), result, "{from} {passed}");
    }
    let zone = Zone::new(zone);
    evaluate(&zone, &authors("x.test"), &identifiers("dkim:evil.test spf:a.b.c.evil.example"));
    assert_eq!(zone.asked(), ["_dmarc.x.test", "_dmarc.test"], "strangers' names are not looked up");
    evaluate(&zone, &authors("x.test"), &identifiers("dkim:x.test"));
    assert_eq!(zone.asked(), ["_dmarc.x.test"], "one look-up for the usual message");
}

#[test]
fn look_ups_for_a_hostile_message_are_bounded() {
    let zone = Zone::new("_dmarc.x.test TXT v=DMARC1; p=reject");
    let deep: Vec<String> = (0..100).map(|n| format!("a.b.c.d.e.f.g{n}.x.test")).collect();
    let passed: Vec<Identifier<'_>> = deep
        .iter()
        .map(|domain| Identifier { domain, mechanism: Mechanism::Dkim, vouches: Vouches::Unknown })
        .collect();
    assert_eq!(evaluate(&zone, &authors("x.test"), &passed).outcome, Outcome::TempError);
    assert!(zone.asked().len() <= 60);
}

#[test]
fn several_authors_are_as_good_as_the_worst() {
    let zone = "_dmarc.r.test TXT v=DMARC1; p=reject\n_dmarc.q.test TXT v=DMARC1; p=quarantine\n\
                _dmarc.n.test TXT v=DMARC1; p=none\n_dmarc.lost.test FAIL";
    for (from, passed, result) in [
        ("r.test r.test", "dkim:r.test", "pass"),
        ("r.test q.test", "dkim:r.test", "fail quarantine"),
        ("r.test q.test", "dkim:q.test", "fail reject"),
        ("r.test q.test", "dkim:q.test spf:r.test", "pass"),
        ("evil.test r.test", "dkim:evil.test", "fail reject"),
        ("evil.test", "dkim:evil.test", "none"),
        ("evil.test n.test", "dkim:n.test", "none"),
        ("lost.test r.test", "", "fail reject"),
        ("lost.test n.test", "dkim:n.test", "temperror"),
        ("1.test 2.test 3.test 4.test 5.test 6.test", "", "permerror"),
        ("r.test 2.test 3.test 4.test 5.test 6.test", "", "fail reject"),
        ("[192.0.2.1]", "", "none"),
        ("[192.0.2.1] r.test", "", "fail reject"),
        ("", "", "none"),
    ] {
        assert_eq!(check(zone, from, passed), result, "{from:?} {passed:?}");
    }
}

#[test]
fn domains_in_from() {
    for (header, domains) in [
        ("From: a@x.test", "x.test"),
        ("from : <a@X.Test>", "x.test"),
        ("From: \"b@y.test\" <a@x.test>", "x.test"),
        ("From: (b@y.test) a@x.test (c@z.test)", "x.test"),
        ("From: b@y.test <a@x.test>", "y.test x.test"),
        ("From: a@x.test, b@x.test, c@y.test", "x.test y.test"),
        ("From: group: a@x.test, b@y.test;", "x.test y.test"),
        ("From: a\n @\n x.test", "x.test"),
        ("From: a@x.(c)\n test", "x.test"),
        ("From: a@x .test", "x.test"),
        ("From: <@z.test:a@x.test>", "z.test x.test"),
        ("From: a@x.test\nFrom: b@y.test", "x.test y.test"),
        ("From: a@x.test\nSender: b@y.test\n\nFrom: b@z.test", "x.test"),
        ("From: a@x.test.", "x.test"),
        ("From: \u{fc}@m\u{fc}ller.test", "xn--mller-kva.test"),
        ("From: Jon, Jr. <a@x.test>", "x.test"),
        ("From: =?utf-8?q?a=40b?= <a@x.test>", "x.test"),
        ("From: \"open <a@x.test>", "x.test"),
        ("From: (open a@x.test", "x.test"),
        ("From: \"a\\\"@y.test\" <a@x.test>", "x.test"),
        ("From: \"a b\"@x.test", "x.test"),
        ("From: a@[192.0.2.1]", "[192.0.2.1]"),
        ("From: a@x.test b@y.test", "x.test y.test"),
        ("From: jon", ""),
        ("From:", ""),
        ("To: a@x.test", ""),
        ("From: undisclosed:;", ""),
    ] {
        let found = Authors::of_header(header.as_bytes());
        assert_eq!(found.domains.join(" "), domains, "{header:?}");
        assert_eq!(found.has_more, header.matches("From:").count() > 1 && !header.contains("\n\n"), "{header:?}");
    }
    let hidden =
        format!("Subject: hello\n{}stray line\nFrom: a@\n x.test\n\nFrom: b@y.test\n", "X: y\n".repeat(100_000));
    for size in [1, 7, 1000, hidden.len()] {
        let mut scan = AuthorScan::default();
        hidden.as_bytes().chunks(size).for_each(|piece| scan.feed(piece));
        assert_eq!(scan.finish().domains.join(" "), "x.test", "pieces of {size}");
    }
    let many = authors(&(0..1000).map(|n| format!("d{n}.test ")).collect::<String>());
    assert!(many.has_more && many.domains.len() == MAX_AUTHORS);
}

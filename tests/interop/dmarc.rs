//! DMARC as opendmarc evaluates it, and Authentication-Results fields as authres reads them.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::Command;

use common::built;
use common::chance::Chance;
use common::programs::feed;
use penfold::dns::lookup::Lookup;
use penfold::mailauth::dmarc::{Authors, Identifier, Mechanism, Outcome, Vouches, evaluate};
use penfold::mailauth::results::{One, Results, field};
use penfold::outcome::NoAnswer;

/// The Python for which Debian's packages are installed.
fn python(module: &str) -> Option<Command> {
    let has = |python: &str| {
        let import = Command::new(python).args(["-c", &format!("import {module}")]).output();
        import.is_ok_and(|output| output.status.success())
    };
    let python = ["/usr/bin/python3", "python3"].into_iter().find(|python| has(python));
    if python.is_none() {
        common::skipped(format!("Python or its package {module} is not installed"));
    }
    python.map(Command::new)
}

/// Runs a script with these lines, and returns the lines of its output.
fn run(script: &str, module: &str, input: &str) -> Option<Vec<String>> {
    let mut python = python(module)?;
    let output = feed(python.arg("-B").arg(built::source("tests/interop").join(script)), input.as_bytes());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect())
}

/// A text as a string in JSON.
fn json(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        let _ = match c {
            '"' | '\\' => write!(out, "\\{c}"),
            c if c < ' ' => write!(out, "\\u{:04x}", u32::from(c)),
            c => write!(out, "{c}"),
        };
    }
    out + "\""
}

/// A message: the records of a zone, the domain in From, and the domains of `spf:`, `helo:` and
/// `dkim:` that have passed.
struct Case {
    zone: Vec<(String, String)>,
    from: String,
    passed: String,
}

impl Case {
    /// A case with a zone of the form `domain: record | domain: record`.
    fn new(zone: &str, from: &str, passed: &str) -> Self {
        let record = |text: &str| {
            let (domain, record) = text.split_once(": ").expect("domain: record");
            (format!("_dmarc.{}", domain.trim()), record.trim().to_owned())
        };
        let zone = zone.split(" | ").filter(|text| !text.is_empty()).map(record).collect();
        Self { zone, from: from.to_owned(), passed: passed.to_owned() }
    }

    fn passed(&self) -> impl Iterator<Item = (&str, &str)> {
        self.passed.split_whitespace().map(|word| word.split_once(':').expect("mechanism:domain"))
    }

    /// The case as opendmarc.py reads it.
    fn to_json(&self) -> String {
        let list = |items: Vec<String>| format!("[{}]", items.join(","));
        let zone = self.zone.iter().map(|(name, text)| format!("[{},{}]", json(name), json(text))).collect();
        let spf = self
            .passed()
            .find(|(mechanism, _)| *mechanism != "dkim")
            .map_or("null".to_owned(), |(by, domain)| format!("[{},\"pass\",{}]", json(domain), by == "helo"));
        let dkim = self.passed().filter(|(by, _)| *by == "dkim").map(|(_, d)| format!("[{},\"pass\"]", json(d)));
        let (zone, dkim) = (list(zone), list(dkim.collect()));
        format!("{{\"zone\":{zone},\"from\":{},\"spf\":{spf},\"dkim\":{dkim}}}\n", json(&self.from))
    }

    /// Penfold's result, as opendmarc.py writes it.
    fn evaluate(&self) -> String {
        let identifier = |(by, domain)| {
            let mechanism = if by == "dkim" { Mechanism::Dkim } else { Mechanism::Spf };
            Identifier { domain, mechanism, vouches: Vouches::Yes }
        };
        // Nothing vouches for a HELO name of a message with a sender.
        let identifiers: Vec<_> = self.passed().filter(|(by, _)| *by != "helo").map(identifier).collect();
        let authors = Authors::of_header(format!("From: a@{}\n", self.from).as_bytes());
        let checked = evaluate(self, &authors, &identifiers);
        match checked.outcome {
            Outcome::Fail => format!("fail {}", checked.policy),
            outcome => outcome.name().to_owned(),
        }
    }
}

impl Lookup for Case {
    fn txt(&self, name: &str) -> Result<Vec<Vec<u8>>, NoAnswer> {
        let texts: Vec<_> = self.zone.iter().filter(|(owner, _)| owner == name).map(|(_, text)| text.clone()).collect();
        if texts.is_empty() { Err(NoAnswer::NoData) } else { Ok(texts.into_iter().map(String::into_bytes).collect()) }
    }

    fn ipv4(&self, _: &str) -> Result<Vec<Ipv4Addr>, NoAnswer> {
        Err(NoAnswer::NxDomain)
    }

    fn ipv6(&self, _: &str) -> Result<Vec<Ipv6Addr>, NoAnswer> {
        Err(NoAnswer::NxDomain)
    }

    fn mx(&self, _: &str) -> Result<Vec<(u16, String)>, NoAnswer> {
        Err(NoAnswer::NxDomain)
    }

    fn names(&self, _: IpAddr) -> Result<Vec<String>, NoAnswer> {
        Err(NoAnswer::NxDomain)
    }
}

/// The results of opendmarc's library; `None` if it is not installed.
fn opendmarc(cases: &[Case]) -> Option<Vec<String>> {
    if !Path::new("/usr/share/publicsuffix/public_suffix_list.dat").exists() {
        common::skipped("the package publicsuffix is not installed");
        return None;
    }
    let module = "ctypes; ctypes.CDLL('libopendmarc.so.2')";
    let found = run("opendmarc.py", module, &cases.iter().map(Case::to_json).collect::<String>())?;
    assert_eq!(found.len(), cases.len());
    Some(found)
}

/// Where RFC 7489 and RFC 9989 agree, both programs find the same.
#[test]
fn opendmarc_finds_the_same_where_the_rfcs_agree() {
    const RECORDS: [&str; 7] = [
        "v=DMARC1; p=reject",
        "v=DMARC1; p=quarantine; rua=mailto:a@example.com",
        "v=DMARC1;p=none;",
        "v=DMARC1; p=reject; sp=none",
        "v=DMARC1; p=none; sp=quarantine; adkim=r; aspf=r",
        "v = DMARC1 ; p = quarantine ; x = y",
        "v=DMARC1; p=reject; sp=quarantine; fo=1; ruf=mailto:a@example.com",
    ];
    const DOMAINS: [&str; 7] = [
        "example.com",
        "a.example.com",
        "b.a.example.com",
        "example.net",
        "a.example.net",
        "notexample.com",
        "a.example.co.uk",
    ];
    let mut chance = Chance::new(20_260_520, "");
    let random = |_| {
        // The registered domain has a record, and the domain itself may have another one.
        let mut zone = format!("example.com: {}", chance.pick(&RECORDS));
        for domain in ["a.example.com", "b.a.example.com", "example.co.uk", "example.net"] {
            if chance.of(0..3) == 0 {
                zone += &format!(" | {domain}: {}", chance.pick(&RECORDS));
            }
        }
        let from = *chance.pick(&DOMAINS);
        let mut passed = String::new();
        for mechanism in ["spf", "dkim"] {
            if chance.of(0..2) == 0 {
                passed += &format!("{mechanism}:{} ", chance.pick(&DOMAINS));
            }
        }
        Case::new(&zone, from, &passed)
    };
    let mut cases: Vec<Case> = (0..300).map(random).collect();
    for (zone, from, passed) in [
        ("", "example.com", "spf:example.com"),
        ("example.com: v=DMARC1; p=reject", "EXAMPLE.com", "dkim:Example.COM"),
        ("example.com: v=DMARC1; p=reject", "example.com", ""),
        ("example.co.uk: v=DMARC1; p=reject", "a.example.co.uk", "spf:b.example.co.uk"),
        ("example.co.uk: v=DMARC1; p=reject", "a.example.co.uk", "spf:other.co.uk"),
    ] {
        cases.push(Case::new(zone, from, passed));
    }
    let Some(theirs) = opendmarc(&cases) else { return };
    for (case, theirs) in cases.iter().zip(&theirs) {
        assert_eq!(&case.evaluate(), theirs, "{}", case.to_json());
    }
    let count = |result: &str| theirs.iter().filter(|theirs| theirs.starts_with(result)).count();
    assert!(count("pass") > 30 && count("fail") > 30 && count("none") > 10, "{theirs:?}");
}

/// The differences that penfold-smtp(7) names.
#[test]
fn opendmarc_differs_as_documented() {
    let differences = [
        // A walk instead of a list.
        ("a.example.com: v=DMARC1; p=reject", "b.a.example.com", "", "fail reject", "none"),
        ("co.uk: v=DMARC1; p=reject; psd=y", "example.co.uk", "", "fail reject", "none"),
        (
            "example.com: v=DMARC1; p=none | a.example.com: v=DMARC1; p=reject; psd=n",
            "b.a.example.com",
            "dkim:c.example.com",
            "fail reject",
            "pass",
        ),
        // Tags.
        ("example.com: v=DMARC1; p=reject; np=none", "a.example.com", "", "fail none", "fail reject"),
        ("example.com: v=DMARC1; p=reject; t=y", "example.com", "", "fail quarantine", "fail reject"),
        ("example.com: v=DMARC1; rua=mailto:a@example.com", "example.com", "", "fail none", "error 5"),
        ("example.com: v=DMARC1; p=bob; rua=mailto:a@example.com", "example.com", "", "fail none", "error 4"),
        // Identifiers.
        ("example.com: v=DMARC1; p=reject", "example.com", "helo:example.com", "fail reject", "pass"),
        ("example.com: v=DMARC1; p=reject; adkim=s", "example.com", "dkim:a.example.com", "fail reject", "pass"),
        ("example.com: v=DMARC1; p=reject", "example.com", "dkim:com", "fail reject", "pass"),
    ];
    let cases: Vec<Case> = differences.iter().map(|(zone, from, passed, ..)| Case::new(zone, from, passed)).collect();
    let found = opendmarc(&cases);
    for (at, (zone, from, passed, ours, theirs)) in differences.into_iter().enumerate() {
        assert_eq!(cases[at].evaluate(), ours, "{zone} {from} {passed}");
        if let Some(found) = &found {
            assert_eq!(found[at], theirs, "{zone} {from} {passed}");
        }
    }
}

/// Whatever the values are, authres reads what was meant. It understands a quoted string only in the
/// last property of a result; penfold writes the values that often need quotes last.
#[test]
fn authres_reads_what_penfold_writes() {
    const PIECES: [&str; 14] =
        ["a", "Z9", "example.org", "@", ".", ";", "=", "(", ")", "\"", "\\", " ", "dkim=pass", "\u{fc}"];
    let mut chance = Chance::new(8601, "");
    let (mut input, mut wanted) = (String::new(), Vec::new());
    for _ in 0..300 {
        let mut text = || (0..chance.of(1..9)).map(|_| *chance.pick(&PIECES)).collect::<String>();
        let (comment, sender, selector) = (text(), text(), text());
        let mut results = Results::default();
        results.add(One::new("iprev", "pass").comment(&comment).property("policy.iprev", "2001:db8::1"));
        results.add(One::new("spf", "softfail").comment(&comment).property("smtp.mailfrom", &sender));
        results.add(One::new("spf", "none").property("smtp.helo", "mx.example.org"));
        for _ in 0..3 {
            let one = One::new("dkim", "fail").comment(&comment).property("header.d", "example.org");
            results.add(one.property("header.s", &selector));
        }
        let signature = One::new("dkim", "pass").property("header.d", "example.org").property("header.s", "2026a");
        results.add(signature.property("header.b", "ab/+cd=="));
        results.add(One::new("dmarc", "fail").comment(&comment).property("header.from", "example.org"));
        input += &format!("{}\n", json(&field(&results, "mx.example.net")));
        let shown = |text: &str| json(&text.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect::<String>());
        let dkim =
            format!("[\"dkim\", \"fail\", [[\"header.d\", \"example.org\"], [\"header.s\", {}]]]", shown(&selector));
        wanted.push(format!(
            "[\"mx.example.net\", [[\"iprev\", \"pass\", [[\"policy.iprev\", \"2001:db8::1\"]]], \
             [\"spf\", \"softfail\", [[\"smtp.mailfrom\", {}]]], [\"spf\", \"none\", [[\"smtp.helo\", \"mx.example.org\"]]], \
             {dkim}, {dkim}, {dkim}, [\"dkim\", \"pass\", [[\"header.d\", \"example.org\"], [\"header.s\", \"2026a\"], \
             [\"header.b\", \"ab/+cd==\"]]], [\"dmarc\", \"fail\", [[\"header.from\", \"example.org\"]]]]]",
            shown(&sender)
        ));
    }
    input += &format!("{}\n", json(&field(&Results::default(), "mx.example.net")));
    wanted.push("[\"mx.example.net\", []]".to_owned());
    let Some(found) = run("read_results.py", "authres", &input) else { return };
    for ((found, wanted), line) in found.iter().zip(&wanted).zip(input.lines()) {
        assert_eq!(found, wanted, "{line}");
    }
    assert_eq!(found.len(), wanted.len());
}

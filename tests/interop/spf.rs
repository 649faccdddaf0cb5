//! SPF: the published test suite for RFC 7208, and random records that pyspf evaluates as well.
//!
//! The suite is part of the sources of pyspf, which tests/setup unpacks; it does not belong to this
//! repository. spf.py reads it, and lets pyspf check the same records.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::Command;

use common::chance::Chance;
use common::programs::feed;
use common::{built, unpacked};
use penfold::dns::lookup::Lookup;
use penfold::mailauth::spf::{Checked, SpfResult, check};
use penfold::outcome::NoAnswer;

const HERE: &str = "mx.here.test";

/// A zone, and the tests with it.
#[derive(Default)]
struct Scenario {
    /// The records of each name: type and data.
    records: BTreeMap<String, Vec<(String, Vec<u8>)>>,
    tests: Vec<Test>,
}

struct Test {
    name: String,
    hello: String,
    address: IpAddr,
    sender: String,
    results: Vec<String>,
    explanation: String,
}

impl Scenario {
    fn find(&self, name: &str, kind: &str) -> Result<Vec<&[u8]>, NoAnswer> {
        let mut name = name.trim_end_matches('.').to_ascii_lowercase();
        for _ in 0..10 {
            if name.split('.').any(|label| label.is_empty() || label.len() > 63) {
                return Err(NoAnswer::BadName);
            }
            let Some(here) = self.records.get(&name) else { return Err(NoAnswer::NxDomain) };
            let of = |kind: &str| here.iter().filter(|(k, _)| k == kind).map(|(_, d)| &d[..]).collect::<Vec<_>>();
            match (of(kind), of("CNAME").pop()) {
                (found, _) if !found.is_empty() => return Ok(found),
                _ if !of("TIMEOUT").is_empty() => return Err(NoAnswer::Timeout),
                (_, Some(alias)) => name = text(alias).trim_end_matches('.').to_ascii_lowercase(),
                _ => return Err(NoAnswer::NoData),
            }
        }
        Err(NoAnswer::Other("the name is an alias in a loop".into()))
    }

    fn texts(&self, name: &str, kind: &str) -> Result<Vec<String>, NoAnswer> {
        Ok(self.find(name, kind)?.into_iter().map(text).collect())
    }
}

impl Lookup for Scenario {
    fn txt(&self, name: &str) -> Result<Vec<Vec<u8>>, NoAnswer> {
        Ok(self.find(name, "TXT")?.into_iter().map(<[u8]>::to_vec).collect())
    }
    fn ipv4(&self, name: &str) -> Result<Vec<Ipv4Addr>, NoAnswer> {
        Ok(self.texts(name, "A")?.iter().map(|data| data.parse().expect("an address")).collect())
    }
    fn ipv6(&self, name: &str) -> Result<Vec<Ipv6Addr>, NoAnswer> {
        Ok(self.texts(name, "AAAA")?.iter().map(|data| data.parse().expect("an address")).collect())
    }
    fn mx(&self, domain: &str) -> Result<Vec<(u16, String)>, NoAnswer> {
        let exchanger = |data: &String| {
            let (preference, host) = data.split_once(' ').expect("an exchanger");
            (preference.parse().expect("a preference"), host.to_owned())
        };
        Ok(self.texts(domain, "MX")?.iter().map(exchanger).collect())
    }
    fn names(&self, address: IpAddr) -> Result<Vec<String>, NoAnswer> {
        self.texts(&reverse(address), "PTR")
    }
}

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

/// The name under which the names of an address are looked up.
fn reverse(address: IpAddr) -> String {
    match address {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(ip) => {
            let digits = ip.octets().into_iter().rev().map(|octet| format!("{:x}.{:x}.", octet & 15, octet >> 4));
            digits.collect::<String>() + "ip6.arpa"
        }
    }
}

fn decode(field: &str) -> Vec<u8> {
    let (mut octets, mut rest) = (Vec::new(), field.bytes());
    while let Some(octet) = rest.next() {
        if octet != b'%' {
            octets.push(octet);
            continue;
        }
        let mut digit = || rest.next().and_then(|b| char::from(b).to_digit(16)).expect("a hexadecimal digit");
        octets.push((digit() * 16 + digit()) as u8);
    }
    octets
}

fn encode(field: &str) -> String {
    field.bytes().map(|octet| format!("%{octet:02X}")).collect()
}

/// Reads the lines that spf.py describes.
fn scenarios(lines: &str) -> Vec<Scenario> {
    let mut all = Vec::<Scenario>::new();
    for line in lines.lines() {
        let fields: Vec<Vec<u8>> = line.split('\t').map(decode).collect();
        let field = |at: usize| text(&fields[at]);
        let scenario = match field(0).as_str() {
            "scenario" => {
                all.push(Scenario::default());
                continue;
            }
            _ => all.last_mut().expect("a scenario comes first"),
        };
        if field(0) == "record" {
            let here = scenario.records.entry(field(1).to_ascii_lowercase()).or_default();
            here.push((field(2), fields[3].clone()));
            continue;
        }
        scenario.tests.push(Test {
            name: field(1),
            hello: field(2),
            address: field(3).parse().expect("an address"),
            sender: field(4),
            results: field(5).split(' ').map(str::to_owned).collect(),
            explanation: field(6),
        });
    }
    all
}

/// Python with PyYAML, and the sources of pyspf.
struct Peer {
    python: &'static str,
    sources: PathBuf,
}

impl Peer {
    /// `None`, and the test is reported as skipped, if one is missing.
    fn find() -> Option<Self> {
        let Some(sources) = unpacked::tree("pyspf") else {
            common::skipped("the sources of pyspf 2.0.14 are not in target/peers/pyspf.pkg: run tests/setup");
            return None;
        };
        let has_yaml = |python: &&str| {
            let output = Command::new(python).args(["-c", "import yaml"]).output();
            output.is_ok_and(|output| output.status.success())
        };
        let Some(python) = ["python3", "/usr/bin/python3"].into_iter().find(has_yaml) else {
            common::skipped("Python or its package yaml is not installed");
            return None;
        };
        Some(Self { python, sources })
    }

    fn run(&self, verb: &str, input: &str) -> String {
        let mut python = Command::new(self.python);
        python.arg(built::source("tests/interop/spf.py")).arg(verb).arg(&self.sources);
        let output = feed(python.env("PYTHONDONTWRITEBYTECODE", "1"), input.as_bytes());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("ASCII")
    }
}

impl Test {
    fn check(&self, zone: &Scenario) -> Checked {
        check(zone, self.address, &self.hello, &self.sender, HERE)
    }
}

#[test]
fn every_test_of_the_published_suite_has_a_result_that_it_allows() {
    let Some(peer) = Peer::find() else { return };
    let (mut count, mut complaints) = (0, String::new());
    for scenario in scenarios(&peer.run("suite", "")) {
        for test in &scenario.tests {
            count += 1;
            let checked = test.check(&scenario);
            let want = match test.explanation.as_str() {
                "" | "DEFAULT" => None,
                text => Some(text),
            };
            let is_good = test.results.contains(&checked.result.to_string())
                && (test.explanation.is_empty()
                    || checked.explanation.as_deref().map(str::to_lowercase) == want.map(str::to_lowercase));
            if !is_good {
                let _ = writeln!(complaints, "{}: {checked:?}, and not {:?} {want:?}", test.name, test.results);
            }
        }
    }
    assert!(complaints.is_empty(), "\n{complaints}");
    assert_eq!(count, 203);
}

/// A random domain of the zones below.
fn domain(chance: &mut Chance) -> String {
    let letter = *chance.pick(&["a", "b", "c", "d", "e", "f", "none"]);
    format!("{letter}.test")
}

/// A random term of a record, often with an error.
fn term(chance: &mut Chance) -> String {
    let is_bad = chance.percent(3);
    let qualifier = if is_bad { "!" } else { *chance.pick(&["", "", "", "+", "-", "~", "?"]) };
    let name = match chance.of(0..6) {
        0 => "%{d}".to_owned(),
        1 => format!(
            "%{{{}}}.{}",
            chance.pick(&["i", "ir", "l", "l1r-", "h", "d1", "o2", "p", "L", "v", "s", "dr"]),
            domain(chance)
        ),
        _ => domain(chance),
    };
    let is_bad = chance.percent(3);
    let bits = match is_bad {
        true => *chance.pick(&["/33", "/024", "//129"]),
        false => *chance.pick(&["", "", "", "/24", "/0", "//64", "/24//64", "/32", "//128"]),
    };
    let term = match chance.of(0..12) {
        0 => {
            chance.pick(&["all", "all:x", "ALL", "moo", "ptr/24", "ip4:1.2.3", "a:b", "x=%{d}", "x=%", "a:%{c}.b.test"])
                [..]
                .to_owned()
        }
        1 => format!("include:{name}"),
        2 | 3 => format!("a:{name}{bits}"),
        4 => format!("a{bits}"),
        5 => format!("mx:{name}{bits}"),
        6 => format!("mx{bits}"),
        7 => format!("ip4:192.0.2.{}{}", chance.of(0..5), chance.pick(&["", "/30", "/24", "/32"])),
        8 => format!("ip6:2001:db8::{}{}", chance.of(0..5), chance.pick(&["", "/126", "/64", "/128"])),
        9 => format!("exists:{name}"),
        10 => {
            if chance.percent(50) {
                "ptr".to_owned()
            } else {
                format!("ptr:{name}")
            }
        }
        _ => format!("redirect={name}"),
    };
    if term.contains('=') { term } else { format!("{qualifier}{term}") }
}

/// The lines of a random scenario.
fn scenario(chance: &mut Chance) -> String {
    let mut lines = format!("{}\t{}\n", encode("scenario"), encode("random"));
    // A name whose server does not answer. With more than one mail exchanger, pyspf may ask it before
    // the one that matches.
    let silent = if chance.percent(20) { domain(chance) } else { String::new() };
    let exchangers = if silent.is_empty() { 4 } else { 2 };
    const EXPLANATION: &str = "%{s} %{S} %{o} %{lr-} %{ir}.%{v} %{c} %{h} %{r} %{d1}%%%_%-";
    let mut record = |name: &str, kind: &str, data: &str| {
        let _ = writeln!(lines, "{}\t{}\t{}\t{}", encode("record"), encode(name), encode(kind), encode(data));
    };
    for name in ["a.test", "b.test", "c.test", "d.test", "e.test", "f.test"] {
        record(name, "OTHER", "");
        if name == silent {
            record(name, "TIMEOUT", "");
            continue;
        }
        if chance.percent(90) {
            let terms: Vec<_> = (0..chance.of(0..6)).map(|_| term(chance)).collect();
            let all = *chance.pick(&["", " -all", " ~all", " ?all", " all"]);
            let explanation = *chance.pick(&["", "", "", " exp=x.test", " exp=%{d}.test", " exp=y.test"]);
            record(name, "TXT", &format!("v=spf1 {}{all}{explanation}", terms.join(" ")).replace("  ", " "));
        }
        if chance.percent(80) {
            record(name, "A", &format!("192.0.2.{}", chance.of(0..5)));
            record(name, "AAAA", &format!("2001:db8::{}", chance.of(0..5)));
        }
        for preference in 0..chance.of(0..exchangers) {
            record(name, "MX", &format!("{preference} {}", domain(chance)));
        }
        for inside in ["192.0.2.1", "1.2.0.192", "x", "test", "b.test", "in-addr", "unknown"] {
            if chance.percent(20) {
                record(&format!("{inside}.{name}"), "A", "192.0.2.1");
            }
        }
    }
    record("x.test", "TXT", EXPLANATION);
    record("a.test.test", "TXT", EXPLANATION);
    record("y.test", "TXT", "a syntax %error");
    // If the server of a client's name does not answer, pyspf fails, and does not skip the name as RFC
    // 7208 5.5 says.
    let mut names: Vec<_> = (0..4).map(|_| domain(chance)).collect();
    names.retain(|name| *name != silent);
    for (at, name) in names.iter().enumerate() {
        let address = if at == 0 { "2001:db8::1" } else { "192.0.2.1" };
        record(&reverse(address.parse().expect("an address")), "PTR", name);
    }
    for (number, address) in ["192.0.2.1", "2001:db8::1", "192.0.2.77"].iter().enumerate() {
        let sender = *chance.pick(&["x@a.test", "strong-bad@a.test", "x+y@b.test", ""]);
        let fields = ["test", &number.to_string(), "b.test", address, sender, "any", ""].map(encode);
        let _ = writeln!(lines, "{}", fields.join("\t"));
    }
    lines
}

#[test]
fn pyspf_has_the_same_result_for_random_records() {
    const SCENARIOS: usize = 2000;
    let Some(peer) = Peer::find() else { return };
    let seed = std::env::var("PENFOLD_SPF_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_260_801);
    let mut chance = Chance::new(seed, "spf");
    let lines: String = (0..SCENARIOS).map(|_| scenario(&mut chance)).collect();
    let theirs = peer.run("check", &lines);
    let mut theirs = theirs.lines();
    let (mut complaints, mut count, mut tally) = (String::new(), 0, BTreeMap::<String, usize>::new());
    for scenario in scenarios(&lines) {
        for test in &scenario.tests {
            let line = theirs.next().expect("a result for each test");
            let fields: Vec<String> = line.split('\t').map(|field| text(&decode(field))).collect();
            let checked = test.check(&scenario);
            *tally.entry(checked.result.to_string()).or_default() += 1;
            let is_same = fields[1] == checked.result.to_string()
                && (checked.result != SpfResult::Fail
                    || fields[2] == checked.explanation.as_deref().unwrap_or("DEFAULT"));
            if !is_same && !is_known_difference(&fields[2]) {
                count += 1;
                if count <= 5 {
                    let _ = writeln!(
                        complaints,
                        "\n{}{} {} {}: {checked:?}, and not {fields:?}",
                        show(&scenario),
                        test.hello,
                        test.address,
                        test.sender
                    );
                }
            }
        }
    }
    println!("{tally:?}");
    assert!(count == 0, "{count} differences:\n{complaints}");
    // Every result occurs often enough to show something.
    for result in [
        SpfResult::Pass,
        SpfResult::Fail,
        SpfResult::SoftFail,
        SpfResult::Neutral,
        SpfResult::PermError,
        SpfResult::TempError,
    ] {
        assert!(tally.get(&result.to_string()).is_some_and(|count| *count > 100), "{tally:?}");
    }
}

/// pyspf rejects a record that includes itself even if the term is never reached, and one that has
/// an unknown modifier twice, which RFC 7208 6 allows.
fn is_known_difference(theirs: &str) -> bool {
    theirs.contains("trivial recursion") || theirs.contains("x= MUST appear at most once")
}

fn show(scenario: &Scenario) -> String {
    let mut lines = String::new();
    for (name, records) in &scenario.records {
        for (kind, data) in records.iter().filter(|(kind, _)| kind != "OTHER") {
            let _ = writeln!(lines, "{name} {kind} {}", text(data));
        }
    }
    lines
}

//! DMARC records, the field From, and Authentication-Results fields: random and mutated.
//!
//! Fields that penfold writes are read again by a strict reader of this test. Records come from a
//! zone of random records, in which every answer is possible.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};

use common::chance::Chance;
use penfold::dns::lookup::Lookup;
use penfold::mailauth::dmarc::{
    Authors, Identifier, MAX_AUTHORS, Mechanism, Outcome, Policy, Record, Vouches, evaluate,
};
use penfold::mailauth::results::{One, Results, claims_to_be, field};
use penfold::outcome::NoAnswer;

use super::{mutate, repeat};

const HOST: &str = "mx.example.net";

/// A text of characters that matter in a field.
fn text(chance: &mut Chance) -> String {
    const CHARACTERS: [&str; 20] = [
        "a",
        "Z",
        "0",
        "example.org",
        "@",
        ".",
        ";",
        "=",
        "(",
        ")",
        "\"",
        "\\",
        " ",
        "\t",
        "\n",
        "\r\n",
        "\0",
        "\u{fc}",
        "dkim=pass",
        "/",
    ];
    let length = if chance.of(0..50) == 0 { 3000 } else { chance.of(0..12) };
    (0..length).map(|_| *chance.pick(&CHARACTERS)).collect()
}

#[test]
fn a_field_that_is_written_says_what_was_meant() {
    const NAMES: [&str; 4] = ["smtp.mailfrom", "header.d", "header.s", "policy.iprev"];
    repeat(|chance| {
        let (mut results, mut wanted) = (Results::default(), Vec::new());
        for _ in 0..chance.of(0..4) {
            let (method, result) = (*chance.pick(&["spf", "dkim", "dmarc"]), *chance.pick(&["pass", "fail", "none"]));
            let mut one = One::new(method, result).comment(&text(chance));
            let mut properties = Vec::new();
            for name in NAMES.into_iter().take(chance.of(0..4)) {
                let value = text(chance);
                one = one.property(name, &value);
                let shown = value.chars().take(320).map(|c| if (' '..='~').contains(&c) { c } else { '?' });
                if !value.is_empty() {
                    properties.push((name.to_owned(), shown.collect::<String>()));
                }
            }
            results.add(one);
            wanted.push((method.to_owned(), result.to_owned(), properties));
        }
        let written = field(&results, HOST);
        let body = written.strip_prefix("Authentication-Results:").and_then(|body| body.strip_suffix('\n'));
        let body = body.unwrap_or_else(|| panic!("{written:?}"));
        assert!(written.lines().all(|line| line.len() <= 998), "{written:?}");
        assert!(written.bytes().all(|b| b == b'\n' || b == b'\t' || (b' '..=b'~').contains(&b)), "{written:?}");
        assert!(body.lines().skip(1).all(|line| line.starts_with('\t')), "{written:?}");
        assert!(claims_to_be(body.as_bytes(), HOST));
        assert_eq!(Reader(body).field(), (HOST.to_owned(), wanted), "{written:?}");
    });
}

/// Method, result and properties.
type Read = (String, String, Vec<(String, String)>);

/// A strict reader of RFC 8601 2.2, without versions and reasons. It panics on any error.
struct Reader<'a>(&'a str);

impl Reader<'_> {
    fn field(mut self) -> (String, Vec<Read>) {
        let id = self.value();
        let mut all = Vec::new();
        while self.skip(";") {
            let method = self.token();
            if method == "none" && all.is_empty() {
                break;
            }
            assert!(self.skip("="));
            let result = self.token();
            let mut properties = Vec::new();
            self.blanks();
            while !self.0.is_empty() && !self.0.starts_with(';') {
                let name = self.token();
                assert!(self.skip("="));
                properties.push((name, self.value()));
                self.blanks();
            }
            all.push((method, result, properties));
        }
        self.blanks();
        assert_eq!(self.0, "");
        (id, all)
    }

    /// Skips blanks, line ends and comments.
    fn blanks(&mut self) {
        let mut depth = 0;
        let mut chars = self.0.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '(' => depth += 1,
                ')' if depth > 0 => depth -= 1,
                '\\' if depth > 0 => drop(chars.next()),
                ' ' | '\t' | '\n' => {}
                _ if depth > 0 => {}
                _ => {
                    self.0 = &self.0[at..];
                    return;
                }
            }
        }
        assert_eq!(depth, 0);
        self.0 = "";
    }

    fn skip(&mut self, text: &str) -> bool {
        self.blanks();
        self.0.strip_prefix(text).map(|rest| self.0 = rest).is_some()
    }

    /// A token, or an address of which the characters need no quotes.
    fn token(&mut self) -> String {
        self.blanks();
        let end =
            self.0.find(|c: char| !c.is_ascii_graphic() || "()<>,;:\\\"/[]?=".contains(c)).unwrap_or(self.0.len());
        let (token, rest) = self.0.split_at(end);
        assert!(!token.is_empty(), "{:?}", self.0);
        self.0 = rest;
        token.to_owned()
    }

    fn value(&mut self) -> String {
        self.blanks();
        let Some(rest) = self.0.strip_prefix('"') else { return self.token() };
        let (mut value, mut chars) = (String::new(), rest.char_indices());
        loop {
            match chars.next().expect("a closing quote") {
                (at, '"') => {
                    self.0 = &rest[at + 1..];
                    return value;
                }
                (_, '\\') => value.push(chars.next().expect("a character").1),
                (_, c) => value.push(c),
            }
        }
    }
}

/// However a field is mutated around our name, it is found as long as a strict reader finds it.
#[test]
fn mutated_fields_are_judged_without_a_panic() {
    let valid =
        ["mx.example.net; spf=pass", "\n\t(a (b)) \"mx.example.net\" 1 (c);\n\tdkim=pass", "MX.Example.net;none"];
    let mut found = 0;
    repeat(|chance| {
        let field = mutated(chance, &valid);
        let claims = claims_to_be(&field, HOST);
        let front = field.split(|&b| b == b';').next().unwrap_or_default();
        if String::from_utf8_lossy(front).trim().eq_ignore_ascii_case(HOST) && field.contains(&b';') {
            found += 1;
            assert!(claims, "{}", field.escape_ascii());
        }
    });
    assert!(found > 10, "only {found}");
}

/// A mutation of one of several texts.
fn mutated(chance: &mut Chance, from: &[&str]) -> Vec<u8> {
    let text = *chance.pick(from);
    mutate(chance, text.as_bytes())
}

/// The domains that the zones of these tests have.
const DOMAINS: [&str; 8] =
    ["test", "x.test", "a.x.test", "b.a.x.test", "y.test", "1.2.3.4.5.6.7.x.test", "xtest", "evil.example"];
const RECORDS: [&str; 7] = [
    "v=DMARC1; p=reject; rua=mailto:a@x.test!10m,https://x.test/",
    "v=DMARC1; p=quarantine; sp=reject; np=none; psd=y",
    "v=DMARC1; p=none; adkim=s; aspf=s; t=y; psd=n; fo=0:d:s",
    "v=DMARC1",
    "v=DMARC1; p=x; rua=mailto:a%40b@x.test",
    "v=spf1 -all",
    "",
];

/// An answer with TXT records.
type Texts = Result<Vec<Vec<u8>>, NoAnswer>;

/// A zone that answers at random, but the same for the same name.
struct Zone {
    answers: Vec<(String, Texts)>,
    asked: AtomicUsize,
}

impl Zone {
    fn new(chance: &mut Chance) -> Self {
        let mut answers = Vec::new();
        for domain in DOMAINS {
            let mut record = || {
                let record = *chance.pick(&RECORDS);
                if chance.of(0..4) == 0 { mutate(chance, record.as_bytes()) } else { record.as_bytes().to_vec() }
            };
            let answer = Ok(vec![record()]);
            let two = vec![record(), record()];
            answers.push((
                format!("_dmarc.{domain}"),
                match chance.of(0..8) {
                    0 => Err(NoAnswer::NxDomain),
                    1 => Err(NoAnswer::ServFail),
                    2 => Ok(two),
                    3 => Ok(Vec::new()),
                    4 => Err(NoAnswer::NoData),
                    _ => answer,
                },
            ));
        }
        Self { answers, asked: AtomicUsize::new(0) }
    }
}

impl Lookup for Zone {
    fn txt(&self, name: &str) -> Result<Vec<Vec<u8>>, NoAnswer> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let found = self.answers.iter().find(|(owner, _)| owner == name);
        found.map_or(Err(NoAnswer::NxDomain), |(_, answer)| answer.clone())
    }

    fn ipv4(&self, _: &str) -> Result<Vec<Ipv4Addr>, NoAnswer> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Err(NoAnswer::NxDomain)
    }

    fn ipv6(&self, _: &str) -> Result<Vec<Ipv6Addr>, NoAnswer> {
        Err(NoAnswer::NoData)
    }

    fn mx(&self, _: &str) -> Result<Vec<(u16, String)>, NoAnswer> {
        Err(NoAnswer::NoData)
    }

    fn names(&self, _: IpAddr) -> Result<Vec<String>, NoAnswer> {
        Err(NoAnswer::NoData)
    }
}

/// Whatever the zone says: a message passes only for a domain that vouches for it and shares the
/// last label, a policy comes only from a record, and the look-ups are bounded.
#[test]
fn a_result_has_a_reason() {
    let (mut passes, mut failures) = (0, 0);
    repeat(|chance| {
        let zone = Zone::new(chance);
        let from = *chance.pick(&DOMAINS);
        let identifiers: Vec<Identifier<'_>> = (0..chance.of(0..4))
            .map(|_| Identifier {
                domain: DOMAINS[chance.of(0..DOMAINS.len())],
                mechanism: *chance.pick(&[Mechanism::Spf, Mechanism::Dkim]),
                vouches: *chance.pick(&[Vouches::Yes, Vouches::Unknown]),
            })
            .collect();
        let header = format!("From: A <a@{from}>\n");
        let checked = evaluate(&zone, &Authors::of_header(header.as_bytes()), &identifiers);
        assert!(zone.asked.load(Ordering::Relaxed) <= 60);
        let may_pass = identifiers
            .iter()
            .any(|one| one.vouches == Vouches::Yes && one.domain.rsplit('.').next() == from.rsplit('.').next());
        match checked.outcome {
            Outcome::Pass => assert!(may_pass && checked.found.is_some() && (checked.spf || checked.dkim)),
            Outcome::Fail => assert!(checked.found.is_some() && !checked.spf && !checked.dkim),
            _ => assert!(!checked.reason.is_empty()),
        }
        let has_policy = checked.outcome == Outcome::Fail || checked.outcome == Outcome::TempError;
        assert!(has_policy && checked.found.is_some() || checked.policy == Policy::None);
        passes += u32::from(checked.outcome == Outcome::Pass);
        failures += u32::from(checked.policy > Policy::None);
    });
    assert!(passes > 10 && failures > 10, "{passes} {failures}");
}

#[test]
fn records_and_authors_are_read_without_a_panic() {
    let froms = [
        "From: \"Jon, \\\"x\\\" (a)\" <jon@x.test>",
        "From: g: a@x.test, <@b.test:c@d.test>;\n (a@b.test)",
        "From: a@[::1]",
    ];
    repeat(|chance| {
        let text = mutated(chance, &RECORDS);
        if let Some(record) = Record::parse(&text) {
            assert!(record.rua.len() <= 5 && record.rua.iter().all(|uri| uri.address.is_ascii()));
            // Tags that are not known change nothing.
            let more = [&text, &b"; zz=1; pct=0"[..]].concat();
            assert_eq!(Record::parse(&more).as_ref(), Some(&record), "{}", text.escape_ascii());
        }
        let header = mutated(chance, &froms);
        let authors = Authors::of_header(&header);
        assert!(authors.domains.len() <= MAX_AUTHORS);
        let is_clean = |domain: &str| domain.is_ascii() && !domain.contains([' ', '\n', '@']);
        assert!(authors.domains.iter().all(|domain| is_clean(domain)), "{}", header.escape_ascii());
    });
}

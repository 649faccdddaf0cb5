//! SPF: mutated and random records.
//!
//! Nothing panics, each check asks few questions, and its texts are printable and short. A record
//! that follows the grammar is accepted, and its macros expand as a second, simple implementation
//! expands them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Mutex;

use common::chance::Chance;
use penfold::dns::lookup::Lookup;
use penfold::mailauth::spf::{Checked, SpfResult, check};
use penfold::outcome::NoAnswer;

use super::{mutate, repeat};

/// A zone in which each name has the same record, and other data by chance.
struct Zone {
    record: Vec<u8>,
    chance: Mutex<Chance>,
    asked: Mutex<Vec<String>>,
}

impl Zone {
    fn new(record: Vec<u8>, chance: &mut Chance) -> Self {
        let seed = chance.of(0..1 << 30) as u64;
        Self { record, chance: Mutex::new(Chance::new(seed, "zone")), asked: Mutex::default() }
    }

    /// Notes a question. Some get no answer.
    fn answer<T>(&self, name: &str, make: impl Fn(&mut Chance) -> T) -> Result<Vec<T>, NoAnswer> {
        self.asked.lock().expect("no panic").push(name.to_owned());
        let mut chance = self.chance.lock().expect("no panic");
        match chance.of(0..20) {
            0 => Err(NoAnswer::NxDomain),
            1 => Err(NoAnswer::NoData),
            2 => Err([NoAnswer::ServFail, NoAnswer::Timeout, NoAnswer::BadName, NoAnswer::Other("\u{fc}".into())]
                [chance.of(0..4)]
            .clone()),
            3 => Ok(Vec::new()),
            _ => Ok((0..chance.of(1..13)).map(|_| make(&mut chance)).collect()),
        }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic").clone()
    }
}

impl Lookup for Zone {
    fn txt(&self, name: &str) -> Result<Vec<Vec<u8>>, NoAnswer> {
        self.answer(name, |_| ())?;
        Ok(vec![self.record.clone()])
    }
    fn ipv4(&self, name: &str) -> Result<Vec<Ipv4Addr>, NoAnswer> {
        self.answer(name, |chance| Ipv4Addr::new(192, 0, 2, chance.of(0..4) as u8))
    }
    fn ipv6(&self, name: &str) -> Result<Vec<Ipv6Addr>, NoAnswer> {
        self.answer(name, |chance| Ipv6Addr::from(0x2001_0db8_u128 << 96 | chance.of(0..4) as u128))
    }
    fn mx(&self, domain: &str) -> Result<Vec<(u16, String)>, NoAnswer> {
        self.answer(domain, |chance| (10, chance.pick(&["mx.test", ".", "a..b", "x"]).to_string()))
    }
    fn names(&self, address: IpAddr) -> Result<Vec<String>, NoAnswer> {
        self.answer(&address.to_string(), |chance| chance.pick(&["a.test", "mx.a.test", "b", ""]).to_string())
    }
}

fn run(zone: &Zone, address: &str, hello: &str, sender: &str) -> Checked {
    let checked = check(zone, address.parse().expect("an address"), hello, sender, "here.test");
    let is_good = |text: &str, max| text.len() <= max && text.bytes().all(|b| (b' '..=b'~').contains(&b));
    assert!(is_good(&checked.mechanism, 200), "{checked:?}");
    assert!(is_good(&checked.domain, 255), "{checked:?}");
    assert!(checked.explanation.as_deref().is_none_or(|text| is_good(text, 500)), "{checked:?}");
    assert!(checked.explanation.is_none() || checked.result == SpfResult::Fail, "{checked:?}");
    // Ten terms with ten hosts each, the names of the client, and the records.
    let asked = zone.asked();
    assert!(asked.len() <= 1 + 10 * 11 + 11 + 1, "{} questions", asked.len());
    assert!(asked.iter().all(|name| name.len() <= 253), "{asked:?}");
    checked
}

const CORPUS: [&str; 8] = [
    "v=spf1 ip4:192.0.2.0/24 ip6:2001:db8::/32 a mx ptr include:b.test exists:%{ir}.%{v}._spf.%{d2} -all",
    "v=spf1 a:%{l1r-}.%{o}.test/24//64 mx:%{h}/0 redirect=%{d}.c.test exp=%{p}.e.test",
    "v=spf1 include:%{d}.x.test ?all exp=%{S2r+-,/_=.}.test",
    "v=spf1 -exists:%{i}%%%_%-.%{LR.}.test ~a:x.y-z.test. +all moo.x=%{d}",
    "v=spf1 -all exp=a.test",
    "%{c} may not send for %{s} to %{r} at %{t}: see http://x.test/?s=%{S}&ip=%{C}",
    "v=spf1 ptr:a.test ptr:%{p} a:%{p1r}.test mx:%{p}.test -all",
    "v=spf1",
];

#[test]
fn any_record_hello_and_sender_has_a_bounded_effect() {
    repeat(|chance| {
        let text = *chance.pick(&CORPUS);
        let record = match chance.of(0..20) {
            0 => chance.octets(0..2000),
            1 => [&b"v=spf1 "[..], &chance.octets(0..300)].concat(),
            2 => text.repeat(chance.of(1..50)).into_bytes(),
            _ => mutate(chance, text.as_bytes()),
        };
        let hello = mutate(chance, b"mail.a.test");
        let sender = mutate(chance, b"strong-bad+x@a.test");
        let zone = Zone::new(record, chance);
        let address = *chance.pick(&["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1", "0.0.0.0", "::"]);
        run(&zone, address, &String::from_utf8_lossy(&hello), &String::from_utf8_lossy(&sender));
    });
}

const SENDER: &str = "strong-bad+x@a.b-c.test";
const HELLO: &str = "h-1.example.org";

/// A random macro, and what it stands for.
fn random_macro(chance: &mut Chance) -> (String, String) {
    let letter = *chance.pick(&['s', 'l', 'o', 'd', 'i', 'v', 'h']);
    let value = match letter {
        's' => SENDER,
        'l' => "strong-bad+x",
        'o' | 'd' => "a.b-c.test",
        'i' => "192.0.2.1",
        'v' => "in-addr",
        _ => HELLO,
    };
    let (parts, is_reversed) = (chance.of(0..6), chance.percent(50));
    let delimiters: String = (0..chance.of(0..3)).map(|_| *chance.pick(&['.', '-', '+', ',', '/', '_', '='])).collect();
    let parts_text = if parts == 0 { String::new() } else { parts.to_string() };
    let text = format!("%{{{letter}{parts_text}{}{delimiters}}}", if is_reversed { "r" } else { "" });
    let mut split = vec![String::new()];
    for c in value.chars() {
        if delimiters.contains(c) || (delimiters.is_empty() && c == '.') {
            split.push(String::new());
        } else {
            split.last_mut().expect("never empty").push(c);
        }
    }
    if is_reversed {
        split.reverse();
    }
    while parts > 0 && split.len() > parts {
        split.remove(0);
    }
    (text, split.join("."))
}

#[test]
fn macros_expand_as_a_simple_implementation_expands_them() {
    repeat(|chance| {
        let (mut text, mut want) = (String::new(), String::new());
        for _ in 0..chance.of(1..8) {
            let (one, value) = random_macro(chance);
            let literal = *chance.pick(&["", ".", "x.", "-", "y"]);
            text += &format!("{one}{literal}");
            want += &format!("{value}{literal}");
        }
        (text, want) = (text + ".end.test", (want + ".end.test").to_lowercase());
        while want.len() > 253 {
            want = want.split_once('.').map_or(String::new(), |(_, rest)| rest.to_owned());
        }
        let zone = Zone::new(format!("v=spf1 exists:{text} -all").into_bytes(), chance);
        let checked = run(&zone, "192.0.2.1", HELLO, SENDER);
        if checked.result != SpfResult::TempError && checked.result != SpfResult::None {
            assert_eq!(zone.asked().get(1), Some(&want), "{text}: {checked:?}");
        }
    });
}

/// A random term that follows the grammar.
fn good_term(chance: &mut Chance) -> String {
    let domain = match chance.of(0..4) {
        0 => random_macro(chance).0,
        1 => format!("{}.test.", random_macro(chance).0),
        2 => "a!b#c:d/e@f~.x-1--y".to_owned(),
        _ => "%%%_%-.b.0a0".to_owned(),
    };
    let bits4 = if chance.percent(50) { String::new() } else { format!("/{}", chance.of(0..33)) };
    let bits6 = if chance.percent(50) { String::new() } else { format!("/{}", chance.of(0..129)) };
    let second = if bits6.is_empty() { String::new() } else { format!("/{bits6}") };
    let mechanism = match chance.of(0..11) {
        0 => "all".to_owned(),
        1 => format!("include:{domain}"),
        2 => format!("a:{domain}{bits4}{second}"),
        3 => format!("a{bits4}{second}"),
        4 => format!("mx:{domain}{bits4}{second}"),
        5 => format!("mx{bits4}{second}"),
        6 => format!("ip4:198.51.100.{}{bits4}", chance.of(0..256)),
        7 => format!("ip6:2001:{:x}::{:x}{bits6}", chance.of(0..65536), chance.of(0..65536)),
        8 => format!("exists:{domain}"),
        9 => "ptr".to_owned(),
        _ => format!("ptr:{domain}"),
    };
    match chance.of(0..10) {
        0 => format!("x-{}.y_z={domain}/:=", chance.of(0..9)),
        _ => format!("{}{mechanism}", chance.pick(&["", "+", "-", "~", "?"])),
    }
}

#[test]
fn a_record_is_accepted_if_and_only_if_it_follows_the_grammar() {
    const WRONG: [&str; 12] =
        ["moo", "a:", "a/33", "all:x.y", "ip4:1.2.3", "ip6:x", "x=%", "a:%{x}.y", "include", "a:b.1", "!a", "exp="];
    repeat(|chance| {
        let mut terms: Vec<_> = (0..chance.of(0..12)).map(|_| good_term(chance)).collect();
        for modifier in ["redirect=%{d}", "exp=e.%{d2}"] {
            if chance.percent(20) {
                terms.insert(chance.of(0..terms.len() + 1), modifier.to_owned());
            }
        }
        let is_wrong = chance.percent(50);
        if is_wrong {
            let wrong = *chance.pick(&WRONG);
            terms.insert(chance.of(0..terms.len() + 1), wrong.to_owned());
        }
        let record = format!("v=spf1 {}", terms.join(*chance.pick(&[" ", "  "])));
        let zone = Zone::new(record.clone().into_bytes(), chance);
        let checked = run(&zone, "192.0.2.1", HELLO, SENDER);
        let is_asked =
            checked.result != SpfResult::None && (checked.result != SpfResult::TempError || zone.asked().len() > 1);
        let is_rejected = checked.mechanism.starts_with("syntax error");
        assert!(!is_asked || is_rejected == is_wrong, "{record}: {checked:?}");
    });
}

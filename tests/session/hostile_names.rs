//! SPF with hostile and broken name servers, through the resolver: every check ends in time, with a
//! result that says what went wrong, and after few questions.
//!
//! All checks of a test run at the same time and share the resolver, so that one which waits must
//! not delay the others.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use common::chance::Chance;
use common::dns::{Answer, Asking, Dns as NameServer, record};
use penfold::config;
use penfold::dns::Dns;
use penfold::dns::lookup::Until;
use penfold::mailauth::spf::SpfResult::{self, Fail, Neutral, None as NoRecord, Pass, PermError, TempError};
use penfold::mailauth::spf::{Checked, check};
use trust_dns_resolver::proto::op::ResponseCode;
use trust_dns_resolver::proto::rr::rdata::TXT;
use trust_dns_resolver::proto::rr::{RData, Record};

/// The time that all look-ups of a check have together, if some of them get no answer.
const TIME: Duration = Duration::from_secs(3);
/// The time of a check whose questions all get an answer at once: enough for a busy machine.
const AMPLE_TIME: Duration = Duration::from_secs(30);
/// What a check may take beyond its time.
const MARGIN: Duration = Duration::from_secs(3);
/// The maximum number of questions for a check: ten terms with ten hosts each, twice as many where
/// the resolver repeats a question without EDNS, and a few.
const MAX_QUESTIONS: usize = 250;

/// Decides the answer to a question, from the labels before the domain of the case.
type Decide = Box<dyn Fn(&str, &Asking) -> Answer + Send + Sync>;

struct Case {
    what: String,
    decide: Decide,
    results: Vec<SpfResult>,
    time: Duration,
}

fn case(
    what: impl Into<String>,
    results: &[SpfResult],
    decide: impl Fn(&str, &Asking) -> Answer + Send + Sync + 'static,
) -> Case {
    Case { what: what.into(), decide: Box::new(decide), results: results.to_vec(), time: TIME }
}

fn domain(number: usize) -> String {
    format!("c{number}.test")
}

/// The client of a case, whose names are asked from the case, too.
fn client(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, (number / 256) as u8, (number % 256) as u8)
}

/// Runs all cases at the same time.
fn run(cases: Vec<Case>) {
    let names: Vec<(String, String)> = (0..cases.len())
        .map(|number| {
            let [a, b, c, d] = client(number).octets();
            (domain(number), format!("{d}.{c}.{b}.{a}.in-addr.arpa"))
        })
        .collect();
    let whats: Vec<_> = cases.iter().map(|case| (case.what.clone(), case.results.clone(), case.time)).collect();
    let server_names = names.clone();
    let server = NameServer::judging(move |asking| {
        let ours = |(domain, reverse): &(String, String)| {
            asking.name == domain || asking.name == reverse || asking.name.ends_with(&format!(".{domain}"))
        };
        let Some(number) = server_names.iter().position(ours) else { return Answer::nxdomain() };
        let (domain, reverse) = &server_names[number];
        let inside = match asking.name {
            name if name == reverse => "client",
            name => name.strip_suffix(domain.as_str()).unwrap_or_default().trim_end_matches('.'),
        };
        (cases[number].decide)(inside, asking)
    });
    let dns =
        Dns::new(&config::Dns { nameservers: vec![server.address], timeout: Duration::from_secs(20), trust_ad: None });
    let (dns, mut complaints) = (&dns, Vec::new());
    thread::scope(|scope| {
        let threads: Vec<_> = whats
            .iter()
            .enumerate()
            .map(|(number, (.., time))| scope.spawn(move || timed(dns, number, *time)))
            .collect();
        for (number, thread) in threads.into_iter().enumerate() {
            let ((checked, took), (what, results, time)) = (thread.join().expect("no panic"), &whats[number]);
            if !results.contains(&checked.result) || took > *time + MARGIN || !is_presentable(&checked) {
                complaints.push(format!("{what}: {checked:?} after {took:?}, and not {results:?}"));
            }
        }
    });
    let asked = server.asked();
    for ((domain, reverse), (what, ..)) in names.iter().zip(&whats) {
        let is_of = |name: &str| name == domain || name == reverse || name.ends_with(&format!(".{domain}"));
        let count = asked.iter().filter(|(name, _)| is_of(name)).count();
        if count > MAX_QUESTIONS {
            complaints.push(format!("{what}: {count} questions"));
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

fn timed(dns: &Dns, number: usize, time: Duration) -> (Checked, Duration) {
    let started = Instant::now();
    let look_up = Until { dns, until: started + time };
    let sender = format!("x@{}", domain(number));
    let checked = check(&look_up, client(number).into(), "client.example", &sender, "mx.here.test");
    (checked, started.elapsed())
}

/// Whether the texts of a result can go into a reply, a field and the log.
fn is_presentable(checked: &Checked) -> bool {
    let is_good = |text: &str, max| text.len() <= max && text.bytes().all(|b| (b' '..=b'~').contains(&b));
    is_good(&checked.mechanism, 200)
        && is_good(&checked.domain, 255)
        && is_good(checked.explanation.as_deref().unwrap_or(""), 500)
}

fn answer(asking: &Asking, data: &[String]) -> Answer {
    let kind = asking.kind.to_string();
    Answer::records(data.iter().map(|data| record(asking.name, &kind, data)).collect())
}

/// A TXT record of any length.
fn txt(asking: &Asking, text: &[u8]) -> Record {
    let mut record = record(asking.name, "TXT", "x");
    let mut data = TXT::new(Vec::new());
    data.txt_data = if text.is_empty() { Box::new([text.into()]) } else { text.chunks(255).map(Into::into).collect() };
    record.data = RData::TXT(data);
    record
}

/// An answer that comes over TCP only.
fn large(records: Vec<Record>) -> Answer {
    Answer { truncated: true, ..Answer::records(records) }
}

/// The ways in which an answer can be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Silence,
    Late,
    Code(ResponseCode),
    /// A truncated answer, and silence over TCP.
    Cut,
    Referral,
    AliasOfItself,
    EndlessAliases,
    NxDomain,
    NoData,
}

const FAULTS: [Fault; 12] = [
    Fault::Silence,
    Fault::Late,
    Fault::Code(ResponseCode::ServFail),
    Fault::Code(ResponseCode::Refused),
    Fault::Code(ResponseCode::NotImp),
    Fault::Code(ResponseCode::FormErr),
    Fault::Cut,
    Fault::Referral,
    Fault::AliasOfItself,
    Fault::EndlessAliases,
    Fault::NxDomain,
    Fault::NoData,
];

impl Fault {
    fn answer(self, asking: &Asking) -> Answer {
        let alias = |to: String| Answer::records(vec![record(asking.name, "CNAME", &to)]);
        match self {
            Self::Silence => Answer::silence(),
            Self::Late => Answer { after: TIME + MARGIN, ..Answer::nxdomain() },
            Self::Code(code) => Answer::code(code),
            Self::Cut if asking.over_udp => Answer { truncated: true, ..Answer::records(Vec::new()) },
            Self::Cut => Answer::silence(),
            Self::Referral => Answer { referral: true, ..Answer::records(Vec::new()) },
            Self::AliasOfItself => alias(asking.name.to_owned()),
            // The name of the client is not in the domain of the case, which begins with a letter.
            Self::EndlessAliases if asking.name.ends_with(".arpa") => alias(asking.name.to_owned()),
            Self::EndlessAliases => {
                let (first, domain) = asking.name.split_once('.').expect("labels");
                let counter = first.strip_prefix("alias").and_then(|n| n.parse::<u32>().ok());
                let domain = if counter.is_some() { domain.to_owned() } else { asking.name.to_owned() };
                alias(format!("alias{}.{domain}", counter.unwrap_or(0) + 1))
            }
            Self::NxDomain => Answer::nxdomain(),
            Self::NoData => Answer::records(Vec::new()),
        }
    }

    fn is_an_answer(self) -> bool {
        matches!(self, Self::NxDomain | Self::NoData)
    }
}

/// The question that gets no answer: its place, the record of the domain, and the results if the
/// DNS fails and if there is no such record.
const PLACES: [(&str, &str, SpfResult, SpfResult); 10] = [
    ("the record", "", TempError, NoRecord),
    ("include", "include:bad.{} -all", TempError, PermError),
    ("redirect", "redirect=bad.{}", TempError, PermError),
    ("a", "a:bad.{} -all", TempError, Fail),
    ("mx", "mx:bad.{} -all", TempError, Fail),
    ("exchanger", "mx:good.{} -all", TempError, Fail),
    ("exists", "exists:bad.{} -all", TempError, Fail),
    ("ptr", "ptr:client.{} -all", Fail, Fail),
    ("name", "ptr:bad.{} -all", Fail, Fail),
    ("explanation", "-all exp=bad.{}", Fail, Fail),
];

#[test]
fn each_missing_answer_has_its_result() {
    let mut cases = Vec::new();
    for fault in FAULTS {
        for (place, policy, trouble, nothing) in PLACES {
            let result = if fault.is_an_answer() { nothing } else { trouble };
            let policy = policy.replace("{}", &domain(cases.len()));
            let bad = format!("bad.{}", domain(cases.len()));
            let case = case(format!("{fault:?} {place}"), &[result], move |inside, asking| {
                match (inside, asking.kind.to_string().as_str()) {
                    ("", "TXT") if !policy.is_empty() => answer(asking, &[format!("v=spf1 {policy}")]),
                    ("good", "MX") => answer(asking, &[format!("10 {bad}")]),
                    ("client", "PTR") if place == "name" => answer(asking, std::slice::from_ref(&bad)),
                    _ => fault.answer(asking),
                }
            });
            cases.push(Case { time: if fault.is_an_answer() { AMPLE_TIME } else { TIME }, ..case });
        }
    }
    assert_eq!(cases.len(), 120);
    run(cases);
}

/// Cases whose only answers are SPF records; the function gets the labels and the domain.
fn records(
    what: &str,
    results: &[SpfResult],
    number: usize,
    text: impl Fn(&str, &str) -> String + Send + Sync + 'static,
) -> Case {
    let domain = domain(number);
    case(what, results, move |inside, asking| match asking.kind.to_string().as_str() {
        "TXT" => large(vec![txt(asking, text(inside, &domain).as_bytes())]),
        _ => Answer::nxdomain(),
    })
}

fn count(label: &str) -> usize {
    label.trim_start_matches(|c: char| c.is_ascii_alphabetic()).parse().unwrap_or(0)
}

#[test]
fn huge_answers_and_loops_have_bounded_effects() {
    let mut cases: Vec<Case> = Vec::new();
    let mut add = |make: &dyn Fn(usize) -> Case| cases.push(make(cases.len()));
    const BIG: usize = 60_000;
    let fill = |text: &str| text.repeat(BIG / text.len());
    for (what, terms, results) in [
        ("networks", fill("ip4:192.0.2.1 "), &[Fail][..]),
        ("unknown modifiers", fill("x=%{s}%{l}%{d} "), &[Fail]),
        ("a", fill("a "), &[PermError]),
        ("mx", fill("mx "), &[PermError]),
        ("ptr", fill("ptr "), &[PermError]),
        ("spaces", fill(" "), &[Fail]),
        ("one long term", fill("x"), &[PermError]),
        ("macros in one name", format!("exists:{}.test", fill("%{s}%{d}%{h}")), &[Fail]),
        ("escaped macros", format!("a:{}.test", fill("%{S}")), &[Fail]),
        ("delimiters", format!("a:%{{l{}}}.test", fill(".-+,/_=")), &[Fail]),
        ("digits", format!("a:%{{d{}}}.nothing.test", fill("9")), &[Fail]),
        ("dots", format!("a:{}.test", fill(".")), &[Fail]),
        ("percents", format!("a:{}.test", fill("%%")), &[Fail]),
        ("an open brace", format!("a:%{{d{}", fill("r")), &[PermError]),
    ] {
        add(&|number| {
            let record = format!("v=spf1 {terms} -all");
            records(what, results, number, move |inside, _| if inside.is_empty() { record.clone() } else { "".into() })
        });
    }
    add(&|number| {
        records("a loop of include", &[PermError], number, |_, domain| format!("v=spf1 include:{domain} -all"))
    });
    add(&|number| records("a loop of redirect", &[PermError], number, |_, domain| format!("v=spf1 redirect={domain}")));
    add(&|number| {
        records("an endless chain of include", &[PermError], number, |inside, domain| {
            format!("v=spf1 include:n{}.{domain} -all", count(inside) + 1)
        })
    });
    add(&|number| {
        records("an endless chain of redirect", &[PermError], number, |inside, domain| {
            format!("v=spf1 redirect=n{}.{domain}", count(inside) + 1)
        })
    });
    add(&|number| {
        records("a tree of include", &[PermError], number, |inside, domain| {
            let below = (0..30).map(|n| {
                format!(
                    "?include:n{n}.{}{domain} ",
                    if inside.is_empty() { String::new() } else { format!("{inside}.") }
                )
            });
            format!("v=spf1 {}-all", below.collect::<String>())
        })
    });
    add(&|number| {
        records("names that grow", &[PermError], number, |_, domain| {
            format!("v=spf1 include:%{{d}}.%{{d}}.{domain} -all")
        })
    });
    add(&|_| {
        case("many SPF records", &[PermError], |_, asking| {
            large((0..1000).map(|_| txt(asking, b"v=spf1 +all")).collect())
        })
    });
    add(&|_| {
        case("many other records", &[NoRecord, Pass], |_, asking| {
            large((0..2000).map(|n| txt(asking, format!("{n}").as_bytes())).collect())
        })
    });
    add(&|_| {
        case("octets", &[PermError], |_, asking| {
            large(vec![txt(asking, &[&b"v=spf1 "[..], &(0..=255).cycle().take(BIG).collect::<Vec<u8>>()].concat())])
        })
    });
    add(&|_| case("empty records", &[NoRecord], |_, asking| large((0..3000).map(|_| txt(asking, b"")).collect())));
    // Such a record is not allowed, and the resolver rejects the answer.
    add(&|_| {
        case("a record without a string", &[TempError], |_, asking| {
            let mut record = txt(asking, b"");
            record.data = RData::TXT(TXT::new(Vec::new()));
            Answer::records(vec![record])
        })
    });
    for count in [10, 11, 1000] {
        add(&|number| {
            let domain = domain(number);
            case(
                format!("{count} exchangers"),
                if count > 10 { &[PermError] } else { &[Pass] },
                move |inside, asking| match (inside, asking.kind.to_string().as_str()) {
                    ("", "TXT") => answer(asking, &["v=spf1 mx mx mx mx +all".to_owned()]),
                    ("", "MX") => {
                        let all: Vec<_> = (0..count).map(|n| format!("{n} h{n}.{domain}")).collect();
                        Answer { truncated: true, ..answer(asking, &all) }
                    }
                    _ => answer(asking, &["203.0.113.1".to_owned()]),
                },
            )
        });
    }
    add(&|number| {
        let domain = domain(number);
        case("a thousand silent names of the client", &[TempError, Neutral], move |inside, asking| match inside {
            "" => answer(asking, &["v=spf1 ptr ptr ?exists:%{p}.x.test ?all".to_owned()]),
            "client" => {
                let all: Vec<_> = (0..1000).map(|n| format!("h{n}.{domain}")).collect();
                Answer { truncated: true, ..answer(asking, &all) }
            }
            _ => Answer::silence(),
        })
    });
    add(&|_| {
        case("slow hosts", &[TempError], |inside, asking| match inside {
            "" if asking.kind.to_string() == "TXT" => answer(
                asking,
                &["v=spf1 a:%{l}1.%{d} a:%{l}2.%{d} a:%{l}3.%{d} a:%{l}4.%{d} a:%{l}5.%{d} -all".to_owned()],
            ),
            _ => Answer { after: TIME / 4, ..answer(asking, &["203.0.113.1".to_owned()]) },
        })
    });
    for case in cases.iter_mut().filter(|case| !case.results.contains(&TempError)) {
        case.time = AMPLE_TIME;
    }
    run(cases);
}

#[test]
fn included_records_are_looked_up_at_the_same_time() {
    const DELAY: Duration = Duration::from_millis(500);
    let server = NameServer::judging(|asking| {
        let text = match asking.name {
            "a.test" => (0..9).map(|n| format!("include:i{n}.%{{d}} ")).collect(),
            _ => "ip4:192.0.2.1 ?all".to_owned(),
        };
        Answer { after: DELAY, ..Answer::records(vec![txt(asking, format!("v=spf1 {text} -all").as_bytes())]) }
    });
    let dns =
        Dns::new(&config::Dns { nameservers: vec![server.address], timeout: Duration::from_secs(20), trust_ad: None });
    let started = Instant::now();
    let look_up = Until { dns: &dns, until: started + 2 * TIME };
    let checked = check(&look_up, Ipv4Addr::new(192, 0, 2, 7).into(), "client.example", "x@a.test", "mx.here.test");
    let took = started.elapsed();
    assert_eq!(checked.result, Fail, "{checked:?}");
    // One after the other, they take more than nine times the delay.
    assert!(took < 9 * DELAY, "{took:?}");
    // Each question is asked once. On a busy machine the resolver repeats one now and then.
    assert!(server.asked().len() <= 13, "{:?}", server.asked());
}

/// A server whose answers are not DNS messages, or not answers to the question.
fn babbler() -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("an address of this host");
    let address = socket.local_addr().expect("bound");
    thread::spawn(move || {
        let (mut question, mut chance) = ([0; 4096], Chance::new(14, "babbler"));
        while let Ok((length, from)) = socket.recv_from(&mut question) {
            let mut text = question[..length].to_vec();
            match chance.of(0..6) {
                0 => text = chance.octets(0..600),
                1 => text.truncate(chance.of(0..length)),
                // An answer that claims records, which are random.
                2 | 3 => {
                    text[2..12].copy_from_slice(&[0x84, 0x80, 0, 1, 0, chance.of(1..9) as u8, 0, 0, 0, 0]);
                    text.extend(chance.octets(0..300));
                }
                // A name that points to itself.
                4 => {
                    text[2..12].copy_from_slice(&[0x84, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
                    let at = text.len() as u16;
                    text.extend((0xc000 | at).to_be_bytes());
                    text.extend([0, 16, 0, 1, 0, 0, 0, 60, 0, 5, 255, b'v', b'=', b's', b'p']);
                }
                _ => text[0] ^= 1,
            }
            let _ = socket.send_to(&text, from);
        }
    });
    address
}

#[test]
fn answers_that_are_not_dns_messages_are_dns_trouble() {
    let dns = Dns::new(&config::Dns { nameservers: vec![babbler()], timeout: Duration::from_secs(20), trust_ad: None });
    let dns = &dns;
    thread::scope(|scope| {
        let threads: Vec<_> = (0..30).map(|number| scope.spawn(move || timed(dns, number, TIME))).collect();
        for thread in threads {
            let (checked, took) = thread.join().expect("no panic");
            assert!(matches!(checked.result, TempError | NoRecord), "{checked:?}");
            assert!(took < TIME + MARGIN, "{checked:?} after {took:?}");
        }
    });
}

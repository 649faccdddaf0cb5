//! Reports about random originals, with random replies and dialogues, in the languages that the
//! originals want; and random files of texts.

use std::path::Path;

use super::{mutate, repeat};
use common::chance::Chance;
use penfold::address::Address;
use penfold::envelope::Recipient;
use penfold::outcome::Outcome;
use penfold::reply::{Reply, Status};
use penfold::report::compose::{Report, Reported, Returned, compose};
use penfold::report::languages::{Language, Languages};
use penfold::spool::{ReportedEvent, Success};

/// A header from pieces that a report reads.
fn header(chance: &mut Chance) -> Vec<u8> {
    const PIECES: [&str; 28] = [
        "Subject: ",
        "Date: ",
        "Accept-Language: ",
        "Content-Language: ",
        "Message-ID: <a@b>\n",
        "References: <a@b> <c@d>\n",
        "=?utf-8?Q?",
        "=?iso-8859-1?B?",
        "?=",
        "=C3=BC",
        "w7w=",
        "de",
        "-AT",
        "zh-TW",
        ";q=0.5",
        ";q=",
        ", ",
        "Sat, 21 Nov 2026 10:00:00 +0100",
        "Sat, 31 Feb 0000 99:00:00 -9999",
        "--=_4FQ7Z2K0D1R8",
        "\n",
        "\n ",
        "\n\n",
        "\r\n",
        "\u{fc}",
        "\u{4f60}\u{ff0c}",
        "\0",
        "{subject}",
    ];
    let mut text = Vec::new();
    for _ in 0..chance.of(0..40) {
        match chance.of(0..30) {
            0 => text.extend(std::iter::repeat_n(*chance.pick(b"x =-\xff"), chance.of(900..2200))),
            1 => text.extend(chance.octets(0..40)),
            _ => text.extend(chance.pick(&PIECES).bytes()),
        }
    }
    if chance.percent(50) { mutate(chance, &text) } else { text }
}

fn outcome(chance: &mut Chance) -> Outcome {
    const WORDS: [&str; 8] = ["spam", "<a@b>", "quota", "greylisted", "\u{fc}", "5.7.1", "--=_", "{what}"];
    let words: Vec<&str> = (0..chance.of(0..60)).map(|_| *chance.pick(&WORDS)).collect();
    let status = Status(5, *chance.pick(&[0, 1, 4, 7, 999]), *chance.pick(&[0, 1, 4, 26, 999]));
    let host = *chance.pick(&["", "mx.y.example[192.0.2.1]:25", "/home/jon/Maildir", "["]);
    let line = format!("{} {}\r\n", chance.pick(&["550", "451", "421 4.7.1", "550 5.7.1", "552"]), words.join(" "));
    match Reply::read_all(line.as_bytes()) {
        Some(reply) if chance.percent(70) => Outcome::from_reply("RCPT TO", reply).at(host),
        _ if chance.percent(50) => Outcome::failed(status, words.join(" ")).at(host),
        _ => Outcome::deferred(Status(4, status.1, status.2), words.join(" ")).at(host),
    }
}

#[test]
fn a_report_is_whole_whatever_it_is_about() {
    let config = |text: &str| penfold::config::parse(Path::new("penfold.conf"), text).expect("good");
    let kinds = ["", "[report]\nlanguages = [\"de\"]\n", "[report]\nlanguages = [\"de\"]\nmultilingual = true\n"];
    let languages: Vec<Languages> = kinds.iter().map(|text| Languages::open(&config(text)).0).collect();
    let jon = Address::parse("jon@frogbog.example").expect("an address");
    repeat(|chance| {
        let (header, event) = (header(chance), *chance.pick(&[ReportedEvent::Failure, ReportedEvent::Delay]));
        let event = if chance.percent(20) { ReportedEvent::Success(Success::Relayed) } else { event };
        let results: Vec<Reported> = (0..chance.of(1..4))
            .map(|_| Reported {
                recipient: Recipient::new(jon.clone()),
                event,
                outcome: outcome(chance),
                dialogue: (0..chance.of(0..4)).map(|_| String::from_utf8_lossy(&chance.octets(0..99)).into()).collect(),
            })
            .collect();
        let report = compose(&Report {
            hostname: "mx.example.org",
            id: "4FQ7Z2K0D1R8",
            original: "4FQ7AAAAAAAA",
            now: 1_790_000_000,
            arrival: 1_790_000_000,
            until: 1_790_000_000,
            to: &jon,
            sender: Some(&jon).filter(|_| chance.percent(80)),
            envid: None,
            deadline: None,
            release: None,
            is_utf8: chance.percent(20),
            results: &results,
            message: Returned::Header(&header),
            withheld: 0,
            languages: chance.pick(&languages),
        });
        let shown = || format!("{:?}\n{}", String::from_utf8_lossy(&header), String::from_utf8_lossy(&report));
        assert!(report.is_ascii() && !report.contains(&b'\r') && !report.contains(&0), "{}", shown());
        assert!(report.split(|&b| b == b'\n').all(|line| line.len() <= 998), "{}", shown());
        let text = String::from_utf8_lossy(&report);
        assert_eq!(text.lines().filter(|line| line.starts_with("--=_4FQ7Z2K0D1R8")).count(), 4, "{}", shown());
    });
}

/// A file of texts never ends the program, and a text never loses its placeholders.
#[test]
fn any_file_of_texts_leaves_a_language_that_can_be_used() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/languages");
    let read = |tag: &str| std::fs::read_to_string(directory.join(format!("{tag}.toml"))).expect("a file");
    let (english, german) = (read("en"), read("de"));
    let (base, errors) = Language::read(Path::new("en.toml"), "en", &english, None);
    assert!(errors.is_empty(), "{errors:?}");
    // A part of a file suffices, and is parsed faster.
    let parts: Vec<&str> = german.split("\n[").collect();
    repeat(|chance| {
        let part = format!("[{}", chance.pick(&parts));
        let text = String::from_utf8_lossy(&mutate(chance, part.as_bytes())).into_owned();
        let (language, errors) = Language::read(Path::new("xx.toml"), "xx", &text, Some(&base));
        let filled = language.fill("text.contact", &[("postmaster", "postmaster@x.test")]);
        assert!(filled.contains("postmaster@x.test") && !filled.contains('\n'), "{text}: {filled}");
        assert!(errors.iter().all(|error| !error.text.contains('\n')), "{errors:?}");
    });
}

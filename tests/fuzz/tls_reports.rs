//! TLS reports: records that ask for them, and the facts in them, which strangers choose.

use common::chance::Chance;
use penfold::address::Address;
use penfold::tls_report::{Counted, Destination, Policy, Record, Report, Row, Session, TlsResult};

use super::repeat;

/// A text of characters that matter in a record, in a row or in JSON.
fn text(chance: &mut Chance) -> String {
    const PARTS: [&str; 22] = [
        "v=TLSRPTv1",
        ";",
        " ",
        "rua=",
        "mailto:",
        "a@x.test",
        "https://",
        "x.test",
        ",",
        "!",
        "%2",
        "%41",
        "[::1]",
        ":443",
        "/",
        "?",
        "#",
        "|",
        "\"",
        "\\",
        "\u{202e}\u{fc}\0",
        "\n",
    ];
    let length = if chance.of(0..50) == 0 { 2000 } else { chance.of(0..12) };
    (0..length).map(|_| *chance.pick(&PARTS)).collect()
}

/// Whatever a record says, a report goes only to an address of another host or to a web server.
#[test]
fn a_record_names_only_places_in_the_internet() {
    repeat(|chance| {
        let mut record = text(chance);
        if chance.of(0..2) == 0 {
            record = format!("v=TLSRPTv1; rua=mailto:a@x.test,https://x.test{record}");
        }
        let records = vec![record.clone().into_bytes(), text(chance).into_bytes()];
        for place in Record::find(&records).into_iter().flat_map(|record| record.destinations) {
            match place {
                Destination::Mail(address) => {
                    assert!(
                        address.is_ascii() && address.domain().contains('.') && address.literal().is_none(),
                        "{record}"
                    );
                }
                Destination::Https { host, path } => {
                    let is_clean = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
                    assert!(!host.is_empty() && is_clean(&host) && !host.contains(['/', '?', '#', '@']), "{record}");
                    assert!(path.starts_with('/') && is_clean(&path), "{record}");
                }
            }
        }
    });
}

/// A report is one line of JSON, whose texts end where they should.
#[test]
fn a_report_is_one_object_of_json() {
    let sender: Address = "tls@mx.example".parse().expect("an address");
    repeat(|chance| {
        let lines: Vec<String> = (0..chance.of(0..4)).map(|_| text(chance)).collect();
        let (host, hello, why) = (text(chance), text(chance), text(chance));
        let policy = match chance.of(0..3) {
            0 => Policy::None,
            1 => Policy::Tlsa { host: &host, records: &lines },
            _ => Policy::Sts { lines: &lines },
        };
        let session = Session { local: None, host: &host, hello: &hello, remote: None };
        let failure = Some(("validation-failure", &*why)).filter(|_| chance.of(0..2) == 0);
        let row = Row::new(&TlsResult { policy, session, failure });
        let counted = Counted { domain: "x.test".into(), rows: vec![(row, 1)], omitted: 0, reached: Vec::new() };
        let json = Report { hostname: "mx.example", sender: &sender, day: 1, counted: &counted }.json();
        assert!(
            json.is_ascii() && json.ends_with("}]}\n") && !json.trim_end().contains(|c: char| c.is_control()),
            "{json}"
        );
        let (mut is_text, mut is_escaped, mut depth) = (false, false, 0_i32);
        for c in json.trim_end().chars() {
            match c {
                _ if is_escaped => is_escaped = false,
                '\\' if is_text => is_escaped = true,
                '"' => is_text = !is_text,
                '{' | '[' if !is_text => depth += 1,
                '}' | ']' if !is_text => depth -= 1,
                _ => {}
            }
            assert!(is_text || c.is_ascii_lowercase() || "\"\\{}[]:,0123456789".contains(c), "{json}");
        }
        assert_eq!((is_text, depth), (false, 0), "{json}");
    });
}

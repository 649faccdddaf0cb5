use std::path::{Path, PathBuf};

use super::*;
use crate::address::Address;
use crate::aggregate::{DAY, Facts, Unrecorded};
use crate::state::State;

/// Noon of 2026-05-20.
const NOON: u64 = 20_593 * DAY + DAY / 2;

/// Counts a connection.
fn note(counts: &Counts, now: u64, domain: &str, result: &TlsResult<'_>) {
    counts.count(now, domain, &Row::new(result));
}

/// A directory that is removed when the test ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("penfold-tls-report-{}-{name}", std::process::id()));
        std::fs::create_dir(&path).expect("a scratch directory");
        Self(path)
    }

    /// Returns the counts as another process would open them.
    fn counts(&self) -> Counts {
        Counts::shared(&State::at(&self.0))
    }

    /// The size of the journal.
    fn size(&self) -> u64 {
        let size = |name: &str| std::fs::metadata(self.0.join(name)).map_or(0, |file| file.len());
        size("tls-reports") + size("tls-reports.old")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn lines(text: &str) -> Vec<String> {
    text.split(',').map(|line| line.trim().to_owned()).collect()
}

fn session<'a>(host: &'a str, hello: &'a str) -> Session<'a> {
    Session { local: "192.0.2.7".parse().ok(), host, hello, remote: "::ffff:198.51.100.1".parse().ok() }
}

fn result<'a>(policy: Policy<'a>, failure: Option<(&'static str, &'a str)>) -> TlsResult<'a> {
    TlsResult { policy, session: session("mx.example.net", "mail.example.net"), failure }
}

#[test]
fn a_row_is_read_as_it_was_written() {
    let sts = lines("version: STSv1, mode: enforce, mx: *.example.net, max_age: 86400");
    let tlsa = lines("3 1 1 0123456789abcdef, 2 0 1 00ff");
    let expired = Some(("certificate-expired", "the certificate has expired"));
    let none = TlsResult { session: Session::default(), ..result(Policy::Sts { lines: &[] }, expired) };
    for one in [
        result(Policy::None, None),
        result(Policy::None, Some(("starttls-not-supported", ""))),
        result(Policy::Sts { lines: &sts }, None),
        result(Policy::Sts { lines: &sts }, expired),
        result(Policy::Tlsa { host: "mx.example.net", records: &tlsa }, expired),
        none,
    ] {
        let row = Row::new(&one);
        let text = row.to_text();
        assert_eq!(Row::parse(&text).as_ref(), Some(&row), "{text}");
        for at in 0..text.len() {
            // A damaged row is another row or none.
            let _ = Row::parse(&text[..at]);
        }
    }
    let text = Row::new(&result(Policy::Sts { lines: &sts }, expired)).to_text();
    for damaged in [
        "",
        "|",
        "||0",
        &text[1..],
        &format!("{text}|"),
        &text.replace("sts|", "dane|"),
        &text.replace("|4|", "|5|"),
        &text.replace("|4|", "|3|"),
        &text.replace("|4|", "|18446744073709551615|"),
        &text.replace("certificate-expired", "certificate-boring"),
        &text.replace("192.0.2.7", "192.0.2"),
        &text.replace("mail.example", "mail<example"),
        &text.replace("has expired", "has\u{202e}expired"),
    ] {
        assert_eq!(Row::parse(damaged), None, "{damaged}");
    }
}

/// Names, policies and error texts come from strangers.
#[test]
fn a_hostile_row_is_short_and_clean() {
    let hostile: Vec<String> = vec![
        "mx: a|b\n\"},{\"x\":\u{202e}\u{1f600}\\".to_owned(),
        "k: ".to_owned() + &"v v ".repeat(10_000),
        "x".repeat(10_000),
    ];
    let many: Vec<String> = (0..10_000).map(|n| format!("mx: {n} % .example.net")).collect();
    let (long, name) = ("\u{20ac} ".repeat(5000), "\"h|o\0st ".repeat(100));
    for policy in [
        Policy::Sts { lines: &hostile },
        Policy::Sts { lines: &many },
        Policy::Tlsa { host: &name, records: &hostile },
        Policy::Tlsa { host: &name, records: &many },
    ] {
        let failure = Some(("validation-failure", &*long));
        let row = Row::new(&TlsResult { policy, session: session(&name, &name), failure });
        let text = row.to_text();
        assert_eq!(Row::parse(&text).as_ref(), Some(&row));
        assert!(text.bytes().all(|b| (b' '..=b'~').contains(&b)), "{text}");
        assert!(row.policy.iter().all(|line| line.len() <= 2400));
        let domain = format!("{}.test", "d".repeat(240));
        let scratch = Scratch::new(&format!("hostile-{}", text.len()));
        let counts = scratch.counts();
        counts.count(NOON, &domain, &row);
        let all = counts.of_day(NOON, NOON / DAY);
        assert_eq!((all.len(), all[0].rows.len()), (1, 1), "the record has room for it");
    }
    let row = Row::new(&result(Policy::Sts { lines: &hostile }, None));
    assert_eq!(row.policy, ["mx: a?b?\"},{\"x\":??\\"], "lines without room are left out");
}

#[test]
fn counts_are_added_up_shared_and_reported_once() {
    let scratch = Scratch::new("shared");
    let (one, other) = (scratch.counts(), scratch.counts());
    let failed = Some(("certificate-host-mismatch", "the certificate is for other names"));
    for counts in [&one, &other] {
        note(counts, NOON, "x.test", &result(Policy::None, None));
        note(counts, NOON + 1, "x.test", &result(Policy::None, None));
        note(counts, NOON + 1, "x.test", &result(Policy::None, failed));
        note(counts, NOON - DAY, "x.test", &result(Policy::None, None));
    }
    note(&one, NOON, "y.test", &result(Policy::None, None));
    other.of_day(NOON, 0);
    let (today, short) = (NOON / DAY, |counts: &Counts| -> Vec<String> {
        let number = |one: &Counted| one.rows.iter().map(|(_, count)| format!(" {count}")).collect::<String>();
        let all = counts.of_day(NOON + 60, NOON / DAY);
        all.iter().map(|one| format!("{}{} {:?}", one.domain, number(one), one.reached)).collect()
    });
    assert_eq!(short(&one), ["x.test 4 2 []", "y.test 1 []"]);
    assert_eq!(one.note_reached(NOON + 60, today, "x.test", "https://x.test/a|b c"), Ok(()));
    assert_eq!(one.note_done(NOON + 60, today, "y.test"), Ok(()));
    assert_eq!(short(&scratch.counts()), ["x.test 4 2 [\"https://x.test/a|b c\"]"]);
    assert_eq!(one.note_done(NOON + 60, today, "x.test"), Ok(()));
    assert_eq!(short(&scratch.counts()), [""; 0]);
    assert_eq!(one.of_day(NOON + 60, today - 1).len(), 1);
    // Counts that are too old do not count, and damaged ones are skipped.
    assert_eq!(one.of_day(NOON + 5 * DAY, today).len(), 0);
    let path = scratch.0.join("tls-reports");
    let mut text = std::fs::read(&path).expect("a file");
    text.splice(0..0, b"\xff\0\nnonsense\n".iter().copied());
    std::fs::write(&path, &text).expect("written");
    assert_eq!(scratch.counts().of_day(NOON + 60, today - 1).len(), 1);
}

/// Equal connections become one record. A stranger's domain can take only a part of the store, and
/// the store has a bound.
#[test]
fn a_hostile_domain_cannot_grow_the_store() {
    let scratch = Scratch::new("bounded");
    let counts = scratch.counts();
    for _ in 0..10_000 {
        note(&counts, NOON, "good.test", &result(Policy::None, None));
    }
    counts.of_day(NOON, 0);
    assert!(scratch.size() < 200, "{}", scratch.size());
    // One domain with a new reason each time, for hours.
    for number in 0..20_000_u64 {
        let why = format!("{number} {}", "x".repeat(190));
        note(&counts, NOON - DAY / 2 + number, "evil.test", &result(Policy::None, Some(("validation-failure", &why))));
    }
    counts.of_day(NOON, 0);
    let size = scratch.size();
    assert!(size < 400 << 10, "{size}");
    let all = counts.of_day(NOON, NOON / DAY);
    let evil = all.iter().find(|one| *one.domain == *"evil.test").expect("a domain");
    assert!(evil.rows.len() <= 500, "{}", evil.rows.len());
    assert!(all.iter().any(|one| *one.domain == *"good.test" && one.rows[0].1 == 10_000));
    // Many domains, each with the largest rows.
    let big: Vec<String> = vec!["x".repeat(2000)];
    for number in 0..12_000_u32 {
        let domain = format!("{number}.evil.test");
        note(&counts, NOON, &domain, &result(Policy::Sts { lines: &big }, None));
    }
    counts.of_day(NOON, 0);
    assert!(scratch.size() <= 16 << 20, "{}", scratch.size());
    // If there is no state directory, nothing is counted, and nothing fails.
    let nowhere = Counts::shared(&State::at(Path::new("/nonexistent")));
    note(&nowhere, NOON, "x.test", &result(Policy::None, None));
    assert_eq!(nowhere.of_day(NOON, NOON / DAY), []);
    assert_eq!(nowhere.note_done(NOON, NOON / DAY, "x.test"), Err(Unrecorded));
    assert_eq!(nowhere.note_reached(NOON, NOON / DAY, "x.test", "mailto:a@x.test"), Err(Unrecorded));
}

#[test]
fn records_are_found_and_parsed() {
    let short = |texts: &[&str]| {
        let texts: Vec<Vec<u8>> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
        let record = Record::find(&texts)?;
        Some(record.destinations.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
    };
    for (record, wanted) in [
        ("v=TLSRPTv1;rua=mailto:a@x.test", "mailto:a@x.test"),
        ("v=TLSRPTv1; rua=mailto:a@x.test;", "mailto:a@x.test"),
        ("v=TLSRPTv1 ;\trua=mailto:a@x.test , https://R.x.test/v1?a=b", "mailto:a@x.test https://r.x.test/v1?a=b"),
        ("v=TLSRPTv1; rua=https://x.test", "https://x.test/"),
        ("v=TLSRPTv1; rua=HTTPS://x.test:443/a#b", "https://x.test/a"),
        ("v=TLSRPTv1; rua=https://[2001:db8::1]/a,https://192.0.2.1/", "https://[2001:db8::1]/a https://192.0.2.1/"),
        ("v=TLSRPTv1; rua=https://x.test?a", "https://x.test/?a"),
        ("v=TLSRPTv1; a-b.c=d; rua=mailto:a%2Bb@x.test", "mailto:a+b@x.test"),
        ("v=TLSRPTv1; rua=ftp:x,mailto:a@x.test,mailto:a@x.test", "mailto:a@x.test"),
        (
            "v=TLSRPTv1; rua=mailto:1@x.test,mailto:2@x.test,mailto:3@x.test,mailto:4@x.test,mailto:5@x.test",
            "mailto:1@x.test mailto:2@x.test mailto:3@x.test mailto:4@x.test",
        ),
    ] {
        assert_eq!(short(&[record]).as_deref(), Some(wanted), "{record}");
        assert_eq!(short(&["v=spf1 -all", record, "v=TLSRPTv12; x"]).as_deref(), Some(wanted), "{record}");
        assert_eq!(short(&[record, record]), None, "two records");
        assert_eq!(short(&[record, "v=TLSRPTv1;"]), None, "two records");
    }
    for record in [
        "",
        "v=TLSRPTv1",
        "v=TLSRPTv1;",
        "v=tlsrptv1; rua=mailto:a@x.test",
        "v=TLSRPTv2; rua=mailto:a@x.test",
        " v=TLSRPTv1; rua=mailto:a@x.test",
        "rua=mailto:a@x.test; v=TLSRPTv1",
        "v=TLSRPTv1; rua=",
        "v=TLSRPTv1; rua=a@x.test",
        "v=TLSRPTv1; rua=mailto:a@x.test,,mailto:b@x.test",
        "v=TLSRPTv1;; rua=mailto:a@x.test",
        "v=TLSRPTv1; rua=mailto:a@x.test; nonsense",
        "v=TLSRPTv1; rua=mailto:a@x.test; rua=mailto:b@x.test",
        "v=TLSRPTv1; rua=mailto:a!b@x.test",
        "v=TLSRPTv1; rua=mailto:root",
        "v=TLSRPTv1; rua=mailto:a@[127.0.0.1]",
        "v=TLSRPTv1; rua=mailto:a@x.test%0d%0aBcc:b@x.test",
        "v=TLSRPTv1; rua=http://x.test/",
        "v=TLSRPTv1; rua=https:x.test/",
        "v=TLSRPTv1; rua=https://x.test:25/",
        "v=TLSRPTv1; rua=https://user@x.test/",
        "v=TLSRPTv1; rua=https:///a",
        "v=TLSRPTv1; rua=https://[::1/a",
        "v=TLSRPTv1; rua=mailto:\u{fc}@x.test",
        &format!("v=TLSRPTv1; rua=mailto:a@x.test; x={}", "y".repeat(5000)),
    ] {
        assert_eq!(short(&[record]), None, "{record}");
    }
}

fn counted(rows: Vec<(Row, u64)>) -> Counted {
    Counted { domain: "xn--mller-kva.example".into(), rows, omitted: 0, reached: Vec::new() }
}

/// The report as RFC 8460 4.4 and 4.5 show it.
#[test]
fn the_report_has_the_fields_of_the_rfc() {
    let sts = lines("version: STSv1, mode: testing, mx: mx1.example.net, mx: *.example.org, max_age: 604800");
    let tlsa = lines("3 1 1 0123456789abcdef");
    let policy = Policy::Sts { lines: &sts };
    let expired = Some(("certificate-expired", "it \"expired\" \\ on 2026-05-19"));
    let bogus = result(Policy::Tlsa { host: "mx.example.net", records: &[] }, Some(("dnssec-invalid", "bogus")));
    let fetch = TlsResult {
        session: Session::default(),
        ..result(Policy::Sts { lines: &[] }, Some(("sts-policy-fetch-error", "timed out")))
    };
    let counted = counted(vec![
        (Row::new(&result(policy, None)), 5326),
        (Row::new(&result(policy, expired)), 100),
        (Row::new(&result(policy, Some(("starttls-not-supported", "")))), 3),
        (Row::new(&result(Policy::Tlsa { host: "mx.example.net", records: &tlsa }, None)), 2),
        (Row::new(&result(Policy::None, None)), 2),
        (Row::new(&bogus), 1),
        (Row::new(&fetch), 1),
    ]);
    let sender: Address = "tls@mx.example".parse().expect("an address");
    let report = Report { hostname: "mx1.mx.example", sender: &sender, day: NOON / DAY, counted: &counted };
    let of = |policy: &str, succeeded: u64, failed: u64, details: &str| {
        let details = if details.is_empty() { String::new() } else { format!(",\"failure-details\":[{details}]") };
        format!(
            "{{\"policy\":{{{policy}}},\"summary\":{{\"total-successful-session-count\":{succeeded},\
             \"total-failure-session-count\":{failed}}}{details}}}"
        )
    };
    let domain = "\"policy-domain\":\"xn--mller-kva.example\"";
    let ends = "\"sending-mta-ip\":\"192.0.2.7\",\"receiving-mx-hostname\":\"mx.example.net\",\
                \"receiving-mx-helo\":\"mail.example.net\",\"receiving-ip\":\"198.51.100.1\"";
    let policies = [
        of(
            &format!(
                "\"policy-type\":\"sts\",\"policy-string\":[\"version: STSv1\",\"mode: testing\",\
                 \"mx: mx1.example.net\",\"mx: *.example.org\",\"max_age: 604800\"],{domain},\
                 \"mx-host\":[\"mx1.example.net\",\"*.example.org\"]"
            ),
            5326,
            103,
            &format!(
                "{{\"result-type\":\"certificate-expired\",{ends},\"failed-session-count\":100,\
                 \"failure-reason-code\":\"it \\\"expired\\\" \\\\ on 2026-05-19\"}},\
                 {{\"result-type\":\"starttls-not-supported\",{ends},\"failed-session-count\":3}}"
            ),
        ),
        of(
            &format!(
                "\"policy-type\":\"tlsa\",\"policy-string\":[\"3 1 1 0123456789abcdef\"],{domain},\
                 \"mx-host\":[\"mx.example.net\"]"
            ),
            2,
            0,
            "",
        ),
        of(&format!("\"policy-type\":\"no-policy-found\",\"policy-string\":[],{domain}"), 2, 0, ""),
        of(
            &format!("\"policy-type\":\"tlsa\",\"policy-string\":[],{domain},\"mx-host\":[\"mx.example.net\"]"),
            0,
            1,
            &format!(
                "{{\"result-type\":\"dnssec-invalid\",{ends},\"failed-session-count\":1,\
                 \"failure-reason-code\":\"bogus\"}}"
            ),
        ),
        of(
            &format!("\"policy-type\":\"sts\",\"policy-string\":[],{domain}"),
            0,
            1,
            "{\"result-type\":\"sts-policy-fetch-error\",\"failed-session-count\":1,\
             \"failure-reason-code\":\"timed out\"}",
        ),
    ];
    let wanted = format!(
        "{{\"organization-name\":\"mx.example\",\"date-range\":{{\"start-datetime\":\"2026-05-20T00:00:00Z\",\
         \"end-datetime\":\"2026-05-20T23:59:59Z\"}},\"contact-info\":\"tls@mx.example\",\
         \"report-id\":\"1779235200.xn--mller-kva.example@mx1.mx.example\",\"policies\":[{}]}}\n",
        policies.join(",")
    );
    assert_eq!(report.json(), wanted);
}

#[test]
fn the_report_as_mail() {
    let counted = counted(vec![(Row::new(&result(Policy::None, None)), 2)]);
    let sender: Address = "tls@mx.example".parse().expect("an address");
    let report = Report { hostname: "mx1.mx.example", sender: &sender, day: NOON / DAY, counted: &counted };
    let to: Address = "r@x.test".parse().expect("an address");
    let mail = report.mail(&report.compressed(), &to, "1K0", NOON + DAY);
    for part in [
        "Date: Thu, 21 May 2026 12:00:00 +0000\nFrom: tls@mx.example\nTo: r@x.test\n",
        "\nSubject: Report Domain: xn--mller-kva.example\n Submitter: mx1.mx.example\n \
         Report-ID: <1779235200.xn--mller-kva.example@mx1.mx.example>\n",
        "\nTLS-Report-Domain: xn--mller-kva.example\nTLS-Report-Submitter: mx1.mx.example\nTLS-Required: No\n",
        "\nContent-Type: multipart/report; report-type=\"tlsrpt\"; boundary=\"=_1K0\"\n\n--=_1K0\n",
        "\nxn--mller-kva.example\nthat mx1.mx.example\nhas made on 2026-05-20 UTC.\n",
        "\nContent-Type: application/tlsrpt+gzip\nContent-Transfer-Encoding: base64\n",
        "filename=\"mx1.mx.example!xn--mller-kva.example!1779235200!1779321599.json.gz\"\n",
    ] {
        assert!(mail.contains(part), "{part}: {mail}");
    }
    assert!(mail.is_ascii() && mail.lines().all(|line| line.len() <= 998));
    assert!(mail.ends_with("\n--=_1K0--\n"));
}

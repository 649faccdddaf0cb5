use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::super::tests::{Zone, authors, identifiers};
use super::super::{Record, evaluate};
use super::*;
use crate::address::Address;
use crate::aggregate::{DAY, Facts};
use crate::dns::lookup::has_public_hosts;
use crate::state::State;

/// Noon of 2026-05-20.
const NOON: u64 = 20_593 * DAY + DAY / 2;
const ZONE: &str = "_dmarc.x.test TXT v=DMARC1; p=reject; rua=mailto:r@x.test\nhost.x.test A 192.0.2.1\n\
                    _dmarc.quiet.test TXT v=DMARC1; p=reject\n\
                    _dmarc.try.test TXT v=DMARC1; p=reject; t=y; rua=mailto:r@x.test\n\
                    _dmarc.none.test TXT v=DMARC1; p=none; rua=mailto:r@x.test";

/// A directory that is removed when the test ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("penfold-dmarc-{}-{name}", std::process::id()));
        std::fs::create_dir(&path).expect("a scratch directory");
        Self(path)
    }

    /// Returns the counts as another process would open them.
    fn counts(&self) -> Counts {
        Counts::shared(&State::at(&self.0))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn signature(domain: &str, selector: &str, result: &str) -> Signature {
    Signature { domain: domain.to_owned(), selector: selector.to_owned(), result: result.to_owned() }
}

fn row_of(from: &str, passed: &str, action: Action) -> Option<Row> {
    let checked = evaluate(&Zone::new(ZONE), &authors(from), &identifiers(passed));
    let source = "192.0.2.7".parse().expect("an address");
    Row::new(&checked, source, action, "b.test", ("b.test", "fail"), vec![signature("a.test", "s", "pass")])
}

/// Returns a row of a client. Its signatures come from a hostile message.
fn row(client: u8) -> Row {
    let mut row = row_of("x.test", "", Action::Rejected).expect("a row");
    row.source = IpAddr::from([192, 0, 2, client]);
    row
}

#[test]
fn what_was_done_and_why() {
    for (from, passed, action, disposition, reason) in [
        ("x.test", "spf:x.test", Action::Accepted, "pass", ""),
        ("none.test", "spf:none.test", Action::Accepted, "none", ""),
        ("none.test", "", Action::Accepted, "none", ""),
        ("x.test", "", Action::Rejected, "reject", ""),
        ("x.test", "", Action::Quarantined, "quarantine", "local_policy"),
        ("x.test", "", Action::Accepted, "none", "local_policy"),
        ("x.test", "", Action::Forwarded, "none", "trusted_forwarder"),
        ("try.test", "", Action::Forwarded, "none", "trusted_forwarder"),
        ("try.test", "", Action::Quarantined, "quarantine", "policy_test_mode"),
        ("try.test", "", Action::Accepted, "none", "local_policy"),
    ] {
        let row = row_of(from, passed, action).expect("a row");
        assert_eq!((&*row.disposition, &*row.reason), (disposition, reason), "{from} {passed} {action:?}");
        assert_eq!((row.spf, row.dkim), (!passed.is_empty(), false));
    }
    assert_eq!(row_of("quiet.test", "", Action::Rejected), None, "it asks for no reports");
    assert_eq!(row_of("y.test", "", Action::Accepted), None, "it has no record");
}

#[test]
fn signatures_are_sorted_and_limited() {
    let checked = evaluate(&Zone::new(ZONE), &authors("a.x.test"), &[]);
    let mut signatures = vec![
        signature("a.x.test", "1", "fail"),
        signature("notx.test", "2", "pass"),
        signature("x.test", "3", "pass"),
        signature("a.x.test", "4", "pass"),
    ];
    signatures.extend((0..50).map(|n| signature("z.test", &n.to_string(), "fail")));
    let source = "::ffff:192.0.2.7".parse().expect("an address");
    let row = Row::new(&checked, source, Action::Rejected, "", ("", ""), signatures).expect("a row");
    let order: Vec<&str> = row.signatures.iter().map(|signature| &*signature.selector).collect();
    assert_eq!(order, ["4", "3", "2", "1", "0", "1", "2", "3"]);
    assert_eq!(row.source.to_string(), "192.0.2.7");
}

#[test]
fn a_row_is_read_as_it_was_written() {
    let mut row = row(1);
    row.signatures = vec![signature("a.test", "s._-", "pass"), signature("", "", "neutral")];
    row.source = "2001:db8::1".parse().expect("an address");
    assert_eq!(Row::parse(&row.to_text()), Some(row.clone()));
    let text = row.to_text();
    for damaged in [
        "",
        "|",
        &text[1..],
        &format!("{text}|"),
        &format!("{text}|a"),
        &text.replace("reject", "explode"),
        &text.replace("a.test", "a<test"),
        &text.replace("|00|", "|02|"),
        &text.replace("2001:", "x"),
    ] {
        assert_eq!(Row::parse(damaged), None, "{damaged}");
    }
    let checked = evaluate(&Zone::new(ZONE), &authors("x.test"), &[]);
    let hostile = vec![signature("a|b\n<c>&\"", &"s".repeat(5000), "pass\u{202e}")];
    let row = Row::new(&checked, row.source, Action::Rejected, "m|n", ("\0", "]]>"), hostile).expect("a row");
    assert_eq!(Row::parse(&row.to_text()), Some(row.clone()));
    assert!(row.to_text().len() < 1000 && row.signatures[0].domain == "a?b??c???");
}

#[test]
fn counts_are_shared_added_up_and_sent_once() {
    let scratch = Scratch::new("shared");
    let (one, other) = (scratch.counts(), scratch.counts());
    for _ in 0..3 {
        one.count(NOON, "x.test", &row(1));
        other.count(NOON + 20, "x.test", &row(1));
    }
    one.count(NOON, "x.test", &row(2));
    other.count(NOON, "y.test", &row(1));
    one.count(NOON - DAY, "x.test", &row(3));
    other.of_day(NOON + 20, 0);
    let short = |counts: &Counts, now: u64, day: u64| -> Vec<String> {
        let rows = |one: &Counted| one.rows.iter().map(|(row, n)| format!(" {n}*{}", row.source)).collect::<String>();
        counts.of_day(now, day).iter().map(|one| format!("{}{}", one.domain, rows(one))).collect()
    };
    let today = NOON / DAY;
    let wanted = ["x.test 6*192.0.2.1 1*192.0.2.2", "y.test 1*192.0.2.1"];
    assert_eq!(short(&one, NOON + 60, today), wanted);
    assert_eq!(short(&one, NOON + 60, today), wanted, "nothing is counted twice");
    assert_eq!(short(&scratch.counts(), NOON + 60, today - 1), ["x.test 1*192.0.2.3"]);
    assert!(short(&one, NOON + 60, today + 1).is_empty());
    one.note_done(NOON + DAY, today, "x.test").expect("recorded");
    assert_eq!(short(&scratch.counts(), NOON + DAY, today), ["y.test 1*192.0.2.1"], "also after a restart");
    assert!(short(&one, NOON + 4 * DAY, today).is_empty(), "old records do not count");
}

#[test]
fn what_is_in_memory_is_written_in_the_end() {
    let scratch = Scratch::new("end");
    let counts = scratch.counts();
    let now = crate::sys::now();
    counts.count(now, "x.test", &row(1));
    drop(counts);
    assert_eq!(scratch.counts().of_day(now, now / DAY).len(), 1);
}

/// Many messages with the same facts become one record. Many messages with different facts take a
/// bounded space on disk.
#[test]
fn counts_are_bounded() {
    let scratch = Scratch::new("bounded");
    let size = |name: &str| std::fs::metadata(scratch.0.join(name)).map_or(0, |file| file.len());
    let counts = scratch.counts();
    for _ in 0..10_000 {
        counts.count(NOON, "x.test", &row(1));
    }
    assert_eq!(counts.of_day(NOON, NOON / DAY)[0].rows[0].1, 10_000);
    assert!(size("dmarc") < 1000);
    for number in 0..70_000_u32 {
        let mut row = row(1);
        row.source = IpAddr::from(number.to_be_bytes());
        counts.count(NOON, "x.test", &row);
    }
    let all = counts.of_day(NOON, NOON / DAY);
    assert!(all[0].rows.len() == Row::BOUNDS.report_rows && all[0].omitted > 10_000, "{}", all[0].omitted);
    assert!(size("dmarc") + size("dmarc.old") <= 16 << 20);
    // If there is no state directory, nothing is counted, and nothing fails.
    let nowhere = Counts::shared(&State::at(Path::new("/nonexistent")));
    nowhere.count(NOON, "x.test", &row(1));
    assert_eq!(nowhere.of_day(NOON, NOON / DAY), []);
}

#[test]
fn only_addresses_that_have_agreed_get_reports() {
    let ask = |zone: &str, rua: &str| {
        let record = Record::parse(format!("v=DMARC1; rua={rua}").as_bytes()).expect("a record");
        let zone =
            format!("{zone}\n_dmarc.blue.example.com TXT v=DMARC1; p=none\n_dmarc.example.com TXT v=DMARC1; p=none");
        let all = allowed(&Zone::new(&zone), "blue.example.com", &record);
        all.iter().map(|uri| uri.address.to_string()).collect::<Vec<_>>().join(" ")
    };
    let agreed = "blue.example.com._report._dmarc.red.example.net TXT";
    for (zone, rua, addresses) in [
        ("", "mailto:a@blue.example.com", "a@blue.example.com"),
        ("", "mailto:a@example.com,mailto:b@green.example.com", "a@example.com b@green.example.com"),
        ("", "mailto:a@example.com,mailto:a@example.com", "a@example.com"),
        ("", "mailto:a@red.example.net", ""),
        ("", "mailto:a@com", ""),
        ("_dmarc.red.example.net TXT v=DMARC1; p=none", "mailto:a@red.example.net", ""),
        (&*format!("{agreed} v=DMARC1"), "mailto:a@red.example.net", "a@red.example.net"),
        (&*format!("{agreed} v=DMARC1;"), "mailto:a@red.example.net,mailto:b@x.test", "a@red.example.net"),
        (&*format!("{agreed} v=DMARC2"), "mailto:a@red.example.net", ""),
        (&*format!("{agreed} yes"), "mailto:a@red.example.net", ""),
        (&*format!("{agreed} v=DMARC1; rua=mailto:b@red.example.net"), "mailto:a@red.example.net", "b@red.example.net"),
        (&*format!("{agreed} v=DMARC1; rua=mailto:b@victim.test"), "mailto:a@red.example.net", ""),
        (
            &*format!("{agreed} v=DMARC1; rua=mailto:b@red.example.net,mailto:b@victim.test"),
            "mailto:a@red.example.net",
            "",
        ),
        (&*format!("{agreed} v=DMARC1\n{agreed} text"), "mailto:a@red.example.net", "a@red.example.net"),
        ("blue.example.com._report._dmarc.red.example.net FAIL", "mailto:a@red.example.net", ""),
        ("_dmarc.com FAIL", "mailto:a@blue.example.com", ""),
    ] {
        assert_eq!(ask(zone, rua), addresses, "{rua} with {zone}");
    }
}

#[test]
fn no_report_goes_to_a_host_that_is_not_public() {
    for (zone, is_good) in [
        ("x.test A 192.0.2.1", true),
        ("x.test A 192.0.2.1\nx.test A 127.0.0.1", false),
        ("x.test A 10.0.0.1", false),
        ("x.test A 169.254.1.1", false),
        ("x.test A 172.16.0.1", false),
        ("x.test A 192.168.0.1", false),
        ("x.test AAAA fd00::1", false),
        ("x.test AAAA fe80::1", false),
        ("x.test TXT text", false),
        ("x.test FAIL", false),
        ("x.test AAAA 2001:db8::1", true),
        ("x.test A 192.0.2.1\nx.test AAAA ::1", false),
        ("x.test MX mx.y.test\nmx.y.test A 192.0.2.1", true),
        ("x.test MX mx.y.test\nmx.y.test A 127.0.0.1", false),
        ("x.test MX mx.y.test\nx.test MX mx.z.test\nmx.y.test A 192.0.2.1\nmx.z.test A 192.168.0.1", false),
        ("x.test MX mx.y.test\nx.test MX mx.z.test\nmx.y.test A 192.0.2.1", true),
        ("x.test MX mx.y.test\nmx.y.test FAIL", false),
        ("x.test MX mx.y.test\nx.test A 192.0.2.1", false),
        ("x.test MX .\nx.test A 192.0.2.1", false),
        ("", false),
    ] {
        assert_eq!(has_public_hosts(&Zone::new(zone), "x.test"), is_good, "{zone}");
    }
}

#[test]
fn the_report_as_mail() {
    let record = Record::parse(b"v=DMARC1; p=reject; np=quarantine; adkim=s; rua=mailto:r@x.test").expect("a record");
    let mut signed = row(2);
    signed.signatures = vec![signature("a.test", "s1", "pass")];
    let counted =
        Counted { domain: "x.test".into(), rows: vec![(signed, 3), (row(1), 1)], omitted: 7, reached: Vec::new() };
    let sender: Address = "dmarc@mx.example".parse().expect("an address");
    let report =
        Report { hostname: "mx.example", sender: &sender, day: NOON / DAY, record: &record, counted: &counted };
    let text = xml::report(&report);
    assert_eq!(
        text.split_once("  <record>").expect("a record").0,
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<feedback xmlns=\"urn:ietf:params:xml:ns:dmarc-2.0\">\n\
         \x20 <version>1.0</version>\n  <report_metadata>\n    <org_name>mx.example</org_name>\n\
         \x20   <email>dmarc@mx.example</email>\n    <report_id>1779235200.x.test@mx.example</report_id>\n\
         \x20   <date_range>\n      <begin>1779235200</begin>\n      <end>1779321599</end>\n    </date_range>\n\
         \x20   <error>7 rows with fewer messages were left out</error>\n    <generator>penfold 0.1.0</generator>\n\
         \x20 </report_metadata>\n  <policy_published>\n    <domain>x.test</domain>\n\
         \x20   <discovery_method>treewalk</discovery_method>\n    <p>reject</p>\n    <sp>reject</sp>\n\
         \x20   <np>quarantine</np>\n    <fo>0</fo>\n    <adkim>s</adkim>\n    <aspf>r</aspf>\n\
         \x20   <testing>n</testing>\n  </policy_published>\n"
    );
    assert!(text.contains("<source_ip>192.0.2.2</source_ip>\n      <count>3</count>"));
    assert!(text.contains("<selector>s1</selector>"));
    let to: Address = "r@x.test".parse().expect("an address");
    let mail = message(&report, &attachment(&report), &to, "1K0", NOON + DAY);
    assert!(
        mail.starts_with("Date: Thu, 21 May 2026 12:00:00 +0000\nFrom: dmarc@mx.example\nTo: r@x.test\n"),
        "{mail}"
    );
    assert!(mail.contains(
        "\nSubject: Report Domain: x.test\n Submitter: mx.example\n Report-ID: <1779235200.x.test@mx.example>\n"
    ));
    assert!(mail.contains("filename=\"mx.example!x.test!1779235200!1779321599.xml.gz\"\n"));
    assert!(
        mail.contains("\nreceived on 2026-05-20 UTC.\n") || mail.contains("received on 2026-05-20 UTC.\n"),
        "{mail}"
    );
    assert!(mail.is_ascii() && mail.lines().all(|line| line.len() <= 998));
    assert!(mail.ends_with("\n--=_1K0--\n"));
}

//! MTA-STS records and policies: random and mutated.

use common::chance::Chance;
use penfold::tls_policy::sts::policy::MAX_SIZE;
use penfold::tls_policy::sts::record::{MAX_ID, id};
use penfold::tls_policy::sts::{Mode, StsPolicy};

use super::{mutate, repeat};

/// A text of parts that matter in a record or in a policy.
fn text(chance: &mut Chance, parts: &[&str]) -> Vec<u8> {
    let length = chance.of(0..12);
    (0..length).flat_map(|_| chance.pick(parts).as_bytes().to_vec()).collect()
}

#[test]
fn an_id_is_short_and_alphanumeric_whatever_the_records_are() {
    const PARTS: [&str; 13] =
        ["v=STSv1", ";", "id", "=", "20260101", " ", "\t", "x", "a.b_c-d", "\0", "\u{fc}", "; id=1;", "v=spf1 -all"];
    repeat(|chance| {
        let mut record = |_| match chance.of(0..3) {
            0 => text(chance, &PARTS),
            1 => mutate(chance, b"v=STSv1; id=20260101T000000;"),
            _ => mutate(chance, b"v=STSv1;x=y;id = a1 ;"),
        };
        let records: Vec<_> = (0..3).map(&mut record).collect();
        for count in 0..=records.len() {
            let records = &records[..count];
            if let Some(id) = id(records) {
                assert!(
                    (1..=MAX_ID).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric()),
                    "{records:?}"
                );
                // It stands in the only record of this kind.
                let ours = || records.iter().filter(|record| record.starts_with(b"v=STSv1"));
                let has_id = |record: &Vec<u8>| record.windows(id.len()).any(|part| part == id.as_bytes());
                assert!(ours().any(has_id), "{id} {records:?}");
            }
        }
    });
}

/// Whether a pattern names a host, label by label.
fn is_named(pattern: &str, host: &str) -> bool {
    let (pattern, host): (Vec<_>, Vec<_>) = (pattern.split('.').collect(), host.split('.').collect());
    let is_same =
        |(at, (one, other)): (usize, (&&str, &&str))| one.eq_ignore_ascii_case(other) || (at == 0 && *one == "*");
    pattern.len() == host.len() && pattern.iter().zip(&host).enumerate().all(is_same)
}

#[test]
fn a_policy_has_bounds_and_admits_only_what_it_names() {
    const GOOD: &str =
        "version: STSv1\r\nmode: enforce\r\nmx: mx1.example.org\r\nmx: *.example.net\r\nmax_age: 604800\r\n";
    const PARTS: [&str; 16] = [
        "version: STSv1\n",
        "mode: enforce\n",
        "mode: testing\r\n",
        "mode: none\n",
        "mx: *.example.org\n",
        "mx: a.example.org\n",
        "mx: b.c.d\n",
        "max_age: 86400\n",
        "max_age: 0\r\n",
        "max_age: 99999999999\n",
        "x: y\n",
        "\n",
        ":",
        " ",
        "\u{fc}",
        "<html>\n",
    ];
    const HOSTS: [&str; 9] = [
        "mx1.example.org",
        "a.example.net",
        "a.b.example.net",
        "example.net",
        "MX1.Example.Org",
        "a",
        "",
        "b.c.d",
        "*.d",
    ];
    repeat(|chance| {
        let text = if chance.of(0..2) == 0 { mutate(chance, GOOD.as_bytes()) } else { text(chance, &PARTS) };
        let Ok(policy) = StsPolicy::parse(&text, "1", 1000) else { return };
        assert!(text.len() <= MAX_SIZE && (300..=31_557_600).contains(&policy.max_age.as_secs()), "{policy:?}");
        assert!(policy.mode == Mode::None || !policy.mx.is_empty(), "{policy:?}");
        assert!(policy.mx.iter().all(|mx| mx.is_ascii() && **mx == *mx.to_ascii_lowercase()), "{policy:?}");
        for host in HOSTS.into_iter().filter(|host| !host.starts_with('*') && !host.is_empty()) {
            let want = policy.mx.iter().any(|mx| is_named(mx, host));
            assert_eq!(policy.admits(host), want, "{host} {policy:?}");
        }
        // The policy, written again, is the same.
        let mx: String = policy.mx.iter().map(|mx| format!("mx: {mx}\n")).collect();
        let (mode, seconds) = (policy.mode.word(), policy.max_age.as_secs());
        let again = format!("version: STSv1\nmode: {mode}\nmax_age: {seconds}\n{mx}");
        assert_eq!(StsPolicy::parse(again.as_bytes(), "1", 1000), Ok(policy));
    });
}

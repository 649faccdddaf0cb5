//! TLS reports: how TLS to the hosts of a domain went, sent once after the day.
//!
//! - `https`: reports by HTTPS and by mail to other hosts, and policies in reports

use std::fs;
use std::process::Command;

use common::clock::Clock;
use common::dns::Dns;
use common::keys;
use common::programs::gunzipped;
use common::remote::{Offer, Remote, Sink, Then};
use common::tls::Authority;
use common::{Daemon, Site, built, unpacked};

#[cfg(feature = "mta-sts")]
mod https;

/// The name that a scripted host has given, and the addresses of both ends.
const ENDS: &str = "sink.test,127.0.0.1,127.0.0.1";
/// Why a handshake with nonsense fails.
const CORRUPT: &str = "received corrupt message of type InvalidContentType";

/// Sends a message to a domain, and waits until it is delivered. Returns the line about it.
fn send(daemon: &Daemon, domain: &str) -> String {
    let id = daemon.submit(&[&format!("anna@{domain}")]);
    daemon.wait_words(&[&id, " sent ", domain])
}

/// A number or text of a JSON document after the first occurrence of a key.
fn values<'a>(json: &'a str, key: &str) -> Vec<&'a str> {
    let key = format!("\"{key}\":");
    let all = json.split(key.as_str()).skip(1);
    all.map(|rest| rest.split([',', '}', ']']).next().unwrap_or_default().trim_matches('"')).collect()
}

/// Checks that parsedmarc reads these policies from these messages, in any order: one line each, as
/// tls_report_reads.py writes them. The reports are about 2026-05-20, one for each domain. Reports the
/// check as skipped without parsedmarc.
fn check_by_parsedmarc(site: &Site, reports: &[&str], wanted: &[&str]) {
    let Some(tree) = unpacked::tree("parsedmarc") else {
        common::skipped("parsedmarc is not in target/peers/parsedmarc.pkg: run tests/setup");
        return;
    };
    let mut python = Command::new("python3");
    python.arg("-B").arg(built::source("tests/queue/tls_report_reads.py")).arg(tree);
    for (number, report) in reports.iter().enumerate() {
        let name = format!("report{number}");
        site.write(&name, report);
        python.arg(site.path(&name));
    }
    let output = python.output().expect("python3");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    let mut lines: Vec<&str> = text.lines().collect();
    let mut domains: Vec<_> = wanted.iter().filter_map(|line| line.split(' ').next()).collect();
    domains.dedup();
    let about = |domain| {
        let id = format!("1779235200.{domain}@razorback.test");
        format!("report razorback.test tls@razorback.test {id} 2026-05-20T00:00:00Z 2026-05-20T23:59:59Z")
    };
    let about: Vec<String> = domains.into_iter().map(about).collect();
    let mut wanted: Vec<&str> = wanted.iter().copied().chain(about.iter().map(String::as_str)).collect();
    lines.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(lines, wanted);
}

#[test]
fn what_happened_in_a_day_is_reported_once_to_domains_that_ask() {
    let leaf = Authority::new().leaf("mail.example.net", 300);
    let offer = || Some(Offer::starttls(&leaf));
    let good = Remote::with(Sink { tls: offer(), ..Sink::default() });
    let other = Remote::with(Sink { tls: offer(), ..Sink::default() });
    let plain = Remote::with(Sink::default());
    let refused = Remote::with(Sink { tls: offer(), ..Sink::default() }.reply("STARTTLS", "454 4.7.0 not today"));
    let broken = Sink { tls: offer(), ..Sink::default() };
    let broken = Remote::with(broken.when("STARTTLS", Then::Babble("220 go".into(), b"nonsense\r\n".to_vec()), 99));
    let hosts = [("good", &good), ("plain", &plain), ("refused", &refused), ("broken", &broken), ("quiet", &other)];
    let mut zone = String::from("_smtp._tls.twice.test TXT v=TLSRPTv1; rua=mailto:jon@razorback.test\n");
    let mut routes = String::new();
    for (name, remote) in hosts.iter().chain(&[("twice", &other)]) {
        zone += &format!("{name}.test MX 10 mail.{name}.test\nmail.{name}.test A 127.0.0.1\n");
        let record = if *name == "quiet" { "v=spf1 -all" } else { "v=TLSRPTv1; rua=mailto:jon@razorback.test" };
        zone += &format!("_smtp._tls.{name}.test TXT {record}\n");
        routes += &format!("{name}.test mx::{}\n", remote.address.port());
    }
    let dns = Dns::zone(&zone);
    let mut site = Site::with("remote.tls_reports = \"tls@razorback.test\"");
    site.set("dns", "nameservers", &dns.nameservers());
    site.add("routes", &routes);
    let made = keys::Made::new("razorback.test", "s");
    if cfg!(feature = "mailauth") {
        made.give(&site);
        made.of(&site).iter().for_each(|key| key.add_to(&mut site));
    }
    let Some(clock) = Clock::new(&site) else { return };
    clock.set("@2026-05-20 12:00:00");
    let daemon = clock.start(&site, false);
    for (name, _) in hosts {
        send(&daemon, &format!("{name}.test"));
    }
    send(&daemon, "good.test");
    send(&daemon, "twice.test");
    assert!(daemon.terminate().success());
    // An open connection may serve several messages.
    let connections = good.look(|seen| seen.connections);
    assert!((1..=2).contains(&connections));
    assert!(fs::read_to_string(site.path("spool/state/tls-reports")).expect("counts").contains("good.test"));

    clock.set("@2026-05-21 12:00:00");
    let daemon = clock.start(&site, false);
    // The record of twice.test is there twice, so it does not count.
    let mut reports = Vec::new();
    for report in daemon.wait_mail(&site, "jon", 4) {
        if cfg!(feature = "mailauth") {
            let verified = keys::verify(&report, &made.keys);
            assert!(verified.is_none_or(|all| all == ["s-rsa razorback.test True", "s-ed25519 razorback.test True"]));
        }
        let report = String::from_utf8(report).expect("text");
        reports.push((report.clone(), gunzipped(&report)));
    }
    let of = |domain: &str| {
        let mut found = reports.iter().filter(|(_, json)| values(json, "policy-domain").contains(&domain));
        let (mail, json) = found.next().unwrap_or_else(|| panic!("{domain}: {reports:?}"));
        assert!(found.next().is_none(), "{domain} has two reports");
        (mail, json)
    };
    let (mail, json) = of("good.test");
    for line in [
        "From: tls@razorback.test",
        "To: jon@razorback.test",
        "Subject: Report Domain: good.test",
        " Submitter: razorback.test",
        " Report-ID: <1779235200.good.test@razorback.test>",
        "TLS-Report-Domain: good.test",
        "TLS-Report-Submitter: razorback.test",
        "TLS-Required: No",
        "Content-Type: application/tlsrpt+gzip",
        " filename=\"razorback.test!good.test!1779235200!1779321599.json.gz\"",
    ] {
        assert!(mail.lines().any(|found| found == line), "{line}: {mail}");
    }
    if cfg!(feature = "mailauth") {
        let (_, signed) = mail.split_once("h=").expect("a signature");
        let signed = signed.split(';').next().unwrap_or_default().to_ascii_lowercase();
        assert!(["tls-report-domain", "tls-report-submitter", "tls-required"].iter().all(|name| signed.contains(name)));
    }
    assert!(mail.contains("\nContent-Type: multipart/report; report-type=\"tlsrpt\"; boundary="), "{mail}");
    assert_eq!(
        json.replace(&format!("count\":{connections},"), "count\":N,"),
        "{\"organization-name\":\"razorback.test\",\"date-range\":{\"start-datetime\":\"2026-05-20T00:00:00Z\",\
         \"end-datetime\":\"2026-05-20T23:59:59Z\"},\"contact-info\":\"tls@razorback.test\",\
         \"report-id\":\"1779235200.good.test@razorback.test\",\"policies\":[{\"policy\":{\
         \"policy-type\":\"no-policy-found\",\"policy-string\":[],\"policy-domain\":\"good.test\"},\"summary\":{\
         \"total-successful-session-count\":N,\"total-failure-session-count\":0}}]}\n"
    );
    for (domain, result, reason) in [
        ("plain.test", "starttls-not-supported", "the host does not offer STARTTLS"),
        ("refused.test", "starttls-not-supported", "454 4.7.0 not today"),
        ("broken.test", "validation-failure", "received corrupt message"),
    ] {
        let json = of(domain).1;
        let value = |key: &str| values(json, key).join(" ");
        assert_eq!(value("total-successful-session-count") + &value("total-failure-session-count"), "01", "{json}");
        assert_eq!((value("result-type"), value("failed-session-count")), (result.to_owned(), "1".to_owned()));
        assert_eq!(value("receiving-mx-hostname"), format!("mail.{domain}"));
        assert_eq!((value("sending-mta-ip"), value("receiving-ip")), ("127.0.0.1".to_owned(), "127.0.0.1".to_owned()));
        assert_eq!(value("receiving-mx-helo"), "sink.test");
        assert!(value("failure-reason-code").contains(reason), "{json}");
    }
    check_by_parsedmarc(
        &site,
        &reports.iter().map(|(mail, _)| &**mail).collect::<Vec<_>>(),
        &[
            &format!("broken.test no-policy-found 0 1 validation-failure*1@mail.broken.test,{ENDS},{CORRUPT}"),
            &format!("good.test no-policy-found {connections} 0"),
            &format!(
                "plain.test no-policy-found 0 1 starttls-not-supported*1@mail.plain.test,{ENDS},\
                 the host does not offer STARTTLS"
            ),
            &format!(
                "refused.test no-policy-found 0 1 starttls-not-supported*1@mail.refused.test,{ENDS},\
                 the host said to STARTTLS: 454 4.7.0 not today"
            ),
        ],
    );
    daemon.wait_words(&[" tls-report domain=good.test day=2026-05-20 to=<jon@razorback.test> size="]);
    assert!(daemon.settles(&site) && daemon.terminate().success());

    let daemon = clock.start(&site, false);
    daemon.wait_words(&["started"]);
    assert!(daemon.settles(&site) && !daemon.log().contains("tls-report"), "{}", daemon.log());
    assert_eq!(site.mail("jon").len(), 4);
}

/// TLSA records that match, that do not match, that cannot be looked up, and that cannot be used.
#[test]
fn the_tlsa_records_of_a_host_are_in_the_report() {
    let leaf = Authority::new().leaf("mail.example.net", 300);
    let remote = Remote::with(Sink { tls: Some(Offer::starttls(&leaf)), ..Sink::default() });
    let port = remote.address.port();
    let (good, wrong) = (leaf.association([3, 1, 1]), "3 1 1 ".to_owned() + &"00".repeat(32));
    // Records of usage 1 are not used for mail.
    let unusable = leaf.association([1, 1, 1]);
    let mut zone = String::new();
    for (name, record) in [
        ("good", format!("TLSA {good}")),
        ("wrong", format!("TLSA {wrong}")),
        ("bogus", "SERVFAIL".into()),
        ("unusable", format!("TLSA {unusable}")),
    ] {
        let records = [
            format!("{name}.test MX 10 mail.{name}.test\n{name}.test SECURE\n"),
            format!("mail.{name}.test A 127.0.0.1\nmail.{name}.test SECURE\n"),
            format!("_{port}._tcp.mail.{name}.test {record}\n_{port}._tcp.mail.{name}.test SECURE\n"),
            format!("_smtp._tls.{name}.test TXT v=TLSRPTv1; rua=mailto:jon@razorback.test\n"),
        ];
        zone += &records.concat();
    }
    let dns = Dns::zone(&zone);
    let mut site = Site::with("remote.tls_reports = \"tls@razorback.test\"\nqueue.warn_after = \"4d\"");
    site.set("dns", "nameservers", &dns.nameservers());
    site.add(
        "routes",
        &["good", "wrong", "bogus", "unusable"].map(|name| format!("{name}.test mx::{port}\n")).concat(),
    );
    let Some(clock) = Clock::new(&site) else { return };
    clock.set("@2026-05-20 12:00:00");
    let daemon = clock.start(&site, false);
    send(&daemon, "good.test");
    send(&daemon, "unusable.test");
    for domain in ["wrong.test", "bogus.test"] {
        let id = daemon.submit(&[&format!("anna@{domain}")]);
        daemon.wait_words(&[&id, " deferred ", domain, "TLSA"]);
    }
    assert!(daemon.terminate().success());
    clock.set("@2026-05-21 12:00:00");
    let daemon = clock.start(&site, false);
    let reports = daemon.wait_mail(&site, "jon", 4).into_iter();
    let reports: Vec<String> = reports.map(|report| String::from_utf8(report).expect("text")).collect();
    check_by_parsedmarc(
        &site,
        &reports.iter().map(String::as_str).collect::<Vec<_>>(),
        &[
            &format!("good.test tlsa 1 0 \"{good}\""),
            &format!(
                "wrong.test tlsa 0 1 \"{wrong}\" tlsa-invalid*1@mail.wrong.test,{ENDS},\
                 no TLSA record of the host matches its certificates"
            ),
            "bogus.test tlsa 0 1 dnssec-invalid*1@mail.bogus.test,-,-,127.0.0.1,\
             the look-up of the TLSA records of mail.bogus.test failed: the name server could not find out (SERVFAIL)",
            &format!(
                "unusable.test tlsa 0 1 \"{unusable}\" tlsa-invalid*1@mail.unusable.test,{ENDS},\
                 none of the TLSA records of the host can be used"
            ),
        ],
    );
    let reports: Vec<String> = reports.iter().map(|report| gunzipped(report)).collect();
    for (name, policy, result) in [
        ("good", &*good, ""),
        ("wrong", &*wrong, "tlsa-invalid"),
        ("bogus", "", "dnssec-invalid"),
        ("unusable", &*unusable, "tlsa-invalid"),
    ] {
        let json = reports.iter().find(|json| json.contains(&format!("\"policy-domain\":\"{name}.test\"")));
        let json = json.unwrap_or_else(|| panic!("{name}: {reports:?}"));
        let policy = if policy.is_empty() { String::new() } else { format!("\"{policy}\"") };
        for part in [
            format!("\"policy-type\":\"tlsa\",\"policy-string\":[{policy}]"),
            format!("\"mx-host\":[\"mail.{name}.test\"]"),
            format!("\"total-successful-session-count\":{},", u8::from(result.is_empty())),
        ] {
            assert!(json.contains(&part), "{part}: {json}");
        }
        assert_eq!(values(json, "result-type").join(""), result, "{json}");
    }
}

/// Without a contact nothing is counted.
#[test]
fn nothing_is_counted_without_a_contact() {
    let remote = Remote::with(Sink::default());
    let dns = Dns::zone("plain.test MX 10 mail.plain.test\nmail.plain.test A 127.0.0.1\n");
    let mut site = Site::with("");
    site.set("dns", "nameservers", &dns.nameservers());
    site.add("routes", &format!("plain.test mx::{}\n", remote.address.port()));
    let daemon = site.start();
    send(&daemon, "plain.test");
    assert!(daemon.terminate().success());
    assert!(!site.path("spool/state/tls-reports").exists());
}

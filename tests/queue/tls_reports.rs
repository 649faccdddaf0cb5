//! TLS reports: how TLS to the hosts of a domain went, sent once after the day.

use std::fs;

use common::clock::Clock;
use common::dns::Dns;
use common::programs::gunzipped;
use common::remote::{Offer, Remote, Sink, Then};
use common::tls::Authority;
use common::{Daemon, Site};

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
    daemon.wait_words(&[" tls-report domain=good.test day=2026-05-20 to=<jon@razorback.test> size="]);
    assert!(daemon.settles(&site) && daemon.terminate().success());

    let daemon = clock.start(&site, false);
    daemon.wait_words(&["started"]);
    assert!(daemon.settles(&site) && !daemon.log().contains("tls-report"), "{}", daemon.log());
    assert_eq!(site.mail("jon").len(), 4);
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

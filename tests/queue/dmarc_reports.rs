//! DMARC reports: what the mail of a day was, sent once after the day, to those who may get it.

use std::fs;
use std::net::TcpListener;

use common::clock::Clock;
use common::dns::{self, Dns};
use common::keys;
use common::programs::gunzipped;
use common::remote::{Conduct, Remote, Sink};
use common::{Daemon, Site};

/// Sends a message of `from`, which comes from 127.0.0.1 and has no signature.
fn send(daemon: &Daemon, from: &str, reply: &str) {
    let mut client = daemon.greeted();
    client.begin(from, &["root@razorback"]);
    client.send_text(&format!("From: <{from}>\r\nSubject: hello\r\n\r\nHow are you?\r\n.\r\n"));
    client.expect(reply);
}

#[test]
fn a_report_is_sent_once_after_the_day_and_only_to_those_who_may_get_it() {
    let dns = Dns::zone(
        "_dmarc.example.net TXT v=DMARC1; p=none; rua=mailto:jon@razorback.test,mailto:x@example.net\n\
         example.net._report._dmarc.razorback.test TXT v=DMARC1\n\
         example.net TXT v=spf1 ip4:127.0.0.1 -all\n\
         example.net MX 10 mail.example.net\nmail.example.net A 127.0.0.1\n\
         _dmarc.example.org TXT v=DMARC1; p=reject; rua=mailto:jon@razorback.test\n\
         example.org MX 10 mail.example.net\n\
         _dmarc.reject.test TXT v=DMARC1; p=reject; rua=mailto:jon@razorback.test!1k\n\
         reject.test MX 10 mail.example.net\nreject.test._report._dmarc.razorback.test TXT v=DMARC1; rua=mailto:jon@razorback.test!1k",
    );
    let mut site = Site::with(
        "hostname = \"mx.host.test\"\nrelay.networks = []\npolicy.spf = \"mark\"\npolicy.dmarc = \"obey\"\n\
         policy.dmarc_reports = \"dmarc@razorback.test\"",
    );
    site.set("dns", "nameservers", &dns.nameservers());
    let made = keys::Made::new("razorback.test", "s");
    // The keys of the hostname do not sign a report whose address is elsewhere.
    for keys in [&keys::Made::new("host.test", "h"), &made] {
        keys.give(&site);
        keys.of(&site).iter().for_each(|key| key.add_to(&mut site));
    }
    let Some(clock) = Clock::new(&site) else { return };
    clock.set("@2026-05-20 12:00:00");
    let daemon = clock.start(&site, false);
    send(&daemon, "anna@example.net", "250 ");
    send(&daemon, "anna@example.net", "250 ");
    send(&daemon, "anna@a.example.net", "250 ");
    send(&daemon, "anna@example.org", "550 ");
    send(&daemon, "anna@reject.test", "550 ");
    assert!(daemon.terminate().success());
    clock.set("@2026-05-21 12:00:00");
    let daemon = clock.start(&site, false);
    let report = daemon.wait_mail(&site, "jon", 1).remove(0);
    let verified = keys::verify(&report, &made.keys);
    assert!(verified.is_none_or(|all| all == ["s-rsa razorback.test True", "s-ed25519 razorback.test True"]));
    let report = String::from_utf8(report).expect("text");
    for line in [
        "From: dmarc@razorback.test",
        "To: jon@razorback.test",
        "Subject: Report Domain: example.net",
        " Report-ID: <1779235200.example.net@mx.host.test>",
        "received on 2026-05-20 UTC.",
    ] {
        assert!(report.lines().any(|found| found == line), "{line}: {report}");
    }
    let xml = gunzipped(&report);
    for part in [
        "<domain>example.net</domain>\n    <discovery_method>treewalk</discovery_method>\n    <p>none</p>",
        "<source_ip>127.0.0.1</source_ip>\n      <count>2</count>",
        "<spf>pass</spf>",
        "<header_from>a.example.net</header_from>",
        "<scope>mfrom</scope>\n        <result>pass</result>",
    ] {
        assert!(xml.contains(part), "{part}: {xml}");
    }
    daemon.wait_words(&[" dmarc-report domain=example.net day=2026-05-20 to=<jon@razorback.test> size="]);
    daemon
        .wait_words(&["- dmarc-report domain=example.net", "reason=\"example.net has no mail host in the Internet\""]);
    daemon
        .wait_words(&["- dmarc-report domain=example.org", "reason=\"no address of the record has agreed to get it\""]);
    daemon.wait_words(&["- dmarc-report domain=reject.test", "reason=\"it is longer than jon@razorback.test wants\""]);
    assert!(daemon.settles(&site));
    assert!(daemon.terminate().success());
    let daemon = clock.start(&site, false);
    daemon.wait_words(&["started"]);
    assert!(daemon.settles(&site) && !daemon.log().contains("dmarc-report"), "{}", daemon.log());
    assert_eq!(site.mail("jon").len(), 1);
}

/// The owner of a domain may change its mail hosts between the check and the delivery.
#[test]
fn a_report_is_not_delivered_to_a_host_that_is_not_public_any_more() {
    const MAIL: &str = "_dmarc.example.net TXT v=DMARC1; p=none; rua=mailto:x@example.net\n\
                        example.net MX 10 mail.example.net\n";
    const BEFORE: &str = "mail.example.net A 192.0.2.1\nmail.example.net AAAA 2001:db8::1";
    const AFTER: &str = "mail.example.net A 127.0.0.1\nmail.example.net A 10.0.0.1\n\
                         mail.example.net A 169.254.1.1\nmail.example.net AAAA fd00::1";
    let mut site =
        Site::with("relay.networks = []\npolicy.dmarc = \"mark\"\npolicy.dmarc_reports = \"root@razorback.test\"");
    let spool = site.path("spool");
    // The addresses change as soon as the report is in the spool.
    let dns = Dns::start(move |name, kind| {
        let is_empty = |sub: &&str| fs::read_dir(spool.join(sub)).is_ok_and(|mut files| files.next().is_none());
        let hosts = if ["new", "cur"].iter().all(is_empty) { BEFORE } else { AFTER };
        let mut answer = dns::answer(&format!("{MAIL}{hosts}"), name, kind);
        answer.records.iter_mut().for_each(|record| record.ttl = 0);
        answer
    });
    site.set("dns", "nameservers", &dns.nameservers());
    let remote = Remote::start(TcpListener::bind("0.0.0.0:0").expect("a port"), Conduct::Sink(Sink::default()));
    site.add("routes", &format!("example.net mx::{}", remote.address.port()));
    let Some(clock) = Clock::new(&site) else { return };
    clock.set("@2026-05-20 12:00:00");
    let daemon = clock.start(&site, false);
    send(&daemon, "anna@example.net", "250 ");
    daemon.wait_mail(&site, "root", 1);
    assert!(daemon.terminate().success());
    clock.set("@2026-05-21 12:00:00");
    let daemon = clock.start(&site, false);
    daemon.wait_words(&[" dmarc-report domain=example.net day=2026-05-20 to=<x@example.net> size="]);
    daemon.wait_words(&[" failed to=<x@example.net>", "5.4.4", "only loopback, private or local addresses"]);
    daemon.wait_words(&[" dropped reason=\"a DMARC report could not be delivered\""]);
    assert!(daemon.settles(&site));
    assert_eq!((remote.look(|seen| seen.connections), site.mail("root").len()), (0, 1), "{}", daemon.log());
}

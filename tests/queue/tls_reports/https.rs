//! Reports by HTTPS and by mail to other hosts, and MTA-STS policies in reports, in a network of the
//! test's own.

use std::net::TcpListener;

use common::Site;
use common::clock::Clock;
use common::dns::Dns;
use common::https::{Conduct, Request, Server, answer};
use common::namespace::in_a_network;
use common::programs::{gunzip, gunzipped};
use common::remote::{self, Offer, Remote, Sink};
use common::tls::Authority;

use super::{check_by_parsedmarc, send, values};

/// What a web server does that gives this answer to each request.
fn reply(status: &str, text: &str) -> Conduct {
    Conduct::Answer(answer(status, "text/plain", text))
}

/// A report goes to each place that the domain names, and again to those that did not take it. The
/// connection by which it goes is not counted.
#[test]
fn reports_go_to_web_servers_and_are_not_counted_themselves() {
    in_a_network(&["192.0.2.1/32", "192.0.2.2/32", "192.0.2.3/32", "192.0.2.4/32"], || {
        let (authority, stranger) = (Authority::new(), Authority::new());
        let leaf = authority.leaf("mail.good.test", 300);
        let listener = TcpListener::bind("192.0.2.1:25").expect("port 25");
        let remote = Remote::start(
            listener,
            remote::Conduct::Sink(Sink { tls: Some(Offer::starttls(&leaf)), ..Sink::default() }),
        );
        let web = Server::start("192.0.2.2", &authority.leaf("web.good.test", 300).config, reply("503 Later", ""));
        let forged = Server::start("192.0.2.3", &stranger.leaf("forged.test", 300).config, reply("200 OK", ""));
        let policy = "version: STSv1\r\nmode: testing\r\nmx: *.sts.test\r\nmax_age: 86400\r\n";
        let _policies =
            Server::start("192.0.2.4", &authority.leaf("mta-sts.sts.test", 300).config, reply("200 OK", policy));
        let dns = Dns::zone(
            "sts.test MX 10 mail.sts.test\nmail.sts.test A 192.0.2.1\nmta-sts.sts.test A 192.0.2.4\n\
             _mta-sts.sts.test TXT v=STSv1; id=1;\n_smtp._tls.sts.test TXT v=TLSRPTv1; rua=mailto:tls@report.test\n\
             fetch.test MX 10 mail.sts.test\nmta-sts.fetch.test A 192.0.2.3\n_mta-sts.fetch.test TXT v=STSv1; id=1;\n\
             _smtp._tls.fetch.test TXT v=TLSRPTv1; rua=mailto:tls@report.test\n\
             good.test MX 10 mail.good.test\nmail.good.test A 192.0.2.1\nweb.good.test A 192.0.2.2\n\
             _smtp._tls.good.test TXT v=TLSRPTv1; rua=https://web.good.test/v1?a=b,mailto:tls@report.test\n\
             report.test MX 10 mail.good.test\n_smtp._tls.report.test TXT v=TLSRPTv1; rua=mailto:tls@report.test\n\
             forged.test MX 10 mail.good.test\nforged.test A 192.0.2.3\n\
             _smtp._tls.forged.test TXT v=TLSRPTv1; rua=https://forged.test/\n\
             inside.test MX 10 mail.good.test\nlocal.inside.test A 127.0.0.1\n\
             _smtp._tls.inside.test TXT v=TLSRPTv1; rua=https://local.inside.test/,https://127.0.0.1/,mailto:x@local.inside.test",
        );
        let mut site = Site::with("remote.tls_reports = \"tls@razorback.test\"");
        site.set("dns", "nameservers", &dns.nameservers());
        authority.trusted_by(&mut site);
        let Some(clock) = Clock::new(&site) else { return };
        clock.set("@2026-05-20 12:00:00");
        let daemon = clock.start(&site, false);
        for domain in ["good.test", "forged.test", "inside.test", "sts.test", "fetch.test"] {
            send(&daemon, domain);
        }
        assert!(daemon.terminate().success());

        clock.set("@2026-05-21 12:00:00");
        let daemon = clock.start(&site, false);
        daemon.wait_words(&["- tls-report domain=good.test", "https://web.good.test/v1?a=b: the status is 503"]);
        daemon.wait_words(&["- tls-report domain=forged.test", "https://forged.test/: "]);
        daemon.wait_words(&["- tls-report domain=inside.test", "https://local.inside.test/: "]);
        daemon.wait_words(&["- tls-report domain=inside.test", "https://127.0.0.1/: "]);
        daemon.wait_words(&["- tls-report domain=inside.test", "local.inside.test has no mail host in the Internet"]);
        remote.wait("three reports", |seen| seen.messages.len() == 8);
        let mail = remote.look(|seen| seen.messages.iter().map(|message| message.data.clone()).collect::<Vec<_>>());
        let mail: Vec<String> = mail.into_iter().map(|data| String::from_utf8(data).expect("text")).collect();
        let of = |domain: &str| {
            let field = format!("\r\nTLS-Report-Domain: {domain}\r\n");
            let report = mail.iter().find(|text| text.contains(&field)).expect("a report");
            assert!(report.contains("\r\nTLS-Required: No\r\n"), "{report}");
            gunzipped(&report.replace("\r\n", "\n"))
        };
        check_by_parsedmarc(
            &site,
            &mail
                .iter()
                .map(String::as_str)
                .filter(|text| text.contains("\r\nTLS-Report-Domain: "))
                .collect::<Vec<_>>(),
            &[
                "good.test no-policy-found 1 0",
                "sts.test sts 0 1 \"version: STSv1\" \"mode: testing\" \"mx: *.sts.test\" \"max_age: 86400\" \
                 certificate-host-mismatch*1@mail.sts.test,sink.test,192.0.2.1,192.0.2.1,certificate not valid for \
                 name \"mail.sts.test\"; certificate is only valid for DnsName(\"mail.good.test\")",
                "fetch.test no-policy-found 1 0",
                "fetch.test sts 0 1 sts-webpki-invalid*1@-,-,-,-,the certificate is not from a trusted authority",
            ],
        );
        let json = of("good.test");
        assert_eq!(values(&json, "total-successful-session-count"), ["1"], "{json}");
        let sts = of("sts.test");
        for part in [
            "\"policy-type\":\"sts\",\"policy-string\":[\"version: STSv1\",\"mode: testing\",\"mx: *.sts.test\",\
             \"max_age: 86400\"],\"policy-domain\":\"sts.test\",\"mx-host\":[\"*.sts.test\"]",
            "\"total-successful-session-count\":0,\"total-failure-session-count\":1",
            "\"result-type\":\"certificate-host-mismatch\",\"sending-mta-ip\":\"192.0.2.1\",\
             \"receiving-mx-hostname\":\"mail.sts.test\"",
        ] {
            assert!(sts.contains(part), "{part}: {sts}");
        }
        let fetch = of("fetch.test");
        let (kinds, results) = (values(&fetch, "policy-type"), values(&fetch, "result-type"));
        assert!(kinds.contains(&"sts") && kinds.contains(&"no-policy-found"), "{fetch}");
        assert_eq!(results, ["sts-webpki-invalid"], "{fetch}");
        assert!(daemon.settles(&site) && daemon.terminate().success());

        // After a restart the web server gets the report, and the address does not get it again.
        web.behave(reply("201 Created", ""));
        clock.set("@2026-05-21 14:00:00");
        let daemon = clock.start(&site, false);
        daemon.wait_words(&["- tls-report domain=good.test day=2026-05-20 to=https://web.good.test/v1?a=b size="]);
        daemon.wait_words(&["- tls-report domain=inside.test", "local.inside.test has no mail host in the Internet"]);
        send(&daemon, "sts.test");
        assert!(daemon.settles(&site));
        assert_eq!(remote.look(|seen| seen.messages.len()), 9, "{}", daemon.log());
        assert!(daemon.terminate().success());
        let requests = web.requests();
        let Request { head, content, .. } = requests.last().expect("a request");
        assert!(head.starts_with("POST /v1?a=b HTTP/1.1\r\n"), "{head}");
        let header = head.to_ascii_lowercase();
        assert!(header.contains("\r\nhost: web.good.test\r\n"), "{header}");
        assert!(header.contains("\r\ncontent-type: application/tlsrpt+gzip\r\n"), "{header}");
        assert_eq!((requests.len(), gunzip(content)), (2, json));
        assert!(forged.requests().into_iter().all(|request| request == Request::default()));

        // The connection of the report to report.test was not counted, and what has failed for a day
        // is given up.
        clock.set("@2026-05-22 12:00:00");
        let daemon = clock.start(&site, false);
        daemon.wait_words(&["- tls-report domain=forged.test day=2026-05-20", "https://forged.test/: "]);
        daemon.wait_words(&["- tls-report domain=inside.test", "local.inside.test has no mail host in the Internet"]);
        // Reports are sent in the order of the domains.
        daemon.wait_words(&[" tls-report domain=sts.test day=2026-05-21 "]);
        assert!(daemon.settles(&site));
        assert!(!daemon.log().contains("domain=report.test"), "{}", daemon.log());
        assert!(!daemon.log().contains("domain=good.test"), "{}", daemon.log());
        assert!(daemon.terminate().success());
        let daemon = clock.start(&site, false);
        daemon.wait_words(&["started"]);
        assert!(daemon.settles(&site) && !daemon.log().contains("tls-report"), "{}", daemon.log());
    });
}

/// A host that the policy does not name is a failure, whatever its certificate. If the policy is
/// enforced, no connection is opened.
#[test]
fn a_host_that_the_policy_does_not_name_is_in_the_report() {
    in_a_network(&["192.0.2.1/32", "192.0.2.2/32", "192.0.2.3/32"], || {
        let authority = Authority::new();
        let leaf = authority.leaf("mail.good.test", 300);
        let listener = TcpListener::bind("192.0.2.1:25").expect("port 25");
        let sink = Sink { tls: Some(Offer::starttls(&leaf)), ..Sink::default() };
        let remote = Remote::start(listener, remote::Conduct::Sink(sink));
        let (mut zone, mut servers) = (String::from("mail.good.test A 192.0.2.1\n"), Vec::new());
        for (mode, address) in [("enforce", "192.0.2.2"), ("testing", "192.0.2.3")] {
            let policy = format!("version: STSv1\r\nmode: {mode}\r\nmx: *.other.test\r\nmax_age: 86400\r\n");
            let web = authority.leaf(&format!("mta-sts.{mode}.test"), 300);
            servers.push(Server::start(address, &web.config, reply("200 OK", &policy)));
            zone += &format!(
                "{mode}.test MX 10 mail.good.test\nmta-sts.{mode}.test A {address}\n\
                 _mta-sts.{mode}.test TXT v=STSv1; id=1;\n\
                 _smtp._tls.{mode}.test TXT v=TLSRPTv1; rua=mailto:jon@razorback.test\n"
            );
        }
        let dns = Dns::zone(&zone);
        let mut site = Site::with("remote.tls_reports = \"tls@razorback.test\"\nqueue.warn_after = \"4d\"");
        site.set("dns", "nameservers", &dns.nameservers());
        authority.trusted_by(&mut site);
        let Some(clock) = Clock::new(&site) else { return };
        clock.set("@2026-05-20 12:00:00");
        let daemon = clock.start(&site, false);
        send(&daemon, "testing.test");
        let id = daemon.submit(&["anna@enforce.test"]);
        daemon.wait_words(&[&id, " deferred ", "the MTA-STS policy of the domain does not name mail.good.test"]);
        assert_eq!(remote.look(|seen| seen.connections), 1, "only for the policy that is tested");
        assert!(daemon.terminate().success());

        clock.set("@2026-05-21 12:00:00");
        let daemon = clock.start(&site, false);
        let reports = daemon.wait_mail(&site, "jon", 2).into_iter();
        let reports: Vec<String> = reports.map(|report| String::from_utf8(report).expect("text")).collect();
        let line = |mode: &str, ends: &str| {
            format!(
                "{mode}.test sts 0 1 \"version: STSv1\" \"mode: {mode}\" \"mx: *.other.test\" \"max_age: 86400\" \
                 validation-failure*1@mail.good.test,{ends},192.0.2.1,\
                 the MTA-STS policy of the domain does not name mail.good.test"
            )
        };
        let wanted = [line("enforce", "-,-"), line("testing", "sink.test,192.0.2.1")];
        check_by_parsedmarc(
            &site,
            &reports.iter().map(String::as_str).collect::<Vec<_>>(),
            &wanted.iter().map(String::as_str).collect::<Vec<_>>(),
        );
        let results = reports.iter().map(|report| values(&gunzipped(report), "result-type").join(" "));
        assert_eq!(results.collect::<Vec<_>>(), ["validation-failure", "validation-failure"]);
        assert!(daemon.terminate().success());
    });
}

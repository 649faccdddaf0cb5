//! TLS and AUTH as a client, with the real daemon: log lines, queue listings, and errors in the
//! credentials table. Also shows that no secret appears anywhere.
//!
//! Every single failure is tested in tests/outbound/client (`secure` and `login`).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::dns::Dns;
use common::remote::{Offer, Remote, Sink, Then};
use common::tls::Authority;
use common::{Daemon, Site};

/// A site that sends all mail to the host `remote`. With `scheme` the URL is complete, such as
/// `smtp://127.0.0.1:port`.
fn site(scheme: &str, remote: &Remote, settings: &str) -> Site {
    let limits = "remote.timeout = \"1s\"\nqueue.retry_min = \"1s\"\nqueue.retry_max = \"1s\"";
    let mut site = Site::with(&format!("{limits}\n{settings}"));
    site.set("remote", "smarthosts", &format!("[\"{scheme}://127.0.0.1:{}\"]", remote.address.port()));
    site
}

/// Writes a credentials table that only its owner may read.
fn know(site: &mut Site, lines: &str) {
    give(site, lines, 0o600);
    let path = format!("{:?}", site.path("credentials"));
    site.set("remote", "credentials", &path);
}

fn give(site: &Site, lines: &str, mode: u32) {
    site.write("credentials.new", lines);
    chmod(&site.path("credentials.new"), mode);
    fs::rename(site.path("credentials.new"), site.path("credentials")).expect("a rename");
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a scratch file");
}

fn login() -> Sink {
    let keywords = vec!["AUTH PLAIN".to_owned()];
    Sink { keywords, ..Sink::default() }
        .reply("AUTH PLAIN AGpvbgBodXNo", "235 2.7.0 welcome")
        .reply("AUTH", "535 5.7.8 who are you?")
}

fn no_secret(daemon: &Daemon) {
    let log = daemon.log();
    assert!(!log.contains("hush") && !log.contains("aHVza") && !log.contains("AGpvbg"), "{log}");
}

#[test]
fn the_log_records_tls_and_the_login() {
    let authority = Authority::new();
    let leaf = authority.leaf("127.0.0.1", 300);
    for (rule, line, tls) in [
        (None, None, "tls=TLS1.3"),
        (Some(Then::Reply("454 4.7.0 no".into())), Some("reason=\"the host said to STARTTLS: 454 4.7.0 no\""), "tls=-"),
        (Some(Then::Close), Some("reason=\"the connection was closed while starting TLS\""), "tls=-"),
        (Some(Then::Hang), Some("reason=\"timed out while starting TLS\""), "tls=-"),
    ] {
        let mut sink = Sink { tls: Some(Offer::starttls(&leaf)), ..Sink::default() };
        sink = rule.into_iter().fold(sink, |sink, then| sink.when("STARTTLS", then, usize::MAX));
        let remote = Remote::with(sink);
        let site = site("smtp", &remote, "");
        let daemon = site.start();
        let id = daemon.submit(&["elvis@example.test"]);
        let host = format!("host=[127.0.0.1]:{}", remote.address.port());
        daemon.wait_words(&[&id, " sent ", &host, tls, "code=250"]);
        let failures =
            daemon.log().lines().filter(|l| l.contains(" tls-failed ")).map(str::to_owned).collect::<Vec<_>>();
        match line {
            None => assert!(failures.is_empty(), "{failures:?}"),
            Some(words) => {
                assert_eq!(failures.len(), 1, "{failures:?}");
                assert_eq!(failures[0], format!("{id} tls-failed {host} tls=none {words}"));
            }
        }
    }
}

#[test]
fn mail_waits_where_tls_is_required_and_fails_and_the_reason_is_shown() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    for (scheme, settings) in
        [("smtp", "remote.tls = \"required\""), ("smtp+starttls", "remote.tls = \"none\""), ("smtps", "")]
    {
        let leaf = stranger.leaf("127.0.0.1", 300);
        let offer = if scheme == "smtps" { Offer::implicit(&leaf) } else { Offer::starttls(&leaf) };
        let remote = Remote::with(Sink { tls: Some(offer), ..Sink::default() });
        let mut site = site(scheme, &remote, settings);
        authority.trusted_by(&mut site);
        let daemon = site.start();
        let id = daemon.submit(&["elvis@example.test"]);
        let why = "TLS is required: the certificate is not from a trusted authority";
        daemon.wait_words(&[&id, " deferred ", "dsn=4.7.5", why]);
        let queue = site.penfoldctl(&["queue"]);
        assert!(queue.contains(&id) && queue.contains(why), "{queue}");
        remote.look(|seen| assert!(!seen.commands.iter().any(|c| c.line.starts_with("MAIL")), "MAIL in plaintext"));
        // Once the authority is trusted, the message is sent.
        stranger.trusted_by(&mut site);
        site.configure();
        daemon.hup();
        assert!(daemon.flush_until(&site, || site.spooled().is_empty()), "{}", daemon.log());
        assert!(remote.messages(1)[0].tls);
    }
}

#[test]
fn a_route_has_its_own_scheme_and_its_own_connection() {
    let authority = Authority::new();
    let remote =
        Remote::with(Sink { tls: Some(Offer::starttls(&authority.leaf("127.0.0.1", 300))), ..Sink::default() });
    let mut site = site("smtp", &remote, "remote.tls = \"none\"");
    authority.trusted_by(&mut site);
    let port = remote.address.port();
    site.add("routes", &format!("bank.test smtp+starttls://127.0.0.1:{port}"));
    let daemon = site.start();
    let id = daemon.submit(&["elvis@example.test", "teller@bank.test"]);
    daemon.wait_words(&[&id, "sent to=<elvis@example.test>", "tls=-"]);
    daemon.wait_words(&[&id, "sent to=<teller@bank.test>", "tls=TLS1.3"]);
    for message in remote.messages(2) {
        assert_eq!(message.tls, message.recipients == ["<teller@bank.test>"]);
    }
}

#[test]
fn the_table_of_tls_policies_is_read_again_and_explained() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let remote = Remote::with(Sink { tls: Some(Offer::starttls(&stranger.leaf("127.0.0.1", 300))), ..Sink::default() });
    let mut site = site("smtp", &remote, "");
    authority.trusted_by(&mut site);
    site.write("tls_policies", "# partners\n127.0.0.1 required\n");
    let path = format!("{:?}", site.path("tls_policies"));
    site.set("remote", "tls_policies", &path);
    let daemon = site.start();
    let id = daemon.submit(&["elvis@example.test"]);
    let why = "TLS is required: the certificate is not from a trusted authority";
    daemon.wait_words(&[&id, " deferred ", "dsn=4.7.5", why]);
    let explained = site.penfoldctl(&["explain", "elvis@example.test"]);
    assert!(explained.contains("TLS by STARTTLS is required, with a valid certificate"), "{explained}");
    assert!(explained.contains("tls_policies line 2") || explained.contains("tls_policies:2"), "{explained}");
    let hosts = site.penfoldctl(&["hosts", "--json"]);
    assert!(hosts.contains("\"tls_policy\":[\"required\"]"), "{hosts}");
    // A wrong line keeps the old table.
    site.write("tls_policies", "127.0.0.1 requird\n");
    site.penfoldctl(&["flush"]);
    daemon.wait_words(&["tls_policies:1:11: expected none, opportunistic", "the old table stays in force"]);
    site.write("tls_policies", "127.0.0.1 opportunistic\n");
    assert!(daemon.flush_until(&site, || site.spooled().is_empty()), "{}", daemon.log());
    assert!(remote.messages(1)[0].tls);
}

#[test]
fn mail_waits_until_a_wrong_password_is_corrected() {
    let remote = Remote::with(login());
    let mut site = site("smtp", &remote, "");
    know(&mut site, "127.0.0.1:jon:bush\n");
    let daemon = Daemon::spawn(site.penfoldd(&["-d", "-v"]));
    let id = daemon.submit(&["elvis@example.test"]);
    daemon.wait_words(&[&id, " deferred ", "dsn=4.7.8", "said_to=AUTH", "535 5.7.8 who are you?"]);
    let host = format!("log in to [127.0.0.1]:{} as jon: the host said to AUTH: 535", remote.address.port());
    daemon.wait_words(&[&host]);
    // Others may read the new table, so the daemon keeps the old one.
    give(&site, "127.0.0.1:jon:hush\n", 0o644);
    site.penfoldctl(&["flush"]);
    daemon.wait_words(&["credentials: has mode 644; expected 600", "the old table stays in force"]);
    assert!(site.mail("jon").is_empty() && remote.look(|seen| seen.messages.is_empty()));
    chmod(&site.path("credentials"), 0o600);
    assert!(daemon.flush_until(&site, || site.spooled().is_empty()), "{}", daemon.log());
    assert_eq!(remote.messages(1).len(), 1);
    assert!(site.mail("jon").is_empty(), "a bounce for mail that only waited");
    no_secret(&daemon);
}

#[test]
fn malformed_files_are_errors_at_the_start() {
    let remote = Remote::sink();
    let checks = |site: &Site| {
        let output = site.penfoldd(&["-n"]).output().expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let mut site = site("smtp", &remote, "");
    for (mode, lines, words) in [
        (0o644, "127.0.0.1:jon:hush\n", "credentials: has mode 644; expected 600: group and others must not use it"),
        (0o620, "127.0.0.1:jon:hush\n", "credentials: has mode 620; "),
        (0o600, "127.0.0.1:hush\n", "credentials:1:1: expected host:user:secret"),
        (0o600, "127.0.0.1:jon:xoauth2:command:hush\n", "credentials:1:15: expected xoauth2:file: and"),
        (0o600, "127.0.0.1:jon:hush\n\n127.0.0.1:joe:hush\n", "credentials:3:1: this host is on another line"),
    ] {
        know(&mut site, lines);
        chmod(&site.path("credentials"), mode);
        let (code, failures) = checks(&site);
        assert_eq!(code, Some(78), "{failures}");
        assert!(failures.contains(words) && !failures.contains("hush"), "{words}: {failures}");
    }
    know(&mut site, "");
    for text in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        site.write("authorities.pem", text);
        let path = format!("{:?}", site.path("authorities.pem"));
        site.set("remote", "authorities", &path);
        let (code, failures) = checks(&site);
        assert_eq!(code, Some(78), "{failures}");
        assert!(failures.contains("authorities.pem: expected a certificate authority in PEM"), "{failures}");
    }
}

/// The rule of each host of a domain, with its source. Nothing is sent, so the hosts need not exist.
#[test]
fn the_tlsa_records_of_a_host_are_explained() {
    let digest = "00".repeat(32);
    let mut zone = String::new();
    for (name, record) in [
        ("usable", format!("TLSA 3 1 1 {digest}")),
        ("unusable", format!("TLSA 1 1 1 {digest}")),
        ("bogus", "SERVFAIL".to_owned()),
        ("without", "A 192.0.2.1".to_owned()),
    ] {
        zone += &format!(
            "{name}.test MX 10 mx.{name}.test\n{name}.test SECURE\nmx.{name}.test A 192.0.2.1\nmx.{name}.test SECURE\n\
             _25._tcp.mx.{name}.test {record}\n_25._tcp.mx.{name}.test SECURE\n"
        );
    }
    // Records that nobody has signed count for nothing.
    zone +=
        &format!("open.test MX 10 mx.open.test\nmx.open.test A 192.0.2.1\n_25._tcp.mx.open.test TLSA 3 1 1 {digest}\n");
    let dns = Dns::zone(&zone);
    let mut site = Site::with("");
    site.set("dns", "nameservers", &dns.nameservers());
    let daemon = site.start();
    let default = "TLS if the host offers STARTTLS, with any certificate\n";
    let texts = [
        (
            "usable",
            "TLS by STARTTLS is required, with a certificate that matches the TLSA records of the host  [RFC 7672]\n",
        ),
        ("unusable", "TLS by STARTTLS is required, with any certificate  [RFC 7672]\n"),
        (
            "bogus",
            "the look-up of the TLSA records of mx.bogus.test failed: the name server could not find out (SERVFAIL)",
        ),
        ("without", default),
        ("open", default),
    ];
    let check = |when: &str| {
        for (name, text) in texts {
            let explained = site.penfoldctl(&["explain", &format!("elvis@{name}.test")]);
            assert!(explained.contains(&format!("mx.{name}.test")) && explained.contains(text), "{when}: {explained}");
        }
    };
    check("with a daemon");
    daemon.terminate();
    check("without one");
}

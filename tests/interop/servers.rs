//! Mail exchanged with other mail servers: Postfix, Exim and OpenSMTPD in both directions, with
//! Postfix and Exim also under TLS with AUTH, where Postfix uses Dovecot. swaks and Python's smtplib are clients; haproxy and Postfix
//! are proxies.
//!
//! The servers run on loopback from packages that tests/setup has unpacked, by the scripts in
//! tests/interop/. A test without its program is reported as skipped. Messages must arrive
//! unchanged, and a rejection must reach the sender with the original reply.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use common::client::{Client, TEXT};
use common::tls::Authority;
use common::{Daemon, Site, free_port, unpacked};
use data_encoding::BASE64;
use nix::sys::signal::{Signal, kill};

const PEERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop");

/// A port without a listener, for a peer that sends no mail.
const NOWHERE: u16 = 9;

const POSTFIX: Software = Software { name: "postfix", ready: "daemon started" };
const EXIM: Software = Software { name: "exim", ready: "listening for SMTP" };
const OPENSMTPD: Software = Software { name: "opensmtpd", ready: "smtp: will accept " };

#[test]
fn mail_comes_from_postfix() {
    comes_from(&POSTFIX);
}

#[test]
fn mail_comes_from_exim() {
    comes_from(&EXIM);
}

#[test]
fn mail_goes_to_postfix() {
    goes_to(&POSTFIX);
}

#[test]
fn mail_goes_to_exim() {
    goes_to(&EXIM);
}

/// Addresses outside ASCII pass from smtplib through Postfix to a mailbox here, and from smtplib
/// through penfold to a mailbox of Postfix.
#[test]
fn addresses_outside_ascii_go_to_postfix_and_come_from_it() {
    let site = Site::new();
    site.write("aliases", "j\u{f6}rg: jon\n");
    let daemon = site.start();
    let ann = ["\u{e4}nn@razorback.test", "j\u{f6}rg@razorback.test"];
    assert_refused(&smtplib(daemon.port, "\u{7528}\u{6237}@x.test", &ann), ann[0]);
    let mail = daemon.wait_mail(&site, "jon", 1).remove(0);
    assert_intact(&mail);
    assert_from(&mail, "Return-Path: <\u{7528}\u{6237}@x.test>");
    assert_from(&mail, "by razorback.test (penfold) with UTF8SMTP id ");
    let Some(peer) = Peer::start(&site, &POSTFIX, daemon.port) else { return };
    site.add("routes", &format!("peer.test 127.0.0.1:{}", peer.port()));
    assert_sent(&smtplib(peer.port(), "d\u{f6}rte@peer.test", &["J\u{d6}RG@razorback.test"]));
    let mails = daemon.wait_mail(&site, "jon", 2);
    let mail = mails.iter().find(|mail| String::from_utf8_lossy(mail).contains("d\u{f6}rte")).expect("from Postfix");
    assert_intact(mail);
    assert_from(mail, "by razorback.test (penfold) with UTF8SMTP id ");
    assert_sent(&smtplib(daemon.port, "j\u{f6}rg@razorback.test", &["d\u{f6}rte@peer.test"]));
    let mail = peer.wait_mail();
    assert_intact(&mail);
    assert_from(&mail, "by postfix.test (Postfix) with UTF8SMTP id ");
}

/// The peers have every recipient but nobody, and say so when they are asked at RCPT.
#[test]
fn peers_are_asked_which_recipients_they_have() {
    for software in [&POSTFIX, &EXIM, &OPENSMTPD] {
        let site = Site::with("relay.domains = [\"peer.test\"]\nrelay.verify = true");
        let daemon = site.start();
        let Some(peer) = Peer::start(&site, software, daemon.port) else { continue };
        site.add("routes", &format!("peer.test 127.0.0.1:{}", peer.port()));
        let mut client = daemon.greeted();
        client.ask("MAIL FROM:<jon@razorback.test>", "250 ");
        client.ask("RCPT TO:<nobody@peer.test>", "550 5.1.1 <nobody@peer.test> User unknown");
        client.ask("RCPT TO:<you@peer.test>", "250 ");
        daemon.wait_words(&[" asked to=<no-such-user-", " random=yes ", " result=accepted "]);
        client.ask("DATA", "354 ");
        client.ask(&format!("{TEXT}."), "250 ");
        assert!(String::from_utf8_lossy(&peer.wait_mail()).contains("How are you?"));
    }
}

#[test]
fn postfix_and_penfold_report_deliveries_to_each_other() {
    report_deliveries_to_each_other(&POSTFIX);
}

#[test]
fn exim_and_penfold_report_deliveries_to_each_other() {
    report_deliveries_to_each_other(&EXIM);
}

/// The sender's options pass to the peer, which reports the delivery. Those of a sender at the peer
/// pass to penfold, which reports the delivery to that sender.
fn report_deliveries_to_each_other(software: &Software) {
    let site = Site::new();
    let daemon = site.start();
    let Some(peer) = Peer::start(&site, software, daemon.port) else { return };
    site.add("routes", &format!("peer.test 127.0.0.1:{}", peer.port()));
    let options = ("ENVID=QQ+2B1", "NOTIFY=SUCCESS ORCPT=rfc822;u+2Bo@peer.test");
    send_with(daemon.port, "jon@razorback.test", "you@peer.test", options);
    send_with(peer.port(), "you@peer.test", "root@razorback.test", ("ENVID=QQ+2B2", "NOTIFY=SUCCESS,DELAY"));
    let report = String::from_utf8(daemon.wait_mail(&site, "jon", 1).remove(0)).expect("ASCII").to_ascii_lowercase();
    let name = software.name;
    // Exim 4.96 does not decode xtext.
    let plus = if name == EXIM.name { "+2b" } else { "+" };
    for line in [
        &format!("reporting-mta: dns; {name}.test"),
        &format!("original-envelope-id: qq{plus}1"),
        &format!("original-recipient: rfc822;u{plus}o@peer.test"),
        "action: delivered",
    ] {
        assert!(report.contains(&format!("\n{line}\n")), "no {line} in {report}");
    }
    let report = peer.wait_report();
    for line in ["Original-Envelope-Id: QQ+2", "Final-Recipient: rfc822; root@razorback.test", "Action: delivered"] {
        assert!(report.contains(&format!("\n{line}\n")), "no {line} in {report}");
    }
}

/// The sender's options pass to OpenSMTPD, which reports the delivery. Its report leaves them out,
/// but its log shows the commands. Those of a sender at OpenSMTPD pass to penfold.
#[test]
fn opensmtpd_and_penfold_report_deliveries_to_each_other() {
    let site = Site::new();
    let daemon = site.start();
    let Some(peer) = Peer::start(&site, &OPENSMTPD, daemon.port) else { return };
    site.add("routes", &format!("peer.test 127.0.0.1:{}", peer.port()));
    let options = ("RET=HDRS ENVID=QQ+2B1", "NOTIFY=SUCCESS ORCPT=rfc822;u+2Bo@peer.test");
    send_with(daemon.port, "jon@razorback.test", "you@peer.test", options);
    let options = ("ENVID=QQ+2B2", "NOTIFY=SUCCESS,DELAY ORCPT=rfc822;r+2Bo@peer.test");
    send_with(peer.port(), "you@peer.test", "root@razorback.test", options);
    let report = String::from_utf8(daemon.wait_mail(&site, "jon", 1).remove(0)).expect("ASCII");
    for line in ["Reporting-MTA: dns; opensmtpd.test", "Final-Recipient: rfc822; you@peer.test", "Action: delivered"] {
        assert!(report.contains(&format!("\n{line}\n")), "no {line} in {report}");
    }
    peer.daemon.wait_words(&["<<< MAIL FROM:<jon@razorback.test> ", " RET=HDRS", " ENVID=QQ+2B1"]);
    peer.daemon.wait_words(&["<<< RCPT TO:<you@peer.test> NOTIFY=SUCCESS ORCPT=rfc822;u+2Bo@peer.test"]);
    let report = peer.wait_report();
    for line in [
        "Original-Envelope-Id: QQ+2",
        "Original-Recipient: rfc822; r+o@peer.test",
        "Final-Recipient: rfc822; root@razorback.test",
        "Action: delivered",
    ] {
        assert!(report.contains(&format!("\n{line}\n")), "no {line} in {report}");
    }
}

/// Sends a message with parameters of MAIL and RCPT.
fn send_with(port: u16, sender: &str, recipient: &str, (mail, rcpt): (&str, &str)) {
    let mut client = Client::before_banner(TcpStream::connect(("127.0.0.1", port)).expect("a server"));
    client.expect("220 ");
    assert!(client.ehlo().contains(&"DSN".to_owned()));
    client.ask(&format!("MAIL FROM:<{sender}> {mail}"), "250 ");
    client.ask(&format!("RCPT TO:<{recipient}> {rcpt}"), "250 ");
    client.ask("DATA", "354 ");
    client.ask(&format!("{TEXT}."), "250 ");
}

/// Postfix was down when its mail came, and gets it after ETRN. The message is binary, and Postfix does
/// not know BINARYMIME, so the message arrives as base64.
#[test]
fn a_postfix_that_was_down_gets_its_binary_mail_after_etrn() {
    let site = Site::with("relay.etrn = [\"peer.test\"]\nqueue.retry_min = \"1h\"");
    let (daemon, port) = (site.start(), free_port());
    site.add("routes", &format!("peer.test 127.0.0.1:{port}"));
    let header = "Subject: octets\r\nMIME-Version: 1.0\r\nContent-Type: application/octet-stream\r\n\
        Content-Transfer-Encoding: binary\r\n\r\n";
    let octets: Vec<u8> = (0..=255).chain(*b"\r\n.\r\n\n\r\0").collect();
    let mut client = daemon.greeted();
    client.ask("MAIL FROM:<jon@razorback.test> BODY=BINARYMIME", "250 ");
    client.ask("RCPT TO:<you@peer.test>", "250 ");
    client.send_bytes(format!("BDAT {} LAST\r\n", header.len() + octets.len()).as_bytes());
    client.send_bytes(&[header.as_bytes(), &octets].concat());
    client.expect("250 ");
    daemon.wait_words(&[" deferred to=<you@peer.test> ", "Connection refused"]);
    let peer = match Peer::start_at(&site, &POSTFIX, [port, daemon.port], &[]) {
        Ok(Some(peer)) => peer,
        Ok(None) => return,
        Err(log) => panic!("postfix does not start:\n{log}"),
    };
    client.ask("ETRN peer.test", "253 2.0.0 1 ");
    daemon.wait_words(&[" etrn node=peer.test jobs=1 "]);
    let mail = String::from_utf8(peer.wait_mail()).expect("ASCII");
    let (header, body) = mail.split_once("\n\n").expect("a header");
    assert!(header.contains("\nContent-Transfer-Encoding: base64\n"), "{mail}");
    let body: String = body.split_whitespace().collect();
    assert_eq!(BASE64.decode(body.as_bytes()).as_ref(), Ok(&octets), "{mail}");
    assert!(daemon.settles(&site) && site.mail("jon").is_empty(), "{}", daemon.log());
}

#[test]
fn mail_rejected_by_postfix_bounces() {
    bounces_off(&POSTFIX);
}

#[test]
fn mail_rejected_by_exim_bounces() {
    bounces_off(&EXIM);
}

#[test]
fn mail_goes_to_opensmtpd_and_a_rejected_recipient_bounces() {
    bounces_off(&OPENSMTPD);
}

#[test]
fn postfix_bounces_mail_rejected_by_penfold() {
    is_told_by(&POSTFIX);
}

#[test]
fn exim_bounces_mail_rejected_by_penfold() {
    is_told_by(&EXIM);
}

#[test]
fn mail_comes_from_opensmtpd_which_bounces_a_rejected_recipient() {
    is_told_by(&OPENSMTPD);
}

/// Postfix is the front end of a mail store: it delivers by LMTP, and reports the recipient that
/// does not exist.
#[test]
fn mail_comes_from_postfix_by_lmtp() {
    let site = Site::with("listen.kind = \"lmtp\"");
    let daemon = site.start();
    let by_lmtp = [("PEER_LMTP", PathBuf::from("yes"))];
    let Some(peer) = Peer::start_with(&site, &POSTFIX, daemon.port, &by_lmtp) else { return };
    let recipients = ["jon@razorback.test", "elvis@razorback.test", "root@razorback.test"];
    assert_sent(&smtplib(peer.port(), "you@peer.test", &recipients));
    for user in ["jon", "root"] {
        let mail = daemon.wait_mail(&site, user, 1).remove(0);
        assert_intact(&mail);
        assert_from(&mail, "by razorback.test (penfold) with LMTP id ");
    }
    // One line for each recipient, with a reply of its own.
    peer.daemon.wait_words(&["to=<root@razorback.test>", "status=sent (250 2.0.0 <root@razorback.test> "]);
    let bounce = String::from_utf8_lossy(&peer.wait_mail()).into_owned();
    assert!(bounce.contains("elvis@razorback.test") && bounce.contains("User unknown"), "{bounce}");
    assert!(!bounce.contains("<jon@razorback.test>"), "{bounce}");
}

fn comes_from(software: &Software) {
    let site = Site::new();
    let daemon = site.start();
    let Some(peer) = Peer::start(&site, software, daemon.port) else { return };
    assert_sent(&smtplib(peer.port(), "you@peer.test", &["jon@razorback.test"]));
    assert_intact(&daemon.wait_mail(&site, "jon", 1)[0]);
    if software.name == EXIM.name {
        // The letter K in a line of Exim's log stands for BDAT.
        peer.daemon.wait_words(&["=> jon@razorback.test", " K "]);
    }
}

#[test]
fn mail_comes_from_postfix_under_tls() {
    comes_securely_from(&POSTFIX);
}

#[test]
fn mail_comes_from_exim_under_tls() {
    comes_securely_from(&EXIM);
}

fn comes_securely_from(software: &Software) {
    let site = Authority::new().site("");
    let daemon = site.start();
    let Some(peer) = Peer::start(&site, software, daemon.port) else { return };
    assert_sent(&smtplib(peer.port(), "you@peer.test", &["jon@razorback.test"]));
    let mail = daemon.wait_mail(&site, "jon", 1).remove(0);
    assert_intact(&mail);
    assert!(String::from_utf8_lossy(&mail).contains(" with ESMTPS (TLS1.3) id "));
    daemon.wait_words(&[" accept ", "proto=ESMTPS tls=TLS1.3"]);
}

fn goes_to(software: &Software) {
    let site = Site::new();
    let Some(peer) = Peer::start(&site, software, NOWHERE) else { return };
    site.add("routes", &format!("peer.test 127.0.0.1:{}", peer.port()));
    let daemon = site.start();
    assert_sent(&smtplib(daemon.port, "jon@razorback.test", &["you@peer.test"]));
    assert_intact(&peer.wait_mail());
    assert!(daemon.settles(&site), "not finished:\n{}", daemon.log());
    assert!(site.mail("jon").is_empty(), "a bounce for mail that arrived");
}

#[test]
fn mail_goes_to_exim_under_tls_with_plain() {
    let authority = Authority::new();
    let site = secure_site(&authority, "127.0.0.1:jon:hush\n");
    let tls = [("PEER_TLS", site.path("peer"))];
    let Some(peer) = Peer::start_with(&site, &EXIM, NOWHERE, &tls) else { return };
    goes_securely(&site, &peer, &["with esmtpsa ", "(TLS1.3)"]);
}

#[test]
fn mail_goes_to_postfix_under_opportunistic_tls() {
    let mut site = secure_site(&Authority::new(), "");
    site.set("remote", "authorities", "\"system\"");
    let Some(peer) = Peer::start_with(&site, &POSTFIX, NOWHERE, &[("PEER_TLS", site.path("peer"))]) else { return };
    site.add("routes", &format!("peer.test 127.0.0.1:{}", peer.port()));
    goes_securely(&site, &peer, &["using TLSv1.3 with cipher", "with ESMTPS "]);
}

#[test]
fn mail_goes_to_postfix_under_tls_with_every_mechanism_of_dovecot() {
    for mechanism in ["SCRAM-SHA-256", "PLAIN", "LOGIN"] {
        let authority = Authority::new();
        let site = secure_site(&authority, "127.0.0.1:jon:hush\n");
        let Some(_dovecot) = dovecot(&site, mechanism) else { return };
        let settings = [("PEER_TLS", site.path("peer")), ("PEER_AUTH", site.path("dovecot/auth"))];
        let Some(peer) = Peer::start_with(&site, &POSTFIX, NOWHERE, &settings) else { return };
        goes_securely(&site, &peer, &["using TLSv1.3 with cipher", "(Authenticated sender: jon)", "with ESMTPSA "]);
    }
}

/// A site with credentials, and with a certificate for 127.0.0.1 in peer.pem and peer.key. The site
/// trusts the authority of that certificate.
fn secure_site(authority: &Authority, credentials: &str) -> Site {
    let mut site = Site::new();
    authority.give(&site, "peer", "127.0.0.1", 300);
    site.write("authorities.pem", &authority.root_pem());
    site.write("credentials", credentials);
    fs::set_permissions(site.path("credentials"), fs::Permissions::from_mode(0o600)).expect("a scratch file");
    for (key, file) in [("authorities", "authorities.pem"), ("credentials", "credentials")] {
        let path = format!("{:?}", site.path(file));
        site.set("remote", key, &path);
    }
    site
}

/// Sends a message to a peer, and asserts that its trace fields there have these words.
fn goes_securely(site: &Site, peer: &Peer, traces: &[&str]) {
    if !fs::read_to_string(site.path("routes")).is_ok_and(|routes| routes.contains("peer.test")) {
        site.add("routes", &format!("peer.test smtp+starttls://127.0.0.1:{}", peer.port()));
    }
    let daemon = site.start();
    assert_sent(&smtplib(daemon.port, "jon@razorback.test", &["you@peer.test"]));
    daemon.wait_words(&[" sent ", "tls=TLS1.3"]);
    let mail = peer.wait_mail();
    assert_intact(&mail);
    traces.iter().for_each(|trace| assert_from(&mail, trace));
}

/// Starts Dovecot's authentication service for jon with one mechanism. Its socket is `dovecot/auth`
/// in the site's directory.
fn dovecot(site: &Site, mechanism: &str) -> Option<Daemon> {
    let dir = site.path("dovecot");
    let mut command = unpacked::dovecot(&dir.join("dovecot.conf"))?;
    fs::create_dir(&dir).expect("a scratch directory");
    let at = dir.display();
    site.write("dovecot/users", "jon:{PLAIN}hush\n");
    site.write(
        "dovecot/dovecot.conf",
        &format!(
            "base_dir = {at}/run\nstate_dir = {at}/state\nlog_path = /dev/stderr\nprotocols =\nssl = no\n\
             default_internal_user = nobody\ndefault_internal_group = nogroup\ndefault_login_user = mail\n\
             auth_mechanisms = {}\nauth_debug = yes\npassdb {{\n  driver = passwd-file\n  args = {at}/users\n}}\n\
             userdb {{\n  driver = static\n  args = uid=nobody gid=nogroup home={at}\n}}\n\
             service auth {{\n  unix_listener {at}/auth {{\n    mode = 0666\n  }}\n}}\n",
            mechanism.to_ascii_lowercase()
        ),
    );
    command.stdin(Stdio::null());
    let started = Daemon::spawn_until(command, |line| line.contains("starting up").then_some(0));
    Some(started.unwrap_or_else(|log| panic!("dovecot does not start:\n{log}")))
}

fn bounces_off(software: &Software) {
    let site = Site::new();
    let Some(peer) = Peer::start(&site, software, NOWHERE) else { return };
    site.add("routes", &format!("peer.test 127.0.0.1:{}", peer.port()));
    let daemon = site.start();
    assert_sent(&smtplib(daemon.port, "jon@razorback.test", &["nobody@peer.test", "you@peer.test"]));
    assert_intact(&peer.wait_mail());
    let bounce = String::from_utf8_lossy(&daemon.wait_mail(&site, "jon", 1)[0]).into_owned();
    for wanted in ["multipart/report", "nobody@peer.test", "Nobody is not at home"] {
        assert!(bounce.contains(wanted), "no {wanted:?} in\n{bounce}");
    }
    assert!(!bounce.contains("<you@peer.test>"), "blames the recipient that was served:\n{bounce}");
}

fn is_told_by(software: &Software) {
    let site = Site::new();
    let daemon = site.start();
    let Some(peer) = Peer::start(&site, software, daemon.port) else { return };
    assert_sent(&smtplib(peer.port(), "you@peer.test", &["elvis@razorback.test", "jon@razorback.test"]));
    assert_intact(&daemon.wait_mail(&site, "jon", 1)[0]);
    let bounce = String::from_utf8_lossy(&peer.wait_mail()).into_owned();
    for wanted in ["elvis@razorback.test", "User unknown"] {
        assert!(bounce.contains(wanted), "no {wanted:?} in\n{bounce}");
    }
}

#[test]
fn smtplib_reports_rejected_recipients() {
    if !present("python3") {
        return;
    }
    let site = Site::new();
    let daemon = site.start();
    let some = smtplib(daemon.port, "jon@frogbog", &["elvis@razorback", "jon@razorback"]);
    assert!(some.status.success(), "{some:?}");
    assert_refused(&some, "elvis@razorback");
    assert_intact(&daemon.wait_mail(&site, "jon", 1)[0]);
    let none = smtplib(daemon.port, "jon@frogbog", &["elvis@razorback"]);
    assert_eq!(none.status.code(), Some(1), "{none:?}");
    assert_refused(&none, "elvis@razorback");
}

#[test]
fn swaks_sends_with_and_without_pipelining() {
    if !present("swaks") {
        return;
    }
    let site = Site::new();
    let daemon = site.start();
    for (number, how) in [(1, None), (2, Some("--pipeline"))] {
        let mut swaks = Command::new("swaks");
        swaks.args(["--server", "127.0.0.1", "--port", &daemon.port.to_string(), "--helo", "frogbog.test"]);
        swaks.args(["--from", "jon@frogbog.test", "--to", "jon@razorback.test,root@razorback.test"]);
        let output = swaks.args(how).output().expect("swaks runs");
        assert!(output.status.success(), "swaks {how:?}:\n{}", String::from_utf8_lossy(&output.stdout));
        daemon.wait_mail(&site, "jon", number);
        daemon.wait_mail(&site, "root", number);
    }
}

#[test]
fn swaks_uses_xclient() {
    if !present("swaks") {
        return;
    }
    let site = Site::with("listen.xclient = [\"127.0.0.1\"]");
    let daemon = site.start();
    let attributes = ["--xclient-addr", "192.0.2.7", "--xclient-name", "mx.frogbog.test", "--xclient-port", "4321"];
    let (output, printed) = swaks(daemon.port, &attributes);
    assert!(output.status.success(), "{printed}");
    assert!(printed.contains("NAME=mx.frogbog.test") && printed.matches("<-  220 ").count() == 2, "{printed}");
    assert_from(&daemon.wait_mail(&site, "jon", 1)[0], "(mx.frogbog.test [192.0.2.7])");
    daemon.wait_words(&[" accept ", " peer=mx.frogbog.test[192.0.2.7] via=[127.0.0.1] "]);
    // The attributes of another client have an IPv6 address, and no name that is known.
    let attributes = ["--xclient", "ADDR=IPV6:2001:db8::7 NAME=[UNAVAILABLE] HELO=frogbog.test PROTO=ESMTP"];
    let (output, printed) = swaks(daemon.port, &attributes);
    assert!(output.status.success(), "{printed}");
    daemon.wait_words(&[" accept ", " peer=unknown[2001:db8::7] via=[127.0.0.1] "]);
    // On a site that trusts no proxy, swaks does not find XCLIENT in the reply to EHLO.
    let site = Site::new();
    let daemon = site.start();
    let (output, printed) = swaks(daemon.port, &["--xclient-addr", "192.0.2.7"]);
    assert!(!output.status.success() && !printed.contains("-> XCLIENT"), "{printed}");
}

#[test]
fn postfix_uses_xforward() {
    let site = Site::with("listen.xclient = [\"127.0.0.1\"]");
    let daemon = site.start();
    let Some(peer) = Peer::start(&site, &POSTFIX, daemon.port) else { return };
    // Postfix believes the XCLIENT of swaks, and names that client to penfold with XFORWARD.
    if !present("swaks") {
        return;
    }
    let attributes = ["--xclient-addr", "127.0.0.9", "--xclient-name", "mx.frogbog.test"];
    let (output, printed) = swaks(peer.port(), &attributes);
    assert!(output.status.success(), "{printed}");
    let mail = daemon.wait_mail(&site, "jon", 1).remove(0);
    assert_from(&mail, "(forwarded for mx.frogbog.test [127.0.0.9] as frogbog.test with ESMTP)");
    assert_from(&mail, "Received: from postfix.test (");
    let line = daemon.wait_words(&[" accept ", " peer=mx.frogbog.test[127.0.0.9] via="]);
    let ident = line.split_once(" ident=").and_then(|(_, rest)| rest.split(' ').next()).expect("a queue id");
    assert_from(&mail, &format!("by postfix.test (Postfix) with ESMTP id {ident}"));
}

#[test]
fn haproxy_sends_proxy_headers() {
    let site = Site::with("listen.proxy = [\"127.0.0.1\"]\nrelay.networks = [\"127.0.0.9\"]");
    let daemon = site.start();
    for (number, version) in [(1, "send-proxy"), (2, "send-proxy-v2")] {
        let Some((haproxy, port)) = haproxy(&site, &daemon, version) else { return };
        // Only this client has the address 127.0.0.9, so a line with it shows that the address was
        // passed on.
        let (output, printed) = swaks(port, &["--local-interface", "127.0.0.9"]);
        assert!(output.status.success(), "{printed}");
        let mail = daemon.wait_mail(&site, "jon", number);
        mail.iter().for_each(|mail| assert_from(mail, "[127.0.0.9])\n\tby razorback.test"));
        daemon.wait_words(&[" accept ", "[127.0.0.9] via=[127.0.0.1] "]);
        // Only 127.0.0.9 may relay on this site, not the address of the proxy.
        let (output, printed) =
            swaks(port, &["--local-interface", "127.0.0.9", "--to", "you@elsewhere.test", "--quit-after", "RCPT"]);
        assert!(output.status.success(), "{printed}");
        let (output, printed) = swaks(port, &["--to", "you@elsewhere.test", "--quit-after", "RCPT"]);
        assert!(!output.status.success() && printed.contains("550 5.7.1"), "{printed}");
        drop(haproxy);
    }
}

/// Starts haproxy in front of a daemon, with the configuration of the manual page. `version` is the
/// option for the version of the PROXY header.
fn haproxy(site: &Site, daemon: &Daemon, version: &str) -> Option<(Daemon, u16)> {
    unpacked::haproxy()?;
    let command = |arguments: &[&str]| {
        let mut command = unpacked::haproxy().expect("it was there");
        command.args(arguments).stdin(Stdio::null());
        command
    };
    if !present("swaks") {
        return None;
    }
    let manual = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/man/penfold-smtp.7")).expect("a manual");
    let (_, example) = manual.split_once("listen smtp\n").expect("the example");
    let (example, _) = example.split_once(".Ed\n").expect("its end");
    for wanted in ["bind :25\n", "192.0.2.1:25 ", "send-proxy-v2\n"] {
        assert!(example.contains(wanted), "no {wanted:?} in the example of the manual:\n{example}");
    }
    let mut logs = String::new();
    for _ in 0..3 {
        let port = free_port();
        let example = example.replace("bind :25", &format!("bind 127.0.0.1:{port}"));
        let example = example.replace("192.0.2.1:25", &daemon.address().to_string()).replace("send-proxy-v2", version);
        site.write("haproxy.cfg", &format!("listen smtp\n{example}"));
        let file = site.path("haproxy.cfg");
        let started = command(&["-W", "-db", "-f", &file.display().to_string()]);
        match Daemon::spawn_until(started, |line| line.contains("Loading success").then_some(port)) {
            Ok(haproxy) => return Some((haproxy, port)),
            Err(log) => logs += &log,
        }
    }
    panic!("haproxy does not start:\n{logs}");
}

/// Runs swaks, which sends a message to jon unless the arguments say otherwise. Returns its output.
fn swaks(port: u16, arguments: &[&str]) -> (Output, String) {
    let mut swaks = Command::new("swaks");
    swaks.args(["--server", "127.0.0.1", "--port", &port.to_string(), "--helo", "frogbog.test"]);
    swaks.args(["--from", "jon@frogbog.test", "--to", "jon@razorback.test"]).args(arguments);
    let output = swaks.output().expect("swaks runs");
    let printed = [&output.stdout[..], &output.stderr].concat();
    (output, String::from_utf8_lossy(&printed).into_owned())
}

fn assert_from(mail: &[u8], trace: &str) {
    let text = String::from_utf8_lossy(mail);
    assert!(text.contains(trace), "no {trace:?} in\n{text}");
}

/// A mail server of another project.
struct Software {
    /// The name of the script that starts the server, and of the directory in which the server is
    /// unpacked.
    name: &'static str,
    /// The text in its log that shows that the server listens.
    ready: &'static str,
}

/// A running server, which ends when this is dropped. Declare it after its site.
struct Peer {
    daemon: Daemon,
    dir: PathBuf,
}

impl Peer {
    /// Starts a server that sends all mail but that for peer.test to the port `back` of this host.
    /// Where that is not possible, reports the test as skipped and returns `None`.
    fn start(site: &Site, software: &Software, back: u16) -> Option<Self> {
        Self::start_with(site, software, back, &[])
    }

    /// Starts a server with settings, which the script of the server describes.
    fn start_with(site: &Site, software: &Software, back: u16, settings: &[(&str, PathBuf)]) -> Option<Self> {
        // The port was free when it was chosen. If another process takes it meanwhile, another port
        // is tried.
        let mut logs = String::new();
        for _ in 0..3 {
            match Self::start_at(site, software, [free_port(), back], settings) {
                Ok(peer) => return peer,
                Err(log) => logs += &log,
            }
        }
        panic!("{} does not start:\n{logs}", software.name);
    }

    /// Starts a server at the first of two ports, which sends its mail to the other. Fails with its log
    /// if it does not start.
    fn start_at(
        site: &Site,
        software: &Software,
        [port, back]: [u16; 2],
        settings: &[(&str, PathBuf)],
    ) -> Result<Option<Self>, String> {
        let name = software.name;
        let Some(tree) = unpacked::peer(name) else { return Ok(None) };
        if !present("python3") {
            return Ok(None);
        }
        let dir = site.path(&format!("{name}{port}"));
        let mut script = Command::new(format!("{PEERS}/{name}.sh"));
        script.args([&tree, &dir]).args([port.to_string(), back.to_string()]).stdin(Stdio::null());
        script.envs(settings.iter().map(|(name, path)| (*name, path)));
        let daemon = Daemon::spawn_until(script, |line| line.contains(software.ready).then_some(port))?;
        Ok(Some(Self { daemon, dir }))
    }

    fn port(&self) -> u16 {
        self.daemon.port
    }

    /// Waits for the first message in the server's Maildir, and returns it.
    fn wait_mail(&self) -> Vec<u8> {
        let first = || fs::read_dir(self.dir.join("mail/new")).ok()?.next()?.ok();
        self.daemon.wait_until("a message at the peer", || first().is_some());
        fs::read(first().expect("just seen").path()).expect("a message")
    }

    /// Waits for penfold's report in the server's Maildir, and returns it.
    fn wait_report(&self) -> String {
        let mails = || fs::read_dir(self.dir.join("mail/new")).into_iter().flatten().flatten();
        let text = |file: fs::DirEntry| fs::read_to_string(file.path()).unwrap_or_default();
        let is_report = |text: &String| text.contains("Reporting-MTA: dns; razorback.test");
        self.daemon.wait_until("a report at the peer", || mails().map(text).any(|text| is_report(&text)));
        mails().map(text).find(is_report).expect("just seen")
    }
}

impl Drop for Peer {
    // The log ends when the last process of the server has ended. Only then can the site be
    // removed.
    fn drop(&mut self) {
        let _ = kill(self.daemon.pid(), Signal::SIGKILL);
        self.daemon.becomes_true(|| false);
    }
}

/// Whether a program is installed. If it is not, reports the test as skipped.
fn present(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        skipped::<()>(&format!("{program} is not installed"));
    }
    found
}

/// Reports the test as skipped.
fn skipped<T>(why: &str) -> Option<T> {
    common::skipped(why);
    None
}

/// Sends [`message`] with Python's smtplib to a port of this host.
fn smtplib(port: u16, sender: &str, recipients: &[&str]) -> Output {
    let mut python = Command::new("python3");
    python.arg(format!("{PEERS}/smtplib_send.py")).args([&port.to_string(), sender]).args(recipients);
    python.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = python.spawn().expect("python3 runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(&message()).expect("it reads");
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

/// Text that mail servers often damage: dots at the beginning of a line, octets above 127, the
/// longest line of RFC 5321 4.5.3.1.6, blanks and empty lines at the end, and lines that an mbox
/// would change.
fn body() -> Vec<u8> {
    let longest = "x".repeat(998);
    let lines = [".", "..", ".dot", "From here", "gr\u{fc}n \u{20ac}", "blanks \t ", &longest, "", "."];
    let mut body: Vec<u8> = lines.iter().flat_map(|line| [line.as_bytes(), b"\r\n"].concat()).collect();
    body.extend(b"\xff\xfe not UTF-8\r\n\r\n");
    body
}

fn message() -> Vec<u8> {
    let header = "From: jon@frogbog.test\r\nTo: undisclosed-recipients:;\r\nSubject: as it went in\r\n\
        Date: Sun, 22 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@frogbog.test>\r\nMIME-Version: 1.0\r\n\
        Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n";
    [header.as_bytes(), &body()].concat()
}

/// Asserts that a file in a Maildir is [`message`], after the trace fields that servers have added.
fn assert_intact(file: &[u8]) {
    let wanted: Vec<u8> = message().into_iter().filter(|&octet| octet != b'\r').collect();
    let text = String::from_utf8_lossy(file);
    assert!(file.ends_with(&wanted), "not as it went in:\n{text}");
    assert!(text.contains("Received: "), "no trace in\n{text}");
}

fn assert_sent(output: &Output) {
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
}

fn assert_refused(output: &Output, address: &str) {
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(printed.starts_with(&format!("refused {address} 550 5.1.1 ")), "{printed}");
    assert!(printed.contains("User unknown"), "{printed}");
}

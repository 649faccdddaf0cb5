//! Attacks on a domain with an MTA-STS policy. The name server is the attacker's.

use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};

use common::Site;
use common::dns::{Dns, answer};
use common::https::{self, Server};
use common::network::Network;
use common::programs::sendmail;
use common::remote::{Conduct, Offer, Remote, Sink};
use common::tls::{Authority, Leaf};

const POLICY: &str = "version: STSv1\r\nmode: enforce\r\nmx: mx.example.org\r\nmax_age: 604800\r\n";
const NONE: &str = "version: STSv1\r\nmode: none\r\nmax_age: 604800\r\n";

/// The records of the domain before the attack.
const ZONE: &str = "example.org MX 10 mx.example.org\nmx.example.org A 192.0.2.60\n\
    _mta-sts.example.org TXT v=STSv1; id=1;\nmta-sts.example.org A 192.0.2.80\n";

/// A domain with a policy, its host and that of an attacker.
struct Scene {
    site: Site,
    network: Network,
    zone: Arc<Mutex<String>>,
    host: Remote,
    evil: Remote,
    authority: Authority,
}

impl Scene {
    fn start() -> Option<Self> {
        let network = Network::start(Vec::new())?;
        let authority = Authority::new();
        let zone = Arc::new(Mutex::new(ZONE.to_owned()));
        let read = Arc::clone(&zone);
        let answer = move |asking: &common::dns::Asking<'_>| {
            answer(&read.lock().unwrap_or_else(PoisonError::into_inner), asking.name, asking.kind)
        };
        network.world(|| Dns::listening(([192, 0, 2, 99], 53).into(), answer));
        let sink = |leaf: Leaf| Sink { tls: Some(Offer::starttls(&leaf)), ..Sink::default() };
        let start = |address: &str, leaf: Leaf| Remote::start(network.listener(address, 25), Conduct::Sink(sink(leaf)));
        let host = start("192.0.2.60", authority.leaf("mx.example.org", 90));
        // The attacker has a valid certificate, for a name of his own.
        let evil = start("192.0.2.66", authority.leaf("mx.evil.example", 90));
        let policy = |address: &str, name: &str, status: &str, policy: &str| {
            let conduct = https::Conduct::Answer(https::answer(status, "text/plain", policy));
            network.world(|| Server::start(address, &authority.leaf(name, 90).config, conduct));
        };
        policy("192.0.2.80", "mta-sts.example.org", "200 OK", POLICY);
        policy("192.0.2.82", "mx.evil.example", "200 OK", NONE);
        policy("192.0.2.83", "mta-sts.example.org", "301 Moved\r\nLocation: https://192.0.2.82/", NONE);
        policy("192.0.2.84", "mta-sts.thief.example", "200 OK", &POLICY.replace("mx.example.org", "mx.thief.example"));
        policy("192.0.2.85", "mta-sts.example.org", "503 Not now", NONE);
        let mut site = Network::site("dns.nameservers = [\"192.0.2.99\"]\nremote.timeout = \"5s\"");
        authority.trusted_by(&mut site);
        Some(Self { site, network, zone, host, evil, authority })
    }

    /// Starts penfoldd, which knows only what it has kept on disk, sends a message to each recipient, one
    /// after the other, and returns what became of them, as lines of the log.
    fn send_all(&self, zone: &str, recipients: &[&str]) -> Vec<String> {
        *self.zone.lock().unwrap_or_else(PoisonError::into_inner) = zone.to_owned();
        let daemon = self.network.start_site(&self.site);
        let send = |recipient: &&str| {
            let output = sendmail(&self.site, &["-f", "jon@razorback.test", recipient], b"Subject: x\n\nx\n");
            assert!(output.status.success(), "{output:?}");
            let to = format!(" to=<{recipient}>");
            daemon.wait_log(|line| line.contains(&to) && !line.contains(" accept "))
        };
        let lines = recipients.iter().map(send).collect();
        daemon.terminate();
        lines
    }

    /// The same for one recipient.
    fn send(&self, zone: &str, recipient: &str) -> String {
        self.send_all(zone, &[recipient]).remove(0)
    }

    fn assert_refused(&self, zone: &str, name: &str) {
        let line = self.send(zone, &format!("{name}@example.org"));
        assert!(line.contains(" deferred "), "{name}: {line}");
        for host in [&self.host, &self.evil] {
            host.look(|seen| {
                let told = seen.commands.iter().find(|command| command.line.contains(&format!("<{name}@")));
                assert!(told.is_none(), "{name}: {told:?}");
            });
        }
    }
}

#[test]
fn a_policy_that_is_known_stands_against_a_forged_zone() {
    let Some(scene) = Scene::start() else { return };
    let line = scene.send(ZONE, "first@example.org");
    assert!(line.contains(" sent ") && line.contains(" verified=mta-sts "), "{line}");

    let no_record = ZONE.replace("_mta-sts.", "_mta-sts-no-more.");
    let evil = "evil.example MX 10 mx.evil.example\nmx.evil.example A 192.0.2.66\n";
    let spoofed = no_record.replace("MX 10 mx.example.org", "MX 10 mx.evil.example") + evil;
    scene.assert_refused(&spoofed, "other-mx");
    scene.assert_refused(&no_record.replace("192.0.2.60", "192.0.2.66"), "other-address");
    let alias = no_record.replace("mx.example.org A 192.0.2.60", "mx.example.org CNAME mx.evil.example") + evil;
    scene.assert_refused(&alias, "other-name");

    // A new record, and a policy host that is down or elsewhere.
    let at_home = scene.network.machine(|| TcpListener::bind("127.0.0.1:443")).expect("a listener");
    at_home.set_nonblocking(true).expect("a socket");
    for (address, name) in [
        ("192.0.2.81", "host-down"),
        ("192.0.2.82", "host-elsewhere"),
        ("192.0.2.83", "host-redirects"),
        ("192.0.2.85", "host-ill"),
        ("127.0.0.1", "host-at-home"),
    ] {
        scene.assert_refused(
            &spoofed.replace("_mta-sts-no-more", "_mta-sts").replace("id=1", "id=2").replace("192.0.2.80", address),
            name,
        );
    }
    assert!(at_home.accept().is_err(), "a policy was fetched from this host");
    // What the domain has published is still used.
    let line = scene.send(&no_record, "last@example.org");
    assert!(line.contains(" sent ") && line.contains(" verified=mta-sts "), "{line}");

    // Somebody is on the way to the right host.
    let with = |leaf: Leaf| Sink { tls: Some(Offer::starttls(&leaf)), ..Sink::default() };
    let good = || with(scene.authority.leaf("mx.example.org", 90));
    for (name, sink) in [
        ("stripped", Sink::default()),
        ("later", good().reply("STARTTLS", "454 4.7.0 not now")),
        ("helo", good().reply("EHLO", "502 5.5.1 what")),
        ("self-signed", with(Leaf::selfmade("mx.example.org"))),
        ("expired", with(scene.authority.leaf("mx.example.org", -10))),
        ("another", with(scene.authority.leaf("mx.evil.example", 90))),
        ("of-the-domain", with(scene.authority.leaf("example.org", 90))),
    ] {
        scene.host.behave(Conduct::Sink(sink));
        scene.assert_refused(ZONE, name);
    }
}

#[test]
fn a_domain_without_a_known_policy_is_served_as_before() {
    let Some(scene) = Scene::start() else { return };
    let spoofed = ZONE.replace("192.0.2.80", "192.0.2.81");
    let line = scene.send(&spoofed, "first@example.org");
    assert!(line.contains(" sent ") && line.contains(" tls=TLS1.3 ") && !line.contains(" verified="), "{line}");
}

#[test]
fn a_policy_that_excludes_a_host_of_others_does_not_hold_up_their_mail() {
    let Some(scene) = Scene::start() else { return };
    let thief = "thief.example MX 10 mx.example.org\n_mta-sts.thief.example TXT v=STSv1; id=7;\n\
        mta-sts.thief.example A 192.0.2.84\n";
    let recipients = ["one@thief.example", "one@example.org", "two@thief.example", "two@example.org"];
    let lines = scene.send_all(&format!("{ZONE}{thief}"), &recipients);
    for (line, recipient) in lines.iter().zip(recipients) {
        match recipient.ends_with("thief.example") {
            true => assert!(line.contains(" deferred "), "{line}"),
            false => assert!(line.contains(" sent ") && line.contains(" verified=mta-sts "), "{line}"),
        }
    }
    scene.host.look(|seen| assert!(!seen.commands.iter().any(|command| command.line.contains("@thief."))));
}

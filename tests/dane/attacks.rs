//! Attacks by somebody on the way, or by a name server.

use common::dns::{Answer, Dns};
use common::network::Network;
use common::remote::{Sink, Then};
use common::zones::Zone;

use super::hosts::{self, Case, Change, Hosts, Pki, Shows};
use super::scene::Scene;

fn zones() -> Vec<(&'static str, Zone)> {
    vec![
        ("secure.test", Zone::signed("secure.test", "")),
        ("insecure.test", Zone::insecure("insecure.test", "")),
        ("test", Zone::signed("test", "")),
    ]
}

/// Asserts that a host has got no message, and no sender or recipient, at least not in plaintext.
fn assert_secret(hosts: &Hosts, name: &str) {
    hosts.first.look(|seen| {
        let is_secret = |line: &str| ["MAIL", "RCPT", "DATA", "BDAT"].iter().any(|word| line.starts_with(word));
        let told: Vec<_> = seen.commands.iter().filter(|command| !command.tls && is_secret(&command.line)).collect();
        assert!(told.is_empty() && seen.messages.is_empty(), "{name}: {told:?}");
        assert!(seen.connections > 0, "{name}: nobody came");
    });
}

const NEVER: usize = usize::MAX;
/// A fatal alert of TLS: the handshake has failed.
const ALERT: &[u8] = b"\x15\x03\x01\x00\x02\x02\x28";

/// What somebody on the way, or a host in trouble, does against STARTTLS.
const STRIPPED: &[(&str, Change)] = &[
    ("gone", |sink| Sink { tls: None, ..sink }),
    ("later", |sink| sink.reply("STARTTLS", "454 4.7.0 not now")),
    ("unknown", |sink| sink.reply("STARTTLS", "502 5.5.1 what is that")),
    ("refused", |sink| sink.reply("STARTTLS", "554 5.7.0 no")),
    ("bye", |sink| sink.reply("STARTTLS", "421 4.3.2 bye")),
    ("closed", |sink| sink.when("STARTTLS", Then::Close, NEVER)),
    ("reset", |sink| sink.when("STARTTLS", Then::Reset, NEVER)),
    ("silent", |sink| sink.when("STARTTLS", Then::ReplyAndHang("220 go".to_owned()), NEVER)),
    ("no-handshake", |sink| sink.when("STARTTLS", Then::ReplyAndClose("220 go".to_owned()), NEVER)),
    ("alert", |sink| sink.when("STARTTLS", Then::OctetsAndClose([b"220 go\r\n", ALERT].concat()), NEVER)),
    ("injected", |sink| sink.when("STARTTLS", Then::Octets(b"220 go\r\n250 2.0.0 go on\r\n".to_vec()), NEVER)),
    ("old", |sink| sink.reply("EHLO", "500 5.5.1 what is that")),
    ("older", |sink| sink.reply("EHLO", "502 5.5.1 not here")),
    ("helo-closed", |sink| sink.when("EHLO", Then::Close, NEVER)),
];

#[test]
fn starttls_cannot_be_taken_away_from_a_host_with_tlsa_records() {
    let names: Vec<[&str; 2]> = STRIPPED
        .iter()
        .map(|(name, _)| [&*format!("{name}.secure").leak(), &*format!("{name}.insecure").leak()])
        .collect();
    let mut cases = Vec::new();
    for ([secure, insecure], (_, conduct)) in names.iter().zip(STRIPPED) {
        cases.push(Case::new(secure, Shows::Good, &["3 1 1"], "", *conduct));
        cases.push(Case::new(insecure, Shows::Good, &[], "", *conduct));
    }
    let Some((network, hosts)) = hosts::start(&cases, zones()) else { return };
    let scene = Scene::start(network, Network::site("remote.timeout = \"2s\""));
    let recipients: Vec<String> = cases.iter().map(|case| format!("you@{}", case.domain())).collect();
    scene.send(&recipients.iter().map(String::as_str).collect::<Vec<_>>());
    for ((case, recipient), hosts) in cases.iter().zip(&recipients).zip(&hosts) {
        match case.name.strip_suffix(".insecure") {
            // Without the records, the attacks succeed.
            Some("closed" | "reset" | "silent" | "bye" | "helo-closed" | "injected") => drop(scene.line(recipient)),
            Some(_) => assert_eq!(scene.fate(recipient), "clear", "{}", case.name),
            None => {
                assert_eq!(scene.fate(recipient), "deferred", "{}", case.name);
                assert_secret(hosts, case.name);
            }
        }
    }
}

#[test]
fn the_ad_bit_of_a_resolver_that_is_not_trusted_means_nothing() {
    let cases = [
        Case::new("right.secure", Shows::Good, &["3 1 1"], "", |sink| sink),
        Case::new("wrong.secure", Shows::Good, &["wrong 3 1 1"], "", |sink| sink),
    ];
    let Some((network, _hosts)) = hosts::start(&cases, zones()) else { return };
    for (settings, fate) in [
        ("", ["verified", "deferred"]),
        ("dns.trust_ad = false", ["encrypted"; 2]),
        ("dns.nameservers = [\"198.51.100.25\"]", ["encrypted"; 2]),
        ("dns.nameservers = [\"127.0.0.1\", \"198.51.100.25\"]", ["encrypted"; 2]),
        ("dns.nameservers = [\"198.51.100.25\"]\ndns.trust_ad = true", ["verified", "deferred"]),
        ("remote.dane = false", ["encrypted"; 2]),
    ] {
        let before = network.questions().len();
        let site = Network::site(settings);
        let daemon = network.start_site(&site);
        for (name, wanted) in ["right", "wrong"].into_iter().zip(fate) {
            let recipient = format!("you@{name}.secure.test");
            let output =
                common::programs::sendmail(&site, &["-f", "jon@razorback.test", &recipient], b"Subject: x\n\nx\n");
            assert!(output.status.success(), "{output:?}");
            let line =
                daemon.wait_log(|line| line.contains(&format!(" to=<{recipient}>")) && !line.contains(" accept "));
            let is = |word: &str| match word {
                "verified" => line.contains(" sent ") && line.contains(" verified=dane "),
                "encrypted" => line.contains(" sent ") && line.contains(" tls=TLS1.3 ") && !line.contains(" verified="),
                word => line.contains(&format!(" {word} ")),
            };
            assert!(is(wanted), "{settings}: not {wanted}: {line}");
        }
        let asked = network.questions().split_off(before);
        let has_asked = asked.iter().any(|question| question.ends_with(" TLSA"));
        assert_eq!(has_asked, fate[0] == "verified", "{settings}: {asked:?}");
    }
}

#[test]
fn a_kept_connection_does_not_serve_a_domain_with_a_stricter_policy() {
    let cases = [
        // The host of all: what it shows does not match its record.
        Case::new("strict.secure", Shows::Good, &["wrong 3 1 1"], "", |sink| sink),
        // By the table, its record does not matter here.
        Case::new("easy.insecure", Shows::Good, &[], "{d} MX 10 mx.strict.secure.test.", |sink| sink),
        // The same address by another name.
        Case::new("other.insecure", Shows::Good, &[], "{d} MX 10 mx.{d}\nmx.{d} A 192.0.2.100", |sink| sink),
    ];
    let Some((network, hosts)) = hosts::start(&cases, zones()) else { return };
    let mut site = Network::site("");
    site.write("tls-policies", "easy.insecure.test opportunistic\n");
    site.set("remote", "tls_policies", &format!("{:?}", site.path("tls-policies")));
    let scene = Scene::start(network, site);
    for easy in ["easy", "other"] {
        let to = |number: usize| format!("you{number}@{easy}.insecure.test");
        for number in 1..=2 {
            scene.send(&[&to(number)]);
            assert_eq!(scene.fate(&to(number)), "encrypted");
        }
        let strict = format!("{easy}@strict.secure.test");
        scene.send(&[&strict]);
        assert_eq!(scene.fate(&strict), "deferred");
        // In one message for both: what the strict domain waits for holds up nobody else.
        let both = format!("{easy}-too@strict.secure.test");
        scene.send(&[&to(3), &both]);
        assert_eq!([scene.fate(&to(3)), scene.fate(&both)], ["encrypted", "deferred"]);
    }
    let to_strict = |line: &str| line.starts_with("RCPT") && line.contains("@strict.");
    hosts[0].first.look(|seen| assert!(!seen.commands.iter().any(|command| to_strict(&command.line))));
}

#[test]
fn a_host_whose_tlsa_records_cannot_be_asked_for_waits() {
    let zone = "{d} MX 10 mx.{d}\nmx.{d} A {a}\n_25._tcp.mx.{d} NS ns.{d}\nns.{d} A 192.0.2.55";
    let cases = [Case::new("mute.secure", Shows::Good, &[], zone, |sink| sink)];
    let Some((network, hosts)) = hosts::start(&cases, zones()) else { return };
    let _mute = network.world(|| Dns::listening(([192, 0, 2, 55], 53).into(), |_| Answer::silence()));
    let scene = Scene::start(network, Network::site(""));
    scene.send(&["you@mute.secure.test"]);
    assert_eq!(scene.fate("you@mute.secure.test"), "deferred");
    hosts[0].first.look(|seen| assert!(seen.messages.is_empty()));
}

/// Domains that all have the same host, and what the table of TLS policies says about them.
const TABLE: &[(&str, &str, &str)] = &[
    ("plain", "none", "clear"),
    ("usual", "opportunistic", "encrypted"),
    ("proved", "required", "verified"),
    ("elsewhere", "required names=mx.elsewhere.example", "deferred"),
    ("known", "required fingerprints=5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a", "deferred"),
];

#[test]
fn domains_with_the_same_host_do_not_share_connections_unless_their_policies_are_the_same() {
    let pki = Pki::new();
    let domains: Vec<String> = TABLE.iter().map(|(name, ..)| format!("{name}.insecure")).collect();
    let mut cases = vec![Case::new("host.insecure", Shows::Good, &[], "", |sink| sink)];
    let zone = "{d} MX 10 mx.host.insecure.test.";
    cases.extend(domains.iter().map(|name| Case::new(name.clone().leak(), Shows::Good, &[], zone, |sink| sink)));
    let Some((network, hosts)) = hosts::start_with(&pki, &cases, zones()) else { return };
    let mut site = Network::site("");
    pki.root.trusted_by(&mut site);
    let table: String = TABLE.iter().map(|(name, level, _)| format!("{name}.insecure.test {level}\n")).collect();
    site.write("tls-policies", &table);
    site.set("remote", "tls_policies", &format!("{:?}", site.path("tls-policies")));
    let scene = Scene::start(network, site);
    let check = |round: &str, order: &[&(&str, &str, &str)]| {
        for (name, _, wanted) in order {
            let recipient = format!("{round}@{name}.insecure.test");
            assert_eq!(scene.fate(&recipient), *wanted, "{recipient}");
        }
    };
    // One after the other, in both directions, and all at once.
    let mut order: Vec<_> = TABLE.iter().collect();
    for round in ["up", "down"] {
        for row in &order {
            scene.send(&[&format!("{round}@{}.insecure.test", row.0)]);
            check(round, &[row]);
        }
        order.reverse();
    }
    let all: Vec<String> = TABLE.iter().map(|(name, ..)| format!("all@{name}.insecure.test")).collect();
    scene.send(&all.iter().map(String::as_str).collect::<Vec<_>>());
    check("all", &order);
    hosts[0].first.look(|seen| {
        for command in seen.commands.iter().filter(|command| command.line.starts_with("RCPT")) {
            let may_be_clear = command.line.contains("@plain.");
            assert!(command.tls || may_be_clear, "{command:?}");
            assert!(!command.line.contains("@elsewhere.") && !command.line.contains("@known."), "{command:?}");
        }
    });
}

#[test]
fn a_message_that_waives_tls_does_not_open_the_way_for_others() {
    let cases = [Case::new("strict.secure", Shows::Good, &["wrong 3 1 1"], "", |sink| sink)];
    let Some((network, hosts)) = hosts::start(&cases, zones()) else { return };
    let scene = Scene::start(network, Network::site(""));
    for number in 1..=2 {
        let [waives, usual] = ["waives", "usual"].map(|name| format!("{name}{number}@strict.secure.test"));
        scene.send_text(&[&waives], "TLS-Required: No\nSubject: x\n\nx\n");
        assert_eq!(scene.fate(&waives), "encrypted");
        scene.send(&[&usual]);
        assert_eq!(scene.fate(&usual), "deferred");
    }
    hosts[0].first.look(|seen| assert!(!seen.commands.iter().any(|command| command.line.contains("<usual"))));
}

//! Hosts and records of all kinds.

use common::dns::{Answer, Dns};
use common::network::Network;
use common::zones::Zone;

use super::hosts::{self, Case, Hosts, Shows};
use super::peers::{self, Postfix};
use super::scene::Scene;

/// A case, and what becomes of mail to it.
struct Row {
    case: Case,
    /// What posttls-finger says.
    finger: &'static str,
    /// What Postfix does with mail, at the level `dane`.
    postfix: &'static str,
    /// What penfold does with mail.
    penfold: &'static str,
}

const fn row(
    name: &'static str,
    shows: Shows,
    records: &'static [&'static str],
    zone: &'static str,
    [finger, postfix, penfold]: [&'static str; 3],
) -> Row {
    Row { case: Case::new(name, shows, records, zone, std::convert::identity), finger, postfix, penfold }
}

const VERIFIED: [&str; 3] = ["Verified", "Verified", "verified"];
const FAILED: [&str; 3] = ["Untrusted", "deferred", "deferred"];
const ENCRYPTED: [&str; 3] = ["Untrusted", "Untrusted", "encrypted"];
const CLEAR: [&str; 3] = ["failed", "clear", "clear"];
const UNUSABLE: [&str; 3] = ["Untrusted", "Untrusted", "encrypted"];
/// The MX records are insecure, those of the host are not (RFC 7672 2.2.1). Both use the records of the
/// host. Postfix calls it `Trusted`, because whoever can forge the MX records can name another host.
const INSECURE_MX: [&str; 3] = ["Trusted", "Trusted", "verified"];
const NOT_NOW: [&str; 3] = ["failed", "deferred", "deferred"];

use Shows::{Chain, DomainChain, Expired, ExpiredChain, Good, Middle, Nothing, Old, Other, OtherChain, Selfmade};

#[rustfmt::skip]
const ROWS: &[Row] = &[
    // Usage 3: the certificate or its key is in the record. Name and expiry do not matter.
    row("ee-key.secure", Good, &["3 1 1"], "", VERIFIED),
    row("ee-key-512.secure", Good, &["3 1 2"], "", VERIFIED),
    row("ee-key-full.secure", Good, &["3 1 0"], "", VERIFIED),
    row("ee-cert.secure", Good, &["3 0 1"], "", VERIFIED),
    row("ee-cert-512.secure", Good, &["3 0 2"], "", VERIFIED),
    row("ee-cert-full.secure", Good, &["3 0 0"], "", VERIFIED),
    row("ee-expired.secure", Expired, &["3 1 1"], "", VERIFIED),
    row("ee-other-name.secure", Other, &["3 1 1"], "", VERIFIED),
    row("ee-self-signed.secure", Selfmade, &["3 1 1"], "", VERIFIED),
    row("ee-tls12.secure", Old, &["3 1 1"], "", VERIFIED),
    row("ee-mismatch.secure", Good, &["wrong 3 1 1"], "", FAILED),
    row("ee-mismatch-full.secure", Good, &["wrong 3 1 0"], "", FAILED),
    // Usage 2: an authority is in the record.
    row("ta-cert.secure", Chain, &["2 0 1"], "", VERIFIED),
    row("ta-key.secure", Chain, &["2 1 1"], "", VERIFIED),
    row("ta-key-512.secure", Chain, &["2 1 2"], "", VERIFIED),
    row("ta-cert-full.secure", Chain, &["2 0 0"], "", VERIFIED),
    row("ta-middle.secure", Middle, &["middle 2 1 1"], "", VERIFIED),
    row("ta-cert-absent.secure", Good, &["2 0 1"], "", FAILED),
    row("ta-key-absent.secure", Good, &["2 1 1"], "", FAILED),
    row("ta-cert-full-absent.secure", Good, &["2 0 0"], "", VERIFIED),
    row("ta-key-full-absent.secure", Good, &["2 1 0"], "", VERIFIED),
    row("ta-expired.secure", ExpiredChain, &["2 1 1"], "", FAILED),
    row("ta-other-name.secure", OtherChain, &["2 1 1"], "", FAILED),
    row("ta-domain-name.secure", DomainChain, &["2 1 1"], "", VERIFIED),
    row("ta-mismatch.secure", Chain, &["wrong 2 1 1"], "", FAILED),
    // Usages 0 and 1, and other records that say nothing: encrypted, with any certificate.
    row("pkix-ta.secure", Chain, &["0 1 1"], "", UNUSABLE),
    row("pkix-ee.secure", Good, &["1 1 1"], "", UNUSABLE),
    row("selector.secure", Good, &["raw 3 7 1 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"], "", UNUSABLE),
    row("matching.secure", Good, &["raw 3 1 9 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"], "", UNUSABLE),
    row("length.secure", Good, &["raw 3 1 1 0011223344"], "", UNUSABLE),
    row("empty.secure", Good, &["raw \\# 3 030101"], "", ["-", "-", "encrypted"]) /* Postfix 3.7 ends with a panic */,
    row("no-cert.secure", Chain, &["raw 2 0 0 00112233445566778899"], "", UNUSABLE),
    row("unusable-clear.secure", Nothing, &["raw 3 7 1 0011"], "", NOT_NOW),
    // Several records.
    row("rollover.secure", Good, &["wrong 3 1 1", "3 1 1"], "", VERIFIED),
    row("rollover-none.secure", Good, &["wrong 3 1 1", "wrong 3 0 1"], "", FAILED),
    row("pkix-and-ee.secure", Good, &["wrong 0 1 1", "3 1 1"], "", VERIFIED),
    row("unusable-and-wrong.secure", Good, &["raw 3 7 1 0011", "wrong 3 1 1"], "", FAILED),
    row("ee-or-ta.secure", Other, &["2 1 1", "3 1 1"], "", VERIFIED),
    row("many.secure", Good, &["wrong 3 0 0", "wrong 3 0 0", "wrong 3 0 0", "wrong 3 0 0", "wrong 3 0 0", "wrong 3 0 0", "wrong 3 1 1", "3 1 1"], "", VERIFIED),
    // Hosts without STARTTLS.
    row("clear.secure", Nothing, &["3 1 1"], "", NOT_NOW),
    row("clear-without.secure", Nothing, &[], "", CLEAR),
    // No record: proved, or not provable.
    row("none.secure", Good, &[], "", ENCRYPTED),
    row("nodata.secure", Good, &[], "{d} MX 10 mx.{d}\nmx.{d} A {a}\n_25._tcp.mx.{d} TXT x", ENCRYPTED),
    row("none.hashed", Good, &[], "", ENCRYPTED),
    row("ee-key.hashed", Good, &["3 1 1"], "", VERIFIED),
    row("ee-mismatch.hashed", Good, &["wrong 3 1 1"], "", FAILED),
    row("none.optout", Good, &[], "", ENCRYPTED),
    row("ee-mismatch.optout", Good, &["wrong 3 1 1"], "", FAILED),
    row("none.insecure", Good, &[], "", ENCRYPTED),
    row("mismatch.insecure", Good, &["wrong 3 1 1"], "", ENCRYPTED),
    row("clear.insecure", Nothing, &["wrong 3 1 1"], "", CLEAR),
    // The resolver answers SERVFAIL.
    row("mx.bogusmx", Good, &["3 1 1"], "", NOT_NOW),
    row("address.bogusaddress", Good, &["3 1 1"], "", NOT_NOW),
    row("record.bogusrecord", Good, &["3 1 1"], "", NOT_NOW),
    row("all.expired", Good, &["3 1 1"], "", NOT_NOW),
    row("none.nodenial", Good, &[], "", NOT_NOW),
    row("lame.secure", Good, &[], "{d} MX 10 mx.{d}\nmx.{d} A {a}\n_25._tcp.mx.{d} NS ns.{d}\nns.{d} A 192.0.2.54", NOT_NOW),
    // Wildcards and aliases.
    row("wildcard.secure", Good, &["3 1 1"], "{d} MX 10 mx.{d}\nmx.{d} A {a}\n*._tcp.mx.{d} TLSA {t}", VERIFIED),
    row("record-alias.secure", Good, &["3 1 1"], "{d} MX 10 mx.{d}\nmx.{d} A {a}\n_25._tcp.mx.{d} CNAME dane.{d}\ndane.{d} TLSA {t}", VERIFIED),
    row("record-to-insecure.secure", Good, &["wrong 3 1 1"], "{d} MX 10 mx.{d}\nmx.{d} A {a}\n_25._tcp.mx.{d} CNAME record1.insecure.test.\nrecord1.insecure.test. TLSA {t}", ENCRYPTED),
    row("record-to-bogus.secure", Good, &["3 1 1"], "{d} MX 10 mx.{d}\nmx.{d} A {a}\n_25._tcp.mx.{d} CNAME record1.bogusrecord.test.\nrecord1.bogusrecord.test. TLSA {t}", NOT_NOW),
    row("host-alias.secure", Good, &["3 1 1"], "{d} MX 10 mx.{d}\nmx.{d} CNAME real.{d}\nreal.{d} A {a}\n_25._tcp.real.{d} TLSA {t}", VERIFIED),
    row("host-alias-first.secure", Good, &["3 1 1"], "{d} MX 10 mx.{d}\nmx.{d} CNAME real.{d}\nreal.{d} A {a}\n_25._tcp.mx.{d} TLSA {t}", VERIFIED),
    row("host-alias-to-insecure.secure", Good, &["3 1 1"], "{d} MX 10 mx.{d}\nmx.{d} CNAME host1.insecure.test.\nhost1.insecure.test. A {a}\n_25._tcp.mx.{d} TLSA {t}", VERIFIED),
    row("domain-alias.secure", Good, &["3 1 1"], "{d} CNAME real.{d}\nreal.{d} MX 10 mx.{d}\nmx.{d} A {a}\n_25._tcp.mx.{d} TLSA {t}", VERIFIED),
    row("domain-alias-to-insecure.secure", Good, &["3 1 1"], "{d} CNAME domain1.insecure.test.\ndomain1.insecure.test. MX 10 mx.{d}\nmx.{d} A {a}\n_25._tcp.mx.{d} TLSA {t}", INSECURE_MX),
    row("upper-case.secure", Chain, &["2 1 1"], "{d} MX 10 MX.{d}\nmx.{d} A {a}\n_25._tcp.mx.{d} TLSA {t}", VERIFIED),
    // Other ways to a host.
    row("two-addresses.secure", Good, &["3 1 1"], "{d} MX 10 mx.{d}\nmx.{d} A {a}\nmx.{d} A {b}\n_25._tcp.mx.{d} TLSA {t}", ["-", "Verified", "verified"]), /* it tries one address */
    row("no-mx.secure", Good, &["3 1 1"], "{d} A {a}\n_25._tcp.{d} TLSA {t}", VERIFIED),
    row("to-secure.insecure", Good, &["3 1 1"], "{d} MX 10 mx1.secure.test.\nmx1.secure.test. A {a}\n_25._tcp.mx1.secure.test. TLSA {t}", INSECURE_MX),
    row("to-secure-wrong.insecure", Good, &["wrong 3 1 1"], "{d} MX 10 mx2.secure.test.\nmx2.secure.test. A {a}\n_25._tcp.mx2.secure.test. TLSA {t}", FAILED),
    row("second-without.secure", Good, &["wrong 3 1 1"], "{d} MX 10 mx.{d}\n{d} MX 20 mx2.{d}\nmx.{d} A {a}\nmx2.{d} A {b}\n_25._tcp.mx.{d} TLSA {t}", ENCRYPTED),
    row("second-not-now.secure", Good, &["3 1 1"], "{d} MX 10 mx2.{d}\n{d} MX 20 mx.{d}\nmx.{d} A {a}\nmx2.{d} A {b}\n_25._tcp.mx.{d} TLSA {t}\n_25._tcp.mx2.{d} NS ns.{d}\nns.{d} A 192.0.2.54", VERIFIED),
];

/// The zones, before they have the records of the cases.
fn zones() -> Vec<(&'static str, Zone)> {
    let without_denial = |text: &str| {
        let is_denial = |line: &&str| line.contains("\tNSEC\t");
        text.lines().filter(|line| !is_denial(line)).map(|line| format!("{line}\n")).collect()
    };
    let zone = |name| (name, Zone::signed(name, ""));
    vec![
        zone("secure.test"),
        ("hashed.test", Zone::hashed("hashed.test", "", false)),
        ("optout.test", Zone::hashed("optout.test", "", true)),
        ("insecure.test", Zone::insecure("insecure.test", "")),
        ("expired.test", Zone::expired("expired.test", "")),
        ("bogusmx.test", zone("bogusmx.test").1.then(|text| text.replace("\tMX\t10 ", "\tMX\t11 "))),
        ("bogusaddress.test", zone("bogusaddress.test").1.then(|text| text.replace("\tA\t192.0.2", "\tA\t203.0.113"))),
        ("bogusrecord.test", zone("bogusrecord.test").1.then(|text| text.replace("\tTLSA\t3 1 1", "\tTLSA\t3 1 2"))),
        ("nodenial.test", zone("nodenial.test").1.then(without_denial)),
        zone("test"),
    ]
}

#[test]
fn postfix_and_penfold_agree_about_every_host() {
    let (mut cases, mut wanted) = (Vec::new(), Vec::new());
    for Row { case, finger, postfix, penfold } in ROWS {
        cases.push(Case { ..*case });
        wanted.push([*finger, *postfix, *penfold]);
    }
    let Some((network, hosts)) = hosts::start(&cases, zones()) else { return };
    let _broken = network.world(|| Dns::listening(([192, 0, 2, 54], 53).into(), |_| Answer::servfail()));
    let domains: Vec<String> = cases.iter().map(Case::domain).collect();
    let site = Network::site("");
    let asked = |column: usize| {
        let asked = domains.iter().zip(&wanted).filter(|(_, wanted)| wanted[column] != "-");
        asked.map(|(domain, _)| domain.clone()).collect::<Vec<_>>()
    };
    let Some(fingers) = peers::finger(&network, &site, &asked(0)) else { return };
    let Some(postfix) = Postfix::start(&network, &site) else { return };
    let by_postfix = postfix.send(&network, &asked(1));
    let scene = Scene::start(network, site);
    let by_penfold = send(&scene, &cases, &hosts);
    // The name for which a certificate was requested is the one with the records (RFC 7672 8.1).
    for (name, base) in [("ee-key", "mx"), ("host-alias", "real"), ("host-alias-first", "mx")] {
        let at = cases.iter().position(|case| case.name == format!("{name}.secure")).expect("a case");
        let last = hosts[at].first.look(|seen| seen.names.last().cloned());
        assert_eq!(last, Some(format!("{base}.{name}.secure.test")));
    }
    let mut rows = Vec::new();
    let mut wrong = 0;
    for ((domain, wanted), penfold) in domains.iter().zip(&wanted).zip(by_penfold) {
        let finger = fingers.get(domain).map_or("-", |(grade, _)| grade);
        let postfix = by_postfix.get(domain).map_or("-", String::as_str);
        let got = [finger.to_owned(), postfix.to_owned(), penfold];
        let ok = got.iter().zip(*wanted).all(|(got, wanted)| got == wanted);
        wrong += usize::from(!ok);
        let mut row = vec![if ok { "" } else { "*" }.to_owned(), domain.clone()];
        row.extend(got);
        if !ok {
            row.extend(["wanted:".to_owned()].into_iter().chain(wanted.map(str::to_owned)));
        }
        rows.push(row);
    }
    println!("{}", hosts::table(&rows));
    if wrong > 0 {
        fingers.iter().for_each(|(domain, (_, lines))| println!("= {domain}\n{lines}"));
        println!("{}\n{}", postfix.log(), scene.daemon.log());
    }
    assert_eq!(wrong, 0, "see the lines with a star");
}

/// Sends a message to a user of each domain by penfold, and returns what became of it.
fn send(scene: &Scene, cases: &[Case], hosts: &[Hosts]) -> Vec<String> {
    let recipients: Vec<String> = cases.iter().map(|case| format!("penfold@{}", case.domain())).collect();
    scene.send(&recipients.iter().map(String::as_str).collect::<Vec<_>>());
    let fates: Vec<String> = recipients.iter().map(|recipient| scene.fate(recipient)).collect();
    // The hosts have seen the same.
    for ((fate, case), hosts) in fates.iter().zip(cases).zip(hosts) {
        let got = hosts.got(&format!("penfold@{}", case.domain()));
        let tls: Vec<bool> = got.iter().map(|(_, message)| message.tls).collect();
        match fate.as_str() {
            "verified" | "encrypted" => assert_eq!(tls, [true], "{}", case.name),
            "clear" => assert_eq!(tls, [false], "{}", case.name),
            _ => assert_eq!(tls, [], "{}", case.name),
        }
    }
    fates
}

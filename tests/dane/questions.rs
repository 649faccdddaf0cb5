//! How many questions the name server gets.

use common::network::Network;
use common::zones::Zone;

use super::hosts::{self, Case, Shows};
use super::scene::Scene;

#[test]
fn a_host_without_dnssec_costs_one_question_more_and_none_on_a_kept_connection() {
    let cases = [
        Case::new("plain.insecure", Shows::Good, &[], "", |sink| sink),
        Case::new("dane.secure", Shows::Good, &["3 1 1"], "", |sink| sink),
        Case::new("none.secure", Shows::Good, &[], "", |sink| sink),
    ];
    let zones = vec![
        ("secure.test", Zone::signed("secure.test", "")),
        ("insecure.test", Zone::insecure("insecure.test", "")),
        ("test", Zone::signed("test", "")),
    ];
    let Some((network, hosts)) = hosts::start(&cases, zones) else { return };
    let scene = Scene::start(network, Network::site(""));
    let asked = |recipient: &str| {
        let before = scene.network.questions().len();
        scene.send(&[recipient]);
        scene.line(recipient);
        let mut asked = scene.network.questions().split_off(before);
        asked.sort();
        asked
    };
    let with = |domain: &str, more: &[&str]| {
        let mut wanted = vec![format!("{domain} MX"), format!("mx.{domain} A"), format!("mx.{domain} AAAA")];
        if cfg!(feature = "mta-sts") {
            wanted.push(format!("_mta-sts.{domain} TXT"));
        }
        wanted.extend(more.iter().map(|more| format!("{more}.{domain} TLSA")));
        wanted.sort();
        wanted
    };
    let plain = "plain.insecure.test";
    assert_eq!(asked(&format!("one@{plain}")), with(plain, &[]));
    assert_eq!(asked(&format!("two@{plain}")), Vec::<String>::new());
    assert_eq!(hosts[0].first.look(|seen| seen.connections), 1, "the connection was kept");
    for domain in ["dane.secure.test", "none.secure.test"] {
        assert_eq!(asked(&format!("one@{domain}")), with(domain, &["_25._tcp.mx"]));
        assert_eq!(asked(&format!("two@{domain}")), Vec::<String>::new());
    }
    // When they are off, nothing more is asked than before.
    let site = Network::site("remote.dane = false\nremote.mta_sts = false");
    let scene = Scene { daemon: scene.network.start_site(&site), site, ..scene };
    let before = scene.network.questions().len();
    scene.send(&[&format!("three@{plain}")]);
    scene.line(&format!("three@{plain}"));
    assert_eq!(scene.network.questions().split_off(before).len(), 3);
}

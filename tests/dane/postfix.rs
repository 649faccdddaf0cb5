//! Postfix and penfold, each as a server whose certificate the other verifies by DANE.

use std::fs;
use std::process::Command;

use common::network::{MACHINE, Network};
use common::tls::{Authority, Leaf};
use common::zones::Zone;

use super::peers::Postfix;
use super::scene::Scene;

#[test]
fn penfold_verifies_postfix() {
    let (certificate, key) = Authority::new().make("mx.peer.test", 90);
    let data = Leaf::of(certificate.clone(), key.clone()).association([3, 1, 1]);
    let records = format!("@ MX 10 mx\nmx A 192.0.2.30\n_25._tcp.mx TLSA {data}\n");
    let Some(network) = Network::start(vec![Zone::signed("test", ""), Zone::signed("peer.test", &records)]) else {
        return;
    };
    let site = Network::site("");
    site.write("peer.key", &key);
    site.write("peer.pem", &certificate);
    let pair = site.path("peer").display().to_string();
    // Postfix listens only on addresses that an interface has.
    let mut ip = Command::new("ip");
    ip.args(["address", "add", "192.0.2.30/32", "dev", "lo"]);
    assert!(network.outside(&ip).status().is_ok_and(|status| status.success()));
    let settings = [("PEER_ADDRESS", "192.0.2.30"), ("PEER_TLS", &*pair)];
    let Some(_postfix) = Postfix::start_with(&site, |script| network.outside(script), &settings, 25) else { return };
    let scene = Scene::start(network, site);
    scene.send(&["you@peer.test"]);
    let line = scene.line("you@peer.test");
    assert!(line.contains(" sent ") && line.contains(" verified=dane ") && line.contains("queued as"), "{line}");
    let new = scene.site.path("postfix25/mail/new");
    scene.daemon.wait_until("a message at Postfix", || fs::read_dir(&new).is_ok_and(|mut dir| dir.next().is_some()));
    let file = fs::read_dir(new).expect("a Maildir").next().expect("a message").expect("a message").path();
    let mail = fs::read_to_string(file).expect("a message");
    assert!(mail.contains("(using TLSv1.3 with cipher "), "{mail}");
}

#[test]
fn postfix_verifies_penfold_by_the_records_that_penfoldctl_prints() {
    let authority = Authority::new();
    let mut site = authority.site("");
    site.set("dns", "nameservers", "[\"127.0.0.1\"]");
    site.set("listen#2", "address", &format!("\"{MACHINE}:25\""));
    site.configure();
    authority.give(&site, "next", "razorback.test", 300);
    let path = |name: &str| site.path(name).display().to_string();
    let records = site.penfoldctl(&["tlsa", &path("cert.pem"), &path("next.key")]);
    let now = site.penfoldctl(&["tlsa"]);
    assert!(records.lines().count() == 2 && records.contains(&now), "{records}{now}");
    let records = format!("@ MX 10 @\n@ A {MACHINE}\n{records}");
    let zones = vec![Zone::signed("test", ""), Zone::signed("razorback.test", &records)];
    let Some(network) = Network::start(zones) else { return };
    let Some(postfix) = Postfix::start(&network, &site) else { return };
    let daemon = network.start_site(&site);
    let sent = |recipient: &str| postfix.send_to(&network, recipient);
    assert_eq!(sent("jon@razorback.test"), "Verified", "{}", postfix.log());
    daemon.wait_mail(&site, "jon", 1);

    // The next key takes over, and then one without a record.
    let replace = |name: &str| {
        for end in ["key", "pem"] {
            site.write(
                &format!("cert.{end}"),
                &fs::read_to_string(site.path(&format!("{name}.{end}"))).expect("a file"),
            );
        }
        site.penfoldctl(&["reload"]);
    };
    replace("next");
    assert_eq!(sent("root@razorback.test"), "Verified", "{}", postfix.log());
    authority.give(&site, "other", "razorback.test", 300);
    replace("other");
    assert_eq!(sent("postmaster@razorback.test"), "deferred", "{}", postfix.log());
}

//! Measures the memory of a daemon that signs and verifies large messages.

use std::net::Ipv4Addr;

use common::client::Client;
use common::dns::Dns;
use common::{Daemon, Site, keys};

use super::process::peak;
use crate::turn;

/// The most memory, in octets, by which a large message may exceed a small one.
const GROWTH: u64 = 2 << 20;

/// Sends a message of far.test as a client that may relay, whose mail is signed. Sends the signed
/// message again as a stranger, whose mail is verified. Returns what was delivered at the end.
fn sign_and_verify(daemon: &Daemon, site: &Site, body: &str) -> String {
    let text = format!("From: <anna@far.test>\r\nSubject: hello\r\n\r\n{body}");
    daemon.client().send("anna@far.test", &["jon@razorback"], &text);
    let signed = daemon.wait_mail(site, "jon", 1).remove(0);
    let signed = String::from_utf8(signed).expect("text").replace('\n', "\r\n");
    let mut stranger = Client::new(daemon.connect_from(Ipv4Addr::new(127, 0, 0, 9)));
    stranger.send("anna@far.test", &["root@razorback"], &signed);
    let delivered = daemon.wait_mail(site, "root", 1).remove(0);
    for user in ["jon", "root"] {
        std::fs::remove_dir_all(site.mailbox(user)).expect("a mailbox");
    }
    String::from_utf8(delivered).expect("text")
}

#[test]
fn a_large_message_is_signed_and_verified_in_the_memory_of_a_small_one() {
    let _turn = turn();
    let made = keys::Made::new("far.test", "s");
    let zone: String = made.keys.iter().map(keys::Key::zone_line).collect();
    let dns = Dns::zone(&format!("{zone}_dmarc.far.test TXT v=DMARC1; p=reject\nfar.test MX 10 mail.far.test"));
    let mut site = Site::with("relay.networks = [\"127.0.0.1/32\"]\npolicy.spf = \"mark\"\npolicy.dmarc = \"mark\"");
    site.set("limits", "message_size", "\"60M\"");
    site.set("dns", "nameservers", &dns.nameservers());
    made.give(&site);
    made.of(&site).iter().for_each(|key| key.add_to(&mut site));
    let daemon = site.start();
    let line = format!("{} \r\n", "a line ".repeat(142));
    let peaks = [4, 50_000].map(|lines| {
        let delivered = sign_and_verify(&daemon, &site, &line.repeat(lines));
        let (header, body) = delivered.split_once("\n\n").expect("a header");
        assert_eq!(body.len(), lines * (line.len() - 1));
        assert_eq!(header.matches("DKIM-Signature: ").count(), 2, "{header}");
        assert_eq!(header.matches("dkim=pass").count(), 2, "{header}");
        assert!(header.contains("dmarc=pass"), "{header}");
        peak(&daemon)
    });
    eprintln!("the most memory: {} KiB, and {} KiB", peaks[0] / 1024, peaks[1] / 1024);
    assert!(peaks[1] < peaks[0] + GROWTH, "{peaks:?}");
}

//! Messages converted for a host without 8BITMIME: their signatures, their seals, and what becomes
//! of a message that cannot be converted.

use std::net::Ipv4Addr;

use common::client::Client;
use common::dns::Dns;
use common::remote::{Remote, Sink};
use common::{Site, keys};
use penfold::dns::lookup::OnlyTxt;
use penfold::mailauth::arc;
use penfold::mailauth::dkim::Verifier;

const BODY: &str = "Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nSch\u{f6}ne Gr\u{fc}\u{df}e aus der Ferne\r\n";
const QUOTED: &str = "Content-Transfer-Encoding: quoted-printable\n\nSch=C3=B6ne Gr=C3=BC=C3=9Fe aus der Ferne\n";

/// Whether the signatures of the domain are valid, from top to bottom, and the state of the chain.
/// Every name has the same key in the DNS.
fn checked(message: &str, record: &str) -> (Vec<bool>, arc::Status) {
    let mut verifier = Verifier::new();
    verifier.feed(message.as_bytes());
    let (ended, dns) = (verifier.finish(), OnlyTxt(|_: &str| Ok(vec![record.as_bytes().to_vec()])));
    let chain = arc::verify(&ended, &dns, 1_790_000_000).status;
    (ended.verify(&dns, 1_790_000_000).iter().map(|checked| checked.is_pass()).collect(), chain)
}

#[test]
fn a_converted_message_is_signed_and_sealed_anew_and_nothing_else_is_signed() {
    let remote = Remote::with(Sink { keywords: Vec::new(), ..Sink::default() });
    let mut site = Site::with("relay.networks = [\"127.0.0.1/32\"]\npolicy.own_hello = \"accept\"");
    site.make_root_owned();
    site.write("aliases", "out: elvis@far.test\n");
    site.write("routes", &format!("far.test {0}\n", remote.host_port()));
    let made = keys::make("razorback.test", &site.path("dkim"), "a");
    let rsa = made.iter().find(|key| key.selector == "a-rsa").expect("an RSA key");
    let dns = Dns::zone(&format!("{}origin.test MX 0 mx.origin.test\nmx.origin.test A 127.0.0.9\n", rsa.zone_line()));
    site.set("dns", "nameservers", &dns.nameservers());
    rsa.add_to(&mut site);
    let daemon = site.start();
    let got = |number: usize| {
        String::from_utf8(remote.messages(number + 1).remove(number).data).expect("text").replace("\r\n", "\n")
    };
    let from = |author: &str| format!("From: {author}\r\n{BODY}");

    // This host has signed the message when it came, and signs what it sends in its place.
    daemon.greeted().send("jon@razorback.test", &["elvis@far.test"], &from("jon@razorback.test"));
    let message = got(0);
    assert!(message.ends_with(QUOTED) && message.is_ascii(), "{message}");
    assert_eq!(checked(&message, &rsa.record).0, [true], "{message}");
    daemon.wait_words(&[" converted host=", "form=7bit"]);

    // A stranger's field names the same key. Nothing is signed, and the field stays.
    let forged =
        "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=razorback.test; s=a-rsa; h=From; bh=AAAA; b=AAAA\r\n";
    let send = |text: &str| {
        let stranger = daemon.connect_from(Ipv4Addr::new(127, 0, 0, 9));
        Client::new(stranger).send("ann@origin.test", &["out@razorback.test"], text);
    };
    send(&format!("{forged}{}", from("jon@razorback.test")));
    let message = got(1);
    assert!(message.ends_with(QUOTED) && message.matches("\nDKIM-Signature:").count() == 1, "{message}");
    assert!(message.contains(&forged.replace("\r\n", "\n")), "{message}");
    // A forwarded message is sealed after the conversion.
    assert_eq!(checked(&message, &rsa.record), (vec![false], arc::Status::Pass), "{message}");

    // A signed part cannot be converted, and the sender gets the reason.
    send("From: ann@origin.test\r\nContent-Type: multipart/signed; boundary=x\r\n\r\n--x\r\n\r\n\u{fc}\r\n--x--\r\n");
    daemon.wait_words(&[" failed ", "dsn=5.6.3", "7-bit", "a signed part would have to be changed"]);
    assert!(remote.look(|seen| seen.messages.len()) == 2);
}

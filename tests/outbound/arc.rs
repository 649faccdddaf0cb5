//! Forwarded mail leaves with an ARC set, by a `[[dkim]]` key of the domain of rewritten senders.

use std::net::Ipv4Addr;

use common::client::Client;
use common::dns::Dns;
use common::remote::Remote;
use common::{Daemon, Site, keys};
use penfold::dns::lookup::OnlyTxt;
use penfold::mailauth::arc::{self, Chain};
use penfold::mailauth::dkim::Verifier;

const TEXT: &str = "From: Ann <ann@origin.test>\r\nTo: out@razorback.test\r\nSubject: tea\r\n\r\n.. is ready\r\n";

/// Verifies the chain of a message. Every name has the same key in the DNS.
fn chain(message: &str, record: &str) -> Chain {
    let mut verifier = Verifier::new();
    verifier.feed(message.as_bytes());
    arc::verify(&verifier.finish(), &OnlyTxt(|_: &str| Ok(vec![record.as_bytes().to_vec()])), 1_790_000_000)
}

/// Sends a message as a stranger, and returns what the other host gets, with LF.
fn forwarded(daemon: &Daemon, remote: &Remote, text: &str) -> String {
    forwarded_from("out@razorback.test", daemon, remote, text)
}

fn forwarded_from(address: &str, daemon: &Daemon, remote: &Remote, text: &str) -> String {
    let before = remote.look(|seen| seen.messages.len());
    let stranger = daemon.connect_from(Ipv4Addr::new(127, 0, 0, 9));
    Client::new(stranger).send("ann@origin.test", &[address], text);
    let message = remote.messages(before + 1).remove(before);
    String::from_utf8(message.data).expect("text").replace("\r\n", "\n")
}

#[test]
fn forwarded_mail_is_sealed() {
    let remote = Remote::sink();
    let mut site =
        Site::with("relay.networks = [\"127.0.0.1/32\"]\npolicy.dmarc = \"mark\"\npolicy.own_hello = \"accept\"");
    site.make_root_owned();
    site.write("list", "elvis@far.test\n");
    site.write("aliases", &format!("out: elvis@far.test\nlist: :include:{}\n", site.path("list").display()));
    site.write("routes", &format!("far.test {0}\norigin.test {0}\n", remote.host_port()));
    let made = keys::make("razorback.test", &site.path("dkim"), "a");
    let rsa = made.iter().find(|key| key.selector == "a-rsa").expect("an RSA key");
    let dns = Dns::zone(&format!("{}origin.test MX 0 mx.origin.test\nmx.origin.test A 127.0.0.9\n", rsa.zone_line()));
    site.set("dns", "nameservers", &dns.nameservers());
    // Without a key, nothing is sealed.
    let daemon = site.start();
    assert!(!forwarded(&daemon, &remote, TEXT).contains("ARC-"));
    // A daemon that ends before it has recorded the delivery would repeat it.
    assert!(daemon.settles(&site));
    drop(daemon);
    made.iter().for_each(|key| key.add_to(&mut site));
    let daemon = site.start();
    let record = rsa.record.clone();
    let once = forwarded(&daemon, &remote, TEXT);
    let seals = chain(&once, &record);
    assert_eq!((seals.status, seals.sets.len()), (arc::Status::Pass, 1), "{seals:?}\n{once}");
    assert_eq!(seals.sets[0].domain, "razorback.test");
    assert!(seals.sets[0].results.starts_with("razorback.test;"), "{seals:?}");
    assert!(seals.sets[0].results.contains("dmarc="), "{seals:?}");
    assert!(once.ends_with("\n\n. is ready\n"), "{once}");
    // The next server, which has the same key here, adds a set of its own.
    let twice = forwarded(&daemon, &remote, &once.replace("\n.", "\n..").replace('\n', "\r\n"));
    let seals = chain(&twice, &record);
    assert_eq!((seals.status, seals.sets.len()), (arc::Status::Pass, 2), "{seals:?}\n{twice}");
    assert!(seals.sets[1].results.contains("arc=pass (i=1)"), "{seals:?}");
    // A chain that came broken is reported as broken.
    let altered = once.replace("is ready", "is cold").replace("\n.", "\n..").replace('\n', "\r\n");
    let seals = chain(&forwarded(&daemon, &remote, &altered), &record);
    assert_eq!((seals.status, seals.reason), (arc::Status::Fail, Some(arc::Reason::Reported)));
    // A list is expanded at delivery, by a message with another queue id.
    let listed = forwarded_from("list@razorback.test", &daemon, &remote, TEXT);
    let seals = chain(&listed, &record);
    assert_eq!((seals.status, seals.sets.len()), (arc::Status::Pass, 1), "{seals:?}\n{listed}");
    assert!(seals.sets[0].results.contains("dmarc="), "{seals:?}");
    // A trusted host may pass on what strangers wrote. Only this host's own results are repeated.
    let forged = format!("Authentication-Results: razorback.test;\r\n\tdmarc=pass\r\n{TEXT}");
    let before = remote.look(|seen| seen.messages.len());
    daemon.greeted().send("ann@origin.test", &["out@razorback.test"], &forged);
    let message = String::from_utf8(remote.messages(before + 1).remove(before).data).expect("text");
    let seals = chain(&message.replace("\r\n", "\n"), &record);
    assert_eq!((seals.status, seals.sets.len()), (arc::Status::Pass, 1), "{seals:?}\n{message}");
    assert_eq!(seals.sets[0].results.trim(), "razorback.test; none", "{message}");
    // What the authors of this host send is not forwarded.
    daemon.submit_from("jon@razorback.test", &["out@razorback.test"]);
    let message = String::from_utf8(remote.messages(7).remove(6).data).expect("text");
    assert!(!message.contains("ARC-"), "{message}");
}

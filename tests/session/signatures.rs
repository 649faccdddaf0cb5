//! Signatures by domain: each `[[domain]]` signs with keys of its own, and reports have the keys of the
//! hostname.

use common::client::Client;
use common::remote::{Remote, Sink};
use common::{Daemon, Site, keys};

/// The password "pencil".
const PENCIL: &str = "{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

/// A host mx.one.test with two tables `[[domain]]`. Each has an account ann.
fn site_of_two_domains() -> Site {
    let settings =
        "hostname = \"mx.one.test\"\nrelay.networks = []\nlisten.kind = \"submission\"\nlisten.auth = \"always\"";
    let mut site = Site::with(settings);
    site.make_root_owned();
    for (section, names) in [("domain#1", "[\"one.test\"]"), ("domain#2", "[\"two.test\", \"three.test\"]")] {
        let file = format!("users-{}", &section[7..]);
        site.write(&file, &format!("ann:{PENCIL}:\n"));
        let users = format!("\"file:{}\"", site.path(&file).display());
        let mailbox = format!("\"{}/{{domain}}/{{user}}\"", site.path("mail").display());
        for (key, value) in [("names", names), ("users", &users), ("mailbox", &mailbox)] {
            site.set(section, key, value);
        }
    }
    site
}

/// Sends a message of an account to a mailbox. Returns the message there, which is the only one.
fn submitted(site: &Site, daemon: &Daemon, account: &str, from: &str, to: &str) -> Vec<u8> {
    let mut client = logged_in(daemon, account);
    client.send(account, &[&format!("{to}@razorback")], &format!("From: {from}\r\nSubject: x\r\n\r\nHello\r\n"));
    daemon.wait_mail(site, to, 1).remove(0)
}

fn logged_in(daemon: &Daemon, account: &str) -> Client {
    let mut client = daemon.greeted();
    let credentials = data_encoding::BASE64.encode(format!("\0{account}\0pencil").as_bytes());
    client.ask(&format!("AUTH PLAIN {credentials}"), "235 ");
    client
}

/// Sends a message of an account to a host that rejects it. Returns the report in the mailbox of the
/// account, which has this many messages then.
fn reported(site: &Site, daemon: &Daemon, account: &str, count: usize) -> Vec<u8> {
    let remote = Remote::with(Sink::default().reply("RCPT", "550 5.1.1 no such user"));
    site.write("routes", &format!("gone.test {}\n", remote.host_port()));
    let (user, domain) = account.split_once('@').expect("an address");
    let mailbox = format!("{domain}/{user}");
    let before = site.mail(&mailbox);
    logged_in(daemon, account).send(account, &["x@gone.test"], &format!("From: {account}\r\n\r\nHello\r\n"));
    let mut after = daemon.wait_mail(site, &mailbox, count);
    after.retain(|mail| !before.contains(mail));
    after.remove(0)
}

/// Whether the message itself is signed, not the message that it returns.
fn is_signed(report: &[u8]) -> bool {
    let text = String::from_utf8_lossy(report);
    text.lines().take_while(|line| !line.is_empty()).any(|line| line.starts_with("DKIM-Signature:"))
}

/// Reports have an address at the hostname, so the keys of the domain above it sign them, whatever
/// domain their recipient has.
#[test]
fn each_domain_has_its_own_keys_and_reports_have_those_of_the_hostname() {
    let mut site = site_of_two_domains();
    let users = ["a", "b", "c", "d"];
    users.iter().for_each(|user| site.add("users", &format!("{user}::")));
    let two = keys::make("two.test", &site.path("dkim"), "b");
    two.iter().for_each(|key| key.add_to(&mut site));
    let daemon = site.start();
    let report = reported(&site, &daemon, "ann@two.test", 1);
    // The keys of another domain do not sign for the hostname.
    assert!(!is_signed(&report), "{}", String::from_utf8_lossy(&report));
    drop(daemon);
    let one = keys::make("one.test", &site.path("dkim"), "a");
    one.iter().for_each(|key| key.add_to(&mut site));
    let (all, daemon) = ([one, two].concat(), site.start());
    let check = |what: &str, mail: &[u8], wanted: &[&str]| {
        let verified = keys::verify(mail, &all);
        assert!(verified.is_none_or(|verified| verified == wanted), "{what}: {}", String::from_utf8_lossy(mail));
    };
    let of_one: &[&str] = &["a-rsa one.test True", "a-ed25519 one.test True"];
    let of_two: &[&str] = &["b-rsa two.test True", "b-ed25519 two.test True"];
    for ((account, from, wanted), to) in [
        ("ann@one.test", "Ann <ann@One.test>", of_one),
        ("ann@two.test", "ann@two.test", of_two),
        // The first author counts.
        ("ann@two.test", "ann@two.test, ann@three.test", of_two),
        // The domain of the same table has no key.
        ("ann@two.test", "ann@three.test", &[]),
    ]
    .into_iter()
    .zip(users)
    {
        check(from, &submitted(&site, &daemon, account, from, to), wanted);
    }
    // Nobody gets a signature of the other domain.
    let mut client = logged_in(&daemon, "ann@two.test");
    client.begin("ann@two.test", &["jon@razorback"]);
    client.send_text("From: ann@one.test\r\n\r\nHello\r\n.\r\n");
    client.expect("550 5.7.1 ");
    for (account, count) in [("ann@one.test", 1), ("ann@two.test", 2)] {
        check(account, &reported(&site, &daemon, account, count), of_one);
    }
}

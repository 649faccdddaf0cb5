//! Senders that are rewritten by penfold and by Mail::SRS, one after the other, in both orders.
//!
//! Each forwarder must read the addresses of the other, and a bounce must find its way back through
//! both.

use std::process::Command;

use common::built;
use common::client::TEXT;
use common::programs::feed;
use common::remote::Remote;
use common::{Daemon, Site};
use penfold::address::Address;
use penfold::srs::{self, Secret};

const NOW: u64 = 1_795_255_200;

/// The results of Mail::SRS; `None` if it is not installed.
fn other(input: &str) -> Option<Vec<String>> {
    if !Command::new("perl").args(["-MMail::SRS", "-e", "1"]).output().is_ok_and(|output| output.status.success()) {
        common::skipped("Mail::SRS is not installed");
        return None;
    }
    let script = built::source("tests").join("interop/srs.pl");
    let output = feed(Command::new("perl").arg(script), input.as_bytes());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

fn one(input: &str) -> Option<String> {
    other(input).map(|mut lines| lines.remove(0))
}

/// Sends a message from `from` to `to`, and returns the sender and the recipient that the remote
/// host gets.
fn pass(daemon: &Daemon, remote: &Remote, from: &str, to: &str) -> (String, String) {
    daemon.client().send(from, &[to], TEXT);
    let got = remote.messages(1).remove(0);
    remote.take();
    let path = |text: &str| text.split(' ').next().unwrap_or_default().trim_matches(['<', '>']).to_owned();
    (path(&got.sender), path(&got.recipients[0]))
}

#[test]
fn a_bounce_finds_its_way_through_both_forwarders() {
    let remote = Remote::sink();
    let site = Site::new();
    site.write("aliases", "out: elvis@far.test\n");
    site.write("routes", &format!("far.test {0}\norigin.test {0}\none.test {0}\n", remote.host_port()));
    let daemon = site.start();

    // Mail::SRS is the first forwarder, and penfold the second.
    let Some(first) = one("forward Ann@origin.test one.test\n") else { return };
    let (second, _) = pass(&daemon, &remote, &first, "out@razorback.test");
    assert!(second.starts_with("SRS1=") && second.ends_with("@razorback.test"), "{second}");
    let (_, back) = pass(&daemon, &remote, "", &second);
    assert_eq!(back, first);
    assert_eq!(one(&format!("reverse {back}\n")).as_deref(), Some("Ann@origin.test"));

    // Penfold is the first, and Mail::SRS the second and, for another host, the third.
    let (first, _) = pass(&daemon, &remote, "Ann@origin.test", "out@razorback.test");
    let Some(second) = one(&format!("forward {first} two.test\n")) else { return };
    let Some(third) = one(&format!("forward {second} three.test\n")) else { return };
    for address in [second, third] {
        let Some(back) = one(&format!("reverse {address}\n")) else { return };
        assert_eq!(back.to_lowercase(), first.to_lowercase());
        assert_eq!(pass(&daemon, &remote, "", &back), (String::new(), "Ann@origin.test".to_owned()));
    }
    assert!(daemon.settles(&site));
}

#[test]
fn addresses_of_all_kinds_are_understood() {
    let secret = Secret::new(b"ours");
    let senders =
        ["jon@example.com", "a=b+c-d@example.com", "SRS0@example.com", "x@a-b.c-d.example.com", "=@example.com"];
    for sender in senders {
        let ours = srs::forward(&secret, &Address::parse(sender).expect(sender), "one.test", NOW).expect("a sender");
        let Some(lines) = other(&format!("forward {sender} one.test\nforward {ours} two.test\n")) else { return };
        let [theirs, second] = lines.as_slice() else { panic!("{lines:?}") };
        // Ours, rewritten by Mail::SRS, is found again.
        let Some(back) = one(&format!("reverse {second}\n")) else { return };
        let back = Address::parse(&back).expect("an address");
        assert_eq!(
            srs::reverse(std::slice::from_ref(&secret), back.local(), NOW).map(|a| a.to_string()).as_deref(),
            Some(sender)
        );
        // Theirs, rewritten by penfold twice.
        let mut address = Address::parse(theirs).expect("an address");
        for domain in ["two.test", "three.test"] {
            address = srs::forward(&secret, &address, domain, NOW).expect("a sender");
        }
        let back = srs::reverse(std::slice::from_ref(&secret), address.local(), NOW).expect("the first forwarder");
        assert_eq!(one(&format!("reverse {back}\n")).as_deref(), Some(sender));
    }
}

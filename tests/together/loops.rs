//! Hosts that route a domain to each other.

use common::{Site, free_port};

/// Two hosts, each of which sends mail for loop.test to the other one, and mail for the other one's name.
/// `settings` are those of both.
fn pair(settings: &str) -> [Site; 2] {
    let ports = [free_port(), free_port()];
    let site = |own: usize| {
        let (name, other) = (["a.test", "b.test"][own], ["b.test", "a.test"][own]);
        let site = Site::with(&format!(
            "hostname = \"{name}\"\nlocal.domains = [\"{name}\"]\nlisten.address = \"127.0.0.1:{}\"\n\
             relay.domains = [\"loop.test\"]\n{settings}",
            ports[own]
        ));
        ["loop.test", other].iter().for_each(|to| site.add("routes", &format!("{to} 127.0.0.1:{}", ports[1 - own])));
        site
    };
    [site(0), site(1)]
}

/// A message for a domain that each of two hosts sends to the other one comes back to its sender, once,
/// with the reason.
#[test]
fn a_loop_between_two_hosts_ends_with_one_bounce() {
    let sites = pair("");
    let daemons = sites.each_ref().map(Site::start);
    daemons[0].submit_from("jon@a.test", &["pat@loop.test"]);
    let report = daemons[0].wait_mail(&sites[0], "jon", 1).remove(0);
    let report = String::from_utf8_lossy(&report).into_owned();
    let words = ["Status: 5.4.6\n", "Diagnostic-Code: smtp; 554 5.4.6 ", "Final-Recipient: rfc822; pat@loop.test\n"];
    assert!(words.iter().all(|word| report.contains(word)), "{report}");
    assert!(daemons.iter().zip(&sites).all(|(daemon, site)| daemon.settles(site)));
    // A hundred transactions, one after the other, and none beside them.
    let hops: usize = daemons.iter().map(|daemon| daemon.log().matches("rcpt=<pat@loop.test>").count()).sum();
    assert_eq!(hops, 101);
    assert_eq!(sites[0].mail("jon").len() + sites[1].mail("jon").len(), 1);
}

/// Hosts that ask each other about a recipient, and each of which asks the other one before it answers.
#[test]
fn hosts_that_ask_each_other_about_a_recipient_soon_say_later() {
    let sites = pair("relay.verify = true\nrelay.networks = []");
    let daemons = sites.each_ref().map(Site::start);
    let mut client = daemons[0].client();
    client.ask("MAIL FROM:<jon@elsewhere.test>", "250 ");
    client.ask("RCPT TO:<pat@loop.test>", "451 4.4.3 ");
    // At most four questions at a time go to one host.
    let count =
        || daemons.iter().map(|daemon| daemon.log().matches(" asked to=<pat@loop.test>").count()).sum::<usize>();
    daemons[0].wait_until("a question", || count() > 0);
    let questions = count();
    assert!((1..=8).contains(&questions), "{questions} questions");
    // Both still serve others.
    for (daemon, domain) in daemons.iter().zip(["a.test", "b.test"]) {
        daemon.client().send("jon@elsewhere.test", &[&format!("jon@{domain}")], "Subject: x\r\n\r\nHello.\r\n");
    }
    assert!(daemons.iter().zip(&sites).all(|(daemon, site)| daemon.settles(site)));
}

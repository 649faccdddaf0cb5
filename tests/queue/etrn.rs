//! ETRN (RFC 1985): a site that was offline asks for its mail.

use std::process::Command;

use common::Site;
use common::remote::{Conduct, Remote, Sink};

/// Asks for the mail of a node with Python's smtplib, and returns the code of the reply and its
/// text.
const SCRIPT: &str = "
import smtplib, sys
client = smtplib.SMTP('127.0.0.1', int(sys.argv[1]), timeout=20)
client.ehlo()
assert client.has_extn('etrn')
print(*client.docmd('ETRN', sys.argv[2]))
";

#[test]
fn a_site_gets_the_mail_that_it_asks_for_and_no_other() {
    let remote = Remote::with(Sink::default().reply("RCPT", "451 4.7.1 offline"));
    let mut site = Site::with("queue.retry_min = \"1h\"\nqueue.retry_max = \"1h\"");
    site.set("relay", "etrn", "[\"site.test\", \".sites.test\"]");
    for domain in ["site.test", "a.sites.test", "other.test", "x.other.test"] {
        site.add("routes", &format!("{domain} {}", remote.host_port()));
    }
    let daemon = site.start();
    for to in ["elvis@site.test", "elvis@a.sites.test", "elvis@other.test", "elvis@x.other.test"] {
        daemon.submit(&[to]);
        daemon.wait_words(&[&format!(" deferred to=<{to}>")]);
    }
    daemon.wait_running(&site, 0);
    remote.behave(Conduct::Sink(Sink::default()));
    let arrived = || -> Vec<String> {
        let mut all = remote.look(|seen| seen.messages.iter().flat_map(|m| m.recipients.clone()).collect::<Vec<_>>());
        all.sort();
        all
    };
    let mut client = daemon.greeted();
    // The daemon has read the whole spool.
    assert!(daemon.becomes_true(|| client.ask("ETRN none.sites.test", "25").starts_with("251 2.0.0 ")));
    let port = daemon.address().port().to_string();
    let output = Command::new("python3").args(["-c", SCRIPT, &port, "site.test"]).output().expect("python3");
    let reply = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(reply.starts_with("253 b'2.0.0 1 pending messages for node site.test"), "{output:?}");
    daemon.wait_words(&[" etrn node=site.test jobs=1 peer=[127.0.0.1] user=-"]);
    daemon.wait_words(&[" sent to=<elvis@site.test>"]);
    daemon.wait_running(&site, 0);
    assert_eq!(arrived(), ["<elvis@site.test>"]);
    client.ask("ETRN site.test", "251 2.0.0 ");
    client.ask("ETRN other.test", "459 4.7.1 ");
    client.ask("ETRN @sites.test", "253 2.0.0 1 ");
    daemon.wait_words(&[" sent to=<elvis@a.sites.test>"]);
    daemon.wait_running(&site, 0);
    assert_eq!(arrived(), ["<elvis@a.sites.test>", "<elvis@site.test>"]);
    // Within a minute, the same argument begins no further attempts.
    remote.behave(Conduct::Sink(Sink::default().reply("RCPT", "451 4.7.1 offline")));
    daemon.submit(&["again@a.sites.test"]);
    daemon.wait_words(&[" deferred to=<again@a.sites.test>"]);
    daemon.wait_running(&site, 0);
    remote.behave(Conduct::Sink(Sink::default()));
    client.ask("ETRN @sites.test", "253 2.0.0 1 ");
    daemon.submit(&["late@site.test"]);
    daemon.wait_words(&[" sent to=<late@site.test>"]);
    assert!(!arrived().contains(&"<again@a.sites.test>".to_owned()), "{}", daemon.log());
    client.ask("ETRN a.sites.test", "253 2.0.0 1 ");
    daemon.wait_words(&[" sent to=<again@a.sites.test>"]);
    // The same selection for the administrator.
    site.penfoldctl(&["flush", "@other.test"]);
    assert!(daemon.settles(&site));
    assert_eq!(arrived().len(), 6);
}

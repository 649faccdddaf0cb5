//! Cyrus as a mail store that takes mail by LMTP.

use std::fs;
use std::process::{Command, Stdio};

use common::client::TEXT;
use common::{Daemon, Site, built, free_port, unpacked};

/// Makes three mailboxes, one of which has room for 1 KiB; or prints the messages of a mailbox.
const SCRIPT: &str = "
import imaplib, sys
client = imaplib.IMAP4('127.0.0.1', int(sys.argv[1]))
client.login('admin', 'secret')
if sys.argv[2] == 'make':
    for name in ('jon', 'full', 'anna@example.org'):
        print(client.create('user/' + name))
    print(client.setquota('user/full', '(STORAGE 1)'))
else:
    client.setacl('user/' + sys.argv[2], 'admin', 'lrs')
    client.select('user/' + sys.argv[2], True)
    for number in client.search(None, 'ALL')[1][0].split():
        print(client.fetch(number, '(RFC822)')[1][0][1].decode())
";

/// Starts Cyrus in a directory of the site. Where that is not possible, reports the test as skipped
/// and returns `None`. The second value is the port for LMTP.
fn cyrus(site: &Site) -> Option<(Daemon, u16)> {
    let tree = unpacked::peer("cyrus")?;
    let dir = site.path("cyrus");
    fs::create_dir(&dir).expect("a directory");
    let (imap, lmtp) = (free_port(), free_port());
    let mut script = Command::new(built::source("tests/interop/cyrus.sh"));
    script.args([&tree, &dir]).args([imap, lmtp].map(|port| port.to_string())).stdin(Stdio::null());
    match Daemon::spawn_until(script, |line| (line == "ready").then_some(imap)) {
        Ok(daemon) => Some((daemon, lmtp)),
        Err(log) => panic!("Cyrus does not start:\n{log}"),
    }
}

/// Runs the script, and returns what it prints.
fn imap(cyrus: &Daemon, argument: &str) -> String {
    let output = Command::new("python3").args(["-c", SCRIPT, &cyrus.port.to_string(), argument]).output();
    let output = output.expect("python3");
    assert!(output.status.success(), "{output:?}\n{}", cyrus.log());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn cyrus_takes_mail_at_its_socket_and_at_its_port() {
    let mut site = Site::with("relay.networks = []\nlocal.domains = [\"razorback\", \"example.org\"]");
    let Some((cyrus, port)) = cyrus(&site) else { return };
    imap(&cyrus, "make");
    let socket = site.path("cyrus/lmtp");
    site.set("local", "mailbox", &format!("\"lmtp:{}\"", socket.display()));
    site.write("users", &format!("jon::\nfull::\ngone::\nanna@example.org::lmtp://127.0.0.1:{port}\n"));
    let daemon = site.start();
    let mut client = daemon.greeted();
    // A message may exceed a quota, but none comes after it.
    client.send("bin@example.net", &["full@razorback"], &format!("{TEXT}{}", "a line\r\n".repeat(300)));
    daemon.wait_words(&[" sent to=<full@razorback> via=lmtp", "code=250"]);
    let names = ["jon@razorback", "jon+list@razorback", "full@razorback", "gone@razorback", "anna@example.org"];
    client.send("bin@example.net", &names, TEXT);
    for name in ["jon@razorback", "jon+list@razorback", "anna@example.org"] {
        daemon.wait_words(&[&format!(" sent to=<{name}> via=lmtp"), "code=250"]);
    }
    daemon.wait_words(&[" failed to=<full@razorback> via=lmtp", "code=552 dsn=5.2.2"]);
    daemon.wait_words(&[" failed to=<gone@razorback> via=lmtp", "code=550 dsn=5.1.1"]);
    for (user, count) in [("jon", 2), ("anna@example.org", 1)] {
        let mail = imap(&cyrus, user);
        assert_eq!(mail.matches("Subject: hello").count(), count, "{mail}\n{}", daemon.log());
        assert!(mail.starts_with("Return-Path: <bin@example.net>"), "{mail}");
    }
}

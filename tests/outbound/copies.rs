//! Two hosts that copy all mail to each other (`policy.always_bcc`).

use std::net::Ipv4Addr;

use common::client::Client;
use common::programs::sendmail;
use common::{Daemon, Site};

const MARK: &str = "X-Penfold-Copied: ";

/// A host for the domain `name.test`, without routes.
fn host(name: &str, settings: &str) -> Site {
    let mut site = Site::with(settings);
    site.set("", "hostname", &format!("\"mx.{name}.test\""));
    site.set("local", "domains", &format!("[\"{name}.test\"]"));
    site.add("users", "archive::\n");
    site
}

/// Starts both hosts, each with a route to the other. Each copies everything to its user archive; the first
/// one also to an alias.
fn start(settings: &str) -> [(Site, Daemon); 2] {
    let [first, second] = ["a", "b"].map(|name| {
        let site = host(name, settings);
        let daemon = site.start();
        (site, daemon)
    });
    for ((site, _), (other, to)) in [(&first, ("b", &second)), (&second, ("a", &first))] {
        site.write("routes", &format!("{other}.test smtp://{}\n", to.1.address()));
    }
    first.0.write("aliases", "away: Root@b.test\n");
    first.0.write("always_bcc", "* archive@b.test, away@a.test\n");
    second.0.write("always_bcc", "* archive@a.test\n");
    [first, second]
}

fn texts(site: &Site, daemon: &Daemon, user: &str, count: usize) -> Vec<String> {
    let mail = daemon.wait_mail(site, user, count);
    mail.into_iter().map(|text| String::from_utf8(text).expect("ASCII")).collect()
}

fn stranger(daemon: &Daemon) -> Client {
    Client::new(daemon.connect_from(Ipv4Addr::new(127, 0, 0, 9)))
}

/// Waits until both hosts are idle, and returns how many messages each has accepted.
fn accepted(hosts: &[(Site, Daemon); 2]) -> [usize; 2] {
    // What one host has sent, the other has accepted before the first one is idle.
    for _ in 0..2 {
        assert!(hosts.iter().all(|(site, daemon)| daemon.settles(site)));
    }
    [0, 1].map(|host| hosts[host].1.log().lines().filter(|line| line.contains(" accept ")).count())
}

#[test]
fn two_hosts_that_copy_all_mail_to_each_other_do_so_once() {
    let hosts = start("");
    let [(a, first), (b, second)] = &hosts;
    let text = |id: &str| format!("From: bob@far.test\r\nMessage-ID: <{id}@far.test>\r\n\r\nhello\r\n");
    stranger(first).send("bob@far.test", &["root@a.test"], &text("1"));
    for (site, daemon, user) in [(a, first, "root"), (a, first, "archive"), (b, second, "archive"), (b, second, "root")]
    {
        texts(site, daemon, user, 1);
    }
    first.wait_log(|line| line.contains(": it is a copy that this host has made"));
    // The message and the copy of its copy; the copies to two addresses are one message.
    assert_eq!(accepted(&hosts), [2, 1]);

    // A message of a local user, whose sender is not rewritten; the other host begins.
    stranger(second).send("root@b.test", &["jon@b.test"], &text("2"));
    second.wait_log(|line| line.contains(": it is a copy that this host has made"));
    assert_eq!(accepted(&hosts), [3, 3]);
    assert_eq!([a, b].map(|site| (site.mail("archive").len(), site.mail("root").len())), [(2, 1), (2, 2)]);
}

/// Only mail that leaves as a copy is marked. A mark counts for its message alone, and not in mail that
/// users submit.
#[test]
fn a_mark_cannot_be_forged_and_only_copies_have_one() {
    let hosts = start("");
    let [(a, first), (b, second)] = &hosts;
    let text =
        |id: &str, mark: &str| format!("{mark}From: bob@far.test\r\nMessage-ID: <{id}@far.test>\r\n\r\nhello\r\n");
    stranger(first).send("bob@far.test", &["root@a.test"], &text("1", ""));
    let copy = texts(b, second, "archive", 1).remove(0);
    let mark = copy.lines().find(|line| line.starts_with(MARK)).expect("a mark").to_owned() + "\r\n";
    assert!(!texts(a, first, "root", 1)[0].contains(MARK), "not a copy");
    assert_eq!(accepted(&hosts), [2, 1]);

    let copies = |site: &Site| site.mail("archive").len();
    let mut count = 1;
    for (id, mark, is_copied) in [
        ("1", &*mark, false),
        ("2", &*mark, true),
        ("1", "X-Penfold-Copied: AAAAAA=VT\r\nX-Penfold-Copied:\r\n", true),
        ("1", &format!("x-penfold-copied:\r\n{mark}"), false),
    ] {
        stranger(first).send("bob@far.test", &["root@a.test"], &text(id, mark));
        accepted(&hosts);
        count += usize::from(is_copied);
        assert_eq!(copies(b), count, "{id} {mark}");
    }
    // Users write the header themselves.
    let text = text("1", &mark).replace("\r\n", "\n");
    assert!(sendmail(a, &["root@a.test"], text.as_bytes()).status.success());
    accepted(&hosts);
    assert_eq!(copies(b), count + 1);
    // A message to another host that is no copy has no mark.
    let text = |id: &str| format!("Message-ID: <{id}@far.test>\r\n\r\nhello {id}\r\n");
    stranger(first).send("bob@far.test", &["jon@b.test"], &text("3"));
    assert!(!texts(b, second, "jon", 1)[0].contains(MARK));
    // Neither has any message of a host that makes no copies.
    a.write("always_bcc", "");
    let mut client = first.greeted();
    client.ask("MAIL FROM:<bob@far.test>", "250 ");
    client.ask("RCPT TO:<away@a.test> NOTIFY=NEVER", "250 ");
    client.ask("DATA", "354 ");
    client.ask(&format!("{}.", text("4")), "250 ");
    let is_it = |mail: &String| mail.contains("hello 4");
    second.wait_until("the message", || texts(b, second, "root", 1).iter().any(is_it));
    let last = texts(b, second, "root", 1).into_iter().find(is_it).expect("just seen");
    assert!(!last.contains(MARK), "{last}");
}

/// Without rewritten senders there are no marks, and a loop ends like any other.
#[test]
fn without_marks_the_copies_end_as_a_loop() {
    let hosts = start("remote.srs = false");
    let [(_, first), _] = &hosts;
    stranger(first).send("bob@far.test", &["root@a.test"], "Message-ID: <1@far.test>\r\n\r\nhello\r\n");
    let of_both = || hosts.iter().map(|(_, daemon)| daemon.log()).collect::<String>();
    first.wait_until("a loop", || of_both().contains("5.4.6"));
    let [a, b] = accepted(&hosts);
    assert_eq!(a + b, 100, "{a} {b}");
}

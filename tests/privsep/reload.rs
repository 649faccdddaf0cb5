//! Reloads of a confined server that add and remove a `[[domain]]`. The confinement is that of the start,
//! so the new files and mailboxes are in places that the server itself cannot reach.
//!
//! The server is confined only if root has started it; otherwise the test is reported as skipped.

use std::fs;
use std::path::Path;

use common::homes::messages;
use common::remote::{Remote, Sink};
use common::{Daemon, Site};
use nix::unistd::geteuid;

/// Puts the configuration of a site into force, and waits until the log ends the reload with this text.
fn reload(daemon: &Daemon, site: &Site, ends: &str) {
    let count = || daemon.log().lines().filter(|line| line.ends_with(ends)).count();
    let before = count();
    site.configure();
    daemon.hup();
    daemon.wait_until("a reload", || count() > before);
}

const READ: &str = "configuration and tables read again";
const KEPT: &str = "the configuration has errors: the old one stays in force";

/// Adds a `[[domain]]` new.test to the configuration of a site. Its users file is `people` in `place`, and its
/// mailboxes are below `place/var`.
fn add_domain(site: &mut Site, place: &Path) {
    let users = format!("\"file:{}/people\"", place.display());
    let mailbox = format!("\"{}/var/mail/{{user}}\"", place.display());
    for (key, value) in [("names", "[\"new.test\"]"), ("users", &users), ("mailbox", &mailbox)] {
        site.set("domain#1", key, value);
    }
}

#[test]
fn mail_for_a_domain_that_a_reload_adds_arrives_where_the_server_cannot_write() {
    if !geteuid().is_root() {
        return common::skipped("only a server that root has started is confined");
    }
    let (mut site, mut elsewhere) = (Site::new(), Site::new());
    site.make_root_owned();
    elsewhere.make_root_owned();
    let place = elsewhere.path("");
    fs::write(place.join("people"), "anna::\n").expect("a file of root's");
    let store = Remote::at_socket(&place.join("var/lmtp"), Sink::store());
    common::own(&place.join("var/lmtp"));
    let daemon = site.start();
    daemon.wait_words(&[" started"]);
    if daemon.log().contains("this kernel ") {
        return common::skipped("this kernel has no Landlock, or an older one");
    }
    // Before the reload the domain is another host's, which the name server does not know.
    let early = daemon.submit(&["anna@new.test"]);
    daemon.wait_words(&[&early, " deferred to=<anna@new.test> "]);
    add_domain(&mut site, &place);
    site.set("domain#2", "names", "[\"far.test\"]");
    site.set("domain#2", "users", "\"any\"");
    site.set("domain#2", "mailbox", &format!("\"lmtp:{}\"", place.join("var/lmtp").display()));
    reload(&daemon, &site, READ);
    let mailbox = place.join("var/mail/anna");
    let late = daemon.submit(&["anna@new.test", "jon@far.test"]);
    assert!(daemon.flush_until(&site, || site.spooled().is_empty()), "{}", daemon.log());
    assert_eq!(messages(&mailbox).len(), 2, "{}", daemon.log());
    for id in [early, late] {
        daemon.wait_words(&[&id, " sent to=<anna@new.test> via=maildir"]);
    }
    assert_eq!(store.messages(1)[0].recipients, ["<jon@far.test>"]);
    // The server opens tables itself. It cannot read one in a directory that was not named at its start.
    let aliases = place.join("aliases");
    fs::write(&aliases, "sales: anna\n").expect("a file of root's");
    site.set("domain#1", "aliases", &format!("{aliases:?}"));
    reload(&daemon, &site, KEPT);
    let line = daemon.wait_words(&["domain.aliases: ", &aliases.display().to_string(), "Permission denied: "]);
    assert!(line.ends_with(": restart penfoldd, which reads no directory that is new since its start"), "{line}");
    let mut client = daemon.client();
    client.ask("MAIL FROM:<jon@razorback.test>", "250 ");
    client.ask("RCPT TO:<sales@new.test>", "550 5.1.1");
    client.ask("RCPT TO:<anna@new.test>", "250 ");
    drop((client, daemon));
    let daemon = site.start();
    daemon.submit(&["sales@new.test"]);
    assert!(daemon.settles(&site), "{}", daemon.log());
    assert_eq!(messages(&mailbox).len(), 3, "{}", daemon.log());
}

/// Without the domain, its waiting mail is for another host. It waits for that host, or goes to it; and it
/// goes to the mailboxes if the domain comes back.
#[test]
fn no_mail_is_lost_with_a_domain_that_a_reload_removes() {
    let mut site = Site::new();
    site.configure();
    let without = fs::read_to_string(site.path("penfold.conf")).expect("just written");
    let place = site.path("new");
    fs::create_dir(&place).expect("a directory");
    fs::write(place.join("people"), "anna::\nbob::\n").expect("a users file");
    // No mailbox can be created below a file.
    let var = place.join("var");
    fs::write(&var, "").expect("a file");
    add_domain(&mut site, &place);
    site.write("aliases", "both: anna@new.test, bob@new.test\n");
    let daemon = site.start();
    let ids = ["anna@new.test", "bob@new.test", "both@razorback"].map(|to| daemon.submit(&[to]));
    let deferred = |id: &str, reason: &str| {
        daemon.log().lines().any(|line| line.starts_with(id) && line.contains(" deferred ") && line.contains(reason))
    };
    let all_wait = |reason: &str| {
        let all = daemon.flush_until(&site, || ids.iter().all(|id| deferred(id, reason)));
        assert!(all && site.spooled().len() == ids.len(), "{}", daemon.log());
    };
    all_wait("new/var");
    let without_domain = || {
        site.configure_with(&without);
        daemon.hup();
    };
    without_domain();
    all_wait("SERVFAIL");
    // The domain comes back, and its mailboxes can be created.
    fs::remove_file(&var).expect("it is there");
    fs::create_dir(&var).expect("a directory");
    common::own(&var);
    reload(&daemon, &site, READ);
    assert!(daemon.flush_until(&site, || site.spooled().is_empty()), "{}", daemon.log());
    let count = |user: &str| messages(&var.join("mail").join(user)).len();
    assert_eq!((count("anna"), count("bob")), (2, 2), "{}", daemon.log());
    // It leaves again, and now its mail has another host.
    fs::rename(&var, place.join("old")).expect("a rename");
    fs::write(&var, "").expect("a file");
    let id = daemon.submit(&["both@razorback"]);
    daemon.wait_until("an attempt", || deferred(&id, "new/var"));
    let remote = Remote::sink();
    site.add("routes", &format!("new.test {}", remote.host_port()));
    without_domain();
    assert!(daemon.flush_until(&site, || site.spooled().is_empty()), "{}", daemon.log());
    let mut recipients: Vec<_> = remote.take().into_iter().flat_map(|message| message.recipients).collect();
    recipients.sort_unstable();
    assert_eq!(recipients, ["<anna@new.test>", "<bob@new.test>"], "{}", daemon.log());
    assert!(!daemon.log().contains(" failed "), "{}", daemon.log());
}

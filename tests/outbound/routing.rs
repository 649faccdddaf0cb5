//! Routes of single addresses and of senders, fallback hosts, and mail that a route holds or
//! discards: with the daemon, its log, the queue and `penfoldctl explain`.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;

use common::client::{Client, TEXT};
use common::programs::{code_and_text, command, feed};
use common::remote::{Remote, Sink};
use common::{Daemon, Site, free_port};

fn ctl(site: &Site, arguments: &[&str]) -> String {
    let (code, text) = code_and_text(&feed(&mut command(site, "penfoldctl", arguments), b""));
    assert_eq!(code, 0, "{arguments:?}: {text}");
    text
}

/// Sends a message. Returns its queue id.
fn send(daemon: &Daemon, from: &str, mail: &str, to: &[&str]) -> String {
    let mut client = daemon.client();
    client.ask(&format!("MAIL FROM:<{from}>{mail}"), "250");
    to.iter().for_each(|to| drop(client.ask(&format!("RCPT TO:{to}"), "250")));
    client.ask("DATA", "354");
    let reply = client.ask("Subject: x\r\n\r\nhello\r\n.", "250 2.0.0 ");
    client.ask("QUIT", "221");
    reply.split(' ').nth(2).expect("a queue id").to_owned()
}

fn held(site: &Site) -> usize {
    fs::read_dir(site.path("spool/hold")).expect("a spool").count()
}

/// A smart host that this server must log in at, as one of three users.
fn smart_host() -> Sink {
    let mut sink = Sink::default().reply("AUTH PLAIN", "235 2.7.0 ok");
    sink.keywords.push("AUTH PLAIN".to_owned());
    sink
}

/// The user of the last login on a connection before a message.
fn login(remote: &Remote, connection: usize) -> String {
    let found = remote.look(|seen| {
        let auth = |c: &&common::remote::Command| c.connection == connection && c.line.starts_with("AUTH PLAIN ");
        seen.commands.iter().filter(auth).map(|c| c.line.clone()).collect::<Vec<_>>()
    });
    match found.as_slice() {
        [] => "nobody".to_owned(),
        // jon, all and any, each with the password hush.
        [only] if only.ends_with(" AGpvbgBodXNo") => "jon".to_owned(),
        [only] if only.ends_with(" AGFsbABodXNo") => "all".to_owned(),
        [only] if only.ends_with(" AGFueQBodXNo") => "any".to_owned(),
        more => format!("{more:?}"),
    }
}

#[test]
fn no_message_leaves_over_a_connection_with_the_login_of_another_sender() {
    let remote = Remote::with(smart_host());
    let mut site = Site::with("queue.workers = 1\nlocal.domains = [\"razorback.test\"]");
    site.set("remote", "smarthosts", &format!("[\"smtp://{}\"]", remote.address));
    site.set("remote", "credentials", &format!("{:?}", site.path("credentials")));
    site.write(
        "credentials",
        "127.0.0.1:any:hush\nJon@razorback.test 127.0.0.1:jon:hush\n@razorback.test 127.0.0.1:all:hush\n",
    );
    fs::set_permissions(site.path("credentials"), fs::Permissions::from_mode(0o600)).expect("a file of ours");
    site.add("aliases", "out: far@far.test");
    let daemon = site.start();
    // One worker, so that it would send everything over one connection if it could. The sender of
    // forwarded mail is rewritten to one of razorback.test.
    let senders = [
        ("jon@razorback.test", "far@x.test", "jon"),
        ("ann@razorback.test", "far@x.test", "all"),
        ("", "far@x.test", "any"),
        ("JON@razorback.test", "far@y.test", "jon"),
        ("bob@razorback.test", "far@y.test", "all"),
        ("bob@else.test", "far@y.test", "any"),
        ("bob@else.test", "out@razorback.test", "all"),
    ];
    for round in 0..3 {
        for (sender, to, _) in senders {
            send(&daemon, sender, "", &[&format!("<{to}>")]);
        }
        remote.messages(senders.len() * (round + 1));
    }
    let mut seen = 0;
    for message in remote.messages(3 * senders.len()) {
        let from = message.sender.split('>').next().unwrap_or_default().trim_start_matches('<').to_owned();
        let wanted = match senders.iter().find(|(sender, to, _)| *sender == from && !to.starts_with("out@")) {
            Some((_, _, login)) => *login,
            None if from.starts_with("SRS0=") => "all",
            None => panic!("{from}"),
        };
        assert_eq!(login(&remote, message.connection), wanted, "{from}");
        seen += 1;
    }
    assert_eq!(seen, 3 * senders.len());
    // Each login is a destination of its own, and explain names it.
    let address = remote.address;
    let explained = ctl(&site, &["explain", "--from", "jon@razorback.test", "far@x.test"]);
    assert!(explained.contains(&format!("far@x.test: host:{address},from=jon@razorback.test")), "{explained}");
    assert!(explained.contains("logs in as jon"), "{explained}");
    let explained = ctl(&site, &["explain", "--from", "x@else.test", "far@x.test"]);
    assert!(explained.contains("logs in as any"), "{explained}");
}

#[test]
fn the_sender_decides_which_smart_host_gets_the_mail() {
    let [ours, theirs, null] = [Remote::sink(), Remote::sink(), Remote::sink()];
    let mut site =
        Site::with("queue.retry_min = \"1s\"\nqueue.retry_max = \"1s\"\nlocal.domains = [\"razorback.test\"]");
    site.set("remote", "smarthosts", "[\"smtp://127.0.0.9:9\"]");
    site.write(
        "senders-via",
        &format!("@razorback.test {}\n@else.test {}\n<> {}\n", ours.host_port(), theirs.host_port(), null.host_port()),
    );
    let daemon = site.start();
    send(&daemon, "jon@razorback.test", "", &["<far@x.test>"]);
    send(&daemon, "bob@else.test", "", &["<far@x.test>"]);
    send(&daemon, "", "", &["<far@x.test>"]);
    assert!(ours.messages(1)[0].sender.starts_with("<jon@razorback.test>"));
    assert!(theirs.messages(1)[0].sender.starts_with("<bob@else.test>"));
    assert!(null.messages(1)[0].sender.starts_with("<>"));
    // Reports of this server have no sender.
    theirs.behave(common::remote::Conduct::Sink(Sink::default().reply("RCPT", "550 5.1.1 no")));
    send(&daemon, "bob@else.test", "", &["<gone@x.test>"]);
    let report = null.messages(2).pop().expect("a report");
    assert!(report.recipients[0].starts_with("<bob@else.test>"), "{:?}", report.recipients);
    let explained = ctl(&site, &["explain", "--no-dns", "--from", "jon@razorback.test", "far@x.test"]);
    assert!(explained.contains("senders-via:1"), "{explained}");
    // A changed table applies to queued mail, too.
    ours.behave(common::remote::Conduct::Sink(Sink::default().reply("RCPT", "450 4.7.1 not now")));
    let id = send(&daemon, "jon@razorback.test", "", &["<later@x.test>"]);
    daemon.wait_words(&[&id, "deferred to=<later@x.test>"]);
    site.write("senders-via", &format!("@razorback.test {}\n", theirs.host_port()));
    theirs.behave(common::remote::Conduct::Sink(Sink::default()));
    assert!(daemon.flush_until(&site, || theirs.look(|seen| seen.messages.len()) == 2));
    assert!(theirs.messages(2).pop().expect("it").recipients[0].starts_with("<later@x.test>"));
}

#[test]
fn a_route_for_an_address_takes_precedence_and_a_line_may_name_several_hosts() {
    let [domain, address] = [Remote::sink(), Remote::sink()];
    let closed = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let site = Site::new();
    site.add("routes", &format!("x.test {}\nann@x.test {closed}, {}", domain.host_port(), address.host_port()));
    site.add("routes", &format!("moved@razorback {}", address.host_port()));
    let daemon = site.start();
    send(&daemon, "jon@razorback", "", &["<bob@x.test>", "<Ann@x.test>", "<jon@razorback>", "<moved@razorback>"]);
    assert_eq!(domain.messages(1)[0].recipients, ["<bob@x.test>"]);
    let mut found: Vec<_> = address.messages(2).iter().flat_map(|m| m.recipients.clone()).collect();
    found.sort();
    assert_eq!(found, ["<Ann@x.test>", "<moved@razorback>"]);
    daemon.wait_mail(&site, "jon", 1);
    assert!(daemon.settles(&site));
    let explained = ctl(&site, &["explain", "--no-dns", "moved@razorback"]);
    assert!(explained.contains("routes:3"), "{explained}");
}

#[test]
fn a_destination_that_is_down_falls_back() {
    let fallback = Remote::sink();
    let mut site = Site::new();
    let closed = SocketAddr::from(([127, 0, 0, 1], free_port()));
    site.add("routes", &format!("x.test {closed}"));
    site.set("remote", "fallback", &format!("[\"smtp://{}\"]", fallback.address));
    let daemon = site.start();
    for number in 1..=3 {
        send(&daemon, "jon@razorback", "", &["<far@x.test>"]);
        fallback.messages(number);
    }
    daemon.wait_words(&["sent to=<far@x.test> via=smtp", &format!("host=[{}]", fallback.address.ip())]);
    assert!(daemon.settles(&site));
    let explained = ctl(&site, &["explain", "far@x.test"]);
    let (own, line) = (explained.find(&closed.port().to_string()), explained.find("the fallback hosts are tried"));
    let next = explained.find(&fallback.address.port().to_string());
    assert!(own < line && line < next, "{explained}");
    assert!(explained.contains("remote.fallback"), "{explained}");
}

#[test]
fn held_mail_shows_its_line_and_a_release_sends_it_on() {
    let remote = Remote::sink();
    let mut site = Site::new();
    site.set("remote", "smarthosts", &format!("[\"smtp://{}\"]", remote.address));
    site.write("routes", "# held\nx.test hold: they move house\n");
    let daemon = site.start();
    let line = format!("they move house (the route on {}:2 holds it)", site.path("routes").display());
    // All recipients are held: so is the message.
    let id = send(&daemon, "jon@razorback", "", &["<ann@x.test> NOTIFY=SUCCESS,FAILURE", "<bob@x.test>"]);
    daemon.wait_words(&[&id, "held reason=", &line]);
    assert_eq!(held(&site), 1);
    assert!(ctl(&site, &["queue"]).contains(&line));
    let explained = ctl(&site, &["explain", "--no-dns", "ann@x.test"]);
    assert!(
        explained.contains("accepted, and then held: they move house") && explained.contains("routes:2"),
        "{explained}"
    );
    ctl(&site, &["release", &id]);
    let message = remote.messages(1).remove(0);
    assert_eq!(message.recipients, ["<ann@x.test>", "<bob@x.test>"]);
    assert!(daemon.settles(&site));
    // The sender wanted a report about ann, and gets it when the message has gone.
    daemon.wait_mail(&site, "jon", 1);
    // One recipient is held, and the other is not.
    let id = send(&daemon, "jon@razorback", "", &["<ann@x.test>", "<far@y.test>"]);
    assert_eq!(remote.messages(2)[1].recipients, ["<far@y.test>"]);
    let log = daemon.wait_words(&[&id, "sent to=<ann@x.test> via=hold"]);
    let copy = log.split("held as ").nth(1).expect(&log).split(':').next().expect("an id").to_owned();
    daemon.wait_until("the rest is done", || held(&site) == 1 && site.spooled().len() == 1);
    let shown = ctl(&site, &["show", &copy]);
    assert!(shown.contains("<ann@x.test>") && shown.contains("they move house"), "{shown}");
    ctl(&site, &["release", &copy]);
    assert_eq!(remote.messages(3)[2].recipients, ["<ann@x.test>"]);
    assert!(daemon.settles(&site));
    // A line that comes later holds mail that waits; a held message can also be removed.
    remote.behave(common::remote::Conduct::Sink(Sink::default().reply("RCPT", "450 4.7.1 not now")));
    let id = send(&daemon, "jon@razorback", "", &["<far@z.test>"]);
    daemon.wait_words(&[&id, "deferred to=<far@z.test>"]);
    site.add("routes", "z.test hold:");
    assert!(daemon.flush_until(&site, || held(&site) == 1));
    let log = daemon.wait_words(&[&id, "sent to=<far@z.test> via=hold"]);
    let copy = log.split("held as ").nth(1).expect(&log).split(':').next().expect("an id").to_owned();
    daemon.wait_until("it is held", || held(&site) == 1 && site.spooled().len() == 1);
    ctl(&site, &["remove", &copy]);
    assert!(site.spooled().is_empty());
}

#[test]
fn a_smart_host_of_a_sender_that_is_this_host_is_a_loop() {
    let (port, other) = (free_port(), Remote::sink());
    let mut site = Site::with("local.domains = [\"razorback.test\"]");
    site.set("listen", "address", &format!("\"127.0.0.1:{port}\""));
    site.write("senders-via", &format!("@razorback.test 127.0.0.1:{port}\n"));
    site.set("remote", "smarthosts", &format!("[\"smtp://{}\"]", other.address));
    let daemon = site.start();
    let id = send(&daemon, "jon@razorback.test", "", &["<far@x.test>"]);
    daemon.wait_words(&[&id, "failed to=<far@x.test>", "dsn=5.4.6", "loops back to this host"]);
    daemon.wait_mail(&site, "jon", 1);
    assert_eq!(other.look(|seen| seen.connections), 0);
}

#[test]
fn a_copy_that_fails_is_reported_to_nobody_and_reports_are_not_copied() {
    let archive = Remote::with(Sink::default().reply("RCPT TO:<full", "552 5.2.2 full"));
    let site = Site::new();
    site.add("routes", &format!("archive.test {0}\ngone.test error:4.2.1 later", archive.host_port()));
    site.write("always_bcc", "* full@archive.test, all@archive.test\n");
    let daemon = site.start();
    let id = send(&daemon, "jon@razorback", "", &["<root@razorback> NOTIFY=SUCCESS"]);
    daemon.wait_words(&[&id, "failed to=<full@archive.test>"]);
    daemon.wait_words(&[" accept ", "bcc=<full@archive.test> bcc=<all@archive.test>"]);
    assert_eq!(archive.messages(1)[0].recipients, ["<all@archive.test>"]);
    // The report about the delivery to root is the only one, and no copy of it is made.
    let report = String::from_utf8(daemon.wait_mail(&site, "jon", 1).remove(0)).expect("ASCII");
    assert!(!report.contains("archive.test"), "{report}");
    assert!(daemon.settles(&site));
    assert_eq!((archive.messages(1).len(), site.mail("jon").len()), (1, 1));
}

/// Strangers choose their sender at will: it picks neither the host nor the login of a copy that leaves, and
/// it is rewritten as in forwarded mail.
#[test]
fn the_copy_of_a_strangers_message_leaves_without_the_host_and_the_login_of_its_sender() {
    let [smart, ours] = [Remote::with(smart_host()), Remote::with(smart_host())];
    let mut site = Site::with("relay.networks = [\"127.0.0.1/32\"]\nlocal.domains = [\"razorback.test\"]");
    site.set("remote", "smarthosts", &format!("[\"smtp://{}\"]", smart.address));
    site.set("remote", "credentials", &format!("{:?}", site.path("credentials")));
    site.write("credentials", "127.0.0.1:any:hush\nJon@razorback.test 127.0.0.1:jon:hush\n");
    fs::set_permissions(site.path("credentials"), fs::Permissions::from_mode(0o600)).expect("a file of ours");
    site.write("senders-via", &format!("jon@razorback.test {}\n", ours.host_port()));
    site.write("always_bcc", "* all@archive.test\n");
    let daemon = site.start();
    let stranger = |from: &str| {
        let mut client = Client::new(daemon.connect_from(Ipv4Addr::new(127, 0, 0, 9)));
        client.send(from, &["root@razorback.test"], TEXT);
    };
    for (number, from) in ["jon@razorback.test", "bob@far.test"].into_iter().enumerate() {
        stranger(from);
        let got = smart.messages(number + 1).remove(number);
        assert_eq!(
            (got.recipients.clone(), &*login(&smart, got.connection)),
            (vec!["<all@archive.test>".into()], "any")
        );
        let wanted = if from == "bob@far.test" { "<SRS0=" } else { "<jon@razorback.test>" };
        assert!(got.sender.starts_with(wanted), "{}", got.sender);
    }
    // A copy that is looked up anew stays one.
    site.write("routes", "archive.test error:4.2.1 later\n");
    stranger("bob@far.test");
    let line = daemon.wait_log(|line| line.contains(" deferred to=<all@archive.test>"));
    let id = line.split(' ').next().expect("an id");
    ctl(&site, &["requeue", id]);
    site.write("routes", "");
    daemon.flush_until(&site, || smart.look(|seen| seen.messages.len()) == 3);
    assert!(smart.messages(3)[2].sender.starts_with("<SRS0="), "{}", smart.messages(3)[2].sender);
    assert_eq!(ours.look(|seen| seen.connections), 0);
    // In mail that a client submits, the sender counts.
    send(&daemon, "jon@razorback.test", "", &["<root@razorback.test>"]);
    assert_eq!(ours.messages(1)[0].recipients, ["<all@archive.test>"]);
}

/// A message with as many final recipients as RCPT accepts gets its copies, too.
#[test]
fn a_message_with_the_most_final_recipients_is_copied() {
    const MEMBERS: usize = 9_999;
    let mut site = Site::new();
    let lists = penfold::smtp::MAX_FINAL_RECIPIENTS / MEMBERS;
    let list = |list: usize| {
        let members = (0..MEMBERS).map(|number| format!("m{list}x{number}@far.test"));
        format!("list{list}: {}\n", members.collect::<Vec<_>>().join(", "))
    };
    site.write("aliases", &(0..lists).map(list).collect::<String>());
    site.write("routes", "far.test hold:\n");
    site.write("always_bcc", "* list0@razorback, M0x1@far.test, all@far.test\n");
    site.set("limits", "recipients", "1000");
    let daemon = site.start();
    let lists = (0..lists).map(|list| format!("<list{list}@razorback>"));
    let rest = (0..penfold::smtp::MAX_FINAL_RECIPIENTS % MEMBERS).map(|number| format!("<{number}@far.test>"));
    let all: Vec<String> = lists.chain(rest).collect();
    let id = send(&daemon, "jon@razorback", "", &all.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(held(&site), 1);
    daemon.wait_words(&[&id, " accept ", "bcc=<all@far.test>"]);
    assert!(!daemon.log().contains("bcc=<list0") && !daemon.log().contains("bcc=<M0x1"), "they get it anyway");
}

#[test]
fn discarded_mail_is_accepted_and_gone_and_nobody_gets_a_report() {
    let remote = Remote::sink();
    let mut site = Site::new();
    site.set("remote", "smarthosts", &format!("[\"smtp://{}\"]", remote.address));
    site.write("routes", "junk.test discard:\nnobody@razorback discard: # a local address\n");
    let daemon = site.start();
    let to = ["<a@junk.test> NOTIFY=SUCCESS,FAILURE,DELAY", "<nobody@razorback> NOTIFY=SUCCESS", "<far@x.test>"];
    let id = send(&daemon, "jon@razorback", "", &to);
    let line = format!("the route on {}:1 discards it", site.path("routes").display());
    daemon.wait_words(&[&id, "discarded to=<a@junk.test> via=discard", &line]);
    daemon.wait_words(&[&id, "discarded to=<nobody@razorback> via=discard"]);
    assert_eq!(remote.messages(1)[0].recipients, ["<far@x.test>"]);
    assert!(daemon.settles(&site));
    assert!(site.mail("jon").is_empty(), "no report");
    assert!(ctl(&site, &["trace", &id]).contains("discarded for <a@junk.test>"));
    let explained = ctl(&site, &["explain", "--no-dns", "a@junk.test"]);
    assert!(explained.contains("removed without a report") && explained.contains("routes:1"), "{explained}");
}

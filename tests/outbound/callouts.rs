//! Questions to the next host at RCPT: which recipients it has, and what clients are told.
//!
//! The real daemon asks scripted hosts. What each odd reply means is tested in src/callout/answer.rs.

use std::net::SocketAddr;

use common::client::Client;
use common::dialog::Wire;
use common::programs::{code_and_text, command, feed, sendmail};
use common::remote::{Conduct, Remote, Sink, Then};
use common::{Daemon, Site, free_port};

/// A site that is a relay for relay.test, whose host has this address.
fn site(host: SocketAddr) -> Site {
    let site = Site::with(
        "relay.networks = []\nrelay.domains = [\"relay.test\"]\nrelay.verify = true\nremote.timeout = \"2s\"\n\
         queue.retry_min = \"1s\"\nqueue.retry_max = \"1s\"",
    );
    site.add("routes", &format!("relay.test {host}"));
    site
}

/// A host that has jon only, and never gets a message from the tests that do not send one.
pub fn host() -> Sink {
    Sink::default().reply("RCPT TO:<jon@", "250 2.1.5 ok").reply("RCPT", "550 5.1.1 No such user")
}

pub fn in_mail(daemon: &Daemon) -> Client {
    let mut client = daemon.greeted();
    client.ask("MAIL FROM:<anna@example.net>", "250 ");
    client
}

/// The commands of a host that begin with this text.
fn commands(remote: &Remote, begin: &str) -> Vec<String> {
    let lines = |seen: &common::remote::Seen| seen.commands.iter().map(|c| c.line.clone()).collect::<Vec<_>>();
    remote.look(lines).into_iter().filter(|line| line.starts_with(begin)).collect()
}

/// Waits until the question about the random recipient has an answer.
pub fn wait_random(daemon: &Daemon) -> String {
    daemon.wait_words(&[" asked to=<no-such-user-", " random=yes "])
}

#[test]
fn recipients_that_the_next_host_does_not_have_are_refused() {
    let remote = Remote::with(host());
    let site = site(remote.address);
    let daemon = site.start();
    let mut client = in_mail(&daemon);
    for _ in 0..2 {
        client.ask("RCPT TO:<jon@relay.test>", "250 2.1.5 ");
        client.ask("VRFY <ann@relay.test>", "252 ");
        client.ask("RCPT TO:<bob@relay.test>", "550 5.1.1 <bob@relay.test> User unknown");
        wait_random(&daemon);
        client.ask("VRFY <jon@relay.test>", "250 ");
        client.ask("VRFY <bob@relay.test>", "550 5.1.1 ");
    }
    // jon, a random recipient and bob: the answers are remembered.
    let asked = commands(&remote, "RCPT");
    assert_eq!(asked.len(), 3, "{asked:?}");
    assert!(commands(&remote, "MAIL").iter().all(|line| line == "MAIL FROM:<>"), "{:?}", commands(&remote, "MAIL"));
    assert!(commands(&remote, "DATA").is_empty());
    let dest = format!("dest=host:{} ", remote.address);
    daemon.wait_words(&[" asked to=<jon@relay.test> ", &dest, "result=accepted", "code=250 dsn=2.1.5"]);
    daemon.wait_words(&[" asked to=<bob@relay.test> ", &dest, "result=unknown", "code=550 dsn=5.1.1 said_to=RCPT"]);
    daemon.wait_words(&[" refused ", "RCPT TO:<bob@relay.test>", "reason=next-host key=relay.verify"]);
    client.ask("DATA", "354 ");
    client.ask("Subject: hello\r\n\r\nHow are you?\r\n.", "250 ");
    assert_eq!(remote.messages(1)[0].recipients, ["<jon@relay.test>"]);
}

#[test]
fn each_answer_is_told_as_it_is() {
    let rules = [
        ("full@", "552 5.2.2 Quota exceeded", "552 5.2.2 "),
        ("busy@", "452 4.2.2 Quota exceeded", "452 4.2.2 "),
        ("grey@", "451 4.7.1 Greylisted", "451 4.4.3 "),
        ("null@", "550 5.7.1 We dislike the null sender", "451 4.4.3 "),
        ("off@", "550 5.2.1 Disabled", "550 5.2.1 "),
    ];
    let sink =
        rules.iter().fold(Sink::default(), |sink, (name, reply, _)| sink.reply(&format!("RCPT TO:<{name}"), reply));
    let remote = Remote::with(sink);
    let site = site(remote.address);
    let daemon = site.start();
    let mut client = in_mail(&daemon);
    for _ in 0..2 {
        for (name, _, want) in rules {
            let reply = client.ask(&format!("RCPT TO:<{name}relay.test>"), want);
            assert!(!reply.contains("Quota") && !reply.contains("null sender"), "{reply}");
        }
    }
    assert_eq!(commands(&remote, "RCPT").len(), rules.len(), "each is remembered for a while");
}

#[test]
fn a_host_that_refuses_the_null_sender_says_nothing_about_recipients() {
    let remote = Remote::with(Sink::default().reply("MAIL FROM:<>", "550 5.1.8 no null sender here"));
    let site = site(remote.address);
    let daemon = site.start();
    let mut client = in_mail(&daemon);
    client.ask("RCPT TO:<jon@relay.test>", "451 4.4.3 ");
    daemon.wait_words(&[" asked to=<jon@relay.test> ", "result=no-answer", "said_to=MAIL"]);
    // It is left alone for a while.
    client.ask("RCPT TO:<bob@relay.test>", "451 4.4.3 ");
    assert_eq!(commands(&remote, "MAIL").len(), 1);
}

#[test]
fn a_host_that_accepts_a_random_recipient_is_asked_no_more() {
    let remote = Remote::sink();
    let site = site(remote.address);
    let daemon = site.start();
    let mut client = in_mail(&daemon);
    client.ask("RCPT TO:<jon@relay.test>", "250 ");
    let line = wait_random(&daemon);
    assert!(line.contains("result=accepted"), "{line}");
    (0..20).for_each(|n| drop(client.ask(&format!("RCPT TO:<user{n}@relay.test>"), "250 ")));
    assert_eq!(commands(&remote, "RCPT").len(), 2);
}

#[test]
fn what_the_host_has_accepted_holds_while_it_is_away_and_after_a_restart() {
    let remote = Remote::with(host());
    let site = site(remote.address);
    let daemon = site.start();
    in_mail(&daemon).ask("RCPT TO:<jon@relay.test>", "250 ");
    wait_random(&daemon);
    drop(remote);
    assert!(daemon.terminate().success());
    let daemon = site.start();
    let mut client = in_mail(&daemon);
    client.ask("RCPT TO:<jon@relay.test>", "250 ");
    client.ask("RCPT TO:<ann@relay.test>", "451 4.4.3 ");
    daemon.wait_words(&[" asked to=<ann@relay.test> ", "result=no-answer", "reason="]);
}

/// The host takes the connection and says nothing: the session waits no longer than the client will.
#[test]
fn a_host_that_hangs_costs_a_bounded_time() {
    let remote = Remote::with(Sink::default().when("RCPT", Then::Hang, usize::MAX));
    let mut site = site(remote.address);
    let daemon = site.start();
    let mut client = in_mail(&daemon);
    client.ask("RCPT TO:<jon@relay.test>", "451 4.4.3 ");
    daemon.wait_words(&[" asked to=<jon@relay.test> ", "timed out while waiting for the reply to RCPT"]);
    client.ask("RCPT TO:<bob@relay.test>", "451 4.4.3 ");
    // The host is not down for deliveries.
    remote.behave(Conduct::Sink(Sink::default()));
    site.set("relay", "verify", "false");
    site.configure();
    daemon.hup();
    daemon.wait_words(&["configuration"]);
    daemon.submit(&["jon@relay.test"]);
    remote.messages(1);
}

#[test]
fn clients_that_are_refused_otherwise_cause_no_question() {
    let remote = Remote::with(host());
    let mut site = site(remote.address);
    site.add("access", "client 127.0.0.1 reject 5.7.1 Go away");
    let daemon = site.start();
    in_mail(&daemon).ask("RCPT TO:<jon@relay.test>", "550 ");
    site.write("access", "");
    in_mail(&daemon).ask("RCPT TO:<jon%far.test@relay.test>", "550 5.7.1 ");
    assert_eq!(remote.look(|seen| seen.connections), 0);
    site.set("relay", "networks", "[\"127.0.0.0/8\"]");
    site.configure();
    daemon.hup();
    daemon.wait_words(&["configuration"]);
    // A trusted client gets a clear reply at once, too.
    in_mail(&daemon).ask("RCPT TO:<bob@relay.test>", "550 5.1.1 ");
}

#[test]
fn a_dictionary_attack_is_bounded_by_the_count_of_unknown_recipients() {
    let remote = Remote::with(host());
    let mut site = site(remote.address);
    site.set("policy", "unknown_recipients_per_hour", "3");
    let daemon = site.start();
    let mut client = in_mail(&daemon);
    (0..3).for_each(|n| drop(client.ask(&format!("RCPT TO:<user{n}@relay.test>"), "550 5.1.1 ")));
    client.ask("RCPT TO:<user3@relay.test>", "450 4.7.1 ");
    client.ask("RCPT TO:<jon@relay.test>", "450 4.7.1 ");
    assert_eq!(commands(&remote, "RCPT").len(), 3);
}

#[test]
fn the_full_address_is_asked_about_with_smtputf8_if_it_needs_that() {
    let mut sink = host().reply("RCPT TO:<jon+news@", "250 ok").reply("RCPT TO:<j\u{f6}n@", "250 ok");
    sink.rules.rotate_right(2);
    sink.keywords.push("SMTPUTF8".to_owned());
    let remote = Remote::with(sink);
    let site = site(remote.address);
    let daemon = site.start();
    let mut client = daemon.greeted();
    client.ask("MAIL FROM:<anna@example.net> SMTPUTF8", "250 ");
    client.ask("RCPT TO:<jon+news@relay.test>", "250 ");
    client.ask("RCPT TO:<jon+other@relay.test>", "550 5.1.1 ");
    client.ask("RCPT TO:<j\u{f6}n@relay.test>", "250 ");
    client.ask("RCPT TO:<b\u{f6}b@relay.test>", "550 5.1.1 ");
    let mails = commands(&remote, "MAIL");
    assert_eq!(mails.iter().filter(|line| line.ends_with(" SMTPUTF8")).count(), 2, "{mails:?}");
    // Without the extension, the message would bounce.
    remote.behave(Conduct::Sink(Sink::default()));
    client.ask("RCPT TO:<\u{e4}nne@relay.test>", "550 5.6.7 ");
}

#[test]
fn the_next_of_several_hosts_is_asked_if_the_first_does_not_answer() {
    let remote = Remote::with(host());
    let dead = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut site = site(remote.address);
    site.write("routes", "");
    site.set("remote", "smarthosts", &format!("[\"smtp://{dead}\", \"smtp://{}\"]", remote.address));
    let daemon = site.start();
    let mut client = in_mail(&daemon);
    client.ask("RCPT TO:<jon@relay.test>", "250 ");
    client.ask("RCPT TO:<bob@relay.test>", "550 5.1.1 ");
    assert!(commands(&remote, "MAIL").len() >= 2);
}

#[test]
fn a_table_of_recipients_refuses_what_it_does_not_contain() {
    let mut site = Site::with("relay.networks = []\nrelay.domains = [\"relay.test\", \"all.test\"]");
    site.write("relay", "# ours\njon@relay.test\n@all.test\n");
    site.set("relay", "recipients", &format!("{:?}", site.path("relay")));
    let daemon = site.start();
    let mut client = in_mail(&daemon);
    client.ask("RCPT TO:<Jon@relay.test>", "250 ");
    client.ask("RCPT TO:<jon+news@relay.test>", "250 ");
    client.ask("RCPT TO:<anybody@all.test>", "250 ");
    client.ask("RCPT TO:<bob@relay.test>", "550 5.1.1 <bob@relay.test> User unknown");
    daemon.wait_words(&[" refused ", "RCPT TO:<bob@relay.test>", "reason=unknown-user key=relay.recipients"]);
    client.ask("VRFY <bob@relay.test>", "550 5.1.1 ");
    client.ask("VRFY <jon@relay.test>", "250 ");
    // A change applies at once, and a bad edit changes nothing.
    site.write("relay", "bob@relay.test\n");
    client.ask("RCPT TO:<bob@relay.test>", "250 ");
    client.ask("RCPT TO:<jon@relay.test>", "550 5.1.1 ");
    site.write("relay", "jon@relay.test\nann@relay.test OK\n");
    client.ask("RCPT TO:<jon@relay.test>", "550 5.1.1 ");
    daemon.wait_words(&["relay:2:16: expected one address on a line; the old table stays in force"]);
}

/// The next host is another penfold, with its own rules about strangers.
#[test]
fn another_penfold_says_which_users_it_has() {
    let other = Site::with("local.domains = [\"relay.test\"]\nrelay.networks = []\npolicy.greylist = \"all\"");
    let next = other.start();
    let site = site(next.address());
    let daemon = site.start();
    let mut client = in_mail(&daemon);
    client.ask("RCPT TO:<bob@relay.test>", "550 5.1.1 ");
    // A greylist there is no clear answer.
    client.ask("RCPT TO:<jon@relay.test>", "451 4.4.3 ");
    let count = |log: &str| log.lines().filter(|line| line.contains(" asked to=<jon@")).count();
    client.ask("RCPT TO:<jon@relay.test>", "451 4.4.3 ");
    assert_eq!(count(&daemon.log()), 1);
}

/// A relay that is asked by LMTP is a mail store.
#[test]
fn a_mail_store_is_asked_by_lmtp() {
    let sink = Sink::store().reply("RCPT TO:<jon@", "250 2.1.5 ok").reply("RCPT TO:<full@", "552 5.2.2 full");
    let store = Remote::with(sink.reply("RCPT", "550 5.1.1 unknown"));
    let site = site(store.address);
    site.write("routes", &format!("relay.test lmtp://{}", store.address));
    let daemon = site.start();
    let mut client = in_mail(&daemon);
    client.ask("RCPT TO:<jon@relay.test>", "250 ");
    client.ask("RCPT TO:<bob@relay.test>", "550 5.1.1 ");
    client.ask("RCPT TO:<full@relay.test>", "552 5.2.2 ");
    assert!(commands(&store, "LHLO").len() >= 3);
}

/// `explain` and `sendmail -bv` tell what is remembered, and ask nobody.
#[test]
fn explanations_agree_with_rcpt_and_ask_nobody() {
    let remote = Remote::with(host());
    let mut site = site(remote.address);
    site.set("", "socket", &format!("{:?}", site.path("sock")));
    site.write("relay", "jon@relay.test\nbob@relay.test\n");
    site.set("relay", "recipients", &format!("{:?}", site.path("relay")));
    let daemon = site.start();
    let explain =
        |to: &str| code_and_text(&feed(&mut command(&site, "penfoldctl", &["explain", "--no-dns", to]), b"")).1;
    let verify = |to: &str| code_and_text(&sendmail(&site, &["-bv", to], b""));
    let text = explain("jon@relay.test");
    assert!(text.contains("would be asked whether it accepts jon@relay.test; its answer is not known"), "{text}");
    assert_eq!(remote.look(|seen| seen.connections), 0);
    let mut client = in_mail(&daemon);
    client.ask("RCPT TO:<jon@relay.test>", "250 ");
    client.ask("RCPT TO:<bob@relay.test>", "550 5.1.1 ");
    client.ask("RCPT TO:<ann@relay.test>", "550 5.1.1 ");
    wait_random(&daemon);
    let connections = remote.look(|seen| seen.connections);
    let text = explain("jon@relay.test");
    assert!(text.contains(" accepted jon@relay.test ") && !text.contains("550"), "{text}");
    for (to, words) in [("bob@relay.test", " did not know bob@relay.test "), ("ann@relay.test", "relay.recipients")] {
        let text = explain(to);
        assert!(text.contains(words) && text.contains("550 5.1.1"), "{text}");
        let (code, text) = verify(to);
        assert!(code == 67 && text.contains("user unknown"), "{code} {text}");
    }
    assert_eq!(verify("jon@relay.test").0, 0);
    // All of that can be listed, and forgotten.
    let list = |words: &[&str]| {
        let words = [&["recipients"], words].concat();
        let (code, text) = code_and_text(&feed(&mut command(&site, "penfoldctl", &words), b""));
        // The ages, of a second or more on a busy machine, are not compared.
        let lines = text.lines().map(|line| line.split_once(", ").map_or(line, |(front, _)| front));
        (code, lines.map(|line| format!("{line}\n")).collect::<String>())
    };
    let name = format!("host:{}", remote.address);
    let lines = [
        format!("@relay.test: unknown recipients are refused by {name}\n"),
        format!("bob@relay.test: unknown by {name}\n"),
        format!("jon@relay.test: accepted by {name}\n"),
    ];
    assert_eq!(list(&[]), (0, lines.concat()));
    assert_eq!(list(&["ann@relay.test"]).0, 69);
    ["jon@relay.test", "Jon@relay.test"].iter().for_each(|to| assert_eq!(list(&[to]), (0, lines[2].clone())));
    let (_, json) = list(&["--json", "bob@relay.test"]);
    assert!(json.starts_with("{\"recipient\":\"bob@relay.test\",\"answer\":\"unknown\",\"destination\""), "{json}");
    assert_eq!(list(&["--forget"]).0, 64);
    assert_eq!(list(&["--forget", "bob@relay.test"]), (0, String::new()));
    assert_eq!(list(&["--forget", "@relay.test"]), (0, String::new()));
    assert_eq!(list(&["--forget", "@relay.test"]).0, 69);
    assert_eq!(list(&[]), (0, String::new()));
    assert_eq!(remote.look(|seen| seen.connections), connections);
}

/// The users of a local domain are those that its store has.
#[test]
fn a_store_says_at_rcpt_which_users_it_has() {
    let rules = [
        ("jon@any.test", "250 2.1.5 ok"),
        ("jon+news@any.test", "250 2.1.5 ok"),
        ("full@any.test", "552 5.2.2 Quota exceeded"),
        ("busy@any.test", "452 4.2.2 Quota exceeded"),
        ("", "550 5.1.1 User doesn't exist"),
    ];
    let sink = rules.iter().fold(Sink::store(), |sink, (to, reply)| sink.reply(&format!("RCPT TO:<{to}"), reply));
    let store = Remote::with(sink);
    let mut site = Site::with("relay.networks = []\nqueue.retry_min = \"1s\"\nqueue.retry_max = \"1s\"");
    site.set("domain#1", "names", "[\"any.test\"]");
    site.set("domain#1", "users", "\"any\"");
    site.set("domain#1", "mailbox", &format!("\"lmtp://{}\"", store.address));
    let daemon = site.start();
    let mut client = in_mail(&daemon);
    client.ask("RCPT TO:<jon@any.test>", "250 ");
    wait_random(&daemon);
    client.ask("RCPT TO:<jon+news@any.test>", "250 ");
    client.ask("RCPT TO:<bob@any.test>", "550 5.1.1 <bob@any.test> User unknown");
    client.ask("RCPT TO:<full@any.test>", "552 5.2.2 ");
    client.ask("RCPT TO:<busy@any.test>", "452 4.2.2 ");
    // The postmaster is accepted whatever the store has.
    client.ask("RCPT TO:<postmaster@any.test>", "250 ");
    client.ask("VRFY <jon@any.test>", "250 ");
    client.ask("VRFY <bob@any.test>", "550 5.1.1 ");
    client.ask("VRFY <ann@any.test>", "252 ");
    daemon.wait_words(&[" refused ", "RCPT TO:<bob@any.test>", "reason=next-host key=domain.users"]);
    client.ask("DATA", "354 ");
    client.ask("Subject: hello\r\n\r\nHow are you?\r\n.", "250 ");
    let recipients: Vec<_> = store.messages(2).into_iter().flat_map(|message| message.recipients).collect();
    assert_eq!(recipients, ["<jon@any.test>", "<jon+news@any.test>"]);
    // While the store is away, those that it has accepted are accepted, and others wait.
    drop(store);
    let mut client = in_mail(&daemon);
    client.ask("RCPT TO:<jon@any.test>", "250 ");
    client.ask("RCPT TO:<ann@any.test>", "451 4.4.3 ");
    // The other local domains are as before.
    client.ask("RCPT TO:<jon@razorback.test>", "250 ");
    client.ask("RCPT TO:<bob@razorback.test>", "550 5.1.1 ");
}

/// The stop of the daemon does not wait for a host that hangs.
#[test]
fn a_daemon_that_stops_waits_for_no_host() {
    let remote = Remote::with(Sink::default().when("EHLO", Then::Hang, usize::MAX));
    let mut site = site(remote.address);
    site.set("remote", "timeout", "\"1m\"");
    let daemon = site.start();
    let mut wire = Wire::new(daemon.connect(), false);
    for line in ["", "HELO client.test", "MAIL FROM:<anna@example.net>"] {
        let reply = if line.is_empty() { wire.read_line().map(Option::unwrap_or_default) } else { wire.ask(line) };
        assert!(reply.as_ref().is_ok_and(|reply| reply.starts_with('2')), "{line}: {reply:?}");
    }
    wire.send(b"RCPT TO:<jon@relay.test>\r\n").expect("a connection");
    remote.wait("the question", |seen| seen.connections == 1);
    let begun = std::time::Instant::now();
    assert!(daemon.terminate().success());
    assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
}

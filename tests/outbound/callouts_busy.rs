//! Questions to the next host at RCPT while hosts are busy or slow.
//!
//! The real daemon asks scripted hosts. How call-outs share their places is tested beside the code, in
//! src/callout.

use std::time::{Duration, Instant};

use crate::callouts::{host, in_mail, wait_random};
use common::client::Client;
use common::remote::{Conduct, Remote, Sink, Then};
use common::{Daemon, Site};

/// A site that is a relay for one domain at each of these hosts: r0.test, r1.test and so on.
fn site(settings: &str, hosts: &[&Remote]) -> Site {
    let names: Vec<_> = (0..hosts.len()).map(|n| format!("r{n}.test")).collect();
    let site = Site::with(&format!(
        "relay.networks = []\nrelay.domains = {names:?}\nrelay.verify = true\nlimits.connections = 400\n\
         limits.connections_per_host = 400\n{settings}"
    ));
    let routes = names.iter().zip(hosts).map(|(name, host)| format!("{name} {}\n", host.address));
    site.write("routes", &routes.collect::<String>());
    site
}

/// Sends a message for jon, and waits until its delivery is under way.
fn begin_delivery(daemon: &Daemon, client: &mut Client, remote: &Remote) {
    client.ask("RCPT TO:<jon@r0.test>", "250 ");
    wait_random(daemon);
    client.ask("DATA", "354 ");
    client.ask("Subject: hello\r\n\r\nHow are you?\r\n.", "250 ");
    remote.wait("the message", |seen| seen.commands.iter().any(|command| command.line == "DATA"));
}

/// The limits of connections are for mail: questions neither count nor wait for them.
#[test]
fn deliveries_at_their_limit_do_not_keep_questions_out() {
    for (settings, table) in [("", "127.0.0.1 connections=1\n"), ("queue.workers_per_destination = 1", "")] {
        let remote = Remote::with(host().when("BODY", Then::Hang, 1));
        let mut site = site(settings, &[&remote]);
        site.write("outgoing", table);
        let path = format!("{:?}", site.path("outgoing"));
        site.set("remote", "outgoing", &path);
        let daemon = site.start();
        let mut client = in_mail(&daemon);
        begin_delivery(&daemon, &mut client, &remote);
        let begun = Instant::now();
        client.ask("MAIL FROM:<anna@example.net>", "250 ");
        for n in 0..3 {
            client.ask(&format!("RCPT TO:<user{n}@r0.test>"), "550 5.1.1 ");
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "{settings} {table}: {:?}", begun.elapsed());
    }
}

/// The host accepts one connection. A question waits until the delivery has ended.
#[test]
fn a_host_that_accepts_no_further_connection_is_asked_again() {
    let slow = || host().when("DATA", Then::Pause(Duration::from_secs(4)), 1);
    let remote = Remote::with(slow());
    let site = site("", &[&remote]);
    let daemon = site.start();
    let mut client = in_mail(&daemon);
    begin_delivery(&daemon, &mut client, &remote);
    let full = slow().when("CONNECT", Then::ReplyAndClose("421 4.7.0 Too many connections".to_owned()), 1);
    remote.behave(Conduct::Sink(full));
    client.ask("MAIL FROM:<anna@example.net>", "250 ");
    client.ask("RCPT TO:<bob@r0.test>", "550 5.1.1 ");
    // Nothing is noted about the host, which was never down.
    client.ask("RCPT TO:<ann@r0.test>", "550 5.1.1 ");
    assert!(!daemon.log().contains("result=no-answer"), "{}", daemon.log());
}

/// Eight hosts that take 8 seconds for each reply have as many questions as there may be. A ninth host
/// answers at once, and each question to a slow host ends in time.
#[test]
fn slow_hosts_do_not_keep_others_from_being_asked() {
    let stages = ["CONNECT", "EHLO", "MAIL", "RCPT"];
    let slow = || {
        let pause = Then::Pause(Duration::from_secs(8));
        stages.iter().fold(Sink::default(), |sink, at| sink.when(at, pause.clone(), usize::MAX))
    };
    let slow: Vec<_> = (0..8).map(|_| Remote::with(slow())).collect();
    let healthy = Remote::with(host());
    let site = site("", &slow.iter().chain([&healthy]).collect::<Vec<_>>());
    let daemon = site.start();
    let begun = Instant::now();
    let clients = (0..slow.len()).flat_map(|to| (0..4).map(move |n| (to, n)));
    let waiting: Vec<Client> = clients
        .map(|(to, n)| {
            let mut client = in_mail(&daemon);
            client.send_text(&format!("RCPT TO:<user{n}@r{to}.test>\r\n"));
            client
        })
        .collect();
    slow.iter().for_each(|remote| remote.wait("all questions", |seen| seen.connections == 4));
    let asked = Instant::now();
    let mut client = in_mail(&daemon);
    client.ask("RCPT TO:<jon@r8.test>", "250 ");
    client.ask("RCPT TO:<bob@r8.test>", "550 5.1.1 ");
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    std::thread::sleep(Duration::from_secs(5));
    for mut client in waiting {
        client.expect("451 4.4.3 ");
    }
    daemon.wait_words(&[" asked to=<user0@r0.test> ", "result=no-answer", "timed out while waiting for the reply to"]);
    assert!(begun.elapsed() < Duration::from_secs(26), "{:?}", begun.elapsed());
    client.ask("RCPT TO:<ann@r8.test>", "550 5.1.1 ");
}

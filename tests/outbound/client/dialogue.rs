//! What is recorded of a dialogue: the hosts, the commands and the replies, and never the message or
//! AUTH.

use super::*;
use common::remote::Offer;

/// The lines of the last dialogue, with the port of this host's address replaced.
fn lines(sender: &Sender) -> Vec<String> {
    let dialogue = sender.dialogue.as_ref().expect("a dialogue");
    let line = |line: &penfold::dialogue::Line| {
        let about = dialogue.recipient_of(line).map(|to| format!("[{to}] ")).unwrap_or_default();
        let port = line.text.rsplit_once("]:").filter(|_| line.kind.word() == "host");
        let text = port.map_or_else(|| line.text.clone(), |(host, _)| format!("{host}]:PORT"));
        format!("{about}{}{text}", line.kind.mark())
    };
    dialogue.lines.iter().map(line).collect()
}

#[test]
fn a_dialogue_has_each_reply_after_its_command() {
    let sink = Sink { keywords: keywords(&["PIPELINING"]), ..Sink::default() };
    let remote = Remote::with(sink.reply("RCPT TO:<bob", "550-5.1.1 no bob\n550 5.1.1 here"));
    let mut sender = Sender::new();
    let to = host(remote.address);
    sender.send_to(&to, &["ann@example.test", "bob@example.test"]);
    let seen = lines(&sender);
    let wanted = [
        "-> MAIL FROM:<jon@razorback.test>",
        "<- 250 2.1.0 sender ok",
        "[ann@example.test] -> RCPT TO:<ann@example.test>",
        "[ann@example.test] <- 250 2.1.5 recipient ok",
        "[bob@example.test] -> RCPT TO:<bob@example.test>",
        "[bob@example.test] <- 550-5.1.1 no bob",
        "[bob@example.test] <- 550 5.1.1 here",
        "-> DATA",
    ];
    let start = seen.iter().position(|line| line == wanted[0]).unwrap_or_else(|| panic!("{seen:#?}"));
    assert_eq!(seen[0], "[127.0.0.1]:PORT");
    assert_eq!(seen[start..start + wanted.len()], wanted, "{seen:#?}");
    assert!(seen.contains(&"-> the message, and a dot".to_owned()), "{seen:#?}");
    assert!(!seen.concat().contains("hello\n") && !seen.concat().contains("Subject"), "{seen:#?}");
    // The next message goes over the same connection, and its dialogue begins anew.
    sender.send_to(&to, &["bob@example.test"]);
    let seen = lines(&sender);
    assert!(seen[1].contains("still open") && !seen.concat().contains("ann@"), "{seen:#?}");
    // Nothing is kept of a success.
    sender.send_to(&to, &["ann@example.test"]);
    assert_eq!(sender.dialogue, None);
}

#[test]
fn a_store_replies_about_each_recipient() {
    for (reply, last) in [("552 5.2.2 full", "250 2.0.0 <cyd@example.test> has it"), ("421 4.3.2 going down", "")] {
        let remote = Remote::with(Sink::store().reply(". <bob", reply));
        let mut sender = Sender::new();
        let to = ["ann@example.test", "bob@example.test", "cyd@example.test"];
        sender.send_to(&store(&format!("//{}", remote.address)), &to);
        let seen = lines(&sender);
        let end = seen.iter().position(|line| line.contains("and a dot")).expect("a message");
        let mut wanted = vec!["[ann@example.test] <- 250 2.0.0 <ann@example.test> has it".to_owned()];
        wanted.push(format!("[bob@example.test] <- {reply}"));
        wanted.extend((!last.is_empty()).then(|| format!("[cyd@example.test] <- {last}")));
        assert_eq!(seen[end + 1..], wanted, "{seen:#?}");
    }
}

#[test]
fn errors_and_further_hosts_are_recorded() {
    let hanging = Remote::with(Sink::default().when("EHLO", Then::Hang, usize::MAX));
    let closing = Remote::with(Sink::default().when("MAIL", Then::Close, usize::MAX));
    let mut sender = Sender::new();
    sender.send_to(&hosts(&[hanging.address, closing.address]), &["ann@example.test"]);
    let seen = lines(&sender);
    for wanted in [
        "-> EHLO razorback.test",
        "timed out while waiting for the reply to EHLO",
        "-> MAIL FROM:<jon@razorback.test> SIZE=21",
        "the connection was closed while waiting for the reply to MAIL",
    ] {
        assert!(seen.iter().any(|line| line == wanted), "{wanted}: {seen:#?}");
    }
    assert_eq!(seen.iter().filter(|line| line.ends_with("]:PORT")).count(), 2, "{seen:#?}");
    let nowhere = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    sender.send_to(&host(nowhere), &["ann@example.test"]);
    assert!(lines(&sender).concat().contains("connecting: Connection refused"), "{:#?}", lines(&sender));
}

#[test]
fn nothing_of_auth_is_recorded() {
    let keywords = || keywords(&["AUTH PLAIN"]);
    for (at, reply) in [
        ("AUTH", "535 5.7.8 wrong: hushhush AGpvbgBodXNoaHVzaA=="),
        ("AUTH", "235 2.7.0 welcome, hushhush"),
        ("AUTH", "334 aHVzaGh1c2g="),
    ] {
        let remote =
            Remote::with(Sink { keywords: keywords(), ..Sink::default() }.reply(at, reply).reply("RCPT", "450 later"));
        let mut sender = Sender::new();
        sender.know("127.0.0.1:jon:hushhush\n");
        let outcome = sender.send_one(&host(remote.address));
        assert!(remote.look(|seen| seen.commands.iter().any(|c| c.line.starts_with("AUTH PLAIN"))));
        assert_ne!(outcome.fate, Delivered);
        let seen = lines(&sender).join("\n");
        let is_secret = |part: &&str| seen.contains(*part);
        assert_eq!(["hush", "AGpv", "aHVz", "535", "235", "334"].iter().find(|part| is_secret(part)), None, "{seen}");
        assert!(seen.contains("AUTH, which is not shown"), "{seen}");
    }
}

#[test]
fn tls_is_recorded() {
    let authority = Authority::new();
    let leaf = authority.leaf("127.0.0.1", 300);
    let remote = Remote::with(Sink { tls: Some(Offer::starttls(&leaf)), ..Sink::default() }.reply("RCPT", "450 later"));
    let mut sender = Sender::new();
    sender.send_one(&host(remote.address));
    let seen = lines(&sender);
    let start = seen.iter().position(|line| line == "-> STARTTLS").expect("STARTTLS");
    assert!(seen[start + 1].starts_with("<- 220 "), "{seen:#?}");
    assert!(seen[start + 2].starts_with("TLS1.3 TLS_"), "{seen:#?}");
    assert_eq!(seen[start + 3], "-> EHLO razorback.test");
}

//! Reports that senders ask for, or forbid, and reports about delays (RFC 3461).
//!
//! The options of the sender are passed on to a host that has DSN. For a host that has not, and for
//! mailboxes of this host, the reports are made here.

use common::client::{Client, TEXT};
use common::programs::{code_and_text, python, sendmail};
use common::remote::{Conduct, Received, Remote, Sink};
use common::{Daemon, Site};

/// A host with DSN and MT-PRIORITY, which refuses `gone` and defers `slow`.
fn host_with_dsn() -> Remote {
    let mut sink = rules(Sink::default());
    sink.keywords.extend(["DSN".to_owned(), "MT-PRIORITY".to_owned()]);
    Remote::with(sink)
}

fn rules(sink: Sink) -> Sink {
    sink.reply("RCPT TO:<gone", "550 5.1.1 no such user here").reply("RCPT TO:<slow", "451 4.7.1 not now")
}

fn greeted(daemon: &Daemon) -> Client {
    let mut client = Client::before_banner(daemon.connect());
    client.expect("220 ");
    assert!(client.ehlo().contains(&"DSN".to_owned()));
    client
}

/// Sends a message. The parameters follow the addresses.
fn send(daemon: &Daemon, sender: &str, recipients: &[&str]) -> String {
    let mut client = greeted(daemon);
    client.ask(&format!("MAIL FROM:{sender}"), "250 ");
    recipients.iter().for_each(|recipient| _ = client.ask(&format!("RCPT TO:{recipient}"), "250 "));
    client.ask("DATA", "354 ");
    let reply = client.ask(&format!("{TEXT}."), "250 2.0.0 ");
    reply.split(' ').nth(2).expect("a queue id").to_owned()
}

/// The commands that began a message, as the host got them, with SIZE cut off.
fn envelope(message: &Received) -> Vec<String> {
    let without_size =
        |text: &String| text.split(' ').filter(|word| !word.starts_with("SIZE=")).collect::<Vec<_>>().join(" ");
    std::iter::once(&message.sender).chain(&message.recipients).map(without_size).collect()
}

/// The only report in a mailbox, which is emptied, after the queue is empty. Python parses it.
fn only_report(daemon: &Daemon, site: &Site, user: &str) -> String {
    assert!(daemon.settles(site), "{:?}\n{}", site.spooled(), daemon.log());
    let mail = take_mail(site, user);
    assert_eq!(
        mail.len(),
        1,
        "{}\n{:?}",
        daemon.log(),
        mail.iter().map(|m| String::from_utf8_lossy(m)).collect::<Vec<_>>()
    );
    if let Some(output) = python("queue/report_reads.py", &mail[0]) {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    String::from_utf8(mail[0].clone()).expect("ASCII")
}

/// Waits for a message that has come to a host, and forgets it.
fn one(remote: &Remote) -> Received {
    remote.messages(1);
    remote.take().remove(0)
}

/// Empties a mailbox.
fn take_mail(site: &Site, user: &str) -> Vec<Vec<u8>> {
    let mail = site.mail(user);
    for directory in ["new", "cur"] {
        let Ok(files) = std::fs::read_dir(site.mailbox(user).join(directory)) else { continue };
        files.flatten().for_each(|file| std::fs::remove_file(file.path()).expect("a file"));
    }
    mail
}

fn has(text: &str, wanted: &[&str]) {
    wanted.iter().for_each(|part| assert!(text.contains(part), "no {part:?} in:\n{text}"));
}

#[test]
fn the_options_go_to_a_host_with_dsn_and_reports_are_made_for_others() {
    let (with, without) = (host_with_dsn(), Remote::with(rules(Sink::default())));
    let site = Site::with("");
    site.add("routes", &format!("dsn.test {}", with.host_port()));
    site.add("routes", &format!("plain.test {}", without.host_port()));
    site.add(
        "aliases",
        "solo: s@dsn.test\ncrew: c@dsn.test, root\nclub: m@dsn.test, n@dsn.test\nowner-club: root\nj\u{f6}n: jon",
    );
    site.add("virtual", "both@razorback v@dsn.test, root@razorback");
    let daemon = site.start();
    let jon = "<jon@razorback>";

    // A host with DSN reports the success itself.
    let options = "<a@dsn.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;old+2Ba@x.test";
    send(&daemon, &format!("{jon} RET=HDRS ENVID=QQ+2B314"), &[options]);
    let message = one(&with);
    assert_eq!(envelope(&message), [&format!("{jon} RET=HDRS ENVID=QQ+2B314"), options]);
    // An alias with one recipient keeps all options.
    send(&daemon, &format!("{jon} ENVID=x"), &["<solo@razorback> NOTIFY=SUCCESS ORCPT=rfc822;solo@x.test"]);
    let wanted = [&*format!("{jon} ENVID=x"), "<s@dsn.test> NOTIFY=SUCCESS ORCPT=rfc822;solo@x.test"];
    assert_eq!(envelope(&one(&with)), wanted);
    assert!(daemon.settles(&site) && site.mail("jon").is_empty(), "{}", daemon.log());

    // Without ORCPT, the host learns the address that the client gave (RFC 3461 5.2.1).
    send(&daemon, jon, &["<solo@razorback>", "<a+b@dsn.test> NOTIFY=NEVER"]);
    let wanted =
        ["<s@dsn.test> ORCPT=rfc822;solo@razorback", "<a+b@dsn.test> NOTIFY=NEVER ORCPT=rfc822;a+2Bb@dsn.test"];
    assert_eq!(envelope(&one(&with))[1..], wanted);

    // A host without DSN gets no options, and the sender gets a report.
    send(&daemon, &format!("{jon} RET=FULL ENVID=r"), &["<b@plain.test> NOTIFY=SUCCESS", "<c@plain.test>"]);
    assert_eq!(envelope(&one(&without)), [jon, "<b@plain.test>", "<c@plain.test>"]);
    let text = only_report(&daemon, &site, "jon");
    has(&text, &["Original-Envelope-Id: r\n", "Final-Recipient: rfc822; b@plain.test\nAction: relayed\nStatus: 2."]);
    has(&text, &["Subject: Delivered mail: hello\n", "Content-Type: text/rfc822-headers\n"]);
    assert!(!text.contains("c@plain.test"), "{text}");

    // Two mailboxes of this host, one of which is given twice.
    send(
        &daemon,
        jon,
        &["<root@razorback>", "<root@razorback> NOTIFY=SUCCESS ORCPT=rfc822;r@x.test", "<jon@razorback>"],
    );
    assert!(daemon.settles(&site));
    let mut mail = take_mail(&site, "jon");
    mail.retain(|mail| mail.starts_with(b"Return-Path: <>\n"));
    let text = String::from_utf8(mail.remove(0)).expect("ASCII");
    has(&text, &["Final-Recipient: rfc822; root@razorback\nAction: delivered\nStatus: 2.0.0\n"]);
    assert!(mail.is_empty() && !text.contains("Final-Recipient: rfc822; jon@"), "{text}");
    assert_eq!(take_mail(&site, "root").len(), 1);

    // Several addresses replace one: they get the options without SUCCESS.
    for alias in ["crew", "both"] {
        send(&daemon, jon, &[&format!("<{alias}@razorback> NOTIFY=SUCCESS,FAILURE")]);
        let message = one(&with);
        let options = format!("@dsn.test> NOTIFY=FAILURE ORCPT=rfc822;{alias}@razorback");
        assert!(envelope(&message)[1].ends_with(&options), "{:?}", message.recipients);
        let text = only_report(&daemon, &site, "jon");
        has(&text, &[&format!("Final-Recipient: rfc822; {alias}@razorback\nAction: expanded\n")]);
        assert_eq!(text.matches("Final-Recipient").count(), 1);
        assert_eq!(take_mail(&site, "root").len(), 1);
    }
    // The members of a list with an owner get a new envelope, without the deadline, which would make
    // the list bounce at a host without DELIVERBY.
    send(
        &daemon,
        &format!("{jon} RET=FULL ENVID=l BY=9999;R MT-PRIORITY=5"),
        &["<club@razorback> NOTIFY=SUCCESS ORCPT=rfc822;c@x.test"],
    );
    let wanted = ["<owner-club@razorback>", "<m@dsn.test>", "<n@dsn.test>"];
    assert_eq!(envelope(&one(&with)), wanted);
    let text = only_report(&daemon, &site, "jon");
    has(&text, &["Original-Recipient: rfc822; c@x.test\nFinal-Recipient: rfc822; club@razorback\nAction: delivered\n"]);

    // Failures: the whole message, the header, and no report.
    for (mail, rcpt, expected) in [
        (" RET=FULL", " NOTIFY=FAILURE", "Content-Type: message/rfc822\n"),
        (" RET=HDRS", "", "Content-Type: text/rfc822-headers\n"),
        ("", " NOTIFY=SUCCESS,FAILURE", "Content-Type: text/rfc822-headers\n"),
    ] {
        send(&daemon, &format!("{jon}{mail}"), &[&format!("<gone@plain.test>{rcpt}")]);
        let text = only_report(&daemon, &site, "jon");
        has(&text, &[expected, "Action: failed\n"]);
        assert_eq!(text.contains("How are you?"), mail == " RET=FULL", "{text}");
    }
    let bounced = daemon.log().matches(" bounced ").count();
    for (sender, rcpt) in [(jon, " NOTIFY=NEVER"), (jon, " NOTIFY=SUCCESS,DELAY"), ("<>", " NOTIFY=NEVER")] {
        let id = send(&daemon, sender, &[&format!("<gone@plain.test>{rcpt}")]);
        daemon.wait_words(&[&id, " dropped reason=\"the sender wants no report about failures\""]);
    }
    // A message without a sender causes no report about a success.
    send(&daemon, "<>", &["<root@razorback> NOTIFY=SUCCESS", "<b@plain.test> NOTIFY=SUCCESS"]);
    assert!(daemon.settles(&site));
    assert_eq!(daemon.log().matches(" bounced ").count(), bounced);
    assert!(site.mail("jon").is_empty());

    // A report to an address outside ASCII, about a message with SMTPUTF8.
    send(&daemon, "<j\u{f6}n@razorback> SMTPUTF8", &["<gone@plain.test>"]);
    assert!(daemon.settles(&site));
    let report = String::from_utf8(take_mail(&site, "jon").remove(0)).expect("UTF-8");
    has(&report, &["\nTo: j\u{f6}n@razorback\n", "\nContent-Type: message/global-delivery-status\n"]);
    has(&report, &["\nContent-Type: message/global-headers\n", "X-Penfold-Sender: utf-8; j=C3=B6n@razorback\n"]);

    // sendmail(8) asks for the same.
    let arguments = ["-f", "jon@razorback", "-N", "success,delay", "-R", "full", "-V", "a b", "a@dsn.test"];
    let output = sendmail(&site, &arguments, TEXT.as_bytes());
    assert_eq!(code_and_text(&output), (0, String::new()));
    let wanted = [
        "<jon@razorback> BODY=8BITMIME RET=FULL ENVID=a+20b",
        "<a@dsn.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a@dsn.test",
    ];
    with.wait("the message of sendmail", |seen| seen.messages.iter().any(|message| message.sender.contains("a+20b")));
    let message = with.take().pop().expect("a message");
    assert_eq!(
        envelope(&message).join(" ").replace(" BODY=8BITMIME", ""),
        wanted.join(" ").replace(" BODY=8BITMIME", "")
    );
}

#[test]
fn a_delay_is_reported_once_though_the_daemon_is_killed() {
    let remote = Remote::with(rules(Sink::default()));
    let site = Site::with("queue.retry_min = \"1s\"\nqueue.retry_max = \"1s\"\nqueue.warn_after = \"1s\"");
    site.add("routes", &format!("plain.test {}", remote.host_port()));
    let mut daemon = site.start();
    let jon = "<jon@razorback>";
    send(&daemon, &format!("{jon} ENVID=d"), &["<slow@plain.test>", "<slow2@plain.test> NOTIFY=DELAY"]);
    send(&daemon, jon, &["<slow3@plain.test> NOTIFY=FAILURE"]);
    send(&daemon, jon, &["<slow4@plain.test> NOTIFY=NEVER"]);
    send(&daemon, "<>", &["<slow5@plain.test>"]);
    for _ in 0..3 {
        daemon.wait_words(&[" deferred to=<slow5@plain.test>"]);
        daemon.kill9();
        daemon = site.start();
    }
    daemon.wait_mail(&site, "jon", 1);
    // Two more attempts for each recipient make no further report.
    let count = || daemon.log().matches(" deferred to=<slow@plain.test>").count();
    let before = count();
    daemon.wait_until("two attempts", || count() >= before + 2);
    remote.behave(Conduct::Sink(Sink::default()));
    let text = only_report(&daemon, &site, "jon");
    has(&text, &["Subject: Delayed mail: hello\n", "Original-Envelope-Id: d\n", "Will-Retry-Until: "]);
    for to in ["slow", "slow2"] {
        has(&text, &[&format!("Final-Recipient: rfc822; {to}@plain.test\nAction: delayed\nStatus: 4.7.1\n")]);
    }
    assert_eq!(text.matches("Final-Recipient").count(), 2);
    let messages = remote.take();
    assert_eq!(messages.iter().map(|message| message.recipients.len()).sum::<usize>(), 5);
}

//! Mail stores that take mail by LMTP (RFC 2033): each recipient has the outcome that the reply
//! about this recipient says.

use std::os::unix::net::UnixListener;

use super::*;

const THREE: [&str; 3] = ["ann@example.test", "bob@example.test", "cyd@example.test"];

/// A store that breaks in some way, and the fate, the status and the reason for each of three
/// recipients.
type Row = (&'static str, Then, [(Fate, &'static str, &'static str); 3]);

fn close() -> Then {
    Then::Close
}

const TWICE: &str = "waiting for the reply to the end of the message; the message may arrive twice";
const TAKEN: (Fate, &str, &str) = (Delivered, "2.0.0", "has it");

fn rows() -> Vec<Row> {
    let all = |outcome| [outcome; 3];
    let said = |words: &'static str| (Deferred, "4.0.0", words);
    let lost = (Deferred, "4.4.2", TWICE);
    vec![
        // Nothing is known to have arrived before the final dot.
        ("CONNECT", reply("421 4.3.2 full"), all((Deferred, "4.3.2", "the connection: 421 4.3.2 full"))),
        ("CONNECT", close(), all((Deferred, "4.4.2", "closed while waiting for the greeting"))),
        ("LHLO", reply("500 5.5.1 what?"), all((Deferred, "4.5.1", "LHLO: 500 5.5.1 what?"))),
        ("LHLO", reply("451 later"), all(said("LHLO: 451 later"))),
        ("LHLO", close(), all((Deferred, "4.4.2", "closed while waiting for the reply to LHLO"))),
        ("LHLO", Then::Hang, all((Deferred, "4.4.2", "timed out while waiting for the reply to LHLO"))),
        ("MAIL", reply("550 5.7.1 no"), all((Failed, "5.7.1", "MAIL: 550 5.7.1 no"))),
        ("RCPT TO:<bob", reply("552 5.2.2 full"), [TAKEN, (Failed, "5.2.2", "RCPT: 552 5.2.2 full"), TAKEN]),
        ("RCPT TO:<bob", reply("452 4.2.2 full"), [TAKEN, (Deferred, "4.2.2", "RCPT: 452 4.2.2 full"), TAKEN]),
        ("RCPT TO:<bob", close(), all((Deferred, "4.4.2", "closed while waiting for the reply to RCPT"))),
        ("DATA", reply("452 4.3.1 no room"), all((Deferred, "4.3.1", "DATA: 452 4.3.1 no room"))),
        ("DATA", close(), all((Deferred, "4.4.2", "closed while waiting for the reply to DATA"))),
        ("BODY", close(), all((Deferred, "4.4.2", TWICE))),
        // After the dot, each recipient has a reply.
        (
            ". <bob",
            reply("552 5.2.2 quota exceeded"),
            [TAKEN, (Failed, "5.2.2", "the end of the message: 552 5.2.2 quota exceeded"), TAKEN],
        ),
        (". <cyd", reply("451 4.3.0 later"), [TAKEN, TAKEN, (Deferred, "4.3.0", "message: 451 4.3.0 later")]),
        (". <ann", reply("550 no"), [(Failed, "5.0.0", "message: 550 no"), TAKEN, TAKEN]),
        // What has no reply is tried again.
        (". <ann", close(), all(lost)),
        (". <bob", close(), [TAKEN, lost, lost]),
        (". <bob", Then::Reset, [TAKEN, lost, lost]),
        (". <bob", Then::Hang, [TAKEN, lost, lost]),
        (
            ". <bob",
            reply("421 4.3.2 going down"),
            [TAKEN, (Deferred, "4.3.2", "421 4.3.2 going down"), (Deferred, "4.3.2", "421 4.3.2 going down")],
        ),
        (". <bob", reply("354 go on"), [TAKEN, said("message: 354 go on"), said("message: 354 go on")]),
        (". <bob", reply("250-yes\n550 no"), [TAKEN, said("250-yes 550 no"), said("250-yes 550 no")]),
        (
            ". <bob",
            reply("once upon a time"),
            [
                TAKEN,
                (Deferred, "4.4.2", "once upon a time; the message may arrive twice"),
                (Deferred, "4.4.2", "once upon a time; the message may arrive twice"),
            ],
        ),
        // Too many replies: the first three count.
        (". <cyd", reply("250 2.0.0 cyd has it\n550 5.1.1 who?"), all(TAKEN)),
    ]
}

#[test]
fn each_recipient_has_the_outcome_that_its_reply_says() {
    for (at, then, wanted) in rows() {
        for offered in [&["PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES"][..], &[]] {
            let sink = Sink { keywords: keywords(offered), ..Sink::store() };
            let remote = Remote::with(sink.when(at, then.clone(), usize::MAX));
            let outcomes = Sender::new().send_to(&store(&format!("//{}", remote.address)), &THREE);
            for (outcome, (fate, status, words)) in outcomes.iter().zip(wanted) {
                let about = format!("{at} {then:?} {offered:?}: {outcome:#?}");
                assert_eq!(shown(outcome), (fate, status.to_owned()), "{about}");
                assert!(outcome.why.ends_with(words), "{about}");
                assert_eq!(*outcome.host, format!("[127.0.0.1]:{}", remote.address.port()));
            }
            let taken = remote.look(|seen| seen.messages.iter().map(|m| m.recipients.concat()).collect::<Vec<_>>());
            for (recipient, outcome) in THREE.iter().zip(&outcomes) {
                // The store has the message of every recipient who counts as delivered.
                assert!(outcome.fate != Delivered || taken.iter().any(|to| to.contains(recipient)), "{at}: {taken:?}");
            }
            let verbs = remote.look(|seen| seen.commands.iter().filter(|c| c.line.contains("HELO")).count());
            assert_eq!(verbs, 0, "LMTP has neither EHLO nor HELO");
        }
    }
}

/// A host that speaks only SMTP gets no mail, even if it takes LHLO for EHLO.
#[test]
fn a_host_that_speaks_smtp_is_no_store() {
    let remote = Remote::sink();
    let outcomes = Sender::new().send_to(&store(&format!("//{}", remote.address)), &THREE);
    assert!(outcomes.iter().all(|outcome| shown(outcome) == (Deferred, "4.5.1".to_owned())), "{outcomes:?}");
    assert!(outcomes[0].why.ends_with("LHLO: 500 5.5.1 unknown command"), "{outcomes:?}");
    let remote = Remote::with(Sink::default().reply("LHLO", "250 whatever you say"));
    let outcomes = Sender::new().send_to(&store(&format!("//{}", remote.address)), &THREE);
    assert_eq!(outcomes.iter().map(|outcome| outcome.fate).collect::<Vec<_>>(), [Delivered, Deferred, Deferred]);
    assert!(outcomes[1].why.ends_with(TWICE), "{outcomes:?}");
}

/// If the store accepts DATA although it has rejected all recipients, it gets no message.
#[test]
fn data_without_a_recipient_ends_the_connection() {
    let sink = Sink::store().reply("RCPT", "550 5.1.1 who?").reply("DATA", "354 go on");
    let remote = Remote::with(sink);
    let (mut sender, to) = (Sender::new(), store(&format!("//{}", remote.address)));
    for connections in [1, 2] {
        let outcomes = sender.send_to(&to, &THREE);
        assert!(outcomes.iter().all(|outcome| shown(outcome) == (Failed, "5.1.1".to_owned())), "{outcomes:?}");
        assert_eq!(remote.look(|seen| (seen.connections, seen.messages.len())), (connections, 0));
    }
}

/// A connection is kept for the next message, unless it is not certain which reply belongs to which
/// command.
#[test]
fn connections_are_kept_except_after_stray_replies() {
    for (sink, connections) in [
        (Sink::store(), 1),
        (Sink::store().reply(". <cyd", "552 5.2.2 full"), 1),
        (Sink::store().reply("RCPT", "550 no"), 1),
        (Sink::store().reply(". <cyd", "250 ok\n250 one more"), 3),
        (Sink::store().reply(". <ann", "354 go on"), 3),
        (Sink::store().when(". <cyd", Then::ReplyAndClose("250 ok".into()), usize::MAX), 3),
    ] {
        let remote = Remote::with(sink);
        let (mut sender, to) = (Sender::new(), store(&format!("//{}", remote.address)));
        for _ in 0..3 {
            sender.send_to(&to, &THREE);
        }
        assert_eq!(remote.look(|seen| seen.connections), connections);
    }
}

/// The commands carry what the store offers, and a store that accepts no more recipients gets the
/// others in further transactions.
#[test]
fn extensions_are_used_as_offered() {
    for (offered, word, parameters) in [
        (&["SIZE 1000000", "8BITMIME", "PIPELINING"][..], "\u{e9}\u{e9}\u{e9}", " SIZE=25 BODY=8BITMIME"),
        (&[], "eee", ""),
    ] {
        let sink = Sink { keywords: keywords(offered), ..Sink::store() };
        let sink = sink.when("RCPT TO:<cyd", reply("452 4.5.3 too many"), 1);
        let remote = Remote::with(sink);
        let mut sender = Sender::new();
        (sender.text, sender.body) = (format!("Subject: x\n\n.{word}\n\n").into(), Body::EightBit);
        let outcomes = sender.send_to(&store(&format!("//{}", remote.address)), &THREE);
        assert!(outcomes.iter().all(|outcome| outcome.fate == Delivered), "{outcomes:?}");
        let messages = remote.messages(3);
        let text = format!("Subject: x\r\n\r\n.{word}\r\n\r\n");
        assert!(messages.iter().all(|message| message.data == text.as_bytes()), "{messages:?}");
        assert_eq!(messages[0].sender, format!("<jon@razorback.test>{parameters}"));
        assert_eq!(remote.look(|seen| seen.connections), 1);
    }
    let sink = Sink { keywords: keywords(&["SIZE 10"]), ..Sink::store() };
    let remote = Remote::with(sink);
    let outcome = Sender::new().send_one(&store(&format!("//{}", remote.address)));
    assert_eq!(shown(&outcome), (Failed, "5.3.4".to_owned()));
}

/// A store without SMTPUTF8 gets the sender and the header in UTF-8 without the parameter. Only a
/// recipient outside ASCII fails.
#[test]
fn a_store_without_smtputf8_gets_utf8() {
    let utf8 = "Subject: gr\u{fc}n\n\nhello\n";
    for (offered, sender, recipient, mail, status) in [
        ("8BITMIME", "ann@b\u{fc}cher.example", "jon", "<ann@xn--bcher-kva.example> BODY=8BITMIME", "2.0.0"),
        ("8BITMIME", "\u{e4}nn@x.test", "jon", "<\u{e4}nn@x.test> BODY=8BITMIME", "2.0.0"),
        ("8BITMIME", "\u{e4}nn@x.test", "j\u{f6}n", "", "5.6.7"),
        ("PIPELINING", "\u{e4}nn@x.test", "jon", "<\u{e4}nn@x.test>", "2.0.0"),
        ("8BITMIME SMTPUTF8", "\u{e4}nn@x.test", "j\u{f6}n", "<\u{e4}nn@x.test> BODY=8BITMIME SMTPUTF8", "2.0.0"),
    ] {
        let remote =
            Remote::with(Sink { keywords: keywords(&offered.split(' ').collect::<Vec<_>>()), ..Sink::store() });
        let mut client = Sender { text: utf8.into(), utf8: true, sender: sender.to_owned(), ..Sender::new() };
        let to = store(&format!("//{}", remote.address));
        let found = client.send_to(&to, &[&format!("{recipient}@x.test"), "jack@x.test"]);
        assert_eq!(found[0].status.to_string(), status, "{offered} {sender} {recipient}: {found:?}");
        assert_eq!(found[1].fate, Delivered, "{found:?}");
        let messages = remote.look(|seen| seen.messages.clone());
        // A store without 8BITMIME gets encoded words.
        let text =
            if offered == "PIPELINING" { utf8.replace("gr\u{fc}n", "=?utf-8?B?Z3LDvG4=?=") } else { utf8.to_owned() };
        assert!(messages.iter().all(|m| m.data == text.replace('\n', "\r\n").as_bytes()), "{messages:?}");
        assert!(messages.iter().all(|m| mail.is_empty() || m.sender == mail), "{messages:?}");
    }
}

#[test]
fn a_socket_that_is_missing_or_stale_defers() {
    let directory = std::env::temp_dir().join(format!("penfold-lmtp-{}", std::process::id()));
    fs::create_dir(&directory).expect("a scratch directory");
    let at = |name: &str| directory.join(name);
    let place = |name: &str| store(&at(name).display().to_string());
    drop(UnixListener::bind(at("stale")).expect("a socket"));
    fs::write(at("file"), "").expect("a file");
    for (name, words) in [
        ("missing", "connecting: No such file or directory"),
        ("stale", "connecting: Connection refused"),
        ("file", "connecting: Connection refused"),
    ] {
        let outcome = Sender::new().send_one(&place(name));
        assert_eq!(shown(&outcome), (Deferred, "4.4.1".to_owned()), "{outcome:?}");
        assert!(outcome.why.starts_with(words), "{outcome:?}");
        assert_eq!(*outcome.host, at(name).display().to_string());
    }
    let remote = Remote::at_socket(&at("lmtp"), Sink::store().reply(". <bob", "550 5.7.1 no"));
    let outcomes = Sender::new().send_to(&place("lmtp"), &THREE);
    assert_eq!(outcomes.iter().map(|outcome| outcome.fate).collect::<Vec<_>>(), [Delivered, Failed, Delivered]);
    assert_eq!(remote.look(|seen| seen.commands[0].line.clone()), "LHLO razorback.test");
    drop(remote);
    fs::remove_dir_all(&directory).expect("a scratch directory");
}

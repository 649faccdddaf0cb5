//! Replies and failures at each stage of an SMTP session, and what becomes of the message.

use super::*;

#[test]
fn every_stage_has_its_own_failure() {
    let closes = || Then::Close;
    let nonsense = || reply("once upon a time");
    for (at, then, fate, status, words) in [
        ("CONNECT", Then::Hang, Deferred, "4.4.2", "timed out while waiting for the greeting"),
        ("CONNECT", closes(), Deferred, "4.4.2", "the connection was closed while waiting for the greeting"),
        ("CONNECT", reply("554 5.7.1 on a list"), Deferred, "4.7.1", "the connection: 554 5.7.1 on a list"),
        ("CONNECT", reply("421 4.3.2 full"), Deferred, "4.3.2", "the connection: 421 4.3.2 full"),
        ("CONNECT", nonsense(), Deferred, "4.4.2", "waiting for the greeting: malformed SMTP reply: once upon a time"),
        ("EHLO", Then::Hang, Deferred, "4.4.2", "timed out while waiting for the reply to EHLO"),
        ("EHLO", closes(), Deferred, "4.4.2", "the connection was closed while waiting for the reply to EHLO"),
        ("EHLO", reply("451 later"), Deferred, "4.0.0", "EHLO: 451 later"),
        ("MAIL", Then::Hang, Deferred, "4.4.2", "timed out while waiting for the reply to MAIL"),
        ("MAIL", closes(), Deferred, "4.4.2", "the connection was closed while waiting for the reply to MAIL"),
        ("MAIL", reply("451 4.7.1 later"), Deferred, "4.7.1", "MAIL: 451 4.7.1 later"),
        ("MAIL", reply("550 5.7.1 never"), Failed, "5.7.1", "MAIL: 550 5.7.1 never"),
        ("MAIL", reply("421 bye"), Deferred, "4.0.0", "MAIL: 421 bye"),
        ("MAIL", reply("354 what?"), Deferred, "4.0.0", "MAIL: 354 what?"),
        ("RCPT", Then::Hang, Deferred, "4.4.2", "timed out while waiting for the reply to RCPT"),
        ("RCPT", closes(), Deferred, "4.4.2", "the connection was closed while waiting for the reply to RCPT"),
        ("RCPT", reply("450 4.2.1 later"), Deferred, "4.2.1", "RCPT: 450 4.2.1 later"),
        ("RCPT", reply("452 4.5.3 too many"), Deferred, "4.5.3", "RCPT: 452 4.5.3 too many"),
        ("RCPT", reply("552 too many"), Failed, "5.0.0", "RCPT: 552 too many"),
        ("RCPT", reply("550 5.1.1 who?"), Failed, "5.1.1", "RCPT: 550 5.1.1 who?"),
        ("RCPT", reply("421 bye"), Deferred, "4.0.0", "RCPT: 421 bye"),
        ("DATA", Then::Hang, Deferred, "4.4.2", "timed out while waiting for the reply to DATA"),
        ("DATA", closes(), Deferred, "4.4.2", "the connection was closed while waiting for the reply to DATA"),
        ("DATA", reply("451 later"), Deferred, "4.0.0", "DATA: 451 later"),
        ("DATA", reply("554 5.6.0 never"), Failed, "5.6.0", "DATA: 554 5.6.0 never"),
        ("DATA", reply("250 yes?"), Deferred, "4.5.0", "DATA: 250 yes?"),
        (
            "DATA",
            nonsense(),
            Deferred,
            "4.4.2",
            "waiting for the reply to DATA: malformed SMTP reply: once upon a time",
        ),
        (
            ".",
            Then::Hang,
            Deferred,
            "4.4.2",
            "timed out while waiting for the reply to the end of the message; the message may arrive twice",
        ),
        (
            ".",
            closes(),
            Deferred,
            "4.4.2",
            "closed while waiting for the reply to the end of the message; the message may arrive twice",
        ),
        (".", nonsense(), Deferred, "4.4.2", "malformed SMTP reply: once upon a time; the message may arrive twice"),
        (".", reply("451 4.3.0 later"), Deferred, "4.3.0", "the end of the message: 451 4.3.0 later"),
        (".", reply("554 5.7.1 spam"), Failed, "5.7.1", "the end of the message: 554 5.7.1 spam"),
        (".", reply("421 bye"), Deferred, "4.0.0", "the end of the message: 421 bye"),
        (".", reply("250 2.6.0 queued as 9X"), Delivered, "2.6.0", "the end of the message: 250 2.6.0 queued as 9X"),
    ] {
        for offered in [&["PIPELINING", "SIZE 1000000"][..], &[]] {
            let mut sink = Sink { keywords: keywords(offered), ..Sink::default() }.when(at, then.clone(), usize::MAX);
            if at == "EHLO" {
                sink = sink.when("HELO", then.clone(), usize::MAX);
            }
            let remote = Remote::with(sink);
            let outcome = Sender::new().send_one(&host(remote.address));
            let about = format!("{at} {then:?} {offered:?}: {outcome:?}");
            assert_eq!(shown(&outcome), (fate, status.to_owned()), "{about}");
            assert!(outcome.why.ends_with(words), "{about}");
            assert_eq!(*outcome.host, format!("[127.0.0.1]:{}", remote.address.port()));
            assert_eq!(
                outcome.reply.is_some(),
                !outcome.why.contains("while") && !outcome.why.contains("waiting"),
                "{about}"
            );
            assert_eq!(outcome.why.contains("twice"), at == "." && outcome.reply.is_none(), "{about}");
        }
    }
}

/// The client interprets an odd reply if its meaning is unambiguous, and always quotes it.
#[test]
fn odd_replies_are_interpreted() {
    let long = "x".repeat(60_000);
    for (server_text, fate, status, words) in [
        ("550 5.1.1 no\n", Failed, "5.1.1", "RCPT: 550 5.1.1 no"),
        ("550-5.1.1 no\n550 5.1.1 never\n", Failed, "5.1.1", "RCPT: 550 5.1.1 no never"),
        ("550-no\r\n554 5.7.1 spam\r\n", Failed, "5.7.1", "RCPT: 550-no 554 5.7.1 spam"),
        ("550\r\n", Failed, "5.0.0", "RCPT: 550"),
        ("550-\r\n550 \r\n", Failed, "5.0.0", "RCPT: 550"),
        ("550User unknown\r\n", Failed, "5.0.0", "RCPT: 550 User unknown"),
        ("550 2.1.5 ok?\r\n", Failed, "5.0.0", "RCPT: 550 2.1.5 ok?"),
        ("550 4.7.1 later?\r\n", Failed, "5.0.0", "RCPT: 550 4.7.1 later?"),
        ("450 5.1.1 never?\r\n", Deferred, "4.0.0", "RCPT: 450 5.1.1 never?"),
        ("550 Empf\u{e4}nger\r\n", Failed, "5.0.0", "RCPT: 550 Empf\u{e4}nger"),
        ("550 a\rb\0c\r\n", Failed, "5.0.0", "RCPT: 550 a?b?c"),
        ("550-no\r\nwords without a code\r\n550 end\r\n", Failed, "5.0.0", "550 no words without a code end"),
        ("\r\n550 after an empty line\r\n", Failed, "5.0.0", "RCPT: 550 after an empty line"),
        ("250-ok\r\n550 no\r\n", Deferred, "4.0.0", "RCPT: 250-ok 550 no"),
        ("451-later\r\n550 no\r\n", Deferred, "4.0.0", "RCPT: 451-later 550 no"),
        ("354-go\r\n250 ok\r\n", Deferred, "4.0.0", "RCPT: 354-go 250 ok"),
        ("150 wait\r\n", Deferred, "4.0.0", "RCPT: 150 wait"),
        ("050 x\r\n", Deferred, "4.0.0", "RCPT: 050 x"),
        ("650 x\r\n", Deferred, "4.0.0", "RCPT: 650 x"),
        ("5500 x\r\n", Deferred, "4.4.2", "waiting for the reply to RCPT: malformed SMTP reply: 5500 x"),
        ("250ok\n", Delivered, "2.0.0", "250 2.0.0 taken"),
        ("250-ok\r\n251 will forward\r\n", Delivered, "2.0.0", "250 2.0.0 taken"),
        (&format!("250 {long}\r\n"), Delivered, "2.0.0", "250 2.0.0 taken"),
        (&format!("550 no {long}\r\n"), Failed, "5.0.0", "xxx"),
    ] {
        let sink = Sink::default().when("RCPT TO:<odd", Then::Octets(server_text.into()), usize::MAX);
        let remote = Remote::with(sink);
        let outcomes = Sender::new().send_to(&host(remote.address), &["odd@x.test", "good@x.test"]);
        let about = format!("{:?}: {:?}", server_text.get(..99).unwrap_or(server_text), outcomes[0]);
        assert_eq!(shown(&outcomes[0]), (fate, status.to_owned()), "{about}");
        assert!(outcomes[0].why.ends_with(words), "{about}");
        assert!(outcomes[0].why.len() < 1000 && !outcomes[0].why.contains(char::is_control), "{about}");
        // The other recipient gets the mail, unless it is unclear which reply belongs to which
        // command.
        let is_clear = !words.contains("50-ok 55") && !words.contains("451-") && !words.contains("354-");
        let want = if is_clear && !words.contains("waiting") { Delivered } else { Deferred };
        assert_eq!(outcomes[1].fate, want, "{about}: {:?}", outcomes[1]);
    }
}

/// At every other stage, too, a contradictory or impossible reply defers the mail.
#[test]
fn an_unintelligible_reply_defers_and_is_quoted() {
    for at in ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "."] {
        for (server_text, words) in [
            ("250-yes\n550 no\n", "250-yes 550 no"),
            ("150 wait\n", "150 wait"),
            ("650 what\n", "650 what"),
            ("000\n", "000"),
        ] {
            let sink = Sink::default().when(at, Then::Octets(server_text.into()), usize::MAX);
            let remote = Remote::with(sink.reply("HELO", "650 what"));
            let outcome = Sender::new().send_one(&host(remote.address));
            assert_eq!(outcome.fate, Deferred, "{at} {server_text:?}: {outcome:?}");
            assert!(outcome.why.ends_with(words), "{at} {server_text:?}: {outcome:?}");
            assert!(at == "." || remote.look(|seen| seen.messages.is_empty()), "{at} {server_text:?}");
        }
    }
}

#[test]
fn a_truncated_rejection_is_a_rejection() {
    for at in ["MAIL", "RCPT", "DATA", "."] {
        for (server_text, fate, words) in [
            ("550-5.7.1 blocked\r\n550-5.7.1 see below\r\n", Failed, "550 5.7.1 blocked see below"),
            ("550 5.7.1 blocked", Failed, "550 5.7.1 blocked"),
            ("450-4.7.1 slowly\r\n", Deferred, "450 4.7.1 slowly"),
        ] {
            let octets = Then::OctetsAndClose(server_text.into());
            let remote = Remote::with(Sink::default().when(at, octets, usize::MAX));
            let outcome = Sender::new().send_one(&host(remote.address));
            assert_eq!(outcome.fate, fate, "{at} {server_text:?}: {outcome:?}");
            assert!(outcome.why.ends_with(words), "{at} {server_text:?}: {outcome:?}");
        }
        // Unlike a rejection, a positive reply counts only if it is complete.
        for server_text in ["250-2.0.0 fine\r\n", "250 2.0.0 fine", "354 go"] {
            let octets = Then::OctetsAndClose(server_text.into());
            let remote = Remote::with(Sink::default().when(at, octets, usize::MAX));
            let outcome = Sender::new().send_one(&host(remote.address));
            assert_eq!(shown(&outcome), (Deferred, "4.4.2".into()), "{at} {server_text:?}: {outcome:?}");
        }
    }
}

#[test]
fn a_banner_may_have_many_lines_of_any_kind() {
    let many = "220-one more line\r\n".repeat(900);
    for (server_text, fate, words) in [
        ("220 a.test\n220 b\n220 c\n", Delivered, "taken"),
        (&format!("{many}220 end\r\n"), Delivered, "taken"),
        ("220-a\r\nno code\r\n220 end\r\n", Delivered, "taken"),
        ("220 a.test\r\n554 go away\r\n", Deferred, "the connection: 554 go away"),
        ("220 a.test\r\n250 hello\r\n", Deferred, "the connection: 250 hello"),
        ("SSH-2.0-OpenSSH_10.0\r\n", Deferred, "malformed SMTP reply: SSH-2.0-OpenSSH_10.0"),
        ("220 a.test\r\nwhat else\r\n", Deferred, "malformed SMTP reply: what else"),
    ] {
        let remote = Remote::with(Sink::default().when("CONNECT", Then::Octets(server_text.into()), usize::MAX));
        let outcome = Sender::new().send_one(&host(remote.address));
        let about = format!("{:?}: {outcome:?}", server_text.get(..60).unwrap_or(server_text));
        assert_eq!(outcome.fate, fate, "{about}");
        assert!(outcome.why.ends_with(words), "{about}");
    }
}

#[test]
fn a_connection_lost_in_the_middle_of_a_message_is_no_delivery() {
    for then in [Then::Hang, Then::Close, Then::Reset] {
        let remote = Remote::with(Sink::default().when("BODY", then.clone(), usize::MAX));
        let mut sender = Sender::new();
        // The text is longer than the buffers of both sides, so the client cannot send it to the
        // end.
        sender.text = b"0123456789012345678901234567890\n".repeat(1 << 19);
        let outcome = sender.send_one(&host(remote.address));
        assert_eq!(shown(&outcome), (Deferred, "4.4.2".into()), "{then:?}");
        assert!(outcome.why.ends_with("while sending the message"), "{then:?}: {}", outcome.why);
    }
}

#[test]
fn a_reply_in_the_middle_of_a_message_is_read_before_the_connection_is_lost() {
    let full = Then::ReplyAndClose("552 5.3.4 enough of that".into());
    let remote = Remote::with(Sink::default().when("BODY", full, usize::MAX));
    let mut sender = Sender::new();
    sender.text = b"0123456789012345678901234567890\n".repeat(1 << 19);
    let outcome = sender.send_one(&host(remote.address));
    // The connection is reset after the reply, and the reset may discard the reply. Then the client
    // only sees that the connection was lost.
    assert!(outcome.why.contains("enough of that") || outcome.why.contains("lost"), "{}", outcome.why);
}

#[test]
fn a_closed_port_defers() {
    let address: SocketAddr = (Ipv4Addr::LOCALHOST, closed_port()).into();
    let outcome = Sender::new().send_one(&host(address));
    assert_eq!(shown(&outcome), (Deferred, "4.4.1".into()));
    assert!(outcome.why.starts_with("connecting: "), "{}", outcome.why);
}

#[test]
fn helo_is_only_for_hosts_without_ehlo() {
    let remote = Remote::script(&["\
S: 220 old.test ready
C: EHLO razorback.test
S: 500 what?
C: HELO razorback.test
S: 250 old.test
C: MAIL FROM:<jon@razorback.test>
S: 250 ok
C: RCPT TO:<elvis@example.test>
S: 251 will forward
C: DATA
S: 354 go
C: Subject: x
C:
C: hello
C: .
S: 250 thanks
C: QUIT
S: 221 bye
C$
"]);
    let mut sender = Sender::new();
    assert_eq!(sender.send_one(&host(remote.address)).fate, Delivered);
    let key = Arc::new(Destination::Remote(host(remote.address), None));
    assert_eq!(sender.remote.cached(), Some((key, remote.address.into())));
    sender.remote.close();
    assert_eq!(sender.remote.cached(), None);
    remote.finish();
}

#[test]
fn a_host_that_closes_the_connection_at_ehlo_is_tried_with_helo() {
    for then in [Then::Close, Then::Reset] {
        let remote = Remote::with(Sink::default().when("EHLO", then.clone(), usize::MAX));
        let mut sender = Sender::new();
        assert_eq!(sender.send_one(&host(remote.address)).fate, Delivered);
        // After HELO the client uses no extensions.
        let commands = |seen: &common::remote::Seen| seen.commands.iter().map(|c| c.line.clone()).collect::<Vec<_>>();
        let want = ["EHLO razorback.test", "HELO razorback.test", "MAIL FROM:<jon@razorback.test>"];
        assert_eq!(remote.look(commands)[..3], want);
        assert_eq!(remote.look(|seen| seen.connections), 2);
    }
    // The client tries HELO only once, and not if TLS is required or if the host has given a
    // reason.
    let ends = "the connection was closed while waiting for the reply to EHLO";
    for (ehlo, helo, connections, words) in [
        (Then::Close, Then::Close, 2, ends),
        (Then::Close, reply("550 who are you"), 2, "EHLO: 550 who are you"),
        (Then::ReplyAndClose("421 busy".into()), reply("250 hello"), 1, "EHLO: 421 busy"),
        (Then::ReplyAndClose("550 on a list".into()), reply("250 hello"), 1, "EHLO: 550 on a list"),
        (reply("502 what?"), Then::Close, 1, "EHLO: 502 what?"),
    ] {
        let sink = Sink::default().when("EHLO", ehlo, usize::MAX).when("HELO", helo, usize::MAX);
        let remote = Remote::with(sink);
        let outcome = Sender::new().send_one(&host(remote.address));
        assert_eq!(outcome.fate, Deferred, "{outcome:?}");
        assert!(outcome.why.ends_with(words), "{words}: {outcome:?}");
        assert_eq!(remote.look(|seen| seen.connections), connections, "{words}");
    }
    let remote = Remote::with(Sink::default().when("EHLO", Then::Close, usize::MAX));
    let mut sender = Sender::new();
    sender.config.remote.tls = penfold::config::RemoteTls::Required;
    assert_eq!(sender.send_one(&host(remote.address)).fate, Deferred);
    assert_eq!(remote.look(|seen| seen.connections), 1);
}

#[test]
fn odd_ehlo_keywords_are_understood() {
    for (offered, mail) in [
        ("size 1000", "MAIL FROM:<jon@razorback.test> SIZE=18"),
        ("SIZE=1000", "MAIL FROM:<jon@razorback.test> SIZE=18"),
        ("SIZE=", "MAIL FROM:<jon@razorback.test> SIZE=18"),
        ("SIZE 10M", "MAIL FROM:<jon@razorback.test> SIZE=18"),
        ("SIZE -1", "MAIL FROM:<jon@razorback.test> SIZE=18"),
        ("SIZE  18446744073709551616", "MAIL FROM:<jon@razorback.test> SIZE=18"),
        ("SIZE\t1000 x y", "MAIL FROM:<jon@razorback.test> SIZE=18"),
        ("XSIZE 3", "MAIL FROM:<jon@razorback.test>"),
        ("", "MAIL FROM:<jon@razorback.test>"),
        ("8BITMIMEX", "MAIL FROM:<jon@razorback.test>"),
        ("AUTH=LOGIN PLAIN", "MAIL FROM:<jon@razorback.test>"),
        ("\u{fc}\u{fc} \u{1}", "MAIL FROM:<jon@razorback.test>"),
    ] {
        let remote = Remote::with(Sink { keywords: keywords(&[offered]), ..Sink::default() });
        let mut sender = Sender::new();
        sender.text = b"Subject: x\n\nhi\n"[..].into();
        assert_eq!(sender.send_one(&host(remote.address)).fate, Delivered, "{offered:?}");
        assert_eq!(remote.look(|seen| seen.commands[1].line.clone()), mail, "{offered:?}");
    }
    for offered in ["SIZE=3", "size 3"] {
        let remote = Remote::with(Sink { keywords: keywords(&[offered]), ..Sink::default() });
        assert_eq!(shown(&Sender::new().send_one(&host(remote.address))), (Failed, "5.3.4".into()), "{offered:?}");
    }
}

/// At every stage the host sends 421 and closes the connection. The reply decides the outcome, and
/// the next message uses a new connection.
#[test]
fn a_421_is_understood_at_any_stage() {
    for at in ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "."] {
        for offered in [&["PIPELINING"][..], &[]] {
            let then = Then::ReplyAndClose("421 4.3.2 going down".into());
            let sink = Sink { keywords: keywords(offered), ..Sink::default() };
            let remote = Remote::with(sink.when(at, then, 1));
            let mut sender = Sender::new();
            let outcome = sender.send_one(&host(remote.address));
            assert_eq!(shown(&outcome), (Deferred, "4.3.2".into()), "{at}: {outcome:?}");
            assert!(outcome.why.ends_with(": 421 4.3.2 going down"), "{at}: {outcome:?}");
            assert_eq!(sender.send_one(&host(remote.address)).fate, Delivered, "{at}");
            assert_eq!(remote.look(|seen| seen.connections), 2, "{at}");
        }
    }
    // Whatever a host does after the end of the message, even at QUIT, the message is delivered.
    for (at, then) in [
        (".", Then::ReplyAndClose("250 2.0.0 taken".into())),
        ("QUIT", Then::Close),
        ("QUIT", Then::Reset),
        ("QUIT", reply("500 what?")),
        ("QUIT", reply("421 bye")),
    ] {
        let remote = Remote::with(Sink::default().when(at, then, usize::MAX));
        let mut sender = Sender::new();
        for _ in 0..2 {
            let outcome = sender.send_one(&host(remote.address));
            assert_eq!(shown(&outcome), (Delivered, "2.0.0".into()), "{at}: {outcome:?}");
            if at == "QUIT" {
                sender.remote.close();
            }
        }
        assert_eq!(remote.look(|seen| seen.connections), 2, "{at}");
    }
}

#[test]
fn commands_are_pipelined_where_offered() {
    let remote = Remote::script(&["\
S: 220 new.test ESMTP
C: EHLO razorback.test
S: 250-new.test
S: 250-pipelining
S: 250-8BITMIME
S: 250 SIZE 0
C: MAIL FROM:<jon@razorback.test> SIZE=15 BODY=8BITMIME
C: RCPT TO:<a@example.test>
C: RCPT TO:<b@example.test>
C: DATA
S: 250 ok
S: 550 5.1.1 no a
S: 250 ok
S: 354 go
C: ..dot
C: \u{fc}
C: end
C: .
S: 250 thanks
C: QUIT
S: 221 bye
C$
"]);
    let mut sender = Sender::new();
    // The text has no line end at its end. The client adds it, and SIZE includes it.
    sender.text = ".dot\n\u{fc}\nend".into();
    let outcomes = sender.send_to(&host(remote.address), &["a@example.test", "b@example.test"]);
    assert_eq!([shown(&outcomes[0]), shown(&outcomes[1])], [(Failed, "5.1.1".into()), (Delivered, "2.0.0".into())]);
    sender.remote.close();
    remote.finish();
}

#[test]
fn a_host_that_accepts_data_without_recipients_gets_an_empty_message() {
    let remote = Remote::with(Sink::default().reply("RCPT", "550 5.1.1 no").reply("DATA", "354 go"));
    let mut sender = Sender::new();
    assert_eq!(sender.send_one(&host(remote.address)).fate, Failed);
    // The connection can still be used for another message.
    remote.behave(Conduct::Sink(Sink::default()));
    assert_eq!(sender.send_one(&host(remote.address)).fate, Delivered);
    remote.look(|seen| {
        assert_eq!(seen.connections, 1);
        let real: Vec<_> = seen.messages.iter().filter(|m| !m.data.is_empty()).collect();
        assert_eq!(real.len(), 1);
        assert_eq!(real[0].recipients, ["<elvis@example.test>"]);
    });
}

#[test]
fn without_pipelining_no_command_follows_a_rejection() {
    let sink = Sink { keywords: Vec::new(), ..Sink::default() }.reply("RCPT", "550 no");
    let remote = Remote::with(sink);
    let mut sender = Sender::new();
    sender.send_to(&host(remote.address), &["a@x.test", "b@x.test"]);
    sender.remote.close();
    // The client sends QUIT, but does not wait for the reply.
    remote.wait("QUIT", |seen| seen.ended == 1);
    let verbs = |seen: &common::remote::Seen| seen.commands.iter().map(|c| c.line[..4].to_owned()).collect::<Vec<_>>();
    assert_eq!(remote.look(verbs), ["EHLO", "MAIL", "RCPT", "RCPT", "QUIT"]);
}

#[test]
fn each_recipient_has_its_own_outcome() {
    let sink = Sink::default().reply("RCPT TO:<bad", "550 5.1.1 no").reply("RCPT TO:<busy", "450 4.2.1 later");
    let remote = Remote::with(sink);
    let outcomes =
        Sender::new().send_to(&host(remote.address), &["bad@x.test", "good@x.test", "busy@x.test", "fine@x.test"]);
    let fates: Vec<_> = outcomes.iter().map(shown).collect();
    let want = [(Failed, "5.1.1"), (Delivered, "2.0.0"), (Deferred, "4.2.1"), (Delivered, "2.0.0")];
    assert_eq!(fates, want.map(|(fate, status)| (fate, status.to_owned())));
    assert_eq!(remote.messages(1)[0].recipients, ["<good@x.test>", "<fine@x.test>"]);
}

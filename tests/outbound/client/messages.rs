//! Whole messages of the SMTP client: many recipients, size, content, and several messages over one
//! connection.

use super::*;

#[test]
fn excess_recipients_go_into_the_next_transaction() {
    for (code, pipelining) in [("452 4.5.3", true), ("452", false), ("552", true)] {
        // This server counts the recipients of each transaction. A rule of a `Remote` cannot do
        // that, because it is used up once.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
        let address = listener.local_addr().expect("bound");
        let server = thread::spawn(move || serve_at_most(listener, 2, code, pipelining));
        let mut sender = Sender::new();
        let names: Vec<_> = (0..7).map(|n| format!("r{n}@x.test")).collect();
        let outcomes = sender.send_to(&host(address), &names.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(outcomes.iter().all(|o| o.fate == Delivered), "{outcomes:?}");
        sender.remote.close();
        let taken = server.join().expect("a server");
        assert_eq!(taken, [vec!["r0", "r1"], vec!["r2", "r3"], vec!["r4", "r5"], vec!["r6"]], "{code}");
    }
}

/// Serves one connection, and accepts at most `limit` recipients in each transaction. Returns the
/// recipients of each transaction.
fn serve_at_most(listener: TcpListener, limit: usize, code: &str, pipelining: bool) -> Vec<Vec<String>> {
    use std::io::{BufRead, BufReader};
    let (stream, _) = listener.accept().expect("a client");
    let mut out = stream.try_clone().expect("a descriptor");
    let mut reply = |text: &str| out.write_all(format!("{text}\r\n").as_bytes()).expect("the client listens");
    reply("220 sink.test");
    let (mut all, mut now, mut content) = (Vec::new(), Vec::new(), false);
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        let name = || line.trim_start_matches("RCPT TO:<").split('@').next().unwrap_or_default().to_owned();
        match line.get(..4).unwrap_or(&line) {
            "." => {
                all.push(std::mem::take(&mut now));
                content = false;
                reply("250 ok");
            }
            _ if content => {}
            "EHLO" if pipelining => reply("250-sink.test\r\n250 PIPELINING"),
            "RCPT" if now.len() == limit => reply(&format!("{code} too many")),
            "RCPT" => {
                now.push(name());
                reply("250 ok");
            }
            "DATA" => {
                content = true;
                reply("354 go");
            }
            "QUIT" => break,
            _ => reply("250 ok"),
        }
    }
    all
}

/// RFC 9422: the client keeps to the limits without being refused first. Each row has the recipients
/// of each transaction, with a bar where another connection begins.
#[test]
fn the_limits_that_a_host_states_are_kept() {
    for (limits, want) in [
        ("RCPTMAX=2", "a@x b@y,c@x d@z,e@x"),
        ("RCPTDOMAINMAX=1", "a@x c@x e@x,b@y,d@z"),
        ("RCPTDOMAINMAX=2 RCPTMAX=3", "a@x b@y c@x,d@z e@x"),
        ("MAILMAX=1 RCPTMAX=2", "a@x b@y|c@x d@z|e@x"),
        ("MAILMAX=2 RCPTMAX=2", "a@x b@y,c@x d@z|e@x"),
        ("MAILMAX=1", "a@x b@y c@x d@z e@x"),
        ("FOO=1", "a@x b@y c@x d@z e@x"),
    ] {
        let sink = Sink { keywords: keywords(&["PIPELINING", &format!("LIMITS {limits}")]), ..Sink::default() };
        let remote = Remote::with(sink);
        let mut sender = Sender::new();
        let outcomes = sender.send_to(&host(remote.address), &["a@x", "b@y", "c@x", "d@z", "e@x"]);
        assert!(outcomes.iter().all(|o| o.fate == Delivered), "{limits}: {outcomes:?}");
        let (mut shown, mut connection) = (String::new(), 0);
        for message in remote.messages(want.split([',', '|']).count()) {
            if !shown.is_empty() {
                shown.push(if message.connection == connection { ',' } else { '|' });
            }
            connection = message.connection;
            shown.push_str(&message.recipients.join(" ").replace(['<', '>'], ""));
        }
        assert_eq!(shown, want, "{limits}");
        // The connection is kept unless the host accepts no more messages over it, and QUIT ends each.
        assert_eq!(sender.remote.cached().is_some(), !limits.contains("MAILMAX=1"), "{limits}");
        sender.remote.close();
        let count = 1 + want.matches('|').count();
        remote.wait("the end of all connections", |seen| seen.ended == count);
        remote.look(|seen| {
            assert_eq!(seen.commands.iter().filter(|command| command.line == "QUIT").count(), count, "{limits}");
        });
    }
}

/// A host that stops answering after a limit costs only the recipients that are left.
#[test]
fn a_connection_that_fails_after_mailmax_costs_only_the_recipients_that_are_left() {
    let sink = Sink { keywords: keywords(&["LIMITS MAILMAX=1 RCPTMAX=1"]), ..Sink::default() };
    let remote = Remote::with(sink.when("CONNECT", Then::Pause(Duration::ZERO), 1).reply("CONNECT", "421 4.3.2 busy"));
    let outcomes = Sender::new().send_to(&host(remote.address), &["a@x.test", "b@x.test"]);
    assert_eq!(outcomes.iter().map(|o| o.fate).collect::<Vec<_>>(), [Delivered, Deferred]);
    assert_eq!(remote.messages(1)[0].recipients, ["<a@x.test>"]);
}

#[test]
fn a_message_that_the_host_cannot_take_is_converted() {
    const HEAD: &str = "MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n";
    let long = "x".repeat(999);
    let (wrapped, quoted) = (format!("{}=\n", "x".repeat(75)), "Content-Transfer-Encoding: quoted-printable\n");
    let wrapped = wrapped.repeat(13) + &"x".repeat(24);
    for (offered, body, mail, converted) in [
        ("8BITMIME", "fr\u{fc}h\n", " BODY=8BITMIME", None),
        ("SIZE 200", "fr\u{fc}h\n", " SIZE=118", Some("fr=C3=BCh\n")),
        ("", "early\n", "", None),
        ("", "fr\u{fc}h\n", "", Some("fr=C3=BCh\n")),
        ("8BITMIME", &format!("{long}\n"), "", Some(wrapped.as_str())),
        ("8BITMIME", &format!("{}\n", &long[1..]), "", None),
    ] {
        let remote = Remote::with(Sink { keywords: keywords(&[offered]), ..Sink::default() });
        let mut sender = Sender::new();
        sender.text = format!("{HEAD}\n{body}").into();
        let outcome = sender.send_one(&host(remote.address));
        assert_eq!(outcome.fate, Delivered, "{offered}: {outcome:?}");
        let sent = converted.map_or(format!("{HEAD}\n{body}"), |body| format!("{HEAD}{quoted}\n{body}"));
        let got = String::from_utf8(remote.messages(1).remove(0).data).expect("text").replace("\r\n", "\n");
        assert_eq!(got.trim_end(), sent.trim_end(), "{offered}");
        let line = remote.look(|seen| seen.commands[1].line.clone());
        assert_eq!(line, format!("MAIL FROM:<jon@razorback.test>{mail}"), "{offered}");
    }
    // A header line that cannot be folded is sent as it is, if nothing else is in the way.
    for (offered, body, fate) in
        [("8BITMIME", "fr\u{fc}h\n", Delivered), ("", "early\n", Delivered), ("", "fr\u{fc}h\n", Failed)]
    {
        let remote = Remote::with(Sink { keywords: keywords(&[offered]), ..Sink::default() });
        let text = format!("X-Token: {long}\n\n{body}");
        let mut sender = Sender { text: text.clone().into(), ..Sender::new() };
        let outcome = sender.send_one(&host(remote.address));
        assert_eq!(outcome.fate, fate, "{offered}: {outcome:?}");
        let got = remote.look(|seen| seen.messages.iter().map(|message| message.data.clone()).collect::<Vec<_>>());
        let want = if fate == Delivered { vec![text.replace('\n', "\r\n").into_bytes()] } else { Vec::new() };
        assert_eq!(got, want, "{offered}");
    }
    // The size that counts is that of the converted message.
    let remote = Remote::with(Sink { keywords: keywords(&["SIZE 117"]), ..Sink::default() });
    let mut sender = Sender::new();
    sender.text = format!("{HEAD}\nfr\u{fc}h\n").into();
    assert_eq!(shown(&sender.send_one(&host(remote.address))), (Failed, "5.3.4".into()));
}

#[test]
fn a_message_that_cannot_be_converted_fails_unless_another_host_takes_it() {
    let strict = Remote::with(Sink { keywords: Vec::new(), ..Sink::default() });
    let modern = Remote::with(Sink { keywords: keywords(&["8BITMIME"]), ..Sink::default() });
    let mut sender = Sender::new();
    sender.text = "Content-Type: multipart/signed; boundary=x\n\n--x\n\nfr\u{fc}h\n--x--\n".into();
    let outcome = sender.send_one(&host(strict.address));
    assert_eq!(shown(&outcome), (Failed, "5.6.3".into()));
    assert!(outcome.why.contains("7-bit") && outcome.why.contains("a signed part"), "{outcome:?}");
    assert_eq!(sender.send_one(&hosts(&[strict.address, modern.address])).fate, Delivered);
    assert!(strict.look(|seen| seen.messages.is_empty()));
    // Lines that are too long are so for every host.
    let long = "x".repeat(1000);
    sender.text = format!("Content-Type: multipart/signed; boundary=x\n\n--x\n\n{long}\n--x--\n").into();
    let outcome = sender.send_one(&hosts(&[modern.address, strict.address]));
    assert_eq!(shown(&outcome), (Failed, "5.6.3".into()));
    assert!(outcome.why.contains("too long for SMTP") && modern.look(|seen| seen.messages.len()) == 1, "{outcome:?}");
}

#[test]
fn a_full_mailbox_does_not_count_as_too_many_recipients() {
    let remote = Remote::with(Sink::default().reply("RCPT TO:<full", "552 5.2.2 over quota"));
    let outcomes = Sender::new().send_to(&host(remote.address), &["a@x.test", "full@x.test", "b@x.test"]);
    assert_eq!(outcomes.iter().map(|o| o.fate).collect::<Vec<_>>(), [Delivered, Failed, Delivered]);
    assert_eq!(remote.messages(1).len(), 1);
}

#[test]
fn ten_thousand_recipients() {
    let remote = Remote::sink();
    let names: Vec<_> = (0..10_000).map(|n| format!("r{n}@x.test")).collect();
    let mut sender = Sender::new();
    sender.config.remote.timeout = common::TIMEOUT;
    let outcomes = sender.send_to(&host(remote.address), &names.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(outcomes.iter().all(|o| o.fate == Delivered));
    assert_eq!(remote.messages(1)[0].recipients.len(), 10_000);
}

#[test]
fn a_message_beyond_the_announced_limit_is_not_sent() {
    let sink = Sink { keywords: keywords(&["PIPELINING", "SIZE 20"]), ..Sink::default() };
    let remote = Remote::with(sink);
    let mut sender = Sender::new();
    sender.text = b"123456789\n12345678\n".to_vec(); // 21 on the wire
    let outcome = sender.send_one(&host(remote.address));
    assert_eq!(shown(&outcome), (Failed, "5.3.4".into()));
    assert_eq!(outcome.why, "the message has 21 bytes, and the host takes at most 20");
    sender.text = b"123456789\n1234567\n".to_vec();
    assert_eq!(sender.send_one(&host(remote.address)).fate, Delivered);
    remote.look(|seen| {
        assert_eq!(seen.connections, 1);
        assert_eq!(seen.commands.iter().filter(|c| c.line.starts_with("MAIL")).count(), 1);
    });
}

#[test]
fn a_truncated_message_is_never_completed() {
    let remote = Remote::with(Sink { keywords: Vec::new(), ..Sink::default() });
    let letter = Letter::new(&b"text\n".repeat(40_000));
    let file = File::open(&letter.0).expect("a file");
    let mut sender = Sender::new();
    // The head of an entry has the measure, so the content is not read before it is sent.
    let measure = Some(Measure { size: 240_001, is_ascii: true, has_long_lines: false });
    let content = Content::new(&file, 0, 200_001).measured(measure);
    let outcome = sender.send(&host(remote.address), &["a@x.test"], content).remove(0);
    assert_eq!(outcome.fate, Deferred);
    assert!(outcome.why.starts_with("reading the message: "), "{}", outcome.why);
    assert_eq!(sender.remote.cached(), None);
    remote.wait("the end of the connection", |seen| seen.ended == 1);
    assert_eq!(remote.look(|seen| seen.messages.len()), 0);
}

#[test]
fn an_unreadable_message_is_not_tried_at_every_host() {
    let (first, second) = (Remote::sink(), Remote::sink());
    let to = hosts(&[first.address, second.address]);
    let directory = File::open("/").expect("a directory");
    let outcome = Sender::new().send(&to, &["a@x.test"], Content::new(&directory, 0, 1)).remove(0);
    assert_eq!(outcome.fate, Deferred);
    assert!(outcome.why.starts_with("reading the message: "), "{}", outcome.why);
    assert_eq!(second.look(|seen| seen.connections), 0);
}

#[test]
fn hostile_replies_are_bounded() {
    let long = "x".repeat(100_000);
    let endless = format!("{}250 end", "250-more\n".repeat(5000));
    for (at, said, words) in [
        ("CONNECT", format!("220 {long}"), "waiting for the greeting: a line without end"),
        ("CONNECT", endless.clone(), "waiting for the greeting: the reply has too many lines"),
        ("EHLO", endless, "waiting for the reply to EHLO: the reply has too many lines"),
        ("MAIL", "250\r550 ok".into(), "taken"),
        ("RCPT", "250-ok\n550 no".into(), "the host said to RCPT: 250-ok 550 no"),
        ("DATA", "\0\x1b[2J".into(), "waiting for the reply to DATA: malformed SMTP reply: ??[2J"),
        ("DATA", "550 \x1b[2J\x07\u{9b}no".into(), "the host said to DATA: 550 ?[2J??no"),
        ("DATA", "550".into(), "the host said to DATA: 550"),
    ] {
        // An endless reply to the connection must begin with the code of a banner.
        let said = if at == "CONNECT" { said.replacen("250-", "220-", 1) } else { said };
        let remote = Remote::with(Sink::default().reply(at, &said));
        let outcome = Sender::new().send_one(&host(remote.address));
        assert!(outcome.why.ends_with(words), "{at}: {}", outcome.why);
        assert!(!outcome.why.contains(char::is_control));
    }
}

#[test]
fn a_dripping_reply_times_out() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
    let address = listener.local_addr().expect("bound");
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let pause = Duration::from_millis(20);
        while stream.write_all(b"220-drip\r\n").is_ok() {
            thread::sleep(pause);
        }
    });
    let started = Instant::now();
    let outcome = Sender::new().send_one(&host(address));
    assert!(outcome.why.starts_with("timed out while waiting for the greeting"), "{}", outcome.why);
    assert!(started.elapsed() < 4 * LIMIT);
    server.join().expect("a server");
}

/// Each reply arrives in time, but all replies together take too long.
#[test]
fn a_host_that_is_slow_at_every_stage_times_out() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        // The client may try again without TLS.
        for stream in listener.incoming().flatten() {
            let mut wire = common::dialog::Wire::new(stream, false);
            let mut slowly = |line: &str| {
                thread::sleep(LIMIT * 9 / 10);
                wire.ask(line).unwrap_or_default()
            };
            let mut said = slowly("220 slow.test");
            while !said.is_empty() {
                said = slowly(match &said[..4] {
                    "EHLO" => "250-slow.test\r\n250 STARTTLS",
                    "STAR" => "454 4.7.0 not today",
                    _ => "550 5.7.1 no",
                });
            }
        }
    });
    let started = Instant::now();
    let outcome = Sender::new().send_one(&host(address));
    assert!(outcome.why.starts_with("timed out while waiting for the "), "{}", outcome.why);
    assert!(started.elapsed() < 8 * LIMIT, "{:?}", started.elapsed());
}

/// An extra reply could be mistaken for the reply to the next message, so the connection must not
/// be used again.
#[test]
fn a_host_that_sends_extra_replies_is_disconnected() {
    for (sink, text, first) in [
        // The host sends two replies at the end of a message; the second is found before the next
        // message.
        (Sink::default().when(".", Then::Reply("250 taken\n250 and more".into()), 1), 10, Delivered),
        // The host replies in the middle of a message. The message is so long that the client reads
        // the reply before the end, and does not send the final dot.
        (Sink::default().when("BODY", Then::Reply("450 4.2.1 not now".into()), 3), 8 << 20, Deferred),
        (Sink::default().when("DATA", Then::Reply("354 go on\n354 and on".into()), 1), 10, Deferred),
        (Sink::default().when("RCPT", Then::Reply("250 fine\n250 and fine".into()), 1), 10, Deferred),
    ] {
        let what = sink.rules[0].at.clone();
        let remote = Remote::with(sink);
        let mut sender = Sender::new();
        let to = host(remote.address);
        sender.text = b"text text\n".repeat(text / 10);
        let outcome = sender.send_to(&to, &["a@x.test"]).remove(0);
        assert_eq!(outcome.fate, first, "{what}: {}", outcome.why);
        sender.text = b"second\n".to_vec();
        assert_eq!(sender.send_to(&to, &["b@x.test"]).remove(0).fate, Delivered, "{what}");
        let taken = remote.messages(1 + usize::from(first == Delivered));
        let second = taken.last().expect("one");
        assert_eq!((second.data.as_slice(), &*second.recipients[0]), (&b"second\r\n"[..], "<b@x.test>"), "{what}");
        assert_eq!(remote.look(|seen| seen.connections), 2, "{what}");
    }
}

#[test]
fn a_connection_is_used_again() {
    let remote = Remote::with(Sink::default().reply("RCPT TO:<bad", "550 no"));
    let mut sender = Sender::new();
    let to = host(remote.address);
    for name in ["a@x.test", "bad@x.test", "b@x.test"] {
        sender.send_to(&to, &[name]);
    }
    sender.remote.close();
    assert_eq!(remote.messages(2).len(), 2);
    remote.wait("QUIT", |seen| seen.ended == 1);
    remote.look(|seen| {
        assert_eq!(seen.connections, 1);
        let count = |verb: &str| seen.commands.iter().filter(|c| c.line.starts_with(verb)).count();
        // There is one RSET, because only an abandoned transaction needs it.
        assert_eq!((count("EHLO"), count("RSET"), count("QUIT")), (1, 1, 1));
    });
}

#[test]
fn a_dead_kept_connection_is_replaced_silently() {
    let goodbye = Then::ReplyAndClose("421 4.4.2 idle too long".into());
    for then in [Then::Close, Then::Reset, goodbye] {
        let remote = Remote::sink();
        let mut sender = Sender::new();
        let to = host(remote.address);
        assert_eq!(sender.send_one(&to).fate, Delivered);
        remote.behave(Conduct::Sink(Sink::default().when("MAIL", then, 1)));
        assert_eq!(sender.send_one(&to).fate, Delivered);
        assert_eq!(remote.look(|seen| (seen.connections, seen.messages.len())), (2, 2));
    }
}

#[test]
fn another_destination_ends_the_connection() {
    let (first, second) = (Remote::sink(), Remote::sink());
    let mut sender = Sender::new();
    assert_eq!(sender.send_one(&host(first.address)).fate, Delivered);
    assert_eq!(sender.send_one(&host(second.address)).fate, Delivered);
    first.wait("QUIT", |seen| seen.commands.last().is_some_and(|c| c.line == "QUIT"));
}

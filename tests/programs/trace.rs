//! `penfoldctl trace`: the history of messages and of refused clients, with and without a daemon.

use std::fs;

use common::programs::{code_and_text, command, feed, stranger};
use common::remote::{Remote, Sink};
use common::{Daemon, Site};

/// Runs penfoldctl, and returns its exit code and its output.
fn ctl(site: &Site, arguments: &[&str]) -> (i32, String) {
    code_and_text(&command(site, "penfoldctl", arguments).output().expect("it runs"))
}

/// A text of `trace` with its lines unfolded.
fn unfolded(text: &str) -> String {
    text.replace(&format!("\n{:31}", ""), " ")
}

/// What `trace` prints about a subject, with the lines unfolded.
fn trace(site: &Site, subject: &str) -> String {
    let (code, text) = ctl(site, &["trace", subject]);
    assert_eq!(code, 0, "{subject}: {text}");
    // A word that is too long, such as a path, has a line of its own.
    let is_narrow = |line: &str| line.chars().count() <= 100 || !line.trim().contains(' ');
    assert!(text.lines().all(is_narrow), "{text}");
    unfolded(&text)
}

/// Asserts that a text contains these parts in this order.
fn assert_has(text: &str, parts: &[&str]) {
    let mut rest = text;
    for part in parts {
        rest = rest.split_once(part).unwrap_or_else(|| panic!("no {part:?} in its place in\n{text}")).1;
    }
}

/// A daemon with a message to an alias, to a host that refuses, and to one that defers, and with a
/// recipient that was refused.
fn eventful(site: &Site, remote: &Remote) -> Daemon {
    site.write("routes", &format!("far.test {}\nlate.test error:4.2.1 later\n", remote.host_port()));
    site.write("aliases", "staff: jon\n");
    let daemon = site.start();
    let mut client = daemon.greeted();
    client.ask("MAIL FROM:<jon@razorback>", "250 ");
    client.ask("RCPT TO:<nosuch@razorback>", "550 ");
    for to in ["staff@razorback", "gone@far.test", "x@late.test"] {
        client.ask(&format!("RCPT TO:<{to}>"), "250 ");
    }
    client.ask("DATA", "354 ");
    client.ask("Message-ID:\r\n <m1@x.test>\r\nSubject: x\r\n\r\nx\r\n.", "250 ");
    client.ask("QUIT", "221 ");
    daemon.wait_mail(site, "jon", 2);
    daemon.wait_words(&[" deferred to=<x@late.test>"]);
    daemon
}

#[test]
fn the_story_of_a_message_is_told_by_any_name_of_it_and_survives_the_daemon() {
    let remote = Remote::with(Sink::default().reply("RCPT TO:<gone", "550 5.1.1 no such user here"));
    let site = Site::new();
    let daemon = eventful(&site, &remote);
    let told = trace(&site, "<m1@x.test>");
    assert_has(
        &told,
        &[
            "Message ",
            "accepted from <jon@razorback>, ",
            "client localhost[127.0.0.1], HELO client.test, ",
            "Message-ID <m1@x.test>\n",
            "to <staff@razorback>, <gone@far.test>, <x@late.test>\n",
            "reported the failure to <jon@razorback>, in message ",
            "It is in the queue now: penfoldctl show ",
            "\nMessage ",
            ", a report about ",
            "delivered to <jon@razorback> by maildir, ",
            "finished: the message has left the queue\n",
            "\nThe history begins at 20",
        ],
    );
    assert!(told.contains("delivered to <jon@razorback> (given as <staff@razorback>) by maildir,"), "{told}");
    assert_has(
        &told,
        &["failed for <gone@far.test>: 550 5.1.1 no such user here\n", "by smtp, ", ", in reply to RCPT\n"],
    );
    assert_has(&told, &["not delivered yet to <x@late.test>: ", "next attempt at 20"]);
    let id = told.split_whitespace().nth(1).expect("an id").to_owned();
    let report = told.split("\nMessage ").nth(1).expect("a report").split(',').next().expect("an id").to_owned();
    for subject in [&*id, &id.to_lowercase(), &report, "m1@x.test", "gone@far.test", "STAFF@razorback", "@late.test"] {
        assert_eq!(trace(&site, subject), told, "{subject}");
    }
    let refused = trace(&site, "nosuch@razorback");
    assert_has(
        &refused,
        &[
            "Clients\n",
            "refused RCPT TO:<nosuch@razorback>: 550 5.1.1 ",
            "client [127.0.0.1], HELO client.test\n",
            "sender <jon@razorback>\n",
            "rule: unknown-user (local.users)\n",
        ],
    );
    assert!(!refused.contains("Message 1"), "{refused}");
    let by_address = trace(&site, "127.0.0.1");
    assert!(by_address.contains("Message 1") && by_address.contains("refused RCPT"), "{by_address}");
    let (code, json) = ctl(&site, &["trace", "--json", &id]);
    assert_eq!(code, 0);
    let events: Vec<&str> =
        json.lines().filter_map(|line| line.split_once("\"event\":\"")?.1.split('"').next()).collect();
    assert!(json.lines().all(|line| line.starts_with("{\"time\":\"20") && line.ends_with('}')), "{json}");
    assert!(events.starts_with(&["accept"]) && events.contains(&"bounced") && events.contains(&"done"), "{events:?}");
    assert_has(
        &json,
        &["\"recipients\":3", "\"msgid\":\"<m1@x.test>\",\"rcpt\":[\"<staff@razorback>\",\"<gone@far.test>\""],
    );
    let nothing = ctl(&site, &["trace", "nobody@nowhere.test"]);
    assert!(
        nothing.0 == 69 && nothing.1.starts_with("penfoldctl: the history has nothing about nobody@"),
        "{nothing:?}"
    );
    let limited = ctl(&site, &["trace", "--limit", "1", "jon@razorback"]).1;
    assert!(limited.contains("1 older message is not shown; see --limit"), "{limited}");
    for arguments in [&["trace"][..], &["trace", " "], &["trace", "a", "b"], &["trace", "--limit", "0", "a"]] {
        assert_eq!(ctl(&site, arguments).0, 64, "{arguments:?}");
    }
    if let Some(mut other) = stranger(&command(&site, "penfoldctl", &["trace", &id])) {
        let (code, text) = code_and_text(&other.output().expect("it runs"));
        assert!(code == 69 && text.contains("has nothing about"), "{text}");
    }
    for subject in ["127.0.0.1", "jon@razorback", "<m1@x.test>"] {
        let Some(mut other) = stranger(&command(&site, "penfoldctl", &["trace", subject])) else { break };
        let (code, text) = code_and_text(&other.output().expect("it runs"));
        assert!(code == 77 && text.contains(" may trace messages"), "{text}");
    }
    lost_clients_are_told(&site, &daemon);
    // The time from which lines are shown, and what a name without an @ may mean.
    assert!(trace(&site, "CLIENT.test").contains(&format!("Message {id}\n")));
    assert_eq!(unfolded(&ctl(&site, &["trace", "--since", "1h", &id]).1), told);
    let nothing = ctl(&site, &["trace", "--since", "0s", "nowhere.test"]);
    assert!(nothing.0 == 69 && nothing.1.contains("domain: penfoldctl trace @nowhere.test\n"), "{nothing:?}");
    assert_eq!(ctl(&site, &["trace", "--since", "soon", &id]).0, 64);
    assert!(daemon.terminate().success());
    assert_eq!(trace(&site, &id), told);
    if let Some(mut other) = stranger(&command(&site, "penfoldctl", &["trace", &id])) {
        assert_eq!(code_and_text(&other.output().expect("it runs")).0, 77);
    }
}

/// Checks that the history has a client that disconnects within a message, and none that says QUIT.
fn lost_clients_are_told(site: &Site, daemon: &Daemon) {
    for (sender, command) in
        [("d@lost.test", "DATA"), ("b@lost.test", "BDAT 9"), ("r@lost.test", ""), ("q@lost.test", "QUIT")]
    {
        let mut client = daemon.greeted();
        client.ask(&format!("MAIL FROM:<{sender}>"), "250 ");
        client.ask("RCPT TO:<jon@razorback>", "250 ");
        match command {
            "" => {}
            "BDAT 9" => client.send_text("BDAT 9\r\nx"),
            command => drop(client.ask(command, "")),
        }
        drop(client);
        if command != "QUIT" {
            daemon.wait_words(&[&format!(" lost from=<{sender}> ")]);
        }
    }
    for (sender, stage) in [("d@lost.test", "DATA"), ("b@lost.test", "BDAT"), ("r@lost.test", "RCPT")] {
        let first = format!("the connection of a client ended after {stage}, before the end of its message: closed by");
        let sender_line = format!("sender <{sender}>\n");
        assert_has(
            &trace(site, sender),
            &["Clients\n", &first, "client [127.0.0.1], HELO client.test\n", &sender_line, "to <jon@razorback>\n"],
        );
    }
    assert_eq!(ctl(site, &["trace", "q@lost.test"]).0, 69);
}

#[test]
fn a_user_traces_own_messages_without_what_this_site_keeps_secret() {
    let site = Site::new();
    site.write("aliases", "team: jon, secret\nsecret: jon\n");
    let daemon = site.start();
    let arguments = ["-f", "mary@razorback", "team@razorback"];
    let Some(mut as_mary) = stranger(&command(&site, "sendmail", &arguments)) else { return };
    assert_eq!(code_and_text(&feed(&mut as_mary, b"Message-ID: <own@x.test>\n\nhello\n")), (0, String::new()));
    daemon.wait_mail(&site, "jon", 1);
    let id = trace(&site, "<own@x.test>").split_whitespace().nth(1).expect("an id").to_owned();
    daemon.wait_words(&[&format!("{id} done")]);
    let traced = |option: &[&str]| {
        let arguments = [&["trace"], option, &[&id]].concat();
        code_and_text(&feed(&mut stranger(&command(&site, "penfoldctl", &arguments)).expect("root"), b""))
    };
    let (code, text) = traced(&[]);
    assert_eq!(code, 0, "{text}");
    assert_has(
        &text,
        &[
            &format!("Message {id}\n"),
            "accepted from <mary@razorback>, ",
            "by the local user ",
            "Message-ID <own@x.test>\n",
            "to <team@razorback>\n",
            "delivered to <team@razorback>\n",
            "finished: the message has left the queue\n",
        ],
    );
    let json = traced(&["--json"]).1;
    assert!(json.contains("\"event\":\"sent\"") && !json.contains("recipients"), "{json}");
    for secret in ["jon", "secret", "maildir"] {
        assert!(!text.contains(secret) && !json.contains(secret), "{secret}: {text}{json}");
    }
    // The message has left the queue, and its sender learns where to look.
    let shown = code_and_text(
        &stranger(&command(&site, "penfoldctl", &["show", &id])).expect("root").output().expect("it runs"),
    );
    let told =
        format!("penfoldctl: there is no message {id} in the queue that you may see; see penfoldctl trace {id}\n");
    assert_eq!(shown, (69, told));
    let explained = ctl(&site, &["explain", &id]);
    assert_eq!(explained, (69, format!("penfoldctl: {id} is not in the queue; see penfoldctl trace {id}\n")));
}

#[test]
fn a_killed_daemon_loses_no_more_than_a_second_and_no_line_can_be_forged() {
    let site = Site::with("relay.networks = []\nhistory.keep = \"1d\"");
    let daemon = site.start();
    let forged = "\"x\\\" to=<forged@y.test>\"@x.test";
    daemon.greeted().send(forged, &["jon@razorback"], "Message-ID: <a\" event=\"b>\r\n\r\nx\r\n");
    let file = site.path("spool/state/history-messages.1");
    daemon.wait_until("the history", || fs::read_to_string(&file).is_ok_and(|text| text.ends_with(" done\n")));
    daemon.kill9();
    // What is too old, damaged or another's is not shown.
    let text = fs::read(&file).expect("the history");
    let mut damaged =
        b"1.000 1K0TVZ6PH81DZ9JHPQF accept from=<old@x.test>\n\xff\xfe\n99999999999999999999.1 x\n5".to_vec();
    damaged.extend_from_slice(b"\n");
    damaged.extend_from_slice(&text);
    damaged.extend_from_slice(b"cut off");
    fs::write(&file, damaged).expect("a file");
    assert_eq!(ctl(&site, &["trace", "old@x.test"]).0, 69);
    assert_eq!(ctl(&site, &["trace", "forged@y.test"]).0, 69);
    let told = trace(&site, "jon@razorback");
    assert_has(
        &told,
        &["accepted from <\"x\\\" to=<forged@y.test>\"@x.test>, ", "delivered to <jon@razorback>", "finished"],
    );
    assert_eq!(trace(&site, "\"x\\\" to=<forged@y.test>\"@x.test"), told);
    // Without a history nothing is written, and nothing is found.
    let mut silent = Site::with("history.size = \"0\"");
    silent.set("history", "keep", "\"1h\"");
    let daemon = silent.start();
    daemon.submit(&["jon"]);
    daemon.wait_mail(&silent, "jon", 1);
    assert_eq!(ctl(&silent, &["trace", "jon@razorback"]).0, 69);
    assert!(daemon.terminate().success());
    let names = fs::read_dir(silent.path("spool/state")).expect("state").flatten();
    assert_eq!(names.filter(|entry| entry.file_name().to_string_lossy().starts_with("history")).count(), 0);
}

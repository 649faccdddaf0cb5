//! sendmail(8), mailq(1) and newaliases(1): their promises to the programs that call them.
//!
//! The real program runs under its real names, with the real daemon behind its socket. There are
//! tables of command lines and messages, and tests of users and their rights (hostile users are in
//! tests/fuzz/control.rs). The programs of Debian that send mail are tried, too. Tests that need
//! root or an absent program are reported as skipped.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::mounts::Mounts;
use common::programs::{code_and_text, command, copy, feed, login, program, sendmail, stranger};
use common::{Daemon, Site, TIMEOUT, unpacked};
use nix::unistd::geteuid;

/// Waits for the only message of a mailbox. Returns the lines of its header, unfolded, and its
/// body.
fn only(daemon: &Daemon, site: &Site, user: &str) -> (Vec<String>, Vec<u8>) {
    let mut mail = daemon.wait_mail(site, user, 1);
    assert_eq!(mail.len(), 1);
    let mail = mail.remove(0);
    let end = mail.windows(2).position(|two| two == b"\n\n").expect("a header") + 1;
    let header = String::from_utf8_lossy(&mail[..end]).replace("\n\t", " ").replace("\n ", " ");
    (header.lines().map(str::to_owned).collect(), mail[end + 1..].to_vec())
}

#[test]
fn a_message_arrives_with_the_fields_that_it_lacks() {
    let site = Site::new();
    let daemon = site.start();
    let output = sendmail(&site, &["jon"], b"hello\n");
    assert_eq!(code_and_text(&output), (0, String::new()), "{}", daemon.log());
    let (header, body) = only(&daemon, &site, "jon");
    let (name, uid) = (login(), geteuid());
    assert_eq!(header[0], format!("Return-Path: <{name}@razorback>"));
    assert_eq!(header[1], "Delivered-To: jon@razorback");
    let received = format!("Received: by razorback.test (penfold, from uid {uid} {name}, program programs-");
    assert!(header[2].starts_with(&received) && header[2].contains(") id "), "{header:?}");
    assert!(header.iter().any(|line| line.starts_with("From: ") && line.contains(&format!("{name}@razorback"))));
    assert!(header.iter().any(|line| line.starts_with("Date: ")), "{header:?}");
    assert!(header.iter().any(|line| line.starts_with("Message-ID: ")), "{header:?}");
    assert_eq!(body, b"hello\n");
    let line = daemon.wait_words(&[" accept from=<", "proto=local"]);
    assert!(
        line.contains(&format!(" uid={uid} program=programs-")) && line.contains(&format!(" user={name} ")),
        "{line}"
    );
}

#[test]
fn any_message_arrives_unchanged_or_as_documented() {
    let site = Site::new();
    let daemon = site.start();
    let long = "x".repeat(3_000_000);
    let long_body = format!("{long}\n");
    let cases: &[(&[&str], String, &str, &str)] = &[
        // These rows have dots, line ends, and octets that are not text.
        (&[], "a\n.\nb\n".into(), "a\n", ""),
        (&["-i"], "a\n.\nb\n".into(), "a\n.\nb\n", ""),
        (&["-oi", "-oem", "-odb"], "a\n.\nb\n".into(), "a\n.\nb\n", ""),
        (&[], "..\n".into(), "..\n", ""),
        (&[], "Subject: x\r\n\r\na\r\nb\r\n".into(), "a\nb\n", "Subject: x"),
        (&[], "Subject: x\n\na\rb\r\r\n".into(), "a b\n", "Subject: x"),
        (&[], "Subject: x\rBcc: y\n\na\n".into(), "a\n", "Subject: x Bcc: y"),
        (&[], "no end".into(), "no end\n", ""),
        (&[], "Subject: \u{fc}\n\n\u{fc}\0\n".into(), "\u{fc}?\n", "Subject: \u{fc}"),
        (&[], format!("Subject: x\n\n{long}"), &long_body, "Subject: x"),
        (&[], String::new(), "", ""),
        (&[], "\n".into(), "", ""),
        (&[], " indented\n".into(), " indented\n", ""),
        // The separator line of an mbox file is not a header field.
        (&[], "From jon Mon Jan  1\nSubject: x\n\na\n".into(), "a\n", "Subject: x"),
        // These rows name the sender.
        (&["-F", "J \"X\" P", "-f", "p@a.test"], "\na\n".into(), "a\n", r#"From: "J \"X\" P" <p@a.test>"#),
        (&["-FJ\u{f6}n", "-fp@a.test"], "\na\n".into(), "a\n", "From: =?UTF-8?B?SsO2bg==?= <p@a.test>"),
        (&["-F", "X", "-r", "p@a.test"], "From: q@a.test\n\na\n".into(), "a\n", "From: q@a.test"),
        (&["-f", "P <p@a.test>"], "\na\n".into(), "a\n", "Return-Path: <p@a.test>"),
        (&["-f", "<>"], "\na\n".into(), "a\n", "Return-Path: <>"),
        (&["-f", ""], "\na\n".into(), "a\n", "Return-Path: <>"),
        (&["-f", "www"], "\na\n".into(), "a\n", "From: www@razorback"),
        // These rows have names without a domain.
        (&[], "From: root\nTo: jon, Cron <cron>\n\na\n".into(), "a\n", "To: jon@razorback, Cron <cron@razorback>"),
    ];
    for (number, (options, input, body, field)) in cases.iter().enumerate() {
        site.write("users", &format!("jon::\nroot::\nu{number}::\n"));
        let user = format!("u{number}");
        let arguments = [options, &["--", user.as_str()][..]].concat();
        let output = sendmail(&site, &arguments, input.as_bytes());
        assert_eq!(code_and_text(&output), (0, String::new()), "{options:?} {input:.50}: {}", daemon.log());
        let (header, text) = only(&daemon, &site, &user);
        assert!(text == body.as_bytes(), "{options:?} {input:.50}: {:.90}", String::from_utf8_lossy(&text));
        assert!(field.is_empty() || header.iter().any(|line| line == field), "{options:?} {input:.50}: {header:?}");
        for name in ["From", "Date", "Message-ID", "Received"] {
            let count = header.iter().filter(|line| line.starts_with(&format!("{name}: "))).count();
            assert_eq!(count, 1, "{name} in {header:?}");
        }
    }
}

#[test]
fn recipients_are_those_documented_and_bcc_is_removed() {
    let site = Site::new();
    site.write("users", "a::\nb::\nc::\nd::\n");
    let daemon = site.start();
    let text = |fields: &str| format!("{fields}\nSubject: x\n\nhello\n");
    for (options, input, recipients) in [
        (&["a", "b"][..], text("To: d"), "a b"),
        (&["a, B <b@razorback>"], text("To: d"), "a b"),
        (&["-t"], text("To: a, (x) \"B, C\"\n <b@razorback>\nCC: team: c;"), "a b c"),
        (&["-t"], text("Bcc: a,\n b\nTo: c"), "a b c"),
        (&["-ti", "d"], text("To: a"), "a d"),
        (&["-t", "-oi", "-f", "x@y.test"], text("To: a\nResent-To: b\nResent-Bcc: c"), "b c"),
        (&["-bm", "a"], text("Bcc: d"), "a"),
        (&["-t", "--", "a"], text("To: a"), "a"),
        // Addresses of the header are read as their author meant them: see submit/recipients.rs.
        (&["-t"], text("To: b@razorback <a@razorback>"), "a"),
        (&["b@razorback <a@razorback>"], text("To: d"), "a"),
        (&["-t"], text("To: undisclosed-recipients:;\nBcc: a; b;"), "a b"),
        (&["-t"], text("To: =?utf-8?q?b,_B?= <a@razorback>\nCc: <@x.org:c@razorback>"), "a c"),
    ] {
        let before = daemon.log().lines().filter(|line| line.contains(" done")).count();
        let output = sendmail(&site, options, input.as_bytes());
        assert_eq!(code_and_text(&output), (0, String::new()), "{options:?} {input}");
        daemon.wait_until("it is done", || {
            daemon.log().lines().filter(|line| line.contains(" done") || line.contains("sent to=")).count() > before
                && site.spooled().is_empty()
        });
        let mut got = Vec::new();
        for user in ["a", "b", "c", "d"] {
            for mail in site.mail(user) {
                let mail = String::from_utf8_lossy(&mail).into_owned();
                assert!(!mail.to_lowercase().contains("bcc:"), "{mail}");
                got.push(user);
            }
            let _ = fs::remove_dir_all(site.mailbox(user));
        }
        assert_eq!(got.join(" "), recipients, "{options:?} {input}");
    }
}

#[test]
fn a_program_may_name_more_recipients_than_a_client() {
    let site = Site::with("limits.recipients = 100");
    let users: Vec<String> = (0..150).map(|number| format!("u{number}")).collect();
    site.write("users", &users.iter().map(|user| format!("{user}::\n")).collect::<String>());
    let daemon = site.start();
    let input = format!("To: {}\n\nhello\n", users.join(",\n "));
    assert_eq!(code_and_text(&sendmail(&site, &["-t"], input.as_bytes())), (0, String::new()));
    daemon.wait_words(&[" accept from=<", " to=150 "]);
    assert!(daemon.settles(&site) && users.iter().all(|user| site.mail(user).len() == 1));
}

#[test]
fn a_rejected_message_is_explained_and_reaches_no_recipient() {
    let mut site = Site::with("remote.local_only = true");
    site.set("limits", "message_size", "\"64K\"");
    site.write("aliases", "away: x@elsewhere.test\n");
    let daemon = site.start();
    let (large, header) = ("x\n".repeat(99_000), format!("To: jon\nX: {}\n\n", "x".repeat(2 << 20)));
    for (options, input, code, says) in [
        (&[][..], "hello\n", 64, "sendmail: Recipient names must be specified"),
        (&["-t"], "Subject: x\n\nhello\n", 64, "sendmail: No recipient addresses found in header"),
        (&["-t"], "To: undisclosed-recipients:;\n\n", 64, "sendmail: No recipient addresses found in header"),
        (&["-bx", "jon"], "hello\n", 64, "sendmail: option -b has no mode x"),
        (&["-f"], "hello\n", 64, "sendmail: option -f needs a value"),
        (&["-f", "a b c@", "jon"], "hello\n", 65, "sendmail: 'a b c@' cannot be read as an address"),
        (&["jon", "<oops"], "hello\n", 65, "sendmail: '<oops' cannot be read as an address"),
        (&["-t"], "To: jon, <oops\n\nhello\n", 65, "sendmail: '<oops' cannot be read as an address"),
        (&["-t"], &header, 65, "sendmail: the header is too long to look for recipients"),
        (&["jon", "nobody-here"], "hello\n", 67, "sendmail: 550 5.1.1 <nobody-here@razorback> User unknown"),
        (&["\"a>\r\nRCPT TO:<root\"@razorback"], "hello\n", 65, "sendmail: '\"a>??RCPT TO:<root\"@razorback' cannot"),
        (&["-f", "a@b>\r\nRCPT TO:<root", "jon"], "hello\n", 65, "sendmail: 'a@b>??RCPT TO:<root' cannot be"),
        (&["|touch /tmp/x"], "hello\n", 65, "sendmail: '|touch /tmp/x' cannot be read as an address"),
        (&["jon", "x@elsewhere.test"], "hello\n", 69, "sendmail: 550 5.4.4 <x@elsewhere.test> No mail leaves"),
        (&["jon", "away"], "hello\n", 69, "sendmail: 550 5.4.4 <away@razorback> No mail leaves"),
        (&["jon"], &large, 69, "sendmail: 552 5.3.4 The message is too big; the limit is 65536 bytes"),
    ] {
        let (ended, text) = code_and_text(&sendmail(&site, options, input.as_bytes()));
        assert_eq!(ended, code, "{options:?}: {text}");
        assert!(text.starts_with(says) && text.lines().count() == 1, "{options:?}: {text}");
    }
    drop(daemon);
    let says = format!("sendmail: the mail system is not running (connect {}: ", site.path("penfold.sock").display());
    for (arguments, ends) in [(&["jon"][..], "): message not sent\n"), (&["-bv", "jon"], ")\n"), (&["-q"], ")\n")] {
        let (code, text) = code_and_text(&sendmail(&site, arguments, b"hello\n"));
        assert!(code == 75 && text.starts_with(&says) && text.ends_with(ends), "{arguments:?}: {text}");
    }
    let output = feed(&mut command(&site, "mailq", &[]), b"");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "-- queue is empty\n");
    assert_eq!(
        (output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()),
        (Some(0), "mailq: no daemon is running; this list is from the spool\n")
    );
    assert_eq!((site.mail("jon").len(), site.spooled().len()), (0, 0));
}

#[test]
fn a_session_over_standard_input_knows_its_user() {
    let site = Site::new();
    let daemon = site.start();
    let dialogue = b"EHLO here\r\nMAIL FROM:<root>\r\nRCPT TO:<jon>\r\nDATA\r\n\
        From: root\r\nSubject: x\r\n\r\n..\r\n.\r\nRCPT TO:<x@y.test>\r\nQUIT\r\n";
    let output = sendmail(&site, &["-bs"], dialogue);
    let (code, text) = code_and_text(&output);
    let codes: Vec<&str> = text.lines().filter(|line| line.get(3..4) == Some(" ")).map(|line| &line[..3]).collect();
    assert_eq!((code, codes.join(" ").as_str()), (0, "220 250 250 250 354 250 503 221"), "{text}");
    let (header, body) = only(&daemon, &site, "jon");
    assert_eq!(body, b".\n");
    assert!(header.contains(&"From: root@razorback".to_owned()) && header[2].contains(", from uid "), "{header:?}");
    // A user or a shell script writes lines that end in LF.
    let as_typed: Vec<u8> = dialogue.iter().copied().filter(|octet| *octet != b'\r').collect();
    let (code, text) = code_and_text(&sendmail(&site, &["-bs"], &as_typed));
    assert!(code == 0 && text.contains("\r\n250 2.0.0 ") && text.contains("\r\n221 "), "{text}");
    let mail = daemon.wait_mail(&site, "jon", 2);
    assert!(mail.iter().all(|mail| mail.ends_with(b"\n\n.\n")), "{mail:?}");
    // If standard input is a socket, another program may be at its end, which must end lines with
    // CR LF.
    let (mut own, theirs) = UnixStream::pair().expect("a pair");
    own.write_all(b"NOOP\nQUIT\r\n").expect("written");
    let output = command(&site, "sendmail", &["-bs"]).stdin(std::os::fd::OwnedFd::from(theirs)).output();
    let (_, text) = code_and_text(&output.expect("it runs"));
    assert!(text.contains("\r\n500 ") && !text.contains("\r\n250 "), "{text}");
    drop((own, daemon));
    let (code, text) = code_and_text(&sendmail(&site, &["-bs"], dialogue));
    assert!(code == 75 && text.starts_with("421 4.3.0 The mail system is not running\r\n"), "{text}");
}

#[test]
fn the_other_modes_do_what_programs_expect() {
    let site = Site::new();
    site.write("aliases", "info: jon, x@elsewhere.test\nme: jon\n");
    let daemon = site.start();
    let mailbox = site.mailbox("jon").display().to_string();
    for (name, arguments, code, says) in [
        ("mailq", &[][..], 0, "-- queue is empty\n".to_owned()),
        ("mailq", &["-v", "-Ac"], 0, "-- queue is empty\n".to_owned()),
        ("sendmail-msp", &["-bp"], 0, "-- queue is empty\n".to_owned()),
        ("sendmail", &["-bp"], 0, "-- queue is empty\n".to_owned()),
        ("sendmail", &["-q"], 0, String::new()),
        ("sendmail", &["-q30m"], 0, String::new()),
        ("sendmail", &["-qRelsewhere.test"], 69, "sendmail: nothing waits for elsewhere.test\n".to_owned()),
        ("sendmail", &["-qRa b\nflush"], 69, "sendmail: nothing waits for a b\nflush\n".to_owned()),
        ("penfoldctl", &["flush", "a b"], 69, "penfoldctl: nothing waits for a b\n".to_owned()),
        ("penfoldctl", &["flush", ""], 69, "penfoldctl: nothing waits for \n".to_owned()),
        ("sendmail", &["-bv", "\"john smith\"@elsewhere.test"], 0, {
            "\"john smith\"@elsewhere.test: mx:elsewhere.test\n".to_owned()
        }),
        ("sendmail", &["-bv", "\"a%20 b\"@elsewhere.test"], 0, {
            "\"a%20 b\"@elsewhere.test: mx:elsewhere.test\n".to_owned()
        }),
        ("newaliases", &[], 0, format!("{}: 2 aliases\n", site.path("aliases").display())),
        ("sendmail", &["-bi"], 0, format!("{}: 2 aliases\n", site.path("aliases").display())),
        ("sendmail", &["-bv", "jon"], 0, format!("jon@razorback: mailbox {mailbox}\n")),
        (
            "sendmail",
            &["-bv", "info"],
            0,
            format!(
                "info@razorback -> jon@razorback: mailbox {mailbox}\n\
                 info@razorback -> x@elsewhere.test: mx:elsewhere.test\n"
            ),
        ),
        ("sendmail", &["-bv", "nobody-here", "jon@razorback"], 67, {
            format!("nobody-here@razorback: user unknown\njon@razorback: mailbox {mailbox}\n")
        }),
    ] {
        let output = feed(&mut command(&site, name, arguments), b"");
        assert_eq!(code_and_text(&output), (code, says), "{name} {arguments:?}");
    }
    site.write("aliases", "info: jon, jon@@x\n");
    let (code, text) = code_and_text(&feed(&mut command(&site, "newaliases", &[]), b""));
    assert!(code == 65 && text.contains("aliases:1:12: "), "{text}");
    let (code, text) = code_and_text(&sendmail(&site, &["-v", "jon"], b"hello\n"));
    let (_, end) = text.split_once("\n>>> QUIT\n").expect("all of the dialogue");
    assert!(code == 0 && end.starts_with("221 ") && text.contains(">>> RCPT TO:<jon>\n250 "), "{text}");
    drop(daemon);
    // With -bd sendmail runs the penfoldd that is in the same directory.
    site.write("aliases", "me: jon\n");
    copy(Path::new(env!("CARGO_BIN_EXE_penfoldd")), &site.path("penfoldd"));
    let conf = site.path("penfold.conf").display().to_string();
    let mut command = command(&site, "sendmail", &["-bD", "-q30m", "-C", &conf]);
    command.stdin(Stdio::null());
    let daemon = Daemon::spawn(command);
    assert_eq!(code_and_text(&sendmail(&site, &["me"], b"hello\n")), (0, String::new()));
    daemon.wait_mail(&site, "jon", 2);
}

#[test]
fn any_user_may_send_and_nothing_else() {
    let site = Site::new();
    site.write("aliases", "info: jon, x@elsewhere.test\nwrong: nosuch\n");
    site.write("routes", "old.test error:5.1.6 moved to host.inside.test\nlate.test error:4.2.1 host.inside.test\n");
    let daemon = site.start();
    for (name, arguments, code, says) in [
        ("sendmail", &["jon"][..], 0, ""),
        ("sendmail", &["-bv", "nobody-here"], 67, "nobody-here@razorback: user unknown\n"),
        // Nothing tells where an alias or a route leads.
        ("sendmail", &["-bv", "jon", "info"], 0, "jon@razorback: deliverable\ninfo@razorback: deliverable\n"),
        ("sendmail", &["-bv", "wrong"], 67, "wrong@razorback: user unknown\n"),
        ("sendmail", &["-bv", "x@elsewhere.test"], 0, "x@elsewhere.test: deliverable\n"),
        ("sendmail", &["-bv", "x@old.test"], 69, "x@old.test: not deliverable\n"),
        ("sendmail", &["-bv", "x@late.test"], 75, "x@late.test: not known now\n"),
        ("mailq", &[], 0, "-- queue is empty\n"),
        ("sendmail", &["-q"], 77, "sendmail: only root and nobody may run the queue\n"),
        ("newaliases", &[], 0, "/"),
    ] {
        let Some(mut command) = stranger(&command(&site, name, arguments)) else { return };
        let (ended, text) = code_and_text(&feed(&mut command, b"Subject: x\n\nhello\n"));
        let is_said = if name == "newaliases" { text.starts_with(says) } else { text == says };
        assert!(ended == code && is_said, "{name} {arguments:?}: {ended} {text}");
    }
    let (header, _) = only(&daemon, &site, "jon");
    assert_eq!(header[0], "Return-Path: <uid54321@razorback>");
    assert!(header[2].contains("(penfold, from uid 54321, program "), "{header:?}");
    daemon.wait_words(&[" accept from=<uid54321@razorback>", " uid=54321 ", " user=- "]);
}

#[test]
fn a_user_sees_only_his_own_mail_in_the_queue() {
    let site = Site::new();
    let daemon = site.start();
    let Some(mut own) = stranger(&command(&site, "sendmail", &["x@elsewhere.test"])) else { return };
    let forged = b"Received: by razorback.test (penfold, from uid 54321) id X;\n\tnow\n\nhello\n";
    assert_eq!(code_and_text(&feed(&mut own, b"hello\n")), (0, String::new()));
    assert_eq!(code_and_text(&sendmail(&site, &["-f", "uid54321", "y@elsewhere.test"], forged)), (0, String::new()));
    daemon.submit(&["z@elsewhere.test"]);
    daemon.wait_words(&[" deferred to=<z@elsewhere.test>"]);
    let mut mailq = stranger(&command(&site, "mailq", &[])).expect("root");
    let (code, text) = code_and_text(&feed(&mut mailq, b""));
    assert!(code == 0 && text.contains("<x@elsewhere.test>") && text.contains("-- 1 message, "), "{text}");
    assert!(code_and_text(&feed(&mut command(&site, "mailq", &[]), b"")).1.contains("-- 3 messages, "));
    drop(daemon);
    let (code, text) = code_and_text(&feed(&mut mailq, b""));
    assert!(code == 77 && text == "mailq: only root and nobody may list the queue while no daemon runs\n", "{text}");
}

#[test]
fn a_message_is_durable_when_sendmail_exits_with_0() {
    let site = Site::new();
    for number in 1..=5 {
        let daemon = site.start();
        assert_eq!(code_and_text(&sendmail(&site, &["jon"], b"Subject: x\n\nhello\n")), (0, String::new()));
        daemon.kill9();
        let daemon = site.start();
        assert_eq!(daemon.wait_mail(&site, "jon", number).len(), number);
        assert!(daemon.settles(&site));
    }
}

#[test]
fn a_slow_program_survives_a_restart_of_the_daemon() {
    let site = Site::with("limits.command_timeout = \"200ms\"\nlimits.data_timeout = \"200ms\"");
    let daemon = site.start();
    let mut child = command(&site, "sendmail", &["jon"]).stdin(Stdio::piped()).spawn().expect("a program");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(b"Subject: x\n\nbefore\n").expect("it reads");
    daemon.kill9();
    let daemon = site.start();
    std::thread::sleep(std::time::Duration::from_millis(500));
    stdin.write_all(b"after\n").expect("it reads");
    drop(stdin);
    assert!(child.wait().expect("a child").success());
    assert_eq!(only(&daemon, &site, "jon").1, b"before\nafter\n");
}

#[test]
fn a_silent_client_times_out() {
    let site = Site::with("limits.command_timeout = \"500ms\"");
    let _daemon = site.start();
    let mut stream = UnixStream::connect(site.path("penfold.sock")).expect("a socket");
    stream.write_all(b"submit quiet\n").expect("it listens");
    stream.set_read_timeout(Some(TIMEOUT)).expect("a limit");
    let mut received = String::new();
    stream.read_to_string(&mut received).expect("its end");
    let lines: Vec<&str> = received.lines().collect();
    assert!(lines[0] == "ok" && lines[1].starts_with("220 ") && lines[2].starts_with("421 4.4.2 "), "{received}");
}

#[test]
fn the_sender_and_from_are_masked_together() {
    let mut site = Site::with("submission.masquerade = \"example.org\"");
    site.write("rewrite", "cron postmaster@example.net\n@old.test @new.test\n");
    site.set("submission", "rewrite", &format!("{:?}", site.path("rewrite")));
    let daemon = site.start();
    for (number, (sender, from, path, shown)) in [
        ("root", "Cron Daemon <root>", "<root@example.org>", "Cron Daemon <root@example.org>"),
        ("root@razorback.test", "root@localhost", "<root@example.org>", "root@example.org"),
        ("cron", "\"C\" <cron@razorback> (x)", "<postmaster@example.net>", "\"C\" <postmaster@example.net> (x)"),
        ("a@old.test", "a@old.test, B <b@other.test>", "<a@new.test>", "a@new.test, B <b@other.test>"),
        ("x@other.test", "x@other.test", "<x@other.test>", "x@other.test"),
        ("<>", "cron", "<>", "postmaster@example.net"),
    ]
    .into_iter()
    .enumerate()
    {
        site.write("users", &format!("jon::\nroot::\nu{number}::\n"));
        let input = format!("From: {from}\nReply-To: root\nTo: jon\n\nhello\n");
        let output = sendmail(&site, &["-f", sender, &format!("u{number}")], input.as_bytes());
        assert_eq!(code_and_text(&output), (0, String::new()), "{sender}");
        let (header, _) = only(&daemon, &site, &format!("u{number}"));
        let wanted = [format!("Return-Path: {path}"), format!("From: {shown}"), "Reply-To: root@razorback".to_owned()];
        assert!(wanted.iter().all(|field| header.contains(field)), "{wanted:?} in {header:?}");
    }
}

/// The path of a program, if it is installed.
fn find(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let found = names.iter().find_map(|name| directories.iter().map(|dir| dir.join(name)).find(|path| path.exists()));
    if found.is_none() {
        common::skipped(format_args!("{} is not installed", names[0]));
    }
    found
}

/// Runs a program, and asserts that it sends `How are you?` to jon.
fn sends(program: &Site, daemon: &Daemon, command: &mut Command, input: &str) {
    let home = program.path("");
    let command = command.env("HOME", &home).env("PENFOLD_CONFIG", program.path("penfold.conf")).current_dir(&home);
    let output = feed(command, input.as_bytes());
    assert!(output.status.success(), "{command:?}: {output:?}\n{}", daemon.log());
    let (header, body) = only(daemon, program, "jon");
    assert!(String::from_utf8_lossy(&body).contains("How are you?"), "{command:?}: {header:?}");
    assert!(header[2].contains("(penfold, from uid "), "{header:?}");
    for name in ["from: ", "to: ", "date: ", "message-id: ", "subject: "] {
        let count = header.iter().filter(|line| line.to_lowercase().starts_with(name)).count();
        assert_eq!(count, 1, "{name} of {command:?} in {header:?}");
    }
    fs::remove_dir_all(program.mailbox("jon")).expect("a mailbox");
}

const TO: &str = "jon@razorback.test";

#[test]
fn programs_in_debian_send_mail() {
    let site = Site::new();
    let daemon = site.start();
    let ours = program(&site, "sendmail").display().to_string();
    if let Some(mutt) = find(&["mutt"]) {
        let set = format!("set sendmail=\"{ours} -oem -oi\" copy=no");
        let mut command = Command::new(mutt);
        command.args(["-n", "-F", "/dev/null", "-e", &set, "-s", "hello", "-b", "root@razorback", "--", TO]);
        sends(&site, &daemon, &mut command, "How are you?\n");
        daemon.wait_mail(&site, "root", 1);
    }
    if let Some(nail) = find(&["s-nail"]) {
        let mut command = Command::new(nail);
        command.args(["-n", "-S", &format!("mta={ours}"), "-s", "hello", TO]).env("MAILRC", "/dev/null");
        sends(&site, &daemon, &mut command, "How are you?\n");
    }
    if let Some(mut command) = unpacked::bsd_mailx() {
        site.write("mailrc", &format!("set sendmail={ours}\n"));
        command.args(["-n", "-s", "hello", TO]).env("MAILRC", site.path("mailrc"));
        sends(&site, &daemon, &mut command, "How are you?\n");
    }
    if let Some(php) = find(&["php"]) {
        let path = format!("sendmail_path={ours} -t -i");
        let code = format!("exit(mail('{TO}', 'hello', \"How\\nare you?\\n.\\nHow are you?\", 'X-A: b') ? 0 : 1);");
        let mut command = Command::new(php);
        command.args(["-d", &path, "-r", &code]);
        sends(&site, &daemon, &mut command, "");
    }
    if let Some(git) = find(&["git-send-email", "../lib/git-core/git-send-email", "../libexec/git-core/git-send-email"])
    {
        let patch = "From 0123456789012345678901234567890123456789 Mon Sep 17 00:00:00 2001\n\
            From: Jon <jon@razorback.test>\nDate: Sun, 22 Nov 2026 10:15:00 +0000\nSubject: [PATCH] hello\n\n\
            How are you?\n---\n a | 1 +\n 1 file changed, 1 insertion(+)\n";
        site.write("0001-hello.patch", patch);
        site.write("gitconfig", "[user]\nname = Jon\nemail = jon@razorback.test\n");
        let mut command = Command::new(git);
        command.args(["--quiet", "--confirm=never", "--suppress-cc=all", "--from", TO, "--to", TO, "--smtp-server"]);
        command.args([&ours, "0001-hello.patch"]).env("GIT_CONFIG_GLOBAL", site.path("gitconfig"));
        sends(&site, &daemon, &mut command, "");
    }
}

/// The directory of a package that tests/setup has unpacked.
fn package(name: &str) -> Option<PathBuf> {
    let tree = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("peers").join(format!("{name}.pkg"));
    if !tree.is_dir() {
        common::skipped(format_args!("{name} is not unpacked"));
    }
    tree.is_dir().then_some(tree)
}

/// A mount namespace where /usr/sbin/sendmail is penfold's. `overlays` are further directories,
/// each with the directory over which it is mounted.
fn in_place_of_sendmail(site: &Site, overlays: &[(PathBuf, &str)]) -> Option<Mounts> {
    let ours = program(site, "sendmail").display().to_string();
    let script = format!("#!/bin/sh\nexec {ours} -C {} \"$@\"\n", site.path("penfold.conf").display());
    fs::create_dir(site.path("sbin")).expect("a directory");
    site.write("sbin/sendmail", &script);
    fs::set_permissions(site.path("sbin/sendmail"), fs::Permissions::from_mode(0o755)).expect("mode 755");
    let mut mounts = vec![(site.path("sbin"), "/usr/sbin")];
    mounts.extend(overlays.iter().cloned());
    let overlay =
        |(dir, over): &(PathBuf, &str)| format!("mount -t overlay -o lowerdir={}:{over} overlay {over}", dir.display());
    let script: Vec<String> = mounts.iter().map(overlay).collect();
    Mounts::new(&format!("{} && mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/spool", script.join(" && ")))
}

#[test]
fn cron_sends_the_output_of_a_job() {
    if !geteuid().is_root() {
        return common::skipped("only root can run cron");
    }
    let Some(tree) = package("cron") else { return };
    let site = Site::new();
    let daemon = site.start();
    fs::create_dir(site.path("etc")).expect("a directory");
    let table = format!("MAILTO={TO}\n@reboot root echo 'How are you?'; echo .; echo more\n");
    fs::write(site.path("etc/crontab"), table).expect("a file");
    fs::create_dir(site.path("etc/pam.d")).expect("a directory");
    fs::write(
        site.path("etc/pam.d/cron"),
        "auth required pam_permit.so\naccount required pam_permit.so\nsession required pam_permit.so\n",
    )
    .expect("a file");
    let Some(mounts) = in_place_of_sendmail(&site, &[(site.path("etc"), "/etc")]) else { return };
    mounts.shell("mkdir -p /var/spool/cron/crontabs");
    let mut cron = mounts.enter(&tree.join("usr/sbin/cron").display().to_string());
    let mut cron = cron.arg("-f").stdin(Stdio::null()).spawn().expect("nsenter");
    let mail = daemon.becomes_true(|| !site.mail("jon").is_empty());
    cron.kill().and_then(|()| cron.wait()).expect("a child");
    assert!(mail, "{}", daemon.log());
    let (header, body) = only(&daemon, &site, "jon");
    assert_eq!(body, b"How are you?\n.\nmore\n");
    assert!(header.contains(&"From: root@razorback (Cron Daemon)".to_owned()), "{header:?}");
}

#[test]
fn logwatch_sends_its_report() {
    let Some(tree) = package("logwatch").filter(|_| geteuid().is_root()) else { return };
    let site = Site::new();
    let daemon = site.start();
    let share = tree.join("usr/share");
    fs::create_dir(site.path("share")).expect("a directory");
    symlink(share.join("logwatch"), site.path("share/logwatch")).expect("a link");
    daemon.submit(&["root"]);
    daemon.wait_mail(&site, "root", 1);
    // The mail is in the mailbox before the log says so.
    daemon.wait_words(&[" done"]);
    let sample = |name: &str| fs::read_to_string(common::built::source("etc/logwatch").join(name)).expect(name);
    let log: String =
        daemon.log().lines().map(|line| format!("Nov 30 06:00:00 razorback penfoldd[7]: {line}\n")).collect();
    site.write("mail.log", &log);
    for (name, text) in [
        ("conf/logwatch.conf", &*format!("TmpDir = /run\nLogDir = {}\nRange = all\n", site.path("").display())),
        ("conf/services/penfold.conf", &sample("penfold.conf")),
        ("scripts/services/penfold", &sample("penfold")),
    ] {
        let path = site.path("etc/logwatch").join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(&path, text).expect("a file");
    }
    let overlays = [(site.path("share"), "/usr/share"), (site.path("etc"), "/etc")];
    let Some(mounts) = in_place_of_sendmail(&site, &overlays) else { return };
    let mut logwatch = mounts.enter("perl");
    logwatch.arg(tree.join("usr/sbin/logwatch")).args(["--output", "mail", "--mailto", TO, "--service", "penfold"]);
    logwatch.env("PERL5LIB", tree.join("usr/share/perl5"));
    let output = feed(&mut logwatch, b"");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let (header, body) = only(&daemon, &site, "jon");
    assert!(header.iter().any(|line| line.starts_with("Subject: Logwatch for ")), "{header:?}");
    let body = String::from_utf8_lossy(&body);
    for part in ["penfold Begin", "Messages accepted: 1\n", "1  from other hosts\n", "1  maildir\n"] {
        assert!(body.contains(part), "{part}\n{body}");
    }
    // The script knows every line of a normal day.
    assert!(!body.contains("Other lines"), "{body}");
}

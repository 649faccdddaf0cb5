//! Reports to senders, end to end: which failures are reported, to which address, and how often.
//! Python's email package, where python3 is installed, parses what arrives.
//!
//! The texts of reports are tested in tests/queue/report_texts.rs.

use std::io::Write;
use std::process::{Command, Stdio};

use common::client::Client;
use common::remote::{Remote, Sink, Then};
use common::{Daemon, Site};

/// A report in a mailbox as Python parses it, in JSON with sorted keys. `None` without Python.
fn read_by_python(mail: &[u8]) -> Option<String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/queue/report_reads.py");
    let (input, output) = (Stdio::piped(), Stdio::piped());
    let Ok(mut child) = Command::new("python3").args(["-B", script]).stdin(input).stdout(output).spawn() else {
        common::skipped("python3 is not installed");
        return None;
    };
    child.stdin.take().expect("a pipe").write_all(mail).expect("python3 reads");
    let output = child.wait_with_output().expect("python3 ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(mail));
    Some(String::from_utf8(output.stdout).expect("JSON is UTF-8"))
}

/// Waits until the queue is empty, and returns the only report in a user's mailbox.
fn report(daemon: &Daemon, site: &Site, user: &str) -> String {
    assert!(daemon.settles(site), "{:?}", site.spooled());
    let mut mail = site.mail(user);
    assert_eq!(mail.len(), 1, "{mail:?}");
    String::from_utf8(mail.remove(0)).expect("ASCII")
}

fn has(text: &str, wanted: &[&str]) {
    wanted.iter().for_each(|part| assert!(text.contains(part), "no {part:?} in:\n{text}"));
}

fn site_with(remote: &Remote) -> Site {
    let site = Site::with("queue.retry_min = \"1s\"\nqueue.retry_max = \"1s\"");
    site.add("routes", &format!("example.test {}", remote.host_port()));
    site
}

fn refusing() -> Remote {
    Remote::with(Sink::default().reply("RCPT", "550 5.1.1 no such user here"))
}

const TEXT: &str = "Subject: Lunch\r\nMessage-ID: <3@frogbog.test>\r\nReferences: <1@frogbog.test> <2@razorback>\r\n\
    From: jon@razorback\r\n\r\nOn Friday?\r\n";

/// Sends a message in a session of its own.
fn send(daemon: &Daemon, sender: &str, recipients: &[&str]) {
    daemon.client().send(sender, recipients, TEXT);
}

/// Waits until the log has said `done` for this many messages, each message's last line. A report
/// is a message, too. Returns how often the log has each of `words`.
fn counts<const N: usize>(daemon: &Daemon, done: usize, words: [&str; N]) -> [usize; N] {
    let count = |words: &str| daemon.log().matches(words).count();
    daemon.wait_until(&format!("{done} entries to be done"), || count(" done") >= done);
    assert_eq!(count(" done"), done, "{}", daemon.log());
    words.map(count)
}

#[test]
fn failures_at_one_destination_are_one_report_with_the_hosts_reply() {
    let rules = Sink::default()
        .reply("RCPT TO:<a@", "550 5.1.1 we have no a")
        .reply("RCPT TO:<b@", "550-5.7.1 we have b\n550 5.7.1 but not for you");
    let remote = Remote::with(rules);
    let site = site_with(&remote);
    let daemon = site.start();
    send(&daemon, "jon@razorback", &["a@example.test", "b@example.test", "c@example.test"]);
    let text = report(&daemon, &site, "jon");
    assert_eq!(remote.messages(1)[0].recipients, ["<c@example.test>"]);
    has(&text, &["Return-Path: <>\nDelivered-To: jon@razorback\n", "Subject: Undelivered mail: Lunch\n"]);
    has(&text, &["In-Reply-To: <3@frogbog.test>\n", "550 5.1.1 we have no a", "we have b", "but not for you"]);
    assert!(!text.contains("c@example.test"), "{text}");
    let Some(json) = read_by_python(text.as_bytes()) else { return };
    has(
        &json,
        &[
            r#""from": ["MAILER-DAEMON@razorback.test"]"#,
            r#""in_reply_to": "<3@frogbog.test>""#,
            r#""references": ["<1@frogbog.test>", "<2@razorback>", "<3@frogbog.test>"]"#,
            r#""to": ["jon@razorback"]"#,
            r#""Final-Recipient": "rfc822; a@example.test""#,
            r#""Final-Recipient": "rfc822; b@example.test""#,
            r#""Remote-MTA": "dns; [127.0.0.1]""#,
            r#""Status": "5.1.1""#,
            r#""Status": "5.7.1""#,
        ],
    );
}

#[test]
fn each_destination_reports_its_own_failures() {
    let (one, two) = (refusing(), refusing());
    let site = site_with(&one);
    site.add("routes", &format!("other.test {}", two.host_port()));
    let daemon = site.start();
    send(&daemon, "jon@razorback", &["a@example.test", "b@other.test", "root@razorback"]);
    assert!(daemon.settles(&site));
    let reports = site.mail("jon");
    assert_eq!((reports.len(), site.mail("root").len()), (2, 1));
    for report in &reports {
        read_by_python(report);
    }
}

#[test]
fn a_dead_member_of_a_list_is_reported_and_the_others_get_the_mail() {
    let remote = refusing();
    let site = site_with(&remote);
    site.add("aliases", "crew: jon, gone, away@example.test, root");
    let daemon = site.start();
    send(&daemon, "elvis@frogbog.invalid", &["postmaster@razorback"]);
    daemon.wait_mail(&site, "root", 1);
    let mut client = daemon.client();
    client.send("root@razorback", &["crew@razorback"], TEXT);
    assert!(daemon.settles(&site));
    assert_eq!(site.mail("jon").len(), 1);
    let to_root: Vec<String> = site.mail("root").into_iter().map(|m| String::from_utf8(m).expect("ASCII")).collect();
    let reports: Vec<&String> = to_root.iter().filter(|m| m.contains("multipart/report")).collect();
    // root gets four messages: a report about each of the two members that failed, one copy from
    // the list, and the message to the postmaster.
    assert_eq!((reports.len(), to_root.len()), (2, 4));
    for member in ["gone@razorback", "away@example.test"] {
        let report = reports.iter().find(|r| r.contains(&format!("crew@razorback (forwarded to {member})")));
        let report = report.unwrap_or_else(|| panic!("nothing about {member}: {reports:?}"));
        has(report, &["Original-Recipient: rfc822; crew@razorback\n", &format!("Final-Recipient: rfc822; {member}\n")]);
        read_by_python(report.as_bytes());
    }
}

#[test]
fn a_report_to_a_remote_sender_has_the_null_sender() {
    let rules = Sink::default().reply("RCPT TO:<nobody", "550 5.1.1 no such user");
    let remote = Remote::with(rules);
    let site = site_with(&remote);
    let daemon = site.start();
    send(&daemon, "elvis@example.test", &["nobody@example.test"]);
    let message = remote.messages(1).remove(0);
    assert_eq!(message.sender.split(' ').next(), Some("<>"));
    assert_eq!(message.recipients, ["<elvis@example.test>"]);
    let text = String::from_utf8(message.data).expect("ASCII").replace("\r\n", "\n");
    has(&text, &["To: elvis@example.test\n", "Auto-Submitted: auto-replied\n"]);
    read_by_python(text.as_bytes());
    assert!(daemon.settles(&site));
}

#[test]
fn a_report_that_fails_goes_to_the_postmaster_once() {
    let remote = refusing();
    let site = site_with(&remote);
    let daemon = site.start();
    // No report reaches these senders, one remote and one local.
    for sender in ["stranger@example.test", "nobody@razorback"] {
        send(&daemon, sender, &["elvis@example.test"]);
    }
    assert!(daemon.settles(&site));
    daemon.wait_mail(&site, "root", 2);
    let reports = site.mail("root");
    assert_eq!(reports.len(), 2);
    for report in reports {
        let text = String::from_utf8(report.clone()).expect("ASCII");
        has(&text, &["Return-Path: <>\n", "To: postmaster@razorback\n", "It has no sender who could be told"]);
        has(&text, &["Subject: Undelivered report: Undelivered mail: Lunch\n"]);
        read_by_python(&report);
    }
    assert_eq!(counts(&daemon, 6, [" bounced ", " dropped "]), [4, 0]);
}

#[test]
fn a_message_without_a_sender_that_fails_goes_to_the_postmaster() {
    let remote = refusing();
    let site = site_with(&remote);
    let daemon = site.start();
    send(&daemon, "", &["elvis@example.test"]);
    let text = report(&daemon, &site, "root");
    has(&text, &["To: postmaster@razorback\n", "550 5.1.1 no such user here", "Subject: Undelivered report: Lunch\n"]);
    read_by_python(text.as_bytes());
}

#[test]
fn a_report_that_the_postmaster_cannot_get_is_dropped_and_the_log_says_so() {
    let remote = refusing();
    let site = site_with(&remote);
    site.add("aliases", "postmaster: away@example.test");
    let daemon = site.start();
    send(&daemon, "stranger@example.test", &["elvis@example.test"]);
    daemon.wait_words(&[" dropped reason="]);
    assert!(daemon.settles(&site));
    // Three messages end: the message itself, the report about it, and the report to the
    // postmaster, which is dropped.
    assert_eq!(counts(&daemon, 3, [" bounced ", " dropped "]), [2, 1]);
    assert!(site.mail("jon").is_empty() && site.mail("root").is_empty());
}

#[test]
fn reports_to_the_postmaster_and_to_a_forged_sender_are_limited_in_rate() {
    let remote = Remote::with(Sink::default().reply("RCPT TO:<elvis@", "550 5.1.1 no such user here"));
    let site = site_with(&remote);
    let daemon = site.start();
    for (sender, count, limit, why) in [
        ("", 50, 10, "there were more than 10 to the postmaster within an hour"),
        ("eve@example.test", 250, 200, "there were more than 200 to <eve@example.test> within an hour"),
    ] {
        let before = daemon.log().lines().count();
        let mut client = daemon.client();
        (0..count).for_each(|_| _ = client.send(sender, &["elvis@example.test"], TEXT));
        assert!(daemon.settles(&site));
        let logged = |words: &str| daemon.log().lines().skip(before).filter(|line| line.contains(words)).count();
        // The test sees a line of the log a little later than the daemon writes it.
        let failed = || logged(" failed to=<elvis@");
        daemon.wait_until("the log", || failed() >= count && logged(" bounced ") + logged(" dropped ") >= count);
        let counts = (logged(" bounced "), logged(" dropped reason="), logged(why), failed());
        assert_eq!(counts, (limit, count - limit, count - limit, count), "{sender}");
    }
    assert_eq!(site.mail("root").len(), 10);
    // There is no limit for a local sender: a report comes for each dead member of a list.
    let mut client = daemon.client();
    (0..300).for_each(|_| _ = client.send("jon@razorback", &["elvis@example.test"], TEXT));
    assert!(daemon.settles(&site));
    assert_eq!(site.mail("jon").len(), 300);
}

#[test]
fn failing_mail_from_the_postmaster_makes_no_loop() {
    let remote = refusing();
    let site = site_with(&remote);
    // Mail for mailer-daemon goes to the postmaster, and mail for the postmaster to a host that
    // rejects it.
    site.add("aliases", "postmaster: ring@example.test");
    site.add("aliases", "mailer-daemon: postmaster");
    let daemon = site.start();
    for sender in ["postmaster@razorback", "mailer-daemon@razorback", "MAILER-DAEMON@razorback.test", ""] {
        send(&daemon, sender, &["elvis@example.test"]);
    }
    // Three messages were from the postmaster, who gets at most two reports.
    assert_eq!(counts(&daemon, 11, [" bounced ", " dropped "]), [7, 4]);
    assert!(daemon.settles(&site));
}

#[test]
fn a_report_is_retried_like_any_message() {
    let rules = Sink::default().reply("RCPT TO:<nobody", "550 5.1.1 no such user").when(
        "RCPT TO:<elvis",
        Then::Reply("451 4.7.1 later".into()),
        1,
    );
    let remote = Remote::with(rules);
    let site = site_with(&remote);
    let daemon = site.start();
    send(&daemon, "elvis@example.test", &["nobody@example.test"]);
    daemon.wait_words(&[" deferred to=<elvis@example.test>"]);
    assert_eq!(remote.messages(1)[0].recipients, ["<elvis@example.test>"]);
    assert!(daemon.settles(&site));
    assert!(site.mail("root").is_empty());
}

#[test]
fn a_report_is_made_once_though_the_daemon_is_killed() {
    let remote = refusing();
    let site = site_with(&remote);
    for n in 0..5 {
        let daemon = site.start();
        let mut client: Client = daemon.client();
        client.send("jon@razorback", &["a@example.test", "b@example.test"], TEXT);
        if n % 2 == 0 {
            daemon.wait_words(&[" failed to=<b@example.test>"]);
        }
        daemon.kill9();
    }
    let daemon = site.start();
    assert!(daemon.settles(&site));
    daemon.wait_mail(&site, "jon", 5);
    assert_eq!(site.mail("jon").len(), 5);
}

/// The languages and the texts of a site, also after a reload; and the dialogue with the host.
#[test]
fn a_report_is_in_the_languages_and_the_words_of_the_site() {
    let remote = Remote::with(Sink::default().reply("RCPT TO:<elvis@", "550 5.1.1 no such user here"));
    let mut site = site_with(&remote);
    let texts = site.path("languages");
    std::fs::create_dir(&texts).expect("a directory");
    site.set("report", "languages", "[\"de\"]");
    site.set("report", "texts", &format!("{texts:?}"));
    site.write("languages/de.toml", "[subject]\nfailure = \"Leider nicht\"\n[cause.no_mailbox]\nwhat = \"Falsch.\"\n");
    let daemon = site.start();
    let send = |language: &str| {
        let text = format!("Subject: Lunch\r\nContent-Language: {language}\r\n\r\nOn Friday?\r\n");
        daemon.client().send("jon@razorback", &["elvis@example.test", "ann@example.test"], &text);
    };
    send("tlh");
    let text = String::from_utf8(daemon.wait_mail(&site, "jon", 1).remove(0)).expect("ASCII");
    has(
        &text,
        &["Subject: Leider nicht: Lunch\n", "\nContent-Language: de, en\n", "\n    Falsch.\n", "There is no mail"],
    );
    has(&text, &["-> RCPT TO:<elvis@example.test>", "<- 550 5.1.1 no such user here\n"]);
    assert!(!text.contains("ann@"), "{text}");
    read_by_python(text.as_bytes());
    // A text with an error is told with its line, and the old texts stay in force.
    site.write("languages/de.toml", "[subject]\nfailure = \"Schade\"\nfalure = \"Nix\"\n");
    let examined = site.penfoldd(&["-n"]).output().expect("it runs");
    let said = String::from_utf8_lossy(&examined.stderr).into_owned();
    assert!(
        said.contains("/languages/de.toml:3:1: subject.falure: unknown key") && !examined.status.success(),
        "{said}"
    );
    daemon.hup();
    daemon.wait_words(&["de.toml:3:1: subject.falure: unknown key"]);
    send("tlh");
    assert_eq!(daemon.wait_mail(&site, "jon", 2).iter().filter(|mail| contains(mail, "Leider nicht: ")).count(), 2);
    site.write("languages/de.toml", "[subject]\nfailure = \"Schade\"\n");
    site.penfoldctl(&["reload"]);
    send("de");
    assert!(daemon.wait_mail(&site, "jon", 3).iter().any(|mail| contains(mail, "Subject: Schade: Lunch\n")));
    // English is what the sender of this message reads.
    send("en");
    assert!(daemon.wait_mail(&site, "jon", 4).iter().any(|mail| contains(mail, "Subject: Undelivered mail: Lunch\n")));
}

fn contains(mail: &[u8], words: &str) -> bool {
    String::from_utf8_lossy(mail).contains(words)
}

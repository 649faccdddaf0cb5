//! The text of a report to a sender, as a person, a program, and Python's email package read it
//! (`report_reads.py`, where python3 is installed).

use std::path::Path;
use std::sync::LazyLock;

use common::programs::python;
use penfold::address::Address;
use penfold::envelope::{RcptOptions, Recipient};
use penfold::outcome::Outcome;
use penfold::reply::{Reply, Status};
use penfold::report::compose::{Report, Reported, Returned, compose};
use penfold::report::languages::Languages;
use penfold::spool::{ReportedEvent, Success};

/// The languages of a site that has configured nothing.
static LANGUAGES: LazyLock<Languages> = LazyLock::new(Languages::default);

const ARRIVAL: i64 = 1_790_000_000;
const DAY: i64 = 86_400;
const HEADER: &[u8] = b"Received: from a by b; Sat, 21 Nov 2026 10:00:00 +0000\n\
    From: Jon <jon@frogbog.example>\nTo: elvis@razorback.example\n\
    Subject: Lunch\n on Friday\nDate: Sat, 21 Nov 2026 10:00:00 +0000\n\
    Message-Id: <3@frogbog.example>\nReferences: <1@frogbog.example>\n\t<2@razorback.example>\n\nBody\n";

fn address(text: &str) -> Address {
    Address::parse(text).expect(text)
}

fn refused(reply: &str) -> Outcome {
    let reply = Reply::read_all(reply.as_bytes()).expect("a reply");
    Outcome::from_reply("RCPT TO", reply).at("mx.razorback.example[192.0.2.1]:25")
}

fn failure(recipient: &str, outcome: Outcome) -> (Recipient, Outcome) {
    (Recipient::new(address(recipient)), outcome)
}

/// A report to jon about these failures, of a message with this header.
fn report(failures: &[(Recipient, Outcome)], header: &[u8]) -> String {
    let jon = address("jon@frogbog.example");
    compose_for(&jon, Some(&jon), failures, header)
}

fn compose_for(to: &Address, sender: Option<&Address>, failures: &[(Recipient, Outcome)], header: &[u8]) -> String {
    compose_of(to, sender, failures, header, 0)
}

fn compose_of(
    to: &Address,
    sender: Option<&Address>,
    failures: &[(Recipient, Outcome)],
    header: &[u8],
    withheld: u64,
) -> String {
    let report = Report { sender, withheld, message: Returned::Header(header), ..report_of(to, &[]) };
    composed(&Report { results: &reported(failures, ReportedEvent::Failure), ..report })
}

/// A report to this address.
fn report_of<'a>(to: &'a Address, results: &'a [Reported]) -> Report<'a> {
    Report {
        hostname: "mx.example.org",
        id: "4FQ7Z2K0D1R8",
        original: "4FQ7AAAAAAAA",
        now: ARRIVAL + 5 * DAY + 600,
        arrival: ARRIVAL,
        until: ARRIVAL + 5 * DAY,
        to,
        sender: Some(to),
        envid: None,
        deadline: None,
        release: None,
        is_utf8: false,
        results,
        message: Returned::Header(HEADER),
        withheld: 0,
        languages: &LANGUAGES,
    }
}

fn reported(outcomes: &[(Recipient, Outcome)], event: ReportedEvent) -> Vec<Reported> {
    let reported = |(recipient, outcome): &(Recipient, Outcome)| Reported {
        recipient: recipient.clone(),
        event,
        outcome: outcome.clone(),
        dialogue: Vec::new(),
    };
    outcomes.iter().map(reported).collect()
}

fn composed(report: &Report) -> String {
    String::from_utf8(compose(report)).expect("UTF-8")
}

/// A report as Python parses it, in JSON. `None` without Python.
fn read_by_python(report: &str) -> Option<String> {
    let output = python("queue/report_reads.py", report.as_bytes())?;
    assert!(output.status.success(), "{}\n{report}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).expect("JSON is UTF-8"))
}

fn has(text: &str, wanted: &[&str]) {
    for part in wanted {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
}

/// The words of a report with single blanks between them, so that folding does not matter.
fn words(report: &str) -> String {
    report.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_status_is_explained_with_the_reply_and_advice() {
    for (reply, expected, status) in [
        ("550 5.1.1 no such user\r\n", "no mailbox with this address. | Check the spelling", "5.1.1"),
        ("550 5.1.2 bad host\r\n", "does not exist or has no mail system. | spelling after the @", "5.1.2"),
        ("556 5.1.10 null MX\r\n", "accepts no mail at all. | Use another address", "5.1.10"),
        ("550 5.1.8 sender?\r\n", "your own address | your mail program", "5.1.8"),
        ("550 5.2.1 off\r\n", "closed at present. | Use another address", "5.2.1"),
        ("552 5.2.2 quota\r\n", "mailbox is full. | when there is room", "5.2.2"),
        ("552 5.3.4 size\r\n", "too big | smaller or fewer attachments", "5.3.4"),
        ("554 5.4.6 hops\r\n", "in a circle between mail systems. | This is not your fault", "5.4.6"),
        ("550 5.7.1 spam\r\n", "unwanted mail (spam). | in another way", "5.7.1"),
        ("550 5.7.26 dmarc\r\n", "really comes from your address. | tell the postmaster", "5.7.26"),
        ("530 5.7.0 log in\r\n", "only after a login. | This is not your fault, and nobody has examined", "5.7.0"),
        ("530 STARTTLS first\r\n", "only over an encrypted connection. | nobody has examined", "5.0.0"),
        ("550 5.7.8 who?\r\n", "only after a login. | Tell the postmaster", "5.7.8"),
        ("554 5.7.0 no\r\n", "rejected the message. | may say why", "5.7.0"),
        ("550-5.6.0 two\r\n550 5.6.0 lines\r\n", "error in the form of the message. | simple text", "5.6.0"),
    ] {
        let text = report(&[failure("elvis@razorback.example", refused(reply))], HEADER);
        let quoted = Reply::read_all(reply.as_bytes()).expect(reply).to_string();
        has(&words(&text), &expected.split(" | ").collect::<Vec<_>>());
        has(&text, &[&format!("mx.razorback.example: {quoted}\n")]);
        has(&text, &[&format!("Status: {status}\n"), &format!("Diagnostic-Code: smtp; {quoted}\n")]);
    }
}

#[test]
fn a_failed_login_is_not_blamed_on_the_other_host() {
    for (command, reply, logged_in) in [("MAIL", "530 5.7.0 log in\r\n", false), ("RCPT", "535 who?\r\n", true)] {
        let reply = Reply::read_all(reply.as_bytes()).expect(reply);
        let outcome = Outcome::from_reply_of_configured_host(command, reply, logged_in, false)
            .at("mx.razorback.example[192.0.2.1]:25");
        let text = report(&[failure("elvis@razorback.example", outcome)], HEADER);
        has(
            &words(&text),
            &[
                "The next mail system accepts messages from this one only after a login.",
                "Delivery was attempted repeatedly from 21 September 2026",
                "This is not your fault, and nobody has examined your message. Tell the postmaster.",
            ],
        );
        has(&text, &["mx.razorback.example: 53", "Status: 4.7."]);
    }
}

#[test]
fn the_text_names_the_server_the_failure_and_a_contact() {
    let text = report(&[failure("elvis@razorback.example", refused("550 5.1.1 User unknown\r\n"))], HEADER);
    has(
        &words(&text),
        &[
            "This is the mail system at mx.example.org.",
            "Your message could not be delivered to the address below. No further attempt will be made. Subject: Lunch \
             on Friday Sent: 21 November 2026, 10:00 (UTC) elvis@razorback.example There is no mailbox",
            "write to postmaster@mx.example.org, the postmaster of this mail system, and include this whole report.",
            "What the mail systems said: elvis@razorback.example mx.razorback.example: 550 5.1.1 User unknown Details \
             for the postmaster: Queue id: 4FQ7AAAAAAAA Accepted: ",
            "Status: 5.1.1 elvis@razorback.example",
        ],
    );
    assert!(!text.contains("Body"), "only the header of the original is returned");
}

#[test]
fn recipients_with_the_same_failure_are_grouped() {
    let text = report(
        &[
            failure("a@razorback.example", refused("550 5.1.1 unknown a\r\n")),
            failure("b@razorback.example", refused("552 5.2.2 full\r\n")),
            failure("c@razorback.example", refused("550 5.1.1 unknown c\r\n")),
        ],
        HEADER,
    );
    assert_eq!(text.matches("There is no mailbox").count(), 1);
    has(&text, &["\na@razorback.example\nc@razorback.example\n\n    There is no mailbox"]);
    let at = |word: &str| text.find(word).expect(word);
    assert!(at("\nc@") < at("\nb@") && at("\nb@") < at("mailbox is full"));
    assert_eq!(text.matches("\nFinal-Recipient: rfc822; ").count(), 3);
}

#[test]
fn an_expired_message_states_its_age_and_the_last_failure() {
    for (outcome, expected, status) in [
        (
            Outcome::deferred(Status(4, 4, 1), "timed out while connecting").at("mx.y.example[192.0.2.1]:25"),
            "mx.y.example: timed out while connecting",
            "4.4.1",
        ),
        (refused("451 4.7.1 greylisted\r\n"), "example: 451 4.7.1 greylisted", "4.7.1"),
        (refused("451 later\r\n"), "example: 451 later", "4.4.7"),
    ] {
        let text = report(&[failure("b@y.example", outcome)], HEADER);
        let tried = "attempted repeatedly from 21 September 2026, 14:13 (UTC) to 26 September 2026, 14:23 (UTC).";
        has(&words(&text), &[tried, expected]);
        has(&text, &[&format!("Action: failed\nStatus: {status}\n")]);
    }
}

#[test]
fn only_the_postmaster_sees_names_of_files() {
    let full = Outcome::deferred(Status(4, 3, 1), "create /home/elvis/Maildir/tmp/1: No space left on device");
    let failures = [failure("elvis@mx.example.org", full.at("/home/elvis/Maildir"))];
    let text = report(&failures, HEADER);
    assert!(!text.contains("/home"), "{text}");
    has(&text, &["the mailbox could not be written to"]);
    assert!(!text.contains("Remote-MTA"), "a directory is no host");
    let text = compose_for(&address("postmaster"), None, &failures, HEADER);
    has(&text, &["Diagnostic-Code: X-Penfold; create /home/elvis/Maildir/tmp/1: No space"]);
}

#[test]
fn the_postmaster_gets_a_different_text() {
    let failures = [failure("jon@frogbog.example", refused("550 5.1.1 User unknown\r\n"))];
    let text = compose_for(&address("postmaster"), None, &failures, HEADER);
    has(&text, &["To: postmaster@mx.example.org\n", "Subject: Undelivered report: Lunch on Friday\n"]);
    has(
        &words(&text),
        &["It has no sender who could be told", "Nobody but you gets this report", "Queue id: 4FQ7AAAAAAAA"],
    );
    assert!(!text.contains("X-Penfold-Sender") && !text.contains("What you can do"), "{text}");
}

#[test]
fn the_remote_host_is_named_and_nothing_else_is() {
    for (host, named) in [
        ("mx.y.example[192.0.2.1]:25", Some("mx.y.example")),
        ("[192.0.2.1]:25", Some("[192.0.2.1]")),
        ("[2001:db8::1]:25", Some("[2001:db8::1]")),
        ("/home/a[1]", None),
        ("jon", None),
        ("", None),
        ("a b[192.0.2.1]:25", None),
        ("[", None),
    ] {
        let text = report(&[failure("b@y.example", Outcome::failed(Status(5, 0, 0), "no").at(host))], HEADER);
        let line = text.lines().find(|line| line.starts_with("Remote-MTA:"));
        assert_eq!(line, named.map(|name| format!("Remote-MTA: dns; {name}")).as_deref(), "{host}");
    }
}

#[test]
fn python_parses_a_report() {
    let options = RcptOptions { orcpt: Some("rfc822;king@mx.example.org".into()), notify: None };
    let elvis = Recipient {
        original: Some(address("king@mx.example.org")),
        options,
        ..Recipient::new(address("elvis@graceland.example"))
    };
    let failures = [
        (elvis, refused("550 5.1.1 User unknown\r\n")),
        failure("\"b c\"@y.example", Outcome::deferred(Status(4, 4, 3), "y.example: no answer \u{2013} wait")),
    ];
    let Some(json) = read_by_python(&report(&failures, HEADER)) else { return };
    has(
        &json,
        &[
            r#""from": ["MAILER-DAEMON@mx.example.org"]"#,
            r#""to": ["jon@frogbog.example"]"#,
            r#""subject": "Undelivered mail: Lunch on Friday""#,
            r#""message_id": "<4FQ7Z2K0D1R8@mx.example.org>""#,
            r#""in_reply_to": "<3@frogbog.example>""#,
            r#""references": ["<1@frogbog.example>", "<2@razorback.example>", "<3@frogbog.example>"]"#,
            r#""Reporting-MTA": "dns; mx.example.org""#,
            r#""X-Penfold-Queue-ID": "4FQ7AAAAAAAA""#,
            r#""X-Penfold-Sender": "rfc822; jon@frogbog.example""#,
            r#""Original-Recipient": "rfc822; king@mx.example.org""#,
            r#""Final-Recipient": "rfc822; elvis@graceland.example""#,
            r#""Remote-MTA": "dns; mx.razorback.example""#,
            r#""Diagnostic-Code": "smtp; 550 5.1.1 User unknown""#,
            r#""Final-Recipient": "rfc822; \"b c\"@y.example""#,
            r#""Diagnostic-Code": "X-Penfold; y.example: no answer ? wait""#,
            r"y.example: no answer \u2013 wait",
            r#""original": "Received: from a by b; "#,
            r#"\n\t<2@razorback.example>\n""#,
        ],
    );
    assert_eq!(json.matches("Final-Recipient").count(), 2);
}

#[test]
fn nothing_in_an_original_breaks_the_report() {
    let boundary = "--=_4FQ7Z2K0D1R8";
    let ids = |n: usize| (0..n).map(|i| format!(" <{i}@x>")).collect::<String>();
    for (what, header) in [
        ("nothing", String::new()),
        ("no header", "\nbody only\n".into()),
        ("no end", "Subject: cut off".into()),
        ("no fields", "this is not a header\nat all\n".into()),
        ("a boundary", format!("Subject: x\n{boundary}--\n{boundary}\nContent-Type: text/html\n\n")),
        ("a folded boundary", format!("Subject: x\n {boundary}\n{boundary}\n")),
        ("long lines", format!("Subject: {0}\nX: {0}\nDate: {0}\n\n", "y".repeat(100_000))),
        ("many blanks", format!("Subject: {}x\nX:  \n\n", " ".repeat(5000))),
        ("control characters", "Subject: a\0b\rc\x1b[2J\u{7f}\nMessage-ID: <a\0@b>\r\n\r\n".into()),
        ("text beyond ASCII", "Subject: Gr\u{fc}\u{df}e aus K\u{f6}ln\nTo: \u{fc}@x\n\n".into()),
        ("encoded words", "Subject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?=\n\n".into()),
        ("bad ids", "Message-ID: <\nReferences: >< <> <a b> < <<a@b>> \"<\"\nIn-Reply-To: <<\n\n".into()),
        ("a long id", format!("Message-ID: <{}@x>\n\n", "i".repeat(2000))),
        ("many references", format!("Message-ID: <me@x>\nReferences:{}\n\n", ids(5000))),
        ("a blank line's worth", "Subject: a\n \n\t\nTo: b\n\n".into()),
        ("fields twice", "Subject: a\nSubject: b\nMessage-ID: <1@x>\nMessage-ID: <2@x>\n\n".into()),
        ("trailing blanks", "Subject: a \nX: \u{e9} \t\n\n".into()),
        ("a blank at the front", " Subject: a\n\tX: b\n\n".into()),
    ] {
        let text = report(&[failure("b@y.example", refused("550 5.1.1 unknown\r\n"))], header.as_bytes());
        assert!(text.lines().all(|line| line.len() <= 998) && text.is_ascii(), "{what}: {text}");
        assert!(
            text.ends_with(&format!("\n{boundary}--\n"))
                && text.lines().filter(|l| l.starts_with(boundary)).count() == 4,
            "{what}: {text}"
        );
        if let Some(json) = read_by_python(&text) {
            assert_eq!(json.matches("Final-Recipient").count(), 1, "{what}: {json}");
        }
    }
}

#[test]
fn a_damaged_header_is_returned_unchanged() {
    let header = b"Subject: \xff\0x \nX: =20=\n--=_4FQ7Z2K0D1R8\n";
    let text = report(&[failure("b@y.example", refused("550 5.1.1 unknown\r\n"))], header);
    let Some(json) = read_by_python(&text) else { return };
    has(&json, &[r#""original": "Subject: \u00ff\u0000x \nX: =20=\n--=_4FQ7Z2K0D1R8\n""#]);
    has(&json, &[r#""subject": "Undelivered mail""#, r#""in_reply_to": null"#, r#""references": []"#]);
}

#[test]
fn a_report_repeats_a_bounded_part_of_a_long_header_and_says_so() {
    let lines: String = (0..1704).map(|n| format!("X-Spam-{n}: buy this,\n\tand that\n")).collect();
    let long = format!("X-Long: {}\n", "z ".repeat(5000));
    for (what, header, first, is_whole) in [
        ("short", "Subject: Lunch\n\n".to_owned(), "Subject: Lunch\n", true),
        ("many fields", format!("Subject: Lunch\n{lines}\nBody\n"), "Subject: Lunch\n", false),
        ("a long field", format!("{long}Subject: Lunch\nTo: x\n\n"), "Subject: Lunch\nTo: x\n", false),
        ("one of many lines", format!("Subject: a\n{}\n\n", " b\n".repeat(5000)), "", false),
    ] {
        let text = report(&[failure("b@y.example", refused("550 5.1.1 unknown\r\n"))], header.as_bytes());
        let (front, part) = text.split_once("\nContent-Type: text/rfc822-headers\n").expect("a third part");
        let (head, part) = part.split_once("\n\n").expect("a head");
        let (shown, _) = part.rsplit_once("\n--=_").expect("an end");
        assert!(shown.starts_with(first) && shown.len() <= 8 << 10, "{what}: {shown}");
        // The report shows only whole fields of the header.
        assert!(shown.is_empty() || shown.ends_with("that\n") || shown == first, "{what}: {shown}");
        assert_eq!(head.contains("in part"), !is_whole, "{what}: {head}");
        assert_eq!(words(front).contains("a part of the header of the message"), !is_whole, "{what}: {front}");
        assert!(text.len() < 12_000, "{what}");
        read_by_python(&text);
    }
}

#[test]
fn a_report_about_many_recipients_repeats_few_long_replies() {
    let reply = format!("550 5.1.1 {}\r\n", "no such user ".repeat(150).trim_end());
    let failures: Vec<_> = (0..1000).map(|n| failure(&format!("u{n}@y.example"), refused(&reply))).collect();
    let text = report(&failures, HEADER);
    assert_eq!(text.matches("Final-Recipient: ").count(), 1000);
    assert!(text.len() < 1000 * 1000, "{}", text.len());
    read_by_python(&text);
}

#[test]
fn a_report_counts_the_withheld_reports() {
    let (jon, failures) = (address("jon@frogbog.example"), [failure("b@y.example", refused("550 5.1.1 no\r\n"))]);
    for (withheld, expected) in
        [(0, ""), (1, "Reports not sent before this one: 1"), (40, "not sent before this one: 40")]
    {
        let text = words(&compose_of(&jon, Some(&jon), &failures, HEADER, withheld));
        assert_eq!(text.contains("too many reports"), withheld > 0, "{text}");
        has(&text, &[expected]);
    }
}

#[test]
fn subject_and_thread_are_kept_within_bounds() {
    for (given, subject) in [
        ("Subject: Lunch\n", "Undelivered mail: Lunch"),
        ("subject :  Lunch \n", "Undelivered mail: Lunch"),
        ("Subject:\n", "Undelivered mail"),
        ("Subject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?=\n", "Undelivered mail: Gr\\u00fc\\u00dfe"),
        ("Subject: K\u{f6}ln\n", "Undelivered mail"),
        ("X: 1\n\nSubject: in the body\n", "Undelivered mail"),
    ] {
        let text = report(&[failure("b@y.example", refused("550 5.1.1 unknown\r\n"))], given.as_bytes());
        if let Some(json) = read_by_python(&text) {
            has(&json, &[&format!(r#""subject": "{subject}""#)]);
        }
    }
    let ids: String = (0..100).map(|i| format!(" <{i}@x>")).collect();
    for (header, thread) in [
        (format!("Message-ID: <me@x>\nReferences:{ids}\n"), r#"["<0@x>", "<82@x>", "#),
        ("Message-ID: <me@x>\nIn-Reply-To: <p@x>\n".to_owned(), r#"["<p@x>", "<me@x>"]"#),
        ("Message-ID: <me@x>\nIn-Reply-To: <p@x> <q@x>\n".to_owned(), r#"["<me@x>"]"#),
        ("Message-ID: <me@x>\nReferences: <me@x> <p@x>\n".to_owned(), r#"["<p@x>", "<me@x>"]"#),
    ] {
        let text = report(&[failure("b@y.example", refused("550 5.1.1 unknown\r\n"))], header.as_bytes());
        if let Some(json) = read_by_python(&text) {
            has(&json, &[&format!(r#""references": {thread}"#), r#""in_reply_to": "<me@x>""#]);
        }
    }
}

#[test]
fn no_reply_of_another_host_breaks_the_report() {
    let endless = format!("550 5.7.1 {}\r\n", "x".repeat(600));
    let many: String = (0..40).map(|i| format!("550{}5.7.1 line {i}\r\n", if i < 39 { '-' } else { ' ' })).collect();
    for reply in [
        endless.as_str(),
        many.as_str(),
        "550 5.1.1 --=_4FQ7Z2K0D1R8--\r\n",
        "550 5.1.1 \u{4f60}\u{597d} \u{fc}\r\n",
        "550\r\n",
        "550 5.1.1 \r\n",
    ] {
        let text = report(&[failure("b@y.example", refused(reply))], HEADER);
        let status = text.split("Content-Type: message/delivery-status").nth(1).expect("a status part");
        assert!(!status.contains("Content-Transfer-Encoding"), "a status part is never encoded: {text}");
        if let Some(json) = read_by_python(&text) {
            assert_eq!(json.matches("Final-Recipient").count(), 1, "{reply}: {json}");
        }
    }
    let long = Outcome::failed(Status(5, 0, 0), "z".repeat(100_000));
    let text = report(&[failure("b@y.example", long)], HEADER);
    assert!(text.len() < 10_000 && text.lines().all(|line| line.len() <= 998));
}

#[test]
fn no_clock_breaks_the_report() {
    let jon = address("jon@frogbog.example");
    let failures = [failure("b@y.example", Outcome::deferred(Status(4, 0, 0), ""))];
    for (arrival, now) in [(0, 0), (i64::MIN, i64::MAX), (i64::MAX, i64::MIN), (-1, 253_402_300_799)] {
        for event in [ReportedEvent::Failure, ReportedEvent::Delay] {
            let results = reported(&failures, event);
            let until = now;
            let report = Report { now, arrival, until, message: Returned::Header(b""), ..report_of(&jon, &results) };
            read_by_python(&composed(&report));
        }
    }
}

#[test]
fn a_delay_is_explained_without_alarm() {
    let jon = address("jon@frogbog.example");
    let delays = [failure("elvis@razorback.example", refused("451 4.7.1 greylisted\r\n"))];
    let results = reported(&delays, ReportedEvent::Delay);
    let text = composed(&Report { now: ARRIVAL + 14_400, ..report_of(&jon, &results) });
    has(
        &text,
        &["Subject: Delayed mail: Lunch on Friday\n", "Action: delayed\nStatus: 4.7.1\n", "\nWill-Retry-Until: "],
    );
    let expected = [
        "Your message has not been delivered to the address below yet. It is not lost. Subject: Lunch on Friday",
        "accepts messages from unknown senders only after a waiting time. You need not do anything. Further attempts \
         will be made until 26 September 2026, 14:13 (UTC).",
        "elvis@razorback.example mx.razorback.example: 451 4.7.1 greylisted",
    ];
    has(&words(&text), &expected);
    assert!(!text.contains("write to") && !text.contains("What you can do") && !text.contains("Body"), "{text}");
    let Some(json) = read_by_python(&text) else { return };
    has(&json, &[r#""Action": "delayed""#, r#""Will-Retry-Until": ""#, r#""Status": "4.7.1""#]);
}

#[test]
fn each_kind_of_success_is_stated() {
    let jon = address("jon@frogbog.example");
    let accepted = Reply::read_all(b"250 2.6.0 queued\r\n").expect("a reply");
    let passed_on = Outcome::from_reply("the message", accepted).at("mx.razorback.example[192.0.2.1]:25");
    let local = Outcome::delivered("").at("/home/ann/Maildir");
    let results: Vec<Reported> = [
        ("ann@mx.example.org", local.clone(), Success::Delivered),
        ("elvis@razorback.example", passed_on, Success::Relayed),
        ("crew@mx.example.org", local, Success::Expanded),
    ]
    .into_iter()
    .map(|(to, outcome, success)| Reported {
        recipient: Recipient::new(address(to)),
        event: ReportedEvent::Success(success),
        outcome,
        dialogue: Vec::new(),
    })
    .collect();
    let text = composed(&report_of(&jon, &results));
    has(&text, &["Subject: Delivered mail: Lunch on Friday\n", "Auto-Submitted: auto-replied\n"]);
    let expected = [
        "has been delivered or passed on. Your mail program asked for this report.",
        "Your message has been delivered to: ann@mx.example.org Your message has been passed on to another mail \
         system, which sends no reports about deliveries. This concerns: elvis@razorback.example Your message has been \
         passed on to all addresses that stand behind: crew@mx.example.org",
        "elvis@razorback.example mx.razorback.example: 250 2.6.0 queued",
    ];
    has(&words(&text), &expected);
    assert!(!text.contains("/home"), "{text}");
    for (to, action, status) in [
        ("ann@mx.example.org", "delivered", "2.0.0"),
        ("elvis@razorback.example", "relayed", "2.6.0"),
        ("crew@mx.example.org", "expanded", "2.0.0"),
    ] {
        has(&text, &[&format!("Final-Recipient: rfc822; {to}\nAction: {action}\nStatus: {status}\n")]);
    }
    assert_eq!(text.matches("Diagnostic-Code").count(), 1);
    let Some(json) = read_by_python(&text) else { return };
    has(&json, &[r#""Action": "delivered""#, r#""Action": "relayed""#, r#""Action": "expanded""#]);
}

/// Each line has ENVID, ORCPT, whether the message is SMTPUTF8, and two lines of the report.
#[test]
fn the_senders_names_are_given_back() {
    let jon = address("jon@frogbog.example");
    for (envid, orcpt, is_utf8, lines) in [
        (None, None, false, ["Reporting-MTA: dns; mx.example.org", "Final-Recipient: rfc822; elvis@graceland.example"]),
        (
            Some("QQ+2B314"),
            Some("rfc822;King+2Bx@Example.ORG"),
            false,
            ["Original-Envelope-Id: QQ+314", "Original-Recipient: rfc822; King+x@Example.ORG"],
        ),
        (
            Some("a+0D+0Ab"),
            Some("X400;+0A"),
            false,
            ["Original-Envelope-Id: a+0D+0Ab", "Original-Recipient: X400; +0A"],
        ),
        (
            None,
            Some("utf-8;k\u{f6}nig@x.test"),
            false,
            ["Final-Recipient: rfc822; elvis@graceland.example", "Original-Recipient: utf-8; k\\x{F6}nig@x.test"],
        ),
        (
            None,
            Some("UTF-8;k\\x{F6}nig@x.test"),
            true,
            ["Final-Recipient: rfc822; elvis@graceland.example", "Original-Recipient: utf-8; k=C3=B6nig@x.test"],
        ),
    ] {
        let mut elvis = Recipient::new(address("elvis@graceland.example"));
        elvis.original = Some(address("king@mx.example.org"));
        elvis.options.orcpt = orcpt.map(Into::into);
        let results = reported(&[(elvis, refused("550 5.1.1 no\r\n"))], ReportedEvent::Failure);
        let text = composed(&Report { envid, is_utf8, ..report_of(&jon, &results) });
        for line in lines {
            assert!(text.lines().any(|other| other == line), "no {line:?} in:\n{text}");
        }
        // RFC 3461 6.3 (d).
        assert!(text.is_ascii() && text.contains("Original-Recipient") == orcpt.is_some(), "{text}");
    }
}

/// RFC 2852 5, RFC 4865 5.1.2.
#[test]
fn the_times_that_the_sender_has_set_are_given_back() {
    let jon = address("jon@frogbog.example");
    let results = reported(&[failure("b@y.example", refused("550 5.1.1 no\r\n"))], ReportedEvent::Failure);
    let early = composed(&Report { release: Some((0, None)), ..report_of(&jon, &results) });
    assert!(!early.contains("Future-Release-Request"), "{early}");
    for (hold_for, request) in [(None, "until;2026-11-21T09:58:20Z\n"), (Some(60), "for;60\n")] {
        let (deadline, release) = (Some(1_795_255_200), Some((1_795_255_100, hold_for)));
        let text = composed(&Report { deadline, release, ..report_of(&jon, &results) });
        for line in ["\nDeliver-By-Date: Sat, 21 Nov 2026 ", &format!("\nFuture-Release-Request: {request}")] {
            assert!(text.contains(line), "no {line:?} in:\n{text}");
        }
    }
}

#[test]
fn a_message_is_returned_as_a_whole_if_it_is_text() {
    let jon = address("jon@frogbog.example");
    let results = reported(&[failure("b@y.example", refused("550 5.1.1 no\r\n"))], ReportedEvent::Failure);
    let long = format!("Subject: x\n\n{}\n", "y".repeat(999));
    for (message, is_whole, is_eight_bit) in [
        ("Subject: x\n\nBody\n.\n", true, false),
        ("Subject: x\n\nGr\u{fc}\u{df}e\n", true, true),
        ("Subject: Gr\u{fc}\u{df}e\n\nGr\u{fc}\u{df}e\n", true, true),
        // A host without 8BITMIME cannot get this sender in any form.
        ("From: J\u{f6}n <jon@x.example>\n\nGr\u{fc}\u{df}e\n", false, false),
        ("Subject: x\n\nno end of a line", true, false),
        ("Subject: x\n\nBody\n--=_4FQ7Z2K0D1R8--\n", false, false),
        ("Subject: x\n\na\0b\n", false, false),
        (&long, false, false),
    ] {
        let report = Report { message: Returned::Message(message.as_bytes()), ..report_of(&jon, &results) };
        let text = composed(&report);
        assert_eq!(text.contains("\nContent-Type: message/rfc822\n"), is_whole, "{text}");
        assert_eq!(text.contains(message), is_whole, "{text}");
        assert_eq!(
            text.matches("Content-Transfer-Encoding: 8bit\n").count(),
            if is_eight_bit { 2 } else { 0 },
            "{text}"
        );
        assert_eq!(words(&text).contains("details, and the message."), is_whole, "{text}");
        read_by_python(&text);
    }
}

#[test]
fn a_report_about_an_smtputf8_message_has_its_types() {
    let jon = Address::parse("j\u{f6}n@frogbog.example").expect("an address");
    let to = Address::parse("b\u{fc}cher@y.example").expect("an address");
    let message = "Subject: Gr\u{fc}\u{df}e\n\nK\u{f6}ln\n";
    let results = reported(&[(Recipient::new(to), refused("550 5.1.1 no\r\n"))], ReportedEvent::Failure);
    for (message, kind) in [
        (Returned::Message(message.as_bytes()), "message/global"),
        (Returned::Header(message.as_bytes()), "message/global-headers"),
    ] {
        let text = composed(&Report { is_utf8: true, message, ..report_of(&jon, &results) });
        has(&text, &["\nTo: j\u{f6}n@frogbog.example\n", "\nContent-Type: message/global-delivery-status\n"]);
        has(&text, &[&format!("\nContent-Type: {kind}\n"), "Final-Recipient: utf-8; b=C3=BCcher@y.example\n"]);
        assert!(text.lines().all(|line| line.len() <= 998));
    }
    // An address that is too long for a line of ASCII.
    let long = Address::new(&"\u{7ff}".repeat(150), "y.example").expect("an address");
    let results_long = reported(&[(Recipient::new(long), refused("550 5.1.1 no\r\n"))], ReportedEvent::Failure);
    let text = composed(&report_of(&address("ann@frogbog.example"), &results_long));
    has(&text, &["\nContent-Type: message/global-delivery-status\n", "Final-Recipient: utf-8; =DF=BF"]);
    assert!(text.is_ascii() && text.lines().all(|line| line.len() <= 998), "{text}");
    // The same addresses in a report about a message that is not SMTPUTF8.
    let ann = address("ann@frogbog.example");
    let text = composed(&report_of(&ann, &results));
    has(&text, &["Final-Recipient: utf-8; b\\x{FC}cher@y.example\n", "\nContent-Type: message/delivery-status\n"]);
}

/// A site with these keys in `[report]`.
fn languages(keys: &str) -> Languages {
    let config = penfold::config::parse(Path::new("penfold.conf"), &format!("[report]\n{keys}\n")).expect(keys);
    let (languages, errors) = Languages::open(&config);
    assert!(errors.is_empty(), "{errors:?}");
    languages
}

/// The text of a report as a reader sees it, with single blanks.
fn seen(report: &str) -> Option<String> {
    let json = read_by_python(report)?;
    let (_, text) = json.split_once("\"text\": \"").expect("a text");
    let (mut seen, mut rest) = (String::new(), text.replace("\\n", " "));
    while let Some((before, after)) = rest.split_once("\\u") {
        let (digits, after) = after.split_at(4);
        seen += before;
        seen.extend(char::from_u32(u32::from_str_radix(digits, 16).expect("digits")));
        rest = after.to_owned();
    }
    Some(words(&(seen + &rest)))
}

#[test]
fn a_report_is_in_the_language_of_the_sender_and_in_english() {
    let jon = address("jon@frogbog.example");
    let results = reported(&[failure("b@y.example", refused("550 5.1.1 no\r\n"))], ReportedEvent::Failure);
    let header =
        "Subject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?=\nDate: Sat, 21 Nov 2026 10:00:00 +0100\nAccept-Language: de-AT\n";
    let german = Report { message: Returned::Header(header.as_bytes()), ..report_of(&jon, &results) };
    let text = composed(&german);
    has(&text, &["\nContent-Type: text/plain; charset=utf-8\nContent-Language: de, en\n"]);
    // The sender of the message wants German; the postmaster gets what the site wants.
    let to_postmaster = composed(&Report { sender: None, ..german });
    has(&to_postmaster, &["\nContent-Language: en\n", "\nSubject: Undelivered report: =?utf-8?Q?Gr"]);
    let own = languages("languages = [\"de\"]");
    has(&composed(&Report { sender: None, languages: &own, ..german }), &["\nContent-Language: de, en\n"]);
    let Some(seen) = seen(&text) else { return };
    has(
        &seen,
        &[
            "---- Deutsch ---- Dies ist das Mailsystem auf mx.example.org. Ihre Nachricht konnte an die unten genannte \
             Adresse nicht zugestellt werden.",
            "Betreff: Gr\u{fc}\u{df}e Gesendet: 21. November 2026, 10:00 Uhr (UTC+1) b@y.example Es gibt kein Postfach mit \
             dieser Adresse. Was Sie tun k\u{f6}nnen: Pr\u{fc}fen Sie",
            "---- English ---- This is the mail system at mx.example.org.",
            "Subject: Gr\u{fc}\u{df}e Sent: 21 November 2026, 10:00 (UTC+1) b@y.example There is no mailbox",
            "Was die Mailsysteme gemeldet haben: / What the mail systems said: b@y.example mx.razorback.example: 550 5.1.1 no",
        ],
    );
    assert_eq!(seen.matches("550 5.1.1").count(), 1, "{seen}");
}

/// Each language is a message of its own (RFC 8255).
#[test]
fn the_languages_of_a_report_may_be_parts_of_their_own() {
    let jon = address("jon@frogbog.example");
    let results = reported(&[failure("b@y.example", refused("550 5.1.1 no\r\n"))], ReportedEvent::Failure);
    let own = languages("languages = [\"de\"]\nmultilingual = true");
    let text = composed(&Report { languages: &own, ..report_of(&jon, &results) });
    has(&text, &["\nContent-Type: multipart/multilingual; boundary=", "\nContent-Translation-Type: human\n"]);
    let Some(json) = read_by_python(&text) else { return };
    has(
        &json,
        &[
            "in mehreren Sprachen geschrieben. Wenn Sie eine davon lesen k\\u00f6nnen",
            "de Nicht zugestellt: Lunch on Friday\\nDies ist das Mailsystem",
            "en Undelivered mail: Lunch on Friday\\nThis is the mail system",
        ],
    );
    // English alone needs no parts.
    let english = [b"Accept-Language: en-GB\n", HEADER].concat();
    let text = composed(&Report { languages: &own, message: Returned::Header(&english), ..report_of(&jon, &results) });
    has(&text, &["\nContent-Type: text/plain; charset=us-ascii\nContent-Language: en\n"]);
}

#[test]
fn the_texts_of_a_site_replace_those_of_penfold() {
    let jon = address("jon@frogbog.example");
    let results = reported(&[failure("b@y.example", refused("550 5.1.1 no\r\n"))], ReportedEvent::Failure);
    let texts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/manual/config/etc/languages");
    let own = languages(&format!("languages = [\"de\"]\ntexts = {texts:?}"));
    let Some(seen) = seen(&composed(&Report { languages: &own, ..report_of(&jon, &results) })) else { return };
    has(
        &seen,
        &["Es gibt kein Postfach", "Rufen Sie bei Fragen die Auskunft an, oder schreiben Sie an postmaster@mx."],
    );
    assert!(!seen.contains("Wenn das nicht hilft") && seen.contains("If this does not help"), "{seen}");
}

/// Every language, in reports of every kind with every length of text.
#[test]
fn reports_in_every_language_are_read_by_python() {
    let jon = address("jon@frogbog.example");
    let own = languages("");
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/languages");
    for path in std::fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path()) {
        let tag = path.file_stem().and_then(|stem| stem.to_str()).expect("a name");
        let header = format!("Subject: Lunch\nAccept-Language: {tag}\n");
        let outcome = refused("550 5.7.1 spam\r\n");
        for event in [ReportedEvent::Failure, ReportedEvent::Delay, ReportedEvent::Success(Success::Delivered)] {
            let results = reported(&[failure("b@y.example", outcome.clone())], event);
            let message = Returned::Header(header.as_bytes());
            let text = composed(&Report { languages: &own, message, withheld: 3, ..report_of(&jon, &results) });
            assert!(text.is_ascii() && text.lines().all(|line| line.len() <= 998), "{tag}: {text}");
            let tags = if tag == "en" { "en".to_owned() } else { format!("{tag}, en") };
            has(&text, &[&format!("\nContent-Language: {tags}\n")]);
            if event == ReportedEvent::Failure {
                read_by_python(&text);
            }
        }
    }
}

#[test]
fn the_dialogue_of_its_recipients_is_in_a_report_within_bounds() {
    let jon = address("jon@frogbog.example");
    let mut results = reported(&[failure("b@y.example", refused("550 5.1.1 no\r\n"))], ReportedEvent::Failure);
    let lines = |count: usize| (0..count).map(|n| format!("<- {n} \u{1b}[2J{}", "x".repeat(300)));
    results[0].dialogue = std::iter::once("mx.y.example".to_owned()).chain(lines(300)).collect();
    let text = composed(&report_of(&jon, &results));
    has(&text, &["\n    Status: 5.1.1 b@y.example\n\n    mx.y.example\n      <- 0 ?[2Jxxx", "\n      <- 99 ?[2Jxxx"]);
    assert!(!text.contains("<- 100 ") && text.lines().all(|line| line.len() < 220), "{text}");
    results[0].dialogue.truncate(2);
    let twice = [results[0].clone(), results[0].clone()];
    assert_eq!(composed(&report_of(&jon, &twice)).matches("<- 0 ").count(), 1, "the same lines are shown once");
}

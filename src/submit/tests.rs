use std::path::Path;

use super::senders::Senders;
use super::*;
use crate::config;

/// Returns a submission by jon, who may also send from info@razorback.test, or by a trusted client
/// if `login` is `None`.
fn submission(login: Option<&str>, sender: Option<&str>) -> Submission {
    let address = |text: &str| text.parse().expect("an address");
    Submission {
        hostname: "mx.test".into(),
        domain: "razorback.test".into(),
        id: "ID".into(),
        date: "DATE".into(),
        sender: sender.map(address),
        identity: login.map(|login| senders().identity(login).expect("an address")),
        rewriting: None,
    }
}

fn senders() -> Senders {
    let file = std::env::temp_dir().join(format!("penfold-senders-{:?}", std::thread::current().id()));
    std::fs::write(&file, "jon@razorback.test info@razorback.test\nroot@razorback.test *\n").expect("a file");
    let text =
        format!("hostname = \"mx.test\"\n[local]\ndomains = [\"razorback.test\"]\n[submission]\nsenders = {file:?}\n");
    let config = config::parse(Path::new("penfold.conf"), &text).expect("a configuration");
    let senders = Senders::open(&config).expect("a table");
    std::fs::remove_file(file).expect("a file");
    senders
}

/// Returns what the filter makes of a text that arrives in pieces of `size` octets.
fn pass(submission: Submission, text: &[u8], size: usize) -> Result<Vec<u8>, Refusal> {
    let (mut filter, mut out) = (HeaderFilter::new(submission), Vec::new());
    for piece in text.chunks(size.max(1)) {
        filter.feed(piece, &mut out).expect("memory");
    }
    filter.finish(&mut out).expect("memory");
    filter.refusal().cloned().map_or(Ok(out), Err)
}

/// Returns what the filter makes of a text in one piece. Checks that the result is the same if the
/// text arrives octet by octet, and if it is cut in two at any place.
fn pass_every_way(new: impl Fn() -> Submission, text: &[u8]) -> Result<String, Refusal> {
    let expected = pass(new(), text, text.len());
    assert_eq!(pass(new(), text, 1), expected);
    for at in 0..text.len() {
        let (mut filter, mut out) = (HeaderFilter::new(new()), Vec::new());
        let (front, back) = text.split_at(at);
        filter.feed(front, &mut out).and_then(|()| filter.feed(back, &mut out)).expect("memory");
        filter.finish(&mut out).expect("memory");
        assert_eq!(filter.refusal().cloned().map_or(Ok(out), Err), expected, "cut at {at}");
    }
    expected.map(|out| String::from_utf8_lossy(&out).into_owned())
}

const FULL: &str = "Date: d\nMessage-ID: <m@x>\n";

#[test]
fn missing_fields_are_added_at_the_end_of_the_header() {
    for (text, sent) in [
        ("From: a@b.c\n\nx\n", "From: a@b.c\nDate: DATE\nMessage-ID: <ID@mx.test>\n\nx\n"),
        ("FROM: a@b.c\ndate : d\nmessage-id: <m@x>\n\nx\n", "FROM: a@b.c\ndate : d\nmessage-id: <m@x>\n\nx\n"),
        ("Subject: a\n b\n\n", "Subject: a\n b\nFrom: s@b.c\nDate: DATE\nMessage-ID: <ID@mx.test>\n\n"),
        // Messages without a body, without a header, and without any text.
        ("From: a@b.c\n", "From: a@b.c\nDate: DATE\nMessage-ID: <ID@mx.test>\n"),
        ("\nx\n", "From: s@b.c\nDate: DATE\nMessage-ID: <ID@mx.test>\n\nx\n"),
        ("", "From: s@b.c\nDate: DATE\nMessage-ID: <ID@mx.test>\n"),
        ("From: a@b.c", "From: a@b.c\nDate: DATE\nMessage-ID: <ID@mx.test>\n"),
        // A line that is no field ends the header.
        ("hello\nFrom: a@b.c\n", "From: s@b.c\nDate: DATE\nMessage-ID: <ID@mx.test>\n\nhello\nFrom: a@b.c\n"),
        ("hello", "From: s@b.c\nDate: DATE\nMessage-ID: <ID@mx.test>\n\nhello"),
        (" hello\n", "From: s@b.c\nDate: DATE\nMessage-ID: <ID@mx.test>\n\n hello\n"),
        (": hello\n", "From: s@b.c\nDate: DATE\nMessage-ID: <ID@mx.test>\n\n: hello\n"),
        ("From: a@b.c\nhello\nDate: d\n", "From: a@b.c\nDate: DATE\nMessage-ID: <ID@mx.test>\n\nhello\nDate: d\n"),
        // A line of blanks continues the field before it.
        ("From: a@b.c\n \nDate: d\n\n", "From: a@b.c\n \nDate: d\nMessage-ID: <ID@mx.test>\n\n"),
        // A postmark, the first line of a message in an mbox, is removed. Text that only begins
        // like one is kept.
        ("From x Sat Nov 21 10:00:00 2026\nFrom: a@b.c\n\n", "From: a@b.c\nDate: DATE\nMessage-ID: <ID@mx.test>\n\n"),
        ("From now on\n\nx\n", "From: s@b.c\nDate: DATE\nMessage-ID: <ID@mx.test>\n\nFrom now on\n\nx\n"),
        ("From now on\n let us\n", "From: s@b.c\nDate: DATE\nMessage-ID: <ID@mx.test>\n\nFrom now on\n let us\n"),
        ("From now", "From: s@b.c\nDate: DATE\nMessage-ID: <ID@mx.test>\n\nFrom now"),
    ] {
        assert_eq!(
            pass_every_way(|| submission(None, Some("s@b.c")), text.as_bytes()).as_deref(),
            Ok(sent),
            "{text:?}"
        );
    }
}

#[test]
fn a_missing_from_is_the_reverse_path_or_the_login() {
    for (login, sender, from) in [
        (None, Some("s@b.c"), "From: s@b.c\n"),
        (None, None, "From: MAILER-DAEMON@mx.test\n"),
        (Some("jon@razorback.test"), None, "From: jon@razorback.test\n"),
        (Some("jon@razorback.test"), Some("jon+x@razorback.test"), "From: jon+x@razorback.test\n"),
        (
            Some("jon@razorback.test"),
            Some("info@razorback.test"),
            "From: info@razorback.test\nSender: jon@razorback.test\n",
        ),
    ] {
        let text = format!("{FULL}\nx\n");
        let sent = pass_every_way(|| submission(login, sender), text.as_bytes());
        assert_eq!(sent, Ok(format!("{FULL}{from}\nx\n")), "{login:?} {sender:?}");
    }
}

#[test]
fn addresses_without_a_domain_get_one_and_nothing_else_changes() {
    for (given, sent) in [
        ("jon", "jon@razorback.test"),
        ("jon@x.org", "jon@x.org"),
        ("<jon>", "<jon@razorback.test>"),
        ("Jon <jon>, \"Doe, J.\" <jd>", "Jon <jon@razorback.test>, \"Doe, J.\" <jd@razorback.test>"),
        ("jon.doe", "jon.doe@razorback.test"),
        ("\"j d\"", "\"j d\"@razorback.test"),
        ("\"j\\\"<d\" <\"x y\">", "\"j\\\"<d\" <\"x y\"@razorback.test>"),
        ("\"a\".b", "\"a\".b@razorback.test"),
        ("jon (Jon (the <man>\\)) here), ann", "jon@razorback.test (Jon (the <man>\\)) here), ann@razorback.test"),
        ("(c) jon (d)", "(c) jon@razorback.test (d)"),
        ("jon,\n\tann,\n bob@x.org", "jon@razorback.test,\n\tann@razorback.test,\n bob@x.org"),
        ("Jon\n <jon\n >", "Jon\n <jon@razorback.test\n >"),
        ("staff: jon, Ann <ann@x.org>;, bob", "staff: jon@razorback.test, Ann <ann@x.org>;, bob@razorback.test"),
        ("undisclosed-recipients:;", "undisclosed-recipients:;"),
        ("\"my list\": ;", "\"my list\": ;"),
        ("=?utf-8?q?J=C3=B6n?= <jon>", "=?utf-8?q?J=C3=B6n?= <jon@razorback.test>"),
        ("=?utf-8?q?J=2C_=3Cx=3E?= <jon@x.org>", "=?utf-8?q?J=2C_=3Cx=3E?= <jon@x.org>"),
        ("J\u{f6}n <jon>", "J\u{f6}n <jon@razorback.test>"),
        ("Jon J. Doe [work] <jon>", "Jon J. Doe [work] <jon@razorback.test>"),
        ("Jon @ home <jon>", "Jon @ home <jon@razorback.test>"),
        ("<@a,@b:jon@c>", "<@a,@b:jon@c>"),
        ("<@a:jon>", "<@a:jon>"),
        ("jon @ x.org", "jon @ x.org"),
        ("jon . doe @ x . org", "jon . doe @ x . org"),
        ("jon@[192.0.2.1]", "jon@[192.0.2.1]"),
        ("host!jon", "host!jon@razorback.test"),
        ("jon%x", "jon%x@razorback.test"),
        (", jon,, ann,", ", jon@razorback.test,, ann@razorback.test,"),
        ("", ""),
        ("<>", "<>"),
        // A list of addresses that cannot be read is left unchanged.
        ("jon doe, ann", "jon doe, ann"),
        ("jon, \"ann", "jon, \"ann"),
        ("jon (ann", "jon (ann"),
        ("jon <ann", "jon <ann"),
        ("jon> , ann", "jon> , ann"),
        ("<jon> ann", "<jon> ann"),
        ("<jon> <ann>", "<jon> <ann>"),
        ("staff: jon", "staff: jon"),
        ("a: b: jon;", "a: b: jon;"),
        ("a: jon; ann", "a: jon; ann"),
        ("a: jon;;", "a: jon;;"),
        (": jon;", ": jon;"),
        ("jon; ann", "jon; ann"),
        ("jon@, ann", "jon@, ann"),
        ("@x, ann", "@x, ann"),
        ("a@b@c, ann", "a@b@c, ann"),
        ("jon\\, ann", "jon\\, ann"),
        ("jon [x, ann", "jon [x, ann"),
        // An address is not completed if it has a local part to which penfold cannot send mail.
        ("j\u{f6}n, ann", "j\u{f6}n@razorback.test, ann@razorback.test"),
        (". , jon., .jon, ann", ". , jon., .jon, ann@razorback.test"),
        ("j\u{0}n, ann", "j\u{0}n, ann@razorback.test"),
    ] {
        for name in ["To", "cc", "Reply-To", "From", "Sender"] {
            let full = if name == "From" { FULL.to_owned() } else { format!("From: f@x.org\n{FULL}") };
            let text = format!("{full}{name}: {given}\n\nTo: jon\n");
            let sent = format!("{full}{name}: {sent}\n\nTo: jon\n");
            assert_eq!(pass_every_way(|| submission(None, None), text.as_bytes()), Ok(sent), "{text:?}");
        }
    }
    for untouched in ["Bcc: jon", "Subject: jon", "Resent-To: jon", "X-To: jon", "To : jon@x"] {
        let text = format!("From: f@x.org\n{FULL}{untouched}\n\n");
        assert_eq!(pass_every_way(|| submission(None, None), text.as_bytes()), Ok(text));
    }
}

#[test]
fn an_authenticated_user_names_only_permitted_addresses() {
    const JON: &str = "Sender: jon@razorback.test\n";
    let quoted_tag = || "jon@razorback.test".parse::<Address>().expect("an address").with_local("jon+ <elvis@x.org>");
    let not_allowed = |text: &str| Err(Refusal::NotAllowed(text.parse().expect("an address")));
    for (header, answer) in [
        ("From: jon@razorback.test\n", Ok("")),
        ("From: Jon <JON+x@Razorback.Test>\n", Ok("")),
        ("From: jon (who else?)\n", Ok("")),
        ("From: info@razorback.test\n", Ok(JON)),
        ("From: jon@razorback.test, info@razorback.test\n", Ok(JON)),
        ("From: us: jon@razorback.test;\n", Ok("")),
        ("From: info@razorback.test\nSender: jon+x@razorback.test\n", Ok("")),
        ("From: jon@razorback.test\nSender: info@razorback.test\n", Ok("")),
        ("From: elvis@razorback.test\n", not_allowed("elvis@razorback.test")),
        ("From: jon@razorback.test, elvis@x.org\n", not_allowed("elvis@x.org")),
        ("From: \"jon@razorback.test\" <elvis@x.org>\n", not_allowed("elvis@x.org")),
        ("From: jon@razorback.test\nFrom: elvis@x.org\n", not_allowed("elvis@x.org")),
        ("From : elvis@x.org\nFrom: jon@razorback.test\n", not_allowed("elvis@x.org")),
        ("X: y\n \nfrom:\n elvis@x.org\n", not_allowed("elvis@x.org")),
        // Some readers take another address for the author than this server does.
        ("From: <@razorback.test:elvis@x.org>\n", Err(Refusal::Unreadable)),
        ("From: <@elvis@x.org:jon@razorback.test>\n", Err(Refusal::Unreadable)),
        ("From: elvis@x.org <jon@razorback.test>\n", not_allowed("elvis@x.org")),
        ("From: elvis@x.org: jon@razorback.test;\n", Err(Refusal::Unreadable)),
        ("From: \"jon+ <elvis@x.org>\"@razorback.test\n", Err(Refusal::NotAllowed(quoted_tag()))),
        ("From: jon@razorback.test <jon@razorback.test>\n", Ok(JON)),
        ("From: jon\n", Ok("")),
        ("From: elvis\n", not_allowed("elvis@razorback.test")),
        ("From: Jon jon@razorback.test\n", Err(Refusal::Unreadable)),
        ("From: <jon@razorback.test> <elvis@x.org>\n", Err(Refusal::Unreadable)),
        (
            "From: jon@razorback.test, el\u{f6}@x.org\n",
            Err(Refusal::NotAllowed("el\u{f6}@x.org".parse().expect("an address"))),
        ),
        ("From: jon@razorback.test, el\u{202e}@x.org\n", Err(Refusal::Unreadable)),
        ("From:\n", Err(Refusal::Unreadable)),
        ("From: <>\n", Err(Refusal::Unreadable)),
        ("From: nobody:;\n", Err(Refusal::Unreadable)),
        // Some readers drop the name here, and take the address encoded in it.
        ("From: . =?utf-8?q?elvis=40x.org?= \\ <jon@razorback.test>\n", Err(Refusal::Unreadable)),
        ("From: .Jon <jon@razorback.test>\n", Err(Refusal::Unreadable)),
        ("From: Jon [1] <jon@razorback.test>\n", Err(Refusal::Unreadable)),
        ("From: Jon\u{b} <jon@razorback.test>\n", Err(Refusal::Unreadable)),
        ("From: Jon J. O'Postel & S\u{f6}hne <jon@razorback.test>\n", Ok("")),
    ] {
        let text = format!("{FULL}{header}\nx\n");
        let sent = pass_every_way(|| submission(Some("jon@razorback.test"), None), text.as_bytes());
        let header =
            header.replace("From: jon\n", "From: jon@razorback.test\n").replace("jon (", "jon@razorback.test (");
        assert_eq!(sent, answer.map(|sender| format!("{FULL}{header}{sender}\nx\n")), "{header:?}");
        // Users who may send from any address, and trusted clients without a login, are not
        // checked.
        for login in [Some("root@razorback.test"), None] {
            let sent = pass(submission(login, None), text.as_bytes(), 7).expect("not refused");
            let senders = |text: &[u8]| text.windows(7).filter(|w| w == b"Sender:").count();
            assert_eq!(senders(&sent), senders(text.as_bytes()), "{header:?}");
        }
    }
}

#[test]
fn a_sender_that_is_not_permitted_is_removed() {
    for (given, sent) in [
        ("From: jon@razorback.test\nSender: elvis@x.org\n", "From: jon@razorback.test\n"),
        (
            "From: info@razorback.test\nSender: elvis@x.org\n (x)\nX: y\n",
            "From: info@razorback.test\nX: y\nSender: jon@razorback.test\n",
        ),
        ("From: jon@razorback.test\nSender: \"broken\n", "From: jon@razorback.test\n"),
        ("From: info@razorback.test\nSender:\n", "From: info@razorback.test\nSender: jon@razorback.test\n"),
        (
            "Sender: elvis\nFrom: jon@razorback.test\nSender: jon\n",
            "From: jon@razorback.test\nSender: jon@razorback.test\n",
        ),
    ] {
        let text = format!("{FULL}{given}\nx\n");
        let got = pass_every_way(|| submission(Some("jon@razorback.test"), None), text.as_bytes());
        assert_eq!(got, Ok(format!("{FULL}{sent}\nx\n")), "{given:?}");
        let text = format!("{FULL}From: f@x.org\nSender: elvis@x.org\n\nx\n");
        assert_eq!(pass(submission(None, None), text.as_bytes(), 9), Ok(text.clone().into_bytes()));
        assert_eq!(pass(submission(Some("root@razorback.test"), None), text.as_bytes(), 9), Ok(text.into_bytes()));
    }
}

#[test]
fn a_header_that_is_too_long_passes_unchanged_or_is_rejected() {
    let long = format!("Subject: {}\nTo: jon\n\nbody", "x".repeat(MAX_HEADER));
    let many = format!("{}\nbody", "To: jon\n".repeat(MAX_HEADER / 4));
    let line = "x".repeat(2 * MAX_HEADER);
    for text in [long, many, line] {
        for size in [1 << 10, 32 << 10, text.len()] {
            let trusted = pass(submission(None, Some("s@x.org")), text.as_bytes(), size);
            assert!(trusted.is_ok_and(|out| out == text.as_bytes()));
            assert_eq!(
                pass(submission(Some("jon@razorback.test"), None), text.as_bytes(), size),
                Err(Refusal::TooLong)
            );
        }
    }
}

#[test]
fn a_message_that_is_not_submitted_passes_unchanged() {
    let (mut filter, mut out) = (HeaderFilter::unchanged(), Vec::new());
    for piece in [&b"To: jon\nSen"[..], b"der: x\nhello\n", b"\xff\0\n"] {
        filter.feed(piece, &mut out).expect("memory");
    }
    filter.finish(&mut out).expect("memory");
    assert_eq!(out, b"To: jon\nSender: x\nhello\n\xff\0\n");
}

#[test]
fn senders_are_rewritten_after_the_check() {
    let text = "hostname = \"mx.test\"\nlocal.domains = [\"razorback.test\"]\nsubmission.masquerade = \"b.test\"\n";
    let config = config::parse(Path::new("penfold.conf"), text).expect("a configuration");
    let rewriting = Arc::new(rewrite::Rewriting::begin(&config).0);
    let masked = |login| Submission { rewriting: Some(Arc::clone(&rewriting)), ..submission(login, Some("s@b.test")) };
    for (login, fields, sent) in [
        (None, "From: x, \"J\" <y@mx.test>\n", "From: x@b.test, \"J\" <y@b.test>\n"),
        (None, "From: J(a) <\"a b\" @ razorback.test> (c)\n", "From: J(a) <\"a b\"@b.test> (c)\n"),
        (
            None,
            "From: x@c.test\nSender: root\nTo: root\n",
            "From: x@c.test\nSender: root@b.test\nTo: root@razorback.test\n",
        ),
        (None, "From: <x@razorback.test\n", "From: <x@razorback.test\n"),
        (Some("jon@razorback.test"), "From: jon\n", "From: jon@b.test\n"),
        (Some("jon@razorback.test"), "From: info\n", "From: info@b.test\nSender: jon@b.test\n"),
    ] {
        let (text, sender) = sent
            .split_once("Sender: jon")
            .map_or((sent, String::new()), |(text, rest)| (text, format!("Sender: jon{rest}")));
        let wanted = format!("{text}{FULL}{sender}\nx\n");
        assert_eq!(pass_every_way(|| masked(login), format!("{fields}{FULL}\nx\n").as_bytes()), Ok(wanted), "{fields}");
    }
    let stolen = pass_every_way(|| masked(Some("jon@razorback.test")), b"From: jon@b.test\n\nx\n");
    assert!(matches!(stolen, Err(Refusal::NotAllowed(_))), "{stolen:?}");
}

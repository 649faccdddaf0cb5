//! Disk errors by name: the reply to the client and the log line. When the disk works again,
//! everything arrives once.
//!
//! `PENFOLD_FAULT` makes calls fail in the real daemon. tests/storage/crash/errors.rs tries every
//! call; the texts in this file are those of penfold-admin(7).

use std::fs;

use common::books::{Answer, Books, Letter, offer};
use common::remote::{Remote, Sink};
use common::{Daemon, Site};

fn site() -> Site {
    // With authentication the spool would have a key file, and its writes would be counted by the
    // fault rules.
    let site = Site::with("auth.users = \"none\"");
    ["ret", "ada"].iter().for_each(|user| site.add("users", &format!("{user}::")));
    site.add("aliases", "list: ada");
    site
}

fn start(site: &Site, rules: &str) -> Daemon {
    Daemon::spawn(site.with_fault(rules))
}

#[test]
fn a_client_gets_a_temporary_failure_and_nothing_is_kept() {
    for (errno, begins, text) in [
        ("ENOSPC", "452 4.3.1 ", "No space left on device"),
        ("EDQUOT", "452 4.3.1 ", "Disk quota exceeded"),
        ("EROFS", "452 4.3.1 ", "Read-only file system"),
        ("EIO", "451 4.3.0 ", "Input/output error"),
        ("EMFILE", "451 4.3.0 ", "Too many open files"),
        ("EACCES", "451 4.3.0 ", "Permission denied"),
    ] {
        let site = site();
        for call in ["open", "write", "link", "fsync"] {
            let daemon = start(&site, &format!("{call} spool/new 1 {errno}"));
            let answer = offer(daemon.address(), &["ada@razorback"], Letter::new("refused"));
            assert!(
                matches!(&answer, Answer::Refused(reply) if reply.starts_with(begins)),
                "{call} {errno}: {answer:?}"
            );
            daemon.wait_words(&["spool: store a message: ", text]);
            // After a failed fsync the data may be lost, so fsync is not repeated, and the message
            // is removed.
            assert_eq!(fs::read_dir(site.path("spool/new")).expect("a spool").count(), 0, "{call} {errno}");
            let token = format!("{call}-{errno}");
            assert_eq!(offer(daemon.address(), &["ada@razorback"], Letter::new(&token)), Answer::Taken);
            assert!(daemon.settles(&site));
            assert_eq!(Books::of(site.mail("ada")).letters(&token), 1, "{token}");
        }
        assert_eq!(Books::of(site.mail("ada")).total(), 4);
    }
}

/// Each row has a recipient, a fault rule, words that a log line must contain, and the number of
/// such lines.
const ROWS: &[(&str, &str, &[&str], usize)] = &[
    // In these rows a spool file is to be renamed into the mailbox.
    ("ada@razorback", "rename /mail/ 1-3 EIO", &["deferred", "dsn=4.3.0", "rename into", "Input/output error"], 2),
    ("ada@razorback", "rename /mail/ 1-2 ENOSPC", &["deferred", "dsn=4.3.1", "rename into", "No space left"], 1),
    ("ada@razorback", "rename /mail/ 1-2 EDQUOT", &["deferred", "dsn=4.2.2", "rename into", "quota exceeded"], 1),
    ("ada@razorback", "rename /mail/ 1-2 EROFS", &["deferred", "dsn=4.2.0", "rename into", "Read-only"], 1),
    ("ada@razorback", "mkdir /mail/ 1-2 EDQUOT", &["deferred", "dsn=4.2.2", "mkdir /", "quota exceeded"], 1),
    // The rename fails, but not because the disk has an error: the message is copied instead.
    ("ada@razorback", "rename /mail/ 1-2 EXDEV", &["sent", "via=maildir"], 1),
    ("ada@razorback", "rename /mail/ 1-2 EACCES", &["sent", "via=maildir"], 1),
    (
        "ada@razorback",
        "rename /mail/ 1-2 EXDEV;fsync spool/tmp 1 EIO",
        &["deferred", "dsn=4.3.0", "rewrite the message in the spool: Input/output error"],
        1,
    ),
    // In these rows the message is to be copied to the mailbox. The first two writes in the spool are
    // those of the lock and the key.
    ("list@razorback", "open /mail/ada/tmp 1 EROFS", &["deferred", "dsn=4.2.0", "write ", "Read-only"], 1),
    ("list@razorback", "write /mail/ada/tmp 2 ENOSPC", &["deferred", "dsn=4.3.1", "write ", "No space left"], 1),
    ("list@razorback", "write /mail/ada/tmp 1-2 EDQUOT", &["deferred", "dsn=4.2.2", "write ", "quota exceeded"], 2),
    ("list@razorback", "fsync /mail/ada/tmp 1 EIO", &["deferred", "dsn=4.3.0", "write ", "Input/output error"], 1),
    // A failed fsync is not ignored: another write or sync follows.
    ("list@razorback", "fsync spool/ 2-3 EIO", &["deferred", "record a prepared delivery in the spool"], 2),
    ("list@razorback", "rename /mail/ 1 EIO", &["deferred", "dsn=4.3.0", "rename into", "Input/output error"], 1),
    ("list@razorback", "fsync /mail/ada/new 1-2 EIO", &["deferred", "dsn=4.3.0", "sync ", "Input/output error"], 2),
    ("list@razorback", "write spool/ 5 ENOSPC", &["spool: record the outcomes of", "No space left"], 1),
    ("list@razorback", "unlink spool/new 1-2 EIO", &["spool: remove ", "Input/output error"], 1),
    // The other host has accepted the message. It does not get the message again, although the
    // outcome could not be recorded.
    ("far@far.test", "write spool/ 4 EIO", &["spool: record the outcomes of", "Input/output error"], 1),
    // In these rows a report is to be stored.
    ("void@far.test", "open spool/tmp 1 ENOSPC", &["spool: record the outcomes of", "No space left"], 1),
    ("void@far.test", "fsync spool/tmp 1 EIO", &["spool: record the outcomes of", "Input/output error"], 1),
    ("void@far.test", "rename spool/tmp 1 EROFS", &["spool: record the outcomes of", "Read-only"], 1),
    ("void@far.test", "fsync spool/new 3 EIO", &["spool: settle ", "Input/output error"], 1),
];

#[test]
fn accepted_mail_waits_and_arrives_once() {
    for (to, rules, words, times) in ROWS {
        let remote = Remote::with(Sink::default().reply("RCPT TO:<void", "550 5.1.1 no such user"));
        let site = site();
        site.add("routes", &format!("far.test {}", remote.host_port()));
        let daemon = start(&site, rules);
        assert_eq!(offer(daemon.address(), &[to], Letter::new("one")), Answer::Taken);
        daemon.wait_words(words);
        assert!(daemon.flush_until(&site, || site.spooled().is_empty()), "{rules}: {}", daemon.log());
        daemon.wait_until("the end", || site.spooled().is_empty());
        let seen = daemon.log().lines().filter(|line| words.iter().all(|word| line.contains(word))).count();
        assert_eq!(seen, *times, "{rules}: {}", daemon.log());
        let (ada, ret) = (Books::of(site.mail("ada")), Books::of(site.mail("ret")));
        let far = remote.look(|seen| seen.messages.len());
        let found = [ada.letters("one"), far, ret.reports("one")];
        let expected = [to.contains("@razorback"), to.starts_with("far"), to.starts_with("void")].map(usize::from);
        assert_eq!((found, ada.total() + ret.total()), (expected, expected[0] + expected[2]), "{rules}");
    }
}

#[test]
fn a_mailbox_that_no_rename_reaches_gets_copies_from_then_on() {
    let site = site();
    // The first entry is rewritten in spool/tmp so that it can be copied. If another entry were
    // rewritten, that would meet the second fault.
    let daemon = start(&site, "rename spool/new/ * EXDEV;open spool/tmp/ 2- EIO");
    for token in ["one", "two", "three"] {
        assert_eq!(offer(daemon.address(), &["ada@razorback"], Letter::new(token)), Answer::Taken);
        assert!(daemon.settles(&site), "{}", daemon.log());
        assert_eq!(Books::of(site.mail("ada")).letters(token), 1, "{}", daemon.log());
    }
}

#[test]
fn a_spool_that_cannot_be_opened_prevents_the_start() {
    for (rules, code, words) in [
        ("mkdir spool/tmp * EROFS", 73, "open the spool"),
        ("mkdir spool/tmp * ENOSPC", 73, "No space left on device"),
        ("open spool/lock 1 EIO", 73, "open the spool"),
        ("open spool/lock 2 EIO", 74, "lock the spool"),
        ("write spool/lock 1 ENOSPC", 74, "lock the spool"),
    ] {
        let site = site();
        let output = site.with_fault(rules).output().expect("it runs");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{rules}: {text}");
        assert!(text.contains(words), "{rules}: {text}");
        // When the disk works again, the daemon starts.
        let daemon = site.start();
        assert_eq!(offer(daemon.address(), &["ada@razorback"], Letter::new("one")), Answer::Taken);
        assert!(daemon.settles(&site));
    }
}

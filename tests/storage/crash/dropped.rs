//! Stops sendmail(8), and then the daemon, before and after every step of a message that is kept in
//! the drop directory, and lets each step fail.
//!
//! If sendmail has ended with 0, every recipient gets the message once, and the sender one report. If
//! not, all of them get it once, or none. Nothing is left in the drop directory.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Output;

use super::scene::steps;
use super::{books, people};
use common::books::{Books, Letter, SENDER, without_added_fields};
use common::programs::{command, feed};
use common::{Daemon, Site, own, port};

/// The recipients of the cases: a mailbox into which the entry is renamed, for a message that is longer
/// than what the spool keeps in memory, and copies with a report.
const CASES: [(&str, &[&str]); 2] =
    [("long", &["jon@razorback"]), ("mixed", &["jon@razorback", "list@razorback", "no@razorback"])];

/// A site with a drop directory, and no daemon.
fn scene() -> Site {
    let mut site = people(Site::new());
    let directory = site.path("drop");
    fs::create_dir(&directory).expect("a directory");
    own(&directory);
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o3733)).expect("a mode");
    site.set("submission", "drop", &format!("{directory:?}"));
    site.set("queue", "retry_min", "\"1s\"");
    site.configure();
    site
}

/// Sends the message of a case with these fault rules, while no daemon runs.
fn keep(site: &Site, (token, to): (&str, &[&str]), rules: &str) -> Output {
    let mut sendmail = command(site, "sendmail", &["-i", "-f", SENDER]);
    let output = feed(sendmail.args(to).env("PENFOLD_FAULT", rules), Letter::new(token).text().as_bytes());
    assert!(!rules.is_empty() || output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// The files in the drop directory and below it.
fn left(site: &Site) -> Vec<PathBuf> {
    let directories = ["drop", "drop/taken", "drop/bad"].map(|name| site.path(name));
    let files = directories.iter().flat_map(|directory| fs::read_dir(directory).into_iter().flatten().flatten());
    files.map(|file| file.path()).filter(|path| !path.is_dir()).collect()
}

/// Whether no message waits, in the drop directory or in the spool.
fn is_settled(site: &Site) -> bool {
    left(site).is_empty() && site.spooled().is_empty() && site.spooled().is_empty()
}

/// Lets a daemon with these fault rules work until it has finished or ended. Returns its log.
fn work(site: &Site, rules: &str) -> String {
    match Daemon::spawn_until(site.with_fault(rules), port) {
        Ok(daemon) => {
            let has_failed =
                || ["drop directory: ", "messages in it wait"].iter().any(|words| daemon.log().contains(words));
            daemon.becomes_true(|| is_settled(site) || has_failed());
            daemon.end_log()
        }
        Err(log) => log,
    }
}

/// Finishes the work, with a daemon or with a single queue run.
fn finish(site: &Site, by_run: bool) {
    if by_run {
        let output = site.penfoldd(&["-q"]).output().expect("it starts");
        assert!(is_settled(site), "{:?} {}", left(site), String::from_utf8_lossy(&output.stderr));
        return;
    }
    let daemon = site.start();
    assert!(daemon.becomes_true(|| is_settled(site)), "{:?} {:?}\n{}", left(site), site.spooled(), daemon.log());
}

/// The mail of a user, without the fields that a message of a local user gets.
fn arrived(site: &Site, user: &str) -> Books {
    let plain = |mail: Vec<u8>| without_added_fields(&String::from_utf8_lossy(&mail)).into_bytes();
    Books::of(site.mail(user).into_iter().map(plain).collect())
}

/// Asserts that the message is everywhere once, or nowhere if it may be missing.
fn audit(site: &Site, (token, to): (&str, &[&str]), may_miss: bool, what: &str) {
    let with_list: &[&str] = if to.len() > 1 { &["ada", "bob", "cyd"] } else { &[] };
    let local: Vec<Books> = ["jon"].iter().chain(with_list).map(|user| arrived(site, user)).collect();
    let mut counts: Vec<usize> = local.iter().map(|books| books.letters(token)).collect();
    let totals: usize = local.iter().map(Books::total).sum();
    assert_eq!(totals, counts.iter().sum::<usize>(), "{what}: only this mail");
    let reports = books(site, "ret");
    if to.len() > 1 {
        counts.push(reports.reports(token));
    }
    assert_eq!(reports.total(), reports.reports(token), "{what}");
    let is_missing = may_miss && counts.iter().all(|count| *count == 0);
    assert!(is_missing || counts.iter().all(|count| *count == 1), "{what}: {counts:?}");
}

#[test]
fn a_stop_of_sendmail_at_any_step_loses_and_duplicates_nothing() {
    for case in CASES {
        let count = steps(1, |number| {
            let outputs = ["before", "after"].map(|when| {
                let site = scene();
                let output = keep(&site, case, &format!("* * {number} {when}"));
                finish(&site, number.is_multiple_of(2));
                let is_kept = output.status.success();
                audit(&site, case, !is_kept, &format!("{number} {when}"));
                is_kept
            });
            (outputs == [false, false]).then_some(1)
        });
        assert!(count >= 6, "only {count} steps");
    }
}

/// Stops the daemon at a step, before it if `number` is odd, and lets another one or a queue run
/// finish. Returns whether the step exists.
fn stop(site: &Site, case: (&str, &[&str]), number: usize, earlier: &str) -> bool {
    let when = if number % 2 == 1 { "before" } else { "after" };
    let log = work(site, &format!("* * {number} {when}"));
    finish(site, number.is_multiple_of(3));
    audit(site, case, false, &format!("{earlier} {number} {when}: {log}"));
    log.contains("fault: abort")
}

#[test]
fn a_stop_of_the_daemon_at_any_step_loses_and_duplicates_nothing() {
    for case in CASES {
        let count = steps(1, |number| {
            let site = scene();
            keep(&site, case, "");
            stop(&site, case, number, "").then_some(1)
        });
        assert!(count >= 20, "only {count} steps");
    }
}

#[test]
fn a_stop_of_the_recovery_changes_nothing() {
    // The entry is in the spool, and the file is still there, or its removal is not synced.
    for first in ["unlink /drop/taken/ 1 before", "unlink /drop/taken/ 1 after"] {
        let count = steps(1, |number| {
            let site = scene();
            keep(&site, CASES[1], "");
            let log = work(&site, first);
            assert!(log.contains("fault: abort"), "{first}: {log}");
            stop(&site, CASES[1], number, first).then_some(1)
        });
        assert!(count >= 12, "only {count} steps");
    }
}

/// On btrfs, a power cut can leave both names of a rename: here, while the entry is in the spool, too.
#[test]
fn the_old_name_of_a_taken_file_is_no_other_message() {
    for by_run in [false, true] {
        let site = scene();
        keep(&site, CASES[0], "");
        let log = work(&site, "unlink /drop/taken/ 1 before");
        assert!(log.contains("fault: abort"), "{log}");
        let taken = left(&site).pop().expect("a taken file");
        fs::hard_link(&taken, site.path("drop/old")).expect("a link");
        finish(&site, by_run);
        audit(&site, CASES[0], false, "both names");
    }
}

#[test]
fn an_error_at_any_step_loses_and_duplicates_nothing() {
    let case = CASES[1];
    let count = steps(1, |number| {
        let site = scene();
        let output = keep(&site, case, &format!("* * {number} EIO"));
        finish(&site, number.is_multiple_of(2));
        audit(&site, case, !output.status.success(), &format!("sendmail {number}"));
        String::from_utf8_lossy(&output.stderr).contains("fault: ").then_some(1)
    });
    assert!(count >= 6, "only {count} steps");
    let count = steps(1, |number| {
        let site = scene();
        keep(&site, case, "");
        let log = work(&site, &format!("* * {number} EIO"));
        finish(&site, number.is_multiple_of(2));
        audit(&site, case, false, &format!("{number}: {log}"));
        log.contains("fault: EIO").then_some(1)
    });
    assert!(count >= 20, "only {count} steps");
}

/// If the daemon delivered a message whose file is still there, this test would see two messages.
#[test]
fn a_file_that_outlives_its_entry_would_be_delivered_again() {
    let site = scene();
    keep(&site, CASES[0], "");
    let daemon = Daemon::spawn_until(site.with_fault("unlink /drop/taken/ 1 skip"), port).expect("it starts");
    daemon.wait_mail(&site, "jon", 1);
    daemon.kill9();
    // The user has read the message, so that its name is free.
    let read = fs::read_dir(site.mailbox("jon").join("new")).expect("a mailbox").flatten().next().expect("a message");
    fs::rename(read.path(), site.mailbox("jon").join("cur/read:2,S")).expect("a rename");
    finish(&site, false);
    assert_eq!(arrived(&site, "jon").letters("long"), 2);
}

//! Stops the daemon before and after every step of `penfoldctl hold`, `release`, `remove`, `bounce`
//! and `requeue`, and lets each step fail. A message is returned from `cur/` and from `hold/`.
//!
//! What penfoldctl has reported as done must be so after a restart. Otherwise the message is where
//! it was or where it should be, and in no case is it lost, delivered twice, or removed without a
//! line in the log.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::{books, site};
use common::books::{Letter, SENDER};
use common::{Daemon, Site, port};
use penfold::address::Address;
use penfold::envelope::{Envelope, MailOptions, Origin, Recipient};
use penfold::spool::{EntryName, NewEntry, Spool, State};

/// A site with a message that ada has and that waits for bob, in `cur/` or in `hold/`.
fn scene(is_held: bool) -> (Site, String) {
    let mut site = site();
    site.set("queue", "retry_min", "\"1h\"");
    let address = |user: &str| Address::parse(&format!("{user}@razorback.test")).expect("an address");
    let envelope = Envelope {
        sender: Some(Address::parse(SENDER).expect("an address")),
        recipients: ["ada", "bob"]
            .map(|user| Recipient { original: Some(address("both")), ..Recipient::new(address(user)) })
            .to_vec(),
        options: MailOptions::default(),
        origin: Origin::Client,
    };
    let spool = Spool::open(&site.path("spool")).expect("a spool");
    let mut draft = spool.begin().expect("a draft");
    draft.write_all(Letter::new("held").text().as_bytes()).expect("room");
    let name = draft.commit(&NewEntry::queued(&envelope, "Received: from a test\n")).expect("a commit");
    let mut entry = spool.entry(name).expect("an entry");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    entry.settle(0, State::Done, now).expect("a record");
    entry.settle(1, State::Todo, now).expect("a record");
    entry.move_to_cur().expect("a rename");
    if is_held {
        spool.hold(entry.name()).expect("a held entry");
    }
    site.hand_over();
    (site, name.id.to_string())
}

fn ctl(site: &Site, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_penfoldctl"));
    command.arg("-f").arg(site.path("penfold.conf")).args(arguments).stdin(Stdio::null());
    command.output().expect("it runs")
}

/// Calls penfoldctl until the daemon has read the spool.
fn when_read(site: &Site, arguments: &[&str]) -> Output {
    let unread = |output: &Output| String::from_utf8_lossy(&output.stderr).contains("still being read");
    let mut outputs = std::iter::repeat_with(|| ctl(site, arguments));
    outputs.find(|output| !unread(output)).expect("an endless number of calls")
}

fn count(site: &Site, place: &str) -> usize {
    fs::read_dir(site.path("spool").join(place)).expect("a spool").count()
}

/// Makes a change with a fault at a step. Returns whether the step exists.
fn change(word: &str, number: usize, action: &str) -> bool {
    let (site, id) = scene(word == "release");
    let Ok(daemon) = Daemon::spawn_until(site.with_fault(&format!("* * {number} {action}")), port) else { return true };
    let is_done = ctl(&site, &[word, &id]).status.success();
    let log = daemon.end_log();
    let hit = log.contains("fault: ");
    let what = format!("{word} {number} {action} done={is_done}: {log}");
    let daemon = site.start();
    let places = ["new", "cur", "hold", "bad"].map(|place| count(&site, place));
    match (word, is_done, places) {
        ("hold", _, [0, 0, 1, 0]) | ("release", _, [0, 1, 0, 0]) | ("remove", _, [0, 0, 0, 0]) => {}
        ("hold" | "remove", false, [0, 1, 0, 0]) | ("release", false, [0, 0, 1, 0]) => {}
        _ => panic!("{places:?} {what}"),
    }
    if places == [0; 4] {
        assert!(log.contains(&format!("{id} removed to=<bob@razorback.test>")), "{what}");
    } else {
        if places[2] == 1 {
            // At first the spool may still be being read.
            daemon.wait_until("a release", || ctl(&site, &["release", &id]).status.success());
        }
    }
    assert!(daemon.flush_until(&site, || site.spooled().is_empty()), "{what}{}", daemon.log());
    let expected = usize::from(places != [0; 4]);
    let [ada, bob] = ["ada", "bob"].map(|user| books(&site, user));
    assert_eq!((ada.total(), bob.letters("held"), bob.total()), (0, expected, expected), "{what}");
    hit
}

#[test]
fn a_stop_or_an_error_at_any_step_leaves_the_message_in_one_place() {
    for word in ["hold", "release", "remove"] {
        for action in ["before", "after", "EIO"] {
            let count = (1..).take_while(|number| change(word, *number, action)).count();
            assert!(count > 10, "{word} {action}: only {count} steps");
        }
    }
}

/// Commits a direct message for bob to a spool.
fn direct(spool: &Arc<Spool>) -> EntryName {
    let address = |text: &str| Address::parse(text).expect("an address");
    let envelope = Envelope {
        sender: Some(address(SENDER)),
        recipients: vec![Recipient::new(address("bob@razorback.test"))],
        options: MailOptions::default(),
        origin: Origin::Client,
    };
    let mut draft = spool.begin().expect("a draft");
    draft.write_all(Letter::new("held").text().as_bytes()).expect("room");
    let new = NewEntry { is_direct: true, ..NewEntry::queued(&envelope, "Received: from a test\n") };
    draft.commit(&new).expect("a commit")
}

/// A site with a held direct message for bob.
fn scene_of_direct() -> (Site, String) {
    let site = site();
    let spool = Spool::open(&site.path("spool")).expect("a spool");
    let name = direct(&spool);
    spool.hold(name).expect("a held entry");
    site.hand_over();
    (site, name.id.to_string())
}

/// Returns a held, direct message with a fault at a step. Returns whether the step exists.
fn return_held(number: usize, action: &str) -> bool {
    let (site, id) = scene_of_direct();
    let Ok(daemon) = Daemon::spawn_until(site.with_fault(&format!("* * {number} {action}")), port) else { return true };
    let is_done = when_read(&site, &["bounce", &id]).status.success();
    let first = daemon.end_log();
    let what = format!("{number} {action} done={is_done}: {first}");
    let daemon = site.start();
    daemon.wait_log(|line| line.contains("started"));
    // It must not have left `hold/` but for the report. A repeated return completes the first one.
    assert_eq!((books(&site, "bob").total(), count(&site, "bad")), (0, 0), "{what}");
    assert!(!is_done || count(&site, "hold") == 0, "{what}");
    if count(&site, "hold") > 0 {
        daemon.wait_until("the return", || ctl(&site, &["bounce", &id]).status.success());
    }
    assert!(daemon.flush_until(&site, || site.spooled().is_empty()), "{what}{}", daemon.log());
    assert_eq!(["ret", "bob"].map(|user| books(&site, user).total()), [1, 0], "{what}{}", daemon.log());
    if action == "EIO" {
        let log = first.clone() + &daemon.log();
        for event in [" failed to=<bob@", " returned reason="] {
            assert_eq!(log.matches(&format!("{id}{event}")).count(), 1, "{event} {what}{log}");
        }
    }
    first.contains("fault: ")
}

#[test]
fn a_stop_or_an_error_at_any_step_of_the_return_of_a_held_message_does_not_let_it_out() {
    for action in ["after", "EIO"] {
        let count = (1..).take_while(|number| return_held(*number, action)).count();
        assert!(count > 40, "{action}: only {count} steps");
    }
}

#[test]
fn a_message_that_a_session_may_be_delivering_is_not_changed_in_several_steps() {
    let site = site();
    let daemon = site.start();
    daemon.wait_log(|line| line.contains("started"));
    // The queue does not know it, as if its delivery at once were under way.
    let name = direct(&Spool::open(&site.path("spool")).expect("a spool"));
    site.hand_over();
    let id = name.id.to_string();
    for word in ["bounce", "requeue", "remove"] {
        let refused = || String::from_utf8_lossy(&ctl(&site, &[word, &id]).stderr).into_owned();
        daemon.wait_until(word, || refused().contains("it is being delivered now"));
        assert_eq!(["new", "cur", "hold"].map(|place| count(&site, place)), [1, 0, 0], "{word}");
    }
    assert!(ctl(&site, &["hold", &id]).status.success() && ctl(&site, &["release", &id]).status.success());
    daemon.wait_until("the delivery", || books(&site, "bob").letters("held") == 1);
}

#[test]
fn a_message_that_could_not_be_returned_is_still_tried() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let (mut site, id) = scene_of_direct();
    site.set("queue", "workers", "1");
    site.add("routes", &format!("slow.test {}", silent.local_addr().expect("an address")));
    // The first rename from tmp/ is that of the queued entry, and the second one that of the report.
    let daemon = Daemon::spawn(site.with_fault("rename spool/tmp/ 2 EIO"));
    daemon.submit(&["x@slow.test"]);
    let connection = silent.accept().expect("an attempt, which takes the only worker");
    daemon.wait_until("the release", || ctl(&site, &["release", &id]).status.success());
    let returned = ctl(&site, &["bounce", &id]);
    assert!(String::from_utf8_lossy(&returned.stderr).contains("the failures cannot be recorded now"), "{returned:?}");
    assert_eq!((count(&site, "new"), count(&site, "cur")), (1, 1));
    drop((connection, silent));
    daemon.wait_until("the delivery", || books(&site, "bob").letters("held") == 1);
}

#[test]
fn a_file_that_a_failed_requeue_leaves_is_not_delivered() {
    let (site, id) = scene(false);
    site.add("aliases", "both: ada@razorback.test, bob@razorback.test, cyd");
    let daemon = Daemon::spawn(site.with_fault("unlink /cur/ 1-2 EIO"));
    daemon.wait_log(|line| line.contains("started"));
    let requeued = || String::from_utf8_lossy(&ctl(&site, &["requeue", &id]).stderr).into_owned();
    daemon.wait_until("a failure", || requeued().contains("Input/output error"));
    assert!(daemon.flush_until(&site, || site.spooled().is_empty()), "{}", daemon.log());
    assert_eq!(["ada", "bob", "cyd"].map(|user| books(&site, user).total()), [0, 1, 0], "{}", daemon.log());
}

/// Returns or requeues a message with a fault at a step. Returns whether the step exists.
fn settle(word: &str, number: usize, action: &str) -> bool {
    let (site, id) = scene(false);
    site.add("aliases", "both: ada@razorback.test, bob@razorback.test, cyd");
    let Ok(daemon) = Daemon::spawn_until(site.with_fault(&format!("* * {number} {action}")), port) else { return true };
    let is_done = when_read(&site, &[word, &id]).status.success();
    let log = daemon.end_log();
    let what = format!("{word} {number} {action} done={is_done}: {log}");
    let daemon = site.start();
    assert!(daemon.flush_until(&site, || site.spooled().is_empty()), "{what}{}", daemon.log());
    let [ret, ada, bob, cyd] = ["ret", "ada", "bob", "cyd"].map(|user| books(&site, user).total());
    match (word, is_done, [ret, ada, bob, cyd]) {
        ("requeue", _, [0, 0, 1, 1]) | ("requeue", false, [0, 0, 1, 0]) => {}
        ("bounce", _, [1, 0, 0, 0]) | ("bounce", false, [0, 0, 1, 0]) => {}
        (.., mail) => panic!("{mail:?} {what}{}", daemon.log()),
    }
    // A stop can leave the new file beside the old one, which is set aside.
    assert!(count(&site, "bad") <= usize::from(word == "requeue" && !is_done), "{what}");
    log.contains("fault: ")
}

#[test]
fn a_stop_or_an_error_at_any_step_of_a_return_or_a_requeue_neither_loses_nor_doubles_the_message() {
    for word in ["bounce", "requeue"] {
        for action in ["after", "EIO"] {
            let count = (1..).take_while(|number| settle(word, *number, action)).count();
            assert!(count > 15, "{word} {action}: only {count} steps");
        }
    }
}

#[test]
fn a_rename_that_a_power_cut_has_half_undone_is_completed() {
    for place in ["new", "cur"] {
        let (site, id) = scene(true);
        let held = fs::read_dir(site.path("spool/hold")).expect("a spool").next().expect("one").expect("one");
        fs::hard_link(held.path(), site.path("spool").join(place).join(held.file_name())).expect("a link");
        let daemon = site.start();
        daemon.wait_log(|line| line.contains("started"));
        site.penfoldctl(&["flush"]);
        assert_eq!(["new", "cur", "hold"].map(|place| count(&site, place)), [0, 0, 1]);
        daemon.wait_until("a release", || ctl(&site, &["release", &id]).status.success());
        assert!(daemon.flush_until(&site, || site.spooled().is_empty()), "{}", daemon.log());
        assert_eq!(books(&site, "bob").letters("held"), 1);
    }
}

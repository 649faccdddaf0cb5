//! The handover of a spool file to its recipient: the file becomes the user's own, without a copy,
//! once, and accessible to no other user.
//!
//! Spool and home directories are on one file system, and root has started the daemon. The daemon
//! is stopped at each step of a handover. It is also started on every state that a crash can leave,
//! and on such states that the user has changed. All of these tests need root.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::PathBuf;

use common::Daemon;
use common::books::{Answer, Books, Letter, offer};
use common::homes::{FIRST, Homes};

/// Starts the daemon; `fault` is the value of `PENFOLD_FAULT`.
fn start(homes: &Homes, fault: &str) -> Daemon {
    let mut command = homes.site.penfoldd(&["-d"]);
    command.env("PENFOLD_FAULT", fault);
    Daemon::spawn(homes.mounts.inside(&command))
}

fn send(daemon: &Daemon, to: &str, token: &str) -> Answer {
    offer(daemon.address(), &[to], Letter::new(token))
}

/// The files in `new/` and `cur/` of a user's Maildir.
fn files(homes: &Homes, user: &str) -> Vec<PathBuf> {
    let directories = ["new", "cur"].map(|sub| homes.home(user).join("Maildir").join(sub));
    let entries = directories.iter().flat_map(|directory| fs::read_dir(directory).into_iter().flatten().flatten());
    entries.map(|entry| entry.path()).collect()
}

fn books(homes: &Homes, user: &str) -> Books {
    Books::of(files(homes, user).iter().filter_map(|file| fs::read(file).ok()).collect())
}

/// Asserts that a file has the owner and mode of jon's own files.
fn check_own(path: &PathBuf) {
    let metadata = fs::metadata(path).expect("there");
    let is = (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777, metadata.nlink());
    assert_eq!(is, (FIRST, FIRST, 0o600, 1), "{}", path.display());
}

#[test]
fn the_spool_file_becomes_the_users() {
    let Some(homes) = Homes::new("") else { return };
    // The fault prevents a delivery by copying, because an entry moves to `cur/` before it is
    // copied. So a message that arrives was handed over.
    let daemon = start(&homes, "rename spool/cur * EIO");
    for count in 1..4 {
        assert_eq!(send(&daemon, "jon", &format!("letter-{count}")), Answer::Taken);
        daemon.wait_until("mail", || files(&homes, "jon").len() == count);
        assert!(daemon.settles(&homes.site));
        files(&homes, "jon").iter().for_each(check_own);
        assert_eq!(books(&homes, "jon").letters(&format!("letter-{count}")), 1);
    }
    assert_eq!(fs::read_dir(homes.home("jon").join("Maildir/tmp")).expect("made").count(), 0);
    let log = daemon.end_log();
    assert!(!log.contains("fault:"), "{log}");
}

/// Sends jon two messages, one after the other. Asserts that both arrive at once, and that no call
/// has failed with EIO.
fn two_messages_arrive(homes: &Homes, daemon: Daemon) {
    for count in 1..3 {
        assert_eq!(send(&daemon, "jon", &format!("letter-{count}")), Answer::Taken);
        daemon.wait_until("mail", || files(homes, "jon").len() == count);
        assert!(daemon.settles(&homes.site));
    }
    files(homes, "jon").iter().for_each(check_own);
    assert_eq!(books(homes, "jon").total(), 2);
    let log = daemon.end_log();
    assert!(!log.contains("fault: EIO") && !log.contains("deferred"), "{log}");
}

#[test]
fn a_message_is_copied_where_no_handover_is_possible() {
    for fault in ["", "chown * 1- EPERM; ", "chown * 1- EOPNOTSUPP; "] {
        let Some(homes) = Homes::new("") else { return };
        if fault.is_empty() {
            // With a bind mount the home is on the device of the spool, but links between the two
            // fail.
            let home = homes.home("jon");
            homes.mounts.shell(&format!("mount --bind {0} {0}", home.display()));
        }
        // After the first failure the server knows that no handover to this mailbox is possible,
        // and copies the second message without another attempt, which would fail with EIO.
        let daemon = start(&homes, &format!("{fault}chmod * 2 EIO"));
        two_messages_arrive(&homes, daemon);
    }
}

#[test]
fn a_message_is_copied_if_the_agent_of_its_user_has_just_ended() {
    let Some(homes) = Homes::new("") else { return };
    // The first message is copied, and the second one is handed over again: no other entry moves to
    // `cur/` to be copied, where it would fail with EIO.
    let daemon = start(&homes, "chown * 1 ESRCH; rename spool/cur 2- EIO");
    two_messages_arrive(&homes, daemon);
}

#[test]
fn mail_beyond_a_quota_is_deferred_and_delivered_later() {
    let Some(homes) = Homes::new("queue.retry_min = \"1s\"") else { return };
    let daemon = start(&homes, "chown * 1 EDQUOT");
    assert_eq!(send(&daemon, "jon", "one"), Answer::Taken);
    daemon.wait_words(&["deferred to=<jon@", "4.2.2"]);
    daemon.wait_until("mail", || files(&homes, "jon").len() == 1);
    assert!(daemon.settles(&homes.site));
    files(&homes, "jon").iter().for_each(check_own);
}

#[test]
fn a_stop_at_any_step_loses_and_duplicates_nothing() {
    let Some(homes) = Homes::new("queue.retry_min = \"1s\"") else { return };
    let steps =
        ["link spool/new 1", "fsync spool/new 1", "chmod spool/new 1", "utime spool/new 1", "chown spool/new 1"];
    let steps = steps.into_iter().chain(["unlink spool/new 1"]);
    for (number, fault) in steps.flat_map(|step| ["before", "after"].map(|when| format!("{step} {when}"))).enumerate() {
        let token = format!("letter-{number}");
        let daemon = start(&homes, &fault);
        let answer = send(&daemon, "jon", &token);
        daemon.wait_end();
        let daemon = start(&homes, "");
        assert!(daemon.settles(&homes.site), "{fault}: {:?}", homes.site.spooled());
        let found = books(&homes, "jon").letters(&token);
        assert!(found == 1 || (found == 0 && answer != Answer::Taken), "{fault}: {found} of {answer:?}");
        files(&homes, "jon").iter().for_each(check_own);
        assert_eq!(daemon.end_log().matches("is corrupt").count(), 0);
    }
    assert!(files(&homes, "jon").len() > 8);
}

#[test]
fn an_error_at_any_step_loses_and_duplicates_nothing() {
    let Some(homes) = Homes::new("queue.retry_min = \"1s\"") else { return };
    for (number, step) in ["chmod", "utime", "chown", "unlink"].into_iter().enumerate() {
        let daemon = start(&homes, &format!("{step} spool/new 1 EIO"));
        assert_eq!(send(&daemon, "jon", &format!("letter-{number}")), Answer::Taken);
        daemon.wait_until("mail", || files(&homes, "jon").len() > number);
        let daemon = if step == "unlink" {
            daemon.wait_words(&["remove a delivered message from the spool"]);
            daemon.end_log();
            start(&homes, "")
        } else {
            daemon
        };
        assert!(daemon.settles(&homes.site), "{step}: {}", daemon.log());
        assert_eq!((files(&homes, "jon").len(), books(&homes, "jon").total()), (number + 1, number + 1), "{step}");
        files(&homes, "jon").iter().for_each(check_own);
    }
}

/// A change to the files between a crash and the next start, and the result that the start must
/// have.
struct After {
    what: &'static str,
    change: fn(&Left),
    /// The number of messages that jon has then. `bad` is the number of spool entries that were set
    /// aside.
    jon: usize,
    bad: usize,
}

/// The files that a crash leaves in the middle of a handover: one file with a name in the mailbox
/// and another in the spool.
struct Left {
    in_mailbox: PathBuf,
    in_spool: PathBuf,
    /// The group id of the server.
    group: u32,
}

impl Left {
    /// Gives the file the group and mode that it has before the agent marks it as linked.
    fn make_readable(&self) {
        chown(&self.in_spool, None, Some(self.group)).expect("chown");
        fs::set_permissions(&self.in_spool, fs::Permissions::from_mode(0o640)).expect("chmod");
    }

    /// Replaces the content of the file as its owner could: with text of the same length, beginning
    /// with `head`, and with the old time of the file.
    fn write(&self, head: &str) {
        let time = fs::metadata(&self.in_spool).expect("there").modified().expect("a time");
        let length = fs::metadata(&self.in_spool).expect("there").len() as usize;
        let mut text = head.to_owned();
        text.push_str(&"x".repeat(length - head.len() - 1));
        text.push('\n');
        fs::write(&self.in_mailbox, text).expect("written");
        fs::File::open(&self.in_mailbox).and_then(|file| file.set_modified(time)).expect("a time");
        self.make_readable();
    }
}

const AFTER: &[After] = &[
    After { what: "nothing", change: |_| {}, jon: 1, bad: 0 },
    After { what: "no mode yet", change: Left::make_readable, jon: 1, bad: 0 },
    After {
        what: "no group yet",
        change: |left| chown(&left.in_spool, None, Some(left.group)).expect("chown"),
        jon: 1,
        bad: 0,
    },
    After {
        what: "no mode yet, and he has read it",
        change: |left| {
            left.make_readable();
            let name = left.in_mailbox.file_name().expect("a name").to_string_lossy().into_owned();
            let cur = left.in_mailbox.with_file_name("../cur").join(name + ":2,S");
            fs::rename(&left.in_mailbox, cur).expect("a rename");
        },
        jon: 1,
        bad: 0,
    },
    After {
        what: "not linked yet",
        change: |left| {
            left.make_readable();
            fs::remove_file(&left.in_mailbox).expect("removed");
        },
        jon: 1,
        bad: 0,
    },
    After {
        what: "he has removed it",
        change: |left| fs::remove_file(&left.in_mailbox).expect("removed"),
        jon: 0,
        bad: 0,
    },
    After {
        what: "a message to somebody else",
        change: |left| left.write("Return-Path: <boss@razorback.test>\nDelivered-To: mary@razorback.test\n\n"),
        jon: 1,
        bad: 1,
    },
    After {
        what: "a command of somebody else",
        change: |left| {
            let line = |text: &str| format!("{text:<63}\n");
            let record = "T 0000000000 0000000000 0000000000000000 0000000000000000 ";
            let second = format!("{record}to=<mary@razorback.test> run=touch%20hacked as=mary");
            let head =
                line("penfold/1 head=0000000193 body=7bit origin=client from=<>") + &format!("{second:<127}\n\n");
            left.write(&head);
        },
        jon: 1,
        bad: 1,
    },
];

#[test]
fn the_state_after_a_crash_is_recognized_whatever_the_owner_has_changed() {
    for After { what, change, jon, bad } in AFTER {
        let Some(homes) = Homes::new("") else { return };
        let daemon = start(&homes, "unlink spool/new 1 before");
        send(&daemon, "jon", "long-letter");
        daemon.wait_end();
        let (mailbox, spool) = (files(&homes, "jon"), homes.site.spooled());
        assert_eq!((mailbox.len(), spool.len()), (1, 1), "{what}");
        let group = fs::metadata(homes.site.path("spool/new")).expect("a spool").gid();
        change(&Left { in_mailbox: mailbox[0].clone(), in_spool: spool[0].clone(), group });
        let daemon = start(&homes, "");
        assert!(daemon.settles(&homes.site), "{what}: {}", daemon.log());
        assert_eq!(files(&homes, "jon").len(), *jon, "{what}");
        assert!(files(&homes, "mary").is_empty() && !homes.home("mary").join("hacked").exists(), "{what}");
        let aside = || fs::read_dir(homes.site.path("spool/bad")).expect("a spool").count();
        daemon.wait_until(what, || aside() == *bad);
        if *bad > 0 {
            let why = if what.contains("command") { "is not a direct entry" } else { "is for another user" };
            daemon.wait_words(&[why]);
        } else {
            // In this state the mode says that only the group has to be set. The daemon does not
            // check the content again, and the test sets the group.
            files(&homes, "jon").iter().filter(|_| *what == "no group yet").for_each(|path| {
                chown(path, None, Some(FIRST)).expect("chown");
            });
            files(&homes, "jon").iter().for_each(check_own);
            assert_eq!(books(&homes, "jon").letters("long-letter"), *jon, "{what}");
        }
    }
}

#[test]
fn a_message_whose_address_gets_a_route_after_its_handover_waits() {
    let Some(homes) = Homes::new("queue.retry_min = \"1s\"") else { return };
    let daemon = start(&homes, "unlink spool/new 1 before");
    send(&daemon, "jon", "one");
    daemon.wait_end();
    // The agent has not yet marked the file as linked, so the daemon opens it again.
    let (mailbox, spool) = (files(&homes, "jon"), homes.site.spooled());
    let group = fs::metadata(homes.site.path("spool/new")).expect("a spool").gid();
    Left { in_mailbox: mailbox[0].clone(), in_spool: spool[0].clone(), group }.make_readable();
    homes.site.write("routes", "jon@razorback 127.0.0.1:9\n");
    let daemon = start(&homes, "");
    daemon.wait_words(&["names the address now; it waits"]);
    assert_eq!(homes.site.spooled(), spool);
    // Without the line it is delivered, once.
    homes.site.write("routes", "");
    assert!(daemon.flush_until(&homes.site, || homes.site.spooled().is_empty()), "{}", daemon.log());
    assert_eq!((files(&homes, "jon").len(), books(&homes, "jon").letters("one")), (1, 1));
    assert_eq!(fs::read_dir(homes.site.path("spool/bad")).expect("a spool").count(), 0);
}

#[test]
fn a_restored_file_of_another_user_does_not_count_as_delivered() {
    let Some(homes) = Homes::new("") else { return };
    let daemon = start(&homes, "chmod spool/new 1 before");
    assert_eq!(send(&daemon, "jon", "one"), Answer::Taken);
    daemon.wait_end();
    let entry = homes.site.spooled().pop().expect("an entry");
    chown(&entry, Some(FIRST), Some(FIRST)).expect("chown");
    let daemon = start(&homes, "");
    daemon.wait_words(&["spool: open", "Permission denied"]);
    assert_eq!(homes.site.spooled(), [entry]);
}

#[test]
fn a_forward_file_applies_before_the_handover() {
    let Some(homes) = Homes::new("") else { return };
    homes.write("jon", ".forward", "mary\n", 0o600);
    let daemon = start(&homes, "");
    for count in 1..3 {
        assert_eq!(send(&daemon, "jon", &format!("letter-{count}")), Answer::Taken);
        daemon.wait_until("mail", || files(&homes, "mary").len() == count);
    }
    assert!(daemon.settles(&homes.site));
    assert!(files(&homes, "jon").is_empty());
    assert_eq!(books(&homes, "mary").total(), 2);
}

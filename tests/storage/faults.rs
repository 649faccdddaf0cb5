//! Full and read-only disks, missing descriptors and permissions, and a second daemon.
//!
//! Clients get temporary failures, no accepted mail is lost or duplicated, and service resumes
//! when the fault is over. The disks are small ones in a mount namespace, which needs root;
//! otherwise those tests are reported as skipped. At the end of each test accepted mail is
//! delivered, bounced or in the queue.

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use common::books::{Answer, Books, Letter, offer, offer_part};
use common::dialog::Wire;
use common::mounts::Mounts;
use common::remote::{Conduct, Remote, Sink};
use common::{Daemon, Site};

fn site() -> Site {
    let site = Site::new();
    for user in ["ret", "ada", "bob", "cyd"] {
        site.add("users", &format!("{user}::"));
    }
    site.add("aliases", "list: ada, bob, cyd");
    site
}

fn taken(daemon: &Daemon, to: &[&str], token: &str) {
    assert_eq!(offer(daemon.address(), to, Letter::new(token)), Answer::Taken, "{token}");
}

fn refused(daemon: &Daemon, to: &[&str], token: &str, code: &str) {
    let answer = offer(daemon.address(), to, Letter::new(token));
    assert!(matches!(&answer, Answer::Refused(reply) if reply.starts_with(code)), "{token}: {answer:?}");
}

/// Asserts that a mailbox has exactly the letters with these tokens, each once.
fn holds(books: &Books, tokens: &[&str]) {
    let found: Vec<usize> = tokens.iter().map(|token| books.letters(token)).collect();
    assert_eq!((found, books.total()), (vec![1; tokens.len()], tokens.len()), "{tokens:?}");
}

fn count(directory: &Path) -> usize {
    fs::read_dir(directory).map_or(0, Iterator::count)
}

fn has(line: &str, words: &[&str]) -> bool {
    words.iter().all(|word| line.contains(word))
}

const MEGABYTE: usize = 1 << 20;
/// A size that is larger than any of the test's disks.
const ALL: usize = 64 * MEGABYTE;

#[test]
fn new_mail_is_deferred_while_the_disk_is_full() {
    let Some((site, mounts)) = Mounts::disk(site(), "size=24m,nr_inodes=500") else { return };
    let (spool, jon, filler) = (site.path("disk/spool"), site.path("disk/mail/jon"), site.path("disk/filler"));
    let daemon = mounts.start(&site);
    taken(&daemon, &["jon@razorback"], "before");
    mounts.fill(&filler, 10 * MEGABYTE);
    refused(&daemon, &["jon@razorback"], "no-room", "452 4.3.1");
    mounts.clear(&filler);
    taken(&daemon, &["list@razorback"], "room");
    // Many files use up the inodes of the disk, with the same effect as a lack of space.
    let many = site.path("disk/many");
    fs::create_dir(mounts.path(&many)).expect("a directory");
    for number in 0..300 {
        File::create(mounts.path(&many).join(number.to_string())).expect("a file");
    }
    refused(&daemon, &["jon@razorback"], "no-inode", "452 4.3.1");
    fs::remove_dir_all(mounts.path(&many)).expect("a directory");
    taken(&daemon, &["jon@razorback"], "after");
    assert!(daemon.becomes_true(|| mounts.entries(&spool) == 0));
    holds(&mounts.books(&jon), &["before", "after"]);
    holds(&mounts.books(&site.path("disk/mail/cyd")), &["room"]);
}

#[test]
fn a_message_that_fills_the_disk_is_deferred() {
    let Some((site, mounts)) = Mounts::disk(site(), "size=24m") else { return };
    let (jon, filler) = (site.path("disk/mail/jon"), site.path("disk/filler"));
    let daemon = mounts.start(&site);
    for (token, to) in [("short", "jon@razorback"), ("long", "jon@razorback"), ("shared", "list@razorback")] {
        let mut wire = offer_part(daemon.address(), &[to], Letter::new(token), 5).expect("a 354");
        mounts.fill(&filler, ALL);
        let rest = format!("{}.\n", Letter::new(token).text()).replace('\n', "\r\n");
        wire.send(&rest.as_bytes()[5..]).expect("it reads to the end");
        let reply = wire.read_line().expect("a reply").expect("a reply");
        assert!(reply.starts_with("452 4.3.1"), "{token}: {reply}");
        mounts.clear(&filler);
        // After the failure the same session goes on.
        for line in ["MAIL FROM:<ret@razorback.test>", "RCPT TO:<jon@razorback>", "DATA"] {
            let reply = wire.ask(line).expect("a reply");
            assert!(reply.starts_with(['2', '3']), "{line}: {reply}");
        }
        let reply = wire.ask(rest.trim_end()).expect("a reply");
        assert!(reply.starts_with("250"), "{reply}");
    }
    assert!(daemon.becomes_true(|| mounts.entries(&site.path("disk/spool")) == 0));
    holds(&mounts.books(&jon), &["short", "long", "shared"]);
    assert_eq!(count(&mounts.path(&site.path("disk/spool/tmp"))), 0);
}

#[test]
fn accepted_mail_waits_for_space() {
    let Some((mut site, mounts)) = Mounts::disk(site(), "size=24m") else { return };
    let (spool, mail, filler) = (site.path("disk/spool"), site.path("disk/mail"), site.path("disk/filler"));
    let remote = Remote::with(Sink::default().reply("RCPT", "451 4.7.1 not now"));
    site.add("routes", &format!("far.test {}", remote.host_port()));
    site.set("queue", "retry_min", "\"1h\"");
    let daemon = mounts.start(&site);
    // Nothing can be delivered yet, because the directory of mailboxes is closed.
    mounts.shell(&format!("mkdir {0} && chmod 0 {0}", mail.display()));
    taken(&daemon, &["jon@razorback"], "one");
    taken(&daemon, &["list@razorback", "void@far.test"], "many");
    daemon.wait_log(|line| has(line, &["deferred", "cyd@"]));
    daemon.wait_log(|line| has(line, &["deferred", "jon@"]));
    daemon.wait_log(|line| has(line, &["deferred", "void@"]));
    mounts.fill(&filler, ALL);
    mounts.shell(&format!("chown nobody {0} && chmod 755 {0}", mail.display()));
    remote.behave(Conduct::Sink(Sink::default().reply("RCPT", "550 5.1.1 no such user")));
    let is_logged = |words: &[&str]| daemon.log().lines().any(|line| has(line, words));
    assert!(daemon.flush_until(&site, || {
        is_logged(&["record the outcomes of", "the spool has no room for it"])
            && is_logged(&["deferred", "jon@", "No space left"])
    }));
    // The host has replied, and the daemon knows the outcome. While it cannot record the outcome,
    // it does not contact the host again.
    let asked = remote.look(|seen| seen.connections);
    let in_vain = || daemon.log().matches("record the outcomes of").count();
    let before = in_vain();
    assert!(daemon.flush_until(&site, || in_vain() > before));
    assert_eq!(remote.look(|seen| seen.connections), asked);
    for directory in [spool.join("tmp"), mail.join("jon/tmp"), mail.join("ada/tmp")] {
        daemon.wait_until("an end of what cannot be written", || count(&mounts.path(&directory)) == 0);
    }
    mounts.clear(&filler);
    assert!(daemon.flush_until(&site, || mounts.entries(&spool) == 0), "{}", daemon.log());
    holds(&mounts.books(&mail.join("jon")), &["one"]);
    for user in ["ada", "bob", "cyd"] {
        holds(&mounts.books(&mail.join(user)), &["many"]);
    }
    let sender = mounts.books(&mail.join("ret"));
    assert_eq!((sender.reports("many"), sender.total()), (1, 1));
    assert_eq!(remote.look(|seen| seen.connections), asked);
}

#[test]
fn a_message_that_needs_no_space_does_not_wait_for_it() {
    let Some((mut site, mounts)) = Mounts::disk(site(), "size=24m") else { return };
    let (spool, jon, filler) = (site.path("disk/spool"), site.path("disk/mail/jon"), site.path("disk/filler"));
    site.set("queue", "retry_min", "\"1h\"");
    let daemon = mounts.start(&site);
    taken(&daemon, &["jon@razorback"], "first");
    assert!(daemon.becomes_true(|| mounts.entries(&spool) == 0));
    mounts.shell(&format!("chmod 0 {}/new", jon.display()));
    let mut wire = offer_part(daemon.address(), &["jon@razorback"], Letter::new("long"), usize::MAX).expect("a 354");
    mounts.fill(&filler, ALL);
    // The disk has space for the message, but not for a copy of it.
    let filled = OpenOptions::new().write(true).open(mounts.path(&filler)).expect("a file");
    filled.set_len(filled.metadata().expect("a file").len() - 40_000).expect("a cut");
    wire.send(b"\n").expect("it reads");
    let reply = wire.read_line().expect("a reply").expect("a reply");
    assert!(reply.starts_with("250"), "{reply}");
    daemon.wait_log(|line| has(line, &["record the outcomes of", "No space left"]));
    mounts.shell(&format!("chmod 700 {}/new", jon.display()));
    assert!(daemon.flush_until(&site, || mounts.entries(&spool) == 0), "{}", daemon.log());
    holds(&mounts.books(&jon), &["first", "long"]);
}

#[test]
fn new_mail_is_deferred_while_the_spool_is_read_only() {
    let Some((site, mounts)) = Mounts::disk(site(), "size=64m") else { return };
    let daemon = mounts.start(&site);
    let new = site.path("disk/spool/new").display().to_string();
    mounts.shell(&format!("mount --bind {new} {new} && mount -o remount,bind,ro {new}"));
    refused(&daemon, &["jon@razorback"], "read-only", "452 4.3.1");
    mounts.shell(&format!("umount {new}"));
    taken(&daemon, &["jon@razorback"], "after");
    assert!(daemon.becomes_true(|| mounts.entries(&site.path("disk/spool")) == 0));
    holds(&mounts.books(&site.path("disk/mail/jon")), &["after"]);
}

#[test]
fn new_mail_is_deferred_while_the_spool_has_no_permissions() {
    let site = site();
    let daemon = site.start();
    for place in ["new", "tmp"] {
        fs::set_permissions(site.path("spool").join(place), Permissions::from_mode(0o0)).expect("a mode");
    }
    refused(&daemon, &["jon@razorback"], "forbidden", "451 4.3.0");
    for place in ["new", "tmp"] {
        fs::set_permissions(site.path("spool").join(place), Permissions::from_mode(0o700)).expect("a mode");
    }
    taken(&daemon, &["jon@razorback"], "after");
    assert!(daemon.settles(&site));
    holds(&Books::of(site.mail("jon")), &["after"]);
}

#[test]
fn a_mailbox_on_another_disk_gets_everything_once() {
    let Some((site, mounts)) = Mounts::disk(site(), "size=64m") else { return };
    let (mail, other) = (site.path("disk/mail").display().to_string(), site.path("disk/other").display().to_string());
    // The mailboxes are on another file system in the first round. In the second round they are
    // behind a bind mount of the same file system, into which nothing can be renamed.
    for (round, script) in [
        format!("mkdir -p {mail} && mount -t tmpfs -o size=16m tmpfs {mail} && chown nobody {mail}"),
        format!("umount {mail} && mkdir {other} && chown nobody {other} && mount --bind {other} {mail}"),
    ]
    .iter()
    .enumerate()
    {
        mounts.shell(script);
        let daemon = mounts.start(&site);
        let tokens = ["a", "b", "c"].map(|word| format!("{word}{round}"));
        taken(&daemon, &["jon@razorback"], &tokens[0]);
        taken(&daemon, &["list@razorback"], &tokens[1]);
        taken(&daemon, &["jon@razorback", "list@razorback"], &tokens[2]);
        assert!(daemon.becomes_true(|| mounts.entries(&site.path("disk/spool")) == 0), "{}", daemon.log());
        holds(&mounts.books(&site.path("disk/mail/jon")), &[&tokens[0], &tokens[2]]);
        for user in ["ada", "bob", "cyd"] {
            holds(&mounts.books(&site.path("disk/mail").join(user)), &[&tokens[1], &tokens[2]]);
        }
    }
}

#[test]
fn an_unwritable_mailbox_is_retried() {
    for closed in ["mail", "mail/jon", "mail/jon/tmp", "mail/jon/new"] {
        let site = site();
        let daemon = site.start();
        if closed != "mail" {
            taken(&daemon, &["jon@razorback"], "before");
            assert!(daemon.settles(&site));
        }
        fs::set_permissions(site.path(closed), Permissions::from_mode(0o0)).expect("a mode");
        taken(&daemon, &["jon@razorback"], "one");
        taken(&daemon, &["jon@razorback", "list@razorback"], "many");
        // Without tmp/ the first message is delivered nevertheless, because a rename into new/ does
        // not need tmp/.
        let waiting = if closed == "mail/jon/tmp" { 1 } else { 2 };
        daemon.wait_until("deferrals", || {
            let is_meant = |line: &&str| has(line, &["deferred", "jon@", "dsn=4.2.0", "next="]);
            daemon.log().lines().filter(is_meant).count() == waiting
        });
        fs::set_permissions(site.path(closed), Permissions::from_mode(0o755)).expect("a mode");
        assert!(daemon.flush_until(&site, || site.spooled().is_empty()), "{closed}: {}", daemon.log());
        let mut expected = vec!["one", "many"];
        expected.extend((closed != "mail").then_some("before"));
        holds(&Books::of(site.mail("jon")), &expected);
        holds(&Books::of(site.mail("bob")), &["many"]);
        assert_eq!(count(&site.mailbox("jon").join("tmp")), 0, "{closed}");
    }
}

#[test]
fn an_incomplete_maildir_is_completed() {
    let site = site();
    let mut tokens = Vec::new();
    let daemon = site.start();
    for (number, made) in [&["tmp"][..], &["new"], &["cur"], &["tmp", "cur"], &["tmp", "new"]].iter().enumerate() {
        for user in ["jon", "bob"] {
            let _ = fs::rename(site.mailbox(user), site.path(&format!("{user}-{number}")));
            made.iter().for_each(|sub| fs::create_dir_all(site.mailbox(user).join(sub)).expect("a directory"));
        }
        site.hand_over();
        tokens.push(format!("t{number}"));
        // The first message is renamed into the Maildir of jon, the second one copied to that of
        // bob.
        taken(&daemon, &["jon@razorback"], &tokens[number]);
        taken(&daemon, &["list@razorback"], &tokens[number]);
        assert!(daemon.settles(&site), "{made:?}: {}", daemon.log());
        for user in ["jon", "bob"] {
            holds(&Books::of(site.mail(user)), &[&tokens[number]]);
        }
    }
}

/// Sets the soft limit of open files of a daemon. Without prlimit, reports the test as skipped and
/// returns false.
fn limit_files(site: &Site, daemon: &Daemon, limit: usize) -> bool {
    // The owner of a process may always lower the process's limits.
    let owner = fs::metadata(site.path("spool")).expect("a spool");
    let (pid, limit) = (daemon.pid().to_string(), format!("--nofile={limit}:"));
    let mut command = Command::new("prlimit");
    command.args(["--pid", &pid, &limit]).uid(owner.uid()).gid(owner.gid());
    let done = command.status().is_ok_and(|status| status.success());
    if !done {
        common::skipped("prlimit does not work");
    }
    done
}

/// The limit of open files with which a daemon can open `more` files.
fn room_for(daemon: &Daemon, more: usize) -> usize {
    let files = fs::read_dir(format!("/proc/{}/fd", daemon.pid())).expect("a process").flatten();
    let open: Vec<usize> = files.filter_map(|file| file.file_name().to_str()?.parse().ok()).collect();
    let free = (0..).filter(|number| !open.contains(number));
    free.take(more).last().map_or(0, |last| last + 1)
}

#[test]
fn without_descriptors_clients_get_a_temporary_failure() {
    let site = site();
    let daemon = site.start();
    taken(&daemon, &["jon@razorback"], "before");
    assert!(daemon.settles(&site));
    if !limit_files(&site, &daemon, room_for(&daemon, 3)) {
        return;
    }
    let mut guests = Vec::new();
    let turned_away = loop {
        let mut wire = Wire::new(daemon.connect(), false);
        let banner = wire.read_line().expect("a banner").expect("a banner");
        if !banner.starts_with("220") {
            break banner;
        }
        guests.push(wire);
        assert!(guests.len() < 100, "no limit");
    };
    assert!(turned_away.starts_with("421 "), "{turned_away}");
    let letter = |token| format!("{}.", Letter::new(token).text()).replace('\n', "\r\n");
    let converse = |wire: &mut Wire, token| {
        let lines = ["HELO x", "MAIL FROM:<ret@razorback.test>", "RCPT TO:<list@razorback>", "DATA"];
        let replies: Vec<String> = lines.iter().map(|line| wire.ask(line).expect("a reply")).collect();
        if !replies[3].starts_with('3') {
            return replies[1..].iter().find(|reply| !reply.starts_with('2')).cloned().expect("a refusal");
        }
        wire.ask(&letter(token)).expect("a reply")
    };
    let reply = converse(&mut guests[0], "without");
    assert!(reply.starts_with('4'), "{reply}");
    assert!(limit_files(&site, &daemon, 1024));
    let reply = converse(&mut guests[0], "with");
    assert!(reply.starts_with("250"), "{reply}");
    taken(&daemon, &["jon@razorback"], "after");
    assert!(daemon.flush_until(&site, || site.spooled().is_empty()), "{}", daemon.log());
    holds(&Books::of(site.mail("jon")), &["before", "after"]);
    holds(&Books::of(site.mail("bob")), &["with"]);
}

#[test]
fn without_any_descriptor_the_daemon_waits() {
    let site = site();
    let daemon = site.start();
    if !limit_files(&site, &daemon, 3) {
        return;
    }
    let mut wire = Wire::new(daemon.connect(), false);
    daemon.wait_log(|line| line.starts_with("accept:"));
    thread::sleep(Duration::from_millis(500));
    let lines = daemon.log().lines().filter(|line| line.starts_with("accept:")).count();
    assert!(lines < 100, "{lines} lines in the log in half a second");
    assert!(limit_files(&site, &daemon, 1024));
    let banner = wire.read_line().expect("a banner").expect("a banner");
    assert!(banner.starts_with(['2', '4']), "{banner}");
    taken(&daemon, &["jon@razorback"], "after");
    assert!(daemon.settles(&site));
    holds(&Books::of(site.mail("jon")), &["after"]);
}

/// Runs a penfoldd that does not start. Returns its exit code and output.
fn ends(mut command: Command) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = command.output().expect("penfoldd starts");
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
}

#[test]
fn a_second_daemon_does_not_start() {
    let site = site();
    let daemon = site.start();
    let (code, text) = ends(site.penfoldd(&["-d"]));
    assert_eq!(code, Some(75), "{text}");
    assert!(text.contains("is in use by another penfoldd"), "{text}");
    // The first daemon keeps its sockets, and still accepts mail.
    taken(&daemon, &["jon@razorback"], "after");
    assert!(daemon.settles(&site));
    assert_eq!(site.penfoldctl(&["queue"]), "-- queue is empty\n");
    assert_eq!(ends(site.penfoldd(&["-q"])), (Some(0), String::new()));
    holds(&Books::of(site.mail("jon")), &["after"]);
}

#[test]
fn a_spool_of_another_version_is_left_alone() {
    let site = site();
    let daemon = site.start();
    fs::set_permissions(site.path("mail"), Permissions::from_mode(0o0)).expect("a mode");
    taken(&daemon, &["jon@razorback"], "kept");
    daemon.wait_log(|line| has(line, &["deferred", "jon@"]));
    daemon.kill9();
    fs::set_permissions(site.path("mail"), Permissions::from_mode(0o755)).expect("a mode");
    site.write("spool/lock", "penfold/2\n");
    for arguments in [&["-d"], &["-q"], &["-i"]] {
        let (code, text) = ends(site.penfoldd(arguments));
        assert!(code.is_some_and(|code| code != 0) && text.contains("of version penfold/2"), "{code:?} {text}");
    }
    assert_eq!(site.spooled().len(), 1);
    site.write("spool/lock", "penfold/1\n");
    let daemon = site.start();
    assert!(daemon.flush_until(&site, || site.spooled().is_empty()), "{}", daemon.log());
    holds(&Books::of(site.mail("jon")), &["kept"]);
}

#[test]
fn a_damaged_entry_is_set_aside_and_the_others_arrive() {
    let site = site();
    let mut daemon = site.start();
    fs::set_permissions(site.path("mail"), Permissions::from_mode(0o0)).expect("a mode");
    for token in ["at-rest", "at-work", "sound"] {
        taken(&daemon, &["list@razorback"], token);
    }
    let deferred = |daemon: &Daemon| daemon.log().lines().filter(|line| has(line, &["deferred", "cyd@"])).count() == 3;
    daemon.wait_until("three deferrals", || deferred(&daemon));
    // A deferral is logged before the entry moves from new/ to cur/.
    let is_tried = |entry: &Path| entry.parent().is_some_and(|place| place.ends_with("cur"));
    daemon.wait_until("all entries in cur/", || site.spooled().iter().all(|entry| is_tried(entry)));
    let mut entries = site.spooled();
    entries.sort();
    let cut = |path: &Path| {
        let file = OpenOptions::new().write(true).open(path).expect("an entry");
        file.set_len(file.metadata().expect("a file").len() - 1).expect("a cut");
    };
    // One entry is damaged while no daemon runs, another while the daemon runs.
    daemon.kill9();
    cut(&entries[0]);
    daemon = site.start();
    let name = entries[0].file_name().and_then(|n| n.to_str()).expect("a name").to_owned();
    daemon.wait_log(|line| has(line, &[&name, "its size differs from the one in its name", "bad/"]));
    daemon.wait_log(|line| line.contains("messages in the spool"));
    cut(&entries[1]);
    fs::set_permissions(site.path("mail"), Permissions::from_mode(0o755)).expect("a mode");
    assert!(daemon.flush_until(&site, || site.spooled().is_empty()), "{}", daemon.log());
    assert_eq!(count(&site.path("spool/bad")), 2);
    for user in ["ada", "bob", "cyd"] {
        holds(&Books::of(site.mail(user)), &["sound"]);
    }
}

//! `local.quota`: Maildirs with a limit, which the file `maildirsize` counts.
//!
//! Mail that does not fit is refused at RCPT if that is known by then, and waits or returns
//! otherwise. Nothing that a user does with the file harms anything.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::thread;

use common::client::Client;
use common::homes::{FIRST, Homes};
use common::{Daemon, Site};

/// A message whose file in a mailbox has about `kilobytes` KiB.
fn letter(subject: &str, kilobytes: usize) -> String {
    format!("Subject: {subject}\r\n\r\n{}", format!("{}\r\n", "x".repeat(1022)).repeat(kilobytes))
}

/// Sends RCPT in a transaction of its own, for a message of this size (0 for none); the reply must
/// begin with `begins`.
fn rcpt(client: &mut Client, to: &str, size: usize, begins: &str) {
    let size = if size == 0 { String::new() } else { format!(" SIZE={size}") };
    client.ask(&format!("MAIL FROM:<anna@example.net>{size}"), "250 ");
    client.ask(&format!("RCPT TO:<{to}>"), begins);
    client.ask("RSET", "250 ");
}

/// Sends a message without a declared size; the reply at its end must begin with `begins`.
fn end(client: &mut Client, to: &[&str], text: &str, begins: &str) {
    client.ask("MAIL FROM:<anna@example.net>", "250 ");
    for to in to {
        client.ask(&format!("RCPT TO:<{to}>"), "250 ");
    }
    client.ask("DATA", "354 ");
    client.ask(&format!("{text}."), begins);
}

/// The messages of a Maildir and of its folders.
fn files(maildir: &Path) -> Vec<PathBuf> {
    let entries = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let folders =
        entries(maildir).filter(|path| path.file_name().is_some_and(|name| name.as_encoded_bytes()[0] == b'.'));
    let all = folders.chain([maildir.to_owned()]).flat_map(|folder| [folder.join("new"), folder.join("cur")]);
    all.flat_map(|place| entries(&place).collect::<Vec<_>>()).collect()
}

/// The sums in the file `maildirsize`. `None` if there is no such file, or if it has something else.
fn sums(maildir: &Path) -> Option<(i64, i64)> {
    let text = fs::read_to_string(maildir.join("maildirsize")).ok()?;
    let mut lines = text.lines().skip(1).map(|line| {
        let (size, messages) = line.split_once(' ')?;
        Some((size.parse::<i64>().ok()?, messages.parse::<i64>().ok()?))
    });
    lines.try_fold((0, 0), |(size, count), line| line.map(|(more, messages)| (size + more, count + messages)))
}

/// Waits until a mailbox has this number of messages, and the file has their sizes and number: a
/// message is counted after it has got its name. The names have the sizes, too.
fn wait_counted(daemon: &Daemon, maildir: &Path, number: usize) {
    let sizes = || files(maildir).into_iter().map(|file| fs::metadata(&file).map_or(0, |file| file.len() as i64)).sum();
    let is_counted = || files(maildir).len() == number && sums(maildir) == Some((sizes(), number as i64));
    daemon.wait_until(&format!("{number} counted messages"), is_counted);
    for file in files(maildir) {
        let (name, size) = (file.display().to_string(), fs::metadata(&file).expect("a message").len());
        assert!(name.contains(&format!(",S={size}")), "{name}: {size}");
    }
}

/// Removes a message as a mail program does that knows the quota.
fn remove_one(maildir: &Path) {
    let file = files(maildir).pop().expect("a message");
    let size = fs::metadata(&file).expect("a message").len();
    fs::remove_file(file).expect("removed");
    let path = maildir.join("maildirsize");
    let text = fs::read_to_string(&path).expect("the file");
    fs::write(&path, format!("{text}-{size} -1\n")).expect("written");
}

#[test]
fn what_does_not_fit_waits_and_is_told_at_rcpt() {
    let site = Site::with("local.quota = \"64K\"\nqueue.retry_min = \"1h\"");
    let (daemon, mailbox) = (site.start(), site.mailbox("jon"));
    let mut client = daemon.greeted();
    for number in 1..=3 {
        client.send("anna@example.net", &["jon@razorback"], &letter("a", 20));
        wait_counted(&daemon, &mailbox, number);
    }
    // The size that the client declares counts.
    rcpt(&mut client, "jon@razorback", 20_000, "452 4.2.2 <jon@razorback> Mailbox full");
    rcpt(&mut client, "Jon+detail@razorback.test", 20_000, "452 4.2.2 ");
    rcpt(&mut client, "jon@razorback", 1000, "250 ");
    daemon.wait_words(&["refused", "reason=quota", "jon@razorback"]);
    // A client that declares no size is told at the end of the message, if no recipient has room.
    end(&mut client, &["jon@razorback"], &letter("late", 20), "452 4.2.2 Mailbox full");
    client.send("anna@example.net", &["jon@razorback", "root@razorback"], &letter("late", 20));
    let line = daemon.wait_words(&["deferred to=<jon@razorback>", "dsn=4.2.2", "the mailbox is full"]);
    assert!(line.contains(" of at most 64K") && line.contains("via=maildir"), "{line}");
    assert_eq!(files(&mailbox).len(), 3);
    let held = sums(&mailbox).expect("numbers").0;
    // The last room is used.
    let rest = 65_536 - held as usize;
    client.send("anna@example.net", &["jon@razorback"], &letter("small", rest / 1024 - 1));
    wait_counted(&daemon, &mailbox, 4);
    // Mail for others is not affected.
    client.send("anna@example.net", &["root@razorback"], &letter("a", 20));
    daemon.wait_mail(&site, "root", 2);
    remove_one(&mailbox);
    remove_one(&mailbox);
    assert!(daemon.flush_until(&site, || site.spooled().is_empty()), "{}", daemon.log());
    wait_counted(&daemon, &mailbox, 3);
    assert!(!daemon.log().contains("is not applied"), "{}", daemon.log());
}

#[test]
fn mail_over_quota_can_be_refused_for_good() {
    let site = Site::with("local.over_quota = \"refuse\"");
    site.write("users", "jon:::quota=64K\nmary::\nroot::\nanna:::quota=none\n");
    let daemon = site.start();
    let mut client = daemon.greeted();
    client.send("mary@razorback", &["jon@razorback"], &letter("a", 50));
    wait_counted(&daemon, &site.mailbox("jon"), 1);
    rcpt(&mut client, "jon@razorback", 20_000, "552 5.2.2 <jon@razorback> Mailbox full");
    rcpt(&mut client, "mary@razorback", 20_000_000, "250 ");
    // Nobody gets a report about a message that is refused at its end.
    end(&mut client, &["jon@razorback"], &letter("late", 20), "552 5.2.2 Mailbox full");
    daemon.wait_words(&["refused", "reason=quota", "command=DATA"]);
    assert!(site.spooled().is_empty() && !daemon.log().contains("failed to="), "{}", daemon.log());
    client.send("mary@razorback", &["jon@razorback", "root@razorback"], &letter("late", 20));
    daemon.wait_words(&["failed to=<jon@razorback>", "dsn=5.2.2", "the mailbox is full"]);
    let report = String::from_utf8(daemon.wait_mail(&site, "mary", 1).remove(0)).expect("a report");
    assert!(report.contains("Status: 5.2.2") && report.contains("mailbox is full"), "{report}");
    // Without a quota there is no file.
    assert!(!site.mailbox("mary").join("maildirsize").exists());
    wait_counted(&daemon, &site.mailbox("jon"), 1);
}

/// Each `[[domain]]` may have a quota of its own. A recipient who stands for several mailboxes is
/// accepted if one of them has room.
#[test]
fn each_domain_has_its_quota() {
    let site = Site::with("local.quota = \"1M\"\nqueue.retry_min = \"1h\"");
    site.write("users", "jon::\nroot::\n");
    site.write("aliases", "staff: jon@second.test, jon@razorback\nsecond: jon@second.test\n");
    let mut site = site;
    site.set("domain#1", "names", "[\"second.test\"]");
    site.set("domain#1", "mailbox", &format!("\"{}/mail/second-{{user}}\"", site.path("").display()));
    site.set("domain#1", "quota", "\"64K\"");
    let daemon = site.start();
    let mut client = daemon.greeted();
    for to in ["jon@second.test", "jon@razorback"] {
        client.send("anna@example.net", &[to], &letter("a", 50));
    }
    let [jon, second] = ["jon", "second-jon"].map(|user| site.mailbox(user));
    wait_counted(&daemon, &jon, 1);
    wait_counted(&daemon, &second, 1);
    rcpt(&mut client, "jon@second.test", 20_000, "452 4.2.2 ");
    rcpt(&mut client, "second@razorback", 20_000, "452 4.2.2 ");
    rcpt(&mut client, "jon@razorback", 20_000, "250 ");
    rcpt(&mut client, "staff@razorback", 20_000, "250 ");
    client.send("anna@example.net", &["staff@razorback"], &letter("a", 20));
    daemon.wait_words(&["deferred to=<jon@second.test>", "dsn=4.2.2"]);
    wait_counted(&daemon, &jon, 2);
    wait_counted(&daemon, &second, 1);
}

/// Many clients deliver to one mailbox, by renames and by copies. What fits is delivered, and then the
/// mailbox is full.
#[test]
fn deliveries_at_the_same_time_share_the_room() {
    let site = Site::with("local.quota = \"512K\"\nqueue.retry_min = \"1h\"");
    let (daemon, mailbox) = (site.start(), site.mailbox("jon"));
    thread::scope(|scope| {
        for number in 0..8 {
            let daemon = &daemon;
            scope.spawn(move || {
                let mut client = daemon.greeted();
                // Messages for two recipients are copied.
                let to: &[&str] =
                    if number % 2 == 0 { &["jon@razorback"] } else { &["jon@razorback", "root@razorback"] };
                for _ in 0..10 {
                    client.ask("MAIL FROM:<anna@example.net>", "250 ");
                    let replies: Vec<_> = to.iter().map(|to| client.ask(&format!("RCPT TO:<{to}>"), "")).collect();
                    if replies.iter().any(|reply| reply.starts_with("250 ")) {
                        client.ask("DATA", "354 ");
                        let reply = client.ask(&format!("{}.", letter("a", 10)), "");
                        assert!(reply.starts_with("250 ") || reply.starts_with("452 4.2.2 "), "{reply}");
                    } else {
                        client.ask("RSET", "250 ");
                    }
                }
            });
        }
    });
    let count = |words: &str| daemon.log().matches(words).count();
    let delivered = || count(" sent to=<jon@razorback>");
    let ended = || delivered() + count(" deferred to=<jon@razorback>") + count("452 4.2.2 ");
    daemon.wait_until("all attempts", || ended() >= 80);
    // Messages that are under way while the files are counted may exceed the limit, and no message is lost.
    let size: u64 = files(&mailbox).iter().map(|file| fs::metadata(file).expect("a message").len()).sum();
    assert!(size >= 490 << 10, "{size} in {} messages", delivered());
    assert_eq!(files(&mailbox).len(), delivered());
    rcpt(&mut daemon.greeted(), "jon@razorback", 30_000, "452 4.2.2 ");
}

/// The mailbox of a system user is counted by a process with the rights of the user, and a
/// `.forward` makes the quota irrelevant.
#[test]
fn the_mailbox_of_a_system_user_is_counted_by_an_agent() {
    let Some(homes) = Homes::new("local.quota = \"64K\"\nqueue.retry_min = \"1h\"") else { return };
    let daemon = homes.start();
    let mailbox = homes.home("jon").join("Maildir");
    let mut client = daemon.greeted();
    client.send("anna@example.net", &["jon@razorback"], &letter("direct", 20));
    daemon.wait_words(&["sent to=<jon@razorback>"]);
    client.send("anna@example.net", &["jon@razorback", "mary@razorback"], &letter("copied", 20));
    daemon.wait_words(&["sent to=<mary@razorback>"]);
    wait_counted(&daemon, &mailbox, 2);
    let file = fs::metadata(mailbox.join("maildirsize")).expect("the file");
    assert_eq!((file.uid(), file.gid(), file.mode() & 0o777), (FIRST, FIRST, 0o600));
    rcpt(&mut client, "jon@razorback", 30_000, "452 4.2.2 ");
    rcpt(&mut client, "mary@razorback", 30_000, "250 ");
    end(&mut client, &["jon@razorback"], &letter("late", 30), "452 4.2.2 Mailbox full");
    client.send("anna@example.net", &["jon@razorback", "mary@razorback"], &letter("late", 30));
    daemon.wait_words(&["deferred to=<jon@razorback>", "dsn=4.2.2", "the mailbox is full"]);
    // The mailbox of elvis is full, and his mail goes elsewhere.
    for directory in ["Maildir", "Maildir/new", "Maildir/cur", "Maildir/tmp"] {
        fs::create_dir(homes.home("elvis").join(directory)).expect("a directory");
        homes.give("elvis", &homes.home("elvis").join(directory));
    }
    homes.write("elvis", "Maildir/new/1.a,S=65536", "", 0o600);
    homes.write("elvis", ".forward", "mary@else.test\n", 0o600);
    rcpt(&mut client, "elvis@razorback", 30_000, "250 ");
    let text = daemon.log();
    assert!(!text.contains("is not applied"), "{text}");
}

/// The file belongs to the user. Neither a link nor nonsense makes the server or an agent read or
/// write anything else, and no mail waits because of them.
#[test]
fn what_a_user_makes_of_the_file_harms_nothing() {
    let Some(homes) = Homes::new("local.quota = \"64K\"\nqueue.retry_min = \"1h\"") else { return };
    let daemon = homes.start();
    let mailbox = homes.home("jon").join("Maildir");
    let mut client = daemon.greeted();
    client.send("anna@example.net", &["jon@razorback"], &letter("first", 1));
    daemon.wait_words(&["sent to=<jon@razorback>"]);
    let target = homes.site.path("target");
    fs::write(&target, "65536S\n0 0\n").expect("a file");
    let path = mailbox.join("maildirsize");
    let endless = "65536S\n".to_owned() + &"1 1\n".repeat(200_000);
    for (number, nonsense) in
        [None, Some("65536S\n-9223372036854775808 1\n-5 -5\n"), Some(&endless), Some("\0\0")].iter().enumerate()
    {
        let _ = fs::remove_file(&path);
        match nonsense {
            None => symlink(&target, &path).expect("a link"),
            Some(text) => fs::write(&path, text).expect("a file"),
        }
        homes.give("jon", &mailbox);
        if nonsense.is_some() {
            homes.give("jon", &path);
        }
        client.send("anna@example.net", &["jon@razorback"], &letter("next", 1));
        wait_counted(&daemon, &mailbox, number + 2);
    }
    assert_eq!(fs::read_to_string(&target).expect("the target"), "65536S\n0 0\n");
    // A directory cannot be replaced: the mail is delivered, and the log says what is wrong.
    fs::remove_file(&path).expect("removed");
    fs::create_dir(&path).expect("a directory");
    client.send("anna@example.net", &["jon@razorback"], &letter("last", 1));
    daemon.wait_until("the last message", || homes.mail("jon").len() == 6);
    daemon.wait_words(&["the quota of ", "is not applied: read ", "maildirsize: Is a directory"]);
}

/// A program on this host cannot wait: its mail is accepted, and the queue waits for room.
#[test]
fn a_refusal_names_what_sets_the_quota() {
    let mut site = Site::with("local.quota = \"64K\"");
    site.write("users", "jon::\nmary:::quota=64K\nroot::\n");
    site.set("domain#1", "names", "[\"own.test\"]");
    let daemon = site.start();
    let line = format!("table={}:2", site.path("users").display());
    for (to, key) in
        [("jon@razorback", "key=local.quota"), ("mary@razorback", &*line), ("jon@own.test", "key=domain.quota")]
    {
        let mut client = daemon.greeted();
        client.ask("MAIL FROM:<anna@example.net> SIZE=70000", "250 ");
        client.ask(&format!("RCPT TO:<{to}>"), "452 4.2.2 ");
        daemon.wait_words(&[" refused ", &format!("RCPT TO:<{to}>"), "reason=quota", key]);
        // Without an announced size, the message itself is refused.
        client.ask("RSET", "250 ");
        client.ask("MAIL FROM:<anna@example.net>", "250 ");
        client.ask(&format!("RCPT TO:<{to}>"), "250 ");
        client.ask("DATA", "354 ");
        client.ask(&format!("{}.", letter("a", 70)), "452 4.2.2 ");
        daemon.wait_words(&[" refused ", "command=DATA", &format!("rcpt=<{to}>"), "reason=quota", key]);
        let text = site.penfoldctl(&["explain", to, "--ip", "192.0.2.9", "--size", "70000"]);
        assert!(text.contains(&format!("Mailbox full  [{}", key.split_once('=').expect("a name").1)), "{text}");
    }
}

#[test]
fn sendmail_leaves_the_waiting_to_the_queue() {
    let site = Site::with("local.quota = \"64K\"\nqueue.retry_min = \"1h\"");
    let daemon = site.start();
    daemon.greeted().send("anna@example.net", &["jon@razorback"], &letter("a", 62));
    wait_counted(&daemon, &site.mailbox("jon"), 1);
    let text = letter("from cron", 10).replace("\r\n", "\n");
    let output = common::programs::sendmail(&site, &["jon@razorback"], text.as_bytes());
    assert!(output.status.success(), "{output:?}");
    daemon.wait_words(&["deferred to=<jon@razorback>", "dsn=4.2.2"]);
}

#[test]
fn explain_tells_the_quota_and_its_use() {
    let site = Site::with("local.quota = \"1M\"");
    site.write("users", "jon:::quota=64K\nroot::\n");
    let daemon: Daemon = site.start();
    daemon.greeted().send("anna@example.net", &["jon@razorback"], &letter("a", 32));
    wait_counted(&daemon, &site.mailbox("jon"), 1);
    let text = site.penfoldctl(&["explain", "jon@razorback"]);
    assert!(
        text.contains("it holds 1 messages, 32")
            && text.contains(" of at most 64K (50 %)  [")
            && text.contains("users:1]"),
        "{text}"
    );
    let text = site.penfoldctl(&["explain", "root@razorback"]);
    assert!(text.contains("it holds 0 messages, 0 of at most 1M (0 %)  [local.quota"), "{text}");
    // An explanation has no effect.
    assert!(!site.mailbox("root").exists());
    let text = site.penfoldctl(&["explain", "jon@razorback", "--ip", "192.0.2.9", "--size", "40000"]);
    let wanted =
        format!("deferred at RCPT: 452 4.2.2 <jon@razorback> Mailbox full  [{}:1]", site.path("users").display());
    assert!(text.starts_with(&wanted), "{text}");
}

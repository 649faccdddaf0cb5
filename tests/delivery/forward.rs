//! `.forward` files, and the states of home directories.
//!
//! The real daemon runs with agents, processes with the rights of the recipients. That needs root
//! and users of the system: see `common::homes`. Each row is a promise of penfold-aliases(5).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;

use common::homes::{Homes, messages};
use common::remote::{Remote, Sink};

/// Each row has a `.forward` of jon, its mode, the mailboxes that a message to jon reaches, and
/// words of the log. `{home}` is jon's home directory.
const FORWARDS: &[(&str, &str, u32, &[&str], &str)] = &[
    ("another user", "mary\n", 0o644, &["mary"], "via=forward"),
    ("a list", "mary, elvis@razorback # two\n", 0o644, &["mary", "elvis"], "to 2"),
    ("himself and another", "\\jon, mary", 0o600, &["jon", "mary"], "via=forward"),
    ("himself by his name", "jon\nmary\n", 0o600, &["jon", "mary"], "via=forward"),
    ("himself alone", "\\jon\n", 0o600, &["jon"], "via=maildir"),
    ("himself by an alias", "friends\n", 0o600, &["jon", "mary"], "via=forward"),
    ("nothing", "# nothing\n\n", 0o600, &["jon"], "via=maildir"),
    ("nobody", "nosuch\n", 0o600, &["jon"], "ignored ~/.forward of jon: none of the addresses it names exists"),
    (
        "quotes around an address",
        "\"mary@razorback\", \"John\" <elvis> (The King)\r\n",
        0o600,
        &["mary", "elvis"],
        "to 2",
    ),
    ("a line of nonsense", "mary\nj on\n", 0o600, &["mary"], "~/.forward of jon:2: skipped: there is text after"),
    ("nonsense", "j on\n", 0o600, &["jon"], "~/.forward of jon:1: skipped: there is text after the address"),
    ("for others to write", "mary\n", 0o664, &["jon"], "ignored ~/.forward of jon: others may write it"),
    ("for all to write", "mary\n", 0o606, &["jon"], "ignored ~/.forward of jon: others may write it"),
    ("no text", "mary\u{0}\n", 0o600, &["jon"], "~/.forward of jon:1: skipped: the address is not in UTF-8"),
    ("a list of his own", ":include:{home}/list\n", 0o600, &["mary"], "via=forward"),
    ("a file", "\\jon, {home}/box\n", 0o600, &["jon", "jon:box"], "via=mbox"),
    ("a Maildir", "\"{home}/Maildir/\"\n", 0o600, &["jon"], "via=maildir"),
    ("a command", "\"|cat >$HOME/out; id -un >>$HOME/out; pwd >>$HOME/out\"", 0o600, &["jon:out"], "via=command"),
    ("a command without a shell", "|tee out", 0o600, &["jon:out"], "via=command"),
    ("a command that fails", "|false", 0o600, &["report"], "dsn=5.3.0"),
    ("a list that is not there", ":include:/nonexistent/x\n", 0o600, &[], "deferred to=<jon@razorback> via=forward"),
];

#[test]
fn forward_files_take_effect() {
    let Some(homes) = Homes::new("") else { return };
    homes.site.write("aliases", "friends: jon, mary\n");
    homes.site.write("virtual", "report@razorback elvis\n");
    let daemon = homes.start();
    for (what, text, mode, arrives, words) in FORWARDS {
        let home = homes.home("jon");
        let text = text.replace("{home}", home.to_str().expect("UTF-8"));
        homes.write("jon", ".forward", &text, *mode);
        homes.write("jon", "list", "mary\n", 0o644);
        let before = daemon.log().lines().count();
        daemon.submit_from("report@razorback", &["jon"]);
        daemon.wait_until(what, || daemon.log().lines().skip(before).any(|line| line.contains(words)));
        if arrives.is_empty() {
            homes.write("jon", ".forward", "mary\n", 0o644);
            assert!(daemon.flush_until(&homes.site, || homes.site.spooled().is_empty()), "{what}");
            empty(&homes);
            continue;
        }
        assert!(daemon.settles(&homes.site), "{what}");
        let mut came: Vec<String> = Vec::new();
        for user in ["jon", "mary", "elvis"] {
            for mail in homes.mail(user) {
                let is_report = mail.contains("Subject: Undelivered mail");
                came.push(if is_report { "report".into() } else { user.into() });
            }
        }
        came.extend(["box", "out"].iter().filter(|file| home.join(file).exists()).map(|file| format!("jon:{file}")));
        assert_eq!(came, *arrives, "{what}: {}", daemon.log());
        if let Ok(out) = fs::read_to_string(home.join("out")) {
            let is_shell = text.contains("HOME");
            let end = format!("How are you?\njon\n{}\n", home.display());
            assert!(out.ends_with(if is_shell { &end } else { "How are you?\n" }), "{what}: {out}");
        }
        let trace =
            "Return-Path: <report@razorback>\nDelivered-To: mary@razorback\nDelivered-To: jon@razorback\nReceived:";
        for mail in homes.mail("mary") {
            assert!(mail.contains(trace), "{what}: {mail}");
        }
        // Mail that was forwarded to jon has a second line Delivered-To.
        let is_passed = daemon.log().lines().skip(before).any(|line| line.contains("via=forward"));
        for mail in homes.mail("jon") {
            let (head, _) = mail.split_once("\nReceived:").expect("a trace");
            let line = "\nDelivered-To: jon@razorback".repeat(if is_passed { 2 } else { 1 });
            assert_eq!(head, format!("Return-Path: <report@razorback>{line}"), "{what}");
        }
        empty(&homes);
    }
}

/// Removes all delivered mail.
fn empty(homes: &Homes) {
    for user in ["jon", "mary", "elvis"] {
        for thing in ["Maildir", "box", "out"] {
            let path = homes.home(user).join(thing);
            let _ = fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
        }
    }
}

#[test]
fn the_forward_file_of_an_extension_comes_first() {
    let Some(homes) = Homes::new("") else { return };
    homes.write("jon", ".forward", "mary\n", 0o644);
    homes.write("jon", ".forward+lists", "elvis\n", 0o644);
    homes.write("jon", ".forward+a!b", "elvis\n", 0o644);
    homes.write("jon", ".forward+a.b-c_d=1", "elvis\n", 0o644);
    homes.write("jon", ".forward+cmd", "|\"echo $EXTENSION $USER $LOGNAME $HOME >out\"\n", 0o644);
    let daemon = homes.start();
    for (to, user) in [
        ("jon+lists", "elvis"),
        ("jon+LISTS", "elvis"),
        ("jon+other", "mary"),
        ("jon", "mary"),
        ("jon+a!b", "mary"),
        ("jon+a.b-c_d=1", "elvis"),
        ("\"jon+../.forward\"", "mary"),
    ] {
        daemon.submit(&[to]);
        daemon.wait_until(to, || homes.mail(user).len() == 1);
        assert!(daemon.settles(&homes.site));
        empty(&homes);
    }
    daemon.submit(&["jon+CMD"]);
    assert!(daemon.settles(&homes.site));
    let home = homes.home("jon");
    assert_eq!(fs::read_to_string(home.join("out")).expect("text"), format!("cmd jon jon {}\n", home.display()));
}

#[test]
fn a_forward_file_may_be_owned_by_root_or_a_link_and_has_a_maximum_length() {
    let Some(homes) = Homes::new("") else { return };
    let file = homes.home("jon").join(".forward");
    let daemon = homes.start();
    let long = |octets: usize| format!("mary\n#{}\n", "x".repeat(octets - 7));
    homes.write("jon", "own", "mary\n", 0o644);
    homes.write("jon", "fits", &long(64 << 10), 0o644);
    homes.write("jon", "long", &long((64 << 10) + 1), 0o644);
    for (what, script, user) in [
        ("root's", "cp {}/own {}/.forward && chown root {}/.forward", "mary"),
        ("a link to his own", "ln -s own {}/.forward", "mary"),
        ("a link to root's", "echo mary >{}/../roots && ln -s ../roots {}/.forward", "mary"),
        ("the longest", "ln -s fits {}/.forward", "mary"),
        ("a longer one", "ln -s long {}/.forward", "jon"),
    ] {
        homes.mounts.shell(&script.replace("{}", &homes.home("jon").display().to_string()));
        daemon.submit(&["jon"]);
        daemon.wait_until(what, || homes.mail(user).len() == 1);
        assert!(daemon.settles(&homes.site), "{what}");
        fs::remove_file(&file).expect("it is there");
        empty(&homes);
    }
}

#[test]
fn a_ring_of_forward_files_is_a_loop() {
    let Some(homes) = Homes::new("") else { return };
    homes.write("jon", ".forward", "mary\n", 0o644);
    homes.write("mary", ".forward", "jon\n", 0o644);
    let daemon = homes.start();
    daemon.submit_from("elvis@razorback", &["jon"]);
    daemon.wait_words(&["failed to=<jon@razorback>", "dsn=5.4.6", "mail forwarding loop for jon@razorback"]);
    assert!(daemon.settles(&homes.site));
    let report = homes.mail("elvis").concat();
    assert!(report.contains("Status: 5.4.6") && homes.mail("jon").len() + homes.mail("mary").len() == 0, "{report}");
}

#[test]
fn a_user_with_many_extensions_does_not_multiply_mail() {
    let Some(homes) = Homes::new("") else { return };
    let many: String = (0..30).map(|number| format!("jon+{number}\n")).collect();
    let quoted: String = (0..8).map(|number| format!("\"jon+ {number}\"@razorback\n")).collect();
    let cased = "JON+1, Jon+2, \"jon+1\"@RazorBack.test";
    let daemon = homes.start();
    for (what, files, count) in [
        // Each of these addresses leads to the same file, and so to all of them again.
        ("many", &[(".forward", &*many)][..], 30),
        ("few", &[(".forward", "jon+1, jon+2\n")], 2),
        ("details that need quotes", &[(".forward", &quoted)], 8),
        ("several spellings", &[(".forward", cased)], 3),
        // The first file names the extension lists, for which there is a file of its own.
        ("a file for each", &[(".forward", "\\jon, jon+lists\n"), (".forward+lists", "\\jon, mary\n")], 2),
    ] {
        files.iter().for_each(|(file, text)| homes.write("jon", file, text, 0o600));
        daemon.submit(&["jon"]);
        assert!(daemon.settles(&homes.site), "{what}");
        let mail = homes.mail("jon");
        assert_eq!(mail.len(), count, "{what}: {}", daemon.log());
        assert!(mail.iter().all(|text| text.ends_with("How are you?\n")), "{what}: {mail:?}");
        empty(&homes);
        files.iter().for_each(|(file, _)| fs::remove_file(homes.home("jon").join(file)).expect("it is there"));
    }
}

#[test]
fn users_who_forward_to_each_other_do_not_multiply_mail() {
    let Some(homes) = Homes::new("") else { return };
    let many = |user: &str, count: usize| (0..count).map(|n| format!("\"{user}+ {n}\"\n")).collect::<String>();
    homes.site.write("virtual", "report@razorback root\n");
    homes.site.add("aliases", "root: elvis");
    let daemon = homes.start();
    for (what, jon, mary, fails, words) in [
        ("in a ring", many("mary", 8), many("jon", 8), 8 * 8, "mail forwarding loop for"),
        ("more than there may be", many("mary", 40), many("elvis", 40), 40, "leads to 40 recipients, and at most 24"),
        // If a client names the extensions, the limit is the same.
        ("many details", many("elvis", 40), String::new(), 60, "leads to 40 recipients, and at most 16"),
    ] {
        homes.write("jon", ".forward", &jon, 0o600);
        homes.write("mary", ".forward", &mary, 0o600);
        let before = daemon.log().lines().count();
        let details: Vec<String> = (0..60).map(|n| format!("jon+{n}")).collect();
        let to: Vec<&str> = details.iter().map(String::as_str).collect();
        daemon.submit_from("report@razorback", if fails == 60 { &to } else { &["jon"] });
        assert!(daemon.settles(&homes.site), "{what}");
        let failed = |line: &&str| line.contains(" failed ") && line.contains("dsn=5.4.6");
        // The test sees a line of the log a little later than the daemon writes it.
        daemon.wait_until(what, || daemon.log().lines().skip(before).filter(failed).count() == fails);
        daemon.wait_words(&[words]);
        // Failures at the same time are reported together, so there are few reports.
        let reports = homes.mail("elvis");
        let is_report = |mail: &String| mail.contains("Subject: Undelivered mail") && mail.contains("Status: 5.4.6");
        assert!(reports.len() <= 8 && reports.iter().all(is_report), "{what}: {reports:?}");
        assert_eq!([homes.mail("jon").len(), homes.mail("mary").len()], [0; 2], "{what}");
        empty(&homes);
    }
}

#[test]
fn no_header_of_a_sender_disables_a_forward_file() {
    let Some(homes) = Homes::new("") else { return };
    homes.write("jon", ".forward", "mary\n", 0o600);
    homes.site.add("aliases", "staff: jon, mary");
    homes.site.add("aliases", "owner-staff: elvis");
    let daemon = homes.start();
    // The message has Delivered-To fields that a sender has invented: for other recipients, and for
    // the same recipient on the way through a list.
    for (to, fields, count) in
        [("jon", &["jon+a", "\"jon+ c\"", "mary"][..], 1), ("staff", &["jon", "jon+a", "jon", "mary"], 2)]
    {
        let fields: String = fields.iter().map(|field| format!("Delivered-To: {field}@razorback\r\n")).collect();
        daemon.client().send(
            "elvis@razorback",
            &[&format!("{to}@razorback")],
            &format!("{fields}\r\nHow are you?\r\n"),
        );
        assert!(daemon.settles(&homes.site), "{fields}");
        assert_eq!((homes.mail("jon").len(), homes.mail("mary").len()), (0, count), "{fields}: {}", daemon.log());
        empty(&homes);
    }
}

#[test]
fn mail_that_returns_from_another_host_to_other_extensions_does_not_multiply() {
    let Some(homes) = Homes::new("") else { return };
    homes.site.add("aliases", "staff: mary");
    homes.site.add("aliases", "owner-staff: elvis");
    let daemon = homes.start();
    let many = (0..11).map(|n| format!("mary+{n}\n")).collect::<String>();
    for (forward, to, fields, words) in [
        ("mary\n", "jon", &["jon+a", "jon+b"][..], "sent to=<jon@razorback> via=forward"),
        (&*many, "jon", &["mary", "jon@elsewhere.test"], "sent to=<jon@razorback> via=forward"),
        (&*many, "jon", &["\"jon+ a\""], "jon@razorback leads to 11 recipients, and at most 10 are left"),
        ("mary\n", "jon", &["jon+a", "JON+b", "\"jon+ c\""], "mail forwarding loop for jon@razorback"),
        ("mary\n", "staff+1", &["staff+2"], "mail forwarding loop for staff+1@razorback"),
    ] {
        homes.write("jon", ".forward", forward, 0o600);
        let field = |field: &&str| match field.contains('@') {
            true => format!("Delivered-To: {field}\r\n"),
            false => format!("Delivered-To: {field}@razorback\r\n"),
        };
        let text = fields.iter().map(field).collect::<String>() + "\r\nHow are you?\r\n";
        let before = daemon.log().lines().count();
        daemon.client().send("elvis@razorback", &[&format!("{to}@razorback")], &text);
        daemon.wait_until(words, || daemon.log().lines().skip(before).any(|line| line.contains(words)));
        assert!(daemon.settles(&homes.site), "{words}");
        assert!(homes.mail("jon").is_empty(), "{words}");
    }
}

#[test]
fn a_forward_file_names_at_most_a_thousand_addresses() {
    let Some(homes) = Homes::new("") else { return };
    let daemon = homes.start();
    let members = |count: usize| (0..count).map(|n| format!("x{n}@far.test\n")).collect::<String>();
    homes.site.write("routes", "far.test error:5.1.1 nobody\n");
    let list = format!(":include:{}/list\n", homes.home("jon").display());
    for (what, forward, words) in [
        ("more", members(1001), "ignored ~/.forward of jon: it names more than 1000 addresses"),
        ("more by a list", list, "deferred to=<jon@razorback> via=forward"),
    ] {
        homes.write("jon", ".forward", &forward, 0o600);
        homes.write("jon", "list", &members(1001), 0o600);
        daemon.submit_from("elvis@razorback", &["jon"]);
        daemon.wait_words(&[words]);
        println!("{what}");
    }
}

#[test]
fn forwarded_mail_leaves_the_reserve_of_the_spool_alone() {
    for (options, lines) in [("size=40m", 40_000), ("size=40m,nr_inodes=225", 1)] {
        let Some(mut homes) = Homes::new("queue.retry_min = \"1s\"\nqueue.retry_max = \"1s\"") else { return };
        let (disk, full) = (homes.site.path("disk"), homes.home("elvis"));
        fs::create_dir(&disk).expect("a directory");
        homes.site.set("", "spool", &format!("{:?}", disk.join("spool")));
        homes.mounts.shell(&format!(
            "mount -t tmpfs -o {options} tmpfs {0} && chown nobody {0} && \
             mount -t tmpfs -o size=4k tmpfs {1} && chown 61003:61003 {1} && chmod 700 {1}",
            disk.display(),
            full.display()
        ));
        let details = (0..30).map(|n| format!("mary+{n}\n")).collect::<String>();
        homes.write("jon", ".forward", &details, 0o600);
        homes.write("mary", ".forward", "elvis\n", 0o600);
        let daemon = homes.start();
        let text = format!("Subject: long\r\n\r\n{}", "How are you, all of you?\r\n".repeat(lines));
        daemon.client().send("elvis@razorback", &["jon@razorback"], &text);
        daemon.wait_words(&["deferred to=<mary+", "via=forward", "dsn=4.3.1", "the spool has no room for it"]);
        let is_tried = |n: usize| {
            let to = format!("to=<mary+{n}@razorback> orig=<jon@razorback> via=forward");
            daemon.log().lines().any(|line| line.contains(&to))
        };
        daemon.wait_until("an attempt for each", || (0..30).all(is_tried));
        let stat = nix::sys::statvfs::statvfs(&homes.mounts.path(&disk)).expect("a file system");
        let free = (stat.blocks_available() * stat.fragment_size(), stat.files_available());
        // The spool keeps 16 MiB and 200 files free, but deliveries that are just ending may create
        // a few more files.
        assert!(free.0 >= 16 << 20 && free.1 >= 195, "{options}: {free:?}");
        // All mail is deferred. When there is space again, each message arrives once.
        homes.mounts.shell(&format!("mount -o remount,size=64m {}", full.display()));
        let spool = disk.join("spool");
        assert!(daemon.flush_until(&homes.site, || homes.mounts.entries(&spool) == 0), "{}", daemon.log());
        assert_eq!(messages(&homes.mounts.path(&full.join("Maildir"))).len(), 30, "{options}");
    }
}

#[test]
fn home_directories_in_every_state() {
    let Some(homes) = Homes::new("") else { return };
    let home = homes.home("jon");
    let away = homes.site.path("home/away");
    let daemon = homes.start();
    let deferred = |what: &str, words: &str| {
        let before = daemon.log().lines().count();
        daemon.submit_from("elvis@razorback", &["jon"]);
        daemon.wait_until(what, || {
            daemon.log().lines().skip(before).any(|l| l.contains("deferred to=<jon@razorback>") && l.contains(words))
        });
    };
    let arrives = |what: &str| {
        assert!(daemon.flush_until(&homes.site, || homes.site.spooled().is_empty()), "{what}: {}", daemon.log());
        assert!(!homes.mail("jon").is_empty(), "{what}");
        empty(&homes);
    };
    // The home belongs to another user: jon's files in it are ignored, and no mail can be stored.
    homes.write("jon", ".forward", "elvis\n", 0o644);
    homes.give("mary", &home);
    deferred("somebody else's", "dsn=4.2.0");
    daemon.wait_words(&["ignored ~/.forward of jon: the home belongs to another user"]);
    homes.give("jon", &home);
    fs::remove_file(home.join(".forward")).expect("it is there");
    arrives("his again");
    // Others may write to the home, so the `.forward` may be theirs: it is ignored.
    homes.write("jon", ".forward", "elvis\n", 0o644);
    fs::set_permissions(&home, fs::Permissions::from_mode(0o777)).expect("a mode");
    daemon.submit(&["jon"]);
    daemon.wait_words(&["ignored ~/.forward of jon: others may write to the home"]);
    arrives("everybody's");
    fs::set_permissions(&home, fs::Permissions::from_mode(0o755)).expect("a mode");
    fs::remove_file(home.join(".forward")).expect("it is there");
    // The home is missing, as when its file system is not mounted.
    fs::rename(&home, &away).expect("a rename");
    deferred("missing", "dsn=4.2.0");
    fs::rename(&away, &home).expect("a rename");
    arrives("there again");
    // The home is a link to another directory.
    fs::rename(&home, &away).expect("a rename");
    symlink(&away, &home).expect("a link");
    daemon.submit(&["jon"]);
    arrives("a link");
    fs::remove_file(&home).expect("a link");
    fs::rename(&away, &home).expect("a rename");
    // The home is a file system of its own, which gets full, and then read-only.
    let path = home.display();
    homes
        .mounts
        .shell(&format!("mount -t tmpfs -o size=64k tmpfs {path} && chown 61001:61001 {path} && chmod 700 {path}"));
    let inside = homes.mounts.path(&home.join("Maildir"));
    daemon.submit(&["jon"]);
    assert!(daemon.settles(&homes.site));
    assert_eq!(messages(&inside).len(), 1, "{}", daemon.log());
    homes.mounts.shell(&format!("head -c 100000 /dev/zero >{path}/full 2>/dev/null; true"));
    deferred("full", "dsn=4.3.1");
    homes.mounts.shell(&format!("rm {path}/full; mount -o remount,ro {path}"));
    deferred("read-only", "dsn=4.2.0");
    homes.mounts.shell(&format!("mount -o remount,rw {path}"));
    assert!(daemon.flush_until(&homes.site, || homes.site.spooled().is_empty()), "{}", daemon.log());
    assert_eq!(messages(&inside).len(), 3);
}

#[test]
fn users_of_the_system_may_have_mbox_files() {
    let Some(mut homes) = Homes::new("") else { return };
    let spool = homes.site.path("home/var");
    fs::create_dir(&spool).expect("a directory");
    homes.site.set("local", "mailbox", &format!("\"mbox:{}/{{user}}\"", spool.display()));
    for user in ["jon", "mary"] {
        fs::write(spool.join(user), "").expect("a file");
        homes.give(user, &spool.join(user));
    }
    // The mailboxes have the owners and modes that Debian gives them, and there is a Maildir of the
    // server.
    homes
        .mounts
        .shell(&format!("cd {0} && chgrp mail . jon mary && chmod 2775 . && chmod 660 jon mary", spool.display()));
    fs::create_dir(spool.join("archive")).expect("a directory");
    common::own(&spool.join("archive"));
    let line = |name: &str| format!("{name}: {}/\n", spool.join(name).display());
    homes.site.write("aliases", &["archive", "missing"].map(line).concat());
    let daemon = homes.start();
    // Only root may create files in the directory: mail for existing mailboxes arrives without a
    // lock file, and mail for missing mailboxes waits.
    daemon.submit(&["jon", "mary", "elvis", "archive", "missing"]);
    for user in ["jon", "mary"] {
        let line = daemon.wait_words(&["sent", &format!("to=<{user}@razorback>"), "via=mbox"]);
        assert!(line.contains(&format!("host={}", spool.join(user).display())), "{line}");
        let text = fs::read_to_string(spool.join(user)).expect("text");
        assert!(text.starts_with("From jon@razorback.test ") && text.ends_with("How are you?\n\n"), "{text}");
    }
    let why = format!("open {}: Permission denied", spool.join("elvis").display());
    daemon.wait_words(&["deferred to=<elvis@razorback>", "dsn=4.2.0", &why]);
    daemon.wait_words(&["sent to=<archive@razorback>", "via=maildir"]);
    daemon.wait_words(&["deferred to=<missing@razorback>", "Permission denied"]);
}

#[test]
fn a_hostile_forward_file_harms_only_its_owner() {
    let Some(homes) = Homes::new("") else { return };
    let daemon = homes.start();
    let file = homes.home("jon").join(".forward");
    homes.write("mary", "theirs", "elvis\n", 0o644);
    let path = file.display();
    for (what, script, words) in [
        ("a directory", format!("mkdir {path}"), "ignored ~/.forward of jon: it is not a plain file"),
        ("a FIFO that nobody writes to", format!("mkfifo {path}"), "ignored ~/.forward of jon: it is not a plain file"),
        ("an endless device", format!("ln -s /dev/zero {path}"), "ignored ~/.forward of jon: it is not a plain file"),
        ("a long one", format!("head -c 70000 /dev/zero >{path}"), "ignored ~/.forward of jon: it is longer than"),
        ("what is none", format!("ln -s /etc/hosts {path}"), "~/.forward of jon:1: skipped: "),
        ("another's", format!("ln -s ../mary/theirs {path}"), "ignored ~/.forward of jon: it belongs to another user"),
        ("a link to nowhere", format!("ln -s nowhere {path}"), "via=maildir"),
    ] {
        homes.mounts.shell(&format!("{script} && chown -h 61001:61001 {path}"));
        let before = daemon.log().lines().count();
        daemon.submit_from("elvis@razorback", &["jon"]);
        daemon.wait_until(what, || daemon.log().lines().skip(before).any(|line| line.contains(words)));
        assert!(daemon.settles(&homes.site) && homes.mail("jon").len() == 1, "{what}: {}", daemon.log());
        homes.mounts.shell(&format!("rm -rf {path}"));
        empty(&homes);
    }
    // Users who kill their own agent, the process that delivers to them, or name files of others,
    // affect only their own mail.
    let command = |text: &str, words: &str| {
        homes.write("jon", ".forward", &format!("\"|{text}\"\n"), 0o600);
        let before = daemon.log().lines().count();
        daemon.submit_from("elvis@razorback", &["jon"]);
        daemon.wait_until(text, || daemon.log().lines().skip(before).any(|line| line.contains(words)));
        assert!(daemon.flush_until(&homes.site, || homes.site.spooled().is_empty()), "{text}: {}", daemon.log());
        empty(&homes);
    };
    command("test -e again || { touch again; kill -9 $PPID; }", "deferred to=<jon@razorback>");
    let spool = homes.site.path("spool");
    command(&format!("ls {}/new || exit 77", spool.display()), "dsn=5.7.0");
    let server = daemon.pid();
    command(&format!("kill -9 {server} || exit 77"), "dsn=5.7.0");
    daemon.submit(&["mary"]);
    daemon.wait_until("mail", || homes.mail("mary").len() == 1);
}

#[test]
fn an_incomplete_message_is_removed_from_a_file() {
    let Some(homes) = Homes::new("") else { return };
    let home = homes.home("jon");
    let path = home.display();
    homes.mounts.shell(&format!(
        "mount -t tmpfs -o size=64k tmpfs {path} && chown 61001:61001 {path} && chmod 700 {path} && \
         echo {path}/box >{path}/.forward && chown 61001 {path}/.forward"
    ));
    let mbox = homes.mounts.path(&home.join("box"));
    let daemon = homes.start();
    daemon.submit(&["jon"]);
    assert!(daemon.settles(&homes.site));
    let first = fs::read_to_string(&mbox).expect("text");
    assert!(first.starts_with("From jon@razorback.test "), "{first}");
    homes.mounts.shell(&format!("head -c 100000 /dev/zero >{path}/full 2>/dev/null; true"));
    let text = format!("Subject: long\r\n\r\n{}", "How are you, all of you?\r\n".repeat(400));
    daemon.client().send("elvis@razorback", &["jon"], &text);
    let reason = daemon.wait_words(&["deferred to=<jon@razorback>", "via=mbox"]);
    assert!(reason.contains("dsn=4.3.1"), "{reason}");
    assert_eq!(fs::read_to_string(&mbox).expect("text"), first);
    homes.mounts.shell(&format!("rm {path}/full"));
    assert!(daemon.flush_until(&homes.site, || homes.site.spooled().is_empty()), "{}", daemon.log());
    let both = fs::read_to_string(&mbox).expect("text");
    assert!(both.starts_with(&first) && both.ends_with("all of you?\n\n"), "{both}");
    assert_eq!(both.matches("\nFrom ").count(), 1);
}

#[test]
fn the_options_for_reports_follow_a_forward_file() {
    let mut sink = Sink::default();
    sink.keywords.push("DSN".to_owned());
    let remote = Remote::with(sink);
    let Some(homes) = Homes::new("") else { return };
    homes.site.add("routes", &format!("dsn.test {}", remote.host_port()));
    homes.site.write("virtual", "report@razorback elvis\n");
    let daemon = homes.start();
    for (forward, expected, is_reported) in [
        ("a@dsn.test\n", "NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;j@x.test", false),
        ("a@dsn.test, mary\n", "NOTIFY=FAILURE ORCPT=rfc822;j@x.test", true),
    ] {
        homes.write("jon", ".forward", forward, 0o600);
        let mut client = daemon.greeted();
        client.ask("MAIL FROM:<report@razorback> ENVID=q", "250 ");
        client.ask("RCPT TO:<jon@razorback> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;j@x.test", "250 ");
        client.ask("DATA", "354 ");
        client.ask("Subject: x\r\n\r\nx\r\n.", "250 ");
        remote.messages(1);
        let message = remote.take().remove(0);
        assert_eq!(message.recipients, [format!("<a@dsn.test> {expected}")]);
        assert!(message.sender.ends_with(" ENVID=q"), "{}", message.sender);
        assert!(daemon.settles(&homes.site), "{}", daemon.log());
        assert_eq!(daemon.log().contains(" confirmed "), is_reported, "{}", daemon.log());
    }
    let report = messages(&homes.home("elvis").join("Maildir")).remove(0);
    assert!(report.contains("Final-Recipient: rfc822; jon@razorback\nAction: expanded\n"), "{report}");
}

//! Alias members other than addresses: commands, files and lists, and the owner of a list.
//!
//! The real daemon runs with a users file, as any user. tests/delivery/forward.rs has the features
//! that only users of the system have. Each row is a promise of penfold-aliases(5).

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use common::client::TEXT;
use common::homes::messages;
use common::{Daemon, Site, own, pages};
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc::{F_WRLCK, SEEK_SET, flock};

/// A site with these lines of aliases, in which `{}` stands for a directory that the daemon may
/// write to.
fn site(aliases: &str) -> Site {
    let site = Site::new();
    site.write("aliases", &filled(&site, aliases));
    site
}

fn filled(site: &Site, text: &str) -> String {
    text.replace("{}", site.path("mail").to_str().expect("UTF-8"))
}

/// Waits until a file exists, and returns its content.
fn wait_file(daemon: &Daemon, path: &Path) -> String {
    daemon.wait_until(&path.display().to_string(), || path.exists());
    fs::read_to_string(path).expect("text")
}

fn text_of(messages: Vec<Vec<u8>>) -> String {
    messages.iter().map(|message| String::from_utf8_lossy(message)).collect()
}

#[test]
fn a_command_gets_the_message_and_the_addresses_in_its_environment() {
    let site = site("cmd: \"|env -0 >{}/env; ls /proc/self/fd >{}/fd; cat >{}/part; mv {}/part {}/out\"\nlist: cmd\n");
    let daemon = site.start();
    let evil = format!("\"-x;$(touch {}/pwned)`id`|\"@x.org", site.path("mail").display());
    let text = format!("{TEXT}{}", "0123456789abcdef\r\n".repeat(20_000));
    daemon.client().send(&evil, &["list"], &text);
    let out = wait_file(&daemon, &site.path("mail/out"));
    assert!(out.starts_with(&format!("Return-Path: <{evil}>\nDelivered-To: cmd@razorback\nReceived: ")), "{out:.200}");
    assert!(out.contains("\n\nHow are you?\n0123456789abcdef\n") && out.len() > 20_000 * 17 && !out.contains('\r'));
    let environment = fs::read_to_string(site.path("mail/env")).expect("text");
    let mut known: BTreeMap<&str, &str> = environment.split('\0').filter_map(|line| line.split_once('=')).collect();
    // The shell sets these variables by itself.
    known.retain(|name, _| !["PWD", "OLDPWD", "SHLVL", "_"].contains(name));
    let sender = known.remove("SENDER").expect("a sender");
    assert!(sender.starts_with("_-x___touch_") && !sender.contains(['$', ';', '`', '|', ' ', '/']), "{sender}");
    for (name, value) in [
        ("RECIPIENT", "cmd@razorback"),
        ("ORIGINAL_RECIPIENT", "list@razorback"),
        ("LOCAL", "cmd"),
        ("DOMAIN", "razorback"),
        ("EXTENSION", ""),
        ("HOME", "/"),
        ("SHELL", "/bin/sh"),
        ("PATH", "/usr/local/bin:/usr/bin:/bin"),
    ] {
        assert_eq!(known.remove(name), Some(value), "{name}");
    }
    assert_eq!(known.keys().copied().collect::<Vec<_>>(), ["LOGNAME", "USER"]);
    daemon.wait_words(&["sent to=<cmd@razorback>", "orig=<list@razorback>", "via=command", "dsn=2.0.0"]);
    assert!(daemon.settles(&site) && !site.path("mail/pwned").exists());
    // The command has no descriptor of the server: only the three standard files, and the directory
    // that ls reads.
    assert_eq!(fs::read_to_string(site.path("mail/fd")).expect("text").lines().count(), 4);
    // The variables of a command differ if the address has an extension.
    fs::remove_file(site.path("mail/out")).expect("it is there");
    daemon.submit(&["cmd+a.b@razorback"]);
    wait_file(&daemon, &site.path("mail/out"));
    let environment = fs::read_to_string(site.path("mail/env")).expect("text");
    assert!(environment.contains("EXTENSION=a.b\0") && environment.contains("LOCAL=cmd+a.b\0"), "{environment}");
}

#[test]
fn the_exit_code_of_a_command_decides() {
    let ends = [
        ("exit 0", "sent", "2.0.0", ""),
        ("exit 64", "failed", "5.3.0", "it was used wrongly"),
        ("exit 65", "failed", "5.6.0", ""),
        ("exit 67", "failed", "5.1.1", "no such user"),
        ("exit 69", "failed", "5.3.0", ""),
        ("exit 71", "deferred", "4.3.0", ""),
        ("exit 73", "deferred", "4.3.0", ""),
        ("exit 74", "deferred", "4.3.0", ""),
        ("exit 75", "deferred", "4.3.0", "not now"),
        ("exit 77", "failed", "5.7.0", "permission denied"),
        ("exit 78", "deferred", "4.3.5", "not configured correctly"),
        ("exit 1", "failed", "5.3.0", "the command ended with code 1"),
        ("kill -9 $$", "deferred", "4.3.0", "ended by signal 9"),
        ("nosuchprogram; exit", "deferred", "4.3.5", "there is no such command"),
        ("head -c 1 >/dev/null; exit 0", "sent", "2.0.0", ""),
        ("echo it is all wrong; echo really >&2; exit 70", "failed", "5.3.0", "it said: it is all wrong really"),
    ];
    let lines = ends.iter().enumerate().map(|(at, (script, ..))| format!("c{at}: \"|{script};\"\n"));
    let bare = "missing: |/nonexistent/program -x\ntrue: |true\nfalse: |false\n\
        later: \"|exit 75\"\nnothing: |:\nnone: \"|nosuchprogram -x\"\n";
    let site = site(&lines.chain([bare.to_owned()]).collect::<String>());
    let daemon = site.start();
    for (at, (script, fate, status, words)) in ends.into_iter().enumerate() {
        daemon.submit(&[&format!("c{at}")]);
        let line = daemon.wait_words(&[&format!("to=<c{at}@razorback>")]);
        assert!(line.contains(&format!(" {fate} ")) && line.contains(&format!("dsn={status}")), "{script}: {line}");
        assert!(line.contains(words), "{script}: {line}");
    }
    for (name, fate, words) in [
        ("missing", "deferred", "code 127: there is no such command"),
        ("true", "sent", ""),
        ("false", "failed", "code 1"),
        // The program exists, and the code may come from the shell, so the reason is not that the
        // program is missing.
        ("later", "deferred", "code 75: not now"),
        ("nothing", "sent", ""),
        ("none", "deferred", "code 127: there is no such command"),
    ] {
        daemon.submit(&[name]);
        let line = daemon.wait_words(&[&format!("to=<{name}@razorback>"), "via=command"]);
        assert!(line.contains(&format!(" {fate} ")) && line.contains(words), "{name}: {line}");
    }
    // The report to the sender contains the output of the command.
    daemon.wait_until("a report", || text_of(site.mail("jon")).contains("it is all wrong really"));
}

#[test]
fn messages_are_appended_to_files() {
    let site =
        site("mbox: {}/box\nmaildir: {}/dir/\nnull: /dev/null\nlinked: {}/link\nabove: {}/dir\naway: {}/../away/\n");
    fs::create_dir(site.path("away")).expect("a directory");
    own(&site.path("away"));
    symlink(site.path("mail/elsewhere"), site.path("mail/link")).expect("a link");
    let daemon = site.start();
    let text = format!("{TEXT}From me\r\n>From you\r\n>>From\r\nFromage\r\n");
    for count in 1..3 {
        daemon.client().send("a@x.org", &["mbox"], &text);
        daemon.wait_until("mail", || daemon.log().matches("via=mbox").count() == count);
    }
    let mbox = fs::read_to_string(site.path("mail/box")).expect("text");
    let (first, second) = mbox[1..].split_once("\nFrom a@x.org ").expect("two messages");
    for message in [&format!("F{first}\n"), &format!("From a@x.org {second}")] {
        assert!(message.starts_with("From a@x.org ") && message.ends_with("\nFromage\n\n"), "{message:?}");
        assert!(message.contains("\nReturn-Path: <a@x.org>\nDelivered-To: mbox@razorback\nReceived: "), "{message}");
        assert!(message.contains("\n>From me\n>>From you\n>>From\n"), "{message}");
    }
    assert!(!site.path("mail/box.lock").exists());
    assert_eq!(fs::metadata(site.path("mail/box")).expect("there").mode() & 0o777, 0o600);
    daemon.submit(&["maildir"]);
    daemon.wait_until("mail", || messages(&site.path("mail/dir")).len() == 1);
    // The path leads out of the directories that the server itself can reach, so an agent, a
    // separate process, delivers.
    daemon.submit(&["away"]);
    daemon.wait_until("mail", || messages(&site.path("away")).len() == 1);
    daemon.submit(&["null"]);
    daemon.wait_words(&["sent to=<null@razorback>"]);
    for name in ["linked", "above"] {
        daemon.submit(&[name]);
        daemon.wait_words(&["deferred", &format!("to=<{name}@razorback>")]);
    }
    assert!(!site.path("mail/elsewhere").exists());
}

#[test]
fn half_a_message_of_a_crash_is_ended_before_the_next_one() {
    let site = site("mbox: {}/box\n");
    let daemon = site.start();
    let parts = [("", ""), ("\n", ""), ("From x\n\nall\n\n", ""), ("From x\n\nall\n", "\n"), ("From x\n\nal", "\n\n")];
    for (count, (part, end)) in (1..).zip(parts) {
        site.write("mail/box", part);
        daemon.client().send("a@x.org", &["mbox"], TEXT);
        daemon.wait_until("mail", || daemon.log().matches("via=mbox").count() == count);
        let text = fs::read_to_string(site.path("mail/box")).expect("text");
        assert!(text.starts_with(&format!("{part}{end}From a@x.org ")), "{part:?}: {text}");
    }
}

const WHOLE: flock = flock { l_type: F_WRLCK as i16, l_whence: SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 };

#[test]
fn delivery_waits_for_a_locked_file() {
    let site = site("mbox: {}/box\n");
    let daemon = site.start();
    site.write("mail/box.lock", "");
    daemon.submit(&["mbox"]);
    daemon.wait_words(&["accept "]);
    assert!(!site.path("mail/box").exists());
    fs::remove_file(site.path("mail/box.lock")).expect("the lock");
    daemon.wait_words(&["sent to=<mbox@razorback>"]);
    // The file is locked with fcntl, the second kind of lock. The daemon creates its lock file
    // before it waits for that lock.
    let file = fs::OpenOptions::new().write(true).open(site.path("mail/box")).expect("the file");
    let (size, all) = (file.metadata().expect("there").len(), FcntlArg::F_OFD_SETLK(&WHOLE));
    fcntl(&file, all).expect("a lock");
    daemon.submit(&["mbox"]);
    daemon.wait_until("its lock", || site.path("mail/box.lock").exists());
    assert_eq!(file.metadata().expect("there").len(), size);
    drop(file);
    daemon.wait_until("the second one", || daemon.log().matches("sent to=<mbox@razorback>").count() == 2);
}

#[test]
fn lists_are_read_from_files_and_reports_go_to_their_owner() {
    let site = site(
        "staff: :include:{}/staff\nowner-staff: root\nring: :include:{}/one\nlate: :include:{}/late\n\
         all: staff, root\none: :include:{}/to-two\ntwo: :include:{}/to-one\nbad: :include:{}/bad\nown: :include:{}/own\ndead: jon, nosuch\nowner-dead: root\n",
    );
    for (file, text) in [
        ("staff", "# who works here\nJon <jon@razorback>, root # both\n:include:{}/more\n"),
        ("more", "jon\n:include:{}/staff\n"),
        ("one", ":include:{}/two\njon"),
        ("two", ":include:{}/one\n"),
        ("bad", "jon\nj\u{85}n\n|cat\n/etc/motd\n"),
        ("own", "own, jon\n"),
        ("to-one", "one\n"),
        ("to-two", "two\n"),
    ] {
        site.write(&format!("mail/{file}"), &filled(&site, text));
    }
    let daemon = site.start();
    daemon.submit_from("a@x.org", &["staff"]);
    for user in ["jon", "root"] {
        let mail = text_of(daemon.wait_mail(&site, user, 1));
        let head = format!(
            "Return-Path: <owner-staff@razorback>\nDelivered-To: {user}@razorback\nDelivered-To: staff@razorback\n"
        );
        assert!(mail.starts_with(&head), "{mail}");
    }
    daemon.wait_words(&["sent to=<staff@razorback>", "via=list", "passed on as", "to 2"]);
    daemon.submit_from("a@x.org", &["ring"]);
    let mail = text_of(daemon.wait_mail(&site, "jon", 2));
    assert!(mail.contains("Return-Path: <a@x.org>"), "{mail}");
    // The lists one and two lead to each other, which is a loop.
    daemon.submit_from("", &["one"]);
    daemon.wait_words(&["failed to=<one@razorback>", "dsn=5.4.6", "mail forwarding loop for one@razorback"]);
    daemon.wait_until("a report to the postmaster", || text_of(site.mail("root")).contains("Status: 5.4.6"));
    // The file of the list late does not exist, so the mail is retried.
    daemon.submit(&["late"]);
    daemon.wait_words(&["deferred to=<late@razorback>", "dsn=4.3.5", "there is no such file"]);
    site.write("mail/late", "jon\n");
    assert!(daemon.flush_until(&site, || site.mail("jon").len() == 3));
    // In the list bad, malformed lines are ignored, and a command is not run.
    daemon.submit(&["bad"]);
    daemon.wait_mail(&site, "jon", 4);
    daemon.wait_words(&["/bad:2: skipped: the part before the @ is not a valid name"]);
    daemon.wait_words(&["/bad: skipped: commands and files in a list"]);
    // The list own names itself. That line means a user of the name own, who does not exist.
    daemon.submit_from("root@razorback", &["own"]);
    daemon.wait_mail(&site, "jon", 5);
    daemon.wait_words(&["failed to=<own@razorback>", "User unknown"]);
    assert!(daemon.settles(&site));
    // The list dead has a member that does not exist. The report about that goes to the owner of
    // the list, not to the sender.
    let before = site.mail("root").len();
    daemon.submit_from("jon@razorback", &["dead"]);
    daemon.wait_mail(&site, "jon", 6);
    daemon.wait_until("a report", || site.mail("root").len() > before);
    assert!(daemon.settles(&site));
    assert_eq!(site.mail("jon").len(), 6, "{}", text_of(site.mail("jon")));
    // A message with the null sender is a report itself. Its copies keep the null sender, so that
    // no report about them is sent.
    daemon.submit_from("", &["staff"]);
    assert!(text_of(daemon.wait_mail(&site, "jon", 7)).contains("Return-Path: <>\n"));
}

#[test]
fn mail_to_an_unusable_list_is_deferred() {
    // Each row has the name of a list, its text, a script that changes its file, the outcome, and
    // words of the log. `{}` is the path of the file.
    let jon = "jon\n";
    let comment = |octets: usize| format!("{jon}#{}\n", "x".repeat(octets - jon.len() - 2));
    let (fits, long) = (comment(512 << 10), comment((512 << 10) + 1));
    let lists = |count| (1..=count).map(|n| format!(":include:{{}}{n}\n")).collect::<String>() + jon;
    let cases = [
        ("directory", "", "mkdir {}", "deferred", "it is not a plain file"),
        ("fifo", "", "mkfifo {}", "deferred", "it is not a plain file"),
        ("nul", "jon\0\n", "", "deferred", "nobody is on the list"),
        (
            "latin",
            "",
            "printf 'jon\\n\\351lise@x.org\\nJos\\351 <root@razorback> (Jos\\351), # \\351\\r\\n' >{}",
            "sent",
            "to 2",
        ),
        ("long", &long, "", "deferred", "it is longer than 524288 octets"),
        ("fits", &fits, "", "sent", "to 1"),
        // At most a hundred lists may include each other, and the first list counts as one of them.
        ("hundred", &lists(99), "for n in $(seq 99); do cp /dev/null {}$n; done", "sent", "to 1"),
        ("more", &lists(100), "for n in $(seq 100); do cp /dev/null {}$n; done", "deferred", "more than 100 lists"),
        ("others", jon, "chmod 666 {}", "sent", "to 1"),
        ("link", "", "ln -s others {}", "sent", "to 1"),
        ("secret", jon, "chown root {} && chmod 600 {}", "deferred", "Permission denied"),
        ("empty", "# nobody\n", "", "deferred", "nobody is on the list"),
        ("idle", "|cat\n", "", "deferred", "nobody is on the list"),
    ];
    let alias = |(name, ..): &(&str, _, _, _, _)| format!("{name}: :include:{{}}/{name}\n");
    let site = site(&cases.iter().map(alias).collect::<String>());
    let daemon = site.start();
    for (name, text, script, fate, words) in cases {
        if name == "secret" && !nix::unistd::geteuid().is_root() {
            common::skipped("only root can have files that others cannot read");
            continue;
        }
        let path = site.path("mail").join(name).display().to_string();
        if !text.is_empty() {
            site.write(&format!("mail/{name}"), &text.replace("{}", &path));
        }
        let made = std::process::Command::new("sh").args(["-ec", &script.replace("{}", &path)]).status();
        assert!(made.expect("a shell").success(), "{name}");
        daemon.submit_from("", &[name]);
        let line = daemon.wait_words(&[&format!(" {fate} to=<{name}@razorback> via=list")]);
        assert!(line.contains(words), "{name}: {line}");
        assert!(fate != "deferred" || line.contains("dsn=4."), "{name}: {line}");
    }
}

#[test]
fn lists_that_name_extensions_of_each_other_do_not_multiply_mail() {
    let site = site(
        "one: :include:{}/one\ntwo: :include:{}/two\nlong: :include:{}/long\ntwice: root\nowner-twice: sink\nowner-one: sink\nsink: /dev/null\n",
    );
    let details = |name: &str| (0..30).map(|n| format!("{name}+{n}, \"{name}+ {n}\"\n")).collect::<String>();
    site.write("mail/one", &(details("one") + &details("two") + "jon\n"));
    site.write("mail/two", &(details("two") + &details("one") + "root\n"));
    site.write("mail/long", &(0..1500).map(|n| format!("x{n}@far.test\n")).collect::<String>());
    site.write("routes", "far.test error:4.2.1 later\n");
    let daemon = site.start();
    daemon.submit(&["one"]);
    assert!(daemon.settles(&site));
    // However many extensions of a list's name occur, the list is delivered to once.
    daemon.wait_words(&["sent to=<one@razorback>", "to 3\""]);
    assert_eq!((site.mail("jon").len(), site.mail("root").len()), (1, 1));
    daemon.wait_until("three loops", || daemon.log().matches("mail forwarding loop for").count() == 3);
    daemon.submit(&["long"]);
    daemon.wait_words(&["sent to=<long@razorback>", "to 1500\""]);
    // A client that names several extensions of an alias does not multiply mail either.
    daemon.submit(&["twice+1", "twice+2", "twice", "\"twice+ 3\""]);
    daemon.wait_until("the list", || daemon.log().matches("the list has it by another detail").count() == 3);
    daemon.wait_mail(&site, "root", 2);
    assert_eq!(site.mail("root").len(), 2);
}

#[test]
fn a_member_of_a_list_who_is_also_a_recipient_gets_two_copies() {
    let site = site("staff: :include:{}/staff\nall: staff, root\nboth: root, root\n");
    site.write("mail/staff", "jon, root, root\n");
    let daemon = site.start();
    daemon.submit(&["all"]);
    daemon.wait_mail(&site, "root", 2);
    assert!(daemon.settles(&site));
    assert_eq!((site.mail("jon").len(), site.mail("root").len()), (1, 2));
    daemon.submit(&["both"]);
    assert!(daemon.settles(&site));
    assert_eq!(site.mail("root").len(), 3);
}

#[test]
fn a_list_is_read_at_delivery_and_an_alias_at_acceptance() {
    let site = site("list: :include:{}/list\nowner-list: jon\nalias: x@far.test\n");
    site.write("mail/list", "x@far.test\n");
    site.write("routes", "far.test error:4.2.1 later\n");
    let daemon = site.start();
    daemon.submit(&["alias"]);
    daemon.wait_words(&[" deferred to=<x@far.test>", "orig=<alias@razorback>", "dsn=4.2.1 reason=later"]);
    daemon.submit(&["list"]);
    daemon.wait_words(&[" deferred to=<x@far.test>", "orig=<list@razorback>"]);
    // A changed list applies to the next delivery. A changed alias applies only to messages that
    // are accepted afterwards.
    site.write("aliases", &filled(&site, "list: :include:{}/list\nalias: root\n"));
    site.write("mail/list", "root\n");
    daemon.submit(&["list"]);
    daemon.wait_mail(&site, "root", 1);
    daemon.submit(&["alias"]);
    let mail = text_of(daemon.wait_mail(&site, "root", 2));
    assert!(mail.contains("Delivered-To: list@razorback\n") && !mail.contains("owner-list"), "{mail}");
    daemon.wait_until("the two that wait", || site.spooled().len() == 2);
}

#[test]
fn no_octet_of_an_address_becomes_part_of_a_command_or_a_path() {
    let site = site("jon: jon\ncmd: \"|cat >/dev/null; echo $SENDER $EXTENSION $LOCAL\"\n");
    let daemon = site.start();
    let touch = filled(&site, "touch {}/pwned");
    let mut client = daemon.client();
    for (address, reply) in [
        (format!("\"|{touch}\""), "550 5.1.1"),
        (format!("\"|{touch}\"@razorback"), "550 5.1.1"),
        (format!("\"{}/pwned\"", site.path("mail").display()), "550 5.1.1"),
        ("\":include:/etc/passwd\"".to_owned(), "550 5.1.1"),
        ("\"\\\\jon\"".to_owned(), "550 5.1.1"),
        (";sleep 66;".to_owned(), "5"),
        ("\";sleep 66;\"".to_owned(), "550 5.1.1"),
        ("\"../../root\"".to_owned(), "550 5.1.1"),
        ("\"-froot\"".to_owned(), "550 5.1.1"),
        ("-froot".to_owned(), "550 5.1.1"),
        ("/etc/passwd".to_owned(), "550 5.1.1"),
        ("jon%00@razorback".to_owned(), "550 5.1.1"),
        ("jon\0@razorback".to_owned(), "5"),
        ("jon\x0b@razorback".to_owned(), "5"),
    ] {
        client.ask("MAIL FROM:<a@x.org>", "250 ");
        client.ask(&format!("RCPT TO:<{address}>"), reply);
        client.ask("RSET", "250 ");
    }
    // In the sender and in an address extension these texts are accepted, but they reach only the
    // environment of the command.
    for evil in [touch.as_str(), "|sh", "/etc/passwd", "../x", "-oQ/tmp", "$(id)", "`id`", "a;b&c<d>e*f?g#h~i"] {
        client.ask(&format!("MAIL FROM:<\"{evil}\"@x.org>"), "250 ");
        client.ask(&format!("RCPT TO:<\"cmd+{evil}\"@razorback>"), "250 ");
        client.ask(&format!("RCPT TO:<\"jon+{evil}\"@razorback>"), "250 ");
        client.ask("DATA", "354 ");
        client.ask(&format!("{TEXT}."), "250 ");
    }
    assert!(daemon.settles(&site));
    assert_eq!(site.mail("jon").len(), 8);
    assert_eq!(daemon.log().matches("via=command").count(), 8);
    let left: Vec<_> = fs::read_dir(site.path("mail")).expect("there").flatten().map(|f| f.file_name()).collect();
    assert_eq!(left, ["jon"]);
}

#[test]
fn the_example_in_the_description_is_valid() {
    let examples = pages::literals(&pages::section("penfold-aliases.5", "DESCRIPTION"));
    assert_eq!(examples.len(), 1);
    let site = site(&examples[0]);
    site.add("users", "mary::");
    let output = site.penfoldd(&["-n"]).output().expect("it runs");
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && printed == "penfoldd: the configuration is right\n", "{printed}");
}

/// Files, Maildirs and commands get a text with the same octets, in the process of the server and in
/// that of an agent. A message that cannot be converted comes back.
#[test]
fn a_binary_message_becomes_a_text() {
    let site = site("all: {}/box, {}/dir/, {}/../away/, \"|cat > {}/out\"\n");
    fs::create_dir(site.path("away")).expect("a directory");
    own(&site.path("away"));
    let daemon = site.start();
    let mut client = daemon.greeted();
    let part = "Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary\r\n\r\n\0\n\rFrom me\n\r\n";
    let signed = "Content-Type: multipart/signed; boundary=x; micalg=sha-256; protocol=\"application/pgp-signature\"";
    for text in [
        format!("MIME-Version: 1.0\r\n{part}"),
        format!("MIME-Version: 1.0\r\n{signed}\r\n\r\n--x\r\n{part}\r\n--x\r\n{part}\r\n--x--\r\n"),
    ] {
        client.ask("MAIL FROM:<jon@razorback.test> BODY=BINARYMIME", "250 ");
        client.ask("RCPT TO:<all@razorback>", "250 ");
        client.send_text(&format!("BDAT {} LAST\r\n{text}", text.len()));
        client.expect("250 ");
    }
    daemon.wait_until("the failures", || daemon.log().matches("dsn=5.6.3").count() == 4);
    daemon.wait_until("the reports", || text_of(site.mail("jon")).matches("\nStatus: 5.6.3\n").count() == 4);
    assert!(daemon.settles(&site));
    let mut found = ["box", "out"].map(|name| wait_file(&daemon, &site.path("mail").join(name))).to_vec();
    found.extend([site.path("mail/dir"), site.path("away")].iter().flat_map(|path| messages(path)));
    assert_eq!(found.len(), 4);
    for message in found {
        let is_text =
            message.contains("\nContent-Transfer-Encoding: base64\n") && message.contains("\n\nAAoNRnJvbSBtZQoNCg==\n");
        assert!(is_text && !message.contains('\r') && !message.contains('\0'), "{message:?}");
    }
}

//! Mail that sendmail(8) keeps in the drop directory while no daemon runs.
//!
//! Crashes are in tests/storage/crash/dropped.rs, and random files in tests/fuzz/dropped.rs.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::programs::{code_and_text, command, feed, sendmail, stranger};
use common::{Daemon, Site, own};
use nix::unistd::geteuid;

/// A site whose configuration names a drop directory. The directory does not exist yet.
fn site() -> Site {
    let mut site = Site::new();
    let directory = site.path("drop");
    site.set("submission", "drop", &format!("{directory:?}"));
    site.configure();
    site
}

/// A site with a drop directory.
fn site_with_directory() -> Site {
    let site = site();
    fs::create_dir(site.path("drop")).expect("a directory");
    own(&site.path("drop"));
    set_mode(&site.path("drop"), 0o3733);
    site
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
}

/// The names in the drop directory, or in a directory below it.
fn names(site: &Site, below: &str) -> Vec<String> {
    let files = fs::read_dir(site.path("drop").join(below)).into_iter().flatten().flatten();
    let mut names: Vec<String> = files.map(|file| file.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| name != "taken" && name != "bad");
    names.sort();
    names
}

/// Has the daemon read the directory, as sendmail does.
fn wake(site: &Site) {
    let mut stream = UnixStream::connect(site.path("penfold.sock")).expect("a daemon");
    stream.write_all(b"dropped\n").expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert_eq!(answer, "ok\n");
}

/// Runs a shell script as an unprivileged user, with the drop directory as working directory.
fn as_stranger(site: &Site, script: &str) -> Option<(i32, String)> {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("cd {} && {script}", site.path("drop").display()));
    Some(code_and_text(&stranger(&shell)?.output().expect("a shell")))
}

/// The text of a message to jon, as sendmail writes it into a file.
fn kept(text: &str) -> String {
    format!("penfold-drop/1 {} sh\nMAIL FROM:<a@b.test>\nRCPT TO:<jon>\n\n{text}", text.len())
}

#[test]
fn a_message_is_kept_and_arrives_when_the_daemon_starts() {
    let site = site_with_directory();
    let options = ["-O", "requiretls=yes", "-f", "a@b.test", "jon"];
    let sent = sendmail(&site, &options, b"Subject: one\n\n.x\n..\nlast\n");
    assert_eq!(code_and_text(&sent), (0, String::new()));
    let files = names(&site, "");
    let found = fs::metadata(site.path("drop").join(&files[0])).expect("a file");
    let gid = fs::metadata(site.path("drop")).expect("a directory").gid();
    assert_eq!((files.len(), files[0].len(), found.mode() & 0o7777, found.gid()), (1, 32, 0o640, gid));
    let (code, text) = code_and_text(&feed(&mut command(&site, "mailq", &[]), b""));
    let waits = format!("-- 1 message waits in {}\n", site.path("drop").display());
    assert!(code == 0 && text.contains(&waits), "{text}");
    let daemon = site.start();
    let mail = String::from_utf8(daemon.wait_mail(&site, "jon", 1).remove(0)).expect("ASCII");
    daemon.wait_words(&[" accept from=<a@b.test>", " require_tls=yes "]);
    let received = format!("Received: by razorback.test (penfold, from uid {} ", geteuid());
    assert!(mail.contains(&received) && mail.contains(", program programs-"), "{mail}");
    assert!(
        mail.contains("\nSubject: one\n") && mail.ends_with("\n\n.x\n..\nlast\n") && mail.contains("\nMessage-ID: <"),
        "{mail}"
    );
    assert_eq!((names(&site, ""), names(&site, "taken"), names(&site, "bad")), (vec![], vec![], vec![]));
    // The daemon itself takes what is sent while it runs.
    assert_eq!(code_and_text(&sendmail(&site, &["jon"], b"two\n")), (0, String::new()));
    daemon.wait_mail(&site, "jon", 2);
    assert!(site.penfoldctl(&["status"]).contains(&format!("0 messages wait in {}", site.path("drop").display())));
}

#[test]
fn a_person_is_told_that_the_message_waits() {
    let site = site_with_directory();
    let (code, text) = code_and_text(&sendmail(&site, &["-v", "jon"], b"x\n"));
    let wanted = format!("it will take the message from {}\n", site.path("drop").display());
    assert!(code == 0 && text.ends_with(&wanted), "{text}");
}

/// The daemon starts after sendmail has found none, and has read the directory before the file is
/// there.
#[test]
fn a_message_that_is_kept_while_the_daemon_starts_is_taken() {
    let site = site_with_directory();
    let daemon = site.start();
    fs::write(site.path("drop/x"), kept("Subject: x\n\nx\n")).expect("a file");
    set_mode(&site.path("drop/x"), 0o640);
    if geteuid().is_root() {
        let gid = fs::metadata(site.path("drop")).expect("a directory").gid();
        chown(site.path("drop/x"), None, Some(gid)).expect("root can");
    }
    wake(&site);
    daemon.wait_mail(&site, "jon", 1);
}

#[test]
fn a_queue_run_without_a_daemon_takes_messages() {
    let site = site_with_directory();
    assert!(sendmail(&site, &["jon"], b"x\n").status.success());
    assert!(site.penfoldd(&["-q"]).status().expect("it starts").success());
    assert_eq!((site.mail("jon").len(), names(&site, "")), (1, vec![]));
}

#[test]
fn without_a_usable_directory_sendmail_fails_and_the_check_has_the_command() {
    let site = site();
    let check = || code_and_text(&site.penfoldd(&["-n"]).output().expect("it starts"));
    let fails = |why: &str| {
        let (code, text) = code_and_text(&sendmail(&site, &["jon"], b"x\n"));
        let wanted = format!("keep it in {}: {why}", site.path("drop").display());
        assert!(code == 75 && text.contains("the mail system is not running") && text.contains(&wanted), "{text}");
        let (code, text) = check();
        assert!(code == 0 && text.contains("submission.drop: ") && text.contains(why), "{text}");
        text
    };
    let text = fails("No such file or directory");
    fs::write(site.path("drop"), "").expect("a file");
    fails("it is not a directory");
    fs::remove_file(site.path("drop")).expect("removed");
    let made = text.split("make it so: ").nth(1).and_then(|text| text.lines().next()).expect("a command");
    assert!(Command::new("sh").args(["-c", made]).status().expect("a shell").success(), "{made}");
    assert!(!check().1.contains("submission.drop"), "{}", check().1);
    assert_eq!(sendmail(&site, &["jon"], b"x\n").status.code(), Some(0));
    fs::remove_file(site.path("drop").join(&names(&site, "")[0])).expect("removed");
    for mode in [0o2733, 0o1733, 0o3777, 0o3737, 0o0755] {
        set_mode(&site.path("drop"), mode);
        fails(&format!("its mode is {mode:04o} instead of 3733"));
    }
    assert_eq!(names(&site, ""), [""; 0]);
}

/// Otherwise the messages would be accepted, and the daemon would leave them where they are.
#[test]
fn sendmail_keeps_nothing_in_a_directory_that_does_not_belong_to_the_server() {
    let site = site_with_directory();
    drop(site.start());
    if !geteuid().is_root() {
        return;
    }
    for (uid, gid, why) in
        [(Some(0), None, "its owner is root instead of "), (None, Some(0), "its group is root instead of ")]
    {
        own(&site.path("drop"));
        chown(site.path("drop"), uid, gid).expect("root can");
        set_mode(&site.path("drop"), 0o3733);
        let (code, text) = code_and_text(&sendmail(&site, &["jon"], b"x\n"));
        assert!(code == 75 && text.contains(why), "{text}");
        let (_, text) = code_and_text(&site.penfoldd(&["-n"]).output().expect("it starts"));
        assert!(text.contains("submission.drop: ") && text.contains(why), "{text}");
    }
}

#[test]
fn a_directory_behind_a_symbolic_link_is_used() {
    let mut site = site_with_directory();
    symlink(site.path(""), site.path("link")).expect("a link");
    site.set("submission", "drop", &format!("{:?}", site.path("link/drop")));
    let (code, text) = code_and_text(&site.penfoldd(&["-n"]).output().expect("it starts"));
    assert!(code == 0 && !text.contains("submission.drop"), "{text}");
    assert_eq!(code_and_text(&sendmail(&site, &["jon"], b"x\n")), (0, String::new()));
    site.start().wait_mail(&site, "jon", 1);
}

/// As after a power cut on btrfs, while the daemon renames the file.
#[test]
fn a_taken_file_that_still_has_its_old_name_is_delivered_once() {
    let site = site_with_directory();
    let taken = site.path("drop/taken");
    let daemon = site.start();
    daemon.wait_until("it is made", || taken.exists());
    drop(daemon);
    // An administrator has let everybody in.
    set_mode(&taken, 0o2777);
    assert_eq!(code_and_text(&sendmail(&site, &["jon"], b"x\n")), (0, String::new()));
    let old = site.path("drop").join(&names(&site, "")[0]);
    fs::hard_link(&old, taken.join("1K1FHNRVXZG4DZQB6KA")).expect("a link");
    let daemon = site.start();
    daemon.wait_mail(&site, "jon", 1);
    daemon.wait_until("the files are gone", || names(&site, "").is_empty() && names(&site, "taken").is_empty());
    assert_eq!((site.mail("jon").len(), names(&site, "bad")), (1, vec![]));
    assert_eq!(fs::metadata(taken).expect("a directory").mode() & 0o777, 0o700);
}

#[test]
fn very_many_files_of_one_user_do_not_hide_those_of_others() {
    let site = site_with_directory();
    let Some((0, _)) = as_stranger(&site, "seq -f tmp.%g 40000 | xargs touch") else { return };
    for _ in 0..15 {
        assert!(sendmail(&site, &["jon"], b"x\n").status.success());
    }
    site.start().wait_mail(&site, "jon", 15);
}

/// Each has a line in the log.
#[test]
fn a_user_with_many_files_that_are_no_messages_does_not_fill_the_log() {
    let site = site_with_directory();
    let Some((0, _)) = as_stranger(&site, "seq -f f%g 1200 | xargs touch") else { return };
    assert!(sendmail(&site, &["jon"], b"x\n").status.success());
    let daemon = site.start();
    daemon.wait_words(&["uid 54321 has 1000 files there that are no messages: others wait"]);
    daemon.wait_mail(&site, "jon", 1);
    assert_eq!((names(&site, "bad").len(), names(&site, "").len()), (1000, 200));
}

/// Gives a file an access control list: the owner reads and writes it, the user 54321 reads it, and its
/// group has no rights, although the mask, which is shown as the rights of the group, has some.
const NO_GROUP: &str = "
import os, struct, sys
entries = [(1, 6, -1), (2, 4, 54321), (4, 0, -1), (16, 4, -1), (32, 0, -1)]
value = struct.pack('<I', 2) + b''.join(struct.pack('<HHi', *entry) for entry in entries)
os.setxattr(sys.argv[1], 'system.posix_acl_access', value)";

/// A user can forbid the server to read a file.
#[test]
fn a_file_that_cannot_be_read_waits_and_is_then_set_aside() {
    let site = site_with_directory();
    assert!(sendmail(&site, &["jon"], b"x\n").status.success());
    let Some((0, _)) = as_stranger(&site, "for n in 1 2 3; do echo x > $n; chmod 640 $n; done") else { return };
    for name in ["1", "2", "3"] {
        let set = Command::new("python3").args(["-c", NO_GROUP]).arg(site.path("drop").join(name)).output();
        let set = set.expect("python3 starts");
        assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
        assert_eq!(fs::metadata(site.path("drop").join(name)).expect("a file").mode() & 0o7777, 0o640);
    }
    let daemon = site.start();
    daemon.wait_words(&["of uid 54321, waits: it cannot be read: Permission denied"]);
    daemon.wait_mail(&site, "jon", 1);
    drop(daemon);
    // They have waited for weeks.
    for id in names(&site, "taken") {
        let old = format!("taken/1J{}", &id[2..]);
        fs::rename(site.path("drop/taken").join(&id), site.path("drop").join(old)).expect("a rename");
    }
    let daemon = site.start();
    daemon.wait_words(&["it has waited for too long: it cannot be read", "uid 54321"]);
    daemon.wait_until("they are set aside", || names(&site, "bad").len() == 3 && names(&site, "taken").is_empty());
}

#[test]
fn a_recipient_who_does_not_exist_is_reported_and_the_others_get_the_message() {
    let site = site_with_directory();
    site.write("users", "jon::\nret::\n");
    let sent = sendmail(&site, &["-f", "ret@razorback", "jon", "nobody-here"], b"Subject: x\n\nx\n");
    assert!(sent.status.success());
    let daemon = site.start();
    daemon.wait_mail(&site, "jon", 1);
    let report = String::from_utf8(daemon.wait_mail(&site, "ret", 1).remove(0)).expect("ASCII");
    assert!(report.contains("nobody-here@razorback") && report.contains("Status: 5.1.1"), "{report}");
}

#[test]
fn a_message_that_is_refused_is_set_aside_with_the_reason() {
    let mut site = site_with_directory();
    assert!(sendmail(&site, &["jon"], "y".repeat(70_000).as_bytes()).status.success());
    site.set("limits", "message_size", "65536");
    let daemon = site.start();
    let line = daemon.wait_words(&["drop directory: ", "longer than 65536 octets", " is now "]);
    let file = PathBuf::from(line.split(" is now ").nth(1).expect("a path").trim());
    assert!(fs::read_to_string(&file).expect("a file").contains(&"y".repeat(70_000)), "{line}");
    assert!(file.starts_with(site.path("drop/bad")) && site.mail("jon").is_empty());
    // A message of this length is not kept at all.
    drop(daemon);
    let (code, text) = code_and_text(&sendmail(&site, &["jon"], "y".repeat(70_000).as_bytes()));
    assert!(code == 75 && text.contains("it is longer than 65536 octets"), "{text}");
}

#[test]
fn a_message_is_kept_if_the_service_manager_accepts_for_a_daemon_that_cannot_start() {
    let site = site_with_directory();
    let _manager = UnixListener::bind(site.path("penfold.sock")).expect("a socket");
    assert!(sendmail(&site, &["jon"], b"Subject: x\n\nx\n").status.success());
    assert_eq!(names(&site, "").len(), 1);
}

#[test]
fn a_message_that_must_wait_does_not_delay_the_others_of_its_user() {
    let site = site_with_directory();
    let start = || {
        assert!(sendmail(&site, &["jon"], b"Subject: x\n\nx\n").status.success());
        Daemon::spawn(site.with_fault("link /spool/new/ 1 EIO"))
    };
    let daemon = start();
    daemon.wait_words(&["drop directory: ", " waits: 4"]);
    daemon.kill9();
    // Now the first message is offered first, and must wait again.
    let daemon = start();
    assert_eq!(daemon.wait_mail(&site, "jon", 1).len(), 1);
    assert_eq!(names(&site, "taken").len(), 1);
}

#[test]
fn the_limit_of_a_user_holds_for_kept_messages_and_delays_nobody_else() {
    let mut site = site_with_directory();
    site.set("submission", "local_messages_per_hour", "2");
    site.set("submission", "local_exempt", "[]");
    site.configure();
    for number in 0..5 {
        let Some(mut other) = stranger(&command(&site, "sendmail", &["-f", "a@b.test", "jon"])) else { return };
        assert_eq!(
            code_and_text(&feed(&mut other, format!("Subject: {number}\n\nx\n").as_bytes())),
            (0, String::new())
        );
    }
    assert!(sendmail(&site, &["root"], b"x\n").status.success());
    let daemon = site.start();
    daemon.wait_mail(&site, "root", 1);
    daemon.wait_words(&["drop directory: ", "of uid 54321, waits: 450"]);
    assert_eq!(daemon.wait_mail(&site, "jon", 2).len(), 2);
    let waits = format!("3 messages wait in {}", site.path("drop").display());
    let mailq = |command: &mut Command| code_and_text(&feed(command, b"")).1;
    let of_stranger = mailq(&mut stranger(&command(&site, "mailq", &[])).expect("root"));
    assert!(of_stranger.ends_with(&format!("-- {waits}\n")), "{of_stranger}");
    assert!(site.penfoldctl(&["status"]).contains(&waits));
    assert!(site.penfoldctl(&["status", "--json"]).contains("\"messages\":3"));
    assert!(mailq(&mut command(&site, "mailq", &[])).contains(&waits));
}

/// Each line makes something in the directory that is no message of its user. The words after `|` are
/// in the log, or `-` if the thing stays.
const HOSTILE: &str = "
ln -s {secret} link | not a regular file
mkfifo fifo | not a regular file
mkdir directory && cp {good} directory/x && chmod 640 directory/x | -
cp {good} wide && chmod 644 wide | its mode is 0644
cp {good} narrow && chmod 600 narrow | its mode is 0600
cp {good} suid && chmod 4640 suid | its mode is 4640
cp {good} two && chmod 640 two && ln two {elsewhere}/two | it is a hard link
cp {good} {elsewhere}/moved && chmod 640 {elsewhere}/moved && mv {elsewhere}/moved moved | it was not made in the drop directory
echo hello > text && chmod 640 text | no valid first line
: > empty && chmod 640 empty | a line without an end
truncate -s 1T sparse && chmod 640 sparse | a line without an end
sed 's,/1 [0-9]*,/1 1000000000000,' {good} > huge && truncate -s 1000000000060 huge && chmod 640 huge | its message is longer than
head -c 60 {good} > short && chmod 640 short | cut short
cat {good} {good} > double && chmod 640 double | too long
sed 's/RCPT/VRFY/' {good} > verb && chmod 640 verb | an invalid command
sed 's/MAIL FROM:<a@b.test>/MAIL FROM:<a@b.test> X=1/' {good} > odd && chmod 640 odd | 555
";

#[test]
fn what_a_hostile_user_makes_there_is_set_aside_and_touches_nothing_else() {
    let site = site_with_directory();
    let (secret, good, elsewhere) = (site.path("secret"), site.path("good"), site.path("elsewhere"));
    fs::write(&good, kept("Subject: good\n\nx\n")).expect("a file");
    fs::write(&secret, kept("Subject: secret\n\nsecret\n")).expect("a file");
    own(&secret);
    set_mode(&secret, 0o640);
    fs::create_dir(&elsewhere).expect("a directory");
    set_mode(&elsewhere, 0o777);
    // A user has made something with the name of the server's directory.
    let Some((0, _)) = as_stranger(&site, "mkdir taken && chmod 700 taken && cp ../good taken/x") else { return };
    let mut stays = 0;
    let lines = HOSTILE.trim().lines().map(|line| line.split_once(" | ").expect("two parts"));
    for (script, _) in lines.clone() {
        let script = script.replace("{secret}", &secret.display().to_string());
        let script = script.replace("{good}", &good.display().to_string());
        let done = as_stranger(&site, &script.replace("{elsewhere}", &elsewhere.display().to_string()));
        assert_eq!(done, Some((0, String::new())), "{script}");
    }
    // Where the system lets users link any file, one has linked a secret that the server can read, and
    // the file was replaced meanwhile.
    fs::hard_link(&secret, site.path("drop/secret")).expect("a link");
    fs::copy(&good, site.path("drop/file")).expect("a copy");
    fs::write(site.path("drop/stolen"), "password\n").expect("a file");
    own(&site.path("drop/stolen"));
    set_mode(&site.path("drop/stolen"), 0o640);
    let mut other = stranger(&command(&site, "sendmail", &["-f", "a@b.test", "jon"])).expect("root");
    assert_eq!(code_and_text(&feed(&mut other, b"Subject: honest\n\nx\n")), (0, String::new()));
    // Users can neither list the directory nor touch the files of others.
    let (code, text) = as_stranger(&site, "ls . ; rm -f file; mv stolen mine; cat stolen").expect("root");
    assert!(code != 0 && text.matches("ermi").count() == 4, "{text}");
    let daemon = site.start();
    let mail = String::from_utf8(daemon.wait_mail(&site, "jon", 1).remove(0)).expect("ASCII");
    assert!(mail.contains("Subject: honest\n") && mail.contains("from uid 54321, program "), "{mail}");
    for (_, wanted) in lines {
        stays += usize::from(wanted == "-");
        if wanted != "-" {
            daemon.wait_words(&["drop directory: ", wanted]);
        }
    }
    daemon
        .wait_until("all files are taken", || names(&site, "").len() == stays + 1 && names(&site, "taken").is_empty());
    let left = names(&site, "");
    assert!(left[0] == "directory" && left[1].starts_with("taken.1K"), "{left:?}");
    assert_eq!(names(&site, "bad").len(), HOSTILE.trim().lines().count() - stays + 3);
    assert!(fs::read_to_string(&secret).expect("it is still there").contains("secret"));
    assert_eq!(site.mail("jon").len(), 1);
    let (code, _) = as_stranger(&site, "cat bad/* taken/*").expect("root");
    assert_ne!(code, 0);
    // A user cannot replace the server's own directories.
    assert_ne!(as_stranger(&site, "mv taken t || rm -r bad").map(|(code, _)| code), Some(0));
}

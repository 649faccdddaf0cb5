//! Spools of other versions: entries of an earlier version are delivered, and a spool of a later
//! version is not changed.
//!
//! `earlier/` is a spool of the last version whose heads lacked the size of the content, after that
//! version was killed: `new/`, `cur/` and `note/`, and in `mail/` a copy that was prepared for a
//! mailbox. It has no entry that was handed over to a user, since a source tree cannot keep owners
//! and modes; `crash` makes such entries.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use common::remote::Remote;
use common::{Site, own};

fn earlier(directory: &str) -> Vec<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/storage/earlier").join(directory);
    fs::read_dir(path).expect("a directory").map(|file| file.expect("a file").path()).collect()
}

/// Makes a directory below the site that only its owner can enter.
fn directory(site: &Site, name: &str) -> PathBuf {
    let path = site.path(name);
    fs::create_dir_all(&path).expect("a directory");
    fs::set_permissions(&path, Permissions::from_mode(0o700)).expect("a mode");
    own(&path);
    path
}

fn copy(from: &Path, into: &Path) -> PathBuf {
    let path = into.join(from.file_name().expect("a name"));
    fs::copy(from, &path).expect("a copy");
    fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("a mode");
    own(&path);
    path
}

/// Changes an entry whose copy is prepared, so that its record names `tmp`, the directory of this
/// site's mailbox.
fn set_identity(entry: &Path, tmp: &Path) {
    let metadata = fs::metadata(tmp).expect("a directory");
    let born =
        metadata.created().map_or(0, |born| born.duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64);
    let mut text = fs::read(entry).expect("an entry");
    let record = text.windows(3).position(|three| three == b"\nP ").expect("a prepared recipient") + 1;
    let numbers = format!("{born:016x} {:016x}", metadata.ino());
    text[record + 24..record + 24 + numbers.len()].copy_from_slice(numbers.as_bytes());
    fs::write(entry, text).expect("an entry");
}

#[test]
fn the_queue_of_an_earlier_version_is_delivered() {
    let remote = Remote::sink();
    let site = Site::new();
    ["ada", "bob"].iter().for_each(|user| site.add("users", &format!("{user}::")));
    site.add("routes", &format!("far.test {}", remote.host_port()));
    for name in ["new", "cur", "note"] {
        let into = directory(&site, &format!("spool/{name}"));
        earlier(name).iter().for_each(|file| drop(copy(file, &into)));
    }
    let mailbox = ["", "/new", "/cur", "/tmp"].map(|name| directory(&site, &format!("mail/bob{name}")));
    let tmp = &mailbox[3];
    earlier("mail").iter().for_each(|file| drop(copy(file, tmp)));
    let is_prepared = |path: &PathBuf| fs::read(path).expect("an entry").windows(3).any(|three| three == b"\nP ");
    set_identity(&site.spooled().into_iter().find(is_prepared).expect("a prepared entry"), tmp);
    assert_eq!(site.spooled().len(), 6);

    let daemon = site.start();
    assert!(daemon.flush_until(&site, || site.spooled().is_empty()), "{}", daemon.log());
    // Every message is there once: a message that a local user already has is not delivered again.
    let subjects = |user: &str| {
        let subject = |mail: Vec<u8>| {
            let text = String::from_utf8_lossy(&mail).into_owned();
            text.lines().find_map(|line| line.strip_prefix("Subject: ")).unwrap_or_default().to_owned()
        };
        site.mail(user).into_iter().map(subject).collect::<Vec<_>>()
    };
    assert_eq!([subjects("jon"), subjects("ada"), subjects("bob")], [vec!["direct"], vec![], vec!["prepared"]]);
    let mut sent: Vec<(String, String)> =
        remote.messages(4).into_iter().map(|message| (message.sender, message.recipients.concat())).collect();
    sent.sort();
    let expected = [
        ("<>", "<ret@far.test>"),
        ("<SRS0=", "<c@far.test>"),
        ("<SRS0=", "<member@far.test>"),
        ("<jon@razorback.test>", "<later@far.test>"),
    ];
    let begins = |(sent, expected): (&(String, String), &(&str, &str))| {
        sent.0.starts_with(expected.0) && sent.1.starts_with(expected.1)
    };
    assert!(sent.len() == expected.len() && sent.iter().zip(&expected).all(begins), "{sent:?}");
    assert!(!site.path("spool/bad").read_dir().expect("a directory").any(|_| true), "{}", daemon.log());
}

#[test]
fn an_entry_of_a_later_version_is_left_alone() {
    let remote = Remote::sink();
    let site = Site::new();
    site.add("routes", &format!("far.test {}", remote.host_port()));
    let into = directory(&site, "spool/cur");
    let mut left = Vec::new();
    for (file, (from, to)) in earlier("cur").iter().zip([
        // Each pair adds a word that this version does not know, about the message or about a
        // recipient.
        ("client from=", "client seal=hdrs from="),
        ("> orig=", "> mark=never orig="),
        ("report from=", "report urgent=3 from="),
        ("> orig=", "> first=<x@y.test> orig="),
    ]) {
        let path = copy(file, &into);
        let text = String::from_utf8_lossy(&fs::read(&path).expect("an entry")).into_owned();
        let (from, to) = if text.contains(from) { (from, to) } else { (" body=", " seal=a body=") };
        let spare = " ".repeat(to.len() - from.len());
        let text = text.replacen(from, to, 1);
        let text = if spare.is_empty() { text } else { text.replacen(&format!("{spare}\n"), "\n", 1) };
        fs::write(&path, &text).expect("an entry");
        left.push((path, text));
    }
    let daemon = site.start();
    for (path, _) in &left {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        daemon.wait_words(&["spool entry ", &name, "it has a field that this version does not know; it is left alone"]);
    }
    daemon.submit(&["other@far.test"]);
    assert_eq!(remote.messages(1).len(), 1);
    site.penfoldctl(&["flush"]);
    site.penfoldctl(&["flush"]);
    assert!(site.penfoldctl(&["queue"]).contains("it has a field that this version does not know"));
    let log = daemon.log();
    assert_eq!(log.matches("it is left alone").count(), left.len(), "{log}");
    assert!(daemon.terminate().success());
    for (path, text) in left {
        assert_eq!(fs::read(&path).expect("it is still there"), text.as_bytes(), "{}", path.display());
    }
}

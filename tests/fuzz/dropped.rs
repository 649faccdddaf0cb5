//! Random files in the drop directory, with the real daemon.
//!
//! A hostile user makes files, and renames, replaces and changes them while the daemon takes them.
//! Another user's messages are in between. Each of these arrives once, under the uid of its sender,
//! and no file is left but those that the daemon has set aside.

use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::chance::Chance;
use common::stop::Stop;
use common::{Site, own};
use nix::libc::{O_NOFOLLOW, O_NONBLOCK};
use nix::unistd::geteuid;

use super::{seconds, seed};

/// The uid of the hostile user, and that of the other one.
const USERS: [u32; 2] = [54_321, 54_400];
/// The number of random files in a round.
const FILES: usize = 30;

/// Makes a file complete and then gives it its name, as sendmail does.
fn put(directory: &Path, name: &str, uid: u32, mode: u32, text: &[u8]) {
    let (part, gid) = (directory.with_file_name(format!("part-{name}")), fs::metadata(directory).expect("it").gid());
    fs::write(&part, text).expect("a file");
    if geteuid().is_root() {
        chown(&part, Some(uid), Some(gid)).expect("root can");
    }
    fs::set_permissions(&part, Permissions::from_mode(mode)).expect("a mode");
    fs::rename(&part, directory.join(name)).expect("a rename");
}

fn message(token: &str) -> Vec<u8> {
    let text = format!("Subject: {token}\n\n.\nend of {token}\n");
    let size = text.len();
    format!("penfold-drop/1 {size} fuzz\nMAIL FROM:<> BODY=8BITMIME\nRCPT TO:<jon>\nRCPT TO:<jon@razorback>\n\n{text}")
        .into_bytes()
}

/// A message that was changed at random, or random octets.
fn odd(chance: &mut Chance) -> Vec<u8> {
    if chance.percent(10) {
        return chance.octets(0..3000);
    }
    let mut text = message("odd");
    for _ in 0..chance.of(1..4) {
        let at = chance.of(0..text.len().max(1)).min(text.len());
        match chance.of(0..5) {
            0 if at < text.len() => text[at] = chance.of(0..256) as u8,
            1 => text.truncate(at),
            2 => drop(text.splice(at..at, chance.octets(1..20))),
            3 => {
                let line = chance.pick(&[&b"\n"[..], b"\r\n", b"\0", b"RCPT TO:<jon>\n", b"DATA\n"]).to_vec();
                drop(text.splice(at..at, line));
            }
            _ => text.extend_from_within(at..),
        }
    }
    text
}

/// Renames, replaces, links and changes the files of the hostile user. No link is followed, because
/// the tests may run as root.
fn disturb(directory: &Path, secret: &Path, chance: &mut Chance) {
    let name = |chance: &mut Chance| directory.join(format!("odd{}", chance.of(0..FILES)));
    let (one, other) = (name(chance), name(chance));
    let open = || File::options().write(true).custom_flags(O_NOFOLLOW | O_NONBLOCK).open(&one);
    // The daemon may have taken a file, so each of these may fail.
    let _ = match chance.of(0..5) {
        0 => fs::rename(&one, &other),
        1 => fs::remove_file(&one).and_then(|()| symlink(secret, &one)),
        2 => fs::hard_link(&one, &other),
        3 => open().and_then(|mut file| file.write_all(b"more\n")),
        _ => open().and_then(|file| file.set_len(chance.of(0..200) as u64)),
    };
}

fn wake(site: &Site) {
    let mut stream = UnixStream::connect(site.path("penfold.sock")).expect("a daemon");
    stream.write_all(b"dropped\n").expect("written");
    // A busy daemon answers with an error.
    let _ = stream.read_to_string(&mut String::new());
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let found = fs::read_dir(directory).into_iter().flatten().flatten().map(|file| file.path());
    found.filter(|path| !path.is_dir()).collect()
}

#[test]
fn random_files_harm_no_other_message() {
    let mut site = Site::new();
    let directory = site.path("drop");
    fs::create_dir(&directory).expect("a directory");
    own(&directory);
    fs::set_permissions(&directory, Permissions::from_mode(0o3733)).expect("a mode");
    site.set("submission", "drop", &format!("{directory:?}"));
    // The links of the hostile user lead to a file that the daemon can read.
    let secret = site.path("secret");
    site.write("secret", &String::from_utf8(message("secret")).expect("ASCII"));
    fs::set_permissions(&secret, Permissions::from_mode(0o640)).expect("a mode");
    let daemon = site.start();
    let (seed, end) = (seed(), Instant::now() + Duration::from_secs(seconds()));
    let (mut chance, stop) = (Chance::new(seed, "files"), AtomicBool::new(false));
    let mut rounds = 0;
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| {
            let mut chance = Chance::new(seed, "disturb");
            while !stop.load(Ordering::Relaxed) {
                disturb(&directory, &secret, &mut chance);
                chance.pause(0..2);
            }
        });
        while rounds == 0 || Instant::now() < end {
            for number in 0..FILES {
                let mode = if chance.percent(90) { 0o640 } else { *chance.pick(&[0o600, 0o644, 0o4640, 0]) };
                put(&directory, &format!("odd{number}"), USERS[0], mode, &odd(&mut chance));
            }
            put(&directory, &format!("good{rounds}"), USERS[1], 0o640, &message(&format!("good{rounds}")));
            wake(&site);
            rounds += 1;
            let taken = || !directory.join(format!("good{}", rounds - 1)).exists();
            daemon.wait_until("the message is taken", taken);
        }
    });
    wake(&site);
    daemon.wait_until("all files are taken", || {
        files(&directory).is_empty() && files(&directory.join("taken")).is_empty()
    });
    let is_there = |mail: &[u8], round: usize| {
        let text = String::from_utf8_lossy(mail);
        text.contains(&format!("\nSubject: good{round}\n")) && text.ends_with(&format!("\nend of good{round}\n"))
    };
    daemon.wait_until("all messages", || {
        let mail = site.mail("jon");
        (0..rounds).all(|round| mail.iter().any(|mail| is_there(mail, round)))
    });
    let mail = site.mail("jon");
    for round in 0..rounds {
        let found: Vec<_> = mail.iter().filter(|mail| is_there(mail, round)).collect();
        assert_eq!(found.len(), 1, "good{round}");
        let uid = if geteuid().is_root() { USERS[1] } else { geteuid().as_raw() };
        assert!(String::from_utf8_lossy(found[0]).contains(&format!("from uid {uid}")), "good{round}");
    }
    assert!(!files(&directory.join("bad")).is_empty() || rounds < 3);
    assert!(!mail.iter().any(|mail| String::from_utf8_lossy(mail).contains("Subject: secret")), "a link was followed");
    assert_eq!(fs::read(&secret).expect("a file"), message("secret"));
    assert!(!daemon.log().contains("a bug"), "{}", daemon.log());
}

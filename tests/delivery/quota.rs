//! The disk quota of a user of the system: mail beyond it is deferred, and delivered later.
//!
//! The home directory is a subvolume of a small btrfs with a limit of its own, since every kernel
//! with btrfs has that kind of quota. The home is therefore not on the file system of the spool,
//! and mail is copied to it. A fault rule makes a handover fail in the way in which it fails on
//! file systems with quotas by user: the monitor has no right to exceed them
//! (tests/privsep/agents.rs). The test needs root, loop devices and btrfs-progs; otherwise it is
//! reported as skipped.

use std::fs;
use std::path::Path;
use std::process::Command;

use common::Daemon;
use common::books::{Answer, Books, Letter, offer};
use common::homes::{FIRST, Homes, check_own};

/// Gives jon a home directory with a limit of `room`. Where that is not possible, reports the test
/// as skipped and returns false.
fn limited(homes: &Homes, room: &str) -> bool {
    let is_able = Command::new("mkfs.btrfs").arg("--version").output().is_ok_and(|output| output.status.success());
    if !is_able || !Path::new("/dev/loop-control").exists() {
        common::skipped("btrfs is not available");
        return false;
    }
    fs::create_dir(homes.site.path("disk")).expect("a directory");
    homes.mounts.shell(&format!(
        "exec > /dev/null 2>&1; set -e; cd {}; truncate -s 200M disk.img; mkfs.btrfs -q disk.img; mount -o loop disk.img disk
         btrfs quota enable disk; btrfs subvolume create disk/jon; chown {FIRST}:{FIRST} disk/jon
         mount --bind disk/jon home/jon",
        homes.site.path("").display()
    ));
    limit(homes, room);
    true
}

fn limit(homes: &Homes, room: &str) {
    let home = homes.home("jon");
    homes.mounts.shell(&format!("btrfs qgroup limit {room} {}", home.display()));
}

fn send(daemon: &Daemon, to: &str, token: &str) {
    assert_eq!(offer(daemon.address(), &[to], Letter::new(token)), Answer::Taken);
}

/// The messages in a directory of jon's Maildir, such as `new`.
fn files(homes: &Homes, directory: &str) -> Vec<Vec<u8>> {
    let path = homes.mounts.path(&homes.home("jon").join("Maildir").join(directory));
    let files = fs::read_dir(path).into_iter().flatten().flatten();
    files.filter_map(|file| fs::read(file.path()).ok()).collect()
}

#[test]
fn mail_beyond_a_quota_is_deferred_and_delivered_later() {
    // The first limit is too small for the letter, the second one even for a new file.
    for room in ["100K", "32K"] {
        let Some(homes) = Homes::new("queue.retry_min = \"1h\"") else { return };
        if !limited(&homes, room) {
            return;
        }
        let daemon = homes.start();
        send(&daemon, "jon", "long-letter");
        let line = daemon.wait_words(&["deferred to=<jon@razorback>", "dsn=4.2.2", "Disk quota exceeded"]);
        assert!(line.contains("via=maildir") && line.contains(" next="), "{line}");
        for directory in ["new", "cur", "tmp"] {
            assert!(files(&homes, directory).is_empty(), "{room}: in {directory}");
        }
        // Mail for others is not affected.
        send(&daemon, "mary", "for-mary");
        daemon.wait_words(&["sent to=<mary@razorback>"]);
        limit(&homes, "none");
        assert!(daemon.flush_until(&homes.site, || homes.site.spooled().is_empty()), "{}", daemon.log());
        let books = Books::of(files(&homes, "new"));
        assert_eq!((books.letters("long-letter"), books.total()), (1, 1), "{room}");
        check_own(&homes.mounts.path(&homes.home("jon").join("Maildir")), FIRST);
    }
}

//! The disk quota of a user of the system: who has no room is told so, and gets it later.
//!
//! A home is a subvolume of a small btrfs with a limit of its own, since that is the quota
//! that every kernel with btrfs has. So it is on another disk than the spool, and mail is
//! copied. What is given away is refused by a rule, as the file systems whose quotas are
//! by user do it: the monitor has no right to go beyond them (tests/privsep/agents.rs). Needs root,
//! loop devices and btrfs-progs, and says `skipped` without.

use std::fs;
use std::path::Path;
use std::process::Command;

use common::Daemon;
use common::books::{Answer, Books, Letter, offer};
use common::homes::{FIRST, Homes, check_own};

/// A home of jon's with room for so much.
fn limited(homes: &Homes, room: &str) -> bool {
    let is_able = Command::new("mkfs.btrfs").arg("--version").output().is_ok_and(|output| output.status.success());
    if !is_able || !Path::new("/dev/loop-control").exists() {
        common::skipped("no btrfs to be had");
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

/// What is in one of the directories of jon's Maildir.
fn files(homes: &Homes, directory: &str) -> Vec<Vec<u8>> {
    let path = homes.mounts.path(&homes.home("jon").join("Maildir").join(directory));
    let files = fs::read_dir(path).into_iter().flatten().flatten();
    files.filter_map(|file| fs::read(file.path()).ok()).collect()
}

#[test]
fn who_has_no_room_is_told_so_and_gets_it_later() {
    // Less than the letter has, and than making a file may need.
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
        // Another one's mail is none of its business.
        send(&daemon, "mary", "for-mary");
        daemon.wait_words(&["sent to=<mary@razorback>"]);
        limit(&homes, "none");
        assert!(daemon.flush_until(&homes.site, || homes.site.spooled().is_empty()), "{}", daemon.log());
        let books = Books::of(files(&homes, "new"));
        assert_eq!((books.letters("long-letter"), books.total()), (1, 1), "{room}");
        check_own(&homes.mounts.path(&homes.home("jon").join("Maildir")), FIRST);
    }
}

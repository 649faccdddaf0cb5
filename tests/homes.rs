//! Mail for users of the system, by a server that root has started: agents that run as them.
//!
//! The users are of a passwd file of our own, which a mount namespace has in the place
//! of the system's, with homes in the scratch directory. Only root can try this.

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use common::Daemon;
use common::homes::{FIRST, Homes};

/// Takes a message for somebody.
fn send(daemon: &Daemon, to: &str) {
    common::books::offer(daemon.address(), &[to], common::books::Letter::new("one"));
}

fn files(maildir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(maildir.join("new")).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

#[test]
fn mail_comes_home_as_its_owners() {
    let Some(homes) = Homes::new("") else { return };
    let daemon = homes.start();
    for (uid, name) in (FIRST..).zip(["jon", "mary"]) {
        for count in 1..3 {
            send(&daemon, name);
            let maildir = homes.home(name).join("Maildir");
            daemon.wait_until("mail", || files(&maildir).len() == count);
            for path in [maildir.clone(), maildir.join("new")].into_iter().chain(files(&maildir)) {
                let metadata = fs::metadata(&path).expect("there");
                assert_eq!((metadata.uid(), metadata.gid()), (uid, uid), "{}", path.display());
                assert_eq!(metadata.permissions().mode() & 0o077, 0, "{}", path.display());
            }
        }
    }
    daemon.wait_until("the end", || homes.site.spooled().is_empty());
}

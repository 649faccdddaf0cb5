//! The people of these tests as users of the system, with homes.
//!
//! They stand in a passwd of a mount namespace, for one site each. Fay's mail goes on to jon.
//! Only root can have that: callers see to it.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use crate::common::Site;
use crate::common::homes::{FIRST, passwd};
use crate::common::mounts::Mounts;

/// Those who are there.
const USERS: [&str; 7] = ["jon", "ada", "bob", "cyd", "eve", "ret", "fay"];

/// A user's home.
pub fn home(site: &Site, user: &str) -> PathBuf {
    site.path("home").join(user)
}

/// Makes something a user's.
pub fn give(user: &str, path: &Path) {
    let uid = (FIRST..).zip(USERS).find(|(_, name)| *name == user).map(|(uid, _)| uid);
    chown(path, uid, uid).expect("chown");
}

/// Makes the homes, and the namespace in which everybody is at home there.
pub fn settle(site: &mut Site) -> Mounts {
    site.set("auth", "users", "\"none\"");
    site.set("local", "users", "\"system\"");
    site.set("local", "mailbox", "\"~/Maildir\"");
    for user in USERS {
        fs::create_dir_all(home(site, user)).expect("a home");
        give(user, &home(site, user));
    }
    let forward = home(site, "fay").join(".forward");
    fs::write(&forward, "jon\n").expect("a file");
    give("fay", &forward);
    let users = (FIRST..).zip(USERS).map(|(uid, user)| (user, uid, uid, home(site, user)));
    Mounts::new(&passwd(site, users)).expect("a mount namespace, as before")
}

/// The same, but with mailboxes where those of the server would be.
pub fn settle_beside(site: &mut Site) -> Mounts {
    let mounts = settle(site);
    site.set("local", "mailbox", &format!("\"{}/{{user}}\"", site.path("mail").display()));
    for user in USERS {
        fs::create_dir_all(site.mailbox(user)).expect("a mailbox");
    }
    hand_over(site);
    mounts
}

/// Gives everything in these mailboxes to the users.
pub fn hand_over(site: &Site) {
    for user in USERS {
        give_all(user, &site.mailbox(user));
    }
}

fn give_all(user: &str, path: &Path) {
    give(user, path);
    let below = fs::read_dir(path).into_iter().flatten().flatten();
    below.for_each(|file| give_all(user, &file.path()));
}

/// That all mail in the homes is as if its owner had written it.
pub fn check(site: &Site) {
    for (uid, user) in (FIRST..).zip(USERS) {
        let maildirs = [home(site, user).join("Maildir"), site.mailbox(user)];
        let directories = maildirs.iter().flat_map(|maildir| ["new", "cur"].map(|sub| maildir.join(sub)));
        for file in directories.flat_map(|directory| fs::read_dir(directory).into_iter().flatten().flatten()) {
            let metadata = file.metadata().expect("there");
            assert_eq!((metadata.uid(), metadata.mode() & 0o7777), (uid, 0o600), "{}", file.path().display());
        }
    }
}

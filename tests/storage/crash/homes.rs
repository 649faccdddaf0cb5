//! The people of these tests as users of the system, with homes.
//!
//! They stand in a passwd of a mount namespace, for one site each. Fay's mail goes on to jon.
//! Only root can have that: callers see to it.

use std::fs;
use std::path::{Path, PathBuf};

use common::Site;
use common::homes::{self, FIRST};
use common::mounts::Mounts;

/// Those who are there.
const USERS: [&str; 7] = ["jon", "ada", "bob", "cyd", "eve", "ret", "fay"];

/// A user's home.
pub fn home(site: &Site, user: &str) -> PathBuf {
    site.path("home").join(user)
}

/// Makes something a user's.
pub fn give(user: &str, path: &Path) {
    homes::give(&USERS, user, path);
}

/// Makes the homes, and the namespace in which everybody is at home there.
pub fn settle(site: &mut Site) -> Mounts {
    let mounts = homes::settle(site, &USERS).expect("a mount namespace, as before");
    fs::write(home(site, "fay").join(".forward"), "jon\n").expect("a file");
    give("fay", &home(site, "fay"));
    mounts
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
    USERS.iter().for_each(|user| give(user, &site.mailbox(user)));
}

/// That all mail in the mailboxes is as if its owner had written it.
pub fn check(site: &Site) {
    for (uid, user) in (FIRST..).zip(USERS) {
        [home(site, user).join("Maildir"), site.mailbox(user)]
            .iter()
            .for_each(|maildir| homes::check_own(maildir, uid));
    }
}

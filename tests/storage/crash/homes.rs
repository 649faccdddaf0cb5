//! Makes the recipients of the crash tests system users with home directories.
//!
//! The users are in a passwd file of a mount namespace; each site has a namespace of its own. fay
//! forwards her mail to jon. All of this needs root, which the callers check.

use std::fs;
use std::path::{Path, PathBuf};

use common::Site;
use common::homes::{self, FIRST};
use common::mounts::Mounts;

/// The names of the users.
const USERS: [&str; 7] = ["jon", "ada", "bob", "cyd", "eve", "ret", "fay"];

/// The path of a user's home directory.
pub fn home(site: &Site, user: &str) -> PathBuf {
    site.path("home").join(user)
}

/// Makes a user the owner of a path.
pub fn give(user: &str, path: &Path) {
    homes::give(&USERS, user, path);
}

/// Creates the home directories. Returns the namespace in which the users exist.
pub fn settle(site: &mut Site) -> Mounts {
    let mounts = homes::settle(site, &USERS).expect("a mount namespace, as before");
    fs::write(home(site, "fay").join(".forward"), "jon\n").expect("a file");
    give("fay", &home(site, "fay"));
    mounts
}

/// Makes the same users, but with mailboxes at the paths that the server's own mailboxes would
/// have.
pub fn settle_beside(site: &mut Site) -> Mounts {
    let mounts = settle(site);
    site.set("local", "mailbox", &format!("\"{}/{{user}}\"", site.path("mail").display()));
    for user in USERS {
        fs::create_dir_all(site.mailbox(user)).expect("a mailbox");
    }
    hand_over(site);
    mounts
}

/// Makes each user the owner of everything in the user's mailbox.
pub fn hand_over(site: &Site) {
    USERS.iter().for_each(|user| give(user, &site.mailbox(user)));
}

/// Asserts that all mail in the mailboxes of a site has the owner and mode of its user's own files.
pub fn check(site: &Site) {
    for (uid, user) in (FIRST..).zip(USERS) {
        [home(site, user).join("Maildir"), site.mailbox(user)]
            .iter()
            .for_each(|maildir| homes::check_own(maildir, uid));
    }
}

//! Makes system users for a test, with home directories in the scratch directory.
//!
//! The users are in a passwd file, which takes the place of the system's file in a mount namespace.
//! This needs root; otherwise the test is reported as skipped.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use super::mounts::Mounts;
use super::{Daemon, Site};
use nix::unistd::geteuid;

/// A site for system users, and the mount namespace in which the users exist.
pub struct Homes {
    pub site: Site,
    pub mounts: Mounts,
}

/// The uid of the first user; the others follow.
pub const FIRST: u32 = 61_001;
/// The names of the users. The last, toor, is another name for root.
pub const USERS: [&str; 4] = ["jon", "mary", "elvis", "toor"];

impl Homes {
    /// Makes a site; `more` has additional settings. Without root, reports the test as skipped and
    /// returns `None`.
    pub fn new(more: &str) -> Option<Self> {
        if !geteuid().is_root() {
            super::skipped("only root can deliver to others");
            return None;
        }
        let mut site = Site::with(&format!("auth.users = \"none\"\nlocal.mailbox = \"~/Maildir\"\n{more}"));
        site.set("local", "users", "\"system\"");
        fs::create_dir(site.path("home")).expect("a directory");
        chown(site.path("home"), Some(0), Some(0)).expect("root's");
        // Other tests of the process may have changed its umask.
        fs::set_permissions(site.path("home"), fs::Permissions::from_mode(0o755)).expect("mode 755");
        let home = |name: &str| site.path("home").join(name);
        let number = |uid, name: &str| if name == "toor" { 0 } else { uid };
        let users: Vec<_> =
            (FIRST..).zip(USERS).map(|(uid, name)| (name, number(uid, name), uid, home(name))).collect();
        for (_, uid, gid, home) in &users {
            fs::create_dir(home).expect("a home");
            chown(home, Some(*uid), Some(*gid)).expect("a home of his own");
        }
        let mounts = Mounts::new(&passwd(&site, users))?;
        Some(Self { site, mounts })
    }

    /// Starts the daemon in the namespace.
    pub fn start(&self) -> Daemon {
        self.mounts.start(&self.site)
    }

    /// The home directory of a user.
    pub fn home(&self, name: &str) -> PathBuf {
        self.site.path("home").join(name)
    }

    /// Writes a file in a user's home directory.
    pub fn write(&self, name: &str, file: &str, text: &str, mode: u32) {
        let path = self.home(name).join(file);
        fs::write(&path, text).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
        self.give(name, &path);
    }

    /// Makes a user the owner of a path.
    pub fn give(&self, name: &str, path: &Path) {
        let uid = (FIRST..).zip(USERS).find(|(_, user)| *user == name).map(|(uid, _)| uid);
        chown(path, uid, uid).expect("chown");
    }

    /// The messages in a user's Maildir.
    pub fn mail(&self, name: &str) -> Vec<String> {
        messages(&self.home(name).join("Maildir"))
    }
}

/// Makes home directories for these users below `home/` of a site, configures the site for system
/// users, and returns the namespace in which they exist. This needs root.
pub fn settle(site: &mut Site, users: &[&str]) -> Option<Mounts> {
    site.set("auth", "users", "\"none\"");
    site.set("local", "users", "\"system\"");
    site.set("local", "mailbox", "\"~/Maildir\"");
    let home = |user: &str| site.path("home").join(user);
    for user in users {
        fs::create_dir_all(home(user)).expect("a home");
        give(users, user, &home(user));
    }
    Mounts::new(&passwd(site, (FIRST..).zip(users).map(|(uid, user)| (*user, uid, uid, home(user)))))
}

/// Makes one of the users the owner of a path and of everything below it. `users` are those given
/// to [`settle`].
pub fn give(users: &[&str], user: &str, path: &Path) {
    let uid = (FIRST..).zip(users).find(|(_, name)| **name == user).map(|(uid, _)| uid);
    chown(path, uid, uid).expect("chown");
    let below = fs::read_dir(path).into_iter().flatten().flatten();
    below.for_each(|file| give(users, user, &file.path()));
}

/// Asserts that all mail in a Maildir has the owner and mode of the user's own files.
pub fn check_own(maildir: &Path, uid: u32) {
    let files = ["new", "cur"].into_iter().flat_map(|sub| fs::read_dir(maildir.join(sub)).into_iter().flatten());
    for file in files.flatten() {
        let metadata = file.metadata().expect("there");
        assert_eq!((metadata.uid(), metadata.mode() & 0o7777), (uid, 0o600), "{}", file.path().display());
    }
}

/// Writes a passwd file and a group file with these users: name, uid, gid and home directory.
/// Returns a shell script that mounts the files over those of the system.
pub fn passwd<'a>(site: &Site, users: impl IntoIterator<Item = (&'a str, u32, u32, PathBuf)>) -> String {
    let mut passwd = fs::read_to_string("/etc/passwd").expect("a system with users");
    let mut group = fs::read_to_string("/etc/group").expect("groups");
    for (name, uid, gid, home) in users {
        passwd.push_str(&format!("{name}:x:{uid}:{gid}::{}:/bin/sh\n", home.display()));
        group.push_str(&format!("{name}:x:{gid}:\n"));
    }
    site.write("passwd", &passwd);
    site.write("group", &group);
    let bind = |name: &str| format!("mount --bind {} /etc/{name}", site.path(name).display());
    format!("{} && {}", bind("passwd"), bind("group"))
}

/// The messages in `new/` of a Maildir.
pub fn messages(maildir: &Path) -> Vec<String> {
    let files = fs::read_dir(maildir.join("new")).into_iter().flatten().flatten();
    files.filter_map(|file| fs::read_to_string(file.path()).ok()).collect()
}

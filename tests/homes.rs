//! Mail for users of the system, by a server that root has started: agents that run as them.
//!
//! The users are of a passwd file of our own, which a mount namespace has in the place
//! of the system's, with homes in the scratch directory. Only root can try this.

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use common::mounts::Mounts;
use common::{Daemon, Site};
use nix::unistd::geteuid;

/// A site for users of the system, and where they are.
struct Homes {
    site: Site,
    mounts: Mounts,
}

/// The first number of a user.
const FIRST: u32 = 61_001;
const USERS: [&str; 4] = ["jon", "mary", "elvis", "toor"];

impl Homes {
    /// `None`, and says so, for who is not root.
    fn new(more: &str) -> Option<Self> {
        if !geteuid().is_root() {
            println!("skipped: only root can deliver to others");
            return None;
        }
        let mut site = Site::with(&format!("auth.users = \"none\"\nlocal.mailbox = \"~/Maildir\"\n{more}"));
        site.set("local", "users", "\"system\"");
        let mut passwd = fs::read_to_string("/etc/passwd").expect("a system with users");
        let mut group = fs::read_to_string("/etc/group").expect("groups");
        fs::create_dir(site.path("home")).expect("a directory");
        chown(site.path("home"), Some(0), Some(0)).expect("root's");
        for (uid, name) in (FIRST..).zip(USERS) {
            let (home, number) = (site.path("home").join(name), if name == "toor" { 0 } else { uid });
            passwd.push_str(&format!("{name}:x:{number}:{uid}::{}:/bin/sh\n", home.display()));
            group.push_str(&format!("{name}:x:{uid}:\n"));
            fs::create_dir(&home).expect("a home");
            chown(&home, Some(number), Some(uid)).expect("a home of his own");
        }
        site.write("passwd", &passwd);
        site.write("group", &group);
        let bind = |name: &str| format!("mount --bind {} /etc/{name}", site.path(name).display());
        let mounts = Mounts::new(&format!("{} && {}", bind("passwd"), bind("group")))?;
        Some(Self { site, mounts })
    }

    fn start(&self) -> Daemon {
        self.mounts.start(&self.site)
    }

    fn home(&self, name: &str) -> PathBuf {
        self.site.path("home").join(name)
    }
}

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

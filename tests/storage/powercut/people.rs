//! The recipients: mailboxes of the server, or system users.
//!
//! System users are in a passwd file of the mount namespace, and have home directories with
//! a Maildir that the first letter creates. A few have a `.forward`: fay forwards to gus, hal to a
//! command that stores letters, and ivy to an mbox file. After a crash the last two cannot tell
//! whether they have a letter: they must have it complete, at least once, perhaps beside an
//! incomplete copy. All other mail must be there once, with the recipient as its owner, and
//! unreadable to others.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use common::books::Books;
use common::homes::{FIRST, passwd};
use common::{Site, own};

/// The kind of mailboxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum People {
    /// Mailboxes of the server.
    Virtual,
    /// Mailboxes of system users.
    System,
}

/// The recipients of each letter.
pub type Kinds = &'static [&'static [&'static str]];

/// A direct entry; one for a mailbox that does not exist yet; one that cannot be renamed into its
/// mailbox; copies; mail for another host; a bounce; and all of it in one.
const KINDS: Kinds = &[
    &["jon@razorback"],
    &["eve@razorback"],
    &["new@razorback"],
    &["list@razorback"],
    &["far@far.test"],
    &["void@far.test"],
    &["jon@razorback", "list@razorback", "far@far.test", "void@far.test"],
];
/// Those recipients as system users, and mail that is forwarded to a user, a command and a file.
const SYSTEM_KINDS: Kinds = &[
    &["jon@razorback"],
    &["eve@razorback"],
    &["new@razorback"],
    &["list@razorback"],
    &["jon@razorback", "ada@razorback"],
    &["fay@razorback"],
    &["hal@razorback"],
    &["ivy@razorback"],
    &["gus@razorback"],
    &["void@far.test"],
    &["jon@razorback", "list@razorback", "fay@razorback", "hal@razorback", "far@far.test", "void@far.test"],
];
/// The users that exist with both kinds of mailboxes.
const NAMES: [&str; 6] = ["jon", "ret", "ada", "bob", "cyd", "eve"];
/// The users with a `.forward`.
const MORE_NAMES: [&str; 4] = ["fay", "gus", "hal", "ivy"];
/// The number of users whose mailbox does not exist yet.
pub const NEW_USERS: usize = 1000;

/// hal's command, which stores a letter durably or fails.
const COMMAND: &str = r#""|f=$(mktemp kept/XXXXXXXXXX) && dd of=$f conv=fsync status=none && sync kept || exit 75""#;

/// The contents of all mailboxes.
#[derive(Default)]
pub struct Found {
    /// Mailboxes that must have a letter once.
    pub once: BTreeMap<String, Books>,
    /// Mailboxes that must have a letter at least once.
    pub often: BTreeMap<String, Books>,
    /// Descriptions of the damage in mailboxes.
    pub damaged: Vec<String>,
}

impl People {
    /// The recipients of the letters.
    pub fn kinds(self) -> Kinds {
        if self == Self::System { SYSTEM_KINDS } else { KINDS }
    }

    fn names(self) -> impl Iterator<Item = String> {
        let more = if self == Self::System { &MORE_NAMES[..] } else { &[] };
        let known = NAMES.iter().chain(more).map(|&name| name.to_owned());
        known.chain((0..NEW_USERS).map(|number| format!("u{number}")))
    }

    /// Writes the tables with these users, who have a directory each below `mail`; returns the shell
    /// script for the mount namespace.
    pub fn write_tables(self, site: &mut Site, mail: &Path) -> String {
        let names: Vec<_> = self.names().collect();
        if self == Self::Virtual {
            site.write("users", &names.iter().map(|name| format!("{name}::\n")).collect::<String>());
            site.set("local", "mailbox", &format!("\"{}/{{user}}\"", mail.display()));
            return "true".to_owned();
        }
        site.set("auth", "users", "\"none\"");
        site.set("local", "users", "\"system\"");
        site.set("local", "mailbox", "\"~/Maildir\"");
        passwd(site, (FIRST..).zip(&names).map(|(uid, name)| (name.as_str(), uid, uid, mail.join(name))))
    }

    /// Creates the directories below `mail` that must exist. `eve` is the other path of her mailbox;
    /// `seen` returns the path by which this process reaches a path.
    pub fn move_in(self, mail: &Path, eve: &Path, seen: impl Fn(&Path) -> PathBuf) {
        if self == Self::Virtual {
            [mail, &mail.join("eve"), eve].into_iter().for_each(|path| own(&seen(path)));
            return;
        }
        for (uid, name) in (FIRST..).zip(self.names()) {
            let home = mail.join(&name);
            let own = |path: &Path| chown(path, Some(uid), Some(uid)).expect("chown");
            fs::create_dir_all(seen(&home)).expect("a home");
            own(&seen(&home));
            if name == "eve" {
                own(&seen(eve));
            } else if name == "hal" {
                fs::create_dir(seen(&home).join("kept")).expect("a directory");
                own(&seen(&home).join("kept"));
            }
            if let Some(line) = forward(&name, &home) {
                let file = seen(&home).join(".forward");
                fs::write(&file, line + "\n").expect("a file");
                own(&file);
            }
        }
    }

    /// Ages lock files that a crash has left, so that they are ignored.
    pub fn wait_for_locks(self, mail: &Path) {
        if let Ok(lock) = File::open(mail.join("ivy/box.lock")) {
            lock.set_modified(SystemTime::now() - Duration::from_secs(3600)).expect("a time");
        }
    }

    /// The contents of all directories below `mail`, where files may have at most this many links.
    pub fn look(self, mail: &Path, max_links: u64) -> Found {
        let mut found = Found::default();
        let uids: BTreeMap<_, _> = self.names().zip(FIRST..).collect();
        for directory in fs::read_dir(mail).into_iter().flatten().flatten() {
            let (path, name) = (directory.path(), directory.file_name().to_string_lossy().into_owned());
            if name == "hal" && self == Self::System {
                found.often.insert(name, Books::count(read(files(&path.join("kept")))));
            } else if name == "ivy" && self == Self::System {
                found.often.insert(name, Books::count(letters(&fs::read(path.join("box")).unwrap_or_default())));
            } else {
                let (maildir, uid) = match self {
                    Self::Virtual => (path, None),
                    Self::System => (path.join("Maildir"), uids.get(&name)),
                };
                let files: Vec<_> = ["new", "cur"].iter().flat_map(|sub| files(&maildir.join(sub))).collect();
                found.damaged.extend(files.iter().filter_map(|file| stranger(file, *uid?, max_links)));
                let books = Books::count(read(files));
                found.damaged.extend_from_slice(&books.damaged);
                found.once.insert(name, books);
            }
        }
        found
    }
}

/// The line in a user's `.forward`.
fn forward(name: &str, home: &Path) -> Option<String> {
    match name {
        "fay" => Some("gus".to_owned()),
        "hal" => Some(COMMAND.to_owned()),
        "ivy" => Some(home.join("box").display().to_string()),
        _ => None,
    }
}

/// An error text if a file in a home directory does not have the owner and mode of the user's own
/// files. (The last step, which sets the group, may be missing after a cut.)
fn stranger(file: &Path, uid: u32, max_links: u64) -> Option<String> {
    let metadata = fs::metadata(file).ok()?;
    let (owner, mode, names) = (metadata.uid(), metadata.mode() & 0o7777, metadata.nlink());
    let is_right = (owner, mode) == (uid, 0o600) && (1..=max_links).contains(&names);
    (!is_right).then(|| format!("{}: owner {owner}, mode {mode:o}, {names} names", file.display()))
}

fn files(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|file| file.path()).collect()
}

fn read(files: Vec<PathBuf>) -> Vec<Vec<u8>> {
    files.into_iter().filter_map(|file| fs::read(file).ok()).collect()
}

/// The letters in an mbox file, each without its separator line.
fn letters(text: &[u8]) -> Vec<Vec<u8>> {
    let text = format!("\n\n{}", String::from_utf8_lossy(text));
    let letters = text.split("\n\nFrom ").skip(1).filter_map(|letter| letter.split_once('\n'));
    letters.map(|(_, letter)| format!("{}\n", letter.trim_end_matches('\n')).into_bytes()).collect()
}

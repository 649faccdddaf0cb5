//! The recipients in the power-cut tests: mailboxes of the server, or system users.
//!
//! System users are in a passwd file of the mount namespace, and have home directories with a
//! Maildir that the first letter creates. A few have a `.forward`: fay forwards to gus, hal to a
//! command that stores letters, and ivy to an mbox file. After a crash neither hal's command nor
//! ivy's mbox file can tell whether it has a letter already. They must have the letter complete, at
//! least once, perhaps beside an incomplete copy. All other mail must be there once, with the
//! recipient as its owner, and unreadable to others.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use common::books::Books;
use common::homes::{FIRST, passwd};
use common::{Site, own};

/// Whose mailboxes the recipients have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum People {
    /// Mailboxes of the server.
    Virtual,
    /// Mailboxes of system users.
    System,
}

/// A list of kinds of letters: the recipients of each kind.
pub type Kinds = &'static [&'static [&'static str]];

/// The kinds with mailboxes of the server: a mailbox into which the spool file is renamed, one
/// (eve's) into which it cannot be renamed, a mailbox that does not exist yet, mailboxes that get
/// copies, another host, a store with two recipients, a recipient that bounces, another host to which
/// the letter must be converted, a letter that is held for a second, one that sendmail(8) keeps in the
/// drop directory, and several of these together.
const KINDS: Kinds = &[
    &["jon@razorback"],
    &["eve@razorback"],
    &["new@razorback"],
    &["list@razorback"],
    &["far@far.test"],
    &["sto@store.test", "stp@store.test"],
    &["void@far.test"],
    &["jon@razorback", "odd@far.test"],
    &["held@far.test"],
    &["kept@razorback"],
    &["kim@shop.test"],
    &["sales@shop.test"],
    &["jon@razorback", "list@razorback", "far@far.test", "sto@store.test", "void@far.test", "kim@shop.test"],
];
/// The same kinds with system users, and mail that is forwarded to a user, a command and a file.
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
    &["kept@razorback"],
    &["void@far.test"],
    &["kim@shop.test"],
    &["sales@shop.test"],
    &[
        "jon@razorback",
        "list@razorback",
        "fay@razorback",
        "hal@razorback",
        "far@far.test",
        "void@far.test",
        "kim@shop.test",
    ],
];
/// The users that exist whatever the kind of mailboxes.
const NAMES: [&str; 7] = ["jon", "ret", "ada", "bob", "cyd", "eve", "kept"];
/// The users with a `.forward`, and gus. They exist only as system users.
const MORE_NAMES: [&str; 4] = ["fay", "gus", "hal", "ivy"];
/// The directory of the mailboxes of shop.test.
pub const SHOP: &str = "spools/shop";
/// The number of users whose mailboxes do not exist yet.
pub const NEW_USERS: usize = 1000;

/// The users of shop.test, a `[[domain]]` with users, aliases and mailboxes of its own. The mailboxes are
/// the server's, and always on the file system of the spool.
const SHOP_NAMES: [&str; 2] = ["kim", "lou"];

/// The command in hal's `.forward`. It stores a letter durably or fails.
const COMMAND: &str = r#""|f=$(mktemp kept/XXXXXXXXXX) && dd of=$f conv=fsync status=none && sync kept || exit 75""#;

/// The contents of all mailboxes of a host.
#[derive(Default)]
pub struct Found {
    /// The mailboxes that must have a letter once, by user.
    pub once: BTreeMap<String, Books>,
    /// The mailboxes that must have a letter at least once, by user.
    pub often: BTreeMap<String, Books>,
    /// A description of each damaged file in a mailbox.
    pub damaged: Vec<String>,
}

impl People {
    /// The kinds of letters for these mailboxes.
    pub fn kinds(self) -> Kinds {
        if self == Self::System { SYSTEM_KINDS } else { KINDS }
    }

    fn names(self) -> impl Iterator<Item = String> {
        let more = if self == Self::System { &MORE_NAMES[..] } else { &[] };
        let known = NAMES.iter().chain(more).map(|&name| name.to_owned());
        known.chain((0..NEW_USERS).map(|number| format!("u{number}")))
    }

    /// Writes the tables with these users, each with a directory below `mail`. Returns the shell
    /// script for the mount namespace.
    pub fn write_tables(self, site: &mut Site, mail: &Path) -> String {
        let names: Vec<_> = self.names().collect();
        let path = |name: &str| site.path(name).display().to_string();
        let (users, aliases, shop) = (path("shop-users"), path("shop-aliases"), path(SHOP));
        for (key, value) in [
            ("names", "[\"shop.test\"]".to_owned()),
            ("users", format!("\"file:{users}\"")),
            ("aliases", format!("{aliases:?}")),
            ("mailbox", format!("\"{shop}/{{user}}\"")),
        ] {
            site.set("domain#1", key, &value);
        }
        site.write("shop-users", &SHOP_NAMES.map(|name| format!("{name}::\n")).concat());
        site.write("shop-aliases", "sales: lou, jon@razorback\n");
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

    /// Creates the directories below `mail` that must exist. `eve` is the other path of eve's
    /// mailbox. `seen` returns the path by which the test reaches a path of the namespace.
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

    /// Gives a lock file that a crash has left an old date, so that the daemon ignores it.
    pub fn wait_for_locks(self, mail: &Path) {
        if let Ok(lock) = File::open(mail.join("ivy/box.lock")) {
            lock.set_modified(SystemTime::now() - Duration::from_secs(3600)).expect("a time");
        }
    }

    /// Reads all directories below `mail`, and those of shop.test below `shop`. A file may have at most
    /// `max_links` names.
    pub fn look(self, mail: &Path, shop: &Path, max_links: u64) -> Found {
        let mut found = Found::default();
        for name in SHOP_NAMES {
            let maildir = shop.join(name);
            let books = Books::count(read(["new", "cur"].iter().flat_map(|sub| files(&maildir.join(sub))).collect()));
            found.damaged.extend_from_slice(&books.damaged);
            found.once.insert(name.to_owned(), books);
        }
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

/// The line in a user's `.forward`; `None` if the user has none.
fn forward(name: &str, home: &Path) -> Option<String> {
    match name {
        "fay" => Some("gus".to_owned()),
        "hal" => Some(COMMAND.to_owned()),
        "ivy" => Some(home.join("box").display().to_string()),
        _ => None,
    }
}

/// An error text if a file in a home directory does not have the owner and mode of the user's own
/// files. (A handover sets the group last, so after a cut the group may still be the server's.)
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

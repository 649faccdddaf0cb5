//! Who gets the mail: mailboxes of the server's own, or users of the system.
//!
//! Users of the system have homes, with a Maildir that the first letter makes, in a passwd
//! of the mount namespace. A few have a `.forward`: fay's mail goes on to gus, hal's to a
//! command that keeps it, and ivy's to a file that holds many letters. Neither of these two
//! can be asked after a crash whether it had a letter: it must be there whole, once
//! or more often, and what was begun and broken off may be there besides. All else must be
//! there once, its recipient's own, and for nobody else to read.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use common::books::Books;
use common::homes::{FIRST, passwd};
use common::{Site, own};

/// Whose mailboxes they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum People {
    /// The server's.
    Virtual,
    /// Those of users of the system.
    System,
}

/// The recipients of one letter each.
pub type Kinds = &'static [&'static [&'static str]];

/// What is sent: a bare entry; one for someone whose mailbox is not there yet; one whose
/// mailbox it cannot be moved into; copies; mail for another host; a bounce in the
/// making; and all of it in one.
const KINDS: Kinds = &[
    &["jon@razorback"],
    &["eve@razorback"],
    &["new@razorback"],
    &["list@razorback"],
    &["far@far.test"],
    &["void@far.test"],
    &["jon@razorback", "list@razorback", "far@far.test", "void@far.test"],
];
/// The same for users of the system; and what is passed on: to another one, to a command,
/// to a file.
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
/// Those who are always there.
const NAMES: [&str; 6] = ["jon", "ret", "ada", "bob", "cyd", "eve"];
/// Those who are there where they can have a `.forward`.
const MORE_NAMES: [&str; 4] = ["fay", "gus", "hal", "ivy"];
/// How many there are whose mailbox is not there yet.
pub const NEW_USERS: usize = 1000;

/// What hal does with a letter: it is his, durably, or comes again.
const COMMAND: &str = r#""|f=$(mktemp kept/XXXXXXXXXX) && dd of=$f conv=fsync status=none && sync kept || exit 75""#;

/// What is in everybody's mailbox.
#[derive(Default)]
pub struct Found {
    /// Where a letter must be once.
    pub once: BTreeMap<String, Books>,
    /// Where it must be at least once.
    pub often: BTreeMap<String, Books>,
    /// What is wrong with some of it.
    pub damaged: Vec<String>,
}

impl People {
    /// What is sent to them.
    pub fn kinds(self) -> Kinds {
        if self == Self::System { SYSTEM_KINDS } else { KINDS }
    }

    fn names(self) -> impl Iterator<Item = String> {
        let more = if self == Self::System { &MORE_NAMES[..] } else { &[] };
        let known = NAMES.iter().chain(more).map(|&name| name.to_owned());
        known.chain((0..NEW_USERS).map(|number| format!("u{number}")))
    }

    /// Makes them known, with a directory for each below `mail`; the script of the
    /// shell for the mount namespace.
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

    /// Makes the directories below `mail` that must be there. `eve` is the other place of
    /// hers; `seen` is where this process finds a path.
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

    /// Makes a lock that a crash has left as old as it must be to be one.
    pub fn wait_for_locks(self, mail: &Path) {
        if let Ok(lock) = File::open(mail.join("ivy/box.lock")) {
            lock.set_modified(SystemTime::now() - Duration::from_secs(3600)).expect("a time");
        }
    }

    /// What is in everybody's directory below `mail`, where files may have so many names.
    pub fn look(self, mail: &Path, most: u64) -> Found {
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
                found.damaged.extend(files.iter().filter_map(|file| stranger(file, *uid?, most)));
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

/// What is wrong with a file in a home, if it is not as if its owner had made it. (The last
/// step, by which it comes into his group, may be missing after a cut.)
fn stranger(file: &Path, uid: u32, most: u64) -> Option<String> {
    let metadata = fs::metadata(file).ok()?;
    let (owner, mode, names) = (metadata.uid(), metadata.mode() & 0o7777, metadata.nlink());
    let is_right = (owner, mode) == (uid, 0o600) && (1..=most).contains(&names);
    (!is_right).then(|| format!("{}: owner {owner}, mode {mode:o}, {names} names", file.display()))
}

fn files(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|file| file.path()).collect()
}

fn read(files: Vec<PathBuf>) -> Vec<Vec<u8>> {
    files.into_iter().filter_map(|file| fs::read(file).ok()).collect()
}

/// The letters in a file that holds many, each from behind its first line.
fn letters(text: &[u8]) -> Vec<Vec<u8>> {
    let text = format!("\n\n{}", String::from_utf8_lossy(text));
    let letters = text.split("\n\nFrom ").skip(1).filter_map(|letter| letter.split_once('\n'));
    letters.map(|(_, letter)| format!("{}\n", letter.trim_end_matches('\n')).into_bytes()).collect()
}

//! Tests of the steps of the spool: the files on disk before and after each step, and the recovery
//! after a crash between two steps.

use std::fs::{FileTimes, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, SystemTime};

use super::*;
use crate::address::Address;
use crate::envelope::{Envelope, Folder, MailOptions, Origin, Recipient};

mod accept;
mod damage;
mod deliver;
mod hold;
mod report;
mod reserve;

/// A spool in a new directory, which is removed at the end.
struct Scratch {
    root: PathBuf,
    spool: Arc<Spool>,
}

impl Scratch {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("penfold-spool-{}-{number}", std::process::id()));
        let spool = Spool::open(&root).expect("a new spool");
        Self { root, spool }
    }

    /// Commits a message.
    fn commit(&self, envelope: &Envelope, direct: bool, content: &[u8]) -> EntryName {
        let mut draft = self.spool.begin().expect("a draft");
        draft.write_all(content).expect("room");
        draft.commit(&NewEntry { is_direct: direct, ..NewEntry::queued(envelope, "") }).expect("a commit")
    }

    /// Commits and opens a queued entry for this number of recipients.
    fn queued(&self, recipients: usize) -> Entry {
        self.open(self.commit(&envelope(recipients), false, CONTENT))
    }

    fn direct(&self) -> Entry {
        self.open(self.commit(&envelope(1), true, CONTENT))
    }

    fn open(&self, name: EntryName) -> Entry {
        self.spool.entry(name).expect("an entry")
    }

    /// The entries of the spool, after the choice between duplicates.
    fn entries(&self) -> Vec<EntryName> {
        let mut single: Vec<EntryName> = Vec::new();
        let mut names = [Place::New, Place::Cur].map(|place| self.spool.names(place).expect("names")).concat();
        names.sort_unstable();
        for name in names {
            match single.pop_if(|last| last.id == name.id) {
                Some(other) => single.push(self.spool.resolve_duplicates(other, name)),
                None => single.push(name),
            }
        }
        single
    }

    /// The states of the recipients on disk.
    fn states(&self, name: EntryName) -> Vec<State> {
        self.open(name).recipients().iter().map(|entry| entry.record.state).collect()
    }

    /// The names of the files in a directory, sorted.
    fn list(&self, directory: &str) -> Vec<String> {
        let files = fs::read_dir(self.root.join(directory)).expect("a directory");
        let mut names: Vec<_> = files.map(|f| f.expect("a file").file_name().into_string().expect("ASCII")).collect();
        names.sort();
        names
    }

    /// The numbers of files in tmp, new, cur and bad.
    fn counts(&self) -> [usize; 4] {
        ["tmp", "new", "cur", "bad"].map(|directory| self.list(directory).len())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

const CONTENT: &[u8] = b"Received: x\n\nhello\n";

fn address(text: &str) -> Address {
    Address::parse(text).expect("an address")
}

fn envelope(recipients: usize) -> Envelope {
    let recipient = |n| Recipient::new(address(&format!("r{n}@razorback")));
    Envelope {
        sender: Some(address("jon@frogbog")),
        recipients: (0..recipients).map(recipient).collect(),
        options: MailOptions::default(),
        origin: Origin::Client,
    }
}

fn content(entry: &Entry) -> Vec<u8> {
    let mut text = Vec::new();
    entry.content().read_to_end(&mut text).expect("a readable body");
    text
}

/// Makes a file look older.
fn age(path: &Path, by: Duration) {
    let then = SystemTime::now() - by;
    let file = OpenOptions::new().append(true).open(path).expect("a file");
    file.set_times(FileTimes::new().set_modified(then)).expect("its time");
}

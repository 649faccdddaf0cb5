//! The spool's promises, one by one: what is on disk before and after each step,
//! and what becomes of what a crash leaves between two.

use std::fs::FileTimes;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::AtomicU32;

use super::*;
use crate::address::Address;
use crate::envelope::{Body, Envelope, Origin, Recipient};

/// A spool in a directory of its own, removed at the end.
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
    fn keep(&self, envelope: &Envelope, bare: bool, content: &[u8]) -> EntryName {
        let mut draft = self.spool.begin(envelope, bare).expect("a draft");
        draft.write_all(content).expect("room");
        draft.commit().expect("a commit")
    }

    /// Commits and opens a full entry for so many recipients.
    fn full(&self, recipients: usize) -> Entry {
        self.open(self.keep(&envelope(recipients), false, CONTENT))
    }

    fn bare(&self) -> Entry {
        self.open(self.keep(&envelope(1), true, CONTENT))
    }

    fn open(&self, name: EntryName) -> Entry {
        self.spool.entry(name).expect("an entry")
    }

    /// The entries, each once.
    fn entries(&self) -> Vec<EntryName> {
        let mut single: Vec<EntryName> = Vec::new();
        let mut names = [Place::New, Place::Cur].map(|place| self.spool.names(place).expect("names")).concat();
        names.sort_unstable();
        for name in names {
            match single.pop_if(|last| last.id == name.id) {
                Some(twin) => single.push(self.spool.choose(twin, name)),
                None => single.push(name),
            }
        }
        single
    }

    /// The states as the disk has them.
    fn states(&self, name: EntryName) -> Vec<State> {
        self.open(name).slots().iter().map(|slot| slot.record.state).collect()
    }

    /// The names of the files in a directory, sorted.
    fn list(&self, directory: &str) -> Vec<String> {
        let files = fs::read_dir(self.root.join(directory)).expect("a directory");
        let mut names: Vec<_> = files.map(|f| f.expect("a file").file_name().into_string().expect("ASCII")).collect();
        names.sort();
        names
    }

    /// How many files there are in tmp, new, cur and bad.
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
        body: Body::SevenBit,
        origin: Origin::Client,
    }
}

fn content(entry: &Entry) -> Vec<u8> {
    let mut text = Vec::new();
    entry.content().read_to_end(&mut text).expect("a readable body");
    text
}

/// A recipient's file made to look old.
fn age(path: &Path, by: Duration) {
    let then = SystemTime::now() - by;
    let file = OpenOptions::new().append(true).open(path).expect("a file");
    file.set_times(FileTimes::new().set_modified(then)).expect("its time");
}

#[test]
fn what_was_committed_can_be_read_back() {
    for nameless in [true, false] {
        let scratch = Scratch::new();
        scratch.spool.nameless.store(nameless, Ordering::Relaxed);
        // In one piece, around the size of the buffer, and in many pieces.
        for size in [0, 1, writer::BUFFER - 1, writer::BUFFER, writer::BUFFER + 1, 3 * writer::BUFFER + 7] {
            for bare in [true, false] {
                let text: Vec<u8> = (0..size).map(|n| b'a' + (n % 26) as u8).collect();
                let mut draft = scratch.spool.begin(&envelope(1), bare).expect("a draft");
                text.chunks(1 + size / 3).for_each(|piece| draft.write_all(piece).expect("room"));
                let (id, name) = (draft.id(), draft.commit().expect("a commit"));
                let entry = scratch.open(name);
                assert_eq!((entry.id(), entry.is_bare(), entry.name().place), (id, bare, Place::New));
                assert_eq!((content(&entry), entry.content_size()), (text.clone(), size as u64));
                assert_eq!(content(&entry), text, "a second reading");
                assert_eq!(entry.sender(), Some(&address("jon@frogbog")));
                assert_eq!(
                    entry.slots().iter().map(|s| &s.recipient).collect::<Vec<_>>(),
                    [&envelope(1).recipients[0]]
                );
                assert_eq!(fs::metadata(scratch.spool.path(name)).expect("a file").len(), name.size);
            }
        }
        assert_eq!(scratch.counts(), [0, 12, 0, 0]);
        assert_eq!(scratch.entries().len(), 12);
    }
}

#[test]
fn a_draft_that_is_dropped_leaves_nothing() {
    for nameless in [true, false] {
        let scratch = Scratch::new();
        scratch.spool.nameless.store(nameless, Ordering::Relaxed);
        for size in [10, 2 * writer::BUFFER] {
            let mut draft = scratch.spool.begin(&envelope(1), true).expect("a draft");
            draft.write_all(&vec![b'x'; size]).expect("room");
            drop(draft);
        }
        assert_eq!(scratch.counts(), [0; 4]);
    }
}

#[test]
fn a_commit_that_fails_leaves_nothing() {
    for nameless in [true, false] {
        let scratch = Scratch::new();
        scratch.spool.nameless.store(nameless, Ordering::Relaxed);
        let mut draft = scratch.spool.begin(&envelope(1), true).expect("a draft");
        draft.write_all(&vec![b'x'; 2 * writer::BUFFER]).expect("room");
        fs::rename(scratch.root.join("new"), scratch.root.join("away")).expect("a rename");
        draft.commit().expect_err("there is no new/");
        assert!(scratch.list("tmp").is_empty() && scratch.list("away").is_empty());
    }
}

#[test]
fn many_recipients() {
    let scratch = Scratch::new();
    let mut entry = scratch.full(10_000);
    entry.settle(9_999, State::Done, 7).expect("a record");
    entry.settle(0, State::Failed, 8).expect("a record");
    let entry = scratch.open(entry.name());
    assert_eq!((entry.slots().len(), content(&entry)), (10_000, CONTENT.to_vec()));
    assert_eq!(entry.slots()[9_999].recipient.address, address("r9999@razorback"));
    let settled: Vec<_> = entry.slots().iter().filter(|s| !s.record.state.is_open()).map(|s| s.number).collect();
    assert_eq!(settled, [0, 9_999]);
}

#[test]
fn what_makes_no_sense_goes_to_bad_and_the_rest_goes_on() {
    let scratch = Scratch::new();
    let good = scratch.full(2).name();
    let spoil = |name: EntryName, at: usize, byte: u8| {
        let path = scratch.spool.path(name);
        let mut bytes = fs::read(&path).expect("an entry");
        bytes[at] = byte;
        fs::write(path, bytes).expect("an entry");
    };
    let cut = scratch.full(1).name();
    File::options().write(true).open(scratch.spool.path(cut)).and_then(|f| f.set_len(cut.size - 1)).expect("a cut");
    let empty = scratch.bare().name();
    fs::write(scratch.spool.path(empty), "").expect("a cut");
    let version = scratch.full(1).name();
    spoil(version, "penfold/".len(), b'2');
    let state = scratch.full(1).name();
    let offset = usize::try_from(scratch.open(state).slots()[0].offset).expect("small");
    spoil(state, offset, b'X');
    let path = scratch.bare().name();
    spoil(path, "Return-Path: ".len(), b'?');
    for odd in ["README", "ABC,S=1", &format!("{},S=0{}", good.id, good.size), &format!("{}", good.id)] {
        fs::write(scratch.root.join("new").join(odd), "x").expect("a file");
    }
    for name in scratch.entries() {
        match scratch.spool.entry(name) {
            Ok(_) => assert_eq!(name, good),
            Err(Unusable::Bad(bad)) => scratch.spool.condemn(name, bad.0),
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(scratch.counts(), [0, 1, 0, 9]);
    assert_eq!(scratch.entries(), [good]);
}

#[test]
fn nothing_in_bad_is_replaced() {
    let scratch = Scratch::new();
    for text in ["first", "second"] {
        fs::write(scratch.root.join("new/odd"), text).expect("a file");
        scratch.entries();
    }
    assert_eq!(fs::read(scratch.root.join("bad/odd")).expect("kept"), b"first");
    assert_eq!(fs::read(scratch.root.join("new/odd")).expect("kept"), b"second");
}

#[test]
fn a_bare_entry_becomes_a_file_of_the_mailbox() {
    let scratch = Scratch::new();
    let (first, second) = (scratch.bare(), scratch.bare());
    let target = scratch.root.join("mail");
    scratch.spool.move_into(first.name(), &target).expect("a rename");
    let text = fs::read(&target).expect("a message");
    assert_eq!(text, [b"Return-Path: <jon@frogbog>\nDelivered-To: r0@razorback\n".as_slice(), CONTENT].concat());
    assert!(matches!(scratch.spool.entry(first.name()), Err(Unusable::Gone)));
    let again = scratch.spool.move_into(second.name(), &target).expect_err("nothing is replaced");
    assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(content(&scratch.open(second.name())), CONTENT);
}

#[test]
fn a_bare_entry_is_made_full() {
    let scratch = Scratch::new();
    let mut entry = scratch.bare();
    let old = entry.name();
    entry.settle(0, State::Done, 1).expect_err("a bare entry has no records");
    entry.make_full().expect("a full entry");
    assert_eq!((entry.is_bare(), entry.id(), entry.name().place), (false, old.id, Place::Cur));
    assert_eq!((content(&entry), entry.sender()), (CONTENT.to_vec(), Some(&address("jon@frogbog"))));
    let name = entry.name();
    entry.make_full().expect("again");
    assert_eq!((entry.name(), scratch.counts()), (name, [0, 0, 1, 0]));
    assert!(matches!(scratch.spool.entry(old), Err(Unusable::Gone)));
}

#[test]
fn a_bare_entry_that_cannot_be_made_full_stays_as_it_is() {
    for missing in ["tmp", "cur"] {
        let scratch = Scratch::new();
        let mut entry = scratch.bare();
        let (directory, away) = (scratch.root.join(missing), scratch.root.join("away"));
        fs::rename(&directory, &away).expect("a rename");
        entry.make_full().expect_err("a directory is missing");
        assert!(entry.is_bare() && scratch.open(entry.name()).is_bare());
        fs::rename(&away, &directory).expect("a rename");
        entry.make_full().expect("a full entry");
        assert_eq!((content(&entry), scratch.counts()), (CONTENT.to_vec(), [0, 0, 1, 0]));
    }
}

/// The two files that a crash in the middle of `make_full` leaves: bare, full.
fn twins(scratch: &Scratch) -> (EntryName, EntryName) {
    let mut entry = scratch.bare();
    let (bare, bytes) = (entry.name(), fs::read(scratch.spool.path(entry.name())).expect("an entry"));
    entry.make_full().expect("a full entry");
    fs::write(scratch.spool.path(bare), bytes).expect("its twin");
    (bare, entry.name())
}

#[test]
fn of_twins_the_full_one_counts() {
    let scratch = Scratch::new();
    let (_, full) = twins(&scratch);
    let other = scratch.full(1).name();
    assert_eq!(scratch.entries(), [full, other]);
    assert_eq!(scratch.counts(), [0, 1, 1, 0]);
}

#[test]
fn of_twins_one_of_which_is_damaged_the_other_counts() {
    for damage_bare in [true, false] {
        let scratch = Scratch::new();
        let (bare, full) = twins(&scratch);
        let (damaged, sound) = if damage_bare { (bare, full) } else { (full, bare) };
        fs::write(scratch.spool.path(damaged), "").expect("a cut");
        assert_eq!(scratch.entries(), [sound]);
        assert_eq!(content(&scratch.open(sound)), CONTENT);
        assert_eq!(scratch.list("bad"), [damaged.file_name()]);
    }
}

#[test]
fn an_entry_that_moved_while_it_was_looked_for_is_not_its_own_twin() {
    let scratch = Scratch::new();
    let mut entry = scratch.full(1);
    let before = entry.name();
    entry.make_tried().expect("a rename");
    assert_eq!(scratch.spool.choose(before, entry.name()), entry.name());
    let mut entry = scratch.bare();
    let before = entry.name();
    entry.make_full().expect("a full entry");
    assert_eq!(scratch.spool.choose(before, entry.name()), entry.name());
    assert_eq!(scratch.counts(), [0, 0, 2, 0]);
}

#[test]
fn records_are_kept_and_are_independent() {
    let scratch = Scratch::new();
    let (mut one, mut other) = (scratch.full(4), scratch.open(scratch.entries()[0]));
    one.prepare(0, 5, u64::MAX, 100).expect("a record");
    other.settle(1, State::Done, 101).expect("a record");
    one.defer(2, 102).expect("a record");
    // What is prepared stays so: only the next attempt can tell what came of it.
    one.defer(0, 103).expect("nothing to do");
    assert!(one.settle(4, State::Done, 1).is_err() && one.defer(4, 1).is_err(), "there is no such recipient");
    let records: Vec<_> =
        scratch.open(one.name()).slots().iter().map(|s| (s.record.state, s.record.last, s.record.warned)).collect();
    let prepared = State::Prepared { born: 5, inode: u64::MAX };
    assert_eq!(records, [(prepared, 100, 0), (State::Done, 101, 0), (State::Todo, 102, 0), (State::Todo, 0, 0)]);
}

#[test]
fn an_entry_is_found_wherever_it_is_and_moved_once() {
    let scratch = Scratch::new();
    let (mut one, mut other) = (scratch.full(2), scratch.open(scratch.entries()[0]));
    let before = one.name();
    one.make_tried().expect("a rename");
    other.make_tried().expect("another worker was faster");
    one.make_tried().expect("nothing to do");
    assert_eq!((one.name(), one.name().place), (other.name(), Place::Cur));
    assert_eq!(scratch.open(before).name(), one.name());
    assert_eq!(scratch.counts(), [0, 0, 1, 0]);
}

#[test]
fn only_what_is_settled_is_finished() {
    let scratch = Scratch::new();
    let mut entry = scratch.full(2);
    entry.make_tried().expect("a rename");
    scratch.spool.note(entry.id(), "said");
    entry.settle(0, State::Done, 1).expect("a record");
    for open in [State::Todo, State::Prepared { born: 1, inode: 1 }, State::Reported { lead: 0 }] {
        entry.settle(1, open, 1).expect("a record");
        let refused = scratch.spool.finish(entry.name()).expect_err("one is open");
        assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
    }
    entry.settle(1, State::Failed, 1).expect("a record");
    scratch.spool.finish(entry.name()).expect("all are settled");
    assert_eq!((scratch.counts(), scratch.list("note").len()), ([0; 4], 0));
    scratch.spool.finish(entry.name()).expect("it is gone already");
    let bare = scratch.bare();
    scratch.spool.finish(bare.name()).expect_err("a bare one is open as long as it is here");
}

/// Begets a report of the recipients 1 and 2 of three, at 1000 seconds.
fn beget(entry: &mut Entry) -> EntryName {
    let report = Envelope { sender: None, origin: Origin::Report, ..envelope(1) };
    entry.beget(&[1, 2], &report, |id| format!("report {id}\n").into_bytes(), 1_000).expect("a report")
}

#[test]
fn a_report_is_an_entry_of_its_own() {
    let scratch = Scratch::new();
    let mut entry = scratch.full(3);
    let child = scratch.open(beget(&mut entry));
    assert_eq!(scratch.states(entry.name()), [State::Todo, State::Failed, State::Failed]);
    assert_eq!((child.sender(), child.origin()), (None, Origin::Report));
    assert_eq!(content(&child), format!("report {}\n", child.id()).into_bytes());
    assert_eq!((child.id(), scratch.counts()), (entry.id().beget(Kind::Report, 1, 1_000), [0, 2, 0, 0]));
}

#[test]
fn a_report_is_made_once_wherever_the_crash_was() {
    let reported = State::Reported { lead: 1 };
    for (renamed, expected) in [(false, State::Todo), (true, State::Failed)] {
        let scratch = Scratch::new();
        let mut entry = scratch.full(3);
        let child = beget(&mut entry);
        // As it was before the records were overwritten for the last time.
        for number in [1, 2] {
            entry.settle(number, reported, 1_000).expect("a record");
        }
        if !renamed {
            fs::rename(scratch.spool.path(child), scratch.spool.temporary(child.id)).expect("as it was before");
        }
        let mut entry = scratch.open(entry.name());
        assert_eq!(entry.awaited().collect::<Vec<_>>(), [child.id, child.id]);
        entry.recover(0..3).expect("an answer");
        assert_eq!(scratch.states(entry.name()), [State::Todo, expected, expected]);
        assert_eq!(scratch.counts(), [0, 1 + usize::from(renamed), 0, 0]);
        entry.recover(0..3).expect("nothing to do");
        assert_eq!(scratch.states(entry.name()), [State::Todo, expected, expected]);
    }
}

#[test]
fn a_report_that_cannot_be_made_leaves_the_recipients_open() {
    for missing in ["tmp", "new"] {
        let scratch = Scratch::new();
        let mut entry = scratch.full(3);
        entry.make_tried().expect("a rename");
        let (directory, away) = (scratch.root.join(missing), scratch.root.join("away"));
        fs::rename(&directory, &away).expect("a rename");
        let report = Envelope { sender: None, ..envelope(1) };
        entry.beget(&[1, 2], &report, |_| b"report\n".to_vec(), 1_000).expect_err("a directory is missing");
        fs::rename(&away, &directory).expect("a rename");
        let mut entry = scratch.open(entry.name());
        entry.recover(0..3).expect("an answer");
        assert_eq!(scratch.states(entry.name()), [State::Todo; 3]);
        beget(&mut entry);
        assert_eq!(scratch.counts(), [0, 1, 1, 0]);
    }
}

#[test]
fn a_report_that_was_sent_is_told_of_even_if_that_cannot_be_noted() {
    let scratch = Scratch::new();
    let mut entry = scratch.full(3);
    let new = scratch.root.join("new");
    // Names can be put into it, but it cannot be opened to be synced; root is nobody here.
    let nobody = nix::unistd::Uid::from_raw(65_534);
    for directory in ["", "tmp", "new"].map(|name| scratch.root.join(name)) {
        let _ = std::os::unix::fs::chown(directory, Some(nobody.as_raw()), None);
    }
    fs::set_permissions(&new, fs::Permissions::from_mode(0o300)).expect("a mode");
    let before = nix::unistd::setfsuid(nobody);
    let child = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| beget(&mut entry)));
    nix::unistd::setfsuid(before);
    fs::set_permissions(&new, fs::Permissions::from_mode(0o700)).expect("a mode");
    let child = child.expect("a report");
    assert_eq!(content(&scratch.open(child)), format!("report {}\n", child.id).into_bytes());
    assert_eq!(scratch.states(entry.name()), [State::Todo, State::Reported { lead: 1 }, State::Reported { lead: 1 }]);
    entry.recover(0..3).expect("an answer");
    assert_eq!(scratch.states(entry.name()), [State::Todo, State::Failed, State::Failed]);
}

#[test]
fn what_is_written_in_vain_does_not_fill_the_disk() {
    let scratch = Scratch::new();
    let id = QueueId::generate().expect("an id");
    scratch
        .spool
        .write_temporary(id, "head", |_| Err(io::ErrorKind::StorageFull.into()))
        .expect_err("the disk is full");
    assert!(scratch.list("tmp").is_empty());
}

#[test]
fn one_process_runs_the_queue() {
    let scratch = Scratch::new();
    let lock = scratch.spool.lock().expect("no trouble").expect("the lock");
    let again = Spool::open(&scratch.root).expect("another look is allowed");
    assert!(again.lock().expect("no trouble").is_none());
    drop(lock);
    assert!(again.lock().expect("no trouble").is_some());
    assert_eq!(fs::read(scratch.root.join("lock")).expect("a version"), b"penfold/1\n");
}

#[test]
fn a_spool_of_another_version_is_refused() {
    let scratch = Scratch::new();
    fs::write(scratch.root.join("lock"), "penfold/2\n").expect("a version");
    let refused = Spool::open(&scratch.root).expect_err("another version");
    assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
    assert!(refused.to_string().contains("penfold/2"), "{refused}");
}

#[test]
fn the_sweep_takes_what_is_nobodys() {
    let scratch = Scratch::new();
    let old = STALE_AFTER + Duration::from_secs(60);
    let make = |directory: &str, name: &str, age_by: Duration| {
        let path = scratch.root.join(directory).join(name);
        fs::write(&path, "x").expect("a file");
        age(&path, age_by);
        path
    };
    let ids: Vec<QueueId> = (0..3).map(|_| QueueId::generate().expect("an id")).collect();
    let [known, unknown, locked] = [0, 1, 2].map(|n| ids[n].to_string());
    make("tmp", &unknown, old);
    make("tmp", "odd", old);
    make("note", &unknown, old);
    let _lock = File::open(make("tmp", &locked, old)).and_then(|f| f.lock().map(|()| f)).expect("a lock");
    make("tmp", &known, old);
    make("note", &known, old);
    make("tmp", "young", STALE_AFTER - Duration::from_secs(60));
    make("tmp", "of-tomorrow", Duration::ZERO);
    let mut entry = scratch.full(1);
    entry.make_tried().expect("a rename");
    age(&scratch.spool.path(entry.name()), old);
    scratch.spool.sweep(&[ids[0]].into()).expect("no trouble");
    let mut left = vec![known.clone(), locked, "of-tomorrow".into(), "young".into()];
    left.sort();
    assert_eq!((scratch.list("tmp"), scratch.list("note")), (left, vec![known]));
    assert_eq!(scratch.entries(), [entry.name()]);
}

#[test]
fn a_note_stays_short_and_is_not_needed() {
    let scratch = Scratch::new();
    let id = QueueId::generate().expect("an id");
    assert_eq!(scratch.spool.read_note(id), "");
    for n in 0..5_000 {
        scratch.spool.note(id, &format!("line {n}"));
    }
    let note = scratch.spool.read_note(id);
    assert!(note.len() as u64 <= MAX_NOTE + 16 && note.ends_with("line 4999\n"), "{} octets", note.len());
    fs::remove_dir_all(scratch.root.join("note")).expect("a directory");
    scratch.spool.note(id, "into the void");
}

#[test]
fn names_of_files_are_read_as_they_are_given() {
    let id = QueueId::generate().expect("an id");
    let name = EntryName { id, size: 4311, place: Place::New };
    assert_eq!(EntryName::parse_new(&name.file_name()), Some(name));
    for odd in
        [format!("{id}"), format!("{id},S="), format!("{id},S=01"), format!("{id},S=+1"), format!("{id},S=1,S=2")]
    {
        assert_eq!(EntryName::parse_new(&odd), None, "{odd}");
    }
    assert_eq!(EntryName::parse_new(&format!("{id},S={}0", u64::MAX)), None);
}

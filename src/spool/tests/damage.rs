//! Corrupt entries, duplicates, files that a crash left, and spools of other versions.

use super::*;
use std::fs::File;

#[test]
fn corrupt_entries_are_set_aside_and_the_others_are_delivered() {
    let scratch = Scratch::new();
    let intact = scratch.queued(2).name();
    let spoil = |name: EntryName, offset: usize, byte: u8| {
        let path = scratch.spool.path(name);
        let mut bytes = fs::read(&path).expect("an entry");
        bytes[offset] = byte;
        fs::write(path, bytes).expect("an entry");
    };
    let cut = scratch.queued(1).name();
    File::options().write(true).open(scratch.spool.path(cut)).and_then(|f| f.set_len(cut.size - 1)).expect("a cut");
    let empty = scratch.direct().name();
    fs::write(scratch.spool.path(empty), "").expect("a cut");
    let magic = scratch.queued(1).name();
    spoil(magic, 0, b'P');
    let state = scratch.queued(1).name();
    let offset = usize::try_from(scratch.open(state).recipients()[0].offset).expect("small");
    spoil(state, offset, b'x');
    let path = scratch.direct().name();
    spoil(path, "Return-Path: ".len(), b'?');
    for odd in ["README", "ABC,S=1", &format!("{},S=0{}", intact.id, intact.size), &format!("{}", intact.id)] {
        fs::write(scratch.root.join("new").join(odd), "x").expect("a file");
    }
    for name in scratch.entries() {
        match scratch.spool.entry(name) {
            Ok(_) => assert_eq!(name, intact),
            Err(Unusable::Corrupt(why)) => scratch.spool.set_aside(name, why),
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(scratch.counts(), [0, 1, 0, 9]);
    assert_eq!(scratch.entries(), [intact]);
}

#[test]
fn an_entry_of_a_later_version_keeps_files_that_may_belong_to_it() {
    let scratch = Scratch::new();
    let name = scratch.queued(1).name();
    let path = scratch.spool.path(name);
    let text = fs::read(&path).expect("an entry");
    let later = String::from_utf8(text.clone()).expect("ASCII").replacen("body=", "eody=", 1);
    fs::write(&path, &later).expect("an entry");
    assert!(matches!(scratch.spool.entry(name), Err(Unusable::Later(_))));
    let left = scratch.root.join("tmp").join(QueueId::generate().expect("an id").to_string());
    fs::write(&left, "x").expect("a file");
    age(&left, sweep::STALE_AFTER + Duration::from_secs(60));
    scratch.spool.sweep(&HashSet::new()).expect("no trouble");
    assert_eq!((fs::read(&path).expect("it is left alone"), scratch.counts()), (later.into_bytes(), [1, 1, 0, 0]));
}

#[test]
fn a_held_entry_of_a_later_version_keeps_its_derived_entry() {
    let scratch = Scratch::new();
    let mut entry = scratch.queued(1);
    entry.settle(0, State::Forwarded { success: None }, 1_000).expect("a record");
    let derived = entry.awaited().next().expect("one");
    let path = scratch.spool.path(entry.name());
    let later = fs::read_to_string(&path).expect("ASCII").replacen("body=", "eody=", 1);
    fs::remove_file(&path).expect("an entry");
    let held = EntryName { place: Place::Hold, ..entry.name() };
    fs::write(scratch.spool.path(held), later).expect("an entry");
    let left = scratch.root.join("tmp").join(derived.to_string());
    fs::write(&left, "x").expect("a file");
    age(&left, sweep::STALE_AFTER + Duration::from_secs(60));
    scratch.spool.sweep(&HashSet::new()).expect("no trouble");
    assert!(left.exists());
}

#[test]
fn a_file_that_was_handed_over_is_never_of_a_later_version() {
    for front in ["penfold/2 head=0000000128 ", "penfold/1 head=0000000128 ", "From x\n"] {
        let read = entry::head_length(front.as_bytes(), true);
        assert!(matches!(read, Err(Unusable::Corrupt("it was handed over to a user, and is not a direct entry"))));
    }
    assert!(entry::head_length(b"Return-Path: <>\n", true).is_ok());
    assert!(matches!(entry::head_length(b"penfold/2 head=0000000128 ", false), Err(Unusable::Later(_))));
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

/// The direct and the queued file that a crash in the middle of `make_queued` leaves.
fn duplicates(scratch: &Scratch) -> (EntryName, EntryName) {
    let mut entry = scratch.direct();
    let (direct, bytes) = (entry.name(), fs::read(scratch.spool.path(entry.name())).expect("an entry"));
    entry.make_queued().expect("a queued entry");
    fs::write(scratch.spool.path(direct), bytes).expect("its duplicate");
    (direct, entry.name())
}

#[test]
fn the_queued_duplicate_counts() {
    let scratch = Scratch::new();
    let (_, queued) = duplicates(&scratch);
    let other = scratch.queued(1).name();
    assert_eq!(scratch.entries(), [queued, other]);
    assert_eq!(scratch.counts(), [0, 1, 1, 0]);
}

#[test]
fn the_undamaged_duplicate_counts() {
    for damage_direct in [true, false] {
        let scratch = Scratch::new();
        let (direct, queued) = duplicates(&scratch);
        let (damaged, sound) = if damage_direct { (direct, queued) } else { (queued, direct) };
        fs::write(scratch.spool.path(damaged), "").expect("a cut");
        assert_eq!(scratch.entries(), [sound]);
        assert_eq!(content(&scratch.open(sound)), CONTENT);
        assert_eq!(scratch.list("bad"), [damaged.file_name()]);
    }
}

#[test]
fn a_direct_entry_with_a_duplicate_of_a_later_version_stays() {
    let scratch = Scratch::new();
    let (direct, queued) = duplicates(&scratch);
    let path = scratch.spool.path(queued);
    let later = fs::read_to_string(&path).expect("ASCII").replacen("body=", "eody=", 1);
    fs::write(&path, later).expect("an entry");
    for _ in 0..2 {
        assert_eq!(scratch.entries(), [queued]);
        for name in [direct, queued] {
            assert!(matches!(scratch.spool.entry(name), Err(Unusable::Later(_))), "{name:?}");
        }
    }
    assert_eq!(scratch.counts(), [0, 1, 1, 0]);
}

#[test]
fn an_entry_that_was_moved_meanwhile_is_not_its_own_duplicate() {
    let scratch = Scratch::new();
    let mut entry = scratch.queued(1);
    let before = entry.name();
    entry.move_to_cur().expect("a rename");
    assert_eq!(scratch.spool.resolve_duplicates(before, entry.name()), entry.name());
    let mut entry = scratch.direct();
    let before = entry.name();
    entry.make_queued().expect("a queued entry");
    assert_eq!(scratch.spool.resolve_duplicates(before, entry.name()), entry.name());
    assert_eq!(scratch.counts(), [0, 0, 2, 0]);
}

#[test]
fn one_process_can_have_the_lock() {
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
fn the_sweep_removes_old_files_that_belong_to_no_entry() {
    let scratch = Scratch::new();
    let old = sweep::STALE_AFTER + Duration::from_secs(60);
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
    make("tmp", "young", sweep::STALE_AFTER - Duration::from_secs(60));
    make("tmp", "of-tomorrow", Duration::ZERO);
    let mut entry = scratch.queued(1);
    entry.move_to_cur().expect("a rename");
    age(&scratch.spool.path(entry.name()), old);
    scratch.spool.sweep(&[ids[0]].into()).expect("no trouble");
    let mut left = vec![known.clone(), locked, "of-tomorrow".into(), "young".into()];
    left.sort();
    assert_eq!((scratch.list("tmp"), scratch.list("note")), (left, vec![known]));
    assert_eq!(scratch.entries(), [entry.name()]);
}

#[test]
fn the_name_of_an_entry_can_be_read_back() {
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

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::*;
use crate::state::State;

const NOW: u64 = 1_764_450_000;
const LIMITS: Limits = Limits { max_size: 64 << 10, max_age: Duration::from_secs(3600) };

/// A directory that is removed when the test ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("penfold-state-{}-{name}", std::process::id()));
        fs::create_dir(&path).expect("a scratch directory");
        Self(path)
    }

    /// A journal as another process would open it.
    fn journal(&self) -> Journal {
        State::at(&self.0).journal("test", LIMITS)
    }

    fn file(&self) -> PathBuf {
        self.0.join("test")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn record(time: u64, key: &str) -> Record {
    Record { time, key: key.to_owned(), value: "x".to_owned() }
}

/// The keys of the records that are new to a journal.
fn news(journal: &mut Journal, now: u64) -> Vec<String> {
    let mut keys = Vec::new();
    drop(journal.lock(now, |record| keys.push(record.key.clone())).expect("locked"));
    keys
}

fn append(journal: &mut Journal, now: u64, key: &str) {
    journal.lock(now, |_| {}).expect("locked").append(&record(now, key));
}

#[test]
fn each_process_reads_what_others_append_once_and_not_its_own() {
    let scratch = Scratch::new("shared");
    let (mut one, mut other) = (scratch.journal(), scratch.journal());
    append(&mut one, NOW, "a");
    append(&mut one, NOW, "b");
    assert_eq!(news(&mut other, NOW), ["a", "b"]);
    assert_eq!(news(&mut other, NOW), [""; 0]);
    append(&mut other, NOW, "c");
    assert_eq!(news(&mut one, NOW), ["c"]);
    assert_eq!(news(&mut scratch.journal(), NOW), ["a", "b", "c"], "a later process");
    let mode = fs::metadata(scratch.file()).expect("a file").mode();
    assert_eq!(mode & 0o7777, 0o600);
}

#[test]
fn records_of_another_time_do_not_count() {
    let scratch = Scratch::new("time");
    let mut one = scratch.journal();
    let mut locked = one.lock(NOW, |_| {}).expect("locked");
    for (time, key) in [(NOW - 3601, "old"), (NOW - 3600, "oldest"), (NOW + 60, "soon"), (NOW + 61, "later"), (0, "0")]
    {
        locked.append(&record(time, key));
    }
    drop(locked);
    assert_eq!(news(&mut scratch.journal(), NOW), ["oldest", "soon"]);
}

/// Valid records among damaged bytes are read, and a record that is appended after them can be
/// read, too.
#[test]
fn damaged_parts_of_files_are_skipped() {
    let scratch = Scratch::new("damage");
    let line = |key: &str| record(NOW, key).to_line().expect("short");
    let (a, b) = (line("a"), line("b"));
    let long = "x".repeat(3 * MAX_LINE);
    for (text, keys) in [
        (format!("{a}{b}"), &["a", "b"][..]),
        (format!("{a}{}", &b[..b.len() / 2]), &["a"]),
        (format!("{}\n{b}", &a[..a.len() / 2]), &["b"]),
        (format!("{a}\0\0\0\0\n\n\n{b}"), &["a", "b"]),
        (format!("{a}{long}\n{b}"), &["a", "b"]),
        (format!("{a}{long}"), &["a"]),
        (format!("\u{feff}{a}{b}\0"), &["b"]),
        (String::new(), &[]),
    ] {
        fs::write(scratch.file(), &text).expect("written");
        fs::write(scratch.0.join("test.old"), "\0\n\n\u{fc}").expect("written");
        let mut journal = scratch.journal();
        assert_eq!(news(&mut journal, NOW), keys, "{:.200}", text.escape_debug());
        append(&mut journal, NOW, "c");
        let with_c: Vec<&str> = keys.iter().copied().chain(["c"]).collect();
        assert_eq!(news(&mut scratch.journal(), NOW), with_c, "{:.200}", text.escape_debug());
    }
    fs::write(scratch.file(), [0xff; 100_000]).expect("written");
    append(&mut scratch.journal(), NOW, "d");
    assert_eq!(news(&mut scratch.journal(), NOW), ["d"], "a file larger than the limit is rotated");
}

#[test]
fn two_files_are_bounded_and_no_process_misses_a_record() {
    let scratch = Scratch::new("rotate");
    let (mut one, mut other, mut late) = (scratch.journal(), scratch.journal(), scratch.journal());
    append(&mut late, NOW, "first");
    let (mut read, mut wanted) = (Vec::new(), vec!["first".to_owned()]);
    for number in 0..20_000 {
        let key = format!("key{number}");
        append(&mut one, NOW, &key);
        wanted.push(key);
        if number % 700 == 0 {
            read.extend(news(&mut other, NOW));
        }
    }
    read.extend(news(&mut other, NOW));
    assert!(read == wanted, "{} of {} records", read.len(), wanted.len());
    for name in ["test", "test.old"] {
        let size = fs::metadata(scratch.0.join(name)).expect("a file").len();
        assert!(size <= LIMITS.max_size, "{name}: {size}");
    }
    let of_files = news(&mut scratch.journal(), NOW);
    assert!(of_files.len() > 1000 && wanted.ends_with(&of_files), "a new process reads both files");
    let after_a_while = news(&mut late, NOW);
    assert!(after_a_while.ends_with(&of_files), "a process that has missed rotations reads what is there");
    let later = NOW + 2 * 3600;
    append(&mut one, later, "later");
    let old = fs::read_to_string(scratch.0.join("test.old")).expect("text");
    assert!(old.contains("key19999") && fs::read_to_string(scratch.file()).expect("text").lines().count() == 1);
}

#[test]
fn files_that_are_removed_or_emptied_are_made_anew() {
    let scratch = Scratch::new("removed");
    let (mut one, mut other) = (scratch.journal(), scratch.journal());
    append(&mut one, NOW, "a");
    fs::remove_file(scratch.file()).expect("removed");
    append(&mut one, NOW, "b");
    assert_eq!(news(&mut other, NOW), ["b"]);
    fs::write(scratch.file(), "").expect("emptied");
    append(&mut one, NOW, "c");
    assert_eq!(news(&mut scratch.journal(), NOW), ["c"]);
}

#[test]
fn a_file_that_is_removed_does_not_make_the_old_one_count_twice() {
    let scratch = Scratch::new("removed-twice");
    let mut other = scratch.journal();
    append(&mut other, NOW, "a");
    fs::rename(scratch.file(), old(&scratch.file())).expect("rotated");
    append(&mut other, NOW, "b");
    drop(other);
    let mut one = scratch.journal();
    assert_eq!(news(&mut one, NOW), ["a", "b"]);
    for _ in 0..2 {
        fs::remove_file(scratch.file()).expect("removed");
        assert_eq!(news(&mut one, NOW), [""; 0]);
    }
}

/// The states that a process may find if others rotate the journal while it opens the files.
#[test]
fn a_process_that_begins_within_a_rotation_reads_each_record_once() {
    let scratch = Scratch::new("begins");
    append(&mut scratch.journal(), NOW, "a");
    fs::hard_link(scratch.file(), old(&scratch.file())).expect("a link");
    assert_eq!(news(&mut scratch.journal(), NOW), ["a"], "what was opened is NAME.old by now");
    fs::remove_file(scratch.file()).expect("removed");

    let line = |key: &str| record(NOW, key).to_line().expect("short");
    fs::write(scratch.file(), line("a")).expect("written");
    fs::write(old(&scratch.file()), line("b")).expect("written");
    let (mut journal, mut keys) = (scratch.journal(), Vec::new());
    let take = |record: &Record| {
        if record.key == "b" && keys.is_empty() {
            fs::remove_file(scratch.file()).expect("removed");
            fs::write(scratch.file(), line("c")).expect("written");
        }
        keys.push(record.key.clone());
    };
    assert!(journal.lock(NOW, take).is_some());
    assert_eq!(keys, ["b", "a", "c"], "others have rotated twice between two calls of open(2)");
}

#[test]
fn an_old_file_that_is_out_of_date_stays_until_a_rotation_replaces_it() {
    let scratch = Scratch::new("stale");
    fs::write(old(&scratch.file()), record(NOW, "a").to_line().expect("short")).expect("written");
    let file = File::options().append(true).open(old(&scratch.file())).expect("a file");
    file.set_modified(UNIX_EPOCH + Duration::from_secs(NOW - 3601)).expect("set");
    append(&mut scratch.journal(), NOW, "b");
    assert!(old(&scratch.file()).exists(), "another process may just have rotated");
    append(&mut scratch.journal(), NOW + 3601, "c");
    assert!(fs::read_to_string(old(&scratch.file())).expect("text").contains(" b "));
}

#[test]
fn only_regular_files_are_used() {
    let scratch = Scratch::new("other");
    let outside = scratch.0.join("outside");
    fs::write(&outside, "kept").expect("written");
    std::os::unix::fs::symlink(&outside, scratch.file()).expect("a link");
    assert!(scratch.journal().lock(NOW, |_| {}).is_none());
    fs::remove_file(scratch.file()).expect("removed");
    nix::unistd::mkfifo(&scratch.file(), nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
    assert!(scratch.journal().lock(NOW, |_| {}).is_none());
    fs::remove_file(scratch.file()).expect("removed");
    fs::create_dir(scratch.file()).expect("a directory");
    assert!(scratch.journal().lock(NOW, |_| {}).is_none());
    assert_eq!(fs::read_to_string(outside).expect("text"), "kept");
    let mut nowhere = State::at(Path::new("/nonexistent")).journal("test", LIMITS);
    assert!(nowhere.lock(NOW, |_| {}).is_none());
}

#[test]
fn a_process_does_not_wait_long_for_another() {
    let scratch = Scratch::new("wait");
    let (mut one, mut other) = (scratch.journal(), scratch.journal());
    let locked = one.lock(NOW, |_| {}).expect("locked");
    let started = Instant::now();
    assert!(other.lock(NOW, |_| {}).is_none());
    assert!((LOCK_TIMEOUT..Duration::from_secs(5)).contains(&started.elapsed()), "{:?}", started.elapsed());
    let started = Instant::now();
    for _ in 0..50 {
        assert!(other.lock(NOW, |_| {}).is_none());
    }
    assert!(started.elapsed() < LOCK_TIMEOUT * 25, "it waits once, not each time: {:?}", started.elapsed());
    drop(locked);
    assert!(other.lock(NOW, |_| {}).is_some(), "a lock that is free is taken at once");
}

#[test]
fn concurrent_processes_see_every_record_in_the_same_order() {
    let scratch = Scratch::new("concurrent");
    let late = AtomicUsize::new(0);
    let count = |journal: &mut Journal, name: usize| {
        let mut seen = Vec::new();
        for number in 0..200 {
            let mut locked = None;
            while locked.is_none() {
                locked = journal.lock(NOW, |record| seen.push(record.key.clone())).map(|mut locked| {
                    locked.append(&record(NOW, &format!("{name}.{number}")));
                });
                late.fetch_add(usize::from(locked.is_none()), Ordering::Relaxed);
            }
            seen.push(format!("{name}.{number}"));
        }
        while seen.len() < 1600 {
            drop(journal.lock(NOW, |record| seen.push(record.key.clone())));
        }
        seen
    };
    let all: Vec<Vec<String>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|name| {
                let mut journal = State::at(&scratch.0).journal("test", Limits { max_size: 1 << 20, ..LIMITS });
                scope.spawn(move || count(&mut journal, name))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    assert!(all.iter().all(|seen| *seen == all[0]));
}

#[test]
fn a_process_that_skips_the_records_appends_behind_them() {
    let scratch = Scratch::new("skip");
    let mut journal = scratch.journal();
    journal.skip();
    append(&mut journal, NOW, "a");
    let mut text = fs::read(scratch.file()).expect("a file");
    text.extend_from_slice(b"partial");
    fs::write(scratch.file(), text).expect("written");
    let mut other = scratch.journal();
    other.skip();
    let mut keys = news(&mut other, NOW);
    append(&mut other, NOW, "b");
    // The file is too old, so that it is replaced without being read.
    let mut later = scratch.journal();
    later.skip();
    append(&mut later, NOW + 3601, "c");
    State::at(&scratch.0).read("test", LIMITS, NOW + 3600, |record| keys.push(record.key.clone()));
    assert_eq!(keys, ["a", "b", "c"]);
    State::at(&scratch.0).read("missing", LIMITS, NOW, |_| panic!("a record"));
    assert!(!scratch.0.join("missing").exists());
}

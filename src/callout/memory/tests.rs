use std::ops::{Deref, DerefMut};
use std::sync::Mutex;

use super::files::NAME;
use super::*;
use crate::reply::Status;
use crate::state::State;

const START: u64 = 1_764_450_000;
const DAY: u64 = 24 * 3600;

struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("penfold-callouts-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).expect("a scratch directory");
        Self(path)
    }

    fn memory(&self) -> Kept {
        Kept { memory: Memory::default(), files: Files::kept(&State::at(&self.0)) }
    }
}

/// A memory whose changes are written to the journal at once.
struct Kept {
    memory: Memory,
    files: Files,
}

impl Kept {
    fn read(&mut self, now: u64) {
        self.with_files(|files, memory| files.read(memory, now));
    }

    fn note(&mut self, to: &Address, destination: &Arc<str>, answer: NextHost, now: u64) {
        self.memory.note(to, destination, answer, now);
        self.with_files(|files, memory| files.write(memory, now));
    }

    fn note_domain(&mut self, to: &Address, destination: &Arc<str>, answer: NextHost, now: u64) {
        self.memory.note_domain(to, destination, answer, now);
        self.with_files(|files, memory| files.write(memory, now));
    }

    fn forget(&mut self, name: &str, now: u64) -> usize {
        let count = self.memory.forget(name, now);
        self.with_files(|files, memory| files.write(memory, now));
        count
    }

    fn with_files(&mut self, act: impl FnOnce(&Files, &Mutex<Memory>)) {
        let memory = Mutex::new(std::mem::take(&mut self.memory));
        act(&self.files, &memory);
        self.memory = memory.into_inner().expect("a memory");
    }
}

impl AsMut<Memory> for Memory {
    fn as_mut(&mut self) -> &mut Memory {
        self
    }
}

impl Deref for Kept {
    type Target = Memory;

    fn deref(&self) -> &Memory {
        &self.memory
    }
}

impl DerefMut for Kept {
    fn deref_mut(&mut self) -> &mut Memory {
        &mut self.memory
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn address(text: &str) -> Address {
    Address::parse(text).expect(text)
}

fn host() -> Arc<str> {
    "mx:x.test".into()
}

/// What is remembered after some seconds: the answer, and whether it is fresh.
fn find(memory: &Memory, to: &str, is_store: bool, after: u64) -> Option<(NextHost, bool)> {
    memory.find(&address(to), &host(), is_store, START + after).map(|known| (known.answer, known.is_fresh))
}

#[test]
fn answers_age_by_their_kind() {
    use NextHost::{Accepted, Full, NoAnswer, Refused, Unknown};
    let scratch = Scratch::new("age");
    let refused = Refused(Status(5, 2, 1));
    for (answer, is_store, after, want) in [
        (Accepted, false, 6 * 3600 - 1, Some((Accepted, true))),
        (Accepted, false, 6 * 3600, Some((Accepted, false))),
        (Accepted, true, 599, Some((Accepted, true))),
        (Accepted, true, 600, Some((Accepted, false))),
        (Accepted, true, 31 * DAY - 1, Some((Accepted, false))),
        (Accepted, true, 31 * DAY, None),
        (Unknown, false, 599, Some((Unknown, true))),
        (Unknown, false, 600, None),
        (refused, false, 599, Some((refused, true))),
        (refused, false, 600, None),
        (Full(true), false, 59, Some((Full(true), true))),
        (Full(true), false, 60, None),
        (NoAnswer, false, 59, Some((NoAnswer, true))),
        (NoAnswer, false, 60, None),
    ] {
        let mut memory = scratch.memory();
        memory.note(&address("jon@x.test"), &host(), answer, START);
        assert_eq!(find(&memory, "jon@x.test", is_store, after), want, "{answer:?} {after}");
        // An answer is about this address at this destination. Only an acceptance is about all its spellings.
        let spelling = if answer == Accepted { Some((Accepted, true)) } else { None };
        assert_eq!(find(&memory, "Jon@x.test", is_store, 1), spelling);
        for other in ["jon+x@x.test", "jon@y.test"] {
            assert_eq!(find(&memory, other, is_store, 1), None, "{other}");
        }
        assert!(memory.find(&address("jon@x.test"), "mx:y.test", is_store, START + 1).is_none());
    }
}

/// The clock was wrong by a year when the host was asked, and was set back.
#[test]
fn an_answer_from_the_future_has_the_host_asked_again() {
    let scratch = Scratch::new("future");
    let to = address("jon@x.test");
    let year = 365 * DAY;
    for (ahead, is_fresh) in [(60, true), (61, false), (year, false)] {
        let mut memory = scratch.memory();
        memory.note(&to, &host(), NextHost::Accepted, START + ahead);
        memory.note(&address("bob@x.test"), &host(), NextHost::Unknown, START + ahead);
        memory.note_domain(&to, &host(), NextHost::Unknown, START + ahead);
        assert_eq!(find(&memory, "jon@x.test", false, 0), Some((NextHost::Accepted, is_fresh)), "{ahead}");
        let refused = is_fresh.then_some((NextHost::Unknown, true));
        assert_eq!(find(&memory, "bob@x.test", false, 0), refused, "{ahead}");
        assert_eq!(memory.knows_domain(&to, &host(), START), is_fresh, "{ahead}");
        // It still holds while the host is away.
        assert!(memory.was_accepted(&to, &host(), START), "{ahead}");
        assert_eq!(memory.rows(None, START).len(), if is_fresh { 3 } else { 2 }, "{ahead}");
    }
    // The next answer is recorded although the last record seems to be new.
    let mut memory = scratch.memory();
    memory.note(&to, &host(), NextHost::Accepted, START + year);
    memory.note(&to, &host(), NextHost::Accepted, START);
    let mut other = scratch.memory();
    other.read(START + 1);
    assert_eq!(find(&other, "jon@x.test", false, 1), Some((NextHost::Accepted, true)));
}

#[test]
fn a_refusal_withdraws_an_acceptance_and_doubt_does_not() {
    let scratch = Scratch::new("withdraw");
    let to = address("jon@x.test");
    for (answer, is_left) in [
        (NextHost::Unknown, false),
        (NextHost::Refused(Status(5, 2, 1)), false),
        (NextHost::Full(false), true),
        (NextHost::NoAnswer, true),
    ] {
        let mut memory = scratch.memory();
        memory.note(&to, &host(), NextHost::Accepted, START);
        memory.note(&to, &host(), answer, START + 7 * 3600);
        assert_eq!(find(&memory, "jon@x.test", false, 7 * 3600), Some((answer, true)));
        assert_eq!(memory.was_accepted(&to, &host(), START + 8 * 3600), is_left, "{answer:?}");
        // The same after a restart.
        let mut memory = scratch.memory();
        memory.read(START + 8 * 3600);
        assert_eq!(memory.was_accepted(&to, &host(), START + 8 * 3600), is_left, "{answer:?}");
        memory.forget("jon@x.test", START + 8 * 3600);
    }
}

#[test]
fn a_host_that_accepts_a_random_recipient_accepts_all() {
    let scratch = Scratch::new("all");
    let mut memory = scratch.memory();
    memory.note_domain(&address("jon@x.test"), &host(), NextHost::Accepted, START);
    let known = memory.find(&address("anybody@x.test"), &host(), false, START).expect("known");
    assert!(known.accepts_all && known.is_fresh && known.answer == NextHost::Accepted);
    assert_eq!(find(&memory, "anybody@y.test", false, 0), None);
    assert!(memory.knows_domain(&address("a@x.test"), &host(), START + DAY - 1));
    assert!(!memory.knows_domain(&address("a@x.test"), &host(), START + DAY));
    assert_eq!(find(&memory, "anybody@x.test", false, DAY), Some((NextHost::Accepted, false)));
    memory.note_domain(&address("jon@x.test"), &host(), NextHost::Unknown, START + DAY);
    assert_eq!(find(&memory, "anybody@x.test", false, DAY), None);
    assert!(!memory.was_accepted(&address("anybody@x.test"), &host(), START + DAY));
}

#[test]
fn accepted_recipients_survive_a_restart_and_refusals_are_not_written() {
    let scratch = Scratch::new("restart");
    let mut memory = scratch.memory();
    for (to, answer) in [("jon@x.test", NextHost::Accepted), ("j\u{f6}n@x.test", NextHost::Accepted)] {
        memory.note(&address(to), &host(), answer, START);
    }
    memory.note(&address("bob@x.test"), &host(), NextHost::Unknown, START);
    memory.note_domain(&address("jon@x.test"), &host(), NextHost::Unknown, START);
    let mut other = scratch.memory();
    other.read(START + 10);
    for to in ["jon@x.test", "j\u{f6}n@x.test"] {
        assert_eq!(find(&other, to, false, 10), Some((NextHost::Accepted, true)), "{to}");
    }
    assert!(other.knows_domain(&address("jon@x.test"), &host(), START + 10));
    assert_eq!(find(&other, "bob@x.test", false, 10), None);
    let text = || std::fs::read_to_string(scratch.0.join(NAME)).expect("a journal");
    assert!(!text().contains("bob"), "{}", text());
    // A recipient that is asked about all the time is not written all the time.
    let before = text().len();
    (0..100).for_each(|n| memory.note(&address("jon@x.test"), &host(), NextHost::Accepted, START + n * 600));
    assert_eq!(text().len(), before);
    memory.note(&address("jon@x.test"), &host(), NextHost::Accepted, START + DAY);
    assert!(text().len() > before);
    let mut later = scratch.memory();
    later.read(START + 31 * DAY + 1);
    assert_eq!(find(&later, "jon@x.test", false, 31 * DAY + 1), Some((NextHost::Accepted, false)));
    assert_eq!(find(&later, "j\u{f6}n@x.test", false, 31 * DAY + 1), None);
}

/// Another process has written about the same recipient meanwhile.
#[test]
fn what_is_not_written_yet_holds() {
    let scratch = Scratch::new("unwritten");
    let (to, mut other) = (address("jon@x.test"), scratch.memory());
    let mut memory = scratch.memory();
    memory.note(&to, &host(), NextHost::Accepted, START);
    // Withdrawn here, accepted there.
    memory.memory.note(&to, &host(), NextHost::Unknown, START + 1);
    other.note(&to, &host(), NextHost::Accepted, START + 1);
    memory.with_files(|files, memory| files.write(memory, START + 2));
    assert!(memory.unwritten.is_empty() && !memory.was_accepted(&to, &host(), START + 2));
    // So do the others see it.
    other.read(START + 2);
    assert!(!other.was_accepted(&to, &host(), START + 2));
}

#[test]
fn records_that_wait_for_the_journal_are_limited() {
    let mut memory = Memory::default();
    for number in 0..=MAX_UNWRITTEN {
        memory.note(&address(&format!("u{number}@x.test")), &host(), NextHost::Accepted, START);
    }
    assert_eq!(memory.unwritten.len(), MAX_UNWRITTEN);
    // The one that was left out is recorded with its next answer.
    memory.note(&address("u0@x.test"), &host(), NextHost::Accepted, START + 1);
    assert!(memory.unwritten.back().is_some_and(|record| record.key == "u0@x.test"));
}

#[test]
fn spellings_of_a_local_part_take_one_place_and_refuse_each_other_never() {
    let scratch = Scratch::new("spellings");
    let mut memory = scratch.memory();
    let jon = ["jon@x.test", "JON@x.test", "jOn@x.test", "Jon@X.test"];
    jon.iter().for_each(|to| memory.note(&address(to), &host(), NextHost::Accepted, START));
    memory.note(&address("J\u{d6}N@x.test"), &host(), NextHost::Accepted, START);
    assert_eq!(memory.accepted.len(), 2);
    assert_eq!(find(&memory, "jo\u{308}n@x.test", false, 1), Some((NextHost::Accepted, true)));
    // The same after a restart, and with records of any spelling.
    let mut other = scratch.memory();
    other.read(START);
    for key in ["JON@x.test", "ANN@x.test"] {
        let (key, value) = (key.to_owned(), "accepted mx:x.test".to_owned());
        take(&mut other.accepted, &Record { time: START, key, value });
    }
    assert_eq!(other.accepted.len(), 3);
    assert!(other.was_accepted(&address("jOn@x.test"), &host(), START));
    assert!(other.was_accepted(&address("ann@x.test"), &host(), START));
    // A host for which the case matters.
    memory.note(&address("JON@x.test"), &host(), NextHost::Unknown, START);
    assert_eq!(find(&memory, "JON@x.test", false, 1), Some((NextHost::Unknown, true)));
    assert_eq!(find(&memory, "jon@x.test", false, 1), None);
    // Commands mean all spellings.
    assert_eq!(memory.rows(Some("jon@x.test"), START).len(), 1);
    assert_eq!(memory.forget("Jon@x.test", START), 1);
    assert!(memory.refused.is_empty());
}

#[test]
fn answers_are_forgotten_on_demand() {
    let scratch = Scratch::new("forget");
    let mut memory = scratch.memory();
    let all = ["jon@x.test", "ann@x.test", "jon@y.test"];
    all.iter().for_each(|to| memory.note(&address(to), &host(), NextHost::Accepted, START));
    memory.note(&address("bob@x.test"), &host(), NextHost::Unknown, START);
    memory.note_domain(&address("jon@x.test"), &host(), NextHost::Accepted, START);
    assert_eq!(memory.rows(None, START).len(), 5);
    let names = |name| memory.rows(Some(name), START).into_iter().map(|told| told.name.to_string()).collect::<Vec<_>>();
    assert_eq!((names("jon@y.test"), names("@x.test").len()), (vec!["jon@y.test".to_owned()], 4));
    assert_eq!([memory.forget("jon@y.test", START), memory.forget("jon@y.test", START)], [1, 0]);
    assert_eq!(memory.forget("@x.test", START), 4);
    assert!(memory.rows(None, START).is_empty());
    let mut other = scratch.memory();
    other.read(START);
    assert!(other.rows(None, START).is_empty());
}

#[test]
fn a_flood_is_bounded_and_refusals_displace_no_acceptance() {
    let mut rows = HashMap::new();
    let row = |time| Row { destination: host(), answer: NextHost::Unknown, time, recorded: 0 };
    for number in 0..250_000 {
        let key = format!("{number}@x.test");
        make_room(&mut rows, &key, MAX_REFUSED, |_| true);
        rows.insert(key.into(), row(number));
    }
    assert!(rows.len() <= MAX_REFUSED && rows.contains_key("249999@x.test") && !rows.contains_key("0@x.test"));
    // If all have the same time, some are dropped.
    rows.values_mut().for_each(|row| row.time = 1);
    while rows.len() < MAX_REFUSED {
        rows.insert(format!("more-{}", rows.len()).into(), row(1));
    }
    make_room(&mut rows, "new", MAX_REFUSED, |_| true);
    assert!((MAX_REFUSED / 2..MAX_REFUSED).contains(&rows.len()), "{}", rows.len());
    // Those that count no longer are dropped first.
    make_room(&mut rows, "new", 1, |_| false);
    assert!(rows.is_empty());
}

/// Any text in the journal: no panic, and no answer that nobody has given.
#[test]
fn a_journal_may_contain_anything() {
    let scratch = Scratch::new("anything");
    let mut seed = 0x9e37_79b9_u64;
    let mut random = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below as u64) as usize
    };
    let keys = ["jon@x.test", "@x.test", "", "@", "jon", "a@b@c", "\u{202e}", "jon@", "\0@x.test", "@x.test@y.test"];
    let values = [
        "accepted mx:x.test",
        "unknown mx:x.test",
        "",
        " ",
        "accepted",
        "accepted ",
        "refused mx:x.test",
        "ACCEPTED x",
    ];
    for round in 0..200 {
        let mut accepted = HashMap::new();
        for _ in 0..20 {
            let mut text = values[random(values.len())].to_owned();
            if random(3) == 0 && !text.is_empty() {
                text.truncate(random(text.len()));
            }
            let (time, key) = (START + random(100) as u64, keys[random(keys.len())].to_owned());
            take(&mut accepted, &Record { time, key, value: text });
        }
        assert!(accepted.keys().all(|key| key.starts_with('@') || Address::parse(key).is_ok()), "{round}");
        let mut memory = scratch.memory();
        memory.accepted = accepted;
        for to in ["jon@x.test", "bob@x.test"] {
            memory.find(&address(to), &host(), false, START);
            memory.was_accepted(&address(to), &host(), u64::MAX);
        }
        memory.rows(None, u64::MAX);
    }
    // Bytes that are no records at all, and a directory in place of the file.
    for bytes in [&[0xff; 5000][..], b"\n\n\n", b"00000000 1 a accepted%20b\n"] {
        std::fs::write(scratch.0.join(NAME), bytes).expect("a file");
        let mut memory = scratch.memory();
        memory.read(START);
        memory.note(&address("jon@x.test"), &host(), NextHost::Accepted, START);
        assert_eq!(find(&memory, "jon@x.test", false, 1), Some((NextHost::Accepted, true)));
    }
    std::fs::remove_file(scratch.0.join(NAME)).expect("a file");
    std::fs::create_dir(scratch.0.join(NAME)).expect("a directory");
    let mut memory = scratch.memory();
    memory.read(START);
    memory.note(&address("jon@x.test"), &host(), NextHost::Accepted, START);
    assert_eq!(find(&memory, "jon@x.test", false, 1), Some((NextHost::Accepted, true)));
}

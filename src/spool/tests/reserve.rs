//! The reserve is kept free for every kind of entry.

use nix::sys::statvfs::statvfs;

use super::*;
use crate::dialogue::Recorder;
use crate::spool::reserve::Purpose;

#[test]
fn space_is_reserved_only_once() {
    // The margin in bytes for other tests, which use the same file system at the same time.
    const MARGIN: u64 = 64 << 20;
    const RESERVE: u64 = 16 << 20;
    let scratch = Scratch::new();
    let stat = statvfs(&scratch.root).expect("a file system");
    let free = stat.blocks_available() * stat.fragment_size();
    if free < 8 * MARGIN {
        common::skipped(format_args!("only {free} octets are free"));
        return;
    }
    let spool = &scratch.spool;
    let first = spool.reserve(free - RESERVE - 2 * MARGIN, Purpose::Message).expect("room");
    let full = spool.reserve(4 * MARGIN, Purpose::Message).expect_err("no room");
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    spool.reserve(4 * MARGIN, Purpose::Report).expect_err("no room for a report either");
    assert!(!spool.has_room(4 * MARGIN).expect("an answer") && spool.has_room(0).expect("an answer"));
    drop(first);
    // A failed reservation reserves nothing.
    assert!(spool.has_room(4 * MARGIN).expect("an answer"));
    drop(spool.reserve(4 * MARGIN, Purpose::Message).expect("room"));
}

#[test]
fn an_entry_without_space_for_a_derived_one_is_unchanged() {
    let scratch = Scratch::new();
    let mut entry = scratch.queued(2);
    scratch.spool.reserved.bytes.fetch_add(u64::MAX / 2, Ordering::Relaxed);
    let derivation = Derivation { steps: vec![Step::list("x")], shares: Vec::new(), folder: None };
    let full = entry.forward((0, None), (&envelope(1), &derivation), "Delivered-To: x\n", 1_000).expect_err("no room");
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    entry
        .create_report(&[(1, ReportedEvent::Failure)], &envelope(1), |_| b"report\n".to_vec(), 1_000)
        .expect_err("no room");
    assert_eq!((scratch.states(entry.name()), scratch.counts()), (vec![State::Todo; 2], [0, 1, 0, 0]));
    scratch.spool.reserved.bytes.store(0, Ordering::Relaxed);
    entry.forward((0, None), (&envelope(1), &derivation), "Delivered-To: x\n", 1_000).expect("room");
    assert_eq!(scratch.states(entry.name()), [State::Done, State::Todo]);
}

#[test]
fn notes_and_dialogues_are_not_written_into_the_reserve() {
    let scratch = Scratch::new();
    let (spool, id) = (&scratch.spool, QueueId::generate().expect("an id"));
    let recipient: Address = "jon@x.test".parse().expect("an address");
    let recorder = Recorder::default();
    recorder.host("mx.test[192.0.2.1]:25");
    let dialogue = recorder.take("mx:x.test".to_owned(), 1);
    let keep = || {
        spool.add_note(id, &NoteLine { time: 1, recipient: &recipient, host: "", text: "450 no" });
        spool.add_hold_note(id, 1, "by jon");
        spool.add_dialogue(id, &dialogue);
        scratch.list("note").len()
    };
    spool.reserved.bytes.fetch_add(u64::MAX / 2, Ordering::Relaxed);
    assert_eq!(keep(), 0);
    spool.reserved.bytes.store(0, Ordering::Relaxed);
    assert_eq!((keep(), spool.dialogues(id).len()), (2, 1));
}

//! Deliveries: by a rename into a mailbox, or recipient by recipient until all are settled.

use super::*;
use crate::dialogue::Recorder;

#[test]
fn a_direct_entry_becomes_a_file_of_the_mailbox() {
    let scratch = Scratch::new();
    let (first, second) = (scratch.direct(), scratch.direct());
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
fn a_direct_entry_is_made_queued() {
    let scratch = Scratch::new();
    let mut entry = scratch.direct();
    let old = entry.name();
    entry.settle(0, State::Done, 1).expect_err("a direct entry has no records");
    entry.make_queued().expect("a queued entry");
    assert_eq!((entry.is_direct(), entry.id(), entry.name().place), (false, old.id, Place::Cur));
    assert_eq!((content(&entry), entry.sender()), (CONTENT.to_vec(), Some(&address("jon@frogbog"))));
    let name = entry.name();
    entry.make_queued().expect("again");
    assert_eq!((entry.name(), scratch.counts()), (name, [0, 0, 1, 0]));
    assert!(matches!(scratch.spool.entry(old), Err(Unusable::Gone)));
}

#[test]
fn a_direct_entry_that_is_delivered_meanwhile_is_not_made_queued() {
    let scratch = Scratch::new();
    let mut entry = scratch.direct();
    scratch.spool.move_into(entry.name(), &scratch.root.join("mail")).expect("a rename");
    assert_eq!(entry.make_queued().expect_err("it is delivered").kind(), io::ErrorKind::NotFound);
    assert_eq!((entry.is_direct(), scratch.counts()), (true, [0; 4]));
    // The name of a file that has no other name was removed, and not moved.
    let mut entry = scratch.direct();
    fs::remove_file(scratch.spool.path(entry.name())).expect("a file");
    entry.make_queued().expect("a queued entry");
    assert_eq!((content(&entry), scratch.counts()), (CONTENT.to_vec(), [0, 0, 1, 0]));
}

#[test]
fn a_direct_entry_that_cannot_be_made_queued_stays_as_it_is() {
    for missing in ["tmp", "cur"] {
        let scratch = Scratch::new();
        let mut entry = scratch.direct();
        let (directory, away) = (scratch.root.join(missing), scratch.root.join("away"));
        fs::rename(&directory, &away).expect("a rename");
        entry.make_queued().expect_err("a directory is missing");
        assert!(entry.is_direct() && scratch.open(entry.name()).is_direct());
        fs::rename(&away, &directory).expect("a rename");
        entry.make_queued().expect("a queued entry");
        assert_eq!((content(&entry), scratch.counts()), (CONTENT.to_vec(), [0, 0, 1, 0]));
    }
}

#[test]
fn the_record_of_one_recipient_does_not_change_another() {
    let scratch = Scratch::new();
    let (mut first, mut second) = (scratch.queued(4), scratch.open(scratch.entries()[0]));
    first.prepare(0, 5, u64::MAX, 100).expect("a record");
    second.settle(1, State::Done, 101).expect("a record");
    first.defer(2, 102).expect("a record");
    // A recipient in state `Prepared` keeps that state: only the next attempt can find out whether
    // the copy was delivered.
    first.defer(0, 103).expect("nothing to do");
    assert!(first.settle(4, State::Done, 1).is_err() && first.defer(4, 1).is_err(), "there is no such recipient");
    let records: Vec<_> = scratch
        .open(first.name())
        .recipients()
        .iter()
        .map(|entry| (entry.record.state, entry.record.last, entry.record.warned))
        .collect();
    let prepared = State::Prepared { born: 5, inode: u64::MAX };
    assert_eq!(records, [(prepared, 100, 0), (State::Done, 101, 0), (State::Todo, 102, 0), (State::Todo, 0, 0)]);
}

#[test]
fn an_entry_is_found_in_both_directories_and_moved_once() {
    let scratch = Scratch::new();
    let (mut first, mut second) = (scratch.queued(2), scratch.open(scratch.entries()[0]));
    let before = first.name();
    first.move_to_cur().expect("a rename");
    second.move_to_cur().expect("another worker was faster");
    first.move_to_cur().expect("nothing to do");
    assert_eq!((first.name(), first.name().place), (second.name(), Place::Cur));
    assert_eq!(scratch.open(before).name(), first.name());
    assert_eq!(scratch.counts(), [0, 0, 1, 0]);
}

#[test]
fn an_entry_with_an_unsettled_recipient_is_not_removed() {
    let scratch = Scratch::new();
    let mut entry = scratch.queued(2);
    entry.move_to_cur().expect("a rename");
    scratch.spool.add_note(entry.id(), &line(&jon(), "450 4.2.0 busy"));
    entry.settle(0, State::Done, 1).expect("a record");
    for open in [State::Todo, State::Prepared { born: 1, inode: 1 }, State::Unreported(Success::Relayed)] {
        entry.settle(1, open, 1).expect("a record");
        let refused = scratch.spool.finish(entry.name()).expect_err("one is open");
        assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
    }
    entry.settle(1, State::Failed, 1).expect("a record");
    scratch.spool.finish(entry.name()).expect("all are settled");
    assert_eq!((scratch.counts(), scratch.list("note").len()), ([0; 4], 0));
    scratch.spool.finish(entry.name()).expect("it is gone already");
    let direct = scratch.direct();
    scratch.spool.finish(direct.name()).expect_err("a direct one is open as long as it is here");
}

#[test]
fn a_note_stays_short_and_its_loss_does_no_harm() {
    let scratch = Scratch::new();
    let id = QueueId::generate().expect("an id");
    assert_eq!(scratch.spool.read_note(id).last_result(&jon()), None);
    for n in 0..5_000 {
        scratch.spool.add_note(id, &line(&jon(), &format!("result {n}")));
    }
    assert_eq!(scratch.spool.read_note(id).last_result(&jon()).as_deref(), Some("result 4999"));
    let size = fs::metadata(scratch.root.join("note").join(id.to_string())).expect("a file").len();
    assert!(size <= note::MAX_NOTE, "{size} bytes");
    fs::remove_dir_all(scratch.root.join("note")).expect("a directory");
    scratch.spool.add_note(id, &line(&jon(), "lost"));
}

/// Attempts for the recipients of one message may end at the same time.
#[test]
fn notes_and_dialogues_of_attempts_at_the_same_time_are_all_kept() {
    let scratch = Scratch::new();
    let recipients = [1, 2, 3, 4].map(|n| format!("r{n}@x.test").parse::<Address>().expect("an address"));
    for round in 0..100 {
        let id = QueueId::generate().expect("an id");
        let begin = std::sync::Barrier::new(recipients.len());
        std::thread::scope(|scope| {
            for recipient in &recipients {
                scope.spawn(|| {
                    begin.wait();
                    scratch.spool.add_note(id, &line(recipient, "450 4.2.0 busy"));
                    let recorder = Recorder::default();
                    recorder.host("mx.test[192.0.2.1]:25");
                    scratch.spool.add_dialogue(id, &recorder.take(recipient.to_string(), 1));
                });
            }
        });
        let note = scratch.spool.read_note(id);
        let is_kept = |recipient| note.last_result(recipient).is_some();
        assert!(recipients.iter().all(is_kept), "{round}: {note:?}");
        assert_eq!(scratch.spool.dialogues(id).len(), recipients.len(), "{round}");
    }
}

fn jon() -> Address {
    "jon@x.test".parse().expect("an address")
}

/// A line of a note.
fn line<'a>(recipient: &'a Address, text: &'a str) -> NoteLine<'a> {
    NoteLine { time: 1, recipient, host: "", text }
}

#[test]
fn a_recipient_of_a_long_derived_entry_is_read_without_the_others() {
    let scratch = Scratch::new();
    let mut entry = scratch.queued(1);
    // The first line alone is longer than the part of a file that is read first.
    let steps: Vec<Step> = (0..10).map(|n| Step::forward(&"j".repeat(300), &format!(".forward+{n}"))).collect();
    let derivation = Derivation { steps: steps.clone(), shares: vec![5; 500], folder: None };
    let derived =
        entry.forward((0, None), (&envelope(500), &derivation), "Delivered-To: x\n", 1_000).expect("an entry");
    let complete = scratch.open(derived);
    let reference = complete.recipients()[400].reference();
    let sparse = scratch.spool.entry_for(derived, &[reference]).expect("an entry");
    assert_eq!((sparse.recipients().len(), sparse.recipient(400)), (1, complete.recipient(400)));
    assert_eq!((sparse.steps(), sparse.recipient(400).expect("there").share), (&*steps, 5));
}

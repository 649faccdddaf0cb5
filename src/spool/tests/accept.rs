//! A message comes: what a commit promises, and that anything less leaves nothing.

use super::*;

#[test]
fn what_was_committed_can_be_read_back() {
    for nameless in [true, false] {
        let scratch = Scratch::new();
        scratch.spool.nameless.store(nameless, Ordering::Relaxed);
        // In one piece, around the size of the buffer, and in many pieces.
        for size in [0, 1, draft::BUFFER - 1, draft::BUFFER, draft::BUFFER + 1, 3 * draft::BUFFER + 7] {
            for direct in [true, false] {
                let text: Vec<u8> = (0..size).map(|n| b'a' + (n % 26) as u8).collect();
                let mut draft = scratch.spool.begin(&envelope(1), direct).expect("a draft");
                text.chunks(1 + size / 3).for_each(|piece| draft.write_all(piece).expect("room"));
                let (id, name) = (draft.id(), draft.commit().expect("a commit"));
                let entry = scratch.open(name);
                assert_eq!((entry.id(), entry.is_direct(), entry.name().place), (id, direct, Place::New));
                assert_eq!((content(&entry), entry.content_size()), (text.clone(), size as u64));
                assert_eq!(content(&entry), text, "a second reading");
                assert_eq!(entry.sender(), Some(&address("jon@frogbog")));
                assert_eq!(
                    entry.recipients().iter().map(|s| &s.recipient).collect::<Vec<_>>(),
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
        for size in [10, 2 * draft::BUFFER] {
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
        draft.write_all(&vec![b'x'; 2 * draft::BUFFER]).expect("room");
        fs::rename(scratch.root.join("new"), scratch.root.join("away")).expect("a rename");
        draft.commit().expect_err("there is no new/");
        assert!(scratch.list("tmp").is_empty() && scratch.list("away").is_empty());
    }
}

#[test]
fn many_recipients() {
    let scratch = Scratch::new();
    let mut entry = scratch.queued(10_000);
    entry.settle(9_999, State::Done, 7).expect("a record");
    entry.settle(0, State::Failed, 8).expect("a record");
    let entry = scratch.open(entry.name());
    assert_eq!((entry.recipients().len(), content(&entry)), (10_000, CONTENT.to_vec()));
    assert_eq!(entry.recipients()[9_999].recipient.address, address("r9999@razorback"));
    let settled: Vec<_> = entry.recipients().iter().filter(|s| !s.record.state.is_open()).map(|s| s.number).collect();
    assert_eq!(settled, [0, 9_999]);
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

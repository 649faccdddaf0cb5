//! Drafts: a committed message can be read, and a draft that is not committed leaves nothing.

use super::*;
use crate::envelope::{Action, Body, Notify, Ret};

#[test]
fn a_committed_message_can_be_read_back() {
    for has_tmpfile in [true, false] {
        let scratch = Scratch::new();
        scratch.spool.has_tmpfile.store(has_tmpfile, Ordering::Relaxed);
        // The sizes are around that of the buffer, and each content is written in several pieces.
        for size in [0, 1, draft::BUFFER - 1, draft::BUFFER, draft::BUFFER + 1, 3 * draft::BUFFER + 7] {
            for direct in [true, false] {
                let text: Vec<u8> = (0..size).map(|n| b'a' + (n % 26) as u8).collect();
                let envelope = envelope(1);
                let entry = NewEntry { is_direct: direct, ..NewEntry::queued(&envelope, "") };
                let mut draft = scratch.spool.begin().expect("a draft");
                draft.expect(&entry).expect("a short head");
                text.chunks(1 + size / 3).for_each(|piece| draft.write_all(piece).expect("room"));
                let (id, name) = (draft.id(), draft.commit(&entry).expect("a commit"));
                let entry = scratch.open(name);
                assert_eq!((entry.id(), entry.is_direct(), entry.name().place), (id, direct, Place::New));
                assert_eq!((content(&entry), entry.content_size()), (text.clone(), size as u64));
                assert_eq!(content(&entry), text, "a second reading");
                assert_eq!(entry.sender(), Some(&address("jon@frogbog")));
                assert_eq!(
                    entry.recipients().iter().map(|entry| &entry.recipient).collect::<Vec<_>>(),
                    [&envelope.recipients[0]]
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
    for has_tmpfile in [true, false] {
        let scratch = Scratch::new();
        scratch.spool.has_tmpfile.store(has_tmpfile, Ordering::Relaxed);
        for size in [10, 2 * draft::BUFFER] {
            let mut draft = scratch.spool.begin().expect("a draft");
            draft.write_all(&vec![b'x'; size]).expect("room");
            drop(draft);
        }
        assert_eq!(scratch.counts(), [0; 4]);
    }
}

#[test]
fn a_commit_that_fails_leaves_nothing() {
    for has_tmpfile in [true, false] {
        let scratch = Scratch::new();
        scratch.spool.has_tmpfile.store(has_tmpfile, Ordering::Relaxed);
        let mut draft = scratch.spool.begin().expect("a draft");
        draft.write_all(&vec![b'x'; 2 * draft::BUFFER]).expect("room");
        fs::rename(scratch.root.join("new"), scratch.root.join("away")).expect("a rename");
        draft.commit(&NewEntry::direct(&envelope(1), "")).expect_err("there is no new/");
        assert!(scratch.list("tmp").is_empty() && scratch.list("away").is_empty());
    }
}

/// Content of `size` bytes, which consists of lines of ASCII.
fn text(size: usize) -> Vec<u8> {
    (0..size).map(|n| if n % 70 == 69 { b'\n' } else { b'a' + (n % 26) as u8 }).collect()
}

#[test]
fn the_committed_front_can_differ_from_the_expected_one() {
    // The fronts that the draft expects: none, one that is shorter than the front at the commit,
    // longer ones, and the right one.
    let expected = [None, Some((1, "")), Some((5, "X: y\n")), Some((2, "A: b\n")), Some((3, "X: longer\n"))];
    for has_tmpfile in [true, false] {
        let scratch = Scratch::new();
        scratch.spool.has_tmpfile.store(has_tmpfile, Ordering::Relaxed);
        for (size, expected) in
            [100, draft::BUFFER, 9 * draft::BUFFER + 5].into_iter().flat_map(|size| expected.map(|e| (size, e)))
        {
            for (count, is_direct, prepend) in [(2, false, "A: b\n"), (1, true, "A: b\n C\n"), (1, true, "")] {
                let content_text = text(size);
                let mut draft = scratch.spool.begin().expect("a draft");
                if let Some((count, prepend)) = expected {
                    let envelope = envelope(count);
                    let is_direct = is_direct && count == 1;
                    draft
                        .expect(&NewEntry { is_direct, ..NewEntry::queued(&envelope, prepend) })
                        .expect("a short head");
                }
                content_text.chunks(20_000).for_each(|piece| draft.write_all(piece).expect("room"));
                let envelope = envelope(count);
                let entry = NewEntry { is_direct, ..NewEntry::queued(&envelope, prepend) };
                let entry = scratch.open(draft.commit(&entry).expect("a commit"));
                assert_eq!((entry.is_direct(), entry.recipients().len()), (is_direct, count));
                assert!(
                    content(&entry) == [prepend.as_bytes(), &content_text].concat(),
                    "{size} {expected:?} {prepend}"
                );
                let wire = content(&entry).iter().map(|b| if *b == b'\n' { 2 } else { 1 }).sum::<u64>();
                let wire = wire + if content_text.ends_with(b"\n") { 0 } else { 2 };
                let measure = (!is_direct).then_some(Measure { size: wire, is_ascii: true, has_long_lines: false });
                assert_eq!(entry.content().measure, measure);
                let by_reading = entry.content().measured(None).measure().expect("a readable content");
                assert_eq!(by_reading, Measure { size: wire, is_ascii: true, has_long_lines: false });
            }
        }
        assert_eq!(scratch.list("tmp").len(), 0);
    }
}

#[test]
fn a_message_can_be_committed_into_hold() {
    for (has_tmpfile, is_direct) in [(true, true), (true, false), (false, true)] {
        let scratch = Scratch::new();
        scratch.spool.has_tmpfile.store(has_tmpfile, Ordering::Relaxed);
        let mut draft = scratch.spool.begin().expect("a draft");
        draft.write_all(CONTENT).expect("room");
        let envelope = envelope(1);
        let entry = NewEntry { is_direct, hold: Some("dmarc x.test"), ..NewEntry::queued(&envelope, "") };
        let name = draft.commit(&entry).expect("a commit");
        assert_eq!((name.place, scratch.counts(), scratch.list("hold").len()), (Place::Hold, [0; 4], 1));
        let entry = scratch.open(name);
        assert_eq!((content(&entry), entry.hold_reason()), (CONTENT.to_vec(), Some("dmarc x.test")));
        assert!(!entry.is_direct());
    }
}

#[test]
fn a_message_for_a_folder_is_never_a_direct_entry() {
    let (scratch, envelope) = (Scratch::new(), envelope(1));
    let folder = Folder::parse(".Junk");
    let entry = NewEntry { folder: folder.as_ref(), ..NewEntry::direct(&envelope, "") };
    let name = scratch.spool.begin().and_then(|draft| draft.commit(&entry)).expect("a commit");
    let entry = scratch.open(name);
    assert_eq!((name.place, entry.is_direct(), entry.folder()), (Place::New, false, folder.as_ref()));
}

/// If an entry is asked to be direct, it still says everything about its envelope.
#[test]
fn only_an_envelope_without_source_and_options_is_a_direct_entry() {
    let scratch = Scratch::new();
    let is_direct = |change: &dyn Fn(&mut Envelope)| {
        let mut envelope = envelope(1);
        change(&mut envelope);
        let entry = scratch.open(scratch.commit(&envelope, true, CONTENT));
        if entry.is_direct() {
            // A direct head has no ORCPT, so this one can only repeat the address.
            envelope.recipients[0].options.orcpt = None;
        }
        assert_eq!(
            (entry.origin(), entry.recipients()[0].recipient.clone()),
            (envelope.origin, envelope.recipients[0].clone())
        );
        entry.is_direct()
    };
    assert!(is_direct(&|_| ()) && is_direct(&|envelope| envelope.sender = None));
    assert!(is_direct(&|envelope| envelope.options.body = Body::EightBit));
    for origin in [Origin::Own, Origin::DmarcReport, Origin::TlsReport, Origin::Report, Origin::Postmaster] {
        assert!(!is_direct(&|envelope| envelope.origin = origin), "{origin:?}");
    }
    // Postfix sends ORCPT with each recipient, and usually repeats the address.
    let with_orcpt = |orcpt: &str| is_direct(&|envelope| envelope.recipients[0].options.orcpt = Some(orcpt.into()));
    assert!(with_orcpt("rfc822;r0@razorback") && with_orcpt("RFC822;r+30@razorback"));
    for orcpt in ["rfc822;R0@razorback", "utf-8;r0@razorback", "rfc822;r0@razorback.test", "r0@razorback"] {
        assert!(!with_orcpt(orcpt), "{orcpt}");
    }
    let options: [&dyn Fn(&mut Envelope); 8] = [
        &|envelope| envelope.options.body = Body::Binary,
        &|envelope| envelope.options.utf8 = true,
        &|envelope| envelope.options.ret = Some(Ret::Full),
        &|envelope| envelope.options.release = Some(1_800_000_000),
        &|envelope| envelope.options.priority = 1,
        &|envelope| envelope.recipients[0].original = Some(address("postmaster@razorback")),
        &|envelope| envelope.recipients[0].action = Action::Direct,
        &|envelope| envelope.recipients[0].options.notify = Some(Notify { success: true, failure: true, delay: false }),
    ];
    for (number, change) in options.iter().enumerate() {
        assert!(!is_direct(change), "{number}");
    }
}

#[test]
fn an_entry_can_have_ten_thousand_recipients() {
    let scratch = Scratch::new();
    let mut entry = scratch.queued(10_000);
    entry.settle(9_999, State::Done, 7).expect("a record");
    entry.settle(0, State::Failed, 8).expect("a record");
    let entry = scratch.open(entry.name());
    assert_eq!((entry.recipients().len(), content(&entry)), (10_000, CONTENT.to_vec()));
    assert_eq!(entry.recipients()[9_999].recipient.address, address("r9999@razorback"));
    let settled: Vec<_> =
        entry.recipients().iter().filter(|entry| !entry.record.state.is_open()).map(|entry| entry.number).collect();
    assert_eq!(settled, [0, 9_999]);
}

#[test]
fn a_temporary_file_that_cannot_be_written_is_removed() {
    let scratch = Scratch::new();
    let id = QueueId::generate().expect("an id");
    scratch
        .spool
        .write_temporary(id, "head", |_| Err(io::ErrorKind::StorageFull.into()))
        .expect_err("the disk is full");
    assert!(scratch.list("tmp").is_empty());
}

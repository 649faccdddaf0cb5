//! Reports: each is made once, wherever a crash happens.

use super::*;

const FAILURES: [(usize, ReportedEvent); 2] = [(1, ReportedEvent::Failure), (2, ReportedEvent::Failure)];

/// Makes a report about the recipients 1 and 2 of three, at 1000 seconds.
fn make_report(entry: &mut Entry) -> EntryName {
    make_report_of(entry, &FAILURES)
}

fn make_report_of(entry: &mut Entry, events: &[(usize, ReportedEvent)]) -> EntryName {
    let report = Envelope { sender: None, origin: Origin::Report, ..envelope(1) };
    entry.create_report(events, &report, |id| format!("report {id}\n").into_bytes(), 1_000).expect("a report")
}

#[test]
fn a_report_is_an_entry_of_its_own() {
    let scratch = Scratch::new();
    let mut entry = scratch.queued(3);
    let derived = scratch.open(make_report(&mut entry));
    assert_eq!(scratch.states(entry.name()), [State::Todo, State::Failed, State::Failed]);
    assert_eq!((derived.sender(), derived.origin()), (None, Origin::Report));
    assert_eq!(content(&derived), format!("report {}\n", derived.id()).into_bytes());
    assert_eq!((derived.id(), scratch.counts()), (entry.id().derive(Kind::Report, 1, 1_000), [0, 2, 0, 0]));
}

#[test]
fn recovery_finds_out_whether_a_report_was_sent() {
    let success = Success::Delivered;
    for (event, before, sent) in [
        (ReportedEvent::Failure, State::Todo, (State::Failed, 0)),
        (ReportedEvent::Delay, State::Todo, (State::Todo, 1_000)),
        (ReportedEvent::Success(success), State::Unreported(success), (State::Done, 0)),
    ] {
        for renamed in [false, true] {
            let scratch = Scratch::new();
            let mut entry = scratch.queued(3);
            let derived = make_report_of(&mut entry, &[(1, event), (2, event)]);
            let records = |name| scratch.open(name).recipients().iter().map(|to| to.record).collect::<Vec<_>>();
            let record = DeliveryState { state: sent.0, last: 1_000, warned: sent.1 };
            assert_eq!(records(entry.name())[1..], [record; 2], "without a crash");
            // Puts the records back as they were before the last step.
            for number in [1, 2] {
                let state = State::Reported { lead: 1, event };
                entry.overwrite(number, DeliveryState { state, last: 1_000, warned: 0 }).expect("a record");
            }
            if !renamed {
                fs::rename(scratch.spool.path(derived), scratch.spool.temporary(derived.id)).expect("as it was before");
            }
            let mut entry = scratch.open(entry.name());
            assert_eq!(entry.awaited().collect::<Vec<_>>(), [derived.id, derived.id]);
            let last = if before == State::Todo { 0 } else { 1_000 };
            let record = if renamed { record } else { DeliveryState { state: before, last, warned: 0 } };
            for what in ["an answer", "nothing to do"] {
                entry.recover(0..3).expect(what);
                assert_eq!(records(entry.name())[1..], [record; 2], "{event:?}, {what}");
                assert_eq!(scratch.counts(), [0, 1 + usize::from(renamed), 0, 0]);
            }
        }
    }
}

#[test]
fn reports_of_one_second_have_different_ids() {
    let scratch = Scratch::new();
    let mut entry = scratch.queued(3);
    let success = ReportedEvent::Success(Success::Delivered);
    let ids = [ReportedEvent::Delay, ReportedEvent::Failure, success]
        .map(|event| make_report_of(&mut entry, &[(1, event)]).id);
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 3);
}

#[test]
fn a_report_that_cannot_be_made_leaves_the_recipients_open() {
    for missing in ["tmp", "new"] {
        let scratch = Scratch::new();
        let mut entry = scratch.queued(3);
        entry.move_to_cur().expect("a rename");
        let (directory, away) = (scratch.root.join(missing), scratch.root.join("away"));
        fs::rename(&directory, &away).expect("a rename");
        let report = Envelope { sender: None, ..envelope(1) };
        entry.create_report(&FAILURES, &report, |_| b"report\n".to_vec(), 1_000).expect_err("a directory is missing");
        fs::rename(&away, &directory).expect("a rename");
        let mut entry = scratch.open(entry.name());
        entry.recover(0..3).expect("an answer");
        assert_eq!(scratch.states(entry.name()), [State::Todo; 3]);
        make_report(&mut entry);
        assert_eq!(scratch.counts(), [0, 1, 1, 0]);
    }
}

#[test]
fn a_report_that_was_sent_is_returned_even_if_it_cannot_be_recorded() {
    let scratch = Scratch::new();
    let mut entry = scratch.queued(3);
    let new = scratch.root.join("new");
    // In a directory of this mode files can be created, but the directory itself cannot be opened
    // for the sync. If the test runs as root, it takes on the rights of another user.
    let nobody = nix::unistd::Uid::from_raw(65_534);
    for directory in ["", "tmp", "new"].map(|name| scratch.root.join(name)) {
        let _ = std::os::unix::fs::chown(directory, Some(nobody.as_raw()), None);
    }
    fs::set_permissions(&new, fs::Permissions::from_mode(0o300)).expect("a mode");
    let before = nix::unistd::setfsuid(nobody);
    let derived = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| make_report(&mut entry)));
    nix::unistd::setfsuid(before);
    fs::set_permissions(&new, fs::Permissions::from_mode(0o700)).expect("a mode");
    let derived = derived.expect("a report");
    assert_eq!(content(&scratch.open(derived)), format!("report {}\n", derived.id).into_bytes());
    let reported = State::Reported { lead: 1, event: ReportedEvent::Failure };
    assert_eq!(scratch.states(entry.name()), [State::Todo, reported, reported]);
    entry.recover(0..3).expect("an answer");
    assert_eq!(scratch.states(entry.name()), [State::Todo, State::Failed, State::Failed]);
}

//! Entries that an administrator holds, releases or removes.

use super::*;

#[test]
fn an_entry_returns_to_the_directory_that_it_belongs_to() {
    let scratch = Scratch::new();
    let (fresh, direct, mut tried) = (scratch.queued(2), scratch.direct(), scratch.queued(2));
    tried.settle(1, State::Done, 5).expect("a record");
    tried.move_to_cur().expect("a rename");
    for (name, place) in [(fresh.name(), Place::New), (direct.name(), Place::New), (tried.name(), Place::Cur)] {
        let held = scratch.spool.hold(name).expect("a held entry");
        assert_eq!((held.place, scratch.spool.find(name.id, &[Place::Hold]).ok()), (Place::Hold, Some(Some(held))));
        assert_eq!(scratch.spool.hold(held).expect("again"), held);
        assert!(matches!(scratch.spool.release(name), Err(NotMoved::NotHeld)));
        assert_eq!(scratch.spool.release(held).expect("released"), EntryName { place, ..name });
    }
    assert_eq!((scratch.counts(), scratch.open(direct.name()).is_direct()), ([0, 2, 1, 0], true));
    assert_eq!(scratch.states(tried.name()), [State::Todo, State::Done]);
}

#[test]
fn an_entry_that_an_attempt_must_complete_is_not_held_but_can_be_removed() {
    let scratch = Scratch::new();
    let mut entry = scratch.queued(2);
    entry.prepare(1, 5, 6, 7).expect("a record");
    assert!(matches!(scratch.spool.hold(entry.name()), Err(NotMoved::Interrupted)));
    assert_eq!(scratch.counts(), [0, 1, 0, 0]);
    let mut open = 0;
    scratch.spool.remove(entry.name(), |entry| open = entry.recipients().len()).expect("removed");
    assert_eq!((open, scratch.counts()), (2, [0; 4]));
    assert!(matches!(scratch.spool.remove(entry.name(), |_| panic!("it is gone")), Err(NotMoved::Gone)));
}

#[test]
fn a_report_that_was_not_sent_does_not_survive_its_removed_entry() {
    let scratch = Scratch::new();
    let mut entry = scratch.queued(1);
    let report = Envelope { sender: None, origin: Origin::Report, ..envelope(1) };
    let name = entry.create_report(&[(0, ReportedEvent::Failure)], &report, |_| CONTENT.to_vec(), 9).expect("a report");
    entry.settle(0, State::Reported { lead: 0, event: ReportedEvent::Failure }, 9).expect("a record");
    fs::rename(scratch.root.join("new").join(name.file_name()), scratch.root.join("tmp").join(name.id.to_string()))
        .expect("a rename");
    scratch
        .spool
        .remove(entry.name(), |entry| assert_eq!(entry.recipients()[0].record.state, State::Todo))
        .expect("ok");
    assert_eq!(scratch.counts(), [0; 4]);
}

#[test]
fn a_settled_or_later_entry_is_left_alone() {
    let scratch = Scratch::new();
    let mut entry = scratch.queued(1);
    entry.settle(0, State::Done, 9).expect("a record");
    assert!(matches!(scratch.spool.hold(entry.name()), Err(NotMoved::Settled)));
    let text = "penfold/2 head=0000000128 ";
    let later = EntryName { size: text.len() as u64, place: Place::Cur, ..entry.name() };
    fs::write(scratch.root.join("cur").join(later.file_name()), text).expect("an entry");
    assert!(matches!(scratch.spool.hold(later), Err(NotMoved::Unusable(_))));
    assert!(matches!(scratch.spool.remove(later, |_| ()), Err(NotMoved::Unusable(_))));
    assert_eq!(scratch.counts(), [0, 1, 1, 0]);
}

#[test]
fn a_held_direct_entry_is_made_queued_in_hold() {
    let scratch = Scratch::new();
    let mut entry = scratch.open(scratch.spool.hold(scratch.direct().name()).expect("held"));
    let (direct, ids) = (entry.name(), HashSet::from([entry.id()]));
    let bytes = fs::read(scratch.spool.path(direct)).expect("an entry");
    entry.make_queued().expect("a queued entry");
    assert_eq!((entry.name().place, scratch.counts()), (Place::Hold, [0; 4]));
    assert_eq!((scratch.list("hold"), content(&entry)), (vec![entry.name().file_name()], CONTENT.to_vec()));
    // A crash has left both.
    fs::write(scratch.spool.path(direct), bytes).expect("its duplicate");
    assert_eq!(scratch.spool.find_all(&ids).expect("names").len(), 2);
    assert_eq!(scratch.spool.find_each(&ids).expect("names"), [(entry.id(), entry.name())].into());
    assert_eq!(scratch.list("hold"), [entry.name().file_name()]);
}

#[test]
fn a_note_says_who_has_held_a_message() {
    let scratch = Scratch::new();
    let id = scratch.queued(1).id();
    assert_eq!(scratch.spool.read_note(id).hold_reason(), None);
    let jon = address("r0@razorback");
    scratch.spool.add_note(id, &NoteLine { time: 1, recipient: &jon, host: "mx", text: "450 no" });
    scratch.spool.add_hold_note(id, 2, "by ann\n");
    scratch.spool.add_hold_note(id, 3, "by bob");
    let note = scratch.spool.read_note(id);
    assert_eq!((note.hold_reason().as_deref(), note.last_result(&jon).as_deref()), (Some("by bob"), Some("mx 450 no")));
}

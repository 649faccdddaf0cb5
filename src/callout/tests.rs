use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use super::*;
use crate::reply::Status;

/// A host with a scripted answer to each question. If it has a gate, it waits for it first.
struct Scripted {
    answer: fn(&Address) -> Outcome,
    gate: Option<Receiver<()>>,
    asked: Arc<AtomicUsize>,
}

impl Host for Scripted {
    fn ask(&mut self, recipient: &Address, _: Instant) -> Option<Outcome> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if let Some(gate) = &self.gate {
            let _ = gate.recv();
        }
        Some((self.answer)(recipient))
    }
}

fn callouts() -> Callouts {
    Callouts::kept(&State::at(std::path::Path::new("/nonexistent")))
}

fn question(local: &str) -> Question {
    question_at(local, "mx:x.test")
}

fn question_at(local: &str, destination: &str) -> Question {
    let recipient = Address::parse(&format!("{local}@x.test")).expect(local);
    Question { session: "s1".to_owned(), recipient, destination: destination.into(), is_store: false }
}

fn is_jon(to: &Address) -> Outcome {
    let line = if to.local() == "jon" { "250 ok" } else { "550 5.1.1 unknown" };
    let reply = crate::reply::ReplyReader::default().line(line.as_bytes()).ok().flatten().expect("a reply");
    Outcome::from_reply("RCPT", reply)
}

fn dead(_: &Address) -> Outcome {
    Outcome::deferred(Status(4, 4, 1), "connection refused")
}

/// Asks with this host, without a gate.
fn ask(
    callouts: &Callouts,
    question: &Question,
    asked: &Arc<AtomicUsize>,
    answer: fn(&Address) -> Outcome,
) -> NextHost {
    let asked = Arc::clone(asked);
    callouts.ask(question, 8, || Box::new(Scripted { answer, gate: None, asked: Arc::clone(&asked) }), || false)
}

/// Waits until no call-out runs any more.
fn settle(callouts: &Callouts) {
    let until = Instant::now() + Duration::from_secs(20);
    let mut inner = callouts.0.lock();
    while inner.running > 0 {
        assert!(Instant::now() < until);
        inner = callouts.0.changed.wait_timeout(inner, POLL).unwrap_or_else(PoisonError::into_inner).0;
    }
}

#[test]
fn a_recipient_is_asked_about_once_and_the_domain_too() {
    let (callouts, asked) = (callouts(), Arc::default());
    for (local, want, questions) in [
        // The second question is about a random recipient.
        ("jon", NextHost::Accepted, 2),
        ("jon", NextHost::Accepted, 2),
        ("bob", NextHost::Unknown, 3),
        ("bob", NextHost::Unknown, 3),
    ] {
        assert_eq!(ask(&callouts, &question(local), &asked, is_jon), want, "{local}");
        settle(&callouts);
        assert_eq!(asked.load(Ordering::SeqCst), questions, "{local}");
    }
    let inner = callouts.0.lock();
    assert_eq!((inner.running, inner.waiting, inner.asked.len()), (0, 0, 0));
}

#[test]
fn a_host_that_accepts_all_is_asked_no_more() {
    let (callouts, asked) = (callouts(), Arc::default());
    let all = |_: &Address| is_jon(&Address::parse("jon@x.test").expect("an address"));
    assert_eq!(ask(&callouts, &question("jon"), &asked, all), NextHost::Accepted);
    settle(&callouts);
    (0..50).for_each(|n| assert_eq!(ask(&callouts, &question(&format!("u{n}")), &asked, all), NextHost::Accepted));
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[test]
fn while_the_host_is_away_what_it_has_accepted_holds() {
    let (callouts, asked) = (callouts(), Arc::default());
    let place: Arc<str> = "mx:x.test".into();
    let old = sys::now() - 7 * 3600;
    callouts.0.lock().memory.note(&question("jon").recipient, &place, NextHost::Accepted, old);
    assert_eq!(ask(&callouts, &question("jon"), &asked, dead), NextHost::Accepted);
    assert_eq!(ask(&callouts, &question("ann"), &asked, dead), NextHost::NoAnswer);
    settle(&callouts);
    // The host is left alone for a while, whoever is asked about; other hosts are not.
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert_eq!(ask(&callouts, &question("jon"), &asked, is_jon), NextHost::Accepted);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert_eq!(ask(&callouts, &question_at("jon", "mx:y.test"), &asked, is_jon), NextHost::Accepted);
}

/// A host that cannot be asked just now, twice.
struct Busy(Arc<AtomicUsize>);

impl Host for Busy {
    fn ask(&mut self, recipient: &Address, _: Instant) -> Option<Outcome> {
        (self.0.fetch_add(1, Ordering::SeqCst) >= 2).then(|| is_jon(recipient))
    }
}

#[test]
fn a_host_that_cannot_be_asked_just_now_is_asked_again_soon() {
    let (callouts, asked): (_, Arc<AtomicUsize>) = (callouts(), Arc::default());
    let begun = Instant::now();
    let host = || -> Box<dyn Host> { Box::new(Busy(Arc::clone(&asked))) };
    assert_eq!(callouts.ask(&question("bob"), 8, host, || false), NextHost::Unknown);
    assert!(begun.elapsed() >= 2 * AGAIN, "{:?}", begun.elapsed());
    settle(&callouts);
    assert_eq!(asked.load(Ordering::SeqCst), 3);
    assert!(!callouts.0.lock().load(&"mx:x.test".into()).is_paused());
    // While it cannot be asked, nothing is noted.
    let busy: Arc<AtomicUsize> = Arc::default();
    let over = Arc::clone(&busy);
    let is_over = || over.load(Ordering::SeqCst) > 0;
    let host = || -> Box<dyn Host> { Box::new(Busy(Arc::clone(&busy))) };
    assert_eq!(callouts.ask(&question("jon"), 8, host, is_over), NextHost::NoAnswer);
    settle(&callouts);
    assert!(callouts.remembered(&question("jon")).is_none());
}

#[test]
fn sessions_that_ask_the_same_share_one_call_out() {
    let (callouts, asked): (_, Arc<AtomicUsize>) = (callouts(), Arc::default());
    let (open, gate) = channel();
    let gate = Mutex::new(Some(gate));
    let waiting = thread::scope(|scope| {
        let ask = || {
            let host = || -> Box<dyn Host> {
                let gate = gate.lock().unwrap_or_else(PoisonError::into_inner).take();
                Box::new(Scripted { answer: is_jon, gate, asked: Arc::clone(&asked) })
            };
            callouts.ask(&question("bob"), 8, host, || false)
        };
        let sessions: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
        while callouts.0.lock().waiting < 4 {
            thread::yield_now();
        }
        open.send(()).expect("the host waits");
        sessions.into_iter().map(|session| session.join().expect("a session")).collect::<Vec<_>>()
    });
    assert_eq!(waiting, [NextHost::Unknown; 4]);
    settle(&callouts);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

/// A hundred sessions ask about as many recipients at a host that hangs.
#[test]
fn call_outs_and_waiting_sessions_are_bounded() {
    let (callouts, asked): (_, Arc<AtomicUsize>) = (callouts(), Arc::default());
    let gates: Mutex<Vec<Sender<()>>> = Mutex::default();
    let over = std::sync::atomic::AtomicBool::new(false);
    let (callouts, asked, gates, over) = (&callouts, &asked, &gates, &over);
    thread::scope(|scope| {
        let host = || -> Box<dyn Host> {
            let (open, gate) = channel();
            gates.lock().unwrap_or_else(PoisonError::into_inner).push(open);
            Box::new(Scripted { answer: is_jon, gate: Some(gate), asked: Arc::clone(asked) })
        };
        let ask = move |n: usize, place: &'static str| {
            callouts.ask(&question_at(&format!("u{n}"), place), 20, host, || over.load(Ordering::SeqCst))
        };
        let sessions: Vec<_> = (0..100).map(|n| scope.spawn(move || ask(n, "mx:x.test"))).collect();
        let done = |sessions: &[thread::ScopedJoinHandle<'_, NextHost>]| {
            sessions.iter().filter(|session| session.is_finished()).count()
        };
        // All but half of the room are answered at once.
        while done(&sessions) < 90 {
            thread::yield_now();
        }
        {
            let mut inner = callouts.0.lock();
            assert_eq!((inner.waiting, inner.running), (10, MAX_OF_DESTINATION));
            assert_eq!(inner.load(&"mx:x.test".into()).running, MAX_OF_DESTINATION);
        }
        // Another destination is not in the way.
        let other = scope.spawn(move || ask(1000, "mx:y.test"));
        while callouts.0.lock().running <= MAX_OF_DESTINATION {
            thread::yield_now();
        }
        over.store(true, Ordering::SeqCst);
        let answers: Vec<_> = sessions.into_iter().map(|session| session.join().expect("a session")).collect();
        assert_eq!(answers, [NextHost::NoAnswer; 100]);
        assert_eq!(other.join().expect("a session"), NextHost::NoAnswer);
        gates.lock().unwrap_or_else(PoisonError::into_inner).clear();
    });
    settle(callouts);
    // The call-outs have ended although nobody waits, and their answers are there.
    assert_eq!(asked.load(Ordering::SeqCst), MAX_OF_DESTINATION + 1);
    let inner = callouts.0.lock();
    assert_eq!((inner.running, inner.waiting, inner.asked.len()), (0, 0, 0));
    assert_eq!(inner.memory.rows(None, sys::now()).len(), MAX_OF_DESTINATION + 1);
}

/// Slow destinations have all places but those that are kept for destinations without a call-out.
#[test]
fn slow_destinations_leave_places_for_others() {
    let callouts = callouts();
    let shared = &callouts.0;
    let (mut calls, mut places) = (Vec::new(), 0);
    let mut inner = shared.lock();
    let mut begin = |inner: &mut Inner, question: &Question| {
        let may_begin = inner.may_begin(question, None);
        calls.extend(may_begin.then(|| Call::begin(shared, inner, question)));
        may_begin
    };
    for (destination, n) in (0..8).flat_map(|destination| (0..5).map(move |n| (destination, n))) {
        let question = question_at(&format!("u{n}"), &format!("mx:d{destination}.test"));
        assert_eq!(begin(&mut inner, &question), n < MAX_OF_DESTINATION, "{destination} {n}");
    }
    assert_eq!(inner.running, MAX_RUNNING);
    for n in 0..100 {
        let destination = format!("mx:other{n}.test");
        assert_eq!(begin(&mut inner, &question_at("jon", &destination)), n < 32, "{n}");
        assert!(!begin(&mut inner, &question_at("ann", &destination)), "{n}");
    }
    // Two destinations cannot have the whole room for sessions that wait.
    for name in ["mx:a.test", "mx:b.test"].map(Arc::from) {
        while inner.has_place(&name, 20) {
            inner.waiting += 1;
            inner.load(&name).waiting += 1;
            places += 1;
        }
    }
    assert_eq!(places, 15);
    assert!(inner.has_place(&"mx:c.test".into(), 20));
    drop(inner);
    drop(calls);
}

/// A session has waited in vain, but its destination was not asked, or a moment ago.
#[test]
fn only_a_destination_that_was_asked_in_vain_counts_as_silent() {
    let callouts = callouts();
    let mut inner = callouts.0.lock();
    let question = question("jon");
    assert!(!inner.load(&question.destination).is_silent());
    let call = Call::begin(&callouts.0, &mut inner, &question);
    assert!(!inner.load(&question.destination).is_silent());
    inner.load(&question.destination).heard = Instant::now().checked_sub(SILENCE);
    assert!(inner.load(&question.destination).is_silent());
    drop(inner);
    drop(call);
    assert!(!callouts.0.lock().load(&question.destination).is_silent());
}

#[test]
fn a_host_that_panics_leaves_no_trace() {
    let (callouts, asked): (_, Arc<AtomicUsize>) = (callouts(), Arc::default());
    let over = Arc::clone(&asked);
    let host = || -> Box<dyn Host> {
        Box::new(Scripted { answer: |_| panic!("a bug"), gate: None, asked: Arc::clone(&asked) })
    };
    let is_over = || over.load(Ordering::SeqCst) > 0;
    assert_eq!(callouts.ask(&question("jon"), 8, host, is_over), NextHost::NoAnswer);
    settle(&callouts);
    assert_eq!(ask(&callouts, &question("jon"), &Arc::default(), is_jon), NextHost::Accepted);
}

/// Another process keeps the journal locked, so an answer cannot be written for a while. Nobody waits for that.
#[test]
fn a_locked_journal_keeps_nobody_waiting() {
    let scratch = std::env::temp_dir().join(format!("penfold-callouts-locked-{}", std::process::id()));
    std::fs::create_dir(&scratch).expect("a scratch directory");
    let kept = || Callouts::kept(&State::at(&scratch));
    let asked = Arc::default();
    let first = kept();
    assert_eq!(ask(&first, &question("jon"), &asked, is_jon), NextHost::Accepted);
    settle(&first);
    let file = std::fs::File::open(scratch.join("callouts")).expect("a journal");
    file.lock().expect("a lock");
    // The host accepts ann, and jon is remembered: both are answered while ann is not written yet. A
    // test that is itself kept waiting tries again.
    let is_answered_first = || {
        let callouts = kept();
        let all = |_: &Address| is_jon(&Address::parse("jon@x.test").expect("an address"));
        assert_eq!(ask(&callouts, &question("ann"), &asked, all), NextHost::Accepted);
        assert_eq!(ask(&callouts, &question("jon"), &asked, dead), NextHost::Accepted);
        let is_unwritten = callouts.0.lock().memory.unwritten().is_some();
        settle(&callouts);
        assert!(callouts.0.lock().memory.unwritten().is_none());
        is_unwritten
    };
    assert!((0..20).any(|_| is_answered_first()));
    drop(file);
    std::fs::remove_dir_all(&scratch).expect("a scratch directory");
}

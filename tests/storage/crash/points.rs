//! Stops the daemon before and after every call that changes a spool or a mailbox.
//!
//! `PENFOLD_FAULT` ends the daemon at the first call, at the second, and so on, until a daemon
//! finishes without making so many calls. If the daemon stopped before the call, another daemon
//! finishes the work; if it stopped after the call, single queue runs do. In the cases with the
//! longest recoveries, the recovery is stopped at each step, too. Agents, the processes that write
//! in home directories, are not stopped at their own steps. Power cuts are not tested here.

use super::cases::{CASES, Case};
use super::scene::{Ground, Scene, each, first_steps, steps};
use common::books::Answer;

/// The cases in which the recovery is stopped, too.
const RECOVERY_CASES: &[&str] = &["bounce-550", "passed-on", "copy-refused", "renamed-no-tmpfile", "home", "homes"];

/// Plays a case, and stops the daemon at a step; `when` is `before` or `after`. Returns whether the
/// step exists.
fn stop_at(ground: &Ground, case: &Case, number: usize, when: &str) -> bool {
    let mut scene = Scene::new(ground, case);
    let offered = scene.offer(&format!("* * {number} {when}"), |_| false);
    let hit = was_stopped(&offered.log);
    if when == "before" {
        scene.finish_with_daemon();
    } else {
        scene.finish_with_runs();
    }
    scene.audit(&offered.answer, 2);
    scene.check_left(1);
    assert!(hit || offered.answer == Answer::Taken, "{:?}", offered.answer);
    hit
}

fn was_stopped(log: &str) -> bool {
    log.contains("fault: abort")
}

#[test]
fn a_stop_at_any_step_loses_and_duplicates_nothing() {
    let begin = first_steps();
    each(CASES, |ground, case| {
        let stop = |number| ["before", "after"].map(|when| stop_at(ground, case, number, when)) == [true, true];
        let count = steps(begin + 1, |number| stop(number).then_some(1));
        assert!(count >= case.least, "{}: only {count} steps", case.name);
        2 * count
    });
}

#[test]
fn a_stop_at_the_start_changes_nothing() {
    let steps = first_steps();
    assert!(steps >= 8, "only {steps} steps");
    let case = CASES.iter().find(|case| case.name == "renamed").expect("a case");
    each(&[*case], |ground, case| {
        for number in 1..=steps {
            for when in ["before", "after"] {
                let mut scene = Scene::new(ground, case);
                assert!(scene.daemon(&format!("* * {number} {when}")).is_err_and(|log| was_stopped(&log)));
                let offered = scene.offer("", |_| false);
                assert_eq!(offered.answer, Answer::Taken);
                scene.audit(&offered.answer, 1);
                scene.check_left(0);
            }
        }
        2 * steps
    });
}

/// Plays a case, stops the daemon after the step `first`, and the recovery after its step `second`.
/// Returns whether each of the two steps exists.
fn stop_twice(ground: &Ground, case: &Case, first: usize, second: usize) -> [bool; 2] {
    let mut scene = Scene::new(ground, case);
    let offered = scene.offer(&format!("* * {first} after"), |_| false);
    let log = scene.run_queue(&format!("* * {second} after"));
    scene.finish_with_runs();
    scene.audit(&offered.answer, 3);
    scene.check_left(2);
    [was_stopped(&offered.log), was_stopped(&log)]
}

/// Stops the daemon after the step `first`, and then the recovery after every second of its steps,
/// one in each run. Returns the number of runs, or `None` if the step `first` does not exist.
fn stop_recovery(ground: &Ground, case: &Case, first: usize, begin: usize) -> Option<usize> {
    for (count, second) in (begin + first % 2..).step_by(2).enumerate() {
        match stop_twice(ground, case, first, second) {
            [true, true] => {}
            [true, false] => return Some(count),
            [false, _] => break,
        }
    }
    None
}

#[test]
fn a_stop_of_the_recovery_changes_nothing() {
    let begin = first_steps();
    let cases: Vec<Case> = CASES.iter().filter(|case| RECOVERY_CASES.contains(&case.name)).copied().collect();
    assert_eq!(cases.len(), RECOVERY_CASES.len());
    let total = each(&cases, |ground, case| {
        // The lock file already contains the version, so the recovery has one step fewer than a
        // start on a new spool.
        steps(begin + 1, |first| stop_recovery(ground, case, first, begin))
    });
    assert!(total > 150, "only {total} pairs");
}

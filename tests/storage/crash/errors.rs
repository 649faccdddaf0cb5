//! Every call that changes a spool or a mailbox fails: once, for a while, for good.
//!
//! What was acknowledged is there once when the disk is well again, whether the
//! daemon has lived through it or was ended; what was refused is not there. Another
//! host gets a message twice only where the daemon was ended before it could write
//! down that it had it.

use super::scene::{CASES, Case, Ground, Scene, each, first_steps, steps};
use common::books::Answer;

/// The ways of a message on which each step is taken for one reason at least.
const MEANT: &[&str] = &[
    "mixed",
    "copies-first",
    "bounce-unknown",
    "deferred-here",
    "copy-refused",
    "copy-elsewhere",
    "far",
    "renamed-first",
    "renamed-long",
    "renamed-no-tmpfile-long",
    "home",
    "homes",
    "home-bound",
    "home-of-another",
];

/// For how long the disk fails, from some step on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// The one step, with EIO.
    Once,
    /// This one and the next seven, as when a quota is used up.
    AWhile,
    /// Until the daemon is ended, as when the system has made the disk read-only.
    ForGood,
}

impl Trouble {
    fn rule(self, step: usize) -> String {
        let errno = self.errno();
        match self {
            Self::Once => format!("* * {step} {errno}"),
            Self::AWhile => format!("* * {step}-{} {errno}", step + 7),
            Self::ForGood => format!("* * {step}- {errno}"),
        }
    }

    /// None of those that the cases meet anyway.
    fn errno(self) -> &'static str {
        match self {
            Self::Once => "EIO",
            Self::AWhile => "EDQUOT",
            Self::ForGood => "EROFS",
        }
    }

    /// What a client is told.
    fn reply(self) -> &'static str {
        if self == Self::Once { "451 4.3.0 " } else { "452 4.3.1 " }
    }
}

/// Plays a case with trouble from a step on; whether there was any.
fn trouble_at(ground: &Ground, case: &Case, step: usize, trouble: Trouble) -> bool {
    let mut scene = Scene::new(ground, case);
    let errors = |log: &str| log.lines().filter(|line| line.contains("spool: ") || line.contains(" deferred ")).count();
    let offered = scene.offer(&trouble.rule(step), |log| trouble == Trouble::ForGood && errors(log) >= 3);
    if let Answer::Refused(reply) = &offered.answer {
        assert!(reply.starts_with(trouble.reply()), "{reply}");
    }
    // The next start looks again at what could not be removed.
    let is_left = offered.log.contains("remove a delivered message");
    if is_left || (trouble != Trouble::Once && !offered.log.ends_with(" done")) {
        scene.finish_with_runs();
    }
    let ended = trouble == Trouble::ForGood;
    let there = scene.audit(&offered.answer, if ended { 2 } else { 1 });
    // A disk that takes nothing lets nothing be taken back either.
    let is_refused = matches!(offered.answer, Answer::Refused(_));
    assert!(there == 0 || !is_refused || trouble != Trouble::Once, "refused and delivered");
    scene.check_left(1);
    offered.log.contains(&format!("fault: {} ", trouble.errno()))
}

#[test]
fn an_error_at_any_step_loses_and_doubles_nothing() {
    let begin = first_steps();
    let cases: Vec<Case> = CASES.iter().filter(|case| MEANT.contains(&case.name)).copied().collect();
    assert_eq!(cases.len(), MEANT.len());
    each(&cases, |ground, case| {
        let all = [Trouble::Once, Trouble::AWhile, Trouble::ForGood];
        let try_all = |step| all.map(|trouble| trouble_at(ground, case, step, trouble)) == [true; 3];
        let count = steps(begin + 1, |step| try_all(step).then_some(1));
        assert!(count >= case.least, "{}: only {count} steps", case.name);
        3 * count
    });
}

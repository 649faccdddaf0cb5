//! Every call that changes a spool or a mailbox fails, once, for a while, or permanently.
//!
//! When the disk works again, acknowledged mail is there once, whether the daemon survived the
//! failure or not; rejected mail is not there. Another host gets a message twice only if the daemon
//! was killed before it could record the delivery.

use super::cases::{CASES, Case};
use super::scene::{Ground, Scene, each, first_steps, steps};
use common::books::Answer;

/// The cases to be played. Together they contain every step.
const CASES_FOR_ERRORS: &[&str] = &[
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

/// How many steps fail, beginning with the tested one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// One step fails, with the error EIO.
    Once,
    /// Eight steps fail, as if a quota were used up for a while.
    AWhile,
    /// All steps fail until the daemon is killed, as if the system had made the disk read-only.
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

    /// The error of the failing steps. No case causes this error without the fault.
    fn errno(self) -> &'static str {
        match self {
            Self::Once => "EIO",
            Self::AWhile => "EDQUOT",
            Self::ForGood => "EROFS",
        }
    }

    /// The beginning of the reply that the client gets if its message is rejected.
    fn reply(self) -> &'static str {
        if self == Self::Once { "451 4.3.0 " } else { "452 4.3.1 " }
    }
}

/// Plays a case in which steps fail, beginning with number `step`. Returns whether that step
/// exists.
fn trouble_at(ground: &Ground, case: &Case, step: usize, trouble: Trouble) -> bool {
    let mut scene = Scene::new(ground, case);
    let errors = |log: &str| log.lines().filter(|line| line.contains("spool: ") || line.contains(" deferred ")).count();
    let offered = scene.offer(&trouble.rule(step), |log| trouble == Trouble::ForGood && errors(log) >= 3);
    if let Answer::Refused(reply) = &offered.answer {
        assert!(reply.starts_with(trouble.reply()), "{reply}");
    }
    // If a delivered message could not be removed from the spool, the next start removes it.
    let is_left = offered.log.contains("remove a delivered message");
    if is_left || (trouble != Trouble::Once && !offered.log.ends_with(" done")) {
        scene.finish_with_runs();
    }
    let ended = trouble == Trouble::ForGood;
    let there = scene.audit(&offered.answer, if ended { 2 } else { 1 });
    // If the disk allows no changes at all, the daemon cannot remove the refused message either.
    let is_refused = matches!(offered.answer, Answer::Refused(_));
    assert!(there == 0 || !is_refused || trouble != Trouble::Once, "refused and delivered");
    scene.check_left(1);
    offered.log.contains(&format!("fault: {} ", trouble.errno()))
}

#[test]
fn an_error_at_any_step_loses_and_duplicates_nothing() {
    let begin = first_steps();
    let cases: Vec<Case> = CASES.iter().filter(|case| CASES_FOR_ERRORS.contains(&case.name)).copied().collect();
    assert_eq!(cases.len(), CASES_FOR_ERRORS.len());
    each(&cases, |ground, case| {
        let all = [Trouble::Once, Trouble::AWhile, Trouble::ForGood];
        let try_all = |step| all.map(|trouble| trouble_at(ground, case, step, trouble)) == [true; 3];
        let count = steps(begin + 1, |step| try_all(step).then_some(1));
        assert!(count >= case.least, "{}: only {count} steps", case.name);
        3 * count
    });
}

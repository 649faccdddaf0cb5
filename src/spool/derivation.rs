//! How an entry came of another one: what was followed on the way, and how many more
//! recipients each of its own may lead to.
//!
//! It stands in the head, where no sender can write: it ends loops and bounds what one
//! message becomes. An entry that came in, and a report, has none of it. Does not know
//! the limits: the worker does.

use super::fields::{read_text, write_text};
use super::head::HeadError::{self, Corrupt};
use crate::envelope::MAX_ACTION;

/// No entry has more steps behind it: far more than are ever made.
const MAX_STEPS: usize = 32;
/// The longest step: the name of a user or of an alias, and of a file.
pub(super) const MAX_STEP: usize = 2 * MAX_ACTION;

/// What was followed when one entry came of another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step(Box<str>);

impl Step {
    /// A file in the home of a user.
    pub fn forward(user: &str, file: &str) -> Self {
        Self::named(&format!("forward:{user}/{file}"))
    }

    /// An alias that is expanded at the delivery.
    pub fn list(alias: &str) -> Self {
        Self::named(&format!("list:{alias}"))
    }

    fn named(text: &str) -> Self {
        // No character has more than four octets.
        Self(text.chars().take(MAX_STEP / 4).collect::<String>().into())
    }
}

/// What the head of a derived entry says of where it came from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Derivation {
    /// All that was followed, the first step first.
    pub steps: Vec<Step>,
    /// For each recipient the number of recipients that may come of it.
    pub shares: Vec<u32>,
}

/// Writes the steps for the first line of a head.
pub(super) fn write(head: &mut String, steps: &[Step]) {
    for Step(text) in steps {
        head.push_str(" past=");
        write_text(head, text);
    }
}

/// Reads one more step.
pub(super) fn read(steps: &mut Vec<Step>, word: &str) -> Result<(), HeadError> {
    if steps.len() >= MAX_STEPS {
        return Err(Corrupt("it came of too many others"));
    }
    steps.push(Step(read_text(word, MAX_STEP)?));
    Ok(())
}

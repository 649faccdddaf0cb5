//! The derivation of an entry: the lists and `.forward` files that led to it, and the number of
//! further recipients that each of its recipients may lead to.
//!
//! It is stored in the head, where no sender can write. It ends loops, and limits the number of
//! messages that one message can become. Received messages and reports have no derivation. The
//! worker sets the limits.

use super::fields::{read_text, write_text};
use super::head::HeadError::{self, Corrupt};
use crate::envelope::MAX_ACTION;

/// The maximum number of steps in a head. The worker allows far fewer.
const MAX_STEPS: usize = 32;
/// The maximum length of a step, in bytes. A step contains the name of a user or alias, and may
/// contain that of a file.
pub(super) const MAX_STEP: usize = 2 * MAX_ACTION;

/// A list or file through which one entry led to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step(Box<str>);

impl Step {
    /// A `.forward` file in the home directory of a user.
    pub fn forward(user: &str, file: &str) -> Self {
        Self::named(&format!("forward:{user}/{file}"))
    }

    /// An alias that is expanded on delivery.
    pub fn list(alias: &str) -> Self {
        Self::named(&format!("list:{alias}"))
    }

    fn named(text: &str) -> Self {
        // A character has at most four bytes.
        Self(text.chars().take(MAX_STEP / 4).collect::<String>().into())
    }
}

/// The derivation, as the head of an entry stores it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Derivation {
    /// The steps from the message that was received to this one.
    pub steps: Vec<Step>,
    /// For each recipient, the number of further recipients that it may lead to.
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
///
/// # Errors
/// [`Corrupt`] for too many steps, and the errors of [`read_text`].
pub(super) fn read(steps: &mut Vec<Step>, word: &str) -> Result<(), HeadError> {
    if steps.len() >= MAX_STEPS {
        return Err(Corrupt("it has too many steps"));
    }
    steps.push(Step(read_text(word, MAX_STEP)?));
    Ok(())
}

//! Stores the derivation of an entry: the lists and `.forward` files that led to the entry and, for
//! each recipient, the maximum number of further recipients that may be derived from the recipient.
//!
//! The derivation is part of the head of the entry, where no sender can write. `deliver` uses the
//! derivation to end loops, and to limit the number of messages that one message can become.
//! Received messages and reports have no derivation.

use super::fields::{read_text, write_text};
use super::head::HeadError::{self, Corrupt};
use crate::envelope::{Folder, MAX_ACTION};

/// The maximum number of steps in a head. A head with more steps is corrupt, since `deliver` makes
/// at most 10.
const MAX_STEPS: usize = 32;
/// The maximum length of a step, in bytes. A step contains the name of an alias, or the name of a
/// user and of the user's `.forward` file.
pub(super) const MAX_STEP: usize = 2 * MAX_ACTION;

/// A list or a `.forward` file through which one entry led to another.
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

    /// The step as it stands in the head, such as `list:staff`.
    pub fn text(&self) -> &str {
        &self.0
    }

    fn named(text: &str) -> Self {
        // A character has at most four bytes, so the text has at most `MAX_STEP` bytes.
        Self(text.chars().take(MAX_STEP / 4).collect::<String>().into())
    }
}

/// The derivation of an entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Derivation {
    /// The lists and `.forward` files through which the received message led to this entry, in
    /// order.
    pub steps: Vec<Step>,
    /// For each recipient, in order, the maximum number of further recipients that may be derived
    /// from it.
    pub shares: Vec<u32>,
    /// The folder of the recipients' Maildirs that the message goes into; `None` for the inbox.
    pub folder: Option<Folder>,
}

/// Appends the steps to the first line of a head.
pub(super) fn write(head: &mut String, steps: &[Step]) {
    for Step(text) in steps {
        head.push_str(" past=");
        write_text(head, text);
    }
}

/// Parses one step and appends it to `steps`.
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

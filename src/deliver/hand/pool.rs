//! Who does a task: this process, or an agent that runs as its owner.

use std::fs::File;

use super::{Done, Owner, Task, Trouble, perform};

/// What does tasks.
#[derive(Debug)]
pub struct Hands;

impl Hands {
    /// All is done here, with the rights of this process.
    pub fn here() -> Self {
        Self
    }

    /// Does a task with the rights of `owner`. `message` is the file that goes with it.
    ///
    /// # Errors
    /// What the system says, or that there is no agent now.
    pub fn perform(&self, _owner: &Owner, task: &Task, message: Option<&File>) -> Result<Done, Trouble> {
        perform(task, message)
    }
}

//! Counts and logs the refusals of a session. The first ones are logged on a line each.

use super::{Session, Step};
use crate::log;
use crate::reply::Reply;

/// The maximum number of octets that are logged of a refused command.
const MAX_LOGGED: usize = 400;

impl Session<'_> {
    /// If a step refuses a command, counts and logs the refusal. Returns the step.
    pub(super) fn count_refusal(&mut self, command: &[u8], step: Step) -> Step {
        if let Step::Reply(reply) | Step::ReplyAndClose(reply) = &step {
            self.note_refusal(command, reply);
        }
        step
    }

    /// Counts a refusal, and logs it unless the session has logged too many.
    pub(super) fn note_refusal(&mut self, command: &[u8], reply: &Reply) {
        let line = self.line.take();
        if self.tally.count(reply.code()) {
            let command = String::from_utf8_lossy(&command[..command.len().min(MAX_LOGGED)]);
            log::refused(
                &self.client.session,
                self.client.address,
                &command,
                reply,
                line.as_ref().map(|line| line as _),
            );
        }
    }

    /// Logs the number of refusals that were not logged individually.
    pub(super) fn log_unlogged_refusals(&mut self) {
        let unlogged = self.tally.take_unlogged();
        if unlogged > 0 {
            log::refused_more(&self.client.session, self.client.address, unlogged);
        }
    }
}

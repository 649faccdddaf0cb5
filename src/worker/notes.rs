//! Keeps notes about attempts for the listings: the results of those that have ended, and which ones were
//! running when the daemon stopped.

use super::Attempt;
use crate::activity;
use crate::address::Address;
use crate::outcome::Outcome;
use crate::queue::RunningJob;
use crate::site::Site;
use crate::spool::{INTERRUPTED, NoteLine, Place};
use crate::sys;

/// The maximum number of recipients of a job that are noted.
const MAX_NOTED: usize = 100;

impl Attempt<'_> {
    /// Adds an outcome to the note of the message.
    pub(super) fn note(&self, recipient: &Address, outcome: &Outcome) {
        let text = outcome.reply.as_ref().map_or_else(|| outcome.why.clone(), ToString::to_string);
        let line = NoteLine { time: self.now, recipient, host: &outcome.host, text: &text };
        self.site.spool.add_note(self.entry.id(), &line);
    }

    /// Adds the reasons of failures to the note of the message, if it stays in the queue for others.
    pub(super) fn note_failures(&mut self, failures: &[(u32, Outcome)]) {
        if failures.is_empty() || self.job.is_last && self.open_recipients().is_empty() || !self.move_to_cur() {
            return;
        }
        for (number, outcome) in failures {
            if let Some(addressee) = self.entry.recipient(*number as usize) {
                self.note(&addressee.recipient.address, outcome);
            }
        }
    }
}

/// Adds a line about each of these jobs to the note of its message. The daemon is about to exit. The
/// workers may still be at work until then.
pub fn note_interrupted(site: &Site, jobs: &[RunningJob]) {
    for job in jobs {
        let Ok(mut entry) = site.spool.entry(job.entry) else { continue };
        // A direct entry is delivered in one step, and has no note. Nor has an entry in `new/`.
        if entry.is_direct() || entry.move_to_cur().is_err() || entry.name().place == Place::New {
            continue;
        }
        let stage = activity::of(job.worker).map_or_else(String::new, |now| format!(": {}", now.stage));
        let text = format!("{INTERRUPTED}{stage}");
        let recipients = job.recipients.iter().filter_map(|number| entry.recipient(*number as usize));
        for to in recipients.filter(|to| to.record.state.is_open()).take(MAX_NOTED) {
            let recipient = &to.recipient.address;
            site.spool.add_note(entry.id(), &NoteLine { time: sys::now(), recipient, host: "", text: &text });
        }
    }
}

//! Notes which attempts were running when the daemon stopped, so that the listings do not say that these
//! messages were never tried.

use crate::activity;
use crate::queue::RunningJob;
use crate::site::Site;
use crate::spool::{INTERRUPTED, NoteLine, Place};
use crate::sys;

/// The maximum number of recipients of a job that are noted.
const MAX_NOTED: usize = 100;

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

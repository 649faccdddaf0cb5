//! Returns a message to its sender on an administrator's request: all recipients who still wait for
//! it fail at once.
//!
//! The steps are those of an attempt in which all recipients fail. The entry is withdrawn from the
//! queue meanwhile, so that no worker has a job of it.

use super::Attempt;
use crate::outcome::Outcome;
use crate::queue::{Job, JobResult};
use crate::reply::Status;
use crate::site::Site;
use crate::spool::{EntryName, NotMoved, Place, RecipientEntry, RecipientRef, State};
use crate::sys;

/// The entries that the return of a message has made, and the entry if it still exists because the
/// steps could not be completed.
pub struct Returned {
    /// The reports.
    pub derived: Vec<EntryName>,
    /// The entry, if it is not gone.
    pub left: Option<EntryName>,
}

/// Returns a message to its sender, for the reason `why`.
///
/// # Errors
/// [`NotMoved`]; the message is unchanged.
pub fn bounce(site: &Site, name: EntryName, why: &str) -> Result<Returned, NotMoved> {
    let mut entry = site.spool.completed(name)?;
    if entry.is_direct() && name.place == Place::Hold {
        // Only an entry outside `hold/` can become a queued one.
        entry = site.spool.entry(site.spool.release(name)?)?;
    }
    let open = entry.recipients().iter().filter(|to| to.record.state.is_open());
    let recipients: Vec<RecipientRef> = open.clone().map(RecipientEntry::reference).collect();
    // For some recipients, only the report about the delivery is missing.
    let failed = open.filter(|to| !matches!(to.record.state, State::Unreported(_)));
    let outcomes = failed.map(|to| (to.reference().number, Outcome::failed(Status(5, 0, 0), why))).collect();
    let (mut job, mut derived) = (Job::of_request(entry.name(), recipients), Vec::new());
    let mut attempt = Attempt {
        job: &mut job,
        entry,
        settings: site.settings(),
        now: sys::now(),
        is_moved: false,
        failures: Vec::new(),
        delays: Vec::new(),
        successes: Vec::new(),
        derived: &mut derived,
        dialogue: None,
        site,
    };
    let is_done = attempt.record(outcomes) && attempt.report();
    let is_gone = is_done && matches!(attempt.result(), JobResult::Vanished);
    let left = (!is_gone).then(|| attempt.entry.name());
    site.spool.sync_changes()?;
    Ok(Returned { derived, left })
}

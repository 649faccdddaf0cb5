//! Returns a message to its sender on an administrator's request: all recipients that still wait for
//! it fail at once.
//!
//! The steps are those of an attempt in which all recipients fail. The entry is withdrawn from the
//! queue meanwhile, so that no worker has a job of it. A held entry stays in `hold/` until it is
//! gone.

use super::Attempt;
use crate::outcome::Outcome;
use crate::queue::{Job, JobResult};
use crate::reply::Status;
use crate::site::Site;
use crate::spool::{EntryName, NotMoved, RecipientEntry, RecipientRef, State};

/// What the return of a message has made of it.
pub struct Returned {
    /// The reports, which are entries of their own.
    pub derived: Vec<EntryName>,
    /// Whether the message is gone. If not, some step could not be completed.
    pub is_done: bool,
}

/// Returns a message to its sender, for the reason `why`. `name` is its name before and after.
///
/// # Errors
/// [`NotMoved`]; nothing was returned.
pub fn bounce(site: &Site, name: &mut EntryName, why: &str) -> Result<Returned, NotMoved> {
    let mut entry = site.spool.completed(*name)?;
    entry.make_queued()?;
    *name = entry.name();
    let open = entry.recipients().iter().filter(|to| to.record.state.is_open());
    let recipients: Vec<RecipientRef> = open.clone().map(RecipientEntry::reference).collect();
    // For some recipients, only the report about the delivery is missing.
    let failed = open.filter(|to| !matches!(to.record.state, State::Unreported(_)));
    let outcomes = failed.map(|to| (to.reference().number, Outcome::failed(Status(5, 0, 0), why))).collect();
    let (mut job, mut derived) = (Job::of_request(entry.name(), recipients), Vec::new());
    let mut attempt = Attempt::begin(site, &mut job, entry, &mut derived);
    let is_recorded = attempt.record(outcomes) && attempt.report();
    let is_done = is_recorded && matches!(attempt.result(), JobResult::Vanished);
    *name = attempt.entry.name();
    Ok(Returned { derived, is_done })
}

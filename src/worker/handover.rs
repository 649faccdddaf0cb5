//! Checks entries whose files were given to system users.

use super::Worker;
use crate::queue::{Job, JobResult};
use crate::route::{Route, RoutedMail};
use crate::spool::Entry;
use crate::users::{Mailbox, Owner};

impl Worker {
    /// Checks that an entry whose file was given to a system user has only that user as a
    /// recipient. The user may have written anything into the file since. If the address is elsewhere
    /// by now, the message waits: it may be in the mailbox already, and the user's file is sent nowhere.
    pub(super) fn check_handed_over(&self, entry: &Entry, job: &Job) -> Result<(), JobResult> {
        let Some(uid) = entry.handed_over_to() else { return Ok(()) };
        let (router, mail) = (&self.site.settings().router, RoutedMail::of(entry));
        entry.recipients().iter().try_for_each(|addressee| match router.route_of(&addressee.recipient, &mail) {
            Route::Mailbox(Mailbox { owner: Owner::User(account), .. }) if account.uid == uid => Ok(()),
            Route::Temporary(..) => Err(self.later(job)),
            _ if router.is_routed_address(&addressee.recipient.address, &mail) => {
                ::log::warn!(
                    "{}: it was handed over to a user, and the table of routes names the address now; it waits",
                    entry.id()
                );
                Err(self.later(job))
            }
            _ => {
                self.site.spool.set_aside(entry.name(), "it was handed over to a user, and is for another user");
                Err(JobResult::Vanished)
            }
        })
    }
}

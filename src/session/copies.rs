//! Adds the recipients of copies (`policy.always_bcc`) to a message that is accepted.
//!
//! They are added after the filters have seen the message and its recipients, and before it is
//! committed, so that a copy is as safe as the message. If it cannot be found out now who gets a
//! copy, the message is deferred. A copy for an address that does not exist is left out, with a line
//! in the log: a mistake in the table must not stop all mail. So copies may exceed the limit on final
//! recipients.

use super::Session;
use super::incoming::Complete;
use super::transaction::Transaction;
use crate::reply::{self, Reply};
use crate::route::copies::is_same;

impl Session<'_> {
    /// Adds the recipients of copies. The error is the reply to a message that is deferred.
    pub(super) fn add_copies(&self, complete: &mut Complete, transaction: &mut Transaction) -> Result<(), Reply> {
        let router = &self.service.router;
        if !router.makes_copies() {
            return Ok(());
        }
        if self.is_marked(complete) {
            ::log::info!("no copies of {}: it is a copy that this host has made", complete.id());
            return Ok(());
        }
        let finals = transaction.envelope.recipients.iter().map(|to| &to.address);
        let all = transaction.given().chain(finals);
        let copies = router.copies_of(transaction.envelope.sender.as_ref(), all).map_err(|why| {
            ::log::warn!("the copies of a message are not known: {why}");
            reply::failure::local_error()
        })?;
        // Clients that submit write the header themselves, and so could keep a message from an archive.
        let may_skip_delivered = !self.facts().may_relay() || self.is_lmtp();
        let mut copied = Vec::new();
        for copy in copies {
            let address = &copy.address;
            if transaction.envelope.sender.as_ref().is_some_and(|sender| is_same(sender, address)) {
                ::log::info!("{}: no copy goes to <{address}>: it is the sender", copy.line);
                continue;
            }
            if may_skip_delivered && complete.was_delivered_to(address) {
                ::log::info!("{}: no copy goes to <{address}>: a Delivered-To field names it", copy.line);
                continue;
            }
            let finals = match router.recipients_of_copy(&copy) {
                Ok(finals) => finals,
                Err((why, is_temporary)) => {
                    ::log::warn!("{}: no copy goes to <{address}>: {why}", copy.line);
                    if is_temporary {
                        return Err(reply::failure::local_error());
                    }
                    continue;
                }
            };
            copied.push((copy.address, finals));
        }
        if transaction.add_copies(copied) {
            complete.forget_mailbox();
        }
        Ok(())
    }

    /// Whether this host has copied the message before. Users who submit write the header themselves, and
    /// so could keep a message from an archive.
    fn is_marked(&self, complete: &Complete) -> bool {
        let facts = self.facts();
        let id = complete.message_id().filter(|_| !facts.is_submission() && !facts.is_local_user);
        id.is_some_and(|id| complete.marks().any(|mark| self.service.router.has_made_mark(mark, &id)))
    }
}

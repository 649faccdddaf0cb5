//! What is settled on this host: copies into mailboxes, and what needs no host at all.
//!
//! The steps and their order are those that `spool` describes; whoever has the rights does
//! them. What becomes of each recipient is an outcome, which the worker writes down.

use std::sync::Arc;

use super::Attempt;
use crate::deliver::agent::AgentPool;
use crate::deliver::local::maildir::{Maildir, Prepared, not_noted};
use crate::outcome::{Fate, Outcome, Via};
use crate::reply::Status;
use crate::route::Route;
use crate::spool::{RecipientEntry, State};
use crate::users::{Mailbox, Owner};

/// Copies of one message that are prepared together.
const COPIES: usize = 64;

impl Attempt<'_> {
    /// What is settled on this host. Of copies several are prepared before the first is
    /// shown to its owner, so that the entry need be synced only once.
    pub(super) fn deliver_here(&mut self, slots: &[RecipientEntry], routes: &[Route]) -> Vec<Outcome> {
        let (settings, agents) = (Arc::clone(&self.settings), self.agents);
        let mut outcomes = Vec::with_capacity(slots.len());
        for (slots, routes) in slots.chunks(COPIES).zip(routes.chunks(COPIES)) {
            let begun: Vec<_> = slots
                .iter()
                .zip(routes)
                .map(|(slot, route)| self.begin_here(slot, route, &settings.config.hostname, agents))
                .collect();
            let is_due = begun.iter().any(|begun| begun.is_ok());
            let synced = if is_due { self.entry.sync_records() } else { Ok(()) };
            outcomes.extend(begun.into_iter().map(|begun| match (begun, &synced) {
                (Err(outcome), _) => *outcome,
                (Ok((mailbox, copy)), Ok(())) => mailbox.reveal(&copy).via(Via::Maildir),
                (Ok(_), Err(e)) => not_noted(e).via(Via::Maildir),
            }));
        }
        outcomes
    }

    /// A copy that is prepared, or an outcome.
    fn begin_here<'a>(
        &mut self,
        slot: &RecipientEntry,
        route: &'a Route,
        hostname: &'a str,
        agents: &'a AgentPool,
    ) -> Result<(Maildir<'a>, Prepared), Box<Outcome>> {
        let is_prepared = matches!(slot.record.state, State::Prepared { .. });
        let outcome = match route {
            Route::Mailbox(Mailbox { path, is_mbox, owner }) => {
                // For one that was given to him already that was settled before a crash.
                let outcome = if self.entry.handed_over_to().is_none() { self.forward(slot, owner) } else { None };
                if let Some(outcome) = outcome {
                    // The next one need not be made full first.
                    self.spool.note_not_renameable(path);
                    return Err(Box::new(outcome));
                }
                if *is_mbox && !is_prepared {
                    return Err(Box::new(self.append(slot, path, owner)));
                }
                let mailbox = Maildir { path, hostname, owner, agents };
                let prepared =
                    self.deliver_into(&mailbox, slot).map_err(|outcome| Box::new(outcome.via(Via::Maildir)))?;
                return Ok((mailbox, prepared));
            }
            // Whether the copy that was prepared has been seen there cannot be told now.
            _ if is_prepared => {
                Outcome::deferred(Status(4, 2, 0), "the mailbox to which it was being delivered is not there now")
                    .via(Via::Maildir)
            }
            Route::Command(command, owner) => self.run(slot, command, owner),
            Route::List => self.expand_list(slot),
            Route::Refused(status, why) => Outcome::failed(*status, why.as_str()).via(Via::Maildir),
            Route::Temporary(status, why) => Outcome::deferred(*status, why.as_str()).via(Via::Maildir),
            _ => Outcome::failed(Status(5, 1, 1), "User unknown").via(Via::Maildir),
        };
        Err(Box::new(outcome))
    }

    fn deliver_into(&mut self, mailbox: &Maildir<'_>, slot: &RecipientEntry) -> Result<Prepared, Box<Outcome>> {
        if self.entry.is_direct() {
            let done = match mailbox.owner {
                Owner::User(account) if self.agents.rights().has_monitor() => {
                    mailbox.give(self.spool, &self.entry, account.uid)
                }
                _ => mailbox.has(&self.entry).or_else(|| mailbox.take(self.spool, self.entry.name())),
            };
            if let Some(outcome) = done {
                self.taken = outcome.fate == Fate::Delivered;
                return Err(Box::new(outcome));
            }
            self.make_queued().map_err(|e| Outcome::from_io("rewrite the message in the spool", &e))?;
        }
        match self.entry.recipient(slot.number).cloned() {
            Some(slot) => mailbox.prepare(&mut self.entry, &slot, self.now),
            None => Err(Box::new(Outcome::deferred(Status(4, 3, 0), "the message in the spool has changed"))),
        }
    }
}

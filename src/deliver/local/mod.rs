//! Delivers messages on this host: into mailboxes, to commands, and onward by lists and `.forward`
//! files.
//!
//! The steps on disk and their order are described in `spool`. Steps that need a user's
//! rights are carried out by `deliver::agent`.
//!
//! If the entry names a folder, a message for a Maildir goes into that folder, which is made if it
//! is missing. For other mailboxes and commands the folder has no effect.
//!
//! - `command`: delivery to a command
//! - `convert`: a text in place of a binary message
//! - `forward`: lists and `.forward` files, which make a derived entry
//! - `handover`: making the recipient the owner of the entry's file
//! - `hold`: a copy that is held, as the routes table says
//! - `maildir`: delivery to a Maildir, exactly once
//! - `mbox`: delivery into a file of many messages
//! - `onward`: passing a message on to other recipients, and the options that they get

mod command;
mod convert;
mod forward;
mod handover;
mod hold;
pub mod maildir;
mod mbox;
mod onward;

use std::io;

use maildir::{Maildir, Prepared, not_noted};

use super::Begun;
use super::agent::{AgentError, AgentPool, Part, Request, Response};
use super::quota::{Quotas, Room};
use crate::activity;
use crate::outcome::{Fate, Outcome, Via};
use crate::reply::Status;
use crate::route::{Route, Router};
use crate::spool::{Entry, EntryName, RecipientEntry, Spool, State};
use crate::users::{Mailbox, Owner, Quota};
pub(super) use forward::files as forward_files;

/// Maximum number of copies of one message that are written to `tmp/` before the first of them is
/// renamed to `new/`, so that one sync of the entry records all of them.
const MAX_PREPARED: usize = 64;

/// The delivery of one message on this host.
pub struct LocalDelivery<'a> {
    /// The message.
    pub entry: &'a mut Entry,
    /// The entry's name in the spool, updated when a step changes it.
    pub name: &'a mut EntryName,
    /// Receives the names of the new entries that forwarding makes.
    pub derived: &'a mut Vec<EntryName>,
    /// The spool.
    pub spool: &'a Spool,
    /// The tables with which lists and `.forward` files are expanded.
    pub router: &'a Router,
    /// This host's name, for the names of files.
    pub hostname: &'a str,
    /// The agents that work in mailboxes.
    pub agents: &'a AgentPool,
    /// The quotas of Maildirs.
    pub quotas: &'a Quotas,
    /// When the attempt began, in seconds since 1970.
    pub now: u64,
    /// Whether the entry's file was moved into the mailbox, out of the spool.
    pub is_moved: bool,
}

impl<'a> LocalDelivery<'a> {
    /// Delivers to recipients of the entry, each by its own route. Returns their outcomes in the
    /// same order.
    pub fn deliver(&mut self, addressees: &[RecipientEntry], routes: &[Route]) -> Vec<Outcome> {
        let in_folders = self.in_folders(routes);
        let routes = in_folders.as_deref().unwrap_or(routes);
        let mut outcomes = Vec::with_capacity(addressees.len());
        for (addressees, routes) in addressees.chunks(MAX_PREPARED).zip(routes.chunks(MAX_PREPARED)) {
            let begun: Vec<_> =
                addressees.iter().zip(routes).map(|(addressee, route)| self.begin(addressee, route)).collect();
            let is_any_ready = begun.iter().any(|begun| matches!(begun, Begun::Ready(_)));
            let synced = if is_any_ready { self.entry.sync_records() } else { Ok(()) };
            outcomes.extend(begun.into_iter().map(|begun| match (begun, &synced) {
                (Begun::Over(outcome), _) => outcome,
                (Begun::Ready((mailbox, copy)), Ok(())) => mailbox.reveal(copy).via(Via::Maildir),
                (Begun::Ready(_), Err(e)) => not_noted(e).via(Via::Maildir),
            }));
        }
        outcomes
    }

    /// The routes with the folder of the entry added to each Maildir; `None` if the entry has no
    /// folder.
    fn in_folders(&self, routes: &[Route]) -> Option<Vec<Route>> {
        let folder = self.entry.folder()?;
        let in_folder = |route: &Route| match route {
            Route::Mailbox(mailbox) if !mailbox.is_mbox => {
                Route::Mailbox(Mailbox { path: mailbox.path.join(folder.as_str()), ..mailbox.clone() })
            }
            route => route.clone(),
        };
        Some(routes.iter().map(in_folder).collect())
    }

    /// Makes the folder that a Maildir's path names, if the entry names one.
    fn make_folder(&self, maildir: &Maildir<'_>) -> Result<(), Box<Outcome>> {
        let (Some(folder), Some(mailbox)) = (self.entry.folder(), maildir.path.parent()) else { return Ok(()) };
        let request = Request::Folder { mailbox: mailbox.to_owned(), folder: folder.as_str().to_owned() };
        match self.agents.perform(maildir.owner, &request, None) {
            Ok(_) => Ok(()),
            Err(failed) => Err(Box::new(maildir.failed(&failed))),
        }
    }

    /// Delivers to one recipient. A delivery to a Maildir stops when the copy is complete in `tmp/`
    /// and recorded.
    fn begin<'r>(&mut self, addressee: &RecipientEntry, route: &'r Route) -> Begun<(Maildir<'r>, Prepared)>
    where
        'a: 'r,
    {
        let is_prepared = matches!(addressee.record.state, State::Prepared { .. });
        Begun::Over(match route {
            Route::Mailbox(mailbox) => return self.begin_in_mailbox(addressee, mailbox, is_prepared),
            // A copy was written to the recipient's Maildir, but now the recipient has no mailbox:
            // it is unknown whether the copy was delivered.
            _ if is_prepared => {
                Outcome::deferred(Status(4, 2, 0), "the mailbox of an interrupted delivery no longer exists")
                    .via(Via::Maildir)
            }
            Route::Command(command, owner) => {
                activity::enter("running a command");
                activity::at(command);
                let ran = self.with_text(|this| this.run(addressee, command, owner));
                ran.unwrap_or_else(|failure| failure.via(Via::Command))
            }
            Route::List => {
                activity::enter("expanding the list");
                self.expand_list(addressee)
            }
            Route::Discard(why) => Outcome::delivered(why.as_str()).via(Via::Discard),
            Route::Hold(why) => self.hold(addressee, why),
            Route::Replaced => Outcome::delivered("other recipients have replaced it").via(Via::List),
            Route::Refused(status, why) => Outcome::failed(*status, why.as_str()).via(Via::Maildir),
            Route::Temporary(status, why) => Outcome::deferred(*status, why.as_str()).via(Via::Maildir),
            _ => Outcome::failed(Status(5, 1, 1), "User unknown").via(Via::Maildir),
        })
    }

    fn begin_in_mailbox<'r>(
        &mut self,
        addressee: &RecipientEntry,
        mailbox: &'r Mailbox,
        is_prepared: bool,
    ) -> Begun<(Maildir<'r>, Prepared)>
    where
        'a: 'r,
    {
        let Mailbox { path, is_mbox, owner, quota } = mailbox;
        activity::enter("writing into the mailbox");
        activity::at(&path.display());
        // A `.forward` is followed before any handover. So if the entry was handed over, there was
        // no `.forward`, and none is looked for again.
        let forwarded = if self.entry.handed_over_to().is_none() { self.forward(addressee, owner) } else { None };
        if let Some(outcome) = forwarded {
            // After this note, the next message for this mailbox is written as a queued entry from
            // the start.
            self.spool.note_not_renameable(path);
            return Begun::Over(outcome);
        }
        if *is_mbox && !is_prepared {
            let appended = self.with_text(|this| this.append(addressee, path, owner));
            return Begun::Over(appended.unwrap_or_else(|failure| failure.via(Via::Mbox)));
        }
        let maildir = Maildir { path, hostname: self.hostname, owner, agents: self.agents };
        match Begun::from(self.begin_in_maildir(&maildir, addressee, *quota)).via(Via::Maildir) {
            Begun::Ready(copy) => Begun::Ready((maildir, copy)),
            Begun::Over(outcome) => Begun::Over(outcome),
        }
    }

    fn begin_in_maildir(
        &mut self,
        maildir: &Maildir<'_>,
        addressee: &RecipientEntry,
        quota: Option<Quota>,
    ) -> Result<Begun<Prepared>, Box<Outcome>> {
        // A copy that was prepared before a crash, and a file that was handed over, are counted.
        let is_counted = addressee.record.state != State::Todo || self.entry.handed_over_to().is_some();
        let mut quota = quota.filter(|_| !is_counted);
        if self.entry.is_direct() {
            let room = self.reserve(maildir, quota.take(), self.entry.name().size)?;
            let moved = match maildir.owner {
                Owner::User(account) if self.agents.rights().has_monitor() => {
                    maildir.hand_over(self.spool, self.entry, account.uid)
                }
                _ => maildir.finish_move(self.entry).or_else(|| maildir.move_in(self.spool, self.entry.name())),
            };
            if let Some(outcome) = moved {
                self.is_moved = outcome.fate == Fate::Delivered;
                match room {
                    Some(room) if self.is_moved => room.confirm(self.agents, maildir.owner),
                    // A file that was handed over will be delivered.
                    Some(room) if *maildir.owner == Owner::Server => room.release(self.agents, maildir.owner),
                    _ => {}
                }
                return Ok(Begun::Over(outcome));
            }
            self.make_queued().map_err(|e| Outcome::from_io("rewrite the message in the spool", &e))?;
        }
        if addressee.record.state == State::Todo {
            self.make_folder(maildir)?;
        }
        match self.entry.recipient(addressee.number).cloned() {
            Some(addressee) => self.with_text(|this| this.prepare(maildir, &addressee, quota))?,
            None => Ok(Begun::Over(Outcome::deferred(Status(4, 3, 0), "the message in the spool has changed"))),
        }
    }

    fn prepare(
        &mut self,
        maildir: &Maildir<'_>,
        addressee: &RecipientEntry,
        quota: Option<Quota>,
    ) -> Result<Begun<Prepared>, Box<Outcome>> {
        let size = || self.entry.delivery_head(addressee).len() as u64 + self.entry.content_size();
        let room = quota.map_or(Ok(None), |quota| self.reserve(maildir, Some(quota), size()))?;
        match (maildir.prepare(self.entry, addressee, self.now), room) {
            (Ok(Begun::Ready(mut prepared)), room) => {
                prepared.room = room;
                Ok(Begun::Ready(prepared))
            }
            (Err(outcome), Some(room)) => {
                room.release(self.agents, maildir.owner);
                Err(outcome)
            }
            (begun, _) => begun,
        }
    }

    /// Counts a message of `size` bytes that is about to be delivered, if there is a quota.
    fn reserve(&self, maildir: &Maildir<'_>, quota: Option<Quota>, size: u64) -> Result<Option<Room>, Box<Outcome>> {
        let Some(quota) = quota else { return Ok(None) };
        // The folder of an entry is in the Maildir that has the quota.
        let root = if self.entry.folder().is_some() { maildir.path.parent() } else { None };
        self.quotas.reserve(self.agents, (root.unwrap_or(maildir.path), maildir.owner, quota), size)
    }

    /// Rewrites a direct entry as a queued one, which may change the entry's name.
    fn make_queued(&mut self) -> io::Result<()> {
        self.entry.make_queued()?;
        *self.name = self.entry.name();
        Ok(())
    }

    /// The content, as a part of the entry's file.
    fn content(&self) -> Part {
        Part { at: self.entry.content_start(), size: self.entry.content_size() }
    }

    /// Performs a request on the entry's file with the rights of `owner`.
    fn perform(&self, owner: &Owner, request: &Request) -> Result<Response, AgentError> {
        let file = self.entry.file_for(owner == &Owner::Server);
        let file = file.map_err(|e| AgentError::new("read the message in the spool", e))?;
        self.agents.perform(owner, request, Some(&file))
    }
}

/// The outcome of a request that failed or got an unexpected response.
fn not_performed(result: Result<Response, AgentError>) -> Outcome {
    match result {
        Err(failed) => Outcome::from_io(&failed.doing, &failed.error),
        Ok(_) => unexpected_response(),
    }
}

fn unexpected_response() -> Outcome {
    Outcome::deferred(Status(4, 3, 0), "the answer of the agent is malformed")
}

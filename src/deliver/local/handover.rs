//! Deliver one message to one user of the system, by making the spool's file his.
//!
//! Nothing is copied and nothing synced: the file is given to him by root (`privsep::rights`),
//! linked into his Maildir by an agent that runs as him, and loses its name in the spool.
//! Which states that goes through, and what a crash leaves, is said in `spool`. Where it
//! cannot be done the mailbox is noted as apart, and the message is copied. In doubt it
//! comes twice, never not at all. Does not look for a `.forward`: the worker has.

use std::io;

use super::maildir::{Maildir, file_prefix};
use crate::deliver::agent::{AgentError, Request};
use crate::outcome::Outcome;
use crate::spool::{Entry, Spool};

impl Maildir<'_> {
    /// Delivers a bare entry to the user with this number: `None` when that cannot be, and
    /// the entry must be copied.
    pub fn give(&self, spool: &Spool, entry: &Entry, uid: u32) -> Option<Outcome> {
        match self.hand_over(entry, uid) {
            Ok(true) => {
                // It is delivered, come what may: a start finds out the same.
                if let Err(e) = entry.unlink().or_else(|e| if is_gone(&e) { Ok(()) } else { Err(e) }) {
                    ::log::error!("{}: remove a delivered message from the spool: {e}", entry.id());
                }
                Some(self.delivered())
            }
            Ok(false) => {
                spool.note_not_renameable(self.path);
                None
            }
            Err(trouble) => Some(self.trouble(&trouble)),
        }
    }

    /// False if nothing of the spool can become that user's here.
    fn hand_over(&self, entry: &Entry, uid: u32) -> Result<bool, AgentError> {
        let trouble = |error| AgentError::new("give away the message in the spool", error);
        let file = entry.file_for(false).map_err(trouble)?;
        if entry.handed_over_to().is_none() {
            if !entry.mark().map_err(trouble)? {
                return Ok(false);
            }
            match self.agents.rights().hand_over(uid, &file) {
                Err(e) if is_apart(&e) => return Ok(false),
                given => given.map_err(trouble)?,
            }
        }
        let request = Request::Accept {
            mailbox: self.path.to_owned(),
            name: self.file_name(entry.id(), 0, entry.name().size),
            prefix: file_prefix(entry.id(), 0),
        };
        match self.agents.perform(self.owner, &request, Some(&file)) {
            Ok(_) => Ok(true),
            // Whatever became of the agent then.
            Err(_) if entry.is_accepted() => Ok(true),
            Err(trouble) if is_apart(&trouble.error) => Ok(false),
            Err(trouble) => Err(trouble),
        }
    }
}

/// Whether no file of the spool can have a name there: another file system, a mount of its
/// own, or one that has no more names for a file, or no owners.
fn is_apart(error: &io::Error) -> bool {
    use io::ErrorKind::{CrossesDevices, PermissionDenied, TooManyLinks, Unsupported};
    matches!(error.kind(), CrossesDevices | PermissionDenied | TooManyLinks | Unsupported)
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

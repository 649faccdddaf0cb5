//! Delivery of a direct entry to a system user by handing over the entry's file.
//!
//! Nothing is copied or synced: the monitor makes the user the file's owner (`privsep`), an agent
//! that runs as the user links the file into the Maildir, and the file's name in the spool is
//! removed. The intermediate states, also after a crash, are described in `spool`. If a handover
//! is not possible, the message is copied; if it never will be possible with this mailbox, the
//! mailbox is noted as not renameable. If in doubt, the message is delivered twice rather than lost.

use std::io;

use nix::errno::Errno;

use super::maildir::{Maildir, file_prefix};
use crate::deliver::agent::{AgentError, Request};
use crate::outcome::Outcome;
use crate::spool::{Entry, Spool};

/// Whether a file of the spool has become the user's.
enum HandedOver {
    Yes,
    /// No, but another handover into the mailbox may succeed.
    NotNow,
    /// No, and no handover into this mailbox can ever succeed.
    Never,
}

impl Maildir<'_> {
    /// Hands a direct entry over to the user `uid`. Returns `None` if that is not possible and the
    /// message must be copied.
    pub fn hand_over(&self, spool: &Spool, entry: &Entry, uid: u32) -> Option<Outcome> {
        match self.try_to_hand_over(entry, uid) {
            Ok(HandedOver::Yes) => {
                // Even if the name in the spool cannot be removed, the message is delivered, and
                // the server notices that after a restart.
                if let Err(e) = entry.unlink().or_else(|e| if is_gone(&e) { Ok(()) } else { Err(e) }) {
                    ::log::error!("{}: remove a delivered message from the spool: {e}", entry.id());
                }
                Some(self.delivered())
            }
            Ok(HandedOver::NotNow) => None,
            Ok(HandedOver::Never) => {
                spool.note_not_renameable(self.path);
                None
            }
            Err(failed) => Some(self.failed(&failed)),
        }
    }

    fn try_to_hand_over(&self, entry: &Entry, uid: u32) -> Result<HandedOver, AgentError> {
        let failed = |error| AgentError::new("hand over the message in the spool", error);
        let file = entry.file_for(false).map_err(failed)?;
        if entry.handed_over_to().is_none() {
            if !entry.mark().map_err(failed)? {
                return Ok(HandedOver::Never);
            }
            match self.agents.rights().hand_over(uid, &file) {
                Err(e) if is_impossible(&e) => return Ok(HandedOver::Never),
                // The user's idle agent has ended, since there was mail for many other users.
                Err(e) if e.raw_os_error() == Some(Errno::ESRCH as i32) => return Ok(HandedOver::NotNow),
                result => result.map_err(failed)?,
            }
        }
        let request = Request::Accept {
            mailbox: self.path.to_owned(),
            name: self.file_name(entry.id(), 0, entry.name().size),
            prefix: file_prefix(entry.id(), 0),
        };
        match self.agents.perform(self.owner, &request, Some(&file)) {
            Ok(_) => Ok(HandedOver::Yes),
            // The agent failed after it had accepted the file.
            Err(_) if entry.is_accepted() => Ok(HandedOver::Yes),
            Err(failed) if is_impossible(&failed.error) => Ok(HandedOver::Never),
            Err(failed) => Err(failed),
        }
    }
}

/// Whether the mailbox can never take over a file of the spool: it is on another file system or
/// mount, or on one that does not support further hard links or changes of the owner.
fn is_impossible(error: &io::Error) -> bool {
    use io::ErrorKind::{CrossesDevices, PermissionDenied, TooManyLinks, Unsupported};
    matches!(error.kind(), CrossesDevices | PermissionDenied | TooManyLinks | Unsupported)
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

//! Delivers a direct entry to a system user by handing over the entry's file. A direct entry is a
//! message whose file in the spool can become a mailbox's file unchanged.
//!
//! Nothing is copied or synced: the monitor makes the user the file's owner (`privsep`), an agent
//! that runs as the user links the file into the Maildir, and the file's name in the spool is
//! removed. The intermediate states, also after a crash, are described in `spool`. If a handover is
//! not possible now, the message is copied. If no handover into the mailbox can ever succeed, the
//! mailbox is also noted as not renameable, so that later messages for it are queued. If in doubt,
//! the message is delivered twice rather than lost.

use std::io;

use nix::errno::Errno;

use super::maildir::{Maildir, file_prefix};
use crate::deliver::agent::{AgentError, Request};
use crate::outcome::Outcome;
use crate::spool::{Entry, Spool};

/// Whether the entry's file has become a file in the user's mailbox.
enum HandedOver {
    Yes,
    /// No, but a later handover into this mailbox may succeed.
    NotNow,
    /// No, and no handover into this mailbox can ever succeed.
    Never,
}

impl Maildir<'_> {
    /// Hands a direct entry over to the user `uid`. Returns `None` if a handover is not possible
    /// and the message must be copied.
    pub fn hand_over(&self, spool: &Spool, entry: &Entry, uid: u32) -> Option<Outcome> {
        match self.try_to_hand_over(entry, uid) {
            Ok(HandedOver::Yes) => {
                // The message is delivered even if the name in the spool cannot be removed. In that
                // case the server removes the name after a restart.
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
                // No agent runs as the user any more: only a few idle agents are kept, and there
                // was mail for many other users.
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

/// Whether the mailbox can never take over a file of the spool. The mailbox may be on another file
/// system or mount, or on a file system that does not support further hard links or changes of the
/// owner.
fn is_impossible(error: &io::Error) -> bool {
    use io::ErrorKind::{CrossesDevices, PermissionDenied, TooManyLinks, Unsupported};
    matches!(error.kind(), CrossesDevices | PermissionDenied | TooManyLinks | Unsupported)
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

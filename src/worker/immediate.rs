//! Delivers a message that was just committed, if the delivery needs only a rename.
//!
//! The session's thread, which committed the message, moves the message's file into the mailbox,
//! and the queue is not notified. Thus the most common kind of message needs no switch to other
//! threads. The steps on disk are the same as a worker's. If the delivery fails, the message is
//! left to the queue as if nothing had been tried, because only the queue defers, reports and tries
//! again.

use crate::deliver::local::maildir::Maildir;
use crate::deliver::quota;
use crate::log;
use crate::outcome::Fate;
use crate::session::Committed;
use crate::site::Site;
use crate::users::Owner;

/// Delivers a message into its mailbox. Returns false if the message must be left to the queue.
pub fn deliver_now(site: &Site, committed: &Committed<'_>) -> bool {
    let Some((recipient, mailbox)) = committed.maildir else { return false };
    let (path, size) = (&mailbox.path, committed.name.size);
    // Mail that does not fit is left to the queue, and so is the slow count of all files.
    let room = mailbox.quota.map(|quota| quota::reserve_at_once(path, quota, size));
    if matches!(room, Some(None)) {
        return false;
    }
    let room = room.flatten();
    let settings = site.settings();
    let hostname = &settings.config.hostname;
    let maildir = Maildir { path, hostname, owner: &Owner::Server, agents: &site.agents };
    let outcome = maildir.move_in(&site.spool, committed.name);
    let Some(outcome) = outcome.filter(|outcome| outcome.fate == Fate::Delivered) else {
        if let Some(room) = room {
            room.release(&site.agents, &Owner::Server);
        }
        return false;
    };
    if let Some(room) = room {
        room.confirm(&site.agents, &Owner::Server);
    }
    let id = committed.name.id;
    log::attempt(&log::Attempt {
        id: &id,
        recipient,
        original: None,
        via: "maildir",
        outcome: &outcome,
        cause: "",
        delay: id.age(),
        next: None,
    });
    log::done(&id);
    true
}

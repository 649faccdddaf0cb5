//! A message that was committed a moment ago and needs no more than a rename.
//!
//! Whoever committed it moves it into the mailbox, and the queue never hears of
//! it: two threads fewer to wake for the commonest message. The steps on disk are those
//! of a worker. What does not go well at once is the queue's, as if nothing had
//! been tried; it alone defers, bounces and tries again.

use crate::deliver::local::maildir::Maildir;
use crate::log;
use crate::outcome::Fate;
use crate::session::Committed;
use crate::site::Site;
use crate::users::Owner;

/// Delivers a message to the mailbox where it is at home. False if it is to be
/// given to the queue.
pub fn deliver_now(site: &Site, committed: &Committed<'_>) -> bool {
    let Some((recipient, path)) = committed.maildir else { return false };
    let settings = site.settings();
    let hostname = &settings.config.hostname;
    let mailbox = Maildir { path, hostname, owner: &Owner::Server, agents: &site.agents };
    let outcome = mailbox.take(&site.spool, committed.name);
    let Some(outcome) = outcome.filter(|outcome| outcome.fate == Fate::Delivered) else { return false };
    let id = committed.name.id;
    log::attempt(&log::Attempt {
        id: &id,
        recipient,
        original: None,
        via: "maildir",
        outcome: &outcome,
        delay: id.age(),
        next: None,
    });
    log::done(&id);
    true
}

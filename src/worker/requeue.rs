//! Looks up the recipients of a message anew on an administrator's request, as if the message had
//! just been received: in the virtual table, the aliases and among the users.
//!
//! Only recipients that still wait for the message are looked up, by the addresses that the client
//! gave. An address that has the message, or whose failure was reported, does not get it again. A
//! message that a list or a `.forward` file has passed on keeps its recipients, except that the
//! aliases of each are looked up: to follow the list again would send it to all members. The entry
//! is withdrawn from the queue meanwhile.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use crate::address::Address;
use crate::envelope::{Action, RcptOptions, Recipient};
use crate::route::{DomainClass, Expansion, Route, Router};
use crate::site::Site;
use crate::smtp::MAX_FINAL_RECIPIENTS;
use crate::spool::{self, DeliveryState, Entry, EntryName, NotMoved, RecipientEntry, State};

/// Why the recipients of a message were not looked up anew.
#[derive(Debug)]
pub enum NotRequeued {
    /// The entry cannot be changed.
    NotMoved(NotMoved),
    /// A table cannot be read now.
    Later(String),
    /// The recipients cannot be replaced.
    Never(&'static str),
}

impl<E: Into<NotMoved>> From<E> for NotRequeued {
    fn from(error: E) -> Self {
        Self::NotMoved(error.into())
    }
}

/// Looks up the recipients of a message anew. Returns the number of the recipients that wait for it.
/// `name` is the name of its entry before and after.
///
/// # Errors
/// [`NotRequeued`]; the recipients are the old ones.
pub fn requeue(site: &Site, name: &mut EntryName) -> Result<usize, NotRequeued> {
    if name.place == spool::Place::Hold {
        return Err(NotRequeued::Never("it is held: release it first"));
    }
    let mut entry = site.spool.completed(*name)?;
    let recipients = anew(&site.settings().router, &entry)?;
    let open = recipients.iter().filter(|to| to.record.state.is_open()).count();
    if open == 0 {
        return Err(NotRequeued::Never("its addresses lead only to recipients that have it already"));
    }
    // With copies, it may have had more.
    if recipients.len() > MAX_FINAL_RECIPIENTS.max(entry.recipients().len()) {
        return Err(NotRequeued::Never("it would have too many recipients"));
    }
    let replaced = entry.replace_recipients(&recipients);
    *name = entry.name();
    replaced?;
    Ok(open)
}

/// The recipients of an entry, looked up anew. The number of a recipient is part of the names of its
/// copies and reports, so no number gets another meaning: settled recipients stay where they are,
/// recipients that are no longer wanted become settled ones to which nothing is delivered, and new
/// ones come at the end.
fn anew(router: &Router, entry: &Entry) -> Result<Vec<RecipientEntry>, NotRequeued> {
    let is_settled = |to: &&RecipientEntry| !to.record.state.is_open();
    let settled = || entry.recipients().iter().filter(is_settled);
    let mut seen: HashSet<Key> = settled().map(|to| key(&to.recipient)).collect();
    let served: HashSet<Place> = settled().filter_map(|to| place(router, &to.recipient)).collect();
    let open = entry.recipients().iter().filter(|to| !is_settled(to));
    // A recipient that waits already has been promised the message by this address.
    let waiting: HashSet<Key> = open.clone().map(|to| key(&to.recipient)).collect();
    let is_new = |last: &Recipient| {
        waiting.contains(&key(last)) || place(router, last).is_none_or(|place| !served.contains(&place))
    };
    let mut wanted: Vec<RecipientEntry> = Vec::new();
    for to in open.filter(|to| !is_kept(entry, to)) {
        let is_derived = !entry.steps().is_empty();
        let original = to.recipient.original.as_ref().filter(|_| !is_derived);
        let given = original.unwrap_or(&to.recipient.address);
        let finals = finals(router, given)?;
        let options = options(&to.recipient.options, finals.len());
        let share = to.share / u32::try_from(finals.len()).unwrap_or(u32::MAX).max(1);
        for last in finals.into_iter().filter(|last| is_new(last) && seen.insert(key(last))) {
            let original = match &to.recipient.original {
                Some(original) if is_derived || to.recipient.is_copy() => Some(original.clone()),
                _ => (last.address != *given).then(|| given.clone()),
            };
            let record = DeliveryState { state: State::Todo, last: 0, warned: to.record.warned };
            let recipient = Recipient { original, options: options.clone(), ..last };
            wanted.push(RecipientEntry { number: 0, offset: 0, recipient, record, share });
        }
    }
    let mut places: HashMap<Key, usize> = wanted.iter().enumerate().map(|(at, to)| (key(&to.recipient), at)).collect();
    let mut wanted: Vec<Option<RecipientEntry>> = wanted.into_iter().map(Some).collect();
    let in_place = entry.recipients().iter().map(|to| {
        if is_settled(&to) || is_kept(entry, to) {
            return to.clone();
        }
        let same = places.remove(&key(&to.recipient)).and_then(|at| wanted.get_mut(at)?.take());
        same.unwrap_or_else(|| RecipientEntry {
            recipient: Recipient { action: Action::Replaced, ..to.recipient.clone() },
            record: DeliveryState { state: State::Done, ..to.record },
            ..to.clone()
        })
    });
    let mut recipients: Vec<RecipientEntry> = in_place.collect();
    recipients.extend(wanted.into_iter().flatten());
    Ok(recipients)
}

/// What makes two final recipients the same.
type Key = (Address, Action);

fn key(to: &Recipient) -> Key {
    (to.address.clone(), to.action.clone())
}

/// The place where the mail of a local recipient arrives, which several addresses may lead to: those
/// with a detail or in another case, and those of several domains.
#[derive(PartialEq, Eq, Hash)]
enum Place {
    Mailbox(PathBuf),
    User(String, String),
}

/// The place of a final recipient; `None` if it is not known whether another address leads there, too.
fn place(router: &Router, to: &Recipient) -> Option<Place> {
    let (is_ordinary, address) = (matches!(to.action, Action::Deliver | Action::Direct), &to.address);
    if !is_ordinary || router.class_of(address.domain()) != DomainClass::Local {
        return None;
    }
    Some(match router.route(address) {
        Route::Mailbox(mailbox) => Place::Mailbox(mailbox.path),
        _ => Place::User(router.base(address).to_lowercase(), address.domain().to_owned()),
    })
}

/// Whether an open recipient is not looked up.
fn is_kept(entry: &Entry, to: &RecipientEntry) -> bool {
    let is_derived = !entry.steps().is_empty();
    matches!(to.record.state, State::Unreported(_))
        || to.recipient.action == Action::Replaced
        || is_derived && to.recipient.action != Action::Deliver
}

/// The final recipients of an address. An address that does not exist any more is its own one, so that its
/// delivery fails and the sender gets a report.
fn finals(router: &Router, given: &Address) -> Result<Vec<Recipient>, NotRequeued> {
    let expansion = match router.class_of(given.domain()) {
        DomainClass::Local => router.expand(given),
        DomainClass::Relay | DomainClass::Elsewhere => Expansion::Unknown,
    };
    match expansion {
        Expansion::Finals(finals) => Ok(finals),
        Expansion::Unknown | Expansion::Refused(..) => Ok(vec![Recipient::new(given.clone())]),
        Expansion::Temporary(why) => Err(NotRequeued::Later(why)),
    }
}

/// The options of each of several final recipients (RFC 3461 5.2.7).
fn options(given: &RcptOptions, count: usize) -> RcptOptions {
    if count > 1 { given.without_success() } else { given.clone() }
}

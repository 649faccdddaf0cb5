//! Forwards a message by a user's `.forward`, or by an alias that includes a list or has an owner.
//!
//! Both are expanded when a message is delivered, not when it is accepted. An expansion makes one
//! new entry of the spool, the derived entry, which is for the new recipients. How that happens
//! exactly once is described in `spool`. The message of the derived entry begins with the field
//! `Delivered-To:`, which names the address that was expanded.
//!
//! The head of the derived entry names the lists and files that were followed so far, and for each
//! recipient its allowance: how many further recipients may be derived from it. A recipient's
//! allowance is divided among the recipients that are derived from it, so that the total is bounded
//! whatever the files contain. Nothing that a sender writes makes an allowance grow. If a message
//! has left for another host and come back, only its header shows that. So the header is searched
//! before the first expansion, and can reduce the allowance or reveal a loop. If a list or file was
//! followed before, there is a loop, which is reported to the sender. There is one exception: if a
//! user's file leads to a detail of the same user, such as `jon+list` for `jon`, and the same file
//! applies to that detail, the message goes into the user's mailbox.
//!
//! A `.forward` that is not trusted, or names too many addresses or none that exists, is ignored
//! with a warning, and the message goes into the mailbox. If a file cannot be read, the message is
//! deferred. Files are read by `deliver::agent`.

use std::collections::HashSet;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::onward::Onward;
use super::{LocalDelivery, unexpected_response};
use crate::address::{Address, fold, is_same_local};
use crate::aliases::{self, Member};
use crate::deliver::agent::{Request, Response};
use crate::envelope::{Action, Origin, Recipient};
use crate::message::{field, trace};
use crate::outcome::{Outcome, Via};
use crate::reply::Status;
use crate::route::{DomainClass, Expansion, Router};
use crate::spool::{RecipientEntry, State, Step};
use crate::users::{Account, Mailbox, Owner};

/// Maximum number of lists that one address leads to, nested lists included.
const MAX_LISTS: usize = 100;
/// Maximum number of members of one list, including the members of nested lists.
const MAX_MEMBERS: usize = 10_000;
/// Maximum number of members of a `.forward`, including the members of its lists.
const MAX_FORWARD_MEMBERS: usize = 1000;
/// Maximum number of recipients that may be derived from a recipient that has a `.forward`.
const MAX_FORWARDED: u32 = 1000;
/// If a message is for many details of one user, such as `jon+a` and `jon+b`, they share
/// [`MAX_FORWARDED`], but each may always have this many recipients derived from it. If the message
/// has passed another detail and come back from another host, this number is also the maximum.
const MIN_FORWARDED: u32 = 10;
/// A message with this many `Delivered-To:` fields that name details of one user is in a loop.
const MAX_DETAILS: usize = 3;
/// Maximum number of recipients that are searched for other details of a user.
const MAX_COUNTED: usize = 2000;
/// Maximum number of recipients that may be derived from a recipient that is a list.
const MAX_LISTED: u32 = 1_000_000;
/// Maximum number of recipients that may be derived from a recipient of a report.
const MAX_OF_REPORT: u32 = 100;
/// Maximum number of lists and `.forward` files that are followed one after another.
const MAX_STEPS: usize = 10;
/// Maximum number of malformed lines of one file that are logged.
const MAX_LOGGED_LINES: usize = 10;
/// Number of bytes at the front of a message that are searched for `Delivered-To:` fields.
const MAX_HEADER: u64 = 1 << 20;

impl LocalDelivery<'_> {
    /// Follows a user's `.forward`. Returns `None` if the message goes into the mailbox instead.
    pub(super) fn forward(&mut self, addressee: &RecipientEntry, owner: &Owner) -> Option<Outcome> {
        let Owner::User(account) = owner else { return None };
        if addressee.recipient.action != Action::Deliver || addressee.record.state != State::Todo {
            return None;
        }
        match self.find_forward(addressee, account, owner) {
            Ok(None) => None,
            Ok(Some((onward, finals))) => Some(self.pass_on(addressee, onward, finals)),
            Err(outcome) => Some(outcome.via(Via::Forward)),
        }
    }

    /// Expands an alias that includes a list or has an owner.
    pub(super) fn expand_list(&mut self, addressee: &RecipientEntry) -> Outcome {
        let address = &addressee.recipient.address;
        let list = match self.router.list(address) {
            Ok(Some(list)) => list,
            Ok(None) => return Outcome::failed(Status(5, 1, 1), "User unknown").via(Via::List),
            Err(why) => return Outcome::deferred(Status(4, 3, 5), why).via(Via::List),
        };
        if self.is_named_before(addressee, &list.name) {
            return Outcome::delivered("the list has it by another detail").via(Via::List);
        }
        let step = Step::list(&list.name);
        let found = self.check_loop(addressee, &step, Some(&list.name)).and_then(|allowed| {
            let members = self.read_lists(list.members, &Owner::Server, MAX_MEMBERS)?;
            match self.router.expand_members(address, &members, None) {
                Expansion::Finals(finals) => Ok((Onward { step, allowed, via: Via::List, owner: list.owner }, finals)),
                other => Err(not_expanded(&other)),
            }
        });
        match found {
            Ok((onward, finals)) => self.pass_on(addressee, onward, finals),
            Err(outcome) => outcome.via(Via::List),
        }
    }

    /// Whether an earlier recipient of the message is also the list with this name. If so, the list
    /// has the message already, and does not get it again.
    fn is_named_before(&self, addressee: &RecipientEntry, list: &str) -> bool {
        let mut before = self.entry.recipients().iter().take_while(|other| other.number < addressee.number);
        before.any(|other| {
            other.recipient.action == Action::Expand
                && other.record.state != State::Failed
                && other.recipient.address.domain() == addressee.recipient.address.domain()
                && self.router.list_name(&other.recipient.address).as_deref() == Some(list)
        })
    }

    /// Returns the recipients that a user's `.forward` names, or `None` if the message goes into
    /// the mailbox instead.
    fn find_forward(
        &self,
        addressee: &RecipientEntry,
        account: &Account,
        owner: &Owner,
    ) -> Result<Option<(Onward, Vec<Recipient>)>, Outcome> {
        let (router, address) = (self.router, &addressee.recipient.address);
        let ignored = |why: &str| {
            ::log::warn!("{}: ignored ~/.forward of {}: {why}", self.entry.id(), account.name);
            Ok(None)
        };
        let (file, text) = match self.read_forward(address, account, owner)? {
            Some((file, Ok(text))) => (file, text),
            Some((_, Err(why))) => return ignored(&why),
            None => return Ok(None),
        };
        let (members, errors) = aliases::list(&text);
        self.log_skipped_lines(&format!("~/.forward of {}", account.name), &errors);
        let step = Step::forward(&account.name, &file);
        // If the last step followed this file as well, the file has led to a detail of its own
        // user. The message then goes into the user's mailbox.
        if members.is_empty() || self.entry.steps().last() == Some(&step) {
            return Ok(None);
        }
        let allowed = self.check_loop(addressee, &step, None)?;
        if members.len() > MAX_FORWARD_MEMBERS {
            return ignored(&format!("it names more than {MAX_FORWARD_MEMBERS} addresses"));
        }
        let members = self.read_lists(members, owner, MAX_FORWARD_MEMBERS)?;
        match router.expand_members(address, &members, Some(&account.name)) {
            Expansion::Finals(finals) if is_own_mailbox(&finals, address) => Ok(None),
            Expansion::Finals(finals) => Ok(Some((Onward { step, allowed, via: Via::Forward, owner: None }, finals))),
            Expansion::Unknown => ignored("none of the addresses it names exists"),
            other => Err(not_expanded(&other)),
        }
    }

    /// Reads the first `.forward` file of a user that applies to an address. Returns the name of
    /// the file, and its text or the reason why the file is refused. Returns `None` if there is no
    /// such file.
    fn read_forward(&self, address: &Address, account: &Account, owner: &Owner) -> Result<Option<Forward>, Outcome> {
        let extension = self.router.extension(address);
        for name in names(extension.as_ref().map(|(mark, text)| (*mark, &**text))) {
            let request = Request::Forward { home: account.home.clone(), uid: account.uid, names: vec![name.clone()] };
            match self.agents.perform(owner, &request, None) {
                Ok(Response::Text(text)) => return Ok(Some((name, Ok(text)))),
                Ok(Response::Refused(why)) => return Ok(Some((name, Err(why)))),
                Ok(Response::Absent) => {}
                Ok(_) => return Err(unexpected_response()),
                Err(trouble) => return Err(Outcome::from_io(&trouble.doing, &trouble.error)),
            }
        }
        Ok(None)
    }

    /// Replaces each list among `members` by the members of that list. A list that is named several
    /// times is read once. Skips malformed lines, and also commands and files in a list that an
    /// alias includes. Fails if no member is left.
    fn read_lists(&self, members: Vec<Member>, owner: &Owner, max: usize) -> Result<Vec<Member>, Outcome> {
        let (mut found, mut lists, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
        let mut sort = |members: Vec<Member>, found: &mut Vec<Member>, lists: &mut Vec<Box<str>>| {
            for member in members {
                match member {
                    Member::Include(file) if seen.insert(file.clone()) => lists.push(file),
                    Member::Include(_) => {}
                    member => found.push(member),
                }
            }
        };
        sort(members, &mut found, &mut lists);
        let mut at = 0;
        while let Some(file) = lists.get(at).cloned() {
            at += 1;
            if at > MAX_LISTS {
                return Err(Outcome::deferred(Status(4, 3, 5), format!("it leads to more than {MAX_LISTS} lists")));
            }
            let members = self.read_list(&file, owner)?;
            sort(members, &mut found, &mut lists);
            if found.len() > max {
                let why = format!("its lists name more than {max} addresses");
                return Err(Outcome::deferred(Status(4, 3, 5), why));
            }
        }
        // The failure is temporary, since a program may be writing the file at this moment.
        if found.is_empty() {
            return Err(Outcome::deferred(Status(4, 3, 5), "nobody is on the list"));
        }
        Ok(found)
    }

    fn read_list(&self, file: &str, owner: &Owner) -> Result<Vec<Member>, Outcome> {
        let unusable = |why: &str| Err(Outcome::deferred(Status(4, 3, 5), format!("the list {file}: {why}")));
        let text = match self.agents.perform(owner, &Request::Read { file: Path::new(file).to_owned() }, None) {
            Ok(Response::Text(text)) => text,
            Ok(Response::Absent) => return unusable("there is no such file"),
            Ok(Response::Refused(why)) => return unusable(&why),
            Ok(_) => return Err(unexpected_response()),
            Err(trouble) => return Err(Outcome::from_io(&trouble.doing, &trouble.error)),
        };
        let (mut members, errors) = aliases::list(&text);
        self.log_skipped_lines(file, &errors);
        if owner == &Owner::Server {
            let is_address = |member: &Member| !matches!(member, Member::Run(_) | Member::File(_));
            if !members.iter().all(is_address) {
                ::log::warn!("{}: {file}: skipped: commands and files in a list", self.entry.id());
            }
            members.retain(is_address);
        }
        Ok(members)
    }

    /// Logs the skipped lines of a file.
    fn log_skipped_lines(&self, file: &str, errors: &[(usize, String)]) {
        let id = self.entry.id();
        for (line, what) in errors.iter().take(MAX_LOGGED_LINES) {
            ::log::warn!("{id}: {file}:{line}: skipped: {what}");
        }
        if let Some(others) = errors.len().checked_sub(MAX_LOGGED_LINES).filter(|others| *others > 0) {
            ::log::warn!("{id}: {file}: {others} more lines are skipped");
        }
    }

    /// Checks that `step` was not followed before, and that fewer than [`MAX_STEPS`] steps were
    /// followed. Returns the allowance: how many recipients may be derived from the addressee. If
    /// the message has been on another host, only its `Delivered-To:` fields show that, so they are
    /// searched before the first step. If the fields name the addressee's own address or list, or
    /// many details of the user, there is a loop. If the fields name a few details, the allowance
    /// is reduced.
    fn check_loop(&self, addressee: &RecipientEntry, step: &Step, list: Option<&str>) -> Result<u32, Outcome> {
        let (steps, address, router) = (self.entry.steps(), &addressee.recipient.address, self.router);
        let failed = |why: String| Err(Outcome::failed(Status(5, 4, 6), why));
        if steps.contains(step) {
            return failed(format!("mail forwarding loop for {address}"));
        }
        if steps.len() >= MAX_STEPS {
            return failed(format!("it was already passed on {MAX_STEPS} times, and {address} leads to others"));
        }
        let allowed = self.allowance(addressee, list.is_none());
        if !steps.is_empty() {
            return Ok(allowed);
        }
        let user = router.base(address);
        let (mut is_loop, mut details) = (false, 0);
        let searched = each_delivered_to(self.entry.content(), |named| {
            if named.domain() == address.domain() {
                is_loop |= match list {
                    Some(list) => router.list_name(&named).as_deref() == Some(list),
                    None => is_same_local(named.local(), address.local()),
                };
                details += usize::from(list.is_none() && is_same_local(router.base(&named), user));
            }
        });
        match searched {
            Err(e) => Err(Outcome::from_io("read the message in the spool", &e)),
            Ok(()) if is_loop || details >= MAX_DETAILS => failed(format!("mail forwarding loop for {address}")),
            Ok(()) if details > 0 => Ok(allowed.min(MIN_FORWARDED)),
            Ok(()) => Ok(allowed),
        }
    }

    /// Returns the allowance of a recipient: how many further recipients may be derived from it.
    fn allowance(&self, addressee: &RecipientEntry, is_forward: bool) -> u32 {
        let is_derived = !self.entry.steps().is_empty();
        let left = match self.entry.origin() {
            _ if is_derived => addressee.share,
            Origin::Client | Origin::Own => MAX_LISTED,
            Origin::DmarcReport | Origin::TlsReport | Origin::Report | Origin::Postmaster => MAX_OF_REPORT,
        };
        match is_forward {
            true if is_derived => left.min(MAX_FORWARDED),
            true => left.min((MAX_FORWARDED / self.count_details(&addressee.recipient.address)).max(MIN_FORWARDED)),
            false => left,
        }
    }

    /// The number of recipients that are details of the same user as `address`; at least one.
    fn count_details(&self, address: &Address) -> u32 {
        let base = |address: &Address| fold(self.router.base(address)).into_owned();
        let user = base(address);
        let is_same = |other: &&RecipientEntry| {
            let other = &other.recipient.address;
            other.domain() == address.domain() && base(other) == user
        };
        u32::try_from(self.entry.recipients().iter().take(MAX_COUNTED).filter(is_same).count())
            .unwrap_or(u32::MAX)
            .max(1)
    }

    /// Divides `left`, the rest of an allowance, among the new recipients that may lead to others:
    /// three quarters among lists, and the rest among local users. Returns the share of each
    /// recipient.
    pub(super) fn shares(&self, left: u32, recipients: &[Recipient]) -> Vec<u32> {
        let router = self.router;
        let is_list = |to: &&Recipient| to.action == Action::Expand;
        let is_user = |to: &&Recipient| {
            to.action == Action::Deliver && router.class_of(to.address.domain()) == DomainClass::Local
        };
        let count = |is: &dyn Fn(&&Recipient) -> bool| recipients.iter().filter(is).count();
        let (lists, users) = divided(left, count(&is_list), count(&is_user));
        let share = |to| match () {
            () if is_list(&to) => lists,
            () if is_user(&to) => users,
            () => 0,
        };
        recipients.iter().map(share).collect()
    }
}

/// The name of a `.forward` file in a home, and its text or the reason why it is refused.
type Forward = (String, Result<String, String>);

/// The names of the `.forward` files to look for in a home, in order.
fn names(extension: Option<(char, &str)>) -> Vec<String> {
    let is_plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-=.".contains(&b));
    // The extension comes from a client and must not lead out of the home.
    let extension = extension.filter(|(mark, text)| *mark != '/' && is_plain(text) && !text.contains(".."));
    let with_extension = extension.map(|(mark, text)| format!(".forward{mark}{text}"));
    with_extension.into_iter().chain([".forward".to_owned()]).collect()
}

/// The files that redirect the mail of a recipient with this mailbox, if they exist.
pub fn files(router: &Router, mailbox: &Mailbox, recipient: &Recipient) -> Vec<PathBuf> {
    let Owner::User(account) = &mailbox.owner else { return Vec::new() };
    if recipient.action != Action::Deliver {
        return Vec::new();
    }
    let extension = router.extension(&recipient.address);
    let names = names(extension.as_ref().map(|(mark, text)| (*mark, &**text)));
    names.into_iter().map(|name| account.home.join(name)).collect()
}

/// Whether the only recipient is the user's own mailbox.
fn is_own_mailbox(finals: &[Recipient], address: &Address) -> bool {
    matches!(finals, [only] if only.action == Action::Direct
        && only.address.domain() == address.domain()
        && is_same_local(only.address.local(), address.local()))
}

fn not_expanded(expansion: &Expansion) -> Outcome {
    match expansion {
        Expansion::Refused(status, why) => Outcome::failed(*status, why.as_str()),
        Expansion::Temporary(why) => Outcome::deferred(Status(4, 3, 0), why.as_str()),
        Expansion::Finals(_) | Expansion::Unknown => {
            Outcome::failed(Status(5, 1, 1), "none of the addresses it names exists")
        }
    }
}

/// Divides the allowance `left` among a number of lists and a number of users. Returns the share of
/// each list and the share of each user.
fn divided(left: u32, lists: usize, users: usize) -> (u32, u32) {
    let each =
        |total: u32, count: usize| u32::try_from(count).ok().and_then(|count| total.checked_div(count)).unwrap_or(0);
    let for_lists = match (lists, users) {
        (0, _) => 0,
        (_, 0) => left,
        _ => left - left / 4,
    };
    (each(for_lists, lists), each(left - for_lists, users))
}

/// Calls `take` with each address that a `Delivered-To:` field of a message names.
fn each_delivered_to(content: impl Read, mut take: impl FnMut(Address)) -> io::Result<()> {
    field::scan(content, MAX_HEADER, |name, body| {
        if let Some(address) = trace::delivered_to(name, body) {
            take(address);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_extension_leads_out_of_the_home() {
        for (extension, files) in [
            (None, vec![".forward"]),
            (Some(('+', "lists")), vec![".forward+lists", ".forward"]),
            (Some(('-', "a-b_c=1.2")), vec![".forward-a-b_c=1.2", ".forward"]),
            (Some(('+', "/../../etc/passwd")), vec![".forward"]),
            (Some(('+', "..")), vec![".forward"]),
            (Some(('/', "x")), vec![".forward"]),
            (Some(('+', "a b")), vec![".forward"]),
            (Some(('+', "%2e%2e")), vec![".forward"]),
        ] {
            assert_eq!(names(extension), files);
        }
    }

    #[test]
    fn delivered_to_is_found_in_the_header_only() {
        let long = format!("Subject: {}Delivered-To: jon@here\n\n", "x".repeat(field::MAX_LINE - 9));
        for (text, found) in [
            ("Delivered-To: \"j on\"@here\nSubject: x\n\n", &["\"j on\"@here"][..]),
            ("Subject: x\ndelivered-to:\"J\\ ON\"@HERE\n", &["\"J ON\"@here"]),
            ("Delivered-To: jon+x@here\nDelivered-To: mary@here\n\n", &["jon+x@here", "mary@here"]),
            ("Delivered-To : jon@here\nA: b\n \nDelivered-To: mary@here\n\n", &["jon@here", "mary@here"]),
            ("Delivered-To: j on@here\n\n", &[]),
            ("Subject: x\n\nDelivered-To: jon@here\n", &[]),
            ("X-Delivered-To: jon@here\n\n", &[]),
            ("", &[]),
            (&long, &[]),
        ] {
            let mut addresses = Vec::new();
            each_delivered_to(text.as_bytes(), |named| addresses.push(named.to_string())).expect("memory");
            assert_eq!(addresses, found, "{text}");
        }
    }

    #[test]
    fn the_allowance_is_divided_and_never_grows() {
        for (left, lists, users, shares) in [
            (100, 0, 0, (0, 0)),
            (100, 0, 3, (0, 33)),
            (100, 4, 0, (25, 0)),
            (100, 1, 5, (75, 5)),
            (3, 1, 5, (3, 0)),
            (0, 1, 1, (0, 0)),
            (u32::MAX, 1, 1, (u32::MAX - u32::MAX / 4, u32::MAX / 4)),
            // A list that has 40 lists and 1000 users as members.
            (MAX_LISTED - 1040, 40, 1000, (18_730, 249)),
        ] {
            assert_eq!(divided(left, lists, users), shares);
            let (each_list, each_user) = (shares.0 as usize, shares.1 as usize);
            assert!(each_list * lists + each_user * users <= left as usize);
        }
    }
}

//! Mail that goes on to others: a user's `.forward`, the list or the owner of an alias.
//!
//! Both are looked at when a message is delivered, not when it comes, and beget one entry
//! with the recipients that they lead to, made once by the prepared step. The message in
//! it begins with `Delivered-To:` and the address that was followed.
//!
//! The head of the new entry says what was followed on the way, and how many recipients may
//! come of each of its own. Nothing that a sender writes makes that more: only where a
//! message was on other hosts is read in its header, once, and makes it less, or a loop. What
//! was followed before is a loop, and the sender is told; but a file of a user's that leads
//! to a detail of his, for which the same file would be followed, means his mailbox. The
//! recipients that may come of one are divided among those that it leads to, so that all
//! of them together are bounded whatever the files say.
//!
//! A `.forward` that is not to be believed or makes no sense is passed over and the log
//! says so: the mail is in the mailbox then. AgentError with a file defers. Opens nothing
//! itself: who has the rights does.

use std::collections::HashSet;
use std::io::{self, Read};
use std::path::Path;

use super::{LocalDelivery, unexpected_response};
use crate::address::Address;
use crate::aliases::{self, Member};
use crate::deliver::agent::{Request, Response};
use crate::deliver::log_outcome;
use crate::envelope::{Action, Envelope, Origin, Recipient};
use crate::message::{field, trace};
use crate::outcome::{Fate, Outcome, Via};
use crate::reply::Status;
use crate::route::{DomainClass, Expansion};
use crate::spool::{Derivation, RecipientEntry, State, Step};
use crate::users::{Account, Owner};

/// Lists that one address may lead to, those in lists counted too.
const MAX_LISTS: usize = 100;
/// Members of one list, those of the lists in it counted too.
const MAX_MEMBERS: usize = 10_000;
/// Members of a `.forward`, with those of its lists.
const MAX_NAMED: usize = 1000;
/// All recipients that come of it.
const MAX_FORWARDED: u32 = 1000;
/// What is left of that for each of many details of one user in a message, and for a detail
/// of a user whom the message has reached before, over another host.
const MIN_FORWARDED: u32 = 10;
/// Details of a user whom a message has reached before that make it a loop.
const MAX_DETAILS: usize = 3;
/// Recipients of a message that are looked through for such details.
const MAX_COUNTED: usize = 2000;
/// Recipients that come of one recipient of a message by lists.
const MAX_LISTED: u32 = 1_000_000;
/// Recipients that come of one recipient of a report.
const MAX_OF_REPORT: u32 = 100;
/// Lists and `.forward` files between a message and what comes of it.
const MAX_STEPS: usize = 10;
/// Lines of one file that the log names.
const MAX_TOLD: usize = 10;
/// As much of a header as is looked through.
const MAX_HEADER: u64 = 1 << 20;

impl LocalDelivery<'_> {
    /// What becomes of mail for a user who has a `.forward`; `None`: it goes into his mailbox.
    pub(super) fn forward(&mut self, addressee: &RecipientEntry, owner: &Owner) -> Option<Outcome> {
        let Owner::User(account) = owner else { return None };
        if addressee.recipient.action != Action::Deliver || addressee.record.state != State::Todo {
            return None;
        }
        match self.find_forward(addressee, account, owner) {
            Ok(None) => None,
            Ok(Some((onward, finals))) => {
                let sender = self.entry.sender().cloned();
                Some(self.pass_on(addressee, onward, finals, sender))
            }
            Err(outcome) => Some(outcome.via(Via::Forward)),
        }
    }

    /// Mail for an alias that names a list or has an owner.
    pub(super) fn expand_list(&mut self, addressee: &RecipientEntry) -> Outcome {
        let address = &addressee.recipient.address;
        let list = match self.router.list(address) {
            Ok(Some(list)) => list,
            Ok(None) => return Outcome::failed(Status(5, 1, 1), "User unknown").via(Via::List),
            Err(why) => return Outcome::deferred(Status(4, 3, 5), why).via(Via::List),
        };
        // No report is to beget another one.
        let sender = self.entry.sender().map(|sender| list.owner.as_ref().unwrap_or(sender).clone());
        if self.is_named_before(addressee, &list.name) {
            return Outcome::delivered("the list has it by another detail").via(Via::List);
        }
        let step = Step::list(&list.name);
        let found = self.check_loop(addressee, &step, Some(&list.name)).and_then(|most| {
            let members = self.read_lists(list.members, &Owner::Server, MAX_MEMBERS)?;
            match self.router.expand_members(address, &members, None) {
                Expansion::Finals(finals) => Ok((Onward { step, most, via: Via::List }, finals)),
                other => Err(not_expanded(&other)),
            }
        });
        match found {
            Ok((onward, finals)) => self.pass_on(addressee, onward, finals, sender),
            Err(outcome) => outcome.via(Via::List),
        }
    }

    /// Whether a recipient before this one is the same list: it has one copy of a message.
    fn is_named_before(&self, addressee: &RecipientEntry, list: &str) -> bool {
        let mut before = self.entry.recipients().iter().take_while(|other| other.number < addressee.number);
        before.any(|other| {
            other.recipient.action == Action::Expand
                && other.record.state != State::Failed
                && other.recipient.address.domain() == addressee.recipient.address.domain()
                && self.router.list_name(&other.recipient.address).as_deref() == Some(list)
        })
    }

    /// Whom a user's `.forward` names; `None` where it is not to be followed.
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
        self.tell_lines(&format!("~/.forward of {}", account.name), &errors);
        let step = Step::forward(&account.name, &file);
        // The last one: it names a detail of his own.
        if members.is_empty() || self.entry.steps().last() == Some(&step) {
            return Ok(None);
        }
        let most = self.check_loop(addressee, &step, None)?;
        if members.len() > MAX_NAMED {
            return ignored(&format!("it names more than {MAX_NAMED} addresses"));
        }
        let members = self.read_lists(members, owner, MAX_NAMED)?;
        match router.expand_members(address, &members, Some(&account.name)) {
            Expansion::Finals(finals) if is_himself(&finals, address) => Ok(None),
            Expansion::Finals(finals) => Ok(Some((Onward { step, most, via: Via::Forward }, finals))),
            Expansion::Unknown => ignored("nobody whom it names exists"),
            other => Err(not_expanded(&other)),
        }
    }

    /// The first of the files that a user may have for an address: its name, and its text or why
    /// it is not to be believed.
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

    /// The members with those of all lists that they name, each list read once. A line
    /// that makes no sense is passed over, and so is a command or a file in a list, unless
    /// it is a user's own. Nobody at all is trouble.
    fn read_lists(&self, members: Vec<Member>, owner: &Owner, most: usize) -> Result<Vec<Member>, Outcome> {
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
            if found.len() > most {
                let why = format!("its lists name more than {most} addresses");
                return Err(Outcome::deferred(Status(4, 3, 5), why));
            }
        }
        // It may be one that is just being written.
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
        self.tell_lines(file, &errors);
        if owner == &Owner::Server {
            let is_address = |member: &Member| !matches!(member, Member::Run(_) | Member::File(_));
            if !members.iter().all(is_address) {
                ::log::warn!("{}: {file}: passed over: commands and files in a list", self.entry.id());
            }
            members.retain(is_address);
        }
        Ok(members)
    }

    /// Logs which lines of a file are passed over.
    fn tell_lines(&self, file: &str, errors: &[(usize, String)]) {
        let id = self.entry.id();
        for (line, what) in errors.iter().take(MAX_TOLD) {
            ::log::warn!("{id}: {file}:{line}: passed over: {what}");
        }
        if let Some(others) = errors.len().checked_sub(MAX_TOLD).filter(|others| *others > 0) {
            ::log::warn!("{id}: {file}: {others} more lines are passed over");
        }
    }

    /// That what an address leads to was not followed before, nor too much else: how many
    /// recipients may come of it. Whether it was on another host and came back only the header
    /// can say: an address that stands there is a loop, and a user's other details make it less.
    fn check_loop(&self, addressee: &RecipientEntry, step: &Step, list: Option<&str>) -> Result<u32, Outcome> {
        let (steps, address, router) = (self.entry.steps(), &addressee.recipient.address, self.router);
        let failed = |why: String| Err(Outcome::failed(Status(5, 4, 6), why));
        if steps.contains(step) {
            return failed(format!("mail forwarding loop for {address}"));
        }
        if steps.len() >= MAX_STEPS {
            return failed(format!("it was passed on {MAX_STEPS} times already, and {address} leads to others"));
        }
        let most = self.allowance(addressee, list.is_none());
        if !steps.is_empty() {
            return Ok(most);
        }
        let own = router.base(address);
        let (mut is_loop, mut details) = (false, 0);
        let looked = each_delivered_to(self.entry.content(), |named| {
            if named.domain() == address.domain() {
                is_loop |= match list {
                    Some(list) => router.list_name(&named).as_deref() == Some(list),
                    None => named.local().eq_ignore_ascii_case(address.local()),
                };
                details += usize::from(list.is_none() && router.base(&named).eq_ignore_ascii_case(own));
            }
        });
        match looked {
            Err(e) => Err(Outcome::from_io("read the message in the spool", &e)),
            Ok(()) if is_loop || details >= MAX_DETAILS => failed(format!("mail forwarding loop for {address}")),
            Ok(()) if details > 0 => Ok(most.min(MIN_FORWARDED)),
            Ok(()) => Ok(most),
        }
    }

    /// How many recipients may come of one.
    fn allowance(&self, addressee: &RecipientEntry, is_forward: bool) -> u32 {
        let is_derived = !self.entry.steps().is_empty();
        let left = match self.entry.origin() {
            _ if is_derived => addressee.share,
            Origin::Client => MAX_LISTED,
            Origin::Report | Origin::Postmaster => MAX_OF_REPORT,
        };
        match is_forward {
            true if is_derived => left.min(MAX_FORWARDED),
            true => left.min((MAX_FORWARDED / self.same_user(&addressee.recipient.address)).max(MIN_FORWARDED)),
            false => left,
        }
    }

    /// How many recipients are details of one user; at least one.
    fn same_user(&self, address: &Address) -> u32 {
        let base = |of: &Address| self.router.base(of).to_ascii_lowercase();
        let own = base(address);
        let is_same = |other: &&RecipientEntry| {
            let other = &other.recipient.address;
            other.domain() == address.domain() && base(other) == own
        };
        u32::try_from(self.entry.recipients().iter().take(MAX_COUNTED).filter(is_same).count())
            .unwrap_or(u32::MAX)
            .max(1)
    }

    /// What is left, divided among recipients that may lead to others: three quarters among
    /// lists, and the rest among users here.
    fn shares(&self, left: u32, recipients: &[Recipient]) -> Vec<u32> {
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

    /// Makes the entry for whom an address stands, and settles the recipient.
    fn pass_on(
        &mut self,
        addressee: &RecipientEntry,
        onward: Onward,
        finals: Vec<Recipient>,
        sender: Option<Address>,
    ) -> Outcome {
        let Onward { step, most, via } = onward;
        let Recipient { address, original, .. } = &addressee.recipient;
        let known = original.as_ref().unwrap_or(address);
        let count = finals.len();
        let Some(left) = u32::try_from(count).ok().and_then(|count| most.checked_sub(count)) else {
            let why = format!("mail is multiplied: {address} leads to {count} recipients, and at most {most} are left");
            return Outcome::failed(Status(5, 4, 6), why).via(via);
        };
        let descent = Derivation {
            steps: self.entry.steps().iter().cloned().chain([step]).collect(),
            shares: self.shares(left, &finals),
        };
        let recipient = |to: Recipient| Recipient { original: (to.address != *known).then(|| known.clone()), ..to };
        let envelope = Envelope {
            sender,
            recipients: finals.into_iter().map(recipient).collect(),
            options: self.entry.options(),
            origin: self.entry.origin(),
        };
        let front = trace::delivered_to_field(address);
        let made = self
            .make_queued()
            .and_then(|()| self.entry.forward(addressee.number, (&envelope, &descent), &front, self.now));
        let outcome = match made {
            Ok(child) => {
                self.derived.push(child);
                Outcome::delivered(format!("passed on as {} to {}", child.id, envelope.recipients.len())).via(via)
            }
            Err(e) => Outcome::from_io("keep the message for whom the address stands for", &e).via(via),
        };
        // The recipient is settled, and nothing else will say so.
        if outcome.fate == Fate::Delivered {
            log_outcome(self.entry, addressee.number, &outcome, None);
        }
        outcome
    }
}

/// What leads on from a recipient.
struct Onward {
    /// What is followed.
    step: Step,
    /// How many recipients may come of it.
    most: u32,
    via: Via,
}

/// The name of a file in a home, and its text, or why it is not to be believed.
type Forward = (String, Result<String, String>);

/// The files in a home that are looked for, the first one first.
fn names(extension: Option<(char, &str)>) -> Vec<String> {
    let is_plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-=.".contains(&b));
    // It comes from a client: nothing in it may lead anywhere.
    let extension = extension.filter(|(mark, text)| *mark != '/' && is_plain(text) && !text.contains(".."));
    let own = extension.map(|(mark, text)| format!(".forward{mark}{text}"));
    own.into_iter().chain([".forward".to_owned()]).collect()
}

/// Whether all that is named is the user himself.
fn is_himself(finals: &[Recipient], address: &Address) -> bool {
    matches!(finals, [only] if only.action == Action::Direct
        && only.address.domain() == address.domain()
        && only.address.local().eq_ignore_ascii_case(address.local()))
}

fn not_expanded(expansion: &Expansion) -> Outcome {
    match expansion {
        Expansion::Refused(status, why) => Outcome::failed(*status, why.as_str()),
        Expansion::Temporary(why) => Outcome::deferred(Status(4, 3, 0), why.as_str()),
        Expansion::Finals(_) | Expansion::Unknown => Outcome::failed(Status(5, 1, 1), "nobody whom it names exists"),
    }
}

/// What each list and each user may lead to, of what is left for all.
fn divided(left: u32, lists: usize, users: usize) -> (u32, u32) {
    let each = |of: u32, count: usize| u32::try_from(count).ok().and_then(|count| of.checked_div(count)).unwrap_or(0);
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
    fn where_a_message_was_is_found_in_the_header_only() {
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
    fn what_may_come_of_one_is_divided_and_never_grows() {
        for (left, lists, users, shares) in [
            (100, 0, 0, (0, 0)),
            (100, 0, 3, (0, 33)),
            (100, 4, 0, (25, 0)),
            (100, 1, 5, (75, 5)),
            (3, 1, 5, (3, 0)),
            (0, 1, 1, (0, 0)),
            (u32::MAX, 1, 1, (u32::MAX - u32::MAX / 4, u32::MAX / 4)),
            // A list of lists, one of which is long.
            (MAX_LISTED - 1040, 40, 1000, (18_730, 249)),
        ] {
            assert_eq!(divided(left, lists, users), shares);
            let (each_list, each_user) = (shares.0 as usize, shares.1 as usize);
            assert!(each_list * lists + each_user * users <= left as usize);
        }
    }
}

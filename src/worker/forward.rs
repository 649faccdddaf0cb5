//! Mail that goes on to others: a user's `.forward`, the list or the owner of an alias.
//!
//! Both are looked at when a message is delivered, not when it comes, and beget one entry
//! with the recipients that they lead to, made once by the prepared step. The message in
//! it begins with `Delivered-To:` and the address that was followed. An address that
//! stands there already is not followed again: it is a loop, and the sender is told. A user
//! has as many addresses as there are details, and his `.forward` is not followed for all
//! of them in turn: after the second time his mail is in the mailbox.
//! A `.forward` that is not to be believed or makes no sense is passed over and the log
//! says so: the mail is in the mailbox then. Trouble with a file defers. Opens nothing
//! itself: who has the rights does.

use std::collections::HashSet;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use super::Attempt;
use crate::address::Address;
use crate::aliases::{self, Member};
use crate::deliver::hand::{Done, Task};
use crate::envelope::{Action, Envelope, Recipient};
use crate::outcome::{Fate, Outcome, Via};
use crate::reply::Status;
use crate::route::Expansion;
use crate::spool::{Slot, State};
use crate::users::{Account, Owner};

/// Lists that one address may lead to, those in lists counted too.
const MAX_LISTS: usize = 100;
/// Lines of one file that the log names.
const MAX_TOLD: usize = 10;
/// As much of a header as is looked through.
const MAX_HEADER: u64 = 1 << 20;
/// As much of a line as can matter there.
const MAX_FIELD: u64 = 1000;
/// A user's `.forward` may name him again, with another detail: his mail is looked at once
/// more if there are no more recipients than this.
const MAX_AGAIN: usize = 10;

impl Attempt<'_> {
    /// What becomes of mail for a user who has a `.forward`; `None`: it goes into his mailbox.
    pub(super) fn forward(&mut self, slot: &Slot, owner: &Owner) -> Option<Outcome> {
        let Owner::User(account) = owner else { return None };
        if slot.recipient.action != Action::Deliver || slot.record.state != State::Todo {
            return None;
        }
        match self.find_forward(slot, account, owner) {
            Ok(finals) if finals.is_empty() => None,
            Ok(finals) => {
                let sender = self.entry.sender().cloned();
                Some(self.pass_on(slot, finals, sender, Via::Forward))
            }
            Err(outcome) => Some(outcome.via(Via::Forward)),
        }
    }

    /// Mail for an alias that names a list or has an owner.
    pub(super) fn expand_list(&mut self, slot: &Slot) -> Outcome {
        let address = &slot.recipient.address;
        let list = match self.settings.router.list(address) {
            Ok(Some(list)) => list,
            Ok(None) => return Outcome::failed(Status(5, 1, 1), "User unknown").via(Via::List),
            Err(why) => return Outcome::deferred(Status(4, 3, 5), why).via(Via::List),
        };
        // No report is to beget another one.
        let sender = self.entry.sender().map(|sender| list.owner.as_ref().unwrap_or(sender).clone());
        let finals = self.check_loop(address).and_then(|()| {
            let members = self.read_lists(list.members, &Owner::Server)?;
            match self.settings.router.expand_members(address, &members, None) {
                Expansion::Finals(finals) => Ok(finals),
                other => Err(not_expanded(&other)),
            }
        });
        match finals {
            Ok(finals) => self.pass_on(slot, finals, sender, Via::List),
            Err(outcome) => outcome.via(Via::List),
        }
    }

    /// Whom a user's `.forward` names; nobody where it is not to be followed.
    fn find_forward(&self, slot: &Slot, account: &Account, owner: &Owner) -> Result<Vec<Recipient>, Outcome> {
        let (router, address) = (&self.settings.router, &slot.recipient.address);
        let task = Task::Forward {
            home: account.home.clone(),
            uid: account.uid,
            names: names(router.extension(address).as_ref().map(|(mark, text)| (*mark, &**text))),
        };
        let ignored = |why: &str| {
            ::log::warn!("{}: ignored ~/.forward of {}: {why}", self.entry.id(), account.name);
            Ok(Vec::new())
        };
        let text = match self.hands.perform(owner, &task, None) {
            Ok(Done::Text(text)) => text,
            Ok(Done::Absent) => return Ok(Vec::new()),
            Ok(Done::Refused(why)) => return ignored(&why),
            Ok(_) => return Err(nonsense()),
            Err(trouble) => return Err(Outcome::from_io(&trouble.doing, &trouble.error)),
        };
        let (members, errors) = aliases::list(&text);
        self.tell_lines(&format!("~/.forward of {}", account.name), &errors);
        if members.is_empty() {
            return Ok(Vec::new());
        }
        if self.has_multiplied(account)? {
            return ignored("it was followed already");
        }
        self.check_loop(address)?;
        let members = self.read_lists(members, owner)?;
        match router.expand_members(address, &members, Some(&account.name)) {
            Expansion::Finals(finals) => Ok(if is_himself(&finals, address) { Vec::new() } else { finals }),
            Expansion::Unknown => ignored("nobody whom it names exists"),
            other => Err(not_expanded(&other)),
        }
    }

    /// The members with those of all lists that they name, each list read once. A line
    /// that makes no sense is passed over, and so is a command or a file in a list, unless
    /// it is a user's own. Nobody at all is trouble.
    fn read_lists(&self, members: Vec<Member>, owner: &Owner) -> Result<Vec<Member>, Outcome> {
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
        }
        // It may be one that is just being written.
        if found.is_empty() {
            return Err(Outcome::deferred(Status(4, 3, 5), "nobody is on the list"));
        }
        Ok(found)
    }

    fn read_list(&self, file: &str, owner: &Owner) -> Result<Vec<Member>, Outcome> {
        let unusable = |why: &str| Err(Outcome::deferred(Status(4, 3, 5), format!("the list {file}: {why}")));
        let text = match self.hands.perform(owner, &Task::Read { file: Path::new(file).to_owned() }, None) {
            Ok(Done::Text(text)) => text,
            Ok(Done::Absent) => return unusable("there is no such file"),
            Ok(Done::Refused(why)) => return unusable(&why),
            Ok(_) => return Err(nonsense()),
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

    /// That the message did not come from this address already.
    fn check_loop(&self, address: &Address) -> Result<(), Outcome> {
        let wanted = address.to_string();
        match count_delivered_to(self.entry.content(), |value| value.eq_ignore_ascii_case(wanted.as_bytes())) {
            Ok(0) => Ok(()),
            Ok(_) => Err(Outcome::failed(Status(5, 4, 6), format!("mail forwarding loop for {address}"))),
            Err(e) => Err(Outcome::from_io("read the message in the spool", &e)),
        }
    }

    /// Whether a user's mail would become ever more of it if his `.forward` were followed again.
    fn has_multiplied(&self, account: &Account) -> Result<bool, Outcome> {
        let local = &self.settings.config.local;
        let is_his = |value: &[u8]| {
            let value = String::from_utf8_lossy(value).to_lowercase();
            let Some((name, domain)) = value.rsplit_once('@') else { return false };
            let detail = name.strip_prefix(&*account.name.to_lowercase());
            let is_user =
                detail.is_some_and(|rest| rest.is_empty() || local.subaddress.is_some_and(|c| rest.starts_with(c)));
            is_user && local.domains.iter().any(|own| own == domain)
        };
        let times = count_delivered_to(self.entry.content(), is_his)
            .map_err(|e| Outcome::from_io("read the message in the spool", &e))?;
        Ok(times > 1 || (times == 1 && self.entry.slots().len() > MAX_AGAIN))
    }

    /// Makes the entry for whom an address stands, and settles the recipient.
    fn pass_on(&mut self, slot: &Slot, finals: Vec<Recipient>, sender: Option<Address>, via: Via) -> Outcome {
        let Recipient { address, original, .. } = &slot.recipient;
        let known = original.as_ref().unwrap_or(address);
        let recipient = |to: Recipient| Recipient { original: (to.address != *known).then(|| known.clone()), ..to };
        let envelope = Envelope {
            sender,
            recipients: finals.into_iter().map(recipient).collect(),
            body: self.entry.body_type(),
            origin: self.entry.origin(),
        };
        let front = format!("Delivered-To: {address}\n");
        let made = self.make_full().and_then(|()| self.entry.pass_on(slot.number, &envelope, &front, self.now));
        let outcome = match made {
            Ok(child) => {
                self.children.push(child);
                Outcome::delivered(format!("passed on as {} to {}", child.id, envelope.recipients.len())).via(via)
            }
            Err(e) => Outcome::from_io("keep the message for whom the address stands for", &e).via(via),
        };
        // The recipient is settled, and nothing else will say so.
        if outcome.fate == Fate::Delivered {
            self.log(slot.spot().number, &outcome, None);
        }
        outcome
    }
}

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
        Expansion::Unsure(why) => Outcome::deferred(Status(4, 3, 0), why.as_str()),
        Expansion::Finals(_) | Expansion::Unknown => Outcome::failed(Status(5, 1, 1), "nobody whom it names exists"),
    }
}

fn nonsense() -> Outcome {
    Outcome::deferred(Status(4, 3, 0), "the agent does not answer what it was asked")
}

/// How many fields of a message's header say that it was delivered to such an address.
fn count_delivered_to(content: impl Read, is_meant: impl Fn(&[u8]) -> bool) -> io::Result<usize> {
    const NAME: &str = "delivered-to:";
    let mut times = 0;
    let mut from = BufReader::new(content.take(MAX_HEADER));
    let (mut line, mut is_start) = (Vec::new(), true);
    loop {
        line.clear();
        let count = from.by_ref().take(MAX_FIELD).read_until(b'\n', &mut line)?;
        let text = line.trim_ascii_end();
        if count == 0 || (is_start && text.is_empty()) {
            return Ok(times);
        }
        if let Some((name, value)) = text.split_at_checked(NAME.len()).filter(|_| is_start)
            && name.eq_ignore_ascii_case(NAME.as_bytes())
            && is_meant(value.trim_ascii())
        {
            times += 1;
        }
        is_start = line.ends_with(b"\n");
    }
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
    fn a_loop_is_found_in_the_header_only() {
        let is_jon = |value: &[u8]| value.eq_ignore_ascii_case(b"jon@here");
        for (text, times) in [
            ("Delivered-To: jon@here\nSubject: x\n\n", 1),
            ("Subject: x\ndelivered-to:JON@here\n", 1),
            ("Delivered-To: mary@here\n\n", 0),
            ("Subject: x\n\nDelivered-To: jon@here\n", 0),
            ("X-Delivered-To: jon@here\n\n", 0),
            ("", 0),
            ("Delivered-To: jon@here\nDelivered-To: mary@here\nDelivered-To: jon@here\n\n", 2),
        ] {
            assert_eq!(count_delivered_to(text.as_bytes(), is_jon).expect("memory"), times, "{text}");
        }
        let long = format!("Subject: {}Delivered-To: jon@here\n\n", "x".repeat(MAX_FIELD as usize - 9));
        assert_eq!(count_delivered_to(long.as_bytes(), is_jon).expect("memory"), 0);
    }
}

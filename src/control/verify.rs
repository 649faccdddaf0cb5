//! Finds the destinations of an address for `sendmail -bv`, with the router that RCPT and the queue
//! use.
//!
//! For root and the server's user the answer has one line for each final recipient, and for each file
//! that an alias includes. Other users learn only whether mail can be delivered, and nothing about the
//! aliases, mailboxes and routes of this site, as in `penfoldctl show`. A malformed address is
//! rejected as RCPT would reject it. Nothing is sent and no other host is asked, so another host may
//! still reject the mail. What the next host has said at RCPT about an address counts while it is
//! remembered. Home directories, `.forward` files and lists
//! are not read either: only agents, processes with a user's rights, can read them, and only when
//! mail is delivered.

use std::collections::HashSet;
use std::fmt::Write;

use crate::address::Address;
use crate::aliases::Member;
use crate::callout::{Callouts, Question};
use crate::envelope::{Action, Recipient};
use crate::exit::{self, DATAERR, NOUSER, TEMPFAIL};
use crate::policy::rcpt::{self, NextHost};
use crate::reply::Status;
use crate::route::{Expansion, List, Route, RoutedMail, Router};
use crate::users::{Mailbox, Owner};

/// The answer for an address that does not exist.
const UNKNOWN: &str = "user unknown";

/// Returns whether mail for an address can be delivered, and its destinations in lines. If mail
/// cannot be delivered, the first line is the exit code for sendmail. With `is_for_user`, the answer
/// is for a user who is not privileged, and has one line.
pub fn verify(router: &Router, callouts: &Callouts, text: &str, is_for_user: bool) -> (bool, String) {
    let mut answer = Answer { callouts, is_deliverable: false, code: None, lines: String::new() };
    match Address::parse(text) {
        Ok(address) => {
            let address = router.qualify(&address);
            answer.follow(router, &address);
            if is_for_user {
                answer.lines = format!("{address}: {}\n", answer.in_a_word());
            }
        }
        Err(why) => answer.add(&text.escape_debug().to_string(), Err((DATAERR, why.to_string()))),
    }
    match answer.code.filter(|_| !answer.is_deliverable) {
        Some(code) => (false, format!("{code}\n{}", answer.lines)),
        None => (true, answer.lines),
    }
}

/// The destination of a recipient in words, or an exit code and the reason for a failure.
type DestinationText = Result<String, (u8, String)>;

/// The answer so far.
struct Answer<'a> {
    callouts: &'a Callouts,
    is_deliverable: bool,
    code: Option<u8>,
    lines: String,
}

impl Answer<'_> {
    /// Whether mail can be delivered, in words that do not tell where.
    fn in_a_word(&self) -> &'static str {
        match self.code {
            _ if self.is_deliverable => "deliverable",
            Some(NOUSER) => UNKNOWN,
            Some(TEMPFAIL) => "not known now",
            _ => "not deliverable",
        }
    }

    /// Adds a line for one recipient.
    fn add(&mut self, name: &str, destination: DestinationText) {
        self.is_deliverable |= destination.is_ok();
        let (Ok(text) | Err((_, text))) = &destination;
        // Writing to a string cannot fail.
        let _ = writeln!(self.lines, "{name}: {text}");
        if let Err((code, _)) = destination {
            // A temporary failure of one recipient makes the whole answer temporary.
            self.code = self.code.filter(|_| code != TEMPFAIL).or(Some(code));
        }
    }

    /// Adds a line for each final recipient of an address.
    fn follow(&mut self, router: &Router, address: &Address) {
        let expansion = router.resolve(address);
        if let Some(answer) = self.remembered(router, address, &expansion) {
            return self.add(&address.to_string(), Err(answer));
        }
        let (mut todo, mut seen) = (vec![(address.clone(), expansion)], HashSet::new());
        while let Some((last, expansion)) = todo.pop() {
            let finals = match expanded(expansion) {
                Ok(finals) => finals,
                Err(why) => {
                    self.add(&named(address, &last), Err(why));
                    continue;
                }
            };
            for recipient in finals {
                let name = named(address, &recipient.address);
                let route = router.route_of(&recipient, &RoutedMail::default());
                if route != Route::List {
                    self.add(&name, destination(&route, &recipient.action));
                    continue;
                }
                match router.list(&recipient.address) {
                    Err(why) => self.add(&name, Err(temporary(&why))),
                    Ok(None) => self.add(&name, Err(unknown())),
                    Ok(Some(list)) if seen.insert(recipient.address.clone()) => {
                        let others = self.add_files(&name, list);
                        if !others.is_empty() {
                            let expansion = router.expand_members(&recipient.address, &others, None);
                            todo.push((recipient.address, expansion));
                        }
                    }
                    Ok(Some(_)) => {}
                }
            }
        }
    }

    /// If the next host would be asked about an address at RCPT, and it is remembered that it does not
    /// accept the address, returns why.
    fn remembered(&self, router: &Router, address: &Address, expansion: &Expansion) -> Option<(u8, String)> {
        let Expansion::Finals(finals) = expansion else { return None };
        let (to, target) = router.to_be_asked(finals)?;
        let class = router.class_of(address.domain());
        let known = self.callouts.remembered(&Question::new("", to, &target)).filter(|known| known.is_fresh)?;
        match known.answer {
            _ if rcpt::is_postmaster(class.into(), address) => None,
            NextHost::Unknown => Some(unknown()),
            NextHost::Refused(status) => Some(refused(status, "refused by the next host")),
            NextHost::Full(true) => Some(refused(Status(5, 2, 2), "the mailbox is full")),
            NextHost::Full(false) => Some(temporary("the mailbox is full")),
            NextHost::Accepted | NextHost::NoAnswer => None,
        }
    }

    /// Adds a line for each file that a list includes, and returns the other members of the list.
    fn add_files(&mut self, name: &str, list: List) -> Vec<Member> {
        let mut others = Vec::new();
        for member in list.members {
            match member {
                Member::Include(file) => self.add(name, Ok(format!("list {file}"))),
                other => others.push(other),
            }
        }
        others
    }
}

/// Names a recipient in the answer: `address -> last`, or only the address if nothing has replaced
/// it.
fn named(address: &Address, last: &Address) -> String {
    if last == address { last.to_string() } else { format!("{address} -> {last}") }
}

/// The final recipients of an expansion, or an exit code and the reason for a failure.
fn expanded(expansion: Expansion) -> Result<Vec<Recipient>, (u8, String)> {
    match expansion {
        Expansion::Finals(finals) => Ok(finals),
        Expansion::Unknown => Err(unknown()),
        Expansion::Refused(status, why) => Err(refused(status, &why)),
        Expansion::Temporary(why) => Err(temporary(&why)),
    }
}

/// Describes the destination of a route in words.
fn destination(route: &Route, action: &Action) -> DestinationText {
    match route {
        Route::Mailbox(mailbox) => Ok(format!("mailbox {}{}", mailbox.path.display(), condition(mailbox, action))),
        Route::Command(command, _) => Ok(format!("command |{command}")),
        Route::Unknown | Route::List | Route::Replaced => Err(unknown()),
        Route::Refused(status, why) => Err(refused(*status, why)),
        Route::Temporary(_, why) => Err(temporary(why)),
        Route::Remote(target) => Ok(target.to_string()),
        Route::Discard(why) => Ok(format!("nowhere: {why}")),
        Route::Hold(why) => Ok(format!("held: {why}")),
    }
}

/// If a delivery into the mailbox depends on a condition that can be checked only at the delivery,
/// returns the condition as text; otherwise returns an empty text.
fn condition(mailbox: &Mailbox, action: &Action) -> &'static str {
    match &mailbox.owner {
        Owner::User(_) if *action == Action::Deliver => ", if the home directory exists and has no .forward",
        Owner::User(account) if mailbox.path.starts_with(&account.home) => ", if the home directory exists",
        _ => "",
    }
}

/// The exit code and reason for an unknown user.
fn unknown() -> (u8, String) {
    (NOUSER, UNKNOWN.to_owned())
}

/// The exit code and reason for an address that the router rejects.
fn refused(status: Status, why: &str) -> (u8, String) {
    (exit::of_reply(550, Some(status)), format!("{status} {why}"))
}

/// The exit code and reason for an address that cannot be looked up now.
fn temporary(why: &str) -> (u8, String) {
    (TEMPFAIL, format!("not known now: {why}"))
}

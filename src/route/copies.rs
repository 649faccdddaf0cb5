//! Reads the table of copies (`policy.always_bcc`), which says who gets a copy of each message that is
//! accepted, such as an archive.
//!
//! A line is a key and addresses:
//!
//! ```text
//! *                      archive@example.org              every message
//! from:jon@example.org   boss@example.org, ann@example.org  messages from one sender
//! from:@example.net      archive@example.net              messages from the senders of a domain
//! from:<>                bounces@example.org              messages without a sender
//! to:@example.org        archive@example.org              messages to a recipient, or to a domain
//! ```
//!
//! All lines that match apply. A recipient is an address as the client gave it, or one that an alias
//! has led to. A copy is made when a message is accepted, and never for messages that this server
//! makes or forwards. There is also no copy to a recipient that the message has anyway, to its
//! sender, and, unless a client submits it, to an address to which it was delivered before.
//!
//! A copy that another host gets is a message there, which that host may copy back. So a copy that
//! leaves carries a mark in the field [`MARK`], and a message with a mark of this host is not copied
//! again.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;
use std::sync::Arc;

use super::{Expansion, Router};
use crate::address::{Address, fold, is_same_local, parse_domain};
use crate::config::ConfigError;
use crate::config::table::{Line as TableLine, lines};
use crate::envelope::{Notify, RcptOptions, Recipient};
use crate::policy::Line;

/// The name of the field with the mark of a copy.
pub const MARK: &str = "X-Penfold-Copied";
/// The maximum number of addresses on a line.
const MAX_ADDRESSES: usize = 10;
/// The maximum number of copies of a message.
const MAX_COPIES: usize = 50;

/// The lines of the table.
#[derive(Debug, Default)]
pub(super) struct Copies {
    /// The number of the line and the addresses, by key in lower case: `*`, or `from:` or `to:` with
    /// `local@domain`, `@domain` or `<>`.
    rows: HashMap<Box<str>, (usize, Vec<Address>)>,
    /// Why the file cannot be read; otherwise `None`.
    unreadable: Option<Box<str>>,
}

/// A copy of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// The address that gets the copy.
    pub address: Address,
    /// The line of the table that says so.
    pub line: Line,
}

impl Copies {
    /// Reads the text of the table as far as possible, and returns all errors in the order of the
    /// file. A line with an error is ignored.
    pub(super) fn read(file: &Path, text: &str) -> (Self, Vec<ConfigError>) {
        let (mut table, mut errors) = (Self::default(), Vec::new());
        for line in lines(text) {
            if let Err((part, what)) = table.add(line) {
                errors.push(line.error(file, part, what));
            }
        }
        (table, errors)
    }

    /// Returns the table for a file that cannot be read. No message is accepted without its copies.
    pub(super) fn unreadable(why: &ConfigError) -> Self {
        Self { unreadable: Some(why.to_string().into()), ..Self::default() }
    }

    fn add<'a>(&mut self, line: TableLine<'a>) -> Result<(), (&'a str, String)> {
        let (key, addresses) = line.text.split_once([' ', '\t']).unwrap_or_else(|| line.text.split_at(line.text.len()));
        let name = read_key(key).ok_or_else(|| {
            (key, "expected *, from:address, from:@domain, from:<>, to:address or to:@domain".to_owned())
        })?;
        let mut found = Vec::new();
        for part in addresses.trim_start().split(',').map(str::trim) {
            let part = if part.is_empty() { addresses } else { part };
            found.push(Address::parse(part).map_err(|why| (part, format!("expected addresses: {why}")))?);
        }
        if found.len() > MAX_ADDRESSES {
            return Err((addresses, format!("expected at most {MAX_ADDRESSES} addresses")));
        }
        match self.rows.entry(name) {
            Entry::Occupied(first) => Err((key, format!("{key} is already on line {}", first.get().0))),
            Entry::Vacant(slot) => {
                slot.insert((line.number, found));
                Ok(())
            }
        }
    }
}

/// Reads a key, and returns it in lower case; `None` if it is malformed.
fn read_key(text: &str) -> Option<Box<str>> {
    if matches!(text, "*" | "from:<>") {
        return Some(text.into());
    }
    let (direction, name) = text.split_once(':').filter(|(direction, _)| matches!(*direction, "from" | "to"))?;
    if let Some(domain) = name.strip_prefix('@') {
        return Some(format!("{direction}:@{}", parse_domain(domain).ok()?).into());
    }
    let address = Address::parse(name).ok().filter(|address| !address.domain().is_empty())?;
    Some(format!("{direction}:{}@{}", fold(address.local()), address.domain()).into())
}

impl Router {
    /// Whether there may be copies of messages.
    pub fn makes_copies(&self) -> bool {
        let table = self.copies.current();
        table.unreadable.is_some() || !table.rows.is_empty()
    }

    /// Warns of local addresses in the table that do not exist.
    pub(super) fn warn_of_copies(&self) {
        let table = self.copies.current();
        let mut lines: Vec<_> = table.rows.values().collect();
        lines.sort_by_key(|(number, _)| *number);
        for (number, addresses) in lines {
            for address in addresses.iter().map(|address| self.qualify(address)) {
                if self.realm(address.domain()).is_some() && self.expand(&address) == Expansion::Unknown {
                    let text = format!("no copy goes to <{address}>: there is no such user");
                    ::log::warn!("{}", ConfigError::new(self.copies.path(), *number, 1, text));
                }
            }
        }
    }

    /// Returns the copies of a message from a sender to these recipients, whose addresses have a
    /// domain: both the addresses that the client gave and the final ones. A copy to the sender is among
    /// them; whoever asks leaves it out.
    ///
    /// # Errors
    /// If the table cannot be read: the reason.
    pub fn copies_of<'r>(
        &self,
        sender: Option<&Address>,
        recipients: impl Iterator<Item = &'r Address>,
    ) -> Result<Vec<Copy>, String> {
        let table = self.copies.current();
        if let Some(why) = &table.unreadable {
            return Err(why.to_string());
        }
        let mut found: Vec<Copy> = Vec::new();
        if table.rows.is_empty() {
            return Ok(found);
        }
        let mut add = |key: &str| {
            let Some((number, addresses)) = table.rows.get(key) else { return };
            for address in addresses {
                let address = self.qualify(address);
                if found.len() < MAX_COPIES && !found.iter().any(|copy| is_same(&copy.address, &address)) {
                    let line = Line { file: Arc::from(self.copies.path()), number: *number };
                    found.push(Copy { address, line });
                }
            }
        };
        add("*");
        match sender {
            None => add("from:<>"),
            Some(sender) => self.keys_of(sender).iter().for_each(|key| add(&format!("from:{key}"))),
        }
        for recipient in recipients {
            self.keys_of(recipient).iter().for_each(|key| add(&format!("to:{key}")));
        }
        Ok(found)
    }

    /// The keys of an address: the address, a local one without its detail, and the domain.
    fn keys_of(&self, address: &Address) -> Vec<String> {
        let (name, domain) = (fold(address.local()), address.domain());
        let base = self.realm(domain).and_then(|realm| realm.without_detail(&name));
        let names = [Some(&*name), base, Some("")].into_iter().flatten();
        names.map(|name| format!("{name}@{domain}")).collect()
    }

    /// Returns the final recipients of a copy. No report about them is sent. Each has the address of the
    /// copy as its original one, so that it is not taken for a recipient that the client may choose.
    ///
    /// # Errors
    /// The reason if mail for the address cannot be accepted, and whether that is only so now.
    pub fn recipients_of_copy(&self, copy: &Copy) -> Result<Vec<Recipient>, (String, bool)> {
        let finals = match self.resolve(&copy.address) {
            Expansion::Finals(finals) => finals,
            Expansion::Unknown => return Err(("there is no such user".to_owned(), false)),
            Expansion::Refused(status, why) => return Err((format!("{status} {why}"), false)),
            Expansion::Temporary(why) => return Err((why, true)),
        };
        let never = RcptOptions { notify: Some(Notify::default()), orcpt: None };
        let recipient =
            |to: Recipient| Recipient { original: Some(copy.address.clone()), options: never.clone(), ..to };
        Ok(finals.into_iter().map(recipient).collect())
    }
}

/// Whether two addresses are the same but for upper and lower case.
pub fn is_same(one: &Address, other: &Address) -> bool {
    one.domain() == other.domain() && is_same_local(one.local(), other.local())
}

//! Reads the sender routes table (`remote.senders`), which says by which hosts the mail of some senders
//! leaves.
//!
//! A line is a sender and its target:
//!
//! ```text
//! jon@example.org  smtp+starttls://smtp.provider.example   one sender
//! @example.net     a.example.net, b.example.net:2525       all senders of a domain
//! @example.com     mx:                                     no smart host, although there are some
//! <>               smtps://mail.example.org                messages without a sender, as bounces are
//! ```
//!
//! A line with the sender takes precedence over a line with its domain. The table applies to mail
//! for which the routes table has no line. Any other text is an error with line and column.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;

use super::outward::Sender;
use super::routes::{FoundRoute, RouteTarget, read_hosts, waiting, without_comment};
use crate::address::{Address, fold, parse_domain};
use crate::config::table::{Line, lines};
use crate::config::{ConfigError, HostPort};
use crate::destination::SMTP_PORT;

/// The lines of the table.
#[derive(Debug, Default)]
pub(super) struct SenderRoutes {
    /// Targets by key in lower case: `local@domain`, `@domain` or `<>`.
    rows: HashMap<Box<str>, (usize, RouteTarget)>,
    /// The target for all senders if the file cannot be read; otherwise `None`.
    unreadable: Option<RouteTarget>,
}

/// The key for the null path.
const NULL: &str = "<>";

impl SenderRoutes {
    /// Reads the text of the table as far as possible, and returns all errors in the order of the
    /// file. Mail from the sender on an erroneous line waits.
    pub(super) fn read(file: &Path, text: &str) -> (Self, Vec<ConfigError>) {
        let (mut table, mut errors) = (Self::default(), Vec::new());
        for line in lines(text) {
            let (key, target) =
                line.text.split_once([' ', '\t']).unwrap_or_else(|| line.text.split_at(line.text.len()));
            if let Err((part, what)) = table.add(line, key, target.trim_start()) {
                let error = line.error(file, part, what);
                if let Ok(key) = read_key(key) {
                    table.rows.entry(key).or_insert_with(|| (line.number, waiting(&error)));
                }
                errors.push(error);
            }
        }
        (table, errors)
    }

    /// Returns the table for a file that cannot be read. All mail that it may apply to waits.
    pub(super) fn unreadable(why: &ConfigError) -> Self {
        Self { unreadable: Some(waiting(why)), ..Self::default() }
    }

    /// Returns the line that applies to a sender; `None` if no line applies.
    pub(super) fn find(&self, sender: Sender<'_>) -> Option<FoundRoute<'_>> {
        if let Some(target) = &self.unreadable {
            return Some(FoundRoute { line: 0, target });
        }
        if self.rows.is_empty() {
            return None;
        }
        let get = |key: &str| self.rows.get(key).map(|(line, target)| FoundRoute { line: *line, target });
        match sender {
            Sender::Unknown => None,
            Sender::Null => get(NULL),
            Sender::Address(sender) => {
                let key = format!("{}@{}", fold(sender.local()), sender.domain());
                let domain = &key[key.len() - sender.domain().len() - 1..];
                get(&key).or_else(|| get(domain))
            }
        }
    }

    /// Whether the table says nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.unreadable.is_none()
    }

    /// Returns the hosts that are targets in the table.
    pub(super) fn hosts(&self) -> impl Iterator<Item = &HostPort> {
        self.rows.values().flat_map(|(_, target)| target.hosts())
    }

    fn add<'a>(&mut self, line: Line<'a>, key: &'a str, target: &'a str) -> Result<(), (&'a str, String)> {
        let sender = read_key(key).map_err(|what| (key, what))?;
        let target = match without_comment(target) {
            "mx:" => RouteTarget::Mx { domain: None, port: SMTP_PORT },
            hosts => RouteTarget::Hosts(read_hosts(hosts)?),
        };
        match self.rows.entry(sender) {
            Entry::Occupied(first) => Err((key, format!("{key} is already on line {}", first.get().0))),
            Entry::Vacant(slot) => {
                slot.insert((line.number, target));
                Ok(())
            }
        }
    }
}

fn read_key(text: &str) -> Result<Box<str>, String> {
    let expected = || "expected a sender, @domain or <>".to_owned();
    if text == NULL {
        return Ok(text.into());
    }
    if let Some(domain) = text.strip_prefix('@') {
        let domain = parse_domain(domain).map_err(|_| expected())?;
        return Ok(format!("@{domain}").into());
    }
    let address = Address::parse(text).map_err(|_| expected())?;
    if address.domain().is_empty() {
        return Err(expected());
    }
    Ok(format!("{}@{}", fold(address.local()), address.domain()).into())
}

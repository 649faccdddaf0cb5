//! Tells the steps of an expansion, and the lines of the tables behind a route, for explanations.

use std::path::Path;

use super::realm::Snapshot;
use super::{Expansion, Route, RoutedMail, Router, expand};
use crate::address::{Address, fold};
use crate::envelope::{Action, Recipient};
use crate::policy::{Line, Source};
use crate::users::Quota;

/// The maximum number of addresses, and of members of one address, that are told.
pub const MAX_VISITS: usize = 50;

/// Where the walk of an expansion has found an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// The address is not in a local domain.
    Elsewhere,
    /// The virtual table has an entry for the address.
    Virtual,
    /// The virtual table has an entry for the whole domain.
    CatchAll,
    /// The address is unknown, and `local.catch_all` names the recipient of such mail.
    CatchAllKey,
    /// The address is an alias.
    Alias,
    /// The address is an alias that is expanded at delivery, because it includes a list or has an
    /// owner.
    List,
    /// The address was named by its own alias or with `\`, so that no table is asked.
    Direct,
    /// The address is in no table: it is that of a user, or unknown.
    NoTable,
    /// The routes table has a line for the address.
    Routed,
    /// The address is that of the postmaster, for whom `local.postmaster` names a recipient.
    Postmaster,
    /// The address is that of the postmaster, whose mail is kept in the spool, because it has no
    /// recipient.
    LastResort,
}

/// An address that an expansion has visited.
#[derive(Debug, Clone)]
pub struct Visit {
    /// The address.
    pub address: Address,
    /// Where it was found.
    pub found: Found,
    /// The addresses, commands and files that replace it, at most [`MAX_VISITS`].
    pub members: Vec<String>,
    /// The number of all of them.
    pub count: usize,
}

/// An expansion, and how it came about.
#[derive(Debug)]
pub struct Traced {
    /// The expansion.
    pub expansion: Expansion,
    /// The addresses that were visited, at most [`MAX_VISITS`]; none if the address is not local.
    pub visits: Vec<Visit>,
}

impl Router {
    /// Returns the answer of [`Router::resolve`] with the steps that have led to it. Nothing is
    /// taken from the cache or put into it.
    pub fn trace(&self, recipient: &Address) -> Traced {
        let address = self.qualified(recipient);
        let known = self.resolve_elsewhere(&address).or_else(|| self.expand_rewritten(&address));
        match known {
            Some(expansion) => Traced { expansion, visits: Vec::new() },
            None => expand::trace(self, &address),
        }
    }

    /// Returns the line of a table or the key by which an address was found; `None` if nothing names it.
    pub fn source(&self, address: &Address, found: Found) -> Option<Source> {
        let (name, domain) = (fold(address.local()), address.domain());
        let (number, realm) = (self.realm_number(domain)?, self.realm(domain)?);
        let names = || realm.names(&name);
        let line =
            |file: &Path, number: Option<usize>| number.map(|number| Source::Line(Line { file: file.into(), number }));
        let key = |of_local, of_domain| Some(Source::Key(if number == 0 { of_local } else { of_domain }));
        let Snapshot { aliases, virtual_table: table } = realm.snapshot();
        let (aliases_file, table_file) = (realm.aliases.rows.path(), realm.virtual_table.rows.path());
        match found {
            Found::Virtual => line(table_file, names().find_map(|name| table.line(name, domain))),
            Found::CatchAll => line(table_file, table.line("", domain)),
            Found::Alias | Found::List => line(aliases_file, names().find_map(|name| aliases.line(name))),
            Found::Postmaster | Found::LastResort => key("local.postmaster", "domain.postmaster"),
            Found::CatchAllKey => key("local.catch_all", "domain.catch_all"),
            Found::Direct | Found::NoTable => {
                let found = names().find_map(|name| realm.users.line(name, domain));
                found.and_then(|(file, number)| line(&file, Some(number)))
            }
            Found::Elsewhere | Found::Routed => None,
        }
    }
}

impl Router {
    /// Returns what sets the quota of one of these recipients: a line of the users file, or a key.
    pub fn source_of_quota(&self, recipients: &[Recipient], quota: Quota) -> Source {
        let has_it = |to: &&Recipient| {
            let route = self.route_of(to, &RoutedMail::default());
            matches!(route, Route::Mailbox(mailbox) if mailbox.quota == Some(quota))
        };
        let address = match recipients {
            [only] => Some(&only.address),
            several => several.iter().find(has_it).map(|to| &to.address),
        };
        let address = address.map(|address| self.qualified(address));
        let own = address.as_ref().filter(|_| quota.is_own).and_then(|to| self.source(to, Found::NoTable));
        let number = address.and_then(|address| self.realm_number(address.domain()));
        own.unwrap_or(Source::Key(if number.unwrap_or(0) == 0 { "local.quota" } else { "domain.quota" }))
    }
}

/// Names a member of an address: an address, a command or a file.
pub(super) fn named(address: &Address, action: &Action) -> String {
    match action {
        Action::Run { command, .. } => format!("|{command}"),
        Action::Append { file, .. } => file.to_string(),
        _ => address.to_string(),
    }
}

//! Reads the tables `[[domain]]` of penfold.conf(5): local domains with settings of their own.

use std::collections::{HashMap, HashSet};
use std::ops::Deref;

use super::defaults::PER_HOUR;
use super::document::Section;
use super::keys::take_auth;
use super::local::{self, shared};
use super::print::{Printer, auth, list, size};
use super::{Auth, Config, Limits, Local, Submission, TableFile, Users, values};
use crate::address::Address;
use crate::json::quote;

/// A `[[domain]]` table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    /// The settings of these domains. Those that the table lacks have the values of `[local]`.
    pub local: Local,
    /// The source of the accounts of these domains.
    pub auth: Auth,
    /// The maximum size of a message for these domains, in octets.
    pub message_size: u64,
    /// The maximum number of messages that an account of these domains may send in an hour.
    pub messages_per_hour: usize,
    /// The maximum number of recipients to which an account of these domains may send in an hour.
    pub recipients_per_hour: usize,
}

/// The `[[domain]]` tables, in the order of the file. They are found by name without a search: there may be
/// thousands, and each recipient asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Domains {
    tables: Vec<Domain>,
    /// The number of the table of each name.
    numbers: HashMap<String, usize>,
}

impl From<Vec<Domain>> for Domains {
    fn from(tables: Vec<Domain>) -> Self {
        let numbered = tables.iter().enumerate();
        let names = numbered.flat_map(|(number, table)| table.local.domains.iter().map(move |name| (name, number)));
        let numbers = names.map(|(name, number)| (name.clone(), number)).collect();
        Self { tables, numbers }
    }
}

impl Deref for Domains {
    type Target = [Domain];

    fn deref(&self) -> &[Domain] {
        &self.tables
    }
}

/// A limit, and the key that sets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit<T> {
    /// The value.
    pub value: T,
    /// The key.
    pub key: &'static str,
}

/// The local domains that share their accounts.
#[derive(Debug)]
pub struct AccountGroup<'c> {
    /// The source of the accounts.
    pub auth: &'c Auth,
    /// The domains, in the order of the file, those of `[local]` first.
    pub domains: Vec<&'c str>,
    /// The number of each `[[domain]]` table of the group, from 0.
    pub tables: Vec<usize>,
}

impl Config {
    /// Returns the local domains by their accounts; each domain is in one group. The first group is that
    /// of `[local]`, and may have no domain. Domains with the same users file of accounts are one group.
    /// But if the mailboxes of a domain are in another users file, its users are other people. Other
    /// sources of accounts may have different people with the same name in two domains: there the
    /// domains of a group have the same users, too.
    pub fn account_groups(&self) -> Vec<AccountGroup<'_>> {
        fn key<'c>(auth: &'c Auth, users: &'c Users) -> (&'c Auth, Option<&'c Users>) {
            let are_told_apart = match (auth, users) {
                (Auth::File(accounts), Users::File(mailboxes)) => accounts != mailboxes,
                (Auth::File(_), _) => false,
                _ => true,
            };
            (auth, are_told_apart.then_some(users))
        }
        fn names(local: &Local) -> impl Iterator<Item = &str> {
            local.domains.iter().map(String::as_str)
        }
        let first = AccountGroup { auth: &self.auth, domains: names(&self.local).collect(), tables: Vec::new() };
        let (mut groups, mut numbers) = (vec![first], HashMap::from([(key(&self.auth, &self.local.users), 0)]));
        for (table, Domain { local, auth, .. }) in self.domains.iter().enumerate() {
            let number = *numbers.entry(key(auth, &local.users)).or_insert(groups.len());
            if number == groups.len() {
                groups.push(AccountGroup { auth, domains: Vec::new(), tables: Vec::new() });
            }
            groups[number].domains.extend(names(local));
            groups[number].tables.push(table);
        }
        groups
    }

    /// The table of a domain, in canonical form; `None` if the domain has no table of its own.
    pub fn domain(&self, domain: &str) -> Option<&Domain> {
        self.domains.tables.get(*self.domains.numbers.get(domain)?)
    }

    /// The maximum number of messages that an account may send in an hour. The account belongs to the
    /// domain of its login, or to the first local domain.
    pub fn messages_per_hour(&self, login: &str) -> Limit<usize> {
        let rest = Limit { value: self.submission.messages_per_hour, key: "submission.messages_per_hour" };
        let of_domain = |domain: &Domain| Limit { value: domain.messages_per_hour, key: "domain.messages_per_hour" };
        self.domain_of(login).map_or(rest, of_domain)
    }

    /// The maximum number of recipients to which an account may send in an hour.
    pub fn recipients_per_hour(&self, login: &str) -> Limit<usize> {
        let rest = Limit { value: self.submission.recipients_per_hour, key: "submission.recipients_per_hour" };
        let of_domain =
            |domain: &Domain| Limit { value: domain.recipients_per_hour, key: "domain.recipients_per_hour" };
        self.domain_of(login).map_or(rest, of_domain)
    }

    /// The key that names a local domain.
    pub fn key_of_local(&self, domain: &str) -> &'static str {
        if self.domain(domain).is_some() { "domain.names" } else { "local.domains" }
    }

    /// The key that names the users of a local domain.
    pub fn key_of_users(&self, domain: &str) -> &'static str {
        if self.domain(domain).is_some() { "domain.users" } else { "local.users" }
    }

    fn domain_of(&self, login: &str) -> Option<&Domain> {
        self.domain(login.rsplit_once('@').map_or(self.own_domain(), |(_, domain)| domain))
    }

    /// The maximum size of a message, in octets, whatever its recipients.
    pub fn message_size(&self) -> Limit<u64> {
        Limit { value: self.limits.message_size, key: "limits.message_size" }
    }

    /// The maximum size of a message for a domain, in octets.
    pub fn message_size_of(&self, domain: &str) -> Limit<u64> {
        let of_domain = |domain: &Domain| Limit { value: domain.message_size, key: "domain.message_size" };
        let of_domain = self.domain(domain).map(of_domain);
        of_domain.filter(|limit| limit.value < self.limits.message_size).unwrap_or_else(|| self.message_size())
    }
}

/// The values for keys that a `[[domain]]` lacks and that are not in `[local]`.
pub(super) struct Defaults<'a> {
    pub(super) auth: &'a Auth,
    pub(super) limits: &'a Limits,
    pub(super) submission: &'a Submission,
}

/// Reads all `[[domain]]` tables of the file. `local` are the settings of `[local]`, and
/// `gives_domains` says whether the file names its domains. If it does not, the domains of the tables
/// are left out of the default.
pub(super) fn domains(
    top: &mut Section<'_, '_>,
    local: &mut Local,
    gives_domains: bool,
    others: &Defaults<'_>,
) -> Domains {
    let mut known: HashSet<String> = local.domains.iter().filter(|_| gives_domains).cloned().collect();
    let sections = top.sections_or_one("domain").into_iter();
    let sections: Vec<_> = sections.map(|mut section| (names(&mut section, &mut known), section)).collect();
    if !gives_domains {
        local.domains.retain(|domain| !known.contains(domain));
    }
    let first = local.domains.first().or_else(|| sections.iter().find_map(|(names, _)| names.first()));
    let default = first.map_or_else(|| local.clone(), |first| inherited(local, first));
    let tables = sections.into_iter().filter_map(|(names, section)| one(section, names, &default, others));
    tables.collect::<Vec<_>>().into()
}

/// Reads the names of one `[[domain]]` table. `known` are the domains that were named before.
fn names(section: &mut Section<'_, '_>, known: &mut HashSet<String>) -> Vec<String> {
    let names = section.take_all("names", values::domain);
    if names.as_ref().is_some_and(Vec::is_empty) || !section.gives("names") {
        section.error("names", "expected the domains, such as [\"example.org\"]");
    }
    let names = names.unwrap_or_default();
    for name in &names {
        if !known.insert(name.clone()) {
            section.error("names", &format!("{name} is named before, in local.domains or in a [[domain]]"));
        }
    }
    names
}

/// Returns the values of `[local]` for keys that a `[[domain]]` lacks. Names without a domain belong to
/// the first local domain, `first`.
fn inherited(local: &Local, first: &str) -> Local {
    let complete = |name: &str| match Address::parse(name) {
        Ok(address) if address.domain().is_empty() => address.at(first).to_string(),
        _ => name.to_owned(),
    };
    Local {
        postmaster: complete(&local.postmaster),
        catch_all: local.catch_all.as_deref().map(complete),
        ..local.clone()
    }
}

/// Reads one `[[domain]]` table. Returns `None` if it names no domain.
fn one(mut section: Section<'_, '_>, names: Vec<String>, default: &Local, others: &Defaults<'_>) -> Option<Domain> {
    let mut local = shared(&mut section, names, default);
    // The aliases of [local] are for its users, and must not lead away the mail of others who have the
    // same names.
    if section.gives("users") && !section.gives("aliases") {
        local.aliases = TableFile::none();
    }
    let auth = match &local.users {
        Users::File(path) if section.gives("users") => Auth::File(path.clone()),
        // The accounts in that file are those of other people with the same names.
        users if *users != default.users && matches!(others.auth, Auth::File(_)) => Auth::None,
        _ => others.auth.clone(),
    };
    let auth = take_auth(&mut section, "auth", auth);
    let Defaults { limits, submission, .. } = others;
    let message_size = section.take("message_size", values::message_size).unwrap_or(limits.message_size);
    if message_size > limits.message_size {
        section.error("message_size", "expected at most limits.message_size");
    }
    let mut count = |key, default| section.take(key, values::count(PER_HOUR)).unwrap_or(default);
    let messages_per_hour = count("messages_per_hour", submission.messages_per_hour);
    let recipients_per_hour = count("recipients_per_hour", submission.recipients_per_hour);
    section.finish();
    let domain = Domain { local, auth, message_size, messages_per_hour, recipients_per_hour };
    (!domain.local.domains.is_empty()).then_some(domain)
}

/// Prints a `[[domain]]` table.
pub(super) fn print(out: &mut Printer<'_>, domain: &Domain) {
    out.key("names", list(&domain.local.domains, |name| quote(name)));
    local::print_shared(out, &domain.local);
    out.key("auth", auth(&domain.auth)).key("message_size", size(domain.message_size));
    out.key("messages_per_hour", domain.messages_per_hour.to_string());
    out.key("recipients_per_hour", domain.recipients_per_hour.to_string());
}

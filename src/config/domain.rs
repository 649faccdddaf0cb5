//! Reads the tables `[[domain]]` of penfold.conf(5): local domains with settings of their own.

use std::collections::HashSet;

use super::document::Section;
use super::local::{self, shared};
use super::print::{Printer, list};
use super::{Local, TableFile, values};
use crate::address::Address;
use crate::json::quote;

/// A `[[domain]]` table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    /// The settings of these domains. Those that the table lacks have the values of `[local]`.
    pub local: Local,
}

/// Reads all `[[domain]]` tables of the file. `local` are the settings of `[local]`, and
/// `gives_domains` says whether the file names its domains. If it does not, the domains of the tables
/// are left out of the default.
pub(super) fn domains(top: &mut Section<'_, '_>, local: &mut Local, gives_domains: bool) -> Vec<Domain> {
    let mut known: HashSet<String> = local.domains.iter().filter(|_| gives_domains).cloned().collect();
    let sections = top.sections_or_one("domain").into_iter();
    let sections: Vec<_> = sections.map(|mut section| (names(&mut section, &mut known), section)).collect();
    if !gives_domains {
        local.domains.retain(|domain| !known.contains(domain));
    }
    let first = local.domains.first().or_else(|| sections.iter().find_map(|(names, _)| names.first()));
    let default = first.map_or_else(|| local.clone(), |first| inherited(local, first));
    sections.into_iter().filter_map(|(names, section)| one(section, names, &default)).collect()
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
fn one(mut section: Section<'_, '_>, names: Vec<String>, default: &Local) -> Option<Domain> {
    let mut local = shared(&mut section, names, default);
    // The aliases of [local] are for its users, and must not lead away the mail of others who have the
    // same names.
    if section.gives("users") && !section.gives("aliases") {
        local.aliases = TableFile::none();
    }
    section.finish();
    (!local.domains.is_empty()).then_some(Domain { local })
}

/// Prints a `[[domain]]` table.
pub(super) fn print(out: &mut Printer<'_>, domain: &Domain) {
    out.key("names", list(&domain.local.domains, |name| quote(name)));
    local::print_shared(out, &domain.local);
}

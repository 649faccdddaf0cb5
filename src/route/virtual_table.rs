//! Reads the virtual table, which leads from an address, or all addresses of a domain, to other
//! addresses.
//!
//! An entry is `address  value, value` or `@domain  value, value`. Comments, quotes and
//! continuation lines are those of the aliases file. Only addresses in local domains are looked up;
//! for other keys a warning is logged.

use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;
use std::path::Path;

use crate::address::{fold, parse_domain};
use crate::aliases::{Member, Separator, address, entries, members};
use crate::config::ConfigError;

/// The entries of a virtual table.
#[derive(Debug, Default)]
pub(super) struct VirtualTable {
    /// The entries by domain and local part, both in lower case. An empty local part stands for all
    /// addresses of the domain.
    domains: HashMap<Box<str>, HashMap<Box<str>, Row>>,
    /// The error if the file cannot be read; otherwise `None`.
    unreadable: Option<ConfigError>,
}

#[derive(Debug)]
struct Row {
    line: usize,
    members: Vec<Member>,
    /// The error that makes the entry unusable; otherwise `None`.
    broken: Option<Box<ConfigError>>,
}

impl VirtualTable {
    /// Reads the text of a virtual table as far as possible, and returns all errors in the order of
    /// the file.
    pub(super) fn read(file: &Path, text: &str, is_local: impl Fn(&str) -> bool) -> (Self, Vec<ConfigError>) {
        let (mut table, mut errors) = (Self::default(), Vec::new());
        for entry in entries(file, text, Separator::Blank, &mut errors) {
            let (members, mut broken) = members(file, &entry, &mut errors);
            if !members.iter().all(|member| matches!(member, Member::Address(_) | Member::Direct(_))) {
                let what = "expected addresses; commands, files and lists stand in the aliases file";
                let error = entry.line.error(file, entry.key, what);
                broken.get_or_insert_with(|| error.clone());
                errors.push(error);
            }
            let (local, domain) = match key(entry.key) {
                Ok(key) => key,
                Err(what) => {
                    errors.push(entry.line.error(file, entry.key, what));
                    continue;
                }
            };
            if !is_local(&domain) {
                let what = format!("this has no effect: {domain} is not a local domain");
                ::log::warn!("{}", entry.line.error(file, entry.key, what));
            }
            match table.domains.entry(domain).or_default().entry(local) {
                MapEntry::Occupied(first) => {
                    let what = format!("{} is already on line {}", entry.key, first.get().line);
                    errors.push(entry.line.error(file, entry.key, what));
                }
                MapEntry::Vacant(slot) => {
                    slot.insert(Row { line: entry.line.number, members, broken: broken.map(Box::new) });
                }
            }
        }
        errors.sort_by_key(|error| (error.line, error.column));
        (table, errors)
    }

    /// Returns the table for a file that cannot be read.
    pub(super) fn unreadable(why: &ConfigError) -> Self {
        Self { unreadable: Some(why.clone()), ..Self::default() }
    }

    /// Returns the members of the entry for an address; `None` if there is no entry. `local` and
    /// `domain` are in lower case.
    ///
    /// # Errors
    /// The error in the file, if it affects this address.
    pub(super) fn find(&self, local: &str, domain: &str) -> Result<Option<&[Member]>, &ConfigError> {
        if let Some(why) = &self.unreadable {
            return Err(why);
        }
        let row = self.domains.get(domain).and_then(|rows| rows.get(local));
        row.map(|row| row.broken.as_deref().map_or(Ok(row.members.as_slice()), Err)).transpose()
    }

    /// Returns the line of the entry for an address, or of that for a whole domain if `local` is empty; `None` if
    /// there is no entry.
    pub(super) fn line(&self, local: &str, domain: &str) -> Option<usize> {
        self.domains.get(domain).and_then(|rows| rows.get(local)).map(|row| row.line)
    }

    /// Returns the members of the entry for a whole domain; `None` if there is no entry. The entry
    /// applies to addresses that are otherwise unknown.
    ///
    /// # Errors
    /// Those of [`VirtualTable::find`].
    pub(super) fn catch_all(&self, domain: &str) -> Result<Option<&[Member]>, &ConfigError> {
        self.find("", domain)
    }
}

fn key(text: &str) -> Result<(Box<str>, Box<str>), String> {
    if let Some(domain) = text.strip_prefix('@') {
        let domain = parse_domain(domain).map_err(|error| error.to_string())?;
        return Ok((Box::default(), domain));
    }
    let address = address(text).map_err(|error| error.to_string())?;
    if address.domain().is_empty() {
        return Err("expected an address with a domain, or @domain; the aliases file is for names".to_owned());
    }
    Ok((fold(address.local()).into(), address.domain().into()))
}

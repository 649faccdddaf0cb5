//! The virtual table: whole addresses, or all of a domain, to addresses.
//!
//! An entry is `address  value, value` or `@domain  value, value`; comments,
//! quotes and continuation lines are those of the aliases file. Only a local
//! domain's mail is looked up here: reading warns of a key that has no effect.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::path::Path;

use crate::address::{Address, parse_domain};
use crate::aliases::{Member, Separator, entries, members};
use crate::config::ConfigError;

/// What a virtual table says.
#[derive(Debug, Default)]
pub(super) struct VirtualTable {
    /// By domain and local part, both in lower case; an empty local part stands for all.
    domains: HashMap<Box<str>, HashMap<Box<str>, Row>>,
}

#[derive(Debug)]
struct Row {
    line: usize,
    members: Vec<Member>,
}

impl VirtualTable {
    /// Reads the text of a virtual table.
    ///
    /// # Errors
    /// All that is wrong, in the order of the file.
    pub(super) fn parse(file: &Path, text: &str, is_local: impl Fn(&str) -> bool) -> Result<Self, Vec<ConfigError>> {
        let (mut table, mut errors) = (Self::default(), Vec::new());
        for entry in entries(file, text, Separator::Blank, &mut errors) {
            let members = members(file, &entry, &mut errors);
            if !members.iter().all(|member| matches!(member, Member::Address(_) | Member::Direct(_))) {
                let what = "expected addresses; commands, files and lists stand in the aliases file";
                errors.push(entry.line.error(file, entry.key, what));
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
                Slot::Occupied(first) => {
                    let what = format!("{} is already on line {}", entry.key, first.get().line);
                    errors.push(entry.line.error(file, entry.key, what));
                }
                Slot::Vacant(slot) => {
                    slot.insert(Row { line: entry.line.number, members });
                }
            }
        }
        errors.sort_by_key(|error| (error.line, error.column));
        if errors.is_empty() { Ok(table) } else { Err(errors) }
    }

    /// What a whole address stands for, both parts in lower case.
    pub(super) fn find(&self, local: &str, domain: &str) -> Option<&[Member]> {
        Some(&self.domains.get(domain)?.get(local)?.members)
    }

    /// What all of a domain stands for that nothing else is known of.
    pub(super) fn catch_all(&self, domain: &str) -> Option<&[Member]> {
        self.find("", domain)
    }
}

fn key(text: &str) -> Result<(Box<str>, Box<str>), String> {
    if let Some(domain) = text.strip_prefix('@') {
        let domain = parse_domain(domain).map_err(|error| error.to_string())?;
        return Ok((Box::default(), domain));
    }
    let address = Address::parse(text).map_err(|error| error.to_string())?;
    if address.domain().is_empty() {
        return Err("expected an address with a domain, or @domain; the aliases file is for names".to_owned());
    }
    Ok((address.local().to_ascii_lowercase().into(), address.domain().into()))
}

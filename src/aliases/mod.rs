//! Reads the aliases file, in sendmail's format (aliases(5)).
//!
//! An entry is `name: value, value`. The lines after it that begin with a blank continue the entry.
//! A `#` at the front of a line or after a blank begins a comment, except in quotes and
//! parentheses. Names have no domain and are case-insensitive. A name that occurs twice is an
//! error. So is a loop of names from which no recipient can be reached.
//!
//! All errors are reported, with line and column. A name whose line has an error is kept as broken,
//! so that its mail can wait. `route` and `worker` expand aliases, open lists and run commands. The
//! virtual table has values of the same form, so [`entries`] and [`members`] read it, too. A
//! `.forward` file or an `:include:` list is read by [`list`].
//!
//! - `member`: one member of an alias, a list, a `.forward` or the virtual table

use std::collections::hash_map::Entry as Slot;
use std::collections::{HashMap, HashSet};
use std::path::Path;

use crate::address::{Address, fold};
use crate::config::ConfigError;
use crate::config::table::{Line, lines};
use crate::spelling::is_slip;

mod member;

pub use member::address;
use member::{BLANKS, Scan, pieces, without_comment};

/// The aliases of a file.
#[derive(Debug, Default)]
pub struct Aliases {
    /// Aliases by name in lower case.
    names: HashMap<Box<str>, Alias>,
    /// The error, if the file could not be read at all.
    error: Option<ConfigError>,
}

#[derive(Debug)]
struct Alias {
    line: usize,
    /// The members of the alias; empty only if the alias is broken.
    members: Vec<Member>,
    /// The first error in the alias; `None` if there is no error. Because of an error, mail for the
    /// alias waits.
    broken: Option<Box<ConfigError>>,
}

/// One member of an alias.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Member {
    /// An address, which may be an alias itself.
    Address(Address),
    /// `\name`: an address that is not looked up in any table.
    Direct(Address),
    /// `|command`: the command, without the `|`.
    Run(Box<str>),
    /// `/file`: the path of a file or, if it ends in `/`, of a Maildir.
    File(Box<str>),
    /// `:include:/file`: the path of a file that lists more members.
    Include(Box<str>),
}

impl Aliases {
    /// Reads the text of an aliases file.
    ///
    /// # Errors
    /// All errors, in the order of the file.
    pub fn parse(file: &Path, text: &str) -> Result<Self, Vec<ConfigError>> {
        let (aliases, errors) = Self::read(file, text);
        if errors.is_empty() { Ok(aliases) } else { Err(errors) }
    }

    /// Reads the text of an aliases file; returns the aliases of its well-formed lines, and all
    /// errors in the order of the file.
    pub fn read(file: &Path, text: &str) -> (Self, Vec<ConfigError>) {
        let mut errors = Vec::new();
        let mut names: HashMap<Box<str>, Alias> = HashMap::new();
        for entry in entries(file, text, Separator::Colon, &mut errors) {
            let (members, broken) = members(file, &entry, &mut errors);
            match alias_name(entry.key).map(|name| names.entry(name)) {
                // `entries` has reported the error in this line already.
                Err(_) if entry.refused.is_some() => {}
                Err(what) => errors.push(entry.line.error(file, entry.key, what)),
                Ok(Slot::Occupied(first)) => {
                    let what = format!("the alias {} is already on line {}", first.key(), first.get().line);
                    errors.push(entry.line.error(file, entry.key, what));
                }
                Ok(Slot::Vacant(slot)) => {
                    slot.insert(Alias { line: entry.line.number, members, broken: broken.map(Box::new) });
                }
            }
        }
        errors.extend(loops(file, &names));
        errors.sort_by_key(|error| (error.line, error.column));
        (Self { names, error: None }, errors)
    }

    /// The aliases of a file that cannot be read: every look-up returns the error `why`.
    pub fn unreadable(why: &ConfigError) -> Self {
        Self { names: HashMap::new(), error: Some(why.clone()) }
    }

    /// Returns the members of the alias `name`, at least one; `None` if there is no such alias. The
    /// name must be in lower case.
    ///
    /// # Errors
    /// If the members are unknown because of an error in the alias or in reading the file.
    pub fn find(&self, name: &str) -> Result<Option<&[Member]>, &ConfigError> {
        if let Some(why) = &self.error {
            return Err(why);
        }
        let found = self.names.get(name).map(|alias| alias.broken.as_deref().map_or(Ok(alias.members.as_slice()), Err));
        found.transpose()
    }

    /// Returns the line of the alias `name`; `None` if there is no such alias. The name must be in lower case.
    pub fn line(&self, name: &str) -> Option<usize> {
        self.names.get(name).map(|alias| alias.line)
    }

    /// Returns the first alias that may be a misspelt `name`, with its line; `None` if there is an alias
    /// of that name.
    pub fn misspelt(&self, name: &str) -> Option<(usize, &str)> {
        let slips = self.names.iter().filter(|(given, _)| is_slip(given, name));
        let slips = slips.map(|(given, alias)| (alias.line, &**given));
        slips.min().filter(|_| !self.names.contains_key(name))
    }

    /// Whether there are no aliases.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Follows the first address of each alias, from the alias `name` to the end of the chain.
    /// Returns the line of the last alias, and its address; `None` if `name` is no alias or has no
    /// address.
    pub fn end_of(&self, name: &str) -> Option<(usize, &Address)> {
        let address = |member| match member {
            &Member::Address(ref to) | &Member::Direct(ref to) => Some(to),
            _ => None,
        };
        let (mut at, mut end) = (name.to_owned(), None);
        for _ in 0..self.names.len() {
            let Some(alias) = self.names.get(at.as_str()) else { break };
            let Some(to) = alias.members.iter().find_map(address) else { break };
            (at, end) = (fold(to.local()).into_owned(), Some((alias.line, to)));
        }
        end
    }

    /// Returns the name of the alias `owner-NAME`, the owner of the list `name`; `None` if there is
    /// none. If mail to a member of the list fails, the owner gets the report.
    pub fn owner(&self, name: &str) -> Option<&str> {
        self.names.get_key_value(format!("owner-{name}").as_str()).map(|(owner, _)| &**owner)
    }
}

/// Reads a `.forward` file or an `:include:` list, with any number of members on each line. Returns
/// the members, and the errors with their line numbers.
pub fn list(text: &str) -> (Vec<Member>, Vec<(usize, String)>) {
    let (mut members, mut errors) = (Vec::new(), Vec::new());
    for line in lines(text) {
        for value in pieces(without_comment(line.text)) {
            match member::read(value) {
                Ok(member) => members.push(member),
                Err(what) => errors.push((line.number, what)),
            }
        }
    }
    (members, errors)
}

fn alias_name(key: &str) -> Result<Box<str>, String> {
    let address = Address::parse(key).map_err(|error| error.to_string())?;
    if address.domain().is_empty() {
        Ok(fold(address.local()).into())
    } else {
        Err("the name of an alias has no domain; the virtual table is for whole addresses".to_owned())
    }
}

/// Returns an error for each loop of aliases from which no recipient can be reached.
fn loops(file: &Path, names: &HashMap<Box<str>, Alias>) -> Vec<ConfigError> {
    let mut stuck = stuck(names);
    stuck.sort_by_key(|(_, alias)| alias.line);
    let mut walked = HashSet::new();
    let mut errors = Vec::new();
    for start in stuck {
        let (mut path, mut at) = (Vec::new(), Some(start));
        while let Some((name, alias)) = at.filter(|(name, _)| walked.insert(*name)) {
            path.push((name, alias));
            at = alias.members.first().and_then(|member| inner(names, name, member));
        }
        // This path may have led into a loop that was walked before and has been reported already.
        let Some(again) = at.and_then(|(end, _)| path.iter().position(|(name, _)| *name == end)) else { continue };
        let ring: Vec<&str> = path[again..].iter().chain(&path[again..=again]).map(|(name, _)| *name).collect();
        errors.push(ConfigError::new(file, path[again].1.line, 1, format!("alias loop: {}", ring.join(" -> "))));
    }
    errors
}

/// Returns the aliases that lead only to other aliases, never to a recipient.
fn stuck(names: &HashMap<Box<str>, Alias>) -> Vec<(&str, &Alias)> {
    let mut named_by: HashMap<&str, Vec<&str>> = HashMap::new();
    let mut todo = Vec::new();
    for (name, alias) in names {
        for member in &alias.members {
            match inner(names, name, member) {
                Some((other, _)) => named_by.entry(other).or_default().push(name),
                None => todo.push(&**name),
            }
        }
    }
    let mut free = HashSet::new();
    while let Some(name) = todo.pop() {
        if free.insert(name) {
            todo.extend(named_by.get(name).into_iter().flatten());
        }
    }
    names.iter().map(|(name, alias)| (&**name, alias)).filter(|(name, _)| !free.contains(name)).collect()
}

/// Returns the alias that a member of the alias `own_name` names; `None` if it names none. A member
/// with the name of its own alias means the user of that name.
fn inner<'a>(names: &'a HashMap<Box<str>, Alias>, own_name: &str, member: &Member) -> Option<(&'a str, &'a Alias)> {
    let Member::Address(address) = member else { return None };
    if !address.domain().is_empty() || *fold(address.local()) == *own_name {
        return None;
    }
    let (name, alias) = names.get_key_value(&*fold(address.local()))?;
    Some((name, alias))
}

/// The separator between the key of an entry and its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Separator {
    /// A colon, in an aliases file.
    Colon,
    /// Blanks, in the virtual table.
    Blank,
}

/// An entry of an aliases file or of the virtual table: a key and its values, as they are written.
#[derive(Debug)]
pub struct Entry<'a> {
    /// The first line of the entry.
    pub line: Line<'a>,
    /// The key: a part of the first line, without blanks around it.
    pub key: &'a str,
    /// The values, each with its line; there may be none, but no value is empty.
    pub values: Vec<(Line<'a>, &'a str)>,
    /// The error if no separator follows the key in the first line. In that case, `key` is the text
    /// before the first blank or comma.
    pub refused: Option<ConfigError>,
}

/// Splits an aliases file or a virtual table into its entries. Adds an error to `errors` for each
/// line without a key, and for each missing comma before a continuation line.
pub fn entries<'a>(file: &Path, text: &'a str, separator: Separator, errors: &mut Vec<ConfigError>) -> Vec<Entry<'a>> {
    let mut entries: Vec<Entry<'a>> = Vec::new();
    let mut comma = true;
    for line in lines(text) {
        let text = without_comment(line.text);
        let is_refused = entries.last().is_some_and(|entry| entry.refused.is_some());
        let values = if text.trim().is_empty() || (is_refused && text.starts_with(BLANKS)) {
            continue;
        } else if text.starts_with(BLANKS) {
            if !comma && !text.trim_start().starts_with(',') {
                errors.push(line.error(
                    file,
                    text.trim_start(),
                    "expected a comma between this line and the one before",
                ));
            }
            text
        } else if let Some((key, values)) = split_key(text, separator) {
            entries.push(Entry { line, key, values: Vec::new(), refused: None });
            values
        } else {
            let error = line.error(file, text, "expected a name, a colon and addresses");
            let key = text.split([' ', '\t', ',']).next().unwrap_or(text);
            entries.push(Entry { line, key, values: Vec::new(), refused: Some(error.clone()) });
            errors.push(error);
            continue;
        };
        let Some(entry) = entries.last_mut() else {
            errors.push(line.error(file, text.trim_start(), "a continuation line needs an entry above it"));
            continue;
        };
        comma = values.trim().is_empty() || values.trim_end().ends_with(',');
        entry.values.extend(pieces(values).map(|value| (line, value)));
    }
    entries
}

/// Reads the values of an entry as members. Returns the members and the first error, and adds the
/// errors in the values to `errors`.
pub fn members(file: &Path, entry: &Entry<'_>, errors: &mut Vec<ConfigError>) -> (Vec<Member>, Option<ConfigError>) {
    if entry.refused.is_some() {
        return (Vec::new(), entry.refused.clone());
    }
    let before = errors.len();
    if entry.values.is_empty() {
        let what = format!("{} has no members: expected an address", entry.key);
        errors.push(entry.line.error(file, entry.key, what));
    }
    let mut members = Vec::with_capacity(entry.values.len());
    for (line, value) in &entry.values {
        match member::read(value) {
            Ok(member) => members.push(member),
            Err(what) => errors.push(line.error(file, value, what)),
        }
    }
    (members, errors.get(before).cloned())
}

fn split_key(text: &str, separator: Separator) -> Option<(&str, &str)> {
    let is_end = |b| if separator == Separator::Colon { b == b':' } else { b == b' ' || b == b'\t' };
    match Scan::of(text).find(|&(_, b)| is_end(b)) {
        Some((at, _)) => Some((text[..at].trim_end(), &text[at + 1..])),
        // The key stands alone on its line; any values are on the continuation lines.
        None => (separator == Separator::Blank).then_some((text, "")),
    }
}

#[cfg(test)]
mod tests;

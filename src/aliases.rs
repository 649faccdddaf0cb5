//! The aliases file, in sendmail's format: aliases(5).
//!
//! An entry is `name: value, value`; it goes on in the lines that begin with a
//! blank. A `#` at the front of a line or after a blank begins a comment, except
//! in quotes. Names have no domain and no case. A name is there once, and a ring
//! of names from which no way leads out is an error of the file.
//!
//! Errors name line and column, and all are given. Does not look an alias up in other
//! tables, nor follow it, nor open a list or run a command: `route` and the worker do. The
//! virtual table has values of the same form and is read with [`entries`] and [`members`]
//! too; what a `.forward` or a `:include:` list says is read by [`list`].

use std::borrow::Cow;
use std::collections::hash_map::Entry as Slot;
use std::collections::{HashMap, HashSet};
use std::path::Path;

use crate::address::Address;
use crate::config::ConfigError;
use crate::config::table::{Line, lines};
use crate::envelope::MAX_ACTION;

/// What an aliases file says.
#[derive(Debug, Default)]
pub struct Aliases {
    /// By the name in lower case.
    names: HashMap<Box<str>, Alias>,
}

#[derive(Debug)]
struct Alias {
    line: usize,
    /// Never empty.
    members: Vec<Member>,
}

/// One of the things that a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Member {
    /// An address, looked up in its turn.
    Address(Address),
    /// `\name`: an address that no table makes something else of.
    Direct(Address),
    /// `|command`: the command.
    Run(Box<str>),
    /// `/file`, or `/directory/` for a Maildir.
    File(Box<str>),
    /// `:include:/file`: whom the file lists.
    Include(Box<str>),
}

impl Aliases {
    /// Reads the text of an aliases file.
    ///
    /// # Errors
    /// All that is wrong, in the order of the file.
    pub fn parse(file: &Path, text: &str) -> Result<Self, Vec<ConfigError>> {
        let mut errors = Vec::new();
        let mut names: HashMap<Box<str>, Alias> = HashMap::new();
        for entry in entries(file, text, Separator::Colon, &mut errors) {
            let members = members(file, &entry, &mut errors);
            match alias_name(entry.key).map(|name| names.entry(name)) {
                Err(what) => errors.push(entry.line.error(file, entry.key, what)),
                Ok(Slot::Occupied(first)) => {
                    let what = format!("the alias {} is already on line {}", first.key(), first.get().line);
                    errors.push(entry.line.error(file, entry.key, what));
                }
                Ok(Slot::Vacant(_)) if members.is_empty() => {}
                Ok(Slot::Vacant(slot)) => {
                    slot.insert(Alias { line: entry.line.number, members });
                }
            }
        }
        errors.extend(loops(file, &names));
        errors.sort_by_key(|error| (error.line, error.column));
        if errors.is_empty() { Ok(Self { names }) } else { Err(errors) }
    }

    /// What a name, in lower case, stands for; never an empty list.
    pub fn find(&self, name: &str) -> Option<&[Member]> {
        self.names.get(name).map(|alias| alias.members.as_slice())
    }

    /// Whether there is no alias at all.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Where the way from a name ends that goes on with the first address of each alias:
    /// the line, and that address. `None` if the name is no alias.
    pub fn end_of(&self, name: &str) -> Option<(usize, &Address)> {
        let address = |member| match member {
            &Member::Address(ref to) | &Member::Direct(ref to) => Some(to),
            _ => None,
        };
        let (mut at, mut end) = (name.to_owned(), None);
        for _ in 0..self.names.len() {
            let Some(alias) = self.names.get(at.as_str()) else { break };
            let Some(to) = alias.members.iter().find_map(address) else { break };
            (at, end) = (to.local().to_ascii_lowercase(), Some((alias.line, to)));
        }
        end
    }

    /// The alias of a name's owner, if there is one: he is told when mail that it passes
    /// on fails.
    pub fn owner(&self, name: &str) -> Option<&str> {
        self.names.get_key_value(format!("owner-{name}").as_str()).map(|(owner, _)| &**owner)
    }
}

/// The members of a `.forward` or of a `:include:` list, each line with any number of
/// them, and what is wrong in which line.
pub fn list(text: &str) -> (Vec<Member>, Vec<(usize, String)>) {
    let (mut members, mut errors) = (Vec::new(), Vec::new());
    for line in lines(text) {
        for value in pieces(without_comment(line.text)) {
            match member(value) {
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
        Ok(address.local().to_ascii_lowercase().into())
    } else {
        Err("the name of an alias has no domain; the virtual table is for whole addresses".to_owned())
    }
}

/// The rings in the file itself from which no way leads out, each once. Who gets
/// into one of them gets nowhere.
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
        // A path that ends in one walked before is that one's concern.
        let Some(again) = at.and_then(|(end, _)| path.iter().position(|(name, _)| *name == end)) else { continue };
        let ring: Vec<&str> = path[again..].iter().chain(&path[again..=again]).map(|(name, _)| *name).collect();
        errors.push(ConfigError::new(file, path[again].1.line, 1, format!("alias loop: {}", ring.join(" -> "))));
    }
    errors
}

/// The aliases from which nothing but aliases can be reached.
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

/// The alias that a member of the alias `own` is. One that names itself means
/// the user of that name.
fn inner<'a>(names: &'a HashMap<Box<str>, Alias>, own: &str, member: &Member) -> Option<(&'a str, &'a Alias)> {
    let Member::Address(address) = member else { return None };
    if !address.domain().is_empty() || address.local().eq_ignore_ascii_case(own) {
        return None;
    }
    let (name, alias) = names.get_key_value(address.local().to_ascii_lowercase().as_str())?;
    Some((name, alias))
}

/// What stands between the key of an entry and its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Separator {
    /// A colon, as in an aliases file.
    Colon,
    /// Blanks, as in the virtual table.
    Blank,
}

/// A key and its values, as they are written.
#[derive(Debug)]
pub struct Entry<'a> {
    /// The line that it begins in.
    pub line: Line<'a>,
    /// The key, a piece of that line, without blanks around it.
    pub key: &'a str,
    /// The values, each with its line; none is empty, there may be none.
    pub values: Vec<(Line<'a>, &'a str)>,
}

/// The entries of a table of lists. A line without a key and a comma that is
/// missing between two lines are put with the errors.
pub fn entries<'a>(file: &Path, text: &'a str, separator: Separator, errors: &mut Vec<ConfigError>) -> Vec<Entry<'a>> {
    let mut entries: Vec<Entry<'a>> = Vec::new();
    let mut comma = true;
    // Whether the entry that a line continues is one that was refused.
    let mut refused = false;
    for line in lines(text) {
        let text = without_comment(line.text);
        let values = if text.trim().is_empty() || (refused && text.starts_with(BLANKS)) {
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
            entries.push(Entry { line, key, values: Vec::new() });
            values
        } else {
            errors.push(line.error(file, text, "expected a name, a colon and addresses"));
            refused = true;
            continue;
        };
        let Some(entry) = entries.last_mut() else {
            errors.push(line.error(file, text.trim_start(), "a line that begins with a blank continues nothing"));
            continue;
        };
        refused = false;
        comma = values.trim().is_empty() || values.trim_end().ends_with(',');
        entry.values.extend(pieces(values).map(|value| (line, value)));
    }
    entries
}

/// The values of an entry. What is wrong with them is put with the errors.
pub fn members(file: &Path, entry: &Entry<'_>, errors: &mut Vec<ConfigError>) -> Vec<Member> {
    if entry.values.is_empty() {
        errors.push(entry.line.error(
            file,
            entry.key,
            format!("{} stands for nothing: expected an address", entry.key),
        ));
    }
    let mut members = Vec::with_capacity(entry.values.len());
    for (line, value) in &entry.values {
        match member(value) {
            Ok(member) => members.push(member),
            Err(what) => errors.push(line.error(file, value, what)),
        }
    }
    members
}

fn member(value: &str) -> Result<Member, String> {
    let mut quotes = Quotes::default();
    value.bytes().for_each(|b| _ = quotes.is_bare(b));
    if quotes.open {
        return Err("the quotation mark has no end".to_owned());
    }
    let text = unquoted(value);
    if let Some(command) = text.strip_prefix('|') {
        return checked(unquoted(command.trim()), "a command").map(Member::Run);
    }
    if text.starts_with('/') {
        return checked(text, "a file").map(Member::File);
    }
    if text.get(..INCLUDE.len()).is_some_and(|tag| tag.eq_ignore_ascii_case(INCLUDE)) {
        let path = text.get(INCLUDE.len()..).unwrap_or_default().trim();
        if !path.starts_with('/') {
            return Err("expected a path that begins with / after :include:".to_owned());
        }
        return checked(path.into(), "a file").map(Member::Include);
    }
    let read = |text| Address::parse(text).map_err(|error| error.to_string());
    // A name and an address in angle brackets, as people write them into lists.
    let bracketed = value.strip_suffix('>').and_then(|value| value.rsplit_once('<')).map(|(_, address)| address);
    match value.strip_prefix('\\') {
        Some(name) => read(name).map(Member::Direct),
        None => read(bracketed.unwrap_or(value)).map(Member::Address),
    }
}

const INCLUDE: &str = ":include:";

/// A command or path that can be kept.
fn checked(text: Cow<'_, str>, what: &str) -> Result<Box<str>, String> {
    if text.is_empty() {
        Err(format!("{what} is missing"))
    } else if text.len() > MAX_ACTION {
        Err(format!("{what} is longer than {MAX_ACTION} octets"))
    } else if text.contains(|c: char| c.is_control() && c != '\t') {
        Err(format!("{what} has a control character in it"))
    } else {
        Ok(text.into())
    }
}

/// The text without quotation marks around all of it.
fn unquoted(text: &str) -> Cow<'_, str> {
    let Some(inside) = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) else { return text.into() };
    let mut plain = String::with_capacity(inside.len());
    let mut chars = inside.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => plain.extend(chars.next()),
            // Quotes that end before the end: it is another text.
            '"' => return text.into(),
            c => plain.push(c),
        }
    }
    plain.into()
}

const BLANKS: [char; 2] = [' ', '\t'];

/// Which octets of a text are outside quotation marks.
#[derive(Default)]
struct Quotes {
    open: bool,
    escaped: bool,
}

impl Quotes {
    fn is_bare(&mut self, b: u8) -> bool {
        match b {
            _ if self.escaped => self.escaped = false,
            b'\\' if self.open => self.escaped = true,
            b'"' => self.open = !self.open,
            _ => return !self.open,
        }
        false
    }
}

/// The octets outside quotation marks, with their places.
fn bare(text: &str) -> impl Iterator<Item = (usize, u8)> {
    let mut quotes = Quotes::default();
    text.bytes().enumerate().filter(move |&(_, b)| quotes.is_bare(b))
}

fn without_comment(text: &str) -> &str {
    let starts = |at: usize| text[..at].chars().next_back().is_none_or(|before| BLANKS.contains(&before));
    let end = bare(text).find(|&(at, b)| b == b'#' && starts(at)).map_or(text.len(), |(at, _)| at);
    &text[..end]
}

fn split_key(text: &str, separator: Separator) -> Option<(&str, &str)> {
    let is_end = |b| if separator == Separator::Colon { b == b':' } else { b == b' ' || b == b'\t' };
    match bare(text).find(|&(_, b)| is_end(b)) {
        Some((at, _)) => Some((text[..at].trim_end(), &text[at + 1..])),
        // A key alone has its values in the next lines, or none.
        None => (separator == Separator::Blank).then_some((text, "")),
    }
}

/// The pieces between commas outside quotation marks, without blanks around them.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut start = 0;
    let ends = bare(text).filter(|&(_, b)| b == b',').map(|(at, _)| at).chain([text.len()]);
    ends.map(move |end| {
        let piece = &text[start..end];
        start = end + 1;
        piece.trim()
    })
    .filter(|piece| !piece.is_empty())
}

#[cfg(test)]
mod tests;

//! Who has a mailbox here, and where it is: the users of the system, or a users file.
//!
//! A line of a users file is `name:secret:mailbox`. The name is for every local
//! domain, or for one: `jon@razorback`. The secret is one of [`Secret`], or empty for
//! who may not log in, see [`accounts`]; it gets into no message. The mailbox is an
//! absolute path, or empty for the template of the configuration.
//!
//! Nothing that a client sends gets into a path: a path is made of the name as
//! the file or the system has it and of a local domain, and a name that could
//! climb in a file system is no user's. That the system cannot be asked is
//! told apart from a name that it does not know. Does not know of aliases and
//! details: see `route`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};

use crate::address::Address;
use crate::config::table::{Line, NOT_UTF8, Watched, lines, not_utf8};
use crate::config::{self, ConfigError, Local, TableFile};
use crate::privsep::passwd;
use crate::sasl::secret::Secret;

pub mod accounts;

/// What the queue's name of a user of the system begins with, as a destination.
pub const DESTINATION: &str = "user:";

/// A mailbox, and whose rights are needed there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mailbox {
    /// The Maildir, or the file.
    pub path: PathBuf,
    /// Whether it is one file for all messages.
    pub is_mbox: bool,
    /// Whose it is.
    pub owner: Owner,
}

/// Whose rights something needs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Owner {
    /// The server's own.
    Server,
    /// Those of this user of the system.
    User(Account),
}

/// A user of the system.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Account {
    /// The login name.
    pub name: String,
    /// The number.
    pub uid: u32,
    /// The home directory.
    pub home: PathBuf,
}

/// Where mailbox names come from.
#[derive(Debug)]
pub struct Users {
    source: Source,
    template: String,
    /// Whether the template is that of a file.
    is_mbox: bool,
}

#[derive(Debug)]
enum Source {
    System,
    File(Watched<UserTable>),
}

/// What a users file says.
#[derive(Debug, Default)]
struct UserTable {
    /// By domain (empty for all) and name, both in lower case.
    domains: HashMap<Box<str>, HashMap<Box<str>, User>>,
    /// Why there is no table, if the file could not be read at all.
    lost: Option<ConfigError>,
}

#[derive(Debug)]
struct User {
    line: usize,
    /// `None` for who may not log in.
    secret: Option<Box<Secret>>,
    /// `None` for the template.
    mailbox: Option<PathBuf>,
    /// What is wrong with the line, if it cannot be told where the mailbox is. Such a user
    /// has no secret.
    broken: Option<Box<ConfigError>>,
}

impl Users {
    /// Reads the users file as far as it can be read, and all that is wrong in it.
    pub fn begin(local: &Local) -> (Self, Vec<ConfigError>) {
        let (source, errors) = match &local.users {
            config::Users::System => (Source::System, Vec::new()),
            config::Users::File(path) => {
                let file = TableFile { path: path.clone(), required: true };
                let (table, errors) = Watched::begin(&file, parse, UserTable::lost);
                (Source::File(table), errors)
            }
        };
        let (template, is_mbox) = match local.mailbox.strip_prefix("mbox:") {
            Some(template) => (template, true),
            None => (local.mailbox.as_str(), false),
        };
        (Self { source, template: template.to_owned(), is_mbox }, errors)
    }

    /// Where mailboxes of the server's own are: what the template begins with, and the
    /// directories of those that the users file names.
    pub fn roots(&self) -> Vec<PathBuf> {
        let Source::File(table) = &self.source else { return Vec::new() };
        let begin = self.template.find('{').map_or(self.template.as_str(), |at| &self.template[..at]);
        let begin = begin.rfind('/').map_or("/", |at| &begin[..at]);
        let table = table.current();
        let named = table.domains.values().flat_map(|users| users.values()).filter_map(|user| user.mailbox.as_deref());
        let mut roots: Vec<PathBuf> =
            named.filter_map(Path::parent).chain([Path::new(begin)]).map(Path::to_owned).collect();
        roots.sort_unstable();
        roots.dedup();
        roots
    }

    /// Whether they are those of the system.
    pub fn are_of_system(&self) -> bool {
        matches!(self.source, Source::System)
    }

    /// Lines of the users file whose mailbox looks as if something were to be filled in.
    pub fn unfilled(&self) -> Vec<ConfigError> {
        let Source::File(table) = &self.source else { return Vec::new() };
        let current = table.current();
        let users = current.domains.values().flat_map(|users| users.values());
        let signs = users.filter_map(|user| {
            let path = user.mailbox.as_deref()?.to_str()?;
            let sign =
                placeholder(path).or_else(|| ["{user}", "{domain}"].into_iter().find(|sign| path.contains(sign)))?;
            Some((user.line, sign))
        });
        let mut signs: Vec<_> = signs.collect();
        signs.sort_unstable();
        let told = |(line, sign)| {
            ConfigError::new(table.path(), line, 1, format!("nothing takes the place of {sign} in a line's mailbox"))
        };
        signs.into_iter().map(told).collect()
    }

    /// The mailbox of the user `name` (in lower case) of a local domain; `None`
    /// if there is no such user.
    ///
    /// # Errors
    /// Why the system could not be asked, or has no home for the user.
    pub fn mailbox(&self, name: &str, domain: &str) -> Result<Option<Mailbox>, String> {
        #[cfg(test)]
        tests::LOOKED_UP.set(tests::LOOKED_UP.get() + 1);
        match &self.source {
            Source::System => self.of_system(name, domain),
            Source::File(table) => {
                let table = table.current();
                match table.find(name, domain).map_err(ToString::to_string)? {
                    None => Ok(None),
                    Some(User { mailbox: Some(path), .. }) => {
                        Ok(Some(Mailbox { path: path.clone(), is_mbox: false, owner: Owner::Server }))
                    }
                    Some(_) => {
                        let path = self.fill(name, domain, Path::new("/"));
                        Ok(Some(Mailbox { path, is_mbox: self.is_mbox, owner: Owner::Server }))
                    }
                }
            }
        }
    }

    fn of_system(&self, name: &str, domain: &str) -> Result<Option<Mailbox>, String> {
        let Some(account) = self.account(name)? else { return Ok(None) };
        if self.template.starts_with('~') && !account.home.is_absolute() {
            return Err(format!("the user {name} has no home directory"));
        }
        let path = self.fill(name, domain, &account.home);
        Ok(Some(Mailbox { path, is_mbox: self.is_mbox, owner: Owner::User(account) }))
    }

    /// The user of the system of this name.
    ///
    /// # Errors
    /// Why the system could not be asked.
    pub fn account(&self, name: &str) -> Result<Option<Account>, String> {
        if !is_safe(name) || name.starts_with('-') {
            return Ok(None);
        }
        let user = passwd::user_named(name).map_err(|error| format!("look up the user {name}: {error}"))?;
        Ok(user.map(|user| Account { name: user.name, uid: user.uid, home: user.home }))
    }

    /// The template with its places filled in, in one pass: what is filled in is not looked at again.
    fn fill(&self, name: &str, domain: &str, home: &Path) -> PathBuf {
        let (mut filled, mut rest) = (String::new(), self.template.strip_prefix('~').unwrap_or(&self.template));
        while let Some(at) = rest.find('{') {
            let (before, place) = rest.split_at(at);
            let (value, length) = match place {
                _ if place.starts_with("{user}") => (name, "{user}".len()),
                _ if place.starts_with("{domain}") => (domain, "{domain}".len()),
                _ => ("{", 1),
            };
            filled.extend([before, value]);
            rest = &place[length..];
        }
        filled.push_str(rest);
        if self.template.starts_with('~') { home.join(filled.trim_start_matches('/')) } else { filled.into() }
    }
}

impl UserTable {
    /// The table of a file that cannot be read.
    fn lost(why: &ConfigError) -> Self {
        Self { lost: Some(why.clone()), ..Self::default() }
    }

    /// The user of a name in a domain, both in lower case.
    ///
    /// # Errors
    /// What is wrong in the file, where that cannot be told.
    fn find(&self, name: &str, domain: &str) -> Result<Option<&User>, &ConfigError> {
        if let Some(why) = &self.lost {
            return Err(why);
        }
        let find = |domain| self.domains.get(domain).and_then(|users| users.get(name));
        let user = find(domain).or_else(|| find(""));
        user.map(|user| user.broken.as_deref().map_or(Ok(user), Err)).transpose()
    }

    /// Nobody has this name now: a line that is wrong, or two lines, could mean anybody.
    fn break_off(&mut self, domain: &str, name: &str, line: usize, error: &ConfigError) {
        let users = self.domains.entry(domain.into()).or_default();
        let line = users.get(name).map_or(line, |first| first.line);
        users.insert(name.into(), User { line, secret: None, mailbox: None, broken: Some(Box::new(error.clone())) });
    }
}

/// What is wrong with a line.
struct Wrong<'a> {
    part: &'a str,
    what: String,
    /// Whether it cannot be told where the mailbox is.
    is_broken: bool,
}

/// What a file says as far as it can be read, and all that is wrong in it. A line that is
/// wrong takes rights away and gives none: the user whose it is, as far as can be seen, has
/// no secret, and his mail waits if his mailbox cannot be told.
fn parse(file: &Path, text: &str) -> (UserTable, Vec<ConfigError>) {
    let (mut table, mut errors) = (UserTable::default(), Vec::new());
    for line in lines(text) {
        if let Err(wrong) = add(&mut table, line) {
            let error = line.error(file, wrong.part, wrong.what);
            if wrong.is_broken {
                let (name, domain) = whose(line.text);
                table.break_off(&domain, &name.to_ascii_lowercase(), line.number, &error);
            }
            errors.push(error);
        }
    }
    (table, errors)
}

/// Adds the user of one line. No text of the line is repeated except the name: the rest may
/// be a secret.
fn add<'a>(table: &mut UserTable, line: Line<'a>) -> Result<(), Wrong<'a>> {
    let broken = |part, what: &str| Wrong { part, what: what.to_owned(), is_broken: true };
    let mut fields = line.text.splitn(3, ':');
    let (Some(name), Some(secret), Some(mailbox)) = (fields.next(), fields.next(), fields.next()) else {
        return Err(broken(line.text, "expected name:secret:mailbox"));
    };
    let address = Address::parse(name).map_err(|error| broken(name, &error.to_string()))?;
    if !is_safe(address.local()) {
        return Err(broken(name, "the name of a user has no / and no dot at its front"));
    }
    if let Some(part) = not_utf8(mailbox) {
        return Err(broken(part, NOT_UTF8));
    }
    if !mailbox.is_empty() && (!mailbox.starts_with('/') || mailbox.contains(char::is_control)) {
        return Err(broken(mailbox, "expected the path of a mailbox that begins with /, or nothing"));
    }
    let (kept, bad) = match secret {
        "" => (None, None),
        text => Secret::parse(text).map_or_else(|what| (None, Some(what)), |kept| (Some(Box::new(kept)), None)),
    };
    let mailbox = (!mailbox.is_empty()).then(|| mailbox.into());
    let users = table.domains.entry(address.domain().into()).or_default();
    match users.entry(address.local().to_ascii_lowercase().into()) {
        // What is wrong with it has been told.
        Entry::Occupied(first) if first.get().broken.is_some() => Ok(()),
        Entry::Occupied(mut first) => {
            // Of two lines none is believed but where they agree.
            let first = first.get_mut();
            first.secret = None;
            let what = format!("the user {address} is already on line {}", first.line);
            Err(Wrong { part: name, what, is_broken: first.mailbox != mailbox })
        }
        Entry::Vacant(slot) => {
            slot.insert(User { line: line.number, secret: kept, mailbox, broken: None });
            let wrong = |what: &str| Wrong { part: secret, what: what.to_owned(), is_broken: false };
            bad.map_or(Ok(()), |what| Err(wrong(what)))
        }
    }
}

/// The name and the domain of a line that is wrong. Where the domain cannot be read it may be
/// any.
fn whose(text: &str) -> (String, String) {
    let key = text.split(':').next().unwrap_or_default();
    match Address::parse(key) {
        Ok(address) => (address.local().to_owned(), address.domain().to_owned()),
        Err(_) => (key.split(['@', ' ', '\t']).next().unwrap_or_default().to_owned(), String::new()),
    }
}

/// What other programs fill in for the user or the domain, and this one does not.
pub fn placeholder(path: &str) -> Option<&'static str> {
    ["%u", "%n", "%d", "%{user}", "$USER", "${user}"].into_iter().find(|sign| path.contains(sign))
}

/// Whether a name can stand in a path without leading elsewhere.
fn is_safe(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0'])
}

#[cfg(test)]
pub(crate) mod tests;

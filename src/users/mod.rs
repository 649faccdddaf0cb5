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

use std::path::{Path, PathBuf};

use crate::config::table::Watched;
use crate::config::{self, ConfigError, Local, TableFile};
use crate::privsep::Rights;

pub mod accounts;
mod file;
mod system;

use file::{User, UserTable, parse};

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
    rights: Rights,
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

impl Users {
    /// Reads the users file as far as it can be read, and all that is wrong in it.
    pub fn begin(local: &Local, rights: &Rights) -> (Self, Vec<ConfigError>) {
        let (source, errors) = match &local.users {
            config::Users::System => (Source::System, Vec::new()),
            config::Users::File(path) => {
                let file = TableFile { path: path.clone(), required: true };
                let (table, errors) = Watched::begin_secret(rights, &file, parse, UserTable::lost);
                (Source::File(table), errors)
            }
        };
        let (template, is_mbox) = match local.mailbox.strip_prefix("mbox:") {
            Some(template) => (template, true),
            None => (local.mailbox.as_str(), false),
        };
        (Self { rights: rights.clone(), source, template: template.to_owned(), is_mbox }, errors)
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

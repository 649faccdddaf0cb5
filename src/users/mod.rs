//! Finds users and their mailboxes, in the system's database or in a users file.
//!
//! Arbitrary client input never becomes part of a path. A path is made from a local domain and from
//! a name that the users file or the system knows. A name that could lead out of a directory
//! belongs to no user. A failed look-up is distinct from an unknown name. Aliases and subaddresses
//! are handled in `route`.
//!
//! - `accounts`: authentication against a users file
//! - `file`: parses the lines of a users file
//! - `system`: looks up system users

use std::path::{Path, PathBuf};

use crate::config::table::Watched;
use crate::config::{self, ConfigError, Local, TableFile};
use crate::privsep::Rights;

pub mod accounts;
mod file;
mod system;

use file::{User, UserTable, parse};

/// A mailbox, and the user with whose rights mail is written there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mailbox {
    /// The path of the Maildir or of the mbox file.
    pub path: PathBuf,
    /// Whether it is an mbox file.
    pub is_mbox: bool,
    /// The user with whose rights mail is written there.
    pub owner: Owner,
}

/// The user whose rights a delivery needs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Owner {
    /// The server's own user.
    Server,
    /// A system user.
    User(Account),
}

/// A system user.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Account {
    /// The login name.
    pub name: String,
    /// The user id.
    pub uid: u32,
    /// The home directory.
    pub home: PathBuf,
}

/// The users that have mailboxes.
#[derive(Debug)]
pub struct Users {
    rights: Rights,
    source: Source,
    template: String,
    /// Whether the template names an mbox file.
    is_mbox: bool,
}

#[derive(Debug)]
enum Source {
    System,
    File(Watched<UserTable>),
}

impl Users {
    /// Reads the users file, if one is configured. Returns the users of its well-formed lines, and
    /// all errors.
    pub fn begin(local: &Local, rights: &Rights) -> (Self, Vec<ConfigError>) {
        let (source, errors) = match &local.users {
            config::Users::System => (Source::System, Vec::new()),
            config::Users::File(path) => {
                let file = TableFile { path: path.clone(), required: true };
                let (table, errors) = Watched::open_tolerant_secret(rights, &file, parse, UserTable::unreadable);
                (Source::File(table), errors)
            }
        };
        let (template, is_mbox) = match local.mailbox.strip_prefix("mbox:") {
            Some(template) => (template, true),
            None => (local.mailbox.as_str(), false),
        };
        (Self { rights: rights.clone(), source, template: template.to_owned(), is_mbox }, errors)
    }

    /// The directories that contain the mailboxes to which the server itself writes. One is the
    /// part of the template up to the last `/` before the first placeholder. The others are the
    /// parents of the mailboxes that the users file names.
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

    /// Whether the users are those of the system.
    pub fn are_of_system(&self) -> bool {
        matches!(self.source, Source::System)
    }

    /// An error for each mailbox in the users file that contains a placeholder, because
    /// placeholders are replaced only in the template.
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
        let error = |(line, sign)| {
            ConfigError::new(table.path(), line, 1, format!("{sign} in the mailbox is not a placeholder"))
        };
        signs.into_iter().map(error).collect()
    }

    /// The mailbox of the user `name` (in lower case) in a local domain; `None` if there is no such
    /// user.
    ///
    /// # Errors
    /// The reason why the mailbox is unknown: the look-up failed, the users file has an error, or
    /// the user has no home directory.
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

    /// Returns the template with its placeholders replaced. A placeholder inside a replacement is
    /// left alone.
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

/// Finds a placeholder of another program, such as `%u` for the user, that penfold does not
/// replace. Returns `None` if the path has none.
pub fn placeholder(path: &str) -> Option<&'static str> {
    ["%u", "%n", "%d", "%{user}", "$USER", "${user}"].into_iter().find(|sign| path.contains(sign))
}

/// Whether a name can be part of a path without leading out of its directory.
fn is_safe(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0'])
}

#[cfg(test)]
pub(crate) mod tests;

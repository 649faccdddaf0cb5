//! Finds users and their mailboxes: in the system's database, in a users file or at Dovecot.
//!
//! Arbitrary client input never becomes part of a path. A path is made from a local domain and from
//! a name that the users file, the system or Dovecot knows. A name that could lead out of a directory
//! belongs to no user. A failed look-up is distinct from an unknown name. Aliases and subaddresses
//! are handled in `route`.
//!
//! - `accounts`: authentication against a users file
//! - `dovecot`: looks up users at Dovecot
//! - `file`: parses the lines of a users file
//! - `quota`: how much mail a mailbox may hold
//! - `system`: looks up system users

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::table::Watched;
use crate::config::{self, ConfigError, HOME, Local, MailboxTemplate, Store, TableFile};
use crate::dovecot::userdb::Userdb;
use crate::privsep::Rights;

pub mod accounts;
pub mod dovecot;
mod file;
mod quota;
mod system;

use file::{NamedMailbox, User, UserTable, parse};
pub use quota::{Contents, Quota, Size};

/// The name of the postmaster, in lower case.
pub const POSTMASTER: &str = "postmaster";
/// The name of the superuser.
pub const ROOT: &str = "root";

/// A mailbox, and the user with whose rights mail is written there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mailbox {
    /// The path of the Maildir or of the mbox file.
    pub path: PathBuf,
    /// Whether it is an mbox file.
    pub is_mbox: bool,
    /// The user with whose rights mail is written there.
    pub owner: Owner,
    /// The quota of the Maildir; `None` if there is no limit.
    pub quota: Option<Quota>,
}

/// The place where mail for a user is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inbox {
    /// A Maildir or an mbox file.
    Mailbox(Mailbox),
    /// A mail store, which knows the mailbox of each of its users. The second value is the user's
    /// owner, whose rights are not needed.
    Store(Store, Owner),
}

impl Inbox {
    /// Whether the user is root.
    pub fn is_roots(&self) -> bool {
        let (Self::Mailbox(Mailbox { owner, .. }) | Self::Store(_, owner)) = self;
        matches!(owner, Owner::User(account) if account.uid == 0)
    }
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
    template: MailboxTemplate,
    /// The limit of each Maildir for which the users file has none, in bytes.
    quota: Option<u64>,
    /// Whether mail that does not fit is returned at once.
    is_quota_final: bool,
}

#[derive(Debug)]
enum Source {
    System,
    File(Arc<Watched<UserTable>>),
    Dovecot(Arc<Userdb>),
    /// Every name, in the store of the template.
    Any,
}

/// The users files that were opened, and the Dovecots that are asked, by path.
#[derive(Debug, Default)]
pub struct Sources {
    files: HashMap<PathBuf, Arc<Watched<UserTable>>>,
    dovecots: HashMap<PathBuf, Arc<Userdb>>,
}

impl Users {
    /// Reads the users file, if one is configured. Returns the users of its well-formed lines, and
    /// all errors. `opened` has what other realms use, too: a file is read only once.
    pub fn begin(local: &Local, rights: &Rights, opened: &mut Sources) -> (Self, Vec<ConfigError>) {
        let (source, errors) = match &local.users {
            config::Users::System => (Source::System, Vec::new()),
            config::Users::Any => (Source::Any, Vec::new()),
            config::Users::Dovecot(path) => {
                let userdb = opened.dovecots.entry(path.clone()).or_insert_with(|| Arc::new(Userdb::at(path)));
                (Source::Dovecot(Arc::clone(userdb)), Vec::new())
            }
            config::Users::File(path) if opened.files.contains_key(path) => {
                (Source::File(Arc::clone(&opened.files[path])), Vec::new())
            }
            config::Users::File(path) => {
                let file = TableFile { path: path.clone(), required: true };
                let (table, errors) = Watched::open_tolerant_secret(rights, &file, parse, UserTable::unreadable);
                let table = Arc::new(table);
                opened.files.insert(path.clone(), Arc::clone(&table));
                (Source::File(table), errors)
            }
        };
        let users = Self {
            rights: rights.clone(),
            source,
            template: local.mailbox.clone(),
            quota: local.quota,
            is_quota_final: local.refuses_over_quota,
        };
        (users, errors)
    }

    /// The directories that contain the mailboxes to which the server itself writes. One is the
    /// part of the template up to the last `/` before the first placeholder. The others are the
    /// parents of the mailboxes that the users file names.
    pub fn roots(&self) -> Vec<PathBuf> {
        let table = match &self.source {
            Source::System | Source::Any => return Vec::new(),
            Source::File(table) => Some(table.current()),
            Source::Dovecot(_) => None,
        };
        let begin = self.template.path().map(|template| {
            let first = [template.find('{'), template.find(HOME).map(|at| at + 1)].into_iter().flatten().min();
            let begin = first.map_or(template, |at| &template[..at]);
            Path::new(begin.rfind('/').map_or("/", |at| &begin[..at]))
        });
        let users = table.iter().flat_map(|table| table.domains.values()).flat_map(|users| users.values());
        let named = users.filter_map(|user| user.mailbox.as_ref()?.path());
        let mut roots: Vec<PathBuf> = named.filter_map(Path::parent).chain(begin).map(Path::to_owned).collect();
        roots.sort_unstable();
        roots.dedup();
        roots
    }

    /// Whether the users are those of the system.
    pub fn are_of_system(&self) -> bool {
        matches!(self.source, Source::System)
    }

    /// Whether every name is that of a user, so that the mail store must be asked which ones it has.
    pub fn are_any(&self) -> bool {
        matches!(self.source, Source::Any)
    }

    /// An error for each mailbox in the users file that contains a placeholder, because
    /// placeholders are replaced only in the template.
    pub fn unfilled(&self) -> Vec<ConfigError> {
        let Source::File(table) = &self.source else { return Vec::new() };
        let current = table.current();
        let users = current.domains.values().flat_map(|users| users.values());
        let signs = users.filter_map(|user| {
            let path = user.mailbox.as_ref()?.path()?.to_str()?;
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

    /// An error for each quota in the users file of a user who has no Maildir.
    pub fn vain_quotas(&self) -> Vec<ConfigError> {
        let Source::File(table) = &self.source else { return Vec::new() };
        let current = table.current();
        let users = current.domains.values().flat_map(|users| users.values());
        let has_maildir = |user: &User| match &user.mailbox {
            Some(mailbox) => mailbox.path().is_some(),
            None => matches!(self.template, MailboxTemplate::Maildir(_)),
        };
        let vain = users.filter(|user| user.quota.is_some_and(|limit| limit > 0) && !has_maildir(user));
        let mut lines: Vec<_> = vain.map(|user| user.line).collect();
        lines.sort_unstable();
        let error =
            |line| ConfigError::new(table.path(), line, 1, "the quota has no effect because the mailbox is no Maildir");
        lines.into_iter().map(error).collect()
    }

    /// The place of mail for the user `name` (in lower case) in a local domain; `None` if there is
    /// no such user. If every name is that of a user, the postmaster and root are not: mail for the
    /// postmaster, who is root by default, must be accepted whatever a store says (RFC 5321 4.5.1).
    ///
    /// # Errors
    /// The reason why the mailbox is unknown: the look-up failed, the users file has an error, the
    /// user has no home directory, or Dovecot names a wrong one.
    pub fn inbox(&self, name: &str, domain: &str) -> Result<Option<Inbox>, String> {
        #[cfg(test)]
        tests::LOOKED_UP.set(tests::LOOKED_UP.get() + 1);
        match &self.source {
            Source::System => self.of_system(name, domain),
            Source::Any if [POSTMASTER, ROOT].contains(&name) => Ok(None),
            Source::Any => Ok(Some(self.by_template((name, domain), Path::new("/"), Owner::Server, None))),
            Source::Dovecot(userdb) => self.of_dovecot(userdb, name, domain),
            Source::File(table) => {
                let table = table.current();
                match table.find(name, domain).map_err(ToString::to_string)? {
                    None => Ok(None),
                    Some(User { mailbox: Some(NamedMailbox::Maildir(path)), quota, .. }) => {
                        let (path, quota) = (path.clone(), self.quota(*quota));
                        Ok(Some(Inbox::Mailbox(Mailbox { path, is_mbox: false, owner: Owner::Server, quota })))
                    }
                    Some(User { mailbox: Some(NamedMailbox::Store(store)), .. }) => {
                        Ok(Some(Inbox::Store(store.clone(), Owner::Server)))
                    }
                    Some(User { mailbox: None, quota, .. }) => {
                        Ok(Some(self.by_template((name, domain), Path::new("/"), Owner::Server, *quota)))
                    }
                }
            }
        }
    }

    /// The place of mail for a user, as far as it is known without waiting for an answer: a user whom only
    /// Dovecot knows, and of whom nothing is remembered, is taken for existing, unless it is the postmaster.
    /// The place of a mailbox is then not known, and its path is empty.
    ///
    /// # Errors
    /// Those of [`Users::inbox`].
    pub fn inbox_now(&self, name: &str, domain: &str) -> Result<Option<Inbox>, String> {
        match &self.source {
            Source::Dovecot(userdb) => Ok(self.of_dovecot_now(userdb, name, domain)),
            _ => self.inbox(name, domain),
        }
    }

    /// Whether there is a user `name` (in lower case) in a local domain, as far as that is known without
    /// waiting for an answer; `None` if Dovecot would have to be asked.
    ///
    /// # Errors
    /// Those of [`Users::inbox`].
    pub fn exists_now(&self, name: &str, domain: &str) -> Result<Option<bool>, String> {
        match &self.source {
            Source::Dovecot(userdb) => Ok(userdb.remembered(&format!("{name}@{domain}")).map(|found| found.is_some())),
            _ => Ok(Some(self.inbox(name, domain)?.is_some())),
        }
    }

    /// Whether only another program knows the users.
    pub fn are_outside(&self) -> bool {
        matches!(self.source, Source::Dovecot(_))
    }

    /// The users file and the line of the user `name` (in lower case) in a local domain; `None` if
    /// there is no users file, or no such line.
    pub fn line(&self, name: &str, domain: &str) -> Option<(PathBuf, usize)> {
        let Source::File(table) = &self.source else { return None };
        Some((table.path().to_owned(), table.current().line(name, domain)?))
    }

    /// Whether any Maildir has a quota.
    pub fn have_quotas(&self) -> bool {
        self.quota.is_some() || matches!(&self.source, Source::File(table) if table.current().has_quota)
    }

    /// Whether a Maildir can have the quota of the configuration.
    pub fn have_maildirs(&self) -> bool {
        let is_named = |table: &Watched<UserTable>| {
            let current = table.current();
            let mut users = current.domains.values().flat_map(|users| users.values());
            users.any(|user| {
                user.quota.is_none() && user.mailbox.as_ref().is_some_and(|mailbox| mailbox.path().is_some())
            })
        };
        matches!(self.template, MailboxTemplate::Maildir(_))
            || matches!(&self.source, Source::File(table) if is_named(table))
    }

    /// The quota of a Maildir whose user has this limit in the users file.
    fn quota(&self, own: Option<u64>) -> Option<Quota> {
        let limit = own.or(self.quota).filter(|limit| *limit > 0)?;
        Some(Quota { limit, is_final: self.is_quota_final, is_own: own.is_some() })
    }

    /// The place of mail that the template gives to a user, who has this limit in the users file.
    fn by_template(&self, (name, domain): (&str, &str), home: &Path, owner: Owner, quota: Option<u64>) -> Inbox {
        let mailbox = |template: &str, is_mbox: bool| {
            let (path, quota) = (fill(template, name, domain, home), self.quota(quota).filter(|_| !is_mbox));
            Inbox::Mailbox(Mailbox { path, is_mbox, owner: owner.clone(), quota })
        };
        match &self.template {
            MailboxTemplate::Maildir(template) => mailbox(template, false),
            MailboxTemplate::Mbox(template) => mailbox(template, true),
            MailboxTemplate::Store(store) => Inbox::Store(store.clone(), owner),
        }
    }
}

/// Returns the template with its placeholders replaced. A placeholder inside a replacement is left
/// alone.
fn fill(template: &str, name: &str, domain: &str, home: &Path) -> PathBuf {
    let (mut filled, mut rest) = (String::new(), template.strip_prefix('~').unwrap_or(template));
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
    if template.starts_with('~') { home.join(filled.trim_start_matches('/')) } else { filled.into() }
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

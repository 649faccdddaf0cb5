//! Parses the lines of a users file: `name:secret:mailbox`, perhaps with `:quota=size` at the end.
//!
//! A name such as `jon` applies to every local domain, and `jon@razorback` applies to one domain.
//! The secret is a [`Secret`], or is empty if the user cannot log in (see
//! [`accounts`](super::accounts)). A secret appears in no error message. The mailbox is an absolute
//! path or a mail store (`lmtp:/path` or `lmtp://host:port`), or is empty if the template of the
//! configuration applies.
//!
//! A malformed line only removes rights. If its name can be read, that user cannot log in, and mail
//! for that user waits if the line leaves the mailbox unknown.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};

use super::is_safe;
use crate::address::{Address, fold};
use crate::config::table::{Line, NOT_UTF8, lines, not_utf8};
use crate::config::{ConfigError, Store, parse_quota};
use crate::sasl::secret::Secret;

/// The users of a file.
#[derive(Debug, Default)]
pub(super) struct UserTable {
    /// The users by domain and then by name, both in lower case. An empty domain stands for all
    /// local domains.
    pub(super) domains: HashMap<Box<str>, HashMap<Box<str>, User>>,
    /// Whether a line has a limit for its mailbox.
    pub(super) has_quota: bool,
    /// The error, if the file could not be read at all.
    error: Option<ConfigError>,
}

#[derive(Debug)]
pub(super) struct User {
    pub(super) line: usize,
    /// The secret; `None` if the user cannot log in.
    pub(super) secret: Option<Box<Secret>>,
    /// The mailbox in the line; `None` if the template applies.
    pub(super) mailbox: Option<NamedMailbox>,
    /// The limit of the mailbox in the line, in bytes; 0 for no limit. `None` if that of the
    /// configuration applies.
    pub(super) quota: Option<u64>,
    /// The error in the line, if it leaves the mailbox unknown. Such a user has no secret.
    broken: Option<Box<ConfigError>>,
}

/// The mailbox that a line names.
#[derive(Debug, PartialEq)]
pub(super) enum NamedMailbox {
    /// The path of a Maildir.
    Maildir(PathBuf),
    /// A mail store.
    Store(Store),
}

impl NamedMailbox {
    /// The path of the Maildir; `None` if mail goes to a store.
    pub(super) fn path(&self) -> Option<&Path> {
        match self {
            Self::Maildir(path) => Some(path),
            Self::Store(_) => None,
        }
    }
}

impl UserTable {
    /// The table of a file that cannot be read.
    pub(super) fn unreadable(why: &ConfigError) -> Self {
        Self { error: Some(why.clone()), ..Self::default() }
    }

    /// The user with a name in a domain, both in lower case.
    ///
    /// # Errors
    /// An error in the file that leaves the mailbox unknown.
    pub(super) fn find(&self, name: &str, domain: &str) -> Result<Option<&User>, &ConfigError> {
        if let Some(why) = &self.error {
            return Err(why);
        }
        self.user(name, domain).map(|user| user.broken.as_deref().map_or(Ok(user), Err)).transpose()
    }

    /// The line of the user with a name in a domain, both in lower case.
    pub(super) fn line(&self, name: &str, domain: &str) -> Option<usize> {
        self.user(name, domain).map(|user| user.line)
    }

    fn user(&self, name: &str, domain: &str) -> Option<&User> {
        let find = |domain| self.domains.get(domain).and_then(|users| users.get(name));
        find(domain).or_else(|| find(""))
    }

    /// Marks a user as broken, because a malformed line, or two lines that differ, leave the user's
    /// mailbox unknown.
    fn mark_broken(&mut self, domain: &str, name: &str, line: usize, error: &ConfigError) {
        let users = self.domains.entry(domain.into()).or_default();
        let line = users.get(name).map_or(line, |first| first.line);
        users.insert(
            name.into(),
            User { line, secret: None, mailbox: None, quota: None, broken: Some(Box::new(error.clone())) },
        );
    }
}

/// An error in a line.
struct Wrong<'a> {
    part: &'a str,
    what: String,
    /// Whether the user counts as broken, because the error leaves open which mailbox the user has.
    is_broken: bool,
}

/// Reads the text of a users file; returns the users of the well-formed lines and all errors.
pub(super) fn parse(file: &Path, text: &str) -> (UserTable, Vec<ConfigError>) {
    let (mut table, mut errors) = (UserTable::default(), Vec::new());
    for line in lines(text) {
        if let Err(wrong) = add(&mut table, line) {
            let error = line.error(file, wrong.part, wrong.what);
            if wrong.is_broken {
                let (name, domain) = name_and_domain(line.text);
                table.mark_broken(&domain, &fold(&name), line.number, &error);
            }
            errors.push(error);
        }
    }
    (table, errors)
}

/// Adds the user of one line. An error repeats no text of the line except the name, because
/// the rest may be a secret.
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
    let (mailbox, quota) = split_quota(mailbox);
    let (quota, bad_quota) = quota.map_or((None, None), |text| match read_quota(text) {
        Ok(quota) => (Some(quota), None),
        Err(what) => (None, Some(Wrong { part: text, what, is_broken: false })),
    });
    let named = read_mailbox(mailbox).map_err(|what| broken(mailbox, &what))?;
    let (kept, bad) = match secret {
        "" => (None, None),
        text => Secret::parse(text).map_or_else(|what| (None, Some(what)), |kept| (Some(Box::new(kept)), None)),
    };
    table.has_quota |= quota.is_some_and(|limit| limit > 0);
    let users = table.domains.entry(address.domain().into()).or_default();
    match users.entry(fold(address.local()).into()) {
        // The error in the first line for this name has been reported.
        Entry::Occupied(first) if first.get().broken.is_some() => Ok(()),
        Entry::Occupied(mut first) => {
            // After two lines for the same name the user has no secret, and has a mailbox only if
            // both lines have the same one.
            let first = first.get_mut();
            first.secret = None;
            let what = format!("the user {address} is already on line {}", first.line);
            Err(Wrong { part: name, what, is_broken: first.mailbox != named })
        }
        Entry::Vacant(slot) => {
            slot.insert(User { line: line.number, secret: kept, mailbox: named, quota, broken: None });
            let wrong = |what: &str| Wrong { part: secret, what: what.to_owned(), is_broken: false };
            bad.map(wrong).or(bad_quota).map_or(Ok(()), Err)
        }
    }
}

/// Splits the third field, which may have colons, from the fourth, such as `quota=1G`.
fn split_quota(text: &str) -> (&str, Option<&str>) {
    let is_named =
        |last: &str| last.split_once('=').is_some_and(|(name, _)| name.bytes().all(|b| b.is_ascii_alphabetic()));
    match text.rsplit_once(':') {
        Some((mailbox, last)) if is_named(last) => (mailbox, Some(last)),
        _ => (text, None),
    }
}

/// Reads the fourth field; 0 stands for no limit.
fn read_quota(text: &str) -> Result<u64, String> {
    let value = text.strip_prefix("quota=").ok_or("expected quota= with a size, such as quota=1G")?;
    parse_quota(value).map(|limit| limit.unwrap_or(0))
}

/// Reads the third field of a line.
fn read_mailbox(text: &str) -> Result<Option<NamedMailbox>, String> {
    if let Some(store) = Store::parse(text) {
        return store.map(|store| Some(NamedMailbox::Store(store)));
    }
    if !text.is_empty() && (!text.starts_with('/') || text.contains(char::is_control)) {
        return Err("expected the path of a mailbox that begins with /, a store (lmtp:...), or nothing".to_owned());
    }
    Ok((!text.is_empty()).then(|| NamedMailbox::Maildir(text.into())))
}

/// The name and the domain of a malformed line. If the domain cannot be read, it is empty, and
/// stands for all local domains.
fn name_and_domain(text: &str) -> (String, String) {
    let key = text.split(':').next().unwrap_or_default();
    match Address::parse(key) {
        Ok(address) => (address.local().to_owned(), address.domain().to_owned()),
        Err(_) => (key.split(['@', ' ', '\t']).next().unwrap_or_default().to_owned(), String::new()),
    }
}

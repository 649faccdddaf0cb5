//! Defines the settings of local delivery, `[local]` of penfold.conf(5).

use std::path::PathBuf;

use super::defaults::{MAILBOX_IN_HOME, MAILBOX_WITHOUT_HOME};
use super::document::Section;
use super::keys::table_file;
use super::print::{Printer, list, path, size};
use super::{Store, TableFile, values};
use crate::json::quote;

/// The settings of local delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    /// The local domains in canonical form; empty if no mail is local. For names without a domain,
    /// see [`Config::own_domain`].
    pub domains: Vec<String>,
    /// The source of local users.
    pub users: Users,
    /// The mailbox of each user for whom the users file names none.
    pub mailbox: MailboxTemplate,
    /// The aliases file.
    pub aliases: TableFile,
    /// The virtual table.
    pub virtual_table: TableFile,
    /// The character between `user` and `detail` in an address such as `user+detail`; `None` if
    /// there are no such addresses.
    pub subaddress: Option<char>,
    /// The recipient of mail for the postmaster of every local domain: a local name or an
    /// address.
    pub postmaster: String,
    /// The recipient of mail for addresses that are otherwise unknown: a local name or an address;
    /// `None` if such mail is rejected.
    pub catch_all: Option<String>,
    /// The maximum size of each Maildir in bytes; `None` if there is none.
    pub quota: Option<u64>,
    /// Whether mail that does not fit into a mailbox is refused, instead of being deferred.
    pub refuses_over_quota: bool,
}

/// In the template of a mailbox, it stands for the home directory that Dovecot names, which must lie
/// below the directory before it.
pub const HOME: &str = "/~/";

/// The mailbox of a user, before the user is known. In a path, `{user}` and `{domain}` are replaced,
/// `~` at the front is the home directory of a system user, and [`HOME`] that of a user of Dovecot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MailboxTemplate {
    /// The path of a Maildir.
    Maildir(String),
    /// The path of an mbox file.
    Mbox(String),
    /// A mail store, to which the recipient's address is sent.
    Store(Store),
}

impl MailboxTemplate {
    /// Returns the path; `None` if mail goes to a store.
    pub fn path(&self) -> Option<&str> {
        match self {
            Self::Maildir(path) | Self::Mbox(path) => Some(path),
            Self::Store(_) => None,
        }
    }
}

/// The source of local users.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Users {
    /// The system users (getpwnam(3)).
    System,
    /// The users file with this path.
    File(PathBuf),
    /// The auth-userdb socket of Dovecot with this path.
    Dovecot(PathBuf),
    /// Every name. The mail store says at RCPT which ones it has.
    Any,
}

/// Reads `[local]`. Also returns whether the file names the domains.
pub(super) fn local(mut section: Section<'_, '_>, default: Local) -> (Local, bool) {
    let domains = section.take_all("domains", values::domain).unwrap_or_else(|| default.domains.clone());
    let (local, gives_domains) = (shared(&mut section, domains, &default), section.gives("domains"));
    section.finish();
    (local, gives_domains)
}

/// Reads the keys that `[local]` and `[[domain]]` have in common. `default` has the values of those
/// that the section lacks.
pub(super) fn shared(section: &mut Section<'_, '_>, domains: Vec<String>, default: &Local) -> Local {
    let users = section.take("users", values::users).unwrap_or_else(|| default.users.clone());
    let local = Local {
        domains,
        mailbox: mailbox(section, &users, default),
        users,
        aliases: table_file(section, "aliases", default.aliases.clone()),
        virtual_table: table_file(section, "virtual", default.virtual_table.clone()),
        subaddress: section.take("subaddress", values::separator).unwrap_or(default.subaddress),
        postmaster: section.take("postmaster", values::postmaster).unwrap_or_else(|| default.postmaster.clone()),
        catch_all: section.take("catch_all", values::catch_all).unwrap_or_else(|| default.catch_all.clone()),
        quota: section.take("quota", values::quota).unwrap_or(default.quota),
        refuses_over_quota: section
            .take("over_quota", values::word(&["defer", "refuse"]))
            .map_or(default.refuses_over_quota, |word| word == "refuse"),
    };
    if let Users::File(path) = &local.users
        && let Err(text) = values::check_exists(path)
    {
        section.error("users", &text);
    }
    local
}

/// Reads the template of mailboxes. It must suit the users, who perhaps have no home directories. The
/// default is that of [local], if it suits.
fn mailbox(section: &mut Section<'_, '_>, users: &Users, default: &Local) -> MailboxTemplate {
    let Some(template) = section.take("mailbox", values::mailbox) else {
        if misfit(&default.mailbox, users).is_none() {
            return default.mailbox.clone();
        }
        if *users == Users::Any {
            section.error("users", NEEDS_STORE);
        }
        return usual(users);
    };
    if let Some(text) = misfit(&template, users) {
        section.error("mailbox", &text);
    }
    template
}

/// The reason why the template of mailboxes cannot be used with these users; `None` if it can.
fn misfit(template: &MailboxTemplate, users: &Users) -> Option<String> {
    let path = template.path()?;
    match users {
        Users::File(_) if path.starts_with('~') => {
            Some(format!("\"~\" needs users = \"system\"; expected a path, such as \"{MAILBOX_WITHOUT_HOME}\""))
        }
        Users::Dovecot(_) if path.starts_with('~') => {
            Some("\"~\" needs the directory of all homes before it, such as \"/srv/mail/~/Maildir\"".to_owned())
        }
        Users::Any => Some(NEEDS_STORE.to_owned()),
        Users::System | Users::File(_) if path.contains(HOME) => {
            Some("\"/~/\" needs users = \"dovecot:/run/dovecot/auth-userdb\"".to_owned())
        }
        _ => None,
    }
}

/// The error if nothing can say which users there are.
const NEEDS_STORE: &str = "users = \"any\" needs a mail store, such as mailbox = \"lmtp:/run/dovecot/lmtp\"";

/// The default template for these users: a store of Dovecot is beside its other sockets.
fn usual(users: &Users) -> MailboxTemplate {
    let path = match users {
        Users::System => MAILBOX_IN_HOME,
        Users::File(_) | Users::Any => MAILBOX_WITHOUT_HOME,
        Users::Dovecot(socket) => return MailboxTemplate::Store(Store::Socket(socket.with_file_name("lmtp").into())),
    };
    MailboxTemplate::Maildir(path.to_owned())
}

/// Prints `[local]`.
pub(super) fn print(out: &mut Printer<'_>, local: &Local) {
    out.key("domains", list(&local.domains, |domain| quote(domain)));
    print_shared(out, local);
}

/// Prints the keys that `[local]` and `[[domain]]` have in common.
pub(super) fn print_shared(out: &mut Printer<'_>, local: &Local) {
    out.key(
        "users",
        match &local.users {
            Users::System => quote("system"),
            Users::Any => quote("any"),
            Users::File(file) => quote(&format!("file:{}", file.display())),
            Users::Dovecot(socket) => quote(&format!("dovecot:{}", socket.display())),
        },
    );
    out.key(
        "mailbox",
        quote(&match &local.mailbox {
            MailboxTemplate::Maildir(path) => path.clone(),
            MailboxTemplate::Mbox(path) => format!("mbox:{path}"),
            MailboxTemplate::Store(store) => store.to_string(),
        }),
    );
    out.key("aliases", path(&local.aliases.path)).key("virtual", path(&local.virtual_table.path));
    out.key("subaddress", quote(&local.subaddress.map(String::from).unwrap_or_default()));
    out.key("postmaster", quote(&local.postmaster));
    out.key("catch_all", quote(local.catch_all.as_deref().unwrap_or_default()));
    out.key("quota", local.quota.map_or_else(|| quote("none"), size));
    out.key("over_quota", quote(if local.refuses_over_quota { "refuse" } else { "defer" }));
}

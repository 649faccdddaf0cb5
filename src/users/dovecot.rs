//! Users that Dovecot knows.
//!
//! Dovecot is asked for the whole address. Its answer decides whether the user exists. If the
//! template of mailboxes has `/~/`, the answer also names the home directory, which must lie below
//! the directory before `/~/`: what Dovecot says never leads elsewhere. The server writes into the
//! mailboxes with its own rights. If the answer names another system user, mail waits, because
//! Dovecot could not read it.

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use nix::unistd::{Group, getegid, geteuid};

use super::{Inbox, Mailbox, Owner, POSTMASTER, Users, fill, is_safe};
use crate::config::{HOME, MailboxTemplate};
use crate::dovecot::userdb::{Found, Userdb};
use crate::privsep::user_name;

impl Users {
    pub(super) fn of_dovecot(&self, userdb: &Userdb, name: &str, domain: &str) -> Result<Option<Inbox>, String> {
        // Dovecot can be configured to look up only what is before the first @.
        if !is_safe(name) || name.contains('@') || name.contains(char::is_control) {
            return Ok(None);
        }
        let found = userdb.find(&format!("{name}@{domain}"));
        let Some(found) = found.map_err(|error| fault(userdb.path(), &error))? else { return Ok(None) };
        self.at_home(userdb, &found, (name, domain))
    }

    /// The place of mail for a user, as far as it is known without a question to Dovecot.
    pub(super) fn of_dovecot_now(&self, userdb: &Userdb, name: &str, domain: &str) -> Option<Inbox> {
        match (userdb.remembered(&format!("{name}@{domain}")), &self.template) {
            (Some(None), _) => None,
            (None, _) if name == POSTMASTER => None,
            (_, MailboxTemplate::Store(store)) => Some(Inbox::Store(store.clone(), Owner::Server)),
            _ => Some(Inbox::Mailbox(Mailbox {
                path: PathBuf::new(),
                is_mbox: false,
                owner: Owner::Server,
                quota: None,
            })),
        }
    }

    fn at_home(&self, userdb: &Userdb, found: &Found, (name, domain): (&str, &str)) -> Result<Option<Inbox>, String> {
        let (template, is_mbox) = match &self.template {
            MailboxTemplate::Maildir(template) => (template, false),
            MailboxTemplate::Mbox(template) => (template, true),
            MailboxTemplate::Store(store) => return Ok(Some(Inbox::Store(store.clone(), Owner::Server))),
        };
        let path = place(template, found, (name, domain), geteuid().as_raw());
        let path = path.map_err(|why| format!("Dovecot at {}: {name}@{domain}: {why}", userdb.path().display()))?;
        let quota = self.quota(None).filter(|_| !is_mbox);
        Ok(Some(Inbox::Mailbox(Mailbox { path, is_mbox, owner: Owner::Server, quota })))
    }
}

/// The path of the mailbox of a user. `uid` is that of the server.
///
/// # Errors
/// The reason why Dovecot's answer must not be used.
fn place(template: &str, found: &Found, (name, domain): (&str, &str), uid: u32) -> Result<PathBuf, String> {
    if let Some(other) = found.uid.filter(|other| *other != uid) {
        return Err(format!(
            "the mailbox belongs to the user id {other}, and penfoldd runs as {}, whose mail Dovecot could not read: \
             deliver to Dovecot by LMTP, or let both be the same user",
            user_name()
        ));
    }
    let Some((root, below)) = template.split_once(HOME) else {
        return Ok(fill(template, name, domain, Path::new("/")));
    };
    let home = found.home.as_deref().ok_or("the answer names no home directory")?;
    let root = fill(root, name, domain, Path::new("/"));
    if is_below(home, &root) {
        return Ok(home.join(fill(below, name, domain, Path::new("/"))));
    }
    let (home, root) = (home.display(), root.display());
    Err(format!("the home directory {home} is not below {root}, the directory before /~/ in the mailbox"))
}

/// Whether a path is below a directory, by its names alone.
fn is_below(path: &Path, root: &Path) -> bool {
    let has_up = path.components().any(|part| matches!(part, Component::ParentDir));
    path.is_absolute() && !has_up && path.starts_with(root) && path.components().count() > root.components().count()
}

/// Tries the socket with this path; asks for no user. `None` if Dovecot answers there. `is_any`
/// says that the mailboxes of users may belong to any system user.
pub fn doubt(socket: &Path, is_any: bool) -> Option<String> {
    if let Err(error) = Userdb::at(socket).probe() {
        return Some(fault(socket, &error));
    }
    (is_any && is_partly_closed(socket)).then(|| {
        let (socket, needs) = (socket.display(), needs(socket, RESTRICTED));
        format!("Dovecot at {socket} answers only about users whose mail belongs to {}: {needs}", user_name())
    })
}

/// Describes a failed look-up at the socket with this path, and says what an administrator can do
/// about it.
fn fault(socket: &Path, error: &io::Error) -> String {
    let mode = match error.kind() {
        ErrorKind::PermissionDenied => Some("0660"),
        ErrorKind::Other if is_partly_closed(socket) => Some(RESTRICTED),
        _ => None,
    };
    let needs = mode.map(|mode| format!(": {}", needs(socket, mode))).unwrap_or_default();
    format!("ask Dovecot at {}: {error}{needs}", socket.display())
}

/// The settings with which the server may ask Dovecot at this socket.
fn needs(socket: &Path, mode: &str) -> String {
    let name = socket.file_name().unwrap_or_default().display();
    let group = Group::from_gid(getegid()).ok().flatten().map_or(getegid().to_string(), |group| group.name);
    format!("Dovecot needs: service auth {{ unix_listener {name} {{ group = {group}, mode = {mode} }} }}")
}

/// The mode of a socket at which Dovecot answers everything only to the socket's user and group, and
/// to others only about users whose mail belongs to them.
const RESTRICTED: &str = "0666";

/// Whether a socket has that mode, and belongs neither to the server's user nor to its group.
fn is_partly_closed(socket: &Path) -> bool {
    let is_ours = |of: &Metadata| of.uid() == geteuid().as_raw() || of.gid() == getegid().as_raw();
    fs::metadata(socket).is_ok_and(|of| of.mode() & 0o777 == 0o666 && !is_ours(&of))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_leads_only_below_its_directory() {
        let found = |home: Option<&str>| Found { uid: None, home: home.map(PathBuf::from) };
        let place = |template, home| place(template, &found(home), ("jon", "razorback"), 7);
        for home in ["/srv/mail/jon", "/srv/mail/jon/", "/srv/mail/./jon", "/srv//mail/jon"] {
            assert_eq!(place("/srv/mail/~/Maildir", Some(home)), Ok("/srv/mail/jon/Maildir".into()), "{home}");
        }
        let deep = place("/srv/mail/~/{domain}/{user}", Some("/srv/mail/a/b"));
        assert_eq!(deep, Ok("/srv/mail/a/b/razorback/jon".into()));
        for home in [
            "",
            "/",
            "jon",
            "srv/mail/jon",
            "/srv/mail",
            "/srv/mail/",
            "/srv/mail/.",
            "/srv/mailer/jon",
            "/etc",
            "/srv/mail/..",
            "/srv/mail/../../etc",
            "/srv/mail/jon/..",
            "/srv/mail/jon/../../../etc",
            "../srv/mail/jon",
            "~jon",
            "%h",
        ] {
            let why = place("/srv/mail/~/Maildir", Some(home)).expect_err(home);
            assert!(why.contains(&format!("the home directory {home} is not below /srv/mail,")), "{why}");
        }
        assert!(place("/srv/mail/~/Maildir", None).is_err_and(|why| why.contains("no home directory")));
        // Without /~/ the home directory does not matter.
        assert_eq!(place("/srv/{domain}/{user}", Some("/etc")), Ok("/srv/razorback/jon".into()));
        assert_eq!(place("/srv/{domain}/{user}", None), Ok("/srv/razorback/jon".into()));
    }

    #[test]
    fn the_mailbox_of_another_system_user_is_not_used() {
        let found = |uid| Found { uid, home: None };
        let place = |uid| place("/srv/{user}", &found(uid), ("jon", "razorback"), 7);
        assert!(place(Some(7)).is_ok() && place(None).is_ok());
        assert!(place(Some(8)).is_err_and(|why| why.contains("belongs to the user id 8")));
        assert!(place(Some(0)).is_err());
    }

    #[test]
    fn an_error_says_what_dovecot_needs() {
        let fault = |error: io::Error| fault(Path::new("/nonexistent/auth-userdb"), &error);
        let denied = fault(ErrorKind::PermissionDenied.into());
        let needs = "ask Dovecot at /nonexistent/auth-userdb: permission denied: Dovecot needs: service auth { unix_listener auth-userdb { group = ";
        assert!(denied.starts_with(needs) && denied.ends_with(", mode = 0660 } }"), "{denied}");
        for error in [ErrorKind::TimedOut.into(), io::Error::other("no LDAP")] {
            assert!(!fault(error).contains("needs"));
        }
    }
}

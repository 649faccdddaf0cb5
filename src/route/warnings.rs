//! Warns of tables that leave mail for root or the postmaster unread, and of aliases without
//! effect.

use std::path::Path;
use std::sync::Arc;

use crate::aliases::Aliases;
use crate::config::{ConfigError, Places};
use crate::envelope::{Action, Recipient};
use crate::privsep::User;
use crate::users::{Mailbox, Owner, Users};

use super::realm::Realm;
use super::{Expansion, POSTMASTER, ROOT, Route, RoutedMail, Router};

impl Router {
    /// Warns if the aliases have no effect, if one is misspelt, and if mail for root is rejected because it has no
    /// recipient.
    pub(super) fn warn_of_aliases(&self, places: &Places) {
        let Some((own, aliases)) = self.own_aliases() else { return };
        if self.domains.is_empty() && !aliases.is_empty() {
            let at = places.at("local.domains");
            ::log::warn!("{at}local.domains is empty: the aliases have no effect");
        }
        for name in [ROOT, POSTMASTER] {
            if let Some((line, given)) = aliases.misspelt(name).filter(|_| !self.domains.is_empty()) {
                let text = format!("the alias {given} may be a misspelt {name}, for which there is no alias");
                ::log::warn!("{}", ConfigError::new(own.aliases.rows.path(), line, 1, text));
            }
        }
        let root = self.own_postmaster.with_local(ROOT);
        let is_virtual = !matches!(own.virtual_table.rows.current().find(ROOT, root.domain()), Ok(None));
        if self.domains.is_empty() || is_virtual || self.expand(&root) != Expansion::Unknown {
            return;
        }
        match aliases.end_of(ROOT) {
            Some((line, nobody)) => {
                let text = format!("root leads to {nobody}, which does not exist: mail for root is rejected");
                ::log::warn!("{}", ConfigError::new(own.aliases.rows.path(), line, 1, text));
            }
            None => {
                let advice = advice(own.aliases.rows.path());
                ::log::warn!("mail for root is rejected, because there is no such user: {advice}");
            }
        }
    }

    /// Returns the realm of the first local domain, or that of `[local]` if no domain is local, and its
    /// aliases.
    fn own_aliases(&self) -> Option<(&Realm, Arc<Aliases>)> {
        let own = self.realm(&self.first_domain).or_else(|| self.realms.first())?;
        Some((own, own.aliases.rows.current()))
    }

    /// Warns if mail for root or the postmaster goes to the mailbox of last resort, where nobody
    /// reads it.
    pub(super) fn warn_of_last_resort(&self, places: &Places) {
        let is_kept = |name: &str| match self.expand(&self.own_postmaster.with_local(name)) {
            Expansion::Finals(finals) => {
                finals.iter().any(|to| self.route_of(to, &RoutedMail::default()) == self.last_resort())
            }
            _ => false,
        };
        let Some((own, aliases)) = self.own_aliases() else { return };
        let file = own.aliases.rows.path();
        let path = self.last_resort.display();
        let is_roots = is_kept(ROOT);
        match (is_kept(POSTMASTER), aliases.end_of(POSTMASTER)) {
            (true, Some((line, nobody))) if !(is_roots && nobody.local().eq_ignore_ascii_case(ROOT)) => {
                let text = format!(
                    "postmaster leads to {nobody}, which has no mailbox: \
                     mail for postmaster is kept in {path}, where it stays unread"
                );
                ::log::warn!("{}", ConfigError::new(file, line, 1, text));
            }
            (true, None) if !is_roots => {
                let named = &own.postmaster;
                let at = places.at("local.postmaster");
                ::log::warn!(
                    "{at}mail for postmaster is kept in {path}, where it stays unread: \
                     local.postmaster leads to {named}, which has no mailbox"
                );
            }
            _ => {}
        }
        if is_roots {
            let advice = advice(file);
            let is_both = match aliases.end_of(POSTMASTER) {
                Some((_, end)) => end.local().eq_ignore_ascii_case(ROOT),
                None => is_kept(POSTMASTER),
            };
            let names = if is_both { "root and postmaster" } else { "root" };
            ::log::warn!("mail for {names} is kept in {path}, where it stays unread: {advice}");
        }
    }

    /// Whether mail for a system user is delivered into the user's home directory.
    pub fn keeps_mail_at_home(&self, person: &User) -> bool {
        let is_at_home = |to: &Recipient| match self.route(&to.address) {
            Route::Mailbox(Mailbox { owner: Owner::User(account), path, .. }) => {
                account.uid == person.uid && path.starts_with(&account.home)
            }
            _ => false,
        };
        match self.expand(&self.own_postmaster.with_local(&person.name)) {
            Expansion::Finals(finals) => finals.iter().any(|to| to.action == Action::Deliver && is_at_home(to)),
            _ => false,
        }
    }

    /// Returns an error for each mailbox in the users file whose path contains a placeholder.
    pub fn unfilled_mailboxes(&self) -> Vec<ConfigError> {
        self.once(Users::unfilled)
    }

    /// Returns an error for each quota in the users file that has no effect.
    pub fn vain_quotas(&self) -> Vec<ConfigError> {
        self.once(Users::vain_quotas)
    }

    /// Returns the errors that the users of all realms have, each once: several realms may have one file.
    fn once(&self, errors_of: impl Fn(&Users) -> Vec<ConfigError>) -> Vec<ConfigError> {
        let mut all = Vec::new();
        for error in self.realms.iter().flat_map(|realm| errors_of(&realm.users)) {
            if !all.contains(&error) {
                all.push(error);
            }
        }
        all
    }

    /// Returns whether the users of each realm may have Maildirs, and whether any has a quota. The
    /// first realm is that of `[local]`, and the others are those of the tables `[[domain]]`.
    pub fn maildirs_and_quotas(&self) -> impl Iterator<Item = (bool, bool)> {
        self.realms.iter().map(|realm| (realm.users.have_maildirs(), realm.users.have_quotas()))
    }
}

/// Says where to add an alias for root. The path of the aliases is empty if there is no such file.
fn advice(aliases: &Path) -> String {
    match aliases.as_os_str().is_empty() {
        true => "let local.aliases name a file with an alias for root".to_owned(),
        false => format!("add an alias for root to {}", aliases.display()),
    }
}

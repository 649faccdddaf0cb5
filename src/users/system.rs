//! Looks up system users, as getpwnam(3) does.
//!
//! Look-ups go through `privsep::passwd`. A name that begins with `-` or could lead out of a
//! directory belongs to no user.

use super::{Account, Inbox, Owner, Users, is_safe};

impl Users {
    pub(super) fn of_system(&self, name: &str, domain: &str) -> Result<Option<Inbox>, String> {
        let Some(account) = self.account(name)? else { return Ok(None) };
        let needs_home = self.template.path().is_some_and(|path| path.starts_with('~'));
        if needs_home && !account.home.is_absolute() {
            return Err(format!("the user {name} has no home directory"));
        }
        let home = account.home.clone();
        Ok(Some(self.by_template((name, domain), &home, Owner::User(account), None)))
    }

    /// The system user with this name.
    ///
    /// # Errors
    /// The reason why the look-up failed.
    pub fn account(&self, name: &str) -> Result<Option<Account>, String> {
        if !is_safe(name) || name.starts_with('-') {
            return Ok(None);
        }
        let user = self.rights.user_named(name).map_err(|error| format!("look up the user {name}: {error}"))?;
        Ok(user.map(|user| Account { name: user.name, uid: user.uid, home: user.home }))
    }
}

//! Looks up system users, as getpwnam(3) does.
//!
//! Look-ups go through `privsep::passwd`. A name that begins with `-` or could lead out of a
//! directory belongs to no user.

use super::{Account, Mailbox, Owner, Users, is_safe};

impl Users {
    pub(super) fn of_system(&self, name: &str, domain: &str) -> Result<Option<Mailbox>, String> {
        let Some(account) = self.account(name)? else { return Ok(None) };
        if self.template.starts_with('~') && !account.home.is_absolute() {
            return Err(format!("the user {name} has no home directory"));
        }
        let path = self.fill(name, domain, &account.home);
        Ok(Some(Mailbox { path, is_mbox: self.is_mbox, owner: Owner::User(account) }))
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

//! Logs warnings about sockets of Dovecot at which users cannot be looked up.
//!
//! Only `-n` tries the sockets: at a start, Dovecot may be started later.

use std::collections::HashSet;

use crate::config::{Config, Users};
use crate::users::dovecot;

/// Logs all warnings of this module. Each socket is tried once.
pub fn log_all(config: &Config) {
    let mut tried = HashSet::new();
    for (number, local) in config.locals().enumerate().filter(|(_, local)| !local.domains.is_empty()) {
        let Users::Dovecot(socket) = &local.users else { continue };
        // A store delivers with rights of its own.
        let doubt = tried.insert(socket).then(|| dovecot::doubt(socket, local.mailbox.path().is_none())).flatten();
        if let Some(doubt) = doubt {
            let key = number.checked_sub(1).map_or("local.users".to_owned(), |table| format!("domain[{table}].users"));
            let at = config.places.at(&key);
            ::log::warn!("{at}{doubt}");
        }
    }
}

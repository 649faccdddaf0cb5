//! What all workers share: the settings in force, the spool, and who knows names.
//!
//! A reload replaces the settings as a whole; whoever works goes on with those that he
//! began with.

use std::sync::{Arc, RwLock};

use super::Rates;
use crate::config::Config;
use crate::deliver::agent::AgentPool;
use crate::deliver::remote::Outbound;
use crate::deliver::remote::credentials::Credentials;
use crate::route::Router;
use crate::sasl::Logins;
use crate::spool::Spool;
use crate::submit::senders::Senders;
use crate::tls::Tls;

/// What a reload changes.
pub struct Settings {
    /// The configuration in force.
    pub config: Arc<Config>,
    /// Where addresses go.
    pub router: Arc<Router>,
    /// Who may send as whom.
    pub senders: Arc<Senders>,
    /// Who may log in.
    pub logins: Arc<Logins>,
    /// What is proved, here and by others.
    pub tls: Arc<Tls>,
    /// Who this server is at other hosts.
    pub credentials: Credentials,
}

/// What all workers share.
pub struct Tools {
    /// Replaced as a whole by a reload; the lock guards the replacing only.
    pub settings: RwLock<Arc<Settings>>,
    /// Where messages are.
    pub spool: Arc<Spool>,
    /// What works in mailboxes.
    pub agents: AgentPool,
    /// How many reports were sent of late.
    pub rates: Rates,
    /// What deliveries to other hosts share.
    pub outbound: Outbound,
}

impl Tools {
    /// The settings in force now.
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

//! The state that all parts of a running penfold share: the settings in force, the spool, and the
//! facts about users, hosts and limits.
//!
//! A table that the configuration names is opened in [`Settings::open`] and nowhere else. A
//! reload replaces the settings as a whole; a session or an attempt keeps those that it
//! began with. The rest of a [`Site`] outlives every reload.

use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, RwLock};

use crate::config::{Config, ConfigError};
use crate::deliver::agent::AgentPool;
use crate::deliver::remote::Outbound;
use crate::deliver::remote::credentials::Credentials;
use crate::dns::Dns;
use crate::privsep::Rights;
use crate::report::rate::Rates;
use crate::route::Router;
use crate::sasl::Logins;
use crate::sasl::throttle::Throttle;
use crate::spool::Spool;
use crate::state::State;
use crate::submit::senders::Senders;
use crate::submit::usage::Usage;
use crate::tls::Tls;
use crate::users::accounts;

/// The configuration, and everything that it names.
pub struct Settings {
    /// The configuration.
    pub config: Arc<Config>,
    /// The tables that decide where addresses go.
    pub router: Arc<Router>,
    /// The senders that each account may use.
    pub senders: Arc<Senders>,
    /// The accounts that may log in.
    pub logins: Arc<Logins>,
    /// Certificates, and the CAs that are trusted.
    pub tls: Arc<Tls>,
    /// The logins of this server at other hosts.
    pub credentials: Arc<Credentials>,
}

impl Settings {
    /// Opens everything that the configuration names, as this process's user and with these rights.
    /// Also returns the errors in tables that can still be used. `throttle` is the one of the
    /// previous settings, if there are any.
    ///
    /// # Errors
    /// All errors in the configuration and its tables, if one of them rules out a start.
    pub fn open(
        config: Config,
        rights: &Rights,
        throttle: Arc<Throttle>,
    ) -> Result<(Self, Vec<ConfigError>), Vec<ConfigError>> {
        let ((router, mut errors), (senders, sender_errors)) =
            (Router::begin(&config, rights), Senders::begin(&config));
        let (logins, login_errors) = accounts::begin(&config, rights, throttle);
        errors.extend(sender_errors);
        // The router may have read the same users file.
        let login_errors: Vec<_> = login_errors.into_iter().filter(|error| !errors.contains(error)).collect();
        errors.extend(login_errors);
        match (router, Tls::open(&config, rights), Credentials::open(&config, rights)) {
            (Some(router), Ok(tls), Ok(credentials)) => {
                let settings = Self {
                    config: Arc::new(config),
                    router: Arc::new(router),
                    senders: Arc::new(senders),
                    logins: Arc::new(logins),
                    tls: Arc::new(tls),
                    credentials: Arc::new(credentials),
                };
                Ok((settings, errors))
            }
            (_, tls, credentials) => {
                errors.extend([tls.err(), credentials.err()].into_iter().flatten().flatten());
                Err(errors)
            }
        }
    }
}

/// The shared state of a process: one for all its threads.
pub struct Site {
    /// Replaced as a whole by a reload; the lock only guards the replacement.
    settings: RwLock<Arc<Settings>>,
    /// Where messages are kept.
    pub spool: Arc<Spool>,
    /// The resolver.
    pub dns: Arc<Dns>,
    /// The numbers of recent messages and recipients of each account.
    pub usage: Usage,
    /// The rights of this process beyond those of its own user.
    pub rights: Rights,
    /// The agents that work in mailboxes.
    pub agents: AgentPool,
    /// The state that deliveries to other hosts share.
    pub outbound: Outbound,
    /// The counts of recent reports.
    pub report_rates: Rates,
    /// Whether the queue knows all entries that were in the spool at the start.
    pub is_scanned: AtomicBool,
}

impl Site {
    /// A site with these settings. `local` are the addresses where this server listens: no mail
    /// is sent there.
    pub fn new(settings: Arc<Settings>, spool: Arc<Spool>, rights: Rights, local: Vec<SocketAddr>) -> Arc<Self> {
        let dns = Arc::new(Dns::new(&settings.config.dns));
        let outbound = Outbound { dns: Arc::clone(&dns), local, addresses: Arc::default(), timeouts: Arc::default() };
        let state = State::at(&spool.state_directory());
        Arc::new(Self {
            settings: RwLock::new(settings),
            spool,
            dns,
            usage: Usage::shared(&state),
            agents: AgentPool::new(rights.clone()),
            rights,
            outbound,
            report_rates: Rates::default(),
            is_scanned: AtomicBool::new(false),
        })
    }

    /// A site for a process that does not listen itself. Mail to the addresses where the daemon
    /// would listen is mail to this server all the same.
    pub fn without_listeners(settings: Arc<Settings>, spool: Arc<Spool>, rights: Rights) -> Arc<Self> {
        let local = settings.config.listen.iter().map(|listen| listen.address).collect();
        Self::new(settings, spool, rights, local)
    }

    /// The settings in force now.
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts new settings into force.
    pub fn replace(&self, settings: Arc<Settings>) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = settings;
    }
}

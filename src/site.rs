//! What all parts of a running penfold share: the settings in force, the spool, and what is
//! known of users, hosts and limits.
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

/// The configuration and all that it names.
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
    /// Opens all that the configuration names, as this process's user and with these rights.
    /// With it come the errors in tables that can be used all the same. `throttle` is that of
    /// the settings before, if there are any.
    ///
    /// # Errors
    /// All errors in the configuration and its tables, if one of them rules out a start.
    pub fn open(
        config: Config,
        rights: &Rights,
        throttle: Arc<Throttle>,
    ) -> Result<(Self, Vec<ConfigError>), Vec<ConfigError>> {
        let ((router, mut faults), (senders, more)) = (Router::begin(&config, rights), Senders::begin(&config));
        let (logins, of_logins) = accounts::begin(&config, rights, throttle);
        faults.extend(more);
        // The router may have read the same users file.
        let of_logins: Vec<_> = of_logins.into_iter().filter(|error| !faults.contains(error)).collect();
        faults.extend(of_logins);
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
                Ok((settings, faults))
            }
            (_, tls, credentials) => {
                faults.extend([tls.err(), credentials.err()].into_iter().flatten().flatten());
                Err(faults)
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
    /// How much each account has submitted of late.
    pub usage: Usage,
    /// The rights of this process beyond those of its own user.
    pub rights: Rights,
    /// Who works in mailboxes.
    pub agents: AgentPool,
    /// What deliveries to other hosts share.
    pub outbound: Outbound,
    /// How many reports were sent of late.
    pub report_rates: Rates,
    /// Whether the queue knows all that was in the spool at the start.
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

    /// A site whose process does not listen itself. Mail to the addresses where the daemon would
    /// listen is mail to this server all the same.
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

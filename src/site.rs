//! Holds the state that all parts of a running penfold share: the settings in force, the spool, and
//! what is known about users, hosts and limits.
//!
//! Only [`Settings::open`] opens the tables that the configuration names. A reload replaces the
//! settings as a whole. A session or an attempt keeps the settings that it began with. The rest of
//! a [`Site`] outlives every reload.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use crate::address::Address;
use crate::callout::{Callouts, Host, Question};
use crate::config::{Config, ConfigError};
use crate::deliver::agent::AgentPool;
use crate::deliver::quota::{Full, Quotas};
use crate::deliver::remote::credentials::Credentials;
use crate::deliver::remote::{Outbound, RemoteDelivery, RemoteSettings};
use crate::destination::{Destination, HostTarget};
use crate::dns::Dns;
use crate::envelope::{MessageTls, Origin, Recipient};
#[cfg(feature = "filters")]
use crate::filters::Filters;
#[cfg(feature = "mailauth")]
use crate::mailauth::{dmarc::reports::Counts, keys::Keys};
use crate::outcome::Outcome;
use crate::outgoing::Outgoing;
use crate::policy::rcpt::NextHost;
use crate::privsep::Rights;
use crate::reply::Status;
use crate::report::languages::Languages;
use crate::report::rate::Rates;
use crate::route::Router;
use crate::sasl::Logins;
use crate::sasl::throttle::Throttle;
use crate::screen::access::Access;
use crate::screen::greylist::Greylist;
use crate::screen::lists::Lists;
use crate::shared::Shared;
use crate::shared_store::{self, SharedStore};
use crate::spool::Spool;
use crate::state::State;
use crate::submit::senders::{Known, Senders};
use crate::submit::usage::Usage;
use crate::sys;
use crate::timeouts::Trust;
use crate::tls::Tls;
use crate::tls_policy::sts;
use crate::tls_policy::table::TlsPolicies;
use crate::tls_report;
use crate::users::accounts;

/// The configuration, and the contents of the files that it names.
pub struct Settings {
    /// The time at which everything was opened, in seconds since 1970.
    pub since: u64,
    /// The values in the configuration file.
    pub config: Arc<Config>,
    /// The tables that decide where mail for an address goes.
    pub router: Arc<Router>,
    /// The sender addresses that each account may use.
    pub senders: Arc<Senders>,
    /// The clients, senders and recipients that are accepted or refused.
    pub access: Arc<Access>,
    /// The accounts that may log in.
    pub logins: Arc<Logins>,
    /// The server's certificates, and the authorities that the server trusts.
    pub tls: Arc<Tls>,
    /// The user names and passwords with which this server logs in at other hosts.
    pub credentials: Arc<Credentials>,
    /// The TLS policies of domains and hosts that the postmaster has set.
    pub tls_policies: Arc<TlsPolicies>,
    /// How mail leaves this host, and how fast.
    pub outgoing: Arc<Outgoing>,
    /// The languages of reports.
    pub languages: Arc<Languages>,
    /// What this host needs to use the shared store; `None` if there is no store.
    pub shared_secrets: Option<Arc<shared_store::Secrets>>,
    /// The keys that sign mail.
    #[cfg(feature = "mailauth")]
    pub keys: Arc<Keys>,
    /// The filters that are asked about mail.
    #[cfg(feature = "filters")]
    pub filters: Arc<Filters>,
}

impl Settings {
    /// Opens everything that the configuration names, as this process's user and with these rights.
    /// Returns the settings, and the errors in tables that can still be used. `throttle` counts
    /// failed attempts to log in. A reload passes on the throttle of the old settings, so that the
    /// counts are kept.
    ///
    /// # Errors
    /// All errors in the files that the configuration names, if one of these errors rules out a
    /// start.
    pub fn open(
        config: Config,
        rights: &Rights,
        throttle: Arc<Throttle>,
    ) -> Result<(Self, Vec<ConfigError>), Vec<ConfigError>> {
        let (router, mut errors) = Router::begin(&config, rights);
        let router = router.map(Arc::new);
        let (logins, login_errors) = accounts::begin(&config, rights, throttle);
        let logins = Arc::new(logins);
        let known = router.as_ref().map(|router| known_users(router, &logins)).unwrap_or_default();
        let senders = noted(&mut errors, Senders::begin(&config, known));
        let access = noted(&mut errors, Access::begin(&config));
        let tls_policies = noted(&mut errors, TlsPolicies::begin(&config));
        let outgoing = noted(&mut errors, Outgoing::begin(&config));
        let languages = noted(&mut errors, Languages::open(&config));
        // The router may have read the same file of users.
        let logins = noted(&mut errors, (logins, login_errors));
        let keys = open_keys(&config, rights, &mut errors);
        let secrets = (Credentials::open(&config, rights), shared_store::Secrets::open(&config, rights));
        match (router, Tls::open(&config, rights), secrets, keys) {
            (Some(router), Ok(tls), (Ok(credentials), Ok(shared_secrets)), Ok(_keys)) => {
                let settings = Self {
                    #[cfg(feature = "filters")]
                    filters: Arc::new(Filters::new(&config)),
                    since: sys::now(),
                    config: Arc::new(config),
                    credentials: credentials.shared_with(&router),
                    router,
                    senders: Arc::new(senders),
                    access: Arc::new(access),
                    logins,
                    tls: Arc::new(tls),
                    shared_secrets,
                    tls_policies: Arc::new(tls_policies),
                    outgoing: Arc::new(outgoing),
                    languages: Arc::new(languages),
                    #[cfg(feature = "mailauth")]
                    keys: _keys,
                };
                Ok((settings, errors))
            }
            (_, tls, (credentials, password), keys) => {
                let all = [tls.err(), credentials.err(), password.err(), keys.err()];
                errors.extend(all.into_iter().flatten().flatten());
                Err(errors)
            }
        }
    }
}

/// Returns what was opened, and adds those of its errors that are new.
fn noted<T>(errors: &mut Vec<ConfigError>, (opened, found): (T, Vec<ConfigError>)) -> T {
    let mut new = found;
    let known: HashSet<&ConfigError> = errors.iter().collect();
    new.retain(|error| !known.contains(error));
    errors.append(&mut new);
    opened
}

/// Opens the keys that sign mail, and adds the errors in those that are not used.
#[cfg(feature = "mailauth")]
fn open_keys(config: &Config, rights: &Rights, errors: &mut Vec<ConfigError>) -> Result<Arc<Keys>, Vec<ConfigError>> {
    let (keys, faults) = Keys::open(config, rights)?;
    errors.extend(faults);
    Ok(Arc::new(keys))
}

#[cfg(not(feature = "mailauth"))]
fn open_keys(_: &Config, _: &Rights, _: &mut Vec<ConfigError>) -> Result<(), Vec<ConfigError>> {
    Ok(())
}

/// Returns what the accounts and the router know about the users of local domains.
pub fn known_users(router: &Arc<Router>, logins: &Arc<Logins>) -> Known {
    let (logins, router) = (Arc::clone(logins), Arc::clone(router));
    Known::new(move |login| logins.accounts.is_one_user(&login.to_string()), move |address| router.is_user(address))
}

/// The state that all threads of a process share.
pub struct Site {
    /// The settings in force. A reload replaces them as a whole, and the lock guards only that.
    settings: RwLock<Arc<Settings>>,
    /// The spool, where messages are kept.
    pub spool: Arc<Spool>,
    /// The resolver for DNS look-ups.
    pub dns: Arc<Dns>,
    /// The store in which several hosts keep counts together.
    pub shared: Arc<SharedStore>,
    /// The numbers of messages and recipients of each account within the last hour.
    pub usage: Usage,
    /// The numbers of messages of each user of this system within the last hour.
    pub local_usage: Usage,
    /// The numbers of messages and unknown recipients of each client that may not relay.
    pub stranger_usage: Usage,
    /// The networks that were asked to try again.
    pub greylist: Greylist,
    /// What is known about the DNS lists.
    pub lists: Lists,
    /// The counts of messages for DMARC reports.
    #[cfg(feature = "mailauth")]
    pub dmarc_counts: Counts,
    /// The counts of connections for TLS reports.
    pub tls_counts: tls_report::Counts,
    /// The rights of this process beyond those of its own user.
    pub rights: Rights,
    /// The agents, processes that work in mailboxes with the rights of their users.
    pub agents: AgentPool,
    /// What is known about the use of mailboxes with quotas.
    pub quotas: Quotas,
    /// The state that deliveries to other hosts share.
    pub outbound: Outbound,
    /// What next hosts have said about recipients.
    pub callouts: Callouts,
    /// The counts of recent reports, for the limits on reports.
    pub report_rates: Rates,
    /// Whether the queue knows all entries that were in the spool at the start.
    pub is_scanned: AtomicBool,
}

impl Site {
    /// Makes a site with these settings. `local` are the addresses on which this server listens. No
    /// mail is sent to these addresses.
    pub fn new(settings: Arc<Settings>, spool: Arc<Spool>, rights: Rights, local: Vec<SocketAddr>) -> Arc<Self> {
        let dns = Arc::new(Dns::new(&settings.config.dns));
        let state = State::at(&spool.state_directory());
        let store = Arc::new(SharedStore::new(&dns, &settings.config.hostname));
        store.aim(&settings.config, &settings.tls.client, settings.shared_secrets.as_ref());
        let shared = Shared::in_store(Arc::clone(&store) as Arc<dyn crate::shared::Store>);
        settings.logins.throttle.share(shared.clone());
        let outbound = Outbound {
            dns: Arc::clone(&dns),
            local,
            addresses: Arc::default(),
            timeouts: Arc::default(),
            sts: sts::Policies::new(&dns, &state, &shared),
        };
        Arc::new(Self {
            settings: RwLock::new(settings),
            spool,
            dns,
            shared: store,
            usage: Usage::shared(&state, "usage").together(&shared, "account"),
            local_usage: Usage::shared(&state, "usage-local"),
            stranger_usage: Usage::shared(&state, "usage-strangers").together(&shared, "client"),
            greylist: Greylist::kept(&state).together(&shared),
            lists: Lists::default(),
            #[cfg(feature = "mailauth")]
            dmarc_counts: Counts::shared(&state),
            tls_counts: tls_report::Counts::shared(&state),
            agents: AgentPool::new(rights.clone()),
            quotas: Quotas::default(),
            rights,
            outbound,
            callouts: Callouts::kept(&state),
            report_rates: Rates::default(),
            is_scanned: AtomicBool::new(false),
        })
    }

    /// Makes a site for a process that does not listen itself. The addresses on which the daemon
    /// would listen count as this server, too.
    pub fn without_listeners(settings: Arc<Settings>, spool: Arc<Spool>, rights: Rights) -> Arc<Self> {
        let local = settings.config.mail_sockets().collect();
        Self::new(settings, spool, rights, local)
    }

    /// Returns the counts for TLS reports, or `None` if the connections for a message are not counted:
    /// a TLS report must not cause another one, and a message that goes without TLS if need be says
    /// nothing about the policies of domains.
    pub fn tls_counts_of(&self, config: &Config, origin: Origin, tls: MessageTls) -> Option<&tls_report::Counts> {
        let is_usual = origin != Origin::TlsReport && tls != MessageTls::Indifferent;
        (config.remote.tls_reports.is_some() && is_usual).then_some(&self.tls_counts)
    }

    /// If a message of `size` bytes fits into none of the mailboxes of these recipients, returns one
    /// of the mailboxes.
    pub fn full(&self, router: &Router, recipients: &[Recipient], size: u64) -> Option<Full> {
        self.quotas.full(&self.agents, router, recipients, size)
    }

    /// Returns the settings in force now.
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What this site keeps together with other hosts in the shared store.
    pub fn together(&self) -> Shared {
        Shared::in_store(Arc::clone(&self.shared) as Arc<dyn crate::shared::Store>)
    }

    /// Puts new settings into force.
    pub fn replace(&self, settings: Arc<Settings>) {
        self.shared.aim(&settings.config, &settings.tls.client, settings.shared_secrets.as_ref());
        self.shared.start();
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = settings;
    }
}

impl Site {
    /// Asks the hosts of a destination whether they accept a recipient, for a session with this id and
    /// these settings. When `is_over` returns true, the session waits no longer.
    pub fn ask_next_host(
        &self,
        settings: &Arc<Settings>,
        session: &str,
        (recipient, target): (&Address, &HostTarget),
        is_over: impl Fn() -> bool,
    ) -> NextHost {
        let host = || -> Box<dyn Host> {
            Box::new(Asker {
                settings: Arc::clone(settings),
                remote: RemoteDelivery::new(self.outbound.clone()),
                destination: Arc::new(Destination::Remote(target.clone(), None)),
                session: session.to_owned(),
            })
        };
        // Most sessions must be free for clients that no other host keeps waiting.
        let room = (settings.config.limits.connections / 4).max(1);
        self.callouts.ask(&Question::new(session, recipient, target), room, host, is_over)
    }
}

/// Asks the hosts of a destination about recipients, in the way of a delivery.
struct Asker {
    settings: Arc<Settings>,
    remote: RemoteDelivery,
    destination: Arc<Destination>,
    session: String,
}

impl Host for Asker {
    fn ask(&mut self, recipient: &Address, until: Instant) -> Option<Outcome> {
        let Destination::Remote(target, _) = &*self.destination else {
            return Some(Outcome::deferred(Status(4, 3, 5), "the destination is not another host"));
        };
        let Settings { config, tls, credentials, tls_policies, outgoing, .. } = &*self.settings;
        let (tls, trust) = (&tls.client, Trust::Proven);
        let settings = RemoteSettings { config, tls, credentials, tls_policies, outgoing, counts: None, trust };
        self.remote.ask(settings, (&self.destination, target), recipient, (&self.session, until))
    }
}

//! The state that explanations use: that of a running daemon, or that of the files if none runs.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::callout::Callouts;
use crate::config::{Config, ConfigError};
use crate::deliver::agent::AgentPool;
use crate::deliver::remote::addresses::DownAddress;
use crate::deliver::remote::credentials::Credentials;
use crate::dns::Dns;
use crate::outgoing::Outgoing;
use crate::privsep::Rights;
use crate::route::Router;
use crate::sasl::Logins;
use crate::screen::access::Access;
use crate::screen::greylist::Greylist;
use crate::screen::lists::Lists;
use crate::shared::Shared;
use crate::site::{Settings, Site, known_users};
use crate::spool::Spool;
use crate::state::State;
use crate::submit::senders::Senders;
use crate::submit::usage::Usage;
use crate::tls_policy::Rules;
use crate::tls_policy::sts::Policies;
use crate::tls_policy::table::TlsPolicies;
use crate::users::accounts;

/// The state that an explanation uses.
pub struct Scene<'a> {
    pub(super) config: &'a Config,
    pub(super) router: &'a Router,
    pub(super) senders: &'a Senders,
    pub(super) access: &'a Access,
    /// The accounts that may log in; `None` if they are not known.
    pub(super) logins: Option<&'a Logins>,
    /// The credentials; `None` if the table was not opened.
    pub(super) credentials: Option<&'a Credentials>,
    pub(super) tls_policies: &'a TlsPolicies,
    pub(super) outgoing: &'a Outgoing,
    pub(super) spool: &'a Arc<Spool>,
    pub(super) dns: &'a Dns,
    pub(super) sts: &'a Policies,
    pub(super) lists: &'a Lists,
    pub(super) greylist: &'a Greylist,
    pub(super) callouts: &'a Callouts,
    pub(super) usage: &'a Usage,
    pub(super) stranger_usage: &'a Usage,
    /// The agents that look into mailboxes; `None` if no daemon answers.
    pub(super) agents: Option<&'a AgentPool>,
    /// The addresses on which this server listens.
    pub(super) local: &'a [SocketAddr],
    /// The addresses of other hosts that are down.
    pub(super) down: Vec<DownAddress>,
    /// Whether a daemon answers.
    pub(super) is_live: bool,
}

impl<'a> Scene<'a> {
    /// What TLS policies are made from.
    pub(super) fn tls_rules(&self) -> Rules<'a> {
        Rules { config: &self.config.remote, table: self.tls_policies, dns: None, sts: Some(self.sts) }
    }

    /// The scene of a running daemon.
    pub fn live(site: &'a Site, settings: &'a Settings) -> Self {
        Self {
            config: &settings.config,
            router: &settings.router,
            senders: &settings.senders,
            access: &settings.access,
            logins: Some(&settings.logins),
            credentials: Some(&settings.credentials),
            tls_policies: &settings.tls_policies,
            outgoing: &settings.outgoing,
            spool: &site.spool,
            dns: &site.dns,
            sts: &site.outbound.sts,
            lists: &site.lists,
            greylist: &site.greylist,
            callouts: &site.callouts,
            usage: &site.usage,
            stranger_usage: &site.stranger_usage,
            agents: Some(&site.agents),
            local: &site.outbound.local,
            down: site.outbound.addresses.down(),
            is_live: true,
        }
    }
}

/// The files of a configuration, opened while no daemon runs.
pub struct Offline {
    config: Config,
    router: Arc<Router>,
    senders: Senders,
    access: Access,
    logins: Option<Arc<Logins>>,
    tls_policies: TlsPolicies,
    outgoing: Outgoing,
    spool: Arc<Spool>,
    dns: Dns,
    sts: Policies,
    lists: Lists,
    greylist: Greylist,
    callouts: Callouts,
    usage: Usage,
    stranger_usage: Usage,
    local: Vec<SocketAddr>,
}

impl Offline {
    /// Opens the tables as this process's user. Returns also the errors in tables that can still be
    /// used. Nothing is made or changed on disk.
    ///
    /// # Errors
    /// The errors that rule out an explanation.
    pub fn open(config: Config, spool: Arc<Spool>) -> Result<(Self, Vec<ConfigError>), Vec<ConfigError>> {
        let (router, mut errors) = Router::begin(&config, &Rights::Alone);
        let Some(router) = router.map(Arc::new) else { return Err(errors) };
        // Without the users file, the accounts are not known.
        let (logins, unreadable) = accounts::begin(&config, &Rights::Alone, Arc::default());
        let logins = Arc::new(logins);
        let (senders, more) = Senders::begin(&config, known_users(&router, &logins));
        errors.extend(more);
        let (access, more) = Access::begin(&config);
        errors.extend(more);
        let (tls_policies, more) = TlsPolicies::begin(&config);
        errors.extend(more);
        let (outgoing, more) = Outgoing::begin(&config);
        errors.extend(more);
        let state = State::at(&spool.state_directory());
        let offline = Self {
            router,
            logins: unreadable.is_empty().then_some(logins),
            senders,
            access,
            tls_policies,
            outgoing,
            dns: Dns::new(&config.dns),
            // They are not looked up, so their resolver does not start.
            sts: Policies::new(&Arc::new(Dns::new(&config.dns)), &state, &Shared::default()),
            lists: Lists::default(),
            greylist: Greylist::kept(&state),
            callouts: Callouts::kept(&state),
            usage: Usage::shared(&state, "usage"),
            stranger_usage: Usage::shared(&state, "usage-strangers"),
            local: config.mail_sockets().collect(),
            spool,
            config,
        };
        Ok((offline, errors))
    }

    /// The scene of these files.
    pub fn scene(&self) -> Scene<'_> {
        Scene {
            config: &self.config,
            router: &self.router,
            senders: &self.senders,
            access: &self.access,
            logins: self.logins.as_deref(),
            credentials: None,
            tls_policies: &self.tls_policies,
            outgoing: &self.outgoing,
            spool: &self.spool,
            dns: &self.dns,
            sts: &self.sts,
            lists: &self.lists,
            greylist: &self.greylist,
            callouts: &self.callouts,
            usage: &self.usage,
            stranger_usage: &self.stranger_usage,
            agents: None,
            local: &self.local,
            down: Vec::new(),
            is_live: false,
        }
    }
}

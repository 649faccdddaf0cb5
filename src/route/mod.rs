//! Routes mail: finds the recipients that an address stands for, and where each of them is
//! delivered.
//!
//! - `by_sender`: the sender routes table: senders whose mail leaves by other hosts
//! - `cache`: a cache of expansions that took long
//! - `copies`: the recipients of copies, such as an archive
//! - `cycles`: aliases that lead back to themselves
//! - `expand`: from an address to its final recipients
//! - `outward`: where mail goes that is not delivered into a mailbox
//! - `realm`: the local domains, grouped by their users and tables
//! - `relay_recipients`: the table of the recipients in relay domains
//! - `resolve`: what a session asks about a recipient
//! - `routes`: the routes table
//! - `srs`: senders that are rewritten when a message is forwarded
//! - `trace`: the steps of an expansion and the lines behind a route, for explanations
//! - `virtual_table`: the virtual table
//! - `warnings`: mistakes in the tables that are no errors
//!
//! [`Router::expand`] returns the final recipients of an address. It is called once, before the
//! message is accepted. [`Router::route`] returns the route of a final recipient. It is called
//! before every attempt and expands nothing, so that a changed alias does not affect accepted mail.
//! `expand` and `route` use the same tables, which are read again when their files change.
//!
//! There are no errors: if a look-up in a table or the system fails, the result is `Temporary`.
//! Every expansion ends, whatever the tables contain. The router makes no DNS look-ups and opens no
//! mailboxes. The session decides who may relay, with the help of [`Router::class_of`].

use std::borrow::Cow;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::address::{Address, fold};
use crate::aliases::Member;
use crate::config::table::Watched;
use crate::config::{Config, ConfigError, HostPort, TableFile};
use crate::destination::{Destination, HostTarget};
use crate::envelope::{Action, Recipient};
use crate::privsep::Rights;
use crate::reply::Status;
use crate::users::{Inbox, Mailbox, Owner, POSTMASTER, ROOT};

use by_sender::SenderRoutes;
use cache::ExpansionCache;
use copies::Copies;
use outward::Accounts;
pub use outward::{RoutedMail, Sender};
use realm::{Domains, Realm, Snapshot};
use relay_recipients::RelayRecipients;
use routes::Routes;
use srs::SenderRewriting;
pub use trace::{Found, Traced, Visit};

mod by_sender;
mod cache;
pub mod copies;
mod cycles;
mod expand;
mod outward;
mod realm;
mod relay_recipients;
mod resolve;
mod routes;
pub mod srs;
mod trace;
mod virtual_table;
mod warnings;

/// All tables that decide where mail goes, shared by all threads.
#[derive(Debug)]
pub struct Router {
    /// The local domains, grouped by their users and tables. The first group is that of `[local]`,
    /// which may have no domains.
    realms: Vec<Realm>,
    /// The local domains, each with the number of its realm.
    domains: Arc<Domains>,
    /// The local domain that completes addresses without a domain.
    first_domain: Box<str>,
    relay_domains: HashSet<Box<str>>,
    /// The recipients in relay domains; `None` if all addresses there are accepted.
    relay_recipients: Option<Watched<RelayRecipients>>,
    /// Whether the next host is asked about the recipients in relay domains.
    asks_about_relay: bool,
    /// The postmaster of the first local domain.
    own_postmaster: Address,
    /// The mailbox for the postmaster's mail if it has no other recipient.
    last_resort: PathBuf,
    smarthosts: Vec<HostPort>,
    /// The hosts that are tried if those of a destination cannot be reached.
    fallback: Vec<HostPort>,
    /// Whether mail leaves this host only for domains in the routes table.
    local_only: bool,
    routes: Watched<Routes>,
    senders: Watched<SenderRoutes>,
    copies: Watched<Copies>,
    /// Tells for which messages the credentials depend on the sender, once the credentials are read.
    accounts: OnceLock<Accounts>,
    /// `None` if senders are not rewritten.
    srs: Option<SenderRewriting>,
    cache: ExpansionCache,
}

/// The class of a domain, by how its mail is handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DomainClass {
    /// A local domain.
    Local,
    /// A domain for which every client may send mail here (`relay.domains`).
    Relay,
    /// Any other domain.
    Elsewhere,
}

/// The result of expanding an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expansion {
    /// The final recipients: at least one, and none twice. If an alias has a recipient that exists,
    /// its local members that do not exist are included, too: their delivery fails, and the sender
    /// gets a report.
    Finals(Vec<Recipient>),
    /// The address does not exist; the reply to RCPT is 550 5.1.1.
    Unknown,
    /// The routes table rejects all recipients, with this status and text.
    Refused(Status, String),
    /// The expansion is not known now, for this reason; the reply to RCPT is 451.
    Temporary(String),
}

/// An alias that is expanded at delivery, because it includes a list or has an owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    /// The name of the alias, in lower case.
    pub name: Box<str>,
    /// The members of the alias. Lists among them are not read yet.
    pub members: Vec<Member>,
    /// The sender of the messages that the alias forwards; `None` if the alias has no owner.
    pub owner: Option<Address>,
}

/// The route of a final recipient: where its messages are delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// Delivery into a mailbox.
    Mailbox(Mailbox),
    /// Delivery to a command with the rights of an owner.
    Command(Box<str>, Owner),
    /// Expansion of an alias at delivery.
    List,
    /// Nothing is delivered: other recipients have replaced the recipient.
    Replaced,
    /// Delivery to other hosts or to a mail store.
    Remote(HostTarget),
    /// The recipient does not exist, or exists no longer.
    Unknown,
    /// The routes table rejects the recipient, with this status (class 5) and text.
    Refused(Status, String),
    /// The routes table has the message removed, without a report. The text names the line.
    Discard(String),
    /// The routes table has the message held. The text says why.
    Hold(String),
    /// The route is not known now, with a status (class 4) and the reason.
    Temporary(Status, String),
}

/// The status if a look-up in a table or by the system fails.
const TEMPORARY: Status = Status(4, 3, 0);

impl Router {
    /// Returns the recipient of reports about messages without a sender.
    pub fn postmaster(&self) -> &Address {
        &self.own_postmaster
    }

    /// Reads all tables. Logs a warning if mail for root or the postmaster has no recipient, or if
    /// the aliases have no effect.
    ///
    /// # Errors
    /// All errors in the tables.
    pub fn open(config: &Config, rights: &Rights) -> Result<Self, Vec<ConfigError>> {
        match Self::begin(config, rights) {
            (Some(router), errors) if errors.is_empty() => Ok(router),
            (_, errors) => Err(errors),
        }
    }

    /// Reads all tables as far as possible, and returns all errors. If an error affects a
    /// recipient, the mail for that recipient waits. The router is `None` if the configuration
    /// itself has an error.
    pub fn begin(config: &Config, rights: &Rights) -> (Option<Self>, Vec<ConfigError>) {
        let (realms, domains, mut errors) = realm::open(config, rights);
        let is_local = Arc::clone(&domains);
        let read_routes =
            move |file: &Path, text: &str| Routes::read(file, text, |domain| is_local.contains_key(domain));
        let (routes, more) = Watched::open_tolerant(&config.remote.routes, read_routes, Routes::unreadable);
        errors.extend(more);
        let relay_recipients = config.relay.recipients.as_ref().map(|path| {
            let file = TableFile { path: path.clone(), required: true };
            let (table, more) = Watched::open_tolerant(&file, RelayRecipients::read, RelayRecipients::unreadable);
            errors.extend(more);
            table
        });
        let (senders, more) =
            Watched::open_tolerant(&config.remote.senders, SenderRoutes::read, SenderRoutes::unreadable);
        errors.extend(more);
        let (copies, more) = Watched::open_tolerant(&config.policy.always_bcc, Copies::read, Copies::unreadable);
        errors.extend(more);
        let first_domain: Box<str> = config.own_domain().into();
        let own_postmaster = keep(&mut errors, own_postmaster(&first_domain));
        let srs = SenderRewriting::open(config, rights).map_err(|more| errors.extend(more));
        let (Some(realms), Some(own_postmaster), Ok(srs)) = (realms, own_postmaster, srs) else {
            return (None, errors);
        };
        let router = Self {
            realms,
            domains,
            first_domain,
            relay_domains: config.relay.domains.iter().map(|d| d.as_str().into()).collect(),
            relay_recipients,
            asks_about_relay: config.relay.verify,
            own_postmaster,
            last_resort: config.spool.join(POSTMASTER),
            smarthosts: config.remote.smarthosts.clone(),
            fallback: config.remote.fallback.clone(),
            local_only: config.remote.local_only,
            routes,
            senders,
            copies,
            accounts: OnceLock::new(),
            srs,
            cache: ExpansionCache::default(),
        };
        if errors.is_empty() {
            router.warn_of_aliases(&config.places);
            router.warn_of_last_resort(&config.places);
            router.warn_of_copies();
        }
        (Some(router), errors)
    }

    /// Returns the directories of the mailboxes that the server's own user owns.
    pub fn mailbox_roots(&self) -> Vec<PathBuf> {
        let mut roots: Vec<_> = self.realms.iter().flat_map(|realm| realm.users.roots()).collect();
        roots.sort_unstable();
        roots.dedup();
        roots
    }

    /// Whether any mailbox in the domain of an address has a quota.
    pub fn has_quotas(&self, address: &Address) -> bool {
        self.realm(self.qualified(address).domain()).is_some_and(|realm| realm.users.have_quotas())
    }

    /// Returns the address, completed with the first local domain if it has no domain.
    #[must_use]
    pub fn qualify(&self, address: &Address) -> Address {
        self.qualified(address).into_owned()
    }

    /// Returns the class of a domain. An empty domain is local, and so is an address literal that
    /// the configuration lists.
    pub fn class_of(&self, domain: &str) -> DomainClass {
        if domain.is_empty() || self.is_local(domain) {
            DomainClass::Local
        } else if self.relay_domains.contains(domain) {
            DomainClass::Relay
        } else {
            DomainClass::Elsewhere
        }
    }

    /// Returns the final recipients of an address, for RCPT, VRFY and reports.
    ///
    /// The whole address is looked up in the virtual table, the aliases, the routes table and the
    /// users, then the address without its detail in the same order, then the domain's line in the
    /// virtual table, and then `catch_all`. The postmaster always exists (RFC 5321 4.5.1).
    pub fn expand(&self, address: &Address) -> Expansion {
        let address = self.qualified(address);
        let rewritten = self.expand_rewritten(&address);
        rewritten.unwrap_or_else(|| self.cache.get(self, &address, || expand::expand(self, &address)))
    }

    /// Returns the final recipients of a message of this server. If the address cannot be expanded,
    /// it is the only one: the delivery then fails or is deferred.
    pub fn recipients_of_own(&self, to: &Address) -> Vec<Recipient> {
        let expansion = (self.class_of(to.domain()) == DomainClass::Local).then(|| self.expand(to));
        match expansion {
            Some(Expansion::Finals(finals)) => finals,
            _ => vec![Recipient::new(to.clone())],
        }
    }

    /// Returns the final recipients of `members`, which are the members of a list or a `.forward`
    /// that belongs to `address`. For a `.forward`, `user` names its user; commands and files in
    /// the `.forward` need the rights of that user.
    pub fn expand_members(&self, address: &Address, members: &[Member], user: Option<&str>) -> Expansion {
        expand::expand_members(self, &self.qualified(address), members, user)
    }

    /// Returns the alias of a final recipient; `None` if the alias no longer exists.
    ///
    /// # Errors
    /// The error in the aliases file, if it affects this alias.
    pub fn list(&self, address: &Address) -> Result<Option<List>, String> {
        let address = self.qualified(address);
        let Some(realm) = self.realm(address.domain()) else { return Ok(None) };
        let (aliases, name) = (realm.aliases.rows.current(), fold(address.local()));
        for name in realm.names(&name) {
            if let Some(members) = aliases.find(name).map_err(ToString::to_string)? {
                let owner = aliases.owner(name).map(|owner| address.with_local(owner));
                return Ok(Some(List { name: name.into(), members: members.to_vec(), owner }));
            }
        }
        Ok(None)
    }

    /// Returns the name of the alias of a final recipient; `None` if there is no such alias.
    pub fn list_name(&self, address: &Address) -> Option<Box<str>> {
        let realm = self.realm(self.qualified(address).domain())?;
        realm.alias_of(&realm.aliases.rows.current(), address)
    }

    /// Returns the user name in a local address: the local part without the detail.
    pub fn base<'a>(&self, address: &'a Address) -> &'a str {
        let realm = self.realm(self.qualified(address).domain());
        realm.and_then(|realm| realm.without_detail(address.local())).unwrap_or(address.local())
    }

    /// Returns the route of a final recipient of a message, which depends on the recipient's action.
    /// Expands no alias.
    pub fn route_of(&self, recipient: &Recipient, mail: &RoutedMail<'_>) -> Route {
        match &recipient.action {
            Action::Deliver | Action::Direct => {
                self.with_sender_that_counts(mail, recipient, |mail| self.route_for(&recipient.address, mail))
            }
            Action::Expand => Route::List,
            Action::Replaced => Route::Replaced,
            Action::Run { command, user } => match self.owner(user.as_deref()) {
                Ok(owner) => Route::Command(command.clone(), owner),
                Err(route) => *route,
            },
            Action::Append { file, user } => match self.owner(user.as_deref()) {
                Ok(owner) => {
                    let is_mbox = !file.ends_with('/');
                    Route::Mailbox(Mailbox { path: PathBuf::from(&**file), is_mbox, owner, quota: None })
                }
                Err(route) => *route,
            },
        }
    }

    /// Returns the owner whose rights a command or a file needs: the user with this name, or the
    /// server if `user` is `None`.
    ///
    /// # Errors
    /// The route to use instead, if the user cannot be the owner.
    fn owner(&self, user: Option<&str>) -> Result<Owner, Box<Route>> {
        let Some(name) = user else { return Ok(Owner::Server) };
        // The users of the system are the same in every realm.
        let Some(realm) = self.realms.first() else { return Err(Box::new(Route::Unknown)) };
        match realm.users.account(name) {
            // Root's rights are never used for a command or a file, so the mail waits.
            Ok(Some(account)) if account.uid == 0 => {
                let why = "it would need root's rights".to_owned();
                Err(Box::new(Route::Temporary(TEMPORARY, why)))
            }
            Ok(Some(account)) => Ok(Owner::User(account)),
            Ok(None) => Err(Box::new(Route::Unknown)),
            Err(why) => Err(Box::new(Route::Temporary(TEMPORARY, why))),
        }
    }

    /// Returns the separator and the detail of a local address. `None` if there is no detail, or if
    /// the whole local part is the name of a user.
    pub fn extension(&self, address: &Address) -> Option<(char, Box<str>)> {
        let address = self.qualified(address);
        let (name, domain, realm) = (fold(address.local()), address.domain(), self.realm(address.domain())?);
        let separator = realm.subaddress?;
        let (base, extension) = name.split_once(separator)?;
        let is_user = realm.users.inbox(&name, domain).is_ok_and(|inbox| inbox.is_some());
        (!is_user && !base.is_empty() && !extension.is_empty()).then(|| (separator, extension.into()))
    }

    /// Returns the route of an address for a message whose sender is not known. Expands no alias.
    pub fn route(&self, address: &Address) -> Route {
        self.route_for(address, &RoutedMail::default())
    }

    /// Returns the route of an address for a message, with the sender that the next host gets.
    fn route_for(&self, address: &Address, mail: &RoutedMail<'_>) -> Route {
        let address = self.qualified(address);
        let Some(realm) = self.realm(address.domain()) else { return self.elsewhere(&address, mail) };
        if let Some(route) = self.routed_address(&address, mail) {
            return route;
        }
        let name = fold(address.local());
        let inbox = match mail.is_plan {
            true => realm.inbox_now(&name, address.domain()),
            false => realm.inbox(&name, address.domain()),
        };
        match inbox {
            // Nothing is delivered with root's rights, so root's mail goes to the mailbox of last
            // resort.
            Ok(Some(inbox)) if inbox.is_roots() => self.last_resort(),
            Ok(Some(Inbox::Mailbox(mailbox))) => Route::Mailbox(mailbox),
            Ok(Some(Inbox::Store(store, _))) => Route::Remote(HostTarget::Store(store)),
            Ok(None) if name == POSTMASTER => self.last_resort(),
            Ok(None) => match self.expect_routes() {
                Ok(()) => Route::Unknown,
                Err(why) => Route::Temporary(TEMPORARY, why),
            },
            Err(why) => Route::Temporary(TEMPORARY, why),
        }
    }

    /// Whether a line of the routes table names this address in a local domain.
    pub fn is_routed_address(&self, address: &Address, mail: &RoutedMail<'_>) -> bool {
        let address = self.qualified(address);
        self.is_local(address.domain()) && self.routed_address(&address, mail).is_some()
    }

    fn last_resort(&self) -> Route {
        let path = self.last_resort.clone();
        Route::Mailbox(Mailbox { path, is_mbox: false, owner: Owner::Server, quota: None })
    }

    fn qualified<'a>(&self, address: &'a Address) -> Cow<'a, Address> {
        match address.domain() {
            "" => Cow::Owned(address.at(&self.first_domain)),
            // If there are no local domains, an address at `localhost` counts as one without a
            // domain.
            "localhost" if self.domains.is_empty() => Cow::Owned(address.at(&self.first_domain)),
            _ => Cow::Borrowed(address),
        }
    }

    fn is_local(&self, domain: &str) -> bool {
        self.domains.contains_key(domain)
    }

    /// Returns the realm of a domain; `None` if the domain is not local.
    fn realm(&self, domain: &str) -> Option<&Realm> {
        self.realms.get(self.realm_number(domain)?)
    }

    /// Whether tables of a realm are still those in use.
    fn is_current(&self, number: usize, tables: &Snapshot) -> bool {
        self.realms.get(number).is_some_and(|realm| realm.snapshot().is_same(tables))
    }

    fn realm_number(&self, domain: &str) -> Option<usize> {
        self.domains.get(domain).copied()
    }
}

impl Route {
    /// Returns the destination to which the queue assigns a recipient with this route.
    pub fn destination(&self) -> Destination {
        match self {
            // Commands may be slow. With a destination for each user, the commands of one user
            // delay only each other.
            Self::Command(_, Owner::Server) => Destination::Command(None),
            Self::Command(_, Owner::User(account)) => Destination::Command(Some(account.name.as_str().into())),
            // A user may keep busy the agents, which are the processes with that user's rights.
            // With a destination for each user, this delays only the user's own mail.
            Self::Mailbox(Mailbox { owner: Owner::User(account), .. }) => {
                Destination::User(account.name.as_str().into())
            }
            Self::Remote(target) => Destination::Remote(target.clone(), None),
            Self::Mailbox(_)
            | Self::List
            | Self::Replaced
            | Self::Unknown
            | Self::Refused(..)
            | Self::Discard(_)
            | Self::Hold(_)
            | Self::Temporary(..) => Destination::Local,
        }
    }
}

/// The reply for a domain without a route if [`Router::local_only`] is set.
const NO_WAY_OUT: &str = "No mail leaves this host";
const LOCAL_ONLY: Status = Status(5, 4, 4);

fn own_postmaster(domain: &str) -> Result<Address, Vec<ConfigError>> {
    Address::new(POSTMASTER, domain)
        .map_err(|why| vec![ConfigError::whole(Path::new("local.domains"), format!("{why}"))])
}

fn keep<T>(errors: &mut Vec<ConfigError>, result: Result<T, Vec<ConfigError>>) -> Option<T> {
    result.map_err(|new| errors.extend(new)).ok()
}

#[cfg(test)]
mod tests;

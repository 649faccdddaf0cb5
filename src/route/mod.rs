//! Where an address goes, and why.
//!
//! [`Router::expand`] says which final recipients an address stands for; it is
//! asked once, before the message is accepted. [`Router::route`] says where one
//! of them goes now; it is asked before every attempt and expands nothing, so a
//! change of an alias does not touch what is already accepted. Both answer from
//! the same tables, which follow their files.
//!
//! Nothing fails here: that a table or the system cannot be asked is an answer
//! too, `Temporary`, and means later. Every expansion ends, whatever is in the
//! tables. Does not ask the DNS, does not open a mailbox, does not decide who may
//! relay: the session does, with [`Router::place`].

use std::borrow::Cow;
use std::collections::HashSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::address::Address;
use crate::aliases::{Aliases, Member};
use crate::config::table::Watched;
use crate::config::{Config, ConfigError, HostPort, Scheme};
use crate::destination::{Destination, HostTarget, SMTP_PORT};
use crate::dns;
use crate::envelope::{Action, Recipient};
use crate::privsep::Rights;
use crate::reply::Status;
use crate::users::{Mailbox, Owner, Users};

use cache::ExpansionCache;
use routes::{RouteTarget, Routes};
use virtual_table::VirtualTable;

mod cache;
mod cycles;
mod expand;
mod routes;
mod virtual_table;
mod warnings;

/// All that decides where mail goes: one for all threads.
#[derive(Debug)]
pub struct Router {
    domains: Arc<HashSet<Box<str>>>,
    /// The local domain of names without one.
    first_domain: Box<str>,
    relay_domains: HashSet<Box<str>>,
    subaddress: Option<char>,
    /// The postmaster of the first local domain.
    own_postmaster: Address,
    /// Who gets the postmaster's mail; always one.
    postmaster: [Member; 1],
    /// Where the postmaster's mail is kept if nobody gets it.
    last_resort: PathBuf,
    smarthosts: Vec<HostPort>,
    /// Whether the routes table alone leads out.
    local_only: bool,
    aliases: Watched<Aliases>,
    virtual_table: Watched<VirtualTable>,
    users: Users,
    routes: Watched<Routes>,
    cache: ExpansionCache,
}

/// Whose an address is, going by its domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In a local domain.
    Local,
    /// In a domain for which anyone may send mail here (`relay.domains`).
    Relay,
    /// Anywhere else.
    Elsewhere,
}

/// What an address stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expansion {
    /// The final recipients, at least one, none twice. Where an alias has several
    /// members, a local one that does not exist is among them, so that its
    /// delivery fails and the sender is told.
    Finals(Vec<Recipient>),
    /// Nobody here: 550 5.1.1.
    Unknown,
    /// The routes table refuses all of it, with this status and text.
    Refused(Status, String),
    /// It cannot be said now, and why: 451.
    Temporary(String),
}

/// What an alias stands for that is expanded at the delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    /// The name of the alias, whatever detail the address has.
    pub name: Box<str>,
    /// Its members, lists not yet read.
    pub members: Vec<Member>,
    /// The sender of what it passes on, if it has an owner.
    pub owner: Option<Address>,
}

/// Where one final recipient goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// Into this mailbox.
    Mailbox(Mailbox),
    /// To this command, with somebody's rights.
    Command(Box<str>, Owner),
    /// To whom the alias of this name stands for, which is to be found out.
    List,
    /// To other hosts.
    Remote(HostTarget),
    /// Nobody here (any more).
    Unknown,
    /// The routes table refuses it, with this status (class 5) and text.
    Refused(Status, String),
    /// Not now: a status (class 4), and why.
    Temporary(Status, String),
}

/// What the status of a route is that cannot be told.
const TEMPORARY: Status = Status(4, 3, 0);

impl Router {
    /// Who is told of what has no sender to tell.
    pub fn postmaster(&self) -> &Address {
        &self.own_postmaster
    }

    /// Reads all tables. Logs a warning if nobody gets root's mail, or the postmaster's, and
    /// if the aliases have no effect.
    ///
    /// # Errors
    /// All that is wrong in any of them.
    pub fn open(config: &Config, rights: &Rights) -> Result<Self, Vec<ConfigError>> {
        match Self::begin(config, rights) {
            (Some(router), errors) if errors.is_empty() => Ok(router),
            (_, errors) => Err(errors),
        }
    }

    /// Reads all tables as far as they can be read, and all that is wrong in them; the mail of
    /// whom that is about waits. `None` where an error is the configuration's own.
    pub fn begin(config: &Config, rights: &Rights) -> (Option<Self>, Vec<ConfigError>) {
        let local = &config.local;
        let domains: Arc<HashSet<Box<str>>> = Arc::new(local.domains.iter().map(|d| d.as_str().into()).collect());
        let is_local = || {
            let domains = Arc::clone(&domains);
            move |domain: &str| domains.contains(domain)
        };
        let (for_virtual, for_routes) = (is_local(), is_local());
        let (aliases, mut errors) = Watched::begin(&local.aliases, Aliases::read, Aliases::lost);
        let read_virtual = move |file: &Path, text: &str| VirtualTable::read(file, text, &for_virtual);
        let (virtual_table, more) = Watched::begin(&local.virtual_table, read_virtual, VirtualTable::lost);
        errors.extend(more);
        let (users, more) = Users::begin(local, rights);
        errors.extend(more);
        let read_routes = move |file: &Path, text: &str| Routes::read(file, text, &for_routes);
        let (routes, more) = Watched::begin(&config.remote.routes, read_routes, Routes::lost);
        errors.extend(more);
        let postmaster = keep(&mut errors, read_postmaster(&local.postmaster));
        let first_domain: Box<str> = config.own_domain().into();
        let own_postmaster = keep(&mut errors, own_postmaster(&first_domain));
        let (Some(postmaster), Some(own_postmaster)) = (postmaster, own_postmaster) else { return (None, errors) };
        let router = Self {
            domains,
            first_domain,
            relay_domains: config.relay.domains.iter().map(|d| d.as_str().into()).collect(),
            subaddress: local.subaddress,
            own_postmaster,
            postmaster: [postmaster],
            last_resort: config.spool.join(POSTMASTER),
            smarthosts: config.remote.smarthosts.clone(),
            local_only: config.remote.local_only,
            aliases,
            virtual_table,
            users,
            routes,
            cache: ExpansionCache::default(),
        };
        if errors.is_empty() {
            router.warn_of_aliases();
            router.warn_of_last_resort();
        }
        (Some(router), errors)
    }

    /// Where mailboxes of the server's own are.
    pub fn mailbox_roots(&self) -> Vec<PathBuf> {
        self.users.roots()
    }

    /// The address with a domain: the first local one, if it had none.
    #[must_use]
    pub fn qualify(&self, address: &Address) -> Address {
        self.qualified(address).into_owned()
    }

    /// Whose an address at `domain` is. A name without domain is local; a literal
    /// is, if the configuration lists it.
    pub fn place(&self, domain: &str) -> Place {
        if domain.is_empty() || self.is_local(domain) {
            Place::Local
        } else if self.relay_domains.contains(domain) {
            Place::Relay
        } else {
            Place::Elsewhere
        }
    }

    /// The final recipients that an address stands for: one answer for RCPT, VRFY
    /// and reports. The virtual table comes first, then aliases, then users; then
    /// all again without the detail; then the whole domain's entry; the postmaster
    /// always exists (RFC 5321 4.5.1).
    pub fn expand(&self, address: &Address) -> Expansion {
        let address = self.qualified(address);
        self.cache.of(self, &address, || expand::expand(self, &address))
    }

    /// The final recipients that the members of a list or of a `.forward` stand for, by
    /// the rules of the address whose it is. `user` is the one whose `.forward` it is:
    /// what it names besides addresses is done with his rights.
    pub fn expand_members(&self, own: &Address, members: &[Member], user: Option<&str>) -> Expansion {
        expand::expand_members(self, &self.qualified(own), members, user)
    }

    /// What the alias of a final recipient stands for; `None` where there is none any more.
    ///
    /// # Errors
    /// What is wrong in the aliases, where that cannot be told.
    pub fn list(&self, address: &Address) -> Result<Option<List>, String> {
        let (address, aliases) = (self.qualified(address), self.aliases.current());
        let name = lower(address.local());
        for name in [Some(&*name), self.without_detail(&name)].into_iter().flatten() {
            if let Some(members) = aliases.find(name).map_err(ToString::to_string)? {
                let owner = aliases.owner(name).map(|owner| address.with_local(owner));
                return Ok(Some(List { name: name.into(), members: members.to_vec(), owner }));
            }
        }
        Ok(None)
    }

    /// The name of that alias.
    pub fn list_name(&self, address: &Address) -> Option<Box<str>> {
        self.alias_of(&self.aliases.current(), address)
    }

    /// The alias of an address, with or without the detail.
    fn alias_of(&self, aliases: &Aliases, address: &Address) -> Option<Box<str>> {
        let name = lower(address.local());
        let names = [Some(&*name), self.without_detail(&name)].into_iter().flatten();
        names.map(Box::<str>::from).find(|name| aliases.find(name).is_ok_and(|found| found.is_some()))
    }

    /// The user's name in a local address, for what is counted by user.
    pub fn base<'a>(&self, address: &'a Address) -> &'a str {
        self.without_detail(address.local()).unwrap_or(address.local())
    }

    /// Where one final recipient goes now, by what is to be done for him. Never expands.
    pub fn route_of(&self, recipient: &Recipient) -> Route {
        let owned = |user: Option<&str>, route: &dyn Fn(Owner) -> Route| match user.map(|name| self.users.account(name))
        {
            None => route(Owner::Server),
            // As for a mailbox.
            Some(Ok(Some(account))) if account.uid == 0 => {
                Route::Temporary(TEMPORARY, "it would need root's rights".to_owned())
            }
            Some(Ok(Some(account))) => route(Owner::User(account)),
            Some(Ok(None)) => Route::Unknown,
            Some(Err(why)) => Route::Temporary(TEMPORARY, why),
        };
        match &recipient.action {
            Action::Deliver | Action::Direct => self.route(&recipient.address),
            Action::Expand => Route::List,
            Action::Run { command, user } => owned(user.as_deref(), &|owner| Route::Command(command.clone(), owner)),
            Action::Append { file, user } => owned(user.as_deref(), &|owner| {
                Route::Mailbox(Mailbox { path: PathBuf::from(&**file), is_mbox: !file.ends_with('/'), owner })
            }),
        }
    }

    /// What stands after the user's name in a local address, and the character between.
    pub fn extension(&self, address: &Address) -> Option<(char, Box<str>)> {
        let (name, domain, mark) = (lower(address.local()), address.domain(), self.subaddress?);
        let (base, extension) = name.split_once(mark)?;
        let is_whole = self.users.mailbox(&name, domain).is_ok_and(|mailbox| mailbox.is_some());
        (!is_whole && !base.is_empty() && !extension.is_empty()).then(|| (mark, extension.into()))
    }

    /// Where the message of one address goes now. Never expands.
    pub fn route(&self, address: &Address) -> Route {
        let address = self.qualified(address);
        if !self.is_local(address.domain()) {
            return self.elsewhere(&address);
        }
        let name = lower(address.local());
        match self.mailbox(&name, address.domain()) {
            // Nothing is delivered with root's rights.
            Ok(Some(Mailbox { owner: Owner::User(account), .. })) if account.uid == 0 => self.last_resort(),
            Ok(Some(mailbox)) => Route::Mailbox(mailbox),
            Ok(None) if name == POSTMASTER => self.last_resort(),
            Ok(None) => Route::Unknown,
            Err(why) => Route::Temporary(TEMPORARY, why),
        }
    }

    fn last_resort(&self) -> Route {
        Route::Mailbox(Mailbox { path: self.last_resort.clone(), is_mbox: false, owner: Owner::Server })
    }

    /// Whether the configuration sends mail to a host by this name or address.
    pub fn names_host(&self, host: &str) -> bool {
        let is_it = |named: &HostPort| match named.host.parse::<IpAddr>() {
            Ok(address) => address.to_canonical().to_string() == host,
            Err(_) => named.host == host,
        };
        self.smarthosts.iter().any(is_it) || self.routes.current().hosts().any(is_it)
    }

    fn elsewhere(&self, address: &Address) -> Route {
        match self.routes.current().find(address.domain()) {
            Some(RouteTarget::Host(host)) => Route::Remote(HostTarget::Hosts(vec![host.clone()])),
            Some(RouteTarget::Mx { domain: Some(domain), port }) => {
                Route::Remote(HostTarget::Mx { domain: domain.clone(), port: *port })
            }
            Some(RouteTarget::Mx { domain: None, port }) => direct(address, *port),
            Some(RouteTarget::Error(status, why)) if status.0 == 5 => Route::Refused(*status, why.to_string()),
            Some(RouteTarget::Error(status, why)) => Route::Temporary(*status, why.to_string()),
            None if self.local_only => Route::Refused(LOCAL_ONLY, NO_WAY_OUT.into()),
            None if self.smarthosts.is_empty() => direct(address, SMTP_PORT),
            None => Route::Remote(HostTarget::Hosts(self.smarthosts.clone())),
        }
    }

    /// The mailbox of a user, with or without a detail in the name.
    fn mailbox(&self, name: &str, domain: &str) -> Result<Option<Mailbox>, String> {
        match (self.users.mailbox(name, domain)?, self.without_detail(name)) {
            (None, Some(base)) => self.users.mailbox(base, domain),
            (mailbox, _) => Ok(mailbox),
        }
    }

    fn without_detail<'a>(&self, name: &'a str) -> Option<&'a str> {
        let (base, _) = name.split_once(self.subaddress?)?;
        (!base.is_empty()).then_some(base)
    }

    fn qualified<'a>(&self, address: &'a Address) -> Cow<'a, Address> {
        match address.domain() {
            "" => Cow::Owned(address.at(&self.first_domain)),
            // Where nothing is local that is a way to say no domain.
            "localhost" if self.domains.is_empty() => Cow::Owned(address.at(&self.first_domain)),
            _ => Cow::Borrowed(address),
        }
    }

    fn is_local(&self, domain: &str) -> bool {
        self.domains.contains(domain)
    }
}

impl Route {
    /// The destination of a recipient with this route.
    pub fn destination(&self) -> Destination {
        match self {
            // Commands take their time: those of one user wait for each other only.
            Self::Command(_, Owner::Server) => Destination::Command(None),
            Self::Command(_, Owner::User(account)) => Destination::Command(Some(account.name.as_str().into())),
            // A user who keeps agents busy delays only that user's own mail.
            Self::Mailbox(Mailbox { owner: Owner::User(account), .. }) => {
                Destination::User(account.name.as_str().into())
            }
            Self::Remote(target) => Destination::Remote(target.clone()),
            Self::Mailbox(_) | Self::List | Self::Unknown | Self::Refused(..) | Self::Temporary(..) => {
                Destination::Local
            }
        }
    }
}

const POSTMASTER: &str = "postmaster";
const ROOT: &str = "root";

/// Where nothing but the routes table leads out.
const NO_WAY_OUT: &str = "No mail leaves this host";
const LOCAL_ONLY: Status = Status(5, 4, 4);

/// Where an address goes that no table says anything of: as RFC 5321 5.1 has it.
fn direct(address: &Address, port: u16) -> Route {
    match address.literal() {
        Some(ip) if !dns::is_usable(ip) => Route::Refused(Status(5, 1, 2), "That is no host's address".into()),
        Some(ip) => {
            let host = HostPort { host: ip.to_string(), port, scheme: Scheme::Smtp };
            Route::Remote(HostTarget::Hosts(vec![host]))
        }
        None => Route::Remote(HostTarget::Mx { domain: address.domain().into(), port }),
    }
}

fn own_postmaster(domain: &str) -> Result<Address, Vec<ConfigError>> {
    Address::new(POSTMASTER, domain)
        .map_err(|why| vec![ConfigError::whole(Path::new("local.domains"), format!("{why}"))])
}

fn read_postmaster(text: &str) -> Result<Member, Vec<ConfigError>> {
    let error = |why| vec![ConfigError::whole(Path::new("local.postmaster"), format!("{why}"))];
    Address::parse(text).map(Member::Address).map_err(error)
}

fn keep<T>(errors: &mut Vec<ConfigError>, result: Result<T, Vec<ConfigError>>) -> Option<T> {
    result.map_err(|new| errors.extend(new)).ok()
}

fn lower(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(text.to_ascii_lowercase())
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests;

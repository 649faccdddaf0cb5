//! Groups the local domains by their users and tables.
//!
//! A realm is a group of local domains that share users and tables: those of `[local]`, or those of
//! one `[[domain]]`. A table or a users file that several realms name is read only once. A name
//! without a domain in the aliases or in the virtual table belongs to the first domain of the first
//! realm that names the file.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::virtual_table::VirtualTable;
use super::{Router, keep};
use crate::address::{Address, fold};
use crate::aliases::Aliases;
use crate::config::table::Watched;
use crate::config::{Config, ConfigError, Local, TableFile};
use crate::privsep::Rights;
use crate::users::{Inbox, Sources, Users};

/// A group of local domains that share users and tables.
#[derive(Debug)]
pub(super) struct Realm {
    /// The first of the domains.
    pub(super) domain: Box<str>,
    pub(super) subaddress: Option<char>,
    /// The recipient of mail for the postmaster.
    pub(super) postmaster: Address,
    /// The recipient of mail for unknown addresses.
    pub(super) catch_all: Option<Address>,
    pub(super) aliases: Arc<Table<Aliases>>,
    pub(super) virtual_table: Arc<Table<VirtualTable>>,
    pub(super) users: Users,
}

/// A table of one or several realms.
#[derive(Debug)]
pub(super) struct Table<T> {
    pub(super) rows: Watched<T>,
    /// The domain of names without a domain.
    pub(super) domain: Box<str>,
}

/// The tables of a realm as they were when an expansion began.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    pub(super) aliases: Arc<Aliases>,
    pub(super) virtual_table: Arc<VirtualTable>,
}

impl Snapshot {
    /// Whether these are the same tables, read at the same time.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.aliases, &other.aliases) && Arc::ptr_eq(&self.virtual_table, &other.virtual_table)
    }
}

/// A look-up of the place of mail for a user.
type LookUp = fn(&Users, &str, &str) -> Result<Option<Inbox>, String>;

/// The local domains, each with the number of its realm.
pub(super) type Domains = HashMap<Box<str>, usize>;

/// The tables that were opened, by path.
struct Opened<'a> {
    rights: &'a Rights,
    is_local: Arc<Domains>,
    aliases: HashMap<PathBuf, Arc<Table<Aliases>>>,
    virtual_tables: HashMap<PathBuf, Arc<Table<VirtualTable>>>,
    users: Sources,
    errors: Vec<ConfigError>,
}

/// Opens the tables of all local domains as far as possible. Returns the realms, that of `[local]`
/// first, the number of the realm of each domain, and all errors. The realms are `None` if the
/// configuration itself has an error.
pub(super) fn open(config: &Config, rights: &Rights) -> (Option<Vec<Realm>>, Arc<Domains>, Vec<ConfigError>) {
    let numbered = config.locals().enumerate();
    let domains = numbered.flat_map(|(number, local)| local.domains.iter().map(move |name| (&**name, number)));
    let domains: Arc<Domains> = Arc::new(domains.map(|(name, number)| (name.into(), number)).collect());
    let is_local = Arc::clone(&domains);
    let (aliases, virtual_tables, users, errors) = Default::default();
    let mut opened = Opened { rights, is_local, aliases, virtual_tables, users, errors };
    let realms: Option<Vec<_>> = config.locals().map(|local| opened.realm(local, config.own_domain())).collect();
    (realms, domains, opened.errors)
}

impl Opened<'_> {
    /// Returns `None` if the configuration itself has an error.
    fn realm(&mut self, local: &Local, own_domain: &str) -> Option<Realm> {
        let domain: Box<str> = local.domains.first().map_or(own_domain, String::as_str).into();
        let (aliases, virtual_table) = (self.aliases(&local.aliases, &domain), self.virtual_table(local, &domain));
        let users = Users::begin(local, self.rights, &mut self.users);
        self.errors.extend(users.1);
        let postmaster = keep(&mut self.errors, recipient("local.postmaster", &local.postmaster, &domain));
        let catch_all = local.catch_all.as_ref().map(|text| recipient("local.catch_all", text, &domain)).transpose();
        let catch_all = keep(&mut self.errors, catch_all);
        Some(Realm {
            subaddress: local.subaddress,
            postmaster: postmaster?,
            catch_all: catch_all?,
            aliases,
            virtual_table,
            users: users.0,
            domain,
        })
    }

    fn aliases(&mut self, file: &TableFile, domain: &str) -> Arc<Table<Aliases>> {
        let (rows, errors) = match self.aliases.get(&file.path) {
            Some(table) => return Arc::clone(table),
            None => Watched::open_tolerant(file, Aliases::read, Aliases::unreadable),
        };
        self.errors.extend(errors);
        let table = Arc::new(Table { rows, domain: domain.into() });
        self.aliases.insert(file.path.clone(), Arc::clone(&table));
        table
    }

    fn virtual_table(&mut self, local: &Local, domain: &str) -> Arc<Table<VirtualTable>> {
        let file = &local.virtual_table;
        if let Some(table) = self.virtual_tables.get(&file.path) {
            return Arc::clone(table);
        }
        let is_local = Arc::clone(&self.is_local);
        let read =
            move |file: &Path, text: &str| VirtualTable::read(file, text, |domain| is_local.contains_key(domain));
        let (rows, errors) = Watched::open_tolerant(file, read, VirtualTable::unreadable);
        self.errors.extend(errors);
        let table = Arc::new(Table { rows, domain: domain.into() });
        self.virtual_tables.insert(file.path.clone(), Arc::clone(&table));
        table
    }
}

/// Reads the recipient that a key names. A name without a domain belongs to `domain`.
fn recipient(key: &str, text: &str, domain: &str) -> Result<Address, Vec<ConfigError>> {
    match Address::parse(text) {
        Ok(address) if address.domain().is_empty() => Ok(address.at(domain)),
        Ok(address) => Ok(address),
        Err(why) => Err(vec![ConfigError::whole(Path::new(key), format!("{why}"))]),
    }
}

impl Realm {
    /// Returns the tables as they are now.
    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot { aliases: self.aliases.rows.current(), virtual_table: self.virtual_table.rows.current() }
    }

    /// Returns the place of mail for the user with this name or, if there is none, for the user
    /// with this name without the detail.
    pub(super) fn inbox(&self, name: &str, domain: &str) -> Result<Option<Inbox>, String> {
        self.inbox_by(Users::inbox, name, domain)
    }

    /// Returns the same, as far as it is known without waiting for an answer (see [`Users::inbox_now`]).
    pub(super) fn inbox_now(&self, name: &str, domain: &str) -> Result<Option<Inbox>, String> {
        self.inbox_by(Users::inbox_now, name, domain)
    }

    fn inbox_by(&self, look_up: LookUp, name: &str, domain: &str) -> Result<Option<Inbox>, String> {
        match (look_up(&self.users, name, domain)?, self.without_detail(name)) {
            (None, Some(base)) => look_up(&self.users, base, domain),
            (inbox, _) => Ok(inbox),
        }
    }

    /// Whether the whole name is that of a user. If every name is that of a user, this says nothing, and the
    /// answer is no. With `is_now`, nobody is asked.
    ///
    /// # Errors
    /// The reason why it is not known.
    pub(super) fn is_whole_name(&self, name: &str, domain: &str, is_now: bool) -> Result<bool, String> {
        if self.users.are_any() {
            return Ok(false);
        }
        match is_now {
            true => self.users.exists_now(name, domain)?.ok_or_else(|| "Dovecot has not been asked yet".to_owned()),
            false => Ok(self.users.inbox(name, domain)?.is_some()),
        }
    }

    /// Returns a name without its detail (the subaddress); `None` if it has none.
    pub(super) fn without_detail<'a>(&self, name: &'a str) -> Option<&'a str> {
        let (base, _) = name.split_once(self.subaddress?)?;
        (!base.is_empty()).then_some(base)
    }

    /// Returns a name, and the name without its detail if it has one.
    pub(super) fn names<'a>(&self, name: &'a str) -> impl Iterator<Item = &'a str> {
        [Some(name), self.without_detail(name)].into_iter().flatten()
    }

    /// Returns the name of the alias for an address, with or without the detail; `None` if there is
    /// no such alias.
    pub(super) fn alias_of(&self, aliases: &Aliases, address: &Address) -> Option<Box<str>> {
        let name = fold(address.local());
        self.names(&name).map(Box::<str>::from).find(|name| aliases.find(name).is_ok_and(|found| found.is_some()))
    }
}

/// The tables of the realms that an expansion asks. Each is taken once, when it is asked first.
pub(super) struct Snapshots<'r> {
    router: &'r Router,
    first: Next,
}

/// A list that grows while parts of it are borrowed. An expansion seldom asks more than one realm, and
/// there may be thousands.
type Next = OnceCell<Box<Asked>>;

/// A realm that was asked.
struct Asked {
    number: usize,
    tables: Snapshot,
    next: Next,
}

impl<'r> Snapshots<'r> {
    pub(super) fn new(router: &'r Router) -> Self {
        Self { router, first: Next::new() }
    }

    /// Returns the realm of a domain with its tables; `None` if the domain is not local.
    pub(super) fn of(&self, domain: &str) -> Option<(&'r Realm, &Snapshot)> {
        let number = self.router.realm_number(domain)?;
        let realm = self.router.realms.get(number)?;
        let mut place = &self.first;
        loop {
            let asked = place.get_or_init(|| Box::new(Asked { number, tables: realm.snapshot(), next: Next::new() }));
            if asked.number == number {
                return Some((realm, &asked.tables));
            }
            place = &asked.next;
        }
    }

    /// Returns the tables that were asked, with the number of the realm of each.
    pub(super) fn into_asked(self) -> Vec<(usize, Snapshot)> {
        let mut next = self.first.into_inner();
        let asked = std::iter::from_fn(|| {
            let Asked { number, tables, next: rest } = *next.take()?;
            next = rest.into_inner();
            Some((number, tables))
        });
        asked.collect()
    }
}

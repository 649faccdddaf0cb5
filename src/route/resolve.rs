//! Answers what a session asks about a recipient.

use std::net::IpAddr;

use super::{DomainClass, Expansion, Route, Router};
use crate::address::{Address, fold};
use crate::destination::HostTarget;
use crate::envelope::{Action, Recipient};
use crate::policy::rcpt::Lookup;
use crate::policy::relay;

impl Router {
    /// Whether the whole local part of an address is the name of a user. If that is not known, the answer
    /// is no.
    pub fn is_user(&self, address: &Address) -> bool {
        let name = fold(address.local());
        let realm = self.realm(address.domain());
        realm.is_some_and(|realm| {
            !realm.users.are_any() && matches!(realm.users.inbox(&name, address.domain()), Ok(Some(_)))
        })
    }

    /// Whether only another program knows the users of the address's domain.
    pub fn has_outside_users(&self, address: &Address) -> bool {
        self.realm(self.qualified(address).domain()).is_some_and(|realm| realm.users.are_outside())
    }

    /// Returns the final recipients of an address in any domain, for RCPT. An address elsewhere is its
    /// own final recipient, unless the routes table refuses it.
    pub fn resolve(&self, recipient: &Address) -> Expansion {
        self.resolve_elsewhere(recipient).unwrap_or_else(|| self.expand(recipient))
    }

    /// Returns the answer of [`Router::resolve`] for an address that is not local; `None` if it is
    /// local.
    pub(super) fn resolve_elsewhere(&self, recipient: &Address) -> Option<Expansion> {
        let class = self.class_of(recipient.domain());
        (class != DomainClass::Local).then(|| match (self.route(recipient), self.is_relayed(recipient, class)) {
            (Route::Refused(status, text), _) => Expansion::Refused(status, text),
            (_, Err(why)) => Expansion::Temporary(why),
            (_, Ok(false)) => Expansion::Unknown,
            (_, Ok(true)) => Expansion::Finals(vec![Recipient::new(recipient.clone())]),
        })
    }

    /// Whether the table of recipients in relay domains admits an address in a domain of this class.
    ///
    /// # Errors
    /// The error in the table, if it may affect the address.
    fn is_relayed(&self, recipient: &Address, class: DomainClass) -> Result<bool, String> {
        let Some(table) = self.relay_recipients.as_ref().filter(|_| class == DomainClass::Relay) else {
            return Ok(true);
        };
        let name = fold(recipient.local());
        // A relay domain has the separator of [local].
        let base = self.realms.first().and_then(|realm| realm.without_detail(&name));
        table.current().contains(recipient, base).map_err(ToString::to_string)
    }

    /// Whether the recipients in relay domains are known, from the table or from the next host.
    pub fn has_recipients_of_relay_domains(&self) -> bool {
        self.asks_about_relay || self.relay_recipients.is_some()
    }

    /// Returns the only final recipient of an address, and the hosts that must be asked whether it
    /// exists; `None` if nobody is asked. Members of a list of several recipients are the choice of the
    /// postmaster, and are not asked about.
    pub fn to_be_asked<'a>(&self, finals: &'a [Recipient]) -> Option<(&'a Address, HostTarget)> {
        let [recipient] = finals else { return None };
        if !matches!(recipient.action, Action::Deliver | Action::Direct) {
            return None;
        }
        let is_asked = match self.class_of(recipient.address.domain()) {
            DomainClass::Relay => self.asks_about_relay,
            DomainClass::Local => self.realm(recipient.address.domain()).is_some_and(|realm| realm.users.are_any()),
            DomainClass::Elsewhere => false,
        };
        match is_asked.then(|| self.route(&recipient.address)) {
            Some(Route::Remote(target)) => Some((&recipient.address, target)),
            _ => None,
        }
    }

    /// Returns an address that a client has given, completed with a domain. If the domain is an IP
    /// address of this host, as in `jon@[192.0.2.1]`, it is replaced by the local domain (RFC 1123
    /// 5.2.17). `own` returns the addresses of this host.
    #[must_use]
    pub fn qualify_here(&self, address: &Address, own: impl FnOnce() -> Vec<IpAddr>) -> Address {
        let is_own = |ip: IpAddr| own().iter().any(|own| own.to_canonical() == ip.to_canonical());
        if self.class_of(address.domain()) == DomainClass::Elsewhere && address.literal().is_some_and(is_own) {
            let local = self.qualify(&address.at(""));
            if self.class_of(local.domain()) == DomainClass::Local {
                return local;
            }
        }
        self.qualify(address)
    }
}

impl Expansion {
    /// Returns the facts for the rules of RCPT. `is_replaced` says whether one more final recipient
    /// is needed, for the report that several have replaced the recipient.
    pub fn lookup(&self, is_replaced: impl FnOnce(&[Recipient]) -> bool) -> Lookup<'_> {
        match self {
            Self::Finals(finals) => Lookup::Found(finals.len() + usize::from(is_replaced(finals))),
            Self::Unknown => Lookup::Unknown,
            Self::Refused(status, text) => Lookup::Refused(*status, text),
            Self::Temporary(_) => Lookup::Failed,
        }
    }
}

impl From<DomainClass> for relay::Domain {
    fn from(class: DomainClass) -> Self {
        match class {
            DomainClass::Local => Self::Local,
            DomainClass::Relay => Self::Relay,
            DomainClass::Elsewhere => Self::Other,
        }
    }
}

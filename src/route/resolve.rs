//! Answers what a session asks about a recipient.

use std::net::IpAddr;

use super::{DomainClass, Expansion, Route, Router};
use crate::address::Address;
use crate::envelope::Recipient;
use crate::policy::rcpt::Lookup;
use crate::policy::relay;

impl Router {
    /// Returns the final recipients of an address in any domain, for RCPT. An address elsewhere is its
    /// own final recipient, unless the routes table refuses it.
    pub fn resolve(&self, recipient: &Address) -> Expansion {
        self.resolve_elsewhere(recipient).unwrap_or_else(|| self.expand(recipient))
    }

    /// Returns the answer of [`Router::resolve`] for an address that is not local; `None` if it is
    /// local.
    pub(super) fn resolve_elsewhere(&self, recipient: &Address) -> Option<Expansion> {
        (self.class_of(recipient.domain()) != DomainClass::Local).then(|| match self.route(recipient) {
            Route::Refused(status, text) => Expansion::Refused(status, text),
            _ => Expansion::Finals(vec![Recipient::new(recipient.clone())]),
        })
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

//! Finds where mail goes that is not delivered into a mailbox: by the routes table, by the table of
//! senders, to the smart hosts, or to the mail exchangers in the DNS, in this order.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::routes::{Asked, FoundRoute, RouteTarget, Routes};
use super::{DomainClass, LOCAL_ONLY, NO_WAY_OUT, Route, Router, TEMPORARY};
use crate::address::{Address, fold};
use crate::config::{HostPort, Scheme};
use crate::destination::{HostTarget, SMTP_PORT, SenderKey};
use crate::dns;
use crate::envelope::{Action, Envelope, Origin, Recipient};
use crate::policy::{Line, Source};
use crate::reply::Status;
use crate::spool::Entry;

/// What the route of a recipient depends on beside the recipient: the message.
#[derive(Debug, Clone, Copy, Default)]
pub struct RoutedMail<'a> {
    /// The sender.
    pub sender: Sender<'a>,
    /// The source of the message.
    pub origin: Origin,
    /// Whether the message was held when it was received, or by a route. As it is tried now, an
    /// administrator has released it, so that no route holds it again.
    pub is_released: bool,
    /// Whether a list or a `.forward` passes the message on.
    pub is_passed_on: bool,
    /// Whether it is known that a client that may relay sends the message, so that its sender counts.
    pub is_submitted: bool,
    /// Whether only the destination is wanted, now: a user of whom Dovecot would have to be asked is taken
    /// for existing. If a route depends on such a user, the destination is this host, where a worker asks.
    pub is_plan: bool,
}

/// The reverse-path of a message.
#[derive(Debug, Clone, Copy, Default)]
pub enum Sender<'a> {
    /// The sender is not known.
    #[default]
    Unknown,
    /// The null path.
    Null,
    /// An address.
    Address(&'a Address),
}

/// Returns the account with which messages from a sender go to hosts; `None` if it does not depend on
/// the sender.
type AccountOf = dyn Fn(&[HostPort], &Address) -> Option<SenderKey> + Send + Sync;

/// Knows the accounts with which messages go to hosts, and whether there are accounts of senders at all.
pub(super) struct Accounts(Box<AccountOf>, Box<dyn Fn() -> bool + Send + Sync>);

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accounts").finish_non_exhaustive()
    }
}

impl<'a> RoutedMail<'a> {
    /// The message of an entry.
    pub fn of(entry: &'a Entry) -> Self {
        let is_released = entry.hold_reason().is_some();
        let (sender, is_passed_on) = (Sender::of(entry.sender()), !entry.steps().is_empty());
        Self { sender, origin: entry.origin(), is_released, is_passed_on, ..Self::default() }
    }

    /// The message of an entry for which the queue makes a plan. Its thread must wait for nobody.
    pub fn planned(entry: &'a Entry) -> Self {
        Self { is_plan: true, ..Self::of(entry) }
    }

    /// A message that a client sends.
    pub fn from_sender(sender: Option<&'a Address>) -> Self {
        Self { sender: Sender::of(sender), ..Self::default() }
    }
}

impl<'a> Sender<'a> {
    fn of(sender: Option<&'a Address>) -> Self {
        sender.map_or(Self::Null, Self::Address)
    }
}

/// Whether the configuration names a host with this name or address.
fn is_named(named: &HostPort, host: &str) -> bool {
    match named.host.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().to_string() == host,
        Err(_) => named.host == host,
    }
}

impl Router {
    /// Whether the configuration sends mail to a host with this name or address.
    pub fn names_host(&self, host: &str) -> bool {
        self.names_fallback(host) || self.names_destination(host)
    }

    /// Whether the configuration names this host only as a fallback host.
    pub fn names_only_fallback(&self, host: &str) -> bool {
        self.names_fallback(host) && !self.names_destination(host)
    }

    fn names_fallback(&self, host: &str) -> bool {
        self.fallback.iter().any(|named| is_named(named, host))
    }

    fn names_destination(&self, host: &str) -> bool {
        self.smarthosts.iter().any(|named| is_named(named, host))
            || self.routes.current().hosts().any(|named| is_named(named, host))
            || self.senders.current().hosts().any(|named| is_named(named, host))
    }

    /// Lets the credentials of this server depend on the sender. `account_of` returns the account with
    /// which messages from a sender go to hosts; `None` if it is the same for all senders.
    /// `are_any` says whether there is any account of a sender.
    pub fn set_accounts(
        &self,
        account_of: impl Fn(&[HostPort], &Address) -> Option<SenderKey> + Send + Sync + 'static,
        are_any: impl Fn() -> bool + Send + Sync + 'static,
    ) {
        let _ = self.accounts.set(Accounts(Box::new(account_of), Box::new(are_any)));
    }

    /// Whether the hosts of messages, or the accounts there, depend on the sender.
    pub fn depends_on_senders(&self) -> bool {
        !self.senders.current().is_empty() || self.accounts.get().is_some_and(|Accounts(_, are_any)| are_any())
    }

    /// Whether the sender of a message may decide by which hosts and with which account it leaves for this
    /// recipient. Strangers choose their sender at will. So it counts in messages that were submitted or
    /// made here, and for recipients to whom strangers can send nothing. A copy has an original address, so
    /// that the sender of a stranger's message does not count for it.
    pub fn sender_counts(&self, mail: &RoutedMail<'_>, recipient: &Recipient) -> bool {
        let is_elsewhere = || self.class_of(recipient.address.domain()) == DomainClass::Elsewhere;
        !matches!(mail.sender, Sender::Address(_))
            || mail.origin != Origin::Client
            || mail.is_submitted
            || (!mail.is_passed_on && recipient.original.is_none() && is_elsewhere())
    }

    /// Returns the line of the routes table that applies to an address; `None` if no line applies. The local
    /// part is in lower case. In a local domain, a line for the name without its detail applies only if the
    /// whole name is not that of a user, so that a user is not taken for the detail of another one.
    ///
    /// # Errors
    /// Why it is not known whether the whole name is that of a user. Users are looked up only if the line
    /// depends on them.
    pub(super) fn line_for<'t>(
        &self,
        routes: &'t Routes,
        (name, domain): (&str, &str),
        mail: &RoutedMail<'_>,
    ) -> Result<Option<FoundRoute<'t>>, String> {
        let realm = self.realm(domain);
        let find =
            |name: &str| routes.find(Asked { name, domain, is_local: realm.is_some(), is_released: mail.is_released });
        let (None, Some(realm)) = (find(name), realm) else { return Ok(find(name)) };
        match realm.without_detail(name).and_then(find) {
            Some(_) if realm.is_whole_name(name, domain, mail.is_plan)? => Ok(None),
            found => Ok(found),
        }
    }

    /// Returns the route of an address by the routes table; `None` if no line applies. The address must have a domain, which may be local.
    pub(super) fn routed_address(&self, address: &Address, mail: &RoutedMail<'_>) -> Option<Route> {
        let routes = self.routes.current();
        match self.line_for(&routes, (&fold(address.local()), address.domain()), mail) {
            Ok(found) => Some(self.of_target(found?, address, mail)),
            Err(why) => Some(Route::Temporary(TEMPORARY, why)),
        }
    }

    /// Whether a line of the routes table names this address in a local domain, and not only the address
    /// without its detail. The local part is in lower case.
    pub(super) fn is_routed(&self, name: &str, domain: &str) -> bool {
        self.routes.current().find(Asked { name, domain, is_local: true, is_released: false }).is_some()
    }

    /// Makes sure that the routes table was read, before a local address counts as one that is not known.
    ///
    /// # Errors
    /// Why the file cannot be read: it may have a line with the address.
    pub(super) fn expect_routes(&self) -> Result<(), String> {
        self.routes.current().why_unreadable().map_or(Ok(()), |why| Err(why.to_owned()))
    }

    /// Returns the route of an address in a domain that is not local.
    pub(super) fn elsewhere(&self, address: &Address, mail: &RoutedMail<'_>) -> Route {
        if let Some(route) = self.routed_address(address, mail) {
            return route;
        }
        if self.local_only {
            return Route::Refused(LOCAL_ONLY, NO_WAY_OUT.into());
        }
        let senders = self.senders.current();
        if let Some(found) = senders.find(mail.sender) {
            return self.of_target(found, address, mail);
        }
        match self.smarthosts.is_empty() {
            true => direct(address, SMTP_PORT),
            false => Route::Remote(self.hosts(&self.smarthosts, mail)),
        }
    }

    /// The destination of hosts for a message.
    fn hosts(&self, hosts: &[HostPort], mail: &RoutedMail<'_>) -> HostTarget {
        let account = match (mail.sender, self.accounts.get()) {
            (Sender::Address(sender), Some(Accounts(account_of, _))) => account_of(hosts, sender),
            _ => None,
        };
        HostTarget::Hosts { hosts: hosts.into(), account }
    }

    /// Returns why a new message is held: the routes table says so about each of its recipients. `None`
    /// if it is not held as a whole. If it says so about some recipients only, these are held at the
    /// first attempt.
    pub fn hold_reason(&self, envelope: &Envelope) -> Option<String> {
        if !self.routes.current().holds_mail() {
            return None;
        }
        let mail = RoutedMail { origin: envelope.origin, ..RoutedMail::from_sender(envelope.sender.as_ref()) };
        let recipients = envelope.recipients.iter().filter(|to| to.action != Action::Replaced);
        let mut reasons = recipients.map(|to| self.held_by_route(to, &mail));
        let first = reasons.next()??;
        reasons.all(|reason| reason.is_some()).then_some(first)
    }

    /// Returns why the routes table holds the mail for a recipient; `None` if it does not, or if that is not
    /// known.
    fn held_by_route(&self, recipient: &Recipient, mail: &RoutedMail<'_>) -> Option<String> {
        if !matches!(recipient.action, Action::Deliver | Action::Direct) {
            return None;
        }
        match self.routed_address(&self.qualified(&recipient.address), mail) {
            Some(Route::Hold(why)) => Some(why),
            _ => None,
        }
    }

    /// Returns the message as the next host gets it from this host: if the message leaves again for
    /// this recipient, its sender is the rewritten one. A sender that does not count becomes unknown.
    pub(super) fn with_sender_that_counts<T>(
        &self,
        mail: &RoutedMail<'_>,
        recipient: &Recipient,
        then: impl FnOnce(&RoutedMail<'_>) -> T,
    ) -> T {
        match mail.sender {
            Sender::Address(sender) if self.is_forwarded(mail, recipient) => {
                let rewritten = self.rewritten_sender(sender);
                let sender = rewritten.as_ref().map_or(Sender::Unknown, Sender::Address);
                then(&RoutedMail { sender, ..*mail })
            }
            _ if !self.sender_counts(mail, recipient) => then(&RoutedMail { sender: Sender::Unknown, ..*mail }),
            _ => then(mail),
        }
    }

    /// Returns the route of an address to which a line with this target applies.
    fn of_target(&self, found: FoundRoute<'_>, address: &Address, mail: &RoutedMail<'_>) -> Route {
        let line = || Line { file: Arc::from(self.routes.path()), number: found.line };
        match found.target {
            RouteTarget::Store(store) => Route::Remote(HostTarget::Store(store.clone())),
            RouteTarget::Hosts(hosts) => Route::Remote(self.hosts(hosts, mail)),
            RouteTarget::Mx { domain: Some(domain), port } => {
                Route::Remote(HostTarget::Mx { domain: domain.clone(), port: *port })
            }
            RouteTarget::Mx { domain: None, port } => direct(address, *port),
            RouteTarget::Error(status, why) if status.0 == 5 => Route::Refused(*status, why.to_string()),
            RouteTarget::Error(status, why) => Route::Temporary(*status, why.to_string()),
            RouteTarget::Discard => Route::Discard(format!("the route on {} discards it", line())),
            RouteTarget::Hold(text) if text.is_empty() => Route::Hold(format!("the route on {} holds it", line())),
            RouteTarget::Hold(text) => Route::Hold(format!("{text} (the route on {} holds it)", line())),
        }
    }

    /// Whether the routes table or a smart host decides where mail for an address elsewhere goes,
    /// whoever sends it.
    pub fn has_route(&self, address: &Address) -> bool {
        self.route_source(&Recipient::new(address.clone()), &RoutedMail::default()).is_some()
    }

    /// Returns the line of a table or the key that decides where a message for an address goes that is not
    /// delivered into a mailbox. `None` if the DNS decides, or if the message is delivered here.
    pub fn route_source(&self, recipient: &Recipient, mail: &RoutedMail<'_>) -> Option<Source> {
        let address = self.qualified(&recipient.address);
        let line = |file, number| Some(Source::Line(Line { file: Arc::from(file), number }));
        let routes = self.routes.current();
        if let Ok(Some(found)) = self.line_for(&routes, (&fold(address.local()), address.domain()), mail) {
            return line(self.routes.path(), found.line);
        }
        if self.class_of(address.domain()) == DomainClass::Local {
            return None;
        }
        if self.local_only {
            return Some(Source::Key("remote.local_only"));
        }
        let sender_line = self.with_sender_that_counts(mail, recipient, |mail| {
            self.senders.current().find(mail.sender).map(|found| found.line)
        });
        match sender_line {
            Some(number) => line(self.senders.path(), number),
            None if self.smarthosts.is_empty() => None,
            None => Some(Source::Key("remote.smarthosts")),
        }
    }
}

/// Returns the route of an address in the absence of any table: to its address literal, or to the
/// mail exchangers of its domain (RFC 5321 5.1).
fn direct(address: &Address, port: u16) -> Route {
    match address.literal() {
        Some(ip) if !dns::is_usable(ip) => Route::Refused(Status(5, 1, 2), "That is not the address of a host".into()),
        Some(ip) => {
            let host = HostPort { host: ip.to_string(), port, scheme: Scheme::Smtp };
            Route::Remote(HostTarget::hosts(vec![host]))
        }
        None => Route::Remote(HostTarget::Mx { domain: address.domain().into(), port }),
    }
}

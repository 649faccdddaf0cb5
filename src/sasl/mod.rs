//! Authenticates clients to this server, and this server to other hosts, by SASL (RFC 4422).
//!
//! An exchange is a value that takes a message from the other side and returns the answer. The
//! caller, which owns the connection, handles base64, lines and time limits. Only `dovecot` has a
//! socket of its own, with its own time limits.
//!
//! No password, token or key appears in an error, in a log line or in `Debug` output. Nothing here
//! depends on SMTP. What is sent after the exchange is protected by TLS, not by the mechanism.
//!
//! - `client`: authentication to other hosts
//! - `dovecot`: authentication of clients by Dovecot
//! - `mixed`: exchanges where the domain of the account decides who verifies it
//! - `prep`: names and passwords in canonical form
//! - `scram`: the arithmetic of SCRAM-SHA-256
//! - `secret`: the stored form of a password
//! - `server`: authentication of clients with accounts from a users file
//! - `throttle`: limits on failed attempts

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

pub mod client;
pub mod dovecot;
mod mixed;
pub mod prep;
pub mod scram;
pub mod secret;
pub mod server;
pub mod throttle;

use dovecot::{Dovecot, Peer};
use mixed::Mixed;
use server::{Accounts, Server, Step};
use throttle::Throttle;

/// A SASL mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mechanism {
    /// SCRAM-SHA-256, bound to the TLS connection that carries it (RFC 7677, RFC 9266).
    ScramSha256Plus,
    /// SCRAM-SHA-256 (RFC 5802, RFC 7677).
    ScramSha256,
    /// Name and password in one message (RFC 4616).
    Plain,
    /// Name, then password, for older clients.
    Login,
    /// User name and bearer token, for some large providers. Supported only as a client.
    Xoauth2,
}

impl Mechanism {
    /// All mechanisms, strongest first.
    pub const ALL: [Self; 5] = [Self::ScramSha256Plus, Self::ScramSha256, Self::Plain, Self::Login, Self::Xoauth2];

    /// The name of the mechanism in the AUTH command.
    pub fn name(self) -> &'static str {
        match self {
            Self::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
            Self::Xoauth2 => "XOAUTH2",
        }
    }

    /// The mechanism with this name, in upper or lower case.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mechanism| mechanism.name().eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The authentication of clients: the sources of accounts, and the counts of failed attempts.
pub struct Logins {
    /// The accounts of all users files.
    pub accounts: Box<dyn Accounts>,
    /// The sources of the accounts of those domains that have one of their own.
    by_domain: HashMap<String, Source>,
    /// The source of all other accounts.
    rest: Source,
    kind: Kind,
    /// The counts of failed attempts. A reload keeps them, but replaces the sources.
    pub throttle: Arc<Throttle>,
    /// The domain that is added to a user name without one.
    pub domain: String,
}

/// A source of accounts.
#[derive(Debug, Clone)]
pub enum Source {
    /// No accounts: nobody can log in.
    Nobody,
    /// The users files.
    Own,
    /// The accounts of Dovecot.
    Dovecot(Arc<Dovecot>),
}

/// The sources of all accounts.
enum Kind {
    /// No accounts.
    Nobody,
    /// Users files only.
    Own,
    /// One Dovecot for all accounts.
    Dovecot(Arc<Dovecot>),
    /// Which source an account has depends on its domain.
    Mixed,
}

impl Kind {
    fn of(rest: &Source, by_domain: &HashMap<String, Source>) -> Self {
        let of_domains = || by_domain.values();
        if of_domains().chain([rest]).all(|source| matches!(source, Source::Nobody)) {
            return Self::Nobody;
        }
        match rest {
            Source::Dovecot(dovecot) if by_domain.is_empty() => Self::Dovecot(Arc::clone(dovecot)),
            Source::Dovecot(_) => Self::Mixed,
            _ if of_domains().any(|source| matches!(source, Source::Dovecot(_))) => Self::Mixed,
            _ => Self::Own,
        }
    }
}

impl Logins {
    /// Makes it from the accounts of all users files, the source of the accounts of each domain that has
    /// one of its own, and that of all others. `domain` is added to a user name without one.
    pub fn new(
        accounts: Box<dyn Accounts>,
        (by_domain, rest): (HashMap<String, Source>, Source),
        throttle: Arc<Throttle>,
        domain: String,
    ) -> Self {
        let kind = Kind::of(&rest, &by_domain);
        Self { accounts, by_domain, rest, kind, throttle, domain }
    }

    /// Returns the source of the account with a name. A name that is no address is in no source.
    fn source(&self, name: &str) -> &Source {
        match self.accounts.domain(name) {
            Some(domain) => self.by_domain.get(&domain).unwrap_or(&self.rest),
            None => &Source::Nobody,
        }
    }

    /// The mechanisms to offer, strongest first. `is_bindable` tells whether the connection has a
    /// channel binding. SCRAM is offered only if all accounts can use it, because clients seldom
    /// try another mechanism after one has failed.
    pub fn mechanisms(&self, is_bindable: bool) -> Vec<Mechanism> {
        match &self.kind {
            Kind::Nobody => Vec::new(),
            Kind::Dovecot(dovecot) => dovecot.mechanisms(),
            Kind::Mixed => vec![Mechanism::Plain, Mechanism::Login],
            Kind::Own => {
                let abilities = self.accounts.abilities();
                let can = |mechanism: &Mechanism| match mechanism {
                    Mechanism::ScramSha256Plus => abilities.scram && is_bindable,
                    Mechanism::ScramSha256 => abilities.scram,
                    Mechanism::Plain | Mechanism::Login => true,
                    Mechanism::Xoauth2 => false,
                };
                Mechanism::ALL.into_iter().filter(|m| abilities.login && can(m)).collect()
            }
        }
    }

    /// Whether the configuration names a source of accounts.
    pub fn has_sources(&self) -> bool {
        !matches!(self.kind, Kind::Nobody)
    }

    /// Whether any account can log in. The accounts of Dovecot are unknown, so they are assumed to
    /// exist.
    pub fn has_accounts(&self) -> bool {
        match &self.kind {
            Kind::Nobody => false,
            Kind::Own => self.accounts.abilities().login,
            Kind::Dovecot(_) | Kind::Mixed => true,
        }
    }

    /// Whether an account can log in; `None` if only Dovecot knows.
    pub fn has_account(&self, name: &str) -> Option<bool> {
        match self.source(name) {
            Source::Nobody => Some(false),
            Source::Own => Some(self.accounts.find(name).is_some()),
            Source::Dovecot(_) => None,
        }
    }

    /// Returns the login that AUTH with a name leads to; `None` if the account cannot log in. Dovecot may
    /// name another user than this.
    pub fn login(&self, name: &str) -> Option<String> {
        match self.source(name) {
            Source::Nobody => None,
            Source::Own => self.accounts.find(name).map(|account| account.login),
            Source::Dovecot(_) => Some(complete(name, &self.domain)),
        }
    }

    /// Begins an exchange with a mechanism that was offered.
    ///
    /// # Errors
    /// The reason why the source of accounts is not available.
    pub fn begin(&self, mechanism: Mechanism, binding: Option<Vec<u8>>, peer: Peer) -> Result<Exchange<'_>, String> {
        match &self.kind {
            Kind::Nobody => Err("nobody may log in".to_owned()),
            Kind::Own => Ok(Exchange::Own(self.own(mechanism, binding, peer))),
            Kind::Dovecot(dovecot) => {
                dovecot.begin(mechanism, peer).map(|exchange| Exchange::Dovecot(exchange, &self.domain))
            }
            Kind::Mixed => Ok(Exchange::Mixed(Box::new(Mixed::new(self, mechanism, peer)))),
        }
    }

    fn own(&self, mechanism: Mechanism, binding: Option<Vec<u8>>, peer: Peer) -> Server<'_> {
        Server::new(self.accounts.as_ref(), mechanism, binding).guarded(&self.throttle, peer.address)
    }
}

/// An exchange with a client.
pub enum Exchange<'a> {
    /// An exchange that this process decides.
    Own(Server<'a>),
    /// An exchange that Dovecot decides, and the domain that is added to a user name without one.
    Dovecot(dovecot::Exchange, &'a str),
    /// An exchange whose account decides who decides.
    Mixed(Box<Mixed<'a>>),
}

impl Exchange<'_> {
    /// Takes a response of the client, and returns the next step. `None` stands for AUTH without an
    /// initial response.
    pub fn step(&mut self, response: Option<&[u8]>) -> Step {
        match self {
            Self::Own(server) => server.step(response),
            Self::Dovecot(exchange, domain) => match exchange.step(response) {
                Step::Accepted(user) => Step::Accepted(complete(&user, domain)),
                step => step,
            },
            Self::Mixed(mixed) => mixed.step(response),
        }
    }

    /// The name for the log: that of the account if there is such an account, as after a successful
    /// login. Otherwise the name that the client claims.
    pub fn account(&self) -> String {
        match self {
            Self::Own(server) => server.account(),
            Self::Dovecot(..) => self.name(),
            Self::Mixed(mixed) => mixed.account(),
        }
    }

    /// The user name that the client claims, with a domain; empty until it is known.
    pub fn name(&self) -> String {
        match self {
            Self::Own(server) => server.name().to_owned(),
            Self::Dovecot(exchange, _) if exchange.name().is_empty() => String::new(),
            Self::Dovecot(exchange, domain) => complete(exchange.name(), domain),
            Self::Mixed(mixed) => mixed.name(),
        }
    }
}

/// Returns a user name in lower case, with `domain` added if the name has no domain.
pub fn complete(name: &str, domain: &str) -> String {
    let name = name.to_lowercase();
    if name.contains('@') { name } else { format!("{name}@{domain}") }
}

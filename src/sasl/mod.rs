//! Who somebody is: SASL (RFC 4422), as server and as client.
//!
//! [`client`] logs in to other hosts, [`server`] and [`dovecot`] let people log in
//! here; [`secret`] is what is kept of a password, [`throttle`] counts wrong ones.
//! An exchange is a value that takes what the other side said and gives what to
//! answer; base64, lines and time belong to whoever has the connection. Only
//! `dovecot` has a socket of its own, under a deadline.
//!
//! No password, token or key gets into an error, a log or `Debug`. Knows no SMTP.
//! There is no mechanism that protects what comes after it: that is what TLS is for.

use std::fmt;
use std::sync::Arc;

pub mod client;
pub mod dovecot;
pub mod prep;
pub mod scram;
pub mod secret;
pub mod server;
pub mod throttle;

use dovecot::{Dovecot, Peer};
use server::{Accounts, Server, Step};
use throttle::Throttle;

/// A way to log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mechanism {
    /// SCRAM-SHA-256 bound to its TLS connection (RFC 7677, RFC 9266).
    ScramSha256Plus,
    /// SCRAM-SHA-256 (RFC 5802, RFC 7677).
    ScramSha256,
    /// Name and password at once (RFC 4616).
    Plain,
    /// Name, then password, as older programs do it.
    Login,
    /// Name and a bearer token, as some large hosts want it. Only as a client.
    Xoauth2,
}

impl Mechanism {
    /// All, the better ones first.
    pub const ALL: [Self; 5] = [Self::ScramSha256Plus, Self::ScramSha256, Self::Plain, Self::Login, Self::Xoauth2];

    /// As AUTH has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
            Self::Xoauth2 => "XOAUTH2",
        }
    }

    /// Reads a name, in any case.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mechanism| mechanism.name().eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Letting people log in: who is asked, and who has tried in vain.
pub struct Logins {
    /// Who is asked.
    pub backend: Backend,
    /// Who has tried in vain. Outlives the backend.
    pub throttle: Arc<Throttle>,
    /// The domain of who has none.
    pub domain: String,
}

/// Who knows who may log in.
pub enum Backend {
    /// Nobody may.
    Nobody,
    /// Accounts of our own.
    Own(Box<dyn Accounts>),
    /// Dovecot.
    Dovecot(Dovecot),
}

impl Backend {
    /// What a client may log in by, the better ones first. SCRAM only where all
    /// accounts can: a program that fails at it seldom tries another one.
    pub fn mechanisms(&self, is_bindable: bool) -> Vec<Mechanism> {
        match self {
            Self::Nobody => Vec::new(),
            Self::Dovecot(dovecot) => dovecot.mechanisms(),
            Self::Own(accounts) => {
                let abilities = accounts.abilities();
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
}

impl Logins {
    /// Begins an exchange by a mechanism that was offered.
    ///
    /// # Errors
    /// Why that cannot be done now.
    pub fn begin(&self, mechanism: Mechanism, binding: Option<Vec<u8>>, peer: Peer) -> Result<Exchange<'_>, String> {
        match &self.backend {
            Backend::Nobody => Err("nobody may log in".to_owned()),
            Backend::Own(accounts) => {
                let server = Server::new(accounts.as_ref(), mechanism, binding);
                Ok(Exchange::Own(server.guarded(&self.throttle, peer.address)))
            }
            Backend::Dovecot(dovecot) => {
                dovecot.begin(mechanism, peer).map(|exchange| Exchange::Dovecot(exchange, &self.domain))
            }
        }
    }
}

/// An exchange with a client, whoever decides it.
pub enum Exchange<'a> {
    /// With accounts of our own.
    Own(Server<'a>),
    /// By way of Dovecot, and the domain of who has none.
    Dovecot(dovecot::Exchange, &'a str),
}

impl Exchange<'_> {
    /// Goes on with what the client said; `None` if it has said nothing with AUTH.
    pub fn step(&mut self, response: Option<&[u8]>) -> Step {
        match self {
            Self::Own(server) => server.step(response),
            Self::Dovecot(exchange, domain) => match exchange.step(response) {
                Step::Accepted(user) => Step::Accepted(complete(&user, domain)),
                step => step,
            },
        }
    }

    /// Who the client says it is, with a domain; empty while it has not said that.
    pub fn name(&self) -> String {
        match self {
            Self::Own(server) => server.name().to_owned(),
            Self::Dovecot(exchange, _) if exchange.name().is_empty() => String::new(),
            Self::Dovecot(exchange, domain) => complete(exchange.name(), domain),
        }
    }
}

/// A name with a domain, in lower case.
pub fn complete(name: &str, domain: &str) -> String {
    let name = name.to_lowercase();
    if name.contains('@') { name } else { format!("{name}@{domain}") }
}

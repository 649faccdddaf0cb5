//! Exchanges where the domain of the account decides who verifies it: the users files, or Dovecot.
//!
//! The name must be known before the first question to a source, so only PLAIN and LOGIN are offered.
//! An exchange by LOGIN continues as one by PLAIN, once the client has sent its password. Dovecot is
//! asked only about accounts of its own domains, and can accept only these: it could otherwise let
//! somebody in as a user of another source.

use std::sync::Arc;

use super::dovecot::{self, Peer};
use super::server::{Server, Step};
use super::{Logins, Mechanism, Source, complete};

/// One exchange.
pub struct Mixed<'a> {
    logins: &'a Logins,
    mechanism: Mechanism,
    peer: Peer,
    /// The name that the client claims, with a domain; empty until it is known.
    name: String,
    state: State<'a>,
}

enum State<'a> {
    Start,
    /// LOGIN: waits for the name.
    Name,
    /// LOGIN: waits for the password of this user.
    Password(Vec<u8>),
    Own(Server<'a>),
    Dovecot(dovecot::Exchange),
}

impl<'a> Mixed<'a> {
    /// An exchange by PLAIN or LOGIN.
    pub(super) fn new(logins: &'a Logins, mechanism: Mechanism, peer: Peer) -> Self {
        Self { logins, mechanism, peer, name: String::new(), state: State::Start }
    }

    /// Takes a response of the client, and returns the next step.
    pub(super) fn step(&mut self, response: Option<&[u8]>) -> Step {
        match (std::mem::replace(&mut self.state, State::Start), self.mechanism, response) {
            (State::Own(mut server), _, response) => {
                let step = server.step(response);
                self.state = State::Own(server);
                step
            }
            (State::Dovecot(exchange), _, response) => self.ask_dovecot(exchange, response),
            (State::Start, Mechanism::Login, None) => {
                self.state = State::Name;
                Step::Challenge(b"Username:".to_vec())
            }
            (State::Start | State::Name, Mechanism::Login, Some(name)) => {
                self.state = State::Password(name.to_vec());
                Step::Challenge(b"Password:".to_vec())
            }
            (State::Password(name), _, Some(password)) => {
                self.plain(&[b"\0", name.as_slice(), b"\0", password].concat())
            }
            (State::Start, _, None) => Step::Challenge(Vec::new()),
            (State::Start, _, Some(text)) => self.plain(text),
            _ => Step::Malformed,
        }
    }

    /// Takes the response of PLAIN (RFC 4616), and passes it to the source of the account.
    fn plain(&mut self, text: &[u8]) -> Step {
        let fields: Vec<&[u8]> = text.split(|&b| b == 0).collect();
        let [_, name, _] = fields.as_slice() else { return Step::Malformed };
        let Ok(name) = std::str::from_utf8(name) else { return Step::Malformed };
        self.name = complete(name, &self.logins.domain);
        match self.logins.source(&self.name) {
            // An unknown account is refused in the time that a known one takes.
            Source::Own | Source::Nobody => {
                let mut server = self.logins.own(Mechanism::Plain, None, self.peer);
                let step = server.step(Some(text));
                self.state = State::Own(server);
                step
            }
            Source::Dovecot(dovecot) => match dovecot.begin(Mechanism::Plain, self.peer) {
                Ok(exchange) => self.ask_dovecot(exchange, Some(text)),
                Err(why) => Step::Temporary(why),
            },
        }
    }

    fn ask_dovecot(&mut self, mut exchange: dovecot::Exchange, response: Option<&[u8]>) -> Step {
        let step = exchange.step(response);
        self.state = State::Dovecot(exchange);
        let asked = self.logins.source(&self.name).clone();
        self.note_name();
        let Step::Accepted(_) = step else { return step };
        let user = self.name.clone();
        let is_same = match (&asked, self.logins.source(&user)) {
            (Source::Dovecot(asked), Source::Dovecot(of_user)) => Arc::ptr_eq(asked, of_user),
            _ => false,
        };
        if is_same { Step::Accepted(user) } else { Step::Temporary(format!("Dovecot names a user of others, {user}")) }
    }

    /// Takes over the name that Dovecot gives the user. A name without a domain gets that of the claimed
    /// name only if the domain has a source of its own: otherwise a client could choose any domain.
    fn note_name(&mut self) {
        let State::Dovecot(exchange) = &self.state else { return };
        if exchange.name().is_empty() {
            return;
        }
        let claimed = self.logins.accounts.domain(&self.name);
        let claimed = claimed.filter(|domain| self.logins.by_domain.contains_key(domain));
        self.name = complete(exchange.name(), claimed.as_deref().unwrap_or(&self.logins.domain));
    }

    /// The name of the account for the log.
    pub(super) fn account(&self) -> String {
        match &self.state {
            State::Own(server) => server.account(),
            _ => self.name(),
        }
    }

    /// The user name that the client claims, with a domain; empty until it is known.
    pub(super) fn name(&self) -> String {
        match &self.state {
            State::Own(server) => server.name().to_owned(),
            _ => self.name.clone(),
        }
    }
}

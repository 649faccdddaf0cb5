//! STARTTLS, and TLS from the first octet (RFC 3207, RFC 8314).
//!
//! What was said in clear is forgotten once the connection is encrypted: the
//! client says EHLO again. What it has sent in clear behind STARTTLS would be taken for
//! something said under TLS, by whoever put it there, and ends the session before
//! the handshake (CVE-2011-0411). A handshake has the time of one command; one that
//! fails ends the session without another word in clear, and is logged.

use std::io;

use super::{Phase, Session, Step};
use crate::config::ListenTls;
use crate::log;
use crate::reply;
use crate::smtp::command::Command;

impl Session<'_> {
    /// Whether the connection is encrypted.
    pub(super) fn is_secure(&self) -> bool {
        self.tls_info.is_some()
    }

    /// Whether STARTTLS would be answered 220.
    pub(super) fn offers_tls(&self) -> bool {
        let is_wanted = matches!(self.client.listen.tls, ListenTls::Offered | ListenTls::Required);
        is_wanted && !self.is_secure() && self.service.tls.server.is_some()
    }

    /// Whether a command has to wait for STARTTLS (RFC 3207 4).
    pub(super) fn must_wait_for_tls(&self, command: &Command<'_>) -> bool {
        let is_free =
            matches!(command, Command::Ehlo(_) | Command::StartTls | Command::Noop | Command::Quit | Command::Foreign);
        self.client.listen.tls == ListenTls::Required && !self.is_secure() && !is_free
    }

    pub(super) fn starttls(&mut self) -> Step {
        if self.is_secure() {
            Step::Say(reply::starttls::already_active())
        } else if !self.offers_tls() {
            Step::Say(reply::starttls::not_offered())
        } else if !self.input.is_empty() {
            Step::SayThenHangUp(reply::starttls::pipelined())
        } else {
            Step::StartTls
        }
    }

    /// Answers STARTTLS and begins anew.
    pub(super) fn start_tls(&mut self) -> io::Result<()> {
        self.say(&reply::starttls::ready())?;
        self.flush()?;
        self.phase = Phase::Connected;
        self.login = None;
        self.handshake()
    }

    /// The handshake; after an error the connection is good for nothing.
    pub(super) fn handshake(&mut self) -> io::Result<()> {
        let Some(server) = &self.service.tls.server else { return Err(io::ErrorKind::Unsupported.into()) };
        self.input.source.set_limit(self.service.config.limits.command_timeout);
        let done = server.accept().and_then(|connection| self.input.source.secure(connection));
        if let Err(e) = &done {
            log::handshake_failed(&self.client.session, self.client.address, e);
        }
        self.tls_info = self.input.source.tls_info();
        done
    }
}

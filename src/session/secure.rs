//! Encrypts the connection: after STARTTLS (RFC 3207), or from the first octet (RFC 8314).
//!
//! STARTTLS resets the session, and the client has to send EHLO again. If plaintext input follows
//! STARTTLS, the session ends before the handshake: an attacker may have injected the input, and it
//! would be read as if it had arrived under TLS (CVE-2011-0411). A handshake has the time limit of
//! a command. A failed handshake is logged and ends the session without further plaintext.

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

    /// Whether STARTTLS is offered now.
    pub(super) fn offers_tls(&self) -> bool {
        let is_wanted = matches!(self.client.listen.tls, ListenTls::Offered | ListenTls::Required);
        is_wanted && !self.is_secure() && self.service.tls.server.is_some()
    }

    /// Whether a command is refused because the client has to use STARTTLS first (RFC 3207 4).
    pub(super) fn must_wait_for_tls(&self, command: &Command<'_>) -> bool {
        let is_free = matches!(
            command,
            Command::Ehlo(_) | Command::Lhlo(_) | Command::StartTls | Command::Noop | Command::Quit | Command::Foreign
        );
        self.client.listen.tls == ListenTls::Required && !self.is_secure() && !is_free
    }

    #[inline(never)]
    pub(super) fn starttls(&mut self) -> Step {
        if self.is_secure() {
            Step::Reply(reply::starttls::already_active())
        } else if !self.offers_tls() {
            Step::Reply(reply::starttls::not_offered())
        } else if !self.input.is_empty() {
            Step::ReplyAndClose(reply::starttls::pipelined())
        } else {
            Step::StartTls
        }
    }

    /// Answers STARTTLS, resets the session and runs the handshake.
    #[inline(never)]
    pub(super) fn start_tls(&mut self) -> io::Result<()> {
        self.send(&reply::starttls::ready())?;
        self.flush()?;
        self.phase = Phase::Connected;
        self.login = None;
        self.handshake()
    }

    /// Performs the TLS handshake. After an error the connection is unusable.
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

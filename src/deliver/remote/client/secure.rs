//! Encryption of one connection to one host: STARTTLS (RFC 3207), or TLS from the
//! first octet (RFC 8314).
//!
//! What the host said before the handshake counts no more after it: its names and
//! extensions are forgotten and EHLO is said again. What it, or someone on the way, said
//! behind its 220 is never taken for a reply: the connection is given up. So it is
//! when anything goes wrong here; whether the host is then spoken to in clear, over
//! another connection, is decided in [`Connection::open`]. A certificate is looked at
//! where [`Security`] wants it, by the name that leads to the host.

use std::io;
use std::time::Duration;

use super::{Connection, NotOpen, Stage, StageOutcome};
use crate::config::{RemoteTls, Scheme};
use crate::deliver::remote::credentials::Login;
use crate::deliver::remote::hosts::Peer;
use crate::outcome::{Encryption, Fate, Outcome};
use crate::reply::Status;
use crate::timeouts::HostTimeout;
use crate::tls::{Client, Verification};

/// How a host is spoken to.
pub struct ConnectOptions<'a> {
    /// The queue id of the message that is on its way, for the log.
    pub id: &'a str,
    /// The name of this host.
    pub hostname: &'a str,
    /// No stage, now and later, takes longer.
    pub limit: Duration,
    /// What makes connections of TLS.
    pub tls: &'a Client,
    /// How the connection is encrypted.
    pub security: Security,
    /// Whether the configuration names the host, and not the DNS.
    pub is_ours: bool,
    /// Who this server is there, if the host wants to know.
    pub login: Option<&'a Login>,
    /// How patient the dialogue is, if not as patient as the protocol.
    pub host_timeout: Option<HostTimeout>,
}

/// How a connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// Not at all.
    Clear,
    /// By STARTTLS where it is offered, and whoever it is.
    Opportunistic,
    /// By STARTTLS, and the certificate is verified.
    Required,
    /// From the first octet, and the certificate is verified.
    Implicit,
}

impl Security {
    /// What holds for a host. One that gets a secret has to prove its name, except on
    /// loopback, where nobody is in between.
    pub fn of(peer: &Peer, policy: RemoteTls, has_login: bool) -> Self {
        let is_secret = has_login && !peer.is_this_host();
        match (peer.scheme, policy) {
            (Scheme::Smtps, _) => Self::Implicit,
            (Scheme::StartTls, _) | (Scheme::Smtp, RemoteTls::Required) => Self::Required,
            (Scheme::Smtp, _) if is_secret => Self::Required,
            (Scheme::Smtp, RemoteTls::None) => Self::Clear,
            (Scheme::Smtp, RemoteTls::Opportunistic) => Self::Opportunistic,
        }
    }
}

/// There was to be TLS, and this came of it.
pub(super) fn required(mut answer: StageOutcome) -> StageOutcome {
    let outcome = &mut answer.outcome;
    outcome.fate = Fate::Deferred;
    outcome.why = format!("TLS is required: {}", outcome.why);
    // The words of the host are among these.
    outcome.reply = None;
    if outcome.status != NOT_OFFERED {
        outcome.status = Status(4, 7, 5);
    }
    answer
}

/// The host cannot do what is wanted of it.
const NOT_OFFERED: Status = Status(4, 7, 4);

impl Connection {
    /// STARTTLS, the handshake, and EHLO again.
    pub(super) fn start_tls(
        &mut self,
        options: &ConnectOptions<'_>,
        verification: Verification,
    ) -> Result<(), NotOpen> {
        self.ask_for_tls().and_then(|()| self.handshake(options, verification)).map_err(NotOpen::NoTls)?;
        self.hello("EHLO", options.hostname).map_err(NotOpen::answer).map_err(|answer| match answer.outcome.reply {
            // In TLS 1.3 a host says only after the handshake that it does not like it.
            None if verification == Verification::None => NotOpen::NoTls(answer),
            _ => NotOpen::StageOutcome(answer),
        })
    }

    fn ask_for_tls(&mut self) -> Result<(), StageOutcome> {
        if !self.extensions.starttls {
            let answer =
                self.answer(Stage::StartTls, Outcome::deferred(NOT_OFFERED, "the host does not offer STARTTLS"));
            self.say_goodbye();
            return Err(answer);
        }
        self.expect_silence(Stage::StartTls)?;
        self.write(Stage::StartTls, b"STARTTLS\r\n")?;
        let reply = self.reply(Stage::StartTls)?;
        if reply.code() != 220 {
            let answer = self.refused(Stage::StartTls, reply);
            self.say_goodbye();
            return Err(answer);
        }
        self.expect_silence(Stage::StartTls)
    }

    /// Shakes hands; what was heard before is forgotten.
    pub(super) fn handshake(
        &mut self,
        options: &ConnectOptions<'_>,
        verification: Verification,
    ) -> Result<(), StageOutcome> {
        self.set_stage(Stage::StartTls);
        let hands = options.tls.connect(&self.peer.identity(), verification);
        let shaken = hands.and_then(|connection| self.input.source.secure(connection));
        shaken.map_err(|e| self.not_shaken(options.security, &e))?;
        if let Some(info) = self.input.source.tls_info() {
            self.tls = Encryption::by_tls(info.version, info.cipher);
        }
        self.names = Default::default();
        Ok(())
    }
}

impl Connection {
    /// A handshake that failed. That a host speaks in clear where TLS was to come first
    /// is a slip of the pen more often than trouble.
    fn not_shaken(&mut self, security: Security, error: &io::Error) -> StageOutcome {
        let mut answer = self.trouble(Stage::StartTls, error);
        if security == Security::Implicit && is_clear(error) {
            answer.outcome.why =
                "the host does not speak TLS from the first octet; for STARTTLS write smtp+starttls://".to_owned();
        }
        answer
    }
}

/// Whether what came is not of TLS at all.
fn is_clear(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_goes_in_clear_or_to_strangers_nowhere_but_on_loopback() {
        use RemoteTls::{None, Opportunistic, Required};
        use Security::{Clear, Implicit};
        let peer = |address: &str, scheme| {
            let address: std::net::SocketAddr = format!("{address}:25").parse().expect("an address");
            Peer { name: String::new(), endpoint: address.into(), scheme }
        };
        for (address, scheme, policy, without, with) in [
            ("192.0.2.1", Scheme::Smtp, None, Clear, Security::Required),
            ("192.0.2.1", Scheme::Smtp, Opportunistic, Security::Opportunistic, Security::Required),
            ("192.0.2.1", Scheme::Smtp, Required, Security::Required, Security::Required),
            ("[2001:db8::1]", Scheme::Smtp, None, Clear, Security::Required),
            ("192.0.2.1", Scheme::Smtps, None, Implicit, Implicit),
            ("127.0.0.1", Scheme::Smtp, None, Clear, Clear),
            ("[::1]", Scheme::Smtp, Opportunistic, Security::Opportunistic, Security::Opportunistic),
            ("127.0.0.1", Scheme::StartTls, None, Security::Required, Security::Required),
        ] {
            let security = |login| Security::of(&peer(address, scheme), policy, login);
            assert_eq!((security(false), security(true)), (without, with), "{address} {scheme:?} {policy:?}");
        }
    }
}

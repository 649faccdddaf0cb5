//! Encrypts one connection, by STARTTLS (RFC 3207) or by implicit TLS (RFC 8314).
//!
//! After the handshake the host's names and extensions are forgotten and EHLO is sent again. If
//! further plaintext follows the host's 220, it must not be taken for a reply, so the connection is
//! dropped. The connection is also dropped after any other error of STARTTLS or TLS.
//! [`Connection::open`] decides whether the client connects again in plaintext. Certificates are
//! verified as the host's [`TlsPolicy`] says.

use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::require_tls::without_tls;
use super::{Connection, NotOpen, Stage, StageOutcome};
use crate::deliver::remote::credentials::Login;
use crate::deliver::remote::results::Watch;
use crate::dialogue::Recorder;
use crate::envelope::MessageTls;
use crate::outcome::{Encryption, Fate, Outcome, Verified};
use crate::reply::Status;
use crate::timeouts::HostTimeout;
use crate::tls::{Client, Fault, FaultKind};
use crate::tls_policy::{Security, TlsPolicy};

/// The options of a connection.
pub struct ConnectOptions<'a> {
    /// The queue id of the message, for the log.
    pub id: &'a str,
    /// The name of this host in EHLO, HELO or LHLO.
    pub hostname: &'a str,
    /// The address from which this host connects; `None` if the system chooses.
    pub source: Option<IpAddr>,
    /// The configured upper bound on the time for each stage.
    pub limit: Duration,
    /// Records the dialogue.
    pub recorder: &'a Recorder,
    /// The TLS settings.
    pub tls: &'a Client,
    /// How the connection is encrypted, and how the certificate is verified.
    pub policy: &'a TlsPolicy,
    /// What the message demands of TLS.
    pub message: MessageTls,
    /// Whether the host is known to be one of the destination, so that a verified certificate proves
    /// that it is the right one.
    pub is_known: bool,
    /// Counts how TLS goes on the connection, for reports. `None` if it is not counted.
    pub watch: Option<Watch<'a>>,
    /// Whether the configuration names the host. Otherwise the host was found in the DNS.
    pub is_configured: bool,
    /// The credentials for the host, if there are any.
    pub login: Option<&'a Login>,
    /// The shortened timeout if nothing is known about the destination, or if the destination was
    /// slow or down before; otherwise `None`.
    pub host_timeout: Option<HostTimeout>,
    /// When the time for opening the connection ends, if not later than usual.
    pub until: Option<Instant>,
}

/// The outcome if TLS is required and has failed.
pub(super) fn required(mut answer: StageOutcome, options: &ConnectOptions<'_>) -> StageOutcome {
    let outcome = &mut answer.outcome;
    let is_lasting = outcome.reply.is_none() && [NOT_OFFERED, NOT_VERIFIED].contains(&outcome.status);
    if options.message == MessageTls::Required {
        return without_tls(answer, is_lasting);
    }
    outcome.fate = Fate::Deferred;
    outcome.why = format!("TLS is required: {}", outcome.why);
    // The reason quotes the reply already.
    outcome.reply = None;
    if outcome.status != NOT_OFFERED {
        outcome.status = NOT_VERIFIED;
    }
    answer
}

/// The status if the host does not offer STARTTLS.
const NOT_OFFERED: Status = Status(4, 7, 4);
/// The status if the certificate is not valid.
const NOT_VERIFIED: Status = Status(4, 7, 5);
/// The reason in this case.
const NO_STARTTLS: &str = "the host does not offer STARTTLS";

impl Connection {
    /// Sends STARTTLS, does the handshake, and sends EHLO again.
    pub(super) fn start_tls(&mut self, options: &ConnectOptions<'_>) -> Result<(), NotOpen> {
        self.ask_for_tls()
            .inspect_err(|answer| self.note_not_offered(options, answer))
            .and_then(|()| self.handshake(options))
            .map_err(NotOpen::NoTls)?;
        self.hello(self.peer.hello_verb(), options.hostname).map_err(NotOpen::answer).map_err(|answer| {
            match answer.outcome.reply {
                // A host can reject a handshake of TLS 1.3 after the client has finished it. So if no
                // reply to this EHLO has come, TLS may have failed.
                None if options.policy.may_be_clear() => NotOpen::NoTls(answer),
                _ => NotOpen::Failed(answer),
            }
        })
    }

    fn ask_for_tls(&mut self) -> Result<(), StageOutcome> {
        if !self.extensions.starttls {
            let answer = self.answer(Stage::StartTls, Outcome::deferred(NOT_OFFERED, NO_STARTTLS));
            self.send_quit();
            return Err(answer);
        }
        self.expect_silence(Stage::StartTls)?;
        self.recorder.command("STARTTLS", None);
        self.write(Stage::StartTls, b"STARTTLS\r\n")?;
        let reply = self.reply(Stage::StartTls)?;
        if reply.code() != 220 {
            let answer = self.rejected(Stage::StartTls, reply);
            self.send_quit();
            return Err(answer);
        }
        self.expect_silence(Stage::StartTls)
    }

    /// Does the TLS handshake, and forgets the names that the host has given in plaintext.
    pub(super) fn handshake(&mut self, options: &ConnectOptions<'_>) -> Result<(), StageOutcome> {
        self.set_stage(Stage::StartTls);
        let TlsPolicy { security, verification, is_enforced, .. } = options.policy;
        let client = options.tls.connect(&self.peer.identity(), verification, *is_enforced);
        let (connection, verdict) = client.map_err(|e| self.handshake_failed(*security, &e))?;
        let done = self.input.source.secure(connection);
        self.note(options, done.as_ref().err().map(Fault::of_handshake).or_else(|| verdict.fault()));
        done.map_err(|e| self.handshake_failed(*security, &e))?;
        if let Some(info) = self.input.source.tls_info() {
            let verified = if verdict.is_verified() { options.policy.verified() } else { Verified::No };
            self.tls = Encryption::by_tls(info.version, info.cipher).verified(verified);
            let verified = if verified == Verified::No { "" } else { ", the certificate is valid" };
            self.recorder.remark(&format!("{} {}{verified}", info.version, info.cipher));
        }
        self.names = Default::default();
        Ok(())
    }

    /// Counts the connection for reports, unless its time was shortened because other mail waits.
    pub(super) fn note(&self, options: &ConnectOptions<'_>, fault: Option<Fault>) {
        if let Some(watch) = options.watch.as_ref().filter(|_| !self.input.source.is_cut_short()) {
            let [greeting, hello] = &self.names;
            let name = if hello.is_empty() { greeting } else { hello };
            watch.note(self.input.source.own_address(), name, fault.as_ref());
        }
    }

    /// Counts a connection to a host that does not offer STARTTLS, and need not.
    pub(super) fn note_without_starttls(&self, options: &ConnectOptions<'_>) {
        self.note(options, Some(Fault::new(FaultKind::NotOffered, NO_STARTTLS)));
    }

    /// Counts a connection that could not even begin the handshake.
    fn note_not_offered(&self, options: &ConnectOptions<'_>, answer: &StageOutcome) {
        let is_refused = answer.outcome.status == NOT_OFFERED || answer.outcome.reply.is_some();
        let kind = if is_refused { FaultKind::NotOffered } else { FaultKind::Other };
        self.note(options, Some(Fault::new(kind, &answer.outcome.why)));
    }

    /// The outcome of a failed handshake. If implicit TLS is configured but the host answers in
    /// plaintext, the outcome suggests STARTTLS, since the configuration is probably wrong.
    fn handshake_failed(&mut self, security: Security, error: &io::Error) -> StageOutcome {
        let mut answer = self.broken(Stage::StartTls, error);
        if is_about_certificate(error) {
            answer.outcome.status = NOT_VERIFIED;
        }
        if security == Security::Implicit && is_plaintext(error) {
            answer.outcome.why =
                "the host does not speak TLS from the first octet; for STARTTLS write smtp+starttls://".to_owned();
        } else if let Some(fault) = Fault::of_certificate(error) {
            answer.outcome.why = fault.why;
        }
        answer
    }
}

/// Whether the host's certificate is the reason of an error.
fn is_about_certificate(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::InvalidCertificate(_)))
}

/// Whether the input was not TLS at all.
fn is_plaintext(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)))
}

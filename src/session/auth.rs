//! AUTH: authentication (RFC 4954).
//!
//! AUTH is offered if the listener allows it and there is a mechanism. An exchange consists of
//! challenges and responses in base64. Each line has a maximum length and a time limit, and the
//! client can cancel the exchange with `*`. After a failed login the reply is delayed, longer each
//! time, and a line is logged that log watchers can parse. [`MAX_FAILED_LOGINS`] failures end the
//! session. An authenticated client may relay until the session ends.
//!
//! No response is ever logged. Of an AUTH command only the verb is logged. After a refused AUTH
//! only lines with a known verb are logged, since a client may send its password without waiting.

use std::io;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use data_encoding::BASE64;

use super::{Phase, Session, Step};
use crate::config::OfferAuth;
use crate::log;
use crate::reply::{self, Reply};
use crate::sasl::dovecot::Peer;
use crate::sasl::{self, Mechanism};
use crate::smtp::MAX_AUTH_LINE;
use crate::smtp::command::Command;
use crate::smtp::line::Line;

/// The number of failed logins that ends a session.
const MAX_FAILED_LOGINS: usize = 4;
/// The maximum number of challenges in an exchange.
const MAX_ROUNDS: usize = 8;
/// The interval at which a wait checks for a shutdown.
const STOP_CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// The failed logins of a session.
#[derive(Debug, Default)]
pub struct Attempts {
    /// The number of failed logins.
    failures: usize,
    /// Whether the last AUTH has not succeeded. If so, the next line may be a response that the
    /// client has sent without waiting for the reply to AUTH.
    refused: bool,
}

/// The result of an exchange.
enum End {
    Answer(sasl::server::Step),
    Refusal(Reply),
}

impl Session<'_> {
    /// The mechanisms that are offered now; empty if AUTH is not allowed or was successful.
    pub(super) fn mechanisms(&self) -> Vec<Mechanism> {
        if !self.allows_auth() || self.login.is_some() {
            return Vec::new();
        }
        self.service.logins.mechanisms(self.binding().is_some())
    }

    fn allows_auth(&self) -> bool {
        match self.client.listen.auth {
            OfferAuth::None => false,
            OfferAuth::Tls => self.is_secure(),
            OfferAuth::Always => true,
        }
    }

    fn binding(&self) -> Option<&Vec<u8>> {
        self.tls_info.as_ref().and_then(|tls| tls.binding.as_ref())
    }

    /// AUTH: runs the exchange, if it may begin.
    pub(super) fn auth(&mut self, argument: &[u8]) -> io::Result<Step> {
        match self.parse_auth(argument) {
            Ok((mechanism, initial)) => self.authenticate(mechanism, initial),
            Err(reply) => Ok(Step::Reply(reply)),
        }
    }

    fn parse_auth(&self, argument: &[u8]) -> Result<(Mechanism, Option<Vec<u8>>), Reply> {
        match &self.phase {
            Phase::Greeted(hello, _) if hello.extended => {}
            Phase::InMail(..) => return Err(reply::auth::in_transaction()),
            _ => return Err(reply::auth::needs_ehlo()),
        }
        if self.login.is_some() {
            return Err(reply::auth::already_authenticated());
        }
        if !self.allows_auth() {
            let needs_tls = self.client.listen.auth == OfferAuth::Tls && self.offers_tls();
            return Err(if needs_tls { reply::auth::needs_tls() } else { reply::auth::not_offered() });
        }
        let offered = self.mechanisms();
        if offered.is_empty() {
            return Err(reply::auth::not_offered());
        }
        let mut words = argument.split(|b| b.is_ascii_whitespace()).filter(|word| !word.is_empty());
        let (Some(name), initial, None) = (words.next(), words.next(), words.next()) else {
            return Err(reply::command::bad_arguments("AUTH mechanism, and perhaps a response in base64"));
        };
        let mechanism = std::str::from_utf8(name).ok().and_then(Mechanism::parse);
        let mechanism = mechanism.filter(|m| offered.contains(m)).ok_or_else(reply::auth::mechanism_not_offered)?;
        let initial = match initial {
            None => None,
            Some(b"=") => Some(Vec::new()),
            Some(text) => Some(BASE64.decode(text).map_err(|_| reply::auth::bad_response())?),
        };
        Ok((mechanism, initial))
    }

    /// The part of a command that may be logged.
    #[inline(never)]
    pub(super) fn loggable<'l>(&mut self, line: &'l [u8], command: &Command<'_>) -> &'l [u8] {
        let is_auth = line.trim_ascii_start().get(..4).is_some_and(|verb| verb.eq_ignore_ascii_case(b"AUTH"));
        match command {
            _ if is_auth => {
                // The flag is set before the exchange, and is cleared if the exchange succeeds: the
                // next line may be a password from a client that does not wait for the reply.
                self.attempts.refused = true;
                &line[..line.len() - line.trim_ascii_start().len() + 4]
            }
            Command::Unknown if self.attempts.refused => b"",
            _ => {
                self.attempts.refused = false;
                line
            }
        }
    }

    /// Runs the exchange and decides on its result.
    fn authenticate(&mut self, mechanism: Mechanism, initial: Option<Vec<u8>>) -> io::Result<Step> {
        self.flush()?;
        let (service, started) = (self.service, Instant::now());
        let peer = Peer { address: self.client.address, is_secure: self.is_secure() };
        let address = self.client.address;
        if service.logins.throttle.is_blocked(address, "") {
            return Ok(self.blocked(started, ("", ""), mechanism));
        }
        let mut exchange = match service.logins.begin(mechanism, self.binding().cloned(), peer) {
            Ok(exchange) => exchange,
            Err(why) => return Ok(self.temporary_failure(&why)),
        };
        let end = self.exchange(&mut exchange, initial)?;
        let name = exchange.name();
        // The look-up takes place whether the login fails or not, and before the delay of a failure.
        let account = exchange.account();
        let names = (name.as_str(), account.as_str());
        let step = match end {
            // A blocked client gets this answer even for correct credentials, so that guesses
            // reveal nothing.
            End::Answer(sasl::server::Step::Blocked) => self.blocked(started, names, mechanism),
            End::Answer(_) if service.logins.throttle.is_blocked(address, &name) => {
                self.blocked(started, names, mechanism)
            }
            End::Answer(sasl::server::Step::Accepted(login)) => {
                log::logged_in(&self.client.session, &login, address, mechanism.name());
                service.logins.throttle.succeeded(address, &name);
                self.login = Some(login);
                self.mechanism = mechanism.name();
                Step::Reply(reply::auth::succeeded())
            }
            End::Answer(sasl::server::Step::Rejected) => {
                log::auth_failed(&self.client.session, &account, address, mechanism.name());
                self.wait_until(started + service.logins.throttle.failed(address, &name));
                self.count_failure()
            }
            End::Answer(sasl::server::Step::Temporary(why)) => self.temporary_failure(&why),
            End::Answer(_) => Step::Reply(reply::auth::bad_response()),
            End::Refusal(reply) => Step::Reply(reply),
        };
        self.attempts.refused = self.login.is_none();
        Ok(step)
    }

    /// Answers an attempt that is blocked after too many failures. The password is not checked, but
    /// the reply is delayed and the attempt is counted as if the login had failed. The names are the
    /// claimed one and, for the log, that of the account.
    fn blocked(&mut self, started: Instant, (name, account): (&str, &str), mechanism: Mechanism) -> Step {
        let address = self.client.address;
        log::auth_failed(&self.client.session, account, address, mechanism.name());
        self.wait_until(started + self.service.logins.throttle.failed(address, name));
        self.attempts.failures += 1;
        if self.attempts.failures < MAX_FAILED_LOGINS {
            return self.temporary_failure("too many failures");
        }
        Step::ReplyAndClose(reply::auth::too_many_failures(self.hostname()))
    }

    fn temporary_failure(&mut self, why: &str) -> Step {
        self.attempts.refused = true;
        if self.tally.has_line() {
            ::log::warn!("{} auth: {why}", self.client.session);
        }
        Step::Reply(reply::auth::temporary_failure())
    }

    fn count_failure(&mut self) -> Step {
        self.attempts.failures += 1;
        if self.attempts.failures < MAX_FAILED_LOGINS {
            Step::Reply(reply::auth::bad_credentials())
        } else {
            Step::ReplyAndClose(reply::auth::too_many_failures(self.hostname()))
        }
    }

    /// Sends challenges and reads responses until there is a result.
    fn exchange(&mut self, exchange: &mut sasl::Exchange<'_>, initial: Option<Vec<u8>>) -> io::Result<End> {
        let mut response = initial;
        for _ in 0..MAX_ROUNDS {
            let challenge = match exchange.step(response.as_deref()) {
                sasl::server::Step::Challenge(challenge) => challenge,
                step => return Ok(End::Answer(step)),
            };
            self.send(&reply::auth::challenge(BASE64.encode(&challenge)))?;
            response = match self.response()? {
                Ok(response) => Some(response),
                Err(reply) => return Ok(End::Refusal(reply)),
            };
        }
        Ok(End::Answer(sasl::server::Step::Malformed))
    }

    /// Reads the next response. The inner error is the reply that ends the exchange.
    fn response(&mut self) -> io::Result<Result<Vec<u8>, Reply>> {
        // A session that waits for a response is not busy: a shutdown may end the session, and
        // nothing is lost.
        self.watch.busy.store(false, Ordering::SeqCst);
        self.flush()?;
        self.input.source.set_limit(self.service.config.limits.command_timeout);
        Ok(match self.input.line(MAX_AUTH_LINE)? {
            Line::Complete(b"*") => Err(reply::auth::cancelled()),
            Line::Complete(line) => BASE64.decode(line.trim_ascii()).map_err(|_| reply::auth::bad_response()),
            Line::TooLong => Err(reply::auth::response_too_long()),
            Line::BareNewline => Err(reply::command::bare_newline()),
            Line::End => return Err(io::ErrorKind::UnexpectedEof.into()),
        })
    }

    /// Waits until `when`, or until the daemon shuts down.
    pub(super) fn wait_until(&self, when: Instant) {
        loop {
            let left = when.saturating_duration_since(Instant::now());
            if left.is_zero() || self.is_stopping() {
                return;
            }
            thread::sleep(left.min(STOP_CHECK_INTERVAL));
        }
    }
}

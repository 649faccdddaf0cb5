//! One SMTP connection to one host: the dialogue, as RFC 5321 has it.
//!
//! EHLO, or HELO where that is not known; then STARTTLS, EHLO again and AUTH, as the
//! configuration wants it (`secure`, `auth`); then one transaction for each message,
//! with PIPELINING (RFC 2920), SIZE (RFC 1870) and 8BITMIME (RFC 6152) where they
//! are offered. A message with octets above 127 goes as it is to a host that does
//! not offer 8BITMIME: all do in fact take it. Recipients that are too many for
//! one transaction go in the next. The content is streamed in blocks.
//!
//! Says for each recipient what was said, and at which [`Stage`]; a connection that
//! breaks is an answer too, and so is a 421. Everything that the host says is
//! bounded in length and time, and so is the dialogue as a whole: RFC 5321 4.5.3.2.
//! A content that cannot be read to its end never ends in a dot: the connection is
//! dropped instead. Does not choose hosts or decide what is tried next: see
//! `remote`.

use std::io::{self, ErrorKind, Write};
use std::time::{Duration, Instant};

mod auth;
mod hello;
mod secure;
mod stage;
mod transaction;

use super::hosts::Peer;
use crate::log;
use crate::net::Stream;
use crate::outcome::{Encryption, Fate, Outcome};
use crate::reply::{Reply, ReplyReader, Status, quoted};
use crate::smtp::MAX_REPLY_LINE;
use crate::smtp::extensions::Extensions;
use crate::smtp::line::Input;
use crate::timeouts::HostTimeout;
use crate::tls::Verification;

pub use secure::{ConnectOptions, Security};
pub use stage::Stage;

/// Lines of a reply: more are no reply, but an attempt to keep us busy.
const MAX_REPLY_LINES: usize = 1000;
/// Octets of one of them, of which the first [`MAX_REPLY_LINE`] are read.
const LONGEST_REPLY_LINE: usize = 64 << 10;
/// From the greeting until a message can be sent, over all connections that this takes; a
/// shorter limit of the stages makes it [`OPEN_STAGES`] of those.
const OPEN_LIMIT: Duration = Duration::from_secs(15 * 60);
const OPEN_STAGES: u32 = 4;
/// The commands of all transactions of a message, altogether.
const ENVELOPE_LIMIT: Duration = Duration::from_secs(3600);

/// The content of one message, altogether, beside what its size takes at the
/// slowest rate, in octets a second: a host that takes a little now and then must
/// not keep a worker for days.
const CONTENT_LIMIT: Duration = Duration::from_secs(600);
const SLOWEST: u64 = 16 << 10;

/// What became of one recipient at one host, and where in the dialogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageOutcome {
    /// The last stage that was begun.
    pub stage: Stage,
    /// What it led to.
    pub outcome: Outcome,
    /// The host was not given its whole time, because others wait.
    pub is_cut_short: bool,
}

impl StageOutcome {
    /// Whether the host takes no connection now: a 4xx in place of the greeting.
    pub fn is_too_many(&self) -> bool {
        self.stage <= Stage::Banner && self.outcome.reply.as_ref().is_some_and(|reply| reply.code() / 100 == 4)
    }

    /// Whether the host has said it.
    fn is_said(&self) -> bool {
        self.outcome.reply.is_some()
    }

    /// The same, but not for ever: nothing was said about the message.
    fn deferred(mut self) -> Self {
        self.outcome.fate = Fate::Deferred;
        self.outcome.status.0 = 4;
        self
    }
}

/// Why there is no connection.
enum NotOpen {
    /// This is what was said.
    StageOutcome(StageOutcome),
    /// This came of trying to use TLS.
    NoTls(StageOutcome),
    /// The host hung up when it heard EHLO.
    HungUp(StageOutcome),
}

/// How a connection is opened.
#[derive(Clone, Copy)]
struct Approach {
    security: Security,
    /// EHLO or HELO.
    verb: &'static str,
    until: Instant,
}

impl NotOpen {
    fn answer(self) -> StageOutcome {
        let (Self::StageOutcome(answer) | Self::NoTls(answer) | Self::HungUp(answer)) = self;
        answer
    }
}

impl From<StageOutcome> for NotOpen {
    fn from(answer: StageOutcome) -> Self {
        Self::StageOutcome(answer)
    }
}

/// An open connection after EHLO.
#[derive(Debug)]
pub struct Connection {
    input: Input<Stream>,
    peer: Peer,
    /// How it is encrypted, for the log.
    tls: Encryption,
    extensions: Extensions,
    /// No stage takes longer.
    limit: Duration,
    /// When the host has had its time for letting us in, for the commands of a message, or
    /// for its content.
    until: Instant,
    /// The name that the host gave itself, in the greeting or in the reply to EHLO.
    names: [String; 2],
    /// Whether the configuration names the host.
    is_ours: bool,
    logged_in: bool,
    /// Whether it wants a login that it was not given: nothing more goes over this connection.
    is_locked: bool,
    /// Whether it was the host that broke it off.
    has_ended: bool,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Between transactions.
    Idle,
    /// A transaction was begun and given up.
    Begun,
    /// Closed, or no longer understood.
    Broken,
}

impl Connection {
    /// Connects to `peer`, says hello, and secures the connection and logs in as `options`
    /// has it. A host that has TLS by which nothing can be said, and need not have it,
    /// is spoken to in clear instead, over a new connection; and so is one that hangs up on
    /// EHLO, with HELO.
    ///
    /// # Errors
    /// The answer for every recipient: trouble, or what the host said instead of a
    /// welcome. That is always a deferral, 5xx or not: nothing was said about the
    /// message yet, and a person may get this host off a list before it goes back.
    pub fn open(peer: &Peer, options: &ConnectOptions<'_>) -> Result<Self, StageOutcome> {
        let until = Instant::now() + OPEN_LIMIT.min(options.limit * OPEN_STAGES);
        let first = Approach { security: options.security, verb: "EHLO", until };
        let may_be_clear = matches!(options.security, Security::Opportunistic | Security::Clear);
        match Self::open_once(peer, options, first) {
            Ok(connection) => Ok(connection),
            Err(NotOpen::StageOutcome(answer)) => Err(answer),
            Err(NotOpen::NoTls(answer) | NotOpen::HungUp(answer)) if answer.is_cut_short => Err(answer),
            Err(NotOpen::HungUp(answer)) if may_be_clear && options.login.is_none() => {
                let polite = Approach { security: Security::Clear, verb: "HELO", ..first };
                let polite = Self::open_once(peer, options, polite).map_err(NotOpen::answer);
                polite.map_err(|second| if second.is_said() { second } else { answer })
            }
            Err(NotOpen::HungUp(answer)) => Err(answer),
            Err(NotOpen::NoTls(answer)) if !may_be_clear => Err(secure::required(answer)),
            Err(NotOpen::NoTls(answer)) => {
                log::in_clear(&options.id, peer, &answer.outcome.why);
                Self::open_once(peer, options, Approach { security: Security::Clear, ..first }).map_err(NotOpen::answer)
            }
        }
    }

    fn open_once(peer: &Peer, options: &ConnectOptions<'_>, approach: Approach) -> Result<Self, NotOpen> {
        let mut connection = Self::connect(peer, options, approach.until)?;
        if approach.security == Security::Implicit {
            connection.handshake(options, Verification::Required).map_err(NotOpen::NoTls)?;
        }
        connection.greeted()?;
        connection.hello(approach.verb, options.hostname)?;
        match approach.security {
            Security::Required => connection.start_tls(options, Verification::Required)?,
            Security::Opportunistic if connection.extensions.starttls => {
                connection.start_tls(options, Verification::None)?
            }
            _ => {}
        }
        if let Some(login) = options.login {
            connection.log_in(login)?;
        }
        (connection.is_ours, connection.logged_in) = (options.is_ours, options.login.is_some());
        Ok(connection)
    }

    fn connect(peer: &Peer, options: &ConnectOptions<'_>, until: Instant) -> Result<Self, StageOutcome> {
        let limit = options.limit;
        let connected =
            Stream::connect(&peer.endpoint, Stage::Connect.timeout().min(limit), options.host_timeout.as_ref());
        let mut stream = connected.map_err(|(e, is_cut_short)| {
            let outcome = Outcome::from_connection(Stage::Connect.phrase(), &e, false);
            StageOutcome { stage: Stage::Connect, outcome: outcome.at(peer.to_string()), is_cut_short }
        })?;
        stream.set_host_timeout(options.host_timeout.clone());
        Ok(Self {
            input: Input::new(stream),
            peer: peer.clone(),
            tls: Encryption::CLEAR,
            extensions: Extensions::default(),
            limit,
            until,
            names: Default::default(),
            is_ours: false,
            logged_in: false,
            is_locked: false,
            has_ended: false,
            state: State::Idle,
        })
    }

    /// Whether the host calls itself `hostname`; many a one says `localhost`.
    pub fn is_named(&self, hostname: &str) -> bool {
        hostname.contains('.') && self.names.iter().any(|name| name.eq_ignore_ascii_case(hostname))
    }

    /// How patient the next message is with the host.
    pub fn set_host_timeout(&mut self, host_timeout: Option<HostTimeout>) {
        self.input.source.set_host_timeout(host_timeout);
    }

    /// Where it leads.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Whether another message can go over it.
    pub fn is_usable(&self) -> bool {
        self.state != State::Broken && !self.is_locked
    }

    /// Says QUIT. The reply would change nothing, and a worker has better things to wait for.
    pub fn quit(mut self) {
        self.say_goodbye();
    }

    fn say_goodbye(&mut self) {
        if self.state != State::Broken {
            // Either way it is over.
            let _ = self.write(Stage::Quit, b"QUIT\r\n");
        }
        self.state = State::Broken;
    }

    fn set_stage(&mut self, stage: Stage) {
        let until = Instant::now() + stage.timeout().min(self.limit);
        let patient = (Stage::Banner..=Stage::Body).contains(&stage);
        self.input.source.set_deadline(if patient { until.min(self.until) } else { until });
    }

    fn write(&mut self, stage: Stage, bytes: &[u8]) -> Result<(), StageOutcome> {
        self.set_stage(stage);
        match self.input.source.write_all(bytes) {
            Ok(()) => Ok(()),
            // A host that hangs up often says why first.
            Err(error) => Err(self.interrupted(stage, &error)),
        }
    }

    /// The answer of a host that has said something before it was asked.
    fn interrupted(&mut self, stage: Stage, error: &io::Error) -> StageOutcome {
        let answer = self.trouble(stage, error);
        self.input.source.set_limit(Stage::Quit.timeout());
        match self.read_reply() {
            Ok(reply) if reply.is_refusal() => self.refused(stage, reply),
            _ => answer,
        }
    }

    /// Sees that the host has said nothing but what it was asked for: otherwise a
    /// reply would be taken for that to the next command, and in the end the
    /// 250 for one message for that of another. In the middle of the content it can
    /// mean only this one.
    fn expect_silence(&mut self, stage: Stage) -> Result<(), StageOutcome> {
        match self.input.source.has_input() {
            Ok(false) if self.input.is_empty() => Ok(()),
            Err(e) if self.input.is_empty() => Err(self.trouble(stage, &e)),
            _ => {
                let answer = self.interrupted(stage, &nonsense("the host spoke out of turn"));
                Err(if stage == Stage::Body { answer } else { answer.deferred() })
            }
        }
    }

    /// The next reply. A 421 means that the host is closing the connection; after one that
    /// says yes and no we do.
    fn reply(&mut self, stage: Stage) -> Result<Reply, StageOutcome> {
        self.set_stage(stage);
        let reply = self.read_reply().map_err(|e| self.trouble(stage, &e))?;
        if reply.code() != 421 && !reply.is_unclear() {
            return Ok(reply);
        }
        self.state = State::Broken;
        Err(self.answer(stage, Outcome::from_reply(stage.command(), reply)))
    }

    /// Reads a reply. One that refuses counts also where the host then breaks off.
    fn read_reply(&mut self) -> io::Result<Reply> {
        let mut reader = ReplyReader::default();
        self.read_lines(&mut reader).or_else(|error| {
            self.state = State::Broken;
            reader.cut_short().ok_or(error)
        })
    }

    fn read_lines(&mut self, reader: &mut ReplyReader) -> io::Result<Reply> {
        for _ in 0..MAX_REPLY_LINES {
            let Some((line, has_end)) = self.input.loose_line(MAX_REPLY_LINE, LONGEST_REPLY_LINE)? else {
                return Err(ErrorKind::UnexpectedEof.into());
            };
            match reader.line(&line) {
                // A success that was cut off may have been about to say more.
                Ok(Some(reply)) if has_end || reply.is_refusal() => return Ok(reply),
                Ok(Some(_)) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(None) => {}
                Err(_) => return Err(nonsense(format!("what came is no SMTP reply: {}", quoted(&line)))),
            }
        }
        Err(nonsense("the reply has no end"))
    }

    fn answer(&self, stage: Stage, outcome: Outcome) -> StageOutcome {
        let is_cut_short = self.input.source.is_cut_short();
        StageOutcome { stage, outcome: outcome.at(self.peer.to_string()).over(self.tls), is_cut_short }
    }

    /// A reply that is not what the command needs: a success would be nonsense.
    fn refused(&self, stage: Stage, reply: Reply) -> StageOutcome {
        let mut outcome = Outcome::from_reply(stage.command(), reply);
        if outcome.fate == Fate::Delivered {
            (outcome.fate, outcome.status) = (Fate::Deferred, Status(4, 5, 0));
        }
        self.answer(stage, outcome)
    }

    /// The same for a command of a transaction: what a host of ours means is that it
    /// wants a login, and no command that follows will go better.
    fn declined(&mut self, stage: Stage, reply: Reply) -> StageOutcome {
        if !self.is_ours || !reply.wants_login() {
            return self.refused(stage, reply);
        }
        self.is_locked = true;
        let starttls = self.tls == Encryption::CLEAR && self.extensions.starttls;
        let outcome = Outcome::from_reply_of_configured_host(stage.command(), reply, self.logged_in, starttls);
        self.answer(stage, outcome)
    }

    fn trouble(&mut self, stage: Stage, error: &io::Error) -> StageOutcome {
        self.state = State::Broken;
        self.has_ended =
            matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe);
        self.answer(stage, Outcome::from_connection(stage.phrase(), error, stage == Stage::AfterDot))
    }
}

fn nonsense(what: impl Into<Box<str>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, String::from(what.into()))
}

#[cfg(test)]
mod tests;

//! Sends messages to one host over one SMTP connection, or to one mail store over one LMTP
//! connection.
//!
//! - `auth`: AUTH
//! - `deadline`: which hosts may get a message with a deadline
//! - `fit`: whether a host can take a message as it is
//! - `hello`: the greeting and EHLO
//! - `limits`: the limits that a host states with LIMITS
//! - `require_tls`: which connections may carry messages that need TLS
//! - `secure`: TLS
//! - `stage`: the stages of a dialogue, with their timeouts
//! - `transaction`: one message
//! - `utf8`: which recipients need SMTPUTF8
//!
//! The dialogue begins with EHLO, or HELO if the host does not know EHLO. To encrypt the
//! connection, the client sends STARTTLS and another EHLO. If the configuration has credentials for
//! the host, AUTH comes next. Each message is one transaction, or several if it has many
//! recipients. PIPELINING (RFC 2920), SIZE (RFC 1870) and 8BITMIME (RFC 6152) are used if the host
//! offers them. A message that the host cannot take as it is, for example because it has octets above
//! 127 and the host lacks 8BITMIME, is converted first (see [`crate::message::mime`]).
//!
//! LMTP (RFC 2033) differs in two ways: it begins with LHLO, and after the final dot the store sends
//! one reply for each accepted recipient.
//!
//! The result is an outcome for each recipient, with the [`Stage`] that the dialogue reached. A
//! broken connection and a 421 are outcomes too. All input from the host is bounded in length and
//! time, and the time of the whole dialogue is bounded (RFC 5321 4.5.3.2). If the content cannot be
//! read to its end, the connection is dropped without the final dot. Which host is tried next is
//! decided in `progress`.

use std::io::{self, ErrorKind, Write};
use std::time::{Duration, Instant};

mod auth;
mod deadline;
mod fit;
mod hello;
mod limits;
mod require_tls;
mod secure;
mod stage;
mod transaction;
mod utf8;

use crate::activity;
use crate::address::is_same_domain;
use crate::config::Scheme;
use crate::destination::Peer;
use crate::dialogue::Recorder;
use crate::log;
use crate::net::Stream;
use crate::outcome::{Encryption, Fate, Outcome};
use crate::reply::{Reply, ReplyReader, Status, quoted};
use crate::smtp::MAX_REPLY_LINE;
use crate::smtp::extensions::Extensions;
use crate::smtp::line::Input;
use crate::timeouts::HostTimeout;
use crate::tls_policy::Security;

pub use secure::ConnectOptions;
pub use stage::Stage;

/// Maximum number of lines of a reply.
const MAX_REPLY_LINES: usize = 1000;
/// Maximum length of a line of a reply, in octets. Only the first [`MAX_REPLY_LINE`] are kept.
const MAX_RAW_REPLY_LINE: usize = 64 << 10;
/// Maximum time from connecting until a message can be sent, even if a second connection is needed.
/// The time is also at most [`OPEN_STAGES`] times the configured limit of one stage.
const OPEN_LIMIT: Duration = Duration::from_secs(15 * 60);
const OPEN_STAGES: u32 = 4;
/// The time limit for the commands of all transactions of a message.
const ENVELOPE_LIMIT: Duration = Duration::from_secs(3600);

/// The basic time limit for the content of a message. One second is added for each [`MIN_RATE`]
/// octets. A host that reads slowly must not occupy a worker for days.
const CONTENT_LIMIT: Duration = Duration::from_secs(600);
const MIN_RATE: u64 = 16 << 10;

/// The outcome for one recipient at one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageOutcome {
    /// The last stage that was begun in the dialogue.
    pub stage: Stage,
    /// The result of the attempt for the recipient.
    pub outcome: Outcome,
    /// Whether a timeout was shortened because other mail waits for the worker.
    pub is_cut_short: bool,
}

impl StageOutcome {
    /// Whether the host accepts no more connections now: its greeting was a 4xx reply.
    pub fn is_too_many(&self) -> bool {
        self.stage <= Stage::Banner && self.outcome.reply.as_ref().is_some_and(|reply| reply.code() / 100 == 4)
    }

    /// Whether the outcome is a reply of the host.
    fn is_reply(&self) -> bool {
        self.outcome.reply.is_some()
    }

    /// Turns the outcome into a temporary failure, since the host has not seen the message yet.
    fn deferred(mut self) -> Self {
        self.outcome.fate = Fate::Deferred;
        self.outcome.status.0 = 4;
        self
    }
}

/// The reason why a connection could not be opened.
enum NotOpen {
    /// The host has sent a rejection, or the connection has broken.
    Failed(StageOutcome),
    /// TLS has failed, or the host does not offer it.
    NoTls(StageOutcome),
    /// The host has closed the connection after EHLO, without a reply.
    ClosedAtHello(StageOutcome),
}

/// The way to open a connection.
#[derive(Clone, Copy)]
struct Approach {
    security: Security,
    /// EHLO, HELO or LHLO.
    verb: &'static str,
    deadline: Instant,
}

impl NotOpen {
    fn answer(self) -> StageOutcome {
        let (Self::Failed(answer) | Self::NoTls(answer) | Self::ClosedAtHello(answer)) = self;
        answer
    }
}

impl From<StageOutcome> for NotOpen {
    fn from(answer: StageOutcome) -> Self {
        Self::Failed(answer)
    }
}

/// An open connection after EHLO.
#[derive(Debug)]
pub struct Connection {
    input: Input<Stream>,
    peer: Peer,
    /// How the connection is encrypted, for the log.
    tls: Encryption,
    extensions: Extensions,
    /// The number of transactions that the host still accepts over this connection; `None` if it has
    /// stated no limit.
    mails_left: Option<u32>,
    /// The recipients of the last message that were left out because no transaction was left.
    left: Vec<usize>,
    /// The configured upper bound on the time for each stage.
    limit: Duration,
    /// When the time for the current part of the dialogue ends: for opening the connection, for the
    /// commands of a message, or for its content.
    deadline: Instant,
    /// The names of the host in its greeting and in its reply to EHLO.
    names: [String; 2],
    /// Whether the configuration names the host.
    is_configured: bool,
    logged_in: bool,
    /// Whether the host has rejected a command because the host requires authentication. If so, no
    /// other message can be sent over the connection.
    needs_login: bool,
    /// Whether the host has closed the connection.
    was_closed: bool,
    /// Records the dialogue.
    recorder: Recorder,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Between transactions.
    Idle,
    /// In a transaction that was not completed.
    Begun,
    /// Closed, or it is no longer certain which reply belongs to which command.
    Broken,
}

impl Connection {
    /// Connects to `peer`, sends EHLO, and starts TLS and authenticates as `options` require. If
    /// opportunistic TLS fails, connects again in plaintext. If the host closes the connection
    /// after EHLO, connects again and sends HELO.
    ///
    /// # Errors
    /// The outcome for every recipient: a broken connection, or the host's rejection. The outcome
    /// is temporary even after a 5xx, since the host has not seen the message yet, and a postmaster
    /// can get this host off a blocklist before the message bounces.
    pub fn open(peer: &Peer, options: &ConnectOptions<'_>) -> Result<Self, StageOutcome> {
        let deadline = Instant::now() + OPEN_LIMIT.min(options.limit * OPEN_STAGES);
        let deadline = options.until.map_or(deadline, |until| until.min(deadline));
        let first = Approach { security: options.policy.security, verb: peer.hello_verb(), deadline };
        let may_be_clear = options.policy.may_be_clear();
        match Self::open_once(peer, options, first) {
            Ok(connection) => Ok(connection),
            Err(NotOpen::Failed(answer)) => Err(answer),
            Err(NotOpen::NoTls(answer) | NotOpen::ClosedAtHello(answer)) if answer.is_cut_short => Err(answer),
            Err(NotOpen::ClosedAtHello(answer)) if may_be_clear && options.login.is_none() => {
                let with_helo = Approach { security: Security::Clear, verb: "HELO", ..first };
                let opened = Self::open_once(peer, options, with_helo).map_err(NotOpen::answer);
                opened.map_err(|second| if second.is_reply() { second } else { answer })
            }
            Err(NotOpen::ClosedAtHello(answer)) => Err(answer),
            Err(NotOpen::NoTls(answer)) if !may_be_clear => Err(secure::required(answer, options)),
            Err(NotOpen::NoTls(answer)) => {
                log::plaintext(&options.id, peer, &answer.outcome.why);
                options.recorder.remark(&format!("{}; trying without TLS", answer.outcome.why));
                Self::open_once(peer, options, Approach { security: Security::Clear, ..first }).map_err(NotOpen::answer)
            }
        }
    }

    fn open_once(peer: &Peer, options: &ConnectOptions<'_>, approach: Approach) -> Result<Self, NotOpen> {
        let mut connection = Self::connect(peer, options, approach.deadline)?;
        if approach.security == Security::Implicit {
            connection.handshake(options).map_err(NotOpen::NoTls)?;
        }
        connection.read_greeting()?;
        connection.hello(approach.verb, options.hostname)?;
        match approach.security {
            Security::Required => connection.start_tls(options)?,
            Security::Opportunistic if connection.extensions.starttls => connection.start_tls(options)?,
            Security::Opportunistic => connection.note_without_starttls(options),
            _ => {}
        }
        connection.check_offer_of_require_tls(options);
        if let Some(login) = options.login {
            connection.authenticate_or_quit(login)?;
        }
        (connection.is_configured, connection.logged_in) = (options.is_configured, options.login.is_some());
        Ok(connection)
    }

    fn connect(peer: &Peer, options: &ConnectOptions<'_>, deadline: Instant) -> Result<Self, StageOutcome> {
        let limit = options.limit;
        activity::enter(Stage::Connect.phrase());
        activity::at(peer);
        options.recorder.host(&peer.to_string());
        // A time of zero is no valid timeout.
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let limit_now = Stage::Connect.timeout().min(limit).min(left);
        let host_timeout = options.host_timeout.as_ref();
        let connected = Stream::connect(&peer.endpoint, options.source, limit_now, host_timeout);
        let mut stream = connected.map_err(|(e, is_cut_short)| {
            let outcome = Outcome::from_connection(Stage::Connect.phrase(), &e, false);
            options.recorder.remark(&outcome.why);
            StageOutcome { stage: Stage::Connect, outcome: outcome.at(peer.to_string()), is_cut_short }
        })?;
        stream.set_host_timeout(options.host_timeout.clone());
        Ok(Self {
            input: Input::new(stream),
            peer: peer.clone(),
            tls: Encryption::CLEAR,
            extensions: Extensions::default(),
            mails_left: None,
            left: Vec::new(),
            limit,
            deadline,
            names: Default::default(),
            is_configured: false,
            logged_in: false,
            needs_login: false,
            was_closed: false,
            recorder: options.recorder.clone(),
            state: State::Idle,
        })
    }

    /// Whether the host calls itself `hostname`. A name without a dot, such as `localhost`, proves
    /// nothing.
    pub fn is_named(&self, hostname: &str) -> bool {
        hostname.contains('.') && self.names.iter().any(|name| is_same_domain(name, hostname))
    }

    /// Sets the shortened timeout for the next message; `None` if the host gets the full time.
    pub fn set_host_timeout(&mut self, host_timeout: Option<HostTimeout>) {
        self.input.source.set_host_timeout(host_timeout);
    }

    /// Records that the connection, which is open already, is used for another message.
    pub fn record_reuse(&self) {
        self.recorder.host(&self.peer.to_string());
        let tls = if self.tls == Encryption::CLEAR { String::new() } else { format!(", with {}", self.tls.name()) };
        self.recorder.remark(&format!("over a connection that was still open{tls}"));
    }

    /// Whether the host is a mail store, which speaks LMTP.
    fn is_store(&self) -> bool {
        self.peer.scheme == Scheme::Lmtp
    }

    /// The host.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Whether another message can be sent.
    pub fn is_usable(&self) -> bool {
        self.state != State::Broken && !self.needs_login
    }

    /// Whether the host accepts no more transactions over this connection (RFC 9422 4.1).
    pub fn is_spent(&self) -> bool {
        self.mails_left == Some(0)
    }

    /// Closes the connection with QUIT, without waiting for a reply.
    pub fn quit(mut self) {
        self.send_quit();
    }

    /// Sends QUIT, after which nothing can be sent.
    pub fn send_quit(&mut self) {
        if self.state != State::Broken {
            // An error can be ignored: the connection is closed anyway.
            let _ = self.write(Stage::Quit, b"QUIT\r\n");
        }
        self.state = State::Broken;
    }

    fn set_stage(&mut self, stage: Stage) {
        activity::enter(stage.phrase());
        let deadline = Instant::now() + stage.timeout().min(self.limit);
        let patient = (Stage::Banner..=Stage::Body).contains(&stage);
        self.input.source.set_deadline(if patient { deadline.min(self.deadline) } else { deadline });
    }

    fn write(&mut self, stage: Stage, bytes: &[u8]) -> Result<(), StageOutcome> {
        self.set_stage(stage);
        match self.input.source.write_all(bytes) {
            Ok(()) => Ok(()),
            // A host that closes the connection often sends the reason first.
            Err(error) => Err(self.interrupted(stage, &error)),
        }
    }

    /// The outcome of a broken connection. If the host has sent a rejection before it closed the
    /// connection, the rejection is the outcome.
    fn interrupted(&mut self, stage: Stage, error: &io::Error) -> StageOutcome {
        let answer = self.broken(stage, error);
        self.input.source.set_limit(Stage::Quit.timeout());
        match self.read_reply(stage) {
            Ok(reply) if reply.is_refusal() => self.rejected(stage, reply),
            _ => answer,
        }
    }

    /// Fails if there is unexpected input. Such input would be taken for the reply to the next
    /// command, so that in the end a message could count as accepted because of the 250 for another
    /// message. A rejection that comes while the content is sent can only be about this message, so
    /// the rejection may be final.
    fn expect_silence(&mut self, stage: Stage) -> Result<(), StageOutcome> {
        match self.input.source.has_input() {
            Ok(false) if self.input.is_empty() => Ok(()),
            Err(e) if self.input.is_empty() => Err(self.broken(stage, &e)),
            _ => {
                let answer = self.interrupted(stage, &protocol_error("the host spoke out of turn"));
                Err(if stage == Stage::Body { answer } else { answer.deferred() })
            }
        }
    }

    /// Reads the reply to a command. After a 421, which means that the host closes the connection,
    /// or after a contradictory reply, the connection is not used any more.
    fn reply(&mut self, stage: Stage) -> Result<Reply, StageOutcome> {
        self.set_stage(stage);
        let reply = self.read_reply(stage).map_err(|e| self.broken(stage, &e))?;
        if reply.code() != 421 && !reply.is_unclear() {
            return Ok(reply);
        }
        self.state = State::Broken;
        Err(self.answer(stage, Outcome::from_reply(stage.command(), reply)))
    }

    /// Reads a reply, and records it unless it is part of AUTH. A rejection counts even if the
    /// connection breaks within it.
    fn read_reply(&mut self, stage: Stage) -> io::Result<Reply> {
        let mut reader = ReplyReader::default();
        let reply = self.read_lines(&mut reader).or_else(|error| {
            self.state = State::Broken;
            reader.cut_short().ok_or(error)
        })?;
        // The replies of a mail store to the content are recorded with their recipients.
        if stage != Stage::Auth && !(stage == Stage::AfterDot && self.is_store()) {
            self.recorder.reply(&reply);
        }
        Ok(reply)
    }

    fn read_lines(&mut self, reader: &mut ReplyReader) -> io::Result<Reply> {
        for _ in 0..MAX_REPLY_LINES {
            let Some((line, has_end)) = self.input.loose_line(MAX_REPLY_LINE, MAX_RAW_REPLY_LINE)? else {
                return Err(ErrorKind::UnexpectedEof.into());
            };
            match reader.line(&line) {
                // Without a line end, a positive reply may have been cut off before further lines.
                Ok(Some(reply)) if has_end || reply.is_refusal() => return Ok(reply),
                Ok(Some(_)) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(None) => {}
                Err(_) => return Err(protocol_error(format!("malformed SMTP reply: {}", quoted(&line)))),
            }
        }
        Err(protocol_error("the reply has too many lines"))
    }

    fn answer(&self, stage: Stage, outcome: Outcome) -> StageOutcome {
        let is_cut_short = self.input.source.is_cut_short();
        let (has_dsn, has_deliver_by) = (self.extensions.dsn, self.extensions.deliver_by.is_some());
        let outcome = outcome.at(self.peer.to_string()).over(self.tls);
        let outcome = Outcome { has_dsn, has_deliver_by, ..outcome };
        StageOutcome { stage, outcome, is_cut_short }
    }

    /// The outcome of a reply that rejects a command. A positive reply that is not valid for the
    /// command counts as a temporary failure.
    fn rejected(&self, stage: Stage, reply: Reply) -> StageOutcome {
        let mut outcome = Outcome::from_reply(stage.command(), reply);
        if outcome.fate == Fate::Delivered {
            (outcome.fate, outcome.status) = (Fate::Deferred, Status(4, 5, 0));
        }
        self.answer(stage, outcome)
    }

    /// The outcome of a reply that rejects a command of a transaction. If a host that the
    /// configuration names requires authentication, the connection is not used any more.
    fn rejected_in_transaction(&mut self, stage: Stage, reply: Reply) -> StageOutcome {
        if !self.is_configured || !reply.wants_login() {
            return self.rejected(stage, reply);
        }
        self.needs_login = true;
        let starttls = self.tls == Encryption::CLEAR && self.extensions.starttls;
        let outcome = Outcome::from_reply_of_configured_host(stage.command(), reply, self.logged_in, starttls);
        self.answer(stage, outcome)
    }

    fn broken(&mut self, stage: Stage, error: &io::Error) -> StageOutcome {
        self.state = State::Broken;
        self.was_closed =
            matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe);
        let outcome = Outcome::from_connection(stage.phrase(), error, stage == Stage::AfterDot);
        self.recorder.remark(&outcome.why);
        self.answer(stage, outcome)
    }
}

fn protocol_error(what: impl Into<Box<str>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, String::from(what.into()))
}

#[cfg(test)]
mod tests;

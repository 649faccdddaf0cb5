//! The dialogue with one client.
//!
//! The loop here alone reads and writes the stream, keeps its time limits, counts
//! mistakes and logs refusals; the handlers (`hello`, `secure`, `auth`, `transaction`,
//! `data`, `header_scan`, `submission`, `access`, `xclient`) decide and return a [`Step`]; `secure` and
//! `auth` alone go on talking by themselves, for a handshake and an exchange. Replies
//! wait for the end of what the client has sent at once (RFC 2920). Every way in which a client can misbehave
//! ends in a reply or in the end of the session, never in a panic. A message is
//! accepted when, and only when, [`data`] has committed it.

use std::io::{self, Write};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::address::Address;
use crate::config::{Config, Listen, ListenTls};
use crate::dns::Dns;
use crate::log;
use crate::message::trace::LocalUser;
use crate::net::Stream;
use crate::policy::abuse::End;
use crate::policy::{self, Facts, Verdict};
use crate::privsep::Rights;
use crate::reply::{self, Reply};
use crate::route::Router;
use crate::sasl::Logins;
use crate::smtp::MAX_COMMAND_LINE;
use crate::smtp::command::Command;
use crate::smtp::line::{Input, Line};
use crate::spool::{EntryName, Spool};
use crate::submit::senders::Senders;
use crate::submit::usage::Usage;
use crate::tls::{Tls, TlsInfo};

mod auth;
mod data;
mod header_scan;
mod hello;
mod mail;
mod rcpt;
mod secure;
mod submission;
mod tally;
mod transaction;
mod vrfy;
mod xclient;

use auth::Attempts;
use hello::Hello;
use tally::Tally;
use transaction::Transaction;
use xclient::Forwarded;

/// What all sessions work with.
pub struct Service {
    /// The configuration in force when the session began.
    pub config: Arc<Config>,
    /// Where addresses go.
    pub router: Arc<Router>,
    /// Who may send as whom.
    pub senders: Arc<Senders>,
    /// How much each account has sent.
    pub usage: Arc<Usage>,
    /// Where messages are kept.
    pub spool: Arc<Spool>,
    /// Who knows the clients' names.
    pub dns: Arc<Dns>,
    /// What this server proves who it is by.
    pub tls: Arc<Tls>,
    /// Who may log in.
    pub logins: Arc<Logins>,
    /// What the monitor does for this server.
    pub rights: Rights,
    /// Told of every message that was committed, once the client knows.
    pub wake: Arc<dyn Fn(&Committed<'_>) + Send + Sync>,
}

/// A message that was committed a moment ago.
#[derive(Debug)]
pub struct Committed<'a> {
    /// The entry.
    pub name: EntryName,
    /// The only recipient and his Maildir, if the entry is what belongs there.
    pub home: Option<(&'a Address, &'a Path)>,
}

/// The client of a session.
#[derive(Debug)]
pub struct Client {
    /// The session's id in the log.
    pub session: String,
    /// Its address, if it has one.
    pub address: Option<IpAddr>,
    /// Whether it sits at a terminal or a pipe on this host: then it may relay.
    pub is_local: bool,
    /// The front end that speaks for it, if one does.
    pub proxy: Option<IpAddr>,
    /// Whether it may be anybody: a proxy could not say who it is. The address is then
    /// the proxy's, and gives no rights.
    pub is_unidentified: bool,
    /// Where it came in, and what holds there.
    pub listen: Arc<Listen>,
    /// The process on this host that speaks, where the kernel has named it.
    pub local_user: Option<LocalUser>,
}

/// How a session and those who want to end it know of each other.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    /// The daemon is going down.
    pub stop: Arc<AtomicBool>,
    /// A message is on its way: the session is better let be for a moment.
    pub busy: Arc<AtomicBool>,
}

/// What to do after a command.
enum Step {
    Say(Reply),
    SayThenHangUp(Reply),
    ReadMessage,
    StartTls,
}

/// How far the dialogue is; RSET is the loss of a value.
#[derive(Debug)]
enum Phase {
    Connected,
    /// With what XFORWARD said of the next message.
    Greeted(Hello, Option<Forwarded>),
    InMail(Hello, Transaction),
}

impl Phase {
    fn hello(&self) -> Option<&Hello> {
        match self {
            Self::Connected => None,
            Self::Greeted(hello, _) | Self::InMail(hello, _) => Some(hello),
        }
    }
}

/// One dialogue.
pub struct Session<'a> {
    service: &'a Service,
    client: Client,
    watch: Watch,
    input: Input<Stream>,
    /// Replies that were not sent yet.
    out: Vec<u8>,
    /// When the last of them were sent.
    flushed: Instant,
    phase: Phase,
    tally: Tally,
    /// The client's name, once it was looked up.
    name: Option<Option<String>>,
    /// The address of whoever connected, if it may speak for others.
    trusted_proxy: Option<IpAddr>,
    /// What is known of the encryption; `None` in clear.
    tls_info: Option<TlsInfo>,
    /// Who has logged in.
    login: Option<String>,
    /// Who has failed to.
    attempts: Attempts,
}

/// How much may wait in `out`.
const MAX_PENDING: usize = 16 << 10;
/// How long something may wait there.
const MAX_WAIT: Duration = Duration::from_millis(500);
/// As much of a refused command is logged.
const MAX_LOGGED: usize = 400;

impl<'a> Session<'a> {
    /// A session that has not said anything yet.
    pub fn new(service: &'a Service, client: Client, watch: Watch, stream: Stream) -> Self {
        let address = client.address.filter(|_| !client.is_unidentified);
        let trusted_proxy = address.filter(|_| policy::connect::is_trusted_proxy(&client.listen.xclient, address));
        Self {
            service,
            client,
            watch,
            input: Input::new(stream),
            out: Vec::new(),
            flushed: Instant::now(),
            phase: Phase::Connected,
            tally: Tally::new(),
            name: None,
            trusted_proxy,
            tls_info: None,
            login: None,
            attempts: Attempts::default(),
        }
    }

    /// Speaks with the client until it leaves, or has to.
    pub fn run(mut self) {
        let ended = self.dialogue();
        self.log_the_rest();
        match ended {
            Ok(()) => ::log::debug!("{} closed", self.client.session),
            Err(e) => ::log::debug!("{} lost: {e}", self.client.session),
        }
    }

    fn dialogue(&mut self) -> io::Result<()> {
        if self.client.listen.tls == ListenTls::Implicit {
            self.handshake()?;
        }
        if let Err(reply) = self.apply(policy::connect::check(&self.facts())) {
            return self.hang_up(&reply);
        }
        self.say(&reply::connection::banner(&self.service.config.hostname))?;
        loop {
            let step = match self.next_step() {
                Ok(Some(step)) => step,
                Ok(None) if self.is_stopping() => {
                    Step::SayThenHangUp(reply::connection::shutting_down(self.hostname()))
                }
                Ok(None) => return self.flush(),
                Err(_) if self.is_stopping() => Step::SayThenHangUp(reply::connection::shutting_down(self.hostname())),
                Err(e) if e.kind() == io::ErrorKind::TimedOut => {
                    Step::SayThenHangUp(reply::connection::timed_out(self.hostname()))
                }
                Err(e) => return Err(e),
            };
            match step {
                Step::Say(reply) => self.say(&reply)?,
                Step::SayThenHangUp(reply) => return self.hang_up(&reply),
                Step::StartTls => self.start_tls()?,
                Step::ReadMessage => match self.read_message() {
                    Err(_) if self.is_stopping() => {
                        return self.hang_up(&reply::connection::shutting_down(self.hostname()));
                    }
                    Err(e) if e.kind() == io::ErrorKind::TimedOut => {
                        return self.hang_up(&reply::connection::timed_out(self.hostname()));
                    }
                    result => result?,
                },
            }
            match self.tally.end(&self.facts(), self.service.config.limits.recipients) {
                Some(End::Errors) => return self.hang_up(&reply::connection::too_many_errors(self.hostname())),
                Some(End::Idle) => return self.hang_up(&reply::connection::too_idle(self.hostname())),
                None => {}
            }
        }
    }

    /// Reads a line and decides; `None` when the client is gone.
    fn next_step(&mut self) -> io::Result<Option<Step>> {
        if !self.input.has_line() {
            self.flush()?;
        }
        self.watch.busy.store(false, Ordering::SeqCst);
        if self.is_stopping() {
            return Ok(None);
        }
        self.input.source.set_limit(self.service.config.limits.command_timeout);
        let line = match self.input.line(MAX_COMMAND_LINE)? {
            Line::Complete(line) => line.to_vec(),
            Line::End => return Ok(None),
            Line::TooLong => return Ok(Some(self.too_long())),
            Line::BareNewline => {
                return Ok(Some(self.with_refusal_noted(b"", Step::Say(reply::command::bare_newline()))));
            }
        };
        self.watch.busy.store(true, Ordering::SeqCst);
        let command = Command::parse(&line);
        let shown = self.loggable(&line, &command);
        let step = self.dispatch(command)?;
        Ok(Some(self.with_refusal_noted(shown, step)))
    }

    /// A line beyond the limit: a response may be one (RFC 4954 4).
    fn too_long(&mut self) -> Step {
        let is_auth = self.input.front().eq_ignore_ascii_case(b"AUTH");
        self.with_refusal_noted(
            b"",
            Step::Say(if is_auth { reply::auth::response_too_long() } else { reply::command::too_long() }),
        )
    }

    /// All verbs on one screen.
    fn dispatch(&mut self, command: Command<'_>) -> io::Result<Step> {
        if self.must_wait_for_tls(&command) {
            return Ok(Step::Say(reply::starttls::required()));
        }
        let is_greeting = matches!((&self.phase, &command), (Phase::Connected, Command::Helo(_) | Command::Ehlo(_)));
        if command.leads_to_no_mail() && !is_greeting {
            self.tally.count_idle();
        }
        Ok(match command {
            Command::Helo(name) => self.hello(name, false),
            Command::Ehlo(name) => self.hello(name, true),
            Command::StartTls => self.starttls(),
            Command::Auth(argument) => self.auth(argument)?,
            Command::Mail(path) => self.mail(path),
            Command::Rcpt(path) => self.rcpt(path),
            Command::Data => self.data(),
            Command::Rset => self.rset(),
            Command::Noop => Step::Say(reply::command::noop()),
            Command::Quit => Step::SayThenHangUp(reply::connection::goodbye(self.hostname())),
            Command::Help => self.help(),
            Command::Vrfy(argument) => self.vrfy(argument),
            Command::Expn => Step::Say(reply::verify::expn_not_available()),
            Command::Xclient(attributes) => self.xclient(attributes),
            Command::Xforward(attributes) => self.xforward(attributes),
            Command::Misused(usage) => Step::Say(reply::command::bad_arguments(usage)),
            Command::Foreign => Step::SayThenHangUp(reply::command::unknown()),
            Command::Unknown => Step::Say(reply::command::unknown()),
        })
    }

    /// The step, its refusal being counted and logged with the command.
    fn with_refusal_noted(&mut self, command: &[u8], step: Step) -> Step {
        if let Step::Say(reply) | Step::SayThenHangUp(reply) = &step {
            self.note_refusal(command, reply);
        }
        step
    }

    /// Counts what a well-made client does not do, and mail that is not wanted, and
    /// logs both, up to a bound.
    fn note_refusal(&mut self, command: &[u8], reply: &Reply) {
        if self.tally.count(reply.code()) {
            let command = String::from_utf8_lossy(&command[..command.len().min(MAX_LOGGED)]);
            log::refused(&self.client.session, self.client.address, &command, reply);
        }
    }

    /// Logs how many refusals have no line of their own.
    fn log_the_rest(&mut self) {
        let unlogged = self.tally.unlogged();
        if unlogged > 0 {
            log::refused_more(&self.client.session, self.client.address, unlogged);
        }
    }

    /// What is known of the client.
    fn facts(&self) -> Facts<'_> {
        let client = &self.client;
        let networks = &self.service.config.relay.networks;
        let identified = client.address.filter(|_| !client.is_unidentified);
        Facts {
            address: client.address,
            name: self.name.as_ref().and_then(Option::as_deref),
            hello: self.phase.hello().map(|hello| hello.name.as_str()),
            is_encrypted: self.is_secure(),
            login: self.login.as_deref(),
            listener: client.listen.kind,
            is_trusted: policy::relay::is_trusted(networks, client.is_local, identified),
            is_local_user: client.local_user.is_some(),
        }
    }

    /// The reply of a verdict that refuses.
    fn apply(&self, verdict: Verdict) -> Result<(), Reply> {
        match verdict {
            Verdict::Accept => Ok(()),
            Verdict::Refuse(reply, reason) | Verdict::Defer(reply, reason) => {
                ::log::debug!("{} policy {reason}", self.client.session);
                Err(reply)
            }
        }
    }

    fn hostname(&self) -> &'a str {
        &self.service.config.hostname
    }

    fn is_stopping(&self) -> bool {
        self.watch.stop.load(Ordering::SeqCst)
    }

    fn say(&mut self, reply: &Reply) -> io::Result<()> {
        reply.write_to(&mut self.out);
        // One that has left is noticed by what is sent to it.
        let is_due = self.out.len() > MAX_PENDING || self.flushed.elapsed() >= MAX_WAIT;
        if is_due { self.flush() } else { Ok(()) }
    }

    fn hang_up(&mut self, reply: &Reply) -> io::Result<()> {
        self.log_the_rest();
        if reply.code() == 421 {
            log::refused(&self.client.session, self.client.address, "", reply);
        }
        self.say(reply)?;
        self.flush()?;
        self.input.source.close();
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        self.input.source.set_limit(self.service.config.limits.command_timeout);
        self.input.source.write_all(&self.out)?;
        self.flushed = Instant::now();
        self.out.clear();
        Ok(())
    }
}

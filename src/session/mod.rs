//! Runs the SMTP dialogue with one client, from the banner to the end of the connection.
//!
//! The loop in this file reads commands and writes replies, keeps time limits, counts errors and
//! logs refusals. Each command has a handler that returns a [`Step`]. Only `auth`, `chunk`,
//! `data` and `secure` read from the connection by themselves: an exchange, a chunk or the text of a
//! message, a handshake. [`policy`] decides whether a client, sender, recipient or message is accepted.
//! Replies to pipelined commands are sent together (RFC 2920). Any misbehaviour of a client leads
//! to a reply or the end of the session, never to a panic. A message is accepted if and only if
//! [`receive`] has committed it.
//!
//! - `authenticity`: DKIM, DMARC and the Authentication-Results field
//! - `auth`: AUTH
//! - `changes`: what changes a message while it arrives
//! - `chunk`: BDAT: reads one chunk of a message
//! - `copies`: the recipients of copies, such as an archive
//! - `data`: DATA: reads the text up to the dot
//! - `etrn`: ETRN
//! - `header_scan`: the fields removed from a client's header, and its trace fields
//! - `filters`: what filters are asked at each command
//! - `hello`: HELO, EHLO, LHLO, HELP and RSET; the offered extensions
//! - `incoming`: a message that is being received, from its first byte to the commit
//! - `mail`: MAIL
//! - `pace`: the time limits of a message
//! - `rcpt`: RCPT
//! - `receive`: the beginning, the commit and the 250 of a message, for any command
//! - `refusals`: refusals in the counts and in the log
//! - `screen`: the look-ups about clients that may not relay, and the rules that use them
//! - `secure`: STARTTLS
//! - `spf`: SPF checks of HELO and MAIL
//! - `submission`: rewritten senders, limits per account, completed headers
//! - `tally`: the counts of errors and refusals
//! - `transaction`: the envelope that MAIL and RCPT build
//! - `unfiltered`: replaces `filters` in a build without them
//! - `vrfy`: VRFY
//! - `xclient`: XCLIENT and XFORWARD

use std::cell::Cell;
use std::io::{self, Write};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::address::Address;
use crate::config::{Kind, Listen, ListenTls};
use crate::message::trace::LocalUser;
use crate::net::Stream;
use crate::policy::abuse::End;
use crate::policy::{self, Facts, Verdict};
use crate::reply::{self, Reply};
use crate::site::{Settings, Site};
use crate::smtp::MAX_COMMAND_LINE;
use crate::smtp::chunk::Chunk;
use crate::smtp::command::Command;
use crate::smtp::line::{Input, Line};
use crate::spool::{EntryName, QueueId};
use crate::tls::TlsInfo;
use crate::users::Mailbox;

mod auth;
mod authenticity;
mod changes;
mod chunk;
mod copies;
mod data;
mod etrn;
#[cfg_attr(not(feature = "filters"), path = "unfiltered.rs")]
mod filters;
mod header_scan;
mod hello;
mod incoming;
mod mail;
mod pace;
mod rcpt;
mod receive;
mod refusals;
mod screen;
mod secure;
#[cfg(feature = "mailauth")]
mod spf;
mod submission;
mod tally;
mod transaction;
mod vrfy;
mod xclient;

use auth::Attempts;
pub use etrn::Flush;
use hello::Hello;
use tally::Tally;
use transaction::Transaction;
use xclient::Forwarded;

/// The things that a session needs from its process: the state shared by all sessions, and the
/// settings that were in force when the session began.
pub struct Service {
    /// The settings. A [`Service`] dereferences to them.
    pub settings: Arc<Settings>,
    /// The state shared by all sessions.
    pub site: Arc<Site>,
    /// Called for every committed message that is not held, after the reply to the client.
    pub notify: Arc<Notify>,
    /// Called for ETRN.
    pub flush: Arc<Flush>,
}

/// Delivers a committed message, or has the queue do it.
pub type Notify = dyn Fn(&Committed<'_>) + Send + Sync;

impl std::ops::Deref for Service {
    type Target = Settings;

    fn deref(&self) -> &Settings {
        &self.settings
    }
}

/// A message that was just committed.
#[derive(Debug)]
pub struct Committed<'a> {
    /// The name of the message's entry in the spool.
    pub name: EntryName,
    /// The only recipient and its Maildir, if a rename of the entry's file delivers the
    /// message; otherwise `None`.
    pub maildir: Option<(&'a Address, &'a Mailbox)>,
}

/// The client of a session.
#[derive(Debug)]
pub struct Client {
    /// The session's id in the log.
    pub session: String,
    /// The client's address; `None` for a local process.
    pub address: Option<IpAddr>,
    /// Whether the client is a local process, connected through a terminal, a pipe, the control socket
    /// or the Unix socket of a listener. Such a process may relay.
    pub is_local: bool,
    /// The address of the proxy that the client came through; `None` if there is no proxy.
    pub proxy: Option<IpAddr>,
    /// Whether the proxy did not know the client's address. If so, `address` is that of the proxy,
    /// and gives no rights.
    pub is_unidentified: bool,
    /// The configuration of the session's listener.
    pub listen: Arc<Listen>,
    /// The user of a local process, if the kernel has identified that user.
    pub local_user: Option<Box<LocalUser>>,
    /// The queue id of the only message, if it comes from the drop directory; otherwise `None`.
    /// A recipient that cannot be found is then not refused: the sender gets a report.
    pub dropped: Option<QueueId>,
}

/// The flags that a session and the daemon share, so that the daemon can end the session.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    /// Whether the daemon is shutting down.
    pub stop: Arc<AtomicBool>,
    /// Whether a command is being processed. If so, the session gets a grace period at a shutdown.
    pub busy: Arc<AtomicBool>,
}

/// The next action of the session after a command.
enum Step {
    Reply(Reply),
    ReplyAndClose(Reply),
    ReadMessage,
    /// Read a chunk of a message. If there is a reply, the chunk is refused with it.
    ReadChunk(Chunk, Option<Reply>),
    StartTls,
}

/// The state of the dialogue.
#[derive(Debug)]
enum Phase {
    Connected,
    /// After HELO or EHLO, with the client that XFORWARD named for the next message.
    Greeted(Hello, Option<Forwarded>),
    InMail(Hello, Box<Transaction>),
}

impl Phase {
    fn hello(&self) -> Option<&Hello> {
        match self {
            Self::Connected => None,
            Self::Greeted(hello, _) | Self::InMail(hello, _) => Some(hello),
        }
    }
}

/// A session with one client.
pub struct Session<'a> {
    service: &'a Service,
    client: Client,
    watch: Watch,
    input: Input<Stream>,
    /// Replies that are not yet sent.
    out: Vec<u8>,
    /// The time at which replies were last sent.
    flushed: Instant,
    phase: Phase,
    tally: Tally,
    /// The client's host name, as verified in DNS or given by XCLIENT; `None` before the look-up,
    /// `Some(None)` if there is no such name.
    name: Option<Option<String>>,
    /// The address of the connected host, if it may use XCLIENT and XFORWARD.
    trusted_proxy: Option<IpAddr>,
    /// The properties of the encryption; `None` if the connection is in plaintext.
    tls_info: Option<TlsInfo>,
    /// The authenticated user; `None` before a successful AUTH.
    login: Option<String>,
    /// The mechanism of the successful AUTH.
    mechanism: &'static str,
    /// The failed logins so far.
    attempts: Attempts,
    /// The filters that are asked about this session's mail.
    filters: filters::Dialogue,
    /// The look-ups about the client, if it may not relay.
    screen: screen::Client,
    /// The rule that has caused a refusal, until that refusal is logged.
    reason: Cell<Option<policy::Reason>>,
    /// Whether the next reply may be in UTF-8, although no transaction with SMTPUTF8 is under way.
    has_utf8_reply: bool,
    /// Whether this server has ended the session.
    has_ended: bool,
}

/// Replies are sent if more than this number of octets wait in `out`.
const MAX_PENDING: usize = 16 << 10;
/// If replies were last sent this long ago, the next reply is sent at once, after those that wait.
const MAX_WAIT: Duration = Duration::from_millis(500);

impl<'a> Session<'a> {
    /// A new session, before its banner.
    pub fn new(service: &'a Service, client: Client, watch: Watch, stream: Stream) -> Self {
        let address = client.address.filter(|_| !client.is_unidentified);
        let trusted_proxy = address.filter(|_| policy::connect::is_trusted_proxy(&client.listen.xclient, address));
        let filters = filters::begin(service, &client);
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
            mechanism: "",
            attempts: Attempts::default(),
            filters,
            screen: screen::Client::default(),
            reason: Cell::new(None),
            has_utf8_reply: false,
            has_ended: false,
        }
    }

    /// Runs the dialogue until the client disconnects or the session has to end.
    pub fn run(&mut self) {
        let ended = self.dialogue();
        self.log_lost(&ended);
        self.log_unlogged_refusals();
        match ended {
            Ok(()) => ::log::debug!("{} closed", self.client.session),
            Err(e) => ::log::debug!("{} lost: {e}", self.client.session),
        }
    }

    /// Most of the time, a session waits for a command in this function. The functions that it calls
    /// are not inlined, because an idle session's memory is mostly stack.
    fn dialogue(&mut self) -> io::Result<()> {
        if self.client.listen.tls == ListenTls::Implicit {
            self.handshake()?;
        }
        let verdict = self.greet()?;
        if let Err(reply) = self.apply(verdict) {
            self.note_refusal(b"", &reply, None);
            return self.close_with(&reply);
        }
        self.send(&self.banner())?;
        loop {
            let step = match self.next_step() {
                Ok(Some(step)) => step,
                Ok(None) if self.is_stopping() => {
                    Step::ReplyAndClose(reply::connection::shutting_down(self.hostname()))
                }
                Ok(None) => return self.flush(),
                Err(_) if self.is_stopping() => Step::ReplyAndClose(reply::connection::shutting_down(self.hostname())),
                Err(e) if e.kind() == io::ErrorKind::TimedOut => {
                    Step::ReplyAndClose(reply::connection::timed_out(self.hostname()))
                }
                Err(e) => return Err(e),
            };
            match step {
                Step::Reply(reply) => self.send(&reply)?,
                Step::ReplyAndClose(reply) => return self.close_with(&reply),
                Step::StartTls => self.start_tls()?,
                Step::ReadMessage | Step::ReadChunk(..) => match self.read(step) {
                    Err(_) if self.is_stopping() => {
                        return self.close_with(&reply::connection::shutting_down(self.hostname()));
                    }
                    Err(e) if e.kind() == io::ErrorKind::TimedOut => {
                        return self.close_with(&reply::connection::timed_out(self.hostname()));
                    }
                    result => result?,
                },
            }
            match self.tally.end(&self.facts(), self.service.config.limits.recipients) {
                Some(End::Errors) => return self.close_with(&reply::connection::too_many_errors(self.hostname())),
                Some(End::Idle) => return self.close_with(&reply::connection::too_idle(self.hostname())),
                None => {}
            }
        }
    }

    /// Reads what follows a command: a message, or a chunk of one.
    #[inline(never)]
    fn read(&mut self, step: Step) -> io::Result<()> {
        match step {
            Step::ReadChunk(chunk, refusal) => self.read_chunk(chunk, refusal),
            _ => self.read_message(),
        }
    }

    /// Reads and executes a command. If the client is gone or the daemon is shutting down, returns
    /// `None`.
    #[inline(never)]
    fn next_step(&mut self) -> io::Result<Option<Step>> {
        if !self.input.has_line() {
            self.flush()?;
        }
        self.watch.busy.store(false, Ordering::SeqCst);
        if self.is_stopping() {
            return Ok(None);
        }
        self.set_command_deadline();
        let line = match self.input.line(MAX_COMMAND_LINE)? {
            Line::Complete(line) => line.to_vec(),
            Line::End => return Ok(None),
            Line::TooLong => return Ok(Some(self.unreadable(true))),
            Line::BareNewline => return Ok(Some(self.unreadable(false))),
        };
        self.watch.busy.store(true, Ordering::SeqCst);
        self.reason.take();
        let command = Command::parse(&line);
        let shown = self.loggable(&line, &command);
        let is_unknown = command == Command::Unknown;
        let mut step = self.dispatch(command)?;
        if is_unknown {
            step = self.ask_about_unknown(&line, step);
        }
        Ok(Some(self.count_refusal(shown, step)))
    }

    /// Calls the handler of a command.
    #[inline(never)]
    fn dispatch(&mut self, command: Command<'_>) -> io::Result<Step> {
        let refusal = if self.must_wait_for_tls(&command) {
            Some(reply::starttls::required())
        } else {
            self.is_disabled(&command).then(reply::command::disabled)
        };
        match (refusal, &command) {
            // The octets of a chunk are read in any state. They must not be taken for commands.
            (refusal, Command::Bdat(Some(chunk))) => return Ok(Step::ReadChunk(*chunk, refusal)),
            (_, Command::Bdat(None)) => return Ok(Step::ReplyAndClose(reply::message::malformed_chunk())),
            (Some(reply), _) => return Ok(Step::Reply(reply)),
            (None, _) => {}
        }
        if let Some(reply) = self.wrong_protocol(&command) {
            return Ok(Step::Reply(reply));
        }
        let is_hello = matches!(command, Command::Helo(_) | Command::Ehlo(_) | Command::Lhlo(_));
        let is_greeting = is_hello && matches!(self.phase, Phase::Connected);
        if command.leads_to_no_mail() && !is_greeting {
            self.tally.count_idle();
        }
        Ok(match command {
            Command::Helo(name) => self.hello(name, false),
            Command::Ehlo(name) | Command::Lhlo(name) => self.hello(name, true),
            Command::StartTls => self.starttls(),
            Command::Auth(argument) => self.auth(argument)?,
            Command::Mail(path) => self.mail(path),
            Command::Rcpt(path) => self.rcpt(path),
            Command::Data => self.data(),
            Command::Bdat(_) => Step::ReplyAndClose(reply::message::malformed_chunk()),
            Command::Rset => self.rset(),
            Command::Noop => Step::Reply(reply::command::noop()),
            Command::Quit => Step::ReplyAndClose(reply::connection::goodbye(self.hostname())),
            Command::Help => self.help(),
            Command::Vrfy(argument) => self.vrfy(argument),
            Command::Etrn(argument) => self.etrn(argument),
            Command::Expn => Step::Reply(reply::verify::expn_not_available()),
            Command::Xclient(attributes) => self.xclient(attributes),
            Command::Xforward(attributes) => self.xforward(attributes),
            Command::Misused(usage) => Step::Reply(reply::command::bad_arguments(usage)),
            Command::Foreign => Step::ReplyAndClose(reply::command::unknown()),
            Command::Unknown => Step::Reply(reply::command::unknown()),
        })
    }

    /// The facts known about the client, for a decision of [`policy`].
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

    /// Turns a verdict into a result. The error is the reply of a refusal; the rule behind it is logged
    /// with the refusal.
    fn apply(&self, verdict: Verdict) -> Result<(), Reply> {
        match verdict {
            Verdict::Accept => Ok(()),
            Verdict::Refuse(reply, reason) | Verdict::Defer(reply, reason) => {
                ::log::debug!("{} policy {reason}", self.client.session);
                self.reason.set(Some(reason));
                Err(reply)
            }
        }
    }

    #[inline(never)]
    fn banner(&self) -> Reply {
        reply::connection::banner(self.hostname(), if self.is_lmtp() { "LMTP" } else { "ESMTP" })
    }

    /// Whether the session speaks LMTP (RFC 2033).
    fn is_lmtp(&self) -> bool {
        self.client.listen.kind == Kind::Lmtp
    }

    fn hostname(&self) -> &'a str {
        &self.service.config.hostname
    }

    fn is_stopping(&self) -> bool {
        self.watch.stop.load(Ordering::SeqCst)
    }

    /// Sends a reply. A reply is in UTF-8 only if the client has asked for SMTPUTF8 (RFC 6531
    /// 3.7.4.1).
    #[inline(never)]
    fn send(&mut self, reply: &Reply) -> io::Result<()> {
        let is_utf8 = match &self.phase {
            Phase::InMail(_, transaction) => transaction.envelope.options.utf8,
            _ => false,
        };
        if std::mem::take(&mut self.has_utf8_reply) || is_utf8 || reply.is_ascii() {
            reply.write_to(&mut self.out);
        } else {
            reply.in_ascii().write_to(&mut self.out);
        }
        // Replies must not wait for long, because only sending reveals that a client is gone.
        let is_due = self.out.len() > MAX_PENDING || self.flushed.elapsed() >= MAX_WAIT;
        if is_due { self.flush() } else { Ok(()) }
    }

    #[inline(never)]
    fn close_with(&mut self, reply: &Reply) -> io::Result<()> {
        self.log_unlogged_refusals();
        if reply.code() == 421 {
            self.log_refusal(b"", reply, None);
        }
        self.send(reply)?;
        self.flush()?;
        self.input.source.close();
        self.has_ended = true;
        if reply.code() == 221 {
            // A client that says QUIT has given up its transaction itself, and is not lost.
            self.phase = Phase::Connected;
        }
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

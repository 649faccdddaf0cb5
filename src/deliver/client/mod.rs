//! One SMTP connection to one host: the dialogue, as RFC 5321 has it.
//!
//! EHLO, or HELO where that is not known; then one transaction for each message,
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
//! `remote`. STARTTLS and AUTH will come between EHLO and the first transaction.

use std::io::{self, Write};
use std::time::{Duration, Instant};

mod transaction;

use super::hosts::Peer;
use crate::net::Stream;
use crate::outcome::{Fate, Outcome};
use crate::reply::{Reply, ReplyReader, Status};
use crate::smtp::MAX_REPLY_LINE;
use crate::smtp::line::{Input, Line};

/// Lines of a reply: more are no reply, but an attempt to keep us busy.
const MAX_REPLY_LINES: usize = 1000;
/// The commands of one transaction, all together.
const ENVELOPE_LIMIT: Duration = Duration::from_secs(3600);

/// The content of one message, altogether, beside what its size takes at the
/// slowest rate, in octets a second: a host that takes a little now and then must
/// not keep a worker for days.
const CONTENT_LIMIT: Duration = Duration::from_secs(600);
const SLOWEST: u64 = 16 << 10;

/// How far a dialogue has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Connecting.
    Connect,
    /// The greeting.
    Banner,
    /// EHLO or HELO.
    Hello,
    /// RSET between two messages.
    Reset,
    /// MAIL.
    MailFrom,
    /// RCPT.
    RcptTo,
    /// DATA.
    Data,
    /// The message.
    Body,
    /// The dot, and the reply after which the message is the host's.
    AfterDot,
    /// Reading the message from our own disk: no fault of the host's.
    Content,
    /// QUIT.
    Quit,
}

impl Stage {
    /// How long it may take (RFC 5321 4.5.3.2); for the message, one block of it.
    pub fn timeout(self) -> Duration {
        Duration::from_secs(match self {
            Self::Connect => 30,
            Self::Banner | Self::Hello | Self::Reset | Self::MailFrom | Self::RcptTo => 5 * 60,
            Self::Data => 2 * 60,
            Self::Body | Self::Content => 3 * 60,
            Self::AfterDot => 10 * 60,
            Self::Quit => 1,
        })
    }

    /// What was being done, after "timed out while".
    pub fn phrase(self) -> &'static str {
        match self {
            Self::Connect => "connecting",
            Self::Banner => "waiting for the greeting",
            Self::Hello => "waiting for the reply to EHLO",
            Self::Reset => "waiting for the reply to RSET",
            Self::MailFrom => "waiting for the reply to MAIL",
            Self::RcptTo => "waiting for the reply to RCPT",
            Self::Data => "waiting for the reply to DATA",
            Self::Body => "sending the message",
            Self::AfterDot => "waiting for the reply to the end of the message",
            Self::Content => "reading the message",
            Self::Quit => "waiting for the reply to QUIT",
        }
    }

    /// What a reply was said to.
    fn command(self) -> &'static str {
        match self {
            Self::Connect | Self::Banner => "the connection",
            Self::Hello => "EHLO",
            Self::Reset => "RSET",
            Self::MailFrom => "MAIL",
            Self::RcptTo => "RCPT",
            Self::Data => "DATA",
            Self::Body | Self::AfterDot | Self::Content => "the end of the message",
            Self::Quit => "QUIT",
        }
    }
}

/// What became of one recipient at one host, and where in the dialogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The last stage that was begun.
    pub stage: Stage,
    /// What it led to.
    pub outcome: Outcome,
}

/// An open connection after EHLO.
#[derive(Debug)]
pub struct Connection {
    input: Input<Stream>,
    peer: Peer,
    offers: Offers,
    /// No stage takes longer.
    limit: Duration,
    /// When the host has had its time for the commands of this transaction, or for
    /// its content.
    patience: Instant,
    /// The name that the host gave itself, in the greeting or in the reply to EHLO.
    names: [String; 2],
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

#[derive(Debug, Default)]
struct Offers {
    pipelining: bool,
    eight_bit: bool,
    /// SIZE; zero is no limit (RFC 1870 3).
    size: Option<u64>,
}

impl Connection {
    /// Connects to `peer` and says hello as `hostname`. No stage, now and later,
    /// takes longer than `limit`.
    ///
    /// # Errors
    /// The answer for every recipient: trouble, or what the host said instead of a
    /// welcome. That is always a deferral, 5xx or not: nothing was said about the
    /// message yet, and a person may get this host off a list before it goes back.
    pub fn open(peer: &Peer, hostname: &str, limit: Duration) -> Result<Self, Answer> {
        let connected = Stream::connect(peer.address, Stage::Connect.timeout().min(limit));
        let stream = connected.map_err(|e| trouble(peer, Stage::Connect, &e))?;
        let mut connection = Self {
            input: Input::new(stream),
            peer: peer.clone(),
            offers: Offers::default(),
            limit,
            patience: Instant::now() + ENVELOPE_LIMIT,
            names: Default::default(),
            state: State::Idle,
        };
        let welcome = connection.reply(Stage::Banner)?;
        connection.names[0] = first_word(&welcome);
        connection.welcomed(Stage::Banner, welcome)?;
        connection.hello(hostname)?;
        Ok(connection)
    }

    fn hello(&mut self, hostname: &str) -> Result<(), Answer> {
        self.write(Stage::Hello, format!("EHLO {hostname}\r\n").as_bytes())?;
        let mut reply = self.reply(Stage::Hello)?;
        if (200..300).contains(&reply.code()) {
            self.offers = Offers::read(&reply);
        } else if reply.code() >= 500 {
            self.write(Stage::Hello, format!("HELO {hostname}\r\n").as_bytes())?;
            reply = self.reply(Stage::Hello)?;
        }
        self.names[1] = first_word(&reply);
        self.welcomed(Stage::Hello, reply)
    }

    fn welcomed(&mut self, stage: Stage, reply: Reply) -> Result<(), Answer> {
        if (200..300).contains(&reply.code()) {
            return Ok(());
        }
        let mut answer = self.refused(stage, reply);
        answer.outcome.fate = Fate::Deferred;
        answer.outcome.status.0 = 4;
        self.say_goodbye();
        Err(answer)
    }

    /// Whether the host calls itself `hostname`; many a one says `localhost`.
    pub fn is_named(&self, hostname: &str) -> bool {
        hostname.contains('.') && self.names.iter().any(|name| name.eq_ignore_ascii_case(hostname))
    }

    /// Where it leads.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Whether another message can go over it.
    pub fn is_usable(&self) -> bool {
        self.state != State::Broken
    }

    /// Says QUIT, and waits a moment for the answer.
    pub fn quit(mut self) {
        self.say_goodbye();
    }

    fn say_goodbye(&mut self) {
        // Either way it is over.
        if self.is_usable() && self.write(Stage::Quit, b"QUIT\r\n").is_ok() {
            let _ = self.reply(Stage::Quit);
        }
        self.state = State::Broken;
    }

    fn set_stage(&mut self, stage: Stage) {
        let until = Instant::now() + stage.timeout().min(self.limit);
        let patient = (Stage::Reset..=Stage::Body).contains(&stage);
        self.input.source.set_deadline(if patient { until.min(self.patience) } else { until });
    }

    fn write(&mut self, stage: Stage, bytes: &[u8]) -> Result<(), Answer> {
        self.set_stage(stage);
        match self.input.source.write_all(bytes) {
            Ok(()) => Ok(()),
            // A host that hangs up often says why first.
            Err(error) => Err(self.interrupted(stage, &error)),
        }
    }

    /// The answer of a host that has said something before it was asked.
    fn interrupted(&mut self, stage: Stage, error: &io::Error) -> Answer {
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
    fn expect_silence(&mut self, stage: Stage) -> Result<(), Answer> {
        match self.input.source.has_input() {
            Ok(false) if self.input.is_empty() => Ok(()),
            Err(e) if self.input.is_empty() => Err(self.trouble(stage, &e)),
            _ => {
                let mut answer = self.interrupted(stage, &nonsense("the host spoke out of turn"));
                if stage != Stage::Body {
                    answer.outcome.fate = Fate::Deferred;
                    answer.outcome.status.0 = 4;
                }
                Err(answer)
            }
        }
    }

    /// The next reply. A 421 means that the host is closing the connection.
    fn reply(&mut self, stage: Stage) -> Result<Reply, Answer> {
        self.set_stage(stage);
        let reply = self.read_reply().map_err(|e| self.trouble(stage, &e))?;
        if reply.code() != 421 {
            return Ok(reply);
        }
        self.state = State::Broken;
        Err(self.answer(stage, Outcome::from_reply(stage.command(), reply)))
    }

    fn read_reply(&mut self) -> io::Result<Reply> {
        let mut reader = ReplyReader::default();
        for _ in 0..MAX_REPLY_LINES {
            let reply = match self.input.line(MAX_REPLY_LINE)? {
                Line::Complete(line) => reader.line(line).map_err(|_| nonsense("what came is no SMTP reply"))?,
                Line::BareNewline => return Err(nonsense("the reply has a line end other than CR LF")),
                Line::TooLong => return Err(nonsense("the reply has a line without end")),
                Line::End => return Err(io::ErrorKind::UnexpectedEof.into()),
            };
            if let Some(reply) = reply {
                return Ok(reply);
            }
        }
        Err(nonsense("the reply has no end"))
    }

    fn answer(&self, stage: Stage, outcome: Outcome) -> Answer {
        Answer { stage, outcome: outcome.at(self.peer.to_string()) }
    }

    /// A reply that is not what the command needs: a success would be nonsense.
    fn refused(&self, stage: Stage, reply: Reply) -> Answer {
        let mut outcome = Outcome::from_reply(stage.command(), reply);
        if outcome.fate == Fate::Delivered {
            (outcome.fate, outcome.status) = (Fate::Deferred, Status(4, 5, 0));
        }
        self.answer(stage, outcome)
    }

    fn trouble(&mut self, stage: Stage, error: &io::Error) -> Answer {
        self.state = State::Broken;
        trouble(&self.peer, stage, error)
    }
}

impl Offers {
    fn read(reply: &Reply) -> Self {
        let mut offers = Self::default();
        for line in reply.lines().iter().skip(1) {
            let mut words = line.split_ascii_whitespace();
            match words.next().unwrap_or_default().to_ascii_uppercase().as_str() {
                "PIPELINING" => offers.pipelining = true,
                "8BITMIME" => offers.eight_bit = true,
                // A limit that is no number is none.
                "SIZE" => offers.size = Some(words.next().and_then(|n| n.parse().ok()).unwrap_or(0)),
                _ => {}
            }
        }
        offers
    }
}

fn first_word(reply: &Reply) -> String {
    reply.lines().first().and_then(|line| line.split_ascii_whitespace().next()).unwrap_or_default().to_owned()
}

fn nonsense(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn trouble(peer: &Peer, stage: Stage, error: &io::Error) -> Answer {
    let outcome = Outcome::from_connection(stage.phrase(), error, stage == Stage::AfterDot);
    Answer { stage, outcome: outcome.at(peer.to_string()) }
}

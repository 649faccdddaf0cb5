//! A connection to the store. Each exchange ends at its deadline, and no reply is larger than
//! [`MAX_REPLY`].

use std::io::{self, Read as _, Write};
use std::time::Instant;

use redis::{Cmd, Value};

use super::frame::{self, MAX_REPLY};
use super::target::Target;
use crate::endpoint::Endpoint;
use crate::net::Stream;
use crate::shared::Question;
use crate::tls::Verification;

/// The number of octets that are read at a time.
const CHUNK: usize = 4 << 10;
/// The maximum length of a text of the store in the log, in characters.
const MAX_TEXT: usize = 120;
/// The codes of errors that are logged if a store refuses to log this host in. Any other code is not,
/// because a store may repeat what it was sent.
const CODES: [&str; 8] = ["ERR", "WRONGPASS", "NOAUTH", "NOPERM", "LOADING", "DENIED", "MASTERDOWN", "READONLY"];

/// A connection.
#[derive(Debug)]
pub struct Link {
    stream: Stream,
    /// Whether the connection has already been used.
    is_used: bool,
}

/// Why a question has no answer.
#[derive(Debug)]
pub struct Failure {
    /// The reason.
    pub why: String,
    /// Whether the store has closed the connection, perhaps before it got the question.
    pub is_stale: bool,
    /// Whether the time was over.
    pub is_late: bool,
}

impl Failure {
    /// A failure of a connection that was open in time.
    pub fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), is_stale: false, is_late: false }
    }
}

impl Link {
    /// Connects, and logs in if there is a password.
    ///
    /// # Errors
    /// The reason why the store cannot be used.
    pub fn open(endpoint: &Endpoint, target: &Target, password: Option<&str>, until: Instant) -> Result<Self, Failure> {
        let limit = until.saturating_duration_since(Instant::now());
        if limit.is_zero() {
            return Err(failure(&io::ErrorKind::TimedOut.into()));
        }
        let stream = Stream::connect(endpoint, None, limit, None).map_err(|(error, _)| failure(&error))?;
        let mut link = Self { stream, is_used: false };
        link.stream.set_deadline(until);
        if let Some((tls, name)) = &target.tls {
            let secured = tls
                .connect(name, &Verification::authority(), true)
                .and_then(|(connection, _)| link.stream.secure(connection));
            secured.map_err(|error| {
                let failure = failure(&error);
                Failure { why: format!("TLS: {}", failure.why), is_stale: false, ..failure }
            })?;
        }
        if let Some(password) = password {
            let mut auth = redis::cmd("AUTH");
            target.user.iter().for_each(|user| _ = auth.arg(user));
            link.expect_ok("AUTH", auth.arg(password), until)?;
        }
        if target.database != 0 {
            link.expect_ok("SELECT", redis::cmd("SELECT").arg(target.database), until)?;
        }
        Ok(link)
    }

    /// Whether the store has closed the connection, or has sent something without being asked.
    pub fn is_stale(&mut self) -> bool {
        self.stream.has_input().unwrap_or(true)
    }

    /// Asks a question. Returns the answer as `read` reads it.
    ///
    /// # Errors
    /// The reason why there is no such answer. The connection must not be used any more.
    pub fn ask<T>(&mut self, question: &Question, read: Read<T>, until: Instant) -> Result<T, Failure> {
        let mut eval = redis::cmd("EVAL");
        eval.arg(question.script).arg(question.keys.len()).arg(&question.keys).arg(&question.arguments);
        match self.exchange(&eval, until)? {
            Value::ServerError(error) => {
                let why = format!("{} {}", error.code(), error.details().unwrap_or_default());
                Err(Failure::new(printable(&why)))
            }
            value => read(question, value).ok_or_else(|| unexpected("an answer of the wrong kind")),
        }
    }

    /// Sends a command that logs in. The text of an error may repeat the password, and is not logged.
    fn expect_ok(&mut self, name: &str, command: &Cmd, until: Instant) -> Result<(), Failure> {
        match self.exchange(command, until)? {
            Value::Okay => Ok(()),
            Value::ServerError(error) => {
                let code = CODES.iter().find(|code| **code == error.code()).unwrap_or(&"an error");
                Err(Failure::new(format!("{code} is the answer to {name}")))
            }
            _ => Err(unexpected("an answer of the wrong kind")),
        }
    }

    fn exchange(&mut self, command: &Cmd, until: Instant) -> Result<Value, Failure> {
        self.stream.set_deadline(until);
        let is_used = std::mem::replace(&mut self.is_used, true);
        let octets = self.stream.write_all(&command.get_packed_command()).map_err(|error| failure(&error));
        let octets = octets.and_then(|()| self.receive());
        let octets = octets.map_err(|failure| Failure { is_stale: failure.is_stale && is_used, ..failure })?;
        redis::parse_redis_value(&octets).map_err(|_| unexpected("not the protocol of Redis"))
    }

    /// Reads one reply.
    fn receive(&mut self) -> Result<Vec<u8>, Failure> {
        let (mut octets, mut chunk) = (Vec::new(), [0; CHUNK]);
        loop {
            match self.stream.read(&mut chunk).map_err(|error| failure(&error))? {
                0 => return Err(failure(&io::ErrorKind::UnexpectedEof.into())),
                count => octets.extend_from_slice(chunk.get(..count).unwrap_or_default()),
            }
            match frame::length(&octets).map_err(unexpected)? {
                Some(length) if length == octets.len() => return Ok(octets),
                Some(_) => return Err(unexpected("more than one reply")),
                None if octets.len() >= MAX_REPLY => return Err(unexpected("a reply that is too long")),
                None => {}
            }
        }
    }
}

/// Reads an answer. Returns `None` if it is not of the kind that the question expects.
pub type Read<T> = fn(&Question, Value) -> Option<T>;

/// Reads exactly as many numbers as the question expects.
pub fn numbers(question: &Question, value: Value) -> Option<Vec<u64>> {
    let Value::Array(values) = value else { return None };
    let numbers: Vec<u64> = values.into_iter().map(number).collect::<Option<_>>()?;
    (numbers.len() == question.numbers).then_some(numbers)
}

/// Reads a text. One that is not UTF-8 is an empty one: somebody else may have written it.
pub fn text(_: &Question, value: Value) -> Option<String> {
    let Value::BulkString(octets) = value else { return None };
    Some(String::from_utf8(octets).unwrap_or_default())
}

fn number(value: Value) -> Option<u64> {
    match value {
        Value::Int(number) => number.try_into().ok(),
        _ => None,
    }
}

fn unexpected(what: &str) -> Failure {
    Failure::new(format!("it has sent {what}"))
}

fn failure(error: &io::Error) -> Failure {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof, WouldBlock};
    let is_stale = matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof);
    let is_late = matches!(error.kind(), TimedOut | WouldBlock);
    let why = match error.kind() {
        _ if is_late => "no answer in time".to_owned(),
        _ if is_stale => "it has closed the connection".to_owned(),
        _ => printable(&error.to_string()),
    };
    Failure { why, is_stale, is_late }
}

/// Shortens a text that may come from the store, and replaces what does not belong into a log.
fn printable(text: &str) -> String {
    let replaced =
        text.trim().trim_end_matches('.').chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' });
    replaced.take(MAX_TEXT).collect()
}

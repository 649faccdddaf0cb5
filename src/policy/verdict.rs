//! Represents the decision of a stage of a session, the rule behind the decision, and the marks of
//! a message that is accepted.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::reply::Reply;

/// The decision of a stage of a session, such as MAIL or RCPT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The session goes on.
    Accept,
    /// A permanent refusal, with its reply.
    Refuse(Reply, Reason),
    /// A temporary refusal, with its reply.
    Defer(Reply, Reason),
}

/// The rule behind a refusal or a mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// The short name of the rule, for the log.
    pub rule: &'static str,
    /// The configuration key, the line of a table or the standard that the rule comes from.
    pub source: Source,
}

/// The origin of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A configuration key, such as `limits.recipients`.
    Key(&'static str),
    /// A line of a table.
    Line(Line),
    /// A standard, such as `RFC 5321 6.3`.
    Standard(&'static str),
    /// No rule decided: this server failed, for example to read a table.
    Failure,
}

/// A line of a table file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The path of the file.
    pub file: Arc<Path>,
    /// The number of the line, from 1; 0 if the file cannot be read.
    pub number: usize,
}

/// A mark of a message that is accepted: what a rule asks for without refusing the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// The message goes into quarantine.
    Quarantine,
    /// The message gets a name, which the log shows.
    Tag(Box<str>),
}

impl Verdict {
    /// Returns a refusal with this reply. A reply code below 500 makes the refusal temporary.
    pub fn refuse(reply: Reply, rule: &'static str, source: Source) -> Self {
        let reason = Reason { rule, source };
        if reply.code() < 500 { Self::Defer(reply, reason) } else { Self::Refuse(reply, reason) }
    }

    /// Returns this verdict if it refuses. Otherwise calls `next`, the next rule, and returns its
    /// verdict.
    #[must_use]
    pub fn or_else(self, next: impl FnOnce() -> Self) -> Self {
        if self == Self::Accept { next() } else { self }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule={}", self.rule)?;
        match &self.source {
            Source::Key(key) => write!(f, " key={key}"),
            Source::Line(line) => write!(f, " table={line}"),
            Source::Standard(standard) => write!(f, " standard=\"{standard}\""),
            Source::Failure => Ok(()),
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.number > 0 { write!(f, ":{}", self.number) } else { Ok(()) }
    }
}

//! The decision of a stage, and the rule behind it.

use std::fmt;

use crate::reply::Reply;

/// The decision of a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The session goes on.
    Accept,
    /// A permanent refusal, with its reply.
    Refuse(Reply, Reason),
    /// A temporary refusal, with its reply.
    Defer(Reply, Reason),
}

/// The rule behind a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reason {
    /// The short name of the rule, for the log.
    pub rule: &'static str,
    /// Where the rule comes from.
    pub source: Source,
}

/// Where a rule comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A configuration key.
    Key(&'static str),
    /// A standard.
    Standard(&'static str),
    /// A failure of this server.
    Failure,
}

impl Verdict {
    /// A refusal: temporary or permanent by the code of its reply.
    pub fn refuse(reply: Reply, rule: &'static str, source: Source) -> Self {
        let reason = Reason { rule, source };
        if reply.code() < 500 { Self::Defer(reply, reason) } else { Self::Refuse(reply, reason) }
    }

    /// This verdict if it refuses, otherwise the verdict of the next rule.
    #[must_use]
    pub fn or_else(self, next: impl FnOnce() -> Self) -> Self {
        if self == Self::Accept { next() } else { self }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule={}", self.rule)?;
        match self.source {
            Source::Key(key) => write!(f, " key={key}"),
            Source::Standard(standard) => write!(f, " standard=\"{standard}\""),
            Source::Failure => Ok(()),
        }
    }
}

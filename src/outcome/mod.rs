//! Defines the outcome of a delivery attempt: what became of the message for one recipient.
//!
//! - `fates`: the tables that make errors and replies temporary or final failures
//! - `encryption`: the TLS version and cipher suite of a connection, in one byte

use std::fmt;

use crate::reply::{Reply, Status};

mod encryption;
mod fates;

pub use encryption::{Encryption, Verified};

/// The three ways in which a delivery attempt can end for a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The message was delivered or forwarded here, or the next host has accepted the message.
    Delivered,
    /// The attempt failed temporarily; the message is tried again later.
    Deferred,
    /// The attempt failed permanently; the sender gets a report.
    Failed,
}

/// The result of one delivery attempt for one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Delivered, deferred or failed.
    pub fate: Fate,
    /// The enhanced status code (RFC 3463).
    pub status: Status,
    /// The reason: one sentence without control characters, for logs and reports.
    pub why: String,
    /// The mailbox, the command or the host that was tried. A host is written as in
    /// `mx.example.org[192.0.2.1]:25`. Empty if there was no attempt.
    pub host: Box<str>,
    /// The remote host's reply that decided the outcome, if there is one.
    pub reply: Option<Reply>,
    /// The command that `reply` answers, or an empty string.
    pub answered: &'static str,
    /// The encryption of the connection to `host`.
    pub tls: Encryption,
    /// The way of delivery, once it is known.
    pub via: Option<Via>,
    /// Whether the remote host has DSN (RFC 3461), so that a host that has accepted the message
    /// reports the success of the delivery.
    pub has_dsn: bool,
    /// Whether the remote host has DELIVERBY (RFC 2852), so that it knows the sender's deadline.
    pub has_deliver_by: bool,
    /// Whether `why` quotes the output of a command. A report repeats such a quotation even if it
    /// names files of this host.
    pub is_quoted: bool,
}

/// What an attempt showed about its destination, such as a remote host, whatever became of the
/// message.
#[derive(Debug, Clone, Default)]
pub enum Contact {
    /// Nothing: no host was asked.
    #[default]
    None,
    /// A host answered EHLO. Holds the outcome of the first recipient to whom the message was not
    /// delivered, or `None` if it was delivered to all; and the encryption of the last connection.
    Answered(Option<Box<Outcome>>, Encryption),
    /// No host answered, for this reason.
    Unreachable(Box<Outcome>),
    /// No host has replied about the message, and an address of the destination is at its limit of
    /// connections.
    AtLimit,
    /// The attempt was cut short before any reply, because other mail was waiting for the worker
    /// thread, or because an MTA-STS policy must be fetched first. It is repeated as one to a slow
    /// destination.
    Postponed,
}

/// The way of delivery in an attempt for a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// Delivery into a Maildir. This variant is also used for recipients on this host that fail or
    /// wait without an attempt.
    Maildir,
    /// Delivery into an mbox file.
    Mbox,
    /// Delivery to a command.
    Command,
    /// Forwarding by the recipient's `.forward`.
    Forward,
    /// Forwarding by an alias that includes a list or has an owner.
    List,
    /// A copy that is held, as the routes table says.
    Hold,
    /// Nothing: the routes table has the message removed.
    Discard,
    /// SMTP to another host.
    Smtp,
    /// LMTP to a mail store.
    Lmtp,
}

impl Via {
    /// Returns the word that stands for this way in the log.
    pub fn word(self) -> &'static str {
        match self {
            Self::Maildir => "maildir",
            Self::Mbox => "mbox",
            Self::Command => "command",
            Self::Forward => "forward",
            Self::List => "list",
            Self::Hold => "hold",
            Self::Discard => "discard",
            Self::Smtp => "smtp",
            Self::Lmtp => "lmtp",
        }
    }
}

/// The reason why a DNS look-up returned no records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoAnswer {
    /// The name does not exist.
    NxDomain,
    /// The name exists, but has no records of the requested type.
    NoData,
    /// The name server answered SERVFAIL.
    ServFail,
    /// The name server answered REFUSED.
    Refused,
    /// No name server answered in time.
    Timeout,
    /// The name cannot exist in the DNS, for example because it is too long.
    BadName,
    /// Any other error, in the resolver's words.
    Other(String),
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NxDomain => "no such domain",
            Self::NoData => "no such record",
            Self::ServFail => "the name server could not find out (SERVFAIL)",
            Self::Refused => "the name server refused to answer",
            Self::Timeout => "the name server did not answer in time",
            Self::BadName => "not a valid domain name",
            Self::Other(text) => text,
        })
    }
}

impl NoAnswer {
    /// The error in words that strangers may read. The resolver's own words may name the name servers
    /// of this host.
    pub fn for_strangers(&self) -> &dyn fmt::Display {
        match self {
            Self::Other(_) => &"the look-up failed",
            other => other,
        }
    }
}

impl Outcome {
    /// Returns the outcome of a delivery. `why` may be empty.
    pub fn delivered(why: impl Into<String>) -> Self {
        Self::new(Fate::Delivered, Status(2, 0, 0), why)
    }

    /// Returns the outcome of a temporary failure, for the reason `why`.
    pub fn deferred(status: Status, why: impl Into<String>) -> Self {
        Self::new(Fate::Deferred, status, why)
    }

    /// Returns the outcome of a permanent failure, for the reason `why`.
    pub fn failed(status: Status, why: impl Into<String>) -> Self {
        Self::new(Fate::Failed, status, why)
    }

    fn new(fate: Fate, status: Status, why: impl Into<String>) -> Self {
        Self {
            fate,
            status,
            why: why.into(),
            host: Box::default(),
            reply: None,
            answered: "",
            tls: Encryption::default(),
            via: None,
            has_dsn: false,
            has_deliver_by: false,
            is_quoted: false,
        }
    }

    /// Sets the way of delivery.
    #[must_use]
    pub fn via(mut self, via: Via) -> Self {
        self.via = Some(via);
        self
    }

    /// Sets the mailbox, the command or the host that was tried.
    #[must_use]
    pub fn at(mut self, host: impl Into<String>) -> Self {
        self.host = host.into().into();
        self
    }

    /// Sets the encryption of the connection.
    #[must_use]
    pub fn over(mut self, tls: Encryption) -> Self {
        self.tls = tls;
        self
    }
}

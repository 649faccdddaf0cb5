//! Decides which clients, senders, recipients and messages a session accepts, without any I/O.
//!
//! Each stage of a session has a file with pure functions, which take facts and return a
//! [`Verdict`]. The session makes the look-ups beforehand and passes their results as facts, so
//! that the same functions can be called without a client. The rules of a stage are in its `check`,
//! and those that apply before a look-up in its `precheck`. A rule that needs a look-up of its own
//! is a function of its own.
//!
//! - `abuse`: how many errors and commands without mail end a session
//! - `connect`: a new connection, and the rights that its address gives
//! - `etrn`: ETRN: who may ask for the mail of a domain
//! - `hello`: HELO and EHLO
//! - `mail`: MAIL: login, size, room, the sender
//! - `message`: the end of a message: form, size, loops, DMARC, a trusted ARC sealer, quarantine
//! - `rcpt`: RCPT: limits, relaying, unknown users
//! - `relay`: the clients that may relay, and the recipients for which a client needs that right
//! - `screening`: the order of the rules for strangers, and the look-ups that each one needs
//! - `strangers`: RCPT of clients that may not relay: access, DNS lists, SPF, greylist
//! - `verdict`: a decision, and the rule behind it

use std::net::IpAddr;

use crate::config::Kind;

pub mod abuse;
pub mod connect;
pub mod etrn;
pub mod hello;
pub mod mail;
pub mod message;
pub mod rcpt;
pub mod relay;
pub mod screening;
pub mod strangers;
mod verdict;

pub use verdict::{Line, Mark, Reason, Source, Verdict};

/// What is known about a client, at any stage of its session.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The client's address; `None` for a local process.
    pub address: Option<IpAddr>,
    /// The client's verified host name; `None` if the client has none or the name was not looked
    /// up.
    pub name: Option<&'a str>,
    /// The name in the client's HELO or EHLO, made printable.
    pub hello: Option<&'a str>,
    /// Whether the connection is encrypted.
    pub is_encrypted: bool,
    /// The authenticated user; `None` if the client has not authenticated.
    pub login: Option<&'a str>,
    /// The kind of the listener.
    pub listener: Kind,
    /// Whether the client's address is in `relay.networks`, or the client is a local process.
    pub is_trusted: bool,
    /// Whether the client is a local process whose user the kernel has identified.
    pub is_local_user: bool,
}

impl<'a> Facts<'a> {
    /// Whether the client may send mail to any domain, because the client is trusted or
    /// authenticated.
    pub fn may_relay(&self) -> bool {
        relay::may_relay(self)
    }

    /// Whether the rules for message submission apply to the client (RFC 6409).
    pub fn is_submission(&self) -> bool {
        self.listener == Kind::Submission
    }

    /// Returns the account whose senders are checked and whose messages are counted. `None` if the
    /// client is not authenticated, or the listener is not for submission.
    pub fn account(&self) -> Option<&'a str> {
        self.login.filter(|_| self.is_submission())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client on a listener for other hosts, without any rights.
    pub(super) const STRANGER: Facts<'_> = Facts {
        address: Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1))),
        name: None,
        hello: Some("client.example"),
        is_encrypted: false,
        login: None,
        listener: Kind::Smtp,
        is_trusted: false,
        is_local_user: false,
    };
    /// A client whose address is in `relay.networks`.
    pub(super) const TRUSTED: Facts<'_> = Facts { is_trusted: true, ..STRANGER };
    /// A client without a login on a listener for submission.
    pub(super) const SUBMITTER: Facts<'_> = Facts { listener: Kind::Submission, ..STRANGER };
    /// An authenticated user on a listener for submission.
    pub(super) const USER: Facts<'_> = Facts { login: Some("jon@razorback.test"), is_encrypted: true, ..SUBMITTER };

    /// Shows a verdict as text: accepted, refused or deferred, with the reply code and the rule.
    pub(super) fn shown(verdict: &Verdict) -> String {
        match verdict {
            Verdict::Accept => "accept".to_owned(),
            Verdict::Refuse(reply, reason) => format!("refuse {} {}", reply.code(), reason.rule),
            Verdict::Defer(reply, reason) => format!("defer {} {}", reply.code(), reason.rule),
        }
    }

    #[test]
    fn an_account_exists_only_for_submission() {
        assert_eq!(USER.account(), Some("jon@razorback.test"));
        assert_eq!(Facts { listener: Kind::Smtp, ..USER }.account(), None);
        assert_eq!(SUBMITTER.account(), None);
    }
}

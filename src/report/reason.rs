//! Finds the reason for a failure, and explains the reason in words for the sender.
//!
//! The reason follows from the enhanced status of the last attempt, and from replies that reject
//! this host instead of the message. Each reason has advice for the sender. An unspecific status
//! gives an unspecific reason. An example is 5.7.0, which is used both by filters and by hosts that
//! require authentication. A message that expired has a reason of its own, whatever the last reply
//! was.

use crate::outcome::{Fate, Outcome};
use crate::reply::Reply;

/// The reason for a failure, as far as it matters to the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    NoMailbox,
    NoDomain,
    NoMailThere,
    BadSender,
    Closed,
    Full,
    TooBig,
    Loop,
    Policy,
    NoLogin,
    Expired,
    HostRejected,
    Refused,
}

impl Reason {
    pub(super) fn of(outcome: &Outcome) -> Self {
        let wants_login = outcome.reply.as_ref().is_some_and(Reply::wants_login);
        if outcome.fate == Fate::Deferred {
            return if wants_login { Self::HostRejected } else { Self::Expired };
        }
        if wants_login {
            return Self::NoLogin;
        }
        match (outcome.status.1, outcome.status.2) {
            (1, 1 | 3 | 6) => Self::NoMailbox,
            (1, 2) => Self::NoDomain,
            (1, 10) => Self::NoMailThere, // RFC 7505
            (1, 7 | 8) => Self::BadSender,
            (2, 1) => Self::Closed,
            (2, 2) => Self::Full,
            (2, 3) | (3, 4) => Self::TooBig,
            (4, 6) => Self::Loop,
            (7, 8 | 9 | 11) => Self::NoLogin,
            (7, 0) => Self::Refused, // unspecific
            (7, _) => Self::Policy,
            _ => Self::Refused,
        }
    }

    /// Whether delivery was tried again and again until the message expired.
    pub(super) fn is_late(self) -> bool {
        matches!(self, Self::Expired | Self::HostRejected)
    }

    /// Returns the explanation, and the advice for the sender.
    pub(super) fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::NoMailbox => (
                "There is no such mailbox",
                "Please check the spelling, above all before the @. If it is right, the address is no longer in \
                 use; please ask for the new one in another way.",
            ),
            Self::NoDomain => (
                "The domain, which is the part after the @, does not exist or has no mail server",
                "Please check the spelling after the @.",
            ),
            Self::NoMailThere => (
                "The domain, which is the part after the @, accepts no mail at all",
                "Please check the spelling after the @. If it is right, this address cannot receive mail.",
            ),
            Self::BadSender => (
                "The other mail system does not accept your own address as a sender",
                "Please check the sender address in your mail program.",
            ),
            Self::Closed => ("The mailbox is closed", "Please use another address, or try again on another day."),
            Self::Full => (
                "The mailbox is full",
                "Please tell its owner in another way, and send the message again when there is room.",
            ),
            Self::TooBig => (
                "The message is too big",
                "Please send it with smaller or fewer attachments, or send a link to them instead.",
            ),
            Self::Loop => (
                "The message is caught in a loop between mail systems",
                "This is not your fault: a mail system on the way is misconfigured. Please tell the postmaster of \
                 that domain, and include this report.",
            ),
            Self::Policy => (
                "The message violates the rules of the receiving mail system, or looks like spam to it",
                "Its reply may say what to do. If not, ask the person you wrote to, in another way, to let your mail \
                 through.",
            ),
            Self::NoLogin => (
                "The other mail system accepts mail only after a login, or only over an encrypted connection",
                "This is not your fault, and nobody has examined your message: one of the two mail systems is \
                 misconfigured. Please tell its postmaster in another way, or the one below.",
            ),
            Self::Expired => (
                "It could not be delivered",
                "The problem is most likely on the other side. You may send the message again later; if it is \
                 urgent, use another way.",
            ),
            Self::HostRejected => (
                "It could not be delivered",
                "This is not your fault: the next mail system does not accept mail from this one. Please tell the \
                 postmaster below; if it is urgent, use another way.",
            ),
            Self::Refused => (
                "The message was rejected",
                "The reply may say why. If it does not, ask the person you wrote to in another way.",
            ),
        }
    }
}

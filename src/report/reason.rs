//! The reasons for a failure, in words for the sender.
//!
//! A reason follows from the enhanced status of the last attempt, and from replies that
//! reject this host instead of the message. It says what the sender can do. An unspecific status
//! gives an unspecific reason; 5.7.0 is one, used by filters as well as by hosts that require
//! authentication. A message that expired has that reason, whatever the last reply was.

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
    NotLetIn,
    Refused,
}

impl Reason {
    pub(super) fn of(outcome: &Outcome) -> Self {
        let wants_login = outcome.reply.as_ref().is_some_and(Reply::wants_login);
        if outcome.fate == Fate::Deferred {
            return if wants_login { Self::NotLetIn } else { Self::Expired };
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

    /// Whether delivery was tried until the message expired.
    pub(super) fn is_late(self) -> bool {
        matches!(self, Self::Expired | Self::NotLetIn)
    }

    /// The explanation, and advice for the sender.
    pub(super) fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::NoMailbox => (
                "There is no mailbox of this name",
                "Please check the spelling, above all in front of the @. If it is right, the address is no longer \
                 in use: ask for the new one in another way.",
            ),
            Self::NoDomain => (
                "The domain, which is the part behind the @, does not exist or has no mail server",
                "Please check the spelling behind the @.",
            ),
            Self::NoMailThere => (
                "The domain, which is the part behind the @, says that it takes no mail at all",
                "Please check the spelling behind the @. If it is right, nobody can be reached at this address.",
            ),
            Self::BadSender => (
                "The other mail system does not accept your own address as that of a sender",
                "Please check the address that your mail program sends with.",
            ),
            Self::Closed => ("The mailbox is closed", "Please ask for another address, or try again on another day."),
            Self::Full => (
                "The mailbox is full",
                "Please tell its owner in another way, and send the message again when there is room.",
            ),
            Self::TooBig => (
                "The message is too big",
                "Please send it with smaller attachments or fewer of them, or say where they can be fetched.",
            ),
            Self::Loop => (
                "The message went round in a circle",
                "You did nothing wrong: a mail system on its way is not set up right. Please tell the \
                 postmaster of that domain, and send this report along.",
            ),
            Self::Policy => (
                "The message is against the rules of the mail system that was to take it, or looks like spam to it",
                "What it said may tell how to go on. If it does not, ask the person you wrote to, in another way, \
                 to let your mail in.",
            ),
            Self::NoLogin => (
                "The other mail system takes mail from those only who log in there, or by an encrypted connection",
                "You did nothing wrong, and your message was not looked at: one of the two mail systems is not set \
                 up right. Please tell its postmaster in another way, or the one below.",
            ),
            Self::Expired => (
                "It could not be handed over",
                "The trouble is most likely on the other side. You may send the message again later; if it is \
                 urgent, use another way.",
            ),
            Self::NotLetIn => (
                "It could not be handed over",
                "You did nothing wrong: the next mail system does not let this one in. Please tell the postmaster \
                 below; if it is urgent, use another way.",
            ),
            Self::Refused => (
                "The message was refused",
                "What was said may tell why. If it does not, ask the person you wrote to in another way.",
            ),
        }
    }
}

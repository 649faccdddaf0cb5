//! Verifies and extends the ARC chain of a message: what the servers that forwarded it say about it
//! (RFC 8617).
//!
//! Each of these servers adds a set of three fields: its Authentication-Results, a signature of the
//! message as the server sends it on, and a seal of all sets so far. A valid chain proves which
//! server has stated which results. The chain does not prove that the results are true, so only
//! results of a trusted sealer are of use.
//!
//! - A chain has at most [`MAX_SETS`] sets (RFC 8617 4.2.1), in a header of at most
//!   [`MAX_HEADER`](super::dkim::MAX_HEADER) octets. All keys are looked up side by side.
//! - The newest message signature and all seals are verified. Older message signatures are not
//!   verified, because RFC 8617 5.2 does not require it.
//! - RFC 8617 defines only the results `none`, `pass` and `fail`. If a key cannot be looked up now,
//!   the result is [`Status::TempError`]. A sealer then adds no set, so that the chain is not
//!   broken for others.
//!
//! Modules:
//!
//! - `chain`: the sets of a message, and their order
//! - `forward`: sealing messages that this host forwards
//! - `seal`: adding a set
//! - `verify`: verifying the sets

use std::fmt;

use super::dkim;

mod chain;
mod forward;
mod seal;
mod verify;

pub use forward::seal_forwarded;
pub use seal::{NotSealed, Sealer};
pub(super) use verify::wanted;
pub use verify::{key_names, verify};

/// The maximum number of sets in a chain.
pub const MAX_SETS: usize = 50;

/// The result of the verification of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The message has no sets.
    None,
    /// The chain is valid, and nobody has altered the message since it was sealed last.
    Pass,
    /// The chain is broken.
    Fail,
    /// A key could not be looked up at this time.
    TempError,
}

impl Status {
    /// Returns the word for the result in Authentication-Results: fields and in the log.
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::TempError => "temperror",
        }
    }
}

/// The reason why a chain is broken. Its `Display` text contains nothing that a stranger has
/// chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The header is longer than [`MAX_HEADER`](super::dkim::MAX_HEADER).
    HeaderTooLong,
    /// There are more than [`MAX_SETS`] sets.
    TooMany,
    /// A set is incomplete, or the number of a set is missing, malformed or used twice.
    Sets,
    /// A server that sealed the message has found the chain broken, and says so in its seal.
    Reported,
    /// The seal with this number has another result (`cv=`) than it should have.
    Result(usize),
    /// The newest message signature is not valid.
    Message(dkim::Reason),
    /// The seal with this number is not valid.
    Seal(usize, dkim::Reason),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HeaderTooLong => f.write_str("header is too long"),
            Self::TooMany => f.write_str("too many sets"),
            Self::Sets => f.write_str("the sets are not complete and in order"),
            Self::Reported => f.write_str("a sealer found the chain broken"),
            Self::Result(number) => write!(f, "seal {number} has a wrong result"),
            Self::Message(why) => write!(f, "message signature: {why}"),
            Self::Seal(number, why) => write!(f, "seal {number}: {why}"),
        }
    }
}

/// A chain after its verification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// The result of the verification.
    pub status: Status,
    /// The reason for `Fail` and `TempError`.
    pub reason: Option<Reason>,
    /// What each sealer says, in the order in which the sealers have handled the message. The list
    /// is empty unless the chain is valid.
    pub sets: Vec<Sealed>,
}

/// What one sealer says about a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The domain of the seal, in lower case and with A-labels.
    pub domain: String,
    /// The value of the sealer's ARC-Authentication-Results field without line ends: the sealer's
    /// name, and the results of its checks. The text is only as trustworthy as the sealer.
    pub results: String,
}

#[cfg(test)]
mod tests;

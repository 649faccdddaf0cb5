//! Verifies and makes DKIM signatures, by which a domain takes responsibility for a message (RFC
//! 6376, RFC 8301, RFC 8463).
//!
//! The verifier and the signer take the message in pieces, with lines that end in LF. They keep the
//! header, of at most [`MAX_HEADER`] octets, and hashes of the body. The header says which hashes
//! are needed, so a long body costs no memory. Only the topmost [`MAX_SIGNATURES`] signatures are
//! verified.
//!
//! The RFCs leave some decisions open. penfold decides as follows:
//!
//! - The result is `policy` for the algorithm `rsa-sha1`, and for RSA keys with fewer than 1024 or
//!   more than 4096 bits (RFC 8301). The result is `policy`, too, for an expired signature of an
//!   unchanged body.
//! - A signature with `l=` passes only if it covers the whole body. If the body is longer, anybody
//!   may have added the rest, and the result is `policy` with [`Reason::Appended`].
//! - If a signature field cannot be read, the result is `neutral` (RFC 8601 2.7.1). If the key is
//!   missing, malformed, revoked or for another purpose, the result is `permerror`. If the look-up
//!   of the key fails, the result is `temperror`.
//! - A key with `t=y` (the domain is only testing) is used like any other key, because a DKIM
//!   result alone never refuses a message. [`Checked::is_testing`] shows the flag.
//! - If the name of a key has several records, they are tried one after another.
//!
//! Modules:
//!
//! - `body`: hashes of the body, several at once
//! - `canon`: the canonical forms of headers and bodies
//! - `der`: the encoding of public keys
//! - `header`: which fields are signed, and the text that is signed
//! - `key`: private keys and their records
//! - `record`: key records in the DNS
//! - `sign`: making signatures
//! - `signature`: the signature field
//! - `tags`: tag lists
//! - `verify`: verifying signatures

use std::fmt;

use crate::outcome::NoAnswer;

pub(super) mod body;
pub(super) mod canon;
pub(super) mod der;
pub(super) mod header;
mod key;
mod record;
pub(super) mod sign;
pub(super) mod signature;
pub(super) mod tags;
pub(super) mod verify;

pub use key::{KeyError, SigningKey};
pub use record::Record;
pub use sign::{NotSigned, Signer};
pub use signature::named_key;
pub use verify::{Signatures, Verifier};

/// The maximum length of a header, in octets. Signatures of a message with a longer header are
/// neither verified nor made.
pub const MAX_HEADER: usize = 128 * 1024;
/// The maximum number of signatures of a message that are verified.
pub const MAX_SIGNATURES: usize = 10;

/// An algorithm with which penfold verifies and signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// RSA with SHA-256.
    RsaSha256,
    /// Ed25519 with SHA-256.
    Ed25519Sha256,
}

impl Algorithm {
    /// Returns the algorithm with a name from `a=`. Returns `None` if penfold does not support it.
    fn parse(name: &str) -> Option<Self> {
        [Self::RsaSha256, Self::Ed25519Sha256].into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// Returns the name of the algorithm in `a=`.
    pub fn name(self) -> &'static str {
        match self {
            Self::RsaSha256 => "rsa-sha256",
            Self::Ed25519Sha256 => "ed25519-sha256",
        }
    }
}

/// The result of a verification (RFC 8601 2.7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The signature is valid and accepted.
    Pass,
    /// The message was altered after it was signed, or another key has signed it.
    Fail,
    /// The signature field cannot be read.
    Neutral,
    /// The signature is of a kind that penfold does not accept, for example because its key is too
    /// short.
    Policy,
    /// The signature can never be verified, for example because there is no key.
    PermError,
    /// The key could not be looked up at this time.
    TempError,
}

impl Status {
    /// Returns the word for the result in Authentication-Results: fields and in the log.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Neutral => "neutral",
            Self::Policy => "policy",
            Self::PermError => "permerror",
            Self::TempError => "temperror",
        }
    }
}

/// The reason why a signature does not pass. Its `Display` text contains nothing that a stranger
/// has chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The part of the signature field that is missing or malformed.
    Malformed(&'static str),
    /// The version in `v=` is not 1.
    Version,
    /// The algorithm is unknown.
    Algorithm,
    /// The canonical form is unknown.
    Canonicalization,
    /// The signature says that the key is not in the DNS, but is found by another method (`q=`).
    Query,
    /// The algorithm is rsa-sha1.
    Sha1,
    /// The RSA key has this number of bits, which is not accepted.
    KeySize(usize),
    /// The signature has expired.
    Expired,
    /// The body is longer than the part that is signed (`l=`).
    Appended,
    /// The hash of the body is not the one in the signature.
    BodyAltered,
    /// The body is shorter than `l=` says.
    BodyTooShort,
    /// The signature does not match the header and the key.
    Mismatch,
    /// From is not signed.
    FromNotSigned,
    /// The identity `i=` is outside the signing domain, or is in a subdomain that the key excludes.
    Identity,
    /// The DNS has no key under the name that the signature gives.
    NoKey,
    /// The part of the key record that is missing or malformed.
    Record(&'static str),
    /// The key was revoked.
    Revoked,
    /// The key is for another algorithm.
    KeyType,
    /// The key record does not allow SHA-256.
    KeyHash,
    /// The key record says that the key is not for mail.
    KeyService,
    /// The header is longer than [`MAX_HEADER`].
    HeaderTooLong,
    /// The look-up of the key failed.
    NoAnswer(NoAnswer),
}

impl Reason {
    /// Returns the result that follows from this reason.
    pub fn status(&self) -> Status {
        match self {
            Self::Malformed(_) | Self::Version | Self::Algorithm | Self::Canonicalization | Self::Query => {
                Status::Neutral
            }
            Self::Sha1 | Self::KeySize(_) | Self::Expired | Self::Appended | Self::HeaderTooLong => Status::Policy,
            Self::BodyAltered | Self::BodyTooShort | Self::Mismatch => Status::Fail,
            Self::FromNotSigned
            | Self::Identity
            | Self::NoKey
            | Self::Record(_)
            | Self::Revoked
            | Self::KeyType
            | Self::KeyHash
            | Self::KeyService => Status::PermError,
            Self::NoAnswer(_) => Status::TempError,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed(part) => return write!(f, "malformed signature field: {part}"),
            Self::Version => "unknown signature version",
            Self::Algorithm => "unknown algorithm",
            Self::Canonicalization => "unknown canonicalization",
            Self::Query => "unknown query method",
            Self::Sha1 => "rsa-sha1 is not accepted",
            Self::KeySize(bits) => return write!(f, "RSA keys of {bits} bits are not accepted"),
            Self::Expired => "signature has expired",
            Self::Appended => "body continues after the signed part",
            Self::BodyAltered => "body was altered",
            Self::BodyTooShort => "body is shorter than the signed part",
            Self::Mismatch => "header was altered, or signed with another key",
            Self::FromNotSigned => "From is not signed",
            Self::Identity => "identity is outside the signing domain",
            Self::NoKey => "no key",
            Self::Record(part) => return write!(f, "malformed key record: {part}"),
            Self::Revoked => "key was revoked",
            Self::KeyType => "key is for another algorithm",
            Self::KeyHash => "key is for another hash algorithm",
            Self::KeyService => "key is not for mail",
            Self::HeaderTooLong => "header is too long",
            Self::NoAnswer(why) => return write!(f, "no answer about the key: {why}"),
        })
    }
}

/// A signature after its verification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The signing domain, `d=`, in lower case and with A-labels; empty if the field has no valid
    /// one.
    pub domain: String,
    /// The selector, `s=`; empty if the field has no valid one.
    pub selector: String,
    /// The algorithm; `None` if penfold does not support it.
    pub algorithm: Option<Algorithm>,
    /// The first characters of the signature, which tell it from others of the same domain
    /// (`header.b`, RFC 6008).
    pub mark: String,
    /// The result of the verification.
    pub status: Status,
    /// The reason for the result; `None` if the signature passes.
    pub reason: Option<Reason>,
    /// Whether the domain says that it only tests DKIM (`t=y` in the key record).
    pub is_testing: bool,
}

impl Checked {
    /// Returns whether the signature passes. The domain is then responsible for the message.
    pub fn is_pass(&self) -> bool {
        self.status == Status::Pass
    }
}

#[cfg(test)]
pub(super) mod tests;

//! DKIM: signatures of domains, verified and made (RFC 6376, RFC 8301, RFC 8463).
//!
//! Both directions take the message in pieces, with LF line ends, and keep the header, of at most
//! [`MAX_HEADER`] octets, and hashes of the body. The header says which hashes are needed, so a
//! body of any size costs no memory. All text from outside is bounded: at most [`MAX_SIGNATURES`]
//! signatures are verified, the topmost ones.
//!
//! Some decisions that the RFCs leave open:
//!
//! - `rsa-sha1`, and RSA keys with fewer than 1024 or more than 4096 bits, are `policy` results
//!   (RFC 8301). So are signatures that have expired, if the body is unchanged.
//! - A signature with `l=` counts only if it covers the whole body. If the body is longer, anybody
//!   can have added the rest, and the result is `policy`, with [`Reason::Appended`].
//! - A signature field that cannot be read is `neutral` (RFC 8601 2.7.1). A missing, malformed or
//!   revoked key, and a key for another purpose, are `permerror`. A look-up that failed is
//!   `temperror`.
//! - A key with `t=y` is an ordinary key: a domain that only tests loses nothing, since no result
//!   here refuses a message. [`Checked::is_testing`] shows the flag.
//! - If a key name has several records, each record that can be a key for the signature is tried.
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
mod der;
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
pub use verify::{Signatures, Verifier};

/// The maximum length of a header, in octets. Signatures of a message with a longer header are
/// neither verified nor made.
pub const MAX_HEADER: usize = 128 * 1024;
/// The maximum number of signatures of a message that are verified.
pub const MAX_SIGNATURES: usize = 10;

/// An algorithm that penfold verifies and signs with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// RSA with SHA-256.
    RsaSha256,
    /// Ed25519 with SHA-256.
    Ed25519Sha256,
}

impl Algorithm {
    /// The algorithm with a name from `a=`.
    fn parse(name: &str) -> Option<Self> {
        [Self::RsaSha256, Self::Ed25519Sha256].into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// The name in `a=`.
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
    /// The signature is valid, and nothing speaks against it.
    Pass,
    /// The message was altered after it was signed, or another key has signed it.
    Fail,
    /// The signature field cannot be read.
    Neutral,
    /// The signature is of a kind that is not accepted here.
    Policy,
    /// The signature can never be verified, for example because there is no key.
    PermError,
    /// The key could not be looked up at this time.
    TempError,
}

impl Status {
    /// The word for the result in Authentication-Results fields and in the log.
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
    /// The key is not in the DNS, but somewhere that only other verifiers know.
    Query,
    /// The algorithm is rsa-sha1.
    Sha1,
    /// The RSA key has this number of bits, which is not accepted.
    KeySize(usize),
    /// The signature has expired.
    Expired,
    /// The body goes on after the part that is signed (`l=`).
    Appended,
    /// The body is not the one that was signed.
    BodyAltered,
    /// The body is shorter than `l=` says.
    BodyTooShort,
    /// The signature does not fit the header and the key.
    Mismatch,
    /// From is not signed.
    FromNotSigned,
    /// The identity `i=` is not in the signing domain, or in a subdomain that the key excludes.
    Identity,
    /// There is no key with this name.
    NoKey,
    /// The part of the key record that is missing or malformed.
    Record(&'static str),
    /// The key was revoked.
    Revoked,
    /// The key is for another algorithm.
    KeyType,
    /// The key may not be used with SHA-256.
    KeyHash,
    /// The key is not for mail.
    KeyService,
    /// The header is longer than [`MAX_HEADER`].
    HeaderTooLong,
    /// The look-up of the key failed.
    NoAnswer(NoAnswer),
}

impl Reason {
    /// The result that this reason stands for.
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
    /// The algorithm, if it is one that penfold knows.
    pub algorithm: Option<Algorithm>,
    /// The first characters of the signature, which tell it from others of the same domain
    /// (`header.b`, RFC 6008).
    pub mark: String,
    /// The result.
    pub status: Status,
    /// The reason for any result but pass.
    pub reason: Option<Reason>,
    /// Whether the domain says that it only tests DKIM (`t=y` in the key record).
    pub is_testing: bool,
}

impl Checked {
    /// Whether the signature is valid, so that the domain answers for the message.
    pub fn is_pass(&self) -> bool {
        self.status == Status::Pass
    }
}

#[cfg(test)]
pub(super) mod tests;

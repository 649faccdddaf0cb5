//! Parses key records in the DNS, and verifies signatures with their keys (RFC 6376 3.6.1, RFC
//! 8463).

use ring::digest::{SHA256, digest};
use ring::signature::{ED25519, RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, UnparsedPublicKey};

use super::der;
use super::key::SigningKey;
use super::tags::{Tags, base64, parts};
use super::{Algorithm, Reason};

/// The maximum length of a record, in octets. A record with an RSA key of 4096 bits needs about
/// 750.
const MAX_RECORD: usize = 4096;
/// The maximum length of a decoded key, in octets.
const MAX_KEY: usize = 2048;
/// The numbers of bits of RSA keys that are accepted (RFC 8301 3.2).
const RSA_BITS: std::ops::RangeInclusive<usize> = 1024..=4096;

/// A key record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    key: PublicKey,
    /// Whether the domain is only testing DKIM (`t=y`).
    pub is_testing: bool,
    /// Whether `i=` of a signature must not be in a subdomain (`t=s`).
    pub is_strict: bool,
}

/// A public key, which verifies signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
enum PublicKey {
    /// An RSA key, as the RSAPublicKey of RFC 8017.
    Rsa(Vec<u8>),
    /// An Ed25519 key.
    Ed25519([u8; 32]),
}

impl Record {
    /// Parses a record. The error is the reason why the record cannot verify any signature.
    pub fn parse(text: &[u8]) -> Result<Self, Reason> {
        let tags = if text.len() > MAX_RECORD { None } else { Tags::parse(text) };
        let tags = tags.ok_or(Reason::Record("tag list"))?;
        let is_version = tags.get("v").is_none_or(|version| version == "DKIM1" && tags.first() == Some("v"));
        if !is_version {
            return Err(Reason::Record("v="));
        }
        let has =
            |tag, wanted: &[&str]| tags.get(tag).is_none_or(|list| parts(list).any(|part| wanted.contains(&part)));
        if !has("h", &["sha256"]) {
            return Err(Reason::KeyHash);
        }
        if !has("s", &["*", "email"]) {
            return Err(Reason::KeyService);
        }
        let text = tags.get("p").ok_or(Reason::Record("p="))?;
        if text.is_empty() {
            return Err(Reason::Revoked);
        }
        let octets = base64(text, MAX_KEY).ok_or(Reason::Record("p="))?;
        let key = match tags.get("k").unwrap_or("rsa") {
            "rsa" => rsa(&octets)?,
            "ed25519" => PublicKey::Ed25519(octets.try_into().map_err(|_| Reason::Record("p="))?),
            _ => return Err(Reason::KeyType),
        };
        let flag = |flag| tags.get("t").is_some_and(|flags| parts(flags).any(|one| one == flag));
        Ok(Self { key, is_testing: flag("y"), is_strict: flag("s") })
    }

    /// Returns whether the key is for this algorithm.
    pub fn fits(&self, algorithm: Algorithm) -> bool {
        match self.key {
            PublicKey::Rsa(_) => algorithm == Algorithm::RsaSha256,
            PublicKey::Ed25519(_) => algorithm == Algorithm::Ed25519Sha256,
        }
    }

    /// Returns whether the record publishes the public part of a private key.
    pub fn publishes(&self, key: &SigningKey) -> bool {
        let public = key.public_key();
        match &self.key {
            PublicKey::Rsa(own) => der::rsa_public_key(&public).is_some_and(|(other, _)| own == other),
            PublicKey::Ed25519(own) => own[..] == public,
        }
    }

    /// Returns whether `signature` is a signature of `text` by this key.
    pub fn verifies(&self, text: &[u8], signature: &[u8]) -> bool {
        match &self.key {
            PublicKey::Rsa(key) => {
                UnparsedPublicKey::new(&RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, key).verify(text, signature)
            }
            // Ed25519 signs the hash of the text instead of the text (RFC 8463 3).
            PublicKey::Ed25519(key) => {
                UnparsedPublicKey::new(&ED25519, key).verify(digest(&SHA256, text).as_ref(), signature)
            }
        }
        .is_ok()
    }
}

/// Reads an RSA key of an accepted size. RFC 6376 describes an RSAPublicKey, but nearly all domains
/// publish a SubjectPublicKeyInfo, so both forms are accepted.
fn rsa(octets: &[u8]) -> Result<PublicKey, Reason> {
    let (key, bits) = der::rsa_public_key(octets).ok_or(Reason::Record("p="))?;
    if !RSA_BITS.contains(&bits) {
        return Err(Reason::KeySize(bits));
    }
    Ok(PublicKey::Rsa(key.to_vec()))
}

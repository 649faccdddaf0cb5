//! Reads private keys, signs with them, and makes the DNS records of their public keys.

use std::fmt;

use data_encoding::BASE64;
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::{self, PemObject};

use super::{Algorithm, der};

/// A private key.
pub struct SigningKey(Pair);

enum Pair {
    Rsa(Box<RsaKeyPair>),
    Ed25519(Ed25519KeyPair),
}

/// The reason why a text is not a usable private key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyError {
    /// The text is not PEM, or the PEM is malformed.
    NotPem,
    /// The text has no private key, or the key is protected with a password.
    NoKey,
    /// The key is neither RSA nor Ed25519.
    Type,
    /// The library ring rejects the key for this reason.
    Rejected(String),
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPem => f.write_str("not a PEM file"),
            Self::NoKey => f.write_str("no private key without a password"),
            Self::Type => f.write_str("neither an RSA key of 2048 to 4096 bits nor an Ed25519 key"),
            Self::Rejected(why) => {
                write!(f, "the key was rejected ({why}); expected RSA with 2048 to 4096 bits, or Ed25519")
            }
        }
    }
}

impl std::error::Error for KeyError {}

impl fmt::Debug for SigningKey {
    /// Shows no part of the key, because the key is secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.algorithm().name())
    }
}

impl SigningKey {
    /// Reads a private key from PEM: PKCS #8 (`PRIVATE KEY`) or, for RSA, PKCS #1
    /// (`RSA PRIVATE KEY`). RSA keys have 2048 to 4096 bits.
    ///
    /// # Errors
    /// A [`KeyError`].
    pub fn from_pem(text: &[u8]) -> Result<Self, KeyError> {
        let key = PrivateKeyDer::from_pem_slice(text).map_err(|e| match e {
            pem::Error::NoItemsFound => KeyError::NoKey,
            _ => KeyError::NotPem,
        })?;
        match key {
            PrivateKeyDer::Pkcs1(key) => Self::rsa(RsaKeyPair::from_der(key.secret_pkcs1_der())),
            PrivateKeyDer::Pkcs8(key) => Self::from_pkcs8(key.secret_pkcs8_der()),
            _ => Err(KeyError::Type),
        }
    }

    /// Reads a private key from PKCS #8.
    ///
    /// # Errors
    /// A [`KeyError`].
    pub fn from_pkcs8(octets: &[u8]) -> Result<Self, KeyError> {
        // Some programs write a private key without its public key. This function of ring accepts
        // that.
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(octets) {
            return Ok(Self(Pair::Ed25519(pair)));
        }
        Self::rsa(RsaKeyPair::from_pkcs8(octets))
    }

    fn rsa(pair: Result<RsaKeyPair, ring::error::KeyRejected>) -> Result<Self, KeyError> {
        let pair = pair.map_err(|why| KeyError::Rejected(why.to_string()))?;
        Ok(Self(Pair::Rsa(Box::new(pair))))
    }

    /// Returns the algorithm of the key's signatures.
    pub fn algorithm(&self) -> Algorithm {
        match self.0 {
            Pair::Rsa(_) => Algorithm::RsaSha256,
            Pair::Ed25519(_) => Algorithm::Ed25519Sha256,
        }
    }

    /// Returns the public key as the octets that `p=` in a key record encodes in base64.
    pub fn public_key(&self) -> Vec<u8> {
        match &self.0 {
            Pair::Rsa(pair) => der::subject_public_key_info(pair.public_key().as_ref()),
            Pair::Ed25519(pair) => pair.public_key().as_ref().to_vec(),
        }
    }

    /// Returns the text of the TXT record that publishes the public key.
    pub fn record(&self) -> String {
        let kind = match self.0 {
            Pair::Rsa(_) => "rsa",
            Pair::Ed25519(_) => "ed25519",
        };
        format!("v=DKIM1; k={kind}; p={}", BASE64.encode(&self.public_key()))
    }

    /// Signs a text. Returns `None` if the system has no random numbers.
    pub(in crate::mailauth) fn sign(&self, text: &[u8]) -> Option<Vec<u8>> {
        match &self.0 {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text, &mut signature).ok()?;
                Some(signature)
            }
            // Ed25519 signs the hash of the text instead of the text (RFC 8463 3).
            Pair::Ed25519(pair) => Some(pair.sign(digest(&SHA256, text).as_ref()).as_ref().to_vec()),
        }
    }
}

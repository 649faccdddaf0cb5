//! The digest of a public key, and the TLSA record that publishes it (RFC 6698).
//!
//! The record is of the kind `3 1 1`: the server itself (DANE-EE), by the SHA-256 of its public key.
//! A renewed certificate with the same key needs no new record.

use std::fmt;

use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::{PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, SubjectPublicKeyInfoDer};
use rustls::server::ParsedCertificate;

/// The SHA-256 of a public key (SubjectPublicKeyInfo).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyDigest([u8; 32]);

impl KeyDigest {
    /// The digest of the key of a certificate; `None` if the certificate is malformed.
    pub fn of_certificate(certificate: &CertificateDer<'_>) -> Option<Self> {
        let parsed = ParsedCertificate::try_from(certificate).ok()?;
        Some(Self::of_key(&parsed.subject_public_key_info()))
    }

    fn of_key(key: &[u8]) -> Self {
        let mut octets = [0; 32];
        octets.copy_from_slice(digest(&SHA256, key).as_ref());
        Self(octets)
    }

    /// The digest of the key in a PEM file: of its first certificate, private key or public key.
    ///
    /// # Errors
    /// What is wrong with the file. The text contains nothing of a key.
    pub fn of_pem(text: &[u8]) -> Result<Self, &'static str> {
        match Section::from_pem_slice(text).map_err(|_| "expected a certificate or a key in PEM; there is none")? {
            Section::Certificate(der) => Self::of_certificate(&der).ok_or("the certificate is malformed"),
            Section::PrivateKey(der) => {
                let unsupported =
                    "a private key of a kind that is not supported; expected RSA, P-256, P-384 or Ed25519";
                let key = any_supported_type(&der).map_err(|_| unsupported)?;
                key.public_key().map(|public| Self::of_key(&public)).ok_or(unsupported)
            }
            Section::PublicKey(der) => Ok(Self::of_key(&der)),
        }
    }

    /// The data of the TLSA record.
    pub fn data(&self) -> String {
        format!("3 1 1 {self}")
    }
}

/// The hexadecimal digits.
impl fmt::Display for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

/// The name of the TLSA records of a mail exchanger.
pub fn tlsa_name(host: &str) -> String {
    format!("_25._tcp.{}", host.trim_end_matches('.'))
}

/// The first certificate of a PEM file.
pub fn first_certificate(text: &[u8]) -> Option<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(text).ok()
}

/// The sections of a PEM file that contain a public key.
enum Section {
    Certificate(CertificateDer<'static>),
    PrivateKey(PrivateKeyDer<'static>),
    PublicKey(SubjectPublicKeyInfoDer<'static>),
}

impl PemObject for Section {
    fn from_pem(kind: SectionKind, value: Vec<u8>) -> Option<Self> {
        match kind {
            SectionKind::Certificate => Some(Self::Certificate(value.into())),
            SectionKind::PublicKey => Some(Self::PublicKey(value.into())),
            _ => PrivateKeyDer::from_pem(kind, value).map(Self::PrivateKey),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, PublicKeyData};

    #[test]
    fn certificate_private_key_and_public_key_have_one_digest() {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["mx.example.org".to_owned()]).expect("a name");
        let certificate = params.self_signed(&key).expect("a certificate").pem();
        let (private, public) = (key.serialize_pem(), key.public_key_pem());
        let wanted = Ok(KeyDigest::of_key(&key.subject_public_key_info()));
        // Only the first certificate of a chain counts, and sections of other kinds do not.
        let other = CertificateParams::default().self_signed(&KeyPair::generate().expect("a key"));
        let chain = format!("{certificate}{}", other.expect("a certificate").pem());
        let parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
        for text in [&certificate, &private, &public, &chain, &format!("words\n{parameters}{private}")] {
            assert_eq!(KeyDigest::of_pem(text.as_bytes()), wanted, "{text}");
        }
        let cut = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
        let strange = "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n";
        for (text, error) in [
            ("", "expected a certificate or a key in PEM"),
            (private.split_at(60).0, "expected a certificate or a key in PEM"),
            (cut, "the certificate is malformed"),
            (strange, "a private key of a kind that is not supported"),
        ] {
            let found = KeyDigest::of_pem(text.as_bytes()).expect_err("no digest");
            assert!(found.starts_with(error), "{found}");
        }
    }

    /// Made with OpenSSL: `openssl pkey -pubin -outform DER | openssl dgst -sha256`.
    #[test]
    fn the_record_is_that_of_others() {
        let public = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n";
        let digest = KeyDigest::of_pem(public.as_bytes()).expect("a key");
        assert_eq!(digest.data(), "3 1 1 06e3fd8fda29bb60ab59557de61edb0aecdb231134be30e75b455f8e1b792fa9");
        assert_eq!(tlsa_name("mx.example.org."), "_25._tcp.mx.example.org");
    }
}

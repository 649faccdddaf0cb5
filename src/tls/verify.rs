//! Verifies the certificate of a host in the handshake, and records the result.
//!
//! The result is recorded also where a failed verification does not end the connection, so that it
//! can be reported. A signature in the handshake proves that the host has the key of its certificate.
//! It is verified with the key alone, because DANE accepts certificates that are otherwise malformed
//! or of version 1.

use std::sync::{Arc, Mutex, PoisonError};

use ring::digest::{SHA256, SHA512, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::dane::Associations;
use super::der::Parts;
use super::fault::{Fault, FaultKind};

/// The result of the verification of a host, which can be read after the handshake.
#[derive(Debug, Clone, Default)]
pub struct Verdict(Arc<Mutex<Option<Result<(), Fault>>>>);

impl Verdict {
    /// Whether the certificate was verified and is valid.
    pub fn is_verified(&self) -> bool {
        matches!(self.lock().as_ref(), Some(Ok(())))
    }

    /// Why the certificate is not valid. `None` if it is valid, or was not verified.
    pub fn fault(&self) -> Option<Fault> {
        self.lock().as_ref().and_then(|result| result.as_ref().err().cloned())
    }

    /// Records a result, unless a failure is recorded already.
    pub(super) fn record(&self, result: Result<(), Fault>) {
        let mut seen = self.lock();
        if !matches!(&*seen, Some(Err(_))) {
            *seen = Some(result);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Result<(), Fault>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A digest of a certificate or of its key: SHA-256 or SHA-512.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint(Box<[u8]>);

impl Fingerprint {
    /// Reads a fingerprint in hexadecimal, with or without colons. `None` if it is malformed or its
    /// length is that of neither digest.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.replace(':', "");
        let digest = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?;
        [SHA256.output_len(), SHA512.output_len()].contains(&digest.len()).then(|| Self(digest.into()))
    }

    fn matches(&self, certificate: &[u8]) -> bool {
        let algorithm = if self.0.len() == SHA256.output_len() { &SHA256 } else { &SHA512 };
        let is_digest_of = |der: &[u8]| digest(algorithm, der).as_ref() == &*self.0;
        is_digest_of(certificate) || Parts::of(certificate).is_some_and(|parts| is_digest_of(parts.key))
    }
}

/// What proves the identity of a host.
#[derive(Debug)]
pub(super) enum Proof {
    Authority { roots: Arc<RootCertStore>, names: Vec<Box<str>> },
    Dane(Arc<Associations>),
    Fingerprints(Arc<[Fingerprint]>),
}

/// A verifier for one connection.
#[derive(Debug)]
pub(super) struct Verifier {
    pub(super) proof: Proof,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
    /// Whether the handshake fails if the certificate is not valid.
    pub(super) is_enforced: bool,
    pub(super) verdict: Verdict,
}

impl Verifier {
    pub(super) fn verify(
        &self,
        host: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        match &self.proof {
            Proof::Authority { roots, names } => {
                let parsed = ParsedCertificate::try_from(host)?;
                verify_server_cert_signed_by_trust_anchor(&parsed, roots, others, now, self.algorithms.all)?;
                is_for_any(&parsed, names.iter().map(|name| &**name))
            }
            Proof::Dane(associations) => associations.verify(host, others, now, &self.algorithms),
            Proof::Fingerprints(all) if all.iter().any(|fingerprint| fingerprint.matches(host)) => Ok(()),
            Proof::Fingerprints(_) => {
                let why = "the certificate has none of the fingerprints in the configuration";
                Err(Fault::new(FaultKind::NotTrusted, why).into_error())
            }
        }
    }

    /// Records a result; fails only if it is a failure and the verification is enforced.
    fn conclude(&self, result: Result<(), Error>) -> Result<(), Error> {
        self.verdict.record(result.as_ref().map_err(Fault::of).copied());
        if self.is_enforced { result } else { Ok(()) }
    }

    fn check_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
        is_tls13: bool,
    ) -> Result<(), Error> {
        let parts = Parts::of(certificate).ok_or(CertificateError::BadEncoding)?;
        if is_tls13 {
            let key = SubjectPublicKeyInfoDer::from(parts.key);
            return verify_tls13_signature_with_raw_key(message, &key, signed, &self.algorithms).map(drop);
        }
        let (algorithm, key) = parts.raw_key().ok_or(CertificateError::BadEncoding)?;
        let of_scheme = self.algorithms.mapping.iter().filter(|(scheme, _)| *scheme == signed.scheme);
        let is_valid = of_scheme
            .flat_map(|(_, candidates)| candidates.iter())
            .filter(|candidate| candidate.public_key_alg_id().as_ref() == algorithm)
            .any(|candidate| candidate.verify_signature(key, message, signed.signature()).is_ok());
        if is_valid { Ok(()) } else { Err(CertificateError::BadSignature.into()) }
    }

    fn conclude_signature(&self, result: Result<(), Error>) -> Result<HandshakeSignatureValid, Error> {
        // A valid signature says nothing about the certificate, so only a failure is recorded.
        match result {
            Ok(()) => Ok(()),
            failure => self.conclude(failure),
        }
        .map(|()| HandshakeSignatureValid::assertion())
    }
}

/// Whether a certificate is for one of the names, which are domains or IP addresses.
///
/// # Errors
/// `NotValidForName`.
pub(super) fn is_for_any<'a>(
    certificate: &ParsedCertificate<'_>,
    names: impl Iterator<Item = &'a str>,
) -> Result<(), Error> {
    let mut failure = Error::from(CertificateError::NotValidForName);
    for name in names.filter_map(|name| ServerName::try_from(name).ok()) {
        match verify_server_name(certificate, &name) {
            Ok(()) => return Ok(()),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        host: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.conclude(self.verify(host, others, now)).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.conclude_signature(self.check_signature(message, certificate, signed, false))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.conclude_signature(self.check_signature(message, certificate, signed, true))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// A verifier that accepts every certificate.
#[derive(Debug)]
pub(super) struct AcceptAny {
    pub(super) schemes: Vec<SignatureScheme>,
}

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

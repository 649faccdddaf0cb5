//! Makes TLS connections to hosts as a client, and verifies the hosts' certificates.
//!
//! With [`Verification::None`] every certificate is accepted: the connection is protected against
//! passive eavesdroppers, and an unverifiable certificate is no worse than plaintext. With
//! [`Verification::Required`] an authority that this system trusts must have issued the certificate
//! for the host's name.

use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::provider;
use crate::config::ConfigError;
use crate::config::table::read_text;

/// How a host's certificate is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verification {
    /// The certificate is not verified.
    None,
    /// The certificate must be from a trusted authority, and for the name that is passed to
    /// [`Client::connect`].
    Required,
}

/// The TLS settings for connections to hosts.
#[derive(Debug, Default)]
pub struct Client {
    any: OnceLock<Arc<ClientConfig>>,
    verified: OnceLock<Arc<ClientConfig>>,
}

impl Client {
    /// Trusts the system's certificate authorities, which are read when they are first needed.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts only the authorities in a PEM file.
    ///
    /// # Errors
    /// If the file cannot be read, is malformed, or contains no authority.
    pub fn with_authorities(file: &Path) -> Result<Self, Vec<ConfigError>> {
        let wrong = |what: String| vec![ConfigError::whole(file, what)];
        let text = read_text(file).map_err(|e| vec![e])?;
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
        let found = found.map_err(|e| wrong(format!("expected certificates in PEM: {e}")))?;
        let verified =
            verify(found).map_err(|_| wrong("expected a certificate authority in PEM; there is none".into()))?;
        Ok(Self { verified: OnceLock::from(Arc::new(verified)), ..Self::default() })
    }

    /// Returns a connection to the host `name`, a domain or an IP address, before its handshake.
    ///
    /// # Errors
    /// If no certificate can be for such a name, or if none of the authorities can be used.
    pub fn connect(&self, name: &str, verification: Verification) -> io::Result<rustls::Connection> {
        let config = match verification {
            Verification::None => get(&self.any, accept_any)?,
            Verification::Required => get(&self.verified, || verify(rustls_native_certs::load_native_certs().certs))?,
        };
        let name = ServerName::try_from(name.trim_end_matches('.').to_owned())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("{name} is no name for TLS")))?;
        ClientConnection::new(config, name).map(Into::into).map_err(io::Error::other)
    }
}

fn verify(authorities: Vec<CertificateDer<'static>>) -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    // Some systems have authorities that cannot be parsed; these are ignored.
    roots.add_parsable_certificates(authorities);
    if roots.is_empty() {
        return Err(io::Error::other("no certificate authority is known to this system"));
    }
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build().map_err(io::Error::other)?;
    configure(verifier)
}

fn get(
    slot: &OnceLock<Arc<ClientConfig>>,
    make: impl Fn() -> io::Result<ClientConfig>,
) -> io::Result<Arc<ClientConfig>> {
    match slot.get() {
        Some(config) => Ok(Arc::clone(config)),
        None => make().map(|made| Arc::clone(slot.get_or_init(|| Arc::new(made)))),
    }
}

fn accept_any() -> io::Result<ClientConfig> {
    configure(Arc::new(AcceptAny { schemes: provider().signature_verification_algorithms.supported_schemes() }))
}

fn configure(verifier: Arc<dyn ServerCertVerifier>) -> io::Result<ClientConfig> {
    let versions = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let mut config = versions.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    // A resumed connection would skip the verification of the host.
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// A verifier that accepts every certificate.
#[derive(Debug)]
struct AcceptAny {
    schemes: Vec<SignatureScheme>,
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

//! Makes TLS connections to hosts as a client, each with the [`Verification`] that its host needs.
//!
//! With [`Verification::None`] every certificate is accepted: the connection is protected against
//! passive eavesdroppers, and an unverifiable certificate is no worse than plaintext. A verification
//! is *enforced* if a failure ends the connection. Otherwise the connection is made all the same, and
//! the failure can be read from the [`Verdict`] and reported.

use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::dane::Associations;
use super::fault::{Fault, FaultKind};
use super::provider;
use super::verify::{AcceptAny, Fingerprint, Proof, Verdict, Verifier};
use crate::config::ConfigError;
use crate::config::table::read_text;

/// How a host's certificate is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verification {
    /// The certificate is not verified.
    None,
    /// An authority that this system trusts must have issued the certificate for one of the names,
    /// or, if there are none, for the name that is passed to [`Client::connect`].
    Authority {
        /// The names, in lower case.
        names: Vec<String>,
    },
    /// The TLSA records of the host must match the certificate.
    Dane(Arc<Associations>),
    /// The certificate or its key must have one of these fingerprints.
    Fingerprints(Arc<[Fingerprint]>),
}

impl Verification {
    /// The verification by an authority and the name of the host.
    pub fn authority() -> Self {
        Self::Authority { names: Vec::new() }
    }
}

/// The TLS settings for connections to hosts.
#[derive(Debug, Clone)]
pub struct Client {
    any: OnceLock<Arc<ClientConfig>>,
    authorities: OnceLock<Arc<RootCertStore>>,
    /// Reads the authorities when they are first needed.
    read: fn() -> Vec<CertificateDer<'static>>,
}

impl Default for Client {
    fn default() -> Self {
        Self::reading(|| rustls_native_certs::load_native_certs().certs)
    }
}

impl Client {
    /// Trusts the system's certificate authorities, which are read when they are first needed.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts the authorities that a function reads.
    pub(super) fn reading(read: fn() -> Vec<CertificateDer<'static>>) -> Self {
        Self { any: OnceLock::new(), authorities: OnceLock::new(), read }
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
        let found =
            authorities(found).map_err(|_| wrong("expected a certificate authority in PEM; there is none".into()))?;
        Ok(Self { authorities: OnceLock::from(found), ..Self::default() })
    }

    /// Returns a connection to the host `name`, a domain or an IP address, before its handshake. The
    /// verdict is there after the handshake. If the verification is enforced and fails, the handshake
    /// fails. If it is not enforced and this system has no authorities, every certificate is accepted,
    /// and the verdict says why.
    ///
    /// # Errors
    /// If no certificate can be for such a name, or if the verification is enforced and none of the
    /// authorities can be used.
    pub fn connect(
        &self,
        name: &str,
        verification: &Verification,
        is_enforced: bool,
    ) -> io::Result<(rustls::Connection, Verdict)> {
        let verdict = Verdict::default();
        let name = match verification {
            Verification::Dane(associations) => associations.base(),
            _ => name,
        };
        let name = name.trim_end_matches('.');
        let proof = match self.proof(name, verification) {
            Err(error) if !is_enforced => {
                verdict.record(Err(Fault::of_handshake(&error)));
                None
            }
            proof => proof?,
        };
        let config = match proof {
            None => get(&self.any, || accept_any().map(Arc::new))?,
            Some(proof) => {
                let algorithms = provider().signature_verification_algorithms;
                let verdict = verdict.clone();
                Arc::new(configure(Arc::new(Verifier { proof, algorithms, is_enforced, verdict }))?)
            }
        };
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("{name} is no name for TLS")))?;
        let connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
        Ok((connection.into(), verdict))
    }

    /// Verifies certificates without a connection: first that of the host, then those that it sends
    /// with it.
    ///
    /// # Errors
    /// Why the certificate is not valid.
    pub fn verify(&self, name: &str, verification: &Verification, chain: &[CertificateDer<'_>]) -> Result<(), Fault> {
        let proof = self.proof(name.trim_end_matches('.'), verification).map_err(|e| Fault::of_handshake(&e))?;
        let Some(proof) = proof else { return Ok(()) };
        let Some((host, others)) = chain.split_first() else {
            return Err(Fault::new(FaultKind::NotTrusted, "the host has no certificate"));
        };
        let algorithms = provider().signature_verification_algorithms;
        let verifier = Verifier { proof, algorithms, is_enforced: true, verdict: Verdict::default() };
        verifier.verify(host, others, UnixTime::now()).map_err(|e| Fault::of(&e))
    }

    /// What must prove the identity of a host; `None` if nothing must.
    fn proof(&self, name: &str, verification: &Verification) -> io::Result<Option<Proof>> {
        Ok(Some(match verification {
            Verification::None => return Ok(None),
            Verification::Authority { names } => {
                let roots = get(&self.authorities, || authorities((self.read)()))?;
                let names = if names.is_empty() { vec![name.into()] } else { boxed(names) };
                Proof::Authority { roots, names }
            }
            Verification::Dane(associations) => Proof::Dane(Arc::clone(associations)),
            Verification::Fingerprints(all) => Proof::Fingerprints(Arc::clone(all)),
        }))
    }
}

fn boxed(names: &[String]) -> Vec<Box<str>> {
    names.iter().map(|name| name.trim_end_matches('.').into()).collect()
}

fn authorities(found: Vec<CertificateDer<'static>>) -> io::Result<Arc<RootCertStore>> {
    let mut roots = RootCertStore::empty();
    // Some systems have authorities that cannot be parsed; these are ignored.
    roots.add_parsable_certificates(found);
    if roots.is_empty() {
        return Err(io::Error::other("no certificate authority is known to this system"));
    }
    Ok(Arc::new(roots))
}

fn get<T>(slot: &OnceLock<Arc<T>>, make: impl Fn() -> io::Result<Arc<T>>) -> io::Result<Arc<T>> {
    match slot.get() {
        Some(kept) => Ok(Arc::clone(kept)),
        None => make().map(|made| Arc::clone(slot.get_or_init(|| made))),
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

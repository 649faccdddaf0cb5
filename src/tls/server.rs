//! Serves TLS, with the certificate for the name that a client requests (SNI).
//!
//! If several certificates are valid for the name, such as one with an RSA key and one with an ECDSA
//! key, the first with a key that the client supports is used. If none is valid, or the client
//! requests no name, the same goes for all certificates.

use std::path::Path;
use std::sync::Arc;

use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, ServerConnection};

use super::certificate::Identity;
use super::digest::KeyDigest;
use super::provider;
use crate::config::{ConfigError, KeyPair};
use crate::privsep::Rights;
use crate::stats::Certificate;

/// The certificates of this server.
#[derive(Debug)]
pub struct Server {
    config: Arc<ServerConfig>,
    identities: Arc<Identities>,
}

/// A certificate that clients may get.
#[derive(Debug)]
pub struct Shown<'a> {
    /// Its file.
    pub file: &'a Path,
    /// The certificate and those of its authorities.
    pub chain: Vec<CertificateDer<'static>>,
    /// The digest of its key.
    pub digest: KeyDigest,
}

#[derive(Debug)]
struct Identities(Vec<Identity>);

impl Server {
    /// Reads certificates and keys; `None` if none are configured.
    ///
    /// # Errors
    /// All errors in the certificates and keys.
    pub fn open(pairs: &[KeyPair], rights: &Rights) -> Result<Option<Arc<Self>>, Vec<ConfigError>> {
        let (mut identities, mut errors) = (Vec::new(), Vec::new());
        for pair in pairs {
            match Identity::open(pair, rights) {
                Ok(identity) => identities.push(identity),
                Err(more) => errors.extend(more),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let Some(first) = pairs.first() else { return Ok(None) };
        let identities = Arc::new(Identities(identities));
        let versions = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|e| vec![ConfigError::whole(&first.certificate, e.to_string())])?;
        let mut config = versions.with_no_client_auth().with_cert_resolver(Arc::clone(&identities) as _);
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Some(Arc::new(Self { config: Arc::new(config), identities })))
    }

    /// Checks all certificates, so that a certificate about to expire is logged even if no client
    /// requests it.
    pub fn check_expiry(&self) {
        self.identities.0.iter().for_each(|identity| drop(identity.current()));
    }

    /// Returns the files of all certificates, and when they expire.
    pub fn certificates(&self) -> Vec<Certificate> {
        self.identities.0.iter().filter_map(Identity::expiry).collect()
    }

    /// Returns the path of each certificate, and its start and its expiry in seconds since 1970, if
    /// they can be read.
    pub fn validity(&self) -> Vec<(&Path, Option<(i64, i64)>)> {
        self.identities.0.iter().map(Identity::validity).collect()
    }

    /// Returns the certificates that clients may get if they request this name.
    pub fn shown_for(&self, name: &str) -> Vec<Shown<'_>> {
        let all = self.identities.0.iter().filter_map(|identity| {
            let chain: Vec<_> = identity.current().cert.iter().map(|der| der.clone().into_owned()).collect();
            let first = chain.first()?.clone();
            Some(((identity.validity().0, chain), first))
        });
        let shown = shown_for(all.collect(), name).into_iter();
        shown.map(|((file, chain), digest)| Shown { file, chain, digest }).collect()
    }

    /// Whether any of the certificates is valid for this name.
    pub fn is_for(&self, name: &str) -> bool {
        ServerName::try_from(name)
            .is_ok_and(|name| self.identities.0.iter().any(|identity| is_for(&identity.current(), &name)))
    }

    /// Returns a new connection with a client, before the handshake.
    ///
    /// # Errors
    /// The errors of rustls, such as lack of memory.
    pub fn accept(&self) -> std::io::Result<rustls::Connection> {
        ServerConnection::new(Arc::clone(&self.config)).map(Into::into).map_err(std::io::Error::other)
    }
}

/// Returns the certificates that clients may get if they request a name: those that are valid for the
/// name, or else the first. With each comes the digest of its key.
pub fn shown_for<T>(all: Vec<(T, CertificateDer<'_>)>, name: &str) -> Vec<(T, KeyDigest)> {
    let name = ServerName::try_from(name).ok();
    let is_valid = |certificate: &CertificateDer<'_>| name.as_ref().is_some_and(|name| is_valid_for(certificate, name));
    let is_any = all.iter().any(|(_, certificate)| is_valid(certificate));
    let most = if is_any { all.len() } else { 1 };
    let shown = all.into_iter().take(most).filter(|(_, certificate)| !is_any || is_valid(certificate));
    shown.filter_map(|(path, certificate)| Some((path, KeyDigest::of_certificate(&certificate)?))).collect()
}

impl ResolvesServerCert for Identities {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let all: Vec<_> = self.0.iter().map(Identity::current).collect();
        if let [only] = all.as_slice() {
            return Some(Arc::clone(only));
        }
        let named = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let is_named = |pair: &CertifiedKey| named.as_ref().is_some_and(|name| is_for(pair, name));
        let is_supported = |pair: &CertifiedKey| pair.key.choose_scheme(hello.signature_schemes()).is_some();
        let found = all.iter().find(|pair| is_named(pair) && is_supported(pair));
        let found = found.or_else(|| all.iter().find(|pair| is_named(pair)));
        let found = found.or_else(|| all.iter().find(|pair| is_supported(pair)));
        found.or(all.first()).map(Arc::clone)
    }
}

/// Whether a certificate is valid for a name.
fn is_for(pair: &CertifiedKey, name: &ServerName<'_>) -> bool {
    pair.end_entity_cert().is_ok_and(|certificate| is_valid_for(certificate, name))
}

fn is_valid_for(certificate: &CertificateDer<'_>, name: &ServerName<'_>) -> bool {
    ParsedCertificate::try_from(certificate).is_ok_and(|certificate| verify_server_name(&certificate, name).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::{ClientConfig, ClientConnection, SignatureScheme};

    use crate::tls::verify::AcceptAny;

    /// The certificate that a client gets that supports these signatures and requests this name;
    /// `None` if the handshake fails.
    fn shown(server: &Server, schemes: &[SignatureScheme], name: &'static str) -> Option<CertificateDer<'static>> {
        let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let verifier = Arc::new(AcceptAny { schemes: schemes.to_vec() });
        let config = config.expect("versions").dangerous().with_custom_certificate_verifier(verifier);
        let config = Arc::new(config.with_no_client_auth());
        let mut client = ClientConnection::new(config, name.try_into().expect("a name")).expect("a client");
        let mut server = server.accept().expect("a server");
        while client.is_handshaking() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).expect("written");
            server.read_tls(&mut wire.as_slice()).expect("read");
            server.process_new_packets().ok()?;
            let mut wire = Vec::new();
            server.write_tls(&mut wire).expect("written");
            client.read_tls(&mut wire.as_slice()).expect("read");
            client.process_new_packets().ok()?;
        }
        client.peer_certificates().and_then(|chain| chain.first().cloned())
    }

    #[test]
    fn a_client_gets_the_certificate_for_its_name_whose_key_it_supports() {
        use SignatureScheme::{ECDSA_NISTP256_SHA256, ED25519, RSA_PSS_SHA256};
        let directory = std::env::temp_dir().join(format!("penfold-shown-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let kinds = [
            ("p256", &rcgen::PKCS_ECDSA_P256_SHA256, "mx.example.org"),
            ("ed25519", &rcgen::PKCS_ED25519, "mx.example.org"),
            ("other", &rcgen::PKCS_ED25519, "other.example.org"),
        ];
        let mut ders = Vec::new();
        let pairs = kinds.map(|(file, kind, name)| {
            let key = rcgen::KeyPair::generate_for(kind).expect("a key");
            let params = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("a name");
            let certificate = params.self_signed(&key).expect("a certificate");
            let path = |end: &str| directory.join(format!("{file}.{end}"));
            std::fs::write(path("pem"), certificate.pem()).expect("a file");
            std::fs::write(path("key"), key.serialize_pem()).expect("a file");
            ders.push(certificate.der().clone());
            KeyPair { certificate: path("pem"), key: path("key") }
        });
        let server = Server::open(&pairs, &Rights::Alone).expect("files").expect("certificates");
        let [p256, ed25519, other] = ders.try_into().expect("three");
        for (schemes, name, wanted) in [
            (&[ED25519, ECDSA_NISTP256_SHA256][..], "mx.example.org", Some(&p256)),
            (&[ECDSA_NISTP256_SHA256], "mx.example.org", Some(&p256)),
            (&[ED25519], "mx.example.org", Some(&ed25519)),
            (&[ED25519, ECDSA_NISTP256_SHA256], "other.example.org", Some(&other)),
            (&[ED25519], "unknown.example.org", Some(&ed25519)),
            (&[ECDSA_NISTP256_SHA256], "unknown.example.org", Some(&p256)),
            (&[RSA_PSS_SHA256], "mx.example.org", None),
            (&[ECDSA_NISTP256_SHA256], "other.example.org", None),
        ] {
            assert_eq!(shown(&server, schemes, name).as_ref(), wanted, "{schemes:?} {name}");
        }
        let files = |name: &str| -> Vec<String> {
            let shown = server.shown_for(name).into_iter();
            shown.map(|one| one.file.file_stem().expect("a name").to_string_lossy().into_owned()).collect()
        };
        assert_eq!(files("mx.example.org"), ["p256", "ed25519"]);
        assert_eq!(files("other.example.org"), ["other"]);
        assert_eq!(files("unknown.example.org"), ["p256"]);
        std::fs::remove_dir_all(&directory).expect("removed");
    }
}

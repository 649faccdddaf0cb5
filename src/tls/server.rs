//! Serves TLS, with the certificate for the name that a client requests (SNI).
//!
//! If no certificate is valid for the name, or the client requests none, the first certificate in
//! the configuration is used.

use std::path::Path;
use std::sync::Arc;

use rustls::client::verify_server_name;
use rustls::pki_types::ServerName;
use rustls::server::{ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, ServerConnection};

use super::certificate::Identity;
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

impl ResolvesServerCert for Identities {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let first = self.0.first()?;
        let named = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let mut others = self.0.iter().map(Identity::current);
        let found =
            if self.0.len() > 1 { named.and_then(|name| others.find(|pair| is_for(pair, &name))) } else { None };
        found.or_else(|| Some(first.current()))
    }
}

/// Whether a certificate is valid for a name.
fn is_for(pair: &CertifiedKey, name: &ServerName<'_>) -> bool {
    let certificate = pair.end_entity_cert().ok().and_then(|der| ParsedCertificate::try_from(der).ok());
    certificate.is_some_and(|certificate| verify_server_name(&certificate, name).is_ok())
}

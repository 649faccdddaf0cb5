//! Provides TLS to [`crate::net`], as a server with certificates, and as a client that verifies
//! hosts.
//!
//! The implementation is rustls with ring: TLS 1.2 and 1.3, without compression and renegotiation.
//! There is no resumption either, because a resumed connection would skip the verification of the
//! peer. [`Server`] chooses a certificate and notices changed files. [`Client`] verifies the
//! certificates of hosts. Both make connections, which [`crate::net`] runs. Errors in the files are
//! errors in the configuration. A failed handshake is an I/O error with the text of rustls.
//!
//! - `certificate`: a certificate and its key, from files that may change
//! - `dane`: a host's certificates compared with its TLSA records
//! - `der`: the parts of a certificate that rustls does not expose
//! - `fault`: why TLS or a verification failed
//! - `digest`: the digest of a public key, as TLSA records publish it
//! - `hybrid`: the key exchange X25519MLKEM768
//! - `server`: TLS as a server: the certificate for the name that a client requests
//! - `trust`: TLS as a client, and the kinds of verification
//! - `verify`: the verification of a host's certificate in the handshake

use std::sync::Arc;

use rustls::CipherSuite;
use rustls::crypto::{CryptoProvider, ring};

use crate::config::{Config, ConfigError};
use crate::privsep::Rights;

mod certificate;
mod dane;
mod der;
mod digest;
mod fault;
#[cfg(feature = "post-quantum")]
mod hybrid;
mod server;
mod trust;
mod verify;

pub use dane::Associations;
pub use digest::{KeyDigest, first_certificate, tlsa_name};
pub use fault::{Fault, FaultKind};
pub use server::{Server, Shown, shown_for};
pub use trust::{Client, Verification};
pub use verify::{Fingerprint, Verdict};

/// TLS as a server and as a client.
#[derive(Debug)]
pub struct Tls {
    /// TLS as a server; `None` if no certificate is configured.
    pub server: Option<Arc<Server>>,
    /// TLS as a client.
    pub client: Client,
}

impl Tls {
    /// Reads the files that the configuration names.
    ///
    /// # Errors
    /// All errors in the files with certificates, keys and authorities.
    pub fn open(config: &Config, rights: &Rights) -> Result<Self, Vec<ConfigError>> {
        let client = match &config.remote.authorities {
            None => Ok(Client::new()),
            Some(file) => Client::with_authorities(file),
        };
        match (Server::open(&config.tls, rights), client) {
            (Ok(server), Ok(client)) => Ok(Self { server, client }),
            (server, client) => Err(server.err().into_iter().chain(client.err()).flatten().collect()),
        }
    }
}

/// The properties of an encrypted connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsInfo {
    /// The protocol version: `TLS1.2` or `TLS1.3`.
    pub version: &'static str,
    /// The name of the cipher suite in IANA's list.
    pub cipher: &'static str,
    /// The channel binding tls-exporter (RFC 9266). `None` with TLS 1.2, because there the binding
    /// would be safe only with an extension.
    pub binding: Option<Vec<u8>>,
}

impl TlsInfo {
    /// Returns the properties of a connection after its handshake.
    pub fn of(connection: &rustls::Connection) -> Self {
        let is_newest = connection.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3);
        let suite = connection.negotiated_cipher_suite();
        let cipher = suite.map_or("unknown", |suite| match suite.suite() {
            CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
            CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
            suite => suite.as_str().unwrap_or("unknown"),
        });
        let exported = || connection.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(b"")).ok();
        let binding = if is_newest { exported().map(Vec::from) } else { None };
        Self { version: if is_newest { "TLS1.3" } else { "TLS1.2" }, cipher, binding }
    }
}

fn provider() -> Arc<CryptoProvider> {
    #[allow(unused_mut)]
    let mut provider = ring::default_provider();
    #[cfg(feature = "post-quantum")]
    provider.kx_groups.insert(0, hybrid::X25519_MLKEM768);
    Arc::new(provider)
}

#[cfg(test)]
mod tests;

//! TLS for servers of the tests: an authority made on the spot, and what it makes out.
//!
//! ```text
//! let authority = Authority::new();
//! let leaf = authority.leaf(&["mx.example.test", "127.0.0.1"], Age::Valid);
//! site.write("authorities.pem", &authority.pem());      remote.authorities
//! Sink { tls: Some(Offer::starttls(&leaf)), ..Sink::default() }     see remote
//! wire.secure(&leaf.config)                               any Wire, as the server
//! leaf.certificate, leaf.key                              PEM, for a server of others
//! ```
//!
//! [`Leaf::selfmade`] is a certificate that nobody has made out but itself. TLS 1.2
//! and 1.3, unless a version is named.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// One who makes out certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// How old a certificate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    Valid,
    Expired,
}

/// A certificate of a server.
pub struct Leaf {
    /// In PEM.
    pub certificate: String,
    /// In PEM.
    pub key: String,
    /// A server that has it.
    pub config: Arc<ServerConfig>,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("no names");
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("Authority {}", NUMBER.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a root").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Its own certificate in PEM.
    pub fn pem(&self) -> String {
        self.pem.clone()
    }

    /// A certificate for names and addresses.
    pub fn leaf(&self, names: &[&str], age: Age) -> Leaf {
        let key = KeyPair::generate().expect("a key");
        let certificate = params(names, age).signed_by(&key, &self.issuer).expect("a certificate");
        Leaf::of(certificate.pem(), &key)
    }
}

impl Leaf {
    /// A certificate that vouches for itself.
    pub fn selfmade(names: &[&str]) -> Self {
        let key = KeyPair::generate().expect("a key");
        let certificate = params(names, Age::Valid).self_signed(&key).expect("a certificate");
        Self::of(certificate.pem(), &key)
    }

    fn of(certificate: String, key: &KeyPair) -> Self {
        let key = key.serialize_pem();
        let config = config(&certificate, &key, rustls::DEFAULT_VERSIONS);
        Self { certificate, key, config }
    }

    /// The same with TLS 1.2 only.
    pub fn old(self) -> Self {
        let config = config(&self.certificate, &self.key, &[&rustls::version::TLS12]);
        Self { config, ..self }
    }
}

fn params(names: &[&str], age: Age) -> CertificateParams {
    let mut params = CertificateParams::new(names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>()).expect("names");
    if age == Age::Expired {
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    }
    params
}

fn config(certificate: &str, key: &str, versions: &[&'static rustls::SupportedProtocolVersion]) -> Arc<ServerConfig> {
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<_, _>>().expect("PEM");
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()));
    let config = config.with_protocol_versions(versions).expect("versions").with_no_client_auth();
    Arc::new(config.with_single_cert(chain, key).expect("a pair"))
}

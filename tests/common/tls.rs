//! A certificate authority for the tests.
//!
//! `Authority::make(name, days)` returns a certificate and its key, both in PEM, for a DNS name
//! or an IP address, valid for this many days (a negative number: expired); `root_pem` is the
//! certificate of the authority, `client` a rustls client that trusts it, and `trusted_by` makes
//! a site trust it. `site` is a site with
//! a certificate for razorback.test, in cert.pem and cert.key. A [`Leaf`] is a certificate in
//! use by a server of the tests, see `remote::Offer` and `dialog::Wire::secure`;
//! `Leaf::selfmade` is a self-signed one. `association` is the data of a TLSA record.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use ::ring::digest;
use data_encoding::HEXLOWER;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};

use super::Site;

/// A certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: Certificate,
    /// The public key of the authority, in DER.
    key: Vec<u8>,
    /// What servers send after their own certificates, in PEM.
    chain: String,
}

impl Authority {
    /// A new authority, which no program trusts by default.
    pub fn new() -> Self {
        Self::make_authority(None)
    }

    /// An authority whose certificate is from this one. Its servers send that certificate, too.
    pub fn below(&self) -> Self {
        Self::make_authority(Some(self))
    }

    fn make_authority(above: Option<&Self>) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("no names");
        // The names differ because a certificate with the name of its own issuer would count as
        // self-signed.
        let name = format!("Authority {}", NUMBER.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("a key");
        let root = match above {
            Some(above) => params.signed_by(&key, &above.issuer).expect("a certificate"),
            None => params.self_signed(&key).expect("a root"),
        };
        let chain = above.map(|above| root.pem() + &above.chain).unwrap_or_default();
        Self { key: key.subject_public_key_info(), issuer: Issuer::new(params, key), root, chain }
    }

    /// A certificate for a name, valid for this many days, and its key, both in PEM.
    pub fn make(&self, name: &str, days: i64) -> (String, String) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let end = jiff::Zoned::now().saturating_add(jiff::Span::new().days(days));
        params.not_after = rcgen::date_time_ymd(end.year().into(), end.month() as u8, end.day() as u8);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }

    /// A certificate for a name, valid for this many days, ready for use by a server.
    pub fn leaf(&self, name: &str, days: i64) -> Leaf {
        let (certificate, key) = self.make(name, days);
        Leaf::of(certificate + &self.chain, key)
    }

    /// The same, for a server that sends the certificate of the authority, too.
    pub fn full(&self, name: &str, days: i64) -> Leaf {
        let (certificate, key) = self.make(name, days);
        Leaf::of(certificate + &self.chain + &self.root.pem(), key)
    }

    /// A site with a certificate for razorback.test and these settings.
    pub fn site(&self, settings: &str) -> Site {
        let mut site = Site::with(settings);
        self.give(&site, "cert", "razorback.test", 300);
        let path = |name: &str| format!("{:?}", site.path(name));
        let (certificate, key) = (path("cert.pem"), path("cert.key"));
        site.set("tls", "certificate", &certificate);
        site.set("tls", "key", &key);
        site
    }

    /// Writes a key to `FILE.key` and a certificate for a name to `FILE.pem`.
    pub fn give(&self, site: &Site, file: &str, name: &str, days: i64) {
        let (certificate, key) = self.make(name, days);
        // The key is written first: until both files match, the daemon continues to use the old
        // pair.
        site.write(&format!("{file}.key"), &key);
        site.write(&format!("{file}.pem"), &certificate);
    }

    /// Makes a site trust this authority for other hosts, and no other authority.
    pub fn trusted_by(&self, site: &mut Site) {
        site.write("authorities.pem", &self.root_pem());
        let path = format!("{:?}", site.path("authorities.pem"));
        site.set("remote", "authorities", &path);
    }

    /// The certificate of the authority, in PEM.
    pub fn root_pem(&self) -> String {
        self.root.pem()
    }

    /// The data of a TLSA record for the authority, see [`association`].
    pub fn association(&self, parameters: [u8; 3]) -> String {
        association(parameters, self.root.der(), &self.key)
    }

    /// The configuration of a client that trusts this authority and no other.
    pub fn client(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.der().clone()).expect("a root");
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().expect("versions");
        Arc::new(config.with_root_certificates(roots).with_no_client_auth())
    }
}

/// A certificate in use by a server.
pub struct Leaf {
    certificate: String,
    key: String,
    /// The TLS configuration of the server.
    pub config: Arc<ServerConfig>,
}

impl Leaf {
    /// A self-signed certificate for a name.
    pub fn selfmade(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        Self::of(params.self_signed(&key).expect("a certificate").pem(), key.serialize_pem())
    }

    /// A certificate, with those that follow it, and its key, both in PEM.
    pub fn of(certificate: String, key: String) -> Self {
        let config = serve(&certificate, &key, rustls::DEFAULT_VERSIONS);
        Self { certificate, key, config }
    }

    /// The data of a TLSA record for the certificate, see [`association`].
    pub fn association(&self, parameters: [u8; 3]) -> String {
        let certificate = CertificateDer::from_pem_slice(self.certificate.as_bytes()).expect("PEM");
        let key = KeyPair::from_pem(&self.key).expect("a key").subject_public_key_info();
        association(parameters, &certificate, &key)
    }

    /// Makes the server of this certificate support only TLS 1.2.
    pub fn old(self) -> Self {
        let config = serve(&self.certificate, &self.key, &[&rustls::version::TLS12]);
        Self { config, ..self }
    }
}

/// The data of a TLSA record: usage, selector and matching type, and what the last two make of a
/// certificate or its public key, in hexadecimal digits. Unknown values are those of 0.
fn association([usage, selector, matching]: [u8; 3], certificate: &[u8], key: &[u8]) -> String {
    let chosen = if selector == 1 { key } else { certificate };
    let data = match matching {
        1 => digest::digest(&digest::SHA256, chosen).as_ref().to_vec(),
        2 => digest::digest(&digest::SHA512, chosen).as_ref().to_vec(),
        _ => chosen.to_vec(),
    };
    format!("{usage} {selector} {matching} {}", HEXLOWER.encode(&data))
}

fn serve(certificate: &str, key: &str, versions: &[&'static SupportedProtocolVersion]) -> Arc<ServerConfig> {
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<_, _>>().expect("PEM");
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_protocol_versions(versions).expect("versions").with_no_client_auth();
    Arc::new(config.with_single_cert(chain, key).expect("a pair"))
}

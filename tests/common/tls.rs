//! An authority of the tests' own, and the certificates that it makes out.
//!
//! `Authority::make(name, days)` is a certificate and its key, both in PEM, for a DNS
//! name or an IP address, valid for so many days (fewer than 0: over already);
//! `root_pem` is what a client has to believe, `client` a rustls client that does.
//! `site` is a site with a certificate for razorback.test, in cert.pem and cert.key.

use std::sync::Arc;

use rcgen::{BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};

use super::Site;

/// An authority, and what it has made out.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: Certificate,
}

impl Authority {
    /// A new one, which nobody believes.
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        // Of one name with what it makes out it would be taken for the same.
        params.distinguished_name.push(DnType::CommonName, "an authority of the tests");
        let key = KeyPair::generate().expect("a key");
        let root = params.self_signed(&key).expect("a root");
        Self { issuer: Issuer::new(params, key), root }
    }

    /// A certificate for a name, valid for so many days, and its key, both in PEM.
    pub fn make(&self, name: &str, days: i64) -> (String, String) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let end = jiff::Zoned::now().saturating_add(jiff::Span::new().days(days));
        params.not_after = rcgen::date_time_ymd(end.year().into(), end.month() as u8, end.day() as u8);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
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

    /// Writes `file.key` and `file.pem` for a name.
    pub fn give(&self, site: &Site, file: &str, name: &str, days: i64) {
        let (certificate, key) = self.make(name, days);
        // The key first: until both are there the old pair holds.
        site.write(&format!("{file}.key"), &key);
        site.write(&format!("{file}.pem"), &certificate);
    }

    /// What a client has to believe, in PEM.
    pub fn root_pem(&self) -> String {
        self.root.pem()
    }

    /// A client that believes this authority and no other.
    pub fn client(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.der().clone()).expect("a root");
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().expect("versions");
        Arc::new(config.with_root_certificates(roots).with_no_client_auth())
    }
}

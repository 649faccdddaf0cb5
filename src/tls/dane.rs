//! Verifies the certificate of a host by its TLSA records (DANE: RFC 6698, RFC 7671, RFC 7672).
//!
//! The records must come from a secure DNS answer. A record of usage 3 (DANE-EE) names the host's own
//! certificate or key. Then neither the names in the certificate nor its dates matter, nor the other
//! certificates. A record of usage 2 (DANE-TA) names an authority. The authority must have issued the
//! host's certificate, directly or by others that the host sends, all must be valid now, and the
//! certificate must be for one of the host's names. The certificate of the authority is one that the
//! host sends, or is given in full in the record; a key that is given in full needs no certificate.
//!
//! Usages 0 and 1 cannot be used for mail (RFC 7672 3.1.3). Records with other unknown values, with a
//! digest of the wrong length or with malformed data are dropped, too.
//!
//! Some certificates that other programs accept are rejected. This cannot verify a signature with
//! DSA, with the curve P-521 or with an RSA key of less than 2048 or more than 8192 bits. With usage 2
//! the host's certificate must be of version 3, must not be that of an authority, and must have its
//! names in the extension `subjectAltName`: a common name alone does not count.

use ring::digest::{SHA256, SHA512, digest};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{Error, RootCertStore};

use super::der::Parts;
use super::fault::{Fault, FaultKind};
use super::verify::is_for_any;

/// The maximum number of trust anchors that are tried for one certificate.
const MAX_ANCHORS: usize = 64;

/// The usable TLSA records of a host; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Associations {
    base: Box<str>,
    names: Vec<Box<str>>,
    records: Vec<Association>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Association {
    usage: Usage,
    selector: Selector,
    matching: Matching,
    data: Box<[u8]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Usage {
    /// DANE-TA(2).
    Authority,
    /// DANE-EE(3).
    Host,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Selector {
    Certificate,
    Key,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Matching {
    Full,
    Sha256,
    Sha512,
}

impl Associations {
    /// The usable ones of these records: usage, selector, matching type and data of each. `base` is
    /// the name at which the records were found, without port and protocol. `others` are the other
    /// names for which a certificate of an authority may be (RFC 7672 3.2.2). `None` if no record is
    /// usable: then the connection must be encrypted, but the host cannot be verified.
    pub fn new<'a>(
        base: &str,
        others: &[&str],
        records: impl IntoIterator<Item = (u8, u8, u8, &'a [u8])>,
    ) -> Option<Self> {
        let usable = |(usage, selector, matching, data)| Association::new(usage, selector, matching, data);
        let mut records: Vec<_> = records.into_iter().filter_map(usable).collect();
        // Of several digests only the strongest counts (RFC 7671 9).
        let kinds: Vec<_> = records.iter().map(|one| (one.usage, one.selector, one.matching)).collect();
        let is_weaker = |one: &Association, (usage, selector, matching)| {
            (usage, selector) == (one.usage, one.selector) && matching > one.matching
        };
        records.retain(|one| one.matching == Matching::Full || !kinds.iter().any(|kind| is_weaker(one, *kind)));
        // Names count for certificates of an authority only.
        let others = if records.iter().any(|record| record.usage == Usage::Authority) { others } else { &[] };
        let mut names: Vec<Box<str>> = Vec::new();
        for name in [base].iter().chain(others).map(|name| name.trim_end_matches('.').to_ascii_lowercase().into()) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let base = names.first()?.clone();
        (!records.is_empty()).then_some(Self { base, names, records })
    }

    /// The name at which the records were found: the client requests a certificate for this name
    /// (RFC 7672 8.1).
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The names for which a certificate of an authority may be.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &**name)
    }

    /// The records that are used, each in the presentation format: usage, selector, matching type,
    /// and the data in hexadecimal.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.records.iter().map(|record| {
            let usage = if record.usage == Usage::Host { 3 } else { 2 };
            let selector = if record.selector == Selector::Key { 1 } else { 0 };
            let matching = match record.matching {
                Matching::Full => 0,
                Matching::Sha256 => 1,
                Matching::Sha512 => 2,
            };
            format!("{usage} {selector} {matching} {}", data_encoding::HEXLOWER.encode(&record.data))
        })
    }

    /// Verifies the certificate `host`, with the other certificates that the host sends.
    pub(super) fn verify(
        &self,
        host: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<(), Error> {
        let of = |usage| self.records.iter().filter(move |record| record.usage == usage);
        if of(Usage::Host).any(|record| record.matches(host)) {
            return Ok(());
        }
        let (anchors, expired) = self.anchors(host, others, now);
        if anchors.is_empty() {
            let fault = match expired {
                true => Fault::new(FaultKind::Expired, "the certificate of the authority is not valid now"),
                false => Fault::new(FaultKind::Tlsa, "no TLSA record of the host matches its certificates"),
            };
            return Err(fault.into_error());
        }
        let parsed = ParsedCertificate::try_from(host)?;
        let roots = RootCertStore { roots: anchors };
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots, others, now, algorithms.all)?;
        is_for_any(&parsed, self.names())
    }

    /// The authorities that the records name, and whether others have expired.
    fn anchors(
        &self,
        host: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> (Vec<TrustAnchor<'static>>, bool) {
        let mut store = RootCertStore::empty();
        let mut expired = false;
        for record in self.records.iter().filter(|record| record.usage == Usage::Authority) {
            if (record.selector, record.matching) == (Selector::Key, Matching::Full) {
                store.roots.extend(record.keys(host, others));
            }
            let given = record.certificate();
            for certificate in others.iter().filter(|other| record.matches(other)).chain(&given) {
                match is_current(certificate, now) {
                    // A malformed certificate cannot be the one of an authority.
                    true => _ = store.add(certificate.clone().into_owned()),
                    false => expired = true,
                }
            }
        }
        store.roots.truncate(MAX_ANCHORS);
        (store.roots, expired)
    }
}

impl Association {
    fn new(usage: u8, selector: u8, matching: u8, data: &[u8]) -> Option<Self> {
        let usage = match usage {
            2 => Usage::Authority,
            3 => Usage::Host,
            _ => return None,
        };
        let selector = match selector {
            0 => Selector::Certificate,
            1 => Selector::Key,
            _ => return None,
        };
        let (matching, is_usable) = match matching {
            0 if selector == Selector::Certificate => (Matching::Full, Parts::of(data).is_some()),
            0 => (Matching::Full, Parts::of_key(data).is_some()),
            1 => (Matching::Sha256, data.len() == SHA256.output_len()),
            2 => (Matching::Sha512, data.len() == SHA512.output_len()),
            _ => return None,
        };
        is_usable.then(|| Self { usage, selector, matching, data: data.into() })
    }

    /// Whether the record is for this certificate.
    fn matches(&self, certificate: &[u8]) -> bool {
        let selected = match self.selector {
            Selector::Certificate => certificate,
            Selector::Key => match Parts::of(certificate) {
                Some(parts) => parts.key,
                None => return false,
            },
        };
        match self.matching {
            Matching::Full => *selected == *self.data,
            Matching::Sha256 => digest(&SHA256, selected).as_ref() == &*self.data,
            Matching::Sha512 => digest(&SHA512, selected).as_ref() == &*self.data,
        }
    }

    /// The certificate in the record, if it has one in full.
    fn certificate(&self) -> Option<CertificateDer<'_>> {
        let is_full = (self.selector, self.matching) == (Selector::Certificate, Matching::Full);
        is_full.then(|| CertificateDer::from(&*self.data))
    }

    /// The key in the record, as an authority with the name of each issuer in the chain: a key in a
    /// record has no name.
    fn keys(&self, host: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Vec<TrustAnchor<'static>> {
        let Some(key) = Parts::of_key(&self.data) else { return Vec::new() };
        let mut issuers: Vec<_> = [host].into_iter().chain(others).filter_map(|c| Some(Parts::of(c)?.issuer)).collect();
        issuers.sort_unstable();
        issuers.dedup();
        let anchor = |issuer: &[u8]| TrustAnchor {
            subject: issuer.to_vec().into(),
            subject_public_key_info: key.to_vec().into(),
            name_constraints: None,
        };
        issuers.into_iter().map(anchor).collect()
    }
}

/// Whether the time is between the start and the expiry of a certificate.
fn is_current(certificate: &[u8], now: UnixTime) -> bool {
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let validity = Parts::of(certificate).and_then(|parts| parts.validity());
    validity.is_some_and(|(start, end)| (start..=end).contains(&now))
}

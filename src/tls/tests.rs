//! Handshakes of the client with a server in memory, with each kind of verification.

use std::io;

use ::ring::digest::{SHA256, SHA512, digest};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData};
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, ServerConnection, SupportedProtocolVersion};

use super::*;

/// A certificate and its key.
struct Made {
    der: CertificateDer<'static>,
    key: KeyPair,
    issuer: Issuer<'static, KeyPair>,
}

/// The kind of a certificate.
#[derive(Clone, Copy)]
struct Kind<'a> {
    name: &'a str,
    is_authority: bool,
    is_expired: bool,
}

const ROOT: Kind<'static> = Kind { name: "root", is_authority: true, is_expired: false };
const MIDDLE: Kind<'static> = Kind { name: "middle", ..ROOT };
const LEAF: Kind<'static> = Kind { name: "mx.example", is_authority: false, is_expired: false };

impl Made {
    fn new(kind: Kind, by: Option<&Self>) -> Self {
        let names = if kind.is_authority { vec![] } else { vec![kind.name.to_owned()] };
        let mut params = CertificateParams::new(names).expect("a name");
        params.distinguished_name.push(DnType::CommonName, kind.name);
        if kind.is_authority {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        }
        if kind.is_expired {
            params.not_before = rcgen::date_time_ymd(2001, 1, 1);
            params.not_after = rcgen::date_time_ymd(2002, 1, 1);
        }
        let key = KeyPair::generate().expect("a key");
        let certificate = match by {
            Some(by) => params.signed_by(&key, &by.issuer),
            None => params.self_signed(&key),
        };
        let der = certificate.expect("a certificate").der().clone();
        let again = KeyPair::try_from(key.serialize_der()).expect("a key");
        Self { der, key, issuer: Issuer::new(params, again) }
    }

    /// The data of a TLSA record for this certificate.
    fn data(&self, selector: u8, matching: u8) -> Vec<u8> {
        let selected = if selector == 0 { self.der.to_vec() } else { self.key.subject_public_key_info() };
        match matching {
            1 => digest(&SHA256, &selected).as_ref().to_vec(),
            2 => digest(&SHA512, &selected).as_ref().to_vec(),
            _ => selected,
        }
    }
}

/// A TLSA record.
type Record = (u8, u8, u8, Vec<u8>);

fn record(made: &Made, usage: u8, selector: u8, matching: u8) -> Record {
    (usage, selector, matching, made.data(selector, matching))
}

fn dane(records: &[Record]) -> Option<Verification> {
    let records = records.iter().map(|(usage, selector, matching, data)| (*usage, *selector, *matching, &**data));
    Associations::new("MX.example.", &["mail.example.net"], records).map(|all| Verification::Dane(Arc::new(all)))
}

/// Runs a handshake. Returns its result, and the verdict on the certificate.
fn shake(
    chain: &[&CertificateDer<'static>],
    key: &KeyPair,
    version: &'static SupportedProtocolVersion,
    client: io::Result<(rustls::Connection, Verdict)>,
) -> (Result<(), Fault>, Verdict) {
    let (mut client, verdict) = client.expect("a client");
    let config = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[version]).expect("a version");
    let chain = chain.iter().map(|der| (*der).clone()).collect();
    let key = any_supported_type(&PrivateKeyDer::Pkcs8(key.serialize_der().into())).expect("a key");
    let pair = Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key)));
    let config = config.with_no_client_auth().with_cert_resolver(pair);
    let mut server = ServerConnection::new(Arc::new(config)).expect("a server");
    while client.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).expect("memory");
        server.read_tls(&mut &wire[..]).expect("memory");
        server.process_new_packets().expect("a good client");
        wire.clear();
        server.write_tls(&mut wire).expect("memory");
        let mut wire = &wire[..];
        while !wire.is_empty() {
            client.read_tls(&mut wire).expect("memory");
            if let Err(error) = client.process_new_packets() {
                return (Err(Fault::of_handshake(&io::Error::new(io::ErrorKind::InvalidData, error))), verdict);
            }
        }
    }
    (Ok(()), verdict)
}

/// The kind of failure with these records; `None` if the host is verified.
fn fails(chain: &[&Made], records: &[Record]) -> Option<FaultKind> {
    let verification = dane(records).expect("usable records");
    let ders: Vec<_> = chain.iter().map(|made| &made.der).collect();
    let mut results = [&TLS12, &TLS13].map(|version| {
        let connect = |is_enforced| Client::new().connect("other.example", &verification, is_enforced);
        let (enforced, verdict) = shake(&ders, &chain[0].key, version, connect(true));
        assert_eq!((enforced.is_ok(), enforced.clone().err()), (verdict.is_verified(), verdict.fault()));
        let (observed, verdict) = shake(&ders, &chain[0].key, version, connect(false));
        assert_eq!((observed, verdict.fault()), (Ok(()), enforced.clone().err()));
        enforced.err().map(|fault| fault.kind)
    });
    assert_eq!(results[0], results[1]);
    results[0].take()
}

#[test]
fn every_selector_and_matching_type_is_compared() {
    let root = Made::new(ROOT, None);
    let (leaf, other) = (Made::new(LEAF, Some(&root)), Made::new(LEAF, Some(&root)));
    let stranger = Made::new(ROOT, None);
    for selector in [0, 1] {
        for matching in [0, 1, 2] {
            let of = |made, usage| record(made, usage, selector, matching);
            let case = format!("{selector} {matching}");
            assert_eq!(fails(&[&leaf], &[of(&leaf, 3)]), None, "3 {case}");
            assert_eq!(fails(&[&leaf, &root], &[of(&other, 3)]), Some(FaultKind::Tlsa), "3 {case}");
            assert_eq!(fails(&[&leaf, &root], &[of(&root, 3)]), Some(FaultKind::Tlsa), "3 {case}: not of the host");
            assert_eq!(fails(&[&leaf, &root], &[of(&root, 2)]), None, "2 {case}");
            assert!(fails(&[&leaf, &root], &[of(&leaf, 2)]).is_some(), "2 {case}: not an authority");
            assert!(fails(&[&leaf, &root], &[of(&stranger, 2)]).is_some(), "2 {case}: a stranger");
            assert_eq!(fails(&[&leaf, &root, &stranger], &[of(&stranger, 2)]), Some(FaultKind::NotTrusted), "2 {case}");
            // A record in full needs no certificate of the authority, and a digest does.
            let want = (matching != 0).then_some(FaultKind::Tlsa);
            assert_eq!(fails(&[&leaf], &[of(&root, 2)]), want, "2 {case}: the authority is not sent");
        }
    }
}

#[test]
fn a_record_of_the_host_needs_neither_name_nor_dates_nor_chain() {
    let expired = Made::new(Kind { name: "elsewhere.example", is_expired: true, ..LEAF }, None);
    assert_eq!(fails(&[&expired], &[record(&expired, 3, 1, 1)]), None);
    assert_eq!(fails(&[&expired], &[record(&expired, 3, 0, 2)]), None);
    // The certificate of an authority may be the host's.
    let authority = Made::new(ROOT, None);
    assert_eq!(fails(&[&authority], &[record(&authority, 3, 1, 1)]), None);
    // One matching record is enough, wherever it is: the others may be old ones or the next ones.
    let next = Made::new(LEAF, None);
    let records = [record(&next, 3, 1, 1), record(&next, 2, 1, 1), record(&expired, 3, 1, 1)];
    assert_eq!(fails(&[&expired], &records), None);
    assert_eq!(fails(&[&next], &records), None);
}

#[test]
fn a_certificate_of_version_1_can_be_the_one_of_a_record() {
    let made = Made::new(LEAF, None);
    let old = Made { der: version_1(&made.der).into(), ..made };
    assert!(der::Parts::of(&old.der).is_some());
    assert!(rustls::server::ParsedCertificate::try_from(&old.der).is_err(), "rustls reads version 3 only");
    for (selector, matching) in [(0, 0), (0, 1), (1, 1), (1, 2)] {
        assert_eq!(fails(&[&old], &[record(&old, 3, selector, matching)]), None, "{selector} {matching}");
    }
    let wrong_key = Made { key: KeyPair::generate().expect("a key"), ..old };
    assert_eq!(
        fails(&[&wrong_key], &[record(&wrong_key, 3, 0, 1)]),
        Some(FaultKind::NotTrusted),
        "a stolen certificate"
    );
}

/// The certificate without version and extensions. Its signature is wrong then, which does not
/// matter for a record of the host.
fn version_1(certificate: &[u8]) -> Vec<u8> {
    let wrap = |inside: &[u8]| {
        let length = u16::try_from(inside.len()).expect("short").to_be_bytes();
        [&[0x30, 0x82][..], &length, inside].concat()
    };
    let (outer, _) = der::element(certificate, 0x30).expect("a certificate");
    let (to_sign, signature) = der::element(outer, 0x30).expect("the signed part");
    let (_, after_version) = der::element(to_sign, 0xa0).expect("a version");
    let key = der::Parts::of(certificate).expect("a certificate").key;
    let end = after_version.windows(key.len()).position(|part| part == key).expect("a key") + key.len();
    wrap(&[&wrap(&after_version[..end])[..], signature].concat())
}

#[test]
fn a_certificate_of_an_authority_needs_a_name_and_dates() {
    let root = Made::new(ROOT, None);
    let middle = Made::new(MIDDLE, Some(&root));
    let records = [record(&root, 2, 0, 1)];
    for (name, want) in [
        ("mx.example", None),
        ("mail.example.net", None),
        ("*.example.net", None),
        ("example.net", Some(FaultKind::WrongName)),
        ("other.example", Some(FaultKind::WrongName)),
        ("example", Some(FaultKind::WrongName)),
    ] {
        let leaf = Made::new(Kind { name, ..LEAF }, Some(&middle));
        assert_eq!(fails(&[&leaf, &middle, &root], &records), want, "{name}");
        assert_eq!(fails(&[&leaf, &root, &middle], &records), want, "{name}, in another order");
    }
    let expired = Made::new(Kind { is_expired: true, ..LEAF }, Some(&middle));
    assert_eq!(fails(&[&expired, &middle, &root], &records), Some(FaultKind::Expired));
    let leaf = Made::new(LEAF, Some(&middle));
    assert_eq!(fails(&[&leaf, &root], &records), Some(FaultKind::NotTrusted), "a certificate is missing");
    // An authority in the middle of the chain needs no root.
    assert_eq!(fails(&[&leaf, &middle], &[record(&middle, 2, 1, 1)]), None);
    assert_eq!(fails(&[&leaf, &middle], &[record(&root, 2, 1, 0)]), None, "the key of the root in full");
    assert_eq!(fails(&[&leaf, &middle], &[record(&root, 2, 0, 0)]), None, "the root in full");
    let old = Made::new(Kind { is_expired: true, ..ROOT }, None);
    let leaf = Made::new(LEAF, Some(&old));
    assert_eq!(fails(&[&leaf, &old], &[record(&old, 2, 0, 1)]), Some(FaultKind::Expired), "the authority");
    // A leaf is no authority, although it has signed a certificate.
    let leaf = Made::new(LEAF, Some(&root));
    let below = Made::new(LEAF, Some(&leaf));
    assert_eq!(fails(&[&below, &leaf, &root], &records), Some(FaultKind::NotTrusted));
}

#[test]
fn unusable_records_do_not_count() {
    let leaf = Made::new(LEAF, None);
    let (sha256, full) = (leaf.data(1, 1), leaf.data(1, 0));
    let cut_off = full[..full.len() - 1].to_vec();
    let unusable = [
        (0, 1, 1, sha256.clone()),
        (1, 1, 1, sha256.clone()),
        (4, 1, 1, sha256.clone()),
        (255, 1, 1, sha256.clone()),
        (3, 2, 1, sha256.clone()),
        (3, 1, 3, sha256.clone()),
        (3, 1, 255, sha256.clone()),
        (3, 1, 1, sha256[1..].to_vec()),
        (3, 1, 2, sha256),
        (3, 1, 1, Vec::new()),
        (3, 1, 0, Vec::new()),
        (3, 0, 0, Vec::new()),
        (2, 0, 0, vec![0x30, 0x00]),
        (2, 1, 0, cut_off),
    ];
    for one in &unusable {
        assert_eq!(dane(std::slice::from_ref(one)), None, "{one:?}");
    }
    assert_eq!(dane(&unusable), None);
    let with_a_good_one: Vec<_> = unusable.iter().cloned().chain([record(&leaf, 3, 1, 1)]).collect();
    assert_eq!(fails(&[&leaf], &with_a_good_one), None);
}

#[test]
fn the_strongest_digest_of_each_usage_and_selector_counts() {
    let (leaf, other) = (Made::new(LEAF, None), Made::new(LEAF, None));
    let weak = record(&leaf, 3, 1, 1);
    assert_eq!(fails(&[&leaf], &[weak.clone(), record(&other, 3, 1, 2)]), Some(FaultKind::Tlsa));
    assert_eq!(fails(&[&leaf], &[weak.clone(), record(&other, 3, 0, 2)]), None, "another selector");
    assert_eq!(fails(&[&leaf], &[weak.clone(), record(&other, 2, 1, 2)]), None, "another usage");
    assert_eq!(fails(&[&leaf], &[weak.clone(), (3, 1, 2, vec![0; 63])]), None, "the other one is unusable");
    let full = record(&leaf, 3, 1, 0);
    assert_eq!(fails(&[&leaf], &[full, record(&other, 3, 1, 2)]), None, "a full key is no digest");
    assert_eq!(fails(&[&other], &[weak, record(&other, 3, 1, 0)]), None);
}

#[test]
fn the_client_requests_the_certificate_of_the_base() {
    let leaf = Made::new(LEAF, None);
    let verification = dane(&[record(&leaf, 3, 1, 1)]).expect("usable");
    let (mut client, _) = Client::new().connect("alias.example", &verification, true).expect("a client");
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("memory");
    let has = |name: &[u8]| hello.windows(name.len()).any(|part| part == name);
    assert!(has(b"mx.example") && !has(b"alias.example"));
}

#[test]
fn a_fingerprint_is_that_of_the_certificate_or_of_its_key() {
    let (leaf, other) = (Made::new(LEAF, None), Made::new(LEAF, None));
    let hex = |data: &[u8]| data.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":");
    for (selector, matching) in [(0, 1), (0, 2), (1, 1), (1, 2)] {
        let of = |made: &Made| Fingerprint::parse(&hex(&made.data(selector, matching))).expect("a fingerprint");
        for (all, want) in [(vec![of(&other), of(&leaf)], None), (vec![of(&other)], Some(FaultKind::NotTrusted))] {
            let client = Client::new().connect("mx.example", &Verification::Fingerprints(all.into()), true);
            let (result, verdict) = shake(&[&leaf.der], &leaf.key, &TLS13, client);
            assert_eq!((result.err().map(|fault| fault.kind), verdict.is_verified()), (want, want.is_none()));
        }
    }
    for bad in ["", ":", "ab", &"0".repeat(63), &"0".repeat(65), &"g".repeat(64), &"\u{fc}".repeat(32)] {
        assert_eq!(Fingerprint::parse(bad), None, "{bad}");
    }
}

#[test]
fn an_authority_must_be_trusted_and_the_certificate_be_for_a_name() {
    let root = Made::new(ROOT, None);
    let file = std::env::temp_dir().join(format!("penfold-authorities-{}.pem", std::process::id()));
    let text = data_encoding::BASE64.encode(&root.der);
    std::fs::write(&file, format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")).expect("a file");
    let client = Client::with_authorities(&file).expect("an authority");
    std::fs::remove_file(&file).expect("it is there");
    let stranger = Made::new(ROOT, None);
    let leaf = |kind, by| Made::new(kind, Some(by));
    let named = |names: &[&str]| Verification::Authority { names: names.iter().map(|&name| name.into()).collect() };
    for (made, verification, want) in [
        (leaf(LEAF, &root), Verification::authority(), None),
        (leaf(LEAF, &root), named(&["a.example", "mx.example."]), None),
        (leaf(LEAF, &root), named(&["a.example"]), Some(FaultKind::WrongName)),
        (leaf(LEAF, &root), named(&["not a name"]), Some(FaultKind::WrongName)),
        (leaf(Kind { name: "a.example", ..LEAF }, &root), Verification::authority(), Some(FaultKind::WrongName)),
        (leaf(Kind { is_expired: true, ..LEAF }, &root), Verification::authority(), Some(FaultKind::Expired)),
        (leaf(LEAF, &stranger), Verification::authority(), Some(FaultKind::NotTrusted)),
        (Made::new(LEAF, None), Verification::authority(), Some(FaultKind::NotTrusted)),
    ] {
        let (result, _) = shake(&[&made.der], &made.key, &TLS13, client.connect("mx.example", &verification, true));
        assert_eq!(result.err().map(|fault| fault.kind), want, "{verification:?}");
        let (result, verdict) =
            shake(&[&made.der], &made.key, &TLS13, client.connect("mx.example", &verification, false));
        assert_eq!((result, verdict.fault().map(|fault| fault.kind)), (Ok(()), want), "observed");
    }
    // Without a connection the result is the same, and a host without a certificate is not verified.
    let verify = |chain: &[CertificateDer<'_>]| client.verify("mx.example", &Verification::authority(), chain);
    assert_eq!(verify(&[leaf(LEAF, &root).der]), Ok(()));
    assert_eq!(verify(&[]).map_err(|fault| fault.kind), Err(FaultKind::NotTrusted));
    // A system without authorities can verify nothing, but it can encrypt.
    let none = Client::reading(Vec::new);
    let why = "no certificate authority is known to this system";
    let failure = none.connect("mx.example", &Verification::authority(), true).map(drop).expect_err("enforced");
    assert_eq!(failure.to_string(), why);
    let made = Made::new(LEAF, None);
    let observed = none.connect("mx.example", &Verification::authority(), false);
    let (result, verdict) = shake(&[&made.der], &made.key, &TLS13, observed);
    assert_eq!((result, verdict.is_verified()), (Ok(()), false));
    assert_eq!(verdict.fault(), Some(Fault::new(FaultKind::Other, why)));
    let unverified = client.connect("mx.example", &Verification::None, true);
    let (result, verdict) = shake(&[&Made::new(LEAF, None).der], &Made::new(LEAF, None).key, &TLS13, unverified);
    assert_eq!((result, verdict.is_verified(), verdict.fault()), (Ok(()), false, None));
}

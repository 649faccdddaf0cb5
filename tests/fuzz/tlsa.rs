//! TLSA records and certificates of hosts: nothing panics, each verification is fast, and its result
//! is that of a second, simple implementation.

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::chance::Chance;
use common::tls::Authority;
use penfold::tls::{Associations, Client, FaultKind, Verification};
use ring::digest::{SHA256, SHA512, digest};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::{mutate, repeat};

/// The maximum time of a verification, in a build without optimization.
const LIMIT: Duration = Duration::from_secs(2);

type Record = (u8, u8, u8, Vec<u8>);

/// A certificate, and its key in the form of a TLSA record.
struct Known {
    der: CertificateDer<'static>,
    key: Option<Vec<u8>>,
}

impl Known {
    /// The data of a record for the certificate; `None` if the key is not known.
    fn data(&self, selector: u8, matching: u8) -> Option<Vec<u8>> {
        let selected = if selector == 0 { self.der.to_vec() } else { self.key.clone()? };
        Some(match matching {
            1 => digest(&SHA256, &selected).as_ref().to_vec(),
            2 => digest(&SHA512, &selected).as_ref().to_vec(),
            _ => selected,
        })
    }
}

/// A host's certificate and its authority.
fn chain() -> [Known; 2] {
    let authority = Authority::new();
    let (certificate, key) = authority.make("mx.test", 300);
    let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM");
    let key = rcgen::KeyPair::from_pem(&key).expect("a key");
    let key = rcgen::PublicKeyData::subject_public_key_info(&key);
    [Known { der: der(&certificate), key: Some(key) }, Known { der: der(&authority.root_pem()), key: None }]
}

fn record(chance: &mut Chance, chain: &[Known]) -> Record {
    let usage = *chance.pick(&[0, 1, 2, 2, 2, 3, 3, 3, 4, 255]);
    let (selector, matching) = (*chance.pick(&[0, 0, 0, 1, 1, 1, 2, 255]), *chance.pick(&[0, 1, 1, 2, 2, 3, 255]));
    let data = chance.pick(chain).data(selector, matching).unwrap_or_else(|| chance.octets(0..70));
    let data = match chance.of(0..4) {
        0 => mutate(chance, &data),
        1 => {
            let least = *chance.pick(&[0, 1, 32, 64]);
            chance.octets(least..65)
        }
        _ => data,
    };
    (usage, selector, matching, data)
}

/// Whether the records must match (`Some(true)`) or must not; `None` if this implementation does not
/// know.
fn expected(records: &[Record], chain: &[Known]) -> Option<bool> {
    let is_usable = |(usage, selector, matching, data): &&Record| {
        let is_known = (2..=3).contains(usage) && *selector <= 1;
        is_known && matches!((matching, data.len()), (0, _) | (1, 32) | (2, 64))
    };
    let usable: Vec<_> = records.iter().filter(is_usable).collect();
    let counts = |(usage, selector, matching, _): &Record| {
        let is_stronger = |other: &&Record| (other.0, other.1, other.2) == (*usage, *selector, 2);
        *matching != 1 || !usable.iter().any(is_stronger)
    };
    let matches =
        |(_, selector, matching, data): &Record, known: &Known| known.data(*selector, *matching).as_ref() == Some(data);
    let counting: Vec<_> = usable.iter().filter(|record| counts(record)).collect();
    if counting.iter().any(|record| record.0 == 3 && matches(record, &chain[0])) {
        return Some(true);
    }
    let authorities: Vec<_> = counting.iter().filter(|record| record.0 == 2).collect();
    match authorities.iter().any(|record| matches(record, &chain[1])) {
        true => Some(true),
        // A record in full can be a malformed certificate or another key.
        false if authorities.iter().any(|record| record.2 == 0) => None,
        false => Some(false),
    }
}

#[test]
fn records_match_as_a_second_implementation_says() {
    let chain = chain();
    let ders = [chain[0].der.clone(), chain[1].der.clone()];
    repeat(|chance| {
        let count = *chance.pick(&[1, 1, 2, 3, 5, 100]);
        let records: Vec<_> = (0..count).map(|_| record(chance, &chain)).collect();
        let of = |(usage, selector, matching, data): &'_ Record| (*usage, *selector, *matching, data.clone());
        let owned: Vec<_> = records.iter().map(of).collect();
        let all = owned.iter().map(|(usage, selector, matching, data)| (*usage, *selector, *matching, data.as_slice()));
        let Some(associations) = Associations::new("mx.test", &["x.test"], all) else { return };
        let verification = Verification::Dane(Arc::new(associations));
        let begun = Instant::now();
        let result = Client::new().verify("mx.test", &verification, &ders);
        assert!(begun.elapsed() < LIMIT, "{:?}: {records:?}", begun.elapsed());
        if let Some(expected) = expected(&records, &chain) {
            assert_eq!(result.is_ok(), expected, "{result:?}: {records:?}");
        }
        // The host sends other certificates. They match only if the record says so in full or if
        // the key of the record is theirs.
        let others: Vec<_> = ders.iter().cycle().take(chance.of(0..40)).map(|der| mutate(chance, der).into()).collect();
        let begun = Instant::now();
        let _ = Client::new().verify("mx.test", &verification, &others);
        assert!(begun.elapsed() < LIMIT, "{:?}: {records:?}", begun.elapsed());
    });
}

#[test]
fn another_certificate_never_matches_a_digest() {
    let chain = chain();
    repeat(|chance| {
        let (selector, matching) = (0, *chance.pick(&[1, 2]));
        let data = chain[0].data(selector, matching).expect("the certificate is known");
        let associations =
            Associations::new("mx.test", &[], [(3, selector, matching, data.as_slice())]).expect("usable");
        let other = mutate(chance, &chain[0].der);
        let verification = Verification::Dane(Arc::new(associations));
        let result = Client::new().verify("mx.test", &verification, &[other.clone().into()]);
        match other == *chain[0].der {
            true => assert_eq!(result, Ok(())),
            false => assert_eq!(result.map_err(|fault| fault.kind), Err(FaultKind::Tlsa)),
        }
    });
}

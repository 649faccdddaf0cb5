//! DKIM and ARC: mutated messages with signatures, signature fields and key records.
//!
//! No input may end in a panic. A mutated message passes only if all that was signed is unchanged
//! but for blanks.

use std::str;

use common::chance::Chance;
use penfold::dns::lookup::{Lookup, OnlyTxt};
#[cfg(feature = "arc")]
use penfold::mailauth::arc::{self, Sealer};
use penfold::mailauth::dkim::{Checked, MAX_SIGNATURES, Record, Signer, SigningKey, Verifier};

use crate::{mutate, repeat};

const RSA: &[u8] = include_bytes!("../../src/mailauth/dkim/tests/rsa.pem");
const ED25519: &[u8] = include_bytes!("../../src/mailauth/dkim/tests/ed25519.pem");
const NOW: u64 = 1_800_000_000;
const MESSAGE: &str = "From: Jon <jon@example.org>\nTo: ann@example.net\nSubject: tea\n\n Hello,\n\ntea is ready.\n";

/// Returns a DNS in which every name has the same records.
fn dns_with(records: Vec<Vec<u8>>) -> impl Lookup {
    OnlyTxt(move |_: &str| Ok(records.clone()))
}

fn keys() -> [SigningKey; 2] {
    [RSA, ED25519].map(|pem| SigningKey::from_pem(pem).expect("a key"))
}

/// [`MESSAGE`] with a signature by each key.
fn signed(keys: &[SigningKey; 2]) -> String {
    let mut signer = Signer::new();
    signer.feed(MESSAGE.as_bytes());
    let [rsa, ed25519] = keys;
    let fields = signer.finish(&[("example.org", "r", rsa), ("example.org", "e", ed25519)], NOW);
    fields.expect("signatures") + MESSAGE
}

fn verify<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, zone: &dyn Lookup) -> Vec<Checked> {
    let mut verifier = Verifier::new();
    pieces.into_iter().for_each(|piece| verifier.feed(piece));
    verifier.finish().verify(zone, NOW)
}

/// A text without blanks and line ends, and in lower case.
fn bare(text: &[u8]) -> Vec<u8> {
    text.iter().filter(|b| !b" \t\n".contains(b)).map(u8::to_ascii_lowercase).collect()
}

#[test]
fn mutated_messages_pass_only_if_what_is_signed_is_unchanged() {
    let keys = keys();
    let zone = dns_with(keys.iter().map(|key| key.record().into_bytes()).collect());
    let message = signed(&keys);
    assert!(verify([message.as_bytes()], &zone).iter().all(Checked::is_pass));
    let (_, body) = MESSAGE.split_once("\n\n").expect("a body");
    repeat(|chance| {
        let mutated = mutate(chance, message.as_bytes());
        let checked = verify([&mutated[..]], &zone);
        assert_eq!(verify(chance.pieces(&mutated, 9), &zone), checked);
        assert!(checked.iter().all(|checked| checked.is_pass() == checked.reason.is_none()));
        if checked.iter().any(Checked::is_pass) {
            let text = String::from_utf8_lossy(&mutated);
            let (header, rest) = text.split_once("\n\n").expect("a body");
            assert_eq!(bare(rest.as_bytes()), bare(body.as_bytes()), "{text}");
            let header = bare(header.as_bytes());
            for field in ["from:jon<jon@example.org>", "to:ann@example.net", "subject:tea"] {
                assert!(header.windows(field.len()).any(|window| window == field.as_bytes()), "{text}");
            }
        }
    });
}

/// A random signature field of the usual tags, some of which are malformed.
fn field(chance: &mut Chance) -> String {
    let mut field = "DKIM-Signature:".to_owned();
    for (name, values) in [
        ("v", &["1", "1", "1", "2", ""][..]),
        ("a", &["rsa-sha256", "ed25519-sha256", "rsa-sha1", "rsa-sha512", ""]),
        ("c", &["relaxed/relaxed", "simple", "relaxed", "simple/relaxed", "x/y", "/"]),
        ("d", &["example.org", "example.org", "b\u{fc}cher.example", "[1.2.3.4]", ".", "a..b", "org"]),
        ("s", &["r", "e", "2026.x", "", "-"]),
        ("h", &["From", "from:to:subject", "From:From:From", ":", "DKIM-Signature:From", "To"]),
        ("bh", &["47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", "", "AAAA", "?"]),
        ("b", &["AAAA", "", "====", "A A\n A A", "?"]),
        ("i", &["@example.org", "a@b@sub.example.org", "example.org", "@", "@org"]),
        ("l", &["0", "10", "99999999999999999999999999", "-1", ""]),
        ("t", &["1700000000", "99999999999999999999999", "x"]),
        ("x", &["1900000000", "1600000000", "x"]),
        ("q", &["dns/txt", "x", "x:dns/txt", ""]),
        ("z", &["From:x|To:y", "=", ";;;"]),
    ] {
        if chance.percent(85) {
            field += &format!("{}{name}={};", chance.pick(&[" ", "", "\n ", "\t"]), chance.pick(values));
        }
    }
    field + "\n"
}

#[test]
fn any_signature_field_has_a_result() {
    let keys = keys();
    let zone = dns_with(keys.iter().map(|key| key.record().into_bytes()).collect());
    repeat(|chance| {
        let count = chance.of(1..14);
        let fields: String = (0..count).map(|_| field(chance)).collect();
        let text = (fields + MESSAGE).into_bytes();
        let text = if chance.percent(50) { mutate(chance, &text) } else { text };
        let checked = verify(chance.pieces(&text, 4), &zone);
        assert!(checked.len() <= MAX_SIGNATURES);
        for checked in checked {
            assert!(!checked.is_pass(), "{}", String::from_utf8_lossy(&text));
            // What goes into the log and into a field.
            let reason = checked.reason.expect("a reason").to_string();
            for word in [&checked.domain, &checked.selector, &checked.mark, &reason] {
                assert!(word.bytes().all(|b| (b' '..=b'~').contains(&b)), "{word:?}");
            }
            assert!(checked.domain.len() < 256 && checked.selector.len() < 256 && checked.mark.len() < 13);
        }
    });
}

#[test]
fn any_key_record_has_a_result() {
    let keys = keys();
    let message = signed(&keys);
    repeat(|chance| {
        let key = &keys[chance.of(0..2)];
        let record = key.record().into_bytes();
        let flags = *chance.pick(&["", "; t=y:s", "; h=sha256", "; h=sha1", "; s=email", "; s=x", "; n=\u{fc}", ";"]);
        let record = [&record, flags.as_bytes()].concat();
        let record = mutate(chance, &record);
        if let Ok(parsed) = Record::parse(&record)
            && parsed.publishes(key)
        {
            let text = str::from_utf8(&record).expect("a record that is read is UTF-8");
            let text: String = text.split_ascii_whitespace().collect();
            assert!(text.contains("p="), "{text}");
        }
        let zone = dns_with(vec![record; chance.of(0..8)]);
        let passed = verify([message.as_bytes()], &zone).into_iter().filter(Checked::is_pass).count();
        assert!(passed < 2, "one key passes for both");
    });
}

/// Mutated chains of ARC sets: no panic, the same result however the text is split, and what passes
/// is unchanged.
#[cfg(feature = "arc")]
#[test]
fn mutated_chains_pass_only_if_what_is_sealed_is_unchanged() {
    let [rsa, _] = keys();
    let zone = dns_with(vec![rsa.record().into_bytes()]);
    let mut message = MESSAGE.to_owned();
    for number in 1..3 {
        let mut sealer = Sealer::new();
        sealer.feed(message.as_bytes());
        let results = format!("mx{number}.test;\n\tspf=pass smtp.mailfrom=a@example.org");
        let set = sealer.finish(("example.org", "r", &rsa), &results, arc::Status::Pass, NOW).expect("a set");
        message = set + &message;
    }
    let check = |pieces: Vec<&[u8]>| {
        let mut verifier = Verifier::new();
        pieces.into_iter().for_each(|piece| verifier.feed(piece));
        arc::verify(&verifier.finish(), &zone, NOW)
    };
    assert_eq!(check(vec![message.as_bytes()]).status, arc::Status::Pass);
    repeat(|chance| {
        let mutated = mutate(chance, message.as_bytes());
        let chain = check(vec![&mutated]);
        assert_eq!(check(chance.pieces(&mutated, 9)), chain);
        if chain.status == arc::Status::Pass {
            let text = bare(&mutated);
            for part in ["i=1;mx1.test;spf=pass", "i=2;mx2.test;spf=pass", "subject:tea", "hello,teaisready."] {
                assert!(text.windows(part.len()).any(|window| window == part.as_bytes()), "{part} {chain:?}");
            }
            assert_eq!(chain.sets.len(), 2);
        }
    });
}

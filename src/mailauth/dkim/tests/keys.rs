//! Tests private keys and key records.

use super::*;

#[test]
fn keys_are_read_from_pem() {
    let public = include_str!("rsa.pub");
    assert_eq!(rsa().record(), format!("v=DKIM1; k=rsa; p={public}"));
    // The expected record has the public key of RFC 8463 A.
    assert_eq!(ed25519().record(), "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=");
    let other = SigningKey::from_pem(include_bytes!("rsa8.pem")).expect("PKCS #8");
    assert_eq!(other.public_key(), rsa().public_key());
    assert_eq!(format!("{other:?}"), "SigningKey(rsa-sha256)");
}

#[test]
fn other_files_are_rejected_with_a_reason() {
    let pem = |label: &str, octets: &[u8]| {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", data_encoding::BASE64.encode(octets))
    };
    for (text, error) in [
        (String::new(), KeyError::NoKey),
        ("key".to_owned(), KeyError::NoKey),
        (pem("ENCRYPTED PRIVATE KEY", b"x"), KeyError::NoKey),
        (pem("PUBLIC KEY", b"x"), KeyError::NoKey),
        (pem("EC PRIVATE KEY", b"x"), KeyError::Type),
        ("-----BEGIN PRIVATE KEY-----\n?\n-----END PRIVATE KEY-----\n".to_owned(), KeyError::NotPem),
    ] {
        assert_eq!(SigningKey::from_pem(text.as_bytes()).expect_err(&text), error, "{text}");
    }
    for label in ["PRIVATE KEY", "RSA PRIVATE KEY"] {
        let error = SigningKey::from_pem(pem(label, b"x").as_bytes()).expect_err("not a key");
        assert!(matches!(error, KeyError::Rejected(_)), "{error}");
    }
}

#[test]
fn records_are_read() {
    let p = include_str!("rsa.pub");
    let edwards = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
    for (record, reason) in [
        (format!("v=DKIM1; k=rsa; p={p}"), None),
        (format!("p={p}"), None),
        (format!("k=rsa;p={p};"), None),
        (format!("v=DKIM1; h=sha1:sha256; s=tlsrpt : email; t=y:s; n=a; x=b; p={p}"), None),
        (format!("v=DKIM1; p={}\n {}", &p[..9], &p[9..]), None),
        (format!("v=DKIM1; k=ed25519; p={edwards}"), None),
        (format!("v=DKIM1; k=ed25519; p={p}"), Some(Reason::Record("p="))),
        (format!("v=DKIM1; p={edwards}"), Some(Reason::Record("p="))),
        (format!("v=DKIM1; k=ec; p={p}"), Some(Reason::KeyType)),
        (format!("v=DKIM1; h=sha1; p={p}"), Some(Reason::KeyHash)),
        (format!("v=DKIM1; s=tlsrpt; p={p}"), Some(Reason::KeyService)),
        (format!("v=DKIM2; p={p}"), Some(Reason::Record("v="))),
        (format!("p={p}; v=DKIM1"), Some(Reason::Record("v="))),
        (format!("v=DKIM1; p={p}; p={p}"), Some(Reason::Record("tag list"))),
        (format!("v=DKIM1; n={}; p={p}", "x".repeat(4096)), Some(Reason::Record("tag list"))),
        ("v=DKIM1; p=".to_owned(), Some(Reason::Revoked)),
        ("v=DKIM1".to_owned(), Some(Reason::Record("p="))),
        ("v=spf1 -all".to_owned(), Some(Reason::Record("v="))),
        ("some text".to_owned(), Some(Reason::Record("tag list"))),
        (String::new(), Some(Reason::Record("p="))),
        (format!("v=DKIM1; p={}", &p[..p.len() - 4]), Some(Reason::Record("p="))),
    ] {
        assert_eq!(Record::parse(record.as_bytes()).err(), reason, "{record}");
    }
    let flags = |text: &str| {
        let record = Record::parse(format!("t={text}; p={p}").as_bytes()).expect("a record");
        (record.is_testing, record.is_strict)
    };
    assert_eq!(
        [flags("y"), flags("s"), flags("s : y"), flags("x")],
        [(true, false), (false, true), (true, true), (false, false)]
    );
}

#[test]
fn a_record_shows_whose_key_it_publishes() {
    let keys = [rsa(), ed25519()];
    for (at, key) in keys.iter().enumerate() {
        let record = Record::parse(key.record().as_bytes()).expect("a record");
        assert_eq!([0, 1].map(|other| record.publishes(&keys[other])), [at == 0, at == 1]);
    }
}

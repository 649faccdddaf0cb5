//! Writes new private keys in DER and PEM (RFC 5958, RFC 8017 A.1.2, RFC 8410).

use data_encoding::BASE64;

use crate::mailauth::dkim::der::wrap;

const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const NULL: &[u8] = &[0x05, 0];
const OID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;

/// The object identifier rsaEncryption.
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
/// The object identifier id-Ed25519.
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

/// The number of characters in a line of base64 in PEM.
const PEM_LINE: usize = 64;

/// The numbers of an RSA key, each with the most significant octet first.
pub struct RsaNumbers<'a> {
    /// The modulus, the product of both primes.
    pub modulus: &'a [u8],
    /// The public exponent.
    pub public: &'a [u8],
    /// The private exponent.
    pub private: &'a [u8],
    /// The two primes, the larger one first.
    pub primes: [&'a [u8]; 2],
    /// The private exponent modulo each of the primes less one.
    pub exponents: [&'a [u8]; 2],
    /// The inverse of the second prime modulo the first.
    pub coefficient: &'a [u8],
}

/// Returns an RSA key as a PKCS #8 `PrivateKeyInfo`.
pub fn rsa_private(key: &RsaNumbers<'_>) -> Vec<u8> {
    let RsaNumbers { modulus, public, private, primes: [p, q], exponents: [dp, dq], coefficient } = key;
    let numbers: [&[u8]; 9] = [&[0], modulus, public, private, p, q, dp, dq, coefficient];
    pkcs8(&[wrap(OID, RSA), NULL.to_vec()].concat(), &wrap(SEQUENCE, &numbers.map(integer).concat()))
}

/// Returns an Ed25519 key as a PKCS #8 `PrivateKeyInfo`. The public key is left out, because older
/// versions of OpenSSL cannot read it there.
pub fn ed25519_private(seed: &[u8; 32]) -> Vec<u8> {
    pkcs8(&wrap(OID, ED25519), &wrap(OCTET_STRING, seed))
}

/// Returns a private key in PEM.
pub fn pem(key: &[u8]) -> String {
    let mut text = "-----BEGIN PRIVATE KEY-----\n".to_owned();
    let base64 = BASE64.encode(key);
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(PEM_LINE));
        text.extend([line, "\n"]);
        rest = after;
    }
    text + "-----END PRIVATE KEY-----\n"
}

fn pkcs8(algorithm: &[u8], key: &[u8]) -> Vec<u8> {
    let parts = [integer(&[0]), wrap(SEQUENCE, algorithm), wrap(OCTET_STRING, key)];
    wrap(SEQUENCE, &parts.concat())
}

/// Returns the DER form of a number that is not negative. If the highest bit is set, a zero octet
/// is put before the number, so that it does not look negative. All other leading zeros are
/// removed.
fn integer(number: &[u8]) -> Vec<u8> {
    let zeros = number.iter().take_while(|octet| **octet == 0).count();
    let digits = number.get(zeros..).unwrap_or_default();
    let is_low = digits.first().is_some_and(|first| *first < 0x80);
    let sign: &[u8] = if is_low { &[] } else { &[0] };
    wrap(INTEGER, &[sign, digits].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_shortest_form() {
        for (number, der) in [
            (&[0][..], &[2, 1, 0][..]),
            (&[0, 0], &[2, 1, 0]),
            (&[0, 0x7f], &[2, 1, 0x7f]),
            (&[0x80], &[2, 2, 0, 0x80]),
            (&[1, 0, 1], &[2, 3, 1, 0, 1]),
        ] {
            assert_eq!(integer(number), der);
        }
    }

    #[test]
    fn lengths_have_their_shortest_form() {
        for (length, head) in [
            (0, &[4, 0][..]),
            (0x7f, &[4, 0x7f]),
            (0x80, &[4, 0x81, 0x80]),
            (0xff, &[4, 0x81, 0xff]),
            (0x100, &[4, 0x82, 1, 0]),
        ] {
            let der = wrap(OCTET_STRING, &vec![7; length]);
            assert!(der.starts_with(head) && der.len() == head.len() + length, "{length}");
        }
    }
}

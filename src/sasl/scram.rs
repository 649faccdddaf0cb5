//! SCRAM-SHA-256 (RFC 5802, RFC 7677): keys and attributes, for both sides.
//!
//! Pure arithmetic over octets. Secrets are compared in constant time. What comes
//! from the other side is looked at only for its form: `name=value`, commas between.
//! Reading fails with `None`, arithmetic never.

use std::num::NonZeroU32;

use ring::{digest, hmac, pbkdf2};

/// The length of every key.
pub const KEY: usize = digest::SHA256_OUTPUT_LEN;
/// The fewest iterations of RFC 7677 4.
pub const FEWEST: u32 = 4096;
/// No more are made for anybody: about a second's work.
pub const MOST: u32 = 2_000_000;
/// The longest salt, in octets.
pub const LONGEST_SALT: usize = 256;

/// A key, or a proof of one.
pub type Key = [u8; KEY];

/// What a server keeps of a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    /// What proofs are checked against.
    pub stored: Key,
    /// What the server proves itself with.
    pub server: Key,
}

/// A password drawn out.
pub fn salted(password: &[u8], salt: &[u8], iterations: u32) -> Key {
    let iterations = NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN);
    let mut salted = [0; KEY];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, password, &mut salted);
    salted
}

/// The keys of a server.
pub fn keys(salted: &Key) -> Keys {
    Keys { stored: hash(&sign(salted, b"Client Key")), server: sign(salted, b"Server Key") }
}

/// The proof that a client gives.
pub fn proof(salted: &Key, message: &[u8]) -> Key {
    let client = sign(salted, b"Client Key");
    xor(&client, &sign(&hash(&client), message))
}

/// Whether a proof is that of who knows the password.
pub fn is_proof(stored: &Key, message: &[u8], proof: &Key) -> bool {
    let client = xor(proof, &sign(stored, message));
    is_same(&hash(&client), stored)
}

/// HMAC-SHA-256.
pub fn sign(key: &[u8], message: &[u8]) -> Key {
    array(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref())
}

/// Whether two secrets are the same, in a time that does not tell.
pub fn is_same(one: &[u8], other: &[u8]) -> bool {
    // What ring compares so are tags; those of two texts are the same if the texts are.
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"same");
    hmac::verify(&key, one, hmac::sign(&key, other).as_ref()).is_ok()
}

fn hash(text: &[u8]) -> Key {
    array(digest::digest(&digest::SHA256, text).as_ref())
}

/// An array of a slice, which is always as long.
fn array(bytes: &[u8]) -> Key {
    bytes.try_into().unwrap_or_default()
}

fn xor(one: &Key, other: &Key) -> Key {
    let mut result = *one;
    result.iter_mut().zip(other).for_each(|(a, b)| *a ^= b);
    result
}

/// Eighteen random octets in base64: a nonce.
pub fn nonce() -> Option<String> {
    let mut random = [0; 18];
    getrandom::fill(&mut random).ok()?;
    Some(data_encoding::BASE64.encode(&random))
}

/// Whether a nonce is made of what may stand in one (RFC 5802 7, "printable").
pub fn is_nonce(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && b != b',')
}

/// The value of `x=value`.
pub fn value(attribute: Option<&str>, name: char) -> Option<&str> {
    attribute?.strip_prefix(name)?.strip_prefix('=')
}

/// A name as it stands in a message.
pub fn escape(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}

/// The name that stands in a message.
pub fn unescape(text: &str) -> Option<String> {
    let mut pieces = text.split('=');
    let mut name = pieces.next()?.to_owned();
    for piece in pieces {
        let (mark, rest) = piece.split_at_checked(2)?;
        name.push(match mark {
            "2C" => ',',
            "3D" => '=',
            _ => return None,
        });
        name.push_str(rest);
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_and_back() {
        for name in ["jon", "a,b", "=", ",=,=2C", "\u{fc}", ""] {
            assert_eq!(unescape(&escape(name)).as_deref(), Some(name));
        }
        for bad in ["=", "a=2", "a=2c", "=41", "=\u{fc}"] {
            assert_eq!(unescape(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_proof_is_made_and_checked() {
        let salted = salted(b"pencil", b"salt", 4096);
        let keys = keys(&salted);
        let proof = proof(&salted, b"message");
        assert!(is_proof(&keys.stored, b"message", &proof));
        assert!(!is_proof(&keys.stored, b"messagf", &proof));
        assert!(!is_proof(&keys.server, b"message", &proof));
    }
}

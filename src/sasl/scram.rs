//! Computes the keys of SCRAM-SHA-256 (RFC 5802, RFC 7677) and parses its attributes, for both
//! sides.
//!
//! The functions do no input or output. Secrets are compared in constant time. Messages consist of
//! attributes `x=value`, separated by commas. Only the form of an attribute is checked here.
//! Parsing returns `None` on failure. The arithmetic cannot fail.

use std::num::NonZeroU32;

use ring::{digest, hmac, pbkdf2};

/// The length of every key, in bytes.
pub const KEY: usize = digest::SHA256_OUTPUT_LEN;
/// The minimum number of iterations (RFC 7677 4).
pub const MIN_ITERATIONS: u32 = 4096;
/// The maximum number of iterations: about a second's work.
pub const MAX_ITERATIONS: u32 = 2_000_000;
/// The maximum length of a salt, in bytes.
pub const MAX_SALT: usize = 256;

/// A key, or the proof that a client knows a key.
pub type Key = [u8; KEY];

/// The keys that a server stores in place of a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    /// Verifies the proof of a client.
    pub stored: Key,
    /// Signs the server's proof.
    pub server: Key,
}

/// The salted password (RFC 5802 3).
pub fn salted(password: &[u8], salt: &[u8], iterations: u32) -> Key {
    let iterations = NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN);
    let mut salted = [0; KEY];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, password, &mut salted);
    salted
}

/// The keys of a server, from the salted password.
pub fn keys(salted: &Key) -> Keys {
    Keys { stored: hash(&sign(salted, b"Client Key")), server: sign(salted, b"Server Key") }
}

/// The proof of a client, from the salted password.
pub fn proof(salted: &Key, message: &[u8]) -> Key {
    let client = sign(salted, b"Client Key");
    xor(&client, &sign(&hash(&client), message))
}

/// Whether a proof was made with the password to which the key `stored` belongs.
pub fn is_proof(stored: &Key, message: &[u8], proof: &Key) -> bool {
    let client = xor(proof, &sign(stored, message));
    is_same(&hash(&client), stored)
}

/// HMAC-SHA-256.
pub fn sign(key: &[u8], message: &[u8]) -> Key {
    array(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref())
}

/// Whether two secrets are equal, in constant time.
pub fn is_same(one: &[u8], other: &[u8]) -> bool {
    // ring compares HMAC tags in constant time. The tags of two texts are equal only if the texts
    // are equal.
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"same");
    hmac::verify(&key, one, hmac::sign(&key, other).as_ref()).is_ok()
}

fn hash(text: &[u8]) -> Key {
    array(digest::digest(&digest::SHA256, text).as_ref())
}

/// The bytes of a slice, which always has the length of a key, as an array.
fn array(bytes: &[u8]) -> Key {
    bytes.try_into().unwrap_or_default()
}

fn xor(one: &Key, other: &Key) -> Key {
    let mut result = *one;
    result.iter_mut().zip(other).for_each(|(a, b)| *a ^= b);
    result
}

/// A nonce: 18 random bytes in base64; `None` if the system has no random numbers.
pub fn nonce() -> Option<String> {
    let mut random = [0; 18];
    getrandom::fill(&mut random).ok()?;
    Some(data_encoding::BASE64.encode(&random))
}

/// Whether a text is not empty and has only characters that a nonce may have (RFC 5802 7,
/// "printable").
pub fn is_nonce(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && b != b',')
}

/// The value of an attribute `x=value`; `None` if its name `x` is not `name`.
pub fn value(attribute: Option<&str>, name: char) -> Option<&str> {
    attribute?.strip_prefix(name)?.strip_prefix('=')
}

/// A user name as it is written in messages: with `=` and `,` escaped.
pub fn escape(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}

/// Restores a user name from its escaped form; `None` if that is malformed.
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

//! Seals the texts that hosts keep for each other in the shared store.
//!
//! The hosts of a site have a secret that the store does not know. So the store, and everybody who can
//! write to it, can neither read a text nor change or make one. They can remove a text, or put back an
//! older one of the same name: the caller checks whether a text is still valid.

use std::fmt;

use data_encoding::BASE64_NOPAD;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac::{self, HMAC_SHA256};
use ring::rand::{SecureRandom, SystemRandom};

/// What the key is used for, so that the secret can serve another purpose as well.
const PURPOSE: &[u8] = b"penfold: texts in the shared store, 1";
/// The maximum length of a text, in octets. A sealed text is longer by a third, and must fit into a
/// reply of the store.
const MAX_TEXT: usize = 32 << 10;

/// Seals and opens texts.
pub struct Seal(LessSafeKey);

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal")
    }
}

impl Seal {
    /// The seal of hosts with this secret. Returns `None` if the system has no such cipher.
    pub fn new(secret: &str) -> Option<Self> {
        let key = hmac::sign(&hmac::Key::new(HMAC_SHA256, secret.as_bytes()), PURPOSE);
        let key = UnboundKey::new(&CHACHA20_POLY1305, key.as_ref()).ok()?;
        Some(Self(LessSafeKey::new(key)))
    }

    /// Seals a text. The result can be opened under the same name only.
    pub fn close(&self, name: &str, text: &str) -> Option<String> {
        if text.len() > MAX_TEXT {
            return None;
        }
        let (mut nonce, mut octets) = ([0; NONCE_LEN], text.as_bytes().to_vec());
        SystemRandom::new().fill(&mut nonce).ok()?;
        let (value, name) = (Nonce::assume_unique_for_key(nonce), Aad::from(name.as_bytes()));
        self.0.seal_in_place_append_tag(value, name, &mut octets).ok()?;
        Some(BASE64_NOPAD.encode(&[&nonce[..], &octets].concat()))
    }

    /// Returns the text, if a host with the same secret has sealed it under this name.
    pub fn open(&self, name: &str, sealed: &str) -> Option<String> {
        let mut octets = BASE64_NOPAD.decode(sealed.as_bytes()).ok()?;
        let (nonce, octets) = octets.split_at_mut_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let text = self.0.open_in_place(nonce, Aad::from(name.as_bytes()), octets).ok()?;
        String::from_utf8(text.to_vec()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hosts_with_the_secret_read_and_make_texts() {
        let (ours, same, other) = (Seal::new("secret"), Seal::new("secret"), Seal::new("Secret"));
        let (ours, same, other) = (ours.expect("a key"), same.expect("a key"), other.expect("a key"));
        for text in ["", "a text", &"\u{fc}".repeat(MAX_TEXT / 2)] {
            let sealed = ours.close("name", text).expect("not too long");
            assert_eq!(same.open("name", &sealed).as_deref(), Some(text));
            assert_eq!((other.open("name", &sealed), same.open("Name", &sealed)), (None, None));
            assert!(text.is_empty() || !sealed.contains(text));
            assert_ne!(ours.close("name", text), Some(sealed), "two seals of one text are different");
        }
        assert_eq!(ours.close("name", &"a".repeat(MAX_TEXT + 1)), None);
    }

    #[test]
    fn a_changed_or_shortened_seal_is_not_opened() {
        let seal = Seal::new("secret").expect("a key");
        let sealed = seal.close("name", "a text").expect("short");
        for at in 0..sealed.len() {
            assert_eq!(seal.open("name", &sealed[..at]), None, "to {at}");
            let other = if &sealed[at..=at] == "A" { "B" } else { "A" };
            let changed = format!("{}{other}{}", &sealed[..at], &sealed[at + 1..]);
            assert_eq!(seal.open("name", &changed), None, "{changed}");
        }
        for foreign in ["\u{fc}", "====", "A", &"A".repeat(100), &(sealed.clone() + "AAAA")] {
            assert_eq!(seal.open("name", foreign), None, "{foreign}");
        }
    }
}

//! The server's side of SCRAM-SHA-256 (RFC 5802, RFC 7677), independent of penfold's own
//! implementation.

use std::num::NonZeroU32;

use data_encoding::BASE64;
use ring::{digest, hmac, pbkdf2};

/// The credentials of a server.
#[derive(Clone)]
pub struct Scram {
    pub password: String,
    /// Whether the server only pretends to know the password: it accepts every client.
    pub lies: bool,
    pub iterations: u32,
}

/// The state of an exchange after the challenge.
pub struct Asked {
    bare: String,
    challenge: String,
}

impl Scram {
    /// Answers the client's first message with a challenge, in base64.
    pub fn challenge(&self, first: &str) -> Option<(Asked, String)> {
        let bare = decode(first)?.strip_prefix("n,,")?.to_owned();
        let nonce = bare.split_once(",r=")?.1.to_owned();
        let challenge = format!("r={nonce}SeRvEr,s={},i={}", BASE64.encode(b"salt"), self.iterations);
        let encoded = BASE64.encode(challenge.as_bytes());
        Some((Asked { bare, challenge }, encoded))
    }

    /// Answers the client's last message with the server's signature, in base64. `None` if the
    /// client's proof is wrong.
    pub fn verdict(&self, asked: &Asked, last: &str) -> Option<String> {
        let last = decode(last)?;
        let (without, proof) = last.rsplit_once(",p=")?;
        let mut salted = [0; 32];
        let iterations = NonZeroU32::new(self.iterations)?;
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, b"salt", self.password.as_bytes(), &mut salted);
        let mac = |key: &[u8], text: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text);
        let message = format!("{},{},{without}", asked.bare, asked.challenge);
        let client = mac(&salted, b"Client Key");
        let stored = digest::digest(&digest::SHA256, client.as_ref());
        let signature = mac(stored.as_ref(), message.as_bytes());
        let wanted: Vec<u8> = client.as_ref().iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        let server = mac(mac(&salted, b"Server Key").as_ref(), message.as_bytes());
        let mut proved = server.as_ref().to_vec();
        proved[0] ^= u8::from(self.lies);
        let is_right = self.lies || BASE64.decode(proof.as_bytes()).ok()? == wanted;
        is_right.then(|| BASE64.encode(format!("v={}", BASE64.encode(&proved)).as_bytes()))
    }
}

fn decode(text: &str) -> Option<String> {
    String::from_utf8(BASE64.decode(text.as_bytes()).ok()?).ok()
}

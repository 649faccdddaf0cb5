//! Reads, makes and verifies the stored form of a password, which is the second field of a line in
//! a users file.
//!
//! ```text
//! {SCRAM-SHA-256}iterations,salt,stored key,server key      base64, as in Dovecot
//! {ARGON2ID}$argon2id$v=19$m=KiB,t=passes,p=lanes$salt$hash
//! {SHA512-CRYPT}$6$rounds=n$salt$hash                       rounds= is optional
//! ```
//!
//! The parser checks form and cost: a secret whose verification would take more than about a
//! second or 256 MiB is refused, so that no client can exhaust the machine. Plaintext
//! passwords are not accepted, so that a stolen file does not reveal them. An error never
//! contains a part of the secret, and `Debug` shows only the algorithm.

use std::fmt;

use argon2::Argon2;
use data_encoding::{BASE64, BASE64_NOPAD};
use sha_crypt::{PasswordHashRef, PasswordVerifier, ShaCrypt};

use super::prep::prepare;
use super::scram::{self, Key, Keys};

/// The number of iterations in a secret that penfold makes.
pub const ITERATIONS: u32 = 16_384;
/// The maximum length of a password, in bytes.
pub const MAX_PASSWORD: usize = 1024;

/// The length of a salt that penfold makes, in bytes.
const SALT: usize = 16;
/// The maximum memory for one verification, in KiB.
const MAX_MEMORY: u32 = 256 << 10;
const MAX_PASSES: u32 = 32;
const MAX_LANES: u32 = 16;
const MAX_ROUNDS: u32 = 1_000_000;

/// The stored form of one password.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// SCRAM-SHA-256, which every mechanism can use.
    Scram(Scram),
    /// Argon2id.
    Argon2(Argon2id),
    /// SHA-512-crypt: the text after `{SHA512-CRYPT}`.
    Sha512Crypt(Box<str>),
}

/// The stored form of a password for SCRAM.
#[derive(Clone, PartialEq, Eq)]
pub struct Scram {
    /// The number of iterations.
    pub iterations: u32,
    /// The salt.
    pub salt: Vec<u8>,
    /// The keys.
    pub keys: Keys,
}

/// An Argon2id hash.
#[derive(Clone, PartialEq, Eq)]
pub struct Argon2id {
    memory: u32,
    passes: u32,
    lanes: u32,
    salt: Vec<u8>,
    hash: Vec<u8>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scram(_) => "{SCRAM-SHA-256}",
            Self::Argon2(_) => "{ARGON2ID}",
            Self::Sha512Crypt(_) => "{SHA512-CRYPT}",
        })
    }
}

impl Secret {
    /// Reads the stored form of a password, as a line of a users file contains it.
    ///
    /// # Errors
    /// The form that was expected, without any text from the field.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let kind = text.strip_prefix('{').and_then(|t| t.split_once('}'));
        match kind {
            Some((kind, rest)) if kind.eq_ignore_ascii_case("SCRAM-SHA-256") => scram(rest).map(Self::Scram),
            Some((kind, rest)) if kind.eq_ignore_ascii_case("ARGON2ID") => argon2id(rest).map(Self::Argon2),
            Some((kind, rest)) if kind.eq_ignore_ascii_case("SHA512-CRYPT") => sha512_crypt(rest),
            _ => Err("expected a secret that begins with {SCRAM-SHA-256}, {ARGON2ID} or {SHA512-CRYPT}, or nothing"),
        }
    }

    /// The properties that a client can see or measure: algorithm and cost.
    pub fn kind(&self) -> String {
        match self {
            Self::Scram(scram) => format!("scram {} {}", scram.iterations, scram.salt.len()),
            Self::Argon2(argon) => format!("argon2 {} {} {}", argon.memory, argon.passes, argon.lanes),
            Self::Sha512Crypt(hash) => {
                let rounds = hash.split('$').find(|field| field.starts_with("rounds="));
                format!("crypt {}", rounds.unwrap_or_default())
            }
        }
    }

    /// Whether a password matches. The check takes the time, and with Argon2id the memory, that the
    /// secret specifies.
    pub fn verify(&self, password: &[u8]) -> bool {
        // A password with a NUL is unusable, because HMAC would ignore a NUL at the end. An empty
        // password is verified in its place, so that the rejection takes as long as any other.
        let is_usable = password.len() <= MAX_PASSWORD && !password.contains(&0);
        let password = if is_usable { password } else { b"" };
        let is_right = match self {
            Self::Scram(scram) => scram.verify(password),
            Self::Argon2(argon2id) => argon2id.verify(password),
            Self::Sha512Crypt(hash) => {
                PasswordHashRef::new(hash).is_ok_and(|hash| ShaCrypt::default().verify_password(password, hash).is_ok())
            }
        };
        is_right && is_usable
    }
}

impl Scram {
    /// The stored form of a new password, with a random salt; `None` if the password is unusable
    /// or the system has no random numbers.
    pub fn make(password: &str) -> Option<Self> {
        let password = prepare(password).filter(|p| !p.is_empty() && p.len() <= MAX_PASSWORD)?;
        let mut salt = vec![0; SALT];
        getrandom::fill(&mut salt).ok()?;
        let keys = scram::keys(&scram::salted(password.as_bytes(), &salt, ITERATIONS));
        Some(Self { iterations: ITERATIONS, salt, keys })
    }

    fn verify(&self, password: &[u8]) -> bool {
        // A password that cannot be prepared is used unchanged, as other programs do.
        let prepared = std::str::from_utf8(password).ok().and_then(prepare);
        let password = prepared.as_ref().map_or(password, |p| p.as_bytes());
        let keys = scram::keys(&scram::salted(password, &self.salt, self.iterations));
        scram::is_same(&keys.stored, &self.keys.stored)
    }
}

/// Prints the secret in the form of a users file. No other function prints a secret.
impl fmt::Display for Scram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (salt, stored) = (BASE64.encode(&self.salt), BASE64.encode(&self.keys.stored));
        write!(f, "{{SCRAM-SHA-256}}{},{salt},{stored},{}", self.iterations, BASE64.encode(&self.keys.server))
    }
}

impl Argon2id {
    fn verify(&self, password: &[u8]) -> bool {
        let mut made = vec![0; self.hash.len()];
        let parameters = argon2::Params::new(self.memory, self.passes, self.lanes, Some(self.hash.len()));
        let Ok(parameters) = parameters else { return false };
        let argon2 = Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, parameters);
        argon2.hash_password_into(password, &self.salt, &mut made).is_ok() && scram::is_same(&made, &self.hash)
    }
}

fn scram(text: &str) -> Result<Scram, &'static str> {
    let expected = "expected {SCRAM-SHA-256} with iterations, salt, stored key and server key";
    let fields: Vec<&str> = text.split(',').collect();
    let [iterations, salt, stored, server] = fields.as_slice() else { return Err(expected) };
    let iterations = number(iterations).ok_or(expected)?;
    let salt = BASE64.decode(salt.as_bytes()).map_err(|_| expected)?;
    let key = |text: &str| {
        BASE64.decode(text.as_bytes()).ok().and_then(|key| Key::try_from(key.as_slice()).ok()).ok_or(expected)
    };
    if salt.is_empty() || salt.len() > scram::MAX_SALT {
        return Err("expected a salt of 1 to 256 bytes");
    }
    if !(scram::MIN_ITERATIONS..=scram::MAX_ITERATIONS).contains(&iterations) {
        return Err("expected 4096 to 2000000 iterations");
    }
    Ok(Scram { iterations, salt, keys: Keys { stored: key(stored)?, server: key(server)? } })
}

fn argon2id(text: &str) -> Result<Argon2id, &'static str> {
    let expected = "expected {ARGON2ID}$argon2id$v=19$m=...,t=...,p=...$salt$hash";
    let fields: Vec<&str> = text.split('$').collect();
    let ["", "argon2id", "v=19", costs, salt, hash] = fields.as_slice() else { return Err(expected) };
    let costs: Vec<&str> = costs.split(',').collect();
    let [memory, passes, lanes] = costs.as_slice() else { return Err(expected) };
    let cost = |text: &str, name| text.strip_prefix(name).and_then(number).ok_or(expected);
    let (memory, passes, lanes) = (cost(memory, "m=")?, cost(passes, "t=")?, cost(lanes, "p=")?);
    let octets = |text: &str| BASE64_NOPAD.decode(text.as_bytes()).map_err(|_| expected);
    let (salt, hash) = (octets(salt)?, octets(hash)?);
    if memory > MAX_MEMORY || !(1..=MAX_PASSES).contains(&passes) || !(1..=MAX_LANES).contains(&lanes) {
        return Err("expected an Argon2id of at most m=262144, t=32, p=16");
    }
    // The memory times the number of passes is at most 2 GiB. This limit bounds the time of a
    // verification.
    if u64::from(memory) * u64::from(passes) > 2 << 20 {
        return Err("expected an Argon2id of at most 2 GiB in all passes together");
    }
    if !(8..=64).contains(&salt.len()) || !(16..=64).contains(&hash.len()) || memory < 8 * lanes {
        return Err(expected);
    }
    Ok(Argon2id { memory, passes, lanes, salt, hash })
}

fn sha512_crypt(text: &str) -> Result<Secret, &'static str> {
    let expected = "expected {SHA512-CRYPT}$6$salt$hash";
    let rest = text.strip_prefix("$6$").ok_or(expected)?;
    let salted = match rest.strip_prefix("rounds=") {
        Some(rest) => {
            let (rounds, rest) = rest.split_once('$').ok_or(expected)?;
            let rounds = number(rounds).ok_or(expected)?;
            if !(1000..=MAX_ROUNDS).contains(&rounds) {
                return Err("expected 1000 to 1000000 rounds");
            }
            rest
        }
        None => rest,
    };
    let (salt, hash) = salted.split_once('$').ok_or(expected)?;
    let is_crypt = |b: u8| b.is_ascii_alphanumeric() || b == b'.' || b == b'/';
    if !(1..=16).contains(&salt.len()) || hash.len() != 86 || !salt.bytes().chain(hash.bytes()).all(is_crypt) {
        return Err(expected);
    }
    PasswordHashRef::new(text).map(|_| Secret::Sha512Crypt(text.into())).map_err(|_| expected)
}

/// A decimal number without a sign.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Secrets of the password "pencil", made by Dovecot, argon2 and openssl.
    const GOOD: [&str; 4] = [
        "{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
        "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$pejGJjXX8NmZ+2mokctjSA$xmRrjNEalgQ+EgvYsaUKFZMxR3ae8JSuhsFFxCTLuoA",
        "{SHA512-CRYPT}$6$saltsalt$rD9fW1BwIrjB90WCgCTdIQc3phTBhf04I6Iw/XlgKD9E9aEbzqGZipjiFxGo/4wWXDA6jV6/vZO.kKdDSfUJb0",
        "{SHA512-CRYPT}$6$rounds=1000$saltstring$Dst5SzMCiLiSWQN0EnEgf8DNbHOJRybf7gWFoq4HhaAWnZcpnsBwYgTSajPGyhfsjkr51qmiDafX//8bUiGTO1",
    ];

    #[test]
    fn secrets_of_other_programs_are_read_and_verified() {
        for text in GOOD {
            let secret = Secret::parse(text).expect(text);
            assert!(secret.verify(b"pencil"), "{text}");
            // Without optimization Argon2id takes a second for each password, so only one is tried.
            let few = if text.contains("ARGON") { 1 } else { 4 };
            for wrong in [&b"Pencil"[..], b"", b"pencil\0", &[b'x'; MAX_PASSWORD + 1]].into_iter().take(few) {
                assert!(!secret.verify(wrong), "{text}");
            }
            assert!(!format!("{secret:?}").contains('$'), "Debug shows a secret");
        }
    }

    #[test]
    fn a_secret_made_here_is_read_here() {
        let made = Scram::make("pa\u{df}word: x").expect("a secret");
        let text = made.to_string();
        assert!(!text.contains(':'), "it would end the field");
        let secret = Secret::parse(&text).expect("good");
        assert!(secret.verify("pa\u{df}word: x".as_bytes()) && !secret.verify(b"password: x"));
        assert_ne!(text, Scram::make("pa\u{df}word: x").expect("a secret").to_string(), "the salt is new");
        assert!(Scram::make("").is_none() && Scram::make("a\nb").is_none());
    }

    #[test]
    fn malformed_and_expensive_secrets_are_refused() {
        let key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        let (salt, hash) = ("c29tZXNhbHQ", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
        let crypt = "x".repeat(86);
        for (text, wanted) in [
            ("pencil".to_owned(), "begins with"),
            ("{PLAIN}pencil".to_owned(), "begins with"),
            (format!("{{SCRAM-SHA-256}}4095,c2FsdA==,{key},{key}"), "iterations"),
            (format!("{{SCRAM-SHA-256}}2000001,c2FsdA==,{key},{key}"), "iterations"),
            (format!("{{SCRAM-SHA-256}}+4096,c2FsdA==,{key},{key}"), "expected"),
            (format!("{{SCRAM-SHA-256}}4096,,{key},{key}"), "salt"),
            (format!("{{SCRAM-SHA-256}}4096,c2FsdA==,{key}"), "expected"),
            (format!("{{SCRAM-SHA-256}}4096,c2FsdA==,{key},AAAA"), "expected"),
            (format!("{{ARGON2ID}}$argon2id$v=19$m=262145,t=1,p=1${salt}${hash}"), "at most"),
            (format!("{{ARGON2ID}}$argon2id$v=19$m=65536,t=33,p=1${salt}${hash}"), "at most"),
            (format!("{{ARGON2ID}}$argon2id$v=19$m=262144,t=9,p=1${salt}${hash}"), "in all"),
            (format!("{{ARGON2ID}}$argon2id$v=19$m=7,t=1,p=1${salt}${hash}"), "expected"),
            (format!("{{ARGON2ID}}$argon2i$v=19$m=65536,t=1,p=1${salt}${hash}"), "expected"),
            (format!("{{ARGON2ID}}$argon2id$v=19$m=65536,t=1,p=1${salt}$AAAA"), "expected"),
            (format!("{{SHA512-CRYPT}}$6$rounds=1000001$salt${crypt}"), "rounds"),
            (format!("{{SHA512-CRYPT}}$6$rounds=999$salt${crypt}"), "rounds"),
            (format!("{{SHA512-CRYPT}}$5$salt${crypt}"), "expected"),
            ("{SHA512-CRYPT}$6$salt$short".to_owned(), "expected"),
        ] {
            let error = Secret::parse(&text).expect_err(&text);
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }
}

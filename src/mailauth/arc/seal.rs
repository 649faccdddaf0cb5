//! Adds a set to the chain of a message (RFC 8617 5.1).

use std::fmt;

use super::chain;
use super::{MAX_SETS, Status};
use crate::mailauth::dkim::body::Hasher;
use crate::mailauth::dkim::canon::{self, Canon};
use crate::mailauth::dkim::header::{Front, Header};
use crate::mailauth::dkim::sign::{Folded, names};
use crate::mailauth::dkim::{NotSigned, SigningKey};
use crate::message::field::fields;

/// The reason why a message was not sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotSealed {
    /// The message cannot be signed.
    NotSigned(NotSigned),
    /// The chain has [`MAX_SETS`] sets already.
    TooMany,
    /// A sealer has found the chain broken, after which nobody may add to it.
    Broken,
    /// The result for the chain is not known at this time.
    Unknown,
}

impl fmt::Display for NotSealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotSigned(why) => return why.fmt(f),
            Self::TooMany => "the chain is too long",
            Self::Broken => "the chain is broken already",
            Self::Unknown => "the chain could not be verified",
        })
    }
}

impl std::error::Error for NotSealed {}

/// Takes a message that will be sealed. The text is the one that is sent on, but fields that are not
/// signed, such as Received, may be added later.
#[derive(Debug)]
pub struct Sealer {
    front: Front,
    body: Hasher,
}

impl Default for Sealer {
    fn default() -> Self {
        Self::new()
    }
}

impl Sealer {
    /// A sealer before the first octet of its message.
    pub fn new() -> Self {
        Self { front: Front::new(), body: Hasher::new([(Canon::Relaxed, None)]) }
    }

    /// Takes a piece of the text, which has LF as the line end and may be split anywhere.
    pub fn feed(&mut self, text: &[u8]) {
        let was_open = self.front.is_open();
        let rest = self.front.feed(text);
        if was_open && !self.front.is_open() {
            self.body.feed(self.front.body());
        }
        self.body.feed(rest);
    }

    /// Ends the message, and makes a set with a key for its domain and its selector. `results` is
    /// the value of this server's Authentication-Results field, and `chain` the result for the chain
    /// when the message arrived. `now` is the time in seconds since 1970. Returns the fields, whose
    /// lines end in LF.
    ///
    /// # Errors
    /// A [`NotSealed`].
    pub fn finish(
        mut self,
        (domain, selector, key): (&str, &str, &SigningKey),
        results: &str,
        chain: Status,
        now: u64,
    ) -> Result<String, NotSealed> {
        if self.front.is_open() {
            self.front.finish();
            self.body.feed(self.front.body());
        }
        if self.front.is_too_long() {
            return Err(NotSealed::NotSigned(NotSigned::HeaderTooLong));
        }
        let hashes = self.body.finish();
        let (hash, _) = hashes.get(Canon::Relaxed, None).unwrap_or_default();
        let header = Header::new(self.front.header());
        if header.named("from").next().is_none() {
            return Err(NotSealed::NotSigned(NotSigned::NoFrom));
        }
        let (number, mut text, result) = before(&header, chain)?;
        let number = number.to_string();
        let tags = |field: &mut Folded| {
            field.tag("i", &number);
            field.tag("a", key.algorithm().name());
        };
        let ends = |field: &mut Folded| {
            field.tag("d", domain);
            field.tag("s", selector);
            field.tag("t", &now.to_string());
        };
        let results = format!("ARC-Authentication-Results: i={number}; {}\n", results.trim());
        let mut message = Folded::new("ARC-Message-Signature");
        tags(&mut message);
        message.tag("c", "relaxed/relaxed");
        ends(&mut message);
        let mut names = names(&header);
        names.extend(header.named("dkim-signature").map(|_| "DKIM-Signature").take(MAX_SETS));
        message.list("h", &names);
        message.base64("bh", hash);
        let lower: Vec<String> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
        let no_random = NotSealed::NotSigned(NotSigned::NoRandom);
        let message = message.sign(&header.signed(&lower, Canon::Relaxed, None), key).ok_or(no_random)?;
        let own = results + &message;
        for field in fields(own.as_bytes()) {
            canon::field(Canon::Relaxed, field.name, field.raw, field.body, &mut text);
        }
        let mut seal = Folded::new("ARC-Seal");
        tags(&mut seal);
        seal.tag("cv", result.word());
        ends(&mut seal);
        let seal = seal.sign(&text, key).ok_or(no_random)?;
        // The newest field is the topmost one.
        let (results, message) = own.split_at(own.len() - message.len());
        Ok([&seal, message, results].concat())
    }
}

/// The number of the next set, the text of the sets before it that its seal signs, and the result
/// that it states.
fn before(header: &Header<'_>, chain: Status) -> Result<(usize, Vec<u8>, Status), NotSealed> {
    let mut text = Vec::new();
    let sets = match (chain::sets(header), chain) {
        (_, Status::TempError) => return Err(NotSealed::Unknown),
        (Ok(sets), _) => sets,
        // Without order there is no next number.
        (Err(_), _) => return Err(NotSealed::Broken),
    };
    if sets.len() >= MAX_SETS {
        return Err(NotSealed::TooMany);
    }
    if sets.last().is_some_and(|set| set.result().as_deref() == Some("fail")) {
        return Err(NotSealed::Broken);
    }
    let number = sets.len() + 1;
    let result = match chain {
        _ if sets.is_empty() => Status::None,
        Status::Pass => Status::Pass,
        // A set that reports a broken chain seals only itself (RFC 8617 5.1.2).
        _ => return Ok((number, text, Status::Fail)),
    };
    sets.iter().for_each(|set| set.append(true, &mut text));
    Ok((number, text, result))
}

//! Makes the fields that add a set to the ARC chain of a message (RFC 8617 5.1).

use std::{fmt, io};

use super::chain;
use super::{MAX_SETS, Status};
use crate::mailauth::dkim::canon::{self, Canon};
use crate::mailauth::dkim::header::Header;
use crate::mailauth::dkim::sign::{Folded, names};
use crate::mailauth::dkim::{NotSigned, Signer, SigningKey};
use crate::message::field::fields;

/// The reason why a message was not sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotSealed {
    /// The message cannot be signed, for this reason.
    NotSigned(NotSigned),
    /// The chain has [`MAX_SETS`] sets already.
    TooMany,
    /// An earlier server has sealed the chain as broken, after which nobody may add a set.
    Broken,
    /// The result for the chain is unknown, because a key could not be looked up.
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

/// Collects from a message what its seal needs. The text must be the one that is sent on. Only
/// fields that are not signed, such as Received, may be added later.
#[derive(Debug, Default)]
pub struct Sealer(Signer);

impl Sealer {
    /// Returns a sealer that has not taken any text yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece of the text. Lines end in LF, and the text may be split anywhere.
    pub fn feed(&mut self, text: &[u8]) {
        self.0.feed(text);
    }

    /// Takes a text from its first octet to its last.
    ///
    /// # Errors
    /// Those of `content`.
    pub fn read(&mut self, mut content: impl io::Read) -> io::Result<()> {
        io::copy(&mut content, &mut self.0).map(drop)
    }

    /// Returns the text of the header so far.
    pub fn header(&self) -> &[u8] {
        self.0.header()
    }

    /// Ends the message, and makes a set. The key comes with the domain for which it signs, and
    /// with its selector. `results` is the value of this server's Authentication-Results field.
    /// `chain` is the result for the chain when the message arrived; it is ignored if there is no
    /// chain. `now` is the time in seconds since 1970. Returns the three fields of the set. Their
    /// lines end in LF.
    ///
    /// # Errors
    /// A [`NotSealed`].
    pub fn finish(
        self,
        (domain, selector, key): (&str, &str, &SigningKey),
        results: &str,
        chain: Status,
        now: u64,
    ) -> Result<String, NotSealed> {
        let ended = self.0.end().map_err(NotSealed::NotSigned)?;
        let header = ended.header();
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
        message.base64("bh", &ended.hash);
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
        // The field that was made last stands on top.
        let (results, message) = own.split_at(own.len() - message.len());
        Ok([&seal, message, results].concat())
    }
}

/// Returns the number of the next set, the text of the earlier sets that the seal of the next set
/// signs, and the result that this seal states.
fn before(header: &Header<'_>, chain: Status) -> Result<(usize, Vec<u8>, Status), NotSealed> {
    let mut text = Vec::new();
    // If the sets have no order, there is no number for the next one.
    let sets = chain::sets(header).map_err(|_| NotSealed::Broken)?;
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
        Status::TempError => return Err(NotSealed::Unknown),
        // The seal of a set that reports a broken chain signs only its own set (RFC 8617 5.1.2).
        _ => return Ok((number, text, Status::Fail)),
    };
    sets.iter().for_each(|set| set.append(true, &mut text));
    Ok((number, text, result))
}

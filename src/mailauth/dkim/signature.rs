//! Parses signature fields: `DKIM-Signature:` (RFC 6376 3.5), and the similar fields of ARC.

use std::ops::Range;

use super::canon::Canon;
use super::tags::{Tags, base64, parts};
use super::{Algorithm, Reason};
use crate::address::{parse_dns_name, parse_domain};
use crate::config::key_name;
use crate::mailauth::is_at_or_below;

/// The maximum length of the value of a signature field, in octets.
pub const MAX_FIELD: usize = 16 * 1024;
/// The maximum number of names in `h=`.
const MAX_NAMES: usize = 512;
/// The maximum length of `b=`, in octets.
const MAX_SIGNATURE: usize = 1024;
/// The length of a SHA-256 hash, in octets.
const HASH: usize = 32;

/// What a signature field says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// The algorithm, `a=`.
    pub algorithm: Algorithm,
    /// The signature, `b=`.
    pub octets: Vec<u8>,
    /// The range of octets of the signature in the field's value, with the white space around it.
    pub place: Range<usize>,
    /// The hash of the body, `bh=`.
    pub body_hash: Vec<u8>,
    /// The canonical form of the header, the first word of `c=`.
    pub header_form: Canon,
    /// The canonical form of the body, the second word of `c=`.
    pub body_form: Canon,
    /// The names of the signed fields in lower case, `h=`.
    pub names: Vec<String>,
    /// The number of octets of the body that are signed, `l=`; `None` if all are.
    pub length: Option<u64>,
    /// The time at which the signature expires, `x=`, in seconds since 1970; `None` if it does not
    /// expire.
    pub expires: Option<u64>,
    /// Whether the domain in `i=` is the signing domain itself. Otherwise it is a subdomain.
    pub is_exact: bool,
}

/// Returns the domain and the selector in the value of a signature field, in canonical form. Returns
/// `None` if the field cannot be read.
pub fn named_key(value: &[u8]) -> Option<(String, String)> {
    let tags = Tags::parse(value)?;
    Some((parse_domain(tags.get("d")?).ok()?.into(), tags.get("s")?.to_ascii_lowercase()))
}

/// The parts of a signature field that could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The signing domain, `d=`, in canonical form; empty if there is none.
    pub domain: String,
    /// The selector, `s=`, in canonical form; empty if there is none.
    pub selector: String,
    /// The algorithm; `None` if penfold does not support it.
    pub algorithm: Option<Algorithm>,
    /// The first characters of the signature, at most [`MARK`].
    pub mark: String,
    /// The signature, or the reason why it cannot be verified.
    pub signature: Result<Signature, Reason>,
}

/// The number of characters of a signature that are enough to tell it from others (RFC 6008 4).
pub const MARK: usize = 12;

/// The kind of field that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The field `DKIM-Signature:`.
    Dkim,
    /// `ARC-Message-Signature:`. Its `i=` is a number, and it needs no `v=` (RFC 8617 4.1.2).
    #[cfg(feature = "arc")]
    ArcMessage,
    /// `ARC-Seal:`. Its `i=` is a number, and it has no `v=`, no `h=` and no `bh=` (RFC 8617
    /// 4.1.3).
    #[cfg(feature = "arc")]
    ArcSeal,
}

impl Kind {
    /// Returns whether a field of this kind signs the body and the header fields that its `h=`
    /// names. A seal does not.
    fn signs_message(self) -> bool {
        match self {
            Self::Dkim => true,
            #[cfg(feature = "arc")]
            Self::ArcMessage => true,
            #[cfg(feature = "arc")]
            Self::ArcSeal => false,
        }
    }
}

impl Claim {
    /// Reads the value of a signature field.
    pub fn parse(kind: Kind, value: &[u8]) -> Self {
        let tags = if value.len() > MAX_FIELD { None } else { Tags::parse(value) };
        let Some(tags) = tags else {
            let (domain, selector, mark) = Default::default();
            return Self { domain, selector, algorithm: None, mark, signature: Err(Reason::Malformed("tag list")) };
        };
        let name = |tag| tags.get(tag).and_then(parse_dns_name).map(String::from);
        let domain = name("d").unwrap_or_default();
        let selector = name("s").unwrap_or_default();
        let mark = tags.get("b").unwrap_or_default().chars();
        let mark = mark.filter(|&c| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=')).take(MARK).collect();
        let signature = Signature::read(kind, &tags, &domain, &selector);
        let algorithm = tags.get("a").and_then(Algorithm::parse);
        Self { domain, selector, algorithm, mark, signature }
    }

    /// Returns the DNS name of the key's record.
    pub fn key_name(&self) -> String {
        key_name(&self.selector, &self.domain)
    }
}

impl Signature {
    fn read(kind: Kind, tags: &Tags<'_>, domain: &str, selector: &str) -> Result<Self, Reason> {
        if kind == Kind::Dkim && tags.get("v") != Some("1") {
            return Err(if tags.get("v").is_some() { Reason::Version } else { Reason::Malformed("v=") });
        }
        let algorithm = tags.get("a").ok_or(Reason::Malformed("a="))?;
        if algorithm == "rsa-sha1" {
            return Err(Reason::Sha1);
        }
        let algorithm = Algorithm::parse(algorithm).ok_or(Reason::Algorithm)?;
        if domain.is_empty() {
            return Err(Reason::Malformed("d="));
        }
        if selector.is_empty() {
            return Err(Reason::Malformed("s="));
        }
        let tag = tags.tag("b").ok_or(Reason::Malformed("b="))?;
        let octets = base64(tag.value, MAX_SIGNATURE).filter(|octets| !octets.is_empty());
        let octets = octets.ok_or(Reason::Malformed("b="))?;
        let (header_form, body_form) = forms(tags.get("c"))?;
        let expires = times(tags)?;
        let method = tags.get("q").is_none_or(|methods| parts(methods).any(|method| method == "dns/txt"));
        if !method {
            return Err(Reason::Query);
        }
        let mut signature = Self {
            algorithm,
            octets,
            place: tag.place.clone(),
            body_hash: Vec::new(),
            header_form,
            body_form,
            names: Vec::new(),
            length: None,
            expires,
            is_exact: true,
        };
        if kind.signs_message() {
            signature.read_coverage(tags)?;
        } else if tags.get("h").is_some() {
            return Err(Reason::Malformed("h="));
        }
        if kind == Kind::Dkim {
            signature.is_exact = identity(tags.get("i"), domain)?;
        }
        Ok(signature)
    }

    /// Reads the tags that say what is signed: `h=`, `bh=` and `l=`.
    fn read_coverage(&mut self, tags: &Tags<'_>) -> Result<(), Reason> {
        let names = tags.get("h").ok_or(Reason::Malformed("h="))?;
        self.names = parts(names).take(MAX_NAMES + 1).map(str::to_ascii_lowercase).collect();
        let is_name = |name: &String| !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic());
        if self.names.len() > MAX_NAMES || !self.names.iter().all(is_name) {
            return Err(Reason::Malformed("h="));
        }
        let hash = tags.get("bh").and_then(|value| base64(value, HASH)).filter(|hash| hash.len() == HASH);
        self.body_hash = hash.ok_or(Reason::Malformed("bh="))?;
        self.length = number(tags, "l")?;
        if !self.names.iter().any(|name| name == "from") {
            return Err(Reason::FromNotSigned);
        }
        Ok(())
    }
}

/// Reads `c=`, the canonical forms of the header and of the body.
fn forms(value: Option<&str>) -> Result<(Canon, Canon), Reason> {
    let value = value.unwrap_or("simple/simple");
    let (header, body) = value.split_once('/').unwrap_or((value, "simple"));
    Canon::parse(header).zip(Canon::parse(body)).ok_or(Reason::Canonicalization)
}

/// Reads `t=` (the time of the signature) and `x=` (the time at which it expires), and returns
/// `x=`. If both are there, `x=` must be later.
fn times(tags: &Tags<'_>) -> Result<Option<u64>, Reason> {
    let (time, expires) = (number(tags, "t")?, number(tags, "x")?);
    match (time, expires) {
        (Some(time), Some(expires)) if expires <= time => Err(Reason::Malformed("x=")),
        _ => Ok(expires),
    }
}

/// Reads a number. RFC 6376 allows up to 76 digits. A number that is too large for 64 bits becomes
/// the largest one.
fn number(tags: &Tags<'_>, name: &'static str) -> Result<Option<u64>, Reason> {
    let Some(value) = tags.get(name) else { return Ok(None) };
    let is_number = (1..=76).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_digit());
    let malformed = Reason::Malformed(match name {
        "l" => "l=",
        "t" => "t=",
        _ => "x=",
    });
    if is_number { Ok(Some(value.parse().unwrap_or(u64::MAX))) } else { Err(malformed) }
}

/// Reads `i=`, which must be in the signing domain. Returns whether it is the domain itself.
fn identity(value: Option<&str>, domain: &str) -> Result<bool, Reason> {
    let Some(value) = value else { return Ok(true) };
    let (_, host) = value.rsplit_once('@').ok_or(Reason::Malformed("i="))?;
    let host = parse_domain(host).map_err(|_| Reason::Malformed("i="))?;
    match &*host {
        host if host == domain => Ok(true),
        host if is_at_or_below(host, domain) => Ok(false),
        _ => Err(Reason::Identity),
    }
}

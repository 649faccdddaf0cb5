//! A mail address: parse, quote, compare.
//!
//! An [`Address`] holds the meaning, not the spelling: the local part without
//! quotes, the domain in canonical form. Writing it adds quotes where the syntax
//! needs them. The local part is ASCII or, from [`Address::parse_utf8`] only, UTF-8
//! (RFC 6531). It never contains a control character, a line separator or a
//! character that reverses text, so an address can be written unchanged into a header, a
//! log line or a command, provided that only an address that
//! [`is ASCII`](Address::is_ascii) is written where ASCII is required.
//!
//! The canonical form of a domain is ASCII in lower case, with A-labels in place of U-labels (RFC
//! 5890); the canonical form of an address literal is defined by [`parse_domain`]. So two domains
//! are the same if and only if their texts are equal, and every domain in a table or in the
//! configuration is converted by [`parse_domain`]. An unconverted text is compared with
//! [`is_same_domain`].
//!
//! Local domains and the meaning of `+` are the business of `route`.
//!
//! - `domain`: domains and address literals: canonical form, comparison, limits
//! - `parse`: addresses and paths, as SMTP and files write them
//! - `quote`: addresses and paths written back, with quotes where needed

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

mod domain;
mod parse;
mod quote;

pub use domain::{is_same_domain, literal, parse_domain, parse_domain_utf8};
pub use parse::{parse_path, parse_path_utf8};
pub use quote::path;

use parse::{Charset, scan};

/// The maximum length of an address, in octets. RFC 5321 4.5.3.1.3 requires 256, but
/// real bounce addresses can be longer.
pub const MAX_ADDRESS: usize = 320;

/// A mailbox, `local@domain`. The domain is empty where none was given
/// (`postmaster`, or a name typed by hand), until it is qualified.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    local: Box<str>,
    domain: Box<str>,
}

/// Why a text is not an address. The text of each error is fit for a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressError {
    /// Nothing where an address was expected.
    Empty,
    /// Longer than [`MAX_ADDRESS`].
    TooLong,
    /// A byte outside ASCII where UTF-8 is not accepted.
    NotAscii,
    /// Bytes that are not UTF-8 where UTF-8 is accepted.
    NotUtf8,
    /// The local part has a character that must be quoted or is not allowed, or an open
    /// quote.
    BadLocal,
    /// The domain has an empty or over-long label, a label that IDNA rejects, or a
    /// character that is not allowed in a name.
    BadDomain,
    /// `[...]` that is neither an IPv4 nor an IPv6 address.
    BadLiteral,
    /// `<` without `>`, or a source route without its colon.
    BadPath,
    /// Text after the end of the address.
    Trailing,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "an address is missing",
            Self::TooLong => "the address is too long",
            Self::NotAscii => "the address is not in ASCII",
            Self::NotUtf8 => "the address is not in UTF-8",
            Self::BadLocal => "the part before the @ is not a valid name",
            Self::BadDomain => "the domain is not valid",
            Self::BadLiteral => "the address literal is not valid",
            Self::BadPath => "the angle brackets do not match",
            Self::Trailing => "there is text after the address",
        })
    }
}

impl std::error::Error for AddressError {}

impl Address {
    /// An address from an ASCII local part without quotes and an ASCII domain, which may be
    /// empty.
    ///
    /// # Errors
    /// [`AddressError::BadLocal`], [`AddressError::TooLong`], and those of [`parse_domain`].
    pub fn new(local: &str, domain: &str) -> Result<Self, AddressError> {
        if local.is_empty() || !local.bytes().all(|b| (b' '..=b'~').contains(&b)) {
            return Err(AddressError::BadLocal);
        }
        if local.len() + domain.len() >= MAX_ADDRESS {
            return Err(AddressError::TooLong);
        }
        let domain = if domain.is_empty() { Box::default() } else { parse_domain(domain)? };
        Self::of(local.into(), domain)
    }

    /// An address from two parts that were checked.
    fn of(local: Box<str>, domain: Box<str>) -> Result<Self, AddressError> {
        if local.len() + domain.len() >= MAX_ADDRESS {
            return Err(AddressError::TooLong);
        }
        Ok(Self { local, domain })
    }

    /// Reads a whole text as one ASCII address, with or without a domain.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        Self::whole(text, Charset::Ascii)
    }

    /// Reads a whole text as one address that may be UTF-8 (RFC 6531), with or without a
    /// domain.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse_utf8(text: &str) -> Result<Self, AddressError> {
        Self::whole(text, Charset::Utf8)
    }

    fn whole(text: &str, charset: Charset) -> Result<Self, AddressError> {
        let (address, rest) = scan(text.as_bytes(), charset)?;
        if rest.is_empty() { Ok(address) } else { Err(AddressError::Trailing) }
    }

    /// The local part, without quotes.
    pub fn local(&self) -> &str {
        &self.local
    }

    /// The domain in canonical form, such as `xn--bcher-kva.example`, `[192.0.2.1]` or
    /// `[IPv6:2001:db8::1]`; empty if the address has none.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Whether both parts are ASCII. This must be checked where only ASCII is allowed: in SMTP
    /// commands and replies without SMTPUTF8, in the heads of the spool and in reports.
    pub fn is_ascii(&self) -> bool {
        self.local.is_ascii()
    }

    /// The IP address, if the domain is a literal.
    pub fn literal(&self) -> Option<IpAddr> {
        literal(&self.domain)
    }

    /// This local part at another domain, which must be in canonical form.
    #[must_use]
    pub fn at(&self, domain: &str) -> Self {
        Self { local: self.local.clone(), domain: domain.into() }
    }

    /// This domain with another local part, which must not be empty and must come from an address.
    #[must_use]
    pub fn with_local(&self, local: &str) -> Self {
        Self { local: local.into(), domain: self.domain.clone() }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{self}>")
    }
}

impl FromStr for Address {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests;

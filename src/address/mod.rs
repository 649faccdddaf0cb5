//! Parses, compares and writes mail addresses, for SMTP and for the files that contain addresses.
//!
//! An [`Address`] holds the meaning of an address, not its spelling: the local part without quotes,
//! and the domain in canonical form. Writing the address adds quotes where the syntax needs them.
//! The local part is ASCII or UTF-8 (RFC 6531). It contains no control character, no line separator
//! no character that reverses text, and
//! no invisible one except the joiners. So an address can be written unchanged into a header, a log
//! line or a command. Where ASCII is required, the caller checks [`Address::is_ascii`] first.
//!
//! The canonical form of a domain is ASCII in lower case, with A-labels in place of U-labels (RFC
//! 5890). For address literals, see [`parse_domain`]. Two domains are the same if and only if their
//! canonical forms are equal. [`parse_domain`] converts every domain in a table or in the
//! configuration; [`is_same_domain`] compares texts that were not converted.
//!
//! A local part is passed on as it was given, octet for octet. Only where this host compares local
//! parts, with each other or with the names in a table, it compares their folded forms (see
//! [`fold`]).
//!
//! Which domains are local, and what `+` means in a local part, is decided in `route`.
//!
//! - `domain`: domains and address literals: canonical form, comparison, limits
//! - `fold`: the form in which local parts are compared
//! - `parse`: addresses and paths, as SMTP and files write them
//! - `quote`: addresses and paths written back, with quotes where needed

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

mod domain;
mod fold;
mod parse;
mod quote;

pub use domain::{is_same_domain, literal, parse_dns_name, parse_domain};
pub use fold::{fold, is_same_local};
pub use parse::parse_path;
pub use quote::path;

use parse::{check_local, scan};

/// The maximum length of an address, in octets. RFC 5321 4.5.3.1.3 requires 256, but
/// real bounce addresses can be longer.
pub const MAX_ADDRESS: usize = 320;

/// A mailbox, `local@domain`. If the text had no domain (`postmaster`, or a name typed by hand),
/// the domain is empty until a caller adds one.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    local: Box<str>,
    domain: Box<str>,
}

/// The reason why a text is not an address. Its `Display` text may be shown to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressError {
    /// The address is missing.
    Empty,
    /// The address is longer than [`MAX_ADDRESS`].
    TooLong,
    /// The address is not valid UTF-8.
    NotUtf8,
    /// The local part is empty, has a character that is not allowed or needs quotes, or has no
    /// closing quote.
    BadLocal,
    /// The domain has an empty or over-long label, a label that IDNA rejects, or a
    /// character that is not allowed in a name.
    BadDomain,
    /// The domain is `[...]`, but the content is neither an IPv4 nor an IPv6 address.
    BadLiteral,
    /// A `<` has no `>`, or a source route has no colon.
    BadPath,
    /// There is text after the end of the address.
    Trailing,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "an address is missing",
            Self::TooLong => "the address is too long",
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
    /// Makes an address of a local part, given without quotes, and a domain, which may be empty.
    ///
    /// # Errors
    /// [`AddressError::BadLocal`], [`AddressError::NotUtf8`], [`AddressError::TooLong`], and those
    /// of [`parse_domain`].
    pub fn new(local: &str, domain: &str) -> Result<Self, AddressError> {
        check_local(local)?;
        if local.len() + domain.len() >= MAX_ADDRESS {
            return Err(AddressError::TooLong);
        }
        let domain = if domain.is_empty() { Box::default() } else { parse_domain(domain)? };
        Self::of(local.into(), domain)
    }

    /// Makes an address of two parts that the caller has checked.
    fn of(local: Box<str>, domain: Box<str>) -> Result<Self, AddressError> {
        if local.len() + domain.len() >= MAX_ADDRESS {
            return Err(AddressError::TooLong);
        }
        Ok(Self { local, domain })
    }

    /// Reads a whole text as one address, with or without a domain.
    ///
    /// # Errors
    /// The first error in the text.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let (address, rest) = scan(text.as_bytes())?;
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

    /// Whether the whole address is ASCII. Callers check this before they write an address where
    /// only ASCII is allowed: into SMTP commands and replies without SMTPUTF8, and into reports.
    pub fn is_ascii(&self) -> bool {
        self.local.is_ascii()
    }

    /// The IP address, if the domain is a literal.
    pub fn literal(&self) -> Option<IpAddr> {
        literal(&self.domain)
    }

    /// Returns an address with the same local part at `domain`, which must be in canonical form.
    #[must_use]
    pub fn at(&self, domain: &str) -> Self {
        Self { local: self.local.clone(), domain: domain.into() }
    }

    /// Returns an address with the same domain and the local part `local`, which must not be empty
    /// and must come from another address.
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

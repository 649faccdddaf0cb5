//! A mail address: parse, quote, compare.
//!
//! An [`Address`] holds the meaning, not the spelling: the local part without
//! quotes, the domain in lower case, a literal in its canonical form. Writing it
//! puts quotes where the syntax asks for them. A value of this type has no
//! control character and no byte outside ASCII, so it can be written into a
//! header, a log line or a command as it is. Does not know which domains are
//! local, nor what `+` means: see `route`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

mod domain;
mod parse;
mod quote;

pub use domain::{literal, parse_domain};
pub use parse::parse_path;
pub use quote::path;

/// The longest address read, in octets: RFC 5321 4.5.3.1.3 asks for 256, and
/// bounce addresses in the wild are longer.
pub const MAX_ADDRESS: usize = 320;

/// A mailbox, `local@domain`. The domain is empty where none was given
/// (`postmaster`, or a name typed by hand) until someone qualifies it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    local: Box<str>,
    domain: Box<str>,
}

/// Why a text is no address. The text of each is fit for a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressError {
    /// Nothing where an address was expected.
    Empty,
    /// Longer than [`MAX_ADDRESS`].
    TooLong,
    /// A byte outside ASCII: SMTPUTF8 (RFC 6531) is not offered.
    NotAscii,
    /// The local part has a character that must be quoted, or an open quote.
    BadLocal,
    /// The domain has an empty or over-long label, or a character that no name has.
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
    /// An address from a local part without quotes and a domain.
    ///
    /// # Errors
    /// Those of the parts; an empty domain is allowed.
    pub fn new(local: &str, domain: &str) -> Result<Self, AddressError> {
        if local.is_empty() || !local.bytes().all(|b| (b' '..=b'~').contains(&b)) {
            return Err(AddressError::BadLocal);
        }
        if local.len() + domain.len() >= MAX_ADDRESS {
            return Err(AddressError::TooLong);
        }
        let domain = if domain.is_empty() { Box::default() } else { parse_domain(domain)? };
        Ok(Self { local: local.into(), domain })
    }

    /// Reads a whole text as one address, with or without a domain.
    ///
    /// # Errors
    /// Whatever is wrong with it first.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let (address, rest) = parse::scan(text.as_bytes())?;
        if rest.is_empty() { Ok(address) } else { Err(AddressError::Trailing) }
    }

    /// The local part, without quotes.
    pub fn local(&self) -> &str {
        &self.local
    }

    /// The domain in lower case, a literal as `[192.0.2.1]` or `[IPv6:2001:db8::1]`,
    /// or nothing.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The address that the domain stands for, if it is a literal.
    pub fn literal(&self) -> Option<IpAddr> {
        literal(&self.domain)
    }

    /// The same local part at another domain, which must be one that was parsed.
    #[must_use]
    pub fn at(&self, domain: &str) -> Self {
        Self { local: self.local.clone(), domain: domain.into() }
    }

    /// The same domain with another local part, which must not be empty.
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
mod tests {
    use super::*;

    #[test]
    fn an_address_keeps_its_meaning_not_its_spelling() {
        for (given, written) in [
            ("jon@RazorBack", "jon@razorback"),
            ("\"jon\"@razorback", "jon@razorback"),
            ("\"j on\"@x.org", "\"j on\"@x.org"),
            ("\"a\\\"b\"@x.org", "\"a\\\"b\"@x.org"),
            ("\"a\\b\"@x.org", "ab@x.org"),
            ("a..b@x.org", "\"a..b\"@x.org"),
            ("\"a@b\"@x.org", "\"a@b\"@x.org"),
            ("x@[192.0.2.1]", "x@[192.0.2.1]"),
            ("x@[ipv6:2001:DB8:0::1]", "x@[IPv6:2001:db8::1]"),
            ("postmaster", "postmaster"),
            ("a%b@c", "a%b@c"),
            ("host!user@c", "host!user@c"),
        ] {
            let address = Address::parse(given).expect(given);
            assert_eq!(address.to_string(), written);
            assert_eq!(Address::parse(written).expect(written), address);
        }
    }

    #[test]
    fn what_is_no_address_says_why() {
        use AddressError::*;
        let long = format!("{}@{}", "a".repeat(200), "b.".repeat(100) + "c");
        for (given, why) in [
            ("", Empty),
            ("@x", BadLocal),
            ("a@", BadDomain),
            ("a@x.", BadDomain),
            ("a@x..y", BadDomain),
            ("a@-x", BadDomain),
            ("a@[1.2.3]", BadLiteral),
            ("a@[IPv6:zz]", BadLiteral),
            ("a@[1.2.3.4", BadLiteral),
            ("a b@x", Trailing),
            ("a,b@x", BadLocal),
            ("\"a@x", BadLocal),
            ("j\u{f6}n@x", NotAscii),
            ("a@\u{f6}", NotAscii),
            ("a@x y", Trailing),
            (long.as_str(), TooLong),
        ] {
            assert_eq!(Address::parse(given), Err(why), "{given}");
        }
    }

    #[test]
    fn paths_as_the_books_and_the_rfc_write_them() {
        for (given, address, rest) in [
            ("<a@b>", "<a@b>", ""),
            (" <a@b> SIZE=3", "<a@b>", " SIZE=3"),
            (" a@b", "<a@b>", ""),
            ("a@b BODY=8BITMIME", "<a@b>", " BODY=8BITMIME"),
            ("<>", "<>", ""),
            ("< a@b >", "<a@b>", ""),
            ("<@one,@two:a@b>", "<a@b>", ""),
            ("<@[IPv6:::1],@two:a@b>", "<a@b>", ""),
            ("<Postmaster>", "<Postmaster>", ""),
            ("<\"a>b\"@c> X", "<\"a>b\"@c>", " X"),
        ] {
            let (got, left) = parse_path(given.as_bytes()).expect(given);
            assert_eq!((path(got.as_ref()).as_str(), left), (address, rest.as_bytes()), "{given}");
        }
        assert_eq!(parse_path(b"<a@b"), Err(AddressError::BadPath));
        assert_eq!(parse_path(b"<@one a@b>"), Err(AddressError::BadPath));
        assert_eq!(parse_path(b"a@b>"), Err(AddressError::Trailing));
        assert_eq!(parse_path(b""), Err(AddressError::Empty));
        assert_eq!(parse_path(b"<a@b\x00c>"), Err(AddressError::BadDomain));
    }
}

//! A mail address: parse, quote, compare.
//!
//! An [`Address`] holds the meaning, not the spelling: the local part without
//! quotes, the domain in lower case, a literal in its canonical form. Writing it
//! puts quotes where the syntax asks for them. A value of this type has no
//! control character and no byte outside ASCII, so it can be written into a
//! header, a log line or a command as it is. Does not know which domains are
//! local, nor what `+` means: see `route`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

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
        let (address, rest) = scan(text.as_bytes())?;
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

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_dot_string(&self.local) {
            f.write_str(&self.local)?;
        } else {
            f.write_str("\"")?;
            for c in self.local.chars() {
                if matches!(c, '"' | '\\') {
                    f.write_str("\\")?;
                }
                write!(f, "{c}")?;
            }
            f.write_str("\"")?;
        }
        if self.domain.is_empty() { Ok(()) } else { write!(f, "@{}", self.domain) }
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

/// A reverse-path or forward-path and what follows it on the line.
///
/// `None` is the null reverse-path `<>`. A source route is read and dropped
/// (RFC 5321 appendix C). Angle brackets may be missing, as people type it; the
/// path then ends at the first blank.
///
/// # Errors
/// Whatever is wrong with it first.
pub fn parse_path(text: &[u8]) -> Result<(Option<Address>, &[u8]), AddressError> {
    let text = text.trim_ascii_start();
    let Some(inside) = text.strip_prefix(b"<") else {
        let (address, rest) = scan(text)?;
        return match rest.first() {
            None | Some(b' ') => Ok((Some(address), rest)),
            Some(_) => Err(AddressError::Trailing),
        };
    };
    let inside = inside.trim_ascii_start();
    if let Some(rest) = inside.strip_prefix(b">") {
        return Ok((None, rest));
    }
    let (address, rest) = scan(skip_source_route(inside)?)?;
    let rest = rest.trim_ascii_start().strip_prefix(b">").ok_or(AddressError::BadPath)?;
    Ok((Some(address), rest))
}

/// A path as it is written: `<a@b>`, or `<>` for none.
pub fn path(address: Option<&Address>) -> String {
    address.map_or_else(|| "<>".to_owned(), |a| format!("<{a}>"))
}

/// A domain or literal in canonical form: names in lower case.
///
/// # Errors
/// [`AddressError::BadDomain`] or [`AddressError::BadLiteral`].
pub fn parse_domain(text: &str) -> Result<Box<str>, AddressError> {
    if !text.is_ascii() {
        return Err(AddressError::NotAscii);
    }
    if text.starts_with('[') {
        return match literal(text).ok_or(AddressError::BadLiteral)? {
            IpAddr::V4(ip) => Ok(format!("[{ip}]").into()),
            IpAddr::V6(ip) => Ok(format!("[IPv6:{ip}]").into()),
        };
    }
    let good_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    if text.len() > 255 || !text.split('.').all(good_label) {
        return Err(AddressError::BadDomain);
    }
    Ok(text.to_ascii_lowercase().into())
}

/// The address that a domain stands for, if it is a literal such as `[192.0.2.1]`.
pub fn literal(domain: &str) -> Option<IpAddr> {
    let inside = domain.strip_prefix('[')?.strip_suffix(']')?;
    match inside.get(..5) {
        Some(tag) if tag.eq_ignore_ascii_case("ipv6:") => inside[5..].parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => inside.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

/// Reads one address from the front of `text`: what it is, and the rest.
fn scan(text: &[u8]) -> Result<(Address, &[u8]), AddressError> {
    let (local, rest) = scan_local(text)?;
    let (domain, rest) = match rest.strip_prefix(b"@") {
        None => (Box::default(), rest),
        Some(after) => {
            let end = if after.starts_with(b"[") {
                after.iter().position(|&b| b == b']').ok_or(AddressError::BadLiteral)? + 1
            } else {
                after.iter().position(|b| matches!(b, b' ' | b'\t' | b'>')).unwrap_or(after.len())
            };
            let text = std::str::from_utf8(&after[..end]).map_err(|_| AddressError::NotAscii)?;
            (parse_domain(text)?, &after[end..])
        }
    };
    if local.len() + domain.len() >= MAX_ADDRESS {
        return Err(AddressError::TooLong);
    }
    Ok((Address { local, domain }, rest))
}

fn scan_local(text: &[u8]) -> Result<(Box<str>, &[u8]), AddressError> {
    let mut local = String::new();
    let rest = if let Some(quoted) = text.strip_prefix(b"\"") {
        let mut bytes = quoted.iter().enumerate();
        loop {
            match bytes.next() {
                Some((at, b'"')) => break &quoted[at + 1..],
                Some((_, b'\\')) => match bytes.next() {
                    Some((_, &b @ b' '..=b'~')) => local.push(b.into()),
                    _ => return Err(AddressError::BadLocal),
                },
                Some((_, &b @ b' '..=b'~')) => local.push(b.into()),
                Some((_, 0x80..)) => return Err(AddressError::NotAscii),
                _ => return Err(AddressError::BadLocal),
            }
        }
    } else {
        let end = text.iter().position(|&b| !is_atom(b) && b != b'.').unwrap_or(text.len());
        local.extend(text[..end].iter().map(|&b| char::from(b)));
        match text.get(end) {
            Some(0x80..) => return Err(AddressError::NotAscii),
            Some(b'@' | b' ' | b'\t' | b'>') | None => &text[end..],
            Some(_) => return Err(AddressError::BadLocal),
        }
    };
    match (local.is_empty(), text.first()) {
        (true, None | Some(b' ' | b'\t' | b'>')) => Err(AddressError::Empty),
        (true, _) => Err(AddressError::BadLocal),
        (false, _) => Ok((local.into(), rest)),
    }
}

/// `@a,@b:user@c`: what follows the colon.
fn skip_source_route(text: &[u8]) -> Result<&[u8], AddressError> {
    if !text.starts_with(b"@") {
        return Ok(text);
    }
    let colon = text.iter().position(|&b| b == b':').ok_or(AddressError::BadPath)?;
    // An IPv6 literal in the route has colons of its own.
    let end = match text[..colon].iter().rposition(|&b| b == b'[') {
        Some(open) => {
            let close = text[open..].iter().position(|&b| b == b']').ok_or(AddressError::BadPath)?;
            let after = &text[open + close..];
            open + close + after.iter().position(|&b| b == b':').ok_or(AddressError::BadPath)?
        }
        None => colon,
    };
    Ok(&text[end + 1..])
}

fn is_atom(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&b)
}

fn is_dot_string(local: &str) -> bool {
    local.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(is_atom))
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

//! Parses SPF records (RFC 7208 4.5, 4.6, 5, 6).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::SpfResult;
use super::macros::Macros;

/// A record. Its whole syntax is correct.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) directives: Vec<Directive<'a>>,
    pub(super) redirect: Option<Macros>,
    pub(super) explanation: Option<Macros>,
}

/// A mechanism, and the result of the check if the mechanism matches.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Directive<'a> {
    pub(super) result: SpfResult,
    pub(super) mechanism: Mechanism,
    /// The mechanism as it stands in the record.
    pub(super) text: &'a str,
}

/// A mechanism. If its domain is `None`, the domain of the record is meant.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mechanism {
    All,
    Include(Macros),
    A(Option<Macros>, Prefixes),
    Mx(Option<Macros>, Prefixes),
    Ptr(Option<Macros>),
    Network(IpAddr, u8),
    Exists(Macros),
}

/// How many bits of two addresses are compared, counted from the beginning, for each address
/// family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Prefixes {
    ipv4: u8,
    ipv6: u8,
}

impl Prefixes {
    /// Returns whether two addresses are of the same family and have the same prefix.
    pub(super) fn matches(self, one: IpAddr, other: IpAddr) -> bool {
        is_within(one, other, if one.is_ipv4() { self.ipv4 } else { self.ipv6 })
    }
}

/// Returns whether two addresses are of the same family and agree in their first `bits` bits.
pub(super) fn is_within(one: IpAddr, other: IpAddr, bits: u8) -> bool {
    match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => {
            let differ = u32::from(one) ^ u32::from(other);
            differ.checked_shr(32 - u32::from(bits)).unwrap_or(0) == 0
        }
        (IpAddr::V6(one), IpAddr::V6(other)) => {
            let differ = u128::from(one) ^ u128::from(other);
            differ.checked_shr(128 - u32::from(bits)).unwrap_or(0) == 0
        }
        _ => false,
    }
}

/// Returns whether a TXT record is an SPF record, even one with a wrong syntax.
pub fn is_spf(text: &[u8]) -> bool {
    const VERSION: &[u8] = b"v=spf1";
    text.get(..VERSION.len()).is_some_and(|start| start.eq_ignore_ascii_case(VERSION))
        && matches!(text.get(VERSION.len()), None | Some(b' '))
}

impl<'a> Record<'a> {
    /// Parses a record for which [`is_spf`] is true.
    ///
    /// # Errors
    /// The term whose syntax is wrong, or a description of the error.
    pub(super) fn parse(text: &'a [u8]) -> Result<Self, &'a str> {
        let text = std::str::from_utf8(text).ok().filter(|text| text.bytes().all(|b| (b' '..=b'~').contains(&b)));
        let text = text.ok_or("a character that is not printable ASCII")?;
        let mut record = Self { directives: Vec::new(), redirect: None, explanation: None };
        for term in text.split(' ').skip(1).filter(|term| !term.is_empty()) {
            record.add(term).ok_or(term)?;
        }
        Ok(record)
    }

    /// Adds a term. Returns `None` if its syntax is wrong.
    fn add(&mut self, term: &'a str) -> Option<()> {
        let name = term.find(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c)));
        if let Some((name, value)) = name.filter(|at| term[*at..].starts_with('=')).map(|at| term.split_at(at)) {
            return self.add_modifier(name, &value[1..]);
        }
        let (result, text) = match term.as_bytes()[0] {
            b'+' => (SpfResult::Pass, &term[1..]),
            b'-' => (SpfResult::Fail, &term[1..]),
            b'~' => (SpfResult::SoftFail, &term[1..]),
            b'?' => (SpfResult::Neutral, &term[1..]),
            _ => (SpfResult::Pass, term),
        };
        let mechanism = Mechanism::parse(text)?;
        self.directives.push(Directive { result, mechanism, text });
        Some(())
    }

    fn add_modifier(&mut self, name: &str, value: &str) -> Option<()> {
        if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return None;
        }
        let place = match name.to_ascii_lowercase().as_str() {
            "redirect" => &mut self.redirect,
            "exp" => &mut self.explanation,
            _ => return Macros::parse(value).map(|_| ()),
        };
        match place.replace(Macros::parse_domain(value)?) {
            Some(_) => None, // The modifier is there twice.
            None => Some(()),
        }
    }
}

impl Mechanism {
    fn parse(text: &str) -> Option<Self> {
        let (name, rest) = text.split_at(text.find([':', '/']).unwrap_or(text.len()));
        let argument = rest.strip_prefix(':');
        Some(match name.to_ascii_lowercase().as_str() {
            "all" if rest.is_empty() => Self::All,
            "include" => Self::Include(Macros::parse_domain(argument?)?),
            "exists" => Self::Exists(Macros::parse_domain(argument?)?),
            "ptr" if rest.is_empty() => Self::Ptr(None),
            "ptr" => Self::Ptr(Some(Macros::parse_domain(argument?)?)),
            "a" => {
                let (domain, prefixes) = domain_and_prefixes(rest)?;
                Self::A(domain, prefixes)
            }
            "mx" => {
                let (domain, prefixes) = domain_and_prefixes(rest)?;
                Self::Mx(domain, prefixes)
            }
            "ip4" => {
                let (address, bits) = network(argument?, 32)?;
                Self::Network(address.parse::<Ipv4Addr>().ok()?.into(), bits)
            }
            "ip6" => {
                let (address, bits) = network(argument?, 128)?;
                Self::Network(address.parse::<Ipv6Addr>().ok()?.into(), bits)
            }
            _ => return None,
        })
    }

    /// Returns whether the mechanism counts towards the limit of terms that ask the DNS.
    pub(super) fn asks_dns(&self) -> bool {
        !matches!(self, Self::All | Self::Network(..))
    }
}

/// Parses `[:domain][/bits][//bits]`.
fn domain_and_prefixes(text: &str) -> Option<(Option<Macros>, Prefixes)> {
    let (text, ipv6) = split_prefix(text, "//", 128)?;
    let (text, ipv4) = split_prefix(text, "/", 32)?;
    let domain = match text {
        "" => None,
        text => Some(Macros::parse_domain(text.strip_prefix(':')?)?),
    };
    Some((domain, Prefixes { ipv4, ipv6 }))
}

/// Splits the length of a prefix off the end of a text. If the text has none, the length is `max`.
/// Returns `None` if the length is malformed.
fn split_prefix<'a>(text: &'a str, mark: &str, max: u8) -> Option<(&'a str, u8)> {
    let before = text.trim_end_matches(|c: char| c.is_ascii_digit());
    match before.strip_suffix(mark) {
        Some(rest) if before.len() < text.len() => Some((rest, bits(&text[before.len()..], max)?)),
        _ => Some((text, max)),
    }
}

/// Parses `address[/bits]`.
fn network(text: &str, max: u8) -> Option<(&str, u8)> {
    match text.split_once('/') {
        Some((address, length)) => Some((address, bits(length, max)?)),
        None => Some((text, max)),
    }
}

/// Parses a number of bits of at most `max`. A leading zero is malformed.
fn bits(digits: &str, max: u8) -> Option<u8> {
    let is_number = digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    digits.parse().ok().filter(|bits| is_number && *bits <= max)
}

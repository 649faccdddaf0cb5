//! Defines how this host connects to other hosts: from which addresses, and over IPv4 or IPv6.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use toml::de::DeValue;

use super::Remote;
use super::document::Section;
use super::print::{Printer, list};
use crate::json::quote;

/// The addresses from which this host connects to others, at most one of each family.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sources {
    /// The address for connections to IPv4 addresses.
    pub v4: Option<Ipv4Addr>,
    /// The address for connections to IPv6 addresses.
    pub v6: Option<Ipv6Addr>,
}

/// A family of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The families of addresses to which this host connects, the preferred one first. If there are none,
/// both are used, and neither is preferred.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Families(Vec<Family>);

impl Sources {
    /// Adds an address.
    ///
    /// # Errors
    /// The text that says what was expected.
    pub fn add(&mut self, text: &str) -> Result<(), String> {
        let expected = || "expected an address of this host, such as 192.0.2.1 or 2001:db8::1".to_owned();
        let address = text.parse::<IpAddr>().map_err(|_| expected())?.to_canonical();
        if address.is_unspecified() || address.is_multicast() {
            return Err(expected());
        }
        let is_second = match address {
            IpAddr::V4(address) => self.v4.replace(address).is_some(),
            IpAddr::V6(address) => self.v6.replace(address).is_some(),
        };
        if is_second { Err("expected at most one IPv4 address and one IPv6 address".to_owned()) } else { Ok(()) }
    }

    /// The addresses.
    pub fn all(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.v4.map(IpAddr::V4).into_iter().chain(self.v6.map(IpAddr::V6))
    }

    /// The address of a family.
    pub fn of(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.v4.map(IpAddr::V4),
            Family::V6 => self.v6.map(IpAddr::V6),
        }
    }
}

impl Family {
    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.to_canonical().is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The name of the family in the configuration.
    pub fn word(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        }
    }
}

/// The name of the family in texts.
impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

impl Families {
    /// Adds a family, after those that are there.
    ///
    /// # Errors
    /// The text that says what was expected.
    pub fn add(&mut self, word: &str) -> Result<(), String> {
        let known = [Family::V4, Family::V6].into_iter().find(|family| family.word() == word);
        let family = known.ok_or("expected ipv4 or ipv6")?;
        if self.0.contains(&family) {
            return Err(format!("{word} is already in the list"));
        }
        self.0.push(family);
        Ok(())
    }

    /// The families in the order of the list.
    pub fn all(&self) -> impl Iterator<Item = Family> {
        self.0.iter().copied()
    }

    /// The place of a family in the order in which addresses are tried; `None` if its addresses are not
    /// used.
    pub fn place(&self, family: Family) -> Option<usize> {
        if self.0.is_empty() { Some(0) } else { self.0.iter().position(|other| *other == family) }
    }
}

/// Reads the key `source`; `None` if the table does not have it, or if it has an error.
pub(super) fn source(section: &mut Section<'_, '_>) -> Option<Sources> {
    let mut sources = Sources::default();
    section.take_all("source", |value: &DeValue<'_>| sources.add(value.as_str().unwrap_or_default()))?;
    Some(sources)
}

/// Reads the key `families`; `None` if the table does not have it, or if it has an error.
pub(super) fn families(section: &mut Section<'_, '_>) -> Option<Families> {
    let mut families = Families::default();
    section.take_all("families", |value: &DeValue<'_>| families.add(value.as_str().unwrap_or_default()))?;
    Some(families)
}

/// Prints the keys `source`, `families` and `hello` of `[remote]`.
pub(super) fn print(out: &mut Printer<'_>, remote: &Remote) {
    out.key("source", list(&remote.source.all().collect::<Vec<_>>(), |address| quote(&address.to_string())));
    out.key("families", list(&remote.families.all().collect::<Vec<_>>(), |family| quote(family.word())));
    out.key("hello", quote(remote.hello.as_deref().unwrap_or_default()));
}

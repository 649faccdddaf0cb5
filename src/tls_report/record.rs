//! Parses the TXT record by which a domain asks for TLS reports (RFC 8460 3).

use std::net::Ipv6Addr;

use crate::address::{Address, parse_dns_name};
use crate::aggregate::uri::{is_mailto, mailto};

/// The maximum length of a record, in octets.
const MAX_RECORD: usize = 4096;
/// The maximum number of destinations that are used.
pub const MAX_DESTINATIONS: usize = 4;
/// The maximum length of the URI of a web server, in octets.
const MAX_URI: usize = 1024;

/// A record. It has at least one destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The places where the domain wants its reports, in the order of the record.
    pub destinations: Vec<Destination>,
}

/// A place where a domain wants its reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// An address.
    Mail(Address),
    /// A URI with the scheme `https` and the standard port.
    Https {
        /// The domain or the IP address.
        host: String,
        /// The path and the query.
        path: String,
    },
}

impl Record {
    /// Returns the record among the TXT records of `_smtp._tls.DOMAIN`. Returns `None` if there is
    /// no record, if there are several, or if the record is malformed.
    pub fn find(texts: &[Vec<u8>]) -> Option<Self> {
        let is_it = |text: &&Vec<u8>| {
            let rest = text.strip_prefix(VERSION).map(<[u8]>::trim_ascii_start);
            rest.is_some_and(|rest| rest.first().is_none_or(|&b| b == b';'))
        };
        let mut found = texts.iter().filter(is_it);
        match (found.next(), found.next()) {
            (Some(text), None) => Self::parse(text),
            _ => None,
        }
    }

    /// Parses a record. Returns `None` if the text is malformed, or names no place where a report
    /// can be sent.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok().filter(|text| text.len() <= MAX_RECORD && text.is_ascii())?;
        let mut fields = text.split(';').map(|field| field.trim_matches([' ', '\t']));
        if fields.next()?.as_bytes() != VERSION {
            return None;
        }
        let mut destinations: Option<Vec<Destination>> = None;
        while let Some(field) = fields.next() {
            // A record may end with `;`.
            if field.is_empty() && fields.clone().next().is_none() {
                break;
            }
            let (name, value) = field.split_once('=')?;
            match name {
                "rua" if destinations.is_some() => return None,
                "rua" => destinations = Some(places(value)?),
                _ => is_extension(name, value).then_some(())?,
            }
        }
        destinations.filter(|all| !all.is_empty()).map(|destinations| Self { destinations })
    }
}

const VERSION: &[u8] = b"v=TLSRPTv1";

/// Parses the URIs of `rua`. URIs that cannot be used are left out. Returns `None` if one of them is
/// no URI.
fn places(value: &str) -> Option<Vec<Destination>> {
    let mut all = Vec::new();
    for uri in value.split(',').map(|uri| uri.trim_matches([' ', '\t'])) {
        let (scheme, rest) = uri.split_once(':')?;
        let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
        if !is_scheme || rest.is_empty() || !rest.bytes().all(|b| b.is_ascii_graphic() && b != b'!') {
            return None;
        }
        let place = match () {
            () if is_mailto(uri) => mailto(uri).map(Destination::Mail),
            () if scheme.eq_ignore_ascii_case("https") && uri.len() <= MAX_URI => https(rest),
            () => None,
        };
        all.extend(place.filter(|place| !all.contains(place)));
    }
    all.truncate(MAX_DESTINATIONS);
    Some(all)
}

/// Parses what follows `https:` in a URI. Returns `None` if the URI has a user name or another port
/// than 443. A fragment is left out.
fn https(rest: &str) -> Option<Destination> {
    let rest = rest.strip_prefix("//")?.split('#').next()?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(end)?;
    let host = authority.strip_suffix(":443").unwrap_or(authority);
    let is_address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).is_some_and(is_ipv6);
    let host = if is_address { host.to_owned() } else { parse_dns_name(host)?.into() };
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    Some(Destination::Https { host, path })
}

fn is_ipv6(text: &str) -> bool {
    text.parse::<Ipv6Addr>().is_ok()
}

/// Whether a field is an extension, which is ignored.
fn is_extension(name: &str, value: &str) -> bool {
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
    name.len() <= 32
        && name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && name.bytes().all(is_name)
        && !value.is_empty()
        && value.bytes().all(|b| b.is_ascii_graphic() && b != b'=')
}

/// The URI of the destination, for the log and for the state.
impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Mail(address) => write!(f, "mailto:{address}"),
            Self::Https { host, path } => write!(f, "https://{host}{path}"),
        }
    }
}

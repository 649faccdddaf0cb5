//! Takes the data of one type for one name out of a DNS answer, for a look-up.
//!
//! Answers are untrusted. A record is used only if it has the requested type. Its name must be the
//! requested one, or the end of a chain of aliases in the same answer that begins at the requested
//! name. The amount of data is limited.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use trust_dns_resolver::proto::op::{Message, ResponseCode};
use trust_dns_resolver::proto::rr::{Name, RData, Record, RecordType};

use super::{MAX_ASSOCIATIONS, MAX_EXCHANGERS, MAX_NAMES, MAX_TEXTS};
use crate::address::parse_domain;
use crate::outcome::NoAnswer;

/// The maximum number of addresses kept from an answer: all are IPv4 addresses, or all are IPv6
/// addresses. [`super::MAX_ADDRESSES`] is a second, lower limit for hosts to connect to.
const MAX_KEPT_ADDRESSES: usize = 100;
/// The maximum length of a chain of aliases.
pub(super) const MAX_ALIASES: usize = 10;

/// The data of one type for one name, or why there is none. The data are empty if none of the
/// records was usable.
pub(super) type Found = Result<Data, NoAnswer>;

/// The data of one type for one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Data {
    pub(super) list: Arc<[Datum]>,
    /// Whether a trusted server has verified the answer with DNSSEC, including all aliases.
    pub(super) is_secure: bool,
    /// The name at the end of the aliases; `None` if the name is no alias.
    pub(super) alias_of: Option<Arc<str>>,
}

impl Data {
    /// The approximate size of the value in memory, in bytes.
    pub(super) fn size(&self) -> usize {
        self.alias_of.as_ref().map_or(0, |name| name.len()) + self.list.iter().map(Datum::size).sum::<usize>()
    }
}

/// The data of one record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Datum {
    /// The preference and the name of a mail exchanger; the name of the root is `.`.
    Exchanger(u16, Box<str>),
    /// Any address, usable or not.
    Address(IpAddr),
    Name(Box<str>),
    /// The strings of a TXT record, joined.
    Text(Box<[u8]>),
    /// The usage, the selector, the matching type and the data of a TLSA record.
    Association(u8, u8, u8, Box<[u8]>),
}

impl Datum {
    /// The approximate size of the value in memory, in bytes.
    pub(super) fn size(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Exchanger(_, name) | Self::Name(name) => name.len(),
                Self::Text(bytes) | Self::Association(.., bytes) => bytes.len(),
                Self::Address(_) => 0,
            }
    }

    fn of(record: &Record) -> Option<Self> {
        Some(match &record.data {
            RData::MX(mx) if mx.exchange.is_root() => Self::Exchanger(mx.preference, ".".into()),
            RData::MX(mx) => Self::Exchanger(mx.preference, host_name(&mx.exchange)?),
            // Only a look-up of aliases gets here: others follow the alias.
            RData::CNAME(name) => Self::Name(host_name(&name.0)?),
            RData::PTR(name) => Self::Name(host_name(&name.0)?),
            RData::A(a) => Self::Address(a.0.into()),
            RData::AAAA(a) => Self::Address(a.0.into()),
            RData::TXT(text) => Self::Text(text.txt_data.concat().into()),
            RData::TLSA(tlsa) => Self::Association(
                tlsa.cert_usage.into(),
                tlsa.selector.into(),
                tlsa.matching.into(),
                tlsa.cert_data.as_slice().into(),
            ),
            _ => return None,
        })
    }
}

/// The content of an answer.
pub(super) enum Read {
    /// The data, the name that has it, and its lifetime in seconds.
    Data(Arc<[Datum]>, Name, u32),
    /// An alias: the name that it leads to, for which the answer has no records, and the lifetime
    /// of the alias in seconds.
    Alias(Name, u32),
    /// There is no data, for this reason.
    Nothing(NoAnswer),
}

/// Reads the data for `name` from an answer. `lifetime`, in seconds, is the lifetime of the aliases
/// in earlier answers that led to `name`. The result has at most this lifetime.
pub(super) fn read(message: &Message, name: &Name, kind: RecordType, mut lifetime: u32) -> Read {
    let mut name = name.clone();
    for aliases in 0..=MAX_ALIASES {
        let of_name = || message.answers.iter().filter(|record| record.name == name);
        let mut records = of_name().filter(|record| record.record_type() == kind).peekable();
        if records.peek().is_some() {
            lifetime = lifetime.min(of_name().filter(|r| r.record_type() == kind).map(|r| r.ttl).min().unwrap_or(0));
            let data = data(kind, records);
            return Read::Data(data, name, lifetime);
        }
        let alias = of_name().find_map(|record| match &record.data {
            RData::CNAME(to) => Some((to.0.clone(), record.ttl)),
            _ => None,
        });
        match alias {
            Some((to, ttl)) => (name, lifetime) = (to, lifetime.min(ttl)),
            None if message.metadata.response_code == ResponseCode::NXDomain => {
                return Read::Nothing(NoAnswer::NxDomain);
            }
            None if aliases > 0 => return Read::Alias(name, lifetime),
            None => return Read::Nothing(NoAnswer::NoData),
        }
    }
    Read::Nothing(alias_loop())
}

/// The error for aliases that form a loop, or a chain that is too long.
pub(super) fn alias_loop() -> NoAnswer {
    NoAnswer::Other("the name is an alias in a loop".into())
}

fn data<'a>(kind: RecordType, records: impl Iterator<Item = &'a Record>) -> Arc<[Datum]> {
    let mut data: Vec<_> = records.filter_map(Datum::of).collect();
    if kind == RecordType::MX {
        data.sort();
        data.dedup();
    }
    // Unusable addresses come last, so that the limit drops them first.
    data.sort_by_key(|datum| matches!(datum, Datum::Address(address) if !is_usable(*address)));
    data.truncate(match kind {
        RecordType::MX => MAX_EXCHANGERS,
        RecordType::PTR => MAX_NAMES,
        RecordType::TXT => MAX_TEXTS,
        RecordType::TLSA => MAX_ASSOCIATIONS,
        _ => MAX_KEPT_ADDRESSES,
    });
    data.into()
}

/// The text of a name, if it is valid for a host.
fn host_name(name: &Name) -> Option<Box<str>> {
    let text = name.to_ascii();
    let text = parse_domain(text.strip_suffix('.').unwrap_or(&text)).ok()?;
    // Some zones contain an address in place of a name. Such an address must be usable.
    let is_good = text.parse().map_or(!text.starts_with('['), is_usable);
    is_good.then_some(text)
}

/// Whether an address can belong to another host: a connection to 0.0.0.0, for example, would
/// reach this host.
pub fn is_usable(address: IpAddr) -> bool {
    let address = address.to_canonical();
    !(address.is_unspecified() || address.is_multicast() || address == Ipv4Addr::BROADCAST)
}

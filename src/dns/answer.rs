//! What is kept of an answer: the data asked for, checked and bounded.
//!
//! A stranger may have written all of it. Records of other names or types than those
//! asked for, beyond a chain of aliases in the same answer, are not looked at.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use trust_dns_resolver::proto::op::{Message, ResponseCode};
use trust_dns_resolver::proto::rr::{Name, RData, Record, RecordType};

use super::{MAX_ADDRESSES, MAX_EXCHANGERS};
use crate::address::parse_domain;
use crate::outcome::NoAnswer;

/// How many names of an address are kept.
const MAX_POINTERS: usize = 10;
/// How many aliases are followed from one name to the next.
pub(super) const MAX_ALIASES: usize = 10;

/// The data of one type for one name; may be none where all of it was dropped.
pub(super) type Found = Result<Arc<[Datum]>, NoAnswer>;

/// One record's data.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Datum {
    /// Preference and name; the root is `.`.
    Exchanger(u16, Box<str>),
    Address(IpAddr),
    Name(Box<str>),
}

impl Datum {
    /// Octets of memory, about.
    pub(super) fn size(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Exchanger(_, name) | Self::Name(name) => name.len(),
                Self::Address(_) => 0,
            }
    }

    fn of(record: &Record) -> Option<Self> {
        Some(match &record.data {
            RData::MX(mx) if mx.exchange.is_root() => Self::Exchanger(mx.preference, ".".into()),
            RData::MX(mx) => Self::Exchanger(mx.preference, host_name(&mx.exchange)?),
            RData::PTR(name) => Self::Name(host_name(&name.0)?),
            RData::A(a) => Self::Address(a.0.into()),
            RData::AAAA(a) => Self::Address(a.0.into()),
            _ => return None,
        })
    }
}

/// Where an answer leads.
pub(super) enum Read {
    /// This is the data, and for so many seconds.
    Data(Arc<[Datum]>, u32),
    /// The name is an alias of one that the answer says nothing about.
    Alias(Name, u32),
    /// There is no data.
    Nothing(NoAnswer),
}

/// What an answer says of `name`. `lifetime` is what is left of it by the answers before.
pub(super) fn read(message: &Message, name: &Name, kind: RecordType, mut lifetime: u32) -> Read {
    let mut name = name.clone();
    for aliases in 0..=MAX_ALIASES {
        let of_name = || message.answers.iter().filter(|record| record.name == name);
        let mut records = of_name().filter(|record| record.record_type() == kind).peekable();
        if records.peek().is_some() {
            lifetime = lifetime.min(of_name().filter(|r| r.record_type() == kind).map(|r| r.ttl).min().unwrap_or(0));
            return Read::Data(data(kind, records), lifetime);
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
    Read::Nothing(in_a_circle())
}

/// Aliases lead to each other, or there is no end of them.
pub(super) fn in_a_circle() -> NoAnswer {
    NoAnswer::Other("the name is an alias that leads in a circle".into())
}

fn data<'a>(kind: RecordType, records: impl Iterator<Item = &'a Record>) -> Arc<[Datum]> {
    let mut data: Vec<_> = records.filter_map(Datum::of).collect();
    if kind == RecordType::MX {
        data.sort();
        data.dedup();
        data.truncate(MAX_EXCHANGERS);
    }
    // Beside many that are nobody's there may be one that is a host's.
    data.retain(|datum| !matches!(datum, Datum::Address(address) if !is_a_hosts(*address)));
    data.truncate(match kind {
        RecordType::MX => MAX_EXCHANGERS,
        RecordType::PTR => MAX_POINTERS,
        _ => MAX_ADDRESSES,
    });
    data.into()
}

/// The text of a name, if a host may have it.
fn host_name(name: &Name) -> Option<Box<str>> {
    let text = name.to_ascii();
    let text = parse_domain(text.strip_suffix('.').unwrap_or(&text)).ok()?;
    // Some write an address for a name; it must be one that a host can have.
    let is_good = text.parse().map_or(!text.starts_with('['), is_a_hosts);
    is_good.then_some(text)
}

/// Whether an address can be another host's: 0.0.0.0 would lead to this one under
/// another name.
pub fn is_a_hosts(address: IpAddr) -> bool {
    let address = address.to_canonical();
    !(address.is_unspecified() || address.is_multicast() || address == Ipv4Addr::BROADCAST)
}

//! Look-ups of one record type, which begin at once and are awaited later, so that many can run at
//! the same time.
//!
//! Only the DNS is asked; hosts(5) is not used. A name need not be valid for a host: its labels may
//! contain any printable ASCII, because SPF macros and DNS lists make such names. Addresses are
//! reported as they are: loopback addresses, private addresses and 0.0.0.0 are not dropped, since
//! the answers of DNS lists are loopback addresses. Never connect to such an address without
//! [`super::is_usable`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use trust_dns_resolver::proto::rr::{Name, RecordType};

use super::answer::Datum;
use super::{Dns, Pending, ask_for};
use crate::outcome::NoAnswer;

/// The maximum length of a name, in octets, without its final dot.
const MAX_NAME: usize = 253;
/// The maximum length of a label, in octets.
const MAX_LABEL: usize = 63;

/// A look-up that has begun.
pub struct Begun<T> {
    pending: Result<Pending, NoAnswer>,
    read: fn(&Datum) -> Option<T>,
}

impl<T> Begun<T> {
    /// Waits for the end of the look-up. The number of data is limited. If the name has records but
    /// none of them is usable, the result is empty.
    ///
    /// # Errors
    /// A [`NoAnswer`]; `Timeout` if the time that was set when the look-up began is over.
    pub fn wait(self) -> Result<Vec<T>, NoAnswer> {
        Ok(self.pending?.wait()?.list.iter().filter_map(self.read).collect())
    }
}

impl Dns {
    /// Begins to look up the TXT records of a name. The strings of a record are joined. At most
    /// [`super::MAX_TEXTS`] records are kept; together they fit into one DNS message, so they have
    /// less than 64 KiB.
    pub fn begin_txt(&self, name: &str, until: Instant) -> Begun<Vec<u8>> {
        self.begin(name, RecordType::TXT, until, |datum| match datum {
            Datum::Text(text) => Some(text.to_vec()),
            _ => None,
        })
    }

    /// Begins to look up the IPv4 addresses of a name.
    pub fn begin_ipv4(&self, name: &str, until: Instant) -> Begun<Ipv4Addr> {
        self.begin(name, RecordType::A, until, |datum| match datum {
            Datum::Address(IpAddr::V4(address)) => Some(*address),
            _ => None,
        })
    }

    /// Begins to look up the IPv6 addresses of a name.
    pub fn begin_ipv6(&self, name: &str, until: Instant) -> Begun<Ipv6Addr> {
        self.begin(name, RecordType::AAAA, until, |datum| match datum {
            Datum::Address(IpAddr::V6(address)) => Some(*address),
            _ => None,
        })
    }

    /// Begins to look up the mail exchangers of a domain, as [`Dns::mx`] reports them.
    pub fn begin_mx(&self, domain: &str, until: Instant) -> Begun<(u16, String)> {
        self.begin(domain, RecordType::MX, until, |datum| match datum {
            Datum::Exchanger(preference, name) => Some((*preference, name.to_string())),
            _ => None,
        })
    }

    /// Begins to look up the names of an address, at most [`super::MAX_NAMES`]. They are what the
    /// owner of the address claims, and are not verified.
    pub fn begin_names(&self, address: IpAddr, until: Instant) -> Begun<String> {
        let name = Name::from(address.to_canonical()).to_ascii();
        self.begin(&name, RecordType::PTR, until, |datum| match datum {
            Datum::Name(name) => Some(name.to_string()),
            _ => None,
        })
    }

    /// Begins to look up the name for which a name is an alias (CNAME).
    pub fn begin_alias(&self, name: &str, until: Instant) -> Begun<String> {
        self.begin(name, RecordType::CNAME, until, |datum| match datum {
            Datum::Name(name) => Some(name.to_string()),
            _ => None,
        })
    }

    fn begin<T>(&self, name: &str, kind: RecordType, until: Instant, read: fn(&Datum) -> Option<T>) -> Begun<T> {
        let until = until.min(self.deadline());
        let pending = parse(name).and_then(|(text, name)| ask_for(&self.running()?, text, name, kind, until, false));
        Begun { pending, read }
    }
}

/// Returns a name in lower case without its final dot, and as a value for the resolver.
pub(super) fn parse(name: &str) -> Result<(Box<str>, Name), NoAnswer> {
    let text = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let is_label = |label: &str| (1..=MAX_LABEL).contains(&label.len()) && label.bytes().all(is_printable);
    if text.len() > MAX_NAME || !text.split('.').all(is_label) {
        return Err(NoAnswer::BadName);
    }
    let mut name = Name::from_labels(text.split('.').map(str::as_bytes)).map_err(|_| NoAnswer::BadName)?;
    name.set_fqdn(true);
    Ok((text.into(), name))
}

fn is_printable(octet: u8) -> bool {
    (b' '..=b'~').contains(&octet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_short_labels_of_printable_ascii() {
        let (label, name) = ("a".repeat(MAX_LABEL), "ab.".repeat(84) + "c");
        for good in ["a", "a.b.", "_x.-y-.Z", "2.0.0.127.list.example", "a b%c*.example", &label, &name] {
            let (text, value) = parse(good).expect(good);
            assert_eq!(&*text, good.trim_end_matches('.').to_ascii_lowercase());
            assert_eq!(usize::from(value.num_labels()), good.trim_end_matches('.').split('.').count());
            assert!(value.is_fqdn());
        }
        let (label, name) = (label + "a", name + "d");
        for bad in ["", ".", "..", "a..b", ".a", "a..", "a\tb", "a\u{fc}", "a\0", "a\x7f", &label, &name] {
            assert_eq!(parse(bad).err(), Some(NoAnswer::BadName), "{bad:?}");
        }
    }
}

//! Looks up what a delivery needs, and says whether the answers are secure: verified with DNSSEC by a
//! name server that this host trusts (`dns.trust_ad`).
//!
//! This host does not verify signatures itself. A name server that does answers SERVFAIL if they are
//! wrong. So a look-up that fails must not be taken for a name without records.

use std::fmt;
use std::net::IpAddr;
use std::sync::mpsc::sync_channel;
use std::time::Instant;

use data_encoding::HEXLOWER;
use trust_dns_resolver::proto::rr::{Name, RecordType};

use super::answer::{Data, Datum};
use super::{Dns, Pair, Pending, Running, ask};
use crate::outcome::NoAnswer;

/// Data of the DNS, and whether they are secure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered<T> {
    /// The data.
    pub data: T,
    /// Whether a trusted name server has verified the answer with DNSSEC, including all aliases.
    pub is_secure: bool,
    /// The name at the end of the aliases (CNAME); `None` if the name is no alias.
    pub alias_of: Option<String>,
}

/// A TLSA record (RFC 6698). Unknown values are possible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Association {
    /// The certificate usage.
    pub usage: u8,
    /// The selector.
    pub selector: u8,
    /// The matching type.
    pub matching: u8,
    /// The certificate association data.
    pub data: Box<[u8]>,
}

/// The presentation format of RFC 6698 2.2, with the data in lower case.
impl fmt::Display for Association {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { usage, selector, matching, data } = self;
        write!(f, "{usage} {selector} {matching} {}", HEXLOWER.encode(data))
    }
}

impl<T> Answered<T> {
    /// Data that are not secure.
    pub(super) fn insecure(data: T) -> Self {
        Self { data, is_secure: false, alias_of: None }
    }
}

impl<T> Answered<Vec<T>> {
    /// The usable data of an answer.
    pub(super) fn of(data: Data, read: impl Fn(&Datum) -> Option<T>) -> Self {
        Self {
            data: data.list.iter().filter_map(read).collect(),
            is_secure: data.is_secure,
            alias_of: data.alias_of.as_deref().map(str::to_owned),
        }
    }
}

impl Dns {
    /// Whether the name servers are trusted to have verified the answers that they call secure.
    pub fn trusts_servers(&self) -> bool {
        self.running().is_ok_and(|running| running.servers.is_trusted())
    }

    /// Whether the name servers verify DNSSEC and say so, if they are trusted. The root zone, which is
    /// signed, is looked up, and not in the cache.
    ///
    /// # Errors
    /// A [`NoAnswer`].
    pub fn verifies_dnssec(&self) -> Result<bool, NoAnswer> {
        // The first answer of a slow server may be that to a query without EDNS, which is never
        // secure. The second one comes from the server's cache.
        Ok(self.is_root_secure()? || self.is_root_secure()?)
    }

    fn is_root_secure(&self) -> Result<bool, NoAnswer> {
        let (Running { servers, runtime, .. }, until) = (self.running()?, self.deadline());
        let (sender, answer) = sync_channel(1);
        runtime.spawn(async move {
            let (found, _) = servers.look_up(Name::root(), RecordType::NS, true, until).await;
            let _ = sender.send(found);
        });
        Ok(Pending::Waiting(answer, until).wait()?.is_secure)
    }

    /// The mail exchangers of `domain`, as [`Dns::mx`] reports them. With `dnssec` the answer says
    /// whether it is secure, if the name servers are trusted.
    ///
    /// # Errors
    /// A [`NoAnswer`]; `NoData` means that the domain has no MX record.
    pub fn exchangers(&self, domain: &str, dnssec: bool) -> Result<Answered<Vec<(u16, String)>>, NoAnswer> {
        let running = self.running()?;
        let data = ask(&running, domain, RecordType::MX, self.deadline(), dnssec)?.wait()?;
        Ok(Answered::of(data, |datum| match datum {
            Datum::Exchanger(preference, name) => Some((*preference, name.to_string())),
            _ => None,
        }))
    }

    /// The addresses of several hosts. The look-ups run concurrently and all end within
    /// `dns.timeout`. With `dnssec` the answers say whether they are secure, if the name servers are
    /// trusted. Addresses from hosts(5) are not secure.
    pub fn addresses_of_all(&self, hosts: &[&str], dnssec: bool) -> Vec<Result<Answered<Vec<IpAddr>>, NoAnswer>> {
        let running = match self.running() {
            Ok(running) => running,
            Err(trouble) => return vec![Err(trouble); hosts.len()],
        };
        let until = self.deadline();
        let asked: Vec<_> = hosts.iter().map(|host| Pair::ask(&running, host, until, dnssec)).collect();
        asked.into_iter().map(|pair| pair?.wait()).collect()
    }

    /// The TLSA records of a port of a host, at most [`super::MAX_ASSOCIATIONS`], with whether they
    /// are secure.
    ///
    /// # Errors
    /// A [`NoAnswer`]. `NxDomain` and `NoData` mean that there are none. After any other error there
    /// may be some.
    pub fn tlsa(&self, host: &str, port: u16) -> Result<Answered<Vec<Association>>, NoAnswer> {
        self.tlsa_by(host, port, self.deadline())
    }

    /// The same, but at the latest at `until`.
    pub(super) fn tlsa_by(
        &self,
        host: &str,
        port: u16,
        until: Instant,
    ) -> Result<Answered<Vec<Association>>, NoAnswer> {
        let (text, name) = super::begun::parse(&format!("_{port}._tcp.{host}"))?;
        let (running, until) = (self.running()?, until.min(self.deadline()));
        let data = super::ask_for(&running, text, name, RecordType::TLSA, until, true)?.wait()?;
        Ok(Answered::of(data, |datum| match datum {
            Datum::Association(usage, selector, matching, data) => {
                Some(Association { usage: *usage, selector: *selector, matching: *matching, data: data.clone() })
            }
            _ => None,
        }))
    }

    /// Whether a name that is an alias (CNAME) is one by a secure answer, whatever it leads to.
    ///
    /// # Errors
    /// A [`NoAnswer`].
    pub fn is_secure_alias(&self, host: &str) -> Result<bool, NoAnswer> {
        let running = self.running()?;
        ask(&running, host, RecordType::CNAME, self.deadline(), true)?.wait().map(|data| data.is_secure)
    }
}

//! Makes the DNS look-ups of one check, such as the checks of one message.
//!
//! [`Until`] makes them through the resolver that all sessions share, until a common deadline.
//! Tests implement [`Lookup`] with a zone in memory.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use super::{Answered, Association, Dns, is_public};
use crate::outcome::NoAnswer;

/// The port of SMTP.
const SMTP: u16 = 25;
/// The maximum number of mail exchangers of a domain with public hosts.
const MAX_HOSTS: usize = 20;

/// The DNS look-ups that the checks need. Names are absolute, with or without the final dot. If a
/// name has records of the type, but none of them is usable, the result is an empty list. [`Dns`]
/// limits the number of records in a result.
pub trait Lookup: Sync {
    /// Looks up the TXT records of a name. The strings of each record are joined.
    ///
    /// # Errors
    /// If there are no records, `NxDomain` or `NoData`. If the name cannot exist in the DNS,
    /// `BadName`. All other errors are temporary.
    fn txt(&self, name: &str) -> Result<Vec<Vec<u8>>, NoAnswer>;

    /// Looks up the TXT records of several names. Where possible, the look-ups run at the same
    /// time.
    fn txt_of_all(&self, names: &[&str]) -> Vec<Result<Vec<Vec<u8>>, NoAnswer>> {
        names.iter().map(|name| self.txt(name)).collect()
    }

    /// Announces look-ups of TXT records that will probably follow, so that an implementation can
    /// begin them now.
    fn announce_txt(&self, names: &[&str]) {
        let _ = names;
    }

    /// Looks up the IPv4 addresses of a name, including addresses that no other host can have, such
    /// as 127.0.0.1.
    ///
    /// # Errors
    /// The same as for `txt`.
    fn ipv4(&self, name: &str) -> Result<Vec<Ipv4Addr>, NoAnswer>;

    /// Looks up the IPv6 addresses of a name, including addresses that no other host can have, such
    /// as ::1.
    ///
    /// # Errors
    /// The same as for `txt`.
    fn ipv6(&self, name: &str) -> Result<Vec<Ipv6Addr>, NoAnswer>;

    /// Looks up the mail exchangers of a domain, the lowest preference first. The name in a null MX
    /// is `.`.
    ///
    /// # Errors
    /// The same as for `txt`.
    fn mx(&self, domain: &str) -> Result<Vec<(u16, String)>, NoAnswer>;

    /// Looks up the names in the PTR records of an address. The owner of the address chooses them,
    /// so they prove nothing.
    ///
    /// # Errors
    /// The same as for `txt`.
    fn names(&self, address: IpAddr) -> Result<Vec<String>, NoAnswer>;

    /// Looks up whether a name is an alias (CNAME). Returns the name for which it stands.
    ///
    /// # Errors
    /// The same as for `txt`, except that a name without an alias is no error.
    fn alias(&self, name: &str) -> Result<Option<String>, NoAnswer> {
        let _ = name;
        Ok(None)
    }

    /// Looks up the TLSA records of the SMTP port of a host.
    ///
    /// # Errors
    /// The same as for `txt`.
    fn tlsa(&self, host: &str) -> Result<Answered<Vec<Association>>, NoAnswer> {
        let _ = host;
        Err(NoAnswer::NoData)
    }

    /// Whether the answers of `tlsa` say whether DNSSEC secures them.
    fn is_validating(&self) -> bool {
        false
    }

    /// Looks up the addresses of several names, either IPv4 or IPv6. Where possible, the look-ups
    /// run at the same time.
    fn addresses(&self, names: &[&str], is_ipv6: bool) -> Vec<Result<Vec<IpAddr>, NoAnswer>> {
        let one = |name: &&str| match is_ipv6 {
            true => self.ipv6(name).map(addresses),
            false => self.ipv4(name).map(addresses),
        };
        names.iter().map(one).collect()
    }
}

/// A DNS that has only TXT records, which a function returns for a name: for tests.
pub struct OnlyTxt<F>(pub F);

impl<F: Fn(&str) -> Result<Vec<Vec<u8>>, NoAnswer> + Sync> Lookup for OnlyTxt<F> {
    fn txt(&self, name: &str) -> Result<Vec<Vec<u8>>, NoAnswer> {
        (self.0)(name)
    }

    fn ipv4(&self, _: &str) -> Result<Vec<Ipv4Addr>, NoAnswer> {
        Err(NoAnswer::NoData)
    }

    fn ipv6(&self, _: &str) -> Result<Vec<Ipv6Addr>, NoAnswer> {
        Err(NoAnswer::NoData)
    }

    fn mx(&self, _: &str) -> Result<Vec<(u16, String)>, NoAnswer> {
        Err(NoAnswer::NoData)
    }

    fn names(&self, _: IpAddr) -> Result<Vec<String>, NoAnswer> {
        Err(NoAnswer::NoData)
    }
}

/// Returns whether the addresses of all hosts that take mail for a domain are known, and are all
/// public. Strangers choose the domains that get reports. So a report never goes to a domain whose
/// mail hosts have addresses of this host or of a private network. A domain with more than
/// [`MAX_HOSTS`] mail exchangers has no public hosts.
pub fn has_public_hosts(lookup: &dyn Lookup, domain: &str) -> bool {
    let hosts = match lookup.mx(domain) {
        Ok(hosts) => hosts.into_iter().map(|(_, host)| host).collect(),
        Err(NoAnswer::NoData) => vec![domain.to_owned()],
        Err(_) => return false,
    };
    if hosts.len() > MAX_HOSTS || hosts.iter().any(|host| host == ".") {
        return false;
    }
    let mut all = Vec::new();
    for host in &hosts {
        for found in [lookup.ipv4(host).map(addresses), lookup.ipv6(host).map(addresses)] {
            match found {
                Ok(found) => all.extend(found),
                Err(NoAnswer::NoData | NoAnswer::NxDomain | NoAnswer::BadName) => {}
                Err(_) => return false,
            }
        }
    }
    !all.is_empty() && all.into_iter().all(is_public)
}

/// Makes look-ups through a resolver. All of them end at a common time.
#[derive(Debug, Clone, Copy)]
pub struct Until<'a> {
    /// The resolver.
    pub dns: &'a Dns,
    /// The time at which every look-up that is not done fails with a timeout.
    pub until: Instant,
}

impl Lookup for Until<'_> {
    fn txt(&self, name: &str) -> Result<Vec<Vec<u8>>, NoAnswer> {
        self.dns.begin_txt(name, self.until).wait()
    }

    fn txt_of_all(&self, names: &[&str]) -> Vec<Result<Vec<Vec<u8>>, NoAnswer>> {
        let begun: Vec<_> = names.iter().map(|name| self.dns.begin_txt(name, self.until)).collect();
        begun.into_iter().map(|one| one.wait()).collect()
    }

    fn announce_txt(&self, names: &[&str]) {
        for name in names {
            // The look-up continues after its handle is dropped. If another look-up of the name
            // begins meanwhile, both share one question to the name server. A later look-up finds
            // the answer in the cache.
            drop(self.dns.begin_txt(name, self.until));
        }
    }

    fn ipv4(&self, name: &str) -> Result<Vec<Ipv4Addr>, NoAnswer> {
        self.dns.begin_ipv4(name, self.until).wait()
    }

    fn ipv6(&self, name: &str) -> Result<Vec<Ipv6Addr>, NoAnswer> {
        self.dns.begin_ipv6(name, self.until).wait()
    }

    fn mx(&self, domain: &str) -> Result<Vec<(u16, String)>, NoAnswer> {
        self.dns.begin_mx(domain, self.until).wait()
    }

    fn names(&self, address: IpAddr) -> Result<Vec<String>, NoAnswer> {
        self.dns.begin_names(address, self.until).wait()
    }

    fn tlsa(&self, host: &str) -> Result<Answered<Vec<Association>>, NoAnswer> {
        self.dns.tlsa_by(host, SMTP, self.until)
    }

    fn is_validating(&self) -> bool {
        self.dns.trusts_servers()
    }

    fn alias(&self, name: &str) -> Result<Option<String>, NoAnswer> {
        match self.dns.begin_alias(name, self.until).wait() {
            Ok(names) => Ok(names.into_iter().next()),
            Err(NoAnswer::NoData | NoAnswer::NxDomain) => Ok(None),
            Err(why) => Err(why),
        }
    }

    fn addresses(&self, names: &[&str], is_ipv6: bool) -> Vec<Result<Vec<IpAddr>, NoAnswer>> {
        if is_ipv6 {
            let begun: Vec<_> = names.iter().map(|name| self.dns.begin_ipv6(name, self.until)).collect();
            begun.into_iter().map(|one| one.wait().map(addresses)).collect()
        } else {
            let begun: Vec<_> = names.iter().map(|name| self.dns.begin_ipv4(name, self.until)).collect();
            begun.into_iter().map(|one| one.wait().map(addresses)).collect()
        }
    }
}

fn addresses(found: Vec<impl Into<IpAddr>>) -> Vec<IpAddr> {
    found.into_iter().map(Into::into).collect()
}
